"""The program: its commands, and how it ends.

An expected failure is one line, a document where one was asked for, and the exit status of the
contract; a bug keeps its traceback.
"""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from typing import NoReturn

import click

from kubectl_harvester_stuck import __version__
from kubectl_harvester_stuck.cli import completion, exit_status
from kubectl_harvester_stuck.cli.commands.check import check
from kubectl_harvester_stuck.cli.commands.completion import completion_
from kubectl_harvester_stuck.cli.commands.diagnose import diagnose
from kubectl_harvester_stuck.cli.commands.finalizers import finalizers_
from kubectl_harvester_stuck.cli.commands.journal import journal_
from kubectl_harvester_stuck.cli.commands.list import list_
from kubectl_harvester_stuck.cli.commands.restore import restore
from kubectl_harvester_stuck.cli.commands.unstick import unstick
from kubectl_harvester_stuck.cli.commands.version import version
from kubectl_harvester_stuck.cli.options import PROGRAM, connection
from kubectl_harvester_stuck.cli.output import OutputError, error_line, prepared, write
from kubectl_harvester_stuck.cli.session import ARGUMENTS
from kubectl_harvester_stuck.errors import ExitStatus, StuckError


class _Program(click.Group):
    """Takes -o=json as well as -ojson, as kubectl does; click knows only the second."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options of the group; the rest is left to its command."""
        ctx.meta[ARGUMENTS] = tuple(args)
        return super().parse_args(ctx, [re.sub(r"^-([A-Za-z])=", r"-\1", word) for word in args])


@click.group(
    cls=_Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80}
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


COMMANDS = (
    list_, diagnose, unstick, restore, check, finalizers_, journal_, completion_, version
)  # fmt: skip
"""In the order of the help."""

for _command in COMMANDS:
    cli.add_command(_command)


def _document_asked(arguments: list[str]) -> str | None:
    """Which document the caller asked for, found in arguments that may not even be valid."""
    words = " ".join(arguments)
    found = re.search(r"(?:^| )(?:-o[ =]?|--output[ =])(json|yaml)(?: |$)", words)
    return found.group(1) if found else None


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the program and end the process with its exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == [completion.COMMAND]:
        completion.end(cli, given[1:])
    with prepared():
        status = _run(given)
    sys.exit(status)


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
    main([completion.COMMAND, *sys.argv[1:]])


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
