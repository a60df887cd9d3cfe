"""JSON that may be nested deeper than a program can follow; no object of Kubernetes is.

One object that is nested so deep hides no other of its list: what names it is left of it, and
reading the rest of it is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

DEPTH = 200
"""Levels that are read at most."""

_BRACKETS = b"{}[]"
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(_BRACKETS))
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.S)
_TOKEN = re.compile(_STRING.pattern + rb"|[\[\]{}]", re.S)
_MARK = "\x00 nested too deep"
_RELATIONS = ("labels", "annotations", "ownerReferences")
_WRITTEN_MARK = json.dumps(_MARK).encode()


class TooDeepObject(dict[str, Any]):
    """What is left of an object that is nested deeper than `DEPTH`: type and metadata.

    `metadata_is_whole` is false where it does not tell to which others the object belongs.
    """

    metadata_is_whole = True

    def typed(self, api_version: object, kind: object) -> TooDeepObject:
        """The same with that type."""
        other = TooDeepObject({**self, "apiVersion": api_version, "kind": kind})
        other.metadata_is_whole = self.metadata_is_whole
        return other


def parse(text: str | bytes) -> Any:
    """The JSON value. Raises ValueError, also where it is nested too deep."""
    content = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if not is_shallow(content):
        raise ValueError(f"it is nested deeper than {DEPTH} levels")
    return json.loads(text)


def parse_answer(content: bytes) -> Any:
    """The JSON value, with a TooDeepObject for each object that is. Raises ValueError.

    Objects are the items of a list, what a watch tells, or else the value itself.
    """
    if is_shallow(content):
        try:
            return json.loads(content)
        except RecursionError:  # brackets in strings made it look shallow
            pass
    return left_of(json.loads(cut(content)))


def left_of(value: Any) -> Any:
    """The value of a text that was cut, with a TooDeepObject for each object that was."""
    if isinstance(value, Mapping) and isinstance(value.get("items"), list):
        items = [_without_marks(item) for item in value["items"]]
        return {**_without_marks({**value, "items": []}), "items": items}
    if isinstance(value, Mapping) and isinstance(value.get("type"), str) and "object" in value:
        return {"type": value["type"], "object": _without_marks(value["object"])}  # of a watch
    return _without_marks(value)


def is_shallow(content: bytes) -> bool:
    """Whether nothing is nested deeper than `DEPTH`; the value need not be valid.

    It takes a fraction of the time of parsing, unless strings hold brackets without their match.
    """
    return _pairs_off(content.translate(None, _ALL_BUT_BRACKETS)) or _pairs_off(
        _STRING.sub(b"", content).translate(None, _ALL_BUT_BRACKETS)
    )


def _pairs_off(brackets: bytes) -> bool:
    """Whether taking out pairs, innermost first, leaves nothing within the levels allowed."""
    for _ in range(DEPTH // 2):
        if not brackets:
            return True
        fewer = brackets.replace(b"{}", b"").replace(b"[]", b"")
        if len(fewer) == len(brackets):
            return False
        brackets = fewer
    return not brackets


def cut(content: bytes) -> bytes:
    """The text with a mark in the place of everything that is too deep."""
    parts: list[bytes] = []
    start = depth = 0
    for token in _TOKEN.finditer(content):
        if token[0] in (b"{", b"["):
            depth += 1
            if depth == DEPTH + 1:
                parts.append(content[start : token.start()])
        elif token[0] in (b"}", b"]"):
            if depth == DEPTH + 1:
                parts.append(_WRITTEN_MARK)
                start = token.end()
            depth -= 1
    return b"".join([*parts, content[start:]]) if depth <= DEPTH else b""


def _without_marks(value: Any) -> Any:
    """The object, or what is left of it where it was cut."""
    if not _is_marked(value):
        return value
    body = value if isinstance(value, Mapping) else {}
    meta = body.get("metadata")
    meta = meta if isinstance(meta, Mapping) else {}
    # They repeat the structure of the object; who needs them knows that they can be left out.
    meta = {key: item for key, item in meta.items() if key != "managedFields"}
    rest = {key: item for key, item in body.items() if key != "metadata"}
    if isinstance(value, Mapping) and not _is_marked(meta) and not _is_marked(rest):
        return {**rest, "metadata": meta}
    left = TooDeepObject({key: item for key, item in rest.items() if isinstance(item, str)})
    # What was cut stays cut, which is neither a time nor a list.
    meta = {key: _MARK if _is_marked(item) else item for key, item in meta.items()}
    left.metadata_is_whole = not any(meta.get(key) == _MARK for key in _RELATIONS)
    left["metadata"] = meta
    return left


def _is_marked(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_is_marked, value.values()))
    if isinstance(value, list):
        return any(map(_is_marked, value))
    return bool(value == _MARK)
