"""Messages of a stream as the time steps that they ask for, and what those gave as messages.

Pure functions. Knows no session's place, and nothing of what is in flight.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.domain import MAX_STORED_ANSWER_BYTES, AdvanceReply, Float32, SessionKey
from service.errors import BodyTooLargeError
from service.signature import Signature
from service.transport.parse import parse_binary_steps, parse_single_steps, parse_step
from service.transport.render import render_advance, render_floats
from service.transport.stream_messages import Incoming, Limits, Outgoing

Messages = Incoming | Float32
"""A message; or binary ones of one step each, as their inputs `(messages, input_size)`."""


def single_steps(
    messages: Sequence[Incoming], signature: Signature, limits: Limits
) -> Float32 | None:
    """Return the inputs of messages that are single steps, `(messages, input_size)` float32.

    None where they are not, or are better asked for one by one.
    """
    if len(messages) < 2 or signature.output_size * 4 > MAX_STORED_ANSWER_BYTES:
        return None
    frames = [frame for is_text, frame in messages if frame is not None and not is_text]
    if len(frames) < len(messages) or len(frames[0]) > limits.frame_bytes:
        return None
    return parse_single_steps(frames, signature)


def read(
    messages: Messages, signature: Signature, key: SessionKey, limits: Limits
) -> tuple[Float32, bool, int | None, int | None]:
    """Return the inputs, whether the state is wanted, and the position and epoch that it names.

    The inputs are `(time, input_size)` float32.

    Raises:
        InvalidRequestError, BodyTooLargeError: It is nothing that can be asked.
    """
    if isinstance(messages, np.ndarray):
        return messages, False, None, None
    is_text, frame = messages
    if frame is None or len(frame) > limits.frame_bytes:
        raise BodyTooLargeError(limits.frame_bytes)
    if is_text:
        asked = parse_step(frame, signature, key)
        return asked.inputs, asked.return_state, asked.position, asked.epoch
    inputs = parse_binary_steps(frame, signature, limits.frame_steps)
    return inputs, False, None, None


def answers_to(messages: Messages, reply: AdvanceReply, signature: Signature) -> list[Outgoing]:
    """Return what answers a message in its own kind, or each of several that came together."""
    if not isinstance(messages, np.ndarray):
        if messages[0]:
            return [(True, render_advance(reply, signature))]
        return [(False, render_floats(reply.outputs))]
    payload = render_floats(reply.outputs)
    size = len(payload) // len(messages)
    return [(False, payload[at : at + size]) for at in range(0, len(payload), size)]
