"""What breaks between the program and the API server: nothing is hidden, nothing is guessed."""

from __future__ import annotations

import io
import json
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from kubectl_harvester_stuck.cli.terminal import Terminal
from kubectl_harvester_stuck.errors import ExitStatus
from kubectl_harvester_stuck.k8s.source import PARALLEL_REQUESTS
from kubectl_harvester_stuck.release import run as release_run
from tests.behaviour.test_list import rows
from tests.behaviour.test_unstick import power_off, refusals
from tests.support import builders
from tests.support.builders import CLEANUP_FINALIZER, VM_FINALIZER, Body
from tests.support.simulator import Simulator, faults
from tests.support.simulator.exchange import Exchange
from tests.support.world import PATIENCE, QUICK, Answers, World, is_dry_run

PATCH_VM = r"/virtualmachines/web\?fieldManager"
PATCH_VMI = r"/virtualmachineinstances/web\?fieldManager"


@pytest.fixture
def server() -> Iterator[Simulator]:
    """A server of its own for each test, since it is going to be broken."""
    with Simulator() as api:
        yield api


@pytest.fixture
def world(server: Simulator, tmp_path: Path) -> World:
    return World(server, tmp_path, "team", "node-dead", "node-live")


def test_an_api_server_that_is_not_there_is_one_line(world: World, server: Simulator) -> None:
    environ = world.environ()
    server.stop_apiserver()
    for words in (("list",), ("unstick", "vm", "web", "--yes")):
        run = world.run(*words, environ=environ)
        assert run.status is ExitStatus.ERROR
        assert run.out == ""
        assert len(run.err.splitlines()) == 1
        assert "refused" in run.err


def test_with_json_even_a_failure_is_one_document(world: World, server: Simulator) -> None:
    environ = world.environ()
    server.stop_apiserver()
    run = world.run("list", "-o", "json", environ=environ)
    assert run.json["items"] == []
    assert run.json["error"]["exitStatus"] == ExitStatus.ERROR


def test_a_kind_that_is_not_served_is_named(world: World, server: Simulator) -> None:
    world.delete(world.vm())
    server.uninstall("virtualmachineinstances")
    run = world.run("list", "-o", "json")
    assert run.status is ExitStatus.INCOMPLETE
    assert rows(run) == [("VirtualMachine", "web", "Terminating")]
    (missing,) = run.json["incomplete"]
    assert missing["resource"] == "virtualmachineinstances.kubevirt.io"
    assert "is this a Harvester cluster?" in missing["message"]


def test_a_missing_crd_is_not_a_missing_vmi(world: World, server: Simulator) -> None:
    machine = world.delete(world.vm())
    server.uninstall("virtualmachineinstances")
    run = world.unstick("--yes")
    assert run.status is ExitStatus.REFUSED
    assert world.finalizers(machine) == [VM_FINALIZER]
    assert world.changes() == []


@pytest.mark.parametrize(
    ("plural", "status"),
    [
        ("virtualmachineinstancemigrations", ExitStatus.REFUSED),
        ("datavolumes", ExitStatus.OK),
        ("virtualmachinebackups.harvesterhci.io", ExitStatus.OK),
    ],
)
def test_only_the_kinds_of_add_ons_may_be_missing(
    world: World, server: Simulator, plural: str, status: ExitStatus
) -> None:
    world.live_node()
    world.delete(world.ended_vmi(world.delete(world.vm("web", CLEANUP_FINALIZER))))
    server.uninstall(plural)
    assert world.unstick("--yes").status is status


def test_a_gateways_404_is_not_a_missing_add_on(world: World, server: Simulator) -> None:
    machine = world.delete(world.vm("web", CLEANUP_FINALIZER))
    page = faults.body(b"<html>not found</html>", "text/html", 404)
    server.inject(page, path="/virtualmachinebackups", times=None)
    run = world.unstick("--yes")
    assert run.status is ExitStatus.REFUSED
    assert run.item["finalizers"][0]["state"] == "unknown"
    assert world.finalizers(machine) == [CLEANUP_FINALIZER]
    assert world.changes() == []


