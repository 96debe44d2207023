"""Those who use sessions: owners, rivals who write to the same ones, and drivers of whole batches.

Each waits for its answers before it goes on, names positions, and sends again what has no known
outcome until it has one. Beyond that they do on purpose what careless clients and networks do.
"""

import asyncio
from collections import deque

import numpy as np

from tests.chaos.history import Intent, Outcome

_SETTLED = (Outcome.APPLIED, Outcome.CONFLICT, Outcome.ABSENT, Outcome.WRONG)
_REMEMBERED = 24
"""Requests that may be sent again: some of them further back than answers are kept."""
_LONG = (500, 560)
"""Time steps of a request whose answer is over 16 KiB."""


class Writer:
    """What those who write to sessions share.

    Attributes:
        name: In the history.
    """

    def __init__(self, name, desk, seed):
        """Prepare to write.

        Args:
            name: In the history.
            desk: Sends requests.
            seed: Of everything random here, a sequence of integers.
        """
        self.name = name
        self._desk = desk
        self._random = np.random.default_rng(seed)

    def _inputs(self, num_steps):
        return self._random.uniform(-1, 1, (num_steps, self._desk.input_size)).round(4)

    def _entrance(self):
        return self._random.choice(self._desk.entrances)

    def _advance(self, session, position, epoch, num_steps=1, **options):
        inputs = self._inputs(num_steps).astype(np.float32)
        return Intent(session, "advance", position, epoch, inputs, **options)

    async def _send(self, intent, **options):
        return await self._desk.send(intent, self.name, self._entrance(), **options)

    async def _settle(self, intent):
        """Send until it is known what became of it; return the last answer, None at the end."""
        operation = await self._send(intent)
        pause_s = 0.01
        while operation.outcome not in _SETTLED:
            if self._desk.is_closing:
                return None
            await asyncio.sleep(pause_s * self._random.uniform(0.5, 1.5))
            pause_s = min(2 * pause_s, 0.2)
            self._desk.history.num_retries += operation.outcome.is_open
            operation = await self._send(intent)
        return operation


class Owner(Writer):
    """A client with a session of its own, perhaps not alone there.

    Attributes:
        session: Its client id.
    """

    def __init__(self, session, desk, seed):
        """Know nothing of the session yet."""
        super().__init__(f"own:{session}", desk, seed)
        self.session = session
        self._position, self._epoch = 0, None
        self._past: deque[Intent] = deque(maxlen=_REMEMBERED)
        actions = {
            self._step: 44,
            self._sequence: 16,
            self._long_sequence: 0.15,
            self._duplicate: 12,
            self._hurry: 8,
            self._repeat: 8,
            self._collide: 4,
            self._leave: 3,
            self._look: 6,
            self._reset: 0.6,
        }
        weights = np.array(list(actions.values()))
        self._actions, self._shares = list(actions), weights / weights.sum()

    async def run(self):
        """Use the session until the end."""
        while not self._desk.is_ending:
            index = self._random.choice(len(self._actions), p=self._shares)
            await self._actions[index]()

    def _next(self, num_steps=1, *, ahead=0, **options):
        epoch = self._epoch if self._random.random() < 0.8 else None
        return self._advance(self.session, self._position + ahead, epoch, num_steps, **options)

    def _take(self, operation):
        """Go on from where an answer says that the session is."""
        if operation is None or operation.outcome is Outcome.WRONG:
            return
        if operation.outcome is Outcome.ABSENT:
            self._position, self._epoch = 0, None
            return
        if operation.outcome is Outcome.APPLIED and operation.intent.kind == "advance":
            self._past.append(operation.intent)
        if operation.epoch != self._epoch:
            self._past.clear()
        self._position, self._epoch = operation.position, operation.epoch

    async def _step(self):
        has_states = bool(self._random.random() < 0.1)
        self._take(await self._settle(self._next(has_states=has_states)))

    async def _sequence(self):
        num_steps = int(self._random.integers(2, 7))
        mask = None
        if self._random.random() < 0.3:
            mask = self._random.random(num_steps) < 0.7
            mask[0] = True
        is_sequence = bool(self._random.random() < 0.8)
        intent = self._next(num_steps, mask=mask, is_sequence=is_sequence)
        self._take(await self._settle(intent))

    async def _long_sequence(self):
        num_steps = int(self._random.integers(*_LONG))
        self._take(await self._settle(self._next(num_steps, is_sequence=True)))

    async def _duplicate(self):
        """Send one request twice at once, perhaps to two replicas."""
        intent = self._next()
        both = await asyncio.gather(self._send(intent), self._send(intent))
        applied = [one for one in both if one.outcome is Outcome.APPLIED]
        self._take(applied[0] if applied else await self._settle(intent))

    async def _hurry(self):
        """Send the step after the next one before that is answered, or even sent."""
        first, second = self._next(), self._next(ahead=1)
        if self._random.random() < 0.5:
            await asyncio.gather(self._send(second), self._send(first))
        else:
            await asyncio.gather(self._send(first), self._send(second))
        for intent in (first, second):
            # What came in order is replayed now; what did not, is applied.
            operation = await self._settle(intent)
            self._take(operation)
            if operation is None or operation.outcome is not Outcome.APPLIED:
                return

    async def _repeat(self):
        """Send a request again whose answer is long here."""
        if self._past:
            await self._send(self._past[self._random.integers(len(self._past))])

    async def _collide(self):
        """Ask for something else at a position that is taken."""
        if self._past:
            position = self._past[self._random.integers(len(self._past))].position
            await self._send(self._advance(self.session, position, self._epoch))

    async def _leave(self):
        """Send a step and do not wait for its answer; then send it again."""
        intent = self._next()
        await self._send(intent, leave_after_s=self._random.uniform(0, 0.02))
        self._take(await self._settle(intent))

    async def _look(self):
        has_states = bool(self._random.random() < 0.5)
        self._take(await self._settle(Intent(self.session, "look", has_states=has_states)))

    async def _reset(self):
        # A session whose epoch is known is not reset twice by a retry.
        self._take(await self._settle(Intent(self.session, "reset", epoch=self._epoch)))


