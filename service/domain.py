"""What the engine is asked and what it answers. Knows no transport, no framework and no store."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from service.signature import StateVector

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

DEFAULT_TENANT = "default"
CLIENT_ID_PATTERN = r"^(?!\.{1,2}$)[A-Za-z0-9._:@-]{1,128}$"
REPLAY_WINDOW = 16
"""How many of a session's last requests are answered again when they come again."""
MAX_POSITION = 2**53 - 1
"""The last position that a JSON number tells exactly."""
MAX_STORED_ANSWER_BYTES = 16 * 1024
"""A longer answer is not stored: the row before it is, and a retry computes it again."""
TOMBSTONE_S = 7 * 24 * 3600.0
"""How long a session whose time to live is over is told from one that never was."""
ENDING_S = 300.0
"""How long a request that ended its session can be answered again."""

# Copied for each request: to make one of its parameters takes longer than to hash a step.
_HASHES = [hashlib.blake2b(digest_size=16, salt=flags.to_bytes(1)) for flags in range(16)]
_CLIENT_ID = re.compile(CLIENT_ID_PATTERN[:-1] + r"\Z")


def is_client_id(text: str) -> bool:
    """Tell whether `text`, percent-decoded already, can name a client."""
    return _CLIENT_ID.match(text) is not None


class SessionKey(NamedTuple):
    """Whose state.

    Attributes:
        tenant: Who owns it; `DEFAULT_TENANT` until there are keys.
        model: The model's name.
        client_id: Matches `CLIENT_ID_PATTERN`.
    """

    tenant: str
    model: str
    client_id: str


# What every step makes anew is a struct, made in a quarter of the time of a data class, and not
# frozen, which would cost as much again. It is never changed all the same. It holds no cycles, so
# the garbage collector need not know of it.


class AdvanceRequest(msgspec.Struct, eq=False, gc=False):
    """Take the next time steps of a session: one for a step, many for a sequence. Never changed.

    Attributes:
        key: The session.
        inputs: `(time, input_size)` float32, finite, time at least 1.
        mask: `(time,)` bool, true where a step is live; None means everywhere.
        return_sequences: Whether every step's output is wanted, or the last one's only.
        return_state: Whether the state after the last step is wanted too.
        position: Where the caller expects the session to be; None means anywhere.
        epoch: The life that the caller expects; None means any.
        must_begin: Refuse to go on with a session that exists already.
        must_exist: Refuse to begin a session.
        begins_anew: Begin at position 0, whatever there is; `position` is None, or 0 where a retry
            of the session's first request shall be answered again and not begin once more.
        ends: The session ends with these steps. With a `position` a retry is answered again, for
            `ENDING_S`.
        are_apart: The steps came as requests of their own, of one step and nothing else each, and a
            retry of each is answered again. All of them are applied, or none.
    """

    key: SessionKey
    inputs: Float32
    mask: Bool | None = None
    return_sequences: bool = True
    return_state: bool = False
    position: int | None = None
    epoch: int | None = None
    must_begin: bool = False
    must_exist: bool = False
    begins_anew: bool = False
    ends: bool = False
    are_apart: bool = False

    def digests_apart(self) -> list[bytes]:
        """Return what `digest` would of each step as a request of its own."""
        data, size = self.inputs.tobytes(), self.inputs.itemsize * self.inputs.shape[1]
        digests = []
        for start in range(0, len(data), size):
            digest = _HASHES[0].copy()
            digest.update(data[start : start + size])
            digests.append(digest.digest())
        return digests

    def digest(self) -> bytes:
        """Return 16 bytes that tell this request from others, but for position and epoch."""
        flags = self.return_sequences + 2 * self.return_state + 4 * (self.mask is not None)
        flags += 8 * self.ends
        digest = _HASHES[flags].copy()
        digest.update(self.inputs.tobytes())
        if self.mask is not None:
            digest.update(self.mask.tobytes())
        return digest.digest()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ResetRequest:
    """Begin a new life at position 0.

    Attributes:
        key: The session; it need not exist.
        row: `(state_size,)` float32, the state to begin with; None means zeros.
        ttl_s: How long after its last request it ends, in seconds; None means the engine's default.
        position: Where the caller expects the session to be; None means anywhere.
        epoch: The life that the caller expects; None means any.
    """

    key: SessionKey
    row: Float32 | None = None
    ttl_s: float | None = None
    position: int | None = None
    epoch: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImportRequest:
    """Begin a new life at a given position with a given state.

    Attributes:
        key: The session; it need not exist.
        row: `(state_size,)` float32.
        has_output: `(recurrent layers,)` bool: see `Record`.
        new_position: The position to set.
        fingerprint: Of the model that the state comes from; None means that it fits.
        position: Where the caller expects the session to be; None means anywhere.
        epoch: The life that the caller expects; None means any.
    """

    key: SessionKey
    row: Float32
    has_output: Bool
    new_position: int
    fingerprint: str | None = None
    position: int | None = None
    epoch: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LookRequest:
    """Read a session, after everything that was asked of it before.

    Attributes:
        key: The session.
        position: Where the caller expects the session to be; None means anywhere.
        epoch: The life that the caller expects; None means any.
    """

    key: SessionKey
    position: int | None = None
    epoch: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteRequest:
    """End a session.

    Attributes:
        key: The session.
        position: Where the caller expects the session to be; None means anywhere.
        epoch: The life that the caller expects; None means any.
    """

    key: SessionKey
    position: int | None = None
    epoch: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkRequest:
    """Begin a second session from the state of one.

    Attributes:
        key: The session.
        target: The client id of the second one, of the same tenant and model.
    """

    key: SessionKey
    target: str

    @property
    def target_key(self) -> SessionKey:
        """The second session."""
        return self.key._replace(client_id=self.target)


