"""`check`, from the reads to the results; nothing is changed here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from kubectl_harvester_stuck import checks
from kubectl_harvester_stuck.checks import Checked, reads
from kubectl_harvester_stuck.checks.base import CheckContext, Result
from kubectl_harvester_stuck.errors import ExitStatus, gravest
from kubectl_harvester_stuck.k8s.objects import Unreadable
from kubectl_harvester_stuck.k8s.source import Source


@dataclass(frozen=True)
class Checkup:
    """Everything that one `check` came to."""

    results: tuple[Checked, ...]
    missing: tuple[Unreadable, ...]
    taken_at: datetime


def check(source: Source, namespaces: Sequence[str | None], *, backup_age: timedelta) -> Checkup:
    """Every check; the VMs are looked at in `namespaces` (None: in all).

    Raises NotFoundError for a namespace that does not exist.
    """
    snapshot = reads.read(source, namespaces)
    view = CheckContext(snapshot, tuple(name or "" for name in namespaces), backup_age)
    return Checkup(
        checks.run(view),
        snapshot.gaps,
        snapshot.taken_at,
    )


def status_of(done: Checkup, *, exit_code: bool) -> ExitStatus:
    """OK only if everything could be looked at, an error if nothing could, as with `list`."""
    results = {item.result for item in done.results}
    if results == {Result.UNKNOWN}:
        return ExitStatus.ERROR
    statuses = [ExitStatus.OK]
    if exit_code and Result.FAIL in results:
        statuses.append(ExitStatus.STUCK)
    if done.missing or Result.UNKNOWN in results:
        statuses.append(ExitStatus.INCOMPLETE)
    return gravest(*statuses)
