"""Which result ends in which exit status: the table, and the one place that decides it."""

import itertools
import re
import signal
from pathlib import Path

import click
import pytest

import kubectl_harvester_stuck
from kubectl_harvester_stuck.cli import exit_status
from kubectl_harvester_stuck.cli.exit_status import gravest
from kubectl_harvester_stuck.diagnosis.diagnose import diagnose
from kubectl_harvester_stuck.diagnosis.run import DiagnosisReport
from kubectl_harvester_stuck.errors import (
    ApiError,
    BackupError,
    ExitStatus,
    NotFoundError,
    RefusedError,
    StatementError,
    StuckError,
)
from kubectl_harvester_stuck.harvester.target import Target
from kubectl_harvester_stuck.k8s.objects import Unreadable
from kubectl_harvester_stuck.listing.model import Listing
from kubectl_harvester_stuck.release import plan
from kubectl_harvester_stuck.release.model import (
    Failure,
    Outcome,
    ReleaseReport,
    ReleaseRequest,
    StepReport,
    StepStatus,
    TargetReport,
)
from kubectl_harvester_stuck.restore.decisions import Proposal, Restoration, RestoreOutcome
from tests.support.builders import NOW, snapshot
from tests.support.world import World
from tests.test_guards import TARGET, deleted_vm

PACKAGE = Path(kubectl_harvester_stuck.__file__).parent
ROOT = PACKAGE.parent
OK, ERROR, USAGE, STUCK, REFUSED, UNVERIFIED, INCOMPLETE = ExitStatus

CASE = Target(TARGET, snapshot(deleted_vm()))
PLAN = plan.build(CASE, ReleaseRequest())
GAP = Unreadable("pods", "shop", "Forbidden", "no")


def rows(text: str) -> list[str]:
    return re.findall(r"^\| \d \| .+ \|$", text, re.M)


def test_the_table_is_the_one_of_the_readme() -> None:
    told = rows(exit_status.__doc__ or "")
    assert told == rows((ROOT / "README.md").read_text())
    assert [row.split(" | ")[1] for row in told] == [status.name for status in ExitStatus]


def test_ctrl_c_ends_as_a_shell_expects() -> None:
    assert exit_status.INTERRUPTED == 128 + signal.SIGINT


def test_nothing_else_decides_how_a_command_ends() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.name != "exit_status.py":
            assert not re.findall(r"ExitStatus\.(?!OK\b)\w+", path.read_text()), path


def test_the_gravest_status_wins_in_the_order_of_the_table() -> None:
    (words,) = re.findall(r"^With several targets, (.+)\.$", exit_status.__doc__ or "", re.M)
    order = [ExitStatus(int(number)) for number in re.findall(r"\d", words)]
    assert order == [UNVERIFIED, ERROR, REFUSED, INCOMPLETE, STUCK, OK]
    for one, other in itertools.combinations(order, 2):
        assert gravest(other, one) is one
    with pytest.raises(ValueError, match="no part"):
        gravest()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RefusedError("no"), REFUSED),
        (StatementError("what?"), USAGE),
        (click.UsageError("what?"), USAGE),
        (click.ClickException("no"), ERROR),
        (NotFoundError("where?"), ERROR),
        (BackupError("full"), ERROR),
        (ApiError(403, "Forbidden", "no"), ERROR),
    ],
)
def test_an_error(error: StuckError | click.ClickException, status: ExitStatus) -> None:
    assert exit_status.of_error(error) is status


@pytest.mark.parametrize("targets", [0, 1])
@pytest.mark.parametrize("exit_code", [False, True])
def test_a_listing(targets: int, *, exit_code: bool) -> None:
    rows = (object(),) * targets

    def of(missing: tuple[Unreadable, ...], *, is_blind: bool = False) -> ExitStatus:
        found = Listing(rows, missing, NOW, is_blind)  # type: ignore[arg-type]
        return exit_status.of_listing(found, exit_code=exit_code)

    assert of(()) is (STUCK if targets and exit_code else OK)
    assert of((), is_blind=True) is of(())
    assert of((GAP,)) is INCOMPLETE
    assert of((GAP,), is_blind=True) is ERROR


