"""`diagnose`, on the simulated and on the real API server: it explains, and changes nothing."""

from __future__ import annotations

import html
import re
import shlex
from collections import Counter

import pytest

from kubectl_harvester_stuck.errors import ExitStatus
from kubectl_harvester_stuck.k8s.kinds import KUBEVIRT
from kubectl_harvester_stuck.render import markdown
from tests.behaviour.test_unstick import _grant
from tests.support import builders
from tests.support.builders import VM_FINALIZER
from tests.support.world import Body, World, is_dry_run


def ids(item: Body) -> set[str]:
    return {finding["id"] for finding in item["findings"]}


def test_a_power_cut_is_explained_down_to_the_node(world: World) -> None:
    machine, _, launcher = world.power_cut()
    run = world.run("diagnose", "vm", "web", "-o", "json")
    assert run.status is ExitStatus.OK, run.err
    document = run.json
    assert document["schema"] == "harvester-stuck/diagnosis/v1"
    item = run.item
    assert item["target"]["uid"] == machine["metadata"]["uid"]
    assert "node-silent" in ids(item)
    (vmi,) = [link for link in item["chain"]["links"] if "Instance " in link["object"]]
    (pod,) = vmi["links"]
    assert pod["object"] == f"Pod {world.namespace}/{launcher['metadata']['name']}"
    assert pod["blocking"]
    assert pod["links"][0]["object"] == f"Node {world.dead}"
    assert {entry["state"] for entry in item["finalizers"]} == {"pending"}
    assert world.sent() == []


def test_its_next_step_releases_when_pasted(world: World) -> None:
    machine, _, _ = world.power_cut()
    steps = world.run("diagnose", "vm/web", "-o", "json").item["nextSteps"]
    (command,) = [step for step in steps if step.startswith("kubectl harvester-stuck unstick")]
    words = command.split()[2:]
    run = world.run(*words, "--older-than=0", "--settle=0", "--yes")
    assert run.status is ExitStatus.OK, run.out + run.err
    assert world.now(machine) is None


def test_a_vm_that_may_be_released_says_so_and_by_what(world: World) -> None:
    world.create(builders.deployment("virt-controller"))
    world.delete(world.vm())
    item = world.run("diagnose", "vm", "web", "-o", "json").item
    # Younger than five minutes: its controllers get their time first.
    assert item["verdict"] == "wait"
    assert item["plan"][0]["patch"]["metadata"]["finalizers"] == []


def test_a_veto_is_found_by_the_dry_run(world: World) -> None:
    world.delete(world.vm())
    words = "PVC x/y is already used by other VM, please use a shareable RWX volume."
    denial = world.api.deny_updates("virtualmachines", words, namespace=world.namespace)
    try:
        # The dry run is only sent for what every other guard lets pass.
        young = world.run("diagnose", "vm", "web", "-o", "json").item
        assert "webhook-denies" not in ids(young)
        run = world.run("unstick", "vm", "web", "--older-than=0", "--dry-run=server", "-o", "json")
    finally:
        denial.remove()
    assert words in run.item["refusals"][0]["reason"]


def test_without_a_name_everything_stuck_is_diagnosed_once(world: World) -> None:
    world.power_cut()
    lone = world.delete(world.vmi(None, "lone", node=world.dead, phase="Failed"))
    run = world.run("diagnose", "-o", "json")
    targets = {(item["target"]["kind"], item["target"]["name"]) for item in run.json["items"]}
    assert targets == {("VirtualMachineInstance", "lone"), ("VirtualMachine", "web")}
    assert len(run.json["items"]) == 2
    assert world.run("diagnose", "--exit-code").status is ExitStatus.STUCK
    assert world.now(lone)


def test_requests_depend_on_the_kinds_and_not_on_the_targets(world: World) -> None:
    world.dead_node()

    def asked() -> Counter[str]:
        world.api.forget()
        assert world.run("diagnose", "-o", "json").status is ExitStatus.OK
        return Counter(
            item.path.partition("?")[0].rpartition("/")[2] for item in world.api.recorded()
        )

    for number in range(2):
        world.delete(world.vm(f"vm-{number}"))
    few = asked()
    for number in range(2, 12):
        world.delete(world.vm(f"vm-{number}"))
    many = asked()
    lists = [path for path in few if not path.startswith("vm-")]
    assert {path: few[path] for path in lists} == {path: many[path] for path in lists}


def test_the_screen_fits_a_terminal(world: World) -> None:
    world.power_cut()
    for columns in (60, 80, 120):
        environ = world.environ(COLUMNS=str(columns))
        screen = world.run("diagnose", "vm", "web", environ=environ).out
        assert "<== STUCK HERE" in screen
        assert screen.index("\nwhy ") < screen.index("\nto do ") < screen.index("\nblocks ")
        for line in screen.splitlines():
            assert len(line) <= columns or " kubectl " in line or " " not in line.strip()


def test_nothing_is_wrapped_in_a_pipe(world: World) -> None:
    world.power_cut()
    piped = world.run("diagnose", "vm", "web").out
    wrapped = world.run("diagnose", "vm", "web", environ=world.environ(COLUMNS="60")).out
    assert max(map(len, piped.splitlines())) > 120
    assert re.sub(r"\d+s\b", "", " ".join(piped.split())) == re.sub(
        r"\d+s\b", "", " ".join(wrapped.split())
    )


