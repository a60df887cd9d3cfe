"""Whole stories in which everything is real but the machines: a power cut, and what came of it.

One night, five hosts lose their power. kube-controller-manager notices, marks and evicts by
itself; then each story does what a user would do about its VM, runs the program, and looks at what
became of guest, objects and disks. `tests/stories` says what is played.

The stories share a cluster and its night, for nodes take their time; the last one turns the other
hosts off. No VM ever has two guests: every look at the truth demands it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from kubectl_harvester_stuck.errors import ExitStatus
from kubectl_harvester_stuck.k8s.kinds import (
    NODE,
    PVC,
    VM,
    VM_BACKUP,
    VM_RESTORE,
    VMI,
    VOLUME_SNAPSHOT,
)
from tests.components.harvester.server import STORAGE_CLASS
from tests.stories.stage import Stage, Story, fates, refused_by, stage
from tests.support import builders

CUT, DARK, BACK, REMOVED, FENCED = LOST = ("cut", "dark", "back", "removed", "fenced")
LIVE = ("live-1", "live-2")


class Night:
    """The VMs of all stories, by the name of the VM."""

    def __init__(self, at: Stage) -> None:
        self.at = at
        self.stories: dict[str, Story] = {}

    def story(self, name: str, host: str, namespace: str | None = None) -> Story:
        """A VM that is to run on this host, by default in a namespace of its own."""
        made = Story(self.at, namespace or f"ns-{name}", name, host)
        self.stories[name] = made
        return made

    def __getitem__(self, name: str) -> Story:
        return self.stories[name]


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    """Every VM runs, then the power is cut, and the cluster has noticed."""
    with stage(tmp_path_factory.mktemp("stories"), *LOST, *LIVE) as at:
        told = Night(at)
        restored(told)
        shared_disk(told)
        namesakes(told)
        for each in told.stories.values():
            each.running()
        at.webhook.start()
        told.story("nobody-touched", CUT).make()
        told.story("stopped", DARK).make()
        deleted = told.story("deleted", DARK)
        deleted.disk("root")
        deleted.disk("data")
        deleted.make("root", "data")
        told.story("returned", BACK).make()
        told.story("removed", REMOVED).make()
        told.story("fenced", FENCED).make()
        told.story("late", LIVE[0]).make()
        leftovers(told)
        for each in told.stories.values():
            each.running()
        at.machines.cut_power(*LOST)
        for name in LOST:
            at.wait(partial(at.is_tainted, name), f"{name} is tainted")
        for each in told.stories.values():
            if each.node in LOST:
                each.evicted()
        at.minutes_pass(DARK, FENCED)
        told["removed"].delete()
        told["removed"].hangs()
        at.send("DELETE", f"{NODE.path()}/{REMOVED}")
        yield told
        assert at.machines.truth.overlaps == []


def restored(told: Night) -> None:
    """A VM that Harvester restored: it owns the restore, which owns the disk."""
    story = told.story("restored", DARK)
    vm = story.make("disk")
    restore = {
        "target": {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "restored"},
        "virtualMachineBackupName": "snap",
        "virtualMachineBackupNamespace": story.namespace,
        "newVM": True,
    }
    made = told.at.create(
        builders.bare(VM_RESTORE, story.namespace, "restore", owner=vm, spec=restore)
    )
    story.disk("disk", owner=made)


def shared_disk(told: Night) -> None:
    """Two VMs with the same disk of Longhorn, which Harvester's webhook does not have."""
    story = told.story("shares", DARK)
    story.disk("shared")
    story.make("shared")
    other = Story(told.at, story.namespace, "other", LIVE[0])
    other.make("shared", strategy="Halted")


def namesakes(told: Night) -> None:
    """Two VMs of one name, and a snapshot of the one that lives."""
    told.story("namesake", DARK).make()
    other = Story(told.at, "elsewhere", "namesake", LIVE[0])
    other.disk("disk")
    other.make("disk", strategy="Halted")
    backup = builders.vm_backup("elsewhere", "snap", "namesake")
    backup["spec"]["source"]["apiGroup"] = "kubevirt.io"
    claim = {"metadata": {"namespace": "elsewhere", "name": "disk"}, "spec": {
        "accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": STORAGE_CLASS, "volumeName": "pv-elsewhere-disk"}}  # fmt: skip
    backup["status"] = {
        "readyToUse": True,
        "volumeBackups": [
            {"name": "snap-disk", "volumeName": "disk", "persistentVolumeClaim": claim,
             "csiDriverName": "driver.longhorn.io"}
        ],
    }  # fmt: skip
    told.at.create(backup)
    snapshot = {"source": {"persistentVolumeClaimName": "disk"}}
    told.at.create(builders.bare(VOLUME_SNAPSHOT, "elsewhere", "snap-disk", spec=snapshot))


