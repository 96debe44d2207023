"""PyTorch's LSTM operator in ONNX's words: how its weights and states lie."""

from __future__ import annotations

from collections.abc import Sequence

from lstm_core.errors import SpecError
from lstm_core.formats.torch_export_program import Call, Program

_MAX_LAYERS = 100
_GATES = [0, 3, 1, 2]
"""Of PyTorch's blocks i, f, g and o, in ONNX's order."""


def lstm(program: Program, call: Call) -> None:
    """Put an LSTM of several layers into one node each."""
    layers, has_biases = call.integer("num_layers"), call.integer("has_biases")
    directions = 2 if call.integer("bidirectional") else 1
    params, states = call.values("params"), call.values("hx")
    each = 4 if has_biases else 2
    if not 0 < layers <= _MAX_LAYERS or len(params) != layers * directions * each:
        problem = f"is an LSTM of {len(params)} arrays: one with a projection, which is not served"
        raise SpecError(call.name, problem + " from here; save its state_dict()")
    if call.integer("train") or len(states) != 2:
        raise SpecError(call.name, "was exported in training, or with other than two states")
    given = call.value("input")
    is_batch_first = bool(call.integer("batch_first"))
    if is_batch_first:
        given = program.permuted(f"{call.name}/time_first", given, [1, 0, 2])
    lasts: list[list[str]] = []
    for layer in range(layers):
        own = params[layer * directions * each : (layer + 1) * directions * each]
        name = f"{call.label}/{layer}" if layers > 1 else call.label
        initial = [
            _rows(program, f"{name}/initial_{which}", state, layer * directions, directions)
            for which, state in zip("hc", states, strict=True)
        ]
        gates = _stacked(program, name, own, directions)
        outputs = [f"{name}/{what}" for what in ("y", "h", "c")]
        direction = "bidirectional" if directions == 2 else "forward"
        program.add(name, "LSTM", [given, *gates, "", *initial], outputs, {"direction": direction})
        lasts.append(outputs[1:])
        turned = program.permuted(f"{name}/turned", outputs[0], [0, 2, 1, 3])
        shape = program.store(f"{name}/shape", [0, 0, -1])
        given = program.add(f"{name}/joined", "Reshape", [turned, shape])
    if is_batch_first:
        given = program.permuted(f"{call.name}/batch_first", given, [1, 0, 2])
    program.add(f"{call.name}/whole", "Identity", [given], call.outputs[:1])
    for output, parts in zip(call.outputs[1:], zip(*lasts, strict=True), strict=False):
        stack = ("Concat", {"axis": 0}) if layers > 1 else ("Identity", {})
        program.add(f"{output}/stack", stack[0], parts, [output], stack[1])


def _stacked(program: Program, name: str, params: Sequence[str], directions: int) -> list[str]:
    """Return W, R and B of an LSTM whose arrays lie as PyTorch has them."""
    each = len(params) // directions
    joined = []
    for what, places in (("W", (0,)), ("R", (1,)), ("B", (2, 3))):
        if places[0] >= each:
            joined.append("")
            continue
        parts = []
        for direction in range(directions):
            halves = [_reordered(program, params[direction * each + place]) for place in places]
            own = f"{name}/{what}{direction}"
            joined_halves = (
                halves[0]
                if len(halves) == 1
                else program.add(own, "Concat", halves, attributes={"axis": 0})
            )
            axis = program.store(f"{own}/axis", [0])
            parts.append(program.add(f"{own}/one", "Unsqueeze", [joined_halves, axis]))
        joined.append(program.add(f"{name}/{what}", "Concat", parts, attributes={"axis": 0}))
    return joined


def _reordered(program: Program, array: str) -> str:
    """Return the name of an array whose four blocks of rows are in ONNX's order."""
    blocks = [f"{array}/gate{index}" for index in range(4)]
    program.add(f"{array}/gates", "Split", [array], blocks, {"axis": 0})
    in_order = [blocks[index] for index in _GATES]
    return program.add(f"{array}/ordered", "Concat", in_order, attributes={"axis": 0})


def _rows(program: Program, name: str, state: str, first: int, count: int) -> str:
    ends = [
        program.store(f"{name}/{what}", [value])
        for what, value in (("start", first), ("end", first + count), ("axis", 0))
    ]
    return program.add(name, "Slice", [state, *ends])
