"""`unstick`, on the simulated and on the real API server: what is sent, and how it ends."""

from __future__ import annotations

import stat
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kubectl_harvester_stuck.errors import ExitStatus
from kubectl_harvester_stuck.release import target_run
from tests.support import builders
from tests.support.builders import CLEANUP_FINALIZER, LEGACY_FINALIZER, VM_FINALIZER, VMI_FINALIZERS
from tests.support.world import QUICK, Answers, Run, World, acting_before, before, is_dry_run

UNKNOWN = "example.com/do-not-know"


OWNING = (
    ["apps", "batch", "cdi.kubevirt.io", "harvesterhci.io", "snapshot.storage.k8s.io"],
    ["*"],
    ["list"],
)
"""The rule for what can own a disk, or go with a VM."""


def refusals(run: Run) -> set[str]:
    return {item["guard"] for item in run.item["refusals"]}


def power_off(world: World, *more: str) -> tuple[str, ...]:
    return ("--yes", "--node-powered-off", world.dead, *more)


def test_a_deleted_vm_without_instance_is_released(world: World) -> None:
    machine = world.delete(world.vm("web", VM_FINALIZER, LEGACY_FINALIZER))
    run = world.unstick("--yes")
    assert run.status is ExitStatus.OK
    assert run.item["outcome"] == "gone"
    assert world.now(machine) is None
    (sent,) = world.sent()
    assert sent.method == "PATCH"
    assert sent.body == {
        "metadata": {
            "uid": machine["metadata"]["uid"],
            "resourceVersion": machine["metadata"]["resourceVersion"],
            "finalizers": [],
        }
    }
    saved = world.backup(run)
    assert saved["kind"] == "List"
    assert saved["items"][0]["metadata"]["finalizers"] == [VM_FINALIZER, LEGACY_FINALIZER]
    assert saved["items"][0]["kind"] == "VirtualMachine"
    path = Path(run.item["backup"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_disks_are_saved_with_the_vm(world: World) -> None:
    volume = builders.volume(f"pv-{world.namespace}")
    world.create(volume)
    claim = world.create(
        builders.pvc(world.namespace, "disk-root", volume=volume["metadata"]["name"])
    )
    ticked = world.create(builders.pvc(world.namespace, "disk-ticked"))
    disks = {"harvesterhci.io/removedPersistentVolumeClaims": "disk-ticked,disk-gone,"}
    world.delete(world.vm("web", annotations=disks, spec=builders.with_disks("disk-root")))
    saved = world.backup(world.unstick("--yes"))
    assert [(item["kind"], item["metadata"]["name"]) for item in saved["items"]] == [
        ("VirtualMachine", "web"),
        ("PersistentVolumeClaim", "disk-root"),
        ("PersistentVolume", volume["metadata"]["name"]),
        ("PersistentVolumeClaim", "disk-ticked"),
    ]
    uids = [item["metadata"]["uid"] for item in saved["items"] if item["kind"].endswith("Claim")]
    assert uids == [claim["metadata"]["uid"], ticked["metadata"]["uid"]]
    assert saved["release"]["notSaved"] == []


def test_a_disk_that_cannot_be_read_is_named_and_stops_nothing(world: World) -> None:
    volume = builders.volume(f"pv-{world.namespace}")
    world.create(volume)
    world.create(builders.pvc(world.namespace, "disk-root", volume=volume["metadata"]["name"]))
    machine = world.delete(world.vm(spec=builders.with_disks("disk-root")))
    _grant(
        world,
        "bob",
        (["kubevirt.io"], ["*"], ["*"]),
        ([""], ["pods", "persistentvolumeclaims"], ["*"]),
        OWNING,
    )
    run = world.unstick("--yes", user="bob")
    assert run.status is ExitStatus.OK, run.out + run.err
    assert world.now(machine) is None
    saved = world.backup(run)
    assert {item["kind"] for item in saved["items"]} == {"VirtualMachine", "PersistentVolumeClaim"}
    (missed,) = saved["release"]["notSaved"]
    assert f"PersistentVolume {volume['metadata']['name']}" in missed
    assert "Forbidden" in missed


def test_a_name_as_long_as_kubernetes_takes_it_is_released(world: World) -> None:
    """The names of two undo files would be too long, and the same where they are cut."""
    names = ["v" * 250 + end for end in "ab"]
    machines = [world.delete(world.vm(name)) for name in names]
    run = world.unstick("vm", *names, "--yes")
    assert run.status is ExitStatus.OK, run.out + run.err
    assert [world.now(machine) for machine in machines] == [None, None]
    assert len({item["backup"] for item in run.json["items"]}) == 2


def test_a_vm_that_lives_is_refused(world: World) -> None:
    machine = world.vm()
    run = world.unstick("--yes")
    assert run.status is ExitStatus.REFUSED
    assert refusals(run) == {"terminating"}
    assert world.version(machine) == machine["metadata"]["resourceVersion"]
    assert world.changes() == []


def test_a_guest_on_a_silent_node_is_refused_with_what_was_seen_and_what_to_run(
    world: World,
) -> None:
    machine, instance, launcher = world.power_cut()
    run = world.run("unstick", "vm", "web", *QUICK, "--yes")
    assert run.status is ExitStatus.REFUSED
    screen = " ".join(run.out.split())
    for seen in (
        launcher["metadata"]["name"],
        world.dead,
        "Ready: Unknown",
        "heartbeat: 20m ago",
        "lease: 20m ago",
        "virt-handler: not Ready",
    ):
        assert seen in screen
    assert f"unstick vm web -n {world.namespace} --older-than 0s --node-powered-off" in screen
    assert all(world.version(item) == item["metadata"]["resourceVersion"]
               for item in (machine, instance, launcher))  # fmt: skip
    assert world.changes() == []


def test_a_guest_on_a_powered_off_node_is_released_pod_first_then_vmi_then_vm(
    world: World,
) -> None:
    machine, instance, launcher = world.power_cut()
    run = world.unstick(*power_off(world))
    assert run.status is ExitStatus.OK, run.out + run.err
    assert run.item["outcome"] == "gone"
    assert world.changes() == [
        ("DELETE", f"pods/{launcher['metadata']['name']}"),
        ("PATCH", "virtualmachineinstances/web"),
        ("PATCH", "virtualmachines/web"),
    ]
    assert [world.now(item) for item in (machine, instance, launcher)] == [None, None, None]
    saved = {item["kind"] for item in world.backup(run)["items"]}
    assert saved == {"VirtualMachine", "VirtualMachineInstance", "Pod"}


def test_the_command_that_a_refusal_prints_releases_when_pasted(world: World) -> None:
    machine, _, _ = world.power_cut()
    refused = world.run("unstick", "vm", "web", *QUICK, "--yes")
    (line,) = [line for line in refused.out.splitlines() if "--node-powered-off" in line]
    program, plugin, *words = line.split()
    assert (program, plugin) == ("kubectl", "harvester-stuck")
    released = world.run(*words, *QUICK, "--yes")
    assert released.status is ExitStatus.OK, released.out + released.err
    assert world.now(machine) is None


@pytest.mark.parametrize("sign", ["heartbeat", "lease", "virt-handler", "Ready"])
def test_a_sign_of_life_contradicts_the_operators_word(world: World, sign: str) -> None:
    machine, _, _ = world.power_cut()
    _revive(world, sign)
    run = world.unstick(*power_off(world))
    assert run.status is ExitStatus.REFUSED
    reasons = {item["guard"]: item["reason"] for item in run.item["refusals"]}
    assert "was said to have no power" in reasons["guest-stopped"]
    assert sign in reasons["guest-stopped"]
    assert world.now(machine) is not None
    assert world.changes() == []


def _revive(world: World, sign: str) -> None:
    """Let the dead node give one sign of life."""
    fresh = before(timedelta(seconds=20))
    merge = {"content_type": "application/merge-patch+json"}
    path, body = {
        "heartbeat": (
            f"/api/v1/nodes/{world.dead}",
            {"metadata": {"annotations": {"kubevirt.io/heartbeat": fresh}}},
        ),
        "lease": (
            f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{world.dead}",
            {"spec": {"renewTime": fresh.replace("Z", ".000000Z")}},
        ),
        "virt-handler": (
            f"/api/v1/namespaces/harvester-system/pods/virt-handler-{world.dead}/status",
            {"status": {"conditions": [{"type": "Ready", "status": "True"}]}},
        ),
        "Ready": (
            f"/api/v1/nodes/{world.dead}/status",
            {"status": {"conditions": [{"type": "Ready", "status": "True"}]}},
        ),
    }[sign]
    status, answer = world.api.request("PATCH", path, body, **merge)
    assert status == 200, answer


def test_a_pod_whose_containers_have_terminated_needs_nobodys_word(world: World) -> None:
    """The block-volume unmap bug: the node is back, its kubelet cannot finish the pod."""
    world.live_node()
    machine = world.vm()
    instance = world.vmi(machine, node=world.live)
    launcher = world.pod(instance, node=world.live, terminated=True)
    world.delete(launcher, gracePeriodSeconds=1)
    world.delete(instance)
    world.delete(machine)
    run = world.unstick("--yes")
    assert run.status is ExitStatus.OK, run.out + run.err
    assert [method for method, _ in world.changes()] == ["DELETE", "PATCH", "PATCH"]


def test_an_unrecognised_finalizer_is_refused(world: World) -> None:
    machine = world.delete(world.vm("web", VM_FINALIZER, UNKNOWN))
    run = world.unstick("--yes")
    assert run.status is ExitStatus.REFUSED
    assert refusals(run) == {"finalizers"}
    assert UNKNOWN in run.item["refusals"][0]["reason"]
    assert world.finalizers(machine) == [VM_FINALIZER, UNKNOWN]
    assert world.changes() == []


def test_finalizer_removes_only_the_named_one_and_keeps_the_others(world: World) -> None:
    machine = world.delete(world.vm("web", VM_FINALIZER, UNKNOWN))
    run = world.unstick("--yes", "--finalizer", UNKNOWN, "--timeout=0")
    assert world.finalizers(machine) == [VM_FINALIZER]
    # It was changed and is not gone: that is not success.
    assert run.status is ExitStatus.UNVERIFIED
    assert run.item["outcome"] == "still-there"


def test_an_unrecognised_finalizer_that_is_named_is_released(world: World) -> None:
    machine = world.delete(world.vm("web", VM_FINALIZER, UNKNOWN))
    run = world.unstick("--yes", "--finalizer", UNKNOWN, "--finalizer", VM_FINALIZER)
    assert run.status is ExitStatus.OK
    assert world.now(machine) is None


@pytest.mark.parametrize("flag", ["--finalizer", "--leave-behind"])
def test_orphan_is_never_removed(world: World, flag: str) -> None:
    machine = world.delete(world.vm("web", "orphan"))
    run = world.unstick("--yes", flag, "orphan")
    assert run.status is ExitStatus.REFUSED
    assert world.finalizers(machine) == ["orphan"]
    assert world.changes() == []


def test_a_change_between_preview_and_yes_stops_it(world: World) -> None:
    machine = world.delete(world.vm())
    answers = Answers(f"{world.namespace}/web\n", before=lambda: _touch(world, machine))
    run = world.unstick(stdin=answers)
    assert run.status is ExitStatus.REFUSED
    assert refusals(run) == {"unchanged"}
    assert world.finalizers(machine) == [VM_FINALIZER]
    assert world.changes() == []


def _touch(world: World, body: builders.Body) -> None:
    """Let another client change the object."""
    meta = body["metadata"]
    plural = body["kind"].lower() + "s"
    status, answer = world.api.request(
        "PATCH",
        f"/apis/kubevirt.io/v1/namespaces/{meta['namespace']}/{plural}/{meta['name']}",
        {"metadata": {"annotations": {"touched": "yes"}}},
        content_type="application/merge-patch+json",
    )
    assert status == 200, answer


def test_a_stale_resource_version_at_the_patch_is_a_conflict(world: World) -> None:
    machine = world.delete(world.vm())
    with acting_before(world, "virtualmachines/web", lambda: _touch(world, machine)) as environ:
        run = world.unstick("--yes", environ=environ)
    assert run.status is ExitStatus.REFUSED
    assert run.item["outcome"] == "conflict"
    assert world.finalizers(machine) == [VM_FINALIZER]


def test_a_stale_resource_version_at_the_dry_run_is_no_denial(world: World) -> None:
    machine = world.delete(world.vm())
    touch, always = lambda: _touch(world, machine), lambda: True
    with acting_before(world, "virtualmachines/web", touch, asked=always) as environ:
        run = world.unstick("--yes", environ=environ)
    assert (run.status, run.item["outcome"]) == (ExitStatus.REFUSED, "refused")
    (refusal,) = run.item["refusals"]
    assert refusal["guard"] == "webhooks-accept"
    assert "it was changed while it was looked at; ask again" in refusal["reason"]
    assert world.changes() == []


def test_a_conflict_after_the_first_change_is_unverified(world: World) -> None:
    machine, instance, _ = world.power_cut()
    with acting_before(
        world, "virtualmachineinstances/web", lambda: _touch(world, instance)
    ) as environ:
        run = world.unstick(*power_off(world), environ=environ)
    assert run.status is ExitStatus.UNVERIFIED
    assert run.item["outcome"] == "conflict"
    assert [step["status"].split(":")[0] for step in run.item["steps"]] == [
        "done",
        "conflict",
        "not sent",
    ]
    assert world.finalizers(machine) == [VM_FINALIZER]


def test_a_vm_made_again_under_its_name_is_another_vm(world: World) -> None:
    machine = world.delete(world.vm())

    def again() -> None:
        _strip(world, machine)
        world.vm()

    answers = Answers(f"{world.namespace}/web\n", before=again)
    run = world.unstick(stdin=answers)
    assert run.status is ExitStatus.REFUSED
    assert world.finalizers(machine) == [VM_FINALIZER]
    assert world.changes() == []


def _strip(world: World, body: builders.Body) -> None:
    meta = body["metadata"]
    plural = f"{body['kind'].lower()}s"
    world.api.request(
        "PATCH",
        f"/apis/kubevirt.io/v1/namespaces/{meta['namespace']}/{plural}/{meta['name']}",
        {"metadata": {"finalizers": []}},
        content_type="application/merge-patch+json",
    )


@pytest.mark.parametrize("goes", [True, False], ids=["goes", "changes"])
def test_what_a_controller_does_between_a_look_and_its_dry_run_is_looked_at_again(
    world: World, goes: bool
) -> None:
    """The pod is gone, and virt-controller goes to work at last."""
    machine, instance, launcher = world.power_cut()
    act = _strip if goes else _touch
    with acting_before(
        world,
        "virtualmachineinstances/web",
        lambda: act(world, instance),
        asked=lambda: world.now(launcher) is None,
    ) as environ:
        run = world.unstick("--node-powered-off", world.dead, "--yes", environ=environ)
    assert (run.status, run.item["outcome"]) == (ExitStatus.OK, "gone"), run.out
    patched = [name for method, name in world.changes() if method == "PATCH"]
    assert patched == [*([] if goes else ["virtualmachineinstances/web"]), "virtualmachines/web"]
    assert world.now(machine) is None


def test_a_veto_that_comes_after_the_first_change_ends_the_looking(world: World) -> None:
    machine, instance, launcher = world.power_cut()
    with acting_before(
        world,
        "virtualmachineinstances/web",
        lambda: world.api.deny_updates("virtualmachineinstances", "no", namespace=world.namespace),
        asked=lambda: world.now(launcher) is None,
    ) as environ:
        run = world.unstick("--node-powered-off", world.dead, "--yes", environ=environ)
    assert run.status is ExitStatus.UNVERIFIED
    assert [one["guard"] for one in run.item["refusals"]] == ["webhooks-accept"]
    assert [method for method, _ in world.changes()] == ["DELETE"]
    assert world.finalizers(instance) == list(VMI_FINALIZERS)
    assert world.finalizers(machine) == [VM_FINALIZER]


def test_an_object_that_goes_by_itself_before_its_turn_is_gone(world: World) -> None:
    machine = world.delete(world.vm())
    with acting_before(world, "virtualmachines/web", lambda: _strip(world, machine)) as environ:
        run = world.unstick("--yes", environ=environ)
    assert run.status is ExitStatus.OK
    assert run.item["steps"][0]["status"] == "already gone"


def _grant(world: World, user: str, *rules: tuple[list[str], list[str], list[str]]) -> None:
    name = f"{world.namespace}-{user}"
    world.create(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": name},
            "rules": [
                {"apiGroups": groups, "resources": resources, "verbs": verbs}
                for groups, resources, verbs in rules
            ],
        }
    )
    world.create(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": name,
            },
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        }
    )


