"""`finalizers`: the catalogue, and with `-f` what objects carry."""

from __future__ import annotations

from typing import NoReturn

import click

from kubectl_harvester_stuck.cli import completion
from kubectl_harvester_stuck.cli.options import FORMATS, PROGRAM, Command, filename, output
from kubectl_harvester_stuck.cli.output import answer
from kubectl_harvester_stuck.cli.session import open_session, tell_missing
from kubectl_harvester_stuck.errors import ExitStatus


@click.command("finalizers", cls=Command)
@click.argument("name", required=False, shell_complete=completion.catalogue)
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
    from kubectl_harvester_stuck.harvester.finalizer_catalogue import CATALOGUE
    from kubectl_harvester_stuck.render import finalizers_text

    entries = [entry for entry in CATALOGUE if name in (None, entry.name)]
    if not entries:
        raise NotFoundError(
            f"{name} is not in the catalogue; `{PROGRAM} finalizers -o name` lists what is"
        )
    if name is not None and output in ("table", "wide"):
        answer("\n".join(finalizers_text.entry(entry) for entry in entries))
        return
    answer(render.catalogue(entries, output, headers=not no_headers))


def _carried(
    ctx: click.Context, name: str | None, filenames: tuple[str, ...], output: str, *, headers: bool
) -> NoReturn:
    """`finalizers -f`."""
    from kubectl_harvester_stuck import render
    from kubectl_harvester_stuck.cli.terminal import Terminal, reading
    from kubectl_harvester_stuck.listing import finalizer_usage

    scope = open_session(ctx.ensure_object(dict), filenames)
    terminal = Terminal(scope.where)
    with reading(terminal.progress, f"reading {scope.what}"):
        found, missing = finalizer_usage.carried(scope.source, scope.namespaces)
    terminal.clear()
    missing = scope.missing + missing
    found = tuple(item for item in found if name in (None, item.name))
    answer(render.carried(found, missing, output, scope.where, headers=headers))
    if not found and not missing:
        click.echo(f"No finalizer{f' {name}' if name else ''}{scope.place}.", err=True)
    tell_missing(scope, missing)
    ctx.exit(ExitStatus.INCOMPLETE if missing else ExitStatus.OK)
