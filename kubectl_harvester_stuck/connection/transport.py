"""HTTP to the API server.

Every answer of the server is a `Response`, whatever its status. Anything less than a whole answer
is an UnreachableError, one line that says what to do next. urllib3 and the Kubernetes client are
imported with the first request, because that takes longer than most commands.
"""

from __future__ import annotations

import json
import math
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode, urlsplit

from kubectl_harvester_stuck import __version__
from kubectl_harvester_stuck.connection.credentials import Credential, Credentials, impersonation
from kubectl_harvester_stuck.connection.kubeconfig import REFUSED, ClientConfig
from kubectl_harvester_stuck.errors import UnreachableError
from kubectl_harvester_stuck.k8s import nesting
from kubectl_harvester_stuck.k8s.redaction import redact_text

if TYPE_CHECKING:
    import urllib3

USER_AGENT = f"kubectl-harvester-stuck/{__version__} ({sys.platform})"

_CONNECT_SECONDS = 10.0
_READ_SECONDS = 60.0
_ANSWER_SECONDS = 60.0
_SLOWEST = 8192.0
"""Bytes in a second: an answer that comes slower, and takes longer than that, is given up."""
_RETRIES = 5
_LONGEST_RETRY_SECONDS = 5.0
_JITTER = 0.5
_CHUNK = 1 << 16
_LONGEST_LINE = 16 << 20
_LARGEST_BODY = 1 << 30
"""Bytes: more than a page of objects that are each as large as the API server takes them."""
_Cause = TypeVar("_Cause", bound=BaseException)
_WARNING = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Response:
    """A whole answer of the server. `headers` ignore case and know `getlist`."""

    status: int
    headers: urllib3.HTTPHeaderDict
    body: bytes
    url: str = ""

    def json(self) -> Any:
        """The decoded body; UnreachableError if it is not JSON.

        Objects in it that are nested too deep are TooDeepObjects.
        """
        try:
            return nesting.parse_answer(self.body)
        except ValueError:
            raise UnreachableError(
                f"the answer of {self.url or 'the server'} (HTTP {self.status}) is not JSON: "
                "check that the server is a Kubernetes API server"
            ) from None

    @property
    def date(self) -> datetime | None:
        """When the server answered by its own clock, in UTC; None if it does not say."""
        try:
            date = parsedate_to_datetime(self.headers.get("Date", ""))
        except (TypeError, ValueError):
            return None
        if date.tzinfo is None:
            date = date.replace(tzinfo=timezone.utc)
        return date.astimezone(timezone.utc)


