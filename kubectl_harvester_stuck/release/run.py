"""The one order in which targets are released: plan, confirm, look again, save, send, verify.

Everything that decides is elsewhere; here things happen, one after the other, and whatever was
sent is told: after the first change no exception leaves this module without its report.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Protocol

from kubectl_harvester_stuck.cluster import reader
from kubectl_harvester_stuck.cluster.client import Cluster
from kubectl_harvester_stuck.errors import (
    ApiError,
    ExitStatus,
    JournalError,
    NotFoundError,
    StuckError,
    UnreachableError,
    gravest,
)
from kubectl_harvester_stuck.harvester import finalizers, leftovers
from kubectl_harvester_stuck.harvester.target import State, Target
from kubectl_harvester_stuck.k8s import redaction
from kubectl_harvester_stuck.k8s.kinds import VM
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef, Unreadable
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot
from kubectl_harvester_stuck.k8s.source import PARALLEL_REQUESTS
from kubectl_harvester_stuck.release import backup_contents, guards, look, preflight, statements
from kubectl_harvester_stuck.release import plan as planning
from kubectl_harvester_stuck.release.change import Change, Who, event
from kubectl_harvester_stuck.release.interrupts import Interrupts
from kubectl_harvester_stuck.release.look import Seen
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
    StepStatus,
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
    found_nothing: bool = False
    """Whether targets were looked for, and none was found."""
    is_blind: bool = False
    """Whether nothing at all could be read while they were looked for."""

    @property
    def status(self) -> ExitStatus:
        """The exit status of the contract."""
        return gravest(
            *([ExitStatus.OK] if self.found_nothing else []),
            *(_status_of(outcome) for outcome in self.outcomes),
            *(failure.error.status for failure in self.failures),
            *(ExitStatus.ERROR if self.is_blind else ExitStatus.INCOMPLETE for _ in self.missing),
        )


def _status_of(outcome: TargetReport) -> ExitStatus:
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
    interrupts: Interrupts
    waits: Timeouts = Timeouts()
    host: str = ""
    """This machine, which Events name as their reporter."""


def preview(
    context: ReleaseContext, targets: Sequence[ObjectRef], request: Request, *, ask_webhooks: bool
) -> ReleaseReport:
    """`--dry-run`: the plans, with the API server's word on each step.

    `ask_webhooks` sends every step with `dryRun=All`, so that admission answers; nothing else
    than reads and access reviews is sent otherwise.
    """
    plans, failures, _ = _plan_all(context, targets, request, dry_run=ask_webhooks)
    outcomes = tuple(_refused(plan) if plan.refusals else _planned(plan) for plan in plans)
    return ReleaseReport(planning.digest(context.server, plans), outcomes, failures)


def _planned(plan: Plan) -> TargetReport:
    steps = (StepReport(step, StepStatus.PLANNED, changed=False) for step in plan.steps)
    return TargetReport(plan, Outcome.PLANNED, tuple(steps))


def unstick(
    context: ReleaseContext, targets: Sequence[ObjectRef], request: Request
) -> ReleaseReport:
    """Release the targets, as far as every guard passes and the operator agrees.

    Signals are held from the operator's yes on. Raises RefusedError when nobody agreed, and
    StuckError when the cluster could not be read, both before anything was changed; never after
    that.
    """
    plans, failures, before = _plan_all(context, targets, request, dry_run=True)
    machines = {ref: vm for ref in targets if (vm := before.found.get(ref)) is not None}
    digest = planning.digest(context.server, plans)
    if all(plan.refusals for plan in plans):
        return ReleaseReport(digest, tuple(map(_refused, plans)), failures)
    context.operator.confirm(plans, digest)
    context.interrupts.hold()
    command = _Command(digest, uuid.uuid4().hex, current_user(context.cluster))

    def release(plan: Plan) -> TargetReport | Failure:
        if plan.refusals:
            return _refused(plan)
        try:
            return ReleaseRun(context, command, plan, request).release()
        except StuckError as error:
            return Failure(plan.ref, error)
        except Exception as bug:  # noqa: BLE001 - it may not hide what became of the others
            return Failure(plan.ref, StuckError(f"unexpected {type(bug).__name__}: {bug}"))

    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        ends = list(pool.map(release, plans))
    outcomes = tuple(end for end in ends if isinstance(end, TargetReport))
    return ReleaseReport(
        digest,
        _with_leftovers(context, outcomes, machines),
        failures + tuple(end for end in ends if isinstance(end, Failure)),
    )


def _refused(plan: Plan) -> TargetReport:
    by_webhook = all(guard.guard == "webhooks-accept" for guard in plan.refusals)
    result = Outcome.DENIED if by_webhook else Outcome.REFUSED
    return TargetReport(plan, result, refusals=plan.refusals)


def _plan_all(
    context: ReleaseContext, targets: Sequence[ObjectRef], request: Request, *, dry_run: bool
) -> tuple[tuple[Plan, ...], tuple[Failure, ...], ClusterSnapshot]:
    """The plans of the whole batch from one read of the cluster. Raises StatementError."""
    snapshot = reader.around(
        context.cluster, targets, guards.kinds_read(), nodes=request.powered_off
    )
    looked_at = [Target(ref, snapshot) for ref in targets]
    statements.check(looked_at, request.powered_off)
    statements.check_finalizers(looked_at, request.finalizers)

    def plan(ref: ObjectRef) -> Plan | Failure:
        try:
            return preflight.plan(context.rights, Target(ref, snapshot), request, dry_run=dry_run)
        except StuckError as error:
            return Failure(ref, error)

    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        ends = list(pool.map(plan, targets))
    return (
        tuple(end for end in ends if isinstance(end, Plan)),
        tuple(end for end in ends if isinstance(end, Failure)),
        snapshot,
    )


def _with_leftovers(
    context: ReleaseContext,
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
        if context.interrupts.pressed:
            raise StuckError("interrupted")
        after = reader.in_depth(context.cluster, gone)
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


@dataclass(frozen=True)
class _Command:
    """What all changes of one `unstick` have in common."""

    digest: str
    id: str
    who: Who


class ReleaseRun:
    """The release of one target, as its confirmed plan says: `release` reads top to bottom.

    Look again, save, then for each step: send it, let the controllers settle, and look what is
    still needed; at the end verify that every object of the plan is gone. What was sent is in
    `_reports` from the moment it was answered.
    """

    def __init__(
        self, context: ReleaseContext, command: _Command, plan: Plan, request: Request
    ) -> None:
        self._context = context
        self._command = command
        self._plan = plan
        self._request = request
        self._reports: list[StepReport] = []
        self._backup = ""
        self._private = False
        self._goals: dict[ObjectRef, str] = {}
        """What has to be gone, with its uid, before the target counts as released."""
        self._memory = plan.memory
        """What the looks so far have shown, for the next one."""
        self._old_vmi = ""
        """The uid of the VMI as it was before the first change."""

    def release(self) -> TargetReport:
        """Do it. Raises StuckError as long as nothing was sent, and never after that."""
        if self._is_interrupted:
            reason = "interrupted; nothing was sent for it"
            return TargetReport(self._plan, Outcome.REFUSED, reason=reason)
        case, again = self._look_again()
        if again.refusals:
            return _refused(again)
        if (beyond := planning.destroyed_beyond(again, self._plan)) is not None:
            return TargetReport(again, Outcome.REFUSED, refusals=(beyond,))
        self._save(case, again)
        self._aim(case)
        following: Plan | TargetReport = again
        while isinstance(following, Plan):
            following = self._step(following)
        return following

    @property
    def _is_interrupted(self) -> bool:
        return self._context.interrupts.pressed

    @property
    def _sent(self) -> set[ObjectRef]:
        return {report.step.ref for report in self._reports}

    # Before the first change

    def _look_again(self) -> tuple[Target, Plan]:
        """The target as it is now, and the plan for it, held against the one that was shown."""
        context = self._context
        case = self._read()
        shown = self._plan.steps
        again = preflight.plan(context.rights, case, self._request, dry_run=True, shown=shown)
        self._memory = again.memory
        return case, again

    def _read(self) -> Target:
        ref = self._plan.ref
        snapshot = reader.around(self._context.cluster, [ref], guards.kinds_read())
        return Target(ref, snapshot, self._memory)

    def _save(self, case: Target, again: Plan) -> None:
        """Save what is going to be changed. Raises BackupError."""
        saved = backup_contents.of_plan(case, again)
        disks, not_saved = backup_contents.disks(self._context.cluster, case)
        self._private = any(redaction.has_secrets(item.body) for item in saved)
        self._backup = self._context.archive.save(
            again, (*saved, *disks), self._command.digest, not_saved
        )

    def _aim(self, case: Target) -> None:
        """Every object of the plan has to go, and the VMI of a VM that is stopping."""
        plan = self._plan
        self._goals = {step.ref: step.uid for step in plan.steps}
        if plan.state is State.TERMINATING:
            self._goals = {plan.ref: plan.uid, **self._goals}
        if case.vmi is not None:
            self._old_vmi = case.vmi.uid
            if plan.state is State.STOPPING:
                self._goals[case.vmi.ref] = case.vmi.uid

    # One step

    def _step(self, current: Plan) -> Plan | TargetReport:
        """Send the first step of `current`; the plan for what is left, or how it ended.

        Raises JournalError when the first change of all cannot be told; nothing was sent then.
        """
        context, step = self._context, current.steps[0]
        change = self._change(current, step)
        try:
            context.journal.begin(change)
        except Exception as error:
            if not self._reports:
                raise JournalError(f"{self._plan.ref}: {error}; nothing was changed") from error
            return self._end(Outcome.STILL_THERE, f"{error}; nothing more was sent")
        # From here on something may have been changed: nothing is raised any more, all is told.
        report, answer = send(context.cluster, step)
        self._reports.append(report)
        self._tell(change, report, answer)
        if report.status in _ENDS:
            return self._end(_ENDS[report.status], report.text)
        try:
            return self._settle()
        except Exception as bug:  # noqa: BLE001 - not even a bug may hide what was sent
            return self._end(Outcome.UNKNOWN, f"unexpected {type(bug).__name__}: {bug}")

    def _change(self, current: Plan, step: Step) -> Change:
        command, now = self._command, self._context.cluster.now
        return Change(
            uuid.uuid4().hex, command.id, now, command.who, command.digest, current, step,
            self._backup,
        )  # fmt: skip

    def _tell(self, change: Change, report: StepReport, answer: Mapping[str, Any] | None) -> None:
        """Tell the journal, the operator, and whoever looks at the object."""
        context, step = self._context, report.step
        try:
            context.journal.end(change, report.text, answer)
        except Exception as error:  # noqa: BLE001 - it may not hide what was sent
            context.operator.println(f"warning: {step.ref}: {report.text}, but {error}")
        verb = "delete" if step.action is Action.DELETE_POD else "patch"
        context.operator.println(f"{verb} {step.ref}: {report.text}")
        if report.status is StepStatus.DONE:
            # Best effort: a user may have no right to it, and the journal has told it already.
            with suppress(Exception):
                context.cluster.create_event(event(change, context.host))

    # After a step

    def _settle(self) -> Plan | TargetReport:
        """Let the controllers work, read again, and say how it stands or what is still needed."""
        try:
            if not self._wait_until_gone(self._context.waits.settle):
                return self._success()
            if self._is_interrupted:
                return self._end(Outcome.STILL_THERE, "interrupted")
            if all(step.ref in self._sent for step in self._plan.steps):
                return self._verify()
            again, refusals = self._still_needed()
            if self._is_interrupted:  # while it was looked at: what comes next is not in flight
                return self._end(Outcome.STILL_THERE, "interrupted")
            if not refusals:
                return again
            end = self._verify()
            return end if end.result is self._wanted else replace(end, refusals=refusals)
        except NotFoundError:
            return self._verify()
        except StuckError as error:
            return self._verify(str(error))

    def _still_needed(self) -> tuple[Plan, tuple[GuardResult, ...]]:
        """The plan for what is left, and what speaks against it.

        The controllers are at work, so that what was read can be gone, or another version, by the
        time of its dry run. Such a refusal says nothing: one counts when nothing has moved since
        the look before.
        """
        context = self._context
        seen: dict[ObjectRef, str] | None = None
        for look_number in range(MAX_REPLANS):
            if look_number:
                context.clock.sleep(POLL.total_seconds())
            again = preflight.plan(context.rights, self._read(), self._request, dry_run=True)
            self._memory = again.memory
            refusals = again.refusals or tuple(
                GuardResult("unchanged", GuardState.REFUSE, stray)
                for step in again.steps
                if (stray := self._why_not_agreed(step)) is not None
            )
            beyond = planning.destroyed_beyond(again, self._plan)
            refusals = refusals or ((beyond,) if beyond is not None else ())
            now = {step.ref: step.resource_version for step in again.steps}
            if not refusals or now == seen:
                break
            seen = now
        return again, refusals

    def _why_not_agreed(self, step: Step) -> str | None:
        """None if the operator agreed to this step: the same object, and not to lose more."""
        if step.ref in self._sent:
            return f"{step.ref} is still there after it was changed once"
        for agreed in self._plan.steps:
            if (step.ref, step.uid) == (agreed.ref, agreed.uid):
                beyond = sorted(set(step.removes) - set(agreed.removes))
                return f"{step.ref} would now lose {', '.join(beyond)} as well" if beyond else None
        return f"{step.ref} was not in the plan that was shown"

    # The end

    def _verify(self, reason: str = "") -> TargetReport:
        """Wait until everything is gone, by uid; what cannot be seen is unknown, never success.

        `reason` is why nothing more was sent.
        """
        try:
            left = self._wait_until_gone(self._context.waits.timeout)
        except StuckError as error:
            return self._end(Outcome.UNKNOWN, reason or str(error))
        if not left:
            return self._success()
        return self._end(Outcome.STILL_THERE, reason or f"still there: {', '.join(map(str, left))}")

    @property
    def _wanted(self) -> Outcome:
        return Outcome.GONE if self._plan.state is State.TERMINATING else Outcome.FREED

    def _success(self) -> TargetReport:
        end = self._end(self._wanted)
        if end.result is not Outcome.FREED:
            return end
        return replace(
            end, seen=look.after_freeing(self._context.cluster, self._plan, self._old_vmi)
        )

    def _end(self, result: Outcome, reason: str = "") -> TargetReport:
        return TargetReport(
            self._plan,
            result,
            tuple(self._reports),
            reason=reason,
            backup=self._backup,
            leftovers=self._left_behind(),
            private=self._private,
        )

    def _left_behind(self) -> tuple[str, ...]:
        """What the finalizers that were removed unfinished have left to be done."""
        sent = {(report.step.ref, name) for report in self._reports for name in report.step.removes}
        return tuple(
            finalizers.left_behind(judgment)
            for judgment in self._plan.leaves_behind
            if (judgment.ref, judgment.name) in sent
        )

    def _wait_until_gone(self, limit: timedelta) -> list[ObjectRef]:
        """The goals that are still there after `limit`, or when there is an interrupt.

        Raises StuckError when that cannot be seen.
        """
        context = self._context
        started = context.clock.monotonic()
        left = list(self._goals.items())
        while True:
            blind: StuckError | None = None
            try:
                left = [(ref, uid) for ref, uid in left if _is_there(context.cluster, ref, uid)]
            except UnreachableError as error:
                blind = error  # an API server that restarts is worth waiting for
            waited = context.clock.monotonic() - started
            if not left or waited >= limit.total_seconds() or self._is_interrupted:
                if blind is not None:
                    raise blind
                return [ref for ref, _ in left]
            of = int(limit.total_seconds())
            context.operator.progress(f"waiting for {left[0][0]} to go ({int(waited)}s of {of}s)")
            context.clock.sleep(min(POLL.total_seconds(), limit.total_seconds() - waited))


_ENDS = {StepStatus.CONFLICT: Outcome.CONFLICT, StepStatus.DENIED: Outcome.DENIED}
"""What a step can come to that ends a release: the object was seen not to be changed by it."""


def send(cluster: Cluster, step: Step) -> tuple[StepReport, Mapping[str, Any] | None]:
    """Send one step. Whatever happens is a report; with it the server's answer to a change.

    Without the answer of Kubernetes that it is done, the object is looked at first.
    """
    try:
        answer = preflight.send(cluster, step)
    except Exception as error:  # noqa: BLE001 - it may have been carried out, whatever went wrong
        return _looked_at(step, error, look.at(cluster, step)), None
    return StepReport(step, StepStatus.DONE, changed=True), answer


def _looked_at(step: Step, error: Exception, found: look.Look) -> StepReport:
    """What the error means, with what was seen after it."""
    if isinstance(error, ApiError):
        if error.code == 404 and error.about == step.ref.name and found.seen is Seen.GONE:
            # By itself, or by the first of two requests that a proxy made of this one.
            return StepReport(step, StepStatus.ALREADY_GONE, changed=True)
        if error.is_final and found.seen is Seen.AS_BEFORE:
            if _is_conflict(error):
                return StepReport(step, StepStatus.CONFLICT, False, error.message)
            return StepReport(step, StepStatus.DENIED, False, preflight.with_hint(error))
    return StepReport(step, StepStatus.UNKNOWN, True, f"{error}; {found.words}")


def _is_conflict(error: ApiError) -> bool:
    """Whether Kubernetes says that the object is not the one that the step was made for."""
    return error.is_kubernetes and (
        error.code == 409 or (error.code == 422 and "metadata.uid" in error.message)
    )


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
