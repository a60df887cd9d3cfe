"""Build KubeVirt's virt-controller from the Go modules pinned beside this file.

    python -m tests.components.virtcontroller.build

prints the directory with the program. go.mod repeats the replacements of KubeVirt's own, which a
module that only uses it does not inherit; there, two modules lie in its tree, here they are those
that were published. To move to another release, do both again.
"""

from __future__ import annotations

from pathlib import Path

from tests.support.built import main
from tests.support.goprograms import GoPrograms

PROGRAMS = {"virt-controller": "kubevirt.io/kubevirt/cmd/virt-controller"}


def programs() -> Path:
    """The directory that holds `PROGRAMS`, built first if need be. Raises BuildError."""
    return GoPrograms(Path(__file__).parent, PROGRAMS).build()


if __name__ == "__main__":
    main(programs)
