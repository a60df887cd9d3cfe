"""The connection pool of the Kubernetes client.

This is the only module that imports the client, and it takes long to import: import it when it is
needed. The pool is a urllib3 PoolManager; the typed API of the client is not used, for it costs
another second and cannot repeat a header.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import socket
import ssl
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
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


class _BarePackages(MetaPathFinder):
    """Finds the packages of the client as bare directories, without what they import.

    Each of them imports all that lies below it, or much of it: that takes ten times as long as
    the two modules that are used here.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _PACKAGES:
            return None
        for finder in sys.meta_path:
            found = None if finder is self else finder.find_spec(fullname, path, target)
            if found is not None:
                bare = ModuleSpec(fullname, None, is_package=True)
                bare.submodule_search_locations = found.submodule_search_locations
                return bare
        return None


def import_client() -> tuple[Any, Any]:
    """The client's Configuration and RESTClientObject, for a fraction of the import's time."""
    whole = {name: sys.modules[name] for name in _PACKAGES if name in sys.modules}
    finder = _BarePackages()
    sys.meta_path.insert(0, finder)
    try:
        configuration = importlib.import_module("kubernetes.client.configuration")
        rest = importlib.import_module("kubernetes.client.rest")
    finally:
        sys.meta_path.remove(finder)
        # Whoever imports the client after this gets all of it.
        for name in _PACKAGES:
            if name not in whole:
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


class _HeadInTime:
    """A connection whose read timeout is for all of the head of an answer.

    Otherwise it is for each byte of it, and a server that drips them is waited for for ever.
    """

    sock: Any
    timeout: Any

    def getresponse(self, *arguments: Any, **more: Any) -> Any:
        """Begin the answer. Raises TimeoutError when its head does not come in time."""
        read: Any = super().getresponse  # type: ignore[misc]
        held = self.sock
        seconds = self.timeout
        if held is None or not isinstance(seconds, int | float):
            return read(*arguments, **more)
        late = threading.Event()

        def hang_up() -> None:
            late.set()
            with suppress(OSError):
                # Not through TLS, which another thread is in the middle of.
                socket.socket.shutdown(held, socket.SHUT_RDWR)

        timer = threading.Timer(seconds, hang_up)
        timer.daemon = True
        timer.start()
        cause: Exception | None = None
        answer: Any = None
        try:
            answer = read(*arguments, **more)
        except Exception as error:
            cause = error
            if not late.is_set():
                raise
        finally:
            timer.cancel()
        # Half a head may look like a whole one.
        if late.is_set():
            if answer is not None:
                answer.close()  # it holds the socket
            raise TimeoutError("the head of the answer did not come in time") from cause
        return answer


def _with_deadlines(manager: urllib3.PoolManager) -> urllib3.PoolManager:
    """The manager, whose connections are all `_HeadInTime`."""
    classes: Mapping[str, Any] = manager.pool_classes_by_scheme
    manager.pool_classes_by_scheme = {
        scheme: type(
            pool.__name__,
            (pool,),
            {"ConnectionCls": type("Connection", (_HeadInTime, pool.ConnectionCls), {})},
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
