"""`restore`, on the simulated and on the real API server: released, and made again."""

from __future__ import annotations

import base64
import json
import shlex
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kubectl_harvester_stuck.cluster.client import Cluster
from kubectl_harvester_stuck.errors import ApiError, ExitStatus
from tests.behaviour.test_unstick import _grant as grant
from tests.support import builders, fastyaml
from tests.support.builders import VM_FINALIZER
from tests.support.relay import Answer, Passed, PassOn, answer, failure
from tests.support.world import QUICK, Answers, Body, Run, World, is_dry_run

SECRET = "correct horse battery staple"
CLOUD_INIT = {
    "name": "cloudinit",
    "cloudInitNoCloud": {
        "userData": f"#cloud-config\npassword: {SECRET}\n",
        "secretRef": {"name": "web-cloud-init"},
    },
}
NETWORK = {
    "interfaces": [{"name": "default", "macAddress": "52:54:00:12:34:56", "bridge": {}}],
    "disks": [{"name": "disk-0", "disk": {"bus": "virtio"}, "bootOrder": 1}],
}
ANNOTATIONS = {
    "harvesterhci.io/removedPersistentVolumeClaims": "",
    "harvesterhci.io/volumeClaimTemplates": '[{"metadata":{"name":"disk-root"}}]',
    "harvesterhci.io/mac-address": '{"default":"52:54:00:12:34:56"}',
}


def machine(world: World, **more: Any) -> Body:
    """A VM with a disk, a MAC address and cloud-init data."""
    spec = builders.with_disks(
        "disk-root",
        domain={"devices": NETWORK},
        networks=[{"name": "default", "multus": {"networkName": "default/vlan1"}}],
        volumes=[CLOUD_INIT],
    )
    return world.vm("web", annotations=ANNOTATIONS, spec={**spec, **more})


def released(world: World, **more: Any) -> tuple[Body, str]:
    """The VM as it stood, and the backup from which it can be made again."""
    world.create(builders.pvc(world.namespace, "disk-root"))
    found = world.delete(machine(world, **more))
    run = world.unstick("--yes")
    assert run.status is ExitStatus.OK, run.out + run.err
    assert world.now(found) is None
    world.api.forget()
    return found, run.item["backup"]


def restore(world: World, backup: str, *more: str, **settings: Any) -> Run:
    return world.run("restore", backup, "-o", "json", *more, **settings)


def verdicts(run: Run) -> dict[str, str]:
    return {check["id"]: check["result"] for check in run.item["checks"]}


def reason(run: Run, check: str) -> str:
    (found,) = [item["reason"] for item in run.item["checks"] if item["id"] == check]
    return str(found)


def refused_by(world: World, backup: str, check: str, verdict: str = "refuse") -> str:
    """The only check that does not pass; nothing was sent, also no dry run."""
    run = restore(world, backup, "--yes")
    assert run.status is ExitStatus.REFUSED, run.out + run.err
    assert run.item["outcome"] == "refused"
    others = {name: said for name, said in verdicts(run).items() if said != "pass"}
    assert others == {check: verdict}
    assert world.changes() == []
    assert not any(is_dry_run(item) for item in world.api.recorded())
    return reason(run, check)


def test_a_released_vm_is_back_powered_off_with_the_same_spec(world: World) -> None:
    before, backup = released(world)
    run = restore(world, backup, "--yes")
    assert run.status is ExitStatus.OK, run.out + run.err
    assert run.item["outcome"] == "created"
    after = world.now(before)
    assert after is not None
    assert SECRET in json.dumps(after["spec"])
    assert run.item["target"]["uid"] == after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after["spec"] == {**before["spec"], "runStrategy": "Halted"}
    assert before["spec"]["runStrategy"] == "RerunOnFailure"
    assert "finalizers" not in after["metadata"]
    assert "deletionTimestamp" not in after["metadata"]
    kept = dict(ANNOTATIONS)
    del kept["harvesterhci.io/removedPersistentVolumeClaims"]
    assert after["metadata"]["annotations"] == kept
    assert not after.get("status")
    assert world.changes() == [("POST", f"{world.namespace}/virtualmachines")]


@pytest.mark.parametrize("words", ["web", "vm web", "vm/web", "{}/web", "vm {}/web", "vm/{}/web"])
def test_the_name_of_a_vm_stands_for_its_newest_file(world: World, words: str) -> None:
    before, backup = released(world)
    named = words.format(world.namespace).split()
    run = world.run("restore", *named, "--dry-run=client")
    assert run.status is ExitStatus.OK, run.out + run.err
    assert json.loads(Path(backup).read_text())["release"]["takenAt"] in run.out
    done = world.run("restore", *named, "--yes", "-o", "json")
    assert (done.status, done.item["outcome"]) == (ExitStatus.OK, "created")
    assert world.now(before) is not None


def test_a_file_of_another_cluster_or_another_vm_is_not_taken_for_a_name(world: World) -> None:
    _, backup = released(world)
    newer = Path(backup).with_name(Path(backup).name.replace("20", "21", 1))
    document = json.loads(Path(backup).read_text())
    document["release"]["server"] = "https://elsewhere:6443"
    newer.touch(mode=0o600)
    newer.write_text(json.dumps(document))
    run = world.run("restore", "web", "--dry-run=client", "-o", "json")
    assert run.status is ExitStatus.OK, run.err
    Path(backup).unlink()
    world.api.forget()
    run = world.run("restore", "web", "--yes")
    assert run.status is ExitStatus.ERROR
    assert f"another cluster's or a VMI's alone: {newer}" in run.err
    assert "restore --list" in run.err
    assert "no undo file" in world.run("restore", "we", "--yes").err
    assert "no undo file" in world.run("restore", "elsewhere/web", "--yes").err
    assert world.api.recorded() == []


