"""TAB completion: what may come next on the command line, in the words that kubectl reads.

kubectl's own completion runs `kubectl_complete-harvester_stuck` with the words so far and reads
what cobra's `__complete` prints: one candidate a line, its description behind a tab, and last the
directive for the shell. click finds out which flag or argument is asked for; `shell_complete` of
its declaration names one of the functions here.

A candidate that cannot be had is left out without a word, and nobody waits longer than `SECONDS`:
whoever presses TAB can neither read an error nor answer a question.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn, TypeAlias, TypeVar

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from kubectl_harvester_stuck.cluster.client import Cluster
    from kubectl_harvester_stuck.k8s.kinds import Kind
    from kubectl_harvester_stuck.listing.model import Listing

_T = TypeVar("_T")
Items: TypeAlias = "list[CompletionItem[str]]"
Complete: TypeAlias = "Callable[[click.Context, click.Parameter, str], Items]"

COMMAND = "__complete"
"""The first argument that asks for candidates, as with every program of cobra."""

WORDS = "kubectl_harvester_stuck.diagnosis.controller_logs"
"""Where the arguments before the incomplete one are kept in a click context."""

SECONDS = 1.5
"""What is left of the two seconds that TAB may take, once the program has started."""


class _Clock:
    """When the words were read: what is imported for them counts as well."""

    began = 0.0


# Bits of cobra's ShellCompDirective.
_DEFAULT = 0  # files, where there is no candidate
_NO_FILES = 4
_DIRECTORIES = 16


def end(cli: click.Command, words: list[str]) -> NoReturn:
    """Print the candidates and end the process, whatever still waits for an answer."""
    is_alone = _detach()
    with suppress(OSError, AttributeError):  # it may be closed
        # kubectl reads UTF-8, whatever the terminal shows.
        sys.stdout.buffer.write(answer(cli, words).encode(errors="replace"))
        sys.stdout.flush()
    if sys.platform != "win32" and is_alone and threading.active_count() > 1:
        import signal

        # Whatever still waits may be a credential plugin that waits for a login.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)
    os._exit(0)


def _detach() -> bool:
    """Leave the terminal, so that nothing can ask there; whether this is a session of its own."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 2)
    if sys.platform == "win32":
        return False
    try:
        os.setsid()
    except PermissionError:  # as the leader of a process group
        return False
    return True


def answer(cli: click.Command, words: list[str]) -> str:
    """The candidates for the last of the words, and the directive."""
    from click.shell_completion import ShellComplete

    _Clock.began = time.monotonic()
    *before, incomplete = words or [""]
    items = ShellComplete(cli, {}, "", "").get_completions(before, incomplete)
    types = {item.type for item in items}
    if "dir" in types:
        return f":{_DIRECTORIES}\n"
    # What cannot be printed cannot be typed either.
    words_offered = [item for item in items if item.type == "plain" and item.value.isprintable()]
    end_ = _DEFAULT if "file" in types else _NO_FILES
    return "".join(f"{line}\n" for line in (*map(_line, words_offered), f":{end_}"))


def _line(item: CompletionItem[str]) -> str:
    return f"{item.value}\t{' '.join(item.help.split())}" if item.help else item.value


def kinds(incomplete: str) -> Items:
    """`vm` and `vmi`."""
    from kubectl_harvester_stuck.k8s.kinds import TARGET_KINDS

    return _starting(incomplete, ((name, TARGET_KINDS[name].kind) for name in ("vm", "vmi")))


def targets(ctx: click.Context, _param: click.Parameter, incomplete: str) -> Items:
    """`vm`, `vmi` and the names of stuck VMs, with kind or namespace before a slash as typed."""
    from kubectl_harvester_stuck.k8s.kinds import TARGET_KINDS, VM

    words: tuple[str, ...] = ctx.meta.get(WORDS, ())
    *before, _ = incomplete.split("/")
    first = words[0].lower() if words else ""
    kind = TARGET_KINDS.get(first)
    parts = list(before)
    if kind is None and before and before[0].lower() in TARGET_KINDS:
        kind = TARGET_KINDS[parts.pop(0).lower()]
    said = "" if first in TARGET_KINDS else first.partition("/")[0]
    if kind is None and not before:
        # What was named before says how: `vm/web ` goes on with `vm/`.
        kind = TARGET_KINDS.get(said)
        before = [words[0].partition("/")[0]] if kind else []
    offered = kinds(incomplete) if not words else []
    if len(parts) > 1 or ctx.params.get("all_namespaces"):
        return offered
    prefix = "".join(f"{part}/" for part in before)
    named = {word.rpartition("/")[2] for word in words}
    found = _stuck(ctx, kind or VM, namespace=parts[0] if parts else None)
    return [*offered, *_starting(incomplete, _described(prefix, found, named))]


def _described(prefix: str, found: Iterable[Listing], named: set[str]) -> Iterator[tuple[str, str]]:
    """What is stuck and was not named yet, with state and age."""
    from kubectl_harvester_stuck.k8s.durations import human

    for listing in found:
        for row in listing.targets:
            if row.ref.name not in named:
                age = row.age(listing.taken_at)
                text = f"{row.state.value} {'' if age is None else human(age)}".rstrip()
                yield f"{prefix}{row.ref.name}", text


