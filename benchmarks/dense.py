"""Write a support bundle of very many VMs, one in a hundred of which hangs in its deletion.

    python -m benchmarks.dense --vms 9600 --namespaces 1 dense.zip

Each VM has a VMI, a pod, a disk with its PVC and PV, both VolumeAttachments, a Longhorn volume
and an event, with as many fields and `managedFields` as real ones: about 41 KB of YAML in all. One
set is made of either kind of VM and written with other names and uids for all the others.
"""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from examples import bundle
from kubectl_harvester_stuck.k8s.kinds import EVENT, LONGHORN_ATTACHMENT, LONGHORN_VOLUME
from tests.support import builders

Body = dict[str, Any]

ONE_IN = 100
"""How many VMs there are for each that hangs."""

SYSTEM = ("harvester-system", "longhorn-system", "kube-node-lease")
_NAME, _SPACE = "set-name-1", "set-space"
_UIDS = [f"0000000{number}-aaaa-4000-8000-00000000000{number}" for number in range(10)]
_DELETED = "2026-11-23T03:12:07Z"


def write(path: Path, vms: int, namespaces: int = 1) -> Path:
    """A bundle of this many VMs in namespaces `team-0` and so on; the VMs are `vm-0` and so on."""
    spaces = [f"team-{number}" for number in range(namespaces)]
    base = [
        *(builders.stored(builders.node(f"harvester-{number}", "True")) for number in range(4)),
        *(builders.stored(builders.lease(f"harvester-{number}", "2026-11-23T03:29:55.000000Z"))
          for number in range(4)),
        *(builders.stored({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
          for name in (*spaces, *SYSTEM)),
        builders.stored(builders.deployment("virt-controller")),
        builders.stored(builders.deployment("harvester-webhook")),
    ]  # fmt: skip
    bundle.write(path, base, collected=(*spaces, *SYSTEM))
    templates = {hangs: _templates(hangs=hangs) for hangs in (False, True)}
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for member in templates[False]:
            for number, space in enumerate(spaces) if _SPACE in member else [(None, "")]:
                which = range(vms) if number is None else range(number, vms, namespaces)
                name = f"{bundle.NAME}/yamls/{member.replace(_SPACE, space)}.yaml"
                with file.open(name, "w", force_zip64=True) as out:
                    out.write(b"apiVersion: v1\nitems:\n")
                    for one in which:
                        text = templates[one % ONE_IN == 0][member]
                        out.write(_renamed(text, one, spaces[one % namespaces]))
                    out.write(b"kind: List\n")
    return path


def _templates(*, hangs: bool) -> Mapping[str, str]:
    """The items of one VM, by their member of the bundle."""
    found: dict[str, str] = {}
    for body in _objects(hangs=hangs):
        namespace = body["metadata"].get("namespace")
        body["metadata"]["managedFields"] = [_managed(body)]
        ((_, data),) = (
            entry for entry in bundle._yamls([body], [namespace or "none"])
            if not entry[0].endswith("/configmaps")
        )  # fmt: skip
        scope = f"namespaced/{namespace}" if namespace else "cluster"
        plural = bundle._plural(body["kind"])
        text = data.decode().partition("items:\n")[2].removesuffix("kind: List\n")
        found[f"{scope}/{body['apiVersion']}/{plural}"] = text
    return found


def _renamed(text: str, number: int, space: str) -> bytes:
    text = text.replace(_NAME, f"vm-{number}").replace(_SPACE, space)
    text = text.replace("set-node", f"harvester-{number % 4}")
    return text.replace("-aaaa-", f"-{number:04x}-").encode()


def _managed(body: Body) -> Body:
    """Who wrote which field: all of them by one manager, as `managedFields` tells it."""

    def fields(value: Any) -> Body:
        inner = value if isinstance(value, dict) else {}
        return {f"f:{key}": fields(item) for key, item in inner.items()}

    rest = {key: item for key, item in body.items() if key not in ("apiVersion", "kind")}
    return {
        "apiVersion": body["apiVersion"],
        "fieldsType": "FieldsV1",
        "fieldsV1": fields(rest),
        "manager": "harvester",
        "operation": "Update",
        "time": "2026-06-02T08:11:40Z",
    }


def _objects(*, hangs: bool) -> Iterator[Body]:
    gone = _DELETED if hangs else None
    claim, volume = f"{_NAME}-disk-0", f"pvc-{_UIDS[3]}"
    vm = builders.stored(_uid(0, builders.vm(
        _SPACE, _NAME, (builders.VM_FINALIZER, builders.CLEANUP_FINALIZER),
        labels=_labels("vm"), annotations={
            "harvesterhci.io/vmRunStrategy": "RerunOnFailure",
            "harvesterhci.io/volumeClaimTemplates":
                f'[{{"metadata":{{"name":"{claim}"}},"spec":{{"resources":{{}}}}}}]',
            **_annotations("vm"),
        },
        spec={"runStrategy": "RerunOnFailure", "template": {
            "metadata": {"labels": _labels("template")}, "spec": _spec(claim)}},
        status={"conditions": _conditions(3), "created": True, "ready": not hangs,
                "volumeSnapshotStatuses": _statuses(4)},
    )), deleted=gone)  # fmt: skip
    yield vm
    vmi = builders.stored(_uid(1, builders.vmi(
        _SPACE, _NAME, "set-node", owner=vm, spec=_spec(claim),
        status={"activePods": {_UIDS[2]: "set-node"}, "conditions": _conditions(4),
                "interfaces": [{"mac": "52:54:00:11:a1:0c", "name": "default"}],
                "phaseTransitionTimestamps": _transitions(), "volumeStatus": _statuses(4)},
    )), deleted=gone)  # fmt: skip
    yield vmi
    pod = _uid(2, builders.pod(_SPACE, f"virt-launcher-{_NAME}-abcde", "set-node", vmi))
    pod["metadata"]["annotations"] = _annotations("pod")
    pod["spec"]["containers"] = [_container("compute"), _container("guest-console-log")]
    pod["spec"]["tolerations"] = _tolerations()
    pod["spec"]["volumes"] = [
        {"name": "disk-0", "persistentVolumeClaim": {"claimName": claim}},
        *({"emptyDir": {}, "name": f"empty-{number}"} for number in range(12)),
    ]
    pod["status"]["conditions"] = _conditions(5)
    yield builders.stored(pod, deleted=gone, grace=30)
    yield builders.stored(_uid(3, builders.pvc(
        _SPACE, claim, owner=vm, volume=volume, annotations=_annotations("pvc")
    )))  # fmt: skip
    pv = _uid(4, builders.volume(volume))
    pv["metadata"]["annotations"] = _annotations("pv")
    pv["spec"]["claimRef"] = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": claim,
                              "namespace": _SPACE, "uid": _UIDS[3]}  # fmt: skip
    yield builders.stored(pv)
    yield builders.stored(_uid(5, {
        "apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment",
        "metadata": {"name": f"csi-{_UIDS[5]}", "annotations": _annotations("attachment")},
        "spec": {"attacher": "driver.longhorn.io", "nodeName": "set-node",
                 "source": {"persistentVolumeName": volume}},
        "status": {"attached": True},
    }))  # fmt: skip
    yield builders.stored(_uid(6, builders.bare(
        LONGHORN_VOLUME, "longhorn-system", volume,
        spec={f"setting{number}": "ignored" for number in range(30)},
        status={"conditions": _conditions(4), "kubernetesStatus": {
            "namespace": _SPACE, "pvName": volume, "pvcName": claim,
            "workloadsStatus": [{"podName": f"virt-launcher-{_NAME}-abcde"}],
        }, "robustness": "healthy", "state": "attached"},
    )))  # fmt: skip
    yield builders.stored(_uid(7, builders.bare(
        LONGHORN_ATTACHMENT, "longhorn-system", volume,
        spec={"attachmentTickets": {f"csi-{_UIDS[5]}": {
            "id": f"csi-{_UIDS[5]}", "nodeID": "set-node", "type": "csi-attacher"}},
            "volume": volume},
        status={"attachmentTicketStatuses": {f"csi-{_UIDS[5]}": {"conditions": _conditions(1)}}},
    )))  # fmt: skip
    yield builders.stored(_uid(8, builders.bare(
        EVENT, _SPACE, f"{_NAME}.17ab", involvedObject={
            "kind": "VirtualMachineInstance", "name": _NAME, "namespace": _SPACE, "uid": _UIDS[1]},
        lastTimestamp=_DELETED, message="Signaled Graceful Shutdown", reason="ShuttingDown",
        type="Normal",
    )))  # fmt: skip


def _uid(number: int, body: Body) -> Body:
    body["metadata"] |= {"uid": _UIDS[number], "creationTimestamp": "2026-06-02T08:11:40Z"}
    return body


def _labels(of: str) -> Body:
    return {f"label.harvesterhci.io/of-{of}-{number}": "value" for number in range(6)} | {
        "harvesterhci.io/vmName": _NAME}  # fmt: skip


def _annotations(of: str) -> Body:
    return {f"annotation.harvesterhci.io/of-{of}-{number}": f"a value of {number} words"
            for number in range(10)}  # fmt: skip


def _conditions(many: int) -> list[Body]:
    return [{"lastProbeTime": None, "lastTransitionTime": "2026-06-02T08:12:01Z",
             "message": "as it should be", "reason": "Ready", "status": "True",
             "type": f"Condition{number}"} for number in range(many)]  # fmt: skip


def _statuses(many: int) -> list[Body]:
    return [{"enabled": False, "name": f"volume-{number}", "reason": "Snapshot is not supported"}
            for number in range(many)]  # fmt: skip


def _transitions() -> list[Body]:
    return [{"phase": phase, "phaseTransitionTimestamp": "2026-06-02T08:12:01Z"}
            for phase in ("Pending", "Scheduling", "Scheduled", "Running")]  # fmt: skip


def _tolerations() -> list[Body]:
    return [{"effect": "NoExecute", "key": f"node.kubernetes.io/key-{number}", "operator": "Exists",
             "tolerationSeconds": 300} for number in range(5)]  # fmt: skip


def _spec(claim: str) -> Body:
    devices = {
        "disks": [{"bootOrder": 1, "disk": {"bus": "virtio"}, "name": f"disk-{number}"}
                  for number in range(4)],
        "interfaces": [{"bridge": {}, "macAddress": "52:54:00:11:a1:0c", "model": "virtio",
                        "name": "default"}],
    }  # fmt: skip
    return {
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [
                {"key": "network.harvesterhci.io/mgmt", "operator": "In", "values": ["true"]}]}]}}},
        "domain": {"cpu": {"cores": 4, "sockets": 1, "threads": 1}, "devices": devices,
                   "features": {"acpi": {"enabled": True}}, "machine": {"type": "q35"},
                   "memory": {"guest": "8092Mi"},
                   "resources": {"limits": {"cpu": "4", "memory": "8Gi"},
                                 "requests": {"cpu": "250m", "memory": "5461Mi"}}},
        "evictionStrategy": "LiveMigrateIfPossible",
        "hostname": _NAME,
        "networks": [{"multus": {"networkName": "default/vlan1"}, "name": "default"}],
        "terminationGracePeriodSeconds": 120,
        "tolerations": _tolerations(),
        "volumes": [{"name": "disk-0", "persistentVolumeClaim": {"claimName": claim}}],
    }  # fmt: skip


def _container(name: str) -> Body:
    return {
        "command": ["/usr/bin/virt-launcher-monitor", "--qemu-timeout", "300s", "--name", _NAME,
                    "--uid", _UIDS[1], "--namespace", _SPACE, "--kubevirt-share-dir",
                    "/var/run/kubevirt", "--ephemeral-disk-dir", "/var/run/kubevirt-disks"],
        "env": [{"name": f"VARIABLE_{number}", "value": f"its value {number}"}
                for number in range(56)],
        "image": "registry.suse.com/suse/sles/15.6/virt-launcher:1.4.1-150600.5.18.1",
        "imagePullPolicy": "IfNotPresent", "name": name,
        "resources": {"limits": {"cpu": "4", "memory": "9093Mi"},
                      "requests": {"cpu": "250m", "memory": "6462Mi"}},
        "securityContext": {"capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]},
                            "privileged": False, "runAsUser": 107},
        "volumeMounts": [{"mountPath": f"/var/run/kubevirt/{number}", "name": f"empty-{number}"}
                         for number in range(12)],
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--vms", type=int, default=9_600)
    parser.add_argument("--namespaces", type=int, default=1)
    given = parser.parse_args()
    write(given.path, given.vms, given.namespaces)
