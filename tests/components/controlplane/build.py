"""Build etcd, kube-apiserver and kubectl from the Go modules pinned beside this file.

    python -m tests.components.controlplane.build

prints the directory with the three programs. As in envtest, ``KUBEBUILDER_ASSETS`` names a
directory with programs to use instead. With an argument they are those of an earlier release of
Kubernetes:

- ``oldest``, of ``controlplane-oldest``: the oldest that is supported, that of Harvester 1.4;
- ``policies``, of ``controlplane-policies``: the oldest that serves ValidatingAdmissionPolicies.

To move to another release of Kubernetes, replace its version in go.mod (v1.X.Y, and v0.X.Y for the
modules that are released with it) and run ``go mod tidy``; etcd follows what Kubernetes requires.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from tests.support.built import BuildError, main
from tests.support.goprograms import GoPrograms

PROGRAMS = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
}
_NEWEST = Path(__file__).parent
EARLIER = ("oldest", "policies")
"""The earlier releases that can be built as well."""


def programs() -> Path:
    """The directory that holds `PROGRAMS`, built first if need be. Raises BuildError."""
    if assets := os.environ.get("KUBEBUILDER_ASSETS"):
        missing = [name for name in PROGRAMS if not os.access(Path(assets, name), os.X_OK)]
        if missing:
            raise BuildError(f"KUBEBUILDER_ASSETS={assets} does not have {', '.join(missing)}")
        return Path(assets)
    return _build(_NEWEST)


def earlier(name: str) -> Path:
    """The same of one of `EARLIER`. Raises BuildError."""
    if name not in EARLIER:
        raise BuildError(f"{name} is none of {', '.join(EARLIER)}")
    return _build(_NEWEST.with_name(f"controlplane-{name}"))


def _build(module: Path) -> Path:
    return kubernetes(module, PROGRAMS).build()


def kubernetes(module: Path, packages: Mapping[str, str]) -> GoPrograms:
    """Programs of Kubernetes, which know the release that they are of."""
    version = GoPrograms(module, packages).version("k8s.io/kubernetes")
    stamped = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    stamps = tuple(f"{package}.gitVersion={version}" for package in stamped)
    return GoPrograms(module, packages, stamps)


if __name__ == "__main__":
    main(partial(earlier, sys.argv[1]) if sys.argv[1:] else programs)
