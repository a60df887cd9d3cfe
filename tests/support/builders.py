"""Objects of a Harvester cluster as the tests and the demo need them, in their API shape.

Each builder returns the object as it would be created; what the API server fills in (uid,
resourceVersion, deletionTimestamp) is added by the server that is used, or by `stored` where a
test needs no server.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from kubectl_harvester_stuck.diagnosis.findings.base import LogExcerpt
from kubectl_harvester_stuck.k8s import kinds
from kubectl_harvester_stuck.k8s.kinds import (
    HARVESTER_NAMESPACE,
    LEASE,
    LEASE_NAMESPACE,
    MIGRATION,
    POD,
    PV,
    PVC,
    VM,
    VM_BACKUP,
    VMI,
    Kind,
)
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef
from kubectl_harvester_stuck.k8s.reads import lists_found
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot
from tests.support import declared

Body = dict[str, Any]

NOW = datetime(2026, 11, 23, 3, 30, 0, tzinfo=timezone.utc)
"""The time in tests that need no server."""

VM_FINALIZER = "kubevirt.io/virtualMachineControllerFinalize"
VMI_FINALIZERS = (VM_FINALIZER, "kubevirt.io/foregroundDeleteVirtualMachine")
LEGACY_FINALIZER = "harvesterhci.io/VMController.UnsetOwnerOfPVCs"
ABANDONED_FINALIZER = "wrangler.cattle.io/VMController.UnsetOwnerOfDataVolumes"
CLEANUP_FINALIZER = "wrangler.cattle.io/VMController.CleanupPVCAndSnapshot"

_KINDS = [kind for kind in vars(kinds).values() if isinstance(kind, Kind)]
KINDS = {kind.kind: kind for kind in reversed(_KINDS)}
"""By name alone; of those of one name, the first."""

_counter = itertools.count(1)


def time(moment: datetime) -> str:
    """As the API server writes it."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def ago(**span: float) -> str:
    """A time before `NOW`."""
    return time(NOW - timedelta(**span))


def vm(
    namespace: str,
    name: str,
    finalizers: Iterable[str] = (VM_FINALIZER,),
    *,
    annotations: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    spec: Mapping[str, Any] | None = None,
    status: Mapping[str, Any] | None = None,
) -> Body:
    """A VirtualMachine."""
    return {
        "apiVersion": VM.api_version,
        "kind": VM.kind,
        "metadata": {
            "namespace": namespace,
            "name": name,
            "finalizers": list(finalizers),
            **({"annotations": dict(annotations)} if annotations else {}),
            **({"labels": dict(labels)} if labels else {}),
        },
        "spec": {
            "runStrategy": "RerunOnFailure",
            "template": {"spec": {"domain": {"devices": {}}}},
            **(spec or {}),
        },
        "status": {"printableStatus": "Running", **(status or {})},
    }


def vmi(
    namespace: str,
    name: str,
    node: str | None,
    finalizers: Iterable[str] = VMI_FINALIZERS,
    *,
    phase: str = "Running",
    owner: Mapping[str, Any] | None = None,
    status: Mapping[str, Any] | None = None,
    spec: Mapping[str, Any] | None = None,
) -> Body:
    """A VirtualMachineInstance on `node`, owned by the stored VM `owner`."""
    return {
        "apiVersion": VMI.api_version,
        "kind": VMI.kind,
        "metadata": {
            "namespace": namespace,
            "name": name,
            "finalizers": list(finalizers),
            "labels": {"harvesterhci.io/vmName": name},
            **_owned(owner),
        },
        "spec": {"domain": {"devices": {}}, **(spec or {})},
        "status": {"phase": phase, **({"nodeName": node} if node else {}), **(status or {})},
    }


