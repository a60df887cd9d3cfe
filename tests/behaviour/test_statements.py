"""What the operator states about nodes, and what their signs of life say to that."""

from __future__ import annotations

from datetime import timedelta

from kubectl_harvester_stuck.errors import ExitStatus
from kubectl_harvester_stuck.k8s.kinds import KUBEVIRT
from tests.support import builders
from tests.support.resources import path_of
from tests.support.world import QUICK, Answers, Body, World, before


def test_a_node_that_is_not_there_is_a_mistake(world: World) -> None:
    world.power_cut()
    stated = ("--node-powered-off", world.dead, "--node-powered-off", "no-such-node")
    for how in ("--yes", "--dry-run=client"):
        run = world.unstick(how, *stated)
        assert run.status is ExitStatus.USAGE, run.out + run.err
        assert "--node-powered-off no-such-node: there is no such node" in run.err
    assert world.changes() == []


def test_a_node_that_is_up_is_a_mistake_also_where_no_guest_was(world: World) -> None:
    world.live_node()
    world.power_cut()
    run = world.unstick("--yes", "--node-powered-off", world.dead, "--node-powered-off", world.live)
    assert run.status is ExitStatus.USAGE, run.out + run.err
    assert f"--node-powered-off {world.live}: this node shows life (Ready: True" in run.err
    assert world.changes() == []


def test_a_silent_node_where_no_guest_was_does_no_harm(world: World) -> None:
    world.delete(world.vm())
    world.dead_node()
    run = world.unstick("--yes", "--node-powered-off", world.dead)
    assert run.status is ExitStatus.OK, run.out + run.err


def test_a_node_that_left_the_cluster_can_be_stated_where_a_guest_was(world: World) -> None:
    world.power_cut()
    status, _ = world.api.request("DELETE", f"/api/v1/nodes/{world.dead}")
    assert status == 200
    run = world.unstick("--yes", "--node-powered-off", world.dead)
    assert run.status is ExitStatus.OK, run.out + run.err


def rewrite(world: World, body: Body, change: Body, *path: str, stored: timedelta) -> None:
    """Let a sign of life change, and have been stored so long ago."""
    merge = "application/merge-patch+json"
    status, answer = world.api.request("PATCH", path_of(body), change, content_type=merge)
    assert status == 200, answer
    world.written_by("clock", {**body, **answer}, *path, when=before(stored))


def test_a_clock_that_is_ahead_is_no_sign_of_life(world: World) -> None:
    """A sign is as old as its storing; nobody has to wait until the clock of the node is right."""
    world.power_cut()
    note = "kubevirt.io/heartbeat"
    ahead = {"metadata": {"annotations": {note: before(timedelta(hours=-3))}}}
    rewrite(world, builders.node(world.dead, "Unknown"), ahead, "metadata", "annotations", note,
            stored=timedelta(minutes=20))  # fmt: skip
    run = world.unstick("--yes", "--node-powered-off", world.dead)
    assert run.status is ExitStatus.OK, run.out + run.err


def test_a_sign_that_advances_is_life_whatever_its_age(world: World) -> None:
    """The clock of the node is behind: each sign of it is old, and yet it lives."""
    world.power_cut()
    then = timedelta(minutes=19)

    def renew() -> None:
        lease = builders.lease(world.dead, before(then))
        rewrite(world, lease, {"spec": lease["spec"]}, "spec", "renewTime", stored=then)

    run = world.run("unstick", "vm", "web", *QUICK, "--node-powered-off", world.dead, "-o", "json",
                    stdin=Answers(f"{world.namespace}/web\n", before=renew))  # fmt: skip
    assert run.status is ExitStatus.REFUSED, run.out + run.err
    assert world.changes() == []


def test_virt_handler_speaks_also_where_kubevirt_is_not_harvesters(world: World) -> None:
    """Its pod is Ready, in the namespace of the KubeVirt object: the node is not off."""
    world.power_cut()
    elsewhere = f"{world.namespace}-kubevirt"
    handler = builders.virt_handler(world.dead, ready=True)
    world.create({**handler, "metadata": {**handler["metadata"], "namespace": elsewhere}})
    off = ("--node-powered-off", world.dead)
    assert world.unstick("--dry-run=client", *off).status is ExitStatus.OK
    world.create(builders.bare(KUBEVIRT, elsewhere, "kubevirt"))
    run = world.unstick("--yes", *off)
    assert run.status is ExitStatus.REFUSED, run.out + run.err
    assert any("virt-handler" in refusal["reason"] for refusal in run.item["refusals"])
    assert world.changes() == []
