"""The end of a tick: its changes made durable in one trip, and answered.

Knows no queue, no kernel and no transport.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from service.answers import Answers
from service.arena import Arena
from service.domain import SessionKey
from service.errors import SessionDamagedError, TooManySessionsError, UnavailableError
from service.jobs import Change, Run
from service.stores.base import Damaged, Outcome, SessionStore


class Committer:
    """Commits the changes of ticks."""

    def __init__(
        self,
        arena: Arena,
        store: SessionStore,
        answers: Answers,
        is_busy: Callable[[SessionKey], bool],
    ) -> None:
        """Bring the parts together.

        Args:
            arena: The sessions at hand.
            store: Where sessions are kept.
            answers: For the jobs that asked.
            is_busy: Whether a session has jobs.
        """
        self._arena = arena
        self._store = store
        self._answers = answers
        self._is_busy = is_busy

    async def commit(self, changes: Sequence[Change]) -> None:
        """Make the tick's changes durable in one trip, then answer."""
        chosen = self._choose(changes)
        if not chosen:
            return
        try:
            outcomes = await self._store.commit_many(chosen)
        except UnavailableError as error:
            # Whether they were made is not known. What the store says before the next job of each
            # session will settle it.
            for change in chosen:
                for job in change.jobs:
                    self._answers.fail(job, error.again())
                self._forget(change)
            return
        answer = self._answers.answer
        for change, outcome in zip(chosen, outcomes, strict=True):
            if outcome is not Outcome.COMMITTED:
                self._reject(change, outcome)
                continue
            self._apply(change)
            replies = change.replies
            if len(replies) == 1:
                answer(change.job, replies[0])
            else:
                for job, reply in zip(change.jobs, replies, strict=True):
                    answer(job, reply)

    def _choose(self, changes: Sequence[Change]) -> list[Change]:
        """Return what is to be committed, one change a session; the other jobs start anew."""
        taken: dict[SessionKey, Change] = {}
        for change in changes:
            # A caller may have gone while the kernel ran: what it asked for is not applied any
            # more. And a fork's second session may have a change of its own.
            job, run = change.job, change.run
            if job.is_cancelled and self._answers.skip_cancelled(job):
                continue
            if run is not None and run.followers and self._comes_apart(run):
                continue
            if taken.setdefault(change.key, change) is not change:
                self._answers.drop_run(job)
        return list(taken.values())

    def _comes_apart(self, run: Run) -> bool:
        """Let the steps of a run start anew, each alone, if one of them is not wanted any more."""
        if not any(follower.is_cancelled for follower in run.followers):
            return False
        self._answers.take_apart(run)
        return True

    def _reject(self, change: Change, outcome: Outcome) -> None:
        if outcome is Outcome.CONFLICT:
            self._answers.stats.num_conflicts += 1
            # Another writer was here. The job starts anew from what the store says now.
            self._answers.drop_run(change.job)
            self._forget(change)
            return
        for job in change.jobs:
            if outcome is Outcome.FULL:
                self._answers.fail(job, TooManySessionsError())
            else:
                self._answers.fail(job, _damaged(change))

    def _apply(self, change: Change) -> None:
        live, after, run = change.live, change.after, change.run
        if live is None or after is None or (after.ttl_s is not None and after.is_ended):
            self._forget(change)
        elif run is not None:
            self._arena.keep(change.key, live, after, run.slot)
            change.job.run = None
        else:
            slot = self._arena.slot_with(after.row, after.has_output)
            self._arena.keep(change.key, live, after, slot)

    def _forget(self, change: Change) -> None:
        """Let go of a session that is not as it is at hand."""
        # The second session of a fork may have a job of its own on its way, from a state that its
        # commit will find out to be another.
        if change.live is not None or not self._is_busy(change.key):
            self._arena.forget(change.key)


def _damaged(change: Change) -> SessionDamagedError:
    reason = change.before.reason if isinstance(change.before, Damaged) else "it cannot be replaced"
    return SessionDamagedError(change.key.client_id, reason)
