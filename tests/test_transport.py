"""What is sent to the API server, and what becomes of every kind of answer."""

from __future__ import annotations

import contextlib
import errno
import gzip
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

import pytest

from kubectl_harvester_stuck.connection.messages import Request
from kubectl_harvester_stuck.errors import CutShortError, UnreachableError
from tests.support.loopback import Handler, Server, failure, running, transport


@pytest.fixture
def http() -> Iterator[Server]:
    with running() as server:
        yield server


def raw(content: bytes) -> Callable[[Handler], None]:
    """Answers with exactly these bytes and closes the connection."""

    def respond(handler: Handler) -> None:
        handler.wfile.write(content)
        handler.close_connection = True

    return respond


def test_a_request_is_sent_as_asked(http: Server) -> None:
    http.respond = lambda handler: handler.answer(409, {"kind": "Status"}, ("X-A", "b"))
    response = transport(f"{http.url}/k8s/clusters/c-m-x").request(
        Request(
            "PATCH",
            "/apis/a",
            query=[("labelSelector", "a=b,c!=d"), ("limit", "500"), ("limit", "1")],
            body={"ä": None},
            content_type="application/merge-patch+json",
            accept="application/json;as=Table",
        )
    )
    assert (response.status, response.json()) == (409, {"kind": "Status"})
    assert (response.headers["x-a"], response.headers.getlist("X-a")) == ("b", ["b"])
    (seen,) = http.seen
    assert seen.method == "PATCH"
    assert seen.path == (
        "/k8s/clusters/c-m-x/apis/a?labelSelector=a%3Db%2Cc%21%3Dd&limit=500&limit=1"
    )
    assert json.loads(seen.body) == {"ä": None}
    assert seen.header("Content-Type") == ["application/merge-patch+json"]
    assert seen.header("Accept") == ["application/json;as=Table"]
    assert seen.header("User-Agent") == ["tests/1"]


def test_without_a_body_none_is_sent(http: Server) -> None:
    transport(http.url).request(Request("DELETE", "/x"))
    (seen,) = http.seen
    assert (seen.body, seen.header("Content-Type")) == (b"", [])


def test_groups_are_received_separately_and_no_token_over_http(http: Server) -> None:
    user = {
        "token": "s3cret",
        "as": "boss",
        "as-groups": ["a", "b", "c,d"],
        "as-user-extra": {"scopes": ["x", "y"]},
    }
    transport(http.url, user).request(Request("GET", "/x"))
    (seen,) = http.seen
    assert seen.header("Authorization") == []
    assert seen.header("Impersonate-User") == ["boss"]
    assert seen.header("Impersonate-Group") == ["a", "b", "c,d"]
    assert seen.header("Impersonate-Extra-scopes") == ["x", "y"]


def test_answers_are_compressed_unless_disabled(http: Server) -> None:
    content = gzip.compress(b'{"a": 1}')
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(content)
    http.respond = raw(head + content)
    assert transport(http.url).request(Request("GET", "/x")).json() == {"a": 1}
    transport(http.url, disable_compression=True).request(Request("GET", "/x"))
    assert [seen.header("Accept-Encoding") for seen in http.seen] == [["gzip"], ["identity"]]


