"""Which proxy is used, by the rules of kubectl, and that requests really go through it."""

from __future__ import annotations

import base64
import importlib.util
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kubectl_harvester_stuck.connection.messages import Request
from kubectl_harvester_stuck.connection.proxy import proxy_for
from kubectl_harvester_stuck.connection.transport import Transport
from kubectl_harvester_stuck.errors import KubeconfigError
from tests.support.loopback import (
    Handler,
    Pki,
    ProxyHandler,
    Server,
    drips,
    failure,
    running,
    transport,
)

PROXY = "http://proxy:3128"
NAMES = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "REQUEST_METHOD")


@pytest.mark.parametrize(
    ("server", "environ", "expected"),
    [
        ("https://a", {}, None),
        ("https://a", {"HTTPS_PROXY": PROXY}, PROXY),
        ("https://a", {"https_proxy": PROXY}, PROXY),
        ("https://a", {"HTTPS_PROXY": PROXY, "https_proxy": "http://other"}, PROXY),
        ("https://a", {"HTTP_PROXY": PROXY}, None),
        ("https://a", {"ALL_PROXY": PROXY}, None),
        ("https://a", {"HTTPS_PROXY": "proxy:3128"}, PROXY),
        ("http://a", {"HTTPS_PROXY": PROXY}, None),
        ("http://a", {"HTTP_PROXY": PROXY}, PROXY),
        ("http://a", {"HTTP_PROXY": PROXY, "REQUEST_METHOD": "GET"}, None),
        ("https://localhost:6443", {"HTTPS_PROXY": PROXY}, None),
        ("https://127.0.0.1:6443", {"HTTPS_PROXY": PROXY}, None),
        ("https://127.8.8.8", {"HTTPS_PROXY": PROXY}, None),
        ("https://[::1]:6443", {"HTTPS_PROXY": PROXY}, None),
        ("https://10.0.0.1", {"HTTPS_PROXY": PROXY}, PROXY),
    ],
)
def test_the_environment(server: str, environ: dict[str, str], expected: str | None) -> None:
    assert proxy_for(server, "", environ) == expected


@pytest.mark.parametrize(
    ("server", "no_proxy", "direct"),
    [
        ("https://a.example.com", "*", True),
        ("https://a.example.com", "example.com", True),
        ("https://example.com", "example.com", True),
        ("https://EXAMPLE.com", "Example.COM", True),
        ("https://notexample.com", "example.com", False),
        ("https://a.example.com", ".example.com", True),
        ("https://example.com", ".example.com", False),
        ("https://a.example.com", "*.example.com", True),
        ("https://example.com", "*.example.com", False),
        ("https://aexample.com", "*example.com", False),
        ("https://example.com", "x, ,example.com ", True),
        ("https://example.com", "example.com:443", True),
        ("https://example.com:6443", "example.com:443", False),
        ("https://example.com:6443", "example.com:6443", True),
        ("https://example.com", ":443", False),
        ("https://10.1.2.3", "10.0.0.0/8", True),
        ("https://11.1.2.3", "10.0.0.0/8", False),
        ("https://10.1.2.3", "10.1.2.3", True),
        ("https://10.1.2.3:6443", "10.1.2.3:6443", True),
        ("https://10.1.2.3:6443", "10.1.2.3:443", False),
        ("https://10.1.2.3", "2.3", False),
        ("https://10.1.2.3", "10.1.2.300/8", False),
        ("https://[fd00::1]", "fd00::/8", True),
        ("https://[fd00::1]", "fd00::1", True),
        ("https://[fd00::1]:6443", "[fd00::1]:6443", True),
        ("https://[fd00::1]:6443", "[fd00::1]:443", False),
        ("https://name.example", "10.0.0.0/8", False),
    ],
)
def test_no_proxy(server: str, no_proxy: str, direct: bool) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        found = proxy_for(server, "", {"HTTPS_PROXY": PROXY, name: no_proxy})
        assert found == (None if direct else PROXY)


