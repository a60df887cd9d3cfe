"""What Kubernetes' garbage collector destroys once a target is released, and what of it stays.

The collector deletes an object when none of the owners that its ownerReferences name stays. So a
VM that goes can take disks with it that nobody selected: it owns a VirtualMachineRestore or a
DataVolume that owns the PVC, or a VirtualMachineBackup that owns VolumeSnapshots. Owners are
followed by their uid, from what a release lets go downwards.

Whether an owner may be awaited (`blockOwnerDeletion`) decides when the collector lets an object go
that is deleted in the foreground, and never whether its dependents go. With the finalizer `orphan`
it cuts the dependents loose first: they do not go.

What is not certain counts as going. An owner of a kind that was not read may go itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, unique

from kubectl_harvester_stuck.errors import UnreadableError, in_short
from kubectl_harvester_stuck.harvester.pending_work import selected
from kubectl_harvester_stuck.harvester.target import HANGING, State, Target, pvc_names
from kubectl_harvester_stuck.k8s import commands
from kubectl_harvester_stuck.k8s.commands import Command
from kubectl_harvester_stuck.k8s.kinds import (
    CONTROLLER_REVISION,
    DATA_VOLUME,
    JOB,
    POD,
    PV,
    PVC,
    SECRET,
    VM,
    VM_BACKUP,
    VM_RESTORE,
    VMI,
    VOLUME_SNAPSHOT,
)
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef, Owner
from kubectl_harvester_stuck.k8s.reads import Read, declared, metadata

NEEDED = (VM_RESTORE, DATA_VOLUME, PVC, VM_BACKUP, VOLUME_SNAPSHOT)
"""Kinds that hold data, or own what does: without them it is not known what is destroyed."""

FOLLOWED = (*NEEDED, JOB, CONTROLLER_REVISION)
"""Kinds in the target's namespace whose owners are followed."""

GOING = declared(
    *HANGING,
    VM_RESTORE,
    VM_BACKUP,
    *metadata(DATA_VOLUME, PVC, VOLUME_SNAPSHOT, JOB, CONTROLLER_REVISION),
    Read(PVC, own=True),
    Read(PV, own=True),
)
"""What tells what goes with a target; of the disks that go, all of the PVC and of the PV."""

_OF_THE_PLAN = (VM, VMI, POD)
_KNOWN = {(kind.group, kind.kind): kind for kind in (*FOLLOWED, *_OF_THE_PLAN)}

ORPHAN = "orphan"
RETAIN = "Retain"


@dataclass(frozen=True)
class Fate:
    """What becomes of one object, and why.

    `destroys` says that data, or a snapshot, is destroyed with it; `lost`, that nobody selected it
    for deletion either, and that it could still be kept. `keep` is then the command that keeps it.
    """

    ref: ObjectRef
    why: str
    destroys: bool = False
    lost: bool = False
    keep: Command | None = None


@dataclass(frozen=True)
class GoesAndStays:
    """What goes with a target and what stays of it, apart from the pods, the VMI and the VM.

    `blind` is the first gap that leaves open what would be destroyed.
    """

    goes: tuple[Fate, ...] = ()
    stays: tuple[Fate, ...] = ()
    blind: UnreadableError | None = None

    @property
    def lost(self) -> tuple[Fate, ...]:
        """What would be destroyed although nobody selected it for deletion."""
        return tuple(fate for fate in self.goes if fate.lost)

    def of(self, ref: ObjectRef) -> Fate | None:
        """What becomes of `ref` if it goes; None if it does not."""
        return next((fate for fate in self.goes if fate.ref == ref), None)


def follow(target: Target) -> GoesAndStays:
    """What goes with the target, and what stays. Never raises UnreadableError."""
    try:
        roots = let_go(target)
        machines = [item for item in (target.vm, target.vmi) if item is not None]
    except UnreadableError as error:
        return GoesAndStays(blind=error)
    return of(target, roots, machines)


def let_go(target: Target) -> tuple[KubeObject, ...]:
    """The pods, the VMI and the VM that go once the target is released. Raises UnreadableError.

    A VM that is being deleted goes once its VMI does, whichever of the two was named.
    """
    if target.stuck_object is None:
        return ()
    state, vmi, vm = target.state, target.vmi, target.vm
    if state is State.NOT_READY:
        return target.stuck_pods
    is_going = vm is not None and vm.deletion_timestamp is not None
    machines = (vmi, vm if is_going else None)
    return (*target.pods, *(item for item in machines if item is not None))


