"""What rules declare to read: they look at it and at nothing else, it is requested, and allowed.

Every rule runs on every story that there is of it; a snapshot keeps account of where it looks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, cast

import pytest

from kubectl_harvester_stuck.checks import CHECKS
from kubectl_harvester_stuck.checks import reads as checks_reads
from kubectl_harvester_stuck.checks.base import Check, CheckContext
from kubectl_harvester_stuck.checks.themes.release_path import webhook_namespaces
from kubectl_harvester_stuck.cluster import reader
from kubectl_harvester_stuck.cluster.shared_reads import SharedReads
from kubectl_harvester_stuck.diagnosis import chain, diagnose
from kubectl_harvester_stuck.diagnosis.findings import FINDINGS
from kubectl_harvester_stuck.diagnosis.findings.base import FindingContext, Situation
from kubectl_harvester_stuck.errors import StuckError
from kubectl_harvester_stuck.harvester import harmless, leftovers, settings, workloads
from kubectl_harvester_stuck.harvester.finalizer_catalogue import CATALOGUE
from kubectl_harvester_stuck.harvester.finalizer_judges import (
    GUEST_CLUSTER_REMOVED,
    JUDGES,
    Judge,
)
from kubectl_harvester_stuck.harvester.target import Target
from kubectl_harvester_stuck.k8s.kinds import (
    ENDPOINT_SLICE,
    EVENT,
    HARVESTER_NAMESPACE,
    KUBEVIRT,
    LEASE,
    LOAD_BALANCER,
    LONGHORN_ATTACHMENT,
    LONGHORN_NAMESPACE,
    LONGHORN_ORPHAN,
    LONGHORN_VOLUME,
    NETWORK_CONFIG,
    NODE,
    PCI_CLAIM,
    POD,
    PVC,
    SECRET,
    TARGET_KINDS,
    USB_CLAIM,
    VM,
    VM_BACKUP,
    VM_RESTORE,
    VOLUME_SNAPSHOT,
    Kind,
)
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef
from kubectl_harvester_stuck.k8s.reads import (
    EVERYWHERE,
    Read,
    lists,
    lists_found,
    metadata,
    named,
)
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot
from kubectl_harvester_stuck.k8s.source import ListQuery
from kubectl_harvester_stuck.release import guards, plan
from kubectl_harvester_stuck.release.guards import GuardContext, PreflightResults
from kubectl_harvester_stuck.release.model import Plan, ReleaseRequest
from tests import test_scenarios as scenarios
from tests.behaviour.test_rights import OPERATOR, VIEWER, Right
from tests.support import builders, declared, fastyaml
from tests.support.builders import NOW, Body, ago, bare, heard, stored
from tests.support.watched import Touch, idle, looks, undeclared
from tests.test_checks import STORIES, Memory, ready
from tests.test_finalizers import CASES
from tests.test_findings import DENIED, SEEN, snapshot_backup, with_cleanup
from tests.test_findings_told import VARIANTS
from tests.test_guards import SCENES, TARGET, deleted_vm, live_node
from tests.test_leftovers import attachment, claim

if TYPE_CHECKING:
    from kubectl_harvester_stuck.cluster.client import Cluster


@dataclass(frozen=True)
class Story:
    """A target and what is around it."""

    ref: ObjectRef
    around: ClusterSnapshot
    request: ReleaseRequest = field(default_factory=ReleaseRequest)
    finalizer: str = ""
    """One that the story is about, although the target may not carry it."""

    @property
    def case(self) -> Target:
        return Target(self.ref, self.around)

    @cached_property
    def plan(self) -> Plan | None:
        """What `unstick` would do; None where the target is not there."""
        with suppress(StuckError):
            return plan.build(self.case, self.request)
        return None


@dataclass
class At(Memory):
    """Objects as they stand at a time."""

    time: datetime = NOW

    @property
    def now(self) -> datetime:
        return self.time


def story(
    ref: ObjectRef, bodies: list[Body], request: ReleaseRequest | None = None, now: datetime = NOW
) -> Story:
    """What `diagnose` reads of these objects, whichever rule it is for."""
    source = At(bodies, time=now)
    around = reader.in_depth(source, [ref], declared.of_a_diagnosis())
    return Story(ref, around, request or ReleaseRequest())


@cache
def stories() -> tuple[Story, ...]:
    """Those of guards, findings, finalizers and leftovers, and the scenarios."""
    return tuple(_stories())


def _stories() -> Iterator[Story]:
    for _, _, make in SCENES.values():
        scene = make()
        yield story(scene.ref, scene.bodies, scene.request)
    pairs = [(seen, unseen) for _, seen, unseen in SEEN.values()]
    for tell in (*(one for pair in pairs for one in pair), *VARIANTS.values()):
        told = tell()
        yield story(told.ref, told.bodies, told.request)
    for finalizer, kind, _, objects in CASES:
        bodies = objects()
        meta = bodies[0]["metadata"]
        about = story(ObjectRef(meta["namespace"], meta["name"], kind), bodies)
        yield replace(about, finalizer=finalizer)
    yield story(TARGET, everything_left())
    for path in scenarios.FILES:
        scene_ = fastyaml.load(path.read_text())
        kind_, _, name = scene_["target"].partition("/")
        ref = ObjectRef(scene_["namespace"], name, TARGET_KINDS[kind_])
        yield story(ref, scenarios.objects(scene_), now=scenarios._time(scene_["now"]))


def everything_left() -> list[Body]:
    """A VM that leaves something of every kind, and whose diagnosis shows all of it."""
    devices = {"hostDevices": [{"name": "node1-0", "deviceName": "x"}]}
    spec = builders.with_disks("disk-0")
    spec["template"]["spec"]["domain"] = {"devices": devices}
    labels = {"guestcluster.harvesterhci.io/name": "gc1",
              "harvesterhci.io/creator": "docker-machine-driver-harvester"}  # fmt: skip
    machine = deleted_vm(spec=spec, annotations={GUEST_CLUSTER_REMOVED: "true"}, labels=labels)
    about = {"kind": "VirtualMachine", "name": "web", "uid": machine["metadata"]["uid"]}
    others = [
        bare(LOAD_BALANCER, "shop", "lb", spec={"workloadType": "cluster"}),
        bare(NETWORK_CONFIG, "shop", "web"),
        bare(LONGHORN_VOLUME, LONGHORN_NAMESPACE, "pvc-1", status={"state": "detached"}),
        bare(LONGHORN_ATTACHMENT, LONGHORN_NAMESPACE, "pvc-1", spec={"attachmentTickets": {}}),
        bare(LONGHORN_ORPHAN, LONGHORN_NAMESPACE, "o", spec={"parameters": {"DataName": "pvc-1"}}),
        {**bare(EVENT, "shop", "e"), "involvedObject": about, "reason": "Failed"},
        bare(VM_RESTORE, "shop", "undo", spec={"target": {"name": "web"}}),
        builders.migration("shop", "m", "web", "Failed"),
        builders.volume("pvc-1"),
        *({"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": "node1-0"}}
          for kind in (PCI_CLAIM, USB_CLAIM)),
    ]  # fmt: skip
    others[0]["metadata"]["labels"] = {"cloudprovider.harvesterhci.io/cluster": "gc1"}
    return [machine, claim(), attachment(), *live_node(), *map(stored, others)]


Rule = Callable[[ClusterSnapshot], object]


@dataclass(frozen=True)
class Subject:
    """A rule with what it declares, and how it is run on a story."""

    id: str
    reads: tuple[Read, ...]
    rules: Callable[[Story], Iterator[Rule]]
    also: tuple[Read, ...] = ()
    """What comes with it undeclared."""

    def touches(self) -> set[tuple[str, Touch]]:
        """Where it looks, each with the namespace of the target."""
        return {
            (one.ref.namespace, touch)
            for one in stories()
            for rule in self.rules(one)
            for touch in looks(one.around, rule)
        }


def _of_guard(entry: guards.Guard) -> Subject:
    def rules(one: Story) -> Iterator[Rule]:
        steps = one.plan.steps if one.plan is not None else ()
        refs = dict.fromkeys(step.ref for step in steps)
        answers = PreflightResults(refs, refs)
        if entry.needs_preflight:
            yield lambda _: entry.check(steps, answers)
            return
        yield lambda around: entry.check(
            GuardContext(Target(one.ref, around), one.request, steps, (), None)
        )

    return Subject(f"guard {entry.name}", entry.reads, rules)


def _of_finding(entry: Situation) -> Subject:
    def rules(one: Story) -> Iterator[Rule]:
        made = one.plan
        if made is not None:
            # Where no guard refuses, a webhook does, and so says a log: a finding may ask further.
            refs = dict.fromkeys(step.ref for step in made.steps)
            answers = PreflightResults(refs, dict.fromkeys(refs, DENIED))
            denied = made if made.refusals else plan.with_preflight(made, answers)
            logs = (heard("virt-controller-1", (DENIED,)),)
            yield lambda around: list(
                entry.look(FindingContext(Target(one.ref, around), denied, logs))
            )

    return Subject(f"finding {entry.id}", entry.reads, rules)


def _of_judge(decide: Judge) -> Subject:
    about = {(entry.name, kind) for entry in CATALOGUE if entry.judge is decide
             for kind in entry.kinds}  # fmt: skip

    def rule(subject: KubeObject, ref: ObjectRef) -> Rule:
        return lambda around: decide(subject, Target(ref, around))

    def rules(one: Story) -> Iterator[Rule]:
        for subject in _machines(one):
            told = {one.finalizer} if subject.ref == one.ref else set()
            names = {*subject.finalizers, *told}
            if about & {(name, subject.ref.kind) for name in names}:
                yield rule(subject, one.ref)

    return Subject(f"judge {decide.__name__}", JUDGES[decide], rules)


def _machines(one: Story) -> Iterator[KubeObject]:
    for item in (one.case.vm, one.case.vmi):
        if item is not None:
            yield item


def _of_part(
    name: str,
    reads: tuple[Read, ...],
    rule: Callable[[Target], object],
    also: tuple[Read, ...] = (),
) -> Subject:
    def rules(one: Story) -> Iterator[Rule]:
        yield lambda around: rule(Target(one.ref, around))

    return Subject(name, reads, rules, also)


def _left(case: Target) -> object:
    machine = case.vm
    return leftovers.of(case, machine) if machine is not None else ()


LOOKS_CLOSER = {("judge disks_and_snapshots", PVC, True)}
"""Whether the claim of a golden image is Lost: where only metadata was read, it counts as kept."""

SUBJECTS = (
    *map(_of_guard, guards.GUARDS),
    *map(_of_finding, FINDINGS),
    *map(_of_judge, JUDGES),
    _of_part("chain", chain.READS, chain.of),
    _of_part("leftovers", leftovers.READS, _left, harmless.reads()),
    _of_part("events", diagnose.EVENTS_READ, diagnose.events_of),
)


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.id)
def test_a_rule_looks_at_what_it_declares_and_at_nothing_else(subject: Subject) -> None:
    touches = {
        (target, touch)
        for target, touch in subject.touches()
        if (subject.id, touch.kind, touch.in_full) not in LOOKS_CLOSER
    }
    assert undeclared(touches, (*subject.reads, *subject.also)) == []
    assert idle(touches, subject.reads) == []


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_a_check_looks_at_what_it_declares_and_at_nothing_else(check: Check) -> None:
    touches: set[tuple[str, Touch]] = set()
    for bodies in (ready(), *(one.bodies() for one in STORIES)):
        around = checks_reads.read(Memory(bodies), ("shop",))
        rule = lambda seen: list(check.look(CheckContext(seen, ("shop",))))  # noqa: E731
        touches |= {("shop", touch) for touch in looks(around, rule)}
    assert undeclared(touches, check.reads) == []
    assert idle(touches, check.reads) == []


# What is declared is requested


def test_a_list_is_requested_once_and_in_full_where_one_rule_needs_that() -> None:
    reads = (*metadata(PVC), Read(PVC), Read(VM_BACKUP), Read(VM_BACKUP, EVERYWHERE), *metadata(VM))
    assert lists(reads, ["lab", "shop"]) == [
        ListQuery(PVC, "lab"),
        ListQuery(PVC, "shop"),
        ListQuery(VM_BACKUP, "lab"),
        ListQuery(VM_BACKUP, "shop"),
        ListQuery(VM_BACKUP),
        ListQuery(VM, "lab", metadata_only=True),
        ListQuery(VM, "shop", metadata_only=True),
    ]


def test_a_label_holds_only_where_every_rule_has_it() -> None:
    labelled = Read(POD, HARVESTER_NAMESPACE, labels="a=b")
    assert lists((labelled, labelled), ()) == [ListQuery(POD, HARVESTER_NAMESPACE, "a=b")]
    for reads in ((labelled, Read(POD, HARVESTER_NAMESPACE)), (labelled, Read(POD))):
        assert lists(reads, [HARVESTER_NAMESPACE]) == [ListQuery(POD, HARVESTER_NAMESPACE)]


def test_a_kind_without_namespace_is_listed_once_and_an_object_by_its_name() -> None:
    reads = (Read(NODE), settings.read("x"))
    assert lists(reads, ["lab", "shop"]) == [ListQuery(NODE)]
    assert named(reads) == {settings.ref("x")}


def test_namespaces_that_cannot_be_found_yet_are_left() -> None:
    blind = Read(ENDPOINT_SLICE, webhook_namespaces)
    assert lists((blind,), ["shop"]) == []
    assert lists_found((blind, Read(NODE)), ClusterSnapshot(NOW)) == []
    found = Read(ENDPOINT_SLICE, lambda _: ("a", "b"))
    assert lists_found((found, found), ClusterSnapshot(NOW)) == [
        ListQuery(ENDPOINT_SLICE, "a"), ListQuery(ENDPOINT_SLICE, "b")
    ]  # fmt: skip


def test_what_was_read_as_metadata_is_read_again_where_more_is_needed() -> None:
    with SharedReads() as shared:
        read = reader.Reader(Memory([]), shared)
        read.read((), lists((*metadata(PVC), Read(VM_BACKUP)), ["shop"]))
    reads = (Read(PVC), *metadata(VM_BACKUP), Read(PVC, "lab"), settings.read("x"))
    assert read.unread(reads, ["shop"]) == (
        {settings.ref("x")}, [ListQuery(PVC, "shop"), ListQuery(PVC, "lab")]
    )  # fmt: skip


def read_around(cluster: Cluster) -> ClusterSnapshot:
    with SharedReads() as shared:
        return reader.around(cluster, [TARGET], guards.reads(), shared=shared)


class InTurn(Memory):
    """Objects in memory; notes the kind of everything that it is asked for."""

    def __init__(self, bodies: list[Body]) -> None:
        super().__init__(bodies)
        self.asked: list[Kind] = []

    def list_objects(self, selection: Any, keep: Any) -> list[Any]:
        self.asked.append(selection.kind)
        return super().list_objects(selection, keep)

    def get(self, ref: ObjectRef, **more: bool) -> Any:
        self.asked.append(ref.kind)
        return super().get(ref, **more)


def test_signs_of_life_are_read_last() -> None:
    """What is read after them would make them older than they were when they were read."""
    source = InTurn([
        stored(builders.vm("shop", "web", ("example.com/unknown",),
                           spec=builders.with_disks("disk")), deleted=ago(minutes=9)),
        stored(builders.vmi("shop", "web", "node-1"), deleted=ago(minutes=9)),
        stored(builders.pvc("shop", "disk", volume="pv")),
        stored(builders.volume("pv")),
        stored(builders.node("node-1", "True")),
    ])  # fmt: skip
    read_around(cast("Cluster", source))
    assert {NODE, LEASE} <= set(source.asked)
    first = min(source.asked.index(kind) for kind in (NODE, LEASE))
    assert set(source.asked[first:]) == {NODE, LEASE}
    assert len(source.asked[:first]) > 10


@pytest.mark.parametrize("vm", ["web", "db"])
def test_parts_of_snapshots_are_read_where_a_namesake_has_some(vm: str) -> None:
    """Harvester looks for backups by the name of the VM alone."""
    bodies = with_cleanup(snapshot_backup(namespace="lab", vm=vm))
    rules = declared.of_a_diagnosis()
    cluster = cast("Cluster", At(bodies))
    for around in (
        reader.in_depth(At(bodies), [TARGET], rules),
        read_around(cluster),
    ):
        read = {kind for kind, namespace in around.listed if namespace == "lab"}
        assert read == ({PVC, VOLUME_SNAPSHOT} if vm == "web" else set())


def test_the_pods_of_kubevirt_are_read_where_it_runs() -> None:
    vm = stored(builders.vm("shop", "web", ("example.com/unknown",)), deleted=ago(minutes=9))
    bodies = [vm, bare(KUBEVIRT, "kubevirt", "kubevirt")]
    cluster = cast("Cluster", At(bodies))
    for around in (
        reader.in_depth(At(bodies), [TARGET], declared.of_a_diagnosis()),
        read_around(cluster),
    ):
        assert (POD, "kubevirt") in around.listed


# What is declared is allowed


def is_allowed(read: Read, role: list[Right], verb: str) -> bool:
    """Whether the role may read this, in the namespace where it is looked at.

    Where KubeVirt runs elsewhere, the role of Harvester's namespace is made there as well.
    """
    where = HARVESTER_NAMESPACE if read.where is workloads.elsewhere else read.where
    return any(
        (right.group, right.resource, right.verb) == (read.kind.group, read.kind.plural, verb)
        and right.namespace in ("", where)
        and (not right.names or read.name in right.names)
        for right in role
    )


@pytest.mark.parametrize(
    ("command", "reads", "role"),
    [
        ("diagnose", declared.of_a_diagnosis(), VIEWER),
        ("check", declared.of_a_check(), VIEWER),
        ("unstick", declared.of_a_plan(), OPERATOR),
    ],
    ids=["diagnose", "check", "unstick"],
)
def test_the_role_of_a_command_may_read_what_its_rules_declare(
    command: str, reads: tuple[Read, ...], role: list[Right]
) -> None:
    for read in reads:
        is_got = read.name or (read.own and command == "unstick")
        verb = "get" if is_got else "list"
        # No role may list Secrets: the judge that looks at them can do without.
        assert is_allowed(read, role, verb) != (read.kind is SECRET), f"{verb} {read}"


def test_no_rule_looks_at_more_of_a_secret_than_its_metadata() -> None:
    assert all(read.metadata_only for read in declared.everywhere() if read.kind is SECRET)


def test_no_list_and_no_setting_is_allowed_that_no_rule_declares() -> None:
    kinds = {(read.kind.group, read.kind.plural) for read in declared.everywhere()}
    listed = {(right.group, right.resource) for right in VIEWER if right.verb == "list"}
    assert listed <= kinds
    names = {name for right in VIEWER for name in right.names}
    assert names == {read.name for read in declared.everywhere() if read.name}
