"""What the targets of one run share: their reads, their waiting, and turns to look and act."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from kubectl_harvester_stuck.cluster.client import Cluster
from kubectl_harvester_stuck.cluster.shared_reads import SharedReads
from kubectl_harvester_stuck.k8s.objects import ObjectRef
from kubectl_harvester_stuck.k8s.source import PARALLEL_REQUESTS
from kubectl_harvester_stuck.release.presence import Presence


class Batch:
    """For the targets of a run; safe for several threads."""

    def __init__(self, cluster: Cluster, shared: SharedReads, targets: Iterable[ObjectRef]) -> None:
        self.shared = shared
        self.presence = Presence(cluster, shared, targets)
        self.turns = threading.BoundedSemaphore(PARALLEL_REQUESTS)
        """So many targets are between a look and the change that rests on it, at most."""


class Turn:
    """The turn of one target, from a look to the change that rests on it.

    Without turns all targets would look first, and their changes would queue behind the looks of
    the others until those have become old.
    """

    def __init__(self, turns: threading.BoundedSemaphore) -> None:
        self._turns = turns
        self._is_held = False

    def take(self) -> None:
        """Wait for it, unless it is held already."""
        if not self._is_held:
            self._turns.acquire()
            self._is_held = True

    def give(self) -> None:
        """Let the next one have it, if it is held."""
        if self._is_held:
            self._is_held = False
            self._turns.release()
