"""The answer of `check`: the worst first for people, a document for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kubectl_harvester_stuck.checks.base import Result
from kubectl_harvester_stuck.k8s.objects import format_time
from kubectl_harvester_stuck.render import document
from kubectl_harvester_stuck.render.color import Style
from kubectl_harvester_stuck.render.formats import Content
from kubectl_harvester_stuck.render.invocation import Invocation
from kubectl_harvester_stuck.render.page import Page, Styled
from kubectl_harvester_stuck.render.screen import PIPE, Screen

if TYPE_CHECKING:
    from kubectl_harvester_stuck.checks import Checked
    from kubectl_harvester_stuck.checks.checkup import Checkup

SEVERITY = {
    Result.FAIL: Style.BAD,
    Result.UNKNOWN: Style.CARE,
    Result.WARN: Style.CARE,
    Result.OK: Style.GOOD,
}
"""The results, the worst first."""


def text(
    done: Checkup, output: str, where: Invocation, *, headers: bool = True, screen: Screen = PIPE
) -> str:
    """The answer in the format that was asked for."""
    return Content(
        lambda: as_document(done, where),
        lambda wide: table(done.results, where, Page(screen), wide=wide, headers=headers),
        lambda: dict.fromkeys(row.check.id for row in done.results),
    ).text(output)


def table(
    rows: Sequence[Checked], where: Invocation, page: Page, *, wide: bool, headers: bool
) -> str:
    """How many there are of each result, and then the worst first, with what to do.

    With `wide` also what passes, and the evidence. `headers` stands for the first line.
    """
    counts = Counter(row.result for row in rows)
    if headers:
        page.line(
            ", ".join(f"{counts[one]} {one.value.upper()}" for one in SEVERITY if counts[one])
        )
        page.blank()
    for result in SEVERITY:
        if result is Result.OK and not wide:
            continue
        for row in rows:
            if row.result is result:
                _row(row, where, page, wide=wide)
    if counts[Result.OK] and not wide:
        label = Styled(Result.OK.value.upper(), SEVERITY[Result.OK])
        page.item(label, f"{counts[Result.OK]} more (-o wide)")
    if where.files and any(row.todo for row in rows if wide or row.result is not Result.OK):
        page.blank()
        page.line("The commands are meant for the cluster of the files.")
    return str(page)


def _row(row: Checked, where: Invocation, page: Page, *, wide: bool) -> None:
    label = Styled(row.result.value.upper(), SEVERITY[row.result])
    page.item(label, f"{row.check.id}: {row.summary}")
    if wide:
        for seen in row.evidence:
            page.entry("", f"{seen.object}: {seen.field}: {seen.value}")
    page.advice("", where.lines(row.todo))


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
