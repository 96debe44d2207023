"""Walking over the keys of all servers, page by page. Knows keys, and no records.

Redis walks by a number that means something to one process of it only, and a step gives as many
keys as it will. Between two pages the caller holds the place, so the cursor tells it in full: if
the server restarted, its keys come again from the first; if buckets moved, those of all servers do.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from contextlib import suppress
from dataclasses import astuple, dataclass, replace

import orjson
from redis.exceptions import ResponseError

from service.domain import SessionKey
from service.errors import InvalidRequestError, Problem, StoreUnavailableError
from service.stores.redis.commands import INFO, scan
from service.stores.redis.keys import pattern, session_of
from service.stores.redis.router import Router, reason

_KEYS_A_STEP = 1000
_MAX_STEPS = 16
"""In one page: in a large store with few matching keys a page may be short, or empty."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a walk is.

    Attributes:
        layout: The router's, when it began.
        server: Which of the servers, in order of address.
        run: The process that `step` belongs to.
        step: Where the next SCAN begins.
        following: Where it should lead, if some of its keys were taken already; else -1.
        after: The last key that was taken of it, in their order.
    """

    layout: int = -1
    server: int = 0
    run: str = ""
    step: int = 0
    following: int = -1
    after: str = ""

    def encode(self) -> str:
        """Return the cursor that this is read from again."""
        return urlsafe_b64encode(orjson.dumps(astuple(self))).decode().rstrip("=")


async def walk(
    router: Router, owner: tuple[str, str] | None, limit: int, cursor: str | None
) -> tuple[list[SessionKey], str | None]:
    """Return the next keys of sessions, at most `limit`, and the cursor of the rest.

    Args:
        router: The servers.
        owner: The tenant and the model whose sessions are wanted; None means all.
        limit: At least 1.
        cursor: What the page before gave; None for the first.

    Raises:
        InvalidRequestError: The cursor is not one of ours.
        StoreUnavailableError: A server does not answer.
    """
    place = _Place() if cursor is None else _decode(cursor)
    taken: list[SessionKey] = []
    for _ in range(_MAX_STEPS):
        addresses = router.addresses()
        if place.layout != router.layout or place.server >= len(addresses):
            place = _Place(layout=router.layout)
        run, following, found = await _step(router, addresses[place.server], place, owner)
        if run != place.run:
            # SCAN's number belongs to another process: it means nothing to this one.
            is_begun = place.step or place.following >= 0
            place = replace(place, run=run, step=0, following=-1, after="")
            if is_begun:
                continue
        if following == place.following:
            # The same part of the key space; if it led elsewhere, all of it would come again.
            found = {name: key for name, key in found.items() if name > place.after}
        names = sorted(found)
        room = limit - len(taken)
        taken += [found[name] for name in names[:room]]
        if len(names) > room:
            place = replace(place, following=following, after=names[room - 1])
            return taken, place.encode()
        place = replace(place, step=following, following=-1, after="")
        if following == 0:
            place = _Place(layout=place.layout, server=place.server + 1)
            if place.server == len(addresses):
                return taken, None
        if len(taken) == limit:
            break
    return taken, place.encode()


async def _step(
    router: Router, address: tuple[str, int], place: _Place, owner: tuple[str, str] | None
) -> tuple[str, int, dict[str, SessionKey]]:
    """Return the server's process, the next step, and the sessions of this one by their keys."""
    wanted = pattern(*owner) if owner else pattern()
    info, reply = await router.ask(address, [INFO, scan(place.step, wanted, _KEYS_A_STEP)])
    if isinstance(reply, ResponseError):
        raise StoreUnavailableError(reason(reply)) from reply
    # Without the right to INFO, restarts are not noticed.
    run = re.search(rb"run_id:(\w+)", info) if isinstance(info, bytes) else None
    found = {}
    for name in reply[1]:
        key = session_of(name)
        if key is not None and (owner is None or key[:2] == owner):
            found[name.decode()] = key
    return run[1].decode() if run else "", int(reply[0]), found


def _decode(cursor: str) -> _Place:
    with suppress(TypeError, ValueError):
        fields = orjson.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if [type(field) for field in fields] == [int, int, str, int, int, str]:
            place = _Place(*fields)
            if min(place.server, place.step) >= 0:
                return place
    problem = Problem(("cursor",), "expected the cursor of an earlier page, as it came")
    raise InvalidRequestError([problem])
