"""The merged kubeconfig is that of kubectl, and what cannot be used is one clear line."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypedDict

import pytest

from kubectl_harvester_stuck.connection.kubeconfig import ConfigOverrides, load
from kubectl_harvester_stuck.errors import KubeconfigError

PEM = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
DATA = base64.b64encode(PEM).decode()
EXEC = {"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never"}


def config(
    cluster: Mapping[str, Any] | None = None,
    user: Mapping[str, Any] | None = None,
    *,
    name: str = "one",
    context: Mapping[str, Any] | None = None,
    current: str | None = None,
) -> str:
    """A kubeconfig with one context, cluster and user, all called `name`."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name if current is None else current,
            "contexts": [{"name": name, "context": context or {"cluster": name, "user": name}}],
            "clusters": [{"name": name, "cluster": cluster or {"server": f"https://{name}"}}],
            "users": [{"name": name, "user": user or {"token": f"token-{name}"}}],
        }
    )


class Flags(TypedDict, total=False):
    """Those that both have under one name."""

    kubeconfig: str
    context: str


@dataclass(frozen=True)
class Case:
    """Files to write, and what kubectl and we are called with (paths relative to the files)."""

    files: Mapping[str, str | bytes]
    kubeconfig: str | None = "a"
    flags: Flags = field(default_factory=Flags)
    cwd: str = "."


