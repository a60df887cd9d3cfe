"""Is this cluster ready for the next power failure? One pure function per check.

To add one: a function in one of the modules here that yields what it sees, with its evidence and
what to do, its entry in `CHECKS`, and a story in tests/test_checks.py in which it passes, one in
which it does not, and what it cannot do without; that test says so when one is forgotten. A read
that fails inside raises `UnreadableError` and becomes `unknown`, never "not found". The function's
name with hyphens is the check's public id, its docstring says what passes, its module is its
theme.
"""

from __future__ import annotations

from dataclasses import dataclass

from kubectl_harvester_stuck.checks import (
    availability,
    backups,
    monitoring,
    release_path,
    shutdown,
    upgrade,
)
from kubectl_harvester_stuck.checks.base import Check, CheckContext, CheckResult, Result, names
from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.k8s.kinds import (
    MIGRATION,
    PVC,
    SCHEDULE,
    VM,
    VM_BACKUP,
    VM_RESTORE,
    VMI,
)
from kubectl_harvester_stuck.k8s.objects import Evidence

CHECKS: tuple[Check, ...] = (
    Check(availability.nodes_ready),
    Check(availability.room_for_any_node),
    Check(availability.restart_elsewhere, (VM, VMI, PVC)),
    Check(availability.live_migratable, (VMI,)),
    Check(availability.force_reset_policy),
    Check(availability.volume_replicas, (VM,)),
    Check(backups.backup_target),
    Check(backups.recent_backup, (VM, VM_BACKUP)),
    Check(backups.backup_schedule, (VM, SCHEDULE)),
    Check(backups.failed_backups, (VM_BACKUP,)),
    Check(monitoring.monitoring_addon),
    Check(monitoring.alert_rules),
    Check(shutdown.guest_agent, (VMI,)),
    Check(shutdown.grace_period, (VM,)),
    Check(shutdown.eviction_strategy, (VMI,)),
    Check(release_path.workloads_available),
    Check(release_path.workloads_spread),
    Check(release_path.webhook_endpoints),
    Check(release_path.aggregated_apis),
    Check(release_path.known_finalizers, (VM, VMI)),
    Check(release_path.orphaned_finalizers, (VM, VMI)),
    Check(upgrade.leftover_instances, (VMI,)),
    Check(upgrade.movable_guests, (VMI,)),
    Check(upgrade.unfinished_migrations, (VMI, MIGRATION)),
    Check(upgrade.unfinished_backups, (VM_BACKUP,)),
    Check(upgrade.unfinished_restores, (VM_RESTORE,)),
    Check(upgrade.last_upgrade),
)


@dataclass(frozen=True)
class Checked:
    """One row of the answer: what a check came to, on what evidence, and what to do."""

    check: Check
    result: Result
    summary: str
    evidence: tuple[Evidence, ...] = ()
    todo: tuple[str, ...] = ()


def run(view: CheckContext) -> tuple[Checked, ...]:
    """Every check, in order; each answers at least once."""
    return tuple(
        Checked(check, seen.result, seen.summary, seen.evidence, seen.todo)
        for check in CHECKS
        for seen in _answers(check, view)
    )


def _answers(check: Check, view: CheckContext) -> list[CheckResult]:
    readable: list[str] = []
    gaps: dict[str, list[str]] = {}
    for namespace in view.namespaces:
        try:
            for kind in check.reads:
                view.snapshot.all(kind, namespace)
            readable.append(namespace)
        except UnreadableError as error:
            gaps.setdefault(str(error) if not namespace else error.why, []).append(namespace)
    found: list[CheckResult] = []
    if readable or not gaps:
        there = view.within(readable)
        try:
            for seen in check.look(there):
                found.append(seen)
            guests = [kind for kind in check.reads if kind in (VM, VMI)]
            if guests and not any(there.all(kind) for kind in guests):
                # Nothing was wrong with nothing: a namespace may have been mistyped.
                found = [CheckResult(Result.OK, f"there is no {guests[0].kind} to look at")]
        except UnreadableError as error:
            found = [seen for seen in found if seen.result is not Result.OK]
            found.append(_blind(error))
    return found + [_not_looked(why, spaces) for why, spaces in gaps.items()]


def _not_looked(why: str, spaces: list[str]) -> CheckResult:
    """The namespaces that could not be looked at, for one reason."""
    if spaces == [""]:
        return CheckResult(Result.UNKNOWN, why)
    return CheckResult(
        Result.UNKNOWN,
        f"could not look into {names(spaces)}: {why}",
        tuple(Evidence(f"Namespace {name}", "could not be read", why) for name in spaces),
    )


def _blind(error: UnreadableError) -> CheckResult:
    return CheckResult(
        Result.UNKNOWN, str(error), (Evidence(error.what, "could not be read", error.why),)
    )
