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
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kubectl_harvester_stuck.connection.kubeconfig_file import KubeconfigFile, read_file
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
    """One cluster and one user, after merging and flags.

    `context` is empty when there is none. `server` is a URL with a scheme and without a trailing
    slash. `cluster` and `user` are entries in kubeconfig spelling, with absolute paths. `notices`
    are lines to show to the operator on standard error.
    """

    context: str
    cluster_name: str
    user_name: str
    server: str
    namespace: str
    cluster: Mapping[str, Any]
    user: Mapping[str, Any] = field(repr=False)
    notices: tuple[str, ...] = ()


@dataclass
class MergedConfig:
    """The entries of all files; the first file that has a name or a current context wins."""

    current_context: str = ""
    clusters: dict[str, dict[str, Any]] = field(default_factory=dict)
    contexts: dict[str, dict[str, Any]] = field(default_factory=dict)
    users: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, file: KubeconfigFile) -> None:
        """Merge in the next file of KUBECONFIG: what is there already takes precedence."""
        self.current_context = self.current_context or file.current_context
        self.clusters = file.clusters | self.clusters
        self.contexts = file.contexts | self.contexts
        self.users = file.users | self.users

    def __bool__(self) -> bool:
        return bool(self.current_context or self.clusters or self.contexts or self.users)


def load(
    flags: ConfigOverrides,
    environ: Mapping[str, str],
    home: Path | None = None,
    *,
    service_account: Path = SERVICE_ACCOUNT,
) -> ClientConfig:
    """The connection that kubectl would use with the same flags and environment.

    `home` is the home directory, by default that of `environ`. Raises KubeconfigError.
    """
    files = _files(flags, environ, home)
    merged = _merge(flags, files)
    wanted = (flags.context, flags.cluster, flags.user, flags.server)
    if not merged and not any(wanted) and _in_cluster_is_possible(environ, service_account):
        return _in_cluster(flags, environ, service_account)
    return _from_files(flags, environ, merged, files)


def entries(flags: ConfigOverrides, environ: Mapping[str, str]) -> MergedConfig:
    """Everything that can be chosen by name. Raises KubeconfigError."""
    return _merge(flags, _files(flags, environ, None))


def _merge(flags: ConfigOverrides, files: list[Path]) -> MergedConfig:
    merged = MergedConfig()
    for file in files:
        # A missing --kubeconfig is an error; any other file may be missing.
        content = read_file(file, must_exist=bool(flags.kubeconfig))
        if content is not None:
            merged.add(content)
    return merged


def _files(flags: ConfigOverrides, environ: Mapping[str, str], home: Path | None) -> list[Path]:
    """The files to read, in order, each once."""
    if flags.kubeconfig:
        return [Path(flags.kubeconfig)]
    listed = environ.get("KUBECONFIG", "")
    if listed:
        return [Path(name) for name in dict.fromkeys(listed.split(os.pathsep)) if name]
    if home is None:
        home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    return [home / ".kube" / "config"]


def _from_files(
    flags: ConfigOverrides, environ: Mapping[str, str], merged: MergedConfig, files: list[Path]
) -> ClientConfig:
    name = flags.context or merged.current_context
    if flags.context and name not in merged.contexts:
        raise KubeconfigError(f'context "{name}" does not exist: see `kubectl config get-contexts`')
    if name and name not in merged.contexts:
        raise KubeconfigError(
            f"context was not found for specified context: {name} (the current-context): choose "
            "another with --context or `kubectl config use-context`"
        )
    context = merged.contexts.get(name, {})
    cluster_name = flags.cluster or context.get("cluster", "")
    user_name = flags.user or context.get("user", "")
    if flags.user and user_name not in merged.users:
        raise KubeconfigError(f'auth info "{user_name}" does not exist: see --user')
    if flags.cluster and cluster_name not in merged.clusters:
        raise KubeconfigError(f'cluster "{cluster_name}" does not exist: see --cluster')
    if user_name and user_name not in merged.users:
        raise KubeconfigError(f'user "{user_name}" was not found for context "{name}"')
    if cluster_name and cluster_name not in merged.clusters and not flags.server:
        raise KubeconfigError(f'cluster "{cluster_name}" was not found for context "{name}"')
    cluster = _with_cluster_flags(merged.clusters.get(cluster_name, {}), flags)
    if not cluster_name:
        cluster = {"server": environ.get("KUBERNETES_MASTER", ""), **cluster}
    if not cluster.get("server"):
        if cluster_name:
            raise KubeconfigError(f'no server found for cluster "{cluster_name}": see --server')
        raise KubeconfigError(_no_server(merged, files))
    return _connection(
        context=name,
        cluster_name=cluster_name,
        user_name=user_name,
        namespace=flags.namespace or context.get("namespace") or "default",
        cluster=cluster,
        user=_with_user_flags(merged.users.get(user_name, {}), flags),
    )


