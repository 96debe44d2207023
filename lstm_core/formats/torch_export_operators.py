"""PyTorch's operators in ONNX's words.

Owns their arguments' names and defaults.

References:
    PyTorch, aten/src/ATen/native/native_functions.yaml.
"""

from __future__ import annotations

import numpy as np

from lstm_core.errors import SpecError
from lstm_core.formats.onnx_model import Array
from lstm_core.formats.torch_export_lstm import lstm
from lstm_core.formats.torch_export_program import TYPES, Call, Program, Reference, Translate

_END = (1 << 63) - 1


def _linear(program: Program, call: Call) -> None:
    turned = program.permuted(f"{call.name}/turned", call.value("weight"), [1, 0])
    bias = call.optional("bias")
    product = f"{call.name}/product" if bias else call.name
    program.add(product, "MatMul", [call.value("input"), turned])
    if bias:
        program.add(call.name, "Add", [product, bias])


def _embedding(program: Program, call: Call) -> None:
    given = [call.value("weight"), call.value("indices")]
    program.add(call.name, "Gather", given, attributes={"axis": 0})


def _layer_norm(program: Program, call: Call) -> None:
    shape = call.sizes("normalized_shape")
    given = [call.value("input"), call.optional("weight"), call.optional("bias")]
    attributes = {"axis": -len(shape), "epsilon": float(call.number("eps", 1e-5))}
    program.add(call.name, "LayerNormalization", given, attributes=attributes)


def _batch_norm(program: Program, call: Call) -> None:
    if call.integer("training", 0):
        raise SpecError(call.name, "was exported in training")
    names = ("input", "weight", "bias", "running_mean", "running_var")
    attributes = {"epsilon": float(call.number("eps", 1e-5))}
    given = [call.value(name) for name in names]
    program.add(call.name, "BatchNormalization", given, attributes=attributes)


def _same(program: Program, call: Call) -> None:
    """Put what does nothing at inference into Identity."""
    if call.arguments.get("train"):
        raise SpecError(call.name, "was exported in training")
    program.add(call.name, "Identity", [call.first()])


def _cast(program: Program, call: Call) -> None:
    if call.arguments.get("dtype") is None:
        _same(program, call)
        return
    attributes = {"to": TYPES.get(call.integer("dtype"), 0)}
    program.add(call.name, "Cast", [call.value("self")], attributes=attributes)


def _function(operator: str, **attributes: float) -> Translate:
    """Return what puts a function of one value into an operator.

    Args:
        operator: ONNX's.
        **attributes: The default of each of PyTorch's arguments that ONNX has, by `OURS__THEIRS`.
    """

    def translate(program: Program, call: Call) -> None:
        given = {}
        for names, default in attributes.items():
            ours, _, theirs = names.partition("__")
            given[ours] = float(call.number(theirs, default) if theirs else default)
        program.add(call.name, operator, [call.value("self")], attributes=given)

    return translate


def _gelu(program: Program, call: Call) -> None:
    approximate = str(call.arguments.get("approximate") or "none")
    attributes = {"approximate": approximate}
    program.add(call.name, "Gelu", [call.value("self")], attributes=attributes)


def _elu(program: Program, call: Call) -> None:
    scales = [call.number(name, 1) for name in ("scale", "input_scale")]
    if scales != [1, 1]:
        raise SpecError(call.name, f"is an ELU with the scales {scales}, which is not served")
    attributes = {"alpha": float(call.number("alpha", 1))}
    program.add(call.name, "Elu", [call.value("self")], attributes=attributes)


def _softplus(program: Program, call: Call) -> None:
    beta = _constant(program, f"{call.name}/beta", call.number("beta", 1))
    scaled = program.add(f"{call.name}/scaled", "Mul", [call.value("self"), beta])
    inner = program.add(f"{call.name}/inner", "Softplus", [scaled])
    program.add(call.name, "Div", [inner, beta])


def _mish(program: Program, call: Call) -> None:
    value = call.value("self")
    inner = program.add(f"{call.name}/softplus", "Softplus", [value])
    gate = program.add(f"{call.name}/tanh", "Tanh", [inner])
    program.add(call.name, "Mul", [value, gate])


