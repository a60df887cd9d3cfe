"""The file of the journal, and what is shown of it: torn lines, cut off runs, private files."""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from kubectl_harvester_stuck import render
from kubectl_harvester_stuck.errors import BackupError, ExitStatus, JournalError, StateError
from kubectl_harvester_stuck.harvester.target import State
from kubectl_harvester_stuck.k8s.kinds import POD, VM
from kubectl_harvester_stuck.k8s.objects import ObjectRef
from kubectl_harvester_stuck.release.change import Change, Who, event
from kubectl_harvester_stuck.release.model import Action, Plan, Step, StepReport, StepStatus
from kubectl_harvester_stuck.render.screen import Screen
from kubectl_harvester_stuck.state import journal, private_files
from kubectl_harvester_stuck.state.backups import Backups
from kubectl_harvester_stuck.state.private_files import state_directory
from tests.support.simulator import Simulator
from tests.support.world import World

NOW = datetime(2026, 11, 25, 10, 0, 0, tzinfo=timezone.utc)
SECRET = "cloud-init-secret"


def change(number: int = 1, *, run: str = "r1", name: str = "web-1") -> Change:
    ref = ObjectRef("shop", name, VM)
    meta = {"uid": "u", "resourceVersion": "7", "finalizers": ["b"]}
    step = Step(Action.PATCH, ref, "u", "7", {"metadata": meta}, removes=("a",), keeps=("b",))
    plan = Plan(ref, "u", "7", State.TERMINATING, NOW, None, (step,), (), ())
    return Change(f"id-{number}", run, NOW, Who("jane"), "d1", plan, step, "/backup.json")


def deletion() -> Change:
    ref = ObjectRef("shop", "virt-launcher-web-1-x7k2p", POD)
    step = Step(Action.DELETE_POD, ref, "p", "8", {"gracePeriodSeconds": 0})
    plan = replace(change().plan, steps=(step,))
    return replace(change(2), plan=plan, step=step)


@pytest.fixture
def book(tmp_path: Path) -> journal.Journal:
    return journal.Journal(tmp_path / "state", "prod", "https://x", "1", lambda: NOW)


def text(book: journal.Journal) -> str:
    return (book.directory / journal.FILE).read_text()


OLD = """\
{"schema":"harvester-stuck/journal/v1","phase":"before","id":"a1","run":"r1",\
"time":"2026-11-24T09:00:00Z","user":"jane","context":"prod","server":"https://x",\
"version":"0.1.0","digest":"d1","target":{"apiVersion":"kubevirt.io/v1","kind":"VirtualMachine",\
"namespace":"shop","name":"web-1","uid":"u"},"action":"patch","object":{"apiVersion":\
"kubevirt.io/v1","kind":"VirtualMachine","namespace":"shop","name":"web-1","uid":"u",\
"resourceVersion":"7"},"before":{"resourceVersion":"7","finalizers":["a"]},"patch":{"metadata":\
{"uid":"u","resourceVersion":"7","finalizers":[]}},"overrides":["not-system"],"poweredOff":["n1"],\
"leaveBehind":[],"backup":"/backup.json"}
{"schema":"harvester-stuck/journal/v1","phase":"after","id":"a1","run":"r1",\
"time":"2026-11-24T09:00:01Z","user":"jane","context":"prod","server":"https://x",\
"version":"0.1.0","digest":"d1","target":{"apiVersion":"kubevirt.io/v1","kind":"VirtualMachine",\
"namespace":"shop","name":"web-1","uid":"u"},"action":"patch","object":{"apiVersion":\
"kubevirt.io/v1","kind":"VirtualMachine","namespace":"shop","name":"web-1","uid":"u",\
"resourceVersion":"7"},"before":{"resourceVersion":"7","finalizers":["a"]},"patch":{"metadata":\
{"uid":"u","resourceVersion":"7","finalizers":[]}},"overrides":["not-system"],"poweredOff":["n1"],\
"leaveBehind":[],"backup":"/backup.json","outcome":"conflict: the object has been modified",\
"after":null}
"""
"""Two lines as the version before wrote them, when an outcome was a text alone."""


