"""The service with a fault in it: `crash_service.py POINT COUNT serve ...` dies by SIGKILL there.

It is the `COUNT`th step that meets the fault.
"""

import asyncio
import os
import signal
import sys

from service.__main__ import main
from service.compute import Compute
from service.domain import AdvanceRequest
from service.engine import Engine
from service.stores.watched import WatchedStore
from service.transport.http_protocol import HotHttpProtocol


class Fault:
    """Ends the process at one of its visits.

    Attributes:
        num_left: Visits until then.
    """

    def __init__(self, count):
        """Wait for the `count`th visit."""
        self.num_left = count

    @property
    def is_due(self):
        """Whether this visit, which counts, is the last."""
        self.num_left -= 1
        return self.num_left == 0

    def visit(self):
        """End the process, if it is time."""
        if self.is_due:
            die()


def die():
    """End the process as a power cut of its own would."""
    os.kill(os.getpid(), signal.SIGKILL)


def put(owner, name, method):
    """Put a method in the place of a class's own."""
    setattr(owner, name, method)


def crash_when_received(fault):
    """Die before the step is queued."""
    submit = Engine.submit

    def crashing(engine, request, *arguments):
        if isinstance(request, AdvanceRequest):
            fault.visit()
        return submit(engine, request, *arguments)

    put(Engine, "submit", crashing)


def crash_when_computed(fault):
    """Die between the kernel and the store."""
    advance = Compute.advance

    async def crashing(compute, *arguments):
        advanced = await advance(compute, *arguments)
        fault.visit()
        return advanced

    put(Compute, "advance", crashing)


def crash_when_committing(fault):
    """Die when the commit has begun, and has ended or not."""
    commit_many = WatchedStore.commit_many

    async def crashing(store, commits):
        committing = asyncio.ensure_future(commit_many(store, commits))
        if fault.is_due:
            await asyncio.sleep(0)
            die()
        return await committing

    put(WatchedStore, "commit_many", crashing)


def crash_when_committed(fault):
    """Die between the store and the answer."""
    commit_many = WatchedStore.commit_many

    async def crashing(store, commits):
        outcomes = await commit_many(store, commits)
        fault.visit()
        return outcomes

    put(WatchedStore, "commit_many", crashing)


def crash_when_answered(fault):
    """Die when the answer has been handed to the socket."""
    answer = HotHttpProtocol.answer

    def crashing(protocol, hot, result):
        answer(protocol, hot, result)
        if hot.head.route.name.startswith("step"):
            # The loop writes at the end of its turn.
            protocol.loop.call_soon(fault.visit)

    put(HotHttpProtocol, "answer", crashing)


POINTS = {
    "received": crash_when_received,
    "computed": crash_when_computed,
    "committing": crash_when_committing,
    "committed": crash_when_committed,
    "answered": crash_when_answered,
}

if __name__ == "__main__":
    POINTS[sys.argv[1]](Fault(int(sys.argv[2])))
    sys.exit(main(sys.argv[3:]))
