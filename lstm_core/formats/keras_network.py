"""From a Keras model's config and a place for each layer's variables to a network.

Owns the walk along the graph and its problems. Does not know what kind of file the two came from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lstm_core.errors import FormatError, SpecError
from lstm_core.formats.keras_config import LayerConfig, check_precision
from lstm_core.formats.keras_graph import Call, Graph, read_graph
from lstm_core.formats.keras_older import is_older, modernised
from lstm_core.formats.keras_operations import is_joining, read_joining
from lstm_core.formats.keras_pointwise import READERS, Position, nothing
from lstm_core.formats.keras_recurrent import RECURRENT_KINDS, read_bidirectional, read_recurrent
from lstm_core.formats.variables import Variables
from lstm_core.network import Bidirectional, Layer, Network, Recurrent, is_masked_behind
from lstm_core.pointwise import LastStep
from lstm_core.wiring import Wiring

Place = Callable[[LayerConfig], Variables]
"""Where a layer's variables are. Raises SpecError where the file tells no place."""

_UNKNOWN = Position(features=None, has_time=None)


def build_network(path: str, model: Mapping[str, Any], version: str, place: Place) -> Network:
    """Read a model, Sequential or functional.

    Args:
        path: The file, for messages.
        model: The model's config, as `model.to_json()` has it.
        version: Of the Keras that wrote it.
        place: Where each layer's variables are.

    Returns:
        The network, its weights float32.

    Raises:
        FormatError: The model holds something that cannot be served; then `problems` names every
            such layer and why.
    """
    writer = f"Keras {version}"
    try:
        is_modern = not is_older(version) and "module" in model
        graph = read_graph(model if is_modern else modernised(model, version))
        reading = _Reading(graph, place)
    except RecursionError as error:
        raise FormatError(path, ["its config is nested too deeply"], writer) from error
    except SpecError as error:
        raise FormatError(path, [str(error)], writer) from error
    if reading.problems:
        raise FormatError(path, reading.problems, writer)
    wiring = reading.wiring()
    input_size = sum(size for _, size in wiring.inputs)
    try:
        return Network(
            graph.name, input_size, tuple(reading.layers), written_by=writer, wiring=wiring
        )
    except SpecError as error:
        raise FormatError(path, [str(error)], writer) from error


class _Reading:
    """The layers of a graph that can be read, and a sentence for each that cannot.

    Attributes:
        layers: The layers.
        problems: The sentences.
    """

    def __init__(self, graph: Graph, place: Place) -> None:
        self._graph = graph
        self._place = place
        self._takes: list[tuple[int, ...]] = []
        self.layers: list[Layer] = []
        self.problems = list(graph.problems)
        # Of each value of the graph: what is known of it, and its number in the network.
        self._positions: list[Position] = []
        self._numbers = list(range(len(graph.inputs)))
        for layer in graph.inputs:
            self._read_input(layer)
        for call in graph.calls:
            self._read(call)
        if not graph.is_whole and not self.problems:
            self.problems.append(f"{graph.name}: it cannot be told what its layers take")

    def wiring(self) -> Wiring:
        """Return what each layer takes, the ends under the names that Keras gives them."""
        sizes = [position.features or 0 for position in self._positions]
        return Wiring(
            inputs=tuple(
                (layer.name, size) for layer, size in zip(self._graph.inputs, sizes, strict=False)
            ),
            takes=tuple(self._takes),
            outputs=tuple((name, self._numbers[value]) for name, value in self._graph.outputs),
        )

    def _read_input(self, layer: LayerConfig) -> None:
        position = _UNKNOWN
        if self._graph.is_whole:
            try:
                users = _users(self._graph, len(self._positions))
                position = _input_position(layer, users)
            except SpecError as error:
                self.problems.append(str(error))
        self._positions.append(position)

    def _read(self, call: Call) -> None:
        positions = [self._positions[value] for value in call.takes]
        is_known = self._graph.is_whole
        try:
            if call.layer.problem is None and is_joining(call.layer.kind):
                layers: Sequence[Layer] = read_joining(call, positions) if is_known else ()
            else:
                position = positions[0] if is_known else _UNKNOWN
                layers = _read_layer(call.layer, self._place, position)
            behind = _behind(layers, positions) if is_known else _UNKNOWN
        except SpecError as error:
            self.problems.append(str(error))
            # One problem a layer: what follows from it is not reported again.
            is_masked = any(position.is_masked for position in positions)
            behind, layers = replace(_UNKNOWN, is_masked=is_masked), ()
        self._positions.append(behind)
        takes = tuple(self._numbers[value] for value in call.takes)
        for layer in layers:
            self.layers.append(layer)
            self._takes.append(takes)
            takes = (len(self._graph.inputs) + len(self.layers) - 1,)
        self._numbers.append(takes[0] if takes else 0)


