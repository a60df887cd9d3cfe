"""Tokens, token files, certificates and exec credential plugins, as kubectl uses them."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from kubectl_harvester_stuck.connection.credentials import Credential, Credentials, impersonation
from kubectl_harvester_stuck.connection.kubeconfig import ClientConfig
from kubectl_harvester_stuck.errors import KubeconfigError
from tests.support.loopback import client_config, user_entry

V1 = "client.authentication.k8s.io/v1"
BASE64 = base64.b64encode(b"pem").decode()


def connection(
    user: Mapping[str, Any], server: str = "https://one", **cluster: Any
) -> ClientConfig:
    return client_config(server, user, **cluster)


class Plugin:
    """A credential plugin: a script that records how it was called and prints `answer`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "plugin"
        self.answers(token="t")
        self.path.write_text(
            f"#!{sys.executable}\n"
            "import json, os, pathlib, sys\n"
            f"here = pathlib.Path({str(directory)!r})\n"
            "call = {'args': sys.argv[1:], 'cwd': os.getcwd(), 'env': dict(os.environ),\n"
            "        'info': json.loads(os.environ['KUBERNETES_EXEC_INFO']),\n"
            "        'stdin': sys.stdin.read()}\n"
            "with (here / 'calls').open('a') as file:\n"
            "    print(json.dumps(call), file=file)\n"
            "print('the plugin says', file=sys.stderr)\n"
            "sys.stdout.write((here / 'answer').read_text())\n"
            "sys.exit(int((here / 'status').read_text()))\n"
        )
        self.path.chmod(self.path.stat().st_mode | stat.S_IXUSR)

    def answers(self, text: str | None = None, exit_status: int = 0, **status: object) -> None:
        if text is None:
            text = json.dumps({"kind": "ExecCredential", "apiVersion": V1, "status": status})
        (self.directory / "answer").write_text(text)
        (self.directory / "status").write_text(str(exit_status))

    def user(self, **more: object) -> dict[str, Any]:
        plugin = {"apiVersion": V1, "command": str(self.path), "interactiveMode": "Never", **more}
        return {"exec": plugin}

    @property
    def calls(self) -> list[dict[str, Any]]:
        file = self.directory / "calls"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def plugin(tmp_path: Path) -> Plugin:
    return Plugin(tmp_path)


