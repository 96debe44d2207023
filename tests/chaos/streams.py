"""One who streams: binary frames, several in flight, and the same ones again where it broke off.

The frames tell neither position nor life: the stream's address does, for the first of them. So only
the outputs show whether one was lost or taken twice, and what is seen of the session later.
"""

import asyncio
import json
from collections import deque
from contextlib import suppress

import numpy as np
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from tests.chaos.clients import Writer
from tests.chaos.history import Intent, Operation, Outcome

_WINDOW = 16
"""The design's promise: that many frames may be in flight, and are answered again."""
_FRAMES_A_VISIT = 150
"""Frames after which a client leaves without a word, on average."""
_BROKEN = (OSError, EOFError, WebSocketException, TimeoutError)


class Streamer(Writer):
    """A client with a session of its own, perhaps not alone there.

    Attributes:
        session: Its client id.
    """

    def __init__(self, session, desk, seed):
        """Know nothing of the session yet."""
        super().__init__(f"str:{session}", desk, seed)
        self.session = session
        self._epoch = None
        self._position = 0  # from where the next frame starts that was never sent
        self._unanswered: deque[Intent] = deque()  # sent before, perhaps to nobody
        # The operations of the first of these, on this connection.
        self._in_flight: deque[Operation] = deque()

    async def run(self):
        """Stream until the end, and then until everything is answered."""
        desk = self._desk
        while not desk.is_ending or (self._unanswered and not desk.is_closing):
            entrance = self._entrance()
            try:
                async with await self._open(entrance) as socket:
                    await self._visit(socket, entrance)
            except _BROKEN as error:
                self._lose(Outcome.BROKEN_OFF, type(error).__name__)
            await asyncio.sleep(self._random.uniform(0, 0.1))

    def _address(self, entrance):
        start = self._unanswered[0].position if self._unanswered else self._position
        epoch = "" if self._epoch is None else f"&epoch={self._epoch}"
        return f"{self._desk.stream_address(entrance, self.session)}?position={start}{epoch}"

    async def _open(self, entrance):
        """Open the stream, and take its hello for what it tells: where the session is."""
        look = self._desk.begin(Intent(self.session, "look"), self.name, entrance)
        look.outcome = Outcome.UNSENT  # a stream that does not open asks for nothing
        try:
            async with asyncio.timeout(self._desk.timeout_s):
                socket = await connect(self._address(entrance), compression=None)
                hello = json.loads(await socket.recv())
            if hello["type"] == "error":
                look.refuse(hello["code"], hello)
            elif hello["epoch"] is None:
                look.outcome = Outcome.ABSENT
            else:
                look.take(hello)
        finally:
            self._desk.end(look)
        return socket

    async def _visit(self, socket, entrance):
        """Send and receive until the connection ends, or the client leaves without a word."""
        depth = int(self._random.integers(1, _WINDOW + 1))
        num_left = int(self._random.exponential(_FRAMES_A_VISIT))
        while True:
            while len(self._in_flight) < (1 if self._epoch is None else depth):
                intent = self._next_frame()
                if intent is None:
                    break
                await self._send_frame(socket, intent, entrance)
                num_left -= 1
            if not self._in_flight:
                return
            if num_left <= 0 and not self._desk.is_ending:
                await asyncio.sleep(self._random.uniform(0, 0.005))
                socket.transport.abort()
                self._lose(Outcome.ABANDONED)
                return
            async with asyncio.timeout(self._desk.timeout_s):
                answer = await socket.recv()
            if isinstance(answer, str):
                self._refuse(json.loads(answer))
                return
            await self._take(np.frombuffer(answer, "<f4"))

    def _next_frame(self):
        """Return the first frame that is not in flight: an old one, or else a new one."""
        if len(self._unanswered) > len(self._in_flight):
            self._desk.history.num_resumed += 1
            return self._unanswered[len(self._in_flight)]
        if self._desk.is_ending:
            return None
        num_steps = 1 if self._random.random() < 0.8 else int(self._random.integers(2, 7))
        intent = self._advance(
            self.session, self._position, self._epoch, num_steps, is_sequence=num_steps > 1
        )
        self._position += num_steps
        return intent

    async def _send_frame(self, socket, intent, entrance):
        may_be_replayed = len(self._unanswered) > len(self._in_flight)
        operation = self._desk.begin(intent, self.name, entrance)
        operation.may_be_replayed = may_be_replayed
        if not may_be_replayed:
            self._unanswered.append(intent)
        self._in_flight.append(operation)
        with suppress(ConnectionClosed):  # what came before that is still to be received
            await socket.send(intent.inputs.astype("<f4").tobytes())

    async def _take(self, outputs):
        """Take an answer in for the first frame in flight."""
        operation = self._in_flight[0]
        intent = operation.intent
        if self._epoch is None:
            looked = await self._settle(Intent(self.session, "look"))
            if looked is None or looked.epoch is None:
                raise TimeoutError  # nobody tells of which life the answer is
            self._epoch = looked.epoch
        position = intent.position + intent.num_steps
        answer = {"position": position, "epoch": self._epoch}
        operation.take(answer | {"outputs": outputs.reshape(intent.num_steps, -1)})
        self._desk.end(operation)
        self._in_flight.popleft()
        self._unanswered.popleft()

    def _refuse(self, error):
        """Take the error in that ends the stream: nothing behind it is applied."""
        if self._in_flight:
            self._in_flight[0].refuse(error["code"], error)
            self._desk.end(self._in_flight[0])
            outcome = self._in_flight.popleft().outcome
            # Frames that came together are committed together.
            self._lose(Outcome.BROKEN_OFF if outcome.is_open else Outcome.REJECTED)
        if error["code"] == "position_conflict":
            self._go_on_from(error["position"], error["epoch"])
        elif error["code"] == "session_unknown":
            self._go_on_from(0, None)

    def _go_on_from(self, position, epoch):
        self._unanswered.clear()
        self._position, self._epoch = position, epoch

    def _lose(self, outcome, code=""):
        """Give up hope for the answers to what is in flight."""
        while self._in_flight:
            operation = self._in_flight.popleft()
            operation.outcome, operation.code = outcome, code
            self._desk.end(operation)
