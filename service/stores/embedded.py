"""Sessions in one SQLite file under a directory that this process has to itself.

Reads and writes run in the event loop, where they take microseconds; what waits for a disk runs on
threads: checkpoints always, and commits that are to be synced. Knows no SQL.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from service.domain import TOMBSTONE_S, SessionKey, SessionSummary
from service.errors import StoreUnavailableError
from service.stores.base import Commit, Loaded, Outcome
from service.stores.embedded_connections import Connections
from service.stores.embedded_file import FILE_NAME, is_damage
from service.stores.embedded_sessions import SessionReader, SessionWriter

log = logging.getLogger(__name__)

T = TypeVar("T")

_LOG_BYTES = 32 * 1024 * 1024
"""A longer write-ahead log is moved into the file."""
_LEFT_BYTES = 1024 * 1024
"""So much of it may be left for the last part of that, which commits wait for."""
_MAX_COPIES = 4
"""How often that is tried: those who write may be faster than the disk."""
_STALLED_AT = 4
"""At so many times the size, commits wait until the log has been moved."""
_CHUNK = 16
"""How many records are read before the event loop gets its turn: about a millisecond's worth."""
_PURGE_CHUNKS = 16
"""How many chunks of ended sessions each check drops at most."""
_MAX_SKIPPED = 1000
"""How many ended sessions a page of the list passes over before it is returned as it is."""


