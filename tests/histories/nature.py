"""Kubelets, virt-handlers, the scheduler and the node lifecycle controller.

They are all that touches `truth`, and all that tells the API server of it. The rules, and where
they come from, stand in the docstring of the package.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tests.histories import cluster as k
from tests.histories.cluster import Body, Cluster
from tests.histories.truth import Guest, Host, Truth

UNKNOWN_AFTER = timedelta(seconds=40)
"""node-monitor-grace-period, as RKE2 has it."""

EVICTED_AFTER = timedelta(seconds=300)
"""How long a virt-launcher pod tolerates a node that is not Ready or unreachable."""

LOST = {
    "terminated": {
        "reason": "ContainerStatusUnknown",
        "message": "The container could not be located when the pod was terminated",
        "exitCode": 137,
    }
}


@dataclass
class Nature:
    """Everything that happens by itself on the nodes."""

    cluster: Cluster
    truth: Truth
    stubborn: set[str] = field(default_factory=set)
    """VMs whose guests do not heed the power button."""
    surviving: set[str] = field(default_factory=set)
    """VMs whose sidecar outlives `compute`."""
    running_phase: set[str] = field(default_factory=set)
    """VMs whose ended pods keep the phase Running while they are being deleted."""
    lifecycle_works: bool = True
    """Whether the node lifecycle controller marks nodes that are silent, and evicts their pods."""
    first_places: dict[str, str] = field(default_factory=dict)
    """The node that a VM is started on, if it is Ready; each is used once."""
    _bad_since: dict[str, tuple[str, datetime]] = field(default_factory=dict)

    def act(self) -> bool:
        """Do what is due; whether any object was changed."""
        now = self.cluster.now()
        self.truth.pass_to(now)
        changed = False
        for host in self._present():
            changed |= self._signs(host, now)
        changed |= self._evict(now)
        changed |= self._schedule()
        for host in self._present():
            if host.hears_pods:
                changed |= self._kubelet(host, now)
            if host.hears_guests:
                changed |= self._handler(host, now)
        return changed

    def next_change(self) -> datetime | None:
        """When something is due that nobody starts."""
        due = [self.truth.next_change()]
        for host in self._present():
            if not host.speaks and host.heard:
                due.append(host.heard + UNKNOWN_AFTER)
        due += [since + EVICTED_AFTER for _, since in self._bad_since.values()]
        now = self.cluster.now()
        return min((moment for moment in due if moment and moment > now), default=None)

    def _present(self) -> list[Host]:
        return [host for host in self.truth.hosts if not host.is_replaced]

    # The signs of life

    def _signs(self, host: Host, now: datetime) -> bool:
        node = self.cluster.get(k.NODE, host.name)
        if node is None:
            return False
        changed = False
        there = now + host.offset
        if host.speaks:
            host.heard = now
            lease = self.cluster.get("Lease", host.name, k.LEASES)
            if lease:
                renewed = self.cluster.text(there).replace("Z", ".000000Z")
                changed |= self.cluster.patch(lease, {"spec": {"renewTime": renewed}})
            changed |= self._ready(node, "True" if host.runtime else "False", now, there)
        elif self.lifecycle_works and host.heard and now - host.heard >= UNKNOWN_AFTER:
            changed |= self._ready(node, "Unknown", now, now)
        if host.hears_guests:
            beat = {"kubevirt.io/heartbeat": self.cluster.text(there)}
            changed |= self.cluster.patch(node, {"metadata": {"annotations": beat}})
        return changed | self._handler_pod(host)

    def _ready(self, node: Body, status: str, now: datetime, written: datetime) -> bool:
        name = node["metadata"]["name"]
        if status == "True":
            self._bad_since.pop(name, None)
        elif self._bad_since.get(name, ("", now))[0] != status:
            self._bad_since[name] = (status, now)
        (old,) = node.get("status", {}).get("conditions") or [{}]
        since = old.get("lastTransitionTime")
        if old.get("status") != status:
            since = self.cluster.text(written)
        heard = old.get("lastHeartbeatTime") if status == "Unknown" else self.cluster.text(written)
        reason = {"True": "KubeletReady", "False": "KubeletNotReady"}.get(
            status, "NodeStatusUnknown"
        )
        condition = {
            "type": "Ready",
            "status": status,
            "reason": reason,
            "lastHeartbeatTime": heard,
            "lastTransitionTime": since,
        }
        return self.cluster.patch(node, {"status": {"conditions": [condition]}})

    def _handler_pod(self, host: Host) -> bool:
        pod = self.cluster.get(k.POD, f"virt-handler-{host.name}", k.SYSTEM)
        if pod is None:
            return False
        if host.speaks:
            ready = host.handler
        elif host.name in self._bad_since:
            ready = False
        else:
            return False
        condition = {"type": "Ready", "status": "True" if ready else "False"}
        return self.cluster.patch(pod, {"status": {"phase": "Running", "conditions": [condition]}})

    def _evict(self, now: datetime) -> bool:
        """What the taints not-ready and unreachable do."""
        changed = False
        if not self.lifecycle_works:
            return False
        for name, (status, since) in self._bad_since.items():
            pods = [pod for pod in self.cluster.launchers() if pod["spec"].get("nodeName") == name]
            if status == "Unknown":
                for pod in pods:
                    condition = {"type": "Ready", "status": "False"}
                    conditions = k.with_condition(pod, condition)
                    changed |= self.cluster.patch(pod, {"status": {"conditions": conditions}})
            if now - since < EVICTED_AFTER:
                continue
            for pod in pods:
                if not k.is_deleting(pod):
                    changed |= self.cluster.delete(pod)
        return changed

    def _schedule(self) -> bool:
        changed = False
        for pod in self.cluster.launchers():
            if pod["spec"].get("nodeName") or k.is_deleting(pod):
                continue
            host = self._place(pod)
            if host is not None:
                changed |= self.bind(pod, host)
        return changed

    def bind(self, pod: Body, host: Host) -> bool:
        """Let a pod run on a node, as the scheduler does."""
        return self.cluster.patch(pod, {"spec": {"nodeName": host.name}})

    def _place(self, pod: Body) -> Host | None:
        """A node that is Ready. Not the one of another guest of the VM, if there is a choice."""
        ready = [host for host in self._present() if self._is_ready(host.name)]
        vm = pod["metadata"]["annotations"]["kubevirt.io/domain"]
        first = self.first_places.pop(vm, None)
        for host in ready:
            if host.name == first:
                return host
        taken = {guest.host.name for guest in self.truth.running(vm)}
        taken |= {
            one["spec"]["nodeName"]
            for one in self.cluster.launchers()
            if k.controller(one) == k.controller(pod) and one["spec"].get("nodeName")
        }
        free = [host for host in ready if host.name not in taken]
        return next(iter([*free, *ready]), None)

    def _is_ready(self, name: str) -> bool:
        node = self.cluster.get(k.NODE, name)
        conditions = node.get("status", {}).get("conditions", ()) if node else ()
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    # The kubelet

    def _kubelet(self, host: Host, now: datetime) -> bool:
        changed = False
        pods = [pod for pod in self.cluster.launchers() if pod["spec"].get("nodeName") == host.name]
        here = {pod["metadata"]["uid"] for pod in pods}
        for guest in self.truth.guests:
            if guest.host is host and guest.pod not in here:
                self.truth.tell(guest, now)
        for pod in pods:
            changed |= self._tend(host, pod, now)
        return changed

    def _tend(self, host: Host, pod: Body, now: datetime) -> bool:
        uid = pod["metadata"]["uid"]
        vm = pod["metadata"]["annotations"]["kubevirt.io/domain"]
        guest = self.truth.guest(uid)
        is_deleting = k.is_deleting(pod)
        here = guest is not None and guest.host is host
        if guest is not None and here and is_deleting:
            self.truth.tell(guest, now)
        if k.phase(pod) in k.FINAL or k.all_ended(pod):
            if guest is not None and here:
                # What was lost is stopped with its sandbox, as soon as the runtime answers.
                self.truth.end(guest, now, fell=True)
            return self._finish(host, pod)
        if k.phase(pod) == "Pending" and not is_deleting:
            if not pod.get("status", {}).get("containerStatuses"):
                return self._run(pod)
            return False
        is_lost = self._knows_nothing_of(host, pod, guest)
        has_ended = guest is not None and here and guest.ended is not None
        never_ran = guest is None and is_deleting
        if not (is_lost or has_ended or never_ran):
            return False
        if is_lost:
            states = dict.fromkeys(_containers(pod), LOST)
        else:
            code = 137 if guest is not None and guest.fell else 0
            reason = "Error" if code else "Completed"
            ended = {
                "terminated": {
                    "exitCode": code,
                    "reason": reason,
                    "finishedAt": self.cluster.text(now),
                }
            }
            states = dict.fromkeys(_containers(pod), ended)
            if vm in self.surviving:
                states |= {name: {"running": {}} for name in states if name != "compute"}
        return self.report(pod, states, keeps_phase=vm in self.running_phase and is_deleting)

    def _knows_nothing_of(self, host: Host, pod: Body, guest: Guest | None) -> bool:
        """Whether the machine was switched on, or put there, after the pod had run elsewhere."""
        if k.phase(pod) != "Running":
            return False
        if guest is not None and guest.host is not host:
            return True
        made = k.parsed(pod["metadata"]["creationTimestamp"])
        return host.booted is not None and made < host.booted

    def _run(self, pod: Body) -> bool:
        states: dict[str, Body] = {name: {"running": {}} for name in _containers(pod)}
        return self.report(pod, states)

    def report(self, pod: Body, states: dict[str, Body], *, keeps_phase: bool = False) -> bool:
        """Write how the containers of a pod are."""
        ended = all("terminated" in state for state in states.values())
        phase = "Running"
        if ended and not keeps_phase:
            codes = [state["terminated"]["exitCode"] for state in states.values()]
            phase = "Failed" if any(codes) else "Succeeded"
        ready = not any("terminated" in state for state in states.values())
        condition = {"type": "Ready", "status": "True" if ready else "False"}
        status = {
            "phase": phase,
            "conditions": k.with_condition(pod, condition),
            "containerStatuses": [k.container_status(*item) for item in states.items()],
        }
        return self.cluster.patch(pod, {"status": status})

    def _finish(self, host: Host, pod: Body) -> bool:
        """The pod goes once its containers have ended and its volumes are unmounted."""
        if not k.is_deleting(pod) or not host.unmounts:
            return False
        return self.cluster.delete(pod, gracePeriodSeconds=0)

    # virt-handler

    def _handler(self, host: Host, now: datetime) -> bool:
        changed = False
        instances = self.cluster.every(k.VMI)
        known = {vmi["metadata"]["uid"]: vmi for vmi in instances}
        for guest in self.truth.guests:
            if guest.host is host and guest.ended is None:
                vmi = known.get(guest.vmi)
                if vmi is None or k.is_deleting(vmi):
                    self.truth.tell(guest, now)
        for vmi in instances:
            if vmi["status"].get("nodeName") == host.name:
                changed |= self._serve(host, vmi, now)
        return changed

    def _serve(self, host: Host, vmi: Body, now: datetime) -> bool:
        uid, name = vmi["metadata"]["uid"], vmi["metadata"]["name"]
        if k.phase(vmi) == "Scheduled" and not k.is_deleting(vmi):
            for pod in self.cluster.launchers_of(vmi):
                if pod["spec"].get("nodeName") != host.name or not _computes(pod):
                    continue
                if self.truth.guest(pod["metadata"]["uid"]) is None:
                    self.truth.start(self.new_guest(vmi, pod, host, now))
                since = {"phase": "Running", "phaseTransitionTimestamp": self.cluster.text(now)}
                transitions = [*vmi["status"].get("phaseTransitionTimestamps", ()), since]
                status = {"phase": "Running", "phaseTransitionTimestamps": transitions}
                return self.cluster.patch(vmi, {"status": status})
        if k.phase(vmi) not in ("Scheduled", "Running"):
            return False
        own = [guest for guest in self.truth.guests if guest.vmi == uid]
        ended = [guest for guest in own if guest.host is host and guest.ended]
        if ended and not any(guest.runs for guest in own):
            fell = ended[-1].fell or name in self.stubborn
            return self.conclude(vmi, "Failed" if fell else "Succeeded", now)
        return False

    def conclude(self, vmi: Body, phase: str, now: datetime) -> bool:
        """virt-handler writes the final phase of a VMI, and the API server records who wrote it."""
        changed = self.cluster.patch(vmi, {"status": {"phase": phase}})
        saw = {
            "manager": "virt-handler",
            "operation": "Update",
            "apiVersion": vmi["apiVersion"],
            "time": self.cluster.text(now),
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:status": {"f:phase": {}}},
        }
        again = self.cluster.there(vmi)
        if again is not None:
            self.cluster.patch(again, {"metadata": {"managedFields": [saw]}})
        return changed

    def new_guest(
        self, vmi: Body, pod: Body, host: Host, now: datetime, *, is_incoming: bool = False
    ) -> Guest:
        """A QEMU for a VMI in a pod."""
        name = vmi["metadata"]["name"]
        return Guest(
            name,
            vmi["metadata"]["uid"],
            pod["metadata"]["uid"],
            host,
            k.grace_of(vmi),
            name not in self.stubborn,
            now,
            is_incoming=is_incoming,
        )


def _containers(pod: Body) -> list[str]:
    return [container["name"] for container in pod["spec"]["containers"]]


def _computes(pod: Body) -> bool:
    return any(
        one["name"] == "compute" and "running" in one["state"]
        for one in pod.get("status", {}).get("containerStatuses", ())
    )
