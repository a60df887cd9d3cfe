"""The catalogue: every finalizer that Harvester, KubeVirt and Kubernetes put on a VM or a VMI.

Each entry says who owns the finalizer, when its work is finished, and what stays behind when it
is removed by hand. To add one: an entry in `CATALOGUE` with a `judge` that answers from the case
alone, and a case in tests/test_finalizers.py.

A judge is asked about the future: the case it gets is the one in which every earlier step of the
plan has succeeded. It returns the state and the evidence, and raises `UnreadableError` (through
the case) where it is blind, which makes the state `unknown`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, unique

from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.harvester.target import Target
from kubectl_harvester_stuck.k8s import nesting
from kubectl_harvester_stuck.k8s.kinds import (
    CONTROLLER_REVISION,
    DATA_VOLUME,
    JOB,
    LOAD_BALANCER,
    PVC,
    VM,
    VM_BACKUP,
    VMI,
    Kind,
)
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef


@unique
class FinalizerState(str, Enum):
    """What may be said of a finalizer; the values stand in JSON."""

    DONE = "done"
    OWNERLESS = "ownerless"
    PENDING = "pending"
    UNKNOWN = "unknown"
    NEVER = "never"


@dataclass(frozen=True)
class FinalizerAssessment:
    """One finalizer of one object, as it will be when its turn in the plan comes."""

    name: str
    ref: ObjectRef
    owner: str
    state: FinalizerState
    reason: str
    leaves_behind: str
    catalogued: bool


DONE, OWNERLESS, PENDING, NEVER = (
    FinalizerState.DONE,
    FinalizerState.OWNERLESS,
    FinalizerState.PENDING,
    FinalizerState.NEVER,
)

Answer = tuple[FinalizerState, str]
Judge = Callable[[KubeObject, Target], Answer]

REMOVED_PVCS = "harvesterhci.io/removedPersistentVolumeClaims"
"""Annotation of a VM: the disks that the user ticked for deletion, separated by commas."""

GUEST_CLUSTER_REMOVED = "harvesterhci.io/removeAllPersistentVolumeClaims"
"""Annotation of a VM, "true" once Rancher removes the guest cluster that it belongs to."""

OWNED_BY = "harvesterhci.io/owned-by"
"""Annotation of a PVC up to Harvester 1.3: a JSON list of the VMs that own it."""


@dataclass(frozen=True)
class Finalizer:
    """One entry of the catalogue.

    `reads` are the kinds in the target's namespace that the judge needs beyond the case itself.
    `source` names the file in the owner's code that adds or removes the finalizer.
    """

    name: str
    kinds: tuple[Kind, ...]
    owner: str
    workload: str
    versions: str
    released_when: str
    leaves_behind: str
    source: str
    judge: Judge
    reads: tuple[Kind, ...] = ()


def judge(name: str, subject: KubeObject, case: Target) -> FinalizerAssessment:
    """The state of one finalizer of `subject`, with its reason; never raises."""
    entry = find(name, subject.ref.kind)
    if entry is None:
        prefix = "a wrangler controller that is " if name.startswith("wrangler.cattle.io/") else ""
        return FinalizerAssessment(
            name=name,
            ref=subject.ref,
            owner="not known",
            state=FinalizerState.UNKNOWN,
            reason=f"{prefix}not in the catalogue",
            leaves_behind="not known",
            catalogued=False,
        )
    try:
        state, reason = entry.judge(subject, case)
    except UnreadableError as error:
        state, reason = FinalizerState.UNKNOWN, str(error)
    return FinalizerAssessment(
        name, subject.ref, entry.owner, state, reason, entry.leaves_behind, catalogued=True
    )


def find(name: str, kind: Kind) -> Finalizer | None:
    """The catalogue's entry for exactly this name on this kind."""
    return _BY_NAME.get((name, kind))


def waits_for_the_guest(judgment: FinalizerAssessment) -> bool:
    """Whether the finalizer may only go once the guest has ended."""
    entry = find(judgment.name, judgment.ref.kind)
    return entry is not None and entry.judge is _instance_over


