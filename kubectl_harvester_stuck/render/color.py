"""Colour and weight, set where a text is made. Programs never get any."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, unique

WHEN = ("auto", "always", "never")


@unique
class Style(str, Enum):
    """What a piece of text means; the values are the codes of ECMA-48 (SGR) that show it."""

    HEADING = "1"
    BAD = "31"
    GOOD = "32"
    CARE = "33"
    ALARM = "1;31"


def wanted(when: str, environ: Mapping[str, str], *, is_terminal: bool) -> bool:
    """Whether to colour: on a capable terminal, unless NO_COLOR is set and not empty."""
    if when != "auto":
        return when == "always"
    # https://no-color.org: "when present and not an empty string (regardless of its value)".
    return is_terminal and environ.get("TERM") != "dumb" and not environ.get("NO_COLOR")


def painted(text: str, style: Style) -> str:
    """The text with the codes of its style around it."""
    return f"\x1b[{style.value}m{text}\x1b[0m"
