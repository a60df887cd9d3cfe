"""What is shown where: widths, signs and colours of a terminal, and none of them in a pipe."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from unittest import mock

import pytest

from kubectl_harvester_stuck.cli import output
from kubectl_harvester_stuck.cli.terminal import cropped
from kubectl_harvester_stuck.render.color import Style
from kubectl_harvester_stuck.render.page import Page, Styled
from kubectl_harvester_stuck.render.screen import PIPE, Screen

UTF8 = {"TERM": "xterm", "LANG": "de_DE.UTF-8"}


class Tty(io.TextIOWrapper):
    """A terminal of 97 columns."""

    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding)

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 1


def screen(stream: io.TextIOWrapper, environ: Mapping[str, str]) -> Screen:
    size = os.terminal_size((97, 30))
    with (
        mock.patch.dict(os.environ, environ, clear=True),
        mock.patch.object(os, "get_terminal_size", return_value=size),
    ):
        return output.screen(stream)


@pytest.mark.parametrize(
    ("environ", "encoding", "signs"),
    [
        (UTF8, "utf-8", True),
        ({"LC_ALL": "en_US.utf8"}, "utf-8", True),
        ({"LC_CTYPE": "UTF-8"}, "utf-8", True),
        ({**UTF8, "LC_ALL": "C"}, "utf-8", False),
        # As Python sets it by itself in the locale C.
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, "utf-8", False),
        ({"LC_CTYPE": "C.UTF-8"}, "utf-8", False),
        ({"LANG": "C.UTF-8"}, "utf-8", True),
        ({}, "utf-8", False),
        ({**UTF8, "TERM": "dumb"}, "utf-8", False),
        (UTF8, "ascii", False),
        (UTF8, "cp1252", False),
        (UTF8, "cp437", False),
        (UTF8, "no-such-encoding", False),
    ],
)
def test_signs_are_only_for_a_terminal_that_can_show_them(
    environ: Mapping[str, str], encoding: str, signs: bool
) -> None:
    stream = Tty("utf-8")
    # The program writes UTF-8 whatever the locale; what the locale asks for is kept beside it.
    with mock.patch.object(Tty, "locale", encoding, create=True):
        assert screen(stream, environ).has_signs is signs


def test_a_pipe_has_no_width_no_signs_and_no_colour() -> None:
    piped = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    assert screen(piped, UTF8) == PIPE
    assert Page(PIPE).width is None


@pytest.mark.parametrize(
    ("columns", "width"), [(None, 97), ("", 97), ("0", 97), ("wide", 97), ("72", 72)]
)
def test_the_width_is_that_of_the_terminal_unless_columns_says_otherwise(
    columns: str | None, width: int
) -> None:
    environ = {**UTF8, **({} if columns is None else {"COLUMNS": columns})}
    assert screen(Tty("utf-8"), environ).width == width


@pytest.mark.parametrize(("columns", "width"), [(20, 60), (60, 60), (133, 133), (400, 200)])
def test_texts_follow_the_width_from_60_to_200_columns(columns: int, width: int) -> None:
    page = Page(Screen(width=columns))
    page.entry("why", "word " * 200)
    assert width - 5 < max(map(len, str(page).splitlines())) <= width


def test_a_label_is_told_once_and_a_command_is_never_wrapped() -> None:
    page = Page(Screen(width=60))
    command = f"kubectl get pods {'x' * 80}"
    page.entry("why", "first")
    page.entry("why", "second")
    page.advice("to do", ["# look", command])
    assert str(page).splitlines() == [
        "why      first",
        "         second",
        "to do    look",
        f"  {command}",
    ]


def test_no_text_of_others_has_a_colour() -> None:
    page = Page(Screen(has_color=True))
    page.entry("why", "\x1b[32mreleased\x1b[0m", Style.BAD)
    page.line(Styled("\x1b[32mx", Style.GOOD), "\x1b[31m")
    page.table(["A", "B"], [["\x1b[31mx", Styled("\x1b[31my", Style.CARE)]])
    text = str(page)
    codes = re.findall(r"\x1b\[([\d;]*)m", text)
    assert len(codes) == text.count("\x1b")
    # Two headings of the table, the label, and what was styled here; each is ended.
    assert codes == ["1", "0", "31", "0", "32", "0", "1", "0", "1", "0", "33", "0"]


def test_only_the_last_column_of_a_table_is_wrapped() -> None:
    page = Page(Screen(width=60))
    page.table(["NAME", "WHY"], [["n" * 30, "one two three four five six seven"], ["m", "x"]])
    assert str(page).splitlines() == [
        f"NAME{' ' * 28}WHY",
        f"{'n' * 30}  one two three four five six",
        f"{' ' * 32}seven",
        f"m{' ' * 31}x",
    ]


def test_a_table_comes_closer_before_it_loses_its_last_column() -> None:
    rows = [["n" * 30, "m" * 20, "last"]]
    for width, shown in (
        (60, f"{'n' * 30}   {'m' * 20}   last"),
        (60 - 1, f"{'n' * 30}  {'m' * 20}  last"),
        (60 - 3, f"{'n' * 30}  {'m' * 20}"),
    ):
        page = Page(Screen(width=60))
        page.width = width
        page.table([], rows, can_lose_last=True)
        assert str(page) == f"{shown}\n"


def test_a_line_is_cropped_by_what_is_seen_of_it() -> None:
    line = "ab\x1b[31mcd\x1b[0mef"
    assert cropped(line, 6) == line
    assert cropped(line, 3) == "ab\x1b[31mc\x1b[0m"
    assert cropped(line, 0) == "\x1b[31m\x1b[0m"
