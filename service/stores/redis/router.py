"""Which server has which bucket, and commands sent there. Knows no session.

A single server has them all. In a Redis Cluster this follows the buckets wherever they move. A
command is sent again only where the server said that it did not run it; whatever else goes wrong
leaves its outcome unknown, and is for the caller to find out.
"""

from __future__ import annotations

import asyncio
import logging
from binascii import crc32
from collections.abc import Iterable, Sequence

from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from service.errors import StoreUnavailableError
from service.stores.redis.commands import ASKING, CLUSTER_SLOTS, LOAD_SCRIPTS, Command, wait
from service.stores.redis.keys import BUCKETS, SLOTS
from service.stores.redis.node import Address, Endpoint, Node, Reply

log = logging.getLogger(__name__)

_NOT_RUN = (NoScriptError, MovedError, AskError, TryAgainError)
_MAX_ROUNDS = 16
_SECONDS_A_BYTE = 1 / 50e6
"""What a trip is given over the timeout for what it sends: states may be large."""
_WAIT_SHARE = 0.5
"""Of the timeout, for replicas to acknowledge: Redis ends that up to 0.1 s late, and its answer is
to be heard."""


class TooFewReplicasError(Exception):
    """Fewer replicas than wanted have acknowledged what was written."""


class Router:
    """The servers.

    Attributes:
        layout: Changes when a bucket moves to another server.
    """

    def __init__(self, url: str, timeout_s: float, min_replicas: int) -> None:
        """Make ready to ask the server that the URL names.

        Args:
            url: Of any server of them.
            timeout_s: How long a call may take while nothing comes.
            min_replicas: How many replicas must acknowledge what is sent as `is_durable`.
        """
        self._endpoint = Endpoint(url, timeout_s)
        self._timeout_s = timeout_s
        self._min_replicas = min_replicas
        self._wait = [wait(min_replicas, int(1000 * timeout_s * _WAIT_SHARE))]
        seed = Node(self._endpoint.address, self._endpoint)
        self._nodes = {seed.address: seed}
        self._node_of = [seed] * BUCKETS
        self._is_stale = True
        self._is_failing = False
        self._finding = asyncio.Lock()
        self.layout = 0

    async def close(self) -> None:
        """End all connections."""
        for node in list(self._nodes.values()):
            await node.disconnect()

    def one_bucket_a_node(self, buckets: Iterable[int]) -> list[int]:
        """Return some of the buckets, one of each server that has any; the last one that it has."""
        return list({self._node_of[bucket]: bucket for bucket in buckets}.values())

    def addresses(self) -> list[Address]:
        """Return where the servers are that have buckets, in order."""
        return sorted({node.address for node in self._node_of})

    async def send(self, commands: Sequence[Command], *, is_durable: bool = False) -> list[Reply]:
        """Send each command to the server of its bucket, one trip a server, all at once.

        Args:
            commands: Any number.
            is_durable: Wait until enough replicas have what was written, and all before it.

        Returns:
            The replies; errors of our own scripts are among them.

        Raises:
            StoreUnavailableError: Some have no reply, or one that says that they cannot be run now.
        """
        size = sum([len(command.packed) for command in commands])
        try:
            async with asyncio.timeout(self._timeout_s + size * _SECONDS_A_BYTE) as deadline:
                if self._is_stale:
                    await self._find(deadline)
                replies = await self._send(commands, deadline, is_durable=is_durable)
        except (RedisError, OSError, TooFewReplicasError) as error:
            raise await self._failed(error) from error
        if is_durable:  # others succeed in between where it can only be read
            self._is_failing = False
        return replies

    async def ask(self, address: Address, commands: Sequence[bytes]) -> list[Reply]:
        """Send commands to one server, whichever buckets it has.

        Returns:
            The replies; errors are among them.

        Raises:
            StoreUnavailableError: It does not answer.
        """
        try:
            async with asyncio.timeout(self._timeout_s) as deadline:
                return await self._node(address).trip(commands, self._timeout_s, deadline)
        except (RedisError, OSError) as error:
            raise await self._failed(error) from error

    async def _failed(self, error: Exception) -> StoreUnavailableError:
        """Begin anew: another server may have the buckets, or the name, of the one that failed."""
        self._is_stale = True
        for node in list(self._nodes.values()):
            await node.disconnect()
        if not self._is_failing:
            # Where it is and what it said is for the log, and not for the service's clients.
            log.warning("redis fails: %s: %s", type(error).__name__, error)
        self._is_failing = True
        return StoreUnavailableError(reason(error, self._timeout_s))

    async def _send(
        self, commands: Sequence[Command], deadline: asyncio.Timeout, *, is_durable: bool
    ) -> list[Reply]:
        replies: list[Reply] = [None] * len(commands)
        trips: dict[Node, list[tuple[int, bytes]]] = {}
        for index, (bucket, packed) in enumerate(commands):
            trips.setdefault(self._node_of[bucket], []).append((index, packed))
        for _ in range(_MAX_ROUNDS):
            await self._spread(trips, replies, deadline, is_durable=is_durable)
            not_run = [n for n, reply in enumerate(replies) if isinstance(reply, _NOT_RUN)]
            if not not_run:
                break
            trips = await self._reroute(commands, replies, not_run, deadline)
        for reply in replies:
            if isinstance(reply, ResponseError) and not is_lost(reply):
                raise reply
        return replies

    async def _spread(
        self,
        trips: dict[Node, list[tuple[int, bytes]]],
        replies: list[Reply],
        deadline: asyncio.Timeout,
        *,
        is_durable: bool,
    ) -> None:
        """Make the trips side by side, and put each reply where its command stands.

        All of them end before an error of one is raised: their connections stay good.
        """

        async def visit(node: Node, indexed: list[tuple[int, bytes]]) -> None:
            must_wait = is_durable and self._min_replicas > 0
            sent = [packed for _, packed in indexed] + (self._wait if must_wait else [])
            received = await node.trip(sent, self._timeout_s, deadline)
            for (index, _), reply in zip(indexed, received, strict=False):
                if index >= 0:
                    replies[index] = reply
            if must_wait:
                self._check_replicas(received[-1])

        if len(trips) == 1:
            [(node, indexed)] = trips.items()
            await visit(node, indexed)
            return
        results = await asyncio.gather(
            *(visit(node, indexed) for node, indexed in trips.items()), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def _check_replicas(self, acknowledged: Reply) -> None:
        if isinstance(acknowledged, ResponseError):
            raise acknowledged
        if acknowledged < self._min_replicas:
            raise TooFewReplicasError(
                f"{acknowledged} replicas acknowledge, {self._min_replicas} have to"
            )

    async def _reroute(
        self,
        commands: Sequence[Command],
        replies: Sequence[Reply],
        not_run: Sequence[int],
        deadline: asyncio.Timeout,
    ) -> dict[Node, list[tuple[int, bytes]]]:
        """Return the trips that commands need which were not run, after doing what they lacked."""
        errors = [replies[index] for index in not_run]
        if any(isinstance(error, MovedError) for error in errors):
            await self._find(deadline)
        if any(type(error) in {MovedError, TryAgainError} for error in errors):
            # While a slot moves, its keys are apart for a while: until it has moved, or time is up.
            await asyncio.sleep(self._timeout_s / (2 * _MAX_ROUNDS))
        trips: dict[Node, list[tuple[int, bytes]]] = {}
        for index, error in zip(not_run, errors, strict=True):
            bucket, packed = commands[index]
            if type(error) is AskError:
                trip = trips.setdefault(self._node((error.host, error.port)), [])
                trip.append((-1, ASKING))
            else:
                trip = trips.setdefault(self._node_of[bucket], [])
            trip.append((index, packed))
        if any(isinstance(error, NoScriptError) for error in errors):
            for node in trips:
                await node.trip(LOAD_SCRIPTS, self._timeout_s, deadline)
        return trips

    def _node(self, address: Address) -> Node:
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = Node(address, self._endpoint)
        return node

    async def _find(self, deadline: asyncio.Timeout) -> None:
        """Learn from any server which has which bucket."""
        async with self._finding:
            addresses = list(dict.fromkeys([*self._nodes, self._endpoint.address]))
            share_s = self._timeout_s / min(len(addresses), 3)
            failure: Exception = ClusterDownError("no server knows of all buckets")
            for address in addresses:
                node = self._node(address)
                try:
                    async with asyncio.timeout(share_s):
                        [reply] = await node.trip([CLUSTER_SLOTS], self._timeout_s, deadline)
                    await self._learn(node, reply, is_only=len(addresses) == 1)
                except (RedisError, OSError) as error:
                    failure = error
                    # Last in turn from now on, so that the next call need not wait for it again.
                    self._nodes[address] = self._nodes.pop(address)
                else:
                    return
            raise failure

    async def _learn(self, node: Node, reply: Reply, *, is_only: bool) -> None:
        """Take over what a server said to CLUSTER SLOTS: who has which slots.

        An error is what a single server says, whose users may lack the right to ask besides.
        """
        if isinstance(reply, ResponseError):
            if not is_only:
                raise reply
            self._node_of = [node] * BUCKETS
        else:
            self._node_of = [self._owner(node, reply, slot) for slot in SLOTS]
            owners = {owner.address: owner for owner in self._node_of}
            left = [other for address, other in self._nodes.items() if address not in owners]
            self._nodes = owners
            for other in left:
                await other.disconnect()
        self.layout = crc32(repr([owner.address for owner in self._node_of]).encode())
        self._is_stale = False

    def _owner(self, asked: Node, ranges: Sequence[Reply], slot: int) -> Node:
        for first, last, (host, port, *_), *_ in ranges:
            if first <= slot <= last:
                # No name means: the one by which it was asked.
                return self._node((host.decode() if host else asked.address[0], port))
        raise ClusterDownError(f"no server has slot {slot}")


def is_lost(reply: Reply) -> bool:
    """Tell whether a script refused to run, because the store is not the one that it was."""
    return isinstance(reply, ResponseError) and str(reply).startswith("LSTMLOST")


def reason(error: Exception, timeout_s: float = 0.0) -> str:
    """Return what clients may know of an error."""
    if isinstance(error, TooFewReplicasError):
        return str(error)
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:g} s"
    if isinstance(error, BusyLoadingError):
        return "it is loading"
    if isinstance(error, AuthenticationError):
        return "it refuses the user or the password"
    if isinstance(error, ResponseError):
        return f"it answers {error.status_code or str(error).partition(' ')[0]}"
    return "no connection to it"
