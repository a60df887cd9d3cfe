"""What KubeVirt's virt-controller does with its finalizers on VMs and VMIs."""

from __future__ import annotations

from typing import Any

from tests.components.harvester.server import STORAGE_CLASS
from tests.conformance.situation import (
    DONE,
    OWNERLESS,
    Body,
    Place,
    Situation,
    Stands,
    holds,
    lets_go,
    line,
    pending,
    works,
)
from tests.conformance.situation import (
    machine as spec_of,
)
from tests.support import builders

FOREGROUND = "kubevirt.io/foregroundDeleteVirtualMachine"
OLD_FOREGROUND = "foregroundDeleteVirtualMachine"
FINALIZE = "kubevirt.io/virtualMachineControllerFinalize"
SNAPSHOT = "snapshot.kubevirt.io/snapshot-source-protection"
POOL = "pool.kubevirt.io/finalizer"

KEPT = "example.com/kept"
"""A finalizer that nobody here takes off."""

NOBODY = "11111111-2222-4333-8444-555555555555"
"""The uid of an object that no longer is there."""

NODE = "lost-node"
"""A node that no longer is there: a pod on it is never confirmed to be gone."""

LIVE_NODE = "live-node"
"""A node that answers."""


def launcher(at: Place, owner: Body, *, deleted: bool = True, **more: Any) -> None:
    """The virt-launcher pod of a VMI."""
    name = f"virt-launcher-{owner['metadata']['name']}"
    body = builders.pod(at.at, name, NODE, owner, **more)
    at.make(body, deleted=deleted)


def _with_pod(ended: str, **pod: Any) -> Stands:
    return lambda at: launcher(at, at.vmi(phase=ended, node=NODE), **pod)


def _alone(phase: str, node: str | None = None) -> Stands:
    return lambda at: at.vmi(phase=phase, node=node)


def _pod_of_the_name(at: Place) -> None:
    """A pod that has the name of the guest on its labels, but another owner."""
    at.vmi(phase="Failed", node=NODE)
    meta = {"name": at.name, "uid": NOBODY}
    kind = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance"}
    launcher(at, {**kind, "metadata": meta})


def _under_its_vm(at: Place) -> None:
    """A VMI that has ended, and its VM that lives."""
    machine = at.create(builders.vm(at.at, at.name, (FINALIZE,), spec=spec_of((), [])))
    at.vmi(phase="Failed", owner=machine, status=_started(at, machine))


def _started(at: Place, machine: Body) -> Body:
    """The status of a VMI that the VM started; virt-controller asks for the revision of it."""
    name = f"revision-start-vm-{at.name}-1"
    at.create(
        {
            "apiVersion": "apps/v1",
            "kind": "ControllerRevision",
            "metadata": {"namespace": at.at, "name": name},
            "revision": 1,
            "data": {"spec": machine["spec"]},
        }
    )
    return {"virtualMachineRevisionName": name}


_POD = "virt-launcher-{name}"
_ALONE = [
    *((f"{phase}, no pod", _alone(phase), lets_go(), DONE)
      for phase in ("Succeeded", "Failed", "Scheduling", "Pending")),
    *((f"{phase}, its pod is going", _with_pod(phase), holds(), pending(_POD))
      for phase in ("Running", "Scheduled")),
]  # fmt: skip
_GUEST = [
    *((f"{phase}, its pod is going", _with_pod(phase), holds(), pending(_POD))
      for phase in ("Succeeded", "Failed")),
    (
        "Failed, its pod has ended",
        _with_pod("Failed", terminated=True, phase="Failed", deleted=False),
        works(f"Pod/{_POD}"),
        pending(_POD),
    ),
]  # fmt: skip
_STATUS = [
    *((f"{phase}, its pod is going", _with_pod(phase), lets_go(), DONE)
      for phase in ("Succeeded", "Failed")),
    (
        "Failed, its pod has ended",
        _with_pod("Failed", terminated=True, phase="Failed", deleted=False),
        lets_go(f"Pod/{_POD}"),
        DONE,
    ),
    ("Failed, its VM lives", _under_its_vm, lets_go(), DONE),
]  # fmt: skip


# On the VM


