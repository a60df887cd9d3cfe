"""The formats of `--output`: one function per format.

To add one: a function under `@output_format`, and what it makes in tests/test_formats.py. Every
command that tells of objects offers it by itself. Nothing is imported before it is needed: the
command line asks for the names alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class Content(NamedTuple):
    """What a command has to say, in each of the shapes that a format can build on.

    `table` is for people, with more columns if it is called with True; `names` are those of the
    objects that it is about. `own` are formats of this command alone. `is_part` says that it is one
    of several that follow each other.
    """

    document: Callable[[], Mapping[str, Any]]
    table: Callable[[bool], str]
    names: Callable[[], Iterable[str]]
    own: Mapping[str, Callable[[], str]] = MappingProxyType({})
    is_part: bool = False

    def text(self, output: str) -> str:
        """The answer in the format of that name."""
        if output in self.own:
            return self.own[output]()
        return _REGISTERED[output].text(self)


Format = Callable[[Content], str]


class _OutputFormat(NamedTuple):
    text: Format
    is_document: bool


_REGISTERED: dict[str, _OutputFormat] = {}


def output_format(name: str, *, is_document: bool = False) -> Callable[[Format], Format]:
    """Register a format; `is_document` says that also an answer without any item is printed."""

    def register(text: Format) -> Format:
        _REGISTERED[name] = _OutputFormat(text, is_document)
        return text

    return register


@output_format("table")
def as_table(content: Content) -> str:
    """What fits on a narrow terminal."""
    return content.table(False)


@output_format("wide")
def as_wide_table(content: Content) -> str:
    """With more columns."""
    return content.table(True)


@output_format("json", is_document=True)
def as_json(content: Content) -> str:
    """One document, or one line for each part."""
    from kubectl_harvester_stuck.render import document

    if content.is_part:
        return document.line(content.document())
    return document.dump(content.document(), "json")


@output_format("yaml", is_document=True)
def as_yaml(content: Content) -> str:
    """One document, or a stream of them."""
    from kubectl_harvester_stuck.render import document

    text = document.dump(content.document(), "yaml")
    return f"---\n{text}" if content.is_part else text


@output_format("name")
def as_names(content: Content) -> str:
    """One name a line, as `kubectl -o name` prints them."""
    return "".join(f"{name}\n" for name in content.names())


FORMATS = tuple(_REGISTERED)
DOCUMENTS = tuple(name for name, entry in _REGISTERED.items() if entry.is_document)
