"""`check`: is this cluster ready for the next power failure?"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import click

from kubectl_harvester_stuck.cli.options import (
    FORMATS,
    Command,
    Duration,
    connection,
    filename,
    output,
)
from kubectl_harvester_stuck.cli.output import answer, print_result
from kubectl_harvester_stuck.cli.session import open_session, tell_missing


@click.command("check", cls=Command)
@connection
@filename
@output(*FORMATS)
@click.option("-A", "--all-namespaces", is_flag=True, help="Check the VMs of every namespace.")
@click.option("--backup-age", type=Duration(), default="7d", show_default=True,
              help="How old the last good backup of a VM may be.")  # fmt: skip
@click.option("--print-rules", is_flag=True, help="Print a PrometheusRule, and check nothing.")
@click.option("--no-headers", is_flag=True, help="Leave the header of the table out.")
@click.option("--exit-code", is_flag=True, help="Exit with 3 when a check fails.")
@click.pass_context
def check(
    ctx: click.Context,
    filenames: tuple[str, ...],
    output: str,
    all_namespaces: bool,
    backup_age: timedelta,
    print_rules: bool,
    no_headers: bool,
    exit_code: bool,
) -> None:
    """Is this cluster ready for the next power failure?

    High availability, backups, monitoring, graceful shutdown, the path of a
    release, and the next upgrade. Nothing is changed. -o wide adds the evidence
    and what to do.

    \b
    Examples:
      kubectl harvester-stuck check -A -o wide
      kubectl harvester-stuck check -n shop --backup-age 24h --exit-code
      kubectl harvester-stuck check -f supportbundle.zip
      kubectl harvester-stuck check --print-rules
    """
    from kubectl_harvester_stuck.render import checks, document

    if print_rules:
        from kubectl_harvester_stuck.checks.rules import RULES

        answer(document.dump(RULES, "json" if output == "json" else "yaml"))
        return
    from kubectl_harvester_stuck.checks import checkup
    from kubectl_harvester_stuck.cli.terminal import Terminal, reading

    ctx.ensure_object(dict)
    scope = open_session(ctx.obj, filenames, all_namespaces=all_namespaces)
    terminal = Terminal(scope.where)
    with reading(terminal.progress, f"reading {scope.what}"):
        done = checkup.check(scope.source, scope.namespaces, backup_age=backup_age)
    done = replace(done, missing=scope.missing + done.missing)
    terminal.clear()
    print_result(ctx, output, checks.text(done, output, scope.where, headers=not no_headers))
    tell_missing(scope, done.missing)
    ctx.exit(checkup.status_of(done, exit_code=exit_code))
