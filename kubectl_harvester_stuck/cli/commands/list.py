"""`list`: what is stuck, and with `--watch` what becomes of it."""

from __future__ import annotations

import sys
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
    left_out,
    nothing_is_stuck,
    screen,
)
from kubectl_harvester_stuck.cli.session import (
    Session,
    open_session,
)
from kubectl_harvester_stuck.cli.targets import kind_arguments
from kubectl_harvester_stuck.errors import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubectl_harvester_stuck.cluster.client import Cluster
    from kubectl_harvester_stuck.k8s.kinds import Kind
    from kubectl_harvester_stuck.listing.model import Listing
    from kubectl_harvester_stuck.listing.watch import WatchEvent


class ListOptions(NamedTuple):
    """The flags of `list`."""

    kinds: tuple[Kind, ...]
    filenames: tuple[str, ...]
    output: str
    all_namespaces: bool
    selector: str | None
    host: str | None
    older_than: timedelta
    no_headers: bool
    exit_code: bool
    follow: bool
    output_file: str | None

    def validate(self) -> None:
        """Metrics, files and an exit status are of one moment; `--watch` is of many."""
        if self.output_file is not None and self.output != "prometheus":
            raise click.UsageError("--output-file goes with -o prometheus alone")
        if self.follow and (self.filenames or self.exit_code):
            raise click.UsageError("--watch goes neither with -f nor with --exit-code")
        if self.follow and self.output == "prometheus":
            raise click.UsageError(
                "--watch does not go with -o prometheus; serve-metrics follows the cluster"
            )

    def complete(self, ctx: click.Context) -> Session:
        """The cluster, or the files."""
        return open_session(
            ctx.ensure_object(dict),
            self.filenames,
            all_namespaces=self.all_namespaces,
            selector=self.selector,
            node=self.host,
        )

    def run(self, session: Session) -> Answer:
        """What is stuck, once or for as long as somebody looks."""
        if self.follow and session.cluster is not None:
            return self._watch(session, session.cluster)
        return self._list(session)

    def _list(self, session: Session) -> Answer:
        from dataclasses import replace

        from kubectl_harvester_stuck import render
        from kubectl_harvester_stuck.cli.terminal import Terminal, reading
        from kubectl_harvester_stuck.listing import find
        from kubectl_harvester_stuck.render import list_text

        terminal = Terminal(session.where)
        with reading(terminal.progress, f"reading {session.what}"):
            found = find.stuck(
                session.source,
                kinds=self._kinds,
                namespaces=session.namespaces,
                labels=self.selector,
                older_than=self.older_than,
                node=self.host,
            )
        found = replace(found, missing=session.missing + found.missing)
        terminal.clear()
        is_empty = not found.targets and self.output not in render.DOCUMENTS
        nothing = nothing_is_stuck(session.place, found.missing) if is_empty else ""
        notes = ""
        if self.output == "table" and not self.no_headers:
            scope = None if self.all_namespaces else session.namespace
            width = screen(sys.stderr).width
            notes = list_text.notes(found, session.where, scope, width)
        text = ""
        if self.output_file is None:
            text = render.listing(
                found,
                self.output,
                session.where,
                headers=not self.no_headers,
                screen=screen(),
            )
        else:
            _write(found, self.output_file)
        return Answer(
            exit_status.of_listing(found, exit_code=self.exit_code),
            text,
            nothing + notes + left_out(found) + session.gaps(found.missing),
        )

    def _watch(self, session: Session, cluster: Cluster) -> Answer:
        from dataclasses import replace

        from kubectl_harvester_stuck.cli.watching import Place, Watching
        from kubectl_harvester_stuck.listing import find, watch

        place = Place(cluster, session.namespaces[0])
        place.ask()
        gaps = () if self.host is None else find.unknown_node(cluster, self.host)
        cache = watch.WatchCache(cluster, session.namespaces)
        cache.start()
        answers = watch.follow(
            cache,
            kinds=self._kinds,
            labels=self.selector,
            older_than=self.older_than,
            node=self.host,
        )

        def whole() -> Iterator[tuple[Listing, tuple[WatchEvent, ...]]]:
            for found, now in answers:
                place.ask()
                # Where something is found, there is the namespace.
                unsure = () if found.targets else place.missing
                yield replace(found, missing=found.missing + gaps + unsure), now

        watching = Watching(session.place, self.output, headers=not self.no_headers)
        return Answer(watching.show(whole()))

    @property
    def _kinds(self) -> frozenset[Kind]:
        from kubectl_harvester_stuck.k8s.kinds import VM, VMI

        return frozenset(self.kinds or (VM, VMI))


def _write(found: Listing, path: str) -> None:
    """Put the metrics in the place of the file. Raises StuckError; it is as it was then."""
    from kubectl_harvester_stuck.errors import StuckError
    from kubectl_harvester_stuck.render import prometheus

    try:
        prometheus.write(found, path)
    except OSError as error:
        raise StuckError(f"cannot write {path}: {error.strerror or error}") from None


@click.command("list", cls=Command)
@kind_arguments("[vm|vmi]...")
@connection
@filename
@output(*FORMATS, "prometheus")
@click.option("-A", "--all-namespaces", is_flag=True, help="Look in every namespace.")
@click.option("-l", "--selector", metavar="LABELS", help="Only objects with these labels.")
@node("Only what ran on this node.")
@click.option(
    "--older-than",
    type=Duration(),
    default="0",
    help="Only what has been stuck at least this long.",
)
@click.option("--no-headers", is_flag=True, help="Print the table without its header.")
@click.option("--exit-code", is_flag=True, help="Exit with 3 when something is stuck.")
@click.option("-w", "--watch", "follow", is_flag=True, help="Keep watching for changes.")
@click.option(
    "--output-file",
    type=click.Path(readable=False),
    metavar="FILE",
    help="Put -o prometheus in this file, as a whole, for node_exporter.",
)
@click.pass_context
def command(ctx: click.Context, /, **flags: Any) -> ExitStatus:
    """Show what is stuck: Terminating, Stopping, or on a node that is not responding.

    \b
    Examples:
      kubectl harvester-stuck list -A
      kubectl harvester-stuck list vm -n shop -o wide
      kubectl harvester-stuck list -A --older-than 10m --exit-code
      kubectl harvester-stuck list -A -o prometheus
      kubectl harvester-stuck list -A --watch
      kubectl harvester-stuck list -f supportbundle.zip
    """
    return execute(ctx, ListOptions(**flags))
