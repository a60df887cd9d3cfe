"""`completion install`: TAB completion where Krew cannot link it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import click

from kubectl_harvester_stuck.cli.completion import COMMAND
from kubectl_harvester_stuck.cli.execute import execute
from kubectl_harvester_stuck.cli.options import Command
from kubectl_harvester_stuck.cli.output import Answer
from kubectl_harvester_stuck.errors import ExitStatus, StuckError

PLUGIN = "kubectl-harvester_stuck"
NAME = "kubectl_complete-harvester_stuck"
_MARK = "Written by `kubectl harvester-stuck completion install`."
_SCRIPT = f'#!/bin/sh\n# {_MARK}\nexec {PLUGIN} {COMMAND} "$@"\n'
_BATCH = f"@rem {_MARK}\r\n@{PLUGIN} {COMMAND} %*\r\n"


class InstallOptions(NamedTuple):
    """The flags of `completion install`."""

    directory: Path | None

    def validate(self) -> None:
        """There is only one."""

    def complete(self, _ctx: click.Context) -> Path:
        """The file to write."""
        is_windows = os.name == "nt"
        there = None if self.directory else shutil.which(NAME)
        folder = (self.directory or _folder()).expanduser().absolute()
        return Path(there) if there else folder / (f"{NAME}.bat" if is_windows else NAME)

    def run(self, file: Path) -> Answer:
        """Write it, unless it came with the program. Raises StuckError."""
        try:
            if not _make_room(file):
                notes = f"{file} is there already: it came with the program\n"
                return Answer(ExitStatus.OK, notes=notes)
            _write(file)
        except OSError as error:
            raise StuckError(
                f"cannot write {file}: {error.strerror}: choose a --directory"
            ) from error
        notes = ""
        if str(file.parent) not in os.environ.get("PATH", "").split(os.pathsep):
            notes += f"{file.parent} is not on PATH: add it, or choose a --directory\n"
        notes += "kubectl runs it once its own completion is set up, for bash with:\n"
        notes += "  source <(kubectl completion bash)\n"
        notes += f"To remove it, also after the plugin: delete {file}\n"
        return Answer(ExitStatus.OK, f"{file}\n", notes)


def _make_room(file: Path) -> bool:
    """Remove the script of an earlier time; False where the installation has put one there.

    Raises OSError, and StuckError for a file of somebody else.
    """
    if not os.path.lexists(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        return True
    content = file.read_bytes().decode(errors="replace")
    if _MARK in content:
        file.unlink()
        return True
    if "kubectl_harvester_stuck" not in content:
        raise StuckError(
            f"{file} was not written by this command: remove it, or choose a --directory"
        )
    return False


def _write(file: Path) -> None:
    """Write the script. A link that somebody puts there now is not followed. Raises OSError."""
    is_windows = os.name == "nt"
    with file.open("xb") as script:
        if not is_windows:
            os.chmod(script.fileno(), 0o755)  # noqa: PTH101, S103 - the open file, a program for all
        script.write((_BATCH if is_windows else _SCRIPT).encode())


def _folder() -> Path:
    """Where the plugin is found, if that is the user's own: it is on PATH, and so Krew's."""
    from kubectl_harvester_stuck.state.private_files import home_directory

    plugin = shutil.which(PLUGIN)
    beside = Path(plugin).parent if plugin else None
    if beside is not None and os.access(beside, os.W_OK):
        return beside
    return home_directory(os.environ, "--directory") / ".local" / "bin"


@click.group("completion")
def command() -> None:
    """Set up TAB completion.

    \b
    Examples:
      kubectl harvester-stuck completion install
    """


@command.command("install", cls=Command)
@click.option("--directory", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Where to write it (default: beside the plugin).")  # fmt: skip
@click.pass_context
def install(ctx: click.Context, /, **flags: Any) -> ExitStatus:
    """Write the script that kubectl runs for TAB completion.

    Needed only after an installation with Krew; pip, pipx and uv install the
    script. It needs kubectl 1.26 or newer with its own completion set up.

    \b
    Examples:
      kubectl harvester-stuck completion install
      kubectl harvester-stuck completion install --directory ~/.local/bin
    """
    return execute(ctx, InstallOptions(**flags))
