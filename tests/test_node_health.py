"""The four signs of a node, from its objects: alive, silent, or not to be read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kubectl_harvester_stuck.harvester.node_health import (
    HEARTBEAT,
    NODES,
    NodeReading,
    SignalState,
    describe,
    read_node,
    signs_of,
)
from kubectl_harvester_stuck.harvester.node_health import (
    SIGNS as READS_OF_SIGNS,
)
from kubectl_harvester_stuck.harvester.target import Memory, Target
from kubectl_harvester_stuck.k8s.kinds import LEASE, LEASE_NAMESPACE, NODE, POD, VMI, Kind
from kubectl_harvester_stuck.k8s.objects import parse_time
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


def test_what_the_signs_are_read_from_is_declared() -> None:
    handlers = [read for read in READS_OF_SIGNS if read.kind is POD]
    assert {read.labels for read in handlers} == {"kubevirt.io=virt-handler"}
    assert {NODE, LEASE, POD} <= {read.kind for read in READS_OF_SIGNS}
    assert {*READS_OF_SIGNS} < {*NODES}
    assert VMI in {read.kind for read in NODES}


# A sign against the clock of the API server, and against an earlier look


def beat(written: str, *, stored_at: str | None = None) -> Body:
    """A node with a heartbeat, and when the API server stored that."""
    body = heartbeat(written)
    if stored_at is None:
        return body
    owned: Body = {"f:metadata": {"f:annotations": {f"f:{HEARTBEAT}": {}}}}
    entry = {"manager": "virt-handler", "time": stored_at, "fieldsV1": owned}
    return {**body, "metadata": {**body["metadata"], "managedFields": [entry]}}


def sign(name: str, *bodies: Body, before: dict[str, str] | None = None) -> tuple[SignalState, str]:
    memory = Memory(signs={"node-2": before or {}, "node-1": {"heartbeat": "x", "lease": "x"}})
    reading = read_node(Target(TARGET, snapshot(*bodies), memory), "node-2")
    (found,) = [item for item in reading.signals if item.name == name]
    return found.says, found.text


def test_a_heartbeat_is_as_old_as_its_storing() -> None:
    old, new = ago(minutes=20), ago(seconds=9)
    assert sign("heartbeat", beat(old, stored_at=new)) == (ALIVE, "9s ago")
    assert sign("heartbeat", beat(new, stored_at=old)) == (SILENT, "20m ago")
    assert sign("heartbeat", beat(old)) == (SILENT, "20m ago")
    # Somebody else wrote another annotation.
    body = beat(old, stored_at=old)
    owned: Body = {"f:metadata": {"f:annotations": {"f:example.com/mine": {}}}}
    entry = {"manager": "kubectl", "time": new, "fieldsV1": owned}
    body["metadata"]["managedFields"].append(entry)
    assert sign("heartbeat", body) == (SILENT, "20m ago")


@pytest.mark.parametrize("name", ["heartbeat", "lease"])
def test_a_sign_that_is_not_the_one_of_the_look_before_is_life(name: str) -> None:
    old, older = ago(minutes=20), ago(minutes=21)
    bodies = [heartbeat(old), lease(renewTime=old)]
    advances = f"it advances ({older}, then {old})"
    assert sign(name, *bodies, before={name: older}) == (ALIVE, advances)
    assert sign(name, *bodies, before={name: old}) == (SILENT, "20m ago")
    assert sign(name, *bodies) == (SILENT, "20m ago")


def test_signs_are_kept_for_the_next_look_as_they_are_written() -> None:
    old = ago(minutes=20)

    def signs(*bodies: Body, unreadable: Kind | None = None) -> dict[str, str]:
        blind = {} if unreadable is None else {unreadable: "Forbidden"}
        return signs_of(Target(TARGET, snapshot(*bodies, unreadable=blind)), "node-2")

    # virt-handler writes it as JSON.
    both = [heartbeat(f'"{old}"'), lease(renewTime=old)]
    assert signs(*both) == {"heartbeat": old, "lease": old}
    assert signs(*both, unreadable=NODE) == {"lease": old}
    assert signs(*both, unreadable=LEASE) == {"heartbeat": old}
    assert signs() == signs(heartbeat(None), lease()) == {}
    other = stored(builders.node("node-1", heartbeat=old))
    assert signs(other) == {}


# A node that was replaced, and since when it answers


def born(body: Body, when: str) -> Body:
    return {**body, "metadata": {**body["metadata"], "creationTimestamp": when}}


def since_reinstalled(ready: str, *, node_born: str, unreadable: Kind | None = None) -> NodeReading:
    node, *rest = dead_node(ready=ready, lease=ago(seconds=5))
    guest = born(stored(builders.vmi("shop", "web", "node-2")), ago(hours=1))
    return read(born(node, node_born), guest, *rest, unreadable=unreadable)


def test_a_node_that_is_younger_than_the_guest_speaks_for_another_installation() -> None:
    for minutes, replaced in ((30, True), (90, False)):
        reading = since_reinstalled("True", node_born=ago(minutes=minutes))
        assert reading.is_replaced is replaced
        assert reading.kubelet_answers is not replaced
        assert describe(reading).endswith(", created after the guest") is replaced


def test_a_node_that_does_not_answer_is_not_called_replaced() -> None:
    reading = since_reinstalled("Unknown", node_born=ago(minutes=30))
    assert reading.is_replaced is False
    assert not reading.kubelet_answers


def test_where_the_guest_cannot_be_read_the_node_may_have_been_replaced() -> None:
    reading = since_reinstalled("True", node_born=ago(minutes=90), unreadable=VMI)
    assert reading.is_replaced is True
    assert not reading.kubelet_answers


def test_without_a_node_nothing_was_replaced() -> None:
    assert read().is_replaced is False
    signs = "Ready: no such node, heartbeat: no such node, lease: none, virt-handler: none"
    assert describe(read()) == signs


@pytest.mark.parametrize(
    ("condition", "since"),
    [
        ({"status": "True", "lastTransitionTime": ago(minutes=7)}, parse_time(ago(minutes=7))),
        # Its kubelet reports, so it may say so of its pods.
        ({"status": "False", "lastTransitionTime": ago(minutes=7)}, parse_time(ago(minutes=7))),
        ({"status": "Unknown", "lastTransitionTime": ago(minutes=7)}, None),
        ({"status": "True"}, None),
        ({"status": "True", "lastTransitionTime": 5}, None),
        ({"status": "True", "lastTransitionTime": "soon"}, None),
    ],
)
def test_since_when_it_answers_is_what_its_condition_says(
    condition: dict[str, Any], since: object
) -> None:
    body = conditions()
    body["status"] = {"conditions": [{"type": "Ready", **condition}]}
    assert read(stored(body)).answering_since == since


def test_a_kubelet_whose_lease_is_stale_is_not_believed() -> None:
    assert not read(*dead_node(ready="True", lease=ago(minutes=2))).kubelet_answers
    assert read(*dead_node(ready="True", lease=ago(seconds=59))).kubelet_answers


def test_a_lease_that_advances_is_believed_whatever_the_clock_of_its_host() -> None:
    bodies = dead_node(ready="True", lease=ago(minutes=20))
    for before, answers in ((ago(minutes=21), True), (None, False)):
        memory = Memory(signs={"node-2": {"lease": before} if before else {}})
        reading = read_node(Target(TARGET, snapshot(*bodies), memory), "node-2")
        assert reading.kubelet_answers is answers


def test_a_node_that_is_gone_was_not_replaced_although_its_guest_is_known() -> None:
    guest = born(stored(builders.vmi("shop", "web", "node-2")), ago(hours=1))
    assert read(guest, *dead_node()[1:]).is_replaced is False


def test_nothing_answers_where_there_is_no_node() -> None:
    assert read().answering_since is None
    assert read(*live_node(), unreadable=NODE).answering_since is None
