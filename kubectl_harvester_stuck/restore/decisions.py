"""What a backup holds, the VM that is made from it, and whether it may be made.

A file is judged like anything else that comes from outside: whatever is wrong with it is a
`RestoreError`. Where the cluster could not be read, the check says unknown, and unknown blocks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum, unique
from typing import Any

from kubectl_harvester_stuck.errors import RestoreError, UnreadableError
from kubectl_harvester_stuck.harvester import harmless
from kubectl_harvester_stuck.harvester.pending_work import MAINTENANCE_NODE, REMOVED_PVCS
from kubectl_harvester_stuck.harvester.target import (
    is_launcher_of,
    is_stopped,
    mac_addresses,
    mounted_pvcs,
    pvc_names,
    vmi_of,
)
from kubectl_harvester_stuck.k8s import commands, nesting
from kubectl_harvester_stuck.k8s.commands import Advice, Command
from kubectl_harvester_stuck.k8s.kinds import POD, PVC, SECRET, VM, VMI
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef
from kubectl_harvester_stuck.k8s.redaction import redacted
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot
from kubectl_harvester_stuck.release.model import (
    GUEST_STOPPED,
    INSTANCE_GONE,
    GuardResult,
    GuardState,
)
from kubectl_harvester_stuck.restore.addresses import SharedAddresses

SCHEMA = "harvester-stuck/backup/v1"
HALTED = "Halted"

_SERVERS_OWN = (
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "finalizers",
    "managedFields",
    "selfLink",
    # The owners may be gone, and the garbage collector would take the VM at once.
    "ownerReferences",
)

_NAME = re.compile("[a-z0-9]([-a-z0-9.]*[a-z0-9])?")

Body = Mapping[str, Any]


@dataclass(frozen=True)
class Backup:
    """One VM of a backup, with what was saved around it."""

    vm: KubeObject
    vmi: KubeObject | None
    claims: Mapping[str, str]
    """The uid of each PVC that was saved, by its name."""
    server: str
    taken_at: str
    taken_over_from: tuple[str, ...] = ()
    """Earlier files of the same release, of which it holds objects as well."""

    @property
    def ref(self) -> ObjectRef:
        """The VM that is to be made again."""
        return self.vm.ref

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the PVCs that the VM needs. Raises UnreadableError."""
        return pvc_names(self.vm)

    @property
    def run_strategy(self) -> str:
        """How the VM was to run; "" where that is not saved."""
        spec = self.vm.mapping("spec")
        if isinstance(spec.get("runStrategy"), str):
            return str(spec["runStrategy"])
        running = spec.get("running")
        return "Always" if running is True else HALTED if running is False else ""


def load(text: str, path: str) -> Body:
    """The document of a backup. Raises RestoreError; `path` is for its message."""
    try:
        if not nesting.is_shallow(text.encode("utf-8", "surrogatepass")):
            raise ValueError
        document = json.loads(text, parse_constant=_refuse)
        # What is read is sent and printed: both need text that can be encoded.
        json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise RestoreError(f"{path} is not JSON; name a file that unstick saved") from None
    release = document.get("release") if isinstance(document, dict) else None
    schema = release.get("schema") if isinstance(release, dict) else None
    if schema != SCHEMA:
        raise RestoreError(
            f"{path} is not a backup of unstick: release.schema is not {SCHEMA}; name a file that"
            " unstick saved"
        )
    items = document.get("items")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise RestoreError(f"{path} is damaged: its items are not objects; take another backup")
    return dict(document)


def holds_vm_of(document: Body, server: str) -> bool:
    """Whether the document was saved on that API server, and a VM is among what it holds."""
    saved = document["release"].get("server")
    return saved == server and any(item.get("kind") == VM.kind for item in document["items"])


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def without_secrets(document: Body) -> Body:
    """The backup to be shown to others; nothing can be restored from it."""
    copy: dict[str, Any] = redacted(document)
    return {**copy, "release": {**copy["release"], "redacted": True}}