def kinds_needed(subjects: tuple[KubeObject, ...]) -> frozenset[Kind]:
    """Every kind that has to be read to judge the finalizers of these objects."""
    entries = (find(name, item.ref.kind) for item in subjects for name in item.finalizers)
    return frozenset(kind for entry in entries if entry for kind in entry.reads)


def _instance_over(_: KubeObject, case: Target) -> Answer:
    """The guest has ended: no VMI, or no pod of it and a final phase or a silent host.

    Whether the host may be taken for silent is the guard `guest-stopped`'s to say, which every
    plan has to pass; here only the objects count.
    """
    vmi = case.vmi
    if vmi is None:
        return DONE, "the VMI is gone"
    if case.pods:
        return PENDING, f"pod {case.pods[0].ref.name} still exists"
    phase = vmi.text("status", "phase") or "none"
    return DONE, f"no pod of the guest is left (phase {phase})"


def _instance_gone(_: KubeObject, case: Target) -> Answer:
    vmi = case.vmi
    if vmi is None:
        return DONE, "the VMI is gone"
    return PENDING, f"the VMI still exists ({vmi.text('status', 'phase') or 'no phase'})"


def _removed_disks_left(vm: KubeObject, case: Target) -> tuple[str, ...]:
    """PVCs that the user ticked for deletion and that nobody has deleted yet."""
    ticked = {name.strip() for name in vm.annotations.get(REMOVED_PVCS, "").split(",")} - {""}
    if not ticked:
        return ()
    claims = case.snapshot.all(PVC, vm.ref.namespace)
    return tuple(
        claim.ref.name
        for claim in claims
        if claim.ref.name in ticked and claim.deletion_timestamp is None
    )


def _disks_and_snapshots(vm: KubeObject, case: Target) -> Answer:
    work = [f"PersistentVolumeClaim {name}" for name in _removed_disks_left(vm, case)]
    work += [
        f"VirtualMachineBackup {backup.ref.name}"
        for backup in case.snapshot.all(VM_BACKUP, vm.ref.namespace)
        if backup.text("spec", "source", "name") == vm.ref.name
        # Backups to a remote target are kept; everything else is deleted with the VM.
        and backup.text("spec", "type") != "backup"
        and backup.deletion_timestamp is None
    ]
    if work:
        return PENDING, f"still to be deleted: {', '.join(work)}"
    return DONE, "no disk that was ticked for deletion and no snapshot of this VM is left"


def _owner_references(vm: KubeObject, case: Target) -> Answer:
    work = [f"PersistentVolumeClaim {name}" for name in _removed_disks_left(vm, case)]
    for claim in case.snapshot.all(PVC, vm.ref.namespace):
        written = claim.annotations.get(OWNED_BY)
        if written and vm.ref.key in _owned_by(written, claim):
            work.append(f"the {OWNED_BY} annotation of PersistentVolumeClaim {claim.ref.name}")
    if work:
        return PENDING, f"still there: {', '.join(work)}"
    return OWNERLESS, "Harvester 1.4 and later have no such controller, and no work is left"


def _owned_by(written: str, claim: KubeObject) -> list[str]:
    try:
        return [str(ref) for entry in nesting.parse(written) for ref in entry.get("refs") or ()]
    except (ValueError, TypeError, AttributeError):
        raise UnreadableError(str(claim.ref), f"its {OWNED_BY} annotation is malformed") from None


def _dependents(subject: KubeObject, case: Target) -> Answer:
    pods = case.pods if subject.ref.kind is VMI else ()
    vmi = case.vmi
    listed = (
        item
        for kind in (PVC, DATA_VOLUME, CONTROLLER_REVISION)
        for item in case.snapshot.all(kind, subject.ref.namespace)
    )
    candidates = (*pods, *((vmi,) if vmi else ()), *listed)
    blocking = [str(item.ref) for item in candidates if item.is_owned_by(subject)]
    if blocking:
        return PENDING, f"the garbage collector waits for {', '.join(blocking)}"
    return DONE, "no VMI, pod, disk or revision that this object owns is left"


def _orphan(subject: KubeObject, _: Target) -> Answer:
    return NEVER, f"deleted with --cascade=orphan: {subject.ref.name}'s dependents are to be kept"