def test_a_user_without_the_right_is_refused_before_anything_is_sent(world: World) -> None:
    machine = world.delete(world.vm())
    _grant(world, "alice", (["*"], ["*"], ["get", "list"]))
    world.api.forget()
    run = world.unstick("--yes", user="alice")
    assert run.status is ExitStatus.REFUSED
    assert refusals(run) == {"permitted"}
    assert "patch virtualmachines.kubevirt.io" in run.item["refusals"][0]["reason"]
    assert world.finalizers(machine) == [VM_FINALIZER]
    assert [item.method for item in world.api.recorded() if item.method == "PATCH"] == []


def test_a_refusal_names_all_that_the_user_may_not_do(world: World) -> None:
    world.power_cut()
    _grant(world, "alice", (["*"], ["*"], ["get", "list"]))
    run = world.unstick(*power_off(world), user="alice")
    assert refusals(run) == {"permitted"}
    reason = run.item["refusals"][0]["reason"]
    where = f"in namespace {world.namespace}"
    assert reason.startswith(
        f"this user may not delete pods {where}; this user may not patch"
        f" virtualmachineinstances.kubevirt.io {where}; this user may not patch"
        f" virtualmachines.kubevirt.io {where}; "
    )
    assert "harvester-stuck-operator" in reason


def test_a_user_who_cannot_read_nodes_is_refused(world: World) -> None:
    world.power_cut()
    _grant(
        world,
        "bob",
        (["kubevirt.io"], ["*"], ["*"]),
        ([""], ["pods", "persistentvolumeclaims"], ["*"]),
        OWNING,
    )
    run = world.unstick(*power_off(world), user="bob")
    assert run.status is ExitStatus.REFUSED
    assert refusals(run) == {"guest-stopped"}
    reason = run.item["refusals"][0]["reason"]
    assert reason.startswith(f"could not read node {world.dead}: ")
    assert reason.endswith('Forbidden: User "bob" may not read it')
    assert world.changes() == []


