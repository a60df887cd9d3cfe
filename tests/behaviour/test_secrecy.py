"""No secret is printed or kept, at the highest verbosity: credentials, and the guest's own.

Each secret is a word that stands nowhere else. What is looked through is all that the program says
and every file that it writes; the backups alone hold a guest's secrets, and are private.
"""

from __future__ import annotations

import base64
import json
import os
import re
import stat
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme

from kubectl_harvester_stuck.cli import main
from kubectl_harvester_stuck.connection import kubeconfig
from kubectl_harvester_stuck.errors import ExitStatus
from kubectl_harvester_stuck.k8s.redaction import REDACTED
from tests.support import builders, fastyaml
from tests.support.loopback import ProxyHandler, running
from tests.support.relay import Answer, Passed, PassOn, answer
from tests.support.world import QUICK, Body, Run, World

LOUDEST = ("-v", "10")
WORD = "s3cr3t/w0rd"
"""Of every secret that the API server does not have to know."""

GUEST = "gu3st/w0rd"
CLOUD_INIT = {"cloudInitNoCloud": {"userData": f"#cloud-config\npassword: {GUEST}\n",
                                   "networkData": f"key: {GUEST}\n"}}  # fmt: skip
V1 = "client.authentication.k8s.io/v1"


def forms(secret: str) -> set[str]:
    """How a secret can be written."""
    encoded = {base64.b64encode(one.encode()).decode() for one in (secret, f"me:{secret}")}
    return {secret, quote(secret, ""), *encoded}


def tells(text: str, *secrets: str) -> set[str]:
    """Those of the secrets that the text holds."""
    return {one for secret in secrets for one in forms(secret) if one in text}


VOLUMES = [{"name": "cloudinit", **CLOUD_INIT}]
APPLIED = json.dumps({"spec": {"volumes": VOLUMES}})


def machine(world: World) -> Body:
    """A VM with secrets wherever it can have some."""
    world.create(builders.pvc(world.namespace, "disk-root"))
    world.create({"apiVersion": "v1", "kind": "Secret", "stringData": {"password": GUEST},
                  "metadata": {"namespace": world.namespace, "name": "web"}})  # fmt: skip
    return world.vm(
        spec=builders.with_disks("disk-root", volumes=VOLUMES),
        annotations={"kubectl.kubernetes.io/last-applied-configuration": APPLIED},
    )


def power_cut(world: World) -> Body:
    """The VM, being deleted like all that belongs to it, on a node without power."""
    world.dead_node()
    vm = machine(world)
    vmi = world.vmi(vm, spec={"volumes": VOLUMES})
    launcher = builders.pod(world.namespace, "virt-launcher-web-x7k2p", world.dead, vmi)
    launcher["spec"]["containers"][0]["env"] = [{"name": "STANDALONE_VMI", "value": APPLIED}]
    pod = world.create(launcher)
    involved = {"kind": "VirtualMachine", "namespace": world.namespace, "name": "web",
                "uid": vm["metadata"]["uid"]}  # fmt: skip
    world.create({"apiVersion": "v1", "kind": "Event", "involvedObject": involved,
                  "metadata": {"namespace": world.namespace, "name": "event"}, "type": "Warning",
                  "reason": "Odd", "message": f"I do not like {APPLIED}"})  # fmt: skip
    world.delete(pod, gracePeriodSeconds=1)
    world.delete(vmi)
    return world.delete(vm)


def asked(world: World) -> list[tuple[str, ...]]:
    """Every command, in the order of a release, as loud as it can be; `restore` comes behind."""
    power = ("--node-powered-off", world.dead)
    unstick = ("unstick", "vm", "web", *power, *QUICK, *LOUDEST)
    return [
        ("list", "-o", "wide", *LOUDEST),
        ("list", "-o", "yaml", *LOUDEST),
        ("diagnose", "vm", "web", *LOUDEST),
        ("diagnose", "-o", "json", *LOUDEST),
        ("check", "-o", "wide", *LOUDEST),
        ("check", "-o", "json", *LOUDEST),
        ("version", "-o", "json", *LOUDEST),
        (*unstick, "--dry-run=client"),
        (*unstick, "--dry-run=server", "-o", "json"),
        unstick,
        (*unstick, "--yes", "-o", "json"),
        (*LOUDEST, "finalizers", "-o", "wide"),
        (*LOUDEST, "journal", "-o", "wide"),
        (*LOUDEST, "journal", "-o", "json"),
        (*LOUDEST, "completion", "install", "--directory", str(world.directory / "bin")),
    ]


