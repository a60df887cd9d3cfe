"""A cluster from a number: always the same."""

from __future__ import annotations

import json
import random
from datetime import timedelta
from typing import Any

from kubectl_harvester_stuck.k8s.kinds import (
    API_SERVICE,
    DAEMON_SET,
    DATA_VOLUME,
    DEPLOYMENT,
    HARVESTER_NAMESPACE,
    LEASE,
    LOAD_BALANCER,
    MIGRATION,
    NETWORK_CONFIG,
    NODE,
    POD,
    PV,
    PVC,
    SETTING,
    UPGRADE,
    VM_BACKUP,
    VM_IMAGE,
    VM_RESTORE,
    VOLUME_ATTACHMENT,
    VOLUME_SNAPSHOT,
    Kind,
)
from tests.support import builders
from tests.support.builders import NOW, Body, bare, stored, time

VMS = ("web", "db")
CLAIMS = ("disk-0", "disk-1", "shared")
STRATEGIES = ("Always", "RerunOnFailure", "Halted", "Once", "Manual")
VM_NAMES = (
    builders.VM_FINALIZER,
    builders.CLEANUP_FINALIZER,
    "foregroundDeletion",
    "wrangler.cattle.io/harvester-lb-vm-controller",
    "orphan",
)
VMI_NAMES = (
    *builders.VMI_FINALIZERS,
    "wrangler.cattle.io/VMController.BackfillObservedNetworkMacAddress",
    "wrangler.cattle.io/virtual-machine-deletion",
)


