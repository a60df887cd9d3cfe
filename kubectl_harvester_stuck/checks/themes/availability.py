"""High availability: does every VM find a place when a node dies, and its disks with it?

What moves VMs from a dead node is Harvester's vm-force-reset-policy; what they need there is room,
a node that fits, and a healthy copy of their volumes (H: harvester).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from kubectl_harvester_stuck.checks.base import (
    CheckContext,
    CheckResult,
    check,
    condition,
    count,
    devices_of,
    fail,
    mapping,
    mappings,
    names,
    number,
    ok,
    saw,
    texts,
    warn,
)
from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.harvester import settings
from kubectl_harvester_stuck.harvester.settings import (
    FORCE_RESET,
    force_reset_is_on,
    ref,
    unfinished_upgrades,
    value_of,
)
from kubectl_harvester_stuck.harvester.target import pvc_names
from kubectl_harvester_stuck.k8s import commands, quantities
from kubectl_harvester_stuck.k8s.commands import Remark
from kubectl_harvester_stuck.k8s.kinds import (
    LONGHORN_NAMESPACE,
    LONGHORN_REPLICA,
    LONGHORN_VOLUME,
    NODE,
    POD,
    PV,
    PVC,
    VM,
    VMI,
)
from kubectl_harvester_stuck.k8s.objects import Evidence, KubeObject, ObjectRef
from kubectl_harvester_stuck.k8s.reads import EVERYWHERE, Read

RESTARTED = ("Always", "RerunOnFailure")
"""The runStrategies by which KubeVirt starts a guest again that its node has lost."""

LEAST_REPLICAS = 2


@check(reads=(NODE,))
def nodes_ready(view: CheckContext) -> Iterator[CheckResult]:
    """Every node is Ready and takes VMs, and there is more than one."""
    nodes = _nodes(view)
    silent = [node for node in nodes if condition(node, "Ready").get("status") != "True"]
    if silent:
        yield fail(
            f"not Ready: {names(silent)}",
            [saw(node, "Ready", condition(node, "Ready").get("status")) for node in silent],
            *(commands.describe(node.ref) for node in silent),
        )
    closed = [node for node in nodes if node not in silent and _why_closed(node)]
    witnesses = [node for node in closed if _is_witness(node)]
    closed = [node for node in closed if node not in witnesses]
    if closed:
        yield warn(
            f"take no VMs: {names(closed)}",
            [saw(node, *_why_closed(node)) for node in closed],
            *(
                commands.uncordon(node.ref.name)
                for node in closed
                if node.mapping("spec").get("unschedulable") is True
            ),
        )
    hosts = _hosts(nodes)
    if len(hosts) < 2:
        yield fail(
            f"{count(len(hosts), 'node')} can run VMs: there is no other to restart them on",
            [saw(node, "Ready", condition(node, "Ready").get("status")) for node in nodes],
        )
    elif not silent and not closed:
        yield ok(f"{len(hosts)} nodes are Ready and schedulable")


@check(reads=(NODE, Read(POD, EVERYWHERE)))
def room_for_any_node(view: CheckContext) -> Iterator[CheckResult]:
    """The VMs of any one node fit on the others, by requests of cpu and memory."""
    nodes = _nodes(view)
    hosts = {node.ref.name: _allocatable(node) for node in _hosts(nodes)}
    guests: dict[str, list[tuple[KubeObject, _Room]]] = {}
    for pod in view.snapshot.all(POD):
        where = pod.text("spec", "nodeName")
        if not where or pod.text("status", "phase") in ("Succeeded", "Failed"):
            continue
        room = _requests(pod)
        if where in hosts:
            hosts[where] = hosts[where].less(room)
        if pod.labels.get("kubevirt.io") == "virt-launcher":
            guests.setdefault(where, []).append((pod, room))
    short = False
    tightest: tuple[Decimal, str] | None = None
    for name, moved in sorted(guests.items()):
        free = {host: room for host, room in hosts.items() if host != name}
        need, there = _total(room for _, room in moved), _total(free.values())
        seen = Evidence(f"Node {name}", "VMs ask for", f"{need}; free elsewhere: {there}")
        left = _left_over(moved, free)
        if left:
            short = True
            yield fail(
                f"without {name}, no node has room for {names(left)}: its VMs ask for {need},"
                f" free elsewhere is {there}",
                [seen],
                Remark(f"stop or shrink VMs until those of {name} fit, or add a node"),
            )
        share = need.memory / there.memory if there.memory > 0 else Decimal(0)
        if tightest is None or share > tightest[0]:
            tightest = (share, f"tightest is {name}: {need} of {there}")
    if not guests:
        yield ok("no VM runs")
    elif not short:
        yield ok(f"the VMs of any one node fit on the others; {tightest[1] if tightest else ''}")


@check(reads=(VM, VMI, PVC, NODE, PV))
def restart_elsewhere(view: CheckContext) -> Iterator[CheckResult]:
    """Each running VM starts again on another node: runStrategy, devices, selectors, volumes."""
    nodes = _nodes(view)
    machines = [vm for vm in view.vms if _runs(vm, view)]
    bound: list[tuple[KubeObject, tuple[str, str, str]]] = []
    if machines:
        disks = _Disks(
            {item.ref: item for item in view.all(PVC)},
            {item.ref.name: item for item in view.snapshot.all(PV)},
        )
        for vm in machines:
            bound += [(vm, reason) for reason in _ties(vm, disks, nodes)]
    if bound:
        tied = list(dict.fromkeys(vm.ref for vm, _ in bound))
        first = [f"{vm.ref.key} ({why})" for vm, (why, _, _) in bound]
        yield warn(
            f"{count(len(tied), 'VM')} of {len(machines)} would not start on another node:"
            f" {names(first)}",
            [saw(vm, field, value) for vm, (_, field, value) in bound],
            Remark("decide for each whether it may stay down with its node"),
        )
    else:
        yield ok(f"nothing ties any of {count(len(machines), 'running VM')} to its node")


@check(reads=(VMI,))
def live_migratable(view: CheckContext) -> Iterator[CheckResult]:
    """Each running VM can be moved while it runs, by its LiveMigratable condition."""
    found = [
        (vmi, condition(vmi, "LiveMigratable"))
        for vmi in view.instances.values()
        if vmi.text("status", "phase") == "Running"
    ]
    stays = [(vmi, why) for vmi, why in found if why.get("status") == "False"]
    silent = [vmi for vmi, why in found if why.get("status") not in ("True", "False")]
    if stays:
        yield warn(
            f"{count(len(stays), 'VM')} of {len(found)} cannot be migrated:"
            f" {names(f'{vmi.ref.key} ({_because(why)})' for vmi, why in stays)}",
            [saw(vmi, "LiveMigratable", why.get("message") or _because(why))
             for vmi, why in stays],
            Remark("they go down when their node is drained"),
        )  # fmt: skip
    if silent:
        yield warn(
            f"KubeVirt does not say whether it can migrate {names(silent)}",
            [saw(vmi, "LiveMigratable", None) for vmi in silent],
        )
    if not stays and not silent:
        yield ok(f"all of {count(len(found), 'running VM')} can be migrated")


@check(reads=settings.FORCE_RESET_READS)
def force_reset_policy(view: CheckContext) -> Iterator[CheckResult]:
    """vm-force-reset-policy is enabled, and no unfinished Upgrade blocks it (H#4049)."""
    edit = commands.edit(ref(FORCE_RESET))
    setting = view.setting(FORCE_RESET)
    enabled = False
    if setting is None:
        yield warn(
            f"there is no setting {FORCE_RESET}: is this a Harvester cluster?",
            [Evidence(f"Setting {FORCE_RESET}", "value", "not there")],
        )
    else:
        enabled = force_reset_is_on(setting)
        if not enabled:
            yield fail(
                f"{FORCE_RESET} is off: Harvester does not free the VMs of a dead node",
                [saw(setting, "value", value_of(setting))],
                edit,
            )
    held = False
    for one in unfinished_upgrades(view.snapshot):
        held = True
        yield fail(
            f"{one.item.ref} is not finished ({one.state or 'no state'}): as long as it stands,"
            f" {FORCE_RESET} does nothing",
            [saw(one.item, one.field, one.state)],
            commands.get(one.item.ref, "-o", "yaml"),
            Remark("if no upgrade runs any more, delete it"),
        )
    if setting is not None and enabled and not held:
        yield ok(f"{FORCE_RESET} is enabled, and no unfinished Upgrade blocks it")


@check(
    reads=(
        VM,
        Read(LONGHORN_VOLUME, LONGHORN_NAMESPACE),
        Read(LONGHORN_REPLICA, LONGHORN_NAMESPACE),
    )
)
def volume_replicas(view: CheckContext) -> Iterator[CheckResult]:
    """Each Longhorn volume of a VM has two healthy replicas, on two nodes."""
    claims = {(vm.ref.namespace, claim): vm for vm in view.vms for claim in pvc_names(vm)}
    replicas: dict[str, list[KubeObject]] = {}
    for replica in view.snapshot.all(LONGHORN_REPLICA, LONGHORN_NAMESPACE):
        if _is_healthy(replica):
            replicas.setdefault(replica.text("spec", "volumeName"), []).append(replica)
    few, together, degraded, fine = [], [], [], 0
    foreign = dict(claims)
    for volume in view.snapshot.all(LONGHORN_VOLUME, LONGHORN_NAMESPACE):
        bound = volume.mapping("status", "kubernetesStatus")
        vm = claims.get((str(bound.get("namespace")), str(bound.get("pvcName"))))
        if vm is None:
            continue
        foreign.pop((str(bound.get("namespace")), str(bound.get("pvcName"))), None)
        healthy = replicas.get(volume.ref.name, [])
        on = {replica.text("spec", "nodeID") for replica in healthy}
        what = (vm, volume, f"{len(healthy)} on {', '.join(sorted(on)) or 'no node'}")
        if len(healthy) < LEAST_REPLICAS:
            few.append(what)
        elif len(on) < LEAST_REPLICAS:
            together.append(what)
        elif len(healthy) < number(volume, "spec", "numberOfReplicas"):
            degraded.append(what)
        else:
            fine += 1
    for found, tell, text in (
        (few, fail, "fewer than two healthy replicas"),
        (together, fail, "every healthy replica on one node"),
        (degraded, warn, "fewer healthy replicas than configured"),
    ):
        if found:
            yield tell(
                f"{count(len(found), 'volume')} with {text}, of {names(vm for vm, _, _ in found)}",
                [saw(volume, "healthy replicas", seen) for _, volume, seen in found],
                *(
                    commands.get_all(
                        LONGHORN_REPLICA,
                        LONGHORN_NAMESPACE,
                        "-l",
                        f"longhornvolume={volume.ref.name}",
                    )
                    for _, volume, _ in found
                ),
            )
    if foreign:
        yield warn(
            f"{count(len(foreign), 'disk')} not on a Longhorn volume, so that its copies could"
            f" not be counted, of {names(foreign.values())}",
            [saw(vm, "PersistentVolumeClaim", name) for (_, name), vm in foreign.items()],
        )
    if not few and not together and not degraded and not foreign:
        yield ok(f"every Longhorn volume of a VM ({fine}) has its replicas, on several nodes")


def _because(why: Mapping[str, Any]) -> str:
    return str(why.get("reason") or "no reason given")


def _nodes(view: CheckContext) -> tuple[KubeObject, ...]:
    nodes = view.snapshot.all(NODE)
    if not nodes:
        raise UnreadableError("nodes", "there is none in what was read")
    return nodes


def _hosts(nodes: tuple[KubeObject, ...]) -> list[KubeObject]:
    """The nodes that would take a VM now."""
    return [
        node
        for node in nodes
        if condition(node, "Ready").get("status") == "True" and not _why_closed(node)
    ]


def _is_witness(node: KubeObject) -> bool:
    """Whether the node only keeps etcd's quorum: it never takes VMs, and is not meant to."""
    return node.labels.get("node-role.harvesterhci.io/witness") == "true"


def _why_closed(node: KubeObject) -> tuple[str, ...]:
    """Field and value that keep VMs off a node; empty where nothing does."""
    if node.mapping("spec").get("unschedulable") is True:
        return ("spec.unschedulable", "true")
    # virt-controller's own word, by the heartbeat of virt-handler.
    if node.labels.get("kubevirt.io/schedulable") == "false":
        return ("metadata.labels[kubevirt.io/schedulable]", "false")
    for taint in node.mappings("spec", "taints"):
        if taint.get("effect") in ("NoSchedule", "NoExecute"):
            return ("spec.taints", f"{taint.get('key')}:{taint.get('effect')}")
    return ()


@dataclass(frozen=True)
class _Room:
    """Processors and bytes."""

    cpu: Decimal
    memory: Decimal

    def less(self, other: _Room) -> _Room:
        return _Room(self.cpu - other.cpu, self.memory - other.memory)

    def holds(self, other: _Room) -> bool:
        return self.cpu >= other.cpu and self.memory >= other.memory

    def __str__(self) -> str:
        return f"{quantities.cores(self.cpu)}, {quantities.gibibytes(self.memory)}"


def _total(rooms: Iterable[_Room]) -> _Room:
    """All of them together; a node that is overbooked has no room, and takes none from others."""
    listed = list(rooms)
    none = Decimal(0)
    return _Room(
        sum((max(room.cpu, none) for room in listed), none),
        sum((max(room.memory, none) for room in listed), none),
    )


def _left_over(moved: list[tuple[KubeObject, _Room]], free: Mapping[str, _Room]) -> list[str]:
    """The guests that find no node, the largest placed first where most memory is free."""
    rooms = dict(free)
    left = []
    for pod, room in sorted(moved, key=lambda item: item[1].memory, reverse=True):
        fitting = [host for host, there in rooms.items() if there.holds(room)]
        if not fitting:
            left.append(
                f"{pod.ref.namespace}/{pod.labels.get('vm.kubevirt.io/name') or pod.ref.name}"
            )
            continue
        host = max(fitting, key=lambda name: rooms[name].memory)
        rooms[host] = rooms[host].less(room)
    return left


def _amount(subject: KubeObject, written: Mapping[str, Any], name: str) -> Decimal:
    try:
        return quantities.parse(written.get(name) or 0)
    except ValueError as error:
        raise UnreadableError(str(subject.ref), str(error)) from None


def _allocatable(node: KubeObject) -> _Room:
    written = node.mapping("status", "allocatable")
    if "cpu" not in written or "memory" not in written:
        raise UnreadableError(str(node.ref), "it does not say what is allocatable")
    return _Room(_amount(node, written, "cpu"), _amount(node, written, "memory"))


def _requests(pod: KubeObject) -> _Room:
    """What the scheduler counts for a pod."""
    total = {"cpu": Decimal(0), "memory": Decimal(0)}
    starting = dict(total)
    for field in ("containers", "initContainers"):
        for container in pod.mappings("spec", field):
            resources = mapping(pod, container.get("resources"), "resources")
            written = mapping(pod, resources.get("requests"), "resources.requests")
            for name in total:
                amount = _amount(pod, written, name)
                if field == "containers" or container.get("restartPolicy") == "Always":
                    total[name] += amount
                else:
                    starting[name] = max(starting[name], amount)
    overhead = pod.mapping("spec", "overhead")
    cpu, memory = (
        max(total[name], starting[name]) + _amount(pod, overhead, name) for name in total
    )
    return _Room(cpu, memory)


def _runs(vm: KubeObject, view: CheckContext) -> bool:
    return (vm.ref.namespace, vm.ref.name) in view.instances or _strategy(vm) in RESTARTED


def _strategy(vm: KubeObject) -> str:
    """`runStrategy`, or what the older `running` stands for."""
    running = vm.mapping("spec").get("running")
    old = "" if running is None else "Always" if running is True else "Halted"
    return vm.text("spec", "runStrategy") or old


@dataclass(frozen=True)
class _Disks:
    """The disks of all VMs."""

    claims: Mapping[ObjectRef, KubeObject]
    volumes: Mapping[str, KubeObject]


def _ties(
    vm: KubeObject, disks: _Disks, nodes: tuple[KubeObject, ...]
) -> Iterator[tuple[str, str, str]]:
    """Why a VM would not start on another node: in short, with field and value."""
    if _strategy(vm) not in RESTARTED:
        yield (f"runStrategy {_strategy(vm) or 'none'}", "spec.runStrategy", _strategy(vm))
    for device in devices_of(vm):
        yield ("host device", "spec.template.spec.domain.devices", device)
    fitting = [node for node in nodes if not _is_witness(node) and _is_chosen(node, vm)]
    if len(fitting) < 2 <= len(nodes):
        where = ", ".join(node.ref.name for node in fitting) or "no node"
        yield ("node selector", "spec.template.spec.nodeSelector or affinity", f"fits {where}")
    for volume in vm.mappings("spec", "template", "spec", "volumes"):
        if "hostDisk" in volume:
            yield ("host disk", "spec.template.spec.volumes", str(volume.get("name")))
    for name in pvc_names(vm):
        claim = disks.claims.get(ObjectRef(vm.ref.namespace, name, PVC))
        if claim is None:
            yield ("disk missing", "spec.template.spec.volumes", name)
        volume_ = disks.volumes.get(claim.text("spec", "volumeName")) if claim else None
        if volume_ is not None:
            terms = volume_.mapping("spec", "nodeAffinity", "required")
            if terms and sum(_fits(node, terms, volume_) for node in nodes) < 2:
                yield ("local volume", "spec.template.spec.volumes", f"{name} ({volume_.ref.name})")


def _is_chosen(node: KubeObject, vm: KubeObject) -> bool:
    where = ("spec", "template", "spec")
    selector = vm.mapping(*where, "nodeSelector")
    if any(node.labels.get(key) != value for key, value in selector.items()):
        return False
    required = ("affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
    return _fits(node, vm.mapping(*where, *required), vm)


def _fits(node: KubeObject, terms: Mapping[str, Any], owner: KubeObject) -> bool:
    """Whether a node fits one of the terms of a node affinity."""
    listed = mappings(owner, terms.get("nodeSelectorTerms"), "nodeSelectorTerms")
    if not listed:
        return True
    return any(
        all(
            _matches(rule, node.ref.name if field == "matchFields" else None, node, owner)
            for field in ("matchExpressions", "matchFields")
            for rule in mappings(owner, term.get(field), field)
        )
        for term in listed
    )


def _matches(
    rule: Mapping[str, Any], name: str | None, node: KubeObject, owner: KubeObject
) -> bool:
    has = name if name is not None else node.labels.get(str(rule.get("key")))
    values = texts(owner, rule.get("values"), "the values of a node affinity")
    operator = rule.get("operator")
    if operator == "In":
        return has in values
    if operator == "NotIn":
        return has not in values
    if operator in ("Exists", "DoesNotExist"):
        return bool((has is not None) == (operator == "Exists"))
    if operator in ("Gt", "Lt") and len(values) == 1:
        try:
            left, right = int(has or ""), int(values[0])
        except ValueError:
            return False
        return left > right if operator == "Gt" else left < right
    raise UnreadableError(str(owner.ref), f"its node affinity has the operator {operator!r}")


def _is_healthy(replica: KubeObject) -> bool:
    """A replica that has all the data, and whose process has not gone with its node."""
    return (
        replica.deletion_timestamp is None
        and bool(replica.text("spec", "healthyAt"))
        and not replica.text("spec", "failedAt")
        and replica.mapping("spec").get("active") is not False
        and replica.text("status", "currentState") not in ("error", "unknown")
    )
