"""Build krew, validate-krew-manifest and krew-template from the Go modules pinned here.

    python -m tests.components.krew.build

prints the directory with the three programs; template.go says what the last one does. Without a
stamped version krew never looks for a newer one of itself. To move to another release:
``go get -tool sigs.k8s.io/krew/cmd/...@v0.X.Y``.
"""

from __future__ import annotations

from pathlib import Path

from tests.support.built import main
from tests.support.goprograms import GoPrograms

PROGRAMS = {
    "krew": "sigs.k8s.io/krew/cmd/krew",
    "validate-krew-manifest": "sigs.k8s.io/krew/cmd/validate-krew-manifest",
    "krew-template": "krew",
}


def programs() -> Path:
    """The directory that holds `PROGRAMS`, built first if need be. Raises BuildError."""
    return GoPrograms(Path(__file__).parent, PROGRAMS).build()


if __name__ == "__main__":
    main(programs)
