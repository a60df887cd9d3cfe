"""What Windows alone decides, with the program on CPython for Windows: `make windows`.

Wine shows a symbolic link as the file that it leads to, so that links are tried elsewhere, in
tests/test_private_files.py.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from kubectl_harvester_stuck.errors import ExitStatus
from tests.components.windows import build, wine
from tests.components.windows.run import windows_environ
from tests.support.simulator import Simulator
from tests.support.world import QUICK, World

ODD = "example.com/\u8282\u70b9"
"""What no code page of western Windows has."""


@pytest.fixture(scope="module")
def windows() -> Path:
    return build.program()


@pytest.fixture
def world(windows: Path, simulator: Simulator, tmp_path: Path) -> Iterator[World]:
    yield World(simulator, tmp_path, "team", "node-dead", "node-live", program=windows)
    simulator.wipe("team")


def test_paths_of_the_environment_are_those_of_windows() -> None:
    given = {"KUBECONFIG": "/a/b:/c d", "XDG_STATE_HOME": "/s", "HOME": "/h", "LANG": "C"}
    assert windows_environ(given) == {
        **given,
        "KUBECONFIG": r"Z:\a\b;Z:\c d",
        "MEANT_LOCALAPPDATA": r"Z:\s",
        "MEANT_USERPROFILE": r"Z:\h",
    }
    assert [wine.local(name) for name in (r"Z:\a\b", "/a/b")] == [Path("/a/b")] * 2


def test_a_release_is_told_kept_and_taken_back(world: World) -> None:
    machine = world.delete(world.vm("web", ODD))
    listed = world.run("list", "-o", "wide")
    assert listed.status is ExitStatus.OK
    assert ODD in listed.out
    run = world.unstick("--yes", "--finalizer", ODD)
    assert (run.status, run.item["outcome"]) == (ExitStatus.OK, "gone"), run.err
    assert world.now(machine) is None
    assert run.item["backup"].startswith("Z:\\")
    saved = wine.local(run.item["backup"])
    assert b"\r" not in saved.read_bytes()
    assert [line.get("outcome") for line in world.journal()] == [None, "done"]
    assert b"\r" not in (world.state / "journal.jsonl").read_bytes()
    assert "team/web" in world.run("journal").out
    restored = world.run("restore", run.item["backup"], "--yes")
    assert restored.status is ExitStatus.OK, restored.err
    assert world.now(machine) is not None


@pytest.mark.parametrize("output", ["table", "json", "yaml", "prometheus"])
def test_no_line_ends_in_a_carriage_return(world: World, output: str) -> None:
    world.delete(world.vm("web", ODD))
    run = world.run("list", "-o", output)
    assert run.status is ExitStatus.OK
    assert "web" in run.out
    assert "\r" not in run.out + run.err
    assert "\r" not in world.run("list", "--no-such-flag").err


def test_a_command_that_is_printed_is_quoted_for_the_shells_of_windows(world: World) -> None:
    world.delete(world.vm())
    kubeconfig = world.kubeconfig(context="prod west")
    environ = world.environ(KUBECONFIG=str(kubeconfig))
    flags = (*QUICK, "--yes", "--context", "prod west")
    run = world.run("unstick", "vm", "web", *flags, environ=environ)
    assert run.status is ExitStatus.OK, run.err
    assert re.search(r'kubectl harvester-stuck restore Z:\\\S+ .*--context "prod west"', run.out)


def test_a_bundle_on_the_current_drive_is_not_trusted(world: World) -> None:
    """Any user may make a directory below the root of a drive."""
    content = world.api.kubeconfig(namespace="team")
    cluster = content["clusters"][0]["cluster"]
    authority = base64.b64decode(cluster.pop("certificate-authority-data"))
    kubeconfig = world.directory / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(content))
    root = build.installed() / "drive" / "drive_c"
    planted = root / "etc" / "ssl" / "certs" / "ca-certificates.crt"
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_bytes(authority)
    try:
        done = subprocess.run(
            [*world.command, "list"], cwd=root, env=world.environ(KUBECONFIG=str(kubeconfig)),
            input=b"", capture_output=True, check=False,
        )  # fmt: skip
    finally:
        planted.unlink()
    assert done.returncode == ExitStatus.ERROR
    assert b"tls: failed to verify certificate" in done.stderr


def test_completion_is_installed_for_the_name_that_is_typed(world: World) -> None:
    run = world.run("completion", "install", "--directory", str(world.directory / "bin"))
    assert run.status is ExitStatus.OK, run.err
    found = sorted(file.name for file in (world.directory / "bin").iterdir())
    assert found == ["kubectl-harvester_stuck", "kubectl_complete-harvester_stuck.bat"]
    offered = subprocess.run(
        [*world.command, "__complete", "unstick", "--lea"], env=world.environ(), input=b"",
        capture_output=True, check=True,
    )  # fmt: skip
    assert offered.stdout.startswith(b"--leave-behind\t")
    assert b"\r" not in offered.stdout


def test_the_document_of_a_failure_is_one(world: World) -> None:
    run = world.run("diagnose", "vm", "none", "-o", "json")
    assert run.status is ExitStatus.ERROR
    assert json.loads(run.out)["items"] == []
