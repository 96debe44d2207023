"""Whether the store is the one that it was.

Each bucket holds the store's identity, a random word. A server that came back empty has none, and
neither has a shard of a cluster that did; every script of ours refuses to run there. So what was
lost is never taken for what never was.
"""

from __future__ import annotations

from secrets import token_hex

from service.errors import StoreLostError
from service.stores.redis.commands import get_identity, set_identity
from service.stores.redis.keys import BUCKETS
from service.stores.redis.router import Router


async def read_identity(router: Router) -> bytes:
    """Return the identity that all buckets have.

    Raises:
        StoreLostError: One of them has none, or another one.
        StoreUnavailableError: One of them does not answer.
    """
    identities = await _read(router)
    if None in identities or len(set(identities)) > 1:
        raise StoreLostError
    return identities[0]


async def initialise(router: Router) -> bool:
    """Give all buckets one identity, and return whether that changed any.

    The first bucket that has one gives it to those that lack it: what is left of a store remains.
    Of several who do this at once, the one who comes first at the first bucket prevails.

    Raises:
        StoreUnavailableError: One of them does not answer, or takes nothing.
    """
    before = await _read(router)
    if None not in before and len(set(before)) == 1:
        return False
    identity = next(filter(None, before), None) or token_hex(16).encode()
    missing = [bucket for bucket in range(BUCKETS) if before[bucket] is None]
    await _write(router, missing, identity, only_if_missing=True)
    after = await _read(router)
    others = [bucket for bucket in range(BUCKETS) if after[bucket] != after[0]]
    if others:
        await _write(router, others, after[0], only_if_missing=False)
    return True


async def _read(router: Router) -> list[bytes]:
    """Return each bucket's identity, None in the place of a missing one."""
    return await router.send([get_identity(bucket) for bucket in range(BUCKETS)])


async def _write(
    router: Router, buckets: list[int], identity: bytes, *, only_if_missing: bool
) -> None:
    commands = [
        set_identity(bucket, identity, only_if_missing=only_if_missing) for bucket in buckets
    ]
    await router.send(commands, is_durable=True)
