"""`list`: what is stuck, found without reading whole objects of all the rest.

`survey` says which names may be stuck; here the objects behind them are read and become rows. What
cannot be read is named in the answer; an empty answer is "all clear" only when nothing is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from kubectl_harvester_stuck.errors import NotFoundError, StuckError, UnreadableError
from kubectl_harvester_stuck.harvester.kubelet import silence
from kubectl_harvester_stuck.harvester.target import State, Target, vmi_of
from kubectl_harvester_stuck.k8s.kinds import (
    NAMESPACE,
    NODE,
    POD,
    VM,
    VMI,
    Kind,
)
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef, Unreadable
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot, Scope
from kubectl_harvester_stuck.k8s.source import (
    PARALLEL_REQUESTS,
    ListQuery,
    Source,
    unknown_namespaces,
)
from kubectl_harvester_stuck.listing.model import Listing, StuckObject
from kubectl_harvester_stuck.listing.survey import LAUNCHERS, Survey, key_of, missing, survey

MANY = 100
"""So many objects of a kind in a namespace are listed rather than got one by one."""


def stuck(
    source: Source,
    *,
    kinds: frozenset[Kind],
    namespaces: Sequence[str | None],
    labels: str | None = None,
    older_than: timedelta = timedelta(0),
    node: str | None = None,
) -> Listing:
    """What is stuck in `namespaces` (None: everywhere), oldest first within each namespace.

    Three lists for each namespace, and the nodes with their Leases; whole objects only for what may
    be stuck. `labels` selects among the rows' own objects and is left to the API server; `node` is
    where the guest ran. Whatever cannot be read is in `missing`. Raises UnreachableError when
    nothing could be read because the server is not there, NotFoundError for a namespace or a node
    that does not exist.
    """
    seen = survey(source, namespaces)
    found = rows(source, seen, kinds=kinds, labels=labels, older_than=older_than, node=node)
    if node is not None and not found.targets:
        found = replace(found, missing=found.missing + unknown_node(source, node))
    if not found.missing:
        empty = [name for name in namespaces if name is not None and name not in seen.inhabited]
        gaps = unknown_namespaces(source, empty)
        found = replace(found, missing=tuple(missing(NAMESPACE, "", gap) for gap in gaps.values()))
    return found


def unknown_node(source: Source, name: str) -> tuple[Unreadable, ...]:
    """Why it is not known whether there is that node. Raises NotFoundError where there is none."""
    try:
        node = source.get(ObjectRef("", name, NODE), metadata_only=True)
    except StuckError as error:
        return (missing(NODE, "", error),)
    if node is None:
        raise NotFoundError(
            f"node {name} was not found, and nothing that is stuck ran there; list -A shows where"
            " it ran"
        )
    return ()


# The rows


def rows(
    source: Source,
    seen: Survey,
    *,
    kinds: frozenset[Kind],
    labels: str | None,
    older_than: timedelta,
    node: str | None = None,
) -> Listing:
    """What of the names in `seen` is stuck; what else could not be read is added to it."""
    reading = _Reading(source, seen)
    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        reading.read_objects(pool)
        reading.read_other_pods(pool)
        snapshot = reading.snapshot()
        found = [row for key in sorted(seen.keys) for row in _rows(*key, snapshot, seen)]
        found = [row for row in found if row.ref.kind in kinds]
        if labels:
            chosen = pool.map(lambda row: reading.is_selected(row.ref, labels), found)
            found = [row for row, is_selected in zip(found, chosen, strict=True) if is_selected]
    now = snapshot.taken_at
    # What is not known to be younger is shown.
    found = [row for row in found if (age := row.age(now)) is None or age >= older_than]
    there = [row for row in found if node in (None, row.node)]
    without = 0 if node is None else sum(row.node is None for row in found)
    silent = silent_nodes(there, seen, now)
    return Listing(in_order(there, now), tuple(seen.missing), now, seen.is_blind, without, silent)


def silent_nodes(
    found: Iterable[StuckObject], seen: Survey, now: datetime
) -> dict[str, datetime | None]:
    """The nodes of these rows that do not answer, and since when; what is unreadable is none."""
    snapshot = ClusterSnapshot(now, seen.listed, {}, seen.unreadable)
    silent: dict[str, datetime | None] = {}
    for name in sorted({row.node for row in found if row.node}):
        with suppress(UnreadableError):
            if (why := silence(name, snapshot)) is not None:
                silent[name] = why.since
    return silent


def in_order(found: Iterable[StuckObject], now: datetime) -> tuple[StuckObject, ...]:
    """The rows, oldest first within each namespace."""
    return tuple(
        sorted(
            found,
            key=lambda row: (
                row.ref.namespace,
                row.since or now,
                row.ref.name,
                row.ref.kind.kind,
            ),
        )
    )


def _rows(
    namespace: str, name: str, snapshot: ClusterSnapshot, seen: Survey
) -> Iterator[StuckObject]:
    """The VM in one row, and its VMI in a row of its own when that is being deleted."""
    vm, vmi = (Target(ObjectRef(namespace, name, kind), snapshot) for kind in (VM, VMI))
    spoken_for = False
    for target in (vm, vmi):
        try:
            row = _row(target)
            if row is None or (spoken_for and row.state is not State.TERMINATING):
                continue
        except UnreadableError as error:
            seen.miss(target.ref.kind, namespace, error)
            continue
        # A VM speaks for the VMI that merely lost its pod, or its node.
        spoken_for = True
        yield row


def _row(target: Target) -> StuckObject | None:
    state, obj = target.state, target.obj
    if state is None or obj is None:
        return None
    return StuckObject(
        ref=target.ref,
        uid=obj.uid,
        resource_version=obj.resource_version,
        state=state,
        since=target.stuck_since,
        finalizers=obj.finalizers,
        node=target.node_name,
        reason=target.why_not_deleted,
    )


class _Reading:
    """The whole objects of what may be stuck, and what could not be read."""

    def __init__(self, source: Source, seen: Survey) -> None:
        self._source = source
        self._seen = seen
        self._found: dict[ObjectRef, KubeObject | None] = {
            **{item.ref: item for item in seen.deleting[VM]},
            **seen.known,
        }
        self._unreadable: dict[Scope | ObjectRef, str] = dict(seen.unreadable)
        self._pods: dict[str, KubeObject] = {}

    def read_objects(self, pool: ThreadPoolExecutor) -> None:
        """Read the VMs and VMIs behind the names, and the pods for their node."""
        pods = [pod.ref for pod in self._seen.deleting[POD]]
        wanted: dict[tuple[Kind, str], list[ObjectRef]] = {}
        machines = (ObjectRef(*key, kind) for key in sorted(self._seen.keys) for kind in (VM, VMI))
        for ref in (*machines, *pods):
            if ref not in self._found:
                wanted.setdefault((ref.kind, ref.namespace), []).append(ref)
        many = {scope: refs for scope, refs in wanted.items() if len(refs) > MANY}
        lists = {
            scope: pool.submit(self._list, scope, frozenset(refs)) for scope, refs in many.items()
        }
        few = [ref for scope, refs in wanted.items() if scope not in many for ref in refs]
        self._source.prefetch(few)
        gets = {ref: pool.submit(self._source.get, ref) for ref in few}
        for ref, future in gets.items():
            try:
                body = future.result()
                self._found[ref] = None if body is None else KubeObject.parse_as(ref, body)
            except StuckError as error:
                self._fail(ref, error)
        for scope, listed in lists.items():
            self._take_list(scope[0], many[scope], listed)
        for ref in pods:
            found = self._found.get(ref)
            if found is not None:
                self._pods[found.uid] = found

    def _take_list(self, kind: Kind, refs: list[ObjectRef], listed: Future[list[Any]]) -> None:
        """Those of the objects that a list holds are there, the others are not."""
        try:
            bodies = listed.result()
        except StuckError as error:
            for ref in refs:
                self._fail(ref, error)
            return
        self._found.update(dict.fromkeys(refs))
        for body in bodies:
            try:
                item = KubeObject.parse(kind, body)
                self._found[item.ref] = item
            except UnreadableError as error:
                ref = ObjectRef(*key_of(body), kind)
                del self._found[ref]
                self._fail(ref, error)

    def _list(self, scope: tuple[Kind, str], refs: frozenset[ObjectRef]) -> list[Any]:
        kind, namespace = scope
        names = {ref.name for ref in refs}

        def keep(item: Any) -> bool:
            meta = item.get("metadata") if isinstance(item, Mapping) else None
            return isinstance(meta, Mapping) and meta.get("name") in names

        labels = LAUNCHERS if kind is POD else None
        return self._source.list_objects(ListQuery(kind, namespace, labels), keep)

    def read_other_pods(self, pool: ThreadPoolExecutor) -> None:
        """List the pods of a guest of which one hangs and nothing else is being deleted.

        Another of them may be the one in which it runs, beside what a migration has left.
        """
        uids = {
            owner.uid: pod.ref.namespace
            for pod in self._pods.values()
            if (owner := vmi_of(pod)) is not None
            and (vmi := self._found.get(ObjectRef(pod.ref.namespace, owner.name, VMI))) is not None
            and vmi.uid == owner.uid
            and vmi.deletion_timestamp is None
        }
        lists = [
            (
                namespace,
                pool.submit(
                    self._source.list_objects,
                    ListQuery(POD, namespace, labels=f"kubevirt.io/created-by={uid}"),
                    lambda _: True,
                ),
            )
            for uid, namespace in uids.items()
        ]
        for namespace, future in lists:
            try:
                for body in future.result():
                    pod = KubeObject.parse(POD, body)
                    self._pods[pod.uid] = pod
            except StuckError as error:
                self._seen.miss(POD, namespace, error)

    def _fail(self, ref: ObjectRef, error: StuckError) -> None:
        self._unreadable[ref] = str(error)
        self._seen.miss(ref.kind, ref.namespace, error)

    def snapshot(self) -> ClusterSnapshot:
        """The pods in it are those that are being deleted, and others of the same guests."""
        pods: dict[Scope, list[KubeObject]] = {
            (POD, namespace): [] for namespace, _ in self._seen.keys
        }
        for pod in self._pods.values():
            pods.setdefault((POD, pod.ref.namespace), []).append(pod)
        listed = {scope: tuple(items) for scope, items in pods.items()}
        return ClusterSnapshot(
            self._source.now, {**self._seen.listed, **listed}, self._found, self._unreadable
        )

    def is_selected(self, ref: ObjectRef, labels: str) -> bool:
        """Whether the API server finds the object under that label selector."""
        selection = ListQuery(
            ref.kind, ref.namespace, labels, f"metadata.name={ref.name}", metadata_only=True
        )
        try:
            return bool(self._source.list_objects(selection, lambda _: True))
        except StuckError as error:
            self._seen.miss(ref.kind, ref.namespace, error)
            return False
