"""Situations of the field, told as objects: what the program says to each of them.

Every file in tests/scenarios is one scene: an issue, or a situation that the controllers' own code
leads into. Its header holds the story, the time at which it is looked at, what admission would
answer, and what is expected; its objects are those of the thread. Where a thread leaves its cause
open, the story says which one is told here. To add one: a file, named after its issue.

    issue: harvester/harvester#8003     or   source: the code that leads into it
    title, story, now, target, namespace
    nodes: {oak: answers, elm: silent}  nodes in one word, and Harvester's own workloads with them
    denial, unreachable                 what admission answers
    open: one line                      the program is wrong here, and this is how
    expect:
      state, verdict, findings          of `diagnose`: a state of null is not stuck, and not listed;
                                        of several verdicts, any is right
      nextStep                          what a next step must hold, or a list of that
      says                              what the screen of `diagnose` must hold
      never                             what no next step, plan or text of any command may hold
      guard                             the guard that must refuse a release with the flags below
      finalizerStates                   {name: state}
      goes, stays                       objects that the release destroys, and that it leaves
      untouched                         objects that no step of a plan may be about
      checks                            {id: result} of `check`
      unstick: {flags: [], status: 0}   how a release with these flags must end

A scene that is `open` has to fail: once the program is right, the word has to go.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from examples import bundle
from kubectl_harvester_stuck.cli import main
from kubectl_harvester_stuck.errors import ExitStatus
from tests.support import fastyaml
from tests.support.recorded import Recorded
from tests.support.simulator import Simulator
from tests.support.world import Run, World, is_dry_run

SCENARIOS = Path(__file__).parent / "scenarios"
FILES = sorted(SCENARIOS.glob("*.yaml"))

NEEDED = frozenset(
    {"harvester-8003", "harvester-3539", "harvester-5788", "harvester-4033", "harvester-5515",
     "harvester-6047", "harvester-3529", "harvester-6024", "harvester-9788", "harvester-10294",
     "harvester-8649", "kubevirt-8104"}
)  # fmt: skip

WIDTH = 80

WORKLOADS = ("virt-api", "virt-controller", "harvester", "harvester-webhook",
             "harvester-load-balancer")  # fmt: skip
ANSWERS = {
    "wait": "WAIT",
    "repair": "REPAIR FIRST",
    "release": "READY TO RELEASE",
    "refuse": "NEEDS YOU",
    "none": "not stuck, nothing to do",
}
"""What the screen makes of a verdict."""

UNASKED = ("permitted", "webhooks-accept")
OF_THE_DRY_RUN = ("webhook-denies", "ready-to-release")

Body = dict[str, Any]


@dataclass(frozen=True)
class Told:
    """One scene, and everything that the program said to it."""

    scenario: dict[str, Any]
    diagnosis: Run
    screen: Run
    offline: Run
    listing: Run
    check: Run | None
    release: Run
    recorded: list[Recorded]
    sent: list[Recorded]

    @property
    def title(self) -> str:
        """How the screen calls the target."""
        kind, _, name = self.scenario["target"].partition("/")
        return f"{kind.upper()} {self.scenario['namespace']}/{name}"

    @property
    def expect(self) -> dict[str, Any]:
        expect: dict[str, Any] = self.scenario["expect"]
        return expect

    @property
    def runs(self) -> tuple[Run, ...]:
        return (self.diagnosis, self.screen, self.offline, self.listing, self.release)


@contextmanager
def scene(
    scenario: dict[str, Any], directory: Path, program: Path | None = None
) -> Iterator[World]:
    """The scene on a cluster of its own, at its own time."""
    with Simulator() as api:
        api.clock.stop(_time(scenario["now"]))
        for body in objects(scenario):
            api.seed(body)
        _admit(api, scenario)
        yield World(api, directory, scenario["namespace"], "", "", program=program)


def objects(scenario: dict[str, Any]) -> list[Body]:
    """Everything that is there: what `nodes` stands for, and what the scene spells out."""
    bodies: list[Body] = []
    if "nodes" in scenario:
        bodies += [_workload(name) for name in WORKLOADS]
    for name, how in scenario.get("nodes", {}).items():
        bodies += _node(
            name, _time(scenario["now"]), answers={"answers": True, "silent": False}[how]
        )
    bodies += scenario["objects"]
    return list({_key(body): body for body in bodies}.values())


def _key(body: Body) -> tuple[str, ...]:
    metadata = body["metadata"]
    return (body["apiVersion"], body["kind"], metadata.get("namespace", ""), metadata["name"])


def _workload(name: str) -> Body:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"namespace": "harvester-system", "name": name},
        "spec": {"replicas": 2},
        "status": {"replicas": 2, "availableReplicas": 2},
    }


def _node(name: str, now: datetime, *, answers: bool) -> list[Body]:
    """A node, a year old, with its Lease and virt-handler; a silent one is so for 50 minutes."""
    seen = now - (timedelta(seconds=20) if answers else timedelta(minutes=50))
    taint = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}
    return [
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": name,
                "uid": f"node-{name}",
                "creationTimestamp": f"{now - timedelta(days=365):%Y-%m-%dT%H:%M:%SZ}",
                "annotations": {"kubevirt.io/heartbeat": f"{seen:%Y-%m-%dT%H:%M:%SZ}"},
            },
            "spec": {} if answers else {"taints": [taint]},
            "status": {
                "conditions": [{"type": "Ready", "status": "True" if answers else "Unknown"}]
            },
        },
        {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"namespace": "kube-node-lease", "name": name},
            "spec": {"holderIdentity": name, "renewTime": f"{seen:%Y-%m-%dT%H:%M:%S.000000Z}"},
        },
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "namespace": "harvester-system",
                "name": f"virt-handler-{name}",
                "labels": {"kubevirt.io": "virt-handler"},
            },
            "spec": {"nodeName": name, "containers": [{"name": "virt-handler", "image": "x"}]},
            "status": {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": str(answers)}],
            },
        },
    ]


def _time(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)


@pytest.fixture(scope="module", params=FILES, ids=lambda path: path.stem)
def told(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, program: Path | None
) -> Told:
    """One scene, and what the program says to it."""
    return tell(
        fastyaml.load(request.param.read_text()), tmp_path_factory.mktemp("scenario"), program
    )


def tell(scenario: dict[str, Any], directory: Path, program: Path | None = None) -> Told:
    """What the program says to the scene."""
    with scene(scenario, directory, program) as world:
        kind, _, name = scenario["target"].partition("/")
        flags = scenario["expect"]["unstick"]["flags"]
        return Told(
            scenario,
            world.run("diagnose", scenario["target"], "--no-logs", "-o", "json"),
            world.run("diagnose", scenario["target"], environ=world.environ(COLUMNS=str(WIDTH))),
            offline(world, scenario),
            world.run("list", "-o", "json"),
            world.run("check", "-o", "json") if "checks" in scenario["expect"] else None,
            world.run("unstick", kind, name, *flags, "--dry-run=server", "-o", "json"),
            world.api.recorded(),
            world.sent(),
        )


def offline(world: World, scenario: dict[str, Any]) -> Run:
    """The same objects in a support bundle, with no cluster in reach."""
    bodies = [world.api.get(body) or {} for body in sorted(objects(scenario), key=_key)]
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


# What is expected. Each of these yields what is wrong with the answer.


def _the_diagnosis(told: Told) -> Iterator[str]:
    expect, item = told.expect, told.diagnosis.item
    if "state" in expect and item["target"]["state"] != expect["state"]:
        yield f"state: {item['target']['state']}, and not {expect['state']}"
    if item["verdict"] not in _each(expect["verdict"]):
        yield f"verdict: {item['verdict']}, and not {expect['verdict']} ({item['reason']})"
    seen = {finding["id"]: finding["summary"] for finding in item["findings"]}
    for finding in expect.get("findings", ()):
        if finding not in seen or _flat(seen[finding]) not in _flat(told.screen.out):
            yield f"finding {finding}: not in {seen}"
    for name, state in expect.get("finalizerStates", {}).items():
        states = {one["state"] for one in item["finalizers"] if one["name"] == name}
        if states != {state}:
            yield f"finalizer {name}: {states or 'not judged'}, and not {state}"
    for words in expect.get("says", ()):
        if words not in _flat(told.screen.out):
            yield f"the screen does not say: {words}"


def _the_next_step(told: Told) -> Iterator[str]:
    steps = told.diagnosis.item["nextSteps"]
    for words in _each(told.expect.get("nextStep", [])):
        if not any(words in step for step in steps):
            yield f"no next step holds {words!r}: {steps}"
    for step in steps:
        if not told.expect.get("state", "any") and "harvester-stuck unstick" in step:
            yield f"nothing is stuck, and a next step is {step!r}"


def _the_list(told: Told) -> Iterator[str]:
    kind, _, name = told.scenario["target"].partition("/")
    wanted = {"vm": "VirtualMachine", "vmi": "VirtualMachineInstance"}[kind]
    rows = [
        row["state"]
        for row in told.listing.json["items"]
        if (row["kind"], row["name"]) == (wanted, name)
    ]
    state = told.expect.get("state", "any")
    if state != "any" and rows != ([state] if state else []):
        yield f"list shows it as {rows or 'nothing'}, and not as {state or 'nothing'}"


def _the_checks(told: Told) -> Iterator[str]:
    for name, wanted in told.expect.get("checks", {}).items():
        assert told.check is not None
        results = {item["result"] for item in told.check.json["items"] if item["id"] == name}
        if wanted not in results:
            yield f"check {name}: {results}, and not {wanted}"


def _the_release(told: Told) -> Iterator[str]:
    wanted = ExitStatus(told.expect["unstick"]["status"])
    item = told.release.item
    if told.release.status is not wanted:
        yield f"unstick ends with {told.release.status!r}, and not {wanted!r}: {item['refusals']}"
        return
    if wanted is ExitStatus.OK and item["outcome"] != "planned":
        yield f"unstick: {item['outcome']}"
    if bool(item["refusals"]) is not (wanted is ExitStatus.REFUSED):
        yield f"unstick: refusals are {item['refusals']}"


def _release_is_the_verdict_exactly_where_a_release_without_flags_would_go(
    told: Told,
) -> Iterator[str]:
    verdict = told.diagnosis.item["verdict"]
    refused = [one["id"] for one in told.diagnosis.item["guards"] if one["result"] != "pass"]
    if (verdict == "release") is bool(refused):
        yield f"the verdict is {verdict}, and these guards refuse: {refused}"
    if f"{told.title}: {ANSWERS[verdict]}" not in told.screen.out.splitlines()[0]:
        yield "the screen does not tell the verdict"


def _the_guard(told: Told) -> Iterator[str]:
    name = told.expect.get("guard")
    for item in _with_those_flags(told) if name else ():
        results = {guard["id"]: guard["result"] for guard in item["guards"]}
        if results.get(name) not in ("refuse", "unknown"):
            yield f"guard {name}: {results.get(name, 'not there')}, and does not refuse"


def _what_goes_and_what_stays(told: Told) -> Iterator[str]:
    for key, other in (("goes", "stays"), ("stays", "goes")):
        for item in _with_those_flags(told) if key in told.expect else ():
            seen = {where: _refs(item.get(where, ())) for where in (key, other)}
            for ref in told.expect[key]:
                if ref not in seen[key] or ref in seen[other]:
                    yield f"{key}: {seen[key]}, and not {ref}"


def _with_those_flags(told: Told) -> list[Any]:
    """The release, and the diagnosis, which speaks of a release without flags."""
    flags = told.expect["unstick"]["flags"]
    return [told.release.item, *([] if flags else [told.diagnosis.item])]


def _files_give_the_diagnosis_that_the_cluster_gives(told: Told) -> Iterator[str]:
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
    for key in live:
        if seen.get(key) != live[key]:
            yield f"{key}: files give {seen.get(key)}, and the cluster gives {live[key]}"


def _refs(items: Iterable[Mapping[str, Any]]) -> list[str]:
    return [f"{item['kind']} {item['namespace']}/{item['name']}" for item in items]


def _what_is_left_alone(told: Told) -> Iterator[str]:
    plans = (told.diagnosis.item["plan"], told.release.item["steps"])
    touched = _refs(step["target"] for plan in plans for step in plan)
    for ref in told.expect.get("untouched", ()):
        if ref in touched:
            yield f"a step is about {ref}"


def _what_must_not_be_said(told: Told) -> Iterator[str]:
    for words in told.expect.get("never", ()):
        for run in told.runs:
            if words in _flat(run.out):
                yield f"it says {words!r}"
                break


def _each(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _flat(text: str) -> str:
    return " ".join(text.split())


EXPECTED = (
    _the_diagnosis,
    _the_next_step,
    _the_list,
    _the_checks,
    _the_release,
    _release_is_the_verdict_exactly_where_a_release_without_flags_would_go,
    _the_guard,
    _what_goes_and_what_stays,
    _what_is_left_alone,
    _what_must_not_be_said,
    _files_give_the_diagnosis_that_the_cluster_gives,
)


def wrong(told: Told) -> list[str]:
    """All in which the program's answer is not the one that the story calls for."""
    assert told.diagnosis.status is ExitStatus.OK, told.diagnosis.err
    return [why for look in EXPECTED for why in look(told)]


