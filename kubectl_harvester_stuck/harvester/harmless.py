"""Whether a command may be printed: the last look at it before anybody can paste it.

Findings, checks, guards and leftovers propose; here a command is held against what was read. One
that changes something needs a rule that knows what it does to an object of that kind, and every
such rule has to pass. What could not be read blocks, for the harm could not be seen either.

To add a rule: a function under `@rule` with the effects and the kind that it is about and the kinds
that it `reads`. It returns None where the command does no harm, otherwise what it would do, and a
test in tests/test_harmless.py fails until there is a scene of either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.harvester import goes_with_vm, grace_period, pending_work, places
from kubectl_harvester_stuck.harvester.node_health import SIGNS, SignalState, describe, read_node
from kubectl_harvester_stuck.harvester.settings import REPOSITORY, unfinished_upgrades
from kubectl_harvester_stuck.harvester.target import (
    FINAL_PHASES,
    Target,
    is_launcher_of,
    is_stopped,
    pvc_names,
    run_strategy,
    vmi_of,
)
from kubectl_harvester_stuck.k8s.commands import Advice, Command, Effect, Remark
from kubectl_harvester_stuck.k8s.kinds import (
    ADDON,
    DAEMON_SET,
    DATA_VOLUME,
    DEPLOYMENT,
    HARVESTER_NAMESPACE,
    LOAD_BALANCER,
    MIGRATION,
    NETWORK_CONFIG,
    NODE,
    POD,
    PV,
    PVC,
    SETTING,
    UPGRADE,
    UPGRADE_PLAN,
    VM,
    VM_BACKUP,
    VM_IMAGE,
    VM_RESTORE,
    VMI,
    VOLUME_ATTACHMENT,
    VOLUME_SNAPSHOT,
    Kind,
)
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef
from kubectl_harvester_stuck.k8s.reads import EVERYWHERE, Read, declared
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot

RuleFunction = Callable[[KubeObject, ClusterSnapshot], str | None]


@dataclass(frozen=True)
class Rule:
    """A registered rule, with what it reads beside the object itself."""

    look: RuleFunction
    effect: Effect
    kinds: frozenset[Kind]
    reads: tuple[Read, ...]


RULES: list[Rule] = []


def rule(
    effect: Effect, *kinds: Kind, reads: Iterable[Kind | Read] = ()
) -> Callable[[RuleFunction], RuleFunction]:
    """Register a rule for what `effect` does to an object of `kinds`."""

    def register(look: RuleFunction) -> RuleFunction:
        RULES.append(Rule(look, effect, frozenset(kinds), declared(*reads)))
        return look

    return register


def reads() -> tuple[Read, ...]:
    """Everything that a rule looks at, in the namespaces of the objects that advice is about."""
    return declared(*(read for entry in RULES for read in entry.reads))


def checked(advice: Iterable[Advice], snapshot: ClusterSnapshot) -> tuple[Advice, ...]:
    """The advice without the commands that do not pass.

    A look at what is not there is left out; of anything else a sentence says why not.
    """
    return tuple(found for item in advice for found in _checked(item, snapshot))


def _checked(item: Advice, snapshot: ClusterSnapshot) -> Iterator[Advice]:
    why = why_not(item, snapshot) if isinstance(item, Command) else None
    if why is None or isinstance(item, Remark):
        yield item
    elif item.effect is not Effect.READ:
        what = _NOT[item.effect].format(item.acts_on)
        yield Remark(f"{item.note}, but {what}: {why}" if item.note else f"{what}: {why}")


_NOT = {
    Effect.KEEP: "{} cannot be kept so",
    Effect.CHANGE: "{} is not to be changed now",
    Effect.DELETE: "{} must not be deleted now",
    Effect.STOP: "{} must not be stopped by force now",
    Effect.CANCEL: "a migration of {} is not to be cancelled now",
    Effect.RESTART: "{} cannot be restarted",
    Effect.START: "{} must not be started now",
}


def why_not(command: Command, snapshot: ClusterSnapshot) -> str | None:
    """What harm the command would do, or why the server would reject it; None where neither.

    Never raises UnreadableError: unknown is a reason for whatever can do harm.
    """
    ref = command.acts_on
    if command.effect in (Effect.LOCAL, Effect.GUARDED):
        return None
    if ref is None:
        return None if command.effect is Effect.READ else "it names no object"
    try:
        return _harm(command.effect, ref, snapshot)
    except UnreadableError as error:
        return None if command.effect in (Effect.READ, Effect.KEEP) else str(error)


def _harm(effect: Effect, ref: ObjectRef, snapshot: ClusterSnapshot) -> str | None:
    """What speaks against doing this to the object. Raises UnreadableError."""
    item = snapshot.one(ref)
    if item is None:
        return "it is not there"
    if effect is Effect.READ:
        return None
    rules = [entry for entry in RULES if entry.effect is effect and ref.kind in entry.kinds]
    if not rules:
        return f"what it does to a {ref.kind.kind} is not known"
    found = (entry.look(item, snapshot) for entry in rules)
    return next((why for why in found if why is not None), None)


# What belongs to a VM that lives


def _living(snapshot: ClusterSnapshot, namespace: str) -> Iterator[KubeObject]:
    """The VMs that nobody has deleted. Raises UnreadableError."""
    return (vm for vm in snapshot.all(VM, namespace) if vm.deletion_timestamp is None)


def _lives(snapshot: ClusterSnapshot, namespace: str, name: str) -> str | None:
    """That nobody has deleted the VM of this name, or that a guest without a VM still runs."""
    vm = snapshot.one(ObjectRef(namespace, name, VM))
    if vm is not None:
        return f"it belongs to {vm.ref}, which nobody has deleted" if _is_kept(vm) else None
    vmi = snapshot.one(ObjectRef(namespace, name, VMI))
    if vmi is not None and vmi.text("status", "phase") not in FINAL_PHASES:
        return f"it belongs to {vmi.ref}, which is not over"
    return None


def _is_kept(machine: KubeObject) -> bool:
    return machine.deletion_timestamp is None


def _users(claim: ObjectRef, snapshot: ClusterSnapshot) -> Iterator[str]:
    """Who uses the PVC and stays: VMs, guests without one, and pods. Raises UnreadableError."""
    going = set()
    for vm in snapshot.all(VM, claim.namespace):
        if vm.deletion_timestamp is not None:
            going.add(vm.ref.name)
        elif claim.name in (*pvc_names(vm), *pending_work.templates(vm)):
            yield str(vm.ref)
    for vmi in snapshot.all(VMI, claim.namespace):
        if vmi.ref.name not in going and claim.name in pvc_names(vmi):
            yield str(vmi.ref)
    for pod in snapshot.all(POD, claim.namespace):
        owner = vmi_of(pod)
        of_going = owner is not None and owner.name in going
        is_over = pod.text("status", "phase") in FINAL_PHASES
        if not of_going and not is_over and claim.name in goes_with_vm.claims_of(pod):
            yield str(pod.ref)


def _owned(item: KubeObject, snapshot: ClusterSnapshot, *kinds: Kind) -> Iterator[KubeObject]:
    """What of these kinds goes with the object. Raises UnreadableError."""
    for kind in kinds:
        for one in snapshot.all(kind, item.ref.namespace):
            if one.is_owned_by(item) and one.deletion_timestamp is None:
                yield one


# Deletions


@rule(Effect.DELETE, PVC, reads=(VM, VMI, POD))
def disk_is_free(claim: KubeObject, snapshot: ClusterSnapshot) -> str | None:
    """Nobody uses the disk."""
    user = next(_users(claim.ref, snapshot), None)
    return f"{user} uses it" if user else None


@rule(Effect.DELETE, PVC, reads=(VM, Read(VM_IMAGE, EVERYWHERE)))
def disk_may_go(claim: KubeObject, snapshot: ClusterSnapshot) -> str | None:
    """Harvester's webhook lets the disk go."""
    owners = pending_work.owned_by(claim)
    if owners:
        return f"Harvester's webhook forbids it: {', '.join(owners)} owns it"
    why = pending_work.why_kept(claim, snapshot)
    return f"Harvester's webhook forbids it: {why}" if why else None


