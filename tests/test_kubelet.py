"""Whether the kubelet of a node answers, and what becomes of the pods there."""

from __future__ import annotations

from datetime import timedelta

import pytest

from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.harvester.kubelet import Silence, silence
from kubectl_harvester_stuck.k8s.kinds import LEASE, NODE
from tests.support import builders
from tests.support.builders import NOW, Body, ago, snapshot, stored


def node(ready: str = "True", *, posted: str | None = None, taint: str | None = None) -> Body:
    body = builders.node("node-2", ready)
    (condition,) = [item for item in body["status"]["conditions"] if item["type"] == "Ready"]
    condition["lastTransitionTime"] = ago(hours=1)
    if posted is not None:
        condition["lastHeartbeatTime"] = posted
    if taint is not None:
        key = "node.kubernetes.io/unreachable"
        body["spec"] = {"taints": [{"key": key, "effect": "NoExecute", "timeAdded": taint}]}
    return stored(body)


def lease(renewed: str) -> Body:
    return stored(builders.lease("node-2", renewed))


def look(*bodies: Body, **more: object) -> Silence | None:
    return silence("node-2", snapshot(*bodies, **more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ready", "renewed", "since"),
    [
        ("True", ago(seconds=59), None),
        ("True", ago(seconds=61), timedelta(seconds=61)),
        ("Unknown", ago(minutes=3), timedelta(minutes=3)),
        ("Unknown", ago(seconds=5), timedelta(hours=1)),
        ("False", ago(seconds=5), timedelta(hours=1)),
    ],
)
def test_a_kubelet_answers_that_is_ready_and_renews_its_lease(
    ready: str, renewed: str, since: timedelta | None
) -> None:
    found = look(node(ready), lease(renewed))
    assert (found is None) is (since is None)
    if found is not None and since is not None:
        assert found.since == NOW - since


def test_a_node_that_does_not_exist_does_not_answer() -> None:
    found = look(lease(ago(seconds=5)))
    assert found is not None
    assert "no such node" in found.signs
    assert "is gone" in found.evicts
    found = look(node())
    assert found is not None
    assert found.signs == "Ready: True, lease: none"


def test_a_lease_that_cannot_be_read_leaves_the_word_to_the_node() -> None:
    files = {LEASE: "namespace not in the bundle"}
    assert look(node(), unreadable=files) is None
    assert look(node(posted=ago(minutes=5)), unreadable=files) is None
    assert look(node(posted=ago(minutes=7)), unreadable=files) is not None
    assert look(node("Unknown"), unreadable=files) is not None


def test_a_node_that_cannot_be_read_is_not_taken_for_silent() -> None:
    with pytest.raises(UnreadableError, match="Forbidden"):
        look(lease(ago(hours=1)), unreadable={NODE: "Forbidden"})


@pytest.mark.parametrize(
    ("taint", "says", "is_overdue"),
    [
        (None, "has not done yet", False),
        (ago(minutes=2), "deletes it at 03:33:00 UTC", False),
        (ago(minutes=5, seconds=59), "deletes it at 03:29:01 UTC", False),
        (ago(minutes=7), "should have deleted it at 2026-11-23 03:28:00 UTC", True),
    ],
)
def test_what_kubernetes_does_about_the_pods_is_told_with_its_time(
    taint: str | None, says: str, is_overdue: bool
) -> None:
    found = look(node("Unknown", taint=taint), lease(ago(minutes=3)))
    assert found is not None
    assert says in found.evicts
    assert found.is_overdue is is_overdue
