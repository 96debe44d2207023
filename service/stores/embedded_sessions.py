"""The embedded store's statements: reading and writing sessions over one SQLite connection.

A row's number is a hash of its key, so that a step finds it in the table itself. The index of keys
serves the listings, and is the witness for what the table does not have: where damage has hidden a
row, the session is damaged and not absent. A row's bytes are trusted only after their checksum,
which takes in the key. Everything here blocks, and for microseconds unless the disk is slow.
"""

# ruff: noqa: S608 - the statements are put together from constants

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from hashlib import blake2b
from typing import NamedTuple

from service.domain import SessionKey
from service.records import Record
from service.stores import codec
from service.stores.base import Commit, Damaged, Outcome, Stored
from service.stores.embedded_file import TOUCH, is_damage

log = logging.getLogger(__name__)

_FORGET_EVERY_S = 300
"""To how many seconds it is rounded up when a row may go: a session with a time to live is not to
change the index with every step."""
_LAST_TIME = 2.0**62
_MAKE_ROOM = 16
"""How many rows a full store looks at for one that may go."""

_BYTES = "coalesce(CAST(record AS BLOB), x'')"
"""A record's bytes, also where damage has changed their type."""
_BLOB = "iif(typeof(record) = 'blob', record, x'')"
"""A record's bytes, none where damage has changed their type: such a one is equal to no stamp."""
_HAS_STAMP = f"substr(record, {codec.STAMP.start + 1}, {codec.STAMP.stop - codec.STAMP.start}) = ?"
_HAS_BYTES = f"{_BYTES} = ?"

