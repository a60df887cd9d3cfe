"""TAB completion of what only the cluster knows."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from unittest import mock

import pytest

from kubectl_harvester_stuck.cli import completion
from kubectl_harvester_stuck.cli.main import cli
from kubectl_harvester_stuck.errors import ExitStatus
from tests.behaviour.conftest import Kubectl
from tests.support import builders, fastyaml
from tests.support.builders import VM_FINALIZER
from tests.support.world import Body, World

NO_FILES = ":4"

Complete = Callable[..., dict[str, str]]


@pytest.fixture
def complete(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Complete]:
    """The candidates with their descriptions. Nothing may have been changed."""
    # How long it may take is not for this machine to fail at, however busy it is.
    monkeypatch.setattr(completion, "SECONDS", 60)

    def call(*words: str, environ: Mapping[str, str] | None = None) -> dict[str, str]:
        with mock.patch.dict(os.environ, environ or world.environ(), clear=True):
            *lines, directive = completion.answer(cli, list(words)).splitlines()
        assert directive == NO_FILES
        return dict(line.partition("\t")[::2] for line in lines)

    world.api.forget()
    yield call
    asked = [item for item in world.api.recorded() if "harvester-stuck" in item.user_agent]
    assert {item.method for item in asked} <= {"GET"}


def test_kubectl_shows_what_the_program_offers(run: Kubectl, world: World) -> None:
    world.delete(world.vm())
    for words in (["un"], ["unstick", "vm", ""], ["unstick", "vm/w"]):
        for _ in range(10):  # a machine that is busy takes longer than somebody at a shell waits
            done = run("__complete", "harvester-stuck", *words)
            assert done.returncode == 0, done.stderr
            *lines, directive = done.stdout.splitlines()
            assert directive == NO_FILES
            if lines:
                break
        (line,) = lines
        assert re.match(r"(unstick\tRelease|(vm/)?web\tTerminating) ", line)
    files = run("__complete", "harvester-stuck", "restore", "")
    assert files.stdout == ":0\n"


@pytest.fixture
def stuck(world: World) -> Body:
    """A VM that is Terminating, one that is not, and an instance that is."""
    world.vm("alive")
    world.delete(world.vmi(None, "lonely"))
    return world.delete(world.vm("web"))


@pytest.mark.usefixtures("stuck")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("unstick vm ", {"web"}),
        ("diagnose vms w", {"web"}),
        ("diagnose VirtualMachine.kubevirt.io w", {"web"}),
        ("unstick vm/", {"vm/web"}),
        ("unstick VMs/w", {"VMs/web"}),
        ("unstick vmi ", {"lonely"}),
        ("unstick ", {"vm", "vmi", "web"}),
        ("diagnose w", {"web"}),
        ("unstick other ", {"web"}),
        ("unstick web ", set()),
        ("unstick nowhere/", set()),
        ("diagnose vmi/l", {"vmi/lonely"}),
        ("unstick -o json --yes vm ", {"web"}),
        ("unstick vm a", set()),
        ("unstick vm web ", set()),
        ("unstick vm/web vm/", set()),
        ("unstick vm/other ", {"vm/web"}),
        ("unstick vm -A ", set()),
        ("diagnose -f dump.yaml vm ", set()),
        ("restore vm ", set()),
        ("list vm ", {"vm", "vmi"}),
    ],
)
def test_only_names_that_can_stand_there_are_offered(
    complete: Complete, words: str, expected: set[str]
) -> None:
    assert set(complete(*words.split(" "))) == expected


def test_a_name_comes_with_state_and_age(complete: Complete, stuck: Body) -> None:
    assert re.fullmatch(r"Terminating \d+s", complete("unstick", "vm", "")["web"])
    assert stuck["metadata"]["name"] == "web"


@pytest.mark.usefixtures("stuck")
def test_the_words_before_choose_the_cluster_and_the_namespace(
    complete: Complete, world: World
) -> None:
    here, other = world.namespace, f"{world.namespace}-other"
    world.delete(world.create(builders.vm(other, "db", (VM_FINALIZER,))))
    elsewhere = world.directory / "elsewhere"
    content = fastyaml.load(world.kubeconfig().read_text())
    content["contexts"].append({"name": "void", "context": {"cluster": "void"}})
    content["clusters"].append({"name": "void", "cluster": {"server": "https://127.0.0.1:1"}})
    content["current-context"] = "void"
    elsewhere.write_text(fastyaml.dump(content))
    void = {**world.environ(), "KUBECONFIG": str(elsewhere)}
    try:
        for words in (
            ["-n", other, "unstick"],
            ["unstick", "-n", other],
            ["unstick", f"-n={other}"],
        ):
            assert set(complete(*words, "vm", "")) == {"db"}
        assert set(complete("unstick", f"{other}/")) == {f"{other}/db"}
        assert set(complete("unstick", f"vm/{other}/d")) == {f"vm/{other}/db"}
        assert set(complete("unstick", "vm", f"{other}/")) == {f"{other}/db"}
        assert complete("unstick", "vm", "", environ=void) == {}
        chosen = ["unstick", "--context", "test", "-n", here]
        assert set(complete(*chosen, "vm", "", environ=void)) == {"web"}
        given = ["--kubeconfig", str(world.kubeconfig())]
        assert set(complete(*given, "unstick", "vm/", environ=void)) == {"vm/web"}
    finally:
        world.api.wipe(other)


def test_undo_files_are_offered_by_the_names_of_their_vms(world: World) -> None:
    world.delete(world.vm("web"))
    assert world.unstick("--yes").status is ExitStatus.OK
    name = f"{world.namespace}/web"
    with mock.patch.dict(os.environ, world.environ(), clear=True):
        for words, directive in (
            (["restore", ""], ":0"),
            (["restore", name[:3]], ":0"),
            (["restore", "vm", ""], NO_FILES),
            (["restore", "-n", world.namespace, "vm", ""], NO_FILES),
        ):
            line, last = completion.answer(cli, words).splitlines()
            assert line.startswith(f"{name}\tsaved 20")
            assert last == directive
        for words in (["restore", "-n", "other", "vm", ""], ["restore", "vm", "x"]):
            assert completion.answer(cli, words) == f"{NO_FILES}\n"
        assert completion.answer(cli, ["restore", name, ""]) == f"{NO_FILES}\n"


def test_namespaces_and_nodes_are_those_of_the_cluster(complete: Complete, world: World) -> None:
    world.dead_node()
    world.vm()
    for words in (["-n"], ["list", "--namespace"]):
        assert world.namespace in complete(*words, "")
    assert set(complete("list", f"--namespace={world.namespace[:-1]}")) >= {world.namespace}
    for flag in ("--node", "--node-powered-off"):
        assert set(complete("unstick", flag, world.dead)) == {world.dead}


def test_finalizers_that_are_not_in_the_catalogue_are_offered_where_they_hold_something(
    complete: Complete, world: World
) -> None:
    world.delete(world.vm("web", VM_FINALIZER, "example.com/mine"))
    found = complete("unstick", "vm", "web", "--finalizer", "")
    assert found["example.com/mine"] == "not in the catalogue"
    assert found[VM_FINALIZER] not in ("", "not in the catalogue")
    assert "example.com/mine" not in complete("unstick", "vm", "web", "--leave-behind", "")
    assert "example.com/mine" not in complete("unstick", "-n", "void", "vm", "--finalizer", "")
    assert "example.com/mine" in complete("unstick", "-n", "void", "-A", "vm", "--finalizer", "")


@pytest.mark.usefixtures("stuck")
def test_what_may_not_be_read_is_silence(complete: Complete, world: World) -> None:
    environ = world.environ("alice")
    for words in (["unstick", "vm"], ["-n"], ["unstick", "--node"]):
        assert complete(*words, "", environ=environ) == {}


def test_a_server_that_is_not_there_is_silence(complete: Complete) -> None:
    for words in (["unstick", "vm"], ["-n"], ["unstick", "--node"]):
        assert complete("-s", "https://127.0.0.1:1", *words, "") == {}
