"""One kubeconfig file: what it may contain, decoded and checked.

The fields and their types are those of kubectl; fields that kubectl does not know are ignored,
as kubectl does. A file that cannot be decoded is a KubeconfigError that names the file, even when
another file would have been enough. No message quotes the content: it may be a secret.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from kubectl_harvester_stuck.errors import KubeconfigError

_Entry = TypeVar("_Entry")


@dataclass(frozen=True)
class ClusterEntry:
    """A cluster of a kubeconfig. A text that is empty and data that are None were not given.

    `certificate_authority` is a path; `extensions` are pairs of a name and anything.
    """

    server: str = ""
    tls_server_name: str = ""
    insecure_skip_tls_verify: bool = False
    certificate_authority: str = ""
    certificate_authority_data: bytes | None = None
    proxy_url: str = ""
    disable_compression: bool = False
    extensions: tuple[tuple[str, Any], ...] = ()

    @property
    def authority(self) -> Path | bytes | None:
        """Whom to trust, in PEM: a file or its content; None for those whom the system trusts."""
        return _pem(self.certificate_authority, self.certificate_authority_data)


@dataclass(frozen=True)
class ExecConfig:
    """An exec credential plugin. `env` are pairs of name and value."""

    command: str = ""
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    api_version: str = ""
    install_hint: str = ""
    provide_cluster_info: bool = False
    interactive_mode: str = ""


@dataclass(frozen=True)
class UserEntry:
    """A user of a kubeconfig. A text that is empty and data that are None were not given.

    `client_certificate`, `client_key` and `token_file` are paths; `auth_provider` is its name.
    """

    client_certificate: str = ""
    client_certificate_data: bytes | None = None
    client_key: str = ""
    client_key_data: bytes | None = None
    token: str = ""
    token_file: str = ""
    as_: str = ""
    as_uid: str = ""
    as_groups: tuple[str, ...] = ()
    as_user_extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    username: str = ""
    password: str = ""
    auth_provider: str | None = None
    exec: ExecConfig | None = None

    @property
    def certificate(self) -> Path | bytes | None:
        """The client certificate in PEM: a file, or its content."""
        return _pem(self.client_certificate, self.client_certificate_data)

    @property
    def key(self) -> Path | bytes | None:
        """The key of the client certificate in PEM: a file, or its content."""
        return _pem(self.client_key, self.client_key_data)

    @property
    def has_basic_auth(self) -> bool:
        """Whether there is a user name or a password."""
        return bool(self.username or self.password)


@dataclass(frozen=True)
class ContextEntry:
    """A context of a kubeconfig: the names of a cluster and of a user, and a namespace."""

    cluster: str = ""
    user: str = ""
    namespace: str = ""


@dataclass(frozen=True)
class KubeconfigFile:
    """The entries of one file by name, with absolute paths."""

    current_context: str
    clusters: Mapping[str, ClusterEntry]
    contexts: Mapping[str, ContextEntry]
    users: Mapping[str, UserEntry]


def _pem(path: str, data: bytes | None) -> Path | bytes | None:
    """The data, which go before the file of `path`."""
    if data is not None:
        return data
    return Path(path) if path else None


def read_file(file: Path, *, must_exist: bool = False) -> KubeconfigFile | None:
    """The decoded `file`; None if it is missing and need not exist.

    Raises KubeconfigError, one line that names the file.
    """
    try:
        return parse(decode(file.read_bytes()), os.path.abspath(file.parent))
    except FileNotFoundError as error:
        if not must_exist:
            return None
        raise KubeconfigError(f"stat {file}: no such file or directory") from error
    except OSError as error:
        raise KubeconfigError(f'error loading config file "{file}": {error.strerror}') from error
    except ValueError as error:
        raise KubeconfigError(f'error loading config file "{file}": {error}') from None


def decode(text: bytes) -> Any:
    """The first JSON or YAML document in `text`; None if there is none.

    Raises ValueError with a one-line reason that does not quote the text.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass  # YAML, then; kubectl accepts both.
    # Only the slow loader: the C one crashes the process on deeply nested input.
    import yaml

    class Loader(yaml.SafeLoader):
        """Leaves dates as text, as kubectl does."""

    Loader.yaml_implicit_resolvers = {
        first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    try:
        return next(yaml.load_all(text, Loader), None)
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        # An alias or a tag may be a password that begins with * or !.
        problem = re.sub(r"(alias|handle|tag) ['\"].*", r"\1", str(error.problem))
        raise ValueError(f"it is not YAML: {problem}{line}") from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError):
        # The third and the fourth are what the loader makes of tags that do not fit their value.
        raise ValueError("it is not YAML") from None


def parse(content: Any, base: str) -> KubeconfigFile:
    """The decoded `content` of a file in the directory `base`.

    Raises ValueError with a one-line reason that does not quote the content.
    """
    file = _Fields(content, "", base)
    for key, expected in (("kind", "Config"), ("apiVersion", "v1")):
        found = file.text(key)
        if found not in ("", expected):
            raise ValueError(f'{key} is "{found}", not "{expected}"')
    preferences = file.fields("preferences")
    preferences.flag("colors")
    preferences.extensions()
    file.extensions()
    return KubeconfigFile(
        current_context=file.text("current-context"),
        clusters=_by_name(file, "clusters", "cluster", _cluster),
        contexts=_by_name(file, "contexts", "context", _context),
        users=_by_name(file, "users", "user", _user),
    )


