"""The one order in which targets are released: plan, confirm, look again, save, send, verify.

Everything that decides is elsewhere; here things happen, one after the other, and whatever was
sent is told: after the first change no exception leaves this module without its report.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Protocol

from kubectl_harvester_stuck.cluster import reader
from kubectl_harvester_stuck.cluster.client import Cluster
from kubectl_harvester_stuck.errors import (
    ApiError,
    ExitStatus,
    JournalError,
    StuckError,
    UnreachableError,
    gravest,
)
from kubectl_harvester_stuck.harvester import finalizers, leftovers
from kubectl_harvester_stuck.harvester.target import Memory, State, Target
from kubectl_harvester_stuck.k8s import redaction
from kubectl_harvester_stuck.k8s.kinds import VM, VMI
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef, Unreadable
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot
from kubectl_harvester_stuck.k8s.source import PARALLEL_REQUESTS
from kubectl_harvester_stuck.release import backup_contents, guards, preflight
from kubectl_harvester_stuck.release import plan as planning
from kubectl_harvester_stuck.release.change import Change, Who, event
from kubectl_harvester_stuck.release.interrupts import defer_interrupt
from kubectl_harvester_stuck.release.model import (
    Action,
    Failure,
    GuardResult,
    GuardState,
    Outcome,
    Plan,
    Request,
    Step,
    StepReport,
    TargetReport,
)

POLL = timedelta(seconds=0.5)

MAX_REPLANS = 4
"""How often what is left is looked at while it moves, after a step."""


class Clock(Protocol):
    """Time that passes here, for waiting only; ages are told by the API server's clock."""

    def monotonic(self) -> float: ...
    def sleep(self, seconds: float) -> None: ...


class Confirmer(Protocol):
    """The person, or the flags that speak for them."""

    def confirm(self, plans: Sequence[Plan], digest: str) -> None:
        """Show the plans; return on a yes, raise RefusedError on everything else."""

    def progress(self, text: str) -> None:
        """Say what is being waited for."""

    def println(self, text: str) -> None:
        """Say what has just been done; it stays to be seen."""


class BackupStore(Protocol):
    """Where objects are saved before they are changed."""

    def save(
        self, plan: Plan, objects: Sequence[KubeObject], digest: str, not_saved: Sequence[str] = ()
    ) -> str:
        """Save and sync, with the names of what could not be read; returns the place.

        Raises BackupError.
        """


class Journal(Protocol):
    """Where each change is told, before and after it."""

    def begin(self, change: Change) -> None:
        """Write and sync the first line. Raises JournalError; nothing may be sent then."""

    def end(self, change: Change, outcome: str, answer: Mapping[str, Any] | None) -> None:
        """Write and sync the second line. Raises JournalError."""


@dataclass(frozen=True)
class Timeouts:
    """How long controllers get after a step, and how long to wait until all is gone."""

    settle: timedelta = timedelta(seconds=30)
    timeout: timedelta = timedelta(minutes=2)


@dataclass(frozen=True)
class ReleaseReport:
    """Everything that one `unstick` came to."""

    digest: str
    outcomes: tuple[TargetReport, ...] = ()
    failures: tuple[Failure, ...] = ()
    missing: tuple[Unreadable, ...] = ()
    """What could not be read while the targets were looked for."""

    @property
    def status(self) -> ExitStatus:
        """The exit status of the contract."""
        return gravest(
            *(status_of(outcome) for outcome in self.outcomes),
            *(failure.error.status for failure in self.failures),
            *(ExitStatus.INCOMPLETE for _ in self.missing),
        )


def status_of(outcome: TargetReport) -> ExitStatus:
    """What one outcome means for the exit status: success only with a positive reason."""
    if outcome.result in (Outcome.GONE, Outcome.FREED, Outcome.PLANNED):
        return ExitStatus.OK
    if outcome.changed or outcome.result in (Outcome.STILL_THERE, Outcome.UNKNOWN):
        return ExitStatus.UNVERIFIED
    return ExitStatus.REFUSED


@dataclass(frozen=True)
class ReleaseContext:
    """What a run works with."""

    cluster: Cluster
    rights: preflight.Permissions
    server: str
    operator: Confirmer
    archive: BackupStore
    journal: Journal
    clock: Clock
    waits: Timeouts = field(default_factory=Timeouts)
    host: str = ""
    """This machine, which Events name as their reporter."""