def test_what_confirms_a_restore_by_name_names_the_file(world: World) -> None:
    _, backup = released(world)
    run = world.run("restore", "vm", "web")
    assert run.status is ExitStatus.REFUSED
    assert f"using {backup}\n" in run.err
    assert run.err.splitlines()[-1].endswith(f" restore {backup} --yes")


def test_a_file_that_holds_another_vm_than_its_name_says_is_refused(world: World) -> None:
    _, backup = released(world)
    other = Path(backup).with_name(Path(backup).name.replace("_web_", "_db_"))
    Path(backup).rename(other)
    run = world.run("restore", "vm", "db", "--yes")
    assert run.status is ExitStatus.ERROR
    assert f"{other} holds VirtualMachine {world.namespace}/web" in run.err
    assert ("POST", f"{world.namespace}/virtualmachines") not in world.changes()


def test_a_file_comes_before_a_vm_of_its_name(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    released(world)
    monkeypatch.chdir(world.directory)
    Path("web").write_text("{}")
    run = world.run("restore", "web", "--yes")
    assert run.status is ExitStatus.ERROR
    assert "web is not a backup of unstick" in run.err


def test_the_undo_files_are_listed_without_a_cluster(world: World, tmp_path: Path) -> None:
    _, backup = released(world)
    nowhere = world.environ(KUBECONFIG=str(tmp_path / "none"))
    run = world.run("restore", "--list", environ=nowhere)
    header, line = run.out.splitlines()
    assert header.split() == ["SAVED", "NAMESPACE", "NAME", "SIZE", "FILE"]
    size = Path(backup).stat().st_size
    assert line.split()[1:] == [world.namespace, "web", f"{-(-size // 1024)}Ki", backup]
    for words in ((), ("web",), (f"{world.namespace}/web",), ("-n", world.namespace)):
        run = world.run("restore", "--list", *words, "-o", "name", environ=nowhere)
        assert run.out == f"{backup}\n"
    for words in (("db",), ("elsewhere/web",), ("-n", "elsewhere")):
        run = world.run("restore", "--list", *words, environ=nowhere)
        assert (run.status, run.out, run.err) == (ExitStatus.OK, "", "No undo file was found.\n")
    document = world.run("restore", "--list", "-o", "json", environ=nowhere).json
    assert document["schema"] == "harvester-stuck/undo-files/v1"
    (item,) = document["items"]
    assert (item["namespace"], item["name"], item["file"]) == (world.namespace, "web", backup)
    assert item["sizeBytes"] == size
    assert item["takenAt"] == json.loads(Path(backup).read_text())["release"]["takenAt"]
    (Path(backup).parent / "notes.txt").write_text("mine")
    assert world.run("restore", "--list", "-o", "name", environ=nowhere).out == f"{backup}\n"
    moved = tmp_path / "elsewhere"
    Path(backup).parent.rename(moved)
    assert world.run("restore", "--list", environ=nowhere).out == ""
    run = world.run("restore", "--list", "--backup-dir", str(moved), "-o", "name")
    assert run.out == f"{moved / Path(backup).name}\n"
    assert world.run("restore", "web", "--backup-dir", str(moved), "--yes").status is ExitStatus.OK


def test_a_name_as_long_as_kubernetes_takes_it_is_found_and_made_again(world: World) -> None:
    names = ["v" * 250 + end for end in "ab"]
    machines = [world.delete(world.vm(name)) for name in names]
    assert world.unstick("vm", *names, "--yes").status is ExitStatus.OK
    listed = world.run("restore", "--list", "-o", "json").json["items"]
    assert {item["name"] for item in listed} == set(names)
    listed = world.run("restore", "--list", names[1], "-o", "json").json["items"]
    assert [item["name"] for item in listed] == [names[1]]
    run = world.run("restore", "vm", names[1], "--yes", "-o", "json")
    assert (run.status, run.item["target"]["name"]) == (ExitStatus.OK, names[1]), run.err
    assert world.now(machines[0]) is None
    assert "no undo file" in world.run("restore", "vm", "v" * 250, "--yes").err


def interrupted(world: World) -> tuple[tuple[Body, Body, Body], Path]:
    """A power cut, and the undo file of a release that did not come further than the pod."""
    volume = builders.volume(f"pv-{world.namespace}")
    world.create(volume)
    world.create(builders.pvc(world.namespace, "disk-root", volume=volume["metadata"]["name"]))
    world.dead_node()
    vm = machine(world)
    vmi = world.vmi(vm)
    pod = world.delete(world.pod(vmi), gracePeriodSeconds=1)
    objects = world.delete(vm), world.delete(vmi), pod

    def between(request: Passed, pass_on: PassOn) -> Answer | None:
        is_change = request.changes("virtualmachineinstances/web")
        return failure(ApiError(409, "Conflict", "it moved")) if is_change else pass_on()

    with world.past(between) as environ:
        run = world.unstick("--yes", "--node-powered-off", world.dead, environ=environ)
    assert run.status is ExitStatus.UNVERIFIED, run.out + run.err
    assert world.now(pod) is None
    return objects, Path(run.item["backup"])


def uids(path: Path) -> set[str]:
    """Those of the objects that an undo file holds."""
    return {item["metadata"]["uid"] for item in json.loads(path.read_text())["items"]}


def test_the_file_of_a_repeated_release_holds_what_only_the_first_one_saved(world: World) -> None:
    (vm, vmi, pod), first = interrupted(world)
    grant(world, "bob", (["kubevirt.io"], ["*"], ["*"]),
          (["", "coordination.k8s.io"], ["pods", "nodes", "leases"], ["*"]),
          (["apps", "batch", "harvesterhci.io", "cdi.kubevirt.io", "snapshot.kubevirt.io",
            "snapshot.storage.k8s.io", "export.kubevirt.io"], ["*"], ["*"]))  # fmt: skip
    again = world.unstick(
        "--yes", "--node-powered-off", world.dead, "--override", "disks-kept", user="bob"
    )
    assert again.status is ExitStatus.OK, again.out + again.err
    second = Path(again.item["backup"])
    assert uids(second) == uids(first) >= {item["metadata"]["uid"] for item in (vm, vmi, pod)}
    release = json.loads(second.read_text())["release"]
    assert release["takenOverFrom"] == [str(first)]
    assert any("PersistentVolumeClaim" in line for line in release["notSaved"])
    shown = world.run("restore", "web")
    assert f"using {second}\n" in shown.err
    assert f"objects of {first}, from the same release" in " ".join(shown.err.split())
    run = world.run("restore", "web", "--yes", "-o", "json")
    assert (run.status, run.item["outcome"]) == (ExitStatus.OK, "created"), run.out
    assert run.item["takenOverFrom"] == [str(first)]


def test_a_second_release_of_the_name_takes_nothing_over(world: World) -> None:
    released(world)
    gone(world, "disk-root")
    _, second = released(world)
    assert json.loads(Path(second).read_text())["release"]["takenOverFrom"] == []
    assert len(uids(Path(second))) == 2
    run = world.run("restore", "web", "--yes", "-o", "json")
    assert (run.status, run.item["outcome"]) == (ExitStatus.OK, "created"), run.out


def test_a_newer_file_that_is_cut_in_half_is_named_with_the_one_before(world: World) -> None:
    _, backup = released(world)
    newer = Path(backup).with_name(Path(backup).name.replace("20", "21", 1))
    newer.touch(mode=0o600)
    newer.write_text(Path(backup).read_text()[:900])
    run = world.run("restore", "web", "--yes")
    assert run.status is ExitStatus.ERROR
    assert f"{newer} is not JSON" in run.err
    assert f"the file before it is {backup}" in run.err


def test_a_file_that_others_can_have_written_has_to_be_named(world: World) -> None:
    before, backup = released(world)
    newer = Path(backup).with_name(Path(backup).name.replace("20", "21", 1))
    document = json.loads(Path(backup).read_text())
    (vm,) = [item for item in document["items"] if item["kind"] == "VirtualMachine"]
    vm["metadata"]["labels"] = {"from": "others"}
    newer.write_text(json.dumps(document))
    newer.chmod(0o666)
    world.api.forget()
    run = world.run("restore", "web", "--yes")
    assert run.status is ExitStatus.ERROR
    assert f"{newer} can be written to by others" in run.err
    assert f"the file before it is {backup}" in run.err
    assert world.api.recorded() == []
    assert restore(world, str(newer), "--yes").status is ExitStatus.OK
    after = world.now(before)
    assert after is not None
    assert after["metadata"]["labels"] == {"from": "others"}


def test_nothing_is_taken_over_from_a_file_that_others_can_have_written(world: World) -> None:
    _, first = interrupted(world)
    first.chmod(0o666)
    again = world.unstick("--yes", "--node-powered-off", world.dead)
    assert again.status is ExitStatus.OK, again.out + again.err
    release = json.loads(Path(again.item["backup"]).read_text())["release"]
    assert release["takenOverFrom"] == []
    (line,) = release["notSaved"]
    assert f"{first} can be written to by others" in line
    assert f"warning: {line}; what that alone holds is not in {again.item['backup']}" in again.err


def test_a_second_restore_is_refused(world: World) -> None:
    before, backup = released(world)
    assert restore(world, backup, "--yes").status is ExitStatus.OK
    again = world.now(before)
    world.api.forget()
    assert "exists" in refused_by(world, backup, "name-free")
    assert world.now(before) == again


def test_the_deprecated_running_becomes_a_run_strategy(world: World) -> None:
    spec = {"running": True, "runStrategy": None}
    before, backup = released(world, **spec)
    assert before["spec"]["running"] is True
    run = world.run("restore", backup, "--yes")
    assert run.status is ExitStatus.OK, run.out + run.err
    after = world.now(before)
    assert after is not None
    assert "running" not in after["spec"]
    assert after["spec"]["runStrategy"] == "Halted"
    (command,) = [line for line in run.out.splitlines() if "kubectl patch" in line]
    assert '{"spec":{"runStrategy":"Always"}}' in shlex.split(command)


def test_a_disk_that_is_gone_is_named(world: World) -> None:
    _, backup = released(world)
    gone(world, "disk-root")
    assert "PersistentVolumeClaim disk-root is gone" in refused_by(world, backup, "disks-there")


def test_another_disk_of_the_same_name_is_not_taken(world: World) -> None:
    _, backup = released(world)
    gone(world, "disk-root")
    world.create(builders.pvc(world.namespace, "disk-root"))
    world.api.forget()
    assert "another disk of the same name" in refused_by(world, backup, "disks-there")


def gone(world: World, claim: str) -> None:
    """Delete a PVC; the real server keeps it for its finalizer."""
    path = f"/api/v1/namespaces/{world.namespace}/persistentvolumeclaims/{claim}"
    merge = "application/merge-patch+json"
    world.api.request("DELETE", path)
    world.api.request("PATCH", path, {"metadata": {"finalizers": None}}, content_type=merge)
    assert world.api.request("GET", path)[0] == 404
    world.api.forget()


def test_a_disk_that_is_being_deleted_is_no_disk(world: World) -> None:
    _, backup = released(world)
    path = f"/api/v1/namespaces/{world.namespace}/persistentvolumeclaims/disk-root"
    held = {"metadata": {"finalizers": ["example.com/held"]}}
    merge = "application/merge-patch+json"
    assert world.api.request("PATCH", path, held, content_type=merge)[0] == 200
    world.api.request("DELETE", path)
    world.api.forget()
    assert "is being deleted" in refused_by(world, backup, "disks-there")


def test_a_disk_that_another_vm_uses_is_named_with_it(world: World) -> None:
    _, backup = released(world)
    world.vm("db", spec=builders.with_disks("disk-other", "disk-root"))
    world.api.forget()
    words = refused_by(world, backup, "disks-free")
    assert words == (
        f"PersistentVolumeClaim disk-root is used by VirtualMachine {world.namespace}/db"
    )


def test_a_disk_that_another_guest_uses_is_named_with_it(world: World) -> None:
    _, backup = released(world)
    volume = {"name": "root", "persistentVolumeClaim": {"claimName": "disk-root"}}
    world.vmi(None, "db", spec={"volumes": [volume]})
    world.api.forget()
    assert f"VirtualMachineInstance {world.namespace}/db" in refused_by(world, backup, "disks-free")


def user_of(world: World, claim: str, **more: Any) -> Body:
    """A pod of somebody else, without a VM, that mounts the disk."""
    nobody = builders.stored(builders.vmi(world.namespace, "nobody", world.live))
    pod = builders.pod(world.namespace, "copy", world.live, nobody, **more)
    pod["metadata"] = {"namespace": world.namespace, "name": "copy", "labels": {"app": "copy"}}
    pod["spec"]["volumes"] = [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]
    return world.create(pod)


def test_a_disk_that_a_plain_pod_uses_is_named_with_it(world: World) -> None:
    _, backup = released(world)
    user_of(world, "disk-root")
    world.api.forget()
    words = refused_by(world, backup, "disks-free")
    assert words == (
        f"PersistentVolumeClaim disk-root is used by Pod {world.namespace}/copy on node"
        f" {world.live}"
    )


def test_a_pod_that_has_ended_or_uses_another_disk_refuses_nothing(world: World) -> None:
    _, backup = released(world)
    world.api.delete(user_of(world, "disk-other"), gracePeriodSeconds=0)
    assert restore(world, backup, "--dry-run=client").item["outcome"] == "planned"
    user_of(world, "disk-root", terminated=True)
    assert restore(world, backup, "--dry-run=client").item["outcome"] == "planned"


MAC = "52:54:00:12:34:56"
ELSEWHERE = {
    "VM": lambda world: world.create(
        builders.vm(f"{world.namespace}-other", "db", spec=with_address(MAC.upper()))
    ),
    "VMI": lambda world: world.create(
        builders.vmi(
            f"{world.namespace}-other", "db", world.live,
            spec={"domain": with_address(MAC.replace(":", "-"))["template"]["spec"]["domain"]},
        )
    ),
    "observed": lambda world: world.create(
        builders.vmi(f"{world.namespace}-other", "db", world.live,
                     status={"interfaces": [{"name": "default", "mac": MAC}]})
    ),
    "here": lambda world: world.vm("db", spec=with_address(MAC)),
}  # fmt: skip


def with_address(address: str, **binding: Any) -> Body:
    interface = {"name": "default", "macAddress": address, **(binding or {"bridge": {}})}
    return builders.with_disks(domain={"devices": {"interfaces": [interface]}})


@pytest.mark.parametrize("other", ELSEWHERE.values(), ids=ELSEWHERE)
def test_a_mac_address_in_use_is_said_and_no_start_is_offered(
    world: World, other: Callable[[World], Body]
) -> None:
    _, backup = released(world)
    meta = other(world)["metadata"]
    try:
        run = restore(world, backup, "--dry-run=client")
        made = world.run("restore", backup, "--yes")
    finally:
        world.api.wipe(f"{world.namespace}-other")
    assert run.item["outcome"] == "planned"
    (line,) = [line for line in run.item["warnings"] if "MAC" in line]
    assert f"MAC address {MAC} is also that of" in line
    assert f"{meta['namespace']}/db" in line
    assert made.status is ExitStatus.OK, made.out
    assert MAC in made.out
    assert "kubectl patch" not in made.out


def test_mac_addresses_inside_a_pod_or_of_the_vm_itself_are_not_in_use(world: World) -> None:
    _, backup = released(world)
    world.vm("db", spec=with_address(MAC, masquerade={}))
    world.vm("lab", spec=with_address("52:54:00:00:00:01"))
    assert not [line for line in restore(world, backup, "--dry-run=client").item["warnings"]
                if "MAC" in line]  # fmt: skip


def test_mac_addresses_that_may_not_be_looked_for_are_said(world: World) -> None:
    _, backup = released(world)
    world.vm("db", spec=with_address(MAC))
    inside = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
    only_here(world, "alice", inside)
    run = restore(world, backup, "--dry-run=client", user="alice")
    assert run.item["outcome"] == "planned", run.out
    told = [line for line in run.item["warnings"] if "MAC" in line]
    assert f"VirtualMachine {world.namespace}/db" in told[0]
    assert len(told) == 3
    assert all("Forbidden" in line for line in told[1:])


def only_here(world: World, user: str, rule: Body) -> None:
    """These permissions in the namespace of this world alone."""
    meta = {"namespace": world.namespace, "name": user}
    version = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": meta}
    world.create({**version, "kind": "Role", "rules": [rule]})
    group = "rbac.authorization.k8s.io"
    world.create(
        {
            **version,
            "kind": "RoleBinding",
            "roleRef": {"apiGroup": group, "kind": "Role", "name": user},
            "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
        }
    )
    for _ in range(100):
        if world.run("list", user=user).status is ExitStatus.OK:
            return
        time.sleep(0.1)


def test_a_pod_of_the_guest_itself_is_named_once(world: World) -> None:
    _, backup = released(world)
    vmi = builders.stored(builders.vmi(world.namespace, "web", world.dead))
    pod = builders.pod(world.namespace, "virt-launcher-web-x7k2p", world.dead, vmi)
    claim = {"persistentVolumeClaim": {"claimName": "disk-root"}}
    pod["spec"]["volumes"] = [{"name": "root", **claim}]
    world.create(pod)
    world.api.forget()
    refused_by(world, backup, "guest-stopped")


def test_a_guest_with_its_pod_is_named_once(world: World) -> None:
    _, backup = released(world)
    volume = {"name": "root", "persistentVolumeClaim": {"claimName": "disk-root"}}
    vmi = world.vmi(None, "db", spec={"volumes": [volume]})
    pod = builders.pod(world.namespace, "virt-launcher-db-x7k2p", world.dead, vmi)
    pod["spec"]["volumes"] = [volume]
    world.create(pod)
    assert reason(restore(world, backup, "--yes"), "disks-free") == (
        f"PersistentVolumeClaim disk-root is used by VirtualMachineInstance {world.namespace}/db"
    )


def test_an_instance_of_that_name_would_be_adopted(world: World) -> None:
    _, backup = released(world)
    world.vmi(None)
    world.api.forget()
    assert "would adopt it" in refused_by(world, backup, "instance-gone")


def test_a_pod_that_may_still_run_the_guest_is_named(world: World) -> None:
    _, backup = released(world)
    owner = builders.stored(builders.vmi(world.namespace, "web", world.dead))
    pod = world.pod(owner)
    world.api.forget()
    words = refused_by(world, backup, "guest-stopped")
    assert pod["metadata"]["name"] in words
    assert world.dead in words


def test_a_pod_whose_containers_have_ended_refuses_nothing(world: World) -> None:
    _, backup = released(world)
    owner = builders.stored(builders.vmi(world.namespace, "web", world.dead))
    world.pod(owner, terminated=True)
    assert restore(world, backup, "--yes").item["outcome"] == "created"


READS = (["kubevirt.io"], ["*"], ["get", "list"])
DISKS = ([""], ["pods", "persistentvolumeclaims", "secrets"], ["get", "list"])


def test_a_user_who_may_not_create_is_refused_before_anything_is_sent(world: World) -> None:
    _, backup = released(world)
    grant(world, "alice", READS, DISKS)
    world.api.forget()
    run = restore(world, backup, "--yes", user="alice")
    assert run.status is ExitStatus.REFUSED
    assert verdicts(run)["permitted"] == "refuse"
    assert "create virtualmachines.kubevirt.io" in reason(run, "permitted")
    assert not any("/virtualmachines?" in item.path and item.method == "POST"
                   for item in world.api.recorded())  # fmt: skip


@pytest.mark.parametrize(
    ("forbidden", "blind"),
    [("persistentvolumeclaims", {"disks-there"}), ("pods", {"guest-stopped", "disks-free"})],
)
def test_what_may_not_be_read_is_unknown_and_refuses(
    world: World, forbidden: str, blind: set[str]
) -> None:
    _, backup = released(world)
    resources = [name for name in DISKS[1] if name != forbidden]
    grant(world, "alice", (["kubevirt.io"], ["*"], ["*"]), ([""], resources, ["get", "list"]))
    world.api.forget()
    run = restore(world, backup, "--yes", user="alice")
    assert run.status is ExitStatus.REFUSED
    others = {name: said for name, said in verdicts(run).items() if said != "pass"}
    assert others == dict.fromkeys(blind, "unknown")
    for check in blind:
        assert forbidden.removesuffix("s") in reason(run, check).lower()
    assert world.changes() == []


def test_other_vms_that_may_not_be_listed_are_unknown(world: World) -> None:
    _, backup = released(world)
    grant(world, "alice", (["kubevirt.io"], ["*"], ["get", "create"]), DISKS)
    run = restore(world, backup, "--yes", user="alice")
    assert run.status is ExitStatus.REFUSED
    assert verdicts(run)["disks-free"] == "unknown"
    assert world.changes() == []


def test_a_webhooks_denial_is_shown_with_its_cure(world: World) -> None:
    before, backup = released(world)
    words = "PVC disk-root is already used by other VM, please use a shareable RWX volume."
    denial = world.api.deny_updates(
        "virtualmachines", words, namespace=world.namespace, operations=("CREATE",)
    )
    try:
        run = restore(world, backup, "--yes")
    finally:
        denial.remove()
    assert run.status is ExitStatus.REFUSED
    assert run.item["outcome"] == "denied"
    assert words in reason(run, "webhooks-accept")
    assert "another VM lists the same PVC" in reason(run, "webhooks-accept")
    assert world.now(before) is None
    assert world.changes() == []


@pytest.mark.parametrize("dry_run", ["client", "server"])
def test_a_dry_run_creates_nothing(world: World, dry_run: str) -> None:
    before, backup = released(world)
    run = restore(world, backup, "--dry-run", dry_run)
    assert run.status is ExitStatus.OK, run.out + run.err
    assert run.item["outcome"] == "planned"
    assert set(verdicts(run).values()) == {"pass"}
    assert ("webhooks-accept" in verdicts(run)) == (dry_run == "server")
    assert run.item["body"]["spec"]["runStrategy"] == "Halted"
    assert world.now(before) is None
    assert world.changes() == []
    asked = [item for item in world.api.recorded() if is_dry_run(item)]
    assert len(asked) == (1 if dry_run == "server" else 0)


@pytest.mark.parametrize("answer", ["", "\n", "yes\n", "web\n"])
def test_anything_but_the_full_name_confirms_nothing(world: World, answer: str) -> None:
    before, backup = released(world)
    run = restore(world, backup, stdin=answer)
    assert run.status is ExitStatus.REFUSED
    assert "--yes" in run.json["error"]["message"]
    assert world.now(before) is None
    assert world.changes() == []


def test_the_preview_names_cluster_and_changes_and_the_full_name_confirms(world: World) -> None:
    before, backup = released(world)
    run = world.run("restore", backup, stdin=f"{world.namespace}/web\n")
    assert run.status is ExitStatus.OK, run.out + run.err
    assert "Context test\n" in run.err
    assert f"Server  {world.api.url}\n" in run.err
    assert "runStrategy: Halted, was RerunOnFailure" in run.err
    assert f"left out: finalizer {VM_FINALIZER}" in run.err
    assert "52:54:00:12:34:56" in run.err
    assert SECRET not in run.err + run.out
    assert "its secrets are not shown below" in run.err
    assert run.out.startswith(f"VM {world.namespace}/web: created, powered off\n")
    assert world.now(before) is not None


def test_the_command_that_starts_it_again_is_understood(world: World) -> None:
    before, backup = released(world)
    run = world.run("restore", backup, "--yes")
    (line,) = [line for line in run.out.splitlines() if "kubectl patch" in line]
    words = shlex.split(line)
    assert words[:3] == ["kubectl", "patch", "virtualmachine.kubevirt.io"]
    assert json.loads(words[-1]) == {"spec": {"runStrategy": before["spec"]["runStrategy"]}}


@pytest.mark.parametrize("taken", [True, False])
def test_it_is_looked_at_again_after_the_yes(world: World, taken: bool) -> None:
    _, backup = released(world)

    def act() -> None:
        if taken:
            world.vm("web")
        else:
            gone(world, "disk-root")

    run = restore(world, backup, stdin=Answers(f"{world.namespace}/web\n", before=act))
    assert run.status is ExitStatus.REFUSED
    assert verdicts(run)["name-free" if taken else "disks-there"] == "refuse"
    assert world.changes() == []


def restore_past(world: World, backup: str, create: Callable[[PassOn], Answer | None]) -> Run:
    """`restore --yes` where `create` stands in for the create; it is given what passes it on."""

    def between(request: Passed, pass_on: PassOn) -> Answer | None:
        is_create = is_vm_sent(request) and "dryRun" not in request.path
        return create(pass_on) if is_create else pass_on()

    with world.past(between) as environ:
        return restore(world, backup, "--yes", environ=environ)


def is_vm_sent(request: Passed) -> bool:
    """Whether the request creates a VM, as a dry run or in earnest."""
    return request.method == "POST" and "/virtualmachines" in request.path


def test_a_name_that_is_taken_at_the_last_moment_is_refused(world: World) -> None:
    _, backup = released(world)

    def create(pass_on: PassOn) -> Answer | None:
        world.vm("web")
        return pass_on()

    run = restore_past(world, backup, create)
    assert run.status is ExitStatus.REFUSED
    assert run.item["outcome"] == "refused"
    assert "already exists" in run.item["reason"]


def manifest(world: World, **spec: Any) -> Body:
    """A VM `web` of somebody else, powered off."""
    return builders.vm(world.namespace, "web", (), spec={"runStrategy": "Halted", **spec})


def delete(world: World) -> None:
    path = f"/apis/kubevirt.io/v1/namespaces/{world.namespace}/virtualmachines/web"
    assert world.api.request("DELETE", path)[0] == 200


@pytest.mark.parametrize("again", [True, False])
def test_a_vm_that_goes_at_once_is_no_success(world: World, again: bool) -> None:
    _, backup = released(world)

    def create(pass_on: PassOn) -> Answer | None:
        answer = pass_on()
        delete(world)
        if again:
            world.create(manifest(world))
        return answer

    run = restore_past(world, backup, create)
    assert run.status is ExitStatus.UNVERIFIED
    assert ("another one stands there" if again else "not there any more") in run.item["reason"]


def test_a_lost_answer_takes_no_other_vm_for_this_one(world: World) -> None:
    _, backup = released(world)

    def create(_: PassOn) -> Answer | None:
        world.create(manifest(world))
        return None

    run = restore_past(world, backup, create)
    assert run.status is ExitStatus.UNVERIFIED
    assert run.item["outcome"] == "unknown"
    assert "not seen to be this one" in run.item["reason"]


@pytest.mark.parametrize(
    ("error", "status", "outcome"),
    [
        (ApiError(504, "Timeout", "request did not complete"), ExitStatus.UNVERIFIED, "unknown"),
        (ApiError(403, "Forbidden", "quota exceeded"), ExitStatus.REFUSED, "denied"),
        (
            ApiError(500, "InternalError", "failed calling webhook: no endpoints"),
            ExitStatus.REFUSED,
            "denied",
        ),
    ],
)
def test_every_answer_to_the_create_is_told(
    world: World, error: ApiError, status: ExitStatus, outcome: str
) -> None:
    _, backup = released(world)
    run = restore_past(world, backup, lambda _: failure(error))
    assert (run.status, run.item["outcome"]) == (status, outcome)
    assert str(error) in run.item["reason"]


@pytest.mark.in_process("a bug is put into it")
def test_a_bug_while_it_is_created_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    _, backup = released(world)
    create = Cluster.create

    def broken(self: Cluster, *words: Any, dry_run: bool = False) -> Any:
        if dry_run:
            return create(self, *words, dry_run=True)
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Cluster, "create", broken)
    run = restore(world, backup, "--yes")
    assert (run.status, run.item["outcome"]) == (ExitStatus.UNVERIFIED, "unknown")
    assert "a bug" in run.item["reason"]


