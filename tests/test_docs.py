"""The documents are true: what is made from the program is current, and what is shown works.

`python -m tools.docs` makes the pages, the screens, the picture and the copies in the chart.
"""

from __future__ import annotations

import configparser
import importlib.util
import json
import re
import shlex
from collections import Counter
from pathlib import Path

import click
import pytest

from kubectl_harvester_stuck.cli import main as cli
from kubectl_harvester_stuck.release.guards import GUARDS
from tests.support import fastyaml
from tools import chart, pages, picture
from tools.docs import DOCUMENTS, WITH_SCREENS
from tools.pages import DOCS, PAGES, ROOT
from tools.screens import SCREEN, made

README = ROOT / "README.md"
CHINESE = ROOT / "README.zh-CN.md"
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
PROGRAMS = {
    *("helm", "kubectl", "make", "pipx", "python", ".venv/bin/python"),
    *("git", "cd", "export", "umask", "sed", "ssh", "ipmitool", "skopeo"),
}
"""What may stand behind a prompt."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)


def blocks(text: str, *languages: str) -> list[str]:
    """The code blocks in these languages."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
    return [block for language, block in found if language in languages]


def prose(text: str) -> str:
    """The text without code."""
    return re.sub(r"`[^`\n]+`", "", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S))


# What is made from the program


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_current(name: str) -> None:
    assert (DOCS / name).read_text() == PAGES[name](), "run python -m tools.docs"


def test_there_is_no_page_of_a_command_that_went() -> None:
    there = {f"commands/{path.name}" for path in (DOCS / "commands").iterdir()}
    assert there == {name for name in PAGES if name.startswith("commands/")}


def test_a_new_command_gets_a_page_and_a_hidden_one_gets_none() -> None:
    group = click.Group()
    group.command("seen")(lambda: None)
    group.command("unseen", hidden=True)(lambda: None)
    group.group("outer")(lambda: None)
    outer = group.commands["outer"]
    assert isinstance(outer, click.Group)
    outer.command("inner")(lambda: None)
    assert [path for path, _ in pages.commands(group)] == [("seen",), ("outer", "inner")]


@pytest.mark.parametrize("path", WITH_SCREENS, ids=name_of)
def test_the_screens_are_the_programs(path: Path) -> None:
    assert path.read_text() == made(path.read_text()), "run python -m tools.docs"


def test_no_mark_of_a_screen_is_overlooked() -> None:
    assert {name_of(path) for path in WITH_SCREENS} >= {"README.md", "docs/runbook.md"}
    for path in WITH_SCREENS:
        text = path.read_text()
        marks = re.findall(r"^<!-- (?:demo|scenario|offline)\b", text, re.M)
        assert len(SCREEN.findall(text)) == len(marks), path


def test_the_picture_is_current_and_small() -> None:
    assert picture.FILE.read_text() == picture.svg(), "run python -m tools.docs"
    assert picture.FILE.stat().st_size < 30_000


@pytest.mark.parametrize("name", chart.MADE)
def test_what_the_chart_has_from_elsewhere_is_current(name: str) -> None:
    assert (chart.DEPLOY / name).read_text() == chart.MADE[name](), "run python -m tools.docs"


# What is shown works


@each_document
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path.read_text())):
        if re.match(r"https?://", target):
            continue
        file, _, anchor = target.partition("#")
        goal = (path.parent / file).resolve() if file else path
        assert goal.is_relative_to(ROOT), target
        assert goal.exists(), target
        assert not anchor or anchor in anchors(goal.read_text()), target


THREATS = re.split(r"^### ", (ROOT / "SECURITY.md").read_text(), flags=re.M)[1:]
"""The sections of the threat model, each with its table."""
MODELLED = [section for section in THREATS if section.partition("\n\n")[2].startswith("| |")]
"""Those that go through STRIDE."""


def threats(section: str) -> list[list[str]]:
    """The cells of each line of its table."""
    lines = re.findall(r"^\| (.+) \|$", section, re.M)[1:]
    return [[cell.strip() for cell in line.split(" | ")] for line in lines if line[0] != "-"]


def name_of_section(section: str) -> str:
    return section.partition("\n")[0]


