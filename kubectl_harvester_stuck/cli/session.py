"""Where a command looks: the cluster of the kubeconfig, or the files of `-f`.

Also how that is typed again, so that the commands that are printed work when pasted.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from kubectl_harvester_stuck.cli.again import SECRET_FLAGS, flag_words
from kubectl_harvester_stuck.cli.options import connection_options

if TYPE_CHECKING:
    from kubectl_harvester_stuck.cli.targets import Named
    from kubectl_harvester_stuck.cluster.client import Cluster
    from kubectl_harvester_stuck.k8s.kinds import Kind
    from kubectl_harvester_stuck.k8s.objects import ObjectRef, Unreadable
    from kubectl_harvester_stuck.k8s.source import Source
    from kubectl_harvester_stuck.offline.files import Files
    from kubectl_harvester_stuck.render.invocation import Invocation


class Session(NamedTuple):
    """What a command that only reads looks at: a cluster, or files."""

    source: Source
    where: Invocation
    namespaces: tuple[str | None, ...]
    place: str
    """How the namespaces are called behind "Nothing is stuck"."""
    namespace: str | None
    """Where a name is looked for; None for anywhere in the files."""
    cluster: Cluster | None = None
    """The source again, where it can be asked more than to read; None for files."""
    files: Files | None = None
    missing: tuple[Unreadable, ...] = ()

    @property
    def what(self) -> str:
        """What is read, as a message calls it."""
        return "the cluster" if self.files is None else "the files"

    def refs(self, kind: Kind, names: Sequence[Named]) -> list[ObjectRef]:
        """The objects that were named; files may hold them in any namespace."""
        from kubectl_harvester_stuck.errors import NotFoundError
        from kubectl_harvester_stuck.k8s.objects import ObjectRef

        found: list[ObjectRef] = []
        for said, name in names:
            namespace = said or self.namespace
            spaces: Sequence[str] = (namespace,) if namespace else ()
            gap = ""
            if self.files is not None and namespace is None:
                spaces, gap = self.files.where_is(kind, name)
            if len(spaces) > 1:
                raise NotFoundError(
                    f"{kind.kind} {name} is in the namespaces {', '.join(spaces)}: choose with -n"
                )
            if not spaces:
                but = f", but not all could be read: {gap}" if gap else ""
                raise NotFoundError(f"{kind.kind} {name} was not found{self.place}{but}")
            found.append(ObjectRef(spaces[0], name, kind))
        return list(dict.fromkeys(found))

    def gaps(self, missing: tuple[Unreadable, ...]) -> str:
        """Lines that name what could not be read, and what would help."""
        from kubectl_harvester_stuck.cli.output import screen
        from kubectl_harvester_stuck.render import layout

        hint = "the setting support-bundle-namespaces adds namespaces to the next bundle\n"
        is_bundle = self.files is not None and self.files.has_bundle
        return layout.unreadable(missing, screen(sys.stderr).width) + (
            hint if missing and is_bundle else ""
        )


def open_session(
    given: dict[str, Any],
    filenames: tuple[str, ...] = (),
    *,
    all_namespaces: bool = False,
    selector: str | None = None,
    node: str | None = None,
    options: tuple[str, ...] = (),
) -> Session:
    """What is to be read: the files that were named, otherwise the cluster of the kubeconfig.

    `options` are flags of the command that are repeated where it is printed. Raises StuckError, and
    UsageError for flags that do not go with files.
    """
    check_selector(selector)
    on_node = f" on node {node}" if node else ""
    if filenames:
        session = _of_files(given, filenames, all_namespaces=all_namespaces)
        return session._replace(place=session.place + on_node)
    cluster, namespace, where = connect(given, options)
    return Session(
        source=cluster,
        where=where,
        namespaces=(None if all_namespaces else namespace,),
        place=("" if all_namespaces else f" in {namespace} namespace") + on_node,
        namespace=namespace,
        cluster=cluster,
    )


def check_selector(selector: str | None) -> None:
    """Raises UsageError for a label selector that is none: nothing would ever fit it."""
    from kubectl_harvester_stuck.k8s import selectors

    try:
        selectors.parse(selector or "")
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _of_files(
    given: dict[str, Any],
    filenames: tuple[str, ...],
    *,
    all_namespaces: bool,
) -> Session:
    """Files stand for a cluster: no kubeconfig is read, and nothing is asked of anybody."""
    from kubectl_harvester_stuck.k8s.objects import Unreadable, format_time
    from kubectl_harvester_stuck.offline import files as offline
    from kubectl_harvester_stuck.render import layout
    from kubectl_harvester_stuck.render.invocation import Invocation

    flags = connection_words({key: given[key] for key in given if key != "token"})
    if flags or "token" in given:
        raise click.UsageError(f"-f reads files, so {(*flags, '--token')[0]} does not go with it")
    stdin = sys.stdin.buffer if offline.STANDARD_INPUT in filenames else io.BytesIO()
    files = offline.read(filenames, stdin, datetime.now(timezone.utc))
    when = "" if files.says_when else ", when it was last written"
    title = layout.safe(files.title)
    click.echo(f"{title}: as of {format_time(files.now)}{when}", err=True)
    namespace = None if all_namespaces else given.get("namespace")
    gaps = () if namespace else files.unknown_namespaces()
    return Session(
        source=files,
        where=Invocation("", "", files=files.names, system=os.name),
        namespaces=(namespace,) if namespace else files.namespaces() or (None,),
        place=f" in {f'{namespace} namespace of ' if namespace else ''}{title}",
        namespace=namespace,
        files=files,
        missing=tuple(Unreadable("namespaces", None, "Unreadable", gap) for gap in gaps),
    )


def connect(
    given: dict[str, Any], options: tuple[str, ...] = ()
) -> tuple[Cluster, str, Invocation]:
    """The cluster that the flags and the kubeconfig lead to, and its default namespace."""
    from kubectl_harvester_stuck.cluster.client import Cluster
    from kubectl_harvester_stuck.connection import kubeconfig
    from kubectl_harvester_stuck.connection.transport import Transport
    from kubectl_harvester_stuck.render.invocation import Invocation
    from kubectl_harvester_stuck.render.layout import safe

    timeout: timedelta | None = given.get("request_timeout")
    verbosity = given.get("verbosity", 0)
    found = kubeconfig.load(kubeconfig.ConfigOverrides.of(given), os.environ)
    for notice in found.notices:
        click.echo(notice, err=True)
    transport = Transport(
        found,
        timeout=timeout.total_seconds() if timeout else None,
        on_warning=lambda text: click.echo(f"Warning: {text}", err=True),
        # With the server's own words behind its status.
        on_request=(lambda line: click.echo(safe(line), err=True)) if verbosity >= 6 else None,
    )
    words = connection_words(given)
    where = Invocation(found.context, found.server, words, options, system=os.name)
    return Cluster(transport), found.namespace, where


def connection_words(given: dict[str, Any]) -> tuple[str, ...]:
    """The connection flags as they would be typed again; the namespace is named separately."""
    words: list[str] = []
    params = connection_options()
    for name, value in given.items():
        if name in SECRET_FLAGS or name in ("namespace", "verbosity", "color"):
            continue
        words += flag_words(params[name], value)
    return tuple(words)
