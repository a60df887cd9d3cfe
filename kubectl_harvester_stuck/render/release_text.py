"""The screens of `unstick`: the preview that is agreed to, and what became of each target."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from kubectl_harvester_stuck.k8s import commands
from kubectl_harvester_stuck.k8s.commands import Command
from kubectl_harvester_stuck.k8s.kinds import VM
from kubectl_harvester_stuck.release import statements
from kubectl_harvester_stuck.release.model import GUEST_STOPPED, Action, Outcome, ReleaseRequest
from kubectl_harvester_stuck.render.color import Style
from kubectl_harvester_stuck.render.layout import MOST_NAMES, safe, short_kind
from kubectl_harvester_stuck.render.page import Page, Styled

if TYPE_CHECKING:
    from kubectl_harvester_stuck.k8s.commands import Advice
    from kubectl_harvester_stuck.k8s.objects import ObjectRef
    from kubectl_harvester_stuck.release.model import (
        GuardResult,
        Plan,
        ReleaseReport,
        Step,
        StepReport,
        TargetReport,
    )
    from kubectl_harvester_stuck.render.invocation import Invocation


IN_FULL = 3
"""Up to so many plans are shown one by one, more as a table."""

TWO_GUESTS = "if it is running, two guests will write to the same disks"


def named(ref: ObjectRef) -> str:
    """`VM shop/web-1`: how a target is called at the head of what is said of it."""
    return f"{short_kind(ref)} {ref.key}"


def where_it_is(where: Invocation, page: Page) -> None:
    """Two lines that name the context and the API server, above what is about to be changed."""
    page.line(f"Context {where.context or '<none>'}")
    page.line(f"Server  {where.server}")


# What is agreed to


def preview(plans: Sequence[Plan], digest: str, where: Invocation, page: Page) -> str:
    """Everything that the operator agrees to: where, what, in which order, at which risk."""
    where_it_is(where, page)
    if len(plans) > IN_FULL:
        _plans(plans, page)
    else:
        agreed = [plan for plan in plans if not plan.refusals]
        for plan in agreed:
            _plan(plan, page)
        _stated_off(agreed, page)
        _refusals([_Refused(plan, plan.refusals) for plan in plans if plan.refusals], where, page)
    page.blank()
    _digest(digest, page, "   exact requests: --dry-run=client")
    return str(page)


def _digest(digest: str, page: Page, more: str = "") -> None:
    page.line(f"Digest {digest}{more}")


def _plans(plans: Sequence[Plan], page: Page) -> None:
    """Many plans: a row each, and how many there are of either kind."""
    refused = sum(bool(plan.refusals) for plan in plans)
    page.blank()
    page.line(f"{len(plans) - refused} to release, {refused} refused")
    _stated_off(plans, page)
    behind = sum(bool(plan.leaves_behind) for plan in plans if not plan.refusals)
    if behind:
        text = f"! {behind} of them leave work behind; --dry-run=client names it"
        page.entry("risk", text, Style.CARE)
    agreed = [plan for plan in plans if not plan.refusals]
    overridden = Counter(
        f"{guard.guard} {guard.reason}"
        for plan in agreed
        for guard in plan.guards
        if guard.overridden
    )
    for text, number in overridden.items():
        page.entry("risk", f"! {number} of them: {text}", Style.ALARM)
    going = [fate for plan in agreed for fate in plan.destroys]
    if going:
        # Nobody may agree to that unseen, however many plans there are.
        several = "disks or snapshots are" if len(going) > 1 else "disk or snapshot is"
        page.entry("risk", f"! {len(going)} {several} DESTROYED", Style.ALARM)
    for fate in going:
        page.entry("destroys", f"{fate.ref}: {fate.why}", Style.ALARM)
    page.blank()
    page.table(
        ["NAMESPACE", "NAME", "STATE", "NODE", "PLAN"],
        [
            [
                plan.ref.namespace,
                plan.ref.name,
                Styled(plan.state.value if plan.state else "<none>", Style.CARE),
                plan.node or "<unknown>",
                _in_short(plan),
            ]
            for plan in plans
        ],
    )


def _in_short(plan: Plan) -> str:
    if plan.refusals:
        return f"refused: {', '.join(guard.guard for guard in plan.refusals)}"
    acts = (
        "pod" if step.action is Action.DELETE_POD else short_kind(step.ref) for step in plan.steps
    )
    return ", ".join(acts)


def _plan(plan: Plan, page: Page) -> None:
    """One plan: its steps, what stays and what goes, and the risks."""
    state = Styled(plan.state.value if plan.state else "not stuck", Style.CARE)
    page.title(named(plan.ref), state, f"on node {plan.node}" if plan.node else "")
    for number, step in enumerate(plan.steps, start=1):
        page.line(f"  {number}  {_act(step)}")
    for fate in plan.stays:
        page.entry("stays", f"{fate.ref}: {fate.why}")
    _goes(plan, page)
    if not plan.goes:
        page.entry("goes", "nothing else")
    for item in plan.leaves_behind:
        text = f"! {item.name} is removed although its work is not done ({item.reason});"
        page.entry("risk", f"{text} it leaves behind: {item.leaves_behind}", Style.ALARM)
    for guard in plan.guards:
        if guard.overridden:
            page.entry("risk", f"! {guard.guard} {guard.reason}", Style.ALARM)


def _act(step: Step) -> str:
    if step.action is Action.DELETE_POD:
        return f"force-delete pod {step.ref.name}"
    count = len(step.removes)
    removed = f"remove {count} finalizer{'s' if count > 1 else ''}, if still needed"
    kept = f" (keep {', '.join(step.keeps)})" if step.keeps else ""
    return f"{short_kind(step.ref)}: {removed}{kept}"


def _stated_off(plans: Sequence[Plan], page: Page) -> None:
    """What nothing but the operator's statement stands for, once for all plans."""
    if len(plans) > 1:
        page.blank()
    for node in sorted({node for plan in plans for node in plan.powered_off}):
        text = f"! NOT VERIFIABLE, stated by you: node {node} has NO POWER; {TWO_GUESTS}"
        page.entry("risk", text, Style.ALARM)


