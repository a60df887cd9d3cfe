"""Servers on 127.0.0.1 that record what reaches them (an API server, a proxy), and a way there."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trustme

from kubectl_harvester_stuck.connection.kubeconfig import ClientConfig
from kubectl_harvester_stuck.connection.kubeconfig_file import ClusterEntry, UserEntry, parse
from kubectl_harvester_stuck.connection.messages import Request
from kubectl_harvester_stuck.connection.transport import Transport
from kubectl_harvester_stuck.errors import UnreachableError

CLIENT_NAME = "jane"
OTHER_CLIENT = "john"


@dataclass(frozen=True)
class Seen:
    """One request as the server saw it; `server_name` and `client` are those of TLS."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    server_name: str | None
    client: str | None

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


class Handler(BaseHTTPRequestHandler):
    """Records the request, then lets the server's `respond` answer it."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        connection: Any = self.connection
        is_tls = isinstance(connection, ssl.SSLSocket)
        subject = (connection.getpeercert() or {}).get("subject", ()) if is_tls else ()
        names = [value for part in subject for key, value in part if key == "commonName"]
        self.server.seen.append(
            Seen(
                self.command,
                self.path,
                self.headers.items(),
                self.rfile.read(int(self.headers.get("Content-Length", 0))),
                getattr(connection, "server_name", None),
                names[0] if names else None,
            )
        )
        self.server.respond(self)

    do_POST = do_PATCH = do_DELETE = do_PUT = do_GET  # noqa: N815

    def answer(self, status: int = 200, body: object = None, *headers: tuple[str, str]) -> None:
        """A whole answer with a JSON body."""
        content = json.dumps(body if body is not None else {}).encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing: the tests look at `seen`."""


class Server(ThreadingHTTPServer):
    """`respond` answers each request; it may be replaced at any time."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext | None, handler: type[Handler] = Handler) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.seen: list[Seen] = []
        self.respond: Callable[[Handler], None] = Handler.answer
        self.scheme = "http" if context is None else "https"
        if context is not None:
            # The handshake belongs into the thread of the connection.
            self.socket = context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: clients that do not like the certificate hang up."""


class ProxyHandler(Handler):
    """Tunnels CONNECT to the target named, and answers plain proxied requests itself."""

    def do_CONNECT(self) -> None:
        self.server.seen.append(Seen("CONNECT", self.path, self.headers.items(), b"", None, None))
        host, _, port = self.path.rpartition(":")
        # Any name leads to the loopback address, as a proxy resolves names itself.
        with socket.create_connection(("127.0.0.1", int(port))) as target:
            self.send_response(200, host)
            self.end_headers()
            back = threading.Thread(target=_pump, args=(target, self.connection), daemon=True)
            back.start()
            _pump(self.connection, target)
            back.join()
        self.close_connection = True


def drips(*heads: bytes) -> type[Handler]:
    """A handler that answers each that comes with one of `heads`, then sends a byte every 50 ms."""

    class Dripping(Handler):
        def handle(self) -> None:
            with suppress(OSError):
                for head in heads:
                    self.connection.recv(65536)
                    self.wfile.write(head)
                while True:
                    time.sleep(0.05)
                    self.wfile.write(b"x")

    return Dripping


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def cluster_entry(fields: Mapping[str, Any], base: str = "/") -> ClusterEntry:
    """The cluster with these fields of a kubeconfig in the directory `base`."""
    return parse({"clusters": [{"name": "k", "cluster": fields}]}, base).clusters["k"]


def user_entry(fields: Mapping[str, Any], base: str = "/") -> UserEntry:
    """The user with these fields of a kubeconfig in the directory `base`."""
    return parse({"users": [{"name": "u", "user": fields}]}, base).users["u"]


def client_config(server: str, user: Mapping[str, Any], **cluster: Any) -> ClientConfig:
    """A connection to `server`; `cluster` are the other fields of its kubeconfig entry."""
    entry = {"server": server, **{key.replace("_", "-"): cluster[key] for key in cluster}}
    return ClientConfig("c", "k", "u", server, "default", cluster_entry(entry), user_entry(user))


S = TypeVar("S", bound=Server)


def running(
    context: ssl.SSLContext | None = None, handler: type[Handler] = Handler
) -> AbstractContextManager[Server]:
    """A new server that answers until the block ends."""
    return serving(Server(context, handler))


@contextmanager
def serving(server: S) -> Iterator[S]:
    """Let the server answer until the block ends, then close it."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()


@dataclass
class Pki:
    """An authority, a certificate for 127.0.0.1 and cluster.example, those of two clients."""

    directory: Path
    authority: trustme.CA = field(default_factory=trustme.CA)

    def __post_init__(self) -> None:
        names = ("127.0.0.1", "localhost", "cluster.example")
        self._server = self.authority.issue_cert(*names)
        client = self.authority.issue_cert(CLIENT_NAME, common_name=CLIENT_NAME)
        other = self.authority.issue_cert(OTHER_CLIENT, common_name=OTHER_CLIENT)
        for name, blob in (
            ("ca.crt", self.authority.cert_pem),
            ("other-ca.crt", trustme.CA().cert_pem),
            ("client.crt", client.cert_chain_pems[0]),
            ("client.key", client.private_key_pem),
            ("other.crt", other.cert_chain_pems[0]),
            ("other.key", other.private_key_pem),
        ):
            blob.write_to_path(str(self.directory / name))

    def path(self, name: str) -> str:
        return str(self.directory / name)

    def data(self, name: str) -> str:
        return base64.b64encode((self.directory / name).read_bytes()).decode()

    def server_context(self, verify: ssl.VerifyMode = ssl.CERT_OPTIONAL) -> ssl.SSLContext:
        """A server's context that asks for client certificates and remembers the name asked."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._server.configure_cert(context)
        self.authority.configure_trust(context)
        context.verify_mode = verify

        def remember(connection: Any, name: str | None, _: ssl.SSLContext) -> None:
            connection.server_name = name

        context.sni_callback = remember
        return context


def transport(
    server: str,
    user: dict[str, Any] | None = None,
    *,
    timeout: float | None = 5,
    on_warning: Callable[[str], None] = lambda _: None,
    on_request: Callable[[str], None] | None = None,
    **cluster: Any,
) -> Transport:
    """A transport to `server`; `cluster` are the other fields of its kubeconfig entry."""
    return Transport(
        client_config(server, user or {}, **cluster),
        timeout=timeout,
        user_agent="tests/1",
        on_warning=on_warning,
        on_request=on_request,
    )


def failure(made: Transport, asked: str | Request = "GET") -> str:
    """The one line with which a request, or one of this method, ends that gets no answer."""
    with pytest.raises(UnreachableError) as caught:
        made.request(Request(asked, "/x") if isinstance(asked, str) else asked)
    assert "\n" not in str(caught.value)
    return str(caught.value)
