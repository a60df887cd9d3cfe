"""One target and everything around it: the VM, its VMI, their pods, migrations and nodes.

Every property reads the snapshot and raises `UnreadableError` where it is blind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum, unique
from typing import Any

from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.harvester import workloads
from kubectl_harvester_stuck.harvester.kubelet import KUBELET, Silence, silence
from kubectl_harvester_stuck.k8s.kinds import (
    LEASE,
    LEASE_NAMESPACE,
    MIGRATION,
    NODE,
    POD,
    VM,
    VMI,
)
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef, Owner, parse_time
from kubectl_harvester_stuck.k8s.reads import Read, declared
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot


@unique
class State(str, Enum):
    """How a target is stuck; the values stand in JSON."""

    TERMINATING = "Terminating"
    """It has a deletionTimestamp itself."""
    STOPPING = "Stopping"
    """The VM lives; its VMI is being deleted, or should be and is not."""
    NOT_READY = "NotReady"
    """Neither is being deleted; the virt-launcher pod is, for longer than its grace period, or the
    guest is on a node that does not answer."""


FINAL_PHASES = ("Succeeded", "Failed")

THE_VM = Read(VM, own=True)
THE_VMI = Read(VMI, own=True)
GUEST = declared(THE_VMI, POD)
"""What the pods of a guest are told by."""
HANGING = declared(THE_VM, *GUEST)
"""What says which object of a target hangs in its deletion."""
STATE = declared(*HANGING, *KUBELET)
"""What says how a target is stuck, also where nothing of it is being deleted yet."""


@dataclass(frozen=True)
class Memory:
    """What earlier looks of the same run have shown.

    `proved` names the places whose guest was seen to have ended, which does not become untrue when
    the pod that showed it is gone; `signs` are the signs of each node as they were written.
    """

    proved: frozenset[str] = frozenset()
    signs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """The target and the cluster it stands in."""

    ref: ObjectRef
    snapshot: ClusterSnapshot
    memory: Memory = Memory()

    @property
    def vm(self) -> KubeObject | None:
        """The VirtualMachine of the target's name."""
        return self.snapshot.one(ObjectRef(self.ref.namespace, self.ref.name, VM))

    @property
    def vmi(self) -> KubeObject | None:
        """The VirtualMachineInstance of the target's name."""
        return self.snapshot.one(ObjectRef(self.ref.namespace, self.ref.name, VMI))

    @property
    def obj(self) -> KubeObject | None:
        """The object that the operator named."""
        return self.vm if self.ref.kind is VM else self.vmi

    @property
    def pods(self) -> tuple[KubeObject, ...]:
        """Pods of the guest: those whose controller owner is the VMI, by uid.

        Without a VMI, those whose controller owner was a VMI of the target's name.
        """
        vmi, where = self.vmi, (POD, self.ref.namespace)
        if vmi is not None:
            return tuple(self.snapshot.sorted_by(_uid_of_vmi, *where).get(vmi.uid, ()))
        return tuple(self.snapshot.sorted_by(_name_of_vmi, *where).get(self.ref.name, ()))

    @property
    def doubtful_pods(self) -> tuple[KubeObject, ...]:
        """Pods that may run this guest but are not known to be its own.

        Those of an earlier VMI of the same name, and virt-launcher pods that no VMI owns and whose
        labels name the guest. They can block a release; they are never a step of one. A pod that
        another VMI owns is not among them, for KubeVirt writes the guest's *hostname* into its
        label.
        """
        vmi = self.vmi
        return tuple(
            pod
            for pod in self.snapshot.all(POD, self.ref.namespace)
            if _is_doubtful(pod, self.ref.name, vmi)
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
        """Pods of the guest that are past their grace period in deletion."""
        vmi, now = self.vmi, self.snapshot.taken_at
        current = vmi.text("status", "nodeName") if vmi else ""
        stuck = tuple(
            pod
            for pod in self.pods
            if pod.deletion_timestamp is not None
            and pod.deletion_timestamp <= now
            # The pod that a migration left behind on another node does not hold the guest up.
            and (not current or pod.text("spec", "nodeName") in ("", current))
        )
        # Nor does one on its own node, from an earlier migration: the guest is in the other pod.
        return () if current and stuck and self._has_living_pod(current) else stuck

    def _has_living_pod(self, node: str) -> bool:
        return any(
            pod.deletion_timestamp is None
            and pod.text("spec", "nodeName") == node
            and pod.text("status", "phase") not in FINAL_PHASES
            for pod in self.pods
        )

    @property
    def migrations(self) -> tuple[KubeObject, ...]:
        """VirtualMachineInstanceMigrations of this VMI that have not finished.

        Without a VMI there is no guest to be moved, so none.
        """
        if self.vmi is None:
            return ()
        return tuple(
            item
            for item in self.snapshot.all(MIGRATION, self.ref.namespace)
            if item.text("spec", "vmiName") == self.ref.name
            and item.text("status", "phase") not in FINAL_PHASES
        )

    def is_younger(self, node: KubeObject) -> bool:
        """Whether a Node was created after the guest: then it speaks for another installation."""
        vmi = self.vmi
        births = [item.created for item in ((vmi,) if vmi is not None else self.pods)]
        known = [birth for birth in births if birth is not None]
        return node.created is not None and bool(known) and node.created > min(known)

    @property
    def state(self) -> State | None:
        """How the target is stuck; None when it is not."""
        obj = self.obj
        if obj is None:
            return None
        if obj.deletion_timestamp is not None:
            return State.TERMINATING
        vmi = self.vmi
        if vmi is not None and vmi.deletion_timestamp is not None:
            return State.STOPPING
        if self.stuck_pods:
            return State.NOT_READY
        if self.is_to_be_stopped:
            return State.STOPPING
        return State.NOT_READY if self.silence is not None else None

    @property
    def stuck_object(self) -> KubeObject | None:
        """The object whose deletion hangs.

        None where the target is not stuck, and where nothing of it is being deleted yet.
        """
        obj = self.obj
        if obj is None or obj.deletion_timestamp is not None:
            return obj
        vmi = self.vmi
        if vmi is not None and vmi.deletion_timestamp is not None:
            return vmi
        return min(self.stuck_pods, key=lambda pod: str(pod.deletion_timestamp), default=None)

    @property
    def is_to_be_stopped(self) -> bool:
        """Whether KubeVirt has to delete the VMI next: the VM is to be stopped, or has stopped.

        virt-controller deletes it at once; where it does not, the stop has not begun. A guest that
        ended by itself keeps its VMI under the run strategies Manual and Once
        (kubevirt pkg/virt-controller/watch/vm/vm.go, syncRunStrategy).
        """
        vm, vmi = self.vm, self.vmi
        if vm is None or vmi is None or vm.deletion_timestamp is not None:
            return False
        strategy = run_strategy(vm)
        if strategy == "Halted":
            return True
        if vmi.text("status", "phase") in FINAL_PHASES and strategy in ("Always", "RerunOnFailure"):
            return True
        return any(
            request.get("action") == "Stop" and request.get("uid") in (None, vmi.uid)
            for request in vm.mappings("status", "stateChangeRequests")[:1]
        )

    @property
    def silence(self) -> Silence | None:
        """Why the node of a guest that has not ended does not answer; None where it does."""
        vmi = self.vmi
        if vmi is None or vmi.text("status", "phase") in FINAL_PHASES:
            return None
        node = vmi.text("status", "nodeName")
        return silence(node, self.snapshot) if node else None

    @property
    def stuck_since(self) -> datetime | None:
        """Since when it is stuck, for display: the deletion, or the cause; None: not known."""
        hanging = self.stuck_object
        if hanging is not None:
            return hanging.deletion_timestamp
        vm, vmi = self.vm, self.vmi
        if self.is_to_be_stopped and vm is not None and vmi is not None:
            ended = _phase_began(vmi) if vmi.text("status", "phase") in FINAL_PHASES else None
            return ended or run_strategy_written(vm)
        found = self.silence
        return found.since if found is not None else None

    @property
    def why_not_deleted(self) -> str:
        """What is missing where it is stuck and nothing is being deleted, and what happens next."""
        if self.state is None or self.stuck_object is not None:
            return ""
        vm, vmi, found = self.vm, self.vmi, self.silence
        if vm is not None and vmi is not None and self.is_to_be_stopped:
            phase = vmi.text("status", "phase")
            if phase in FINAL_PHASES:
                return f"its VMI is {phase}, and KubeVirt does not delete it"
            failure = next(
                (
                    f": {item.get('message') or item.get('reason')}"
                    for item in vm.mappings("status", "conditions")
                    if item.get("type") == "Failure" and item.get("status") == "True"
                ),
                "",
            )
            return f"the stop has not begun, its VMI is not being deleted{failure}"
        if found is None:
            return ""
        leaving = [pod for pod in self.pods if pod.deletion_timestamp is not None]
        silent = f"node {found.node} does not answer ({found.signs})"
        if leaving:
            return f"{silent}; its pod is being deleted, and within its grace period"
        return f"{silent}; its pod is not being deleted yet; {found.evicts}"

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
        """This target as it will be once those objects are gone."""
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
            for pod in workloads.virt_handlers(self.snapshot)
            if pod.text("spec", "nodeName") == node
        )


