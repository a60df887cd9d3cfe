"""One malformed object is unreadable by itself: it stops no command, and hides no other object."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from examples import bundle
from kubectl_harvester_stuck.errors import ExitStatus, UnreadableError
from kubectl_harvester_stuck.k8s import nesting
from kubectl_harvester_stuck.k8s.kinds import VM
from kubectl_harvester_stuck.k8s.objects import KubeObject, parse_seconds, parse_time
from tests.support import builders, fastyaml
from tests.support.builders import Body
from tests.support.resources import RESOURCES
from tests.support.simulator import Simulator
from tests.support.simulator.api import Response
from tests.support.simulator.clock import timestamp
from tests.support.simulator.exchange import Exchange
from tests.support.world import QUICK, Run, World, before
from tests.test_properties import EXAMPLES

LONG = "v" * 250


def nested(levels: int) -> Any:
    """Maps in each other."""
    value: Any = "end"
    for _ in range(levels):
        value = {"a": value}
    return value


@dataclass(frozen=True)
class Deep:
    """Stands for maps in each other, which nothing but JSON can print."""

    levels: int


def expanded(value: Any) -> Any:
    """The value with what it stands for."""
    if isinstance(value, Deep):
        return nested(value.levels)
    if isinstance(value, dict):
        return {key: expanded(item) for key, item in value.items()}
    return [expanded(item) for item in value] if isinstance(value, list) else value


ODD_NUMBERS = (1 << 63, -1, True, 1e300, "7", 10**30, None)
ODD_TIMES = ("9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00",
             "9999-12-31T23:59:59-14:00", "soon", 7, True, ["2026-01-01T00:00:00Z"])  # fmt: skip
ODD_VALUES = (7, True, "word", [7], [["x"]], {"a": 7}, None, Deep(210), Deep(3000))

FIELDS: dict[tuple[str, ...], tuple[Any, ...]] = {
    ("metadata", "deletionGracePeriodSeconds"): ODD_NUMBERS,
    ("metadata", "deletionTimestamp"): ODD_TIMES,
    ("metadata", "creationTimestamp"): ODD_TIMES,
    ("metadata", "finalizers"): ODD_VALUES,
    ("metadata", "ownerReferences"): ODD_VALUES,
    ("metadata", "annotations"): (*ODD_VALUES, {"a": Deep(300)},
                                  {"harvesterhci.io/volumeClaimTemplates": "[" * 3000}),
    ("metadata", "labels"): ODD_VALUES,
    ("metadata", "uid"): ODD_VALUES,
    ("metadata", "resourceVersion"): ODD_VALUES,
    ("metadata", "name"): (LONG, 7, "../x", "", None),
    ("metadata", "managedFields"): ([Deep(300)], 7),
    ("spec",): ODD_VALUES,
    ("spec", "terminationGracePeriodSeconds"): ODD_NUMBERS,
    ("spec", "template"): ODD_VALUES,
    ("spec", "volumes"): ODD_VALUES,
    ("spec", "nodeName"): ODD_VALUES,
    ("spec", "containers"): ODD_VALUES,
    ("status",): ODD_VALUES,
    ("status", "phase"): ODD_VALUES,
    ("status", "conditions"): ODD_VALUES,
    ("status", "containerStatuses"): ODD_VALUES,
    ("status", "activePods"): ODD_VALUES,
    ("status", "migrationState"): ODD_VALUES,
}  # fmt: skip
RELATES = {("metadata", "ownerReferences"), ("metadata", "labels"), ("metadata", "annotations"),
           ("metadata", "uid"), ("metadata", "resourceVersion"), ("metadata", "name")}  # fmt: skip
"""Where a pod cannot be read here, it may be anybody's."""

ONE = st.sampled_from([(path, value) for path, values in FIELDS.items() for value in values])
HOSTILE = st.dictionaries(
    st.sampled_from(["VirtualMachine", "VirtualMachineInstance", "Pod"]), ONE, min_size=1
)


def changed(body: Body, path: tuple[str, ...], value: Any) -> Body:
    """A copy of the object with this value there."""
    copy: Body = dict(body)
    inner = copy
    for key in path[:-1]:
        inner[key] = dict(inner.get(key) or {})
        inner = inner[key]
    inner[path[-1]] = expanded(value)
    return copy


def dumps(value: Any) -> bytes:
    """JSON of any depth; that of the standard library ends at a thousand levels."""
    if isinstance(value, dict):
        stack = value
        parts = []
        while len(stack) == 1 and isinstance(inner := next(iter(stack.values())), dict):
            parts.append(json.dumps(next(iter(stack))).encode())
            stack = inner
        pairs = (json.dumps(key).encode() + b":" + dumps(item) for key, item in stack.items())
        head = b"".join(b"{" + part + b":" for part in parts)
        return head + b"{" + b",".join(pairs) + b"}" + b"}" * len(parts)
    if isinstance(value, list):
        return b"[" + b",".join(map(dumps, value)) + b"]"
    return json.dumps(value).encode()


