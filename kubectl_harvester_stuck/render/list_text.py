"""The screens of `list` and `list --watch`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from kubectl_harvester_stuck.harvester.target import State
from kubectl_harvester_stuck.k8s import commands
from kubectl_harvester_stuck.k8s.durations import human
from kubectl_harvester_stuck.k8s.kinds import VM
from kubectl_harvester_stuck.render.color import Style
from kubectl_harvester_stuck.render.layout import safe, short_kind, wrap
from kubectl_harvester_stuck.render.page import Page, Styled

if TYPE_CHECKING:
    from kubectl_harvester_stuck.listing.model import Listing, StuckObject
    from kubectl_harvester_stuck.listing.watch import WatchEvent
    from kubectl_harvester_stuck.render.invocation import Invocation


def listing(found: Listing, page: Page, *, wide: bool, headers: bool) -> str:
    """The table of what is stuck, a row for each guest, or with `wide` for each object.

    Empty text when nothing is stuck.
    """
    if not found.targets:
        return ""
    names = ["NAMESPACE", "KIND", "NAME", "STATE", "STUCK", "NODE"]
    if wide:
        names += ["FINALIZERS", "REASON"]
        rows = [[*_row(row, found), *_in_wide(row)] for row in found.targets]
    else:
        names += ["HELD BY"]
        rows = [_of_guest(guest, found) for guest in _guests(found)]
    page.table(
        names if headers else [],
        [[*row[:3], Styled(row[3], Style.CARE), *row[4:]] for row in rows],
        can_lose_last=not wide,
    )
    return str(page)


def _guests(found: Listing) -> Iterable[Sequence[StuckObject]]:
    """The objects of each guest, the VM first, in the order in which each guest is first met."""
    guests: dict[tuple[str, str], list[StuckObject]] = {}
    for row in found.targets:
        guests.setdefault((row.ref.namespace, row.ref.name), []).append(row)
    return [sorted(rows, key=lambda row: row.ref.kind is not VM) for rows in guests.values()]


def _of_guest(objects: Sequence[StuckObject], found: Listing) -> list[str]:
    """One row for all: the state is that of the VM, the age that of the oldest deletion."""
    first = objects[0]
    cells = _row(first, found)
    cells[1] = ",".join(short_kind(row.ref) for row in objects)
    ages = [age for row in objects if (age := row.age(found.taken_at)) is not None]
    cells[4] = human(max(ages)) if ages else cells[4]
    return [*cells, _held_by(objects, found)]


def _held_by(objects: Sequence[StuckObject], found: Listing) -> str:
    """Why it is stuck, in a few words, as far as a list can tell."""
    if any(row.node in found.silent for row in objects):
        return "silent node"
    if any(row.reason for row in objects):
        return "deletion not begun"
    names = {name for row in objects for name in row.finalizers}
    if len(names) == 1:
        return f"finalizer {names.pop().rpartition('/')[2]}"
    return f"{len(names)} finalizers" if names else "its pod"


def _in_wide(row: StuckObject) -> list[str]:
    return [",".join(row.finalizers) or "<none>", row.reason or "<none>"]


def _row(target: StuckObject, found: Listing) -> list[str]:
    return [
        target.ref.namespace,
        short_kind(target.ref),
        target.ref.name,
        target.state.value,
        "<unknown>" if (age := target.age(found.taken_at)) is None else human(age),
        target.node or "<unknown>",
    ]


def summary(found: Listing) -> str:
    """How many guests are stuck, and how many of them on which silent node."""
    guests = list(_guests(found))
    text = f"{len(guests)} stuck"
    for node, since in found.silent.items():
        count = sum(any(row.node == node for row in rows) for rows in guests)
        age = f" for {human(found.taken_at - since)}" if since else ""
        text += f", {count} on {node} (silent{age})"
    return f"{text}."


def notes(
    found: Listing, where: Invocation, namespace: str | None, width: int | None = None
) -> str:
    """Why nothing is being deleted of some, how many are stuck, and what to do.

    `namespace` is the one that was looked at, None for all of them.
    """
    if not found.targets:
        return ""
    reasons: dict[str, list[str]] = {}
    for row in found.targets:
        if row.reason:
            reasons.setdefault(row.reason, []).append(row.ref.key)
    lines = [
        line
        for reason, (first, *more) in reasons.items()
        for line in wrap(
            safe(f"{first}{f' and {len(more)} more' if more else ''}: {reason}"), "", width
        )
    ]
    lines += wrap(safe(f"{summary(found)} Why:"), "", width)
    lines.append(f"  {safe(where.spell(commands.diagnose_all(namespace, where.files)))}")
    return "".join(f"{line}\n" for line in lines)


def _and_more(more: Sequence[str]) -> str:
    return f" and {len(more)} more" if more else ""


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
        return [*cells, *map(safe, _in_wide(row))]

    def line(self, cells: Sequence[str]) -> str:
        """The cells as a line of the table."""
        padded = (cell.ljust(width) for cell, width in zip(cells, self._widths, strict=True))
        return f"{'   '.join(padded).rstrip()}\n"


def became(change: WatchEvent) -> str:
    """The state of a row that is gone: of what was being deleted, or of what was only held up."""
    if change.happened.value != "DELETED":
        return change.row.state.value
    return "Gone" if change.row.state is State.TERMINATING else "Freed"
