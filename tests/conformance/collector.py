"""What the garbage collector does with `foregroundDeletion`."""

from __future__ import annotations

from tests.conformance.situation import (
    DONE,
    NEVER,
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
from tests.support import builders

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
KEPT = "example.com/kept"

# By the name that the lines have for it.
KINDS = {
    "Secret": "v1",
    "ConfigMap": "v1",
    "PersistentVolumeClaim": "v1",
    "ControllerRevision": "apps/v1",
    "Job": "batch/v1",
    "DataVolume": "cdi.kubevirt.io/v1beta1",
    "VirtualMachineInstance": "kubevirt.io/v1",
    "VirtualMachineRestore": "harvesterhci.io/v1beta1",
    "VirtualMachineBackup": "harvesterhci.io/v1beta1",
    "VirtualMachineExport": "export.kubevirt.io/v1beta1",
    "KubeVirt VirtualMachineRestore": "snapshot.kubevirt.io/v1beta1",
    "VirtualMachineSnapshot": "snapshot.kubevirt.io/v1beta1",
}

UNUSUAL = ("ConfigMap", "VirtualMachineSnapshot")

_BODIES: dict[str, Body] = {
    "PersistentVolumeClaim": {
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "1Gi"}},
        }
    },
    "ControllerRevision": {"revision": 1, "data": {}},
    "Job": {
        "spec": {
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [{"name": "clone", "image": "clone"}],
                }
            }
        }
    },
    "VirtualMachineInstance": {"spec": {"domain": {"devices": {}}}},
    "VirtualMachineRestore": {
        "spec": {
            "target": {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "new"},
            "virtualMachineBackupName": "snap",
            "virtualMachineBackupNamespace": "default",
        }
    },
    "VirtualMachineBackup": {
        "spec": {
            "source": {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "another"},
            "type": "backup",
        }
    },
}


def _named(kind: str) -> str:
    # A VMI of another name would be none of the VM's.
    return "{name}" if kind == "VirtualMachineInstance" else "owned"


def owned(
    at: Place, kind: str, owner: Body, *, held: bool = False, blocking: bool = True,
    deleted: bool = False,
) -> Body:  # fmt: skip
    """An object that the owner has; a held one is never quite deleted."""
    meta: Body = {"namespace": at.at, "name": _named(kind).format(name=at.name)}
    meta["ownerReferences"] = [
        {
            "apiVersion": owner["apiVersion"],
            "kind": owner["kind"],
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
            **({"blockOwnerDeletion": True} if blocking else {}),
        }
    ]
    if held:
        meta["finalizers"] = [KEPT]
    named = {"apiVersion": KINDS[kind], "kind": kind.rpartition(" ")[2], "metadata": meta}
    body = {**named, **_BODIES.get(kind, {})}
    return at.make(body, deleted=deleted)


def _with(kind: str, **more: bool) -> Stands:
    return lambda at: owned(at, kind, at.vm(), **more)


def _ended_instance(at: Place) -> None:
    """A VMI that is deleted in the foreground by itself, and its pod that is gone."""
    at.vmi(phase="Failed")


def _pod(at: Place) -> None:
    instance = at.vmi(phase="Failed")
    at.make(builders.pod(at.at, "virt-launcher", "lost-node", instance))


def _restored(at: Place, *, held: bool = False, disk_held: bool = False) -> None:
    """A VM that owns the restore it came from, which owns the disk."""
    restore = owned(at, "VirtualMachineRestore", at.vm(), held=held)
    owned(at, "PersistentVolumeClaim", restore, held=disk_held)


def _kept(at: Place) -> None:
    owned(at, "PersistentVolumeClaim", at.vm())


RESTORE, DISK = "VirtualMachineRestore/owned", "PersistentVolumeClaim/owned"

SITUATIONS: list[Situation] = [
    line("foreground: nothing is owned", FOREGROUND, lambda at: at.vm(), lets_go(), DONE),
    line("foreground: a VMI that owns nothing", FOREGROUND, _ended_instance, lets_go(), DONE),
    line("foreground: a VMI whose pod is there", FOREGROUND, _pod, holds(),
         pending("virt-launcher")),
    line("foreground: a restore and its disk", FOREGROUND, _restored, works(RESTORE, DISK),
         pending("owned")),
    line("foreground: a held restore and its disk", FOREGROUND,
         lambda at: _restored(at, held=True), holds(), pending("owned")),
    line("foreground: a restore and its held disk", FOREGROUND,
         lambda at: _restored(at, disk_held=True), holds(), pending("owned")),
    *(
        line(
            f"foreground: a {text} {kind}",
            FOREGROUND,
            _with(kind, held=held, blocking=blocking),
            owner,
            said,
        )
        for kind in KINDS
        if kind not in UNUSUAL
        for each in (f"{kind.rpartition(' ')[2]}/{_named(kind)}",)
        for text, held, blocking, owner, said in (
            ("free, blocking", False, True, works(each), pending(_named(kind))),
            ("held, blocking", True, True, holds(), pending(_named(kind))),
            ("free, not blocking", False, False, lets_go(each), DONE),
            ("held, not blocking", True, False, lets_go(each), DONE),
        )
    ),
    *(
        line(f"foreground: a {text} {kind}", FOREGROUND, _with(kind, held=held), owner, DONE,
             differs=f"Neither Harvester nor KubeVirt makes a {kind} that a VM owns: it is not"
             " looked for. What is left would go in the background.")
        for kind in UNUSUAL
        for text, held, owner in (
            ("free, blocking", False, works(f"{kind}/owned")),
            ("held, blocking", True, holds()),
        )
    ),
    line("orphan: a disk", ORPHAN, _kept, works("PersistentVolumeClaim/owned"), NEVER),
    line("orphan: nothing", ORPHAN, lambda at: at.vm(), lets_go(), NEVER,
         differs="The program does not look: to be wrong would destroy what was to be kept."),
]  # fmt: skip