def refusal(user: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(KubeconfigError) as caught:
        Credentials(connection(user), environ).current()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_needs_no_plugin(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(" from-file\n")
    file = str(tmp_path / "token")
    for user, authorization in (
        ({"token": "t"}, "Bearer t"),
        ({"tokenFile": file}, "Bearer from-file"),
        ({"token": "t", "tokenFile": file}, "Bearer from-file"),
        ({"token": "t", "tokenFile": f"{file}-gone"}, "Bearer t"),
        ({"username": "me", "password": "p:w"}, "Basic bWU6cDp3"),
    ):
        assert Credentials(connection(user)).current().authorization == authorization
    data = {"client-certificate-data": BASE64, "client-key-data": BASE64}
    assert Credentials(connection(data)).current() == Credential(None, b"pem", b"pem")
    files = {"client-certificate": "/c", "client-key": "/k"}
    assert Credentials(connection(files)).current() == Credential(None, Path("/c"), Path("/k"))


def test_a_token_file_is_read_each_time(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old")
    credentials = Credentials(connection({"tokenFile": str(file)}))
    assert credentials.current().authorization == "Bearer old"
    file.write_text("new")
    assert credentials.current().authorization == "Bearer new"


def test_tokens_that_cannot_be_sent_are_refused_and_not_shown(tmp_path: Path) -> None:
    empty, binary = tmp_path / "empty", tmp_path / "binary"
    empty.write_text("\n")
    binary.write_bytes(b"\xff\x00")
    assert refusal({"tokenFile": str(empty)}) == f"the token file {empty} is empty"
    assert refusal({"tokenFile": str(binary)}).endswith("it is not text")
    assert refusal({"tokenFile": "/gone/token"}).endswith("No such file or directory")
    for token in ("s3cret\n", "s3cret\r\nX: y", "s3crét"):
        assert "s3cr" not in refusal({"token": token})


def test_no_credentials_for_a_plain_http_server(plugin: Plugin) -> None:
    for user in ({"token": "t"}, plugin.user(), {"auth-provider": {"name": "gcp"}}):
        credentials = Credentials(connection(user, "http://one"))
        assert credentials.current() == Credential()
        assert credentials.renewed(Credential()) is None
    assert plugin.calls == []


@pytest.mark.parametrize(
    "other",
    [
        {"token": "t"},
        {"username": "u"},
        {"client-certificate-data": BASE64, "client-key-data": BASE64},
    ],
)
def test_a_plugin_is_not_asked_when_something_else_is_there(
    plugin: Plugin, other: dict[str, str]
) -> None:
    credentials = Credentials(connection({**plugin.user(), **other}))
    assert credentials.renewed(credentials.current()) is None
    assert plugin.calls == []


def test_a_plugin_is_called_as_by_kubectl(
    plugin: Plugin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setenv("OUTER", "1")
    monkeypatch.setenv("CHANGED", "no")
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    user = plugin.user(args=["$HOME", ";x"], env=[{"name": "CHANGED", "value": "yes"}])
    assert Credentials(connection(user)).current().authorization == "Bearer t"
    (call,) = plugin.calls
    assert call["args"] == ["$HOME", ";x"]
    assert call["cwd"] == str(tmp_path / "cwd")
    assert (call["env"]["OUTER"], call["env"]["CHANGED"]) == ("1", "yes")
    assert call["info"] == {
        "kind": "ExecCredential",
        "apiVersion": V1,
        "spec": {"interactive": False},
    }
    assert call["stdin"] == ""
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "exec plugin plugin: the plugin says\n")


def shell(plugin: Plugin, *lines: str) -> dict[str, Any]:
    """The user of a plugin that runs these lines and then answers."""
    text = "\n".join(["#!/bin/sh", *lines, f"cat '{plugin.directory}/answer'"])
    plugin.path.write_text(f"{text}\n")
    return plugin.user()


def test_each_line_that_a_plugin_writes_is_marked_as_its_own(plugin: Plugin, capfd: Any) -> None:
    said = r"printf 'one\n\ntwo: \303' >&2; sleep 0.2; printf '\251 three\nerror: no\nfour' >&2"
    Credentials(connection(shell(plugin, said))).current()
    mark = "exec plugin plugin: "
    assert capfd.readouterr().err == (
        f"{mark}one\n\n{mark}two: \u00e9 three\n{mark}error: no\n{mark}four\n"
    )


def test_a_question_of_a_plugin_is_shown_before_it_is_answered(
    plugin: Plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    answered = plugin.directory / "answered"
    user = shell(plugin, "printf 'Code: ' >&2", f"while [ ! -e '{answered}' ]; do sleep 0.05; done")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(Credentials(connection(user)).current)
        deadline = time.monotonic() + 20
        while not shown.getvalue() and time.monotonic() < deadline:
            time.sleep(0.02)
        seen = shown.getvalue()
        answered.touch()
        assert asked.result().authorization == "Bearer t"
    assert seen == "exec plugin plugin: Code: "
    assert shown.getvalue() == f"{seen}\n"


def test_what_a_plugin_leaves_running_is_not_waited_for(plugin: Plugin) -> None:
    user = shell(plugin, "sleep 60 >/dev/null &", f"echo $! >'{plugin.directory}/left'")
    began = time.monotonic()
    try:
        assert Credentials(connection(user)).current().authorization == "Bearer t"
        assert time.monotonic() - began < 30
    finally:
        os.kill(int((plugin.directory / "left").read_text()), signal.SIGTERM)


def test_a_plugin_whose_words_nobody_can_read_answers_all_the_same(
    plugin: Plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    said = "head -c 300000 /dev/zero >&2"
    user = shell(plugin, said)
    assert Credentials(connection(user)).current().authorization == "Bearer t"


def test_a_plugin_is_told_about_the_cluster(plugin: Plugin, tmp_path: Path) -> None:
    (tmp_path / "ca").write_bytes(b"pem")
    extension = {"name": "client.authentication.k8s.io/exec", "extension": {"audience": ["x"]}}
    cluster = {
        "tls_server_name": "name",
        "certificate_authority": str(tmp_path / "ca"),
        "proxy_url": "http://proxy",
        "disable_compression": True,
        "extensions": [{"name": "other"}, extension],
    }
    user = plugin.user(provideClusterInfo=True)
    Credentials(connection(user, "https://one/prefix", **cluster)).current()
    assert plugin.calls[0]["info"]["spec"]["cluster"] == {
        "server": "https://one/prefix",
        "tls-server-name": "name",
        "certificate-authority-data": BASE64,
        "proxy-url": "http://proxy",
        "disable-compression": True,
        "config": {"audience": ["x"]},
    }
    insecure = connection(user, insecure_skip_tls_verify=True)
    Credentials(insecure).current()
    assert plugin.calls[1]["info"]["spec"]["cluster"] == {
        "server": "https://one",
        "insecure-skip-tls-verify": True,
    }


def test_an_interactive_plugin_needs_a_terminal(
    plugin: Plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"typed\n")
    os.close(writing)
    kept = os.dup(0)
    os.dup2(reading, 0)
    try:
        said = refusal(plugin.user(interactiveMode="Always"))
        assert "standard input is not a terminal" in said
        Credentials(connection(plugin.user(interactiveMode="IfAvailable"))).current()
        monkeypatch.setattr(os, "isatty", lambda descriptor: descriptor == 0)
        Credentials(connection(plugin.user(interactiveMode="Never"))).current()
        Credentials(connection(plugin.user(interactiveMode="Always"))).current()
    finally:
        os.dup2(kept, 0)
        os.close(kept)
        os.close(reading)
    seen = [(call["info"]["spec"]["interactive"], call["stdin"]) for call in plugin.calls]
    assert seen == [(False, ""), (False, ""), (True, "typed\n")]


def test_a_missing_plugin_is_an_error_with_its_hint(tmp_path: Path) -> None:
    user = {
        "exec": {
            "apiVersion": V1,
            "command": "no-such-plugin",
            "interactiveMode": "Never",
            "installHint": "get it\n  from \x1b[1mthere",
        }
    }
    words = "getting credentials: exec: executable no-such-plugin not found."
    assert refusal(user) == f"{words} get it from [1mthere"
    user["exec"]["command"] = str(tmp_path)
    assert "not found" in refusal(user)


def test_a_plugin_is_never_found_in_the_current_directory(
    plugin: Plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(plugin.directory)
    user = plugin.user(command="plugin")
    assert "not found" in refusal(user, {"PATH": "."})
    found = Credentials(connection(user), {"PATH": str(plugin.directory)})
    assert found.current().authorization == "Bearer t"


def answer(**changed: object) -> str:
    status = {"token": "s3cret"}
    return json.dumps({"kind": "ExecCredential", "apiVersion": V1, "status": status} | changed)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not an ExecCredential"),
        ("s3cret", "not an ExecCredential"),
        ("[s3cret", "decoding stdout"),
        (answer(kind="Secret"), "not an ExecCredential"),
        (answer(apiVersion="client.authentication.k8s.io/v1beta1"), "plugin returned version"),
        (answer(apiVersion=None), "plugin returned version"),
        (answer(status=None), "didn't return a status field"),
        (answer(status={}), "didn't return a token or cert/key pair"),
        (answer(status={"token": 5}), "must be text"),
        (answer(status={"token": "t", "clientKeyData": "k"}), "only certificate or key"),
        (answer(status={"token": "s3cret\n"}), "invalid character"),
        (answer(status={"token": "t", "expirationTimestamp": "soon"}), "not a time"),
        (answer(status={"token": "t", "expirationTimestamp": "2024-13-01T00:00:00Z"}), "month"),
    ],
)
def test_an_unusable_answer_is_an_error(plugin: Plugin, text: str, words: str) -> None:
    plugin.answers(text)
    said = refusal(plugin.user())
    assert words in said
    assert "s3cret" not in said


def test_a_failing_plugin_is_an_error(plugin: Plugin) -> None:
    plugin.answers(exit_status=3)
    assert refusal(plugin.user()) == (
        f"getting credentials: exec: executable {plugin.path} failed with exit code 3"
    )
    said = refusal(plugin.user(apiVersion="client.authentication.k8s.io/v1alpha1"))
    assert 'invalid apiVersion "client.authentication.k8s.io/v1alpha1"' in said


def test_token_and_certificate_of_a_plugin_are_both_used(plugin: Plugin) -> None:
    plugin.answers(token="t", clientCertificateData="crt", clientKeyData="key")
    assert Credentials(connection(plugin.user())).current() == Credential(
        "Bearer t", b"crt", b"key"
    )
    plugin.answers("kind: ExecCredential\napiVersion: " + V1 + "\nstatus: {token: yaml}\n")
    assert Credentials(connection(plugin.user())).current().authorization == "Bearer yaml"


def test_an_answer_is_kept_until_it_expires(plugin: Plugin) -> None:
    soon = (datetime.now(timezone.utc) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    plugin.answers(token="one", expirationTimestamp=soon)
    credentials = Credentials(connection(plugin.user()))
    assert {credentials.current().authorization for _ in range(3)} == {"Bearer one"}
    assert len(plugin.calls) == 1
    plugin.answers(token="old", expirationTimestamp="2020-01-01T01:00:00.123456789+01:00")
    expired = Credentials(connection(plugin.user()))
    assert expired.current().expires == datetime(2020, 1, 1, tzinfo=timezone.utc)
    plugin.answers(token="two")
    assert expired.current().authorization == "Bearer two"


def test_eight_threads_ask_once(plugin: Plugin) -> None:
    credentials = Credentials(connection(plugin.user()))
    together = threading.Barrier(8)

    def both() -> tuple[Credential, Credential | None]:
        together.wait()
        first = credentials.current()
        together.wait()
        return first, credentials.renewed(first)

    with ThreadPoolExecutor(8) as pool:
        pairs = [future.result() for future in [pool.submit(both) for _ in range(8)]]
    assert len(plugin.calls) == 2
    assert len({id(first) for first, _ in pairs}) == 1
    assert len({id(renewed) for _, renewed in pairs}) == 1
    assert pairs[0][0] is not pairs[0][1]


@pytest.mark.parametrize("name", ["gcp", "azure", "oidc", "other"])
def test_auth_providers_are_refused_with_a_hint(name: str) -> None:
    said = refusal({"auth-provider": {"name": name}, "token": "t"})
    assert said.startswith(f'the auth provider "{name}" is not supported: use ')


def test_impersonation_repeats_groups_and_extra_values() -> None:
    user = {
        "as": "jürgen",
        "as-uid": "7",
        "as-groups": ["a", "b,c"],
        "as-user-extra": {"acme.com/x y%": ["1", "2"]},
    }
    assert impersonation(user_entry(user)) == [
        ("Impersonate-User", "jürgen".encode().decode("latin-1")),
        ("Impersonate-Group", "a"),
        ("Impersonate-Group", "b,c"),
        ("Impersonate-Uid", "7"),
        ("Impersonate-Extra-acme.com%2Fx%20y%25", "1"),
        ("Impersonate-Extra-acme.com%2Fx%20y%25", "2"),
    ]
    assert impersonation(user_entry({"token": "t"})) == []
    with pytest.raises(KubeconfigError, match="Impersonate-Group must not contain"):
        impersonation(user_entry({"as": "a", "as-groups": ["g\r\nAuthorization: x"]}))


def test_a_credential_does_not_show_its_secrets() -> None:
    assert "s3cret" not in repr(Credential("s3cret", b"s3cret", b"s3cret"))
