"""Which cluster is meant, and as whom: the rules by which kubectl reads its configuration.

`load` merges the kubeconfig files, chooses a context, applies the flags and refuses what kubectl
refuses. It opens no connection and reads no credential. Where the configuration names a cluster
or a user that is not there, kubectl goes on to localhost:8080 or asks for a user name; here that
is an error, because nothing may be released in a cluster that was not named.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kubectl_harvester_stuck.connection import kubeconfig_path
from kubectl_harvester_stuck.connection.kubeconfig_file import (
    ClusterEntry,
    ContextEntry,
    ExecConfig,
    KubeconfigFile,
    UserEntry,
    read_file,
)
from kubectl_harvester_stuck.errors import KubeconfigError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds the credentials of its service account."""

REFUSED = "The connection to the server {} was refused - did you specify the right host or port?"
"""What kubectl says, to the letter, when nobody listens; formatted with the host."""

_CREDENTIALS = "it contains credentials, which belong into the user entry"
_INTERACTIVE_MODES = ("Never", "IfAvailable", "Always")


@dataclass(frozen=True)
class ConfigOverrides:
    """The flags that choose and change the connection, named as kubectl names them.

    None, False and () mean that the flag was not given; so does an empty text.
    """

    kubeconfig: str | None = None
    context: str | None = None
    cluster: str | None = None
    user: str | None = None
    server: str | None = None
    token: str | None = field(default=None, repr=False)
    as_: str | None = None
    as_groups: tuple[str, ...] = ()
    as_uid: str | None = None
    certificate_authority: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None
    insecure_skip_tls_verify: bool = False
    tls_server_name: str | None = None
    namespace: str | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> ConfigOverrides:
        """Those of the given flags that belong here."""
        return cls(**{one.name: given[one.name] for one in fields(cls) if one.name in given})


@dataclass(frozen=True)
class ClientConfig:
    """One cluster and one user, after merging and flags, checked.

    `context` is empty when there is none. `server` is a URL with a scheme and without a trailing
    slash. Paths are absolute. `notices` are lines to show to the operator on standard error.
    """

    context: str
    cluster_name: str
    user_name: str
    server: str
    namespace: str
    cluster: ClusterEntry
    user: UserEntry = field(repr=False)
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class MergedConfig:
    """The entries of all files; the first file that has a name or a current context wins."""

    current_context: str = ""
    clusters: Mapping[str, ClusterEntry] = field(default_factory=dict)
    contexts: Mapping[str, ContextEntry] = field(default_factory=dict)
    users: Mapping[str, UserEntry] = field(default_factory=dict, repr=False)

    def with_file(self, file: KubeconfigFile) -> MergedConfig:
        """The entries of this and, where it has none of that name, of `file`."""
        return MergedConfig(
            self.current_context or file.current_context,
            {**file.clusters, **self.clusters},
            {**file.contexts, **self.contexts},
            {**file.users, **self.users},
        )

    def __bool__(self) -> bool:
        return bool(self.current_context or self.clusters or self.contexts or self.users)


def load(
    flags: ConfigOverrides,
    environ: Mapping[str, str],
    *,
    service_account: Path = SERVICE_ACCOUNT,
) -> ClientConfig:
    """The connection that kubectl would use with the same flags and environment.

    Raises KubeconfigError.
    """
    files = _files(flags, environ)
    merged = _merge(flags, files)
    wanted = (flags.context, flags.cluster, flags.user, flags.server)
    if not merged and not any(wanted) and _in_cluster_is_possible(environ, service_account):
        return _in_cluster(flags, environ, service_account)
    return _from_files(flags, environ, merged, files)


def entries(flags: ConfigOverrides, environ: Mapping[str, str]) -> MergedConfig:
    """Everything that can be chosen by name. Raises KubeconfigError."""
    return _merge(flags, _files(flags, environ))


def _merge(flags: ConfigOverrides, files: list[Path]) -> MergedConfig:
    merged = MergedConfig()
    for file in files:
        # A missing --kubeconfig is an error; any other file may be missing.
        content = read_file(file, must_exist=bool(flags.kubeconfig))
        if content is not None:
            merged = merged.with_file(content)
    return merged


def _files(flags: ConfigOverrides, environ: Mapping[str, str]) -> list[Path]:
    """The files to read, in order, each once."""
    return [Path(flags.kubeconfig)] if flags.kubeconfig else kubeconfig_path.files(environ)


def _from_files(
    flags: ConfigOverrides, environ: Mapping[str, str], merged: MergedConfig, files: list[Path]
) -> ClientConfig:
    name = flags.context or merged.current_context
    context = _chosen_context(flags, merged, name)
    cluster_name = flags.cluster or context.cluster
    user_name = flags.user or context.user
    _refuse_unknown_names(flags, merged, name, (cluster_name, user_name))
    cluster = _with_cluster_flags(merged.clusters.get(cluster_name, ClusterEntry()), flags)
    if not cluster_name:
        cluster = replace(cluster, server=cluster.server or environ.get("KUBERNETES_MASTER", ""))
    if not cluster.server:
        if cluster_name:
            raise KubeconfigError(f'no server found for cluster "{cluster_name}": see --server')
        raise KubeconfigError(_no_server(merged, files))
    return _checked(
        ClientConfig(
            context=name,
            cluster_name=cluster_name,
            user_name=user_name,
            server=_server_url(cluster.server),
            namespace=flags.namespace or context.namespace or "default",
            cluster=cluster,
            user=_with_user_flags(merged.users.get(user_name, UserEntry()), flags),
        )
    )


