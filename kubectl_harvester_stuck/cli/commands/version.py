"""`version`: of this program and its client, of the API server, and of Harvester."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from kubectl_harvester_stuck.cli import exit_status
from kubectl_harvester_stuck.cli.execute import execute
from kubectl_harvester_stuck.cli.options import Command, connection, output
from kubectl_harvester_stuck.cli.output import Answer, screen, write
from kubectl_harvester_stuck.cli.session import connect
from kubectl_harvester_stuck.errors import ExitStatus

if TYPE_CHECKING:
    from kubectl_harvester_stuck.cluster.versions import There


class VersionOptions(NamedTuple):
    """The flags of `version`."""

    output: str
    only_here: bool

    def validate(self) -> None:
        """Both go together."""

    def complete(self, ctx: click.Context) -> dict[str, Any]:
        """The connection flags; the kubeconfig is read once the own version was printed."""
        return ctx.ensure_object(dict)

    def run(self, given: dict[str, Any]) -> Answer:
        """The versions of this program and, unless it is left out, of the cluster."""
        from kubectl_harvester_stuck.cluster import versions
        from kubectl_harvester_stuck.render import document, layout

        here = versions.here()
        is_table = self.output == "table"
        if is_table:
            # Before the cluster is asked: this much is known whatever it answers, as with kubectl.
            write(f"Client Version: {here.program}\nKubernetes Client: {here.client}\n")
        there = where = None
        if not self.only_here:
            cluster, _, where = connect(given)
            there = versions.there(cluster)
        missing = there.missing if there else ()
        return Answer(
            exit_status.of_missing(missing),
            _of_cluster(there)
            if is_table
            else document.dump(document.versions(here, there, where), self.output),
            layout.unreadable(missing, screen(sys.stderr).width),
        )


def _of_cluster(there: There | None) -> str:
    from kubectl_harvester_stuck.render import layout

    if there is None:
        return ""
    harvester = there.harvester or ("<unknown>" if there.missing else "<none>")
    return (
        f"Server Version: {layout.safe(there.server)}\n"
        f"Harvester Version: {layout.safe(harvester)}\n"
    )


@click.command("version", cls=Command)
@connection
@output("table", "json", "yaml")
@click.option("--client", "only_here", is_flag=True, help="Client version only.")
@click.pass_context
def command(ctx: click.Context, /, **flags: Any) -> ExitStatus:
    """Show the versions of this program, the API server and Harvester.

    \b
    Examples:
      kubectl harvester-stuck version
      kubectl harvester-stuck version --client -o json
    """
    return execute(ctx, VersionOptions(**flags))
