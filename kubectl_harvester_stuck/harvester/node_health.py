"""What can be seen of a node that may have lost its power.

Nothing in Kubernetes proves that a host is off: a partitioned node looks the same. So the
operator's word is needed, and every sign of life contradicts it. Thresholds are those of
KubeVirt's own node controller.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.harvester import workloads
from kubectl_harvester_stuck.harvester.kubelet import (
    IS_READY,
    KUBELET,
    SKEW,
    Signal,
    SignalState,
    freshness,
    is_fresh,
    ready,
    ready_condition,
    renewal,
    signal,
)
from kubectl_harvester_stuck.harvester.target import GUEST, Target
from kubectl_harvester_stuck.k8s.kinds import POD
from kubectl_harvester_stuck.k8s.objects import KubeObject, parse_time
from kubectl_harvester_stuck.k8s.reads import declared

HEARTBEAT = "kubevirt.io/heartbeat"

SIGNS = declared(*KUBELET, *workloads.reads(POD, labels=workloads.VIRT_HANDLER))
"""What the four signs of a node are read from."""

NODES = declared(*SIGNS, *GUEST)
"""What a node is read from: one that is younger than the guest has been replaced."""


__all__ = ["SKEW", "NodeReading", "Signal", "SignalState", "describe", "read_node", "signs_of"]


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


def read_node(target: Target, name: str) -> NodeReading:
    """Read the four signs of one node; what cannot be read is said, never guessed.

    A sign that differs from the one of an earlier look is a sign of life, whatever its age: clocks
    of hosts are wrong.
    """
    now = target.snapshot.taken_at
    before = target.memory.signs.get(name, {})
    says_ready = signal("Ready", lambda: ready(target.node(name)))
    lease = signal(
        "lease", lambda: freshness(*renewal(target.lease(name)), now, before.get("lease"))
    )
    beat = signal("heartbeat", lambda: _heartbeat(target.node(name), now, before.get("heartbeat")))
    is_ready = says_ready == IS_READY
    replaced = is_ready and _is_replaced(target, name)
    return NodeReading(
        name=name,
        kubelet_answers=is_ready and is_fresh(lease) and not replaced,
        is_replaced=replaced,
        answering_since=_ready_since(target, name)
        if says_ready.says is SignalState.ALIVE
        else None,
        signals=(
            says_ready,
            beat,
            lease,
            signal("virt-handler", lambda: (*_virt_handler(target.virt_handlers(name)), None)),
        ),
    )


def describe(reading: NodeReading) -> str:
    """The four signs of a node in one line."""
    signs = [f"{signal.name}: {signal.text}" for signal in reading.signals]
    return ", ".join([*signs, *(["created after the guest"] if reading.is_replaced else [])])


def signs_of(target: Target, name: str) -> dict[str, str]:
    """The signs of a node that carry a time, as they are written; what cannot be read is left out.

    A later look compares them: whatever advances is written by somebody who lives.
    """
    signs: dict[str, str] = {}
    with suppress(UnreadableError):
        node = target.node(name)
        if node is not None and node.annotations.get(HEARTBEAT):
            signs["heartbeat"] = node.annotations[HEARTBEAT].strip('"')
    with suppress(UnreadableError):
        renewed, _ = renewal(target.lease(name))
        if renewed:
            signs["lease"] = renewed
    return signs


def _is_replaced(target: Target, name: str) -> bool:
    """Whether the Node is younger than the guest; where that cannot be read, it may be."""
    try:
        node = target.node(name)
        return node is not None and target.is_younger(node)
    except UnreadableError:
        return True


def _ready_since(target: Target, name: str) -> datetime | None:
    with suppress(UnreadableError, ValueError):
        node = target.node(name)
        written = ready_condition(node).get("lastTransitionTime") if node is not None else None
        return parse_time(written) if isinstance(written, str) else None
    return None


def _heartbeat(
    node: KubeObject | None, now: datetime, before: str | None
) -> tuple[SignalState, str, timedelta | None]:
    if node is None:
        return SignalState.SILENT, "no such node", None
    written = node.annotations.get(HEARTBEAT, "").strip('"')
    return freshness(written, node.written_at("metadata", "annotations", HEARTBEAT), now, before)


def _virt_handler(pods: tuple[KubeObject, ...]) -> tuple[SignalState, str]:
    for pod in pods:
        for condition in pod.mappings("status", "conditions"):
            if condition.get("type") == "Ready" and condition.get("status") == "True":
                return SignalState.ALIVE, f"{pod.ref.name} is Ready"
    return SignalState.SILENT, "not Ready" if pods else "none"
