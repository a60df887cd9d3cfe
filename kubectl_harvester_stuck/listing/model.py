"""The answer of `list`: one row for each object that is stuck."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from kubectl_harvester_stuck.harvester.target import State
from kubectl_harvester_stuck.k8s.objects import ObjectRef, Unreadable


@dataclass(frozen=True)
class StuckObject:
    """One row of `list`: what is stuck, how, and since when."""

    ref: ObjectRef
    uid: str
    resource_version: str
    state: State
    since: datetime | None
    """The deletionTimestamp of the object whose deletion hangs. Where nothing is being deleted yet,
    since when it is stuck otherwise; None where that is not known."""
    finalizers: tuple[str, ...]
    node: str | None
    """Where the guest ran; None where it is not known."""
    reason: str = ""
    """Why nothing is being deleted yet, and what happens next; "" where something is."""

    @property
    def deletion_timestamp(self) -> datetime | None:
        """That of the object whose deletion hangs; None where nothing is being deleted yet."""
        return None if self.reason else self.since

    def age(self, now: datetime) -> timedelta | None:
        """How long it has been stuck by then; None where that is not known."""
        return None if self.since is None else max(now - self.since, timedelta(0))


@dataclass(frozen=True)
class Listing:
    """The answer of `list`: complete only if nothing is missing."""

    targets: tuple[StuckObject, ...]
    missing: tuple[Unreadable, ...]
    taken_at: datetime
    is_blind: bool = False
    """Not one of the lists could be read."""
    without_node: int = 0
    """How many rows were left out because a node was asked for and theirs is not known."""
    silent: Mapping[str, datetime | None] = field(default_factory=dict)
    """The nodes of these rows that do not answer, each with the time since when, if it is known."""

    @property
    def releasable(self) -> tuple[StuckObject, ...]:
        """Those of which something is being deleted, so that there is something to release."""
        return tuple(row for row in self.targets if not row.reason)
