"""What a released VM leaves: disks, attachments, snapshots, addresses, with what to do about it.

What the garbage collector takes with the VM is not left: `goes_with_vm` tells of that.
Only what nobody will take away any more comes with a command that removes it. Disks that the user
did not tick for deletion are kept on purpose, and so are snapshots; they are named, and no command
deletes them, nor what owns them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.harvester import goes_with_vm, harmless, pending_work
from kubectl_harvester_stuck.harvester.finalizer_judges import GUEST_CLUSTER_REMOVED
from kubectl_harvester_stuck.harvester.goes_with_vm import GoesAndStays
from kubectl_harvester_stuck.harvester.node_health import NODES, read_node
from kubectl_harvester_stuck.harvester.target import Target, pvc_names
from kubectl_harvester_stuck.k8s import commands
from kubectl_harvester_stuck.k8s.commands import Advice, Remark
from kubectl_harvester_stuck.k8s.kinds import (
    DATA_VOLUME,
    LOAD_BALANCER,
    LONGHORN_ATTACHMENT,
    LONGHORN_NAMESPACE,
    LONGHORN_ORPHAN,
    LONGHORN_VOLUME,
    MIGRATION,
    NETWORK_CONFIG,
    PCI_CLAIM,
    POD,
    PVC,
    USB_CLAIM,
    VM,
    VM_BACKUP,
    VM_RESTORE,
    VMI,
    VOLUME_ATTACHMENT,
)
from kubectl_harvester_stuck.k8s.objects import KubeObject
from kubectl_harvester_stuck.k8s.reads import Read, declared, metadata

READS = declared(
    *goes_with_vm.GOING,
    *NODES,
    VM,
    VMI,
    PVC,
    MIGRATION,
    LOAD_BALANCER,
    *metadata(NETWORK_CONFIG),
    VOLUME_ATTACHMENT,
    PCI_CLAIM,
    USB_CLAIM,
    Read(LONGHORN_VOLUME, LONGHORN_NAMESPACE),
    Read(LONGHORN_ATTACHMENT, LONGHORN_NAMESPACE),
    Read(LONGHORN_ORPHAN, LONGHORN_NAMESPACE),
)


def of(target: Target, vm: KubeObject) -> tuple[Advice, ...]:
    """What is there of `vm` besides itself; what could not be read is said.

    `vm` is the VM as it was before its release, `target` the cluster as it is now.
    """
    found: list[Advice] = []
    left = _Left(target, vm)
    for look in LOOKS:
        try:
            found += look(left)
        except UnreadableError as error:
            found.append(Remark(f"not looked for: {error}"))
    return harmless.checked(found, target.snapshot)


@dataclass(frozen=True)
class _Left:
    """A VM that was released, and the cluster as it is then."""

    target: Target
    vm: KubeObject

    @cached_property
    def disks(self) -> frozenset[str]:
        """Names of the PVCs that the VM uses, or that are to be deleted with it."""
        return frozenset((*pvc_names(self.vm), *pending_work.selected(self.vm)))

    @cached_property
    def claims(self) -> tuple[KubeObject, ...]:
        """Those that are there and stay. Raises UnreadableError."""
        return tuple(
            claim
            for claim in self.target.snapshot.all(PVC, self.vm.ref.namespace)
            if claim.ref.name in self.disks and claim.deletion_timestamp is None
        )

    @cached_property
    def going(self) -> GoesAndStays:
        """What goes with the VM. Raises UnreadableError where that is not known."""
        going = goes_with_vm.of(self.target, (self.vm,), (self.vm,))
        if going.blind is not None:
            raise going.blind
        return going


Search = Callable[[_Left], Iterator[Advice]]


def _disks(left: _Left) -> Iterator[Advice]:
    ticked = pending_work.selected(left.vm)
    going = left.going
    for claim in left.claims:
        if going.of(claim.ref) is not None:
            continue
        if claim.ref.name not in ticked:
            yield Remark(f"{claim.ref} is kept, with its data: it was not selected for deletion")
        elif users := _other_users(left.target, left.vm, claim.ref.name):
            yield Remark(
                f"{claim.ref} was selected for deletion, but {users[0]} uses it: it is kept, with"
                " its data"
            )
        else:
            note = f"{claim.ref} was selected for deletion and is still there; if it is not wanted"
            yield commands.delete(claim.ref).noted(note)


def _other_users(target: Target, vm: KubeObject, claim: str) -> list[str]:
    """VMs, VMIs and pods but those of `vm` that use the PVC. Raises UnreadableError."""
    machines = (
        item
        for kind in (VM, VMI)
        for item in target.snapshot.all(kind, vm.ref.namespace)
        if item.ref.name != vm.ref.name and claim in pvc_names(item)
    )
    own = {pod.ref for pod in (*target.pods, *target.doubtful_pods, *target.attachment_pods)}
    pods = (
        pod
        for pod in target.snapshot.all(POD, vm.ref.namespace)
        if pod.ref not in own and claim in goes_with_vm.claims_of(pod)
    )
    return [str(item.ref) for item in (*machines, *pods)]


def _attachments(left: _Left) -> Iterator[Advice]:
    volumes = {claim.text("spec", "volumeName") for claim in left.claims} - {""}
    for item in left.target.snapshot.all(VOLUME_ATTACHMENT):
        if item.text("spec", "source", "persistentVolumeName") not in volumes:
            continue
        node = item.text("spec", "nodeName")
        line = f"{item.ref} (storage.k8s.io) still attaches a disk to {node}"
        if read_node(left.target, node).kubelet_answers:
            yield Remark(f"{line}, which answers: its attacher takes it off")
        else:
            note = f"{line}, which does not answer; once that node has no power"
            yield commands.delete(item.ref).noted(note)


def _longhorn(left: _Left) -> Iterator[Advice]:
    volumes = {claim.text("spec", "volumeName") for claim in left.claims} - {""}
    for item in left.target.snapshot.all(LONGHORN_ATTACHMENT, LONGHORN_NAMESPACE):
        tickets = item.mapping("spec", "attachmentTickets")
        if item.ref.name in volumes and tickets:
            many = "s" if len(tickets) > 1 else ""
            yield commands.get(item.ref, "-o", "yaml").noted(
                f"{item.ref} (longhorn.io) still holds {len(tickets)} ticket{many}; look before"
                " anything else"
            )


def _backups(left: _Left) -> Iterator[Advice]:
    going = left.going
    for item in left.target.snapshot.all(VM_BACKUP, left.vm.ref.namespace):
        of_this = item.text("spec", "source", "name") == left.vm.ref.name
        is_left = of_this and going.of(item.ref) is None
        if is_left and item.text("spec", "type") != "backup":
            yield Remark(
                f"{item.ref} is a snapshot of this VM, which Harvester normally deletes with it;"
                " it stays, and a new VM can be restored from it"
            )


def _restores(left: _Left) -> Iterator[Advice]:
    going = left.going
    for item in left.target.snapshot.all(VM_RESTORE, left.vm.ref.namespace):
        if (
            item.text("spec", "target", "name") != left.vm.ref.name
            or going.of(item.ref) is not None
        ):
            continue
        owned = [
            str(one.ref)
            for kind in (PVC, DATA_VOLUME)
            for one in left.target.snapshot.all(kind, left.vm.ref.namespace)
            if one.is_owned_by(item)
        ]
        if owned:
            yield Remark(f"{item.ref} speaks of this VM; leave it, for {owned[0]} goes with it")
        else:
            yield commands.delete(item.ref).noted(f"{item.ref} speaks of this VM")


def _addresses(left: _Left) -> Iterator[Advice]:
    for item in left.target.snapshot.all(NETWORK_CONFIG, left.vm.ref.namespace):
        if item.ref.name == left.vm.ref.name and item.deletion_timestamp is None:
            note = f"{item.ref} holds addresses of an IP pool for this VM"
            yield commands.delete(item.ref).noted(note)


def _pods(left: _Left) -> Iterator[Advice]:
    for pod in left.target.pods:
        yield Remark(
            f"{pod.ref} still carries the name of this VM: it must be gone before a VM"
            f" {left.vm.ref.name} is made again"
        )
    for pod in left.target.attachment_pods:
        yield Remark(
            f"{pod.ref} still holds a hotplugged volume; look at its node before anything else"
        )


def _migrations(left: _Left) -> Iterator[Advice]:
    for item in left.target.snapshot.all(MIGRATION, left.vm.ref.namespace):
        if item.text("spec", "vmiName") == left.vm.ref.name:
            phase = item.text("status", "phase") or "no phase"
            yield commands.delete(item.ref).noted(f"{item.ref} speaks of this VM ({phase})")


def _volumes(left: _Left) -> Iterator[Advice]:
    claims = {item.ref.name for item in left.target.snapshot.all(PVC, left.vm.ref.namespace)}
    volumes = left.target.snapshot.sorted_by(_claim_of, LONGHORN_VOLUME, LONGHORN_NAMESPACE)
    for claim in sorted(left.disks - claims):
        for volume in volumes.get((left.vm.ref.namespace, claim), ()):
            yield Remark(
                f"{volume.ref} (longhorn.io) still holds the data of {claim}, whose claim is gone;"
                " it can be bound again, or deleted in the Longhorn UI"
            )


def _claim_of(volume: KubeObject) -> tuple[str, str]:
    path = ("status", "kubernetesStatus")
    return volume.text(*path, "namespace"), volume.text(*path, "pvcName")


def _orphans(left: _Left) -> Iterator[Advice]:
    volumes = {claim.text("spec", "volumeName") for claim in left.claims} - {""}
    for item in left.target.snapshot.all(LONGHORN_ORPHAN, LONGHORN_NAMESPACE):
        written = str(item.mapping("spec", "parameters").get("DataName") or "")
        if any(written.startswith(volume) for volume in volumes):
            node = item.text("spec", "nodeID")
            yield commands.get(item.ref, "-o", "yaml").noted(
                f"{item.ref} (longhorn.io) is replica data of a disk of this VM on {node}, which"
                " its volume does not use"
            )


def _load_balancers(left: _Left) -> Iterator[Advice]:
    if left.vm.annotations.get(GUEST_CLUSTER_REMOVED) != "true":
        return
    for item in pending_work.load_balancers(left.vm, left.target):
        note = f"{item.ref} belongs to the guest cluster that was removed with this VM"
        yield commands.delete(item.ref).noted(note)


def _devices(left: _Left) -> Iterator[Advice]:
    path = ("spec", "template", "spec", "domain", "devices", "hostDevices")
    used = {str(item.get("name")) for item in left.vm.mappings(*path)}
    for kind in (PCI_CLAIM, USB_CLAIM) if used else ():
        for item in left.target.snapshot.all(kind):
            if item.ref.name in used:
                yield Remark(
                    f"{item.ref} keeps its device for VMs, as before; other VMs can use it"
                )


LOOKS: tuple[Search, ...] = (
    _disks,
    _volumes,
    _attachments,
    _longhorn,
    _orphans,
    _backups,
    _restores,
    _migrations,
    _addresses,
    _load_balancers,
    _devices,
    _pods,
)
