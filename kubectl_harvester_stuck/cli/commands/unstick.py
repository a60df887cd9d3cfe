"""`unstick`: the guarded release."""

from __future__ import annotations

import os
import sys
import time
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from kubectl_harvester_stuck import __version__
from kubectl_harvester_stuck.cli import completion, exit_status
from kubectl_harvester_stuck.cli.again import repeated, retyped
from kubectl_harvester_stuck.cli.execute import execute
from kubectl_harvester_stuck.cli.options import (
    FORMATS,
    Command,
    Duration,
    connection,
    node,
    output,
)
from kubectl_harvester_stuck.cli.output import (
    Answer,
    error_line,
    left_out,
    nothing_is_stuck,
    screen,
)
from kubectl_harvester_stuck.cli.session import check_selector, connect
from kubectl_harvester_stuck.cli.targets import Named, check_namespaces, target_arguments
from kubectl_harvester_stuck.errors import ExitStatus

if TYPE_CHECKING:
    from kubectl_harvester_stuck.cli.terminal import Terminal
    from kubectl_harvester_stuck.k8s.kinds import Kind
    from kubectl_harvester_stuck.k8s.objects import ObjectRef, Unreadable
    from kubectl_harvester_stuck.listing.model import Listing
    from kubectl_harvester_stuck.release.context import ReleaseContext
    from kubectl_harvester_stuck.release.model import ReleaseReport, ReleaseRequest
    from kubectl_harvester_stuck.render.invocation import Invocation


SETTLE = timedelta(seconds=30)
"""What controllers get after a step, where nothing else is said."""


class _Means(NamedTuple):
    """What a release works with."""

    namespace: str
    where: Invocation
    terminal: Terminal
    state: Path
    """Where this program keeps its files."""
    context: ReleaseContext