def test_what_an_earlier_version_wrote_is_read_and_written_on(book: journal.Journal) -> None:
    book.directory.mkdir()
    (book.directory / journal.FILE).write_text(OLD)
    report = StepReport(change().step, StepStatus.CONFLICT, changed=False, message="it moved")
    book.begin(change())
    book.end(change(), report.text, None)
    old, new = journal.read(book.directory).changes
    assert old["outcome"] == "conflict: the object has been modified"
    assert new["outcome"] == "conflict: it moved"
    assert set(old) == set(new)
    table = render.journal([old, new], "table", NOW)
    assert [line.split()[-1] for line in table.splitlines()] == ["OUTCOME", "conflict", "conflict"]
    assert "not-system" in render.journal([old], "wide", NOW)


def test_an_outcome_is_written_as_before() -> None:
    step = change().step
    assert {status.value for status in StepStatus} == {
        "planned", "done", "already gone", "conflict", "denied", "unknown"
    }  # fmt: skip
    assert StepReport(step, StepStatus.DONE, changed=True).text == "done"
    assert StepReport(step, StepStatus.DENIED, changed=False, message="no").text == "denied: no"


def test_a_change_is_two_lines_with_one_id(book: journal.Journal) -> None:
    book.begin(change())
    answer = {
        "metadata": {"uid": "u", "resourceVersion": "9", "finalizers": ["b"]},
        "spec": {"userData": SECRET},
    }
    book.end(change(), "done", answer)
    first, second = map(json.loads, text(book).splitlines())
    assert first["id"] == second["id"]
    assert (first["phase"], second["phase"]) == ("before", "after")
    assert first["before"] == {"resourceVersion": "7", "finalizers": ["a", "b"]}
    assert second["after"] == {"resourceVersion": "9", "finalizers": ["b"]}
    assert SECRET not in text(book)
    (told,) = journal.read(book.directory).changes
    assert told["outcome"] == "done"
    assert told["endedAt"] == told["time"] == "2026-11-25T10:00:00Z"


def test_an_answer_about_another_object_is_not_told_as_the_change(book: journal.Journal) -> None:
    book.begin(change())
    book.end(change(), "done", {"kind": "Status", "metadata": {}})
    assert journal.read(book.directory).changes[0]["after"] is None


def test_a_torn_line_costs_only_itself(book: journal.Journal) -> None:
    book.begin(change(1))
    book.end(change(1), "done", None)
    path = book.directory / journal.FILE
    with path.open("a") as file:
        file.write('{"schema": "harvester-stuck/journal/v1", "pha')
    book.begin(change(2))
    found = journal.read(book.directory)
    assert [item["id"] for item in found.changes] == ["id-1", "id-2"]
    assert found.broken == 1