def _clone_jobs(vm: KubeObject, case: Target) -> Answer:
    jobs = [job.ref.name for job in case.snapshot.all(JOB, vm.ref.namespace) if job.is_owned_by(vm)]
    if jobs:
        return PENDING, f"clone Jobs still exist: {', '.join(jobs)}"
    return DONE, "no clone Job of this VM is left"


def _load_balancers(vm: KubeObject, case: Target) -> Answer:
    if vm.annotations.get(GUEST_CLUSTER_REMOVED) != "true":
        return DONE, "its guest cluster is not being removed"
    left = [
        item.ref.name
        for item in case.snapshot.all(LOAD_BALANCER, vm.ref.namespace)
        if item.text("spec", "workloadType") == "cluster" and item.deletion_timestamp is None
    ]
    if left:
        return PENDING, f"LoadBalancers of guest clusters still exist: {', '.join(left)}"
    return DONE, "no LoadBalancer of a guest cluster is left in the namespace"


def _backfill(_: KubeObject, case: Target) -> Answer:
    vm = case.vm
    if vm is None:
        return DONE, "the VM that the addresses would be written to is gone"
    if vm.deletion_timestamp is not None:
        return DONE, "the VM is being deleted, so nothing is written to it"
    if "harvesterhci.io/mac-address" not in vm.annotations:
        return DONE, "the VM carries no observed MAC address"
    path = ("spec", "template", "spec", "domain", "devices", "interfaces")
    open_ = [str(item.get("name")) for item in vm.mappings(*path) if not item.get("macAddress")]
    if open_:
        return PENDING, f"the MAC address of {', '.join(open_)} is not in the VM's spec yet"
    return DONE, "every interface of the VM has its MAC address"


def _devices(vmi: KubeObject, case: Target) -> Answer:
    devices = ("spec", "domain", "devices")
    if not vmi.mappings(*devices, "hostDevices") and not vmi.mappings(*devices, "gpus"):
        return DONE, "the VMI has no host devices"
    vm = case.vm
    if vm is None or vm.deletion_timestamp is not None:
        return DONE, "the VM that the allocation would be written to is going"
    if "harvesterhci.io/deviceAllocationDetails" not in vm.annotations:
        return DONE, "the VM carries no device allocation"
    return PENDING, "the device allocation is not in the VM's spec yet"


def _snapshot_lock(vm: KubeObject, _: Target) -> Answer:
    running = vm.text("status", "snapshotInProgress")
    if running:
        return PENDING, f"VirtualMachineSnapshot {running} is in progress"
    return DONE, "no VirtualMachineSnapshot is in progress"


def _pool(vm: KubeObject, _: Target) -> Answer:
    pools = [owner.name for owner in vm.owners if owner.kind == "VirtualMachinePool"]
    if pools:
        return PENDING, f"VirtualMachinePool {pools[0]} owns this VM"
    return DONE, "no VirtualMachinePool owns this VM"


_VIRT_CONTROLLER = ("virt-controller", "deploy/virt-controller")
_HARVESTER = ("harvester", "deploy/harvester")
_LOAD_BALANCER = ("harvester-load-balancer", "deploy/harvester-load-balancer")
_GC = ("garbage collector", "kube-controller-manager")

