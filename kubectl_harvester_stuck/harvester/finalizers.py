"""What may be said of a finalizer of a VM or a VMI, and whether it may be removed.

What is known of each is in `finalizer_catalogue`, how its work is judged in `finalizer_judges`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.harvester.finalizer_catalogue import CATALOGUE, Finalizer
from kubectl_harvester_stuck.harvester.finalizer_judges import (
    DONE,
    OWNERLESS,
    PENDING,
    FinalizerState,
    instance_over,
)
from kubectl_harvester_stuck.harvester.target import Target
from kubectl_harvester_stuck.k8s.kinds import Kind
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef
from kubectl_harvester_stuck.k8s.reads import Read, declared

_BY_NAME = {(entry.name, kind): entry for entry in CATALOGUE for kind in entry.kinds}


@dataclass(frozen=True)
class FinalizerAssessment:
    """One finalizer of one object, as it will be when its turn in the plan comes."""

    name: str
    ref: ObjectRef
    owner: str
    state: FinalizerState
    reason: str
    leaves_behind: str
    catalogued: bool


def judge(name: str, subject: KubeObject, target: Target) -> FinalizerAssessment:
    """The state of one finalizer of `subject`, with its reason; never raises."""
    entry = find(name, subject.ref.kind)
    if entry is None:
        prefix = "a wrangler controller that is " if name.startswith("wrangler.cattle.io/") else ""
        return FinalizerAssessment(
            name=name,
            ref=subject.ref,
            owner="not known",
            state=FinalizerState.UNKNOWN,
            reason=f"{prefix}not in the catalogue",
            leaves_behind="not known",
            catalogued=False,
        )
    try:
        state, reason = entry.judge(subject, target)
    except UnreadableError as error:
        state, reason = FinalizerState.UNKNOWN, str(error)
    return FinalizerAssessment(
        name, subject.ref, entry.owner, state, reason, entry.leaves_behind, catalogued=True
    )


def find(name: str, kind: Kind) -> Finalizer | None:
    """The catalogue's entry for exactly this name on this kind."""
    return _BY_NAME.get((name, kind))


def waits_for_the_guest(judgment: FinalizerAssessment) -> bool:
    """Whether the finalizer may only go once the guest has ended."""
    entry = find(judgment.name, judgment.ref.kind)
    return entry is not None and entry.judge is instance_over


def reads(subjects: Iterable[KubeObject]) -> tuple[Read, ...]:
    """Everything that the judges of the finalizers of these objects look at."""
    found = (find(name, item.ref.kind) for item in subjects for name in item.finalizers)
    return declared(*(read for entry in found if entry for read in entry.reads))


def removable(
    judgment: FinalizerAssessment, asked: frozenset[str], left_behind: frozenset[str]
) -> bool:
    """Whether `unstick` may remove it.

    `asked` are the names given with `--finalizer`, `left_behind` those with `--leave-behind`.
    """
    if judgment.state in (DONE, OWNERLESS):
        return True
    if judgment.state is PENDING:
        return judgment.name in left_behind
    if judgment.state is FinalizerState.UNKNOWN:
        return not judgment.catalogued and judgment.name in asked
    return False


def why_kept(judgment: FinalizerAssessment) -> str:
    """One line: what stands against removing it."""
    text = f"{judgment.name}: {judgment.reason}"
    if not judgment.catalogued:
        return f"{text}; only --finalizer {judgment.name} removes it"
    return text


def left_behind(judgment: FinalizerAssessment) -> str:
    """One line for the operator: what removing this finalizer by hand left to be done."""
    return f"{judgment.ref}: {judgment.name}: {judgment.reason} ({judgment.leaves_behind})"