def test_a_denying_webhook_is_shown_with_its_cure(world: World) -> None:
    machine = world.delete(world.vm())
    words = (
        f"PVC {world.namespace}/disk-0 is already used by other VM,"
        " please use a shareable RWX volume."
    )
    denial = world.api.deny_updates("virtualmachines", words, namespace=world.namespace)
    try:
        run = world.unstick("--yes")
    finally:
        denial.remove()
    assert run.status is ExitStatus.REFUSED
    assert run.item["outcome"] == "denied"
    (refusal,) = run.item["refusals"]
    assert refusal["guard"] == "webhooks-accept"
    assert words in refusal["reason"]
    assert "remove the volume from the spec of the VM that is going" in refusal["reason"]
    assert world.finalizers(machine) == [VM_FINALIZER]
    assert world.changes() == []


@pytest.mark.parametrize(("release", "is_known"), [("v1.6.1", False), ("v1.8.2", True)])
def test_what_this_release_cannot_have_said_is_only_quoted(
    world: World, release: str, is_known: bool
) -> None:
    kind = {"apiVersion": "harvesterhci.io/v1beta1", "kind": "Setting"}
    world.create({**kind, "metadata": {"name": "server-version"}, "value": release})
    world.delete(world.vm())
    words = "PVC lab/d is already used by other VM, please use a shareable RWX volume."
    denial = world.api.deny_updates("virtualmachines", words, namespace=world.namespace)
    try:
        run = world.unstick("--yes")
    finally:
        denial.remove()
    (refusal,) = run.item["refusals"]
    assert words in refusal["reason"]
    cure = "another VM lists the same PVC: remove the volume from the spec of the VM that is going"
    assert (cure in refusal["reason"]) is is_known
    assert any(cure in line for line in run.item["nextSteps"]) is is_known


