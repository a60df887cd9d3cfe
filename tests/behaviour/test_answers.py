"""Answers that are not those of Kubernetes: what became of a change is seen, never guessed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import urllib3

from kubectl_harvester_stuck.errors import ApiError, ExitStatus
from tests.behaviour.test_restore import manifest, released, restore_past
from tests.behaviour.test_unstick import UNKNOWN, _strip, power_off
from tests.support import builders
from tests.support.builders import VM_FINALIZER, VMI_FINALIZERS, Body
from tests.support.relay import Answer, Passed, PassOn, answer, failure
from tests.support.world import QUICK, World

NOTHING = "nothing was changed"
WEB = "virtualmachines/web"


def page(status: int) -> Answer:
    """A page of a gateway."""
    return urllib3.HTTPResponse(b"<html>no</html>", {"Content-Type": "text/html"}, status)


Given = Callable[[PassOn], Answer | None]


@contextmanager
def changed_past(world: World, name: str, given: Given) -> Iterator[dict[str, str]]:
    """The environment in which `given` stands in for every change of the object `plural/name`."""

    def between(request: Passed, pass_on: PassOn) -> Answer | None:
        return given(pass_on) if request.changes(name) else pass_on()

    with world.past(between) as environ:
        yield environ


def twice(pass_on: PassOn) -> Answer:
    """A proxy that repeats the request, and gives the second answer."""
    pass_on()
    return pass_on()


def after(given: Answer) -> Given:
    """It is done, and then something else is answered."""

    def act(pass_on: PassOn) -> Answer:
        pass_on()
        return given

    return act


def test_a_patch_that_a_proxy_repeats_is_seen_to_be_done(world: World) -> None:
    machine = world.delete(world.vm())
    with changed_past(world, WEB, twice) as environ:
        run = world.unstick("--yes", environ=environ)
    assert (run.status, run.item["outcome"]) == (ExitStatus.OK, "gone")
    assert world.now(machine) is None


def test_a_repeated_patch_of_what_stays_is_not_told_as_nothing_changed(world: World) -> None:
    machine = world.delete(world.vm("web", VM_FINALIZER, UNKNOWN))
    words = ("unstick", "vm", "web", *QUICK, "--yes", "--finalizer", UNKNOWN)
    with changed_past(world, WEB, twice) as environ:
        run = world.run(*words, environ=environ)
    assert run.status is ExitStatus.UNVERIFIED
    assert NOTHING not in run.out
    assert f"it does not have {UNKNOWN} any more" in " ".join(run.out.split())
    assert world.finalizers(machine) == [VM_FINALIZER]
    (_, second) = world.journal()
    assert second["outcome"].startswith("unknown: ")


def test_a_repeated_deletion_is_not_told_as_nothing_changed(world: World) -> None:
    _, instance, launcher = world.power_cut()
    name = f"pods/{launcher['metadata']['name']}"
    denied = world.api.deny_updates("virtualmachineinstances", "no", namespace=world.namespace)
    denied.remove()

    def act(pass_on: PassOn) -> Answer:
        given = twice(pass_on)
        world.api.deny_updates("virtualmachineinstances", "no", namespace=world.namespace)
        return given

    with changed_past(world, name, act) as environ:
        run = world.run("unstick", "vm", "web", *QUICK, *power_off(world), environ=environ)
    assert run.status is ExitStatus.UNVERIFIED
    assert NOTHING not in run.out
    assert world.now(launcher) is None
    assert world.finalizers(instance) == list(VMI_FINALIZERS)


@pytest.mark.parametrize("status", [200, 403, 404, 408, 409, 429, 500, 502, 503])
def test_a_page_after_the_patch_hides_nothing(world: World, status: int) -> None:
    machine = world.delete(world.vm())
    with changed_past(world, WEB, after(page(status))) as environ:
        run = world.unstick("--yes", environ=environ)
    assert (run.status, run.item["outcome"]) == (ExitStatus.OK, "gone")
    assert run.item["steps"][0]["status"].startswith("unknown: ")
    assert world.now(machine) is None


@pytest.mark.parametrize("status", [200, 403, 404, 408, 409, 429, 500, 502, 503])
def test_a_page_instead_of_the_patch_is_looked_behind(world: World, status: int) -> None:
    machine = world.delete(world.vm())
    words = ("unstick", "vm", "web", *QUICK, "--yes")
    with changed_past(world, WEB, lambda _: page(status)) as environ:
        run = world.run(*words, environ=environ)
    assert world.finalizers(machine) == [VM_FINALIZER]
    # After a time limit, or 5xx, what was sent may still be on its way.
    is_final = status in (403, 404, 409, 429)
    assert run.status is (ExitStatus.REFUSED if is_final else ExitStatus.UNVERIFIED)
    assert (NOTHING in run.out) == is_final


@pytest.mark.parametrize(
    "body",
    [{}, [], {"kind": "VirtualMachine"}, {"apiVersion": "v1", "kind": "Status"},
     {**builders.vm("team", "web"), "apiVersion": "kubevirt.io/v1"}],
    ids=["empty", "array", "kind", "status", "no uid"],
)  # fmt: skip
def test_an_answer_that_is_not_the_object_is_none(world: World, body: Body) -> None:
    machine = world.delete(world.vm())
    words = ("unstick", "vm", "web", *QUICK, "--yes")
    with changed_past(world, WEB, lambda _: answer(200, body)) as environ:
        run = world.run(*words, environ=environ)
    assert run.status is ExitStatus.UNVERIFIED
    assert "patch" in run.out
    assert ": done" not in run.out
    assert world.finalizers(machine) == [VM_FINALIZER]
    assert world.events() == []


def test_an_answer_about_another_object_is_none(world: World) -> None:
    world.delete(world.vm())
    other = world.vm("other")
    with changed_past(world, WEB, lambda _: answer(200, other)) as environ:
        run = world.unstick("--yes", environ=environ)
    assert run.status is ExitStatus.UNVERIFIED
    assert run.item["steps"][0]["status"].startswith("unknown: ")


def test_a_page_instead_of_the_deletion_of_a_pod_is_looked_behind(world: World) -> None:
    machine, instance, launcher = world.power_cut()
    name = f"pods/{launcher['metadata']['name']}"
    with changed_past(world, name, lambda _: page(403)) as environ:
        run = world.unstick(*power_off(world), environ=environ)
    assert (run.status, run.item["outcome"]) == (ExitStatus.REFUSED, "denied")
    with changed_past(world, name, after(page(403))) as environ:
        run = world.unstick(*power_off(world), environ=environ)
    assert (run.status, run.item["outcome"]) == (ExitStatus.OK, "gone"), run.out
    for body in (machine, instance, launcher):
        assert world.now(body) is None


def test_what_cannot_be_looked_at_is_not_told_as_nothing_changed(world: World) -> None:
    world.delete(world.vm())
    sent = []

    def between(request: Passed, pass_on: PassOn) -> Answer | None:
        if request.changes(WEB):
            sent.append(request)
            return page(403)
        return page(503) if sent else pass_on()

    with world.past(between) as environ:
        run = world.run("unstick", "vm", "web", *QUICK, "--yes", environ=environ)
    assert run.status is ExitStatus.UNVERIFIED
    assert NOTHING not in run.out
    assert "could not be looked at" in " ".join(run.out.split())


# restore


def test_a_create_that_a_proxy_repeats_is_seen_to_be_done(world: World) -> None:
    before, backup = released(world)
    run = restore_past(world, backup, twice)
    found = world.now(before)
    assert found is not None
    assert (run.status, run.item["outcome"]) == (ExitStatus.OK, "created"), run.out
    assert run.item["target"]["uid"] == found["metadata"]["uid"]


@pytest.mark.parametrize("status", [200, 201, 403, 404, 408, 409, 500, 502])
def test_a_page_after_the_create_hides_nothing(world: World, status: int) -> None:
    before, backup = released(world)
    run = restore_past(world, backup, after(page(status)))
    assert world.now(before) is not None
    assert (run.status, run.item["outcome"]) == (ExitStatus.OK, "created"), run.out


@pytest.mark.parametrize("status", [200, 201, 403, 404, 408, 409, 500, 502])
def test_a_page_instead_of_the_create_is_looked_behind(world: World, status: int) -> None:
    before, backup = released(world)
    run = restore_past(world, backup, lambda _: page(status))
    assert world.now(before) is None
    is_final = status in (403, 404, 409)
    assert run.status is (ExitStatus.REFUSED if is_final else ExitStatus.UNVERIFIED)
    assert run.item["outcome"] == ("denied" if is_final else "unknown")


def test_a_denial_beside_a_vm_of_somebody_else_is_a_denial(world: World) -> None:
    _, backup = released(world)

    def create(_: PassOn) -> Answer:
        world.create(manifest(world))
        return failure(ApiError(403, "Forbidden", "quota exceeded"))

    run = restore_past(world, backup, create)
    assert (run.status, run.item["outcome"]) == (ExitStatus.REFUSED, "denied")


# Success


HOLD = "example.com/hold"


def hold(world: World, pod: Body) -> None:
    """Somebody's finalizer, so that the pod stays even without a grace period."""
    meta = pod["metadata"]
    path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
    patch = {"metadata": {"finalizers": [HOLD]}}
    kind = "application/merge-patch+json"
    assert world.api.request("PATCH", path, patch, content_type=kind)[0] == 200


