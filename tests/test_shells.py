"""TAB pressed in a real bash and a real zsh, with kubectl's own completion."""

from __future__ import annotations

import os
import re
import select
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.components.shells import build
from tests.support import fastyaml
from tests.support.simulator import Simulator
from tests.support.terminal import on_terminal
from tests.support.world import World

SECONDS = 20


@pytest.fixture
def api(simulator: Simulator) -> Simulator:
    """What `world` is in: to a shell all clusters are the same."""
    return simulator


class Shell:
    """A shell at a terminal, with kubectl and the program on its PATH."""

    def __init__(self, command: list[str | Path], environ: dict[str, str], directory: Path) -> None:
        self._started = on_terminal(command, environ, directory)
        self._shown = ""

    def type(self, keys: str) -> None:
        assert self._started.stdin is not None
        self._started.stdin.write(keys.encode())
        self._started.stdin.flush()

    def wait(self, pattern: str) -> re.Match[str]:
        """What the terminal shows next that matches."""
        assert self._started.stdout is not None
        deadline = time.monotonic() + SECONDS
        while not (found := re.search(pattern, self._shown)):
            left = max(0, deadline - time.monotonic())
            ready, _, _ = select.select([self._started.stdout], [], [], left)
            chunk = os.read(self._started.stdout.fileno(), 65536) if ready else b""
            assert chunk, f"{pattern} was not shown, but: {self._shown}"
            self._shown += chunk.decode(errors="replace")
        self._shown = self._shown[found.end() :]
        return found

    def tab(self, words: str) -> str:
        """What TAB makes of the command line. Then it is read back, and not run."""
        self.type(f"kubectl harvester-stuck {words}\t")
        self.type("\x01echo '=' \x05 '='\n")
        found = self.wait(r"\n= kubectl harvester-stuck (.*?) =\r?\n")
        return found[1]

    def close(self) -> None:
        self._started.kill()
        self._started.communicate()


@pytest.fixture(params=["bash", "zsh"])
def shell(request: pytest.FixtureRequest, world: World, kubectl: Path) -> Iterator[Shell]:
    """A bash or zsh, set up as kubectl's documentation says, in a directory with some files."""
    directory = world.directory / "here"
    (directory / "plans").mkdir(parents=True)
    (directory / "planned.json").touch()
    programs = world.directory / "bin"
    programs.mkdir()
    (programs / "kubectl").symlink_to(kubectl)
    for name in ("kubectl-harvester_stuck", "kubectl_complete-harvester_stuck"):
        (programs / name).symlink_to(Path(sys.executable).with_name(name))
    root = build.root()
    setup = world.directory / "setup"
    setup.mkdir()
    if request.param == "bash":
        bash = shutil.which("bash")
        assert bash, "bash is missing: install it"
        command: list[str | Path] = [bash, "--noprofile", "--rcfile", setup / "rc", "-i"]
        (setup / "rc").write_text(f"source {root / build.BASH_COMPLETION}\nset +o history\n")
    else:
        command = [root / build.ZSH, "-d", "-i"]
        if root != Path("/"):
            functions = " ".join(map(str, root.glob("usr/share/zsh/functions/**/")))
            (modules,) = root.glob("usr/lib/*/zsh/*")
            (setup / ".zshenv").write_text(f"module_path=({modules})\nfpath=({functions})\n")
        (setup / ".zshrc").write_text("bindkey -e\nautoload -Uz compinit\ncompinit -D -u\n")
    with next(setup.glob("*rc")).open("a") as file:
        file.write(f"source <(kubectl completion {request.param})\nPS1='> '\necho ready\n")
    environ = world.environ(
        TERM="dumb", ZDOTDIR=str(setup), PATH=os.pathsep.join([str(programs), os.environ["PATH"]])
    )
    started = Shell(command, environ, directory)
    started.wait("ready\r?\n")
    yield started
    started.close()


def test_tab_completes_what_can_stand_there(shell: Shell, world: World) -> None:
    world.delete(world.vm("web-of-shop"))
    assert shell.tab("unst") == "unstick"
    for words, made in (("unstick vm we", "unstick vm web-of-shop"),
                        ("diagnose vm/", "diagnose vm/web-of-shop")):  # fmt: skip
        # A machine that is busy takes longer than somebody at a shell waits.
        assert made in (shell.tab(words) for _ in range(10))
    assert shell.tab("unstick --over") == "unstick --override"
    assert shell.tab("unstick --override no-m") == "unstick --override no-migration"
    assert shell.tab("list --output=js") == "list --output=json"
    assert shell.tab("unstick vm alive") == "unstick vm alive"


def test_tab_completes_a_name_with_colons(shell: Shell, world: World) -> None:
    path = Path(world.environ()["KUBECONFIG"])
    content = fastyaml.load(path.read_text())
    content["contexts"].append({"name": "arn:aws:eks/shop", "context": {}})
    path.write_text(fastyaml.dump(content))
    name = "arn:aws:eks/shop"
    given = f"--kubeconfig {path} --context"
    assert f"{given} {name}" in (shell.tab(f"{given} arn:a") for _ in range(10))


def test_tab_completes_files_where_there_are_files(shell: Shell) -> None:
    assert shell.tab("restore planne") == "restore planned.json"
    made = shell.tab("unstick vm web --backup-dir pla")
    assert made.rstrip("/") == "unstick vm web --backup-dir plans"  # zsh takes the slash off again
    assert shell.tab("unstick vm pla") == "unstick vm pla"


def test_a_second_tab_shows_the_candidates_with_their_descriptions(shell: Shell) -> None:
    shell.type("kubectl harvester-stuck \t\t")
    shell.wait(r"check +\W+Is this cluster ready for the next power failure")
