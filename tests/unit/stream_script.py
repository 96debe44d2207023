"""A scripted engine, and a stream over it without a socket."""

import json

import numpy as np

from service.domain import (
    AdvanceReply,
    LookRequest,
    SessionReply,
)
from service.errors import (
    SessionUnknownError,
)
from service.jobs import Job
from service.transport.stream import Stream
from service.transport.stream_messages import Limits
from tests.unit.documents import KEY, signature

EPOCH = 7
EMPTY = np.zeros(0, np.float32)


class Script:
    """An engine that is told what it answers.

    Attributes:
        jobs: What it was asked and has not answered.
        refusal: What it raises instead of taking a job.
    """

    signature = signature()

    def __init__(self):
        self.jobs = []
        self.refusal = None

    def submit(self, request, complete):
        """Take a request."""
        if self.refusal is not None:
            raise self.refusal
        job = Job(request.key, request, complete)
        self.jobs.append(job)
        return job

    def answer(self, result=None, **options):
        """Answer the first job: a step with what would be its result, or with what is given."""
        job = self.jobs.pop(0)
        request = job.request
        if result is None:
            num_steps = len(request.inputs)
            outputs = np.arange(2 * num_steps, dtype=np.float32).reshape(num_steps, 2)
            result = AdvanceReply(
                outputs=outputs if request.return_sequences else outputs[-1],
                position=(request.position or 0) + num_steps,
                epoch=EPOCH,
                **options,
            )
        if not job.is_cancelled:
            job.complete(result)


class Case:
    """A stream over a script."""

    def __init__(self, at=None, *, position=None, epoch=None, max_steps=100, max_bytes=10_000):
        self.engine = Script()
        self.num_told = 0
        self.stream = Stream(Limits(max_bytes, max_steps), self._tell)
        self.stream.begin(self.engine, KEY, position, epoch)
        if self.engine.jobs:
            assert isinstance(self.engine.jobs[0].request, LookRequest)
            self.engine.answer(SessionUnknownError("alice") if at is None else session(*at))

    def _tell(self):
        self.num_told += 1

    def send(self, *values):
        """Hand in messages: an array is binary, a dict is JSON."""
        self.stream.take([message(value) for value in values])

    @property
    def code(self):
        """The close code; None before the end."""
        return self.stream.close and self.stream.close.code

    def requests(self):
        """Return what waits in the engine."""
        return [job.request for job in self.engine.jobs]

    def received(self):
        """Return what the client is sent: documents, and lists of numbers."""
        return [
            json.loads(data) if is_text else np.frombuffer(data, "<f4").tolist()
            for is_text, data in self.stream.answers()
        ]


def message(value):
    """Return a message as a shell hands it in."""
    if isinstance(value, dict):
        return True, json.dumps(value).encode()
    if isinstance(value, str):
        return True, value.encode()
    return False, value if value is None else np.asarray(value, "<f4").tobytes()


def session(position, epoch=EPOCH):
    """Return the reply to a look."""
    return SessionReply(
        position=position, epoch=epoch, fingerprint="f", row=EMPTY, has_output=EMPTY > 0
    )


def steps(num, start=0):
    """Return frames of one step each, none like another."""
    return [[float(start + index), 0.0, 0.0] for index in range(num)]
