"""The errors of an API server, with its own wording, as `Status` objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.resources import Resource

OPTIMISTIC_LOCK = (
    "the object has been modified; please apply your changes to the latest version and try again"
)
PATCH_TYPES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
)


class ApiError(Exception):
    """A request that the server refuses; `body` is the Status that it answers."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        text: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.headers = dict(headers or {})
        self.text = text
        """Answered as plain text, instead of a Status, by the few paths that do so."""
        self.body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": dict(metadata or {}),
            "status": "Failure",
            "message": message,
        }
        if reason:
            self.body["reason"] = reason
        if details is not None:
            self.body["details"] = dict(details)
        self.body["code"] = code


@dataclass(frozen=True)
class FieldError:
    """One field that validation refuses."""

    field: str
    reason: str
    message: str


def qualified(resource: Resource) -> str:
    """`virtualmachines.kubevirt.io`; without a dot for the core group."""
    return f"{resource.plural}.{resource.group}" if resource.group else resource.plural


def _details(group: str, kind: str, name: str, **more: object) -> dict[str, Any]:
    found = {"name": name, "group": group, "kind": kind, **more}
    return {key: value for key, value in found.items() if value}


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def unauthorized() -> ApiError:
    return ApiError(401, "Unauthorized", "Unauthorized")


def forbidden(group: str, resource: str, name: str, why: str) -> ApiError:
    """403 for a resource; `why` is what the authorizer or an admission plugin says."""
    subject = f"{resource}.{group}" if group else resource
    subject += f' "{name}"' if name else ""
    return ApiError(
        403, "Forbidden", f"{subject} is forbidden: {why}", details=_details(group, resource, name)
    )


def not_found(resource: Resource, name: str) -> ApiError:
    return ApiError(
        404,
        "NotFound",
        f'{qualified(resource)} "{name}" not found',
        details=_details(resource.group, resource.plural, name),
    )


def no_such_resource() -> ApiError:
    """A resource or subresource that a built-in group does not have."""
    message = "the server could not find the requested resource"
    return ApiError(404, "NotFound", message, details={})


def no_such_page() -> ApiError:
    """A path that nothing serves: an unknown group, or a CRD that is not installed."""
    return ApiError(404, "NotFound", "404 page not found", text="404 page not found\n")


def method_not_allowed() -> ApiError:
    message = "the server does not allow this method on the requested resource"
    return ApiError(405, "MethodNotAllowed", message, details={})


def not_acceptable() -> ApiError:
    message = (
        "only the following media types are accepted: application/json, application/yaml, "
        "application/vnd.kubernetes.protobuf"
    )
    return ApiError(406, "NotAcceptable", message)


def already_exists(resource: Resource, name: str) -> ApiError:
    return ApiError(
        409,
        "AlreadyExists",
        f'{qualified(resource)} "{name}" already exists',
        details=_details(resource.group, resource.plural, name),
    )


def conflict(resource: Resource, name: str, why: str, *, by_kind: bool = False) -> ApiError:
    """409; a deletion's preconditions name the kind where all else names the resource."""
    kind = resource.kind if by_kind else resource.plural
    subject = f"{kind}.{resource.group}" if resource.group else kind
    return ApiError(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {subject} "{name}": {why}',
        details=_details(resource.group, kind, name),
    )


def expired(message: str, continue_token: str | None = None) -> ApiError:
    metadata = {"continue": continue_token} if continue_token else {}
    return ApiError(410, "Expired", message, metadata=metadata)


def unsupported_media_type(accepted: Sequence[str]) -> ApiError:
    message = (
        "the body of the request was in an unknown format - accepted media types include: "
        + ", ".join(accepted)
    )
    return ApiError(415, "UnsupportedMediaType", message)


def invalid(group: str, kind: str, name: str, errors: Sequence[FieldError]) -> ApiError:
    texts = list(dict.fromkeys(f"{error.field}: {error.message}" for error in errors))
    what = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    causes = [
        {"reason": error.reason, "message": error.message, "field": error.field} for error in errors
    ]
    subject = f"{kind}.{group}" if group else kind
    return ApiError(
        422,
        "Invalid",
        f'{subject} "{name}" is invalid: {what}',
        details=_details(group, kind, name, causes=causes),
    )


def internal_error(message: str) -> ApiError:
    return ApiError(
        500,
        "InternalError",
        f"Internal error occurred: {message}",
        details={"causes": [{"message": message}]},
    )