def test_a_webhook_that_nobody_answers_is_a_denial(world: World) -> None:
    machine = world.delete(world.vm())
    broken = world.api.break_webhook("virtualmachines", world.namespace)
    try:
        run = world.unstick("--yes")
    finally:
        broken.remove()
    assert run.status is ExitStatus.REFUSED
    assert run.item["outcome"] == "denied"
    assert "deploy/harvester-webhook" in run.item["refusals"][0]["reason"]
    assert world.finalizers(machine) == [VM_FINALIZER]


def test_disks_that_were_to_be_deleted_keep_the_finalizer_pending(world: World) -> None:
    disks = {"harvesterhci.io/removedPersistentVolumeClaims": "disk-0,disk-gone"}
    machine = world.vm("web", CLEANUP_FINALIZER, annotations=disks)
    world.create(builders.pvc(world.namespace, "disk-0"))
    world.delete(machine)
    refused = world.unstick("--yes")
    assert refused.status is ExitStatus.REFUSED
    (judgment,) = refused.item["finalizers"]
    assert judgment["state"] == "pending"
    assert "disk-0" in judgment["reason"]
    assert world.finalizers(machine) == [CLEANUP_FINALIZER]

    # What diagnose does first stands first, what loses something last.
    known = world.run("diagnose", "vm", "web", "--no-logs", "-o", "json").item["nextSteps"]
    steps = refused.item["nextSteps"]
    assert steps[0] == known[0]
    assert f"unstick vm web -n {world.namespace}" in steps[-1]
    assert steps[-1].endswith(f"--leave-behind {CLEANUP_FINALIZER}")
    told = world.run("unstick", "vm", "web", "--older-than=0", "--yes").out
    assert told.rstrip().endswith(steps[-1])
    assert 0 < told.index(steps[0].removeprefix("# ")) < told.index("--leave-behind")

    released = world.unstick("--yes", "--leave-behind", CLEANUP_FINALIZER)
    assert released.status is ExitStatus.OK
    assert world.now(machine) is None
    leftovers = released.item["leftovers"]
    assert any("CleanupPVCAndSnapshot" in line and "disk-0" in line for line in leftovers)
    assert any(f"kubectl delete pvc disk-0 -n {world.namespace}" in line for line in leftovers)
    assert not any("disk-gone" in line for line in leftovers)