def _log_sigmoid(program: Program, call: Call) -> None:
    inner = program.add(f"{call.name}/sigmoid", "Sigmoid", [call.value("self")])
    program.add(call.name, "Log", [inner])


def _softmax(operator: str) -> Translate:
    def translate(program: Program, call: Call) -> None:
        attributes = {"axis": call.integer("dim")}
        program.add(call.name, operator, [call.value("self")], attributes=attributes)

    return translate


def _clamp(lowest: str, highest: str) -> Translate:
    def translate(program: Program, call: Call) -> None:
        limits = [
            ""
            if call.arguments.get(name) is None
            else _constant(program, f"{call.name}/{name}", call.number(name))
            for name in (lowest, highest)
        ]
        program.add(call.name, "Clip", [call.value("self"), *limits])

    return translate


def _hardtanh(program: Program, call: Call) -> None:
    limits = [
        _constant(program, f"{call.name}/{name}", call.number(name, default))
        for name, default in (("min_val", -1), ("max_val", 1))
    ]
    program.add(call.name, "Clip", [call.value("self"), *limits])


def _prelu(program: Program, call: Call) -> None:
    value, slopes = call.value("self"), call.value("weight")
    # They belong to the second axis, which has the features behind the last step only.
    if (others := program.rank(value) - 2) > 0:
        axes = program.store(f"{call.name}/axes", list(range(1, 1 + others)))
        slopes = program.add(f"{call.name}/slopes", "Unsqueeze", [slopes, axes])
    program.add(call.name, "PRelu", [value, slopes])


def _arithmetic(operator: str) -> Translate:
    def translate(program: Program, call: Call) -> None:
        if call.number("alpha", 1) != 1 or call.arguments.get("rounding_mode") is not None:
            raise SpecError(call.name, "has an alpha or a rounding_mode, which is not served")
        other = call.arguments.get("other")
        if not isinstance(other, Reference):
            other = _constant(program, f"{call.name}/other", call.number("other"))
        program.add(call.name, operator, [call.value("self"), other])

    return translate


def _reversed_difference(program: Program, call: Call) -> None:
    if call.number("alpha", 1) != 1:
        raise SpecError(call.name, "has an alpha, which is not served")
    other = _constant(program, f"{call.name}/other", call.number("other"))
    program.add(call.name, "Sub", [other, call.value("self")])


def _power(program: Program, call: Call) -> None:
    exponent = _constant(program, f"{call.name}/exponent", call.number("exponent"))
    program.add(call.name, "Pow", [call.value("self"), exponent])


def _constant(program: Program, name: str, number: float) -> str:
    array: Array = np.array(number, np.float32)
    return program.store_array(name, (), lambda: array)


def _select(program: Program, call: Call) -> None:
    index = program.store(f"{call.name}/index", call.integer("index"))
    attributes = {"axis": call.integer("dim")}
    program.add(call.name, "Gather", [call.value("self"), index], attributes=attributes)


def _slice(program: Program, call: Call) -> None:
    defaults = (("start", 0), ("end", _END), ("dim", 0), ("step", 1))
    places = [
        program.store(f"{call.name}/{name}", [call.integer(name, default)])
        for name, default in defaults
    ]
    program.add(call.name, "Slice", [call.value("self"), *places])


def _axes(operator: str) -> Translate:
    def translate(program: Program, call: Call) -> None:
        given = [call.value("self")]
        if "dim" in call.arguments:
            axes = [each for each in call.sizes("dim") if not isinstance(each, Reference)]
            given.append(program.store(f"{call.name}/axes", axes))
        program.add(call.name, operator, given)

    return translate


def _permute(program: Program, call: Call) -> None:
    order = [each for each in call.sizes("dims") if not isinstance(each, Reference)]
    rank = program.rank(call.value("self"))
    program.permuted(call.name, call.value("self"), [axis % max(rank, 1) for axis in order])


