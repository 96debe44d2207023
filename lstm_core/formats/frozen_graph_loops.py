"""The loops of a frozen graph: what one takes, and the cells that it runs, one over the other.

Owns the operators of TensorFlow's loops. Does not know what a cell computes.

References:
    TensorFlow 1.15, `rnn.py` (`_dynamic_rnn_loop`), `control_flow_ops.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from lstm_core.errors import SpecError
from lstm_core.formats.frozen_graph_cells import Cell, CellMatcher, next_step
from lstm_core.formats.frozen_graph_nodes import TfGraph

MAX_CELLS = 100
"""Of one loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """What a loop computes.

    Attributes:
        source: What it takes, time first.
        cells: From input to output.
    """

    source: str
    cells: tuple[Cell, ...]


def loop_of(graph: TfGraph, value: str) -> Loop:
    """Return the loop that gives a value on.

    Args:
        graph: The graph.
        value: A `TensorArrayGatherV3` of all its steps, or an `Exit` of a state.

    Raises:
        SpecError: It runs something else than cells that are known.
    """
    node = graph.node(value)
    if node.operator == "TensorArrayGatherV3":
        written = graph.node(_each_step(graph, node.input(2)))
        if written.operator != "TensorArrayWriteV3":
            raise SpecError(node.name, "gathers what no loop writes")
        given = written.input(2)
    else:
        given = _each_step(graph, value)
    cells: list[Cell] = []
    while graph.node(given).operator != "TensorArrayReadV3":
        cells.insert(0, CellMatcher(graph, node).cell(graph.source(given)))
        given = cells[0].takes
        if len(cells) > MAX_CELLS:
            raise SpecError(node.name, f"runs more than {MAX_CELLS} cells")
    scattered = graph.node(graph.node(graph.node(given).input(2)).input(0))
    if scattered.operator != "TensorArrayScatterV3":
        raise SpecError(node.name, "reads what it takes from something else than a sequence")
    return Loop(source=scattered.input(2), cells=tuple(cells))


def _each_step(graph: TfGraph, exit_: str) -> str:
    """Return what a loop computes in each step of what it gives in the end."""
    node = graph.node(exit_)
    for operator in ("Exit", "Switch"):
        if node.operator != operator:
            raise SpecError(node.name, f"is a {node.operator}, where a loop would end")
        node = graph.node(node.input(0))
    return next_step(graph, node)
