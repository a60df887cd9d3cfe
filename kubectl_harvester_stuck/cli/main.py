"""The program: its commands, and how it ends.

An expected failure is one line, a document where one was asked for, and the exit status of the
contract; a bug keeps its traceback.
"""

from __future__ import annotations

import gc
import importlib
import os
import re
import sys
import threading
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from typing import NoReturn, cast

import click

from kubectl_harvester_stuck import __version__
from kubectl_harvester_stuck.cli import completion, exit_status, hints
from kubectl_harvester_stuck.cli.again import ARGUMENTS
from kubectl_harvester_stuck.cli.options import PROGRAM, connection
from kubectl_harvester_stuck.cli.output import OutputError, error_line, prepared, safe_lines, write
from kubectl_harvester_stuck.errors import ExitStatus, RefusedError, StuckError

COLLECT_AFTER = 100_000
"""Objects that are made before the collector runs, which finds nothing among imports."""

ALIASES = {"get": "list"}
"""Words of kubectl for a command of ours."""

COMMANDS = {
    "list": "Show what is stuck, on which node, and since when.",
    "diagnose": "Explain why it is stuck, and what to do.",
    "unstick": "Release it, least destructive step first.",
    "restore": "Create a VM again from an undo file.",
    "check": "Is this cluster ready for the next power failure?",
    "serve-metrics": "Serve what is stuck as metrics for Prometheus.",
    "finalizers": "Show which controller removes a finalizer.",
    "journal": "Show what was changed from this machine.",
    "completion": "Set up TAB completion.",
    "version": "Show the versions of plugin, API server and Harvester.",
}
"""What the help says of each command, in its order.

`cli.commands` has a module of each name, with underscores.
"""


class _Commands(MutableMapping[str, click.Command]):
    """Each command is imported when it is asked for, for start-up is felt at every call."""

    def __init__(self) -> None:
        self._loaded: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._loaded and name in COMMANDS:
            place = f"kubectl_harvester_stuck.cli.commands.{name.replace('-', '_')}"
            module = importlib.import_module(place)
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
    """Takes -o=json as well as -ojson, and `help COMMAND`, as kubectl does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options of the group; the rest is left to its command."""
        ctx.meta[ARGUMENTS] = tuple(args)
        if args[:1] == ["help"]:
            args = [*args[1:], "--help"]
        # click knows only -ojson.
        words = [re.sub(r"^-([A-Za-z])=", r"-\1", word) for word in args]
        with hints.for_options(ctx, words):
            return super().parse_args(ctx, words)

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """The names, in the order of the help."""
        return list(COMMANDS)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands before the options, without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))
        click.Command.format_options(self, ctx, formatter)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first word names, by its name or by kubectl's."""
        name = ALIASES.get(args[0], args[0])
        if name not in self.commands and not ctx.resilient_parsing:
            raise hints.no_such_command(ctx, name, self.commands)
        return super().resolve_command(ctx, [name, *args[1:]])


@click.group(
    cls=_Program,
    commands=_Commands(),
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
@click.version_option(__version__, prog_name=PROGRAM)
@connection
@click.pass_context
def cli(ctx: click.Context, /) -> ExitStatus | None:
    """Find and release Harvester virtual machines that are stuck.

    Without a command: what is stuck in the context's namespace, as list.

    \b
    Examples:
      kubectl harvester-stuck list -A
      kubectl harvester-stuck unstick web-1 --dry-run=server
      kubectl harvester-stuck help unstick
    """
    if ctx.invoked_subcommand is not None:
        return None
    try:
        return cast(ExitStatus, ctx.invoke(cli.commands["list"]))
    finally:
        hint = f"All namespaces:\n  {PROGRAM} list -A\nAll commands:\n  {PROGRAM} help"
        click.echo(hint, err=True)


def _document_asked(arguments: list[str]) -> str | None:
    """Which document the caller asked for, found in arguments that may not even be valid."""
    words = " ".join(arguments)
    found = re.search(r"(?:^| )(?:-o[ =]?|--output[ =])(json|yaml)(?: |$)", words)
    return found.group(1) if found else None


def main() -> NoReturn:
    """Run the program and end the process with its exit status."""
    gc.set_threshold(COLLECT_AFTER)
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
        message = safe_lines(error.format_message())
        _fail(given, " ".join(message.splitlines()), status)
        click.echo(f"error: {message}", err=True)
        if isinstance(error, click.UsageError):
            shown = error.ctx.command_path if error.ctx else PROGRAM
            click.echo(f"See '{shown} --help' for usage.", err=True)
    except StuckError as error:
        status = exit_status.of_error(error)
        commands = (error.command,) if isinstance(error, RefusedError) and error.command else ()
        _fail(given, str(error), status, commands)
        click.echo(error_line(error), nl=False, err=True)
    except (KeyboardInterrupt, click.Abort):
        return exit_status.INTERRUPTED
    return int(status)


def complete() -> NoReturn:
    """What kubectl runs as `kubectl_complete-harvester_stuck`."""
    completion.end(cli, sys.argv[1:])


def _fail(
    arguments: list[str], message: str, status: ExitStatus, commands: tuple[str, ...] = ()
) -> None:
    """Answer with a document, if one was asked for, although there is no answer."""
    asked = _document_asked(arguments)
    if asked is None:
        return

    from kubectl_harvester_stuck.render import document

    words = (ALIASES.get(word, word) for word in arguments)
    command = next((word for word in words if word in cli.commands), "")
    command = "diagnosis" if command == "diagnose" else command
    # Where it cannot be written, the error itself says more than that.
    with suppress(OutputError):
        write(document.dump(document.failure(command, message, status, commands), asked))