@rule(Effect.DELETE, PVC, reads=(VM_BACKUP, VM_RESTORE, VOLUME_SNAPSHOT))
def disk_holds_no_snapshot(claim: KubeObject, snapshot: ClusterSnapshot) -> str | None:
    """No snapshot that is kept lies on the disk, and none is being restored to it."""
    for one in _owned(claim, snapshot, VOLUME_SNAPSHOT):
        return f"{one.ref} goes with it"
    for backup in snapshot.all(VM_BACKUP, claim.ref.namespace):
        is_remote = backup.text("spec", "type") == "backup"
        is_going = backup.deletion_timestamp is not None
        if not is_remote and not is_going and claim.ref.name in pending_work.disks_of(backup):
            return f"the snapshot {backup.ref} lies on it"
    for restore in snapshot.all(VM_RESTORE, claim.ref.namespace):
        if pending_work.is_in_progress(restore) and claim.is_owned_by(restore):
            return f"{restore.ref} is in progress"
    return None


@rule(Effect.DELETE, VM_BACKUP, reads=(VM, PVC, VM_RESTORE, VOLUME_SNAPSHOT))
def backup_is_lost_already(backup: KubeObject, snapshot: ClusterSnapshot) -> str | None:
    """The backup is of a VM that is being deleted, nothing of it is intact, nobody restores it."""
    if backup.text("spec", "type") in ("", "backup"):
        return "it is a backup outside the cluster, or may be one"
    vm = snapshot.one(ObjectRef(backup.ref.namespace, backup.text("spec", "source", "name"), VM))
    if vm is None or _is_kept(vm):
        return f"{vm.ref} lives" if vm else "nobody has deleted it with its VM"
    # A snapshot lies on its disk, and is lost with it.
    disks = {item.ref.name for item in snapshot.all(PVC, backup.ref.namespace)}
    lost = {
        str(part.get("name"))
        for part in backup.mappings("status", "volumeBackups")
        if pending_work.name_of_disk(part) not in disks
    }
    parts = {str(part.get("name")) for part in backup.mappings("status", "volumeBackups")}
    for one in snapshot.all(VOLUME_SNAPSHOT, backup.ref.namespace):
        is_part = one.ref.name in parts or one.is_owned_by(backup)
        if is_part and one.ref.name not in lost:
            return f"{one.ref} of it is intact"
    for one in _owned(backup, snapshot, PVC):
        return f"{one.ref} goes with it"
    for restore in snapshot.all(VM_RESTORE, backup.ref.namespace):
        of_this = restore.text("spec", "virtualMachineBackupName") == backup.ref.name
        if of_this and (pending_work.is_in_progress(restore) or _is_kept(restore)):
            return f"{restore.ref} is made from it"
    return None


