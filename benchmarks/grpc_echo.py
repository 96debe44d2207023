"""A gRPC service that answers everything with the same: `python -m grpc_echo --port PORT`.

What grpc's own server for asyncio costs, in the service's event loop: no step by it can cost less.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import uvloop

from service.transport.grpc import service

_ANSWER = b"\x12\x3e" + bytes(62)
"""As long as that of a step."""


async def _call(_message: bytes, _: Any) -> bytes:
    return _ANSWER


async def _stream(messages: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
    async for _message in messages:
        yield _ANSWER


async def main() -> None:
    """Serve until the end of the process."""
    handlers: dict[str, Any] = {
        "ModelInfer": grpc.unary_unary_rpc_method_handler(_call),
        "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(_stream),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service.NAME, handlers)])
    server.add_insecure_port(f"127.0.0.1:{sys.argv[-1]}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main())
