"""ONNX's operators that treat each time step on its own: into pointwise layers.

Owns what their attributes mean, with ONNX's defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from lstm_core.errors import SpecError
from lstm_core.formats.onnx_axes import at
from lstm_core.formats.onnx_model import Node
from lstm_core.formats.onnx_values import Constant, Sequences, Value, joined
from lstm_core.pointwise import Activation, Affine, Dense, LayerNormalization, PReLU

Float32 = npt.NDArray[np.float32]
Values = Sequence[Value | None]
Reader = Callable[[Node, Values, int], Value]
"""Takes a node, its inputs, at least one of them `Sequences`, and the version of the operators."""

_ZERO, _ONE = np.float32(0), np.float32(1)
_TINY = np.finfo(np.float32).tiny
_SELU = (1.6732632, 1.0507010)
"""Alpha and gamma of ONNX's Selu, which are everybody's."""
_AXIS_OPSET = 13
"""From here on Softmax works along one axis; before, over all from an axis to the last."""


def sequences_of(node: Node, inputs: Values) -> Sequences:
    """Return the first input; SpecError where that is not what comes from the graph's input."""
    first = inputs[0] if inputs else None
    if not isinstance(first, Sequences):
        raise SpecError(node.name, "takes what comes from the input elsewhere than first")
    return first


def _stored(node: Node, inputs: Values, index: int) -> Float32 | None:
    """Return a stored input of real, finite numbers, or None where it is left out."""
    value = inputs[index] if len(inputs) > index else None
    if value is None:
        return None
    if not isinstance(value, np.ndarray):
        raise SpecError(
            node.name, f"is a {node.operator} of two values; only a chain can be served"
        )
    if value.dtype != np.float32 or not np.isfinite(value).all():
        raise SpecError(node.name, "has numbers that are not real and finite in float32")
    return value


def _vector(node: Node, value: Constant, features: int) -> Float32:
    """Return `()` or `(features,)` of numbers that are the same for each step of each sequence."""
    shape = value.shape
    if value.size == 1:
        return np.ascontiguousarray(value, np.float32).reshape(())
    if value.size != features or shape[-1] != features:
        raise SpecError(node.name, f"has numbers of the shape {shape} for {features} features")
    return np.ascontiguousarray(value, np.float32).reshape(-1)


def _function(function: str, **defaults: float) -> Reader:
    """Return the reader of an activation; the parameters are ONNX's attributes with its defaults.

    Args:
        function: Our name.
        **defaults: `OURS__THEIRS` of each parameter.
    """

    def read(node: Node, inputs: Values, _opset: int) -> Value:
        parameters = {}
        for names, default in defaults.items():
            ours, _, theirs = names.partition("__")
            parameters[ours] = node.attribute(theirs, default)
        layer = Activation(name=node.name, function=function, parameters=parameters)
        return sequences_of(node, inputs).through(layer)

    return read


def _hard_sigmoid(node: Node, inputs: Values, opset: int) -> Value:
    alpha, beta = node.attribute("alpha", 0.2), node.attribute("beta", 0.5)
    for function, slope in (("hard_sigmoid_v1", 0.2), ("hard_sigmoid", 1 / 6)):
        if np.allclose((alpha, beta), (slope, 0.5), rtol=1e-6, atol=0):
            return _function(function)(node, inputs, opset)
    raise SpecError(node.name, f"is a HardSigmoid of {alpha}, {beta}, which is not served")


def _selu(node: Node, inputs: Values, opset: int) -> Value:
    alpha, gamma = node.attribute("alpha", _SELU[0]), node.attribute("gamma", _SELU[1])
    if not np.allclose((alpha, gamma), _SELU, rtol=1e-6, atol=0):
        raise SpecError(node.name, f"is a Selu of {alpha}, {gamma}, which is not served")
    return _function("selu")(node, inputs, opset)


def _gelu(node: Node, inputs: Values, _opset: int) -> Value:
    is_approximate = node.attribute("approximate", "none") == "tanh"
    parameters = {"approximate": True} if is_approximate else {}
    layer = Activation(name=node.name, function="gelu", parameters=parameters)
    return sequences_of(node, inputs).through(layer)


