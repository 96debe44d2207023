"""Reads the graph of a SavedModel that TensorFlow 1 wrote, with its variables.

Such a model is no Keras model: it is a graph, its variables, and signatures that name its inputs
and outputs. It is followed as a frozen graph is, from the one signature or `serving_default`.
"""

from __future__ import annotations

from pathlib import Path

from lstm_core.errors import FormatError, SpecError
from lstm_core.formats.frozen_graph_nodes import TfGraph, read_message
from lstm_core.formats.frozen_graph_operators import OPERATORS
from lstm_core.formats.frozen_graph_translation import Translation
from lstm_core.formats.onnx import network_of
from lstm_core.formats.protobuf import Message
from lstm_core.formats.tensorflow_bundle import Bundle
from lstm_core.network import Network

_SERVING = "serving_default"


def read_saved_graph(directory: Path, variables: Bundle) -> Network:
    """Read the graph of a SavedModel.

    Args:
        directory: The SavedModel.
        variables: Its variables.

    Raises:
        FormatError: It cannot be read, is damaged, or holds something that cannot be served; then
            `problems` names every such node and why.
    """
    path = directory / "saved_model.pb"
    try:
        graphs = read_message(path).messages(2)
        if len(graphs) != 1:
            problem = f"has {len(graphs)} graphs, of which one can be served; save one"
            raise FormatError(str(directory), [problem], "TensorFlow")
        definition = graphs[0].message(2)
        if definition is None:
            raise FormatError(str(directory), ["has no graph"], "TensorFlow")
        graph = TfGraph(definition, variables.stored)
        translation = Translation(graph, directory.name, OPERATORS)
        translated = translation.graph(_outputs(graphs[0]))
    except SpecError as error:
        raise FormatError(str(directory), [str(error)], "TensorFlow") from error
    except OSError as error:
        raise FormatError(str(path), [f"cannot be read: {error.strerror}"]) from error
    except ValueError as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(str(path), [f"is damaged: {error}"]) from error
    return network_of(str(directory), translated)


def _outputs(graph: Message) -> list[str]:
    """Return what the signature gives."""
    signatures = {
        each.text(1): [tensor.text(1) for given in each.messages(2) for tensor in _tensors(given)]
        for each in graph.messages(5)
    }
    found = {name: outputs for name, outputs in signatures.items() if outputs}
    name = next(iter(found)) if len(found) == 1 else _SERVING
    if name not in found:
        problem = f"are {sorted(found)!s:.200}; one, or {_SERVING}, can be served"
        raise SpecError("signatures", problem)
    return found[name]


def _tensors(signature: Message) -> list[Message]:
    return [tensor for each in signature.messages(2) for tensor in each.messages(2)]
