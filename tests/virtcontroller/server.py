"""KubeVirt's own virt-controller, beside the real API server of a test.

What kubelet and virt-handler do, the test does: it binds the pod and writes the status of pod and
VMI. virt-controller does the rest.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from tests.controlplane.server import _DIE_WITH_PARENT, ControlPlane
from tests.virtcontroller.build import programs

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


class VirtController:
    """virt-controller, started and stopped as often as a test likes."""

    def __init__(self, api: ControlPlane, directory: Path) -> None:
        self._api = api
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> VirtController:
        self._prepare()
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def log(self) -> str:
        """Everything that it has written."""
        return (self._directory / "virt-controller.log").read_text(errors="replace")

    def start(self) -> None:
        """Start it and wait until it leads. RuntimeError with its last words if it does not."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [
            *(sys.executable, "-E", "-S", "-c", _DIE_WITH_PARENT),
            str(programs() / "virt-controller"),
            f"--kubeconfig={self._directory / 'virt-controller.kubeconfig'}",
            *("--listen=127.0.0.1", f"--port={port}"),
            "-v=3",
        ]
        began = len(self.log) if (self._directory / "virt-controller.log").exists() else 0
        with (self._directory / "virt-controller.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._directory
            )
        process = self._process

        def leads() -> bool:
            if process.poll() is not None:
                raise RuntimeError(
                    f"virt-controller ended ({process.returncode})\n{self.log[-3000:]}"
                )
            return "STARTING controllers" in self.log[began:]

        wait(leads, lambda: f"virt-controller does not lead\n{self.log[-3000:]}", seconds=60)

    def stop(self) -> None:
        """Stop it. Harmless when it is stopped."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            # Else the next one would wait until this one's has run out.
            lease = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/virt-controller"
            self._api.request("DELETE", lease)

    @contextmanager
    def slow(self, seconds: float) -> Iterator[None]:
        """Let it do nothing for a while, as one that has much else to do."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        timer = threading.Timer(seconds, self._process.send_signal, (signal.SIGCONT,))
        timer.start()
        try:
            yield
        finally:
            timer.join()

    def _prepare(self) -> None:
        config = self._directory / "virt-controller.kubeconfig"
        config.write_text(yaml.safe_dump(self._api.kubeconfig(USER)))
        for line in _KINDS.split("\n")[1:-1]:
            api_version, scope, plural, kind = line.split()
            definition = _definition(api_version, scope, plural, kind)
            self._send("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
            path = f"/apis/{api_version}/{plural}"
            wait(partial(self._is_served, path), f"{plural} is not served".__str__)
        for name in (NAMESPACE, "kube-system"):
            self._send("/api/v1/namespaces", {"metadata": {"name": name}})
        path = f"/apis/kubevirt.io/v1/namespaces/{NAMESPACE}/kubevirts"
        made = {
            "apiVersion": "kubevirt.io/v1",
            "kind": "KubeVirt",
            "metadata": {"name": "kubevirt"},
            "spec": {},
        }
        status = {"status": {"phase": "Deployed"}}
        self._send(path, made)
        self._api.request("PATCH", f"{path}/kubevirt/status", status,
                          content_type="application/merge-patch+json")  # fmt: skip

    def _is_served(self, path: str) -> bool:
        return self._api.request("GET", path)[0] == 200

    def _send(self, path: str, body: dict[str, Any]) -> None:
        status, answer = self._api.request("POST", path, body)
        assert status in (201, 409), answer


def _definition(api_version: str, scope: str, plural: str, kind: str) -> dict[str, Any]:
    """A CRD that takes whatever KubeVirt writes."""
    group, _, version = api_version.partition("/")
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": scope,
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "x-kubernetes-preserve-unknown-fields": True,
                        }
                    },
                }
            ],
        },
    }


def wait(reached: Callable[[], bool], goal: Callable[[], str], *, seconds: float = 30) -> None:
    """Wait until it is so. AssertionError with `goal` when it does not come to that."""
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, goal()
        time.sleep(0.1)
