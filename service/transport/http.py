"""What the entrances for HTTP share, and the one by ASGI: from a scope to a route, and back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import perf_counter

from service.errors import InternalError, ServiceError
from service.transport.calls import Call, ClientGoneError, Receive, Scope, Send, send_answer
from service.transport.headers import Admit, Headers, request_id_of, timeout_of
from service.transport.problem import Answer
from service.transport.query import reject_query
from service.transport.routing import Match, Route, RouteTable, raw_path_of

log = logging.getLogger(__name__)

Observe = Callable[[str, int, float], None]
"""Takes the route's template, the status and the seconds that a request took."""

CLIENT_GONE_STATUS = 499
"""What is observed where the caller left before the answer."""


class HttpEntrance:
    """Serves a table of routes.

    Attributes:
        routes: The table.
        max_body_bytes: A longer body is refused.
        observe: Told of every request: its template, the status, and the seconds that it took.
    """

    def __init__(
        self,
        routes: RouteTable,
        *,
        max_body_bytes: int,
        observe: Observe | None,
        admit: Admit | None,
    ) -> None:
        """Take the routes.

        Args:
            routes: What is served.
            max_body_bytes: A longer body is refused.
            observe: Told of every request.
            admit: Asked before every request, but for those about the process itself.
        """
        self.routes = routes
        self.max_body_bytes = max_body_bytes
        self.observe: Observe = observe or _ignore
        self._admit = admit

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Answer a request; false, and nothing done, if its path is none of the table's."""
        match = self.routes.find(raw_path_of(scope))
        if match is None:
            return False
        began = perf_counter()
        headers: Headers = dict(scope["headers"])
        request_id = request_id_of(headers)
        route = find_route(match, scope["method"])
        template = next(iter(match.routes.values())).template
        try:
            if route is None:
                answer = method_not_allowed(match, scope["method"], request_id)
            else:
                call = Call(scope, receive, match.parameters, headers, self.max_body_bytes)
                answer = await self._answer(route, call, request_id)
        except ClientGoneError:
            self.observe(template, CLIENT_GONE_STATUS, perf_counter() - began)
            return True
        await send_answer(send, answer, request_id.encode())
        self.observe(template, answer.status, perf_counter() - began)
        return True

    async def _answer(self, route: Route, call: Call, request_id: str) -> Answer:
        try:
            if route.tag != "process":
                self.admit(call.headers)
            if not (route.query or route.ignores_query):
                reject_query(call.query)
            if route.handler is not None:
                call.timeout_s = timeout_of(call.headers)
                return await route.handler(call)
            return await _run(route, call)
        except ClientGoneError as gone:
            # It holds the frames that it passed, and those hold it in what they waited for: a cycle
            # with the body and the inputs in it, which would stay until the rare collector runs.
            gone.__traceback__ = None
            raise
        except Exception as error:  # noqa: BLE001 - the guard: the caller gets a problem document
            return answer_to_error(error, route, request_id)

    def admit(self, headers: Headers) -> None:
        """Let a request in.

        Raises:
            UnauthenticatedError: It has no valid credentials.
            ForbiddenError: Its sender may not do this.
        """
        if self._admit is not None:
            self._admit(headers)


def _ignore(template: str, status: int, seconds: float) -> None:
    """Be told, and do nothing."""


async def _run(route: Route, call: Call) -> Answer:
    """Run a route's operation, and wait for its end.

    Raises:
        ServiceError: It failed.
        ClientGoneError: The caller left first.
    """
    assert route.operation is not None, "a route has it or a handler"
    came = perf_counter()
    try:
        call.timeout_s = timeout_of(call.headers)
        begin = route.operation(call.parameters)
        # What the headers say that it is, is looked at behind `begin`.
        body = await call.read_body(check=None)
    except ServiceError:
        if route.note_refusal is not None:
            route.note_refusal(call.parameters, perf_counter() - came)
        raise
    answered: asyncio.Future[Answer | ServiceError] = asyncio.get_running_loop().create_future()

    def done(result: Answer | ServiceError) -> None:
        if not answered.done():
            answered.set_result(result)

    work = begin(call.headers, body, call.timeout_s, done)
    try:
        result = await call.wait(answered)
    except (asyncio.CancelledError, ClientGoneError):
        work.cancel()
        raise
    if isinstance(result, ServiceError):
        raise result
    return result


def answer_to_error(error: Exception, route: Route, request_id: str) -> Answer:
    """Return the answer to whatever went wrong; what is a fault of ours is logged."""
    if not isinstance(error, ServiceError):
        log.error(
            "%s %s failed; request id %s",
            route.method,
            route.template,
            request_id,
            exc_info=error,
        )
    told = error if isinstance(error, ServiceError) else InternalError()
    answer = route.errors_as.of_service(told, request_id)
    # It holds the frames that it passed, and those hold it in what they waited for: a cycle with
    # the body and the inputs in it, which would stay until the rare collector runs.
    error.__traceback__ = None
    return answer


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
    form = next(iter(match.routes.values())).errors_as
    return form.of_http(405, detail, request_id, ((b"allow", allowed.encode()),))
