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
_PLUGIN_BY_ITS_NAME = f'#!/bin/sh\n# {_MARK}\nexec {PLUGIN}.exe "$@"\n'
_PROFILE = {
    "posix": "kubectl runs it once its own completion is set up, for bash with:\n"
    "  source <(kubectl completion bash)\n",
    "nt": "kubectl runs it once its own completion is set up, for PowerShell with:\n"
    "  kubectl completion powershell | Out-String | Invoke-Expression\n",
}


class _Script(NamedTuple):
    file: Path
    content: str


class InstallOptions(NamedTuple):
    """The flags of `completion install`."""

    directory: Path | None
    system: str = os.name
    """The operating system, as Python calls it."""

    def validate(self) -> None:
        """There is only one."""

    def complete(self, _ctx: click.Context) -> list[_Script]:
        """The files to write."""
        there = None if self.directory else shutil.which(NAME)
        folder = (self.directory or _folder()).expanduser().absolute()
        if self.system != "nt":
            return [_Script(Path(there) if there else folder / NAME, _SCRIPT)]
        # kubectl.exe offers every plugin by the whole name of its file, `harvester-stuck.exe`, and
        # completes no other. What has no suffix makes it know the name as it is typed; it is never
        # started but by a shell such as that of Git.
        batch = Path(there) if there else folder / f"{NAME}.bat"
        return [_Script(batch, _BATCH), _Script(batch.with_name(PLUGIN), _PLUGIN_BY_ITS_NAME)]

    def run(self, scripts: list[_Script]) -> Answer:
        """Write them, but for what came with the program. Raises StuckError."""
        written: list[Path] = []
        notes = ""
        for script in scripts:
            try:
                if _make_room(script.file):
                    _write(script, is_program=self.system != "nt")
                    written.append(script.file)
                else:
                    notes += f"{script.file} is there already: it came with the program\n"
            except OSError as error:
                raise StuckError(
                    f"cannot write {script.file}: {error.strerror}: choose a --directory"
                ) from error
        if not written:
            return Answer(ExitStatus.OK, notes=notes)
        folder = written[0].parent
        if str(folder) not in os.environ.get("PATH", "").split(os.pathsep):
            notes += f"{folder} is not on PATH: add it, or choose a --directory\n"
        notes += _PROFILE[self.system]
        files = " and ".join(map(str, written))
        notes += f"To remove it, also after the plugin: delete {files}\n"
        return Answer(ExitStatus.OK, "".join(f"{file}\n" for file in written), notes)


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


def _write(script: _Script, *, is_program: bool) -> None:
    """Write the script. A link that somebody puts there now is not followed. Raises OSError."""
    with script.file.open("xb") as file:
        if is_program:
            os.chmod(file.fileno(), 0o755)  # noqa: PTH101, S103 - the open file, a program for all
        file.write(script.content.encode())


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
