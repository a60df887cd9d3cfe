"""What Harvester still has to do with the disks and snapshots of a VM that is being deleted.

It deletes the disks that the user ticked, and every snapshot-type backup of the VM's name, in
whatever namespace. Before it deletes a backup it hands each VolumeSnapshot over to its disk. Its
own webhook can forbid the deletion of a disk, also of one that is being deleted already: then
Harvester tries for ever. Its controller of load balancers deletes those of a guest cluster that
Rancher removes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.harvester.target import Target, pvc_names
from kubectl_harvester_stuck.k8s import nesting
from kubectl_harvester_stuck.k8s.kinds import (
    LOAD_BALANCER,
    PVC,
    VM,
    VM_BACKUP,
    VM_IMAGE,
    VM_RESTORE,
    VOLUME_SNAPSHOT,
)
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef
from kubectl_harvester_stuck.k8s.reads import EVERYWHERE, Read, declared, metadata
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot

REMOVED_PVCS = "harvesterhci.io/removedPersistentVolumeClaims"
"""Annotation of a VM: the disks that the user selected for deletion, separated by commas."""

MAINTENANCE_NODE = "harvesterhci.io/maintain-mode-strategy-node-name"
"""Annotation of a VM that was shut down for the maintenance of that node, to be started afterwards.
Source: Harvester pkg/controller/master/node/maintain_controller.go, pkg/api/node/formatter.go."""

CLAIM_TEMPLATES = "harvesterhci.io/volumeClaimTemplates"
"""Annotation of a VM: a JSON list of the disks that Harvester makes for it."""

GOLDEN_IMAGE = "harvesterhci.io/goldenImage"
"""Annotation of a PVC, "true" on the disk that an image is made of."""

DISKS_READ = declared(*metadata(PVC), Read(VM_IMAGE, EVERYWHERE), VM)
"""What tells which ticked disks are left, and what forbids their deletion."""

CLEANUP = "wrangler.cattle.io/VMController.CleanupPVCAndSnapshot"
"""The finalizer of a VM for whose sake Harvester deletes disks and snapshots."""


def of_namesakes(snapshot: ClusterSnapshot) -> Iterator[str]:
    """Namespaces of snapshots that Harvester takes for those of a VM of that name elsewhere.

    Raises UnreadableError.
    """
    machines = [item for items in snapshot.listed.values() for item in items]
    machines += [item for item in snapshot.found.values() if item is not None]
    going = [item.ref for item in machines if item.ref.kind is VM and CLEANUP in item.finalizers]
    names = {(ref.namespace, ref.name) for ref in going}
    for backup in snapshot.all(VM_BACKUP):
        name, namespace = backup.text("spec", "source", "name"), backup.ref.namespace
        if any(name == one and namespace != other for other, one in names) and is_local(backup):
            yield namespace


CONTENTS_READ = declared(
    VM_BACKUP,
    Read(VM_BACKUP, EVERYWHERE),
    *metadata(PVC, VOLUME_SNAPSHOT),
    *(Read(kind, of_namesakes, metadata_only=True) for kind in (PVC, VOLUME_SNAPSHOT)),
)
"""What tells which snapshots there are, and whether their parts are."""
SNAPSHOTS_READ = declared(*CONTENTS_READ, VM_RESTORE)
"""What tells which snapshots are left, and what is missing of them."""


def selected(vm: KubeObject) -> frozenset[str]:
    """Names of the disks that the user selected for deletion."""
    names = vm.annotations.get(REMOVED_PVCS, "").split(",")
    return frozenset(name.strip() for name in names) - {""}


def selected_disks(vm: KubeObject, target: Target) -> Iterator[KubeObject]:
    """The disks that were ticked and are there, those that are being deleted included."""
    names = selected(vm)
    if names:
        for claim in target.snapshot.all(PVC, vm.ref.namespace):
            if claim.ref.name in names:
                yield claim


def disks_left(vm: KubeObject, target: Target) -> Iterator[str]:
    """Each ticked disk that keeps Harvester busy, with what forbids its deletion."""
    for claim in selected_disks(vm, target):
        going = claim.deletion_timestamp is not None
        why = ""
        try:
            why = why_kept(claim, target.snapshot)
        except UnreadableError:
            if going:
                raise
        what = f"PersistentVolumeClaim {claim.ref.name}"
        if why:
            yield f"{what}, which Harvester's webhook does not let go: {why}"
        elif not going:
            yield what


def why_kept(claim: KubeObject, snapshot: ClusterSnapshot) -> str:
    """Why the webhook forbids to delete the disk; empty where it does not.

    Raises UnreadableError.
    """
    golden = claim.annotations.get(GOLDEN_IMAGE) == "true"
    if golden and claim.text("status", "phase") != "Lost" and _image_is_there(claim, snapshot):
        return "it is a golden image"
    for image in snapshot.all(VM_IMAGE):
        source = image.mapping("spec")
        if (
            source.get("sourceType") == "export-from-volume"
            and source.get("pvcNamespace") == claim.ref.namespace
            and source.get("pvcName") == claim.ref.name
            and not _is_true(image, "Imported")
        ):
            return f"{image.ref} is being made of it"
    for vm in snapshot.all(VM, claim.ref.namespace):
        if vm.deletion_timestamp is None:
            if claim.ref.name in (*_listed(vm), *templates(vm)):
                return f"it is a disk of {vm.ref}"
            if claim.is_owned_by(vm):
                return f"{vm.ref} owns it"
    return ""


def _image_is_there(claim: KubeObject, snapshot: ClusterSnapshot) -> bool:
    namespace, name = claim.ref.namespace, claim.ref.name
    # One that was cloned for a VM names the image that it was cloned from.
    if claim.annotations.get("cdi.kubevirt.io/storage.populator.kind") == "VolumeCloneSource":
        source = claim.annotations.get("cdi.kubevirt.io/events.source", "").split("/")
        if len(source) == 2:
            namespace, name = source
    wanted = ObjectRef(namespace, name, VM_IMAGE)
    return any(image.ref == wanted for image in snapshot.all(VM_IMAGE))


def _listed(vm: KubeObject) -> tuple[str, ...]:
    with suppress(UnreadableError):
        return pvc_names(vm)
    return ()


def templates(vm: KubeObject) -> list[str]:
    """Names in the annotation of the templates; where it is no such list, the webhook sees none."""
    with suppress(ValueError, TypeError, AttributeError, KeyError):
        entries = nesting.parse(vm.annotations.get(CLAIM_TEMPLATES) or "[]")
        return [str(entry["metadata"]["name"]) for entry in entries]
    return []


OWNED_BY = "harvesterhci.io/owned-by"
"""Annotation of a PVC up to Harvester 1.3: a JSON list of the VMs that own it."""


def owned_by(claim: KubeObject) -> list[str]:
    """The VMs that own a PVC, by Harvester's annotation. Raises UnreadableError."""
    written = claim.annotations.get(OWNED_BY)
    try:
        return [
            str(ref) for entry in nesting.parse(written or "[]") for ref in entry.get("refs") or ()
        ]
    except (ValueError, TypeError, AttributeError):
        raise UnreadableError(str(claim.ref), f"its {OWNED_BY} annotation is malformed") from None


