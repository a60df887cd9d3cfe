"""Undo what a support bundle does to its objects on their way into YAML.

support-bundle-kit replaces text in the JSON of each list (pkg/manager/collectors/common.go): every
`""` becomes `"null"`, and so does a null that is followed by a comma. So empty strings and nulls
come as the word null, and a string that ends in a quotation mark gains the word. Numbers go
through floats; the reader of numbers undoes that.
"""

from __future__ import annotations

from typing import Any

_DAMAGE = "null"
_TEXT_MAPS = ("annotations", "labels", "matchLabels", "nodeSelector", "data")
"""Fields whose values are text in every object, so that the word stood for an empty string."""


def mend(value: Any) -> Any:
    """The object as the API server gave it; a null and an empty string cannot be told apart."""
    return _mend(value, None, None)


def _mend(value: Any, word: str | None, inner: str | None) -> Any:
    """`word` is what the damage stands for here, `inner` what it does in the fields of `value`."""
    if isinstance(value, dict):
        return {
            key: _mend(item, inner, "" if key in _TEXT_MAPS else None)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_mend(item, "", None) for item in value]
    if value == _DAMAGE:
        return word
    if isinstance(value, str) and value.endswith(f'"{_DAMAGE}'):
        return value[: -len(_DAMAGE)]
    return value
