"""`make playground`: the lines that it prints can be pasted, and it leaves nothing behind."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.simulator import Simulator
from tests.support.world import World
from tools import demo, playground

ROOT = Path(__file__).parent.parent
SECONDS = 30
STUCK = {"old-1", "db-1", "runner-2", "web-1"}


@contextmanager
def started() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A playground that runs, and what it has printed."""
    with subprocess.Popen(
        [sys.executable, "-m", "tools.playground"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        printed = ""
        while "Ctrl-C" not in printed:
            line = process.stdout.readline()
            assert line, process.stderr and process.stderr.read()
            printed += line
        try:
            yield process, printed
        finally:
            process.terminate()


def pasted(printed: str) -> str:
    """The lines to paste: the paragraph that begins with `export`."""
    found = re.search(r"^export .+\n.+\n(?=\n)", printed, re.M)
    assert found, printed
    return found[0]


def test_the_printed_lines_reach_the_cluster(tmp_path: Path) -> None:
    with started() as (_, printed):
        shell = subprocess.run(
            ["sh"], input=pasted(printed), cwd=tmp_path, capture_output=True, text=True, check=False
        )
    assert shell.returncode == 0, shell.stderr
    assert set(re.findall(r"\w+-\d(?=  )", shell.stdout)) >= STUCK


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_ends_with_a_signal_and_removes_its_files(number: signal.Signals) -> None:
    with started() as (process, printed):
        found = re.search(r"KUBECONFIG=(\S+)", printed)
        assert found
        kubeconfig = Path(found[1])
        assert kubeconfig.is_file()
        process.send_signal(number)
        _, complaint = process.communicate(timeout=SECONDS)
        assert (process.returncode, complaint) == (0, "")
        assert not kubeconfig.parent.exists()


def test_its_live_nodes_stay_alive(tmp_path: Path) -> None:
    with Simulator() as api:
        demo.populate(api)
        world = World(api, tmp_path, "shop", demo.DEAD, demo.LIVE[0])
        api.clock.advance(3600)
        playground.renew_leases(api)
        assert api.recorded() == []
        listed = world.run("list", "-A", "-o", "json").json
    assert {item["name"] for item in listed["items"]} == STUCK
