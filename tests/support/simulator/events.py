"""Events, which two API groups serve: the same objects, with other names for some fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.support.resources import RESOURCES, Resource

from .status import FieldError, invalid

CORE, REPORT = RESOURCES["Event"], RESOURCES["EventReport"]
_TO_CORE = {
    "note": "message",
    "regarding": "involvedObject",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}
_FROM_CORE = {core: field for field, core in _TO_CORE.items()}
# What the server writes even where it is empty, and what it leaves out then.
_EMPTY: dict[Resource, dict[str, Any]] = {
    CORE: {
        "involvedObject": {},
        "source": {},
        "firstTimestamp": None,
        "lastTimestamp": None,
        "eventTime": None,
        "reportingComponent": "",
        "reportingInstance": "",
    },
    REPORT: {
        "eventTime": None,
        "deprecatedSource": {},
        "deprecatedFirstTimestamp": None,
        "deprecatedLastTimestamp": None,
    },
}
_LEFT_OUT = ("reportingController", "reportingInstance")
_NOTE, _SHORT = 1024, 128


def twin_of(resource: Resource) -> Resource | None:
    """The resource that serves the same objects; None for all but Events."""
    return {CORE: REPORT, REPORT: CORE}.get(resource)


def completed(resource: Resource, obj: Mapping[str, Any]) -> dict[str, Any]:
    """The object as it is stored; only Events are given fields."""
    return {**_EMPTY.get(resource, {}), **obj}


def translated(obj: Mapping[str, Any], resource: Resource) -> dict[str, Any]:
    """An Event in the fields of `resource`, which is the other group."""
    names = _TO_CORE if resource == CORE else _FROM_CORE
    renamed = {names.get(key, key): value for key, value in obj.items()}
    renamed |= {"apiVersion": resource.api_version, "kind": resource.kind}
    if resource == REPORT:
        renamed = {k: v for k, v in renamed.items() if v or k not in _LEFT_OUT}
    return completed(resource, renamed)


def check(obj: Mapping[str, Any]) -> None:
    """ApiError 422 for an Event of events.k8s.io that lacks what a new one must have."""
    errors = []
    if not obj.get("eventTime"):
        errors.append(FieldError("eventTime", "FieldValueRequired", "Required value"))
    for field in ("reportingController", "reportingInstance", "action", "reason"):
        value = obj.get(field) or ""
        if not value:
            errors.append(FieldError(field, "FieldValueRequired", "Required value"))
        elif len(value) > _SHORT and field != "reportingController":
            errors.append(_invalid(field, f"can have at most {_SHORT} characters"))
    if obj.get("type") not in ("Normal", "Warning"):
        errors.append(_invalid("type", f"has invalid value: {obj.get('type') or ''}"))
    if len((obj.get("note") or "").encode()) > _NOTE:
        errors.append(_invalid("message", f"can have at most {_NOTE} characters"))
    if errors:
        raise invalid("", "Event", obj["metadata"]["name"], errors)


def _invalid(field: str, why: str) -> FieldError:
    # The server does not repeat the value of an Event.
    return FieldError(field, "FieldValueInvalid", f'Invalid value: "": {why}')
