"""`restore`: make a VM again from the backup of its release."""

from __future__ import annotations

import os
from pathlib import Path

import click

from kubectl_harvester_stuck import __version__
from kubectl_harvester_stuck.cli.options import FORMATS, Command, connection, output
from kubectl_harvester_stuck.cli.output import answer, print_result
from kubectl_harvester_stuck.cli.session import connect


@click.command("restore", cls=Command)
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@connection
@output(*(name for name in FORMATS if name != "wide"))
@click.option(
    "--dry-run",
    type=click.Choice(["none", "client", "server"]),
    default="none",
    help="client: only show the VM. server: let admission answer, too.",
)
@click.option("-y", "--yes", is_flag=True, help="Go ahead without asking.")
@click.option("--redact", is_flag=True, help="Print a copy of FILE without secrets, to share.")
@click.pass_context
def restore(
    ctx: click.Context, file: Path, output: str, dry_run: str, yes: bool, redact: bool
) -> None:
    """Create a VM again from the backup that unstick saved, powered off.

    Refused if the name is taken, if a disk is gone, is another one, or is used
    by another VM. Nothing is started. With --redact no cluster is spoken to.

    \b
    Examples:
      kubectl harvester-stuck restore FILE --dry-run=server
      kubectl harvester-stuck restore FILE
      kubectl harvester-stuck restore FILE --redact
    """
    import platform

    from kubectl_harvester_stuck import render
    from kubectl_harvester_stuck.cli.terminal import Terminal, reading
    from kubectl_harvester_stuck.release.interrupts import Interrupts
    from kubectl_harvester_stuck.render import document
    from kubectl_harvester_stuck.restore import backup as decisions
    from kubectl_harvester_stuck.restore import run
    from kubectl_harvester_stuck.state import backups, journal

    if redact and (yes or dry_run != "none" or output == "name"):
        raise click.UsageError("--redact only prints: it goes with -o json or yaml alone")
    saved = decisions.load(backups.read(file), str(file))
    if redact:
        shared = decisions.without_secrets(saved)
        answer(document.dump(shared, "yaml" if output == "yaml" else "json"))
        return
    found = decisions.parse_backup(saved, str(file))
    ctx.ensure_object(dict)
    if ctx.obj.get("namespace") not in (None, found.ref.namespace):
        raise click.UsageError(f"the VM of this backup belongs to namespace {found.ref.namespace}")
    cluster, _, where = connect(ctx.obj)
    terminal = Terminal(where, yes=yes)
    interrupts = Interrupts(terminal.println)
    context = run.RestoreContext(
        cluster,
        where.server,
        terminal,
        journal.Journal(
            backups.state_directory(os.environ, Path.home()),
            where.context,
            where.server,
            __version__,
            lambda: cluster.now,
        ),
        interrupts=interrupts,
        file=str(file.absolute()),
        host=platform.node(),
    )
    with interrupts:  # up to the last word of the report
        if dry_run == "none":
            done = run.create(context, found)
        else:
            with reading(terminal.progress, "reading the cluster"):
                done = run.preview(context, found, ask_webhooks=dry_run == "server")
        terminal.clear()
        print_result(ctx, output, render.restoration(done, output, where), report=True)
    ctx.exit(run.status_of(done))