def parse_backup(document: Body, path: str) -> Backup:
    """The VM that the document holds. Raises RestoreError where there is none, or not one."""
    release = document["release"]
    if release.get("redacted"):
        raise RestoreError(
            f"{path} is a redacted copy, the VM would lose its secrets; use the file that unstick"
            " saved"
        )
    try:
        machines = _objects(document, VM)
        instances = _objects(document, VMI)
        claims = _objects(document, PVC)
        if not machines:
            raise RestoreError(
                f"{path} holds no VirtualMachine, only {_kinds(document)}: there is nothing to"
                " make again"
            )
        if len(machines) > 1:
            raise RestoreError(f"{path} holds more than one VirtualMachine; take another backup")
        found = machines[0]
        if not all(map(_NAME.fullmatch, (found.ref.namespace, found.ref.name))):
            raise UnreadableError(str(found.ref), "that is no name of a VM in a namespace")
        backup = Backup(
            vm=found,
            vmi=next((item for item in instances if item.ref.key == found.ref.key), None),
            claims={
                item.ref.name: item.uid
                for item in claims
                if item.ref.namespace == found.ref.namespace
            },
            server=str(release.get("server") or ""),
            taken_at=str(release.get("takenAt") or ""),
            taken_over_from=_paths(release.get("takenOverFrom")),
        )
        # What decisions will look at later is looked at now, while the file can be blamed.
        _ = backup.needs, backup.run_strategy, tuple(secrets_of(backup)), mac_addresses(found)
        _ = tuple(_with_state(found))
        found.mapping("metadata", "annotations")
    except UnreadableError as error:
        raise RestoreError(f"{path} is damaged: {error}; take another backup") from error
    return backup


def _objects(document: Body, kind: Any) -> list[KubeObject]:
    return [
        KubeObject.parse(kind, item)
        for item in document["items"]
        if (item.get("apiVersion"), item.get("kind")) == (kind.api_version, kind.kind)
    ]


def _paths(written: object) -> tuple[str, ...]:
    """The files that are named there; earlier versions named none."""
    return tuple(map(str, written)) if isinstance(written, list) else ()


def _kinds(document: Body) -> str:
    kinds = sorted({str(item.get("kind")) for item in document["items"]})
    return ", ".join(kinds) or "an empty list"


def manifest_for(backup: Backup) -> dict[str, Any]:
    """The VM as it is created: without what the server fills in, and powered off."""
    meta = {
        key: value
        for key, value in backup.vm.mapping("metadata").items()
        if key not in _SERVERS_OWN
    }
    # With the one, the next deletion of the VM would delete those disks; with the other, Harvester
    # would start the VM when it ends the maintenance of the node.
    marks = {REMOVED_PVCS, MAINTENANCE_NODE}
    if marks & backup.vm.annotations.keys():
        meta["annotations"] = {
            key: value for key, value in meta["annotations"].items() if key not in marks
        }
    spec = {key: value for key, value in backup.vm.mapping("spec").items() if key != "running"}
    return {
        "apiVersion": VM.api_version,
        "kind": VM.kind,
        "metadata": meta,
        "spec": {**spec, "runStrategy": HALTED},
    }


def changes(backup: Backup) -> tuple[str, ...]:
    """What the VM loses that the operator may miss, one line each."""
    lines = []
    strategy = backup.run_strategy
    if strategy != HALTED:
        lines.append(f"runStrategy: {HALTED}, was {strategy or 'not set'}")
    lines += [f"left out: finalizer {name}" for name in backup.vm.finalizers]
    lines += [
        f"left out: owner {owner.kind} {owner.name}, which may be gone"
        for owner in backup.vm.owners
    ]
    ticked = backup.vm.annotations.get(REMOVED_PVCS)
    if ticked:
        lines.append(f"left out: the mark that {ticked} are deleted with the VM")
    node = backup.vm.annotations.get(MAINTENANCE_NODE)
    if node:
        lines.append(f"left out: the mark that it starts after the maintenance of node {node}")
    return tuple(lines)


def secrets_of(backup: Backup) -> Iterator[str]:
    """Names of the Secrets that the VM refers to, each once. Raises UnreadableError."""
    where = ("spec", "template", "spec")
    paths = (
        ("cloudInitNoCloud", "secretRef", "name"),
        ("cloudInitNoCloud", "networkDataSecretRef", "name"),
        ("cloudInitConfigDrive", "secretRef", "name"),
        ("cloudInitConfigDrive", "networkDataSecretRef", "name"),
        ("sysprep", "secret", "name"),
        ("secret", "secretName"),
        ("sshPublicKey", "source", "secret", "secretName"),
        ("userPassword", "source", "secret", "secretName"),
    )
    names: dict[str, None] = {}
    for field in ("volumes", "accessCredentials"):
        for item in backup.vm.mappings(*where, field):
            for path in paths:
                value: object = item
                for key in path:
                    value = value.get(key) if isinstance(value, Mapping) else None
                if isinstance(value, str) and value:
                    names[value] = None
    yield from names


