"""`list`: what is stuck, found without reading whole objects of all the rest.

Metadata of VMs and virt-launcher pods, of VMIs their phase and node as well, and the nodes with
their Leases. What cannot be read is named in the answer; an empty answer is "all clear" only when
nothing is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from kubectl_harvester_stuck.errors import (
    ApiError,
    StuckError,
    UnreachableError,
    UnreadableError,
)
from kubectl_harvester_stuck.harvester.kubelet import silence
from kubectl_harvester_stuck.harvester.target import FINAL_PHASES, State, Target, vmi_of
from kubectl_harvester_stuck.k8s.kinds import (
    LEASE,
    LEASE_NAMESPACE,
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
    PartialListError,
    Source,
    unknown_namespaces,
)
from kubectl_harvester_stuck.listing.model import Listing, StuckObject

LAUNCHERS = "kubevirt.io=virt-launcher"

PHASE_AND_NODE = (("Phase", ("status", "phase")), ("NodeName", ("status", "nodeName")))
"""Columns of a VMI in kubectl's table (additionalPrinterColumns of its CRD)."""

_STOPS = re.compile(rb"deletionTimestamp|Halted|running|stateChangeRequests")
"""What the text of a VM holds that is being deleted, or to be stopped."""

_ENDS = re.compile(rb"deletionTimestamp|Failed|Succeeded")
"""What the text of a VMI holds that is being deleted, or has ended."""

_NODES = re.compile(rb"""nodeName["']?: ["']?([^\s"',]+)""")
"""Nodes that the text of a VMI names."""

HEALTH: tuple[Scope, ...] = ((NODE, ""), (LEASE, LEASE_NAMESPACE))
"""Where the lists of nodes and Leases stand."""

MANY = 100
"""So many objects of a kind in a namespace are listed rather than got one by one."""

UNKNOWN_TIME = "9"
"""Later than any time that an API server writes."""

Key = tuple[str, str]
"""Namespace and name of a VM and its VMI."""


@dataclass
class Survey:
    """What the lists have shown: names that may be stuck, and what could not be read."""

    deleting: dict[Kind, list[KubeObject]] = field(
        default_factory=lambda: {VM: [], VMI: [], POD: []}
    )
    idle: dict[Key, str] = field(default_factory=dict)
    """Names of which nothing need be being deleted, with what makes them suspicious."""
    listed: dict[Scope, tuple[KubeObject, ...]] = field(default_factory=dict)
    """Nodes and Leases, without what no decision needs."""
    unreadable: dict[Scope | ObjectRef, str] = field(default_factory=dict)
    missing: list[Unreadable] = field(default_factory=list)
    is_blind: bool = True
    """Not one list of VMs, VMIs or pods could be read."""
    inhabited: set[str | None] = field(default_factory=set)
    """Those of the namespaces that were asked about in which there is anything."""

    @property
    def keys(self) -> set[Key]:
        """The names that may be stuck."""
        found = set(self.idle)
        for kind, items in self.deleting.items():
            for item in items:
                name = guest(item) if kind is POD else item.ref.name
                if name:
                    found.add((item.ref.namespace, name))
        return found

    def of(self, keys: frozenset[Key]) -> Survey:
        """What it shows of these names alone."""
        return replace(
            self,
            deleting={
                kind: [
                    item
                    for item in items
                    if (item.ref.namespace, guest(item) if kind is POD else item.ref.name) in keys
                ]
                for kind, items in self.deleting.items()
            },
            idle={key: why for key, why in self.idle.items() if key in keys},
            unreadable=dict(self.unreadable),
            missing=list(self.missing),
        )

    def miss(self, kind: Kind, namespace: str | None, error: StuckError) -> None:
        """Name what could not be read, once for each kind in each namespace."""
        item = missing(kind, namespace, error)
        for named in self.missing:
            if named.resource == item.resource and named.namespace in (None, namespace):
                return
        self.missing.append(item)


def stuck(
    source: Source,
    *,
    kinds: frozenset[Kind],
    namespaces: Sequence[str | None],
    labels: str | None = None,
    older_than: timedelta = timedelta(0),
) -> Listing:
    """What is stuck in `namespaces` (None: everywhere), oldest first within each namespace.

    Three lists for each namespace, and the nodes with their Leases; whole objects only for what may
    be stuck. `labels` selects among the rows' own objects and is left to the API server. Whatever
    cannot be read is in `missing`. Raises UnreachableError when nothing could be read because the
    server is not there, NotFoundError for a namespace that does not exist.
    """
    seen = survey(source, namespaces)
    found = rows(source, seen, kinds=kinds, labels=labels, older_than=older_than)
    if not found.missing:
        empty = [name for name in namespaces if name is not None and name not in seen.inhabited]
        gaps = unknown_namespaces(source, empty)
        found = replace(found, missing=tuple(missing(NAMESPACE, "", gap) for gap in gaps.values()))
    return found


# What the lists show