def test_a_disk_that_was_not_ticked_is_kept_and_no_command_deletes_it(world: World) -> None:
    volume = {"name": "root", "persistentVolumeClaim": {"claimName": "disk-root"}}
    spec = {"template": {"spec": {"domain": {"devices": {}}, "volumes": [volume]}}}
    machine = world.vm("web", VM_FINALIZER, spec=spec)
    world.create(builders.pvc(world.namespace, "disk-root"))
    world.create(builders.vm_backup(world.namespace, "before-upgrade", "web"))
    world.delete(machine)
    run = world.unstick("--yes")
    assert run.status is ExitStatus.OK
    leftovers = run.item["leftovers"]
    (disk,) = [line for line in leftovers if "disk-root" in line]
    assert "is kept, with its data" in disk
    assert "delete" not in disk.partition("deletion")[0]
    assert any("before-upgrade" in line for line in leftovers)


def test_a_stopping_vm_is_freed_and_never_patched(world: World) -> None:
    machine, instance, launcher = world.power_cut(vm=False)
    run = world.unstick(*power_off(world))
    assert run.status is ExitStatus.OK, run.out + run.err
    assert run.item["outcome"] == "freed"
    assert run.item["target"]["state"] == "Stopping"
    assert [path for _, path in world.changes()] == [
        f"pods/{launcher['metadata']['name']}",
        "virtualmachineinstances/web",
    ]
    assert world.now(instance) is None
    assert world.version(machine) == machine["metadata"]["resourceVersion"]


