"""Sends one step and says what became of it, whatever the answer was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubectl_harvester_stuck.cluster import versions
from kubectl_harvester_stuck.cluster.client import Cluster
from kubectl_harvester_stuck.errors import ApiError
from kubectl_harvester_stuck.harvester import webhook_denials
from kubectl_harvester_stuck.release import look
from kubectl_harvester_stuck.release.look import Seen
from kubectl_harvester_stuck.release.model import Action, Step, StepReport, StepStatus


def request(cluster: Cluster, step: Step, *, dry_run: bool = False) -> Mapping[str, Any]:
    """Send the request of a step and return the answer; with `dry_run` nothing is changed.

    Raises ApiError with the server's words, UnreachableError when it may have happened.
    """
    change = cluster.delete_pod if step.action is Action.DELETE_POD else cluster.patch
    return change(step.ref, step.body, dry_run=dry_run)


def send(cluster: Cluster, step: Step) -> tuple[StepReport, Mapping[str, Any] | None]:
    """Send one step. Whatever happens is a report; with it the server's answer to a change.

    Without the answer of Kubernetes that it is done, the object is looked at first.
    """
    try:
        answer = request(cluster, step)
    except Exception as error:  # noqa: BLE001 - it may have been carried out, whatever went wrong
        return _looked_at(cluster, step, error), None
    return StepReport(step, StepStatus.DONE, changed=True), answer


def _looked_at(cluster: Cluster, step: Step, error: Exception) -> StepReport:
    """What the error means, with what is seen after it."""
    found = look.at(cluster, step)
    if isinstance(error, ApiError):
        if error.code == 404 and error.about == step.ref.name and found.seen is Seen.GONE:
            # By itself, or by the first of two requests that a proxy made of this one.
            return StepReport(step, StepStatus.ALREADY_GONE, changed=True)
        if error.is_final and found.seen is Seen.AS_BEFORE:
            if is_conflict(error):
                return StepReport(step, StepStatus.CONFLICT, False, error.message)
            return StepReport(step, StepStatus.DENIED, False, with_hint(cluster, error))
    return StepReport(step, StepStatus.UNKNOWN, True, f"{error}; {found.words}")


def is_conflict(error: ApiError) -> bool:
    """Whether Kubernetes says that the object is not the one that the step was made for."""
    is_about_it = error.code == 409 or (error.code == 422 and "metadata.uid" in error.message)
    # Admission may use the same statuses and words.
    return error.is_kubernetes and is_about_it and not error.is_from_admission


def with_hint(cluster: Cluster, error: ApiError) -> str:
    """What the API server said, and what helps where a webhook or a policy made it say so."""
    if not error.is_from_admission:
        return str(error)
    cure = webhook_denials.cure_of(error.message, versions.release_of(cluster))
    return f"{error}; {cure}"
