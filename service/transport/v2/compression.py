"""Bodies that are compressed, with gzip or with zlib, which HTTP calls deflate: in slices."""

from __future__ import annotations

import re
import zlib

from service.errors import BodyTooLargeError, UnsupportedMediaTypeError
from service.transport.explain import wrong
from service.transport.headers import Headers
from service.transport.slices import Slices

_WINDOW_BITS = {"gzip": 31, "deflate": 15}
_SLICE_BYTES = 64 * 1024
_ACCEPTED = re.compile(rb"\s*([a-z*]+)\s*(?:;\s*q\s*=\s*([01](?:\.[0-9]{0,3})?)\s*)?\Z")
_MAX_ACCEPTED = 16
_FASTEST = 1


def encoding_of(headers: Headers) -> str | None:
    """Return how a body is compressed, None if it is not.

    Raises:
        UnsupportedMediaTypeError: In a way that is not known here.
    """
    given = headers.get(b"content-encoding")
    if given is None:
        return None
    encoding = given.decode("latin-1").strip().lower()
    if encoding in ("", "identity"):
        return None
    if encoding not in _WINDOW_BITS:
        expected = "compressed with gzip or deflate, or not at all"
        raise UnsupportedMediaTypeError(f"with {encoding[:100]}", expected)
    return encoding


def accepted_encoding(headers: Headers) -> str | None:
    """Return how the answer shall be compressed, None if that was not asked for."""
    given = headers.get(b"accept-encoding")
    if given is None:
        return None
    best, best_quality = None, 0.0
    for part in given.lower().split(b",")[:_MAX_ACCEPTED]:
        found = _ACCEPTED.match(part)
        name = found[1].decode() if found else ""
        quality = float(found[2] or 1) if found else 0.0
        # Of two that are as welcome the first one, but gzip before deflate, which some misread.
        is_better = quality > best_quality or (quality == best_quality and name == "gzip")
        if name in _WINDOW_BITS and quality > 0 and is_better:
            best, best_quality = name, quality
    return best


def expand(body: bytes, encoding: str, limit_bytes: int) -> Slices[bytes]:
    """Return what a compressed body holds.

    Args:
        body: As it came.
        encoding: How it is compressed.
        limit_bytes: What it may hold; what is over it is not kept.

    Raises:
        BodyTooLargeError: It holds more.
        InvalidRequestError: It is not compressed like this, or not whole.
    """
    expander = zlib.decompressobj(_WINDOW_BITS[encoding])
    parts: list[bytes] = []
    num_bytes = 0
    left = body
    while not expander.eof:
        try:
            part = expander.decompress(left, _SLICE_BYTES)
        except zlib.error:
            raise wrong((), f"the body is not compressed with {encoding}") from None
        left = expander.unconsumed_tail
        num_bytes += len(part)
        if num_bytes > limit_bytes:
            raise BodyTooLargeError(limit_bytes)
        if not part and not left and not expander.eof:
            raise wrong((), f"the {encoding} body ends too early")
        parts.append(part)
        yield
    if expander.unused_data:
        text = f"{len(expander.unused_data)} bytes stand behind the end of the {encoding} body"
        raise wrong((), text)
    return b"".join(parts)


def compress(body: bytes, encoding: str) -> Slices[bytes]:
    """Return a body compressed, fast rather than well."""
    compressor = zlib.compressobj(_FASTEST, zlib.DEFLATED, _WINDOW_BITS[encoding])
    parts = []
    for start in range(0, len(body), _SLICE_BYTES):
        parts.append(compressor.compress(body[start : start + _SLICE_BYTES]))
        yield
    parts.append(compressor.flush())
    return b"".join(parts)
