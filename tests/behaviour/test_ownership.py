"""What the garbage collector takes with a VM: refused, kept, or destroyed by name."""

from __future__ import annotations

import json
import shlex

import pytest

from kubectl_harvester_stuck.errors import ExitStatus
from kubectl_harvester_stuck.k8s.kinds import (
    DATA_VOLUME,
    VM_RESTORE,
    VOLUME_SNAPSHOT,
)
from kubectl_harvester_stuck.release import guards
from tests.support import builders
from tests.support.collector import Collector
from tests.support.resources import RESOURCES
from tests.support.world import QUICK, Answers, Body, World

NAME = "disk-root"
OVERRIDE = ("--override", "disks-kept")


class Owned:
    """A VM whose only disk an object owns that the VM owns, and then deleted."""

    def __init__(self, world: World, kind: str = VM_RESTORE.kind) -> None:
        self.world = world
        self.volume = world.create(builders.volume(f"pv-{world.namespace}"))
        self.machine = world.vm(spec=builders.with_disks(NAME))
        spec = {"spec": {"target": {"name": "web"}}}
        between = builders.bare(
            builders.KINDS[kind], world.namespace, "between", owner=self.machine, **spec
        )
        self.between = world.create(between)
        name = self.volume["metadata"]["name"]
        body = builders.pvc(world.namespace, NAME, owner=self.between, volume=name)
        self.claim = world.create(body)
        self.machine = world.delete(self.machine)
        world.api.forget()

    def collect(self) -> None:
        Collector(self.world.api, self.world.namespace).collect()

    @property
    def is_destroyed(self) -> bool:
        """Whether the claim is gone, or is going."""
        found = self.world.now(self.claim)
        return found is None or "deletionTimestamp" in found["metadata"]


def pasted(world: World, command: str) -> None:
    """Do what a printed `kubectl patch` does."""
    kubectl, verb, kind, name, *flags = shlex.split(command)
    assert (kubectl, verb) == ("kubectl", "patch")
    named = {f"{one.kind.lower()}.{one.group}": one for one in RESOURCES.values()}
    resource = {**named, "pv": RESOURCES["PersistentVolume"]}[kind]
    form = "json-patch" if "--type=json" in flags else "merge-patch"
    space = flags[flags.index("-n") + 1] if "-n" in flags else None
    body = json.loads(flags[flags.index("-p") + 1])
    status, answer = world.api.request(
        "PATCH", resource.path(space, name), body, content_type=f"application/{form}+json"
    )
    assert status == 200, answer


@pytest.mark.parametrize("kind", [VM_RESTORE.kind, DATA_VOLUME.kind])
def test_a_disk_that_goes_with_the_vm_is_refused_then_destroyed_by_name(
    world: World, kind: str
) -> None:
    owned = Owned(world, kind)
    run = world.unstick("--yes")
    assert run.status is ExitStatus.REFUSED
    assert [item["guard"] for item in run.item["refusals"]] == ["disks-kept"]
    assert world.changes() == []
    assert [(item["kind"], item["name"], item["destroysData"]) for item in run.item["goes"]] == [
        (kind, "between", False),
        ("PersistentVolumeClaim", NAME, True),
    ]
    assert run.item["stays"] == []
    assert not owned.is_destroyed
    run = world.unstick("--yes", *OVERRIDE)
    assert (run.status, run.item["outcome"]) == (ExitStatus.OK, "gone")
    assert not any("is kept" in line for line in run.item["leftovers"])
    owned.collect()
    assert owned.is_destroyed


def test_a_disk_whose_volume_is_retained_loses_no_data(world: World) -> None:
    owned = Owned(world)
    refused = world.unstick("--yes")
    _, command = refused.item["refusals"][0]["commands"]
    pasted(world, command)
    run = world.unstick("--yes")
    assert (run.status, run.item["outcome"]) == (ExitStatus.OK, "gone"), run.out
    (disk,) = [item for item in run.item["goes"] if item["name"] == NAME]
    assert not disk["destroysData"]
    assert "its data stays" in disk["why"]
    owned.collect()
    volume = world.now(owned.volume)
    assert volume is not None
    assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Retain"


