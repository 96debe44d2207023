"""A session as one line of JSON: the exact bytes of its record, and a head for people to read.

A line stands for itself, so files can be cut, filtered and joined. `record` is what counts; a head
that says something else makes the line a bad one, so that nobody edits a position in vain.
"""

from __future__ import annotations

import base64
import json
import struct
from datetime import UTC, datetime
from typing import Any

import numpy as np

from service.domain import MAX_POSITION, SessionKey, is_client_id
from service.records import Record
from service.stores.base import Damaged, Stored
from service.stores.codec import DamagedRecordError, decode, encode

MAX_LINE_BYTES = 64 * 1024 * 1024
"""No session is so large; a longer line is not read into memory."""

_HEAD = ("position", "epoch", "fingerprint", "ttl_s")


class LineError(Exception):
    """A line is no session. The message says why."""


def write_line(key: SessionKey, stored: Stored) -> bytes:
    """Return the line of a session, its end included."""
    document: dict[str, Any] = dict(key._asdict())
    if isinstance(stored, Damaged):
        document |= {"damaged": stored.reason, "record": _base64(stored.data)}
    else:
        document |= head(stored)
        document["record"] = _base64(encode(key, stored))
    return json.dumps(document).encode() + b"\n"


def head(record: Record) -> dict[str, Any]:
    """Return what people want to know of a record."""
    return {
        "position": record.position,
        "epoch": record.epoch,
        "fingerprint": record.fingerprint,
        "ttl_s": record.ttl_s,
        "touched_at": moment(record.touched_at),
        "expires_at": moment(record.expires_at),
    }


def moment(seconds: float) -> str | None:
    """Return seconds since 1970 as ISO 8601 has them; None for what no calendar has."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return None


def read_line(line: bytes) -> tuple[SessionKey, Record]:
    """Return the session of a line.

    Raises:
        LineError: It is none.
    """
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise LineError(f"not JSON: {str(error)[:100]}") from None
    if not isinstance(document, dict):
        raise LineError("not a JSON object")
    key = _key(document)
    if "damaged" in document:
        raise LineError(f"{name_of(key)} was damaged when it was exported")
    record = _record(key, document.get("record"))
    actual = head(record)
    for name in _HEAD:
        if name in document and document[name] != actual[name]:
            raise LineError(
                f"{name_of(key)}: {name} is {str(document[name])[:100]}, but {actual[name]} in the"
                " record; the record counts, and cannot be edited"
            )
    return key, record


def name_of(key: SessionKey) -> str:
    """Return how a message calls a session."""
    return f"{key.model}/{key.client_id}"


def count_sessions(number: int) -> str:
    """Say how many sessions there are."""
    return f"{number} session{'' if number == 1 else 's'}"


def _key(document: dict[str, Any]) -> SessionKey:
    values = [document.get(name) for name in SessionKey._fields]
    for name, value in zip(SessionKey._fields, values, strict=True):
        if not isinstance(value, str) or not is_client_id(value):
            raise LineError(f"{name}: expected a name, got {str(value)[:100]!r}")
    return SessionKey(*map(str, values))


def _record(key: SessionKey, text: object) -> Record:
    if not isinstance(text, str):
        raise LineError(f"{name_of(key)}: record: expected base64")
    try:
        record = decode(key, base64.b64decode(text, validate=True))
    except DamagedRecordError as error:
        raise LineError(f"{name_of(key)}: record: {error}") from None
    except (ValueError, struct.error) as error:
        raise LineError(f"{name_of(key)}: record: {str(error)[:100]}") from None
    if not np.isfinite(record.row).all() or max(record.position, record.epoch) > MAX_POSITION:
        raise LineError(f"{name_of(key)}: record: numbers that no session has")
    return record


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
