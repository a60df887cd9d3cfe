"""What is decided about a target: judgments, answers of guards, plans, diagnoses, outcomes.

They stand apart from what was read because `list` decides nothing: making these classes takes
longer than the rest of its own imports.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, unique
from typing import Any

from kubectl_harvester_stuck.errors import StuckError
from kubectl_harvester_stuck.harvester.finalizer_judges import FinalizerState
from kubectl_harvester_stuck.harvester.finalizers import FinalizerAssessment
from kubectl_harvester_stuck.harvester.goes_with_vm import Fate
from kubectl_harvester_stuck.harvester.target import Memory, State
from kubectl_harvester_stuck.k8s.commands import Advice
from kubectl_harvester_stuck.k8s.objects import ObjectRef, Unreadable


@unique
class Action(str, Enum):
    """What a step does; the values stand in JSON."""

    DELETE_POD = "delete-pod"
    PATCH = "patch"
    CREATE = "create"
    """`restore` alone: a VM that was released is made again."""


@unique
class GuardState(str, Enum):
    """What a guard says; `unknown` blocks like `refuse`."""

    PASS = "pass"  # noqa: S105
    REFUSE = "refuse"
    UNKNOWN = "unknown"


@unique
class Outcome(str, Enum):
    """What became of a target; the values stand in JSON."""

    GONE = "gone"
    FREED = "freed"
    STILL_THERE = "still-there"
    UNKNOWN = "unknown"
    REFUSED = "refused"
    DENIED = "denied"
    CONFLICT = "conflict"
    PLANNED = "planned"


@unique
class StepStatus(str, Enum):
    """What became of a step; the values stand in JSON and in the journal."""

    PLANNED = "planned"
    DONE = "done"
    ALREADY_GONE = "already gone"
    CONFLICT = "conflict"
    """It changed before the step came, and was seen not to be changed by it."""
    DENIED = "denied"
    """An answer that refuses it came, and the object was seen to be as it was."""
    UNKNOWN = "unknown"
    """It may have been carried out, or may still be."""


TERMINATING = "terminating"
UNCHANGED = "unchanged"
PAST_GRACE = "past-grace"
GUEST_STOPPED = "guest-stopped"
DISKS_KEPT = "disks-kept"
INSTANCE_GONE = "instance-gone"
PERMITTED = "permitted"
WEBHOOKS_ACCEPT = "webhooks-accept"
WITHIN_MAX = "within-max"
NOT_SYSTEM = "not-system"
"""The guards that something else depends on, by the names that `release.guards` registers."""


@dataclass(frozen=True)
class GuardResult:
    """The answer of one guard, with its evidence in one line.

    `cure` is what to do so that it passes, as far as there is anything.
    `overridden` says that it did not pass by itself, but by `--override`.
    """

    guard: str
    verdict: GuardState
    reason: str
    cure: tuple[Advice, ...] = ()
    overridden: bool = False


def is_denial(refusals: Iterable[GuardResult]) -> bool:
    """Whether admission alone speaks against it, and was asked."""
    return all(
        result.guard == WEBHOOKS_ACCEPT and result.verdict is GuardState.REFUSE
        for result in refusals
    )


@dataclass(frozen=True)
class ReleaseRequest:
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
    ref: ObjectRef
    uid: str
    resource_version: str
    body: Mapping[str, Any]
    removes: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What would be done for one target, or why not: never neither."""

    ref: ObjectRef
    uid: str
    resource_version: str
    state: State | None
    since: datetime | None
    node: str | None
    steps: tuple[Step, ...]
    guards: tuple[GuardResult, ...]
    judgments: tuple[FinalizerAssessment, ...]
    powered_off: tuple[str, ...] = ()
    """Nodes that this plan takes for powered off by the operator's word alone."""
    memory: Memory = field(default_factory=Memory)
    """What this look and the ones before it have shown, for the next one."""
    silent_nodes: tuple[str, ...] = ()
    """Nodes that hold the guest back and show no life, so that the operator could vouch."""
    could_be_left: tuple[FinalizerAssessment, ...] = ()
    """Finalizers that `--leave-behind` would remove, where nothing else keeps any."""
    goes: tuple[Fate, ...] = ()
    """What the garbage collector destroys with the target, through ownerReferences."""
    stays: tuple[Fate, ...] = ()
    """What is left of the VM."""

    def __post_init__(self) -> None:
        if not self.steps and not self.refusals:
            raise ValueError(f"a plan for {self.ref} with neither a step nor a refusal")

    @property
    def refusals(self) -> tuple[GuardResult, ...]:
        """The guards that did not pass."""
        return tuple(result for result in self.guards if result.verdict is not GuardState.PASS)

    @property
    def destroys(self) -> tuple[Fate, ...]:
        """The disks and snapshots that are destroyed with the target."""
        return tuple(fate for fate in self.goes if fate.destroys)

    @property
    def leaves_behind(self) -> tuple[FinalizerAssessment, ...]:
        """Finalizers whose work is not done and that would be removed all the same."""
        removed = {(step.ref, name) for step in self.steps for name in step.removes}
        return tuple(
            judgment
            for judgment in self.judgments
            if (judgment.ref, judgment.name) in removed
            and judgment.state in (FinalizerState.PENDING, FinalizerState.UNKNOWN)
        )


