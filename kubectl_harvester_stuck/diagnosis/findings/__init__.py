"""What holds a target: one function per situation, all of them asked of every target.

To add one: a function in one of the modules here that yields what it finds, with its evidence, its
name in `FINDINGS`, and a story in tests/test_findings.py, which says so when one is forgotten. A
read that fails inside raises `UnreadableError` and is told as a gap, never as "not found". The
function's name with hyphens is the finding's public id.

The situations, their causes and their cures are those of Harvester, KubeVirt and Longhorn issues;
the numbers stand with each function (H: harvester, K: kubevirt, L: longhorn, k8s: kubernetes).
"""

from __future__ import annotations

from kubectl_harvester_stuck.diagnosis.findings import admission, guest, owners
from kubectl_harvester_stuck.diagnosis.findings.base import FindingContext, Look
from kubectl_harvester_stuck.diagnosis.model import Finding
from kubectl_harvester_stuck.errors import UnreadableError

FINDINGS: tuple[Look, ...] = (
    guest.not_stuck,
    guest.deletion_not_begun,
    guest.instance_lives,
    guest.settling,
    guest.node_silent,
    guest.node_contradicts,
    guest.sign_unreadable,
    guest.guest_runs,
    guest.pod_not_cleaned_up,
    guest.never_scheduled,
    guest.migration_in_flight,
    guest.state_change_left,
    guest.force_reset_off,
    admission.webhook_denies,
    admission.webhook_unavailable,
    admission.veto_keeps_vmi,
    admission.disk_of_another_vm,
    admission.broken_template_annotation,
    admission.mac_of_another_vm,
    admission.network_missing,
    admission.host_device_missing,
    admission.quota_without_pod,
    admission.aggregated_api_down,
    owners.snapshot_content_missing,
    owners.same_name_elsewhere,
    owners.backup_in_progress,
    owners.finalizer_pending,
    owners.finalizer_ownerless,
    owners.vm_released_before_vmi,
    owners.owner_unavailable,
    owners.owner_lags,
    owners.owner_says,
    owners.waits_for_dependents,
    owners.ready_to_release,
)


def id_of(look: Look) -> str:
    """The public id of a situation."""
    return look.__name__.replace("_", "-")


def run(examined: FindingContext) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """What was found, and for which situations the snapshot is blind."""
    found: list[Finding] = []
    blind: list[str] = []
    for look in FINDINGS:
        try:
            found += [
                Finding(id_of(look), item.summary, item.evidence, item.advice, item.steps)
                for item in look(examined)
            ]
        except UnreadableError as error:
            blind.append(f"{id_of(look)}: {error}")
    return tuple(found), tuple(blind)
