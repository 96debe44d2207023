"""What an open embedded store holds: its lock, its connections and its threads."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from service.stores.data_directory import LOCK_NAME, DirectoryLock, HeldFiles
from service.stores.embedded_file import FILE_NAME, LogKeeper, connect, opening_error
from service.stores.embedded_sessions import SessionReader, SessionWriter

T = TypeVar("T")


class Connections:
    """Everything that is to be let go of in the end.

    Attributes:
        files: Those that are open.
        keeper: Used on the thread of `checkpoints`.
        reader: Used in the event loop.
        writer: Used in the event loop, and on the thread of `commits` to end a transaction.
    """

    def __init__(
        self,
        directory: Path,
        *,
        fsync: bool,
        max_sessions: int,
        tombstone_s: float,
        clock: Callable[[], float],
    ) -> None:
        """Open a directory; see `EmbeddedStore`.

        Raises:
            DataDirectoryError: Another process has it, or the file cannot be used.
        """
        path = directory / FILE_NAME
        with ExitStack() as stack:
            lock = DirectoryLock(directory)
            stack.callback(lock.release)
            self.keeper = LogKeeper(path)
            # Closed last, for its syncs.
            stack.callback(self.keeper.close)
            try:
                self.reader = SessionReader(connect(path, synchronous="NORMAL"))
                stack.callback(self.reader.close)
                self.writer = SessionWriter(
                    connect(path, synchronous="FULL" if fsync else "NORMAL"),
                    max_sessions=max_sessions,
                    tombstone_s=tombstone_s,
                    clock=clock,
                )
                stack.callback(self.writer.close)
                beside = (path.with_name(path.name + end) for end in ("-wal", "-shm"))
                self.files = HeldFiles([directory / LOCK_NAME, path, *beside])
            except (OSError, sqlite3.Error) as error:
                raise opening_error(path, error) from error
            self.checkpoints = stack.enter_context(ThreadPoolExecutor(1, "checkpoint"))
            self.commits = stack.enter_context(ThreadPoolExecutor(1, "commit"))
            self._stack = stack.pop_all()

    @staticmethod
    def run(thread: ThreadPoolExecutor, call: Callable[[], T]) -> asyncio.Future[T]:
        """Run something on one of the threads."""
        return asyncio.get_running_loop().run_in_executor(thread, call)

    def close(self) -> None:
        """Let go of everything."""
        self._stack.close()