def preview(
    desk: ReleaseContext, targets: Sequence[ObjectRef], request: Request, *, ask_webhooks: bool
) -> ReleaseReport:
    """`--dry-run`: the plans, with the API server's word on each step.

    `ask_webhooks` sends every step with `dryRun=All`, so that admission answers; nothing else
    than reads and access reviews is sent otherwise.
    """
    plans, failures, _ = _plan_all(desk, targets, request, dry_run=ask_webhooks)
    outcomes = tuple(
        _refused(plan)
        if plan.refusals
        else TargetReport(
            plan, Outcome.PLANNED, tuple(StepReport(s, "planned", False) for s in plan.steps)
        )
        for plan in plans
    )
    return ReleaseReport(planning.digest(desk.server, plans), outcomes, failures)


def unstick(desk: ReleaseContext, targets: Sequence[ObjectRef], request: Request) -> ReleaseReport:
    """Release the targets, as far as every guard passes and the operator agrees.

    Raises RefusedError when nobody agreed, and StuckError when the cluster could not be read, both
    before anything was changed; never after that.
    """
    plans, failures, before = _plan_all(desk, targets, request, dry_run=True)
    machines = {ref: vm for ref in targets if (vm := before.found.get(ref)) is not None}
    digest = planning.digest(desk.server, plans)
    if all(plan.refusals for plan in plans):
        return ReleaseReport(digest, tuple(map(_refused, plans)), failures)
    desk.operator.confirm(plans, digest)
    run = _Run(digest, uuid.uuid4().hex, current_user(desk.cluster))

    def release(plan: Plan) -> TargetReport | Failure:
        if plan.refusals:
            return _refused(plan)
        if interrupted():
            return TargetReport(
                plan, Outcome.REFUSED, reason="interrupted; nothing was sent for it"
            )
        try:
            return _release(desk, plan, request, run, interrupted)
        except StuckError as error:
            return Failure(plan.ref, error)
        except Exception as bug:  # noqa: BLE001 - it may not hide what became of the others
            return Failure(plan.ref, StuckError(f"unexpected {type(bug).__name__}: {bug}"))

    with (
        defer_interrupt(desk.operator.println) as interrupted,
        ThreadPoolExecutor(PARALLEL_REQUESTS) as pool,
    ):
        ends = list(pool.map(release, plans))
    outcomes = tuple(end for end in ends if isinstance(end, TargetReport))
    return ReleaseReport(
        digest,
        _with_leftovers(desk, outcomes, machines),
        failures + tuple(end for end in ends if isinstance(end, Failure)),
    )


def _refused(plan: Plan) -> TargetReport:
    by_webhook = all(guard.guard == "webhooks-accept" for guard in plan.refusals)
    result = Outcome.DENIED if by_webhook else Outcome.REFUSED
    return TargetReport(plan, result, refusals=plan.refusals)


def _plan_all(
    desk: ReleaseContext, targets: Sequence[ObjectRef], request: Request, *, dry_run: bool
) -> tuple[tuple[Plan, ...], tuple[Failure, ...], ClusterSnapshot]:
    """The plans of the whole batch from one read of the cluster."""
    snapshot = reader.around(desk.cluster, targets, guards.kinds_read())

    def plan(ref: ObjectRef) -> Plan | Failure:
        try:
            return preflight.plan(desk.rights, Target(ref, snapshot), request, dry_run=dry_run)
        except StuckError as error:
            return Failure(ref, error)

    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        ends = list(pool.map(plan, targets))
    return (
        tuple(end for end in ends if isinstance(end, Plan)),
        tuple(end for end in ends if isinstance(end, Failure)),
        snapshot,
    )


def _release(
    desk: ReleaseContext,
    plan: Plan,
    request: Request,
    run: _Run,
    interrupted: Callable[[], bool],
) -> TargetReport:
    """One confirmed plan: look again, save, then step by step until nothing is left to do."""
    snapshot = reader.around(desk.cluster, [plan.ref], guards.kinds_read())
    case = Target(plan.ref, snapshot, plan.memory)
    again = preflight.plan(desk.rights, case, request, dry_run=True, shown=plan.steps)
    if again.refusals:
        return _refused(again)
    if (beyond := planning.destroyed_beyond(again, plan)) is not None:
        return TargetReport(again, Outcome.REFUSED, refusals=(beyond,))
    saved = backup_contents.of_plan(case, again)
    disks, not_saved = backup_contents.disks(desk.cluster, case)
    backup = desk.archive.save(again, (*saved, *disks), run.digest, not_saved)
    outcome = TargetReport(
        plan,
        Outcome.UNKNOWN,
        backup=backup,
        private=any(redaction.has_secrets(item.body) for item in saved),
    )
    current: Plan | None = again
    while current is not None:
        step = current.steps[0]
        change = Change(
            uuid.uuid4().hex, run.id, desk.cluster.now, run.who, run.digest, current, step, backup
        )
        try:
            desk.journal.begin(change)
        except Exception as error:
            if not outcome.reports:
                raise JournalError(f"{plan.ref}: {error}; nothing was changed") from error
            reason = f"{error}; nothing more was sent"
            return replace(outcome, result=Outcome.STILL_THERE, reason=reason)
        # From here on something may have been changed: nothing is raised any more, all is told.
        report, answer = _send(desk.cluster, step)
        try:
            desk.journal.end(change, report.status, answer)
        except Exception as error:  # noqa: BLE001 - it may not hide what was sent
            desk.operator.println(f"warning: {step.ref}: {report.status}, but {error}")
        verb = "delete" if step.action is Action.DELETE_POD else "patch"
        desk.operator.println(f"{verb} {step.ref}: {report.status}")
        if report.status == "done":
            # Best effort: a user may have no right to it, and the journal has told it already.
            with suppress(Exception):
                desk.cluster.create_event(event(change, desk.host))
        reports = (*outcome.reports, report)
        outcome = replace(outcome, reports=reports, leftovers=_leftovers(plan, reports))
        if report.status.startswith(("conflict", "denied")):
            result = Outcome.CONFLICT if report.status.startswith("conflict") else Outcome.DENIED
            return replace(outcome, result=result, reason=report.status)
        try:
            outcome, current = _next(desk, plan, current.memory, request, outcome, interrupted)
        except Exception as bug:  # noqa: BLE001 - not even a bug may hide what was sent
            reason = f"unexpected {type(bug).__name__}: {bug}"
            return replace(outcome, result=Outcome.UNKNOWN, reason=reason)
    return outcome


