"""Ctrl-C, `kill` and a terminal that goes away: what is in flight is finished, and all is told."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from kubectl_harvester_stuck.errors import ExitStatus
from tests.behaviour.test_restore import is_vm_sent, released
from tests.support.builders import VM_FINALIZER, VMI_FINALIZERS
from tests.support.relay import Answer, Passed, PassOn
from tests.support.world import PATIENCE, QUICK, Run, World

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
NOTICED = 0.3
"""Seconds that a process gets to note a signal that it has taken, before it is answered."""

signals = pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)


@dataclass
class Signaller:
    """Sends a signal to the process at the first request that is due, and answers it then."""

    number: signal.Signals
    is_due: Callable[[Passed], bool]
    process: subprocess.Popen[str] | None = None
    hit: Passed | None = None

    def __call__(self, request: Passed, pass_on: PassOn) -> Answer | None:
        answer = pass_on()
        if self.hit is None and self.is_due(request):
            self.hit = request
            assert self.process is not None
            self.process.send_signal(self.number)
            wait_until_taken(self.process.pid, self.number)
            time.sleep(NOTICED)
        return answer


def wait_until_taken(pid: int, number: signal.Signals) -> None:
    """Wait until the kernel has handed the signal over; a busy machine takes its time for that."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return  # it has ended, or this system does not tell
        pending = re.findall(r"^S(?:ig|hd)Pnd:\t([0-9a-f]+)$", status, re.M)
        if not any(int(mask, 16) >> (number - 1) & 1 for mask in pending):
            return
        time.sleep(0.01)


@contextmanager
def started(world: World, signaller: Signaller, *words: str) -> Iterator[subprocess.Popen[str]]:
    """The program as a process of its own, on its way past the signaller."""
    with world.past(signaller) as environ:
        process = subprocess.Popen(
            [*world.command, *words],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        signaller.process = process
        with process:
            yield process


def ended(world: World, signaller: Signaller, *words: str) -> Run:
    """How the program ended that got the signal."""
    world.restored |= words[0] == "restore"
    with started(world, signaller, *words) as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert signaller.hit is not None
    assert "Traceback" not in err
    return Run(ExitStatus(process.returncode), out, err)


def words(world: World) -> tuple[str, ...]:
    power = ("--yes", "--node-powered-off", world.dead, "-o", "json")
    return ("unstick", "vm", "web", *QUICK, *power)


@signals
def test_a_release_ends_after_the_request_in_flight(world: World, number: signal.Signals) -> None:
    machine, instance, launcher = world.power_cut()
    run = ended(world, Signaller(number, lambda request: request.is_change), *words(world))
    assert run.status is ExitStatus.UNVERIFIED
    assert (run.item["outcome"], run.item["reason"]) == ("still-there", "interrupted")
    assert [step["status"] for step in run.item["steps"]] == ["done", "not sent", "not sent"]
    assert "interrupted: stopping after the request in flight" in run.err
    assert world.now(launcher) is None
    assert world.finalizers(instance) == list(VMI_FINALIZERS)
    assert world.finalizers(machine) == [VM_FINALIZER]
    assert [line["phase"] for line in world.journal()] == ["before", "after"]
    assert world.journal()[1]["outcome"] == "done"


@signals
def test_a_signal_after_the_last_change_loses_no_report(
    world: World, number: signal.Signals
) -> None:
    world.dead_node()
    machine = world.delete(world.vm())
    signaller = Signaller(number, lambda request: request.changes("virtualmachines/web"))
    run = ended(world, signaller, *words(world))
    assert run.status is ExitStatus.OK
    assert run.item["outcome"] == "gone"
    assert run.item["leftovers"] == ["not looked for: interrupted"]
    assert world.now(machine) is None


@signals
def test_a_signal_while_leftovers_are_looked_for_loses_no_report(
    world: World, number: signal.Signals
) -> None:
    world.dead_node()
    machine = world.delete(world.vm())
    signaller = Signaller(number, lambda request: "/longhorn" in request.path)
    run = ended(world, signaller, *words(world))
    assert (run.status, run.item["outcome"]) == (ExitStatus.OK, "gone")
    assert world.now(machine) is None


@signals
def test_a_restoration_ends_as_it_went(world: World, number: signal.Signals) -> None:
    before, backup = released(world)
    signaller = Signaller(
        number, lambda request: is_vm_sent(request) and "dryRun" not in request.path
    )
    run = ended(world, signaller, "restore", backup, "--yes", "-o", "json")
    assert (run.status, run.item["outcome"]) == (ExitStatus.OK, "created")
    assert world.now(before) is not None
    assert world.journal()[-1]["outcome"] == "done"


@signals
def test_a_restoration_that_was_not_sent_yet_is_not_sent(
    world: World, number: signal.Signals
) -> None:
    before, backup = released(world)
    tried: list[Passed] = []

    def is_second_dry_run(request: Passed) -> bool:
        tried.extend([request] if is_vm_sent(request) and "dryRun" in request.path else [])
        return len(tried) == 2

    run = ended(
        world, Signaller(number, is_second_dry_run), "restore", backup, "--yes", "-o", "json"
    )
    assert (run.status, run.item["outcome"]) == (ExitStatus.REFUSED, "refused")
    assert world.now(before) is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
@pytest.mark.parametrize("command", ["list", "unstick"])
def test_before_a_change_a_signal_ends_the_program_quietly(
    world: World, number: signal.Signals, command: str
) -> None:
    machine = world.delete(world.vm())
    given = words(world) if command == "unstick" else ("list", "-o", "json")
    signaller = Signaller(number, lambda request: request.method == "GET")
    with started(world, signaller, *given) as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == -number
    assert (out, err) == ("", "")
    assert world.finalizers(machine) == [VM_FINALIZER]


def test_under_nohup_a_terminal_that_goes_away_ends_nothing(world: World) -> None:
    machine, _, _ = world.power_cut()
    signaller = Signaller(signal.SIGHUP, lambda request: request.is_change)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run = ended(world, signaller, *words(world))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (run.status, run.item["outcome"]) == (ExitStatus.OK, "gone")
    assert world.now(machine) is None


@pytest.mark.in_process("Windows has no SIGHUP")
def test_without_sighup_the_others_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    from kubectl_harvester_stuck.release.interrupts import Interrupts

    monkeypatch.delattr(signal, "SIGHUP")
    with Interrupts(lambda _: None) as interrupts:
        interrupts.hold()
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupts.pressed
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
