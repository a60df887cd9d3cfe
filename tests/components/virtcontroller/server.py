"""KubeVirt's own virt-controller, beside the real API server of a test.

What kubelet and virt-handler do, the test does: it binds the pod and writes the status of pod and
VMI. virt-controller does the rest.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.components.controlplane.server import ControlPlane
from tests.components.virtcontroller.build import programs
from tests.support import schemaless
from tests.support.beside import Program, install

USER = "virt-controller"
"""Whom the API server has to know as a member of system:masters."""

NAMESPACE = "kubevirt"
"""Where virt-controller takes itself to be outside a pod."""

# What virt-controller lists besides the kinds of `tests/crds`.
_KINDS = """
kubevirt.io/v1                   Namespaced  kubevirts                          KubeVirt
kubevirt.io/v1                   Namespaced  virtualmachineinstancepresets      VirtualMachineInstancePreset
kubevirt.io/v1                   Namespaced  virtualmachineinstancereplicasets  VirtualMachineInstanceReplicaSet
pool.kubevirt.io/v1beta1         Namespaced  virtualmachinepools                VirtualMachinePool
backup.kubevirt.io/v1alpha1      Namespaced  virtualmachinebackups              VirtualMachineBackup
backup.kubevirt.io/v1alpha1      Namespaced  virtualmachinebackuptrackers       VirtualMachineBackupTracker
export.kubevirt.io/v1beta1       Namespaced  virtualmachineexports              VirtualMachineExport
snapshot.kubevirt.io/v1beta1     Namespaced  virtualmachinesnapshots            VirtualMachineSnapshot
snapshot.kubevirt.io/v1beta1     Namespaced  virtualmachinesnapshotcontents     VirtualMachineSnapshotContent
snapshot.kubevirt.io/v1beta1     Namespaced  virtualmachinerestores             VirtualMachineRestore
migrations.kubevirt.io/v1alpha1  Cluster     migrationpolicies                  MigrationPolicy
clone.kubevirt.io/v1beta1        Namespaced  virtualmachineclones               VirtualMachineClone
instancetype.kubevirt.io/v1beta1 Namespaced  virtualmachineinstancetypes        VirtualMachineInstancetype
instancetype.kubevirt.io/v1beta1 Cluster     virtualmachineclusterinstancetypes VirtualMachineClusterInstancetype
instancetype.kubevirt.io/v1beta1 Namespaced  virtualmachinepreferences          VirtualMachinePreference
instancetype.kubevirt.io/v1beta1 Cluster     virtualmachineclusterpreferences   VirtualMachineClusterPreference
cdi.kubevirt.io/v1beta1          Namespaced  datasources                        DataSource
cdi.kubevirt.io/v1beta1          Cluster     storageprofiles                    StorageProfile
cdi.kubevirt.io/v1beta1          Cluster     cdis                               CDI
cdi.kubevirt.io/v1beta1          Cluster     cdiconfigs                         CDIConfig
"""  # noqa: E501


class VirtController(Program):
    """virt-controller, started and stopped as often as a test likes."""

    ready = "STARTING controllers"

    def __init__(self, api: ControlPlane, directory: Path) -> None:
        super().__init__(api, directory, "virt-controller", USER)
        prepare(api)

    def command(self) -> Sequence[str]:
        """With a port of its own for what it is asked."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        program = programs() / "virt-controller"
        return (str(program), f"--kubeconfig={self.kubeconfig}", "--listen=127.0.0.1",
                f"--port={port}", "-v=3")  # fmt: skip

    def stop(self) -> None:
        """Stop it. Harmless when it is stopped."""
        super().stop()
        # Else the next one would wait until this one's has run out.
        lease = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/virt-controller"
        self.api.request("DELETE", lease)


def prepare(api: ControlPlane) -> None:
    """What has to be there before virt-controller works: its kinds, and a KubeVirt."""
    install(api, schemaless.definitions(_KINDS))
    for name in (NAMESPACE, "kube-system"):
        _send(api, "/api/v1/namespaces", {"metadata": {"name": name}})
    path = f"/apis/kubevirt.io/v1/namespaces/{NAMESPACE}/kubevirts"
    made = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "KubeVirt",
        "metadata": {"name": "kubevirt"},
        "spec": {},
    }
    _send(api, path, made)
    status = {"status": {"phase": "Deployed"}}
    api.request("PATCH", f"{path}/kubevirt/status", status,
                content_type="application/merge-patch+json")  # fmt: skip


def _send(api: ControlPlane, path: str, body: dict[str, Any]) -> None:
    status, answer = api.request("POST", path, body)
    assert status in (201, 409), answer
