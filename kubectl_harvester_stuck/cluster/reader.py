"""Everything around the named targets, in one or two rounds of parallel requests.

What fails is recorded as unreadable with its reason, so that the rest can be shown and every
decision that needs the missing part is blocked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from kubectl_harvester_stuck.cluster.client import Cluster
from kubectl_harvester_stuck.cluster.shared_reads import SharedReads
from kubectl_harvester_stuck.errors import ApiError, StuckError, UnreachableError, UnreadableError
from kubectl_harvester_stuck.harvester import finalizers, goes_with_vm, harmless, places
from kubectl_harvester_stuck.harvester.target import Target, normal_mac
from kubectl_harvester_stuck.k8s.kinds import (
    HARVESTER_NAMESPACE,
    LEASE,
    NODE,
    POD,
    PV,
    PVC,
    VM,
    VMI,
    Kind,
)
from kubectl_harvester_stuck.k8s.nesting import TooDeepObject
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef
from kubectl_harvester_stuck.k8s.reads import Read, lists, lists_found, named
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot, Scope
from kubectl_harvester_stuck.k8s.source import (
    Glimpse,
    ListQuery,
    PartialListError,
    Source,
)

_BY_NAME = frozenset({VM, VMI, NODE, LEASE, PVC, PV})
"""Kinds of which a plan gets what belongs to its targets by name, instead of listing all."""


def in_depth(
    source: Source, targets: Iterable[ObjectRef], reads: Iterable[Read]
) -> ClusterSnapshot:
    """Everything that rules look at around these targets, and the judges of their finalizers.

    `reads` are those of the rules; those by which advice is checked are added. The number of
    requests depends on the kinds and namespaces alone. Raises UnreachableError when the API server
    is.
    """
    wanted, rules = tuple(targets), (*reads, *harmless.reads())
    namespaces = sorted({ref.namespace for ref in wanted})
    with SharedReads() as shared:
        reader = Reader(source, shared)
        reader.read(named(rules), lists(rules, namespaces))
        judges = finalizers.reads(reader.there(_machines(wanted)))
        reader.read(*reader.unread(judges, namespaces))
        reader.read((), reader.unread_elsewhere((*rules, *judges)))
    return reader.snapshot()


def around(
    cluster: Cluster,
    targets: Iterable[ObjectRef],
    reads: Iterable[Read],
    nodes: Iterable[str] = (),
    *,
    shared: SharedReads,
) -> ClusterSnapshot:
    """Everything that a plan for these targets depends on.

    `reads` are those of the guards, `nodes` those that count although no target may be
    seen to run there. The number of requests depends on the kinds,
    namespaces and nodes involved, apart from the VM and the VMI of each target and from the disks
    that would go with it; looks at the same time share them through `shared`. Raises
    UnreachableError when the API server is.
    """
    wanted, rules = tuple(targets), tuple(reads)
    reader = Reader(cluster, shared)
    namespaces = sorted({ref.namespace for ref in wanted})
    machines = _machines(wanted)
    reader.read(machines | named(rules), lists(_to_list(rules), namespaces))
    snapshot = reader.snapshot()
    names = {name for ref in wanted for name in _nodes(Target(ref, snapshot))}.union(nodes)
    judges = finalizers.reads(reader.there(machines))
    reader.read(*reader.unread(_to_list(judges), namespaces))
    reader.read((), reader.unread_elsewhere((*rules, *judges)))
    _read_what_goes(reader, wanted)
    # Last, for the snapshot is taken at the time of its end: a look that takes long must not make a
    # node seem silent for as long.
    reader.read(_of_nodes(rules, names), ())
    return reader.snapshot()


def _machines(targets: Iterable[ObjectRef]) -> set[ObjectRef]:
    return {ObjectRef(ref.namespace, ref.name, kind) for ref in targets for kind in (VM, VMI)}


def _to_list(reads: Iterable[Read]) -> list[Read]:
    return [read for read in reads if not (read.own and read.kind in _BY_NAME)]


def _of_nodes(reads: Iterable[Read], names: Iterable[str]) -> set[ObjectRef]:
    """What says how these nodes are, as far as a rule looks at it."""
    found = (read for read in reads if read.own and read.kind in (NODE, LEASE))
    return {
        ObjectRef(namespace or "", name, read.kind)
        for read in found
        for namespace in read.namespaces(())
        for name in names
    }


def _read_what_goes(reader: Reader, targets: tuple[ObjectRef, ...]) -> None:
    """The disks that would go with the targets, their volumes, and owners not known yet."""
    asked: set[ObjectRef] = set()
    while True:
        snapshot = reader.snapshot()
        targets_read = [Target(ref, snapshot) for ref in targets]
        more = {
            ref
            for target in targets_read
            for ref in goes_with_vm.to_read(target, goes_with_vm.follow(target))
        } - asked.union(snapshot.found, snapshot.unreadable)
        if not more:
            return
        reader.read(more, [])
        asked |= more


def before_restore(cluster: Cluster, ref: ObjectRef, claims: Iterable[str]) -> ClusterSnapshot:
    """Everything that making the VM `ref` again depends on.

    Raises UnreachableError when the API server is.
    """
    with SharedReads() as shared:
        reader = Reader(cluster, shared)
        reader.read(
            {ObjectRef(ref.namespace, ref.name, kind) for kind in (VM, VMI)}
            | {ObjectRef(ref.namespace, name, PVC) for name in claims},
            [ListQuery(kind, ref.namespace) for kind in (POD, VM, VMI)],
            every_pod=True,  # any of them can use a disk
        )
    return reader.snapshot()


def naming(cluster: Cluster, addresses: Iterable[str]) -> ClusterSnapshot:
    """All VMs and VMIs of the cluster that hold one of these MAC addresses, and maybe others.

    Raises UnreachableError when the API server is.
    """
    wanted = tuple(addresses)

    def names_one(text: bytes) -> bool:
        return any(address in normal_mac(text.decode(errors="replace")) for address in wanted)

    with SharedReads() as shared:
        reader = Reader(cluster, shared)
        reader.read((), [ListQuery(kind, hint=names_one) for kind in (VM, VMI)])
    return reader.snapshot()


def _nodes(target: Target) -> tuple[str, ...]:
    try:
        held = {pod.text("spec", "nodeName") for pod in target.attachment_pods} - {""}
        return tuple({*places.nodes(target), *held})
    except UnreadableError:
        return ()  # the guard that needs them will meet the same gap


def _everything(_: Any) -> bool:
    return True


def _is_of_kubevirt(pod: Any) -> bool:
    """Whether a pod may run a guest or is virt-handler; other workloads are let go at once.

    A pod that cannot be read is kept, so that it is named and blocks.
    """
    meta = pod.get("metadata") if isinstance(pod, Mapping) else None
    if not isinstance(meta, Mapping):
        return True
    if isinstance(pod, TooDeepObject) and not pod.metadata_is_whole:
        return True
    text = f"{meta.get('labels')} {meta.get('annotations')} {meta.get('ownerReferences')}"
    return "kubevirt.io" in text or "harvesterhci.io" in text


def _may_be_of_kubevirt(seen: Glimpse) -> bool:
    """The same of a pod that is not decoded yet, wherever it says so."""
    return b"kubevirt.io" in seen.text or b"harvesterhci.io" in seen.text


def _narrowed(selection: ListQuery) -> tuple[ListQuery, Callable[[Any], bool]]:
    """The list without the pods of users that have nothing to do with a guest."""
    if selection.kind is POD and selection.namespace != HARVESTER_NAMESPACE:
        return replace(selection, matters=_may_be_of_kubevirt), _is_of_kubevirt
    return selection, _everything


def _whole(selection: ListQuery) -> tuple[ListQuery, Callable[[Any], bool]]:
    return selection, _everything


class _Listed(NamedTuple):
    """The objects of a list; with an error, those that are known although not all are."""

    items: tuple[KubeObject, ...]
    error: StuckError | None = None


def _readable(kind: Kind, bodies: Iterable[Any]) -> Iterator[KubeObject]:
    for body in bodies:
        with suppress(UnreadableError):
            yield KubeObject.parse(kind, body)


class Reader:
    """Collects the answers and the failures of many reads, which run in `shared`.

    With `strict` one object that is malformed makes its list unknown.
    """

    def __init__(self, source: Source, shared: SharedReads, *, strict: bool = False) -> None:
        self._source = source
        self._shared = shared
        self._strict = strict
        self._listed: dict[Scope, tuple[KubeObject, ...]] = {}
        self._found: dict[ObjectRef, KubeObject | None] = {}
        self._unreadable: dict[Scope | ObjectRef, str] = {}
        self._unserved: set[Kind] = set()
        self._asked: dict[Scope, ListQuery] = {}

    def read(
        self,
        refs: Iterable[ObjectRef],
        selections: Iterable[ListQuery],
        *,
        every_pod: bool = False,
    ) -> None:
        """Get the objects and list the selections, all at once.

        Of the pods of users only those of guests are kept, unless `every_pod` is asked for.
        """
        selections = tuple(selections)
        self._asked |= {(item.kind, item.namespace or ""): item for item in selections}
        submit, get = self._shared.submit, self._source.get
        gets = {ref: submit(ref, partial(get, ref)) for ref in refs}
        narrowed = _whole if every_pod else _narrowed
        lists = {
            item: submit((item, every_pod, self._strict), partial(self._list, *narrowed(item)))
            for item in selections
        }
        for ref, one in gets.items():
            try:
                body = one.result()
                self._found[ref] = None if body is None else KubeObject.parse_as(ref, body)
            except StuckError as error:
                self._fail(ref, error)
        for item, many in lists.items():
            self._take(item, many.result())

    def _list(self, selection: ListQuery, keep: Callable[[Any], bool]) -> _Listed:
        """A list, read and parsed."""
        bodies: list[Any] = []
        try:
            bodies = self._source.list_objects(selection, keep)
            return _Listed(self._parsed(selection.kind, bodies))
        except ApiError as error:
            return _Listed((), error)
        except StuckError as error:
            # One object that cannot be read makes the list unknown, but hides no other.
            items = error.items if isinstance(error, PartialListError) else bodies
            return _Listed(tuple(_readable(selection.kind, items)), error)

    def _take(self, selection: ListQuery, listed: _Listed) -> None:
        """Note what a list has given. Raises UnreachableError."""
        scope = (selection.kind, selection.namespace or "")
        error = listed.error
        if error is None:
            self._listed[scope] = listed.items
            for item in listed.items:
                if item.malformed:
                    self._unreadable[item.ref] = f"{item.ref}: {item.malformed}"
        elif isinstance(error, ApiError) and error.is_unserved and selection.kind.optional:
            self._listed[scope] = ()
            self._unserved.add(selection.kind)
        else:
            self._found |= {item.ref: item for item in listed.items}
            self._fail(scope, error)

    def _parsed(self, kind: Kind, bodies: Iterable[Any]) -> tuple[KubeObject, ...]:
        """The objects of a list. One that is malformed is named, and stops nothing by itself.

        Raises UnreadableError where an object does not even tell to which others it belongs, or
        where malformed ones make the list unknown.
        """
        parse = KubeObject.parse if self._strict else KubeObject.identify
        return tuple(parse(kind, body) for body in bodies)

    def _fail(self, what: Scope | ObjectRef, error: StuckError) -> None:
        if isinstance(error, UnreachableError):
            raise error
        why = str(error)
        if isinstance(error, PartialListError) or (
            isinstance(error, UnreadableError) and isinstance(what, ObjectRef)
        ):
            why = error.why
        elif isinstance(error, UnreadableError):
            why = f"{error.what}: {error.why}"  # which of the objects in the list
        self._unreadable[what] = why

    def unread(
        self, reads: Iterable[Read], namespaces: Iterable[str]
    ) -> tuple[set[ObjectRef], list[ListQuery]]:
        """What of these was not asked for yet, in vain or not, or not in full."""
        rules = tuple(reads)
        refs = named(rules) - self._found.keys() - self._unreadable.keys()
        return set(refs), [item for item in lists(rules, namespaces) if not self._covers(item)]

    def unread_elsewhere(self, reads: Iterable[Read]) -> list[ListQuery]:
        """The same, of what is in namespaces that only other objects name."""
        return [item for item in lists_found(reads, self.snapshot()) if not self._covers(item)]

    def _covers(self, wanted: ListQuery) -> bool:
        asked = self._asked.get((wanted.kind, wanted.namespace or ""))
        return (
            asked is not None
            and asked.labels in (None, wanted.labels)
            and (wanted.metadata_only or not asked.metadata_only)
        )

    def there(self, refs: Iterable[ObjectRef]) -> tuple[KubeObject, ...]:
        """Those of these objects that are known to be there."""
        snapshot = self.snapshot()
        found = []
        for ref in refs:
            with suppress(UnreadableError):
                found.append(snapshot.one(ref))
        return tuple(item for item in found if item is not None)

    def snapshot(self) -> ClusterSnapshot:
        """What has been read so far."""
        return ClusterSnapshot(
            self._source.now,
            dict(self._listed),
            dict(self._found),
            dict(self._unreadable),
            frozenset(self._unserved),
        )
