"""Commands: flags in, one call, text and an exit status out.

Everything that costs start-up time is imported inside the commands; `--help` loads click alone.
"""

from __future__ import annotations

import io
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from kubectl_harvester_stuck import __version__
from kubectl_harvester_stuck.errors import ExitStatus, StuckError, gravest
from kubectl_harvester_stuck.options import (
    Command,
    Duration,
    TargetKind,
    connection,
    filename,
    output,
    target_arguments,
)

if TYPE_CHECKING:
    from kubectl_harvester_stuck.ask import Rights
    from kubectl_harvester_stuck.cluster import Cluster
    from kubectl_harvester_stuck.kinds import Kind
    from kubectl_harvester_stuck.model import Listing, Missing, Ref
    from kubectl_harvester_stuck.offline import Files
    from kubectl_harvester_stuck.render.invocation import Invocation
    from kubectl_harvester_stuck.source import Source

PROGRAM = "kubectl harvester-stuck"
FORMATS = ("table", "wide", "json", "yaml", "name")

SECRET_FLAGS = frozenset({"token"})
"""Never repeated in a command that is printed."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.version_option(__version__, prog_name=PROGRAM)
@connection
def cli() -> None:
    """Find and release Harvester virtual machines that are stuck.

    \b
    Examples:
      kubectl harvester-stuck list -A
      kubectl harvester-stuck unstick vm web-1 -n shop --dry-run=server
    """


@cli.command("list", cls=Command)
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
    from kubectl_harvester_stuck import find, render
    from kubectl_harvester_stuck.kinds import VM, VMI
    from kubectl_harvester_stuck.terminal import Terminal, reading

    if follow and (filenames or exit_code):
        raise click.UsageError("--watch goes neither with -f nor with --exit-code")
    if follow and output == "prometheus":
        raise click.UsageError("--watch does not go with -o prometheus: metrics are of one moment")
    ctx.ensure_object(dict)
    if follow:
        chosen = frozenset(kinds or (VM, VMI))
        _follow(ctx, output, chosen, all_namespaces, selector, older_than, headers=not no_headers)
    scope = _scope(ctx.obj, filenames, all_namespaces=all_namespaces, selector=selector)
    where = scope.where
    terminal = Terminal(where)
    with reading(terminal.tell, f"reading {scope.what}"):
        found = find.stuck(
            scope.source,
            kinds=frozenset(kinds or (VM, VMI)),
            namespaces=scope.namespaces,
            labels=selector,
            older_than=older_than,
        )
    found = replace(found, missing=scope.missing + found.missing)
    terminal.clear()
    _show(ctx, output, render.listing(found, output, where, headers=not no_headers))
    if not found.targets and output not in render.DOCUMENTS:
        _nothing(scope.place, found.missing)
    _tell_missing(scope, found.missing)
    ctx.exit(_list_status(found, exit_code=exit_code))


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
    from kubectl_harvester_stuck import render, watch
    from kubectl_harvester_stuck.render import people
    from kubectl_harvester_stuck.terminal import Board, queued

    cluster, namespace, _ = _connect(ctx.obj)
    namespaces = (None if all_namespaces else namespace,)
    place = people.safe("" if all_namespaces else f" in {namespace} namespace")
    view = watch.View(cluster, namespaces)
    view.start()
    answers = watch.follow(
        view, kinds=kinds, namespaces=namespaces, labels=selector, older_than=older_than
    )
    is_screen = output in ("table", "wide") and sys.stdout.isatty()
    board = Board(lambda text: _answer(text, stop=True))
    found: Listing | None = None
    rows: people.Rows | None = None
    told: set[tuple[str, str | None]] = set()
    since = time.monotonic()
    for answer in queued(answers, every=1.0):
        if answer is not None:
            found, changes = answer
            since = time.monotonic()
            # Each gap is told once, however its reason changes while the API server restarts.
            news = [item for item in found.missing if (item.resource, item.namespace) not in told]
            click.echo(people.missing(news), nl=False, err=True)
            if told and not found.missing:
                click.echo("Everything can be read again.", err=True)
                told.clear()
            told |= {(item.resource, item.namespace) for item in news}
            if rows is None and found.is_blind and found.missing:
                ctx.exit(ExitStatus.ERROR)
            if rows is None and not found.targets and not is_screen:
                click.echo(f"Nothing is stuck{place}; watching.", err=True)
            if rows is None:
                rows = people.Rows(found, wide=output == "wide")
                if headers and output in ("table", "wide") and not is_screen:
                    _answer(rows.line(rows.names), stop=True)
            if not is_screen:
                _answer(render.changes(changes, found, output, rows), stop=True)
        if is_screen and found is not None:
            passed = timedelta(seconds=time.monotonic() - since)
            shown = replace(found, taken_at=found.taken_at + passed)
            text = people.listing(shown, wide=output == "wide", headers=headers)
            board.draw(text or f"Nothing is stuck{place}; watching.\n")
    ctx.exit(ExitStatus.OK)


@dataclass(frozen=True)
class _Scope:
    """What a command that only reads looks at: a cluster, or files."""

    source: Source
    where: Invocation
    namespaces: tuple[str | None, ...]
    place: str
    """How the namespaces are called behind "Nothing is stuck"."""
    namespace: str | None
    """Where a name is looked for; None for anywhere in the files."""
    rights: Rights | None = None
    files: Files | None = None
    missing: tuple[Missing, ...] = ()

    @property
    def what(self) -> str:
        return "the cluster" if self.files is None else "the files"

    def refs(self, kind: Kind, names: Sequence[str]) -> list[Ref]:
        """The objects that were named; files may hold them in any namespace."""
        from kubectl_harvester_stuck.errors import NotFoundError
        from kubectl_harvester_stuck.model import Ref

        found: list[Ref] = []
        for name in dict.fromkeys(names):
            spaces: Sequence[str] = (self.namespace,) if self.namespace else ()
            if self.files is not None and self.namespace is None:
                spaces = self.files.where_is(kind, name)
            if len(spaces) > 1:
                raise NotFoundError(
                    f"{kind.kind} {name} is in the namespaces {', '.join(spaces)}: choose with -n"
                )
            if not spaces:
                raise NotFoundError(f"{kind.kind} {name} was not found{self.place}")
            found.append(Ref(spaces[0], name, kind))
        return found


def _tell_missing(scope: _Scope, missing: tuple[Missing, ...]) -> None:
    """Name what could not be read, and what would help."""
    from kubectl_harvester_stuck.render import people

    click.echo(people.missing(missing), nl=False, err=True)
    if missing and scope.files is not None and scope.files.has_bundle:
        hint = "the setting support-bundle-namespaces adds namespaces to the next bundle"
        click.echo(hint, err=True)


def _nothing(place: str, missing: tuple[Missing, ...]) -> None:
    """Say that nothing is stuck there, if all of it could be read."""
    from kubectl_harvester_stuck.render import people

    if not missing:
        click.echo(f"Nothing is stuck{people.safe(place)}.", err=True)


def _list_status(found: Listing, *, exit_code: bool) -> ExitStatus:
    """Complete and looked at is OK; lists that all failed are an error."""
    statuses = [ExitStatus.STUCK if found.targets and exit_code else ExitStatus.OK]
    if found.missing:
        statuses.append(ExitStatus.ERROR if found.is_blind else ExitStatus.INCOMPLETE)
    return gravest(*statuses)


def _guards_help(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> Any:
    from kubectl_harvester_stuck.guards import GUARDS

    known = [guard.name for guard in GUARDS if guard.overridable]
    for value in values:
        if value not in known:
            raise click.BadParameter(f"{value!r} cannot be overridden; {', '.join(known)} can")
    return values


@cli.command("diagnose", cls=Command)
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
    from kubectl_harvester_stuck import examine, find, render
    from kubectl_harvester_stuck.kinds import VM, VMI
    from kubectl_harvester_stuck.model import Request
    from kubectl_harvester_stuck.terminal import Terminal, draws_boxes, reading

    if names and (all_namespaces or selector):
        raise click.UsageError("-A and -l go without a name")
    ctx.ensure_object(dict)
    scope = _scope(ctx.obj, filenames, all_namespaces=all_namespaces, selector=selector)
    where = scope.where
    terminal = Terminal(where)
    missing: tuple[Missing, ...] = ()
    targets = scope.refs(kind, names) if kind else []
    if not names:
        with reading(terminal.tell, "looking for what is stuck"):
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
    with reading(terminal.tell, f"reading {scope.what}"):
        done = examine.examine(
            scope.source, targets, Request(), rights=scope.rights, logs=not no_logs
        )
    terminal.clear()
    missing += done.missing
    if targets or output in render.DOCUMENTS:
        plain = not draws_boxes()
        text = render.diagnoses(done.diagnoses, missing, output, where, done.taken_at, plain=plain)
        _show(ctx, output, text)
    else:
        _nothing(scope.place, missing)
    _tell_missing(scope, missing)
    for failure in done.failures:
        _say_error(failure.error)
    stuck = any(item.plan.state for item in done.diagnoses)
    ctx.exit(
        gravest(
            ExitStatus.STUCK if stuck and exit_code else ExitStatus.OK,
            *(failure.error.status for failure in done.failures),
            *(ExitStatus.INCOMPLETE for _ in missing[:1]),
        )
    )


@cli.command("check", cls=Command)
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

    High availability, backups, monitoring, graceful shutdown and the path of a
    release. Nothing is changed. -o wide adds the evidence and what to do.

    \b
    Examples:
      kubectl harvester-stuck check -A -o wide
      kubectl harvester-stuck check -n shop --backup-age 24h --exit-code
      kubectl harvester-stuck check -f supportbundle.zip
      kubectl harvester-stuck check --print-rules
    """
    from kubectl_harvester_stuck.render import checks, structured

    if print_rules:
        from kubectl_harvester_stuck.checks.rules import RULES

        _answer(structured.dump(RULES, "json" if output == "json" else "yaml"))
        return
    from kubectl_harvester_stuck import checkup
    from kubectl_harvester_stuck.terminal import Terminal, reading

    ctx.ensure_object(dict)
    scope = _scope(ctx.obj, filenames, all_namespaces=all_namespaces)
    terminal = Terminal(scope.where)
    with reading(terminal.tell, f"reading {scope.what}"):
        done = checkup.check(scope.source, scope.namespaces, backup_age=backup_age)
    done = replace(done, missing=scope.missing + done.missing)
    terminal.clear()
    _show(ctx, output, checks.text(done, output, scope.where, headers=not no_headers))
    _tell_missing(scope, done.missing)
    ctx.exit(checkup.status_of(done, exit_code=exit_code))


