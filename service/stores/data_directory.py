"""The directory that the embedded store has to itself. Knows nothing of what is kept there."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


class DataDirectoryError(OSError):
    """The data directory, or what lies in it, cannot be used. The message says what to do."""


LOCK_NAME = "lock"


class DirectoryLock:
    """Keeps every other process out of a directory for as long as this one lives, and no longer."""

    def __init__(self, directory: Path) -> None:
        """Lock `directory`, which is made if it is missing, for the user alone.

        Raises:
            DataDirectoryError: Another process has it, or it cannot be written to.
        """
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise DataDirectoryError(
                f"the data directory {directory} cannot be used: {error.strerror}; make it"
                " writable, or choose another with --data-dir"
            ) from error
        try:
            # The kernel lets go of it however the process ends, so it is never stale.
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._descriptor, 0)
            # A full disk costs a second process the number in its error, and nothing else.
            with suppress(OSError):
                os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)
        except OSError as error:
            self._refuse(directory, error)

    def _refuse(self, directory: Path, error: OSError) -> None:
        pid = os.pread(self._descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        self.release()
        if not isinstance(error, BlockingIOError):
            raise DataDirectoryError(
                f"the data directory {directory} cannot be locked: {error.strerror}; choose one on"
                " another file system with --data-dir"
            ) from error
        raise DataDirectoryError(
            f"the data directory {directory} is in use by process {pid}: stop that, or give this"
            " one a directory of its own with --data-dir; processes that are to share sessions"
            " need a redis:// store"
        ) from error

    def release(self) -> None:
        """Let the next process in."""
        os.close(self._descriptor)


class HeldFiles:
    """Files that are open, and whether their names still mean them.

    What is written to a file that somebody has removed ends with the process that holds it.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        """Take files that are open, and stay so: nothing new gets their numbers.

        Raises:
            OSError: One of them is not there any more.
        """
        self._held = {path: path.stat() for path in paths}

    def find_missing(self) -> Path | None:
        """Return one that was removed, moved or replaced; None: there is none."""
        for path, held in self._held.items():
            try:
                is_there = os.path.samestat(path.stat(), held)
            except OSError:
                is_there = False
            if not is_there:
                return path
        return None