ONE, TWO = config(name="one"), config(name="two")
UNDECODABLE: dict[str, str | bytes] = {
    "a list": "- a\n",
    "a text": "hello",
    "a number": "5",
    "binary": b"\x00\x01\xff",
    "not UTF-8": b"clusters: \xff\xfe",
    "broken YAML": "clusters: [",
    "a tab": "\tclusters: []",
    "deeply nested": "[" * 5000,
    "clusters are a mapping": "clusters: {}",
    "users are a text": "users: none",
    "an entry is a text": "contexts: [one]",
    "a name is a number": "clusters: [{name: 1, cluster: {server: x}}]",
    "a cluster is a list": "clusters: [{name: a, cluster: []}]",
    "a token is a number": "users: [{name: a, user: {token: 123}}]",
    "a flag is a text": "clusters: [{name: a, cluster: {insecure-skip-tls-verify: 'true'}}]",
    "groups are a text": "users: [{name: a, user: {as-groups: g}}]",
    "extra is a text": "users: [{name: a, user: {as-user-extra: {k: v}}}]",
    "arguments are numbers": "users: [{name: a, user: {exec: {args: [1]}}}]",
    "data is not base64": "clusters: [{name: a, cluster: {certificate-authority-data: '!'}}]",
    "a name twice": "clusters: [{name: a}, {name: a}]",
    "another kind": "kind: Deployment",
    "another version": "apiVersion: v2\nkind: Config",
    "current-context is a list": "current-context: []",
}
CASES = {
    "one file": Case({"a": ONE}),
    "the first current-context wins": Case({"a": ONE, "b": TWO}, "a:b"),
    "only the second has one": Case({"a": config(current=""), "b": TWO}, "a:b"),
    "an empty current-context after": Case({"a": ONE, "b": config(name="two", current="")}, "a:b"),
    "the first entry wins whole": Case(
        {
            "a": config({"server": "https://first"}, {"username": "u", "password": "p"}),
            "b": config(
                {"server": "https://second", "tls-server-name": "x"},
                {"as": "boss"},
                context={"cluster": "one", "user": "one", "namespace": "vms"},
            ),
        },
        "a:b",
    ),
    "context in one, cluster in another": Case(
        {
            "a": "current-context: c\ncontexts: [{name: c, context: {cluster: two, user: one}}]",
            "b": TWO,
            "c": config({"server": "https://one"}, {"token": "t"}),
        },
        "a:b:c",
    ),
    "an empty file": Case({"a": "", "b": ONE}, "a:b"),
    "a file of comments": Case({"a": "# nothing\n", "b": ONE}, "a:b"),
    "a null file": Case({"a": "null\n", "b": ONE}, "a:b"),
    "null lists": Case({"a": "clusters: null\nusers:\ncontexts: ~\n", "b": ONE}, "a:b"),
    "a missing file": Case({"b": ONE}, "a:b"),
    "empty names": Case({"a": ONE}, ":a::"),
    "a file twice": Case({"a": ONE, "b": TWO}, "a:b:a"),
    "an empty KUBECONFIG": Case({".kube/config": ONE}, ""),
    "no KUBECONFIG": Case({".kube/config": ONE}, None),
    "--kubeconfig": Case({"a": ONE, "b": TWO}, "a", {"kubeconfig": "b"}),
    "--kubeconfig is missing": Case({"a": ONE}, "a", {"kubeconfig": "c"}),
    "--context": Case({"a": ONE, "b": TWO}, "a:b", {"context": "two"}),
    "--context is unknown": Case({"a": ONE}, "a", {"context": "nope"}),
    "current-context is unknown": Case({"a": config(current="nope")}),
    "the cluster is unknown": Case({"a": config(context={"cluster": "x", "user": "one"})}),
    "the user is unknown": Case({"a": config(context={"cluster": "one", "user": "x"})}),
    "no current-context": Case({"a": config(current="")}),
    "no file at all": Case({}, None),
    "a namespace": Case(
        {"a": config(context={"cluster": "one", "user": "one", "namespace": "vms"})}
    ),
    "JSON with tabs": Case({"a": json.dumps(json.loads(ONE), indent="\t")}),
    "several documents": Case({"a": f"{ONE}\n---\n{TWO}"}),
    "a date stays text": Case({"a": ONE.replace('"token-one"', "2024-01-02")}),
    "unknown fields": Case({"a": config({"server": "https://x", "color": "red"})}),
    "relative paths": Case(
        {
            "d/a": config(
                {"server": "https://x", "certificate-authority": "pki/ca"},
                {"client-certificate": "../c", "client-key": "./pki/../pki/k"},
            ),
            "d/pki/ca": PEM,
            "c": PEM + b"cert",
            "d/pki/k": PEM + b"key",
        },
        "d/a",
    ),
    "relative KUBECONFIG": Case(
        {"d/a": config({"server": "https://x", "certificate-authority": "ca"}), "d/ca": PEM},
        None,
        {"kubeconfig": "./d/a"},
    ),
    "relative tokenFile": Case({"d/a": config(user={"tokenFile": "../t"}), "t": "x"}, "d/a"),
    "relative exec command": Case(
        {"d/a": config(user={"exec": {**EXEC, "command": "./bin/login"}})}, "d/a"
    ),
    "exec command of PATH": Case(
        {"d/a": config(user={"exec": {**EXEC, "command": "login", "args": ["a", ""]}})}, "d/a"
    ),
    "exec defaults": Case(
        {
            "a": config(
                user={
                    "exec": {
                        "apiVersion": "client.authentication.k8s.io/v1beta1",
                        "command": "login",
                        "env": [{"name": "A", "value": "b"}],
                        "provideClusterInfo": True,
                        "installHint": "install it",
                    }
                }
            )
        }
    ),
    "data": Case(
        {
            "a": config(
                {"server": "https://x", "certificate-authority-data": DATA},
                {"client-certificate-data": DATA, "client-key-data": DATA},
            )
        }
    ),
    "impersonation": Case(
        {
            "a": config(
                user={
                    "token": "t",
                    "as": "boss",
                    "as-uid": "7",
                    "as-groups": ["a", "b"],
                    "as-user-extra": {"scopes": ["x", "y"]},
                }
            )
        }
    ),
    "all of a cluster": Case(
        {
            "a": config(
                {
                    "server": "https://x/k8s/clusters/c-1",
                    "tls-server-name": "y",
                    "insecure-skip-tls-verify": True,
                    "proxy-url": "socks5://localhost:1",
                    "disable-compression": True,
                    "extensions": [{"name": "e", "extension": {"a": [1, None]}}],
                }
            )
        }
    ),
    **{f"undecodable: {name}": Case({"a": text}) for name, text in UNDECODABLE.items()},
    **{
        f"undecodable second: {name}": Case({"a": ONE, "b": UNDECODABLE[name]}, "a:b")
        for name in ("broken YAML", "binary", "a list")
    },
}


def write(case: Case, root: Path) -> dict[str, str]:
    """Writes the files of `case` and returns its environment."""
    for name, text in case.files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    environ = {"HOME": str(root)}
    if case.kubeconfig is not None:
        names = case.kubeconfig.split(":")
        environ["KUBECONFIG"] = ":".join(name and str(root / name) for name in names)
    return environ


def flattened(entry: Mapping[str, Any]) -> dict[str, Any]:
    """`entry` with the content of its certificate files, as `kubectl config view --flatten`."""
    flat = {key: value for key, value in entry.items() if value not in (None, "", [], {}, False)}
    for key in ("certificate-authority", "client-certificate", "client-key"):
        if key in flat:
            flat[f"{key}-data"] = base64.b64encode(Path(flat.pop(key)).read_bytes()).decode()
    if "exec" in flat:
        flat["exec"] = flattened(flat["exec"])
    return flat


SPELLED = {
    "as_": "as",
    "token_file": "tokenFile",
    "api_version": "apiVersion",
    "install_hint": "installHint",
    "provide_cluster_info": "provideClusterInfo",
    "interactive_mode": "interactiveMode",
}
PAIRS = {"env": ("name", "value"), "extensions": ("name", "extension")}


