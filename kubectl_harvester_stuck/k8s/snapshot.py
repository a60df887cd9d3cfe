"""What was read of a cluster at one time, and what could not be read.

"Could not read" is never "is not there": every accessor raises `UnreadableError` for what was
refused, failed, malformed or never asked for. Only a 404 is absence. No client, no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar

from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.k8s.kinds import SECRET, Kind
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef, Unreadable

Scope = tuple[Kind, str]
"""A kind in a namespace; "" stands for the whole cluster."""

Key = TypeVar("Key", bound=Hashable)


def _ref(item: KubeObject) -> ObjectRef:
    return item.ref


@dataclass(frozen=True)
class ClusterSnapshot:
    """Objects as they stood at `taken_at`, by the API server's clock.

    `listed` holds whole collections, `found` single objects (None: the server answered 404),
    `unreadable` the reason for whatever could not be had. `unserved` are the kinds that the API
    server does not know, of which there is no object.
    """

    taken_at: datetime
    listed: Mapping[Scope, tuple[KubeObject, ...]] = field(default_factory=dict)
    found: Mapping[ObjectRef, KubeObject | None] = field(default_factory=dict)
    unreadable: Mapping[Scope | ObjectRef, str] = field(default_factory=dict)
    unserved: frozenset[Kind] = frozenset()
    before: ClusterSnapshot | None = field(default=None, compare=False, repr=False)
    """The one that this is without some objects; what is the same in both is sorted there."""
    _sorted: dict[Any, dict[Any, list[KubeObject]]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    def all(self, kind: Kind, namespace: str = "") -> tuple[KubeObject, ...]:
        """Every object of `kind` in `namespace`, "" for all of them. Raises UnreadableError."""
        scope = (kind, namespace)
        if scope in self.listed:
            return self.listed[scope]
        where = f"{kind.resource} in {namespace}" if namespace else kind.resource
        raise UnreadableError(where, self.unreadable.get(scope, "not read"))

    def one(self, ref: ObjectRef) -> KubeObject | None:
        """The object, or None if the server said that there is none. Raises UnreadableError."""
        if ref in self.found:
            return self.found[ref]
        if ref in self.unreadable:
            raise UnreadableError(str(ref), self.unreadable[ref])
        return next(iter(self.sorted_by(_ref, ref.kind, ref.namespace).get(ref, ())), None)

    def sorted_by(
        self, key: Callable[[KubeObject], Key], kind: Kind, namespace: str = ""
    ) -> Mapping[Key, Sequence[KubeObject]]:
        """The objects of `kind` in `namespace` by what `key` says of each. Raises UnreadableError.

        Kept for those who ask again: many targets look for their own among the same objects.
        """
        scope = (kind, namespace)
        if self.before is not None and self.before.listed.get(scope) is self.listed.get(scope):
            return self.before.sorted_by(key, kind, namespace)
        found: dict[Key, list[KubeObject]] | None = self._sorted.get((key, scope))
        if found is None:
            found = {}
            for item in self.all(kind, namespace):
                found.setdefault(key(item), []).append(item)
            self._sorted[key, scope] = found
        return found

    @property
    def gaps(self) -> tuple[Unreadable, ...]:
        """Everything that could not be read, as it is named to the operator.

        But for what no role is meant to list: those who can do without it say so themselves.
        """
        return tuple(
            _gap(what, why)
            for what, why in self.unreadable.items()
            if isinstance(what, ObjectRef) or what[0] is not SECRET
        )

    def without(self, *gone: ObjectRef) -> ClusterSnapshot:
        """This snapshot as it will be once those objects are gone; used to judge later steps."""
        kinds = {ref.kind for ref in gone}
        return replace(
            self,
            listed={
                scope: tuple(item for item in items if item.ref not in gone)
                if scope[0] in kinds
                else items
                for scope, items in self.listed.items()
            },
            found={ref: None if ref in gone else item for ref, item in self.found.items()},
            before=self,
        )


def _gap(what: Scope | ObjectRef, why: str) -> Unreadable:
    if isinstance(what, ObjectRef):
        return Unreadable(f"{what.kind.resource}/{what.name}", what.namespace, "Unreadable", why)
    kind, namespace = what
    return Unreadable(
        kind.resource, (namespace or None) if kind.namespaced else "", "Unreadable", why
    )