@pytest.mark.parametrize("more", [{"runStrategy": "Always"}, {"running": True}])
def test_a_webhook_that_would_start_it_is_refused(world: World, more: Body) -> None:
    before, backup = released(world)

    def between(request: Passed, pass_on: PassOn) -> Answer | None:
        given = pass_on()
        if not is_vm_sent(request):
            return given
        body = given.json()
        return answer(given.status, {**body, "spec": {**body["spec"], **more}})

    with world.past(between) as environ:
        run = restore(world, backup, "--yes", environ=environ)
    assert run.status is ExitStatus.REFUSED
    assert "runStrategy Always" in reason(run, "webhooks-accept")
    assert world.now(before) is None


@pytest.mark.parametrize("output", ["table", "json", "yaml"])
def test_no_answer_holds_cloud_init_data(world: World, output: str) -> None:
    _, backup = released(world)
    assert SECRET in Path(backup).read_text()
    run = world.run("restore", backup, "--dry-run=client", "-o", output)
    assert run.status is ExitStatus.OK
    assert "52:54:00:12:34:56" in run.out
    assert SECRET not in run.out + run.err


def test_a_lost_answer_is_looked_into(world: World) -> None:
    before, backup = released(world)

    def create(pass_on: PassOn) -> Answer | None:
        pass_on()
        return None

    run = restore_past(world, backup, create)
    assert run.status is ExitStatus.OK, run.out + run.err
    found = world.now(before)
    assert found is not None
    assert run.item["target"]["uid"] == found["metadata"]["uid"]


