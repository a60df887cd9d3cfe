"""The objects of a history, and how those who are played read and write them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Protocol

from tests.support.resources import RESOURCES

Body = dict[str, Any]

MERGE = "application/merge-patch+json"
SYSTEM, LEASES = "harvester-system", "kube-node-lease"

CONTROLLER = "kubevirt.io/virtualMachineControllerFinalize"
FOREGROUND_VMI = "kubevirt.io/foregroundDeleteVirtualMachine"
FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"
STRANGER = "wrangler.cattle.io/harvester-lb-vmi-controller"
"""A finalizer that Harvester's load balancer puts on each VMI; it only looks at its own objects."""

VM, VMI, POD, NODE = "VirtualMachine", "VirtualMachineInstance", "Pod", "Node"
MIGRATION, PVC, DATA_VOLUME = (
    "VirtualMachineInstanceMigration",
    "PersistentVolumeClaim",
    "DataVolume",
)
RESTORE, BACKUP, SNAPSHOT = "VirtualMachineRestore", "VirtualMachineBackup", "VolumeSnapshot"
REVISION = "ControllerRevision"
"""virt-controller keeps the spec that a VM was started with in two of them, which the VM owns."""
OWNED = (VMI, POD, DATA_VOLUME, RESTORE, BACKUP, SNAPSHOT, PVC, REVISION)
DATA = (PVC, SNAPSHOT, BACKUP)

FINAL = ("Succeeded", "Failed")
GRACE_PADDING = 30
"""What KubeVirt adds to the grace period of the guest for that of its pod."""


class Api(Protocol):
    """What both API servers of the tests offer."""

    def request(self, method: str, path: str, body: object | None = None, *,
                content_type: str = "application/json", user: str = "admin"
                ) -> tuple[int, Body]: ...  # fmt: skip


@dataclass
class Cluster:
    """One namespace and its nodes."""

    api: Api
    namespace: str
    clock: Callable[[], datetime]
    """What the API server takes for the time."""
    passed: timedelta = timedelta()
    """How much time the history made pass beside that of the API server."""

    def now(self) -> datetime:
        """The time of the history."""
        return self.clock() + self.passed

    def text(self, moment: datetime) -> str:
        """A time of the history as it is written for the API server."""
        return text(moment - self.passed)

    def read_anew(self) -> None:
        """Trust nothing that was read before."""

    def path(self, kind: str, name: str | None = None, namespace: str | None = None) -> str:
        resource = RESOURCES[kind]
        return resource.path((namespace or self.namespace) if resource.namespaced else None, name)

    def get(self, kind: str, name: str, namespace: str | None = None) -> Body | None:
        status, answer = self.api.request("GET", self.path(kind, name, namespace))
        return answer if status == 200 else None

    def every(self, kind: str, namespace: str | None = None) -> list[Body]:
        status, answer = self.api.request("GET", self.path(kind, None, namespace))
        assert status == 200, answer
        known = {"apiVersion": RESOURCES[kind].api_version, "kind": kind}
        return [{**known, **item} for item in answer["items"]]

    def create(self, body: Body) -> Body | None:
        """The object with its status, or None where it cannot be made."""
        kind, meta = body["kind"], body["metadata"]
        path = self.path(kind, None, meta.get("namespace"))
        status, answer = self.api.request("POST", path, body)
        if status != 201:
            return None
        if "status" in body and RESOURCES[kind].status_subresource:
            self.patch(answer, {"status": body["status"]})
            return self.get(kind, answer["metadata"]["name"], meta.get("namespace"))
        return answer

    def patch(self, body: Body, change: Body) -> bool:
        """Merge `change` into an object and, apart from it, its status.

        Whether anything changed: nothing is sent that would not, and a rejection changes nothing.
        """
        kind, meta = body["kind"], body["metadata"]
        path = self.path(kind, meta["name"], meta.get("namespace"))
        changed = False
        for part, sub in ((_but_status(change), ""), (_only_status(change), "/status")):
            if not part or holds(body, part):
                continue
            if sub and not RESOURCES[kind].status_subresource:
                sub = ""
            status, _ = self.api.request("PATCH", path + sub, part, content_type=MERGE)
            changed |= status == 200
        return changed

    def delete(self, body: Body, **options: Any) -> bool:
        """Whether it was taken."""
        kind, meta = body["kind"], body["metadata"]
        options.setdefault("preconditions", {"uid": meta["uid"]})
        path = self.path(kind, meta["name"], meta.get("namespace"))
        return self.api.request("DELETE", path, options)[0] in (200, 202)

    def there(self, body: Body) -> Body | None:
        """The very object as it is now."""
        meta = body["metadata"]
        found = self.get(body["kind"], meta["name"], meta.get("namespace"))
        return found if found and found["metadata"]["uid"] == meta["uid"] else None

    def launchers(self) -> list[Body]:
        """The virt-launcher pods."""
        return [
            pod
            for pod in self.every(POD)
            if pod["metadata"].get("labels", {}).get("kubevirt.io") == "virt-launcher"
        ]

    def launchers_of(self, vmi: Body) -> list[Body]:
        """The virt-launcher pods that a VMI controls."""
        return [pod for pod in self.launchers() if controller(pod) == vmi["metadata"]["uid"]]


