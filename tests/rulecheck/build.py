"""Build a checker of rule files from the Go modules pinned beside this file.

    python -m tests.rulecheck.build

prints the directory with the program. It calls rulefmt of Prometheus, which is what `promtool
check rules` calls; promtool itself would bring the clients of every cloud along. To move to
another release: ``go get github.com/prometheus/prometheus@v0.X.Y``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.goprograms import BuildError, GoPrograms

PROGRAMS = {"rulecheck": "."}


def programs() -> Path:
    """The directory that holds `PROGRAMS`, built first if need be. Raises BuildError."""
    return GoPrograms(Path(__file__).parent, PROGRAMS).build()


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{programs()}\n")
    except BuildError as failure:
        sys.exit(f"error: {failure}")
