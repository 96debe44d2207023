"""A bare ASGI application that validates each step and answers its bytes: `uvicorn echo:app`.

What the socket, the HTTP parser, ASGI and pydantic's compiled validator cost alone: the least that
an ASGI application under uvicorn can do which looks at what it is sent.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from service.transport.schema import StepBody

_validate = StepBody.__pydantic_validator__.validate_json


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Serve one ASGI connection."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body, has_more = b"", True
    while has_more:
        message = await receive()
        body += message["body"]
        has_more = message["more_body"]
    try:
        _validate(body)
        status = 200
    except ValidationError:
        status = 422
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
