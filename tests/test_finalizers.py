"""The catalogue: every entry judged from objects, in each state that it can have."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from kubectl_harvester_stuck.harvester import finalizer_judges, finalizers, pending_work, settings
from kubectl_harvester_stuck.harvester.finalizer_catalogue import CATALOGUE, Finalizer
from kubectl_harvester_stuck.harvester.finalizer_judges import FinalizerState
from kubectl_harvester_stuck.harvester.finalizers import FinalizerAssessment
from kubectl_harvester_stuck.harvester.target import THE_VMI, Target
from kubectl_harvester_stuck.k8s.kinds import (
    CONTROLLER_REVISION,
    DATA_VOLUME,
    JOB,
    KUBEVIRT_RESTORE,
    LOAD_BALANCER,
    POD,
    PVC,
    SECRET,
    VM,
    VM_BACKUP,
    VM_EXPORT,
    VM_IMAGE,
    VM_POOL,
    VM_RESTORE,
    VM_SNAPSHOT,
    VMI,
    VOLUME_SNAPSHOT,
    Kind,
)
from kubectl_harvester_stuck.k8s.objects import ObjectRef
from kubectl_harvester_stuck.k8s.reads import EVERYWHERE
from tests.support import builders, readycluster
from tests.support.builders import Body, ago, bare, parsed, snapshot, stored

WRANGLER = "wrangler.cattle.io/"
REMOVED = pending_work.REMOVED_PVCS
GUEST_CLUSTER = {"harvesterhci.io/removeAllPersistentVolumeClaims": "true"}
MAC = {"harvesterhci.io/mac-address": '{"default":"52:54:00:00:00:01"}'}
CLONING = {"harvesterhci.io/clone-backend-storage-status": "cloning"}
CLONED = {"harvesterhci.io/clone-backend-storage-status": "cloned"}
ALLOCATION = {"harvesterhci.io/deviceAllocationDetails": "{}"}


def vm(*, deleted: bool = True, **more: Any) -> Body:
    return stored(builders.vm("shop", "web", **more), deleted=ago(hours=1) if deleted else None)


def vmi(phase: str = "Failed", **more: Any) -> Body:
    body = builders.vmi("shop", "web", "node-2", phase=phase, **more)
    return stored(body, deleted=ago(hours=1))


def interfaces(**mac: str) -> Body:
    device = {"interfaces": [{"name": "default", **mac}]}
    return {"template": {"spec": {"domain": {"devices": device}}}}


def owned(kind: Kind, owner: Body, *, blocking: bool = True) -> Body:
    body = bare(kind, "shop", "dependent", owner=owner)
    if not blocking:
        del body["metadata"]["ownerReferences"][0]["blockOwnerDeletion"]
    return stored(body)


def balancer(workload: str, *, of: str = "gc1") -> Body:
    body = bare(LOAD_BALANCER, "shop", "lb", spec={"workloadType": workload})
    body["metadata"]["labels"] = {"cloudprovider.harvesterhci.io/cluster": of}
    return stored(body)


def guest(**more: Any) -> Body:
    """A node of a guest cluster that Rancher removes."""
    labels = {"guestcluster.harvesterhci.io/name": "gc1",
              "harvesterhci.io/creator": "docker-machine-driver-harvester"}  # fmt: skip
    return vm(annotations=GUEST_CLUSTER, labels=labels, **more)


def backup(
    namespace: str = "shop", *, volumes: tuple[str, ...] = (), deleted: bool = False
) -> Body:
    """A snapshot-type backup of the VM, or of its namesake elsewhere."""
    body = builders.vm_backup(namespace, "snap", "web")
    body["status"] = {
        "volumeBackups": [
            {"name": f"snap-{name}",
             "persistentVolumeClaim": {"metadata": {"namespace": namespace, "name": name}}}
            for name in volumes
        ]
    }  # fmt: skip
    return stored(body, deleted=ago(hours=1) if deleted else None)


def volume_snapshot(owner: Body | None = None) -> Body:
    return stored(bare(VOLUME_SNAPSHOT, "shop", "snap-disk-0", owner=owner))


def image(name: str, **spec: str) -> Body:
    return stored(bare(VM_IMAGE, "shop", name, spec=spec))


def disk(*, deleted: bool = False, **more: Any) -> Body:
    body = builders.pvc("shop", "disk-0", **more)
    return stored(body, deleted=ago(hours=1) if deleted else None)


def other_vm(**more: Any) -> Body:
    """A VM that lives."""
    return stored(builders.vm("shop", "other", **more))


def ticking() -> Body:
    """The VM, with its disk selected for deletion."""
    return vm(annotations={REMOVED: "disk-0"})


def version(text: str) -> Body:
    return stored(readycluster.setting("server-version", text))


def observing(text: str, *items: Body) -> list[Body]:
    """A VMI, and its VM with an annotation of observed addresses."""
    devices = {"interfaces": list(items) or [{"name": "default"}]}
    spec = {"template": {"spec": {"domain": {"devices": devices}}}}
    annotations = {finalizer_judges.OBSERVED_MACS: text}
    return [vmi(), vm(deleted=False, annotations=annotations, spec=spec)]


def pool(**spec: object) -> Body:
    return stored(bare(VM_POOL, "shop", "pool", spec=spec))


KEEPS = {"scaleInStrategy": {"opportunistic": {"statePreservation": "Offline"}}}


def pooled(parent: Body, *, disks: tuple[str, ...] = ("disk-0",)) -> Body:
    """A VM of the pool."""
    machine = vm(spec=builders.with_disks(*disks))
    reference = {"kind": "VirtualMachinePool", "name": "pool", "uid": parent["metadata"]["uid"]}
    return {**machine, "metadata": {**machine["metadata"], "ownerReferences": [reference]}}


def in_pool(claim: str, **spec: object) -> list[Body]:
    """A VM of a pool, which owns a disk."""
    parent = pool(**spec)
    machine = pooled(parent)
    return [machine, parent, stored(builders.pvc("shop", claim, owner=machine))]


def kubevirt_snapshot(phase: str) -> Body:
    return stored(bare(VM_SNAPSHOT, "shop", "nightly", status={"phase": phase}))


def with_pod(instance: Body) -> list[Body]:
    return [instance, stored(builders.pod("shop", "virt-launcher-web", "node-2", instance))]


def claimed_by(*keys: str) -> dict[str, str]:
    entry = [{"schema": "kubevirt.io.virtualmachine", "refs": list(keys)}]
    return {finalizer_judges.OWNED_BY: json.dumps(entry)}


OWNED = (PVC, CONTROLLER_REVISION, DATA_VOLUME, JOB, VM_RESTORE, VM_BACKUP, VM_EXPORT,
         KUBEVIRT_RESTORE, SECRET)  # fmt: skip


def with_devices(devices: Body) -> list[Body]:
    """A VMI with these devices, which its VM allocated."""
    spec = {"domain": {"devices": devices}}
    return [vmi(spec=spec), vm(deleted=False, annotations=ALLOCATION)]


DEVICES: tuple[tuple[str, Body], ...] = (("done", {}), ("pending", {"gpus": [{}]}))

# finalizer, kind, expected state, objects (the subject first)
Objects = Callable[[], list[Body]]
# state, objects (the VM first): what the webhook forbids to delete, and snapshots
CLEANUP_CASES: list[tuple[str, Objects]] = [
    (
        "pending",
        lambda: [
            ticking(),
            disk(deleted=True),
            other_vm(spec=builders.with_disks("disk-0")),
        ],
    ),
    (
        "pending",
        lambda: [
            ticking(),
            disk(deleted=True),
            other_vm(
                annotations={pending_work.CLAIM_TEMPLATES: '[{"metadata": {"name": "disk-0"}}]'}
            ),
        ],
    ),
    ("pending", lambda: [ticking(), owner := other_vm(), disk(deleted=True, owner=owner)]),
    (
        "pending",
        lambda: [
            ticking(),
            image("disk-0"),
            disk(deleted=True, annotations={pending_work.GOLDEN_IMAGE: "true"}),
        ],
    ),
    (
        "pending",
        lambda: [
            ticking(),
            disk(deleted=True),
            image(
                "export",
                sourceType="export-from-volume",
                pvcNamespace="shop",
                pvcName="disk-0",
            ),
        ],
    ),
    (
        "done",
        lambda: [
            ticking(),
            disk(deleted=True),
            other_vm(annotations={pending_work.CLAIM_TEMPLATES: "?"}),
        ],
    ),
    (
        "done",
        lambda: [
            ticking(),
            disk(deleted=True, annotations={pending_work.GOLDEN_IMAGE: "true"}),
        ],
    ),
    (
        "done",
        lambda: [ticking(), disk(deleted=True), image("disk-0", sourceType="download")],
    ),
    (
        "done",
        lambda: [
            ticking(),
            disk(deleted=True),
            image(
                "export",
                sourceType="export-from-volume",
                pvcNamespace="shop",
                pvcName="disk-1",
            ),
        ],
    ),
    # Snapshots: those of a namesake as well, and those that are being deleted already.
    ("pending", lambda: [vm(), backup("office")]),
    ("pending", lambda: [vm(), backup("office", deleted=True, volumes=("disk-0",))]),
    ("pending", lambda: [vm(), backup(deleted=True, volumes=("disk-0",)), disk()]),
    (
        "pending",
        lambda: [vm(), backup(deleted=True, volumes=("disk-0",)), volume_snapshot()],
    ),
    (
        "pending",
        lambda: [
            vm(),
            backup(deleted=True, volumes=("disk-0",)),
            disk(),
            volume_snapshot(),
        ],
    ),
    (
        "done",
        lambda: [
            vm(),
            backup(deleted=True, volumes=("disk-0",)),
            claim := disk(),
            volume_snapshot(claim),
        ],
    ),
]

CASES: list[tuple[str, Kind, str, Objects]] = [
    ("kubevirt.io/virtualMachineControllerFinalize", VMI, "done", lambda: [vmi()]),
    ("kubevirt.io/virtualMachineControllerFinalize", VMI, "done", lambda: with_pod(vmi())),
    ("kubevirt.io/virtualMachineControllerFinalize", VMI, "done", lambda: [vmi("Running")]),
    (
        "kubevirt.io/virtualMachineControllerFinalize",
        VMI,
        "pending",
        lambda: with_pod(vmi("Running")),
    ),
    *(
        case
        for name in (
            "kubevirt.io/foregroundDeleteVirtualMachine",
            "foregroundDeleteVirtualMachine",
            WRANGLER + "harvester-lb-vmi-controller",
        )
        for case in (
            (name, VMI, "done", lambda: [vmi()]),
            (name, VMI, "pending", lambda: with_pod(vmi())),
        )
    ),
    ("kubevirt.io/virtualMachineControllerFinalize", VM, "done", lambda: [vm()]),
    ("kubevirt.io/virtualMachineControllerFinalize", VM, "pending", lambda: [vm(), vmi()]),
    (
        "kubevirt.io/virtualMachineControllerFinalize",
        VM,
        "done",
        lambda: [vm(finalizers=["orphan", builders.VM_FINALIZER]), vmi()],
    ),
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
    (
        builders.CLEANUP_FINALIZER,
        VM,
        "pending",
        lambda: [
            vm(annotations={REMOVED: "gone,disk-0"}),
            stored(builders.pvc("shop", "disk-0")),
        ],
    ),
    (
        builders.CLEANUP_FINALIZER,
        VM,
        "done",
        lambda: [vm(annotations={REMOVED: "gone"}), stored(builders.pvc("shop", "disk-0"))],
    ),
    (
        builders.CLEANUP_FINALIZER,
        VM,
        "done",
        lambda: [vm(), stored(builders.vm_backup("shop", "snap", "web"), deleted=ago(hours=1))],
    ),
    (WRANGLER + "VMController.ReconcileBackendStorageClone", VM, "done", lambda: [vm()]),
    (
        WRANGLER + "VMController.ReconcileBackendStorageClone",
        VM,
        "done",
        lambda: [vm(annotations=CLONING), owned(JOB, vm())],
    ),
    (
        WRANGLER + "VMController.ReconcileBackendStorageClone",
        VM,
        "pending",
        lambda: [machine := vm(annotations=CLONING), owned(JOB, machine)],
    ),
    (
        WRANGLER + "VMController.ReconcileBackendStorageClone",
        VM,
        "done",
        lambda: [machine := vm(annotations=CLONED), owned(JOB, machine)],
    ),
    (
        WRANGLER + "VMController.ReconcileBackendStorageClone",
        VM,
        "done",
        lambda: [
            machine := vm(annotations=CLONING),
            stored(owned(JOB, machine), deleted=ago(hours=1)),
        ],
    ),
    *(
        case
        for name, kind, subject in (
            (WRANGLER + "VMController.UnsetOwnerOfPVCs", VM, vm),
            (builders.LEGACY_FINALIZER, VM, vm),
            (WRANGLER + "VMIController.UnsetOwnerOfPVCs", VMI, vmi),
        )
        for case in (
            (name, kind, "done", lambda s=subject: [s()]),
            (
                name,
                kind,
                "done",
                lambda s=subject: [
                    s(),
                    stored(builders.pvc("shop", "d", annotations=claimed_by("shop/other"))),
                ],
            ),
            *(
                (
                    name,
                    kind,
                    state,
                    lambda s=subject, v=release: [
                        s(),
                        stored(builders.pvc("shop", "d", annotations=claimed_by("shop/web"))),
                        *([version(v)] if v else []),
                    ],
                )
                for release, state in (
                    ("v1.2.2", "pending"),
                    ("v1.3.2", "pending"),
                    ("v1.4.0-rc1", "done"),
                    ("v1.8.2", "done"),
                    ("master-head", "unknown"),
                    ("", "unknown"),
                )
            ),
            (
                name,
                kind,
                "done",
                lambda s=subject: [
                    s(),
                    stored(
                        builders.pvc(
                            "shop", "d", annotations={finalizer_judges.OWNED_BY: '[{"refs": null}]'}
                        )
                    ),
                ],
            ),
            *(
                (
                    name,
                    kind,
                    "unknown",
                    lambda s=subject, text=text: [
                        s(),
                        stored(
                            builders.pvc("shop", "d", annotations={finalizer_judges.OWNED_BY: text})
                        ),
                    ],
                )
                for text in ("{oops", "7", "[7]")
            ),
        )
    ),
    *(
        (builders.LEGACY_FINALIZER, VM, state, lambda o=objects, v=release: [*o(), version(v)])
        for release, state in (("v1.3.2", "pending"), ("v1.4.0", "done"))
        for objects in (lambda: [ticking(), disk()], lambda: [vm(), backup()])
    ),
    (
        builders.LEGACY_FINALIZER,
        VM,
        "done",
        lambda: [ticking(), disk(deleted=True), version("v1.3.2")],
    ),
    *((builders.CLEANUP_FINALIZER, VM, state, objects) for state, objects in CLEANUP_CASES),
    (
        WRANGLER + "VMController.BackfillObservedNetworkMacAddress",
        VMI,
        "ownerless",
        lambda: [vmi()],
    ),
    *(
        (
            WRANGLER + "VMController.BackfillObservedNetworkMacAddress",
            VMI,
            state,
            lambda t=text: observing(t),
        )
        for text, state in (
            ('{"default": "52:54:00:00:00:01"}', "pending"),
            ("{}", "done"),
            ("null", "done"),
            ('{"nic-1": "52:54:00:00:00:01"}', "done"),
            ('{"default": ""}', "done"),
            ('{"default": null}', "done"),
            ("", "pending"),
            ("default=52:54:00:00:00:01", "pending"),
            ("[]", "pending"),
            ('{"default": 1}', "pending"),
        )
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
        lambda: [guest(), balancer("vm")],
    ),
    (
        WRANGLER + "harvester-lb-vm-controller",
        VM,
        "pending",
        lambda: [guest(), balancer("cluster")],
    ),
    (
        WRANGLER + "harvester-lb-vm-controller",
        VM,
        "done",
        lambda: [guest(), balancer("cluster", of="gc2")],
    ),
    # Not a node of a guest cluster, or of one that it does not name.
    (
        WRANGLER + "harvester-lb-vm-controller",
        VM,
        "done",
        lambda: [vm(annotations=GUEST_CLUSTER), balancer("cluster")],
    ),
    (
        WRANGLER + "harvester-lb-vm-controller",
        VM,
        "done",
        lambda: [
            vm(
                annotations=GUEST_CLUSTER,
                labels={"harvesterhci.io/creator": "docker-machine-driver-harvester"},
            ),
            balancer("cluster"),
        ],
    ),
    (
        WRANGLER + "harvester-lb-vm-controller",
        VM,
        "done",
        lambda: [
            guest(),
            stored(balancer("cluster"), deleted=ago(hours=1)),
        ],
    ),
    # A node of a guest cluster that stays.
    *(
        (
            WRANGLER + "harvester-lb-vm-controller",
            VM,
            "done",
            lambda a=annotations: [
                vm(labels=guest()["metadata"]["labels"], annotations=a),
                balancer("cluster"),
            ],
        )
        for annotations in ({}, {"harvesterhci.io/removeAllPersistentVolumeClaims": "false"})
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
    *(
        (
            WRANGLER + "virtual-machine-deletion",
            VMI,
            state,
            partial(with_devices, devices),
        )
        for state, devices in DEVICES
    ),
    (
        WRANGLER + "virtual-machine-deletion",
        VMI,
        "done",
        lambda: [vmi(spec={"domain": {"devices": {"gpus": [{}]}}})],
    ),
    ("snapshot.kubevirt.io/snapshot-source-protection", VM, "ownerless", lambda: [vm()]),
    (
        "snapshot.kubevirt.io/snapshot-source-protection",
        VM,
        "ownerless",
        lambda: [vm(status={"snapshotInProgress": "nightly"})],
    ),
    *(
        (
            "snapshot.kubevirt.io/snapshot-source-protection",
            VM,
            state,
            lambda p=phase: [vm(status={"snapshotInProgress": "nightly"}), kubevirt_snapshot(p)],
        )
        for phase, state in (
            ("InProgress", "pending"),
            ("", "pending"),
            ("Succeeded", "done"),
            ("Failed", "done"),
        )
    ),
    ("pool.kubevirt.io/finalizer", VM, "ownerless", lambda: [vm()]),
    ("pool.kubevirt.io/finalizer", VM, "ownerless", lambda: [pooled(pool())]),
    ("pool.kubevirt.io/finalizer", VM, "ownerless", lambda: [_owned_by("Template", vm()), pool()]),
    # Another pool is not its own, whatever it does.
    ("pool.kubevirt.io/finalizer", VM, "ownerless", lambda: [pooled(pool()), pool()]),
    ("pool.kubevirt.io/finalizer", VM, "done", lambda: [pooled(own := pool()), pool(**KEEPS), own]),
    ("pool.kubevirt.io/finalizer", VM, "done", lambda: [_from_template(own := pool()), own]),
    # A disk of it that nobody owns goes and stays by itself.
    (
        "pool.kubevirt.io/finalizer",
        VM,
        "done",
        lambda: [pooled(own := pool(**KEEPS)), own, stored(builders.pvc("shop", "disk-0"))],
    ),
    *(
        (
            "pool.kubevirt.io/finalizer",
            VM,
            state,
            lambda s=spec, o=has: in_pool(o, **s),
        )
        for spec, has, state in (
            ({}, "disk-0", "done"),
            (KEEPS, "disk-0", "pending"),
            (KEEPS, "disk-1", "done"),
            (
                {"scaleInStrategy": {"opportunistic": {"statePreservation": "Disabled"}}},
                "disk-0",
                "done",
            ),
            ({**KEEPS, "paused": True}, "disk-0", "pending"),
            ({"paused": True}, "disk-0", "ownerless"),
            ({"scaleInStrategy": {"unmanaged": {}}}, "disk-0", "ownerless"),
        )
    ),
    (WRANGLER + "VMController.UnsetOwnerOfDataVolumes", VM, "ownerless", lambda: [vm()]),
    ("k8s.v1.cni.cncf.io/kubeMacPool", VM, "ownerless", lambda: [vm()]),
    ("foregroundDeletion", VM, "done", lambda: [vm()]),
    ("foregroundDeletion", VM, "pending", lambda: [machine := vm(), vmi(owner=machine)]),
    *(
        ("foregroundDeletion", VM, "pending", lambda k=kind: [machine := vm(), owned(k, machine)])
        for kind in OWNED
    ),
    *(("foregroundDeletion", VM, "done", lambda k=kind: [vm(), owned(k, vm())]) for kind in OWNED),
    *(
        (
            "foregroundDeletion",
            VM,
            "done",
            lambda k=kind: [machine := vm(), owned(k, machine, blocking=False)],
        )
        for kind in OWNED
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


def _owned_by(kind: str, machine: Body) -> Body:
    reference = {"apiVersion": "pool.kubevirt.io/v1beta1", "kind": kind,
                 "name": "pool", "uid": "pool-uid"}  # fmt: skip
    return {**machine, "metadata": {**machine["metadata"], "ownerReferences": [reference]}}


def _from_template(parent: Body) -> Body:
    """A VM of the pool that has another owner before it."""
    machine = pooled(parent)
    (reference,) = machine["metadata"]["ownerReferences"]
    template = {**reference, "kind": "Template", "uid": "template-uid"}
    return {
        **machine,
        "metadata": {**machine["metadata"], "ownerReferences": [template, reference]},
    }


def case_of(bodies: list[Body], **blind: Any) -> Target:
    subject = parsed(bodies[0])
    return Target(subject.ref, snapshot(*bodies, **blind))


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


KNOWN = [(entry.name, kind) for entry in CATALOGUE for kind in entry.kinds]
NEAR = {read.kind for entry in CATALOGUE for read in entry.reads if not read.own and not read.name}
NEAR -= {VM, POD}  # of the target itself

NEEDED: dict[tuple[str, Kind], set[Kind]] = {
    (builders.CLEANUP_FINALIZER, VM): {PVC, VM_BACKUP},
    (WRANGLER + "VMController.ReconcileBackendStorageClone", VM): {JOB},
    (WRANGLER + "VMController.UnsetOwnerOfPVCs", VM): {PVC, VM_BACKUP},
    ("harvesterhci.io/VMController.UnsetOwnerOfPVCs", VM): {PVC, VM_BACKUP},
    (WRANGLER + "VMIController.UnsetOwnerOfPVCs", VMI): {PVC},
    (WRANGLER + "harvester-lb-vm-controller", VM): {LOAD_BALANCER},
    ("foregroundDeletion", VM): {PVC, DATA_VOLUME, CONTROLLER_REVISION, JOB, VM_RESTORE, VM_BACKUP},
    ("foregroundDeletion", VMI): {
        PVC,
        DATA_VOLUME,
        CONTROLLER_REVISION,
        JOB,
        VM_RESTORE,
        VM_BACKUP,
    },
}
"""Kinds without which a judge has no answer; the others it can do without, or needs at times."""


def entry_of(name: str, kind: Kind) -> Finalizer:
    found = finalizers.find(name, kind)
    assert found is not None
    return found


@pytest.mark.parametrize(("name", "kind"), KNOWN)
def test_every_entry_is_complete_and_has_cases(name: str, kind: Kind) -> None:
    entry = entry_of(name, kind)
    for field in ("released_when", "leaves_behind", "source"):
        assert getattr(entry, field)
    assert re.match(r"(KubeVirt|Harvester|Kubernetes|addon|kubemacpool)\b", entry.versions)
    states = {state for name, of, state, _ in CASES if (name, of) == (entry.name, kind)}
    one_answer = states in ({"never"}, {"ownerless"})
    assert one_answer or (states & {"done", "ownerless"} and "pending" in states)


def test_every_finalizer_is_some_workload_s() -> None:
    assert {(entry.owner, entry.workload) for entry in CATALOGUE} == {
        ("virt-controller", "deploy/virt-controller"),
        ("harvester", "deploy/harvester"),
        ("harvester-load-balancer", "deploy/harvester-load-balancer"),
        ("pcidevices-controller", "ds/harvester-pcidevices-controller"),
        ("garbage collector", "kube-controller-manager"),
        ("kubemacpool", "kubemacpool"),
    }


@pytest.mark.parametrize(("name", "kind"), KNOWN)
def test_a_judge_that_misses_what_it_needs_says_so(name: str, kind: Kind) -> None:
    needed = NEEDED.get((name, kind), set())
    subject = vmi() if kind is VMI else guest()
    subject["metadata"].setdefault("annotations", {}).update({REMOVED: "d", **CLONING})

    def judged(*blind: Kind) -> FinalizerAssessment:
        case = case_of([subject], unreadable=dict.fromkeys(blind, "Forbidden"))
        return finalizers.judge(name, parsed(subject), case)

    assert judged(*(NEAR - needed)).state is not FinalizerState.UNKNOWN
    for blind in needed:
        judgment = judged(blind)
        assert judgment.state is FinalizerState.UNKNOWN
        assert "Forbidden" in judgment.reason
        assert not finalizers.removable(judgment, frozenset({name}), frozenset())


@pytest.mark.parametrize(
    ("name", "blind"), [(builders.CLEANUP_FINALIZER, PVC), ("foregroundDeletion", POD)]
)
def test_what_no_judge_asks_for_need_not_be_readable(name: str, blind: Kind) -> None:
    """No disk was ticked; the pods of a guest are its VMI's, not its VM's."""
    subject = vm()
    judgment = finalizers.judge(
        name, parsed(subject), case_of([subject], unreadable={blind: "Forbidden"})
    )
    assert judgment.state is FinalizerState.DONE


# finalizer, what is said of it, objects (the subject first)
REASONS: list[tuple[str, str, Objects]] = [
    ("example.com/x", "not in the catalogue", lambda: [vm()]),
    (
        WRANGLER + "VMController.SomethingNew",
        "a wrangler controller that is not in the catalogue",
        lambda: [vm()],
    ),
    (builders.VM_FINALIZER, "the VMI has ended (phase Failed)", lambda: [vmi()]),
    (builders.VM_FINALIZER, "no pod of the guest is left (phase none)", lambda: [vmi(phase="")]),
    (
        "foregroundDeleteVirtualMachine",
        "no pod of the guest is left (phase Failed)",
        lambda: [vmi()],
    ),
    (
        builders.CLEANUP_FINALIZER,
        "still to be deleted: PersistentVolumeClaim disk-0, which Harvester's webhook does not let"
        " go: it is a disk of VirtualMachine shop/other,"
        " VirtualMachineBackup shop/snap (VolumeSnapshot shop/snap-disk-0 is missing)",
        lambda: [
            ticking(),
            disk(),
            other_vm(spec=builders.with_disks("disk-0")),
            backup(volumes=("disk-0",)),
        ],
    ),
    (
        builders.CLEANUP_FINALIZER,
        "still to be deleted: VirtualMachineBackup office/snap",
        lambda: [vm(), backup("office", volumes=("disk-0",))],
    ),
    (
        builders.LEGACY_FINALIZER,
        "Harvester 1.8 only takes it off, and does nothing about PersistentVolumeClaim shop/disk-0",
        lambda: [ticking(), disk(), version("v1.8.2")],
    ),
    (
        builders.LEGACY_FINALIZER,
        "could not read the version of Harvester: its setting server-version names none",
        lambda: [ticking(), disk()],
    ),
    (builders.VM_FINALIZER, "the VMI still exists (Failed)", lambda: [vm(), vmi()]),
    (builders.VM_FINALIZER, "the VMI still exists (no phase)", lambda: [vm(), vmi(phase="")]),
    (
        builders.VM_FINALIZER,
        "pod virt-launcher-web still exists",
        lambda: with_pod(vmi("Running")),
    ),
    (
        WRANGLER + "VMController.BackfillObservedNetworkMacAddress",
        "the MAC address of default is not in the VM's spec yet",
        lambda: [vmi(), vm(deleted=False, annotations=MAC, spec=interfaces())],
    ),
    (
        WRANGLER + "VMController.BackfillObservedNetworkMacAddress",
        "the annotation harvesterhci.io/mac-address of VirtualMachine shop/web is no JSON object of"
        " addresses, so its controller fails every time; correct or remove it",
        lambda: observing(""),
    ),
    (
        WRANGLER + "VMController.BackfillObservedNetworkMacAddress",
        "the annotation harvesterhci.io/mac-address of VirtualMachine shop/web is no JSON object of"
        " addresses, so its controller fails every time; correct or remove it",
        lambda: observing('{"other": 5}'),
    ),
    *(
        (
            "snapshot.kubevirt.io/snapshot-source-protection",
            f"VirtualMachineSnapshot nightly is in progress ({told})",
            lambda p=phase: [vm(status={"snapshotInProgress": "nightly"}), kubevirt_snapshot(p)],
        )
        for phase, told in (("InProgress", "InProgress"), ("", "no phase"))
    ),
    ("foregroundDeletion", "nothing that this object owns holds it up", lambda: [vm()]),
    (
        "foregroundDeletion",
        "the garbage collector waits for PersistentVolumeClaim shop/dependent",
        lambda: [machine := vm(), owned(PVC, machine)],
    ),
    (
        builders.LEGACY_FINALIZER,
        "could not read PersistentVolumeClaim shop/d: its harvesterhci.io/owned-by annotation is"
        " malformed",
        lambda: [
            vm(),
            stored(builders.pvc("shop", "d", annotations={finalizer_judges.OWNED_BY: "{oops"})),
        ],
    ),
]


@pytest.mark.parametrize(("name", "reason", "objects"), REASONS)
def test_a_reason_names_its_evidence(name: str, reason: str, objects: Objects) -> None:
    bodies = objects()
    assert finalizers.judge(name, parsed(bodies[0]), case_of(bodies)).reason == reason


def test_dependents_that_few_may_list_are_told_where_they_were_not_looked_at() -> None:
    bodies = [vm()]
    blind = {SECRET: "Forbidden", VM_EXPORT: "Forbidden"}
    judgment = finalizers.judge("foregroundDeletion", parsed(bodies[0]),
                                case_of(bodies, unreadable=blind))  # fmt: skip
    assert judgment.state is FinalizerState.DONE
    assert judgment.reason == (
        "nothing that this object owns holds it up (virtualmachineexports.export.kubevirt.io and"
        " secrets could not be looked at)"
    )


def test_what_is_kept_is_told_with_the_flag_that_removes_what_nobody_knows() -> None:
    subject = vm()
    around = case_of([subject, vmi()])
    unknown = finalizers.judge("example.com/x", parsed(subject), around)
    assert finalizers.why_kept(unknown) == (
        "example.com/x: not in the catalogue; only --finalizer example.com/x removes it"
    )
    known = finalizers.judge(builders.VM_FINALIZER, parsed(subject), around)
    assert finalizers.why_kept(known) == (f"{builders.VM_FINALIZER}: the VMI still exists (Failed)")


def test_a_judgment_says_whose_finalizer_it_is_and_what_stays_behind() -> None:
    subject = vm()
    known = finalizers.judge(builders.CLEANUP_FINALIZER, parsed(subject), case_of([subject]))
    entry = finalizers.find(builders.CLEANUP_FINALIZER, VM)
    assert entry is not None
    assert (known.name, known.owner, known.leaves_behind, known.catalogued) == (
        builders.CLEANUP_FINALIZER, "harvester", entry.leaves_behind, True
    )  # fmt: skip
    other = finalizers.judge("example.com/x", parsed(subject), case_of([subject]))
    assert (other.name, other.owner, other.leaves_behind, other.catalogued) == (
        "example.com/x", "not known", "not known", False
    )  # fmt: skip


def test_the_guest_is_over_when_its_vmi_is_gone() -> None:
    subject = parsed(vmi())
    judgment = finalizers.judge(builders.VM_FINALIZER, subject, case_of([vm()]))
    assert (judgment.state, judgment.reason) == (FinalizerState.DONE, "the VMI is gone")


@pytest.mark.parametrize(
    ("name", "waits"),
    [
        ("kubevirt.io/foregroundDeleteVirtualMachine", True),
        ("foregroundDeletion", False),
        ("example.com/x", False),
    ],
)
def test_some_finalizers_may_only_go_once_the_guest_has_ended(name: str, waits: bool) -> None:
    subject = vmi()
    judgment = finalizers.judge(name, parsed(subject), case_of([subject]))
    assert finalizers.waits_for_the_guest(judgment) is waits


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
        ("never", False, True, True, False),
    ],
)
def test_only_what_the_contract_allows_is_removed(
    state: str, catalogued: bool, asked: bool, left: bool, removed: bool
) -> None:
    name = "example.com/x"
    subject = parsed(vm())
    judgment = finalizers.FinalizerAssessment(
        name, subject.ref, "owner", FinalizerState(state), "because", "nothing", catalogued
    )
    wanted = frozenset({name})
    none: frozenset[str] = frozenset()
    assert finalizers.removable(judgment, wanted if asked else none, wanted if left else none) is (
        removed
    )


def test_kinds_are_read_only_where_a_finalizer_needs_them() -> None:
    plain = parsed(vm())
    assert finalizers.reads((plain,)) == (THE_VMI,)
    cleanup = parsed(vm(finalizers=[builders.CLEANUP_FINALIZER]))
    found = finalizers.reads((cleanup,))
    assert {read.kind for read in found if not read.own} == {
        PVC, VM_BACKUP, VM, VM_RESTORE, VOLUME_SNAPSHOT, VM_IMAGE
    }  # fmt: skip
    assert {read.kind for read in found if read.where == EVERYWHERE} == {VM_BACKUP, VM_IMAGE}
    unknown = parsed(vm(finalizers=["example.com/x"]))
    assert finalizers.reads((unknown, cleanup)) == found
    legacy = parsed(vm(finalizers=[builders.LEGACY_FINALIZER]))
    assert settings.read("server-version") in finalizers.reads((legacy,))


def test_a_judge_sees_the_future_in_which_earlier_steps_succeeded() -> None:
    machine, instance = vm(), vmi()
    case = case_of([machine, instance])
    now = finalizers.judge(builders.VM_FINALIZER, parsed(machine), case)
    later = finalizers.judge(
        builders.VM_FINALIZER, parsed(machine), case.without(ObjectRef("shop", "web", VMI))
    )
    assert (now.state, later.state) == (FinalizerState.PENDING, FinalizerState.DONE)