def test_the_snapshot_of_a_vm_is_kept_by_the_command_that_the_refusal_prints(
    world: World,
) -> None:
    machine = world.vm()
    backup = world.create(builders.vm_backup(world.namespace, "nightly", "web", owner=machine))
    part = world.create(builders.bare(VOLUME_SNAPSHOT, world.namespace, "part", owner=backup))
    world.delete(machine)
    run = world.unstick("--yes")
    assert [item["guard"] for item in run.item["refusals"]] == ["disks-kept"]
    comment, command = run.item["refusals"][0]["commands"]
    assert "VirtualMachineBackup" in comment
    assert "VolumeSnapshot" in comment
    pasted(world, command)
    run = world.unstick("--yes")
    assert (run.status, run.item["outcome"]) == (ExitStatus.OK, "gone"), run.out
    assert {item["name"] for item in run.item["stays"]} == {"nightly", "part"}
    Collector(world.api, world.namespace).collect()
    assert world.now(backup) is not None
    assert world.now(part) is not None


def test_a_disk_that_was_selected_is_not_asked_about(world: World) -> None:
    volume = world.create(builders.volume(f"pv-{world.namespace}"))
    notes = {"harvesterhci.io/removedPersistentVolumeClaims": NAME}
    machine = world.vm(spec=builders.with_disks(NAME), annotations=notes)
    name = volume["metadata"]["name"]
    world.create(builders.pvc(world.namespace, NAME, owner=machine, volume=name))
    world.delete(machine)
    run = world.unstick("--yes")
    assert (run.status, run.item["outcome"]) == (ExitStatus.OK, "gone"), run.out


def test_the_preview_tells_what_is_destroyed_and_what_stays(world: World) -> None:
    owned = Owned(world)
    words = ("unstick", "vm", "web", *QUICK, *OVERRIDE)
    seen = " ".join(world.run(*words, stdin="no\n").err.split())
    assert f"destroys PersistentVolumeClaim {world.namespace}/{NAME}: owned by" in seen
    assert f"goes VirtualMachineRestore {world.namespace}/between" in seen
    assert "disks-kept overridden" in seen
    assert seen.index("destroys ") < seen.index("To go ahead")
    assert not owned.is_destroyed
    free = world.create(builders.pvc(world.namespace, "disk-free"))
    world.delete(world.vm("db", spec=builders.with_disks("disk-free")))
    seen = " ".join(world.run("unstick", "vm", "db", *QUICK, stdin="no\n").err.split())
    assert f"stays PersistentVolumeClaim {world.namespace}/disk-free: not owned by anything" in seen
    assert world.now(free) is not None


def test_a_refusal_prints_its_commands_in_one_piece(world: World) -> None:
    owned = Owned(world)
    run = world.run("unstick", "vm", "web", *QUICK, "--yes")
    name = owned.volume["metadata"]["name"]
    patch = '\'{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}\''
    assert f"\n  kubectl patch pv {name} -p {patch}\n" in run.out
    seen = world.run("diagnose", "vm", "web", "--no-logs", "-o", "json").item
    assert f"kubectl patch pv {name} -p {patch}" in seen["nextSteps"]
    assert seen["verdict"] != "release"
    assert [(one["kind"], one["destroysData"]) for one in seen["goes"]] == [
        ("VirtualMachineRestore", False),
        ("PersistentVolumeClaim", True),
    ]


def test_many_plans_still_name_every_disk_that_is_destroyed(world: World) -> None:
    Owned(world)
    for name in ("a", "b", "c"):
        world.delete(world.vm(name))
    run = world.run("unstick", "vm", "--all", *QUICK, *OVERRIDE, stdin="no\n")
    assert "1 disk or snapshot is DESTROYED" in run.err
    assert f"destroys PersistentVolumeClaim {world.namespace}/{NAME}" in run.err


@pytest.mark.parametrize("more", [True, False])
def test_a_disk_that_comes_after_the_preview_is_not_destroyed(world: World, more: bool) -> None:
    owned = Owned(world)

    def act() -> None:
        if more:
            name = owned.volume["metadata"]["name"]
            world.create(builders.pvc(world.namespace, "late", owner=owned.machine, volume=name))

    answers = Answers(f"{world.namespace}/web\n", before=act)
    run = world.run("unstick", "vm", "web", *QUICK, *OVERRIDE, "-o", "json", stdin=answers)
    if more:
        assert run.status is ExitStatus.REFUSED
        (refusal,) = run.item["refusals"]
        assert refusal["guard"] == "unchanged"
        assert "late would be destroyed, which was not shown" in refusal["reason"]
        assert world.changes() == []
    else:
        assert (run.status, run.item["outcome"]) == (ExitStatus.OK, "gone")


