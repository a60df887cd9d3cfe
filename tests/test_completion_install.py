"""`completion install`: the script that kubectl runs for TAB completion."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from kubectl_harvester_stuck.cli.commands.completion import PLUGIN, InstallOptions
from kubectl_harvester_stuck.errors import ExitStatus
from tests.support.simulator import Simulator
from tests.support.world import Run, World

NAME = "kubectl_complete-harvester_stuck"


class Home:
    """A user with a plugin that says how it was called, in a directory on PATH."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.directory = world.directory
        self.programs = world.directory / "programs"
        self.programs.mkdir()
        self.script = self.programs / NAME
        plugin = self.programs / "kubectl-harvester_stuck"
        plugin.write_text("#!/bin/sh\nprintf '<%s>' \"$@\"\n")
        plugin.chmod(0o755)
        path = os.pathsep.join([str(self.programs), "/usr/bin", "/bin"])
        self.environ = {"PATH": path, "HOME": str(self.directory)}

    def install(self, *words: str) -> Run:
        run = self._world.run("completion", "install", *words, environ=self.environ)
        assert "Traceback" not in run.err
        return run


@pytest.fixture
def home(simulator: Simulator, tmp_path: Path) -> Home:
    return Home(World(simulator, tmp_path, "nowhere", "node-dead", "node-live"))


def test_the_script_lies_beside_the_plugin_and_hands_every_word_to_it(home: Home) -> None:
    run = home.install()
    assert (run.status, run.out) == (ExitStatus.OK, f"{home.script}\n")
    assert "source <(kubectl completion bash)" in run.err
    assert f"delete {home.script}" in run.err
    assert "PATH" not in run.err
    done = subprocess.run(
        [NAME, "unstick", "a b", "$HOME", "--x=*", ""],
        env=home.environ, capture_output=True, text=True, check=True,
        executable=home.script,
    )  # fmt: skip
    assert done.stdout == "<__complete><unstick><a b><$HOME><--x=*><>"


def test_what_it_wrote_is_written_again_where_it_is(home: Home) -> None:
    home.install()
    written = home.script.read_text()
    home.script.write_text(written.replace("exec ", "exec old-"))
    assert home.install().out == f"{home.script}\n"
    assert home.script.read_text() == written


def test_a_file_of_somebody_else_is_left_alone(home: Home) -> None:
    home.script.write_text("mine")
    for words in ((), ("--directory", str(home.programs))):
        run = home.install(*words)
        assert run.status is ExitStatus.ERROR
        (line,) = run.err.splitlines()
        assert f"{home.script} was not written by this command: remove it" in line
        assert home.script.read_text() == "mine"


def test_a_link_that_appears_meanwhile_is_not_followed(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = home.directory / "mine"
    mine.write_text("mine")
    exists = os.path.lexists

    def swapped(path: Path) -> bool:
        there = exists(path)
        if Path(path) == home.script:
            home.script.symlink_to(mine)
        return there

    monkeypatch.setattr(os.path, "lexists", swapped)
    run = home.install("--directory", str(home.programs))
    assert run.status is ExitStatus.ERROR
    assert "File exists" in run.err
    assert (mine.read_text(), mine.stat().st_mode & 0o111) == ("mine", 0)


def test_a_link_to_what_it_wrote_is_replaced_and_not_followed(home: Home) -> None:
    home.install()
    elsewhere = home.directory / "elsewhere"
    elsewhere.write_text(f"{home.script.read_text()}# mine\n")
    home.script.unlink()
    home.script.symlink_to(elsewhere)
    home.install()
    assert not home.script.is_symlink()
    assert elsewhere.read_text().endswith("# mine\n")


def test_after_an_installation_with_pip_there_is_nothing_to_do(home: Home) -> None:
    content = "#!/usr/bin/python3\nfrom kubectl_harvester_stuck.cli.main import complete\n"
    home.script.write_text(content)
    home.script.chmod(0o755)
    run = home.install()
    assert (run.status, run.out) == (ExitStatus.OK, "")
    assert run.err == f"{home.script} is there already: it came with the program\n"
    assert home.script.read_text() == content


def test_it_goes_to_the_user_s_own_directory_where_the_plugin_s_is_not(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda _, mode: mode == os.F_OK | os.X_OK)
    own = home.directory / ".local" / "bin"
    run = home.install()
    assert run.out == f"{own / NAME}\n"
    assert (own / NAME).stat().st_mode & 0o777 == 0o755
    assert f"{own} is not on PATH: add it, or choose a --directory" in run.err


@pytest.mark.parametrize("value", ["", "me"])
def test_without_a_home_directory_nothing_is_written(
    home: Home, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.chdir(home.directory)
    home.environ |= {"HOME": value, "PATH": "/nowhere"}
    run = home.install()
    assert run.status is ExitStatus.ERROR
    assert f"HOME is {value!r}" in run.err or "HOME is empty" in run.err
    assert "--directory" in run.err
    assert not (home.directory / "me").exists()


def test_a_directory_can_be_chosen(home: Home) -> None:
    chosen = home.directory / "new" / "place"
    assert home.install("--directory", str(chosen)).out == f"{chosen / NAME}\n"
    assert os.access(chosen / NAME, os.X_OK)
    assert not home.script.exists()


def test_on_windows_kubectl_gets_to_know_the_name_as_it_is_typed(home: Home) -> None:
    """By its file alone the plugin is `harvester-stuck.exe`; what is started needs a suffix."""
    options = InstallOptions(home.directory / "new", system="nt")
    answer = options.run(options.complete(None))  # type: ignore[arg-type]
    batch, by_name = (home.directory / "new" / name for name in (f"{NAME}.bat", PLUGIN))
    assert answer.text == f"{batch}\n{by_name}\n"
    assert batch.read_bytes().endswith(b"\r\n@kubectl-harvester_stuck __complete %*\r\n")
    assert by_name.read_bytes().endswith(b'\nexec kubectl-harvester_stuck.exe "$@"\n')
    assert "kubectl completion powershell | Out-String | Invoke-Expression" in answer.notes
    assert f"delete {batch} and {by_name}\n" in answer.notes
    # Where pip put the program for completion, the name alone is missing.
    by_name.unlink()
    batch.write_text("from kubectl_harvester_stuck.cli.main import complete\n")
    answer = options.run(options.complete(None))  # type: ignore[arg-type]
    assert answer.text == f"{by_name}\n"
    assert answer.notes.startswith(f"{batch} is there already: it came with the program\n")


def test_what_cannot_be_written_is_an_error_that_says_what_to_do(home: Home) -> None:
    run = home.install("--directory", str(home.programs / "kubectl-harvester_stuck" / "below"))
    assert run.status is ExitStatus.ERROR
    (line,) = run.err.splitlines()
    assert line.endswith("Not a directory: choose a --directory")
