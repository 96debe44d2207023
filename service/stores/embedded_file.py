"""The embedded store's SQLite file: its connections, its schema and its write-ahead log.

A commit appends to the log (`-wal`) and survives the process; `synchronous` decides what survives a
loss of power. Checkpoints move the log into the file, with all the syncs that this takes so that
neither is ever torn. Knows the tables' columns and nothing of what is in them.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import ExitStack
from pathlib import Path

from service.stores.data_directory import DataDirectoryError

FILE_NAME = "sessions.sqlite"

_APPLICATION_ID = int.from_bytes(b"LSTM")
_VERSION = 1

_CACHE_KIB = 8192
"""Each connection's page cache: what is not in it is in the operating system's, if there is room.
So passive sessions cost the process nothing."""
_TIMEOUT_S = 0.2
"""How long a checkpoint waits for those who read; they are other programs, such as a backup."""

_TABLES = (
    "CREATE TABLE sessions (id INTEGER PRIMARY KEY, forget_at INTEGER, key BLOB, record BLOB)",
    "CREATE UNIQUE INDEX sessions_by_key ON sessions (key)",
    "CREATE INDEX sessions_by_forget_at ON sessions (forget_at) WHERE forget_at IS NOT NULL",
    "CREATE TABLE damaged (key BLOB, found_at REAL, record BLOB)",
)
_SCHEMA = (
    "BEGIN",
    *_TABLES,
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_VERSION}",
    "COMMIT",
    "PRAGMA journal_mode = WAL",
)

TOUCH = f"PRAGMA user_version = {_VERSION}"
"""The smallest write that there is: of one page that every other write needs too."""


def connect(path: Path, *, synchronous: str, timeout_s: float = 0.0) -> sqlite3.Connection:
    """Return a connection to the file.

    Args:
        path: The file.
        synchronous: `FULL` syncs each commit; `NORMAL` each beginning of the log, too.
        timeout_s: How long to wait for a lock: by default not at all, for the event loop's sake.
    """
    connection = sqlite3.connect(
        path,
        timeout=timeout_s,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=64,
    )
    # Where damage has turned bytes into text, they come as bytes all the same.
    connection.text_factory = bytes
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute(f"PRAGMA cache_size = {-_CACHE_KIB}")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def is_damage(error: sqlite3.Error) -> bool:
    """Tell whether an error is about what the file holds, not about the disk it is on."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
    return code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_TOOBIG}


class LogKeeper:
    """Makes the file, and keeps its log short. Belongs to one thread: everything here may block."""

    def __init__(self, path: Path) -> None:
        """Open the file, which is made if it is missing.

        Raises:
            DataDirectoryError: It is not this program's, or of a later version, or damaged.
        """
        self._path = path
        self._log_path = f"{path}-wal"
        with ExitStack() as stack:
            try:
                if not path.exists():
                    _create(path)
                # Closed last: it would take SQLite's locks on the file with it.
                self._file = os.open(path, os.O_RDWR)
                stack.callback(os.close, self._file)
                self._connection = connect(path, synchronous="NORMAL", timeout_s=_TIMEOUT_S)
                stack.callback(self._connection.close)
                self._check_identity()
                self._begin_log()
            except DataDirectoryError:
                raise
            except (OSError, sqlite3.Error) as error:
                raise opening_error(path, error) from error
            self._stack = stack.pop_all()

    def _check_identity(self) -> None:
        if self._get("PRAGMA application_id") != _APPLICATION_ID:
            raise DataDirectoryError(
                f"{self._path} is no file of this service, or has lost its head: restore a backup,"
                " move it and its -wal file away, or choose another directory with --data-dir"
            )
        version = self._get("PRAGMA user_version")
        if version != _VERSION:
            raise DataDirectoryError(
                f"{self._path} has version {version} and this program knows {_VERSION}: run the"
                " program that wrote it, or choose another directory with --data-dir"
            )
        tables = self._connection.execute("SELECT sql FROM sqlite_master").fetchall()
        if tables != [(table.encode(),) for table in _TABLES]:
            raise sqlite3.DatabaseError("its tables are not as they were made")

    def _get(self, query: str) -> int:
        [[value]] = self._connection.execute(query).fetchall()
        assert isinstance(value, int), "what is asked here are numbers"
        return value

    def _begin_log(self) -> None:
        """Write something, so that the sync of the log's head is ours and not the next commit's."""
        try:
            self._connection.execute(TOUCH)
        except sqlite3.OperationalError as error:
            # What is there can be read from a full disk, and written to when it has room again.
            if error.sqlite_errorcode & 0xFF not in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}:
                raise

    @property
    def log_bytes(self) -> int:
        """How long the log is."""
        try:
            return os.stat(self._log_path).st_size  # noqa: PTH116 - half the time, once a commit
        except FileNotFoundError:
            return 0

    def copy(self) -> int:
        """Move what can be moved while others write, and return how many bytes are left."""
        [[_, _, num_done]] = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        # SQLite leaves this to the last part, where it would be all at once.
        os.fsync(self._file)
        [[page_size]] = self._connection.execute("PRAGMA page_size").fetchall()
        return max(0, self.log_bytes - int(num_done) * (int(page_size) + 24))

    def truncate(self) -> bool:
        """Move the rest and empty the log, while nobody writes; tell whether readers let it."""
        [[is_busy, *_]] = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if not is_busy:
            self._begin_log()
        return not is_busy

    def close(self) -> None:
        """Close the last connection, which empties and removes the log if it can."""
        self._stack.close()


def _create(path: Path) -> None:
    """Make a whole file or none, so that one without a head is known to have lost it."""
    if (log := path.with_name(path.name + "-wal")).exists():
        # SQLite would take it for the new file's.
        raise FileNotFoundError(f"the file is gone, but there is {log}; bring both back, or none")
    unfinished = path.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    # SQLite would let others read it.
    os.close(os.open(unfinished, os.O_RDWR | os.O_CREAT, 0o600))
    connection = sqlite3.connect(unfinished, isolation_level=None)
    try:
        *_, [[mode]] = [connection.execute(statement).fetchall() for statement in _SCHEMA]
    finally:
        connection.close()
    if mode != "wal":
        raise OSError("its file system cannot share memory between connections")
    unfinished.rename(path)
    directory = os.open(path.parent, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


def opening_error(path: Path, error: OSError | sqlite3.Error) -> DataDirectoryError:
    """Return the error that tells why the file cannot be opened, and what to do."""
    if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
        return DataDirectoryError(
            f"{path} is damaged or no SQLite file ({error}): restore a backup, or save what can be"
            f" read with `sqlite3 {path} .recover`, or move it and its -wal file away to begin anew"
        )
    return DataDirectoryError(
        f"{path} cannot be opened: {error}; see that the disk has room and the directory is"
        " writable, or choose another with --data-dir"
    )
