"""Bytes to a connection, and what comes back: for the tests of the entrance for HTTP."""

import asyncio
import json
import re

from service.domain import LookRequest, SessionKey
from tests.integration.small_service import X

STEP = b"/v1/sessions/alice/step"
BODY = json.dumps({"inputs": X[0]}).encode()


def post(body=BODY, url=STEP, *headers, version=b"1.1"):
    """Return a POST with a content length."""
    lines = [b"POST %b HTTP/%b" % (url, version), b"host: x", b"content-length: %d" % len(body)]
    return b"\r\n".join([*lines, *headers, b"", b""]) + body


def get(url=b"/v1/sessions/alice", method=b"GET", *headers):
    """Return a request without a body."""
    return b"\r\n".join([b"%b %b HTTP/1.1" % (method, url), b"host: x", *headers, b"", b""])


async def read_answer(reader, method="POST"):
    """Return the status, the headers and the body of the next answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")[:-2]
    headers = dict(each.lower().split(": ", 1) for each in lines)
    status = int(line.split(" ")[1])
    if status == 100:
        return await read_answer(reader, method)
    length = 0 if method == "HEAD" else int(headers.get("content-length", 0))
    return status, headers, await reader.readexactly(length)


async def read_positions(reader, num):
    """Return the positions, or the statuses of what is no step, of so many answers."""
    told = []
    for _ in range(num):
        status, _, body = await read_answer(reader)
        told.append(json.loads(body).get("position", status) if status == 200 else status)
    return told


async def send_all(opened, parts):
    """Send bytes in parts and return all that comes until the connection ends."""
    reader, writer = await opened.open()
    for part in parts:
        writer.write(part)
        if len(parts) > 1:
            await asyncio.sleep(0.0005)
    async with asyncio.timeout(10):
        told = await reader.read()
    writer.close()
    return told


def pending(engines):
    """Return how many requests the first model's engine holds."""
    return engines["net"].num_pending


async def position_of(engines, client_id="alice"):
    """Return where a session is."""
    key = SessionKey("default", "net", client_id)
    return (await engines["net"].ask(LookRequest(key=key))).position


async def until(is_so):
    """Wait for something."""
    async with asyncio.timeout(5):
        while not is_so():
            await asyncio.sleep(0.001)


LAST = get(b"/healthz", b"GET", b"connection: close")
CHUNKED = (
    b"POST %b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" % STEP
    + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
)


def told_by(status, _, body):
    """Return what an answer tells; outputs without the last digits."""
    body = re.sub(rb'"request_id":"[^"]*|"epochs?":\[?[\d,]*', b"", body)
    return status, re.sub(rb"-?\d+\.\d+(e-?\d+)?", lambda m: b"%.4f" % float(m[0]), body)
