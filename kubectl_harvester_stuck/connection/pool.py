"""The connection pool of the Kubernetes client.

This is the only module that imports the client, and it takes long to import: import it when it is
needed. The pool is a urllib3 PoolManager; the typed API of the client is not used, for it costs
another second and cannot repeat a header.

`import kubernetes.client.rest` first runs the code of its packages, which import much more. So they
stand in `sys.modules` as packages whose code has not run while the two modules that are used here
are imported. CPU time of an interpreter that does nothing else, the median of 15 runs in turns with
Python 3.11: 140 ms instead of 340 ms with version 37.0.2 of the client, 160 ms instead of 430 ms
with 35.0.0.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import urllib3

from kubectl_harvester_stuck.connection.credentials import Credential
from kubectl_harvester_stuck.connection.kubeconfig import ClientConfig
from kubectl_harvester_stuck.connection.proxy import proxy_for
from kubectl_harvester_stuck.connection.tls import tls_context
from kubectl_harvester_stuck.errors import KubeconfigError

_POOL_SIZE = 32
_PACKAGES = ("kubernetes", "kubernetes.client", "kubernetes.utils")


def import_client() -> tuple[Any, Any]:
    """The client's Configuration and RESTClientObject, without the rest of the client."""
    bare = [name for name in _PACKAGES if name not in sys.modules]
    try:
        for name in bare:
            spec = importlib.util.find_spec(name)
            if spec is None:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            # Knows where its modules are, but its own code has not run.
            sys.modules[name] = importlib.util.module_from_spec(spec)
        configuration = importlib.import_module("kubernetes.client.configuration")
        rest = importlib.import_module("kubernetes.client.rest")
    finally:
        # Whoever imports the client after this gets all of it.
        for name in bare:
            sys.modules.pop(name, None)
    return configuration.Configuration, rest.RESTClientObject


def open_pool(connection: ClientConfig, credential: Credential) -> urllib3.PoolManager:
    """A connection pool with the TLS settings and the proxy of `connection`.

    Nothing is connected yet. Raises KubeconfigError if certificates or proxy cannot be used.
    """
    configuration_class, client_class = import_client()

    configuration = configuration_class()
    configuration.host = connection.server
    configuration.verify_ssl = not connection.cluster.insecure_skip_tls_verify
    configuration.tls_server_name = connection.cluster.tls_server_name or None
    configuration.connection_pool_maxsize = _POOL_SIZE
    configuration.proxy = None
    if not configuration.verify_ssl:
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    manager: urllib3.PoolManager = client_class(configuration).pool_manager
    settings = manager.connection_pool_kw
    # Some versions of the client add public authorities, which would be trusted besides ours.
    for name in ("ca_certs", "ca_cert_dir", "ca_cert_data", "cert_file", "key_file"):
        settings.pop(name, None)
    context = None
    if connection.server.startswith("https://"):
        context = tls_context(connection.cluster, credential)
        settings["ssl_context"] = context
    proxy = proxy_for(connection.server, connection.cluster.proxy_url, os.environ)
    return _with_deadlines(manager if proxy is None else _proxied(proxy, context, settings))


