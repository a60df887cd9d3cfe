"""Whether what has to go is still there; targets of a namespace that wait at once ask together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from functools import partial

from kubectl_harvester_stuck.cluster.client import Cluster
from kubectl_harvester_stuck.cluster.shared_reads import SharedReads
from kubectl_harvester_stuck.errors import StuckError
from kubectl_harvester_stuck.k8s.kinds import POD, Kind
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef
from kubectl_harvester_stuck.k8s.source import ListQuery

TOGETHER = 10
"""So many targets in a namespace ask with one list, which costs less than a GET for each."""


class Presence:
    """Looks of one run; safe for several threads."""

    def __init__(self, cluster: Cluster, shared: SharedReads, targets: Iterable[ObjectRef]) -> None:
        self._cluster = cluster
        self._shared = shared
        self._targets = Counter(ref.namespace for ref in targets)

    def is_together(self, namespace: str) -> bool:
        """Whether those who wait in this namespace do well to ask at the same moments."""
        return self._targets[namespace] >= TOGETHER

    def is_there(self, ref: ObjectRef, uid: str) -> bool:
        """Whether this very object still exists; one of the same name is another one.

        Raises StuckError when that cannot be seen.
        """
        # A namespace may have far more pods than targets, and pods are not what is waited for long.
        if ref.kind is not POD and self.is_together(ref.namespace):
            key = (Presence, ref.kind, ref.namespace)
            # What the list cannot say, the object itself may.
            with suppress(StuckError):
                asked = self._shared.submit(key, partial(self._uids, ref.kind, ref.namespace))
                return uid in asked.result()
        body = self._cluster.get(ref, metadata_only=True)
        return body is not None and KubeObject.parse_as(ref, body).uid == uid

    def _uids(self, kind: Kind, namespace: str) -> frozenset[str]:
        query = ListQuery(kind, namespace, metadata_only=True)
        bodies = self._cluster.list_objects(query, lambda _: True)
        return frozenset(KubeObject.parse(kind, body).uid for body in bodies)