def run_strategy_written(vm: KubeObject) -> datetime | None:
    """When the run strategy of a VM was last written; None where that is not recorded.

    It can be later: the time is that of the last change by whoever wrote it last.
    """
    times = (vm.written_at("spec", field) for field in ("runStrategy", "running"))
    return max(filter(None, times), default=None)


def _phase_began(vmi: KubeObject) -> datetime | None:
    """When the VMI entered its phase; None where that is not recorded."""
    phase = vmi.text("status", "phase")
    for item in vmi.mappings("status", "phaseTransitionTimestamps"):
        if item.get("phase") == phase:
            with suppress(ValueError):
                return parse_time(str(item.get("phaseTransitionTimestamp")))
    return None


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
    for part in ("volumes", "utilityVolumes"):
        for volume in machine.mappings(*where, part):
            for path in _CLAIMS:
                value: object = volume
                for key in path:
                    value = value.get(key) if isinstance(value, Mapping) else None
                if value:
                    names.append(str(value))
    return tuple(dict.fromkeys(names))


def mac_addresses(machine: KubeObject) -> frozenset[str]:
    """The MAC addresses in the spec of a VM, or in spec and status of a VMI, in small letters.

    Not those behind masquerade, which stay inside the pod. Raises UnreadableError.
    """
    is_vm = machine.ref.kind is VM
    where = ("spec", "template", "spec") if is_vm else ("spec",)
    interfaces = machine.mappings(*where, "domain", "devices", "interfaces")
    inside = {str(item.get("name")) for item in interfaces if "masquerade" in item}
    observed = () if is_vm else machine.mappings("status", "interfaces")
    found = [
        *(item.get("macAddress") for item in interfaces if str(item.get("name")) not in inside),
        *(item.get("mac") for item in observed if str(item.get("name")) not in inside),
    ]
    return frozenset(normal_mac(str(address)) for address in found if address)