@dataclass(frozen=True)
class Failure:
    """A target for which there could be no plan."""

    ref: ObjectRef
    error: StuckError


@dataclass(frozen=True)
class StepReport:
    """What was sent, and what came of it; `message` says what the answer, and a look, told."""

    step: Step
    status: StepStatus
    changed: bool
    """Whether the request may have changed something: false only where it was seen not to."""
    message: str = ""

    @property
    def text(self) -> str:
        """Status and message in one line, as the JSON and the journal have them."""
        return f"{self.status.value}: {self.message}" if self.message else self.status.value


@dataclass(frozen=True)
class TargetReport:
    """What became of one target, with everything that was sent for it."""

    plan: Plan
    result: Outcome
    reports: tuple[StepReport, ...] = ()
    refusals: tuple[GuardResult, ...] = ()
    reason: str = ""
    backup: str | None = None
    leftovers: tuple[Advice, ...] = ()
    first_step: Advice | None = None
    """Of a target that was refused: what `diagnose` would do first."""
    seen: str = ""
    """Of a VM that was freed: whether it is stopped or starts elsewhere, as seen afterwards."""
    private: bool = False
    """Whether the backup holds secrets of the guest."""

    @classmethod
    def not_looked_at(cls, ref: ObjectRef, refusal: GuardResult) -> TargetReport:
        """The report of a target that is refused before anything of it is read."""
        plan = Plan(ref, "", "", None, None, None, steps=(), guards=(refusal,), judgments=())
        return cls.refused(plan)

    @property
    def changed(self) -> bool:
        """Whether anything may have been changed for this target."""
        return any(report.changed for report in self.reports)

    @classmethod
    def refused(cls, plan: Plan) -> TargetReport:
        """The report of a plan that a guard refused, before anything was changed."""
        result = Outcome.DENIED if is_denial(plan.refusals) else Outcome.REFUSED
        return cls(plan, result, refusals=plan.refusals)


@dataclass(frozen=True)
class ReleaseReport:
    """Everything that one `unstick` came to."""

    digest: str
    outcomes: tuple[TargetReport, ...] = ()
    failures: tuple[Failure, ...] = ()
    missing: tuple[Unreadable, ...] = ()
    """What could not be read while the targets were looked for."""
    found_nothing: bool = False
    """Whether targets were looked for, and none was found."""
    is_blind: bool = False
    """Whether nothing at all could be read while they were looked for."""
    blind: tuple[Unreadable, ...] = ()
    """What could not be read of the targets, where a guard refuses one for it."""