def _goes(plan: Plan, page: Page) -> None:
    """What the garbage collector destroys and takes along with the target."""
    for fate in plan.destroys:
        page.entry("destroys", f"{fate.ref}: {fate.why}", Style.ALARM)
    for fate in plan.goes:
        if not fate.destroys:
            page.entry("goes", f"{fate.ref}: {fate.why}")


def _requests(plans: Sequence[Plan], page: Page) -> None:
    """Every step as it would be sent, below what is decided."""
    page.blank()
    page.line(Styled("requests", Style.HEADING))
    for plan in plans:
        for number, step in enumerate(plan.steps, start=1):
            _request(number, step, plan, page)


def _request(number: int, step: Step, plan: Plan, page: Page) -> None:
    """A step as it would be sent, with the reason of each finalizer that it removes."""
    verb = "delete" if step.action is Action.DELETE_POD else "patch"
    page.wrapped(f"{number}  {verb} {step.ref}", "  ", "     ")
    states = {(item.ref, item.name): item for item in plan.judgments}
    # Later steps are judged as things will be when the earlier ones have succeeded.
    then = "by then " if number > 1 else ""
    for name in step.removes:
        item = states[step.ref, name]
        page.wrapped(f"removes {name}: {then}{item.state.value}, {item.reason}", "     ")
    for name in step.keeps:
        page.line(f"     keeps   {name}")
    page.line(f"     {json.dumps(step.body, separators=(',', ':'))}")


# What became of it


def run(done: ReleaseReport, where: Invocation, page: Page) -> str:
    """What became of every target: how many of what, and then each."""
    planned = [one.plan for one in done.outcomes if one.result is Outcome.PLANNED]
    if planned:
        where_it_is(where, page)
    if done.outcomes and len(done.outcomes) + len(done.failures) > 1:
        page.blank()
        _summary(done, page)
    for plan in planned:
        _plan(plan, page)
    _stated_off(planned, page)
    refused = [one for one in done.outcomes if _is_only_refused(one)]
    for outcome in done.outcomes:
        if outcome.result is not Outcome.PLANNED and not _is_only_refused(outcome):
            _outcome(outcome, where, page)
    for result in dict.fromkeys(one.result for one in refused):
        alike = [
            _Refused(one.plan, one.refusals, one.first_step)
            for one in refused
            if one.result is result
        ]
        _refusals(alike, where, page, _SAYS.get(result, "refused"))
    if planned:
        _requests(planned, page)
        page.blank()
        _digest(done.digest, page)
    return str(page)


def _is_only_refused(outcome: TargetReport) -> bool:
    """Whether there is nothing else to say of it."""
    more = outcome.changed or outcome.reports or outcome.backup or outcome.reason or outcome.seen
    return bool(outcome.refusals) and not more


