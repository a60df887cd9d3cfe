"""The journal and the Events of a release, on the simulated and on the real API server."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from kubectl_harvester_stuck.errors import ApiError, ExitStatus
from tests.behaviour.test_unstick import _grant, _touch, power_off
from tests.support.builders import VM_FINALIZER, VMI_FINALIZERS
from tests.support.relay import Answer, Passed, PassOn, failure
from tests.support.world import Run, World, acting_before, is_dry_run


def pairs(world: World) -> list[tuple[Any, Any]]:
    """The two lines of each change, in the order of the first ones."""
    lines = world.journal()
    begun = [line for line in lines if line["phase"] == "before"]
    ended = {line["id"]: line for line in lines if line["phase"] == "after"}
    assert len(lines) == len(begun) + len(ended)
    assert len({line["id"] for line in begun}) == len(begun)
    return [(line, ended.get(line["id"])) for line in begun]


def test_each_change_is_told_before_and_after(world: World) -> None:
    machine, instance, launcher = world.power_cut()
    run = world.unstick(*power_off(world))
    assert run.status is ExitStatus.OK, run.out + run.err
    told = pairs(world)
    assert [first["object"]["uid"] for first, _ in told] == [
        item["metadata"]["uid"] for item in (launcher, instance, machine)
    ]
    assert [first["action"] for first, _ in told] == ["delete-pod", "patch", "patch"]
    for first, second in told:
        assert second["outcome"] == "done"
        assert first["user"] == "admin"
        assert "userUnknown" not in first
        assert first["context"] == "test"
        assert first["server"] == world.api.url
        assert first["digest"] == run.json["digest"]
        assert first["target"]["uid"] == machine["metadata"]["uid"]
        assert first["backup"] == run.item["backup"]
        assert first["poweredOff"] == [world.dead]
        assert first["overrides"] == first["leaveBehind"] == []
        assert set(first) == set(second) - {"outcome", "after"}
    assert len({first["run"] for first, _ in told}) == 1
    (_, _, (vm, after)) = told
    assert vm["before"] == {
        "resourceVersion": machine["metadata"]["resourceVersion"],
        "finalizers": [VM_FINALIZER],
    }
    assert vm["patch"]["metadata"]["finalizers"] == []
    assert after["after"]["finalizers"] == []
    assert told[0][0]["before"].keys() == {"resourceVersion"}
    assert told[1][0]["before"]["finalizers"] == list(VMI_FINALIZERS)
    assert "spec" not in json.dumps(told)


def test_what_was_written_is_on_the_disk_before_it_is_sent(world: World) -> None:
    world.delete(world.vm())
    seen: list[list[Any]] = []
    with acting_before(
        world, "virtualmachines/web", lambda: seen.append(world.journal())
    ) as environ:
        world.unstick("--yes", environ=environ)
    ((line,),) = seen
    assert line["phase"] == "before"
    assert len(world.journal()) == 2


def test_the_journal_is_private(world: World) -> None:
    world.delete(world.vm())
    (world.directory / "state").mkdir()
    world.state.mkdir(mode=0o755)
    world.unstick("--yes")
    path = world.state / "journal.jsonl"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_change_that_failed_is_told_with_its_outcome(world: World) -> None:
    _, instance, _ = world.power_cut()
    with acting_before(
        world, "virtualmachineinstances/web", lambda: _touch(world, instance)
    ) as environ:
        world.unstick(*power_off(world), environ=environ)
    outcomes = [(second["outcome"].split(":")[0], second["after"]) for _, second in pairs(world)]
    assert [outcome for outcome, _ in outcomes] == ["done", "conflict"]
    assert outcomes[1][1] is None
    (event,) = world.events()
    assert event["involvedObject"]["kind"] == "Pod"


def test_what_was_passed_by_word_is_told(world: World) -> None:
    unknown = "example.com/unknown"
    world.delete(world.vm("web", VM_FINALIZER, unknown))
    run = world.unstick("--yes", "--finalizer", unknown, "--timeout=0")
    assert run.status is ExitStatus.UNVERIFIED
    ((first, second),) = pairs(world)
    assert first["before"]["finalizers"] == [unknown, VM_FINALIZER]
    assert first["leaveBehind"] == [unknown]
    assert second["after"]["finalizers"] == [VM_FINALIZER]
    (event,) = world.events()
    assert event["type"] == "Warning"
    assert f"the work of {unknown} is not done" in event["message"]


def test_a_guard_that_was_overridden_is_told(world: World) -> None:
    world.namespace = f"cattle-{world.namespace}"
    world.delete(world.vm())
    run = world.unstick("--yes", "--override", "not-system")
    assert run.status is ExitStatus.OK, run.out + run.err
    ((first, _),) = pairs(world)
    assert first["overrides"] == ["not-system"]
    (event,) = world.events()
    assert "guard not-system was overridden" in event["message"]


def test_nothing_is_told_of_a_refusal_or_a_dry_run(world: World) -> None:
    world.delete(world.vm("web", "example.com/unknown"))
    assert world.unstick("--yes").status is ExitStatus.REFUSED
    world.delete(world.vm("db"))
    world.unstick("vm", "db", "--dry-run=server")
    assert not (world.state / "journal.jsonl").exists()
    assert world.events() == []


def test_an_event_says_on_the_object_what_was_done(world: World) -> None:
    machine = world.delete(world.vm())
    assert world.unstick("--yes").status is ExitStatus.OK
    ((first, _),) = pairs(world)
    (event,) = world.events()
    assert event["metadata"]["name"] == f"web.{first['id']}"
    assert event["reason"] == "FinalizersRemoved"
    assert event["action"] == "RemoveFinalizers"
    assert event["reportingComponent"] == "kubectl-harvester-stuck"
    assert event["reportingInstance"]
    assert event["type"] == "Normal"
    assert VM_FINALIZER in event["message"]
    assert "by admin" in event["message"]
    assert event["involvedObject"] == {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "namespace": world.namespace,
        "name": "web",
        "uid": machine["metadata"]["uid"],
        "resourceVersion": machine["metadata"]["resourceVersion"],
    }
    # Both groups serve the same objects.
    path = f"/apis/events.k8s.io/v1/namespaces/{world.namespace}/events"
    name = event["metadata"]["name"]
    status, same = world.api.request("GET", f"{path}/{name}")
    assert status == 200
    assert same["metadata"]["uid"] == event["metadata"]["uid"]
    assert same["note"] == event["message"]
    assert same["regarding"] == event["involvedObject"]
    assert same["eventTime"].startswith(first["time"][:-1])
    chosen = f"{path}?fieldSelector=regarding.uid={machine['metadata']['uid']}"
    assert [item["metadata"]["name"] for item in world.api.request("GET", chosen)[1]["items"]] == [
        name
    ]


@pytest.mark.parametrize(
    ("field", "value", "cause"),
    [
        ("eventTime", None, "Required value"),
        ("reportingController", None, "Required value"),
        ("reportingInstance", None, "Required value"),
        ("reportingInstance", "x" * 129, 'Invalid value: "": can have at most 128 characters'),
        ("action", None, "Required value"),
        ("action", "x" * 129, 'Invalid value: "": can have at most 128 characters'),
        ("reason", None, "Required value"),
        ("type", "Odd", 'Invalid value: "": has invalid value: Odd'),
        ("note", "é" * 513, 'Invalid value: "": can have at most 1024 characters'),
        ("note", "é" * 512, None),
    ],
    ids=lambda value: str(value)[:8],
)
def test_the_servers_take_and_refuse_the_same_events(
    world: World, field: str, value: str | None, cause: str | None
) -> None:
    world.vm()
    sent: dict[str, Any] = {
        "metadata": {"name": "web.1"},
        "eventTime": "2026-11-25T10:00:00.000000Z",
        "reportingController": "kubectl-harvester-stuck",
        "reportingInstance": "here",
        "action": "RemoveFinalizers",
        "reason": "FinalizersRemoved",
        "regarding": {"namespace": world.namespace, "name": "web"},
        "note": "done",
        "type": "Normal",
        field: value,
    }
    path = f"/apis/events.k8s.io/v1/namespaces/{world.namespace}/events"
    status, answer = world.api.request("POST", path, sent)
    if cause is None:
        assert status == 201, answer
        assert answer["deprecatedSource"] == {}
        return
    assert (status, answer["reason"]) == (422, "Invalid")
    first = answer["details"]["causes"][0]
    assert (first["field"], first["message"]) == (
        "message" if field == "note" else field,
        cause,
    )


def test_an_event_of_the_core_group_is_read_in_both(world: World) -> None:
    world.vm()
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "web.1", "namespace": world.namespace},
        "involvedObject": {"namespace": world.namespace, "name": "web"},
        "message": "so it is",
        "lastTimestamp": "2026-11-25T10:00:00Z",
    }
    made = world.create(event)
    path = f"/apis/events.k8s.io/v1/namespaces/{world.namespace}/events/web.1"
    status, same = world.api.request("GET", path)
    assert status == 200
    same["metadata"].pop("managedFields", None)
    made["metadata"].pop("managedFields", None)
    assert same == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": made["metadata"],
        "regarding": event["involvedObject"],
        "note": "so it is",
        "eventTime": None,
        "deprecatedSource": {},
        "deprecatedFirstTimestamp": None,
        "deprecatedLastTimestamp": "2026-11-25T10:00:00Z",
    }
    world.api.request("DELETE", path)
    assert world.events() == []


def test_diagnose_shows_the_event_of_a_change(world: World) -> None:
    unknown = "example.com/unknown"
    world.delete(world.vm("web", VM_FINALIZER, unknown))
    world.unstick("--yes", "--finalizer", unknown, "--timeout=0")
    (event,) = world.run("diagnose", "vm", "web", "-o", "json").item["events"]
    assert f"Warning FinalizersRemoved VirtualMachine web: removed {unknown}" in event


def test_a_user_who_may_not_create_events_releases_all_the_same(world: World) -> None:
    machine = world.delete(world.vm())
    _grant(
        world,
        "bob",
        (["kubevirt.io"], ["*"], ["*"]),
        (["*"], ["*"], ["get", "list"]),
    )
    run = world.unstick("--yes", user="bob")
    assert run.status is ExitStatus.OK, run.out + run.err
    assert world.now(machine) is None
    assert "vents" not in run.err + run.out
    assert world.events() == []
    ((first, second),) = pairs(world)
    assert (first["user"], second["outcome"]) == ("bob", "done")


def test_the_user_is_the_one_who_is_acted_for(world: World) -> None:
    world.delete(world.vm())
    run = world.unstick("--yes", "--as", "eve", "--as-group", "system:masters")
    assert run.status is ExitStatus.OK, run.out + run.err
    assert [line["user"] for line in world.journal()] == ["eve", "eve"]


def test_a_user_that_cannot_be_asked_for_stops_nothing(world: World) -> None:
    world.delete(world.vm())

    def between(request: Passed, pass_on: PassOn) -> Answer | None:
        return failure(ApiError(404, "", "not served")) if request.is_first else pass_on()

    with world.past(between) as environ:
        assert world.unstick("--yes", environ=environ).status is ExitStatus.OK
    for line in world.journal():
        assert line["user"] is None
        assert "not served" in line["userUnknown"]


full_disk = pytest.mark.in_process("a disk that is full between two lines is made by a patch")


def unwritable(world: World) -> None:
    """Put something into the place of the journal that nobody can write to."""
    path = world.state / "journal.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def elsewhere(world: World) -> None:
    path = world.state / "journal.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(world.directory / "elsewhere")


@pytest.mark.parametrize("spoil", [unwritable, elsewhere])
def test_without_a_first_line_nothing_is_sent(world: World, spoil: Callable[[World], None]) -> None:
    machine = world.delete(world.vm())
    spoil(world)
    run = world.unstick("--yes", "--backup-dir", str(world.directory / "backups"))
    assert run.status is ExitStatus.ERROR
    assert world.finalizers(machine) == [VM_FINALIZER]
    assert world.sent() == []
    (line,) = [line for line in run.err.splitlines() if line.startswith("error:")]
    assert str(world.state / "journal.jsonl") in line
    assert not (world.directory / "elsewhere").exists()


@full_disk
def test_a_journal_that_fails_before_the_first_change_says_that_nothing_was_changed(
    world: World,
) -> None:
    machine = world.delete(world.vm())
    run = _full_disk(world, after=0)
    assert run.status is ExitStatus.ERROR
    assert "nothing was changed" in run.err
    assert "XDG_STATE_HOME" in run.err
    assert world.finalizers(machine) == [VM_FINALIZER]
    assert world.sent() == []


@full_disk
def test_a_journal_that_fails_later_stops_the_run_and_tells_what_was_sent(world: World) -> None:
    machine, instance, launcher = world.power_cut()
    run = _full_disk(world, after=2, words=power_off(world))
    assert run.status is ExitStatus.UNVERIFIED
    assert run.item["outcome"] == "still-there"
    assert "nothing more was sent" in run.item["reason"]
    assert [step["status"] for step in run.item["steps"]] == ["done", "not sent", "not sent"]
    assert world.now(launcher) is None
    assert world.finalizers(instance) == list(VMI_FINALIZERS)
    assert world.finalizers(machine) == [VM_FINALIZER]


@full_disk
def test_a_second_line_that_cannot_be_written_changes_no_outcome_but_is_told(
    world: World,
) -> None:
    machine = world.delete(world.vm())
    run = _full_disk(world, after=1)
    assert run.status is ExitStatus.OK
    assert run.item["outcome"] == "gone"
    assert world.now(machine) is None
    assert "warning: VirtualMachine" in run.err
    assert "No space left on device" in run.err
    ((_, second),) = pairs(world)
    assert second is None


def _full_disk(world: World, after: int, words: tuple[str, ...] = ("--yes",)) -> Run:
    """`unstick` on a disk that takes so many more lines of the journal."""
    write, left = os.write, [None] * after

    def full(handle: int, content: bytes) -> int:
        if b"harvester-stuck/journal" not in content:
            return write(handle, content)
        if not left:
            raise OSError(28, os.strerror(28))
        left.pop()
        return write(handle, content)

    with mock.patch("kubectl_harvester_stuck.state.journal.os.write", full):
        return world.unstick(*words)


def test_two_runs_after_each_other_stand_in_one_journal(world: World) -> None:
    for name in ("web", "db"):
        world.delete(world.vm(name))
        assert world.unstick("vm", name, "--yes").status is ExitStatus.OK
    assert [first["object"]["name"] for first, _ in pairs(world)] == ["web", "db"]
    run = world.run("journal")
    header, *rows = run.out.splitlines()
    assert header.split() == ["WHEN", "USER", "OBJECT", "CHANGE", "OUTCOME"]
    assert [row.split()[1:] for row in rows] == [
        ["admin", "VM", f"{world.namespace}/{name}", "-1", "finalizer", "done"]
        for name in ("web", "db")
    ]
    document = world.run("journal", "-o", "json").json
    assert document["schema"] == "harvester-stuck/journal/v1"
    assert [item["outcome"] for item in document["items"]] == ["done", "done"]
    assert world.run("journal", "-n", "elsewhere").err == (
        "Nothing has been changed yet in elsewhere namespace.\n"
    )


def test_a_name_selects_a_release_with_its_pod(world: World) -> None:
    world.power_cut()
    assert world.unstick("--node-powered-off", world.dead, "--yes").status is ExitStatus.OK
    world.delete(world.vm("db"))
    assert world.unstick("vm", "db", "--yes").status is ExitStatus.OK

    def told(*words: str) -> list[str]:
        items = world.run("journal", *words, "-o", "json").json["items"]
        return [item["object"]["name"] for item in items]

    everything = ["virt-launcher-web-x7k2p", "web", "web", "db"]
    assert told() == told("--since", "1h") == everything
    for words in (("web",), ("vm", "web"), (f"{world.namespace}/web",), ("vmi/web",)):
        assert told(*words) == everything[:3]
    assert told("web", "db") == everything
    assert told("virt-launcher-web-x7k2p") == everything[:1]
    assert told("elsewhere/web") == told("we") == told("-n", "elsewhere", "web") == []


def test_the_journal_asks_no_cluster(world: World, tmp_path: Path) -> None:
    world.delete(world.vm())
    world.unstick("--yes")
    world.api.forget()
    run = world.run("journal", environ=world.environ(KUBECONFIG=str(tmp_path / "none")))
    assert run.status is ExitStatus.OK
    assert world.api.recorded() == []


def test_many_workers_write_whole_lines(world: World) -> None:
    world.dead_node()
    names = [f"web-{number}" for number in range(12)]
    for name in names:
        world.delete(world.vm(name))
    run = world.run("unstick", "vm", *names, "--yes", "--older-than=0", "--settle=0", "-o", "json")
    assert run.status is ExitStatus.OK, run.out
    told = pairs(world)
    assert sorted(first["object"]["name"] for first, _ in told) == sorted(names)
    assert all(second["outcome"] == "done" for _, second in told)
    assert not any(is_dry_run(item) for item in world.sent())
