"""The `SessionStore` over Redis. Knows records and scripts; its rooms know servers and keys."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence

from service.domain import TOMBSTONE_S, SessionKey, SessionSummary
from service.errors import StoreLostError, StoreUnavailableError
from service.records import Record
from service.stores.base import Commit, Damaged, Loaded, Outcome, Stored
from service.stores.codec import DamagedRecordError, decode, encode, stamp
from service.stores.redis import commands, identity
from service.stores.redis.commands import Command
from service.stores.redis.inspection import risks
from service.stores.redis.keys import BUCKETS, damaged_key, locate
from service.stores.redis.listing import walk
from service.stores.redis.router import Router, is_lost

log = logging.getLogger(__name__)

_OUTCOMES = (Outcome.CONFLICT, Outcome.COMMITTED)
_MAX_KEEP_MS = 2**53
"""Longer ones overflow in Redis."""


class RedisStore:
    """A `SessionStore` that all replicas of the service share.

    Durable as far as Redis is: with `appendonly yes` a commit survives its crash, with
    `appendfsync always` or `min_replicas` the loss of its machine.
    """

    is_shared = True

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 1.0,
        tombstone_s: float = TOMBSTONE_S,
        clock: Callable[[], float] = time.time,
        min_replicas: int = 0,
    ) -> None:
        """Connect to nothing yet.

        Args:
            url: `redis://`, `rediss://` or `unix://`, with user and password, a database number,
                and `ssl_...` options of redis-py. A Redis Cluster is known by its answers; then it
                is the URL of any of its servers.
            timeout_s: How long a call may take while nothing comes.
            tombstone_s: How long a session whose time to live is over is still known.
            clock: Tells the seconds since 1970.
            min_replicas: How many replicas of Redis must have a commit before it counts. What is
                loaded is on as many too.

        Raises:
            ValueError: The URL is none.
        """
        self._router = Router(url, timeout_s, min_replicas)
        self._min_replicas = min_replicas
        self._tombstone_s = tombstone_s
        self._clock = clock
        self._identity = b""
        self._num_checks = 0
        self._is_inspected = False

    async def open(self) -> None:
        """Connect, learn the store's identity, and make sure that it takes commits.

        Raises:
            StoreLostError: It has none, or not everywhere: see `initialise`.
            StoreUnavailableError: It does not answer, or takes no commits.
        """
        self._identity = await identity.read_identity(self._router)
        await self._inspect()
        # Gives every server the scripts, too: the first commit need not.
        await self.check()

    async def initialise(self) -> bool:
        """Make it a store, or accept that some of it was lost; return whether that was so.

        Raises:
            StoreUnavailableError: It does not answer.
        """
        is_changed = await identity.initialise(self._router)
        self._identity = await identity.read_identity(self._router)
        return is_changed

    async def close(self) -> None:
        """End the connections; it may be opened again."""
        await self._router.close()

    async def check(self) -> None:
        """Write to every server; and learn the identity again where an operator gave a new one.

        Raises:
            StoreLostError: It has lost sessions.
            StoreUnavailableError: It does not answer, or takes no commits.
        """
        for _ in range(2):
            # Each time other buckets, so that after a while all have been asked.
            self._num_checks += 1
            turn = [(self._num_checks + n) % BUCKETS for n in range(BUCKETS)]
            probes = self._probes(self._router.one_bucket_a_node(turn))
            replies = await self._router.send(probes, is_durable=True)
            if not any(map(is_lost, replies)):
                return
            # Whatever is held of the store before is found out by its next commit.
            self._identity = await identity.read_identity(self._router)
        raise StoreLostError

    async def load_many(self, keys: Sequence[SessionKey]) -> list[Loaded]:
        """Return what each key has, None where there is nothing.

        Raises:
            StoreLostError: Some of the keys' sessions were lost.
            StoreUnavailableError: It does not answer.
        """
        loads = []
        for key in keys:
            bucket, name = locate(key)
            loads.append(commands.load(bucket, name, self._identity))
        if self._min_replicas:
            # What another process wrote and did not see replicated must not be told either. These
            # writes come after it, so that whoever acknowledges them has it.
            buckets = [command.bucket for command in loads]
            loads += self._probes(self._router.one_bucket_a_node(buckets))
        replies = await self._router.send(loads, is_durable=True)
        if any(map(is_lost, replies)):
            raise StoreLostError
        return [_read(key, data) for key, data in zip(keys, replies, strict=False)]

    async def commit_many(self, commits: Sequence[Commit]) -> list[Outcome]:
        """Make each change whose session is as expected; tell what became of each.

        Raises:
            StoreLostError: All of their sessions were lost.
            StoreUnavailableError: What became of them is not known.
        """
        now = self._clock()
        replies = await self._router.send(
            [self._command(commit, now) for commit in commits], is_durable=True
        )
        lost = [is_lost(reply) for reply in replies]
        if any(lost):
            if all(lost):
                raise StoreLostError
            raise StoreUnavailableError("a part of it has lost its sessions")
        return [_OUTCOMES[reply] for reply in replies]

    async def list_sessions(
        self, tenant: str, model: str, limit: int, cursor: str | None
    ) -> tuple[list[SessionSummary], str | None]:
        """Return up to `limit` sessions in no order, and the cursor of the rest, None at the end.

        A page may be short, or empty, before the last one.

        Raises:
            InvalidRequestError: The cursor is not one of ours.
            StoreLostError: Some of the sessions were lost.
            StoreUnavailableError: It does not answer.
        """
        keys, following = await walk(self._router, (tenant, model), limit, cursor)
        now = self._clock()
        return [
            SessionSummary(key.client_id, record.position, record.epoch)
            for key, record in zip(keys, await self.load_many(keys), strict=True)
            if isinstance(record, Record) and now < record.expires_at
        ], following

    async def list_keys(
        self, limit: int, cursor: str | None
    ) -> tuple[list[SessionKey], str | None]:
        """Return up to `limit` keys of all tenants and models, and the cursor of the rest.

        Raises:
            InvalidRequestError: The cursor is not one of ours.
            StoreUnavailableError: It does not answer.
        """
        return await walk(self._router, None, limit, cursor)

    def _probes(self, buckets: Sequence[int]) -> list[Command]:
        return [commands.probe(bucket, self._identity) for bucket in buckets]

    def _command(self, commit: Commit, now: float) -> Command:
        bucket, name = locate(commit.key)
        value = b"" if commit.after is None else encode(commit.key, commit.after)
        keep_ms = b"" if commit.after is None else self._keep_ms(commit.after, now)
        before = commit.before
        if isinstance(before, Damaged):
            aside = damaged_key(name, before.data)
            return commands.replace_damaged(
                bucket, name, aside, self._identity, before.data, value, keep_ms
            )
        expected = b"" if before is None else stamp(before)
        return commands.commit(bucket, name, self._identity, expected, value, keep_ms)

    def _keep_ms(self, record: Record, now: float) -> bytes:
        if math.isinf(record.expires_at):
            return b""
        keep_ms = 1000 * (record.expires_at + self._tombstone_s - now)
        return b"%d" % min(max(keep_ms, 1), _MAX_KEEP_MS)

    async def _inspect(self) -> None:
        """Tell the operator once what of the servers' settings would lose sessions."""
        if self._is_inspected:
            return
        for address in self._router.addresses():
            [info] = await self._router.ask(address, [commands.INFO])
            # Who may not ask does without.
            for risk in risks(info) if isinstance(info, bytes) else []:
                log.warning("%s: %s", address[0], risk)
        self._is_inspected = True


def _read(key: SessionKey, data: bytes | None) -> Stored | None:
    if data is None:
        return None
    try:
        return decode(key, data)
    except DamagedRecordError as error:
        return Damaged(data, str(error))
