"""What a network would answer to its own outputs: a state run on, each output the next input.

Owns which output feeds which input. Knows no arena and no kernel: whoever calls brings the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from lstm_core.errors import MissingFirstInputError, NotStreamableError
from lstm_core.network import Network
from lstm_core.runtime.base import Indices, ServedNetwork

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

HELD = -1
"""In place of an output's index: the input keeps the value that it has in the first step."""

Step = Callable[[Float32], Float32]
"""Takes the state one time step on: `(input_size,)` to `(output_size,)`, both float32."""


def run_on(
    network: ServedNetwork, step: Step, first_input: Float32, feedback: Indices, num_steps: int
) -> Iterator[Float32]:
    """Return the outputs of each step, `(output_size,)` float32, computed when they are asked for.

    Args:
        network: Whose steps.
        step: Takes its state on.
        first_input: `(input_size,)` float32, of the first step.
        feedback: `(input_size,)`, for each input the index of the output that feeds it, or `HELD`.
        num_steps: How many steps, at least 1.

    Raises:
        NotStreamableError: A layer needs the whole sequence at once.
    """
    if network.streaming_obstacles:
        raise NotStreamableError(network.streaming_obstacles)
    return _run_on(step, first_input, feedback, num_steps)


def _run_on(
    step: Step, first_input: Float32, feedback: Indices, num_steps: int
) -> Iterator[Float32]:
    x = first_input
    outputs = step(x)
    yield outputs
    for _ in range(num_steps - 1):
        x = feed(outputs, feedback, x)
        outputs = step(x)
        yield outputs


def feed(outputs: Float32, feedback: Indices, held: Float32) -> Float32:
    """Return the inputs `(input_size,)` that outputs `(output_size,)` feed; `held` for the rest."""
    return np.where(feedback == HELD, held, outputs[feedback])


def first_of(
    network: Network,
    behind: Callable[[Float32, Bool], Float32 | None],
    row: Float32,
    has_output: Bool,
    feedback: Indices,
) -> Float32:
    """Return `(input_size,)` float32: what a state's last output feeds.

    A recurrent layer's h is what that layer gave for the last live step; the layers behind it have
    no state.

    Args:
        network: Whose state.
        behind: Returns the outputs `(output_size,)` of the last live step by the state alone, or
            None where that does not tell them.
        row: `(state_size,)` float32.
        has_output: `(recurrent layers,)` bool.
        feedback: As for `run_on`.

    Raises:
        NotStreamableError: A layer needs the whole sequence at once.
        MissingFirstInputError: There has been no output, it does not feed all inputs, or it
            depended on that step's inputs too.
    """
    if network.streaming_obstacles:
        raise NotStreamableError(network.streaming_obstacles)
    if (feedback == HELD).any():
        raise MissingFirstInputError
    with np.errstate(all="ignore"):
        outputs = behind(row, has_output)
    if outputs is None:
        raise MissingFirstInputError
    return outputs[feedback]
