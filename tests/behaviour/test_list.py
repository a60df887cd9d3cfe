"""`list`, on the simulated and on the real API server."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from kubectl_harvester_stuck.errors import ExitStatus
from tests.behaviour.test_unstick import _grant, _until_past_grace
from tests.support import builders, fastyaml
from tests.support.resources import path_of
from tests.support.world import Run, World, before


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
    world.live_node()
    instance = world.vmi(world.vm(), node=world.live)
    world.delete(world.pod(instance, node=world.live), gracePeriodSeconds=600)
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
    world.live_node()
    world.vmi(world.vm(), node=world.live)
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
    machine = world.vm()
    assert world.run("list", "--exit-code").status is ExitStatus.OK
    world.delete(machine)
    assert world.run("list", "--exit-code").status is ExitStatus.STUCK
    assert world.run("list").status is ExitStatus.OK


def test_the_table_is_oldest_first_and_fits_a_terminal(world: World) -> None:
    world.power_cut()
    run = world.run("list")
    header, *lines = run.out.splitlines()
    columns = ["NAMESPACE", "KIND", "NAME", "STATE", "STUCK", "NODE"]
    assert header.split() == [*columns, "HELD", "BY"]
    # A guest is one row; its objects have rows of their own with `-o wide`.
    assert [line.split()[:4] for line in lines] == [
        [world.namespace, "VM,VMI", "web", "Terminating"]
    ]
    assert [line.split()[-3:] for line in lines] == [[world.dead, "silent", "node"]]
    assert "1 stuck, 1 on node" in run.err
    assert run.err.splitlines()[-1] == f"  kubectl harvester-stuck diagnose -n {world.namespace}"
    assert "diagnose" not in world.run("list", "--no-headers").err
    wide = world.run("list", "-o", "wide").out.splitlines()
    assert wide[0].split() == [*columns, "FINALIZERS", "REASON"]
    assert sorted(line.split()[:4] for line in wide[1:]) == [
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
    read = fastyaml.load(world.run("list", "-o", "yaml").out)
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
    run = world.run("list", "vm", "-o", "json")
    assert [name for _, name, _ in rows(run)] == ["aaa", "mmm", "zzz"]
    assert len([item for item in world.api.recorded() if "/virtualmachines" in item.path]) == 1
    world.api.forget()
    assert world.run("diagnose", "vm", "mmm", "-o", "json").item["target"]["name"] == "mmm"
    pages = [item.path for item in world.api.recorded() if "/virtualmachines?" in item.path]
    # Those of the namespace: the VMs of the cluster are read where MAC addresses are compared only.
    assert len(pages) == 4
    assert all("limit=2" in path for path in pages)


def test_no_more_requests_for_more_that_hangs(world: World) -> None:
    """The lists of VMs, VMIs, pods, nodes and Leases show all that a row of a deletion needs."""
    for number in range(6):
        for name in ("all", "vmi", "gone"):
            machine = world.vm(f"{name}-{number}")
            if name in ("all", "gone"):
                machine = world.delete(machine)
            if name == "gone":
                continue
            instance = world.vmi(machine, f"{name}-{number}", world.dead)
            launcher = world.pod(instance, node=world.dead)
            world.delete(instance)
            world.delete(launcher, gracePeriodSeconds=1)
    world.api.forget()
    run = world.run("list", "-A", "-o", "json")
    assert {item["node"] for item in run.json["items"] if "gone" not in item["name"]} == {
        world.dead
    }
    found = {(kind, name.partition("-")[0], state) for kind, name, state in rows(run)}
    assert found == {
        ("VirtualMachine", "all", "Terminating"),
        ("VirtualMachineInstance", "all", "Terminating"),
        ("VirtualMachine", "vmi", "Stopping"),
        ("VirtualMachineInstance", "vmi", "Terminating"),
        ("VirtualMachine", "gone", "Terminating"),
    }
    asked = [item.path.partition("?")[0] for item in world.api.recorded()]
    assert len(asked) == 5, asked


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


def test_whole_objects_are_read_only_of_what_may_be_stuck(world: World) -> None:
    world.live_node()
    machine = world.vm()
    world.written_by("virt-api", machine, "spec", "runStrategy", when=before(timedelta(hours=1)))
    world.vmi(machine, node=world.live)
    world.api.forget()
    assert rows(world.run("list", "-o", "json")) == []
    paths = sorted(item.path.partition("?")[0].rpartition("/")[2] for item in world.api.recorded())
    assert paths == ["leases", "nodes", "pods", "virtualmachineinstances", "virtualmachines"]


def test_a_power_cut_is_listed_before_kubernetes_has_noticed(world: World) -> None:
    world._node(world.dead, age=timedelta(minutes=2), ready="True", handler=True)
    instance = world.vmi(world.vm(), node=world.dead)
    world.pod(instance, node=world.dead)
    world.vmi(None, "alone", world.dead)
    run = world.run("list", "--exit-code", "-o", "json")
    assert run.status is ExitStatus.STUCK
    assert sorted(rows(run)) == [
        ("VirtualMachine", "web", "NotReady"),
        ("VirtualMachineInstance", "alone", "NotReady"),
    ]
    for item in run.json["items"]:
        assert item["deletionTimestamp"] is None
        assert 60 <= item["stuckSeconds"] < 600
        assert item["node"] == world.dead
        assert "its pod is not being deleted yet" in item["reason"]
    table = world.run("list")
    assert table.out.count("NotReady") == 2
    assert table.err.count(f"node {world.dead} does not answer") == 1
    assert "REASON" in world.run("list", "-o", "wide").out.splitlines()[0]
    assert rows(world.run("list", "--older-than", "1h", "-o", "json")) == []


def test_a_guest_is_not_stuck_beside_an_old_pod_of_a_failed_migration(world: World) -> None:
    world.live_node()
    instance = world.vmi(world.vm(), node=world.live)
    world.pod(instance, node=world.live)
    old = builders.pod(world.namespace, "virt-launcher-web-old", world.live, instance)
    world.delete(world.create(old), gracePeriodSeconds=1)
    time.sleep(2.1)
    assert rows(world.run("list", "-o", "json")) == []


@pytest.mark.parametrize("phase", ["Running", "Succeeded", "Failed"])
def test_a_stop_that_has_not_begun_is_listed(world: World, phase: str) -> None:
    world.live_node()
    machine = world.vm()
    world.vmi(machine, node=world.live, phase=phase)
    world.vmi(world.vm("db"), "db", world.live)
    time.sleep(1.1)  # the times of an API server are whole seconds
    world.api.request(
        "PATCH",
        path_of(machine),
        {"spec": {"runStrategy": "Halted"}},
        content_type="application/merge-patch+json",
    )
    run = world.run("list", "-o", "json")
    assert rows(run) == [("VirtualMachine", "web", "Stopping")]
    assert run.item["deletionTimestamp"] is None
    assert ("the stop has not begun" in run.item["reason"]) is (phase == "Running")


def test_what_a_guest_that_ended_left_is_listed_unless_kubevirt_keeps_it(world: World) -> None:
    world.live_node()
    for name, strategy in (("manual", "Manual"), ("rerun", "RerunOnFailure")):
        machine = world.vm(name, spec={"runStrategy": strategy})
        world.vmi(machine, name, world.live, phase="Succeeded")
    assert rows(world.run("list", "-o", "json")) == [("VirtualMachine", "rerun", "Stopping")]


def test_a_node_that_may_not_be_read_is_no_all_clear(world: World) -> None:
    world.live_node()
    machine = world.vm()
    world.written_by("virt-api", machine, "spec", "runStrategy", when=before(timedelta(hours=1)))
    world.vmi(machine, node=world.live)
    rule = (["", "kubevirt.io"], ["pods", "virtualmachines", "virtualmachineinstances"],
            ["get", "list"])  # fmt: skip
    _grant(world, "bob", rule)
    run = world.run("list", "-o", "json", user="bob")
    assert (run.status, rows(run)) == (ExitStatus.INCOMPLETE, [])
    assert {item["resource"] for item in run.json["incomplete"]} == {
        "nodes",
        "leases.coordination.k8s.io",
    }
    assert "Nothing is stuck" not in world.run("list", user="bob").err


def test_an_unreadable_node_does_not_matter_where_nothing_runs(world: World) -> None:
    world.vm()
    rule = (["", "kubevirt.io"], ["pods", "virtualmachines", "virtualmachineinstances"],
            ["get", "list"])  # fmt: skip
    _grant(world, "bob", rule)
    assert world.run("list", user="bob").status is ExitStatus.OK


@pytest.mark.parametrize(
    "command",
    [("list",), ("list", "--watch"), ("diagnose",), ("check",), ("unstick", "vm", "--all")],
    ids=" ".join,
)
def test_a_namespace_that_does_not_exist_is_no_all_clear(
    world: World, command: tuple[str, ...]
) -> None:
    run = world.run(*command, "-n", "typo")
    assert run.status is ExitStatus.ERROR
    assert "namespace typo was not found" in run.err
    assert "Nothing is stuck" not in run.err


@pytest.mark.parametrize(
    "command", [("list",), ("diagnose",), ("unstick", "vm")], ids=lambda command: command[0]
)
@pytest.mark.parametrize("selector", ["a=b=c", "a in", "a=b,", "=b", "a=-b", "a in (b", "/a"])
def test_a_selector_that_is_none_is_no_all_clear(
    world: World, command: tuple[str, ...], selector: str
) -> None:
    world.vm()
    run = world.run(*command, "-l", selector)
    assert run.status is ExitStatus.USAGE
    assert "is not a label selector" in run.err


@pytest.mark.in_process("many objects are made few by a patch")
def test_many_are_read_as_they_are_one_by_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.dead_node()
    for name in ("a", "b", "c", "d"):
        instance = world.vmi(world.vm(name), name)
        if name != "d":
            world.pod(instance)
    world.delete(world.vm("gone"))
    one_by_one = world.run("list", "-o", "json").json["items"]
    assert [item["name"] for item in one_by_one if item["state"] == "NotReady"] == [*"abcd"]
    monkeypatch.setattr("kubectl_harvester_stuck.listing.find.MANY", 1)
    assert [
        {**item, "stuckSeconds": 0, "reason": ""}
        for item in world.run("list", "-o", "json").json["items"]
    ] == [{**item, "stuckSeconds": 0, "reason": ""} for item in one_by_one]
