"""The commands of the runbook, in order, through the real kubectl on the cluster of the demo."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

from tools.pages import DOCS
from tools.screens import Shell, on_the_demo


def commands() -> list[str]:
    """What is typed into kubectl in the numbered steps."""
    text = (DOCS / "runbook.md").read_text()
    steps = text[text.index("## 1. ") : text.index("## The node came back")]
    return re.findall(r"^\$ (kubectl .+)$", steps, re.M)


def with_kubectl(shell: Shell, kubectl: Path) -> None:
    """Let the shell find the real kubectl, and that the program."""
    place = shell.home / "bin"
    (place / "kubectl").unlink()
    (place / "kubectl").symlink_to(kubectl)
    plugin = place / "kubectl-harvester_stuck"
    plugin.write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m kubectl_harvester_stuck "$@"\n'
    )
    plugin.chmod(0o755)


def test_every_command_of_the_steps_works(kubectl: Path) -> None:
    said = {}
    with on_the_demo() as shell:
        with_kubectl(shell, kubectl)
        for command in commands():
            # Harvester's own controllers are not there, so they are not waited for.
            settle = " --settle=1s" if " unstick " in command else ""
            said[command] = shell.run(f"{command}{settle} && echo worked")
            assert said[command].endswith("worked\n"), f"{command}: {said[command]}"
    assert re.search(r"^harvester-2 +NotReady ", said["kubectl get nodes"], re.M)
    assert said["kubectl harvester-stuck list -A"].startswith("Nothing is stuck.")
    (policy,) = [text for command, text in said.items() if "vm-force-reset-policy" in command]
    assert policy.startswith('{"enable":true')
    assert any("restore" in command for command in said)
