"""What holds a target: one function per situation, all of them asked of every target.

To add one: a function under `@finding` in one of the modules here that yields what it finds, with
its evidence, and a story in tests/test_findings.py, which says so when one is forgotten. A read
that fails inside raises `UnreadableError` and is told as a gap, never as "not found". The
function's name with hyphens is the finding's public id. `reads` declares what it looks at
(`k8s.reads`): nothing else is read for a diagnosis.

The situations, their causes and their cures are those of Harvester, KubeVirt and Longhorn issues;
the numbers stand with each function (H: harvester, K: kubevirt, L: longhorn, k8s: kubernetes).
"""

from __future__ import annotations

from kubectl_harvester_stuck.diagnosis.findings import admission, guest, owners
from kubectl_harvester_stuck.diagnosis.findings.base import REGISTERED, FindingContext, Situation
from kubectl_harvester_stuck.diagnosis.model import Finding
from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.harvester import harmless

MODULES = (guest, admission, owners)
"""In the order in which their findings are told; within one, as they are defined."""

FINDINGS: tuple[Situation, ...] = tuple(
    situation
    for module in MODULES
    for situation in REGISTERED.values()
    if situation.look.__module__ == module.__name__
)


def run(examined: FindingContext) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """What was found, and for which situations the snapshot is blind."""
    found: list[Finding] = []
    blind: list[str] = []
    for situation in FINDINGS:
        try:
            found += [
                Finding(
                    situation.id,
                    item.summary,
                    item.evidence,
                    item.advice,
                    harmless.checked(item.steps, examined.target.snapshot),
                )
                for item in situation.look(examined)
            ]
        except UnreadableError as error:
            blind.append(f"{situation.id}: {error}")
    return tuple(found), tuple(blind)
