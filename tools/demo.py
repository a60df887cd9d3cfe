"""The main job on a simulated cluster: a node lost its power, its VMs hang, they are released.

Run it with `make demo`. The program is the installed one, the kubeconfig is a real file, and where
kubectl is installed the commands go through it. The cluster is three nodes in this process; a
simulated virt-controller and garbage collector do what the real ones would once a pod is gone.
Each command has to end with the expected exit status, or the demo fails.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import yaml

from kubectl_harvester_stuck.k8s.kinds import VOLUME_ATTACHMENT
from tests.support import builders, readycluster
from tests.support.builders import CLEANUP_FINALIZER, LEGACY_FINALIZER, VM_FINALIZER, Body
from tests.support.simulator import GARBAGE_COLLECTOR, VIRT_CONTROLLER, Simulator, faults

CONTROLLERS = (VIRT_CONTROLLER, GARBAGE_COLLECTOR)
DOMAIN = {"devices": {}, "memory": {"guest": "4Gi"}}
DEAD, LIVE = "harvester-2", ("harvester-1", "harvester-3")


def populate(api: Simulator) -> None:
    """Three nodes, one of them without power for twenty minutes, and the VMs on them."""
    cluster = _Cluster(api)
    ago = cluster.ago
    for body in readycluster.objects(nodes=LIVE, backup=ago(hours=20)):
        api.seed(body)
    # The controllers have nothing to complain about.
    api.inject(faults.body(b"", "text/plain"), path="/log\\?", times=None)
    for name in LIVE:
        api.seed(builders.lease(name, ago(seconds=4)))
        api.seed(builders.virt_handler(name, ready=True))
    dead = readycluster.node(DEAD)
    dead["status"]["conditions"] = [{"type": "Ready", "status": "Unknown"}]
    dead["metadata"]["annotations"]["kubevirt.io/heartbeat"] = ago(minutes=20)
    api.seed(dead)
    api.seed(builders.lease(DEAD, ago(minutes=20)))
    api.seed(builders.virt_handler(DEAD, ready=False))

    for namespace, name, node in (("shop", "web-2", LIVE[0]), ("lab", "runner-1", LIVE[1])):
        machine = api.seed(builders.vm(namespace, name))
        instance = api.seed(builders.vmi(namespace, name, node, owner=machine))
        api.seed(builders.pod(namespace, f"virt-launcher-{name}-k2v8d", node, instance))

    # Deleted in the UI after the power cut, without its disk: VM, VMI and pod hang.
    cluster.on_dead_node("shop", "web-1", vm=True, vmi=True)
    # Somebody pressed Stop.
    cluster.on_dead_node("lab", "db-1", vm=False, vmi=True)
    # Nobody has touched it yet.
    cluster.on_dead_node("lab", "runner-2", vm=False, vmi=False)
    # No guest at all, only a finalizer that nobody has served since an upgrade.
    diskless = builders.with_disks(domain=DOMAIN)
    old = builders.vm("archive", "old-1", (VM_FINALIZER, LEGACY_FINALIZER), spec=diskless)
    api.seed(cluster.deleted(old, days=3))


@dataclass(frozen=True)
class _Cluster:
    """What is put into the cluster, by the cluster's own time."""

    api: Simulator

    def ago(self, **span: float) -> str:
        """A time before now, as the API server writes it."""
        return builders.time(self.api.clock.now() - timedelta(**span))

    def deleted(self, body: Body, *, grace: int = 0, **span: float) -> Body:
        """The object as it stands after somebody deleted it, that long ago."""
        meta = {**body["metadata"], "deletionTimestamp": self.ago(**span),
                "deletionGracePeriodSeconds": grace}  # fmt: skip
        return {**body, "metadata": meta}

    def on_dead_node(self, namespace: str, name: str, *, vm: bool, vmi: bool) -> None:
        """A VM with a disk whose node lost its power, then deleted as far as asked."""
        disk, volume = f"{name}-disk-0", f"pvc-{name}"
        self.api.seed(builders.pvc(namespace, disk, volume=volume))
        self.api.seed(builders.volume(volume))
        spec = {"attacher": "driver.longhorn.io", "nodeName": DEAD,
                "source": {"persistentVolumeName": volume}}  # fmt: skip
        self.api.seed(builders.bare(VOLUME_ATTACHMENT, "", f"csi-{name}", spec=spec))
        template = builders.with_disks(disk, domain=DOMAIN)
        machine = builders.vm(namespace, name, (VM_FINALIZER, CLEANUP_FINALIZER), spec=template)
        stored = self.api.seed(self.deleted(machine, minutes=9) if vm else machine)
        instance = builders.vmi(namespace, name, DEAD, owner=stored)
        owner = self.api.seed(self.deleted(instance, minutes=10) if vmi else instance)
        pod = builders.pod(namespace, f"virt-launcher-{name}-x7k2p", DEAD, owner)
        self.api.seed(self.deleted(pod, grace=30, minutes=13))


def environment(directory: Path, api: Simulator) -> dict[str, str]:
    """What leads the program to the cluster, and lets it keep its files in `directory`."""
    kubeconfig = directory / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(api.kubeconfig(namespace="shop", context="demo")))
    return {"KUBECONFIG": str(kubeconfig), "XDG_STATE_HOME": str(directory / "state")}


def play(directory: Path, api: Simulator) -> None:
    """Run the commands. Raises SystemExit when one of them does not end as it should."""
    environ = {**os.environ, **environment(directory, api)}
    off = f"--node-powered-off {DEAD}"
    for title, command, expected in (
        ("What is stuck, in every namespace?", "list -A", 0),
        (
            "Release web-1. Its guest may still run, so this is refused:",
            "unstick vm web-1 -n shop --yes",
            4,
        ),
        (
            f"Somebody checked at the rack: {DEAD} is off. The plan, validated by the server:",
            f"unstick vm web-1 -n shop {off} --dry-run=server",
            0,
        ),
        ("Release it:", f"unstick vm web-1 -n shop {off} --yes --settle=2s", 0),
        ("A VM that hangs in Stopping, and one that is neither stopped nor deleted:",
         f"unstick vm db-1 runner-2 -n lab {off} --yes --settle=2s", 0),
        ("An old one, held by a finalizer that no controller removes any more:",
         "unstick vm old-1 -n archive --yes --settle=1s", 0),
        ("Is anything left?", "list -A", 0),
    ):  # fmt: skip
        sys.stdout.write(f"\n# {title}\n$ kubectl harvester-stuck {command}\n")
        sys.stdout.flush()
        done = subprocess.run([*program(), *shlex.split(command)], env=environ, check=False)
        if done.returncode != expected:
            sys.exit(f"error: exit status {done.returncode} where {expected} was expected")
    for namespace, name in (("shop", "web-2"), ("lab", "runner-1")):
        if api.get(builders.vm(namespace, name)) is None:
            sys.exit(f"error: {name} was not stuck, and is gone")


def program() -> list[str]:
    """Through kubectl where it is installed, else the program itself."""
    if shutil.which("kubectl"):
        return ["kubectl", "harvester-stuck"]
    return ["kubectl-harvester_stuck"]


def main() -> None:
    """Start the cluster, play, and stop it."""
    with (
        tempfile.TemporaryDirectory() as directory,
        Simulator(controllers=CONTROLLERS) as api,
    ):
        populate(api)
        play(Path(directory), api)


if __name__ == "__main__":
    main()
