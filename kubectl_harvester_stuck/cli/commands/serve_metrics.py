"""`serve-metrics`: what is stuck, for Prometheus to ask for."""

from __future__ import annotations

import signal
import threading
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from kubectl_harvester_stuck.cli.execute import execute
from kubectl_harvester_stuck.cli.options import Address, Command, connection
from kubectl_harvester_stuck.cli.output import Answer
from kubectl_harvester_stuck.cli.session import check_selector, connect
from kubectl_harvester_stuck.cli.terminal import queued
from kubectl_harvester_stuck.cli.watching import Gaps, Place
from kubectl_harvester_stuck.errors import ExitStatus, StuckError

if TYPE_CHECKING:
    from kubectl_harvester_stuck.cluster.client import Cluster
    from kubectl_harvester_stuck.listing.model import Listing
    from kubectl_harvester_stuck.listing.watch import WatchCache
    from kubectl_harvester_stuck.render.prometheus import Scrape

EVERY = 1.0
"""Seconds after which a signal to end is heeded, at most."""

LATE = 200.0
"""Seconds after which what was heard last is too old to be called complete.

A watch in which nothing happens is heard of each minute, by a bookmark; one of which nothing is
heard for two and a half is given up by the client and begun anew.
"""


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
        latest = Latest(cache)
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


class Latest:
    """The last answer of a watch, as it is at the moment in which somebody asks."""

    def __init__(self, cache: WatchCache) -> None:
        self._cache = cache
        self._found: Listing | None = None

    def take(self, found: Listing) -> None:
        """Note the answer."""
        self._found = found

    def __call__(self) -> Scrape | None:
        """None before any answer. Ages go on whatever is lost: what is stuck gets older."""
        from kubectl_harvester_stuck.render.prometheus import Scrape

        found, now, silence = self._found, self._cache.now, self._cache.silence
        if found is None:
            return None
        is_late = silence.total_seconds() > LATE
        return Scrape(replace(found, taken_at=now), now - silence, is_late)


def _listen(host: str, port: int, latest: Latest) -> None:
    """Answer whoever asks, from now on. Raises StuckError where the address cannot be had."""
    from prometheus_client import start_http_server

    from kubectl_harvester_stuck.render import prometheus

    shown = f"[{host}]" if ":" in host else host
    try:
        server, _ = start_http_server(port, host, prometheus.registry(latest))
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise StuckError(
            f"cannot listen on {shown}:{port}: {why}; choose another address with --listen"
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
