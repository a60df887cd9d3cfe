"""Build Harvester's webhook and controllers of VMs from the Go modules pinned beside this file.

    python -m tests.components.harvester.build [VERSION]

prints the directory with the program and the CRDs. main.go is this project's own; go.mod repeats
what Harvester's own requires and replaces, which a module that only uses it does not inherit. To
move to another release, do so again: start from Harvester's go.mod and go.sum, add Harvester to
what is required, and run ``go mod tidy``. The pins of earlier releases are in ``versions``; for
those before 1.8 that is done with the build tag ``before18``.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from tests.support.built import main
from tests.support.goprograms import GoPrograms

PROGRAMS = {"harvester": "."}
CRDS = {"crds": ("github.com/harvester/harvester", "deploy/charts/harvester-crd/templates")}
HERE = Path(__file__).parent
EARLIER = tuple(sorted(path.stem for path in (HERE / "versions").glob("*.mod")))
"""Earlier releases that can be built as well."""


def programs(version: str | None = None) -> Path:
    """The directory that holds `PROGRAMS` and `CRDS`, built first if need be.

    Of the release of go.mod, or of an earlier one. Raises BuildError.
    """
    return _pinned(version).build()


def release(version: str | None = None) -> str:
    """The release that is built, as in ``v1.8.2``. Raises BuildError."""
    return _pinned(version).version("github.com/harvester/harvester")


def _pinned(version: str | None) -> GoPrograms:
    if version is None:
        return GoPrograms(HERE, PROGRAMS, data=CRDS)
    modfile = f"versions/{version}.mod"
    return GoPrograms(HERE, PROGRAMS, data=CRDS, tags=("before18",), modfile=modfile)


if __name__ == "__main__":
    main(partial(programs, *sys.argv[1:2]))
