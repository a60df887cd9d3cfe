"""What `list --watch` says beside its rows: no all-clear over what is not known."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any, cast

import pytest
from prometheus_client import generate_latest

from kubectl_harvester_stuck.cli.commands.serve_metrics import Latest
from kubectl_harvester_stuck.cli.watching import Connection, Watching
from kubectl_harvester_stuck.cluster.client import Cluster
from kubectl_harvester_stuck.errors import ApiError, UnreachableError
from kubectl_harvester_stuck.harvester.target import State
from kubectl_harvester_stuck.k8s.kinds import POD, VM, VMI
from kubectl_harvester_stuck.k8s.objects import ObjectRef, Unreadable
from kubectl_harvester_stuck.k8s.source import ListQuery
from kubectl_harvester_stuck.listing import survey, watch
from kubectl_harvester_stuck.listing.model import Listing, StuckObject
from kubectl_harvester_stuck.listing.survey import Survey
from kubectl_harvester_stuck.render import prometheus
from tests.test_prometheus import Sample, sample, samples

NOW = datetime(2026, 11, 23, 3, 42, tzinfo=timezone.utc)
GAP = Unreadable("pods", "shop", "Forbidden", 'User "bob" may not read them')


def told(found: Listing, capsys: pytest.CaptureFixture[str], *, is_screen: bool = False) -> str:
    """Everything that is written of one answer."""
    watching = Watching(" in shop namespace", "table", headers=True)
    watching._is_screen = is_screen
    watching.show(iter([(found, ())]))
    seen = capsys.readouterr()
    return seen.out + seen.err


@pytest.mark.parametrize("is_screen", [False, True], ids=["lines", "screen"])
def test_nothing_is_stuck_only_where_everything_could_be_read(
    capsys: pytest.CaptureFixture[str], *, is_screen: bool
) -> None:
    clear = "Nothing is stuck in shop namespace; watching."
    assert clear in told(Listing((), (), NOW), capsys, is_screen=is_screen)
    said = told(Listing((), (GAP,), NOW), capsys, is_screen=is_screen)
    assert clear not in said
    assert "could not read pods" in said


@pytest.mark.parametrize("is_screen", [False, True], ids=["lines", "screen"])
def test_what_names_no_node_is_left_out_aloud(
    capsys: pytest.CaptureFixture[str], *, is_screen: bool
) -> None:
    said = told(Listing((), (), NOW, without_node=2), capsys, is_screen=is_screen)
    assert "2 stuck VMs name no node and were left out; see list" in said


NAMESPACE_GAP = Unreadable("namespaces", "", "Forbidden", 'User "bob" may not read them')
WHOLE, BLIND = Listing((), (), NOW), Listing((), (GAP,), NOW)


def test_what_was_read_once_can_be_lost() -> None:
    connection = Connection()
    for found, is_lost in ((BLIND, False), (WHOLE, False), (BLIND, True), (WHOLE, False)):
        connection.take(found, "03:42:00")
        assert connection.is_lost is is_lost


def test_a_namespace_that_may_not_exist_is_no_lost_connection() -> None:
    connection = Connection()
    for found in (WHOLE, Listing((), (NAMESPACE_GAP,), NOW), WHOLE):
        connection.take(found, "03:42:00")
        assert not connection.is_lost


# What metrics are served of a watch


@dataclass
class Cache:
    """What is asked of a watch at each scrape."""

    now: datetime = NOW
    silence: timedelta = timedelta(seconds=3)


COMPLETE = sample("harvester_stuck_list_complete")
READ = sample("harvester_stuck_list_timestamp_seconds")
ROW = StuckObject(ObjectRef("shop", "web", VM), "uid", "1", State.TERMINATING, NOW, (), None)


def scraped(latest: Latest) -> dict[Sample, float]:
    return samples(generate_latest(prometheus.registry(latest)).decode())


def test_before_the_first_answer_nothing_is_complete() -> None:
    assert scraped(Latest(cast(watch.WatchCache, Cache()))) == {COMPLETE: 0}


@pytest.mark.parametrize("gaps", [(), (GAP,)])
def test_an_age_goes_on_whatever_is_missing(gaps: tuple[Unreadable, ...]) -> None:
    cache = Cache()
    latest = Latest(cast(watch.WatchCache, cache))
    latest.take(Listing((ROW,), (), NOW))
    latest.take(Listing((ROW,), gaps, NOW))
    cache.now += timedelta(hours=1)
    found = scraped(latest)
    assert next(value for (name, _), value in found.items() if "_seconds" in name) == 3600
    assert found[COMPLETE] == (0 if gaps else 1)
    assert found[READ] == (cache.now - cache.silence).timestamp()


@pytest.mark.parametrize(("silence", "complete"), [(199, 1), (201, 0)])
def test_what_was_heard_long_ago_is_not_complete(silence: int, complete: int) -> None:
    latest = Latest(cast(watch.WatchCache, Cache(silence=timedelta(seconds=silence))))
    latest.take(WHOLE)
    found = scraped(latest)
    assert found[COMPLETE] == complete
    assert found[READ] == NOW.timestamp() - silence


@dataclass
class Server:
    """Lists nothing, and then says what it is told to; before each word time passes."""

    events: list[tuple[str, Any]] = field(default_factory=list)
    error: Exception | None = None
    now: datetime = NOW
    passes: Callable[[], object] = lambda: None

    def list_with_version(self, _: ListQuery, __: Callable[[Any], bool]) -> tuple[list[Any], str]:
        if self.error is not None:
            raise self.error
        return [], "1"

    def watch(
        self, _: ListQuery, __: str, *, seconds: int, opened: Callable[[], None]
    ) -> Iterator[tuple[str, Any]]:
        del seconds
        if self.error is not None:
            raise self.error
        self.passes()
        opened()
        for event in self.events:
            self.passes()
            yield event


class Parts:
    """A watch of which each part is heard by itself, and the clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passed = 0.0
        self.server = Server()
        monkeypatch.setattr("time.monotonic", lambda: self.passed)
        self.cache = watch.WatchCache(cast(Cluster, self.server), (None,))

        def surveyed(*_: object) -> Survey:
            self.cache.stop()
            return Survey()

        monkeypatch.setattr(survey, "read_health", lambda _: Survey())
        monkeypatch.setattr(survey, "survey", surveyed)
        self.hear: dict[str, Callable[[], object]] = {
            "whoever reads it": self.cache.looked,
            "the survey": lambda: self.cache._survey(threading.Event()),
            **{
                kind.plural: partial(self.cache._list, self.cache._kinds[kind, None])
                for kind in (VM, VMI, POD)
            },
        }


