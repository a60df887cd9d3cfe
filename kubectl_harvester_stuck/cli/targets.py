"""Which targets a command line names.

    web-1                one VM, in the namespace of -n or of the context
    vm web-1 web-2       the kind first, then names
    vm/web-1 vm/web-2    the kind in each word, as in kubectl
    shop/web-1           namespace and name; behind a kind as well: vm shop/web-1
    vm/shop/web-1        all three

The first part of a word is a kind if it is the word of one (`vm`, `vmis`, ...), whatever namespaces
there are: `vm/web` is never the VM web of a namespace vm, which is `vm/vm/web`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from kubectl_harvester_stuck.cli import completion
from kubectl_harvester_stuck.cli.again import retyped

if TYPE_CHECKING:
    from kubectl_harvester_stuck.k8s.kinds import Kind

F = TypeVar("F", bound=Callable[..., Any])

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
"""A DNS subdomain, as the API server demands it of the names of VMs and namespaces."""
_LONGEST = 253


class Named(NamedTuple):
    """One target, as far as its word says it."""

    namespace: str | None
    """None where the word names none."""
    name: str


class Targets(NamedTuple):
    """What the words of a command line name."""

    kind: Kind | None
    """None without any word."""
    names: tuple[Named, ...]


def target_arguments(metavar: str) -> Callable[[F], F]:
    """The targets, wherever the flags stand. Gives the command `kind` and `names` of `Targets`."""

    def split(ctx: click.Context, _param: click.Parameter, words: tuple[str, ...]) -> None:
        ctx.meta[completion.WORDS] = words
        # TAB asks for the words after a name that may be half typed.
        found = Targets(None, ()) if ctx.resilient_parsing else parse(ctx, words)
        ctx.params["kind"], ctx.params["names"] = found

    return click.argument(
        "words",
        nargs=-1,
        metavar=metavar,
        expose_value=False,
        callback=split,
        shell_complete=completion.targets,
    )


def kind_arguments(metavar: str) -> Callable[[F], F]:
    """Kinds with spaces or commas between them, as kubectl takes them. Gives `kinds`."""

    def split(
        _ctx: click.Context, _param: click.Parameter, words: tuple[str, ...]
    ) -> tuple[Kind, ...]:
        return tuple(_target_kind(piece) for word in words for piece in word.split(",") if piece)

    return click.argument(
        "kinds",
        nargs=-1,
        metavar=metavar,
        callback=split,
        shell_complete=lambda _ctx, _param, incomplete: completion.kinds(incomplete),
    )


def _target_kind(word: str) -> Kind:
    kind = kind_of(word)
    if kind is None:
        raise click.UsageError(f"{word!r} is neither vm nor vmi; for one VM use diagnose")
    return kind


def parse(ctx: click.Context, words: Sequence[str]) -> Targets:
    """The targets that the words name; without a kind they are VMs. Raises UsageError."""
    from kubectl_harvester_stuck.k8s.kinds import VM

    for word in words:
        check_separated(ctx, word)
    first, *rest = words or ("",)
    kind = kind_of(first)
    if kind is not None:
        if any(kind_of(word.partition("/")[0]) and "/" in word for word in rest):
            raise click.UsageError("say either KIND NAME... or KIND/NAME..., not both")
        return Targets(kind, tuple(_named(ctx, word) for word in rest))
    _reject_other_kind(first)
    kinds = {kind_of(word.partition("/")[0]) if "/" in word else None for word in words}
    if len(kinds) > 1:
        raise click.UsageError("name one kind, in each word or in none: vm/NAME or NAME")
    said = next(iter(kinds), None)
    names = [word.partition("/")[2] for word in words] if said else words
    return Targets(said or (VM if words else None), tuple(_named(ctx, word) for word in names))


def check_separated(ctx: click.Context, word: str) -> None:
    """Raises UsageError for names with commas between them, with the line to type instead."""
    if "," in word:
        line = retyped(ctx, {word: [piece for piece in word.split(",") if piece]})
        raise click.UsageError(f"separate names by spaces, not by commas:\n{line}")


def kind_of(word: str) -> Kind | None:
    """The kind that a word means; None for any other word."""
    from kubectl_harvester_stuck.k8s.kinds import TARGET_KINDS

    return TARGET_KINDS.get(word.lower())


def _reject_other_kind(word: str) -> None:
    """Raises UsageError for the word of a kind that cannot be a target, such as `pod`."""
    from kubectl_harvester_stuck.k8s import kinds

    known = [kind for kind in vars(kinds).values() if isinstance(kind, kinds.Kind)]
    said = word.partition("/")[0]
    if kind_of(said):
        return
    if said.lower() in {name for kind in known for name in (kind.kind.lower(), kind.plural)}:
        raise click.UsageError(f"{said!r} is neither vm nor vmi; a VM called {said} is vm/{said}")


def _named(ctx: click.Context, word: str) -> Named:
    """What a word names, without its kind. Raises UsageError."""
    parts = word.split("/")
    if not all(parts):
        raise click.UsageError("a name is missing beside the slash: NAMESPACE/NAME or vm/NAME")
    if len(parts) > 2:
        raise click.UsageError(f"{word!r} has too many slashes: at most vm/NAMESPACE/NAME")
    for part in parts:
        _check_name(ctx, word, part)
    return Named(parts[0] if len(parts) > 1 else None, parts[-1])


def _check_name(ctx: click.Context, word: str, name: str) -> None:
    """Raises UsageError for what the API server would never take as a name."""
    if len(name) > _LONGEST:
        raise click.UsageError(
            f"{name[:20]}... is no name: it is longer than {_LONGEST} characters"
        )
    if _NAME.fullmatch(name):
        return
    hint = ""
    if _NAME.fullmatch(name.lower()):
        hint = f"; did you mean:\n{retyped(ctx, {word: [word.lower()]})}"
    raise click.UsageError(
        f"{name!r} is no name: names have small letters, digits, and '-' or '.' between them{hint}"
    )


def check_namespaces(given: str | None, names: Sequence[Named]) -> None:
    """Raises UsageError where -n names another namespace than the word of a target."""
    for named in names:
        if given is not None and named.namespace not in (None, given):
            raise click.UsageError(
                f"-n {given} does not go with {named.namespace}/{named.name}: leave -n out"
            )


def selected(names: Sequence[Named], namespace: str | None) -> list[tuple[str | None, str | None]]:
    """Namespace and name of what is looked for among what was recorded; None stands for any.

    Raises UsageError where `namespace`, that of -n, is not the one of a name.
    """
    check_namespaces(namespace, names)
    if not names:
        return [(namespace, None)]
    return [(named.namespace or namespace, named.name) for named in names]
