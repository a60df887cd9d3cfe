"""TLS with the API server: whom we trust, who we are, and what is left behind."""

from __future__ import annotations

import re
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kubectl_harvester_stuck.connection.credentials import Credential
from kubectl_harvester_stuck.connection.kubeconfig_file import ClusterEntry
from kubectl_harvester_stuck.connection.messages import Request
from kubectl_harvester_stuck.connection.tls import server_roots, tls_context
from kubectl_harvester_stuck.connection.transport import Transport
from kubectl_harvester_stuck.errors import KubeconfigError
from tests.support.loopback import (
    CLIENT_NAME,
    OTHER_CLIENT,
    Handler,
    Pki,
    Server,
    drips,
    failure,
    running,
    transport,
)

V1 = "client.authentication.k8s.io/v1"
TOKEN = {"token": "s3cret"}


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def https(pki: Pki) -> Iterator[Server]:
    with running(pki.server_context()) as server:
        yield server


@pytest.fixture(autouse=True)
def nothing_is_left_behind(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """No test may leave a temporary file: it could be a key."""
    directory = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    yield
    assert list(directory.iterdir()) == []


def certificate_user(pki: Pki) -> dict[str, Any]:
    return {
        "client-certificate-data": pki.data("client.crt"),
        "client-key-data": pki.data("client.key"),
    }


def test_the_authority_may_be_a_file_or_data(https: Server, pki: Pki) -> None:
    authorities: tuple[dict[str, Any], ...] = (
        {"certificate_authority": pki.path("ca.crt")},
        {"certificate_authority_data": pki.data("ca.crt")},
    )
    for authority in authorities:
        assert transport(https.url, TOKEN, **authority).request(Request("GET", "/x")).status == 200


def test_another_authority_is_refused_in_one_line(https: Server, pki: Pki) -> None:
    words = "tls: failed to verify certificate"
    wrong: dict[str, Any] = {"certificate_authority": pki.path("other-ca.crt")}
    for authority in (wrong, {}):
        said = failure(transport(https.url, TOKEN, **authority))
        assert said.startswith(
            f"Unable to connect to the server 127.0.0.1:{https.server_port}: {words}: "
        )
        assert 'check certificate-authority and tls-server-name of cluster "k"' in said
    assert https.seen == []


def test_only_the_given_authority_is_trusted(pki: Pki) -> None:
    """Some versions of the client would add the public ones."""
    from kubectl_harvester_stuck.connection.pool import open_pool

    made = transport("https://127.0.0.1:1", certificate_authority=pki.path("ca.crt"))
    settings = open_pool(made._connection, Credential()).connection_pool_kw
    assert len(settings["ssl_context"].get_ca_certs()) == 1
    assert not {"ca_certs", "ca_cert_dir", "ca_cert_data"} & settings.keys()


@pytest.mark.parametrize(
    ("encoding", "purposes", "is_trusted"),
    [
        ("x509_asn", True, True),
        ("x509_asn", {"1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.4"}, True),
        ("x509_asn", {"1.3.6.1.5.5.7.3.4"}, False),  # for mail alone
        ("x509_asn", set(), False),
        ("x509_asn", False, False),
        ("pkcs_7_asn", True, False),
    ],
)
def test_of_the_store_of_windows_only_what_is_for_servers_is_trusted(
    encoding: str, purposes: bool | set[str], is_trusted: bool
) -> None:
    assert list(server_roots([(b"root", encoding, purposes)])) == [b"root"] * is_trusted


def test_an_intermediate_authority_is_enough() -> None:
    """As in kubectl, and whatever newer versions of Python insist on."""
    context = tls_context(ClusterEntry(), Credential())
    assert context.verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.check_hostname
    assert not context.hostname_checks_common_name


def test_a_connection_cannot_change_what_another_one_is_copying() -> None:
    """urllib3 sets the protocols anew for each connection, and the context is shared."""
    context = tls_context(ClusterEntry(), Credential())
    context.set_alpn_protocols(["one-that-nobody-speaks"])
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="api.test").do_handshake()
    hello = outgoing.read()
    assert b"http/1.1" in hello
    assert b"one-that-nobody-speaks" not in hello


