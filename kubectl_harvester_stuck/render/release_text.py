"""The screens of `unstick`: the preview that is agreed to, and what became of each target."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kubectl_harvester_stuck.k8s import commands
from kubectl_harvester_stuck.release.model import Action, Outcome
from kubectl_harvester_stuck.render.layout import (
    advice,
    is_command,
    safe,
    short_kind,
    table,
    where_it_is,
    wrap,
)

if TYPE_CHECKING:
    from kubectl_harvester_stuck.k8s.commands import Advice
    from kubectl_harvester_stuck.k8s.objects import ObjectRef
    from kubectl_harvester_stuck.release.model import (
        Plan,
        ReleaseReport,
        Step,
        StepReport,
        TargetReport,
    )
    from kubectl_harvester_stuck.render.invocation import Invocation


IN_FULL = 3
"""Up to so many plans are shown with every patch, more as a table."""


def preview(plans: Sequence[Plan], digest: str, where: Invocation) -> str:
    """Everything that the operator agrees to: where, what, in which order, exactly."""
    parts = [where_it_is(where)]
    if len(plans) > IN_FULL:
        parts.append(_plans(plans))
    else:
        parts += [_refusal(plan, where) if plan.refusals else _plan(plan) for plan in plans]
    return "\n".join([*parts, f"Digest {digest}\n"])


def _plans(plans: Sequence[Plan]) -> str:
    """Many plans: a row each, and how many there are of either kind."""
    rows = [
        [
            plan.ref.namespace,
            plan.ref.name,
            plan.state.value if plan.state else "<none>",
            plan.node or "<unknown>",
            _in_short(plan),
        ]
        for plan in plans
    ]
    refused = sum(bool(plan.refusals) for plan in plans)
    lines = [f"{len(plans) - refused} to release, {refused} refused\n"]
    nodes = sorted({node for plan in plans for node in plan.powered_off})
    lines += [f"by your word alone: node {safe(node)} has no power\n" for node in nodes]
    behind = sum(bool(plan.leaves_behind) for plan in plans if not plan.refusals)
    if behind:
        lines.append(f"{behind} of them leave work behind; --dry-run=client names it\n")
    destroyed = sum(len(plan.destroys) for plan in plans if not plan.refusals)
    if destroyed:
        # Nobody may agree to that unseen, however many plans there are.
        several = "disks or snapshots are" if destroyed > 1 else "disk or snapshot is"
        lines.append(f"{destroyed} {several} DESTROYED\n")
        lines += [
            f"{line}\n"
            for plan in plans
            if not plan.refusals
            for fate in plan.destroys
            for line in wrap(safe(f"destroys {fate.ref}: {fate.why}"), "  ")
        ]
    return table(["NAMESPACE", "NAME", "STATE", "NODE", "PLAN"], rows) + "\n" + "".join(lines)


def _in_short(plan: Plan) -> str:
    if plan.refusals:
        return f"refused: {', '.join(guard.guard for guard in plan.refusals)}"
    acts = (
        "pod" if step.action is Action.DELETE_POD else short_kind(step.ref) for step in plan.steps
    )
    return ", ".join(acts)


def run(done: ReleaseReport, where: Invocation) -> str:
    """What became of every target."""
    parts = [_outcome(outcome, where) for outcome in done.outcomes]
    if any(outcome.result is Outcome.PLANNED for outcome in done.outcomes):
        parts = [where_it_is(where), *parts, f"Digest {done.digest}\n"]
    elif len(parts) > 1:
        parts.append(_summary(done))
    return "\n".join(parts)


def _summary(done: ReleaseReport) -> str:
    counts = Counter(outcome.result.value for outcome in done.outcomes)
    if done.failures:
        counts["error"] = len(done.failures)
    total = len(done.outcomes) + len(done.failures)
    return f"{total} targets: {', '.join(f'{n} {result}' for result, n in counts.items())}\n"


def released(done: ReleaseReport) -> list[ObjectRef]:
    """The targets that were released, or would be."""
    wanted = (Outcome.GONE, Outcome.FREED, Outcome.PLANNED)
    return [outcome.plan.ref for outcome in done.outcomes if outcome.result in wanted]


def private(done: ReleaseReport, where: Invocation) -> str:
    """A warning where a backup holds secrets of a guest, once for the whole run."""
    held = [outcome.backup for outcome in done.outcomes if outcome.private and outcome.backup]
    if not held:
        return ""
    # The path may be long; the command stays in one piece, so that it can be pasted.
    return (
        "Warning: the backup holds cloud-init data, which can be secret; keep it to yourself.\n"
        f"To share it: {safe(where.spell(commands.restore(held[0], '--redact')))}\n"
    )


def _plan(plan: Plan) -> str:
    lines = wrap(headline(plan), "")
    for number, step in enumerate(plan.steps, start=1):
        lines += _step(number, step, plan)
    for node in plan.powered_off:
        lines += wrap(f"by your word alone: node {node} has no power", "  ")
    for item in plan.leaves_behind:
        lines += wrap(f"leaves behind: {item.leaves_behind} ({item.reason})", "  ")
    overridden = [guard for guard in plan.guards if guard.overridden]
    for guard in overridden:
        lines += wrap(f"{guard.guard} {guard.reason}", "  ")
    lines += _goes(plan)
    for fate in plan.stays:
        lines += wrap(f"stays: {fate.ref}: {fate.why}", "  ")
    return "".join(f"{safe(line)}\n" for line in lines)


def _goes(plan: Plan) -> list[str]:
    """What the garbage collector destroys and takes along with the target."""
    lines: list[str] = []
    for fate in plan.destroys:
        lines += wrap(f"destroys {fate.ref}: {fate.why}", "  ")
    for fate in plan.goes:
        if not fate.destroys:
            lines += wrap(f"goes with it: {fate.ref}: {fate.why}", "  ")
    return lines


def headline(plan: Plan) -> str:
    """One line: the object, its state, and the node that it ran on, if it is known."""
    state = plan.state.value if plan.state else "not stuck"
    return f"{plan.ref}: {state}{f', on node {plan.node}' if plan.node else ''}"


def _step(number: int, step: Step, plan: Plan) -> list[str]:
    body = json.dumps(step.body, separators=(",", ":"))
    if step.action is Action.DELETE_POD:
        return [f"  {number}. delete pod {step.ref.name} without waiting for its node",
                f"     {body}"]  # fmt: skip
    states = {(item.ref, item.name): item for item in plan.judgments}
    lines = [f"  {number}. patch {step.ref}"]
    # Later steps are judged as things will be when the earlier ones have succeeded.
    then = "then " if number > 1 else ""
    for name in step.removes:
        item = states[step.ref, name]
        lines += wrap(f"removes {name}: {then}{item.state.value}, {item.reason}", "     ")
    lines += [f"     keeps   {name}" for name in step.keeps]
    return [*lines, f"     {body}"]


def _refusal(plan: Plan, where: Invocation) -> str:
    lines = [f"{plan.ref}: refused, nothing was changed"]
    for guard in plan.refusals:
        lines += wrap(f"{guard.guard}: {guard.reason}", "  ")
    lines += _next(plan, where, None)
    return "".join(f"{safe(line)}\n" for line in lines)


def _next(plan: Plan, where: Invocation, first: Advice | None) -> list[str]:
    """What to do about a refusal: what `diagnose` does first, and what leaves work undone last."""
    cures = [cure for guard in plan.refusals for cure in guard.cure]
    steps = [*([first] if first is not None and first not in cures else []), *cures]
    lines = advice(where.lines(steps), "  ")
    if plan.silent_nodes:
        vouched = [word for node in plan.silent_nodes for word in ("--node-powered-off", node)]
        lines += [
            f"  Only once you know that {' and '.join(plan.silent_nodes)} has no power:",
            f"    {where.spell(where.unstick(plan.ref, *vouched))}",
        ]
    last = where.last_resort(plan)
    return [*lines, *advice(where.lines((last,)), "  ")] if last is not None else lines


_SAYS = {
    Outcome.GONE: "released, it is gone",
    Outcome.FREED: "freed",
    Outcome.STILL_THERE: "STILL THERE, although it was changed",
    Outcome.UNKNOWN: "UNKNOWN: it was changed, and could not be looked at afterwards",
    Outcome.DENIED: "denied by the API server",
    Outcome.CONFLICT: "conflict: it changed at the last moment",
}


def _outcome(outcome: TargetReport, where: Invocation) -> str:
    plan = outcome.plan
    if outcome.result is Outcome.PLANNED:
        return _plan(plan)
    lines = [f"{plan.ref}: {_SAYS.get(outcome.result, 'refused')}"]
    if not outcome.changed and outcome.result not in (Outcome.GONE, Outcome.FREED):
        lines[0] += ", nothing was changed"
    for report in outcome.reports:
        lines += _sent(report)
    told = {"", *(report.text for report in outcome.reports)}
    for text in (outcome.reason, outcome.seen):
        if text not in told:
            lines += wrap(text, "  ")
    for guard in outcome.refusals:
        lines += wrap(f"{guard.guard}: {guard.reason}", "  ")
    if outcome.refusals and not outcome.changed:
        lines += _next(plan, where, outcome.first_step)
    if outcome.changed:
        lines += _goes(plan)
    lines += _remains(outcome, where)
    return "".join(f"{safe(line)}\n" for line in lines)


def _remains(outcome: TargetReport, where: Invocation) -> list[str]:
    """What is left of it: in the cluster, and in the file that was saved before."""
    lines: list[str] = []
    for line in where.sentences(outcome.leftovers):
        lines += advice([line if is_command(line) else f"left behind: {line}"], "  ")
    return [*lines, f"  saved before: {outcome.backup}"] if outcome.backup else lines


def _sent(report: StepReport) -> list[str]:
    """What was sent, and what came of it."""
    act = "delete" if report.step.action is Action.DELETE_POD else "patch"
    removed = f" (removed {', '.join(report.step.removes)})" if report.step.removes else ""
    return wrap(f"{act} {report.step.ref}: {report.text}{removed}", "  ")
