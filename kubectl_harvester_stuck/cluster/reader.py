"""Everything around the named targets, in one or two rounds of parallel requests.

What fails is recorded as unreadable with its reason, so that the rest can be shown and every
decision that needs the missing part is blocked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from kubectl_harvester_stuck.cluster.client import Cluster
from kubectl_harvester_stuck.errors import (
    ApiError,
    StuckError,
    UnreachableError,
    UnreadableError,
)
from kubectl_harvester_stuck.harvester import finalizers, ownership, places, settings
from kubectl_harvester_stuck.harvester.target import Target
from kubectl_harvester_stuck.k8s.kinds import (
    API_SERVICE,
    CONTROLLER_REVISION,
    DAEMON_SET,
    DATA_VOLUME,
    DEPLOYMENT,
    EVENT,
    HARVESTER_NAMESPACE,
    JOB,
    LEASE,
    LEASE_NAMESPACE,
    LOAD_BALANCER,
    LONGHORN_ATTACHMENT,
    LONGHORN_NAMESPACE,
    LONGHORN_ORPHAN,
    LONGHORN_VOLUME,
    MIGRATION,
    NETWORK,
    NETWORK_CONFIG,
    NODE,
    PCI_CLAIM,
    PCI_DEVICE,
    POD,
    PV,
    PVC,
    RESOURCE_QUOTA,
    UPGRADE,
    USB_CLAIM,
    USB_DEVICE,
    VM,
    VM_BACKUP,
    VM_RESTORE,
    VMI,
    VOLUME_ATTACHMENT,
    VOLUME_SNAPSHOT,
    Kind,
)
from kubectl_harvester_stuck.k8s.nesting import TooDeepObject
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot, Scope
from kubectl_harvester_stuck.k8s.source import (
    PARALLEL_REQUESTS,
    ListQuery,
    PartialListError,
    Source,
)

VIRT_HANDLERS = "kubevirt.io=virt-handler"


def in_depth(source: Source, targets: Iterable[ObjectRef]) -> ClusterSnapshot:
    """Everything that a diagnosis of these targets, or a look at their leftovers, depends on.

    The number of requests depends on the kinds and namespaces alone. Raises UnreachableError when
    the API server is.
    """
    wanted = tuple(targets)
    namespaces = sorted({ref.namespace for ref in wanted})
    reader = Reader(source)
    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        reader.read(
            pool,
            {settings.ref(settings.FORCE_RESET)},
            _depth(namespaces),
        )
        both = {ObjectRef(ref.namespace, ref.name, kind) for ref in wanted for kind in (VM, VMI)}
        reader.read(pool, *_to_judge(reader, reader.there(both), namespaces))
    return reader.snapshot()


def around(
    cluster: Cluster,
    targets: Iterable[ObjectRef],
    kinds: Iterable[Kind],
    nodes: Iterable[str] = (),
) -> ClusterSnapshot:
    """Everything that a plan for these targets depends on.

    `kinds` are those that the guards look at, `nodes` those that count although no target may be
    seen to run there. The number of requests depends on the kinds,
    namespaces and nodes involved, apart from the VM and the VMI of each target and from the disks
    that would go with it. Raises UnreachableError when the API server is.
    """
    wanted = tuple(targets)
    reader = Reader(cluster)
    namespaces = sorted({ref.namespace for ref in wanted})
    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        both = {ObjectRef(ref.namespace, ref.name, kind) for ref in wanted for kind in (VM, VMI)}
        selections = [
            ListQuery(kind, namespace) for namespace in namespaces for kind in (POD, MIGRATION)
        ]
        if HARVESTER_NAMESPACE not in namespaces:
            selections.append(ListQuery(POD, HARVESTER_NAMESPACE, labels=VIRT_HANDLERS))
        reader.read(pool, both, selections)
        snapshot = reader.snapshot()
        names = {name for ref in wanted for name in _nodes(Target(ref, snapshot))}.union(nodes)
        also = frozenset(kinds) - _READ_BY_ITSELF
        refs, lists = _to_judge(reader, reader.there(both), namespaces, also)
        reader.read(
            pool,
            {ObjectRef("", name, NODE) for name in names}
            | {ObjectRef(LEASE_NAMESPACE, name, LEASE) for name in names}
            | refs,
            lists,
        )
        _read_what_goes(reader, pool, wanted)
    return reader.snapshot()


_READ_BY_ITSELF = frozenset({VM, VMI, POD, MIGRATION, NODE, LEASE, PV})
"""Kinds of which not the whole list in the targets' namespaces is read, or not there."""