def test_the_name_is_verified(https: Server, pki: Pki) -> None:
    authority = pki.path("ca.crt")
    by_name = https.url.replace("127.0.0.1", "localhost")
    transport(by_name, TOKEN, certificate_authority=authority).request(Request("GET", "/x"))
    transport(
        https.url, TOKEN, certificate_authority=authority, tls_server_name="cluster.example"
    ).request(Request("GET", "/x"))
    assert [seen.server_name for seen in https.seen] == ["localhost", "cluster.example"]
    said = failure(
        transport(https.url, TOKEN, certificate_authority=authority, tls_server_name="other")
    )
    assert "Hostname mismatch" in said


def test_insecure_is_quiet(https: Server, capfd: pytest.CaptureFixture[str]) -> None:
    made = transport(https.url, TOKEN, insecure_skip_tls_verify=True, tls_server_name="any")
    assert made.request(Request("GET", "/x")).status == 200
    assert https.seen[0].server_name == "any"
    assert capfd.readouterr() == ("", "")


def test_the_client_certificate_reaches_the_server(https: Server, pki: Pki) -> None:
    files = {
        "client-certificate": pki.path("client.crt"),
        "client-key": pki.path("client.key"),
    }
    for user in (files, certificate_user(pki)):
        made = transport(https.url, user, certificate_authority=pki.path("ca.crt"))
        made.request(Request("GET", "/x"))
    assert [seen.client for seen in https.seen] == [CLIENT_NAME] * 2


def test_a_missing_client_certificate_is_one_line(pki: Pki) -> None:
    context = pki.server_context(ssl.CERT_REQUIRED)
    # Later versions let the client speak first, and the reason may get lost.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with running(context) as server:
        said = failure(transport(server.url, TOKEN, certificate_authority=pki.path("ca.crt")))
        assert said.startswith(f"Unable to connect to the server 127.0.0.1:{server.server_port}: ")
        assert said.endswith("handshake failure: check the client certificate")
        assert server.seen == []


def test_a_key_that_does_not_fit_is_refused(pki: Pki, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    other = Pki(tmp_path)
    plain = serialization.load_pem_private_key(Path(pki.path("client.key")).read_bytes(), None)
    locked = plain.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"password"),
    )
    for key in (other.path("client.key"), pki.path("client.crt"), "/gone"):
        user = {"client-certificate": pki.path("client.crt"), "client-key": key}
        with pytest.raises(KubeconfigError, match=r"^the client certificate cannot be used: "):
            transport("https://127.0.0.1:1", user).request(Request("GET", "/x"))
    with pytest.raises(KubeconfigError, match=r"in PEM without a password$"):
        tls_context(ClusterEntry(), Credential(None, Path(pki.path("client.crt")), locked))