def test_a_not_ready_vm_is_freed_by_its_pod_alone(world: World) -> None:
    machine, instance, launcher = world.power_cut(vm=False, vmi=False)
    _until_past_grace(world)
    run = world.unstick(*power_off(world))
    assert run.status is ExitStatus.OK, run.out + run.err
    assert run.item["outcome"] == "freed"
    assert run.item["target"]["state"] == "NotReady"
    assert world.changes() == [("DELETE", f"pods/{launcher['metadata']['name']}")]
    assert world.now(launcher) is None
    for item in (machine, instance):
        assert world.version(item) == item["metadata"]["resourceVersion"]


def _until_past_grace(world: World) -> None:
    """Wait for the pod's deletionTimestamp, which lies a second in the future."""
    deadline = time.monotonic() + 15
    while not any(
        item["deletionTimestamp"] for item in world.run("list", "-o", "json").json["items"]
    ):
        assert time.monotonic() < deadline, "the pod never came past its grace period"
        time.sleep(0.1)


def test_the_pod_of_a_hotplugged_volume_goes_with_the_guest(world: World) -> None:
    _, instance, launcher = world.power_cut()

    def hold(name: str) -> builders.Body:
        pod = builders.attachment_pod(world.namespace, name, world.dead, launcher, instance)
        return world.create(pod)

    world.delete(hold("hp-volume-abcde"), gracePeriodSeconds=1)
    other = hold("hp-volume-fghij")
    run = world.unstick(*power_off(world))
    assert run.status is ExitStatus.OK, run.out + run.err
    assert [path for method, path in world.changes() if method == "DELETE"] == [
        f"pods/{launcher['metadata']['name']}",
        "pods/hp-volume-abcde",
    ]
    saved = {item["metadata"]["name"] for item in world.backup(run)["items"]}
    assert saved == {"web", launcher["metadata"]["name"], "hp-volume-abcde"}
    # The other one is not being deleted, so it is left to the garbage collector.
    assert world.now(other) is not None


def test_a_vmi_alone_is_released_and_its_disks_are_saved(world: World) -> None:
    world.live_node()
    world.create(builders.pvc(world.namespace, "disk-root"))
    volume = {"name": "root", "persistentVolumeClaim": {"claimName": "disk-root"}}
    made = world.ended_vmi(spec={"volumes": [volume]})
    instance = world.delete(made)
    run = world.unstick("vmi", "web", "--yes")
    assert run.status is ExitStatus.OK, run.out + run.err
    assert world.now(instance) is None
    saved = [item["kind"] for item in world.backup(run)["items"]]
    assert saved == ["VirtualMachineInstance", "PersistentVolumeClaim"]


def test_both_spellings_of_the_vmi_finalizer_are_known(world: World) -> None:
    world.live_node()
    names = (*VMI_FINALIZERS, "foregroundDeleteVirtualMachine")
    instance = world.delete(world.ended_vmi(finalizers=names))
    assert world.unstick("vmi", "web", "--yes").status is ExitStatus.OK
    assert world.now(instance) is None


