"""The loops of a frozen graph: what one takes, how often it runs, and its cells from below.

Owns the operators of TensorFlow's loops. Does not know what a cell computes.

References:
    TensorFlow 1.15, `rnn.py` (`_dynamic_rnn_loop`), `control_flow_ops.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from lstm_core.errors import SpecError
from lstm_core.formats.frozen_graph_cells import Cell, CellMatcher, next_step
from lstm_core.formats.frozen_graph_nodes import TfGraph, TfNode

MAX_CELLS = 100
"""Of one loop."""
_MAX_CONDITIONS = 8
"""Of a loop, all of which must hold for it to go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """What a loop computes.

    Attributes:
        source: What it takes, time first.
        steps: Values that must be the number of its time steps, or the places of all, in order.
        cells: From input to output.
    """

    source: str
    steps: tuple[str, ...]
    cells: tuple[Cell, ...]


def loop_of(graph: TfGraph, value: str) -> Loop:
    """Return the loop that gives a value on.

    Args:
        graph: The graph.
        value: A `TensorArrayGatherV3` of all its steps, or an `Exit` of a state.

    Raises:
        SpecError: It runs something else than cells that are known, or not once for each step.
    """
    node = graph.node(value)
    steps = []
    exit_ = value
    if node.operator == "TensorArrayGatherV3":
        exit_ = graph.source(node.input(2))
        steps.append(node.input(1))
    condition, given = _each_step(graph, exit_)
    steps += _limits(graph, condition)
    if node.operator == "TensorArrayGatherV3":
        written = graph.node(given)
        if written.operator != "TensorArrayWriteV3":
            raise SpecError(node.name, "gathers what no loop writes")
        _check_place(graph, written)
        given = written.input(2)
    cells: list[Cell] = []
    while graph.node(given).operator != "TensorArrayReadV3":
        cells.insert(0, CellMatcher(graph, node).cell(graph.source(given)))
        given = cells[0].takes
        if len(cells) > MAX_CELLS:
            raise SpecError(node.name, f"runs more than {MAX_CELLS} cells")
    read = graph.node(given)
    _check_place(graph, read)
    scattered = graph.node(graph.node(read.input(2)).input(0))
    if scattered.operator != "TensorArrayScatterV3":
        raise SpecError(node.name, "reads what it takes from something else than a sequence")
    steps.append(scattered.input(1))
    return Loop(source=scattered.input(2), steps=tuple(steps), cells=tuple(cells))


def _each_step(graph: TfGraph, exit_: str) -> tuple[TfNode, str]:
    """Return a loop's condition, and what it computes in each step of what it gives in the end."""
    node = graph.node(exit_)
    if node.operator != "Exit":
        raise SpecError(node.name, f"is a {node.operator}, where a loop would end")
    switch = graph.node(node.input(0))
    if switch.operator != "Switch":
        raise SpecError(switch.name, f"is a {switch.operator}, where a loop would end")
    return graph.node(switch.input(1)), next_step(graph, graph.node(switch.input(0)))


def _limits(graph: TfGraph, condition: TfNode) -> list[str]:
    """Return the numbers of steps at which a loop ends."""
    if condition.operator != "LoopCond":
        raise SpecError(condition.name, f"is a {condition.operator}, where a loop would go on")
    waiting = [graph.node(condition.input(0))]
    limits: list[str] = []
    num_seen = 0
    while waiting:
        node = waiting.pop()
        num_seen += 1
        if node.operator == "LogicalAnd" and num_seen < _MAX_CONDITIONS:
            waiting += [graph.node(each) for each in node.inputs[:2]]
            continue
        limit = graph.node(node.input(1)) if node.operator == "Less" else node
        if limit.operator != "Enter":
            raise SpecError(node.name, f"ends a loop by a {limit.operator}, not after its steps")
        _check_counter(graph, graph.node(node.input(0)))
        limits.append(limit.input(0))
    return limits


def _check_place(graph: TfGraph, node: TfNode) -> None:
    """Refuse a node that reads or writes in a step something else than that step's."""
    place = graph.source(node.input(1))
    switch = graph.node(place)
    if switch.operator != "Switch" or place.partition(":")[2] != "1":
        raise SpecError(node.name, "is of another step than the one that the loop is at")
    _check_counter(graph, graph.node(switch.input(0)))


def _check_counter(graph: TfGraph, merge: TfNode) -> None:
    """Refuse what does not count the steps from 0 on, one by one."""
    first = graph.node(merge.input(0))
    added = graph.node(next_step(graph, merge))
    if first.operator == "Enter" and added.operator in {"Add", "AddV2"}:
        before = graph.source(added.input(0))
        switch = graph.node(before)
        counts = switch.operator == "Switch" and graph.node(switch.input(0)) is merge
        is_next = counts and before.partition(":")[2] == "1"
        if is_next and _number(graph, first.input(0)) == 0 and _number(graph, added.input(1)) == 1:
            return
    raise SpecError(merge.name, "counts the steps of a loop in another way than from 0 on")


def _number(graph: TfGraph, reference: str) -> float | None:
    """Return a constant that is one number, else None."""
    node = graph.node(reference)
    if node.operator != "Const" or graph.stored(node).shape:
        return None
    return float(graph.loaded(node))
