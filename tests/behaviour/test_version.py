"""`version`, on the simulated and on the real API server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from kubectl_harvester_stuck import __version__
from kubectl_harvester_stuck.cluster import versions
from kubectl_harvester_stuck.cluster.client import Cluster
from kubectl_harvester_stuck.errors import ApiError, ExitStatus
from kubectl_harvester_stuck.k8s.objects import ObjectRef
from tests.behaviour.test_unstick import _grant
from tests.support import fastyaml
from tests.support.world import World

HERE = rf"Client Version: {re.escape(__version__)}\nKubernetes Client: \d+\.\d+\S*\n"
SETTING_TYPE = {"apiVersion": "harvesterhci.io/v1beta1", "kind": "Setting"}
SERVER = r"Server Version: v1\.\d+\.\d+\n"


def server_version(world: World, **value: Any) -> None:
    """The Setting in which Harvester says its version."""
    world.create(
        {
            **SETTING_TYPE,
            "metadata": {"name": "server-version"},
            **value,
        }
    )


@pytest.mark.parametrize("value", [{"value": "v1.6.1"}, {"value": "", "default": "v1.6.1"}])
def test_it_says_all_four(world: World, value: dict[str, str]) -> None:
    server_version(world, **value)
    run = world.run("version")
    assert re.fullmatch(f"{HERE}{SERVER}Harvester Version: v1\\.6\\.1\n", run.out), run.out
    assert (run.status, run.err) == (ExitStatus.OK, "")
    document = world.run("version", "-o", "json").json
    assert document["schema"] == "harvester-stuck/version/v1"
    assert document["clientVersion"] == __version__
    assert document["serverVersion"].startswith("v1.")
    assert (document["harvesterVersion"], document["incomplete"]) == ("v1.6.1", [])
    assert fastyaml.load(world.run("version", "-o", "yaml").out) == document


def test_a_cluster_without_the_setting_has_none(world: World) -> None:
    run = world.run("version")
    assert re.fullmatch(f"{HERE}{SERVER}Harvester Version: <none>\n", run.out), run.out
    assert run.status is ExitStatus.OK


def test_a_setting_that_may_not_be_read_is_unknown(world: World) -> None:
    server_version(world, value="v1.6.1")
    run = world.run("version", user="bob")
    assert re.fullmatch(f"{HERE}{SERVER}Harvester Version: <unknown>\n", run.out), run.out
    assert run.status is ExitStatus.INCOMPLETE
    said = " ".join(run.err.split())
    assert said.startswith(
        "could not read setting.harvesterhci.io/server-version: Forbidden: settings.harvester"
    )
    assert "-n NAMESPACE" not in said
    assert "all namespaces" not in said
    document = world.run("version", "-o", "json", user="bob").json
    assert document["harvesterVersion"] is None
    assert [(item["reason"], item["namespace"]) for item in document["incomplete"]] == [
        ("Forbidden", None)
    ]


def test_a_user_may_be_allowed_to_read_that_setting_alone(world: World) -> None:
    server_version(world, value="v1.6.1")
    _grant(world, "bob", (["harvesterhci.io"], ["settings"], ["get"]))
    assert world.run("version", user="bob").status is ExitStatus.OK


def test_a_value_cannot_speak_to_the_terminal(world: World) -> None:
    server_version(world, value="v1.6.1\x1b[2J\nServer Version: v9")
    run = world.run("version")
    assert "\x1b" not in run.out
    assert len(run.out.splitlines()) == 4


class Alone(Cluster):
    """A cluster that answers for one Setting."""

    def __init__(self, answer: Mapping[str, Any] | ApiError) -> None:
        self.answer = answer

    def version(self) -> str:
        return "v1.35.4"

    def get(self, ref: ObjectRef, **_: bool) -> Mapping[str, Any]:
        if isinstance(self.answer, ApiError):
            raise self.answer
        meta = {"name": ref.name, "uid": "u", "resourceVersion": "1"}
        return {**SETTING_TYPE, "metadata": meta, **self.answer}


def test_a_value_that_is_no_text_is_unknown() -> None:
    found = versions.there(Alone({"value": 16}))
    assert found.harvester is None
    assert [item.reason for item in found.missing] == ["Unreadable"]


@pytest.mark.parametrize(("reason", "gaps"), [("NotServed", 0), ("NotFound", 0), ("", 1)])
def test_only_the_api_servers_own_404_says_that_there_are_no_settings(
    reason: str, gaps: int
) -> None:
    found = versions.there(Alone(ApiError(404, reason, "not found")))
    assert (found.harvester, len(found.missing)) == (None, gaps)


def test_no_cluster_is_asked_with_client(world: World) -> None:
    run = world.run("version", "--client", "--kubeconfig", "/nonexistent")
    assert re.fullmatch(HERE, run.out)
    assert run.status is ExitStatus.OK
    document = world.run("version", "--client", "-o", "json").json
    assert (document["serverVersion"], document["harvesterVersion"]) == (None, None)
    assert world.api.recorded() == []


def test_without_a_cluster_the_versions_here_are_said_all_the_same(world: World) -> None:
    run = world.run("version", "--server", "https://127.0.0.1:1")
    assert re.fullmatch(HERE, run.out)
    assert run.status is ExitStatus.ERROR
    assert "refused" in run.err
    run = world.run("version", "--server", "https://127.0.0.1:1", "-o", "json")
    assert run.json["error"]["exitStatus"] == ExitStatus.ERROR
