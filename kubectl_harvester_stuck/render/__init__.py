"""Values to text: one module for people, one for programs. Nothing here reads or decides.

To add a format: a name in `FORMATS`, and its branch in `listing` and `run`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kubectl_harvester_stuck.render import people, structured

if TYPE_CHECKING:
    from datetime import datetime

    from kubectl_harvester_stuck.carried import Carried
    from kubectl_harvester_stuck.decisions import Diagnosis
    from kubectl_harvester_stuck.finalizers import Finalizer
    from kubectl_harvester_stuck.flow import Run
    from kubectl_harvester_stuck.model import Listing, Missing
    from kubectl_harvester_stuck.render.invocation import Invocation
    from kubectl_harvester_stuck.restore import Restoration
    from kubectl_harvester_stuck.watch import Change

FORMATS = ("table", "wide", "json", "yaml", "name")
DOCUMENTS = ("json", "yaml")


def listing(found: Listing, output: str, where: Invocation, *, headers: bool = True) -> str:
    """The answer of `list`."""
    if output in DOCUMENTS:
        return structured.dump(structured.listing(found, where), output)
    if output == "name":
        return "".join(f"{row.ref.kind.full_name}/{row.ref.name}\n" for row in found.targets)
    if output == "prometheus":
        from kubectl_harvester_stuck.render import prometheus

        return prometheus.listing(found)
    return people.listing(found, wide=output == "wide", headers=headers)


def changes(happened: Sequence[Change], found: Listing, output: str, rows: people.Rows) -> str:
    """What `list --watch` says of changes that came together."""
    if output == "json":
        return "".join(structured.line(structured.change(one, found)) for one in happened)
    if output == "yaml":
        parts = (structured.dump(structured.change(one, found), output) for one in happened)
        return "".join(f"---\n{part}" for part in parts)
    if output == "name":
        refs = (one.row.ref for one in happened)
        return "".join(f"{ref.kind.full_name}/{ref.name}\n" for ref in refs)
    return "".join(rows.line(rows.cells(one.row, found, people.became(one))) for one in happened)


def diagnoses(
    items: Sequence[Diagnosis],
    missing: Sequence[Missing],
    output: str,
    where: Invocation,
    taken_at: datetime,
    *,
    plain: bool = False,
) -> str:
    """The answer of `diagnose`."""
    if output in DOCUMENTS:
        return structured.dump(structured.diagnoses(items, missing, where, taken_at), output)
    if output == "name":
        refs = [item.plan.ref for item in items]
        return "".join(f"{ref.kind.full_name}/{ref.name}\n" for ref in refs)
    if output == "mermaid":
        return people.mermaid(items)
    return people.diagnoses(items, where, plain=plain)


def catalogue(entries: Sequence[Finalizer], output: str, *, headers: bool = True) -> str:
    """The answer of `finalizers`."""
    if output in DOCUMENTS:
        return structured.dump(structured.catalogue(entries), output)
    if output == "name":
        return "".join(f"{name}\n" for name in dict.fromkeys(entry.name for entry in entries))
    return people.catalogue(entries, wide=output == "wide", headers=headers)


def carried(
    items: Sequence[Carried],
    missing: Sequence[Missing],
    output: str,
    where: Invocation,
    *,
    headers: bool = True,
) -> str:
    """The answer of `finalizers -f`."""
    if output in DOCUMENTS:
        return structured.dump(structured.carried(items, missing, where), output)
    if output == "name":
        found = dict.fromkeys(people.safe(item.name) for item in items)
        return "".join(f"{name}\n" for name in found)
    return people.carried(items, wide=output == "wide", headers=headers)


def restoration(done: Restoration, output: str, where: Invocation) -> str:
    """The answer of `restore`, dry or not."""
    from kubectl_harvester_stuck.render import restored

    if output in DOCUMENTS:
        return structured.dump(structured.restoration(done, where), output)
    if output == "name":
        ref = done.proposal.backup.ref
        return f"{ref.kind.full_name}/{ref.name}\n" if restored.is_made(done) else ""
    return restored.restoration(done, where)


def run(done: Run, output: str, where: Invocation) -> str:
    """The answer of `unstick`, dry or not."""
    if output in DOCUMENTS:
        return structured.dump(structured.run(done, where), output)
    if output == "name":
        return people.names(done)
    return people.run(done, where)


def journal(
    changes: Sequence[Mapping[str, Any]], output: str, now: datetime, *, headers: bool = True
) -> str:
    """The answer of `journal`, oldest first; `now` is for ages."""
    from kubectl_harvester_stuck.render import history

    if output in DOCUMENTS:
        return structured.dump(structured.journal(changes), output)
    if output == "name":
        return history.changed_names(changes)
    return history.journal(changes, now, wide=output == "wide", headers=headers)