def test_a_lost_request_is_never_told_as_nothing_created(world: World) -> None:
    _, backup = released(world)

    run = restore_past(world, backup, lambda _: None)
    assert run.status is ExitStatus.UNVERIFIED
    assert run.item["outcome"] == "unknown"
    assert "not known whether the POST was carried out" in run.item["reason"]


def test_a_vm_that_somebody_starts_at_once_is_no_success(world: World) -> None:
    _, backup = released(world)
    path = f"/apis/kubevirt.io/v1/namespaces/{world.namespace}/virtualmachines/web"

    def create(pass_on: PassOn) -> Answer | None:
        answer = pass_on()
        started = {"spec": {"runStrategy": "Always"}}
        world.api.request("PATCH", path, started, content_type="application/merge-patch+json")
        return answer

    run = restore_past(world, backup, create)
    assert run.status is ExitStatus.UNVERIFIED
    assert "Always" in run.item["reason"]


def test_a_secret_that_is_gone_is_a_warning(world: World) -> None:
    _, backup = released(world)
    run = restore(world, backup, "--dry-run=client")
    assert run.item["warnings"] == [
        "Secret web-cloud-init is gone: make it again before the VM is started"
    ]
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"namespace": world.namespace, "name": "web-cloud-init"},
    }
    world.create(secret)
    assert restore(world, backup, "--dry-run=client").item["warnings"] == []
    grant(world, "alice", (["kubevirt.io"], ["*"], ["*"]), (DISKS[0], DISKS[1][:2], DISKS[2]))
    run = restore(world, backup, "--dry-run=client", user="alice")
    assert run.item["outcome"] == "planned"
    assert "could not look for Secret web-cloud-init" in run.item["warnings"][0]


