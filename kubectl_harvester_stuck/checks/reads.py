"""What `check` reads of a cluster: what its checks declare."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from kubectl_harvester_stuck.checks import CHECKS
from kubectl_harvester_stuck.cluster.reader import Reader, everything
from kubectl_harvester_stuck.k8s.reads import lists, lists_found, named
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot
from kubectl_harvester_stuck.k8s.source import PARALLEL_REQUESTS, Source


def read(source: Source, namespaces: Sequence[str | None]) -> ClusterSnapshot:
    """Everything that the checks of a cluster depend on; its VMs in `namespaces` (None: in all).

    The number of requests depends on the namespaces alone. Raises UnreachableError when the API
    server is.
    """
    reads = [read for check in CHECKS for read in check.reads]
    reader = Reader(source, strict=True)
    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        # Every pod takes room on its node, whatever it runs.
        reader.read(pool, named(reads), lists(reads, namespaces), wanted=lambda _: everything)
        reader.read(pool, (), lists_found(reads, reader.snapshot()))
    return reader.snapshot()
