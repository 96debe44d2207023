"""Model files: the bundled ones, what a file is, and one format made another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lstm_core.errors import FormatError
from lstm_core.formats.read import format_at, read_network
from lstm_core.formats.write import write_network


class ModelFileError(Exception):
    """A model file cannot be served. The message says which, and everything that is wrong."""


_BUNDLED = Path(__file__).parent / "bundled"


def bundled_models() -> dict[str, Path]:
    """Return the files of the examples that come with the package, by name."""
    return {name: _BUNDLED / f"{name}.keras" for name in ("vowels", "gait")}


def file_format(path: Path) -> str:
    """Return what a file is, and what wrote it where that is known.

    Raises:
        ModelFileError: It is no model.
    """
    try:
        name = format_at(path).name
    except FormatError as error:
        raise ModelFileError(str(error)) from error
    try:
        writer = read_network(path).written_by
    except FormatError as error:
        writer = error.written_by
    return name if writer is None else f"{name}, written by {writer}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What became of a file.

    Attributes:
        fingerprint: Of the model that was read.
        new_fingerprint: Of the model as it was written. Where that is another, sessions of the one
            do not belong to the other.
    """

    fingerprint: str
    new_fingerprint: str


def convert(source: Path, target: Path) -> Conversion:
    """Write a model in another format, and read it back.

    Args:
        source: A file of any format.
        target: Where to, with the suffix `.keras` or `.safetensors`. Replaced at once if it is
            there, or left as it was.

    Raises:
        ModelFileError: The one cannot be read, or the other not written.
        OSError: The target cannot be written.
    """
    try:
        network = read_network(source)
        write_network(network, target)
        new_fingerprint = read_network(target).fingerprint
    except FormatError as error:
        raise ModelFileError(str(error)) from error
    return Conversion(fingerprint=network.fingerprint, new_fingerprint=new_fingerprint)
