"""`unstick` for all its targets: plan, confirm, release each, and look at what they have left.

`target_run` releases one of them. Everything that decides is elsewhere.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

from kubectl_harvester_stuck.cluster import reader
from kubectl_harvester_stuck.cluster.shared_reads import SharedReads
from kubectl_harvester_stuck.errors import StuckError, UnreadableError, is_forbidden
from kubectl_harvester_stuck.harvester import leftovers
from kubectl_harvester_stuck.harvester.target import Target
from kubectl_harvester_stuck.k8s.commands import Remark
from kubectl_harvester_stuck.k8s.kinds import VM
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef, Unreadable
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot
from kubectl_harvester_stuck.k8s.source import PARALLEL_REQUESTS
from kubectl_harvester_stuck.release import guards, preflight, statements
from kubectl_harvester_stuck.release import plan as planning
from kubectl_harvester_stuck.release.batch import Batch
from kubectl_harvester_stuck.release.context import ReleaseContext, current_user
from kubectl_harvester_stuck.release.model import (
    WITHIN_MAX,
    Failure,
    GuardResult,
    GuardState,
    Outcome,
    Plan,
    ReleaseReport,
    ReleaseRequest,
    StepReport,
    StepStatus,
    TargetReport,
)
from kubectl_harvester_stuck.release.target_run import CommandRecord, TargetRun

TARGETS_AT_ONCE = 100
"""Targets that are worked on side by side; most of the time each waits for controllers."""


def preview(
    context: ReleaseContext,
    targets: Sequence[ObjectRef],
    request: ReleaseRequest,
    *,
    ask_webhooks: bool,
) -> ReleaseReport:
    """`--dry-run`: the plans, with the API server's word on each step.

    `ask_webhooks` sends every step with `dryRun=All`, so that admission answers; nothing else
    than reads and access reviews is sent otherwise.
    """
    plans, failures, seen = _plan_all(context, targets, request, dry_run=ask_webhooks)
    outcomes = tuple(
        TargetReport.refused(plan) if plan.refusals else _planned(plan) for plan in plans
    )
    digest = planning.digest(context.server, plans)
    return ReleaseReport(digest, outcomes, failures, blind=_forbidden(plans, seen))


def too_many(
    server: str, targets: Sequence[ObjectRef], request: ReleaseRequest
) -> ReleaseReport | None:
    """The report where there are more targets than --max, of which nothing is read; else None."""
    reason = guards.why_too_many(request)
    if reason is None:
        return None
    refusal = GuardResult(WITHIN_MAX, GuardState.REFUSE, reason)
    outcomes = tuple(TargetReport.not_looked_at(ref, refusal) for ref in targets)
    return ReleaseReport(planning.digest(server, ()), outcomes)


def _planned(plan: Plan) -> TargetReport:
    steps = (StepReport(step, StepStatus.PLANNED, changed=False) for step in plan.steps)
    return TargetReport(plan, Outcome.PLANNED, tuple(steps))


def unstick(
    context: ReleaseContext, targets: Sequence[ObjectRef], request: ReleaseRequest
) -> ReleaseReport:
    """Release the targets, as far as every guard passes and the operator agrees.

    Signals are held from the operator's yes on. Raises RefusedError when nobody agreed, and
    StuckError when the cluster could not be read, both before anything was changed; never after
    that.
    """
    planned = context.clock.monotonic()
    plans, failures, before = _plan_all(context, targets, request, dry_run=True)
    machines = {ref: vm for ref in targets if (vm := before.found.get(ref)) is not None}
    digest = planning.digest(context.server, plans)
    if all(plan.refusals for plan in plans):
        refused = tuple(map(TargetReport.refused, plans))
        return ReleaseReport(digest, refused, failures, blind=_forbidden(plans, before))
    context.operator.confirm(plans, digest)
    context.interrupts.hold()
    command = CommandRecord(digest, uuid.uuid4().hex, current_user(context.cluster), planned)

    def release(plan: Plan, batch: Batch) -> TargetReport | Failure:
        if plan.refusals:
            return TargetReport.refused(plan)
        try:
            return TargetRun(context, command, plan, request, batch).release()
        except StuckError as error:
            return Failure(plan.ref, error)
        except Exception as bug:  # noqa: BLE001 - it may not hide what became of the others
            return Failure(plan.ref, StuckError(f"unexpected {type(bug).__name__}: {bug}"))

    ends = _each(plans, release, context)
    outcomes = tuple(end for end in ends if isinstance(end, TargetReport))
    return ReleaseReport(
        digest,
        _with_leftovers(context, outcomes, machines),
        failures + tuple(end for end in ends if isinstance(end, Failure)),
        blind=_forbidden(plans, before),
    )


def _each(
    plans: Sequence[Plan],
    release: Callable[[Plan, Batch], TargetReport | Failure],
    context: ReleaseContext,
) -> list[TargetReport | Failure]:
    """What became of each plan; `release` raises nothing."""
    ends: dict[ObjectRef, TargetReport | Failure] = {}

    def work(plan: Plan) -> None:
        ends[plan.ref] = release(plan, batch)

    with SharedReads() as shared:
        batch = Batch(context, shared, (plan.ref for plan in plans))
        with ThreadPoolExecutor(TARGETS_AT_ONCE) as pool:
            for plan in plans:
                # Where no further thread can be started, those that run take it from the queue.
                with suppress(RuntimeError):
                    pool.submit(work, plan)
        for plan in plans:
            if plan.ref not in ends:  # not one thread could be started
                work(plan)
    return [ends[plan.ref] for plan in plans]


def _plan_all(
    context: ReleaseContext, targets: Sequence[ObjectRef], request: ReleaseRequest, *, dry_run: bool
) -> tuple[tuple[Plan, ...], tuple[Failure, ...], ClusterSnapshot]:
    """The plans of the whole batch from one read of the cluster. Raises StatementError."""
    with SharedReads() as shared:
        snapshot = reader.around(
            context.cluster, targets, guards.reads(), nodes=request.powered_off, shared=shared
        )
    there = [target for ref in targets if _may_exist(target := Target(ref, snapshot))]
    if there:
        statements.check(there, request.powered_off)
        statements.check_finalizers(there, request.finalizers)

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


def _forbidden(plans: Sequence[Plan], seen: ClusterSnapshot) -> tuple[Unreadable, ...]:
    """All that this user may not read, where a plan is refused because something is unknown.

    A guard names only what it missed first.
    """
    unknown = (
        guard for plan in plans for guard in plan.refusals if guard.verdict is GuardState.UNKNOWN
    )
    if next(unknown, None) is None:
        return ()
    return tuple(gap for gap in seen.gaps if is_forbidden(gap.message))


def _may_exist(target: Target) -> bool:
    """Whether the target is not known to be absent: of an absent one nothing can be stated."""
    try:
        return target.obj is not None
    except UnreadableError:
        return True


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
        after = reader.in_depth(context.cluster, gone, leftovers.READS)
        found = {ref: leftovers.of(Target(ref, after), machines[ref]) for ref in gone}
    except Exception as error:  # noqa: BLE001 - not even a bug may hide what was done
        found = dict.fromkeys(gone, (Remark(f"not looked for: {error}"),))
    return tuple(
        replace(
            outcome,
            leftovers=(*outcome.leftovers, *found.get(outcome.plan.ref, ())),
        )
        for outcome in outcomes
    )
