"""The catalogue: every finalizer that Harvester, KubeVirt and Kubernetes put on a VM or a VMI.

Each entry says who owns the finalizer, when its work is finished, and what stays behind when it
is removed by hand. To add one: an entry in `CATALOGUE` with a `judge` that answers from the case
alone, and a case in tests/test_finalizers.py.

A judge is asked about the future: the case it gets is the one in which every earlier step of the
plan has succeeded. It returns the state and the evidence, and raises `UnreadableError` (through
the case) where it is blind, which makes the state `unknown`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, unique

from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.harvester import settings, vm_cleanup
from kubectl_harvester_stuck.harvester.target import FINAL_PHASES, Target, pvc_names
from kubectl_harvester_stuck.k8s import nesting
from kubectl_harvester_stuck.k8s.kinds import (
    CONTROLLER_REVISION,
    DATA_VOLUME,
    JOB,
    KUBEVIRT_RESTORE,
    LOAD_BALANCER,
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

GUEST_CLUSTER_REMOVED = "harvesterhci.io/removeAllPersistentVolumeClaims"
"""Annotation of a VM, "true" once Rancher removes the guest cluster that it belongs to."""

OWNED_BY = "harvesterhci.io/owned-by"
"""Annotation of a PVC up to Harvester 1.3: a JSON list of the VMs that own it."""

OBSERVED_MACS = "harvesterhci.io/mac-address"
"""Annotation of a VM: a JSON object, the address that was seen of each of its interfaces."""

CLONE_STATUS = "harvesterhci.io/clone-backend-storage-status"
"""Annotation of a VM, "cloning" while its TPM and EFI storage is copied from another VM."""

LAST_WITH_OWNERS = (1, 3)
"""The last Harvester in which PVCs had VMs for owners."""


BY_SOURCE = "source"
"""For judgments that rest on the owner's source alone."""


