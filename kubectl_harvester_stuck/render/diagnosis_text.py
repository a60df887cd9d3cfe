"""The screens of `diagnose`: for people, and as a flow chart for a ticket."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from kubectl_harvester_stuck.diagnosis.model import Verdict
from kubectl_harvester_stuck.k8s import commands
from kubectl_harvester_stuck.k8s.durations import human
from kubectl_harvester_stuck.release.model import DISKS_KEPT, NOT_SYSTEM
from kubectl_harvester_stuck.render.color import Style
from kubectl_harvester_stuck.render.layout import safe, short_kind, wrap
from kubectl_harvester_stuck.render.page import Cell, Page, Styled
from kubectl_harvester_stuck.render.release_text import (
    all_of_node,
    leftovers,
    named,
    stated_off,
    without_repeats,
)

if TYPE_CHECKING:
    from kubectl_harvester_stuck.diagnosis.model import Diagnosis, Finding, Link
    from kubectl_harvester_stuck.k8s.commands import Advice
    from kubectl_harvester_stuck.release.model import Plan
    from kubectl_harvester_stuck.render.invocation import Invocation

_BRACKETS = re.compile(r"\([^()]+\)")

ANSWERS = {
    Verdict.WAIT: Styled("WAIT", Style.CARE),
    Verdict.REPAIR: Styled("REPAIR FIRST", Style.BAD),
    Verdict.RELEASE: Styled("READY TO RELEASE", Style.GOOD),
    Verdict.REFUSE: Styled("NEEDS YOU", Style.BAD),
    Verdict.NONE: Styled("not stuck, nothing to do", Style.GOOD),
}
"""How a verdict is called on a screen."""


def diagnoses(
    items: Sequence[Diagnosis], where: Invocation, now: datetime, page: Page, *, wide: bool = False
) -> str:
    """Why each target hangs, those with the same cause together; `wide` tells all of each."""
    screen = _Screen(where, now, page, wide)
    groups = _groups(items)
    if len(items) > 1:
        counts = Counter(ANSWERS[item.advice].text for item in items)
        told = ", ".join(f"{count} x {answer}" for answer, count in counts.items())
        causes = f"{len(groups)} cause{'s' if len(groups) > 1 else ''}"
        page.wrapped(f"{len(items)} targets, {causes}: {told}")
    for group in groups:
        if wide or len(group) == 1:
            for item in group:
                screen.alone(item)
        else:
            screen.together(group)
    return str(page)


def _groups(items: Sequence[Diagnosis]) -> list[list[Diagnosis]]:
    """The diagnoses by their cause, in the order in which each is first met."""
    found: dict[tuple[object, ...], list[Diagnosis]] = {}
    for item in items:
        cause = _cause(item)
        key = (item.advice, cause.id if cause else item.because, item.plan.silent_nodes)
        found.setdefault(key, []).append(item)
    return list(found.values())


def _cause(item: Diagnosis) -> Finding | None:
    return next((one for one in item.findings if one.summary == item.because), None)


class _Screen:
    """Writes diagnoses onto one page."""

    def __init__(self, where: Invocation, now: datetime, page: Page, wide: bool) -> None:
        self._where = where
        self._now = now
        self._page = page
        self._wide = wide

    def alone(self, item: Diagnosis) -> None:
        """One target: the answer, why, what to do, and then the evidence."""
        page, plan = self._page, item.plan
        page.title(named(plan.ref), ANSWERS[item.advice], self._state(plan))
        self._why(item)
        self._to_do(_steps(item, self._where))
        page.blank()
        for line in _tree(item.chain, plan.ref.namespace, page):
            page.line(*line)
        page.blank()
        self._details(item)
        if item.advice is not Verdict.NONE:
            self._finalizers(item)
        if self._wide and item.events:
            self._section("events", item.events)

    def together(self, group: Sequence[Diagnosis]) -> None:
        """Targets with the same cause: it is told once, and of each what is its own."""
        page, first = self._page, group[0]
        page.title(f"{len(group)} targets", ANSWERS[first.advice])
        page.entry("why", first.because)
        steps = {item.plan.ref: _steps(item, self._where) for item in group}
        shared = [step for step in steps[first.plan.ref]
                  if all(step in theirs for theirs in steps.values())]  # fmt: skip
        at_once = all_of_node([item.plan for item in group], self._where)
        self._to_do([*shared, *([at_once] if at_once else ())])
        known = {first.because, *(one.summary for one in first.findings)}.intersection(
            *({one.summary for one in item.findings} for item in group)
        )
        self._also(first, {first.because}, only=known)
        told = {*shared, *(stated_off(item.plan, self._where) for item in group if at_once)}
        for item in group:
            page.blank()
            name = Styled(named(item.plan.ref), Style.HEADING)
            page.line(name, f"   {self._state(item.plan)}")
            if item.because != first.because:
                page.entry("why", item.because)
            self._to_do([step for step in steps[item.plan.ref] if step not in told])
            self._details(item, known)
        page.blank()
        page.advice("in full", [self._where.spell(commands.diagnose(first.plan.ref))])

    def _state(self, plan: Plan) -> str:
        words = plan.state.value if plan.state else ""
        if plan.state and plan.since:
            words += f" for {human(self._now - plan.since)}"
        place = f"on node {plan.node}" if plan.node else ""
        return ", ".join(text for text in (words, place) if text)

    def _why(self, item: Diagnosis) -> None:
        cause = _cause(item)
        name = f"{cause.id}: " if cause and self._wide else ""
        self._page.entry("why", f"{name}{item.because}")

    def _to_do(self, steps: Sequence[Advice]) -> None:
        if not steps:
            return
        meant = ["on the cluster of the files:"] if self._where.files else []
        self._page.advice("to do", [*meant, *self._where.lines(steps)])

    def _also(
        self, item: Diagnosis, told: Collection[str], only: Collection[str] | None = None
    ) -> None:
        """What else was found, but for the summaries in `told`."""
        for one in item.findings:
            if one.summary not in told and (only is None or one.summary in only):
                text = f"{one.id}: {one.summary}" if self._wide else one.summary
                self._page.entry("also", text)

    def _details(self, item: Diagnosis, told: Collection[str] = ()) -> None:
        """What else was found, what blocks a release, what it would do, and what is unknown."""
        page, plan = self._page, item.plan
        self._also(item, {item.because, *told})
        brackets = {one for text in (item.because, *told) for one in _BRACKETS.findall(text)}
        if item.advice is not Verdict.NONE:
            for guard in plan.refusals:
                page.entry("blocks", f"{guard.guard}: {without_repeats(guard.reason, brackets)}")
        for fate in plan.destroys:
            page.entry("destroys", f"{fate.ref}: {fate.why}", Style.ALARM)
        for fate in plan.goes:
            if not fate.destroys:
                page.entry("goes", f"{fate.ref}: {fate.why}")
        leftovers(item.leftovers, self._where, page, "later")
        for text in item.blind:
            page.entry("unknown", f"not checked: {text}", Style.CARE)

    def _finalizers(self, item: Diagnosis) -> None:
        page, indent = self._page, " " * 7
        page.blank()
        if item.finalizers:
            page.line(Styled("finalizers", Style.HEADING), "  (controller, state: reason)")
        for one in item.finalizers:
            # The name alone fills the narrowest terminal, and is to be copied in one piece.
            page.line(f"  {short_kind(one.ref).ljust(3)}  {one.name}")
            page.wrapped(f"{one.owner}, {one.state.value}: {one.reason}", indent, indent)
            if self._wide:
                page.wrapped(f"if removed by hand: {one.leaves_behind}", indent, indent)

    def _section(self, title: str, lines: Iterable[str]) -> None:
        page = self._page
        page.blank()
        lines = list(lines)
        if lines:
            page.line(Styled(title, Style.HEADING))
        for line in lines:
            page.wrapped(line, "  ", "       ")


def next_steps(item: Diagnosis, where: Invocation) -> list[str]:
    """What to do, as commands that work when pasted, the least destructive first."""
    return where.lines(_steps(item, where))


def _steps(item: Diagnosis, where: Invocation) -> list[Advice]:
    plan, steps = item.plan, list(item.steps)
    if plan.state is None:
        return steps
    steps += [cure for guard in plan.refusals for cure in guard.cure]
    if plan.since is None:
        return steps  # there is nothing yet that unstick could release
    if plan.silent_nodes:
        steps.append(stated_off(plan, where))
    elif not plan.refusals:
        steps.append(where.unstick(plan.ref, "--dry-run=server"))
        steps.append(where.unstick(plan.ref))
    elif {guard.guard for guard in plan.refusals} == {NOT_SYSTEM}:
        note = "this namespace is Harvester's own; only if you know what this VM is for"
        steps.append(where.unstick(plan.ref, "--override", NOT_SYSTEM).noted(note))
    elif {guard.guard for guard in plan.refusals} == {DISKS_KEPT}:
        steps.append(where.unstick(plan.ref).noted("then"))
    elif item.advice is Verdict.REPAIR:
        steps.append(where.unstick(plan.ref).noted("then, if it does not clear on its own"))
    last = where.last_resort(plan)
    if last is not None and item.advice is not Verdict.WAIT:
        steps.append(last)
    return steps or [where.unstick(plan.ref, "--dry-run=client")]


_SHORT = {
    "VirtualMachine": "VM",
    "VirtualMachineInstance": "VMI",
    "PersistentVolumeClaim": "PVC",
    "PersistentVolume": "PV",
}


def _tree(link: Link, namespace: str, page: Page, taken: int = 0) -> list[list[Cell]]:
    """The chain, one list of parts for each line; objects of the target's own namespace bare."""
    kind, _, name = safe(link.label).partition(" ")
    label = f"{_SHORT.get(kind, kind)} {name.removeprefix(f'{namespace}/')}".strip()
    mark = page.signs.here
    # What stands for the mark is not broken, and is replaced by it below.
    text = f"{label}: {safe(link.state)}" + (f"  {'x' * len(mark)}" if link.blocking else "")
    room = None if page.width is None else page.width - taken
    lines: list[list[Cell]] = [[line] for line in wrap(text, "", room)]
    if link.blocking:
        last = str(lines[-1][0])[: -len(mark)]
        lines[-1] = [last, Styled(mark, Style.ALARM)]
    signs = page.signs
    for number, child in enumerate(link.links, start=1):
        is_last = number == len(link.links)
        head, *rest = _tree(child, namespace, page, taken + len(signs.tee))
        lines.append([signs.corner if is_last else signs.tee, *head])
        lines += [["   " if is_last else signs.bar, *line] for line in rest]
    return lines


def mermaid(items: Sequence[Diagnosis]) -> str:
    """The chains as a flow chart for a ticket; the blocking links are red."""
    lines = ["flowchart TD"]
    blocking: list[str] = []

    def draw(link: Link, name: str) -> None:
        label = safe(f"{link.label}: {link.state}").replace('"', "#quot;")
        lines.append(f'  {name}["{label}"]')
        if link.blocking:
            blocking.append(name)
        for number, child in enumerate(link.links):
            draw(child, f"{name}_{number}")
            lines.append(f"  {name} --> {name}_{number}")

    for number, item in enumerate(items):
        draw(item.chain, f"t{number}")
    if blocking:
        lines.append("  classDef blocking stroke:#c00,stroke-width:3px")
        lines.append(f"  class {','.join(blocking)} blocking")
    return "\n".join([*lines, ""])
