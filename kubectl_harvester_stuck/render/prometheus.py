"""`list -o prometheus`: the text exposition format, for node_exporter's textfile collector.

A gap in what could be read is a metric of its own: whoever looks at a graph sees no exit status.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime

from kubectl_harvester_stuck.listing.model import Listing, StuckObject

Labels = Mapping[str, str]


def listing(found: Listing) -> str:
    """The metrics of `list`.

    Where not one list could be read, there are no gauges of objects: absent is not zero.
    """
    families: list[str] = []
    if not found.is_blind:
        families += [_objects(found.targets), _seconds(found.targets, found.taken_at)]
    families += [
        _gauge(
            "harvester_stuck_list_complete",
            "1 if everything that was asked for could be read, otherwise 0.",
            [({}, 0 if found.missing or found.is_blind else 1)],
        ),
        _gauge(
            "harvester_stuck_list_timestamp_seconds",
            "When the cluster was read, by the clock of its API server.",
            [({}, int(found.taken_at.timestamp()))],
        ),
    ]
    return "".join(families)


def _objects(targets: Iterable[StuckObject]) -> str:
    counts = Counter((row.ref.namespace, row.ref.kind.kind, row.state.value) for row in targets)
    return _gauge(
        "harvester_stuck_objects",
        "Number of stuck objects; absent means none only if harvester_stuck_list_complete is 1.",
        [
            ({"namespace": namespace, "kind": kind, "state": state}, count)
            for (namespace, kind, state), count in sorted(counts.items())
        ],
    )


def _seconds(targets: Iterable[StuckObject], now: datetime) -> str:
    rows = sorted(targets, key=lambda row: (row.ref.namespace, row.ref.kind.kind, row.ref.name))
    return _gauge(
        "harvester_stuck_seconds",
        "For how long it has been stuck, where that is known.",
        [
            (
                {
                    "namespace": row.ref.namespace,
                    "kind": row.ref.kind.kind,
                    "name": row.ref.name,
                    "state": row.state.value,
                },
                int(age.total_seconds()),
            )
            for row in rows
            if (age := row.age(now)) is not None
        ],
    )


def _gauge(name: str, text: str, samples: Iterable[tuple[Labels, int]]) -> str:
    lines = [f"# HELP {name} {text}", f"# TYPE {name} gauge"]
    for labels, value in samples:
        inner = ",".join(f'{label}="{_escaped(found)}"' for label, found in labels.items())
        lines.append(f"{name}{{{inner}}} {value}" if inner else f"{name} {value}")
    return "".join(f"{line}\n" for line in lines)


def _escaped(value: str) -> str:
    """A label's value as the format wants it; what is no UTF-8 becomes a question mark."""
    text = value.encode("utf-8", "replace").decode()
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
