"""The catalogue beside the controllers: what the program says of a finalizer is what they do.

The tables are in tests/conformance, one for each owner. All situations of a table stand while its
owner sleeps; then the program is asked about all of them, and the owner is woken.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kubectl_harvester_stuck.harvester.finalizer_catalogue import BY_SOURCE, CATALOGUE
from tests.components.controllermanager.server import COLLECTOR, PVC_PROTECTION, ControllerManager
from tests.components.controlplane.server import ControlPlane
from tests.components.harvester.build import EARLIER, release
from tests.components.harvester.server import VERSION, Controllers, Webhook
from tests.components.virtcontroller.server import VirtController
from tests.conformance import collector, harvester, kubevirt
from tests.conformance.cluster import USERS, Cluster, Outcome
from tests.conformance.situation import Situation, agree


def _minor_of(release: str) -> tuple[int, int]:
    major, minor = release.removeprefix("v").split(".")[:2]
    return int(major), int(minor)


OF_THIS_RELEASE = [
    situation for situation in harvester.SITUATIONS if situation.since <= _minor_of(VERSION)
]

Outcomes = dict[str, Outcome]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """An API server of its own, for the controllers see everything in it."""
    with ControlPlane(users=USERS) as api:
        yield Cluster(api, tmp_path_factory.mktemp("conformance"))


@pytest.fixture(scope="module")
def harvesters(cluster: Cluster) -> Outcomes:
    """What came of the situations in which Harvester's controllers woke."""
    webhook = Webhook(cluster.api, cluster.directory)
    owner = Controllers(cluster.api, cluster.directory)
    return cluster.play(owner, OF_THIS_RELEASE, webhook)


@pytest.fixture(scope="module")
def kubevirts(cluster: Cluster) -> Outcomes:
    """What came of the situations in which virt-controller woke."""
    owner = VirtController(cluster.api, cluster.directory)
    return cluster.play(owner, kubevirt.SITUATIONS)


@pytest.fixture(scope="module")
def collectors(cluster: Cluster) -> Outcomes:
    """What came of the situations in which the garbage collector woke."""
    at_work = (COLLECTOR, PVC_PROTECTION)
    owner = ControllerManager(cluster.api, cluster.directory, at_work)
    return cluster.play(owner, collector.SITUATIONS)


def text(situation: Situation) -> str:
    return situation.text


@pytest.mark.parametrize("situation", OF_THIS_RELEASE, ids=text)
def test_harvester(situation: Situation, harvesters: Outcomes) -> None:
    check(situation, harvesters[situation.text])


@pytest.mark.parametrize("situation", kubevirt.SITUATIONS, ids=text)
def test_kubevirt(situation: Situation, kubevirts: Outcomes) -> None:
    check(situation, kubevirts[situation.text])


@pytest.mark.parametrize("situation", collector.SITUATIONS, ids=text)
def test_garbage_collector(situation: Situation, collectors: Outcomes) -> None:
    check(situation, collectors[situation.text])


EVERYTHING = (*harvester.SITUATIONS, *kubevirt.SITUATIONS, *collector.SITUATIONS)


def test_no_line_stands_twice() -> None:
    texts = [situation.text for situation in EVERYTHING]
    assert len(texts) == len(set(texts)) >= 120


def test_every_entry_says_whether_its_owner_was_asked() -> None:
    asked = {situation.finalizer for situation in EVERYTHING}
    by_source = {entry.name for entry in CATALOGUE if entry.verified == BY_SOURCE}
    assert asked == {entry.name for entry in CATALOGUE} - by_source


def test_each_release_that_was_asked_is_named() -> None:
    """All that can be built and have the finalizer; `make harvester-versions` asks the earlier."""
    releases = [release(), *map(release, reversed(EARLIER))]
    for entry in CATALOGUE:
        if entry.verified.startswith("Harvester "):
            since = [line.since for line in harvester.SITUATIONS if line.finalizer == entry.name]
            asked = [one.removeprefix("v") for one in releases if min(since) <= _minor_of(one)]
            assert entry.verified == f"Harvester {', '.join(asked)}"


def test_what_differs_is_listed_with_its_reason() -> None:
    """The list can only get shorter: a line that agrees may not be on it."""
    differing = [situation for situation in EVERYTHING if not agree(situation)]
    assert differing == [situation for situation in EVERYTHING if situation.differs]
    assert len(differing) == 13


def check(situation: Situation, outcome: Outcome) -> None:
    """The line is what was seen and said."""
    owner, said, words = situation.owner, situation.said, outcome.place.words
    seen = f"changed: {sorted(outcome.changed)}\nlog: {outcome.logged[-2000:]}"
    goes = owner.action in ("lets go", "works")
    assert outcome.let_go == goes, seen
    if goes:
        assert outcome.changed == {words(each) for each in owner.words}, seen
    elif owner.action == "holds":
        for each in owner.words:
            assert words(each) in outcome.logged, seen
    else:
        for each in owner.words:
            assert words(each) in outcome.logged, seen
            assert words(each) in outcome.refused, outcome.refused
    assert outcome.state == said.state, outcome.reason
    for each in said.words:
        assert words(each) in outcome.reason
    assert agree(situation) != bool(situation.differs)
