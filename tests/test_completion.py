"""TAB completion without a cluster: the protocol, and what the program itself can tell."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubectl_harvester_stuck.cli import completion
from kubectl_harvester_stuck.cli.main import cli
from kubectl_harvester_stuck.harvester.finalizer_catalogue import CATALOGUE
from kubectl_harvester_stuck.release.guards import GUARDS
from tests.support import fastyaml
from tests.support.terminal import on_terminal

NO_FILES, FILES, DIRECTORIES = 4, 0, 16
NOWHERE = {"KUBECONFIG": os.devnull}


def complete(*words: str, environ: Mapping[str, str] | None = None) -> tuple[dict[str, str], int]:
    """The candidates with their descriptions, and the directive."""
    with mock.patch.dict(os.environ, environ or NOWHERE):
        *lines, last = completion.answer(cli, list(words)).splitlines()
    assert last.startswith(":")
    found = dict(line.partition("\t")[::2] for line in lines)
    assert len(found) == len(lines), "a candidate was offered twice"
    return found, int(last[1:])


def program(
    *words: str, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The program as kubectl starts it."""
    return subprocess.run(
        [sys.executable, "-m", "kubectl_harvester_stuck", completion.COMMAND, *words],
        env={**os.environ, **(environ or NOWHERE)}, capture_output=True, encoding="utf-8",
        check=False,
    )  # fmt: skip


def options() -> Iterator[tuple[list[str], click.Option]]:
    """Every option of every command that takes a value, with the words before it."""

    def walk(command: click.Command, words: list[str]) -> Iterator[tuple[list[str], click.Option]]:
        for param in command.params:
            if isinstance(param, click.Option) and not param.is_flag:
                yield [*words, max(param.opts, key=len)], param
        if isinstance(command, click.Group):
            for name, child in command.commands.items():
                yield from walk(child, [*words, name])

    return walk(cli, [])


def test_every_command_is_offered_with_what_it_does() -> None:
    found, directive = complete("")
    assert set(found) == set(cli.commands)
    assert found["check"] == "Is this cluster ready for the next power failure?"
    assert directive == NO_FILES
    assert complete() == complete("")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("un", {"unstick"}),
        ("completion ", {"install"}),
        ("-n shop li", {"list"}),
        ("--cont", {"--context"}),
        ("list --cont", {"--context"}),
        ("-n shop list --no-h", {"--no-headers"}),
        ("unstick --dry-run=", {"none", "client", "server"}),
        ("unstick --dry-run s", {"server"}),
        ("unstick -o j", {"json"}),
        ("unstick -o=j", {"json"}),
        ("-n=shop list -o=j", {"json"}),
        ("--color=al", {"always"}),
        ("list --color ", {"auto", "always", "never"}),
        ("diagnose -o m", {"markdown", "mermaid"}),
        ("list ", {"vm", "vmi"}),
        ("unstick ", {"vm", "vmi"}),
        ("unstick -A vm", {"vm", "vmi"}),
        ("unstick vm -A ", set()),
        ("unstick pods ", set()),
        ("unstick vm --token ", set()),
        ("finalizers orph", {"orphan"}),
        ("finalizers orphan ", set()),
        ("check --context c --context", set()),
    ],
)  # fmt: skip
def test_what_comes_next(words: str, expected: set[str]) -> None:
    assert complete(*words.split(" ")) == (dict.fromkeys(expected, mock.ANY), NO_FILES)


def test_finalizers_and_guards_are_those_of_the_program() -> None:
    names = {entry.name for entry in CATALOGUE}
    for words in (["finalizers"], *(["unstick", f"--{flag}"] for flag in LOOKED_UP)):
        assert set(complete(*words, "")[0]) == names
    found, _ = complete("unstick", "--override", "")
    assert found == {guard.name: guard.summary for guard in GUARDS if guard.overridable}


LOOKED_UP = ("finalizer", "leave-behind")


def test_files_and_directories_are_left_to_the_shell() -> None:
    seen = set()
    for words, option in options():
        directive = {"FILE": FILES, "DIR": DIRECTORIES}.get(str(option.metavar), NO_FILES)
        assert complete(*words, "")[1] == directive, words
        seen.add(directive)
    assert seen == {FILES, DIRECTORIES, NO_FILES}
    assert complete("restore", "") == ({}, FILES)


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    """A kubeconfig with more than one of everything."""
    path = tmp_path / "kubeconfig"
    entries = {
        section: [{"name": f"{section}-{name}", section[:-1]: {}} for name in names]
        for section, names in (
            ("clusters", ("one", "two")),
            ("contexts", ("zwölf", "arn:aws:two", "\x1b[31mred", "a\ttab", "right\u202eleft")),
            ("users", ("me@one", "you")),
        )
    }
    path.write_text(fastyaml.dump(entries))
    return path


def test_the_names_in_the_kubeconfig_are_offered(kubeconfig: Path) -> None:
    environ = {"KUBECONFIG": f"/nowhere{os.pathsep}{kubeconfig}"}
    assert set(complete("list", "--cluster", "", environ=environ)[0]) == {
        "clusters-one", "clusters-two"
    }  # fmt: skip
    assert set(complete("--user=users-m", environ=environ)[0]) == {"users-me@one"}
    for words in (["--context", ""], ["check", "--context="]):
        assert set(complete(*words, environ=environ)[0]) == {
            "contexts-zwölf", "contexts-arn:aws:two"
        }, "a name that cannot be printed is left out"  # fmt: skip