class _InTime:
    """A connection whose timeouts are total: one for connecting, one for the head of an answer.

    urllib3 applies them to each wait alone, so a server or a proxy that sends a byte now and then
    would hold the program forever.
    """

    sock: Any
    timeout: Any
    _wire: socket.socket | None = None
    _is_made = False

    @property
    def has_connected_to_proxy(self) -> bool:
        """Whether the proxy has done its part, also once a failed answer has closed the connection.

        urllib3 forgets it then, and would blame the proxy for what the server did.
        """
        return self._is_made or super().has_connected_to_proxy  # type: ignore[misc]

    def connect(self) -> None:
        """Connect, with a proxy's answer and the TLS handshakes.

        Raises ConnectTimeoutError when it takes longer than the timeout for connecting.
        """
        connect: Callable[[], None] = super().connect  # type: ignore[misc]
        self._is_made = False
        try:
            with _within(self.timeout, self._hang_up_wire):
                connect()
            self._is_made = True
        except TimeoutError as error:
            raise urllib3.exceptions.ConnectTimeoutError(self, "not connected in time") from error
        finally:
            if self._wire is not None:
                self._wire.close()

    def _new_conn(self) -> socket.socket:
        made: socket.socket = super()._new_conn()  # type: ignore[misc]
        # The TLS handshake takes the socket over; this is a second handle to hang up with.
        self._wire = made.dup()
        return made

    def _hang_up_wire(self) -> None:
        if self._wire is not None:
            self._wire.shutdown(socket.SHUT_RDWR)

    def getresponse(self, *arguments: Any, **more: Any) -> Any:
        """Begin the answer. Raises TimeoutError when its head does not come in time."""
        read: Callable[..., Any] = super().getresponse  # type: ignore[misc]
        held = self.sock
        while not isinstance(held, socket.socket | None):
            held = held.socket  # TLS within the TLS of a proxy
        if held is None:
            return read(*arguments, **more)
        answer: Any = None
        try:
            # Not through TLS, which another thread is in the middle of.
            with _within(self.timeout, lambda: socket.socket.shutdown(held, socket.SHUT_RDWR)):
                answer = read(*arguments, **more)
        except TimeoutError:
            if answer is not None:
                answer.close()  # it holds the socket
            raise
        return answer


@contextmanager
def _within(seconds: object, hang_up: Callable[[], None]) -> Iterator[None]:
    """Calls `hang_up`, from another thread, when the block takes longer than `seconds`.

    Raises TimeoutError then, even if the block ends well: half a head may look like a whole one.
    Without a number of seconds there is no limit.
    """
    if not isinstance(seconds, int | float):
        yield
        return
    late = threading.Event()

    def end() -> None:
        late.set()
        with suppress(OSError):
            hang_up()

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    cause: Exception | None = None
    try:
        yield
    except Exception as error:
        if not late.is_set():
            raise
        cause = error
    finally:
        timer.cancel()
    if late.is_set():
        raise TimeoutError("it took too long") from cause


def _with_deadlines(manager: urllib3.PoolManager) -> urllib3.PoolManager:
    """The manager, whose connections are all `_InTime`."""
    classes: Mapping[str, Any] = manager.pool_classes_by_scheme
    manager.pool_classes_by_scheme = {
        scheme: type(
            pool.__name__,
            (pool,),
            {"ConnectionCls": type("Connection", (_InTime, pool.ConnectionCls), {})},
        )
        for scheme, pool in classes.items()
    }
    return manager


def _proxied(
    proxy: str, context: ssl.SSLContext | None, settings: Mapping[str, Any]
) -> urllib3.PoolManager:
    """A pool through `proxy`; made here, for not every version of the client knows all kinds."""
    parts = urlsplit(proxy)
    if parts.scheme in ("socks5", "socks5h"):
        if importlib.util.find_spec("socks") is None:
            raise KubeconfigError("a socks5 proxy needs the Python package PySocks: install it")
        from urllib3.contrib.socks import SOCKSProxyManager

        # socks5h: the proxy resolves the name, as with kubectl.
        return SOCKSProxyManager(f"socks5h{proxy[len(parts.scheme) :]}", **settings)
    userinfo, at, address = parts.netloc.rpartition("@")
    # urllib3 encodes in Latin-1, the proxy expects UTF-8 as from kubectl.
    password = unquote_to_bytes(userinfo).decode("latin-1")
    headers = urllib3.make_headers(proxy_basic_auth=password) if at else None
    return urllib3.ProxyManager(
        f"{parts.scheme}://{address}",
        proxy_headers=headers,
        proxy_ssl_context=context,
        **settings,
    )