def _instance(at: Place, phase: str, *finalizers: str, pod: bool = False,
              orphan: bool = False) -> None:  # fmt: skip
    subject = at.vm(finalizers=(FINALIZE, "orphan") if orphan else None)
    status = _started(at, subject)
    made = at.vmi(
        phase=phase, finalizers=finalizers, owner=subject, node=NODE, deleted=False, status=status
    )
    if pod:
        launcher(at, made, deleted=False)


_INSTANCE = "VirtualMachineInstance/{name}"
_MACHINE = [
    ("its VMI is gone", lambda at: at.vm(), lets_go(), DONE),
    (
        "its VMI has ended",
        lambda at: _instance(at, "Failed"),
        works(_INSTANCE),
        pending("the VMI still exists"),
    ),
    (
        "its VMI has ended and has its finalizers",
        lambda at: _instance(at, "Failed", FOREGROUND, FINALIZE),
        works(_INSTANCE),
        pending("the VMI still exists"),
    ),
    (
        "its VMI has ended and is held by somebody else",
        lambda at: _instance(at, "Failed", KEPT),
        holds(),
        pending("the VMI still exists"),
    ),
    (
        "its VMI runs",
        lambda at: _instance(at, "Running", FOREGROUND, FINALIZE, pod=True),
        holds(),
        pending("the VMI still exists"),
    ),
    (
        "its VMI is to be kept",
        lambda at: _instance(at, "Running", FOREGROUND, pod=True, orphan=True),
        lets_go(),
        DONE,
    ),
]


# A snapshot of KubeVirt