def test_an_answer_that_does_not_end_is_unreachable(
    http: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubectl_harvester_stuck.connection.transport._LARGEST_BODY", 1 << 20)

    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        with contextlib.suppress(OSError):
            while True:
                handler.wfile.write(b" " * 4096)

    http.respond = endless
    made = transport(http.url, timeout=20)
    started = time.monotonic()
    assert failure(made).endswith(": it is too large: try again")
    assert "not known whether the PATCH was carried out" in failure(made, "PATCH")
    assert time.monotonic() - started < 15


def test_the_date_is_in_utc(http: Server) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n%s\r\n"
    at = datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    for line, date in (
        (b"Date: Tue, 02 Jan 2024 03:04:05 GMT\r\n", at),
        (b"Date: Tue, 02 Jan 2024 03:04:05\r\n", at),
        (b"Date: soon\r\n", None),
        (b"", None),
    ):
        http.respond = raw(head % line)
        assert transport(http.url).request(Request("GET", "/x")).date == date


def test_a_body_that_is_not_json_is_unreachable(http: Server) -> None:
    for body in (b"<html>", b"", b"\xff", b"[" * 100_000):
        http.respond = raw(b"HTTP/1.1 502 X\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        response = transport(http.url).request(Request("GET", "/x", query=[("a", "b")]))
        with pytest.raises(UnreachableError, match=rf"^the answer of {http.url}/x \(HTTP 502\)"):
            response.json()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_refused(http: Server, status: int) -> None:
    http.respond = lambda handler: handler.answer(
        status, {}, ("Location", f"{http.url}/other?token=s3cret")
    )
    said = failure(transport(http.url))
    assert f"redirected to 127.0.0.1:{http.server_port} (HTTP {status})" in said
    assert len(http.seen) == 1
    with pytest.raises(UnreachableError, match="redirected to"):
        list(transport(http.url).lines(Request("GET", "/x"), idle=5))


@pytest.mark.parametrize(
    "content",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        b"not HTTP at all\r\n\r\n",
    ],
)
@pytest.mark.parametrize("method", ["GET", "PATCH"])
def test_less_than_a_whole_answer_is_unreachable(http: Server, content: bytes, method: str) -> None:
    http.respond = raw(content)
    said = failure(transport(http.url), method)
    assert said.startswith(f"no whole answer from 127.0.0.1:{http.server_port}: ")
    assert ("it is not known whether the PATCH was carried out" in said) == (method == "PATCH")
    assert len(http.seen) == 1


def stall(head: bytes, pause: threading.Event, piece: bytes = b"") -> Callable[[Handler], None]:
    """Answers with `head`, then with `piece` every 50 ms until `pause` is set."""

    def respond(handler: Handler) -> None:
        handler.wfile.write(head)
        while not pause.wait(0.05):
            handler.wfile.write(piece)
        handler.close_connection = True

    return respond


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", b" "),
    ],
    ids=["no answer", "no more of the body", "the body a byte at a time"],
)
def test_a_stalled_answer_ends_in_time(http: Server, head: bytes, piece: bytes) -> None:
    done = threading.Event()
    http.respond = stall(head, done, piece)
    started = time.monotonic()
    said = failure(transport(http.url, timeout=0.3))
    assert time.monotonic() - started < 2
    assert said.startswith(f"no whole answer from 127.0.0.1:{http.server_port} in time")
    done.set()