class Stage:
    """A VM `web` that can be released, and beside it the VM `odd` that something is wrong with."""

    def __init__(self, api: Simulator, directory: Path) -> None:
        self.api = api
        self.world = world = World(api, directory, "team", "node-dead", "node-live")
        world.dead_node()
        world.live_node()
        self.good: list[Body] = []
        self.odd: dict[str, Body] = {}
        for name in ("odd", "web"):
            machine = world.vm(name)
            instance = world.vmi(machine, name)
            launcher = world.delete(world.pod(instance), gracePeriodSeconds=1)
            found = [world.delete(machine), world.delete(instance), launcher]
            if name == "web":
                self.good = found
            else:
                self.odd = {body["kind"]: body for body in found}
        api.clock.advance(60)
        self.hostile: dict[str, Body] = {}
        self.handle = api.inject(self.spoil, times=None)

    def spoil(self, exchange: Exchange) -> None:
        """The right answer, with the hostile objects in the place of the odd ones."""
        answer = exchange.handle()
        is_object = exchange.request.method == "GET" and answer.body.startswith(b"{")
        if not is_object or not self.hostile:
            exchange.respond(answer)
            return
        body = json.loads(answer.body)
        replaced = {
            item["metadata"]["uid"]: self.hostile[kind]
            for kind, item in self.odd.items()
            if kind in self.hostile
        }

        def spoilt(item: Any) -> Any:
            uid = item.get("metadata", {}).get("uid")
            return replaced.get(uid, item) if isinstance(uid, str) else item

        if isinstance(body.get("items"), list):
            body["items"] = [spoilt(item) for item in body["items"]]
        content = dumps(spoilt(body))
        exchange.respond(Response(answer.status, content, answer.content_type, answer.headers))

    def bodies(self) -> list[Body]:
        """Every object of the cluster."""
        return [
            {"apiVersion": resource.api_version, "kind": resource.kind, **item}
            for resource in RESOURCES.values()
            for item in self.api.request("GET", resource.path(None))[1]["items"]
        ]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Simulator() as api:
        yield Stage(api, tmp_path_factory.mktemp("hostile"))


few = settings(
    max_examples=max(10, EXAMPLES // 3),
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # each example takes seconds
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def spoilt(stage: Stage, hostile: dict[str, tuple[tuple[str, ...], Any]]) -> dict[str, Body]:
    return {kind: changed(stage.odd[kind], path, value) for kind, (path, value) in hostile.items()}


def holds_for_others(
    run: Callable[..., Run], hostile: dict[str, tuple[tuple[str, ...], Any]], *, live: bool
) -> None:
    """What is true of `web` whatever is wrong with `odd`."""
    listed = run("list", "-A", "-o", "json")
    assert listed.status in (ExitStatus.OK, ExitStatus.INCOMPLETE), listed.err
    rows = [(row["kind"], row["name"]) for row in listed.json["items"]]
    assert ("VirtualMachine", "web") in rows
    assert ("VirtualMachineInstance", "web") in rows
    for words in (("list", "-A", "-o", "wide"), ("list", "-A", "-o", "yaml"), ("check", "-A"),
                  ("check", "-A", "-o", "json"), ("diagnose", "-A", "-o", "json"),
                  ("diagnose", "-A"), ("diagnose", "vm", "odd", "-n", "team")):  # fmt: skip
        done = run(*words)
        assert "Traceback" not in done.err
        assert "unexpected" not in done.out + done.err, done.out + done.err
    found = run("diagnose", "vm", "web", "-n", "team", "-o", "json")
    assert found.item["target"]["name"] == "web", found.err
    is_anybodys = "Pod" in hostile and hostile["Pod"][0] in RELATES
    if live and not is_anybodys:
        done = run("unstick", "vm", "web", "odd", *QUICK, "--node-powered-off", "node-dead",
                   "--dry-run=client", "-o", "json")  # fmt: skip
        outcomes = {item["target"]["name"]: item["outcome"] for item in done.json["items"]}
        assert outcomes["web"] == "planned", done.out
        assert "unexpected" not in done.out + done.err


@few
@given(hostile=HOSTILE)
def test_a_hostile_object_stops_no_command(
    stage: Stage, hostile: dict[str, tuple[tuple[str, ...], Any]]
) -> None:
    stage.hostile = spoilt(stage, hostile)
    try:
        holds_for_others(stage.world.run, hostile, live=True)
    finally:
        stage.hostile = {}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # open zips
@pytest.mark.parametrize("shape", ["json", "yaml", "documents", "bundle"])
@few
@given(hostile=HOSTILE)
def test_a_hostile_object_in_a_file_stops_no_command(
    stage: Stage, shape: str, hostile: dict[str, tuple[tuple[str, ...], Any]]
) -> None:
    replaced = {stage.odd[kind]["metadata"]["uid"]: body
                for kind, body in spoilt(stage, hostile).items()}  # fmt: skip
    bodies = [replaced.get(body["metadata"].get("uid"), body) for body in stage.bodies()]
    path = stage.world.directory / f"objects-{shape}"
    if shape == "json":
        path.write_bytes(dumps({"apiVersion": "v1", "kind": "List", "items": bodies}))
    else:
        try:
            text = fastyaml.dump({"apiVersion": "v1", "items": bodies, "kind": "List"})
            if shape == "documents":
                text = fastyaml.dump_all(bodies)
            path.write_text(text)
            if shape == "bundle":
                spaces = {body["metadata"]["namespace"] for body in stage.bodies()
                          if body["metadata"].get("namespace")}  # fmt: skip
                bundle.write(
                    path, bodies, created=timestamp(stage.api.clock.now()), collected=spaces
                )
        except (RecursionError, KeyError, TypeError, AttributeError, ValueError):
            return  # what writes the file cannot write that one

    def run(*words: str) -> Run:
        return stage.world.run(*words, "-f", str(path), environ={"KUBECONFIG": "/nonexistent"})

    holds_for_others(run, hostile, live=False)
    gc.collect()  # the zips of this test are closed in this test


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("Pod", ("metadata", "deletionGracePeriodSeconds"), 1 << 63),
        ("Pod", ("metadata", "deletionTimestamp"), "0001-01-01T00:00:00Z"),
        ("Pod", ("spec",), Deep(3000)),
        ("Pod", ("metadata", "annotations"), {"a": Deep(3000)}),
        ("VirtualMachine", ("metadata", "annotations"), Deep(3000)),
        ("VirtualMachine", ("metadata", "ownerReferences"), 7),
        ("VirtualMachine", ("metadata", "finalizers"), [7]),
        ("VirtualMachineInstance", ("spec", "terminationGracePeriodSeconds"), 1 << 63),
        ("VirtualMachineInstance", ("metadata", "deletionTimestamp"), "9999-12-31T23:59:59-14:00"),
        ("VirtualMachineInstance", ("status",), Deep(210)),
    ],
)
def test_each_of_these_is_unreadable_by_itself(
    stage: Stage, kind: str, path: tuple[str, ...], value: Any
) -> None:
    stage.hostile = {kind: changed(stage.odd[kind], path, value)}
    try:
        holds_for_others(stage.world.run, {kind: (path, value)}, live=True)
        done = stage.world.run("unstick", "vm", "odd", *QUICK, "--node-powered-off", "node-dead",
                               "--dry-run=client", "-o", "json")  # fmt: skip
        assert done.status in (ExitStatus.REFUSED, ExitStatus.ERROR), done.out
    finally:
        stage.hostile = {}