def _read_what_goes(
    reader: Reader, pool: ThreadPoolExecutor, targets: tuple[ObjectRef, ...]
) -> None:
    """The disks that would go with the targets, their volumes, and owners not known yet."""
    asked: set[ObjectRef] = set()
    while True:
        snapshot = reader.snapshot()
        cases = [Target(ref, snapshot) for ref in targets]
        more = {
            ref for case in cases for ref in ownership.to_read(case, ownership.follow(case))
        } - asked.union(snapshot.found, snapshot.unreadable)
        if not more:
            return
        reader.read(pool, more, [])
        asked |= more


def before_restore(cluster: Cluster, ref: ObjectRef, claims: Iterable[str]) -> ClusterSnapshot:
    """Everything that making the VM `ref` again depends on.

    Raises UnreachableError when the API server is.
    """
    reader = Reader(cluster)
    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        reader.read(
            pool,
            {ObjectRef(ref.namespace, ref.name, kind) for kind in (VM, VMI)}
            | {ObjectRef(ref.namespace, name, PVC) for name in claims},
            [ListQuery(kind, ref.namespace) for kind in (POD, VM, VMI)],
        )
    return reader.snapshot()


def _depth(namespaces: list[str]) -> list[ListQuery]:
    """What a diagnosis reads: the same lists, however many targets there are."""
    return [
        *(ListQuery(POD, namespace) for namespace in sorted({*namespaces, HARVESTER_NAMESPACE})),
        *(
            ListQuery(kind, namespace)
            for namespace in namespaces
            for kind in (VM, VMI, MIGRATION, PVC, VM_BACKUP, VM_RESTORE, JOB, LOAD_BALANCER, EVENT)
        ),
        *(
            ListQuery(kind, namespace, metadata_only=True)
            for namespace in namespaces
            for kind in (DATA_VOLUME, CONTROLLER_REVISION, VOLUME_SNAPSHOT, NETWORK_CONFIG)
        ),
        *(ListQuery(RESOURCE_QUOTA, namespace) for namespace in namespaces),
        ListQuery(NODE),
        ListQuery(LEASE, LEASE_NAMESPACE),
        ListQuery(VM_BACKUP),
        ListQuery(NETWORK, metadata_only=True),
        ListQuery(PCI_DEVICE),
        ListQuery(PCI_CLAIM),
        ListQuery(USB_CLAIM),
        ListQuery(LONGHORN_ORPHAN, LONGHORN_NAMESPACE),
        ListQuery(USB_DEVICE),
        ListQuery(API_SERVICE),
        ListQuery(PV),
        ListQuery(VOLUME_ATTACHMENT),
        ListQuery(LONGHORN_VOLUME, LONGHORN_NAMESPACE),
        ListQuery(LONGHORN_ATTACHMENT, LONGHORN_NAMESPACE),
        ListQuery(DEPLOYMENT, HARVESTER_NAMESPACE),
        ListQuery(DAEMON_SET, HARVESTER_NAMESPACE),
        ListQuery(UPGRADE, HARVESTER_NAMESPACE),
    ]