OF_VM = {
    "1-3": ("harvesterhci.io/VMController.UnsetOwnerOfPVCs",
            "wrangler.cattle.io/VMController.UnsetOwnerOfDataVolumes"),
    "1-4": ("wrangler.cattle.io/VMController.CleanupPVCAndSnapshot",
            "wrangler.cattle.io/VMController.UnsetOwnerOfPVCs"),
    "1-6": ("wrangler.cattle.io/VMController.CleanupPVCAndSnapshot",
            "k8s.v1.cni.cncf.io/kubeMacPool"),
    "1-8": ("wrangler.cattle.io/VMController.CleanupPVCAndSnapshot",
            "wrangler.cattle.io/harvester-lb-vm-controller"),
}  # fmt: skip
"""What VMs carry since the release of Harvester that they were made in."""

OF_VMI = {
    "1-3": ("foregroundDeleteVirtualMachine", "wrangler.cattle.io/VMIController.UnsetOwnerOfPVCs"),
    "1-4": ("foregroundDeleteVirtualMachine", "wrangler.cattle.io/harvester-lb-vmi-controller"),
    "1-6": ("foregroundDeleteVirtualMachine", "wrangler.cattle.io/virtual-machine-deletion"),
    "1-8": ("wrangler.cattle.io/VMController.BackfillObservedNetworkMacAddress",),
}


def leftovers(told: Night) -> None:
    """VMs that were made in earlier releases of Harvester."""
    for release in OF_VM:
        told.story(f"of-{release}", DARK, "upgraded").make(labels={"story": "upgraded"})


def test_a_node_that_was_removed_proves_nothing(night: Night) -> None:
    told = night["removed"]
    assert told.state() == "Terminating"
    run = told.unstick(vouched=False)
    assert run.status is ExitStatus.REFUSED, run.out
    assert "guest-stopped" in refused_by(run)
    assert told.changes() == []


def test_a_vm_that_was_stopped(night: Night) -> None:
    told = night["stopped"]
    told.stop()
    told.hangs()
    assert told.state() == "Stopping"
    assert refused_by(told.unstick(vouched=False)) == {"guest-stopped"}
    run = told.unstick()
    assert (run.status, run.item["outcome"]) == (ExitStatus.OK, "freed"), run.out + run.err
    assert [method for method, _ in told.changes()] == ["DELETE"]
    night.at.wait(lambda: told.printed() == "Stopped", f"it is stopped, not {told.printed()}")
    assert (told.vmi(), told.pods(), told.hosts()) == (None, [], [])


def test_a_vm_that_was_deleted_with_one_of_its_disks(night: Night) -> None:
    told = night["deleted"]
    vm = told.vm()
    assert vm is not None
    # Harvester's own; nobody put it on for the test.
    assert builders.CLEANUP_FINALIZER in vm["metadata"]["finalizers"]
    told.delete("data")
    told.hangs()
    assert told.state() == "Terminating"
    # Harvester's controller has deleted the disk; the dead pod still protects it.
    item = told.diagnosis()
    assert fates(item, "goes") == {"PersistentVolumeClaim/data"}
    assert fates(item, "stays") == {"PersistentVolumeClaim/root"}
    run = told.unstick()
    assert (run.status, run.item["outcome"]) == (ExitStatus.OK, "gone"), run.out + run.err
    assert [method for method, _ in told.changes()] == ["DELETE"]
    night.at.wait(lambda: told.gone(PVC, "data"), "the disk that was selected goes")
    assert told.has(PVC, "root")
    assert (told.vmi(), told.pods(), told.hosts()) == (None, [], [])