def _summary(done: ReleaseReport, page: Page) -> None:
    counts = Counter(outcome.result.value for outcome in done.outcomes)
    if done.failures:
        counts["error"] = len(done.failures)
    total = len(done.outcomes) + len(done.failures)
    page.line(f"{total} targets: {', '.join(f'{n} {result}' for result, n in counts.items())}")


def released(done: ReleaseReport) -> list[ObjectRef]:
    """The targets that were released, or would be."""
    wanted = (Outcome.GONE, Outcome.FREED, Outcome.PLANNED)
    return [outcome.plan.ref for outcome in done.outcomes if outcome.result in wanted]


def private(done: ReleaseReport, where: Invocation) -> str:
    """A warning where an undo file holds secrets of a guest, once for the whole run."""
    held = [outcome.backup for outcome in done.outcomes if outcome.private and outcome.backup]
    if not held:
        return ""
    # The path may be long; the command stays in one piece, so that it can be pasted.
    return (
        "Warning: the undo file holds cloud-init data, which can be secret; keep it to yourself.\n"
        f"To share it: {safe(where.spell(commands.restore(held[0], '--redact')))}\n"
    )


_SAYS = {
    Outcome.GONE: "released, it is gone",
    Outcome.FREED: "freed",
    Outcome.STILL_THERE: "STILL THERE, although it was changed",
    Outcome.UNKNOWN: "UNKNOWN: it was changed, but the result could not be read",
    Outcome.DENIED: "denied by the API server",
    Outcome.CONFLICT: "conflict: it changed at the last moment",
}
_STYLES = {
    Outcome.GONE: Style.GOOD,
    Outcome.FREED: Style.GOOD,
    Outcome.STILL_THERE: Style.ALARM,
    Outcome.UNKNOWN: Style.ALARM,
}


def _outcome(outcome: TargetReport, where: Invocation, page: Page) -> None:
    plan, result = outcome.plan, outcome.result
    is_good = result in (Outcome.GONE, Outcome.FREED)
    says = _SAYS.get(result, "refused")
    if not outcome.changed and not is_good:
        says += ", nothing was changed"
    sign = page.signs.good if is_good else page.signs.bad
    page.title(named(plan.ref), Styled(says, _STYLES.get(result, Style.BAD)), sign=sign)
    told = {"", *(report.text for report in outcome.reports)}
    for label, text in (("now", outcome.seen), ("why", outcome.reason)):
        if text not in told:
            page.entry(label, text)
    for guard in outcome.refusals:
        page.entry("blocks", f"{guard.guard}: {guard.reason}")
    if outcome.refusals and not outcome.changed:
        alike = [_Refused(plan, outcome.refusals, outcome.first_step)]
        page.advice("to do", where.lines(_cures(alike, where)))
        page.advice("else", where.lines(_last_resorts(alike, where)))
    for report in outcome.reports:
        page.entry("sent", _sent(report))
    if outcome.changed:
        _goes(plan, page)
    leftovers(outcome.leftovers, where, page, "to do")
    if outcome.backup and result is Outcome.GONE and plan.ref.kind is VM:
        page.advice("undo", [where.spell(commands.restore(outcome.backup))])
    elif outcome.backup:
        page.entry("undo", f"saved to, without disk data: {outcome.backup}")


def leftovers(advice: Iterable[Advice], where: Invocation, page: Page, label: str) -> None:
    """What stays of a VM, and below `label` the commands that remove what nobody else will."""
    told = list(advice)
    for line in where.sentences(item for item in told if not isinstance(item, Command)):
        page.entry("stays", line)
    page.advice(label, where.sentences(item for item in told if isinstance(item, Command)))


def _sent(report: StepReport) -> str:
    """What was sent, and what came of it."""
    act = "delete" if report.step.action is Action.DELETE_POD else "patch"
    removed = f" (removed {', '.join(report.step.removes)})" if report.step.removes else ""
    return f"{act} {report.step.ref}: {report.text}{removed}"


# What was refused


class _Refused(NamedTuple):
    """A target with the guards that did not pass, at the last look."""

    plan: Plan
    guards: tuple[GuardResult, ...]
    first_step: Advice | None = None
    """What `diagnose` would do first."""


def _refusals(
    refused: Sequence[_Refused], where: Invocation, page: Page, says: str = "refused"
) -> None:
    """Refusals with what to do about them; those for the same reason as one."""
    groups: dict[object, list[_Refused]] = {}
    for one in refused:
        groups.setdefault(_reason(one), []).append(one)
    for group in groups.values():
        _refused(group, where, page, Styled(f"{says}, nothing was changed", Style.BAD))


