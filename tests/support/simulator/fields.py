"""`metadata.managedFields` as an API server keeps it, for objects that carry it.

Only what tests depend on: who wrote a field of an object, and when. An entry loses the fields that
another manager changes, and its time moves with each change. Items of lists are not told apart.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

_KEPT_BY_THE_SERVER = {"managedFields", "resourceVersion", "generation", "uid", "creationTimestamp"}


def tracked(old: Mapping[str, Any], new: dict[str, Any], manager: str, time: str) -> dict[str, Any]:
    """`new` with its managers; as it is where `old` has none, or the request sets them itself."""
    before = old.get("metadata", {}).get("managedFields")
    meta = new.get("metadata", {})
    if not before or meta.get("managedFields", before) != before:
        return new
    changed = list(_changed(old, new))
    if not changed:
        return new
    entries = [copy.deepcopy(entry) for entry in before if entry.get("manager") != manager]
    own = next((copy.deepcopy(entry) for entry in before if entry.get("manager") == manager), None)
    own = own or {
        "manager": manager,
        "operation": "Update",
        "apiVersion": new.get("apiVersion"),
        "fieldsType": "FieldsV1",
        "fieldsV1": {},
    }
    own["time"] = time
    for path in changed:
        for entry in entries:
            _drop(entry["fieldsV1"], path)
        _add(own["fieldsV1"], path)
    left = [entry for entry in entries if entry["fieldsV1"]]
    return {**new, "metadata": {**meta, "managedFields": [*left, own]}}


def _changed(old: Any, new: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        if old != new:
            yield path
        return
    for key in {*old, *new}:
        if not (path == ("metadata",) and key in _KEPT_BY_THE_SERVER):
            yield from _changed(old.get(key), new.get(key), (*path, key))


def _drop(fields: dict[str, Any], path: tuple[str, ...]) -> None:
    name = f"f:{path[0]}"
    if name not in fields:
        return
    if len(path) > 1 and fields[name]:
        _drop(fields[name], path[1:])
        if fields[name]:
            return
    del fields[name]


def _add(fields: dict[str, Any], path: tuple[str, ...]) -> None:
    for key in path:
        fields = fields.setdefault(f"f:{key}", {})
