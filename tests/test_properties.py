"""What holds on every cluster, and whoever acts between any two requests.

Hypothesis invents clusters and flags; the program runs on the simulated API server. A witness
stands in the server and sees each change before it is made, with the objects as they are then: it
knows nothing of plans and guards, only what must never be done. Other actors (controllers, a user,
the node that comes back) act before any request.

`EXAMPLES=5000 python -m pytest tests/test_properties.py` looks longer than CI does.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from examples import bundle
from kubectl_harvester_stuck.errors import ExitStatus
from kubectl_harvester_stuck.k8s.kinds import POD, VM, VMI
from tests.support import builders
from tests.support.resources import RESOURCES
from tests.support.simulator import Simulator
from tests.support.simulator.clock import timestamp
from tests.support.simulator.exchange import Exchange
from tests.support.world import Run, World, before, check_patches
from tests.test_scenarios import UNASKED

EXAMPLES = int(os.environ.get("EXAMPLES", "150"))
OLD, FRESH = timedelta(minutes=20), timedelta(seconds=5)
UNKNOWN = "example.com/nobody-knows"
VM_FINALIZERS = (builders.VM_FINALIZER, builders.LEGACY_FINALIZER, "foregroundDeletion")
VM_ODDITIES = (builders.CLEANUP_FINALIZER, "orphan", UNKNOWN)
VMI_ODDITIES = ("foregroundDeleteVirtualMachine", "orphan", UNKNOWN)
SIGNS = ("ready", "heartbeat", "lease", "handler")

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Scene:
    """A cluster, as far as it matters to the VM `web`."""

    vm: tuple[str, ...] | None
    """Its finalizers; None where there is no VM."""
    vm_deleting: bool
    vmi: tuple[str, ...] | None
    vmi_deleting: bool
    phase: str
    pods: tuple[tuple[str, bool, bool], ...]
    """Node, whether its containers have ended, whether it is being deleted."""
    life: frozenset[str]
    """The signs of life that the node `dead` gives."""
    migrating: bool
    ticked: bool
    """Whether the VM was deleted with its disk, which is still there."""


def finalizers(usual: tuple[str, ...], odd: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...]]:
    """Mostly such as can be released; otherwise every run would be a refusal."""
    some = st.sets(st.sampled_from(usual), min_size=1, max_size=2)
    strange = st.sets(st.sampled_from((*usual, *odd)), min_size=1, max_size=3)
    return (some | some | strange).map(lambda names: tuple(sorted(names)))


MOSTLY = st.sampled_from([True, True, True, False])


SCENES = st.builds(
    Scene,
    vm=finalizers(VM_FINALIZERS, VM_ODDITIES) | st.none(),
    vm_deleting=MOSTLY,
    vmi=finalizers(builders.VMI_FINALIZERS, VMI_ODDITIES) | st.none(),
    vmi_deleting=MOSTLY,
    phase=st.sampled_from(["Running", "Running", "Scheduled", "Scheduling", "Failed", "Succeeded"]),
    pods=st.lists(
        st.tuples(st.sampled_from(["dead", "live"]), st.booleans(), st.booleans()), max_size=2
    ).map(tuple),
    life=st.just(frozenset()) | st.frozensets(st.sampled_from(SIGNS), max_size=1),
    migrating=MOSTLY.map(lambda usual: not usual),
    ticked=MOSTLY.map(lambda usual: not usual),
).filter(lambda scene: scene.vm is not None or scene.vmi is not None)

FLAGS = st.fixed_dictionaries(
    {
        "powered_off": MOSTLY,
        "override": st.sets(st.sampled_from(["past-grace", "no-migration"])),
        "finalizer": st.sampled_from([None, None, None, UNKNOWN, builders.VM_FINALIZER]),
        "leave_behind": st.sampled_from([None, None, builders.CLEANUP_FINALIZER, "orphan"]),
        "older_than": st.sampled_from(["0", "0", "0", "5m"]),
    }
)

ACTIONS = ("touch", "strip", "life", "pod ends", "pod goes", "made again", "new instance")
CONTROLLERS = ("kubelet", "virt-controller", "garbage collector")
ACTORS = st.lists(st.tuples(st.integers(0, 40), st.sampled_from(ACTIONS)), max_size=3)


@dataclass
class Stage:
    """The scene on the simulated server, and who is on it."""

    world: World
    scene: Scene
    server: Simulator
    pods: list[Any] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def build(self) -> None:
        """Create it, as its inhabitants would have."""
        world, scene = self.world, self.scene
        self._node(world.live, frozenset(SIGNS))
        self._node(world.dead, scene.life)
        machine = instance = None
        if scene.vm is not None:
            ticked = (
                {"harvesterhci.io/removedPersistentVolumeClaims": "disk"} if scene.ticked else {}
            )
            machine = world.vm("web", *scene.vm, annotations=ticked)
            if scene.ticked:
                self.server.seed(builders.pvc(world.namespace, "disk"))
        if scene.vmi is not None:
            body = builders.vmi(
                world.namespace, "web", world.dead, scene.vmi, phase=scene.phase, owner=machine
            )
            instance = world.create(body)
            for number, (where, ended, deleting) in enumerate(scene.pods):
                node = world.dead if where == "dead" else world.live
                name = f"virt-launcher-web-{number}"
                body = builders.pod(world.namespace, name, node, instance, terminated=ended)
                pod = world.create(body)
                if deleting:
                    world.api.delete(pod, gracePeriodSeconds=1)
                self.pods.append(pod)
        if scene.migrating:
            self.server.seed(builders.migration(world.namespace, "move", "web"))
        if instance is not None and scene.vmi_deleting:
            world.api.delete(instance)
        if machine is not None and scene.vm_deleting:
            world.api.delete(machine)

    def _node(self, name: str, life: frozenset[str]) -> None:
        beat = before(FRESH if "heartbeat" in life else OLD)
        node = builders.node(name, "True" if "ready" in life else "Unknown", heartbeat=beat)
        self.server.seed(node)
        self.server.seed(builders.lease(name, before(FRESH if "lease" in life else OLD)))
        self.server.seed(builders.virt_handler(name, ready="handler" in life))

    def find(self, kind: Any, name: str = "web") -> Any:
        body = {"apiVersion": kind.api_version, "kind": kind.kind,
                "metadata": {"name": name, "namespace": self.world.namespace}}  # fmt: skip
        return self.server.get(body)

    # Who else acts

    def act(self, what: str) -> None:
        """One of `ACTIONS`, as far as there is something to act on."""
        machine, instance = self.find(VM), self.find(VMI)
        if what == "touch":
            for item in (machine, instance):
                if item is not None:
                    item["metadata"].setdefault("annotations", {})["touched"] = str(next(_numbers))
                    self._put(item)
        elif what == "strip" and instance is not None:
            self._patch(VMI, {"metadata": {"finalizers": []}})
        elif what == "life":
            self._node(self.world.dead, frozenset(SIGNS))
        elif what == "pod ends":
            for pod in self.living_pods():
                for status in pod["status"]["containerStatuses"]:
                    status["state"] = {"terminated": {"exitCode": 0}}
                self._put(pod)
        elif what == "pod goes":
            for pod in self.living_pods():
                self.server.delete(pod, gracePeriodSeconds=0)
        elif what == "made again" and machine is not None:
            self._patch(VM, {"metadata": {"finalizers": []}})
            if self.find(VM) is None:
                self.world.vm("web", builders.VM_FINALIZER)
        elif what == "new instance" and instance is None and machine is not None:
            # virt-controller writes the status of the VM, too.
            self.world.create(builders.vmi(self.world.namespace, "web", self.world.live,
                                           owner=machine))  # fmt: skip
            machine["status"]["created"] = next(_numbers)
            self._put(machine)

    def serve(self, who: str) -> None:
        """One of `CONTROLLERS` does its part, as soon as what it waits for is so."""
        machine, instance = self.find(VM), self.find(VMI)
        pods = [pod for one in self.pods if (pod := self.find(POD, one["metadata"]["name"]))]
        if who == "kubelet":
            for pod in pods:
                if "deletionTimestamp" in pod["metadata"]:
                    self.server.delete(pod, gracePeriodSeconds=0)
        elif who == "virt-controller":
            if instance is not None and not pods:
                self._take_off(instance, builders.VMI_FINALIZERS)
            if machine is not None and instance is None:
                self._take_off(machine, (builders.VM_FINALIZER,))
        elif who == "garbage collector" and machine is not None and instance is None:
            self._take_off(machine, ("foregroundDeletion",))

    def _take_off(self, body: Any, names: Sequence[str]) -> None:
        meta = body["metadata"]
        if "deletionTimestamp" in meta:
            left = [name for name in meta.get("finalizers", ()) if name not in names]
            kind = VM if body["kind"] == VM.kind else VMI
            self._patch(kind, {"metadata": {"finalizers": left}})

    def _put(self, body: Any) -> None:
        self.server.seed(body)

    def _patch(self, kind: Any, body: Any) -> None:
        path = kind.path(self.world.namespace, "web")
        self.server.request("PATCH", path, body, content_type="application/merge-patch+json")

    # What must never be done

    def living_pods(self) -> list[Any]:
        """Pods of the guest of which a container may still run."""
        found = [self.find(POD, pod["metadata"]["name"]) for pod in self.pods]
        return [
            pod
            for pod in found
            if pod is not None
            and not all("terminated" in one["state"] for one in pod["status"]["containerStatuses"])
        ]

    def _stored(self, body: builders.Body) -> builders.Body:
        found = self.server.get(body)
        assert found is not None
        return found

    def shows_life(self, node: str) -> bool:
        """Whether any of its four signs of life is fresh."""
        body = self._stored(builders.node(node))
        lease = self._stored(builders.lease(node, before(OLD)))
        handler = self._stored(builders.virt_handler(node, ready=True))
        (ready,) = body["status"]["conditions"]
        (handles,) = handler["status"]["conditions"]
        beat = body["metadata"]["annotations"]["kubevirt.io/heartbeat"]
        renewed = lease["spec"]["renewTime"].replace(".000000", "")
        return (
            ready["status"] != "Unknown"
            or handles["status"] == "True"
            or any(self._age(text) < timedelta(minutes=4) for text in (beat, renewed))
        )

    def _age(self, text: str) -> timedelta:
        return self.server.clock.now() - datetime.fromisoformat(text.replace("Z", "+00:00"))

    def witness(self, exchange: Exchange, flags: dict[str, Any]) -> None:
        """Look at a change before it is made, and complain."""
        asked = exchange.request
        plural, name = asked.path.split("/")[-2:]
        kind = {"virtualmachines": VM, "virtualmachineinstances": VMI, "pods": POD}[plural]
        now = self.find(kind, name)
        body = json.loads(asked.body)
        if now is None:
            return
        meta = now["metadata"]
        if kind is POD:
            living = [pod for pod in self.living_pods() if pod["metadata"]["name"] == name]
            node = now["spec"]["nodeName"]
            locks = body["preconditions"]
            if living and locks == {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}:
                self.must(flags["powered_off"] and node == self.world.dead, "a living pod")
            return
        new = body["metadata"]
        if (new["uid"], new["resourceVersion"]) != (meta["uid"], meta["resourceVersion"]):
            return  # the server refuses it
        gone = set(meta.get("finalizers", ())) - set(new["finalizers"])
        self.must("deletionTimestamp" in meta, "not being deleted")
        self.must(set(new["finalizers"]) <= set(meta.get("finalizers", ())), "adds a finalizer")
        self.must("orphan" not in gone, "removes orphan")
        self.must(UNKNOWN not in gone or flags["finalizer"] == UNKNOWN, "removes a stranger")
        if kind is VM:
            self.must(self.find(VMI) is None, "the VM before its VMI")
            if self.scene.ticked and builders.CLEANUP_FINALIZER in gone:
                self.must(flags["leave_behind"] == builders.CLEANUP_FINALIZER, "leaks a disk")
        else:
            self.must(not self.living_pods(), "a VMI whose guest may run")

    def must(self, holds: bool, what: str) -> None:
        if not holds:
            self.told.append(what)


@pytest.fixture(scope="module")
def server() -> Iterator[Simulator]:
    with Simulator() as api:
        yield api


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("properties")


def staged(server: Simulator, directory: Path, scene: Scene) -> Stage:
    number = next(_numbers)
    folder = directory / str(number)
    folder.mkdir()
    world = World(server, folder, f"ns-{number}", f"dead-{number}", f"live-{number}")
    stage = Stage(world, scene, server)
    stage.build()
    # Past the grace of the pods, and no time passes while the same is asked twice.
    soon = datetime.now(timezone.utc) + timedelta(seconds=3)
    server.clock.stop(soon.replace(microsecond=0))
    server.forget()
    return stage


def words(stage: Stage, flags: dict[str, Any]) -> list[str]:
    kind = "vm" if stage.scene.vm is not None else "vmi"
    found = ["unstick", kind, "web", f"--older-than={flags['older_than']}"]
    if flags["powered_off"]:
        found += ["--node-powered-off", stage.world.dead]
    for name in sorted(flags["override"]):
        found += ["--override", name]
    for flag in ("finalizer", "leave_behind"):
        if flags[flag]:
            found += [f"--{flag.replace('_', '-')}", flags[flag]]
    return [*found, "--settle=0", "--timeout=0", "-o", "json"]


relaxed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow,
                           HealthCheck.filter_too_much],
)  # fmt: skip


@relaxed
@given(scene=SCENES, flags=FLAGS, actors=ACTORS)
def test_nothing_is_done_that_must_never_be_done(
    server: Simulator, directory: Path, scene: Scene, flags: dict[str, Any],
    actors: list[tuple[int, str]],
) -> None:  # fmt: skip
    stage = staged(server, directory, scene)
    count = itertools.count()

    def between(exchange: Exchange) -> None:
        number = next(count)
        for due, what in actors:
            if due == number:
                stage.act(what)
        asked = exchange.request
        text = f"{asked.target}{asked.body!r}"
        is_change = asked.method in ("PATCH", "DELETE") and "dryRun" not in text
        if is_change:
            stage.witness(exchange, flags)
        exchange.answer()

    handle = server.inject(between, times=None)
    try:
        run = stage.world.run(*words(stage, flags), "--yes")
    finally:
        handle.remove()
    try:
        event(f"{run.status.name} after {len(stage.world.changes())} changes")
        assert stage.told == [], stage.told
        check_answer(stage, run)
        check_patches(stage.world.sent())
        if run.status is ExitStatus.OK:
            sent = stage.world.changes()
            assert sent or stage.scene.vm_deleting or stage.scene.vmi_deleting or stage.pods
    finally:
        server.wipe(stage.world.namespace)


def check_answer(stage: Stage, run: Run) -> None:
    """Success is said of what is gone, refusal when nothing was changed."""
    sent = stage.world.changes()
    assert len(set(sent)) == len(sent), "a change was sent twice"
    if run.status is ExitStatus.OK:
        outcome = run.item["outcome"]
        assert outcome in ("gone", "freed")
        if outcome == "gone":
            target = run.item["target"]
            found = stage.server.get({**target, "metadata": target})
            assert found is None or found["metadata"]["uid"] != target["uid"]
    if run.status is ExitStatus.REFUSED:
        done = [step for item in run.json["items"] for step in item["steps"]
                if step["status"] == "done"]  # fmt: skip
        assert done == []
    if run.json["items"] and any(step["status"] == "done" for step in run.item["steps"]):
        assert run.status in (ExitStatus.OK, ExitStatus.UNVERIFIED)


@relaxed
@given(scene=SCENES, flags=FLAGS)
def test_the_digest_is_that_of_the_plan_alone(
    server: Simulator, directory: Path, scene: Scene, flags: dict[str, Any]
) -> None:
    stage = staged(server, directory, scene)
    try:
        first, again = (
            stage.world.run(*words(stage, flags), "--dry-run=client").json for _ in range(2)
        )
        assert first == again or first["digest"] == again["digest"]
        assert stage.world.changes() == []
        if "digest" not in first:
            return  # a statement about a node that cannot be meant: there is no plan
        planned = [item for item in first["items"] if not item["refusals"]]
        if not planned:
            return
        stage.act("touch")
        other = stage.world.run(*words(stage, flags), "--dry-run=client").json
        if any(step["patch"].get("metadata") for step in planned[0]["steps"]):
            assert other["digest"] != first["digest"]
    finally:
        server.wipe(stage.world.namespace)


@settings(relaxed, max_examples=max(1, EXAMPLES // 5))  # each writes and reads a zip
@given(scene=SCENES)
def test_a_bundle_of_a_cluster_says_what_the_cluster_says(
    server: Simulator, directory: Path, scene: Scene
) -> None:
    stage = staged(server, directory, scene)
    namespace = stage.world.namespace
    what = ("diagnose", "vm" if scene.vm is not None else "vmi", "web", "-n", namespace)
    try:
        live = stage.world.run(*what, "--no-logs", "-o", "json").item
        bodies = [
            {"apiVersion": resource.api_version, "kind": resource.kind, **item}
            for resource in RESOURCES.values()
            for item in server.request("GET", resource.path(None))[1]["items"]
        ]
        spaces = {item["metadata"]["name"] for item in bodies if item["kind"] == "Namespace"}
        path = stage.world.directory / "supportbundle.zip"
        now = timestamp(server.clock.now())
        bundle.write(path, bodies, created=now, collected=spaces | {"longhorn-system"})
        nowhere = {"KUBECONFIG": "/nonexistent"}
        seen = stage.world.run(
            *what, "-f", str(path), "--no-logs", "-o", "json", environ=nowhere
        ).item
        for item in (live, seen):
            item["guards"] = [one for one in item["guards"] if one["id"] not in UNASKED]
            item["notLookedFor"] = [one for one in item["notLookedFor"] if "live API" not in one]
        assert seen == live
    finally:
        server.wipe(namespace)
