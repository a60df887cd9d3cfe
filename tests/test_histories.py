"""Random histories of a cluster: does the program ever let a second guest start?

An oracle of its own: `tests.histories` knows from the source of KubeVirt and Kubernetes where each
guest really runs, and nothing of the guards of the program.

`HISTORIES=3000 python -m pytest tests/test_histories.py` looks longer than CI does, `FROM=5000`
elsewhere. A failure shows the shortest history that goes wrong; `HISTORY=1039` plays one again.
"""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.histories import stand_ins
from tests.histories.invent import invent, readable, shortest
from tests.histories.known import HAVE_TO_GO, HISTORIES
from tests.histories.play import History, Told, played
from tests.support.simulator import Simulator
from tests.support.world import World

NUMBER = int(os.environ.get("HISTORIES", "300"))
FROM = int(os.environ.get("FROM", "0"))
ONLY = os.environ.get("HISTORY")
SHARES = 8
SHOWN = 2
"""Histories that each share shows of each kind of fault; the others are only counted."""

_numbers = itertools.count(1)

Player = Callable[..., Told]


@pytest.fixture(scope="module")
def server() -> Iterator[Simulator]:
    """A simulated API server of its own: everybody in it is played."""
    with Simulator() as api:
        yield api


@pytest.fixture
def play(server: Simulator, tmp_path: Path, program: Path | None) -> Player:
    return player(server, tmp_path, program=program)


def player(
    server: Simulator,
    directory: Path,
    stand_in: Callable[[World], Any] | None = None,
    *,
    program: Path | None = None,
) -> Player:
    """Plays histories, each in a namespace of its own, with this program or what stands in."""

    def play(history: History, *, is_idle: bool = False) -> Told:
        number = next(_numbers)
        folder = directory / str(number)
        folder.mkdir()
        world = World(server, folder, f"shop-{number}", "n1", "n2", program=program)
        other = stand_in(world) if stand_in else None
        return played(server, world, history, other, is_idle=is_idle)

    return play


@pytest.mark.parametrize("share", range(SHARES))
def test_no_history_goes_wrong(play: Player, share: int) -> None:
    numbers = range(FROM + share, FROM + NUMBER, SHARES)
    if ONLY is not None:
        numbers = range(int(ONLY), int(ONLY) + 1) if share == 0 else range(0)
    shown: list[str] = []
    kinds: Counter[str] = Counter()
    sums: Counter[str] = Counter()
    for number in numbers:
        told = play(invent(number))
        sums.update(had_to=told.had_to, released=told.released, refused=told.refused)
        for kind in sorted({wrong.kind for wrong in told.wrong}):
            kinds[kind] += 1
            if kinds[kind] <= SHOWN:
                history = shortest(invent(number), play, kind)
                shown.append(readable(number, history, play(history), play(history, is_idle=True)))
    assert not kinds, "\n\n".join([f"{dict(kinds)} in {len(numbers)} histories", *shown])
    # Who refuses everything would be right about all guests; so there have to be releases.
    if len(numbers) >= 40:
        assert min(sums["had_to"], sums["released"], sums["refused"]) >= 2, sums


@pytest.mark.parametrize("name", HISTORIES)
def test_a_known_history_goes_well(play: Player, name: str) -> None:
    history = HISTORIES[name]
    told = play(history)
    assert not told.wrong, readable(0, history, told, play(history, is_idle=True))
    assert bool(told.had_to) == (name in HAVE_TO_GO)


def test_who_refuses_everything_is_found_out(server: Simulator, tmp_path: Path) -> None:
    play = player(server, tmp_path, lambda _: stand_ins.refuses)
    wrong = [one.kind for number in range(40) for one in play(invent(number)).wrong]
    assert set(wrong) == {"refused"}
    assert len(wrong) >= 4


def test_who_strips_everything_is_found_out(server: Simulator, tmp_path: Path) -> None:
    play = player(server, tmp_path, lambda world: stand_ins.Strips(server, world))
    found = {one.kind for number in range(80) for one in play(invent(number)).wrong}
    assert found >= {"two-guests", "not-terminating", "data"}


def test_who_believes_each_ended_pod_is_found_out(server: Simulator, tmp_path: Path) -> None:
    """One that asks whether all pods that are left have ended, and nothing else."""
    play = player(server, tmp_path, lambda world: stand_ins.BelievesPods(server, world))
    found = {one.kind for number in range(150) for one in play(invent(number)).wrong}
    assert "two-guests" in found


def test_a_history_is_always_the_same(play: Player) -> None:
    first, again = (play(invent(3)) for _ in range(2))
    assert (first.story, first.wrong) == (again.story, again.wrong)
    assert json.dumps([str(step) for step in invent(7)]) == json.dumps(
        [str(step) for step in invent(7)]
    )
