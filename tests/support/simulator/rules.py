"""What a server makes of an object before it stores it: defaults, immutable fields, deletion.

The functions give another object and leave the one they were given as it is.
"""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tests.support.resources import Resource

from .clock import moment, timestamp
from .status import FieldError, bad_request, conflict, invalid

BUILT_IN_GROUPS = frozenset(
    {
        "",
        "admissionregistration.k8s.io",
        "apiextensions.k8s.io",
        "apiregistration.k8s.io",
        "apps",
        "authentication.k8s.io",
        "authorization.k8s.io",
        "batch",
        "coordination.k8s.io",
        "discovery.k8s.io",
        "events.k8s.io",
        "networking.k8s.io",
        "policy",
        "rbac.authorization.k8s.io",
        "scheduling.k8s.io",
        "storage.k8s.io",
    }
)
FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"
DEFAULT_GRACE = 30
_WITH_GENERATION = {"DaemonSet", "Deployment", "Job", "Pod", "ValidatingWebhookConfiguration"}
_EMPTY_IS_ABSENT = ("annotations", "finalizers", "labels", "ownerReferences", "managedFields")


@dataclass(frozen=True)
class DeleteOptions:
    """How an object is to be deleted; `grace` in seconds."""

    grace: int | None = None
    policy: str | None = None
    uid: str | None = None
    resource_version: str | None = None


def is_custom(resource: Resource) -> bool:
    """Whether the kind comes from a CustomResourceDefinition."""
    return resource.group not in BUILT_IN_GROUPS


