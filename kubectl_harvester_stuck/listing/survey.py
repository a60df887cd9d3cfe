"""What the lists of a cluster show of what may be stuck: names, and what could not be read.

Metadata of VMs, of VMIs their phase and node as well, of virt-launcher pods their node, and the
nodes with their Leases. That is all that a row needs of an object that is being deleted; behind the
other names `find` reads the whole objects.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
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
    Glimpse,
    ListQuery,
    PartialListError,
    Source,
)

LAUNCHERS = "kubevirt.io=virt-launcher"

PHASE_AND_NODE = (("Phase", ("status", "phase")), ("NodeName", ("status", "nodeName")))
"""Columns of a VMI in kubectl's table (additionalPrinterColumns of its CRD)."""

POD_NODE = (("Node", ("spec", "nodeName")),)
"""The column of a pod (kubernetes pkg/printers/internalversion/printers.go, printPod)."""

NO_NODE = "<none>"
"""What that column shows of a pod that is on no node, and no node is called."""

_STOPS = re.compile(rb"deletionTimestamp|Halted|running|stateChangeRequests")
"""What the text of a VM holds that is being deleted, or to be stopped."""

_ENDS = re.compile(rb"deletionTimestamp|Failed|Succeeded")
"""What the text of a VMI holds that is being deleted, or has ended."""

_NODES = re.compile(rb"""nodeName["']?: ["']?([^\s"',]+)""")
"""Nodes that the text of a VMI names."""

HEALTH: tuple[Scope, ...] = ((NODE, ""), (LEASE, LEASE_NAMESPACE))
"""Where the lists of nodes and Leases stand."""

AWHILE = 5.0
"""Seconds that the list of VMs waits for that of VMIs; an API server gives up after 60."""

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
    known: dict[ObjectRef, KubeObject | None] = field(default_factory=dict)
    """Objects of which the lists have shown all that a row of something that is being deleted
    depends on; None for one that is not there."""
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
        # VMs come last, for what matters of them depends on the VMIs, and each waits for those.
        for kind in sorted(kinds, key=(VMI, POD, VM).index):
            for namespace in namespaces:
                after = lists.get((VMI, namespace)) if kind is VM else None
                lists[kind, namespace] = pool.submit(look.read, kind, namespace, after)
        for one in health:
            one.result()
        look.collect(lists)
    return seen


def read_health(source: Source) -> Survey:
    """The nodes and their Leases alone."""
    return survey(source, (), ())


class _Awaited:
    """A list that is waited for, but not for long: the server waits meanwhile with another one."""

    def __init__(self, future: Future[list[Any]] | None) -> None:
        self._future = future
        self._has_waited = False

    def has_come(self) -> bool:
        """Whether it has come, or failed."""
        if self._future is None:
            return True
        if not self._has_waited:
            wait([self._future], AWHILE)
            self._has_waited = True
        return self._future.done()


