"""`check`, from the reads to the results; nothing is changed here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from kubectl_harvester_stuck import checks
from kubectl_harvester_stuck.checks import Checked, reads
from kubectl_harvester_stuck.checks.base import CheckContext
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
