"""The same histories beside KubeVirt's own virt-controller and a real API server.

Only kubelets, virt-handlers, the scheduler, the garbage collector and people are played. The API
server's clock cannot be moved: what a history makes pass, passes in `truth`, and what silent nodes
wrote last becomes that much older. So time never goes on less for a guest than for who reads.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from tests.components.controlplane.server import ControlPlane
from tests.components.virtcontroller.server import VirtController
from tests.histories import cluster as k
from tests.histories.cluster import Body, Cluster
from tests.histories.nature import Nature
from tests.histories.oracle import Ran
from tests.histories.play import NODES, History, Play, Step, Told
from tests.histories.truth import Host
from tests.support.relay import Answer, Passed, PassOn
from tests.support.world import World

QUIET, QUIET_AT_LAST = 0.8, 2.5
"""Seconds in which nothing changes: virt-controller is done. It gets more of them after a run, and
at the end of the story."""
PATIENCE = 12.0
REMEMBERED = 0.25

SHORT, LONG = 1, 3600
"""Grace periods in seconds: one is over soon by the clock of the API server, the other never."""

HEARTBEAT: Body = {"f:metadata": {"f:annotations": {"f:kubevirt.io/heartbeat": {}}}}
RENEWAL: Body = {"f:spec": {"f:renewTime": {}}}
"""Signs of life, as `metadata.managedFields` has them."""

# What needs more of KubeVirt than its virt-controller is left out of a history.
NOT_HERE = {"vm": {"sidecar", "disks"}}


@dataclass
class RealCluster(Cluster):
    """It remembers for a moment what was read, for those who are played read the same often."""

    _read: dict[str, tuple[float, tuple[int, Body]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._api, self.api = self.api, self

    def request(self, method: str, path: str, body: object | None = None, *,
                content_type: str = "application/json", user: str = "admin"
                ) -> tuple[int, Body]:  # fmt: skip
        now = time.monotonic()
        if method == "GET" and path in self._read and now - self._read[path][0] < REMEMBERED:
            return self._read[path][1]
        answer = self._api.request(method, path, body, content_type=content_type, user=user)
        if method == "GET":
            self._read[path] = (now, answer)
        else:
            self._read.clear()
        return answer

    def read_anew(self) -> None:
        self._read.clear()


class RealNature(Nature):
    """Pods are bound as the scheduler does it; virt-api's webhook is played, too."""

    strangers: tuple[str, ...] = ()

    def bind(self, pod: Body, host: Host) -> bool:
        meta = pod["metadata"]
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": meta["name"]},
            "target": {"apiVersion": "v1", "kind": k.NODE, "name": host.name},
        }
        path = f"{self.cluster.path(k.POD, meta['name'], meta['namespace'])}/binding"
        return self.cluster.api.request("POST", path, binding)[0] == 201

    def act(self) -> bool:
        changed = False
        for vmi in self.cluster.every(k.VMI):
            had = vmi["metadata"].get("finalizers", [])
            annotations = vmi["metadata"].get("annotations", {})
            if "histories/seen" in annotations or k.is_deleting(vmi):
                continue
            added = [*had, *(f for f in (k.FOREGROUND_VMI, *self.strangers) if f not in had)]
            seen = {"annotations": {"histories/seen": "yes"}, "finalizers": added}
            changed |= self.cluster.patch(vmi, {"metadata": seen})
        return changed | super().act()


