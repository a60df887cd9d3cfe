"""Whether what has to go is still there; targets of a namespace that wait at once ask together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from kubectl_harvester_stuck.cluster.client import Cluster
from kubectl_harvester_stuck.cluster.shared_reads import SharedReads
from kubectl_harvester_stuck.errors import StuckError
from kubectl_harvester_stuck.k8s.kinds import POD
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef
from kubectl_harvester_stuck.k8s.source import ListQuery

TOGETHER = 10
"""So many targets in a namespace ask with one list, which costs less than a GET for each."""


class Goal(NamedTuple):
    """An object that has to go; another one of its name is none.

    `node` is where a pod was bound to, "" where that is not known. It never changes.
    """

    ref: ObjectRef
    uid: str
    node: str = ""


class Presence:
    """Looks of one run; safe for several threads."""

    def __init__(self, cluster: Cluster, shared: SharedReads, targets: Iterable[ObjectRef]) -> None:
        self._cluster = cluster
        self._shared = shared
        self._targets = Counter(ref.namespace for ref in targets)

    def is_together(self, namespace: str) -> bool:
        """Whether those who wait in this namespace do well to ask at the same moments."""
        return self._targets[namespace] >= TOGETHER

    def is_there(self, goal: Goal) -> bool:
        """Whether this very object still exists. Raises StuckError when that cannot be seen."""
        ref = goal.ref
        # A namespace may have far more pods than targets, and few of them on one node.
        if (ref.kind is not POD or goal.node) and self.is_together(ref.namespace):
            fields = f"spec.nodeName={goal.node}" if goal.node else None
            query = ListQuery(ref.kind, ref.namespace, fields=fields, metadata_only=True)
            # What the list cannot say, the object itself may.
            with suppress(StuckError):
                asked = self._shared.submit((Presence, query), partial(self._uids, query))
                return goal.uid in asked.result()
        body = self._cluster.get(ref, metadata_only=True)
        return body is not None and KubeObject.parse_as(ref, body).uid == goal.uid

    def _uids(self, query: ListQuery) -> frozenset[str]:
        bodies = self._cluster.list_objects(query, lambda _: True)
        return frozenset(KubeObject.parse(query.kind, body).uid for body in bodies)