def _transpose(program: Program, call: Call) -> None:
    rank = program.rank(call.value("self"))
    order = list(range(rank))
    first, second = call.integer("dim0"), call.integer("dim1")
    if not all(-rank <= axis < rank for axis in (first, second)):
        raise SpecError(call.name, f"has no axes {first} and {second} of {rank}")
    order[first], order[second] = order[second], order[first]
    program.permuted(call.name, call.value("self"), order)


def _reshape(argument: str) -> Translate:
    def translate(program: Program, call: Call) -> None:
        program.add(call.name, "Reshape", [call.value("self"), program.shape(call, argument)])

    return translate


def _cat(program: Program, call: Call) -> None:
    attributes = {"axis": call.integer("dim", 0)}
    program.add(call.name, "Concat", call.values("tensors"), attributes=attributes)


def _size(program: Program, call: Call) -> None:
    shape = program.add(f"{call.name}/shape", "Shape", [call.value("self")])
    index = program.store(f"{call.name}/dim", call.integer("dim"))
    program.add(call.name, "Gather", [shape, index])


def _zeros(program: Program, call: Call) -> None:
    program.add(call.name, "ConstantOfShape", [program.shape(call, "size")])


def _zeros_like(program: Program, call: Call) -> None:
    shape = program.add(f"{call.name}/shape", "Shape", [call.value("self")])
    program.add(call.name, "ConstantOfShape", [shape])


_ATEN: dict[str, Translate] = {
    "_to_copy.default": _cast, "abs.default": _function("Abs"), "add.Tensor": _arithmetic("Add"),
    "add_.Tensor": _arithmetic("Add"), "alias.default": _same, "batch_norm.default": _batch_norm,
    "cat.default": _cat, "celu.default": _function("Celu", alpha__alpha=1),
    "clamp.default": _clamp("min", "max"), "clamp_max.default": _clamp("", "max"),
    "clamp_min.default": _clamp("min", ""), "clone.default": _same, "contiguous.default": _same,
    "detach.default": _same, "detach_.default": _same, "div.Tensor": _arithmetic("Div"),
    "dropout.default": _same, "elu.default": _elu, "embedding.default": _embedding,
    "exp.default": _function("Exp"), "gelu.default": _gelu,
    "hardsigmoid.default": _function("HardSigmoid", alpha=1 / 6, beta=0.5),
    "hardswish.default": _function("HardSwish"), "hardtanh.default": _hardtanh,
    "layer_norm.default": _layer_norm,
    "leaky_relu.default": _function("LeakyRelu", alpha__negative_slope=0.01),
    "linear.default": _linear, "log.default": _function("Log"),
    "log_sigmoid.default": _log_sigmoid, "log_softmax.int": _softmax("LogSoftmax"),
    "lstm.input": lstm, "maximum.default": _arithmetic("Max"),
    "minimum.default": _arithmetic("Min"), "mish.default": _mish, "mul.Tensor": _arithmetic("Mul"),
    "neg.default": _function("Neg"), "permute.default": _permute,
    "pow.Tensor_Scalar": _power, "prelu.default": _prelu, "relu.default": _function("Relu"),
    "relu_.default": _function("Relu"), "relu6.default": _function("Clip", min=0, max=6),
    "reshape.default": _reshape("shape"), "select.int": _select,
    "rsub.Scalar": _reversed_difference,
    "selu.default": _function("Selu"), "sigmoid.default": _function("Sigmoid"),
    "silu.default": _function("Swish"), "slice.Tensor": _slice,
    "softmax.int": _softmax("Softmax"), "softplus.default": _softplus,
    "squeeze.default": _axes("Squeeze"), "squeeze.dim": _axes("Squeeze"),
    "squeeze.dims": _axes("Squeeze"), "sub.Tensor": _arithmetic("Sub"), "sym_size.int": _size,
    "tanh.default": _function("Tanh"), "to.dtype": _cast, "to.dtype_layout": _cast,
    "transpose.int": _transpose, "unsqueeze.default": _axes("Unsqueeze"),
    "view.default": _reshape("size"), "zeros.default": _zeros, "zeros_like.default": _zeros_like,
}  # fmt: skip

OPERATORS: dict[str, Translate] = {
    f"torch.ops.aten.{name}": translate for name, translate in _ATEN.items()
}
"""What becomes of each."""
