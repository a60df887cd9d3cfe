"""What `check` reads of a cluster: everything that its checks depend on."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

from kubectl_harvester_stuck.checks import release_path
from kubectl_harvester_stuck.cluster.reader import Reader, everything
from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.harvester import settings
from kubectl_harvester_stuck.k8s.kinds import (
    ADDON,
    API_SERVICE,
    DAEMON_SET,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    HARVESTER_NAMESPACE,
    LONGHORN_BACKUP_TARGET,
    LONGHORN_NAMESPACE,
    LONGHORN_REPLICA,
    LONGHORN_VOLUME,
    MIGRATION,
    MONITORING_NAMESPACE,
    MUTATING,
    NAMESPACE,
    NODE,
    POD,
    PROMETHEUS_RULE,
    PV,
    PVC,
    SCHEDULE,
    UPGRADE,
    VALIDATING,
    VM,
    VM_BACKUP,
    VM_RESTORE,
    VMI,
)
from kubectl_harvester_stuck.k8s.objects import ObjectRef
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot, Scope
from kubectl_harvester_stuck.k8s.source import (
    PARALLEL_REQUESTS,
    ListQuery,
    Source,
    unknown_namespaces,
)

SETTINGS = (settings.FORCE_RESET, settings.BACKUP_TARGET, settings.SERVER_VERSION)


def read(source: Source, namespaces: Sequence[str | None]) -> ClusterSnapshot:
    """Everything that the checks of a cluster depend on; its VMs in `namespaces` (None: in all).

    The number of requests depends on the namespaces alone. Raises UnreachableError when the API
    server is, NotFoundError for a namespace that does not exist.
    """
    reader = Reader(source, strict=True)
    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        # Settings one by one: others among them hold certificates and credentials.
        refs = map(settings.ref, SETTINGS)
        # Every pod takes room on its node, whatever it runs.
        reader.read(pool, refs, _lists(namespaces), wanted=lambda _: everything)
        with suppress(UnreadableError):  # the check that needs them will meet the same gap
            spaces = release_path.webhook_namespaces(reader.snapshot())
            reader.read(pool, (), [ListQuery(ENDPOINT_SLICE, namespace) for namespace in spaces])
    snapshot = reader.snapshot()
    empty = [name for name in namespaces if name and _is_empty(snapshot, name)]
    gaps: dict[Scope | ObjectRef, str] = {ObjectRef("", name, NAMESPACE): str(why)
            for name, why in unknown_namespaces(source, empty).items()}  # fmt: skip
    return replace(snapshot, unreadable={**snapshot.unreadable, **gaps})


def _is_empty(snapshot: ClusterSnapshot, namespace: str) -> bool:
    return not any(snapshot.listed.get((kind, namespace), True) for kind in (VM, VMI, PVC))


def _lists(namespaces: Sequence[str | None]) -> list[ListQuery]:
    """What the checks read of the cluster, and of the namespaces of the VMs."""
    return [
        *(
            ListQuery(kind, namespace)
            for namespace in namespaces
            for kind in (VM, VMI, PVC, VM_BACKUP, SCHEDULE, MIGRATION, VM_RESTORE)
        ),
        *(ListQuery(kind) for kind in (NODE, POD, PV, API_SERVICE, VALIDATING, MUTATING)),
        *(
            ListQuery(kind, HARVESTER_NAMESPACE)
            for kind in (POD, DEPLOYMENT, DAEMON_SET, UPGRADE, VM)
            # Once, where its VMs are looked at as well.
            if kind is not VM or HARVESTER_NAMESPACE not in namespaces
        ),
        *(
            ListQuery(kind, LONGHORN_NAMESPACE)
            for kind in (LONGHORN_VOLUME, LONGHORN_REPLICA, LONGHORN_BACKUP_TARGET)
        ),
        ListQuery(ADDON, MONITORING_NAMESPACE),
        ListQuery(PROMETHEUS_RULE),
    ]