def test_a_node_that_comes_back_first(night: Night) -> None:
    told = night["returned"]
    told.delete()
    told.hangs()
    night.at.machines.truth.host(BACK).unmounts = False
    night.at.machines.switch_on(BACK)
    night.at.wait(lambda: night.at.ready(BACK) == "True", "it is ready again")
    run = told.unstick()
    assert run.status is ExitStatus.REFUSED
    reasons = {item["guard"]: item["reason"] for item in run.item["refusals"]}
    assert "it shows life" in reasons["guest-stopped"]
    assert told.changes() == []
    night.at.machines.truth.host(BACK).unmounts = True
    night.at.wait(lambda: told.vm() is None, "it is gone by itself")
    assert told.changes() == []
    assert (told.vmi(), told.pods(), told.hosts()) == (None, [], [])


def test_a_node_that_is_declared_out_of_service(night: Night) -> None:
    told = night["fenced"]
    told.delete()
    told.hangs()
    night.at.virt.stop()
    try:
        taint = {"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown",
                 "effect": "NoExecute"}  # fmt: skip
        node = night.at.send("GET", f"{NODE.path()}/{FENCED}")
        taints = {"spec": {"taints": [*node["spec"].get("taints", ()), taint]}}
        night.at.send("PATCH", f"{NODE.path()}/{FENCED}", taints)
        night.at.wait(lambda: told.pods() == [], "its pod is removed by force")
        run = told.unstick(vouched=False)
        assert run.status is ExitStatus.REFUSED, run.out
        assert refused_by(run) == {"guest-stopped"}
        assert told.changes() == []
        run = told.unstick("--settle=2s")
        assert (run.status, run.item["outcome"]) == (ExitStatus.OK, "gone"), run.out + run.err
        patched = [f"{kind.plural}/{told.name}" for kind in (VMI, VM)]
        assert told.changes() == [("PATCH", name) for name in patched]
    finally:
        night.at.virt.start()


def test_what_earlier_releases_left(night: Night) -> None:
    stories = {name: night[f"of-{name}"] for name in OF_VM}
    for name, told in stories.items():
        for kind, names in ((VM, OF_VM), (VMI, OF_VMI)):
            body = night.at.there(kind, told.namespace, told.name)
            assert body is not None
            own = body["metadata"].get("finalizers", [])
            added = [one for one in names[name] if one not in own]
            told.change({"metadata": {"finalizers": [*own, *added]}}, kind)
        told.delete()
    for told in stories.values():
        told.hangs()
    one = stories["1-8"]
    run = one.world.run("unstick", "vm", "--all", "-l", "story=upgraded", "--yes",
                        "--node-powered-off", DARK, "--older-than=0", "--settle=5s",
                        "--timeout=60s", "-o", "json")  # fmt: skip
    assert run.status is ExitStatus.OK
    assert {item["outcome"] for item in run.json["items"]} == {"gone"}
    assert len(run.json["items"]) == len(stories)
    # What nobody in this cluster takes off any more; the rest went by itself.
    assert {
        ("PATCH", "virtualmachines/of-1-3"),
        ("PATCH", "virtualmachines/of-1-6"),
        ("PATCH", "virtualmachines/of-1-8"),
        ("PATCH", "virtualmachineinstances/of-1-4"),
        ("PATCH", "virtualmachineinstances/of-1-6"),
    } <= set(one.changes())
    for told in stories.values():
        assert (told.vm(), told.vmi(), told.pods(), told.hosts()) == (None, None, [], [])


def test_a_restored_vm(night: Night) -> None:
    """The disk waits for the pod, the restore for the disk, and the VM for the restore."""
    told = night["restored"]
    told.delete()
    told.hangs()
    item = told.diagnosis()
    restore = "VirtualMachineRestore/restore"
    assert fates(item, "goes") == {"PersistentVolumeClaim/disk", restore}
    run = told.unstick()
    assert refused_by(run) == {"disks-kept", "finalizers"}, run.out
    run = told.unstick("--override=disks-kept", "--leave-behind=foregroundDeletion")
    assert (run.status, run.item["outcome"]) == (ExitStatus.OK, "gone"), run.out + run.err
    # Without the pod all else goes by itself, and nothing is left behind.
    assert [method for method, _ in told.changes()] == ["DELETE"]
    night.at.wait(lambda: told.gone(PVC, "disk") and told.gone(VM_RESTORE, "restore"),
                  "disk and restore go with it")  # fmt: skip