def survey(
    source: Source, namespaces: Sequence[str | None], kinds: Sequence[Kind] = (VM, VMI, POD)
) -> Survey:
    """List what may be stuck. Raises UnreachableError when the server is not there."""
    seen = Survey()
    look = _Look(source, seen)
    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        lists: dict[tuple[Kind, str | None], Future[list[Any]]] = {}
        health = [pool.submit(look.read_health, kind) for kind in (NODE, LEASE)]
        for namespace in namespaces:
            for kind in kinds:
                lists[kind, namespace] = pool.submit(look.read, kind, namespace)
        for one in health:
            one.result()
        look.collect(lists)
    return seen


def read_health(source: Source) -> Survey:
    """The nodes and their Leases alone."""
    return survey(source, (), ())


class _Look:
    """The lists of one survey; its methods `read` run in threads of their own."""

    def __init__(self, source: Source, seen: Survey) -> None:
        self._source = source
        self._seen = seen
        self._silent: dict[str, bool] = {}
        self._stops: dict[Key, str] = {}
        """When the run strategy of a VM was last written."""
        self._living: dict[str, dict[Key, str]] = {}
        """When the VMIs on each node were created whose guests have not ended."""
        self._health: dict[Kind, StuckError] = {}
        """Why the nodes, or their Leases, could not be read."""
        self._unsure: UnreadableError | None = None
        """Why it is not known of a node whether it answers."""

    def read_health(self, kind: Kind) -> None:
        """List the nodes, or their Leases."""
        namespace = LEASE_NAMESPACE if kind is LEASE else ""
        try:
            items = self._source.list_objects(ListQuery(kind, namespace or None), lambda _: True)
            found = tuple(KubeObject.parse(kind, _slim(item)) for item in items)
        except StuckError as error:
            self._seen.unreadable[kind, namespace] = (
                error.why if isinstance(error, UnreadableError) else str(error)
            )
            self._health[kind] = error
            return
        self._seen.listed[kind, namespace] = found

    def read(self, kind: Kind, namespace: str | None) -> list[Any]:
        """List one kind; keeps what is being deleted, and notes what else may be stuck."""
        inhabited = self._seen.inhabited

        def keep(item: Any) -> bool:
            inhabited.add(namespace)
            if is_deleting(item):
                return True
            if kind is VM:
                self._note_vm(item)
            elif kind is VMI:
                self._note_vmi(item)
            return False

        return self._source.list_objects(self._query(kind, namespace), keep)

    def _query(self, kind: Kind, namespace: str | None) -> ListQuery:
        if kind is VM:
            return ListQuery(
                kind,
                namespace,
                metadata_only=True,
                hint=lambda text: _STOPS.search(text) is not None,
            )
        if kind is VMI:
            return ListQuery(kind, namespace, columns=PHASE_AND_NODE, hint=self._may_hang)
        return query_of_deleting(kind, namespace)

    def _may_hang(self, text: bytes) -> bool:
        known = {*self._seen.listed, *self._seen.unreadable}
        # Before it is known which nodes answer, any may be on one that does not.
        return len(known) < len(HEALTH) or (
            _ENDS.search(text) is not None
            or any(
                self._is_silent(name.decode("utf-8", "replace")) for name in _NODES.findall(text)
            )
        )

    def _note_vm(self, item: Mapping[str, Any]) -> None:
        if "spec" in item:
            # A whole object, as files hold it: only what may have to stop passed the hint.
            self._seen.idle[_key(item)] = "run strategy"
            return
        written = _written(item["metadata"])
        # A VMI is not older than its VM, so what was written with the VM is no stop.
        if written > str(item["metadata"].get("creationTimestamp") or ""):
            self._stops[_key(item)] = written

    def _note_vmi(self, item: Mapping[str, Any]) -> None:
        key, status = _key(item), item.get("status")
        created = str(item["metadata"].get("creationTimestamp") or "")
        if not isinstance(status, Mapping):
            status = {}
        phase, node = status.get("phase"), status.get("nodeName")
        if phase in FINAL_PHASES:
            self._seen.idle[key] = str(phase)
        else:
            self._living.setdefault(str(node or ""), {})[key] = created

    def _is_silent(self, node: str) -> bool:
        """Whether the node does not answer; a node that cannot be read is noted."""
        if node not in self._silent:
            snapshot = ClusterSnapshot(
                self._source.now, self._seen.listed, {}, self._seen.unreadable
            )
            try:
                self._silent[node] = silence(node, snapshot) is not None
            except UnreadableError as error:
                self._unsure = error
                self._silent[node] = False
        return self._silent[node]

    def collect(self, lists: Mapping[tuple[Kind, str | None], Future[list[Any]]]) -> None:
        """Wait for the lists. Raises UnreachableError when the server is not there."""
        seen = self._seen
        unreachable: list[UnreachableError] = []
        order = {kind: number for number, kind in enumerate((VM, VMI, POD))}
        for (kind, namespace), future in sorted(
            lists.items(), key=lambda one: (one[0][1] or "", order[one[0][0]])
        ):
            try:
                self._take(kind, namespace, future)
            except UnreachableError as error:
                unreachable.append(error)
        if lists and len(unreachable) == len(lists):
            raise unreachable[0]
        for node, guests in self._living.items():
            is_silent = bool(node) and self._is_silent(node)
            for key, created in guests.items():
                written = self._stops.get(key, "")
                if is_silent:
                    seen.idle[key] = f"on {node}"
                elif written > created or (written and not created):
                    seen.idle[key] = f"run strategy {written}"
        self._miss_health()

    def _take(self, kind: Kind, namespace: str | None, future: Future[list[Any]]) -> None:
        """What a list holds, or why it could not be read. Raises UnreachableError."""
        seen = self._seen
        try:
            items = future.result()
            seen.is_blind = False
        except PartialListError as error:
            seen.miss(kind, namespace, error)
            items = error.items
            seen.is_blind = seen.is_blind and not items
        except StuckError as error:
            seen.miss(kind, namespace, error)
            if isinstance(error, UnreachableError):
                raise
            return
        for item in items:
            try:
                seen.deleting[kind].append(KubeObject.parse(kind, item))
            except UnreadableError as error:
                seen.miss(kind, namespace, error)

    def _miss_health(self) -> None:
        """Name what could not be read of the nodes, if any guest depends on it."""
        seen = self._seen
        for kind, error in self._health.items():
            # Files that hold no Leases are no gap: then a Node has to do.
            counts = self._living if kind is LEASE else self._unsure is not None
            if counts and not (kind is LEASE and isinstance(error, PartialListError)):
                seen.miss(kind, LEASE_NAMESPACE if kind is LEASE else "", error)
        if self._unsure is not None and NODE not in self._health:
            seen.miss(NODE, "", self._unsure)


