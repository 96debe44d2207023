"""The options of the commands that work on a store: `lstm-service sessions` and `... store`."""

from __future__ import annotations

import argparse
from typing import Protocol

from service.settings import add_options

STORE_SETTINGS = ("store", "data_dir", "store_timeout_ms")
_MODEL = "of_model"
"""Not `model`, which is a setting: the models that are served."""

_DESCRIPTION = (
    "Works on the store itself, not through a server. The embedded store belongs to one process, so"
    " its server must be stopped; a Redis can be worked on while it serves. Each option is also an"
    " environment variable, as for `serve`. Ends with 1 if some session failed, with 2 if the store"
    " could not be used."
)


class Subparsers(Protocol):
    """What argparse makes and has no public name for."""

    def add_parser(self, name: str, *, help: str, description: str) -> argparse.ArgumentParser:  # noqa: A002 - argparse's name
        """Add a command."""
        ...


def add_parsers(commands: Subparsers) -> None:
    """Add the parsers of `sessions` and `store` to those of the program."""
    actions = _group(commands, "sessions", "look at sessions, back them up, end them")
    listing = _action(actions, "list", "list sessions, those that have ended included")
    listing.add_argument("--model", dest=_MODEL, metavar="MODEL", help="of this model only")
    listing.add_argument("--limit", type=_count, metavar="N", help="at most so many")
    listing.add_argument("--json", action="store_true", help="one JSON object a line")
    show = _action(actions, "show", "tell where a session is, and when it ends")
    show.add_argument(_MODEL, metavar="MODEL", help="the model's name")
    show.add_argument("client_id", metavar="CLIENT_ID", help="the session's client id")
    show.add_argument("--json", action="store_true", help="as a JSON object")
    exporting = _action(actions, "export", "write all sessions as JSON Lines, with their replays")
    exporting.add_argument("--model", dest=_MODEL, metavar="MODEL", help="of this model only")
    _add_file(exporting)
    importing = _action(actions, "import", "put exported sessions back, as they were")
    importing.add_argument(
        "--replace", action="store_true", help="replace sessions that exist already"
    )
    _add_file(importing)
    delete = _action(actions, "delete", "end sessions, damaged ones too")
    delete.add_argument(_MODEL, metavar="MODEL", help="the model's name")
    delete.add_argument("client_ids", metavar="CLIENT_ID", nargs="+", help="of one session or more")

    actions = _group(commands, "store", "set up a store")
    _action(
        actions,
        "init",
        "set up a Redis for the first time, or accept that it has lost its sessions",
    )


def _group(commands: Subparsers, name: str, summary: str) -> Subparsers:
    parser = commands.add_parser(name, help=summary, description=_DESCRIPTION)
    return parser.add_subparsers(dest="action", required=True)


def _action(actions: Subparsers, name: str, summary: str) -> argparse.ArgumentParser:
    description = f"{summary[0].upper()}{summary[1:]}. {_DESCRIPTION}"
    parser = actions.add_parser(name, help=summary, description=description)
    add_options(parser, STORE_SETTINGS)
    return parser


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        default="-",
        help="a file; - or nothing: the standard stream",
    )


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number
