"""Every finding and every guard once more, with its objects in the simulated and the real server.

The stories are those of tests/test_findings.py and tests/test_guards.py. They are told to a server
here: created, then deleted as far as they are being deleted, with the uids that the server gives.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from kubectl_harvester_stuck.cluster.client import Cluster
from kubectl_harvester_stuck.connection import kubeconfig
from kubectl_harvester_stuck.connection.transport import Transport
from kubectl_harvester_stuck.diagnosis import run as examine
from kubectl_harvester_stuck.diagnosis.model import Diagnosis
from kubectl_harvester_stuck.errors import ExitStatus
from kubectl_harvester_stuck.k8s.objects import ObjectRef
from kubectl_harvester_stuck.release import preflight
from kubectl_harvester_stuck.release.model import GuardState, ReleaseRequest
from tests.support import builders
from tests.support.builders import NOW, Body
from tests.support.resources import path_of
from tests.support.world import World
from tests.test_findings import SEEN
from tests.test_guards import SCENES

# What a server cannot be brought to show in this way. Reads that fail are tested with rights that
# are missing, logs with faults, the API server's own answers in test_unstick.py. The aggregator
# writes the status of an APIService itself, and a pod that is unbound or whose phase is final goes
# at once when it is deleted. What needs the grace period to be over would take that long; guests
# whose end virt-handler saw are in test_unstick.py. Harvester's own namespace is shared by all
# tests.
ELSEWHERE = {
    "guest-runs",
    "sign-unreadable",  # a real API server records when it stored the sign
    "no pod, and the node answers",
    "settling",
    "owner-says",
    "aggregated-api-down",
    "a pod that was never bound to a node",
    "a pod whose phase is Failed while its container is not terminated",
    "Harvester's namespace",
    "Harvester's namespace, overridden",
}
ANSWERED_BY_THE_SERVER = {"permitted", "webhooks-accept", "past-grace"}
# Found only once the controllers had their time.
NOT_AT_ONCE = {"ready-to-release", "webhook-denies", "owner-lags"}
TOLD = {name: seen for name, (_, seen, _) in SEEN.items() if name not in ELSEWHERE}
ASKED = {
    name: (guard, verdict, scene)
    for name, (guard, verdict, scene) in SCENES.items()
    if verdict is not GuardState.UNKNOWN
    and not scene().unreadable
    and scene().shown is None
    and guard not in ANSWERED_BY_THE_SERVER
    and name not in ELSEWHERE
}


def tell(world: World, bodies: list[Body], *, now: datetime = NOW, namespace: str = "shop") -> None:
    """Bring the objects into the server: `namespace` is this world's, `now` is now."""
    shift = datetime.now(timezone.utc) - now
    uids: dict[str, str] = {}
    waiting = False
    made: list[tuple[Body, Body]] = []

    def here(body: Body) -> Body:
        text = json.dumps(_later(body, shift, f"{now:%Y}"))
        text = text.replace(f'"{namespace}"', f'"{world.namespace}"')
        text = text.replace(f'"{namespace}/', f'"{world.namespace}/')
        for old, new in uids.items():
            text = text.replace(f'"{old}"', f'"{new}"')
        told: Body = json.loads(text)
        return told

    for body in bodies:
        wanted = here(body)
        meta = {
            key: value
            for key, value in wanted["metadata"].items()
            if key not in ("uid", "resourceVersion") and not key.startswith("deletion")
        }
        stored = world.create({**wanted, "metadata": meta})
        if uid := body["metadata"].get("uid"):
            uids[uid] = stored["metadata"]["uid"]
        made.append((body, stored))
    for body, stored in made:
        _rename_pods(world, stored, here(body).get("status", {}).get("activePods", {}))
        when = body["metadata"].get("deletionTimestamp")
        if when is None:
            continue
        is_pod = body["kind"] == "Pod"
        grace = 600 if when > builders.time(now) else 1
        world.delete(stored, **({"gracePeriodSeconds": grace} if is_pod else {}))
        waiting = waiting or (is_pod and grace == 1)
    if waiting:
        time.sleep(1.5)  # until the pods are past their grace period


