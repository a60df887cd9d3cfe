"""`list`: what is stuck, and with `--watch` what becomes of it."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn

import click

from kubectl_harvester_stuck.cli.options import (
    FORMATS,
    Command,
    Duration,
    TargetKind,
    connection,
    filename,
    output,
)
from kubectl_harvester_stuck.cli.output import answer, list_status, print_result, say_nothing
from kubectl_harvester_stuck.cli.session import check_selector, connect, open_session, tell_missing
from kubectl_harvester_stuck.errors import ExitStatus

if TYPE_CHECKING:
    from kubectl_harvester_stuck.k8s.kinds import Kind
    from kubectl_harvester_stuck.listing.model import Listing


@click.command("list", cls=Command)
@click.argument("kinds", nargs=-1, type=TargetKind(), metavar="[vm|vmi]...")
@connection
@filename
@output(*FORMATS, "prometheus")
@click.option("-A", "--all-namespaces", is_flag=True, help="Look in every namespace.")
@click.option("-l", "--selector", metavar="LABELS", help="Only objects with these labels.")
@click.option("--older-than", type=Duration(), default="0", help="Only what hangs this long.")
@click.option("--no-headers", is_flag=True, help="Leave the header of the table out.")
@click.option("--exit-code", is_flag=True, help="Exit with 3 when something is stuck.")
@click.option("-w", "--watch", "follow", is_flag=True, help="Go on and show what changes.")
@click.pass_context
def list_(
    ctx: click.Context,
    kinds: tuple[Kind, ...],
    filenames: tuple[str, ...],
    output: str,
    all_namespaces: bool,
    selector: str | None,
    older_than: timedelta,
    no_headers: bool,
    exit_code: bool,
    follow: bool,
) -> None:
    """Show what is stuck: Terminating, Stopping, or on a pod that hangs.

    \b
    Examples:
      kubectl harvester-stuck list -A
      kubectl harvester-stuck list vm -n shop -o wide
      kubectl harvester-stuck list -A --older-than 10m --exit-code
      kubectl harvester-stuck list -A -o prometheus
      kubectl harvester-stuck list -A --watch
      kubectl harvester-stuck list -f supportbundle.zip
    """
    from kubectl_harvester_stuck import render
    from kubectl_harvester_stuck.cli.terminal import Terminal, reading
    from kubectl_harvester_stuck.k8s.kinds import VM, VMI
    from kubectl_harvester_stuck.listing import find
    from kubectl_harvester_stuck.render import list_text

    if follow and (filenames or exit_code):
        raise click.UsageError("--watch goes neither with -f nor with --exit-code")
    if follow and output == "prometheus":
        raise click.UsageError("--watch does not go with -o prometheus: metrics are of one moment")
    ctx.ensure_object(dict)
    check_selector(selector)
    if follow:
        chosen = frozenset(kinds or (VM, VMI))
        _follow(ctx, output, chosen, all_namespaces, selector, older_than, headers=not no_headers)
    scope = open_session(ctx.obj, filenames, all_namespaces=all_namespaces, selector=selector)
    where = scope.where
    terminal = Terminal(where)
    with reading(terminal.progress, f"reading {scope.what}"):
        found = find.stuck(
            scope.source,
            kinds=frozenset(kinds or (VM, VMI)),
            namespaces=scope.namespaces,
            labels=selector,
            older_than=older_than,
        )
    found = replace(found, missing=scope.missing + found.missing)
    terminal.clear()
    print_result(ctx, output, render.listing(found, output, where, headers=not no_headers))
    if not found.targets and output not in render.DOCUMENTS:
        say_nothing(scope.place, found.missing)
    if output == "table":
        click.echo(list_text.notes(found), nl=False, err=True)
    tell_missing(scope, found.missing)
    ctx.exit(list_status(found, exit_code=exit_code))


def _follow(
    ctx: click.Context,
    output: str,
    kinds: frozenset[Kind],
    all_namespaces: bool,
    selector: str | None,
    older_than: timedelta,
    *,
    headers: bool,
) -> NoReturn:
    """`list --watch`: until Ctrl-C, or until nobody reads any more."""
    from kubectl_harvester_stuck import render
    from kubectl_harvester_stuck.cli.terminal import LiveTable, queued
    from kubectl_harvester_stuck.k8s.source import unknown_namespaces
    from kubectl_harvester_stuck.listing import watch
    from kubectl_harvester_stuck.render import layout, list_text

    cluster, namespace, _ = connect(ctx.obj)
    namespaces = (None if all_namespaces else namespace,)
    place = layout.safe("" if all_namespaces else f" in {namespace} namespace")
    if not all_namespaces:
        unknown_namespaces(cluster, [namespace])
    view = watch.WatchCache(cluster, namespaces)
    view.start()
    answers = watch.follow(view, kinds=kinds, labels=selector, older_than=older_than)
    is_screen = output in ("table", "wide") and sys.stdout.isatty()
    board = LiveTable(lambda text: answer(text, stop=True))
    found: Listing | None = None
    rows: list_text.Rows | None = None
    told: set[tuple[str, str | None]] = set()
    since = time.monotonic()
    for latest in queued(answers, every=1.0):
        if latest is not None:
            found, changes = latest
            since = time.monotonic()
            # Each gap is told once, however its reason changes while the API server restarts.
            news = [item for item in found.missing if (item.resource, item.namespace) not in told]
            click.echo(layout.unreadable(news), nl=False, err=True)
            if told and not found.missing:
                click.echo("Everything can be read again.", err=True)
                told.clear()
            told |= {(item.resource, item.namespace) for item in news}
            if rows is None and found.is_blind and found.missing:
                ctx.exit(ExitStatus.ERROR)
            if rows is None and not found.targets and not is_screen:
                click.echo(f"Nothing is stuck{place}; watching.", err=True)
            if rows is None:
                rows = list_text.Rows(found, wide=output == "wide")
                if headers and output in ("table", "wide") and not is_screen:
                    answer(rows.line(rows.names), stop=True)
            if not is_screen:
                answer(render.changes(changes, found, output, rows), stop=True)
        if is_screen and found is not None:
            passed = timedelta(seconds=time.monotonic() - since)
            shown = replace(found, taken_at=found.taken_at + passed)
            text = list_text.listing(shown, wide=output == "wide", headers=headers)
            board.draw(text or f"Nothing is stuck{place}; watching.\n")
    ctx.exit(ExitStatus.OK)
