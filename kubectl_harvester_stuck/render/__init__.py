"""Values to text: one module for people, one for programs. Nothing here reads or decides.

To add a format: a name in `FORMATS`, and its branch in `listing` and `run`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kubectl_harvester_stuck.render import document, layout, list_text

if TYPE_CHECKING:
    from datetime import datetime

    from kubectl_harvester_stuck.diagnosis.model import Diagnosis
    from kubectl_harvester_stuck.harvester.finalizers import Finalizer
    from kubectl_harvester_stuck.k8s.objects import Unreadable
    from kubectl_harvester_stuck.listing.finalizer_usage import Carried
    from kubectl_harvester_stuck.listing.model import Listing
    from kubectl_harvester_stuck.listing.watch import WatchEvent
    from kubectl_harvester_stuck.release.model import ReleaseReport
    from kubectl_harvester_stuck.render.invocation import Invocation
    from kubectl_harvester_stuck.restore.backup import Restoration

FORMATS = ("table", "wide", "json", "yaml", "name")
DOCUMENTS = ("json", "yaml")


def listing(found: Listing, output: str, where: Invocation, *, headers: bool = True) -> str:
    """The answer of `list`."""
    if output in DOCUMENTS:
        return document.dump(document.listing(found, where), output)
    if output == "name":
        return "".join(f"{row.ref.kind.full_name}/{row.ref.name}\n" for row in found.targets)
    if output == "prometheus":
        from kubectl_harvester_stuck.render import prometheus

        return prometheus.listing(found)
    return list_text.listing(found, wide=output == "wide", headers=headers)


def changes(
    happened: Sequence[WatchEvent], found: Listing, output: str, rows: list_text.Rows
) -> str:
    """What `list --watch` says of changes that came together."""
    if output == "json":
        return "".join(document.line(document.change(one, found)) for one in happened)
    if output == "yaml":
        parts = (document.dump(document.change(one, found), output) for one in happened)
        return "".join(f"---\n{part}" for part in parts)
    if output == "name":
        refs = (one.row.ref for one in happened)
        return "".join(f"{ref.kind.full_name}/{ref.name}\n" for ref in refs)
    return "".join(rows.line(rows.cells(one.row, found, list_text.became(one))) for one in happened)


def diagnoses(
    items: Sequence[Diagnosis],
    missing: Sequence[Unreadable],
    output: str,
    where: Invocation,
    taken_at: datetime,
    *,
    plain: bool = False,
) -> str:
    """The answer of `diagnose`."""
    from kubectl_harvester_stuck.render import diagnosis_text

    if output in DOCUMENTS:
        return document.dump(document.diagnoses(items, missing, where, taken_at), output)
    if output == "name":
        refs = [item.plan.ref for item in items]
        return "".join(f"{ref.kind.full_name}/{ref.name}\n" for ref in refs)
    if output == "mermaid":
        return diagnosis_text.mermaid(items)
    return diagnosis_text.diagnoses(items, where, plain=plain)


def catalogue(entries: Sequence[Finalizer], output: str, *, headers: bool = True) -> str:
    """The answer of `finalizers`."""
    from kubectl_harvester_stuck.render import finalizers_text

    if output in DOCUMENTS:
        return document.dump(document.catalogue(entries), output)
    if output == "name":
        return "".join(f"{name}\n" for name in dict.fromkeys(entry.name for entry in entries))
    return finalizers_text.catalogue(entries, wide=output == "wide", headers=headers)


def carried(
    items: Sequence[Carried],
    missing: Sequence[Unreadable],
    output: str,
    where: Invocation,
    *,
    headers: bool = True,
) -> str:
    """The answer of `finalizers -f`."""
    from kubectl_harvester_stuck.render import finalizers_text

    if output in DOCUMENTS:
        return document.dump(document.carried(items, missing, where), output)
    if output == "name":
        found = dict.fromkeys(layout.safe(item.name) for item in items)
        return "".join(f"{name}\n" for name in found)
    return finalizers_text.carried(items, wide=output == "wide", headers=headers)


def restoration(done: Restoration, output: str, where: Invocation) -> str:
    """The answer of `restore`, dry or not."""
    from kubectl_harvester_stuck.render import restore_text

    if output in DOCUMENTS:
        return document.dump(document.restoration(done, where), output)
    if output == "name":
        ref = done.proposal.backup.ref
        return f"{ref.kind.full_name}/{ref.name}\n" if restore_text.is_made(done) else ""
    return restore_text.restoration(done, where)


def run(done: ReleaseReport, output: str, where: Invocation) -> str:
    """The answer of `unstick`, dry or not."""
    from kubectl_harvester_stuck.render import release_text

    if output in DOCUMENTS:
        return document.dump(document.run(done, where), output)
    if output == "name":
        return release_text.names(done)
    return release_text.run(done, where)


def journal(
    changes: Sequence[Mapping[str, Any]], output: str, now: datetime, *, headers: bool = True
) -> str:
    """The answer of `journal`, oldest first; `now` is for ages."""
    from kubectl_harvester_stuck.render import journal_table

    if output in DOCUMENTS:
        return document.dump(document.journal(changes), output)
    if output == "name":
        return journal_table.changed_names(changes)
    return journal_table.journal(changes, now, wide=output == "wide", headers=headers)
