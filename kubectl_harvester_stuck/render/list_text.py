"""The screens of `list` and `list --watch`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kubectl_harvester_stuck.harvester.target import State
from kubectl_harvester_stuck.k8s.durations import human
from kubectl_harvester_stuck.render.layout import safe, short_kind, table, wrap

if TYPE_CHECKING:
    from kubectl_harvester_stuck.listing.model import Listing, StuckObject
    from kubectl_harvester_stuck.listing.watch import WatchEvent


def listing(found: Listing, *, wide: bool, headers: bool) -> str:
    """The table of what is stuck; empty text when nothing is."""
    if not found.targets:
        return ""
    names = ["NAMESPACE", "KIND", "NAME", "STATE", "STUCK", "NODE"]
    rows = [_row(target, found) for target in found.targets]
    if wide:
        names += ["FINALIZERS", "REASON"]
        rows = [
            [*row, ",".join(target.finalizers) or "<none>", target.reason or "<none>"]
            for row, target in zip(rows, found.targets, strict=True)
        ]
    return table(names if headers else [], rows)


def _row(target: StuckObject, found: Listing) -> list[str]:
    return [
        target.ref.namespace,
        short_kind(target.ref),
        target.ref.name,
        target.state.value,
        "<unknown>" if (age := target.age(found.taken_at)) is None else human(age),
        target.node or "<unknown>",
    ]


def notes(found: Listing) -> str:
    """Why nothing is being deleted of some, once for all with the same reason."""
    reasons: dict[str, list[str]] = {}
    for row in found.targets:
        if row.reason:
            reasons.setdefault(row.reason, []).append(row.ref.key)
    lines = [
        line
        for reason, (first, *more) in reasons.items()
        for line in wrap(safe(f"{first}{f' and {len(more)} more' if more else ''}: {reason}"), "")
    ]
    return "".join(f"{line}\n" for line in lines)


class Rows:
    """The table of `list --watch`, a line at a time, in columns as wide as they are at first."""

    def __init__(self, found: Listing, *, wide: bool) -> None:
        self._wide = wide
        first = [self.names, *(self.cells(row, found) for row in found.targets)]
        self._widths = [max(map(len, column)) for column in zip(*first, strict=True)]

    @property
    def names(self) -> list[str]:
        """The header."""
        names = ["NAMESPACE", "KIND", "NAME", "STATE", "STUCK", "NODE"]
        return [*names, "FINALIZERS", "REASON"] if self._wide else names

    def cells(self, row: StuckObject, found: Listing, state: str = "") -> list[str]:
        """One row; `state` stands for the row's own."""
        cells = [safe(cell) for cell in _row(row, found)]
        cells[3] = state or cells[3]
        if not self._wide:
            return cells
        return [*cells, safe(",".join(row.finalizers)) or "<none>", safe(row.reason) or "<none>"]

    def line(self, cells: Sequence[str]) -> str:
        """The cells as a line of the table."""
        padded = (cell.ljust(width) for cell, width in zip(cells, self._widths, strict=True))
        return f"{'   '.join(padded).rstrip()}\n"


def became(change: WatchEvent) -> str:
    """The state of a row that is gone: of what was being deleted, or of what was only held up."""
    if change.happened.value != "DELETED":
        return change.row.state.value
    return "Gone" if change.row.state is State.TERMINATING else "Freed"