_LOAD = f"SELECT key, typeof(record) = 'blob', {_BYTES} FROM sessions WHERE id = ?"
_IS_LISTED = "SELECT 1 FROM sessions INDEXED BY sessions_by_key WHERE key = ?"
_PAGE = f"SELECT key, {_BLOB} FROM sessions WHERE key > ? AND key < ? ORDER BY key LIMIT ?"
_KEYS = "SELECT key FROM sessions INDEXED BY sessions_by_key WHERE key > ? ORDER BY key LIMIT ?"
_BEGIN = (
    "INSERT INTO sessions (record, forget_at, id, key) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
_KEEP_ASIDE = (
    "INSERT INTO damaged (key, found_at, record)"
    f" SELECT ?, ?, {_BYTES} FROM sessions WHERE id = ? AND {_HAS_BYTES}"
)
_FORGETTABLE = f"SELECT id, key, {_BLOB} FROM sessions WHERE forget_at <= ? LIMIT ?"


class _Change(NamedTuple):
    """The statements that change a row if it is as expected."""

    update: str
    update_all: str
    end: str


def _change_if(condition: str) -> _Change:
    # Once for all: joining and hashing them for each row would take longer than finding it.
    return _Change(
        f"UPDATE sessions SET record = ? WHERE id = ? AND forget_at IS ? AND {condition}",
        f"UPDATE sessions SET record = ?, forget_at = ? WHERE id = ? AND {condition}",
        f"DELETE FROM sessions WHERE id = ? AND {condition}",
    )


_IF_STAMP = _change_if(_HAS_STAMP)
_IF_BYTES = _change_if(_HAS_BYTES)


class SessionReader:
    """Reads sessions."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Read over a connection, which nobody else uses."""
        self._connection = connection

    def begin(self) -> None:
        """Begin to read the file as it is now."""
        self._connection.execute("BEGIN")

    def end(self) -> None:
        """End that, so that the log can be emptied."""
        # A commit would tell once more of the damage that was met.
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def load(self, key: SessionKey) -> Stored | None:
        """Return what a session has; where the file is damaged, that is `Damaged` without bytes."""
        name = _name(key)
        number = _number(name)
        try:
            row = self._connection.execute(_LOAD, (number,)).fetchone()
            if row is None:
                if self._connection.execute(_IS_LISTED, (name,)).fetchone() is None:
                    return None
                return Damaged(b"", "the file is damaged: the session's row is not in its place")
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                return Damaged(b"", f"the file is damaged: {error}")
            raise
        found, is_blob, data = row
        try:
            record = codec.decode(key, data)
        except codec.DamagedRecordError as error:
            return None if _is_another(found, name, number) else Damaged(data, str(error))
        return record if is_blob else Damaged(data, "the file is damaged: the type has changed")

    def read_page(
        self, tenant: str, model: str, after: str, limit: int
    ) -> list[tuple[SessionKey | None, Record | None]]:
        """Return up to `limit` keys behind a client id, with their records; None is damaged."""
        bounds = _name(SessionKey(tenant, model, after)), f"{tenant}\0{model}\1".encode()
        page: list[tuple[SessionKey | None, Record | None]] = []
        for name, data in self._connection.execute(_PAGE, (*bounds, limit)).fetchall():
            key = _key(name)
            page.append((key, None if key is None else _decode_or_none(key, data)))
        return page

    def read_keys(self, after: str, limit: int) -> list[tuple[str, SessionKey | None]]:
        """Return up to `limit` keys with the cursors of what is behind them; None is damaged."""
        rows = self._connection.execute(_KEYS, (after.encode(), limit)).fetchall()
        return [(name.decode(errors="replace"), _key(name)) for (name,) in rows]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class SessionWriter:
    """Writes sessions, one transaction after the other.

    Attributes:
        num_sessions: How many rows there are, those of ended sessions included.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        max_sessions: int,
        tombstone_s: float,
        clock: Callable[[], float],
    ) -> None:
        """Write over a connection, which nobody else uses."""
        self._connection = connection
        self._max_sessions = max_sessions
        self._tombstone_s = tombstone_s
        self._clock = clock
        self._can_purge = True
        self.num_sessions = self._num_committed = _count(connection)

    def begin(self) -> None:
        """Begin a transaction, and drop one that has never ended."""
        if self._connection.in_transaction:
            self.roll_back()
        self._connection.execute("BEGIN IMMEDIATE")

    def end(self) -> None:
        """Commit the transaction: where it fails, nothing of it has happened."""
        try:
            self._connection.execute("COMMIT")
        except sqlite3.Error:
            self.roll_back()
            raise
        self._num_committed = self.num_sessions

    def roll_back(self) -> None:
        """Undo the transaction, if there still is one."""
        self.num_sessions = self._num_committed
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def touch(self) -> None:
        """Write something."""
        self._connection.execute(TOUCH)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def apply(self, commit: Commit) -> Outcome:
        """Make a change whose session is as expected."""
        name = _name(commit.key)
        number = _number(name)
        before = commit.before
        if before is None:
            return self._begin(name, number, commit)
        if isinstance(before, Record):
            stamp = codec.stamp(before)
            return self._change(_IF_STAMP, number, stamp, commit)
        self._connection.execute(_KEEP_ASIDE, (name, self._clock(), number, before.data))
        outcome = self._change(_IF_BYTES, number, before.data, commit)
        if outcome is Outcome.CONFLICT and not before.data:
            # It was not read, and will not be on another attempt.
            return Outcome.DAMAGED
        return outcome

    def _begin(self, name: bytes, number: int, commit: Commit) -> Outcome:
        """Make a row that is expected not to be there."""
        if commit.after is None or (self._is_full() and not self.purge(_MAKE_ROOM)):
            if self._find(number) is not None:
                return Outcome.CONFLICT
            return Outcome.COMMITTED if commit.after is None else Outcome.FULL
        row = (codec.encode(commit.key, commit.after), self._forget_at(commit.after), number, name)
        if self._connection.execute(_BEGIN, row).rowcount:
            self.num_sessions += 1
            return Outcome.COMMITTED
        # Once in a store of 10 million sessions out of 300,000: two keys with the same hash.
        return Outcome.FULL if _is_another(self._find(number), name, number) else Outcome.CONFLICT

    def _change(self, change: _Change, number: int, expected: bytes, commit: Commit) -> Outcome:
        """Change or end a row that is as expected."""
        execute = self._connection.execute
        after = commit.after
        if after is None:
            num_changed = execute(change.end, (number, expected)).rowcount
            self.num_sessions -= num_changed
        else:
            data = codec.encode(commit.key, after)
            at = None if after.ttl_s is None else self._forget_at(after)
            # Most of the time the index stays as it is.
            num_changed = execute(change.update, (data, number, at, expected)).rowcount
            if not num_changed:
                num_changed = execute(change.update_all, (data, at, number, expected)).rowcount
        return Outcome.COMMITTED if num_changed else Outcome.CONFLICT

    def purge(self, limit: int) -> int:
        """Drop up to `limit` of the rows that need not be known any more; return how many."""
        if not self._can_purge:
            return 0
        try:
            return self._purge(limit)
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                log.error("ended sessions are not dropped any more: %s", error)  # noqa: TRY400 - no fault of ours
                self._can_purge = False
            raise

    def _purge(self, limit: int) -> int:
        execute = self._connection.execute
        now = self._clock()
        num_dropped = 0
        for number, name, data in execute(_FORGETTABLE, (int(now), limit)).fetchall():
            key = _key(name)
            record = None if key is None else _decode_or_none(key, data)
            # The column only says where to look: it has no checksum.
            if record is not None and record.expires_at + self._tombstone_s < now:
                execute("DELETE FROM sessions WHERE id = ?", (number,))
                num_dropped += 1
            else:
                at = None if record is None else self._forget_at(record)
                execute("UPDATE sessions SET forget_at = ? WHERE id = ?", (at, number))
        self.num_sessions -= num_dropped
        return num_dropped

    def _is_full(self) -> bool:
        return self.num_sessions >= self._max_sessions

    def _find(self, number: int) -> object:
        row = self._connection.execute("SELECT key FROM sessions WHERE id = ?", (number,))
        return next(iter(row.fetchall()), (None,))[0]

    def _forget_at(self, record: Record) -> int | None:
        """Return from when on a row may go, in seconds since 1970; None for never."""
        at = record.expires_at + self._tombstone_s
        if not at < _LAST_TIME:
            return None
        return (int(at) // _FORGET_EVERY_S + 1) * _FORGET_EVERY_S


def _count(connection: sqlite3.Connection) -> int:
    """Return how many rows there are, or about how many where damage hides some."""
    try:
        [[num_rows]] = connection.execute("SELECT count(*) FROM sessions").fetchall()
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        log.error("sessions cannot be counted, the file is damaged: %s", error)  # noqa: TRY400 - no fault of ours
        [[num_rows]] = connection.execute("PRAGMA page_count").fetchall()
    return int(num_rows)


def _name(key: SessionKey) -> bytes:
    return "\0".join(key).encode()


def _number(name: bytes) -> int:
    return int.from_bytes(blake2b(name, digest_size=8).digest(), signed=True)


def _key(name: object) -> SessionKey | None:
    """Return the key that a row tells, None if it is none."""
    try:
        return SessionKey(*name.decode().split("\0")) if isinstance(name, bytes) else None
    except (UnicodeDecodeError, TypeError):
        return None


def _is_another(found: object, name: bytes, number: int) -> bool:
    """Tell whether a row's key is another one with the same number, and not this one damaged."""
    return isinstance(found, bytes) and found != name and _number(found) == number


def _decode_or_none(key: SessionKey, data: bytes) -> Record | None:
    try:
        return codec.decode(key, data)
    except codec.DamagedRecordError:
        return None
