"""On invented clusters no printed command harms a VM that lives, and none is rejected.

`ADVICE=20000 python -m pytest tests/test_advice.py` looks longer, `FROM=5000` elsewhere.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from datetime import timedelta
from typing import Any

import pytest

from kubectl_harvester_stuck.checks import checkup
from kubectl_harvester_stuck.cluster import reader, shared_reads
from kubectl_harvester_stuck.diagnosis import run
from kubectl_harvester_stuck.diagnosis.diagnose import reads as reads_of_a_diagnosis
from kubectl_harvester_stuck.harvester import harmless, leftovers
from kubectl_harvester_stuck.harvester.target import Target
from kubectl_harvester_stuck.k8s.commands import Advice
from kubectl_harvester_stuck.k8s.kinds import VM, VMI, Kind
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot
from kubectl_harvester_stuck.release import plan
from kubectl_harvester_stuck.release.model import ReleaseRequest
from kubectl_harvester_stuck.render import document
from tests.advice import oracle
from tests.advice.invent import VMS, hidden, invent
from tests.advice.server import Body, RejectedError, Server
from tests.support.advice import ANYWHERE
from tests.support.builders import NOW
from tests.test_checks import Memory

CLUSTERS = int(os.environ.get("ADVICE", "400"))
FIRST = int(os.environ.get("FROM", "0"))

REQUESTS = (
    ReleaseRequest(older_than=timedelta(0), powered_off=frozenset({"n1", "n2"})),
    ReleaseRequest(older_than=timedelta(0), overrides=frozenset({"past-grace", "no-migration"})),
)


def printed(bodies: list[Body], request: ReleaseRequest, hidden: frozenset[Kind]) -> Iterator[str]:
    """Every line that any command of the program would print of the cluster."""
    source = Memory(bodies, hidden)
    there = {(body["kind"], body["metadata"]["name"]) for body in bodies}
    targets = [
        ObjectRef("shop", name, kind)
        for name in VMS
        for kind in (VM, VMI)
        if (kind.kind, name) in there
    ]
    done = run.diagnose_all(source, targets, ReleaseRequest(), rights=None, logs=False)
    assert not done.failures
    for item in document.diagnoses(done.diagnoses, (), ANYWHERE, NOW)["items"]:
        yield from (*item["nextSteps"], *item["leftovers"])
    around = reader.in_depth(source, targets, reads_of_a_diagnosis())
    for ref in targets:
        for guard in plan.build(Target(ref, around), request).refusals:
            yield from ANYWHERE.lines(guard.cure)
    for row in checkup.check(source, ("shop",), backup_age=timedelta(days=7)).results:
        yield from ANYWHERE.lines(row.todo)


def after_a_release(
    bodies: list[Body], hidden: frozenset[Kind]
) -> Iterator[tuple[list[Body], str]]:
    """What is left of each deleted VM once it is gone, and the lines that are printed of that."""
    for vm in bodies:
        if vm["kind"] == VM.kind and "deletionTimestamp" in vm["metadata"]:
            name = vm["metadata"]["name"]
            server = Server.of(bodies, NOW)
            server.release(name, "shop")
            memory, ref = Memory(server.bodies, hidden), ObjectRef("shop", name, VM)
            left = reader.in_depth(memory, [ref], leftovers.READS)
            case = Target(ObjectRef("shop", name, VM), left)
            for line in ANYWHERE.sentences(leftovers.of(case, KubeObject.parse(VM, vm))):
                yield server.bodies, line


def wrong(bodies: list[Body], line: str) -> list[str]:
    """What is wrong with a command on this cluster."""
    before, after = Server(bodies, NOW, []), Server.of(bodies, NOW)
    try:
        after.run(line)
    except RejectedError as error:
        return [f"the server rejects it: {error}"]
    return list(oracle.harm(before, after, line))


def verb_of(line: str) -> str:
    program, verb, *_ = line.split()
    return f"{program} {verb}" if program == "virtctl" else verb


def look(numbers: Iterable[int]) -> tuple[list[str], Counter[str]]:
    """What went wrong, and how many commands of each verb were carried out."""
    found: list[str] = []
    counts: Counter[str] = Counter()
    for number in numbers:
        bodies, request = invent(number), REQUESTS[number % len(REQUESTS)]
        unread = hidden(number)
        lines = [(bodies, line) for line in dict.fromkeys(printed(bodies, request, unread))]
        for there, line in (*lines, *after_a_release(bodies, unread)):
            if line.startswith(("kubectl ", "virtctl ")):
                counts[verb_of(line)] += 1
                found += [f"cluster {number}: {line}: {why}" for why in wrong(there, line)]
    return found, counts


class Inline:
    """An executor that does it at once: threads take longer than what they do here."""

    def __init__(self, _: int) -> None:
        pass

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, act: Callable[..., Any], *given: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(act(*given))
        except Exception as error:  # noqa: BLE001 - as an executor does
            done.set_exception(error)
        return done

    def shutdown(self) -> None:
        pass

    def map(self, act: Callable[..., Any], items: Iterable[Any]) -> list[Any]:
        return list(map(act, items))


@pytest.fixture(autouse=True)
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (run, shared_reads):
        monkeypatch.setattr(module, "ThreadPoolExecutor", Inline)


@pytest.mark.in_process(reason="thousands of clusters are only read fast enough in memory")
def test_no_printed_command_harms_what_lives() -> None:
    found, counts = look(range(FIRST, FIRST + CLUSTERS))
    print(f"{CLUSTERS} clusters, {sum(counts.values())} commands: {dict(counts)}")
    assert not found, "\n".join(found[:20])
    wanted = ("delete", "get", "logs", "virtctl stop", "virtctl migrate-cancel", "patch")
    for verb in wanted if CLUSTERS >= 300 else ():
        assert counts[verb], f"no {verb} was printed at all"


@pytest.mark.in_process(reason="the gate is taken out")
def test_without_the_gate_it_does_go_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def everything(advice: Iterable[Advice], _: ClusterSnapshot) -> tuple[Advice, ...]:
        return tuple(advice)

    monkeypatch.setattr(harmless, "checked", everything)
    found, _ = look(range(60))
    assert len(found) > 10
