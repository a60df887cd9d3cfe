"""The machines of a story: their kubelets and virt-handlers, and the truth of their guests."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import TypeVar

from tests.histories import cluster as k
from tests.histories.beside import RealNature
from tests.histories.cluster import Body, Cluster
from tests.histories.truth import Guest, Host, Truth
from tests.support.resources import RESOURCES

SIGN_EVERY = timedelta(seconds=2)
"""How often a kubelet reports, instead of every ten seconds."""

PRESSURES = {
    "MemoryPressure": "KubeletHasSufficientMemory",
    "DiskPressure": "KubeletHasNoDiskPressure",
    "PIDPressure": "KubeletHasSufficientPID",
}

T = TypeVar("T")


class Everywhere(Cluster):
    """All namespaces. Each kind is listed once for all that a machine asks in one round."""

    def __init__(self, api: k.Api) -> None:
        super().__init__(api, "default", lambda: datetime.now(timezone.utc))
        self._listed: dict[str, list[Body]] = {}

    def read_anew(self) -> None:
        self._listed.clear()

    def every(self, kind: str, namespace: str | None = None) -> list[Body]:
        if kind not in self._listed:
            status, answer = self.api.request("GET", RESOURCES[kind].path(None))
            assert status == 200, answer
            known = {"apiVersion": RESOURCES[kind].api_version, "kind": kind}
            self._listed[kind] = [{**known, **item} for item in answer["items"]]
        return [
            body
            for body in self._listed[kind]
            if namespace in (None, body["metadata"].get("namespace"))
        ]

    def get(self, kind: str, name: str, namespace: str | None = None) -> Body | None:
        found = self.every(kind, namespace)
        return next((body for body in found if body["metadata"]["name"] == name), None)

    def patch(self, body: Body, change: Body) -> bool:
        changed = super().patch(body, change)
        if changed:
            self._listed.pop(body["kind"], None)
        return changed

    def delete(self, body: Body, **options: object) -> bool:
        self._listed.pop(body["kind"], None)
        return super().delete(body, **options)


class Kubelets(RealNature):
    """What happens on the nodes; kube-controller-manager does the rest."""

    def __init__(self, cluster: Cluster, truth: Truth) -> None:
        super().__init__(cluster, truth, lifecycle_works=False)
        self._signed: dict[str, datetime] = {}

    def _signs(self, host: Host, now: datetime) -> bool:
        """Lease, conditions and heartbeat, as often as a host gives a sign of life."""
        if now - self._signed.get(host.name, now - SIGN_EVERY) < SIGN_EVERY:
            return False
        node = self.cluster.get(k.NODE, host.name)
        if node is None:
            return False
        self._signed[host.name] = now
        written = self.cluster.text(now)
        lease = self.cluster.get("Lease", host.name, k.LEASES)
        if host.speaks and lease is not None:
            renewed = written.replace("Z", ".000000Z")
            self.cluster.patch(lease, {"spec": {"renewTime": renewed}})
            self.cluster.patch(node, {"status": {"conditions": self._conditions(node, written)}})
        if host.hears_guests:
            beat = {"kubevirt.io/heartbeat": written}
            self.cluster.patch(node, {"metadata": {"annotations": beat}})
            self._handler_pod(host)
        return True

    def _conditions(self, node: Body, written: str) -> list[Body]:
        """All is well."""
        old = {one["type"]: one for one in node.get("status", {}).get("conditions", ())}
        wanted = {**dict.fromkeys(PRESSURES, "False"), "Ready": "True"}
        reasons = {**PRESSURES, "Ready": "KubeletReady"}
        return [
            {
                "type": name,
                "status": status,
                "reason": reasons[name],
                "lastHeartbeatTime": written,
                "lastTransitionTime": old[name]["lastTransitionTime"]
                if old.get(name, {}).get("status") == status
                else written,
            }
            for name, status in wanted.items()
        ]


class Machines:
    """Hosts that go on by themselves, in a thread of their own."""

    def __init__(self, api: k.Api) -> None:
        self.cluster = Everywhere(api)
        self.truth = Truth()
        self._kubelets = Kubelets(self.cluster, self.truth)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._go_on, daemon=True)
        self.failure = ""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def between_rounds(self, act: Callable[[], T]) -> T:
        """Do something while no machine does anything."""
        with self._lock:
            return act()

    def switch_on(self, name: str) -> None:
        """A host that has just been installed, or had lost its power."""

        def act() -> None:
            now = self.cluster.now()
            for host in self.truth.hosts:
                if host.name == name:
                    self.truth.pass_to(now)
                    host.power, host.booted = True, now
                    return
            self.truth.hosts.append(Host(name))

        self.between_rounds(act)

    def cut_power(self, *names: str) -> None:
        """At once, and without a word."""

        def act() -> None:
            for name in names:
                self.truth.host(name).power = False
            self.truth.pass_to(self.cluster.now())

        self.between_rounds(act)

    def alive(self) -> list[str]:
        """The hosts that have power."""
        return [host.name for host in self.truth.hosts if host.power]

    def place(self, vm: str, host: str) -> None:
        """The first guest of the VM of this name is to run there."""
        self._kubelets.first_places[vm] = host

    def guests(self, vm: str) -> list[Guest]:
        """Those that run at this moment; there is never more than one."""
        assert not self.failure, self.failure
        assert self.truth.overlaps == []
        return self.truth.running(vm)

    def _go_on(self) -> None:
        while not self._stopped.wait(0.3):
            try:
                with self._lock:
                    self.cluster.read_anew()
                    self._kubelets.act()
            except Exception:  # noqa: BLE001 - whoever looks at a guest is told
                self.failure = traceback.format_exc()
                time.sleep(1)