@rule(Effect.DELETE, VM_RESTORE, reads=(VM, VMI, PVC, DATA_VOLUME))
def restore_is_over(restore: KubeObject, snapshot: ClusterSnapshot) -> str | None:
    """The restore is over, owns no disk, and the VM that it made does not live."""
    if pending_work.is_in_progress(restore):
        return "it is in progress"
    for one in _owned(restore, snapshot, PVC, DATA_VOLUME):
        return f"{one.ref} goes with it"
    return _lives(snapshot, restore.ref.namespace, restore.text("spec", "target", "name"))


@rule(Effect.DELETE, MIGRATION, reads=(VMI,))
def migration_moves_nothing(item: KubeObject, snapshot: ClusterSnapshot) -> str | None:
    """The migration is over, or has no guest to move."""
    if item.text("status", "phase") in FINAL_PHASES:
        return None
    vmi = snapshot.one(ObjectRef(item.ref.namespace, item.text("spec", "vmiName"), VMI))
    if vmi is not None and vmi.text("status", "phase") not in FINAL_PHASES:
        return f"it moves the guest of {vmi.ref}"
    return None


@rule(Effect.DELETE, NETWORK_CONFIG, reads=(VM, VMI))
def addresses_are_unused(item: KubeObject, snapshot: ClusterSnapshot) -> str | None:
    """No VM that lives has the addresses."""
    return _lives(snapshot, item.ref.namespace, item.ref.name)


@rule(Effect.DELETE, LOAD_BALANCER, reads=(VM,))
def balancer_is_unused(item: KubeObject, snapshot: ClusterSnapshot) -> str | None:
    """The load balancer belongs to a guest cluster that has no living VM."""
    cluster = item.labels.get("cloudprovider.harvesterhci.io/cluster")
    if item.text("spec", "workloadType") != "cluster" or not cluster:
        return "it is not known to belong to a guest cluster"
    for vm in _living(snapshot, item.ref.namespace):
        if vm.labels.get("guestcluster.harvesterhci.io/name") == cluster:
            return f"{vm.ref}, which nobody has deleted, is a node of its guest cluster"
    return None


@rule(Effect.DELETE, VOLUME_ATTACHMENT, reads=(VM, VMI, POD, PV, *SIGNS))
def attachment_is_dead(item: KubeObject, snapshot: ClusterSnapshot) -> str | None:
    """Every sign of the node is silent, and nobody who stays uses the disk."""
    node, volume = (
        item.text("spec", "nodeName"),
        item.text("spec", "source", "persistentVolumeName"),
    )
    reading = read_node(Target(ObjectRef("", node, NODE), snapshot), node)
    if any(sign.says is not SignalState.SILENT for sign in reading.signals):
        return f"node {node} is not known to be silent ({describe(reading)})"
    found = snapshot.one(ObjectRef("", volume, PV))
    if found is None:
        return None
    claim = ObjectRef(
        found.text("spec", "claimRef", "namespace"), found.text("spec", "claimRef", "name"), PVC
    )
    user = next(_users(claim, snapshot), None) if claim.name else None
    return f"{user} uses {claim}" if user else None