def _rename_pods(world: World, instance: Body, pods: Mapping[str, str]) -> None:
    """Let a VMI name its pods by the uids that they have here."""
    known = instance.get("status", {}).get("activePods", {})
    if pods == known:
        return
    status, answer = world.api.request(
        "PATCH",
        path_of(instance),
        {"status": {"activePods": {**dict.fromkeys(known), **pods}}},
        content_type="application/merge-patch+json",
    )
    assert status == 200, answer


def _later(value: object, shift: timedelta, year: str) -> object:
    """Every time of the story, moved to the present."""
    if isinstance(value, dict):
        return {key: _later(item, shift, year) for key, item in value.items()}
    if isinstance(value, list):
        return [_later(item, shift, year) for item in value]
    if isinstance(value, str) and value[:4] == year and value.endswith("Z"):
        moved = datetime.fromisoformat(value.replace("Z", "+00:00")) + shift
        return f"{moved:%Y-%m-%dT%H:%M:%S}{'.000000' if '.' in value else ''}Z"
    return value


def diagnose(world: World, ref: ObjectRef) -> Any:
    """What `diagnose` says of the target, right after its deletion."""
    run = world.run("diagnose", f"{ref.kind.plural}/{ref.name}", "--no-logs", "-o", "json")
    assert run.status is ExitStatus.OK, run.out + run.err
    return run.item


def examined(world: World, ref: ObjectRef, request: ReleaseRequest) -> Diagnosis:
    """The same for a request that `diagnose` has no flags for."""
    path: Path = world.kubeconfig()
    found = kubeconfig.load(kubeconfig.ConfigOverrides(kubeconfig=str(path)), {})
    transport = Transport(
        found, timeout=10, user_agent="kubectl-harvester-stuck/test", on_warning=lambda _: None
    )
    target = ObjectRef(world.namespace, ref.name, ref.kind)
    cluster = Cluster(transport)
    done = examine.diagnose_all(
        cluster, [target], request, rights=preflight.Permissions(cluster), logs=False
    )
    assert not done.failures
    return done.diagnoses[0]


@contextmanager
def happening(world: World, name: str) -> Iterator[ObjectRef]:
    """The situation, for as long as the block runs; its target."""
    told = TOLD[name]()
    workloads = [builders.stored(builders.deployment(name)) for name in told.controllers]
    tell(world, [*told.bodies, *workloads])
    denial = None
    if told.deny:
        words = told.deny.partition("denied the request: ")[2]
        denial = world.api.deny_updates("virtualmachines", words, namespace=world.namespace)
    try:
        yield told.ref
    finally:
        if denial is not None:
            denial.remove()
    assert world.sent() == []


@pytest.mark.parametrize("name", sorted(TOLD.keys() - NOT_AT_ONCE))
def test_a_situation_is_found(world: World, name: str) -> None:
    with happening(world, name) as ref:
        assert name in {finding["id"] for finding in diagnose(world, ref)["findings"]}


@pytest.mark.in_process("for diagnose itself the target settles for five minutes")
@pytest.mark.parametrize("name", sorted(NOT_AT_ONCE))
def test_a_situation_of_what_has_settled_is_found(world: World, name: str) -> None:
    with happening(world, name) as ref:
        seen = examined(world, ref, ReleaseRequest(older_than=timedelta(0)))
    assert name in {item.id for item in seen.findings}


@pytest.mark.parametrize(
    "name", [name for name in ASKED if ASKED[name][2]().request == ReleaseRequest()]
)
def test_a_guard_answers(world: World, name: str) -> None:
    guard, verdict, scene = ASKED[name]
    told = scene()
    tell(world, told.bodies)
    (result,) = [item for item in diagnose(world, told.ref)["guards"] if item["id"] == guard]
    assert result["result"] == verdict.value, result["reason"]
    assert world.sent() == []


@pytest.mark.in_process(
    "diagnose has no flags for these requests, and unstick does not tell a pass"
)
@pytest.mark.parametrize(
    "name", [name for name in ASKED if ASKED[name][2]().request != ReleaseRequest()]
)
def test_a_guard_answers_what_was_asked(world: World, name: str) -> None:
    guard, verdict, scene = ASKED[name]
    told = scene()
    tell(world, told.bodies)
    seen = examined(world, told.ref, replace(told.request, older_than=timedelta(0)))
    result = {item.guard: item for item in seen.plan.guards}[guard]
    assert result.verdict is verdict, result.reason
    assert world.sent() == []
