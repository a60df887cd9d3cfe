"""HTTP to the API server.

Every answer of the server is a `Response`, whatever its status. Anything less than a whole answer
is an UnreachableError, one line that says what to do next. `_Retries` says when a request is sent
again, `Credentials.flow` with which credentials. urllib3 and the Kubernetes client are imported
with the first request, because that takes longer than most commands.
"""

from __future__ import annotations

import json
import math
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from kubectl_harvester_stuck import __version__
from kubectl_harvester_stuck.connection import failures
from kubectl_harvester_stuck.connection.credentials import Credential, Credentials, impersonation
from kubectl_harvester_stuck.connection.kubeconfig import ClientConfig
from kubectl_harvester_stuck.connection.messages import Request, Response
from kubectl_harvester_stuck.errors import CutShortError, UnreachableError
from kubectl_harvester_stuck.k8s.redaction import redact_text
from kubectl_harvester_stuck.k8s.source import PARALLEL_REQUESTS

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
_WARNING = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')


class Transport:
    """Requests over one connection; safe to use from several threads.

    `timeout` is in seconds, for connecting and for the whole answer; 0 is no limit. Without it
    (None) connecting may take 10 s, each wait for more of the answer 60 s, and the whole answer
    another second for every 8 KiB of it. Connecting, which may always take 10 s at most, is all
    that goes before the request: a proxy's answer and the TLS handshake. `on_warning`
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
        self._turns = threading.BoundedSemaphore(PARALLEL_REQUESTS)
        self._pool: _Pool | None = None
        self._warned: set[str] = set()

    def request(self, request: Request) -> Response:
        """The answer to one request, whatever its status. Redirects are not followed.

        `PARALLEL_REQUESTS` are in flight at most, apart from streams, and the others wait for
        their turn. It may be sent
        more than once, as `_Retries` and `Credentials.flow` say. Raises UnreachableError if no
        whole answer came and KubeconfigError if the credentials or
        certificates cannot be used.
        """
        response = self._send(self._prepared(request)).response
        self._warn(response)
        return response

    def lines(self, request: Request, *, idle: float) -> Iterator[bytes | Response]:
        """The lines of an answer that goes on, each when it has come; closing it hangs up.

        The first thing is the Response, without a body where lines follow. `idle` seconds without
        a byte are an error. Raises as `request` does, at any line.
        """
        prepared = self._prepared(request, idle)
        reply = self._send(prepared)
        rest = reply.rest
        try:
            yield reply.response
            if rest is not None:
                yield from self._lines(prepared, rest)
        finally:
            if rest is not None:
                # The connection is in the middle of an answer and of no more use.
                rest.close()

    @contextmanager
    def streamed(self, request: Request) -> Iterator[tuple[Response, Iterator[bytes]]]:
        """The answer to one request, and the parts of its body, each when it has come.

        The Response has the body itself where it is an error, and no parts then. Parts that are not
        read to their end hang up. The time limits are those of `request`, without the time between
        two parts that the caller takes; how large the body may be is up to the caller. Raises as
        `request` does, also at a part: CutShortError where the connection ended before the answer.
        """
        prepared = self._prepared(request, streamed=True)
        reply = self._send(prepared)
        self._warn(reply.response)
        if reply.rest is None:
            yield reply.response, iter(())
            return
        outcome = "no whole answer"

        def parts(rest: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
            nonlocal outcome
            size, begun = 0, reply.begun
            while chunk := self._chunk(prepared, rest):
                size += len(chunk)
                self._check_time(prepared, begun, size)
                left = time.monotonic()
                yield chunk
                begun += time.monotonic() - left
            outcome = reply.outcome

        try:
            yield reply.response, parts(reply.rest)
        finally:
            self._log_end(prepared, outcome, reply.begun)
            if outcome != reply.outcome:
                reply.rest.close()  # in the middle of an answer, of no more use

    def _lines(self, request: _Prepared, answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        line = bytearray()
        while chunk := self._chunk(request, answer):
            *whole, tail = (line + chunk).split(b"\n")
            yield from map(bytes, whole)
            line = bytearray(tail)
            if len(line) > _LONGEST_LINE:
                raise UnreachableError(f"a line of {request.place} does not end")

    def _prepared(
        self, request: Request, idle: float | None = None, *, streamed: bool = False
    ) -> _Prepared:
        connection = self._connection
        query = f"?{urlencode(request.query)}" if request.query else ""
        headers = [("Accept", request.accept), ("User-Agent", self._user_agent)]
        if idle is None and not connection.cluster.disable_compression:
            headers.append(("Accept-Encoding", "gzip"))
        body = None
        if request.body is not None:
            headers.append(("Content-Type", request.content_type))
            body = json.dumps(request.body, allow_nan=False).encode()
        return _Prepared(
            request,
            connection.server + request.path + query,
            [*headers, *impersonation(connection.user)],
            body,
            limit=self._limit(request),
            idle=idle,
            streamed=streamed or idle is not None,
        )

    def _limit(self, request: Request) -> float | None:
        """How many seconds the whole answer may take; None for no limit but that of each wait."""
        limit = self._timeout or None
        if request.timeout is not None:
            limit = min(request.timeout, limit or request.timeout)
        return limit

    def _send(self, request: _Prepared) -> _Reply:
        """The answer that counts, after all retries. Raises UnreachableError."""
        retries = _Retries(request)
        while True:
            try:
                with nullcontext() if request.streamed else self._turns:
                    reply = self._authenticated(request)
            except _NoAnswerError as fault:
                if retries.reconnects_after(fault.error):
                    continue
                raise self._unreachable(request, fault.error) from fault.error
            wait = retries.wait_after(reply.response)
            if wait is None:
                _refuse_redirect(request, reply.response)
                return reply
            time.sleep(wait)

    def _authenticated(self, request: _Prepared) -> _Reply:
        """The answer, after another credential where the first one is refused."""
        flow = self._credentials.flow()
        credential = next(flow)
        while True:
            reply = self._exchange(request, credential)
            try:
                credential = flow.send(reply.response.status)
            except StopIteration:
                return reply

    def _exchange(self, request: _Prepared, credential: Credential) -> _Reply:
        """One request and its answer, which is told to `on_request`.

        Raises _NoAnswerError where not even its head came, UnreachableError where the rest did not.
        """
        if request.idle is not None:
            self._log(request, "goes on")
        begun = time.monotonic()
        outcome = "no answer"
        rest: urllib3.BaseHTTPResponse | None = None
        try:
            answer = self._begin(request, credential)
            if request.streamed and answer.status < 300:
                rest, body = answer, b""
            else:
                body = self._body(request, answer, begun)
            outcome = f"{answer.status} {answer.reason or ''}".strip()
            response = Response(answer.status, answer.headers, body, request.place)
            return _Reply(response, begun, outcome, rest)
        finally:
            if rest is None and request.idle is None:
                self._log_end(request, outcome, begun)

    def _begin(self, request: _Prepared, credential: Credential) -> urllib3.BaseHTTPResponse:
        """The answer without its body. Raises _NoAnswerError."""
        import urllib3

        manager = self._manager(credential)
        headers = urllib3.HTTPHeaderDict(request.headers)
        if credential.authorization is not None:
            headers.add("Authorization", credential.authorization)
        read = request.idle or request.limit
        if read is None and self._timeout is None:
            read = _READ_SECONDS
        # A stream may take as long as it likes, but not for its connection.
        connect = (self._timeout if request.idle else request.limit) or _CONNECT_SECONDS
        try:
            return manager.request(
                request.method,
                request.url,
                body=request.body,
                headers=headers,
                timeout=urllib3.Timeout(connect=connect, read=read),
                retries=False,
                redirect=False,
                preload_content=False,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _NoAnswerError(error) from error

    def _body(self, request: _Prepared, answer: urllib3.BaseHTTPResponse, begun: float) -> bytes:
        """The whole body of an answer to a request that was `begun` then."""
        import urllib3

        body = bytearray()
        try:
            while chunk := self._chunk(request, answer):
                body += chunk
                self._check_time(request, begun, len(body))
                if len(body) > _LARGEST_BODY:
                    too_large = urllib3.exceptions.ResponseError("it is too large")
                    raise self._unreachable(request, too_large)
        except BaseException:
            answer.close()
            raise
        return bytes(body)

    def _chunk(self, request: _Prepared, answer: urllib3.BaseHTTPResponse) -> bytes:
        """What has come of a body, empty at its end. Raises UnreachableError."""
        import urllib3

        try:
            return answer.read1(_CHUNK)
        except urllib3.exceptions.ProtocolError as error:
            raise CutShortError(str(self._unreachable(request, error))) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._unreachable(request, error) from error

    def _check_time(self, request: _Prepared, begun: float, size: int) -> None:
        """Raises UnreachableError if the answer takes too long for the bytes that have come."""
        import urllib3

        if time.monotonic() - begun > self._patience(request.limit, size):
            raise self._unreachable(request, urllib3.exceptions.TimeoutError())

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

    def _log_end(self, request: _Prepared, outcome: str, begun: float) -> None:
        took = round((time.monotonic() - begun) * 1000)
        self._log(request, f"{outcome} in {took} ms")

    def _log(self, request: _Prepared, outcome: str) -> None:
        if self._on_request is not None:
            self._on_request(f"{request.method} {request.url} {outcome}")

    def _unreachable(self, request: _Prepared, error: Exception) -> UnreachableError:
        name = self._connection.cluster_name
        return UnreachableError(failures.describe(error, request.method, request.url, name))

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


class _Retries:
    """When a request is sent again.

    A change is never sent again: only a GET is, and what is `retryable`, for it changes nothing.

    - The server says when to come back (Retry-After with 429 or 5xx, as client-go follows it): a
      few times, each a little later than it says, unless that is too late for the time limit. Not
      a stream, whose reader begins anew by itself.
    - A GET met a connection that was closed before an answer began, such as one that was kept
      open: at once, but not twice in a row.

    A 401 is not among these: see `Credentials.flow`.
    """

    def __init__(self, request: _Prepared) -> None:
        is_get = request.method == "GET"
        comes_back = (is_get or request.request.retryable) and request.idle is None
        self._left = _RETRIES if comes_back else 0
        self._is_get = self._may_reconnect = is_get
        self._deadline = math.inf if request.limit is None else time.monotonic() + request.limit

    def wait_after(self, response: Response) -> float | None:
        """In how many seconds to send the request again after this answer; None if it counts."""
        self._may_reconnect = self._is_get
        wait = _retry_after(response)
        if not self._left or wait is None or time.monotonic() + wait > self._deadline:
            return None
        self._left -= 1
        return wait

    def reconnects_after(self, error: Exception) -> bool:
        """Whether to send the request again although no answer to it began."""
        if not self._may_reconnect or not failures.was_closed(error):
            return False
        self._may_reconnect = False
        return True


class _NoAnswerError(Exception):
    """Not even the head of an answer came, because of `error`."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


