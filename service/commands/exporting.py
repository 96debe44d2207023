"""`lstm-service sessions export`: a store as JSON Lines."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from service.commands.lines import count_sessions, name_of, write_line
from service.commands.pages import walk
from service.stores.base import Damaged, SessionStore


async def export(store: SessionStore, options: argparse.Namespace) -> int:
    """Write every session to `options.file`; return 1 if some were damaged, else 0."""
    num_sessions = num_damaged = 0
    with _opened(options.file) as file:
        async for key, stored in walk(store, options.of_model):
            file.write(write_line(key, stored))
            num_sessions += 1
            if isinstance(stored, Damaged):
                num_damaged += 1
                print(f"{name_of(key)}: damaged: {stored.reason}", file=sys.stderr)
    exported = count_sessions(num_sessions)
    print(f"exported {exported}, {num_damaged} of them damaged", file=sys.stderr)
    return int(num_damaged > 0)


@contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    """Open a file that takes its name only once it is whole; `-` is standard output."""
    if name == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(name)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        # A state may tell what its client sent, so only this user may read it.
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
