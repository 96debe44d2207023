"""A state as a safetensors file, both ways: a tensor a vector, and the rest as its metadata.

The format is https://github.com/huggingface/safetensors: the length of a header, the header in
JSON, and the numbers. Whoever trains a model in another framework has its states in it with one
call. No media type is registered for it; the names below are those in use.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from pydantic import ValidationError

from service.domain import Float32, ImportRequest, SessionKey, SessionReply
from service.errors import Problem
from service.signature import Signature
from service.transport import schema
from service.transport.explain import describe, explain, invalid, shorten, wrong
from service.transport.headers import Headers
from service.transport.parse_state import import_request
from service.transport.render import dump, states_of

MEDIA_TYPE = "application/vnd.safetensors"
MEDIA_TYPES = (
    MEDIA_TYPE,
    "application/safetensors",
    "application/x-safetensors",
    "application/octet-stream",
)
"""What a caller may call it."""
DESCRIPTION = (
    "A safetensors file: tensors `{layer}.h` and `{layer}.c` of shape `(units,)` float32; metadata"
    " `position`, `epoch`, `fingerprint` and `has_output` as in the JSON document, as text. No"
    " media type is registered for it: " + ", ".join(f"`{name}`" for name in MEDIA_TYPES) + " all"
    " mean it."
)

_NAME_BYTES = 512
_REST_BYTES = 16 * 1024
_Header = dict[str, Any]


def is_tensors(headers: Headers) -> bool:
    """Tell whether a body is said to be a safetensors file."""
    content_type = headers.get(b"content-type", b"").decode("latin-1")
    return content_type.partition(";")[0].strip().lower() in MEDIA_TYPES


def accepted_type(headers: Headers) -> str | None:
    """Return the name by which a caller wants a safetensors file; None where JSON is as good.

    `*/*` and no preference at all mean JSON.
    """
    accept = headers.get(b"accept", b"").decode("latin-1").lower()
    qualities: dict[str, float] = {}
    for part in accept.split(","):
        media_type, *parameters = (text.strip() for text in part.split(";"))
        qualities.setdefault(media_type, _quality(parameters))
    best = max(MEDIA_TYPES, key=lambda name: qualities.get(name, 0.0))
    wanted = qualities.get(best, 0.0)
    # Who names the one and takes anything else too wants the one.
    return best if wanted > qualities.get("application/json", 0.0) else None


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def render_tensors(reply: SessionReply, signature: Signature) -> bytes:
    """Write a state whose row fits the signature."""
    from safetensors.numpy import save

    vectors = zip(_names(signature), states_of(reply.row, signature.state_layout), strict=True)
    metadata = {
        "position": str(reply.position),
        "epoch": str(reply.epoch),
        "fingerprint": reply.fingerprint,
        "has_output": dump(reply.has_output.tolist()).decode(),
    }
    tensors = {name: np.ascontiguousarray(vector, np.float32) for name, vector in vectors}
    return save(tensors, metadata)


def parse_tensors(
    body: bytes,
    signature: Signature,
    key: SessionKey,
    *,
    position: int | None,
    epoch: int | None,
) -> ImportRequest:
    """Read a safetensors file; `position` and `epoch` are the preconditions, from the query.

    Raises:
        InvalidRequestError: It is none, or does not fit the model.
    """
    from safetensors import SafetensorError, deserialize

    header = _cut_header(body, signature)
    try:
        # Checks that the header is one, and that the tensors are where it says.
        tensors: dict[str, _Header] = dict(deserialize(body))  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        reason = str(error).removeprefix("Error while deserializing: ")
        raise wrong((), f"not a safetensors file: {shorten(reason)}") from None
    metadata = _metadata(header)
    row = _row(tensors, signature)
    return import_request(metadata, row, signature, key, position=position, epoch=epoch)


def _cut_header(body: bytes, signature: Signature) -> bytes:
    """Return the header's bytes, so few that they cost nothing to read.

    Raises:
        InvalidRequestError: They are too many for the tensors of this model.
    """
    size = int.from_bytes(body[:8], "little")
    most = _REST_BYTES + sum(_NAME_BYTES + 6 * len(name) for name in _names(signature))
    if len(body) < 8 or size > len(body) - 8:
        raise wrong((), f"not a safetensors file: {len(body)} bytes are not its whole header")
    if size > most:
        raise wrong((), f"expected a header of at most {most} bytes, got {size}")
    return body[8 : 8 + size]


def _metadata(header: bytes) -> schema.StateMetadata:
    """Return what the header of a valid file says beside the tensors.

    Raises:
        InvalidRequestError: Something is missing, unknown, given twice, or no such value.
    """
    document = json.loads(header, object_pairs_hook=_without_duplicates)
    texts: dict[str, str] = dict(document.get("__metadata__") or {})
    texts.pop("format", None)  # with which frameworks mark their files
    values: dict[str, object] = {}
    for name, text in texts.items():
        try:
            values[name] = text if name == "fingerprint" else json.loads(text)
        except (ValueError, RecursionError):
            raise wrong(
                ("metadata", shorten(name)), f"expected JSON, got {describe(text)}"
            ) from None
    try:
        return schema.StateMetadata.model_validate(values)
    except ValidationError as error:
        raise explain(error, schema.StateMetadata) from None


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    document = dict(pairs)
    if len(document) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise wrong((shorten(twice),), "given twice")
    return document


def _row(tensors: dict[str, _Header], signature: Signature) -> Float32:
    """Return the vectors side by side, `(state_size,)` float32.

    Raises:
        InvalidRequestError: They are not those of the model.
    """
    names = _names(signature)
    problems = [
        Problem((shorten(name),), f"unknown tensor; known are: {shorten(', '.join(names))}")
        for name in tensors
        if name not in names
    ]
    vectors = []
    for name, part in zip(names, signature.state_layout, strict=True):
        tensor = tensors.get(name)
        if tensor is None:
            problems.append(Problem((name,), "missing"))
        elif tensor["dtype"] != "F32" or tensor["shape"] != [part.size]:
            shape = shorten(str(tuple(tensor["shape"])))
            text = f"expected float32 of shape ({part.size},), got {tensor['dtype']} of {shape}"
            problems.append(Problem((name,), text))
        else:
            vectors.append(np.frombuffer(tensor["data"], "<f4"))
            if not np.isfinite(vectors[-1]).all():
                problems.append(Problem((name,), "expected finite numbers, got NaN or infinity"))
    if problems:
        raise invalid(problems)
    return np.concatenate(vectors).astype(np.float32, copy=False)


def _names(signature: Signature) -> list[str]:
    return [f"{part.layer}.{part.role}" for part in signature.state_layout]
