"""A program on a terminal of its own, typed to and read from through pipes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# In a process of its own: what has threads should not fork.
_ON_TERMINAL = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)"


def on_terminal(
    command: Sequence[str | Path], environ: Mapping[str, str], directory: Path
) -> subprocess.Popen[bytes]:
    """The started program; its standard output is what the terminal shows."""
    return subprocess.Popen(
        [sys.executable, "-c", _ON_TERMINAL, *command],
        env=environ,
        cwd=directory,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