def test_the_answer_is_the_one_that_the_story_calls_for(told: Told) -> None:
    found = wrong(told)
    if "open" in told.scenario:
        assert found, "the program is right here now: remove `open`"
    else:
        assert not found, "\n".join(found)


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
    lines = told.screen.out.splitlines()
    assert lines
    for line in lines:
        is_command = line.strip().startswith(("kubectl ", "virtctl "))
        assert len(line) <= WIDTH or is_command or _is_one_word(line), line


def test_every_next_step_is_on_the_screen_in_one_piece(told: Told) -> None:
    lines = [line.strip() for line in told.screen.out.splitlines()]
    for step in told.diagnosis.item["nextSteps"]:
        if step.startswith("#"):
            assert _flat(step.removeprefix("# ")) in _flat(told.screen.out)
        else:
            assert step in lines


def _is_one_word(line: str) -> bool:
    return " " not in line.strip(" │├└─|`-")


def test_nothing_was_sent_but_reads_reviews_and_dry_runs(told: Told) -> None:
    assert told.sent == []
    assert told.recorded
    for item in told.recorded:
        assert item.method == "GET" or "reviews" in item.path or is_dry_run(item)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_is_named_after_its_issue_and_says_what_it_tells(path: Path) -> None:
    scenario = fastyaml.load(path.read_text())
    assert set(scenario) <= {"issue", "source", "title", "story", "now", "target", "namespace",
                             "nodes", "denial", "unreachable", "open", "expect",
                             "objects"}  # fmt: skip
    if "source" in scenario:
        assert "issue" not in scenario
        name = "code"
    else:
        match = re.fullmatch(r"[-\w]+/([-\w]+)#(\d+)", scenario["issue"])
        assert match, scenario["issue"]
        name = "-".join(match.groups())
    assert re.fullmatch(rf"{name}(-[a-z]+)*", path.stem)
    assert scenario["title"]
    assert scenario["story"].count(". ") >= 1
    assert "\n" not in scenario.get("open", "").rstrip()
    expect = scenario["expect"]
    assert {"verdict", "unstick"} <= set(expect)
    assert set(expect) <= {"state", "verdict", "findings", "nextStep", "says", "never", "guard",
                           "finalizerStates", "goes", "stays", "untouched", "checks",
                           "unstick"}  # fmt: skip
    assert set(expect["unstick"]) == {"flags", "status"}
    assert set(_each(expect["verdict"])) <= set(ANSWERS)
    if expect.get("state") and expect["verdict"] != "wait":
        assert "nextStep" in expect, "what is stuck has a next step"


def test_no_issue_is_forgotten() -> None:
    assert {path.stem for path in FILES} >= NEEDED