def pod(
    namespace: str,
    name: str,
    node: str | None,
    owner: Mapping[str, Any],
    *,
    terminated: bool = False,
    phase: str = "Running",
) -> Body:
    """The virt-launcher pod of the stored VMI `owner`."""
    state: Body = {"terminated": {"exitCode": 0}} if terminated else {"running": {}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": namespace,
            "name": name,
            "labels": {
                "kubevirt.io": "virt-launcher",
                "kubevirt.io/created-by": owner["metadata"]["uid"],
                "vm.kubevirt.io/name": owner["metadata"]["name"],
                "harvesterhci.io/vmName": owner["metadata"]["name"],
            },
            **_owned(owner),
        },
        "spec": {
            "containers": [{"name": "compute", "image": "virt-launcher"}],
            "restartPolicy": "Never",
            **({"nodeName": node} if node else {}),
        },
        "status": {
            "phase": phase,
            "containerStatuses": [_status("compute", state)],
        },
    }


def attachment_pod(
    namespace: str, name: str, node: str, owner: Mapping[str, Any], of: Mapping[str, Any]
) -> Body:
    """The pod that holds a hotplugged volume for the stored virt-launcher pod `owner` of a VMI."""
    body = pod(namespace, name, node, owner)
    meta = {
        **body["metadata"],
        "labels": {"kubevirt.io": "hotplug-disk"},
        "annotations": {
            "kubevirt.io/owner-vmi-name": of["metadata"]["name"],
            "kubevirt.io/owner-vmi-uid": of["metadata"]["uid"],
        },
    }
    return {**body, "metadata": meta}


def _status(name: str, state: Body) -> Body:
    return {
        "name": name,
        "state": state,
        "ready": False,
        "restartCount": 0,
        "image": "virt-launcher",
        "imageID": "",
    }


def _owned(owner: Mapping[str, Any] | None) -> Body:
    if owner is None:
        return {}
    return {
        "ownerReferences": [
            {
                "apiVersion": owner["apiVersion"],
                "kind": owner["kind"],
                "name": owner["metadata"]["name"],
                "uid": owner["metadata"]["uid"],
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]
    }


def node(name: str, ready: str = "Unknown", *, heartbeat: str | None = None) -> Body:
    """A Node; `heartbeat` is virt-handler's annotation, `ready` the status of its condition."""
    annotations = {"kubevirt.io/heartbeat": heartbeat} if heartbeat else {}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "annotations": annotations},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }


def lease(name: str, renewed: str) -> Body:
    """The Lease of a node."""
    return {
        "apiVersion": LEASE.api_version,
        "kind": LEASE.kind,
        "metadata": {"namespace": LEASE_NAMESPACE, "name": name},
        "spec": {"holderIdentity": name, "renewTime": renewed.replace("Z", ".000000Z")},
    }


def virt_handler(on: str, *, ready: bool) -> Body:
    """KubeVirt's virt-handler on a node."""
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": HARVESTER_NAMESPACE,
            "name": f"virt-handler-{on}",
            "labels": {"kubevirt.io": "virt-handler"},
        },
        "spec": {"nodeName": on, "containers": [{"name": "virt-handler", "image": "virt-handler"}]},
        "status": {"phase": "Running", "conditions": [condition]},
    }


def deployment(name: str, available: int = 2) -> Body:
    """One of the controllers in Harvester's namespace."""
    labels = {"app": name}
    container = {"name": name, "image": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"namespace": HARVESTER_NAMESPACE, "name": name},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
        "status": {"replicas": 2, "availableReplicas": available, "readyReplicas": available},
    }


def controller_pod(name: str) -> Body:
    """A pod of one of those controllers, as a Deployment makes it."""
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"{name}-6c5f7d9b8",
             "uid": f"replicaset-{name}", "controller": True}  # fmt: skip
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": HARVESTER_NAMESPACE,
            "name": f"{name}-6c5f7d9b8-abcde",
            "ownerReferences": [owner],
        },
        "spec": {"containers": [{"name": name, "image": name}]},
        "status": {"phase": "Running"},
    }


def heard(pod: str, lines: tuple[str, ...] = (), why: str | None = None) -> LogExcerpt:
    """What the log of a controller's pod says."""
    return LogExcerpt(ObjectRef(HARVESTER_NAMESPACE, pod, POD), lines, why)


def migration(namespace: str, name: str, of: str, phase: str = "Running") -> Body:
    """A VirtualMachineInstanceMigration."""
    return {
        "apiVersion": MIGRATION.api_version,
        "kind": MIGRATION.kind,
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"vmiName": of},
        "status": {"phase": phase},
    }