class _UnstickCommand(Command):
    """`unstick`, whose help lists the guards from their registry."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table of guards."""
        from kubectl_harvester_stuck.guards import GUARDS

        with formatter.section("Guards (all have to pass; * can be passed with --override)"):
            formatter.write_dl(
                [(f"{guard.name}{' *' if guard.overridable else ''}", guard.summary)
                 for guard in GUARDS]
            )  # fmt: skip


@cli.command("unstick", cls=_UnstickCommand)
@target_arguments("vm|vmi [NAME]...", required=True)
@connection
@output(*FORMATS)
@click.option("--all", "everything", is_flag=True, help="Everything that is stuck in scope.")
@click.option("-A", "--all-namespaces", is_flag=True, help="With --all, -l, --node: everywhere.")
@click.option("-l", "--selector", metavar="LABELS", help="What is stuck and has these labels.")
@click.option("--node", "host", metavar="NODE", help="What is stuck and ran on this node.")
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
              help="Remove only these; the only way to remove unrecognised ones.")  # fmt: skip
@click.option("--leave-behind", multiple=True, metavar="NAME",
              help="Remove this finalizer although its work is not done.")  # fmt: skip
@click.option("--node-powered-off", "powered_off", multiple=True, metavar="NODE",
              help="Your word that this node has no power.")  # fmt: skip
