"""`version`: of this program and its client, of the API server, and of Harvester."""

from __future__ import annotations

import click

from kubectl_harvester_stuck.cli.options import Command, connection, output
from kubectl_harvester_stuck.cli.output import answer
from kubectl_harvester_stuck.cli.session import connect
from kubectl_harvester_stuck.errors import ExitStatus


@click.command("version", cls=Command)
@connection
@output("table", "json", "yaml")
@click.option("--client", "only_here", is_flag=True, help="Ask no cluster.")
@click.pass_context
def version(ctx: click.Context, output: str, only_here: bool) -> None:
    """Show the versions of this program, the API server and Harvester.

    \b
    Examples:
      kubectl harvester-stuck version
      kubectl harvester-stuck version --client -o json
    """
    from kubectl_harvester_stuck.cluster import versions
    from kubectl_harvester_stuck.render import document, layout

    here = versions.here()
    is_table = output == "table"
    if is_table:
        # Before the cluster is asked: this much is known whatever it answers, as with kubectl.
        answer(f"Client Version: {here.program}\nKubernetes Client: {here.client}\n")
    there = where = None
    if not only_here:
        ctx.ensure_object(dict)
        cluster, _, where = connect(ctx.obj)
        there = versions.there(cluster)
    missing = there.missing if there else ()
    if not is_table:
        answer(document.dump(document.versions(here, there, where), output))
    elif there:
        harvester = there.harvester or ("<unknown>" if missing else "<none>")
        answer(f"Server Version: {layout.safe(there.server)}\n")
        answer(f"Harvester Version: {layout.safe(harvester)}\n")
    click.echo(layout.unreadable(missing), nl=False, err=True)
    ctx.exit(ExitStatus.INCOMPLETE if missing else ExitStatus.OK)
