"""The chain behind a target: VM, VMI, pods and nodes, and the disks down to their attachments.

What could not be read stands in the chain as such.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kubectl_harvester_stuck.diagnosis.model import Link
from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.harvester.node_health import NODES, describe, read_node
from kubectl_harvester_stuck.harvester.target import STATE, Target, is_stopped, pvc_names
from kubectl_harvester_stuck.k8s.durations import human
from kubectl_harvester_stuck.k8s.kinds import (
    LONGHORN_ATTACHMENT,
    LONGHORN_NAMESPACE,
    LONGHORN_VOLUME,
    MIGRATION,
    PV,
    PVC,
    VM,
    VM_BACKUP,
    VOLUME_ATTACHMENT,
)
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef
from kubectl_harvester_stuck.k8s.reads import Read, declared

READS = declared(
    *STATE,
    *NODES,
    MIGRATION,
    PVC,
    PV,
    VOLUME_ATTACHMENT,
    Read(LONGHORN_ATTACHMENT, LONGHORN_NAMESPACE),
    Read(LONGHORN_VOLUME, LONGHORN_NAMESPACE),
    VM_BACKUP,
)


def of(case: Target) -> Link:
    """The chain of a target, with the link that holds everything up marked."""
    target = case.target
    if target is None:
        return Link(str(case.ref), "not there", blocking=True)
    parts: list[Link] = []
    if case.ref.kind is VM:
        parts += _or_gap("VirtualMachineInstance", lambda: _instance(case))
        parts += _or_gap("disks", lambda: _disks(case, target))
    else:
        parts += _or_gap("pods", lambda: _pods(case))
    parts += _or_gap("migrations", lambda: _migrations(case))
    parts += _or_gap("backups", lambda: _backups(case))
    alone = target.deletion_timestamp is not None and not any(map(_blocks, parts))
    return Link(str(target.ref), _state(target, case), alone, tuple(parts))


def _blocks(link: Link) -> bool:
    return link.blocking or any(map(_blocks, link.links))


def _or_gap(what: str, look: Callable[[], Sequence[Link]]) -> Sequence[Link]:
    try:
        return look()
    except UnreadableError as error:
        return [Link(what, f"could not be read: {error.why}", blocking=True)]


def _state(item: KubeObject, case: Target) -> str:
    words = []
    if item.deletion_timestamp is not None:
        age = human(case.snapshot.taken_at - item.deletion_timestamp)
        words.append(f"being deleted for {age}")
    phase = item.text("status", "phase") or item.text("status", "printableStatus")
    words += [phase] if phase else []
    if item.finalizers:
        count = len(item.finalizers)
        words.append(f"{count} finalizer{'s' if count > 1 else ''}")
    return ", ".join(words) or "there"


def _instance(case: Target) -> list[Link]:
    vmi = case.vmi
    if vmi is None:
        return [Link("VirtualMachineInstance", "gone"), *_pods(case)]
    pods = _pods(case)
    holds = vmi.deletion_timestamp is not None and not any(map(_blocks, pods))
    return [Link(str(vmi.ref), _state(vmi, case), holds, tuple(pods))]


def _pods(case: Target) -> list[Link]:
    links = []
    doubtful = case.doubtful_pods
    for pod in (*case.pods, *doubtful):
        containers = "containers ended" if is_stopped(pod) else "containers not ended"
        stranger = ", not owned by this VMI" if pod in doubtful else ""
        name = pod.text("spec", "nodeName")
        node = [Link(f"Node {name}", describe(read_node(case, name)))] if name else []
        node += [
            Link(f"{held.ref} (hotplugged volume)", _state(held, case))
            for held in case.attachment_pods
            if held.is_owned_by(pod)
        ]
        links.append(
            Link(
                str(pod.ref),
                f"{_state(pod, case)}, {containers}{stranger}",
                pod.deletion_timestamp is not None and pod not in doubtful,
                tuple(node),
            )
        )
    return links


def _disks(case: Target, vm: KubeObject) -> list[Link]:
    claims = {item.ref.name: item for item in case.snapshot.all(PVC, vm.ref.namespace)}
    links = []
    for name in pvc_names(vm):
        claim = claims.get(name)
        if claim is None:
            links.append(Link(f"PersistentVolumeClaim {vm.ref.namespace}/{name}", "gone"))
            continue
        volume = claim.text("spec", "volumeName")
        behind = _volume(case, volume) if volume else ()
        links.append(Link(str(claim.ref), _state(claim, case), links=tuple(behind)))
    return links


def _volume(case: Target, name: str) -> Sequence[Link]:
    def look() -> list[Link]:
        volume = next((item for item in case.snapshot.all(PV) if item.ref.name == name), None)
        parts = (*_attachments(case, name), *_longhorn(case, name))
        state = "gone" if volume is None else _state(volume, case)
        return [Link(f"PersistentVolume {name}", state, links=parts)]

    return _or_gap("PersistentVolume", look)


def _attachments(case: Target, volume: str) -> Sequence[Link]:
    def look() -> list[Link]:
        return [
            Link(
                f"VolumeAttachment (storage.k8s.io) {item.ref.name}",
                f"to {item.text('spec', 'nodeName')}, {_state(item, case)}",
            )
            for item in case.snapshot.all(VOLUME_ATTACHMENT)
            if item.text("spec", "source", "persistentVolumeName") == volume
        ]

    return _or_gap("VolumeAttachment (storage.k8s.io)", look)


def _longhorn(case: Target, volume: str) -> Sequence[Link]:
    def attachments() -> list[Link]:
        tickets = case.snapshot.one(ObjectRef(LONGHORN_NAMESPACE, volume, LONGHORN_ATTACHMENT))
        if tickets is None:
            return []
        nodes = [
            str(ticket.get("nodeID"))
            for ticket in tickets.mapping("spec", "attachmentTickets").values()
            if isinstance(ticket, dict)
        ]
        where = ", ".join(sorted(set(nodes))) or "nowhere"
        return [Link(f"VolumeAttachment (longhorn.io) {volume}", f"to {where}")]

    def volumes() -> list[Link]:
        found = case.snapshot.one(ObjectRef(LONGHORN_NAMESPACE, volume, LONGHORN_VOLUME))
        if found is None:
            return []
        state = found.text("status", "state") or "no state"
        robustness = found.text("status", "robustness")
        return [Link(f"Longhorn volume {volume}", f"{state} {robustness}".strip())]

    return [
        *_or_gap("VolumeAttachment (longhorn.io)", attachments),
        *_or_gap("Longhorn volume", volumes),
    ]


def _migrations(case: Target) -> list[Link]:
    return [Link(str(item.ref), _state(item, case), blocking=True) for item in case.migrations]


def _backups(case: Target) -> list[Link]:
    return [
        Link(str(item.ref), _state(item, case))
        for item in case.snapshot.all(VM_BACKUP, case.ref.namespace)
        if item.text("spec", "source", "name") == case.ref.name
    ]
