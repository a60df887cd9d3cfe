"""`unstick`: the guarded release."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kubectl_harvester_stuck import __version__
from kubectl_harvester_stuck.cli import completion
from kubectl_harvester_stuck.cli.options import (
    FORMATS,
    Command,
    Duration,
    connection,
    output,
    target_arguments,
)
from kubectl_harvester_stuck.cli.output import (
    answer,
    print_error,
    print_result,
    say_nothing,
)
from kubectl_harvester_stuck.cli.session import check_selector, connect, repeated
from kubectl_harvester_stuck.errors import ExitStatus, NotFoundError, StuckError, gravest

if TYPE_CHECKING:
    from kubectl_harvester_stuck.cluster.client import Cluster
    from kubectl_harvester_stuck.k8s.kinds import Kind
    from kubectl_harvester_stuck.k8s.objects import Unreadable


def _known_finalizers(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    """Only a finalizer of the catalogue is known to leave work behind."""
    from kubectl_harvester_stuck.harvester.finalizers import CATALOGUE

    known = {entry.name for entry in CATALOGUE}
    for value in values:
        if value not in known:
            raise click.BadParameter(
                f"{value!r} is not in the catalogue; see finalizers, or name it with --finalizer"
            )
    return values


def _guards_help(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> Any:
    from kubectl_harvester_stuck.release.guards import GUARDS

    known = [guard.name for guard in GUARDS if guard.overridable]
    for value in values:
        if value not in known:
            raise click.BadParameter(f"{value!r} cannot be overridden; {', '.join(known)} can")
    return values


class _UnstickCommand(Command):
    """`unstick`, whose help lists the guards from their registry."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table of guards."""
        from kubectl_harvester_stuck.release.guards import GUARDS

        with formatter.section("Guards (all have to pass; * can be passed with --override)"):
            formatter.write_dl(
                [(f"{guard.name}{' *' if guard.overridable else ''}", guard.summary)
                 for guard in GUARDS]
            )  # fmt: skip


def _unknown_node(cluster: Cluster, name: str) -> tuple[Unreadable, ...]:
    """Why it is not known whether there is that node. Raises NotFoundError where there is none."""
    from kubectl_harvester_stuck.k8s.kinds import NODE
    from kubectl_harvester_stuck.k8s.objects import ObjectRef
    from kubectl_harvester_stuck.listing import find

    try:
        if cluster.get(ObjectRef("", name, NODE), metadata_only=True) is None:
            raise NotFoundError(f"node {name} was not found, and nothing that is stuck ran there")
    except NotFoundError:
        raise
    except StuckError as error:
        return (find.missing(NODE, "", error),)
    return ()


@click.command("unstick", cls=_UnstickCommand)
@target_arguments("vm|vmi [NAME]...", required=True)
@connection
@output(*FORMATS)
@click.option("--all", "everything", is_flag=True, help="Everything that is stuck in scope.")
@click.option("-A", "--all-namespaces", is_flag=True, help="With --all, -l, --node: everywhere.")
@click.option("-l", "--selector", metavar="LABELS", help="What is stuck and has these labels.")
@click.option("--node", "host", metavar="NODE", shell_complete=completion.nodes,
              help="What is stuck and ran on this node.")  # fmt: skip
@click.option(
    "--dry-run",
    type=click.Choice(["none", "client", "server"]),
    default="none",
    help="client: only print the plan. server: let admission answer, too.",
)
@click.option("-y", "--yes", is_flag=True, help="Go ahead without asking.")
@click.option("--confirm", metavar="DIGEST", help="Go ahead if the plan still has this digest.")
@click.option("--older-than", type=Duration(), default="5m", show_default=True,
              help="Least time since the deletion.")  # fmt: skip
@click.option("--finalizer", "finalizers", multiple=True, metavar="NAME",
              shell_complete=completion.finalizers_there,
              help="Remove only these; the only way to remove unrecognised ones.")  # fmt: skip
@click.option("--leave-behind", multiple=True, metavar="NAME", callback=_known_finalizers,
              shell_complete=completion.catalogue,
              help="Remove this finalizer although its work is not done.")  # fmt: skip
@click.option("--node-powered-off", "powered_off", multiple=True, metavar="NODE",
              shell_complete=completion.nodes,
              help="Your word that this node has no power.")  # fmt: skip
@click.option("--override", "overrides", multiple=True, metavar="GUARD", callback=_guards_help,
              shell_complete=completion.guards,
              help="Pass this guard whatever it says.")  # fmt: skip
@click.option("--max", "max_targets", type=click.IntRange(min=1), default=20, show_default=True,
              help="Refuse more targets than this.")  # fmt: skip
@click.option("--settle", type=Duration(), default="30s", show_default=True,
              help="What controllers get to finish by themselves after a step.")  # fmt: skip
@click.option("--timeout", type=Duration(), default="2m", show_default=True,
              help="How long to wait until everything is gone.")  # fmt: skip