def spelled(entry: Any) -> dict[str, Any]:
    """An entry as a kubeconfig spells it."""
    found: dict[str, Any] = {}
    for one in fields(entry):
        value = getattr(entry, one.name)
        if one.name in PAIRS:
            value = [dict(zip(PAIRS[one.name], pair, strict=True)) for pair in value]
        elif isinstance(value, bytes):
            value = base64.b64encode(value).decode()
        elif isinstance(value, tuple):
            value = list(value)
        elif isinstance(value, Mapping):
            value = {key: list(values) for key, values in value.items()}
        elif is_dataclass(value):
            value = spelled(value)
        found[SPELLED.get(one.name, one.name.replace("_", "-"))] = value
    return found


def resolved(user: dict[str, Any], base: Path) -> dict[str, Any]:
    """`user` with the two paths that `kubectl config view` leaves relative to the file."""
    if "tokenFile" in user:
        user["tokenFile"] = os.path.normpath(base / user["tokenFile"])
    if "/" in user.get("exec", {}).get("command", ""):
        user["exec"]["command"] = os.path.normpath(base / user["exec"]["command"])
    return user


def view(kubectl: Path, case: Case, environ: Mapping[str, str], root: Path) -> Any:
    """What kubectl makes of `case`, None if it refuses."""
    flags = [f"--{name}={value}" for name, value in case.flags.items()]
    asked = ("config", "view", "--minify", "--flatten", "--raw", "--merge", "--output=json")
    done = subprocess.run(
        [kubectl, *asked, *flags], env=dict(environ), cwd=root, capture_output=True, check=False
    )
    return json.loads(done.stdout) if done.returncode == 0 else None


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_is_merged_like_kubectl(
    case: Case, kubectl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = write(case, tmp_path)
    monkeypatch.chdir(tmp_path)
    expected = view(kubectl, case, environ, tmp_path)
    if expected is None:
        with pytest.raises(KubeconfigError) as caught:
            load(ConfigOverrides(**case.flags), environ)
        assert "\n" not in str(caught.value)
        return
    connection = load(ConfigOverrides(**case.flags), environ)
    context = expected["contexts"][0]["context"]
    assert connection.context == expected["current-context"]
    assert connection.cluster_name == context["cluster"]
    assert connection.user_name == context["user"]
    assert connection.namespace == context.get("namespace", "default")
    assert flattened(spelled(connection.cluster)) == flattened(expected["clusters"][0]["cluster"])
    base = (tmp_path / (case.kubeconfig or "a").split(":")[0]).parent
    user = resolved(expected["users"][0]["user"], base)
    assert flattened(spelled(connection.user)) == flattened(user)


def test_kubectl_accepts_a_plain_file(kubectl: Path, tmp_path: Path) -> None:
    """A kubectl that refused everything would make the table worthless."""
    plain = Case({"a": ONE})
    assert view(kubectl, plain, write(plain, tmp_path), tmp_path) is not None


def refusal(tmp_path: Path, text: str | bytes) -> str:
    """The one line with which a file with `text` is refused."""
    with pytest.raises(KubeconfigError) as caught:
        load(ConfigOverrides(), write(Case({"a": text}), tmp_path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("text", UNDECODABLE.values(), ids=UNDECODABLE.keys())
def test_an_undecodable_file_is_named(text: str | bytes, tmp_path: Path) -> None:
    assert refusal(tmp_path, text).startswith(f'error loading config file "{tmp_path / "a"}": ')


@pytest.mark.parametrize("plural", ["clusters", "contexts", "users"])
def test_an_entry_without_a_name_is_named(plural: str, tmp_path: Path) -> None:
    assert refusal(tmp_path, f"{plural}: [{{name: a}}, {{}}]") == (
        f'error loading config file "{tmp_path / "a"}": {plural}[1] has no name'
    )


def test_no_message_quotes_a_secret(tmp_path: Path) -> None:
    for text in (
        *("token: s3cret\n\tx", "s3cret", "a: !s3 s3cret", "password: *s3cret"),
        *("password: !s3cret", "a: !s3cret!x", "%TAG !s3cret! a\n%TAG !s3cret! a\n--- x"),
        *(f"a: !!{tag} s3cret" for tag in ("int", "bool", "timestamp", "binary", "s3cret")),
    ):
        assert "s3cret" not in refusal(tmp_path, text)


def test_what_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KubeconfigError, match=rf'"{tmp_path}": Is a directory'):
        load(ConfigOverrides(kubeconfig=str(tmp_path)), {})
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(KubeconfigError, match=rf'"{loop}": Too many levels'):
        load(ConfigOverrides(kubeconfig=str(loop)), {})

    def denied(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", denied)
    assert refusal(tmp_path, ONE) == (
        f'error loading config file "{tmp_path / "a"}": Permission denied'
    )
