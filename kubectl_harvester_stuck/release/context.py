"""What a release works with: the cluster, the operator, and where each change is recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from kubectl_harvester_stuck.cluster.client import Cluster
from kubectl_harvester_stuck.errors import StuckError
from kubectl_harvester_stuck.k8s.objects import KubeObject
from kubectl_harvester_stuck.release.change import Change, Who
from kubectl_harvester_stuck.release.interrupts import Interrupts
from kubectl_harvester_stuck.release.model import Plan
from kubectl_harvester_stuck.release.preflight import Permissions


class Clock(Protocol):
    """Time that passes here, for waiting only; ages are told by the API server's clock."""

    def monotonic(self) -> float:
        """Seconds since some moment; never runs backwards."""

    def sleep(self, seconds: float) -> None:
        """Wait so many seconds."""


class Confirmer(Protocol):
    """The person, or the flags that speak for them."""

    def confirm(self, plans: Sequence[Plan], digest: str) -> None:
        """Show the plans; return on a yes, raise RefusedError on everything else."""

    def progress(self, text: str) -> None:
        """Say what is being waited for."""

    def println(self, text: str) -> None:
        """Say what has just been done; it stays to be seen."""


class BackupStore(Protocol):
    """Where objects are saved before they are changed."""

    def save(
        self, plan: Plan, objects: Sequence[KubeObject], digest: str, not_saved: Sequence[str] = ()
    ) -> str:
        """Save and sync, with the names of what could not be read; returns the place.

        Raises BackupError.
        """


class Journal(Protocol):
    """Where each change is told, before and after it."""

    def begin(self, change: Change) -> None:
        """Write and sync the first line. Raises JournalError; nothing may be sent then."""

    def end(self, change: Change, outcome: str, answer: Mapping[str, Any] | None) -> None:
        """Write and sync the second line. Raises JournalError."""


@dataclass(frozen=True)
class Timeouts:
    """How long controllers get after a step, and how long to wait until all is gone."""

    settle: timedelta = timedelta(seconds=30)
    timeout: timedelta = timedelta(minutes=2)


@dataclass(frozen=True)
class ReleaseContext:
    """What a run works with."""

    cluster: Cluster
    rights: Permissions
    server: str
    operator: Confirmer
    archive: BackupStore
    journal: Journal
    clock: Clock
    interrupts: Interrupts
    waits: Timeouts = Timeouts()
    host: str = ""
    """This machine, which Events name as their reporter."""


def current_user(cluster: Cluster) -> Who:
    """This user, for the journal; not to know it stops nothing."""
    try:
        return Who(cluster.whoami())
    except StuckError as error:
        return Who(None, str(error))
