"""`journal`: what was changed, when, by whom, with which outcome."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import click

from kubectl_harvester_stuck.cli.execute import execute
from kubectl_harvester_stuck.cli.options import FORMATS, Command, output
from kubectl_harvester_stuck.cli.output import Answer, screen
from kubectl_harvester_stuck.errors import ExitStatus


class JournalOptions(NamedTuple):
    """The flags of `journal`."""

    output: str
    namespace: str | None
    no_headers: bool

    def validate(self) -> None:
        """All of them go together."""

    def complete(self, ctx: click.Context) -> str | None:
        """The namespace, which may stand before the name of the command; None for all."""
        return self.namespace or ctx.ensure_object(dict).get("namespace")

    def run(self, namespace: str | None) -> Answer:
        """What was changed there."""
        from kubectl_harvester_stuck import render
        from kubectl_harvester_stuck.render import journal_table, layout
        from kubectl_harvester_stuck.state import journal
        from kubectl_harvester_stuck.state.backups import state_directory

        state = state_directory(os.environ, Path.home())
        found = journal.read(state)
        changes = [
            item for item in found.changes if namespace in (None, journal.namespace_of(item))
        ]
        now = datetime.now(timezone.utc)
        notes = ""
        if found.broken:
            what = "1 line" if found.broken == 1 else f"{found.broken} lines"
            notes += f"left out {what} of {state / journal.FILE} that cannot be read\n"
        if not changes and self.output not in render.DOCUMENTS:
            place = f" in {namespace} namespace" if namespace else ""
            notes += f"Nothing was changed yet{layout.safe(place)}.\n"
        if self.output in ("table", "wide"):
            notes += journal_table.unfinished(changes)
        return Answer(
            ExitStatus.OK,
            render.journal(changes, self.output, now, headers=not self.no_headers, screen=screen()),
            notes,
        )


@click.command("journal", cls=Command)
@output(*FORMATS)
@click.option("-n", "--namespace", metavar="NAME", help="Only what was changed there.")
@click.option("--no-headers", is_flag=True, help="Leave the header of the table out.")
@click.pass_context
def command(ctx: click.Context, /, **flags: Any) -> ExitStatus:
    """Show what was changed from here: when, by whom, with which outcome.

    No cluster is asked. A change that is `interrupted` was begun and has no
    end: its run was killed, or is still at work.

    \b
    Examples:
      kubectl harvester-stuck journal
      kubectl harvester-stuck journal -n shop -o wide
    """
    return execute(ctx, JournalOptions(**flags))