Request = AdvanceRequest | ResetRequest | ImportRequest | LookRequest | DeleteRequest | ForkRequest


class AdvanceReply(msgspec.Struct, eq=False, gc=False):
    """What time steps gave. Never changed.

    Attributes:
        outputs: `(time, output_size)` float32, or `(output_size,)` without `return_sequences`.
        position: Where the session is after them.
        epoch: The life that it is in.
        replayed: Whether this is the answer of an earlier request that came again.
        row: `(state_size,)` float32, the state after them, where it was asked for.
        layout: The vectors of that row, of the version of the model that ran; told with the answer,
            and not kept for a retry.
    """

    outputs: Float32
    position: int
    epoch: int
    replayed: bool = False
    row: Float32 | None = None
    layout: tuple[StateVector, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SessionReply:
    """A session as it is: after a reset, an import, a look or a fork.

    Attributes:
        position: How many time steps it has consumed in this life.
        epoch: This life.
        fingerprint: The model that its state belongs to.
        row: `(state_size,)` float32.
        has_output: `(recurrent layers,)` bool: see `Record`.
        ttl_s: How long after its last request it ends, in seconds; None means never.
    """

    position: int
    epoch: int
    fingerprint: str
    row: Float32
    has_output: Bool
    ttl_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ForecastRequest:
    """Run a session's state on, each step's outputs the next one's inputs. The session stays.

    Attributes:
        key: The session.
        num_steps: How many steps, at least 1.
        first_input: `(input_size,)` float32, finite, of the first step; None means what the
            session's last output feeds.
        feedback: `(input_size,)` int, for each input the index of the output that feeds it; -1
            where it keeps its value of `first_input`.
        position: Where the caller expects the session to be; None means anywhere.
        epoch: The life that the caller expects; None means any.
    """

    key: SessionKey
    num_steps: int
    first_input: Float32 | None
    feedback: npt.NDArray[np.intp]
    position: int | None = None
    epoch: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ForecastReply:
    """What a forecast gave.

    Attributes:
        outputs: `(num_steps, output_size)` float32.
        position: Where the session is, from which it was made.
        epoch: The life that it is in.
    """

    outputs: Float32
    position: int
    epoch: int


@dataclass(frozen=True, slots=True)
class EndedReply:
    """The session has ended."""


Reply = AdvanceReply | SessionReply | EndedReply


class SessionSummary(NamedTuple):
    """A line of the session list.

    Attributes:
        client_id: Whose it is.
        position: Where it is.
        epoch: The life that it is in.
    """

    client_id: str
    position: int
    epoch: int
