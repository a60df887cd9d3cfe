"""Secrets that stand in the objects themselves, and a copy without them.

KubeVirt takes cloud-init data, kernel arguments and the blobs of launch security inline in the
spec of a VM, hands the whole spec to the pod in its environment, and kubectl repeats it in an
annotation. Probes and hooks run commands, which can hold a password; so can the URL of an image,
and what a volume hands to its CSI driver. References to Secret objects are names only, and stay.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

REDACTED = "<redacted>"

CLOUD_INIT = ("userData", "userDataBase64", "networkData", "networkDataBase64")
_SECRET = frozenset({*CLOUD_INIT, "kernelArgs", "session", "dhCert"})
_VALUES = frozenset({"env", "httpHeaders"})
"""Lists of `name` and `value` in containers and probes."""
_WORDS = frozenset({"command", "args", "mountOptions", "extraHeaders"})
"""Lists of text: what probes, hooks and containers run, how a volume is mounted, and the headers
with which an image is fetched."""
_PARAMETERS = frozenset({"volumeAttributes", "options"})
"""Names and values that a PersistentVolume hands to its CSI driver, or to its FlexVolume."""
_QUOTED = re.compile(
    rf"({'|'.join(CLOUD_INIT)}|ignitiondata|kernelArgs)\b"
    r"(?:[\\\"']*\s*[:=]|[\\\"']+\s*,\s*[\\\"']+value\b).*",
    re.I | re.S,
)
"""As JSON, YAML, a struct of Go, the path of an invalid field, or a JSON patch writes it."""
_HOOK = re.compile(r"(^|\.)hooks?\.")
"""In the domain of an annotation: hooks.kubevirt.io/hookSidecars, pre.hook.backup.velero.io/..."""
_IGNITION = "kubevirt.io/ignitiondata"
LONGEST = 10_000
"""Characters of what others say that are told; Kubernetes' own messages are far shorter."""
_LOGIN = re.compile(r"(?<=://)[^\s/?#\"'\\@]*@")
"""User and password in a URL."""
_WORD = re.compile(r"[^\s#\"'\\]+")
"""What a URL is a part of, up to its fragment. A pattern of the URL itself would be tried anew from
each letter of a long text."""
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def has_secrets(body: object) -> bool:
    """Whether `body` holds cloud-init data that is not redacted."""
    if isinstance(body, Mapping):
        return any(
            (key in CLOUD_INIT and isinstance(value, str) and value not in ("", REDACTED))
            or has_secrets(value)
            for key, value in body.items()
        )
    if isinstance(body, list | tuple):
        return any(has_secrets(item) for item in body)
    return isinstance(body, str) and _quotes(body)


def redacted(body: Any) -> Any:
    """A copy of `body` in which every secret reads `REDACTED`; names and structure are kept."""
    if isinstance(body, Mapping):
        return {key: _value(key, value) for key, value in body.items()}
    if isinstance(body, list | tuple):
        return [redacted(item) for item in body]
    if not isinstance(body, str):
        return body
    # Annotations, and environments in other places, repeat whole objects as text.
    return REDACTED if _quotes(body) else _WORD.sub(_without_query, _without_login(body))


def redact_text(text: str) -> str:
    """The text up to the first cloud-init value in it, for words of others that quote an object.

    Where a value ends cannot be told: what follows it is left out as well. So are user and password
    in URLs. A text that would fill the screens of a terminal is cut, and says so.
    """
    told = _QUOTED.sub(rf"\1: {REDACTED}", _without_login(text))
    more = len(told) - LONGEST
    return told if more <= 0 else f"{told[:LONGEST]} ... ({more} more characters)"


def _without_login(text: str) -> str:
    return _LOGIN.sub(f"{REDACTED}@", text)


def _without_query(word: re.Match[str]) -> str:
    """A URL without its parameters, which can be a signature that lets everybody fetch it."""
    before, scheme, rest = word[0].partition("://")
    path, mark, parameters = rest.partition("?")
    return f"{before}{scheme}{path}?{REDACTED}" if mark and parameters else word[0]


def _value(key: str, value: Any) -> Any:
    if isinstance(value, str):
        return REDACTED if value and _is_secret(key) else _url(key, redacted(value))
    if key in _PARAMETERS and isinstance(value, Mapping):
        return dict.fromkeys(value, REDACTED)
    if key in _WORDS and isinstance(value, list | tuple):
        return [REDACTED for _ in value]
    if key in _VALUES and isinstance(value, list | tuple):
        return [_without_value(item) for item in value]
    return REDACTED if key in (LAST_APPLIED, _IGNITION) else redacted(value)


def _is_secret(key: str) -> bool:
    domain, slash, _ = key.partition("/")
    is_hook = bool(slash) and _HOOK.search(domain) is not None
    return key in _SECRET or key in (LAST_APPLIED, _IGNITION) or is_hook


def _url(key: str, text: str) -> str:
    """The text; of the path of an HTTP probe no parameters, which can be a token."""
    path, mark, _ = text.partition("?")
    return f"{path}?{REDACTED}" if key == "path" and mark else text


def _without_value(item: Any) -> Any:
    if isinstance(item, Mapping) and "value" in item:
        return {**redacted(item), "value": REDACTED}
    return redacted(item)


def _quotes(text: str) -> bool:
    """Whether the text is an object that was written out, with a secret in it."""
    return any(name in text for name in CLOUD_INIT)