def test_an_owner_of_another_vm_is_looked_up_and_keeps_the_disk(world: World) -> None:
    """A release reads no list of VMs: one that a disk names as its owner is got by name."""
    other = world.vm("db")
    machine = world.vm(spec=builders.with_disks(NAME))
    body = builders.pvc(world.namespace, NAME, owner=machine, volume=f"pv-{world.namespace}")
    owner = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": "db",
             "uid": other["metadata"]["uid"]}  # fmt: skip
    body["metadata"]["ownerReferences"].append(owner)
    world.create(builders.volume(f"pv-{world.namespace}"))
    world.create(body)
    world.delete(machine)
    run = world.unstick("--yes")
    assert (run.status, run.item["outcome"]) == (ExitStatus.OK, "gone"), run.out
    assert [item["why"] for item in run.item["stays"]] == [
        "owned by VirtualMachine db, which stays"
    ]


def test_what_the_guards_look_at_is_read(world: World) -> None:
    machine, _, _ = world.power_cut()
    volume = world.create(builders.volume(f"pv-{world.namespace}"))["metadata"]["name"]
    world.create(builders.pvc(world.namespace, NAME, owner=machine, volume=volume))
    world.unstick("--dry-run=client")
    asked = {request.path.partition("?")[0] for request in world.api.recorded()}
    for read in guards.reads():
        assert any(f"/{read.kind.plural}" in path for path in asked), read.kind.kind


# The collector of these tests, by the rules of Kubernetes' own


def chain(world: World, *finalizers: str, **reference: object) -> tuple[Body, Body, Body]:
    """A VM that owns a VirtualMachineRestore that owns a PVC."""
    machine = world.vm("web", *(finalizers or (builders.VM_FINALIZER,)))
    body = builders.bare(VM_RESTORE, world.namespace, "undo", owner=machine, spec={})
    body["metadata"]["ownerReferences"][0].update(reference)
    undo = world.create(body)
    claim = world.create(builders.pvc(world.namespace, NAME, owner=undo))
    return machine, undo, claim


def is_going(world: World, body: Body) -> bool:
    found = world.now(body)
    return found is None or "deletionTimestamp" in found["metadata"]


def test_the_collector_leaves_what_has_an_owner(world: World) -> None:
    bodies = chain(world)
    Collector(world.api, world.namespace).collect()
    assert [is_going(world, body) for body in bodies] == [False, False, False]


@pytest.mark.parametrize("policy", ["Foreground", "Background"])
def test_the_collector_takes_the_whole_chain(world: World, policy: str) -> None:
    machine, undo, claim = chain(world, "example.com/held")
    world.delete(machine, propagationPolicy=policy)
    Collector(world.api, world.namespace).collect()
    # In the background the VM is solid as long as it is there.
    assert [is_going(world, one) for one in (undo, claim)] == [policy == "Foreground"] * 2
    status, answer = world.api.request(
        "PATCH",
        RESOURCES["VirtualMachine"].path(world.namespace, "web"),
        {"metadata": {"finalizers": []}},
        content_type="application/merge-patch+json",
    )
    assert status == 200, answer
    Collector(world.api, world.namespace).collect()
    assert [is_going(world, one) for one in (machine, undo, claim)] == [True] * 3


@pytest.mark.parametrize("blocks", [True, False])
def test_a_foreground_deletion_waits_for_what_blocks(world: World, blocks: bool) -> None:
    machine, undo, _ = chain(world, blockOwnerDeletion=blocks)
    held = RESOURCES["VirtualMachineRestore"].path(world.namespace, "undo")
    world.api.request("PATCH", held, {"metadata": {"finalizers": ["example.com/held"]}},
                      content_type="application/merge-patch+json")  # fmt: skip
    world.delete(machine, propagationPolicy="Foreground")
    Collector(world.api, world.namespace).collect()
    assert ("foregroundDeletion" in world.finalizers(machine)) is blocks
    assert is_going(world, undo)


def test_an_orphan_deletion_cuts_the_dependents_loose(world: World) -> None:
    machine, undo, claim = chain(world)
    world.delete(machine, propagationPolicy="Orphan")
    Collector(world.api, world.namespace).collect()
    found = world.now(undo)
    assert found is not None
    assert "ownerReferences" not in found["metadata"]
    assert not is_going(world, claim)