def test_an_authority_that_is_none_is_refused(pki: Pki, tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("nonsense")
    for authority in (str(tmp_path / "ca"), "/gone", pki.path("client.key")):
        made = transport("https://127.0.0.1:1", TOKEN, certificate_authority=authority)
        with pytest.raises(KubeconfigError, match=r"^unable to load root certificates: "):
            made.request(Request("GET", "/x"))
    made = transport("https://127.0.0.1:1", TOKEN, certificate_authority_data="AAAA")
    with pytest.raises(KubeconfigError, match="certificate-authority-data is not"):
        made.request(Request("GET", "/x"))


def test_keys_are_private_while_they_are_in_files(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []

    def looking(_context: ssl.SSLContext, certificate: Path, key: Path, **_: object) -> None:
        modes.extend(path.stat().st_mode & 0o777 for path in (key, certificate, key.parent))
        raise ssl.SSLError

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", looking)
    with pytest.raises(KubeconfigError):
        tls_context(ClusterEntry(), Credential(None, b"certificate", b"key"))
    assert modes == [0o600, 0o600, 0o700]


def test_the_token_is_sent_over_https(https: Server, pki: Pki, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n")
    authority = pki.path("ca.crt")
    for user in ({"token": "t"}, {"tokenFile": str(tmp_path / "token")}):
        transport(https.url, user, certificate_authority=authority).request(Request("GET", "/x"))
    assert [seen.header("Authorization") for seen in https.seen] == [
        ["Bearer t"],
        ["Bearer from-file"],
    ]


@pytest.mark.parametrize("timeout", [0.5, 0])
def test_a_handshake_that_drips_is_given_up(
    timeout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubectl_harvester_stuck.connection.transport._CONNECT_SECONDS", 0.5)
    with running(handler=drips(b"\x16\x03\x03\x40\x00")) as server:
        host = f"127.0.0.1:{server.server_port}"
        made = transport(f"https://{host}", TOKEN, timeout=timeout)
        started = time.monotonic()
        said = failure(made, "PATCH")
        assert time.monotonic() - started < 5
    assert said == (
        f"Unable to connect to the server {host}: not reached in time: check the network, or use "
        "--request-timeout"
    )


def hang_up(handler: Handler) -> None:
    handler.close_connection = True


def test_requests_are_logged_without_credentials(https: Server, pki: Pki) -> None:
    lines: list[str] = []
    made = transport(
        https.url,
        {"token": "s3cret"},
        on_request=lines.append,
        certificate_authority=pki.path("ca.crt"),
    )
    made.request(Request("GET", "/x", query=[("limit", "500")]))
    https.respond = lambda handler: handler.answer(302)
    failure(made)
    https.respond = hang_up
    failure(made)
    patterns = (
        r"GET https://127\.0\.0\.1:\d+/x\?limit=500 200 OK in \d+ ms",
        r"GET https://127\.0\.0\.1:\d+/x 302 Found in \d+ ms",
        *[r"GET https://127\.0\.0\.1:\d+/x no answer in \d+ ms"] * 2,
    )
    assert len(lines) == len(patterns)
    for pattern, line in zip(patterns, lines, strict=True):
        assert re.fullmatch(pattern, line)


def plugin_user(directory: Path) -> dict[str, Any]:
    """A user with a plugin whose tokens are token-1, token-2 and so on."""
    script = directory / "plugin.py"
    script.write_text(
        "import json, pathlib\n"
        f"calls = pathlib.Path({str(directory / 'calls')!r})\n"
        "with calls.open('a') as file:\n"
        "    file.write('x')\n"
        "status = {'token': f'token-{len(calls.read_text())}'}\n"
        f"print(json.dumps({{'kind': 'ExecCredential', 'apiVersion': {V1!r}, 'status': status}}))\n"
    )
    plugin = {"command": sys.executable, "args": [str(script)], "interactiveMode": "Never"}
    return {"exec": {"apiVersion": V1, **plugin}}


def only(token: str) -> Callable[[Handler], None]:
    """401 for all but one token."""

    def respond(handler: Handler) -> None:
        accepted = handler.headers["Authorization"] == f"Bearer {token}"
        handler.answer(200 if accepted else 401)

    return respond


def test_after_401_a_plugin_is_asked_again_exactly_once(
    https: Server, pki: Pki, tmp_path: Path
) -> None:
    https.respond = only("token-2")
    made = transport(https.url, plugin_user(tmp_path), certificate_authority=pki.path("ca.crt"))
    assert made.request(Request("PATCH", "/x", body={"a": 1})).status == 200
    assert [seen.body for seen in https.seen] == [b'{"a": 1}'] * 2
    assert made.request(Request("GET", "/x")).status == 200
    assert (tmp_path / "calls").read_text() == "xx"
    https.respond = only("none")
    # The token that was taken may have expired; the one after it was refused from the start.
    assert [made.request(Request("GET", "/x")).status for _ in range(3)] == [401] * 3
    assert (tmp_path / "calls").read_text() == "xxx"


def test_each_token_that_expires_is_asked_for_again(
    https: Server, pki: Pki, tmp_path: Path
) -> None:
    made = transport(https.url, plugin_user(tmp_path), certificate_authority=pki.path("ca.crt"))
    for number in range(1, 5):
        https.respond = only(f"token-{number}")
        assert made.request(Request("GET", "/x")).status == 200
        (_, *lines) = watched(made)
        assert lines == []
    for number in range(5, 8):
        https.respond = only(f"token-{number}")
        (first, *_) = watched(made)
        assert first.status == 200
    assert (tmp_path / "calls").read_text() == "x" * 7


def test_a_watch_that_is_refused_for_good_says_so(https: Server, pki: Pki, tmp_path: Path) -> None:
    https.respond = only("none")
    made = transport(https.url, plugin_user(tmp_path), certificate_authority=pki.path("ca.crt"))
    assert [item.status for item in watched(made)] == [401]
    assert [item.status for item in watched(made)] == [401]
    assert (tmp_path / "calls").read_text() == "xx"


def watched(made: Transport) -> list[Any]:
    """What a watch gets: the answer, and its lines."""
    return list(made.lines(Request("GET", "/w"), idle=5))


def test_a_plugin_may_change_the_certificate(https: Server, pki: Pki, tmp_path: Path) -> None:
    user = plugin_user(tmp_path)
    script = Path(user["exec"]["args"][0])
    script.write_text(
        "import json, pathlib\n"
        f"here, pki = pathlib.Path({str(tmp_path)!r}), pathlib.Path({str(pki.directory)!r})\n"
        "name = 'other' if (here / 'asked').exists() else 'client'\n"
        "(here / 'asked').touch()\n"
        "status = {'clientCertificateData': (pki / f'{name}.crt').read_text(),\n"
        "          'clientKeyData': (pki / f'{name}.key').read_text()}\n"
        f"print(json.dumps({{'kind': 'ExecCredential', 'apiVersion': {V1!r}, 'status': status}}))\n"
    )
    https.respond = lambda handler: handler.answer(401 if len(https.seen) == 1 else 200)
    made = transport(https.url, user, certificate_authority=pki.path("ca.crt"))
    assert [made.request(Request("GET", "/x")).status for _ in range(2)] == [200, 200]
    assert [seen.client for seen in https.seen] == [CLIENT_NAME, OTHER_CLIENT, OTHER_CLIENT]


def test_401_is_an_answer_when_there_is_no_plugin(https: Server, pki: Pki) -> None:
    https.respond = only("other")
    made = transport(https.url, {"token": "t"}, certificate_authority=pki.path("ca.crt"))
    assert made.request(Request("GET", "/x")).status == 401
    assert len(https.seen) == 1


def test_a_failing_plugin_sends_nothing(https: Server, pki: Pki) -> None:
    plugin = {"apiVersion": V1, "command": "false", "interactiveMode": "Never"}
    made = transport(https.url, {"exec": plugin}, certificate_authority=pki.path("ca.crt"))
    with pytest.raises(KubeconfigError, match=r"^getting credentials: exec: "):
        made.request(Request("GET", "/x"))
    assert https.seen == []


def test_eight_threads_share_a_transport(https: Server, pki: Pki, tmp_path: Path) -> None:
    answers = only("token-2")
    together = threading.Barrier(8)

    def respond(handler: Handler) -> None:
        if handler.headers["Authorization"] == "Bearer token-1":
            together.wait(10)  # All are refused at the same time.
        answers(handler)

    https.respond = respond
    warnings: list[str] = []
    made = transport(
        https.url,
        plugin_user(tmp_path),
        on_warning=warnings.append,
        certificate_authority=pki.path("ca.crt"),
    )

    def work(number: int) -> list[int]:
        return [made.request(Request("GET", f"/{number}/{at}")).status for at in range(20)]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(8)))
    assert results == [[200] * 20] * 8
    assert (tmp_path / "calls").read_text() == "xx"
    assert len(https.seen) == 8 * 21


def test_the_systems_authorities_are_found_where_openssl_does_not_look(
    https: Server, pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = SimpleNamespace(cafile=None, capath=None)
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: nowhere)
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda *_: None)
    bundles = (tmp_path / "none.pem", Path(pki.path("ca.crt")))
    monkeypatch.setattr("kubectl_harvester_stuck.connection.tls.SYSTEM_BUNDLES", bundles)
    assert transport(https.url, TOKEN).request(Request("GET", "/x")).status == 200
    monkeypatch.setattr("kubectl_harvester_stuck.connection.tls.SYSTEM_BUNDLES", bundles[:1])
    assert "failed to verify certificate" in failure(transport(https.url, TOKEN))