class UnstickOptions(NamedTuple):
    """The flags of `unstick`."""

    kind: Kind | None
    names: tuple[Named, ...]
    output: str
    everything: bool
    all_namespaces: bool
    selector: str | None
    host: str | None
    dry_run: str
    yes: bool
    confirm: str | None
    older_than: timedelta
    finalizers: tuple[str, ...]
    leave_behind: tuple[str, ...]
    powered_off: tuple[str, ...]
    overrides: tuple[str, ...]
    max_targets: int
    settle: timedelta | None
    timeout: timedelta
    backup_dir: Path | None
    ignore_not_found: bool

    @property
    def by_search(self) -> bool:
        """Whether the targets are looked for, and not named."""
        return bool(self.everything or self.selector or self.host)

    @property
    def _kind(self) -> Kind:
        from kubectl_harvester_stuck.k8s.kinds import VM

        return self.kind or VM

    def validate(self) -> None:
        """There is one way to agree, and one to say what the targets are."""
        if self.yes and self.confirm:
            raise click.UsageError("--yes and --confirm exclude each other")
        if self.by_search == bool(self.names):
            raise click.UsageError("name the targets, or say --all, -l or --node, but not both")
        check_selector(self.selector)
        if self.settle is not None and self.settle > self.timeout:
            settle, timeout = (f"{item.total_seconds():g}s" for item in (self.settle, self.timeout))
            raise click.UsageError(
                f"--settle {settle}, the wait after one step, is longer than --timeout {timeout},"
                f" the wait for all: say --settle {timeout} or less"
            )
        if self.all_namespaces and not self.by_search:
            raise click.UsageError(
                "-A goes with --all, -l or --node; for one VM say NAMESPACE/NAME or -n"
            )

    def complete(self, ctx: click.Context) -> _Means:
        """The cluster, the operator, and where each change is saved and recorded."""
        import platform

        from kubectl_harvester_stuck.cli.terminal import Terminal
        from kubectl_harvester_stuck.release.context import ReleaseContext, Timeouts
        from kubectl_harvester_stuck.release.interrupts import Interrupts
        from kubectl_harvester_stuck.release.preflight import Permissions
        from kubectl_harvester_stuck.state.backups import Backups
        from kubectl_harvester_stuck.state.journal import Journal
        from kubectl_harvester_stuck.state.private_files import state_directory

        given = ctx.ensure_object(dict)
        check_namespaces(given.get("namespace"), self.names)
        cluster, namespace, where = connect(given, repeated(ctx))
        terminal = Terminal(
            where, yes=self.yes, confirmed=self.confirm, retyped=partial(retyped, ctx)
        )
        state = state_directory(os.environ)
        directory = self.backup_dir or state / "backups"
        here = (where.context, where.server, __version__)
        context = ReleaseContext(
            cluster=cluster,
            rights=Permissions(cluster),
            server=where.server,
            operator=terminal,
            archive=Backups(directory, *here, datetime.now(timezone.utc), terminal.println),
            journal=Journal(state, *here, lambda: cluster.now),
            clock=time,
            # Up to the last word of the report, which is printed before the context is closed.
            interrupts=ctx.with_resource(Interrupts(terminal.println)),
            host=platform.node(),
            waits=Timeouts(
                min(SETTLE, self.timeout) if self.settle is None else self.settle, self.timeout
            ),
        )
        return _Means(namespace, where, terminal, state, context)

    def run(self, means: _Means) -> Answer:
        """Release the targets, or show what would be done."""
        from kubectl_harvester_stuck.k8s.objects import ObjectRef

        if not self.by_search:
            refs = (
                ObjectRef(namespace or means.namespace, name, self._kind)
                for namespace, name in self.names
            )
            return self._release(means, list(dict.fromkeys(refs)))
        found = self._search(means)
        targets = [row.ref for row in found.releasable]
        waiting = len(found.targets) - len(targets)
        if waiting:
            which = "VM was" if waiting == 1 else "VMs were"
            click.echo(
                f"{waiting} stuck {which} left out, of which nothing is being deleted yet; see"
                " list",
                err=True,
            )
        if not targets:
            return self._nothing(means, found, is_waiting=bool(waiting))
        return self._release(means, targets, found)

    def _search(self, means: _Means) -> Listing:
        """Everything that is stuck in scope; what names no node is left out aloud."""
        from kubectl_harvester_stuck.cli.terminal import reading
        from kubectl_harvester_stuck.listing import find

        with reading(means.terminal.progress, "looking for what is stuck"):
            found = find.stuck(
                means.context.cluster,
                kinds=frozenset({self._kind}),
                namespaces=(None if self.all_namespaces else means.namespace,),
                labels=self.selector,
                node=self.host,
            )
        click.echo(left_out(found), nl=False, err=True)
        return found

    def _nothing(self, means: _Means, found: Listing, *, is_waiting: bool) -> Answer:
        from kubectl_harvester_stuck import render
        from kubectl_harvester_stuck.k8s.kinds import OPERATOR_ROLE
        from kubectl_harvester_stuck.release.model import ReleaseReport
        from kubectl_harvester_stuck.render import layout

        done = ReleaseReport("", missing=found.missing, found_nothing=True, is_blind=found.is_blind)
        place = "" if self.all_namespaces else f" in {means.namespace} namespace"
        place = f"{place} on node {self.host}" if self.host else place
        is_document = self.output in render.DOCUMENTS
        nothing = "" if is_waiting else nothing_is_stuck(place, found.missing)
        return Answer(
            exit_status.of_nothing_to_release(done, is_waiting=is_waiting),
            render.run(done, self.output, means.where) if is_document else "",
            nothing + layout.unreadable(found.missing, screen(sys.stderr).width, OPERATOR_ROLE),
        )

    def _release(
        self, means: _Means, targets: list[ObjectRef], found: Listing | None = None
    ) -> Answer:
        from dataclasses import replace

        from kubectl_harvester_stuck import render
        from kubectl_harvester_stuck.k8s.kinds import OPERATOR_ROLE
        from kubectl_harvester_stuck.render import layout, release_text

        too_many = self._too_many(means, targets, found.missing if found else ())
        if too_many is not None:
            return too_many
        done = _with_first_steps(means, self._report(means, targets))
        done = replace(done, missing=found.missing if found else ())
        means.terminal.clear()
        if self.ignore_not_found:
            done = _without_absent(done)
        errors = (error_line(failure.error, OPERATOR_ROLE) for failure in done.failures)
        private = release_text.private(done, means.where)
        width = screen(sys.stderr).width
        gaps = layout.unreadable((*done.missing, *done.blind), width, OPERATOR_ROLE)
        return Answer(
            exit_status.of_release(done),
            render.run(done, self.output, means.where, screen=screen()),
            "".join([*errors, gaps, private]),
            is_report=True,
        )

    def _too_many(
        self, means: _Means, targets: list[ObjectRef], missing: tuple[Unreadable, ...]
    ) -> Answer | None:
        """The answer where there are more than --max: the reason once, whatever their number.

        `missing` is what could not be read while they were looked for.
        """
        from dataclasses import replace

        from kubectl_harvester_stuck import render
        from kubectl_harvester_stuck.k8s.kinds import OPERATOR_ROLE
        from kubectl_harvester_stuck.release import run
        from kubectl_harvester_stuck.render import layout

        done = run.too_many(means.where.server, targets, self._request(len(targets)))
        if done is None:
            return None
        done = replace(done, missing=missing)
        is_document = self.output in render.DOCUMENTS
        return Answer(
            exit_status.of_release(done),
            render.run(done, self.output, means.where) if is_document else "",
            f"error: nothing was changed: {done.outcomes[0].refusals[0].reason}\n"
            + layout.unreadable(missing, screen(sys.stderr).width, OPERATOR_ROLE),
        )

    def _report(self, means: _Means, targets: list[ObjectRef]) -> ReleaseReport:
        """What became of the targets, or would."""
        from kubectl_harvester_stuck.cli.terminal import reading
        from kubectl_harvester_stuck.release import run
        from kubectl_harvester_stuck.render import journal_table
        from kubectl_harvester_stuck.state import journal

        request = self._request(len(targets))
        if self.dry_run == "none":
            last = journal.read(means.state, journal.TAIL)
            click.echo(journal_table.cut_off(last.cut_off, means.where), nl=False, err=True)
            return run.unstick(means.context, targets, request)
        with reading(means.terminal.progress, "reading the cluster"):
            is_server = self.dry_run == "server"
            return run.preview(means.context, targets, request, ask_webhooks=is_server)

    def _request(self, targets: int) -> ReleaseRequest:
        from kubectl_harvester_stuck.release.model import ReleaseRequest

        return ReleaseRequest(
            older_than=self.older_than,
            finalizers=frozenset(self.finalizers),
            leave_behind=frozenset(self.leave_behind),
            powered_off=frozenset(self.powered_off),
            overrides=frozenset(self.overrides),
            targets=targets,
            max_targets=self.max_targets,
        )