def _but_status(change: Body) -> Body:
    return {key: value for key, value in change.items() if key != "status"}


def _only_status(change: Body) -> Body:
    return {key: value for key, value in change.items() if key == "status"}


def holds(old: Any, change: Any) -> bool:
    """Whether an object is as `change` would make it. A server completes the items of lists."""
    if isinstance(change, Mapping) and isinstance(old, Mapping):
        return all(
            key not in old if value is None else key in old and holds(old[key], value)
            for key, value in change.items()
        )
    if isinstance(change, list) and isinstance(old, list):
        return len(old) == len(change) and all(map(holds, old, change))
    return bool(old == change)


def text(moment: datetime) -> str:
    """A time as the API server writes it."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def parsed(written: str) -> datetime:
    """The time that is written so."""
    return datetime.fromisoformat(written.replace("Z", "+00:00"))


def is_deleting(body: Body) -> bool:
    return "deletionTimestamp" in body["metadata"]


def controller(body: Body) -> str | None:
    """The uid of the owner that controls it."""
    for owner in body["metadata"].get("ownerReferences", ()):
        if owner.get("controller"):
            return str(owner["uid"])
    return None


def owned_by(owner: Body, *, controls: bool = True) -> Body:
    """The ownerReferences of a dependent."""
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "blockOwnerDeletion": True,
    }
    return {"ownerReferences": [{**reference, **({"controller": True} if controls else {})}]}


def phase(body: Body) -> str:
    return str(body.get("status", {}).get("phase", ""))


def with_condition(body: Body, condition: Body) -> list[Body]:
    """Its conditions with this one; those of other types belong to others."""
    kept = body.get("status", {}).get("conditions", ())
    return [*(one for one in kept if one["type"] != condition["type"]), condition]


def all_ended(pod: Body) -> bool:
    """Whether each container is said to have terminated."""
    states = pod.get("status", {}).get("containerStatuses") or []
    return bool(states) and all("terminated" in one["state"] for one in states)


# The objects


def virtual_machine(
    name: str,
    *,
    strategy: str,
    grace: int,
    hostname: str | None = None,
    disks: tuple[str, ...] = (),
    sidecar: bool = False,
) -> Body:
    """A VM as its user makes it. The annotation of the sidecar is that of KubeVirt's hook."""
    volumes = [
        {"name": f"disk-{number}", "persistentVolumeClaim": {"claimName": claim}}
        for number, claim in enumerate(disks)
    ]
    spec = {
        "domain": {"devices": {}, "resources": {"requests": {"memory": "64Mi"}}},
        "terminationGracePeriodSeconds": grace,
        **({"hostname": hostname} if hostname else {}),
        **({"volumes": volumes} if volumes else {}),
    }
    annotations = {"hooks.kubevirt.io/hookSidecars": "[]"} if sidecar else {}
    labels = {"harvesterhci.io/vmName": name}
    return {
        "apiVersion": RESOURCES[VM].api_version,
        "kind": VM,
        "metadata": {"name": name},
        "spec": {
            "runStrategy": strategy,
            "template": {"metadata": {"labels": labels, "annotations": annotations}, "spec": spec},
        },
    }


