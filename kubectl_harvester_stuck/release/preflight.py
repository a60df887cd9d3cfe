"""The plan, with the API server's word on each of its steps: rights, and admission by dry run.

Nothing is asked about a plan that another guard refuses.
"""

from __future__ import annotations

import threading
from dataclasses import replace

from kubectl_harvester_stuck.cluster.client import Cluster
from kubectl_harvester_stuck.errors import ApiError
from kubectl_harvester_stuck.harvester.target import Target
from kubectl_harvester_stuck.k8s.kinds import Kind
from kubectl_harvester_stuck.release import plan as planning
from kubectl_harvester_stuck.release import send
from kubectl_harvester_stuck.release.guards import PreflightResults
from kubectl_harvester_stuck.release.model import Action, Plan, ReleaseRequest, Step


class Permissions:
    """What the API server says that this user may do; asked once for each namespace."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._granted: set[tuple[str, Kind, str]] = set()
        self._asking = threading.Lock()

    def why_not(self, step: Step) -> str | None:
        """None when this user may perform the step, otherwise the missing right."""
        verb = "delete" if step.action is Action.DELETE_POD else "patch"
        everywhere = (verb, step.ref.kind, step.ref.namespace)
        try:
            with self._asking:
                if everywhere in self._granted:
                    return None
                # A right to all objects of the namespace answers for the whole batch.
                if self.cluster.access_denial(verb, replace(step.ref, name="")) is None:
                    self._granted.add(everywhere)
                    return None
            return self.cluster.access_denial(verb, step.ref)
        except ApiError as error:
            return f"the API server would not say whether this user may {verb} {step.ref}: {error}"


def plan(
    rights: Permissions,
    target: Target,
    request: ReleaseRequest,
    *,
    dry_run: bool,
    shown: tuple[Step, ...] | None = None,
    ahead: int | None = None,
) -> Plan:
    """The plan; only if every other guard passes, the API server is asked about its steps.

    By a dry run of so many steps `ahead`, or of all of them.
    """
    made = planning.build(target, request, shown=shown)
    if made.refusals:
        return made
    permissions = {step.ref: rights.why_not(step) for step in made.steps}
    if not dry_run or any(answer is not None for answer in permissions.values()):
        return planning.with_preflight(made, PreflightResults(permissions))
    answers = {step.ref: _admission(rights.cluster, step) for step in made.steps[:ahead]}
    stale = frozenset(
        ref for ref, answer in answers.items() if answer is not None and send.is_conflict(answer)
    )
    admissions = {
        ref: None
        if answer is None or ref in stale
        else f"{ref}: {send.with_hint(rights.cluster, answer)}"
        for ref, answer in answers.items()
    }
    return planning.with_preflight(made, PreflightResults(permissions, admissions, stale, ahead))


def _admission(cluster: Cluster, step: Step) -> ApiError | None:
    """How the dry run of a step failed; None when it is accepted."""
    try:
        send.request(cluster, step, dry_run=True)
    except ApiError as error:
        return error
    return None