NAMES = ("whoever reads it", "the survey", VM.plural, VMI.plural, POD.plural)


@pytest.mark.parametrize("silent", NAMES)
def test_one_part_that_is_silent_is_enough(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts(monkeypatch)
    assert tuple(parts.hear) == NAMES
    parts.passed = 300
    for name, hear in parts.hear.items():
        if name != silent:
            hear()
    assert parts.cache.silence == timedelta(seconds=300)
    parts.hear[silent]()
    assert parts.cache.silence == timedelta(0)


@pytest.mark.parametrize(
    ("server", "is_heard"),
    [
        (Server(), True),
        (Server([("BOOKMARK", {"metadata": {"resourceVersion": "2"}})]), True),
        (Server(error=ApiError(403, "Forbidden", "no right")), True),
        (Server(error=UnreachableError("no route")), False),
    ],
)
def test_what_a_watch_is_heard_by(
    server: Server, monkeypatch: pytest.MonkeyPatch, *, is_heard: bool
) -> None:
    parts = Parts(monkeypatch)
    parts.passed = 300
    for name, hear in parts.hear.items():
        if name != POD.plural:
            hear()
    cache, known = parts.cache, parts.cache._kinds[POD, None]
    cache._cluster = cast(Cluster, server)

    def passes() -> None:
        parts.passed += 100
        parts.cache.looked()
        parts.cache._stopped.clear()
        parts.hear["the survey"]()
        for kind in (VM, VMI):
            parts.hear[kind.plural]()

    server.passes = passes

    def once(*_: object) -> float:
        cache._stopped.set()
        return 0.0

    cache._stopped.clear()
    monkeypatch.setattr("random.uniform", once)
    monkeypatch.setattr("random.randint", lambda *_: once() or 240)
    cache._follow(known, threading.Event())
    assert cache.silence == timedelta(seconds=0 if is_heard else 300)
