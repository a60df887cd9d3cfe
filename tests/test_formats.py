"""The formats of `--output`, from one small answer."""

from __future__ import annotations

import click
import pytest

from kubectl_harvester_stuck.cli import main
from kubectl_harvester_stuck.render.formats import DOCUMENTS, FORMATS, Content

ANSWER = Content(
    document=lambda: {"items": ["web"]},
    table=lambda wide: "NAME  NODE\nweb   n1\n" if wide else "NAME\nweb\n",
    names=lambda: ["vm/web", "vm/db"],
    own={"mermaid": lambda: "graph TD\n"},
)

TEXTS = {
    "table": "NAME\nweb\n",
    "wide": "NAME  NODE\nweb   n1\n",
    "json": '{\n  "items": [\n    "web"\n  ]\n}\n',
    "yaml": "items:\n- web\n",
    "name": "vm/web\nvm/db\n",
}

PARTS = {"json": '{"items": ["web"]}\n', "yaml": "---\nitems:\n- web\n"}
"""Those that look another way where several follow each other."""

OTHERWISE = {"restore": {"wide"}}
"""Formats that a command has nothing to say in."""


def test_every_format_is_tried() -> None:
    assert set(TEXTS) == set(FORMATS)


@pytest.mark.parametrize("output", FORMATS)
def test_an_answer_is_told_in_each_format(output: str) -> None:
    assert ANSWER.text(output) == TEXTS[output]
    assert ANSWER._replace(is_part=True).text(output) == PARTS.get(output, TEXTS[output])


def test_a_format_of_one_command_alone_comes_from_its_answer() -> None:
    assert ANSWER.text("mermaid") == "graph TD\n"
    assert "mermaid" not in FORMATS


def test_documents_are_printed_even_without_an_item() -> None:
    assert DOCUMENTS == ("json", "yaml")


def test_every_command_that_tells_of_objects_offers_every_format() -> None:
    offered = {
        name: set(param.type.choices)
        for name, command in main.cli.commands.items()
        for param in command.params
        if "--output" in param.opts and name != "version" and isinstance(param.type, click.Choice)
    }
    assert {name: set(FORMATS) - found for name, found in offered.items()} == {
        name: OTHERWISE.get(name, set()) for name in offered
    }
    assert {"list", "diagnose", "check", "unstick", "restore"} <= set(offered)
