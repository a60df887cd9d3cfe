"""Flags, pods, and what kubectl refuses: which connection comes out, and in which words not."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from kubectl_harvester_stuck.connection.kubeconfig import ClientConfig, ConfigOverrides, load
from kubectl_harvester_stuck.connection.kubeconfig_file import UserEntry
from kubectl_harvester_stuck.errors import KubeconfigError
from tests.support.loopback import cluster_entry, user_entry

DATA = base64.b64encode(b"x").decode()
EXEC = {"apiVersion": "client.authentication.k8s.io/v1", "command": "c", "interactiveMode": "Never"}
CLUSTER = {"server": "https://one"}
USER = {"token": "t"}
REFUSED = (
    "The connection to the server localhost:8080 was refused - did you specify the right host or "
    "port?"
)
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}


def write(
    home: Path,
    cluster: Mapping[str, Any],
    user: Mapping[str, Any],
    context: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Writes a kubeconfig with one context "c" and returns the environment that names it."""
    context = {"cluster": "k", "user": "u", **(context or {})}
    for name in ("ca", "crt", "key"):
        (home / name).write_text(name)
    (home / "config").write_text(
        json.dumps(
            {
                "current-context": "c",
                "contexts": [{"name": "c", "context": context}],
                "clusters": [{"name": "k", "cluster": dict(cluster)}],
                "users": [{"name": "u", "user": dict(user)}],
            }
        )
    )
    return {"KUBECONFIG": str(home / "config"), "HOME": str(home)}


def at_home(directory: Path, **environ: str) -> dict[str, str]:
    """An environment in which this is the home directory."""
    return {"HOME": str(directory), **environ}