def test_a_gateways_404_is_not_absence(world: World, server: Simulator) -> None:
    machine = world.delete(world.vm())
    page = faults.body(b"<html>not found</html>", "text/html", 404)
    server.inject(page, path="/virtualmachineinstances/web", times=None)
    run = world.unstick("--yes")
    assert run.status is ExitStatus.REFUSED
    assert "instance-gone" in refusals(run)
    assert "<html>" not in run.out + run.err
    assert world.finalizers(machine) == [VM_FINALIZER]


ALL_AT_ONCE = "/virtualmachines$"
"""The list of VMs in one answer."""

NO_LIST = b'{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","code":504}'


def only_in_pages(server: Simulator) -> None:
    """The server does not answer with all VMs at once."""
    late = faults.status(504, "Timeout", "the list takes too long")
    server.inject(late, path=ALL_AT_ONCE, times=None)


def continued(exchange: Exchange) -> None:
    """The server answers in pages although it was not asked to."""
    exchange.request = replace(exchange.request, target=f"{exchange.request.target}?limit=1")
    exchange.answer()


@pytest.mark.parametrize(
    "fault",
    [
        faults.status(410, "Expired", "too old"),
        faults.status(504, "Timeout", "too slow"),
        faults.body(NO_LIST),
        faults.body(b""),
        faults.body(b'{"kind":"VirtualMachineList","metadata":{},"items":[]'),
        faults.body(b'{"kind":"VirtualMachineList","metadata":{},"items":[{}'),
        faults.cut(),
        continued,
    ],
    ids=["410", "504", "Status", "empty", "no end", "cut JSON", "cut", "page"],
)
def test_a_list_that_does_not_come_at_once_is_read_in_pages(
    world: World, server: Simulator, monkeypatch: pytest.MonkeyPatch, fault: faults.Fault
) -> None:
    monkeypatch.setattr("kubectl_harvester_stuck.cluster.client.PAGE", 2)
    for name in ("a", "b", "c"):
        world.delete(world.vm(name))
    server.inject(fault, path=ALL_AT_ONCE, times=None)
    run = world.run("list", "-o", "json")
    assert run.status is ExitStatus.OK
    assert [name for _, name, _ in rows(run)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("bound", "value"), [("client.PAGES", 2), ("list_stream.LARGEST_ITEM", 1 << 16)]
)
def test_a_list_beyond_a_bound_is_read_in_pages(
    world: World, server: Simulator, monkeypatch: pytest.MonkeyPatch, bound: str, value: int
) -> None:
    monkeypatch.setattr("kubectl_harvester_stuck.cluster.client.PAGE", 3)
    monkeypatch.setattr(f"kubectl_harvester_stuck.cluster.{bound}", value)
    names = [f"web-{number}" for number in range(7)]
    for name in names:
        machine = world.delete(world.vm(name))
        machine["metadata"]["annotations"] = {"large": "x" * (1 << 18)}
        server.seed(machine)
    run = world.run("list", "-o", "json")
    asked = [item.path for item in server.recorded() if "/virtualmachines?" in item.path]
    assert [f"limit={3}" in path for path in asked][:2] == [True, True]
    if bound == "client.PAGES":
        # So many pages are too many as well.
        assert run.status is ExitStatus.INCOMPLETE
        assert "do not end" in run.json["incomplete"][0]["message"]
    else:
        assert [name for _, name, _ in rows(run)] == names