class Transport:
    """Requests over one connection; safe to use from several threads.

    `timeout` is in seconds, for connecting and for the whole answer; 0 is no limit. Without it
    (None) connecting may take 10 s, each wait for more of the answer 60 s, and the whole answer
    another second for every 8 KiB of it. `on_warning`
    gets every different text of the server's Warning headers once, `on_request` one line for
    each request, without credentials. Nothing is opened before the first request.
    """

    def __init__(
        self,
        connection: ClientConfig,
        *,
        timeout: float | None,
        user_agent: str = USER_AGENT,
        on_warning: Callable[[str], None],
        on_request: Callable[[str], None] | None = None,
    ) -> None:
        self._connection = connection
        self._credentials = Credentials(connection)
        self._timeout = timeout
        self._user_agent = user_agent
        self._on_warning = on_warning
        self._on_request = on_request
        self._lock = threading.Lock()
        self._pool: _Pool | None = None
        self._warned: set[str] = set()
        self._renewed: Credential | None = None

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        body: object | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        timeout: float | None = None,
        retryable: bool = False,
    ) -> Response:
        """The answer to one request, whatever its status; `body` is sent as JSON.

        `timeout`, in seconds, is for this request alone where it is shorter than the usual one.
        `retryable` says of another method than GET that it changes nothing, however often it is
        sent. A GET, and what is retryable, is sent again when the server says when to (Retry-After
        with 429 or 5xx, as client-go does): a few times, each a little later than it says, and
        only within the time limit.

        `path` begins with a slash and is appended to the server's. Redirects are not followed. A
        GET is repeated once if a connection that was kept open turns out to be closed. After a
        401 an exec plugin is asked again, once, and the request is repeated.

        Raises UnreachableError if no whole answer came and KubeconfigError if the credentials or
        certificates cannot be used.
        """
        headers = []
        if not self._connection.cluster.disable_compression:
            headers.append(("Accept-Encoding", "gzip"))
        content = None
        if body is not None:
            headers.append(("Content-Type", content_type))
            content = json.dumps(body, allow_nan=False).encode()
        request = self._prepared(method, path, query, accept, headers, content, timeout)
        left = _RETRIES if retryable or method == "GET" else 0
        limit = self._limit(request)
        deadline = None if limit is None else time.monotonic() + limit
        while True:
            response = self._answered(request)
            wait = _retry_after(response) if left else None
            if wait is None or (deadline is not None and time.monotonic() + wait > deadline):
                break
            left -= 1
            time.sleep(wait)
        self._warn(response)
        return response

    def _answered(self, request: _Request) -> Response:
        """The answer, after another credential where the first one is refused."""
        credential = self._credentials.current()
        response = self._send(request, credential)
        if response.status == 401:
            renewed = self._renew(credential)
            if renewed is not None:
                credential = renewed
                response = self._send(request, renewed)
        self._accepted(credential, response.status)
        return response

    def _limit(self, request: _Request) -> float | None:
        """How many seconds the whole answer may take; None for no limit but that of each wait."""
        limit = self._timeout or None
        if request.timeout is not None:
            limit = min(request.timeout, limit or request.timeout)
        return limit

    def lines(
        self, path: str, *, query: Sequence[tuple[str, str]], accept: str, idle: float
    ) -> Iterator[bytes | Response]:
        """The lines of an answer that goes on, each when it has come; closing it hangs up.

        The first thing is the Response, without a body where lines follow. `idle` seconds without
        a byte are an error. Raises as `request` does, at any line.
        """
        request = self._prepared("GET", path, query, accept, [], None, None)
        for is_last in (False, True):
            credential = self._credentials.current()
            with self._opened(request, credential, idle) as answer:
                if answer.status >= 400:
                    body = answer.read(_CHUNK)
                    renewed = None
                    if answer.status == 401 and not is_last:
                        renewed = self._renew(credential)
                    if renewed is None:
                        self._accepted(credential, answer.status)
                        yield Response(answer.status, answer.headers, body, request.place)
                        return
                    continue
                self._accepted(credential, answer.status)
                yield Response(answer.status, answer.headers, b"", request.place)
                rest = bytearray()
                while chunk := answer.read1(_CHUNK):
                    *whole, tail = (rest + chunk).split(b"\n")
                    yield from map(bytes, whole)
                    rest = bytearray(tail)
                    if len(rest) > _LONGEST_LINE:
                        raise UnreachableError(f"a line of {request.place} does not end")
                return

    @contextmanager
    def _opened(
        self, request: _Request, credential: Credential, idle: float
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """An answer that is read bit by bit. Raises UnreachableError, also while it is read."""
        import urllib3

        manager = self._manager(credential)
        headers = urllib3.HTTPHeaderDict(request.headers)
        if credential.authorization is not None:
            headers.add("Authorization", credential.authorization)
        timeout = urllib3.Timeout(connect=self._timeout or _CONNECT_SECONDS, read=idle)
        if self._on_request is not None:
            self._on_request(f"GET {request.url} goes on")
        try:
            answer = _begin(manager, request, headers, timeout)
            try:
                yield answer
            finally:
                # The connection is in the middle of an answer and of no more use.
                answer.close()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise UnreachableError(self._reason(request, error)) from error

    def _prepared(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]],
        accept: str,
        headers: list[tuple[str, str]],
        content: bytes | None,
        timeout: float | None,
    ) -> _Request:
        url = self._connection.server + path + (f"?{urlencode(query)}" if query else "")
        own = [("Accept", accept), ("User-Agent", self._user_agent), *headers]
        return _Request(
            method, url, [*own, *impersonation(self._connection.user)], content, timeout
        )

    def _renew(self, refused: Credential) -> Credential | None:
        """Another credential, unless the refused one came of asking again and was never taken."""
        if refused is self._renewed:
            return None
        self._renewed = self._credentials.renewed(refused)
        return self._renewed

    def _accepted(self, credential: Credential, status: int) -> None:
        """A credential that the server took can expire later; then a plugin may be asked again."""
        if status != 401 and credential is self._renewed:
            self._renewed = None

    def _send(self, request: _Request, credential: Credential) -> Response:
        manager = self._manager(credential)
        started = time.monotonic()
        outcome = "no answer"
        try:
            response, reason = self._exchange(manager, request, credential)
            outcome = f"{response.status} {reason}".strip()
        finally:
            if self._on_request is not None:
                took = round((time.monotonic() - started) * 1000)
                self._on_request(f"{request.method} {request.url} {outcome} in {took} ms")
        if 300 <= response.status < 400:
            target = urlsplit(response.headers.get("Location", "")).netloc or "another page"
            raise UnreachableError(
                f"the server {_host(request.url)} redirected to {target} (HTTP {response.status}), "
                "which an API server does not: check the server URL"
            )
        return response

    def _exchange(
        self, manager: urllib3.PoolManager, request: _Request, credential: Credential
    ) -> tuple[Response, str]:
        """The response and its reason phrase."""
        import urllib3

        limit = self._limit(request)
        begun = time.monotonic()
        timeout = urllib3.Timeout(
            connect=limit or _CONNECT_SECONDS,
            read=_READ_SECONDS if self._timeout is None and limit is None else limit,
        )
        headers = urllib3.HTTPHeaderDict(request.headers)
        if credential.authorization is not None:
            headers.add("Authorization", credential.authorization)
        try:
            answer = _begin(manager, request, headers, timeout)
            body = bytearray()
            try:
                while chunk := answer.read1(_CHUNK):
                    body += chunk
                    if time.monotonic() - begun > self._patience(limit, len(body)):
                        raise urllib3.exceptions.TimeoutError
                    if len(body) > _LARGEST_BODY:
                        raise urllib3.exceptions.ResponseError("it is too large")
            except BaseException:
                answer.close()
                raise
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise UnreachableError(self._reason(request, error)) from error
        found = Response(answer.status, answer.headers, bytes(body), request.place)
        return found, answer.reason or ""

    def _patience(self, limit: float | None, size: int) -> float:
        """How many seconds an answer may take that has brought `size` bytes so far."""
        if limit is not None:
            return limit
        return math.inf if self._timeout == 0 else _ANSWER_SECONDS + size / _SLOWEST

    def _manager(self, credential: Credential) -> urllib3.PoolManager:
        """The pool for the client certificate of `credential`, made when it is first needed."""
        with self._lock:
            pair = (credential.certificate, credential.key)
            if self._pool is None or self._pool.pair != pair:
                from kubectl_harvester_stuck.connection.pool import open_pool

                self._pool = _Pool(open_pool(self._connection, credential), pair)
            return self._pool.manager

    def _warn(self, response: Response) -> None:
        for header in response.headers.getlist("Warning"):
            for text in _WARNING.findall(header):
                unquoted = redact_text(re.sub(r"\\(.)", r"\1", text))
                shown = "".join(one if one.isprintable() else " " for one in unquoted)
                with self._lock:
                    is_new = shown not in self._warned
                    self._warned.add(shown)
                if is_new and shown:
                    self._on_warning(shown)

    def _reason(self, request: _Request, error: Exception) -> str:
        """One line: what went wrong and what to do next."""
        import http.client
        import ssl

        import urllib3

        host = _host(request.url)
        causes = list(_causes(error))
        why = _short(causes[-1])
        cluster = f'cluster "{self._connection.cluster_name}"'
        unknown = ""
        if request.method != "GET":
            unknown = f"; it is not known whether the {request.method} was carried out"

        def caused_by(kind: type[_Cause]) -> _Cause | None:
            return next((cause for cause in causes if isinstance(cause, kind)), None)

        unable = f"Unable to connect to the server {host}"
        # The package for socks5 is imported only where there is such a proxy; urllib3 does not tell
        # its errors from those of the server.
        of_proxy = getattr(sys.modules.get("socks"), "ProxyError", urllib3.exceptions.ProxyError)
        if caused_by(urllib3.exceptions.ProxyError) or caused_by(of_proxy):
            return f"{unable}: the proxy failed ({why}): check proxy-url and HTTPS_PROXY"
        if caused_by(ConnectionRefusedError):
            return f"{REFUSED.format(host)} Check the server of {cluster}, or use --server."
        if caused_by(urllib3.exceptions.NameResolutionError):
            return f"{unable}: no such host: check the server of {cluster}, or use --server"
        untrusted = caused_by(ssl.SSLCertVerificationError)
        if untrusted is not None:
            return (
                f"{unable}: tls: failed to verify certificate: {untrusted.verify_message}: check "
                f"certificate-authority and tls-server-name of {cluster}"
            )
        if caused_by(urllib3.exceptions.NewConnectionError):
            return f"{unable}: {why}: check the network"
        if caused_by(urllib3.exceptions.ConnectTimeoutError):
            return f"{unable}: not reached in time: check the network, or use --request-timeout"
        if caused_by(urllib3.exceptions.TimeoutError):
            return f"no whole answer from {host} in time: see --request-timeout{unknown}"
        if caused_by(http.client.IncompleteRead):
            why = "it broke off"
        if caused_by(ssl.SSLError):
            return f"{unable}: tls: {why}: check the client certificate{unknown}"
        return f"no whole answer from {host}: {why}: try again{unknown}"


