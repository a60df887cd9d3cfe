"""HTTPS on the loopback interface."""

from __future__ import annotations

import contextlib
import functools
import socket
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import trustme

from .api import Api, Request
from .clock import Clock
from .exchange import Exchange
from .faults import Faults

HOST = "127.0.0.1"


@functools.cache
def certificates() -> tuple[ssl.SSLContext, bytes]:
    """A server's context for the loopback address, and in PEM the CA that vouches for it."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST, "localhost").configure_cert(context)
    return context, authority.cert_pem.bytes()


class Server:
    """A listener that can be stopped and started again on the same port."""

    def __init__(
        self,
        api: Api,
        clock: Clock,
        faults: Faults,
        record: Callable[[Request, int | None], None],
    ) -> None:
        self.stopping = threading.Event()
        self._api = api
        self._clock = clock
        self._faults = faults
        self._record = record
        self._port = 0
        self._listener: _Listener | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"https://{HOST}:{self._port}"

    def start(self) -> None:
        """Listen; nothing happens when it does already."""
        if self._listener is not None:
            return
        self.stopping.clear()
        self._listener = _Listener(self._port, self._serve)
        self._port = self._listener.server_address[1]
        self._thread = threading.Thread(
            target=self._listener.serve_forever, kwargs={"poll_interval": 0.005}, daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Close the port and all connections; nothing happens when they are closed."""
        if self._listener is None or self._thread is None:
            return
        self.stopping.set()
        self._listener.shutdown()
        self._thread.join()
        self._listener.server_close()
        self._listener.close_connections()
        self._listener = None

    def _serve(self, request: Request, connection: socket.socket) -> bool:
        """Answer one request; False when the connection is at its end."""
        exchange = Exchange(
            request, connection, self._api, self._clock, self.stopping, self._record
        )
        fault = self._faults.take(request.method, request.target)
        if fault is None:
            exchange.answer()
        else:
            fault(exchange)
        return not exchange.dropped and not self.stopping.is_set()


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    allow_reuse_address = True

    def __init__(self, port: int, serve: Callable[[Request, socket.socket], bool]) -> None:
        self.serve = serve
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__((HOST, port), _Handler)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        # The handshake belongs into the thread of its connection, not into the accept loop.
        try:
            secure = certificates()[0].wrap_socket(request, server_side=True)
        except OSError:
            self.shutdown_request(request)
            return
        with self._lock:
            self._connections.add(secure)
        super().process_request_thread(secure, client_address)
        with self._lock:
            self._connections.discard(secure)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of the server."""

    def server_bind(self) -> None:
        # Without HTTPServer's look-up of the host's name, which may take seconds.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def close_connections(self) -> None:
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener
    methods: ClassVar = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:
            # The connection was closed in the middle of the request, which is none then.
            self.close_connection = True
            return
        request = Request(self.command, self.path, list(self.headers.items()), body)
        try:
            keep = self.server.serve(request, self.connection)
        except OSError:
            keep = False
        if not keep:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """The server keeps a record instead of a log."""


for _method in _Handler.methods:
    setattr(_Handler, f"do_{_method}", _Handler.answer)
