"""What a wrong command line may have meant.

A hint never names a flag that changes who acts or that agrees to something: `--all` must not become
`--as`, nor a slip of the finger a yes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import click

NEVER = frozenset({
    "--as", "--as-group", "--as-uid", "--confirm", "--insecure-skip-tls-verify", "--leave-behind",
    "--node-powered-off", "--override", "--token", "--user", "--yes",
})  # fmt: skip
"""Flags that nobody is told to try."""


def closest(word: str, known: Iterable[str]) -> str | None:
    """The one that `word` is the beginning of, or looks like; None where none does."""
    import difflib

    names = sorted(known)
    found = [name for name in names if len(word) > 2 and name.startswith(word)]
    return next(iter(found or difflib.get_close_matches(word, names, 1)), None)


def no_such_command(ctx: click.Context, word: str, known: Iterable[str]) -> click.UsageError:
    """The error for a word that is no command."""
    from kubectl_harvester_stuck.k8s.kinds import TARGET_KINDS

    meant = closest(word, known)
    hint = f"; did you mean {meant}?" if meant else ""
    if word.partition("/")[0].lower() in TARGET_KINDS:
        hint = f"; the command comes first, as in diagnose {word}"
    return click.UsageError(f"no such command: {word}{hint}", ctx)


@contextmanager
def for_options(ctx: click.Context, args: Sequence[str]) -> Iterator[None]:
    """While the options in `args` are parsed: an unknown one raises UsageError with a hint."""
    given = tuple(args)  # click takes words off the list
    try:
        yield
    except click.NoSuchOption as error:
        raise _no_such_option(ctx, error.option_name, given) from None


def _no_such_option(ctx: click.Context, name: str, args: Sequence[str]) -> click.UsageError:
    known = _flags(ctx.command)
    # click takes `-all` for three flags of one letter and names the first.
    whole = (f"-{word.partition('=')[0]}" for word in args if word.startswith(name))
    is_short = not name.startswith("--")
    meant = next((word for word in whole if word in known), None) if is_short else None
    meant = meant or (None if is_short else closest(name, known))
    if meant in NEVER:
        meant = None
    message = f"no such option: {name}"
    if meant:
        return click.UsageError(f"{message}; did you mean {meant}?", ctx)
    if isinstance(ctx.command, click.Group):
        takers = [
            command.name for command in ctx.command.commands.values() if name in _flags(command)
        ]
        if takers:
            message += f" before the name of a command; behind it: {', '.join(map(str, takers))}"
    return click.UsageError(message, ctx)


def _flags(command: click.Command) -> set[str]:
    options = (param for param in command.params if isinstance(param, click.Option))
    return {flag for option in options for flag in option.opts}