# The parts


@pytest.mark.parametrize("written", ODD_NUMBERS[:-1])
def test_what_is_no_number_of_seconds(written: Any) -> None:
    with pytest.raises(ValueError, match="seconds"):
        parse_seconds(written)
    assert parse_seconds(0) == timedelta(0)


@pytest.mark.parametrize("written", ODD_TIMES[:5])
def test_what_is_no_time(written: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
        parse_time(written)


def test_an_object_of_any_depth_is_told_from_its_list() -> None:
    deep = builders.vm("team", "deep", annotations={"a": "b"})
    deep["spec"] = nested(100_000)
    deep["metadata"]["managedFields"] = [nested(100_000)]
    items = [builders.vm("team", "one"), deep, builders.vm("team", "two")]
    content = dumps({"kind": "List", "items": items})
    started = time.monotonic()
    found = nesting.parse_answer(content)["items"]
    assert time.monotonic() - started < 5
    assert [found[0], found[2]] == [items[0], items[2]]
    assert isinstance(found[1], nesting.TooDeepObject)
    assert found[1].metadata_is_whole
    assert found[1]["metadata"]["annotations"] == {"a": "b"}
    found[1]["metadata"].update(uid="u", resourceVersion="1")
    read = KubeObject.identify(VM, found[1])
    assert read.labels == {}
    for look in (lambda: read.mapping("spec"), lambda: KubeObject.parse(VM, found[1])):
        with pytest.raises(UnreadableError, match="nested deeper"):
            look()


def test_metadata_are_whole_without_their_managed_fields() -> None:
    body = builders.vm("team", "web")
    body["metadata"]["managedFields"] = [nested(300)]
    found = nesting.parse_answer(dumps(body))
    assert found == builders.vm("team", "web")
    assert not isinstance(found, nesting.TooDeepObject)


@few
@given(
    levels=st.integers(0, 30),
    text=st.text('"[]{}\\a:,', max_size=30),
)
def test_depth_is_told_whatever_the_strings_are(levels: int, text: str) -> None:
    shallow = json.dumps([text, nested(levels), text]).encode()
    assert nesting.parse_answer(shallow) == [text, nested(levels), text]
    assert nesting.parse(shallow) == [text, nested(levels), text]
    deep = dumps({"kind": "x", "metadata": {"name": text}, "spec": [text, nested(400), text]})
    found = nesting.parse_answer(deep)
    if isinstance(found, nesting.TooDeepObject):
        assert found["metadata"] == {"name": text}


def test_what_stands_in_a_time_before_it_began_is_no_sign_of_life() -> None:
    with pytest.raises(ValueError, match="1970"):
        parse_time(before(timedelta(days=400 * 365)))
