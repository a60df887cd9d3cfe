"""The catalogue: every entry judged from objects, in each state that it can have."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from kubectl_harvester_stuck import finalizers
from kubectl_harvester_stuck.case import Case
from kubectl_harvester_stuck.finalizers import CATALOGUE, Finalizer
from kubectl_harvester_stuck.kinds import (
    CONTROLLER_REVISION,
    JOB,
    LOAD_BALANCER,
    PVC,
    VM,
    VM_BACKUP,
    VMI,
    Kind,
)
from kubectl_harvester_stuck.model import FinalizerState, Ref
from tests import builders
from tests.builders import Body, ago, bare, parsed, snapshot, stored

WRANGLER = "wrangler.cattle.io/"
REMOVED = finalizers.REMOVED_PVCS
GUEST_CLUSTER = {"harvesterhci.io/removeAllPersistentVolumeClaims": "true"}
MAC = {"harvesterhci.io/mac-address": '{"default":"52:54:00:00:00:01"}'}
ALLOCATION = {"harvesterhci.io/deviceAllocationDetails": "{}"}


def vm(*, deleted: bool = True, **more: object) -> Body:
    return stored(builders.vm("shop", "web", **more), deleted=ago(hours=1) if deleted else None)  # type: ignore[arg-type]


def vmi(phase: str = "Failed", **more: object) -> Body:
    body = builders.vmi("shop", "web", "node-2", phase=phase, **more)  # type: ignore[arg-type]
    return stored(body, deleted=ago(hours=1))


def interfaces(**mac: str) -> Body:
    device = {"interfaces": [{"name": "default", **mac}]}
    return {"template": {"spec": {"domain": {"devices": device}}}}


def owned(kind: Kind, owner: Body) -> Body:
    return stored(bare(kind, "shop", "dependent", owner=owner))


def balancer(workload: str) -> Body:
    return stored(bare(LOAD_BALANCER, "shop", "lb", spec={"workloadType": workload}))


def with_pod(instance: Body) -> list[Body]:
    return [instance, stored(builders.pod("shop", "virt-launcher-web", "node-2", instance))]


def claimed_by(*keys: str) -> dict[str, str]:
    entry = [{"schema": "kubevirt.io.virtualmachine", "refs": list(keys)}]
    return {finalizers.OWNED_BY: json.dumps(entry)}


# finalizer, kind, expected state, objects (the subject first)
Objects = Callable[[], list[Body]]
CASES: list[tuple[str, Kind, str, Objects]] = [
    *(
        case
        for name in (
            "kubevirt.io/foregroundDeleteVirtualMachine",
            "foregroundDeleteVirtualMachine",
            "kubevirt.io/virtualMachineControllerFinalize",
            WRANGLER + "harvester-lb-vmi-controller",
        )
        for case in (
            (name, VMI, "done", lambda: [vmi()]),
            (name, VMI, "pending", lambda: with_pod(vmi())),
        )
    ),
    ("kubevirt.io/virtualMachineControllerFinalize", VM, "done", lambda: [vm()]),
    ("kubevirt.io/virtualMachineControllerFinalize", VM, "pending", lambda: [vm(), vmi()]),
    (builders.CLEANUP_FINALIZER, VM, "done", lambda: [vm()]),
    (builders.CLEANUP_FINALIZER, VM, "done", lambda: [vm(annotations={REMOVED: ""})]),
    (
        builders.CLEANUP_FINALIZER,
        VM,
        "pending",
        lambda: [
            vm(annotations={REMOVED: " disk-0 ,gone"}),
            stored(builders.pvc("shop", "disk-0")),
        ],
    ),
    (
        builders.CLEANUP_FINALIZER,
        VM,
        "done",
        lambda: [
            vm(annotations={REMOVED: "disk-0"}),
            stored(builders.pvc("shop", "disk-0"), deleted=ago(hours=1)),
        ],
    ),
    (
        builders.CLEANUP_FINALIZER,
        VM,
        "pending",
        lambda: [vm(), stored(builders.vm_backup("shop", "snap", "web"))],
    ),
    (
        builders.CLEANUP_FINALIZER,
        VM,
        "done",
        lambda: [
            vm(),
            stored(builders.vm_backup("shop", "remote", "web", "backup")),
            stored(builders.vm_backup("shop", "snap", "another")),
        ],
    ),
    (WRANGLER + "VMController.ReconcileBackendStorageClone", VM, "done", lambda: [vm()]),
    (
        WRANGLER + "VMController.ReconcileBackendStorageClone",
        VM,
        "pending",
        lambda: [machine := vm(), owned(JOB, machine)],
    ),
    *(
        case
        for name, kind, subject in (
            (WRANGLER + "VMController.UnsetOwnerOfPVCs", VM, vm),
            (builders.LEGACY_FINALIZER, VM, vm),
            (WRANGLER + "VMIController.UnsetOwnerOfPVCs", VMI, vmi),
        )
        for case in (
            (name, kind, "ownerless", lambda s=subject: [s()]),
            (
                name,
                kind,
                "ownerless",
                lambda s=subject: [
                    s(),
                    stored(builders.pvc("shop", "d", annotations=claimed_by("shop/other"))),
                ],
            ),
            (
                name,
                kind,
                "pending",
                lambda s=subject: [
                    s(),
                    stored(builders.pvc("shop", "d", annotations=claimed_by("shop/web"))),
                ],
            ),
            (
                name,
                kind,
                "unknown",
                lambda s=subject: [
                    s(),
                    stored(builders.pvc("shop", "d", annotations={finalizers.OWNED_BY: "{oops"})),
                ],
            ),
        )
    ),
    (
        builders.LEGACY_FINALIZER,
        VM,
        "pending",
        lambda: [vm(annotations={REMOVED: "disk-0"}), stored(builders.pvc("shop", "disk-0"))],
    ),
    (
        WRANGLER + "VMController.BackfillObservedNetworkMacAddress",
        VMI,
        "done",
        lambda: [vmi()],
    ),
    (
        WRANGLER + "VMController.BackfillObservedNetworkMacAddress",
        VMI,
        "done",
        lambda: [vmi(), vm(annotations=MAC, spec=interfaces())],
    ),
    (
        WRANGLER + "VMController.BackfillObservedNetworkMacAddress",
        VMI,
        "done",
        lambda: [vmi(), vm(deleted=False, spec=interfaces())],
    ),
    (
        WRANGLER + "VMController.BackfillObservedNetworkMacAddress",
        VMI,
        "done",
        lambda: [
            vmi(),
            vm(deleted=False, annotations=MAC, spec=interfaces(macAddress="52:54:00:00:00:01")),
        ],
    ),
    (
        WRANGLER + "VMController.BackfillObservedNetworkMacAddress",
        VMI,
        "pending",
        lambda: [vmi(), vm(deleted=False, annotations=MAC, spec=interfaces())],
    ),
    (WRANGLER + "harvester-lb-vm-controller", VM, "done", lambda: [vm(), balancer("cluster")]),
    (
        WRANGLER + "harvester-lb-vm-controller",
        VM,
        "done",
        lambda: [vm(annotations=GUEST_CLUSTER), balancer("vm")],
    ),
    (
        WRANGLER + "harvester-lb-vm-controller",
        VM,
        "pending",
        lambda: [vm(annotations=GUEST_CLUSTER), balancer("cluster")],
    ),
    (WRANGLER + "virtual-machine-deletion", VMI, "done", lambda: [vmi()]),
    (
        WRANGLER + "virtual-machine-deletion",
        VMI,
        "done",
        lambda: [vmi(spec={"domain": {"devices": {"gpus": [{}]}}}), vm(annotations=ALLOCATION)],
    ),
    (
        WRANGLER + "virtual-machine-deletion",
        VMI,
        "done",
        lambda: [vmi(spec={"domain": {"devices": {"gpus": [{}]}}}), vm(deleted=False)],
    ),
    (
        WRANGLER + "virtual-machine-deletion",
        VMI,
        "pending",
        lambda: [
            vmi(spec={"domain": {"devices": {"hostDevices": [{}]}}}),
            vm(deleted=False, annotations=ALLOCATION),
        ],
    ),
    ("snapshot.kubevirt.io/snapshot-source-protection", VM, "done", lambda: [vm()]),
    (
        "snapshot.kubevirt.io/snapshot-source-protection",
        VM,
        "pending",
        lambda: [vm(status={"snapshotInProgress": "nightly"})],
    ),
    ("pool.kubevirt.io/finalizer", VM, "done", lambda: [vm()]),
    (
        "pool.kubevirt.io/finalizer",
        VM,
        "pending",
        lambda: [_owned_by_pool(vm())],
    ),
    ("foregroundDeletion", VM, "done", lambda: [vm()]),
    ("foregroundDeletion", VM, "pending", lambda: [machine := vm(), vmi(owner=machine)]),
    *(
        ("foregroundDeletion", VM, "pending", lambda k=kind: [machine := vm(), owned(k, machine)])
        for kind in (PVC, CONTROLLER_REVISION, builders.DATA_VOLUME)
    ),
    ("foregroundDeletion", VMI, "done", lambda: [vmi()]),
    ("foregroundDeletion", VMI, "pending", lambda: with_pod(vmi())),
    ("orphan", VM, "never", lambda: [vm()]),
    ("orphan", VMI, "never", lambda: [vmi()]),
    ("example.com/anything", VM, "unknown", lambda: [vm()]),
    (WRANGLER + "VMController.SomethingNew", VM, "unknown", lambda: [vm()]),
    # A name is only known on the kind that it belongs to.
    (builders.CLEANUP_FINALIZER, VMI, "unknown", lambda: [vmi()]),
]


def _owned_by_pool(machine: Body) -> Body:
    reference = {"apiVersion": "pool.kubevirt.io/v1beta1", "kind": "VirtualMachinePool",
                 "name": "pool", "uid": "pool-uid"}  # fmt: skip
    return {**machine, "metadata": {**machine["metadata"], "ownerReferences": [reference]}}


def case_of(bodies: list[Body], **blind: object) -> Case:
    subject = parsed(bodies[0])
    return Case(subject.ref, snapshot(*bodies, **blind))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "kind", "state", "objects"),
    CASES,
    ids=[f"{name}-{kind.kind}-{state}-{n}" for n, (name, kind, state, _) in enumerate(CASES)],
)
def test_state_follows_from_the_objects(
    name: str, kind: Kind, state: str, objects: Objects
) -> None:
    bodies = objects()
    subject = parsed(bodies[0])
    assert subject.ref.kind is kind
    judgment = finalizers.judge(name, subject, case_of(bodies))
    assert judgment.state.value == state
    assert judgment.reason


@pytest.mark.parametrize(
    "entry", CATALOGUE, ids=lambda entry: f"{entry.name}-{entry.kinds[0].kind}"
)
def test_every_entry_is_complete_and_has_cases(entry: Finalizer) -> None:
    for field in ("owner", "workload", "versions", "released_when", "leaves_behind", "source"):
        assert getattr(entry, field)
    for kind in entry.kinds:
        states = {state for name, of, state, _ in CASES if (name, of) == (entry.name, kind)}
        assert "never" in states or (states & {"done", "ownerless"} and "pending" in states)


@pytest.mark.parametrize("entry", [entry for entry in CATALOGUE if entry.reads],
                         ids=lambda entry: f"{entry.name}-{entry.kinds[0].kind}")  # fmt: skip
def test_what_could_not_be_read_is_unknown(entry: Finalizer) -> None:
    for kind in entry.kinds:
        for blind in entry.reads:
            subject = vmi() if kind is VMI else vm(annotations={REMOVED: "d", **GUEST_CLUSTER})
            case = case_of([subject], unreadable={blind: "Forbidden"})
            judgment = finalizers.judge(entry.name, parsed(subject), case)
            assert judgment.state is FinalizerState.UNKNOWN
            assert "Forbidden" in judgment.reason
            assert not finalizers.removable(judgment, frozenset({entry.name}), frozenset())


def test_names_are_unique_per_kind() -> None:
    pairs = [(entry.name, kind) for entry in CATALOGUE for kind in entry.kinds]
    assert len(pairs) == len(set(pairs))


@pytest.mark.parametrize(
    ("state", "catalogued", "asked", "left", "removed"),
    [
        ("done", True, False, False, True),
        ("ownerless", True, False, False, True),
        ("pending", True, False, False, False),
        ("pending", True, True, False, False),
        ("pending", True, False, True, True),
        ("unknown", False, False, False, False),
        ("unknown", False, True, False, True),
        ("unknown", False, False, True, False),
        ("unknown", True, True, True, False),
        ("never", True, True, True, False),
    ],
)
def test_only_what_the_contract_allows_is_removed(
    state: str, catalogued: bool, asked: bool, left: bool, removed: bool
) -> None:
    name = "example.com/x"
    subject = parsed(vm())
    judgment = finalizers.Judgment(
        name, subject.ref, "owner", FinalizerState(state), "because", "nothing", catalogued
    )
    wanted = frozenset({name})
    none: frozenset[str] = frozenset()
    assert finalizers.removable(judgment, wanted if asked else none, wanted if left else none) is (
        removed
    )


def test_kinds_are_read_only_where_a_finalizer_needs_them() -> None:
    assert finalizers.kinds_needed((parsed(vm()),)) == frozenset()
    cleanup = parsed(vm(finalizers=[builders.CLEANUP_FINALIZER]))
    assert finalizers.kinds_needed((cleanup,)) == {PVC, VM_BACKUP}


def test_a_judge_sees_the_future_in_which_earlier_steps_succeeded() -> None:
    machine, instance = vm(), vmi()
    case = case_of([machine, instance])
    now = finalizers.judge(builders.VM_FINALIZER, parsed(machine), case)
    later = finalizers.judge(
        builders.VM_FINALIZER, parsed(machine), case.without(Ref("shop", "web", VMI))
    )
    assert (now.state, later.state) == (FinalizerState.PENDING, FinalizerState.DONE)