def _chosen_context(flags: ConfigOverrides, merged: MergedConfig, name: str) -> ContextEntry:
    if flags.context and name not in merged.contexts:
        raise KubeconfigError(f'context "{name}" does not exist: see `kubectl config get-contexts`')
    if name and name not in merged.contexts:
        raise KubeconfigError(
            f"context was not found for specified context: {name} (the current-context): choose "
            "another with --context or `kubectl config use-context`"
        )
    return merged.contexts.get(name, ContextEntry())


def _refuse_unknown_names(
    flags: ConfigOverrides, merged: MergedConfig, context: str, names: tuple[str, str]
) -> None:
    """Raises KubeconfigError if the cluster or the user of these `names` is nowhere."""
    cluster, user = names
    if flags.user and user not in merged.users:
        raise KubeconfigError(f'auth info "{user}" does not exist: see --user')
    if flags.cluster and cluster not in merged.clusters:
        raise KubeconfigError(f'cluster "{cluster}" does not exist: see --cluster')
    if user and user not in merged.users:
        raise KubeconfigError(f'user "{user}" was not found for context "{context}"')
    if cluster and cluster not in merged.clusters and not flags.server:
        raise KubeconfigError(f'cluster "{cluster}" was not found for context "{context}"')


def _no_server(merged: MergedConfig, files: list[Path]) -> str:
    if merged.contexts and not merged.current_context:
        advice = "The kubeconfig has no current-context: choose one with --context or `kubectl"
        return f"{REFUSED.format('localhost:8080')} {advice} config use-context`."
    looked = ", ".join(str(file) for file in files) or "no file"
    advice = f"No cluster is configured (looked at {looked}): set KUBECONFIG or use --kubeconfig."
    return f"{REFUSED.format('localhost:8080')} {advice}"


def _with_cluster_flags(cluster: ClusterEntry, flags: ConfigOverrides) -> ClusterEntry:
    if flags.insecure_skip_tls_verify or flags.certificate_authority:
        cluster = replace(
            cluster,
            certificate_authority=_absolute(flags.certificate_authority),
            certificate_authority_data=None,
            insecure_skip_tls_verify=flags.insecure_skip_tls_verify,
        )
    if flags.server:
        # The name in the kubeconfig is that of the other server.
        cluster = replace(cluster, server=flags.server, tls_server_name="")
    if flags.tls_server_name:
        cluster = replace(cluster, tls_server_name=flags.tls_server_name)
    return cluster


def _with_user_flags(user: UserEntry, flags: ConfigOverrides) -> UserEntry:
    if flags.client_certificate:
        certificate = _absolute(flags.client_certificate)
        user = replace(user, client_certificate=certificate, client_certificate_data=None)
    if flags.client_key:
        key = _absolute(flags.client_key)
        user = replace(user, client_key=key, client_key_data=None)
    return replace(
        user,
        token=flags.token or user.token,
        as_=flags.as_ or user.as_,
        as_uid=flags.as_uid or user.as_uid,
        as_groups=flags.as_groups or user.as_groups,
    )


def _absolute(path: str | None) -> str:
    return os.path.abspath(path) if path else ""


def _in_cluster_is_possible(environ: Mapping[str, str], service_account: Path) -> bool:
    address = ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT")
    return all(environ.get(name) for name in address) and (service_account / "token").is_file()


def _in_cluster(
    flags: ConfigOverrides, environ: Mapping[str, str], service_account: Path
) -> ClientConfig:
    host, port = environ["KUBERNETES_SERVICE_HOST"], environ["KUBERNETES_SERVICE_PORT"]
    if ":" in host:
        host = f"[{host}]"
    authority = service_account / "ca.crt"
    cluster = ClusterEntry(
        server=f"https://{host}:{port}",
        certificate_authority=str(authority) if authority.is_file() else "",
    )
    # Elsewhere a tokenFile beats --token, in a pod --token beats the service account.
    user = UserEntry(token_file="" if flags.token else str(service_account / "token"))
    try:
        own_namespace = (service_account / "namespace").read_text().strip()
    except (OSError, UnicodeDecodeError):
        own_namespace = ""
    cluster = _with_cluster_flags(cluster, flags)
    return _checked(
        ClientConfig(
            context="",
            cluster_name="in-cluster",
            user_name="service account",
            server=_server_url(cluster.server),
            namespace=flags.namespace or environ.get("POD_NAMESPACE") or own_namespace or "default",
            cluster=cluster,
            user=_with_user_flags(user, flags),
            notices=("Using this pod's service account: no kubeconfig was found.",),
        )
    )


