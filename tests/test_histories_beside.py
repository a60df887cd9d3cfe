"""Histories beside KubeVirt's own virt-controller: what `tests.histories` models is real.

A few are played in every run. `BESIDE=200 python -m pytest tests/test_histories_beside.py` plays
all known ones and so many by chance, `FROM=5000` others.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.components.controlplane.server import ControlPlane
from tests.components.virtcontroller.server import USER, VirtController
from tests.histories.beside import beside, played_beside
from tests.histories.invent import invent, readable
from tests.histories.known import BESIDE, HISTORIES
from tests.histories.play import Told
from tests.support.world import World

NUMBER = int(os.environ.get("BESIDE", "1"))
KNOWN = tuple(HISTORIES) if "BESIDE" in os.environ else BESIDE
FROM = int(os.environ.get("FROM", "0"))
SHARES = 2

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def api() -> Iterator[ControlPlane]:
    """An API server of its own: virt-controller sees everything in it."""
    with ControlPlane(users={USER: ("system:masters",)}) as server:
        yield server


@pytest.fixture(scope="module")
def controller(
    api: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VirtController]:
    with VirtController(api, tmp_path_factory.mktemp("virt-controller")) as program:
        yield program


@pytest.mark.parametrize("share", range(min(SHARES, NUMBER)))
def test_no_history_goes_wrong_beside_virt_controller(
    api: ControlPlane,
    controller: VirtController,
    tmp_path: Path,
    program: Path | None,
    share: int,
) -> None:
    shown = []
    for number in range(FROM + share, FROM + NUMBER, SHARES):
        folder = tmp_path / str(number)
        folder.mkdir()
        world = World(api, folder, f"beside-{next(_numbers)}", "n1", "n2", program=program)
        history = beside(invent(number))
        told = played_beside(api, world, controller, history)
        if told.wrong:
            shown.append(readable(number, history, told, Told()))
    assert not shown, "\n\n".join(shown)


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_history_goes_well_beside_virt_controller(
    api: ControlPlane, controller: VirtController, tmp_path: Path, program: Path | None, name: str
) -> None:
    world = World(api, tmp_path, f"beside-{next(_numbers)}", "n1", "n2", program=program)
    history = HISTORIES[name]
    told = played_beside(api, world, controller, history)
    assert not told.wrong, readable(0, beside(history), told, Told())