def instance(vm: Body, extra: tuple[str, ...]) -> Body:
    """The VMI that virt-controller makes for a VM, and virt-api's webhook completes."""
    template = vm["spec"]["template"]
    return {
        "apiVersion": RESOURCES[VMI].api_version,
        "kind": VMI,
        "metadata": {
            "name": vm["metadata"]["name"],
            "labels": template["metadata"].get("labels", {}),
            "annotations": template["metadata"].get("annotations", {}),
            "finalizers": [CONTROLLER, FOREGROUND_VMI, *extra],
            **owned_by(vm),
        },
        "spec": template["spec"],
        "status": {"phase": "Pending"},
    }


def launcher(vmi: Body, suffix: str, *, migration: str | None = None) -> Body:
    """The virt-launcher pod that virt-controller makes for a VMI."""
    meta, spec = vmi["metadata"], vmi["spec"]
    hostname = spec.get("hostname") or meta["name"].split(".")[0]
    names = ["compute"]
    if "hooks.kubevirt.io/hookSidecars" in meta.get("annotations", {}):
        names.append("hook-sidecar-0")
    labels = {
        **meta.get("labels", {}),
        "kubevirt.io": "virt-launcher",
        "kubevirt.io/created-by": meta["uid"],
        "vm.kubevirt.io/name": hostname,
        "vmi.kubevirt.io/id": meta["name"],
        **({"kubevirt.io/migrationJobUID": migration} if migration else {}),
    }
    return {
        "apiVersion": "v1",
        "kind": POD,
        "metadata": {
            "name": f"virt-launcher-{meta['name']}-{suffix}",
            "labels": labels,
            "annotations": {"kubevirt.io/domain": meta["name"]},
            **owned_by(vmi),
        },
        "spec": {
            "containers": [{"name": name, "image": "virt-launcher"} for name in names],
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": grace_of(vmi) + GRACE_PADDING,
        },
    }


def grace_of(vmi: Body) -> int:
    return int(vmi["spec"].get("terminationGracePeriodSeconds", 30))


def container_status(name: str, state: Body) -> Body:
    return {
        "name": name,
        "state": state,
        "ready": "running" in state,
        "restartCount": 0,
        "image": "virt-launcher",
        "imageID": "",
    }


def node(name: str) -> Body:
    """A Node, with a label: an API server keeps no record of what is made without any field."""
    labels = {"kubernetes.io/hostname": name}
    return {"apiVersion": "v1", "kind": NODE, "metadata": {"name": name, "labels": labels}}


def lease(name: str) -> Body:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"namespace": LEASES, "name": name},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": 40},
    }


def handler(name: str) -> Body:
    """The pod of virt-handler on a node."""
    return {
        "apiVersion": "v1",
        "kind": POD,
        "metadata": {
            "namespace": SYSTEM,
            "name": f"virt-handler-{name}",
            "labels": {"kubevirt.io": "virt-handler"},
        },
        "spec": {
            "nodeName": name,
            "containers": [{"name": "virt-handler", "image": "virt-handler"}],
        },
    }


def plain(kind: str, name: str, owner: Body | None = None, **more: Any) -> Body:
    """Any other object, owned by another."""
    owners = owned_by(owner) if owner else {}
    return {
        "apiVersion": RESOURCES[kind].api_version,
        "kind": kind,
        "metadata": {"name": name, **owners},
        **more,
    }


def claim(name: str, owner: Body | None = None) -> Body:
    """A PersistentVolumeClaim."""
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    return plain(PVC, name, owner, spec=spec)
