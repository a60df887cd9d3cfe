"""`kill -9` at every step of a release: cluster, backup and journal tell one story."""

from __future__ import annotations

import itertools
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kubectl_harvester_stuck.errors import ExitStatus
from tests.support.builders import Body
from tests.support.forked import Forked
from tests.support.relay import AFTER, BEFORE, Killer
from tests.support.simulator import Simulator
from tests.support.world import QUICK, World


@dataclass(frozen=True)
class Scene:
    """A VM of a dead node with everything that holds it, as it was before the first run."""

    world: World
    machine: Body
    instance: Body
    launcher: Body

    @property
    def objects(self) -> tuple[Body, Body, Body]:
        return self.launcher, self.instance, self.machine

    @property
    def words(self) -> tuple[str, ...]:
        node = self.world.dead
        return ("unstick", "vm", "web", *QUICK, "--yes", "--node-powered-off", node, "-o", "json")

    def is_changed(self, body: Body) -> bool:
        now = self.world.now(body)
        if now is None:
            return True
        assert now["metadata"]["uid"] == body["metadata"]["uid"]
        return bool(now["metadata"].get("finalizers", []) != body["metadata"].get("finalizers", []))


def stage(world: World, directory: Path) -> Scene:
    """The same VM once more, with a state directory of its own."""
    directory.mkdir()
    world.directory = directory
    machine = world.vm()
    instance = world.vmi(machine)
    launcher = world.delete(world.pod(instance), gracePeriodSeconds=1)
    return Scene(world, world.delete(machine), world.delete(instance), launcher)


def release(scene: Scene, killer: Killer) -> int:
    """The program as a process of its own, with its way to the server; its exit status."""
    world = scene.world
    path = world.directory / "output"
    with world.past(killer) as environ, path.open("w") as output:
        if world.program is None:
            killer.process = Forked(scene.words, environ, path)
        else:
            killer.process = subprocess.Popen(
                [*world.command, *scene.words],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        return killer.process.wait(60)


def uid(body: Body) -> str:
    return str(body["metadata"]["uid"])


def check_story(scene: Scene, killer: Killer) -> Any:
    """Cluster, backup and journal agree. Gives the change in flight, None without one."""
    world, hit = scene.world, killer.hit
    assert hit is not None
    lines = world.journal() if (world.state / "journal.jsonl").exists() else []
    begun = {line["object"]["uid"]: line for line in lines if line["phase"] == "before"}
    ended = {line["id"]: line for line in lines if line["phase"] == "after"}
    open_ = [line for line in begun.values() if line["id"] not in ended]
    # The request that the process died at is in flight if it is a change, and nothing else is.
    assert len(open_) == hit.is_change
    for line in open_:
        assert hit.path.partition("?")[0].endswith(f"/{line['object']['name']}")
        assert line == lines[-1]
    for body in scene.objects:
        line = begun.get(uid(body))
        if scene.is_changed(body):
            assert line is not None, f"{body['kind']} was changed, and no line tells it"
        if line is None:
            continue
        saved = {uid(item): item for item in json.loads(Path(line["backup"]).read_text())["items"]}
        assert saved[uid(body)]["metadata"].get("finalizers") == body["metadata"].get("finalizers")
        assert line["object"]["resourceVersion"] == body["metadata"]["resourceVersion"]
        if line in open_:
            assert scene.is_changed(body) == (killer.moment == AFTER)
        else:
            assert ended[line["id"]]["outcome"] == "done"
            assert scene.is_changed(body), f"{body['kind']} was not changed, and a line says so"
    shown = world.run("journal", "-o", "json").json["items"]
    assert [item["object"]["uid"] for item in shown] == list(begun)
    assert [item["outcome"] for item in shown] == [
        "interrupted" if line in open_ else "done" for line in begun.values()
    ]
    return open_[0] if open_ else None


def check_finish(scene: Scene, in_flight: Any) -> None:
    """The same command once more finishes the job, and says when the last run was cut off."""
    world = scene.world
    was_gone = world.now(scene.machine) is None
    known = world.journal() if (world.state / "journal.jsonl").exists() else []
    run = world.run(*scene.words)
    warnings = [line for line in run.err.splitlines() if line.startswith("warning:")]
    assert len(warnings) == (in_flight is not None), run.err
    for line in warnings:
        what = in_flight["object"]
        assert f"{what['kind']} {what['namespace']}/{what['name']}" in line
        assert "kubectl harvester-stuck journal" in run.err
    assert [world.now(body) for body in scene.objects] == [None, None, None]
    if was_gone:
        # Everything was done when the process died: there is no VM of this name any more.
        assert run.status is ExitStatus.ERROR
        assert "not found" in run.err
        assert world.journal() == known
        return
    assert run.status is ExitStatus.OK, run.out + run.err
    assert run.item["outcome"] == "gone"
    added = world.journal()[len(known) :]
    assert [line["phase"] for line in added] == ["before", "after"] * (len(added) // 2)
    assert all(line["outcome"] == "done" for line in added[1::2])
    told = {line["object"]["uid"] for line in world.journal()}
    assert told == set(map(uid, scene.objects))
    saved = json.loads(Path(run.item["backup"]).read_text())["items"]
    assert {item["metadata"]["uid"] for item in saved} == told


@pytest.mark.parametrize("moment", [BEFORE, AFTER])
def test_a_release_that_is_killed_tells_what_it_did_and_can_be_finished(
    world: World, tmp_path: Path, moment: str
) -> None:
    world.dead_node()
    # A real server takes its time, and so does a frozen program to start: there only the changes
    # are hit, everywhere else all.
    only_changes = not isinstance(world.api, Simulator) or world.program is not None
    hits = []
    for at in itertools.count():
        scene = stage(world, tmp_path / f"{at}")
        killer = Killer(at, moment, only_changes)
        status = release(scene, killer)
        if killer.hit is None:
            break
        assert status == -9
        hits.append(killer.hit)
        check_finish(scene, check_story(scene, killer))
    assert status == 0, (scene.world.directory / "output").read_text()
    changes = [(hit.method, hit.path.split("/")[-2]) for hit in hits if hit.is_change]
    assert changes == [
        ("DELETE", "pods"),
        ("PATCH", "virtualmachineinstances"),
        ("PATCH", "virtualmachines"),
    ]
    assert only_changes or len(hits) > 30
