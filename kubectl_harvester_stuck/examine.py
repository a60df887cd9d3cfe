"""`diagnose`, from the first read to the last diagnosis; nothing is changed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from kubectl_harvester_stuck import ask, read
from kubectl_harvester_stuck import plan as planning
from kubectl_harvester_stuck import words as told
from kubectl_harvester_stuck.case import Case
from kubectl_harvester_stuck.decisions import Diagnosis, Failure, Request
from kubectl_harvester_stuck.diagnose import diagnose, owners_pods
from kubectl_harvester_stuck.errors import StuckError, UnreadableError
from kubectl_harvester_stuck.findings.found import Words
from kubectl_harvester_stuck.model import Missing, Ref
from kubectl_harvester_stuck.snapshot import Scope
from kubectl_harvester_stuck.source import Source

AT_ONCE = 8
"""Targets that are looked at, or logs that are read, at the same time."""

UNASKED = "the guards permitted and webhooks-accept: only a live API server answers them"


@dataclass(frozen=True)
class Examination:
    """Everything that one `diagnose` came to."""

    diagnoses: tuple[Diagnosis, ...]
    failures: tuple[Failure, ...]
    missing: tuple[Missing, ...]
    taken_at: datetime


def examine(
    source: Source,
    targets: Sequence[Ref],
    request: Request,
    *,
    rights: ask.Rights | None,
    logs: bool,
) -> Examination:
    """`diagnose`: why each target hangs. Sends reads, access reviews and dry runs only.

    `rights` are those at a live API server, None where there are only files: the guards that only
    an API server can answer are then left out, and the diagnosis says so. With `logs` the owners
    of the finalizers are listened to as well.
    """
    snapshot = read.in_depth(source, targets)
    cases = [Case(ref, snapshot) for ref in targets]
    heard = _listen(source, cases) if logs else {}

    def look(case: Case) -> Diagnosis | Failure:
        ref = case.ref
        words = tuple(
            Words(pod.name, told.about(ref, said))
            if isinstance(said, str)
            else Words(pod.name, why=str(said))
            for pod, said in heard.items()
        )
        try:
            if rights is None:
                found = diagnose(case, planning.build(case, request), words)
                return replace(found, blind=(*found.blind, UNASKED))
            return diagnose(case, ask.plan(rights, case, request, dry_run=True), words)
        except StuckError as error:
            return Failure(ref, error)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        ends = list(pool.map(look, cases))
    return Examination(
        tuple(end for end in ends if isinstance(end, Diagnosis)),
        tuple(end for end in ends if isinstance(end, Failure)),
        tuple(gap(what, why) for what, why in snapshot.unreadable.items()),
        snapshot.taken_at,
    )


def _listen(source: Source, cases: Sequence[Case]) -> Mapping[Ref, str | StuckError]:
    """The logs of the owners of all these finalizers, or why they could not be read."""
    pods: dict[Ref, None] = {}
    for case in cases:
        with suppress(UnreadableError):  # the finding that needs them will say so
            pods.update(dict.fromkeys(pod.ref for pod in owners_pods(case)))

    def listen(pod: Ref) -> str | StuckError:
        try:
            return source.log(pod)
        except StuckError as error:
            return error

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(pods, pool.map(listen, pods), strict=True))


def gap(what: Scope | Ref, why: str) -> Missing:
    """What could not be read, as it is named to the operator."""
    if isinstance(what, Ref):
        return Missing(f"{what.kind.resource}/{what.name}", what.namespace, "Unreadable", why)
    kind, namespace = what
    return Missing(kind.resource, (namespace or None) if kind.namespaced else "", "Unreadable", why)