@click.option("--backup-dir", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Where the objects are saved before the first change.")  # fmt: skip
@click.pass_context
def unstick(
    ctx: click.Context,
    kind: Kind,
    names: tuple[str, ...],
    output: str,
    everything: bool,
    all_namespaces: bool,
    selector: str | None,
    host: str | None,
    dry_run: str,
    yes: bool,
    confirm: str | None,
    older_than: timedelta,
    finalizers: tuple[str, ...],
    leave_behind: tuple[str, ...],
    powered_off: tuple[str, ...],
    overrides: tuple[str, ...],
    max_targets: int,
    settle: timedelta,
    timeout: timedelta,
    backup_dir: Path | None,
) -> None:
    """Release a stuck VM: dead pod first, then VMI, then VM.

    Nothing is changed unless every guard passes. The objects are saved before
    the first change; after each step the controllers get the chance to finish
    by themselves.

    \b
    Examples:
      kubectl harvester-stuck unstick vm web-1 -n shop --dry-run=server
      kubectl harvester-stuck unstick vm web-1 -n shop
      kubectl harvester-stuck unstick vm web-1 --node-powered-off node-2
      kubectl harvester-stuck unstick vm -A --node n2 --node-powered-off n2
    """
    import platform

    from kubectl_harvester_stuck import render
    from kubectl_harvester_stuck.cli.terminal import Terminal, reading
    from kubectl_harvester_stuck.k8s.objects import ObjectRef
    from kubectl_harvester_stuck.listing import find
    from kubectl_harvester_stuck.release import preflight, run
    from kubectl_harvester_stuck.release.interrupts import Interrupts
    from kubectl_harvester_stuck.release.model import Request
    from kubectl_harvester_stuck.render import journal_table, layout, release_text
    from kubectl_harvester_stuck.state import journal
    from kubectl_harvester_stuck.state.backups import Backups, state_directory

    if yes and confirm:
        raise click.UsageError("--yes and --confirm exclude each other")
    by_search = bool(everything or selector or host)
    if by_search == bool(names):
        raise click.UsageError("name the targets, or say --all, -l or --node")
    if all_namespaces and not by_search:
        raise click.UsageError("-A goes with --all, -l or --node; a name needs its namespace: -n")
    ctx.ensure_object(dict)
    check_selector(selector)
    cluster, namespace, where = connect(ctx.obj, repeated(ctx))
    terminal = Terminal(where, yes=yes, confirmed=confirm)
    missing: tuple[Unreadable, ...] = ()
    targets = [ObjectRef(namespace, name, kind) for name in dict.fromkeys(names)]
    if by_search:
        with reading(terminal.progress, "looking for what is stuck"):
            found = find.stuck(
                cluster,
                kinds=frozenset({kind}),
                namespaces=(None if all_namespaces else namespace,),
                labels=selector,
            )
        missing = found.missing
        there = [row for row in found.targets if host is None or row.node == host]
        if host is not None and not there:
            missing += _unknown_node(cluster, host)
        targets = [row.ref for row in there if not row.reason]
        waiting = len(there) - len(targets)
        if waiting:
            which = "VM was" if waiting == 1 else "VMs were"
            text = (
                f"{waiting} stuck {which} left out, of which nothing is being deleted yet; see list"
            )
            click.echo(text, err=True)
        homeless = sum(row.node is None for row in found.targets) if host else 0
        if homeless:
            which = "VM names no node and was" if homeless == 1 else "VMs name no node and were"
            click.echo(f"{homeless} stuck {which} left out; see --all", err=True)
        if not targets:
            nothing = run.ReleaseReport(
                "", missing=missing, found_nothing=True, is_blind=found.is_blind
            )
            if output in render.DOCUMENTS:
                answer(render.run(nothing, output, where))
            place = "" if all_namespaces else f" in {namespace} namespace"
            if not waiting:
                say_nothing(f"{place} on node {host}" if host else place, missing)
            click.echo(layout.unreadable(missing), nl=False, err=True)
            ctx.exit(gravest(nothing.status, *[ExitStatus.REFUSED] * bool(waiting)))
    request = Request(
        older_than=older_than,
        finalizers=frozenset(finalizers),
        leave_behind=frozenset(leave_behind),
        powered_off=frozenset(powered_off),
        overrides=frozenset(overrides),
        targets=len(targets),
        max_targets=max_targets,
    )
    state = state_directory(os.environ, Path.home())
    directory = backup_dir or state / "backups"
    interrupts = Interrupts(terminal.println)
    context = run.ReleaseContext(
        cluster=cluster,
        rights=preflight.Permissions(cluster),
        server=where.server,
        operator=terminal,
        archive=Backups(
            directory, where.context, where.server, __version__, datetime.now(timezone.utc)
        ),
        journal=journal.Journal(
            state, where.context, where.server, __version__, lambda: cluster.now
        ),
        clock=time,
        interrupts=interrupts,
        host=platform.node(),
        waits=run.Timeouts(settle, timeout),
    )
    with interrupts:  # up to the last word of the report
        if dry_run == "none":
            last = journal.read(state, journal.TAIL)
            click.echo(journal_table.cut_off(last.cut_off), nl=False, err=True)
            done = run.unstick(context, targets, request)
        else:
            with reading(terminal.progress, "reading the cluster"):
                done = run.preview(context, targets, request, ask_webhooks=dry_run == "server")
        done = replace(done, missing=missing)
        terminal.clear()
        print_result(ctx, output, render.run(done, output, where), report=True)
        for failure in done.failures:
            print_error(failure.error)
        click.echo(layout.unreadable(missing), nl=False, err=True)
        click.echo(release_text.private(done, where), nl=False, err=True)
    ctx.exit(done.status)
