"""A way to an API server on which the program can be killed at any of its requests."""

from __future__ import annotations

import base64
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import urllib3

from tests.loopback import Handler, Server, running
from tests.simulator.server import certificates

BEFORE, AFTER = "before", "after"
"""The server never hears of the request; the client never hears of the answer."""


@dataclass(frozen=True)
class Passed:
    """One request on its way."""

    method: str
    path: str
    body: bytes

    @property
    def is_change(self) -> bool:
        """Whether it changes one of the objects that are released."""
        return self.method in ("PATCH", "DELETE") and b"dryRun" not in (
            self.path.encode() + self.body
        )

    @property
    def is_first(self) -> bool:
        """Whether it is the first one after the operator's yes."""
        return self.path.endswith("/selfsubjectreviews")


@dataclass
class Killer:
    """Kills the process at its request number `at`, counted from 0; None lets it live.

    Counted are the requests from the operator's yes on, or only the changes among them.
    """

    at: int | None
    moment: str
    only_changes: bool = False
    process: subprocess.Popen[str] | None = None
    hit: Passed | None = None
    _count: int = -1
    _begun: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def is_due(self, request: Passed) -> bool:
        """Whether the process dies at this one."""
        with self._lock:
            self._begun |= request.is_first
            if self._begun and (request.is_change or not self.only_changes):
                self._count += 1
                if self._count == self.at:
                    self.hit = request
                    return True
            return False

    def kill(self) -> None:
        """End the process, as `kill -9` does."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Relay(Server):
    """Passes requests on to the server of a kubeconfig."""

    upstream: str
    killer: Killer
    http: urllib3.PoolManager


class _Handler(Handler):
    server: Relay  # type: ignore[assignment]
    # Head and body of an answer are two writes; the second is not to wait for an acknowledgement.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:  # noqa: N802
        length = int(self.headers.get("Content-Length", 0))
        request = Passed(self.command, self.path, self.rfile.read(length))
        killer = self.server.killer
        due = killer.is_due(request)
        if due and killer.moment == BEFORE:
            self._die(killer)
            return
        answer = self.server.http.request(
            self.command,
            self.server.upstream + self.path,
            body=request.body or None,
            headers={key: value for key, value in self.headers.items() if key != "Host"},
            retries=False,
            redirect=False,
            decode_content=False,
        )
        if due:
            self._die(killer)
            return
        self.send_response_only(answer.status)
        for name in ("Content-Type", "Content-Encoding", "Date"):
            if name in answer.headers:
                self.send_header(name, answer.headers[name])
        self.send_header("Content-Length", str(len(answer.data)))
        self.end_headers()
        self.wfile.write(answer.data)

    do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def _die(self, killer: Killer) -> None:
        killer.kill()
        self.close_connection = True


@contextmanager
def relay(kubeconfig: dict[str, Any], killer: Killer) -> Iterator[dict[str, Any]]:
    """The kubeconfig that leads through the relay, for as long as the block runs."""
    (entry,) = kubeconfig["clusters"]
    authority = base64.b64decode(entry["cluster"]["certificate-authority-data"]).decode()
    # A token is only sent over TLS.
    context, own_authority = certificates()
    with running(context, _Handler, Relay) as server:
        server.upstream = entry["cluster"]["server"]
        server.killer = killer
        server.http = urllib3.PoolManager(maxsize=16, ca_cert_data=authority)
        data = base64.b64encode(own_authority).decode()
        cluster = {**entry, "cluster": {"server": server.url, "certificate-authority-data": data}}
        yield {**kubeconfig, "clusters": [cluster]}
