"""`completion install`: TAB completion where Krew cannot link it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import click

from kubectl_harvester_stuck.cli.completion import COMMAND
from kubectl_harvester_stuck.cli.options import Command
from kubectl_harvester_stuck.cli.output import answer

PLUGIN = "kubectl-harvester_stuck"
NAME = "kubectl_complete-harvester_stuck"
_MARK = "Written by `kubectl harvester-stuck completion install`."
_SCRIPT = f'#!/bin/sh\n# {_MARK}\nexec {PLUGIN} {COMMAND} "$@"\n'
_BATCH = f"@rem {_MARK}\r\n@{PLUGIN} {COMMAND} %*\r\n"


@click.group("completion")
def completion_() -> None:
    """Set up TAB completion.

    \b
    Examples:
      kubectl harvester-stuck completion install
    """


@completion_.command("install", cls=Command)
@click.option("--directory", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Where to write it (default: beside the plugin).")  # fmt: skip
def install(directory: Path | None) -> None:
    """Write the script that kubectl runs for TAB completion.

    Only after an installation with Krew: pip installs it by itself. Completion
    of kubectl has to be set up as well, and kubectl be 1.26 or newer.

    \b
    Examples:
      kubectl harvester-stuck completion install
      kubectl harvester-stuck completion install --directory ~/.local/bin
    """
    from kubectl_harvester_stuck.errors import StuckError

    is_windows = os.name == "nt"
    there = None if directory else shutil.which(NAME)
    folder = (directory or _folder()).expanduser().absolute()
    file = Path(there) if there else folder / (f"{NAME}.bat" if is_windows else NAME)
    try:
        if not os.path.lexists(file):
            folder.mkdir(parents=True, exist_ok=True)
        elif _MARK not in (content := file.read_bytes().decode(errors="replace")):
            if "kubectl_harvester_stuck" not in content:
                raise StuckError(
                    f"{file} was not written by this command: remove it, or choose a --directory"
                )
            click.echo(f"{file} is there already: it came with the program", err=True)
            return
        else:
            file.unlink()
        # Made anew: a link that somebody puts there now is not followed.
        with file.open("xb") as script:
            if not is_windows:
                os.chmod(script.fileno(), 0o755)  # noqa: PTH101, S103 - the open file, a program for all
            script.write((_BATCH if is_windows else _SCRIPT).encode())
    except OSError as error:
        raise StuckError(f"cannot write {file}: {error.strerror}: choose a --directory") from error
    answer(f"{file}\n")
    path = os.environ.get("PATH", "").split(os.pathsep)
    if str(file.parent) not in path:
        click.echo(f"{file.parent} is not on PATH: add it, or choose a --directory", err=True)
    click.echo("kubectl runs it once its own completion is set up, for bash with:", err=True)
    click.echo("  source <(kubectl completion bash)", err=True)
    click.echo(f"To remove it, also after the plugin: delete {file}", err=True)


def _folder() -> Path:
    """Where the plugin is found, if that is the user's own: it is on PATH, and so Krew's."""
    plugin = shutil.which(PLUGIN)
    beside = Path(plugin).parent if plugin else None
    if beside is not None and os.access(beside, os.W_OK):
        return beside
    return Path.home() / ".local" / "bin"