CATALOGUE: tuple[Finalizer, ...] = (
    Finalizer(
        "kubevirt.io/foregroundDeleteVirtualMachine",
        (VMI,),
        *_VIRT_CONTROLLER,
        versions="KubeVirt >= 1.7 (Harvester >= 1.8)",
        released_when="the guest has ended and no pod of the VMI is left",
        leaves_behind="no object; while the guest could still run, a second QEMU on its disks",
        source="kubevirt pkg/virt-controller/watch/vmi/lifecycle.go",
        judge=_instance_over,
    ),
    Finalizer(
        "foregroundDeleteVirtualMachine",
        (VMI,),
        *_VIRT_CONTROLLER,
        versions="KubeVirt <= 1.6 (Harvester <= 1.7)",
        released_when="the guest has ended and no pod of the VMI is left",
        leaves_behind="no object; while the guest could still run, a second QEMU on its disks",
        source="kubevirt pkg/virt-controller/watch/vmi/lifecycle.go",
        judge=_instance_over,
    ),
    Finalizer(
        "kubevirt.io/virtualMachineControllerFinalize",
        (VMI,),
        *_VIRT_CONTROLLER,
        versions="KubeVirt >= 0.59",
        released_when="the guest has ended and its last status was copied to the VM",
        leaves_behind="the VM's status is not brought up to date",
        source="kubevirt pkg/virt-controller/watch/vm/vm.go",
        judge=_instance_over,
    ),
    Finalizer(
        "kubevirt.io/virtualMachineControllerFinalize",
        (VM,),
        *_VIRT_CONTROLLER,
        versions="KubeVirt >= 0.59",
        released_when="the VMI is gone",
        leaves_behind="while the VMI exists, a new VM of this name would adopt it",
        source="kubevirt pkg/virt-controller/watch/vm/vm.go",
        judge=_instance_gone,
    ),
    Finalizer(
        "wrangler.cattle.io/VMController.CleanupPVCAndSnapshot",
        (VM,),
        *_HARVESTER,
        versions="Harvester >= 1.4",
        released_when="the disks ticked for deletion and the VM's snapshots are deleted",
        leaves_behind="the disks ticked for deletion, snapshot-type backups and their snapshots",
        source="harvester pkg/controller/master/virtualmachine/vm_controller.go",
        judge=_disks_and_snapshots,
        reads=(PVC, VM_BACKUP),
    ),
    Finalizer(
        "wrangler.cattle.io/VMController.ReconcileBackendStorageClone",
        (VM,),
        *_HARVESTER,
        versions="Harvester >= 1.9",
        released_when="the Jobs that clone its TPM and EFI storage are deleted",
        leaves_behind="clone Jobs, until the garbage collector takes them",
        source="harvester pkg/controller/master/virtualmachine/vm_controller.go",
        judge=_clone_jobs,
        reads=(JOB,),
    ),
    Finalizer(
        "wrangler.cattle.io/VMController.UnsetOwnerOfPVCs",
        (VM,),
        *_HARVESTER,
        versions="Harvester 0.3 to 1.1.0; orphaned by the upgrade to 1.1.2",
        released_when="no PVC names the VM as its owner",
        leaves_behind="an owner annotation on PVCs, disks ticked for deletion",
        source="harvester pkg/controller/master/virtualmachine/register.go",
        judge=_owner_references,
        reads=(PVC,),
    ),
    Finalizer(
        "harvesterhci.io/VMController.UnsetOwnerOfPVCs",
        (VM,),
        *_HARVESTER,
        versions="Harvester 1.1.2 to 1.3; no longer served since 1.4",
        released_when="no PVC names the VM as its owner",
        leaves_behind="an owner annotation on PVCs, disks ticked for deletion",
        source="harvester pkg/controller/master/virtualmachine/register.go",
        judge=_owner_references,
        reads=(PVC,),
    ),
    Finalizer(
        "wrangler.cattle.io/VMIController.UnsetOwnerOfPVCs",
        (VMI,),
        *_HARVESTER,
        versions="Harvester <= 1.3; no longer served since 1.4",
        released_when="no PVC names the VM as its owner",
        leaves_behind="an owner annotation on PVCs",
        source="harvester pkg/controller/master/virtualmachine/register.go",
        judge=_owner_references,
        reads=(PVC,),
    ),
    Finalizer(
        "wrangler.cattle.io/VMController.BackfillObservedNetworkMacAddress",
        (VMI,),
        *_HARVESTER,
        versions="Harvester >= 1.7",
        released_when="the observed MAC addresses are in the VM's spec, or the VM is going",
        leaves_behind="the VM may get another MAC address at its next start",
        source="harvester pkg/controller/master/virtualmachine/vmi_network_controller.go",
        judge=_backfill,
    ),
    Finalizer(
        "wrangler.cattle.io/harvester-lb-vm-controller",
        (VM,),
        *_LOAD_BALANCER,
        versions="Harvester >= 1.8",
        released_when="the LoadBalancers of a guest cluster in removal are deleted",
        leaves_behind="LoadBalancers of the guest cluster and their addresses",
        source="load-balancer-harvester pkg/controller/vm/controller.go",
        judge=_load_balancers,
        reads=(LOAD_BALANCER,),
    ),
    Finalizer(
        "wrangler.cattle.io/harvester-lb-vmi-controller",
        (VMI,),
        *_LOAD_BALANCER,
        versions="Harvester >= 1.2",
        released_when="the guest has ended; LoadBalancers only look at their endpoints again",
        leaves_behind="endpoints of LoadBalancers, until they are next looked at",
        source="load-balancer-harvester pkg/controller/vmi/controller.go",
        judge=_instance_over,
    ),
    Finalizer(
        "wrangler.cattle.io/virtual-machine-deletion",
        (VMI,),
        "pcidevices-controller",
        "ds/pcidevices-controller",
        versions="addon pcidevices-controller since 2024-10",
        released_when="the devices that the guest had are written to the VM, or the VM is going",
        leaves_behind="an outdated harvesterhci.io/deviceAllocationDetails on the VM",
        source="pcidevices pkg/controller/virtualmachine/virtualmachine.go",
        judge=_devices,
    ),
    Finalizer(
        "snapshot.kubevirt.io/snapshot-source-protection",
        (VM,),
        *_VIRT_CONTROLLER,
        versions="KubeVirt",
        released_when="no VirtualMachineSnapshot of the VM is in progress",
        leaves_behind="an inconsistent VirtualMachineSnapshot",
        source="kubevirt pkg/storage/snapshot/source.go",
        judge=_snapshot_lock,
    ),
    Finalizer(
        "pool.kubevirt.io/finalizer",
        (VM,),
        *_VIRT_CONTROLLER,
        versions="KubeVirt; not used by Harvester itself",
        released_when="no VirtualMachinePool owns the VM",
        leaves_behind="the pool's count of its VMs",
        source="kubevirt pkg/virt-controller/watch/pool",
        judge=_pool,
    ),
    Finalizer(
        "foregroundDeletion",
        (VM, VMI),
        *_GC,
        versions="Kubernetes; the Harvester UI deletes every VM in the foreground",
        released_when="everything that the object owns is gone",
        leaves_behind="dependents that are left go in the background",
        source="kubernetes pkg/controller/garbagecollector",
        judge=_dependents,
        reads=(PVC, DATA_VOLUME, CONTROLLER_REVISION),
    ),
    Finalizer(
        "orphan",
        (VM, VMI),
        *_GC,
        versions="Kubernetes; kubectl delete --cascade=orphan",
        released_when="the garbage collector has cut the dependents loose",
        leaves_behind="nothing; dependents that were to be kept would be deleted",
        source="kubernetes pkg/controller/garbagecollector",
        judge=_orphan,
    ),
)