def of(target: Target, roots: Iterable[KubeObject], machines: Iterable[KubeObject]) -> GoesAndStays:
    """What goes with `roots`, and what stays of `machines`, the VM and its VMI.

    Both may be gone from the cluster already. Never raises UnreadableError.
    """
    graph = _Graph(target, tuple(roots))
    try:
        related = _related(target, graph, tuple(machines))
        return graph.result(related)
    except UnreadableError as error:
        return GoesAndStays(blind=error)


def to_read(target: Target, going: GoesAndStays) -> frozenset[ObjectRef]:
    """Single objects that say more of what goes: PVCs in full, their PVs, and owners.

    To be asked for until nothing new comes.
    """
    wanted: set[ObjectRef] = set()
    for fate in going.goes:
        if fate.ref.kind is PVC:
            wanted.add(fate.ref)
            with suppress(UnreadableError):
                claim = target.snapshot.one(fate.ref)
                name = claim.text("spec", "volumeName") if claim else ""
                wanted |= {ObjectRef("", name, PV)} if name else set()
        with suppress(UnreadableError):
            item = target.snapshot.one(fate.ref)
            wanted |= {
                ObjectRef(fate.ref.namespace, owner.name, kind)
                for owner in (item.owners if item else ())
                if (kind := _KNOWN.get((owner.group, owner.kind))) in (VM, VMI)
            }
    return frozenset(wanted)


@unique
class _Stand(Enum):
    """How an owner stands to the release."""

    STAYS = "it stays"
    GOES = "it goes, or is being deleted already"
    GONE = "it is gone"
    UNREAD = "it is of a kind that was not read"
    CUTS = "it goes, but cuts its dependents loose first"


