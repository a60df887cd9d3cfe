"""Secrets that stand in the objects themselves, and a copy without them.

KubeVirt takes cloud-init data, kernel arguments and the blobs of launch security inline in the
spec of a VM, hands the whole spec to the pod in its environment, and kubectl repeats it in an
annotation. References to Secret objects are names only, and stay.
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
_QUOTED = re.compile(rf"({'|'.join(CLOUD_INIT)})\b[\\\"']*\s*[:=].*", re.I | re.S)
"""As JSON, YAML, a struct of Go, or the path of an invalid field writes it."""
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
    # Annotations, and environments in other places, repeat whole objects as text.
    return REDACTED if isinstance(body, str) and _quotes(body) else body


def redact_text(text: str) -> str:
    """The text up to the first cloud-init value in it, for words of others that quote an object.

    Where a value ends cannot be told: what follows it is left out as well.
    """
    return _QUOTED.sub(rf"\1: {REDACTED}", text)


def _value(key: str, value: Any) -> Any:
    if (key in _SECRET and isinstance(value, str) and value) or key == LAST_APPLIED:
        return REDACTED
    if key in _VALUES and isinstance(value, list | tuple):
        return [
            {**redacted(item), "value": REDACTED}
            if isinstance(item, Mapping) and "value" in item
            else redacted(item)
            for item in value
        ]
    return redacted(value)


def _quotes(text: str) -> bool:
    """Whether the text is an object that was written out, with a secret in it."""
    return any(name in text for name in CLOUD_INIT)
