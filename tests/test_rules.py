"""The rules of `check --print-rules` are what Prometheus takes, by `promtool check rules`."""

from __future__ import annotations

import copy
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kubectl_harvester_stuck.checks.prometheus_rules import RULES
from tests.components.promtool import build
from tests.support import fastyaml


@pytest.fixture(scope="module")
def promtool() -> Path:
    """promtool; built first where it is not in the cache."""
    return build.programs() / "promtool"


def check(program: Path, spec: Any, directory: Path) -> subprocess.CompletedProcess[str]:
    path = directory / "rules.yaml"
    path.write_text(fastyaml.dump(spec))
    return subprocess.run(
        [program, "check", "rules", path], capture_output=True, text=True, check=False
    )


def test_prometheus_takes_the_rules(promtool: Path, tmp_path: Path) -> None:
    done = check(promtool, RULES["spec"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "SUCCESS: 6 rules found" in done.stdout


@pytest.mark.parametrize(
    ("field", "value"),
    [("expr", 'kubevirt_vm_info{status=~"("} == 1'), ("expr", "absent("), ("for", "soon"),
     ("annotations", {"summary": "{{ $labels.node }"})],
)  # fmt: skip
def test_prometheus_does_not_take_broken_rules(
    promtool: Path, tmp_path: Path, field: str, value: Any
) -> None:
    spec = copy.deepcopy(RULES["spec"])
    spec["groups"][0]["rules"][0][field] = value
    assert check(promtool, spec, tmp_path).returncode == 1
