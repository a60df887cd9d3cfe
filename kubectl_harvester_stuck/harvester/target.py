"""One target and everything around it: the VM, its VMI, their pods, migrations and nodes.

Every property reads the snapshot and raises `UnreadableError` where it is blind.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum, unique
from typing import Any

from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.k8s.kinds import (
    HARVESTER_NAMESPACE,
    LEASE,
    LEASE_NAMESPACE,
    MIGRATION,
    NODE,
    POD,
    VM,
    VMI,
)
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot


@unique
class State(str, Enum):
    """How a target is stuck; the values stand in JSON."""

    TERMINATING = "Terminating"
    """It has a deletionTimestamp itself."""
    STOPPING = "Stopping"
    """The VM lives; its VMI is being deleted."""
    NOT_READY = "NotReady"
    """Neither is being deleted; the virt-launcher pod is, for longer than its grace period."""


FINAL_PHASES = ("Succeeded", "Failed")


@dataclass(frozen=True)
class Target:
    """The target and the cluster it stands in."""

    ref: ObjectRef
    snapshot: ClusterSnapshot

    @property
    def vm(self) -> KubeObject | None:
        """The VirtualMachine of the target's name."""
        return self.snapshot.one(ObjectRef(self.ref.namespace, self.ref.name, VM))

    @property
    def vmi(self) -> KubeObject | None:
        """The VirtualMachineInstance of the target's name."""
        return self.snapshot.one(ObjectRef(self.ref.namespace, self.ref.name, VMI))

    @property
    def target(self) -> KubeObject | None:
        """The object that the operator named."""
        return self.vm if self.ref.kind is VM else self.vmi

    @property
    def pods(self) -> tuple[KubeObject, ...]:
        """virt-launcher pods that the VMI owns, or that carry the target's name or its uid."""
        vmi = self.vmi
        return tuple(
            pod
            for pod in self.snapshot.all(POD, self.ref.namespace)
            if is_launcher_of(pod, self.ref.name, vmi)
        )

    @property
    def attachment_pods(self) -> tuple[KubeObject, ...]:
        """Pods that hold hotplugged volumes for this guest: owned by one of its pods."""
        vmi, owners = self.vmi, self.pods
        return tuple(
            pod
            for pod in self.snapshot.all(POD, self.ref.namespace)
            if any(pod.is_owned_by(owner) for owner in owners)
            or (vmi is not None and pod.annotations.get("kubevirt.io/owner-vmi-uid") == vmi.uid)
        )

    @property
    def stuck_pods(self) -> tuple[KubeObject, ...]:
        """Pods of the guest's present incarnation that are past their grace period in deletion."""
        vmi, now = self.vmi, self.snapshot.taken_at
        current = vmi.text("status", "nodeName") if vmi else ""
        return tuple(
            pod
            for pod in self.pods
            if pod.deletion_timestamp is not None
            and pod.deletion_timestamp <= now
            and (vmi is None or belongs_to(pod, vmi))
            # The pod that a migration left behind on another node does not hold the guest up.
            and (not current or pod.text("spec", "nodeName") in ("", current))
        )

    @property
    def migrations(self) -> tuple[KubeObject, ...]:
        """VirtualMachineInstanceMigrations of this VMI that have not finished."""
        return tuple(
            item
            for item in self.snapshot.all(MIGRATION, self.ref.namespace)
            if item.text("spec", "vmiName") == self.ref.name
            and item.text("status", "phase") not in FINAL_PHASES
        )

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of every node where the guest may run: by the VMI, its migration, its pods."""
        names = [pod.text("spec", "nodeName") for pod in self.pods]
        vmi = self.vmi
        if vmi is not None:
            migration = vmi.mapping("status", "migrationState")
            names += [vmi.text("status", "nodeName")]
            names += [str(name) for name in vmi.mapping("status", "activePods").values()]
            names += [str(migration.get(end) or "") for end in ("sourceNode", "targetNode")]
        for item in self.migrations:
            state = item.mapping("status", "migrationState")
            names += [str(state.get(end) or "") for end in ("sourceNode", "targetNode")]
        return tuple(sorted({name for name in names if name}))

    @property
    def state(self) -> State | None:
        """How the target is stuck; None when it is not."""
        target = self.target
        if target is None:
            return None
        if target.deletion_timestamp is not None:
            return State.TERMINATING
        vmi = self.vmi
        if vmi is not None and vmi.deletion_timestamp is not None:
            return State.STOPPING
        return State.NOT_READY if self.stuck_pods else None

    @property
    def stuck_object(self) -> KubeObject | None:
        """The object whose deletion hangs; None when the target is not stuck."""
        state = self.state
        if state is State.NOT_READY:
            return min(self.stuck_pods, key=lambda pod: str(pod.deletion_timestamp))
        return None if state is None else self.vmi if state is State.STOPPING else self.target

    @property
    def node_name(self) -> str | None:
        """The node that the VMI names, or else its pod; None where it is not known."""
        with suppress(UnreadableError):
            vmi = self.vmi
            if vmi is not None and vmi.text("status", "nodeName"):
                return vmi.text("status", "nodeName")
            return next((pod.text("spec", "nodeName") for pod in self.pods), None) or None
        return None

    def without(self, *gone: ObjectRef) -> Target:
        """This case as it will be once those objects are gone."""
        return replace(self, snapshot=self.snapshot.without(*gone))

    def node(self, name: str) -> KubeObject | None:
        """The Node."""
        return self.snapshot.one(ObjectRef("", name, NODE))

    def lease(self, node: str) -> KubeObject | None:
        """The Lease that the node's kubelet renews."""
        return self.snapshot.one(ObjectRef(LEASE_NAMESPACE, node, LEASE))

    def virt_handlers(self, node: str) -> tuple[KubeObject, ...]:
        """KubeVirt's virt-handler pods on the node."""
        return tuple(
            pod
            for pod in self.snapshot.all(POD, HARVESTER_NAMESPACE)
            if pod.labels.get("kubevirt.io") == "virt-handler"
            and pod.text("spec", "nodeName") == node
        )


