"""Walking through a store, a page at a time: it may hold more than fits into memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from service.domain import SessionKey
from service.stores.base import Lost, SessionStore, Stored

PAGE = 256
"""Sessions in memory at a time."""


async def walk(
    store: SessionStore, model: str | None, tenant: str | None = None
) -> AsyncIterator[tuple[SessionKey, Stored]]:
    """Give every session, ended and damaged ones included; one may come more than once.

    Args:
        store: Open.
        model: Of this model only; None means all.
        tenant: Of this one only; None means all.

    Raises:
        UnavailableError: The store does not answer.
    """
    cursor: str | None = None
    while True:
        page, cursor = await store.list_keys(PAGE, cursor)
        keys = [
            key
            for key in dict.fromkeys(page)
            if model in (None, key.model) and tenant in (None, key.tenant)
        ]
        for start in range(0, len(keys), PAGE):
            part = keys[start : start + PAGE]
            for key, stored in zip(part, await load(store, part), strict=True):
                if stored is not None:  # it may have ended meanwhile
                    yield key, stored
        if cursor is None:
            return


async def load(store: SessionStore, keys: Sequence[SessionKey]) -> list[Stored | None]:
    """Return what each key has, None where there is nothing.

    Raises:
        UnavailableError: The store does not answer.
    """
    loaded = []
    for stored in await store.load_many(keys):
        assert not isinstance(stored, Lost), "only a store that answers before it commits loses"
        loaded.append(stored)
    return loaded
