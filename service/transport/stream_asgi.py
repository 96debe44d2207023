"""A stream's shell for ASGI: from events to its rules, and from its answers to `send`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from service.transport.calls import Receive, Send
from service.transport.stream import Stream


class AsgiStream:
    """A stream over a connection that has been accepted."""

    def __init__(self, receive: Receive, send: Send, patience_s: float) -> None:
        """Bring the parts together; `run` begins.

        Args:
            receive: ASGI's.
            send: ASGI's.
            patience_s: How long a client may take to read an answer.
        """
        self._receive = receive
        self._send = send
        self._patience_s = patience_s
        self._has_answers = asyncio.Event()
        self._has_room = asyncio.Event()
        self._is_gone = False

    @property
    def on_answers(self) -> Callable[[], None]:
        """What the stream is to call when it has answers."""
        return self._has_answers.set

    async def run(self, stream: Stream) -> None:
        """Carry a stream until it ends, or the client does.

        Raises:
            OSError: The client is gone, as ASGI's `send` tells it.
            TimeoutError: The client does not read.
        """
        reader = asyncio.create_task(self._read(stream))
        try:
            await self._write(stream)
        finally:
            reader.cancel()
            stream.abandon()

    async def _read(self, stream: Stream) -> None:
        while True:
            while not stream.room:
                self._has_room.clear()
                await self._has_room.wait()
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                self._is_gone = True
                self._has_answers.set()
                return
            text = message.get("text")
            data = (message.get("bytes") or b"") if text is None else text.encode()
            stream.take([(text is not None, data)])

    async def _write(self, stream: Stream) -> None:
        while True:
            await self._has_answers.wait()
            self._has_answers.clear()
            if self._is_gone:
                return
            for is_text, data in stream.answers():
                kind = {"text": data.decode()} if is_text else {"bytes": data}
                # Until it is sent nothing more is taken out: a client who does not read is soon
                # not read from either.
                async with asyncio.timeout(self._patience_s):
                    await self._send({"type": "websocket.send", **kind})
            self._has_room.set()
            if stream.close is not None:
                code, reason = stream.close
                await self._send({"type": "websocket.close", "code": code, "reason": reason})
                return
