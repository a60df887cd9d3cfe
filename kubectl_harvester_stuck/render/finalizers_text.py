"""The screens of `finalizers`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kubectl_harvester_stuck.k8s.kinds import VM
from kubectl_harvester_stuck.render.page import Page

if TYPE_CHECKING:
    from kubectl_harvester_stuck.harvester.finalizer_catalogue import Finalizer
    from kubectl_harvester_stuck.listing.finalizer_usage import Carried


def catalogue(entries: Sequence[Finalizer], page: Page, *, wide: bool, headers: bool = True) -> str:
    """The table of finalizers."""
    names = ["NAME", "ON"]
    rows = [[entry.name, _kinds(entry)] for entry in entries]
    if wide:
        names += ["OWNER", "VERSIONS", "RELEASED WHEN", "LEAVES BEHIND"]
        rows = [
            [*row, entry.owner, entry.versions, entry.released_when, entry.leaves_behind]
            for row, entry in zip(rows, entries, strict=True)
        ]
    page.table(names if headers else [], rows)
    return str(page)


def carried(items: Sequence[Carried], page: Page, *, wide: bool, headers: bool = True) -> str:
    """The finalizers that objects carry; empty text when none does."""
    if not items:
        return ""
    names = ["NAME", "ON", "OBJECTS", "OWNER"]
    rows = [
        [
            item.name,
            "VM" if item.kind is VM else "VMI",
            str(item.objects),
            item.entry.owner if item.entry else "<not in the catalogue>",
        ]
        for item in items
    ]
    if wide:
        names += ["LEAVES BEHIND"]
        rows = [
            [*row, item.entry.leaves_behind if item.entry else "<unknown>"]
            for row, item in zip(rows, items, strict=True)
        ]
    page.table(names if headers else [], rows)
    return str(page)


def entry(item: Finalizer, page: Page) -> str:
    """One finalizer in full."""
    fields = (
        ("On", ", ".join(kind.kind for kind in item.kinds)),
        ("Owner", f"{item.owner} ({item.workload})"),
        ("Versions", item.versions),
        ("Released", f"when {item.released_when}"),
        ("Removed by hand, it leaves behind", item.leaves_behind),
        ("Source", item.source),
        ("Verified against", item.verified),
    )
    page.line(item.name)
    for title, text in fields:
        page.wrapped(f"{title}: {text}", "  ")
    return str(page)


def _kinds(entry: Finalizer) -> str:
    return ", ".join("VM" if kind is VM else "VMI" for kind in entry.kinds)
