"""Label selectors as kubectl takes them, for objects that no API server selects.

Equality (`a=b`, `a==b`, `a!=b`), sets (`a in (b,c)`, `a notin (b)`), existence (`a`, `!a`) and
numbers (`a>1`, `a<2`), separated by commas; all have to hold.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

Labels = Mapping[str, str]
Predicate = Callable[[Labels], bool]

_KEY = r"(?P<key>(?:[a-z0-9](?:[-.a-z0-9]*[a-z0-9])?/)?[A-Za-z0-9](?:[-\w.]{0,61}[A-Za-z0-9])?)"
_VALUE = r"(?:[A-Za-z0-9](?:[-\w.]{0,61}[A-Za-z0-9])?)?"
_TERM = re.compile(
    rf"""\s*(?:
        {_KEY}\s*(?P<is>==?|!=)\s*(?P<value>{_VALUE})
      | {_KEY.replace("key", "number")}\s*(?P<than>[<>])\s*(?P<limit>[-+]?[0-9]+)
      | {_KEY.replace("key", "set")}\s+(?P<in>in|notin)\s*
        \((?P<values>\s*{_VALUE}\s*(?:,\s*{_VALUE}\s*)*)\)
      | (?P<not>!?)\s*{_KEY.replace("key", "has")}
    )\s*(?:(?P<more>,)|$)""",
    re.VERBOSE | re.ASCII,
)


def parse(text: str) -> Predicate:
    """Whether labels fit the selector. Raises ValueError with what is wrong."""
    terms: list[Predicate] = []
    position, more = 0, bool(text.strip())
    while more:
        found = _TERM.match(text, position)
        if found is None:
            raise ValueError(f"{text!r} is not a label selector such as app=web,tier!=db")
        terms.append(_term(found))
        position, more = found.end(), bool(found["more"])
    return lambda labels: all(term(labels) for term in terms)


def _term(found: re.Match[str]) -> Predicate:
    if found["key"] is not None:
        key, value = found["key"], found["value"]
        if found["is"] == "!=":
            # As in Kubernetes, an object without the label fits as well.
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if found["set"] is not None:
        name, values = found["set"], {one.strip() for one in found["values"].split(",")}
        if found["in"] == "in":
            return lambda labels: name in labels and labels[name] in values
        return lambda labels: name not in labels or labels[name] not in values
    if found["number"] is not None:
        limit, number, is_more = int(found["limit"]), found["number"], found["than"] == ">"
        return lambda labels: _is_beyond(labels.get(number, ""), limit, is_more=is_more)
    label, wanted = found["has"], not found["not"]
    return lambda labels: (label in labels) is wanted


def _is_beyond(value: str, limit: int, *, is_more: bool) -> bool:
    try:
        number = int(value)
    except ValueError:
        return False
    return number > limit if is_more else number < limit
