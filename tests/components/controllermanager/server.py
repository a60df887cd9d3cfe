"""kube-controller-manager beside the real API server of a test: garbage collector, nodes, disks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.components.controllermanager.build import programs
from tests.components.controlplane.server import ControlPlane
from tests.support.beside import Program

USER = "kube-controller-manager"
"""Whom the API server has to know as a member of system:masters."""

COLLECTOR = "garbage-collector-controller"
PVC_PROTECTION = "persistentvolumeclaim-protection-controller"
NODES = (
    "node-lifecycle-controller",
    "taint-eviction-controller",
    "pod-garbage-collector-controller",
)


class ControllerManager(Program):
    """The controllers that are named, each as the service account that it is in a cluster."""

    ready = "Caches are synced"

    def __init__(
        self, api: ControlPlane, directory: Path, controllers: Sequence[str] = (COLLECTOR,)
    ) -> None:
        super().__init__(api, directory, "kube-controller-manager", USER)
        self._controllers = ("serviceaccount-controller", *controllers)

    def command(self) -> Sequence[str]:
        """Ten times as quick as by default to see that a node is silent."""
        return (
            str(programs() / "kube-controller-manager"),
            f"--kubeconfig={self.kubeconfig}",
            "--leader-elect=false",
            "--secure-port=0",
            # By them Harvester's webhook knows the garbage collector.
            "--use-service-account-credentials=true",
            f"--controllers={','.join(self._controllers)}",
            "--node-monitor-period=1s",
            "--node-monitor-grace-period=6s",
            "--node-startup-grace-period=6s",
            "--node-eviction-rate=10",
            "-v=2",
        )
