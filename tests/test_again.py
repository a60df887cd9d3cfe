"""A command line that is typed again: with what was meant instead, and without secrets."""

from __future__ import annotations

import click
import pytest

from kubectl_harvester_stuck.cli import again
from kubectl_harvester_stuck.cli.main import cli


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("unstick web", "unstick web --confirm 1"),
        ("unstick --token t web --token=u", "unstick web --confirm 1"),
        # Behind the two dashes nothing is a flag.
        ("unstick -- web", "unstick --confirm 1 -- web"),
        (
            "unstick -s https://me:secret@host:6443 web",
            "unstick -s https://host:6443 web --confirm 1",
        ),
        ("unstick --server=https://me:s@h web", "unstick --server=https://h web --confirm 1"),
    ],
)
def test_the_flags_stand_where_they_are_read_and_no_secret_is_repeated(
    typed: str, line: str
) -> None:
    context = click.Context(cli, info_name="kubectl harvester-stuck")
    context.meta[again.ARGUMENTS] = tuple(typed.split())
    assert again.retyped(context, more=("--confirm", "1")) == f"kubectl harvester-stuck {line}"