@pytest.mark.parametrize("dry_run", ["client", "server"])
def test_a_dry_run_changes_nothing(world: World, dry_run: str) -> None:
    machine, instance, launcher = world.power_cut()
    run = world.unstick("--dry-run", dry_run, "--node-powered-off", world.dead)
    assert run.status is ExitStatus.OK, run.out + run.err
    assert run.item["outcome"] == "planned"
    assert [step["action"] for step in run.item["steps"]] == ["delete-pod", "patch", "patch"]
    for item in (machine, instance, launcher):
        assert world.version(item) == item["metadata"]["resourceVersion"]
    assert world.changes() == []
    asked = [item for item in world.api.recorded() if is_dry_run(item)]
    assert len(asked) == (3 if dry_run == "server" else 0)
    assert not (world.directory / "state").exists()


def test_the_digest_of_a_dry_run_confirms_the_same_plan(world: World) -> None:
    machine = world.delete(world.vm())
    digest = world.unstick("--dry-run=client").json["digest"]
    run = world.unstick("--confirm", digest)
    assert run.status is ExitStatus.OK
    assert run.json["digest"] == digest
    assert world.now(machine) is None


def test_another_digest_confirms_nothing(world: World) -> None:
    machine = world.delete(world.vm())
    digest = world.unstick("--dry-run=client").json["digest"]
    _touch(world, machine)
    run = world.unstick("--confirm", digest)
    assert run.status is ExitStatus.REFUSED
    assert "digest" in run.json["error"]["message"]
    assert world.finalizers(machine) == [VM_FINALIZER]
    assert world.changes() == []


@pytest.mark.parametrize("answer", ["", "\n", "yes\n", "web\n"])
def test_anything_but_the_full_name_confirms_nothing(world: World, answer: str) -> None:
    machine = world.delete(world.vm())
    run = world.unstick(stdin=answer)
    assert run.status is ExitStatus.REFUSED
    assert world.finalizers(machine) == [VM_FINALIZER]
    assert world.changes() == []


def test_the_preview_names_context_server_and_where_the_exact_patch_is(world: World) -> None:
    machine = world.delete(world.vm())
    run = world.unstick(stdin="")
    assert "Context test\n" in run.err
    assert f"Server  {world.api.url}\n" in run.err
    assert "  1  VM: remove 1 finalizer, if still needed\n" in run.err
    assert "exact requests: --dry-run=client" in run.err
    assert f"type {world.namespace}/web" in run.err
    for dry_run in ("client", "server"):
        seen = world.run("unstick", "vm", "web", *QUICK, f"--dry-run={dry_run}").out
        version = machine["metadata"]["resourceVersion"]
        assert f'"resourceVersion":"{version}","finalizers":[]' in seen
        assert f"removes {VM_FINALIZER}: " in seen
        assert seen.index("VM: remove 1 finalizer") < seen.index("\nrequests\n")


def test_what_cannot_be_verified_is_said_as_a_risk(world: World) -> None:
    world.power_cut()
    off = ("--node-powered-off", world.dead)
    seen = world.run("unstick", "vm", "web", *QUICK, *off, stdin="no\n").err
    risk = f"! NOT VERIFIABLE, stated by you: node {world.dead} has NO POWER"
    assert seen.count(risk) == 1
    assert seen.index(risk) < seen.index("To go ahead")
    assert "two guests will write to the same disks" in seen
    refused = world.run("unstick", "vm", "web", *QUICK, "--yes").out
    in_order = ["\nwhy      guest-stopped: ", "\nto do    look at ", " --node-powered-off "]
    assert sorted(in_order, key=refused.index) == in_order
    assert refused.splitlines()[-2] == "diagnose"


def test_equal_refusals_are_one(world: World) -> None:
    world.power_cut()
    second = world.delete(world.vmi(world.vm("second"), "second"))
    world.delete(world.pod(second), gracePeriodSeconds=1)
    run = world.run("unstick", "vm", "--all", *QUICK, "--yes")
    assert run.status is ExitStatus.REFUSED
    assert run.out.count("refused, nothing was changed") == 1
    assert run.out.count("may still run the guest") == 2
    for name in ("web", "second"):
        assert f"VM {world.namespace}/{name}" in run.out
    (line,) = [line for line in run.out.splitlines() if " --node-powered-off " in line]
    # It releases those that were asked for, and no other VM of the node.
    assert "--node " not in line
    assert {"web", "second"} <= set(line.split())


