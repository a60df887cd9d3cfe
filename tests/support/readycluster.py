"""A small Harvester cluster that is ready for the next power failure, object by object.

Every check passes on it. The stories of tests/test_checks.py take something away; the behaviour
tests create it on both API servers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kubectl_harvester_stuck.checks.prometheus_rules import RULES
from kubectl_harvester_stuck.checks.themes.release_path import DEPLOYMENTS
from kubectl_harvester_stuck.k8s.kinds import (
    ADDON,
    API_SERVICE,
    DAEMON_SET,
    ENDPOINT_SLICE,
    HARVESTER_NAMESPACE,
    LONGHORN_BACKUP_TARGET,
    LONGHORN_NAMESPACE,
    LONGHORN_REPLICA,
    LONGHORN_VOLUME,
    MONITORING_NAMESPACE,
    SCHEDULE,
    SETTING,
    VALIDATING,
    Kind,
)
from tests.support import builders, fastyaml
from tests.support.builders import Body, bare

GIB = 1024**3
WEB_DISK = "pvc-web"
MONITORING = "rancher-monitoring"


def objects(
    *, namespace: str = "shop", nodes: tuple[str, ...] = ("n1", "n2", "n3"), backup: str
) -> list[Body]:
    """All of it; `backup` is the time of the VM's last backup."""
    return [
        *(node(name) for name in nodes),
        *guest(namespace, "web", nodes[0]),
        setting("vm-force-reset-policy", '{"enable":true,"period":15}'),
        setting("backup-target", '{"type":"nfs","endpoint":"nfs://store:/backups"}'),
        setting("server-version", "v1.7.1"),
        volume(namespace, "web-disk-0"),
        *(replica(number, name) for number, name in enumerate(nodes, start=1)),
        {
            **bare(LONGHORN_BACKUP_TARGET, LONGHORN_NAMESPACE, "default"),
            "spec": {"backupTargetURL": "nfs://store:/backups"},
            "status": {"available": True},
        },
        good_backup(namespace, "web-1", "web", backup),
        schedule(namespace, "web"),
        {
            **bare(ADDON, MONITORING_NAMESPACE, MONITORING),
            "spec": {"enabled": True, "chart": MONITORING},
            "status": {"status": "AddonDeploySuccessful"},
        },
        copy.deepcopy(RULES),
        *(builders.deployment(name) for name in DEPLOYMENTS),
        *(controller(name, on) for name in DEPLOYMENTS for on in nodes[:2]),
        virt_handler(len(nodes)),
        webhook(),
        *policies(),
        endpoints("virt-api"),
        api_service("v1.subresources.kubevirt.io", "True"),
    ]


def node(name: str, *, memory: str = "64Gi") -> Body:
    """A node that takes VMs."""
    body = builders.node(name, "True")
    body["metadata"]["labels"] = {"kubernetes.io/hostname": name}
    room = {"cpu": "16", "memory": memory, "pods": "200"}
    return {**body, "status": {**body["status"], "capacity": room, "allocatable": room}}


def guest(namespace: str, name: str, on: str, *, memory: str = "4Gi") -> list[Body]:
    """A VM that runs, with its VMI, its pod and its disk."""
    claim = f"{name}-disk-0"
    machine = builders.vm(
        namespace, name, spec=builders.with_disks(claim, terminationGracePeriodSeconds=120)
    )
    machine["metadata"]["uid"] = f"vm-{name}"
    conditions = [{"type": kind, "status": "True"} for kind in ("LiveMigratable", "AgentConnected")]
    instance = builders.vmi(
        namespace,
        name,
        on,
        owner=machine,
        spec={"evictionStrategy": "LiveMigrateIfPossible"},
        status={"conditions": conditions},
    )
    instance["metadata"]["uid"] = f"vmi-{name}"
    launcher = builders.pod(namespace, f"virt-launcher-{name}", on, instance)
    requests = {"cpu": "500m", "memory": memory}
    launcher["spec"]["containers"][0]["resources"] = {"requests": requests}
    return [machine, instance, launcher, builders.pvc(namespace, claim, volume=f"pvc-{name}"),
            builders.volume(f"pvc-{name}")]  # fmt: skip


def setting(name: str, value: str) -> Body:
    """A setting of Harvester."""
    return {"apiVersion": SETTING.api_version, "kind": SETTING.kind, "value": value,
            "metadata": {"name": name}}  # fmt: skip


def volume(namespace: str, claim: str, name: str = WEB_DISK) -> Body:
    """The Longhorn volume behind a claim."""
    return {
        **bare(LONGHORN_VOLUME, LONGHORN_NAMESPACE, name),
        "spec": {"numberOfReplicas": 3},
        "status": {
            "state": "attached",
            "robustness": "healthy",
            "kubernetesStatus": {"namespace": namespace, "pvcName": claim, "pvName": name},
        },
    }


def replica(number: int, on: str, *, failed: str = "", state: str = "running") -> Body:
    """One of its replicas."""
    return {
        **bare(LONGHORN_REPLICA, LONGHORN_NAMESPACE, f"{WEB_DISK}-r-{number}"),
        "spec": {"volumeName": WEB_DISK, "nodeID": on, "active": True, "failedAt": failed,
                 "healthyAt": "2026-11-01T00:00:00Z"},
        "status": {"currentState": state},
    }  # fmt: skip