# Whether it may be made


def checks(backup: Backup, snapshot: ClusterSnapshot) -> tuple[GuardResult, ...]:
    """What has to be so before the VM is made; every one of them has to pass."""
    found = []
    for name, check in _CHECKS:
        try:
            verdict, reason, *cure = check(backup, snapshot)
        except UnreadableError as error:
            verdict, reason, cure = GuardState.UNKNOWN, str(error), []
        found.append(GuardResult(name, verdict, reason, harmless.checked(cure, snapshot)))
    return tuple(found)


Said = tuple[GuardState, str] | tuple[GuardState, str, Command]


def _name_free(backup: Backup, snapshot: ClusterSnapshot) -> Said:
    there = snapshot.one(backup.ref)
    if there is None:
        return GuardState.PASS, f"there is no {backup.ref}"
    if there.uid == backup.vm.uid:
        return GuardState.REFUSE, f"{backup.ref} is still the one that was saved"
    return GuardState.REFUSE, f"{backup.ref} exists, with uid {there.uid}; it is not replaced"


def _instance_gone(backup: Backup, snapshot: ClusterSnapshot) -> Said:
    there = snapshot.one(ObjectRef(backup.ref.namespace, backup.ref.name, VMI))
    if there is None:
        return GuardState.PASS, "there is no VirtualMachineInstance of this name"
    return (
        GuardState.REFUSE,
        f"{there.ref} exists, and the VM would adopt it; wait until it is gone",
        commands.unstick(there.ref).noted("if it hangs"),
    )


def _guest_stopped(backup: Backup, snapshot: ClusterSnapshot) -> Said:
    pods = snapshot.all(POD, backup.ref.namespace)
    running = [pod for pod in pods if _is_of_guest(pod, backup) and not is_stopped(pod)]
    if running:
        where = ", ".join(
            f"{pod.ref.name} on node {pod.text('spec', 'nodeName') or '<none>'}" for pod in running
        )
        return GuardState.REFUSE, f"pod {where} may still run the guest on these disks"
    return GuardState.PASS, "no pod is left that may run the guest"


def _is_of_guest(pod: KubeObject, backup: Backup) -> bool:
    return is_launcher_of(pod, backup.ref.name) or (
        backup.vmi is not None and pod.is_owned_by(backup.vmi)
    )


def _disks_there(backup: Backup, snapshot: ClusterSnapshot) -> Said:
    refusals, unknown = [], []
    for name in backup.needs:
        try:
            wrong = _why_not(name, backup, snapshot)
        except UnreadableError as error:
            unknown.append(str(error))
            continue
        if wrong:
            refusals.append(wrong)
    if refusals:
        return GuardState.REFUSE, "; ".join([*refusals, *unknown])
    if unknown:
        return GuardState.UNKNOWN, "; ".join(unknown)
    return GuardState.PASS, f"every disk is there: {', '.join(backup.needs) or 'it needs none'}"


def _why_not(name: str, backup: Backup, snapshot: ClusterSnapshot) -> str | None:
    """What keeps the disk from being the one that the VM had; None where nothing does.

    Raises UnreadableError where the cluster, or the file, does not tell.
    """
    claim = snapshot.one(ObjectRef(backup.ref.namespace, name, PVC))
    saved = backup.claims.get(name)
    if claim is None:
        return f"PersistentVolumeClaim {name} is gone"
    if claim.deletion_timestamp is not None:
        return f"PersistentVolumeClaim {name} is being deleted"
    if claim.text("status", "phase") == "Lost":
        return f"PersistentVolumeClaim {name} is Lost: its volume is gone"
    if saved is None:
        raise UnreadableError(
            f"the uid of PersistentVolumeClaim {name}",
            "it was not saved, so nothing shows that this is the same disk",
        )
    if claim.uid != saved:
        return (
            f"PersistentVolumeClaim {name} is another disk of the same name: its uid is"
            f" {claim.uid}, saved was {saved}"
        )
    return None


