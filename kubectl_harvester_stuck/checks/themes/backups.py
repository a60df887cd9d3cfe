"""Backups: is there a place for them, and a recent good one of each VM?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from kubectl_harvester_stuck.checks.base import (
    CheckContext,
    CheckResult,
    check,
    condition,
    count,
    fail,
    mapping,
    names,
    ok,
    saw,
    warn,
)
from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.harvester import settings
from kubectl_harvester_stuck.harvester.settings import BACKUP_TARGET, fields_of, ref
from kubectl_harvester_stuck.k8s import commands
from kubectl_harvester_stuck.k8s.commands import Remark
from kubectl_harvester_stuck.k8s.durations import human
from kubectl_harvester_stuck.k8s.kinds import (
    LONGHORN_BACKUP_TARGET,
    LONGHORN_NAMESPACE,
    SCHEDULE,
    VM,
    VM_BACKUP,
)
from kubectl_harvester_stuck.k8s.objects import Evidence, KubeObject, parse_time
from kubectl_harvester_stuck.k8s.reads import Read
from kubectl_harvester_stuck.release.guards import SYSTEM_NAMESPACES, SYSTEM_PREFIXES

STALLED = timedelta(days=1)
"""A backup that is not ready after this long has failed, whatever it says."""


@check(reads=(settings.read(BACKUP_TARGET), Read(LONGHORN_BACKUP_TARGET, LONGHORN_NAMESPACE)))
def backup_target(view: CheckContext) -> Iterator[CheckResult]:
    """A backup target is configured, and Longhorn reaches it."""
    edit = commands.edit(ref(BACKUP_TARGET))
    setting = view.setting(BACKUP_TARGET)
    written = fields_of(setting) if setting is not None else {}
    if setting is None or not (written.get("endpoint") or written.get("bucketName")):
        yield fail(
            "no backup target is configured",
            [Evidence(f"Setting {BACKUP_TARGET}", "endpoint", "none")],
            edit,
        )
        return
    # Of the setting only type and endpoint are shown: the rest can be credentials.
    place = f"{written.get('type')} {written.get('endpoint') or written.get('bucketName')}"
    refused = condition(setting, "configured")
    if refused.get("status") == "False":
        yield fail(
            f"Harvester could not set it up: {refused.get('message') or 'no reason given'}",
            [saw(setting, "configured", "False")],
            edit,
        )
        return
    targets = [
        target
        for target in view.snapshot.all(LONGHORN_BACKUP_TARGET, LONGHORN_NAMESPACE)
        if target.text("spec", "backupTargetURL")
    ]
    gone = [item for item in targets if item.mapping("status").get("available") is not True]
    for target in gone:
        why = condition(target, "Unavailable").get("message")
        yield fail(
            f"Longhorn does not reach the backup target {place}: {why or 'no reason given'}",
            [saw(target, "status.available", target.mapping("status").get("available"))],
            commands.get(target.ref, "-o", "yaml"),
        )
    if not targets:
        yield fail(
            f"Longhorn has no backup target, although Harvester is set to {place}",
            [Evidence(f"BackupTarget {LONGHORN_NAMESPACE}", "spec.backupTargetURL", "none")],
            edit,
        )
    elif not gone:
        yield ok(
            f"{place} is configured and available", saw(targets[0], "status.available", "true")
        )


@check(reads=(VM, VM_BACKUP))
def recent_backup(view: CheckContext) -> Iterator[CheckResult]:
    """Each VM has a good VirtualMachineBackup that is not older than --backup-age."""
    now = view.snapshot.taken_at
    last: dict[tuple[str, str], datetime] = {}
    for backup in view.all(VM_BACKUP):
        if _is_remote(backup) and backup.mapping("status").get("readyToUse") is True:
            key = _source(backup)
            made = _made(backup)
            last[key] = max(made, last.get(key, made))
    machines = _users(view)
    ages = [(vm, last.get((vm.ref.namespace, vm.ref.name))) for vm in machines]
    never = [vm for vm, made in ages if made is None]
    old = [(vm, now - made) for vm, made in ages if made and now - made > view.backup_age]
    if never:
        yield fail(
            f"{count(len(never), 'VM')} of {len(machines)} without a good backup: {names(never)}",
            [saw(vm, "last good VirtualMachineBackup", None) for vm in never],
            Remark("snapshots do not count: they are on the same disks"),
        )
    if old:
        told = names(f"{vm.ref.key} ({human(age)})" for vm, age in old)
        yield fail(
            f"{count(len(old), 'VM')} of {len(machines)} whose last good backup is older than"
            f" {human(view.backup_age)}: {told}",
            [saw(vm, "last good VirtualMachineBackup", f"{human(age)} ago") for vm, age in old],
        )
    if not never and not old:
        age = human(view.backup_age)
        yield ok(f"each of {count(len(machines), 'VM')} has a good backup of the last {age}")


@check(reads=(VM, SCHEDULE))
def backup_schedule(view: CheckContext) -> Iterator[CheckResult]:
    """Each VM has a schedule that makes backups, and that is not suspended."""
    active: set[tuple[str, str]] = set()
    suspended: dict[tuple[str, str], KubeObject] = {}
    for schedule in view.all(SCHEDULE):
        wanted = schedule.mapping("spec", "vmbackup")
        source = mapping(schedule, wanted.get("source"), "spec.vmbackup.source")
        key = (schedule.ref.namespace, str(source.get("name") or ""))
        if wanted.get("type") == "snapshot":
            continue
        stands_still = (
            schedule.mapping("spec").get("suspend") is True
            or schedule.mapping("status").get("suspended") is True
        )
        if stands_still:
            suspended[key] = schedule
        else:
            active.add(key)
    machines = _users(view)
    without = [vm for vm in machines if (vm.ref.namespace, vm.ref.name) not in active]
    if without:
        paused = [
            suspended[key]
            for vm in without
            if (key := (vm.ref.namespace, vm.ref.name)) in suspended
        ]
        yield warn(
            f"{count(len(without), 'VM')} of {len(machines)} without an active schedule:"
            f" {names(without)}",
            [
                *(saw(vm, "active ScheduleVMBackup", None) for vm in without),
                *(saw(schedule, "suspended", "true") for schedule in paused),
            ],
            commands.get_all(SCHEDULE),
        )
    else:
        yield ok(f"each of {count(len(machines), 'VM')} has an active schedule")


@check(reads=(VM_BACKUP,))
def failed_backups(view: CheckContext) -> Iterator[CheckResult]:
    """No VirtualMachineBackup has failed, and none is stuck half-way."""
    failed = []
    for backup in view.all(VM_BACKUP):
        if backup.deletion_timestamp is not None:
            continue
        error = backup.mapping("status", "error").get("message")
        ready = backup.mapping("status").get("readyToUse") is True
        if error:
            failed.append((backup, "status.error.message", str(error)))
        elif not ready and view.snapshot.taken_at - _made(backup) > STALLED:
            failed.append((backup, "status.readyToUse", "not ready for more than a day"))
    if failed:
        yield warn(
            f"{count(len(failed), 'backup')} failed: {names(backup for backup, _, _ in failed)}",
            [saw(*item) for item in failed],
            *(commands.describe(backup.ref) for backup, _, _ in failed),
        )
    else:
        yield ok(f"none of {count(len(view.all(VM_BACKUP)), 'backup')} has failed")


def _users(view: CheckContext) -> list[KubeObject]:
    """The VMs that are not Harvester's own, such as the one that serves an upgrade."""
    return [
        vm
        for vm in view.vms
        if vm.ref.namespace not in SYSTEM_NAMESPACES
        and not vm.ref.namespace.startswith(SYSTEM_PREFIXES)
    ]


def _is_remote(backup: KubeObject) -> bool:
    return backup.text("spec", "type") in ("", "backup")


def _source(backup: KubeObject) -> tuple[str, str]:
    return (backup.ref.namespace, backup.text("spec", "source", "name"))


def _made(backup: KubeObject) -> datetime:
    written = backup.text("status", "creationTime") or backup.text("metadata", "creationTimestamp")
    try:
        return parse_time(written)
    except ValueError:
        raise UnreadableError(str(backup.ref), f"{written!r} is not a time") from None
