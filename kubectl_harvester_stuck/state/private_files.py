"""Where this program keeps its files: private to their user, and on the disk once written."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from kubectl_harvester_stuck.errors import StateError

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
"""For `open`: no symbolic link is followed. Windows has no such flag."""

VARIABLE = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_STATE_HOME"
"""The environment variable that says below which directory the files are."""


def state_directory(environ: Mapping[str, str]) -> Path:
    """Where this program keeps its files: below the XDG state directory, or Windows' own.

    Raises StateError where the environment names no absolute path: the next run, in another
    directory, would not find the files again.
    """
    named = environ.get(VARIABLE)
    if named and not Path(named).is_absolute():
        raise StateError(
            f"{VARIABLE} is {named!r}, which is no absolute path: set it to one, or unset it"
        )
    if named:
        base = Path(named)
    elif sys.platform == "win32":
        base = home_directory(environ, VARIABLE) / "AppData" / "Local"
    else:
        base = home_directory(environ, VARIABLE) / ".local" / "state"
    return base / "kubectl-harvester-stuck"


def home_directory(environ: Mapping[str, str], instead: str) -> Path:
    """The home directory. Raises StateError where none is known, or no absolute path.

    `instead` is what else can be set, for its message.
    """
    if sys.platform == "win32" or "HOME" not in environ:
        try:
            return Path.home()
        except RuntimeError:
            what = "HOME is not set, and the user database names no home directory"
    elif Path(environ["HOME"]).is_absolute():
        return Path(environ["HOME"])
    else:
        what = f"HOME is {environ['HOME']!r}" if environ["HOME"] else "HOME is empty"
    raise StateError(f"{what}: set HOME or {instead} to an absolute path")


def make_parents(path: Path) -> None:
    """Make the directories above the file, each of them private. Raises OSError."""
    # With `parents` only the last would be.
    for above in reversed(path.parents):
        above.mkdir(mode=0o700, exist_ok=True)


def open_private(path: Path, flags: int, *, no_follow: int = _NO_FOLLOW) -> int:
    """Open the file for bytes, and make it for its user alone; no symbolic link is followed.

    `no_follow` is the system's own flag for that; 0 where it has none. Raises OSError.
    """
    if not no_follow and path.is_symlink():
        raise _is_a_link()
    handle = os.open(path, flags | no_follow | getattr(os, "O_BINARY", 0), 0o600)
    try:
        # A link may have come since it was looked for.
        if not no_follow and not os.path.samestat(os.fstat(handle), path.lstat()):
            raise _is_a_link()
    except OSError:
        os.close(handle)
        raise
    return handle


def _is_a_link() -> OSError:
    """What systems with the flag answer."""
    return OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def why_foreign(status: os.stat_result) -> str:
    """Why others than this user can have written the file; "" where none can, but root."""
    if sys.platform == "win32":  # where the directory's permissions hold
        return ""
    if status.st_uid not in (os.geteuid(), 0):
        return "belongs to another user"
    return "can be written to by others" if status.st_mode & 0o022 else ""


def sync_parent(path: Path) -> None:
    """Sync the directory of the file: its name is then on the disk, too. Raises OSError."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows cannot open a directory
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