class EmbeddedStore:
    """A `SessionStore` of this process alone: one file, no server.

    What was committed survives the end of the process, however it comes. A loss of power costs the
    last commits, unless each is synced, but never tears the file.
    """

    is_shared = False

    def __init__(
        self,
        directory: Path,
        *,
        max_sessions: int,
        fsync: bool = False,
        tombstone_s: float = TOMBSTONE_S,
        clock: Callable[[], float] = time.time,
        log_bytes: int = _LOG_BYTES,
    ) -> None:
        """Describe a store; `open` makes it.

        Args:
            directory: Where its files are; made if it is missing.
            max_sessions: More than these are refused.
            fsync: Whether commits survive a loss of power.
            tombstone_s: How long a session whose time to live is over is still known.
            clock: Tells the seconds since 1970.
            log_bytes: A longer write-ahead log is moved into the file. It may grow to a few times
                that, and further only while another program reads the file or the disk fails.
        """
        self._directory = directory
        self._path = directory / FILE_NAME
        self._max_sessions = max_sessions
        self._fsync = fsync
        self._tombstone_s = tombstone_s
        self._clock = clock
        self._log_bytes = self._checkpoint_at = log_bytes
        self._writing = asyncio.Lock()
        self._checkpoint: asyncio.Task[None] | None = None
        self._current_log_bytes = 0
        self._is_log_stuck = False
        self._opened: Connections | None = None

    async def open(self) -> None:
        """Lock the directory and open the file in it, if that is not done yet.

        Raises:
            DataDirectoryError: Another process has it, or the file cannot be used.
        """
        if self._opened is None:
            self._opened = await asyncio.to_thread(self._open)

    def _open(self) -> Connections:
        return Connections(
            self._directory,
            fsync=self._fsync,
            max_sessions=self._max_sessions,
            tombstone_s=self._tombstone_s,
            clock=self._clock,
        )

    async def close(self) -> None:
        """Move the write-ahead log into the file, and let the next process in."""
        opened = self._opened
        if opened is None:
            return
        async with self._writing:
            self._opened = None
        if self._checkpoint is not None:
            await self._checkpoint
        await asyncio.to_thread(opened.close)

    async def check(self) -> None:
        """Write something, and drop some of the sessions that need not be known any more.

        Raises:
            StoreUnavailableError: It cannot be written to, or what is written would be lost.
        """
        if missing := self._get_opened().files.find_missing():
            raise StoreUnavailableError(
                f"{missing} was removed or replaced while in use: bring it back, or restart the"
                " service"
            )
        for _ in range(_PURGE_CHUNKS):
            if await self._purge() < _CHUNK:
                break
            await asyncio.sleep(0)
        await self._write(SessionWriter.touch)

    async def _purge(self) -> int:
        try:
            return await self._write(lambda writer: writer.purge(_CHUNK))
        except StoreUnavailableError as error:
            # The others go on where ended sessions cannot be reached.
            if isinstance(error.__cause__, sqlite3.Error) and is_damage(error.__cause__):
                return 0
            raise

    async def load_many(self, keys: Sequence[SessionKey]) -> list[Loaded]:
        """Return what each key has, None where there is nothing.

        Raises:
            StoreUnavailableError: The file cannot be read.
        """
        stored: list[Loaded] = []
        for begin in range(0, len(keys), _CHUNK):
            if begin:
                await asyncio.sleep(0)
            with self._reading() as reader:
                stored += map(reader.load, keys[begin : begin + _CHUNK])
        return stored

    async def commit_many(self, commits: Sequence[Commit]) -> list[Outcome]:
        """Make each change whose session is as expected, all in one transaction.

        Raises:
            StoreUnavailableError: The file cannot be written to; none was made, unless a sync
                failed.
        """
        return await self._write(lambda writer: list(map(writer.apply, commits)))

    async def list_sessions(
        self, tenant: str, model: str, limit: int, cursor: str | None
    ) -> tuple[list[SessionSummary], str | None]:
        """Return up to `limit` sessions by client id, and where to go on; ended ones make it less.

        Raises:
            StoreUnavailableError: The file cannot be read.
        """
        summaries: list[SessionSummary] = []
        last = cursor or ""
        num_seen = 0
        while True:
            with self._reading() as reader:
                page = reader.read_page(tenant, model, last, _CHUNK)
            page_begin = last
            for key, record in page:
                if len(summaries) == limit:
                    return summaries, last
                # Damage may have changed a key, and with it the order.
                if key is not None and key[:2] == (tenant, model) and key.client_id > last:
                    last = key.client_id
                    if record is not None and self._clock() < record.expires_at:
                        summaries.append(SessionSummary(last, record.position, record.epoch))
            num_seen += len(page)
            if len(page) < _CHUNK or last == page_begin:
                return summaries, None
            if num_seen >= limit + _MAX_SKIPPED:
                return summaries, last
            await asyncio.sleep(0)

    async def list_keys(
        self, limit: int, cursor: str | None
    ) -> tuple[list[SessionKey], str | None]:
        """Return up to `limit` keys in order, and where to go on.

        Raises:
            StoreUnavailableError: The file cannot be read.
        """
        with self._reading() as reader:
            found = reader.read_keys(cursor or "", limit)
        keys = [key for _, key in found if key is not None]
        last = max((place for place, _ in found), default="")
        return keys, last if len(found) == limit and last > (cursor or "") else None

    def _get_opened(self) -> Connections:
        if self._opened is None:
            raise StoreUnavailableError("it is not open")
        return self._opened

    @contextmanager
    def _reading(self) -> Iterator[SessionReader]:
        """Give the reader, for as long as the file stays as it is, and translate its errors."""
        try:
            reader = self._get_opened().reader
            reader.begin()
            try:
                yield reader
            finally:
                reader.end()
        except (sqlite3.Error, MemoryError) as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> StoreUnavailableError:
        return StoreUnavailableError(f"{self._path}: {error}")

    async def _write(self, change: Callable[[SessionWriter], T]) -> T:
        """Make a change in a transaction of its own.

        Raises:
            StoreUnavailableError: The file cannot be written to.
        """
        await self._let_checkpoint_catch_up()
        await self._writing.acquire()
        ending: asyncio.Future[None] | None = None
        try:
            opened = self._get_opened()
            opened.writer.begin()
            try:
                result = change(opened.writer)
            except BaseException:
                opened.writer.roll_back()
                raise
            if self._fsync:
                # The transaction ends even where the caller does not stay for it, and not before
                # that does the next one begin.
                ending = opened.run(opened.commits, opened.writer.end)
                ending.add_done_callback(lambda _: self._writing.release())
                await asyncio.shield(ending)
            else:
                opened.writer.end()
        except (sqlite3.Error, MemoryError) as error:
            # Where the disk is full, the log may give some room back.
            self._shorten_log_if_over(_LEFT_BYTES)
            raise self._unavailable(error) from error
        finally:
            if ending is None:
                self._writing.release()
        self._shorten_log_if_over(self._checkpoint_at)
        return result

    def _shorten_log_if_over(self, limit_bytes: int) -> None:
        opened = self._opened
        if opened is None:
            return
        self._current_log_bytes = opened.keeper.log_bytes
        if self._checkpoint is None and self._current_log_bytes > limit_bytes:
            self._checkpoint = asyncio.get_running_loop().create_task(self._shorten_log(opened))

    async def _let_checkpoint_catch_up(self) -> None:
        limit_bytes = self._checkpoint_at + (_STALLED_AT - 1) * self._log_bytes
        if self._checkpoint is not None and self._current_log_bytes > limit_bytes:
            await asyncio.wait([self._checkpoint])

    async def _shorten_log(self, opened: Connections) -> None:
        """Move the log into the file: most of it beside the commits, and the last bit without."""
        keeper = opened.keeper
        is_short = False
        try:
            for _ in range(_MAX_COPIES):
                if await opened.run(opened.checkpoints, keeper.copy) <= _LEFT_BYTES:
                    break
            async with self._writing:
                is_short = await opened.run(opened.checkpoints, keeper.truncate)
        except (sqlite3.Error, OSError) as error:
            if not self._is_log_stuck:  # else it has been said
                log.warning("the log of %s cannot be moved into it: %s", self._path, error)
            self._is_log_stuck = True
        else:
            self._is_log_stuck = False
        finally:
            self._current_log_bytes = keeper.log_bytes
            # Where it could not be shortened, that is tried again when it has grown by as much.
            self._checkpoint_at = self._log_bytes + (0 if is_short else self._current_log_bytes)
            self._checkpoint = None
