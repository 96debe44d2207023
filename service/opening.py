"""What a job's turn begins with: its session, and what the rules make of its request.

Asks the store where the sessions at hand are not enough: for those that are not there, and in a
store that others write to for every answer that no commit would confirm. Changes no session.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from msgspec.structs import replace

from service import decisions, sessions
from service.arena import Arena, unplaced
from service.domain import (
    MAX_STORED_ANSWER_BYTES,
    TOMBSTONE_S,
    AdvanceRequest,
    DeleteRequest,
    EndedReply,
    ForkRequest,
    ImportRequest,
    Reply,
    ResetRequest,
    SessionKey,
    SessionReply,
)
from service.errors import (
    FingerprintMismatchError,
    LostUpdateError,
    ServiceError,
    SessionDamagedError,
    SessionExistsError,
)
from service.jobs import Change, Job, Live, Run
from service.records import Record
from service.signature import Signature
from service.stores.base import Damaged, Loaded, Lost, SessionStore


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Another version of the model runs it.

    Attributes:
        fingerprint: Of that version.
    """

    fingerprint: str


Opening = Run | Change | Elsewhere | Reply | Exception
"""Steps to take, a change to commit, whose it is, or the answer already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """How long sessions last where nobody says otherwise.

    Attributes:
        ttl_s: How long after its last request a new session ends; None means never.
        tombstone_s: How long an ended session is told from one that never was.
        idle_s: How long after its last request a session's row stays at hand.
    """

    ttl_s: float | None = None
    tombstone_s: float = TOMBSTONE_S
    idle_s: float = 3600.0


class Opener:
    """What begins the turns of the sessions of one model.

    Attributes:
        is_alone: Whether nobody else writes to the store's sessions of this model.
    """

    def __init__(
        self,
        signature: Signature,
        arena: Arena,
        store: SessionStore,
        lifetimes: Lifetimes,
        versions: Container[str],
        most_together: int,
        behind: Callable[[SessionKey], Iterable[Job]],
        clock: Callable[[], float],
        *,
        is_alone: bool,
    ) -> None:
        """Bring the parts together.

        Args:
            signature: What the model takes and gives.
            arena: The sessions at hand.
            store: Where sessions are kept.
            lifetimes: How long.
            versions: Fingerprints of the other versions of the model that run here.
            most_together: Most steps of one session that run in one piece.
            behind: Tells which jobs of a session wait behind the first one.
            clock: Tells the seconds since 1970.
            is_alone: See the class.
        """
        self.is_alone = is_alone
        self._signature = signature
        self._arena = arena
        self._store = store
        self._lifetimes = lifetimes
        self._versions = versions
        self._behind = behind
        # A longer answer is kept with the state before it, which only the first of many steps has.
        self._most_together = (
            most_together if signature.output_size * 4 <= MAX_STORED_ANSWER_BYTES else 1
        )
        self._clock = clock

    async def open_all(self, jobs: Sequence[Job]) -> list[Opening]:
        """Begin the turns of jobs of different sessions; ask the store once, or not at all."""
        now = self._clock()
        find = self._arena.find
        openings: list[Opening | None] = []
        has_unsure = False
        for job in jobs:
            live = find(job.key, now)
            opening = None if live is None else self._open_at_hand(job, live, now)
            has_unsure = has_unsure or opening is None
            openings.append(opening)
        if not has_unsure:
            return cast(list[Opening], openings)
        unsure = [job for job, o in zip(jobs, openings, strict=True) if o is None]
        opened = iter(await self._open_from_store(unsure, now))
        return [next(opened) if opening is None else opening for opening in openings]

    def _open_at_hand(self, job: Job, live: Live, now: float) -> Opening | None:
        """Open a job with what is at hand; None where only the store can tell."""
        run = self._go_on(job, live, now)
        if run is not None:
            return run
        request, stored = job.request, live.stored
        if isinstance(request, ForkRequest):
            return None  # the second session is not at hand
        if (
            isinstance(stored, Record)
            and decisions.known(stored, request, now, self._lifetimes.tombstone_s) is None
        ):
            return None  # the store may have dropped it, and another may have begun in its place
        opening = self._open(job, live, None, now)
        if self.is_alone or isinstance(opening, Change):
            return opening
        if isinstance(opening, Run):
            if not opening.is_replay:
                return opening
            self._arena.free(opening.slot)
        # Had it begun from a stale record, no commit would find that out.
        return None

    def _go_on(self, job: Job, live: Live, now: float) -> Run | None:
        """Return the steps of a job that simply goes on from its session, as nearly all do."""
        request, stored = job.request, live.stored
        if (
            isinstance(request, AdvanceRequest)
            and isinstance(stored, Record)
            and decisions.goes_on(stored, request, now)
        ):
            return self._run_on(job, request, live, stored)
        return None

    async def _open_from_store(self, jobs: Sequence[Job], now: float) -> list[Opening]:
        keys = [job.key for job in jobs]
        targets = [job.request.target_key for job in jobs if isinstance(job.request, ForkRequest)]
        # No store is asked twice for one session.
        all_keys = list(dict.fromkeys([*keys, *targets])) if targets else keys
        try:
            loaded = await self._store.load_many(all_keys)
        except Exception as error:  # noqa: BLE001 - not the fault of those at hand
            return [error.again() if isinstance(error, ServiceError) else error for _ in jobs]
        stored = dict(zip(all_keys, loaded, strict=True)) if targets else {}
        # Those of the jobs are the first ones, in their order.
        return [self._open_loaded(*each, stored, now) for each in zip(jobs, loaded, strict=False)]

    def _open_loaded(
        self, job: Job, loaded: Loaded, others: dict[SessionKey, Loaded], now: float
    ) -> Opening:
        """Open a job whose session was just loaded; it is at hand from now on if its row can be."""
        if isinstance(loaded, Record) and loaded.fingerprint == self._signature.fingerprint:
            live = self._arena.place(job.key, loaded, now)
            return self._go_on(job, live, now) or self._open(job, live, others, now)
        self._arena.forget(job.key)
        if isinstance(loaded, Lost):
            return LostUpdateError(job.key.client_id)
        return self._open(job, unplaced(loaded, now), others, now)

    def _open(
        self,
        job: Job,
        live: Live,
        loaded: dict[SessionKey, Loaded] | None,
        now: float,
    ) -> Opening:
        """Decide what a job does, the guard of one job.

        Args:
            job: What is asked.
            live: Its session.
            loaded: The second session of a fork, by its key; None where it was not asked for.
            now: Seconds since 1970.
        """
        try:
            stored = live.stored
            if isinstance(stored, Damaged):
                self._check_discards(job, stored)
                record = None
            else:
                record = decisions.known(stored, job.request, now, self._lifetimes.tombstone_s)
            if record is None and stored is not None:
                self._arena.forget(job.key)
                live = unplaced(stored, now)
            return self._decide(job, live, record, loaded, now)
        except Exception as error:  # noqa: BLE001 - one job's fault is not the others'
            return error

    def _decide(
        self,
        job: Job,
        live: Live,
        record: Record | None,
        loaded: dict[SessionKey, Loaded] | None,
        now: float,
    ) -> Opening:
        request = job.request
        if isinstance(request, DeleteRequest) and isinstance(live.stored, Damaged):
            decision: decisions.Decision = decisions.Proceed()  # _check_discards() let it pass
        else:
            decision = decisions.decide(record, request, now)
        if isinstance(request, AdvanceRequest):
            return self._open_run(job, request, live, record, decision, now)
        if isinstance(request, (ResetRequest, ImportRequest)):
            return self._open_new_life(job, request, live, now)
        if isinstance(request, DeleteRequest):
            return Change(job.key, live.stored, None, job, (EndedReply(),), live)
        assert record is not None, "decide() refuses absent sessions"
        if isinstance(request, ForkRequest):
            assert loaded is not None, "the second session is not at hand"
            return self._open_fork(job, request, record, loaded[request.target_key], now)
        return session_reply(record)

    def _open_new_life(
        self, job: Job, request: ResetRequest | ImportRequest, live: Live, now: float
    ) -> Opening:
        version = request.fingerprint if isinstance(request, ImportRequest) else None
        if version is not None and version in self._versions:
            return Elsewhere(version)
        after = sessions.new_life(self._fresh(now), request)
        return Change(job.key, live.stored, after, job, (session_reply(after),), live)

    def _open_run(
        self,
        job: Job,
        request: AdvanceRequest,
        live: Live,
        record: Record | None,
        decision: decisions.Decision,
        now: float,
    ) -> Opening:
        start = record or self._fresh(now)
        is_ours = start.fingerprint == self._signature.fingerprint
        if not is_ours and start.fingerprint in self._versions:
            return Elsewhere(start.fingerprint)
        # An answer that holds no state is the same whatever the model is by now.
        if isinstance(decision, decisions.Answered) and (is_ours or decision.reply.row is None):
            if not is_ours:
                job.version = ""  # what gave it does not run here
            return replace(decision.reply, replayed=True)
        if not is_ours:
            raise FingerprintMismatchError(
                self._signature.fingerprint,
                start.fingerprint,
                "reset it, or take its state over: PUT what GET of its state gives, without the"
                " fingerprint",
            )
        if isinstance(decision, decisions.Recompute):
            replay = decision.replay
            slot = self._arena.slot_with(replay.row_before, replay.has_output_before)
            start = replace(start, position=replay.start)
            run = Run(job, request, live, start, slot, request.inputs, len(request.inputs))
            run.mask = request.mask
            run.is_replay = True
            return run
        assert isinstance(decision, decisions.Proceed), "answered above"
        return self._run_on(job, request, live, start)

    def _run_on(self, job: Job, request: AdvanceRequest, live: Live, start: Record) -> Run:
        """Return the time steps of a request that goes on from a record."""
        inputs = request.inputs
        run = Run(job, request, live, start, live.slot, inputs, len(inputs))
        if request.mask is not None:
            run.mask = request.mask
        behind = self._behind(job.key)
        if behind and not job.is_alone and decisions.is_plain_step(request):
            run.followers = followers = self._followers(behind, start)
            parts = [inputs, *(cast(AdvanceRequest, each.request).inputs for each in followers)]
            run.inputs = np.concatenate(parts)
            run.num_left = len(parts)
        return run

    def _followers(self, behind: Iterable[Job], start: Record) -> list[Job]:
        """Return the steps that run in one piece with the one before them, as if each did alone."""
        followers: list[Job] = []
        for other in behind:
            step = other.request
            if (
                1 + len(followers) == self._most_together
                or other.is_alone
                or other.is_cancelled
                or not isinstance(step, AdvanceRequest)
                or not decisions.may_join(start, step, 1 + len(followers))
            ):
                break
            followers.append(other)
        return followers

    def _open_fork(
        self,
        job: Job,
        request: ForkRequest,
        record: Record,
        target: Loaded,
        now: float,
    ) -> Opening:
        if isinstance(target, Damaged | Lost) or (
            decisions.known(target, request, now, self._lifetimes.tombstone_s) is not None
        ):
            raise SessionExistsError(request.target)
        after = sessions.forked(record, now)
        return Change(request.target_key, target, after, job, (session_reply(after),), None)

    def _fresh(self, now: float) -> Record:
        return sessions.fresh_record(self._signature, now, self._lifetimes.ttl_s)

    @staticmethod
    def _check_discards(job: Job, damaged: Damaged) -> None:
        """Refuse what would need the record that is damaged.

        Raises:
            SessionDamagedError: Only what puts another state in its place may run.
        """
        request = job.request
        if isinstance(request, AdvanceRequest) and request.begins_anew:
            return
        if (
            isinstance(request, ResetRequest | ImportRequest | DeleteRequest)
            and request.position is None
            and request.epoch is None
        ):
            return
        raise SessionDamagedError(job.key.client_id, damaged.reason)


def session_reply(record: Record) -> SessionReply:
    """Return a session as its caller sees it."""
    return SessionReply(
        position=record.position,
        epoch=record.epoch,
        fingerprint=record.fingerprint,
        row=record.row,
        has_output=record.has_output,
        ttl_s=record.ttl_s,
    )
