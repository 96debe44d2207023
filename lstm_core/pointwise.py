"""Layers without a state, as inference sees them: each time step on its own, in NumPy float32.

A layer is called with `(..., features)` and answers `(..., output_size)`. `Masking` and `Embedding`
also say which time steps are live.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from lstm_core.activations import activation
from lstm_core.errors import SpecError
from lstm_core.spec import ACTIVATIONS

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

FUNCTIONS = ACTIVATIONS | {"softmax", "log_softmax"}
"""What `Dense` and `Activation` may apply: an LSTM's functions, and those over all features."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dense:
    """`activation(x @ kernel + bias)`.

    Attributes:
        name: The layer's name in its file.
        kernel: `(input_size, output_size)` float32.
        bias: `(output_size,)` float32, or None.
        activation: A name that `activations.activation` knows.
    """

    name: str
    kernel: Float32
    bias: Float32 | None
    activation: str = "linear"

    def output_size(self, input_size: int) -> int:
        """Return the number of columns; SpecError if the rows are not `input_size`."""
        _expect(self.name, input_size, self.kernel.shape[0])
        return int(self.kernel.shape[1])

    def __call__(self, x: Float32) -> Float32:
        """Apply the layer to `(..., features)`."""
        y = np.dot(x.reshape(-1, x.shape[-1]), self.kernel)
        if self.bias is not None:
            y += self.bias
        if self.activation != "linear":
            y = activation(self.activation)(y)
        return y.reshape(*x.shape[:-1], -1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Activation:
    """A function from `activations`, with parameters where the layer has some.

    Attributes:
        name: The layer's name in its file.
        function: A name that `activations.activation` knows.
        parameters: Keyword arguments of that function.
    """

    name: str
    function: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def output_size(self, input_size: int) -> int:
        """Return `input_size`."""
        return input_size

    def __call__(self, x: Float32) -> Float32:
        """Apply the layer to `(..., features)`."""
        return activation(self.function)(x, **self.parameters)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PReLU:
    """`x` where positive, else `alpha * x`, with a slope for each feature (He et al. 2015).

    Attributes:
        name: The layer's name in its file.
        alpha: `(features,)` or `()` float32.
    """

    name: str
    alpha: Float32

    def output_size(self, input_size: int) -> int:
        """Return `input_size`; SpecError if there is another number of slopes."""
        if self.alpha.ndim:
            _expect(self.name, input_size, self.alpha.shape[0])
        return input_size

    def __call__(self, x: Float32) -> Float32:
        """Apply the layer to `(..., features)`."""
        return np.where(x >= 0, x, self.alpha * x)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Affine:
    """`(x - center) * scale + offset`: normalisations with fixed statistics, and rescaling.

    Attributes:
        name: The layer's name in its file.
        center: `(features,)` or `()` float32.
        scale: `(features,)` or `()` float32.
        offset: `(features,)` or `()` float32.
    """

    name: str
    center: Float32
    scale: Float32
    offset: Float32

    def output_size(self, input_size: int) -> int:
        """Return `input_size`; SpecError if a vector has another length."""
        for vector in (self.center, self.scale, self.offset):
            if vector.ndim:
                _expect(self.name, input_size, vector.shape[0])
        return input_size

    def __call__(self, x: Float32) -> Float32:
        """Apply the layer to `(..., features)`."""
        y = x - self.center
        y *= self.scale
        y += self.offset
        return y


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerNormalization:
    """`(x - mean) / sqrt(variance + epsilon) * gamma + beta` over the features (Ba et al. 2016).

    Attributes:
        name: The layer's name in its file.
        gamma: `(features,)` float32, or None.
        beta: `(features,)` float32, or None.
        epsilon: Added to the variance.
        rms_scaling: Leave the mean in place: Keras's option of that name, `x / sqrt(variance +
            epsilon) * gamma`.
    """

    name: str
    gamma: Float32 | None
    beta: Float32 | None
    epsilon: float
    rms_scaling: bool = False

    def output_size(self, input_size: int) -> int:
        """Return `input_size`; SpecError if a vector has another length."""
        for vector in (self.gamma, self.beta):
            if vector is not None:
                _expect(self.name, input_size, vector.shape[0])
        return input_size

    def __call__(self, x: Float32) -> Float32:
        """Apply the layer to `(..., features)`."""
        y = x - x.mean(axis=-1, keepdims=True)
        variance = np.square(y).mean(axis=-1, keepdims=True)
        if self.rms_scaling:
            y[...] = x
        y /= np.sqrt(variance + np.float32(self.epsilon))
        if self.gamma is not None:
            y *= self.gamma
        if self.beta is not None:
            y += self.beta
        return y


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Masking:
    """Time steps whose features all equal `mask_value` are masked, and their features zeroed.

    Attributes:
        name: The layer's name in its file.
        mask_value: Compared in float32.
    """

    name: str
    mask_value: float

    def output_size(self, input_size: int) -> int:
        """Return `input_size`."""
        return input_size

    def live(self, x: Float32) -> Bool:
        """Return `(...)` bool, true where a time step of `(..., features)` is not masked."""
        return np.asarray((x != np.float32(self.mask_value)).any(axis=-1))

    def __call__(self, x: Float32) -> Float32:
        """Apply the layer to `(..., features)`."""
        return x * self.live(x)[..., None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Embedding:
    """A row of `table` for each integer.

    Attributes:
        name: The layer's name in its file.
        table: `(vocabulary, output_size)` float32.
        mask_zero: Whether the integer 0 marks a masked time step.
    """

    name: str
    table: Float32
    mask_zero: bool

    def output_size(self, input_size: int) -> int:
        """Return the table's width; SpecError unless there is one integer a time step."""
        _expect(self.name, input_size, 1)
        return int(self.table.shape[1])

    def live(self, x: Float32) -> Bool:
        """Return `(...)` bool, true where the integer in `(..., 1)` is not 0."""
        return np.asarray(x[..., 0] != 0)

    def __call__(self, x: Float32) -> Float32:
        """Apply the layer to `(..., features)`."""
        return self.table[x[..., 0].astype(np.int64)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slice:
    """Some features of all.

    Attributes:
        name: The layer's name in its file.
        begin: The first of them.
        end: The one behind the last, more than `begin`.
    """

    name: str
    begin: int
    end: int

    def output_size(self, input_size: int) -> int:
        """Return how many they are; SpecError if there are not so many, or none is taken."""
        if not 0 <= self.begin < self.end <= input_size:
            problem = f"takes the features from {self.begin} to {self.end} of {input_size}"
            raise SpecError(self.name, problem)
        return self.end - self.begin

    def __call__(self, x: Float32) -> Float32:
        """Apply the layer to `(..., features)`."""
        return np.ascontiguousarray(x[..., self.begin : self.end])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LastStep:
    """The last time step of a sequence; to a session each one is the last.

    Attributes:
        name: The layer's name in its file.
    """

    name: str

    def output_size(self, input_size: int) -> int:
        """Return `input_size`."""
        return input_size

    def __call__(self, x: Float32) -> Float32:
        """Give each time step of `(..., features)` as if it were the last."""
        return x


Pointwise = (
    Dense
    | Activation
    | PReLU
    | Affine
    | LayerNormalization
    | Masking
    | Embedding
    | Slice
    | LastStep
)


def makes_mask(layer: object) -> TypeGuard[Masking | Embedding]:
    """Whether a layer says which time steps are live."""
    return isinstance(layer, Masking) or (isinstance(layer, Embedding) and layer.mask_zero)


def _expect(name: str, actual: int, expected: int) -> None:
    if actual != expected:
        raise SpecError(name, f"takes {expected} features, but the layer before it gives {actual}")
