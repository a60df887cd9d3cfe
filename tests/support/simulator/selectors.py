"""Label and field selectors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from tests.support.resources import Resource

from .status import bad_request

Predicate = Callable[[Mapping[str, Any]], bool]

_METADATA = {"metadata.name", "metadata.namespace"}
_FIELDS = {
    "Pod": {"spec.nodeName", "spec.schedulerName", "status.phase", "status.podIP"},
    "Event": {
        "involvedObject.kind",
        "involvedObject.name",
        "involvedObject.namespace",
        "involvedObject.uid",
        "reason",
        "reportingComponent",
        "type",
    },
    "EventReport": {
        "regarding.kind",
        "regarding.name",
        "regarding.namespace",
        "regarding.uid",
        "reason",
        "reportingController",
        "type",
    },
    "Namespace": {"status.phase"},
    "Node": {"spec.unschedulable"},
    "Job": {"status.successful"},
}
_KEY = r"(?P<key>[A-Za-z0-9](?:[-A-Za-z0-9_./]*[A-Za-z0-9])?)"
_VALUE = r"[-A-Za-z0-9_.]*"
_EQUALITY = re.compile(rf"{_KEY}\s*(?P<op>==|=|!=)\s*(?P<value>{_VALUE})")
_SET = re.compile(rf"{_KEY}\s+(?P<op>in|notin)\s*\((?P<values>[^()]*)\)")
_EXISTS = re.compile(rf"(?P<not>!?)\s*{_KEY}")


def label_predicate(selector: str) -> Predicate:
    """Whether an object's labels fit. ApiError 400 for what is not a selector."""
    terms = [_label_term(term) for term in _split(selector)]

    def fits(obj: Mapping[str, Any]) -> bool:
        labels = obj["metadata"].get("labels") or {}
        return all(term(labels) for term in terms)

    return fits


def field_predicate(resource: Resource, selector: str) -> Predicate:
    """Whether an object's fields fit. ApiError 400 for a field that this kind cannot select."""
    terms = [_field_term(resource, term) for term in _split(selector)]
    return lambda obj: all(term(obj) for term in terms)


def selected_name(selector: str) -> str:
    """The name that a field selector asks for; empty when it asks for none.

    Authorization takes a list of one name for what it is.
    """
    found = re.search(r"(?:^|,)metadata\.name==?([^,]+)", selector)
    return found[1] if found else ""


def _split(selector: str) -> list[str]:
    return [term.strip() for term in re.split(r",(?![^(]*\))", selector) if term.strip()]


def _label_term(term: str) -> Predicate:
    if found := _EQUALITY.fullmatch(term):
        key, value = found["key"], found["value"]
        if found["op"] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if found := _SET.fullmatch(term):
        key = found["key"]
        values = {value.strip() for value in found["values"].split(",")}
        if found["op"] == "notin":
            return lambda labels: labels.get(key) not in values
        return lambda labels: key in labels and labels[key] in values
    if found := _EXISTS.fullmatch(term):
        key, wanted = found["key"], not found["not"]
        return lambda labels: (key in labels) is wanted
    raise bad_request(f"unable to parse requirement: found '{term}', expected: identifier")


def _field_term(resource: Resource, term: str) -> Predicate:
    found = re.fullmatch(r"([^=!]+)(==|=|!=)(.*)", term)
    if not found:
        raise bad_request(f"invalid selector: '{term}'; can't understand '{term}'")
    path, operator, value = found.groups()
    kind = "EventReport" if resource.group == "events.k8s.io" else resource.kind
    if path not in _METADATA | _FIELDS.get(kind, set()):
        raise bad_request(f"field label not supported: {path}")
    keys = path.split(".")

    def fits(obj: Mapping[str, Any]) -> bool:
        at: Any = obj
        for key in keys:
            at = at.get(key) if isinstance(at, Mapping) else None
        text = "" if at is None else str(at).lower() if isinstance(at, bool) else str(at)
        return (text == value) is (operator != "!=")

    return fits
