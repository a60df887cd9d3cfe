"""`diagnose -o markdown`: for a ticket. Text of the cluster is escaped, issues are links."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from kubectl_harvester_stuck.diagnosis.model import Verdict
from kubectl_harvester_stuck.k8s.durations import human
from kubectl_harvester_stuck.k8s.objects import format_time
from kubectl_harvester_stuck.render.diagnosis_text import ANSWERS, next_steps
from kubectl_harvester_stuck.render.layout import is_command, safe
from kubectl_harvester_stuck.render.release_text import named

if TYPE_CHECKING:
    from kubectl_harvester_stuck.diagnosis.model import Diagnosis, Link
    from kubectl_harvester_stuck.render.invocation import Invocation

TRACKERS = {
    "H": "harvester/harvester",
    "K": "kubevirt/kubevirt",
    "L": "longhorn/longhorn",
    "k8s": "kubernetes/kubernetes",
}
"""The repositories behind the letters before an issue number, on GitHub."""

_SPECIAL = re.compile(r"[\\`*_\[\]<>|~&@]")
_ISSUE = re.compile(rf"\b({'|'.join(TRACKERS)})#(\d+)\b")


def diagnoses(items: Sequence[Diagnosis], where: Invocation, now: datetime) -> str:
    """A section for each target: the answer, why, what to do, and the evidence."""
    return "\n".join(line for item in items for line in _section(item, where, now))


def text(words: str) -> str:
    """Words that Markdown shows as they are, with their issue numbers as links."""
    # Character references: a backslash does not keep GitHub from notifying a user named with @.
    plain = _SPECIAL.sub(lambda found: f"&#{ord(found[0])};", safe(words))
    return _ISSUE.sub(
        lambda found: f"[{found[0]}](https://github.com/{TRACKERS[found[1]]}/issues/{found[2]})",
        plain,
    )


def _section(item: Diagnosis, where: Invocation, now: datetime) -> Iterator[str]:
    plan = item.plan
    state = plan.state.value if plan.state else "not stuck"
    age = f" for {human(now - plan.since)}" if plan.since else ""
    node = f", on node {plan.node}" if plan.node else ""
    yield from (f"## {text(named(plan.ref))}: {ANSWERS[item.advice].text}", "")
    yield from (f"{text(f'{state}{age}{node}')}, as of {format_time(now)}.", "")
    yield from (f"**Why:** {text(item.because)}", "")
    steps = next_steps(item, where)
    if steps:
        yield from ("**To do:**", "")
    for step in steps:
        yield from (f"    {safe(step)}" if is_command(step) else text(step.removeprefix("# ")), "")
    yield from ("**Chain:**", "", *_links(item.chain, ""), "")
    also = [one.summary for one in item.findings if one.summary != item.because]
    blocks = [f"{one.guard}: {one.reason}" for one in plan.refusals]
    held = [
        f"{one.name} of {one.owner}: {one.state.value}, {one.reason}" for one in item.finalizers
    ]
    is_stuck = item.advice is not Verdict.NONE
    for title, lines in (
        ("Also", also),
        ("Blocks a release", blocks if is_stuck else []),
        ("A release would destroy", [f"{one.ref}: {one.why}" for one in plan.destroys]),
        (
            "A release would take along",
            [f"{one.ref}: {one.why}" for one in plan.goes if not one.destroys],
        ),
        ("Finalizers", held if is_stuck else []),
        ("Not checked", item.blind),
    ):
        if lines:
            yield from (f"**{title}:**", "", *(f"- {text(line)}" for line in lines), "")


def _links(link: Link, indent: str) -> Iterator[str]:
    mark = " **STUCK HERE**" if link.blocking else ""
    yield f"{indent}- {text(f'{link.label}: {link.state}')}{mark}"
    for child in link.links:
        yield from _links(child, f"{indent}  ")