@dataclass(frozen=True)
class _Prepared:
    """A request as it is sent, but for the credentials.

    The whole answer may take `limit` seconds (None: any time as long as more of it comes). One
    that goes on has no end; `idle` is how many seconds it may be silent. `streamed` says that the
    body is read in parts.
    """

    request: Request
    url: str
    headers: list[tuple[str, str]]
    body: bytes | None
    limit: float | None
    idle: float | None
    streamed: bool

    @property
    def method(self) -> str:
        return self.request.method

    @property
    def place(self) -> str:
        """The URL without its query."""
        return self.url.partition("?")[0]


@dataclass(frozen=True)
class _Reply:
    """An answer; `rest` is the body of one that is streamed, still to be read.

    The request was sent at `begun`, by the monotonic clock; `outcome` is its status as text.
    """

    response: Response
    begun: float
    outcome: str
    rest: urllib3.BaseHTTPResponse | None = None


@dataclass(frozen=True)
class _Pool:
    manager: urllib3.PoolManager
    pair: tuple[Path | bytes | None, Path | bytes | None] = field(repr=False)


def _refuse_redirect(request: _Prepared, response: Response) -> None:
    if 300 <= response.status < 400:
        target = urlsplit(response.headers.get("Location", "")).netloc or "another page"
        raise UnreachableError(
            f"the server {urlsplit(request.url).netloc} redirected to {target} "
            f"(HTTP {response.status}), which an API server does not: check the server URL"
        )


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
