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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubectl_harvester_stuck.errors import KubeconfigError


@dataclass(frozen=True)
class _MapOf:
    """The shape of a mapping with free keys."""

    values: Any


# Shapes: str, bool, bytes (a text in base64) or object (anything); [shape] is a list;
# {name: shape} a mapping.
_EXTENSIONS = [{"name": str, "extension": object}]
_CLUSTER = {
    "server": str,
    "tls-server-name": str,
    "insecure-skip-tls-verify": bool,
    "certificate-authority": str,
    "certificate-authority-data": bytes,
    "proxy-url": str,
    "disable-compression": bool,
    "extensions": _EXTENSIONS,
}
_USER = {
    "client-certificate": str,
    "client-certificate-data": bytes,
    "client-key": str,
    "client-key-data": bytes,
    "token": str,
    "tokenFile": str,
    "as": str,
    "as-uid": str,
    "as-groups": [str],
    "as-user-extra": _MapOf([str]),
    "username": str,
    "password": str,
    "auth-provider": {"name": str, "config": _MapOf(str)},
    "exec": {
        "command": str,
        "args": [str],
        "env": [{"name": str, "value": str}],
        "apiVersion": str,
        "installHint": str,
        "provideClusterInfo": bool,
        "interactiveMode": str,
    },
    "extensions": _EXTENSIONS,
}
_CONTEXT = {"cluster": str, "user": str, "namespace": str, "extensions": _EXTENSIONS}
_FILE = {
    "kind": str,
    "apiVersion": str,
    "current-context": str,
    "preferences": {"colors": bool, "extensions": _EXTENSIONS},
    "clusters": [{"name": str, "cluster": _CLUSTER}],
    "contexts": [{"name": str, "context": _CONTEXT}],
    "users": [{"name": str, "user": _USER}],
    "extensions": _EXTENSIONS,
}
_NAMES = {str: "text", bool: "true or false", bytes: "base64"}


@dataclass(frozen=True)
class KubeconfigFile:
    """The entries of one file by name, with absolute paths."""

    current_context: str
    clusters: dict[str, dict[str, Any]]
    contexts: dict[str, dict[str, Any]]
    users: dict[str, dict[str, Any]]


def read_file(file: Path, *, must_exist: bool = False) -> KubeconfigFile | None:
    """The decoded `file`; None if it is missing and need not exist.

    Raises KubeconfigError, one line that names the file.
    """
    try:
        content = _checked(decode(file.read_bytes()), _FILE, "the file")
        for key, expected in (("kind", "Config"), ("apiVersion", "v1")):
            if content.get(key, expected) != expected:
                raise ValueError(f'{key} is "{content[key]}", not "{expected}"')
        base = os.path.abspath(file.parent)
        return KubeconfigFile(
            current_context=content.get("current-context", ""),
            clusters=_by_name(content, "clusters", "cluster", base),
            contexts=_by_name(content, "contexts", "context", base),
            users=_by_name(content, "users", "user", base),
        )
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


def _checked(value: Any, shape: Any, where: str) -> Any:
    """`value` without unknown and empty fields; ValueError if it does not have the `shape`.

    null counts as absent everywhere, as in kubectl.
    """
    if isinstance(shape, dict | _MapOf):
        if value is not None and not isinstance(value, Mapping):
            raise ValueError(f"{where} must be a mapping")
        return _checked_mapping(value or {}, shape, where)
    if isinstance(shape, list):
        if value is not None and not isinstance(value, list):
            raise ValueError(f"{where} must be a list")
        return [_checked(one, shape[0], f"{where}[{at}]") for at, one in enumerate(value or ())]
    if value is None and shape is str:
        return ""
    if shape is object:
        return value
    if not isinstance(value, str if shape is bytes else shape):
        raise ValueError(f"{where} must be {_NAMES[shape]}")
    if shape is bytes:
        _check_base64(value, where)
    return value


def _checked_mapping(
    value: Mapping[Any, Any], shape: dict[str, Any] | _MapOf, where: str
) -> dict[str, Any]:
    if isinstance(shape, _MapOf):
        if not all(isinstance(key, str) for key in value):
            raise ValueError(f"the keys of {where} must be text")
        shape = dict.fromkeys(value, shape.values)
        return {key: _checked(value[key], shape[key], f"{where}.{key}") for key in shape}
    prefix = "" if shape is _FILE else f"{where}."
    known = {
        key: _checked(value[key], shape[key], prefix + key)
        for key in shape
        if value.get(key) is not None
    }
    return {key: one for key, one in known.items() if one or key == "name" or shape[key] is object}


def _check_base64(text: str, where: str) -> None:
    try:
        base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True)
    except ValueError:
        raise ValueError(f"{where} must be base64") from None


def _by_name(content: dict[str, Any], plural: str, single: str, base: str) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for at, one in enumerate(content.get(plural, ())):
        if "name" not in one:
            raise ValueError(f"{plural}[{at}] has no name")
        if one["name"] in entries:
            raise ValueError(f'duplicate name "{one["name"]}" in {plural}')
        entries[one["name"]] = _completed(one.get(single, {}), base)
    return entries


def _completed(entry: dict[str, Any], base: str) -> dict[str, Any]:
    """`entry` with absolute paths and the default mode of older exec plugins."""

    def absolute(path: str) -> str:
        return os.path.normpath(os.path.join(base, path))

    paths = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
    completed = entry | {key: absolute(entry[key]) for key in paths if key in entry}
    if "exec" in entry:
        plugin = dict(entry["exec"])
        if os.sep in plugin.get("command", ""):
            plugin["command"] = absolute(plugin["command"])
        if plugin.get("apiVersion") == "client.authentication.k8s.io/v1beta1":
            plugin.setdefault("interactiveMode", "IfAvailable")
        completed["exec"] = plugin
    return completed
