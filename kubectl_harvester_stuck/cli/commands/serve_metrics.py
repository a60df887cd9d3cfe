"""`serve-metrics`: what is stuck, for Prometheus to ask for."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from kubectl_harvester_stuck.cli.execute import execute
from kubectl_harvester_stuck.cli.options import Address, Command, connection
from kubectl_harvester_stuck.cli.output import Answer
from kubectl_harvester_stuck.cli.session import check_selector, connect
from kubectl_harvester_stuck.cli.terminal import queued
from kubectl_harvester_stuck.cli.watching import Connection, Gaps
from kubectl_harvester_stuck.errors import ExitStatus, StuckError

if TYPE_CHECKING:
    from kubectl_harvester_stuck.cluster.client import Cluster
    from kubectl_harvester_stuck.k8s.objects import Unreadable
    from kubectl_harvester_stuck.listing.model import Listing

EVERY = 1.0
"""Seconds after which a signal to end is heeded, at most."""

AGAIN = 5.0
"""Seconds after which it is asked again whether there is the namespace."""


class ServeMetricsOptions(NamedTuple):
    """The flags of `serve-metrics`."""

    all_namespaces: bool
    selector: str | None
    listen: tuple[str, int]

    def validate(self) -> None:
        """All of them go together."""

    def complete(self, ctx: click.Context) -> tuple[Cluster, str | None]:
        """The cluster, and the namespace; None for all."""
        check_selector(self.selector)
        cluster, namespace, _ = connect(ctx.ensure_object(dict))
        return cluster, None if self.all_namespaces else namespace

    def run(self, found: tuple[Cluster, str | None]) -> Answer:
        """Follow what is stuck, and answer whoever asks, until a signal ends it."""
        from kubectl_harvester_stuck.k8s.kinds import VM, VMI
        from kubectl_harvester_stuck.listing import watch

        cluster, namespace = found
        place = Place(cluster, namespace)
        place.ask()
        cache = watch.WatchCache(cluster, (namespace,))
        latest = Latest(lambda: cache.now)
        _listen(*self.listen, latest)
        ended = _ended()
        cache.start()
        answers = watch.follow(
            cache, kinds=frozenset((VM, VMI)), labels=self.selector, older_than=timedelta(0)
        )
        gaps = Gaps()
        listed: Listing | None = None
        for answer in queued(answers, every=EVERY):
            if ended.is_set():
                break
            listed = answer[0] if answer is not None else listed
            if listed is not None and (answer is not None or place.ask()):
                known = replace(listed, missing=listed.missing + place.missing)
                latest.take(known)
                gaps.tell(known)
        return Answer(ExitStatus.OK)


class Place:
    """The namespace that is watched. That nothing is stuck says little where there may be none."""

    def __init__(self, cluster: Cluster, namespace: str | None) -> None:
        self._cluster = cluster
        self._unsure: tuple[str, ...] = () if namespace is None else (namespace,)
        self._asked_at = -AGAIN
        self.missing: tuple[Unreadable, ...] = ()

    def ask(self) -> bool:
        """Ask again while it is not known, now and then: whether the answer is another one.

        Raises NotFoundError where there is no such namespace.
        """
        from kubectl_harvester_stuck.k8s.kinds import NAMESPACE
        from kubectl_harvester_stuck.k8s.source import unknown_namespaces
        from kubectl_harvester_stuck.listing import survey

        if not self._unsure or time.monotonic() - self._asked_at < AGAIN:
            return False
        self._asked_at = time.monotonic()
        gaps = unknown_namespaces(self._cluster, self._unsure)
        before, self._unsure = self.missing, tuple(gaps)
        self.missing = tuple(survey.missing(NAMESPACE, "", gap) for gap in gaps.values())
        return self.missing != before


class Latest:
    """The last answer of a watch, as it is at the moment in which somebody asks."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._connection = Connection()
        self._found: Listing | None = None

    def take(self, found: Listing) -> None:
        """Note the answer."""
        with self._lock:
            self._connection.take(found, "")
            self._found = found

    def __call__(self) -> Listing | None:
        """The answer of now; of then, while something cannot be read any more. None before any."""
        with self._lock:
            if self._found is None:
                return None
            shown = self._connection.shown(replace(self._found, taken_at=self._now()))
            # Of then are rows and time, but that something is missing is of now.
            return replace(shown, missing=self._found.missing, is_blind=self._found.is_blind)


def _listen(host: str, port: int, latest: Latest) -> None:
    """Answer whoever asks, from now on. Raises StuckError where the address cannot be had."""
    from prometheus_client import start_http_server

    from kubectl_harvester_stuck.render import prometheus

    shown = f"[{host}]" if ":" in host else host
    try:
        server, _ = start_http_server(port, host, prometheus.registry(latest))
    except OSError as error:
        raise StuckError(
            f"cannot listen on {shown}:{port}: {error.strerror or error}; choose another address"
            " with --listen"
        ) from None
    click.echo(f"Serving metrics on http://{shown}:{server.server_port}/metrics", err=True)


def _ended() -> threading.Event:
    """Set by SIGTERM. As the first process of a container, this one would not notice it."""
    ended = threading.Event()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: ended.set())
    return ended


@click.command("serve-metrics", cls=Command)
@connection
@click.option("-A", "--all-namespaces", is_flag=True, help="Look in every namespace.")
@click.option("-l", "--selector", metavar="LABELS", help="Only objects with these labels.")
@click.option(
    "--listen",
    type=Address(),
    default="127.0.0.1:9790",
    show_default=True,
    help="Where to answer.",
)
@click.pass_context
def command(ctx: click.Context, /, **flags: Any) -> ExitStatus:
    """Serve what is stuck as metrics for Prometheus, until it is stopped.

    Watches the cluster, as list --watch does: a scrape costs the API server nothing. The metrics
    are those of list -o prometheus. Nothing is changed.

    \b
    Examples:
      kubectl harvester-stuck serve-metrics -A
      kubectl harvester-stuck serve-metrics -A --listen 0.0.0.0:9790
    """
    return execute(ctx, ServeMetricsOptions(**flags))
