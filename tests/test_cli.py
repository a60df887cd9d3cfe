"""The command line itself: help, usage errors, start-up, and what the contract promises."""

from __future__ import annotations

import json
import os
import pkgutil
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import click
import pytest

from kubectl_harvester_stuck import render
from kubectl_harvester_stuck.cli import commands as cli_commands
from kubectl_harvester_stuck.cli import main, options, session
from kubectl_harvester_stuck.errors import ExitStatus
from kubectl_harvester_stuck.harvester.finalizer_catalogue import CATALOGUE
from kubectl_harvester_stuck.k8s.kinds import TARGET_KINDS, VM, VMI
from kubectl_harvester_stuck.release import context
from kubectl_harvester_stuck.release.context import Timeouts
from kubectl_harvester_stuck.render import color
from kubectl_harvester_stuck.render.document import SCHEMAS
from tests.support.simulator import Simulator
from tests.support.world import World

README = Path(__file__).parent.parent / "README.md"


@pytest.fixture
def world(simulator: Simulator, tmp_path: Path) -> World:
    return World(simulator, tmp_path, "nowhere", "node-dead", "node-live")


def commands() -> list[str]:
    return sorted(main.cli.commands)


@pytest.mark.parametrize("command", commands())
def test_every_command_has_help_and_examples(world: World, command: str) -> None:
    run = world.run(command, "--help")
    assert run.status is ExitStatus.OK
    assert run.out.startswith(f"Usage: kubectl harvester-stuck {command}")
    assert all(len(line) <= 80 for line in run.out.splitlines())


def test_the_help_begins_with_the_commands_in_the_order_of_their_use(world: World) -> None:
    out = world.run("help").out
    assert all(len(line) <= 80 for line in out.splitlines())
    names = re.findall(r"^  ([a-z-]+)  ", out[out.index("Commands:") : out.index("Options:")], re.M)
    assert names == list(main.COMMANDS)
    assert "..." not in out[out.index("Commands:") : out.index("Options:")]


@pytest.mark.parametrize("command", commands())
def test_every_example_in_the_help_parses(world: World, command: str) -> None:
    examples = re.findall(r"kubectl harvester-stuck (.+)", world.run(command, "--help").out)
    given = [words.split() for words in examples if words.startswith(command)][1:]
    assert given
    for words in given:
        parsed = main.cli.commands[command].make_context(
            command, words[1:], resilient_parsing=False
        )
        assert parsed.command.name == command