_CLAIMS = (
    ("persistentVolumeClaim", "claimName"),
    ("dataVolume", "name"),
    ("ephemeral", "persistentVolumeClaim", "claimName"),
    ("memoryDump", "claimName"),
    ("claimName",),  # a utility volume
)
"""Where a volume names its PVC; a DataVolume and its PVC have the same name."""


def pvc_names(machine: KubeObject) -> tuple[str, ...]:
    """Names of the PVCs that the spec of a VM, or of a VMI, lists, also through a DataVolume."""
    where = ("spec", "template", "spec") if machine.ref.kind is VM else ("spec",)
    names = []
    for field in ("volumes", "utilityVolumes"):
        for volume in machine.mappings(*where, field):
            for path in _CLAIMS:
                value: object = volume
                for key in path:
                    value = value.get(key) if isinstance(value, Mapping) else None
                if value:
                    names.append(str(value))
    return tuple(dict.fromkeys(names))


def belongs_to(pod: KubeObject, vmi: KubeObject) -> bool:
    """Whether the pod was made for this very incarnation of the VMI."""
    return pod.is_owned_by(vmi) or pod.labels.get("kubevirt.io/created-by") == vmi.uid


def is_launcher_of(pod: KubeObject, name: str, vmi: KubeObject | None) -> bool:
    """Whether the pod runs, or may run, the guest called `name`: by owner, uid or label."""
    if vmi is not None and belongs_to(pod, vmi):
        return True
    if any(owner.kind == VMI.kind and owner.name == name for owner in pod.owners):
        return True
    return pod.labels.get("kubevirt.io") == "virt-launcher" and name in (
        pod.labels.get("vm.kubevirt.io/name"),
        pod.labels.get("harvesterhci.io/vmName"),
    )


def is_stopped(pod: KubeObject) -> bool:
    """Whether no container of the pod can run any more, by the kubelet's own word.

    The pod's phase proves nothing: the control plane sets it to Failed for pods of lost nodes.
    """
    statuses = [
        status
        for field in (
            "containerStatuses",
            "initContainerStatuses",
            "ephemeralContainerStatuses",
        )
        for status in pod.mappings("status", field)
    ]
    reported = {str(status.get("name")) for status in statuses}
    expected = {
        str(container.get("name"))
        for field in ("containers", "initContainers", "ephemeralContainers")
        for container in pod.mappings("spec", field)
    }
    return (
        bool(expected)
        and expected <= reported
        and all(_is_terminated(status, pod) for status in statuses)
    )


def _is_terminated(status: Mapping[str, Any], pod: KubeObject) -> bool:
    state = status.get("state")
    if state is not None and not isinstance(state, Mapping):
        raise UnreadableError(str(pod.ref), "the state of a container is not an object")
    return bool(state and state.get("terminated"))