def test_targets_with_the_same_cause_have_one_command(world: World) -> None:
    world.power_cut(vm=False)
    second = world.delete(world.vmi(world.vm("second"), "second"))
    world.delete(world.pod(second), gracePeriodSeconds=1)
    world.delete(world.vm("other"))
    screen = world.run("diagnose").out
    assert screen.startswith("3 targets, 2 causes: ")
    assert screen.count("shows no life") == 1
    (line,) = [line for line in screen.splitlines() if "--node-powered-off" in line]
    _, _, command, kind, *names = shlex.split(line)[:6]
    assert (command, kind, set(names)) == ("unstick", "vm", {"web", "second"})
    assert shlex.split(line)[6:] == ["-n", world.namespace, "--node-powered-off", world.dead]
    # What blocks each of them is said of each.
    assert screen.count("may still run the guest") == 2
    assert world.run("diagnose", "-o", "wide").out.count("STUCK HERE") >= 3


def test_a_chart_for_a_ticket(world: World) -> None:
    world.power_cut()
    chart = world.run("diagnose", "vm", "web", "-o", "mermaid").out
    assert chart.startswith("flowchart TD\n")
    assert "-->" in chart
    assert "class t0_0_0 blocking" in chart


def test_many_with_the_same_cause_have_the_command_for_their_node(world: World) -> None:
    world.power_cut(vm=False)
    for number in range(8):
        world.delete(world.vmi(world.vm(f"vm-{number}"), f"vm-{number}"))
    screen = world.run("diagnose").out
    (line,) = [line for line in screen.splitlines() if "--node-powered-off" in line]
    assert shlex.split(line)[2:] == [
        "unstick", "vm", "-n", world.namespace, "--node", world.dead,
        "--node-powered-off", world.dead,
    ]  # fmt: skip
    assert "for all of its VMs, also for others than these:" in screen


def test_a_report_for_a_ticket(world: World) -> None:
    world.power_cut()
    item = world.run("diagnose", "vm", "web", "-o", "json").item
    report = world.run("diagnose", "vm", "web", "-o", "markdown").out
    title, *lines = report.splitlines()
    assert title == f"## VM {world.namespace}/web: WAIT"
    for step in item["nextSteps"]:
        assert step.startswith("#") or f"    {step}" in lines
    assert sum(line.endswith(" **STUCK HERE**") for line in lines) == 1
    for part in ("**Why:** ", "**To do:**", "**Chain:**", "**Blocks a release:**"):
        assert sum(line.startswith(part) for line in lines) == 1
    assert world.api.url not in report


def test_in_a_report_words_of_others_are_only_words() -> None:
    odd = "<b>@all</b> [x](y) `z` *a* | H#8003, k8s#5 \n# no"
    issues = "https://github.com/{}/issues/{}"
    shown = html.unescape(markdown.text(odd))
    assert shown == (
        f"<b>@all</b> [x](y) `z` *a* | [H#8003]({issues.format('harvester/harvester', 8003)}),"
        f" [k8s#5]({issues.format('kubernetes/kubernetes', 5)})  # no"
    )
    links = r"\[\w+#\d+\]\(https://github\.com/[a-z/]+/\d+\)"
    assert not re.search(r"[<>@`*|\[\]]", re.sub(links, "", markdown.text(odd)))


def test_a_vm_that_is_not_stuck_is_told_so(world: World) -> None:
    world.vm()
    run = world.run("diagnose", "vm", "web", "-o", "json")
    assert run.item["verdict"] == "none"
    assert ids(run.item) == {"not-stuck"}


def test_a_vm_that_does_not_exist_is_an_error(world: World) -> None:
    run = world.run("diagnose", "vm", "nobody", "-o", "json")
    assert run.status is ExitStatus.ERROR
    assert "not found" in run.err


def test_what_may_not_be_read_is_named(world: World) -> None:
    world.delete(world.vm())
    _grant(world, "bob", (["kubevirt.io"], ["*"], ["get", "list"]), ([""], ["pods"], ["list"]))
    run = world.run("diagnose", "vm", "web", "-o", "json", user="bob")
    assert run.status is ExitStatus.INCOMPLETE
    assert "persistentvolumes" in {item["resource"] for item in run.json["incomplete"]}
    assert run.item["notLookedFor"]


@pytest.mark.parametrize("words", [("vm", "web"), ("-A",)])
def test_nothing_but_reads_reviews_and_dry_runs_is_sent(
    world: World, words: tuple[str, ...]
) -> None:
    machine = world.delete(world.vm())
    world.api.forget()
    world.run("diagnose", *words)
    for item in world.api.recorded():
        assert item.method == "GET" or "reviews" in item.path or is_dry_run(item)
    assert world.finalizers(machine) == [VM_FINALIZER]


def test_a_controller_is_looked_for_where_kubevirt_runs(world: World) -> None:
    elsewhere = f"{world.namespace}-kubevirt"
    world.create(builders.bare(KUBEVIRT, elsewhere, "kubevirt"))
    down = builders.deployment("virt-controller", available=0)
    world.create({**down, "metadata": {**down["metadata"], "namespace": elsewhere}})
    world.delete(world.vm())
    item = world.run("diagnose", "vm", "web", "--older-than=0", "-o", "json").item
    (found,) = [found for found in item["findings"] if found["id"] == "owner-unavailable"]
    assert found["evidence"][0]["object"] == f"Deployment {elsewhere}/virt-controller"
    command = f"kubectl get deploy/virt-controller -n {elsewhere} -o wide"
    assert item["nextSteps"][0] == command