@dataclass(frozen=True)
class _Request:
    method: str
    url: str
    headers: list[tuple[str, str]]
    body: bytes | None
    timeout: float | None = None

    @property
    def place(self) -> str:
        """The URL without its query."""
        return self.url.partition("?")[0]


@dataclass(frozen=True)
class _Pool:
    manager: urllib3.PoolManager
    pair: tuple[Path | bytes | None, Path | bytes | None] = field(repr=False)


def _begin(
    manager: urllib3.PoolManager,
    request: _Request,
    headers: urllib3.HTTPHeaderDict,
    timeout: urllib3.Timeout,
) -> urllib3.BaseHTTPResponse:
    """The answer without its body; a GET gets a second chance when the connection was closed."""
    import ssl

    import urllib3

    for is_last in (request.method != "GET", True):
        try:
            return manager.request(
                request.method,
                request.url,
                body=request.body,
                headers=headers,
                timeout=timeout,
                retries=False,
                redirect=False,
                preload_content=False,
            )
        except (urllib3.exceptions.ProtocolError, urllib3.exceptions.SSLError) as error:
            closed = (ConnectionError, ssl.SSLEOFError)
            if is_last or not any(isinstance(cause, closed) for cause in _causes(error)):
                raise
    raise AssertionError("the last attempt returns or raises")


def _retry_after(response: Response) -> float | None:
    """In how many seconds to ask again, if the server asks for that and it is soon."""
    import random

    if response.status != 429 and response.status < 500:
        return None
    said = response.headers.get("Retry-After", "")
    if not said.isdecimal() or float(said) > _LONGEST_RETRY_SECONDS:
        return None
    # Clients that were sent away together should not come back together.
    return float(said) * (1 + _JITTER * random.random())  # noqa: S311 - no secret


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


def _host(url: str) -> str:
    return urlsplit(url).netloc
