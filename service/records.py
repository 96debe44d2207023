"""What is kept of a session, and of its last requests. Knows no store, and no bytes of one."""

from __future__ import annotations

import math
import random

import msgspec

from service.domain import AdvanceReply, Bool, Float32


def new_nonce() -> int:
    """Return a random number below 2**64. It keeps no secret."""
    return random.getrandbits(64)


# As what every step makes anew in `domain`: structs, not frozen, and never changed all the same.


class Replay(msgspec.Struct, eq=False, gc=False):
    """An answered request, kept with its answer for its retry.

    Attributes:
        start: The position that it started from.
        digest: `AdvanceRequest.digest()`.
        reply: Its answer.
        encoded: What a durable store made of it, for the next commit; None until one has.
    """

    start: int
    digest: bytes
    reply: AdvanceReply
    encoded: bytes | None = None


class LongReplay(msgspec.Struct, kw_only=True, eq=False, gc=False):
    """An answered request whose answer is too long to keep, but is computed again for its retry.

    Attributes:
        start: The position that it started from.
        digest: `AdvanceRequest.digest()`.
        row_before: `(state_size,)` float32, the state that it started from.
        has_output_before: `(recurrent layers,)` bool, the flags that belong to it.
        encoded: What a durable store made of it, for the next commit; None until one has.
    """

    start: int
    digest: bytes
    row_before: Float32
    has_output_before: Bool
    encoded: bytes | None = None


class Record(msgspec.Struct, eq=False, gc=False):
    """Everything that is kept of a session. Never changed: each commit makes a new one.

    Attributes:
        fingerprint: The model that the state belongs to.
        epoch: A random number for each creation, reset, import and fork.
        position: Time steps consumed in this epoch; masked ones count.
        row: `(state_size,)` float32, h and c of every layer.
        has_output: `(recurrent layers,)` bool, whether the layer has had a live step since its
            state was set: only then does a masked step repeat the last output.
        touched_at: When its last request was applied, in seconds since 1970.
        ttl_s: How long after that it ends, in seconds; None means never. Not above 0 where its last
            request has ended it: it is kept for that one's retry only.
        replays: The last `REPLAY_WINDOW` requests, oldest first.
        nonce: A random number for each commit, below 2**64. Should a store ever go back to an
            earlier record, what comes to the same position by another way is told apart.
    """

    fingerprint: str
    epoch: int
    position: int
    row: Float32
    has_output: Bool
    touched_at: float = 0.0
    ttl_s: float | None = None
    replays: tuple[Replay | LongReplay, ...] = ()
    nonce: int = msgspec.field(default_factory=new_nonce)

    @property
    def version(self) -> tuple[int, int, int]:
        """What distinguishes this record from every other one of the session."""
        return self.epoch, self.position, self.nonce

    @property
    def is_ended(self) -> bool:
        """Whether its last request has ended it."""
        return self.ttl_s is not None and self.ttl_s <= 0

    @property
    def expires_at(self) -> float:
        """When it ends if nothing is applied before, in seconds since 1970; infinity for never."""
        return math.inf if self.ttl_s is None else self.touched_at + self.ttl_s