_BY_NAME = {(entry.name, kind): entry for entry in CATALOGUE for kind in entry.kinds}


def removable(
    judgment: FinalizerAssessment, asked: frozenset[str], left_behind: frozenset[str]
) -> bool:
    """Whether `unstick` may remove it: contract §3, the table of states.

    `asked` are the names given with `--finalizer`, `left_behind` those with `--leave-behind`.
    """
    if judgment.state in (DONE, OWNERLESS):
        return True
    if judgment.state is PENDING:
        return judgment.name in left_behind
    if judgment.state is FinalizerState.UNKNOWN:
        return not judgment.catalogued and judgment.name in asked
    return False


def why_kept(judgment: FinalizerAssessment) -> str:
    """One line: what stands against removing it, and what the operator can do."""
    text = f"{judgment.name}: {judgment.reason}"
    if judgment.state is PENDING:
        return f"{text}; --leave-behind {judgment.name} removes it all the same"
    if not judgment.catalogued:
        return f"{text}; only --finalizer {judgment.name} removes it"
    return text


def left_behind(judgment: FinalizerAssessment) -> str:
    """One line for the operator: what removing this finalizer by hand left to be done."""
    return f"{judgment.ref}: {judgment.name}: {judgment.reason} ({judgment.leaves_behind})"
