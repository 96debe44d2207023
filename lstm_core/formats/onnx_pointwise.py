"""ONNX's operators that treat each time step on its own: into pointwise layers.

Owns what their attributes mean, with ONNX's defaults.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lstm_core.errors import SpecError
from lstm_core.formats.onnx_arithmetic import (
    arithmetic,
    batch_normalization,
    clip,
    gemm,
    matrix_product,
    negative,
)
from lstm_core.formats.onnx_axes import at
from lstm_core.formats.onnx_constants import axes_of
from lstm_core.formats.onnx_formulas import logarithm, without_threshold
from lstm_core.formats.onnx_inputs import Values, sequences_of, stored, vector
from lstm_core.formats.onnx_model import Node
from lstm_core.formats.onnx_values import Part, Sequences, Value
from lstm_core.pointwise import Activation, LayerNormalization, PReLU

Reader = Callable[[Node, Values, int], Value]
"""Takes a node, its inputs, at least one of them `Sequences`, and the version of the operators."""

_SELU = (1.6732632, 1.0507010)
"""Alpha and gamma of ONNX's Selu, which are everybody's."""
_AXIS_OPSET = 13
"""From here on Softmax works along one axis; before, over all from an axis to the last."""


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


def _prelu(node: Node, inputs: Values, _opset: int) -> Value:
    value, slopes = sequences_of(node, inputs), stored(node, inputs, 1)
    if slopes is None:
        raise SpecError(node.name, "lacks its slopes")
    return value.through(PReLU(name=node.name, alpha=vector(node, slopes, value.features)))


def _layer_normalization(node: Node, inputs: Values, _opset: int) -> Value:
    value = sequences_of(node, inputs)
    if at(value.axes, node.attribute("axis", -1)) != len(value.axes) - 1:
        raise SpecError(node.name, "works over other axes than the features")
    gamma, beta = (stored(node, inputs, index) for index in (1, 2))
    for each in (gamma, beta):
        if each is not None and each.shape != (value.features,):
            raise SpecError(node.name, f"has numbers of the shape {each.shape}")
    epsilon = node.attribute("epsilon", 1e-5)
    return value.through(
        LayerNormalization(name=node.name, gamma=gamma, beta=beta, epsilon=epsilon)
    )


def _part(function: str) -> Reader:
    """Return the reader of what is only ever a part of a function."""

    def read(node: Node, inputs: Values, _opset: int) -> Value:
        part = Part(name=node.name, operator=node.operator, function=function)
        return sequences_of(node, inputs).through(part)

    return read


def _power(node: Node, inputs: Values, opset: int) -> Value:
    exponent = stored(node, inputs, 1)
    is_number = exponent is not None and exponent.size == 1
    number = float(exponent.reshape(())) if exponent is not None and is_number else 0.0
    function = {2.0: "square", 3.0: "cube", 0.5: "sqrt", -0.5: "reciprocal root"}.get(number)
    return _part(function or "power")(node, inputs, opset)


def _mean(node: Node, inputs: Values, opset: int) -> Value:
    """Read the mean over the features, which is a part of a normalisation."""
    value = sequences_of(node, inputs)
    last = len(value.axes) - 1
    if node.operator == "GlobalAveragePool":
        axes = list(range(2, last + 1))
    else:
        constants = [each if isinstance(each, np.ndarray) else None for each in inputs]
        axes = axes_of(node, constants) or []
    if [at(value.axes, axis) for axis in axes] != [last] or not node.attribute("keepdims", 1):
        raise SpecError(node.name, f"is a {node.operator} over other axes than the features")
    return _part("mean")(node, inputs, opset)


def _greater(node: Node, inputs: Values, opset: int) -> Value:
    limit = stored(node, inputs, 1)
    is_known = limit is not None and limit.size == 1 and float(limit.reshape(())) == 20
    return _part("above 20" if is_known else "comparison")(node, inputs, opset)


def _where(node: Node, inputs: Values, _opset: int) -> Value:
    values = [value for value in inputs if isinstance(value, Sequences)]
    found = without_threshold(*values) if len(values) == len(inputs) == 3 else None
    if found is None:
        raise SpecError(node.name, "chooses by the values themselves, which is not served")
    return found


POINTWISE: dict[str, Reader] = {
    "Abs": _part("abs"),
    "Add": arithmetic,
    "BatchNormalization": batch_normalization,
    "Celu": _function("celu", alpha__alpha=1.0),
    "Clip": clip,
    "Div": arithmetic,
    "Elu": _function("elu", alpha__alpha=1.0),
    "Erf": _part("erf"),
    "Exp": _function("exponential"),
    "Gelu": _gelu,
    "Gemm": gemm,
    "GlobalAveragePool": _mean,
    "Greater": _greater,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _function("hard_silu"),
    "LayerNormalization": _layer_normalization,
    "LeakyRelu": _function("leaky_relu", negative_slope__alpha=0.01),
    "Log": lambda node, inputs, _: logarithm(node, sequences_of(node, inputs)),
    "LogSoftmax": _softmax("log_softmax"),
    "MatMul": matrix_product,
    "Max": clip,
    "Min": clip,
    "Mish": _function("mish"),
    "Mul": arithmetic,
    "Neg": negative,
    "PRelu": _prelu,
    "Pow": _power,
    "Reciprocal": _part("reciprocal"),
    "ReduceMean": _mean,
    "Relu": _function("relu"),
    "Selu": _selu,
    "Sigmoid": _function("sigmoid"),
    "Softmax": _softmax("softmax"),
    "Softplus": _function("softplus"),
    "Softsign": _function("softsign"),
    "Sqrt": _part("sqrt"),
    "Sub": arithmetic,
    "Swish": _function("silu"),
    "Tanh": _function("tanh"),
    "Where": _where,
}
"""The reader of each operator."""
