"""What a new undo file takes over from earlier ones, where an interrupted release is repeated.

Some objects are gone by then, and the earlier file alone holds them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.k8s.kinds import PV, PVC, VM, VMI
from kubectl_harvester_stuck.k8s.objects import KubeObject

Item = Mapping[str, Any]


def is_same_release(now: Iterable[Item], then: Iterable[Item]) -> bool:
    """Whether both were saved while the same VM or VMI was being deleted, or the same VMI stopped.

    A VM that is stopped again later has another VMI: that is another release.
    """
    return bool(_marks(now) & _marks(then))


def missing_from(now: Sequence[Item], then: Sequence[Item]) -> tuple[Item, ...]:
    """The objects of the earlier file that the new one lacks.

    Not one of which the new file holds another of the same name, nor the volume of such a claim;
    no second VM or VMI, and nothing that is damaged, with which the new file could not be read.
    """
    names = {_name(item) for item in now}
    single = {VM.kind, VMI.kind} & {_kind(item) for item in now}
    found = [
        item
        for item in then
        if _name(item) not in names and _kind(item) not in single and _is_whole(item)
    ]
    volumes = {_volume(item) for item in (*now, *found)}
    return tuple(
        item
        for item in found
        if _kind(item) != PV.kind or str(_metadata(item).get("name")) in volumes
    )


def _is_whole(item: Item) -> bool:
    try:
        KubeObject.parse(VM, item)  # metadata is the same for each kind
    except UnreadableError:
        return False
    return True


def _marks(items: Iterable[Item]) -> set[str]:
    """The uids of the VMIs, and of the VM where it is being deleted, which nothing can revoke."""
    return {
        str(meta["uid"])
        for item in items
        if (meta := _metadata(item)).get("uid")
        and (_kind(item) == VMI.kind or (_kind(item) == VM.kind and meta.get("deletionTimestamp")))
    }


def _name(item: Item) -> tuple[object, ...]:
    meta = _metadata(item)
    return _kind(item), str(meta.get("namespace")), str(meta.get("name"))


def _volume(item: Item) -> str:
    """The name of the PersistentVolume, where the item is a PVC that is bound; "" otherwise."""
    spec = item.get("spec")
    if _kind(item) != PVC.kind or not isinstance(spec, Mapping):
        return ""
    return str(spec.get("volumeName") or "")


def _kind(item: Item) -> str:
    return str(item.get("kind"))


def _metadata(item: Item) -> Mapping[str, Any]:
    meta = item.get("metadata")
    return meta if isinstance(meta, Mapping) else {}
