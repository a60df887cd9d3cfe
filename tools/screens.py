"""The screens in documents, made by running the commands that they show.

A console block below one of these markers is run again, command by command:

    <!-- demo -->                      on the cluster of `make demo`, one for the whole document
    <!-- demo: from To go ahead -->    the same; what comes before these words is left out
    <!-- scenario: harvester-8003 -->  on the cluster of tests/scenarios/harvester-8003.yaml
    <!-- offline -->                   without a cluster, at the top of the checkout

To a question the operator says yes. Whatever differs between two runs is written in one way:
times, ports, uids, digests, the home directory, and the order of what goes at the same time.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.support.simulator import Simulator
from tests.support.world import ApiServer
from tests.test_scenarios import SCENARIOS, scene
from tools import demo

ROOT = Path(__file__).parent.parent
SCREEN = re.compile(r"<!-- (demo|scenario|offline)(?:: (.+?))? -->\n\n```console\n(.*?)```\n", re.S)
SINCE = 12 * 60 + 30
"""Seconds that the demo lies back: `journal` tells ages by the clock of its own machine."""

_SHIM = """#!/bin/sh
test "$1" = harvester-stuck && shift && exec {python} -m kubectl_harvester_stuck "$@"
echo "kubectl $1: not part of a screen" >&2
"""


@dataclass
class Shell:
    """A user's shell, in which `kubectl harvester-stuck` reaches the cluster of a kubeconfig."""

    home: Path
    _seen: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.home / "bin").mkdir()
        kubectl = self.home / "bin" / "kubectl"
        kubectl.write_text(_SHIM.format(python=sys.executable))
        kubectl.chmod(0o755)

    def reach(self, api: ApiServer, **where: str) -> None:
        """Let this cluster be the one of the user's kubeconfig."""
        (self.home / ".kube").mkdir()
        (self.home / ".kube" / "config").write_text(yaml.safe_dump(api.kubeconfig(**where)))

    def run(self, command: str) -> str:
        """All that the command prints, in one shape, with the operator's yes to its question."""
        process = subprocess.Popen(
            ["sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={
                "PATH": f"{self.home / 'bin'}:{os.environ['PATH']}",
                "HOME": str(self.home),
                "COLUMNS": "80",
            },
            cwd=ROOT,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        with process:
            said = b""
            while block := os.read(process.stdout.fileno(), 65536):
                said += block
                asked = re.search(rb"To go ahead, type (.+): $", said)
                if asked:
                    process.stdin.write(asked[1] + b"\n")
                    process.stdin.flush()
                    said += asked[1] + b"\n"
        return self._in_one_shape(said.decode())

    def _in_one_shape(self, text: str) -> str:
        text = text.replace(str(self.home), "/home/me")
        text = re.sub(r"https://127\.0\.0\.1:\d+", "https://192.0.2.10:6443", text)
        text = re.sub(r"\d{8}T\d{12}Z", "20261123T034205000000Z", text)
        text = re.sub(r"(the undo file of )[-\d]{10}T[:\d]{8}Z", r"\g<1>2026-11-23T03:42:05Z", text)
        # On a busy machine it says what it waits for, and the journal is read a minute later.
        text = re.sub(r"(?m)^(?:reading|looking for|waiting for) .*\(\d+s\b.*\)\n", "", text)
        text = re.sub(r"(?m)^1[2-4]m(?= +admin )", "12m", text)
        # Pods of several targets go at the same time.
        text = re.sub(
            r"(?m)(?:^(?:delete|\d+m +\w+) +Pod .+\n){2,}",
            lambda found: "".join(sorted(found[0].splitlines(keepends=True))),
            text,
        )
        for pattern in (r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", r"[0-9a-f]{16}"):
            text = re.sub(rf"(?<![0-9a-f]){pattern}(?![0-9a-f])", self._known, text)
        return text

    def _known(self, found: re.Match[str]) -> str:
        """A random name in the order in which it was first seen."""
        number = str(len(self._seen))
        is_uid = "-" in found[0]
        made = uuid.uuid5(uuid.NAMESPACE_OID, number) if is_uid else _digest(number)
        return self._seen.setdefault(found[0], str(made))


def _digest(number: str) -> str:
    return hashlib.sha256(number.encode()).hexdigest()[:16]


@contextmanager
def on_the_demo() -> Iterator[Shell]:
    """A shell on the cluster of the demo, on which time stands still."""
    with tempfile.TemporaryDirectory() as home, Simulator(controllers=demo.CONTROLLERS) as api:
        api.clock.stop()
        api.clock.advance(-SINCE)
        demo.populate(api)
        shell = Shell(Path(home))
        shell.reach(api, namespace="shop", context="demo")
        yield shell


@contextmanager
def _on(scenario: str) -> Iterator[Shell]:
    told = yaml.safe_load((SCENARIOS / f"{scenario}.yaml").read_text())
    with tempfile.TemporaryDirectory() as home, scene(told, Path(home)) as world:
        shell = Shell(Path(home))
        shell.reach(world.api, namespace="default", context="demo")
        yield shell


def shown(shell: Shell, command: str, *more: str) -> str:
    """What the command prints, with flags that change no word of it.

    Harvester's own controllers are not there, so they are not waited for.
    """
    flags = (*more, "--settle=1s") if " unstick " in command else more
    return shell.run(" ".join((command, *flags)))


def made(text: str) -> str:
    """The document with its screens as the program prints them now."""
    with ExitStack() as stack:
        demos: list[Shell] = []

        def screen(found: re.Match[str]) -> str:
            place, argument, block = found.groups()
            if place == "demo" and not demos:
                demos.append(stack.enter_context(on_the_demo()))
            with ExitStack() as this:
                if place == "demo":
                    shell = demos[0]
                elif place == "scenario":
                    shell = this.enter_context(_on(argument))
                else:
                    shell = Shell(Path(this.enter_context(tempfile.TemporaryDirectory())))
                lines = ""
                for command in re.findall(r"^\$ (.+)$", block, re.M):
                    text = shown(shell, command)
                    if place == "demo" and argument:
                        start = text.index(argument.removeprefix("from "))
                        text = f"...\n{text[start:]}"
                    lines += f"$ {command}\n{text}"
            marker = found[0].partition("\n")[0]
            return f"{marker}\n\n```console\n{lines}```\n"

        return SCREEN.sub(screen, text)