class Inventor:
    """One cluster in the making."""

    def __init__(self, number: int) -> None:
        self.chance = random.Random(number)
        self.bodies: list[Body] = []
        self.machines: dict[str, Body] = {}

    def often(self, share: float) -> bool:
        return self.chance.random() < share

    def add(self, body: Body, *, deleted: float = 0.0, **more: Any) -> Body:
        """Store it; with the chance `deleted` it is being deleted, since a while."""
        when = None
        if self.often(deleted):
            seconds = self.chance.choice((2, 20, 60, 200, 1000, 7200))
            when = time(NOW - timedelta(seconds=seconds))
        found = stored(body, deleted=when, **more)
        self.bodies.append(found)
        return found

    def some(self, names: tuple[str, ...], share: float = 0.5) -> list[str]:
        return [name for name in names if self.often(share)]

    def cluster(self) -> list[Body]:
        self._system()
        for name in VMS:
            self._machine(name)
        self._disks()
        self._rest()
        return self.bodies

    def _system(self) -> None:
        for name in ("n1", "n2"):
            alive = self.often(0.6)
            seen = time(NOW - timedelta(seconds=20 if alive else 1200))
            node = builders.node(name, "True" if alive else "Unknown", heartbeat=seen)
            node["spec"] = {"unschedulable": True} if self.often(0.2) else {}
            if self.often(0.1):
                node["metadata"]["annotations"]["harvesterhci.io/maintain-status"] = "completed"
            self.add(node)
            self.add(builders.lease(name, seen))
            self.add(builders.virt_handler(name, ready=alive))
        for name in ("virt-api", "virt-controller", "harvester", "harvester-webhook",
                     "harvester-load-balancer"):  # fmt: skip
            if self.often(0.9):
                self.add(builders.deployment(name, self.chance.choice((2, 2, 2, 0))))
        if self.often(0.5):
            name = "harvester-pcidevices-controller"
            status = {"numberAvailable": self.chance.choice((0, 2))}
            self.add(bare(DAEMON_SET, HARVESTER_NAMESPACE, name, status=status))
        if self.often(0.5):
            value = json.dumps({"enable": self.often(0.5)})
            body = bare(SETTING, "", "vm-force-reset-policy", value=value)
            del body["metadata"]["namespace"]
            self.add(body)
        if self.often(0.2):
            self.add(bare(UPGRADE, HARVESTER_NAMESPACE, "hvst-upgrade"))
        if self.often(0.3):
            conditions = [{"type": "Available", "status": "False", "message": "gone"}]
            body = bare(API_SERVICE, "", "v1.subresources.kubevirt.io",
                        status={"conditions": conditions})  # fmt: skip
            del body["metadata"]["namespace"]
            self.add(body)

    def _machine(self, name: str) -> None:
        notes, labels = {}, {}
        if self.often(0.5):
            picked = self.some(CLAIMS)
            notes["harvesterhci.io/removedPersistentVolumeClaims"] = ",".join(picked)
        if self.often(0.3):
            templates = [{"metadata": {"name": one}} for one in self.some(CLAIMS)]
            notes["harvesterhci.io/volumeClaimTemplates"] = (
                "{" if self.often(0.3) else json.dumps(templates)
            )
        if self.often(0.3):
            labels = {"guestcluster.harvesterhci.io/name": self.chance.choice(("gc1", "gc2")),
                      "harvesterhci.io/creator": "docker-machine-driver-harvester"}  # fmt: skip
            if self.often(0.5):
                notes["harvesterhci.io/removeAllPersistentVolumeClaims"] = "true"
        if self.often(0.2):
            notes["harvesterhci.io/mac-address"] = '{"nic":"52:54:00:00:00:01"}'
        spec = builders.with_disks(*self.some(CLAIMS))
        if self.often(0.2):
            spec |= {"runStrategy": None, "running": self.often(0.5)}
            del spec["runStrategy"]
        body = builders.vm("shop", name, self.some(VM_NAMES), annotations=notes, labels=labels,
                           spec=spec)  # fmt: skip
        if "running" in body["spec"]:
            del body["spec"]["runStrategy"]
        else:
            body["spec"]["runStrategy"] = self.chance.choice(STRATEGIES)
        vm = self.add(body, deleted=0.5) if self.often(0.85) else None
        if vm is not None:
            self.machines[name] = vm
        if self.often(0.75):
            self._guest(name, vm, spec)

    def _guest(self, name: str, vm: Body | None, spec: Body) -> None:
        grace = self.chance.choice((None, 0, 30, 120, 3600))
        more = {} if grace is None else {"terminationGracePeriodSeconds": grace}
        volumes = {"volumes": spec["template"]["spec"]["volumes"]}
        phase = self.chance.choice(("Running",) * 5 + ("Scheduling", "Failed", "Succeeded"))
        node = self.chance.choice(("n1", "n2"))
        status: Body = {}
        if self.often(0.15):
            status["evacuationNodeName"] = node
        if self.often(0.1):
            status["conditions"] = [
                {"type": "Paused", "status": "True", "reason": "PausedIOError", "message": "x"}
            ]
        body = builders.vmi("shop", name, node, self.some(VMI_NAMES, 0.7), phase=phase, owner=vm,
                            status=status, spec={**volumes, **more})  # fmt: skip
        vmi = self.add(body, deleted=0.6)
        for number in range(self.chance.choice((0, 1, 1, 1, 2))):
            where = self.chance.choice((node, "n1", "n2"))
            pod = builders.pod("shop", f"virt-launcher-{name}-{number}", where, vmi,
                               terminated=self.often(0.4))  # fmt: skip
            self.add(pod, deleted=0.6, grace=30)
        if self.often(0.3):
            phase = self.chance.choice(("Running", "Running", "Failed", "Succeeded"))
            self.add(builders.migration("shop", f"move-{name}", name, phase), deleted=0.3)

    def _disks(self) -> None:
        for name in CLAIMS:
            if self.often(0.15):
                continue
            owner = self.chance.choice((None, None, *self.machines.values()))
            if owner is None and self.often(0.3):
                target = self.chance.choice(VMS)
                conditions = [{"type": "InProgress", "status": str(self.often(0.3))}]
                spec = {"target": {"name": target}, "virtualMachineBackupName": "nightly"}
                vm = self.machines.get(target) if self.often(0.5) else None
                owner = self.add(bare(VM_RESTORE, "shop", f"undo-{name}", owner=vm, spec=spec,
                                      status={"conditions": conditions}), deleted=0.2)  # fmt: skip
            elif owner is not None and self.often(0.3):
                owner = self.add(bare(DATA_VOLUME, "shop", name, owner=owner))
            notes = {}
            if self.often(0.1):
                notes["harvesterhci.io/goldenImage"] = "true"
                self.add(bare(VM_IMAGE, "shop", name, spec={}))
            if self.often(0.1):
                notes["harvesterhci.io/owned-by"] = json.dumps([{"refs": ["shop/web"]}])
            if self.often(0.1):
                export = {"sourceType": "export-from-volume", "pvcNamespace": "shop"}
                self.add(bare(VM_IMAGE, "default", f"image-{name}",
                              spec={**export, "pvcName": name}))  # fmt: skip
            claim = builders.pvc("shop", name, annotations=notes, owner=owner, volume=f"pv-{name}")
            self.add(claim, deleted=0.15)
            volume = builders.volume(f"pv-{name}", self.chance.choice(("Delete", "Retain")))
            volume["spec"]["claimRef"] = {"namespace": "shop", "name": name}
            self.add(volume)
            if self.often(0.4):
                spec = {"nodeName": self.chance.choice(("n1", "n2")),
                        "source": {"persistentVolumeName": f"pv-{name}"}}  # fmt: skip
                body = bare(VOLUME_ATTACHMENT, "", f"csi-{name}", spec=spec)
                del body["metadata"]["namespace"]
                self.add(body)

    def _rest(self) -> None:
        for number in range(self.chance.choice((0, 1, 1, 2))):
            source, name = self.chance.choice(VMS), "nightly" if not number else "weekly"
            vm = self.machines.get(source) if self.often(0.5) else None
            kind = self.chance.choice(("snapshot", "snapshot", "snapshot", "backup"))
            backup = builders.vm_backup("shop", name, source, kind, owner=vm)
            parts: list[dict[str, Any]] = [
                {"name": f"{name}-{claim}", "persistentVolumeClaim":
                 {"metadata": {"name": claim, "namespace": "shop"}}}
                for claim in self.some(CLAIMS)
            ]  # fmt: skip
            backup["status"] = {"readyToUse": self.often(0.7), "volumeBackups": parts}
            made = self.add(backup, deleted=0.2)
            for part in parts:
                if self.often(0.6):
                    claim = part["persistentVolumeClaim"]["metadata"]["name"]
                    owner = made if self.often(0.7) else None
                    spec = {"source": {"persistentVolumeClaimName": claim}}
                    self.add(bare(VOLUME_SNAPSHOT, "shop", part["name"], owner=owner, spec=spec))
        for name in VMS:
            if self.often(0.3):
                self.add(bare(NETWORK_CONFIG, "shop", name))
        for cluster in ("gc1", "gc2"):
            if self.often(0.4):
                work = self.chance.choice(("cluster", "cluster", "vm"))
                body = bare(LOAD_BALANCER, "shop", f"lb-{cluster}", spec={"workloadType": work})
                body["metadata"]["labels"] = {"cloudprovider.harvesterhci.io/cluster": cluster}
                self.add(body)


HIDDEN = (
    *(POD, PVC, PV, NODE, LEASE, MIGRATION, VM_BACKUP, VM_RESTORE, VM_IMAGE, VOLUME_SNAPSHOT),
    *(DATA_VOLUME, LOAD_BALANCER, DEPLOYMENT, VOLUME_ATTACHMENT),
)


def hidden(number: int) -> frozenset[Kind]:
    """The kinds of which this cluster lets nothing be read: of most clusters none."""
    chance = random.Random(-1 - number)
    return frozenset(chance.sample(HIDDEN, chance.choice((0, 0, 0, 1, 2))))


def invent(number: int) -> list[Body]:
    """The cluster of this number."""
    return Inventor(number).cluster()
