"""Flags as kubectl spells them, declared once and taken before or after the command's name."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import click

from kubectl_harvester_stuck.cli import completion, hints
from kubectl_harvester_stuck.render import formats

F = TypeVar("F", bound=Callable[..., Any])

PROGRAM = "kubectl harvester-stuck"
FORMATS = formats.FORMATS
"""What every command that tells of objects can print."""


class Duration(click.ParamType):  # type: ignore[type-arg]
    """`5m`, `1h30m`, `45`: see `durations`."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """The duration. Fails with click's usage error."""
        if isinstance(value, timedelta):
            return value
        from kubectl_harvester_stuck.k8s import durations

        try:
            return durations.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Address(click.ParamType):  # type: ignore[type-arg]
    """`HOST:PORT`, with an IPv6 address in brackets: where to listen."""

    name = "address"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """Host and port. Fails with click's usage error."""
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]\s]+)):([0-9]{1,5})", value)
        if found is None or int(found[3]) > 65535:
            self.fail(f"{value!r} is no HOST:PORT, such as 0.0.0.0:9790", param, ctx)
        return found[1] or found[2], int(found[3])


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Remember a flag that was given; the one nearest to the command wins."""
    given: dict[str, Any] = ctx.ensure_object(dict)
    if value not in (None, (), False) and param.name:
        given[param.name] = value


class ConnectionOption(click.Option):
    """An option of every command that speaks to a cluster."""


class Command(click.Command):
    """A command whose help shows its own options before those of the connection."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words; an unknown option gets a hint."""
        with hints.for_options(ctx, args):
            return super().parse_args(ctx, args)

    def get_short_help_str(self, limit: int = 80) -> str:
        """The first sentence; whole, where nobody sets a limit."""
        return super().get_short_help_str(limit)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the two sections."""
        own: list[tuple[str, str]] = []
        shared: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                (shared if isinstance(param, ConnectionOption) else own).append(record)
        for title, records in (("Options", own), ("Options of kubectl", shared)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


_FILE = click.Path(readable=False)
"""For completion alone: whether the file can be used is found out by whoever reads it."""


def _option(*names: str, **settings: Any) -> Callable[[F], F]:
    return click.option(
        *names, cls=ConnectionOption, callback=_keep, expose_value=False, **settings
    )


# fmt: off
_CONNECTION = (
    _option("--kubeconfig", type=_FILE, metavar="FILE", help="Path to the kubeconfig file."),
    _option("--context", metavar="NAME", help="The kubeconfig context to use.",
            shell_complete=completion.kubeconfig_names("contexts")),
    _option("--cluster", metavar="NAME", help="The kubeconfig cluster to use.",
            shell_complete=completion.kubeconfig_names("clusters")),
    _option("--user", metavar="NAME", help="The kubeconfig user to use.",
            shell_complete=completion.kubeconfig_names("users")),
    _option("-s", "--server", metavar="URL", help="Address of the API server."),
    _option("--token", metavar="TOKEN", help="Bearer token for the API server."),
    _option("--as", "as_", metavar="USER", help="Impersonate this user."),
    _option("--as-group", "as_groups", metavar="GROUP", multiple=True,
            help="Impersonate this group."),
    _option("--as-uid", "as_uid", metavar="UID", help="Impersonate this uid."),
    _option("--certificate-authority", type=_FILE, metavar="FILE",
            help="CA certificate of the API server."),
    _option("--client-certificate", type=_FILE, metavar="FILE", help="Client certificate for TLS."),
    _option("--client-key", type=_FILE, metavar="FILE", help="Client key for TLS."),
    _option("--insecure-skip-tls-verify", is_flag=True,
            help="Do not verify the server's certificate."),
    _option("--tls-server-name", metavar="NAME",
            help="Name that the server's certificate must have."),
    _option("--request-timeout", type=Duration(),
            help="How long to wait for one answer (default 1m)."),
    _option("-n", "--namespace", metavar="NAME", help="Namespace (default: the context's).",
            shell_complete=completion.namespaces),
    _option(
        "--color",
        type=click.Choice(["auto", "always", "never"]),
        help="When to use colour (default auto; NO_COLOR is respected).",
    ),
    _option("-v", "--v", "verbosity", type=int, metavar="LEVEL",
            help="Log the requests at 6 or higher."),
)
# fmt: on


def connection(function: F) -> F:
    """Everything that says which cluster, as whom, and in which namespace."""
    for option in reversed(_CONNECTION):
        function = option(function)
    return function


def connection_options() -> dict[str, click.Option]:
    """The options of `connection` by the name of their value."""

    @click.command()
    @connection
    def nothing() -> None: ...

    options = (param for param in nothing.params if isinstance(param, click.Option))
    return {str(param.name): param for param in options}


def filename(function: F) -> F:
    """`-f`: files to read instead of a cluster."""
    return click.option(
        "-f",
        "--filename",
        "filenames",
        multiple=True,
        type=_FILE,
        metavar="FILE",
        help="Read a support bundle (zip or folder) or YAML/JSON objects; - is standard input.",
    )(function)


def node(help_text: str) -> Callable[[F], F]:
    """`--node`: only guests that ran there."""
    return click.option(
        "--node", "host", metavar="NODE", shell_complete=completion.nodes, help=help_text
    )


def output(*names: str) -> Callable[[F], F]:
    """`-o`, with the formats that the command has."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(names),
        default="table",
        show_default=True,
        help="How to print the answer.",
    )