def test_secrets_are_only_asked_for_their_metadata(world: World) -> None:
    _, backup = released(world)
    accepted: list[str] = []

    def between(request: Passed, pass_on: PassOn) -> Answer | None:
        if "/secrets/" in request.path:
            accepted.append(request.accept)
        return pass_on()

    with world.past(between) as environ:
        restore(world, backup, "--dry-run=client", environ=environ)
    assert len(accepted) == 1
    assert "as=PartialObjectMetadata" in accepted[0]


def test_a_backup_of_another_server_is_said(world: World) -> None:
    _, backup = released(world)
    document = json.loads(Path(backup).read_text())
    document["release"]["server"] = "https://elsewhere:6443"
    Path(backup).write_text(json.dumps(document))
    (first, *_) = restore(world, backup, "--dry-run=client").item["warnings"]
    assert "https://elsewhere:6443" in first
    assert world.api.url in first


def test_a_disk_whose_uid_was_not_saved_is_unknown(world: World) -> None:
    _, backup = released(world)
    document = json.loads(Path(backup).read_text())
    document["items"] = [item for item in document["items"] if item["kind"] == "VirtualMachine"]
    Path(backup).write_text(json.dumps(document))
    words = refused_by(world, backup, "disks-there", "unknown")
    assert "the uid of PersistentVolumeClaim disk-root: it was not saved" in words


