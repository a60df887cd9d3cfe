"""What is agreed to: with many plans every risk is told as with one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kubectl_harvester_stuck.harvester.target import Target
from kubectl_harvester_stuck.release import plan
from kubectl_harvester_stuck.release.model import GuardResult, GuardState, ReleaseRequest
from kubectl_harvester_stuck.render.invocation import Invocation
from kubectl_harvester_stuck.render.page import Page
from kubectl_harvester_stuck.render.release_text import IN_FULL, preview
from tests.support.builders import snapshot
from tests.test_guards import TARGET, deleted_vm

PLAN = replace(
    plan.build(Target(TARGET, snapshot(deleted_vm())), ReleaseRequest()),
    guards=(GuardResult("no-migration", GuardState.PASS, "overridden: one is open", (), True),),
)


@pytest.mark.parametrize("number", [1, IN_FULL, IN_FULL + 1])
def test_an_overridden_guard_is_a_risk_however_many_plans_there_are(number: int) -> None:
    told = preview([PLAN] * number, "d" * 16, Invocation("c", "https://x"), Page())
    risks = [line for line in told.splitlines() if "no-migration overridden: one is open" in line]
    assert len(risks) == (number if number <= IN_FULL else 1)
    assert number <= IN_FULL or f"! {number} of them: " in risks[0]
