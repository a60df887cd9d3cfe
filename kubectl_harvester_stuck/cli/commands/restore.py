"""`restore`: make a VM again from the backup of its release."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from kubectl_harvester_stuck import __version__
from kubectl_harvester_stuck.cli import exit_status
from kubectl_harvester_stuck.cli.execute import execute
from kubectl_harvester_stuck.cli.options import FORMATS, Command, connection, output
from kubectl_harvester_stuck.cli.output import Answer, screen
from kubectl_harvester_stuck.cli.session import connect, retyped
from kubectl_harvester_stuck.errors import ExitStatus

if TYPE_CHECKING:
    from kubectl_harvester_stuck.cli.terminal import Terminal
    from kubectl_harvester_stuck.render.invocation import Invocation
    from kubectl_harvester_stuck.restore.decisions import Backup, Body
    from kubectl_harvester_stuck.restore.run import RestoreContext


class _Means(NamedTuple):
    """What a restoration works with."""

    backup: Backup
    where: Invocation
    terminal: Terminal
    context: RestoreContext


class RestoreOptions(NamedTuple):
    """The flags of `restore`."""

    file: Path
    output: str
    dry_run: str
    yes: bool
    redact: bool

    def validate(self) -> None:
        """A redacted copy is only printed, and whole."""
        if self.redact and (self.yes or self.dry_run != "none" or self.output == "name"):
            raise click.UsageError("--redact only prints: it goes with -o json or yaml alone")

    def complete(self, ctx: click.Context) -> Body | _Means:
        """What the file holds, and the cluster; with `--redact` no cluster is spoken to."""
        from kubectl_harvester_stuck.restore import decisions
        from kubectl_harvester_stuck.state import backups

        saved = decisions.load(backups.read(self.file), str(self.file))
        if self.redact:
            return saved
        found = decisions.parse_backup(saved, str(self.file))
        given = ctx.ensure_object(dict)
        if given.get("namespace") not in (None, found.ref.namespace):
            raise click.UsageError(
                f"the VM of this backup belongs to namespace {found.ref.namespace}"
            )
        return self._means(ctx, found)

    def _means(self, ctx: click.Context, found: Backup) -> _Means:
        import platform

        from kubectl_harvester_stuck.cli.terminal import Terminal
        from kubectl_harvester_stuck.release.interrupts import Interrupts
        from kubectl_harvester_stuck.restore.run import RestoreContext
        from kubectl_harvester_stuck.state.backups import state_directory
        from kubectl_harvester_stuck.state.journal import Journal

        cluster, _, where = connect(ctx.ensure_object(dict))
        terminal = Terminal(where, yes=self.yes, retyped=partial(retyped, ctx))
        context = RestoreContext(
            cluster,
            where.server,
            terminal,
            Journal(
                state_directory(os.environ, Path.home()),
                where.context,
                where.server,
                __version__,
                lambda: cluster.now,
            ),
            # Up to the last word of the report, which is printed before the context is closed.
            interrupts=ctx.with_resource(Interrupts(terminal.println)),
            file=str(self.file.absolute()),
            host=platform.node(),
        )
        return _Means(found, where, terminal, context)

    def run(self, found: Body | _Means) -> Answer:
        """Make the VM again, or show what would be made."""
        return self._restore(found) if isinstance(found, _Means) else self._redacted(found)

    def _redacted(self, saved: Body) -> Answer:
        from kubectl_harvester_stuck.render import document
        from kubectl_harvester_stuck.restore import decisions

        shared = decisions.without_secrets(saved)
        text = document.dump(shared, "yaml" if self.output == "yaml" else "json")
        return Answer(ExitStatus.OK, text)

    def _restore(self, means: _Means) -> Answer:
        from kubectl_harvester_stuck import render
        from kubectl_harvester_stuck.cli.terminal import reading
        from kubectl_harvester_stuck.restore import run

        if self.dry_run == "none":
            done = run.create(means.context, means.backup)
        else:
            with reading(means.terminal.progress, "reading the cluster"):
                is_server = self.dry_run == "server"
                done = run.preview(means.context, means.backup, ask_webhooks=is_server)
        means.terminal.clear()
        return Answer(
            exit_status.of_restoration(done),
            render.restoration(done, self.output, means.where, screen=screen()),
            is_report=True,
        )


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
def command(ctx: click.Context, /, **flags: Any) -> ExitStatus:
    """Create a VM again from the backup that unstick saved, powered off.

    Refused if the name is taken, if a disk is gone, is another one, or is used
    by another VM. Nothing is started. With --redact no cluster is spoken to.

    \b
    Examples:
      kubectl harvester-stuck restore FILE --dry-run=server
      kubectl harvester-stuck restore FILE
      kubectl harvester-stuck restore FILE --redact
    """
    return execute(ctx, RestoreOptions(**flags))