def _no_server(merged: MergedConfig, files: list[Path]) -> str:
    if merged.contexts and not merged.current_context:
        advice = "The kubeconfig has no current-context: choose one with --context or `kubectl"
        return f"{REFUSED.format('localhost:8080')} {advice} config use-context`."
    looked = ", ".join(str(file) for file in files) or "no file"
    advice = f"No cluster is configured (looked at {looked}): set KUBECONFIG or use --kubeconfig."
    return f"{REFUSED.format('localhost:8080')} {advice}"


def _with_cluster_flags(cluster: Mapping[str, Any], flags: ConfigOverrides) -> dict[str, Any]:
    changed = dict(cluster)
    if flags.insecure_skip_tls_verify or flags.certificate_authority:
        for key in ("certificate-authority", "certificate-authority-data"):
            changed.pop(key, None)
        changed["insecure-skip-tls-verify"] = flags.insecure_skip_tls_verify
    if flags.certificate_authority:
        changed["certificate-authority"] = os.path.abspath(flags.certificate_authority)
    if flags.server:
        # The name in the kubeconfig is that of the other server.
        changed.pop("tls-server-name", None)
        changed["server"] = flags.server
    if flags.tls_server_name:
        changed["tls-server-name"] = flags.tls_server_name
    return changed


def _with_user_flags(user: Mapping[str, Any], flags: ConfigOverrides) -> dict[str, Any]:
    changed = dict(user)
    if flags.client_certificate:
        changed.pop("client-certificate-data", None)
        changed["client-certificate"] = os.path.abspath(flags.client_certificate)
    if flags.client_key:
        changed.pop("client-key-data", None)
        changed["client-key"] = os.path.abspath(flags.client_key)
    given = {"token": flags.token, "as": flags.as_, "as-uid": flags.as_uid}
    changed |= {key: value for key, value in given.items() if value}
    if flags.as_groups:
        changed["as-groups"] = list(flags.as_groups)
    return changed


def _in_cluster_is_possible(environ: Mapping[str, str], service_account: Path) -> bool:
    address = ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT")
    return all(environ.get(name) for name in address) and (service_account / "token").is_file()


def _in_cluster(
    flags: ConfigOverrides, environ: Mapping[str, str], service_account: Path
) -> ClientConfig:
    host, port = environ["KUBERNETES_SERVICE_HOST"], environ["KUBERNETES_SERVICE_PORT"]
    if ":" in host:
        host = f"[{host}]"
    cluster: dict[str, Any] = {"server": f"https://{host}:{port}"}
    if (service_account / "ca.crt").is_file():
        cluster["certificate-authority"] = str(service_account / "ca.crt")
    # Elsewhere a tokenFile beats --token, in a pod --token beats the service account.
    user = {} if flags.token else {"tokenFile": str(service_account / "token")}
    try:
        own_namespace = (service_account / "namespace").read_text().strip()
    except (OSError, UnicodeDecodeError):
        own_namespace = ""
    return _connection(
        context="",
        cluster_name="in-cluster",
        user_name="service account",
        namespace=flags.namespace or environ.get("POD_NAMESPACE") or own_namespace or "default",
        cluster=_with_cluster_flags(cluster, flags),
        user=_with_user_flags(user, flags),
        notices=("Using this pod's service account: no kubeconfig was found.",),
    )