class _Look:
    """The lists of one survey; its methods `read` run in threads of their own."""

    def __init__(self, source: Source, seen: Survey) -> None:
        self._source = source
        self._seen = seen
        self._silent: dict[str, bool] = {}
        self._stops: dict[Key, str] = {}
        """When the run strategy of a VM was last written."""
        self._living: dict[Key, tuple[str, str]] = {}
        """The VMIs whose guests have not ended: when they were created, and on which node."""
        self._ending: set[Key] = set()
        """The VMIs that are being deleted."""
        self._left_out = False
        """Whether the source was told that it may leave out VMIs."""
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

    def read(self, kind: Kind, namespace: str | None, after: Future[list[Any]] | None) -> list[Any]:
        """List one kind, and look at its items once the list `after` has come.

        Keeps what is being deleted and the VMs of such VMIs, and notes what else may be stuck.
        """
        inhabited = self._seen.inhabited
        other = _Awaited(after)

        def keep(item: Any) -> bool:
            inhabited.add(namespace)
            other.has_come()
            if is_deleting(item):
                if kind is VMI and isinstance(item, Mapping):
                    self._note_ending(item)
                return True
            if kind is VM:
                return self._note_vm(item)
            if kind is VMI:
                self._note_vmi(item)
            return False

        def matters(seen: Glimpse) -> bool:
            inhabited.add(namespace)
            if kind is VM:
                return not other.has_come() or self._may_have_to_stop(seen)
            return kind is VMI and self._has_ended(seen)

        return self._source.list_objects(self._query(kind, namespace, matters), keep)

    def _query(
        self, kind: Kind, namespace: str | None, matters: Callable[[Glimpse], bool]
    ) -> ListQuery:
        if kind is VM:
            return ListQuery(
                kind,
                namespace,
                metadata_only=True,
                hint=lambda text: _STOPS.search(text) is not None,
                matters=matters,
            )
        if kind is VMI:
            return ListQuery(
                kind, namespace, columns=PHASE_AND_NODE, hint=self._may_hang, matters=matters
            )
        query = query_of_deleting(kind, namespace)
        return replace(query, metadata_only=False, columns=POD_NODE, matters=matters)

    def _may_hang(self, text: bytes) -> bool:
        known = {*self._seen.listed, *self._seen.unreadable}
        self._left_out = True
        # Before it is known which nodes answer, any may be on one that does not.
        return len(known) < len(HEALTH) or (
            _ENDS.search(text) is not None
            or any(
                self._is_silent(name.decode("utf-8", "replace")) for name in _NODES.findall(text)
            )
        )

    def _has_ended(self, seen: Glimpse) -> bool:
        """Whether the guest of a VMI has ended; one that has not is noted."""
        phase, node = seen.cells
        if phase in FINAL_PHASES:
            return True
        self._living[seen.namespace, seen.name] = (seen.created, str(node or ""))
        return False

    def _may_have_to_stop(self, seen: Glimpse) -> bool:
        """Whether a VM may have to stop its guest, or is that of a VMI that is being deleted."""
        key = (seen.namespace, seen.name)
        if key in self._ending:
            return True
        if key not in self._living:
            return False
        created, _ = self._living[key]
        return not created or not written_before(seen.text, max(created, seen.created))

    def _note_ending(self, item: Mapping[str, Any]) -> None:
        with suppress(UnreadableError):
            ref = KubeObject.parse(VMI, item).ref
            self._ending.add((ref.namespace, ref.name))

    def _note_vm(self, item: Mapping[str, Any]) -> bool:
        """Note a VM that may have to stop; True for that of a VMI that is being deleted."""
        key = key_of(item)
        if key in self._ending:
            return True
        if "spec" in item:
            # A whole object, as files hold it: only what may have to stop passed the hint.
            self._seen.idle[key] = "run strategy"
            return False
        written = _written(item["metadata"])
        # A VMI is not older than its VM, so what was written with the VM is no stop.
        if written > str(item["metadata"].get("creationTimestamp") or ""):
            self._stops[key] = written
        return False

    def _note_vmi(self, item: Mapping[str, Any]) -> None:
        key, status = key_of(item), item.get("status")
        created = str(item["metadata"].get("creationTimestamp") or "")
        if not isinstance(status, Mapping):
            status = {}
        phase, node = status.get("phase"), status.get("nodeName")
        if phase in FINAL_PHASES:
            self._seen.idle[key] = str(phase)
        else:
            self._living[key] = (created, str(node or ""))

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
        for key, (created, node) in self._living.items():
            written = self._stops.get(key, "")
            if node and self._is_silent(node):
                seen.idle[key] = f"on {node}"
            elif written > created or (written and not created):
                seen.idle[key] = f"run strategy {written}"
        for namespace in (namespace for kind, namespace in lists if kind is VMI):
            self._note_absent(namespace)
        self._forget_parts()
        self._miss_health()

    def _note_absent(self, namespace: str | None) -> None:
        """Note the VMIs that VMs which are being deleted do not have any more."""
        seen = self._seen
        if self._left_out or any(
            missed.resource == VMI.resource and missed.namespace in (None, namespace)
            for missed in seen.missing
        ):
            return
        for machine in seen.deleting[VM]:
            ref = replace(machine.ref, kind=VMI)
            key = (ref.namespace, ref.name)
            is_there = key in self._living or key in self._ending or key in seen.idle
            if namespace in (None, ref.namespace) and not is_there:
                seen.known[ref] = None

    def _forget_parts(self) -> None:
        """Forget the metadata of a VM of which more may be needed: its VMI is not being deleted.

        So it is where a list that was begun again shows another VMI than at first.
        """
        deleting = {item.ref for item in (*self._seen.deleting[VM], *self._seen.deleting[VMI])}
        for ref in [ref for ref in self._seen.known if ref.kind is VM]:
            if deleting.isdisjoint((ref, replace(ref, kind=VMI))):
                del self._seen.known[ref]

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
                found = KubeObject.parse(kind, _with_node(item) if kind is POD else item)
            except UnreadableError as error:
                seen.miss(kind, namespace, error)
                continue
            seen.known[found.ref] = found
            if found.deletion_timestamp is not None:
                seen.deleting[kind].append(found)

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
        matters=lambda _: False,
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


def _with_node(pod: Any) -> Any:
    """The pod of a row, without a node where it is on none."""
    spec = pod.get("spec") if isinstance(pod, Mapping) else None
    if isinstance(spec, Mapping) and spec.get("nodeName") == NO_NODE:
        return {**pod, "spec": {}}
    return pod


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


_ENTRY = re.compile(
    rb'\{"manager":"[^"\\]*","operation":"[^"\\]*","apiVersion":"[^"\\]*","time":"([^"\\]*)",'
    rb'"fieldsType":"FieldsV1","fieldsV1":\{'
)
"""How the API server begins an entry of managedFields."""

_STRATEGY = re.compile(rb'"f:spec":\{(?:"[^"\\]*":\{\},)*"f:(?:runStrategy|running)":\{\}')
_ANY_STRATEGY = re.compile(rb'"f:(?:runStrategy|running)"')


def written_before(text: bytes, moment: str) -> bool:
    """Whether the text of a VM shows that its run strategy was last written by then.

    False wherever `_written` has to tell, from the decoded VM.
    """
    # Every second part is the time of an entry, and what follows it are the entry's fields.
    parts = _ENTRY.split(text)
    count = len(parts) // 2
    if b"stateChangeRequests" in text or not (
        text.count(b'"managedFields"') == 1
        and count == text.count(b'"time"') == text.count(b'"fieldsV1"')
    ):
        return False
    is_known = False
    for time, fields in zip(parts[1::2], parts[2::2], strict=True):
        # Fields are in order; the status has a run strategy of its own.
        spec = fields.partition(b'"f:status":{')[0]
        if _ANY_STRATEGY.search(spec):
            is_known = is_known or _STRATEGY.search(spec) is not None
            if time.decode() > moment:
                return False
    return is_known


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
