"""The steps of a history, and the stage that they are played on."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from tests.histories import cluster as k
from tests.histories.cluster import Body, Cluster
from tests.histories.controllers import Collector, VirtController
from tests.histories.nature import LOST, Nature
from tests.histories.oracle import Change, Clear, Ran, Witness, Wrong, check_data, check_end, data
from tests.histories.truth import Guest, Host, Truth
from tests.support.simulator import Simulator
from tests.support.simulator.exchange import Exchange
from tests.support.world import Run, World

NODES = ("n1", "n2", "n3")
BEGIN = datetime(2026, 11, 23, 3, 0, tzinfo=timezone.utc)
ROUNDS = 40
A_MOMENT = 5 / 60
"""Minutes between two steps, as nobody does two things in the same second."""

MOMENTS = ("looked", "tried", "told", "looking again")
"""After the first look, at the dry run, after the first change, and at the look that follows."""


@dataclass(frozen=True)
class Step:
    """One step: the name of a method of `Play`, and its arguments."""

    name: str
    arguments: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, step: str, /, **arguments: Any) -> Step:
        return cls(step, tuple(arguments.items()))

    def __str__(self) -> str:
        told = ", ".join(f"{key}={value!r}" for key, value in self.arguments)
        return f"{self.name}({told})"


History = tuple[Step, ...]


@dataclass
class Told:
    """What a history came to."""

    wrong: list[Wrong] = field(default_factory=list)
    story: list[str] = field(default_factory=list)
    released: int = 0
    """Runs that ended well and changed something."""
    refused: int = 0
    had_to: int = 0
    """Runs that had to release."""
    alone: list[str] = field(default_factory=list)
    """Second guests in a history without the program."""
    lied: int = 0
    """Second guests after a false word that nobody could check."""


@dataclass
class SimulatedCluster(Cluster):
    """It reads again only what changed, for those who are played read the same often."""

    api: Simulator
    _read: dict[tuple[str, str | None, str | None], tuple[int, Any]] = field(default_factory=dict)

    def get(self, kind: str, name: str, namespace: str | None = None) -> Body | None:
        found: Body | None = self._unchanged(kind, name, namespace, super().get)
        return found

    def every(self, kind: str, namespace: str | None = None) -> list[Body]:
        found: list[Body] = self._unchanged(kind, None, namespace, super().every)
        return found

    def _unchanged(
        self, kind: str, name: str | None, namespace: str | None, read: Callable[..., Any]
    ) -> Any:
        version, place = self.api.version_of(kind), (kind, name, namespace)
        known = self._read.get(place)
        if known is None or known[0] != version:
            words = [word for word in (kind, name, namespace) if word is not None]
            known = (version, read(*words))
            self._read[place] = known
        return known[1]


class Play:
    """One history on the simulated API server."""

    patience: tuple[str, ...] = ("--settle=0", "--timeout=0")

    def __init__(
        self, server: Simulator, world: World, program: Callable[..., Run] | None = None
    ) -> None:
        self.server = server
        self.world = world
        self.program = program or world.run
        self.is_idle = False
        """Whether the program is left out, to see what happens without it."""
        self.told = Told()
        self.truth = Truth()
        self.abroad = Host("west-7", linked=False)
        """A machine of another cluster."""
        self.cluster = self._cluster()
        self.nature = Nature(self.cluster, self.truth)
        self.controller = VirtController(self.cluster)
        self.collector = Collector(self.cluster)
        self.controller_works = True
        self.changes: list[Change] = []
        self._veto: Any = None
        self._steady: dict[int, datetime] = {}
        self._judged = 0
        self._guests: dict[int, tuple[Guest, bool, datetime | None]] = {}
        self.began = BEGIN
        self._set_up()

    def _cluster(self) -> Cluster:
        return SimulatedCluster(self.server, self.world.namespace, self.server.clock.now)

    def _set_up(self) -> None:
        for name in (self.cluster.namespace, k.SYSTEM):
            self.server.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        clock = self.server.clock
        clock.stop(BEGIN - timedelta(days=30))
        for name in NODES:
            self._join(Host(name))
        clock.stop(BEGIN)
        self.settle()

    def _join(self, host: Host) -> None:
        self.truth.hosts.append(host)
        self._steady[id(host)] = self.cluster.now()
        for body in (k.node(host.name), k.lease(host.name), k.handler(host.name)):
            if self.server.get(body) is None:
                self.server.create(body)

    # Time

    def say(self, what: str) -> None:
        minutes = (self.cluster.now() - self.began).total_seconds() / 60
        self.told.story.append(f"{minutes:6.1f} min  {what}")

    def settle(self) -> None:
        """Let everybody who works do what is due now."""
        for _ in range(ROUNDS):
            changed = self.nature.act()
            if self.controller_works:
                changed |= self.controller.act()
            changed |= self.collector.act()
            self._tell_of_guests()
            if not changed:
                return

    def _tell_of_guests(self) -> None:
        """Note what became of the guests, for the reader of the history."""
        state = {id(guest): (guest, guest.runs, guest.told) for guest in self.truth.guests}
        old = self._guests
        for key, (guest, runs, told) in state.items():
            _, ran, was_told = old.get(key, (guest, False, None))
            if runs and not ran:
                self.say(f"  [{guest} runs]")
            if told and not was_told and guest.ended is None:
                self.say(f"  [{guest} is told to stop, and would until {guest.dies:%H:%M:%S}]")
            if ran and not runs:
                self.say(f"  [{guest} has ended]")
        self._guests = state

    def wait(self, minutes: float) -> None:
        """Time passes, and what is due happens."""
        end = self.cluster.now() + timedelta(minutes=minutes)
        for _ in range(200):
            due = self.nature.next_change()
            moment = min(due, end) if due else end
            self.server.clock.stop(max(moment, self.cluster.now()))
            self.settle()
            if moment >= end:
                return

    # Machines

    def _lose(self, node: str, **parts: bool) -> None:
        host = self.truth.host(node)
        for part, value in parts.items():
            setattr(host, part, value)
        self.settle()

    def cut(self, node: str) -> None:
        """The node loses its network; its guests go on."""
        self._lose(node, linked=False)

    def off(self, node: str) -> None:
        """The node loses its power, and its guests with it."""
        self._lose(node, power=False)

    def hang(self, node: str) -> None:
        """The kubelet hangs; virt-handler and the guests go on."""
        self._lose(node, kubelet=False)

    def mute(self, node: str) -> None:
        """Kubelet and virt-handler hang; the guests go on."""
        self._lose(node, kubelet=False, handler=False)

    def unready(self, node: str) -> None:
        """The kubelet gets no answer from its runtime, and says so; the guests go on."""
        self._lose(node, runtime=False)

    def handlerless(self, node: str) -> None:
        """virt-handler ends; kubelet and guests go on."""
        self._lose(node, handler=False)

    def back(self, node: str) -> None:
        """Everything on the node works again."""
        host = self.truth.host(node)
        if host.power and host.linked and host.kubelet and host.runtime and host.handler:
            return
        if not host.power:
            host.booted = self.cluster.clock()
        host.power = host.linked = host.kubelet = host.runtime = host.handler = True
        self._steady[id(host)] = self.cluster.now()
        self.settle()

    def replace(self, node: str, keeps_pods: bool = False) -> None:
        """A node that is lost gets a new machine of the same name, and a new Node object.

        The garbage collector of pods removes those of the old one, if it takes long enough.
        """
        old = self.truth.host(node)
        if old.speaks or old.hears_guests:
            return
        old.is_replaced = True
        self.server.delete(k.node(node))
        if not keeps_pods:
            self.force(node=node)
        self._join(Host(node))
        self.settle()

    def clock(self, node: str, minutes: int) -> None:
        """The clock of the node is wrong."""
        self.truth.host(node).offset = timedelta(minutes=minutes)
        self.settle()

    def jam(self, node: str) -> None:
        """The kubelet cannot unmap the volumes of ended pods any more (kubernetes #122960)."""
        self.truth.host(node).unmounts = False

    def forget(self, node: str) -> None:
        """The runtime loses sight of its containers, they are said to be lost, then it is cut off.

        The processes go on: the shim of a container outlives the runtime. A node that stays
        stops them with their sandbox, so nobody is held to the seconds before it is silent.
        """
        host = self.truth.host(node)
        if not host.hears_pods:
            return
        host.linked = False
        for pod in self._pods_on(node):
            if k.phase(pod) == "Running":
                states = {one["name"]: LOST for one in pod["spec"]["containers"]}
                vm = pod["metadata"]["annotations"]["kubevirt.io/domain"]
                self.nature.report(pod, states, keeps_phase=vm in self.nature.running_phase)
        self.settle()
        self.wait(1)

    def _pods_on(self, node: str) -> list[Body]:
        return [pod for pod in self.cluster.launchers() if pod["spec"].get("nodeName") == node]

    # VMs

    def vm(
        self,
        name: str,
        node: str = "n1",
        strategy: str = "Always",
        grace: int = 30,
        obeys: bool = True,
        sidecar: str = "",
        hostname: str | None = None,
        disks: str = "",
        strangers: bool = False,
        phase_stays: bool = False,
        uses: str = "",
    ) -> None:
        """A VM, running on a node. `uses`: the VM whose disk it shares."""
        if self.cluster.get(k.VM, name) is not None:
            return
        if not obeys:
            self.nature.stubborn.add(name)
        if sidecar == "survives":
            self.nature.surviving.add(name)
        if phase_stays:
            self.nature.running_phase.add(name)
        self._hold_by((k.STRANGER,) if strangers else ())
        claim = f"{name}-disk"
        body = k.virtual_machine(
            name,
            strategy=strategy,
            grace=grace,
            hostname=hostname,
            disks=(claim,) if disks else (f"{uses}-disk",) if uses else (),
            sidecar=bool(sidecar),
        )
        body["metadata"]["namespace"] = self.cluster.namespace
        self.nature.first_places[name] = node
        made = self.cluster.create(body)
        assert made is not None
        self._make_disks(disks, claim, made)
        self.settle()

    def _make_disks(self, disks: str, claim: str, vm: Body) -> None:
        owner: Body | None = None
        if disks == "restore":
            owner = self._make(k.plain(k.RESTORE, f"{claim}-restore", vm, spec={}))
        elif disks == "datavolume":
            owner = self._make(k.plain(k.DATA_VOLUME, claim, vm, spec={}))
        elif disks == "snapshot":
            source = {"kind": k.VM, "name": vm["metadata"]["name"]}
            spec = {"source": source, "type": "snapshot"}
            backup = self._make(k.plain(k.BACKUP, f"{claim}-backup", vm, spec=spec))
            self._make(k.plain(k.SNAPSHOT, f"{claim}-snapshot", backup, spec={}))
        if disks:
            self._make(k.claim(claim, owner))

    def _make(self, body: Body) -> Body:
        body["metadata"]["namespace"] = self.cluster.namespace
        made = self.cluster.create(body)
        assert made is not None, body
        return made

    def _hold_by(self, strangers: tuple[str, ...]) -> None:
        """Give the next VMI these finalizers of somebody who is not there."""
        self.controller.extra = strangers

    def _running(self, name: str) -> tuple[Body, Guest, Body] | None:
        """The VMI, guest and pod of a VM that runs."""
        vmi = self.cluster.get(k.VMI, name)
        running = self.truth.running(name)
        if vmi is None or len(running) != 1 or running[0].vmi != vmi["metadata"]["uid"]:
            return None
        for pod in self.cluster.launchers_of(vmi):
            if pod["metadata"]["uid"] == running[0].pod:
                return vmi, running[0], pod
        return None

    def migrate(self, name: str, to: str, how: str = "done", hangs: bool = False) -> None:
        """A migration that is `done`, `failed`, `open`, or done and `unseen` by the source.

        `crossed`: it is done, and its target is cut off before it can say so. The virt-handler of
        the source then writes that the migration and the VMI have failed
        (`pkg/virt-handler/migration-source.go`: updateStatus). `hangs`: the pod that is left over
        is being deleted, and cannot be.
        """
        found = self._running(name)
        target = self.truth.host(to)
        if found is None:
            return
        vmi, source, pod = found
        ready = target.speaks and target.hears_guests and target.runtime
        if not ready or target is source.host or not source.host.speaks or k.is_deleting(vmi):
            return
        job = f"{name}-move-{len(self.cluster.every(k.MIGRATION))}"
        self._announce(job, name)
        body = k.launcher(vmi, f"t{len(self.truth.guests):04}", migration=job)
        new = self._make(body)
        self.nature.bind(new, target)
        self.settle()
        new = self.cluster.there(new) or new
        now = self.cluster.now()
        guest = self.nature.new_guest(vmi, new, target, now, is_incoming=True)
        self.truth.start(guest)
        state: Body = {
            "sourceNode": source.host.name,
            "targetNode": to,
            "startTimestamp": self.cluster.text(now),
        }
        if how == "open":
            self.cluster.patch(vmi, {"status": {"migrationState": state}})
        elif how == "failed":
            self.truth.end(guest, now, fell=False)
            state |= {"failed": True, "completed": True, "endTimestamp": self.cluster.text(now)}
            self._end_move(vmi, job, state, "Failed")
        elif how == "done":
            self.truth.switch_over(source, guest, now)
            state |= {"completed": True, "endTimestamp": self.cluster.text(now)}
            self.cluster.patch(vmi, {"status": {"nodeName": to}})
            self._end_move(vmi, job, state, "Succeeded")
        elif how == "unseen":
            self.truth.switch_over(source, guest, now)
            source.host.linked = False
            self.cluster.patch(vmi, {"status": {"migrationState": state}})
        elif how == "crossed":
            self.truth.switch_over(source, guest, now)
            target.linked = False
            state |= {"failed": True, "completed": True, "endTimestamp": self.cluster.text(now)}
            self._end_move(vmi, job, state, "Failed")
            self.nature.conclude(self.cluster.there(vmi) or vmi, "Failed", now)
        if hangs and how in ("failed", "done"):
            left, host = (new, target) if how == "failed" else (pod, source.host)
            host.unmounts = False
            self.settle()
            again = self.cluster.there(left)
            if again is not None:
                self.cluster.patch(again, {"status": {"phase": "Running"}})
                self.cluster.delete(again)
                self.cluster.patch(self.cluster.there(again) or again,
                                   {"status": {"phase": k.phase(again)}})  # fmt: skip
        self.settle()

    def depart(self, name: str, how: str = "open") -> None:
        """A migration to another cluster that has not finished: `open`, or `moved` already.

        What both clusters know of each other is in `sourceState` and `targetState`
        (`staging/src/kubevirt.io/api/core/v1/types.go`: VirtualMachineInstanceMigrationState).
        """
        found = self._running(name)
        if found is None or not found[1].host.speaks or k.is_deleting(found[0]):
            return
        vmi, source, pod = found
        job = f"{name}-departs"
        if self.cluster.get(k.MIGRATION, job) is not None:
            return
        self._announce(job, name)
        now = self.cluster.now()
        guest = self.nature.new_guest(vmi, pod, self.abroad, now, is_incoming=True)
        guest.pod = f"{guest.pod}-abroad"
        self.truth.start(guest)
        ends = (("source", source.host.name, "10.0.0.1"), ("target", self.abroad.name, "10.1.0.1"))
        state: Body = {"startTimestamp": self.cluster.text(now)}
        for end, node, address in ends:
            state[f"{end}Node"] = node
            state[f"{end}State"] = {"node": node, "syncAddress": f"{address}:9185"}
        self.cluster.patch(vmi, {"status": {"migrationState": state}})
        if how == "moved":
            self.truth.switch_over(source, guest, now)
        self.settle()

    def _announce(self, job: str, name: str) -> None:
        spec = {"vmiName": name}
        self._make(k.plain(k.MIGRATION, job, spec=spec, status={"phase": "Running"}))

    def _end_move(self, vmi: Body, job: str, state: Body, phase: str) -> None:
        self.cluster.patch(self.cluster.there(vmi) or vmi, {"status": {"migrationState": state}})
        found = self.cluster.get(k.MIGRATION, job)
        if found:
            self.cluster.patch(found, {"status": {"phase": phase}})

    def end(self, name: str, how: str = "shutdown") -> None:
        """The guest shuts down or crashes by itself."""
        for guest in self.truth.running(name):
            self.truth.end(guest, self.cluster.now(), fell=how == "crash")
        self.settle()

    # Users and operators

    def stop(self, name: str) -> None:
        """Stop in Harvester's UI: the VM shall not run."""
        self._patch(name, {"spec": {"runStrategy": "Halted"}})

    def restart(self, name: str) -> None:
        """`virtctl restart`."""
        vmi = self.cluster.get(k.VMI, name)
        if vmi is not None:
            asked = [{"action": "Stop", "uid": vmi["metadata"]["uid"]}, {"action": "Start"}]
            self._patch(name, {"status": {"stateChangeRequests": asked}})

    def _patch(self, name: str, change: Body) -> None:
        vm = self.cluster.get(k.VM, name)
        if vm is not None:
            self.cluster.patch(vm, change)
            self.settle()

    def delete(self, name: str, policy: str = "Background") -> None:
        """Delete the VM."""
        self._delete(k.VM, name, propagationPolicy=policy)

    def delete_vmi(self, name: str) -> None:
        """Delete the VMI."""
        self._delete(k.VMI, name)

    def _delete(self, kind: str, name: str, **options: Any) -> None:
        found = self.cluster.get(kind, name)
        if found is not None and not k.is_deleting(found):
            self.cluster.delete(found, **options)
            self.settle()

    def evict(self, name: str) -> None:
        """`kubectl delete pod`, without force."""
        vmi = self.cluster.get(k.VMI, name)
        for pod in self.cluster.launchers_of(vmi) if vmi else ():
            if not k.is_deleting(pod):
                self.cluster.delete(pod)
        self.settle()

    def force(self, name: str | None = None, node: str | None = None) -> None:
        """`kubectl delete pod --force`; also what `out-of-service` does to all pods of a node."""
        if self.changes:
            return  # from there on, it would not be the program who lets a second guest start
        for pod in self.cluster.launchers():
            own = pod["metadata"]["annotations"]["kubevirt.io/domain"]
            if name in (None, own) and node in (None, pod["spec"].get("nodeName")):
                self.cluster.delete(pod, gracePeriodSeconds=0)
        self.settle()

    def controllers(self, works: bool) -> None:
        """virt-controller ends, or works again."""
        self.controller_works = works
        self.settle()

    def lifecycle(self, works: bool) -> None:
        """kube-controller-manager stops marking nodes that are silent, or begins again."""
        self.nature.lifecycle_works = works
        self.settle()

    def veto(self, on: bool) -> None:
        """Harvester's webhook rejects every update of a VM (harvester #5515)."""
        if self._veto is not None:
            self._veto.remove()
            self._veto = None
        if on:
            words = "PVC shop/disk is already used by other VM"
            namespace = self.cluster.namespace
            self._veto = self.server.deny_updates("virtualmachines", words, namespace=namespace)
        self.settle()

    # The program

    def unstick(
        self,
        targets: tuple[str, ...] = ("vm", "web"),
        stated: tuple[str, ...] = (),
        flags: tuple[str, ...] = (),
        fast: bool = True,
        meanwhile: tuple[str, str, str] | None = None,
    ) -> None:
        """Run the program, and say yes.

        With `fast` the controllers react before the answer to a change; else when it has ended.
        `meanwhile`: at one of `MOMENTS`, something happens to a node.
        """
        if self.is_idle:
            return
        overridden = frozenset(
            flags[number + 1] for number, word in enumerate(flags) if word == "--override"
        )
        names = None if "--all" in targets or "--node" in targets else frozenset(targets[1:])
        ran = Ran(frozenset(stated), overridden, names)
        clear = Clear(self.cluster, self.truth, lambda host: self._steady[id(host)])
        only = next(iter(names)) if names is not None and len(names) == 1 else None
        had_to = (
            only is not None
            and self._veto is None
            and meanwhile is None
            and targets[0] == "vm"
            and set(flags) <= {"--dry-run=none"}
            and not self._is_clash(only)
            and clear.must_go(only, ran.stated)
            and not any(only in datum.vms for datum in data(self.cluster))
        )
        words = [word for node in stated for word in ("--node-powered-off", node)]
        arguments = (
            *("unstick", *targets, *words, *flags),
            *("--yes", "--older-than=0s", *self.patience, "-o", "json"),
        )
        before = data(self.cluster)
        with self._witnessed(ran, fast=fast, meanwhile=meanwhile):
            run = self.program(*arguments)
        status = run.status.name
        self.say(f"  [{status}: {', '.join(map(str, ran.changes)) or 'nothing changed'}]")
        self.told.wrong += ran.wrong
        self.told.wrong += check_end(self.cluster, ran, status, run.out)
        self.changes += ran.changes
        self.settle()
        self.told.wrong += check_data(before, self.cluster, ran, run.out)
        self.told.released += bool(ran.changes) and status == "OK"
        self.told.refused += status == "REFUSED"
        self.told.had_to += had_to
        if had_to and status != "OK":
            self.told.wrong.append(Wrong("refused", f"{status} of what is clear: {_why(run)}"))
        self._check_guests()

    def _is_clash(self, name: str) -> bool:
        """Whether the pods of another VM carry the hostname of this one."""
        return any(vm["metadata"]["name"] != name for vm in self.cluster.every(k.VM))

    @contextlib.contextmanager
    def _witnessed(
        self, ran: Ran, *, fast: bool, meanwhile: tuple[str, str, str] | None
    ) -> Iterator[None]:
        stand = self._stand(ran, fast=fast, meanwhile=meanwhile)

        def stand_by(exchange: Exchange) -> None:
            asked = exchange.request
            stand(asked.method, asked.target, asked.body, lambda: exchange.handle().status)
            exchange.answer()

        handle = self.server.inject(stand_by, times=None)
        try:
            yield
        finally:
            handle.remove()

    def _stand(
        self, ran: Ran, *, fast: bool, meanwhile: tuple[str, str, str] | None
    ) -> Callable[[str, str, bytes, Callable[[], int]], None]:
        """What is done at each request: method, path, body, and what lets the server do it."""
        witness = Witness(self.cluster, self.truth, ran)
        left = [meanwhile] if meanwhile else []
        lock = threading.Lock()  # the program reads several things at once

        def stand(method: str, path: str, body: bytes, do: Callable[[], int]) -> None:
            with lock:
                if left and _is_at(left[0][0], ran, method, path, body):
                    _, what, node = left.pop()
                    self.say(f"  [meanwhile: {what} {node}]")
                    self._happens(what, node)
                    witness.looks = True
                self.cluster.read_anew()
                about = witness.before(method, path, body)
                if about is not None:
                    witness.after(about, done=do() == 200)
                    if fast:
                        self.settle()
                    witness.looks = True

        return stand

    def _happens(self, what: str, node: str) -> None:
        """The node comes back or is replaced, a heartbeat arrives, the controllers look around."""
        if what == "back":
            self.back(node)
        elif what == "beat":
            host = self.truth.host(node)
            if host.power and not host.hears_guests:
                host.linked = host.handler = True
                self.settle()
                host.linked = host.handler = False
        elif what == "replace":
            self.replace(node)
        elif what == "controllers":
            self.controllers(True)

    # The end

    def through(self, history: History) -> Told:
        """Play a history to its end."""
        for step in history:
            self.say(str(step))
            action: Callable[..., None] = getattr(self, step.name)
            action(**dict(step.arguments))
            self.wait(A_MOMENT)
        self.finish()
        return self.told

    def finish(self) -> None:
        """All that holds a second guest back goes: what the program left open is seen now.

        virt-controller works, no webhook objects, a VM that was stopped is started, and one that
        was released is made again on its disks, from git or from the backup.
        """
        if not self.changes and not self.is_idle:
            return
        self.veto(False)
        self.controllers(True)
        self.lifecycle(True)
        released = {change.vm for change in self.changes}
        if self.is_idle:
            released = {vm["metadata"]["name"] for vm in self.cluster.every(k.VM)}
        for name in sorted(released):
            if self.cluster.get(k.VM, name) is None:
                body = k.virtual_machine(name, strategy="Always", grace=30)
                body["metadata"]["namespace"] = self.cluster.namespace
                self.cluster.create(body)
                self.say(f"VM {name} is made again")
                self.settle()
            elif self.cluster.get(k.VMI, name) is None:
                self.say(f"VM {name} is started")
                self._patch(name, {"spec": {"runStrategy": "Always"}})
        self.settle()
        self._check_guests()

    def _check_guests(self) -> None:
        overlaps = self.truth.overlaps[self._judged :]
        self._judged = len(self.truth.overlaps)
        for overlap in overlaps:
            self._judge(overlap.first, overlap.second)

    def _judge(self, first: Guest, second: Guest) -> None:
        if self.is_idle:
            self.told.alone.append(f"{first} still runs when {second} starts")
            return
        causes = [change for change in self.changes if first in change.running]
        if causes:
            did = ", ".join(map(str, causes))
            told = "" if first.told is None else ", was told to stop"
            heard = first.host.heard
            if heard is not None and not first.host.speaks:
                silent = (self.cluster.now() - heard).total_seconds() / 60
                told += f", on a node that is silent since {silent:.1f} min"
            self.told.wrong.append(
                Wrong("two-guests", f"{first} still ran{told}, when {second} started: {did}")
            )
        elif any(change.vm == first.vm for change in self.changes):
            self.told.lied += 1


def _is_at(moment: str, ran: Ran, method: str, path: str, body: bytes) -> bool:
    """Whether a run has come to one of `MOMENTS`."""
    if moment == "looked":
        return "selfsubject" in path
    if moment == "tried":
        return "dryRun" in path or b"dryRun" in body
    if moment == "told":
        return "/events" in path
    return moment == "looking again" and method == "GET" and bool(ran.changes)


def _why(run: Run) -> str:
    try:
        return "; ".join(
            f"{one['guard']}: {one['reason']}"
            for item in run.json["items"]
            for one in item["refusals"]
        )
    except (ValueError, KeyError, TypeError):
        return str(run.err)[-300:]


def played(
    server: Simulator,
    world: World,
    history: History,
    program: Callable[..., Run] | None = None,
    *,
    is_idle: bool = False,
) -> Told:
    """Play a history to its end, with this program or another one, or without any."""
    play = Play(server, world, program)
    play.is_idle = is_idle
    try:
        return play.through(history)
    finally:
        play.veto(False)
        server.forget()
        server.wipe(world.namespace)