def normal_mac(written: str) -> str:
    """The MAC address, or a text that holds some, as all of them can be compared."""
    return written.lower().replace("-", ":")


def mounted_pvcs(pod: KubeObject) -> tuple[str, ...]:
    """Names of the PVCs that a pod mounts, or gives to its containers. Raises UnreadableError."""
    claims = (item.get("persistentVolumeClaim") for item in pod.mappings("spec", "volumes"))
    return tuple(
        str(claim["claimName"])
        for claim in claims
        if isinstance(claim, Mapping) and claim.get("claimName")
    )


def run_strategy(vm: KubeObject) -> str:
    """The runStrategy of a VM, also where it is spelled as `running`. Raises UnreadableError."""
    spec = vm.mapping("spec")
    running = spec.get("running")
    if isinstance(running, bool):
        return "Always" if running else "Halted"
    return vm.text("spec", "runStrategy")


def vmi_of(pod: KubeObject) -> Owner | None:
    """The VMI that a pod was made for: its controller owner, whatever its labels say."""
    owners = (item for item in pod.owners if item.is_controller and item.kind == VMI.kind)
    return next(owners, None)


def _uid_of_vmi(pod: KubeObject) -> str | None:
    owner = vmi_of(pod)
    return owner.uid if owner is not None else None


def _name_of_vmi(pod: KubeObject) -> str | None:
    owner = vmi_of(pod)
    return owner.name if owner is not None else None


