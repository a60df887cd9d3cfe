"""What is stuck as metrics: `list -o prometheus`, and what `serve-metrics` answers.

A gap in what could be read is a metric of its own: whoever looks at a graph sees no exit status.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import CollectorRegistry, generate_latest, write_to_textfile
from prometheus_client.core import GaugeMetricFamily

from kubectl_harvester_stuck.listing.model import Listing, StuckObject


@dataclass(frozen=True)
class Scrape:
    """What is known at the moment in which somebody asks for metrics."""

    found: Listing
    """What is stuck, at the time by which ages are told."""
    read_at: datetime
    """Of when that is."""
    is_late: bool = False
    """Whether that is too long ago."""


def listing(found: Listing) -> str:
    """The metrics of `list`, in Prometheus' text format."""
    return generate_latest(_of(found)).decode()


def write(found: Listing, path: str) -> None:
    """Put them in the place of the file, which is never seen in part. Raises OSError."""
    write_to_textfile(path, _of(found))


def _of(found: Listing) -> CollectorRegistry:
    return registry(lambda: Scrape(found, found.taken_at))


def registry(latest: Callable[[], Scrape | None]) -> CollectorRegistry:
    """The metrics of whatever `latest` gives when they are asked for; None before the first."""
    found = CollectorRegistry()
    found.register(_Collector(latest))
    return found


class _Collector:
    """What the library asks for metrics."""

    def __init__(self, latest: Callable[[], Scrape | None]) -> None:
        self._latest = latest

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing: the names are known once something was read."""
        return ()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Where not one list could be read there are no objects: absent is not zero."""
        scrape = self._latest()
        if scrape is None:
            yield _complete(False)
            return
        found = scrape.found
        if not found.is_blind:
            yield _objects(found.targets)
            yield _seconds(found)
        yield _complete(not (found.missing or found.is_blind or scrape.is_late))
        yield GaugeMetricFamily(
            "harvester_stuck_list_timestamp_seconds",
            "When the cluster was read, by the clock of its API server.",
            value=int(scrape.read_at.timestamp()),
        )


def _complete(is_complete: bool) -> GaugeMetricFamily:
    return GaugeMetricFamily(
        "harvester_stuck_list_complete",
        "1 if everything that was asked for could be read, otherwise 0.",
        value=int(is_complete),
    )


def _objects(targets: Iterable[StuckObject]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(
        "harvester_stuck_objects",
        "Number of stuck objects; absent means none only if harvester_stuck_list_complete is 1.",
        labels=("namespace", "kind", "state"),
    )
    counts = Counter((row.ref.namespace, row.ref.kind.kind, row.state.value) for row in targets)
    for labels, count in sorted(counts.items()):
        family.add_metric([*map(_text, labels)], count)
    return family


def _seconds(found: Listing) -> GaugeMetricFamily:
    family = GaugeMetricFamily(
        "harvester_stuck_seconds",
        "For how long it has been stuck, where that is known.",
        labels=("namespace", "kind", "name", "state"),
    )
    for row in sorted(found.targets, key=_order):
        age = row.age(found.taken_at)
        if age is not None:
            labels = (row.ref.namespace, row.ref.kind.kind, row.ref.name, row.state.value)
            family.add_metric([*map(_text, labels)], int(age.total_seconds()))
    return family


def _order(row: StuckObject) -> tuple[str, str, str]:
    return row.ref.namespace, row.ref.kind.kind, row.ref.name


def _text(value: str) -> str:
    """What is no UTF-8 becomes a question mark."""
    return value.encode("utf-8", "replace").decode()