def good_backup(namespace: str, name: str, of: str, made: str) -> Body:
    """A VirtualMachineBackup on the backup target."""
    body = builders.vm_backup(namespace, name, of, "backup")
    return {**body, "status": {"readyToUse": True, "creationTime": made}}


def schedule(namespace: str, of: str) -> Body:
    """A schedule that backs a VM up."""
    wanted = {"source": {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": of},
              "type": "backup"}  # fmt: skip
    spec = {"cron": "0 3 * * *", "retain": 7, "maxFailure": 4, "suspend": False, "vmbackup": wanted}
    return {**bare(SCHEDULE, namespace, f"daily-{of}"), "spec": spec}


def controller(name: str, on: str) -> Body:
    """A ready pod of a Deployment in Harvester's namespace."""
    body = builders.controller_pod(name)
    meta = {**body["metadata"], "name": f"{name}-6c5f7d9b8-{on}"}
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    return {**body, "metadata": meta, "spec": {**body["spec"], "nodeName": on}, "status": status}


def virt_handler(nodes: int) -> Body:
    """The DaemonSet of virt-handler."""
    labels = {"kubevirt.io": "virt-handler"}
    container = {"name": "virt-handler", "image": "virt-handler"}
    return {
        **bare(DAEMON_SET, HARVESTER_NAMESPACE, "virt-handler"),
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
        "status": {"currentNumberScheduled": nodes, "desiredNumberScheduled": nodes,
                   "numberMisscheduled": 0, "numberReady": nodes, "numberAvailable": nodes},
    }  # fmt: skip


def webhook(policy: str = "Fail", *, name: str = "virt-api-validator", **scope: Any) -> Body:
    """KubeVirt's webhook; `scope` can keep it away from other namespaces."""
    rule = {"apiGroups": ["kubevirt.io"], "apiVersions": ["v1"], "operations": ["UPDATE"],
            "resources": ["virtualmachines"]}  # fmt: skip
    service = {"namespace": HARVESTER_NAMESPACE, "name": "virt-api", "path": "/validate"}
    hook = {"name": "virtualmachine-validator.kubevirt.io", "failurePolicy": policy,
            "rules": [rule], "clientConfig": {"service": service}, "sideEffects": "None",
            "admissionReviewVersions": ["v1"], **scope}  # fmt: skip
    return {"apiVersion": VALIDATING.api_version, "kind": VALIDATING.kind,
            "metadata": {"name": name}, "webhooks": [hook]}  # fmt: skip


def policies() -> list[Body]:
    """What deploy/admission.yaml installs."""
    manifest = Path(__file__).parents[2] / "deploy" / "admission.yaml"
    return list(fastyaml.load_all(manifest.read_text()))


def endpoints(service: str, *, ready: bool = True) -> Body:
    """Where a Service leads to."""
    body = bare(ENDPOINT_SLICE, HARVESTER_NAMESPACE, f"{service}-abcde")
    body["metadata"]["labels"] = {"kubernetes.io/service-name": service}
    endpoint = {"addresses": ["10.52.0.7"], "conditions": {"ready": ready}}
    return {**body, "addressType": "IPv4", "endpoints": [endpoint], "ports": []}


def api_service(name: str, available: str) -> Body:
    """An API; without a Service behind it, so that nobody is asked whether it is there."""
    version, _, group = name.partition(".")
    said = {"type": "Available", "status": available, "reason": "Test", "message": "no endpoints"}
    return {
        "apiVersion": API_SERVICE.api_version,
        "kind": API_SERVICE.kind,
        "metadata": {"name": name},
        "spec": {"group": group, "version": version, "groupPriorityMinimum": 1000,
                 "versionPriority": 15},
        "status": {"conditions": [said]},
    }  # fmt: skip


Change = Callable[[Body], object]


def changed(bodies: list[Body], kind: Kind, change: Change, name: str | None = None) -> list[Body]:
    """The same cluster with `change` done to every object of that kind (and name)."""
    found = copy.deepcopy(bodies)
    hit = [
        body
        for body in found
        if (body["apiVersion"], body["kind"]) == (kind.api_version, kind.kind)
        and name in (None, body["metadata"]["name"])
    ]
    assert hit, f"no {kind.kind} {name} to change"
    for body in hit:
        change(body)
    return found


def without(bodies: list[Body], kind: Kind, name: str | None = None) -> list[Body]:
    """The same cluster without the objects of that kind (and name)."""
    left = [
        body
        for body in bodies
        if (body["apiVersion"], body["kind"]) != (kind.api_version, kind.kind)
        or name not in (None, body["metadata"]["name"])
    ]
    assert len(left) < len(bodies), f"no {kind.kind} {name} to leave out"
    return left


def put(value: Any, *path: str | int) -> Change:
    """A change: this value at that path."""

    def change(body: Any) -> None:
        for key in path[:-1]:
            body = body.setdefault(key, {}) if isinstance(body, dict) else body[key]
        body[path[-1]] = value

    return change


def selected(selection: Any, bodies: list[Body]) -> list[Mapping[str, Any]]:
    """The objects that a list would hold."""
    kind = selection.kind
    return [
        body
        for body in bodies
        if (body["apiVersion"], body["kind"]) == (kind.api_version, kind.kind)
        and selection.namespace in (None, body["metadata"].get("namespace"))
    ]
