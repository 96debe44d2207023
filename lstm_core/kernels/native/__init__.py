"""The LSTM in C: whole stacks of layers over an arena, in one call.

Owns the packed weights and the way into the extension module, which is compiled when the package is
installed and may be missing. Knows no network. The kernel's law stands in `plan.h`: every output
depends on its own row alone, to the bit.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from math import inf
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from lstm_core.spec import LSTMSpec
from lstm_core.weights import LSTMWeights

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
Numbers = Sequence[int] | npt.NDArray[np.integer[Any]]
Fields = tuple[Float32, Float32, Bool, Bool, Bool]
"""Those of `runtime.base.Advanced`."""
Results = TypeVar("Results", bound=Fields, covariant=True)  # noqa: PLC0105 - of no one name


class Layer(Protocol):
    """A layer's packed weights, `Layer` of `layer_type.c`: never changes."""


class Runner(Protocol[Results]):
    """Layers in a chain over an arena, `Runner` of `runner_type.c`, for one thread at a time."""

    def advance(
        self,
        from_slots: Numbers | None,
        to_slots: Numbers | None,
        inputs: Float32,
        lengths: Numbers | None,
        mask: Bool | None,
        /,
    ) -> Results:
        """Do as `runtime.cpu.CpuRuntime.advance`, and return fields as its `Advanced` has them.

        Args:
            from_slots: `(batch,)` integers; None means slot 0 for every row.
            to_slots: `(batch,)` integers, none of them 0; None leaves the arena as it is.
            inputs: `(batch, time, input_size)` float32.
            lengths: `(batch,)` integers, 1 to `time`; None means `time` for every row.
            mask: `(batch, time)` bool, or None.

        Raises:
            TypeError: Something has another type.
            ValueError: Something has another shape.
            IndexError: A slot or a length is out of bounds.
            RuntimeError: Another call runs.
        """


ACTIVATIONS = (
    "linear", "celu", "elu", "exponential", "gelu", "hard_sigmoid", "hard_sigmoid_v1", "hard_silu",
    "leaky_relu", "log_sigmoid", "mish", "relu", "relu6", "selu", "sigmoid", "silu", "softplus",
    "softsign", "tanh", "softmax",
)  # fmt: skip
"""In the order of `Activation` in `plan.h`: the elementwise ones, of which an LSTM takes any, and
`softmax`."""

_INTERFACE = 4
"""`LSTM_NATIVE_INTERFACE` of the sources beside this file."""
_MEND = "with a C compiler (GCC or Clang) on the machine, install the package again"


def _load() -> tuple[Any, str | None]:
    """Return the extension module, or None and why it cannot be had."""
    try:
        kernel = importlib.import_module(f"{__name__}._kernel")
    except ModuleNotFoundError:
        return None, f"it was not built when the package was installed: {_MEND}"
    except ImportError as error:
        return None, f"it cannot be loaded ({error}): {_MEND}"
    if kernel.INTERFACE != _INTERFACE:
        return None, f"it was built from other sources: {_MEND}"
    return kernel, None


_module, OBSTACLE = _load()
"""OBSTACLE: what stands in the way of the kernel on this machine, and how to mend it; or None."""


Precision = Literal["float32", "bfloat16"]
"""Of an LSTM's products; sums, states, activations and the other layers are float32 in both.

In bfloat16 weights, inputs and h have 8 significant bits. After 100 steps the outputs of LSTMs as
they are initialised were found up to 0.0015 off, the probabilities of a trained classifier 0.01. A
row's bits are still its own, but those of another make of processor may differ."""


def instruction_sets(precision: Precision = "float32") -> tuple[str, ...]:
    """Return those that the kernel can run on here, the fastest first; none where it is missing."""
    return () if _module is None else tuple(_module.instruction_sets(precision == "bfloat16"))


def lstm_layer(
    spec: LSTMSpec,
    weights: LSTMWeights,
    instruction_set: str,
    *,
    zero_output_for_mask: bool = False,
) -> Layer:
    """Pack one LSTM's weights as float32.

    Args:
        spec: The configuration.
        weights: The weights, gates in the order of `spec.GATE_ORDER`.
        instruction_set: One of `instruction_sets()`.
        zero_output_for_mask: Whether a masked step gives zeros instead of the last output.

    Raises:
        WeightsError: The weights do not fit the spec.
    """
    weights.check(spec)
    w = weights.with_forget_bias(spec.forget_bias).astype(np.float32)
    fields = (
        w.kernel,
        w.recurrent_kernel,
        w.bias,
        w.peepholes,
        w.projection,
        ACTIVATIONS.index(spec.activation),
        ACTIVATIONS.index(spec.recurrent_activation),
        *(inf if c is None else c for c in (spec.gate_clip, spec.cell_clip, spec.projection_clip)),
        zero_output_for_mask,
    )
    return _layer("lstm", fields, instruction_set)


