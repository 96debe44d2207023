"""`lstm-service sessions list`, `show` and `delete`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import numpy as np

from service.commands.lines import count_sessions, head
from service.commands.pages import PAGE, load, walk
from service.domain import DEFAULT_TENANT, SessionKey
from service.stores.base import Commit, Damaged, Outcome, SessionStore, Stored

_DELETE_ATTEMPTS = 10
_COLUMNS = "{:<16} {:<24} {:>12} {:>16}  {:<25}  {}"


async def list_sessions(store: SessionStore, options: argparse.Namespace) -> int:
    """Write a line a session."""
    if not options.json:
        print(_COLUMNS.format("MODEL", "CLIENT ID", "POSITION", "EPOCH", "LAST STEP", "STATE"))
    num_sessions = 0
    async for key, stored in walk(store, options.of_model, DEFAULT_TENANT):
        session = describe(key, stored, time.time())
        if options.json:
            print(json.dumps(session))
        else:
            print(_columns(session))
        num_sessions += 1
        if num_sessions == options.limit:
            break
    return 0


async def show(store: SessionStore, options: argparse.Namespace) -> int:
    """Write all that there is to know of a session; return 1 if it is absent or damaged."""
    key = SessionKey(DEFAULT_TENANT, options.of_model, options.client_id)
    (stored,) = await load(store, [key])
    if stored is None:
        print(f"{key.model} has no session {key.client_id!r}", file=sys.stderr)
        return 1
    session = describe(key, stored, time.time())
    if not isinstance(stored, Damaged):
        session |= {
            "state_size": len(stored.row),
            "state_norm": float(np.linalg.norm(stored.row.astype(np.float64))),
            "has_output": stored.has_output.tolist(),
            "replays": len(stored.replays),
        }
    if options.json:
        print(json.dumps(session))
    else:
        for name, value in session.items():
            print(f"{name + ':':<13} {'never' if value is None else value}")
    return int(isinstance(stored, Damaged))


async def delete(store: SessionStore, options: argparse.Namespace) -> int:
    """End sessions; return 1 if some were not there or not ended, else 0."""
    num_refused = 0
    client_ids = list(dict.fromkeys(options.client_ids))
    for start in range(0, len(client_ids), PAGE):
        part = client_ids[start : start + PAGE]
        keys = [SessionKey(DEFAULT_TENANT, options.of_model, client_id) for client_id in part]
        num_refused += await _delete(store, keys)
    print(f"ended {count_sessions(len(client_ids) - num_refused)}", file=sys.stderr)
    return int(num_refused > 0)


async def _delete(store: SessionStore, keys: list[SessionKey]) -> int:
    """End a page of sessions, and return how many were not ended."""
    num_refused = 0
    for _ in range(_DELETE_ATTEMPTS):
        commits = []
        for key, stored in zip(keys, await load(store, keys), strict=True):
            if stored is None:
                num_refused += 1
                print(f"{key.model} has no session {key.client_id!r}", file=sys.stderr)
            else:
                commits.append(Commit(key, stored, None))
        if not commits:
            return num_refused
        outcomes = await store.commit_many(commits)
        for commit, outcome in zip(commits, outcomes, strict=True):
            if outcome is Outcome.DAMAGED:
                num_refused += 1
                print(f"{commit.key.client_id!r} is where the file is damaged", file=sys.stderr)
        # A running server has stepped it in between: once more.
        keys = [c.key for c, o in zip(commits, outcomes, strict=True) if o is Outcome.CONFLICT]
        if not keys:
            return num_refused
    for key in keys:
        print(f"{key.client_id!r} was changed again and again meanwhile", file=sys.stderr)
    return num_refused + len(keys)


def describe(key: SessionKey, stored: Stored, now: float) -> dict[str, Any]:
    """Return what there is to know of a session without its numbers.

    Args:
        key: The session.
        stored: What the store has.
        now: Seconds since 1970.
    """
    session: dict[str, Any] = {"model": key.model, "client_id": key.client_id}
    if isinstance(stored, Damaged):
        return session | {"state": "damaged", "reason": stored.reason, "bytes": len(stored.data)}
    state = "live" if now < stored.expires_at else "ended"
    return session | {"state": state} | head(stored)


def _columns(session: dict[str, Any]) -> str:
    state = session["state"]
    if state == "damaged":
        state = f"damaged: {session['reason']}"
    elif session["expires_at"] is not None:
        state += f", until {session['expires_at']}" if state == "live" else ""
    return _COLUMNS.format(
        session["model"],
        session["client_id"],
        session.get("position", "-"),
        session.get("epoch", "-"),
        session.get("touched_at") or "-",
        state,
    )
