"""Why a target hangs: its findings, its chain, its events, and what they come to."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from kubectl_harvester_stuck.diagnosis import chain, findings
from kubectl_harvester_stuck.diagnosis.findings.base import FindingContext, LogExcerpt
from kubectl_harvester_stuck.diagnosis.model import Diagnosis, Finding, Verdict
from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.harvester import finalizers, leftovers, workloads
from kubectl_harvester_stuck.harvester.finalizer_judges import FinalizerState
from kubectl_harvester_stuck.harvester.finalizers import FinalizerAssessment
from kubectl_harvester_stuck.harvester.target import HANGING, State, Target
from kubectl_harvester_stuck.k8s.commands import Advice
from kubectl_harvester_stuck.k8s.durations import human
from kubectl_harvester_stuck.k8s.kinds import EVENT, POD, VM
from kubectl_harvester_stuck.k8s.objects import KubeObject, parse_time
from kubectl_harvester_stuck.k8s.reads import Read, declared
from kubectl_harvester_stuck.k8s.redaction import redact_text
from kubectl_harvester_stuck.release import guards
from kubectl_harvester_stuck.release.model import GUEST_STOPPED, GuardState, Plan

EVENTS = 8
"""How many events of a target are shown."""

EVENTS_READ = declared(*HANGING, EVENT)
LOGS_READ = workloads.reads(POD)


def reads() -> tuple[Read, ...]:
    """What a diagnosis looks at; what the finalizers of a target need comes on top of it."""
    situations = (read for situation in findings.FINDINGS for read in situation.reads)
    parts = (*chain.READS, *leftovers.READS, *EVENTS_READ, *LOGS_READ)
    return declared(*guards.reads(), *situations, *parts)


# What to do first: mend a cause, then wait, then release; refuse where nothing else is left.
_ORDER = (Verdict.REPAIR, Verdict.WAIT, Verdict.RELEASE, Verdict.REFUSE)


def diagnose(target: Target, plan: Plan, words: tuple[LogExcerpt, ...] = ()) -> Diagnosis:
    """The diagnosis of a target for which `unstick` would have `plan`.

    `words` are what the logs of its finalizers' owners say of it.
    """
    found, blind = findings.run(FindingContext(target, plan, words))
    advice, because = _advice(found, plan)
    events: tuple[str, ...] = ()
    try:
        events = events_of(target)
    except UnreadableError as error:
        blind = (*blind, f"events: {error}")
    return Diagnosis(
        plan=plan,
        advice=advice,
        because=because,
        findings=found,
        finalizers=_as_they_stand(target, plan),
        chain=chain.of(target),
        events=events,
        leftovers=_leftovers(target, plan),
        blind=blind,
    )


def _as_they_stand(target: Target, plan: Plan) -> tuple[FinalizerAssessment, ...]:
    """The finalizers now. A guest that may still run keeps those that wait for its end."""
    why = next((item.reason for item in plan.refusals if item.guard == GUEST_STOPPED), None)
    return tuple(
        replace(item, state=FinalizerState.PENDING, reason=f"the guest may still run: {why}")
        if why is not None
        and item.state is FinalizerState.DONE
        and finalizers.waits_for_the_guest(item)
        else item
        for item in _finalizers(target)
    )


def owners_pods(target: Target) -> tuple[KubeObject, ...]:
    """The pods of the workloads that own a finalizer of the target. Raises UnreadableError."""
    owners = {
        entry.workload
        for item in _finalizers(target)
        if (entry := finalizers.find(item.name, item.ref.kind)) is not None
    }
    return tuple(
        pod
        for pod in workloads.pods(target.snapshot)
        if any(_runs(pod, workload) for workload in owners)
    )


def _runs(pod: KubeObject, workload: str) -> bool:
    kind, _, name = workload.partition("/")
    if kind == "ds":
        return any(owner.kind == "DaemonSet" and owner.name == name for owner in pod.owners)
    # A Deployment's pods belong to a ReplicaSet: its name and a hash.
    return any(
        owner.kind == "ReplicaSet" and owner.name.rpartition("-")[0] == name for owner in pod.owners
    )


def _leftovers(target: Target, plan: Plan) -> tuple[Advice, ...]:
    """What the release of a deleted VM would leave; its pods and its VMI go with it."""
    obj = target.obj
    if obj is None or target.ref.kind is not VM or plan.state is not State.TERMINATING:
        return ()
    going = target
    with suppress(UnreadableError):
        going = target.without(*(pod.ref for pod in target.pods))
    return leftovers.of(going, obj)


def _finalizers(target: Target) -> tuple[FinalizerAssessment, ...]:
    """The finalizers of the target, and of its VMI where the target is the VM."""
    subjects = [target.obj]
    with suppress(UnreadableError):
        subjects += [target.vmi] if target.ref.kind is VM else []
    return tuple(
        finalizers.judge(name, subject, target)
        for subject in subjects
        if subject is not None
        for name in subject.finalizers
    )


def _advice(found: tuple[Finding, ...], plan: Plan) -> tuple[Verdict, str]:
    """What the findings come to. Without any, only a guard can still be the reason."""
    if plan.state is None and all(item.verdict is GuardState.REFUSE for item in plan.refusals):
        return Verdict.NONE, found[0].summary if found else "it is not stuck"
    young = any(item.guard == "past-grace" for item in plan.refusals)
    # What controllers and guest may still do by themselves is not mended before they had the time.
    for advice in (Verdict.WAIT, *_ORDER) if young else _ORDER:
        speaking = [item for item in found if item.advice is advice]
        if speaking:
            return advice, speaking[0].summary
    if plan.refusals:
        return Verdict.REFUSE, plan.refusals[0].reason
    return Verdict.RELEASE, "every guard passes"


def events_of(target: Target) -> tuple[str, ...]:
    """The newest events of the VM, the VMI and its pods, newest last. Raises UnreadableError."""
    subjects = {item.uid for item in (target.vm, target.vmi, *target.pods) if item is not None}
    ours = [
        (_when(event), event)
        for event in target.snapshot.all(EVENT, target.ref.namespace)
        if event.text("involvedObject", "uid") in subjects
    ]
    ours.sort(key=lambda pair: pair[0])
    return tuple(_line(target, when, event) for when, event in ours[-EVENTS:])


def _when(event: KubeObject) -> str:
    return (
        event.text("lastTimestamp")
        or event.text("eventTime")
        or event.text("metadata", "creationTimestamp")
    )


def _line(target: Target, when: str, event: KubeObject) -> str:
    try:
        age = human(target.snapshot.taken_at - parse_time(when))
    except ValueError:
        age = "?"
    about = f"{event.text('involvedObject', 'kind')} {event.text('involvedObject', 'name')}"
    said = redact_text(event.text("message"))
    return f"{age} {event.text('type')} {event.text('reason')} {about}: {said}"
