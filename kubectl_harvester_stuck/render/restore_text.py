"""The screens of `restore`: the VM that would be created, and how it ended."""

from __future__ import annotations

from kubectl_harvester_stuck.k8s.redaction import redacted
from kubectl_harvester_stuck.release.model import GuardResult, GuardState
from kubectl_harvester_stuck.render.color import Style
from kubectl_harvester_stuck.render.invocation import Invocation
from kubectl_harvester_stuck.render.page import Page, Styled
from kubectl_harvester_stuck.render.release_text import leftovers, named, where_it_is
from kubectl_harvester_stuck.restore.decisions import Proposal, Restoration, RestoreOutcome


def proposal(item: Proposal, where: Invocation, page: Page, *, with_checks: bool = False) -> str:
    """The VM that would be made: where, which, and what of it; its secrets are not shown."""
    where_it_is(where, page)
    page.title(named(item.backup.ref), Styled("would be created, powered off", Style.CARE))
    if item.backup.taken_at:
        page.entry("from", f"the undo file of {item.backup.taken_at}")
    for path in item.backup.taken_over_from:
        page.entry("with", f"objects of {path}, from the same release")
    for line in item.changes:
        page.entry("changes", line)
    _warnings(item, page)
    for check in item.checks if with_checks else ():
        _check(check, where, page)
    _manifest(item, page)
    return str(page)


def restoration(done: Restoration, where: Invocation, page: Page) -> str:
    """How `restore` ended."""
    if done.end is RestoreOutcome.PLANNED:
        return proposal(done.proposal, where, page, with_checks=True)
    item = done.proposal
    is_good = done.end is RestoreOutcome.CREATED
    says, style = _ENDS[done.end]
    sign = page.signs.good if is_good else page.signs.bad
    page.title(named(item.backup.ref), Styled(says, style), sign=sign)
    if done.reason:
        page.entry("why", done.reason)
    for check in item.refusals:
        _check(check, where, page)
    _warnings(item, page)
    leftovers(done.afterwards, where, page, "to do")
    return str(page)


_ENDS = {
    RestoreOutcome.CREATED: ("created, powered off", Style.GOOD),
    RestoreOutcome.REFUSED: ("refused, nothing was created", Style.BAD),
    RestoreOutcome.DENIED: ("denied by the API server, nothing was created", Style.BAD),
    RestoreOutcome.UNKNOWN: (
        "UNKNOWN: it may have been created, look at it before anything else",
        Style.ALARM,
    ),
}


def _warnings(item: Proposal, page: Page) -> None:
    for text in item.warnings:
        page.entry("warning", text, Style.CARE)


def _check(check: GuardResult, where: Invocation, page: Page) -> None:
    """A check that passes in one line, of any other what to do as well."""
    if check.verdict is GuardState.PASS:
        page.entry("passes", f"{check.guard}: {check.reason}")
        return
    label = "blocks" if check.verdict is GuardState.REFUSE else "unknown"
    page.entry(label, f"{check.guard}: {check.reason}", Style.BAD)
    page.advice("to do", where.lines(check.cure))


def _manifest(item: Proposal, page: Page) -> None:
    import yaml

    shown = redacted(item.body)
    page.blank()
    page.line(Styled("manifest", Style.HEADING))
    if shown != item.body:
        page.wrapped("its secrets are not shown below; it gets them as they were saved", "  ")
    body = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)
    for line in body.splitlines():
        page.line(f"  {line}")
    page.blank()


def is_made(done: Restoration) -> bool:
    """Whether the VM is there, or would be."""
    return done.end in (RestoreOutcome.CREATED, RestoreOutcome.PLANNED)
