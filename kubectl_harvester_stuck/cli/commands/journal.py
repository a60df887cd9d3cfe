"""`journal`: what was changed, when, by whom, with which outcome."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path

import click

from kubectl_harvester_stuck.cli.options import FORMATS, Command, output
from kubectl_harvester_stuck.cli.output import print_result


@click.command("journal", cls=Command)
@output(*FORMATS)
@click.option("-n", "--namespace", metavar="NAME", help="Only what was changed there.")
@click.option("--no-headers", is_flag=True, help="Leave the header of the table out.")
@click.pass_context
def journal_(ctx: click.Context, output: str, namespace: str | None, no_headers: bool) -> None:
    """Show what was changed from here: when, by whom, with which outcome.

    No cluster is asked. A change that is `interrupted` was begun and has no
    end: its run was killed, or is still at work.

    \b
    Examples:
      kubectl harvester-stuck journal
      kubectl harvester-stuck journal -n shop -o wide
    """
    from kubectl_harvester_stuck import render
    from kubectl_harvester_stuck.state import journal
    from kubectl_harvester_stuck.state.backups import state_directory

    ctx.ensure_object(dict)
    state = state_directory(os.environ, Path.home())
    namespace = namespace or ctx.obj.get("namespace")
    found = journal.read(state)
    changes = [item for item in found.changes if namespace in (None, journal.namespace_of(item))]
    now = datetime.now(timezone.utc)
    print_result(ctx, output, render.journal(changes, output, now, headers=not no_headers))
    if found.broken:
        what = "1 line" if found.broken == 1 else f"{found.broken} lines"
        click.echo(f"left out {what} of {state / journal.FILE} that cannot be read", err=True)
    if not changes and output not in render.DOCUMENTS:
        from kubectl_harvester_stuck.render import layout

        place = f" in {namespace} namespace" if namespace else ""
        click.echo(f"Nothing was changed yet{layout.safe(place)}.", err=True)
