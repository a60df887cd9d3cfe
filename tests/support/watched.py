"""A snapshot that keeps account of what is looked at, to hold it against what rules declare."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.k8s.kinds import Kind
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef
from kubectl_harvester_stuck.k8s.reads import Read
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot

METADATA = ("apiVersion", "kind", "metadata")


@dataclass(frozen=True)
class Touch:
    """One look at the snapshot that was answered."""

    kind: Kind
    namespace: str
    name: str | None = None
    """None for all of them."""
    in_full: bool = False
    """Whether more than metadata was looked at."""

    def __str__(self) -> str:
        where = f" in {self.namespace or 'all namespaces'}" if self.kind.namespaced else ""
        what = f"{'all' if self.name is None else 'one'} of {self.kind.resource}{where}"
        return f"{what}, {'spec or status' if self.in_full else 'metadata'}"

    def is_of(self, read: Read, target: str) -> bool:
        """Whether a rule that declares `read` may look there, for a target in that namespace."""
        if read.kind is not self.kind or (self.in_full and read.metadata_only):
            return False
        if read.name:
            return self.name == read.name
        if callable(read.where):
            return True
        # That all are looked at is a look of its own, in which nothing but metadata counts.
        is_one = self.name is not None or self.in_full
        spaces = {name or "" for name in read.namespaces((target,))}
        return self.namespace in spaces and (is_one or not read.own)


class Body(dict[str, Any]):
    """The body of an object; whoever looks beyond its metadata is heard."""

    def __init__(self, body: Any, heard: Callable[[], object]) -> None:
        super().__init__(body)
        self._heard = heard

    def get(self, key: str, default: Any = None) -> Any:
        if key not in METADATA:
            self._heard()
        return super().get(key, default)


@dataclass(frozen=True)
class Watched(ClusterSnapshot):
    """A snapshot that keeps account of every look that it answers."""

    seen: set[Touch] = field(default_factory=set)

    def all(self, kind: Kind, namespace: str = "") -> tuple[KubeObject, ...]:
        found = super().all(kind, namespace)
        touch = Touch(kind, namespace)
        self.seen.add(touch)
        return tuple(self._heard(item, touch) for item in found)

    def one(self, ref: ObjectRef) -> KubeObject | None:
        plain = ClusterSnapshot(self.taken_at, self.listed, self.found, self.unreadable)
        found = plain.one(ref)
        touch = Touch(ref.kind, ref.namespace, ref.name)
        self.seen.add(touch)
        return self._heard(found, touch) if found is not None else None

    def _heard(self, item: KubeObject, touch: Touch) -> KubeObject:
        if type(item.body) is not dict:
            return item
        full = replace(touch, in_full=True)
        return replace(item, body=Body(item.body, lambda: self.seen.add(full)))


def watched(snapshot: ClusterSnapshot) -> Watched:
    """The same snapshot, watched."""
    return Watched(snapshot.taken_at, snapshot.listed, snapshot.found, snapshot.unreadable)


def looks(snapshot: ClusterSnapshot, rule: Callable[[ClusterSnapshot], object]) -> Iterator[Touch]:
    """Where a rule looks in this snapshot."""
    seen = watched(snapshot)
    with suppress(UnreadableError):
        rule(seen)
    yield from seen.seen


def undeclared(touches: Iterable[tuple[str, Touch]], reads: Iterable[Read]) -> list[str]:
    """Looks that no read allows; with each goes the namespace of its target."""
    allowed = tuple(reads)
    return sorted(
        {
            str(touch)
            for target, touch in touches
            if not any(touch.is_of(read, target) for read in allowed)
        }
    )


def idle(touches: Iterable[tuple[str, Touch]], reads: Iterable[Read]) -> list[str]:
    """Reads that no look needs."""
    seen = tuple(touches)
    return [
        f"{read.kind.resource} {'own' if read.own else read.where}"
        for read in reads
        if not any(touch.is_of(read, target) for target, touch in seen)
    ]
