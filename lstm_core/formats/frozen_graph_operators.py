"""TensorFlow's operators in ONNX's words, where those are others.

Owns what they take and their attributes, with TensorFlow's defaults.
"""

from __future__ import annotations

from lstm_core.errors import SpecError
from lstm_core.formats.frozen_graph_nodes import TfNode
from lstm_core.formats.frozen_graph_translation import TYPES, Operators, Translation

_END = (1 << 63) - 1


def _matrix_product(made: Translation, node: TfNode) -> str:
    if node.number("transpose_a", 5):
        raise SpecError(node.name, "multiplies what is turned round")
    given = [made.value(node, index) for index in (0, 1)]
    if node.number("transpose_b", 5):
        return made.node(node, "Gemm", given, transB=1)
    return made.node(node, "MatMul", given)


def _transpose(made: Translation, node: TfNode) -> str:
    return made.node(node, "Transpose", [made.value(node, index) for index in (0, 1)])


def _joined(made: Translation, node: TfNode) -> str:
    *parts, axis = range(len(node.inputs))
    (along,) = made.integers(node, axis) or [0]
    return made.node(node, "Concat", [made.value(node, index) for index in parts], axis=along)


def _stacked(made: Translation, node: TfNode) -> str:
    axis = made.store(f"{node.name}/axis", [node.number("axis")])
    parts = [
        made.node(node, "Unsqueeze", [made.value(node, index), axis], f"/{index}")
        for index in range(len(node.inputs))
    ]
    return made.node(node, "Concat", parts, axis=node.number("axis"))


def _chosen(made: Translation, node: TfNode) -> str:
    axis = made.integers(node, 2) if len(node.inputs) > 2 else [0]
    given = [made.value(node, index) for index in (0, 1)]
    if node.number("batch_dims"):
        raise SpecError(node.name, "chooses something else for each sequence (batch_dims)")
    return made.node(node, "Gather", given, axis=(axis or [0])[0])


def _cut(made: Translation, node: TfNode) -> str:
    """Put a StridedSlice into Slice and Squeeze."""
    if node.number("ellipsis_mask") or node.number("new_axis_mask"):
        raise SpecError(node.name, "is a StridedSlice with an ellipsis or a new axis")
    begins, ends, strides = (made.integers(node, index) for index in (1, 2, 3))
    rows: list[tuple[int, int, int, int]] = []
    gone = []
    for axis, (begin, end, stride) in enumerate(zip(begins, ends, strides, strict=True)):
        bit = 1 << axis
        if node.number("shrink_axis_mask") & bit:
            gone.append(axis)
            rows.append((begin, begin + 1 or _END, axis, 1))
            continue
        first = (0 if stride > 0 else _END) if node.number("begin_mask") & bit else begin
        last = (_END if stride > 0 else -_END) if node.number("end_mask") & bit else end
        rows.append((first, last, axis, stride))
    columns = [
        made.store(f"{node.name}/{what}", [row[at] for row in rows])
        for at, what in enumerate(("starts", "ends", "axes", "steps"))
    ]
    given = [made.value(node, 0), *columns]
    if not gone:
        return made.node(node, "Slice", given)
    cut = made.node(node, "Slice", given, "/cut")
    return made.node(node, "Squeeze", [cut, made.store(f"{node.name}/gone", gone)])


def _squeezed(made: Translation, node: TfNode) -> str:
    axes = node.numbers("squeeze_dims")
    stored = [made.store(f"{node.name}/axes", axes)] if axes else []
    return made.node(node, "Squeeze", [made.value(node, 0), *stored])


def _unsqueezed(made: Translation, node: TfNode) -> str:
    axes = made.store(f"{node.name}/axes", made.integers(node, 1))
    return made.node(node, "Unsqueeze", [made.value(node, 0), axes])


def _multiplied(made: Translation, node: TfNode) -> str:
    axes = made.store(f"{node.name}/axes", made.integers(node, 1))
    keeps = node.number("keep_dims", 5)
    return made.node(node, "ReduceProd", [made.value(node, 0), axes], keepdims=keeps)


def _filled(made: Translation, node: TfNode) -> str:
    return made.node(node, "Expand", [made.value(node, 1), made.value(node, 0)])


def _cast(made: Translation, node: TfNode) -> str:
    to = TYPES.get(node.number("DstT", 6), 0)
    return made.node(node, "Cast", [made.value(node, 0)], to=to)


def _array_size(made: Translation, node: TfNode) -> str:
    array = made.maker(node, 0)
    if array.operator != "TensorArrayV3":
        raise SpecError(node.name, f"is the size of a {array.operator}")
    return made.value(array, 0)


def _biased(made: Translation, node: TfNode) -> str:
    if node.text("data_format") not in {"", "NHWC"}:
        raise SpecError(node.name, "adds along another axis than the last (data_format)")
    return made.node(node, "Add", [made.value(node, index) for index in (0, 1)])


def _leaky(made: Translation, node: TfNode) -> str:
    return made.node(node, "LeakyRelu", [made.value(node, 0)], alpha=node.real("alpha", 0.2))


def _limited(made: Translation, node: TfNode) -> str:
    return made.node(node, "Clip", [made.value(node, 0)], min=0.0, max=6.0)


def _squared(made: Translation, node: TfNode) -> str:
    return made.node(node, "Mul", [made.value(node, 0)] * 2)


OPERATORS: Operators = {
    "BiasAdd": _biased,
    "Cast": _cast,
    "ConcatV2": _joined,
    "ExpandDims": _unsqueezed,
    "Fill": _filled,
    "GatherV2": _chosen,
    "LeakyRelu": _leaky,
    "MatMul": _matrix_product,
    "Pack": _stacked,
    "Prod": _multiplied,
    "Relu6": _limited,
    "Square": _squared,
    "Squeeze": _squeezed,
    "StridedSlice": _cut,
    "TensorArraySizeV3": _array_size,
    "Transpose": _transpose,
}
"""What becomes of each."""