def is_launcher_of(pod: KubeObject, name: str) -> bool:
    """Whether the pod runs, or may run, a guest called `name`, of whichever incarnation.

    A controller owner decides; labels count only where there is none.
    """
    owner = vmi_of(pod)
    return owner.name == name if owner is not None else _is_labelled(pod, name)


def _is_doubtful(pod: KubeObject, name: str, vmi: KubeObject | None) -> bool:
    owner = vmi_of(pod)
    if owner is not None:
        return vmi is not None and owner.name == name and owner.uid != vmi.uid
    names_vmi = vmi is not None and (
        pod.is_owned_by(vmi) or pod.labels.get("kubevirt.io/created-by") == vmi.uid
    )
    return names_vmi or _is_labelled(pod, name)


def _is_labelled(pod: KubeObject, name: str) -> bool:
    return pod.labels.get("kubevirt.io") == "virt-launcher" and name in (
        pod.labels.get("vm.kubevirt.io/name"),
        pod.labels.get("harvesterhci.io/vmName"),
    )


COMPUTE = "compute"
"""The container of a virt-launcher pod that runs QEMU."""

LOST = "ContainerStatusUnknown"
"""What a kubelet writes for a container that it cannot find: that proves nothing of it."""


def is_stopped(pod: KubeObject) -> bool:
    """Whether the kubelet reports that no container of the pod can run any more.

    Each container that ever ran has terminated, QEMU's own among them. The pod's phase proves
    nothing: the control plane sets it to Failed for pods of lost nodes. Raises UnreadableError.
    """
    return _is_over(pod, _has_ended)


def is_lost(pod: KubeObject) -> bool:
    """Whether the kubelet reports of each container that it ended, or cannot find it any more.

    After a reboot of its host that is all a kubelet can say. It proves something only of a node
    that answers, and only once that had the time to look. Raises UnreadableError.
    """
    return _is_over(pod, lambda item, pod: bool(_state(item, pod, "state").get("terminated")))


def _is_over(pod: KubeObject, has_ended: Callable[[Mapping[str, Any], KubeObject], bool]) -> bool:
    statuses = _container_statuses(pod)
    reported = {str(status.get("name")) for status in statuses}
    expected = {
        str(container.get("name"))
        for part in ("containers", "initContainers", "ephemeralContainers")
        for container in pod.mappings("spec", part)
    }
    if not expected or not expected <= reported:
        return False
    ended = {str(item.get("name")) for item in statuses if has_ended(item, pod)}
    # Where QEMU's container is over, one that never started has nothing to run any more.
    return all(
        str(item.get("name")) in ended or (COMPUTE in ended and _never_ran(item, pod))
        for item in statuses
    )


def has_never_run(pod: KubeObject) -> bool:
    """Whether no container of the pod has ever been started, by what was last reported."""
    return all(_never_ran(item, pod) for item in _container_statuses(pod))


def running_containers(pod: KubeObject) -> tuple[str, ...]:
    """Names of the containers that are not reported as terminated."""
    return tuple(
        str(item.get("name"))
        for item in _container_statuses(pod)
        if not _has_ended(item, pod) and not _never_ran(item, pod)
    )


def _container_statuses(pod: KubeObject) -> tuple[Mapping[str, Any], ...]:
    return tuple(
        status
        for part in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
        for status in pod.mappings("status", part)
    )


def _state(status: Mapping[str, Any], pod: KubeObject, when: str) -> Mapping[str, Any]:
    state = status.get(when)
    if state is not None and not isinstance(state, Mapping):
        raise UnreadableError(str(pod.ref), f"the {when} of a container is not an object")
    return state or {}


def _has_ended(status: Mapping[str, Any], pod: KubeObject) -> bool:
    ended = _state(status, pod, "state").get("terminated")
    if ended and not isinstance(ended, Mapping):
        raise UnreadableError(str(pod.ref), "the end of a container is not an object")
    return isinstance(ended, Mapping) and bool(ended) and ended.get("reason") != LOST


def _never_ran(status: Mapping[str, Any], pod: KubeObject) -> bool:
    state = _state(status, pod, "state")
    return (
        not state.get("terminated")
        and state.get("running") is None
        and not _state(status, pod, "lastState")
        and not status.get("restartCount")
        and not status.get("started")
    )
