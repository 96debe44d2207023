"""Keras's recurrent layers: from their configs and variables to the layers of a network."""

from __future__ import annotations

from dataclasses import replace

from lstm_core.errors import SpecError
from lstm_core.formats.keras_cells import CELLS, CUDNN_LAYERS, OWN_LAYERS, read_cell
from lstm_core.formats.keras_config import (
    LayerConfig,
    check_precision,
    group_names,
)
from lstm_core.formats.keras_pointwise import Position
from lstm_core.formats.variables import Variables
from lstm_core.network import MERGE_MODES, Bidirectional, Recurrent

RECURRENT_KINDS = OWN_LAYERS | CUDNN_LAYERS | {"LSTM", "RNN"}


def read_recurrent(
    layer: LayerConfig, variables: Variables, position: Position
) -> tuple[Recurrent, ...]:
    """Read an LSTM, or an RNN over one or several LSTM cells: one LSTM for each.

    What only training or the call's own state decide (dropout, `stateful`, `unroll`) is ignored.

    Raises:
        SpecError: An argument or a variable cannot be served.
    """
    if layer.flag("time_major", default=False):
        problem = "time_major=True puts time before the batch; save it with time_major=False"
        raise SpecError(layer.name, problem)
    cells = _cells(layer, variables)
    go_backwards = layer.flag("go_backwards", default=False)
    if go_backwards and len(cells) > 1:
        raise SpecError(layer.name, "runs several cells backwards, which is not served")
    lstms: list[Recurrent] = []
    features = position.features
    for name, cell, place in cells:
        spec, weights = read_cell(cell, place, features)
        lstms.append(Recurrent(name=name, spec=spec, weights=weights, go_backwards=go_backwards))
        features = spec.output_size
    lstms[-1] = replace(
        lstms[-1],
        return_sequences=layer.flag("return_sequences", default=False),
        zero_output_for_mask=layer.flag("zero_output_for_mask", default=False),
    )
    return tuple(lstms)


def read_bidirectional(
    layer: LayerConfig, variables: Variables, position: Position
) -> tuple[Bidirectional, ...]:
    """Read a `Bidirectional` over two LSTMs.

    Raises:
        SpecError: An argument or a variable cannot be served.
    """
    merge_mode = layer.config.get("merge_mode")
    if merge_mode not in MERGE_MODES:
        problem = f"merge_mode is {merge_mode!r:.80}; served are {', '.join(MERGE_MODES)}"
        raise SpecError(layer.name, problem)
    forward = _direction(layer, "layer", variables.child("forward_layer"), position)
    backward = _direction(layer, "backward_layer", variables.child("backward_layer"), position)
    if forward.go_backwards == backward.go_backwards:
        raise SpecError(layer.name, "both its layers run in the same direction")
    if forward.return_sequences != backward.return_sequences:
        raise SpecError(layer.name, "only one of its layers returns sequences")
    return (
        Bidirectional(
            name=layer.name, forward=forward, backward=backward, merge_mode=str(merge_mode)
        ),
    )


def _direction(
    layer: LayerConfig, field: str, variables: Variables, position: Position
) -> Recurrent:
    inner = layer.part(field)
    if inner.kind not in RECURRENT_KINDS:
        raise SpecError(layer.name, f"wraps a {inner.kind}, not an LSTM")
    check_precision(inner)
    lstms = read_recurrent(inner, variables, position)
    if len(lstms) != 1:
        raise SpecError(layer.name, "wraps several cells, which is not served")
    # Keras sets it so whatever the wrapped layer's own argument says.
    zero_output_for_mask = lstms[0].return_sequences
    name = f"{layer.name}/{'backward' if field == 'backward_layer' else 'forward'}"
    return replace(lstms[0], name=name, zero_output_for_mask=zero_output_for_mask)


def _cells(layer: LayerConfig, variables: Variables) -> list[tuple[str, LayerConfig, Variables]]:
    """Return the name, the config and the place of each cell."""
    if layer.kind in OWN_LAYERS | CUDNN_LAYERS:
        return [(layer.name, layer, variables)]
    place = variables.child("cell")
    if layer.kind == "LSTM":
        return [(layer.name, layer, place)]
    cell = layer.part("cell")
    if cell.kind != "StackedRNNCells":
        return [(layer.name, _checked_cell(cell), place)]
    serialized = cell.config.get("cells")
    if not isinstance(serialized, list) or not serialized:
        raise SpecError(layer.name, "has no cells")
    cells = [_checked_cell(cell.part_of(each)) for each in serialized]
    groups = group_names([each.kind.rpartition(">")[2] for each in cells])
    return [
        (f"{layer.name}/{group}", each, place.child("cells").child(group, index))
        for index, (group, each) in enumerate(zip(groups, cells, strict=True))
    ]


def _checked_cell(cell: LayerConfig) -> LayerConfig:
    if cell.kind not in CELLS:
        raise SpecError(cell.name, f"its cell is a {cell.kind}, not an LSTMCell")
    check_precision(cell)
    return cell
