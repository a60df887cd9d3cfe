"""The program as the operator of deploy/rbac.yaml, with deploy/admission.yaml in force.

On the real API server: the simulated one knows no CEL.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_harvester_stuck.errors import ExitStatus
from kubectl_harvester_stuck.harvester.admission_policies import CURE_OF_OTHERS, CURES, NAMES
from kubectl_harvester_stuck.release import plan as planning
from tests import test_scenarios as scenes
from tests.behaviour.test_scenes import told_to
from tests.components.controlplane.server import MERGE_PATCH, ControlPlane
from tests.support import builders, fastyaml
from tests.support.resources import RESOURCES, path_of, resource_of
from tests.support.world import QUICK, Body, Run, World, check_patches

DEPLOY = Path(__file__).parent.parent / "deploy"
RBAC = "rbac.authorization.k8s.io"
OPERATOR = "ops"
PATCH, DELETE, CREATE = NAMES
_number = itertools.count(1)


def manifests(file: str) -> list[Body]:
    """The objects of a manifest."""
    return list(fastyaml.load_all((DEPLOY / file).read_text()))


def bindings() -> Iterator[Body]:
    """What makes the user an operator."""
    who = [{"apiGroup": RBAC, "kind": "User", "name": OPERATOR}]
    for prefix, role, where in (
        ("Cluster", "harvester-stuck-operator", {}),
        ("", "harvester-stuck-owners", {"namespace": "harvester-system"}),
    ):
        yield {
            "apiVersion": f"{RBAC}/v1",
            "kind": f"{prefix}RoleBinding",
            "metadata": {"name": f"{role}-{OPERATOR}", **where},
            "roleRef": {"apiGroup": RBAC, "kind": f"{prefix}Role", "name": role},
            "subjects": who,
        }


def until(ready: Callable[[], bool]) -> None:
    """Wait for the caches of the API server."""
    deadline = time.monotonic() + 30
    while not ready():
        assert time.monotonic() < deadline, "it never came into force"
        time.sleep(0.1)


def send(api: ControlPlane, method: str, path: str, body: Body, *accepted: int) -> None:
    """As administrator."""
    status, answer = api.request(method, path, body)
    assert status in accepted, answer


@pytest.fixture(scope="module")
def held(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """The API server with roles and policies as they are applied."""
    made = [*manifests("rbac.yaml"), *bindings(), *manifests("admission.yaml")]
    for name in ("harvester-system", "longhorn-system"):
        space = {"metadata": {"name": name}}
        send(control_plane, "POST", "/api/v1/namespaces", space, 201, 409)
    for body in made:
        path = resource_of(body).path(body["metadata"].get("namespace"))
        send(control_plane, "POST", path, body, 201, 409)

    def rejects() -> bool:
        running = builders.vm("default", "probe", ())
        path = resource_of(running).path("default")
        status, answer = control_plane.request(
            "POST", f"{path}?dryRun=All", running, headers={"Impersonate-User": OPERATOR}
        )
        return status == 403 and CREATE in answer["message"]

    until(rejects)  # the policy that was made last
    yield control_plane
    for body in reversed(made):
        send(control_plane, "DELETE", path_of(body), {}, 200)
    until(lambda: not rejects())


@pytest.fixture
def world(held: ControlPlane, tmp_path: Path) -> Iterator[World]:
    """A namespace of its own."""
    number = next(_number)
    place = World(held, tmp_path, f"held-{number}", f"held-{number}-dead", f"held-{number}-live")
    held.forget()
    yield place
    check_patches(place.sent(), restored=place.restored)
    held.wipe(place.namespace)


def run(world: World, *words: str) -> Run:
    """A command as the operator."""
    return world.run(*words, "-o", "json", "--as", OPERATOR)


def unstick(world: World, *words: str) -> Run:
    """A release without waiting, as the operator."""
    return run(world, "unstick", *words, *QUICK)


def test_a_power_cut_is_released_and_restored(world: World) -> None:
    machine, instance, launcher = world.power_cut()
    holder = builders.attachment_pod(world.namespace, "hp-volume", world.dead, launcher, instance)
    world.delete(world.create(holder), gracePeriodSeconds=1)
    off = ("--node-powered-off", world.dead)
    dry = unstick(world, "vm", "web", *off, "--dry-run=server")
    assert (dry.status, dry.item["outcome"]) == (ExitStatus.OK, "planned"), dry.out + dry.err
    done = unstick(world, "vm", "web", *off, "--yes")
    assert (done.status, done.item["outcome"]) == (ExitStatus.OK, "gone"), done.out + done.err
    actions = [step["action"] for step in done.item["steps"]]
    assert actions == ["delete-pod", "delete-pod", "patch", "patch"]
    assert not [body for body in (machine, instance, launcher) if world.now(body)]
    again = run(world, "restore", done.item["backup"], "--yes")
    assert (again.status, again.item["outcome"]) == (ExitStatus.OK, "created"), again.out
    assert {item.impersonated_user for item in world.sent()} == {OPERATOR}


def test_what_is_large_stays_below_the_limits_of_cost(world: World) -> None:
    init = {"name": "init", "cloudInitNoCloud": {"userData": "#" * 900_000}}
    disks = [{"name": f"disk-{number}", "emptyDisk": {"capacity": "1Gi"}} for number in range(200)]
    notes = {f"example.com/note-{number}": "x" * 2_000 for number in range(100)}
    spec = builders.with_disks(volumes=[init, *disks])
    world.delete(world.vm("web", spec=spec, annotations=notes))
    done = unstick(world, "vm", "web", "--yes")
    assert (done.status, done.item["outcome"]) == (ExitStatus.OK, "gone"), done.err
    again = run(world, "restore", done.item["backup"], "--yes")
    assert (again.status, again.item["outcome"]) == (ExitStatus.OK, "created"), again.err


def test_an_api_server_says_of_a_kind_that_it_does_not_know_it(held: ControlPlane) -> None:
    """As one before 1.30 does of policies, which `check` has to tell from one without any."""
    path = resource_of(manifests("admission.yaml")[0]).path(None)
    status, answer = held.request("GET", path.replace("policies", "oddities"))
    assert (status, answer["reason"]) == (404, "NotFound")


def test_a_restore_that_is_rejected_says_who_may(world: World) -> None:
    template = {"metadata": {"name": "disk"}, "spec": {"pvc": {}}}
    world.delete(world.vm("web", spec={"dataVolumeTemplates": [template]}))
    done = unstick(world, "vm", "web", "--yes")
    assert done.status is ExitStatus.OK, done.out + done.err
    again = run(world, "restore", done.item["backup"], "--yes")
    assert (again.status, again.item["outcome"]) == (ExitStatus.REFUSED, "denied"), again.out
    assert CREATE in again.out
    assert CURES[CREATE] in again.out
    assert [item.method for item in world.sent()] == ["PATCH"]
    as_admin = world.run("restore", done.item["backup"], "--yes", "-o", "json")
    assert as_admin.item["outcome"] == "created"


@pytest.mark.in_process
def test_a_bug_of_the_program_is_held_and_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The patch is spoilt inside the program."""
    made = planning.patch_of

    def spoilt(*subject: Any) -> dict[str, object]:
        body: Any = made(*subject)
        return {**body, "metadata": {**body["metadata"], "labels": {"spoilt": "yes"}}}

    monkeypatch.setattr(planning, "patch_of", spoilt)
    machine = world.delete(world.vm())
    refused = unstick(world, "vm", "web", "--yes")
    assert (refused.status, refused.item["outcome"]) == (ExitStatus.REFUSED, "denied")
    (refusal,) = refused.item["refusals"]
    assert refusal["guard"] == "webhooks-accept"
    assert f"ValidatingAdmissionPolicy '{PATCH}'" in refusal["reason"]
    assert refusal["reason"].endswith(CURES[PATCH])
    assert world.version(machine) == machine["metadata"]["resourceVersion"]
    assert world.sent() == []


