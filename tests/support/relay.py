"""A way to an API server on which somebody stands between each request and its answer."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import urllib3

from kubectl_harvester_stuck.errors import ApiError
from tests.support.loopback import Handler, Server, serving
from tests.support.simulator.server import certificates

BEFORE, AFTER = "before", "after"
"""The server never hears of the request; the client never hears of the answer."""


@dataclass(frozen=True)
class Passed:
    """One request on its way."""

    method: str
    path: str
    body: bytes
    accept: str

    @property
    def is_change(self) -> bool:
        """Whether it changes one of the objects that are released."""
        return self.method in ("PATCH", "DELETE") and b"dryRun" not in (
            self.path.encode() + self.body
        )

    def changes(self, name: str) -> bool:
        """Whether it changes the object `plural/name`."""
        return self.is_change and self.path.partition("?")[0].endswith(f"/{name}")

    def tries(self, name: str) -> bool:
        """Whether it is a dry run of a change of the object `plural/name`."""
        path, _, query = self.path.partition("?")
        return self.method == "PATCH" and "dryRun" in query and path.endswith(f"/{name}")

    @property
    def is_first(self) -> bool:
        """Whether it is the first one after the operator's yes."""
        return self.path.endswith("/selfsubjectreviews")


class Process(Protocol):
    """A process that can be killed and waited for."""

    def kill(self) -> None: ...
    def wait(self, timeout: float | None = None) -> int: ...


Answer = urllib3.BaseHTTPResponse
PassOn = Callable[[], Answer]
"""Sends the request to the server."""

Between = Callable[[Passed, PassOn], Answer | None]
"""Gives the answer to a request; None where the connection breaks off instead."""


def answer(status: int, body: Any) -> Answer:
    """An answer that no server gave."""
    content = json.dumps(body).encode()
    return urllib3.HTTPResponse(content, {"Content-Type": "application/json"}, status)


def failure(error: ApiError) -> Answer:
    """The answer of a server that fails with `error`."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": error.code}
    return answer(error.code, {**body, "reason": error.reason, "message": error.message})


@dataclass
class Killer:
    """Kills the process at its request number `at`, counted from 0; None lets it live.

    Counted are the requests from the operator's yes on, or only the changes among them.
    """

    at: int | None
    moment: str
    only_changes: bool = False
    process: Process | None = None
    hit: Passed | None = None
    _count: int = -1
    _begun: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, request: Passed, pass_on: PassOn) -> Answer | None:
        """Kill the process if it is time, before or after the server hears of the request."""
        due = self.is_due(request)
        answer = None if due and self.moment == BEFORE else pass_on()
        if due:
            self.kill()
            return None
        return answer

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
        self.process.kill()
        self.process.wait()


class Relay(Server):
    """Passes requests on to the server of a kubeconfig."""

    upstream: str
    between: Between
    http: urllib3.PoolManager


class _Handler(Handler):
    server: Relay
    # Head and body of an answer are two writes; the second is not to wait for an acknowledgement.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:  # noqa: N802
        length = int(self.headers.get("Content-Length", 0))
        accept = self.headers.get("Accept", "")
        request = Passed(self.command, self.path, self.rfile.read(length), accept)
        answer = self.server.between(request, lambda: self._pass_on(request))
        if answer is None:
            self.close_connection = True
            return
        self.send_response_only(answer.status)
        for name in ("Content-Type", "Content-Encoding", "Date"):
            if name in answer.headers:
                self.send_header(name, answer.headers[name])
        self.send_header("Content-Length", str(len(answer.data)))
        self.end_headers()
        self.wfile.write(answer.data)

    do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def _pass_on(self, request: Passed) -> Answer:
        return self.server.http.request(
            request.method,
            self.server.upstream + request.path,
            body=request.body or None,
            headers={key: value for key, value in self.headers.items() if key != "Host"},
            retries=False,
            redirect=False,
            decode_content=False,
        )


@contextmanager
def relay(kubeconfig: dict[str, Any], between: Between) -> Iterator[dict[str, Any]]:
    """The kubeconfig that leads through the relay, for as long as the block runs."""
    (entry,) = kubeconfig["clusters"]
    authority = base64.b64decode(entry["cluster"]["certificate-authority-data"]).decode()
    # A token is only sent over TLS.
    context, own_authority = certificates()
    with serving(Relay(context, _Handler)) as server:
        server.upstream = entry["cluster"]["server"]
        server.between = between
        server.http = urllib3.PoolManager(maxsize=16, ca_cert_data=authority)
        data = base64.b64encode(own_authority).decode()
        cluster = {**entry, "cluster": {"server": server.url, "certificate-authority-data": data}}
        try:
            yield {**kubeconfig, "clusters": [cluster]}
        finally:
            server.http.clear()
