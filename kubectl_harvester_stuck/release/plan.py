"""From a target and the operator's request to the requests that would be sent, or the refusals.

The order is a decision and is made here: the dead pod first, because in nearly all cases the
controllers then do the rest; the VMI next, because it is the lock that keeps a second QEMU off
the disks; the VM last. Later objects are judged as they will be when the earlier ones are gone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from kubectl_harvester_stuck.errors import NotFoundError, UnreadableError
from kubectl_harvester_stuck.harvester import finalizers, places
from kubectl_harvester_stuck.harvester.finalizer_judges import FinalizerState
from kubectl_harvester_stuck.harvester.finalizers import FinalizerAssessment
from kubectl_harvester_stuck.harvester.target import State, Target, is_stopped
from kubectl_harvester_stuck.k8s.kinds import VM
from kubectl_harvester_stuck.k8s.objects import KubeObject
from kubectl_harvester_stuck.release import guards
from kubectl_harvester_stuck.release.guards import GuardContext, PreflightResults
from kubectl_harvester_stuck.release.model import (
    TERMINATING,
    UNCHANGED,
    Action,
    GuardResult,
    GuardState,
    Plan,
    ReleaseRequest,
    Step,
)


def build(
    target: Target,
    request: ReleaseRequest,
    *,
    shown: tuple[Step, ...] | None = None,
) -> Plan:
    """The plan for one target, from what was read alone: `with_preflight` adds the other guards.

    `shown` are the steps that the operator agreed to. Raises NotFoundError when the target does not
    exist, UnreadableError when the target itself could not be read.
    """
    obj = target.obj
    if obj is None:
        raise NotFoundError(f"{target.ref} was not found; list -A shows what is stuck, and where")
    try:
        state = target.state
    except UnreadableError as error:
        return _blind(target, obj, str(error))
    steps: tuple[Step, ...] = ()
    judgments: tuple[FinalizerAssessment, ...] = ()
    kept: tuple[FinalizerAssessment, ...] = ()
    why: tuple[str, ...] = ()
    hanging = target.stuck_object
    if state is not None and hanging is not None:
        try:
            steps, judgments, kept = _steps(target, state, request)
            why = tuple(map(finalizers.why_kept, kept))
        except UnreadableError as error:
            why = (str(error),)
    draft = GuardContext(target, request, steps, why, shown)
    results = guards.run(draft)
    if hanging is None:
        # The other guards would only speak of what is not going to be touched.
        results = tuple(result for result in results if result.guard == TERMINATING)
    return Plan(
        ref=target.ref,
        uid=obj.uid,
        resource_version=obj.resource_version,
        state=state,
        since=hanging.deletion_timestamp if hanging else None,
        node=target.node_name,
        steps=steps,
        guards=results,
        judgments=judgments,
        powered_off=tuple(sorted(request.powered_off)) if steps else (),
        memory=places.remember(target),
        could_be_left=_could_be_left(kept),
        silent_nodes=_silent_nodes(target, request) if state is not None else (),
        goes=draft.goes_and_stays.goes if hanging is not None else (),
        stays=draft.goes_and_stays.stays if hanging is not None else (),
    )


def with_preflight(plan: Plan, results: PreflightResults) -> Plan:
    """The plan with the answers of the guards that only the API server can give."""
    answers = guards.run_preflight(plan.steps, results)
    return replace(plan, guards=guards.in_order((*plan.guards, *answers)))


def _blind(target: Target, obj: KubeObject, why: str) -> Plan:
    """Not even how the target is stuck can be told."""
    blocked = GuardResult(TERMINATING, GuardState.UNKNOWN, why)
    return Plan(
        ref=target.ref,
        uid=obj.uid,
        resource_version=obj.resource_version,
        state=None,
        since=None,
        node=None,
        steps=(),
        guards=(blocked,),
        judgments=(),
    )


def _silent_nodes(target: Target, request: ReleaseRequest) -> tuple[str, ...]:
    with suppress(UnreadableError):
        return guards.could_be_powered_off(target, request)
    return ()


def _could_be_left(kept: Iterable[FinalizerAssessment]) -> tuple[FinalizerAssessment, ...]:
    """Those of the finalizers that stay, if the operator's word would do for all of them."""
    found = tuple(kept)
    return found if all(item.state is FinalizerState.PENDING for item in found) else ()