@pytest.mark.parametrize("whole", [True, False], ids=["VM", "VMI alone"])
def test_a_pod_that_stays_is_no_success(world: World, whole: bool) -> None:
    world.dead_node()
    machine = world.vm()
    instance = world.vmi(machine)
    launcher = world.pod(instance)
    hold(world, launcher)
    launcher = world.delete(launcher, gracePeriodSeconds=1)
    instance = world.delete(instance)
    machine = world.delete(machine) if whole else machine
    name = f"pods/{launcher['metadata']['name']}"

    def act(pass_on: PassOn) -> Answer:
        given = pass_on()
        for body in (instance, *([machine] if whole else [])):
            _strip(world, body)  # the controllers go on
        return given

    with changed_past(world, name, act) as environ:
        run = world.unstick(*power_off(world), environ=environ)
    assert world.now(launcher) is not None
    assert (run.status, run.item["outcome"]) == (ExitStatus.UNVERIFIED, "still-there"), run.out
    assert launcher["metadata"]["name"] in run.item["reason"]


@pytest.mark.parametrize("strategy", ["Halted", "Always"])
def test_what_became_of_a_freed_vm_is_told(world: World, strategy: str) -> None:
    world.dead_node()
    instance = world.vmi(world.vm(spec={"runStrategy": strategy}))
    world.delete(instance)
    run = world.unstick("--yes", "--node-powered-off", world.dead)
    assert (run.status, run.item["outcome"]) == (ExitStatus.OK, "freed"), run.out
    told = {"Halted": "it is stopped: it has no", "Always": "no new VirtualMachineInstance"}
    assert told[strategy] in run.item["seen"]


def test_where_a_freed_vm_starts_again_is_told(world: World) -> None:
    world.dead_node()
    machine = world.vm(spec={"runStrategy": "Always"})
    world.delete(world.vmi(machine))
    new: list[Body] = []

    def act(pass_on: PassOn) -> Answer:
        given = pass_on()
        new.append(world.vmi(machine, node=world.live))
        return given

    with changed_past(world, "virtualmachineinstances/web", act) as environ:
        run = world.run("unstick", "vm", "web", *QUICK, *power_off(world), environ=environ)
    assert run.status is ExitStatus.OK, run.out
    words = " ".join(run.out.split())
    uid = new[0]["metadata"]["uid"]
    assert f"it starts elsewhere: its new VirtualMachineInstance {uid} is Running" in words
    assert f"on node {world.live}" in words
