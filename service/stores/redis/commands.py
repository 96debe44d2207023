"""What is asked of Redis, as the bytes that go over the connection. Knows no connection."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha1
from importlib.resources import files
from typing import NamedTuple, cast

import hiredis

from service.stores.redis.keys import IDENTITY_KEYS

# Its type says that a command has one part.
_pack = cast("Callable[[tuple[bytes | str | int, ...]], bytes]", hiredis.pack_command)

CLUSTER_SLOTS = _pack(("CLUSTER", "SLOTS"))
ASKING = _pack(("ASKING",))
INFO = _pack(("INFO",))


class Command(NamedTuple):
    """A command for the server that has a bucket.

    Attributes:
        bucket: Which.
        packed: The bytes to send.
    """

    bucket: int
    packed: bytes


def _read(name: str) -> bytes:
    return (files(__package__) / f"{name}.lua").read_bytes()


def _sha(script: bytes) -> bytes:
    # The name that Redis knows a script by.
    return sha1(script, usedforsecurity=False).hexdigest().encode()


_SCRIPTS = {name: _read(name) for name in ("commit", "replace_damaged", "load", "probe")}
_COMMIT, _REPLACE, _LOAD, _PROBE = (_sha(script) for script in _SCRIPTS.values())

LOAD_SCRIPTS = [_pack(("SCRIPT", "LOAD", script)) for script in _SCRIPTS.values()]


def commit(
    bucket: int, key: bytes, identity: bytes, expected: bytes, value: bytes, keep_ms: bytes
) -> Command:
    """Return a run of `commit.lua`."""
    keys = (key, IDENTITY_KEYS[bucket])
    arguments = (identity, expected, value, keep_ms)
    return Command(bucket, _pack((b"EVALSHA", _COMMIT, b"2", *keys, *arguments)))


def replace_damaged(
    bucket: int,
    key: bytes,
    aside: bytes,
    identity: bytes,
    expected: bytes,
    value: bytes,
    keep_ms: bytes,
) -> Command:
    """Return a run of `replace_damaged.lua`; the expected bytes are kept under the key `aside`."""
    keys = (key, IDENTITY_KEYS[bucket], aside)
    arguments = (identity, expected, value, keep_ms)
    return Command(bucket, _pack((b"EVALSHA", _REPLACE, b"3", *keys, *arguments)))


def load(bucket: int, key: bytes, identity: bytes) -> Command:
    """Return a run of `load.lua`."""
    return Command(bucket, _pack((b"EVALSHA", _LOAD, b"2", key, IDENTITY_KEYS[bucket], identity)))


def probe(bucket: int, identity: bytes) -> Command:
    """Return a run of `probe.lua`."""
    return Command(bucket, _pack((b"EVALSHA", _PROBE, b"1", IDENTITY_KEYS[bucket], identity)))


def get_identity(bucket: int) -> Command:
    """Return the question for a bucket's identity."""
    return Command(bucket, _pack((b"GET", IDENTITY_KEYS[bucket])))


def set_identity(bucket: int, identity: bytes, *, only_if_missing: bool) -> Command:
    """Return what gives a bucket its identity."""
    condition = (b"NX",) if only_if_missing else ()
    return Command(bucket, _pack((b"SET", IDENTITY_KEYS[bucket], identity, *condition)))


def scan(cursor: int, pattern: bytes, count: int) -> bytes:
    """Return the question for a server's next keys."""
    return _pack(("SCAN", cursor, "MATCH", pattern, "COUNT", count))


def wait(num_replicas: int, timeout_ms: int) -> bytes:
    """Return the question for how many replicas have what was written before it."""
    return _pack(("WAIT", num_replicas, timeout_ms))
