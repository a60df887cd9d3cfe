"""`check`, on the simulated and on the real API server, and from files of the same objects."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from examples import bundle
from kubectl_harvester_stuck.checks import CHECKS
from kubectl_harvester_stuck.errors import ExitStatus
from kubectl_harvester_stuck.k8s.kinds import LONGHORN_REPLICA, POLICY, SCHEDULE, Kind
from tests.behaviour.test_unstick import _grant
from tests.support import fastyaml, readycluster
from tests.support.builders import Body
from tests.support.readycluster import without
from tests.support.resources import RESOURCES, Resource, resource_of
from tests.support.world import Run, World, before

NOWHERE = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "nowhere"}}}
"""The webhook of this cluster has no server, so it must not be asked."""


def build(world: World, *left_out: tuple[Kind, str]) -> list[Body]:
    """Create a cluster that is ready, apart from what is left out."""
    nodes = (world.live, f"{world.live}-2", f"{world.live}-3")
    bodies = readycluster.objects(
        namespace=world.namespace, nodes=nodes, backup=before(timedelta(days=1))
    )
    for kind, name in left_out:
        bodies = without(bodies, kind, name)
    made = []
    for body in bodies:
        if body["apiVersion"] == POLICY.api_version and not serves(world, resource_of(body)):
            continue
        if body["kind"] == "ValidatingWebhookConfiguration":
            body["webhooks"][0] |= NOWHERE
        made.append(world.create(body))
    world.api.forget()
    return made


def serves(world: World, resource: Resource) -> bool:
    """Whether this API server knows the kind: the oldest has no admission policies."""
    return world.api.request("GET", resource.path(None))[0] == 200


def results(run: Run) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for item in run.json["items"]:
        found.setdefault(item["id"], set()).add(item["result"])
    return found


def test_a_cluster_that_is_ready(world: World) -> None:
    build(world)
    run = world.run("check", "-o", "json", "--exit-code")
    has_policies = serves(world, RESOURCES[POLICY.kind])
    expected = {check.id: {"ok"} for check in CHECKS}
    expected["admission-policies"] = {"ok" if has_policies else "warn"}
    assert results(run) == expected, run.out
    assert run.status is ExitStatus.OK
    document = run.json
    assert document["schema"] == "harvester-stuck/check/v1"
    assert document["context"] == "test"
    assert document["incomplete"] == []
    assert {item["theme"] for item in document["items"]} == {
        "availability", "backups", "monitoring", "shutdown", "release-path",
        "upgrade",
    }  # fmt: skip
    assert world.sent() == []
    assert {item.method for item in world.api.recorded()} == {"GET"}


def test_what_is_not_ready_is_told_with_evidence_and_what_to_do(world: World) -> None:
    build(world, (SCHEDULE, "daily-web"), (LONGHORN_REPLICA, "pvc-web-r-2"),
          (LONGHORN_REPLICA, "pvc-web-r-3"))  # fmt: skip
    run = world.run("check", "-o", "json")
    assert run.status is ExitStatus.OK
    (replicas,) = [item for item in run.json["items"] if item["id"] == "volume-replicas"]
    assert replicas["result"] == "fail"
    assert {"object", "field", "value"} == set(replicas["evidence"][0])
    assert "longhornvolume=pvc-web" in replicas["todo"][0]
    assert results(run)["backup-schedule"] == {"warn"}
    assert world.run("check", "--exit-code").status is ExitStatus.STUCK
    table = world.run("check")
    assert re.match(r"(?:[1-9]\d* (?:FAIL|UNKNOWN|WARN|OK)(?:, |\n))+", table.out)
    assert "FAIL     volume-replicas: " in table.out
    assert "Volume longhorn-system/pvc-web" not in table.out
    wide = world.run("check", "-o", "wide").out
    assert "Volume longhorn-system/pvc-web: healthy replicas: 1 on" in wide
    assert replicas["todo"][0] in wide
    for line in world.run("check", environ=world.environ(COLUMNS="80")).out.splitlines():
        assert len(line) <= 80 or " kubectl " in line, line
    assert world.run("check", "-o", "name").out.splitlines() == [check.id for check in CHECKS]
    assert world.run("check", "-o", "yaml", "--no-headers").out.startswith("schema:")


def test_the_vms_are_those_of_the_namespace_or_of_all(world: World) -> None:
    build(world)
    other = f"{world.namespace}-other"
    for body in readycluster.guest(other, "db", f"{world.live}-2"):
        world.create(body)
    assert results(world.run("check", "-o", "json"))["recent-backup"] == {"ok"}
    for words in (("-A",), ("-n", other)):
        run = world.run("check", *words, "-o", "json")
        assert results(run)["recent-backup"] == {"fail"}
        assert f"{other}/db" in run.out
    assert results(world.run("check", "--backup-age", "1h", "-o", "json"))["recent-backup"] == {
        "fail"
    }


def test_what_may_not_be_read_is_unknown(world: World) -> None:
    build(world)
    _grant(world, "bob", (["kubevirt.io"], ["*"], ["get", "list"]))
    run = world.run("check", "-o", "json", "--exit-code", user="bob")
    assert run.status is ExitStatus.INCOMPLETE
    found = results(run)
    assert found["guest-agent"] == {"ok"}
    assert found["nodes-ready"] == found["recent-backup"] == {"unknown"}
    assert "nodes" in {item["resource"] for item in run.json["incomplete"]}
    nobody = world.run("check", "-A", "-o", "json", user="alice")
    assert nobody.status is ExitStatus.ERROR
    assert set().union(*results(nobody).values()) == {"unknown"}


def test_files_of_the_same_objects_give_the_same_answer(world: World, tmp_path: Path) -> None:
    made = build(world, (SCHEDULE, "daily-web"))
    spaces = {body["metadata"].get("namespace") for body in made} - {None}
    named = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": name}}
        for name in spaces
    ]
    path = bundle.write(
        tmp_path / "bundle.zip", [*made, *named], collected=spaces, created=before(timedelta(0))
    )
    live = world.run("check", "-o", "json", "-A").json["items"]
    run = world.run("check", "-o", "json", "-f", str(path))
    assert run.json["incomplete"] == []
    assert [story(item) for item in run.json["items"]] == [story(item) for item in live]


def story(item: Any) -> Any:
    """An item without what belongs to the API server that it came from: its own APIs."""
    if item["id"] == "aggregated-apis":
        return item["result"]
    return item


@pytest.mark.parametrize("command", [("--print-rules",), ("--print-rules", "-o", "json")])
def test_the_rules_are_printed_without_a_cluster(world: World, command: tuple[str, ...]) -> None:
    run = world.run("check", *command, environ={"HOME": "/nonexistent", "PATH": ""})
    assert run.status is ExitStatus.OK
    rules = fastyaml.load(run.out)
    assert rules["kind"] == "PrometheusRule"
    assert world.api.recorded() == []
    world.create(rules)
