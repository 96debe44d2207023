"""Whose turn it is."""

from service.domain import SessionKey
from service.turns import Turns


class Waiting:
    """A job of a session."""

    def __init__(self, name, client):
        self.name = name
        self.key = SessionKey("default", "m", client)
        self.is_done = False


def test_turns_give_each_session_one_job_at_a_time_in_order():
    """The second job of a session waits until the first is done."""
    turns = Turns[Waiting]()
    first, second, other = Waiting("1", "a"), Waiting("2", "a"), Waiting("3", "b")
    for job in (first, second, other):
        turns.add(job)

    assert [first, other] == list(turns.take(10))
    assert [] == list(turns.take(10))
    turns.done(first.key)
    assert [second] == list(turns.take(10))
    assert [] == list(turns.behind(second.key))


def test_an_unfinished_job_goes_behind_the_others():
    """A long job gives way to those that wait, and comes again."""
    turns = Turns[Waiting]()
    long, short = Waiting("long", "a"), Waiting("short", "b")
    turns.add(long)
    assert [long] == list(turns.take(1))
    turns.add(short)

    turns.again(long.key)

    assert [short, long] == list(turns.take(10))


def test_turns_forget_sessions_that_have_no_jobs():
    """Nothing is kept of a session that waits for nothing."""
    turns = Turns[Waiting]()
    job = Waiting("1", "a")
    turns.add(job)
    list(turns.take(1))

    turns.done(job.key)

    assert not turns.is_out(job.key)
    assert not turns.ready


def test_a_job_that_has_had_no_turn_can_be_taken_out():
    """First or behind others; those that are left have their turns in order."""
    turns = Turns[Waiting]()
    jobs = [Waiting(str(index), "a") for index in range(4)]
    for job in jobs:
        turns.add(job)

    turns.drop(jobs[2])
    turns.drop(jobs[0])
    assert [jobs[1]] == turns.take(10)
    turns.drop(jobs[3])
    assert [] == list(turns.behind(jobs[1].key))
    turns.done(jobs[1].key)
    assert not turns.is_out(jobs[1].key)


def test_jobs_that_are_done_with_the_first_end_with_it():
    """The next turn is the first one's behind them that is not done."""
    turns = Turns[Waiting]()
    jobs = [Waiting(str(index), "a") for index in range(4)]
    for job in jobs:
        turns.add(job)
    assert jobs[:1] == turns.take(10)

    jobs[0].is_done = jobs[1].is_done = True
    turns.end(jobs[0])

    assert jobs[2:3] == turns.take(10)
    assert jobs[3:] == list(turns.behind(jobs[0].key))
    jobs[2].is_done = jobs[3].is_done = True
    turns.end(jobs[2])
    assert not turns.is_out(jobs[0].key)


def test_a_session_is_wanted_until_its_first_job_is_answered():
    """Though its turn may last longer, and others wait behind it: each finds the session again."""
    turns = Turns[Waiting]()
    first, second = Waiting("1", "a"), Waiting("2", "a")
    for job in (first, second):
        turns.add(job)
    assert turns.is_wanted(first.key)
    list(turns.take(1))

    first.is_done = True

    assert (True, False) == (turns.is_out(first.key), turns.is_wanted(first.key))
    turns.end(first)
    assert turns.is_wanted(first.key)
    assert not turns.is_wanted(SessionKey("default", "m", "b"))
