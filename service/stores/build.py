"""From a setting to a store."""

from __future__ import annotations

from pathlib import Path

from service.stores.base import SessionStore
from service.stores.embedded import EmbeddedStore
from service.stores.memory import MemoryStore


def build_store(
    url: str,
    *,
    data_dir: Path,
    fsync: bool,
    timeout_s: float,
    tombstone_s: float,
    max_sessions: int,
) -> SessionStore:
    """Return the store that a setting names; it is not open yet.

    Args:
        url: `memory`, `embedded`, or the address of a Redis.
        data_dir: Where the embedded store keeps its files.
        fsync: Whether its commits survive a loss of power.
        timeout_s: How long a Redis may take to answer.
        tombstone_s: How long an ended session is told from one that never was.
        max_sessions: Most sessions of the stores that count them.

    Raises:
        ModuleNotFoundError: The package that talks to Redis is not installed.
    """
    if url == "memory":
        return MemoryStore(max_sessions, tombstone_s=tombstone_s)
    if url == "embedded":
        return EmbeddedStore(
            data_dir, fsync=fsync, max_sessions=max_sessions, tombstone_s=tombstone_s
        )
    from service.stores.redis import RedisStore  # noqa: PLC0415 - its package may be missing

    return RedisStore(url, timeout_s=timeout_s, tombstone_s=tombstone_s)
