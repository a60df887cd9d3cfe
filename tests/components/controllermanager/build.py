"""Build kube-controller-manager from the Go modules pinned beside this file.

    python -m tests.components.controllermanager.build

prints the directory with the program. Its modules have the versions of the control
plane, so that most of what it is compiled from is compiled already.
"""

from __future__ import annotations

from pathlib import Path

from tests.components.controlplane.build import kubernetes
from tests.support.built import main

PROGRAMS = {"kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager"}


def programs() -> Path:
    """The directory that holds `PROGRAMS`, built first if need be. Raises BuildError."""
    return kubernetes(Path(__file__).parent, PROGRAMS).build()


if __name__ == "__main__":
    main(programs)
