"""What a diagnosis says: findings, the chain of objects, the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, unique

from kubectl_harvester_stuck.harvester.finalizers import FinalizerAssessment
from kubectl_harvester_stuck.k8s.commands import Advice
from kubectl_harvester_stuck.k8s.objects import Evidence
from kubectl_harvester_stuck.release.model import Plan


@unique
class Verdict(str, Enum):
    """What a diagnosis comes to; the values stand in JSON."""

    WAIT = "wait"
    REPAIR = "repair"
    RELEASE = "release"
    REFUSE = "refuse"
    NONE = "none"
    """It is not stuck: there is nothing to do."""


@dataclass(frozen=True)
class Finding:
    """One observed fact that explains why a target hangs, or what would go wrong.

    `advice` is what it speaks for, None when it only explains. `steps` are what the operator can
    do about it.
    """

    id: str
    summary: str
    evidence: tuple[Evidence, ...]
    advice: Verdict | None = None
    steps: tuple[Advice, ...] = ()


@dataclass(frozen=True)
class Link:
    """One object of the chain behind a target, with the objects that it leads to."""

    label: str
    state: str
    blocking: bool = False
    links: tuple[Link, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """Why one target hangs, with evidence, and what to do next."""

    plan: Plan
    advice: Verdict
    because: str
    findings: tuple[Finding, ...]
    finalizers: tuple[FinalizerAssessment, ...]
    """Every finalizer as it stands now, while `plan` judges them as they will be in their turn."""
    chain: Link
    events: tuple[str, ...]
    leftovers: tuple[Advice, ...]
    """What would be there of the VM after its release."""
    blind: tuple[str, ...]
    """Findings that could not be looked for, each with what could not be read."""

    @property
    def steps(self) -> tuple[Advice, ...]:
        """What to do, in order, each thing once."""
        return tuple(dict.fromkeys(step for finding in self.findings for step in finding.steps))
