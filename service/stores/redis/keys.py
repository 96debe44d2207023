"""Where in Redis a session is: its bucket and its key. Knows no connection.

Sessions are spread over `BUCKETS` buckets, each of which lies in one hash slot of a Redis Cluster
by its hash tag, together with its identity: so a script can see both, whichever server has them.

    {lstm:17}:default:vowels:alice              a session
    {lstm:17}:identity                          whose sessions these are
    {lstm:17}:damaged/<digest>:default:...      bytes that could not be read, kept aside
"""

from __future__ import annotations

from binascii import crc32, crc_hqx
from functools import lru_cache
from hashlib import sha256
from urllib.parse import quote, unquote

from service.domain import SessionKey, is_client_id

BUCKETS = 256
"""How many there are is part of the layout: with another number no session would be found."""

IDENTITY_KEYS = tuple(b"{lstm:%d}:identity" % bucket for bucket in range(BUCKETS))
SLOTS = tuple(crc_hqx(b"lstm:%d" % bucket, 0) % 16384 for bucket in range(BUCKETS))
"""The hash slot of each bucket: Redis takes the CRC of XMODEM, of the hash tag alone."""


def locate(key: SessionKey) -> tuple[int, bytes]:
    """Return a session's bucket and its key in Redis."""
    name = f"{_owner(key.tenant, key.model)}:{key.client_id}".encode()
    bucket = crc32(name) % BUCKETS
    return bucket, b"{lstm:%d}:%b" % (bucket, name)


def damaged_key(key: bytes, data: bytes) -> bytes:
    """Return where the damaged bytes of a session are kept; `key` is its key in Redis."""
    tag, _, name = key.partition(b"}:")
    return b"%b}:damaged/%b:%b" % (tag, sha256(data).hexdigest()[:16].encode(), name)


def session_of(key: bytes) -> SessionKey | None:
    """Return whose key in Redis this is; None if it is no session's."""
    try:
        tenant, model, client_id = key.partition(b"}:")[2].decode().split(":", 2)
    except ValueError:
        return None
    session = SessionKey(unquote(tenant), unquote(model), client_id)
    if not is_client_id(client_id) or locate(session)[1] != key:
        return None
    return session


def pattern(tenant: str | None = None, model: str | None = None) -> bytes:
    """Return what SCAN finds the sessions of an owner by, and perhaps some of others."""
    if tenant is None or model is None:
        return b"{lstm:*}:*:*:*"
    # Quoted names have none of the characters that a pattern gives a meaning to.
    return f"{{lstm:*}}:{_owner(tenant, model)}:*".encode()


@lru_cache(maxsize=1024)
def _owner(tenant: str, model: str) -> str:
    # Quoted, so that neither a colon nor a slash in a name makes one key out of two.
    return f"{quote(tenant, safe='')}:{quote(model, safe='')}"