@pytest.mark.parametrize("where", ["list --kubeconfig {}", "--kubeconfig={} list"])
def test_the_kubeconfig_is_that_of_the_words_before(kubeconfig: Path, where: str) -> None:
    words = where.format(kubeconfig).split()
    assert "contexts-zwölf" in complete(*words, "--context", "")[0]


def test_what_is_not_ascii_is_offered_in_any_locale(kubeconfig: Path) -> None:
    environ = {"KUBECONFIG": str(kubeconfig), "PYTHONIOENCODING": "ascii"}
    assert program("--context", "contexts-z", environ=environ).stdout == "contexts-zwölf\n:4\n"


def test_a_broken_kubeconfig_is_silence(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("{")
    for words in (("--context", ""), ("unstick", "vm", ""), ("-n", "")):
        done = program(*words, environ={"KUBECONFIG": str(broken)})
        assert (done.returncode, done.stdout, done.stderr) == (0, f":{NO_FILES}\n", "")


VOCABULARY = (
    *cli.commands, "", "-", "--", "=", "vm", "vmi/", "vm/web", "-n", "--context", "--context=x",
    "-A", "-o=json", "-f", "--help", "-h", "--version", "--max", "--override=x", completion.COMMAND,
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.sampled_from(VOCABULARY) | st.text(max_size=5), max_size=6))
def test_whatever_was_typed_there_is_an_answer(words: list[str]) -> None:
    found, directive = complete(*words)
    assert directive in (NO_FILES, FILES, DIRECTORIES)
    assert all(name.isprintable() for name in found)


@pytest.mark.parametrize(
    "words",
    [
        ("",),
        ("-",),
        ("list", "--"),
        ("unstick", ""),
        ("unstick", "--override", ""),
        ("list", "-f", ""),
    ],
    ids=" ".join,
)
def test_what_the_program_knows_loads_neither_client_nor_yaml_nor_tables(
    words: tuple[str, ...],
) -> None:
    code = (
        "import os, sys\n"
        "from kubectl_harvester_stuck.cli import main as cli\n"
        f"sys.argv = ['kubectl_complete-harvester_stuck', *{list(words)!r}]\n"
        "def end(status):\n"
        "    heavy = {'kubernetes', 'urllib3', 'yaml', 'tabulate', 'dateutil', 'http.client'}\n"
        "    print(sorted(heavy & set(sys.modules)))\n"
        "    sys.exit(status)\n"
        "os._exit = end\n"
        "cli.complete()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "[]"


def timed(*words: str, environ: Mapping[str, str]) -> float:
    """Seconds until there is an answer, which is silence."""
    started = time.monotonic()
    done = program(*words, environ=environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, f":{NO_FILES}\n", "")
    return time.monotonic() - started


NAMES = [("unstick", "vm", ""), ("-n", ""), ("unstick", "--node", "")]


def configured(directory: Path, server: str, user: dict[str, Any]) -> dict[str, str]:
    """An environment with a kubeconfig for that server."""
    path = directory / "stalled"
    path.write_text(
        fastyaml.dump(
            {
                "clusters": [{"name": "c", "cluster": {"server": server}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "users": [{"name": "u", "user": user}],
                "current-context": "c",
            }
        )
    )
    return {"KUBECONFIG": str(path)}


@pytest.mark.parametrize("words", NAMES, ids=" ".join)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_stalls_costs_two_seconds_at_most(
    tmp_path: Path, scheme: str, words: tuple[str, ...]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
        environ = configured(tmp_path, server, {"token": "t"})
        start_up = timed("unstick", "--settle", "", environ=environ)
        assert timed(*words, environ=environ) - start_up < 2


def plugin(directory: Path, script: str) -> dict[str, Any]:
    """The user entry of a credential plugin that is this script."""
    path = directory / "plugin"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    version = "client.authentication.k8s.io/v1"
    return {
        "exec": {
            "command": str(path), "apiVersion": version, "interactiveMode": "IfAvailable",
            "installHint": "x",
        }
    }  # fmt: skip


def test_a_credential_plugin_that_hangs_is_not_waited_for_and_does_not_stay(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    user = plugin(tmp_path, f"exec 9> {fifo}; echo started >&9; sleep 61; echo ended >&9")
    environ = configured(tmp_path, "https://127.0.0.1:1", user)
    start_up = timed("unstick", "--settle", "", environ=environ)
    assert timed("unstick", "vm", "", environ=environ) - start_up < 2
    os.set_blocking(reader, True)
    with open(reader, "rb") as told:  # noqa: PTH123 - a descriptor
        # There is an end only once nobody is left who could write.
        assert told.read() == b"started\n"


def test_a_credential_plugin_finds_no_terminal_to_ask_at(tmp_path: Path) -> None:
    saw = tmp_path / "saw"
    user = plugin(
        tmp_path,
        f"{{ printf '%s\\n' \"$KUBERNETES_EXEC_INFO\"; test -t 0 && echo stdin; test -t 2 && echo"
        f" stderr; (: < /dev/tty) 2>/dev/null && echo tty; }} > {saw}.new; echo asks >&2;"
        f" mv {saw}.new {saw}; exit 1",
    )
    environ = {**os.environ, **configured(tmp_path, "https://127.0.0.1:1", user)}
    # As a child of something on a terminal, as it is one of kubectl.
    script = f'{sys.executable} -m kubectl_harvester_stuck {completion.COMMAND} "$@"; exit $?'
    with on_terminal(["sh", "-c", script, "-", *NAMES[0]], environ, tmp_path) as started:
        shown, _ = started.communicate()
    assert started.returncode == 0
    info, *terminals = saw.read_text().splitlines()
    assert json.loads(info)["spec"]["interactive"] is False
    assert terminals == []
    assert shown.decode().split() == [f":{NO_FILES}"]
