"""The reviews in which a user asks about itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .access import Access, Attributes, User
from .status import FieldError, bad_request, invalid


def review(kind: str, body: Any, user: User, access: Access) -> dict[str, Any]:
    """The review of `kind` with its status filled in. ApiError 400 or 422 for a malformed one."""
    if not isinstance(body, Mapping):
        raise bad_request(f"the object provided is unrecognized (must be of type {kind})")
    metadata = {"creationTimestamp": None, **(body.get("metadata") or {})}
    if kind == "SelfSubjectReview":
        info: dict[str, Any] = {"username": user.name, "groups": list(user.groups)}
        if user.uid:
            info["uid"] = user.uid
        if user.extra:
            info["extra"] = dict(user.extra)
        return {
            "kind": kind,
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": metadata,
            "status": {"userInfo": info},
        }
    spec = body.get("spec") or {}
    allowed, reason = access.allows(user, _attributes(kind, spec))
    status: dict[str, Any] = {"allowed": allowed}
    if reason:
        status["reason"] = reason
    return {
        "kind": kind,
        "apiVersion": "authorization.k8s.io/v1",
        "metadata": metadata,
        "spec": spec,
        "status": status,
    }


def _attributes(kind: str, spec: Mapping[str, Any]) -> Attributes:
    of_resource: dict[str, str] = spec.get("resourceAttributes") or {}
    of_path: dict[str, str] = spec.get("nonResourceAttributes") or {}
    if bool(of_resource) == bool(of_path):
        message = (
            "Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes "
            "must be specified"
        )
        error = FieldError("spec.resourceAttributes", "FieldValueInvalid", message)
        raise invalid("authorization.k8s.io", kind, "", [error])
    if of_path:
        return Attributes(of_path.get("verb", ""), path=of_path.get("path", ""))
    return Attributes(
        *(
            of_resource.get(key, "")
            for key in ("verb", "group", "resource", "subresource", "namespace", "name")
        )
    )
