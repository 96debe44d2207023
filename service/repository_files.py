"""What lies in a model repository, `NAME/VERSION/model.*`. Reads no model."""

from __future__ import annotations

import re
from pathlib import Path

from service.model_config import FILE_NAME
from service.model_files import ModelFileError

MAX_NAME_LENGTH = 64
# What begins with a dot is hidden: `.git`, or the `..data` behind a volume of Kubernetes.
_NAME = re.compile(rf"(?!\.)[A-Za-z0-9._-]{{1,{MAX_NAME_LENGTH}}}\Z")
_VERSION = re.compile(r"[1-9][0-9]{0,17}\Z")

Stamp = tuple[tuple[str, int, int], ...]
"""What tells that files have changed: name, size in bytes, and time of change in nanoseconds."""


def scan(directory: Path) -> dict[str, dict[str, Stamp]]:
    """Return the versions that lie in a repository, by model name and number, the lowest first.

    Raises:
        OSError: It cannot be read.
    """
    found: dict[str, dict[str, Stamp]] = {}
    for model in sorted(directory.iterdir()):
        if not (model.is_dir() and _NAME.match(model.name)):
            continue
        names = [each.name for each in model.iterdir() if _VERSION.match(each.name)]
        found[model.name] = {
            name: _stamp(model / name) for name in sorted(names, key=int) if (model / name).is_dir()
        }
    return found


def _stamp(directory: Path) -> Stamp:
    files = []
    paths = list(directory.rglob("*"))
    # It follows no link but the one that a version itself may be; a model may lie behind one too.
    paths += [path for link in paths if _is_model_link(directory, link) for path in link.rglob("*")]
    for path in sorted(paths):
        try:
            status = path.stat()
        except OSError:
            continue  # somebody writes there at this moment, or it is a link that leads nowhere
        files.append((str(path.relative_to(directory)), status.st_size, status.st_mtime_ns))
    return tuple(files)


def _is_model_link(directory: Path, path: Path) -> bool:
    is_its_own = path.parent == directory and path.name.startswith("model")
    return is_its_own and path.is_symlink() and path.is_dir()


def model_file(directory: Path) -> Path:
    """Return the model file or directory of a version, or the prefix of its checkpoint's files.

    Raises:
        ModelFileError: There is none, or more than one.
    """
    paths = [
        path.with_suffix("") if path.suffix == ".index" else path
        for path in sorted(directory.glob("model*"))
        if path.name not in (FILE_NAME, "model.json") and not path.name.startswith("model.data-")
    ]
    if len(paths) != 1:
        what = "no model file" if not paths else f"{len(paths)} model files"
        raise ModelFileError(
            f"{directory} holds {what}; one called model, as model.keras, is served"
        )
    return paths[0]
