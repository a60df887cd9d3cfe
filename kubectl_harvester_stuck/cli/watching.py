"""`list --watch`: a screen that is drawn again, or a line for each change."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from kubectl_harvester_stuck import render
from kubectl_harvester_stuck.cli import exit_status
from kubectl_harvester_stuck.cli.output import left_out, screen, write
from kubectl_harvester_stuck.cli.terminal import LiveTable, queued
from kubectl_harvester_stuck.errors import ExitStatus
from kubectl_harvester_stuck.k8s.kinds import NAMESPACE
from kubectl_harvester_stuck.render import layout, list_text
from kubectl_harvester_stuck.render.page import Page

if TYPE_CHECKING:
    from kubectl_harvester_stuck.cluster.client import Cluster
    from kubectl_harvester_stuck.k8s.objects import Unreadable
    from kubectl_harvester_stuck.listing.model import Listing
    from kubectl_harvester_stuck.listing.watch import WatchEvent

AGAIN = 5.0
"""Seconds after which it is asked again whether there is the namespace."""

EVERY = 1.0
"""Seconds after which the ages on a screen are drawn again."""


class Watching:
    """Shows the answers of a watch, and names each gap in them once."""

    def __init__(self, place: str, output: str, *, headers: bool) -> None:
        self._nothing = f"Nothing is stuck{layout.safe(place)}; watching."
        self._output = output
        self._headers = headers
        self._is_table = output in ("table", "wide")
        self._is_screen = self._is_table and sys.stdout.isatty()
        self._screen = LiveTable(lambda text: write(text, stop=True))
        self._gaps = Gaps()
        self._rows: list_text.Rows | None = None
        self._connection = Connection()

    def show(self, answers: Iterator[tuple[Listing, Sequence[WatchEvent]]]) -> ExitStatus:
        """Until they end, or until nobody reads any more; an error where nothing can be read."""
        found: Listing | None = None
        since = time.monotonic()
        for latest in queued(answers, every=EVERY):
            if latest is not None:
                found, changes = latest
                since = time.monotonic()
                self._tell_gaps(found)
                if self._rows is None and found.is_blind and found.missing:
                    return exit_status.of_listing(found, exit_code=False)
                self._tell(found, changes)
                self._connection.take(found, time.strftime("%H:%M:%S"))
            if self._is_screen and found is not None:
                self._draw(found, timedelta(seconds=time.monotonic() - since))
        return ExitStatus.OK

    def _tell_gaps(self, found: Listing) -> None:
        if not (self._is_screen and sys.stderr.isatty()):
            self._gaps.tell(found)  # else a part of the screen: the next would be drawn over it

    def _tell(self, found: Listing, changes: Sequence[WatchEvent]) -> None:
        """What is not drawn: a line for each change, with a header before the first."""
        if self._rows is None:
            self._rows = list_text.Rows(found, wide=self._output == "wide")
            if not self._is_screen:
                is_all = not found.targets and not found.missing
                nothing = f"{self._nothing}\n" if is_all else ""
                click.echo(nothing + left_out(found), nl=False, err=True)
            if self._headers and self._is_table and not self._is_screen:
                write(self._rows.line(self._rows.names), stop=True)
        if not self._is_screen:
            write(render.changes(changes, found, self._output, self._rows), stop=True)

    def _draw(self, found: Listing, passed: timedelta) -> None:
        """The state of the connection, and below it the rows as they were last seen."""
        page = Page(screen())
        shown = self._connection.shown(replace(found, taken_at=found.taken_at + passed))
        for text in self._connection.lines():
            page.alarm(text)
        if shown.targets:
            list_text.listing(shown, page, wide=self._output == "wide", headers=self._headers)
        elif not found.missing:
            page.line(self._nothing)
        for line in left_out(found).splitlines():
            page.line(line)
        self._screen.draw(str(page))


class Place:
    """The namespace that is watched. That nothing is stuck says little where there may be none."""

    def __init__(self, cluster: Cluster, namespace: str | None) -> None:
        self._cluster = cluster
        self._unsure: tuple[str, ...] = () if namespace is None else (namespace,)
        self._asked_at = -AGAIN
        self.missing: tuple[Unreadable, ...] = ()

    def ask(self) -> bool:
        """Ask again while it is not known, now and then: whether the answer is another one.

        Raises NotFoundError where there is no such namespace.
        """
        from kubectl_harvester_stuck.k8s.source import unknown_namespaces
        from kubectl_harvester_stuck.listing import survey

        if not self._unsure or time.monotonic() - self._asked_at < AGAIN:
            return False
        self._asked_at = time.monotonic()
        gaps = unknown_namespaces(self._cluster, self._unsure)
        before, self._unsure = self.missing, tuple(gaps)
        self.missing = tuple(survey.missing(NAMESPACE, "", gap) for gap in gaps.values())
        return self.missing != before


class Gaps:
    """Says on stderr what cannot be read, and when it can be again."""

    def __init__(self) -> None:
        self._told: set[tuple[str, str | None]] = set()

    def tell(self, found: Listing) -> None:
        """Each gap once, however its reason changes while the API server restarts."""
        news = [item for item in found.missing if (item.resource, item.namespace) not in self._told]
        click.echo(layout.unreadable(news, screen(sys.stderr).width), nl=False, err=True)
        if self._told and not found.missing:
            click.echo("Everything can be read again.", err=True)
            self._told.clear()
        self._told |= {(item.resource, item.namespace) for item in news}


class Connection:
    """Whether the rows of a screen are of now; what could never be read is no loss."""

    def __init__(self) -> None:
        self._never: set[tuple[str, str | None]] | None = None
        self._gaps: tuple[Unreadable, ...] = ()
        self._lost_at: str | None = None
        self._last: Listing | None = None
        """The last answer before the connection was lost."""
        self._outage = ""

    @property
    def is_lost(self) -> bool:
        """Whether something can no longer be read that could be read before."""
        return self._lost_at is not None

    def take(self, found: Listing, now: str) -> None:
        """Note what an answer lacks; `now` is the time of day here."""
        # Whether there is the namespace is no matter of the connection.
        gaps = {
            (item.resource, item.namespace)
            for item in found.missing
            if item.resource != NAMESPACE.resource
        }
        # What was read once can be lost.
        self._never = gaps if self._never is None else self._never & gaps
        self._gaps = found.missing
        if gaps <= self._never:
            if self._lost_at is not None:
                self._outage = f"was not connected from {self._lost_at} to {now}"
            self._lost_at, self._last = None, found
        elif self._lost_at is None:
            self._lost_at = now
            # Of then are the time that ages are told by, and which nodes were silent.
            self._last = replace(self._last or found, taken_at=found.taken_at)

    def shown(self, found: Listing) -> Listing:
        """The answer as it is drawn: while the connection is lost, rows and ages stay as they were.

        What comes nevertheless, or is known to be gone, does so.
        """
        if self._lost_at is None or self._last is None:
            return found
        before = {(row.ref, row.uid): row for row in self._last.targets}
        rows = tuple(before.get((row.ref, row.uid), row) for row in found.targets)
        return replace(self._last, targets=rows)

    def lines(self) -> list[str]:
        """What stands above the rows."""
        found = [f"! {line}" for line in layout.unreadable(self._gaps).splitlines()]
        if self._lost_at is not None:
            return [f"! not connected since {self._lost_at}: rows are from then", *found]
        return [*found, *([f"! {self._outage}"] if self._outage else ())]