class Rival(Writer):
    """A second writer on somebody's session, who looks where it is and writes there.

    Attributes:
        session: Its client id.
    """

    def __init__(self, session, desk, seed):
        """Know nothing of the session yet."""
        super().__init__(f"riv:{session}", desk, seed)
        self.session = session

    async def run(self):
        """Interfere until the end."""
        while not self._desk.is_ending:
            await asyncio.sleep(self._random.exponential(0.1))
            seen = await self._settle(Intent(self.session, "look"))
            if seen is None or seen.position is None:
                continue
            for ahead in range(self._random.integers(1, 4)):
                position = seen.position + ahead
                written = await self._settle(self._advance(self.session, position, seen.epoch))
                if written is None or written.outcome is not Outcome.APPLIED:
                    break


class BatchDriver(Writer):
    """One who takes steps of many sessions in one request.

    Attributes:
        sessions: Their client ids.
    """

    def __init__(self, sessions, desk, seed):
        """Know nothing of the sessions yet."""
        super().__init__(f"all:{sessions[0]}", desk, seed)
        self.sessions = sessions
        self._positions = dict.fromkeys(sessions, 0)
        self._pending = {}

    async def run(self):
        """Step some of the sessions after some others until the end."""
        while not self._desk.is_ending:
            size = self._random.integers(2, len(self.sessions) + 1)
            chosen = self._random.choice(self.sessions, size, replace=False)
            # A row whose outcome is not known comes again, in other company.
            rows = [
                self._pending.get(session)
                or self._advance(str(session), self._positions[session], None)
                for session in chosen
            ]
            entrance = self._entrance()
            for operation in await self._desk.send_batch(rows, self.name, entrance):
                self._take(operation)
            if any(session in self._pending for session in chosen):
                await asyncio.sleep(self._random.uniform(0.02, 0.2))

    def _take(self, operation):
        session = operation.intent.session
        if operation.outcome not in _SETTLED:
            self._desk.history.num_retries += operation.outcome.is_open
            self._pending[session] = operation.intent
            return
        self._pending.pop(session, None)
        if operation.position is not None:
            self._positions[session] = operation.position