def _checked(config: ClientConfig) -> ClientConfig:
    """The same; raises KubeconfigError that names every problem."""
    cluster, user = config.cluster, config.user
    problems = [
        *_cluster_problems(config.cluster_name, cluster),
        *_user_problems(config.user_name, user),
    ]
    if config.server.startswith("https://"):
        problems += [*_tls_problems(cluster, user), *_identity_problems(config.user_name, user)]
    if problems:
        raise KubeconfigError(f"invalid configuration: {'; '.join(problems)}")
    return config


def _server_url(server: str) -> str:
    """`server` with a scheme (http, as kubectl), without query and trailing slash."""
    try:
        if re.search(r"[\x00-\x20\x7f]", server):
            raise ValueError("it contains a space or a control character")
        parts = urlsplit(server)
        if not parts.scheme or not parts.netloc:
            parts = urlsplit(f"http://{server}")
            if parts.path not in ("", "/"):
                raise ValueError("it must be a URL or a host:port pair")
        if parts.scheme not in ("http", "https"):
            raise ValueError(f'unsupported protocol scheme "{parts.scheme}"')
        if "@" in parts.netloc:
            raise ValueError(_CREDENTIALS)
        if not parts.hostname or parts.port == 0:
            raise ValueError("it names no host or no port")
        if ":" in parts.hostname:
            ipaddress.IPv6Address(parts.hostname.partition("%")[0])
    except ValueError as error:
        shown = re.sub(r"^(\w+://)?.*@", r"\1", server, flags=re.S)
        # What Python says of a port can be a piece of a password.
        why = error if shown == server else _CREDENTIALS
        raise KubeconfigError(f"the server {shown!r} cannot be used: {why}") from None
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _cluster_problems(name: str, cluster: ClusterEntry) -> Iterator[str]:
    if cluster.proxy_url:
        scheme = cluster.proxy_url.partition(":")[0].lower()
        if scheme not in ("http", "https", "socks5"):
            yield (
                f"invalid 'proxy-url' for cluster \"{name}\": unsupported scheme, "
                "must be http, https, or socks5"
            )
    path, data = cluster.certificate_authority, cluster.certificate_authority_data
    yield from _given_twice("certificate-authority", name, path, data)
    yield from _unreadable("certificate-authority", name, path)


def _user_problems(name: str, user: UserEntry) -> Iterator[str]:
    if user.token and user.has_basic_auth:
        yield f"more than one authentication method found for {name}: token and basicAuth"
    if user.certificate is not None:
        yield from _certificate_problems(name, user)
    if user.exec is not None:
        yield from _exec_problems(name, user, user.exec)
    if not user.as_ and (user.as_uid or user.as_groups or user.as_user_extra):
        yield f"requesting uid, groups or user-extra for {name} without impersonating a user"


def _certificate_problems(name: str, user: UserEntry) -> Iterator[str]:
    certificate, key = user.client_certificate, user.client_key
    yield from _given_twice("client-certificate", name, certificate, user.client_certificate_data)
    yield from _given_twice("client-key", name, key, user.client_key_data)
    if user.key is None:
        yield f"client-key-data or client-key must be specified for {name}"
    yield from _unreadable("client-cert", name, certificate)
    yield from _unreadable("client-key", name, key)


def _exec_problems(name: str, user: UserEntry, plugin: ExecConfig) -> Iterator[str]:
    if user.auth_provider is not None:
        yield f"authProvider cannot be provided in combination with an exec plugin for {name}"
    for key, value in (
        ("command", plugin.command),
        ("apiVersion", plugin.api_version),
        ("interactiveMode", plugin.interactive_mode),
    ):
        if not value:
            yield f"{key} must be specified for {name} to use exec authentication plugin"
    if plugin.interactive_mode not in ("", *_INTERACTIVE_MODES):
        yield f'invalid interactiveMode for {name}: "{plugin.interactive_mode}"'
    if not all(variable for variable, _ in plugin.env):
        yield f"env variable name must be specified for {name} to use exec authentication plugin"


def _tls_problems(cluster: ClusterEntry, user: UserEntry) -> Iterator[str]:
    if cluster.authority is not None and cluster.insecure_skip_tls_verify:
        yield "specifying a root certificates file with the insecure flag is not allowed"
    if user.token_file and user.has_basic_auth:
        yield "username/password or bearer token may be set, but not both"


def _identity_problems(name: str, user: UserEntry) -> Iterator[str]:
    texts = (user.token, user.token_file, user.username)
    others = (user.auth_provider, user.exec, user.certificate)
    if not any(texts) and all(other is None for other in others):
        who = f'user "{name}" has' if name else "there are"
        yield f"{who} no credentials for the server: see --user and --token"


def _given_twice(what: str, name: str, path: str, data: bytes | None) -> Iterator[str]:
    if path and data is not None:
        yield f"{what}-data and {what} are both specified for {name}"


def _unreadable(what: str, name: str, path: str) -> Iterator[str]:
    if not path:
        return
    try:
        Path(path).open("rb").close()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        yield f"unable to read {what} {path} for {name}: {why}"