def disks_of(backup: KubeObject) -> list[str]:
    """Names of the PVCs that a backup was taken of. Raises UnreadableError."""
    return [name_of_disk(part) for part in backup.mappings("status", "volumeBackups")]


def name_of_disk(part: Mapping[str, Any]) -> str:
    """The PVC of one part of a backup; "" where it names none."""
    value: object = part
    for key in ("persistentVolumeClaim", "metadata", "name"):
        value = value.get(key) if isinstance(value, Mapping) else None
    return str(value or "")


def is_in_progress(restore: KubeObject) -> bool:
    """Whether a VirtualMachineRestore is at work. Raises UnreadableError."""
    return _is_true(restore, "InProgress")


def holds_a_stop(backup: KubeObject) -> bool:
    """Whether Harvester's webhook rejects a stop of the VM for this backup."""
    return (
        backup.deletion_timestamp is None and backup.mapping("status").get("readyToUse") is not True
    )


def _is_true(item: KubeObject, condition: str) -> bool:
    return any(
        found.get("type") == condition and found.get("status") == "True"
        for found in item.mappings("status", "conditions")
    )


def load_balancers(vm: KubeObject, target: Target) -> Iterator[KubeObject]:
    """The LoadBalancers of the guest cluster that the VM is a node of."""
    cluster = vm.labels.get("guestcluster.harvesterhci.io/name")
    if vm.labels.get("harvesterhci.io/creator") != "docker-machine-driver-harvester":
        return
    for item in target.snapshot.all(LOAD_BALANCER, vm.ref.namespace):
        if (
            cluster is not None
            and item.labels.get("cloudprovider.harvesterhci.io/cluster") == cluster
            and item.text("spec", "workloadType") == "cluster"
            and item.deletion_timestamp is None
        ):
            yield item


