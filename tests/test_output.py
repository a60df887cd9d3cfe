"""Output that cannot be written: no report of a change is lost, and no exit status changes."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from kubectl_harvester_stuck.cli.output import prepared, write
from kubectl_harvester_stuck.errors import ExitStatus
from tests.support.simulator import Simulator
from tests.support.world import PATIENCE, QUICK, World
from tests.test_fault_table import object_with

FULL, CLOSED, GONE = ">/dev/full", ">&-", "| true"
UNWRITABLE = [FULL, CLOSED, GONE]
READING = [
    ("list",), ("list", "-o", "json"), ("diagnose", "vm", "web"), ("check",), ("version",),
    ("finalizers",), ("journal",), ("check", "--print-rules"), ("--help",), ("unstick", "--help"),
    ("--version",),
]  # fmt: skip


@pytest.fixture
def world(tmp_path: Path, program: Path | None) -> Iterator[World]:
    with Simulator() as api:
        yield World(api, tmp_path, "team", "node-dead", "node-live", program=program)


def shell(
    world: World, words: tuple[str, ...], redirection: str = "", **environ: str
) -> subprocess.CompletedProcess[bytes]:
    """The program with its output redirected by a shell; its own exit status in a pipe, too."""
    line = f"{shlex.join([*world.command, *words])} {redirection}"
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        env={**world.environ(), **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
        cwd=Path(__file__).parents[1],
    )


def unstick(*more: str) -> tuple[str, ...]:
    return ("unstick", "vm", "web", *QUICK, "--yes", *more)


def document(text: bytes) -> Any:
    """The JSON document among the lines."""
    decoded = text.decode()
    return json.loads(decoded[decoded.index("{\n") : decoded.rindex("\n}") + 2])


@pytest.mark.parametrize("redirection", UNWRITABLE)
def test_the_report_of_a_release_is_told_on_stderr(world: World, redirection: str) -> None:
    machine = world.delete(world.vm())
    done = shell(world, unstick(), redirection)
    assert done.returncode == ExitStatus.OK, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"VM team/web: released, it is gone\n" in done.stderr
    assert b"kubectl harvester-stuck restore /" in done.stderr
    assert world.now(machine) is None


@pytest.mark.parametrize("redirection", UNWRITABLE)
def test_the_document_of_a_release_is_told_on_stderr(world: World, redirection: str) -> None:
    world.power_cut()
    done = shell(world, unstick("-o", "json"), redirection)
    assert done.returncode == ExitStatus.REFUSED, done.stderr
    (item,) = document(done.stderr)["items"]
    assert item["outcome"] == "refused"


@pytest.mark.parametrize("redirection", UNWRITABLE)
def test_the_report_of_a_restoration_is_told_on_stderr(world: World, redirection: str) -> None:
    machine = world.delete(world.vm())
    backup = world.unstick("--yes").item["backup"]
    done = shell(world, ("restore", backup, "--yes"), redirection)
    assert done.returncode == ExitStatus.OK, done.stderr
    assert b"VM team/web: created, powered off\n" in done.stderr
    assert world.now(machine) is not None


@pytest.mark.parametrize("words", READING, ids=" ".join)
@pytest.mark.parametrize("redirection", [FULL, CLOSED])
def test_an_answer_that_cannot_be_written_is_an_error(
    world: World, words: tuple[str, ...], redirection: str
) -> None:
    world.delete(world.vm())
    done = shell(world, words, redirection)
    if words == ("journal",):
        assert done.returncode == ExitStatus.OK, "it has nothing to say"
        return
    assert done.returncode == ExitStatus.ERROR, done.stderr
    assert b"error: cannot write to stdout: " in done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_a_pipe_that_nobody_reads_is_no_error(world: World, words: tuple[str, ...]) -> None:
    world.delete(world.vm())
    # Whatever is in the way of `--help` is click's: it ends with 1.
    done = shell(world, words, "2>&1 >/dev/null | true; exit ${PIPESTATUS[0]}")
    normal = done.returncode
    done = shell(world, words, GONE)
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    assert b"error:" not in done.stderr
    assert done.returncode in (normal, 1 if "--help" in words or "--version" in words else normal)


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", "2> >(true)"])
def test_nothing_of_a_release_depends_on_stderr(world: World, redirection: str) -> None:
    machine = world.delete(world.vm())
    done = shell(world, unstick("-o", "json"), redirection)
    assert done.returncode == ExitStatus.OK
    (item,) = json.loads(done.stdout)["items"]
    assert item["outcome"] == "gone"
    assert world.now(machine) is None


@pytest.mark.parametrize("redirection", [">/dev/full 2>&1", ">&- 2>&- <&-"])
def test_without_any_output_the_exit_status_stays(world: World, redirection: str) -> None:
    machine = world.delete(world.vm())
    assert shell(world, unstick(), redirection).returncode == ExitStatus.OK
    assert world.now(machine) is None
    outcomes = [line.get("outcome") for line in world.journal()]
    assert outcomes == [None, "done"]


def test_a_plan_that_cannot_be_shown_is_not_agreed_to(world: World) -> None:
    machine = world.delete(world.vm())
    done = shell(world, ("unstick", "vm", "web", *QUICK, "-o", "json"),
                 "2>/dev/full <<<'team/web'")  # fmt: skip
    assert done.returncode == ExitStatus.REFUSED
    assert "could not be shown" in json.loads(done.stdout)["error"]["message"]
    assert world.finalizers(machine)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
@pytest.mark.parametrize("output", ["table", "json", "yaml"])
def test_what_the_locale_lacks_is_written_as_utf_8(
    world: World, encoding: str, output: str
) -> None:
    name = "\u8282\u70b9/\U0001f525"
    object_with(finalizers=[name, "half\ud83d"])(world, world.api)  # type: ignore[arg-type]
    wide = "wide" if output == "table" else output
    done = shell(world, ("list", "-o", wide), PYTHONIOENCODING=f"{encoding}:strict",
                 LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")  # fmt: skip
    assert done.returncode == ExitStatus.OK, done.stderr
    assert done.stdout
    done.stdout.decode("utf-8")


def test_the_report_of_odd_names_is_told_in_any_locale(world: World) -> None:
    odd = "example.com/\u8282\u70b9"
    world.delete(world.vm("web", odd))
    done = shell(world, (*unstick(), "--finalizer", odd), PYTHONIOENCODING="ascii:strict")
    assert done.returncode == ExitStatus.OK, done.stderr
    assert odd in done.stdout.decode("utf-8")


def test_line_ends_are_those_of_kubectl_on_every_system(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = []
    for name in ("stdout", "stderr"):
        streams.append(io.TextIOWrapper(io.BytesIO(), encoding="cp1252", newline="\r\n"))
        monkeypatch.setattr(sys, name, streams[-1])
    with prepared():
        write("a\n\u8282\n")
        click.echo("b", err=True)
    written = [stream.buffer.getvalue() for stream in streams]
    assert written == ["a\n\u8282\n".encode(), b"b\n"]


def test_a_closed_stream_gives_its_number_to_no_file() -> None:
    code = (
        "import os, sys\n"
        "from kubectl_harvester_stuck.cli.output import prepared\n"
        "with prepared():\n"
        "    numbers = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]\n"
        "    sys.exit(min(numbers) < 3)\n"
    )
    done = subprocess.run(
        ["bash", "-c", f"{shlex.join([sys.executable, '-c', code])} <&- >&- 2>&-"],
        env={"PATH": os.environ["PATH"]},
        timeout=PATIENCE,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0
