"""`diagnose`, from the first read to the last diagnosis; nothing is changed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from kubectl_harvester_stuck.cluster import reader
from kubectl_harvester_stuck.diagnosis import controller_logs as told
from kubectl_harvester_stuck.diagnosis.diagnose import diagnose, owners_pods, reads
from kubectl_harvester_stuck.diagnosis.findings.base import LogExcerpt
from kubectl_harvester_stuck.diagnosis.model import Diagnosis
from kubectl_harvester_stuck.errors import StuckError, UnreadableError
from kubectl_harvester_stuck.harvester.target import Target
from kubectl_harvester_stuck.k8s.commands import Advice
from kubectl_harvester_stuck.k8s.objects import ObjectRef, Unreadable
from kubectl_harvester_stuck.k8s.source import PARALLEL_REQUESTS, Source
from kubectl_harvester_stuck.release import plan as planning
from kubectl_harvester_stuck.release import preflight
from kubectl_harvester_stuck.release.model import Failure, Plan, ReleaseRequest

UNASKED = "the guards permitted and webhooks-accept: only a live API server answers them"


@dataclass(frozen=True)
class DiagnosisReport:
    """Everything that one `diagnose` came to."""

    diagnoses: tuple[Diagnosis, ...]
    failures: tuple[Failure, ...]
    missing: tuple[Unreadable, ...]
    taken_at: datetime


def diagnose_all(
    source: Source,
    targets: Sequence[ObjectRef],
    request: ReleaseRequest,
    *,
    rights: preflight.Permissions | None,
    logs: bool,
) -> DiagnosisReport:
    """`diagnose`: why each target hangs. Sends reads, access reviews and dry runs only.

    `rights` are those at a live API server, None where there are only files: the guards that only
    an API server can answer are then left out, and the diagnosis says so. With `logs` the owners
    of the finalizers are listened to as well.
    """
    snapshot = reader.in_depth(source, targets, reads())
    targets_read = [Target(ref, snapshot) for ref in targets]
    heard = _listen(source, targets_read) if logs else {}

    def look(target: Target) -> Diagnosis | Failure:
        ref = target.ref
        words = tuple(
            LogExcerpt(pod, told.about(ref, said))
            if isinstance(said, str)
            else LogExcerpt(pod, why=str(said))
            for pod, said in heard.items()
        )
        try:
            if rights is None:
                found = diagnose(target, planning.build(target, request), words)
                return replace(found, blind=(*found.blind, UNASKED))
            return diagnose(target, preflight.plan(rights, target, request, dry_run=True), words)
        except StuckError as error:
            return Failure(ref, error)

    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        ends = list(pool.map(look, targets_read))
    return DiagnosisReport(
        tuple(end for end in ends if isinstance(end, Diagnosis)),
        tuple(end for end in ends if isinstance(end, Failure)),
        snapshot.gaps,
        snapshot.taken_at,
    )


def first_steps(source: Source, plans: Sequence[Plan]) -> dict[ObjectRef, Advice]:
    """What a diagnosis would do first about targets that were refused; nothing where it cannot say.

    The logs of the controllers are not read.
    """
    found: dict[ObjectRef, Advice] = {}
    with suppress(StuckError):
        around = reader.in_depth(source, [plan.ref for plan in plans], reads())
        for plan in plans:
            for step in diagnose(Target(plan.ref, around, plan.memory), plan).steps[:1]:
                found[plan.ref] = step
    return found


def _listen(source: Source, targets_read: Sequence[Target]) -> Mapping[ObjectRef, str | StuckError]:
    """The logs of the owners of all these finalizers, or why they could not be read."""
    pods: dict[ObjectRef, None] = {}
    for target in targets_read:
        with suppress(UnreadableError):  # the finding that needs them will say so
            pods.update(dict.fromkeys(pod.ref for pod in owners_pods(target)))

    def listen(pod: ObjectRef) -> str | StuckError:
        try:
            return source.log(pod)
        except StuckError as error:
            return error

    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        return dict(zip(pods, pool.map(listen, pods), strict=True))
