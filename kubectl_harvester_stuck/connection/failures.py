"""Why no whole answer came, and what to do next, in one line."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from kubectl_harvester_stuck.connection.kubeconfig import REFUSED


def describe(error: Exception, method: str, url: str, cluster_name: str) -> str:
    """One line for what went wrong with a request to `url`.

    Of a change it says where it is not known whether it was carried out.
    """
    import http.client
    import ssl

    import urllib3

    host = urlsplit(url).netloc
    found = list(_causes(error))
    why = _short(found[-1])
    cluster = f'cluster "{cluster_name}"'
    unable = f"Unable to connect to the server {host}"
    unknown = ""
    if method != "GET":
        unknown = f"; it is not known whether the {method} was carried out"
    untrusted = ssl.SSLCertVerificationError
    distrust = next((one.verify_message for one in found if isinstance(one, untrusted)), "")
    # The package for socks5 is imported only where there is such a proxy; urllib3 does not tell
    # its errors from those of the server.
    of_proxy = getattr(sys.modules.get("socks"), "ProxyError", urllib3.exceptions.ProxyError)
    lines: tuple[tuple[Any, str], ...] = (
        (
            (urllib3.exceptions.ProxyError, of_proxy),
            f"{unable}: the proxy failed ({why}): check proxy-url and HTTPS_PROXY",
        ),
        (
            ConnectionRefusedError,
            f"{REFUSED.format(host)} Check the server of {cluster}, or use --server.",
        ),
        (
            urllib3.exceptions.NameResolutionError,
            f"{unable}: no such host: check the server of {cluster}, or use --server",
        ),
        (
            untrusted,
            f"{unable}: tls: failed to verify certificate: {distrust}: check "
            f"certificate-authority and tls-server-name of {cluster}",
        ),
        (urllib3.exceptions.NewConnectionError, f"{unable}: {why}: check the network"),
        (
            urllib3.exceptions.ConnectTimeoutError,
            f"{unable}: not reached in time: check the network, or use --request-timeout",
        ),
        (
            urllib3.exceptions.TimeoutError,
            f"no whole answer from {host} in time: see --request-timeout{unknown}",
        ),
        (
            http.client.IncompleteRead,
            f"no whole answer from {host}: it broke off: try again{unknown}",
        ),
        (ssl.SSLError, f"{unable}: tls: {why}: check the client certificate{unknown}"),
        (BaseException, f"no whole answer from {host}: {why}: try again{unknown}"),
    )
    return next(line for kind, line in lines if any(isinstance(one, kind) for one in found))


def was_closed(error: Exception) -> bool:
    """Whether the server had closed the connection before it began to answer."""
    import ssl

    import urllib3

    closed = (ConnectionError, ssl.SSLEOFError)
    return isinstance(
        error, urllib3.exceptions.ProtocolError | urllib3.exceptions.SSLError
    ) and any(isinstance(cause, closed) for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and what led to it, the first cause last."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _short(cause: BaseException) -> str:
    """The words of `cause` in one line, without the marks that OpenSSL adds."""
    text = (isinstance(cause, OSError) and cause.strerror) or str(cause) or type(cause).__name__
    return " ".join(re.sub(r"^\[SSL[^]]*\] |\(_ssl\.c:\d+\)", "", text).split())
