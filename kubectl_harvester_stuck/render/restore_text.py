"""How `restore` is told to people. It is a module of its own for the start-up of the others."""

from __future__ import annotations

from kubectl_harvester_stuck.k8s.redaction import redacted
from kubectl_harvester_stuck.release.model import GuardResult, GuardState
from kubectl_harvester_stuck.render.invocation import Invocation
from kubectl_harvester_stuck.render.layout import advice, safe, where_it_is, wrap
from kubectl_harvester_stuck.restore.decisions import Proposal, Restoration, RestoreOutcome


def proposal(item: Proposal, where: Invocation) -> str:
    """The VM that would be made: where, which, and what of it; its secrets are not shown."""
    import yaml

    lines = [f"{item.backup.ref}: would be created, powered off"]
    if item.backup.taken_at:
        lines.append(f"  from the backup of {item.backup.taken_at}")
    for line in (*item.changes, *(f"warning: {text}" for text in item.warnings)):
        lines += wrap(line, "  ")
    shown = redacted(item.body)
    if shown != item.body:
        lines += wrap("its secrets are not shown below; it gets them as they were saved", "  ")
    body = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)
    lines += ["", *body.splitlines(), ""]
    return where_it_is(where) + "".join(f"{safe(line)}\n" for line in lines)


def restoration(done: Restoration, where: Invocation) -> str:
    """How `restore` ended."""
    item = done.proposal
    ref = item.backup.ref
    if done.end is RestoreOutcome.PLANNED:
        checks = [line for check in item.checks for line in _check(check, where)]
        return proposal(item, where) + "".join(f"{safe(line)}\n" for line in checks)
    lines = [f"{ref}: {_ENDS[done.end]}"]
    if done.reason:
        lines += wrap(done.reason, "  ")
    lines += [line for check in item.refusals for line in _check(check, where)]
    for text in item.warnings:
        lines += wrap(f"warning: {text}", "  ")
    lines += advice(where.sentences(done.afterwards), "  ")
    return "".join(f"{safe(line)}\n" for line in lines)


_ENDS = {
    RestoreOutcome.CREATED: "created, powered off",
    RestoreOutcome.REFUSED: "refused, nothing was created",
    RestoreOutcome.DENIED: "denied by the API server, nothing was created",
    RestoreOutcome.UNKNOWN: "UNKNOWN: it may have been created, look at it before anything else",
}


def _check(check: GuardResult, where: Invocation) -> list[str]:
    mark = "" if check.verdict is GuardState.REFUSE else f" {check.verdict.value},"
    reason = wrap(f"{check.guard}:{mark} {check.reason}", "  ")
    return [*reason, *advice(where.lines(check.cure), "    ")]


def is_made(done: Restoration) -> bool:
    """Whether the VM is there, or would be."""
    return done.end in (RestoreOutcome.CREATED, RestoreOutcome.PLANNED)
