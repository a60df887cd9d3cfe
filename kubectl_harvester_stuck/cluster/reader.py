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
from kubectl_harvester_stuck.errors import ApiError, StuckError, UnreachableError, UnreadableError
from kubectl_harvester_stuck.harvester import finalizers, settings
from kubectl_harvester_stuck.harvester.target import Case
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
from kubectl_harvester_stuck.k8s.objects import Object, Ref
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot, Scope
from kubectl_harvester_stuck.k8s.source import PARALLEL_REQUESTS, PartlyReadError, Selection, Source

VIRT_HANDLERS = "kubevirt.io=virt-handler"


def in_depth(source: Source, targets: Iterable[Ref]) -> ClusterSnapshot:
    """Everything that a diagnosis of these targets, or a look at their leftovers, depends on.

    The number of requests depends on the kinds and namespaces alone. Raises UnreachableError when
    the API server is.
    """
    reader = Reader(source)
    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        reader.read(
            pool,
            {settings.ref(settings.FORCE_RESET)},
            _depth(sorted({ref.namespace for ref in targets})),
        )
    return reader.snapshot()


def around(cluster: Cluster, targets: Iterable[Ref]) -> ClusterSnapshot:
    """Everything that a plan for these targets depends on.

    The number of requests depends on the kinds, namespaces and nodes involved, apart from the
    VM and the VMI of each target. Raises UnreachableError when the API server is.
    """
    wanted = tuple(targets)
    reader = Reader(cluster)
    namespaces = sorted({ref.namespace for ref in wanted})
    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        both = {Ref(ref.namespace, ref.name, kind) for ref in wanted for kind in (VM, VMI)}
        selections = [
            Selection(kind, namespace) for namespace in namespaces for kind in (POD, MIGRATION)
        ]
        if HARVESTER_NAMESPACE not in namespaces:
            selections.append(Selection(POD, HARVESTER_NAMESPACE, labels=VIRT_HANDLERS))
        reader.read(pool, both, selections)
        snapshot = reader.snapshot()
        nodes = {name for ref in wanted for name in _nodes(Case(ref, snapshot))}
        subjects = tuple(item for item in snapshot.found.values() if item is not None)
        reader.read(
            pool,
            {Ref("", name, NODE) for name in nodes}
            | {Ref(LEASE_NAMESPACE, name, LEASE) for name in nodes},
            [
                Selection(kind, namespace, metadata_only=kind.metadata_only)
                for namespace in namespaces
                for kind in sorted(finalizers.kinds_needed(subjects), key=lambda kind: kind.plural)
            ],
        )
    return reader.snapshot()


def before_restore(cluster: Cluster, ref: Ref, claims: Iterable[str]) -> ClusterSnapshot:
    """Everything that making the VM `ref` again depends on.

    Raises UnreachableError when the API server is.
    """
    reader = Reader(cluster)
    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        reader.read(
            pool,
            {Ref(ref.namespace, ref.name, kind) for kind in (VM, VMI)}
            | {Ref(ref.namespace, name, PVC) for name in claims},
            [Selection(kind, ref.namespace) for kind in (POD, VM, VMI)],
        )
    return reader.snapshot()