def _softmax(function: str) -> Reader:
    def read(node: Node, inputs: Values, opset: int) -> Value:
        value = sequences_of(node, inputs)
        axis = node.attribute("axis", -1 if opset >= _AXIS_OPSET else 1)
        if at(value.axes, axis) != len(value.axes) - 1:
            raise SpecError(node.name, "works along another axis than the features")
        return value.through(Activation(name=node.name, function=function))

    return read


def _matmul(node: Node, inputs: Values, _opset: int) -> Value:
    value, kernel = sequences_of(node, inputs), _stored(node, inputs, 1)
    if kernel is None or kernel.ndim != 2:
        raise SpecError(node.name, "multiplies by something else than a matrix of weights")
    kernel = np.ascontiguousarray(kernel)
    return value.through(Dense(name=node.name, kernel=kernel, bias=None))


def _gemm(node: Node, inputs: Values, _opset: int) -> Value:
    value, kernel = sequences_of(node, inputs), _stored(node, inputs, 1)
    if kernel is None or kernel.ndim != 2 or node.attribute("transA", 0):
        raise SpecError(node.name, "multiplies by something else than a matrix of weights")
    if node.attribute("transB", 0):
        kernel = kernel.T
    kernel = _scaled(node, kernel, node.attribute("alpha", 1.0))
    added = _stored(node, inputs, 2)
    bias = None
    if added is not None:
        added = _vector(node, added, kernel.shape[1])
        bias = _scaled(node, np.broadcast_to(added, kernel.shape[1:]), node.attribute("beta", 1.0))
    return value.through(Dense(name=node.name, kernel=kernel, bias=bias))


def _scaled(node: Node, array: Float32, factor: float) -> Float32:
    with np.errstate(over="ignore"):
        product = np.ascontiguousarray(array * np.float32(factor))
    if not np.isfinite(product).all():
        raise SpecError(node.name, "has numbers that are not finite in float32")
    return product


def _arithmetic(node: Node, inputs: Values, _opset: int) -> Value:
    """Read Add, Sub, Mul or Div of sequences and a number for each feature."""
    both = [value for value in inputs if isinstance(value, Sequences)]
    modes = {"Add": "sum", "Mul": "mul"}
    if node.operator == "Mul" and (gated := _self_gated(node, both)) is not None:
        return gated
    if len(both) == 2 and node.operator in modes:
        in_order = sorted(both, key=lambda value: value.direction or 0)
        return joined(in_order, -1, modes[node.operator])
    is_first = bool(inputs) and isinstance(inputs[0], Sequences)
    stored = _stored(node, inputs, 1 if is_first else 0)
    value = both[0]
    if stored is None:
        raise SpecError(node.name, "lacks an input")
    if stored.ndim > len(value.axes):
        raise SpecError(node.name, f"has numbers of the shape {stored.shape}")
    vector = _vector(node, stored, value.features)
    if node.operator == "Add" and (merged := _with_bias(value, vector)) is not None:
        return merged
    if node.operator == "Div" and (not is_first or not (np.abs(vector) > _TINY).all()):
        raise SpecError(node.name, "divides by the sequences, or by zero")
    center, scale, offset = {
        "Add": (_ZERO, _ONE, vector),
        "Mul": (_ZERO, vector, _ZERO),
        "Sub": (vector, _ONE, _ZERO) if is_first else (_ZERO, -_ONE, vector),
        "Div": (_ZERO, 1 / vector if node.operator == "Div" else vector, _ZERO),
    }[node.operator]
    parts = [np.asarray(part, np.float32) for part in (center, scale, offset)]
    return value.through(Affine(name=node.name, center=parts[0], scale=parts[1], offset=parts[2]))


