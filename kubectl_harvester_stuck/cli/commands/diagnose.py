"""`diagnose`: why it is stuck, what holds each finalizer, what to do next."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from kubectl_harvester_stuck.cli.options import (
    FORMATS,
    Command,
    Duration,
    connection,
    filename,
    output,
    target_arguments,
)
from kubectl_harvester_stuck.cli.output import print_error, print_result, say_nothing
from kubectl_harvester_stuck.cli.session import open_session, tell_missing
from kubectl_harvester_stuck.errors import ExitStatus, gravest

if TYPE_CHECKING:
    from kubectl_harvester_stuck.k8s.kinds import Kind
    from kubectl_harvester_stuck.k8s.objects import Unreadable


@click.command("diagnose", cls=Command)
@target_arguments("[vm|vmi] [NAME]...", required=False)
@connection
@filename
@output(*FORMATS, "mermaid")
@click.option("-A", "--all-namespaces", is_flag=True, help="Without a name: in every namespace.")
@click.option("-l", "--selector", metavar="LABELS", help="Without a name: with these labels.")
@click.option("--older-than", type=Duration(), default="0", help="Only what hangs this long.")
@click.option("--exit-code", is_flag=True, help="Exit with 3 when something is stuck.")
@click.option("--no-logs", is_flag=True, help="Do not read the logs of the controllers.")
@click.pass_context
def diagnose(
    ctx: click.Context,
    kind: Kind | None,
    names: tuple[str, ...],
    filenames: tuple[str, ...],
    output: str,
    all_namespaces: bool,
    selector: str | None,
    older_than: timedelta,
    exit_code: bool,
    no_logs: bool,
) -> None:
    """Say why it is stuck, what holds each finalizer, and what to do next.

    Without a name: everything that is stuck in scope. Nothing is changed; the
    release that unstick would do is only tried as a dry run.

    \b
    Examples:
      kubectl harvester-stuck diagnose vm web-1 -n shop
      kubectl harvester-stuck diagnose vm/web-1 -o mermaid
      kubectl harvester-stuck diagnose -A --older-than 10m
      kubectl harvester-stuck diagnose -f supportbundle.zip
    """
    from kubectl_harvester_stuck import render
    from kubectl_harvester_stuck.cli.terminal import Terminal, draws_boxes, reading
    from kubectl_harvester_stuck.diagnosis import run
    from kubectl_harvester_stuck.k8s.kinds import VM, VMI
    from kubectl_harvester_stuck.listing import find
    from kubectl_harvester_stuck.release.model import Request
    from kubectl_harvester_stuck.release.preflight import Permissions

    if names and (all_namespaces or selector):
        raise click.UsageError("-A and -l go without a name")
    ctx.ensure_object(dict)
    scope = open_session(ctx.obj, filenames, all_namespaces=all_namespaces, selector=selector)
    where = scope.where
    terminal = Terminal(where)
    missing: tuple[Unreadable, ...] = ()
    targets = scope.refs(kind, names) if kind else []
    if not names:
        with reading(terminal.progress, "looking for what is stuck"):
            found = find.stuck(
                scope.source,
                kinds=frozenset({kind} if kind else {VM, VMI}),
                namespaces=scope.namespaces,
                labels=selector,
                older_than=older_than,
            )
        missing = scope.missing + found.missing
        # A VM's diagnosis tells of its VMI as well.
        vms = {row.ref.key for row in found.targets if row.ref.kind is VM}
        targets = [row.ref for row in found.targets if row.ref.kind is VM or row.ref.key not in vms]
    with reading(terminal.progress, f"reading {scope.what}"):
        rights = Permissions(scope.cluster) if scope.cluster else None
        done = run.diagnose_all(scope.source, targets, Request(), rights=rights, logs=not no_logs)
    terminal.clear()
    missing += done.missing
    if targets or output in render.DOCUMENTS:
        plain = not draws_boxes()
        text = render.diagnoses(done.diagnoses, missing, output, where, done.taken_at, plain=plain)
        print_result(ctx, output, text)
    else:
        say_nothing(scope.place, missing)
    tell_missing(scope, missing)
    for failure in done.failures:
        print_error(failure.error)
    stuck = any(item.plan.state for item in done.diagnoses)
    ctx.exit(
        gravest(
            ExitStatus.STUCK if stuck and exit_code else ExitStatus.OK,
            *(failure.error.status for failure in done.failures),
            *(ExitStatus.INCOMPLETE for _ in missing[:1]),
        )
    )