def _reason(one: _Refused) -> object:
    """What is the same for targets that are refused for the same reason."""
    if one.plan.silent_nodes and {guard.guard for guard in one.guards} == {GUEST_STOPPED}:
        return one.plan.silent_nodes
    return tuple((guard.guard, guard.reason) for guard in one.guards)


def _refused(group: Sequence[_Refused], where: Invocation, page: Page, answer: Styled) -> None:
    first = group[0].plan
    name = named(first.ref) if len(group) == 1 else f"{len(group)} targets"
    page.title(name, answer, sign=page.signs.bad)
    if len(group) > 1:
        page.entry("which", ", ".join(named(one.plan.ref) for one in group))
    told: set[str] = set()
    for text in dict.fromkeys(
        f"{guard.guard}: {guard.reason}" for one in group for guard in one.guards
    ):
        page.entry("why", without_repeats(text, told))
    page.advice("to do", where.lines(_cures(group, where)))
    page.advice("diagnose", [where.spell(commands.diagnose(first.ref))])
    page.advice("else", where.lines(_last_resorts(group, where)))


def _cures(group: Sequence[_Refused], where: Invocation) -> list[Advice]:
    """What to do about refusals for the same reason, each thing once.

    First comes what `diagnose` would do first.
    """
    first = [one.first_step for one in group if one.first_step is not None]
    cures = (cure for one in group for guard in one.guards for cure in guard.cure)
    plans = [one.plan for one in group]
    nodes = dict.fromkeys(node for plan in plans for node in plan.silent_nodes)
    steps = [*first, *cures, *map(statements.look_at, nodes)]
    at_once = all_of_node(plans, where) if len(plans) > 1 else None
    if at_once:
        steps.append(at_once)
    else:
        steps += [stated_off(plan, where) for plan in plans if plan.silent_nodes]
    return list(dict.fromkeys(steps))


def _last_resorts(group: Sequence[_Refused], where: Invocation) -> list[Advice]:
    """What leaves work undone; it stands last."""
    return [step for one in group if (step := where.last_resort(one.plan)) is not None]


def without_repeats(text: str, told: set[str]) -> str:
    """The text without what stands in brackets, where it is in `told`; the rest is added to it."""

    def once(found: re.Match[str]) -> str:
        if found[1] in told:
            return ""
        told.add(found[1])
        return found[0]

    return re.sub(r" ?(\([^()]+\))", once, text)


ONLY_OFF = "only once it is known to have no power"


def stated_off(plan: Plan, where: Invocation) -> Command:
    """The release of one target whose nodes the operator states to have no power."""
    stated = [word for node in plan.silent_nodes for word in ("--node-powered-off", node)]
    return where.unstick(plan.ref, *stated).noted(ONLY_OFF)


def all_of_node(plans: Sequence[Plan], where: Invocation) -> Command | None:
    """One release for VMs of a node that does not answer; None where it would not be one.

    It names a few VMs of one namespace; else it is meant for all that hang and ran on the node,
    which its note says.
    """
    nodes = {node for plan in plans for node in (plan.node, *plan.silent_nodes)}
    if len(nodes) != 1 or any(_is_no_vm_to_release(plan) for plan in plans):
        return None
    (node,) = nodes
    if node is None:
        return None
    spaces = sorted({plan.ref.namespace for plan in plans})
    flags = [*where.options, "--node-powered-off", node]
    if len(spaces) == 1 and len(plans) <= MOST_NAMES:
        names = tuple(plan.ref.name for plan in plans)
        return commands.unstick_named(spaces[0], names, *flags).noted(ONLY_OFF)
    if WAIVERS.intersection(flags):
        return None
    if len(plans) > ReleaseRequest().max_targets and "--max" not in flags:
        flags += ["--max", str(len(plans))]
    command = commands.unstick_node(node, spaces[0] if len(spaces) == 1 else None, *flags)
    return command.noted(f"{ONLY_OFF}, for all of its VMs, not only these")


WAIVERS = frozenset({"--override", "--leave-behind", "--finalizer", "--older-than"})
"""Flags that were agreed to for the VMs that were named, and for no others."""


def _is_no_vm_to_release(plan: Plan) -> bool:
    return plan.ref.kind is not VM or plan.since is None or not plan.silent_nodes
