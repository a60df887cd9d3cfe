"""`finalizers`: the catalogue, and with `-f` what objects carry."""

from __future__ import annotations

from collections.abc import Sequence
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

    part: str | None
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

        names = self._matching([entry.name for entry in CATALOGUE])
        entries = [entry for entry in CATALOGUE if entry.name in names]
        if not entries:
            raise NotFoundError(
                f"no finalizer of the catalogue contains {self.part};"
                f" `{PROGRAM} finalizers -o name` lists all"
            )
        if self.part is not None and len(names) == 1 and self.output in ("table", "wide"):
            text = "\n".join(finalizers_text.entry(entry, Page(screen())) for entry in entries)
        else:
            text = render.catalogue(
                entries, self.output, headers=not self.no_headers, screen=screen()
            )
        return Answer(ExitStatus.OK, text)

    def _matching(self, names: Sequence[str]) -> set[str]:
        """The names that are the part that was asked for, else those that contain it."""
        if self.part is None:
            return set(names)
        part = self.part.lower()
        exact = {name for name in names if name.lower() == part}
        return exact or {name for name in names if part in name.lower()}

    def _carried(self, session: Session) -> Answer:
        from kubectl_harvester_stuck import render
        from kubectl_harvester_stuck.cli.terminal import Terminal, reading
        from kubectl_harvester_stuck.listing import finalizer_usage
        from kubectl_harvester_stuck.render.layout import safe

        terminal = Terminal(session.where)
        with reading(terminal.progress, f"reading {session.what}"):
            found, missing = finalizer_usage.carried(session.source, session.namespaces)
        terminal.clear()
        missing = session.missing + missing
        names = self._matching([item.name for item in found])
        found = tuple(item for item in found if item.name in names)
        nothing = ""
        if not found and not missing:
            what = f" that contains {self.part}" if self.part else ""
            nothing = safe(f"No finalizer{what}{session.place}.") + "\n"
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
@click.argument("part", required=False, metavar="[NAME]", shell_complete=completion.catalogue)
@filename
@output(*FORMATS)
@click.option("--no-headers", is_flag=True, help="Print the table without its header.")
@click.pass_context
def command(ctx: click.Context, /, **flags: Any) -> ExitStatus:
    """Show the catalogue: which controller removes a finalizer, and what it guards.

    NAME may be a part of a name, in any case. With -f: the finalizers that the
    VMs and VMIs in the files carry.

    \b
    Examples:
      kubectl harvester-stuck finalizers
      kubectl harvester-stuck finalizers foreground
      kubectl harvester-stuck finalizers -f supportbundle.zip
    """
    return execute(ctx, FinalizersOptions(**flags))
