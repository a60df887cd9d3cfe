"""Advice as text, for tests that look at its words."""

from __future__ import annotations

from collections.abc import Iterable

from kubectl_harvester_stuck.k8s.commands import Advice, Command
from kubectl_harvester_stuck.render.invocation import Invocation

ANYWHERE = Invocation("", "")
"""A call without flags, on POSIX."""


def spelled(command: Command | None) -> str:
    """The command as it is typed; "" where there is none."""
    return ANYWHERE.spell(command) if command is not None else ""


def texts(advice: Iterable[Advice]) -> tuple[str, ...]:
    """One text for each: a sentence, or a command behind its note."""
    return tuple(" ".join(ANYWHERE.sentences([item])) for item in advice)


def lines(advice: Iterable[Advice]) -> list[str]:
    """As they are printed."""
    return ANYWHERE.lines(advice)
