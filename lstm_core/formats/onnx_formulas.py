"""Functions that exporters take apart, put together again: GELU, SiLU, LayerNorm and the like.

A node that computes a part of one leaves a `Part` among the layers. Where two values meet that
come from the same one, the layers that each has gone through since tell which function of it they
make. Owns these formulas; a part that none of them takes is refused in the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from lstm_core.formats.onnx_axes import kinds
from lstm_core.formats.onnx_model import Node
from lstm_core.formats.onnx_values import Link, Part, Sequences
from lstm_core.pointwise import Activation, Affine, LayerNormalization, PReLU

Step = str | tuple[float, float]
"""What a layer does: a function's name, or a factor and what is added."""

_OTHER = "another layer"
_SQRT_HALF, _GELU_OUTER, _GELU_CUBE = math.sqrt(0.5), math.sqrt(2 / math.pi), 0.044715


def combined(node: Node, first: Sequences, second: Sequences) -> Sequences | None:
    """Return a sum, difference, product or quotient of two values where it is a known function.

    Args:
        node: `Add`, `Sub`, `Mul` or `Div`.
        first: Its first input.
        second: Its second input.
    """
    if [kinds(axis) for axis in first.axes] != [kinds(axis) for axis in second.axes]:
        return None
    if first.direction is not None or second.direction is not None:
        return None
    count = 0
    pairs = zip(first.layers, second.layers, strict=False)
    while (pair := next(pairs, None)) is not None and pair[0] is pair[1]:
        count += 1
    origin = replace(first, layers=first.layers[:count], is_state=False)
    both = first.layers[count:], second.layers[count:]
    if node.operator == "Sub":
        return _difference(node, origin, *both)
    if node.operator == "Div":
        return _quotient(node, origin, *both)
    in_order = sorted(both, key=len)
    function = _product if node.operator == "Mul" else _sum
    return function(node, origin, *in_order)


def logarithm(node: Node, value: Sequences) -> Sequences:
    """Return the logarithm, of a sigmoid or softmax as one function."""
    last = value.layers[-1] if value.layers else None
    name = last.function if isinstance(last, Activation) else ""
    function = {"sigmoid": "log_sigmoid", "softmax": "log_softmax"}.get(name)
    if function is None:
        return value.through(_part(node, "log"))
    before = replace(value, layers=value.layers[:-1])
    return before.through(Activation(name=node.name, function=function))


def without_threshold(condition: Sequences, above: Sequences, below: Sequences) -> Sequences | None:
    """Return PyTorch's softplus, which is its argument above 20; None for another `Where`.

    Args:
        condition: Whether a value is more than 20.
        above: What is taken where it is.
        below: What is taken elsewhere.
    """
    count = len(above.layers)
    if any(value.layers[:count] != above.layers for value in (condition, below)):
        return None
    match _steps(condition.layers[count:]), _steps(below.layers[count:]):
        case ["above 20"], ["softplus"]:
            return below
        case [(beta, 0.0), "above 20"], [(factor, 0.0), "softplus", (divisor, 0.0)]:
            return below if _near(beta, factor) and _near(beta * divisor, 1) else None
    return None


def _steps(layers: Sequence[Link]) -> list[Step]:
    """Return what layers do to each number, with factors and sums brought together."""
    found: list[Step] = []
    for layer in layers:
        step: Step = _OTHER
        is_plain = isinstance(layer, Activation) and not layer.parameters
        if isinstance(layer, Part) or (isinstance(layer, Activation) and is_plain):
            step = layer.function
        elif isinstance(layer, Activation) and dict(layer.parameters) == {"max_value": 6.0}:
            step = "relu6"
        elif isinstance(layer, Affine) and _is_scalar(layer):
            scale = float(layer.scale)
            step = (scale, float(layer.offset) - scale * float(layer.center))
        last = found[-1] if found else None
        if isinstance(step, tuple) and isinstance(last, tuple):
            found[-1] = (step[0] * last[0], step[0] * last[1] + step[1])
        else:
            found.append(step)
    return [step for step in found if step != (1.0, 0.0)]


def _is_scalar(layer: Affine) -> bool:
    return not (layer.scale.ndim or layer.center.ndim or layer.offset.ndim)


def _near(value: float, expected: float) -> bool:
    return math.isclose(value, expected, rel_tol=1e-5)


def _part(node: Node, function: str) -> Part:
    return Part(name=node.name, operator=node.operator, function=function)


