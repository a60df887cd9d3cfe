"""Harvester's webhook and its controllers of VMs, beside the real API server of a test."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.components.controlplane.server import ControlPlane
from tests.components.harvester import build
from tests.support import schemaless
from tests.support.beside import Program, install

USER = "system:serviceaccount:harvester-system:harvester"
"""Whom the API server has to know as a member of system:masters."""

EARLIER = os.environ.get("HARVESTER_VERSION")
"""The release to run, where it is not the newest."""

VERSION = build.release(EARLIER)

NAMESPACE = "harvester-system"

# What the webhook lists of which a release of Harvester brings no CRD.
_KINDS = """
cdi.kubevirt.io/v1beta1           Namespaced datavolumes                     DataVolume
cluster.x-k8s.io/v1beta1          Namespaced clusters                        Cluster
cluster.x-k8s.io/v1beta1          Namespaced machines                        Machine
fleet.cattle.io/v1alpha1          Namespaced clusters                        Cluster
k8s.cni.cncf.io/v1                Namespaced network-attachment-definitions  NetworkAttachmentDefinition
logging.banzaicloud.io/v1beta1    Namespaced flows                           Flow
logging.banzaicloud.io/v1beta1    Namespaced outputs                         Output
logging.banzaicloud.io/v1beta1    Namespaced clusterflows                    ClusterFlow
logging.banzaicloud.io/v1beta1    Namespaced clusteroutputs                  ClusterOutput
longhorn.io/v1beta2               Namespaced engines                         Engine
longhorn.io/v1beta2               Namespaced nodes                           Node
longhorn.io/v1beta2               Namespaced volumes                         Volume
management.cattle.io/v3           Cluster    features                        Feature
management.cattle.io/v3           Namespaced managedcharts                   ManagedChart
network.harvesterhci.io/v1beta1   Cluster    clusternetworks                 ClusterNetwork
network.harvesterhci.io/v1beta1   Cluster    vlanconfigs                     VlanConfig
network.harvesterhci.io/v1beta1   Cluster    vlanstatuses                    VlanStatus
snapshot.storage.k8s.io/v1        Cluster    volumesnapshotclasses           VolumeSnapshotClass
snapshot.storage.k8s.io/v1        Cluster    volumesnapshotcontents          VolumeSnapshotContent
"""  # noqa: E501

_SETTINGS = {
    "additional-guest-memory-overhead-ratio": "1.5",
    "default-vm-termination-grace-period-seconds": "120",
    "overcommit-config": '{"cpu":1600,"memory":150,"storage":200}',
    "server-version": VERSION,
}
STORAGE_CLASS = "harvester-longhorn"


class Controllers(Program):
    """Harvester's controllers of VMs and VMIs."""

    ready = "ready"

    def __init__(self, api: ControlPlane, directory: Path) -> None:
        super().__init__(api, directory, "harvester", USER)

    def command(self) -> Sequence[str]:
        """The controllers alone."""
        program = str(build.programs(EARLIER) / "harvester")
        return (program, "controllers", f"--kubeconfig={self.kubeconfig}")


class Webhook(Program):
    """Harvester's admission webhook."""

    ready = "ready"

    def __init__(self, api: ControlPlane, directory: Path) -> None:
        super().__init__(api, directory, "harvester-webhook", USER)

    def command(self) -> Sequence[str]:
        """The webhook alone."""
        program = str(build.programs(EARLIER) / "harvester")
        return (program, "webhook", f"--kubeconfig={self.kubeconfig}", f"--user={USER}")

    def stop(self) -> None:
        """Stop it. Its configurations go first, for without it they forbid nearly everything."""
        group = "/apis/admissionregistration.k8s.io/v1"
        for path in (
            f"{group}/validatingwebhookconfigurations/harvester-validator",
            f"{group}/mutatingwebhookconfigurations/harvester-mutator",
        ):
            self.api.request("DELETE", path)
        super().stop()


def prepare(api: ControlPlane) -> None:
    """What both need to be at work: the CRDs, and the objects of an installed Harvester."""
    install(api, definitions())
    _send(api, "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    kubevirts = f"/apis/kubevirt.io/v1/namespaces/{NAMESPACE}/kubevirts"
    meta = {"name": "kubevirt"}
    kubevirt = {"apiVersion": "kubevirt.io/v1", "kind": "KubeVirt", "metadata": meta, "spec": {}}
    _send(api, kubevirts, kubevirt)
    for name, value in _SETTINGS.items():
        setting = {"apiVersion": "harvesterhci.io/v1beta1", "kind": "Setting", "value": value}
        _send(api, "/apis/harvesterhci.io/v1beta1/settings",
              {**setting, "metadata": {"name": name}})  # fmt: skip
    storage_class = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": STORAGE_CLASS},
        "provisioner": "driver.longhorn.io",
        "parameters": {"migratable": "true"},
    }
    _send(api, "/apis/storage.k8s.io/v1/storageclasses", storage_class)
    snapshot_class = {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshotClass",
        "metadata": {"name": STORAGE_CLASS},
        "driver": "driver.longhorn.io",
        "deletionPolicy": "Delete",
    }
    _send(api, "/apis/snapshot.storage.k8s.io/v1/volumesnapshotclasses", snapshot_class)


def definitions() -> list[dict[str, Any]]:
    """The CRDs of Harvester and KubeVirt, and of what else the webhook lists."""
    directory = build.programs(EARLIER)
    made = {item["metadata"]["name"]: item for item in schemaless.definitions(_KINDS)}
    for path in sorted((directory / "crds").glob("*.yaml")):
        for item in yaml.safe_load_all(path.read_text()):
            if item:
                made[item["metadata"]["name"]] = item
    printed = subprocess.run(
        [str(directory / "harvester"), "crds"], check=True, capture_output=True, text=True
    )
    for item in map(json.loads, printed.stdout.splitlines()):
        made[item["metadata"]["name"]] = item
    return list(made.values())


def _send(api: ControlPlane, path: str, body: dict[str, Any]) -> None:
    status, answer = api.request("POST", path, body)
    assert status in (201, 409), answer
