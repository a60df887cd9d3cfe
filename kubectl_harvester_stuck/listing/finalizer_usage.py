"""`finalizers -f`: which finalizers the objects of files carry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from kubectl_harvester_stuck.errors import StuckError, UnreadableError
from kubectl_harvester_stuck.harvester import finalizers
from kubectl_harvester_stuck.harvester.finalizer_catalogue import Finalizer
from kubectl_harvester_stuck.k8s.kinds import VM, VMI, Kind
from kubectl_harvester_stuck.k8s.objects import KubeObject, Unreadable
from kubectl_harvester_stuck.k8s.source import ListQuery, PartialListError, Source
from kubectl_harvester_stuck.listing.survey import missing


@dataclass(frozen=True)
class Carried:
    """A finalizer on `objects` objects of a kind, with the catalogue's entry where it has one."""

    name: str
    kind: Kind
    objects: int
    entry: Finalizer | None


def carried(
    source: Source, namespaces: Sequence[str | None]
) -> tuple[tuple[Carried, ...], tuple[Unreadable, ...]]:
    """Every finalizer on VMs and VMIs, by name, and what could not be read."""
    counts: Counter[tuple[str, Kind]] = Counter()
    gaps: dict[tuple[Kind, str | None], Unreadable] = {}
    for namespace in namespaces:
        for kind in (VM, VMI):
            try:
                items = source.list_objects(
                    ListQuery(kind, namespace, metadata_only=True), lambda _: True
                )
            except PartialListError as error:
                gaps.setdefault((kind, namespace), missing(kind, namespace, error))
                items = error.items
            except StuckError as error:
                gaps.setdefault((kind, namespace), missing(kind, namespace, error))
                continue
            for item in items:
                try:
                    counts.update((name, kind) for name in KubeObject.parse(kind, item).finalizers)
                except UnreadableError as error:
                    gaps.setdefault((kind, namespace), missing(kind, namespace, error))
    found = [
        Carried(name, kind, count, finalizers.find(name, kind))
        for (name, kind), count in sorted(
            counts.items(), key=lambda pair: (pair[0][0], pair[0][1].kind)
        )
    ]
    return tuple(found), tuple(gaps.values())