def tidy(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as a server writes it: empty lists and maps, and nulls, are left out."""
    return {
        key: value
        for key, value in metadata.items()
        if value is not None and (value or key not in _EMPTY_IS_ABSENT)
    }


def check_body(
    resource: Resource, obj: Any, namespace: str | None, name: str | None
) -> dict[str, Any]:
    """The object that was sent, in the namespace of the path. ApiError 400 if it does not fit."""
    if not isinstance(obj, Mapping) or not isinstance(obj.get("metadata", {}), Mapping):
        raise bad_request(f"the object provided is unrecognized (must be of type {resource.kind})")
    if is_custom(resource) and not obj.get("kind"):
        raise bad_request(
            f"the object provided is unrecognized (must be of type {resource.kind}): "
            f"Object 'Kind' is missing in '{json.dumps(obj)}' ({json.dumps(obj)})"
        )
    metadata = tidy(obj.get("metadata") or {})
    _check_type(resource, obj, metadata.get("name", ""))
    if name is not None and metadata.get("name", name) != name:
        raise bad_request(
            f"the name of the object ({metadata['name']}) does not match the name on the URL "
            f"({name})"
        )
    if namespace is None:
        metadata.pop("namespace", None)
    elif metadata.setdefault("namespace", namespace) != namespace:
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    if name is not None:
        metadata["name"] = name
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        **{key: value for key, value in obj.items() if key not in ("apiVersion", "kind")},
        "metadata": metadata,
    }


def _check_type(resource: Resource, obj: Mapping[str, Any], name: str) -> None:
    version = obj.get("apiVersion", resource.api_version)
    kind = obj.get("kind", resource.kind)
    if kind != resource.kind and is_custom(resource):
        message = f"Invalid value: {json.dumps(kind)}: must be {resource.kind}"
        error = FieldError("kind", "FieldValueInvalid", message)
        raise invalid(resource.group, kind, name, [error])
    if kind != resource.kind:
        raise bad_request(
            f'{kind} in version "{resource.api_version}" cannot be handled as a {resource.kind}: '
            f'no kind "{kind}" is registered for version "{version}"'
        )
    if version != resource.api_version:
        raise bad_request(
            f"the API version in the data ({version}) does not match the expected API version "
            f"({resource.api_version})"
        )


def created(resource: Resource, obj: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """A new object as the server stores it. ApiError 422 when it has no name."""
    metadata = dict(obj["metadata"])
    if "name" not in metadata and metadata.get("generateName"):
        metadata["name"] = metadata["generateName"] + "".join(
            random.choices("bcdfghjklmnpqrstvwxz2456789", k=5)
        )
    if not metadata.get("name"):
        error = FieldError(
            "metadata.name",
            "FieldValueRequired",
            "Required value: name or generateName is required",
        )
        raise invalid(resource.group, resource.kind, "", [error])
    for key in ("deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion", "selfLink"):
        metadata.pop(key, None)
    metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": timestamp(now)}
    if is_custom(resource) or resource.kind in _WITH_GENERATION:
        metadata["generation"] = 1
    new = {**obj, "metadata": metadata}
    if resource.status_subresource:
        new.pop("status", None)
    if resource.kind == "Pod":
        new["spec"] = {"terminationGracePeriodSeconds": DEFAULT_GRACE} | (new.get("spec") or {})
        new["status"] = {"phase": "Pending"}
    elif resource.kind == "Namespace":
        labels = metadata.get("labels", {}) | {"kubernetes.io/metadata.name": metadata["name"]}
        metadata["labels"] = labels
        new |= {"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
    return new


def updated(
    resource: Resource, subresource: str, old: Mapping[str, Any], new: Mapping[str, Any]
) -> dict[str, Any]:
    """The object after an update, of all or of its status alone.

    ApiError 422 when that would change what is immutable. `new` has the name of `old`.
    """
    old_metadata = old["metadata"]
    metadata = tidy(new["metadata"])
    if subresource == "status" and is_custom(resource):
        metadata = dict(old_metadata)
    # What an update cannot change is silently taken from the object that is stored ...
    for key in ("creationTimestamp", "generation", "resourceVersion", "selfLink"):
        metadata.pop(key, None)
        if key in old_metadata:
            metadata[key] = old_metadata[key]
    metadata.setdefault("uid", old_metadata["uid"])
    if "deletionTimestamp" in old_metadata:
        metadata["deletionTimestamp"] = old_metadata["deletionTimestamp"]
    if "deletionGracePeriodSeconds" in old_metadata:
        metadata.setdefault(
            "deletionGracePeriodSeconds", old_metadata["deletionGracePeriodSeconds"]
        )
    # ... and the rest is refused.
    if errors := _field_errors(old_metadata, metadata):
        # Metadata is validated twice, by the server and by the kind: each cause is told twice.
        raise invalid(resource.group, resource.kind, old_metadata["name"], errors * 2)
    if subresource == "status":
        kept, changed = old, {"status": new["status"]} if "status" in new else {}
    else:
        kept = {"status": old["status"]} if resource.status_subresource and "status" in old else {}
        changed = {
            key: value
            for key, value in new.items()
            if key != "status" or not resource.status_subresource
        }
    result = {**kept, **changed, "metadata": metadata}
    if _desired(resource, result) != _desired(resource, old) and "generation" in metadata:
        metadata["generation"] += 1
    return result


def _desired(resource: Resource, obj: Mapping[str, Any]) -> dict[str, Any]:
    """What counts for the generation."""
    ignored = {"metadata", "status"} if resource.status_subresource else {"metadata"}
    return {key: value for key, value in obj.items() if key not in ignored}


def _field_errors(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[FieldError]:
    errors = []
    if "deletionTimestamp" in old:
        had = set(old.get("finalizers", []))
        added = sorted({name for name in new.get("finalizers", []) if name not in had})
        if added:
            listed = ", ".join(json.dumps(name) for name in added)
            message = (
                "Forbidden: no new finalizers can be added if the object is being deleted, "
                f"found new finalizers []string{{{listed}}}"
            )
            errors.append(FieldError("metadata.finalizers", "FieldValueForbidden", message))
    for key in ("uid", "deletionTimestamp", "deletionGracePeriodSeconds"):
        if new.get(key) != old.get(key):
            message = f"Invalid value: {json.dumps(new.get(key))}: field is immutable"
            errors.append(FieldError(f"metadata.{key}", "FieldValueInvalid", message))
    return errors


def is_finished(metadata: Mapping[str, Any]) -> bool:
    """Whether an object that was just updated goes away: deleted, out of grace, not held."""
    return (
        "deletionTimestamp" in metadata
        and not metadata.get("deletionGracePeriodSeconds")
        and not metadata.get("finalizers")
    )


def check_preconditions(resource: Resource, obj: Mapping[str, Any], options: DeleteOptions) -> None:
    """ApiError 409 when the object is not the one that the options speak of."""
    metadata = obj["metadata"]
    for label, wanted, actual, hint in (
        ("UID", options.uid, metadata["uid"], "deleted and then recreated"),
        (
            "ResourceVersion",
            options.resource_version,
            metadata["resourceVersion"],
            "modified",
        ),
    ):
        if wanted is not None and wanted != actual:
            why = (
                f"the {label} in the precondition ({wanted}) does not match the {label} in record "
                f"({actual}). The object might have been {hint}"
            )
            raise conflict(resource, metadata["name"], why, by_kind=True)


def deleted(
    resource: Resource, obj: Mapping[str, Any], options: DeleteOptions, now: datetime
) -> tuple[dict[str, Any], bool]:
    """The object after a DELETE, and whether it is gone at once."""
    metadata = dict(obj["metadata"])
    if resource.kind == "Pod" and "deletionGracePeriodSeconds" in metadata:
        return _shortened(obj, metadata, options)
    if (finalizers := _cascading(metadata.get("finalizers", []), options)) is not None:
        metadata["finalizers"] = finalizers
    grace = _grace(obj, options) if resource.kind == "Pod" else 0
    held = bool(metadata.get("finalizers")) or resource.kind == "Namespace"
    if not held and not grace and resource.kind != "Pod":
        return dict(obj), True
    if "deletionTimestamp" not in metadata:
        metadata["deletionTimestamp"] = timestamp(now + timedelta(seconds=grace))
        if "generation" in metadata:
            metadata["generation"] += 1
    if resource.kind != "Namespace":
        metadata["deletionGracePeriodSeconds"] = grace
    changed = {**obj, "metadata": tidy(metadata)}
    if resource.kind == "Namespace":
        changed["status"] = {**obj.get("status", {}), "phase": "Terminating"}
    return changed, not held and not grace


def _shortened(
    obj: Mapping[str, Any], metadata: dict[str, Any], options: DeleteOptions
) -> tuple[dict[str, Any], bool]:
    """A pod that is being deleted already: its grace period can only become shorter."""
    current = metadata["deletionGracePeriodSeconds"]
    grace = current if options.grace is None else options.grace
    if grace < current:
        start = moment(metadata["deletionTimestamp"]) - timedelta(seconds=current)
        metadata["deletionTimestamp"] = timestamp(start + timedelta(seconds=grace))
        metadata["deletionGracePeriodSeconds"] = grace
    return {**obj, "metadata": metadata}, not grace and not metadata.get("finalizers")


def _grace(pod: Mapping[str, Any], options: DeleteOptions) -> int:
    spec, status = pod.get("spec", {}), pod.get("status", {})
    if "deletionTimestamp" in pod["metadata"]:  # and no grace period: it is forced
        return 0
    if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
        return 0
    if options.grace is not None:
        return options.grace
    return int(spec.get("terminationGracePeriodSeconds", DEFAULT_GRACE))


def _cascading(finalizers: list[str], options: DeleteOptions) -> list[str] | None:
    """The finalizers as the policy wants them for the garbage collector; None for no change."""
    if options.policy is None:
        return None
    kept = [name for name in finalizers if name not in (FOREGROUND, ORPHAN)]
    added = {"Foreground": [FOREGROUND], "Orphan": [ORPHAN]}.get(options.policy, [])
    wanted = kept + added
    return None if set(wanted) == set(finalizers) else wanted
