"""What the tests build or fetch once and keep outside the tree."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path


class BuildError(RuntimeError):
    """What a test needs cannot be had; the message says why."""


def once(component: str, key: str, make: Callable[[Path], None]) -> Path:
    """The directory in the cache that `make` makes if it is not there, which appears as a whole.

    `key` names all that decides what is in it. Of processes that ask at once only one makes it.
    Raises what `make` raises.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = base / "kubectl-harvester-stuck" / component / key
    if directory.is_dir():
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    with (directory.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.is_dir():
            make(directory)
    return directory


def run(
    command: list[str], directory: Path | None = None, *, environ: Mapping[str, str] | None = None
) -> str:
    """Run `command` in `directory`: what it wrote. Raises BuildError with its last words."""
    try:
        done = subprocess.run(
            command, cwd=directory, env={**os.environ, **(environ or {})},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    except OSError as error:
        raise BuildError(f"cannot run {command[0]}: {error}") from error
    if done.returncode:
        words = (done.stderr or done.stdout).strip()
        raise BuildError(f"{' '.join(command)} failed ({done.returncode}):\n{words[-2000:]}")
    return done.stdout


def main(made: Callable[[], Path]) -> None:
    """Print where it is, or end with one line that says why there is none."""
    try:
        sys.stdout.write(f"{made()}\n")
    except BuildError as failure:
        sys.exit(f"error: {failure}")
