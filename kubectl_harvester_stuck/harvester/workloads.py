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
    """The namespaces of KubeVirt besides Harvester's own. Raises UnreadableError."""
    places = {item.ref.namespace for item in snapshot.all(KUBEVIRT)}
    return tuple(sorted(places - {HARVESTER_NAMESPACE}))


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


def ref_of(workload: str, snapshot: ClusterSnapshot) -> ObjectRef:
    """The object of a workload such as `deploy/virt-controller`, where it should be."""
    prefix, _, name = workload.partition("/")
    return ObjectRef(namespace_of(name, snapshot), name, _KINDS[prefix])


def find(workload: str, snapshot: ClusterSnapshot) -> KubeObject | None:
    """A workload such as `deploy/virt-controller`; None where there is none.

    Raises UnreadableError, also where it may be in another namespace that is not known.
    """
    prefix, _, name = workload.partition("/")
    for place in _places(name, snapshot):
        ref = ObjectRef(place, name, _KINDS[prefix])
        for item in snapshot.all(ref.kind, place):
            if item.ref == ref:
                return item
    if name in OF_KUBEVIRT:
        snapshot.all(KUBEVIRT)
    return None


def pods(snapshot: ClusterSnapshot) -> tuple[KubeObject, ...]:
    """The pods in the known namespaces of the controllers. Raises UnreadableError."""
    places = _places("virt-handler", snapshot)
    return tuple(pod for place in places for pod in snapshot.all(POD, place))


def virt_handlers(snapshot: ClusterSnapshot) -> tuple[KubeObject, ...]:
    """KubeVirt's virt-handler pods. Raises UnreadableError, also where KubeVirt is not known."""
    key, _, value = VIRT_HANDLER.partition("=")
    found = tuple(pod for pod in pods(snapshot) if pod.labels.get(key) == value)
    if not found:
        snapshot.all(KUBEVIRT)
    return found


def namespace_of(name: str, snapshot: ClusterSnapshot) -> str:
    """Where the workload of this name should run, as far as that is known."""
    return _places(name, snapshot)[0]


def _places(name: str, snapshot: ClusterSnapshot) -> tuple[str, ...]:
    """Where a workload of this name may run, the likeliest first."""
    others: tuple[str, ...] = ()
    if name in OF_KUBEVIRT:
        with suppress(UnreadableError):
            others = elsewhere(snapshot)
            if HARVESTER_NAMESPACE in {item.ref.namespace for item in snapshot.all(KUBEVIRT)}:
                return (HARVESTER_NAMESPACE, *others)
    return (*others, HARVESTER_NAMESPACE)