def _with_leftovers(
    desk: ReleaseContext,
    outcomes: tuple[TargetReport, ...],
    machines: Mapping[ObjectRef, KubeObject],
) -> tuple[TargetReport, ...]:
    """One look for the whole batch at what the deleted VMs have left; it never fails a run."""
    gone = [
        outcome.plan.ref
        for outcome in outcomes
        if outcome.result is Outcome.GONE and outcome.plan.ref.kind is VM
    ]
    if not gone:
        return outcomes
    try:
        after = reader.in_depth(desk.cluster, gone)
        found = {ref: leftovers.of(Target(ref, after), machines[ref]) for ref in gone}
    except Exception as error:  # noqa: BLE001 - not even a bug may hide what was done
        found = dict.fromkeys(gone, (f"not looked for: {error}",))
    return tuple(
        replace(
            outcome,
            leftovers=(*outcome.leftovers, *found.get(outcome.plan.ref, ())),
        )
        for outcome in outcomes
    )


def _leftovers(plan: Plan, reports: Sequence[StepReport]) -> tuple[str, ...]:
    """What the finalizers that were removed unfinished have left to be done."""
    sent = {(report.step.ref, name) for report in reports for name in report.step.removes}
    return tuple(
        finalizers.left_behind(judgment)
        for judgment in plan.leaves_behind
        if (judgment.ref, judgment.name) in sent
    )


@dataclass(frozen=True)
class _Run:
    """What all changes of one `unstick` have in common."""

    digest: str
    id: str
    who: Who


def _send(cluster: Cluster, step: Step) -> tuple[StepReport, Mapping[str, Any] | None]:
    """Send one step. Whatever happens is a report; with it the server's answer to a change."""
    try:
        answer = preflight.send(cluster, step)
    except ApiError as error:
        if error.code == 404 and error.about == step.ref.name:
            return StepReport(step, "already gone", changed=False), None
        if error.code == 409 or (error.code == 422 and "metadata.uid" in error.message):
            return StepReport(step, f"conflict: {error.message}", changed=False), None
        if error.code >= 500 and not error.is_from_webhook:
            # Such an answer can come after the change was stored.
            return StepReport(step, f"unknown: {error}", changed=True), None
        return StepReport(step, f"denied: {preflight.with_hint(error)}", changed=False), None
    except Exception as error:  # noqa: BLE001 - it may have been carried out, whatever went wrong
        return StepReport(step, f"unknown: {error}", changed=True), None
    return StepReport(step, "done", changed=True), answer


def _next(
    desk: ReleaseContext,
    plan: Plan,
    memory: Memory,
    request: Request,
    outcome: TargetReport,
    interrupted: Callable[[], bool],
) -> tuple[TargetReport, Plan | None]:
    """Let the controllers work, read again, and say how it stands and what is still needed."""
    done = {report.step.ref for report in outcome.reports}
    try:
        if _wait_until_gone(desk, plan, desk.waits.settle, interrupted):
            return replace(outcome, result=_success(plan)), None
        if interrupted():
            return replace(outcome, result=Outcome.STILL_THERE, reason="interrupted"), None
        if all(step.ref in done for step in plan.steps):
            return _verify(desk, plan, outcome, interrupted), None
        again, refusals = _still_needed(desk, plan, memory, request, done)
        if interrupted():  # while it was looked at: what comes next is not in flight
            return replace(outcome, result=Outcome.STILL_THERE, reason="interrupted"), None
        if refusals:
            verified = _verify(desk, plan, outcome, interrupted)
            released = verified.result is _success(plan)
            return (verified if released else replace(verified, refusals=refusals)), None
        return outcome, again
    except StuckError as error:
        return _verify(desk, plan, replace(outcome, reason=str(error)), interrupted), None


