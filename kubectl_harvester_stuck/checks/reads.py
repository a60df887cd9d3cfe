"""What `check` reads of a cluster: what its checks declare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kubectl_harvester_stuck.checks import CHECKS
from kubectl_harvester_stuck.cluster.reader import Reader
from kubectl_harvester_stuck.cluster.shared_reads import SharedReads
from kubectl_harvester_stuck.k8s.kinds import NAMESPACE, PVC, VM, VMI
from kubectl_harvester_stuck.k8s.objects import ObjectRef
from kubectl_harvester_stuck.k8s.reads import lists, lists_found, named
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot, Scope
from kubectl_harvester_stuck.k8s.source import Source, unknown_namespaces


def read(source: Source, namespaces: Sequence[str | None]) -> ClusterSnapshot:
    """Everything that the checks of a cluster depend on; its VMs in `namespaces` (None: in all).

    The number of requests depends on the namespaces alone. Raises UnreachableError when the API
    server is, NotFoundError for a namespace that does not exist.
    """
    reads = [read for check in CHECKS for read in check.reads]
    with SharedReads() as shared:
        reader = Reader(source, shared, strict=True)
        # Every pod takes room on its node, whatever it runs.
        reader.read(named(reads), lists(reads, namespaces), every_pod=True)
        reader.read((), lists_found(reads, reader.snapshot()))
    snapshot = reader.snapshot()
    empty = [name for name in namespaces if name and _is_empty(snapshot, name)]
    gaps: dict[Scope | ObjectRef, str] = {ObjectRef("", name, NAMESPACE): str(why)
            for name, why in unknown_namespaces(source, empty).items()}  # fmt: skip
    return replace(snapshot, unreadable={**snapshot.unreadable, **gaps})


def _is_empty(snapshot: ClusterSnapshot, namespace: str) -> bool:
    return not any(snapshot.listed.get((kind, namespace), True) for kind in (VM, VMI, PVC))
