"""A proxy before a server, that delays what goes through it, or cuts it off."""

import asyncio
from contextlib import asynccontextmanager, suppress

CHUNK_BYTES = 65536


class LaggingProxy:
    """Passes on what comes.

    Attributes:
        port: Where it listens.
        lag_s: How long after it came an answer is passed on.
        cuts: `request` or `answer`: the next one of these ends its connection, and is not passed
            on; None for neither.
    """

    def __init__(self, target):
        """Stand before the server at port `target`."""
        self.port = 0
        self.lag_s = 0.0
        self.cuts = None
        self._target = target
        self._tasks = set()

    async def serve(self, client_reader, client_writer):
        """Pass on what comes over one connection."""
        self._tasks.add(asyncio.current_task())
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
        with suppress(asyncio.CancelledError):
            await asyncio.gather(
                self._pass(client_reader, server_writer, "request"),
                self._pass(server_reader, client_writer, "answer"),
            )
        server_writer.close()
        client_writer.close()

    async def _pass(self, reader, writer, kind):
        loop = asyncio.get_running_loop()
        while chunk := await reader.read(CHUNK_BYTES):
            if self.cuts == kind:
                self.cuts = None
                break
            loop.call_later(self.lag_s if kind == "answer" else 0.0, writer.write, chunk)
        writer.close()

    def stop(self):
        """End all connections."""
        for task in self._tasks:
            task.cancel()


@asynccontextmanager
async def lagging_proxy(target):
    """Run a proxy for as long as the block lasts."""
    proxy = LaggingProxy(target)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1")
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        proxy.stop()
        server.close()