@pytest.mark.parametrize("section", THREATS, ids=name_of_section)
def test_each_threat_names_its_tests_or_a_reason(section: str) -> None:
    for cells in threats(section):
        links = re.findall(r"\]\(([^)#\s]+)\)", cells[-1])
        assert links or re.fullmatch(r"nothing: .{20,}", cells[-1]), cells
        for link in links:
            assert Path(link).name.startswith("test_"), link
            assert re.search(r"^def test_", (ROOT / link).read_text(), re.M), link


def test_each_surface_is_looked_at_for_each_kind_of_threat() -> None:
    assert len(MODELLED) == 5
    for section in MODELLED:
        letters = "".join(dict.fromkeys(cells[0] for cells in threats(section)))
        assert letters == "STRIDE", name_of_section(section)


def anchors(text: str) -> set[str]:
    """The anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M)
    slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    seen: Counter[str] = Counter()
    found = set()
    for slug in slugs:
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


@each_document
def test_every_command_works_when_pasted(path: Path) -> None:
    text = path.read_text()
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    for line in re.findall(r"^\$ (.+)$", "".join(blocks(text, "console")), re.M):
        program, *words = shlex.split(re.split(r" [|>] ", line)[0])
        assert program in PROGRAMS, line
        if program == "make":
            assert set(words) <= set(targets), line
        if program == "python":
            assert (ROOT / words[0]).is_file(), line
        if program == ".venv/bin/python":
            assert words[0] == "-m", line
            assert importlib.util.find_spec(words[1]), line
        if (program, *words[:1]) == ("kubectl", "harvester-stuck"):
            command: click.Command = cli.cli
            rest = words[1:]
            while isinstance(command, click.Group) and "--help" not in rest:
                command = command.commands[rest.pop(0)]
            if "--help" not in rest:
                # The context fails with click's usage error where the flags are wrong.
                command.make_context(line, rest)


@each_document
def test_every_prompt_stands_in_a_block_of_the_console(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n$ ") == "".join(f"\n{part}" for part in blocks(text, "console")).count(
        "\n$ "
    )


@each_document
def test_every_block_of_data_can_be_read(path: Path) -> None:
    text = path.read_text()
    for block in blocks(text, "yaml"):
        assert list(fastyaml.load_all(block))
    for block in blocks(text, "json"):
        json.loads(block)


def test_the_runbook_says_what_to_do_about_every_guard() -> None:
    table = (DOCS / "runbook.md").read_text().partition("| guard | what to do |")[2]
    assert re.findall(r"^\| `([\w-]+)` \|", table, re.M) == [guard.name for guard in GUARDS]


def test_the_chinese_readme_shows_what_the_english_one_shows() -> None:
    one, other = ((ROOT / "README.md").read_text(), CHINESE.read_text())
    assert blocks(other, "console") == blocks(one, "console")
    outline = [re.findall(r"^(#+) ", prose(text), re.M) for text in (one, other)]
    assert outline[0] == outline[1]
    links = [sorted(re.findall(r"\]\(([^)#\s]+)", prose(text))) for text in (one, other)]
    assert [link for link in links[0] if link != CHINESE.name] == [
        link for link in links[1] if link != "README.md"
    ]


# What is said to be supported


def test_every_python_that_is_named_is_tested() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    named = re.findall(r"Python :: (3\.\d+)", setup["metadata"]["classifiers"])
    packages = fastyaml.load(WORKFLOW.read_text())["jobs"]["packages"]
    assert packages["strategy"]["matrix"]["python"] == named
    assert f"py3.{{{','.join(name[2:] for name in named)}}}-" in setup["tox:tox"]["env_list"]
    assert setup["options"]["python_requires"] == f">={named[0]}"
    assert f"Python {named[0]} to {named[-1]}" in README.read_text()
    assert f"Python {named[0]} 至 {named[-1]}" in CHINESE.read_text()


def test_every_kubernetes_that_is_named_is_tested() -> None:
    oldest, newest = (
        re.search(
            r"k8s\.io/kubernetes v(1\.\d+)",
            (ROOT / "tests" / "components" / place / "go.mod").read_text(),
        )
        for place in ("controlplane-oldest", "controlplane")
    )
    assert oldest
    assert newest
    assert f"Kubernetes {oldest[1]} and {newest[1]}" in README.read_text()
    assert f"Kubernetes {oldest[1]} 和 {newest[1]}" in CHINESE.read_text()
