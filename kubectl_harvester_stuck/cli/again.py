"""The command line that was typed, typed again, so that what is printed works when pasted."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import click

SECRET_FLAGS = frozenset({"token"})
"""Never repeated in a command that is printed."""

_USERINFO = re.compile(r"://[^/@]*@")
"""A user and a password in the address of a server."""

ARGUMENTS = "kubectl_harvester_stuck.arguments"
"""Where the whole command line is kept in a click context."""


def retyped(
    ctx: click.Context, instead: Mapping[str, Sequence[str]] | None = None, more: Sequence[str] = ()
) -> str:
    """The command line once more, to be pasted: other words for some, `more` behind, no token."""
    from kubectl_harvester_stuck.k8s import commands
    from kubectl_harvester_stuck.render.invocation import Invocation
    from kubectl_harvester_stuck.render.layout import safe

    words: list[str] = []
    given = iter(ctx.meta.get(ARGUMENTS, ()))
    for word in given:
        if word == "--token":
            next(given, None)
        elif not word.startswith("--token="):
            words += (instead or {}).get(word, [_USERINFO.sub("://", word)])
    # Behind `--` nothing is a flag.
    end = words.index("--") if "--" in words else len(words)
    words[end:end] = more
    return safe(Invocation("", "", system=os.name).spell(commands.again(*words)))


def repeated(ctx: click.Context) -> tuple[str, ...]:
    """The flags of this command that were given and still apply to its next call."""
    words: list[str] = []
    for param in ctx.command.params:
        if not isinstance(param, click.Option) or param.name not in _REPEATED:
            continue
        source = ctx.get_parameter_source(param.name)
        if source is click.core.ParameterSource.COMMANDLINE:
            words += flag_words(param, ctx.params[param.name])
    return tuple(words)


_REPEATED = ("older_than", "finalizers", "leave_behind", "powered_off", "overrides", "max_targets")


def flag_words(option: click.Option, value: Any) -> list[str]:
    """The flag with this value, as it would be typed."""
    flag = max(option.opts, key=len)
    if value is True:
        return [flag]
    values = value if isinstance(value, tuple) else (value,)
    texts = [
        f"{item.total_seconds():g}s" if isinstance(item, timedelta) else str(item)
        for item in values
    ]
    return [word for text in texts for word in (flag, text)]