def query_of_deleting(kind: Kind, namespace: str | None) -> ListQuery:
    """The metadata of what is being deleted; all launchers of which the source does not know."""
    return ListQuery(
        kind,
        namespace,
        labels=LAUNCHERS if kind is POD else None,
        metadata_only=True,
        hint=lambda text: b"deletionTimestamp" in text,
    )


def silent_nodes(seen: Survey, now: datetime) -> frozenset[str]:
    """Names of the nodes in a survey that do not answer; those that cannot be read are none."""
    snapshot = ClusterSnapshot(now, seen.listed, {}, seen.unreadable)
    found = set()
    for node in seen.listed.get((NODE, ""), ()):
        with suppress(UnreadableError):
            if silence(node.ref.name, snapshot) is not None:
                found.add(node.ref.name)
    return frozenset(found)


def _slim(item: Any) -> Any:
    """A node without its images, which are most of it."""
    if isinstance(item, Mapping) and isinstance(item.get("status"), Mapping):
        kept = {"conditions": item["status"].get("conditions")}
        return {**item, "status": kept}
    return item


def _key(item: Mapping[str, Any]) -> Key:
    meta = item["metadata"]
    return str(meta.get("namespace") or ""), str(meta.get("name") or "")


def _written(meta: Mapping[str, Any]) -> str:
    """When the run strategy of a VM was last written; `UNKNOWN_TIME` where it may have to stop.

    A VM is started before its VMI is created, and stopped after that, so a run strategy that was
    written later may be a stop. A request to stop is a field of the status that nothing else
    writes. Values are not in the metadata: whether it is a stop, the VM itself tells.
    """
    latest = ""
    entries = meta.get("managedFields")
    for entry in entries if isinstance(entries, list) else ():
        fields = entry.get("fieldsV1") if isinstance(entry, Mapping) else None
        if not isinstance(fields, Mapping):
            continue
        status, spec = fields.get("f:status"), fields.get("f:spec")
        if isinstance(status, Mapping) and "f:stateChangeRequests" in status:
            return UNKNOWN_TIME
        if isinstance(spec, Mapping) and ("f:runStrategy" in spec or "f:running" in spec):
            latest = max(latest, str(entry.get("time") or UNKNOWN_TIME))
    return latest or UNKNOWN_TIME


# The rows


def rows(
    source: Source,
    seen: Survey,
    *,
    kinds: frozenset[Kind],
    labels: str | None,
    older_than: timedelta,
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
    return Listing(in_order(found, now), tuple(seen.missing), now, seen.is_blind)


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
    for case in (vm, vmi):
        try:
            row = _row(case)
            if row is None or (spoken_for and row.state is not State.TERMINATING):
                continue
        except UnreadableError as error:
            seen.miss(case.ref.kind, namespace, error)
            continue
        # A VM speaks for the VMI that merely lost its pod, or its node.
        spoken_for = True
        yield row


def _row(case: Target) -> StuckObject | None:
    state, target = case.state, case.target
    if state is None or target is None:
        return None
    return StuckObject(
        ref=case.ref,
        uid=target.uid,
        resource_version=target.resource_version,
        state=state,
        since=case.stuck_since,
        finalizers=target.finalizers,
        node=case.node_name,
        reason=case.why_not_deleted,
    )


class _Reading:
    """The whole objects of what may be stuck, and what could not be read."""

    def __init__(self, source: Source, seen: Survey) -> None:
        self._source = source
        self._seen = seen
        self._found: dict[ObjectRef, KubeObject | None] = {
            item.ref: item for item in seen.deleting[VM]
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
                ref = ObjectRef(*_key(body), kind)
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
