"""The shape of every command, as in kubectl: its flags as a value, then three steps.

`validate` comes before `complete`: wrong flags are said whatever the kubeconfig or a file holds.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

import click

from kubectl_harvester_stuck.cli.output import Answer, print_answer
from kubectl_harvester_stuck.errors import ExitStatus

T = TypeVar("T")


class Options(Protocol[T]):
    """The flags of one command.

    They are NamedTuples: `--help` makes all of them, which takes five times as long with frozen
    dataclasses.
    """

    def validate(self) -> None:
        """Raise UsageError for flags that do not go together. Nothing was read so far."""

    def complete(self, ctx: click.Context) -> T:
        """What it works with, from the kubeconfig or from files; no request is sent.

        Raises StuckError, and UsageError for flags that do not go with what was read.
        """

    def run(self, found: T) -> Answer:
        """Do it. Raises StuckError as long as there is nothing to report."""


def execute(ctx: click.Context, options: Options[T]) -> ExitStatus:
    """Run a command to its last word."""
    try:
        options.validate()
        return print_answer(options.run(options.complete(ctx)))
    except click.UsageError as error:
        error.ctx = error.ctx or ctx
        raise
