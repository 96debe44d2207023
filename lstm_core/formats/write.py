"""A network into a model file: the format is chosen by the file's suffix.

A writer is imported when it writes, so that a server, which writes no models, loads none.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from lstm_core.errors import FormatError
from lstm_core.network import Network

Writer = Callable[[Network, IO[bytes]], None]


def _write_keras(network: Network, file: IO[bytes]) -> None:
    from lstm_core.formats.keras_write import write_keras

    write_keras(network, file)


def _write_network_file(network: Network, file: IO[bytes]) -> None:
    from lstm_core.formats.network_file import write_network_file

    write_network_file(network, file)


WRITERS: dict[str, Writer] = {".keras": _write_keras, ".safetensors": _write_network_file}
"""What writes each suffix."""


def write_network(network: Network, path: str | os.PathLike[str]) -> None:
    """Write a network, all of it or nothing.

    Args:
        network: The network.
        path: Where to. Its suffix tells the format, one of `WRITERS`. What is there is replaced.

    Raises:
        FormatError: The suffix is another, or the format has no place for some layer; then
            `problems` names every such layer and why.
        OSError: It cannot be written.
    """
    target = Path(path)
    writer = WRITERS.get(target.suffix)
    if writer is None:
        problem = f"cannot be written: the suffix must be {' or '.join(WRITERS)}"
        raise FormatError(str(target), [problem])
    with tempfile.NamedTemporaryFile(
        dir=target.parent, prefix=f".{target.name}.", delete=False
    ) as file:
        try:
            writer(network, file)
            file.flush()
            Path(file.name).chmod(_new_file_mode())
            Path(file.name).replace(target)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _new_file_mode() -> int:
    """Return the permissions of a new file; a temporary one is its owner's alone."""
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask
