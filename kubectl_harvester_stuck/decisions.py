"""What is decided about a target: judgments, answers of guards, plans, diagnoses, outcomes.

They stand apart from what was read because `list` decides nothing: making these classes takes
longer than the rest of its own imports.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from kubectl_harvester_stuck.errors import StuckError
from kubectl_harvester_stuck.model import (
    Action,
    Advice,
    FinalizerState,
    Ref,
    Result,
    State,
    Verdict,
)


@dataclass(frozen=True)
class Judgment:
    """One finalizer of one object, as it will be when its turn in the plan comes."""

    name: str
    ref: Ref
    owner: str
    state: FinalizerState
    reason: str
    leaves_behind: str
    catalogued: bool


@dataclass(frozen=True)
class GuardResult:
    """The answer of one guard, with its evidence in one line."""

    guard: str
    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class Request:
    """What the operator asked for and vouches for."""

    older_than: timedelta = timedelta(minutes=5)
    finalizers: frozenset[str] = frozenset()
    leave_behind: frozenset[str] = frozenset()
    powered_off: frozenset[str] = frozenset()
    overrides: frozenset[str] = frozenset()
    targets: int = 1
    max_targets: int = 20


@dataclass(frozen=True)
class Step:
    """One request that would change the cluster, exactly as it would be sent.

    `body` is a JSON merge patch (RFC 7396), or DeleteOptions for a pod.
    """

    action: Action
    ref: Ref
    uid: str
    resource_version: str
    body: Mapping[str, Any]
    removes: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What would be done for one target, or why not: never neither."""

    ref: Ref
    uid: str
    resource_version: str
    state: State | None
    since: datetime | None
    node: str | None
    steps: tuple[Step, ...]
    guards: tuple[GuardResult, ...]
    judgments: tuple[Judgment, ...]
    powered_off: tuple[str, ...] = ()
    """Nodes that this plan takes for powered off by the operator's word alone."""
    silent_nodes: tuple[str, ...] = ()
    """Nodes that hold the guest back and show no life, so that the operator could vouch."""

    def __post_init__(self) -> None:
        if not self.steps and not self.refusals:
            raise ValueError(f"a plan for {self.ref} with neither a step nor a refusal")

    @property
    def refusals(self) -> tuple[GuardResult, ...]:
        """The guards that did not pass."""
        return tuple(result for result in self.guards if result.verdict is not Verdict.PASS)

    @property
    def leaves_behind(self) -> tuple[Judgment, ...]:
        """Finalizers whose work is not done and that would be removed all the same."""
        removed = {(step.ref, name) for step in self.steps for name in step.removes}
        return tuple(
            judgment
            for judgment in self.judgments
            if (judgment.ref, judgment.name) in removed
            and judgment.state in (FinalizerState.PENDING, FinalizerState.UNKNOWN)
        )


@dataclass(frozen=True)
class Evidence:
    """Object, field and value that a finding rests on."""

    object: str
    field: str
    value: str


@dataclass(frozen=True)
class Finding:
    """One observed fact that explains why a target hangs, or what would go wrong.

    `advice` is what it speaks for, None when it only explains. `steps` are what the operator can
    do about it: commands that work when pasted, or a sentence behind `#`.
    """

    id: str
    summary: str
    evidence: tuple[Evidence, ...]
    advice: Advice | None = None
    steps: tuple[str, ...] = ()


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
    advice: Advice
    because: str
    findings: tuple[Finding, ...]
    finalizers: tuple[Judgment, ...]
    """Every finalizer as it stands now, while `plan` judges them as they will be in their turn."""
    chain: Link
    events: tuple[str, ...]
    leftovers: tuple[str, ...]
    """What would be there of the VM after its release."""
    blind: tuple[str, ...]
    """Findings that could not be looked for, each with what could not be read."""

    @property
    def steps(self) -> tuple[str, ...]:
        """What to do, in order, each thing once."""
        return tuple(dict.fromkeys(step for finding in self.findings for step in finding.steps))


@dataclass(frozen=True)
class Failure:
    """A target for which there could be no plan."""

    ref: Ref
    error: StuckError


@dataclass(frozen=True)
class StepReport:
    """What was sent, and what came back: `done`, `dry-run`, `already-gone`, or what went wrong."""

    step: Step
    status: str
    changed: bool
    """True as soon as the request may have changed something."""


@dataclass(frozen=True)
class Outcome:
    """What became of one target, with everything that was sent for it."""

    plan: Plan
    result: Result
    reports: tuple[StepReport, ...] = ()
    refusals: tuple[GuardResult, ...] = ()
    reason: str = ""
    backup: str | None = None
    leftovers: tuple[str, ...] = ()
    private: bool = False
    """Whether the backup holds secrets of the guest."""

    @property
    def changed(self) -> bool:
        """Whether anything may have been changed for this target."""
        return any(report.changed for report in self.reports)
