"""`list`, on the simulated and on the real API server."""

from __future__ import annotations

import pytest
import yaml

from kubectl_harvester_stuck.errors import ExitStatus
from tests.behaviour.test_unstick import _grant, _until_past_grace
from tests.support import builders
from tests.support.world import Run, World


def rows(run: Run) -> list[tuple[str, str, str]]:
    return [(item["kind"], item["name"], item["state"]) for item in run.json["items"]]


def test_a_power_cut_before_anybody_pressed_a_button_is_listed(world: World) -> None:
    _, _, launcher = world.power_cut(vm=False, vmi=False)
    _until_past_grace(world)
    run = world.run("list", "-o", "json")
    assert run.status is ExitStatus.OK
    assert rows(run) == [("VirtualMachine", "web", "NotReady")]
    item = run.item
    assert item["node"] == world.dead
    assert item["deletionTimestamp"] == launcher["metadata"]["deletionTimestamp"]


def test_a_pod_within_its_grace_period_is_not_stuck(world: World) -> None:
    world.dead_node()
    instance = world.vmi(world.vm())
    world.delete(world.pod(instance), gracePeriodSeconds=600)
    run = world.run("list", "-o", "json")
    assert (run.status, rows(run)) == (ExitStatus.OK, [])


def test_a_stopping_vm_is_listed_with_its_vmi(world: World) -> None:
    machine, instance, _ = world.power_cut(vm=False)
    run = world.run("list", "-o", "json")
    assert rows(run) == [
        ("VirtualMachine", "web", "Stopping"),
        ("VirtualMachineInstance", "web", "Terminating"),
    ]
    vm_row, vmi_row = run.json["items"]
    assert vm_row["uid"] == machine["metadata"]["uid"]
    assert vm_row["deletionTimestamp"] == instance["metadata"]["deletionTimestamp"]
    assert vmi_row["finalizers"] == instance["metadata"]["finalizers"]


def test_a_deleted_vm_is_listed_once_and_its_vmi_in_a_row_of_its_own(world: World) -> None:
    machine, _, _ = world.power_cut()
    run = world.run("list", "-o", "json")
    # Oldest first: the VMI may have been deleted a second earlier.
    assert sorted(rows(run)) == [
        ("VirtualMachine", "web", "Terminating"),
        ("VirtualMachineInstance", "web", "Terminating"),
    ]
    document = run.json
    assert document["schema"] == "harvester-stuck/list/v1"
    assert (document["context"], document["server"]) == ("test", world.api.url)
    assert document["incomplete"] == []
    (first,) = [item for item in document["items"] if item["kind"] == "VirtualMachine"]
    assert first["apiVersion"] == "kubevirt.io/v1"
    assert first["resourceVersion"] == machine["metadata"]["resourceVersion"]
    assert first["stuckSeconds"] >= 0


def test_the_pod_that_a_migration_left_behind_does_not_make_its_vm_stuck(world: World) -> None:
    world.dead_node()
    world.live_node()
    instance = world.vmi(world.vm(), node=world.live)
    world.delete(world.pod(instance, node=world.dead), gracePeriodSeconds=1)
    other = world.vmi(world.vm("db"), "db")
    world.delete(world.pod(other), gracePeriodSeconds=1)
    _until_past_grace(world)
    assert rows(world.run("list", "-o", "json")) == [("VirtualMachine", "db", "NotReady")]


def test_nothing_stuck_says_so(world: World) -> None:
    world.vmi(world.vm())
    run = world.run("list")
    assert (run.status, run.out) == (ExitStatus.OK, "")
    assert run.err == f"Nothing is stuck in {world.namespace} namespace.\n"


def test_kinds_select_rows(world: World) -> None:
    world.power_cut(vm=False)
    assert rows(world.run("list", "vm", "-o", "json")) == [("VirtualMachine", "web", "Stopping")]
    assert rows(world.run("list", "vmis.kubevirt.io", "-o", "json")) == [
        ("VirtualMachineInstance", "web", "Terminating")
    ]


def test_labels_are_those_of_the_rows_object(world: World) -> None:
    first = world.vm("web", labels={"tier": "front"})
    second = world.vm("db", labels={"tier": "back"})
    world.dead_node()
    for machine in (first, second):
        world.delete(world.vmi(machine, machine["metadata"]["name"]))
    run = world.run("list", "-l", "tier in (front)", "-o", "json")
    assert rows(run) == [("VirtualMachine", "web", "Stopping")]


def test_older_than_leaves_the_young_out(world: World) -> None:
    world.delete(world.vm())
    assert rows(world.run("list", "--older-than", "5m", "-o", "json")) == []
    assert len(rows(world.run("list", "--older-than", "0", "-o", "json"))) == 1


