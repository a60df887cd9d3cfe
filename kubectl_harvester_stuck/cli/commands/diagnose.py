"""`diagnose`: why it is stuck, what holds each finalizer, what to do next."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from kubectl_harvester_stuck.cli import exit_status
from kubectl_harvester_stuck.cli.execute import execute
from kubectl_harvester_stuck.cli.options import (
    FORMATS,
    Command,
    Duration,
    connection,
    filename,
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
from kubectl_harvester_stuck.cli.session import Session, open_session
from kubectl_harvester_stuck.cli.targets import Named, check_namespaces, target_arguments
from kubectl_harvester_stuck.errors import ExitStatus

if TYPE_CHECKING:
    from kubectl_harvester_stuck.diagnosis.run import DiagnosisReport
    from kubectl_harvester_stuck.k8s.kinds import Kind
    from kubectl_harvester_stuck.k8s.objects import ObjectRef, Unreadable


class DiagnoseOptions(NamedTuple):
    """The flags of `diagnose`."""

    kind: Kind | None
    names: tuple[Named, ...]
    filenames: tuple[str, ...]
    output: str
    all_namespaces: bool
    selector: str | None
    host: str | None
    older_than: timedelta
    exit_code: bool
    no_logs: bool

    def validate(self) -> None:
        """What is searched for has no name."""
        if self.names and (self.all_namespaces or self.selector or self.host or self.older_than):
            raise click.UsageError(
                "-A, -l, --node and --older-than go without a name: they say what to look for"
            )

    def complete(self, ctx: click.Context) -> Session:
        """The cluster, or the files."""
        given = ctx.ensure_object(dict)
        check_namespaces(given.get("namespace"), self.names)
        return open_session(
            given,
            self.filenames,
            all_namespaces=self.all_namespaces,
            selector=self.selector,
            node=self.host,
        )

    def run(self, session: Session) -> Answer:
        """Why each target hangs."""
        from kubectl_harvester_stuck.cli.terminal import Terminal, reading
        from kubectl_harvester_stuck.diagnosis import run
        from kubectl_harvester_stuck.release.model import ReleaseRequest
        from kubectl_harvester_stuck.release.preflight import Permissions

        terminal = Terminal(session.where)
        missing: tuple[Unreadable, ...] = ()
        if self.names and self.kind:
            targets = session.refs(self.kind, self.names)
        else:
            with reading(terminal.progress, "looking for what is stuck"):
                targets, missing = self._search(session)
        with reading(terminal.progress, f"reading {session.what}"):
            rights = Permissions(session.cluster) if session.cluster else None
            done = run.diagnose_all(
                session.source, targets, ReleaseRequest(), rights=rights, logs=not self.no_logs
            )
        terminal.clear()
        return self._answer(session, done, missing + done.missing)

    def _search(self, session: Session) -> tuple[list[ObjectRef], tuple[Unreadable, ...]]:
        """What is stuck, and what could not be read while it was looked for."""
        from kubectl_harvester_stuck.k8s.kinds import VM, VMI
        from kubectl_harvester_stuck.listing import find

        found = find.stuck(
            session.source,
            kinds=frozenset({self.kind} if self.kind else {VM, VMI}),
            namespaces=session.namespaces,
            labels=self.selector,
            older_than=self.older_than,
            node=self.host,
        )
        click.echo(left_out(found), nl=False, err=True)
        # A VM's diagnosis tells of its VMI as well.
        vms = {row.ref.key for row in found.targets if row.ref.kind is VM}
        refs = [row.ref for row in found.targets]
        targets = [ref for ref in refs if ref.kind is VM or ref.key not in vms]
        return targets, session.missing + found.missing

    def _answer(
        self, session: Session, done: DiagnosisReport, missing: tuple[Unreadable, ...]
    ) -> Answer:
        from kubectl_harvester_stuck import render

        text = nothing = ""
        if done.diagnoses or done.failures or self.output in render.DOCUMENTS:
            text = render.diagnoses(
                done.diagnoses,
                missing,
                self.output,
                session.where,
                done.taken_at,
                screen=screen(),
            )
        else:
            nothing = nothing_is_stuck(session.place, missing)
        errors = (error_line(failure.error) for failure in done.failures)
        return Answer(
            exit_status.of_diagnoses(done, missing, exit_code=self.exit_code),
            text,
            "".join([nothing, session.gaps(missing), *errors]),
        )


@click.command("diagnose", cls=Command)
@target_arguments("[vm|vmi] [NAME]...")
@connection
@filename
@output(*FORMATS, "markdown", "mermaid")
@click.option(
    "-A", "--all-namespaces", is_flag=True, help="Without a name: look in every namespace."
)
@click.option(
    "-l", "--selector", metavar="LABELS", help="Without a name: only objects with these labels."
)
@node("Without a name: what ran on this node.")
@click.option(
    "--older-than",
    type=Duration(),
    default="0",
    help="Only what has been stuck at least this long.",
)
@click.option("--exit-code", is_flag=True, help="Exit with 3 when something is stuck.")
@click.option("--no-logs", is_flag=True, help="Do not read the logs of the controllers.")
@click.pass_context
def command(ctx: click.Context, /, **flags: Any) -> ExitStatus:
    """Explain why a VM is stuck, what holds each finalizer, and what to do next.

    Without a name: everything that is stuck in the namespace. Nothing is
    changed; the release that unstick would do is only tried as a dry run.

    \b
    Examples:
      kubectl harvester-stuck diagnose web-1
      kubectl harvester-stuck diagnose shop/web-1 -o markdown
      kubectl harvester-stuck diagnose -A --older-than 10m
      kubectl harvester-stuck diagnose -f supportbundle.zip
    """
    return execute(ctx, DiagnoseOptions(**flags))
