"""`list --watch`, on the simulated and on the real API server: nothing lost, nothing told twice."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

import pytest

from kubectl_harvester_stuck.errors import ExitStatus
from tests.behaviour.test_unstick import _grant, _strip, _touch
from tests.support import builders
from tests.support.builders import VM_FINALIZER
from tests.support.resources import path_of, resource_of
from tests.support.simulator import Simulator
from tests.support.terminal import on_terminal
from tests.support.world import World, before

ODD = "example.com/odd"
SOON = 20.0
"""Seconds within which a change has to be told, on a busy machine."""


@dataclass
class Watching:
    """The program while it watches, as JSON lines."""

    process: subprocess.Popen[str]
    lines: queue.Queue[Any]

    def next(self, within: float = SOON) -> tuple[str, str, str, str]:
        """What is told next: type, kind, name, state."""
        event = self.lines.get(timeout=within)
        item = event["object"]
        kind = "VM" if item["kind"] == "VirtualMachine" else "VMI"
        return event["type"], kind, item["name"], item["state"]

    def quiet(self, seconds: float = 1.5) -> None:
        """Nothing more is told."""
        with pytest.raises(queue.Empty):
            pytest.fail(f"told: {self.lines.get(timeout=seconds)}")

    def says(self, words: str, within: float = SOON) -> None:
        """Wait until a line on stderr begins so."""
        assert self.process.stderr is not None
        timer = threading.Timer(within, self.process.kill)
        timer.start()
        found = any(line.startswith(words) for line in self.process.stderr)
        timer.cancel()
        assert found, f"it never said: {words}"

    def errors(self) -> str:
        """What else it said on stderr until its end."""
        assert self.process.stderr is not None
        return self.process.stderr.read()


@contextlib.contextmanager
def watching(world: World, *flags: str, user: str = "admin") -> Iterator[Watching]:
    """`list --watch -o json` of the world's namespace."""
    process = subprocess.Popen(
        [*world.command, "list", "--watch", "-o", "json", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=world.environ(user),
    )
    lines: queue.Queue[Any] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(json.loads(line))

    threading.Thread(target=read, daemon=True).start()
    try:
        yield Watching(process, lines)
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()


def settled(world: World) -> None:
    """Wait until the three watches stand."""
    deadline = time.monotonic() + SOON
    while len({path.partition("?")[0] for path in world.api.watches()}) < 3:
        assert time.monotonic() < deadline, world.api.watches()
        time.sleep(0.1)


def test_what_becomes_stuck_changes_and_goes_is_told_once(world: World) -> None:
    first = world.delete(world.vm("first", ODD))
    with watching(world) as seen:
        assert seen.next() == ("ADDED", "VM", "first", "Terminating")
        second = world.vm("second", ODD, VM_FINALIZER)
        seen.quiet(0.5)
        world.delete(second)
        assert seen.next() == ("ADDED", "VM", "second", "Terminating")
        world.api.request(
            "PATCH",
            f"/apis/kubevirt.io/v1/namespaces/{world.namespace}/virtualmachines/second",
            {"metadata": {"finalizers": [ODD]}},
            content_type="application/merge-patch+json",
        )
        assert seen.next() == ("MODIFIED", "VM", "second", "Terminating")
        _touch(world, first)  # an annotation is no news
        seen.quiet(1.0)
        _strip(world, first)
        assert seen.next() == ("DELETED", "VM", "first", "Terminating")
        seen.quiet()


def test_a_vm_that_stops_is_freed_when_its_instance_goes(world: World) -> None:
    world.live_node()
    machine = world.vm()
    instance = world.vmi(machine, node=world.live)
    with watching(world) as seen:
        world.delete(instance)
        rows = {seen.next(), seen.next()}
        assert rows == {("ADDED", "VM", "web", "Stopping"), ("ADDED", "VMI", "web", "Terminating")}
        world.api.request(
            "PATCH",
            f"/apis/kubevirt.io/v1/namespaces/{world.namespace}/virtualmachineinstances/web",
            {"metadata": {"finalizers": []}},
            content_type="application/merge-patch+json",
        )
        rows = {seen.next(), seen.next()}
        assert rows == {
            ("DELETED", "VM", "web", "Stopping"),
            ("DELETED", "VMI", "web", "Terminating"),
        }
        seen.quiet()


def test_a_pod_that_hangs_is_told_when_its_grace_period_is_over(world: World) -> None:
    world.live_node()
    machine = world.vm()
    launcher = world.pod(world.vmi(machine, node=world.live), node=world.live)
    with watching(world) as seen:
        settled(world)
        world.delete(launcher, gracePeriodSeconds=4)
        seen.quiet(2.0)
        assert seen.next() == ("ADDED", "VM", "web", "NotReady")


def is_ready(world: World, ready: str) -> None:
    """Let the control plane say so of the node that answers, which renews its Lease as well."""
    for body, path, change in (
        (builders.node(world.live, ready), "/status", "status"),
        (builders.lease(world.live, before(timedelta(0))), "", "spec"),
    ):
        status, answer = world.api.request(
            "PATCH",
            path_of(body) + path,
            {change: body[change]},
            content_type="application/merge-patch+json",
        )
        assert status == 200, answer


def test_a_guest_whose_node_falls_silent_is_told_until_the_node_answers(world: World) -> None:
    world.live_node()
    world.vmi(world.vm(), node=world.live)
    with watching(world) as seen:
        seen.quiet()
        is_ready(world, "Unknown")
        assert seen.next(2 * SOON) == ("ADDED", "VM", "web", "NotReady")
        is_ready(world, "True")
        assert seen.next(2 * SOON) == ("DELETED", "VM", "web", "NotReady")


def test_a_stop_that_does_not_begin_is_told(world: World) -> None:
    world.live_node()
    machine = world.vm()
    world.vmi(machine, node=world.live)
    time.sleep(1.1)
    change = {"spec": {"runStrategy": "Halted"}}
    world.api.request(
        "PATCH", path_of(machine), change, content_type="application/merge-patch+json"
    )
    with watching(world) as seen:
        assert seen.next() == ("ADDED", "VM", "web", "Stopping")


def test_an_api_server_that_restarts_loses_and_repeats_nothing(world: World) -> None:
    going = world.delete(world.vm("going", ODD))
    staying = world.delete(world.vm("staying", ODD))
    with watching(world) as seen:
        assert {seen.next()[2], seen.next()[2]} == {"going", "staying"}
        world.api.stop_apiserver()
        try:
            seen.quiet(2.0)
            assert seen.process.poll() is None
        finally:
            world.api.start_apiserver()
        _strip(world, going)
        world.delete(world.vm("new", ODD))
        assert {seen.next(40), seen.next(40)} == {
            ("DELETED", "VM", "going", "Terminating"),
            ("ADDED", "VM", "new", "Terminating"),
        }
        # Each kind is watched again in its own time.
        seen.says("could not read")
        seen.says("Everything can be read again.", 40)
        seen.quiet()
        seen.process.send_signal(signal.SIGINT)
        assert seen.process.wait(SOON) == 130
    assert world.now(staying) is not None


class Frames:
    """What `list --watch` draws on a terminal, a text for each time that it is drawn."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._read = ""
        self._lock = threading.Lock()
        threading.Thread(target=self._collect, daemon=True).start()

    def _collect(self) -> None:
        while block := os.read(self._stream.fileno(), 65536):
            with self._lock:
                self._read += block.decode()

    def last(self) -> str:
        """The newest whole frame, without colours."""
        with self._lock:
            *frames, _ = f"\x1b[J{self._read}".replace("\r\n", "\n").split("\x1b[J")
        return re.sub(r"\x1b\[[\d;]*[mA]|\r", "", frames[-1]) if frames else ""

    def until(self, words: str, *, without: str = "\0", within: float = 40.0) -> str:
        """The first newest frame that holds the words, and not the others."""
        deadline = time.monotonic() + within
        while words not in (frame := self.last()) or without in frame:
            assert time.monotonic() < deadline, frame
            time.sleep(0.05)
        return frame


@pytest.mark.parametrize("flags", [(), ("-o", "wide")], ids=["table", "wide"])
def test_a_lost_connection_is_a_part_of_the_screen_and_erases_nothing(
    world: World, flags: tuple[str, ...]
) -> None:
    world.power_cut()
    environ = {**world.environ(), "TERM": "xterm", "COLUMNS": "200"}
    program = on_terminal([*world.command, "list", "--watch", *flags], environ, world.directory)
    assert program.stdout is not None
    frames = Frames(program.stdout)
    try:
        before = frames.until("web")
        assert "connected" not in before
        world.api.stop_apiserver()
        lost = frames.until("! not connected since ")
        since = re.search(r"not connected since (\d\d:\d\d:\d\d): rows are from then", lost)
        assert since
        rows = [line for line in lost.splitlines() if " web " in line]
        assert [_without_age(row) for row in rows] == [
            _without_age(line) for line in before.splitlines() if " web " in line
        ]
        # Ages stand still, and the time of the loss stays, however long it lasts.
        time.sleep(3.5)
        later = frames.until("! not connected since ")
        assert [line for line in later.splitlines() if " web " in line] == rows
        assert since[1] in later
        world.api.start_apiserver()
        again = frames.until(
            f"! was not connected from {since[1]} to ", without="not connected since"
        )
        assert [_without_age(line) for line in again.splitlines() if " web " in line]
        assert any(line not in rows for line in again.splitlines() if " web " in line)
    finally:
        program.kill()
        program.wait()
        for stream in (program.stdin, program.stdout):
            assert stream is not None
            stream.close()


def _without_age(row: str) -> str:
    return re.sub(r"\b\d+[smh](?:\d+s)?\b", "", " ".join(row.split()))


def test_a_name_that_is_made_again_is_another_row(world: World) -> None:
    first = world.delete(world.vm("web", ODD))
    with watching(world) as seen:
        assert seen.next()[0] == "ADDED"
        _strip(world, first)
        second = world.delete(world.vm("web", ODD))
        told = [seen.next(), seen.next()]
        assert sorted(told) == [
            ("ADDED", "VM", "web", "Terminating"),
            ("DELETED", "VM", "web", "Terminating"),
        ]
        seen.quiet()
    assert world.now(second) is not None


def test_what_may_not_be_read_is_named_and_the_rest_is_told(world: World) -> None:
    _grant(world, "bob", (["kubevirt.io"], ["*"], ["get", "list", "watch"]))
    machine = world.delete(world.vm("web", ODD))
    with watching(world, user="bob") as seen:
        assert seen.next() == ("ADDED", "VM", "web", "Terminating")
        _strip(world, machine)
        # Pods may not be read, but the API server says of the VM itself that it is gone.
        assert seen.next() == ("DELETED", "VM", "web", "Terminating")
        seen.process.send_signal(signal.SIGINT)
        seen.process.wait(SOON)
        assert "could not read pods" in seen.errors()


def test_a_user_who_may_read_nothing_gets_an_error(world: World) -> None:
    with watching(world, user="alice") as seen:
        assert seen.process.wait(SOON) == ExitStatus.ERROR
        assert "Forbidden" in seen.errors()


def test_a_reader_that_goes_away_ends_it(world: World) -> None:
    world.delete(world.vm("first", ODD))
    with watching(world) as seen:
        seen.next()
        assert seen.process.stdout is not None
    process = subprocess.Popen(
        [*world.command, "list", "-w"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=world.environ(),
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith("NAMESPACE")
    assert "first" in process.stdout.readline()
    process.stdout.close()
    settled(world)
    world.delete(world.vm("second", ODD))
    assert process.wait(SOON) == ExitStatus.OK
    assert process.stderr.read() == ""
    process.stderr.close()


def test_a_node_selects(world: World) -> None:
    world.dead_node()
    world.live_node()
    world.delete(world.vmi(None, "elsewhere", world.live))
    with watching(world, "--node", world.dead) as seen:
        settled(world)
        world.delete(world.vmi(None, "there"))
        assert seen.next() == ("ADDED", "VMI", "there", "Terminating")
        seen.quiet(0.5)


def test_that_nothing_is_stuck_is_not_said_of_a_namespace_that_may_not_exist(world: World) -> None:
    world.vm("lives", ODD)
    _grant(world, "alice", (["kubevirt.io", "coordination.k8s.io", ""], ["*"],
                            ["list", "watch"]))  # fmt: skip
    with watching(world, user="alice") as seen:
        seen.says("could not read namespaces: Forbidden: ")
        seen.process.terminate()
        assert "Nothing is stuck" not in seen.errors()


def test_labels_and_age_select(world: World) -> None:
    chosen = world.create(builders.vm(world.namespace, "chosen", (ODD,)) | {})
    with watching(world, "--older-than", "4s") as seen:
        settled(world)
        world.delete(chosen)
        seen.quiet(2.0)
        assert seen.next() == ("ADDED", "VM", "chosen", "Terminating")
    with watching(world, "-l", "team=red") as seen:
        seen.quiet(3.0)


@pytest.mark.parametrize("flags", [("-f", "-"), ("--exit-code",), ("-o", "prometheus")])
def test_it_goes_on_without_files_an_exit_code_or_metrics(
    world: World, flags: tuple[str, ...]
) -> None:
    run = world.run("list", "--watch", *flags)
    assert run.status is ExitStatus.USAGE


def test_a_version_that_is_too_old_is_listed_anew(
    simulator: Simulator, tmp_path: Path, program: Path | None
) -> None:
    world = World(simulator, tmp_path, "compacted", "node-dead", "node-live", program=program)
    going = world.delete(world.vm("going", ODD))
    world.delete(world.vm("staying", ODD))
    with watching(world) as seen:
        assert {seen.next()[2], seen.next()[2]} == {"going", "staying"}
        simulator.stop_apiserver()
        try:
            _remove(simulator, going)
            simulator.compact()
        finally:
            simulator.start_apiserver()
        assert seen.next(40) == ("DELETED", "VM", "going", "Terminating")
        world.delete(world.vm("new", ODD))
        assert seen.next() == ("ADDED", "VM", "new", "Terminating")
        seen.quiet()
    simulator.wipe("compacted")


def _remove(simulator: Simulator, body: builders.Body) -> None:
    """Let it go while nobody can be told."""
    resource = resource_of(body)
    with simulator._store.lock:
        stored = simulator._store.get(resource, "compacted", body["metadata"]["name"])
        assert stored is not None
        simulator._store.remove(resource, stored)