def pvc(
    namespace: str,
    name: str,
    *,
    annotations: Mapping[str, str] | None = None,
    owner: Mapping[str, Any] | None = None,
    volume: str | None = None,
) -> Body:
    """A PersistentVolumeClaim, bound to the PersistentVolume `volume`."""
    return {
        "apiVersion": "v1",
        "kind": PVC.kind,
        "metadata": {
            "namespace": namespace,
            "name": name,
            "annotations": dict(annotations or {}),
            **_owned(owner),
        },
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "1Gi"}},
            **({"volumeName": volume} if volume else {}),
        },
    }


def volume(name: str, policy: str = "Delete") -> Body:
    """A PersistentVolume with this reclaim policy."""
    return {
        "apiVersion": "v1",
        "kind": PV.kind,
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "capacity": {"storage": "1Gi"},
            "csi": {"driver": "driver.longhorn.io", "volumeHandle": name},
            "persistentVolumeReclaimPolicy": policy,
        },
    }


def with_disks(*claims: str, **more: Any) -> Body:
    """The spec of a VM with these PVCs; `more` is for its template."""
    disks = [
        {"name": f"disk-{number}", "persistentVolumeClaim": {"claimName": claim}}
        for number, claim in enumerate(claims)
    ]
    volumes = [*disks, *more.pop("volumes", ())]
    return {"template": {"spec": {"domain": {"devices": {}}, **more, "volumes": volumes}}}


def vm_backup(
    namespace: str,
    name: str,
    of: str,
    kind: str = "snapshot",
    *,
    owner: Mapping[str, Any] | None = None,
) -> Body:
    """A VirtualMachineBackup of type `snapshot` or `backup`, owned by the stored VM `owner`."""
    return {
        "apiVersion": VM_BACKUP.api_version,
        "kind": VM_BACKUP.kind,
        "metadata": {"namespace": namespace, "name": name, **_owned(owner)},
        "spec": {"source": {"kind": VM.kind, "name": of}, "type": kind},
    }


def bare(kind: Kind, namespace: str, name: str, *, owner: Mapping[str, Any] | None = None,
         **more: Any) -> Body:  # fmt: skip
    """Any other object."""
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {"namespace": namespace, "name": name, **_owned(owner)},
        **more,
    }


def stored(body: Body, *, deleted: str | None = None, grace: int = 0) -> Body:
    """The object as an API server would give it back; `deleted` is its deletionTimestamp."""
    number = next(_counter)
    meta = {
        **body["metadata"],
        "uid": body["metadata"].get("uid", f"00000000-0000-4000-8000-{number:012}"),
        "resourceVersion": str(number),
        **({"deletionTimestamp": deleted, "deletionGracePeriodSeconds": grace} if deleted else {}),
    }
    return {**body, "metadata": meta}


def parsed(body: Body) -> KubeObject:
    """The object as decisions see it."""
    named = (body["apiVersion"], body["kind"])
    (kind,) = (kind for kind in _KINDS if (kind.api_version, kind.kind) == named)
    return KubeObject.parse(kind, body)


def snapshot(
    *bodies: Body, namespace: str = "shop", unreadable: Mapping[Kind, str] | None = None
) -> ClusterSnapshot:
    """Everything that a rule declares was read, apart from the kinds in `unreadable`.

    The targets are in `namespace`.
    """
    objects = [parsed(body) for body in bodies]
    blind = unreadable or {}
    listed: dict[tuple[Kind, str], tuple[KubeObject, ...]] = {}
    unread: dict[tuple[Kind, str] | ObjectRef, str] = {}

    def take(kind: Kind, scope: str) -> None:
        if kind in blind:
            unread[kind, scope] = blind[kind]
        else:
            listed[kind, scope] = tuple(
                item
                for item in objects
                if item.ref.kind is kind and scope in ("", item.ref.namespace)
            )

    for read in declared.everywhere():
        if not callable(read.where):
            for place in read.namespaces((namespace,)):
                take(read.kind, place or "")
    made = ClusterSnapshot(NOW, listed, {}, unread)
    for query in lists_found(declared.everywhere(), made):
        take(query.kind, query.namespace or "")
    return made
