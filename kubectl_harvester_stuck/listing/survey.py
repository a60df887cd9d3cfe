"""What the lists of a cluster show of what may be stuck: names, and what could not be read.

Metadata of VMs and virt-launcher pods, of VMIs their phase and node as well, and the nodes with
their Leases. `find` reads the whole objects behind the names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from kubectl_harvester_stuck.errors import (
    ApiError,
    StuckError,
    UnreachableError,
    UnreadableError,
)
from kubectl_harvester_stuck.harvester.kubelet import silence
from kubectl_harvester_stuck.harvester.target import FINAL_PHASES
from kubectl_harvester_stuck.k8s.kinds import (
    LEASE,
    LEASE_NAMESPACE,
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
)

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
            self._seen.idle[key_of(item)] = "run strategy"
            return
        written = _written(item["metadata"])
        # A VMI is not older than its VM, so what was written with the VM is no stop.
        if written > str(item["metadata"].get("creationTimestamp") or ""):
            self._stops[key_of(item)] = written

    def _note_vmi(self, item: Mapping[str, Any]) -> None:
        key, status = key_of(item), item.get("status")
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


def key_of(item: Mapping[str, Any]) -> Key:
    """Namespace and name of a listed item."""
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
