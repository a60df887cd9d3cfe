"""A screen for people while it is written: the only place that knows width, signs and colours.

Every text that goes onto a `Page` is made safe there, and then wrapped and coloured. A text of the
cluster can therefore neither move the cursor nor have a colour.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kubectl_harvester_stuck.render.color import Style, painted
from kubectl_harvester_stuck.render.layout import is_command, safe, wrap
from kubectl_harvester_stuck.render.screen import PIPE, Screen

NARROWEST, WIDEST = 60, 200
"""Columns between which a text follows the width of the terminal."""

LABEL = 9
"""Columns of a label and of the space behind it."""

GAP = 3
"""Columns between two columns of a table."""

LEAST_ROOM = 20
"""Columns below which the last column of a table is not wrapped."""


@dataclass(frozen=True)
class Styled:
    """A piece of text with its style."""

    text: str
    style: Style


Cell = str | Styled


@dataclass(frozen=True)
class Signs:
    """Signs and box characters, or what stands for them where they cannot be shown."""

    good: str
    bad: str
    tee: str
    corner: str
    bar: str
    here: str


_SIGNS = Signs("✓ ", "✗ ", "├─ ", "└─ ", "│  ", "◀ STUCK HERE")
_PLAIN = Signs("", "", "|- ", "`- ", "|  ", "<== STUCK HERE")


class Page:
    """Lines of one screen."""

    def __init__(self, screen: Screen = PIPE) -> None:
        self.width = None if screen.width is None else min(max(screen.width, NARROWEST), WIDEST)
        self.signs = _SIGNS if screen.has_signs else _PLAIN
        self._has_color = screen.has_color
        self._lines: list[str] = []
        self._label = ""

    def __str__(self) -> str:
        return "".join(f"{line}\n" for line in self._lines)

    def blank(self) -> None:
        """An empty line, unless one is there already or the page is empty."""
        self._label = ""
        if self._lines and self._lines[-1]:
            self._lines.append("")

    def line(self, *parts: Cell) -> None:
        """One line that is never wrapped."""
        self._label = ""
        self._lines.append("".join(map(self._shown, parts)).rstrip())

    def title(self, name: str, answer: Styled, more: str = "", sign: str = "") -> None:
        """What a block is about and what it came to; `more` in the same line if there is room."""
        self.blank()
        head = (Styled(f"{sign}{name}:", Style.HEADING), " ", answer)
        taken = sum(len(_text(part)) for part in head) + 3 + len(safe(more))
        if not more or self.width is None or taken <= self.width:
            self.line(*head, f"   {more}")
        else:
            self.line(*head)
            self.wrapped(more, "  ", "  ")

    def wrapped(self, text: str, indent: str = "", after: str | None = None) -> None:
        """A paragraph."""
        self._label = ""
        self._lines += wrap(safe(text), indent, self.width, after)

    def alarm(self, text: str) -> None:
        """A paragraph that is not to be overlooked."""
        for line in wrap(safe(text), "", self.width, "  "):
            self.line(Styled(line, Style.ALARM))

    def entry(self, label: str, text: str, style: Style | None = None) -> None:
        """A paragraph behind a label, which is not repeated for the next one."""
        shown = "" if label == self._label else label
        self._label = label
        lines = wrap(safe(text), " " * LABEL, self.width, " " * LABEL) or [""]
        head = self._shown(Styled(shown.ljust(LABEL), Style.HEADING))
        if style:
            lines = [" " * LABEL + self._shown(Styled(line[LABEL:], style)) for line in lines]
        lines[0] = f"{head}{lines[0][LABEL:]}".rstrip()
        self._lines += lines

    def item(self, label: Styled, text: str) -> None:
        """A paragraph behind a label of its own, which is repeated for the next one."""
        lines = wrap(safe(text), " " * LABEL, self.width, " " * LABEL) or [""]
        head = self._shown(Styled(label.text.ljust(LABEL), label.style))
        self._lines += [f"{head}{lines[0][LABEL:]}".rstrip(), *lines[1:]]
        self._label = ""

    def advice(self, label: str, lines: Iterable[str]) -> None:
        """What to do: sentences behind the label, each command on a line of its own, unbroken."""
        for line in lines:
            if is_command(line):
                if label != self._label:
                    self.line(Styled(label, Style.HEADING))
                    self._label = label
                self._lines.append(f"  {safe(line)}")
            else:
                self.entry(label, line.removeprefix("# "))

    def table(
        self,
        headers: Sequence[str],
        rows: Iterable[Sequence[Cell]],
        *,
        can_lose_last: bool = False,
    ) -> None:
        """A table as kubectl prints it, closer where it would not fit otherwise.

        Then its last column is wrapped or, if it `can_lose_last`, left out.
        """
        self._label = ""
        body = [[cell if isinstance(cell, Styled) else safe(cell) for cell in row] for row in rows]
        texts = [*([headers] if headers else []), *([_text(cell) for cell in row] for row in body)]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        room = WIDEST**2 if self.width is None else self.width
        gap = GAP if sum(widths) + GAP * (len(widths) - 1) <= room else GAP - 1
        left = room - sum(widths[:-1]) - gap * (len(widths) - 1)
        if can_lose_last and widths[-1] > left:
            headers, body = headers[:-1], [row[:-1] for row in body]
        elif LEAST_ROOM <= left < widths[-1]:
            body = _continued(body, left)
        head = [self._shown(Styled(name, Style.HEADING)) for name in headers]
        self._lines += _table(head, [[self._shown(cell) for cell in row] for row in body], gap)

    def _shown(self, part: Cell) -> str:
        if isinstance(part, str):
            return safe(part)
        text = safe(part.text)
        bare = text.rstrip()
        return painted(bare, part.style) + text[len(bare) :] if self._has_color and bare else text


def _text(cell: Cell) -> str:
    return cell if isinstance(cell, str) else safe(cell.text)


def _continued(rows: Sequence[Sequence[Cell]], room: int) -> list[list[Cell]]:
    """The rows, those with a long last cell continued below."""
    found: list[list[Cell]] = []
    for *first, last in rows:
        head, *more = [last] if isinstance(last, Styled) else wrap(last, "", room, "") or [""]
        found.append([*first, head])
        found += [[*("" for _ in first), line] for line in more]
    return found


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]], gap: int) -> list[str]:
    import tabulate

    look = tabulate.TableFormat(
        lineabove=None,
        linebelowheader=None,
        linebetweenrows=None,
        linebelow=None,
        headerrow=None,
        datarow=tabulate.DataRow("", " " * gap, ""),
        padding=0,
        with_header_hide=None,
    )
    # The headers are a row like the others: tabulate would pad them beyond their column.
    text = tabulate.tabulate(
        [*([headers] if headers else []), *rows],
        tablefmt=look,
        disable_numparse=True,
        stralign="left",
    )
    return [line.rstrip() for line in text.splitlines()]