def refusal(flags: ConfigOverrides, environ: Mapping[str, str], **more: Path) -> str:
    with pytest.raises(KubeconfigError) as caught:
        load(flags, environ, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def loaded(
    home: Path,
    flags: ConfigOverrides,
    cluster: Mapping[str, Any] = CLUSTER,
    user: Mapping[str, Any] = USER,
) -> ClientConfig:
    return load(flags, write(home, cluster, user))


def test_flags_have_the_names_of_kubectl() -> None:
    assert [one.name.rstrip("_").replace("_", "-") for one in fields(ConfigOverrides)] == [
        *("kubeconfig", "context", "cluster", "user", "server", "token"),
        *("as", "as-groups", "as-uid"),
        *("certificate-authority", "client-certificate", "client-key"),
        *("insecure-skip-tls-verify", "tls-server-name", "namespace"),
    ]
    assert "s3cret" not in repr(ConfigOverrides(token="s3cret"))


@pytest.mark.parametrize(
    ("flags", "before", "after"),
    [
        (
            ConfigOverrides(server="https://two"),
            {**CLUSTER, "tls-server-name": "n", "proxy-url": "http://p"},
            {"server": "https://two", "proxy-url": "http://p"},
        ),
        (
            ConfigOverrides(server="https://two", tls_server_name="m"),
            {**CLUSTER, "tls-server-name": "n"},
            {"server": "https://two", "tls-server-name": "m"},
        ),
        (
            ConfigOverrides(tls_server_name="m"),
            {**CLUSTER, "tls-server-name": "n"},
            {**CLUSTER, "tls-server-name": "m"},
        ),
        (
            ConfigOverrides(insecure_skip_tls_verify=True),
            {**CLUSTER, "certificate-authority": "ca"},
            {**CLUSTER, "insecure-skip-tls-verify": True},
        ),
        (
            ConfigOverrides(insecure_skip_tls_verify=True),
            {**CLUSTER, "certificate-authority-data": DATA},
            {**CLUSTER, "insecure-skip-tls-verify": True},
        ),
        (
            ConfigOverrides(certificate_authority="ca"),
            {**CLUSTER, "certificate-authority-data": DATA},
            {**CLUSTER, "certificate-authority": "/ca", "insecure-skip-tls-verify": False},
        ),
        (
            ConfigOverrides(certificate_authority="ca"),
            {**CLUSTER, "insecure-skip-tls-verify": True},
            {**CLUSTER, "certificate-authority": "/ca", "insecure-skip-tls-verify": False},
        ),
        (ConfigOverrides(server=""), CLUSTER, CLUSTER),
    ],
)
def test_flags_change_the_cluster(
    flags: ConfigOverrides,
    before: Mapping[str, Any],
    after: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    if after.get("certificate-authority"):
        after = {**after, "certificate-authority": str(tmp_path / "ca")}
    assert loaded(tmp_path, flags, cluster=before).cluster == cluster_entry(after)


@pytest.mark.parametrize(
    ("flags", "before", "after"),
    [
        (ConfigOverrides(token="f"), {"token": "t", "as": "a"}, {"token": "f", "as": "a"}),
        (ConfigOverrides(token="f"), {"exec": EXEC}, {"token": "f", "exec": EXEC}),
        (
            ConfigOverrides(as_="b"),
            {**USER, "as": "a", "as-groups": ["g"]},
            {**USER, "as": "b", "as-groups": ["g"]},
        ),
        (
            ConfigOverrides(as_="b", as_groups=("x", "y"), as_uid="1"),
            {**USER, "as-groups": ["g"]},
            {**USER, "as": "b", "as-groups": ["x", "y"], "as-uid": "1"},
        ),
        (
            ConfigOverrides(client_certificate="crt", client_key="key"),
            {"client-certificate-data": DATA, "client-key-data": DATA},
            {"client-certificate": "/crt", "client-key": "/key"},
        ),
    ],
)
def test_flags_change_the_user(
    flags: ConfigOverrides,
    before: Mapping[str, Any],
    after: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = {key: str(tmp_path) + after[key] for key in after if key.startswith("client-")}
    assert loaded(tmp_path, flags, user=before).user == user_entry({**after, **paths})


def test_flags_choose_cluster_user_and_namespace(tmp_path: Path) -> None:
    environ = write(tmp_path, CLUSTER, USER, {"cluster": "gone", "namespace": "vms"})
    assert refusal(ConfigOverrides(), environ) == 'cluster "gone" was not found for context "c"'
    connection = load(ConfigOverrides(cluster="k"), environ)
    assert (connection.cluster_name, connection.namespace) == ("k", "vms")
    assert load(ConfigOverrides(cluster="k", namespace="other"), environ).namespace == "other"
    assert load(ConfigOverrides(server="https://two"), environ).server == "https://two"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (ConfigOverrides(context="nope"), 'context "nope" does not exist'),
        (ConfigOverrides(cluster="nope"), 'cluster "nope" does not exist'),
        (ConfigOverrides(user="nope"), 'auth info "nope" does not exist'),
    ],
)
def test_unknown_names_are_refused_as_by_kubectl(
    flags: ConfigOverrides, words: str, tmp_path: Path
) -> None:
    assert refusal(flags, write(tmp_path, CLUSTER, USER)).startswith(words)


def test_a_context_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    environ = write(tmp_path, {"server": "http://one"}, USER, {"user": "gone"})
    assert refusal(ConfigOverrides(), environ) == 'user "gone" was not found for context "c"'
    text = (tmp_path / "config").read_text()
    (tmp_path / "config").write_text(
        text.replace('"current-context": "c"', '"current-context": "d"')
    )
    said = refusal(ConfigOverrides(), environ)
    assert said.startswith("context was not found for specified context: d (the current-context)")


@pytest.mark.parametrize(
    ("cluster", "user", "words"),
    [
        ({"certificate-authority": "ca", "certificate-authority-data": DATA}, {}, "both specified"),
        ({"certificate-authority": "ca", "insecure-skip-tls-verify": True}, {}, "not allowed"),
        ({"certificate-authority": "gone"}, {}, "unable to read certificate-authority"),
        ({"certificate-authority": "."}, {}, "unable to read certificate-authority"),
        ({"proxy-url": "ftp://x"}, {}, "proxy-url"),
        ({"server": ""}, {}, 'no server found for cluster "k"'),
        ({"server": "ftp://x"}, {}, 'unsupported protocol scheme "ftp"'),
        ({"server": "https://"}, {}, "must be a URL"),
        ({"server": "https://:1"}, {}, "names no host"),
        ({"server": "https://x:y"}, {}, "cannot be used"),
        ({"server": "https://[::1"}, {}, "cannot be used"),
        ({"server": "https://x y"}, {}, "contains a space"),
        ({"server": "x/y"}, {}, "must be a URL or a host:port pair"),
        ({"server": "https://me:pw@x"}, {}, "contains credentials"),
        ({}, {"token": ""}, 'user "u" has no credentials'),
        ({}, {"token": "", "as": "a"}, 'user "u" has no credentials'),
        ({}, {"token": "", "password": "p"}, 'user "u" has no credentials'),
        ({}, {"username": "u", "password": "p"}, "more than one authentication method"),
        ({}, {"token": "", "tokenFile": "key", "username": "u"}, "but not both"),
        ({}, {"client-certificate": "crt"}, "client-key-data or client-key must be specified"),
        ({}, {"client-certificate": "crt", "client-key": "gone"}, "unable to read client-key"),
        ({}, {"client-certificate": "gone", "client-key": "key"}, "unable to read client-cert"),
        (
            {},
            {"client-certificate": "crt", "client-certificate-data": DATA, "client-key": "key"},
            "client-certificate-data and client-certificate are both specified",
        ),
        ({}, {"as-groups": ["g"]}, "without impersonating a user"),
        ({}, {"exec": {**EXEC, "command": ""}}, "command must be specified"),
        ({}, {"exec": {**EXEC, "apiVersion": ""}}, "apiVersion must be specified"),
        ({}, {"exec": {**EXEC, "interactiveMode": ""}}, "interactiveMode must be specified"),
        ({}, {"exec": {**EXEC, "interactiveMode": "Maybe"}}, "invalid interactiveMode"),
        ({}, {"exec": {**EXEC, "env": [{"value": "x"}]}}, "env variable name"),
        ({}, {"exec": EXEC, "auth-provider": {"name": "oidc"}}, "in combination"),
    ],
)
def test_what_kubectl_refuses_is_refused(
    cluster: Mapping[str, Any], user: Mapping[str, Any], words: str, tmp_path: Path
) -> None:
    said = refusal(ConfigOverrides(), write(tmp_path, {**CLUSTER, **cluster}, {**USER, **user}))
    assert words in said
    assert "pw@" not in said


@pytest.mark.parametrize(
    ("server", "url"),
    [
        ("https://x/k8s/clusters/c-1/", "https://x/k8s/clusters/c-1"),
        ("https://x/a?b=c#d", "https://x/a"),
        ("HTTPS://x:6443", "https://x:6443"),
        ("https://[::1]:6443", "https://[::1]:6443"),
        ("localhost:8001", "http://localhost:8001"),
        ("127.0.0.1:8001/", "http://127.0.0.1:8001"),
    ],
)
def test_the_server_is_a_url(server: str, url: str, tmp_path: Path) -> None:
    assert loaded(tmp_path, ConfigOverrides(), cluster={"server": server}).server == url


@pytest.mark.parametrize(
    ("server", "shown"),
    [
        ("https://me:s3cret@x:6443", "https://x:6443"),
        ("me:s3cret@x:6443", "x:6443"),
        ("me:s3cret@x/path", "x/path"),
        ("https://me:s3/cret@x", "https://x"),
        ("https://me:a@s3cret@x", "https://x"),
        ("https:me:s3cret@x", "x"),
    ],
)
def test_a_password_in_the_server_is_refused_and_not_shown(
    server: str, shown: str, tmp_path: Path
) -> None:
    said = refusal(ConfigOverrides(server=server), write(tmp_path, CLUSTER, USER))
    assert said == (
        f"the server '{shown}' cannot be used: it contains credentials, which belong into the user"
        " entry"
    )


def test_a_plain_http_server_needs_no_credentials(tmp_path: Path) -> None:
    assert loaded(tmp_path, ConfigOverrides(), {"server": "http://x"}, {}).server == "http://x"


def test_nothing_configured_says_what_to_do(tmp_path: Path) -> None:
    said = refusal(ConfigOverrides(), at_home(tmp_path))
    assert said.startswith(f"{REFUSED} No cluster is configured (looked at {tmp_path}/.kube/config")
    assert refusal(ConfigOverrides(), {"KUBECONFIG": f"{tmp_path}/a:{tmp_path}/b"}).startswith(
        f"{REFUSED} No cluster is configured (looked at {tmp_path}/a, {tmp_path}/b)"
    )
    (tmp_path / "a").write_text("contexts: [{name: c}]")
    assert refusal(ConfigOverrides(kubeconfig=str(tmp_path / "a")), {}).startswith(
        f"{REFUSED} The kubeconfig has no current-context"
    )


def test_without_a_file_flags_and_kubernetes_master_are_enough(tmp_path: Path) -> None:
    environ = at_home(tmp_path, KUBERNETES_MASTER="http://master:1")
    assert load(ConfigOverrides(), environ).server == "http://master:1"
    assert load(ConfigOverrides(server="http://flag:1"), environ).server == "http://flag:1"
    connection = load(ConfigOverrides(server="https://flag", token="t"), at_home(tmp_path))
    assert (connection.context, connection.cluster_name, connection.user_name) == ("", "", "")
    assert connection.namespace == "default"
    said = refusal(ConfigOverrides(server="https://flag"), at_home(tmp_path))
    assert "there are no credentials" in said


@pytest.fixture
def service_account(tmp_path: Path) -> Path:
    directory = tmp_path / "serviceaccount"
    directory.mkdir()
    for name in ("token", "ca.crt", "namespace"):
        (directory / name).write_text(f"{name}\n")
    return directory


def test_a_pod_uses_its_service_account(tmp_path: Path, service_account: Path) -> None:
    connection = load(ConfigOverrides(), at_home(tmp_path, **POD), service_account=service_account)
    assert connection.server == "https://10.0.0.1:443"
    assert connection.cluster.certificate_authority == str(service_account / "ca.crt")
    assert connection.user == UserEntry(token_file=str(service_account / "token"))
    assert connection.namespace == "namespace"
    assert len(connection.notices) == 1
    named = load(
        ConfigOverrides(as_="boss", token="t"),
        at_home(tmp_path, **POD, POD_NAMESPACE="vms") | {"KUBERNETES_SERVICE_HOST": "fd00::1"},
        service_account=service_account,
    )
    assert named.user == UserEntry(token="t", as_="boss")
    assert (named.namespace, named.server) == ("vms", "https://[fd00::1]:443")


def test_a_pod_without_all_of_it_is_no_pod(tmp_path: Path, service_account: Path) -> None:
    for environ in ({}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}):
        found = at_home(tmp_path, **environ)
        said = refusal(ConfigOverrides(), found, service_account=service_account)
        assert said.startswith(REFUSED)
    gone = ConfigOverrides(kubeconfig=str(tmp_path / "gone"))
    pod = at_home(tmp_path, **POD)
    assert refusal(gone, pod, service_account=service_account) == (
        f"stat {tmp_path}/gone: no such file or directory"
    )
    (service_account / "token").unlink()
    said = refusal(ConfigOverrides(), pod, service_account=service_account)
    assert said.startswith(REFUSED)


def test_a_kubeconfig_or_a_flag_goes_before_the_pod(tmp_path: Path, service_account: Path) -> None:
    environ = {**write(tmp_path, CLUSTER, USER), **POD}
    connection = load(ConfigOverrides(), environ, service_account=service_account)
    assert (connection.context, connection.server, connection.notices) == ("c", "https://one", ())
    flags = ConfigOverrides(server="http://flag")
    assert (
        load(flags, at_home(tmp_path, **POD), service_account=service_account).user == UserEntry()
    )
    (tmp_path / "config").write_text("clusters: []\ncontexts: []\n")
    connection = load(ConfigOverrides(), environ, service_account=service_account)
    assert connection.cluster_name == "in-cluster"


def test_a_connection_does_not_show_its_secrets(tmp_path: Path) -> None:
    assert "s3cret" not in repr(loaded(tmp_path, ConfigOverrides(), user={"token": "s3cret"}))