def _users(graph: Graph, number: int) -> set[str]:
    """Return the kinds of the layers that take an input, and `output` where it is given on."""
    same = {number}
    users = set()
    for value, call in enumerate(graph.calls, len(graph.inputs)):
        if same.intersection(call.takes):
            if READERS.get(call.layer.kind) is nothing:
                same.add(value)
            else:
                users.add(call.layer.kind)
    if any(value in same for _, value in graph.outputs):
        users.add("output")
    return users


def _input_position(layer: LayerConfig, users: set[str]) -> Position:
    """Return what an input of a model takes.

    Args:
        layer: The input layer.
        users: Of `_users`.

    Raises:
        SpecError: It is not `(batch, time, features)` of real numbers, nor `(batch, time)` before
            embeddings.
    """
    given = layer.config.get("batch_shape")
    shape = given if isinstance(given, list) else []
    has_embedding = "Embedding" in users
    if layer.config.get("sparse") is True or layer.config.get("ragged") is True:
        raise SpecError(layer.name, "is sparse or ragged; only dense inputs are served")
    is_unused = not users and shape[-1:] == [None]
    if len(shape) == 2 and (users == {"Embedding"} or is_unused):
        return Position(features=1)
    if len(shape) != 3 or has_embedding:
        served = "(batch, time, features), or (batch, time) before an Embedding"
        raise SpecError(layer.name, f"has shape {given!r:.80}; served is {served}")
    if "float" not in str(layer.config.get("dtype")):
        raise SpecError(layer.name, f"takes {layer.config.get('dtype')!r:.80}, not real numbers")
    return Position(features=replace(layer, config={"features": shape[2]}).integer("features"))


def _read_layer(config: LayerConfig, place: Place, position: Position) -> Sequence[Layer]:
    if config.problem is not None:
        raise SpecError(config.name, config.problem)
    if config.kind in RECURRENT_KINDS:
        check_precision(config)
        return read_recurrent(config, place(config), position)
    if config.kind == "Bidirectional":
        check_precision(config)
        return read_bidirectional(config, place(config), position)
    reader = READERS.get(config.kind)
    if reader is None:
        raise SpecError(config.name, _why_unknown(config.kind))
    check_precision(config)
    if position.is_masked and config.config.get("drops_mask") is True:
        problem = f"is a {config.kind} of Keras 2, which drops the mask that comes to it"
        raise SpecError(config.name, f"{problem}; put it before what makes the mask")
    return reader(config, place(config), position)


def _why_unknown(kind: str) -> str:
    if kind == "Lambda":
        return "is a Lambda: Python code, which is never run from a file"
    if kind == "lstm_core>CudnnLSTM":
        return (
            "takes time before batch and gives its states on beside its output: save its layers as"
            " lstm_core.LSTM, with the weights that lstm_weights() returns"
        )
    if kind.startswith("keras.src.ops."):
        return f"is the operation {kind.rsplit('.', 1)[1]}, which is no layer"
    if ">" in kind or ("." in kind and not kind.startswith("keras.")):
        return f"is a {kind}, a custom layer, whose code is not in the file"
    return f"is a {kind}; served are LSTMs and layers that treat each time step on its own"


def _behind(layers: Sequence[Layer], positions: Sequence[Position]) -> Position:
    """Return what is known behind a call's layers.

    Args:
        layers: The first takes all that the call does, each other one what the one before it gives.
        positions: What is known of what the call takes.

    Raises:
        SpecError: They do not fit what is before them.
    """
    position = positions[0]
    for layer in layers:
        sizes = [each.features for each in positions]
        known = [size for size in sizes if size is not None]
        features = layer.output_size(*known) if len(known) == len(sizes) else None
        is_masked = is_masked_behind(layer, [each.is_masked for each in positions])
        position = replace(positions[0], features=features, is_masked=is_masked)
        if isinstance(layer, LastStep) or (
            isinstance(layer, Recurrent | Bidirectional) and not layer.return_sequences
        ):
            position = replace(position, has_time=False)
        positions = [position]
    return position
