"""Running a command on a store: from the settings to an open store, and its failures in words."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable

from service.commands import exporting, importing, sessions
from service.errors import ServiceError
from service.settings import Settings, read_settings
from service.storage import StoreChoiceError, build_store
from service.stores.base import SessionStore

_ACTIONS: dict[str, Callable[[SessionStore, argparse.Namespace], Awaitable[int]]] = {
    "list": sessions.list_sessions,
    "show": sessions.show,
    "delete": sessions.delete,
    "export": exporting.export,
    "import": importing.import_,
}


def run(options: argparse.Namespace) -> int:
    """Run a command of `sessions` or `store`.

    Args:
        options: What `add_parsers` made of the command line.

    Returns:
        The exit status: 0; 1 where some session failed; 2 where the store cannot be used.

    Raises:
        OSError: A file or the data directory cannot be used, or nobody reads on.
        pydantic.ValidationError: A setting makes no sense.
    """
    settings = read_settings(options)
    logging.basicConfig(level=logging.WARNING, format="lstm-service: %(message)s")
    try:
        store = _build_store(settings, is_importing=options.action == "import")
        return asyncio.run(_run(store, options))
    except (ServiceError, StoreChoiceError) as error:
        print(f"lstm-service: {error}", file=sys.stderr)
        return 2


def _build_store(settings: Settings, *, is_importing: bool) -> SessionStore:
    if settings.store == "memory":
        raise StoreChoiceError(
            "the store is `memory`: its sessions are in their server's process only; name another"
            " with --store"
        )
    if settings.store == "embedded" and not is_importing and not settings.data_dir.is_dir():
        # It would be made, and found empty.
        raise StoreChoiceError(f"there is no store in {settings.data_dir}; see --data-dir")
    return build_store(settings)


async def _run(store: SessionStore, options: argparse.Namespace) -> int:
    try:
        if options.action == "init":
            return await _initialise(store)
        await store.open()
        return await _ACTIONS[options.action](store, options)
    finally:
        await store.close()


async def _initialise(store: SessionStore) -> int:
    # Only a store that can be lost behind its servers' backs has it.
    initialise: Callable[[], Awaitable[bool]] | None = getattr(store, "initialise", None)
    if initialise is None:
        print("there is nothing to do: only a Redis needs to be set up")
    elif await initialise():
        print("the store is set up; if it had lost sessions, that is accepted")
    else:
        print("there is nothing to do: the store is set up, and has lost nothing")
    return 0