class _Fields:
    """A mapping of a kubeconfig, each field of which is checked when it is read.

    Absent, null and empty are the same, as in kubectl. Each method raises ValueError, which names
    the field, if it is not of the type that is asked for.
    """

    def __init__(self, value: Any, place: str, base: str) -> None:
        if not isinstance(value, Mapping | None):
            raise ValueError(f"{place or 'the file'} must be a mapping")
        self._values: Mapping[Any, Any] = value or {}
        self._place = place
        self._base = base

    def text(self, key: str) -> str:
        return _text(self._values.get(key), self._name(key))

    def path(self, key: str) -> str:
        """An absolute path: a relative one begins where the file lies."""
        path = self.text(key)
        return self.absolute(path) if path else ""

    def absolute(self, path: str) -> str:
        return os.path.normpath(os.path.join(self._base, path))

    def flag(self, key: str) -> bool:
        value = self._values.get(key)
        if not isinstance(value, bool | None):
            raise ValueError(f"{self._name(key)} must be true or false")
        return bool(value)

    def data(self, key: str) -> bytes | None:
        """What a text in base64 says; None if there is none."""
        value = self._values.get(key)
        if not isinstance(value, str | None):
            raise ValueError(f"{self._name(key)} must be base64")
        if not value:
            return None
        try:
            return base64.b64decode(value.replace("\n", "").replace("\r", ""), validate=True)
        except ValueError:
            raise ValueError(f"{self._name(key)} must be base64") from None

    def texts(self, key: str) -> tuple[str, ...]:
        return _texts(self._values.get(key), self._name(key))

    def fields(self, key: str) -> _Fields:
        return _Fields(self._values.get(key), self._name(key), self._base)

    def each(self, key: str) -> list[_Fields]:
        """The mappings of a list."""
        name = self._name(key)
        items = enumerate(_list(self._values.get(key), name))
        return [_Fields(one, f"{name}[{at}]", self._base) for at, one in items]

    def items(self) -> Iterator[tuple[str, Any, str]]:
        """All keys, with their values and how to name these."""
        if not all(isinstance(key, str) for key in self._values):
            raise ValueError(f"the keys of {self._place} must be text")
        return ((key, value, self._name(key)) for key, value in self._values.items())

    def extensions(self) -> tuple[tuple[str, Any], ...]:
        """The names of the extensions, and what they hold."""
        found = self.each("extensions")
        return tuple((one.text("name"), one._values.get("extension")) for one in found)

    def has(self, key: str) -> bool:
        """Whether the field is there, though it may be empty."""
        return self._values.get(key) is not None

    def _name(self, key: str) -> str:
        return f"{self._place}.{key}" if self._place else key


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str | None):
        raise ValueError(f"{name} must be text")
    return value or ""


def _texts(value: Any, name: str) -> tuple[str, ...]:
    return tuple(_text(one, f"{name}[{at}]") for at, one in enumerate(_list(value, name)))


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list | None):
        raise ValueError(f"{name} must be a list")
    return value or []


def _by_name(
    file: _Fields, plural: str, single: str, make: Callable[[_Fields], _Entry]
) -> dict[str, _Entry]:
    found: dict[str, _Entry] = {}
    for at, one in enumerate(file.each(plural)):
        if not one.has("name"):
            raise ValueError(f"{plural}[{at}] has no name")
        name = one.text("name")
        if name in found:
            raise ValueError(f'duplicate name "{name}" in {plural}')
        found[name] = make(one.fields(single))
    return found


def _cluster(fields: _Fields) -> ClusterEntry:
    return ClusterEntry(
        server=fields.text("server"),
        tls_server_name=fields.text("tls-server-name"),
        insecure_skip_tls_verify=fields.flag("insecure-skip-tls-verify"),
        certificate_authority=fields.path("certificate-authority"),
        certificate_authority_data=fields.data("certificate-authority-data"),
        proxy_url=fields.text("proxy-url"),
        disable_compression=fields.flag("disable-compression"),
        extensions=fields.extensions(),
    )


def _context(fields: _Fields) -> ContextEntry:
    fields.extensions()
    return ContextEntry(
        cluster=fields.text("cluster"),
        user=fields.text("user"),
        namespace=fields.text("namespace"),
    )


def _user(fields: _Fields) -> UserEntry:
    fields.extensions()
    return UserEntry(
        client_certificate=fields.path("client-certificate"),
        client_certificate_data=fields.data("client-certificate-data"),
        client_key=fields.path("client-key"),
        client_key_data=fields.data("client-key-data"),
        token=fields.text("token"),
        token_file=fields.path("tokenFile"),
        as_=fields.text("as"),
        as_uid=fields.text("as-uid"),
        as_groups=fields.texts("as-groups"),
        as_user_extra={
            key: _texts(value, name) for key, value, name in fields.fields("as-user-extra").items()
        },
        username=fields.text("username"),
        password=fields.text("password"),
        auth_provider=_auth_provider(fields.fields("auth-provider")),
        exec=_exec(fields.fields("exec")),
    )


def _auth_provider(fields: _Fields) -> str | None:
    """Its name; None where nothing is said of one."""
    config = [_text(value, name) for _, value, name in fields.fields("config").items()]
    return fields.text("name") if config or fields.has("name") else None


def _exec(fields: _Fields) -> ExecConfig | None:
    """The plugin, with the mode that older ones have; None where nothing is said of one."""
    command, api_version = fields.text("command"), fields.text("apiVersion")
    mode = fields.text("interactiveMode")
    if api_version == "client.authentication.k8s.io/v1beta1":
        mode = mode or "IfAvailable"
    found = ExecConfig(
        command=fields.absolute(command) if os.sep in command else command,
        args=fields.texts("args"),
        env=tuple((one.text("name"), one.text("value")) for one in fields.each("env")),
        api_version=api_version,
        install_hint=fields.text("installHint"),
        provide_cluster_info=fields.flag("provideClusterInfo"),
        interactive_mode=mode,
    )
    return None if found == ExecConfig() else found
