"""What can be seen of a node that may have lost its power.

Nothing in Kubernetes proves that a host is off: a partitioned node looks the same. So the
operator's word is needed, and every sign of life contradicts it. Thresholds are those of
KubeVirt's own node controller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, unique

from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.harvester.target import Target
from kubectl_harvester_stuck.k8s.objects import KubeObject, parse_time

FRESH = timedelta(minutes=5)
"""A sign of life younger than this contradicts a power cut (KubeVirt: watch/node/node.go)."""

HEARTBEAT = "kubevirt.io/heartbeat"


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


@dataclass(frozen=True)
class NodeReading:
    """Everything that was seen of one node."""

    name: str
    kubelet_answers: bool
    """Ready=True: the kubelet reports, so what it says of pods can be believed."""
    signals: tuple[Signal, ...]

    def saying(self, says: SignalState) -> tuple[Signal, ...]:
        """The signals that say so."""
        return tuple(signal for signal in self.signals if signal.says is says)


def read_node(case: Target, name: str) -> NodeReading:
    """Read the four signs of one node; what cannot be read is said, never guessed."""
    ready = _signal("Ready", lambda: _ready(case.node(name)))
    return NodeReading(
        name=name,
        kubelet_answers=ready == Signal("Ready", SignalState.ALIVE, "True"),
        signals=(
            ready,
            _signal("heartbeat", lambda: _heartbeat(case.node(name), case.snapshot.taken_at)),
            _signal("lease", lambda: _lease(case.lease(name), case.snapshot.taken_at)),
            _signal("virt-handler", lambda: _virt_handler(case.virt_handlers(name))),
        ),
    )


def _signal(name: str, look: Callable[[], tuple[SignalState, str]]) -> Signal:
    try:
        says, text = look()
    except UnreadableError as error:
        return Signal(name, SignalState.UNREADABLE, error.why)
    return Signal(name, says, text)


def _ready(node: KubeObject | None) -> tuple[SignalState, str]:
    if node is None:
        return SignalState.SILENT, "no such node"
    for condition in node.mappings("status", "conditions"):
        if condition.get("type") == "Ready":
            status = condition.get("status")
            if status == "True":
                return SignalState.ALIVE, "True"
            # False is the kubelet itself speaking; Unknown is the control plane missing it.
            if status == "False":
                return SignalState.ALIVE, "False, so its kubelet still reports"
            if status == "Unknown":
                return SignalState.SILENT, "Unknown"
    return SignalState.UNREADABLE, "it has no Ready condition"


def _heartbeat(node: KubeObject | None, now: datetime) -> tuple[SignalState, str]:
    if node is None:
        return SignalState.SILENT, "no such node"
    written = node.annotations.get(HEARTBEAT)
    if not written:
        return SignalState.SILENT, "none"
    return _freshness(written.strip('"'), now)


def _lease(lease: KubeObject | None, now: datetime) -> tuple[SignalState, str]:
    written = lease.text("spec", "renewTime") if lease is not None else None
    return _freshness(written, now) if written else (SignalState.SILENT, "none")


def _freshness(written: str, now: datetime) -> tuple[SignalState, str]:
    try:
        age = now - parse_time(written)
    except ValueError:
        return SignalState.UNREADABLE, f"{written!r} is not a time"
    if age < FRESH:
        return SignalState.ALIVE, f"{max(int(age.total_seconds()), 0)}s ago"
    return SignalState.SILENT, f"{age // timedelta(minutes=1)}m ago"


def _virt_handler(pods: tuple[KubeObject, ...]) -> tuple[SignalState, str]:
    for pod in pods:
        for condition in pod.mappings("status", "conditions"):
            if condition.get("type") == "Ready" and condition.get("status") == "True":
                return SignalState.ALIVE, f"{pod.ref.name} is Ready"
    return SignalState.SILENT, "not Ready" if pods else "none"
