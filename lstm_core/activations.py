"""Elementwise activation functions in NumPy, one for each name in `spec.ACTIVATIONS`.

Each takes an array of any shape and floating dtype and returns a new one of the same shape and
dtype. Definitions are those of `keras.activations` (Keras 3), with its default parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from math import erf
from typing import Any

import numpy as np
import numpy.typing as npt

from lstm_core.spec import ACTIVATIONS

Array = npt.NDArray[Any]

_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946
_INVERSE_SQRT_2 = 0.7071067811865476


def sigmoid(x: Array) -> Array:
    """Return `1 / (1 + exp(-x))`; saturates to 0 and 1 without warnings."""
    with np.errstate(over="ignore"):
        y = np.exp(-x)
        y += 1
        return np.reciprocal(y, out=y)


def hard_sigmoid(x: Array) -> Array:
    """Return Keras 3's `relu6(x + 3) / 6`."""
    return relu6(x + 3) / 6


def hard_sigmoid_v1(x: Array) -> Array:
    """Return `clip(0.2 x + 0.5, 0, 1)`, the `hard_sigmoid` of Keras 1 and 2."""
    return np.clip(0.2 * x + 0.5, 0, 1)


def relu(
    x: Array, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0
) -> Array:
    """Return `x` from `threshold` up to `max_value`, else `negative_slope * (x - threshold)`."""
    # Without a slope minus infinity is 0, too, and only a NaN stays one.
    below = negative_slope * (x - threshold) if negative_slope else np.where(np.isnan(x), x, 0)
    y = np.where(x > threshold if threshold else x >= 0, x, below)
    if max_value is not None:
        y = np.minimum(y, max_value)
    return y.astype(x.dtype, copy=False)


def relu6(x: Array) -> Array:
    """Return `min(max(x, 0), 6)`."""
    return np.clip(x, 0, 6)


def leaky_relu(x: Array, negative_slope: float = 0.2) -> Array:
    """Return `x` where positive, else `negative_slope * x`."""
    return np.where(x >= 0, x, negative_slope * x)


def elu(x: Array, alpha: float = 1.0) -> Array:
    """Return `x` where positive, else `alpha * (exp(x) - 1)`."""
    return np.where(x >= 0, x, alpha * np.expm1(np.minimum(x, 0)))


def celu(x: Array, alpha: float = 1.0) -> Array:
    """Return `max(x, 0) + min(0, alpha * (exp(x / alpha) - 1))`."""
    return np.where(x >= 0, x, alpha * np.expm1(np.minimum(x, 0) / alpha))


def selu(x: Array) -> Array:
    """Return the scaled ELU of Klambauer et al. 2017."""
    return _SELU_SCALE * elu(x, _SELU_ALPHA)


def softplus(x: Array) -> Array:
    """Return `log(1 + exp(x))`."""
    return np.logaddexp(x, np.zeros((), x.dtype))


def log_sigmoid(x: Array) -> Array:
    """Return `log(sigmoid(x))`."""
    return -softplus(-x)


def softsign(x: Array) -> Array:
    """Return `x / (1 + |x|)`."""
    return x / (1 + np.abs(x))


def silu(x: Array) -> Array:
    """Return `x * sigmoid(x)`, also called swish."""
    return x * sigmoid(x)


def hard_silu(x: Array) -> Array:
    """Return `x * hard_sigmoid(x)`, also called hard_swish."""
    return x * hard_sigmoid(x)


def mish(x: Array) -> Array:
    """Return `x * tanh(softplus(x))`."""
    return x * np.tanh(softplus(x))


def gelu(x: Array, *, approximate: bool = False) -> Array:
    """Return the Gaussian error linear unit, exact or by its tanh approximation."""
    if approximate:
        inner = np.sqrt(2 / np.pi).astype(x.dtype) * (x + 0.044715 * np.power(x, 3))
        return 0.5 * x * (1 + np.tanh(inner))
    return 0.5 * x * (1 + _erf(x * _INVERSE_SQRT_2))


def _erf(x: Array) -> Array:
    # NumPy has none, and this one takes a Python float at a time: slow, but seldom asked for.
    return np.vectorize(erf, otypes=[x.dtype])(x)


def linear(x: Array) -> Array:
    """Return a copy of `x`."""
    return x.copy()


def softmax(x: Array) -> Array:
    """Return the softmax over the last axis. Not elementwise, so no LSTM takes it."""
    y = np.exp(x - x.max(axis=-1, keepdims=True))
    y /= y.sum(axis=-1, keepdims=True)
    return y


def log_softmax(x: Array) -> Array:
    """Return the logarithm of the softmax over the last axis. Not elementwise."""
    y = x - x.max(axis=-1, keepdims=True)
    return y - np.log(np.exp(y).sum(axis=-1, keepdims=True))


_ELEMENTWISE: dict[str, Callable[..., Array]] = {
    "celu": celu,
    "elu": elu,
    "exponential": np.exp,
    "gelu": gelu,
    "hard_sigmoid": hard_sigmoid,
    "hard_sigmoid_v1": hard_sigmoid_v1,
    "hard_silu": hard_silu,
    "leaky_relu": leaky_relu,
    "linear": linear,
    "log_sigmoid": log_sigmoid,
    "mish": mish,
    "relu": relu,
    "relu6": relu6,
    "selu": selu,
    "sigmoid": sigmoid,
    "silu": silu,
    "softplus": softplus,
    "softsign": softsign,
    "tanh": np.tanh,
}
assert _ELEMENTWISE.keys() == ACTIVATIONS

_FUNCTIONS = {**_ELEMENTWISE, "softmax": softmax, "log_softmax": log_softmax}


def activation(name: str) -> Callable[..., Array]:
    """Return the function of a name in `spec.ACTIVATIONS`, or of `softmax` or `log_softmax`.

    Raises:
        KeyError: No such function.
    """
    return _FUNCTIONS[name]
