"""Build promtool from the Go modules pinned beside this file.

    python -m tests.components.promtool.build

prints the directory with the program. To move to another release:
``go get -tool github.com/prometheus/prometheus/cmd/promtool@v0.X.Y``.
"""

from __future__ import annotations

from pathlib import Path

from tests.support.built import main
from tests.support.goprograms import GoPrograms

PROGRAMS = {"promtool": "github.com/prometheus/prometheus/cmd/promtool"}


def programs() -> Path:
    """The directory that holds `PROGRAMS`, built first if need be. Raises BuildError."""
    return GoPrograms(Path(__file__).parent, PROGRAMS).build()


if __name__ == "__main__":
    main(programs)