def said(world: World, environ: Mapping[str, str]) -> Iterator[tuple[tuple[str, ...], Run]]:
    """What each command says, and what TAB gets."""
    for words in asked(world):
        yield words, world.run(*words, environ=environ)
    for backup in (world.state / "backups").glob("*"):
        for more in (("--dry-run=server",), ("--yes", "-o", "json"), ("--redact",)):
            words = ("restore", str(backup), *more, *LOUDEST)
            yield words, world.run(*words, environ=environ)
    for words in (("unstick", "vm", ""), ("list", "-n", ""), ("list", "--user", "")):
        done = subprocess.run(
            [*world.command, "__complete", *words],
            env=environ, capture_output=True, text=True, check=True,
        )  # fmt: skip
        yield ("__complete", *words), Run(ExitStatus.OK, done.stdout, done.stderr)
    yield SERVING, served(world, environ)


SERVING = ("serve-metrics", "--listen", "127.0.0.1:0", *LOUDEST)


def served(world: World, environ: Mapping[str, str]) -> Run:
    """What is answered to whoever asks for metrics, and what is said meanwhile."""
    with subprocess.Popen(
        [*world.command, *SERVING], env=environ, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        heard: list[str] = []
        try:
            while not (found := re.match("Serving metrics on (http:.*)", "".join(heard[-1:]))):
                heard.append(process.stderr.readline())
                assert heard[-1], heard
            deadline = time.monotonic() + 20
            while "complete 1.0" not in (metrics := _scraped(found[1])):
                assert time.monotonic() < deadline, metrics
                time.sleep(0.1)
        finally:
            process.terminate()
        return Run(ExitStatus.OK, metrics, "".join(heard) + process.stderr.read())


def _scraped(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as response:
        return str(response.read().decode())


def test_every_command_is_asked(world: World) -> None:
    named = {word for words in (*asked(world), ("restore",), SERVING) for word in words}
    assert set(main.cli.commands) <= named


def configured(world: World, user: Body, proxy: str | None = None) -> dict[str, str]:
    """The environment of a kubeconfig with this user, and with a proxy that wants a password."""
    content = world.api.kubeconfig(namespace=world.namespace)
    content["users"][0]["user"] = user
    if proxy:
        url = proxy.replace("//", f"//me:{quote(WORD, '')}@")
        content["clusters"][0]["cluster"]["proxy-url"] = url
    path = world.directory / "kubeconfig-secret"
    path.write_text(fastyaml.dump(content))
    return world.environ(KUBECONFIG=str(path))


def token_of(world: World) -> str:
    """The token that the server takes."""
    return str(world.api.kubeconfig()["users"][0]["user"]["token"])


def plugin(world: World, answered: str, status: int = 0) -> Body:
    """A credential plugin that prints this."""
    path = world.directory / "plugin"
    (world.directory / "answered").write_text(answered)
    path.write_text(f"#!/bin/sh\ncat '{world.directory}/answered'\nexit {status}\n")
    path.chmod(0o755)
    return {"exec": {"apiVersion": V1, "command": str(path), "interactiveMode": "Never"}}


def test_what_a_plugin_says_is_marked_as_its_own(world: World) -> None:
    world.vm()
    user = plugin(world, credential(token=token_of(world)))
    path = Path(user["exec"]["command"])
    path.write_text(path.read_text().replace("\ncat", "\necho 'error: log in at x.io' >&2\ncat"))
    run = world.run("list", environ=configured(world, user))
    assert run.status is ExitStatus.OK
    assert run.err.splitlines()[0] == "exec plugin plugin: error: log in at x.io"
    assert "log in" not in run.out


def credential(**status: object) -> str:
    return json.dumps({"kind": "ExecCredential", "apiVersion": V1, "status": status})


def token_file(world: World) -> Body:
    (world.directory / "file").write_text(token_of(world))
    return {"tokenFile": str(world.directory / "file")}


TAKEN: dict[str, Callable[[World], Body]] = {
    "token": lambda world: {"token": token_of(world)},
    "token file": token_file,
    "plugin": lambda world: plugin(world, credential(token=token_of(world))),
}


@pytest.mark.parametrize("user", TAKEN.values(), ids=TAKEN)
def test_no_command_prints_or_keeps_a_secret(world: World, user: Callable[[World], Body]) -> None:
    before = power_cut(world)
    token = token_of(world)
    with running(handler=ProxyHandler) as proxy:
        for words, run in said(world, configured(world, user(world), proxy.url)):
            assert not tells(run.out + run.err, token, WORD, GUEST), words
            assert "Traceback" not in run.err, run.err
        assert all(seen.header("Proxy-Authorization") for seen in proxy.seen)
        assert proxy.seen
    after = world.now(before)
    assert after is not None, "the VM was not made again"
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    kept = [path for path in world.state.rglob("*") if path.is_file()]
    assert {path.parent.name for path in kept} == {"backups", world.state.name}
    for path in kept:
        holds = {GUEST} if path.parent.name == "backups" else set()
        assert {one for one in (token, WORD, GUEST) if tells(path.read_text(), one)} == holds, path


REFUSED: dict[str, Callable[[World], Body]] = {
    "token": lambda _: {"token": WORD},
    "token with a line break": lambda _: {"token": f"{WORD}\nx"},
    "password": lambda _: {"username": "me", "password": WORD},
    "token and password": lambda _: {"token": WORD, "username": "me", "password": WORD},
    "key": lambda _: {
        "client-certificate-data": base64.b64encode(WORD.encode()).decode(),
        "client-key-data": base64.b64encode(WORD.encode()).decode(),
    },
    "key that is not base64": lambda _: {"client-key-data": f"{WORD}!"},
    "auth provider": lambda _: {"auth-provider": {"name": "oidc", "config": {"id-token": WORD}}},
    "plugin's token": lambda world: plugin(world, credential(token=WORD)),
    "plugin's certificate": lambda world: plugin(
        world, credential(clientCertificateData=WORD, clientKeyData=WORD)
    ),
    "plugin that fails": lambda world: plugin(world, credential(token=WORD), 1),
    "plugin's half JSON": lambda world: plugin(world, credential(token=WORD)[:-2]),
    "plugin's tag": lambda world: plugin(world, f"token: !{WORD}"),
    "plugin's list": lambda world: plugin(world, credential(token=[WORD])),
    "plugin's environment": lambda _: {
        "exec": {
            "apiVersion": V1,
            "command": "no-such-plugin",
            "interactiveMode": "Never",
            "args": [WORD],
            "env": [{"name": "TOKEN", "value": WORD}],
        }
    },
}


@pytest.mark.parametrize("user", REFUSED.values(), ids=REFUSED)
def test_no_failure_prints_a_credential(world: World, user: Callable[[World], Body]) -> None:
    environ = configured(world, user(world))
    for words in (("list",), ("unstick", "vm", "web", "--yes"), ("check", "-o", "yaml")):
        run = world.run(*words, *LOUDEST, environ=environ)
        assert run.status in (ExitStatus.ERROR, ExitStatus.REFUSED)
        assert not tells(run.out + run.err, WORD), run
        assert "Traceback" not in run.err, run.err


@pytest.mark.parametrize(
    "flags",
    [
        ("--server", f"https://me:{WORD}@127.0.0.1"),
        ("--server", f"me:{WORD}@127.0.0.1:6443"),
        ("--token", WORD, "--server", "https://127.0.0.1:1"),
        ("--token", WORD, "--request-timeout", "1ms"),
        ("--token", WORD, "--certificate-authority", "{other}"),
        ("--token", WORD, "--tls-server-name", "elsewhere"),
        ("--token", f"{WORD}\x1b", "--as", "x"),
    ],
    ids=" ".join,
)
def test_no_flag_that_fails_is_printed_with_its_secret(
    world: World, flags: tuple[str, ...]
) -> None:
    other = world.directory / "other.crt"
    other.write_bytes(trustme.CA().cert_pem.bytes())
    given = [flag.format(other=other) for flag in flags]
    for words in (("list",), ("diagnose", "vm", "web", "-o", "json"), ("version",)):
        run = world.run(*words, *given, *LOUDEST)
        assert run.status is ExitStatus.ERROR
        assert not tells(run.out + run.err, WORD), run
        assert "Traceback" not in run.err, run.err


@pytest.mark.parametrize(
    "text",
    [
        f"users:\n- name: a\n  user:\n    token: {WORD}\n\tx: y\n",
        f"users:\n- name: a\n  user:\n    password: !{WORD}\n",
        f"users:\n- name: a\n  user: {WORD}\n",
        f"users:\n- name: a\n  user:\n    client-key-data: {WORD}!\n",
        f"users:\n- name: a\n  user:\n    exec: [{WORD}]\n",
        json.dumps({"users": [{"name": "a", "user": {"token": WORD}}]})[:-1],
    ],
)
def test_no_kubeconfig_that_is_broken_is_quoted(world: World, text: str) -> None:
    path = world.directory / "broken"
    path.write_text(text)
    run = world.run("list", *LOUDEST, environ=world.environ(KUBECONFIG=str(path)))
    assert run.status is ExitStatus.ERROR
    assert str(path) in run.err
    assert not tells(run.err, WORD), run.err


def test_no_proxy_that_fails_is_printed_with_its_password(world: World) -> None:
    for scheme in ("http", "https", "socks5", "ftp"):
        environ = configured(world, {"token": token_of(world)}, f"{scheme}://127.0.0.1:1")
        run = world.run("list", *LOUDEST, environ=environ)
        assert run.status is ExitStatus.ERROR
        assert "proxy" in run.err
        assert not tells(run.err, WORD), run.err


@pytest.mark.in_process("the service account's directory cannot be elsewhere")
def test_the_token_of_a_service_account_is_not_printed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = token_of(world)
    (cluster,) = world.api.kubeconfig()["clusters"]
    authority = base64.b64decode(cluster["cluster"]["certificate-authority-data"])
    (world.directory / "token").write_text(token)
    (world.directory / "ca.crt").write_bytes(authority)
    found = partial(kubeconfig.load, service_account=world.directory)
    monkeypatch.setattr(kubeconfig, "load", found)
    host, port = world.api.url.removeprefix("https://").split(":")
    environ = {"KUBECONFIG": str(world.directory / "none"), "HOME": str(world.directory),
               "KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}  # fmt: skip
    run = world.run("list", "-A", *LOUDEST, environ=environ)
    assert "service account" in run.err
    assert run.status is ExitStatus.OK, run.err
    assert not tells(run.out + run.err, token)


QUOTES: dict[str, str] = {
    "JSON": json.dumps({"spec": {"volumes": [CLOUD_INIT]}}),
    "escaped": json.dumps(json.dumps({"spec": {"volumes": [CLOUD_INIT]}})),
    "field": f'spec.volumes[0].cloudInitNoCloud.userData: Invalid value: "{GUEST}": no',
    "struct": f"&CloudInitNoCloudSource{{UserData:{GUEST},NetworkData:,}}",
}


@pytest.mark.parametrize("quoted", QUOTES.values(), ids=QUOTES)
def test_a_webhook_that_repeats_the_vm_is_cut_short(world: World, quoted: str) -> None:
    def cut_short(*words: str) -> None:
        run = world.run(*words, *LOUDEST)
        assert REDACTED in run.out
        assert not tells(run.out + run.err, GUEST), run.out

    deny = partial(
        world.api.deny_updates,
        "virtualmachines",
        f"I do not like {quoted}",
        namespace=world.namespace,
    )
    world.delete(machine(world))
    veto = deny()
    cut_short("unstick", "vm", "web", *QUICK, "--yes")
    cut_short("unstick", "vm", "web", *QUICK, "--dry-run=server", "-o", "json")
    veto.remove()
    backup = world.unstick("--yes").item["backup"]
    deny(operations=("CREATE",))
    cut_short("restore", backup, "--yes")
    cut_short("restore", backup, "--dry-run=server", "-o", "json")


def test_what_a_change_is_denied_with_is_cut_short_in_the_journal(world: World) -> None:
    power_cut(world)
    message = f"I do not like {QUOTES['JSON']}"
    body = {
        "apiVersion": "v1",
        "kind": "Status",
        "status": "Failure",
        "reason": "Invalid",
        "code": 422,
        "message": f'admission webhook "x" denied the request: {message}',
    }

    def between(request: Passed, pass_on: PassOn) -> Answer | None:
        return answer(422, body) if request.changes("virtualmachines/web") else pass_on()

    with world.past(between) as environ:
        run = world.unstick("--node-powered-off", world.dead, "--yes", environ=environ)
    assert run.status is ExitStatus.UNVERIFIED
    assert "I do not like" in (world.state / "journal.jsonl").read_text()
    assert not tells((world.state / "journal.jsonl").read_text(), GUEST)
    assert not tells(run.out + run.err, GUEST)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077], ids=oct)
def test_what_is_kept_is_private_whatever_the_umask_says(world: World, umask: int) -> None:
    power_cut(world)
    (world.directory / "home").mkdir()
    environ = world.environ(HOME=str(world.directory / "home"), XDG_STATE_HOME="")
    before = os.umask(umask)
    try:
        run = world.unstick("--node-powered-off", world.dead, "--yes", environ=environ)
    finally:
        os.umask(before)
    assert run.status is ExitStatus.OK, run.out + run.err
    kept = list((world.directory / "home").rglob("*"))
    assert {path.name for path in kept} >= {".local", "state", "backups", "journal.jsonl"}
    for path in kept:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert GUEST in Path(run.item["backup"]).read_text()
