"""Which handler a path leads to, on the path as it was sent.

A framework routes on the decoded path, where a client id with `%2F` in it, or an empty one, leads
nowhere. Here each segment is decoded on its own, so that the handler can say what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import unquote_to_bytes

from pydantic import BaseModel

from service.errors import ServiceError
from service.transport.calls import Call, Scope
from service.transport.problem import PROBLEMS, Answer, ErrorForm
from service.transport.work import Operation

_T = TypeVar("_T")

Handler = Callable[[Call], Awaitable[Answer]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One operation: how it is reached, what does it, and what is documented of it.

    Attributes:
        method: `GET`, `POST`, ...
        template: The path, with `{names}` for whole segments.
        name: Unique, for the OpenAPI document.
        handler: Does it for ASGI; None where `operation` does it for every entrance.
        operation: Does it where the whole body is there.
        note_refusal: Told of a request that was refused before `operation` had its body: the path's
            parameters, and the seconds since its head came.
        summary: A few words.
        description: The rest, Markdown.
        tag: What it is shown with.
        bodies: What the body may be.
        is_body_required: Whether there must be a body, if there may be one.
        binary_bodies: What a body that is not JSON may be, by media type: what it holds.
        query: OpenAPI parameters.
        has_timeout: Whether it waits for a turn, for as long as `X-Request-Timeout-Ms` says.
        reply: What it answers; None: nothing, or text.
        binary_replies: As `binary_bodies`, for callers that accept them.
        is_reply_text: Whether it answers plain text.
        reply_status: With which status.
        errors: What it answers otherwise, beyond what every operation may.
        errors_as: How it writes them.
        ignores_query: Whether anything may stand in the query string.
    """

    method: str
    template: str
    name: str
    handler: Handler | None = None
    operation: Operation | None = None
    note_refusal: Callable[[dict[str, str], float], None] | None = None
    summary: str
    description: str = ""
    tag: str
    bodies: tuple[type[BaseModel], ...] = ()
    is_body_required: bool = True
    binary_bodies: Mapping[str, str] = field(default_factory=dict)
    query: tuple[dict[str, Any], ...] = ()
    has_timeout: bool = False
    reply: type[BaseModel] | None = None
    binary_replies: Mapping[str, str] = field(default_factory=dict)
    is_reply_text: bool = False
    reply_status: int = 200
    errors: tuple[type[ServiceError], ...] = ()
    errors_as: ErrorForm = PROBLEMS
    ignores_query: bool = False


class Match(NamedTuple):
    """Where a path leads.

    Attributes:
        routes: By method.
        parameters: The path's, percent-decoded.
    """

    routes: dict[str, Route]
    parameters: dict[str, str]


class RouteTable:
    """Every operation of the API."""

    def __init__(self, routes: Iterable[Route]) -> None:
        """Take the routes; two for the same method and path are an error of the program."""
        self.routes = tuple(routes)
        by_template: dict[str, dict[str, Route]] = {}
        for route in self.routes:
            methods = by_template.setdefault(route.template, {})
            if route.method in methods:
                raise ValueError(f"two routes for {route.method} {route.template}")
            methods[route.method] = route
        self._tree = PathTree(by_template)

    def find(self, raw_path: bytes) -> Match | None:
        """Return where a percent-encoded path leads, or None if nowhere."""
        found = self._tree.find(raw_path)
        return None if found is None else Match(*found)


class PathTree(Generic[_T]):
    """Values by path, where `{names}` in a path stand for any segment, the empty one too."""

    def __init__(self, values: Mapping[str, _T]) -> None:
        """Take the values by template."""
        self._root: _Node[_T] = _Node()
        for template, value in values.items():
            node = self._root
            for segment in template.split("/"):
                node = node.grow(segment)
            node.values.append(value)

    def find(self, raw_path: bytes) -> tuple[_T, dict[str, str]] | None:
        """Return the value of a percent-encoded path and its parameters, decoded."""
        node = self._root
        parameters: dict[str, str] = {}
        for segment in raw_path.split(b"/"):
            child = node.literals.get(segment)
            if child is None:
                child = node.wildcard
                if child is None:
                    return None
                parameters[node.wildcard_name] = _decode(segment)
            node = child
        return (node.values[0], parameters) if node.values else None


@dataclass(slots=True)
class _Node(Generic[_T]):
    """The segments that may follow; no value or one where a path may end."""

    literals: dict[bytes, _Node[_T]] = field(default_factory=dict)
    wildcard: _Node[_T] | None = None
    wildcard_name: str = ""
    values: list[_T] = field(default_factory=list)

    def grow(self, segment: str) -> _Node[_T]:
        """Return the node behind a template's segment, a new one if need be."""
        if not segment.startswith("{"):
            return self.literals.setdefault(segment.encode(), _Node())
        if self.wildcard is None:
            self.wildcard, self.wildcard_name = _Node(), segment[1:-1]
        return self.wildcard


def raw_path_of(scope: Scope) -> bytes:
    """Return the path of an ASGI scope as it was sent, without the root path."""
    raw_path = scope.get("raw_path")
    path: bytes = scope["path"].encode() if raw_path is None else raw_path
    root_path = scope.get("root_path")
    return path.removeprefix(root_path.encode()) if root_path else path


def _decode(segment: bytes) -> str:
    plain = unquote_to_bytes(segment) if b"%" in segment else segment
    return plain.decode("utf-8", "replace")
