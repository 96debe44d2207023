"""What a checkpoint of TensorFlow 1 does not tell of its network: a JSON file beside it.

Owns that file's fields. Knows no tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lstm_core.errors import FormatError, SpecError
from lstm_core.formats.keras_config import LayerConfig, number
from lstm_core.formats.keras_json import read_json
from lstm_core.formats.rnn_cell import CellOptions
from lstm_core.pointwise import FUNCTIONS

_CELL_FIELDS = frozenset({"forget_bias", "activation", "cell_clip", "proj_clip"})
_FIELDS = _CELL_FIELDS | {"cells", "head_activation", "layers", "return_sequences", "cudnn"}
_CUDNN_FIELDS = frozenset({"input_size", "num_layers", "num_units", "direction"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CudnnSizes:
    """The sizes of contrib's `CudnnLSTM` where it was saved as the one buffer that cuDNN takes.

    Attributes:
        input_size: Features of one time step.
        num_layers: Layers on top of each other.
        num_units: Length of h and of c.
        num_directions: 1 or 2.
    """

    input_size: int
    num_layers: int
    num_units: int
    num_directions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The content of the file.

    Attributes:
        path: The file, for messages.
        config: Its fields, those of a cell not checked yet.
        head_activation: Of the last dense layer.
        layers: The scopes to read, in order; None: those that are found.
        return_sequences: Whether the network's own output has a time axis.
        cudnn: Sizes of a buffer of cuDNN, or None.
    """

    path: str
    config: Mapping[str, Any]
    head_activation: str = "linear"
    layers: list[str] | None = None
    return_sequences: bool = True
    cudnn: CudnnSizes | None = None

    def cell(self, index: int, name: str, *, has_forget_bias: bool) -> CellOptions:
        """Return the options of one cell.

        Args:
            index: Its number, from input to output.
            name: Its scope, for messages.
            has_forget_bias: Whether its class has the argument at all.

        Raises:
            SpecError: A field is missing or makes no sense.
        """
        cells = self.config.get("cells", [])
        own = cells[index] if index < len(cells) else {}
        told = {**self.config, **own}
        config = LayerConfig(name=name, kind="LSTMCell", config=told)
        if not has_forget_bias:
            told["forget_bias"] = 0
        elif "forget_bias" not in told:
            problem = (
                "forget_bias is added when the network runs and is not in a checkpoint: say what it"
                f' was in {self.path}, such as {{"forget_bias": 1.0}}, which is the default of'
                " TensorFlow's cells"
            )
            raise SpecError(name, problem)
        clips = {
            field: None if told.get(field) is None else number(config, field, told[field])
            for field in ("cell_clip", "proj_clip")
        }
        return CellOptions(
            forget_bias=number(config, "forget_bias", told["forget_bias"]),
            activation=str(told.get("activation", "tanh")),
            cell_clip=clips["cell_clip"],
            projection_clip=clips["proj_clip"],
        )


def read_options(path: Path) -> Options:
    """Read the file; without one, nothing is known but the defaults.

    Raises:
        FormatError: It is damaged, or a field is unknown or of another type.
    """
    if not path.is_file():
        return Options(path=str(path), config={})
    content = read_json(path)
    problems = [
        f"{field} is no field of it: {', '.join(sorted(_FIELDS))}"
        for field in set(content) - _FIELDS
    ]
    cells = content.get("cells", [])
    if not isinstance(cells, list) or not all(isinstance(each, dict) for each in cells):
        problems.append("cells is no list of objects")
    elif unknown := {field for each in cells for field in each} - _CELL_FIELDS:
        problems.append(f"cells have no {', '.join(sorted(unknown))}")
    layers = content.get("layers")
    is_list = isinstance(layers, list) and layers and all(isinstance(x, str) for x in layers)
    if layers is not None and not is_list:
        problems.append("layers is no list of scopes")
    head_activation = content.get("head_activation", "linear")
    if not isinstance(head_activation, str) or head_activation not in FUNCTIONS:
        known = ", ".join(sorted(FUNCTIONS))
        problems.append(f"head_activation is {head_activation!r:.80}; known are {known}")
    if not isinstance(content.get("return_sequences", True), bool):
        problems.append("return_sequences is neither true nor false")
    if problems:
        raise FormatError(str(path), problems)
    return Options(
        path=str(path),
        config=content,
        head_activation=head_activation,
        layers=layers,
        return_sequences=content.get("return_sequences", True),
        cudnn=_cudnn_sizes(path, content.get("cudnn")),
    )


def _cudnn_sizes(path: Path, told: object) -> CudnnSizes | None:
    """Return the sizes of cuDNN's buffer.

    Raises:
        FormatError: One is missing or makes no sense.
    """
    if told is None:
        return None
    problem = 'cudnn is not {"input_size", "num_layers", "num_units", "direction"?}'
    if not isinstance(told, dict) or set(told) - _CUDNN_FIELDS:
        raise FormatError(str(path), [problem])
    direction = told.get("direction", "unidirectional")
    if direction not in ("unidirectional", "bidirectional"):
        raise FormatError(str(path), [f"cudnn's direction is {direction!r:.80}"])
    config = LayerConfig(name="cudnn", kind="CudnnLSTM", config=told)
    try:
        return CudnnSizes(
            input_size=config.integer("input_size"),
            num_layers=config.integer("num_layers"),
            num_units=config.integer("num_units"),
            num_directions=1 if direction == "unidirectional" else 2,
        )
    except SpecError as error:
        raise FormatError(str(path), [str(error)]) from error