@rule(Effect.DELETE, VMI, reads=(VM, *places.PLACES))
def guest_is_not_wanted(vmi: KubeObject, snapshot: ClusterSnapshot) -> str | None:
    """The VM of the guest is being deleted with it, or the guest has ended and is to stay so."""
    vm = snapshot.one(ObjectRef(vmi.ref.namespace, vmi.ref.name, VM))
    owner = next((one for one in vmi.owners if one.is_controller), None)
    if vm is not None and owner is not None and owner.uid != vm.uid:
        return f"{vm.ref} is not the VM that it was made for"
    if vm is not None and vm.deletion_timestamp is not None:
        if goes_with_vm.ORPHAN in vm.finalizers:
            return f"{vm.ref} was deleted with --cascade=orphan, to keep it"
        # The garbage collector takes the finalizer off once it has cut the guest loose.
        return f"it was cut loose from {vm.ref}, to outlive it" if owner is None else None
    return _still_wanted(vm, vmi, snapshot)


def _still_wanted(vm: KubeObject | None, vmi: KubeObject, snapshot: ClusterSnapshot) -> str | None:
    """Why a guest that nobody has deleted with its VM is wanted, or may still run."""
    if vmi.text("status", "phase") not in FINAL_PHASES:
        return f"nobody has deleted {vm.ref}" if vm else "it has no VM, and nobody has deleted it"
    # The VMI is the lock that keeps a second guest off the disks.
    why = _may_still_run(Target(vmi.ref, snapshot))
    return why or (_starts_unasked(vm, vmi) if vm is not None else None)


def _may_still_run(target: Target) -> str | None:
    """Why a guest that is said to have ended may run. Raises UnreadableError."""
    for place in places.places(target):
        found = places.assess(place, target, ())
        if found.proof is not None:
            continue
        # Nobody has asked it to stop, but a kubelet that answers would report its pod.
        if place.pod is None and read_node(target, place.node).kubelet_answers:
            continue
        return found.reason
    return places.may_run_elsewhere(target)


def _starts_unasked(vm: KubeObject, vmi: KubeObject) -> str | None:
    """Why KubeVirt starts a guest that is to stay ended (watch/vm/vm.go: syncRunStrategy)."""
    if any(item.get("action") == "Start" for item in vm.mappings("status", "stateChangeRequests")):
        return f"a start of {vm.ref} is waiting"
    strategy = run_strategy(vm)
    if strategy in ("Halted", "Manual"):
        return None
    # KubeVirt starts a VM without a VMI where its status does not know this strategy yet, and older
    # ones, which record none, start it in any case. After a failure that is what was asked for.
    is_known = vm.text("status", "runStrategy") == strategy
    if strategy == "RerunOnFailure" and (is_known or vmi.text("status", "phase") == "Failed"):
        return None
    return f"{vm.ref} is to run, and KubeVirt replaces it"


@rule(Effect.DELETE, VM, reads=(Read(UPGRADE, HARVESTER_NAMESPACE), UPGRADE_PLAN))
def upgrade_is_over(vm: KubeObject, snapshot: ClusterSnapshot) -> str | None:
    """The VM served the images of an upgrade that has ended; no other VM is to be deleted."""
    prefix, _, name = vm.ref.name.partition(REPOSITORY)
    if prefix or not name or vm.ref.namespace != HARVESTER_NAMESPACE:
        return "whether anybody wants it is not known"
    for one in unfinished_upgrades(snapshot):
        if one.item.ref.name == name:
            return f"{one.item.ref} is not finished"
    return None


@rule(Effect.DELETE, POD, reads=(VMI, VM))
def pod_of_a_guest_that_goes(pod: KubeObject, snapshot: ClusterSnapshot) -> str | None:
    """The pod was made for a VMI that is being deleted or is gone, and that no VM wants."""
    owner = vmi_of(pod)
    if owner is None:
        return "it was not made for a VMI"
    vmi = snapshot.one(ObjectRef(pod.ref.namespace, owner.name, VMI))
    if vmi is not None and vmi.uid == owner.uid and vmi.deletion_timestamp is None:
        return f"{vmi.ref} is not being deleted"
    vm = snapshot.one(ObjectRef(pod.ref.namespace, owner.name, VM))
    if vm is not None and _is_kept(vm) and run_strategy(vm) != "Halted":
        return f"{vm.ref} is to run"
    return None


