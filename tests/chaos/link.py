"""The network between a replica and Redis: a TCP proxy that can be cut, or hold back what it has.

It knows when a request has gone to Redis and its answer has not come: then faults hurt most.
"""

import asyncio
from contextlib import suppress
from typing import Any

_CHUNK_BYTES = 1 << 18


class Link:
    """A port of this machine that leads to another one.

    Attributes:
        port: Where it listens.
        is_cut: Whether connections are refused.
    """

    def __init__(self, target):
        """Lead to the port `target`; `open` begins to listen."""
        self.port = 0
        self.is_cut = False
        self._target = target
        self._server: Any = None
        self._writers = set()
        self._passes = {"requests": asyncio.Event(), "answers": asyncio.Event()}
        self._traps: dict[str, list[Any]] = {"arriving": [], "sent": []}
        self._tasks: set[Any] = set()
        for passing in self._passes.values():
            passing.set()

    async def open(self):
        """Begin to listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1")
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self):
        """End everything."""
        if self._server is not None:
            self._server.close()
        self.drop()
        for task in self._tasks:
            task.cancel()

    def drop(self):
        """End all connections at once, with what they hold."""
        for writer in self._writers:
            writer.transport.abort()

    def hold(self, kind):
        """Pass on no more `requests` or `answers`; they wait here."""
        self._passes[kind].clear()

    def release(self):
        """Pass on everything again, and what has waited, first."""
        for passing in self._passes.values():
            passing.set()

    async def spring(self, moment, action, patience_s=1.0):
        """Do something synchronous at the moment when a request comes by.

        Args:
            moment: `arriving`: before it is passed on; `sent`: just after.
            action: What to do.
            patience_s: If none comes for so long, it is done all the same.
        """
        sprung = asyncio.Event()

        def trap():
            if not sprung.is_set():
                sprung.set()
                action()

        self._traps[moment].append(trap)
        with suppress(TimeoutError):
            await asyncio.wait_for(sprung.wait(), patience_s)
        trap()

    async def _serve(self, reader, writer):
        if self.is_cut:
            writer.transport.abort()
            return
        task: Any = asyncio.current_task()
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        pumps = [
            asyncio.create_task(self._pump(reader, far_writer, "requests")),
            asyncio.create_task(self._pump(far_reader, writer, "answers")),
        ]
        try:
            with suppress(asyncio.CancelledError):  # by `close`: nobody else waits for this task
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            self._writers -= {writer, far_writer}
            # Gracefully: what was passed on before the end still arrives.
            writer.close()
            far_writer.close()

    async def _pump(self, reader, writer, kind):
        with suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                if kind == "requests":
                    self._spring("arriving")
                await self._passes[kind].wait()
                writer.write(data)
                if kind == "requests":
                    self._spring("sent")
                await writer.drain()

    def _spring(self, moment):
        traps, self._traps[moment] = self._traps[moment], []
        for trap in traps:
            trap()