def test_typing_the_full_name_confirms(world: World) -> None:
    machine = world.delete(world.vm())
    run = world.unstick(stdin=f"{world.namespace}/web\n")
    assert run.status is ExitStatus.OK
    assert world.now(machine) is None


def test_several_targets_one_of_them_refused(world: World) -> None:
    gone, kept = world.delete(world.vm("web")), world.vm("db")
    run = world.unstick("vm", "web", "db", "--yes")
    assert run.status is ExitStatus.REFUSED
    assert [item["outcome"] for item in run.json["items"]] == ["gone", "refused"]
    assert world.now(gone) is None
    assert world.finalizers(kept) == [VM_FINALIZER]


def test_a_target_that_does_not_exist_is_an_error(world: World) -> None:
    run = world.unstick("--yes")
    assert run.status is ExitStatus.ERROR
    assert "not found" in run.err
    assert run.json["items"] == []


def test_a_target_that_does_not_exist_can_be_ignored(world: World) -> None:
    off = ("--finalizer", "example.com/x", "--node-powered-off", "typo")
    run = world.unstick("--yes", "--ignore-not-found", *off)
    assert run.status is ExitStatus.OK
    assert run.json["items"] == []
    assert run.err == f"VirtualMachine {world.namespace}/web was not found: nothing to do\n"
    table = world.run("unstick", "web", "--ignore-not-found")
    assert (table.status, table.out) == (ExitStatus.OK, "")
    kept = world.vm("kept")
    run = world.unstick("vm", "web", "kept", "--yes", "--ignore-not-found")
    assert run.status is ExitStatus.REFUSED
    assert [item["outcome"] for item in run.json["items"]] == ["refused"]
    assert world.finalizers(kept) == [VM_FINALIZER]


def test_what_cannot_be_read_is_not_ignored_as_absent(world: World) -> None:
    world.delete(world.vm())
    run = world.unstick("--yes", "--ignore-not-found", user="alice")
    assert run.status is ExitStatus.ERROR
    assert "orbidden" in run.err


def test_more_targets_than_max_are_refused(world: World) -> None:
    machines = [world.delete(world.vm(name)) for name in ("web", "db")]
    run = world.unstick("vm", "web", "db", "--yes", "--max=1")
    assert run.status is ExitStatus.REFUSED
    assert all(world.finalizers(item) == [VM_FINALIZER] for item in machines)


def test_a_young_deletion_is_left_to_the_controllers(world: World) -> None:
    machine = world.delete(world.vm())
    run = world.run("unstick", "vm", "web", "--yes", "-o", "json")
    assert run.status is ExitStatus.REFUSED
    assert refusals(run) == {"past-grace"}
    assert world.finalizers(machine) == [VM_FINALIZER]


def test_a_backup_that_cannot_be_written_stops_it(world: World) -> None:
    machine = world.delete(world.vm())
    blocked = world.directory / "a-file"
    blocked.write_text("")
    run = world.unstick("--yes", "--backup-dir", str(blocked / "sub"))
    assert run.status is ExitStatus.ERROR
    assert "--backup-dir" in run.err
    assert world.finalizers(machine) == [VM_FINALIZER]
    assert world.changes() == []


def test_impersonation_reaches_the_server(world: World) -> None:
    world.delete(world.vm())
    environ = world.environ()
    impersonated: dict[str, Any] = {"as": "carol", "as-groups": ["a", "b"]}
    environ["KUBECONFIG"] = str(world.kubeconfig(**impersonated))
    _grant(world, "carol", (["*"], ["*"], ["*"]))
    world.api.forget()
    run = world.unstick("--yes", environ=environ)
    assert run.status is ExitStatus.OK, run.out + run.err
    (sent,) = world.sent()
    assert sent.user == "admin"
    assert sent.impersonated_user == "carol"
    assert {"a", "b"} <= set(sent.impersonated_groups)


@pytest.mark.in_process("an answer that takes long is made by a patch")
@pytest.mark.parametrize(("holds", "dry_runs"), [(1, 3 + 1 + 2), (0, 3 + 3 + 2)])
def test_later_steps_are_tried_again_where_the_answer_took_long(
    world: World, monkeypatch: pytest.MonkeyPatch, holds: int, dry_runs: int
) -> None:
    """Each step is tried before anything is changed, and once more right before it is sent."""
    monkeypatch.setattr(target_run, "ANSWERS_HOLD", timedelta(minutes=holds))
    world.power_cut()
    run = world.unstick("--yes", "--node-powered-off", world.dead)
    assert run.status is ExitStatus.OK, run.out + run.err
    assert sum(is_dry_run(item) for item in world.api.recorded()) == dry_runs
