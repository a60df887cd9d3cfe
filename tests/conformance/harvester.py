"""What Harvester's controllers do with their finalizers on VMs and VMIs."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tests.components.harvester.server import STORAGE_CLASS
from tests.conformance.situation import (
    DONE,
    OWNERLESS,
    Body,
    Owner,
    Place,
    Said,
    Situation,
    Stands,
    holds,
    lets_go,
    line,
    pending,
    rejected,
    works,
)
from tests.support import builders

CLEANUP = "wrangler.cattle.io/VMController.CleanupPVCAndSnapshot"
BACKFILL = "wrangler.cattle.io/VMController.BackfillObservedNetworkMacAddress"
DEPRECATED_VM = (
    "wrangler.cattle.io/VMController.UnsetOwnerOfPVCs",
    "harvesterhci.io/VMController.UnsetOwnerOfPVCs",
)
DEPRECATED_VMI = "wrangler.cattle.io/VMIController.UnsetOwnerOfPVCs"

DISK = "PersistentVolumeClaim/disk-0"
SNAPSHOT = "VolumeSnapshot/snap-disk-0"
BACKUP = "VirtualMachineBackup/snap"

# What the status of a backup has to have before 1.8.
SOURCE: Body = {
    "source": {"metadata": {}, "spec": {"template": {"spec": {"domain": {"devices": {}}}}}}
}

# Objects of Harvester


def going(at: Place, *selected: str, **more: Any) -> Body:
    """The VM that is being deleted, with disks that its user selected for deletion."""
    annotations = {"harvesterhci.io/removedPersistentVolumeClaims": ",".join(selected)}
    return at.vm(annotations=annotations if selected else None, **more)


def golden(at: Place, name: str = "disk-0", *, image: bool = True, mark: str = "true",
           **more: Any) -> None:  # fmt: skip
    """The disk that the image of its name is made of."""
    annotations = {"harvesterhci.io/goldenImage": mark}
    at.pvc(name, annotations=annotations, **more)
    if image:
        at.make(image_of(at.at, name, {"displayName": name, "sourceType": "download",
                                       "url": "http://example.com/image"}))  # fmt: skip


def image_of(namespace: str, name: str, spec: Body, **status: object) -> Body:
    """A VirtualMachineImage."""
    return {
        "apiVersion": "harvesterhci.io/v1beta1",
        "kind": "VirtualMachineImage",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"retry": 3, **spec},
        **({"status": status} if status else {}),
    }


def exported(at: Place, **status: object) -> None:
    """An image that is made from the disk."""
    spec = {"displayName": "export", "sourceType": "export-from-volume",
            "pvcNamespace": at.at, "pvcName": "disk-0"}  # fmt: skip
    at.make(image_of(at.at, "export", spec, **status))


def backup(
    at: Place, *volumes: str, name: str = "snap", namespace: str | None = None,
    of: str | None = None, kind: str = "snapshot", deleted: bool = False,
) -> None:  # fmt: skip
    """A VirtualMachineBackup of these disks."""
    where = namespace or at.at
    body = builders.vm_backup(where, name, of or at.name, kind)
    body["spec"]["source"]["apiGroup"] = "kubevirt.io"
    body["status"] = {
        **SOURCE,
        "readyToUse": True,
        "volumeBackups": [
            {
                "name": f"{name}-{volume}",
                "volumeName": volume,
                "csiDriverName": "driver.longhorn.io",
                "persistentVolumeClaim": {
                    "metadata": {"namespace": where, "name": volume},
                    "spec": {
                        "accessModes": ["ReadWriteMany"],
                        "resources": {"requests": {"storage": "1Gi"}},
                        "storageClassName": STORAGE_CLASS,
                        "volumeName": f"pvc-{volume}",
                    },
                },
            }
            for volume in volumes
        ],
    }
    if deleted:
        body["metadata"]["finalizers"] = ["wrangler.cattle.io/harvester-vm-backup-controller"]
    at.make(body, deleted=deleted)


def snapshot(at: Place, of: str = "disk-0", *, backup: str = "snap", namespace: str | None = None,
             owner: Body | None = None) -> None:  # fmt: skip
    """The VolumeSnapshot of a disk, owned by its backup or, as it is left behind, by the disk."""
    meta: Body = {"namespace": namespace or at.at, "name": f"{backup}-{of}"}
    if owner:
        meta["ownerReferences"] = [
            {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": owner["metadata"]["name"],
             "uid": owner["metadata"]["uid"]}
        ]  # fmt: skip
    at.make(
        {
            "apiVersion": "snapshot.storage.k8s.io/v1",
            "kind": "VolumeSnapshot",
            "metadata": meta,
            "spec": {"source": {"persistentVolumeClaimName": of}},
        }
    )


def restore(at: Place, progressing: str) -> None:
    """A restore from the backup."""
    at.make(
        {
            "apiVersion": "harvesterhci.io/v1beta1",
            "kind": "VirtualMachineRestore",
            "metadata": {"namespace": at.at, "name": "back"},
            "spec": {
                "target": {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "new"},
                "virtualMachineBackupName": "snap",
                "virtualMachineBackupNamespace": at.at,
                "newVM": True,
            },
            "status": {"conditions": [{"type": "InProgress", "status": progressing}]},
        }
    )


def owned_disk(at: Place, owner: Body) -> None:
    """A disk that another VM owns."""
    body = builders.pvc(at.at, "disk-0")
    body["spec"]["storageClassName"] = STORAGE_CLASS
    body["metadata"]["ownerReferences"] = [
        {"apiVersion": owner["apiVersion"], "kind": owner["kind"],
         "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}
    ]  # fmt: skip
    at.make(body)


def template(name: str = "disk-0", **more: object) -> dict[str, str]:
    """The annotation from which Harvester makes the disks of a VM."""
    entry = {"metadata": {"name": name}, **more}
    return {"harvesterhci.io/volumeClaimTemplates": json.dumps([entry])}


# Disks that were selected for deletion


def _free(at: Place) -> None:
    going(at, "disk-0")
    at.pvc()


def _nothing(at: Place) -> None:
    going(at)
    at.pvc()


def _blank(at: Place) -> None:
    at.vm(annotations={"harvesterhci.io/removedPersistentVolumeClaims": ""})
    at.pvc()


def _commas(at: Place) -> None:
    going(at, " ", "")


def _missing(at: Place) -> None:
    going(at, "disk-0")


def _elsewhere(at: Place) -> None:
    going(at, "disk-0")
    at.pvc(namespace=at.other)


def _its_own(at: Place) -> None:
    going(at, "disk-0", disks=("disk-0",))
    at.pvc()


def _one_of_two(at: Place) -> None:
    going(at, "gone", "disk-0")
    at.pvc()


def _in_use(at: Place) -> None:
    going(at, "disk-0")
    at.pvc(held=True)


def _terminating(at: Place) -> None:
    going(at, "disk-0")
    at.pvc(deleted=True)


def _golden(at: Place) -> None:
    going(at, "disk-0")
    golden(at)


def _golden_terminating(at: Place) -> None:
    going(at, "disk-0")
    golden(at, deleted=True)


def _golden_without_image(at: Place) -> None:
    going(at, "disk-0")
    golden(at, image=False)


def _not_golden(at: Place) -> None:
    going(at, "disk-0")
    golden(at, mark="false")


def _living(at: Place) -> None:
    going(at, "disk-0")
    at.pvc()
    at.vm("other", disks=("disk-0",))


def _living_terminating(at: Place) -> None:
    going(at, "disk-0")
    at.pvc(deleted=True)
    at.vm("other", disks=("disk-0",))


def _living_template(at: Place) -> None:
    going(at, "disk-0")
    at.pvc()
    at.vm("other", annotations=template())


def _dying(at: Place) -> None:
    going(at, "disk-0")
    at.pvc()
    at.vm("other", disks=("disk-0",), finalizers=("example.com/kept",))


def _living_elsewhere(at: Place) -> None:
    going(at, "disk-0")
    at.pvc()
    at.vm("other", disks=("disk-0",), namespace=at.other)


def _exported(at: Place) -> None:
    going(at, "disk-0")
    at.pvc()
    exported(at)


def _exported_before(at: Place) -> None:
    going(at, "disk-0")
    at.pvc()
    exported(at, conditions=[{"type": "Imported", "status": "True"}])


def _owned(at: Place) -> None:
    going(at, "disk-0")
    owned_disk(at, at.vm("other"))


def _owned_by_a_dying(at: Place) -> None:
    going(at, "disk-0")
    owned_disk(at, at.vm("other", finalizers=("example.com/kept",)))


def _owned_by_itself(at: Place) -> None:
    owned_disk(at, going(at, "disk-0"))


_SELECTED = [
    ("nothing was selected", _nothing, lets_go(), DONE),
    ("the selection is empty", _blank, lets_go(), DONE),
    ("the selection is commas and blanks", _commas, lets_go(), DONE),
    ("the selected disk is gone", _missing, lets_go(), DONE),
    ("a disk of that name is in another namespace", _elsewhere, lets_go(), DONE),
    ("its disk is gone", lambda at: at.vm(disks=("disk-0",)), lets_go(), DONE),
    ("the selected disk is free", _free, works(DISK), pending("disk-0")),
    ("the selected disk is its own", _its_own, works(DISK), pending("disk-0")),
    ("one selected disk is gone, one is free", _one_of_two, works(DISK), pending("disk-0")),
    ("the selected disk is used by a pod", _in_use, works(DISK), pending("disk-0")),
    ("the selected disk is terminating", _terminating, lets_go(), DONE),
    (
        "the selected disk is a golden image",
        _golden,
        holds("can not delete golden image PVC"),
        pending("disk-0", "golden image"),
    ),
    (
        "the selected disk is a golden image and terminating",
        _golden_terminating,
        holds("can not delete golden image PVC"),
        pending("disk-0", "golden image"),
    ),
    (
        "the selected disk was a golden image",
        _golden_without_image,
        works(DISK),
        pending("disk-0"),
    ),
    ("the selected disk is no golden image", _not_golden, works(DISK), pending("disk-0")),
    (
        "the selected disk is that of a living VM",
        _living,
        holds("can not delete the volume disk-0 which is currently attached to VM: {at}/other"),
        pending("disk-0", "{at}/other"),
    ),
    (
        "the selected disk is that of a living VM and terminating",
        _living_terminating,
        holds("can not delete the volume disk-0 which is currently attached to VM: {at}/other"),
        pending("disk-0", "{at}/other"),
    ),
    (
        "the selected disk is in the templates of a living VM",
        _living_template,
        holds("can not delete the volume disk-0 which is currently attached to VM: {at}/other"),
        pending("disk-0", "{at}/other"),
    ),
    (
        "the selected disk is that of another VM that is being deleted",
        _dying,
        works(DISK),
        pending("disk-0"),
    ),
    (
        "a living VM in another namespace has a disk of that name",
        _living_elsewhere,
        works(DISK),
        pending("disk-0"),
    ),
    (
        "the selected disk is being exported",
        _exported,
        holds("can not delete volume disk-0 which is exporting for image {at}/export"),
        pending("disk-0", "{at}/export"),
    ),
    ("the selected disk was exported", _exported_before, works(DISK), pending("disk-0")),
    (
        "a living VM owns the selected disk",
        _owned,
        holds("can not delete the volume disk-0 which is currently owned by these VMs: other"),
        pending("disk-0", "{at}/other"),
    ),
    (
        "another VM that is being deleted owns the selected disk",
        _owned_by_a_dying,
        works(DISK),
        pending("disk-0"),
    ),
    ("it owns the selected disk itself", _owned_by_itself, works(DISK), pending("disk-0")),
]

# Snapshots


def _remote(at: Place) -> None:
    at.vm()
    backup(at, "disk-0", kind="backup")


def _of_another(at: Place) -> None:
    at.vm()
    backup(at, "disk-0", of="another")


def _empty(at: Place) -> None:
    at.vm()
    backup(at)


def _whole(at: Place) -> None:
    at.vm()
    backup(at, "disk-0")
    at.pvc()
    snapshot(at)


def _whole_and_selected(at: Place) -> None:
    going(at, "disk-0")
    backup(at, "disk-0")
    at.pvc()
    snapshot(at)


def _no_snapshot(at: Place) -> None:
    at.vm()
    backup(at, "disk-0")
    at.pvc()


def _no_snapshot_but_selected(at: Place) -> None:
    going(at, "disk-1")
    backup(at, "disk-0")
    at.pvc()
    at.pvc("disk-1")


def _no_disk(at: Place) -> None:
    at.vm()
    backup(at, "disk-0")
    snapshot(at)


def _second_lacks_its_snapshot(at: Place) -> None:
    at.vm()
    backup(at, "disk-0", "disk-1")
    at.pvc()
    at.pvc("disk-1")
    snapshot(at)


def _terminating_backup(at: Place) -> None:
    at.vm()
    backup(at, "disk-0", deleted=True)
    at.pvc()
    snapshot(at)


def _terminating_backup_done(at: Place) -> None:
    at.vm()
    backup(at, "disk-0", deleted=True)
    snapshot(at, owner=at.pvc())


def _terminating_backup_no_snapshot(at: Place) -> None:
    at.vm()
    backup(at, "disk-0", deleted=True)
    at.pvc()


def _terminating_backup_no_disk(at: Place) -> None:
    at.vm()
    backup(at, "disk-0", deleted=True)
    snapshot(at)


def _namesake(at: Place) -> None:
    at.vm()
    at.vm(namespace=at.other, disks=("disk-0",))
    backup(at, "disk-0", namespace=at.other)
    at.pvc(namespace=at.other)
    snapshot(at, namespace=at.other)


def _namesake_no_snapshot(at: Place) -> None:
    at.vm()
    at.vm(namespace=at.other, disks=("disk-0",))
    backup(at, "disk-0", namespace=at.other)
    at.pvc(namespace=at.other)


def _namesake_remote(at: Place) -> None:
    at.vm()
    backup(at, "disk-0", namespace=at.other, kind="backup")


def _restoring(at: Place) -> None:
    _whole(at)
    restore(at, "True")


def _restored(at: Place) -> None:
    _whole(at)
    restore(at, "False")


_NO_SNAPSHOT = "can't get VolumeSnapshot {at}/snap-disk-0"
_SNAPSHOTS = [
    ("its backup is a remote one", _remote, lets_go(), DONE),
    ("a backup is of another VM", _of_another, lets_go(), DONE),
    ("its snapshot is of no disk", _empty, works(BACKUP), pending("{at}/snap")),
    ("its snapshot is whole", _whole, works(BACKUP, SNAPSHOT), pending("{at}/snap")),
    (
        "its snapshot is whole and its disk selected",
        _whole_and_selected,
        works(BACKUP, SNAPSHOT, DISK),
        pending("{at}/snap", "disk-0"),
    ),
    (
        "its snapshot lacks the VolumeSnapshot",
        _no_snapshot,
        holds(_NO_SNAPSHOT),
        pending("VolumeSnapshot {at}/snap-disk-0"),
    ),
    (
        "its snapshot lacks the VolumeSnapshot, and another disk is selected",
        _no_snapshot_but_selected,
        holds(_NO_SNAPSHOT),
        pending("VolumeSnapshot {at}/snap-disk-0", "disk-1"),
    ),
    (
        "its snapshot lacks the disk",
        _no_disk,
        holds("can't get PVC {at}/disk-0"),
        pending("PersistentVolumeClaim {at}/disk-0"),
    ),
    (
        "its snapshot lacks one VolumeSnapshot of two",
        _second_lacks_its_snapshot,
        holds("can't get VolumeSnapshot {at}/snap-disk-1"),
        pending("VolumeSnapshot {at}/snap-disk-1"),
    ),
    (
        "its snapshot is terminating, its VolumeSnapshot not handed over",
        _terminating_backup,
        works(SNAPSHOT),
        pending("{at}/snap"),
    ),
    (
        "its snapshot is terminating, its VolumeSnapshot handed over",
        _terminating_backup_done,
        lets_go(),
        DONE,
    ),
    (
        "its snapshot is terminating and lacks the VolumeSnapshot",
        _terminating_backup_no_snapshot,
        holds(_NO_SNAPSHOT),
        pending("VolumeSnapshot {at}/snap-disk-0"),
    ),
    (
        "its snapshot is terminating and lacks the disk",
        _terminating_backup_no_disk,
        holds("can't get PVC {at}/disk-0"),
        pending("PersistentVolumeClaim {at}/disk-0"),
    ),
    (
        "a living namesake elsewhere has a snapshot",
        _namesake,
        works(BACKUP, SNAPSHOT),
        pending("{other}/snap"),
    ),
    (
        "a living namesake elsewhere has a snapshot that lacks its VolumeSnapshot",
        _namesake_no_snapshot,
        holds("can't get VolumeSnapshot {other}/snap-disk-0"),
        pending("{other}/snap"),
    ),
    ("a namesake elsewhere has a remote backup", _namesake_remote, lets_go(), DONE),
    (
        "its snapshot is being restored",
        _restoring,
        holds("vmrestore {at}/back is in progress"),
        pending("{at}/snap", "{at}/back"),
    ),
    ("its snapshot was restored", _restored, works(BACKUP, SNAPSHOT), pending("{at}/snap")),
]

# Observed addresses

SEEN = '{"default": "MAC"}'
"""The address of the interface that every VM here has, as it was observed."""


def mac(at: Place) -> str:
    """An address that no other VM has."""
    digest = hashlib.sha256(at.at.encode()).hexdigest()
    return f"52:54:00:{digest[:2]}:{digest[2:4]}:{digest[4:6]}"


def observed(at: Place, text: str | None, *interfaces: Body, **more: Any) -> None:
    """A VMI that is being deleted, and its VM with what was observed of its interfaces.

    In both `MAC` stands for an address of its own.
    """
    at.vmi()
    text = text.replace("MAC", mac(at)) if text else text
    interfaces = tuple(json.loads(json.dumps(interfaces).replace("MAC", mac(at))))
    annotations = {} if text is None else {"harvesterhci.io/mac-address": text}
    at.vm(annotations=annotations, interfaces=list(interfaces), **more)


def interface(name: str = "default", **more: str) -> Body:
    """An interface as the spec of a VM has it."""
    return {"name": name, "masquerade": {}, **more}


def _duplicate(at: Place) -> None:
    observed(at, SEEN, interface())
    at.vm("other", interfaces=[interface(macAddress=mac(at))])


def _vetoed(at: Place) -> None:
    observed(at, SEEN, interface(macAddress="MAC"), disks=("disk-0",))
    at.pvc()
    at.vm("other", disks=("disk-0",))


_ITS_VM = "VirtualMachine/{name}"
# On any update of a VM the mutator of 1.8 gives its interfaces the addresses that they lack.
_OBSERVED: list[tuple[str, Stands, Owner, Said] | tuple[str, Stands, Owner, Said, str]] = [
    (
        "an interface was observed and is not in the spec",
        lambda at: observed(at, SEEN, interface()),
        works(_ITS_VM),
        pending("default"),
    ),
    (
        "an interface was observed and is in the spec",
        lambda at: observed(at, SEEN, interface(macAddress="MAC")),
        lets_go(),
        DONE,
    ),
    (
        "an interface has another address in the spec",
        lambda at: observed(
            at, SEEN, interface(macAddress="52:54:00:00:00:02")
        ),
        lets_go(),
        DONE,
    ),
    ("nothing was observed", lambda at: observed(at, None, interface()), lets_go(_ITS_VM), DONE),
    ("no address was seen", lambda at: observed(at, "{}", interface()), lets_go(_ITS_VM), DONE),
    (
        "another interface was observed",
        lambda at: observed(at, '{"nic-9": "MAC"}', interface()),
        lets_go(_ITS_VM),
        DONE,
    ),
    (
        "one interface of two was observed",
        lambda at: observed(at, '{"nic-1": "MAC"}', interface(), interface("nic-1")),
        works(_ITS_VM),
        pending("nic-1"),
    ),
    (
        "an interface was observed without an address",
        lambda at: observed(at, '{"default": ""}', interface()),
        lets_go(),
        DONE,
    ),
    ("the VM has no interface", lambda at: observed(at, SEEN), lets_go(),
     DONE),
    ("null was observed", lambda at: observed(at, "null", interface()), lets_go(_ITS_VM), DONE),
    (
        "the annotation is empty",
        lambda at: observed(at, "", interface()),
        holds("unexpected end of JSON input"),
        pending("harvesterhci.io/mac-address"),
    ),
    (
        "the annotation is no JSON",
        lambda at: observed(at, "default=52", interface()),
        holds("invalid character"),
        pending("harvesterhci.io/mac-address"),
    ),
    (
        "the annotation is a list",
        lambda at: observed(at, "[]", interface()),
        holds("cannot unmarshal array"),
        pending("harvesterhci.io/mac-address"),
    ),
    (
        "the annotation has a number for an address",
        lambda at: observed(at, '{"default": 1}', interface()),
        holds("cannot unmarshal number"),
        pending("harvesterhci.io/mac-address"),
    ),
    (
        "the VM is being deleted",
        lambda at: observed(
            at, SEEN, interface(), finalizers=("example.com/kept",)
        ),
        lets_go(),
        DONE,
    ),
    (
        "the VM is being deleted and its annotation is no JSON",
        lambda at: observed(at, "?", interface(), finalizers=("example.com/kept",)),
        lets_go(),
        DONE,
    ),
    (
        "the VM is gone",
        lambda at: at.vmi(),
        holds('virtualmachines.kubevirt.io \\"{name}\\" not found'),
        OWNERLESS,
    ),
    (
        "the address is that of another VM",
        _duplicate,
        holds("duplicate mac address present for vm {name}"),
        pending("default"),
    ),
    (
        "nothing is left to write, but the VM's updates are rejected",
        _vetoed,
        holds("is already used by other VM"),
        DONE,
        "The veto is on updates of the VM: the program's patch of the VMI passes, and nothing that"
        " the finalizer guards is lost.",
    ),
]  # fmt: skip


# Updates of the VM that are rejected, so that its finalizers stay on


def _shared(at: Place) -> None:
    at.vm(disks=("disk-0",))
    at.pvc()
    at.vm("other", disks=("disk-0",))


def _shared_with_a_dying(at: Place) -> None:
    at.vm(disks=("disk-0",))
    at.pvc()
    at.vm("other", disks=("disk-0",), finalizers=("example.com/kept",))


def _runs_on_a_golden_image(at: Place) -> None:
    at.vm(disks=("disk-0",))
    golden(at)


def _without_memory(spec: Body) -> None:
    del spec["domain"]["memory"]
    del spec["domain"]["resources"]


def _negative_grace(spec: Body) -> None:
    spec["terminationGracePeriodSeconds"] = -1


def _to_be_moved(at: Place) -> None:
    at.vm(
        disks=("disk-0",),
        annotations=template(targetVolume="disk-1"),
        status={"printableStatus": "Stopped"},
    )
    at.pvc()
    at.pvc("disk-1")


def _stopped_while_backed_up(at: Place) -> None:
    stop = [{"action": "Stop"}]
    subject = at.vm(status={"stateChangeRequests": stop})
    body = builders.vm_backup(at.at, "snap", at.name, "backup")
    body["spec"]["source"]["apiGroup"] = "kubevirt.io"
    body["status"] = {**SOURCE, "sourceUID": subject["metadata"]["uid"], "readyToUse": False}
    at.make(body)


_REJECTED = [
    (
        "another VM has its disk",
        _shared,
        "PVC {at}/disk-0 is already used by other VM, please use a shareable RWX volume.",
    ),
    (
        "another VM that is being deleted has its disk",
        _shared_with_a_dying,
        "PVC {at}/disk-0 is already used by other VM, please use a shareable RWX volume.",
    ),
    (
        "its disk is a golden image",
        _runs_on_a_golden_image,
        "PVC {at}/disk-0 is a golden image, it can't be used as a volume in VM",
    ),
    (
        "its claim templates are no JSON",
        lambda at: at.vm(annotations={"harvesterhci.io/volumeClaimTemplates": "?"}),
        "the volumeClaimTemplates annotaion is invalid",
    ),
    (
        "a claim template has no name",
        lambda at: at.vm(annotations={"harvesterhci.io/volumeClaimTemplates": "[{}]"}),
        "the volumeClaimTemplates annotaion is invalid: PVC name is required",
    ),
    (
        "its memory is not said",
        lambda at: at.vm(change=_without_memory),
        "either memory.guest or resources.limits.memory must be set",
    ),
    (
        "its grace period is negative",
        lambda at: at.vm(change=_negative_grace),
        "Termination grace period can't be negative",
    ),
    (
        "more memory is reserved than it has",
        lambda at: at.vm(annotations={"harvesterhci.io/reservedMemory": "1Gi"}),
        "reservedMemory cannot be equal or greater than limits.memory",
    ),
    (
        "a disk was to be moved, and it does not run",
        _to_be_moved,
        "VM must be running to set targetVolume for volume migration",
    ),
    (
        "a disk was to be moved that it does not have",
        lambda at: at.vm(annotations=template(targetVolume="disk-1")),
        "PVC disk-0 is not attached to the VM",
    ),
    (
        "it is to be stopped while it is backed up",
        _stopped_while_backed_up,
        "there is vmbackup in progress for vm {at}/{name}, please wait for the vmbackup",
    ),
]

# What up to Harvester 1.3 guarded the disks, and is only taken off since


def _owner_annotation(at: Place) -> None:
    at.vm(disks=("disk-0",))
    refs = [{"schema": "kubevirt.io.virtualmachine", "refs": [f"{at.at}/{at.name}"]}]
    at.pvc(annotations={"harvesterhci.io/owned-by": json.dumps(refs)})


_DEPRECATED = [
    ("no disk", lambda at: at.vm(), lets_go()),
    ("an owned disk", _owner_annotation, lets_go()),
    ("a selected disk", _free, lets_go()),
]

# Before 1.8 the webhook looked neither at the templates of a VM, nor whether an owner is going
# itself, and had other words for VMs. And a Harvester that was started after the disk was made gave
# its VolumeSnapshot an owner without a kind, which the API server refuses every time.
_SINCE_18 = {
    "the selected disk is in the templates of a living VM",
    "another VM that is being deleted owns the selected disk",
    "it owns the selected disk itself",
    "its snapshot is whole",
    "its snapshot is whole and its disk selected",
    "its snapshot lacks one VolumeSnapshot of two",
    "its snapshot is terminating, its VolumeSnapshot not handed over",
    "its snapshot is terminating, its VolumeSnapshot handed over",
    "a living namesake elsewhere has a snapshot",
    "its snapshot is being restored",
    "its snapshot was restored",
    "another VM has its disk",
    "another VM that is being deleted has its disk",
    "its memory is not said",
    "a disk was to be moved, and it does not run",
    "a disk was to be moved that it does not have",
}


_SINCE_15 = {
    "the selected disk is a golden image",
    "the selected disk is a golden image and terminating",
    "its disk is a golden image",
}
"""Before, the annotation that makes a golden image means nothing."""


def _since(text: str) -> tuple[int, int]:
    return (1, 8) if text in _SINCE_18 else (1, 5) if text in _SINCE_15 else (1, 4)


SITUATIONS: list[Situation] = [
    *(line(f"cleanup: {text}", CLEANUP, stands, owner, said, since=_since(text))
      for text, stands, owner, said in (*_SELECTED, *_SNAPSHOTS)),
    *(line(f"backfill: {row[0]}", BACKFILL, row[1], row[2], row[3],
           differs=row[4] if len(row) > 4 else "", since=(1, 7))
      for row in _OBSERVED),
    *(line(f"rejected: {text}", CLEANUP, stands, rejected(words), DONE, since=_since(text))
      for text, stands, words in _REJECTED),
    *(line(f"deprecated: {text}, {name}", name, stands, owner, DONE)
      for name in DEPRECATED_VM
      for text, stands, owner in _DEPRECATED),
    line("deprecated: on a VMI", DEPRECATED_VMI, lambda at: at.vmi(), lets_go(), DONE),
]  # fmt: skip
