"""How a session is numbered: what it sends, and what it makes of the answers."""

import random
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.client import (
    ConflictError,
    LostUpdateError,
    ProtocolError,
    SessionExistsError,
    SessionExpiredError,
    SessionUnknownError,
    UnavailableError,
)
from service.client.network import Answer, Lost
from tests.unit.client_script import (
    EPOCH,
    EXPIRED,
    INTERRUPT,
    UNKNOWN,
    Late,
    Script,
    Service,
    answer,
    conflict,
    fork,
    make_core,
    path_of,
    stepped,
)

CUT = Lost("cut")
PATH = "/v1/sessions/alice"
STATE = {"position": 3, "epoch": EPOCH, "fingerprint": "f", "states": [[0.5]]}
HAS_ENDED = {"position": 3, "epoch": EPOCH}


def step(core, inputs=(1.0,)):
    """Return the operation of a step."""
    return core.step(list(inputs))


def known():
    """Return a session at position 3."""
    return make_core(position=3, epoch=EPOCH)


@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_every_step_is_applied_once_whatever_is_lost(seed, num_steps):
    """Also where a call is given up, and made again."""
    core = make_core()
    generator = random.Random(seed)
    service = Service(lambda: generator.choice([0, 1, 2, 3]))
    for index in range(num_steps):
        for _ in range(100):
            with suppress(UnavailableError):
                service.run(step(core, [float(index // 2)]))
                break
    assert [[float(index // 2)] for index in range(num_steps)] == service.applied
    assert num_steps == core.position


def test_steps_carry_their_position_and_their_epoch_once_it_is_known():
    """The first one has none, so that it begins a session."""
    core = make_core()
    script = Script(answer(**stepped(1)), answer(**stepped(3) | {"outputs": [[1.0], [2.0]]}))
    script.run(step(core))
    reply = script.run(
        core.sequence([[1.0], [2.0]], [True, False], return_sequences=True, return_state=True)
    )
    assert [
        ("POST", f"{PATH}/step", {"inputs": [1.0], "position": 0}),
        (
            "POST",
            f"{PATH}/sequence",
            {
                "inputs": [[1.0], [2.0]],
                "return_sequences": True,
                "mask": [True, False],
                "return_state": True,
                "position": 1,
                "epoch": EPOCH,
            },
        ),
    ] == script.calls
    assert ([[1.0], [2.0]], 3, EPOCH, False, None) == (
        reply.outputs,
        reply.position,
        reply.epoch,
        reply.replayed,
        reply.states,
    )
    assert (3, EPOCH) == (core.position, core.epoch)


def test_arrays_are_taken_as_lists():
    """Whole, or scalars and rows inside of a list; anything else is told."""
    core = make_core()
    script = Script(answer(**stepped(1)), answer(**stepped(2)))
    script.run(core.step(np.array([1.5, 2.5], np.float32)))
    script.run(core.step([np.float32(1.5), np.int64(2)]))
    assert [[1.5, 2.5], [1.5, 2]] == [document["inputs"] for _, _, document in script.calls]
    with pytest.raises(TypeError, match="got set"):
        Script().run(core.step([{1}]))


def test_names_are_quoted():
    """Whatever a path could make of them."""
    assert "/v1/sessions/a%40b%2Fc" == path_of(make_core(client_id="a@b/c"))
    assert "/v1/models/m%20n/sessions/a" == path_of(make_core(client_id="a", model="m n"))


def test_a_position_needs_its_epoch():
    """It could be of another life."""
    with pytest.raises(ValueError, match="position 3 needs its epoch"):
        make_core(position=3)


def test_a_conflict_moves_nothing():
    """The next step meets it again."""
    core = known()
    with pytest.raises(ConflictError) as met:
        Script(conflict(5, EPOCH)).run(step(core))
    assert (5, EPOCH) == (met.value.position, met.value.epoch)
    assert (3, EPOCH) == (core.position, core.epoch)


def test_a_first_step_that_somebody_else_has_taken_is_a_conflict():
    """The service takes it for a retry, and it was none."""
    core = make_core()
    script = Script(answer(**stepped(1, replayed=True)), answer(position=5, epoch=EPOCH))
    with pytest.raises(ConflictError, match="somebody else's session") as met:
        script.run(step(core))
    assert (5, EPOCH) == (met.value.position, met.value.epoch)
    assert (0, None) == (core.position, core.epoch)


@pytest.mark.parametrize(("position", "is_ours"), [(1, True), (5, False)])
def test_a_first_step_that_was_sent_again_is_ours_if_it_is_the_only_one(position, is_ours):
    """A session that has come further is somebody else's."""
    core = make_core()
    look = answer(position=position, epoch=EPOCH)
    script = Script(CUT, answer(**stepped(1, replayed=True)), look)
    if is_ours:
        assert script.run(step(core)).replayed
    else:
        with pytest.raises(ConflictError):
            script.run(step(core))
    assert is_ours == (core.position == 1)


def test_a_first_attempt_that_never_left_does_not_make_a_replay_ours():
    """Only what may have arrived may be answered again."""
    unsent = Lost("refused", is_sent=False)
    look = answer(position=1, epoch=EPOCH)
    with pytest.raises(ConflictError):
        Script(unsent, answer(**stepped(1, replayed=True)), look).run(step(make_core()))


def test_a_step_that_was_interrupted_may_come_again():
    """As one whose answer was lost."""
    core = make_core()
    interrupted = step(core)
    with pytest.raises(AssertionError, match="suspended"):
        Script(INTERRUPT).run(interrupted)
    interrupted.close()
    look = answer(position=1, epoch=EPOCH)
    assert Script(answer(**stepped(1, replayed=True)), look).run(step(core)).replayed


@pytest.mark.parametrize("error", [SessionUnknownError, SessionExpiredError])
def test_an_ended_session_does_not_begin_from_zeros(error):
    """Steps keep their position and epoch, so that they go on failing."""
    core = known()
    script = Script(*[UNKNOWN if error is SessionUnknownError else EXPIRED] * 2)
    for _ in range(2):
        with pytest.raises(error):
            script.run(step(core))
    assert [(3, EPOCH)] * 2 == [
        (document["position"], document["epoch"]) for _, _, document in script.calls
    ]


def test_a_reset_expects_the_session_where_it_is():
    """So that one that arrives late resets nothing."""
    core = known()
    script = Script(answer(position=0, epoch=8))
    script.run(core.reset_states([[0.5]], 60.0))
    document = {"position": 3, "epoch": EPOCH, "states": [[0.5]], "ttl_s": 60.0}
    assert [("POST", f"{PATH}/reset_states", document)] == script.calls
    assert (0, 8) == (core.position, core.epoch)


@pytest.mark.parametrize(
    ("look", "expected"),
    [
        (UNKNOWN, {"position": 0}),
        (EXPIRED, {}),
        (answer(position=9, epoch=5), {"position": 9, "epoch": 5}),
    ],
)
def test_a_reset_of_a_session_that_was_not_seen_looks_first(look, expected):
    """Whosever it is."""
    core = make_core()
    script = Script(look, answer(position=0, epoch=8))
    script.run(core.reset_states())
    assert [("GET", PATH, None), ("POST", f"{PATH}/reset_states", expected)] == script.calls


@pytest.mark.parametrize("is_known_to_be_lost", [True, False])
def test_a_lost_session_is_reset(is_known_to_be_lost):
    """Also where the reset is what finds out, or a stream has."""
    core = known()
    if is_known_to_be_lost:
        with pytest.raises(SessionUnknownError):
            Script(UNKNOWN).run(step(core))
    script = Script(UNKNOWN, answer(position=0, epoch=8))
    script.run(core.reset_states())
    assert [HAS_ENDED, {"position": 0}] == [document for _, _, document in script.calls]
    assert (0, 8) == (core.position, core.epoch)


@pytest.mark.parametrize("outcomes", [[conflict(2, 5)], [UNKNOWN, conflict(2, 5)]])
def test_a_lost_session_is_not_reset_where_somebody_has_begun_it_anew(outcomes):
    """What is theirs stays theirs."""
    core = known()
    with pytest.raises(SessionUnknownError):
        Script(UNKNOWN).run(step(core))
    with pytest.raises(ConflictError):
        Script(*outcomes).run(core.reset_states())


@pytest.mark.parametrize(
    ("asked", "actual", "is_ours"),
    [
        (None, [[0.0]], True),
        ([np.array([0.1])], [[0.10000000149011612]], True),
        (None, [[0.5]], False),
        ([[0.5]], [[0.0]], False),
    ],
)
def test_a_reset_in_doubt_does_not_take_another_life_for_its_own(asked, actual, is_ours):
    """A retry meets the life that the first attempt began, or somebody else's of another state."""
    core = known()
    state = answer(position=0, epoch=8, states=actual)
    script = Script(CUT, conflict(0, 8), state)
    if is_ours:
        script.run(core.reset_states(asked))
        assert (0, 8) == (core.position, core.epoch)
    else:
        with pytest.raises(ConflictError):
            script.run(core.reset_states(asked))
        assert (3, EPOCH) == (core.position, core.epoch)


@pytest.mark.parametrize(
    "outcomes", [[conflict(0, 8)], [CUT, conflict(2, 8)], [CUT, conflict(5, EPOCH)]]
)
def test_a_reset_meets_another_writer(outcomes):
    """One that was never sent before, or that has come further since."""
    core = known()
    with pytest.raises(ConflictError):
        Script(*outcomes).run(core.reset_states())
    assert (3, EPOCH) == (core.position, core.epoch)


@pytest.mark.parametrize(
    "outcomes",
    [
        [answer(position=1, epoch=8)],
        [CUT, CUT, conflict(1, 8), answer(**STATE | {"position": 1, "epoch": 8})],
    ],
)
def test_a_state_is_loaded_once(outcomes):
    """With the session's place as preconditions in the query, and the document as it is."""
    core = known()
    script = Script(*outcomes)
    script.run(core.load_state(STATE | {"position": 1}))
    path = f"{PATH}/state?position=3&epoch={EPOCH}"
    assert ("PUT", path, STATE | {"position": 1}) == script.calls[0]
    assert (1, 8) == (core.position, core.epoch)


@pytest.mark.parametrize("outcomes", [[answer(204)], [CUT, UNKNOWN]])
def test_a_session_is_ended_once(outcomes):
    """The next step begins another."""
    core = known()
    script = Script(*outcomes)
    script.run(core.delete())
    assert ("DELETE", f"{PATH}?position=3&epoch={EPOCH}", None) == script.calls[0]
    assert (0, None) == (core.position, core.epoch)


def test_a_session_that_is_not_there_cannot_be_ended():
    """It is unknown, unless an earlier attempt has ended it."""
    with pytest.raises(SessionUnknownError):
        Script(UNKNOWN, UNKNOWN).run(make_core().delete())
    with pytest.raises(SessionUnknownError):
        Script(UNKNOWN).run(known().delete())


def test_a_fork_is_where_its_origin_is():
    """And is a session of its own."""
    core = known()
    script = Script(answer(201, client_id="copy", position=3, epoch=8))
    place = script.run(fork(core, "copy"))
    assert [("POST", f"{PATH}/fork", {"client_id": "copy"})] == script.calls
    assert (3, 8) == (place.position, place.epoch)
    assert (3, EPOCH) == (core.position, core.epoch)


EXISTS = answer(409, code="session_exists", detail="there is one")


def test_a_fork_that_was_made_before_is_known_by_its_state():
    """A retry finds its target there."""
    script = Script(CUT, EXISTS, answer(**STATE), answer(**STATE | {"epoch": 8}))
    assert 8 == script.run(fork(known(), "copy")).epoch
    assert ("GET", "/v1/sessions/copy/state", None) == script.calls[-1]


@pytest.mark.parametrize(
    "outcomes",
    [[EXISTS], [CUT, EXISTS, answer(**STATE), answer(**STATE | {"states": [[0.25]]})]],
)
def test_a_fork_does_not_take_another_session_for_its_own(outcomes):
    """One that was there before, or that has another state."""
    with pytest.raises(SessionExistsError):
        Script(*outcomes).run(fork(known(), "copy"))


def test_a_fork_in_doubt_is_in_doubt_under_its_name_only():
    """A session of another name, with the same state, is somebody else's."""
    core = known()
    with pytest.raises(UnavailableError):
        Script(Late(11.0, CUT)).run(fork(core, "copy"))
    with pytest.raises(SessionExistsError):
        Script(EXISTS, answer(**STATE), answer(**STATE)).run(fork(core, "other"))


def test_an_answer_that_cannot_be_read_leaves_the_first_step_in_doubt():
    """Something in between has replaced it: the step was applied, and comes again."""
    core = make_core()
    with pytest.raises(ProtocolError):
        Script(Answer(200, {}, b"<html>")).run(step(core))
    look = answer(position=1, epoch=EPOCH)
    assert Script(answer(**stepped(1, replayed=True)), look).run(step(core)).replayed


def test_a_session_is_gone_on_with_by_resume():
    """Whoever brought it there, also after a conflict."""
    core = make_core()
    assert 57 == Script(answer(position=57, epoch=5)).run(core.resume())
    assert (57, 5) == (core.position, core.epoch)
    with pytest.raises(SessionUnknownError):
        Script(UNKNOWN).run(core.resume())
    assert 0 == Script(UNKNOWN).run(core.resume(missing_ok=True))
    assert (0, None) == (core.position, core.epoch)


def test_a_lost_update_is_a_conflict_of_its_own_kind():
    """The caller has to look where the session is."""
    with pytest.raises(LostUpdateError) as lost:
        Script(answer(409, code="lost_update", detail="gone")).run(step(known()))
    assert lost.value.position is None