def test_exit_code_tells_that_something_is_stuck(world: World) -> None:
    assert world.run("list", "--exit-code").status is ExitStatus.OK
    world.delete(world.vm())
    assert world.run("list", "--exit-code").status is ExitStatus.STUCK
    assert world.run("list").status is ExitStatus.OK


def test_the_table_is_oldest_first_and_fits_a_terminal(world: World) -> None:
    world.power_cut()
    run = world.run("list")
    header, *lines = run.out.splitlines()
    assert header.split() == ["NAMESPACE", "KIND", "NAME", "STATE", "STUCK", "NODE"]
    assert sorted(line.split()[:4] for line in lines) == [
        [world.namespace, "VM", "web", "Terminating"],
        [world.namespace, "VMI", "web", "Terminating"],
    ]
    assert all(len(line) <= 80 and line == line.rstrip() for line in run.out.splitlines())
    without = world.run("list", "--no-headers").out.splitlines()
    assert [line.split()[:4] for line in without] == [line.split()[:4] for line in lines]


def test_wide_adds_the_finalizers(world: World) -> None:
    world.delete(world.vm())
    assert builders.VM_FINALIZER in world.run("list", "-o", "wide").out


def test_names_are_kubectls(world: World) -> None:
    world.power_cut()
    assert set(world.run("list", "-o=name").out.splitlines()) == {
        "virtualmachine.kubevirt.io/web",
        "virtualmachineinstance.kubevirt.io/web",
    }


def test_yaml_is_the_same_document(world: World) -> None:
    world.delete(world.vm())
    read = yaml.safe_load(world.run("list", "-o", "yaml").out)
    assert read["items"][0]["uid"] == world.run("list", "-o", "json").item["uid"]


def test_every_namespace_is_looked_at_with_all_namespaces(world: World) -> None:
    world.delete(world.vm())
    other = f"{world.namespace}-b"
    second = world.create(builders.vm(other, "db"))
    world.delete(second)
    found = {
        (item["namespace"], item["name"])
        for item in world.run("list", "-A", "-o", "json").json["items"]
    }
    assert {(world.namespace, "web"), (other, "db")} <= found
    assert rows(world.run("list", "-n", other, "-o", "json")) == [
        ("VirtualMachine", "db", "Terminating")
    ]
    world.api.wipe(other)


@pytest.mark.in_process("a page of two objects is made by a patch")
def test_more_objects_than_a_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubectl_harvester_stuck.cluster.client.PAGE", 2)
    for number in range(5):
        world.vm(f"live-{number}")
    for name in ("aaa", "mmm", "zzz"):
        world.delete(world.vm(name))
    world.api.forget()
    assert [name for _, name, _ in rows(world.run("list", "vm", "-o", "json"))] == [
        "aaa",
        "mmm",
        "zzz",
    ]
    pages = [item.path for item in world.api.recorded() if "/virtualmachines?" in item.path]
    assert len(pages) == 4
    assert all("limit=2" in path for path in pages)


def test_a_user_without_cluster_wide_rights_is_told_to_name_a_namespace(world: World) -> None:
    world.delete(world.vm())
    run = world.run("list", "-A", user="alice")
    assert run.status is ExitStatus.ERROR
    assert run.out == ""
    assert "-n NAMESPACE" in run.err
    assert "Nothing is stuck" not in run.err
    document = world.run("list", "-A", "-o", "json", user="alice").json
    assert {item["reason"] for item in document["incomplete"]} == {"Forbidden"}
    assert {item["resource"] for item in document["incomplete"]} == {
        "virtualmachines.kubevirt.io",
        "virtualmachineinstances.kubevirt.io",
        "pods",
    }


def test_what_can_be_read_is_shown_and_the_rest_is_named(world: World) -> None:
    world.delete(world.vm())
    _grant(world, "bob", (["kubevirt.io"], ["virtualmachines"], ["get", "list"]))
    run = world.run("list", "-o", "json", user="bob")
    assert run.status is ExitStatus.INCOMPLETE
    assert rows(run) == [("VirtualMachine", "web", "Terminating")]
    missing = {item["resource"] for item in run.json["incomplete"]}
    assert missing == {"virtualmachineinstances.kubevirt.io", "pods"}


def test_the_lists_carry_metadata_only(world: World) -> None:
    world.vmi(world.vm())
    world.api.forget()
    world.run("list")
    paths = sorted(item.path.partition("?")[0].rpartition("/")[2] for item in world.api.recorded())
    assert paths == ["pods", "virtualmachineinstances", "virtualmachines"]
