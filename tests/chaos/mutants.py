"""The service with a broken promise: `mutants.py NAME serve ...`. The checker has to find out."""

import asyncio
import sys
from unittest import mock

import hiredis
import numpy as np
from msgspec.structs import replace

from service import decisions, sessions
from service.__main__ import main
from service.errors import UnavailableError
from service.opening import Opener
from service.stores.base import Outcome
from service.stores.redis import commands
from service.stores.watched import WatchedStore
from service.transport import stream_steps
from service.transport.stream import Stream

_BLIND = "redis.call('SET', KEYS[1], ARGV[1]) return 1"


def without_compare():
    """Redis takes every commit, whatever the session's position is by then."""

    def commit(bucket, key, _identity, _expected, value, _keep_ms):
        packed = hiredis.pack_command(("EVAL", _BLIND, 1, key, value))  # type: ignore[arg-type]
        return commands.Command(bucket, packed)

    mock.patch.object(commands, "commit", commit).start()


def without_replays():
    """No answer is kept for a retry."""
    advanced = sessions.advanced

    def forgetting(*arguments, **fields):
        return replace(advanced(*arguments, **fields), replays=())

    mock.patch.object(sessions, "advanced", forgetting).start()


def with_stale_reads():
    """What is at hand is told without asking the store."""
    create = Opener.__init__

    def trusting(opener, *arguments, **options):
        create(opener, *arguments, **(options | {"is_alone": True}))

    mock.patch.object(Opener, "__init__", trusting).start()


def with_hope():
    """A commit whose outcome is not known is taken for good."""
    commit_many = WatchedStore.commit_many

    async def hoping(store, commits):
        try:
            return await commit_many(store, commits)
        except UnavailableError:
            return [Outcome.COMMITTED] * len(commits)

    mock.patch.object(WatchedStore, "commit_many", hoping).start()


def with_early_answers():
    """Answers do not wait for their commits."""
    commit_many = WatchedStore.commit_many
    order = asyncio.Lock()
    late = set()

    async def commit_later(store, commits):
        async with order:
            await asyncio.sleep(0.02)
            await commit_many(store, commits)

    async def rushing(store, commits):
        late.add(asyncio.create_task(commit_later(store, commits)))
        return [Outcome.COMMITTED] * len(commits)

    mock.patch.object(WatchedStore, "commit_many", rushing).start()


def with_repeats():
    """A position is taken for what it is at, whatever the request says."""
    decide = decisions.decide

    def obliging(record, request, now):
        if record is not None and getattr(request, "inputs", None) is not None:
            request = replace(request, position=record.position)
        return decide(record, request, now)

    mock.patch.object(decisions, "decide", obliging).start()


def without_stream_positions():
    """A stream goes on from where the session is, whatever its address says."""
    begin = Stream.begin

    def forgetting(stream, engine, key, _position, epoch):
        begin(stream, engine, key, None, epoch)

    mock.patch.object(Stream, "begin", forgetting).start()


def with_doubled_frames():
    """Of frames that came together the first is taken twice, and the second is lost."""

    def doubling(messages, signature, limits):
        inputs = stream_steps.single_steps(messages, signature, limits)
        return inputs if inputs is None else np.concatenate([inputs[:1], inputs[:1], inputs[2:]])

    mock.patch("service.transport.stream.single_steps", doubling).start()


MUTANTS = {
    mutant.__name__: mutant
    for mutant in (
        without_compare,
        without_replays,
        with_stale_reads,
        with_hope,
        with_early_answers,
        with_repeats,
        without_stream_positions,
        with_doubled_frames,
    )
}

if __name__ == "__main__":
    MUTANTS[sys.argv[1]]()
    sys.exit(main(sys.argv[2:]))
