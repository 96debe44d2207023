"""Reads a frozen graph of TensorFlow 1 (`….pb` of `freeze_graph`) with cells of `rnn_cell`.

Its variables are constants, and its loops tell their cells; so it needs no file beside it. It is
put into ONNX's words, and followed as an ONNX graph is: from its placeholder to what nothing takes.
"""

from __future__ import annotations

import os
from pathlib import Path

from lstm_core.errors import FormatError, SpecError
from lstm_core.formats.frozen_graph_nodes import TfGraph, read_message
from lstm_core.formats.frozen_graph_operators import OPERATORS
from lstm_core.formats.frozen_graph_translation import Translation
from lstm_core.formats.onnx import network_of
from lstm_core.network import Network


def read_frozen_graph(path: str | os.PathLike[str]) -> Network:
    """Read a graph, from its placeholder to its output.

    Args:
        path: A file of a binary `GraphDef`. No code in it is run.

    Raises:
        FormatError: It cannot be read, is damaged, or holds something that cannot be served; then
            `problems` names every such node and why.
    """
    name = os.fspath(path)
    try:
        graph = TfGraph(read_message(Path(path)))
        translated = Translation(graph, Path(path).stem, OPERATORS).graph()
    except SpecError as error:
        raise FormatError(name, [str(error)], "TensorFlow") from error
    except (OSError, ValueError) as error:
        raise FormatError(name, [f"is a damaged graph of TensorFlow: {error}"]) from error
    return network_of(name, translated)
