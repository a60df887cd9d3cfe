"""What the user entry of a kubeconfig authenticates with.

A token, a token file, basic auth, a client certificate, or what an exec credential plugin
answers (client.authentication.k8s.io). As in kubectl the plugin is asked only when nothing else
is there, and a plugin that fails is an error: nothing is ever sent without the credentials that
were asked for. To a plain http server no credentials are sent.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from kubectl_harvester_stuck.connection.kubeconfig import ClientConfig
from kubectl_harvester_stuck.connection.kubeconfig_file import (
    ClusterEntry,
    ExecConfig,
    UserEntry,
    decode,
)
from kubectl_harvester_stuck.connection.plugin_output import marked_stderr
from kubectl_harvester_stuck.errors import KubeconfigError

_GROUP = "client.authentication.k8s.io"
_VERSIONS = (f"{_GROUP}/v1", f"{_GROUP}/v1beta1")
_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)
_HEADER_NAME_CHARACTERS = "!#$&'*+-.^_`|~"
_AUTH_PROVIDER_HINTS = {
    "azure": "use the exec plugin kubelogin instead",
    "gcp": "use the exec plugin gke-gcloud-auth-plugin instead",
    "oidc": "use an exec plugin such as kubelogin (oidc-login) instead",
}


@dataclass(frozen=True)
class Credential:
    """What goes into a request (`authorization`) and into the TLS handshake, in PEM.

    `certificate` and `key` are the path of a file, or the content. `expires` is when an exec
    plugin has to be asked again.
    """

    authorization: str | None = field(default=None, repr=False)
    certificate: Path | bytes | None = field(default=None, repr=False)
    key: Path | bytes | None = field(default=None, repr=False)
    expires: datetime | None = None

    def has_expired(self) -> bool:
        """Whether the plugin's `expirationTimestamp` has passed; never where it gave none."""
        return self.expires is not None and self.expires.timestamp() < time.time()


class Credentials:
    """The credentials of one connection; safe to use from several threads."""

    def __init__(self, connection: ClientConfig, environ: Mapping[str, str] | None = None) -> None:
        self._connection = connection
        self._environ = os.environ if environ is None else environ
        self._lock = threading.Lock()
        self._answer: Credential | None = None
        self._unproven: Credential | None = None
        """What came of asking a plugin again, as long as the server has not accepted it."""

    def flow(self) -> Generator[Credential, int, None]:
        """The credentials to send one request with; the status of each answer is sent back in.

        After a 401 an exec plugin is asked once more, and the request is to be sent again with
        what it answers. Not if the rejected credential itself came from asking again and was never
        accepted: every request would run the plugin. Raises KubeconfigError.
        """
        credential = self.current()
        status = yield credential
        if status == 401 and credential is not self._unproven:
            self._unproven = self.renewed(credential)
            if self._unproven is not None:
                credential = self._unproven
                status = yield credential
        if status != 401 and credential is self._unproven:
            # It can expire later; then the plugin may be asked again.
            self._unproven = None

    def current(self) -> Credential:
        """What to use now; an exec plugin is asked the first time and after its answer expired.

        A token file is read each time, for its content rotates. Raises KubeconfigError.
        """
        connection = self._connection
        if not connection.server.startswith("https://"):
            return Credential()
        _refuse_auth_provider(connection.user)
        plugin = self._plugin()
        if plugin is None:
            return _static(connection.user)
        with self._lock:
            if self._answer is None or self._answer.has_expired():
                self._answer = self._ask(plugin)
            return self._answer

    def renewed(self, refused: Credential) -> Credential | None:
        """Another credential instead of the `refused` one; None if only a plugin could give it.

        The plugin is asked once for each refused answer, however many threads were refused.
        """
        plugin = self._plugin()
        if not self._connection.server.startswith("https://") or plugin is None:
            return None
        with self._lock:
            if self._answer is None or self._answer is refused:
                self._answer = self._ask(plugin)
            return self._answer

    def _plugin(self) -> ExecConfig | None:
        """The plugin, where nothing goes before it."""
        user = self._connection.user
        others = user.token or user.token_file or user.has_basic_auth
        return None if others or user.certificate is not None else user.exec

    def _ask(self, plugin: ExecConfig) -> Credential:
        try:
            return _run_plugin(plugin, self._connection.cluster, self._environ)
        except ValueError as error:
            raise KubeconfigError(f"getting credentials: {error}") from error


def impersonation(user: UserEntry) -> list[tuple[str, str]]:
    """The headers that ask the server to act as somebody else, each group and value on its own.

    Raises KubeconfigError for a value that no header can have.
    """
    headers = [("Impersonate-User", user.as_)] if user.as_ else []
    headers += [("Impersonate-Group", group) for group in user.as_groups]
    if user.as_uid:
        headers.append(("Impersonate-Uid", user.as_uid))
    for key, values in user.as_user_extra.items():
        name = f"Impersonate-Extra-{quote(key, safe=_HEADER_NAME_CHARACTERS)}"
        headers += [(name, value) for value in values]
    for name, value in headers:
        if any(character < " " or character == "\x7f" for character in value):
            raise KubeconfigError(f"{name} must not contain a line break or control character")
    # The HTTP library encodes in Latin-1, the server expects UTF-8.
    return [(name, value.encode(errors="replace").decode("latin-1")) for name, value in headers]


def _refuse_auth_provider(user: UserEntry) -> None:
    name = user.auth_provider
    if name is not None:
        hint = _AUTH_PROVIDER_HINTS.get(name, "use an exec plugin or a token instead")
        raise KubeconfigError(f'the auth provider "{name}" is not supported: {hint}')


