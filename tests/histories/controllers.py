"""KubeVirt's virt-controller and Kubernetes' garbage collector, as far as a deletion needs them.

They see objects only. What they do was read in their source, release 1.8.3 and 1.35.4; each
function names the one that it follows. Beside the real virt-controller nothing of this runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta

from tests.histories import cluster as k
from tests.histories.cluster import Body, Cluster

HEARTBEAT_TIMEOUT = timedelta(minutes=5)


@dataclass
class VirtController:
    """`pkg/virt-controller/watch`."""

    cluster: Cluster
    extra: tuple[str, ...] = ()
    """Finalizers that others put on each VMI."""
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def act(self) -> bool:
        """Go once through everything; whether anything was changed."""
        changed = False
        for node in self.cluster.every(k.NODE):
            changed |= self._node(node)
        for vmi in self.cluster.every(k.VMI):
            changed |= self._instance(vmi)
        for vm in self.cluster.every(k.VM):
            changed |= self._machine(vm)
        for migration in self.cluster.every(k.MIGRATION):
            changed |= self._migration(migration)
        return changed

    # watch/node/node.go: checkNodeForOrphanedAndErroredVMIs

    def _node(self, node: Body) -> bool:
        beat = node["metadata"].get("annotations", {}).get("kubevirt.io/heartbeat")
        if beat is None or k.parsed(beat) >= self.cluster.now() - HEARTBEAT_TIMEOUT:
            return False
        name = node["metadata"]["name"]
        alive = {
            k.controller(pod)
            for pod in self.cluster.launchers()
            if pod["spec"].get("nodeName") == name
            and not k.all_ended(pod)
            and k.phase(pod) not in k.FINAL
        }
        changed = False
        for vmi in self.cluster.every(k.VMI):
            on_it = vmi["status"].get("nodeName") == name
            is_active = k.phase(vmi) in ("Running", "Scheduled")
            if on_it and is_active and vmi["metadata"]["uid"] not in alive:
                failed = {"phase": "Failed", "reason": "NodeUnresponsive"}
                changed |= self.cluster.patch(vmi, {"status": failed})
        return changed

    # watch/vmi/lifecycle.go: sync, updateStatus

    def _instance(self, vmi: Body) -> bool:
        pods = self.cluster.launchers_of(vmi)
        changed = False
        if k.is_deleting(vmi):
            for pod in pods:
                if not k.is_deleting(pod) or k.phase(pod) in k.FINAL:
                    before = pod["metadata"]["resourceVersion"]
                    self.cluster.delete(pod)
                    after = self.cluster.there(pod)
                    changed |= after is None or after["metadata"]["resourceVersion"] != before
            pods = self.cluster.launchers_of(vmi)
        elif not pods and k.phase(vmi) == "Pending" and not self._migrates(vmi):
            body = k.launcher(vmi, f"{next(self._numbers):05}")
            body["metadata"]["namespace"] = self.cluster.namespace
            self.cluster.create(body)
            return True
        status = self._status(vmi, pods)
        finalizers = list(vmi["metadata"].get("finalizers", ()))
        if k.phase(vmi) in k.FINAL:
            if not pods:
                finalizers = _without(finalizers, k.FOREGROUND_VMI)
            if not self._has_owner(vmi):
                finalizers = _without(finalizers, k.CONTROLLER)
        change: Body = {"status": status}
        if finalizers != vmi["metadata"].get("finalizers", []):
            change["metadata"] = {"finalizers": finalizers}
        return changed | self.cluster.patch(vmi, change)

    def _status(self, vmi: Body, pods: list[Body]) -> Body:
        status, phase = vmi["status"], k.phase(vmi)
        node = status.get("nodeName")
        current = [pod for pod in pods if not node or pod["spec"].get("nodeName") == node]
        pod = max(current, key=lambda one: one["metadata"]["creationTimestamp"], default=None)
        new = phase
        if phase == "Pending":
            if pod is not None:
                new = "Scheduling"
            elif k.is_deleting(vmi):
                new = "Failed"
        elif phase == "Scheduling":
            if pod is None or _is_going_down(pod):
                new = "Failed"
            elif k.phase(pod) == "Running":
                new, node = "Scheduled", pod["spec"]["nodeName"]
        elif phase in ("Running", "Scheduled") and pod is None:
            new = "Failed"
        active: Body = {one["metadata"]["uid"]: one["spec"].get("nodeName", "") for one in pods}
        for uid in status.get("activePods", {}):
            active.setdefault(uid, None)
        return {
            "phase": new,
            "activePods": active,
            "conditions": [_ready(vmi, pod)],
            **({"nodeName": node} if node else {}),
        }

    def _migrates(self, vmi: Body) -> bool:
        return any(
            migration["spec"]["vmiName"] == vmi["metadata"]["name"]
            and k.phase(migration) not in k.FINAL
            for migration in self.cluster.every(k.MIGRATION)
        )

    def _has_owner(self, vmi: Body) -> bool:
        vm = self.cluster.get(k.VM, vmi["metadata"]["name"])
        return vm is not None and vm["metadata"]["uid"] == k.controller(vmi)

    # watch/vm/vm.go: sync, syncRunStrategy, updateStatus

    def _machine(self, vm: Body) -> bool:
        name = vm["metadata"]["name"]
        vmi = self.cluster.get(k.VMI, name)
        is_others = vmi is not None and k.controller(vmi) != vm["metadata"]["uid"]
        if is_others:  # it belongs to a VM that was there before, and is in the way of a new one
            vmi = None
        finalizers = vm["metadata"].get("finalizers", [])
        if k.is_deleting(vm):
            if vmi is None or k.ORPHAN in finalizers:
                left = _without(finalizers, k.CONTROLLER)
                if left != finalizers:
                    return self.cluster.patch(vm, {"metadata": {"finalizers": left}})
                return False
            changed = self._stop(vmi)
            return self._record(vm, self._reread(vmi)) | changed
        if k.CONTROLLER not in finalizers:
            left = [*finalizers, k.CONTROLLER]
            return self.cluster.patch(vm, {"metadata": {"finalizers": left}})
        changed = self._run_strategy(vm, vmi, may_start=not is_others)
        now = self.cluster.there(vm)
        if now is None:
            return True
        return self._record(now, self._reread(vmi)) | changed

    def _run_strategy(self, vm: Body, vmi: Body | None, *, may_start: bool) -> bool:
        strategy = vm["spec"]["runStrategy"]
        if vmi is None:
            started = {
                "Always": True,
                "Once": True,
                "Manual": _is_asked(vm, "Start"),
                "RerunOnFailure": _is_asked(vm, "Start")
                or vm.get("status", {}).get("runStrategy") != strategy,
            }.get(strategy, False)
            return started and may_start and self._start(vm)
        is_stopped = _is_asked(vm, "Stop", vmi["metadata"]["uid"])
        if strategy == "Halted":
            return self._stop(vmi)
        if strategy == "Always":
            return (is_stopped or k.phase(vmi) in k.FINAL) and self._stop(vmi)
        if strategy == "Manual":
            return is_stopped and self._stop(vmi)
        has_to_end = is_stopped or k.phase(vmi) in k.FINAL
        if strategy != "RerunOnFailure" or k.is_deleting(vmi) or not has_to_end:
            return False
        changed = self._stop(vmi)
        if k.phase(vmi) == "Failed":
            asked = [*_requests(vm), {"action": "Start"}]
            changed |= self.cluster.patch(vm, {"status": {"stateChangeRequests": asked}})
        return changed

    def _start(self, vm: Body) -> bool:
        body = k.instance(vm, self.extra)
        body["metadata"]["namespace"] = self.cluster.namespace
        return self.cluster.create(body) is not None

    def _stop(self, vmi: Body) -> bool:
        return not k.is_deleting(vmi) and self.cluster.delete(vmi)

    def _reread(self, vmi: Body | None) -> Body | None:
        return self.cluster.there(vmi) if vmi is not None else None

    def _record(self, vm: Body, vmi: Body | None) -> bool:
        """The status of the VM; where that is rejected, the finalizer of the VMI stays."""
        requests = _requests(vm)
        if requests and _is_done(requests[0], vmi):
            requests = requests[1:]
        status: Body = {
            "created": vmi is not None,
            "ready": vmi is not None and _ready(vmi, None, known=True)["status"] == "True",
            "printableStatus": _printable(vm, vmi),
            "stateChangeRequests": requests,
        }
        if vmi is not None or vm.get("status", {}).get("runStrategy"):
            status["runStrategy"] = vm["spec"]["runStrategy"]
        changed = self.cluster.patch(vm, {"status": status})
        again = self.cluster.there(vm)
        if again is not None and not changed:
            written = again.get("status", {})
            if any(written.get(key) != value for key, value in status.items()):
                return False
        if vmi is not None and k.phase(vmi) in k.FINAL:
            had = vmi["metadata"].get("finalizers", [])
            left = _without(had, k.CONTROLLER)
            if left != had:
                changed |= self.cluster.patch(vmi, {"metadata": {"finalizers": left}})
        return changed

    # watch/migration/migration.go: updateStatus

    def _migration(self, migration: Body) -> bool:
        if k.phase(migration) in k.FINAL:
            return False
        vmi = self.cluster.get(k.VMI, migration["spec"]["vmiName"])
        if vmi is None or k.phase(vmi) in k.FINAL:
            return self.cluster.patch(migration, {"status": {"phase": "Failed"}})
        return False


def _without(finalizers: Iterable[str], *gone: str) -> list[str]:
    return [name for name in finalizers if name not in gone]


def _is_going_down(pod: Body) -> bool:
    """`pkg/controller/controller.go`: IsPodDownOrGoingDown."""
    computes = [
        one
        for one in pod.get("status", {}).get("containerStatuses", ())
        if one["name"] == "compute"
    ]
    ended = any("terminated" in one["state"] for one in computes)
    return k.is_deleting(pod) or k.phase(pod) in k.FINAL or ended


def _ready(vmi: Body, pod: Body | None, *, known: bool = False) -> Body:
    """`watch/vmi/lifecycle.go`: syncReadyConditionFromPod."""
    if known:
        for one in vmi["status"].get("conditions", ()):
            if one["type"] == "Ready":
                return dict(one)
        return {"type": "Ready", "status": "False"}
    if pod is None:
        return {"type": "Ready", "status": "False", "reason": "PodNotExists"}
    if _is_going_down(pod):
        return {"type": "Ready", "status": "False", "reason": "PodTerminating"}
    if k.phase(vmi) != "Running":
        return {"type": "Ready", "status": "False", "reason": "GuestNotRunning"}
    for one in pod.get("status", {}).get("conditions", ()):
        if one["type"] == "Ready":
            return {"type": "Ready", "status": one["status"]}
    return {"type": "Ready", "status": "False", "reason": "PodConditionMissing"}


def _requests(vm: Body) -> list[Body]:
    return list(vm.get("status", {}).get("stateChangeRequests", ()))


def _is_asked(vm: Body, action: str, uid: str | None = None) -> bool:
    requests = _requests(vm)
    return bool(requests) and requests[0]["action"] == action and requests[0].get("uid") == uid


def _is_done(request: Body, vmi: Body | None) -> bool:
    """KubeVirt calls it isTrimFirstChangeRequestNeeded."""
    if request["action"] == "Stop":
        return vmi is None or request.get("uid") != vmi["metadata"]["uid"]
    return vmi is not None and not k.is_deleting(vmi) and k.phase(vmi) not in k.FINAL


def _printable(vm: Body, vmi: Body | None) -> str:
    """KubeVirt calls it setPrintableStatus."""
    if k.is_deleting(vm):
        return "Terminating"
    if vmi is None:
        return "Stopped"
    if k.phase(vmi) in k.FINAL:
        return "Stopped"
    if k.is_deleting(vmi):
        return "Stopping"
    return "Running" if k.phase(vmi) == "Running" else "Starting"


@dataclass
class Collector:
    """`pkg/controller/garbagecollector`, in one namespace."""

    cluster: Cluster

    def act(self) -> bool:
        """Go once through everything; whether anything was changed."""
        items = [item for kind in (k.VM, *k.OWNED) for item in self.cluster.every(kind)]
        known = {item["metadata"]["uid"]: item for item in items}
        changed = False
        for item in items:
            changed |= self._look(item, items, known)
        return changed

    def _look(self, item: Body, items: list[Body], known: dict[str, Body]) -> bool:
        meta = item["metadata"]
        dependents = [one for one in items if meta["uid"] in _owners(one)]
        if k.is_deleting(item):
            finalizers = meta.get("finalizers", [])
            if k.ORPHAN in finalizers:
                return self._orphan(item, dependents)
            if k.FOREGROUND not in finalizers:
                return False
            if not any(_blocks(one, meta["uid"]) for one in dependents):
                left = _without(finalizers, k.FOREGROUND)
                return self.cluster.patch(item, {"metadata": {"finalizers": left}})
            return False
        owners = _owners(item)
        if not owners:
            return False
        waiting = {
            uid
            for uid in owners
            if uid in known
            and k.is_deleting(known[uid])
            and k.FOREGROUND in known[uid]["metadata"].get("finalizers", ())
        }
        if any(uid in known and uid not in waiting for uid in owners):
            return False
        policy = "Foreground" if waiting and dependents else "Background"
        return self.cluster.delete(item, propagationPolicy=policy)

    def _orphan(self, item: Body, dependents: list[Body]) -> bool:
        meta = item["metadata"]
        for one in dependents:
            left = [o for o in one["metadata"]["ownerReferences"] if o["uid"] != meta["uid"]]
            self.cluster.patch(one, {"metadata": {"ownerReferences": left or None}})
        left = _without(meta["finalizers"], k.ORPHAN)
        self.cluster.patch(item, {"metadata": {"finalizers": left}})
        return True


def _owners(item: Body) -> list[str]:
    return [owner["uid"] for owner in item["metadata"].get("ownerReferences", ())]


def _blocks(item: Body, owner: str) -> bool:
    return any(
        one["uid"] == owner and one.get("blockOwnerDeletion")
        for one in item["metadata"].get("ownerReferences", ())
    )
