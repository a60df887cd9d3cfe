"""What a snapshot keeps for those who ask again, and that it is still right after a step."""

from __future__ import annotations

import pytest

from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.k8s.kinds import POD, VM
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot
from tests.support.builders import NOW, bare, parsed, stored

WEB, DB = (parsed(stored(bare(POD, "shop", name))) for name in ("web", "db"))
MACHINE = parsed(stored(bare(VM, "shop", "web")))
SNAPSHOT = ClusterSnapshot(NOW, {(POD, "shop"): (WEB, DB), (VM, "shop"): (MACHINE,)})


class Initial:
    """The first letter of a name, and whose was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, item: KubeObject) -> str:
        self.asked.append(item.ref.name)
        return item.ref.name[0]


def test_objects_are_sorted_once() -> None:
    initial = Initial()
    for _ in range(2):
        assert SNAPSHOT.sorted_by(initial, POD, "shop") == {"w": [WEB], "d": [DB]}
    assert initial.asked == ["web", "db"]


def test_what_a_step_leaves_alone_is_not_sorted_again() -> None:
    initial = Initial()
    for after in (SNAPSHOT.without(MACHINE.ref), SNAPSHOT.without(MACHINE.ref).without(DB.ref)):
        after.sorted_by(initial, VM, "shop")
    initial.asked.clear()
    for _ in range(3):
        assert SNAPSHOT.without(MACHINE.ref).sorted_by(initial, POD, "shop")["w"] == [WEB]
    assert initial.asked == ["web", "db"]


def test_what_a_step_takes_away_is_gone() -> None:
    initial = Initial()
    SNAPSHOT.sorted_by(initial, POD, "shop")
    after = SNAPSHOT.without(WEB.ref)
    assert after.sorted_by(initial, POD, "shop") == {"d": [DB]}
    assert after.one(WEB.ref) is None
    assert after.one(DB.ref) is DB
    assert after.without(DB.ref).one(DB.ref) is None
    assert SNAPSHOT.one(WEB.ref) is WEB


def test_of_two_objects_of_one_name_the_first_counts() -> None:
    twin = parsed({**WEB.body, "spec": {}})
    assert ClusterSnapshot(NOW, {(POD, "shop"): (WEB, twin)}).one(WEB.ref) is WEB


def test_what_was_not_read_is_not_absent_after_a_step_either() -> None:
    blind = ClusterSnapshot(NOW, SNAPSHOT.listed, unreadable={(POD, "lab"): "Forbidden"})
    for snapshot in (blind, blind.without(WEB.ref), blind.without(MACHINE.ref)):
        with pytest.raises(UnreadableError, match="Forbidden"):
            snapshot.one(ObjectRef("lab", "web", POD))
        with pytest.raises(UnreadableError, match="not read"):
            snapshot.sorted_by(Initial(), VM, "lab")
