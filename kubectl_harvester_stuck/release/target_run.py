"""The release of one target: look again, save, send step by step, and verify that it is gone.

After the first change no exception leaves this module without its report.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from kubectl_harvester_stuck.errors import (
    JournalError,
    NotFoundError,
    StuckError,
    UnreachableError,
)
from kubectl_harvester_stuck.harvester import finalizers
from kubectl_harvester_stuck.harvester.target import State, Target
from kubectl_harvester_stuck.k8s import redaction
from kubectl_harvester_stuck.k8s.commands import Remark
from kubectl_harvester_stuck.k8s.objects import ObjectRef
from kubectl_harvester_stuck.release import backup_contents, look, preflight, send
from kubectl_harvester_stuck.release import plan as planning
from kubectl_harvester_stuck.release.batch import Batch, Turn
from kubectl_harvester_stuck.release.change import Change, Who, event
from kubectl_harvester_stuck.release.context import ReleaseContext
from kubectl_harvester_stuck.release.model import (
    UNCHANGED,
    Action,
    GuardResult,
    GuardState,
    Outcome,
    Plan,
    ReleaseRequest,
    Step,
    StepReport,
    StepStatus,
    TargetReport,
)
from kubectl_harvester_stuck.release.presence import Goal

POLL = timedelta(seconds=0.5)
LONGEST_POLL = timedelta(seconds=2)
"""How long to wait between two looks at what has to go: short at first, then longer."""

ANSWERS_HOLD = timedelta(minutes=1)
"""How long the dry run of a later step need not be repeated; that of the next one always is."""

MAX_REPLANS = 4
"""How often what is left is looked at while it moves, after a step."""


@dataclass(frozen=True)
class CommandRecord:
    """What all changes of one `unstick` have in common."""

    digest: str
    id: str
    who: Who
    planned: float
    """When the plans were begun, with a dry run of each of their steps, by the monotonic clock."""


class TargetRun:
    """The release of one target, as its confirmed plan says: `release` reads top to bottom.

    Look again, save, then for each step: send it, let the controllers settle, and look what is
    still needed; at the end verify that every object of the plan is gone. What was sent is in
    `_reports` from the moment it was answered.
    """

    def __init__(
        self,
        context: ReleaseContext,
        command: CommandRecord,
        plan: Plan,
        request: ReleaseRequest,
        batch: Batch,
    ) -> None:
        self._context = context
        self._batch = batch
        self._turn = Turn(plan.ref, batch.turns)
        self._command = command
        self._plan = plan
        self._request = request
        self._reports: list[StepReport] = []
        self._backup = ""
        self._private = False
        self._goals: dict[ObjectRef, Goal] = {}
        """What has to be gone before the target counts as released."""
        self._memory = plan.memory
        """What the looks so far have shown, for the next one."""
        self._old_vmi = ""
        """The uid of the VMI as it was before the first change."""

    def release(self) -> TargetReport:
        """Do it. Raises StuckError as long as nothing was sent, and never after that."""
        try:
            self._turn.take()
            following = self._begin()
            while isinstance(following, Plan):
                following = self._step(following)
            return following
        finally:
            self._turn.give()

    def _begin(self) -> Plan | TargetReport:
        """Look again and save; the plan that is to be sent, or why nothing is."""
        if self._is_interrupted:
            return self._not_begun
        target, again = self._look_again()
        if again.refusals:
            return TargetReport.refused(again)
        if (beyond := planning.destroyed_beyond(again, self._plan)) is not None:
            return TargetReport(again, Outcome.REFUSED, refusals=(beyond,))
        self._save(target, again)
        self._aim(target)
        # Before the first change nothing is in flight.
        return self._not_begun if self._is_interrupted else again

    @property
    def _not_begun(self) -> TargetReport:
        reason = "interrupted; nothing was sent for it"
        return TargetReport(self._plan, Outcome.REFUSED, reason=reason)

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
        target = self._read()
        shown = self._plan.steps
        is_new = context.clock.monotonic() - self._command.planned < ANSWERS_HOLD.total_seconds()
        again = preflight.plan(
            context.rights,
            target,
            self._request,
            dry_run=True,
            shown=shown,
            ahead=1 if is_new else None,
        )
        self._memory = again.memory
        return target, again

    def _read(self) -> Target:
        return Target(self._plan.ref, self._turn.look(), self._memory)

    def _save(self, target: Target, again: Plan) -> None:
        """Save what is going to be changed. Raises BackupError."""
        saved = backup_contents.of_plan(target, again)
        disks, not_saved = backup_contents.disks(self._context.cluster, target)
        self._private = any(redaction.has_secrets(item.body) for item in saved)
        self._backup = self._context.archive.save(
            again, (*saved, *disks), self._command.digest, not_saved
        )

    def _aim(self, target: Target) -> None:
        """Every object of the plan has to go, and the VMI of a VM that is stopping."""
        plan = self._plan
        uids = {step.ref: step.uid for step in plan.steps}
        if plan.state is State.TERMINATING:
            uids = {plan.ref: plan.uid, **uids}
        if target.vmi is not None:
            self._old_vmi = target.vmi.uid
            if plan.state is State.STOPPING:
                uids[target.vmi.ref] = target.vmi.uid
        nodes = {
            pod.ref: pod.text("spec", "nodeName") for pod in (*target.pods, *target.attachment_pods)
        }
        self._goals = {ref: Goal(ref, uid, nodes.get(ref, "")) for ref, uid in uids.items()}

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
        report, answer = send.send(context.cluster, step)
        self._reports.append(report)
        self._turn.give()
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
            return self._go_on()
        except NotFoundError:
            return self._verify()
        except StuckError as error:
            return self._verify(str(error))

    def _go_on(self) -> Plan | TargetReport:
        """The plan for what is left, or the end where something speaks against it.

        Raises StuckError when the cluster cannot be read.
        """
        self._turn.take()
        if self._is_interrupted:
            return self._end(Outcome.STILL_THERE, "interrupted")
        again, refusals = self._still_needed()
        if self._is_interrupted:  # while it was looked at: what comes next is not in flight
            return self._end(Outcome.STILL_THERE, "interrupted")
        if not refusals:
            return again
        end = self._verify()
        return end if end.result is self._wanted else replace(end, refusals=refusals)

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
                self._turn.give()
                context.clock.sleep(POLL.total_seconds())
                self._turn.take()
            again = preflight.plan(
                context.rights, self._read(), self._request, dry_run=True, ahead=1
            )
            self._memory = again.memory
            refusals = again.refusals or self._not_agreed(again)
            now = {step.ref: step.resource_version for step in again.steps}
            if not refusals or now == seen:
                break
            seen = now
        return again, refusals

    def _not_agreed(self, again: Plan) -> tuple[GuardResult, ...]:
        """What the operator did not agree to: steps, and else a disk that would be destroyed."""
        strays = tuple(
            GuardResult(UNCHANGED, GuardState.REFUSE, stray)
            for step in again.steps
            if (stray := self._why_not_agreed(step)) is not None
        )
        beyond = planning.destroyed_beyond(again, self._plan)
        return strays or ((beyond,) if beyond is not None else ())

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
            waited_for = self._wait_until_gone(self._context.waits.timeout)
            left = [goal.ref for goal in waited_for if self._batch.presence.is_there(goal)]
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

    def _left_behind(self) -> tuple[Remark, ...]:
        """What the finalizers that were removed unfinished have left to be done."""
        sent = {(report.step.ref, name) for report in self._reports for name in report.step.removes}
        return tuple(
            Remark(finalizers.left_behind(judgment))
            for judgment in self._plan.leaves_behind
            if (judgment.ref, judgment.name) in sent
        )

    def _wait_until_gone(self, limit: timedelta) -> list[Goal]:
        """The goals that may be left after `limit`, or when there is an interrupt; the first is.

        Raises StuckError when that cannot be seen.
        """
        context = self._context
        self._turn.give()
        started, pause = context.clock.monotonic(), POLL
        is_there, left = self._batch.presence.is_there, list(self._goals.values())
        if limit and self._batch.presence.is_together(self._plan.ref.namespace):
            # Nothing goes at once, and at the next of their moments all ask with one list.
            context.clock.sleep(self._until_next(pause, limit.total_seconds()))
        while True:
            blind: StuckError | None = None
            try:
                # One that is gone never comes back, and one that is there is enough to wait for.
                while left and not is_there(left[0]):
                    del left[0]
            except UnreachableError as error:
                blind = error  # an API server that restarts is worth waiting for
            waited = context.clock.monotonic() - started
            if not left or waited >= limit.total_seconds() or self._is_interrupted:
                if blind is not None:
                    raise blind
                return left
            of = int(limit.total_seconds())
            context.operator.progress(f"waiting for {left[0].ref} to go ({int(waited)}s of {of}s)")
            context.clock.sleep(self._until_next(pause, limit.total_seconds() - waited))
            pause = min(2 * pause, LONGEST_POLL)

    def _until_next(self, pause: timedelta, left: float) -> float:
        """Seconds until the next look, of which `left` are left.

        Those who ask together look at the same moments, for the last time at most `LONGEST_POLL`
        later than alone.
        """
        seconds = pause.total_seconds()
        if self._batch.presence.is_together(self._plan.ref.namespace):
            whole = seconds if left > seconds else LONGEST_POLL.total_seconds()
            return whole - self._context.clock.monotonic() % whole
        return min(seconds, left)


_ENDS = {StepStatus.CONFLICT: Outcome.CONFLICT, StepStatus.DENIED: Outcome.DENIED}
"""What a step can come to that ends a release: the object was seen not to be changed by it."""
