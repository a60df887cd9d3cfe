"""`restore`: make a VM again from the backup of its release."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from kubectl_harvester_stuck import __version__
from kubectl_harvester_stuck.cli import completion, exit_status
from kubectl_harvester_stuck.cli.execute import execute
from kubectl_harvester_stuck.cli.options import FORMATS, PROGRAM, Command, connection, output
from kubectl_harvester_stuck.cli.output import Answer, screen
from kubectl_harvester_stuck.cli.session import connect
from kubectl_harvester_stuck.cli.targets import Named, check_namespaces, parse, selected
from kubectl_harvester_stuck.errors import ExitStatus

if TYPE_CHECKING:
    from kubectl_harvester_stuck.cli.terminal import Terminal
    from kubectl_harvester_stuck.render.invocation import Invocation
    from kubectl_harvester_stuck.restore.decisions import Backup, Body
    from kubectl_harvester_stuck.restore.run import RestoreContext
    from kubectl_harvester_stuck.state.backups import UndoFile


class _Means(NamedTuple):
    """What a restoration works with."""

    backup: Backup
    where: Invocation
    terminal: Terminal
    context: RestoreContext


class RestoreOptions(NamedTuple):
    """The flags of `restore`."""

    words: tuple[str, ...]
    output: str
    dry_run: str
    yes: bool
    redact: bool
    show_files: bool
    backup_dir: Path | None

    def validate(self) -> None:
        """A redacted copy is only printed, and whole; a list is of all that is there."""
        if self.show_files and (self.redact or self.yes or self.dry_run != "none"):
            raise click.UsageError("--list only shows the undo files: it restores none")
        if not self.show_files and not self.words:
            raise click.UsageError("name an undo file, or a VM: vm NAME; --list shows the files")
        if self.redact and (self.yes or self.dry_run != "none" or self.output == "name"):
            raise click.UsageError("--redact only prints: it goes with -o json or yaml alone")

    def complete(self, ctx: click.Context) -> Body | _Means | tuple[UndoFile, ...]:
        """What the file holds, and the cluster; no cluster for `--list` and a redacted FILE."""
        from kubectl_harvester_stuck.restore import decisions

        given = ctx.ensure_object(dict)
        if self.show_files:
            return self._listed(ctx)
        path, saved = self._file(ctx)
        if self.redact:
            return saved
        found = decisions.parse_backup(saved, str(path))
        if given.get("namespace") not in (None, found.ref.namespace):
            raise click.UsageError(
                f"the VM of this backup belongs to namespace {found.ref.namespace}"
            )
        return self._means(ctx, found, path)

    @property
    def _directory(self) -> Path:
        """Where the undo files are. Raises StateError."""
        from kubectl_harvester_stuck.state.private_files import state_directory

        return self.backup_dir or state_directory(os.environ) / "backups"

    def _files(self, of: tuple[str, str] | None = None) -> tuple[UndoFile, ...]:
        """The undo files there, oldest first, or those of one VM.

        Raises RestoreError, and StateError.
        """
        from kubectl_harvester_stuck.state import backups

        return backups.undo_files(self._directory, of=of, has_to_exist=self.backup_dir is not None)

    def _listed(self, ctx: click.Context) -> tuple[UndoFile, ...]:
        """The files of the namespace and the VM that were named, or all."""
        namespace = ctx.ensure_object(dict).get("namespace")
        wanted = selected(parse(ctx, self.words).names, namespace)
        return tuple(
            item
            for item in self._files()
            if any(
                item.may_be_of(where or item.namespace, what or item.name) for where, what in wanted
            )
        )

    def _file(self, ctx: click.Context) -> tuple[Path, Body]:
        """The file, or the newest one of the VM that is named; each is read once.

        Raises RestoreError.
        """
        from kubectl_harvester_stuck.k8s.kinds import VM
        from kubectl_harvester_stuck.restore import decisions
        from kubectl_harvester_stuck.state import backups

        first = Path(self.words[0])
        if len(self.words) == 1 and (first.exists() or not _is_target(ctx, self.words[0])):
            return first, decisions.load(backups.read(first), str(first))
        kind, names = parse(ctx, self.words)
        if kind is not VM or len(names) != 1:
            raise click.UsageError("restore one VM at a time: vm NAME, or FILE")
        return self._newest(ctx, names[0])

    def _newest(self, ctx: click.Context, named: Named) -> tuple[Path, Body]:
        """The newest undo file of the VM that was saved on the cluster of the kubeconfig.

        Raises RestoreError where there is none, and where a newer one cannot be read, or can have
        been written by others.
        """
        from kubectl_harvester_stuck.errors import RestoreError
        from kubectl_harvester_stuck.render.layout import safe
        from kubectl_harvester_stuck.restore import decisions
        from kubectl_harvester_stuck.state import backups

        given = ctx.ensure_object(dict)
        check_namespaces(given.get("namespace"), [named])
        _, default, where = connect(given)
        vm = (named.namespace or default, named.name)
        others: list[str] = []
        files = [item.path for item in self._files(vm)]
        while files:
            path = files.pop()
            try:
                saved = decisions.load(backups.read(path, is_chosen=True), str(path))
            except RestoreError as error:
                before = f"; the file before it is {files[-1]}" if files else ""
                raise RestoreError(f"{error}{before}") from error
            if decisions.holds_vm_of(saved, where.server):
                found = decisions.parse_backup(saved, str(path))
                if (found.ref.namespace, found.ref.name) != vm:
                    raise RestoreError(f"{path} holds {found.ref}, against its name")
                click.echo(safe(f"using {path}"), err=True)
                return path, saved
            others.append(str(path))
        hint = f"; another cluster's or a VMI's alone: {others[0]}" if others else ""
        raise RestoreError(
            f"no undo file of VM {'/'.join(vm)} of this cluster in {self._directory}{hint};"
            f" `{PROGRAM} restore --list` shows all"
        )

    def _means(self, ctx: click.Context, found: Backup, path: Path) -> _Means:
        import platform

        from kubectl_harvester_stuck.cli.terminal import Terminal
        from kubectl_harvester_stuck.k8s import commands
        from kubectl_harvester_stuck.release.interrupts import Interrupts
        from kubectl_harvester_stuck.restore.run import RestoreContext
        from kubectl_harvester_stuck.state.journal import Journal
        from kubectl_harvester_stuck.state.private_files import state_directory

        cluster, _, where = connect(ctx.ensure_object(dict))
        file = str(path.absolute())

        def retyped(*, more: Sequence[str]) -> str:
            # By its file: until that is pasted, the newest file of a VM may be another one.
            return where.spell(commands.restore(file, *more))

        terminal = Terminal(where, yes=self.yes, retyped=retyped)
        context = RestoreContext(
            cluster,
            where.server,
            terminal,
            Journal(
                state_directory(os.environ),
                where.context,
                where.server,
                __version__,
                lambda: cluster.now,
            ),
            # Up to the last word of the report, which is printed before the context is closed.
            interrupts=ctx.with_resource(Interrupts(terminal.println)),
            file=file,
            host=platform.node(),
        )
        return _Means(found, where, terminal, context)

    def run(self, found: Body | _Means | tuple[UndoFile, ...]) -> Answer:
        """Make the VM again, or show what would be made, or what there is to make it from."""
        if isinstance(found, _Means):
            return self._restore(found)
        return self._redacted(found) if isinstance(found, Mapping) else self._list(found)

    def _list(self, files: Sequence[UndoFile]) -> Answer:
        from kubectl_harvester_stuck.render import DOCUMENTS, undo_files

        nothing = "" if files or self.output in DOCUMENTS else "No undo file was found.\n"
        text = undo_files.text(files, self.output, datetime.now(timezone.utc), screen())
        return Answer(ExitStatus.OK, text, nothing)

    def _redacted(self, saved: Body) -> Answer:
        from kubectl_harvester_stuck.render import document
        from kubectl_harvester_stuck.restore import decisions

        shared = decisions.without_secrets(saved)
        text = document.dump(shared, "yaml" if self.output == "yaml" else "json")
        return Answer(ExitStatus.OK, text)

    def _restore(self, means: _Means) -> Answer:
        from kubectl_harvester_stuck import render
        from kubectl_harvester_stuck.cli.terminal import reading
        from kubectl_harvester_stuck.restore import run

        if self.dry_run == "none":
            done = run.create(means.context, means.backup)
        else:
            with reading(means.terminal.progress, "reading the cluster"):
                is_server = self.dry_run == "server"
                done = run.preview(means.context, means.backup, ask_webhooks=is_server)
        means.terminal.clear()
        return Answer(
            exit_status.of_restoration(done),
            render.restoration(done, self.output, means.where, screen=screen()),
            is_report=True,
        )


def _is_target(ctx: click.Context, word: str) -> bool:
    """Whether a word that is no file can be the name of a VM."""
    try:
        parse(ctx, [word])
    except click.UsageError:
        return False
    return not word.endswith(".json")


@click.command("restore", cls=Command)
@click.argument("words", nargs=-1, metavar="FILE|[vm] NAME", shell_complete=completion.undo_files)
@connection
@output(*(name for name in FORMATS if name != "wide"))
@click.option(
    "--dry-run",
    type=click.Choice(["none", "client", "server"]),
    default="none",
    help="client: only show the VM. server: also validate it on the server.",
)
@click.option("-y", "--yes", is_flag=True, help="Go ahead without asking.")
@click.option("--redact", is_flag=True, help="Print a copy of FILE without secrets, for sharing.")
@click.option("--list", "show_files", is_flag=True, help="Show the undo files, oldest first.")
@click.option("--backup-dir", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Where the undo files are (default: the state directory).")  # fmt: skip
@click.pass_context
def command(ctx: click.Context, /, **flags: Any) -> ExitStatus:
    """Create a VM again from an undo file that unstick saved, powered off.

    Refused if the name is taken, or if a disk is gone, is not known to be the
    same one, or is used by another VM or pod. Nothing is started. A NAME stands
    for the newest undo file of that VM which was saved on this cluster. Undo
    files are never removed.

    \b
    Examples:
      kubectl harvester-stuck restore --list
      kubectl harvester-stuck restore vm web-1 -n shop --dry-run=server
      kubectl harvester-stuck restore FILE
      kubectl harvester-stuck restore FILE --redact
    """
    return execute(ctx, RestoreOptions(**flags))