@dataclass(frozen=True)
class Finalizer:
    """One entry of the catalogue.

    `reads` are the kinds in the target's namespace without which the judge has no answer.
    `looks_at` are those that it needs at times, or can do without; `looks_everywhere` the same of
    all namespaces, `settings` of Harvester's settings.
    `source` names the file in the owner's code that adds or removes the finalizer, `verified`
    the program beside which the tests saw the judgments come true.
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
    looks_at: tuple[Kind, ...] = ()
    looks_everywhere: tuple[Kind, ...] = ()
    settings: tuple[str, ...] = ()
    verified: str = BY_SOURCE


@dataclass(frozen=True)
class Needs:
    """What has to be read to judge finalizers."""

    kinds: frozenset[Kind]
    """In the namespace of each target."""
    everywhere: frozenset[Kind]
    settings: frozenset[str]


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


def needs(subjects: Iterable[KubeObject]) -> Needs:
    """Everything that has to be read to judge the finalizers of these objects."""
    found = (find(name, item.ref.kind) for item in subjects for name in item.finalizers)
    entries = [entry for entry in found if entry]
    return Needs(
        frozenset(kind for entry in entries for kind in (*entry.reads, *entry.looks_at)),
        frozenset(kind for entry in entries for kind in entry.looks_everywhere),
        frozenset(name for entry in entries for name in entry.settings),
    )


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


def _status_copied(subject: KubeObject, case: Target) -> Answer:
    """The VMI has come to its end, so that its last status is in the VM or nobody wants it.

    Unlike the finalizer that stands for the guest, it does not wait for the pod.
    """
    phase = subject.text("status", "phase")
    if case.vmi is not None and phase in FINAL_PHASES:
        return DONE, f"the VMI has ended (phase {phase})"
    return _instance_over(subject, case)


def _instance_gone(vm: KubeObject, case: Target) -> Answer:
    vmi = case.vmi
    if vmi is None:
        return DONE, "the VMI is gone"
    if "orphan" in vm.finalizers:
        return DONE, "the VMI is to be kept, so nothing waits for its end"
    return PENDING, f"the VMI still exists ({vmi.text('status', 'phase') or 'no phase'})"


def _disks_and_snapshots(vm: KubeObject, case: Target) -> Answer:
    work = [*vm_cleanup.disks_left(vm, case), *vm_cleanup.snapshots_left(vm, case)]
    if work:
        return PENDING, f"still to be deleted: {', '.join(work)}"
    return DONE, "no disk that was ticked for deletion and no snapshot of this VM is left"


def _owner_references(subject: KubeObject, case: Target) -> Answer:
    """Up to Harvester 1.3 the owners of disks and, for a VM, what CleanupPVCAndSnapshot does since.

    From 1.4 another handler takes the finalizer off whatever is left.
    """
    work = []
    if subject.ref.kind is VM:
        left = vm_cleanup.selected_disks(subject, case)
        work += [str(claim.ref) for claim in left if claim.deletion_timestamp is None]
        work += vm_cleanup.snapshots_left(subject, case)
    for claim in case.snapshot.all(PVC, subject.ref.namespace):
        written = claim.annotations.get(OWNED_BY)
        if written and subject.ref.key in _owned_by(written, claim):
            work.append(f"the {OWNED_BY} annotation of {claim.ref}")
    if not work:
        return DONE, "no work is left, whichever version of Harvester runs"
    version = _harvester_version(case)
    if version > LAST_WITH_OWNERS:
        return DONE, (
            f"Harvester {version[0]}.{version[1]} only takes it off, and does nothing about"
            f" {', '.join(work)}"
        )
    return PENDING, f"still there: {', '.join(work)}"


def _harvester_version(case: Target) -> tuple[int, int]:
    """Raises UnreadableError where it is not known."""
    found = case.snapshot.one(settings.ref(settings.SERVER_VERSION))
    version = settings.version_of(found) if found else None
    if version is None:
        raise UnreadableError("the version of Harvester", "its setting server-version names none")
    return version


def _owned_by(written: str, claim: KubeObject) -> list[str]:
    try:
        return [str(ref) for entry in nesting.parse(written) for ref in entry.get("refs") or ()]
    except (ValueError, TypeError, AttributeError):
        raise UnreadableError(str(claim.ref), f"its {OWNED_BY} annotation is malformed") from None


_OWNED = (PVC, DATA_VOLUME, CONTROLLER_REVISION, JOB, VM_RESTORE, VM_BACKUP)
_SELDOM_OWNED = (VM_EXPORT, KUBEVIRT_RESTORE, SECRET)
"""Few roles may list these. Where one is held, it goes in the background a little later."""


def _dependents(subject: KubeObject, case: Target) -> Answer:
    """The garbage collector waits for what blocks, and for nothing else that is owned."""
    namespace, vmi = subject.ref.namespace, case.vmi
    candidates = [*(case.pods if subject.ref.kind is VMI else ()), *((vmi,) if vmi else ())]
    for kind in _OWNED:
        candidates += case.snapshot.all(kind, namespace)
    unseen = []
    for kind in _SELDOM_OWNED:
        try:
            candidates += case.snapshot.all(kind, namespace)
        except UnreadableError:
            unseen.append(kind.resource)
    blocking = [str(item.ref) for item in candidates if item.blocks_deletion_of(subject)]
    if blocking:
        return PENDING, f"the garbage collector waits for {', '.join(blocking)}"
    but = f" ({' and '.join(unseen)} could not be looked at)" if unseen else ""
    return DONE, f"nothing that this object owns holds it up{but}"


def _orphan(subject: KubeObject, _: Target) -> Answer:
    return NEVER, f"deleted with --cascade=orphan: {subject.ref.name}'s dependents are to be kept"


def _clone_jobs(vm: KubeObject, case: Target) -> Answer:
    if vm.annotations.get(CLONE_STATUS) != "cloning":
        return DONE, "no storage is being cloned for this VM"
    jobs = [
        job.ref.name
        for job in case.snapshot.all(JOB, vm.ref.namespace)
        if job.is_owned_by(vm) and job.deletion_timestamp is None
    ]
    if jobs:
        return PENDING, f"clone Jobs still exist: {', '.join(jobs)}"
    return DONE, "no clone Job of this VM is left"


def _load_balancers(vm: KubeObject, case: Target) -> Answer:
    if vm.annotations.get(GUEST_CLUSTER_REMOVED) != "true":
        return DONE, "its guest cluster is not being removed"
    left = [item.ref.name for item in vm_cleanup.load_balancers(vm, case)]
    if left:
        return PENDING, f"LoadBalancers of its guest cluster still exist: {', '.join(left)}"
    return DONE, "no LoadBalancer of its guest cluster is left"


def _backfill(_: KubeObject, case: Target) -> Answer:
    vm = case.vm
    if vm is None:
        return OWNERLESS, "its owner looks for the VM, which is gone, and fails for ever"
    if vm.deletion_timestamp is not None:
        return DONE, "the VM is being deleted, so nothing is written to it"
    written = vm.annotations.get(OBSERVED_MACS)
    if written is None:
        return DONE, "the VM carries no observed MAC address"
    observed = _observed(written)
    if observed is None:
        return PENDING, (
            f"the annotation {OBSERVED_MACS} of {vm.ref} is no JSON object of addresses, so its"
            " owner fails at every try; correct or remove it"
        )
    path = ("spec", "template", "spec", "domain", "devices", "interfaces")
    open_ = [
        str(item.get("name"))
        for item in vm.mappings(*path)
        if not item.get("macAddress") and observed.get(str(item.get("name")))
    ]
    if open_:
        return PENDING, f"the MAC address of {', '.join(open_)} is not in the VM's spec yet"
    return DONE, "every MAC address that was observed is in the VM's spec"


def _observed(written: str) -> dict[str, str] | None:
    """The addresses in the annotation; None where its owner cannot read it either."""
    try:
        found = nesting.parse(written)
    except ValueError:
        return None
    if found is None:
        return {}
    if not isinstance(found, dict):
        return None
    # A missing address is an empty one to its owner.
    addresses = {name: "" if value is None else value for name, value in found.items()}
    return addresses if all(isinstance(one, str) for one in addresses.values()) else None


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


def _snapshot_lock(vm: KubeObject, case: Target) -> Answer:
    """Only the snapshot that the VM names takes the lock off, once it is over."""
    name = vm.text("status", "snapshotInProgress")
    if not name:
        return OWNERLESS, "the VM names no VirtualMachineSnapshot that could take it off"
    snapshot = case.snapshot.one(ObjectRef(vm.ref.namespace, name, VM_SNAPSHOT))
    if snapshot is None:
        return OWNERLESS, f"VirtualMachineSnapshot {name} is gone, and would have taken it off"
    phase = snapshot.text("status", "phase")
    if phase in FINAL_PHASES:
        return DONE, f"VirtualMachineSnapshot {name} is over ({phase})"
    return PENDING, f"VirtualMachineSnapshot {name} is in progress ({phase or 'no phase'})"


def _pool(vm: KubeObject, case: Target) -> Answer:
    """A pool can keep the disks of a VM that leaves it: it then cuts them loose first."""
    owner = next((item for item in vm.owners if item.kind == VM_POOL.kind), None)
    pools = case.snapshot.all(VM_POOL, vm.ref.namespace) if owner else ()
    pool = next((item for item in pools if owner and item.uid == owner.uid), None)
    if pool is None:
        return OWNERLESS, "the VirtualMachinePool that would take it off is gone"
    scale_in = pool.mapping("spec", "scaleInStrategy")
    kept = pool.text("spec", "scaleInStrategy", "opportunistic", "statePreservation")
    claims = [
        claim.ref.name
        for claim in case.snapshot.all(PVC, vm.ref.namespace)
        if claim.is_owned_by(vm) and claim.ref.name in pvc_names(vm)
    ]
    if kept not in ("", "Disabled") and claims:
        return PENDING, f"{pool.ref} keeps what the VM owns: {', '.join(claims)}"
    if pool.mapping("spec").get("paused") is True:
        return OWNERLESS, f"{pool.ref} is paused"
    if scale_in.get("unmanaged") is not None:
        return OWNERLESS, f"{pool.ref} leaves the end of its VMs to others"
    return DONE, f"{pool.ref} keeps nothing of this VM"


def _gone_for_good(_: KubeObject, __: Target) -> Answer:
    return OWNERLESS, "no version of Harvester since 0.3 has its controller"


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
        verified="KubeVirt 1.8.3",
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
        verified="KubeVirt 1.8.3",
    ),
    Finalizer(
        "kubevirt.io/virtualMachineControllerFinalize",
        (VMI,),
        *_VIRT_CONTROLLER,
        versions="KubeVirt >= 0.44",
        released_when="the VMI has ended and its last status was copied to the VM",
        leaves_behind="the VM's status is not brought up to date",
        source="kubevirt pkg/virt-controller/watch/vm/vm.go",
        judge=_status_copied,
        verified="KubeVirt 1.8.3",
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
        verified="KubeVirt 1.8.3",
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
        looks_at=(VM, VM_RESTORE, VOLUME_SNAPSHOT),
        looks_everywhere=(VM_BACKUP, VM_IMAGE),
        verified="Harvester 1.8.2",
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
        versions="Harvester 0.3 to 1.1.1; 1.1.2 to 1.3 serve it, 1.4 and later only take it off",
        released_when="no PVC names the VM as its owner, no snapshot is left; since 1.4 at once",
        leaves_behind="an owner annotation on PVCs, disks ticked for deletion, snapshots",
        source="harvester pkg/controller/master/virtualmachine/register.go",
        judge=_owner_references,
        reads=(PVC, VM_BACKUP),
        looks_at=(VM_RESTORE, VOLUME_SNAPSHOT),
        looks_everywhere=(VM_BACKUP,),
        settings=(settings.SERVER_VERSION,),
        verified="Harvester 1.8.2",
    ),
    Finalizer(
        "harvesterhci.io/VMController.UnsetOwnerOfPVCs",
        (VM,),
        *_HARVESTER,
        versions="Harvester 1.1.2 to 1.3; 1.4 and later only take it off",
        released_when="no PVC names the VM as its owner, no snapshot is left; since 1.4 at once",
        leaves_behind="an owner annotation on PVCs, disks ticked for deletion, snapshots",
        source="harvester pkg/controller/master/virtualmachine/register.go",
        judge=_owner_references,
        reads=(PVC, VM_BACKUP),
        looks_at=(VM_RESTORE, VOLUME_SNAPSHOT),
        looks_everywhere=(VM_BACKUP,),
        settings=(settings.SERVER_VERSION,),
        verified="Harvester 1.8.2",
    ),
    Finalizer(
        "wrangler.cattle.io/VMIController.UnsetOwnerOfPVCs",
        (VMI,),
        *_HARVESTER,
        versions="Harvester <= 1.3; 1.4 and later only take it off",
        released_when="no PVC that the guest lost names the VM as its owner; from 1.4 at once",
        leaves_behind="an owner annotation on PVCs",
        source="harvester pkg/controller/master/virtualmachine/register.go",
        judge=_owner_references,
        reads=(PVC,),
        settings=(settings.SERVER_VERSION,),
        verified="Harvester 1.8.2",
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
        verified="Harvester 1.8.2",
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
        "ds/harvester-pcidevices-controller",
        versions="addon pcidevices-controller since 2024-10",
        released_when="the devices that the guest had are written to the VM, or the VM is going",
        leaves_behind="an outdated harvesterhci.io/deviceAllocationDetails on the VM",
        source="pcidevices pkg/controller/virtualmachine/virtualmachine.go",
        judge=_devices,
    ),
    Finalizer(
        "wrangler.cattle.io/VMController.UnsetOwnerOfDataVolumes",
        (VM,),
        *_HARVESTER,
        versions="Harvester <= 0.2; still on VMs that were made then",
        released_when="no DataVolume names the VM as its owner",
        leaves_behind="an owner annotation on DataVolumes",
        source="harvester v0.2.0 pkg/controller/master/virtualmachine/register.go",
        judge=_gone_for_good,
    ),
    Finalizer(
        "k8s.v1.cni.cncf.io/kubeMacPool",
        (VM,),
        "kubemacpool",
        "kubemacpool",
        versions="kubemacpool < 0.20; no Harvester brings it, an imported VM can carry it",
        released_when="its MAC addresses are free again",
        leaves_behind="nothing in Harvester, which keeps no pool of addresses",
        source="kubemacpool pkg/pool-manager/pool.go",
        judge=_gone_for_good,
    ),
    Finalizer(
        "snapshot.kubevirt.io/snapshot-source-protection",
        (VM,),
        *_VIRT_CONTROLLER,
        versions="KubeVirt",
        released_when="the VirtualMachineSnapshot that the VM names is over",
        leaves_behind="an inconsistent VirtualMachineSnapshot",
        source="kubevirt pkg/storage/snapshot/source.go",
        judge=_snapshot_lock,
        looks_at=(VM_SNAPSHOT,),
        verified="KubeVirt 1.8.3",
    ),
    Finalizer(
        "pool.kubevirt.io/finalizer",
        (VM,),
        *_VIRT_CONTROLLER,
        versions="KubeVirt >= 1.7; not used by Harvester itself",
        released_when="its VirtualMachinePool has cut loose the disks that it keeps",
        leaves_behind="nothing; disks that the pool would keep go with the VM",
        source="kubevirt pkg/virt-controller/watch/pool/pool.go",
        judge=_pool,
        looks_at=(VM_POOL, PVC),
        verified="KubeVirt 1.8.3",
    ),
    Finalizer(
        "foregroundDeletion",
        (VM, VMI),
        *_GC,
        versions="Kubernetes; the Harvester UI deletes every VM in the foreground",
        released_when="everything is gone that the object owns with blockOwnerDeletion",
        leaves_behind="dependents that are left go in the background",
        source="kubernetes pkg/controller/garbagecollector",
        judge=_dependents,
        reads=_OWNED,
        looks_at=_SELDOM_OWNED,
        verified="Kubernetes 1.35",
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
        verified="Kubernetes 1.35",
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
