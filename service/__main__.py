"""The command line: `lstm-service serve`, `models`, `convert`, `sessions` and `store`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from service import __version__
from service.choices import RUNTIME_SETTINGS, runtime_choice
from service.commands.parser import add_parsers
from service.model_files import ModelFileError, bundled_models, convert, file_format
from service.models import read_signature
from service.runtimes import RuntimeChoice
from service.settings import SettingError, Settings, add_options, read_settings
from service.storage import StoreChoiceError

log = logging.getLogger("service")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Those behind the program's name; None means the process's own.

    Returns:
        The exit status: 0, or 2 where an argument, a file or the store is at fault; 1 where nobody
        reads on what is written, and `sessions` has it for a session.
    """
    _open_missing_streams()
    options = _parser().parse_args(arguments)
    try:
        status = _run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has read enough; the interpreter must not fail in its last flush either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ModelFileError, SettingError, StoreChoiceError, OSError) as error:
        print(f"lstm-service: {error}", file=sys.stderr)
    except ValidationError as error:
        for problem in error.errors():
            if problem["type"] == "default_factory_not_called":
                continue  # of a setting that follows one that makes no sense, and is told
            option = (
                "--" + str(problem["loc"][0]).replace("_", "-") if problem["loc"] else "settings"
            )
            said = problem["msg"].removeprefix("Value error, ")
            print(f"lstm-service: {option}: {said}", file=sys.stderr)
    else:
        return status
    return 2


def _open_missing_streams() -> None:
    """Open the standard streams that the process was started without, to nowhere.

    Else what it opens next has their numbers: libuv ends the process when it closes such a socket.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - to the end


def _run(options: argparse.Namespace) -> int:
    if options.command == "models":
        return _print_models(options.files, runtime_choice(read_settings(options)))
    if options.command == "convert":
        return _convert(options.source, options.target, is_forced=options.force)
    if options.command in ("sessions", "store"):
        from service.commands.run import run

        return run(options)
    return _serve(read_settings(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lstm-service", description="Serve trained LSTMs with one recurrent state per client."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser(
        "serve",
        help="serve models",
        description="Serve models over HTTP, WebSocket and gRPC. Each option is also an environment"
        " variable: LSTM_ and its name in capitals, as LSTM_MAX_PENDING.",
    )
    add_options(serve)
    models = commands.add_parser(
        "models",
        help="show what model files hold",
        description="Show what model files hold, their shapes, and what would compute them.",
    )
    add_options(models, RUNTIME_SETTINGS)
    models.add_argument(
        "files",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="a model file; nothing: the bundled ones",
    )
    convert = commands.add_parser(
        "convert",
        help="write a model in another format",
        description="Read a model of any format and write it as a .keras file, which Keras 3 loads,"
        " or as .safetensors, which holds every model to the bit.",
    )
    convert.add_argument("source", type=Path, metavar="IN", help="a model file of any format")
    convert.add_argument("target", type=Path, metavar="OUT", help="NAME.keras or NAME.safetensors")
    convert.add_argument("--force", action="store_true", help="replace OUT if it is there")
    add_parsers(commands)
    return parser


def _print_models(files: Sequence[Path], choice: RuntimeChoice) -> int:
    status = 0
    named = [(path.stem, path) for path in files] or list(bundled_models().items())
    for name, path in named:
        print(f"{name} ({path})")
        try:
            print(f"  {file_format(path)}", flush=True)
            signature = read_signature(name, path, choice)
        except ModelFileError as error:
            print(f"lstm-service: {error}", file=sys.stderr, flush=True)
            status = 2
            continue
        takes = (
            f"{signature.input_size} numbers"
            if signature.vocabulary is None
            else f"an integer below {signature.vocabulary}"
        )
        print(f"  a step takes {takes} and gives {signature.output_size} numbers")
        for what, parts in (("input", signature.inputs), ("output", signature.outputs)):
            if len(parts) > 1:
                for part in parts:
                    last = part.offset + part.size - 1
                    print(f"  {what} {part.name}: numbers {part.offset} to {last}")
        vectors = ", ".join(f"{v.layer}.{v.role}[{v.size}]" for v in signature.state_layout)
        print(f"  state: {vectors or 'none'}")
        print(f"  fingerprint: {signature.fingerprint}")
        print(f"  runtime {signature.runtime}: {signature.runtime_reason}")
        for layer in signature.layers:
            print(f"  {layer.kind:<18} {layer.name:<24} -> {layer.output_size}")
            if layer.kernel is not None:
                print(f"  {'':<18} kernel {layer.kernel} on {layer.device}: {layer.reason}")
        for obstacle in signature.streaming_obstacles:
            print(f"  predict only: {obstacle}")
    return status


def _convert(source: Path, target: Path, *, is_forced: bool) -> int:
    if target.exists() and not is_forced:
        print(f"lstm-service: {target} is there already; --force replaces it", file=sys.stderr)
        return 2
    conversion = convert(source, target)
    print(f"wrote {target}, fingerprint {conversion.new_fingerprint}")
    if conversion.new_fingerprint != conversion.fingerprint:
        print(
            f"  that of {source} is {conversion.fingerprint}: the outputs are the same within"
            " rounding, but sessions of the one do not go on with the other by themselves"
        )
    return 0


def _serve(settings: Settings) -> int:
    from service.server import serve

    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    return serve(settings)


if __name__ == "__main__":
    sys.exit(main())