def test_owners_are_left_out_and_said(world: World) -> None:
    world.create(builders.pvc(world.namespace, "disk-root"))
    body = builders.vm(world.namespace, "web")
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "fleet", "uid": "not-there"}
    body["metadata"]["ownerReferences"] = [owner]
    before = world.delete(world.create(body))
    run = world.unstick("--yes")
    done = restore(world, run.item["backup"], "--yes")
    assert done.item["outcome"] == "created"
    assert any("ConfigMap fleet" in line for line in done.item["changes"])
    after = world.now(before)
    assert after is not None
    assert "ownerReferences" not in after["metadata"]


def test_the_namespace_of_the_backup_is_the_only_one(world: World) -> None:
    _, backup = released(world)
    assert restore(world, backup, "-n", "elsewhere").status is ExitStatus.USAGE
    done = restore(world, backup, "-n", world.namespace, "--dry-run=client")
    assert done.status is ExitStatus.OK


def test_the_name_is_printed_as_kubectl_does(world: World) -> None:
    _, backup = released(world)
    run = world.run("restore", backup, "--yes", "-o", "name")
    assert run.out == "virtualmachine.kubevirt.io/web\n"
    again = world.run("restore", backup, "--yes", "-o", "name")
    assert (again.out, again.status) == ("", ExitStatus.REFUSED)


