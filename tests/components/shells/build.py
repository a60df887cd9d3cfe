"""zsh and bash-completion: those of this machine, otherwise the packages of its distribution.

    python -m tests.components.shells.build

prints the directory that stands for `/`. The packages are unpacked into the cache; nothing is
installed, and apt's own state stays as it is.
"""

from __future__ import annotations

import fcntl
import os
import platform
import subprocess
import tempfile
from pathlib import Path

from tests.support.goprograms import BuildError, main

PACKAGES = ("bash-completion", "zsh", "zsh-common")
BASH_COMPLETION = "usr/share/bash-completion/bash_completion"
ZSH = "bin/zsh"


def root() -> Path:
    """The directory below which `ZSH` and `BASH_COMPLETION` are. Raises BuildError."""
    if _is_complete(Path("/")):
        return Path("/")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    name = "-".join((release.get("ID", ""), release.get("VERSION_ID", ""), platform.machine()))
    directory = base / "kubectl-harvester-stuck" / "shells" / name
    directory.parent.mkdir(parents=True, exist_ok=True)
    with (directory.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.is_dir():
            _unpack(directory)
    return directory


def _is_complete(directory: Path) -> bool:
    return all((directory / name).is_file() for name in (ZSH, BASH_COMPLETION))


def _unpack(directory: Path) -> None:
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".new-") as name:
        scratch = Path(name)
        for part in ("lists/partial", "archives/partial", "root"):
            (scratch / part).mkdir(parents=True)
        apt = ["apt-get", "--quiet", f"-oDir::State::Lists={scratch}/lists"]
        apt += [f"-oDir::Cache={scratch}", "-oDebug::NoLocking=1", "-oAPT::Sandbox::User="]
        _run([*apt, "update"], scratch)
        _run([*apt, "download", *PACKAGES], scratch)
        for package in sorted(scratch.glob("*.deb")):
            _run(["dpkg-deb", "--extract", str(package), "root"], scratch)
        if not _is_complete(scratch / "root"):
            raise BuildError(f"{', '.join(PACKAGES)} hold no {ZSH} or no {BASH_COMPLETION}")
        (scratch / "root").rename(directory)


def _run(command: list[str], directory: Path) -> None:
    """Run `command` in `directory`. Raises BuildError with its last words."""
    advice = "install zsh and bash-completion"
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BuildError(f"cannot run {command[0]}: {error}: {advice}") from error
    if done.returncode:
        raise BuildError(f"{command[0]} failed: {done.stderr.strip()[-2000:]}: {advice}")


if __name__ == "__main__":
    main(root)