def test_diagnoses() -> None:
    stuck = diagnose(CASE, PLAN)

    def of(*errors: StuckError, missing: tuple[Unreadable, ...] = (), **flags: bool) -> ExitStatus:
        failures = tuple(Failure(TARGET, error) for error in errors)
        found = (stuck,) if flags.get("is_stuck") else ()
        done = DiagnosisReport(found, failures, (), NOW)
        return exit_status.of_diagnoses(done, missing, exit_code=flags.get("exit_code", True))

    assert of() is OK
    assert of(is_stuck=True) is STUCK
    assert of(is_stuck=True, exit_code=False) is OK
    assert of(missing=(GAP,)) is INCOMPLETE
    assert of(NotFoundError("where?"), missing=(GAP,)) is ERROR
    assert of(StatementError("what?")) is USAGE


SUCCESS = {Outcome.GONE, Outcome.FREED, Outcome.PLANNED}
UNSEEN = {Outcome.STILL_THERE, Outcome.UNKNOWN}


@pytest.mark.parametrize("result", Outcome)
@pytest.mark.parametrize("changed", [False, True])
def test_a_target_that_was_released(result: Outcome, *, changed: bool) -> None:
    sent = (StepReport(PLAN.steps[0], StepStatus.DONE, changed),)
    done = ReleaseReport("", (TargetReport(PLAN, result, sent),))
    wanted = OK if result in SUCCESS else UNVERIFIED if changed or result in UNSEEN else REFUSED
    assert exit_status.of_release(done) is wanted


def test_a_release_of_several() -> None:
    gone, left = TargetReport(PLAN, Outcome.GONE), TargetReport(PLAN, Outcome.STILL_THERE)
    failure = Failure(TARGET, NotFoundError("where?"))
    refused = Failure(TARGET, RefusedError("no"))
    assert exit_status.of_release(ReleaseReport("", (gone,), (refused,))) is REFUSED
    assert exit_status.of_release(ReleaseReport("", (gone,), missing=(GAP,))) is INCOMPLETE
    assert exit_status.of_release(ReleaseReport("", (gone,), (failure,))) is ERROR
    assert exit_status.of_release(ReleaseReport("", (gone, left), (failure,))) is UNVERIFIED
    with pytest.raises(ValueError, match="no part"):
        exit_status.of_release(ReleaseReport(""))


def test_a_search_that_found_nothing() -> None:
    def of(*missing: Unreadable, is_blind: bool = False) -> ExitStatus:
        done = ReleaseReport("", missing=missing, found_nothing=True, is_blind=is_blind)
        return exit_status.of_release(done)

    assert of() is OK
    assert of(GAP) is INCOMPLETE
    assert of(GAP, is_blind=True) is ERROR


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (RestoreOutcome.CREATED, OK),
        (RestoreOutcome.PLANNED, OK),
        (RestoreOutcome.REFUSED, REFUSED),
        (RestoreOutcome.DENIED, REFUSED),
        (RestoreOutcome.UNKNOWN, UNVERIFIED),
    ],
)
def test_a_restoration(end: RestoreOutcome, status: ExitStatus) -> None:
    proposal = Proposal(None, {}, ())  # type: ignore[arg-type]
    assert exit_status.of_restoration(Restoration(proposal, end)) is status


@pytest.mark.parametrize(
    "words",
    [
        ("list", "--watch", "--exit-code"),
        ("diagnose", "vm", "web", "-A"),
        ("unstick", "vm"),
        ("unstick", "vm", "web", "--yes", "--confirm", "0"),
        ("restore", "/nowhere", "--redact", "--yes"),
    ],
)
def test_wrong_flags_are_said_whatever_the_kubeconfig_holds(
    world: World, words: tuple[str, ...]
) -> None:
    run = world.run(*words, "--kubeconfig", "/nowhere")
    assert run.status is USAGE, run.err