def digest(server: str, plans: Iterable[Plan]) -> str:
    """A fingerprint of what would be sent, and where to: 16 hexadecimal digits.

    It covers the API server, every step with its uid, resourceVersion and body, the nodes that
    are taken for powered off, and the disks and snapshots that are destroyed. Targets that are
    refused are no part of it.
    """
    content = [
        [
            [step.action.value, step.ref.kind.resource, step.ref.key, step.uid, step.body]
            for step in plan.steps
        ]
        + [list(plan.powered_off)]
        + ([sorted(str(fate.ref) for fate in plan.destroys)] if plan.destroys else [])
        for plan in sorted(plans, key=lambda plan: (plan.ref.key, plan.ref.kind.kind))
        if not plan.refusals
    ]
    text = json.dumps([server, content], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def destroyed_beyond(plan: Plan, agreed: Plan) -> GuardResult | None:
    """A refusal where `plan` destroys a disk or a snapshot that `agreed` did not show."""
    shown = {fate.ref for fate in agreed.destroys}
    for fate in plan.destroys:
        if fate.ref not in shown:
            why = f"{fate.ref} would be destroyed, which was not shown: {fate.why}"
            return GuardResult(UNCHANGED, GuardState.REFUSE, why)
    return None


def patch_of(subject: KubeObject, keeps: tuple[str, ...]) -> dict[str, object]:
    """The merge patch (RFC 7396): uid and resourceVersion as locks, and the list that remains."""
    return {
        "metadata": {
            "uid": subject.uid,
            "resourceVersion": subject.resource_version,
            "finalizers": list(keeps),
        }
    }


def _steps(
    target: Target, state: State, request: ReleaseRequest
) -> tuple[tuple[Step, ...], tuple[FinalizerAssessment, ...], tuple[FinalizerAssessment, ...]]:
    """Steps in their order, every finalizer judged, and the ones that have to stay."""
    pods = target.stuck_pods if state is State.NOT_READY else target.pods
    pods = (*pods, *_dead_attachments(target, request))
    steps = [_delete(pod) for pod in pods]
    judgments: list[FinalizerAssessment] = []
    kept: list[FinalizerAssessment] = []
    later = target.without(*(pod.ref for pod in pods))
    for subject in _to_patch(target, state):
        found = tuple(finalizers.judge(name, subject, later) for name in subject.finalizers)
        judgments += found
        chosen = [
            item for item in found if not request.finalizers or item.name in request.finalizers
        ]
        removes = tuple(
            item.name
            for item in chosen
            if finalizers.removable(item, request.finalizers, request.leave_behind)
        )
        kept += [item for item in chosen if item.name not in removes]
        keeps = tuple(name for name in subject.finalizers if name not in removes)
        if removes:
            steps.append(
                Step(
                    Action.PATCH,
                    subject.ref,
                    subject.uid,
                    subject.resource_version,
                    patch_of(subject, keeps),
                    removes,
                    keeps,
                )
            )
        if not keeps:
            later = later.without(subject.ref)
    return tuple(steps), tuple(judgments), tuple(kept)


def _dead_attachments(target: Target, request: ReleaseRequest) -> tuple[KubeObject, ...]:
    """Pods of hotplugged volumes that hang as well: they run no guest, but hold its disks."""
    return tuple(
        pod
        for pod in target.attachment_pods
        if pod.deletion_timestamp is not None
        and (is_stopped(pod) or pod.text("spec", "nodeName") in request.powered_off)
    )


def _to_patch(target: Target, state: State) -> tuple[KubeObject, ...]:
    """The objects whose finalizers stand in the way, in the order in which they have to go."""
    if state is State.NOT_READY:
        return ()
    vmi, vm = target.vmi, target.vm
    of_vm = target.ref.kind is VM and state is State.TERMINATING
    return tuple(item for item in (vmi, vm if of_vm else None) if item is not None)


def _delete(pod: KubeObject) -> Step:
    return Step(
        Action.DELETE_POD,
        pod.ref,
        pod.uid,
        pod.resource_version,
        {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "gracePeriodSeconds": 0,
            "preconditions": {"uid": pod.uid, "resourceVersion": pod.resource_version},
        },
    )
