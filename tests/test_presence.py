"""Whether what has to go is still there: by its uid, and by one list where many wait."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from kubectl_harvester_stuck.cluster.client import Cluster
from kubectl_harvester_stuck.cluster.shared_reads import SharedReads
from kubectl_harvester_stuck.errors import ApiError, StuckError, UnreachableError
from kubectl_harvester_stuck.k8s.kinds import POD, VM, VMI
from kubectl_harvester_stuck.k8s.objects import ObjectRef
from kubectl_harvester_stuck.k8s.source import ListQuery
from kubectl_harvester_stuck.release.presence import TOGETHER, Goal, Presence
from tests.support import builders
from tests.support.builders import Body, stored
from tests.test_checks import Memory

WEB = ObjectRef("shop", "web", VM)
MANY = [WEB] * TOGETHER


class Counted(Memory):
    """Objects in memory; tells what it was asked."""

    def __init__(self, *bodies: Body, fails: StuckError | None = None) -> None:
        super().__init__(list(bodies))
        self.asked: list[str] = []
        self.queries: list[ListQuery] = []
        self.fails = fails

    def list_objects(self, selection: Any, keep: Any) -> list[Any]:
        self.asked.append("list")
        self.queries.append(selection)
        if self.fails is not None:
            raise self.fails
        return super().list_objects(selection, keep)

    def get(self, ref: ObjectRef, **more: bool) -> Any:
        self.asked.append("get")
        if isinstance(self.fails, UnreachableError):
            raise self.fails
        return super().get(ref, **more)


def uid(body: Body) -> str:
    return str(body["metadata"]["uid"])


@pytest.fixture
def shared() -> Iterator[SharedReads]:
    with SharedReads() as reads:
        yield reads


def presence(source: Counted, shared: SharedReads, targets: list[ObjectRef]) -> Presence:
    return Presence(cast("Cluster", source), shared, targets)


@pytest.mark.parametrize(("targets", "how"), [([WEB], "get"), (MANY[1:], "get"), (MANY, "list")])
def test_only_the_very_object_is_there(
    shared: SharedReads, targets: list[ObjectRef], how: str
) -> None:
    vm = stored(builders.vm("shop", "web"))
    source = Counted(vm, stored(builders.vm("shop", "db")))
    looks = presence(source, shared, targets)
    assert looks.is_there(Goal(WEB, uid(vm)))
    assert not looks.is_there(Goal(WEB, "another"))
    assert not looks.is_there(Goal(ObjectRef("shop", "gone", VM), "another"))
    assert not looks.is_there(Goal(ObjectRef("shop", "web", VMI), uid(vm)))
    assert set(source.asked) == {how}
    assert looks.is_together("shop") is (how == "list")
    assert not looks.is_together("lab")


def test_a_pod_is_asked_for_by_its_name(shared: SharedReads) -> None:
    vmi = builders.vmi("shop", "web", "node-1")
    pod = stored(builders.pod("shop", "virt-launcher-web", "node-1", {**vmi, **stored(vmi)}))
    source = Counted(pod)
    looks = presence(source, shared, MANY)
    assert looks.is_there(Goal(ObjectRef("shop", "virt-launcher-web", POD), uid(pod)))
    assert source.asked == ["get"]


def test_a_pod_of_a_known_node_is_asked_for_with_the_others_there(shared: SharedReads) -> None:
    vmi = builders.vmi("shop", "web", "node-1")
    owner = {**vmi, **stored(vmi)}
    pod = stored(builders.pod("shop", "virt-launcher-web", "node-1", owner))
    source = Counted(pod, stored(builders.pod("shop", "other", "node-2", owner)))
    ref = ObjectRef("shop", "virt-launcher-web", POD)
    looks = presence(source, shared, MANY)
    assert looks.is_there(Goal(ref, uid(pod), "node-1"))
    assert not looks.is_there(Goal(ref, "another", "node-1"))
    assert source.asked == ["list", "list"]
    assert [item.fields for item in source.queries] == ["spec.nodeName=node-1"] * 2
    assert presence(source, shared, [WEB]).is_there(Goal(ref, uid(pod), "node-1"))
    assert source.asked[2:] == ["get"]


@pytest.mark.parametrize("code", [403, 404, 410, 500])
def test_where_no_list_can_be_had_the_object_is_asked_for(shared: SharedReads, code: int) -> None:
    vm = stored(builders.vm("shop", "web"))
    source = Counted(vm, fails=ApiError(code, "no", "no"))
    looks = presence(source, shared, MANY)
    assert looks.is_there(Goal(WEB, uid(vm)))
    assert not looks.is_there(Goal(WEB, "another"))
    assert set(source.asked) == {"list", "get"}


def test_one_object_that_cannot_be_read_hides_no_other(shared: SharedReads) -> None:
    vm = stored(builders.vm("shop", "web"))
    odd = {**stored(builders.vm("shop", "odd")), "metadata": {"namespace": "shop", "name": 5}}
    source = Counted(vm, odd)
    looks = presence(source, shared, MANY)
    assert looks.is_there(Goal(WEB, uid(vm)))
    assert source.asked == ["list", "get"]


def test_a_server_that_does_not_answer_is_no_absence(shared: SharedReads) -> None:
    source = Counted(fails=UnreachableError("down"))
    with pytest.raises(UnreachableError):
        presence(source, shared, MANY).is_there(Goal(WEB, "any"))