def undo_files(ctx: click.Context, _param: click.Parameter, incomplete: str) -> Items:
    """The VMs of which there is an undo file; as the only word, the files themselves as well."""
    from pathlib import Path

    from click.shell_completion import CompletionItem

    from kubectl_harvester_stuck.errors import StuckError
    from kubectl_harvester_stuck.k8s.kinds import TARGET_KINDS
    from kubectl_harvester_stuck.k8s.objects import format_time
    from kubectl_harvester_stuck.state import backups
    from kubectl_harvester_stuck.state.private_files import state_directory

    words: tuple[str, ...] = ctx.params.get("words") or ()
    if len(words) > 1 or (words and words[0].lower() not in TARGET_KINDS):
        return []
    saved: tuple[backups.UndoFile, ...] = ()
    with suppress(StuckError):  # it may not be known where they are
        given = ctx.params.get("backup_dir")
        saved = backups.undo_files(Path(given or state_directory(os.environ) / "backups"))
    namespace = (ctx.obj or {}).get("namespace")
    found = [
        (f"{item.namespace}/{item.name}", f"saved {format_time(item.taken_at)}")
        for item in reversed(saved)
        if namespace in (None, item.namespace)
    ]
    return [*_starting(incomplete, found), *([] if words else [CompletionItem("", type="file")])]


def kubeconfig_names(section: str) -> Complete:
    """The `contexts`, `clusters` or `users` of the kubeconfig."""

    def complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> Items:
        from kubectl_harvester_stuck.connection import kubeconfig

        flags = kubeconfig.ConfigOverrides.of(ctx.obj or {})
        found = _in_time(lambda: getattr(kubeconfig.entries(flags, os.environ), section))
        return _starting(incomplete, ((str(name), "") for name in found))

    return complete


def namespaces(ctx: click.Context, _param: click.Parameter, incomplete: str) -> Items:
    """Every namespace."""
    from kubectl_harvester_stuck.k8s.kinds import NAMESPACE

    return _starting(incomplete, _names(ctx, NAMESPACE))


def nodes(ctx: click.Context, _param: click.Parameter, incomplete: str) -> Items:
    """Every node."""
    from kubectl_harvester_stuck.k8s.kinds import NODE

    return _starting(incomplete, _names(ctx, NODE))


def catalogue(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> Items:
    """The finalizers of the catalogue."""
    from kubectl_harvester_stuck.harvester.finalizer_catalogue import CATALOGUE

    return _starting(incomplete, ((item.name, item.leaves_behind) for item in CATALOGUE))


def finalizers_there(ctx: click.Context, _param: click.Parameter, incomplete: str) -> Items:
    """The finalizers of the catalogue, and those that something stuck carries."""
    from kubectl_harvester_stuck.harvester.finalizer_catalogue import CATALOGUE
    from kubectl_harvester_stuck.k8s.kinds import VM, VMI

    known = ((item.name, item.leaves_behind) for item in CATALOGUE)
    there = (
        (name, "not in the catalogue")
        for found in _stuck(ctx, VM, VMI)
        for row in found.targets
        for name in row.finalizers
    )
    return _starting(incomplete, (*known, *there))


def guards(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> Items:
    """The guards that can be overridden."""
    from kubectl_harvester_stuck.release.guards import GUARDS

    return _starting(
        incomplete, ((guard.name, guard.summary) for guard in GUARDS if guard.overridable)
    )


def _starting(incomplete: str, pairs: Iterable[tuple[str, str]]) -> Items:
    from click.shell_completion import CompletionItem

    found: dict[str, str] = {}
    for name, text in pairs:
        if name.startswith(incomplete):
            found.setdefault(name, text)
    return [CompletionItem(name, help=text) for name, text in found.items()]


def _stuck(ctx: click.Context, *wanted: Kind, namespace: str | None = None) -> Iterable[Listing]:
    """What `list` finds in the namespace; nothing where files are read instead of a cluster."""

    def ask(cluster: Cluster, default: str) -> Iterable[Listing]:
        from kubectl_harvester_stuck.listing import find

        where = None if ctx.params.get("all_namespaces") else namespace or default
        return [find.stuck(cluster, kinds=frozenset(wanted), namespaces=[where])]

    return [] if ctx.params.get("filenames") else _asked(ctx, ask)


def _names(ctx: click.Context, kind: Kind) -> Iterable[tuple[str, str]]:
    """The names of all objects of a kind that is in no namespace."""

    def ask(cluster: Cluster, _namespace: str) -> Iterable[tuple[str, str]]:
        from kubectl_harvester_stuck.k8s.objects import KubeObject
        from kubectl_harvester_stuck.k8s.source import ListQuery

        items = cluster.list_objects(ListQuery(kind, metadata_only=True), lambda _: True)
        return [(KubeObject.parse(kind, item).ref.name, "") for item in items]

    return _asked(ctx, ask)


def _asked(ctx: click.Context, ask: Callable[[Cluster, str], Iterable[_T]]) -> Iterable[_T]:
    """What the cluster answers that the flags so far lead to, in its default namespace."""

    def connected() -> Iterable[_T]:
        from kubectl_harvester_stuck.cluster.client import Cluster
        from kubectl_harvester_stuck.connection import kubeconfig
        from kubectl_harvester_stuck.connection.transport import Transport

        found = kubeconfig.load(kubeconfig.ConfigOverrides.of(ctx.obj or {}), os.environ)
        transport = Transport(found, timeout=SECONDS, on_warning=lambda _: None)
        return ask(Cluster(transport), found.namespace)

    return _in_time(connected)


def _in_time(ask: Callable[[], Iterable[_T]]) -> Iterable[_T]:
    """What is answered in time, otherwise nothing."""
    from kubectl_harvester_stuck.errors import StuckError

    answers: list[Iterable[_T]] = []

    def run() -> None:
        with suppress(StuckError):
            answers.append(ask())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(max(0.0, _Clock.began + SECONDS - time.monotonic()))
    return next(iter(answers), ())
