"""The chain behind a target: VM, VMI, pods and nodes, and the disks down to their attachments.

What could not be read stands in the chain as such.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kubectl_harvester_stuck.diagnosis.model import Link
from kubectl_harvester_stuck.errors import UnreadableError, in_short
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


def of(target: Target) -> Link:
    """The chain of a target, with the link that holds everything up marked."""
    obj = target.obj
    if obj is None:
        return Link(str(target.ref), "not there", blocking=True)
    parts: list[Link] = []
    if target.ref.kind is VM:
        parts += _or_gap("VirtualMachineInstance", lambda: _instance(target))
        parts += _or_gap("disks", lambda: _disks(target, obj))
    else:
        parts += _or_gap("pods", lambda: _pods(target))
    parts += _or_gap("migrations", lambda: _migrations(target))
    parts += _or_gap("backups", lambda: _backups(target))
    alone = obj.deletion_timestamp is not None and not any(map(_blocks, parts))
    return Link(str(obj.ref), _state(obj, target), alone, tuple(parts))


def _blocks(link: Link) -> bool:
    return link.blocking or any(map(_blocks, link.links))


def _or_gap(what: str, look: Callable[[], Sequence[Link]]) -> Sequence[Link]:
    try:
        return look()
    except UnreadableError as error:
        return [Link(what, f"could not be read: {in_short(error.why)}", blocking=True)]


def _state(item: KubeObject, target: Target) -> str:
    words = []
    if item.deletion_timestamp is not None:
        age = human(target.snapshot.taken_at - item.deletion_timestamp)
        words.append(f"being deleted for {age}")
    phase = item.text("status", "phase") or item.text("status", "printableStatus")
    words += [phase] if phase else []
    if item.finalizers:
        count = len(item.finalizers)
        words.append(f"{count} finalizer{'s' if count > 1 else ''}")
    return ", ".join(words) or "there"


def _instance(target: Target) -> list[Link]:
    vmi = target.vmi
    if vmi is None:
        return [Link("VirtualMachineInstance", "gone"), *_pods(target)]
    pods = _pods(target)
    holds = vmi.deletion_timestamp is not None and not any(map(_blocks, pods))
    return [Link(str(vmi.ref), _state(vmi, target), holds, tuple(pods))]


def _pods(target: Target) -> list[Link]:
    links = []
    doubtful = target.doubtful_pods
    for pod in (*target.pods, *doubtful):
        containers = "containers ended" if is_stopped(pod) else "containers not ended"
        stranger = ", not owned by this VMI" if pod in doubtful else ""
        name = pod.text("spec", "nodeName")
        node = [Link(f"Node {name}", describe(read_node(target, name)))] if name else []
        node += [
            Link(f"{held.ref} (hotplugged volume)", _state(held, target))
            for held in target.attachment_pods
            if held.is_owned_by(pod)
        ]
        links.append(
            Link(
                str(pod.ref),
                f"{_state(pod, target)}, {containers}{stranger}",
                pod.deletion_timestamp is not None and pod not in doubtful,
                tuple(node),
            )
        )
    return links


def _disks(target: Target, vm: KubeObject) -> list[Link]:
    claims = {item.ref.name: item for item in target.snapshot.all(PVC, vm.ref.namespace)}
    links = []
    for name in pvc_names(vm):
        claim = claims.get(name)
        if claim is None:
            links.append(Link(f"PersistentVolumeClaim {vm.ref.namespace}/{name}", "gone"))
            continue
        volume = claim.text("spec", "volumeName")
        behind = _volume(target, volume) if volume else ()
        links.append(Link(str(claim.ref), _state(claim, target), links=tuple(behind)))
    return links


def _volume(target: Target, name: str) -> Sequence[Link]:
    def look() -> list[Link]:
        volume = next((item for item in target.snapshot.all(PV) if item.ref.name == name), None)
        parts = (*_attachments(target, name), *_longhorn(target, name))
        state = "gone" if volume is None else _state(volume, target)
        return [Link(f"PersistentVolume {name}", state, links=parts)]

    return _or_gap("PersistentVolume", look)


def _attachments(target: Target, volume: str) -> Sequence[Link]:
    def look() -> list[Link]:
        return [
            Link(
                f"VolumeAttachment (storage.k8s.io) {item.ref.name}",
                f"to {item.text('spec', 'nodeName')}, {_state(item, target)}",
            )
            for item in target.snapshot.all(VOLUME_ATTACHMENT)
            if item.text("spec", "source", "persistentVolumeName") == volume
        ]

    return _or_gap("VolumeAttachment (storage.k8s.io)", look)


def _longhorn(target: Target, volume: str) -> Sequence[Link]:
    def attachments() -> list[Link]:
        tickets = target.snapshot.one(ObjectRef(LONGHORN_NAMESPACE, volume, LONGHORN_ATTACHMENT))
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
        found = target.snapshot.one(ObjectRef(LONGHORN_NAMESPACE, volume, LONGHORN_VOLUME))
        if found is None:
            return []
        state = found.text("status", "state") or "no state"
        robustness = found.text("status", "robustness")
        return [Link(f"Longhorn volume {volume}", f"{state} {robustness}".strip())]

    return [
        *_or_gap("VolumeAttachment (longhorn.io)", attachments),
        *_or_gap("Longhorn volume", volumes),
    ]


def _migrations(target: Target) -> list[Link]:
    return [Link(str(item.ref), _state(item, target), blocking=True) for item in target.migrations]


def _backups(target: Target) -> list[Link]:
    return [
        Link(str(item.ref), _state(item, target))
        for item in target.snapshot.all(VM_BACKUP, target.ref.namespace)
        if item.text("spec", "source", "name") == target.ref.name
    ]