def _depth(namespaces: list[str]) -> list[Selection]:
    """What a diagnosis reads: the same lists, however many targets there are."""
    return [
        *(Selection(POD, namespace) for namespace in sorted({*namespaces, HARVESTER_NAMESPACE})),
        *(
            Selection(kind, namespace)
            for namespace in namespaces
            for kind in (VM, VMI, MIGRATION, PVC, VM_BACKUP, VM_RESTORE, JOB, LOAD_BALANCER, EVENT)
        ),
        *(
            Selection(kind, namespace, metadata_only=True)
            for namespace in namespaces
            for kind in (DATA_VOLUME, CONTROLLER_REVISION, VOLUME_SNAPSHOT, NETWORK_CONFIG)
        ),
        *(Selection(RESOURCE_QUOTA, namespace) for namespace in namespaces),
        Selection(NODE),
        Selection(LEASE, LEASE_NAMESPACE),
        Selection(VM_BACKUP),
        Selection(NETWORK, metadata_only=True),
        Selection(PCI_DEVICE),
        Selection(PCI_CLAIM),
        Selection(USB_CLAIM),
        Selection(LONGHORN_ORPHAN, LONGHORN_NAMESPACE),
        Selection(USB_DEVICE),
        Selection(API_SERVICE),
        Selection(PV),
        Selection(VOLUME_ATTACHMENT),
        Selection(LONGHORN_VOLUME, LONGHORN_NAMESPACE),
        Selection(LONGHORN_ATTACHMENT, LONGHORN_NAMESPACE),
        Selection(DEPLOYMENT, HARVESTER_NAMESPACE),
        Selection(DAEMON_SET, HARVESTER_NAMESPACE),
        Selection(UPGRADE, HARVESTER_NAMESPACE),
    ]


def _nodes(case: Case) -> tuple[str, ...]:
    try:
        return case.nodes
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
    text = f"{meta.get('labels')} {meta.get('annotations')} {meta.get('ownerReferences')}"
    return "kubevirt.io" in text or "harvesterhci.io" in text


def _wanted(selection: Selection) -> Callable[[Any], bool]:
    is_users = selection.kind is POD and selection.namespace != HARVESTER_NAMESPACE
    return _is_of_kubevirt if is_users else everything


class Reader:
    """Collects the answers and the failures of many reads."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._listed: dict[Scope, tuple[Object, ...]] = {}
        self._found: dict[Ref, Object | None] = {}
        self._unreadable: dict[Scope | Ref, str] = {}

    def read(
        self,
        pool: ThreadPoolExecutor,
        refs: Iterable[Ref],
        selections: Iterable[Selection],
        *,
        wanted: Callable[[Selection], Callable[[Any], bool]] = _wanted,
    ) -> None:
        """Get the objects and list the selections, all at once."""
        gets = {ref: pool.submit(self._source.get, ref) for ref in refs}
        lists = {item: pool.submit(self._source.items, item, wanted(item)) for item in selections}
        for ref, one in gets.items():
            try:
                body = one.result()
                self._found[ref] = None if body is None else Object.parse_as(ref, body)
            except StuckError as error:
                self._fail(ref, error)
        for item, many in lists.items():
            scope = (item.kind, item.namespace or "")
            bodies: list[Any] = []
            try:
                bodies = many.result()
                self._listed[scope] = tuple(Object.parse(item.kind, one) for one in bodies)
            except ApiError as error:
                if error.is_unserved and item.kind.optional:
                    self._listed[scope] = ()
                else:
                    self._fail(scope, error)
            except StuckError as error:
                # One object that cannot be read makes the list unknown, but hides no other.
                self._keep(item.kind, error.items if isinstance(error, PartlyReadError) else bodies)
                self._fail(scope, error)

    def _keep(self, kind: Kind, items: Iterable[Any]) -> None:
        """Objects that are known, although not all of their kind are."""
        for item in items:
            with suppress(UnreadableError):
                part = Object.parse(kind, item)
                self._found[part.ref] = part

    def _fail(self, what: Scope | Ref, error: StuckError) -> None:
        if isinstance(error, UnreachableError):
            raise error
        why = str(error)
        if isinstance(error, PartlyReadError) or (
            isinstance(error, UnreadableError) and isinstance(what, Ref)
        ):
            why = error.why
        elif isinstance(error, UnreadableError):
            why = f"{error.what}: {error.why}"  # which of the objects in the list
        self._unreadable[what] = why

    def snapshot(self) -> ClusterSnapshot:
        """What has been read so far."""
        return ClusterSnapshot(
            self._source.now, dict(self._listed), dict(self._found), dict(self._unreadable)
        )
