"""How long a guest gets to shut down by itself, and whether that time is over."""

from __future__ import annotations

from datetime import timedelta

from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.harvester.target import FINAL_PHASES, Target, is_stopped
from kubectl_harvester_stuck.k8s.objects import KubeObject

DEFAULT = timedelta(seconds=30)
"""How long a guest gets to shut down when its VMI does not say (KubeVirt's default)."""

PADDING = timedelta(seconds=15)
"""How much longer than the guest its pod gets (kubevirt services/template.go)."""


def left(target: Target) -> tuple[timedelta, timedelta] | None:
    """How long ago the guest was asked to stop, and its grace period, while that runs.

    None once it is over, or where nobody asked. It counts from the deletion of the VMI, pod or no
    pod, and from that of a pod that has not ended. Raises UnreadableError.
    """
    vmi = target.vmi
    if vmi is None or vmi.text("status", "phase") in FINAL_PHASES:
        return None
    asked = vmi.deletion_requested
    # A pod that is still there was told when it was deleted, which can be later.
    times = [asked, *(pod.deletion_requested for pod in target.pods if not is_stopped(pod))]
    asked = max(filter(None, times), default=None)
    if asked is None:
        return None
    waited, grace = target.snapshot.taken_at - asked, of(vmi)
    return (waited, grace) if waited < grace else None


def of(vmi: KubeObject | None) -> timedelta:
    """The grace period of a guest. Raises UnreadableError."""
    if vmi is None:
        return DEFAULT
    seconds = vmi.mapping("spec").get("terminationGracePeriodSeconds")
    if seconds is None:
        return DEFAULT
    if not isinstance(seconds, int) or isinstance(seconds, bool) or not 0 <= seconds <= 10**9:
        raise UnreadableError(str(vmi.ref), f"its grace period is {seconds!r}")
    return timedelta(seconds=seconds)