@click.option("--override", "overrides", multiple=True, metavar="GUARD", callback=_guards_help,
              help="Pass this guard whatever it says.")  # fmt: skip
@click.option("--max", "max_targets", type=click.IntRange(min=1), default=20, show_default=True,
              help="Refuse more targets than this.")  # fmt: skip
@click.option("--settle", type=Duration(), default="30s", show_default=True,
              help="What controllers get to finish by themselves after a step.")  # fmt: skip
@click.option("--timeout", type=Duration(), default="2m", show_default=True,
              help="How long to wait until everything is gone.")  # fmt: skip
@click.option("--backup-dir", type=click.Path(path_type=Path), metavar="DIR",
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

    from kubectl_harvester_stuck import ask, find, flow, journal, render
    from kubectl_harvester_stuck.backup import Backups, state_directory
    from kubectl_harvester_stuck.model import Ref, Request
    from kubectl_harvester_stuck.render import people
    from kubectl_harvester_stuck.terminal import Terminal, reading

    if yes and confirm:
        raise click.UsageError("--yes and --confirm exclude each other")
    by_search = bool(everything or selector or host)
    if by_search == bool(names):
        raise click.UsageError("name the targets, or say --all, -l or --node")
    if all_namespaces and not by_search:
        raise click.UsageError("-A goes with --all, -l or --node; a name needs its namespace: -n")
    ctx.ensure_object(dict)
    cluster, namespace, where = _connect(ctx.obj, _repeat(ctx))
    terminal = Terminal(where, yes=yes, confirmed=confirm)
    missing: tuple[Missing, ...] = ()
    targets = [Ref(namespace, name, kind) for name in dict.fromkeys(names)]
    if by_search:
        with reading(terminal.tell, "looking for what is stuck"):
            found = find.stuck(
                cluster,
                kinds=frozenset({kind}),
                namespaces=(None if all_namespaces else namespace,),
                labels=selector,
            )
        missing = found.missing
        targets = [row.ref for row in found.targets if host is None or row.node == host]
        homeless = sum(row.node is None for row in found.targets) if host else 0
        if homeless:
            which = "VM names no node and was" if homeless == 1 else "VMs name no node and were"
            click.echo(f"{homeless} stuck {which} left out; see --all", err=True)
        if not targets:
            if output in render.DOCUMENTS:
                _answer(render.run(flow.Run("", missing=missing), output, where))
            place = "" if all_namespaces else f" in {namespace} namespace"
            _nothing(f"{place} on node {host}" if host else place, missing)
            click.echo(people.missing(missing), nl=False, err=True)
            ctx.exit(_list_status(found, exit_code=False))
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
    desk = flow.Desk(
        cluster=cluster,
        rights=ask.Rights(cluster),
        server=where.server,
        operator=terminal,
        archive=Backups(
            directory, where.context, where.server, __version__, datetime.now(timezone.utc)
        ),
        journal=journal.Journal(
            state, where.context, where.server, __version__, lambda: cluster.now
        ),
        clock=time,
        host=platform.node(),
        waits=flow.Waits(settle, timeout),
    )
    if dry_run == "none":
        last = journal.read(state, journal.TAIL)
        click.echo(people.cut_off(last.cut_off), nl=False, err=True)
        done = flow.unstick(desk, targets, request)
    else:
        with reading(terminal.tell, "reading the cluster"):
            done = flow.preview(desk, targets, request, ask_webhooks=dry_run == "server")
    done = replace(done, missing=missing)
    terminal.clear()
    _show(ctx, output, render.run(done, output, where))
    for failure in done.failures:
        _say_error(failure.error)
    click.echo(people.missing(missing), nl=False, err=True)
    click.echo(people.private(done, where), nl=False, err=True)
    ctx.exit(done.status)


@cli.command("restore", cls=Command)
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@connection
@output("table", "json", "yaml", "name")
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

    from kubectl_harvester_stuck import backup, journal, render, restoring
    from kubectl_harvester_stuck import restore as decisions
    from kubectl_harvester_stuck.render import structured
    from kubectl_harvester_stuck.terminal import Terminal, reading

    if redact and (yes or dry_run != "none" or output == "name"):
        raise click.UsageError("--redact only prints: it goes with -o json or yaml alone")
    document = decisions.load(backup.read(file), str(file))
    if redact:
        shared = decisions.without_secrets(document)
        _answer(structured.dump(shared, "yaml" if output == "yaml" else "json"))
        return
    found = decisions.backup_of(document, str(file))
    ctx.ensure_object(dict)
    if ctx.obj.get("namespace") not in (None, found.ref.namespace):
        raise click.UsageError(f"the VM of this backup belongs to namespace {found.ref.namespace}")
    cluster, _, where = _connect(ctx.obj)
    terminal = Terminal(where, yes=yes)
    desk = restoring.Desk(
        cluster,
        where.server,
        terminal,
        journal.Journal(
            backup.state_directory(os.environ, Path.home()),
            where.context,
            where.server,
            __version__,
            lambda: cluster.now,
        ),
        file=str(file.absolute()),
        host=platform.node(),
    )
    if dry_run == "none":
        done = restoring.create(desk, found)
    else:
        with reading(terminal.tell, "reading the cluster"):
            done = restoring.preview(desk, found, ask_webhooks=dry_run == "server")
    terminal.clear()
    _show(ctx, output, render.restoration(done, output, where))
    ctx.exit(restoring.status_of(done))


@cli.command("finalizers", cls=Command)
@click.argument("name", required=False)
@filename
@output(*FORMATS)
@click.option("--no-headers", is_flag=True, help="Leave the header of the table out.")
@click.pass_context
def finalizers_(
    ctx: click.Context,
    name: str | None,
    filenames: tuple[str, ...],
    output: str,
    no_headers: bool,
) -> None:
    """Show the catalogue: who owns a finalizer, and what it guards.

    With -f: the finalizers that the VMs and VMIs in the files carry.

    \b
    Examples:
      kubectl harvester-stuck finalizers
      kubectl harvester-stuck finalizers foregroundDeletion
      kubectl harvester-stuck finalizers -f supportbundle.zip
    """
    if filenames:
        _carried(ctx, name, filenames, output, headers=not no_headers)
    from kubectl_harvester_stuck import render
    from kubectl_harvester_stuck.errors import NotFoundError
    from kubectl_harvester_stuck.finalizers import CATALOGUE
    from kubectl_harvester_stuck.render import people

    entries = [entry for entry in CATALOGUE if name in (None, entry.name)]
    if not entries:
        raise NotFoundError(
            f"{name} is not in the catalogue; `{PROGRAM} finalizers -o name` lists what is"
        )
    if name is not None and output in ("table", "wide"):
        _answer("\n".join(people.entry(entry) for entry in entries))
        return
    _answer(render.catalogue(entries, output, headers=not no_headers))


def _carried(
    ctx: click.Context, name: str | None, filenames: tuple[str, ...], output: str, *, headers: bool
) -> NoReturn:
    """`finalizers -f`."""
    from kubectl_harvester_stuck import find, render
    from kubectl_harvester_stuck.terminal import Terminal, reading

    scope = _scope(ctx.ensure_object(dict), filenames)
    terminal = Terminal(scope.where)
    with reading(terminal.tell, f"reading {scope.what}"):
        found, missing = find.carried(scope.source, scope.namespaces)
    terminal.clear()
    missing = scope.missing + missing
    found = tuple(item for item in found if name in (None, item.name))
    _answer(render.carried(found, missing, output, scope.where, headers=headers))
    if not found and not missing:
        click.echo(f"No finalizer{f' {name}' if name else ''}{scope.place}.", err=True)
    _tell_missing(scope, missing)
    ctx.exit(ExitStatus.INCOMPLETE if missing else ExitStatus.OK)


@cli.command("journal", cls=Command)
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
    from kubectl_harvester_stuck import journal, render
    from kubectl_harvester_stuck.backup import state_directory

    ctx.ensure_object(dict)
    state = state_directory(os.environ, Path.home())
    namespace = namespace or ctx.obj.get("namespace")
    found = journal.read(state)
    changes = [item for item in found.changes if namespace in (None, journal.namespace_of(item))]
    now = datetime.now(timezone.utc)
    _show(ctx, output, render.journal(changes, output, now, headers=not no_headers))
    if found.broken:
        what = "1 line" if found.broken == 1 else f"{found.broken} lines"
        click.echo(f"left out {what} of {state / journal.FILE} that cannot be read", err=True)
    if not changes and output not in render.DOCUMENTS:
        from kubectl_harvester_stuck.render import people

        place = f" in {namespace} namespace" if namespace else ""
        click.echo(f"Nothing was changed yet{people.safe(place)}.", err=True)


@cli.command()
def version() -> None:
    """Show the version of this program and of the Kubernetes client."""
    from importlib.metadata import version as version_of

    click.echo(f"kubectl-harvester-stuck {__version__}")
    click.echo(f"kubernetes {version_of('kubernetes')}")


def _scope(
    given: dict[str, Any],
    filenames: tuple[str, ...],
    *,
    all_namespaces: bool = False,
    selector: str | None = None,
) -> _Scope:
    """What is to be read: the files that were named, otherwise the cluster of the kubeconfig."""
    if filenames:
        return _files(given, filenames, all_namespaces=all_namespaces, selector=selector)
    from kubectl_harvester_stuck.ask import Rights

    cluster, namespace, where = _connect(given)
    return _Scope(
        source=cluster,
        where=where,
        namespaces=(None if all_namespaces else namespace,),
        place="" if all_namespaces else f" in {namespace} namespace",
        namespace=namespace,
        rights=Rights(cluster),
    )


def _files(
    given: dict[str, Any],
    filenames: tuple[str, ...],
    *,
    all_namespaces: bool,
    selector: str | None,
) -> _Scope:
    """Files stand for a cluster: no kubeconfig is read, and nothing is asked of anybody."""
    from kubectl_harvester_stuck import labels, offline
    from kubectl_harvester_stuck.model import Missing
    from kubectl_harvester_stuck.render import people
    from kubectl_harvester_stuck.render.invocation import Invocation

    flags = _connection_words({key: given[key] for key in given if key != "token"})
    if flags or "token" in given:
        raise click.UsageError(f"-f reads files, so {(*flags, '--token')[0]} does not go with it")
    try:
        labels.parse(selector or "")
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    stdin = sys.stdin.buffer if offline.STANDARD_INPUT in filenames else io.BytesIO()
    files = offline.read(filenames, stdin, datetime.now(timezone.utc))
    when = "" if files.says_when else ", when it was last written"
    title = people.safe(files.title)
    click.echo(f"{title}: as of {files.now:%Y-%m-%dT%H:%M:%SZ}{when}", err=True)
    namespace = None if all_namespaces else given.get("namespace")
    gaps = () if namespace else files.unknown_namespaces()
    return _Scope(
        source=files,
        where=Invocation("", "", files=files.names),
        namespaces=(namespace,) if namespace else files.namespaces() or (None,),
        place=f" in {f'{namespace} namespace of ' if namespace else ''}{title}",
        namespace=namespace,
        files=files,
        missing=tuple(Missing("namespaces", None, "Unreadable", gap) for gap in gaps),
    )


def _connect(
    given: dict[str, Any], options: tuple[str, ...] = ()
) -> tuple[Cluster, str, Invocation]:
    """The cluster that the flags and the kubeconfig lead to, and its default namespace."""
    from kubectl_harvester_stuck import kubeconfig
    from kubectl_harvester_stuck.cluster import Cluster
    from kubectl_harvester_stuck.render.invocation import Invocation
    from kubectl_harvester_stuck.transport import Transport

    flags = dict(given)
    timeout: timedelta | None = flags.pop("request_timeout", None)
    verbosity = flags.pop("verbosity", 0)
    flags.pop("color", None)
    found = kubeconfig.load(kubeconfig.Flags(**flags), os.environ)
    for notice in found.notices:
        click.echo(notice, err=True)
    transport = Transport(
        found,
        timeout=timeout.total_seconds() if timeout else None,
        user_agent=f"kubectl-harvester-stuck/{__version__} ({sys.platform})",
        on_warning=lambda text: click.echo(f"Warning: {text}", err=True),
        on_request=(lambda line: click.echo(line, err=True)) if verbosity >= 6 else None,
    )
    where = Invocation(found.context, found.server, _connection_words(given), options)
    return Cluster(transport), found.namespace, where


def _connection_words(given: dict[str, Any]) -> tuple[str, ...]:
    """The connection flags as they would be typed again; the namespace is named separately."""
    words: list[str] = []
    params = {param.name: param for param in cli.params if isinstance(param, click.Option)}
    for name, value in given.items():
        if name in SECRET_FLAGS or name in ("namespace", "verbosity", "color"):
            continue
        words += _words(params[name], value)
    return tuple(words)


def _repeat(ctx: click.Context) -> tuple[str, ...]:
    """The flags of this command that were given and still apply to its next call."""
    words: list[str] = []
    for param in ctx.command.params:
        if not isinstance(param, click.Option) or param.name not in _REPEATED:
            continue
        source = ctx.get_parameter_source(param.name)
        if source is click.core.ParameterSource.COMMANDLINE:
            words += _words(param, ctx.params[param.name])
    return tuple(words)


_REPEATED = ("older_than", "finalizers", "leave_behind", "powered_off", "overrides", "max_targets")


def _words(option: click.Option, value: Any) -> list[str]:
    flag = max(option.opts, key=len)
    if value is True:
        return [flag]
    values = value if isinstance(value, tuple) else (value,)
    texts = [
        f"{item.total_seconds():g}s" if isinstance(item, timedelta) else str(item)
        for item in values
    ]
    return [word for text in texts for word in (flag, text)]


def _show(ctx: click.Context, output: str, text: str) -> None:
    """The answer, coloured where it is for people who want that."""
    from kubectl_harvester_stuck.render import colour

    when = ctx.obj.get("color", "auto")
    for_people = output in ("table", "wide")
    if for_people and colour.wanted(when, os.environ, is_terminal=sys.stdout.isatty()):
        text = colour.paint(text)
    _answer(text)


def _answer(text: str, *, stop: bool = False) -> None:
    """Write to stdout. A reader that went away does not change how the work itself ended.

    With `stop` the work is over then: nobody waits for the rest.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # Nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if stop:
            sys.exit(ExitStatus.OK)


def _say_error(error: StuckError) -> None:
    from kubectl_harvester_stuck.render.people import safe

    text = safe(str(error))
    own_words = ("Error from server", "The connection", "Unable to connect", "error:")
    click.echo(text if text.startswith(own_words) else f"error: {text}", err=True)


def _document_asked(arguments: list[str]) -> str | None:
    """Which document the caller asked for, found in arguments that may not even be valid."""
    words = " ".join(arguments)
    found = re.search(r"(?:^| )(?:-o ?|--output[ =])(json|yaml)(?: |$)", words)
    return found.group(1) if found else None


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the program and end the process with the exit status of the contract."""
    # kubectl takes -o=json as well as -ojson; click knows only the second.
    given = [
        re.sub(r"^-([A-Za-z])=", r"-\1", word)
        for word in (sys.argv[1:] if arguments is None else arguments)
    ]
    try:
        status = int(cli.main(given, prog_name=PROGRAM, standalone_mode=False) or 0)
    except click.ClickException as error:
        _fail(given, UsageError(error.format_message()))
        error.show()
        status = error.exit_code
    except StuckError as error:
        _fail(given, error)
        _say_error(error)
        status = error.status
    except (KeyboardInterrupt, click.Abort):
        status = 130
    sys.exit(int(status))


class UsageError(StuckError):
    """Wrong flags or arguments, in the shape that documents are made of."""

    status = ExitStatus.USAGE


def _fail(arguments: list[str], error: StuckError) -> None:
    """Answer with a document, if one was asked for, although there is no answer."""
    asked = _document_asked(arguments)
    if asked is None:
        return
    from kubectl_harvester_stuck.render import structured

    command = next((word for word in arguments if word in cli.commands), "")
    command = "diagnosis" if command == "diagnose" else command
    _answer(structured.dump(structured.failure(command, error), asked))
