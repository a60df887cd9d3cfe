"""`version`: of this program and of the Kubernetes client."""

from __future__ import annotations

import click

from kubectl_harvester_stuck import __version__
from kubectl_harvester_stuck.options import Command


@click.command(cls=Command)
def version() -> None:
    """Show the version of this program and of the Kubernetes client."""
    from importlib.metadata import version as version_of

    click.echo(f"kubectl-harvester-stuck {__version__}")
    click.echo(f"kubernetes {version_of('kubernetes')}")