def test_the_policy_of_somebody_else_is_not_taken_for_ours(world: World) -> None:
    name = f"others-{world.namespace}"
    machine = world.delete(world.vm())
    policy, binding = (body for body in manifests("admission.yaml") if PATCH in str(body))
    policy["metadata"]["name"] = binding["metadata"]["name"] = name
    policy["spec"]["matchConditions"] = [
        {"name": "here", "expression": f"request.namespace == '{world.namespace}'"}
    ]
    policy["spec"]["validations"] = [{"expression": "false", "message": "not today"}]
    binding["spec"]["policyName"] = name
    for body in (policy, binding):
        world.create(body)
    until(lambda: "not today" in str(unstick(world, "vm", "web", "--dry-run=server").out))
    refused = unstick(world, "vm", "web", "--yes")
    (refusal,) = refused.item["refusals"]
    assert f"denied request: not today; {CURE_OF_OTHERS}" in refusal["reason"]
    for body in (binding, policy):
        world.api.delete(body)
    bare: Body = {"metadata": {"finalizers": []}}
    until(lambda: world.api.request("PATCH", path_of(machine), bare, content_type=MERGE_PATCH)[0]
          in (200, 404))  # fmt: skip


def test_check_sees_them(world: World) -> None:
    world.vm()
    (seen,) = [
        item for item in run(world, "check").json["items"] if item["id"] == "admission-policies"
    ]
    assert (seen["result"], PATCH in seen["summary"]) == ("ok", True)


