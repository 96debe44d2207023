"""The entrance for HTTP by ASGI: from a scope to a route, and from its answer to the socket."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Callable
from time import perf_counter

from service.errors import InternalError, ServiceError
from service.transport.calls import Call, ClientGoneError, Receive, Scope, Send, send_answer
from service.transport.problem import Answer, http_problem, problem
from service.transport.query import reject_query
from service.transport.routing import Match, Route, RouteTable, raw_path_of

log = logging.getLogger(__name__)

Observe = Callable[[str, int, float], None]
"""Takes the route's template, the status and the seconds that a request took."""

CLIENT_GONE_STATUS = 499
"""What is observed where the caller left before the answer."""

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:@/+=-]{1,128}\Z")


class HttpEntrance:
    """Serves a table of routes."""

    def __init__(self, routes: RouteTable, *, max_body_bytes: int, observe: Observe | None) -> None:
        """Take the routes.

        Args:
            routes: What is served.
            max_body_bytes: A longer body is refused.
            observe: Told of every request.
        """
        self._routes = routes
        self._max_body_bytes = max_body_bytes
        self._observe = observe

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Answer a request; false, and nothing done, if its path is none of the table's."""
        match = self._routes.find(raw_path_of(scope))
        if match is None:
            return False
        began = perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = request_id_of(headers)
        route = find_route(match, scope["method"])
        template = next(iter(match.routes.values())).template
        try:
            if route is None:
                answer = method_not_allowed(match, scope["method"], request_id)
            else:
                call = Call(scope, receive, match.parameters, headers, self._max_body_bytes)
                answer = await _answer(route, call, request_id)
        except ClientGoneError:
            self.observe(template, CLIENT_GONE_STATUS, perf_counter() - began)
            return True
        await send_answer(send, answer, request_id.encode())
        self.observe(template, answer.status, perf_counter() - began)
        return True

    def observe(self, template: str, status: int, seconds: float) -> None:
        """Tell the observer, if there is one."""
        if self._observe is not None:
            self._observe(template, status, seconds)


async def _answer(route: Route, call: Call, request_id: str) -> Answer:
    try:
        if not route.query:
            reject_query(call.query)
        return await route.handler(call)
    except ServiceError as error:
        answer = problem(error, request_id)
        # An error holds the frames that it passed, and those hold it in what they waited for: a
        # cycle with the body and the inputs in it, which would stay until the rare collector runs.
        error.__traceback__ = None
        return answer
    except ClientGoneError as gone:
        gone.__traceback__ = None  # as above
        raise
    except Exception as fault:
        # The guard: whatever went wrong inside, the caller gets a problem document, as with any
        # other error, and the log gets the reason.
        log.exception("%s %s failed; request id %s", route.method, route.template, request_id)
        fault.__traceback__ = None  # as above
        return problem(InternalError(), request_id)


def find_route(match: Match, method: str) -> Route | None:
    """Return the route for a method; HEAD is GET without the body, which the server leaves out."""
    route = match.routes.get(method)
    if route is None and method == "HEAD":
        return match.routes.get("GET")
    return route


def method_not_allowed(match: Match, method: str, request_id: str) -> Answer:
    """Return a 405 that names what is allowed."""
    methods = set(match.routes)
    if "GET" in methods:
        methods.add("HEAD")
    allowed = ", ".join(sorted(methods))
    detail = f"{method[:20]} is not for this path; there are: {allowed}"
    return http_problem(405, detail, request_id, ((b"allow", allowed.encode()),))


def request_id_of(headers: dict[bytes, bytes]) -> str:
    """Return the caller's `X-Request-Id` if it can be one, else a new one."""
    given = headers.get(b"x-request-id")
    if given is not None and _REQUEST_ID.match(given):
        return given.decode("ascii")
    return secrets.token_hex(8)
