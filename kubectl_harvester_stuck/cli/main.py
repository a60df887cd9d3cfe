"""The program: its commands, and how it ends.

An expected failure is one line, a document where one was asked for, and the exit status of the
contract; a bug keeps its traceback.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import threading
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from typing import NoReturn

import click

from kubectl_harvester_stuck import __version__
from kubectl_harvester_stuck.cli import completion, exit_status
from kubectl_harvester_stuck.cli.options import PROGRAM, connection
from kubectl_harvester_stuck.cli.output import OutputError, error_line, prepared, write
from kubectl_harvester_stuck.errors import ExitStatus, StuckError

COMMANDS = {
    "list": "Show what hangs in its deletion, in a stop, or on a silent node.",
    "diagnose": "Say why it hangs, with the evidence, and what to do.",
    "unstick": "Release it, the least destructive step first.",
    "restore": "Create a VM again from what unstick saved.",
    "check": "Is this cluster ready for the next power failure?",
    "finalizers": "Show who owns a finalizer, and what it guards.",
    "journal": "Show what was changed from here.",
    "completion": "Set up TAB completion.",
    "version": "Show the versions of program, API server and Harvester.",
}
"""What the help says of each command, in its order; `cli.commands` has a module of each name."""


class _Commands(MutableMapping[str, click.Command]):
    """Each command is imported when it is asked for, for start-up is felt at every call."""

    def __init__(self) -> None:
        self._loaded: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._loaded and name in COMMANDS:
            module = importlib.import_module(f"kubectl_harvester_stuck.cli.commands.{name}")
            self._loaded[name] = module.command
        return self._loaded[name]

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Program(click.Group):
    """Takes -o=json as well as -ojson, as kubectl does; click knows only the second."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options of the group; the rest is left to its command."""
        return super().parse_args(ctx, [re.sub(r"^-([A-Za-z])=", r"-\1", word) for word in args])

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """The names, in the order of the help."""
        return list(COMMANDS)

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what the help says of each command, without importing it."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=_Program,
    commands=_Commands(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
@click.version_option(__version__, prog_name=PROGRAM)
@connection
def cli() -> None:
    """Find and release Harvester virtual machines that are stuck.

    \b
    Examples:
      kubectl harvester-stuck list -A
      kubectl harvester-stuck unstick vm web-1 -n shop --dry-run=server
    """


def _document_asked(arguments: list[str]) -> str | None:
    """Which document the caller asked for, found in arguments that may not even be valid."""
    words = " ".join(arguments)
    found = re.search(r"(?:^| )(?:-o[ =]?|--output[ =])(json|yaml)(?: |$)", words)
    return found.group(1) if found else None


def main() -> NoReturn:
    """Run the program and end the process with its exit status."""
    given = sys.argv[1:]
    if given[:1] == [completion.COMMAND]:
        completion.end(cli, given[1:])
    _end(run(given))


def run(arguments: list[str]) -> int:
    """Run the program and return its exit status, when everything has been written."""
    with prepared():
        return _run(arguments)


def _end(status: int) -> NoReturn:
    """End the process.

    Taking the interpreter down costs as much as a tenth of a short command and does nothing that
    is needed, unless a thread still has something to write.
    """
    if threading.active_count() > 1:
        sys.exit(status)
    os._exit(status)


def _run(given: list[str]) -> int:
    """Run the program and return its exit status."""
    try:
        return int(cli.main(given, prog_name=PROGRAM, standalone_mode=False) or ExitStatus.OK)
    except click.ClickException as error:
        status = exit_status.of_error(error)
        _fail(given, error.format_message(), status)
        error.show()
    except StuckError as error:
        status = exit_status.of_error(error)
        _fail(given, str(error), status)
        click.echo(error_line(error), nl=False, err=True)
    except (KeyboardInterrupt, click.Abort):
        return exit_status.INTERRUPTED
    return int(status)


def complete() -> NoReturn:
    """What kubectl runs as `kubectl_complete-harvester_stuck`."""
    completion.end(cli, sys.argv[1:])


def _fail(arguments: list[str], message: str, status: ExitStatus) -> None:
    """Answer with a document, if one was asked for, although there is no answer."""
    asked = _document_asked(arguments)
    if asked is None:
        return

    from kubectl_harvester_stuck.render import document

    command = next((word for word in arguments if word in cli.commands), "")
    command = "diagnosis" if command == "diagnose" else command
    # Where it cannot be written, the error itself says more than that.
    with suppress(OutputError):
        write(document.dump(document.failure(command, message, status), asked))
