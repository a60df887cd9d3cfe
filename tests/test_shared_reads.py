"""What is asked for at once is read once, and never from before it was asked for."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from kubectl_harvester_stuck.cluster.shared_reads import SharedReads
from kubectl_harvester_stuck.k8s.source import PARALLEL_REQUESTS

SOON = 10.0


class Gate:
    """A read that ends when it is told to."""

    def __init__(self) -> None:
        self.begun, self.over = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.over.wait(SOON)
        return "first"


def test_those_who_ask_before_a_read_begins_share_it() -> None:
    gate, calls = Gate(), []
    with SharedReads() as shared:
        first = shared.submit("pods", gate)
        assert gate.begun.wait(SOON)

        def read() -> str:
            calls.append(1)
            return "second"

        later = [shared.submit("pods", read) for _ in range(5)]
        assert len({id(one) for one in later}) == 1
        assert later[0] is not first
        assert not calls, "it has begun while the one before it was not over"
        gate.over.set()
        assert first.result(SOON) == "first"
        assert [one.result(SOON) for one in later] == ["second"] * 5
    assert calls == [1]


def test_what_is_over_is_not_given_to_those_who_ask_later() -> None:
    count = iter(range(9))
    with SharedReads() as shared:
        for number in range(3):
            assert shared.submit("pods", lambda: next(count)).result(SOON) == number


def test_other_reads_do_not_wait() -> None:
    gate = Gate()
    with SharedReads() as shared:
        first = shared.submit("pods", gate)
        assert shared.submit("nodes", lambda: "at once").result(SOON) == "at once"
        gate.over.set()
        assert first.result(SOON) == "first"


def test_an_error_reaches_all_who_share_it_and_nobody_else() -> None:
    gate = Gate()

    def fail() -> str:
        raise ValueError("no")

    with SharedReads() as shared:
        first = shared.submit("pods", gate)
        assert gate.begun.wait(SOON)
        others: list[Future[str]] = [shared.submit("pods", fail) for _ in range(2)]
        gate.over.set()
        for one in others:
            with pytest.raises(ValueError, match="no"):
                one.result(SOON)
        assert first.result(SOON) == "first"
        assert shared.submit("pods", lambda: "again").result(SOON) == "again"


def test_where_no_thread_can_be_started_it_is_read_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate()

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with SharedReads() as shared:
        first = shared.submit("pods", gate)
        assert gate.begun.wait(SOON)
        monkeypatch.setattr(threading.Thread, "start", refuse)
        second = shared.submit("pods", lambda: "second")
        assert shared.submit("nodes", lambda: "here").result(SOON) == "here"
        gate.over.set()
        assert first.result(SOON) == "first"
        assert second.result(SOON) == "second"
        assert shared.submit("pods", lambda: "third").result(SOON) == "third"


def test_nobody_ever_gets_what_began_before_they_asked() -> None:
    """Many threads ask for a few things at random times."""
    running = most = reads = 0
    guard = threading.Lock()

    def read() -> float:
        nonlocal running, most, reads
        begun = time.monotonic()
        with guard:
            running += 1
            reads += 1
            most = max(most, running)
        time.sleep(0.002)
        with guard:
            running -= 1
        return begun

    def ask(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(20):
            asked = time.monotonic()
            assert shared.submit(chance.randrange(12), read).result(SOON) >= asked
            time.sleep(chance.random() / 500)

    with SharedReads() as shared, ThreadPoolExecutor(40) as pool:
        list(pool.map(ask, range(40)))
    assert most <= PARALLEL_REQUESTS
    assert reads < 800, "nothing was shared"