def test_a_list_that_comes_too_slowly_is_an_error(
    world: World, server: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubectl_harvester_stuck.cluster.client.LIST_SECONDS", 0.3)
    world.delete(world.vm())
    server.inject(faults.stall(0.6), path=ALL_AT_ONCE, times=None)
    run = world.run("list", "-o", "json")
    assert run.status is ExitStatus.INCOMPLETE
    assert "takes longer than" in run.json["incomplete"][0]["message"]
    assert not [item.path for item in server.recorded() if "/virtualmachines?" in item.path]


def test_a_deletion_is_seen_however_its_name_is_escaped(world: World, server: Simulator) -> None:
    machine = json.dumps(world.delete(world.vm())).replace("deletionT", "deletion\\u0054")
    text = f'{{"kind":"VirtualMachineList","metadata":{{}},"items":[{machine},{machine}]}}'
    server.inject(faults.body(text.encode()), path=ALL_AT_ONCE, times=None)
    run = world.run("list", "-o", "json")
    assert rows(run)[:1] == [("VirtualMachine", "web", "Terminating")]


@pytest.mark.parametrize(
    "odd",
    ["null", '"web"', "[]", "{}", '{"metadata":null}', '{"metadata":[]}', '{"a":{"metadata":{}}}'],
)
def test_an_item_that_is_no_object_is_named_and_hides_no_other(
    world: World, server: Simulator, odd: str
) -> None:
    machine = json.dumps(world.delete(world.vm()))
    for items in (f"{odd},{machine}", f"{machine},{odd}"):
        text = f'{{"kind":"VirtualMachineList","metadata":{{}},"items":[{items}]}}'
        handle = server.inject(
            faults.body(text.encode()), path=r"/virtualmachines(\?|$)", times=None
        )
        run = world.run("list", "-o", "json")
        handle.remove()
        assert run.status is ExitStatus.INCOMPLETE
        assert rows(run) == [("VirtualMachine", "web", "Terminating")]
        (missing,) = run.json["incomplete"]
        assert missing["resource"] == "virtualmachines.kubevirt.io"


def test_pages_that_expire_are_read_again_from_the_start(
    world: World, server: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubectl_harvester_stuck.cluster.client.PAGE", 2)
    for name in ("a", "b", "c", "d", "e"):
        world.delete(world.vm(name))
    only_in_pages(server)
    server.inject(faults.run(server.compact), path="/virtualmachines.*continue=")
    run = world.run("list", "-o", "json")
    assert run.status is ExitStatus.OK
    assert [name for _, name, _ in rows(run)] == ["a", "b", "c", "d", "e"]


def test_pages_that_always_expire_are_an_error(
    world: World, server: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubectl_harvester_stuck.cluster.client.PAGE", 2)
    for name in ("a", "b", "c"):
        world.delete(world.vm(name))
    only_in_pages(server)
    gone = faults.status(410, "Expired", "The provided continue parameter is too old")
    server.inject(gone, path="/virtualmachines.*continue=", times=None)
    run = world.run("list", "-o", "json")
    assert run.status is ExitStatus.INCOMPLETE
    assert "expired" in run.json["incomplete"][0]["message"]


def test_pages_that_do_not_end_are_an_error(world: World, server: Simulator) -> None:
    page = b'{"kind":"VirtualMachineList","metadata":{"continue":"again"},"items":[]}'
    server.inject(faults.body(page), path="/virtualmachines", times=None)
    run = world.run("list", "-o", "json")
    assert run.status is ExitStatus.INCOMPLETE
    assert "do not end" in run.json["incomplete"][0]["message"]


def test_pages_that_come_too_slowly_are_an_error(
    world: World, server: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubectl_harvester_stuck.cluster.client.PAGE", 1)
    monkeypatch.setattr("kubectl_harvester_stuck.cluster.client.LIST_SECONDS", 0.5)
    for number in range(20):
        world.delete(world.vm(f"web-{number}"))
    only_in_pages(server)
    server.inject(faults.delay(0.2), path=r"/virtualmachines\?", times=None)
    run = world.run("list", "-o", "json")
    assert run.status is ExitStatus.INCOMPLETE
    assert "takes longer than" in run.json["incomplete"][0]["message"]


def test_a_malformed_object_hides_no_other_from_a_diagnosis(
    world: World, server: Simulator
) -> None:
    world.delete(world.vm())
    meta = {"namespace": "team", "name": "odd", "finalizers": "all"}
    server.seed({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": meta})
    run = world.run("diagnose", "vm", "web", "-o", "json")
    assert run.status is ExitStatus.INCOMPLETE
    assert run.item["target"]["name"] == "web"
    assert "odd" in run.json["incomplete"][0]["message"]


def test_a_check_that_could_read_nothing_is_an_error(world: World, server: Simulator) -> None:
    server.inject(faults.status(401, "Unauthorized", "who?"), times=None)
    run = world.run("check", "-o", "json")
    assert run.status is ExitStatus.ERROR
    assert {item["result"] for item in run.json["items"]} == {"unknown"}


@pytest.mark.parametrize(
    "answer",
    [b"<html>", b"[]", b"{}", b'{"kind":"VirtualMachineList","metadata":{},"items":{}}', b""],
    ids=["html", "array", "object", "items", "empty"],
)
def test_an_answer_that_is_no_list_is_never_an_empty_one(
    world: World, server: Simulator, answer: bytes
) -> None:
    server.inject(faults.body(answer), path="/virtualmachines", times=None)
    run = world.run("list", "-o", "json")
    assert run.status is ExitStatus.INCOMPLETE
    assert [item["resource"] for item in run.json["incomplete"]] == ["virtualmachines.kubevirt.io"]


def test_a_malformed_object_is_named_and_hides_no_other(world: World, server: Simulator) -> None:
    world.delete(world.vm())
    server.seed(
        {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachine",
            "metadata": {
                "namespace": "team",
                "name": "odd",
                "deletionTimestamp": "yesterday",
                "finalizers": ["a"],
            },
        }
    )
    run = world.run("list", "-o", "json")
    assert run.status is ExitStatus.INCOMPLETE
    assert rows(run) == [("VirtualMachine", "web", "Terminating")]
    assert "yesterday" in run.json["incomplete"][0]["message"]


def test_a_malformed_vmi_behind_a_hanging_pod_is_named(world: World, server: Simulator) -> None:
    machine, instance, launcher = world.power_cut(vm=False, vmi=False)
    server.seed({**instance, "status": {"phase": "Running", "nodeName": 7}})
    server.clock.advance(60)
    run = world.run("list", "-o", "json")
    assert run.status is ExitStatus.INCOMPLETE
    assert "status.nodeName is not a string" in run.json["incomplete"][0]["message"]
    assert world.finalizers(machine)
    assert world.now(launcher)


def test_a_lost_answer_is_looked_into_before_anything_is_said(
    world: World, server: Simulator
) -> None:
    machine = world.delete(world.vm())
    server.inject(faults.lose_answer(), method="PATCH", path=PATCH_VM)
    run = world.unstick("--yes")
    assert run.item["steps"][0]["status"].startswith("unknown")
    assert run.item["outcome"] == "gone"
    assert run.status is ExitStatus.OK
    assert world.now(machine) is None


def test_a_vm_made_again_after_its_release_does_not_count_as_still_there(
    world: World, server: Simulator
) -> None:
    machine = world.delete(world.vm())
    again: list[Body] = []
    made = faults.run_after(lambda: again.append(world.vm()))
    server.inject(made, method="PATCH", path=PATCH_VM)
    run = world.unstick("--yes")
    assert run.status is ExitStatus.OK
    assert run.item["outcome"] == "gone"
    assert world.version(machine) == again[0]["metadata"]["resourceVersion"]


def test_a_request_without_an_answer_is_not_told_as_nothing_changed(
    world: World, server: Simulator
) -> None:
    world.delete(world.vm())
    server.inject(faults.close(), method="PATCH", path=PATCH_VM)
    run = world.run("unstick", "vm", "web", *QUICK, "--yes")
    assert run.status is ExitStatus.UNVERIFIED
    assert "nothing was changed" not in run.out
    assert "STILL THERE" in run.out


def test_a_failure_after_which_it_is_still_there_is_unverified(
    world: World, server: Simulator
) -> None:
    machine = world.delete(world.vm())
    server.inject(faults.status(500, "InternalError", "oops"), method="PATCH", path=PATCH_VM)
    run = world.unstick("--yes")
    assert run.status is ExitStatus.UNVERIFIED
    assert run.item["outcome"] == "still-there"
    assert world.finalizers(machine) == [VM_FINALIZER]
    assert len(world.sent()) <= 1  # sent once, never again


def test_an_api_server_that_stops_in_the_middle_hides_nothing(
    world: World, server: Simulator
) -> None:
    machine, instance, launcher = world.power_cut()
    server.inject(
        faults.run_after(lambda: server.inject(faults.close(), times=None)), method="DELETE",
        path=launcher["metadata"]["name"], after=1 + 1,
    )  # fmt: skip
    run = world.unstick(*power_off(world))
    assert run.status is ExitStatus.UNVERIFIED
    assert run.item["outcome"] == "unknown"
    assert [step["status"] for step in run.item["steps"]] == ["done", "not sent", "not sent"]
    assert run.item["backup"]
    assert world.now(launcher) is None
    assert world.finalizers(machine)
    assert world.finalizers(instance)


def test_the_same_command_finishes_what_was_interrupted(world: World, server: Simulator) -> None:
    machine, _, launcher = world.power_cut()
    broken = [server.inject(faults.close(), method="PATCH", path=PATCH_VMI, times=None)]
    first = world.unstick(*power_off(world))
    assert first.status is ExitStatus.UNVERIFIED
    broken.pop().remove()
    second = world.unstick(*power_off(world))
    assert second.status is ExitStatus.OK
    assert world.now(machine) is None
    assert world.now(launcher) is None


@pytest.fixture
def ctrl_c(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Presses it, and waits until the main thread has got a processor to notice it."""
    noticed = threading.Event()
    note = Terminal.println

    def told(terminal: Terminal, text: str) -> None:
        note(terminal, text)
        if text.startswith("interrupted"):
            noticed.set()

    def press() -> None:
        # To the main thread, which a process of its own prefers: here servers have threads, too.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        assert noticed.wait(PATIENCE)

    monkeypatch.setattr(Terminal, "println", told)
    return press


def test_ctrl_c_lets_the_request_in_flight_finish_and_tells_it(
    world: World, server: Simulator, ctrl_c: Callable[[], None]
) -> None:
    machine, _, launcher = world.power_cut()
    press = faults.run_after(ctrl_c)
    server.inject(press, method="DELETE", path=launcher["metadata"]["name"], after=1 + 1)
    run = world.unstick(*power_off(world))
    assert run.status is ExitStatus.UNVERIFIED
    assert run.item["outcome"] == "still-there"
    assert [step["status"] for step in run.item["steps"]] == ["done", "not sent", "not sent"]
    assert "interrupted: stopping after the request in flight" in run.err
    assert world.finalizers(machine) == [VM_FINALIZER]


@pytest.mark.parametrize("is_held", [False, True])
def test_ctrl_c_in_the_middle_of_a_line_is_told_and_holds_nothing_up(is_held: bool) -> None:
    code = (
        "import signal, sys\n"
        "from kubectl_harvester_stuck.release.interrupts import Interrupts\n"
        "from kubectl_harvester_stuck.render.invocation import Invocation\n"
        "from kubectl_harvester_stuck.cli.terminal import Terminal\n"
        "class Pressing:\n"
        "    said = ''\n"
        "    def write(self, text):\n"
        f"        if {is_held} and text.startswith('interrupted'):\n"
        "            raise RuntimeError('reentrant call')\n"
        "        self.said += text\n"
        "        if text.startswith('patch'):\n"
        "            signal.raise_signal(signal.SIGINT)\n"
        "    def flush(self): pass\n"
        "    def isatty(self): return False\n"
        "sys.stderr = Pressing()\n"
        "terminal = Terminal(Invocation('', ''))\n"
        "with Interrupts(terminal.println) as interrupts:\n"
        "    interrupts.hold()\n"
        "    terminal.println('patch VirtualMachine shop/web: done')\n"
        "    print(interrupts.pressed, sys.stderr.said)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    told = ["True patch VirtualMachine shop/web: done"]
    if not is_held:
        told.append("interrupted: stopping after the request in flight")
    assert done.stdout.split() == " ".join(told).split()


def test_ctrl_c_while_it_looks_again_sends_nothing_more(
    world: World, server: Simulator, ctrl_c: Callable[[], None]
) -> None:
    machine, instance, launcher = world.power_cut()
    press = faults.run_after(ctrl_c)
    # The dry run after the first change: the second, behind that of the plan.
    server.inject(press, method="PATCH", path=r"/virtualmachineinstances/web\?dryRun", after=1)
    run = world.unstick(*power_off(world))
    assert run.status is ExitStatus.UNVERIFIED
    assert (run.item["outcome"], run.item["reason"]) == ("still-there", "interrupted")
    assert [step["status"] for step in run.item["steps"]] == ["done", "not sent", "not sent"]
    assert world.now(launcher) is None
    assert world.finalizers(instance)
    assert world.finalizers(machine) == [VM_FINALIZER]


def test_ctrl_c_while_it_looks_for_the_first_time_sends_nothing(
    world: World, server: Simulator, ctrl_c: Callable[[], None]
) -> None:
    machine, instance, launcher = world.power_cut()
    # The dry run of the release: the second, behind that of the plan.
    press = faults.run_after(ctrl_c)
    server.inject(press, method="DELETE", path=r"/pods/virt-launcher", after=1)
    run = world.unstick(*power_off(world))
    assert (run.status, run.item["outcome"]) == (ExitStatus.REFUSED, "refused"), run.out
    assert run.item["reason"] == "interrupted; nothing was sent for it"
    assert world.changes() == []
    assert world.now(launcher) is not None
    assert world.finalizers(instance)
    assert world.finalizers(machine) == [VM_FINALIZER]


def test_ctrl_c_stops_all_targets_that_have_sent_nothing(
    world: World, server: Simulator, ctrl_c: Callable[[], None]
) -> None:
    machines = [world.delete(world.vm(f"web-{number}")) for number in range(30)]
    press = faults.run_after(ctrl_c)
    server.inject(press, method="PATCH", path=r"/virtualmachines/web-\d+\?field")
    run = world.run("unstick", "--all", *QUICK, "--max=30", "--yes", "-o", "json")
    sent = world.changes()
    assert 1 <= len(sent) <= PARALLEL_REQUESTS, sent
    ends = Counter(item["outcome"] for item in run.json["items"])
    assert ends["refused"] >= 30 - PARALLEL_REQUESTS, run.out
    assert [world.now(item) for item in machines].count(None) == len(sent)


def test_a_change_rests_on_a_look_that_is_not_older_than_alone(
    world: World, server: Simulator
) -> None:
    """However many targets there are: what each depends on is read right before it is sent."""
    for number in range(24):
        world.delete(world.vm(f"web-{number}"))
    server.inject(faults.delay(0.3), method="PATCH", path=r"dryRun=All", times=None)
    run = world.run("unstick", "--all", *QUICK, "--max=30", "--yes", "-o", "json")
    assert Counter(item["outcome"] for item in run.json["items"]) == {"gone": 24}, run.out
    recorded = world.api.recorded()
    for number in range(24):
        name = f"/virtualmachines/web-{number}"
        looks = [at for at, item in enumerate(recorded)
                 if item.method == "GET" and item.path.endswith(name)]  # fmt: skip
        (sent,) = [at for at, item in enumerate(recorded)
                   if item.path.partition("?")[0].endswith(name)
                   and item.method == "PATCH" and not is_dry_run(item)]  # fmt: skip
        last = max(at for at in looks if at < sent)
        between = recorded[last:sent]
        dry_runs = sum(is_dry_run(item) for item in between)
        assert dry_runs <= 2 * PARALLEL_REQUESTS, (name, dry_runs)


@pytest.mark.parametrize("is_queued", [True, False])
def test_a_machine_that_starts_no_more_threads_hides_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, is_queued: bool
) -> None:
    """As an executor does: what it has queued is done, although it says that it cannot."""

    class Few(ThreadPoolExecutor):
        def submit(self, *given: Any, **more: Any) -> Future[Any]:
            if self._max_workers != release_run.TARGETS_AT_ONCE:
                return super().submit(*given, **more)
            if is_queued:
                super().submit(*given, **more)
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(release_run, "ThreadPoolExecutor", Few)
    machines = [world.delete(world.vm(f"web-{number}")) for number in range(5)]
    run = world.run("unstick", "--all", *QUICK, "--max=9", "--yes", "-o", "json")
    assert run.status is ExitStatus.OK, run.out + run.err
    assert Counter(item["outcome"] for item in run.json["items"]) == {"gone": 5}
    assert len(world.changes()) == 5
    assert [world.now(item) for item in machines] == [None] * 5


def test_ctrl_c_at_the_question_is_no_yes(world: World) -> None:
    machine = world.delete(world.vm())

    def press() -> None:
        raise KeyboardInterrupt

    run = world.unstick(stdin=Answers("team/web\n", before=press))
    assert run.status is ExitStatus.REFUSED
    assert world.finalizers(machine) == [VM_FINALIZER]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_another_answer_changes_nothing_and_who_has_no_terminal_is_told_what_to_use(
    world: World, is_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = world.delete(world.vm())
    answers = Answers("team/other\n")
    monkeypatch.setattr(answers, "isatty", lambda: is_terminal)
    run = world.unstick(stdin=answers)
    assert run.status is ExitStatus.REFUSED
    assert world.finalizers(machine) == [VM_FINALIZER]
    if is_terminal:
        assert run.err.rstrip().endswith("not confirmed, nothing was changed")
        assert "commands" not in run.json["error"]
        return
    digest = world.unstick("--dry-run=client").json["digest"]
    assert run.err.splitlines()[-2].endswith(
        f"not confirmed, nothing was changed; without a terminal use --confirm {digest}"
    )
    line = run.err.splitlines()[-1]
    assert run.json["error"]["commands"] == [line]
    _, _, *words = shlex.split(line)
    assert world.run(*words).status is ExitStatus.OK
    assert world.now(machine) is None


@pytest.mark.parametrize("field", ["name", "namespace"])
@pytest.mark.parametrize("odd", ["../../../evil", "web; reboot", "web\nweb", "w\u00e9b", "-w"])
def test_what_is_no_name_becomes_neither_a_file_nor_a_command(
    world: World, server: Simulator, field: str, odd: str
) -> None:
    machine = world.delete(world.vm("good"))
    meta = {**machine["metadata"], "uid": "odd", field: odd}
    body = {"kind": "VirtualMachineList", "metadata": {}, "items": [{"metadata": meta}, machine]}
    server.inject(
        faults.body(json.dumps(body).encode()), path=r"/virtualmachines(\?|$)", times=None
    )
    for words in (("list",), ("diagnose",), ("unstick", "vm", "--all", *QUICK, "--yes")):
        run = world.run(*words, "-o", "json")
        reasons = {missing["message"] for missing in run.json["incomplete"]}
        assert any("none that an API server takes" in reason for reason in reasons)
        assert [item.get("target", item)["name"] for item in run.json["items"]] == ["good"]
    (saved,) = world.directory.rglob("*_*.json")
    assert saved.parent == world.state / "backups"


def test_names_cannot_move_the_cursor(world: World, server: Simulator) -> None:
    server.seed(
        {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstance",
            "metadata": {
                "namespace": "team",
                "name": "web",
                "deletionTimestamp": "2026-01-01T00:00:00Z",
                "finalizers": ["evil\x1b[2J"],
            },
            "status": {"nodeName": "\x1b]0;title\x07‮"},
        }
    )
    for output in ("table", "wide"):
        run = world.run("list", "-o", output)
        assert not any(character in run.out for character in "\x1b\x07‮")


def test_the_age_is_told_by_the_api_servers_clock(world: World, server: Simulator) -> None:
    machine = world.delete(world.vm())
    server.clock.advance(600)
    assert world.run("list", "-o", "json").item["stuckSeconds"] >= 600
    run = world.run("unstick", "vm", "web", "--yes", "--settle=0", "-o", "json")
    assert run.status is ExitStatus.OK
    assert world.now(machine) is None


LOG = (
    b'{"level":"error","msg":"Updating the VirtualMachine status failed.","name":"web",'
    b'"namespace":"team","reason":"admission webhook \\"validator.harvesterhci.io\\" denied the'
    b' request: PVC team/d is already used by other VM, please use a shareable RWX volume."}\n'
)


def test_the_log_of_a_finalizers_owner_is_quoted(world: World, server: Simulator) -> None:
    world.delete(world.vm())
    pod = world.create(builders.controller_pod("virt-controller"))
    world.create(builders.controller_pod("harvester"))
    server.inject(faults.body(LOG, "text/plain"), path="/log\\?tailLines", times=None)
    server.clock.advance(3600)
    world.api.forget()
    run = world.run("diagnose", "vm", "web", "-o", "json")
    assert run.item["verdict"] == "repair"
    (said,) = [item for item in run.item["findings"] if item["id"] == "owner-says"]
    assert "is already used by other VM" in said["summary"]
    assert any("drop" in step or "remove the volume" in step for step in run.item["nextSteps"])
    asked = [item.path for item in world.api.recorded() if "/log?" in item.path]
    # Only the owner of a finalizer that is there is listened to, and within bounds.
    assert len(asked) == 1
    assert pod["metadata"]["name"] in asked[0]
    assert "limitBytes=" in asked[0]
    world.api.forget()
    world.run("diagnose", "vm", "web", "--no-logs")
    assert not [item for item in world.api.recorded() if "/log?" in item.path]


def test_a_log_that_cannot_be_read_is_told(
    world: World, server: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubectl_harvester_stuck.cluster.client.LOG_SECONDS", 0.2)
    world.delete(world.vm())
    world.create(builders.controller_pod("virt-controller"))
    for fault in (faults.status(403, "Forbidden", "no logs"), faults.delay(2)):
        handle = server.inject(fault, path="/log\\?", times=None)
        run = world.run("diagnose", "vm", "web", "-o", "json")
        handle.remove()
        assert [text for text in run.item["notLookedFor"] if text.startswith("owner-says: ")]


class Gone(io.StringIO):
    """A terminal that went away after the question."""

    def write(self, text: str) -> int:
        if text.startswith(("delete ", "patch ")):
            raise BrokenPipeError
        return super().write(text)


def test_a_terminal_that_goes_away_hides_nothing(world: World) -> None:
    machine = world.delete(world.vm())
    with mock.patch("tests.support.world.io.StringIO", Gone):
        run = world.unstick("--yes")
    assert run.status is ExitStatus.OK
    assert run.item["outcome"] == "gone"
    assert world.now(machine) is None


def test_a_bug_in_the_middle_hides_nothing(world: World) -> None:
    machine, _, launcher = world.power_cut()
    with mock.patch(
        "kubectl_harvester_stuck.release.target_run.TargetRun._wait_until_gone",
        side_effect=KeyError("bug"),
    ):
        run = world.unstick(*power_off(world))
    assert run.status is ExitStatus.UNVERIFIED
    assert run.item["outcome"] == "unknown"
    assert "unexpected KeyError" in run.item["reason"]
    assert [step["status"] for step in run.item["steps"]] == ["done", "not sent", "not sent"]
    assert world.now(launcher) is None
    assert world.finalizers(machine)


def test_a_bug_while_saving_changes_nothing_and_is_no_success(world: World) -> None:
    machine = world.delete(world.vm())
    with mock.patch("kubectl_harvester_stuck.state.backups._write", side_effect=TypeError("bug")):
        run = world.unstick("--yes")
    assert run.status is ExitStatus.ERROR
    assert world.finalizers(machine) == [VM_FINALIZER]
    assert world.changes() == []


EVENTS = r"^/apis/events\.k8s\.io/"


def test_an_answer_that_was_lost_is_unknown_in_the_journal_and_no_event(
    world: World, server: Simulator
) -> None:
    world.delete(world.vm())
    server.inject(faults.lose_answer(), method="PATCH", path=PATCH_VM)
    world.unstick("--yes")
    first, second = world.journal()
    assert first["id"] == second["id"]
    assert second["outcome"].startswith("unknown: ")
    assert second["after"] is None
    assert world.events() == []


@pytest.mark.parametrize(
    "fault",
    [faults.close(), faults.cut(), faults.lose_answer(), faults.stall(30.0),
     faults.status(500, "InternalError", "oops"), faults.status(404, "NotFound", "no such"),
     faults.body(b"<html>", "text/html")],
    ids=["closed", "cut", "lost", "stalled", "500", "404", "page"],
)  # fmt: skip
def test_no_trouble_with_an_event_is_seen(
    world: World, server: Simulator, fault: faults.Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubectl_harvester_stuck.cluster.client.ASIDE_SECONDS", 0.3)
    machine = world.delete(world.vm())
    server.inject(fault, method="POST", path=EVENTS, times=None)
    started = time.monotonic()
    run = world.unstick("--yes")
    assert (run.status, run.item["outcome"]) == (ExitStatus.OK, "gone")
    assert world.now(machine) is None
    assert time.monotonic() - started < 5
    assert [line["phase"] for line in world.journal()] == ["before", "after"]
    for word in ("events", "oops", "warning"):
        assert word not in run.err


@pytest.mark.parametrize(
    "fault",
    [faults.close(), faults.stall(30.0), faults.status(403, "Forbidden", "not you"),
     faults.body(b"{}"), faults.body(b'{"status": {"userInfo": {"username": ""}}}')],
    ids=["closed", "stalled", "403", "empty", "nobody"],
)  # fmt: skip
def test_no_trouble_with_the_users_name_stops_a_release(
    world: World, server: Simulator, fault: faults.Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubectl_harvester_stuck.cluster.client.ASIDE_SECONDS", 0.3)
    world.delete(world.vm())
    server.inject(fault, path="/selfsubjectreviews", times=None)
    run = world.unstick("--yes")
    assert run.status is ExitStatus.OK, run.err
    for line in world.journal():
        assert line["user"] is None
        assert line["userUnknown"]
