"""Colour for people, put on finished text: widths are not touched, and programs never get any."""

from __future__ import annotations

import re
from collections.abc import Mapping

WHEN = ("auto", "always", "never")

_RED, _YELLOW, _GREEN, _BOLD = "31", "33", "32", "1"
_PAINT = (
    (re.compile(r"<== here|STILL THERE|UNKNOWN(?=: it was changed)"), f"{_BOLD};{_RED}"),
    (re.compile(r"(?<=: )refused(?=, nothing)|(?<=, )\d+ refused"), _RED),
    (re.compile(r"(?<=: )(?:released|freed)\b"), _GREEN),
    (re.compile(r"^(?:refuse|repair)(?=: )", re.M), _RED),
    (re.compile(r"^wait(?=: )", re.M), _YELLOW),
    (re.compile(r"^release(?=: )", re.M), _GREEN),
    (re.compile(r"\b(?:Terminating|Stopping|NotReady)\b"), _YELLOW),
    (re.compile(r"^fail(?= {3,})", re.M), _RED),
    (re.compile(r"^(?:warn|unknown)(?= {3,})", re.M), _YELLOW),
    (re.compile(r"^ok(?= {3,})", re.M), _GREEN),
    (re.compile(r"^(?:[A-Z]+(?: {3,}|$))+$", re.M), _BOLD),
    (re.compile(r"^[A-Z][a-z]+(?: [a-z]+)*$", re.M), _BOLD),
)


def wanted(when: str, environ: Mapping[str, str], *, is_terminal: bool) -> bool:
    """Whether to colour: as kubectl, only on a capable terminal and unless NO_COLOR is set."""
    if when != "auto":
        return when == "always"
    return is_terminal and environ.get("TERM") != "dumb" and "NO_COLOR" not in environ


def paint(text: str) -> str:
    """The text with its states, verdicts and headings coloured."""
    for pattern, code in _PAINT:
        text = pattern.sub(lambda found, code=code: f"\x1b[{code}m{found[0]}\x1b[0m", text)  # type: ignore[misc]
    return text
