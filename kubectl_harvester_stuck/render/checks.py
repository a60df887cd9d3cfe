"""The answer of `check`: a table for people, a document for programs."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kubectl_harvester_stuck.k8s.objects import format_time
from kubectl_harvester_stuck.render import document
from kubectl_harvester_stuck.render.formats import Content
from kubectl_harvester_stuck.render.invocation import Invocation
from kubectl_harvester_stuck.render.layout import WIDTH, safe

if TYPE_CHECKING:
    from kubectl_harvester_stuck.checks import Checked
    from kubectl_harvester_stuck.checks.checkup import Checkup

COLUMNS = ("RESULT", "CHECK", "SUMMARY")
GAP = 3
INDENT = "    "


def text(done: Checkup, output: str, where: Invocation, *, headers: bool = True) -> str:
    """The answer in the format that was asked for."""
    return Content(
        lambda: as_document(done, where),
        lambda wide: table(done.results, where, wide=wide, headers=headers),
        lambda: dict.fromkeys(row.check.id for row in done.results),
    ).text(output)


def table(rows: Sequence[Checked], where: Invocation, *, wide: bool, headers: bool) -> str:
    """One row for each result; with `wide` its evidence and what to do below it."""
    widths = [
        max(len(title), *(len(cell) for cell in cells))
        for title, cells in zip(
            COLUMNS, ([row.result.value for row in rows], [row.check.id for row in rows]),
            strict=False,
        )
    ]  # fmt: skip
    lines = [_row(COLUMNS, widths)] if headers else []
    for row in rows:
        before = _row((row.result.value, row.check.id, ""), widths)
        lines += textwrap.wrap(
            safe(row.summary),
            WIDTH,
            initial_indent=before,
            subsequent_indent=" " * len(before),
            break_long_words=False,
            break_on_hyphens=False,
        )
        if wide:
            lines += _details(row, where)
    if wide and where.files and any(row.todo for row in rows):
        lines += ["", "The commands are meant for the cluster of the files."]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell.ljust(width + GAP) for cell, width in zip(cells, widths, strict=False)]
    return "".join(padded) + cells[-1]


def _details(row: Checked, where: Invocation) -> list[str]:
    lines = []
    for seen in row.evidence:
        lines += textwrap.wrap(
            safe(f"{seen.object}: {seen.field}: {seen.value}"),
            WIDTH,
            initial_indent=INDENT,
            subsequent_indent=INDENT * 2,
            break_long_words=False,
            break_on_hyphens=False,
        )
    # Neither a command nor a sentence is wrapped: whatever is pasted stays in one piece.
    return [*lines, *(f"{INDENT}{safe(line)}" for line in where.lines(row.todo))]


def as_document(done: Checkup, where: Invocation) -> document.Document:
    """`-o json` and `-o yaml`: keys are added, never renamed."""
    return {
        "schema": document.SCHEMAS["check"],
        **document.origin(where),
        "takenAt": format_time(done.taken_at),
        "items": [
            {
                "id": row.check.id,
                "theme": row.check.theme,
                "result": row.result.value,
                "summary": row.summary,
                "evidence": [
                    {"object": seen.object, "field": seen.field, "value": seen.value}
                    for seen in row.evidence
                ],
                "todo": where.lines(row.todo),
            }
            for row in done.results
        ],
        "incomplete": [document.unread(item) for item in done.missing],
    }