@dataclass
class _Graph:
    """The objects of the target's namespace and their owners."""

    target: Target
    roots: tuple[KubeObject, ...]
    objects: dict[str, KubeObject] = field(default_factory=dict)
    """By uid."""
    leaving: set[str] = field(init=False)
    """uids of all that goes, with this release or without."""
    parents: dict[str, KubeObject] = field(default_factory=dict)
    """Of what goes with this release by its uid: the owner through which it does."""
    blind: UnreadableError | None = None

    def __post_init__(self) -> None:
        namespace = self.target.ref.namespace
        for kind in (*FOLLOWED, POD):
            try:
                found = self.target.snapshot.all(kind, namespace)
            except UnreadableError as error:
                if kind in NEEDED:
                    self.blind = self.blind or error
                continue
            self.objects.update((item.uid, item) for item in found)
        for kind in (VM, VMI):
            # Those that are needed are read one by one (`to_read`); more only make it quicker.
            more = self.target.snapshot.listed.get((kind, namespace), ())
            self.objects.update((item.uid, item) for item in more)
        with suppress(UnreadableError):
            self.objects.update((one.uid, one) for one in (self.target.vm, self.target.vmi) if one)
        self.objects.update((root.uid, root) for root in self.roots)
        self.leaving = {root.uid for root in self.roots} | {
            item.uid for item in self.objects.values() if _is_deleted(item)
        }
        self._close()
        self._descend()

    def _close(self) -> None:
        """Take for leaving whatever none of whose owners stays, until there is no more of it."""
        left = [item for item in self.objects.values() if item.owners]
        while True:
            still = [item for item in left if item.uid not in self.leaving]
            found = {item.uid for item in still if self._loses_every_owner(item)}
            if not found:
                return
            self.leaving |= found
            left = still

    def _loses_every_owner(self, item: KubeObject) -> bool:
        stands = {self.stand(item, owner) for owner in item.owners} - {_Stand.CUTS}
        return bool(stands) and _Stand.STAYS not in stands

    def stand(self, item: KubeObject, owner: Owner) -> _Stand:
        """How this owner of `item` stands."""
        found = self.objects.get(owner.uid)
        if found is None:
            kind = _KNOWN.get((owner.group, owner.kind))
            if kind is None:
                return _Stand.UNREAD
            ref = ObjectRef(item.ref.namespace, owner.name, kind)
            try:
                found = self.target.snapshot.one(ref)
            except UnreadableError:
                return _Stand.UNREAD
            if found is None or found.uid != owner.uid:
                return _Stand.GONE
        try:
            if found.uid not in self.leaving and found.deletion_timestamp is None:
                return _Stand.STAYS
            return _Stand.CUTS if ORPHAN in found.finalizers else _Stand.GOES
        except UnreadableError:  # its metadata are malformed
            return _Stand.UNREAD

    def _descend(self) -> None:
        """Find what leaves because of the roots, and through which owner."""
        owned: dict[str, list[KubeObject]] = {}
        for item in self.objects.values():
            for owner in item.owners:
                owned.setdefault(owner.uid, []).append(item)
        todo = list(self.roots)
        seen = {root.uid for root in self.roots}
        while todo:
            parent = todo.pop(0)
            for item in owned.get(parent.uid, ()):
                if item.uid in self.leaving and item.uid not in seen:
                    seen.add(item.uid)
                    self.parents[item.uid] = parent
                    todo.append(item)

    def result(self, related: _Related) -> GoesAndStays:
        """Everything that is told of what goes and what stays. Raises UnreadableError."""
        ours = [item for item in self.objects.values() if item.ref.kind not in _OF_THE_PLAN]
        goes = [
            item
            for item in ours
            if item.uid in self.parents or (item.uid in self.leaving and item.uid in related.uids)
        ]
        stays = [item for item in ours if item.uid in related.uids - self.leaving]
        return GoesAndStays(
            tuple(self._going(item, related) for item in sorted(goes, key=_order))
            + related.secrets,
            tuple(_staying(item, self, related) for item in sorted(stays, key=_order)),
            self.blind,
        )

    def _going(self, item: KubeObject, related: _Related) -> Fate:
        why = [self._because(item)]
        is_wanted = False
        destroys = item.ref.kind in (VM_BACKUP, VOLUME_SNAPSHOT)
        if item.ref.kind is PVC:
            destroys, text = self._data_of(item)
            why.append(text)
            users = (*related.users.get(item.ref.name, ()), *related.unread_pods)
            why += [f"pod {name} uses it, too" for name in users]
            # What nobody owns goes for no other reason than that somebody deleted it.
            is_wanted = (item.ref.name in related.selected or not item.owners) and not users
            if item.ref.name in related.selected:
                why.append("it was selected for deletion")
        elif destroys:
            # Whatever keeps it is its own finalizer: no release does anything to it.
            is_wanted = item.deletion_timestamp is not None
        lost = destroys and not is_wanted
        return Fate(item.ref, "; ".join(why), destroys, lost, self._keep(item) if lost else None)

    def _because(self, item: KubeObject) -> str:
        unread = [
            f"{owner.kind} {owner.name}"
            for owner in item.owners
            if self.stand(item, owner) is _Stand.UNREAD
        ]
        if item.uid in self.parents:
            chain = []
            uid = item.uid
            while uid in self.parents:
                chain.append(f"owned by {self.parents[uid].ref}")
                uid = self.parents[uid].uid
            text = ", ".join(chain)
            return (
                f"{text}; {' and '.join(unread)} owns it, too, and was not read"
                if unread
                else (text)
            )
        if item.deletion_timestamp is not None:
            return "it is being deleted already"
        if unread:
            return f"owned by {' and '.join(unread)}, which was not read and may go"
        names = " and ".join(f"{owner.kind} {owner.name}" for owner in item.owners)
        return f"owned by {names}, which does not stay"

    def _data_of(self, claim: KubeObject) -> tuple[bool, str]:
        """Whether the data of a PVC that goes is destroyed, and by what. Unreadable is yes."""
        if "spec" not in claim.body:
            full = None
            with suppress(UnreadableError):
                full = self.target.snapshot.one(claim.ref)
            if full is None or full.uid != claim.uid or "spec" not in full.body:
                return True, "its PersistentVolume is not known, so that its data counts as lost"
            claim = full
        name = _volume_of(claim)
        if not name and claim.text("status", "phase") == "Pending":
            return False, "it was never bound, so that it holds no data"
        if not name:
            return True, "its PersistentVolume is not known, so that its data counts as lost"
        try:
            volume = self.target.snapshot.one(ObjectRef("", name, PV))
            if volume is None:
                return False, f"PersistentVolume {name} is not there any more"
            policy = volume.text("spec", "persistentVolumeReclaimPolicy")
        except UnreadableError as error:
            why = f"PersistentVolume {name} could not be read ({in_short(error.why)})"
            return True, f"{why}, so that its data counts as lost"
        if policy == RETAIN:
            return False, f"its data stays: PersistentVolume {name} is {RETAIN}"
        return True, f"its data is destroyed: PersistentVolume {name} is {policy or 'Delete'}"

    def _keep(self, item: KubeObject) -> Command:
        """The command that keeps the data of a PVC, or a snapshot."""
        if item.ref.kind is not PVC:
            # To keep a snapshot keeps what it owns.
            while (parent := self.parents.get(item.uid)) and parent.ref.kind is VM_BACKUP:
                if parent.deletion_timestamp is not None:
                    break
                item = parent
            return commands.disown(item)
        name = ""
        with suppress(UnreadableError):
            full = self.target.snapshot.one(item.ref)
            name = _volume_of(full) if full is not None else ""
        if name:
            return commands.retain(ObjectRef("", name, PV))
        return commands.get(item.ref, "-o", "jsonpath={.spec.volumeName}")


