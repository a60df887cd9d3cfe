"""`list -o prometheus`, read by the official parser of the format."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from kubectl_harvester_stuck import render
from kubectl_harvester_stuck.errors import ExitStatus
from kubectl_harvester_stuck.harvester.target import State
from kubectl_harvester_stuck.k8s.kinds import VM, VMI, Kind
from kubectl_harvester_stuck.k8s.objects import ObjectRef, Unreadable
from kubectl_harvester_stuck.listing.model import Listing, StuckObject
from kubectl_harvester_stuck.render.invocation import Invocation
from tests.support import builders
from tests.support.builders import NOW
from tests.support.simulator import Simulator, faults
from tests.support.world import World

WHERE = Invocation("test", "https://server")
GAP = Unreadable("pods", None, "Forbidden", "no right")

Sample = tuple[str, frozenset[tuple[str, str]]]


def samples(text: str) -> dict[Sample, float]:
    """Every sample; each once, and with the type that it must have."""
    found: dict[Sample, float] = {}
    for family in text_string_to_metric_families(text):
        assert (family.type, bool(family.documentation)) == ("gauge", True)
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def sample(name: str, /, **labels: str) -> Sample:
    return name, frozenset(labels.items())


def target(
    namespace: str, name: str, *, kind: Kind = VM, state: State = State.TERMINATING, age: int = 0
) -> StuckObject:
    ref = ObjectRef(namespace, name, kind)
    return StuckObject(ref, "uid", "1", state, NOW - timedelta(seconds=age), (), None)


def rendered(
    *targets: StuckObject, missing: tuple[Unreadable, ...] = (), blind: bool = False
) -> str:
    return render.listing(Listing(targets, missing, NOW, blind), "prometheus", WHERE)


def test_objects_are_counted_and_each_has_its_seconds() -> None:
    text = rendered(
        target("shop", "web", age=90),
        target("shop", "web", kind=VMI, age=60),
        target("shop", "db", age=30),
        target("lab", "x", state=State.NOT_READY, age=5),
    )
    vm = {"kind": "VirtualMachine", "state": "Terminating", "namespace": "shop"}
    vmi = {**vm, "kind": "VirtualMachineInstance"}
    lab = {**vm, "namespace": "lab", "state": "NotReady"}
    assert samples(text) == {
        sample("harvester_stuck_objects", **vm): 2,
        sample("harvester_stuck_objects", **vmi): 1,
        sample("harvester_stuck_objects", **lab): 1,
        sample("harvester_stuck_seconds", **vm, name="web"): 90,
        sample("harvester_stuck_seconds", **vm, name="db"): 30,
        sample("harvester_stuck_seconds", **vmi, name="web"): 60,
        sample("harvester_stuck_seconds", **lab, name="x"): 5,
        sample("harvester_stuck_list_complete"): 1,
        sample("harvester_stuck_list_timestamp_seconds"): NOW.timestamp(),
    }


def test_the_order_does_not_depend_on_that_of_the_rows() -> None:
    rows = [target("b", "x", age=9), target("a", "y", age=1), target("a", "x", age=2)]
    assert rendered(*rows) == rendered(*reversed(rows))


def test_nothing_stuck_is_said_by_a_complete_list_without_objects() -> None:
    assert samples(rendered()) == {
        sample("harvester_stuck_list_complete"): 1,
        sample("harvester_stuck_list_timestamp_seconds"): NOW.timestamp(),
    }


def test_a_gap_is_a_metric_and_what_could_be_read_is_there() -> None:
    found = samples(rendered(target("shop", "web"), missing=(GAP,)))
    assert found[sample("harvester_stuck_list_complete")] == 0
    assert len(found) == 4


def test_what_could_not_be_read_at_all_is_absent_and_not_zero() -> None:
    text = rendered(missing=(GAP,), blind=True)
    assert set(samples(text)) == {
        sample("harvester_stuck_list_complete"),
        sample("harvester_stuck_list_timestamp_seconds"),
    }
    assert samples(text)[sample("harvester_stuck_list_complete")] == 0
    assert "harvester_stuck_objects" not in text
    assert "harvester_stuck_seconds" not in text


def test_a_clock_that_runs_ahead_gives_no_negative_age() -> None:
    found = samples(rendered(target("shop", "web", age=-5)))
    assert min(found.values()) == 0


ODD = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from('\\"\n\r{},=# '), max_size=12
)


@given(st.dictionaries(st.tuples(ODD, ODD), st.integers(0, 10**9), max_size=5))
def test_any_name_comes_back_as_it_is(ages: dict[tuple[str, str], int]) -> None:
    text = rendered(*(target(*key, age=age) for key, age in ages.items()))
    text.encode()
    found = {
        (labels["namespace"], labels["name"]): value
        for (name, pairs), value in samples(text).items()
        if name == "harvester_stuck_seconds" and (labels := dict(pairs))
    }
    assert found == ages


def test_what_is_no_text_is_still_written() -> None:
    assert 'name="a?"' in rendered(target("shop", "a\ud800"))


def simulated(server: Simulator, directory: Path) -> World:
    return World(server, directory, "shop", "dead", "live")


def test_a_command_that_failed_prints_nothing(simulator: Simulator, tmp_path: Path) -> None:
    handle = simulator.inject(faults.close(), times=None)
    try:
        run = simulated(simulator, tmp_path).run("list", "-A", "-o", "prometheus")
    finally:
        handle.remove()
    assert (run.status, run.out) == (ExitStatus.ERROR, "")
    assert run.err


def test_no_other_command_has_the_format(simulator: Simulator, tmp_path: Path) -> None:
    place = simulated(simulator, tmp_path)
    for command in (("diagnose",), ("unstick", "vm", "web"), ("finalizers",), ("journal",)):
        run = place.run(*command, "-o", "prometheus")
        assert (run.status, run.out) == (ExitStatus.USAGE, ""), command


def test_files_are_as_old_as_they_say(tmp_path: Path) -> None:
    dead = builders.stored(builders.vm("shop", "web"), deleted=builders.ago(minutes=5))
    file = tmp_path / "objects.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [dead]}))
    os.utime(file, (NOW.timestamp(), NOW.timestamp()))
    # It asks no cluster, so there is none.
    place = World(None, tmp_path, "shop", "", "")  # type: ignore[arg-type]
    home = {"HOME": str(tmp_path)}
    found = samples(place.run("list", "-f", str(file), "-o", "prometheus", environ=home).out)
    assert found[sample("harvester_stuck_list_timestamp_seconds")] == NOW.timestamp()
    vm = {"namespace": "shop", "kind": "VirtualMachine", "name": "web", "state": "Terminating"}
    assert found[sample("harvester_stuck_seconds", **vm)] == 300
