"""What belongs to a target: its pods, the nodes they may run on, its state, its disks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.harvester.target import State, Target, is_stopped, pvc_names
from kubectl_harvester_stuck.k8s.kinds import POD, VM, VMI
from kubectl_harvester_stuck.k8s.objects import ObjectRef
from tests.support import builders
from tests.support.builders import NOW, Body, ago, parsed, snapshot, stored, time
from tests.test_guards import TARGET, dead_node, deleted_pod, deleted_vm, deleted_vmi, live_node


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
        ([vm(), living, *live_node()], None, None),
        ([vm(), living, *dead_node()], State.NOT_READY, None),
        ([vm(spec={"runStrategy": "Halted"}), living, *live_node()], State.STOPPING, None),
        ([], None, None),
    ):
        case = case_of(*bodies)
        assert case.state is state
        found = case.stuck_object
        assert (found and found.ref) == hanging


@pytest.mark.parametrize(
    ("spec", "status", "phase", "stops"),
    [
        ({"runStrategy": "Halted"}, {}, "Running", True),
        ({"runStrategy": None, "running": False}, {}, "Running", True),
        ({"runStrategy": None, "running": True}, {}, "Running", False),
        ({"runStrategy": "RerunOnFailure"}, {}, "Running", False),
        ({"runStrategy": "RerunOnFailure"}, {}, "Succeeded", True),
        ({"runStrategy": "Always"}, {}, "Failed", True),
        ({"runStrategy": "Manual"}, {}, "Succeeded", False),
        ({"runStrategy": "Once"}, {}, "Failed", False),
        ({"runStrategy": "Manual"}, {"stateChangeRequests": [{"action": "Stop"}]}, "Running", True),
        ({}, {"stateChangeRequests": [{"action": "Stop", "uid": "other"}]}, "Running", False),
        ({}, {"stateChangeRequests": [{"action": "Start"}, {"action": "Stop"}]}, "Running", False),
    ],
)
def test_a_vmi_is_kept_or_has_to_be_deleted(
    spec: Body, status: Body, phase: str, stops: bool
) -> None:
    instance = stored(builders.vmi("shop", "web", "node-2", phase=phase))
    case = case_of(vm(spec=spec, status=status), instance, *live_node())
    assert case.is_to_be_stopped is stops
    assert case.state is (State.STOPPING if stops else None)
    assert bool(case.why_not_deleted) is stops


def test_a_guest_beside_what_a_migration_left_on_its_node_is_not_stuck() -> None:
    living = deleted_vmi(deleted=None)
    old = with_meta(deleted_pod(living, deleted=ago(hours=2)), name="old")
    current = deleted_pod(living, deleted=None)
    assert case_of(vm(), living, old, current, *live_node()).state is None
    ended = {**current, "status": {**current["status"], "phase": "Failed"}}
    assert case_of(vm(), living, old, ended, *live_node()).state is State.NOT_READY


def test_since_when_it_is_stuck_is_told_where_it_is_recorded() -> None:
    halted = vm(spec={"runStrategy": "Halted"})
    living = deleted_vmi(deleted=None)
    assert case_of(halted, living, *live_node()).stuck_since is None
    fields: dict[str, Any] = {"f:spec": {"f:runStrategy": {}}}
    entry = {"manager": "virt-api", "time": ago(minutes=3), "fieldsV1": fields}
    written = with_meta(halted, managedFields=[entry])
    assert case_of(written, living, *live_node()).stuck_since == NOW - timedelta(minutes=3)
    ended = stored(
        builders.vmi(
            "shop",
            "web",
            "node-2",
            phase="Failed",
            status={
                "phaseTransitionTimestamps": [
                    {"phase": "Running", "phaseTransitionTimestamp": ago(days=2)},
                    {"phase": "Failed", "phaseTransitionTimestamp": ago(days=1)},
                ]
            },
        )
    )
    assert case_of(written, ended, *live_node()).stuck_since == NOW - timedelta(days=1)
    assert case_of(vm(), living, *dead_node()).stuck_since == NOW - timedelta(minutes=20)


def test_the_failure_of_the_vm_is_told_with_the_stop_that_did_not_begin() -> None:
    failure = {"type": "Failure", "status": "True", "reason": "FailedCreate", "message": "no type"}
    halted = vm(spec={"runStrategy": "Halted"}, status={"conditions": [failure]})
    case = case_of(halted, deleted_vmi(deleted=None), *live_node())
    assert case.why_not_deleted == ("the stop has not begun, its VMI is not being deleted: no type")


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