# Secrets in backups


def test_a_release_warns_that_the_backup_is_private(world: World) -> None:
    world.create(builders.pvc(world.namespace, "disk-root"))
    world.delete(machine(world))
    run = world.run("unstick", "vm", "web", *QUICK, "--yes", "-o", "json")
    assert run.err.count("cloud-init data") == 1
    (line,) = [line for line in run.err.splitlines() if "restore" in line]
    words = shlex.split(line.partition(": ")[2])
    assert words[:2] == ["kubectl", "harvester-stuck"]
    path = Path(words[3])
    assert path == Path(run.item["backup"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    shared = world.run(*words[2:])
    assert shared.status is ExitStatus.OK
    assert SECRET not in shared.out


def test_a_release_without_secrets_warns_of_nothing(world: World) -> None:
    world.delete(world.vm())
    assert "private" not in world.unstick("--yes").err


def test_a_redacted_copy_holds_no_secret_and_restores_nothing(world: World) -> None:
    world.create(builders.pvc(world.namespace, "disk-root"))
    secret = base64.b64encode(SECRET.encode()).decode()
    inline = {
        "userData": f"password: {SECRET}",
        "userDataBase64": secret,
        "networkData": f"# {SECRET}",
        "networkDataBase64": secret,
    }
    volumes = [
        {"name": "a", "cloudInitNoCloud": inline},
        {"name": "b", "cloudInitConfigDrive": inline},
    ]
    world.live_node()
    probe = {"exec": {"command": ["mysql", f"-p{SECRET}"]}, "periodSeconds": 7}
    url = f"https://me:{SECRET.replace(' ', '+')}@images.example.com/a.img"
    volume = builders.volume(f"pv-{world.namespace}")
    volume["spec"]["csi"]["volumeAttributes"] = {"password": SECRET}
    world.create(volume)
    world.create(builders.pvc(world.namespace, "disk-data", volume=volume["metadata"]["name"]))
    annotations = {
        "hooks.kubevirt.io/hookSidecars": json.dumps([{"args": [SECRET]}]),
        "example.com/image": url,
        "kubectl.kubernetes.io/last-applied-configuration": f'{{"x":"{SECRET}"}}',
        "example.com/template": json.dumps({"volumes": volumes}),
    }
    spec = builders.with_disks("disk-root", "disk-data", volumes=volumes, livenessProbe=probe)
    vm = world.vm(annotations=annotations, spec=spec)
    vmi = world.vmi(vm, node=world.live, phase="Failed", spec={"volumes": volumes})
    body = builders.pod(
        world.namespace, "virt-launcher-web-x7k2p", world.live, vmi, terminated=True
    )
    env = [{"name": "STANDALONE_VMI", "value": json.dumps(inline)}, {"name": "PW", "value": SECRET}]
    body["spec"]["containers"][0]["env"] = env
    pod = world.create(body)
    world.delete(pod, gracePeriodSeconds=1)
    world.delete(vmi)
    world.delete(vm)
    run = world.unstick("--yes")
    assert run.status is ExitStatus.OK, run.out + run.err
    backup = Path(run.item["backup"])
    assert backup.read_text().count(SECRET) >= 5
    world.api.forget()

    shared = world.run("restore", str(backup), "--redact")
    assert shared.status is ExitStatus.OK
    assert SECRET not in shared.out
    assert secret not in shared.out
    assert "staple" not in shared.out
    assert '"periodSeconds": 7' in shared.out
    assert "@images.example.com/a.img" in shared.out
    assert shared.json["release"]["redacted"] is True
    assert {item["kind"] for item in shared.json["items"]} == {
        *("VirtualMachine", "VirtualMachineInstance", "Pod", "PersistentVolumeClaim"),
        "PersistentVolume",
    }
    as_yaml = world.run("restore", str(backup), "--redact", "-o", "yaml")
    assert fastyaml.load(as_yaml.out) == shared.json
    assert world.api.recorded() == []

    copy = world.directory / "shared.json"
    copy.write_text(shared.out)
    refused = world.run("restore", str(copy), "--yes")
    assert refused.status is ExitStatus.ERROR
    assert "redacted" in refused.err
    assert world.changes() == []


def lines(world: World) -> list[Body]:
    """The journal of this world."""
    path = world.directory / "state" / "kubectl-harvester-stuck" / "journal.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_it_is_told_before_and_after_and_without_a_spec(world: World) -> None:
    vm, backup = released(world)
    release = len(lines(world))
    assert world.run("restore", backup, "--yes").status is ExitStatus.OK
    before, after = lines(world)[release:]
    assert (before["phase"], after["phase"]) == ("before", "after")
    assert (before["action"], before["patch"], before["before"]) == ("create", None, None)
    assert (before["object"]["name"], before["backup"]) == ("web", backup)
    assert after["outcome"] == "done"
    made = world.now(vm)
    assert made is not None
    assert after["after"]["uid"] == made["metadata"]["uid"]
    assert SECRET not in json.dumps([before, after])
    (event,) = [item for item in world.events() if item["reason"] == "VirtualMachineRestored"]
    assert event["involvedObject"]["uid"] == made["metadata"]["uid"]
    shown = world.run("journal").out.splitlines()[-1].split()
    assert shown[-2:] == ["create", "done"]


def test_what_cannot_be_told_first_is_not_created(world: World) -> None:
    vm, backup = released(world)
    state = world.directory / "elsewhere"
    state.write_text("not a directory")
    environ = {**world.environ(), "XDG_STATE_HOME": str(state)}
    run = world.run("restore", backup, "--yes", environ=environ)
    assert run.status is ExitStatus.ERROR
    assert "nothing was created" in run.err
    assert world.now(vm) is None
    assert world.changes() == []


def test_what_was_denied_at_the_last_moment_is_told(world: World) -> None:
    _, backup = released(world)
    release = len(lines(world))

    denial = ApiError(422, "Invalid", 'admission webhook "v" denied the request: no')
    run = restore_past(world, backup, lambda _: failure(denial))
    assert run.status is ExitStatus.REFUSED
    assert lines(world)[release:][1]["outcome"].startswith("denied: ")
