"""Documents that are made from the program are current; `python -m tests.test_docs` makes them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from kubectl_harvester_stuck.checks import CHECKS
from kubectl_harvester_stuck.finalizers import CATALOGUE
from kubectl_harvester_stuck.findings import FINDINGS, id_of
from kubectl_harvester_stuck.guards import GUARDS
from tests.test_scenarios import SCENARIOS, scene

DOCS = Path(__file__).parent.parent / "docs"


def finalizers_page() -> str:
    """The catalogue as a page."""
    lines = [
        "# Finalizers",
        "",
        "Every finalizer that Harvester, KubeVirt and Kubernetes put on a VirtualMachine or a",
        "VirtualMachineInstance. This page is made from the program; do not edit it.",
        "",
        "| finalizer | on | owner | versions | released when | removed by hand, it leaves behind |",
        "|---|---|---|---|---|---|",
    ]
    for entry in CATALOGUE:
        kinds = ", ".join("VM" if kind.kind == "VirtualMachine" else "VMI" for kind in entry.kinds)
        cells = (f"`{entry.name}`", kinds, entry.owner, entry.versions, entry.released_when,
                 entry.leaves_behind)  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def guards_page() -> str:
    """The guards as a page."""
    lines = [
        "# Guards",
        "",
        "Every guard has to pass before anything is changed; one that cannot read what it needs",
        "blocks like a refusal. This page is made from the program; do not edit it.",
        "",
        "| guard | passes when | with `--override` |",
        "|---|---|---|",
    ]
    lines += [
        f"| `{guard.name}` | {guard.summary} | {'yes' if guard.overridable else 'no'} |"
        for guard in GUARDS
    ]
    return "\n".join([*lines, ""])


def findings_page() -> str:
    """The situations that `diagnose` knows, as a page."""
    lines = [
        "# Findings",
        "",
        "Every situation that `diagnose` looks for. This page is made from the program; do not",
        "edit it.",
        "",
        "| finding | what it is |",
        "|---|---|",
    ]
    for look in FINDINGS:
        words = " ".join((look.__doc__ or "").split())
        lines.append(f"| `{id_of(look)}` | {words} |")
    return "\n".join([*lines, ""])


def checks_page() -> str:
    """The checks as a page."""
    lines = [
        "# Checks",
        "",
        "Everything that `check` looks at. A check that cannot read what it needs is `unknown`,",
        "never `ok`. This page is made from the program; do not edit it.",
        "",
        "| theme | check | passes when |",
        "|---|---|---|",
    ]
    lines += [f"| {check.theme} | `{check.id}` | {check.summary} |" for check in CHECKS]
    return "\n".join([*lines, ""])


PAGES = {
    "checks.md": checks_page,
    "findings.md": findings_page,
    "finalizers.md": finalizers_page,
    "guards.md": guards_page,
}


def test_the_pages_are_current() -> None:
    for name, page in PAGES.items():
        written = (DOCS / name).read_text()
        assert written == page(), f"docs/{name}: run python -m tests.test_docs"


README = DOCS.parent / "README.md"
RUN = re.compile(r"<!-- run: (.+?) -->\n(?:\n```console\n.*?\n```\n)?", re.S)
SCREEN = re.compile(r"<!-- diagnose: (\S+) -->\n(?:\n```console\n.*?\n```\n)?", re.S)


def readme(directory: Path) -> str:
    """The README with the screens of the scenarios that it names."""

    def screen(found: re.Match[str]) -> str:
        scenario = yaml.safe_load((SCENARIOS / f"{found[1]}.yaml").read_text())
        with scene(scenario, directory) as world:
            run = world.run("diagnose", scenario["target"], "-n", scenario["namespace"])
        command = f"$ kubectl harvester-stuck diagnose {scenario['target']}"
        where = f" -n {scenario['namespace']}" if scenario["namespace"] != "default" else ""
        return f"{found[0].splitlines()[0]}\n\n```console\n{command}{where}\n{run.out}```\n"

    def ran(found: re.Match[str]) -> str:
        """A command that needs no cluster, as one would type it at the top of the checkout."""
        done = subprocess.run(
            [sys.executable, "-m", "kubectl_harvester_stuck", *found[1].split()],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            env={"PATH": os.environ["PATH"], "HOME": str(directory), "PYTHONIOENCODING": "ascii"},
            cwd=README.parent,
            check=False,
        )
        first = found[0].splitlines()[0]
        return f"{first}\n\n```console\n$ kubectl harvester-stuck {found[1]}\n{done.stdout}```\n"

    return RUN.sub(ran, SCREEN.sub(screen, README.read_text()))


def test_the_screens_in_the_readme_are_the_programs(tmp_path: Path) -> None:
    assert len(SCREEN.findall(README.read_text())) == 3
    assert len(RUN.findall(README.read_text())) == 1
    assert README.read_text() == readme(tmp_path), "README.md: run python -m tests.test_docs"


if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())
    with tempfile.TemporaryDirectory() as scratch:
        README.write_text(readme(Path(scratch)))
