"""The screens of `diagnose`: for people, and as a flow chart for a ticket."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kubectl_harvester_stuck.diagnosis.model import Verdict
from kubectl_harvester_stuck.release.model import DISKS_KEPT, NOT_SYSTEM
from kubectl_harvester_stuck.render.layout import WIDTH, advice, safe, section, short_kind, wrap
from kubectl_harvester_stuck.render.release_text import headline

if TYPE_CHECKING:
    from kubectl_harvester_stuck.diagnosis.model import Diagnosis, Link
    from kubectl_harvester_stuck.harvester.finalizers import FinalizerAssessment
    from kubectl_harvester_stuck.k8s.commands import Advice
    from kubectl_harvester_stuck.render.invocation import Invocation


def diagnoses(items: Sequence[Diagnosis], where: Invocation, *, plain: bool = False) -> str:
    """Why each target hangs; `plain` draws the chain without box characters."""
    return "\n".join(_diagnosis(item, where, plain=plain) for item in items)


def _diagnosis(item: Diagnosis, where: Invocation, *, plain: bool) -> str:
    plan = item.plan
    lines = wrap(headline(plan), "")
    lines += wrap(f"{item.advice.value}: {item.because}", "")
    lines += ["", *_tree(item.chain, plain=plain)]
    lines += section("Findings", [f"{one.id}: {one.summary}" for one in item.findings])
    if item.advice is not Verdict.NONE:
        lines += section("Finalizers", [_finalizer(one) for one in item.finalizers])
        lines += section(
            "Guards that do not pass", [f"{one.guard}: {one.reason}" for one in plan.refusals]
        )
    lines += section("A release would destroy", [f"{one.ref}: {one.why}" for one in plan.destroys])
    lines += section(
        "A release would take along",
        [f"{one.ref}: {one.why}" for one in plan.goes if not one.destroys],
    )
    if item.leftovers:
        lines += ["", "A release would leave", *advice(where.sentences(item.leftovers), "  ")]
    lines += section("Events", item.events)
    lines += section("Could not be looked for", item.blind)
    steps = next_steps(item, where)
    if steps:
        lines += ["", f"Next steps{' on the cluster of the files' if where.files else ''}"]
        lines += advice(steps, "  ")
    return "".join(f"{safe(line)}\n" for line in lines)


def _finalizer(item: FinalizerAssessment) -> str:
    return (
        f"{item.name} on {short_kind(item.ref)}, of {item.owner}: {item.state.value},"
        f" {item.reason}; removed by hand, it leaves behind: {item.leaves_behind}"
    )


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
        vouched = [word for node in plan.silent_nodes for word in ("--node-powered-off", node)]
        steps.append(
            where.unstick(plan.ref, *vouched).noted("only once it is known to have no power")
        )
    elif not plan.refusals:
        steps.append(where.unstick(plan.ref, "--dry-run=server"))
        steps.append(where.unstick(plan.ref))
    elif {guard.guard for guard in plan.refusals} == {NOT_SYSTEM}:
        note = "this namespace is Harvester's own; only if you know what this VM is for"
        steps.append(where.unstick(plan.ref, "--override", NOT_SYSTEM).noted(note))
    elif {guard.guard for guard in plan.refusals} == {DISKS_KEPT}:
        steps.append(where.unstick(plan.ref).noted("then"))
    elif item.advice is Verdict.REPAIR:
        steps.append(where.unstick(plan.ref).noted("then, if it does not go by itself"))
    last = where.last_resort(plan)
    if last is not None and item.advice is not Verdict.WAIT:
        steps.append(last)
    return steps or [where.unstick(plan.ref, "--dry-run=client")]


def _tree(link: Link, *, plain: bool, width: int = WIDTH) -> list[str]:
    mark = "  <== here" if link.blocking else ""
    lines = wrap(f"{safe(link.label)}: {safe(link.state)}{mark}", "", width)
    tee, corner, bar = ("|- ", "`- ", "|  ") if plain else ("├─ ", "└─ ", "│  ")
    for number, child in enumerate(link.links, start=1):
        last = number == len(link.links)
        head, *rest = _tree(child, plain=plain, width=width - len(tee))
        lines.append(f"{corner if last else tee}{head}")
        lines += [f"{'   ' if last else bar}{line}" for line in rest]
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
