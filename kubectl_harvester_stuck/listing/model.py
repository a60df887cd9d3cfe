"""The answer of `list`: one row for each object that is stuck."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from kubectl_harvester_stuck.harvester.target import State
from kubectl_harvester_stuck.k8s.objects import ObjectRef, Unreadable


@dataclass(frozen=True)
class StuckObject:
    """One row of `list`: what is stuck, how, and since when."""

    ref: ObjectRef
    uid: str
    resource_version: str
    state: State
    since: datetime
    """deletionTimestamp of the object whose deletion hangs."""
    finalizers: tuple[str, ...]
    node: str | None
    """Where the guest ran; None where it is not known."""


@dataclass(frozen=True)
class Listing:
    """The answer of `list`: complete only if nothing is missing."""

    targets: tuple[StuckObject, ...]
    missing: tuple[Unreadable, ...]
    taken_at: datetime
    is_blind: bool = False
    """Not one of the lists could be read."""
