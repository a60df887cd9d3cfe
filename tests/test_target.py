"""What belongs to a target: its pods, the nodes they may run on, its state, its disks."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.harvester.target import State, Target, is_stopped, pvc_names
from kubectl_harvester_stuck.k8s.kinds import POD, VM, VMI
from kubectl_harvester_stuck.k8s.objects import ObjectRef
from tests.support import builders
from tests.support.builders import NOW, Body, ago, parsed, snapshot, stored, time
from tests.test_guards import TARGET, deleted_pod, deleted_vm, deleted_vmi


def case_of(*bodies: Body, ref: ObjectRef = TARGET) -> Target:
    return Target(ref, snapshot(*bodies))


def vm(**more: Any) -> Body:
    """A VM that lives."""
    return stored(builders.vm("shop", "web", **more))


def with_meta(body: Body, **meta: Any) -> Body:
    return {**body, "metadata": {**body["metadata"], **meta}}


INSTANCE = deleted_vmi()
UID = INSTANCE["metadata"]["uid"]
LAUNCHER = {"kubevirt.io": "virt-launcher"}
OWNER = {
    "apiVersion": "kubevirt.io/v1",
    "kind": "VirtualMachineInstance",
    "name": "web",
    "uid": UID,
    "controller": True,
}
OWN, DOUBTFUL, NEITHER = "own", "doubtful", "neither"


def whose(pod: Body, *instance: Body) -> str:
    target = case_of(vm(), pod, *instance)
    return OWN if target.pods else DOUBTFUL if target.doubtful_pods else NEITHER


@pytest.mark.parametrize(
    ("labels", "owners", "expected"),
    [
        ({}, [OWNER], OWN),
        ({}, [{**OWNER, "name": "other"}], OWN),
        ({}, [{**OWNER, "uid": "before"}], DOUBTFUL),
        ({}, [{**OWNER, "uid": "before", "name": "other"}], NEITHER),
        ({}, [{**OWNER, "uid": "before", "kind": "ReplicaSet"}], NEITHER),
        ({}, [{**OWNER, "controller": False}], DOUBTFUL),
        # KubeVirt writes the guest's hostname into the label: this is another VM's pod.
        (
            {**LAUNCHER, "vm.kubevirt.io/name": "web"},
            [{**OWNER, "uid": "other", "name": "web-restored"}],
            NEITHER,
        ),
        ({"kubevirt.io/created-by": UID}, [], DOUBTFUL),
        ({"kubevirt.io/created-by": "before"}, [], NEITHER),
        ({**LAUNCHER, "vm.kubevirt.io/name": "web"}, [], DOUBTFUL),
        ({**LAUNCHER, "harvesterhci.io/vmName": "web"}, [], DOUBTFUL),
        ({**LAUNCHER, "vm.kubevirt.io/name": "db"}, [], NEITHER),
        ({"kubevirt.io": "hotplug-disk", "vm.kubevirt.io/name": "web"}, [], NEITHER),
        ({"vm.kubevirt.io/name": "web"}, [], NEITHER),
        (LAUNCHER, [], NEITHER),
    ],
)
def test_a_pod_is_the_guest_s_by_its_controller_owner_alone(
    labels: dict[str, str], owners: list[Body], expected: str
) -> None:
    pod = with_meta(deleted_pod(INSTANCE), labels=labels, ownerReferences=owners)
    assert whose(pod, INSTANCE) == expected


def test_without_a_vmi_a_pod_is_the_guest_s_by_the_name_of_its_owner() -> None:
    for name, expected in (("web", OWN), ("web-restored", NEITHER)):
        pod = with_meta(deleted_pod(INSTANCE), ownerReferences=[{**OWNER, "name": name}])
        assert whose(pod) == expected


def test_the_pod_of_a_volume_belongs_to_the_pod_that_it_serves_or_names_its_vmi() -> None:
    launcher = deleted_pod(INSTANCE)
    owned = builders.attachment_pod("shop", "hp-1", "node-2", launcher, deleted_vmi())
    named = builders.attachment_pod("shop", "hp-2", "node-2", deleted_vm(), INSTANCE)
    other = builders.attachment_pod("shop", "hp-3", "node-2", deleted_vm(), deleted_vmi())
    bodies = [vm(), launcher, *map(stored, (owned, named, other))]
    names = [pod.ref.name for pod in case_of(*bodies, INSTANCE).attachment_pods]
    assert names == ["hp-1", "hp-2"]
    assert [pod.ref.name for pod in case_of(*bodies).attachment_pods] == ["hp-1"]


@pytest.mark.parametrize(
    ("deleted", "node", "of", "stuck"),
    [
        (ago(hours=1), "node-2", INSTANCE, True),
        (time(NOW), "node-2", INSTANCE, True),
        (ago(seconds=-1), "node-2", INSTANCE, False),
        (None, "node-2", INSTANCE, False),
        (ago(hours=1), "node-1", INSTANCE, False),
        (ago(hours=1), None, INSTANCE, True),
        (ago(hours=1), "node-2", deleted_vmi(), False),
    ],
)
def test_a_pod_that_hangs_is_the_present_guest_s_and_past_its_grace_period(
    deleted: str | None, node: str | None, of: Body, stuck: bool
) -> None:
    pod = deleted_pod(of, deleted=deleted, node=node)
    assert bool(case_of(vm(), INSTANCE, pod).stuck_pods) is stuck


@pytest.mark.parametrize("instance", [None, deleted_vmi(node=None)])
def test_a_pod_hangs_on_any_node_where_the_vmi_names_none(instance: Body | None) -> None:
    of = instance or INSTANCE
    bodies = [vm(), deleted_pod(of, node="node-1"), *([instance] if instance else [])]
    assert case_of(*bodies).stuck_pods


@pytest.mark.parametrize(
    ("phase", "of", "there"),
    [("Running", "web", True), ("", "web", True), ("Failed", "web", False),
     ("Succeeded", "web", False), ("Running", "db", False)],
)  # fmt: skip
def test_a_migration_counts_until_it_is_over(phase: str, of: str, there: bool) -> None:
    migration = stored(builders.migration("shop", "m", of, phase))
    assert bool(case_of(vm(), INSTANCE, migration).migrations) is there


def test_what_hangs_is_what_was_deleted() -> None:
    living = deleted_vmi(deleted=None)
    first = deleted_pod(living, deleted=ago(hours=2))
    pods = [with_meta(deleted_pod(living), name="a"), first]
    for bodies, state, hanging in (
        ([deleted_vm(), INSTANCE], State.TERMINATING, ObjectRef("shop", "web", VM)),
        ([vm(), INSTANCE], State.STOPPING, ObjectRef("shop", "web", VMI)),
        ([vm(), living, *pods], State.NOT_READY, ObjectRef("shop", "virt-launcher-web", POD)),
        ([vm(), living], None, None),
        ([], None, None),
    ):
        case = case_of(*bodies)
        assert case.state is state
        found = case.stuck_object
        assert (found and found.ref) == hanging


def test_the_host_is_the_vmi_s_or_else_its_pod_s() -> None:
    pod = deleted_pod(INSTANCE, node="node-1")
    assert case_of(vm(), INSTANCE, pod).node_name == "node-2"
    homeless = with_meta(deleted_vmi(node=None), uid=INSTANCE["metadata"]["uid"])
    assert case_of(vm(), homeless, pod).node_name == "node-1"
    assert case_of(vm(), pod).node_name == "node-1"
    assert case_of(vm(), deleted_pod(INSTANCE, node=None)).node_name is None
    assert case_of(vm()).node_name is None
    blind = snapshot(vm(), unreadable={VMI: "Forbidden"})
    assert Target(TARGET, blind).node_name is None


VOLUMES = [
    {"name": "a", "persistentVolumeClaim": {"claimName": "disk"}},
    {"name": "b", "dataVolume": {"name": "data"}},
    {"name": "c", "ephemeral": {"persistentVolumeClaim": {"claimName": "base"}}},
    {"name": "d", "memoryDump": {"claimName": "dump"}},
    {"name": "e", "cloudInitNoCloud": {"userData": ""}},
    {"name": "f", "persistentVolumeClaim": "odd"},
    {"name": "g", "persistentVolumeClaim": {"claimName": "disk"}},
]


def test_the_disks_are_those_of_every_kind_of_volume_each_once() -> None:
    spec = {"volumes": VOLUMES, "utilityVolumes": [{"name": "u", "claimName": "utility"}]}
    claims = ("disk", "data", "base", "dump", "utility")
    assert pvc_names(parsed(vm(spec={"template": {"spec": spec}}))) == claims
    assert pvc_names(parsed(deleted_vmi(spec=spec))) == claims


ENDED: Body = {"terminated": {"exitCode": 0}}


@pytest.mark.parametrize(
    ("containers", "statuses", "stopped"),
    [
        ({"containers": ["compute"]}, {"containerStatuses": {"compute": ENDED}}, True),
        ({"containers": ["compute"]}, {"containerStatuses": {"compute": {"running": {}}}}, False),
        ({"containers": ["compute"]}, {"containerStatuses": {"compute": {"waiting": {}}}}, False),
        ({"containers": ["compute"]}, {"containerStatuses": {"compute": None}}, False),
        ({"containers": ["compute"]}, {}, False),
        ({}, {}, False),
        (
            {"containers": ["compute"], "initContainers": ["init"]},
            {"containerStatuses": {"compute": ENDED}},
            False,
        ),
        (
            {"containers": ["compute"], "initContainers": ["init"]},
            {
                "containerStatuses": {"compute": ENDED},
                "initContainerStatuses": {"init": {"running": {}}},
            },
            False,
        ),
        (
            {"containers": ["compute"], "initContainers": ["init"]},
            {"containerStatuses": {"compute": ENDED}, "initContainerStatuses": {"init": ENDED}},
            True,
        ),
        (
            {"containers": ["compute"], "ephemeralContainers": ["debug"]},
            {"containerStatuses": {"compute": ENDED}},
            False,
        ),
        (
            {"containers": ["compute"], "ephemeralContainers": ["debug"]},
            {
                "containerStatuses": {"compute": ENDED},
                "ephemeralContainerStatuses": {"debug": ENDED},
            },
            True,
        ),
        (
            {"containers": ["compute"]},
            {
                "containerStatuses": {"compute": ENDED},
                "ephemeralContainerStatuses": {"debug": {"running": {}}},
            },
            False,
        ),
    ],
)  # fmt: skip
def test_a_pod_has_stopped_when_every_container_says_so(
    containers: dict[str, list[str]], statuses: dict[str, Body], stopped: bool
) -> None:
    spec = {field: [{"name": name} for name in names] for field, names in containers.items()}
    status = {
        field: [{"name": name, "state": state} for name, state in states.items()]
        for field, states in statuses.items()
    }
    assert is_stopped(parsed({**deleted_pod(INSTANCE), "spec": spec, "status": status})) is stopped


def test_a_state_that_is_no_object_is_not_guessed() -> None:
    pod = deleted_pod(INSTANCE)
    status = {"containerStatuses": [{"name": "compute", "state": "terminated"}]}
    with pytest.raises(UnreadableError, match="Pod shop/virt-launcher-web: the state of a contain"):
        is_stopped(parsed({**pod, "status": status}))
