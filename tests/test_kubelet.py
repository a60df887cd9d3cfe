"""Whether the kubelet of a node answers, and what becomes of the pods there."""

from __future__ import annotations

from datetime import timedelta

import pytest

from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.harvester.kubelet import KUBELET, Silence, silence
from kubectl_harvester_stuck.k8s.kinds import LEASE, LEASE_NAMESPACE, NODE
from kubectl_harvester_stuck.k8s.reads import Read
from tests.support import builders
from tests.support.builders import NOW, Body, ago, snapshot, stored

UNREACHABLE = "node.kubernetes.io/unreachable"
NOT_READY = "node.kubernetes.io/not-ready"


def marked(added: str | None, key: str = UNREACHABLE, effect: str = "NoExecute") -> Body:
    """A taint of a node, added then."""
    return {"key": key, "effect": effect, **({"timeAdded": added} if added else {})}


def node(ready: str = "True", *, posted: str | None = None, taints: tuple[Body, ...] = ()) -> Body:
    body = builders.node("node-2", ready)
    (condition,) = [item for item in body["status"]["conditions"] if item["type"] == "Ready"]
    condition["lastTransitionTime"] = ago(hours=1)
    if posted is not None:
        condition["lastHeartbeatTime"] = posted
    if taints:
        body["spec"] = {"taints": list(taints)}
    return stored(body)


def lease(renewed: str, *, stored_at: str | None = None) -> Body:
    """A Lease that its host renewed then, and when the API server stored that."""
    body = stored(builders.lease("node-2", renewed))
    if stored_at is not None:
        owned: Body = {"f:spec": {"f:renewTime": {}}}
        entry = {"manager": "kubelet", "time": stored_at, "fieldsV1": owned}
        body["metadata"]["managedFields"] = [entry]
    return body


def look(*bodies: Body, **more: object) -> Silence | None:
    return silence("node-2", snapshot(*bodies, **more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ready", "renewed", "since"),
    [
        ("True", ago(seconds=59), None),
        ("True", ago(seconds=60), timedelta(seconds=60)),
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
    assert (found.since, found.is_overdue) == (None, False)
    found = look(node())
    assert found is not None
    assert found.signs == "Ready: True, lease: none"


def test_a_lease_that_cannot_be_read_leaves_the_word_to_the_node() -> None:
    files = {LEASE: "namespace not in the bundle"}
    assert look(node(), unreadable=files) is None
    assert look(node(posted=ago(minutes=6)), unreadable=files) is None
    assert look(node(posted=ago(minutes=6, seconds=1)), unreadable=files) is not None
    assert look(node(posted="soon"), unreadable=files) is None
    found = look(node("Unknown", posted=ago(minutes=7)), unreadable=files)
    assert found is not None
    assert found.signs == "Ready: Unknown, lease: namespace not in the bundle"
    assert found.since == NOW - timedelta(hours=1)


def test_a_lease_that_can_be_read_is_believed_before_the_status() -> None:
    assert look(node(posted=ago(minutes=7)), lease(ago(seconds=5))) is None
    assert look(node(posted=ago(minutes=1)), lease(ago(minutes=2))) is not None
    assert look(node(posted=ago(minutes=1))) is not None


def test_what_was_seen_of_a_silent_node_is_told() -> None:
    found = look(node("Unknown"), lease(ago(minutes=20)))
    assert found is not None
    assert (found.node, found.signs) == ("node-2", "Ready: Unknown, lease: 20m ago")


def test_a_lease_is_as_old_as_its_storing() -> None:
    """The clock of a host may be wrong."""
    found = look(node(), lease(ago(seconds=5), stored_at=ago(minutes=3)))
    assert found is not None
    assert found.since == NOW - timedelta(minutes=3)
    assert look(node(), lease(ago(minutes=20), stored_at=ago(seconds=5))) is None
    # Somebody else wrote to the Lease, and renewed nothing.
    body = lease(ago(minutes=3), stored_at=ago(minutes=3))
    owned: Body = {"f:spec": {"f:leaseDurationSeconds": {}}}
    entry = {"manager": "kubectl", "time": ago(seconds=5), "fieldsV1": owned}
    body["metadata"]["managedFields"].append(entry)
    assert look(node(), body) is not None


@pytest.mark.parametrize(("ready", "since"), [("True", None), ("Unknown", timedelta(hours=1))])
def test_a_lease_that_names_no_time_says_nothing_of_since_when(
    ready: str, since: timedelta | None
) -> None:
    found = look(node(ready), lease("soon"))
    assert found is not None
    assert found.signs == f"Ready: {ready}, lease: 'soon' is not a time"
    assert found.since == (since and NOW - since)


@pytest.mark.parametrize("when", ["soon", 5, None])
def test_a_change_whose_time_cannot_be_told_leaves_open_since_when(when: object) -> None:
    body = node("Unknown")
    (condition,) = body["status"]["conditions"]
    condition["lastTransitionTime"] = when
    found = look(body, lease(ago(seconds=5)))
    assert found is not None
    assert found.since is None


def test_a_node_that_does_not_say_whether_it_is_ready_does_not_answer() -> None:
    nothing = node()
    nothing["status"] = {"conditions": []}
    for body in (nothing, node("Perhaps")):
        found = look(body, lease(ago(seconds=5)))
        assert found is not None
        assert found.signs == "Ready: it has no Ready condition, lease: 5s ago"
        assert found.since is None


def test_what_is_read_is_the_node_and_its_lease() -> None:
    assert set(KUBELET) == {Read(NODE, own=True), Read(LEASE, LEASE_NAMESPACE, own=True)}


def test_a_node_that_cannot_be_read_is_not_taken_for_silent() -> None:
    with pytest.raises(UnreadableError, match="Forbidden"):
        look(lease(ago(hours=1)), unreadable={NODE: "Forbidden"})


EARLY = "Kubernetes deletes it 5m after it has marked the node as unreachable, which it has not"


@pytest.mark.parametrize(
    ("taints", "says", "is_overdue"),
    [
        ((), f"{EARLY} done yet", False),
        ((marked(ago(minutes=2)),), "deletes it at 03:33:00 UTC", False),
        ((marked(ago(minutes=2), NOT_READY),), "deletes it at 03:33:00 UTC", False),
        ((marked(ago(minutes=5, seconds=59)),), "deletes it at 03:29:01 UTC", False),
        (
            (marked(ago(minutes=6)),),
            "should have deleted it at 2026-11-23 03:29:00 UTC: does",
            True,
        ),
        # Others stop pods from being scheduled, or are an operator's.
        ((marked(ago(minutes=7), effect="NoSchedule"),), EARLY, False),
        ((marked(ago(minutes=7), "example.com/mine"),), EARLY, False),
        # Of two the first counts.
        (
            (marked(ago(minutes=1)), marked(ago(minutes=3), NOT_READY)),
            "deletes it at 03:32:00 UTC",
            False,
        ),
        ((marked(None), marked(ago(minutes=2), NOT_READY)), "deletes it at 03:33:00 UTC", False),
        ((marked(None),), "Kubernetes deletes it 5m after it marked the node", False),
        ((marked("soon"),), "Kubernetes deletes it 5m after it marked the node", False),
    ],
)
def test_what_kubernetes_does_about_the_pods_is_told_with_its_time(
    taints: tuple[Body, ...], says: str, is_overdue: bool
) -> None:
    found = look(node("Unknown", taints=taints), lease(ago(minutes=3)))
    assert found is not None
    assert says in found.evicts
    assert found.is_overdue is is_overdue