def _disks_free(backup: Backup, snapshot: ClusterSnapshot) -> Said:
    ours = set(backup.needs)
    if not ours:
        return GuardState.PASS, "it needs no disk"
    users = {
        (other.ref, name): f"PersistentVolumeClaim {name} is used by {other.ref}"
        for kind in (VM, VMI)
        for other in snapshot.all(kind, backup.ref.namespace)
        if other.ref.name != backup.ref.name
        for name in pvc_names(other)
        if name in ours
    }
    for pod in snapshot.all(POD, backup.ref.namespace):
        guest = vmi_of(pod)
        for name in () if _is_of_guest(pod, backup) or is_stopped(pod) else mounted_pvcs(pod):
            vmi = ObjectRef(pod.ref.namespace, guest.name, VMI) if guest is not None else None
            if name in ours and (vmi, name) not in users:
                where = pod.text("spec", "nodeName") or "<none>"
                users[pod.ref, name] = (
                    f"PersistentVolumeClaim {name} is used by {pod.ref} on node {where}"
                )
    if users:
        return GuardState.REFUSE, "; ".join(users.values())
    return GuardState.PASS, "no other VM and no pod of the namespace uses its disks"


_CHECKS: tuple[tuple[str, Callable[[Backup, ClusterSnapshot], Said]], ...] = (
    ("name-free", _name_free),
    (INSTANCE_GONE, _instance_gone),
    (GUEST_STOPPED, _guest_stopped),
    ("disks-there", _disks_there),
    ("disks-free", _disks_free),
)


def warnings(
    backup: Backup,
    server: str,
    secrets: Mapping[str, bool | str],
    shared: SharedAddresses = SharedAddresses(),  # noqa: B008 - a value that nothing changes
) -> tuple[str, ...]:
    """What the operator should know and that refuses nothing.

    `secrets` says of each Secret whether it is there, or why that could not be read; `shared` who
    else has a MAC address of the VM.
    """
    lines = list(shared.lines)
    if backup.server != server:
        lines.append(
            f"the backup was taken from {backup.server or '<unknown>'}, this is {server}: the uids"
            " of the disks say whether they are the same"
        )
    kept = " and ".join(_with_state(backup.vm))
    if kept:
        lines.append(
            f"the state of its {kept} is in a disk of KubeVirt's own, which went with the VM unless"
            " it was kept: without it the guest starts with an empty one"
        )
    for name, there in secrets.items():
        if isinstance(there, str):
            lines.append(f"could not look for Secret {name}: {there}")
        elif not there:
            lines.append(f"Secret {name} is gone: make it again before the VM is started")
    return tuple(lines)


def _with_state(vm: KubeObject) -> Iterator[str]:
    """What of the VM keeps a state in a disk that no volume of it names. Raises UnreadableError."""
    domain = ("spec", "template", "spec", "domain")
    for name, path in (("TPM", ("devices", "tpm")), ("EFI", ("firmware", "bootloader", "efi"))):
        if vm.mapping(*domain, *path).get("persistent") is True:
            yield name


@dataclass(frozen=True)
class Proposal:
    """The VM that would be made, with everything that speaks for and against it."""

    backup: Backup
    body: Body
    checks: tuple[GuardResult, ...]
    changes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    snapshot: ClusterSnapshot | None = None
    """What the checks looked at."""
    shares_addresses: bool = False
    """Whether another VM or VMI has a MAC address of it."""

    @property
    def refusals(self) -> tuple[GuardResult, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if check.verdict is not GuardState.PASS)


@unique
class RestoreOutcome(str, Enum):
    """What became of it; the values stand in JSON."""

    CREATED = "created"
    PLANNED = "planned"
    REFUSED = "refused"
    DENIED = "denied"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Restoration:
    """One `restore`, as it ended."""

    proposal: Proposal
    end: RestoreOutcome
    reason: str = ""
    uid: str | None = None
    afterwards: tuple[Advice, ...] = ()
    """What gives the VM back what the restore left out."""


def run_again(proposal: Proposal, made: KubeObject) -> tuple[Advice, ...]:
    """The command that gives the VM its runStrategy back, once it was made.

    None where it shares a MAC address: the warning says what to do first.
    """
    strategy, before = proposal.backup.run_strategy, proposal.snapshot
    if before is None or strategy in ("", HALTED) or proposal.shares_addresses:
        return ()
    command = commands.start(made.ref, strategy).noted(
        "Once nothing else can run its guest, it runs as before with"
    )
    return harmless.checked((command,), replace(before, found={**before.found, made.ref: made}))


def secret_refs(backup: Backup) -> tuple[ObjectRef, ...]:
    """The Secrets to look for."""
    return tuple(ObjectRef(backup.ref.namespace, name, SECRET) for name in secrets_of(backup))
