"""Values to text: one module for people, one for programs. Nothing here reads or decides.

Here is what each command has to say; `formats` makes a text of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kubectl_harvester_stuck.render.formats import DOCUMENTS, FORMATS, Content
from kubectl_harvester_stuck.render.screen import PIPE, Screen

if TYPE_CHECKING:
    from datetime import datetime

    from kubectl_harvester_stuck.diagnosis.model import Diagnosis
    from kubectl_harvester_stuck.harvester.finalizer_catalogue import Finalizer
    from kubectl_harvester_stuck.k8s.objects import ObjectRef, Unreadable
    from kubectl_harvester_stuck.listing.finalizer_usage import Carried
    from kubectl_harvester_stuck.listing.model import Listing
    from kubectl_harvester_stuck.listing.watch import WatchEvent
    from kubectl_harvester_stuck.release.model import ReleaseReport
    from kubectl_harvester_stuck.render.invocation import Invocation
    from kubectl_harvester_stuck.render.list_text import Rows
    from kubectl_harvester_stuck.render.page import Page
    from kubectl_harvester_stuck.restore.decisions import Restoration

__all__ = ("DOCUMENTS", "FORMATS")


def _name(ref: ObjectRef) -> str:
    return f"{ref.kind.full_name}/{ref.name}"


def _page(screen: Screen) -> Page:
    from kubectl_harvester_stuck.render.page import Page  # only when it is written

    return Page(screen)


def listing(
    found: Listing,
    output: str,
    where: Invocation,
    *,
    headers: bool = True,
    screen: Screen = PIPE,
) -> str:
    """The answer of `list`."""
    from kubectl_harvester_stuck.render import document, list_text

    def metrics() -> str:
        from kubectl_harvester_stuck.render import prometheus

        return prometheus.listing(found)

    return Content(
        lambda: document.listing(found, where),
        lambda wide: list_text.listing(found, _page(screen), wide=wide, headers=headers),
        lambda: [_name(row.ref) for row in found.targets],
        {"prometheus": metrics},
    ).text(output)


def changes(happened: Sequence[WatchEvent], found: Listing, output: str, rows: Rows) -> str:
    """What `list --watch` says of changes that came together."""
    return "".join(_change(one, found, rows).text(output) for one in happened)


def _change(one: WatchEvent, found: Listing, rows: Rows) -> Content:
    from kubectl_harvester_stuck.render import document, list_text

    return Content(
        lambda: document.change(one, found),
        lambda _: rows.line(rows.cells(one.row, found, list_text.became(one))),
        lambda: [_name(one.row.ref)],
        is_part=True,
    )


def diagnoses(
    items: Sequence[Diagnosis],
    missing: Sequence[Unreadable],
    output: str,
    where: Invocation,
    taken_at: datetime,
    *,
    screen: Screen = PIPE,
) -> str:
    """The answer of `diagnose`."""
    from kubectl_harvester_stuck.render import diagnosis_text, document, markdown

    return Content(
        lambda: document.diagnoses(items, missing, where, taken_at),
        lambda wide: diagnosis_text.diagnoses(items, where, taken_at, _page(screen), wide=wide),
        lambda: [_name(item.plan.ref) for item in items],
        {
            "mermaid": lambda: diagnosis_text.mermaid(items),
            "markdown": lambda: markdown.diagnoses(items, where, taken_at),
        },
    ).text(output)


def catalogue(
    entries: Sequence[Finalizer], output: str, *, headers: bool = True, screen: Screen = PIPE
) -> str:
    """The answer of `finalizers`."""
    from kubectl_harvester_stuck.render import document, finalizers_text

    return Content(
        lambda: document.catalogue(entries),
        lambda wide: finalizers_text.catalogue(entries, _page(screen), wide=wide, headers=headers),
        lambda: dict.fromkeys(entry.name for entry in entries),
    ).text(output)


def carried(
    items: Sequence[Carried],
    missing: Sequence[Unreadable],
    output: str,
    where: Invocation,
    *,
    headers: bool = True,
    screen: Screen = PIPE,
) -> str:
    """The answer of `finalizers -f`."""
    from kubectl_harvester_stuck.render import document, finalizers_text, layout

    return Content(
        lambda: document.carried(items, missing, where),
        lambda wide: finalizers_text.carried(items, _page(screen), wide=wide, headers=headers),
        lambda: dict.fromkeys(layout.safe(item.name) for item in items),
    ).text(output)


def restoration(done: Restoration, output: str, where: Invocation, *, screen: Screen = PIPE) -> str:
    """The answer of `restore`, dry or not."""
    from kubectl_harvester_stuck.render import document, restore_text

    return Content(
        lambda: document.restoration(done, where),
        lambda _: restore_text.restoration(done, where, _page(screen)),
        lambda: [_name(done.proposal.backup.ref)] if restore_text.is_made(done) else [],
    ).text(output)


def run(done: ReleaseReport, output: str, where: Invocation, *, screen: Screen = PIPE) -> str:
    """The answer of `unstick`, dry or not."""
    from kubectl_harvester_stuck.render import document, release_text

    return Content(
        lambda: document.run(done, where),
        lambda _: release_text.run(done, where, _page(screen)),
        lambda: map(_name, release_text.released(done)),
    ).text(output)


def journal(
    changes: Sequence[Mapping[str, Any]],
    output: str,
    now: datetime,
    *,
    headers: bool = True,
    screen: Screen = PIPE,
) -> str:
    """The answer of `journal`, oldest first; `now` is for ages."""
    from kubectl_harvester_stuck.render import document, journal_table

    return Content(
        lambda: document.journal(changes),
        lambda wide: journal_table.journal(changes, now, _page(screen), wide=wide, headers=headers),
        lambda: journal_table.changed_names(changes),
    ).text(output)