@dataclass(frozen=True)
class _Related:
    """What belongs to the target without being owned by it."""

    uids: frozenset[str]
    selected: frozenset[str]
    users: Mapping[str, tuple[str, ...]]
    """Pods of others, by the name of the PVC that they use."""
    unread_pods: tuple[str, ...]
    """Pods of others that may use any of them."""
    secrets: tuple[Fate, ...]


def _related(target: Target, graph: _Graph, machines: tuple[KubeObject, ...]) -> _Related:
    disks: set[str] = set()
    ticked: set[str] = set()
    for machine in machines:
        disks |= set(pvc_names(machine))
        ticked |= selected(machine) if machine.ref.kind is VM else set()
    names = {machine.ref.name for machine in machines if machine.ref.kind is VM}
    uids: set[str] = set()
    for item in graph.objects.values():
        if item.ref.kind is PVC:
            is_ours = item.ref.name in disks | ticked
        elif item.ref.kind is VM_BACKUP:
            is_ours = item.text("spec", "source", "name") in names
        elif item.ref.kind is VM_RESTORE:
            is_ours = item.text("spec", "target", "name") in names
        else:
            continue
        if is_ours:
            uids.add(item.uid)
    uids |= {
        item.uid
        for item in graph.objects.values()
        if item.ref.kind is VOLUME_SNAPSHOT and any(owner.uid in uids for owner in item.owners)
    }
    own = {pod.uid for pod in (*target.pods, *target.doubtful_pods, *target.attachment_pods)}
    users: dict[str, tuple[str, ...]] = {}
    unread: list[str] = []
    for pod in graph.objects.values():
        if pod.ref.kind is POD and pod.uid not in own:
            try:
                for name in claims_of(pod):
                    users[name] = (*users.get(name, ()), pod.ref.name)
            except UnreadableError:
                unread.append(pod.ref.name)
    secrets = tuple(_secrets(graph, machines))
    return _Related(frozenset(uids), frozenset(ticked), users, tuple(unread), secrets)


def _is_deleted(item: KubeObject) -> bool:
    """Whether it is known to be being deleted."""
    with suppress(UnreadableError):
        return item.deletion_timestamp is not None
    return False


def claims_of(pod: KubeObject) -> frozenset[str]:
    """Names of the PVCs that a pod uses. Raises UnreadableError."""
    claims = (volume.get("persistentVolumeClaim") for volume in pod.mappings("spec", "volumes"))
    return frozenset(
        str(claim["claimName"])
        for claim in claims
        if isinstance(claim, Mapping) and claim.get("claimName")
    )


def _secrets(graph: _Graph, machines: Iterable[KubeObject]) -> Iterator[Fate]:
    """The Secrets that a VM which goes refers to; a right to read them would open all they hold."""
    going = {root.uid for root in graph.roots}
    names = {
        name
        for machine in machines
        if machine.ref.kind is VM and machine.uid in going
        for name in _secret_names(machine.mapping("spec"))
    }
    for name in sorted(names):
        yield Fate(
            ObjectRef(graph.target.ref.namespace, name, SECRET),
            "the VM refers to it; it goes if the VM owns it, and Secrets are not read",
        )


def _secret_names(value: object) -> Iterator[str]:
    """Names of the Secrets anywhere in a spec: `secretName`, or `name` under a reference."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            is_reference = str(key).lower().endswith(("secretref", "secret"))
            named = item.get("name") if is_reference and isinstance(item, Mapping) else None
            name = item if key == "secretName" else named
            if isinstance(name, str) and name:
                yield name
            yield from _secret_names(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _secret_names(item)


def _staying(item: KubeObject, graph: _Graph, related: _Related) -> Fate:
    keepers = [
        f"{owner.kind} {owner.name}"
        for owner in item.owners
        if graph.stand(item, owner) is _Stand.STAYS
    ]
    if keepers:
        return Fate(item.ref, f"owned by {' and '.join(keepers)}, which stays")
    if item.ref.kind is PVC and item.ref.name in related.selected:
        why = "not owned by what is deleted; selected for deletion, which Harvester does itself"
        return Fate(item.ref, why)
    return Fate(item.ref, "not owned by anything that is deleted")


def _volume_of(claim: KubeObject) -> str:
    return claim.text("spec", "volumeName")


def _order(item: KubeObject) -> tuple[int, str]:
    return FOLLOWED.index(item.ref.kind), item.ref.name
