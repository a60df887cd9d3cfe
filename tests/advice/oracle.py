"""Which VMs live, what they use, and what a command took from them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from tests.advice.server import FINAL, Body, Server, claims_of, grace_of


def harm(before: Server, after: Server, line: str) -> Iterator[str]:
    """What the line did that nobody may be told to do."""
    left = {body["metadata"]["uid"] for body in after.bodies}
    gone = [body for body in before.bodies if body["metadata"]["uid"] not in left]
    for body in gone:
        for vm in before.bodies:
            if lives(vm, before) and uses(vm, body, before):
                yield f"{_name(vm)} uses {_name(body)}"
        is_named = body["metadata"]["name"] in line.split()
        if not is_named and _holds_data(body, before):
            yield f"{_name(body)} goes with it"
        if body["kind"] == "VirtualMachine" and "deletionTimestamp" not in body["metadata"]:
            yield f"nobody has deleted {_name(body)}"
        if body["kind"] == "VirtualMachineBackup" and body["spec"]["type"] == "backup":
            yield f"{_name(body)} is a backup outside the cluster"
        if body["kind"] == "PersistentVolumeClaim":
            for backup in before.bodies:
                if backup["kind"] == "VirtualMachineBackup" and _is_kept_on(backup, body):
                    yield f"the snapshot {_name(backup)} lies on {_name(body)}"
    for vmi in after.killed:
        if not _guest_runs(vmi, before):
            continue
        if may_shut_down(vmi, before.now):
            yield f"{_name(vmi)} may still shut down by itself"
        name, namespace = vmi["metadata"]["name"], vmi["metadata"]["namespace"]
        its = before.find("VirtualMachine", name, namespace)
        if its is not None and lives(its, before) and _is_to_run(its):
            yield f"{_name(its)} is to run, and would not start again"
    asked = {
        body["metadata"]["uid"] for body in after.bodies if "deletionTimestamp" in body["metadata"]
    }
    for body in before.bodies:
        is_new = "deletionTimestamp" not in body["metadata"] and body["metadata"]["uid"] in asked
        if is_new and _guest_runs(body, before) and not _is_deleted_vm(body, before):
            yield f"nobody has deleted the VM of {_name(body)}"


def lives(body: Body, server: Server) -> bool:
    """A VM that nobody has deleted, or such a guest without a VM."""
    if "deletionTimestamp" in body["metadata"]:
        return False
    if body["kind"] == "VirtualMachine":
        return True
    if body["kind"] != "VirtualMachineInstance" or body["status"].get("phase") in FINAL:
        return False
    meta = body["metadata"]
    return server.find("VirtualMachine", meta["name"], meta["namespace"]) is None


def uses(vm: Body, body: Body, server: Server) -> bool:
    """Whether what lives needs the object."""
    mine, meta = vm["metadata"], body["metadata"]
    if body["kind"] in ("VolumeAttachment", "PersistentVolume"):
        return False
    if meta.get("namespace") != mine["namespace"]:
        return False
    name, kind = mine["name"], body["kind"]
    if kind == "PersistentVolumeClaim":
        return meta["name"] in claims_of(vm)
    if kind == "VirtualMachineBackup":
        return bool(body["spec"]["source"]["name"] == name)
    if kind == "VirtualMachineRestore":
        return bool(body["spec"]["target"]["name"] == name)
    if kind == "VirtualMachineNetworkConfig":
        return bool(meta["name"] == name)
    if kind == "LoadBalancer":
        cluster = mine.get("labels", {}).get("guestcluster.harvesterhci.io/name")
        theirs = meta.get("labels", {}).get("cloudprovider.harvesterhci.io/cluster")
        return cluster is not None and cluster == theirs
    if kind == "VirtualMachineInstanceMigration":
        return body["spec"]["vmiName"] == name and body["status"].get("phase") not in FINAL
    if kind == "Pod":
        owners = [one["name"] for one in meta.get("ownerReferences", ())]
        vmi = server.find("VirtualMachineInstance", name, mine["namespace"])
        is_ending = vmi is not None and "deletionTimestamp" in vmi["metadata"]
        return name in owners and _runs(body) and not (is_ending and not _is_to_run(vm))
    return False


def may_shut_down(vmi: Body, now: datetime) -> bool:
    """Whether nobody asked the guest to stop, or its grace period runs."""
    asked = vmi["metadata"].get("deletionTimestamp")
    if asked is None:
        return True
    return now - datetime.fromisoformat(asked.replace("Z", "+00:00")) < grace_of(vmi)


def _runs(pod: Body) -> bool:
    return any("running" in one["state"] for one in pod["status"]["containerStatuses"])


def _guest_runs(vmi: Body, server: Server) -> bool:
    uid = vmi["metadata"]["uid"]
    pods = [
        pod
        for pod in server.every("Pod", vmi["metadata"]["namespace"])
        if uid in [owner["uid"] for owner in pod["metadata"].get("ownerReferences", ())]
    ]
    return vmi["status"].get("phase") not in FINAL or any(map(_runs, pods))


def _is_to_run(vm: Body) -> bool:
    spec = vm["spec"]
    return bool(spec["running"]) if "running" in spec else spec.get("runStrategy") != "Halted"


def _is_deleted_vm(vmi: Body, server: Server) -> bool:
    meta = vmi["metadata"]
    vm = server.find("VirtualMachine", meta["name"], meta["namespace"])
    if vm is None or "deletionTimestamp" not in vm["metadata"]:
        return False
    return "orphan" not in vm["metadata"].get("finalizers", ())


def _holds_data(body: Body, server: Server) -> bool:
    """A disk, or a snapshot whose disk is there."""
    meta = body["metadata"]
    if body["kind"] != "VolumeSnapshot":
        return bool(body["kind"] == "PersistentVolumeClaim")
    source = body["spec"]["source"]["persistentVolumeClaimName"]
    return server.find("PersistentVolumeClaim", source, meta["namespace"]) is not None


def _is_kept_on(backup: Body, claim: Body) -> bool:
    meta = backup["metadata"]
    if backup["spec"]["type"] == "backup" or "deletionTimestamp" in meta:
        return False
    parts = backup.get("status", {}).get("volumeBackups", ())
    names = [part["persistentVolumeClaim"]["metadata"]["name"] for part in parts]
    there = (meta["namespace"], claim["metadata"]["name"])
    return there[0] == claim["metadata"]["namespace"] and there[1] in names


def _name(body: Body) -> str:
    return f"{body['kind']} {body['metadata'].get('namespace', '')}/{body['metadata']['name']}"