def _to_judge(
    reader: Reader,
    subjects: Iterable[KubeObject],
    namespaces: list[str],
    also: frozenset[Kind] = frozenset(),
) -> tuple[set[ObjectRef], list[ListQuery]]:
    """What the finalizers of these objects depend on, and `also`, as far as it was not read yet."""
    needs = finalizers.needs(subjects)
    scopes = [(kind, namespace) for kind in needs.kinds | also for namespace in namespaces]
    scopes += [(kind, "") for kind in needs.everywhere]
    return {settings.ref(name) for name in needs.settings}, [
        ListQuery(kind, namespace or None, metadata_only=kind.metadata_only)
        for kind, namespace in sorted(scopes, key=lambda scope: (scope[0].resource, scope[1]))
        if not reader.asked(kind, namespace)
    ]


def _nodes(case: Target) -> tuple[str, ...]:
    try:
        held = {pod.text("spec", "nodeName") for pod in case.attachment_pods} - {""}
        return tuple({*places.nodes(case), *held})
    except UnreadableError:
        return ()  # the guard that needs them will meet the same gap


def everything(_: Any) -> bool:
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


def _wanted(selection: ListQuery) -> Callable[[Any], bool]:
    is_users = selection.kind is POD and selection.namespace != HARVESTER_NAMESPACE
    return _is_of_kubevirt if is_users else everything


class Reader:
    """Collects the answers and the failures of many reads.

    With `strict` one object that is malformed makes its list unknown.
    """

    def __init__(self, source: Source, *, strict: bool = False) -> None:
        self._source = source
        self._strict = strict
        self._listed: dict[Scope, tuple[KubeObject, ...]] = {}
        self._found: dict[ObjectRef, KubeObject | None] = {}
        self._unreadable: dict[Scope | ObjectRef, str] = {}

    def read(
        self,
        pool: ThreadPoolExecutor,
        refs: Iterable[ObjectRef],
        selections: Iterable[ListQuery],
        *,
        wanted: Callable[[ListQuery], Callable[[Any], bool]] = _wanted,
    ) -> None:
        """Get the objects and list the selections, all at once."""
        gets = {ref: pool.submit(self._source.get, ref) for ref in refs}
        lists = {
            item: pool.submit(self._source.list_objects, item, wanted(item)) for item in selections
        }
        for ref, one in gets.items():
            try:
                body = one.result()
                self._found[ref] = None if body is None else KubeObject.parse_as(ref, body)
            except StuckError as error:
                self._fail(ref, error)
        for item, many in lists.items():
            scope = (item.kind, item.namespace or "")
            bodies: list[Any] = []
            try:
                bodies = many.result()
                self._listed[scope] = self._parsed(item.kind, bodies)
            except ApiError as error:
                if error.is_unserved and item.kind.optional:
                    self._listed[scope] = ()
                else:
                    self._fail(scope, error)
            except StuckError as error:
                # One object that cannot be read makes the list unknown, but hides no other.
                self._keep(
                    item.kind, error.items if isinstance(error, PartialListError) else bodies
                )
                self._fail(scope, error)

    def _parsed(self, kind: Kind, bodies: Iterable[Any]) -> tuple[KubeObject, ...]:
        """The objects of a list. One that is malformed is named, and stops nothing by itself.

        Raises UnreadableError where an object does not even tell to which others it belongs, or
        where malformed ones make the list unknown.
        """
        if self._strict:
            return tuple(KubeObject.parse(kind, body) for body in bodies)
        found = tuple(KubeObject.identify(kind, body) for body in bodies)
        for item in found:
            if item.malformed:
                self._unreadable[item.ref] = f"{item.ref}: {item.malformed}"
        return found

    def _keep(self, kind: Kind, items: Iterable[Any]) -> None:
        """Objects that are known, although not all of their kind are."""
        for item in items:
            with suppress(UnreadableError):
                part = KubeObject.parse(kind, item)
                self._found[part.ref] = part

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

    def asked(self, kind: Kind, namespace: str) -> bool:
        """Whether this list was asked for already, in vain or not."""
        return (kind, namespace) in self._listed or (kind, namespace) in self._unreadable

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
            self._source.now, dict(self._listed), dict(self._found), dict(self._unreadable)
        )