def _without_absent(done: ReleaseReport) -> ReleaseReport:
    """The report without the targets that do not exist, which are named on stderr."""
    from dataclasses import replace

    from kubectl_harvester_stuck.errors import NotFoundError
    from kubectl_harvester_stuck.render.layout import safe

    absent = [item for item in done.failures if isinstance(item.error, NotFoundError)]
    for failure in absent:
        click.echo(safe(f"{failure.ref} was not found: nothing to do"), err=True)
    left = tuple(item for item in done.failures if item not in absent)
    return replace(done, failures=left, found_nothing=not (left or done.outcomes))


def _with_first_steps(means: _Means, done: ReleaseReport) -> ReleaseReport:
    """What `diagnose` would do first about each target that was refused.

    Only where nothing was changed: the report of a change waits for no further look.
    """
    from dataclasses import replace

    from kubectl_harvester_stuck.cli.terminal import reading
    from kubectl_harvester_stuck.diagnosis import run

    refused = [one.plan for one in done.outcomes if one.refusals]
    is_changed = any(one.changed for one in done.outcomes)
    if not refused or is_changed or means.context.interrupts.pressed:
        return done
    with reading(means.terminal.progress, "reading why it was refused"):
        steps = run.first_steps(means.context.cluster, refused)
    ends = (replace(one, first_step=steps.get(one.plan.ref)) for one in done.outcomes)
    return replace(done, outcomes=tuple(ends))


