"""`check`: is this cluster ready for the next power failure?"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, NamedTuple

import click

from kubectl_harvester_stuck.cli import exit_status
from kubectl_harvester_stuck.cli.execute import execute
from kubectl_harvester_stuck.cli.options import (
    FORMATS,
    Command,
    Duration,
    connection,
    filename,
    output,
)
from kubectl_harvester_stuck.cli.output import Answer, screen
from kubectl_harvester_stuck.cli.session import Session, open_session
from kubectl_harvester_stuck.errors import ExitStatus


class CheckOptions(NamedTuple):
    """The flags of `check`."""

    filenames: tuple[str, ...]
    output: str
    all_namespaces: bool
    backup_age: timedelta
    print_rules: bool
    no_headers: bool
    exit_code: bool

    def validate(self) -> None:
        """All of them go together."""

    def complete(self, ctx: click.Context) -> Session | None:
        """The cluster, or the files; None where only rules are printed."""
        if self.print_rules:
            return None
        return open_session(
            ctx.ensure_object(dict), self.filenames, all_namespaces=self.all_namespaces
        )

    def run(self, session: Session | None) -> Answer:
        """The results of all checks, or the rules."""
        return self._rules() if session is None else self._check(session)

    def _rules(self) -> Answer:
        from kubectl_harvester_stuck.checks.prometheus_rules import RULES
        from kubectl_harvester_stuck.render import document

        text = document.dump(RULES, "json" if self.output == "json" else "yaml")
        return Answer(ExitStatus.OK, text)

    def _check(self, session: Session) -> Answer:
        from dataclasses import replace

        from kubectl_harvester_stuck.checks import checkup
        from kubectl_harvester_stuck.cli.terminal import Terminal, reading
        from kubectl_harvester_stuck.render import checks

        terminal = Terminal(session.where)
        with reading(terminal.progress, f"reading {session.what}"):
            done = checkup.check(session.source, session.namespaces, backup_age=self.backup_age)
        done = replace(done, missing=session.missing + done.missing)
        terminal.clear()
        return Answer(
            exit_status.of_checkup(done, exit_code=self.exit_code),
            checks.text(
                done,
                self.output,
                session.where,
                headers=not self.no_headers,
                screen=screen(),
            ),
            session.gaps(done.missing),
        )


@click.command("check", cls=Command)
@connection
@filename
@output(*FORMATS)
@click.option("-A", "--all-namespaces", is_flag=True, help="Check the VMs of every namespace.")
@click.option("--backup-age", type=Duration(), default="7d", show_default=True,
              help="How old the last good backup of a VM may be.")  # fmt: skip
@click.option("--print-rules", is_flag=True, help="Print a PrometheusRule instead of checking.")
@click.option("--no-headers", is_flag=True, help="Print the table without its header.")
@click.option("--exit-code", is_flag=True, help="Exit with 3 when a check fails.")
@click.pass_context
def command(ctx: click.Context, /, **flags: Any) -> ExitStatus:
    """Is this cluster ready for the next power failure?

    Checks availability, backups, monitoring, graceful shutdown, what a release
    needs, and the next upgrade. Nothing is changed. -o wide adds the evidence
    and what to do.

    \b
    Examples:
      kubectl harvester-stuck check -A -o wide
      kubectl harvester-stuck check -n shop --backup-age 24h --exit-code
      kubectl harvester-stuck check -f supportbundle.zip
      kubectl harvester-stuck check --print-rules
    """
    return execute(ctx, CheckOptions(**flags))