def dense_layer(
    kernel: Float32, bias: Float32 | None, activation: str, instruction_set: str
) -> Layer:
    """Pack the weights of `activation(x @ kernel + bias)`.

    Args:
        kernel: `(input_size, output_size)` float32.
        bias: `(output_size,)` float32, or None.
        activation: One of `ACTIVATIONS`.
        instruction_set: One of `instruction_sets()`.
    """
    fields = (
        np.ascontiguousarray(kernel, np.float32),
        None if bias is None else np.ascontiguousarray(bias, np.float32),
        ACTIVATIONS.index(activation),
    )
    return _layer("dense", fields, instruction_set)


def activation_layer(size: int, activation: str, instruction_set: str) -> Layer:
    """Return a layer that is an activation of `size` features, one of `ACTIVATIONS`."""
    return _layer("activation", (size, ACTIVATIONS.index(activation)), instruction_set)


def affine_layer(center: Float32, scale: Float32, offset: Float32, instruction_set: str) -> Layer:
    """Return the layer `(x - center) * scale + offset`, all `(features,)` float32."""
    return _layer("affine", (_vectors(center, scale, offset),), instruction_set)


def slopes_layer(alpha: Float32, ceiling: float, instruction_set: str) -> Layer:
    """Return the layer `min(x, ceiling)` where positive, else `alpha * x`.

    Args:
        alpha: `(features,)` float32.
        ceiling: Infinity where there is none.
        instruction_set: One of `instruction_sets()`.
    """
    return _layer("slopes", (_vectors(alpha), ceiling), instruction_set)


def normalization_layer(
    gamma: Float32, beta: Float32, epsilon: float, instruction_set: str, *, rms_scaling: bool
) -> Layer:
    """Return the layer `pointwise.LayerNormalization`, `gamma` and `beta` `(features,)` float32."""
    fields = (_vectors(gamma, beta), epsilon, rms_scaling)
    return _layer("normalization", fields, instruction_set)


def masking_layer(size: int, mask_value: float, instruction_set: str) -> Layer:
    """Return the layer `pointwise.Masking` of `size` features; it masks the LSTMs behind it."""
    return _layer("masking", (size, mask_value), instruction_set)


def embedding_layer(table: Float32, instruction_set: str, *, mask_zero: bool) -> Layer:
    """Return the layer `pointwise.Embedding`, `table` `(vocabulary, output_size)` float32.

    Only the first of a runner. Numbers from 0 on are cut off to whole ones; any other is an
    IndexError of the call.
    """
    return _layer(
        "embedding", (np.ascontiguousarray(table, np.float32), mask_zero), instruction_set
    )


def _vectors(*vectors: Float32) -> Float32:
    return np.ascontiguousarray(np.stack(vectors), np.float32)


def _layer(kind: str, fields: tuple[object, ...], instruction_set: str) -> Layer:
    layer: Layer = _module.Layer(kind, fields, instruction_set)
    return layer


def runner(
    layers: Sequence[Layer],
    rows: Float32,
    has_output: Bool,
    num_threads: int = 1,
    *,
    results: type[Results],
) -> Runner[Results]:
    """Return what runs layers of one instruction set on an arena.

    Args:
        layers: Each takes what the one before it gives.
        rows: `(slots, state_size)` float32, which it reads and writes in place.
        has_output: `(slots, recurrent layers)` bool, likewise.
        num_threads: The most that the rows of a long call are shared out over, at least 1. They
            end with the call, and the bits do not depend on them.
        results: What a call returns: `tuple`, or a kind of it without an `__init__` of its own.
    """
    made: Runner[Results] = _module.Runner(tuple(layers), rows, has_output, num_threads, results)
    return made


def stateless_runner(
    layers: Sequence[Layer], state_size: int = 0, num_flags: int = 0, num_threads: int = 1
) -> Runner[Fields]:
    """Return a runner that begins with zeros each time.

    Args:
        layers: As for `runner`.
        state_size: Floats of their states.
        num_flags: How many of them are recurrent.
        num_threads: As for `runner`.
    """
    rows, has_output = np.zeros((1, state_size), np.float32), np.zeros((1, num_flags), np.bool_)
    return runner(layers, rows, has_output, num_threads, results=tuple)


def activate_in_place(name: str, x: Float32, instruction_set: str) -> None:
    """Apply an activation as the kernel has it, so that its accuracy can be measured.

    Args:
        name: One of `ACTIVATIONS`.
        x: `(size,)` float32, overwritten.
        instruction_set: One of `instruction_sets()`.
    """
    _module.activate(ACTIVATIONS.index(name), x, instruction_set)
