"""The last look at a command: each rule lets one scene pass and says no to another."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.harvester import harmless
from kubectl_harvester_stuck.harvester.pending_work import CLAIM_TEMPLATES, GOLDEN_IMAGE, OWNED_BY
from kubectl_harvester_stuck.k8s import commands
from kubectl_harvester_stuck.k8s.commands import Command, Effect, Remark
from kubectl_harvester_stuck.k8s.kinds import (
    DAEMON_SET,
    DEPLOYMENT,
    HARVESTER_NAMESPACE,
    JOB,
    LOAD_BALANCER,
    MIGRATION,
    NETWORK_CONFIG,
    NODE,
    POD,
    PV,
    PVC,
    UPGRADE,
    VM,
    VM_BACKUP,
    VM_IMAGE,
    VM_RESTORE,
    VMI,
    VOLUME_ATTACHMENT,
    VOLUME_SNAPSHOT,
    Kind,
)
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot
from tests.support import builders
from tests.support.builders import Body, ago, bare, snapshot, stored
from tests.test_guards import dead_node, deleted_pod, deleted_vm, deleted_vmi, live_node


def ref(kind: Kind, name: str, namespace: str = "shop") -> ObjectRef:
    return ObjectRef(namespace, name, kind)


WEB, GUEST, DISK = ref(VM, "web"), ref(VMI, "web"), ref(PVC, "disk-0")
REPOSITORY = ref(VM, "upgrade-repo-x", "harvester-system")
NIGHTLY, UNDO, LB = ref(VM_BACKUP, "nightly"), ref(VM_RESTORE, "undo"), ref(LOAD_BALANCER, "lb")
ATTACHMENT, LAUNCHER = ref(VOLUME_ATTACHMENT, "csi-1", ""), ref(POD, "virt-launcher-web")


@dataclass(frozen=True)
class Scene:
    """A command, the objects that there are, and a part of why it may not be printed."""

    rule: str
    command: Command
    bodies: list[Body]
    why: str | None = None
    unreadable: Mapping[Kind, str] = field(default_factory=dict)


def living(name: str = "web", *claims: str, **more: Any) -> Body:
    spec = {**builders.with_disks(*claims), **more.pop("spec", {})}
    return stored(builders.vm("shop", name, spec=spec, **more))


def guest(name: str = "web", *claims: str, **more: Any) -> Body:
    spec = {**builders.with_disks(*claims)["template"]["spec"], **more.pop("spec", {})}
    deleted = more.pop("deleted", None)
    return stored(builders.vmi("shop", name, "node-2", spec=spec, **more), deleted=deleted)


def claim(**more: Any) -> Body:
    return stored(builders.pvc("shop", "disk-0", **more))


def image(**spec: Any) -> Body:
    return stored(bare(VM_IMAGE, "shop", "disk-0", spec=spec))


def finished(node: Callable[[], list[Body]] = live_node, **more: Any) -> list[Body]:
    """A guest that is said to have ended, which nobody has deleted, and its node."""
    return [guest(phase=more.pop("phase", "Failed"), **more), *node()]


def part(backup: str = "nightly") -> Body:
    disk = {"metadata": {"namespace": "shop", "name": "disk-0"}}
    return {"name": f"{backup}-disk", "persistentVolumeClaim": disk}


def backup(kind: str = "snapshot", **more: Any) -> Body:
    deleted = more.pop("deleted", None)
    status = {"readyToUse": more.pop("ready", True), "volumeBackups": [part()]}
    body = builders.vm_backup("shop", "nightly", "web", kind, **more)
    return stored({**body, "status": status}, deleted=deleted)


def restore(*, works: bool = False) -> Body:
    spec = {"target": {"name": "web"}, "virtualMachineBackupName": "nightly"}
    conditions = [{"type": "InProgress", "status": str(works)}]
    return stored(bare(VM_RESTORE, "shop", "undo", spec=spec, status={"conditions": conditions}))


def volume_snapshot(owner: Body | None = None) -> Body:
    return stored(bare(VOLUME_SNAPSHOT, "shop", "nightly-disk", owner=owner))


def balancer(kind: str = "cluster", cluster: str = "gc1") -> Body:
    body = bare(LOAD_BALANCER, "shop", "lb", spec={"workloadType": kind})
    labels = {"cloudprovider.harvesterhci.io/cluster": cluster} if cluster else {}
    return stored({**body, "metadata": {**body["metadata"], "labels": labels}})


def attached(node: str = "node-2") -> list[Body]:
    source = {"persistentVolumeName": "pv-1"}
    body = bare(VOLUME_ATTACHMENT, "", "csi-1", spec={"nodeName": node, "source": source})
    volume = builders.volume("pv-1")
    volume["spec"]["claimRef"] = {"namespace": "shop", "name": "disk-0"}
    return [stored(_clusterwide(body)), stored(volume), *dead_node()]


def _clusterwide(body: Body) -> Body:
    meta = {key: value for key, value in body["metadata"].items() if key != "namespace"}
    return {**body, "metadata": meta}


def moving(phase: str = "Running", *, deleted: str | None = None) -> Body:
    return stored(builders.migration("shop", "move", "web", phase), deleted=deleted)


def served() -> Body:
    """The VM that served the images of an upgrade."""
    return stored(builders.vm("harvester-system", "upgrade-repo-x"))


def upgrading() -> Body:
    return stored(bare(UPGRADE, "harvester-system", "x"))


def closed(**notes: str) -> Body:
    body = builders.node("n1", "True")
    meta = {**body["metadata"], "annotations": dict(notes)}
    return stored({**body, "metadata": meta, "spec": {"unschedulable": not notes.pop("open", "")}})


def stop() -> Command:
    return commands.virtctl_force_stop(WEB)


def going(*more: Body, strategy: str = "RerunOnFailure", **vmi: Any) -> list[Body]:
    """A deleted VM, and its guest, which was asked to stop an hour ago."""
    return [deleted_vm(spec={"runStrategy": strategy}), deleted_vmi(**vmi), *more]


RERUN, STARTING = {"runStrategy": "RerunOnFailure"}, {"stateChangeRequests": [{"action": "Start"}]}
REMOVE, CANCEL = commands.delete, commands.virtctl_migrate_cancel(WEB)
CLUSTER = {"guestcluster.harvesterhci.io/name": "gc1"}
CONTROLLER = ref(DEPLOYMENT, "virt-api", HARVESTER_NAMESPACE)

SCENES = [
    Scene("disk-is-free", REMOVE(DISK), [claim()]),
    Scene("disk-is-free", REMOVE(DISK), [claim(), deleted_vm(spec=builders.with_disks("disk-0"))]),
    Scene("disk-is-free", REMOVE(DISK), [claim(), living("db", "disk-0")],
          "VirtualMachine shop/db"),
    Scene("disk-is-free", REMOVE(DISK),
          [claim(), living("db", annotations={
              CLAIM_TEMPLATES: '[{"metadata": {"name": "disk-0"}}]'})], "VirtualMachine shop/db"),
    Scene("disk-is-free", REMOVE(DISK), [claim(), guest("db", "disk-0")], "Instance shop/db uses"),
    Scene("disk-is-free", REMOVE(DISK), [claim()], "Forbidden", {VM: "Forbidden"}),
    Scene("disk-may-go", REMOVE(DISK), [claim()]),
    Scene("disk-may-go", REMOVE(DISK), [claim(annotations={GOLDEN_IMAGE: "true"}), image()],
          "golden image"),
    Scene("disk-may-go", REMOVE(DISK),
          [claim(), image(sourceType="export-from-volume", pvcNamespace="shop",
                          pvcName="disk-0")], "is being made of it"),
    Scene("disk-may-go", REMOVE(DISK),
          [claim(annotations={OWNED_BY: json.dumps([{"refs": ["shop/web"]}])})], "shop/web owns"),
    Scene("disk-may-go", REMOVE(DISK), [claim(annotations={OWNED_BY: "{"})], "malformed"),
    Scene("disk-may-go", REMOVE(DISK), [claim()], "virtualmachineimages", {VM_IMAGE: "Forbidden"}),
    Scene("disk-holds-no-snapshot", REMOVE(DISK), [claim(), backup(kind="backup")]),
    Scene("disk-holds-no-snapshot", REMOVE(DISK), [claim(), backup()], "nightly lies on it"),
    Scene("disk-holds-no-snapshot", REMOVE(DISK), [made := claim(), volume_snapshot(made)],
          "goes with it"),
    Scene("disk-holds-no-snapshot", REMOVE(DISK),
          [working := restore(works=True), claim(owner=working)], "is in progress"),
    Scene("backup-is-lost-already", REMOVE(NIGHTLY), [deleted_vm(), backup()]),
    Scene("backup-is-lost-already", REMOVE(NIGHTLY), [deleted_vm(), backup(), volume_snapshot()]),
    Scene("backup-is-lost-already", REMOVE(NIGHTLY),
          [deleted_vm(), backup(), volume_snapshot(), claim()], "nightly-disk of it is intact"),
    Scene("backup-is-lost-already", REMOVE(NIGHTLY),
          [deleted_vm(), one := backup(), claim(owner=one)], "disk-0 goes with it"),
    Scene("backup-is-lost-already", REMOVE(NIGHTLY), [living(), backup()], "web lives"),
    Scene("backup-is-lost-already", REMOVE(NIGHTLY), [backup()], "nobody has deleted it"),
    Scene("backup-is-lost-already", REMOVE(NIGHTLY), [deleted_vm(), backup(kind="backup")],
          "outside the cluster"),
    Scene("backup-is-lost-already", REMOVE(NIGHTLY), [deleted_vm(), backup(), restore()],
          "undo is made from it"),
    Scene("restore-is-over", REMOVE(UNDO), [restore(), deleted_vm()]),
    Scene("restore-is-over", REMOVE(UNDO), [restore()]),
    Scene("restore-is-over", REMOVE(UNDO), [restore(), living()], "nobody has deleted"),
    Scene("restore-is-over", REMOVE(UNDO), [restore(works=True)], "in progress"),
    Scene("restore-is-over", REMOVE(UNDO), [over := restore(), claim(owner=over)], "goes with it"),
    Scene("migration-moves-nothing", REMOVE(ref(MIGRATION, "move")), [moving()]),
    Scene("migration-moves-nothing", REMOVE(ref(MIGRATION, "move")), [moving("Failed"), guest()]),
    Scene("migration-moves-nothing", REMOVE(ref(MIGRATION, "move")), [moving(), guest()],
          "moves the guest"),
    Scene("addresses-are-unused", REMOVE(ref(NETWORK_CONFIG, "web")),
          [stored(bare(NETWORK_CONFIG, "shop", "web"))]),
    Scene("addresses-are-unused", REMOVE(ref(NETWORK_CONFIG, "web")),
          [stored(bare(NETWORK_CONFIG, "shop", "web")), guest()], "which is not over"),
    Scene("balancer-is-unused", REMOVE(LB), [balancer(), living(), deleted_vm(labels=CLUSTER)]),
    Scene("balancer-is-unused", REMOVE(LB), [balancer(), living(labels=CLUSTER)], "is a node of"),
    Scene("balancer-is-unused", REMOVE(LB), [balancer(kind="vm")], "not known to belong"),
    Scene("balancer-is-unused", REMOVE(LB), [balancer(cluster="")], "not known to belong"),
    Scene("attachment-is-dead", REMOVE(ATTACHMENT), attached()),
    Scene("attachment-is-dead", REMOVE(ATTACHMENT), [*attached("n1"), *live_node("n1")],
          "n1 is not known to be silent"),
    Scene("attachment-is-dead", REMOVE(ATTACHMENT), [*attached(), living("db", "disk-0")],
          "VirtualMachine shop/db uses"),
    Scene("attachment-is-dead", REMOVE(ATTACHMENT), attached(), "Ready: Forbidden",
          {NODE: "Forbidden"}),
    Scene("guest-is-not-wanted", REMOVE(GUEST), [left := deleted_vm(), guest(owner=left)]),
    Scene("guest-is-not-wanted", REMOVE(GUEST), [deleted_vm(), guest()], "was cut loose"),
    Scene("guest-is-not-wanted", REMOVE(GUEST),
          [living(), guest()], "nobody has deleted"),
    Scene("guest-is-not-wanted", REMOVE(GUEST), [guest()], "it has no VM"),
    Scene("guest-is-not-wanted", REMOVE(GUEST), finished()),
    Scene("guest-is-not-wanted", REMOVE(GUEST), finished(dead_node),
          "the guest may still run there"),
    Scene("guest-is-not-wanted", REMOVE(GUEST), finished(list),
          "the guest may still run there"),
    Scene("guest-is-not-wanted", REMOVE(GUEST), finished(),
          "Forbidden", {NODE: "Forbidden"}),
    Scene("guest-is-not-wanted", REMOVE(GUEST),
          finished(status={"migrationState": {"targetNode": "n3", "failed": True}}),
          "node n3 does not answer"),
    Scene("guest-is-not-wanted", REMOVE(GUEST),
          [*finished(), stored(builders.pod("shop", "p", "node-2", finished()[0]))],
          "p on node node-2 still runs the guest"),
    Scene("guest-is-not-wanted", REMOVE(GUEST), [deleted_vm(finalizers=["orphan"]), guest()],
          "--cascade=orphan"),
    Scene("guest-is-not-wanted", REMOVE(GUEST), [deleted_vm(), guest(owner=living())],
          "not the VM that it was made for"),
    Scene("guest-is-not-wanted", REMOVE(GUEST),
          [living(spec={"runStrategy": "Halted"}), *finished()]),
    Scene("guest-is-not-wanted", REMOVE(GUEST),
          [living(spec={"runStrategy": "Manual"}), *finished()]),
    Scene("guest-is-not-wanted", REMOVE(GUEST),
          [living(spec={"runStrategy": "Manual"}, status=STARTING), *finished()],
          "a start of"),
    Scene("guest-is-not-wanted", REMOVE(GUEST),
          [living(spec={"running": True}), *finished()],
          "is to run"),
    Scene("guest-is-not-wanted", REMOVE(GUEST),
          [living(spec={"runStrategy": "Once"}), *finished()],
          "is to run"),
    Scene("guest-is-not-wanted", REMOVE(GUEST),
          [living(), *finished()]),
    Scene("guest-is-not-wanted", REMOVE(GUEST),
          [living(), *finished(phase="Succeeded")],
          "is to run"),
    Scene("guest-is-not-wanted", REMOVE(GUEST),
          [living(status=RERUN), *finished(phase="Succeeded")]),
    Scene("pod-of-a-guest-that-goes", REMOVE(LAUNCHER),
          [deleted_vm(), asked := deleted_vmi(), deleted_pod(asked, deleted=None)]),
    Scene("pod-of-a-guest-that-goes", REMOVE(LAUNCHER),
          [deleted_vm(), alive := guest(), deleted_pod(alive, deleted=None)],
          "is not being deleted"),
    Scene("pod-of-a-guest-that-goes", REMOVE(LAUNCHER),
          [living(), asked, deleted_pod(asked, deleted=None)], "is to run"),
    Scene("pod-of-a-guest-that-goes", REMOVE(LAUNCHER),
          [deleted_pod(living(), deleted=None)], "not made for a VMI"),
    Scene("guest-had-its-time", stop(), going()),
    Scene("guest-had-its-time", stop(), going(strategy="Halted")),
    Scene("guest-had-its-time", stop(), [living(spec={"runStrategy": "Halted"}), deleted_vmi()]),
    Scene("guest-had-its-time", stop(), [living(), deleted_vmi()], "would not start again"),
    Scene("guest-had-its-time", stop(), [deleted_vm()], "no guest of it runs"),
    Scene("guest-had-its-time", stop(), going(phase="Failed"), "no guest of it runs"),
    Scene("guest-had-its-time", stop(), [deleted_vm(), guest()], "nobody has asked"),
    Scene("guest-had-its-time", stop(), going(deleted=ago(seconds=20)), "may still shut down"),
    Scene("guest-had-its-time", stop(),
          going(spec={"terminationGracePeriodSeconds": 0}, strategy="Halted"), "grace period"),
    Scene("no-backup-holds-it", stop(), going(backup(ready=True))),
    Scene("no-backup-holds-it", stop(), going(backup(ready=False)), "nightly is in progress"),
    Scene("guest-had-its-time", stop(), [deleted_vmi()], "it is not there"),
    Scene("migration-can-end", CANCEL, [guest(), moving()]),
    Scene("migration-can-end", CANCEL, [guest()], "there is none"),
    Scene("migration-can-end", CANCEL, [guest(), moving("Failed")], "there is none"),
    Scene("migration-can-end", CANCEL, [guest(), moving(deleted=ago(minutes=1))], "already"),
    Scene("migration-can-end", CANCEL, [guest(phase="Failed"), moving()], "has ended"),
    Scene("migration-can-end", CANCEL, [moving()], "it is not there"),
    Scene("migration-can-end", CANCEL,
          [guest(status={"evacuationNodeName": "n1"}), moving()], "n1 is being evacuated"),
    Scene("evacuation-can-end", commands.virtctl_evacuate_cancel(GUEST),
          [guest(status={"evacuationNodeName": "n1"})]),
    Scene("evacuation-can-end", commands.virtctl_evacuate_cancel(GUEST), [guest()],
          "not being evacuated"),
    Scene("upgrade-is-over", REMOVE(REPOSITORY), [served()]),
    Scene("upgrade-is-over", REMOVE(REPOSITORY), [served(), upgrading()], "is not finished"),
    Scene("upgrade-is-over", REMOVE(WEB), [living()], "whether anybody wants it"),
    Scene("nothing-runs", commands.start(WEB, "Always"), [living()]),
    Scene("nothing-runs", commands.start(WEB, "Always"), [living(), guest()], "is there"),
    Scene("nothing-runs", commands.start(WEB, "Always"), [deleted_vm()], "is being deleted"),
    Scene("nothing-runs", commands.start(WEB, "Always"),
          [living(), deleted_pod(deleted_vmi())], "may run its guest"),
    Scene("is-there", commands.rollout_restart(CONTROLLER),
          [stored(builders.deployment("virt-api"))]),
    Scene("is-there", commands.rollout_restart(CONTROLLER), [], "it is not there"),
    Scene("is-there", commands.edit(WEB), [deleted_vm()]),
    Scene("is-there", commands.edit(WEB), [], "virtualmachines", {VM: "Forbidden"}),
    Scene("is-there", commands.retain(ref(PV, "pv-1", "")), [], None, {PV: "Forbidden"}),
    Scene("node-is-closed", commands.uncordon("n1"), [closed()]),
    Scene("node-is-closed", commands.uncordon("n1"),
          [closed(**{"harvesterhci.io/maintain-status": "completed"})], "maintenance"),
    Scene("node-is-closed", commands.uncordon("n1"), [stored(builders.node("n1", "True"))],
          "takes pods already"),
]  # fmt: skip


@pytest.mark.parametrize(
    "scene", SCENES, ids=[f"{number}-{one.rule}" for number, one in enumerate(SCENES)]
)
def test_a_command_passes_or_says_why_not(scene: Scene) -> None:
    why = harmless.why_not(scene.command, snapshot(*scene.bodies, unreadable=scene.unreadable))
    if scene.why is None:
        assert why is None
    else:
        assert why is not None
        assert scene.why in why


@pytest.mark.parametrize("entry", harmless.RULES, ids=lambda entry: str(entry.look.__name__))
def test_each_rule_has_a_scene_of_either(entry: harmless.Rule) -> None:
    name = entry.look.__name__.replace("_", "-")
    assert {scene.why is None for scene in SCENES if scene.rule == name} == {True, False}


@pytest.mark.parametrize("kind", [JOB, NODE, PV, DAEMON_SET])
def test_a_deletion_of_which_no_rule_knows_is_not_printed(kind: Kind) -> None:
    space = "" if not kind.namespaced else "harvester-system" if kind is DAEMON_SET else "shop"
    body = bare(kind, space, "x")
    body = body if kind.namespaced else _clusterwide(body)
    why = harmless.why_not(REMOVE(ObjectRef(space, "x", kind)), snapshot(stored(body)))
    assert why == f"what it does to a {kind.kind} is not known"


def test_a_look_at_what_is_not_there_is_left_out_and_a_change_is_explained() -> None:
    advice = (
        commands.get(DISK).noted("look"),
        commands.delete(DISK).noted("it was ticked"),
        commands.delete(DISK),
        Remark("by hand"),
        commands.journal(),
        commands.unstick(WEB),
        commands.get_all(POD, "shop"),
    )
    gone, kept = harmless.checked(advice, snapshot()), advice[3:]
    assert gone == (
        Remark(f"it was ticked, but {DISK} must not be deleted now: it is not there"),
        Remark(f"{DISK} must not be deleted now: it is not there"),
        *kept,
    )
    assert harmless.checked(advice, snapshot(claim())) == advice


def test_what_cannot_be_read_may_be_looked_at_all_the_same() -> None:
    blind = snapshot(unreadable={PVC: "Forbidden"})
    assert harmless.why_not(commands.get(DISK), blind) is None
    assert "Forbidden" in str(harmless.why_not(commands.delete(DISK), blind))


def test_every_effect_that_can_be_refused_has_its_words() -> None:
    silent = {Effect.READ, Effect.LOCAL, Effect.GUARDED}
    assert set(harmless._NOT) == set(Effect) - silent


@dataclass(frozen=True)
class Watched(ClusterSnapshot):
    """A snapshot that keeps account of the kinds that are looked at."""

    seen: set[Kind] = field(default_factory=set)

    def all(self, kind: Kind, namespace: str = "") -> tuple[KubeObject, ...]:
        self.seen.add(kind)
        return super().all(kind, namespace)

    def one(self, ref: ObjectRef) -> KubeObject | None:
        self.seen.add(ref.kind)
        return super().one(ref)


def looked_at(entry: harmless.Rule) -> set[Kind]:
    """The kinds that the rule looks at, in all the scenes that it is about."""
    seen: set[Kind] = set()
    for scene in SCENES:
        acts_on = scene.command.acts_on
        about = acts_on is not None and acts_on.kind in entry.kinds
        if acts_on is None or not about or scene.command.effect is not entry.effect:
            continue
        around = snapshot(*scene.bodies, unreadable=scene.unreadable)
        watched = Watched(around.taken_at, around.listed, around.found, around.unreadable)
        with suppress(UnreadableError):
            item = around.one(acts_on)
            if item is not None:
                entry.look(item, watched)
        seen |= watched.seen
    return seen


@pytest.mark.parametrize("entry", harmless.RULES, ids=lambda entry: str(entry.look.__name__))
def test_a_rule_looks_at_the_kinds_that_it_names_and_at_no_other(entry: harmless.Rule) -> None:
    assert looked_at(entry) == {read.kind for read in entry.reads}
