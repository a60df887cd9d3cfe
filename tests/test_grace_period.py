"""How long a guest gets to shut down by itself, and from when that counts."""

from __future__ import annotations

from datetime import timedelta

import pytest

from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.harvester import grace_period
from kubectl_harvester_stuck.harvester.target import Target
from kubectl_harvester_stuck.k8s.kinds import POD
from tests.support import builders
from tests.support.builders import Body, ago, parsed, snapshot, stored
from tests.test_guards import TARGET

GRACE = "terminationGracePeriodSeconds"


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def guest(asked: float | None, spec: Body | None = None, *, phase: str = "Running") -> Body:
    """A VMI whose deletion was asked for so many seconds ago."""
    body = builders.vmi("shop", "web", "node-2", phase=phase, spec=spec)
    return stored(body, deleted=None if asked is None else ago(seconds=asked))


def launcher(vmi: Body, name: str, asked: float | None, *, ended: bool = False) -> Body:
    """A pod of it; the deletionTimestamp of a pod lies its grace after the request."""
    body = builders.pod("shop", f"virt-launcher-{name}", "node-2", vmi, terminated=ended)
    if asked is None:
        return stored(body)
    return stored(body, deleted=ago(seconds=asked - 45), grace=45)


def left(*bodies: Body) -> tuple[timedelta, timedelta] | None:
    return grace_period.left(Target(TARGET, snapshot(*bodies)))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, 30),
        ({GRACE: None}, 30),
        ({GRACE: 0}, 0),
        ({GRACE: 1}, 1),
        ({GRACE: 120}, 120),
        ({GRACE: 10**9}, 10**9),
    ],
)
def test_a_guest_gets_what_its_vmi_says(spec: dict[str, int | None], expected: int) -> None:
    assert grace_period.of(parsed(guest(None, spec))) == seconds(expected)


def test_a_guest_without_a_vmi_gets_the_default() -> None:
    assert grace_period.of(None) == seconds(30)


@pytest.mark.parametrize("written", [-1, 10**9 + 1, 2**63, True, False, "30", 30.0, [], {}])
def test_a_grace_period_that_is_none_is_unknown(written: object) -> None:
    with pytest.raises(UnreadableError) as error:
        grace_period.of(parsed(guest(None, {GRACE: written})))
    assert error.value.what == "VirtualMachineInstance shop/web"
    assert error.value.why == f"its grace period is {written!r}"


def test_a_pod_gets_fifteen_seconds_more_than_its_guest() -> None:
    assert grace_period.PADDING.total_seconds() == 15


def test_nobody_asked_a_guest_that_is_not_being_deleted() -> None:
    assert left() is None
    vmi = guest(None)
    assert left(vmi) is None
    assert left(vmi, launcher(vmi, "a", None)) is None


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_guest_that_has_ended_needs_no_time(phase: str) -> None:
    assert left(guest(10, phase=phase)) is None
    assert left(guest(10)) == (seconds(10), seconds(30))


@pytest.mark.parametrize(
    ("asked", "grace", "expected"),
    [
        (0, 30, (seconds(0), seconds(30))),
        (29, 30, (seconds(29), seconds(30))),
        (30, 30, None),
        (31, 30, None),
        (119, 120, (seconds(119), seconds(120))),
        (0, 0, None),
    ],
)
def test_it_counts_from_the_deletion_of_the_vmi(
    asked: float, grace: int, expected: tuple[timedelta, timedelta] | None
) -> None:
    assert left(guest(asked, {GRACE: grace})) == expected


def test_a_pod_that_was_told_later_counts_from_then() -> None:
    vmi = guest(100)
    assert left(vmi) is None
    assert left(vmi, launcher(vmi, "a", 20)) == (seconds(20), seconds(30))
    assert left(vmi, launcher(vmi, "a", 20), launcher(vmi, "b", 5)) == (seconds(5), seconds(30))
    assert left(vmi, launcher(vmi, "a", 200)) is None


def test_a_pod_that_has_ended_gets_no_time() -> None:
    vmi = guest(100)
    assert left(vmi, launcher(vmi, "a", 20, ended=True)) is None
    assert left(vmi, launcher(vmi, "a", 20, ended=True), launcher(vmi, "b", 25)) == (
        seconds(25), seconds(30)
    )  # fmt: skip


def test_the_pod_alone_may_have_been_told() -> None:
    vmi = guest(None)
    assert left(vmi, launcher(vmi, "a", 20)) == (seconds(20), seconds(30))


def test_pods_that_cannot_be_read_are_not_taken_for_none() -> None:
    with pytest.raises(UnreadableError):
        grace_period.left(Target(TARGET, snapshot(guest(100), unreadable={POD: "Forbidden"})))
