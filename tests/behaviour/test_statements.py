"""What the operator states about nodes that no target concerns."""

from __future__ import annotations

from kubectl_harvester_stuck.errors import ExitStatus
from tests.support.world import World


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