def _connection(
    *,
    context: str,
    cluster_name: str,
    user_name: str,
    namespace: str,
    cluster: Mapping[str, Any],
    user: Mapping[str, Any],
    notices: tuple[str, ...] = (),
) -> ClientConfig:
    """The checked connection; raises KubeconfigError that names every problem."""
    server = _server_url(cluster["server"])
    problems = [*_cluster_problems(cluster_name, cluster), *_user_problems(user_name, user)]
    if server.startswith("https://"):
        problems += [*_tls_problems(cluster, user), *_identity_problems(user_name, user)]
    if problems:
        raise KubeconfigError(f"invalid configuration: {'; '.join(problems)}")
    return ClientConfig(context, cluster_name, user_name, server, namespace, cluster, user, notices)


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


def _cluster_problems(name: str, cluster: Mapping[str, Any]) -> Iterator[str]:
    if "proxy-url" in cluster:
        scheme = cluster["proxy-url"].partition(":")[0].lower()
        if scheme not in ("http", "https", "socks5"):
            yield (
                f"invalid 'proxy-url' for cluster \"{name}\": unsupported scheme, "
                "must be http, https, or socks5"
            )
    authority = "certificate-authority"
    if authority in cluster and f"{authority}-data" in cluster:
        yield f"{authority}-data and {authority} are both specified for {name}"
    yield from _unreadable(authority, name, cluster.get(authority))


def _user_problems(name: str, user: Mapping[str, Any]) -> Iterator[str]:
    basic = "username" in user or "password" in user
    if "token" in user and basic:
        yield f"more than one authentication method found for {name}: token and basicAuth"
    certificate, key = "client-certificate", "client-key"
    if certificate in user or f"{certificate}-data" in user:
        if certificate in user and f"{certificate}-data" in user:
            yield f"{certificate}-data and {certificate} are both specified for {name}"
        if key in user and f"{key}-data" in user:
            yield f"{key}-data and {key} are both specified for {name}"
        if key not in user and f"{key}-data" not in user:
            yield f"{key}-data or {key} must be specified for {name}"
        yield from _unreadable("client-cert", name, user.get(certificate))
        yield from _unreadable("client-key", name, user.get(key))
    if "exec" in user:
        yield from _exec_problems(name, user)
    if "as" not in user and {"as-uid", "as-groups", "as-user-extra"} & user.keys():
        yield f"requesting uid, groups or user-extra for {name} without impersonating a user"


def _exec_problems(name: str, user: Mapping[str, Any]) -> Iterator[str]:
    plugin = user["exec"]
    if "auth-provider" in user:
        yield f"authProvider cannot be provided in combination with an exec plugin for {name}"
    for key in ("command", "apiVersion", "interactiveMode"):
        if key not in plugin:
            yield f"{key} must be specified for {name} to use exec authentication plugin"
    if plugin.get("interactiveMode", "Never") not in _INTERACTIVE_MODES:
        yield f'invalid interactiveMode for {name}: "{plugin["interactiveMode"]}"'
    if any("name" not in variable for variable in plugin.get("env", ())):
        yield f"env variable name must be specified for {name} to use exec authentication plugin"


def _tls_problems(cluster: Mapping[str, Any], user: Mapping[str, Any]) -> Iterator[str]:
    authority = {"certificate-authority", "certificate-authority-data"} & cluster.keys()
    if authority and cluster.get("insecure-skip-tls-verify"):
        yield "specifying a root certificates file with the insecure flag is not allowed"
    if "tokenFile" in user and ("username" in user or "password" in user):
        yield "username/password or bearer token may be set, but not both"


def _identity_problems(name: str, user: Mapping[str, Any]) -> Iterator[str]:
    known = {"token", "tokenFile", "username", "auth-provider", "exec"}
    if not (known | {"client-certificate", "client-certificate-data"}) & user.keys():
        who = f'user "{name}" has' if name else "there are"
        yield f"{who} no credentials for the server: see --user and --token"


def _unreadable(what: str, name: str, path: str | None) -> Iterator[str]:
    if path is None:
        return
    try:
        Path(path).open("rb").close()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        yield f"unable to read {what} {path} for {name}: {why}"