def snapshots_left(vm: KubeObject, target: Target) -> Iterator[str]:
    """Each snapshot-type backup that keeps Harvester busy, with what is missing of it."""
    for backup in backups_of_the_name(vm, target):
        work = list(_obstacles(backup, target))
        if work:
            yield f"{backup.ref} ({', '.join(work)})"
        elif backup.deletion_timestamp is None:
            yield str(backup.ref)


def backups_of_the_name(vm: KubeObject, target: Target) -> Iterator[KubeObject]:
    """Snapshot-type backups of a VM of this name, those of other namespaces last.

    Where not all namespaces can be read, those of others are left out: without the finalizer
    nobody touches them, which is what their owners expect.
    """
    backups = list(target.snapshot.all(VM_BACKUP, vm.ref.namespace))
    with suppress(UnreadableError):
        everywhere = target.snapshot.all(VM_BACKUP)
        backups += [item for item in everywhere if item.ref.namespace != vm.ref.namespace]
    for backup in backups:
        if backup.text("spec", "source", "name") == vm.ref.name and is_local(backup):
            yield backup


def is_local(backup: KubeObject) -> bool:
    """Whether it is deleted with its VM; only backups to a remote target are kept."""
    return backup.text("spec", "type") != "backup"


def _obstacles(backup: KubeObject, target: Target) -> Iterator[str]:
    """What has to be done, or is missing, before the backup can be deleted.

    Of a backup that is not being deleted only what is missing matters: the rest is done with it.
    """
    going = backup.deletion_timestamp is not None
    try:
        for part in backup.mappings("status", "volumeBackups"):
            yield from _part(backup, part, target)
        for restore in target.snapshot.all(VM_RESTORE, backup.ref.namespace):
            if (
                restore.deletion_timestamp is None
                and restore.text("spec", "virtualMachineBackupName") == backup.ref.name
                and is_in_progress(restore)
            ):
                yield f"{restore.ref} is in progress"
    except UnreadableError:
        if going and backup.ref.namespace == target.ref.namespace:
            raise
        if going:
            yield "in a namespace that was not looked into"


def _part(backup: KubeObject, part: Mapping[str, Any], target: Target) -> Iterator[str]:
    """One disk of the backup."""
    snapshot = target.snapshot.one(
        ObjectRef(backup.ref.namespace, str(part.get("name")), VOLUME_SNAPSHOT)
    )
    if snapshot is None:
        yield f"VolumeSnapshot {backup.ref.namespace}/{part.get('name')} is missing"
        return
    source = part.get("persistentVolumeClaim")
    meta = source.get("metadata") if isinstance(source, Mapping) else None
    meta = meta if isinstance(meta, Mapping) else {}
    ref = ObjectRef(str(meta.get("namespace")), str(meta.get("name")), PVC)
    claim = target.snapshot.one(ref)
    if claim is None:
        yield f"{ref} is missing"
    elif backup.deletion_timestamp is not None and [o.uid for o in snapshot.owners] != [claim.uid]:
        yield f"{snapshot.ref} is not handed over to its disk yet"
