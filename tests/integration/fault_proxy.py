"""A TCP proxy that does to connections what networks and load balancers do."""

import asyncio
import contextlib
import random
import threading
from collections import Counter
from contextlib import contextmanager
from enum import Enum
from urllib.parse import urlsplit

PATIENCE_S = 10
"""Longer than it takes to begin or to end; what hangs fails."""


class Fault(Enum):
    """What happens to the bytes that a client sends in one go: a request, a frame or a few."""

    NONE = "forwarded"
    CUT_BEFORE = "never forwarded, and the connection cut"
    CUT_WITHIN = "half of them forwarded, and the connection cut"
    CUT_AFTER = "forwarded, and the connection cut when the answer comes"
    DELAY = "forwarded later"
    BUSY = "answered with 503 and a time to wait"


def at_random(seed, likelihood, faults):
    """Return a choice of faults: one of them with a likelihood, every time anew."""
    generator = random.Random(seed)
    return lambda: generator.choice(faults) if generator.random() < likelihood else Fault.NONE


class FaultProxy:
    """A proxy in a thread of its own.

    Attributes:
        url: Where it listens.
        target: The URL of the service behind it; may change.
        choose: Tells what happens next.
        read_bytes: Most bytes in one go, so that many small frames are not one.
        counts: How often each fault happened.
        delay_s: Of `DELAY`.
        retry_after_s: Of `BUSY`.
    """

    def __init__(self, target):
        """Listen nowhere yet."""
        self.url = ""
        self.target = target
        self.choose = lambda: Fault.NONE
        self.read_bytes = 65_536
        self.counts: Counter[Fault] = Counter()
        self.delay_s = 0.02
        self.retry_after_s = 0

    @property
    def num_faults(self):
        """How many there were."""
        return self.counts.total() - self.counts[Fault.NONE]

    async def serve(self, ready, end):
        """Serve until `end`, an event of this loop."""
        server = await asyncio.start_server(self._serve_connection, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        await end.wait()
        server.close()

    async def _serve_connection(self, reader, writer):
        address = urlsplit(self.target)
        try:
            server_reader, server_writer = await asyncio.open_connection(
                address.hostname, address.port
            )
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection(reader, writer, server_reader, server_writer)
        tasks = [
            asyncio.create_task(connection.send_up(self)),
            asyncio.create_task(connection.send_down()),
        ]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        writer.transport.abort()
        server_writer.transport.abort()


class _Connection:
    """A client's connection, and the one to the service that belongs to it."""

    def __init__(self, reader, writer, server_reader, server_writer):
        self.reader, self.writer = reader, writer
        self.server_reader, self.server_writer = server_reader, server_writer
        self.is_doomed = False

    async def send_up(self, proxy):
        """Take what the client sends until a fault or its end."""
        with contextlib.suppress(OSError):
            while data := await self.reader.read(proxy.read_bytes):
                fault = proxy.choose()
                proxy.counts[fault] += 1
                if fault is Fault.CUT_BEFORE:
                    return
                if fault is Fault.CUT_WITHIN:
                    self.server_writer.write(data[: len(data) // 2])
                    await self.server_writer.drain()
                    return
                if fault is Fault.BUSY:
                    await self._refuse(proxy.retry_after_s)
                    return
                if fault is Fault.DELAY:
                    await asyncio.sleep(proxy.delay_s)
                # A request may come in two parts: the second one does not save it.
                self.is_doomed |= fault is Fault.CUT_AFTER
                self.server_writer.write(data)

    async def send_down(self):
        """Take what the service sends until it should not arrive, or ends."""
        with contextlib.suppress(OSError):
            while (data := await self.server_reader.read(65536)) and not self.is_doomed:
                self.writer.write(data)
            await self.writer.drain()

    async def _refuse(self, retry_after_s):
        self.writer.write(
            b"HTTP/1.1 503 Service Unavailable\r\nretry-after: %d\r\n"
            b"content-type: text/html\r\ncontent-length: 4\r\nconnection: close\r\n\r\nbusy"
            % retry_after_s
        )
        await self.writer.drain()
        self.writer.close()
        await self.writer.wait_closed()


@contextmanager
def fault_proxy(target):
    """Run a proxy for as long as the block lasts."""
    proxy = FaultProxy(target)
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    end = asyncio.Event()

    async def main():
        await proxy.serve(ready, end)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    try:
        assert ready.wait(PATIENCE_S), "the proxy does not listen"
        yield proxy
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(PATIENCE_S)
        loop.close()