def _self_gated(node: Node, values: Sequence[Sequences]) -> Sequences | None:
    """Return `x * sigmoid(x)` as one function, or None where that is not what is multiplied."""
    if len(values) != 2:
        return None
    plain, gate = sorted(values, key=lambda value: len(value.layers))
    last = gate.layers[-1] if gate.layers else None
    if plain.layers != gate.layers[:-1] or not isinstance(last, Activation):
        return None
    function = {"sigmoid": "silu", "hard_sigmoid": "hard_silu"}.get(last.function)
    if function is None or plain.direction is not None:
        return None
    return plain.through(Activation(name=node.name, function=function))


def _with_bias(value: Sequences, vector: Float32) -> Sequences | None:
    """Return the sequences with a bias in the matrix product before it, if there is one."""
    last = value.layers[-1] if value.layers else None
    if not isinstance(last, Dense) or last.bias is not None or last.activation != "linear":
        return None
    bias = np.ascontiguousarray(np.broadcast_to(vector, last.kernel.shape[1:]))
    dense = Dense(name=last.name, kernel=last.kernel, bias=bias)
    return Sequences(axes=value.axes, layers=(*value.layers[:-1], dense))


def _prelu(node: Node, inputs: Values, _opset: int) -> Value:
    value, slopes = sequences_of(node, inputs), _stored(node, inputs, 1)
    if slopes is None:
        raise SpecError(node.name, "lacks its slopes")
    return value.through(PReLU(name=node.name, alpha=_vector(node, slopes, value.features)))


def _layer_normalization(node: Node, inputs: Values, _opset: int) -> Value:
    value = sequences_of(node, inputs)
    if at(value.axes, node.attribute("axis", -1)) != len(value.axes) - 1:
        raise SpecError(node.name, "works over other axes than the features")
    gamma, beta = (_stored(node, inputs, index) for index in (1, 2))
    for each in (gamma, beta):
        if each is not None and each.shape != (value.features,):
            raise SpecError(node.name, f"has numbers of the shape {each.shape}")
    epsilon = node.attribute("epsilon", 1e-5)
    return value.through(
        LayerNormalization(name=node.name, gamma=gamma, beta=beta, epsilon=epsilon)
    )


def _clip(node: Node, inputs: Values, _opset: int) -> Value:
    bounds = [_stored(node, inputs, index) for index in (1, 2)]
    if any(bound is not None and bound.size != 1 for bound in bounds):
        raise SpecError(node.name, "clips to more than two numbers")
    given = [None if bound is None else float(bound.reshape(())) for bound in bounds]
    lowest, highest = (
        node.attribute(name, 0.0) if name in node.attributes else value
        for name, value in zip(("min", "max"), given, strict=True)
    )
    if lowest != 0 or not (highest is None or highest > 0):
        raise SpecError(node.name, f"clips to {lowest} and {highest}; served is from 0 on")
    parameters = {} if highest is None else {"max_value": float(highest)}
    layer = Activation(name=node.name, function="relu", parameters=parameters)
    return sequences_of(node, inputs).through(layer)


POINTWISE: dict[str, Reader] = {
    "Add": _arithmetic,
    "Celu": _function("celu", alpha__alpha=1.0),
    "Clip": _clip,
    "Div": _arithmetic,
    "Elu": _function("elu", alpha__alpha=1.0),
    "Exp": _function("exponential"),
    "Gelu": _gelu,
    "Gemm": _gemm,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _function("hard_silu"),
    "LayerNormalization": _layer_normalization,
    "LeakyRelu": _function("leaky_relu", negative_slope__alpha=0.01),
    "LogSoftmax": _softmax("log_softmax"),
    "MatMul": _matmul,
    "Mish": _function("mish"),
    "Mul": _arithmetic,
    "PRelu": _prelu,
    "Relu": _function("relu"),
    "Selu": _selu,
    "Sigmoid": _function("sigmoid"),
    "Softmax": _softmax("softmax"),
    "Softplus": _function("softplus"),
    "Softsign": _function("softsign"),
    "Sub": _arithmetic,
    "Swish": _function("silu"),
    "Tanh": _function("tanh"),
}
"""The reader of each operator."""