def test_a_disk_that_two_vms_share(night: Night) -> None:
    told = night["shares"]
    told.delete()
    told.hangs()
    run = told.unstick()
    assert run.status is ExitStatus.REFUSED, run.out + run.err
    assert refused_by(run) == {"webhooks-accept"}
    (refusal,) = run.item["refusals"]
    assert "PVC ns-shares/shared is already used by other VM" in refusal["reason"]
    # The cure that the program names.
    assert "remove the volume from the spec of the VM that is being deleted" in refusal["reason"]
    assert told.changes() == []
    without = {"volumes": None, "domain": {"devices": {"disks": None}}}
    told.change({"spec": {"template": {"spec": without}}})
    run = told.unstick()
    assert (run.status, run.item["outcome"]) == (ExitStatus.OK, "gone"), run.out + run.err
    assert told.has(PVC, "shared")
    assert told.has(VM, "other")


def test_a_namesake_in_another_namespace(night: Night) -> None:
    """Harvester looks for the snapshots of a VM by its name alone."""
    told = night["namesake"]
    night.at.harvester.stop()
    try:
        told.delete()
        told.hangs()
        run = told.unstick()
        assert run.status is ExitStatus.REFUSED, run.out
        assert refused_by(run) == {"finalizers"}
        assert "elsewhere/snap" in run.item["refusals"][0]["reason"]
        assert told.changes() == []
        assert night.at.there(VM_BACKUP, "elsewhere", "snap") is not None
    finally:
        night.at.harvester.start()
    night.at.wait(lambda: night.at.there(VM_BACKUP, "elsewhere", "snap") is None,
                  "Harvester deletes the snapshot of the VM that lives")  # fmt: skip
    run = told.unstick()
    assert (run.status, run.item["outcome"]) == (ExitStatus.OK, "gone"), run.out + run.err
    assert night.at.there(VM, "elsewhere", "namesake") is not None


def test_a_vm_that_nobody_touched_starts_elsewhere(night: Night) -> None:
    told = night["nobody-touched"]
    night.at.wait(lambda: told.state() is not None, "it is listed")
    assert told.state() == "NotReady"
    run = told.unstick()
    assert run.status is ExitStatus.REFUSED, run.out
    assert refused_by(run) == {"guest-stopped"}
    night.at.minutes_pass(CUT)
    run = told.unstick()
    assert (run.status, run.item["outcome"]) == (ExitStatus.OK, "freed"), run.out + run.err
    told.running()
    assert told.hosts() != [CUT]
    assert [method for method, _ in told.changes()] == ["DELETE"]


def test_a_node_that_was_removed_is_cleaned_up(night: Night) -> None:
    told = night["removed"]
    night.at.wait(lambda: told.vm() is None, "the pod is collected, and the VM is gone")
    assert told.state() is None
    assert (told.vmi(), told.pods(), told.hosts()) == (None, [], [])
    assert told.changes() == []


def test_all_nodes_are_down(night: Night) -> None:
    """Then kube-controller-manager stops evicting, for the fault may be its own."""
    told = night["late"]
    night.at.machines.cut_power(*night.at.machines.alive())
    for name in LIVE:
        night.at.wait(partial(night.at.is_missed, name), f"{name} is missed")
    night.at.wait(lambda: "all Nodes are not-Ready" in night.at.manager.log, "it stops evicting")
    # Nobody deletes its pod now. It is listed all the same, for its node does not answer; where the
    # machine is slow, the pod was deleted before, and its grace period has to pass first.
    night.at.wait(lambda: told.state() == "NotReady", "it is listed")
    assert told.unstick().status is ExitStatus.REFUSED
    told.delete()
    told.hangs()
    assert told.state() == "Terminating"
    item = told.diagnosis()
    assert item["target"]["node"] == LIVE[0]
    assert refused_by(told.unstick()) == {"guest-stopped"}
    night.at.minutes_pass(*LIVE)
    run = told.unstick()
    assert (run.status, run.item["outcome"]) == (ExitStatus.OK, "gone"), run.out + run.err
    assert (told.vm(), told.vmi(), told.pods(), told.hosts()) == (None, None, [], [])
