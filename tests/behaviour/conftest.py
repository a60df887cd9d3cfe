"""The installed program, and kubectl that finds it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.support.world import World

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory, program: Path | None) -> Path:
    """`pip install .` of this checkout, once in a test run; or --program, linked there."""
    if program is not None:
        target = tmp_path_factory.mktemp("installed")
        (target / "bin").mkdir()
        (target / "bin" / "kubectl-harvester_stuck").symlink_to(program)
        # As who installed with Krew gets completion.
        subprocess.run(
            [program, "completion", "install", "--directory", target / "bin"], check=True
        )
        return target
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    target = shared / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    # It is built in the tree, where two at a time are in each other's way.
    with (shared / "installed.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            scratch = tmp_path_factory.mktemp("scratch")
            subprocess.run([*pip, "--target", str(scratch), str(ROOT)], check=True)
            scratch.rename(target)
    return target


Kubectl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(installed: Path, kubectl: Path, world: World) -> Kubectl:
    """kubectl, with the installed program on its PATH."""

    def call(
        *words: str, environ: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        given = environ or world.environ()
        path = os.pathsep.join([str(installed / "bin"), given["PATH"]])
        return subprocess.run(
            [kubectl, *words],
            env={**given, "PATH": path, "PYTHONPATH": str(installed)},
            capture_output=True,
            text=True,
            check=False,
        )

    return call