# Guests


@rule(Effect.STOP, VM, reads=(VMI, POD))
def guest_had_its_time(vm: KubeObject, snapshot: ClusterSnapshot) -> str | None:
    """The guest was asked to stop, its grace period is over, and the server takes the request."""
    vmi = snapshot.one(ObjectRef(vm.ref.namespace, vm.ref.name, VMI))
    if vmi is None or vmi.text("status", "phase") in FINAL_PHASES:
        return "no guest of it runs"
    if vmi.deletion_timestamp is None:
        return f"nobody has asked the guest to stop: {vmi.ref} is not being deleted"
    if grace_period.left(Target(vm.ref, snapshot)) is not None:
        return "its guest may still shut down by itself"
    strategy = run_strategy(vm)
    if _is_kept(vm) and strategy != "Halted":
        return f"it would not start again, and its runStrategy is {strategy or 'none'}"
    own = vmi.mapping("spec").get("terminationGracePeriodSeconds")
    if strategy == "Halted" and own == 0:
        return "KubeVirt takes it for a stopped VM only where the guest has a grace period"
    return None


@rule(Effect.STOP, VM, reads=(VM_BACKUP,))
def no_backup_holds_it(vm: KubeObject, snapshot: ClusterSnapshot) -> str | None:
    """Harvester's webhook lets the VM stop."""
    for backup in snapshot.all(VM_BACKUP, vm.ref.namespace):
        of_this = backup.text("spec", "source", "name") == vm.ref.name
        if of_this and pending_work.holds_a_stop(backup):
            return f"Harvester's webhook forbids it: {backup.ref} is in progress"
    return None


@rule(Effect.CANCEL, VMI, reads=(MIGRATION,))
def migration_can_end(vmi: KubeObject, snapshot: ClusterSnapshot) -> str | None:
    """A migration of the guest is in progress, not ending already, and nobody begins another."""
    if vmi.text("status", "phase") in FINAL_PHASES:
        return "its guest has ended"
    if vmi.text("status", "evacuationNodeName"):
        return (
            f"node {vmi.text('status', 'evacuationNodeName')} is being evacuated, and the next"
            " migration would begin at once"
        )
    open_ = [
        item
        for item in snapshot.all(MIGRATION, vmi.ref.namespace)
        if item.text("spec", "vmiName") == vmi.ref.name
        and item.text("status", "phase") not in FINAL_PHASES
    ]
    if not any(item.deletion_timestamp is None for item in open_):
        return "it is being deleted already" if open_ else "there is none"
    return None


@rule(Effect.CHANGE, VMI)
def evacuation_can_end(vmi: KubeObject, _: ClusterSnapshot) -> str | None:
    """The guest is being moved off its node."""
    return None if vmi.text("status", "evacuationNodeName") else "it is not being evacuated"


@rule(Effect.START, VM, reads=(VMI, POD))
def nothing_runs(vm: KubeObject, snapshot: ClusterSnapshot) -> str | None:
    """No guest of the name is left."""
    if vm.deletion_timestamp is not None:
        return "it is being deleted"
    vmi = snapshot.one(ObjectRef(vm.ref.namespace, vm.ref.name, VMI))
    if vmi is not None:
        return f"{vmi.ref} is there"
    for pod in snapshot.all(POD, vm.ref.namespace):
        if is_launcher_of(pod, vm.ref.name) and not is_stopped(pod):
            return f"{pod.ref} may run its guest"
    return None


# Changes that end nothing


@rule(Effect.KEEP, PV, PVC, VM_BACKUP, VOLUME_SNAPSHOT, DATA_VOLUME, VM_RESTORE)
@rule(Effect.CHANGE, VM, SETTING, ADDON)
@rule(Effect.RESTART, DEPLOYMENT, DAEMON_SET)
def is_there(_: KubeObject, __: ClusterSnapshot) -> str | None:
    """That it is there is enough."""
    return None


@rule(Effect.CHANGE, NODE)
def node_is_closed(node: KubeObject, _: ClusterSnapshot) -> str | None:
    """The node takes no pods, and is not in maintenance."""
    if node.mapping("spec").get("unschedulable") is not True:
        return "it takes pods already"
    mode = node.annotations.get("harvesterhci.io/maintain-status")
    return f"it is in maintenance ({mode})" if mode else None