@pytest.mark.parametrize("words", [("--help",), ("list", "--help"), ("--version",)])
def test_help_loads_neither_what_costs_time_nor_another_command(
    words: tuple[str, ...],
) -> None:
    code = (
        "import sys\n"
        "from kubectl_harvester_stuck.cli import main as cli\n"
        f"assert not cli.run({list(words)!r})\n"
        "heavy = {'kubernetes', 'urllib3', 'yaml', 'tabulate', 'dateutil', 'json', 'unicodedata'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "place = f'{cli.__package__}.commands'\n"
        "paths = {name: f'{place}.{name.replace(chr(45), chr(95))}' for name in cli.COMMANDS}\n"
        "loaded = {name for name, path in paths.items() if path in sys.modules}\n"
        f"assert loaded <= {set(words)!r}, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_module_of_a_command_is_in_the_help() -> None:
    modules = {module.name for module in pkgutil.iter_modules(cli_commands.__path__)}
    assert {name.replace("-", "_") for name in main.COMMANDS} == modules


def test_the_collector_does_not_run_while_the_program_starts() -> None:
    code = (
        "import gc, os, sys\n"
        "from kubectl_harvester_stuck.cli import main as cli\n"
        "sys.argv = ['kubectl-harvester_stuck', 'version', '--client']\n"
        "before = gc.get_stats()[0]['collections']\n"
        "def end(status):\n"
        "    print('collected', gc.get_stats()[0]['collections'] - before)\n"
        "    sys.exit(status)\n"
        "os._exit = end\n"
        "cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "collected 0", done.stderr


@pytest.mark.parametrize("wait", ["", "thread.join()\n"], ids=["at work", "done"])
def test_the_process_ends_with_its_status_once_no_thread_writes_any_more(wait: str) -> None:
    code = (
        "import sys, threading, time\n"
        "from kubectl_harvester_stuck.cli import main as cli\n"
        "def work():\n    time.sleep(0.3)\n    sys.stdout.write('written')\n"
        "    sys.stdout.flush()\n"
        f"thread = threading.Thread(target=work)\nthread.start()\n{wait}cli._end(3)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "written")


@pytest.mark.parametrize(
    ("flags", "settle"),
    [((), 30), (("--timeout", "10s"), 10), (("--settle", "0"), 0), (("--settle", "2m"), 120)],
    ids=["default", "short timeout", "none", "long"],
)
def test_the_wait_after_a_step_is_no_longer_than_the_whole_one(
    world: World, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], settle: int
) -> None:
    taken: list[Timeouts] = []

    def kept(*waits: timedelta) -> Timeouts:
        taken.append(Timeouts(*waits))
        return taken[-1]

    monkeypatch.setattr(context, "Timeouts", kept)
    world.run("unstick", "web", *flags)
    assert [waits.settle for waits in taken] == [timedelta(seconds=settle)]


def test_a_list_loads_neither_the_generated_client_nor_what_decides() -> None:
    code = (
        "import sys\n"
        "from kubectl_harvester_stuck.cli import main as cli\n"
        "cli.run(['list', '-s', 'http://127.0.0.1:1'])\n"
        "assert 'kubernetes.client.configuration' in sys.modules\n"
        "heavy = ('kubernetes.client.models', 'kubernetes.client.api',"
        " 'kubectl_harvester_stuck.release.model',"
        " 'kubectl_harvester_stuck.harvester.finalizer')\n"
        "loaded = [n for n in sys.modules if n.startswith(heavy)]\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("lsit",),
        ("list", "--bogus"),
        ("list", "pods"),
        ("list", "-o", "xml"),
        ("list", "--older-than", "soon"),
        ("unstick",),
        ("unstick", "vm"),
        ("unstick", "vm/"),
        ("unstick", "vm/web", "db"),
        ("unstick", "web,db"),
        ("diagnose", "web", "--node", "n1"),
        ("diagnose", "web", "--older-than", "5m"),
        ("diagnose", "shop/Web"),
        ("unstick", "shop/web", "-n", "lab"),
        ("diagnose", "-n", "lab", "shop/web"),
        ("unstick", "vm", "vm/web"),
        ("diagnose", "vm/web", "vmi/web"),
        ("diagnose", "pod/web"),
        ("unstick", "pod", "web"),
        ("unstick", "vm", "web", "--override", "guest-stopped"),
        ("unstick", "vm", "web", "--yes", "--confirm", "0"),
        ("unstick", "vm", "web", "--max", "0"),
        ("unstick", "web", "--settle", "1m", "--timeout", "59s"),
        ("unstick", "web", "--settle", "3m"),
        ("unstick", "vm", "web", "--dry-run=maybe"),
        ("journal", "web,db"),
        ("journal", "shop/web", "-n", "lab"),
        ("journal", "--since", "yesterday"),
        ("restore", "vm"),
        ("restore", "vmi", "web"),
        ("restore", "vm", "web", "db"),
        ("restore", "vm", "shop/web", "-n", "lab"),
        ("restore", "--list", "--yes"),
        ("restore", "--list", "--dry-run=server"),
        ("journal", "-o", "xml"),
        ("restore",),
        ("restore", "FILE", "-o", "wide"),
        ("restore", "FILE", "--redact", "--yes"),
        ("restore", "FILE", "--redact", "--dry-run=server"),
        ("restore", "FILE", "--redact", "-o", "name"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_status_2_with_a_hint(world: World, words: tuple[str, ...]) -> None:
    run = world.run(*words)
    assert run.status is ExitStatus.USAGE
    assert run.out == ""
    assert run.err.startswith("error: ")
    assert re.search(r"^See 'kubectl harvester-stuck.* --help' for usage\.$", run.err, re.M)
    assert "Traceback" not in run.err


@pytest.mark.parametrize("flag", [("-o", "json"), ("-ojson",), ("-o=json",), ("--output=json",)])
def test_wrong_usage_is_a_document_where_one_was_asked_for(
    world: World, flag: tuple[str, ...]
) -> None:
    run = world.run("list", "pods", *flag)
    assert run.status is ExitStatus.USAGE
    assert run.json["error"]["exitStatus"] == 2
    assert run.json["schema"] == "harvester-stuck/list/v1"


@pytest.mark.parametrize("spelling", sorted(TARGET_KINDS))
def test_kinds_are_spelled_as_in_kubectl(spelling: str) -> None:
    kind = VMI if "instance" in spelling or spelling.startswith("vmi") else VM
    assert TARGET_KINDS[spelling] is kind


def test_flags_are_taken_before_and_after_the_command(world: World) -> None:
    for name in ("elsewhere", "inner"):
        world.api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    assert world.run("-n", "elsewhere", "list").err == "Nothing is stuck in elsewhere namespace.\n"
    assert world.run("list", "-n", "elsewhere").err == "Nothing is stuck in elsewhere namespace.\n"
    both = world.run("-n", "outer", "list", "-n", "inner")
    assert both.err == "Nothing is stuck in inner namespace.\n"


def test_get_and_the_bare_command_are_list_and_help_shows_any_help(world: World) -> None:
    world.delete(world.vm())
    listed = world.run("list")
    ages = re.compile(r"\d+s\b")
    for words in (("get",), ("get", "vm,vmi"), ()):
        run = world.run(*words)
        assert run.status is ExitStatus.OK
        assert ages.sub("", run.out).split() == ages.sub("", listed.out).split()
    lines = world.run().err.splitlines()
    assert {"  kubectl harvester-stuck list -A", "  kubectl harvester-stuck help"} <= {*lines}
    elsewhere = world.run("-n", "default")
    assert elsewhere.err.startswith("Nothing is stuck in default namespace.\n")
    for words in (("list",), ("unstick",), ()):
        assert world.run("help", *words).out == world.run(*words, "--help").out
    assert world.run("help", "get").out == world.run("list", "--help").out
    world.api.wipe(world.namespace)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("lsit", "no such command: lsit; did you mean list?"),
        ("help lsit", "no such command: lsit; did you mean list?"),
        ("vm web", "no such command: vm; the command comes first, as in diagnose vm"),
        ("qqq", "no such command: qqq"),
        ("list --all", "no such option: --all; did you mean --all-namespaces?"),
        ("unstick --al", "no such option: --al; did you mean --all?"),
        ("unstick -all", "no such option: -a; did you mean --all?"),
        ("unstick web -dry-run=client", "no such option: -d; did you mean --dry-run?"),
        ("list --selecter x=y", "no such option: --selecter; did you mean --selector?"),
        (
            "-A list",
            "no such option: -A before the name of a command; behind it:"
            " list, diagnose, unstick, check, serve-metrics",
        ),
        # Nobody is told to act as somebody else, or to agree.
        ("list --as-grup x", "no such option: --as-grup"),
        ("check --al", "no such option: --al; did you mean --all-namespaces?"),
        ("restore --al", "no such option: --al"),
        ("--al", "no such option: --al"),
        ("unstick --yess", "no such option: --yess"),
        ("unstick --node-power", "no such option: --node-power"),
        ("unstick -yes", "no such option: -e"),
    ],
)
def test_a_hint_says_what_may_have_been_meant(world: World, words: str, error: str) -> None:
    run = world.run(*words.split())
    assert run.status is ExitStatus.USAGE
    assert run.err.splitlines()[0] == f"error: {error}"


def test_a_file_of_the_connection_is_judged_by_whoever_reads_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    run = world.run("list", "-A", "--kubeconfig", str(world.kubeconfig()))
    assert run.status is ExitStatus.OK, run.err


def test_every_flag_of_the_contract_is_there() -> None:
    shared = [
        "--kubeconfig",
        "--context",
        "--cluster",
        "--user",
        "-s",
        "--server",
        "--token",
        "--as",
        "--as-group",
        "--as-uid",
        "--certificate-authority",
        "--client-certificate",
        "--client-key",
        "--insecure-skip-tls-verify",
        "--tls-server-name",
        "--request-timeout",
        "-n",
        "--namespace",
        "-v",
    ]
    own = {
        "list": "-A --all-namespaces -l --selector --node -o --output --no-headers --older-than"
        " --exit-code",
        "diagnose": "-o --output -A --all-namespaces -l --selector --node --older-than --exit-code",
        "unstick": "--all -A -l --selector --node -o --dry-run -y --yes --confirm --older-than"
        " --finalizer --leave-behind --node-powered-off --override --max --settle --timeout"
        " --backup-dir --ignore-not-found",
        "restore": "-o --output --dry-run -y --yes --redact --list --backup-dir",
    }
    for name, flags in own.items():
        known = {flag for param in main.cli.commands[name].params for flag in param.opts}
        assert {*shared, *flags.split()} <= known


def test_the_formats_of_the_commands_are_those_that_can_be_rendered() -> None:
    assert options.FORMATS == render.FORMATS
    assert {"table", "wide", "json", "yaml", "name"} <= set(render.FORMATS)
    assert set(SCHEMAS) - {"diagnosis", "watch"} <= set(commands())
    assert {"-o", "--output", "-n", "--namespace", "--no-headers"} <= {
        flag for param in main.cli.commands["journal"].params for flag in param.opts
    }


def test_a_token_is_never_printed(world: World) -> None:
    for words in (("list", "-v", "9"), ("unstick", "vm", "web", "-v", "9")):
        run = world.run(*words, "--token", "tok-secret-en")
        assert "tok-secret-en" not in run.out + run.err
        assert "GET" in run.err


def test_a_command_that_is_printed_repeats_the_connection_but_no_secret() -> None:
    found = {"kubeconfig": "/tmp/my config", "as_groups": ("a", "b"), "token": "s3cret"}
    words = session.connection_words({**found, "namespace": "shop"})
    assert words == ("--kubeconfig", "/tmp/my config", "--as-group", "a", "--as-group", "b")


def test_a_reader_that_goes_away_changes_no_status(world: World) -> None:
    program = [sys.executable, "-m", "kubectl_harvester_stuck", "list", "-A", "-o", "json"]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            program, env=world.environ(), stdout=writer, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_documents_are_valid_json_whatever_is_in_them(world: World) -> None:
    assert json.loads(world.run("list", "-o", "json").out)["items"] == []
    assert isinstance(main.cli, click.Group)


def test_the_catalogue_is_a_table_that_fits(world: World) -> None:
    run = world.run("finalizers")
    header, *lines = run.out.splitlines()
    assert header.split() == ["NAME", "ON"]
    assert len(lines) == len(CATALOGUE)
    assert all(len(line) <= 80 for line in run.out.splitlines())
    document = world.run("finalizers", "-o", "json").json
    assert [item["name"] for item in document["items"]] == [entry.name for entry in CATALOGUE]
    assert all(all(item.values()) for item in document["items"])


def test_a_finalizer_is_shown_in_full(world: World) -> None:
    name = "kubevirt.io/virtualMachineControllerFinalize"
    out = world.run("finalizers", name, environ=world.environ(COLUMNS="80")).out
    assert out.count(name) == 2
    assert "deploy/virt-controller" in out
    assert all(len(line) <= 80 for line in out.splitlines())


@pytest.mark.parametrize("part", ["FOREGROUND", "foregrounddel", "kubevirt.io/Virt", "ORPHAN"])
def test_a_part_of_a_name_finds_finalizers_whatever_its_case(world: World, part: str) -> None:
    names = {entry.name for entry in CATALOGUE}
    exact = {name for name in names if name.lower() == part.lower()}
    expected = exact or {name for name in names if part.lower() in name.lower()}
    assert expected
    found = world.run("finalizers", part, "-o", "json").json["items"]
    assert {item["name"] for item in found} == expected
    carried = world.run(
        "finalizers", "-f", "examples/supportbundle.zip", "VIRTUALMACHINECONTROLLER"
    )
    assert carried.out.count("virtualMachineControllerFinalize") == 2
    assert len(carried.out.splitlines()) == 3


def test_an_unknown_finalizer_is_an_error_that_says_what_to_do(world: World) -> None:
    run = world.run("finalizers", "example.com/x")
    assert run.status is ExitStatus.ERROR
    assert "finalizers -o name" in run.err


def test_colour_is_only_for_people_at_a_terminal() -> None:
    for when, terminal, environ, coloured in (
        ("auto", True, {"TERM": "xterm"}, True),
        ("auto", False, {"TERM": "xterm"}, False),
        ("auto", True, {"TERM": "dumb"}, False),
        ("auto", True, {"NO_COLOR": "0"}, False),
        ("auto", True, {"NO_COLOR": ""}, True),
        ("always", False, {"NO_COLOR": "1"}, True),
        ("never", True, {}, False),
    ):
        assert color.wanted(when, environ, is_terminal=terminal) is coloured


def test_colour_changes_no_character_but_its_own(world: World) -> None:
    machine = world.delete(world.vm())
    for words in (("list",), ("diagnose",), ("unstick", "vm", "web", "--dry-run=client")):
        plain = world.run(*words, "--color=never")
        painted = world.run(*words, "--color=always")
        assert "\x1b[" not in plain.out
        assert "\x1b[" in painted.out
        ages = re.compile(r"\d+s\b")
        stripped = re.sub(r"\x1b\[[\d;]*m", "", painted.out)
        assert ages.sub("", stripped).split() == ages.sub("", plain.out).split()
        assert "\x1b[" not in world.run(*words, "--color=always", "-o", "json").out
    world.api.wipe(machine["metadata"]["namespace"])


@pytest.mark.parametrize(
    "words",
    [
        ("vm", "web", "-n", "{namespace}"),
        ("-n", "{namespace}", "vm/web"),
        ("vm/web", "-n", "{namespace}"),
        ("-o", "json", "VM/web", "-n", "{namespace}"),
        ("vms.kubevirt.io/web", "-n", "{namespace}", "vm/web"),
        ("web", "-n", "{namespace}"),
        ("{namespace}/web",),
        ("-n", "{namespace}", "{namespace}/web", "web"),
        ("vm", "{namespace}/web"),
        ("vm/{namespace}/web",),
    ],
    ids=" ".join,
)
def test_a_target_is_named_as_kubectl_takes_it(world: World, words: tuple[str, ...]) -> None:
    world.delete(world.vm())
    given = [word.format(namespace=world.namespace) for word in words]
    for command in (("diagnose",), ("unstick", "--dry-run=client", "--older-than=0")):
        run = world.run(*command, *given, "-o", "json")
        assert run.status is ExitStatus.OK, run.err
        assert run.item["target"]["name"] == "web"
        assert run.item["target"]["namespace"] == world.namespace
    world.api.wipe(world.namespace)
