"""The judges of finalizers: one function per kind of work that a controller does before it goes.

To add one: a function under `@judge` that answers from the target alone, with what it `reads`, and
an entry in `finalizer_catalogue`. It is asked about the future: the target it gets is the one in
which every earlier step of the plan has succeeded. It returns the state and the evidence, and
raises `UnreadableError` (through the target) where it is blind, which makes the state `unknown`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import Enum, unique

from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.harvester import pending_work, settings
from kubectl_harvester_stuck.harvester.target import (
    FINAL_PHASES,
    GUEST,
    THE_VM,
    THE_VMI,
    Target,
    pvc_names,
)
from kubectl_harvester_stuck.k8s import nesting
from kubectl_harvester_stuck.k8s.kinds import (
    CONTROLLER_REVISION,
    DATA_VOLUME,
    JOB,
    KUBEVIRT_RESTORE,
    LOAD_BALANCER,
    POD,
    PVC,
    SECRET,
    VM_BACKUP,
    VM_EXPORT,
    VM_POOL,
    VM_RESTORE,
    VM_SNAPSHOT,
    VMI,
    Kind,
)
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef
from kubectl_harvester_stuck.k8s.reads import Read, declared, metadata


@unique
class FinalizerState(str, Enum):
    """What may be said of a finalizer; the values stand in JSON."""

    DONE = "done"
    OWNERLESS = "ownerless"
    PENDING = "pending"
    UNKNOWN = "unknown"
    NEVER = "never"


DONE, OWNERLESS, PENDING, NEVER = (
    FinalizerState.DONE,
    FinalizerState.OWNERLESS,
    FinalizerState.PENDING,
    FinalizerState.NEVER,
)

Answer = tuple[FinalizerState, str]
Judge = Callable[[KubeObject, Target], Answer]

JUDGES: dict[Judge, tuple[Read, ...]] = {}
"""What each judge reads."""


def judge(*, reads: Iterable[Kind | Read] = ()) -> Callable[[Judge], Judge]:
    """Register a judge with what it looks at besides the object that it judges."""

    def register(decide: Judge) -> Judge:
        JUDGES[decide] = declared(*reads)
        return decide

    return register


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


@judge(reads=GUEST)
def instance_over(_: KubeObject, target: Target) -> Answer:
    """The guest has ended: no VMI, or no pod of it and a final phase or a silent host.

    Whether the host may be taken for silent is the guard `guest-stopped`'s to say, which every
    plan has to pass; here only the objects count.
    """
    vmi = target.vmi
    if vmi is None:
        return DONE, "the VMI is gone"
    if target.pods:
        return PENDING, f"pod {target.pods[0].ref.name} still exists"
    phase = vmi.text("status", "phase") or "none"
    return DONE, f"no pod of the guest is left (phase {phase})"


@judge(reads=GUEST)
def status_copied(subject: KubeObject, target: Target) -> Answer:
    """The VMI has come to its end, so that its last status is in the VM or nobody wants it.

    Unlike the finalizer that stands for the guest, it does not wait for the pod.
    """
    phase = subject.text("status", "phase")
    if target.vmi is not None and phase in FINAL_PHASES:
        return DONE, f"the VMI has ended (phase {phase})"
    return instance_over(subject, target)


@judge(reads=(THE_VMI,))
def instance_gone(vm: KubeObject, target: Target) -> Answer:
    """The VMI is gone, or is to outlive its VM."""
    vmi = target.vmi
    if vmi is None:
        return DONE, "the VMI is gone"
    if "orphan" in vm.finalizers:
        return DONE, "the VMI is to be kept, so nothing waits for its end"
    return PENDING, f"the VMI still exists ({vmi.text('status', 'phase') or 'no phase'})"


@judge(reads=(*pending_work.DISKS_READ, *pending_work.SNAPSHOTS_READ))
def disks_and_snapshots(vm: KubeObject, target: Target) -> Answer:
    """No disk that was selected for deletion and no snapshot of the VM is left."""
    work = [*pending_work.disks_left(vm, target), *pending_work.snapshots_left(vm, target)]
    if work:
        return PENDING, f"still to be deleted: {', '.join(work)}"
    return DONE, "no disk that was selected for deletion and no snapshot of this VM is left"


@judge(reads=(*metadata(PVC), *pending_work.SNAPSHOTS_READ, settings.read(settings.SERVER_VERSION)))
def disk_owners_of_vm(vm: KubeObject, target: Target) -> Answer:
    """Up to Harvester 1.3 the owners of disks, and what CleanupPVCAndSnapshot does since."""
    left = pending_work.selected_disks(vm, target)
    work = [str(claim.ref) for claim in left if claim.deletion_timestamp is None]
    work += pending_work.snapshots_left(vm, target)
    return _owner_references([*work, *_owner_annotations(vm, target)], target)


@judge(reads=(*metadata(PVC), settings.read(settings.SERVER_VERSION)))
def disk_owners_of_vmi(vmi: KubeObject, target: Target) -> Answer:
    """Up to Harvester 1.3 the owners of disks."""
    return _owner_references(list(_owner_annotations(vmi, target)), target)


def _owner_annotations(subject: KubeObject, target: Target) -> Iterator[str]:
    for claim in target.snapshot.all(PVC, subject.ref.namespace):
        written = claim.annotations.get(OWNED_BY)
        if written and subject.ref.key in _owned_by(written, claim):
            yield f"the {OWNED_BY} annotation of {claim.ref}"


def _owner_references(work: list[str], target: Target) -> Answer:
    """From Harvester 1.4 on another handler takes the finalizer off whatever is left."""
    if not work:
        return DONE, "no work is left, whichever version of Harvester runs"
    version = _harvester_version(target)
    if version > LAST_WITH_OWNERS:
        return DONE, (
            f"Harvester {version[0]}.{version[1]} only takes it off, and does nothing about"
            f" {', '.join(work)}"
        )
    return PENDING, f"still there: {', '.join(work)}"


def _harvester_version(target: Target) -> tuple[int, int]:
    """Raises UnreadableError where it is not known."""
    found = target.snapshot.one(settings.ref(settings.SERVER_VERSION))
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


@judge(reads=(THE_VMI, POD, *metadata(*_OWNED, *_SELDOM_OWNED)))
def dependents(subject: KubeObject, target: Target) -> Answer:
    """The garbage collector waits for what blocks, and for nothing else that is owned."""
    namespace, vmi = subject.ref.namespace, target.vmi
    candidates = [*(target.pods if subject.ref.kind is VMI else ()), *((vmi,) if vmi else ())]
    for kind in _OWNED:
        candidates += target.snapshot.all(kind, namespace)
    unseen = []
    for kind in _SELDOM_OWNED:
        try:
            candidates += target.snapshot.all(kind, namespace)
        except UnreadableError:
            unseen.append(kind.resource)
    blocking = [str(item.ref) for item in candidates if item.blocks_deletion_of(subject)]
    if blocking:
        return PENDING, f"the garbage collector waits for {', '.join(blocking)}"
    but = f" ({' and '.join(unseen)} could not be looked at)" if unseen else ""
    return DONE, f"nothing that this object owns holds it up{but}"


@judge()
def orphan(subject: KubeObject, _: Target) -> Answer:
    """Somebody chose to keep the dependents; taking it off would lose that choice."""
    return NEVER, f"deleted with --cascade=orphan: {subject.ref.name}'s dependents are to be kept"


@judge(reads=metadata(JOB))
def clone_jobs(vm: KubeObject, target: Target) -> Answer:
    """No Job copies the storage of TPM and EFI any more."""
    if vm.annotations.get(CLONE_STATUS) != "cloning":
        return DONE, "no storage is being cloned for this VM"
    jobs = [
        job.ref.name
        for job in target.snapshot.all(JOB, vm.ref.namespace)
        if job.is_owned_by(vm) and job.deletion_timestamp is None
    ]
    if jobs:
        return PENDING, f"clone Jobs still exist: {', '.join(jobs)}"
    return DONE, "no clone Job of this VM is left"


@judge(reads=(LOAD_BALANCER,))
def load_balancers(vm: KubeObject, target: Target) -> Answer:
    """No LoadBalancer of a guest cluster that is being removed is left."""
    if vm.annotations.get(GUEST_CLUSTER_REMOVED) != "true":
        return DONE, "its guest cluster is not being removed"
    left = [item.ref.name for item in pending_work.load_balancers(vm, target)]
    if left:
        return PENDING, f"LoadBalancers of its guest cluster still exist: {', '.join(left)}"
    return DONE, "no LoadBalancer of its guest cluster is left"


@judge(reads=(THE_VM,))
def backfill(_: KubeObject, target: Target) -> Answer:
    """Each MAC address that was observed of an interface is in the spec of the VM."""
    vm = target.vm
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
            " controller fails every time; correct or remove it"
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


@judge(reads=(THE_VM,))
def device_allocation(vmi: KubeObject, target: Target) -> Answer:
    """The VM no longer records host devices for this VMI."""
    devices = ("spec", "domain", "devices")
    if not vmi.mappings(*devices, "hostDevices") and not vmi.mappings(*devices, "gpus"):
        return DONE, "the VMI has no host devices"
    vm = target.vm
    if vm is None or vm.deletion_timestamp is not None:
        return DONE, "the VM that the allocation would be written to is being deleted"
    if "harvesterhci.io/deviceAllocationDetails" not in vm.annotations:
        return DONE, "the VM carries no device allocation"
    return PENDING, "the device allocation is not in the VM's spec yet"


@judge(reads=(VM_SNAPSHOT,))
def snapshot_lock(vm: KubeObject, target: Target) -> Answer:
    """Only the snapshot that the VM names takes the lock off, once it is over."""
    name = vm.text("status", "snapshotInProgress")
    if not name:
        return OWNERLESS, "the VM names no VirtualMachineSnapshot that could take it off"
    snapshot = target.snapshot.one(ObjectRef(vm.ref.namespace, name, VM_SNAPSHOT))
    if snapshot is None:
        return OWNERLESS, f"VirtualMachineSnapshot {name} is gone, and would have taken it off"
    phase = snapshot.text("status", "phase")
    if phase in FINAL_PHASES:
        return DONE, f"VirtualMachineSnapshot {name} is over ({phase})"
    return PENDING, f"VirtualMachineSnapshot {name} is in progress ({phase or 'no phase'})"


@judge(reads=(VM_POOL, *metadata(PVC)))
def pool_lets_go(vm: KubeObject, target: Target) -> Answer:
    """A pool can keep the disks of a VM that leaves it: it then cuts them loose first."""
    owner = next((item for item in vm.owners if item.kind == VM_POOL.kind), None)
    pools = target.snapshot.all(VM_POOL, vm.ref.namespace) if owner else ()
    pool = next((item for item in pools if owner and item.uid == owner.uid), None)
    if pool is None:
        return OWNERLESS, "the VirtualMachinePool that would take it off is gone"
    scale_in = pool.mapping("spec", "scaleInStrategy")
    kept = pool.text("spec", "scaleInStrategy", "opportunistic", "statePreservation")
    claims = [
        claim.ref.name
        for claim in target.snapshot.all(PVC, vm.ref.namespace)
        if claim.is_owned_by(vm) and claim.ref.name in pvc_names(vm)
    ]
    if kept not in ("", "Disabled") and claims:
        return PENDING, f"{pool.ref} keeps what the VM owns: {', '.join(claims)}"
    if pool.mapping("spec").get("paused") is True:
        return OWNERLESS, f"{pool.ref} is paused"
    if scale_in.get("unmanaged") is not None:
        return OWNERLESS, f"{pool.ref} leaves the end of its VMs to others"
    return DONE, f"{pool.ref} keeps nothing of this VM"


@judge()
def gone_for_good(_: KubeObject, __: Target) -> Answer:
    """Its controller does not exist any more."""
    return OWNERLESS, "no version of Harvester since 0.3 has its controller"
