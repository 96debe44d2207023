"""`lstm-service sessions import`: JSON Lines back into a store."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from service.commands.lines import (
    MAX_LINE_BYTES,
    LineError,
    count_sessions,
    name_of,
    read_line,
)
from service.commands.pages import PAGE, load
from service.domain import SessionKey
from service.records import Record
from service.stores.base import Commit, Outcome, SessionStore, Stored
from service.stores.codec import encode

_MAX_BATCH_BYTES = 16 * 1024 * 1024

_REFUSALS = {
    Outcome.CONFLICT: "was changed meanwhile by a running server",
    Outcome.DAMAGED: "takes the place of a record that cannot be replaced",
    Outcome.FULL: "there are as many sessions as may be, see LSTM_MAX_SESSIONS",
}


async def import_(store: SessionStore, options: argparse.Namespace) -> int:
    """Read sessions from `options.file`; return 1 if some line was not taken, else 0."""
    importer = Importer(store, is_replacing=options.replace)
    with _opened(options.file) as file:
        try:
            for number, line in numbered_lines(file):
                await importer.take(number, line)
            await importer.flush()
        finally:
            print(importer.summary(), file=sys.stderr)
    return int(importer.num_refused > 0)


def _opened(name: str) -> AbstractContextManager[BinaryIO]:
    return nullcontext(sys.stdin.buffer) if name == "-" else Path(name).open("rb")


def numbered_lines(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Give the lines that are not empty with their numbers from 1; None for one too long."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        is_whole = line.endswith(b"\n") or len(line) < MAX_LINE_BYTES
        rest = line
        while not rest.endswith(b"\n") and (rest := file.readline(MAX_LINE_BYTES)):
            is_whole = False
        if line.strip():
            yield number, line if is_whole else None


@dataclass(slots=True)
class Importer:
    """Puts lines into a store, a batch at a time. Each session is taken whole or not at all.

    Attributes:
        store: Open.
        is_replacing: Whether sessions that are there make room.
        num_imported: Taken.
        num_equal: There already, just as in the file.
        num_refused: Lines not taken.
    """

    store: SessionStore
    is_replacing: bool
    num_imported: int = 0
    num_equal: int = 0
    num_refused: int = 0
    _batch: dict[SessionKey, tuple[int, Record]] = field(default_factory=dict)
    _batch_bytes: int = 0

    async def take(self, number: int, line: bytes | None) -> None:
        """Take a line; None is one that was too long.

        Raises:
            UnavailableError: The store does not answer; what became of this batch is not known,
                and the same file may be imported again.
        """
        if line is None:
            self._refuse(number, f"longer than {MAX_LINE_BYTES} bytes")
            return
        try:
            key, record = read_line(line)
        except LineError as error:
            self._refuse(number, str(error))
            return
        if key in self._batch:
            await self.flush()
        self._batch[key] = number, record
        self._batch_bytes += len(line)
        if len(self._batch) >= PAGE or self._batch_bytes >= _MAX_BATCH_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Commit what was taken.

        Raises:
            UnavailableError: As `take`.
        """
        batch, self._batch, self._batch_bytes = self._batch, {}, 0
        if not batch:
            return
        commits = []
        for key, before in zip(batch, await load(self.store, list(batch)), strict=True):
            number, record = batch[key]
            if isinstance(before, Record) and encode(key, before) == encode(key, record):
                self.num_equal += 1
            elif self._is_taken(before):
                self._refuse(number, f"{name_of(key)}: there is one already; see --replace")
            else:
                commits.append(Commit(key, before, record))
        outcomes = await self.store.commit_many(commits) if commits else []
        for commit, outcome in zip(commits, outcomes, strict=True):
            if outcome is Outcome.COMMITTED:
                self.num_imported += 1
            else:
                number, _ = batch[commit.key]
                self._refuse(number, f"{name_of(commit.key)}: {_REFUSALS[outcome]}")

    def summary(self) -> str:
        """Say what was done."""
        return (
            f"imported {count_sessions(self.num_imported)}; there just so: {self.num_equal};"
            f" not taken: {self.num_refused}"
        )

    def _is_taken(self, before: Stored | None) -> bool:
        """Tell whether a session is in the way; one whose time to live is over is not."""
        if before is None or self.is_replacing:
            return False
        return not isinstance(before, Record) or time.time() < before.expires_at

    def _refuse(self, number: int, problem: str) -> None:
        self.num_refused += 1
        print(f"line {number}: {problem}", file=sys.stderr)
