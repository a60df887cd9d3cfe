"""What can be seen of a node that may have lost its power.

Nothing in Kubernetes proves that a host is off: a partitioned node looks the same. So the
operator's word is needed, and every sign of life contradicts it. Thresholds are those of
KubeVirt's own node controller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, unique
from typing import Any

from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.harvester.target import GUEST, Target
from kubectl_harvester_stuck.k8s.kinds import (
    HARVESTER_NAMESPACE,
    LEASE,
    LEASE_NAMESPACE,
    NODE,
    POD,
)
from kubectl_harvester_stuck.k8s.objects import KubeObject, parse_time
from kubectl_harvester_stuck.k8s.reads import Read, declared

FRESH = timedelta(minutes=5)
"""A sign of life younger than this contradicts a power cut (KubeVirt: watch/node/node.go)."""

ANSWERING = timedelta(minutes=1)
"""A kubelet renews its Lease every ten seconds; one that did not for so long does not answer."""

SKEW = timedelta(minutes=1)
"""So far ahead may the clock of a host be; a sign further in the future cannot be read."""

HEARTBEAT = "kubevirt.io/heartbeat"

SIGNS = declared(
    Read(NODE, own=True),
    Read(LEASE, LEASE_NAMESPACE, own=True),
    Read(POD, HARVESTER_NAMESPACE, labels="kubevirt.io=virt-handler"),
)
"""What the four signs of a node are read from."""

NODES = declared(*SIGNS, *GUEST)
"""What a node is read from: one that is younger than the guest has been replaced."""


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


@dataclass(frozen=True)
class NodeReading:
    """Everything that was seen of one node."""

    name: str
    kubelet_answers: bool
    """Ready, a fresh Lease, and not replaced: what its kubelet says of pods can be believed."""
    is_replaced: bool
    """The Node was created after the guest, so it speaks for another installation."""
    answering_since: datetime | None
    """When the node last became Ready; None where that is not recorded."""
    signals: tuple[Signal, ...]

    def saying(self, says: SignalState) -> tuple[Signal, ...]:
        """The signals that say so."""
        return tuple(signal for signal in self.signals if signal.says is says)


def read_node(case: Target, name: str) -> NodeReading:
    """Read the four signs of one node; what cannot be read is said, never guessed.

    A sign that differs from the one of an earlier look is a sign of life, whatever its age: clocks
    of hosts are wrong.
    """
    now = case.snapshot.taken_at
    before = case.memory.signs.get(name, {})
    ready = _signal("Ready", lambda: _ready(case.node(name)))
    lease = _signal(
        "lease", lambda: _freshness(*_renewal(case.lease(name)), now, before.get("lease"))
    )
    beat = _signal("heartbeat", lambda: _heartbeat(case.node(name), now, before.get("heartbeat")))
    fresh = lease.says is SignalState.ALIVE and (lease.age is None or lease.age < ANSWERING)
    is_ready = ready == Signal("Ready", SignalState.ALIVE, "True")
    replaced = is_ready and _is_replaced(case, name)
    return NodeReading(
        name=name,
        kubelet_answers=is_ready and fresh and not replaced,
        is_replaced=replaced,
        answering_since=_ready_since(case, name) if ready.says is SignalState.ALIVE else None,
        signals=(
            ready,
            beat,
            lease,
            _signal("virt-handler", lambda: (*_virt_handler(case.virt_handlers(name)), None)),
        ),
    )


def describe(reading: NodeReading) -> str:
    """The four signs of a node in one line."""
    signs = [f"{signal.name}: {signal.text}" for signal in reading.signals]
    return ", ".join([*signs, *(["created after the guest"] if reading.is_replaced else [])])


def signs_of(case: Target, name: str) -> dict[str, str]:
    """The signs of a node that carry a time, as they are written; what cannot be read is left out.

    A later look compares them: whatever advances is written by somebody who lives.
    """
    signs: dict[str, str] = {}
    with suppress(UnreadableError):
        node = case.node(name)
        if node is not None and node.annotations.get(HEARTBEAT):
            signs["heartbeat"] = node.annotations[HEARTBEAT].strip('"')
    with suppress(UnreadableError):
        renewed, _ = _renewal(case.lease(name))
        if renewed:
            signs["lease"] = renewed
    return signs


def _signal(name: str, look: Callable[[], tuple[SignalState, str, timedelta | None]]) -> Signal:
    try:
        says, text, age = look()
    except UnreadableError as error:
        return Signal(name, SignalState.UNREADABLE, error.why)
    return Signal(name, says, text, age)


def _ready(node: KubeObject | None) -> tuple[SignalState, str, None]:
    if node is None:
        return SignalState.SILENT, "no such node", None
    status = _condition(node).get("status")
    if status == "True":
        return SignalState.ALIVE, "True", None
    # False is the kubelet itself speaking; Unknown is the control plane missing it.
    if status == "False":
        return SignalState.ALIVE, "False, so its kubelet still reports", None
    if status == "Unknown":
        return SignalState.SILENT, "Unknown", None
    return SignalState.UNREADABLE, "it has no Ready condition", None


def _is_replaced(case: Target, name: str) -> bool:
    """Whether the Node is younger than the guest; where that cannot be read, it may be."""
    try:
        node = case.node(name)
        return node is not None and case.is_younger(node)
    except UnreadableError:
        return True


def _condition(node: KubeObject) -> Mapping[str, Any]:
    """The Ready condition; empty where there is none that can be told."""
    for condition in node.mappings("status", "conditions"):
        if condition.get("type") == "Ready" and condition.get("status") in (
            "True",
            "False",
            "Unknown",
        ):
            return condition
    return {}


def _ready_since(case: Target, name: str) -> datetime | None:
    with suppress(UnreadableError, ValueError):
        node = case.node(name)
        written = _condition(node).get("lastTransitionTime") if node is not None else None
        return parse_time(written) if isinstance(written, str) else None
    return None


def _heartbeat(
    node: KubeObject | None, now: datetime, before: str | None
) -> tuple[SignalState, str, timedelta | None]:
    if node is None:
        return SignalState.SILENT, "no such node", None
    written = node.annotations.get(HEARTBEAT, "").strip('"')
    return _freshness(written, node.written_at("metadata", "annotations", HEARTBEAT), now, before)


def _renewal(lease: KubeObject | None) -> tuple[str, datetime | None]:
    """The Lease's renewTime, by the host's clock, and when it was stored, by the API server's."""
    if lease is None:
        return "", None
    return lease.text("spec", "renewTime"), lease.written_at("spec", "renewTime")


def _freshness(
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


def _virt_handler(pods: tuple[KubeObject, ...]) -> tuple[SignalState, str]:
    for pod in pods:
        for condition in pod.mappings("status", "conditions"):
            if condition.get("type") == "Ready" and condition.get("status") == "True":
                return SignalState.ALIVE, f"{pod.ref.name} is Ready"
    return SignalState.SILENT, "not Ready" if pods else "none"
