"""HTTP/1.1 over sockets, just enough for the checker: it tells what was sent from what was not.

Shares nothing with the service or its client.
"""

import asyncio
import json
from contextlib import suppress
from typing import Any, NamedTuple


class NotSentError(Exception):
    """There was no connection: the server has seen nothing of the request."""


class LostError(Exception):
    """The request was sent, and no answer came."""


class Answer(NamedTuple):
    """What came back.

    Attributes:
        status: The status code.
        document: The body's JSON; empty where it is none.
    """

    status: int
    document: dict[str, Any]


class Wire:
    """Connections to one port of this machine, one request at a time on each."""

    def __init__(self, port, timeout_s):
        """Connect to nothing yet; `timeout_s` is how long an answer may take."""
        self._port = port
        self._timeout_s = timeout_s
        self._idle = []

    async def exchange(self, method, path, body=b""):
        """Send a request and return its answer.

        Raises:
            NotSentError: There was no connection.
            LostError: No answer came, or not in time.
        """
        reader, writer = await self._connect()
        try:
            async with asyncio.timeout(self._timeout_s):
                writer.write(_request(method, path, body))
                answer, is_kept = await _read(reader)
        except BaseException as error:
            writer.transport.abort()
            if isinstance(error, TimeoutError | OSError | EOFError | ValueError):
                raise LostError(f"{type(error).__name__}: {error}") from error
            raise
        if is_kept:
            self._idle.append((reader, writer))
        else:
            writer.close()
        return answer

    async def abandon(self, method, path, body, after_s):
        """Send a request and leave after a while, whether there is an answer or not.

        Raises:
            NotSentError: There was no connection.
        """
        _, writer = await self._connect()
        writer.write(_request(method, path, body))
        await asyncio.sleep(after_s)
        writer.transport.abort()

    def close(self):
        """End the connections that wait for a request."""
        while self._idle:
            self._idle.pop()[1].transport.abort()

    async def _connect(self):
        while self._idle:
            reader, writer = self._idle.pop()
            if not (reader.at_eof() or writer.is_closing()):
                return reader, writer
            writer.close()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.open_connection("127.0.0.1", self._port)
        except OSError as error:
            raise NotSentError(str(error)) from error


def _request(method, path, body):
    head = f"{method} {path} HTTP/1.1\r\nhost: chaos\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _read(reader):
    """Return the answer, and whether the connection takes another request."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")[:-2]
    status = int(first.split(" ", 2)[1])
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    is_kept = headers.get("connection", "").lower() != "close"
    if "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    else:
        body = b"" if status == 204 else await reader.read()
        is_kept = is_kept and status == 204
    document = {}
    if "json" in headers.get("content-type", ""):
        with suppress(ValueError):
            document = json.loads(body)
    return Answer(status, document), is_kept