def _still_needed(
    desk: ReleaseContext, plan: Plan, memory: Memory, request: Request, done: set[ObjectRef]
) -> tuple[Plan, tuple[GuardResult, ...]]:
    """The plan for what is left, and what speaks against it.

    The controllers are at work, so that what was read can be gone, or another version, by the time
    of its dry run. Such a refusal says nothing: one counts when nothing has moved since the look
    before.
    """
    seen: dict[ObjectRef, str] | None = None
    for look in range(MAX_REPLANS):
        if look:
            desk.clock.sleep(POLL.total_seconds())
        case = Target(
            plan.ref, reader.around(desk.cluster, [plan.ref], guards.kinds_read()), memory
        )
        again = preflight.plan(desk.rights, case, request, dry_run=True)
        memory = again.memory
        refusals = again.refusals or tuple(
            GuardResult("unchanged", GuardState.REFUSE, stray)
            for step in again.steps
            if (stray := _why_not_agreed(step, plan, done)) is not None
        )
        beyond = planning.destroyed_beyond(again, plan)
        refusals = refusals or ((beyond,) if beyond is not None else ())
        now = {step.ref: step.resource_version for step in again.steps}
        if not refusals or now == seen:
            break
        seen = now
    return again, refusals


def _why_not_agreed(step: Step, plan: Plan, done: set[ObjectRef]) -> str | None:
    """None if the operator agreed to this step: the same object, nothing removed beyond that."""
    if step.ref in done:
        return f"{step.ref} is still there after it was changed once"
    for agreed in plan.steps:
        if (step.ref, step.uid) == (agreed.ref, agreed.uid):
            beyond = sorted(set(step.removes) - set(agreed.removes))
            return f"{step.ref} would now lose {', '.join(beyond)} as well" if beyond else None
    return f"{step.ref} was not in the plan that was shown"


def _verify(
    desk: ReleaseContext, plan: Plan, outcome: TargetReport, interrupted: Callable[[], bool]
) -> TargetReport:
    """Wait until everything is gone, by uid; what cannot be seen is unknown, never success."""
    try:
        gone = _wait_until_gone(desk, plan, desk.waits.timeout, interrupted)
    except StuckError as error:
        return replace(outcome, result=Outcome.UNKNOWN, reason=outcome.reason or str(error))
    return replace(outcome, result=_success(plan) if gone else Outcome.STILL_THERE)


def _success(plan: Plan) -> Outcome:
    return Outcome.GONE if plan.state is State.TERMINATING else Outcome.FREED


def _goals(plan: Plan) -> list[tuple[ObjectRef, str]]:
    """What has to be gone, with its uid, before the target counts as released."""
    if plan.state is State.TERMINATING:
        return [(plan.ref, plan.uid)]
    if plan.state is State.STOPPING:
        return [(step.ref, step.uid) for step in plan.steps if step.ref.kind is VMI]
    return [(step.ref, step.uid) for step in plan.steps]


def _wait_until_gone(
    desk: ReleaseContext, plan: Plan, limit: timedelta, interrupted: Callable[[], bool]
) -> bool:
    """Whether every goal is gone within `limit`. Raises StuckError when that cannot be seen."""
    started = desk.clock.monotonic()
    left = _goals(plan)
    if not left:
        return False
    while True:
        blind: StuckError | None = None
        try:
            left = [(ref, uid) for ref, uid in left if _is_there(desk.cluster, ref, uid)]
        except UnreachableError as error:
            blind = error  # an API server that restarts is worth waiting for
        waited = desk.clock.monotonic() - started
        if not left or waited >= limit.total_seconds() or interrupted():
            if blind is not None:
                raise blind
            return not left
        of = int(limit.total_seconds())
        desk.operator.progress(f"waiting for {left[0][0]} to go ({int(waited)}s of {of}s)")
        desk.clock.sleep(min(POLL.total_seconds(), limit.total_seconds() - waited))


def _is_there(cluster: Cluster, ref: ObjectRef, uid: str) -> bool:
    """Whether this very object still exists; one of the same name is another one."""
    body = cluster.get(ref, metadata_only=True)
    return body is not None and KubeObject.parse_as(ref, body).uid == uid


def current_user(cluster: Cluster) -> Who:
    """This user, for the journal; not to know it stops nothing."""
    try:
        return Who(cluster.whoami())
    except StuckError as error:
        return Who(None, str(error))