def _snapshotted(
    at: Place, phase: str | None, *, recorded: bool = True, deleted: bool = False
) -> None:
    status = {"snapshotInProgress": "before-upgrade"} if recorded else {}
    at.vm(status=status, disks=("disk-0",))
    # Its snapshot is never taken, for the driver of the disk does not run here.
    disk = builders.pvc(at.at, "disk-0", volume=f"pv-{at.at}")
    disk["spec"]["storageClassName"] = STORAGE_CLASS
    at.make({**disk, "status": {"phase": "Bound"}})
    if phase is None:
        return
    body: Body = {
        "apiVersion": "snapshot.kubevirt.io/v1beta1",
        "kind": "VirtualMachineSnapshot",
        "metadata": {"namespace": at.at, "name": "before-upgrade"},
        "spec": {
            "source": {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": at.name},
            "failureDeadline": "1h",
        },
        "status": {
            "phase": phase,
            "readyToUse": phase == "Succeeded",
            **({"creationTime": "2026-11-23T03:30:00Z"} if phase == "Succeeded" else {}),
        },
    }
    if deleted:
        body["metadata"]["finalizers"] = ["snapshot.kubevirt.io/vmsnapshot-protection"]
    at.make(body, deleted=deleted)


_LOCKED = [
    (
        "the snapshot is in progress",
        lambda at: _snapshotted(at, "InProgress"),
        holds(),
        pending("VirtualMachineSnapshot before-upgrade"),
    ),
    (
        "the snapshot has succeeded",
        lambda at: _snapshotted(at, "Succeeded"),
        lets_go(),
        DONE,
    ),
    ("the snapshot has failed", lambda at: _snapshotted(at, "Failed"), lets_go(), DONE),
    ("the snapshot is gone", lambda at: _snapshotted(at, None), holds(), OWNERLESS),
    (
        "no snapshot is recorded",
        lambda at: _snapshotted(at, None, recorded=False),
        holds(),
        OWNERLESS,
    ),
    (
        "no snapshot is recorded, though there is one",
        lambda at: _snapshotted(at, "Succeeded", recorded=False),
        holds(),
        OWNERLESS,
    ),
]


# A VM of a pool


def _pooled(
    at: Place, *, there: bool = True, paused: bool = False, preserve: str = "",
    unmanaged: bool = False, disk: bool = False, replicas: int = 1,
) -> None:  # fmt: skip
    labels = {"pool": at.name}
    pool: Body = {
        "apiVersion": "pool.kubevirt.io/v1beta1",
        "kind": "VirtualMachinePool",
        "metadata": {"namespace": at.at, "name": "pool"},
        "spec": {
            "replicas": replicas,
            "paused": paused,
            "selector": {"matchLabels": labels},
            "virtualMachineTemplate": {
                "metadata": {"labels": labels},
                "spec": {"runStrategy": "Halted", "template": {"spec": {"domain": {}}}},
            },
            "scaleInStrategy": (
                {"unmanaged": {}}
                if unmanaged
                else {"opportunistic": {"statePreservation": preserve}}
                if preserve
                else {}
            ),
        },
    }
    uid = at.create(pool)["metadata"]["uid"] if there else NOBODY
    spec = builders.with_disks("disk-0") if disk else None
    body = builders.vm(at.at, at.name, (POOL,), labels=labels, spec=spec)
    body["metadata"]["ownerReferences"] = [
        {"apiVersion": pool["apiVersion"], "kind": pool["kind"], "name": "pool", "uid": uid,
         "controller": True, "blockOwnerDeletion": True}
    ]  # fmt: skip
    subject = at.make(body, deleted=True)
    if disk:
        at.make(builders.pvc(at.at, "disk-0", owner=subject))


_POOLED = [
    ("the pool is gone", lambda at: _pooled(at, there=False), holds(), OWNERLESS),
    ("the pool keeps no state", lambda at: _pooled(at), lets_go(), DONE),
    ("the pool keeps no state, a disk", lambda at: _pooled(at, disk=True), lets_go(), DONE),
    (
        "the pool keeps the state, no disk",
        lambda at: _pooled(at, preserve="Offline"),
        lets_go(),
        DONE,
    ),
    (
        "the pool keeps the state, a disk",
        lambda at: _pooled(at, preserve="Offline", disk=True),
        works("PersistentVolumeClaim/disk-0"),
        pending("disk-0"),
    ),
    (
        "the pool keeps the state, a disk, paused",
        lambda at: _pooled(at, preserve="Offline", disk=True, paused=True),
        holds(),
        pending("disk-0"),
    ),
    ("the pool is paused", lambda at: _pooled(at, paused=True), holds(), OWNERLESS),
    ("the pool is unmanaged", lambda at: _pooled(at, unmanaged=True), holds(), OWNERLESS),
]


SITUATIONS: list[Situation] = [
    *(
        line(f"{finalizer} on a VMI: {text}", finalizer, stands, owner, said)
        for finalizer in (FOREGROUND, OLD_FOREGROUND)
        for text, stands, owner, said in (*_ALONE, *_GUEST)
    ),
    *(
        line(
            f"{finalizer} on a VMI: {text}",
            finalizer,
            stands,
            lets_go(),
            pending(words),
            differs="virt-controller takes the absence of the pod for the end of the guest. The"
            " program does not: on a node that nobody sees it may run on, and on one that answers"
            " it gets the time that its end can take.",
        )
        for finalizer in (FOREGROUND, OLD_FOREGROUND)
        for text, stands, words in (
            ("Failed, no pod, its node does not answer", _alone("Failed", NODE), "does not answer"),
            ("Running, no pod, its node answers", _alone("Running", LIVE_NODE), "has had"),
            ("Scheduled, no pod, its node answers", _alone("Scheduled", LIVE_NODE), "has had"),
        )
    ),
    *(
        line(
            f"{FINALIZE} on a VMI: {phase}, no pod",
            FINALIZE,
            _alone(phase, LIVE_NODE),
            lets_go(),
            DONE,
        )
        for phase in ("Running", "Scheduled")
    ),
    line(
        f"{FOREGROUND} on a VMI: Failed, a pod has its name",
        FOREGROUND,
        _pod_of_the_name,
        lets_go(),
        pending("virt-launcher-{name}"),
        differs="virt-controller looks at the owner only. A pod that has the name of the guest on"
        " its labels may run it all the same.",
    ),
    *(
        line(f"{FINALIZE} on a VMI: {text}", FINALIZE, stands, owner, said)
        for text, stands, owner, said in (*_ALONE, *_STATUS)
    ),
    *(
        line(f"{FINALIZE} on a VM: {text}", FINALIZE, stands, owner, said)
        for text, stands, owner, said in _MACHINE
    ),
    *(
        line(f"{SNAPSHOT}: {text}", SNAPSHOT, stands, owner, said)
        for text, stands, owner, said in _LOCKED
    ),
    *(line(f"{POOL}: {text}", POOL, stands, owner, said) for text, stands, owner, said in _POOLED),
]