@pytest.mark.parametrize(
    "head",
    [b"", b"HTTP/1.1 200 OK\r\nX-A: ", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"],
    ids=["status line", "header", "body"],
)
def test_a_server_that_drips_is_given_up_without_a_time_limit_too(
    http: Server, monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    for name in ("_READ_SECONDS", "_ANSWER_SECONDS"):
        monkeypatch.setattr(f"kubectl_harvester_stuck.connection.transport.{name}", 0.3)
    done = threading.Event()
    http.respond = stall(head, done, b"x")
    started = time.monotonic()
    for method in ("GET", "PATCH"):
        said = failure(transport(http.url, timeout=None), method)
        assert said.startswith(f"no whole answer from 127.0.0.1:{http.server_port} in time")
    assert time.monotonic() - started < 8  # connecting may take longer
    done.set()


def test_a_head_that_drips_ends_within_the_time_limit(http: Server) -> None:
    done = threading.Event()
    http.respond = stall(b"HTTP/1.1 200 OK\r\nX-A: ", done, b"x")
    started = time.monotonic()
    said = failure(transport(http.url, timeout=0.3))
    assert time.monotonic() - started < 2
    assert said.startswith(f"no whole answer from 127.0.0.1:{http.server_port} in time")
    done.set()


def test_a_slow_answer_that_comes_is_waited_for(
    http: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubectl_harvester_stuck.connection.transport._ANSWER_SECONDS", 0.05)
    piece = b" " * 4096

    def slow(handler: Handler) -> None:
        size = 5 * len(piece) + 2
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(5):
            handler.wfile.write(piece)
            time.sleep(0.1)
        handler.wfile.write(b"{}")

    http.respond = slow
    assert transport(http.url, timeout=None).request(Request("GET", "/x")).json() == {}


@pytest.mark.parametrize(("timeout", "connect", "read"), [(None, 10, 60), (0, 10, None), (7, 7, 7)])
def test_the_time_limits(
    http: Server,
    monkeypatch: pytest.MonkeyPatch,
    timeout: float | None,
    connect: float,
    read: float | None,
) -> None:
    """0 is no limit, as in --request-timeout; without one there is a default."""
    import urllib3

    given: list[Any] = []
    plain = urllib3.PoolManager.request

    def recording(self: urllib3.PoolManager, *args: Any, **more: Any) -> Any:
        given.append(more["timeout"])
        return plain(self, *args, **more)

    monkeypatch.setattr(urllib3.PoolManager, "request", recording)
    transport(http.url, timeout=timeout).request(Request("GET", "/x"))
    assert (given[0].connect_timeout, given[0].read_timeout) == (connect, read)


def reset(handler: Handler) -> None:
    """Closes the connection the hard way, without a byte of an answer."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    handler.connection.close()


def close(handler: Handler) -> None:
    handler.close_connection = True


@pytest.mark.parametrize("break_off", [reset, close])
def test_a_get_is_repeated_once_when_the_connection_was_closed(
    http: Server, break_off: Callable[[Handler], None]
) -> None:
    answers = [break_off, Handler.answer, break_off, break_off, Handler.answer, break_off]

    def respond(handler: Handler) -> None:
        answers[len(http.seen) - 1](handler)

    http.respond = respond
    made = transport(http.url)
    assert made.request(Request("GET", "/x")).status == 200
    assert failure(made).startswith("no whole answer from")
    assert len(http.seen) == 4
    assert made.request(Request("GET", "/x")).status == 200
    assert "not known whether the PATCH" in failure(made, "PATCH")
    assert len(http.seen) == 6


def test_only_a_get_is_repeated_when_the_connection_was_closed(http: Server) -> None:
    """What is `retryable` is asked for again only by a server that has answered."""
    http.respond = close
    said = failure(transport(http.url), Request("POST", "/x", body={}, retryable=True))
    assert "not known whether the POST" in said
    assert len(http.seen) == 1


def test_a_connection_is_kept_for_the_next_request(http: Server) -> None:
    clients = set()
    answers: list[tuple[int, list[tuple[str, str]]]]
    answers = [(429, [("Retry-After", "0")]), (200, []), (404, []), (200, [])]

    def respond(handler: Handler) -> None:
        clients.add(handler.client_address)
        status, headers = answers.pop(0)
        handler.answer(status, {"a": "b" * 100_000}, *headers)

    http.respond = respond
    made = transport(http.url)
    assert [made.request(Request("GET", "/x")).status for _ in range(3)] == [200, 404, 200]
    assert len(clients) == 1


def come_back(code: int, after: str, times: int) -> Callable[[Handler], None]:
    """Sends the client away so often, then answers."""
    left = [times]

    def respond(handler: Handler) -> None:
        if left[0]:
            left[0] -= 1
            handler.answer(code, {}, ("Retry-After", after))
        else:
            handler.answer(200, {"here": True})

    return respond


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited; nobody really waits."""
    found: list[float] = []
    monkeypatch.setattr("kubectl_harvester_stuck.connection.transport.time.sleep", found.append)
    return found


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_get_comes_back_when_the_server_says(http: Server, waits: list[float], code: int) -> None:
    http.respond = come_back(code, "2", 3)
    assert transport(http.url).request(Request("GET", "/x")).json() == {"here": True}
    assert len(http.seen) == 4
    assert all(2 <= wait <= 3 for wait in waits)
    assert len(set(waits)) == 3, "not all at the same moment"


@pytest.mark.usefixtures("waits")
def test_it_comes_back_a_few_times_only(http: Server) -> None:
    http.respond = come_back(429, "1", 1000)
    assert transport(http.url).request(Request("GET", "/x")).status == 429
    assert len(http.seen) == 6


@pytest.mark.parametrize(
    ("code", "after"),
    [(429, "3600"), (429, ""), (429, "soon"), (429, "-1"), (409, "1"), (403, "1")],
)
def test_it_does_not_come_back_when_it_is_not_told_or_too_late(
    http: Server, waits: list[float], code: int, after: str
) -> None:
    http.respond = come_back(code, after, 1)
    assert transport(http.url, timeout=None).request(Request("GET", "/x")).status == code
    assert waits == []


def test_the_time_limit_is_for_all_tries(http: Server, waits: list[float]) -> None:
    http.respond = come_back(429, "2", 1)
    assert transport(http.url, timeout=1.0).request(Request("GET", "/x")).status == 429
    assert waits == []


@pytest.mark.parametrize("method", ["PATCH", "DELETE", "POST"])
def test_a_change_is_never_sent_again(http: Server, waits: list[float], method: str) -> None:
    http.respond = come_back(429, "1", 1)
    assert transport(http.url).request(Request(method, "/x", body={})).status == 429
    assert (len(http.seen), waits) == (1, [])
    assert transport(http.url).request(Request(method, "/x", body={}, retryable=True)).status == 200


def test_a_stream_does_not_come_back_by_itself(http: Server, waits: list[float]) -> None:
    http.respond = come_back(429, "1", 1)
    items: list[Any] = list(transport(http.url).lines(Request("GET", "/w"), idle=5))
    assert ([item.status for item in items], len(http.seen), waits) == ([429], 1, [])


def test_a_server_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        host = f"127.0.0.1:{gone.getsockname()[1]}"
    assert failure(transport(f"https://{host}", {"token": "t"}), "PATCH") == (
        f"The connection to the server {host} was refused - did you specify the right host or "
        'port? Check the server of cluster "k", or use --server.'
    )
    said = failure(transport("https://no-such-host.invalid", {"token": "t"}))
    assert said.startswith("Unable to connect to the server no-such-host.invalid: no such host")
    assert "a..b" in failure(transport("https://a..b", {"token": "t"}))


def test_a_network_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr("urllib3.util.connection.create_connection", unreachable)
    said = failure(transport("http://127.0.0.1:1"))
    assert said == "Unable to connect to the server 127.0.0.1:1: Network is unreachable: " + (
        "check the network"
    )


def test_a_server_that_does_not_accept() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        host = f"127.0.0.1:{full.getsockname()[1]}"
        with socket.create_connection(full.getsockname()):
            started = time.monotonic()
            said = failure(transport(f"http://{host}", timeout=0.3))
    assert time.monotonic() - started < 2
    assert said.startswith(f"Unable to connect to the server {host}: not reached in time: ")


def test_warnings_come_once_each(http: Server) -> None:
    http.respond = lambda handler: handler.answer(
        200,
        {},
        ("Warning", '299 - "v1 is \\"old\\"", 299 - "second \\\\ \x1b[1m\x9b2J"'),
        ("Warning", '299 - "deprecated: {\\"userData\\": \\"s3cret\\"}"'),
        ("Warning", '299 - "third" "Tue, 02 Jan 2024 03:04:05 GMT"'),
        ("Warning", '199 - "not for us"'),
        ("Warning", '299 - ""'),
        ("Warning", "nonsense"),
    )
    warnings: list[str] = []
    made = transport(http.url, on_warning=warnings.append)
    made.request(Request("GET", "/x"))
    made.request(Request("GET", "/y"))
    without = 'deprecated: {"userData: <redacted>'
    assert warnings == ['v1 is "old"', "second \\  [1m 2J", without, "third"]


def in_parts(*parts: bytes, size: int | None = None, encoding: str = "identity") -> Any:
    """Answers with these bytes, which are of so many in all, and closes the connection."""
    length = sum(map(len, parts)) if size is None else size
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {length}\r\n\r\n"

    def respond(handler: Handler) -> None:
        handler.wfile.write(head.encode())
        for part in parts:
            handler.wfile.write(part)
            handler.wfile.flush()
            time.sleep(0.05)
        handler.close_connection = True

    return respond


def test_a_streamed_answer_comes_in_parts(http: Server) -> None:
    lines: list[str] = []
    http.respond = in_parts(b"abc", b"def")
    with transport(http.url, on_request=lines.append).streamed(Request("GET", "/x")) as answer:
        response, parts = answer
        assert (response.status, response.body) == (200, b"")
        assert next(parts) == b"abc"
        assert lines == []
        assert list(parts) == [b"def"]
    assert [line.rpartition(" in ")[0] for line in lines] == [f"GET {http.url}/x 200 OK"]


def test_a_streamed_answer_is_compressed(http: Server) -> None:
    http.respond = in_parts(gzip.compress(b"abc" * 1000), encoding="gzip")
    with transport(http.url).streamed(Request("GET", "/x")) as (_, parts):
        assert b"".join(parts) == b"abc" * 1000
    assert http.seen[0].header("Accept-Encoding") == ["gzip"]


def test_a_streamed_answer_that_ends_too_early_is_cut_short(http: Server) -> None:
    http.respond = in_parts(b"abc", size=9)
    streamed = transport(http.url).streamed(Request("GET", "/x"))
    with pytest.raises(CutShortError, match="it broke off"), streamed as (_, parts):
        list(parts)


def test_an_error_is_not_streamed(http: Server, waits: list[float]) -> None:
    http.respond = come_back(429, "1", 1)
    with transport(http.url).streamed(Request("GET", "/x")) as (response, parts):
        assert (response.status, list(parts), len(waits)) == (200, [b'{"here": true}'], 1)
    http.respond = lambda handler: handler.answer(504, {"kind": "Status"})
    with transport(http.url).streamed(Request("GET", "/x")) as (response, parts):
        assert (response.status, response.json(), list(parts)) == (504, {"kind": "Status"}, [])


def test_a_streamed_answer_has_a_time_limit(http: Server) -> None:
    http.respond = in_parts(*[b"x"] * 100)
    streamed = transport(http.url, timeout=0.3).streamed(Request("GET", "/x"))
    with pytest.raises(UnreachableError, match="time"), streamed as (_, parts):
        list(parts)


@pytest.mark.parametrize("is_read", [True, False])
def test_a_streamed_answer_keeps_the_connection_only_if_it_is_read(
    http: Server, is_read: bool
) -> None:
    connections = set()

    def respond(handler: Handler) -> None:
        connections.add(handler.client_address)
        handler.answer(200, {"a": "x" * 1000})

    http.respond = respond
    made = transport(http.url)
    for _ in range(2):
        with made.streamed(Request("GET", "/x")) as (_, parts):
            if is_read:
                list(parts)
    assert len(connections) == (1 if is_read else 2)


def test_the_callers_time_is_not_that_of_a_streamed_answer(http: Server) -> None:
    http.respond = in_parts(b"a", b"b", b"c")
    with transport(http.url, timeout=0.5).streamed(Request("GET", "/x")) as (_, parts):
        assert next(parts) == b"a"
        time.sleep(0.6)
        assert b"".join(parts) == b"bc"


def test_a_streamed_answer_that_is_left_hangs_up(http: Server) -> None:
    ended = threading.Event()

    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b" " * 4096)
        except OSError:
            ended.set()

    http.respond = endless
    with transport(http.url).streamed(Request("GET", "/x")) as (_, parts):
        next(parts)
    assert ended.wait(5)
    parts.close()  # type: ignore[attr-defined] # held until here, so that nothing else hung up
