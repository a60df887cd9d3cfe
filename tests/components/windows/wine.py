"""Wine: its programs, its environment, and the drive C of a directory."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.support.built import BuildError

DEBIAN = Path("/usr/lib/wine")
"""Where Debian's packages have their programs; the ones on PATH there insist on 32 bits as well."""

IDLE = 600
"""Seconds after which Wine's server ends when nothing runs."""

_LOCAL = ("SSL_CERT_FILE", "SSL_CERT_DIR", "PYTHONDONTWRITEBYTECODE", "DISPLAY")
"""Variables of this machine that mean nothing on Windows."""


def program(name: str) -> str:
    """A program of Wine. Raises BuildError where there is none."""
    beside = shutil.which(name, path=DEBIAN)
    found = beside or shutil.which(name) or shutil.which(name.removesuffix("64"))
    if not found:
        raise BuildError(f"there is no {name}: on Debian, apt install wine64 wine")
    return found


def environ(home: Path, given: Mapping[str, str]) -> dict[str, str]:
    """`given`, for programs on the drive C of `home`."""
    return {
        **{name: value for name, value in given.items() if name not in _LOCAL},
        "WINEPREFIX": str(home / "drive"),
        "WINEARCH": "win64",
        "WINEDEBUG": "-all",
        # Neither browser nor .NET nor menus of a desktop.
        "WINEDLLOVERRIDES": "mshtml=;mscoree=;winemenubuilder.exe=",
    }


def make_drive(home: Path) -> None:
    """Make the drive C, as of Windows 10. Raises CalledProcessError and BuildError."""
    start_server(home)
    _quiet(home, "winecfg", "-v", "win10")


def start_server(home: Path) -> None:
    """Start Wine's server and services, if they do not run. Raises CalledProcessError, BuildError.

    Whatever starts first starts the services, which keep its streams open: all others wait.
    """
    server = [program("wineserver64"), f"-p{IDLE}"]
    with (home / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            server, env=environ(home, os.environ), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        if done.returncode == 0:  # otherwise it runs
            _quiet(home, "wineboot", "--init")


def _quiet(home: Path, *words: str) -> None:
    subprocess.run(
        [program("wine64"), *words], env=environ(home, os.environ), stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True,
    )  # fmt: skip


def path(name: str | Path) -> str:
    """What Windows calls a file of this machine."""
    return "Z:" + os.path.abspath(name).replace("/", "\\")  # noqa: PTH100 - follows no link


def local(name: str) -> Path:
    """The file of this machine that has this name on Windows, or that name anyway."""
    return Path(name[2:].replace("\\", "/") if name.startswith("Z:\\") else name)
