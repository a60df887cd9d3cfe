"""Files that only their user can read, and that are on the disk when a write returns."""

from __future__ import annotations

import os
from pathlib import Path

NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
"""For `open`: no symbolic link is followed. Windows has no such flag."""


def make_parents(path: Path) -> None:
    """Make the directories above the file, each of them private. Raises OSError."""
    # With `parents` only the last would be.
    for above in reversed(path.parents):
        above.mkdir(mode=0o700, exist_ok=True)


def sync_parent(path: Path) -> None:
    """Sync the directory of the file: its name is then on the disk, too. Raises OSError."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows cannot open a directory
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
