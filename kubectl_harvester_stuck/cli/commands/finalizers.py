"""`finalizers`: the catalogue, and with `-f` what objects carry."""

from __future__ import annotations

from typing import Any, NamedTuple

import click

from kubectl_harvester_stuck.cli import completion, exit_status
from kubectl_harvester_stuck.cli.execute import execute
from kubectl_harvester_stuck.cli.options import FORMATS, PROGRAM, Command, filename, output
from kubectl_harvester_stuck.cli.output import Answer, screen
from kubectl_harvester_stuck.cli.session import Session, open_session
from kubectl_harvester_stuck.errors import ExitStatus


class FinalizersOptions(NamedTuple):
    """The flags of `finalizers`."""

    name: str | None
    filenames: tuple[str, ...]
    output: str
    no_headers: bool

    def validate(self) -> None:
        """All of them go together."""

    def complete(self, ctx: click.Context) -> Session | None:
        """The files; None for the catalogue, which needs nothing."""
        return open_session(ctx.ensure_object(dict), self.filenames) if self.filenames else None

    def run(self, session: Session | None) -> Answer:
        """The catalogue, or what the objects carry."""
        return self._catalogue() if session is None else self._carried(session)

    def _catalogue(self) -> Answer:
        from kubectl_harvester_stuck import render
        from kubectl_harvester_stuck.errors import NotFoundError
        from kubectl_harvester_stuck.harvester.finalizer_catalogue import CATALOGUE
        from kubectl_harvester_stuck.render import finalizers_text
        from kubectl_harvester_stuck.render.page import Page

        entries = [entry for entry in CATALOGUE if self.name in (None, entry.name)]
        if not entries:
            raise NotFoundError(
                f"{self.name} is not in the catalogue; `{PROGRAM} finalizers -o name` lists what is"
            )
        if self.name is not None and self.output in ("table", "wide"):
            text = "\n".join(finalizers_text.entry(entry, Page(screen())) for entry in entries)
        else:
            text = render.catalogue(
                entries, self.output, headers=not self.no_headers, screen=screen()
            )
        return Answer(ExitStatus.OK, text)

    def _carried(self, session: Session) -> Answer:
        from kubectl_harvester_stuck import render
        from kubectl_harvester_stuck.cli.terminal import Terminal, reading
        from kubectl_harvester_stuck.listing import finalizer_usage

        terminal = Terminal(session.where)
        with reading(terminal.progress, f"reading {session.what}"):
            found, missing = finalizer_usage.carried(session.source, session.namespaces)
        terminal.clear()
        missing = session.missing + missing
        found = tuple(item for item in found if self.name in (None, item.name))
        nothing = ""
        if not found and not missing:
            nothing = f"No finalizer{f' {self.name}' if self.name else ''}{session.place}.\n"
        return Answer(
            exit_status.of_missing(missing),
            render.carried(
                found,
                missing,
                self.output,
                session.where,
                headers=not self.no_headers,
                screen=screen(),
            ),
            nothing + session.gaps(missing),
        )


@click.command("finalizers", cls=Command)
@click.argument("name", required=False, shell_complete=completion.catalogue)
@filename
@output(*FORMATS)
@click.option("--no-headers", is_flag=True, help="Leave the header of the table out.")
@click.pass_context
def command(ctx: click.Context, /, **flags: Any) -> ExitStatus:
    """Show the catalogue: who owns a finalizer, and what it guards.

    With -f: the finalizers that the VMs and VMIs in the files carry.

    \b
    Examples:
      kubectl harvester-stuck finalizers
      kubectl harvester-stuck finalizers foregroundDeletion
      kubectl harvester-stuck finalizers -f supportbundle.zip
    """
    return execute(ctx, FinalizersOptions(**flags))
