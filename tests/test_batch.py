"""Turns of many targets: a shared look is never older than its targets, nor than what they do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timezone
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from kubectl_harvester_stuck.errors import StuckError
from kubectl_harvester_stuck.harvester.target import State
from kubectl_harvester_stuck.k8s.kinds import VM
from kubectl_harvester_stuck.k8s.objects import ObjectRef
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot
from kubectl_harvester_stuck.k8s.source import PARALLEL_REQUESTS
from kubectl_harvester_stuck.release.batch import FRESH, GROUP, OLDEST, Turn, Turns
from kubectl_harvester_stuck.release.model import (
    GuardResult,
    GuardState,
    Outcome,
    Plan,
    ReleaseRequest,
    TargetReport,
)
from kubectl_harvester_stuck.release.target_run import TargetRun

if TYPE_CHECKING:
    from kubectl_harvester_stuck.release.batch import Batch
    from kubectl_harvester_stuck.release.context import ReleaseContext
    from kubectl_harvester_stuck.release.target_run import CommandRecord

SOON = 10.0
REFS = [ObjectRef("shop", f"web-{number}", VM) for number in range(40)]


class Clock:
    """Time that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Cluster:
    """Looks at nothing, and tells who looked when."""

    def __init__(self) -> None:
        self.looks: list[tuple[float, list[ObjectRef]]] = []
        self.fails = False

    def look(self, refs: Sequence[ObjectRef]) -> ClusterSnapshot:
        self.looks.append((time.monotonic(), list(refs)))
        if self.fails and len(refs) > 1:
            raise StuckError("no")
        return ClusterSnapshot(datetime.now(timezone.utc))


@contextmanager
def threads(turns: Turns, number: int) -> Iterator[ThreadPoolExecutor]:
    """A pool that ends also when a test fails: whoever still waits then goes on."""
    pool = ThreadPoolExecutor(number)
    try:
        yield pool
    finally:
        with turns._changed:
            for turn in turns._waiting:
                turn.is_over = True
            turns._changed.notify_all()
        pool.shutdown()


def taken(turns: Turns, refs: Sequence[ObjectRef], pool: ThreadPoolExecutor) -> list[Turn]:
    """Turns of a group that has looked; the first look was that of `REFS[0]`, alone."""
    first = Turn(REFS[0], turns)
    first.take()
    others = [Turn(ref, turns) for ref in refs]
    asked = []
    for number, turn in enumerate(others, 1):
        asked.append(pool.submit(turn.take))
        until(lambda number=number: len(turns._waiting) == number)  # in this order
    first.give()
    for one in asked:
        one.result(SOON)
    return others


def until(holds: object) -> None:
    deadline = time.monotonic() + SOON
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_those_who_wait_share_a_look_that_begins_after_the_changes_before_it() -> None:
    cluster = Cluster()
    turns = Turns(cluster.look, Clock())
    with threads(turns, 8) as pool:
        others = taken(turns, REFS[1:6], pool)
        seen = {id(one.look()) for one in others}
        late = pool.submit(Turn(REFS[6], turns).take)
        for one in others[1:]:
            one.give()
        assert len(seen) == 1, "one look for each"
        assert not late.done(), "it looks although a change of the group before is still to come"
        others[0].give()
        late.result(SOON)
    assert [refs for _, refs in cluster.looks] == [REFS[1:6]]


def test_a_group_has_a_bound() -> None:
    cluster = Cluster()
    turns = Turns(cluster.look, Clock())

    def work(ref: ObjectRef) -> None:
        turn = Turn(ref, turns)
        turn.take()
        turn.give()

    first = Turn(REFS[0], turns)
    first.take()
    with threads(turns, len(REFS)) as pool:
        asked = [pool.submit(work, ref) for ref in REFS[1:]]
        until(lambda: len(turns._waiting) == len(asked))
        first.give()
        for one in asked:
            one.result(SOON)
    sizes = [len(refs) for _, refs in cluster.looks]
    assert sizes == [GROUP, GROUP, len(REFS) - 1 - 2 * GROUP]


def test_nobody_acts_on_what_was_read_before_they_asked_or_before_the_last_changes() -> None:
    cluster, running, most = Cluster(), 0, 0
    turns, guard = Turns(cluster.look, Clock()), threading.Lock()
    asked: dict[ObjectRef, list[float]] = {ref: [] for ref in REFS}
    acted: list[tuple[float, ObjectRef]] = []

    def work(ref: ObjectRef) -> None:
        nonlocal running, most
        turn = Turn(ref, turns)
        for _ in range(3):
            asked[ref].append(time.monotonic())
            turn.take()
            turn.look()
            with guard:
                running += 1
                most = max(most, running)
            time.sleep(0.002)
            with guard:
                running -= 1
                acted.append((time.monotonic(), ref))
            turn.give()

    with threads(turns, len(REFS)) as pool:
        list(pool.map(work, REFS))
    assert most <= PARALLEL_REQUESTS
    for ref in REFS:
        mine = [at for at, refs in cluster.looks if ref in refs]
        assert [look >= ask for look, ask in zip(mine, asked[ref], strict=True)] == [True] * 3
    for before, (at, refs) in pairwise(cluster.looks):
        if len(refs) > 1 and len(before[1]) > 1:
            done = {ref for when, ref in acted if before[0] <= when <= at}
            assert done >= set(before[1]), "the group before had not acted yet"


