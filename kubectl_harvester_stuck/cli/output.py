"""What the operator gets to read: the answer on stdout, everything else on stderr."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from kubectl_harvester_stuck.errors import ExitStatus, StuckError, gravest

if TYPE_CHECKING:
    from kubectl_harvester_stuck.k8s.objects import Unreadable
    from kubectl_harvester_stuck.listing.model import Listing


def print_result(ctx: click.Context, output: str, text: str) -> None:
    """The answer, coloured where it is for people who want that."""

    from kubectl_harvester_stuck.render import color

    when = ctx.obj.get("color", "auto")
    for_people = output in ("table", "wide")
    if for_people and color.wanted(when, os.environ, is_terminal=sys.stdout.isatty()):
        text = color.paint(text)
    answer(text)


def answer(text: str, *, stop: bool = False) -> None:
    """Write to stdout. A reader that went away does not change how the work itself ended.

    With `stop` the work is over then: nobody waits for the rest.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # Nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if stop:
            sys.exit(ExitStatus.OK)


def print_error(error: StuckError) -> None:
    from kubectl_harvester_stuck.render.layout import safe

    text = safe(str(error))
    own_words = ("Error from server", "The connection", "Unable to connect", "error:")
    click.echo(text if text.startswith(own_words) else f"error: {text}", err=True)


def say_nothing(place: str, missing: tuple[Unreadable, ...]) -> None:
    """Say that nothing is stuck there, if all of it could be read."""
    from kubectl_harvester_stuck.render import layout

    if not missing:
        click.echo(f"Nothing is stuck{layout.safe(place)}.", err=True)


def list_status(found: Listing, *, exit_code: bool) -> ExitStatus:
    """Complete and looked at is OK; lists that all failed are an error."""
    statuses = [ExitStatus.STUCK if found.targets and exit_code else ExitStatus.OK]
    if found.missing:
        statuses.append(ExitStatus.ERROR if found.is_blind else ExitStatus.INCOMPLETE)
    return gravest(*statuses)
