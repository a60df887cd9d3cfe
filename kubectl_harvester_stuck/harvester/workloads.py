"""Where the controllers of KubeVirt and of Harvester run.

Harvester runs KubeVirt in its own namespace. Elsewhere the KubeVirt object says where: its
operator puts the controllers into the namespace of that object.
Source: KubeVirt pkg/virt-operator/resource/generate/components.
"""

from __future__ import annotations

from contextlib import suppress

from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.k8s.kinds import (
    DAEMON_SET,
    DEPLOYMENT,
    HARVESTER_NAMESPACE,
    KUBEVIRT,
    POD,
    Kind,
)
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef
from kubectl_harvester_stuck.k8s.reads import EVERYWHERE, Read, declared
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot

OF_KUBEVIRT = frozenset({"virt-api", "virt-controller", "virt-handler"})
"""The workloads that KubeVirt's operator makes; every other one is Harvester's."""

VIRT_HANDLER = "kubevirt.io=virt-handler"
"""The label of its pods."""

_KINDS = {"deploy": DEPLOYMENT, "ds": DAEMON_SET}


def elsewhere(snapshot: ClusterSnapshot) -> tuple[str, ...]:
    """The namespace of KubeVirt, unless it is Harvester's own. Raises UnreadableError."""
    places = {item.ref.namespace for item in snapshot.all(KUBEVIRT)}
    return () if HARVESTER_NAMESPACE in places else tuple(sorted(places))


def reads(*kinds: Kind, labels: str | None = None) -> tuple[Read, ...]:
    """Objects of these kinds, wherever the controllers run."""
    return declared(
        Read(KUBEVIRT, EVERYWHERE, metadata_only=True),
        *(Read(kind, place, labels=labels) for kind in kinds for place in _PLACES),
    )


_PLACES = (HARVESTER_NAMESPACE, elsewhere)

WORKLOADS = reads(DEPLOYMENT, DAEMON_SET)
"""The Deployments and DaemonSets themselves."""


def is_named(workload: str) -> bool:
    """Whether an entry of the catalogue names a workload that can be looked for."""
    return workload.partition("/")[0] in _KINDS


def namespace_of(name: str, snapshot: ClusterSnapshot) -> str:
    """Where the workload of this name runs: Harvester's namespace, unless it is known better."""
    if name in OF_KUBEVIRT:
        with suppress(UnreadableError):
            return next(iter(elsewhere(snapshot)), HARVESTER_NAMESPACE)
    return HARVESTER_NAMESPACE


def ref_of(workload: str, snapshot: ClusterSnapshot) -> ObjectRef:
    """The object of a workload such as `deploy/virt-controller`."""
    prefix, _, name = workload.partition("/")
    return ObjectRef(namespace_of(name, snapshot), name, _KINDS[prefix])


def find(workload: str, snapshot: ClusterSnapshot) -> KubeObject | None:
    """A workload such as `deploy/virt-controller`; None where there is none.

    Raises UnreadableError, also where it may be in another namespace that is not known.
    """
    ref = ref_of(workload, snapshot)
    there = (item for item in snapshot.all(ref.kind, ref.namespace) if item.ref == ref)
    found = next(there, None)
    if found is None and ref.name in OF_KUBEVIRT:
        snapshot.all(KUBEVIRT)
    return found


def pods(snapshot: ClusterSnapshot) -> tuple[KubeObject, ...]:
    """The pods in the namespaces of the controllers. Raises UnreadableError."""
    places = (HARVESTER_NAMESPACE, *_known_elsewhere(snapshot))
    return tuple(pod for place in places for pod in snapshot.all(POD, place))


def virt_handlers(snapshot: ClusterSnapshot) -> tuple[KubeObject, ...]:
    """KubeVirt's virt-handler pods. Raises UnreadableError, also where KubeVirt is not found."""
    place = namespace_of("virt-handler", snapshot)
    key, _, value = VIRT_HANDLER.partition("=")
    found = tuple(pod for pod in snapshot.all(POD, place) if pod.labels.get(key) == value)
    if not found:
        snapshot.all(KUBEVIRT)
    return found


def _known_elsewhere(snapshot: ClusterSnapshot) -> tuple[str, ...]:
    with suppress(UnreadableError):
        return elsewhere(snapshot)
    return ()