def _product(
    node: Node, origin: Sequences, plain: Sequence[Link], gate: Sequence[Link]
) -> Sequences | None:
    factor = 1.0
    short, long = _steps(plain), _steps(gate)
    for each in (short, long):
        if each and isinstance(each[-1], tuple) and each[-1][1] == 0:
            factor *= each[-1][0]
            del each[-1]
    if short and long:
        return None
    gate_steps = short or long
    match gate_steps:
        case ["square", "mean", (1.0, epsilon), "sqrt", "reciprocal"] if factor == 1:
            return _normalised(node, origin, epsilon)
        case []:
            return scaled(node, origin.through(_part(node, "square")), factor)
        case ["square"]:
            return scaled(node, origin.through(_part(node, "cube")), factor)
    gated = _gated(gate_steps)
    if gated is None:
        return None
    function, parameters, gate_factor = gated
    layer = Activation(name=node.name, function=function, parameters=parameters)
    return scaled(node, origin.through(layer), factor * gate_factor)


def _gated(gate: Sequence[Step]) -> tuple[str, dict[str, bool], float] | None:
    """Return the function that `x * gate(x)` is, its parameters, and a factor; or None."""
    found: tuple[str, dict[str, bool], float] | None = None
    match gate:
        case ["sigmoid"]:
            found = "silu", {}, 1.0
        case ["hard_sigmoid"]:
            found = "hard_silu", {}, 1.0
        case [(1.0, 3.0), "relu6"]:
            found = "hard_silu", {}, 6.0
        case ["softplus", "tanh"]:
            found = "mish", {}, 1.0
        case [(inner, 0.0), "erf", (half, added)]:
            if _near(inner, _SQRT_HALF) and _near(half, added):
                found = "gelu", {}, 2 * half
        case ["with its cube", (inner, 0.0), "tanh", (half, added)]:
            if _near(inner, _GELU_OUTER) and _near(half, added):
                found = "gelu", {"approximate": True}, 2 * half
    return found


def scaled(node: Node, value: Sequences, factor: float) -> Sequences:
    """Return values times a number; a factor of one, and one that takes another back, are none."""
    last = value.layers[-1] if value.layers else None
    if isinstance(last, Affine) and _is_scalar(last) and not (last.center or last.offset):
        together = float(last.scale) * factor
        if math.isclose(together, 1, rel_tol=1e-6):
            return replace(value, layers=value.layers[:-1])
    if math.isclose(factor, 1, rel_tol=1e-6):
        return value
    zero = np.zeros((), np.float32)
    layer = Affine(name=node.name, center=zero, scale=np.asarray(factor, np.float32), offset=zero)
    return value.through(layer)


def _sum(
    node: Node, origin: Sequences, plain: Sequence[Link], other: Sequence[Link]
) -> Sequences | None:
    match _steps(plain), _steps(other):
        case [], ["cube", (factor, 0.0)] if _near(factor, _GELU_CUBE):
            return origin.through(_part(node, "with its cube"))
        case ["relu"], [(-1.0, 0.0), "relu", "another layer"]:
            slopes = _factors(other[-1])
            if slopes is not None:
                return origin.through(PReLU(name=node.name, alpha=-slopes))
    return None


def _difference(
    node: Node, origin: Sequences, first: Sequence[Link], second: Sequence[Link]
) -> Sequences | None:
    match _steps(first), _steps(second):
        case [], ["mean"]:
            return origin.through(_part(node, "centered"))
    return None


def _quotient(
    node: Node, origin: Sequences, first: Sequence[Link], second: Sequence[Link]
) -> Sequences | None:
    match _steps(first), _steps(second):
        case [], ["abs", (1.0, 1.0)]:
            return origin.through(Activation(name=node.name, function="softsign"))
        case [], ["square", "mean", (1.0, epsilon), "sqrt"]:
            return _normalised(node, origin, epsilon)
    return None


def _normalised(node: Node, centered: Sequences, epsilon: float) -> Sequences | None:
    """Return the normalisation of what was there before its mean was taken from it."""
    last = centered.layers[-1] if centered.layers else None
    if not isinstance(last, Part) or last.function != "centered" or epsilon <= 0:
        return None
    layer = LayerNormalization(name=node.name, gamma=None, beta=None, epsilon=epsilon)
    return replace(centered, layers=centered.layers[:-1]).through(layer)


def _factors(layer: Link) -> npt.NDArray[np.float32] | None:
    """Return the numbers that a layer multiplies the features with, None where it does more."""
    if not isinstance(layer, Affine) or layer.center.any() or layer.offset.any():
        return None
    return layer.scale