def _static(user: UserEntry) -> Credential:
    authorization = None
    token = _token(user)
    if token:
        authorization = _bearer(token)
    elif user.has_basic_auth:
        pair = f"{user.username}:{user.password}"
        authorization = f"Basic {base64.b64encode(pair.encode(errors='replace')).decode()}"
    return Credential(authorization, certificate=user.certificate, key=user.key)


def _token(user: UserEntry) -> str:
    """The token; the content of a tokenFile goes before it, unless it cannot be read."""
    if not user.token_file:
        return user.token
    try:
        content = Path(user.token_file).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        if user.token:
            return user.token
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise KubeconfigError(f"cannot read the token file {user.token_file}: {why}") from error
    if not content and not user.token:
        raise KubeconfigError(f"the token file {user.token_file} is empty")
    return content or user.token


def _bearer(token: str) -> str:
    # The HTTP library would quote the token in its error.
    if not token.isascii() or not token.isprintable():
        raise KubeconfigError("the token contains a line break or another invalid character")
    return f"Bearer {token}"


def _run_plugin(
    plugin: ExecConfig, cluster: ClusterEntry, environ: Mapping[str, str]
) -> Credential:
    """The plugin's answer; ValueError with the reason if there is none that can be used."""
    version = plugin.api_version
    if version not in _VERSIONS:
        raise ValueError(f'exec plugin: invalid apiVersion "{version}"')
    interactive = _is_interactive(plugin.interactive_mode)
    spec: dict[str, Any] = {"interactive": interactive}
    if plugin.provide_cluster_info:
        spec["cluster"] = _cluster_info(cluster)
    info = {"kind": "ExecCredential", "apiVersion": version, "spec": spec}
    command = os.path.normpath(plugin.command)
    executable = shutil.which(command, path=environ.get("PATH"))
    # Like kubectl, never one that was found in the current directory.
    if executable is None or (os.sep not in command and not Path(executable).is_absolute()):
        hint = "".join(one if one.isprintable() else " " for one in plugin.install_hint)
        raise ValueError(f"exec: executable {command} not found. {' '.join(hint.split())}".strip())
    try:
        with marked_stderr(f"exec plugin {Path(command).name}: ") as stderr:
            # There is no time limit, because it may be waiting for a login.
            done = subprocess.run(  # noqa: S603 - to run what the kubeconfig names is the purpose
                [command, *plugin.args],
                executable=executable,
                env={**environ, **dict(plugin.env), "KUBERNETES_EXEC_INFO": json.dumps(info)},
                stdin=None if interactive else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                check=False,
            )
    except OSError as error:
        raise ValueError(f"exec: {command}: {error.strerror}") from error
    if done.returncode != 0:
        raise ValueError(f"exec: executable {command} failed with exit code {done.returncode}")
    return _answer(done.stdout, version)


def _is_interactive(mode: str) -> bool:
    try:
        terminal = os.isatty(0)
    except OSError:
        terminal = False
    if mode == "Always" and not terminal:
        raise ValueError(
            "exec plugin cannot support interactive mode: standard input is not a terminal"
        )
    return mode != "Never" and terminal


def _cluster_info(cluster: ClusterEntry) -> dict[str, Any]:
    """The cluster as a plugin wants it: self-contained, with the configuration made for it."""
    fields = {
        "server": cluster.server,
        "tls-server-name": cluster.tls_server_name,
        "insecure-skip-tls-verify": cluster.insecure_skip_tls_verify,
        "proxy-url": cluster.proxy_url,
        "disable-compression": cluster.disable_compression,
    }
    info: dict[str, Any] = {key: value for key, value in fields.items() if value}
    try:
        authority = cluster.authority
        if isinstance(authority, Path):
            authority = authority.read_bytes()
        if authority:
            info["certificate-authority-data"] = base64.b64encode(authority).decode()
        for name, content in cluster.extensions:
            if name == f"{_GROUP}/exec":
                info["config"] = content
        json.dumps(info)
    except OSError as error:
        raise ValueError(f"failed to load CA bundle for execProvider: {error.strerror}") from error
    except (TypeError, ValueError, RecursionError):
        raise ValueError(f"the extension {_GROUP}/exec of the cluster is not JSON") from None
    return info


def _answer(stdout: bytes, version: str) -> Credential:
    try:
        answer = decode(stdout)
    except ValueError as error:
        raise ValueError(f"exec: decoding stdout: {error}") from error
    if not isinstance(answer, Mapping) or answer.get("kind") != "ExecCredential":
        raise ValueError("exec: decoding stdout: it is not an ExecCredential")
    if answer.get("apiVersion") != version:
        raise ValueError(
            f"exec: exec plugin is configured to use API version {version}, "
            f"plugin returned version {answer.get('apiVersion')}"
        )
    status = answer.get("status")
    if not isinstance(status, Mapping):
        raise ValueError("exec: exec plugin didn't return a status field")
    keys = ("token", "clientCertificateData", "clientKeyData", "expirationTimestamp")
    values = [status.get(key) or "" for key in keys]
    if not all(isinstance(value, str) for value in values):
        raise ValueError("exec: decoding stdout: the fields of status must be text")
    token, certificate, key, expires = values
    if not (token or certificate or key):
        raise ValueError("exec: exec plugin didn't return a token or cert/key pair")
    if bool(certificate) != bool(key):
        raise ValueError("exec: exec plugin returned only certificate or key, not both")
    return Credential(
        authorization=_bearer(token) if token else None,
        certificate=certificate.encode() or None,
        key=key.encode() or None,
        expires=_time(expires) if expires else None,
    )


def _time(text: str) -> datetime:
    found = _TIMESTAMP.fullmatch(text)
    if not found:
        raise ValueError("exec: decoding stdout: expirationTimestamp is not a time")
    return datetime.fromisoformat(found[1] + found[2].replace("Z", "+00:00"))
