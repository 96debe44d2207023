"""The operations that set, show and copy whole states: reset, export, import, fork."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

from service.domain import ImportRequest, LookRequest, SessionReply
from service.engine import Engine
from service.errors import FingerprintMismatchError, InvalidRequestError
from service.served import ServedModels
from service.signature import Signature
from service.transport import render
from service.transport.calls import Call
from service.transport.headers import check_plain
from service.transport.http_sessions import find_session
from service.transport.parse_state import parse_fork, parse_import, parse_reset
from service.transport.problem import Answer
from service.transport.query import parse_preconditions
from service.transport.tensors import accepted_type, is_tensors, parse_tensors, render_tensors


class StateHandlers:
    """What the routes of states do."""

    def __init__(self, engines: ServedModels) -> None:
        """Take the engines by model name, the default model's first."""
        self._engines = engines

    async def reset_states(self, call: Call) -> Answer:
        """Begin a new life."""
        engine, key = find_session(self._engines, call.parameters)
        request = parse_reset(await call.read_body(), engine.signature, key)
        reply = cast(SessionReply, await call.ask(engine, request))
        return Answer(200, render.render_reset(reply))

    async def get_state(self, call: Call) -> Answer:
        """Export a session."""
        engine, key = find_session(self._engines, call.parameters)
        reply = cast(SessionReply, await call.ask(engine, LookRequest(key=key)))
        signature = engine.signature_of(reply.fingerprint)
        _check_fits(reply, signature)
        vary = ((b"vary", b"accept"),)
        media_type = accepted_type(call.headers)
        if media_type is None:
            body = render.render_state(reply, signature)
            return Answer(200, body, headers=vary)
        body = render_tensors(reply, signature)
        return Answer(200, body, media_type.encode(), vary)

    async def put_state(self, call: Call) -> Answer:
        """Import a session."""
        engine, key = find_session(self._engines, call.parameters)
        position, epoch = parse_preconditions(call.query)
        if is_tensors(call.headers):
            read, body = parse_tensors, await call.read_body(check_plain)
        else:
            read, body = parse_import, await call.read_body()
        parse = partial(read, body, key=key, position=position, epoch=epoch)
        request = _parse_for_earlier(engine, parse) or parse(engine.signature)
        reply = cast(SessionReply, await call.ask(engine, request))
        return Answer(200, render.render_session(reply, key.client_id))

    async def fork(self, call: Call) -> Answer:
        """Begin a second session from the state of one."""
        engine, key = find_session(self._engines, call.parameters)
        request = parse_fork(await call.read_body(), key)
        reply = cast(SessionReply, await call.ask(engine, request))
        # Relative to this request's path, whatever a proxy has put before it.
        location = ((b"location", f"../{request.target}".encode()),)
        return Answer(201, render.render_session(reply, request.target), headers=location)


def _parse_for_earlier(
    engine: Engine, parse: Callable[[Signature], ImportRequest]
) -> ImportRequest | None:
    """Return an import of a state that says it is of an earlier version, which has its own sizes.

    None where it is not, or where anything is wrong with it.
    """
    for earlier in engine.earlier:
        try:
            request = parse(earlier.signature)
        except InvalidRequestError:
            continue
        if request.fingerprint == earlier.signature.fingerprint:
            return request
    return None


def _check_fits(reply: SessionReply, signature: Signature) -> None:
    """Check that a state can be told apart into the vectors of the model.

    Raises:
        FingerprintMismatchError: It belongs to a model of other sizes.
    """
    if (len(reply.row), len(reply.has_output)) == (signature.state_size, signature.num_recurrent):
        return
    remedy = (
        f"its {len(reply.row)} numbers do not fit the {signature.state_size} of this model; reset"
        " it, or serve the model that it belongs to"
    )
    raise FingerprintMismatchError(signature.fingerprint, reply.fingerprint, remedy)
