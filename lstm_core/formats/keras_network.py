"""From a Keras model's config and a place for each layer's variables to a network.

Owns the walk along the chain and its problems. Does not know what kind of file the two came from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lstm_core.errors import FormatError, SpecError
from lstm_core.formats.keras_config import LayerConfig, check_precision
from lstm_core.formats.keras_graph import Chain, read_chain
from lstm_core.formats.keras_older import is_older, modernised
from lstm_core.formats.keras_pointwise import READERS, Position, nothing
from lstm_core.formats.keras_recurrent import RECURRENT_KINDS, read_bidirectional, read_recurrent
from lstm_core.formats.variables import Variables
from lstm_core.network import Bidirectional, Layer, Network, Recurrent
from lstm_core.pointwise import Embedding, Masking

Place = Callable[[LayerConfig], Variables]
"""Where a layer's variables are. Raises SpecError where the file tells no place."""

_UNKNOWN = Position(features=None, has_time=None)


def build_network(path: str, model: Mapping[str, Any], version: str, place: Place) -> Network:
    """Read a model: Sequential, or functional as long as it is a chain.

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
        chain = read_chain(model if is_modern else modernised(model, version))
        input_size, layers, problems = _read_layers(chain, place)
    except RecursionError as error:
        raise FormatError(path, ["its config is nested too deeply"], writer) from error
    if problems:
        raise FormatError(path, problems, writer)
    try:
        input_name, output_name = _endpoint_names(chain)
        return Network(
            chain.name,
            input_size,
            tuple(layers),
            input_name=input_name,
            output_name=output_name,
            written_by=writer,
        )
    except SpecError as error:
        raise FormatError(path, [str(error)], writer) from error


def _read_layers(chain: Chain, place: Place) -> tuple[int, list[Layer], list[str]]:
    """Return the input size, the layers that can be read, and a sentence for each that cannot."""
    problems = list(chain.problems)
    position = _UNKNOWN
    if chain.is_chain and not problems:
        try:
            position = _input_position(chain)
        except SpecError as error:
            problems.append(str(error))
    input_size = position.features or 0
    read: list[Layer] = []
    for config in chain.layers:
        try:
            layers = _read_layer(config, place, position)
            if chain.is_chain:
                position = _behind(layers, position)
            read += layers
        except SpecError as error:
            problems.append(str(error))
            # One problem a layer: what follows from it is not reported again.
            position = replace(_UNKNOWN, is_masked=position.is_masked)
    if not chain.is_chain and not problems:
        problems.append(f"{chain.name}: its layers are not a chain")
    return input_size, read, problems


def _endpoint_names(chain: Chain) -> tuple[str, str]:
    """Return the names of the input and of the output, as Keras itself gives them in a signature.

    The output's is the last layer's, that of the whole nested model where this is inside one.
    """
    return chain.inputs[0].name, chain.layers[-1].name.partition("/")[0]


def _input_position(chain: Chain) -> Position:
    """Return what the model takes.

    Raises:
        SpecError: It is not `(batch, time, features)` of real numbers, nor `(batch, time)` before
            an embedding.
    """
    if len(chain.inputs) != 1:
        raise SpecError(chain.name, f"has {len(chain.inputs)} input layers; build it with one")
    layer = chain.inputs[0]
    given = layer.config.get("batch_shape")
    shape = given if isinstance(given, list) else []
    kinds = [each.kind for each in chain.layers if READERS.get(each.kind) is not nothing]
    has_embedding = kinds[:1] == ["Embedding"]
    if layer.config.get("sparse") is True or layer.config.get("ragged") is True:
        raise SpecError(layer.name, "is sparse or ragged; only dense inputs are served")
    if len(shape) == 2 and has_embedding:
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


def _behind(layers: Sequence[Layer], position: Position) -> Position:
    """Return what is known behind a layer's parts.

    Raises:
        SpecError: They do not fit what is before them.
    """
    for layer in layers:
        features = position.features
        if features is not None:
            features = layer.output_size(features)
        position = replace(position, features=features)
        if isinstance(layer, Recurrent | Bidirectional):
            ends = not layer.return_sequences
            has_time = False if ends else position.has_time
            position = replace(
                position, has_time=has_time, is_masked=position.is_masked and not ends
            )
        elif isinstance(layer, Masking) or (isinstance(layer, Embedding) and layer.mask_zero):
            position = replace(position, is_masked=True)
    return position
