"""Commands as values: only one place writes them, one spells them, and kubectl takes each."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest

import kubectl_harvester_stuck
from kubectl_harvester_stuck.checks import CHECKS, Checked
from kubectl_harvester_stuck.checks.base import Result
from kubectl_harvester_stuck.cli import main
from kubectl_harvester_stuck.k8s import commands
from kubectl_harvester_stuck.k8s.commands import Command, Remark
from kubectl_harvester_stuck.k8s.kinds import (
    ADDON,
    DAEMON_SET,
    DEPLOYMENT,
    HARVESTER_NAMESPACE,
    MUTATING,
    NODE,
    POD,
    PV,
    PVC,
    SETTING,
    VALIDATING,
    VM,
    VM_BACKUP,
    VMI,
)
from kubectl_harvester_stuck.k8s.objects import ObjectRef
from kubectl_harvester_stuck.render import diagnosis_text
from kubectl_harvester_stuck.render.checks import table
from kubectl_harvester_stuck.render.invocation import Invocation
from kubectl_harvester_stuck.render.page import Page
from tests.support import builders, fastyaml
from tests.support.advice import ANYWHERE
from tests.support.builders import bare, parsed, stored
from tests.test_findings import Story
from tests.test_guards import deleted_vm

PACKAGE = Path(kubectl_harvester_stuck.__file__).parent

WEB, GUEST = ObjectRef("shop", "web", VM), ObjectRef("shop", "web", VMI)
LAUNCHER = ObjectRef("shop", "virt-launcher-web", POD)
CONTROLLER = ObjectRef(HARVESTER_NAMESPACE, "virt-api", DEPLOYMENT)
HANDLER = ObjectRef(HARVESTER_NAMESPACE, "virt-handler", DAEMON_SET)

MADE = {
    "get": commands.get(WEB, "-o", "yaml"),
    "get_workload": commands.get_workload(HANDLER, "-o", "wide"),
    "get_all": commands.get_all((VALIDATING, MUTATING)),
    "describe": commands.describe(ObjectRef("", "n1", NODE)),
    "logs": commands.logs(LAUNCHER, "-c", "compute", "--tail=20"),
    "virtctl_evacuate_cancel": commands.virtctl_evacuate_cancel(GUEST),
    "delete": commands.delete(GUEST, "--wait=false"),
    "edit": commands.edit(ObjectRef("", "backup-target", SETTING)),
    "annotate": commands.annotate(WEB, "harvesterhci.io/removedPersistentVolumeClaims", "a,b"),
    "patch": commands.patch(ObjectRef("x", "y", ADDON), {"spec": {"enabled": True}},
                            effect=commands.Effect.CHANGE),
    "retain": commands.retain(ObjectRef("", "pv-1", PV)),
    "disown": commands.disown(parsed(stored(bare(
        VM_BACKUP, "shop", "nightly", owner=stored(builders.vm("shop", "web")))))),
    "start": commands.start(WEB, "Always"),
    "rollout_restart": commands.rollout_restart(CONTROLLER),
    "uncordon": commands.uncordon("n1"),
    "virtctl_force_stop": commands.virtctl_force_stop(WEB),
    "virtctl_migrate_cancel": commands.virtctl_migrate_cancel(WEB),
    "own": commands.own("check", "--print-rules"),
    "unstick": commands.unstick(WEB, "--node-powered-off", "n1"),
    "unstick_named": commands.unstick_named("shop", ("web", "db"), "--node-powered-off", "n1"),
    "unstick_node": commands.unstick_node("n1", None, "--node-powered-off", "n1"),
    "journal": commands.journal(),
    "finalizers": commands.finalizers("orphan"),
    "diagnose": commands.diagnose(WEB),
    "diagnose_all": commands.diagnose_all("shop"),
    "restore": commands.restore("/tmp/a b.json", "--redact"),
    "again": commands.again("unstick", "web-1", "web-2"),
}  # fmt: skip
"""One command of each function that makes one."""


# One place writes them


WRITTEN = re.compile(
    r"\b(kubectl|virtctl) +(harvester-stuck|get|describe|logs|delete|edit|patch|annotate|label"
    r"|apply|create|rollout|scale|drain|cordon|uncordon|config|completion|exec|start|stop|restart"
    r"|migrate|migrate-cancel|evacuate-cancel|pause|unpause)\b"
)

ELSEWHERE = {
    "kubectl harvester-stuck": "the name of the program, in usage lines",
    "  source <(kubectl completion bash)\n": "how completion is set up, as kubectl's manual has it",
    "kubectl completion powershell | Out-String | Invoke-Expression\n": "the same, for PowerShell",
    "see `kubectl config get-contexts`": "no cluster is known that a command could be meant for",
    "or `kubectl config use-context`": "the same",
    "Written by `kubectl harvester-stuck completion install`.": "a mark in a file",
    "Kubernetes; kubectl delete --cascade=orphan": "what has put a finalizer on, in the catalogue",
}
"""The ends of texts that hold the words of a command and print none."""


def literals(path: Path) -> Iterator[str]:
    """The strings of a module, but for its docstrings."""
    tree = ast.parse(path.read_text())
    documents = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values
            )
        elif isinstance(node, ast.Constant) and id(node) not in documents:
            yield str(node.value)


def test_no_other_module_writes_a_command() -> None:
    found = [
        text
        for path in sorted(PACKAGE.rglob("*.py"))
        for text in literals(path)
        if WRITTEN.search(text)
    ]
    assert [text for text in found if not text.endswith(tuple(ELSEWHERE))] == []
    for end in ELSEWHERE:
        assert any(text.endswith(end) for text in found), f"no text ends in {end!r} any more"


def test_only_one_module_makes_the_values() -> None:
    for path in PACKAGE.rglob("*.py"):
        made = [
            node
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "Command"
        ]
        assert not made or path == PACKAGE / "k8s" / "commands.py", path


def test_each_function_has_a_command_here() -> None:
    tree = ast.parse((PACKAGE / "k8s" / "commands.py").read_text())
    made = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    }
    assert made == set(MADE)


# One place spells them


SOMEBODY = ("--context", "prod west", "--kubeconfig", "/home/x/it's", "--as", "jane")


@pytest.mark.parametrize("name", MADE)
def test_a_command_is_meant_for_the_same_cluster_and_user(name: str) -> None:
    command = MADE[name]
    words = shlex.split(Invocation("prod", "https://x", SOMEBODY).spell(command))
    asks_nobody = name in ("journal", "finalizers")
    assert words == [*command.words, *(() if asks_nobody else SOMEBODY)]


def test_a_note_stands_before_its_command_and_a_remark_alone() -> None:
    advice = (commands.journal().noted("look"), Remark("by hand"), commands.journal().noted("so?"))
    assert Invocation("", "").lines(advice) == [
        "# look:",
        "kubectl harvester-stuck journal",
        "# by hand",
        "# so?",
        "kubectl harvester-stuck journal",
    ]


def windows(line: str) -> list[str]:
    """The words as the C runtime splits what cmd.exe hands over: nothing here is escaped."""
    return [quoted or bare for quoted, bare in re.findall(r'"([^"]*)"|(\S+)', line)]


def powershell(line: str) -> list[str]:
    """The words as PowerShell reads them: it splits a bare word with a dash before a dot."""
    found = []
    for quoted, plain in re.findall(r'"([^"]*)"|(\S+)', line):
        assert not re.search(r"[$`]", quoted + plain)
        assert not re.search(r"[@,;(){}|&<>'#%]", plain)
        assert not re.match(r"-[^=]*[.:]", plain), plain
        found.append(quoted or plain)
    return found


SPACED = ("--context", "prod west", "--kubeconfig", r"C:\Users\x\config", "--as", "a@b,c")


@pytest.mark.parametrize("name", MADE)
def test_cmd_and_powershell_read_the_same_words(name: str) -> None:
    command = MADE[name]
    line = Invocation("prod", "https://x", SPACED, system="nt").spell(command)
    assert not re.search(r"%|\^", line)
    read = windows(line)
    assert read == powershell(line)
    for word, meant in zip(read, (*command.words, *SPACED), strict=False):
        # A patch may be YAML: kubectl reads it as that.
        assert word == meant or fastyaml.load(word) == json.loads(meant)


@pytest.mark.parametrize("context", ["100%PATH%", "a$b", "a`b", 'say "x"', "C:\\", "a\nb"])
def test_what_the_shells_of_windows_read_differently_is_not_to_be_pasted(context: str) -> None:
    line = Invocation("x", "y", ("--context", context), system="nt").spell(MADE["get"])
    assert line.startswith("# ")
    assert json.loads(line.partition(": ")[2]) == [*MADE["get"].words, "--context", context]


def test_who_is_asked_decides_about_the_shell() -> None:
    given = ("--context", "a b")
    assert Invocation("", "", given).spell(MADE["journal"]) == "kubectl harvester-stuck journal"
    assert Invocation("", "", given).spell(MADE["describe"]).endswith("--context 'a b'")
    assert Invocation("", "", given, system="nt").spell(MADE["describe"]).endswith('"a b"')


# kubectl takes them


def run(kubectl: Path, words: tuple[str, ...], **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [kubectl, *words], capture_output=True, text=True, check=False,
        env={**os.environ, "KUBECONFIG": "/dev/null", **environ}, timeout=60,
    )  # fmt: skip


NO_CONTEXT = re.compile(r'context "x" does not exist|context was not found.*: x')


@pytest.mark.parametrize(
    "name", [name for name, one in MADE.items() if one.words[:2] == ("kubectl", one.words[1])
             and one.words[1] != "harvester-stuck"]
)  # fmt: skip
def test_kubectl_knows_every_flag(name: str, kubectl: Path) -> None:
    """Without a server it fails at that, and not at a flag or at the number of its arguments."""
    words = (*MADE[name].words[1:], "--context", "x", "--as", "jane", "--request-timeout", "1s")
    done = run(kubectl, words)
    assert done.returncode
    assert NO_CONTEXT.search(done.stderr), done.stderr


def test_a_flag_that_kubectl_does_not_know_would_be_seen(kubectl: Path) -> None:
    done = run(kubectl, (*MADE["get"].words[1:], "--wait-a-little", "--context", "x"))
    assert "unknown flag" in done.stderr
    assert not NO_CONTEXT.search(done.stderr)


@pytest.mark.in_process(reason="its command line is only parsed")
@pytest.mark.parametrize("name", [name for name, one in MADE.items()
                                  if one.words[1] == "harvester-stuck"])  # fmt: skip
def test_the_program_takes_its_own_commands(name: str) -> None:
    command, *rest = MADE[name].words[2:]
    flags = () if name in ("journal", "finalizers") else ("--context", "x", "--as", "jane")
    main.cli.commands[command].make_context(command, [*rest, *flags])


def made() -> list[Command]:
    return list(MADE.values())


def test_what_is_changed_is_named() -> None:
    harmless = {commands.Effect.READ, commands.Effect.LOCAL, commands.Effect.GUARDED}
    assert all(one.acts_on is not None for one in made() if one.effect not in harmless)
    assert MADE["virtctl_migrate_cancel"].acts_on == GUEST
    assert commands.get(ObjectRef("shop", "disk-0", PVC)).words[2] == "pvc"


def test_what_was_read_from_files_is_said_to_be_meant_for_their_cluster() -> None:
    files = Invocation("", "", files=("bundle.zip",))
    story = Story([deleted_vm()]).diagnosis()
    meant = "\nto do    on the cluster of the files:\n"
    for where, is_said in ((files, True), (ANYWHERE, False)):
        text = diagnosis_text.diagnoses([story], where, datetime.now(timezone.utc), Page())
        assert "\nto do" in text
        assert (meant in text) is is_said
    row = Checked(CHECKS[0], Result.FAIL, "x", (), (MADE["journal"],))
    meant = "The commands are meant for the cluster of the files.\n"
    for wide in (True, False):
        assert table([row], files, Page(), wide=wide, headers=True).endswith(meant)
        assert meant not in table([row], ANYWHERE, Page(), wide=wide, headers=True)
    passes = Checked(CHECKS[0], Result.OK, "x", (), (MADE["journal"],))
    assert meant not in table([passes], files, Page(), wide=False, headers=True)
