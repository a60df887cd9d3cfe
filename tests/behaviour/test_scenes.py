"""Scenes of tests/scenarios once more, in the simulated and the real server, at the present time.

Told are those in which a guest might start twice, or more than the VM would go. What they expect of
a release is looked at; what takes the time of the story, as a verdict does, is not.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests import test_scenarios as scenes
from tests.behaviour.test_stories import tell
from tests.support import builders, fastyaml, readycluster
from tests.support.builders import Body
from tests.support.resources import RESOURCES
from tests.support.world import QUICK, World

SCENES = (
    "code-balancer-of-another-cluster",
    "code-claim-that-does-not-block",
    "code-data-volume-templates",
    "code-hostname-of-another",
    "code-interface-never-observed",
    "code-label-alone",
    "code-migration-without-guest",
    "code-namesake-elsewhere",
    "code-ready-but-stale",
    "code-restored-beside-original",
    "code-snapshot-half-gone",
    "harvester-6668",
    "kubernetes-69060",
    "kubevirt-10807",
    "kubevirt-12587",
    "kubevirt-12835",
    "kubevirt-14882",
    "kubevirt-16622",
    "kubevirt-5657",
    "kubevirt-8104-earlier-hop",
    "kubevirt-8104-failed-migration",
    "kubevirt-9592",
)
PARTS = ("spec", "status")
LOOKS = (
    scenes._the_guard,
    scenes._what_goes_and_what_stays,
    scenes._what_is_left_alone,
    scenes._what_must_not_be_said,
)


def whole(body: Body) -> Body:
    """The object with what a real API server demands, and no scene needs."""
    name = body["metadata"]["name"]
    model = {
        "DaemonSet": lambda: readycluster.virt_handler(1),
        "Deployment": lambda: builders.deployment(name),
        "PersistentVolume": lambda: builders.volume(name),
        "PersistentVolumeClaim": lambda: {**builders.pvc("", name), "status": {"phase": "Bound"}},
    }.get(body["kind"])
    parts = {key: value for key, value in model().items() if key in PARTS} if model else {}
    return {**body, **{key: {**value, **body.get(key, {})} for key, value in parts.items()}}


def is_ending(body: Body) -> bool:
    """Whether it is a pod that a server would not keep when it is deleted: one that has ended."""
    final = body.get("status", {}).get("phase") in ("Succeeded", "Failed")
    return body["kind"] == "Pod" and final and "deletionTimestamp" in body["metadata"]


def told_to(world: World, scenario: dict[str, Any]) -> scenes.Told:
    """What the program says to the scene in this world."""
    namespace = scenario["namespace"]
    bodies = [whole(body) for body in scenes.objects(scenario)]
    ended = [body for body in bodies if is_ending(body)]
    unended = [{**body, "status": {**body["status"], "phase": "Running"}} if body in ended else body
               for body in bodies]  # fmt: skip
    tell(world, unended, now=scenes._time(scenario["now"]), namespace=namespace)
    for body in ended:
        path = RESOURCES["Pod"].path(world.namespace, body["metadata"]["name"])
        phase = {"status": {"phase": body["status"]["phase"]}}
        status, answer = world.api.request("PATCH", f"{path}/status", phase,
                                           content_type="application/merge-patch+json")  # fmt: skip
        assert status == 200, answer
    kind, _, name = scenario["target"].partition("/")
    flags = scenario["expect"]["unstick"]["flags"]
    diagnosis = world.run("diagnose", scenario["target"], "--no-logs", "-o", "json")
    release = world.run("unstick", kind, name, *flags, *QUICK, "--dry-run=client", "-o", "json")
    expect = fastyaml.load(
        fastyaml.dump(scenario["expect"]).replace(f" {namespace}/", f" {world.namespace}/")
    )
    return scenes.Told({**scenario, "expect": expect}, diagnosis, diagnosis, diagnosis, diagnosis,
                       None, release, [], [])  # fmt: skip


@pytest.mark.parametrize("name", SCENES)
def test_a_scene_is_judged_as_its_story_calls_for(world: World, name: str) -> None:
    scenario = fastyaml.load((scenes.SCENARIOS / f"{name}.yaml").read_text())
    told = told_to(world, scenario)
    assert told.diagnosis.item["target"]["name"], told.diagnosis.err
    found = [why for look in LOOKS for why in look(told)]
    states = {one["name"]: one["state"] for one in told.diagnosis.item["finalizers"]}
    for finalizer, state in told.expect.get("finalizerStates", {}).items():
        if states.get(finalizer) != state:
            found.append(f"{finalizer} is {states.get(finalizer)}, and not {state}")
    assert not found, "\n".join(found)
    assert world.sent() == []
