"""The owners of finalizers: what they wait for, what they fail on, whether they run at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from kubectl_harvester_stuck.diagnosis.findings.base import (
    RELEASE,
    FindingContext,
    Found,
    finding,
    saw,
)
from kubectl_harvester_stuck.diagnosis.model import Verdict
from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.harvester import finalizers, pending_work, webhook_denials, workloads
from kubectl_harvester_stuck.harvester.finalizer_judges import FinalizerState
from kubectl_harvester_stuck.harvester.finalizers import FinalizerAssessment
from kubectl_harvester_stuck.harvester.target import THE_VM, THE_VMI, Target
from kubectl_harvester_stuck.k8s import commands
from kubectl_harvester_stuck.k8s.commands import Advice, Remark
from kubectl_harvester_stuck.k8s.kinds import (
    CONTROLLER_REVISION,
    DATA_VOLUME,
    DEPLOYMENT,
    JOB,
    KUBEVIRT_RESTORE,
    PVC,
    VM_BACKUP,
    VM_RESTORE,
    VM_SNAPSHOT,
    VOLUME_SNAPSHOT,
)
from kubectl_harvester_stuck.k8s.objects import Evidence, KubeObject, ObjectRef
from kubectl_harvester_stuck.k8s.reads import EVERYWHERE, Read, metadata
from kubectl_harvester_stuck.release.model import PAST_GRACE


@finding(reads=(THE_VM, *pending_work.CONTENTS_READ))
def snapshot_content_missing(examined: FindingContext) -> Iterator[Found]:
    """CleanupPVCAndSnapshot fails forever on a VolumeSnapshot or PVC that is gone (H#8003).

    It may belong to a VM of the same name in another namespace.
    """
    vm = examined.target.vm
    if vm is None or pending_work.CLEANUP not in vm.finalizers:
        return
    snapshot = examined.target.snapshot
    for backup in pending_work.backups_of_the_name(vm, examined.target):
        namespace = backup.ref.namespace
        snapshots = {item.ref.name for item in snapshot.all(VOLUME_SNAPSHOT, namespace)}
        claims = {item.ref.name for item in snapshot.all(PVC, namespace)}
        volumes = backup.mappings("status", "volumeBackups")
        intact = [
            str(volume.get("name"))
            for volume in volumes
            if volume.get("name") in snapshots and pending_work.name_of_disk(volume) in claims
        ]
        for volume in volumes:
            claim = pending_work.name_of_disk(volume)
            for what, name, known in (
                ("VolumeSnapshot", str(volume.get("name") or ""), snapshots),
                ("PersistentVolumeClaim", claim, claims),
            ):
                if name and name not in known:
                    yield Found(
                        f"{what} {name} of {backup.ref} is gone: the controller of"
                        " CleanupPVCAndSnapshot fails on it every time (H#8003)",
                        (saw(backup, "status.volumeBackups", name),),
                        Verdict.REPAIR,
                        (_end_of_snapshot(backup, intact, vm),),
                    )


def _end_of_snapshot(backup: KubeObject, intact: list[str], vm: KubeObject) -> Advice:
    """The command that deletes a broken snapshot, unless a part of it would be lost with it."""
    if backup.ref.namespace != vm.ref.namespace:
        return commands.describe(backup.ref).noted(
            "it is of another VM of this name: its owner has to mend or delete it"
        )
    if intact:
        return Remark(
            f"VolumeSnapshot {', '.join(intact)} of {backup.ref} is intact, and is lost if that"
            " is deleted; to keep it, release the VM with"
            " --leave-behind wrangler.cattle.io/VMController.CleanupPVCAndSnapshot"
        )
    return commands.delete(backup.ref)


@finding(reads=(THE_VM, Read(VM_BACKUP, EVERYWHERE)))
def same_name_elsewhere(examined: FindingContext) -> Iterator[Found]:
    """The controller of CleanupPVCAndSnapshot finds backups by the VM's name alone."""
    vm = examined.target.vm
    if vm is None or pending_work.CLEANUP not in vm.finalizers:
        return
    for backup in examined.target.snapshot.all(VM_BACKUP):
        is_ours = backup.ref.namespace == vm.ref.namespace
        of_the_name = backup.text("spec", "source", "name") == vm.ref.name
        if of_the_name and not is_ours and backup.text("spec", "type") != "backup":
            yield Found(
                f"{backup.ref} belongs to a VM of the same name in another namespace, and"
                " Harvester would delete it together with this VM",
                (saw(backup, "spec.source.name", vm.ref.name),),
                None,
                (
                    commands.describe(backup.ref).noted(
                        "its owner has to know before the clean-up of this VM goes on"
                    ),
                ),
            )


@finding(reads=(THE_VM, VM_BACKUP))
def backup_in_progress(examined: FindingContext) -> Iterator[Found]:
    """A backup of the VM is running; Harvester rejects a stop until it ends."""
    if not examined.stuck:
        return
    vm = examined.target.vm
    waiting = vm.mappings("status", "stateChangeRequests") if vm is not None else ()
    stops = any(item.get("action") == "Stop" for item in waiting)
    told = ", and every update is rejected for as long as a stop waits" if stops else ""
    for backup in examined.target.snapshot.all(VM_BACKUP, examined.target.ref.namespace):
        of_this = backup.text("spec", "source", "name") == examined.target.ref.name
        ready = backup.mapping("status").get("readyToUse")
        if not of_this or ready is True or backup.deletion_timestamp is not None:
            continue
        failed = backup.mapping("status", "error").get("message")
        if failed:
            yield Found(
                f"{backup.ref} has failed, and will not become ready: {failed}; at most a stop of"
                " the VM is rejected for it",
                (saw(backup, "status.error.message", failed),),
                None,
                (commands.describe(backup.ref),),
            )
        else:
            yield Found(
                f"{backup.ref} is not ready to use yet{told}",
                (saw(backup, "status.readyToUse", ready),),
                Verdict.REPAIR if told else Verdict.WAIT,
                (commands.describe(backup.ref),) if told else (),
            )


@finding(reads=(THE_VM, PVC, *pending_work.DISKS_READ))
def finalizer_pending(examined: FindingContext) -> Iterator[Found]:
    """A finalizer whose work is not done, or that is not in the catalogue."""
    for item in examined.plan.judgments:
        if item.state in (FinalizerState.DONE, FinalizerState.OWNERLESS):
            continue
        yield Found(
            finalizers.why_kept(item),
            (Evidence(str(item.ref), "metadata.finalizers", item.name),),
            Verdict.REFUSE,
            tuple(_what_it_waits_for(item, examined)),
        )


def _what_it_waits_for(item: FinalizerAssessment, examined: FindingContext) -> Iterator[Advice]:
    """What ends the wait of a finalizer, as far as one object stands for it."""
    vm = examined.target.vm
    if vm is None or vm.ref != item.ref or item.state is not FinalizerState.PENDING:
        return
    if item.name == "snapshot.kubevirt.io/snapshot-source-protection":
        name = vm.text("status", "snapshotInProgress")
        yield commands.describe(ObjectRef(vm.ref.namespace, name, VM_SNAPSHOT))
    if item.name == pending_work.CLEANUP:
        yield from _shorter_list(vm, examined.target)


def _shorter_list(vm: KubeObject, target: Target) -> Iterator[Advice]:
    """The list of the disks to be deleted, without those that Harvester may not delete."""
    kept = []
    for claim in pending_work.selected_disks(vm, target):
        with suppress(UnreadableError):
            if pending_work.why_kept(claim, target.snapshot):
                kept.append(claim.ref.name)
    if kept:
        left = ",".join(sorted(pending_work.selected(vm).difference(kept)))
        yield commands.annotate(vm.ref, pending_work.REMOVED_PVCS, left).noted(
            f"to keep {', '.join(kept)}, which the webhook does not let go: a shorter list"
        )


@finding()
def finalizer_ownerless(examined: FindingContext) -> Iterator[Found]:
    """A finalizer that no controller will remove, such as one from before an upgrade (H#3529)."""
    for item in examined.plan.judgments:
        if item.state is FinalizerState.OWNERLESS:
            yield Found(
                f"nobody takes {item.name} off any more: {item.reason}",
                (Evidence(str(item.ref), "metadata.finalizers", item.name),),
            )


@finding(reads=(THE_VM, THE_VMI))
def vm_released_before_vmi(examined: FindingContext) -> Iterator[Found]:
    """The VM is gone, its VMI is not: a finalizer's controller fails without the VM (H#9788)."""
    vmi = examined.target.vmi
    name = "wrangler.cattle.io/VMController.BackfillObservedNetworkMacAddress"
    if vmi is None or vmi.deletion_timestamp is None or name not in vmi.finalizers:
        return
    if examined.target.vm is None:
        yield Found(
            "the VM is gone, and the controller of BackfillObservedNetworkMacAddress fails without"
            " it every time (H#9788)",
            (saw(vmi, "metadata.finalizers", name),),
        )


@finding(reads=workloads.WORKLOADS)
def owner_unavailable(examined: FindingContext) -> Iterator[Found]:
    """The workload that should remove a finalizer does not run."""
    owners = {
        entry.workload
        for item in examined.plan.judgments
        if (entry := finalizers.find(item.name, item.ref.kind)) is not None
    }
    snapshot = examined.target.snapshot
    for owner in sorted(filter(workloads.is_named, owners)):
        workload = workloads.find(owner, snapshot)
        ref = workload.ref if workload is not None else workloads.ref_of(owner, snapshot)
        field = "availableReplicas" if ref.kind is DEPLOYMENT else "numberAvailable"
        available = workload.mapping("status").get(field) if workload else None
        if not available:
            seen = "not there" if workload is None else "not available"
            yield Found(
                f"{owner} is {seen}, so its finalizers are never removed",
                (Evidence(str(ref), field, str(available)),),
                Verdict.REPAIR,
                (commands.get_workload(ref, "-o", "wide"), commands.rollout_restart(ref)),
            )


@finding(reads=workloads.reads())
def owner_lags(examined: FindingContext) -> Iterator[Found]:
    """A finalizer's controller runs, but has not finished its work: its log says why (H#10294)."""
    if examined.refusal(PAST_GRACE) is not None:
        return
    for item in examined.plan.judgments:
        entry = finalizers.find(item.name, item.ref.kind)
        if entry is None or item.state is not FinalizerState.PENDING:
            continue
        if workloads.is_named(entry.workload):
            yield Found(
                f"{entry.workload} should have finished by now, but {item.name} is still there:"
                f" {item.reason}; its log says why",
                (Evidence(str(item.ref), "metadata.finalizers", item.name),),
                Verdict.REPAIR,
                (
                    commands.logs(
                        workloads.ref_of(entry.workload, examined.target.snapshot), "--tail=5000"
                    ).noted(f"look for {item.ref} in the log"),
                ),
            )


@finding(reads=(RELEASE,))
def owner_says(examined: FindingContext) -> Iterator[Found]:
    """The log of a finalizer's controller names the target, with an error."""
    for words in examined.words:
        for line in words.lines:
            denied = "denied the request" in line or "failed calling webhook" in line
            failing = "handler" in line and "requeuing" in line
            yield Found(
                f"{words.pod.name} says: {line}",
                (Evidence(str(words.pod), "log", line),),
                Verdict.REPAIR if denied or failing else None,
                (Remark(webhook_denials.cure_of(line, examined.release_if_known)),)
                if denied
                else (),
            )
    for words in examined.words:
        if words.why is not None:
            raise UnreadableError(f"the log of {words.pod.name}", words.why)


_DEPENDENTS = (PVC, DATA_VOLUME, CONTROLLER_REVISION, JOB, VM_RESTORE, VM_BACKUP, KUBEVIRT_RESTORE)
"""Kinds of what a VM owns that can have a finalizer of its own."""


@finding(reads=(THE_VM, *metadata(*_DEPENDENTS)))
def waits_for_dependents(examined: FindingContext) -> Iterator[Found]:
    """A deletion in the foreground waits for an object that the target owns."""
    for item in examined.plan.judgments:
        if item.name == "foregroundDeletion" and item.state is FinalizerState.PENDING:
            yield Found(item.reason, (Evidence(str(item.ref), "metadata.finalizers", item.name),))
            yield from _hanging_dependents(item, examined.target)


def _hanging_dependents(item: FinalizerAssessment, target: Target) -> Iterator[Found]:
    """What the garbage collector waits for, and what that waits for itself."""
    owner = target.snapshot.one(item.ref)
    for kind in _DEPENDENTS:
        with suppress(UnreadableError):  # the finalizer's own reason says so
            for one in target.snapshot.all(kind, item.ref.namespace):
                if owner is None or not one.blocks_deletion_of(owner) or not one.finalizers:
                    continue
                if one.deletion_timestamp is not None:
                    yield Found(
                        f"{one.ref} is being deleted, and waits for {', '.join(one.finalizers)}",
                        (saw(one, "metadata.finalizers", ", ".join(one.finalizers)),),
                        None,
                        (commands.describe(one.ref),),
                    )


@finding()
def ready_to_release(examined: FindingContext) -> Iterator[Found]:
    """Every guard passes."""
    state = examined.plan.state
    if state is not None and not examined.plan.refusals:
        count = len(examined.plan.steps)
        yield Found(
            f"every guard passes; unstick would take {count} step{'s' if count > 1 else ''}",
            (Evidence(str(examined.plan.ref), "state", state.value),),
            Verdict.RELEASE,
        )
