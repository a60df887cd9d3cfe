"""Whether the kubelet of a node answers, from its Node and its Lease alone.

`node_health` asks for more: whether the node shows any sign of life.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, unique
from typing import Any

from kubectl_harvester_stuck.errors import UnreadableError, in_short
from kubectl_harvester_stuck.k8s.durations import human
from kubectl_harvester_stuck.k8s.kinds import LEASE, LEASE_NAMESPACE, NODE
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef, parse_time
from kubectl_harvester_stuck.k8s.reads import Read, declared
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot

KUBELET = declared(Read(NODE, own=True), Read(LEASE, LEASE_NAMESPACE, own=True))
"""What tells whether the kubelet of a guest's node answers."""

FRESH = timedelta(minutes=5)
"""A sign of life younger than this contradicts a power cut (KubeVirt: watch/node/node.go)."""

ANSWERING = timedelta(minutes=1)
"""A kubelet renews its Lease every ten seconds; one that did not for so long does not answer."""

SKEW = timedelta(minutes=1)
"""So far ahead may the clock of a host be; a sign further in the future cannot be read."""


@unique
class SignalState(str, Enum):
    """What one signal says of the node."""

    ALIVE = "alive"
    SILENT = "silent"
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Signal:
    """One of the four signs: Ready, heartbeat, lease, virt-handler."""

    name: str
    says: SignalState
    text: str
    age: timedelta | None = None
    """How old the sign is, where it carries a time."""


def signal(name: str, look: Callable[[], tuple[SignalState, str, timedelta | None]]) -> Signal:
    """The signal that `look` reads; what cannot be read is unreadable, with the reason."""
    try:
        says, text, age = look()
    except UnreadableError as error:
        return Signal(name, SignalState.UNREADABLE, in_short(error.why))
    return Signal(name, says, text, age)


def ready(node: KubeObject | None) -> tuple[SignalState, str, None]:
    """What the Ready condition of a node says. Raises UnreadableError."""
    if node is None:
        return SignalState.SILENT, "no such node", None
    status = ready_condition(node).get("status")
    if status == "True":
        return SignalState.ALIVE, "True", None
    # False is the kubelet itself speaking; Unknown is the control plane missing it.
    if status == "False":
        return SignalState.ALIVE, "False, so its kubelet still reports", None
    if status == "Unknown":
        return SignalState.SILENT, "Unknown", None
    return SignalState.UNREADABLE, "it has no Ready condition", None


def ready_condition(node: KubeObject) -> Mapping[str, Any]:
    """The Ready condition; empty where there is none that can be told. Raises UnreadableError."""
    for condition in node.mappings("status", "conditions"):
        if condition.get("type") == "Ready" and condition.get("status") in (
            "True",
            "False",
            "Unknown",
        ):
            return condition
    return {}


def renewal(lease: KubeObject | None) -> tuple[str, datetime | None]:
    """The Lease's renewTime, by the host's clock, and when it was stored, by the API server's."""
    if lease is None:
        return "", None
    return lease.text("spec", "renewTime"), lease.written_at("spec", "renewTime")


def freshness(
    written: str, stored: datetime | None, now: datetime, before: str | None
) -> tuple[SignalState, str, timedelta | None]:
    """What a sign says that its host wrote at `written`.

    The host's clock may be wrong, so the time at which the API server stored the sign is preferred
    where it is recorded.
    """
    if not written:
        return SignalState.SILENT, "none", None
    try:
        age = now - (stored or parse_time(written))
    except (ValueError, OverflowError):
        return SignalState.UNREADABLE, f"{written!r} is not a time", None
    if before is not None and written != before:
        return SignalState.ALIVE, f"it advances ({before}, then {written})", None
    if age < -SKEW:
        return SignalState.UNREADABLE, f"{written} lies in the future", None
    if age < FRESH:
        return SignalState.ALIVE, f"{max(int(age.total_seconds()), 0)}s ago", age
    return SignalState.SILENT, f"{age // timedelta(minutes=1)}m ago", age


