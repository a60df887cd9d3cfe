"""Build helm from the Go modules pinned beside this file.

    python -m tests.components.helm.build

prints the directory with the program. The modules of Kubernetes have the versions of the control
plane. To move to another release: ``go get -tool helm.sh/helm/v3/cmd/helm@v3.X.Y``.
"""

from __future__ import annotations

from pathlib import Path

from tests.support.built import main
from tests.support.goprograms import GoPrograms

PROGRAMS = {"helm": "helm.sh/helm/v3/cmd/helm"}


def programs() -> Path:
    """The directory that holds `PROGRAMS`, built first if need be. Raises BuildError."""
    module = Path(__file__).parent
    pins = GoPrograms(module, PROGRAMS)
    minor = pins.version("k8s.io/client-go").split(".")[1]
    stamps = [f"internal/version.version={pins.version('helm.sh/helm/v3')}"]
    # As in the Makefile of helm: the Kubernetes that `lint` and `template` render for.
    for package in ("pkg/lint/rules", "pkg/chartutil"):
        stamps += [f"{package}.k8sVersionMajor=1", f"{package}.k8sVersionMinor={minor}"]
    stamped = tuple(f"helm.sh/helm/v3/{stamp}" for stamp in stamps)
    return GoPrograms(module, PROGRAMS, stamped).build()


if __name__ == "__main__":
    main(programs)
