"""From the settings to a store, of which only the one that is chosen is imported."""

from __future__ import annotations

from service.settings import Settings
from service.stores.base import SessionStore
from service.stores.memory import MemoryStore


class StoreChoiceError(Exception):
    """The settings name no store that can be used. The message says why."""


def build_store(settings: Settings) -> SessionStore:
    """Return the store that the settings name; it is not open yet.

    Raises:
        StoreChoiceError: The address makes no sense, or what talks to Redis is not installed.
    """
    if settings.store == "memory":
        return MemoryStore(
            settings.max_sessions,
            tombstone_s=settings.tombstone_s,
            num_recent=settings.arena_rows,
        )
    if settings.store == "embedded":
        from service.stores.embedded import EmbeddedStore  # noqa: PLC0415

        return EmbeddedStore(
            settings.data_dir,
            fsync=settings.fsync,
            max_sessions=settings.max_sessions,
            tombstone_s=settings.tombstone_s,
        )
    try:
        from service.stores.redis import RedisStore  # noqa: PLC0415

        return RedisStore(
            settings.store,
            timeout_s=settings.store_timeout_ms / 1000,
            min_replicas=settings.store_min_replicas,
            tombstone_s=settings.tombstone_s,
        )
    except (ModuleNotFoundError, ValueError) as error:
        raise StoreChoiceError(f"--store: {error}") from error
