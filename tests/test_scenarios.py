"""GitHub issues, told as objects: what `diagnose` and `unstick --dry-run=server` say to each.

Every file in tests/scenarios is one issue. Its header holds the story, the time at which it is
looked at, what admission would answer, and what is expected; its objects are those of the thread.
Where a thread leaves its cause open, the story says which one is told here. To add one: a file,
named after its issue.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from examples import bundle
from kubectl_harvester_stuck.cli import main
from kubectl_harvester_stuck.diagnosis.findings import FINDINGS, id_of
from kubectl_harvester_stuck.diagnosis.model import Verdict
from kubectl_harvester_stuck.errors import ExitStatus
from kubectl_harvester_stuck.k8s.objects import parse_time
from tests.recorded import Recorded
from tests.simulator import Simulator
from tests.world import Run, World, is_dry_run

SCENARIOS = Path(__file__).parent / "scenarios"
FILES = sorted(SCENARIOS.glob("*.yaml"))

NEEDED = frozenset(
    {"harvester-8003", "harvester-3539", "harvester-5788", "harvester-4033", "harvester-5515",
     "harvester-6047", "harvester-3529", "harvester-6024", "harvester-9788", "harvester-10294",
     "harvester-8649", "kubevirt-8104"}
)  # fmt: skip

WIDTH = 80


@dataclass(frozen=True)
class Told:
    """One issue, and everything that the program said to it."""

    scenario: dict[str, Any]
    diagnosis: Run
    screen: Run
    offline: Run
    release: Run
    recorded: list[Recorded]
    sent: list[Recorded]

    @property
    def expect(self) -> dict[str, Any]:
        expect: dict[str, Any] = self.scenario["expect"]
        return expect


@contextmanager
def scene(
    scenario: dict[str, Any], directory: Path, program: Path | None = None
) -> Iterator[World]:
    """The issue on a cluster of its own, at the issue's own time."""
    with Simulator() as api:
        api.clock.stop(parse_time(scenario["now"]))
        for body in scenario["objects"]:
            api.seed(body)
        _admit(api, scenario)
        yield World(api, directory, scenario["namespace"], "", "", program=program)


@pytest.fixture(scope="module", params=FILES, ids=lambda path: path.stem)
def told(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, program: Path | None
) -> Iterator[Told]:
    """One issue, and what the program says to it."""
    scenario = yaml.safe_load(request.param.read_text())
    with scene(scenario, tmp_path_factory.mktemp("scenario"), program) as world:
        kind, _, name = scenario["target"].partition("/")
        flags = scenario["expect"]["unstick"]["flags"]
        yield Told(
            scenario,
            world.run("diagnose", scenario["target"], "--no-logs", "-o", "json"),
            world.run("diagnose", scenario["target"]),
            offline(world, scenario),
            world.run("unstick", kind, name, *flags, "--dry-run=server", "-o", "json"),
            world.api.recorded(),
            world.sent(),
        )


def offline(world: World, scenario: dict[str, Any]) -> Run:
    """The same objects in a support bundle, with no cluster in reach."""
    bodies = [world.api.get(body) or {} for body in scenario["objects"]]
    spaces = {body["metadata"]["namespace"] for body in bodies if body["metadata"].get("namespace")}
    spaces |= {"harvester-system", "longhorn-system", "kube-node-lease", scenario["namespace"]}
    bodies += [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": name}}
        for name in spaces
    ]
    path = bundle.write(
        world.directory / "supportbundle.zip", bodies, created=scenario["now"], collected=spaces
    )
    words = ("diagnose", scenario["target"], "-n", scenario["namespace"], "-f", str(path))
    return world.run(*words, "--no-logs", "-o", "json", environ={"KUBECONFIG": "/nonexistent"})


def _admit(api: Simulator, scenario: dict[str, Any]) -> None:
    """Let admission answer as it does in the story."""
    for key, register in (("denial", api.deny_updates), ("unreachable", api.break_webhook)):
        if key in scenario:
            said = dict(scenario[key])
            register(said.pop("resource"), namespace=scenario["namespace"], **said)


def test_the_diagnosis_is_the_one_that_the_story_calls_for(told: Told) -> None:
    assert told.diagnosis.status is ExitStatus.OK, told.diagnosis.err
    item = told.diagnosis.item
    seen = {finding["id"]: finding["summary"] for finding in item["findings"]}
    assert set(told.expect["findings"]) <= set(seen), seen
    assert (item["target"]["state"], item["verdict"]) == (
        told.expect["state"],
        told.expect["verdict"],
    ), item["reason"]
    assert f"{item['verdict']}: " in told.screen.out
    for finding in told.expect["findings"]:
        assert f"  {finding}:" in told.screen.out


