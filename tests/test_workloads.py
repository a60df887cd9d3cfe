"""Where KubeVirt's controllers are looked for: in Harvester's namespace, or in that of KubeVirt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.harvester import workloads
from kubectl_harvester_stuck.k8s.kinds import (
    DAEMON_SET,
    DEPLOYMENT,
    HARVESTER_NAMESPACE,
    KUBEVIRT,
    POD,
    Kind,
)
from kubectl_harvester_stuck.k8s.objects import ObjectRef
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot
from tests.support import builders
from tests.support.builders import Body, bare, snapshot, stored

ELSEWHERE = "kubevirt"


def moved(body: Body) -> Body:
    return stored({**body, "metadata": {**body["metadata"], "namespace": ELSEWHERE}})


def kubevirt(namespace: str) -> Body:
    return stored(bare(KUBEVIRT, namespace, "kubevirt"))


def around(*bodies: Body, unread: tuple[Kind, ...] = ()) -> ClusterSnapshot:
    return snapshot(*bodies, unreadable=dict.fromkeys(unread, "Forbidden"))


CONTROLLER = builders.deployment("virt-controller")
HANDLER = builders.virt_handler("node-1", ready=True)


@pytest.mark.parametrize(
    ("of_kubevirt", "place"),
    [
        ([], HARVESTER_NAMESPACE),
        ([HARVESTER_NAMESPACE], HARVESTER_NAMESPACE),
        ([ELSEWHERE], ELSEWHERE),
        ([ELSEWHERE, HARVESTER_NAMESPACE], HARVESTER_NAMESPACE),
    ],
)
def test_kubevirt_runs_where_its_object_is(of_kubevirt: list[str], place: str) -> None:
    cluster = around(*map(kubevirt, of_kubevirt))
    for name in workloads.OF_KUBEVIRT:
        assert workloads.namespace_of(name, cluster) == place
    assert workloads.namespace_of("harvester", cluster) == HARVESTER_NAMESPACE


def test_a_workload_is_found_in_its_namespace() -> None:
    cluster = around(
        kubevirt(ELSEWHERE), moved(CONTROLLER), stored(builders.deployment("harvester"))
    )
    assert workloads.ref_of("deploy/virt-controller", cluster) == ObjectRef(
        ELSEWHERE, "virt-controller", DEPLOYMENT
    )
    for name in ("deploy/virt-controller", "deploy/harvester"):
        found = workloads.find(name, cluster)
        assert found is not None
        assert found.ref == workloads.ref_of(name, cluster)
    assert workloads.find("deploy/virt-api", cluster) is None
    assert workloads.ref_of("ds/virt-handler", cluster).kind is DAEMON_SET


def test_what_runs_in_harvesters_namespace_is_found_whatever_else_there_is() -> None:
    """A KubeVirt object that somebody left elsewhere hides nothing."""
    cluster = around(kubevirt(ELSEWHERE), stored(CONTROLLER), stored(HANDLER))
    found = workloads.find("deploy/virt-controller", cluster)
    assert found is not None
    assert found.ref.namespace == HARVESTER_NAMESPACE
    assert [pod.ref.name for pod in workloads.virt_handlers(cluster)] == ["virt-handler-node-1"]


@pytest.mark.parametrize("places", [[HARVESTER_NAMESPACE, ELSEWHERE], ["a", ELSEWHERE]])
def test_of_several_kubevirts_each_place_is_looked_at(places: list[str]) -> None:
    cluster = around(*map(kubevirt, places), moved(CONTROLLER), moved(HANDLER))
    assert [pod.ref.namespace for pod in workloads.virt_handlers(cluster)] == [ELSEWHERE]
    found = workloads.find("deploy/virt-controller", cluster)
    assert found is not None
    assert found.ref.namespace == ELSEWHERE


def test_pods_are_those_of_both_namespaces() -> None:
    pods = [stored(builders.controller_pod("harvester")), moved(HANDLER)]
    cluster = around(kubevirt(ELSEWHERE), *pods)
    names = {pod.ref.name for pod in workloads.pods(cluster)}
    assert names == {pod["metadata"]["name"] for pod in pods}
    assert [pod.ref.namespace for pod in workloads.virt_handlers(cluster)] == [ELSEWHERE]


@pytest.mark.parametrize(
    ("look", "kind"),
    [
        (lambda cluster: workloads.find("deploy/virt-controller", cluster), DEPLOYMENT),
        (workloads.virt_handlers, POD),
    ],
    ids=["workload", "virt-handler"],
)
def test_what_may_be_elsewhere_is_not_absent(
    look: Callable[[ClusterSnapshot], Any], kind: Kind
) -> None:
    """Without the KubeVirt object only what is found in Harvester's namespace counts."""
    there = around(stored(CONTROLLER), stored(HANDLER), unread=(KUBEVIRT,))
    assert look(there)
    with pytest.raises(UnreadableError, match="kubevirts"):
        look(around(unread=(KUBEVIRT,)))
    assert not look(around())
    with pytest.raises(UnreadableError, match=kind.plural):
        look(around(kubevirt(ELSEWHERE), unread=(kind,)))


def test_harvesters_own_workloads_need_no_kubevirt() -> None:
    assert workloads.find("deploy/harvester", around(unread=(KUBEVIRT,))) is None


def test_nothing_is_read_elsewhere_where_kubevirt_is_harvesters() -> None:
    assert workloads.elsewhere(around(kubevirt(HARVESTER_NAMESPACE))) == ()
    assert workloads.elsewhere(around()) == ()
    with pytest.raises(UnreadableError):
        workloads.elsewhere(around(unread=(KUBEVIRT,)))
