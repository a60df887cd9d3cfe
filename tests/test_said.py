"""What the program says of each line of tests/conformance, on the simulated API server.

`test_conformance.py` holds both columns of the tables beside the controllers themselves, which
takes minutes. What is said does not depend on them: here the same objects are asked about at once,
so that a change of a judgment is seen while it is made.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.components.harvester.server import VERSION
from tests.conformance import collector, harvester, kubevirt
from tests.conformance.cluster import Standing, Table
from tests.conformance.situation import Situation
from tests.support import readycluster
from tests.support.simulator import Simulator

SITUATIONS = (*harvester.SITUATIONS, *kubevirt.SITUATIONS, *collector.SITUATIONS)

Said = dict[str, tuple[Standing, str, str]]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Said]:
    """By the text of each line: as it stands, with state and reason."""
    with Simulator() as api:
        table = Table(api, tmp_path_factory.mktemp("said"))
        table.prepare()
        api.create(readycluster.setting("server-version", VERSION))
        standing = table.stand("said", SITUATIONS)
        answers = table.ask()
        yield {
            each.situation.text: (each, *answers.get(each.key, ("not said", "")))
            for each in standing
        }


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.text)
def test_the_program_says_what_the_table_says(situation: Situation, said: Said) -> None:
    standing, state, reason = said[situation.text]
    assert state == situation.said.state, reason
    for each in situation.said.words:
        assert standing.place.words(each) in reason
