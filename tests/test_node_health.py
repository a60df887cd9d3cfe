"""The four signs of a node, from its objects: alive, silent, or not to be read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kubectl_harvester_stuck.harvester.node_health import NodeReading, SignalState, read_node
from kubectl_harvester_stuck.harvester.target import Target
from kubectl_harvester_stuck.k8s.kinds import LEASE, LEASE_NAMESPACE, NODE, POD, Kind
from tests.support import builders
from tests.support.builders import Body, ago, bare, snapshot, stored
from tests.test_guards import TARGET, dead_node, live_node

ALIVE, SILENT, UNREADABLE = SignalState.ALIVE, SignalState.SILENT, SignalState.UNREADABLE


def read(*bodies: Body, unreadable: Kind | None = None) -> NodeReading:
    blind = {} if unreadable is None else {unreadable: "Forbidden"}
    return read_node(Target(TARGET, snapshot(*bodies, unreadable=blind)), "node-2")


def conditions(*pairs: tuple[str, str]) -> Body:
    body = builders.node("node-2")
    listed = [{"type": kind, "status": status} for kind, status in pairs]
    return stored({**body, "status": {"conditions": listed}})


def heartbeat(written: str | None) -> Body:
    return stored(builders.node("node-2", heartbeat=written))


def handler(*pairs: tuple[str, str], on: str = "node-2", label: str = "virt-handler") -> Body:
    body = builders.virt_handler(on, ready=False)
    listed = [{"type": kind, "status": status} for kind, status in pairs]
    labels = {"kubevirt.io": label}
    return stored({**body, "metadata": {**body["metadata"], "labels": labels},
                   "status": {"conditions": listed}})  # fmt: skip


def lease(**spec: Any) -> Body:
    return stored(bare(LEASE, LEASE_NAMESPACE, "node-2", spec=spec))


# sign, objects, what it says
SIGNS: list[tuple[str, Callable[[], list[Body]], SignalState, str]] = [
    ("Ready", list, SILENT, "no such node"),
    ("Ready", lambda: [conditions(("Ready", "True"))], ALIVE, "True"),
    (
        "Ready",
        lambda: [conditions(("Ready", "False"))],
        ALIVE,
        "False, so its kubelet still reports",
    ),
    ("Ready", lambda: [conditions(("Ready", "Unknown"))], SILENT, "Unknown"),
    ("Ready", lambda: [conditions(("Ready", "Odd"))], UNREADABLE, "it has no Ready condition"),
    ("Ready", lambda: [conditions()], UNREADABLE, "it has no Ready condition"),
    (
        "Ready",
        lambda: [conditions(("MemoryPressure", "True"), ("Ready", "Unknown"))],
        SILENT,
        "Unknown",
    ),
    ("heartbeat", list, SILENT, "no such node"),
    ("heartbeat", lambda: [heartbeat(None)], SILENT, "none"),
    # virt-handler writes it as JSON.
    ("heartbeat", lambda: [heartbeat(f'"{ago(seconds=7)}"')], ALIVE, "7s ago"),
    ("heartbeat", lambda: [heartbeat(ago(seconds=-60))], ALIVE, "0s ago"),
    (
        "heartbeat",
        lambda: [heartbeat(ago(seconds=-61))],
        UNREADABLE,
        f"{ago(seconds=-61)} lies in the future",
    ),
    ("heartbeat", lambda: [heartbeat(ago(minutes=4, seconds=59))], ALIVE, "299s ago"),
    ("heartbeat", lambda: [heartbeat(ago(minutes=5))], SILENT, "5m ago"),
    ("heartbeat", lambda: [heartbeat(ago(minutes=7, seconds=59))], SILENT, "7m ago"),
    ("heartbeat", lambda: [heartbeat("soon")], UNREADABLE, "'soon' is not a time"),
    ("lease", list, SILENT, "none"),
    ("lease", lambda: [lease()], SILENT, "none"),
    ("lease", lambda: [lease(renewTime=ago(seconds=3))], ALIVE, "3s ago"),
    ("lease", lambda: [lease(renewTime="soon")], UNREADABLE, "'soon' is not a time"),
    ("virt-handler", list, SILENT, "none"),
    (
        "virt-handler",
        lambda: [handler(("Ready", "True"))],
        ALIVE,
        "virt-handler-node-2 is Ready",
    ),
    ("virt-handler", lambda: [handler(("Ready", "False"))], SILENT, "not Ready"),
    ("virt-handler", lambda: [handler(("Initialized", "True"))], SILENT, "not Ready"),
    ("virt-handler", lambda: [handler(("Ready", "True"), on="node-1")], SILENT, "none"),
    ("virt-handler", lambda: [handler(("Ready", "True"), label="virt-api")], SILENT, "none"),
]


@pytest.mark.parametrize(("sign", "objects", "says", "text"), SIGNS)
def test_a_sign_says_what_the_objects_say(
    sign: str, objects: Callable[[], list[Body]], says: SignalState, text: str
) -> None:
    (signal,) = [item for item in read(*objects()).signals if item.name == sign]
    assert (signal.says, signal.text) == (says, text)


@pytest.mark.parametrize(
    ("kind", "blind"),
    [(NODE, {"Ready", "heartbeat"}), (LEASE, {"lease"}), (POD, {"virt-handler"})],
)
def test_what_cannot_be_read_is_no_silence(kind: Kind, blind: set[str]) -> None:
    reading = read(*live_node(), unreadable=kind)
    assert {signal.name for signal in reading.saying(UNREADABLE)} == blind
    assert {signal.text for signal in reading.saying(UNREADABLE)} == {"Forbidden"}


@pytest.mark.parametrize(
    ("ready", "answers"), [("True", True), ("False", False), ("Unknown", False), ("Odd", False)]
)
def test_only_a_kubelet_that_is_ready_can_be_believed(ready: str, answers: bool) -> None:
    reading = read(*dead_node(ready=ready, lease=ago(seconds=5)))
    assert reading.name == "node-2"
    assert reading.kubelet_answers is answers


def test_there_are_four_signs() -> None:
    assert [signal.name for signal in read(*live_node()).signals] == [
        "Ready",
        "heartbeat",
        "lease",
        "virt-handler",
    ]
