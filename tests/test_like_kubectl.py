"""The request that reaches the server is the one that kubectl sends.

Each case is a kubeconfig and flags. kubectl and we are pointed at the same recording servers;
where kubectl sends a request, ours must say the same to the same server, and where kubectl
refuses, we must refuse.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kubectl_harvester_stuck.connection.kubeconfig import ConfigOverrides, load
from kubectl_harvester_stuck.connection.messages import Request
from kubectl_harvester_stuck.connection.transport import Transport
from kubectl_harvester_stuck.errors import StuckError
from tests.support.loopback import Pki, ProxyHandler, Seen, Server, running

V1 = "client.authentication.k8s.io/v1"
PLUGIN = """
import json, os, pathlib, sys
info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
with pathlib.Path(__file__).with_name("info").open("a") as file:
    print(json.dumps([sys.argv[1:], os.getcwd(), os.environ.get("EXTRA"), info]), file=file)
status = {"token": "from-plugin"}
print(json.dumps({"kind": "ExecCredential", "apiVersion": info["apiVersion"], "status": status}))
"""


@dataclass(frozen=True)
class Servers:
    """What a case may be pointed at; `kubectl` and we see the same ones."""

    tls: Server
    plain: Server
    proxy: Server

    def take(self) -> list[Any]:
        """What they saw since the last time."""
        seen = [(name, one) for name in ("tls", "plain", "proxy") for one in vars(self)[name].seen]
        for server in (self.tls, self.plain, self.proxy):
            server.seen.clear()
        return [comparable(name, one) for name, one in seen]


def comparable(server: str, seen: Seen) -> Any:
    """What has to be the same: where, who, in whose name."""
    if seen.method == "CONNECT":
        return server, seen.path
    who = [
        (key.lower(), value)
        for key, value in seen.headers
        if key.lower() == "authorization" or key.lower().startswith("impersonate-")
    ]
    return server, seen.path, sorted(who), seen.server_name, seen.client


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def servers(pki: Pki) -> Iterator[Servers]:
    with (
        running(pki.server_context()) as tls,
        running() as plain,
        running(handler=ProxyHandler) as proxy,
    ):
        # kubectl reads the version of the server; anything else would do as well.
        for server in (tls, plain):
            server.respond = lambda handler: handler.answer(200, {"major": "1", "minor": "35"})
        yield Servers(tls, plain, proxy)


@dataclass(frozen=True)
class Case:
    """What differs from a context with a token, an authority and the TLS server.

    `{tls}`, `{plain}`, `{proxy}` and `{port}` in texts are filled in, `None` leaves a field out.
    """

    cluster: Mapping[str, Any] = field(default_factory=dict)
    user: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)
    flags: Mapping[str, Any] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)


def plugin(**more: Any) -> dict[str, Any]:
    command = {"command": sys.executable, "args": ["{here}/plugin.py", "$HOME"]}
    return {
        "token": None,
        "exec": {"apiVersion": V1, "interactiveMode": "Never", **command, **more},
    }


CERTIFICATE = {"token": None, "client-certificate": "client.crt", "client-key": "client.key"}
DATA = {
    "token": None,
    "client-certificate-data": "{client.crt}",
    "client-key-data": "{client.key}",
}
ALL_OF_AS = {
    "as": "jürgen",
    "as-uid": "7",
    "as-groups": ["a", "b,c"],
    "as-user-extra": {"acme.com/x y%": ["1", "2"]},
}
CASES = {
    "a token": Case(),
    "authority as data": Case(
        {"certificate-authority": None, "certificate-authority-data": "{ca.crt}"}
    ),
    "authority twice": Case({"certificate-authority-data": "{ca.crt}"}),
    "authority and insecure": Case({"insecure-skip-tls-verify": True}),
    "insecure": Case({"certificate-authority": None, "insecure-skip-tls-verify": True}),
    "no authority": Case({"certificate-authority": None}),
    "another authority": Case({"certificate-authority": "other-ca.crt"}),
    "missing authority": Case({"certificate-authority": "gone"}),
    "missing authority, http": Case({"server": "{plain}", "certificate-authority": "gone"}),
    "authority that is none": Case({"certificate-authority": "client.key"}),
    "authority and insecure, http": Case({"server": "{plain}", "insecure-skip-tls-verify": True}),
    "tls-server-name": Case({"tls-server-name": "cluster.example"}),
    "another tls-server-name": Case({"tls-server-name": "other"}),
    "a path": Case({"server": "{tls}/k8s/clusters/c-m-x"}),
    "a path with a slash": Case({"server": "{tls}/k8s/"}),
    "a query": Case({"server": "{tls}/k8s?a=b#c"}),
    "no scheme": Case({"server": "127.0.0.1:{port}", "certificate-authority": None}),
    "no scheme but a path": Case({"server": "127.0.0.1:{port}/a"}),
    "another scheme": Case({"server": "ftp://127.0.0.1:{port}"}),
    "proxy-url": Case({"proxy-url": "{proxy}"}),
    "proxy-url and NO_PROXY": Case({"proxy-url": "{proxy}"}, environ={"NO_PROXY": "*"}),
    "proxy-url of another kind": Case({"proxy-url": "ftp://x"}),
    "HTTPS_PROXY and 127.0.0.1": Case(environ={"HTTPS_PROXY": "{proxy}"}),
    "http": Case({"server": "{plain}"}),
    "http without credentials": Case({"server": "{plain}"}, {"token": None}),
    "http and as": Case({"server": "{plain}"}, ALL_OF_AS),
    "http and a failing plugin": Case({"server": "{plain}"}, plugin(args=["{here}/gone"])),
    "no credentials": Case(user={"token": None}),
    "only a password": Case(user={"token": None, "password": "p"}),
    "only as": Case(user={"token": None, "as": "x"}),
    "basic": Case(user={"token": None, "username": "me", "password": "p:w"}),
    "basic and token": Case(user={"username": "me"}),
    "basic and tokenFile": Case(user={"token": None, "username": "me", "tokenFile": "token"}),
    "tokenFile": Case(user={"token": None, "tokenFile": "token"}),
    "tokenFile and token": Case(user={"tokenFile": "token"}),
    "missing tokenFile": Case(user={"token": None, "tokenFile": "gone"}),
    "missing tokenFile and token": Case(user={"tokenFile": "gone"}),
    "empty tokenFile": Case(user={"token": None, "tokenFile": "empty"}),
    "a line break in the token": Case(user={"token": "a\nb"}),
    "certificate": Case(user=CERTIFICATE),
    "certificate as data": Case(user=DATA),
    "certificate and token": Case(user={**CERTIFICATE, "token": "t"}),
    "certificate twice": Case(user={**DATA, "client-certificate": "client.crt"}),
    "key twice": Case(user={**DATA, "client-key": "client.key"}),
    "no key": Case(user={**CERTIFICATE, "client-key": None}),
    "missing key": Case(user={**CERTIFICATE, "client-key": "gone"}),
    "key that is none": Case(user={**CERTIFICATE, "client-key": "ca.crt"}),
    "as": Case(user=ALL_OF_AS),
    "groups without as": Case(user={"as-groups": ["a"]}),
    "plugin": Case(user=plugin()),
    "plugin and cluster": Case({"tls-server-name": "localhost"}, plugin(provideClusterInfo=True)),
    "plugin, extension": Case(
        {"extensions": [{"name": "client.authentication.k8s.io/exec", "extension": {"a": [1]}}]},
        plugin(provideClusterInfo=True, env=[{"name": "EXTRA", "value": "yes"}]),
    ),
    "plugin, v1beta1": Case(
        user=plugin(apiVersion="client.authentication.k8s.io/v1beta1", interactiveMode=None)
    ),
    "plugin, v1 without mode": Case(user=plugin(interactiveMode=None)),
    "plugin, v1alpha1": Case(user=plugin(apiVersion="client.authentication.k8s.io/v1alpha1")),
    "plugin, Always": Case(user=plugin(interactiveMode="Always")),
    "plugin, IfAvailable": Case(user=plugin(interactiveMode="IfAvailable")),
    "plugin fails": Case(user=plugin(args=["{here}/gone"])),
    "plugin says nothing": Case(user=plugin(args=["-c", ""])),
    "plugin is missing": Case(user=plugin(command="no-such-plugin")),
    "plugin and token": Case(user={**plugin(), "token": "t"}),
    "plugin and certificate": Case(user={**plugin(), **CERTIFICATE}),
    "auth-provider": Case(user={"auth-provider": {"name": "gcp"}}),
    "cluster that is not there": Case(context={"cluster": "gone"}),
    "user that is not there": Case(context={"user": "gone"}),
    "no cluster": Case(context={"cluster": None}),
    "no server": Case({"server": None}),
    "--context of nowhere": Case(flags={"context": "gone"}),
    "--cluster of nowhere": Case(flags={"cluster": "gone"}),
    "--user of nowhere": Case(flags={"user": "gone"}),
    "--server": Case({"server": "https://127.0.0.1:1"}, flags={"server": "{tls}"}),
    "--server over tls-server-name": Case({"tls-server-name": "x"}, flags={"server": "{tls}"}),
    "--server, no cluster": Case(
        context={"cluster": "gone"},
        flags={"server": "{tls}", "certificate-authority": "{here}/ca.crt"},
    ),
    "--tls-server-name": Case(
        {"tls-server-name": "x"}, flags={"tls-server-name": "cluster.example"}
    ),
    "--insecure-skip-tls-verify": Case(
        {"certificate-authority": "other-ca.crt"}, flags={"insecure-skip-tls-verify": True}
    ),
    "--insecure-skip-tls-verify, data": Case(
        {"certificate-authority": None, "certificate-authority-data": "{other-ca.crt}"},
        flags={"insecure-skip-tls-verify": True},
    ),
    "--certificate-authority": Case(
        {"certificate-authority": None, "certificate-authority-data": "{other-ca.crt}"},
        flags={"certificate-authority": "ca.crt"},
    ),
    "--certificate-authority, insecure": Case(
        {"certificate-authority": None, "insecure-skip-tls-verify": True},
        flags={"certificate-authority": "other-ca.crt"},
    ),
    "--certificate-authority and insecure": Case(
        flags={"certificate-authority": "ca.crt", "insecure-skip-tls-verify": True}
    ),
    "--token": Case(flags={"token": "flag"}),
    "--token over a plugin": Case(user=plugin(), flags={"token": "flag"}),
    "--token and tokenFile": Case(
        user={"token": None, "tokenFile": "token"}, flags={"token": "flag"}
    ),
    "--token and basic": Case(
        user={"token": None, "username": "me", "password": "p"}, flags={"token": "flag"}
    ),
    "--as": Case(user=ALL_OF_AS, flags={"as": "boss"}),
    "--as-group": Case(user=ALL_OF_AS, flags={"as-group": ["x", "y"]}),
    "--as and all": Case(flags={"as": "boss", "as-group": ["x", "y"], "as-uid": "1"}),
    "--as-group without as": Case(flags={"as-group": ["x"]}),
    "--client-certificate": Case(
        user={"token": None},
        flags={"client-certificate": "client.crt", "client-key": "client.key"},
    ),
    "--client-certificate over data": Case(
        user={**DATA, "client-certificate-data": "{ca.crt}"},
        flags={"client-certificate": "client.crt", "client-key": "client.key"},
    ),
    "KUBERNETES_MASTER": Case(environ={"KUBERNETES_MASTER": "{plain}", "KUBECONFIG": "/gone"}),
    "nothing": Case(environ={"KUBECONFIG": "/gone"}),
}


@dataclass(frozen=True)
class Place:
    """A directory with the files of a case."""

    root: Path
    pki: Pki
    servers: Servers

    def filled(self, value: Any) -> Any:
        """`value` with its placeholders filled in."""
        text = json.dumps(value)
        values = {"here": str(self.root), "port": str(self.servers.plain.server_port)}
        values |= {name: vars(self.servers)[name].url for name in ("tls", "plain", "proxy")}
        names = ("ca.crt", "other-ca.crt", "client.crt", "client.key")
        values |= {name: self.pki.data(name) for name in names}
        for name, one in values.items():
            text = text.replace(f"{{{name}}}", one)
        return json.loads(text)

    def write(self, case: Case) -> dict[str, str]:
        """Writes the files and returns the environment."""
        for name in ("ca.crt", "other-ca.crt", "client.crt", "client.key"):
            (self.root / name).write_bytes(Path(self.pki.path(name)).read_bytes())
        for name, text in (("token", "from-file\n"), ("empty", "\n"), ("plugin.py", PLUGIN)):
            (self.root / name).write_text(text)
        parts = (
            ("context", {"cluster": "k", "user": "u"}, case.context),
            ("cluster", {"server": "{tls}", "certificate-authority": "ca.crt"}, case.cluster),
            ("user", {"token": "t"}, case.user),
        )
        config: dict[str, Any] = {"current-context": "c"}
        for (kind, usual, changed), name in zip(parts, "cku", strict=True):
            entry = {key: one for key, one in {**usual, **changed}.items() if one is not None}
            config[f"{kind}s"] = [{"name": name, kind: entry}]
        (self.root / "config").write_text(json.dumps(self.filled(config)))
        usual = {"HOME": str(self.root), "KUBECONFIG": str(self.root / "config")}
        return {"PATH": os.environ["PATH"], **usual, **self.filled(case.environ)}

    def told_plugin(self) -> list[Any]:
        """How the plugin was called since the last time."""
        file = self.root / "info"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return [without_null(json.loads(line)) for line in lines]


def without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_null(one) for key, one in value.items() if one is not None}
    return [without_null(one) for one in value] if isinstance(value, list) else value


def asked_by_kubectl(kubectl: Path, flags: Mapping[str, Any], environ: dict[str, str]) -> None:
    words = [
        f"--{name}={json.dumps(one) if one is True else one}"
        for name, value in flags.items()
        for one in (value if isinstance(value, list) else [value])
    ]
    command: list[str | Path] = [kubectl, "version", "--request-timeout=5s", *words]
    # Without a terminal kubectl cannot ask for a user name.
    subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, check=False)


def asked_by_us(flags: Mapping[str, Any], environ: Mapping[str, str]) -> None:
    fields = {name.replace("-", "_"): value for name, value in flags.items()}
    fields["as_groups"] = tuple(fields.pop("as_group", ()))
    fields["as_"] = fields.pop("as", None)
    connection = load(ConfigOverrides(**fields), environ)
    said: Callable[[str], None] = pytest.fail
    made = Transport(connection, timeout=5, user_agent="tests/1", on_warning=said)
    made.request(Request("GET", "/version", query=[("timeout", "5s")]))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_request_is_that_of_kubectl(
    case: Case,
    kubectl: Path,
    servers: Servers,
    pki: Pki,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = Place(tmp_path, pki, servers)
    environ = place.write(case)
    flags = place.filled(case.flags)
    monkeypatch.chdir(tmp_path)
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "isatty", lambda _: False)
    servers.take()
    asked_by_kubectl(kubectl, flags, environ)
    expected, told = servers.take(), place.told_plugin()
    if expected:
        asked_by_us(flags, environ)
        assert servers.take() == expected
        assert place.told_plugin() == told
        return
    with pytest.raises(StuckError) as caught:
        asked_by_us(flags, environ)
    assert "\n" not in str(caught.value)
    assert servers.take() == []


def test_kubectl_sends_and_refuses(
    kubectl: Path, servers: Servers, pki: Pki, tmp_path: Path
) -> None:
    """A kubectl that did only one of them would make the table worthless."""
    place = Place(tmp_path, pki, servers)
    for case, sends in ((Case(), True), (CASES["authority twice"], False)):
        environ = place.write(case)
        servers.take()
        asked_by_kubectl(kubectl, {}, environ)
        assert bool(servers.take()) == sends