@pytest.mark.parametrize(
    ("takes", "counts"), [(0.0, FRESH), (FRESH / 2, FRESH), (7.0, 7.0), (40.0, OLDEST)]
)
def test_what_was_seen_too_long_ago_is_looked_at_again_alone(takes: float, counts: float) -> None:
    clock = Clock()

    class Slow(Cluster):
        def look(self, refs: Sequence[ObjectRef]) -> ClusterSnapshot:
            clock.now += takes
            return super().look(refs)

    cluster = Slow()
    turns = Turns(cluster.look, clock)
    with threads(turns, 8) as pool:
        first, second = taken(turns, REFS[1:3], pool)
        clock.now = takes + counts
        first.look()
        assert len(cluster.looks) == 1
        clock.now += 0.01
        second.look()
    assert [refs for _, refs in cluster.looks] == [REFS[1:3], [REFS[2]]]


def test_a_look_that_fails_for_a_group_is_tried_for_each() -> None:
    cluster = Cluster()
    cluster.fails = True
    turns = Turns(cluster.look, Clock())
    with threads(turns, 8) as pool:
        for one in taken(turns, REFS[1:4], pool):
            one.look()
            one.give()
    assert [refs for _, refs in cluster.looks] == [REFS[1:4], [REFS[1]], [REFS[2]], [REFS[3]]]


def test_who_cannot_act_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns(Cluster().look, Clock())
    with threads(turns, 4) as pool:
        first, second = taken(turns, REFS[1:3], pool)
        first.give()
        with monkeypatch.context() as patched:
            patched.setattr(turns.acting, "acquire", no_memory)
            asked = Turn(REFS[3], turns)
            late = pool.submit(asked.take)
            until(lambda: len(turns._waiting) == 1)
            second.give()
            with pytest.raises(MemoryError):
                late.result(SOON)
        asked.give()
        pool.submit(Turn(REFS[4], turns).take).result(SOON)


def no_memory(*_: object) -> bool:
    raise MemoryError


def test_an_interrupt_while_a_turn_is_waited_for_ends_the_target_without_a_look() -> None:
    cluster, interrupts = Cluster(), SimpleNamespace(pressed=False)

    class Pressed(Turns):
        def join(self, turn: Turn) -> None:
            super().join(turn)
            interrupts.pressed = True

    refused = GuardResult("any", GuardState.REFUSE, "why")
    plan = Plan(REFS[0], "uid", "1", State.TERMINATING, None, None, (), (refused,), ())
    target = TargetRun(
        cast("ReleaseContext", SimpleNamespace(interrupts=interrupts)),
        cast("CommandRecord", None),
        plan,
        ReleaseRequest(),
        cast("Batch", SimpleNamespace(turns=Pressed(cluster.look, Clock()))),
    )
    end = target._go_on()
    assert isinstance(end, TargetReport)
    assert (end.result, end.reason) == (Outcome.STILL_THERE, "interrupted")
    assert cluster.looks == []


def test_who_cannot_wait_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns(Cluster().look, Clock())

    def work(ref: ObjectRef) -> None:
        turn = Turn(ref, turns)
        try:
            turn.take()
        finally:
            turn.give()

    first = Turn(REFS[0], turns)
    first.take()
    with threads(turns, 4) as pool:
        with monkeypatch.context() as patched:
            patched.setattr(turns._changed, "wait_for", no_memory)
            with pytest.raises(MemoryError):
                work(REFS[1])
        asked = [pool.submit(work, ref) for ref in REFS[2:4]]
        first.give()
        for one in asked:
            one.result(SOON)


def test_a_second_look_in_a_turn_is_a_new_one() -> None:
    cluster = Cluster()
    turns = Turns(cluster.look, Clock())
    with threads(turns, 8) as pool:
        first, second = taken(turns, REFS[1:3], pool)
        assert first.look() is second.look()
        assert first.look() is not second.look()
    assert [refs for _, refs in cluster.looks] == [REFS[1:3], [REFS[1]], [REFS[2]]]


def test_one_that_is_alone_looks_when_it_acts() -> None:
    cluster = Cluster()
    turn = Turn(REFS[0], Turns(cluster.look, Clock()))
    for number in range(2):
        turn.take()
        assert len(cluster.looks) == number
        turn.look()
        turn.give()
    assert [refs for _, refs in cluster.looks] == [[REFS[0]]] * 2


def test_a_bug_in_a_look_holds_nobody_up() -> None:
    class Broken(Cluster):
        def look(self, refs: Sequence[ObjectRef]) -> ClusterSnapshot:
            if len(refs) > 1:
                raise ZeroDivisionError
            return super().look(refs)

    turns = Turns(Broken().look, Clock())

    def work(ref: ObjectRef) -> None:
        turn = Turn(ref, turns)
        try:
            turn.take()
            turn.look()
        finally:
            turn.give()

    first = Turn(REFS[0], turns)
    first.take()
    with threads(turns, 8) as pool:
        asked = [pool.submit(work, ref) for ref in REFS[1:5]]
        until(lambda: len(turns._waiting) == 4)
        first.give()
        failed = [one.exception(SOON) for one in asked]
        pool.submit(work, REFS[6]).result(SOON)
    assert [isinstance(one, ZeroDivisionError) for one in failed].count(True) == 1
    assert failed.count(None) == 3
