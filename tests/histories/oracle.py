"""What must never happen, and what has to: the properties of a run of the program.

A `Witness` stands at the API server and sees each request of the program with the objects as they
are then, and with the truth. It knows what a careful reader of the objects could see of a node,
and nothing of how the program decides.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tests.histories import cluster as k
from tests.histories.cluster import Body, Cluster
from tests.histories.truth import Guest, Host, Truth

LEASE_IS_FRESH = timedelta(seconds=60)
HEARTBEAT_IS_FRESH = timedelta(seconds=150)
"""virt-handler writes every one to 2.2 minutes."""

IN_ONE_BREATH = 20
"""Requests between the last look at a node and a change, where nobody can look again."""

SILENT_ENOUGH = timedelta(minutes=15)
STEADY = timedelta(minutes=3)
"""How much longer than it must a node answers, before a release has to happen."""


@dataclass(frozen=True)
class Wrong:
    """A property that does not hold."""

    kind: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}"


@dataclass(frozen=True)
class Change:
    """Something that the program changed, and what was true then."""

    at: datetime
    number: int
    verb: str
    body: Body
    vm: str
    running: tuple[Guest, ...]
    """Guests of the VM that ran on a place that the operator did not answer for."""

    def __str__(self) -> str:
        return f"{self.verb} {self.body['kind']} {self.body['metadata']['name']}"


@dataclass
class Ran:
    """One run of the program."""

    stated: frozenset[str]
    """Nodes of which the operator says that they have no power."""
    overridden: frozenset[str]
    targets: frozenset[str] | None
    """Names of the VMs; None for whatever is stuck."""
    number: int = 0
    changes: list[Change] = field(default_factory=list)
    wrong: list[Wrong] = field(default_factory=list)
    seen: dict[tuple[str, str], str | None] = field(default_factory=dict)
    """What heartbeat and lease of each node were when the program first read them."""
    lives: dict[str, int] = field(default_factory=dict)
    """The number of the request since which a sign of life could be seen on a node."""


@dataclass
class Signs:
    """What anybody can read of a node."""

    ready: str | None
    heartbeat: str | None
    lease: str | None
    handler: bool

    def show_life(self, now: datetime) -> bool:
        """Whether one of them says by itself that the machine has power."""
        if self.ready in ("True", "False") or self.handler:
            return True
        return _is_fresh(self.heartbeat, now, HEARTBEAT_IS_FRESH) or _is_fresh(
            self.lease, now, LEASE_IS_FRESH
        )


def _is_fresh(written: str | None, now: datetime, within: timedelta) -> bool:
    if not written:
        return False
    age = now - k.parsed(written)
    return timedelta() <= age <= within


def signs_of(cluster: Cluster, name: str) -> Signs:
    node = cluster.get(k.NODE, name)
    lease = cluster.get("Lease", name, k.LEASES)
    handler = cluster.get(k.POD, f"virt-handler-{name}", k.SYSTEM)
    return Signs(
        _condition(node),
        node["metadata"].get("annotations", {}).get("kubevirt.io/heartbeat") if node else None,
        lease["spec"].get("renewTime") if lease else None,
        _condition(handler) == "True",
    )


def _condition(body: Body | None) -> str | None:
    for one in (body or {}).get("status", {}).get("conditions", ()):
        if one["type"] == "Ready":
            return str(one["status"])
    return None


def _reads(path: str, plural: str, name: str) -> bool:
    parts = path.partition("?")[0].split("/")
    return parts[-1] == plural or parts[-2:] == [plural, name]


@dataclass
class Witness:
    """It sees every request of the program."""

    cluster: Cluster
    truth: Truth
    ran: Ran
    looks: bool = True
    """Whether anything may have happened since the last look at the nodes."""

    def look(self, method: str, path: str) -> None:
        """Note what the signs of life are, before a request is answered.

        A sign that moved since the program first read it is life, whatever its age.
        """
        ran, now = self.ran, self.cluster.clock()
        for host in self.truth.hosts:
            if host.is_replaced:
                continue
            signs = signs_of(self.cluster, host.name)
            moved = False
            for plural, written in (("nodes", signs.heartbeat), ("leases", signs.lease)):
                if method == "GET" and _reads(path, plural, host.name):
                    ran.seen.setdefault((plural, host.name), written)
                moved |= ran.seen.get((plural, host.name), written) != written
            if moved or signs.show_life(now):
                ran.lives.setdefault(host.name, ran.number)

    def before(self, method: str, path: str, body: bytes) -> tuple[Body, Change] | None:
        """What is about to be changed; None for a read and for a dry run."""
        self.ran.number += 1
        is_dry = b"dryRun" in body or "dryRun" in path
        is_change = method in ("PATCH", "DELETE", "PUT") and not is_dry
        if self.looks or is_change or "/nodes" in path or "/leases" in path:
            self.look(method, path)
            self.looks = False
        if not is_change:
            return None
        plural, name = path.partition("?")[0].split("/")[-2:]
        kinds = {"virtualmachines": k.VM, "virtualmachineinstances": k.VMI, "pods": k.POD}
        if plural not in kinds:
            self._wrong("stranger", f"{method} {path}")
            return None
        now = self.cluster.get(kinds[plural], name)
        if now is None:
            return None
        now.setdefault("kind", kinds[plural])
        vm = self.vm_of(now)
        running = tuple(
            guest
            for guest in self.truth.running(vm)
            if now["kind"] == k.VM or guest.vmi in (now["metadata"]["uid"], k.controller(now))
            if not self._is_answered_for(guest) and not self._is_overridden(guest)
        )
        return now, Change(self.cluster.now(), self.ran.number, method, now, vm, running)

    def after(self, asked: tuple[Body, Change], *, done: bool) -> None:
        """Note a change that the server made, and complain."""
        body, change = asked
        if not done:
            return
        self.ran.changes.append(change)
        if not k.is_deleting(body):
            self._wrong("not-terminating", f"{change}, which is not being deleted")
        if self.ran.targets is not None and change.vm not in self.ran.targets:
            self._wrong("other-vm", f"{change} of VM {change.vm}, asked for {self._asked()}")

    def _asked(self) -> str:
        return ", ".join(sorted(self.ran.targets or ()))

    @staticmethod
    def vm_of(body: Body) -> str:
        """The name of the VM that it belongs to."""
        if body["kind"] == k.POD:
            annotations = body["metadata"].get("annotations", {})
            return str(annotations.get("kubevirt.io/domain", body["metadata"]["name"]))
        return str(body["metadata"]["name"])

    def _is_answered_for(self, guest: Guest) -> bool:
        """Whether the operator lied about a node of which nobody could see that it runs."""
        host = guest.host
        if host.name not in self.ran.stated or host.is_replaced:
            return False
        since = self.ran.lives.get(host.name)
        return since is None or (since > 1 and self.ran.number - since < IN_ONE_BREATH)

    def _is_overridden(self, guest: Guest) -> bool:
        """Whether the operator took it upon himself not to wait for a guest that shuts down.

        Or for a migration to another cluster, of which nothing but the migration can be seen here.
        """
        is_abroad = all(guest.host is not host for host in self.truth.hosts)
        if is_abroad and "no-migration" in self.ran.overridden:
            return True
        if "past-grace" not in self.ran.overridden:
            return False
        vmi = self.cluster.get(k.VMI, guest.vm)
        if guest.told is not None or vmi is None or not k.is_deleting(vmi):
            return True
        over = k.parsed(vmi["metadata"]["deletionTimestamp"]) + timedelta(
            seconds=guest.grace + k.GRACE_PADDING
        )
        return self.cluster.clock() < over

    def _wrong(self, kind: str, what: str) -> None:
        self.ran.wrong.append(Wrong(kind, what))


# After a run


def check_end(cluster: Cluster, ran: Ran, status: str, out: str) -> list[Wrong]:
    """Whether what was said is so, right at the end of the run."""
    try:
        document = json.loads(out)
    except ValueError:
        return [Wrong("no-document", f"{status}: stdout is {out[:200]!r}")]
    if status == "REFUSED" and ran.changes:
        changes = ", ".join(map(str, ran.changes))
        return [Wrong("silent-change", f"it says that nothing was changed, but {changes}")]
    if status != "OK":
        return []
    found = []
    for item in document.get("items") or ():
        targets = [step["target"] for step in item["steps"]]
        if item["outcome"] == "gone":
            targets.append(item["target"])
        for target in targets:
            now = cluster.get(target["kind"], target["name"], target.get("namespace"))
            if now is not None and now["metadata"]["uid"] == target.get("uid"):
                what = f"{target['kind']} {target['name']} is there: {item['outcome']}"
                found.append(Wrong("not-gone", what))
    return found


@dataclass(frozen=True)
class Datum:
    """A disk, a snapshot or a backup, and the VM that it goes with."""

    kind: str
    name: str
    uid: str
    vms: frozenset[str]


def data(cluster: Cluster) -> list[Datum]:
    """What holds data and is not being deleted."""
    items = {
        item["metadata"]["uid"]: item for kind in (k.VM, *k.OWNED) for item in cluster.every(kind)
    }
    return [
        Datum(item["kind"], item["metadata"]["name"], uid, frozenset(_roots(item, items)))
        for uid, item in items.items()
        if item["kind"] in k.DATA and not k.is_deleting(item)
    ]


def _roots(item: Body, items: dict[str, Body]) -> Iterable[str]:
    if item["kind"] == k.VM:
        yield item["metadata"]["name"]
    for owner in item["metadata"].get("ownerReferences", ()):
        if owner["uid"] in items:
            yield from _roots(items[owner["uid"]], items)


def check_data(before: list[Datum], cluster: Cluster, ran: Ran, out: str) -> list[Wrong]:
    """Whether all that went with a VM was told of and agreed to, once the controllers are done.

    Nobody selects a disk for deletion in these histories.
    """
    try:
        items = json.loads(out).get("items") or []
    except ValueError:
        return []
    told = {(one.get("kind"), one.get("name")) for item in items for one in item.get("goes") or ()}
    left = {datum.uid for datum in data(cluster)}
    touched = {change.vm for change in ran.changes}
    return [
        Wrong("data", f"{datum.kind} {datum.name} went with VM {', '.join(sorted(datum.vms))}")
        for datum in before
        if datum.uid not in left and datum.vms & touched
        if "disks-kept" not in ran.overridden or (datum.kind, datum.name) not in told
    ]


@dataclass
class Clear:
    """Whether a release has to happen: what can be seen is as clear as it gets."""

    cluster: Cluster
    truth: Truth
    steady: Callable[[Host], datetime]
    """Since when all parts of a host work."""

    def must_go(self, name: str, stated: frozenset[str]) -> bool:
        """Whether nothing at all speaks against the release of a VM."""
        cluster, now = self.cluster, self.cluster.now()
        vm, vmi = cluster.get(k.VM, name), cluster.get(k.VMI, name)
        if vm is None or any(guest.ended is None for guest in self._guests(name)):
            return False
        if any(host.offset or host.is_replaced for host in self.truth.hosts):
            return False
        own = {k.CONTROLLER, k.FOREGROUND}
        if vmi is not None:
            own |= {k.FOREGROUND_VMI}
            if k.controller(vmi) != vm["metadata"]["uid"]:
                return False
        if any(set(one["metadata"].get("finalizers", ())) - own for one in (vm, vmi) if one):
            return False
        if any(
            one["spec"]["vmiName"] == name and k.phase(one) not in k.FINAL
            for one in cluster.every(k.MIGRATION)
        ):
            return False
        pods = cluster.launchers_of(vmi) if vmi else []
        move = vmi["status"].get("migrationState") if vmi else None
        if move and not move.get("completed"):
            return False
        if not self._is_stuck(vm, vmi, pods):
            return False
        places = {pod["spec"].get("nodeName") for pod in pods}
        if vmi is not None:
            status = vmi["status"]
            places |= {status.get("nodeName"), *status.get("activePods", {}).values()}
        places -= {None, ""}
        off = {place for place in places if not self.truth.host(place).power}
        if stated != off:
            return False
        grace = timedelta(seconds=k.grace_of(vmi) + k.GRACE_PADDING if vmi else 0)
        return all(
            self._is_silent(self.truth.host(place), now)
            if place in off
            else self._has_ended(self.truth.host(place), vmi, pods, now, grace)
            for place in places
        )

    def _guests(self, name: str) -> list[Guest]:
        return [guest for guest in self.truth.guests if guest.vm == name]

    def _is_stuck(self, vm: Body, vmi: Body | None, pods: list[Body]) -> bool:
        if k.is_deleting(vm) and vmi is None:
            return True
        if vmi is None or not all(k.is_deleting(pod) for pod in pods):
            return False
        if k.phase(vmi) not in ("Running", *k.FINAL):
            return False
        if k.is_deleting(vmi):
            return True
        if k.is_deleting(vm):
            return False
        ends = [k.parsed(pod["metadata"]["deletionTimestamp"]) for pod in pods]
        over = all(end + STEADY < self.cluster.clock() for end in ends)
        here = {pod["spec"].get("nodeName") for pod in pods}
        return over and vmi["status"].get("nodeName") in here

    def _is_silent(self, host: Host, now: datetime) -> bool:
        if signs_of(self.cluster, host.name).ready != "Unknown":
            return False
        return host.heard is not None and now - host.heard >= SILENT_ENOUGH

    def _has_ended(
        self, host: Host, vmi: Body | None, pods: list[Body], now: datetime, grace: timedelta
    ) -> bool:
        if not (host.hears_pods and host.hears_guests):
            return False
        if now - self.steady(host) < grace + STEADY:
            return False
        if not all(k.all_ended(pod) for pod in pods if pod["spec"].get("nodeName") == host.name):
            return False
        deleted = [
            k.parsed(one["metadata"]["deletionTimestamp"])
            for one in ([vmi] if vmi else []) + pods
            if k.is_deleting(one)
        ]
        return all(moment + grace + STEADY < self.cluster.clock() for moment in deleted)