def test_proxy_url_is_used_whatever_the_environment_says() -> None:
    environ = {"HTTPS_PROXY": "http://other", "NO_PROXY": "*"}
    for server in ("https://a", "https://127.0.0.1:6443", "http://localhost"):
        for proxy in (PROXY, "https://p", "socks5://p:1080"):
            assert proxy_for(server, proxy, environ) == proxy


@pytest.mark.parametrize("proxy", ["ftp://p", "http://", "http://s3cret@:1", "http://[::1", "p"])
def test_what_is_no_proxy_is_refused_and_not_shown(proxy: str) -> None:
    with pytest.raises(KubeconfigError, match=r"^proxy-url is not the URL of a proxy") as caught:
        proxy_for("https://a", proxy, {})
    assert "s3cret" not in str(caught.value)
    with pytest.raises(KubeconfigError, match=r"^HTTPS_PROXY is not the URL of a proxy"):
        proxy_for("https://a", "", {"HTTPS_PROXY": "ftp://p"})


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def https(pki: Pki) -> Iterator[Server]:
    with running(pki.server_context()) as server:
        yield server


@pytest.fixture
def proxy() -> Iterator[Server]:
    with running(handler=ProxyHandler) as server:
        yield server


@pytest.fixture(autouse=True)
def environ(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No proxy but the one that a test asks for."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


def request(server: str, pki: Pki, **cluster: Any) -> int:
    made = transport(
        server, {"token": "s3cret"}, certificate_authority=pki.path("ca.crt"), **cluster
    )
    return made.request(Request("GET", "/x")).status


def test_the_tunnel_goes_through_proxy_url(
    https: Server, proxy: Server, pki: Pki, environ: pytest.MonkeyPatch
) -> None:
    environ.setenv("NO_PROXY", "127.0.0.1")
    assert request(https.url, pki, proxy_url=proxy.url) == 200
    assert [(seen.method, seen.path) for seen in proxy.seen] == [
        ("CONNECT", f"127.0.0.1:{https.server_port}")
    ]
    assert https.seen[0].header("Authorization") == ["Bearer s3cret"]
    assert "s3cret" not in str(proxy.seen)


def test_the_password_of_the_proxy_goes_to_the_proxy_alone(
    https: Server, proxy: Server, pki: Pki
) -> None:
    request(https.url, pki, proxy_url=proxy.url.replace("//", "//me:p%40w%E2%82%AC@"))
    basic = base64.b64encode("me:p@w\u20ac".encode()).decode()
    assert proxy.seen[0].header("Proxy-Authorization") == [f"Basic {basic}"]
    assert https.seen[0].header("Proxy-Authorization") == []


def test_a_proxy_may_speak_tls(https: Server, pki: Pki) -> None:
    with running(pki.server_context(), ProxyHandler) as proxy:
        assert request(https.url, pki, proxy_url=proxy.url) == 200
        assert [seen.method for seen in proxy.seen] == ["CONNECT"]


def test_the_environment_is_followed(
    https: Server, proxy: Server, pki: Pki, environ: pytest.MonkeyPatch
) -> None:
    environ.setenv("HTTPS_PROXY", proxy.url)
    environ.setenv("HTTP_PROXY", proxy.url)
    request(https.url, pki)
    assert proxy.seen == []
    # The proxy leads every name to the loopback address.
    request(https.url.replace("127.0.0.1", "cluster.example"), pki)
    assert [seen.path for seen in proxy.seen] == [f"cluster.example:{https.server_port}"]
    environ.setenv("NO_PROXY", ".example")
    direct = transport(f"https://cluster.example.invalid:{https.server_port}", {"token": "t"})
    environ.setenv("NO_PROXY", "cluster.example.invalid")
    assert "no such host" in failure(direct)
    assert len(proxy.seen) == 1


def test_plain_http_is_proxied_as_well(proxy: Server) -> None:
    made = transport("http://cluster.example:8080/prefix", proxy_url=proxy.url)
    assert made.request(Request("GET", "/x")).status == 200
    assert proxy.seen[0].path == "http://cluster.example:8080/prefix/x"


def test_a_proxy_that_fails_is_one_line(https: Server, pki: Pki) -> None:
    authority = pki.path("ca.crt")
    user = {"token": "t"}
    with running() as refusing:
        made = transport(https.url, user, certificate_authority=authority, proxy_url=refusing.url)
        said = failure(made)
        assert "the proxy failed (Tunnel connection failed: 501" in said
        assert said.endswith(": check proxy-url and HTTPS_PROXY")
    gone = f"http://127.0.0.1:{refusing.server_port}"
    made = transport(https.url, user, certificate_authority=authority, proxy_url=gone)
    assert failure(made) == (
        f"Unable to connect to the server 127.0.0.1:{https.server_port}: the proxy failed "
        "(Connection refused): check proxy-url and HTTPS_PROXY"
    )
    assert https.seen == []


TLS_RECORD = b"\x16\x03\x03\x40\x00"
"""The head of a TLS record of 16 KiB."""
GRANTED = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.mark.parametrize(
    ("speaks_tls", "heads"),
    [
        (False, [b""]),
        (False, [b"HTTP/1.1 200 OK\r\nX-A: "]),
        (False, [TLS_RECORD]),
        (False, [GRANTED, TLS_RECORD]),
        (True, [b"HTTP/1.1 200 OK\r\nX-A: "]),
        (True, [GRANTED, TLS_RECORD]),
    ],
    ids=[
        *("status line", "header", "handshake with the proxy", "handshake with the server"),
        *("header over TLS", "handshake over TLS"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "PATCH"])
def test_a_proxy_that_drips_is_given_up(
    pki: Pki, speaks_tls: bool, heads: list[bytes], method: str
) -> None:
    context = pki.server_context() if speaks_tls else None
    with running(context, drips(*heads)) as proxy:
        made = transport(
            "https://a.test",
            {"token": "t"},
            timeout=0.5,
            certificate_authority=pki.path("ca.crt"),
            proxy_url=proxy.url.replace("http:", "https:" if heads == [TLS_RECORD] else "http:"),
        )
        started = time.monotonic()
        said = failure(made, method)
        assert time.monotonic() - started < 5
    assert said.startswith("Unable to connect to the server a.test: ")
    assert ("the proxy failed" in said) == (heads == [TLS_RECORD])
    assert "not known" not in said


@pytest.mark.parametrize("proxy_speaks_tls", [False, True])
def test_a_server_behind_a_proxy_that_drips_is_given_up(pki: Pki, proxy_speaks_tls: bool) -> None:
    with (
        running(pki.server_context(), drips(b"HTTP/1.1 200 OK\r\nX-A: ")) as server,
        running(pki.server_context() if proxy_speaks_tls else None, ProxyHandler) as proxy,
    ):
        made = through(proxy, server, pki, timeout=1)
        started = time.monotonic()
        said = failure(made, "PATCH")
        assert time.monotonic() - started < 5
    assert said.startswith(f"no whole answer from 127.0.0.1:{server.server_port} in time")
    assert "it is not known whether the PATCH was carried out" in said


def through(proxy: Server, server: Server, pki: Pki, timeout: float = 5) -> Transport:
    return transport(
        server.url,
        {"token": "t"},
        timeout=timeout,
        certificate_authority=pki.path("ca.crt"),
        proxy_url=proxy.url,
    )


def test_an_answer_that_breaks_off_behind_a_proxy_is_no_fault_of_the_proxy(
    https: Server, proxy: Server, pki: Pki
) -> None:
    """As without a proxy: what became of a change is not known, and a GET has a second chance."""

    def close(handler: Handler) -> None:
        handler.close_connection = True

    https.respond = close
    said = failure(through(proxy, https, pki), "PATCH")
    assert said.startswith(f"no whole answer from 127.0.0.1:{https.server_port}: ")
    assert "it is not known whether the PATCH was carried out" in said
    answers: list[Callable[[Handler], None]] = [close, Handler.answer]
    https.respond = lambda handler: answers.pop(0)(handler)
    assert through(proxy, https, pki).request(Request("GET", "/x")).status == 200


def test_socks_names_the_package_that_is_missing(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "socks" else find(name)
    )
    with pytest.raises(KubeconfigError, match="PySocks"):
        request("https://a", pki, proxy_url="socks5://127.0.0.1:1")
