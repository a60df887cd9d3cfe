"""`list`: what is stuck, found with three lists of metadata, however large the cluster is.

What cannot be read is named in the answer; an empty answer is "all clear" only when nothing is
missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from kubectl_harvester_stuck.errors import ApiError, StuckError, UnreachableError, UnreadableError
from kubectl_harvester_stuck.harvester.target import State, Target
from kubectl_harvester_stuck.k8s.kinds import POD, VM, VMI, Kind
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef, Unreadable
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot, Scope
from kubectl_harvester_stuck.k8s.source import (
    PARALLEL_REQUESTS,
    ListQuery,
    PartialListError,
    Source,
)
from kubectl_harvester_stuck.listing.model import Listing, StuckObject

LAUNCHERS = "kubevirt.io=virt-launcher"


def stuck(
    source: Source,
    *,
    kinds: frozenset[Kind],
    namespaces: Sequence[str | None],
    labels: str | None = None,
    older_than: timedelta = timedelta(0),
) -> Listing:
    """What is stuck in `namespaces` (None: everywhere), oldest first within each namespace.

    Three metadata-only lists each, in parallel; full objects only for what hangs. `labels` selects
    among the rows' own objects and is left to the API server. Whatever cannot be read is in
    `missing`. Raises UnreachableError when nothing could be read because the server is not there.
    """
    finder = _Finder(source, namespaces)
    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        finder.read_lists(pool)
        finder.read_objects(pool)
        snapshot = finder.snapshot()
        rows = [row for key in sorted(finder.keys) for row in _rows(*key, snapshot, finder)]
        rows = [row for row in rows if row.ref.kind in kinds]
        if labels:
            chosen = pool.map(lambda row: finder.is_selected(row.ref, labels), rows)
            rows = [row for row, is_selected in zip(rows, chosen, strict=True) if is_selected]
    rows = [row for row in rows if snapshot.taken_at - row.since >= older_than]
    rows.sort(key=lambda row: (row.ref.namespace, row.since, row.ref.name, row.ref.kind.kind))
    return Listing(tuple(rows), tuple(finder.missing), snapshot.taken_at, finder.is_blind)


def _rows(
    namespace: str, name: str, snapshot: ClusterSnapshot, finder: _Finder
) -> Iterator[StuckObject]:
    """The VM in one row, and its VMI in a row of its own when that is being deleted."""
    vm, vmi = (Target(ObjectRef(namespace, name, kind), snapshot) for kind in (VM, VMI))
    spoken_for = False
    for case in (vm, vmi):
        try:
            row = _row(case)
            if row is None or (spoken_for and row.state is State.NOT_READY):
                continue
        except UnreadableError as error:
            finder.miss(case.ref.kind, namespace, error)
            continue
        # A VM speaks for the VMI that merely lost its pod.
        spoken_for = True
        yield row


def _row(case: Target) -> StuckObject | None:
    state, hanging, target = case.state, case.stuck_object, case.target
    if state is None or target is None or hanging is None or hanging.deletion_timestamp is None:
        return None
    return StuckObject(
        ref=case.ref,
        uid=target.uid,
        resource_version=target.resource_version,
        state=state,
        since=hanging.deletion_timestamp,
        finalizers=target.finalizers,
        node=case.node_name,
    )


class _Finder:
    """Collects what hangs, and what could not be read."""

    def __init__(self, source: Source, namespaces: Sequence[str | None]) -> None:
        self._source = source
        self._namespaces = namespaces
        self.is_blind = True
        self._deleting: dict[Kind, list[KubeObject]] = {VM: [], VMI: [], POD: []}
        self._found: dict[ObjectRef, KubeObject | None] = {}
        self._unreadable: dict[Scope | ObjectRef, str] = {}
        self.missing: list[Unreadable] = []
        self.keys: set[tuple[str, str]] = set()

    def miss(self, kind: Kind, namespace: str | None, error: StuckError) -> None:
        """Name what could not be read, once for each kind in each namespace."""
        item = missing(kind, namespace, error)
        for named in self.missing:
            if named.resource == item.resource and named.namespace in (None, namespace):
                return
        self.missing.append(item)

    def read_lists(self, pool: ThreadPoolExecutor) -> None:
        """Find every VM, VMI and virt-launcher pod that is being deleted."""
        lists = {
            (kind, namespace): pool.submit(
                self._source.list_objects,
                ListQuery(
                    kind,
                    namespace,
                    labels=LAUNCHERS if kind is POD else None,
                    metadata_only=True,
                    deleting=True,
                ),
                is_deleting,
            )
            for namespace in self._namespaces
            for kind in self._deleting
        }
        unreachable: list[UnreachableError] = []
        for (kind, namespace), future in lists.items():
            try:
                items = future.result()
                self.is_blind = False
            except PartialListError as error:
                self.miss(kind, namespace, error)
                items = error.items
                self.is_blind = self.is_blind and not items
            except StuckError as error:
                self.miss(kind, namespace, error)
                unreachable += [error] if isinstance(error, UnreachableError) else []
                continue
            for item in items:
                try:
                    self._deleting[kind].append(KubeObject.parse(kind, item))
                except UnreadableError as error:
                    self.miss(kind, namespace, error)
        if lists and len(unreachable) == len(lists):
            raise unreachable[0]
        for kind, items in self._deleting.items():
            for item in items:
                name = guest(item) if kind is POD else item.ref.name
                if name:
                    self.keys.add((item.ref.namespace, name))

    def read_objects(self, pool: ThreadPoolExecutor) -> None:
        """Get the VMs and VMIs behind those, and the pods in full for their node."""
        self._found = {item.ref: item for item in self._deleting[VM]}
        wanted = [
            ref
            for ref in [
                *(ObjectRef(*key, kind) for key in sorted(self.keys) for kind in (VM, VMI)),
                *(pod.ref for pod in self._deleting[POD]),
            ]
            if ref not in self._found
        ]
        self._source.prefetch(wanted)
        gets = {
            ref: pool.submit(self._source.get, ref, metadata_only=ref.kind is VM) for ref in wanted
        }
        for ref, future in gets.items():
            try:
                body = future.result()
                self._found[ref] = None if body is None else KubeObject.parse_as(ref, body)
            except StuckError as error:
                self._unreadable[ref] = str(error)
                self.miss(ref.kind, ref.namespace, error)

    def snapshot(self) -> ClusterSnapshot:
        """The pods in it are only those that are being deleted, which is what a state needs."""
        pods: dict[Scope, list[KubeObject]] = {(POD, namespace): [] for namespace, _ in self.keys}
        for pod in self._deleting[POD]:
            found = self._found.get(pod.ref)
            if found is not None:
                pods.setdefault((POD, pod.ref.namespace), []).append(found)
        return ClusterSnapshot(
            self._source.now,
            listed={scope: tuple(items) for scope, items in pods.items()},
            found=self._found,
            unreadable=self._unreadable,
        )

    def is_selected(self, ref: ObjectRef, labels: str) -> bool:
        """Whether the API server finds the object under that label selector."""
        selection = ListQuery(
            ref.kind, ref.namespace, labels, f"metadata.name={ref.name}", metadata_only=True
        )
        try:
            return bool(self._source.list_objects(selection, lambda _: True))
        except StuckError as error:
            self.miss(ref.kind, ref.namespace, error)
            return False


def is_deleting(item: Any) -> bool:
    """Whether a listed item is being deleted; one that cannot be read is kept, to be named."""
    if not isinstance(item, Mapping) or not isinstance(item.get("metadata"), Mapping):
        return True
    return item["metadata"].get("deletionTimestamp") is not None


def guest(pod: KubeObject) -> str:
    """The name of the VMI that a virt-launcher pod was made for."""
    owners = [owner.name for owner in pod.owners if owner.kind == VMI.kind]
    return next(iter(owners), "") or pod.labels.get("vm.kubevirt.io/name", "")


def missing(kind: Kind, namespace: str | None, error: StuckError) -> Unreadable:
    """What could not be read, and why: a reason for scripts and a message for people."""
    if isinstance(error, PartialListError) and error.cause is not None:
        return missing(kind, namespace, error.cause)
    if isinstance(error, ApiError):
        reason, message = error.reason or str(error.code), error.message
        if error.code == 404:
            message = f"the server does not serve {kind.resource}: is this a Harvester cluster?"
    else:
        reason = "Unreadable" if isinstance(error, UnreadableError) else "Unreachable"
        # Why a list is not whole can hold for many of them, and is then told once.
        message = error.why if isinstance(error, PartialListError) else str(error)
    return Unreadable(kind.resource, namespace, reason, message)
