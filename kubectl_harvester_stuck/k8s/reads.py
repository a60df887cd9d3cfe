"""What a rule reads, declared at the rule: which kind, and where. The requests follow from it.

A rule is a guard, a finding, a check, or the judge of a finalizer. What none of them declares is
not requested, so a rule that looks at it is blind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.k8s.kinds import Kind
from kubectl_harvester_stuck.k8s.objects import ObjectRef
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot
from kubectl_harvester_stuck.k8s.source import ListQuery

EVERYWHERE = ""
"""In all namespaces at once."""

Found = Callable[[ClusterSnapshot], Iterable[str]]
"""The namespaces that other objects name, or `EVERYWHERE`. May raise UnreadableError."""


@dataclass(frozen=True)
class Read:
    """Objects of one kind that a rule looks at.

    `where` is a namespace, `EVERYWHERE`, or a function that finds namespaces in what was read
    before; None stands for the namespaces of the targets, or of the VMs that are checked.
    `name` limits it to one object, `labels` to those with a label. `metadata_only` says that
    nothing else of them is looked at. `own` limits it to what belongs to the target: the VM and
    the VMI of its name, its nodes, and the disks that go with it. Where few targets are read, those
    are requested by their names.
    """

    kind: Kind
    where: str | Found | None = None
    name: str = ""
    labels: str | None = None
    metadata_only: bool = False
    own: bool = False

    @property
    def is_near(self) -> bool:
        """Whether all objects of the kind in the namespaces of the targets are looked at."""
        return self.kind.namespaced and self.where is None and not (self.name or self.own)

    def namespaces(self, targets: Iterable[str | None]) -> Iterable[str | None]:
        """Where to list it, for targets in these namespaces; None stands for all of them."""
        if isinstance(self.where, str):
            return (self.where or None,)
        return targets if self.kind.namespaced else (None,)


def declared(*reads: Kind | Read) -> tuple[Read, ...]:
    """These reads; a kind alone stands for all of its objects around the targets."""
    return tuple(dict.fromkeys(read if isinstance(read, Read) else Read(read) for read in reads))


def metadata(*kinds: Kind) -> tuple[Read, ...]:
    """The metadata of all objects of these kinds around the targets."""
    return tuple(Read(kind, metadata_only=True) for kind in kinds)


def named(reads: Iterable[Read]) -> frozenset[ObjectRef]:
    """The single objects among the reads."""
    return frozenset(
        ObjectRef(read.where if isinstance(read.where, str) else "", read.name, read.kind)
        for read in reads
        if read.name
    )


def lists(reads: Iterable[Read], targets: Iterable[str | None]) -> list[ListQuery]:
    """The lists that hold all of the reads, each once, for targets in these namespaces.

    A list is requested in full, and without a label, where one rule needs that.
    """
    spaces = tuple(targets)
    return _merged(
        _query(read, namespace)
        for read in reads
        if not read.name and not callable(read.where)
        for namespace in read.namespaces(spaces)
    )


def lists_found(reads: Iterable[Read], snapshot: ClusterSnapshot) -> list[ListQuery]:
    """The lists in the namespaces that other objects name. What is not known of those is left."""
    return _merged(_found(reads, snapshot))


def _found(reads: Iterable[Read], snapshot: ClusterSnapshot) -> Iterator[ListQuery]:
    for read in reads:
        if callable(read.where):
            with suppress(UnreadableError):  # the rule will meet the same gap
                yield from [_query(read, place or None) for place in read.where(snapshot)]


def _query(read: Read, namespace: str | None) -> ListQuery:
    return ListQuery(read.kind, namespace, read.labels, metadata_only=read.metadata_only)


def _merged(queries: Iterable[ListQuery]) -> list[ListQuery]:
    merged: dict[tuple[Kind, str | None], ListQuery] = {}
    for query in queries:
        scope = (query.kind, query.namespace)
        other = merged.get(scope, query)
        merged[scope] = ListQuery(
            query.kind,
            query.namespace,
            query.labels if query.labels == other.labels else None,
            metadata_only=query.metadata_only and other.metadata_only,
        )
    return list(merged.values())
