"""Label selectors as kubectl takes them, for objects that no API server selects.

Equality (`a=b`, `a==b`, `a!=b`), sets (`a in (b,c)`, `a notin (b)`) and existence (`a`, `!a`),
separated by commas; all have to hold.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

Labels = Mapping[str, str]
Predicate = Callable[[Labels], bool]

_KEY = r"(?P<key>[A-Za-z0-9](?:[-\w./]*[A-Za-z0-9])?)"
_TERM = re.compile(
    rf"""\s*(?:
        {_KEY}\s*(?P<is>==?|!=)\s*(?P<value>[-\w.]*)
      | {_KEY.replace("key", "set")}\s+(?P<in>in|notin)\s*\((?P<values>[^()]*)\)
      | (?P<not>!?)\s*{_KEY.replace("key", "has")}
    )\s*(?:,|$)""",
    re.VERBOSE,
)


def parse(text: str) -> Predicate:
    """Whether labels fit the selector. Raises ValueError with what is wrong."""
    terms: list[Predicate] = []
    position = 0
    while position < len(text):
        found = _TERM.match(text, position)
        if found is None:
            raise ValueError(f"{text!r} is not a label selector such as app=web,tier!=db")
        terms.append(_term(found))
        position = found.end()
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
    label, wanted = found["has"], not found["not"]
    return lambda labels: (label in labels) is wanted
