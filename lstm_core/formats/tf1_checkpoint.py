"""Reads a checkpoint of TensorFlow 1: the cells of `rnn_cell` and contrib, dense layers behind.

A checkpoint holds variables, not the network: which layers there are is told by the variables'
names, and the rest by `PREFIX.json` beside it, an object with these fields:

    forget_bias       of every cell, a number; there is no default, for it changes every output
    activation        of every cell, `tanh` if absent
    cell_clip         of every cell, none if absent
    proj_clip         of every cell, none if absent
    cells             a list with an object of the above for each cell that differs, in order
    head_activation   of the last dense layer, `linear` if absent
    layers            the scopes to read from input to output, where names do not tell their order
    return_sequences  whether the network's own output has a time axis, true if absent
    cudnn             `input_size`, `num_layers`, `num_units` and `direction` of a `CudnnLSTM` that
                      was saved as one buffer; contrib's own checkpoints do not need it

The numbers are those of `tf.nn.dynamic_rnn` and `bidirectional_dynamic_rnn` without
`sequence_length`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lstm_core.errors import FormatError, SpecError, WeightsError
from lstm_core.formats.rnn_cell import PEEPHOLES, cell_of
from lstm_core.formats.tensorflow_bundle import Bundle, checkpoint_prefix
from lstm_core.formats.tensorflow_slices import SliceFile
from lstm_core.formats.tensorflow_table import is_table
from lstm_core.formats.tensors import Float32
from lstm_core.formats.tf1_options import Options, read_options
from lstm_core.formats.tf1_scopes import (
    BIASES,
    KERNELS,
    OPAQUE,
    Scope,
    find_layers,
    named_layers,
)
from lstm_core.formats.variables import NamedVariables
from lstm_core.kernels.cudnn_layout import Stack, unpack
from lstm_core.network import Bidirectional, Layer, Network, Recurrent
from lstm_core.pointwise import Dense
from lstm_core.spec import LSTMSpec
from lstm_core.weights import LSTMWeights

Checkpoint = Bundle | SliceFile


def is_tf1_checkpoint(path: Path, start: bytes) -> bool:
    """Return whether a path is a checkpoint: its files' prefix, its index, or the one file.

    Args:
        path: The path.
        start: The file's first bytes, `b""` for what is no file.
    """
    if not start:
        return path.with_name(f"{path.name}.index").is_file()
    with path.open("rb") as file:
        file.seek(-min(8, path.stat().st_size), os.SEEK_END)
        return is_table(file.read(8))


def read_tf1_checkpoint(path: str | os.PathLike[str]) -> Network:
    """Read a network from its variables and the JSON file beside them.

    Args:
        path: What the names of the checkpoint's files begin with, `….index`, or the one file of
            the format before TensorFlow 0.12.

    Returns:
        The network, its weights float32.

    Raises:
        FormatError: A file is missing or damaged, or it holds something that cannot be served; then
            `problems` names every such part and why.
    """
    prefix = checkpoint_prefix(Path(path))
    has_index = prefix.with_name(f"{prefix.name}.index").is_file()
    checkpoint: Checkpoint = Bundle(prefix) if has_index else SliceFile(prefix)
    options = read_options(prefix.with_name(f"{prefix.name}.json"))
    layers, problems = _layers(checkpoint, options)
    if problems:
        raise FormatError(str(prefix), problems)
    try:
        size = _input_size(layers[0])
        return Network(prefix.name, size, tuple(layers), written_by="TensorFlow")
    except SpecError as error:
        raise FormatError(str(prefix), [str(error)]) from error


def _input_size(layer: Layer) -> int:
    if isinstance(layer, Bidirectional):
        layer = layer.forward
    if isinstance(layer, Recurrent):
        return layer.spec.input_size
    return layer.kernel.shape[0] if isinstance(layer, Dense) else 1


def _layers(checkpoint: Checkpoint, options: Options) -> tuple[list[Layer], list[str]]:
    """Return the layers that can be read, and a sentence for each that cannot."""
    if options.layers is not None:
        scopes, problems = named_layers(options.layers, checkpoint.shapes)
    else:
        scopes, problems = find_layers(checkpoint.shapes)
    opaque = [name for name in checkpoint.shapes if OPAQUE.match(name)]
    is_buffer = bool(opaque) and not any(scope.cells for scope in scopes)
    layers: list[Layer] = []
    try:
        if is_buffer:
            layers += _cudnn_layers(checkpoint, opaque, options)
    except SpecError as error:
        problems.append(str(error))
    num_recurrent = 0
    for scope in scopes:
        is_last = scope is scopes[-1]
        try:
            if scope.cells:
                num_recurrent += 1
                layers.append(_recurrent(checkpoint, scope, num_recurrent - 1, options))
            else:
                activation = options.head_activation if is_last else "linear"
                layers.append(_dense(checkpoint, scope.name, activation))
        except SpecError as error:
            problems.append(str(error))
    if not scopes and not is_buffer and not problems:
        problems.append("holds no LSTM cell that is known here")
    return _with_end(layers, return_sequences=options.return_sequences), problems


def _with_end(layers: list[Layer], *, return_sequences: bool) -> list[Layer]:
    """Return the layers, the last recurrent one giving on its last step only if so told."""
    for index in reversed(range(len(layers))):
        layer = layers[index]
        if isinstance(layer, Recurrent):
            layers[index] = replace(layer, return_sequences=return_sequences)
        elif isinstance(layer, Bidirectional):
            ends = {"return_sequences": return_sequences, "zero_output_for_mask": return_sequences}
            directions = {
                name: replace(getattr(layer, name), **ends) for name in ("forward", "backward")
            }
            layers[index] = replace(layer, **directions)
        else:
            continue
        break
    return layers


def _recurrent(checkpoint: Checkpoint, scope: Scope, index: int, options: Options) -> Layer:
    directions = [_cell(checkpoint, name, index, options) for name in scope.cells]
    return _joined(scope.name, directions)


def _joined(name: str, directions: Sequence[tuple[LSTMSpec, LSTMWeights]]) -> Layer:
    """Return one LSTM, or two side by side."""
    recurrents = [Recurrent(name=name, spec=spec, weights=weights) for spec, weights in directions]
    if len(recurrents) == 1:
        return recurrents[0]
    # Behind a row's end both directions give zeros, as Keras's do behind a mask.
    forward, backward = (replace(each, zero_output_for_mask=True) for each in recurrents)
    return Bidirectional(
        name=name,
        forward=replace(forward, name=f"{name}/forward"),
        backward=replace(backward, name=f"{name}/backward", go_backwards=True),
    )


def _cell(
    checkpoint: Checkpoint, scope: str, index: int, options: Options
) -> tuple[LSTMSpec, LSTMWeights]:
    kernel = _read(checkpoint, scope, KERNELS, rank=2)
    bias = _read(checkpoint, scope, BIASES, rank=1)
    has_peepholes = f"{scope}/{PEEPHOLES[0]}" in checkpoint.shapes
    diagonals = [_read(checkpoint, scope, (name,), rank=1) for name in PEEPHOLES * has_peepholes]
    if len({diagonal.shape for diagonal in diagonals}) > 1:
        raise SpecError(scope, "its peepholes differ in length")
    projections = [f"projection/{name}" for name in KERNELS]
    has_projection = any(f"{scope}/{name}" in checkpoint.shapes for name in projections)
    is_cudnn = "cudnn_compatible_lstm_cell" in scope
    return cell_of(
        scope,
        options.cell(index, scope, has_forget_bias=not is_cudnn),
        kernel=kernel,
        bias=bias,
        peepholes=np.stack(diagonals) if has_peepholes else None,
        projection=_read(checkpoint, scope, projections, rank=2) if has_projection else None,
    )


def _dense(checkpoint: Checkpoint, scope: str, activation: str) -> Dense:
    has_bias = any(f"{scope}/{name}" in checkpoint.shapes for name in BIASES)
    kernel = _read(checkpoint, scope, KERNELS, rank=2)
    bias = _read(checkpoint, scope, BIASES, rank=1) if has_bias else None
    if bias is not None and bias.shape != kernel.shape[1:]:
        raise SpecError(scope, f"its bias {bias.shape} does not fit its kernel {kernel.shape}")
    return Dense(name=scope, kernel=kernel, bias=bias, activation=activation)


def _cudnn_layers(checkpoint: Checkpoint, opaque: Sequence[str], options: Options) -> list[Layer]:
    """Read the one buffer of contrib's `CudnnLSTM`."""
    sizes = options.cudnn
    if len(opaque) > 1:
        raise SpecError("opaque_kernel", f"there are {len(opaque)}; one is served")
    if sizes is None:
        problem = f"is one buffer, whose sizes it does not tell: give cudnn in {options.path}"
        raise SpecError(opaque[0], problem)
    stack = Stack(
        input_size=sizes.input_size,
        units=sizes.num_units,
        num_layers=sizes.num_layers,
        num_directions=sizes.num_directions,
    )
    params = _read(checkpoint, opaque[0].rpartition("/")[0], ("opaque_kernel",), rank=1)
    try:
        blocks = unpack(stack, params)
    except WeightsError as error:
        raise SpecError(opaque[0], str(error)) from error
    layers = []
    for layer in range(sizes.num_layers):
        first = layer * sizes.num_directions
        directions = [
            (
                LSTMSpec(input_size=block.kernel.shape[0], units=sizes.num_units),
                block.astype(np.float32),
            )
            for block in blocks[first : first + sizes.num_directions]
        ]
        layers.append(
            _joined(f"{opaque[0].rpartition('/')[0] or 'cudnn_lstm'}/{layer}", directions)
        )
    return layers


def _read(checkpoint: Checkpoint, scope: str, names: Sequence[str], *, rank: int) -> Float32:
    """Return the first of these variables that a scope has.

    Raises:
        SpecError: It has none of them, or it cannot be read.
    """
    prefix = f"{scope}/" if scope else ""
    name = next((each for each in names if prefix + each in checkpoint.shapes), names[0])
    known = prefix + name in checkpoint.shapes
    listed = [(name, checkpoint.stored(prefix + name))] if known else []
    variables = NamedVariables(layer=scope or name, listed=listed)
    return variables.read(0, name, (None,) * rank)