def is_fresh(lease: Signal) -> bool:
    """Whether a lease was renewed so recently that its kubelet answers."""
    return lease.says is SignalState.ALIVE and (lease.age is None or lease.age < ANSWERING)


IS_READY = Signal("Ready", SignalState.ALIVE, "True")
"""The signal of a node that the control plane takes for Ready."""


@dataclass(frozen=True)
class Silence:
    """A node whose kubelet does not answer: it is not Ready, or its Lease is stale."""

    node: str
    signs: str
    """Ready and lease, as they were seen."""
    since: datetime | None
    """The last renewal of a stale Lease, otherwise since when it is not Ready; None: not known."""
    evicts: str
    """What Kubernetes does about the pods there, and when."""
    is_overdue: bool
    """Whether it should have done so already."""


EVICTION = timedelta(minutes=5)
"""How long pods tolerate a node that does not answer (admission DefaultTolerationSeconds)."""

POSTED = timedelta(minutes=6)
"""A kubelet posts the status of its node every five minutes, if nothing changes."""

LATE = timedelta(minutes=1)
"""An eviction that is so much overdue does not come by itself."""


def silence(name: str, snapshot: ClusterSnapshot) -> Silence | None:
    """Why the kubelet of a node does not answer; None where it does.

    Where its Lease could not be read, as of a support bundle, the Node has to do: it is Ready, and
    its status is not older than a kubelet lets it become. Raises UnreadableError.
    """
    now = snapshot.taken_at
    node = snapshot.one(ObjectRef("", name, NODE))
    lease = None
    try:
        lease = snapshot.one(ObjectRef(LEASE_NAMESPACE, name, LEASE))
        can_be_read, renewed = True, signal("lease", lambda: freshness(*renewal(lease), now, None))
    except UnreadableError as error:
        can_be_read, renewed = False, Signal("lease", SignalState.UNREADABLE, in_short(error.why))
    state = signal("Ready", lambda: ready(node))
    condition = ready_condition(node) if node is not None else {}
    if state == IS_READY:
        posted = _time(condition.get("lastHeartbeatTime"))
        is_old = posted is not None and now - posted > POSTED
        if is_fresh(renewed) or not (can_be_read or is_old):
            return None
    since = _time(condition.get("lastTransitionTime")) if state != IS_READY else None
    if not is_fresh(renewed):
        written, stored = renewal(lease)
        since = stored or _time(written) or since
    evicts, is_overdue = _eviction(node, now)
    return Silence(name, f"Ready: {state.text}, lease: {renewed.text}", since, evicts, is_overdue)


def _time(written: object) -> datetime | None:
    try:
        return parse_time(written) if isinstance(written, str) else None
    except ValueError:
        return None


def _eviction(node: KubeObject | None, now: datetime) -> tuple[str, bool]:
    """When kube-controller-manager deletes the pods of a node, and whether that is overdue.

    Raises UnreadableError.
    """
    if node is None:
        return "Kubernetes deletes the pods of a node that is gone within a minute or two", False
    times = [
        _time(taint.get("timeAdded"))
        for taint in node.mappings("spec", "taints")
        if taint.get("effect") == "NoExecute"
        and taint.get("key") in ("node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready")
    ]
    if not times:
        return (
            f"Kubernetes deletes it {human(EVICTION)} after it has marked the node as unreachable,"
            " which it has not done yet",
            False,
        )
    known = [time for time in times if time is not None]
    if not known:
        return f"Kubernetes deletes it {human(EVICTION)} after it marked the node", False
    due = min(known) + EVICTION
    if now < due + LATE:
        when = f"{due:%H:%M:%S} UTC"
        return f"Kubernetes deletes it at {when}, if its tolerations are the usual ones", False
    return (
        f"Kubernetes should have deleted it at {due:%Y-%m-%d %H:%M:%S} UTC: does"
        " kube-controller-manager run? It evicts nothing while most nodes do not answer",
        True,
    )