def test_a_line_of_which_only_a_part_was_taken_is_not_written(book: journal.Journal) -> None:
    write = os.write
    half = mock.patch(
        "kubectl_harvester_stuck.state.journal.os.write",
        lambda handle, line: write(handle, line[: len(line) // 2]),
    )
    with half, pytest.raises(JournalError, match="No space left"):
        book.begin(change(1))
    book.begin(change(2))
    assert [item["id"] for item in journal.read(book.directory).changes] == ["id-2"]


@pytest.mark.parametrize(
    "line",
    ["", "[]", "null", "{}", "\ufffd",
     '{"schema": "harvester-stuck/journal/v1", "phase": "before"}',
     '{"schema": "other/v1", "id": "x", "phase": "before"}', "[" * 100_000],
    ids=range(8),
)  # fmt: skip
def test_lines_of_others_are_left_out(book: journal.Journal, line: str) -> None:
    book.begin(change())
    with (book.directory / journal.FILE).open("a") as file:
        file.write(f"{line}\n")
    found = journal.read(book.directory)
    assert [item["id"] for item in found.changes] == ["id-1"]
    assert found.broken == bool(line)


def test_only_the_end_of_a_long_journal_is_read(book: journal.Journal) -> None:
    for number in range(50):
        book.begin(change(number))
        book.end(change(number), "done", None)
    found = journal.read(book.directory, limit=5000)
    assert found.broken == 0
    assert 0 < len(found.changes) < 6
    assert found.changes[-1]["id"] == "id-49"
    assert len(journal.read(book.directory).changes) == 50


def test_a_second_line_whose_first_is_out_of_sight_is_no_cut_off_change(
    book: journal.Journal,
) -> None:
    book.begin(change())
    size = len(text(book))
    book.end(change(), "done", None)
    found = journal.read(book.directory, limit=len(text(book)) - size + 10)
    assert len(found.changes) == 1
    assert found.cut_off == ()


def test_the_last_run_was_cut_off_if_one_of_its_changes_has_no_end(book: journal.Journal) -> None:
    assert journal.read(book.directory).cut_off == ()
    book.begin(change(1))
    assert [item["id"] for item in journal.read(book.directory).cut_off] == ["id-1"]
    book.begin(change(2))
    book.end(change(2), "done", None)
    assert [item["id"] for item in journal.read(book.directory).cut_off] == ["id-1"]
    book.begin(change(3, run="r2"))
    book.end(change(3, run="r2"), "done", None)
    assert journal.read(book.directory).cut_off == ()


def test_the_file_and_its_directory_are_made_private(book: journal.Journal) -> None:
    book.directory.mkdir(mode=0o755)
    path = book.directory / journal.FILE
    path.touch(mode=0o644)
    book.begin(change())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(book.directory.stat().st_mode) == 0o700


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_only_a_file_is_written_to(book: journal.Journal, kind: str) -> None:
    book.directory.mkdir()
    path, other = book.directory / journal.FILE, book.directory / "other"
    if kind == "link":
        other.touch()
        path.symlink_to(other)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(JournalError, match="XDG_STATE_HOME") as caught:
        book.begin(change())
    assert "\n" not in str(caught.value)
    assert kind != "pipe" or "it is not a file" in str(caught.value)
    assert kind != "link" or other.read_text() == ""
    if kind != "link":
        with pytest.raises(JournalError, match="cannot read the journal"):
            journal.read(book.directory)


@pytest.mark.parametrize("kind", ["file", "link", "link to nothing"])
def test_a_backup_follows_and_overwrites_nothing(tmp_path: Path, kind: str) -> None:
    backups = Backups(tmp_path / "backups", "prod", "https://x", "1", NOW, pytest.fail)
    path = Path(backups.save(change().plan, (), "d1"))
    path.unlink()
    other = tmp_path / "other"
    if kind != "link to nothing":
        other.write_text("mine")
    if kind == "file":
        other.rename(path)
    else:
        path.symlink_to(other)
    with pytest.raises(BackupError, match="File exists; nothing was changed"):
        backups.save(change().plan, (), "d1")
    assert (other if kind == "link" else path).exists() is (kind != "link to nothing")
    assert kind == "link to nothing" or path.read_text() == "mine"


@pytest.mark.parametrize(
    ("mode", "uid", "why"),
    [
        (0o600, 1000, ""),
        (0o644, 1000, ""),
        (0o644, 0, ""),
        (0o660, 1000, "can be written to by others"),
        (0o602, 1000, "can be written to by others"),
        (0o602, 0, "can be written to by others"),
        (0o600, 1001, "belongs to another user"),
    ],
)
def test_whose_a_file_is(mode: int, uid: int, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    status = os.stat_result((stat.S_IFREG | mode, 0, 0, 1, uid, 0, 0, 0, 0, 0))
    assert private_files.why_foreign(status) == why


@pytest.mark.parametrize("theirs", ["link", "directory"])
def test_nothing_is_written_into_a_state_directory_of_another(
    book: journal.Journal, tmp_path: Path, theirs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root in the home of somebody else must not be led by a link to a directory of its own."""
    other = tmp_path / "other"
    other.mkdir(mode=0o755)
    book.directory.symlink_to(other)
    looks = {"link": Path.lstat, "directory": Path.stat}
    real = looks[theirs]

    def look(path: Path, **more: Any) -> os.stat_result:
        found = real(path, **more)
        owned = [*found[:4], found.st_uid + 1, *found[5:10]]
        return os.stat_result(owned) if path == book.directory else found

    with monkeypatch.context() as patched:
        patched.setattr(Path, real.__name__, look)
        with pytest.raises(JournalError, match=r"belongs to another user; set XDG_STATE_HOME"):
            book.begin(change())
    assert list(other.iterdir()) == []
    assert stat.S_IMODE(other.stat().st_mode) == 0o755
    with monkeypatch.context() as patched:
        patched.setattr(Path, real.__name__, look)
        patched.setattr(journal, "FULL", 0)
        (other / journal.FILE).write_text("{}\n")
        with pytest.raises(JournalError):
            book.begin(change())
    assert [file.name for file in other.iterdir()] == [journal.FILE], "a file of theirs was renamed"
    (other / journal.FILE).unlink()
    book.begin(change())  # a link of one's own is followed
    assert stat.S_IMODE(other.stat().st_mode) == 0o700


def test_a_link_that_root_made_is_followed(
    book: journal.Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root can lay any journal anywhere."""
    own = tmp_path / "own"
    own.mkdir()
    book.directory.symlink_to(own)
    user = own.stat().st_uid + 1000
    real = Path.stat

    def look(path: Path, **more: Any) -> os.stat_result:
        found = real(path, **more)
        is_link = not more.get("follow_symlinks", True)
        owner = found.st_uid if path != book.directory else 0 if is_link else user
        return os.stat_result([*found[:4], owner, *found[5:10]])

    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(Path, "stat", look)
    book.begin(change())
    assert len(journal.read(book.directory).changes) == 1


def test_threads_do_not_mix_their_lines(book: journal.Journal) -> None:
    def work(worker: int) -> None:
        own = replace(book)
        for number in range(20):
            own.begin(change(worker * 100 + number, name="x" * 60))

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = journal.read(book.directory)
    assert (len(found.changes), found.broken) == (160, 0)


# Where it is


def test_the_state_directory_is_where_the_environment_says() -> None:
    own = "kubectl-harvester-stuck"
    for environ, below in (
        ({"XDG_STATE_HOME": "/state", "HOME": "/me"}, "/state"),
        ({"XDG_STATE_HOME": "/state", "HOME": ""}, "/state"),
        ({"XDG_STATE_HOME": "", "HOME": "/me"}, "/me/.local/state"),
        ({"HOME": "/me"}, "/me/.local/state"),
        ({}, f"{Path.home()}/.local/state"),
    ):
        assert state_directory(environ) == Path(below) / own


def test_a_user_without_a_home_directory_is_told_what_to_set() -> None:
    nobody = mock.patch.object(Path, "home", side_effect=RuntimeError("no home"))
    with nobody, pytest.raises(StateError, match="set HOME or XDG_STATE_HOME"):
        state_directory({})


# Files that are full


def of(book: journal.Journal) -> dict[str, str | None]:
    """The outcome of each change in the journal, whichever file it is in."""
    found = journal.read(book.directory)
    assert found.broken == 0
    return {item["id"]: item.get("outcome") for item in found.changes}


def files(book: journal.Journal) -> list[Path]:
    return sorted(book.directory.glob("journal*.jsonl"))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that are full after a change or two, all of which are kept."""
    monkeypatch.setattr(journal, "FULL", 2500)


@pytest.mark.usefixtures("small")
def test_a_journal_that_is_full_makes_room_and_stays_one_journal(book: journal.Journal) -> None:
    book.begin(change(0))
    for number in range(1, 20):
        book.begin(change(number))
        book.end(change(number), "done", None)
    book.end(change(0), "denied", None)
    assert len(files(book)) > 5
    assert all(path.stat().st_size < 4000 for path in files(book))
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files(book))
    assert of(book) == {"id-0": "denied", **{f"id-{number}": "done" for number in range(1, 20)}}
    assert [item["id"] for item in journal.read(book.directory).changes][:3] == [
        "id-0", "id-1", "id-2",
    ]  # fmt: skip
    assert 0 < len(journal.read(book.directory, limit=5000).changes) < 8


@pytest.mark.usefixtures("small")
def test_a_run_that_was_cut_off_is_seen_in_a_file_that_was_full(book: journal.Journal) -> None:
    book.begin(change(1))
    with (book.directory / journal.FILE).open("a") as file:
        file.write("\n" * 3000)
    book.begin(change(2))
    assert len(files(book)) == 2
    found = journal.read(book.directory, limit=journal.TAIL)
    assert [item["id"] for item in found.cut_off] == ["id-1", "id-2"]


@pytest.mark.usefixtures("small")
def test_a_change_without_an_end_outlives_its_file(
    book: journal.Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "KEPT", 5000)
    book.begin(change(0, run="r0"))
    book.begin(change(1, run="r0"))
    for number in range(2, 60):
        book.begin(change(number))
        book.end(change(number), "done", None)
    assert sum(path.stat().st_size for path in files(book)) < 15_000
    seen = of(book)
    assert "id-2" not in seen
    assert (seen["id-0"], seen["id-1"], seen["id-59"]) == (None, None, "done")
    assert journal.read(book.directory).cut_off == ()
    book.end(change(0, run="r0"), "done", None)
    for number in range(60, 99):
        book.begin(change(number))
        book.end(change(number), "done", None)
    seen = of(book)
    assert "id-0" not in seen
    assert seen["id-1"] is None


CANNOT = {
    "rename": mock.patch.object(Path, "rename", side_effect=PermissionError(13, "no")),
    "lock": mock.patch.object(fcntl, "flock", side_effect=OSError(37, "No locks available")),
}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("failing", CANNOT.values(), ids=CANNOT)
def test_a_file_that_cannot_be_renamed_grows_on(book: journal.Journal, failing: Any) -> None:
    with failing:
        for number in range(9):
            book.begin(change(number))
    assert len(files(book)) == 1
    assert len(of(book)) == 9


@pytest.mark.usefixtures("small")
def test_what_is_no_file_under_the_name_of_one_stops_no_change_and_is_named(
    book: journal.Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "KEPT", 5000)
    book.begin(change(0))
    pipe = book.directory / "journal-20260101T000000000000Z-00000000.jsonl"
    os.mkfifo(pipe)
    for number in range(1, 30):
        book.begin(change(number))
    assert pipe.is_fifo()
    assert journal.read(book.directory, limit=500).broken == 0, "only the last file is needed"
    with pytest.raises(JournalError, match=pipe.name) as caught:
        journal.read(book.directory)
    assert "it is not a file" in str(caught.value)
    pipe.unlink()
    assert len(of(book)) == 30


@pytest.mark.usefixtures("small")
def test_no_file_is_renamed_while_another_run_writes_to_it(book: journal.Journal) -> None:
    for number in range(4):
        book.begin(change(number))
    full = len(files(book))
    writing = os.open(book.directory, os.O_RDONLY)
    fcntl.flock(writing, fcntl.LOCK_SH)
    for number in range(4, 9):
        book.begin(change(number))
    assert len(files(book)) == full
    os.close(writing)
    book.begin(change(9))
    assert len(files(book)) == full + 1
    assert len(of(book)) == 10


def test_a_line_waits_until_another_run_has_renamed_the_file(book: journal.Journal) -> None:
    book.begin(change(0))
    renaming = os.open(book.directory, os.O_RDONLY)
    fcntl.flock(renaming, fcntl.LOCK_EX)
    thread = threading.Thread(target=book.begin, args=(change(1),))
    thread.start()
    thread.join(0.3)
    assert list(of(book)) == ["id-0"]
    os.close(renaming)
    thread.join(20)
    assert list(of(book)) == ["id-0", "id-1"]


def test_a_run_that_was_stopped_while_it_renames_stops_no_other(
    book: journal.Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    book.begin(change(0))
    monkeypatch.setattr(journal, "PATIENCE", 0.2)
    renaming = os.open(book.directory, os.O_RDONLY)
    fcntl.flock(renaming, fcntl.LOCK_EX)
    thread = threading.Thread(target=book.begin, args=(change(1),), daemon=True)
    thread.start()
    thread.join(20)
    assert list(of(book)) == ["id-0", "id-1"]
    os.close(renaming)


@pytest.mark.parametrize("kept", [journal.KEPT, 60_000])
def test_processes_lose_no_change_while_files_become_full(book: journal.Journal, kept: int) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from kubectl_harvester_stuck.state import journal\n"
        "from tests.test_journal import NOW, change\n"
        f"journal.FULL, journal.KEPT = 3000, {kept}\n"
        "book = journal.Journal(Path(sys.argv[1]), 'prod', 'https://x', '1', lambda: NOW)\n"
        "for number in range(60):\n"
        "    one = change(int(sys.argv[2]) * 1000 + number)\n"
        "    book.begin(one)\n"
        "    number % 7 or book.end(one, 'done', None)\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(book.directory), str(number)])
        for number in range(4)
    ]
    assert [process.wait(120) for process in running] == [0] * 4
    seen = of(book)
    done = {f"id-{process * 1000 + number}" for process in range(4) for number in range(0, 60, 7)}
    assert {id_ for id_, outcome in seen.items() if outcome is None} == {
        f"id-{process * 1000 + number}" for process in range(4) for number in range(60)
    } - done
    assert kept == 60_000 or done < seen.keys()
    assert len(files(book)) > 1


# What is shown


@pytest.fixture
def world(simulator: Simulator, tmp_path: Path) -> World:
    return World(simulator, tmp_path, "nowhere", "node-dead", "node-live")


def kept(world: World) -> journal.Journal:
    return journal.Journal(world.state, "prod", "https://x", "1", lambda: NOW)


def test_an_empty_journal_is_no_error(world: World) -> None:
    run = world.run("journal")
    assert (run.status, run.out) == (ExitStatus.OK, "")
    assert run.err == "Nothing has been changed yet.\n"
    document = world.run("journal", "-o", "json")
    assert document.json == {"schema": "harvester-stuck/journal/v1", "items": []}
    assert document.err == ""


@pytest.mark.parametrize("words", [(), ("web",), ("-o", "json")], ids=" ".join)
def test_a_line_that_cannot_be_read_is_no_all_clear(world: World, words: tuple[str, ...]) -> None:
    kept(world).begin(change())
    (world.state / journal.FILE).write_text("{broken\n")
    run = world.run("journal", *words)
    assert run.status is ExitStatus.INCOMPLETE
    assert "Nothing has been changed" not in run.err
    assert run.err.startswith("left out 1 line of ")


def test_a_change_without_an_end_is_interrupted(world: World) -> None:
    kept(world).begin(change())
    run = world.run("journal")
    assert run.out.splitlines()[1].endswith("   interrupted")
    assert run.err.endswith("to finish, give the same command again.\n")
    assert world.run("journal", "-o", "json").err == ""
    (item,) = world.run("journal", "-o", "json").json["items"]
    assert (item["outcome"], item["after"]) == ("interrupted", None)


def test_unstick_says_that_the_last_run_was_cut_off(world: World) -> None:
    kept(world).begin(change())
    run = world.unstick("--yes")
    (line,) = [line for line in run.err.splitlines() if line.startswith("warning:")]
    for part in ("2026-11-25T10:00:00Z", "jane", "prod", "patch VirtualMachine shop/web-1",
                 "the same command again"):  # fmt: skip
        assert part in line
    assert "  kubectl harvester-stuck journal" in run.err.splitlines()
    assert "warning" not in world.unstick("--dry-run=client").err
    kept(world).end(change(), "done", None)
    assert "warning" not in world.unstick("--yes").err


def test_the_journal_loads_no_client(world: World) -> None:
    kept(world).begin(change())
    code = (
        "import sys\n"
        "from kubectl_harvester_stuck.cli import main as cli\n"
        "assert not cli.run(['journal', '-o', 'json'])\n"
        "heavy = {'kubernetes', 'urllib3', 'yaml', 'tabulate'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=world.environ(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["items"]


def test_the_namespace_is_taken_before_and_after_the_command(world: World) -> None:
    kept(world).begin(change())
    for words in (("-n", "shop", "journal"), ("journal", "-n", "shop")):
        assert "web-1" in world.run(*words).out
    for words in (("-n", "lab", "journal"), ("journal", "-n", "lab")):
        run = world.run(*words)
        assert (run.status, run.out) == (ExitStatus.OK, "")
        assert run.err == "Nothing has been changed yet in lab namespace.\n"


def test_since_selects_and_hides_no_change_whose_time_cannot_be_read(world: World) -> None:
    for ago, number in ((timedelta(minutes=1), 1), (timedelta(hours=3), 2)):
        when = datetime.now(timezone.utc) - ago
        kept(world).begin(replace(change(number, name=f"web-{number}"), time=when))

    def told(since: str) -> set[str]:
        items = world.run("journal", "--since", since, "-o", "json").json["items"]
        return {item["object"]["name"] for item in items}

    assert told("2m") == {"web-1"}
    assert told("4h") == told("99999d") == {"web-1", "web-2"}
    assert told("1s") == set()
    assert (
        world.run("journal", "--since", "10s").err == "Nothing has been changed in the last 10s.\n"
    )
    path = world.state / journal.FILE
    path.write_text(re.sub(r'"time": *"[^"]*"', '"time":"soon"', path.read_text()))
    assert told("1s") == {"web-1", "web-2"}


def test_lines_that_cannot_be_read_are_counted(world: World) -> None:
    kept(world).begin(change())
    with (world.state / journal.FILE).open("a") as file:
        file.write("torn\n")
    run = world.run("journal")
    assert run.status is ExitStatus.INCOMPLETE
    assert "left out 1 line" in run.err
    assert "web-1" in run.out


def test_a_journal_that_cannot_be_read_is_a_document_where_one_was_asked_for(
    world: World,
) -> None:
    (world.state / journal.FILE).mkdir(parents=True)
    run = world.run("journal", "-o", "json")
    assert run.status is ExitStatus.ERROR
    assert run.json["schema"] == "harvester-stuck/journal/v1"
    assert run.json["error"]["exitStatus"] == 1


def shown(*changes: dict[str, Any], wide: bool = False, headers: bool = True) -> str:
    output, screen = "wide" if wide else "table", Screen(width=80)
    now = NOW + timedelta(minutes=9)
    return render.journal(changes, output, now, headers=headers, screen=screen)


def told(book: journal.Journal, *items: Change, user: str = "jane") -> list[dict[str, Any]]:
    for item in items:
        book.begin(replace(item, who=Who(user)))
        book.end(item, "done", None)
    return [dict(item) for item in journal.read(book.directory).changes]


def test_the_table_fits_whatever_the_user_is_called(book: journal.Journal) -> None:
    user = "system:serviceaccount:some-namespace:a-long-name"
    changes = told(book, change(), deletion(), user=user)
    lines = shown(*changes).splitlines()
    assert all(len(line) <= 80 for line in lines), lines
    assert lines[0].split() == ["WHEN", "USER", "OBJECT", "CHANGE", "OUTCOME"]
    assert lines[1].split()[0] == "9m"
    assert "long-name" in lines[1]
    assert "Pod shop/virt-launcher-web-1-x7k2p   delete " in lines[2]
    wide = shown(*changes, wide=True)
    assert user in wide
    assert "2026-11-25T10:00:00Z" in wide
    assert "removed a" in wide
    bare = shown(*changes, headers=False).splitlines()
    assert [line.split() for line in bare] == [line.split() for line in lines[1:]]


def test_names_are_those_of_kubectl(book: journal.Journal) -> None:
    changes = told(book, change(), deletion())
    assert render.journal(changes, "name", NOW) == (
        "virtualmachine.kubevirt.io/web-1\npod/virt-launcher-web-1-x7k2p\n"
    )


def test_a_journal_that_was_meddled_with_is_shown_safely() -> None:
    changes: list[dict[str, Any]] = [
        {"id": "1", "user": "\x1b[2J", "object": "no", "before": 3, "patch": [], "time": None},
        {"id": "2", "object": {"name": "\x07"}, "patch": {"metadata": 1}, "outcome": 5},
    ]
    for output in ("table", "wide", "name", "json", "yaml"):
        text = render.journal(changes, output, NOW)
        assert "\x1b" not in text
        assert "\x07" not in text


# The Event


def test_an_event_fits_what_the_api_server_takes() -> None:
    ref = ObjectRef("shop", "x" * 253, VM)
    step = replace(change().step, ref=ref, removes=tuple(f"{'é' * 60}/{n}" for n in range(20)))
    long = replace(change(), id="a" * 32, step=step)
    body = event(long, "h" * 300)
    assert len(body["note"].encode()) <= 1024
    assert body["note"].endswith("...")
    assert len(body["reportingInstance"]) == 128
    assert len(body["metadata"]["name"]) <= 253
    assert event(change(), "")["reportingInstance"]
    assert event(deletion(), "h")["reason"] == "PodForceDeleted"


def test_an_event_is_a_warning_when_it_rests_on_somebodys_word() -> None:
    assert event(change(), "h")["type"] == "Normal"
    vouched = replace(change(), plan=replace(change().plan, powered_off=("node-2",)))
    body = event(vouched, "h")
    assert body["type"] == "Warning"
    assert "node node-2 is said to have no power" in body["note"]