def _known_finalizers(
    _ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    """Only a finalizer of the catalogue is known to leave work behind."""
    from kubectl_harvester_stuck.harvester.finalizer_catalogue import CATALOGUE

    known = {entry.name for entry in CATALOGUE}
    for value in values:
        if value not in known:
            raise click.BadParameter(
                f"{value!r} is not in the catalogue; see finalizers, or name it with --finalizer"
            )
    return values


def _guards_help(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> Any:
    from kubectl_harvester_stuck.release.guards import GUARDS

    known = [guard.name for guard in GUARDS if guard.overridable]
    for value in values:
        if value not in known:
            raise click.BadParameter(f"{value!r} cannot be overridden; {', '.join(known)} can")
    return values


class _UnstickCommand(Command):
    """`unstick`, whose help lists the guards from their registry."""

    def format_epilog(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table of guards."""
        from kubectl_harvester_stuck.release.guards import GUARDS

        with formatter.section("Guards (all have to pass; * can be passed with --override)"):
            formatter.write_dl(
                [(f"{guard.name}{' *' if guard.overridable else ''}", guard.summary)
                 for guard in GUARDS]
            )  # fmt: skip


@click.command("unstick", cls=_UnstickCommand)
@target_arguments("[vm|vmi] [NAME]...")
@connection
@output(*FORMATS)
@click.option(
    "--all", "everything", is_flag=True, help="Everything that is stuck in the namespace."
)
@click.option(
    "-A", "--all-namespaces", is_flag=True, help="With --all, -l or --node: in every namespace."
)
@click.option("-l", "--selector", metavar="LABELS", help="Everything stuck that has these labels.")
@node("Everything stuck that ran on this node.")
@click.option(
    "--dry-run",
    type=click.Choice(["none", "client", "server"]),
    default="none",
    help="client: only print the plan. server: also validate it on the server.",
)
@click.option("-y", "--yes", is_flag=True, help="Go ahead without asking.")
@click.option(
    "--confirm", metavar="DIGEST", help="Go ahead only if the plan still has this digest."
)
@click.option("--older-than", type=Duration(), default="5m", show_default=True,
              help="Only objects deleted at least this long ago.")  # fmt: skip
@click.option("--finalizer", "finalizers", multiple=True, metavar="NAME",
              shell_complete=completion.finalizers_there,
              help="Remove only this one; needed for one not in the catalogue.")  # fmt: skip
@click.option("--leave-behind", multiple=True, metavar="NAME", callback=_known_finalizers,
              shell_complete=completion.catalogue,
              help="Remove this finalizer although its work is not done.")  # fmt: skip
@click.option("--node-powered-off", "powered_off", multiple=True, metavar="NODE",
              shell_complete=completion.nodes,
              help="Confirm that this node is powered off (cannot be verified).")  # fmt: skip
@click.option("--override", "overrides", multiple=True, metavar="GUARD", callback=_guards_help,
              shell_complete=completion.guards,
              help="Ignore this guard's refusal.")  # fmt: skip
@click.option("--max", "max_targets", type=click.IntRange(min=1), default=20, show_default=True,
              help="Refuse more targets than this.")  # fmt: skip
@click.option("--settle", type=Duration(), show_default="30s, within --timeout",
              help="How long controllers get to finish on their own after each step.")  # fmt: skip
@click.option("--timeout", type=Duration(), default="2m", show_default=True,
              help="How long to wait until everything is gone.")  # fmt: skip
@click.option("--backup-dir", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Where the undo file is saved (default: the state directory).")  # fmt: skip
@click.option("--ignore-not-found", is_flag=True,
              help="Do not fail for a target that does not exist.")  # fmt: skip
@click.pass_context
def command(ctx: click.Context, /, **flags: Any) -> ExitStatus:
    """Release a stuck VM: dead pod first, then VMI, then VM.

    Nothing is changed unless every guard passes. The objects are saved to an
    undo file before the first change. After each step the controllers get time
    to finish on their own.

    \b
    Examples:
      kubectl harvester-stuck unstick web-1 --dry-run=server
      kubectl harvester-stuck unstick shop/web-1 lab/db-1
      kubectl harvester-stuck unstick web-1 --node-powered-off node-2
      kubectl harvester-stuck unstick -A --node n2 --node-powered-off n2
    """
    return execute(ctx, UnstickOptions(**flags))
