"""`journal`: what was changed, when, by whom, with which outcome."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from kubectl_harvester_stuck.cli import exit_status
from kubectl_harvester_stuck.cli.execute import execute
from kubectl_harvester_stuck.cli.options import FORMATS, Command, Duration, output
from kubectl_harvester_stuck.cli.output import Answer, screen
from kubectl_harvester_stuck.cli.targets import Named, selected, target_arguments

if TYPE_CHECKING:
    from kubectl_harvester_stuck.errors import ExitStatus
    from kubectl_harvester_stuck.k8s.kinds import Kind


class JournalOptions(NamedTuple):
    """The flags of `journal`."""

    kind: Kind | None
    names: tuple[Named, ...]
    output: str
    namespace: str | None
    since: timedelta | None
    no_headers: bool

    def validate(self) -> None:
        """All of them go together."""

    def complete(self, ctx: click.Context) -> str | None:
        """The namespace, which may stand before the name of the command; None for all."""
        return self.namespace or ctx.ensure_object(dict).get("namespace")

    def run(self, namespace: str | None) -> Answer:
        """What was changed there."""
        from kubectl_harvester_stuck import render
        from kubectl_harvester_stuck.k8s import durations
        from kubectl_harvester_stuck.render import journal_table, layout
        from kubectl_harvester_stuck.state import journal
        from kubectl_harvester_stuck.state.private_files import state_directory

        state = state_directory(os.environ)
        found = journal.read(state)
        now = datetime.now(timezone.utc)
        targets = selected(self.names, namespace)
        changes = [
            item
            for item in found.changes
            if any(journal.concerns(item, *target) for target in targets)
            and (self.since is None or journal.is_within(item, self.since, now))
        ]
        notes = ""
        if found.broken:
            what = "1 line" if found.broken == 1 else f"{found.broken} lines"
            notes += f"left out {what} of {state / journal.FILE} that cannot be read\n"
        if not changes and not found.broken and self.output not in render.DOCUMENTS:
            place = f" for {', '.join(name for _, name in self.names)}" if self.names else ""
            place += f" in {namespace} namespace" if namespace else ""
            when = "yet" if self.since is None else f"in the last {durations.human(self.since)}"
            notes += f"Nothing has been changed {when}{layout.safe(place)}.\n"
        if self.output in ("table", "wide"):
            notes += journal_table.unfinished(changes)
        return Answer(
            exit_status.of_journal(found.broken),
            render.journal(changes, self.output, now, headers=not self.no_headers, screen=screen()),
            notes,
        )


@click.command("journal", cls=Command)
@target_arguments("[vm|vmi] [NAME]...")
@output(*FORMATS)
@click.option("-n", "--namespace", metavar="NAME", help="Only changes in this namespace.")
@click.option(
    "--since", type=Duration(), metavar="DURATION", help="Only changes in the last 5m, 2h or 7d."
)
@click.option("--no-headers", is_flag=True, help="Print the table without its header.")
@click.pass_context
def command(ctx: click.Context, /, **flags: Any) -> ExitStatus:
    """Show what was changed from this machine: when, by whom, with which outcome.

    No cluster is contacted. `interrupted` means that a change was begun and no
    outcome was recorded: the run was killed, or is still at work. Such a change
    is kept for good; of the others at least the newest 32 MiB are kept.

    \b
    Examples:
      kubectl harvester-stuck journal
      kubectl harvester-stuck journal shop/web-1 -o wide
      kubectl harvester-stuck journal -n shop --since 2h
    """
    return execute(ctx, JournalOptions(**flags))