SCENES = sorted(
    path.stem
    for path in scenes.FILES
    if fastyaml.load(path.read_text())["expect"]["unstick"]["status"] == 0
)
TOO_EARLY = {
    "code-interface-never-observed",
    "code-pci-daemons",
    "harvester-3539",
    "harvester-5137",
    "harvester-9788-vm-gone",
    "kubevirt-2495",
    "kubevirt-4359",
    "kubevirt-6685",
}
"""A release has to wait for as long as a guest can take to end, which the story has behind it."""


@pytest.mark.parametrize("name", SCENES)
def test_a_scene_that_is_released_is_so_by_the_operator(
    held: ControlPlane, world: World, name: str
) -> None:
    told = told_to(world, fastyaml.load((scenes.SCENARIOS / f"{name}.yaml").read_text()))
    kind, _, target = told.scenario["target"].partition("/")
    words = (kind, target, *told.expect["unstick"]["flags"])
    planned = unstick(world, *words, "--dry-run=client").item["steps"]
    assert planned == told.release.item["steps"] != []
    assert {_dry(held, step) for step in planned} == {200}
    if name in TOO_EARLY:
        refused = unstick(world, *words, "--yes").item["refusals"]
        assert set() < {one["guard"] for one in refused} <= {"past-grace", "guest-stopped"}
        return
    done = unstick(world, *words, "--yes")
    assert {step["status"] for step in done.item["steps"]} == {"done"}, done.out + done.err


def _dry(api: ControlPlane, step: Any) -> int:
    """The status of a planned request, sent as a dry run by the operator."""
    target = step["target"]
    path = RESOURCES[target["kind"]].path(target["namespace"], target["name"])
    is_patch = step["action"] == "patch"
    sender = {"Impersonate-User": OPERATOR}
    if is_patch:
        path += "?dryRun=All&fieldManager=kubectl-harvester-stuck"
        return api.request("PATCH", path, step["patch"], content_type=MERGE_PATCH,
                           headers=sender)[0]  # fmt: skip
    return api.request("DELETE", path, {**step["patch"], "dryRun": ["All"]}, headers=sender)[0]
