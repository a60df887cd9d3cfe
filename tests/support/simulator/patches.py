"""JSON merge patch (RFC 7396), and of JSON patch (RFC 6902) the four common operations.

Both give another object and leave the one they were given as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .status import PATCH_TYPES, ApiError, bad_request, unsupported_media_type


def patched(obj: Mapping[str, Any], patch: Any, content_type: str) -> dict[str, Any]:
    """`obj` after `patch`. ApiError 400 for a malformed one, 415 for a type not served here.

    The strategic merge patch of built-in kinds and server-side apply are not simulated.
    """
    if content_type == "application/merge-patch+json":
        if not isinstance(patch, Mapping):
            kind = "array" if isinstance(patch, list) else type(patch).__name__
            raise bad_request(
                f"error decoding patch: json: cannot unmarshal {kind} into Go value of type "
                "map[string]interface {}"
            )
        return merge_patched(obj, patch)
    if content_type == "application/json-patch+json":
        if not isinstance(patch, list):
            raise bad_request("error decoding patch: json: cannot unmarshal into jsonpatch.Patch")
        return json_patched(obj, patch)
    raise unsupported_media_type(PATCH_TYPES)


def merge_patched(target: Any, patch: Mapping[str, Any]) -> dict[str, Any]:
    """RFC 7396: null removes, an object is merged, anything else replaces."""
    merged = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            merged[key] = merge_patched(merged.get(key), value)
        else:
            merged[key] = value
    return merged


def json_patched(obj: Mapping[str, Any], operations: list[Any]) -> dict[str, Any]:
    """RFC 6902: `add`, `remove`, `replace` and `test`. ApiError 422 when one does not apply."""
    result: Any = obj
    for operation in operations:
        keys = [
            key.replace("~1", "/").replace("~0", "~")
            for key in str(operation.get("path", "")).split("/")[1:]
        ]
        try:
            result = _apply(result, keys, str(operation.get("op")), operation.get("value"))
        except (KeyError, IndexError, ValueError, TypeError):
            raise _not_applicable() from None
    return dict(result)


def _apply(target: Any, keys: list[str], op: str, value: Any) -> Any:
    if not keys:
        if op == "test" and target != value:
            raise ValueError(op)
        return target if op == "test" else value
    key, *rest = keys
    changed: Any = list(target) if isinstance(target, list) else dict(target)
    at: Any = _index(key, changed) if isinstance(changed, list) else key
    if rest:
        changed[at] = _apply(changed[at], rest, op, value)
    elif op == "test":
        if (changed[at] if isinstance(changed, list) else changed.get(at)) != value:
            raise ValueError(op)
    elif op == "remove":
        del changed[at]
    elif op == "add" and isinstance(changed, list):
        changed.insert(at, value)
    elif op == "add" or (op == "replace" and changed[at] is not None):
        changed[at] = value
    else:
        raise ValueError(op)
    return changed


def _index(key: str, values: list[Any]) -> int:
    if key == "-":
        return len(values)
    if not re.fullmatch(r"\d+", key):
        raise ValueError(key)
    return int(key)


def _not_applicable() -> ApiError:
    message = "the server rejected our request due to an error in our request"
    return ApiError(422, "Invalid", message, details={})