def test_a_next_step_leads_out_of_it(told: Told) -> None:
    wanted = told.expect.get("nextStep")
    steps = told.diagnosis.item["nextSteps"]
    if wanted is None:
        assert told.expect["state"] is None, "what is stuck has a next step"
        assert not any(step.startswith("kubectl harvester-stuck unstick") for step in steps)
        return
    assert [step for step in steps if wanted in step], steps


def test_the_release_ends_as_the_story_calls_for(told: Told) -> None:
    wanted = ExitStatus(told.expect["unstick"]["status"])
    assert told.release.status is wanted, told.release.out
    outcome = "planned" if wanted is ExitStatus.OK else told.release.item["outcome"]
    assert told.release.item["outcome"] == outcome
    assert bool(told.release.item["refusals"]) is (wanted is ExitStatus.REFUSED)


def test_release_is_the_verdict_exactly_where_a_release_without_flags_would_go(told: Told) -> None:
    refused = any(guard["result"] != "pass" for guard in told.diagnosis.item["guards"])
    assert (told.diagnosis.item["verdict"] == Verdict.RELEASE.value) is not refused


def test_everything_that_the_diagnosis_needs_can_be_read(told: Told) -> None:
    assert told.diagnosis.json["incomplete"] == []
    assert told.diagnosis.item["notLookedFor"] == []


def test_every_command_that_is_printed_can_be_parsed(told: Told) -> None:
    for step in told.diagnosis.item["nextSteps"]:
        if step.startswith("#"):
            continue
        words = shlex.split(step)
        assert words[0] in ("kubectl", "virtctl"), step
        if words[:2] == ["kubectl", "harvester-stuck"]:
            command, *rest = words[2:]
            # The context fails with click's usage error where the flags are wrong.
            main.cli.commands[command].make_context(command, rest)


def test_the_screen_fits_a_terminal(told: Told) -> None:
    top, _, steps = told.screen.out.partition("\nNext steps\n")
    assert all(line.startswith("  ") for line in steps.splitlines())
    lines = [*top.splitlines(), *(line for line in steps.splitlines() if line.startswith("  #"))]
    assert lines
    for line in lines:
        assert len(line) <= WIDTH or _is_one_word(line), line


def _is_one_word(line: str) -> bool:
    return " " not in line.strip(" │├└─|`-")


def test_nothing_was_sent_but_reads_reviews_and_dry_runs(told: Told) -> None:
    assert told.sent == []
    assert told.recorded
    for item in told.recorded:
        assert item.method == "GET" or "reviews" in item.path or is_dry_run(item)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_is_named_after_its_issue_and_says_what_it_tells(path: Path) -> None:
    scenario = yaml.safe_load(path.read_text())
    match = re.fullmatch(
        r"(harvester)/harvester#(\d+)|(kubevirt)/kubevirt#(\d+)", scenario["issue"]
    )
    assert match, scenario["issue"]
    name = "-".join(part for part in match.groups() if part)
    assert re.fullmatch(rf"{name}(-[a-z-]+)?", path.stem)
    assert scenario["title"]
    assert scenario["story"].count(". ") >= 1
    assert set(scenario) <= {"issue", "title", "story", "now", "target", "namespace", "denial",
                             "unreachable", "expect", "objects"}  # fmt: skip
    expect = scenario["expect"]
    assert set(expect) - {"nextStep"} == {"state", "verdict", "findings", "unstick"}
    assert set(expect["unstick"]) == {"flags", "status"}
    assert Verdict(expect["verdict"])
    assert expect["findings"]
    assert set(expect["findings"]) <= {id_of(look) for look in FINDINGS}


def test_no_issue_is_forgotten() -> None:
    assert {path.stem for path in FILES} >= NEEDED


def test_files_give_the_diagnosis_that_the_cluster_gives(told: Told) -> None:
    """All of it, apart from what only a live API server answers: rights and admission."""
    live, seen = told.diagnosis.item, told.offline.item
    is_denied = any(one["id"] == "webhook-denies" for one in live["findings"])
    for item in (live, seen):
        item["guards"] = [one for one in item["guards"] if one["id"] not in UNASKED]
        item["notLookedFor"] = [one for one in item["notLookedFor"] if "live API" not in one]
        if is_denied:
            # The dry run's words are missing, and with them what follows from them; not its causes.
            item["findings"] = [one for one in item["findings"] if one["id"] not in OF_THE_DRY_RUN]
            del item["nextSteps"], item["reason"]
    assert told.diagnosis.json["takenAt"] == told.offline.json["takenAt"] == told.scenario["now"]
    assert seen == live


UNASKED = ("permitted", "webhooks-accept")
OF_THE_DRY_RUN = ("webhook-denies", "ready-to-release")