class RealPlay(Play):
    """One history beside virt-controller."""

    server: Any
    patience = ("--settle=3s", "--timeout=15s")

    def __init__(self, api: ControlPlane, world: World, controller: VirtController) -> None:
        self.process = controller
        self._waited_for = 0
        # What only the simulator can do is overridden below.
        super().__init__(api, world)  # type: ignore[arg-type]

    def _cluster(self) -> Cluster:
        return RealCluster(self.server, self.world.namespace, lambda: datetime.now(timezone.utc))

    def _set_up(self) -> None:
        for name in (self.cluster.namespace, k.SYSTEM, k.LEASES):
            self.server.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        self.nature = RealNature(self.cluster, self.truth)
        for name in NODES:
            self._join(Host(name))
        self.began = self.cluster.now()
        time.sleep(1.1)  # no VM is as old as its node
        self.settle()

    def _state(self) -> list[tuple[str, str]]:
        kinds = (k.VM, k.VMI, k.POD)
        return [
            (item["metadata"]["uid"], item["metadata"]["resourceVersion"])
            for kind in kinds
            for item in self.cluster.every(kind)
        ]

    def settle(self) -> None:
        """Play until neither virt-controller nor anybody else does anything.

        Those who are played act when something has changed, and when it is their time.
        """
        end = time.monotonic() + PATIENCE
        quiet, seen = time.monotonic(), None
        due: datetime | None = None
        enough = QUIET if self._waited_for == len(self.changes) else QUIET_AT_LAST
        self._waited_for = len(self.changes)
        while time.monotonic() < min(end, quiet + enough):
            self.cluster.read_anew()
            state = self._state()
            if state != seen or (due and due <= self.cluster.now()):
                self.nature.act()
                self.collector.act()
                self._tell_of_guests()
                due = self.nature.next_change()
            if state != seen:
                quiet, seen = time.monotonic(), state
            time.sleep(0.2)

    def wait(self, minutes: float) -> None:
        """The history goes on; what silent nodes wrote gets older."""
        if minutes < 1:
            return
        span = timedelta(minutes=minutes)
        for host in self.truth.hosts:
            if not host.is_replaced:
                self._age(host.name, span)
        end = self.cluster.passed + span
        while self.cluster.passed < end:
            due = self.nature.next_change()
            left = end - self.cluster.passed
            step = min(max(due - self.cluster.now(), timedelta(seconds=1)), left) if due else left
            self.cluster.passed += step
            self.settle()

    def _age(self, name: str, span: timedelta) -> None:
        node = self.cluster.get(k.NODE, name)
        lease = self.cluster.get("Lease", name, k.LEASES)
        if node is None or lease is None:
            return
        renewed = k.parsed(lease["spec"]["renewTime"]) - span
        written = k.text(renewed).replace("Z", ".000000Z")
        self._predate(lease, {"spec": {"renewTime": written}}, RENEWAL, span)
        beat = k.parsed(node["metadata"]["annotations"]["kubevirt.io/heartbeat"]) - span
        annotations = {"kubevirt.io/heartbeat": k.text(beat)}
        conditions = [
            {**one, **{key: k.text(k.parsed(one[key]) - span)
                       for key in ("lastHeartbeatTime", "lastTransitionTime") if one.get(key)}}
            for one in node["status"]["conditions"]
        ]  # fmt: skip
        change = {"metadata": {"annotations": annotations}, "status": {"conditions": conditions}}
        self._predate(node, change, HEARTBEAT, span)

    def _predate(self, body: Body, change: Body, sign: Body, span: timedelta) -> None:
        """Change a sign of life, and the record of when it was stored.

        The record gets a manager of its own, for the API server takes back what changes nothing
        but the times of records (`staging/src/k8s.io/apiserver/pkg/endpoints/handlers/
        fieldmanager/equality.go`: IgnoreManagedFieldsTimestampsTransformer).
        """
        stored = max(
            k.parsed(entry["time"])
            for entry in body["metadata"]["managedFields"]
            if k.holds(entry["fieldsV1"], sign)
        )
        self.cluster.patch(body, change)
        entry = {
            "manager": "host",
            "operation": "Update",
            "apiVersion": body["apiVersion"],
            "time": k.text(stored - span),
            "fieldsType": "FieldsV1",
            "fieldsV1": sign,
        }
        self.cluster.patch(body, {"metadata": {"managedFields": [entry]}})

    def finish(self) -> None:
        """All that holds a second guest back goes, and virt-controller gets its time."""
        super().finish()
        if self.changes:
            self._waited_for = 0
            self.settle()
            self._check_guests()

    def controllers(self, works: bool) -> None:
        if works != self.controller_works:
            self.controller_works = works
            if works:
                self.process.start()
            else:
                self.process.stop()
        self.settle()

    def _hold_by(self, strangers: tuple[str, ...]) -> None:
        """It is the webhook that puts them on a VMI: the real controller is asked for nothing."""
        assert isinstance(self.nature, RealNature)
        self.nature.strangers = strangers

    def _announce(self, job: str, name: str) -> None:
        """No object tells of the migration: the real controller would begin it anew."""

    @contextlib.contextmanager
    def _witnessed(
        self,
        ran: Ran,
        *,
        fast: bool,  # noqa: ARG002 - the real virt-controller has its own pace
        meanwhile: tuple[str, str, str] | None,
    ) -> Iterator[None]:
        stand = self._stand(ran, fast=False, meanwhile=meanwhile)

        def between(request: Passed, pass_on: PassOn) -> Answer | None:
            answers: list[Answer] = []

            def do() -> int:
                answers.append(pass_on())
                return answers[0].status

            stand(request.method, request.path, request.body, do)
            return answers[0] if answers else pass_on()

        with self.world.past(between) as environ:
            self.program = lambda *words: self.world.run(*words, environ=environ)
            yield

    def clean_up(self) -> None:
        """Nothing is left for the next history."""
        self.veto(False)
        self.controllers(True)
        names = {host.name for host in self.truth.hosts}
        self.server.wipe(self.cluster.namespace)
        for name in names:
            for body in (k.node(name), k.lease(name), k.handler(name)):
                path = self.cluster.path(
                    body["kind"], body["metadata"]["name"], body["metadata"].get("namespace")
                )
                self.server.request("DELETE", path, {"gracePeriodSeconds": 0})


def beside(history: History) -> History:
    """A history without what only the simulated tier can play."""
    steps = []
    for step in history:
        left = {
            key: value for key, value in step.arguments if key not in NOT_HERE.get(step.name, ())
        }
        if "grace" in left:
            left["grace"] = SHORT if left["grace"] < LONG else LONG
        steps.append(Step.of(step.name, **left))
    return tuple(steps)


def played_beside(
    api: ControlPlane, world: World, controller: VirtController, history: History
) -> Told:
    """Play a history to its end beside virt-controller."""
    play = RealPlay(api, world, controller)
    try:
        return play.through(beside(history))
    finally:
        play.clean_up()
