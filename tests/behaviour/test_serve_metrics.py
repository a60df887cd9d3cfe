"""`serve-metrics` and `list --output-file`, read by the official parser of the format."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kubectl_harvester_stuck.cli.commands import serve_metrics
from kubectl_harvester_stuck.errors import ExitStatus
from tests.behaviour.test_unstick import _strip
from tests.behaviour.test_watch import SOON
from tests.support.simulator import Simulator
from tests.support.world import World
from tests.test_prometheus import Sample, sample, samples

ODD = "example.com/odd"
COMPLETE = sample("harvester_stuck_list_complete")
TIME = sample("harvester_stuck_list_timestamp_seconds")


@dataclass
class Serving:
    """The program while it serves metrics."""

    process: subprocess.Popen[str]
    url: str

    def scrape(self) -> dict[Sample, float]:
        """What Prometheus would read now."""
        with urllib.request.urlopen(self.url, timeout=SOON) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=")
            return samples(answer.read().decode())

    def until(self, holds: Callable[[dict[Sample, float]], bool]) -> dict[Sample, float]:
        """The first answer of which it holds."""
        deadline = time.monotonic() + SOON
        while not holds(found := self.scrape()):
            assert time.monotonic() < deadline, found
            time.sleep(0.1)
        return found


@contextlib.contextmanager
def serving(world: World, *flags: str, user: str = "admin") -> Iterator[Serving]:
    """The program, on a free port."""
    process = subprocess.Popen(
        [*world.command, "serve-metrics", "--listen", "127.0.0.1:0", *flags],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=world.environ(user),
    )
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        found = re.fullmatch(r"Serving metrics on (http://127\.0\.0\.1:\d+/metrics)\n", line)
        assert found, line + process.stderr.read()
        yield Serving(process, found[1])
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def seconds(found: dict[Sample, float]) -> dict[str, float]:
    """For how long each is stuck, by its name."""
    return {
        dict(labels)["name"]: value
        for (name, labels), value in found.items()
        if name == "harvester_stuck_seconds"
    }


def test_what_becomes_stuck_and_goes_is_served(world: World) -> None:
    first = world.delete(world.vm("first", ODD))
    with serving(world) as metrics:
        found = metrics.until(lambda found: found[COMPLETE] == 1)
        assert list(seconds(found)) == ["first"]
        labels = {"namespace": world.namespace, "kind": "VirtualMachine", "state": "Terminating"}
        assert found[sample("harvester_stuck_objects", **labels)] == 1
        world.delete(world.vm("second", ODD))
        found = metrics.until(lambda found: len(seconds(found)) == 2)
        assert found[sample("harvester_stuck_objects", **labels)] == 2
        _strip(world, first)
        found = metrics.until(lambda found: list(seconds(found)) == ["second"])
        assert (found[COMPLETE], found[sample("harvester_stuck_objects", **labels)]) == (1, 1)
        # An age goes on although nothing happens.
        metrics.until(lambda later: seconds(later)["second"] > seconds(found)["second"])


def test_every_namespace_and_labels(world: World) -> None:
    world.delete(world.vm("going", ODD))
    with serving(world, "-A") as metrics:
        metrics.until(lambda found: "going" in seconds(found))
    with serving(world, "-l", "team=red") as metrics:
        found = metrics.until(lambda found: found[COMPLETE] == 1)
        assert seconds(found) == {}


def test_what_may_not_be_read_is_no_zero(world: World) -> None:
    world.delete(world.vm("going", ODD))
    with serving(world, user="alice") as metrics:
        found = metrics.until(lambda found: TIME in found)
        assert set(found) == {COMPLETE, TIME}
        assert found[COMPLETE] == 0
        metrics.process.send_signal(signal.SIGTERM)
        assert metrics.process.stderr is not None
        assert "could not read" in metrics.process.stderr.read()


def test_sigterm_ends_it_and_all_is_well(world: World) -> None:
    """As the first process of a container it would not notice the signal by itself."""
    world.vm("lives", ODD)
    with serving(world) as metrics:
        metrics.until(lambda found: found[COMPLETE] == 1)
        metrics.process.send_signal(signal.SIGTERM)
        assert metrics.process.wait(SOON) == 0


@pytest.fixture
def own(simulator: Simulator, tmp_path: Path, program: Path | None) -> Iterator[World]:
    """The simulated API server, for what is done to the server itself."""
    world = World(simulator, tmp_path, "served", "node-dead", "node-live", program=program)
    world.vm("lives", ODD)
    yield world
    simulator.wipe(world.namespace)


def test_a_cluster_that_went_away_is_told_and_its_last_state_gets_old(
    own: World, simulator: Simulator
) -> None:
    own.delete(own.vm("going", ODD))
    with serving(own) as metrics:
        metrics.until(lambda found: "going" in seconds(found) and found[COMPLETE] == 1)
        simulator.stop_apiserver()
        try:
            lost = metrics.until(lambda found: found[COMPLETE] == 0)
            time.sleep(5)
            later = metrics.scrape()
            assert later[COMPLETE] == 0
            # What hangs gets older, and so does what is known of it.
            assert seconds(later)["going"] >= seconds(lost)["going"] + 2
            assert later[TIME] <= lost[TIME] + 1
        finally:
            simulator.start_apiserver()
        metrics.until(lambda found: found[COMPLETE] == 1 and found[TIME] > lost[TIME] + 2)


def test_a_scrape_costs_the_api_server_nothing(own: World, simulator: Simulator) -> None:
    own.delete(own.vm("going", ODD))
    with serving(own) as metrics:
        metrics.until(lambda found: "going" in seconds(found))
        before = len(simulator.recorded())
        for _ in range(100):
            metrics.scrape()
        assert len(simulator.recorded()) - before < 20


def test_it_listens_on_this_machine_alone_unless_told_otherwise() -> None:
    (listen,) = [item for item in serve_metrics.command.params if item.name == "listen"]
    assert str(listen.default).startswith("127.0.0.1:")


@pytest.mark.parametrize(
    ("listen", "status", "words"),
    [
        ("{taken}", ExitStatus.ERROR, "error: cannot listen on {taken}: .*; choose another"),
        ("192.0.2.1:9790", ExitStatus.ERROR, "error: cannot listen on 192.0.2.1:9790: "),
        ("a..b:9790", ExitStatus.ERROR, "error: cannot listen on a..b:9790: "),
        ("9790", ExitStatus.USAGE, "'9790' is no HOST:PORT, such as 0.0.0.0:9790"),
        ("host:70000", ExitStatus.USAGE, "'host:70000' is no HOST:PORT"),
        ("::1:9790", ExitStatus.USAGE, "'::1:9790' is no HOST:PORT"),
        (":9790", ExitStatus.USAGE, "':9790' is no HOST:PORT"),
    ],
)
def test_where_it_cannot_listen_it_ends(
    own: World, listen: str, status: ExitStatus, words: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        run = own.run("serve-metrics", "--listen", listen.format(taken=taken))
    assert run.status is status, run.err
    assert re.search(words.format(taken=taken), run.err), run.err
    assert "Traceback" not in run.err


def test_ipv6_is_named_in_brackets(own: World) -> None:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.fail("this machine has no IPv6 loopback")
        probe.listen()
        taken = f"[::1]:{probe.getsockname()[1]}"
        run = own.run("serve-metrics", "--listen", taken)
    assert f"cannot listen on {taken}: " in run.err


# list --output-file


def test_metrics_go_into_a_file_as_a_whole(world: World, tmp_path: Path) -> None:
    world.delete(world.vm("going", ODD))
    file = tmp_path / "stuck.prom"
    file.write_text("old")
    words = ("list", "-o", "prometheus", "--output-file", str(file))
    run = world.run(*words)
    assert (run.status, run.out) == (ExitStatus.OK, "")
    found = samples(file.read_text())
    assert (list(seconds(found)), found[COMPLETE]) == (["going"], 1)
    assert [path.name for path in tmp_path.iterdir() if "stuck" in path.name] == ["stuck.prom"]
    assert file.stat().st_mode & 0o044
    run = world.run(*words, user="alice")
    assert run.status is ExitStatus.ERROR
    assert samples(file.read_text())[COMPLETE] == 0


def test_without_an_answer_the_file_stays(own: World, simulator: Simulator, tmp_path: Path) -> None:
    file = tmp_path / "stuck.prom"
    file.write_text("old")
    simulator.stop_apiserver()
    try:
        run = own.run("list", "-o", "prometheus", "--output-file", str(file))
    finally:
        simulator.start_apiserver()
    assert (run.status, file.read_text()) == (ExitStatus.ERROR, "old")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ("-o prometheus --output-file /nope/x.prom", ExitStatus.ERROR,
         "error: cannot write /nope/x.prom: No such file or directory\n"),
        ("-o wide --output-file x", ExitStatus.USAGE, "--output-file goes with -o prometheus"),
        ("--output-file x", ExitStatus.USAGE, "--output-file goes with -o prometheus"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_written(
    own: World, words: str, status: ExitStatus, said: str
) -> None:
    run = own.run("list", *words.split())
    assert (run.status, run.out) == (status, "")
    assert said in run.err
