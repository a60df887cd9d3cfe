"""The owner's own words: the lines of a controller's log that speak of an object and of trouble."""

from __future__ import annotations

import re

from kubectl_harvester_stuck.k8s import nesting
from kubectl_harvester_stuck.k8s.objects import ObjectRef
from kubectl_harvester_stuck.k8s.redaction import redact_text

MOST = 3
"""How many different lines of one log are quoted."""

_TROUBLE = re.compile(r"error|denied|fail|unable|cannot|can't|timed? ?out", re.I)


def about(ref: ObjectRef, log: str) -> tuple[str, ...]:
    """The newest different lines of trouble with `ref`, oldest first, as one sentence each.

    Harvester's controllers write `ns/name` into text, KubeVirt's write JSON objects with `name`
    and `namespace`.
    """
    found: dict[str, None] = {}
    for line in reversed(log.splitlines()):
        if ref.name not in line or not _TROUBLE.search(line):
            continue
        words = _words(ref, line)
        if words is not None:
            found[redact_text(words)] = None
        if len(found) == MOST:
            break
    return tuple(reversed(found))


def _words(ref: ObjectRef, line: str) -> str | None:
    try:
        record = nesting.parse(line)
    except ValueError:
        record = None
    if isinstance(record, dict):
        named = (record.get("namespace"), record.get("name")) == (ref.namespace, ref.name)
        message = str(record.get("msg") or "")
        if not named and not _names(ref, message):
            return None
        reason = str(record.get("reason") or record.get("error") or "")
        return f"{message} {reason}".strip()
    if not _names(ref, line):
        return None
    quoted = re.search(r'msg="((?:[^"\\]|\\.)*)"', line)
    return re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else line.strip()


def _names(ref: ObjectRef, text: str) -> bool:
    return re.search(rf"(?<![\w.-]){re.escape(ref.key)}(?![\w.-])", text) is not None
