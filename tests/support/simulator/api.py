"""The answers to requests: authentication, authorization, and what each verb does."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.support.resources import Resource

from . import discovery
from .access import Access, Attributes, User
from .clock import timestamp
from .fields import tracked
from .lists import Form, accepted_form, list_json
from .patches import patched
from .registry import Registry
from .reviews import review
from .routes import Route, route
from .rules import BUILT_IN_GROUPS, DeleteOptions, check_body, is_custom
from .status import (
    ApiError,
    FieldError,
    bad_request,
    internal_error,
    invalid,
    method_not_allowed,
    no_such_page,
    no_such_resource,
    not_found,
    unsupported_media_type,
)
from .store import encode, partial
from .watches import watch

JSON = "application/json"
BODY_TYPES = (JSON, "application/yaml", "application/vnd.kubernetes.protobuf")
_RETURNED_WHEN_DELETED = {"Pod", "PersistentVolumeClaim", "PersistentVolume", "ResourceQuota"}
_REVIEWS = {
    "selfsubjectaccessreviews": "SelfSubjectAccessReview",
    "selfsubjectreviews": "SelfSubjectReview",
}
_POLICIES = ("Foreground", "Background", "Orphan")


@dataclass
class Request:
    """One request; who sent it is filled in when it is handled."""

    method: str
    target: str
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    user: User | None = None
    impersonated: User | None = None

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    def header(self, name: str) -> str:
        """The first header of that lower-case name, or nothing."""
        return next((value for key, value in self.headers if key.lower() == name), "")

    def json(self) -> Any:
        """The decoded body; None without one. ApiError 400 for what is not JSON."""
        if not self.body:
            return None
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise bad_request(f"couldn't get version/kind; json parse error: {error}") from None


@dataclass
class Response:
    """One answer: `body`, or a `stream` that is sent in chunks."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)
    stream: Iterator[bytes] | None = None


class Api:
    """A Kubernetes API without its transport.

    `on_change` is called with the namespace after a request changed something, before it is
    answered; None stands for what has no namespace.
    """

    def __init__(
        self,
        registry: Registry,
        access: Access,
        installed: Callable[[], list[Resource]],
        on_change: Callable[[str | None], None],
        stopped: Callable[[], bool],
    ) -> None:
        self._registry = registry
        self._access = access
        self._installed = installed
        self._on_change = on_change
        self._stopped = stopped

    def handle(self, request: Request) -> Response:
        """The answer to `request`; never an exception."""
        try:
            with self._registry.store.lock:
                return self._answer(request)
        except ApiError as error:
            return error_response(error)
        except Exception:
            logging.getLogger(__name__).exception("%s %s", request.method, request.target)
            return error_response(internal_error("the simulator failed"))

    def _answer(self, request: Request) -> Response:
        headers = {key.lower(): value for key, value in request.headers}
        request.user = self._access.authenticate(headers)
        request.impersonated = self._access.impersonated(request.user, request.headers)
        user = request.impersonated or request.user
        query = request.query
        asked = route(request.method, request.path, query)
        if asked is None:
            self._access.check(user, Attributes(request.method.lower(), path=request.path))
            return self._document(request)
        self._access.check(user, asked.attributes(query))
        if asked.plural in _REVIEWS and asked.verb == "create":
            _check_json(request)
            kind = _REVIEWS[asked.plural]
            return _json(201, review(kind, request.json(), user, self._access))
        return self._resource(request, asked, self._served(asked), query)

    def _document(self, request: Request) -> Response:
        if request.path in discovery.HEALTH_PATHS:
            return Response(200, b"ok", "text/plain; charset=utf-8")
        document = discovery.document(request.path, self._installed())
        if document is None:
            raise no_such_page()
        return _json(200, document)

    def _served(self, asked: Route) -> Resource:
        """The resource of a route. ApiError 404 for what is not served."""
        unknown = no_such_resource() if asked.group in BUILT_IN_GROUPS else no_such_page()
        for resource in self._installed():
            if resource.plural != asked.plural or resource.api_version != asked.api_version:
                continue
            in_namespace = asked.namespace is not None and resource.kind != "Namespace"
            if in_namespace != resource.namespaced and (in_namespace or asked.name is not None):
                raise unknown
            if asked.subresource not in ("", "status") and is_custom(resource):
                raise not_found(resource, asked.name or "")
            if asked.subresource and not (
                asked.subresource == "status" and resource.status_subresource
            ):
                raise unknown
            return resource
        raise unknown

    def _resource(
        self, request: Request, asked: Route, resource: Resource, query: Mapping[str, str]
    ) -> Response:
        namespace = asked.namespace if resource.namespaced else None
        accept = request.header("accept")
        form = accepted_form(accept, of_list=asked.verb in ("list", "watch"))
        if asked.verb == "list":
            listed = list_json(
                self._registry.store, resource, namespace, query, form, self._registry.clock.now()
            )
            return Response(200, listed.encode())
        if asked.verb == "watch":
            store = self._registry.store
            lines = watch(store, resource, namespace, query, form, self._stopped)
            return Response(200, stream=lines)
        if asked.verb == "create":
            if resource.namespaced and namespace is None and is_custom(resource):
                raise no_such_page()
            if asked.name is not None or (resource.namespaced and namespace is None):
                raise method_not_allowed()
            _check_json(request)
            dry_run = _dry_run(query.get("dryRun"), "CreateOptions")
            body = request.json()
            obj = self._registry.create(resource, namespace, body, dry_run=dry_run)
            return self._changed(201, obj, form, namespace, dry_run=dry_run)
        if asked.name is None:
            raise method_not_allowed()
        if asked.verb == "get":
            return _object(200, self._registry.get(resource, namespace, asked.name).obj, form)
        if asked.verb in ("update", "patch"):
            return self._update(request, asked, resource, namespace, form)
        if asked.verb == "delete" and not asked.subresource:
            return self._delete(request, asked.name, resource, namespace, form)
        raise method_not_allowed()

    def _update(
        self,
        request: Request,
        asked: Route,
        resource: Resource,
        namespace: str | None,
        form: Form,
    ) -> Response:
        is_patch = asked.verb == "patch"
        if not is_patch:
            _check_json(request)
            check_body(resource, request.json(), namespace, asked.name)
        options = "PatchOptions" if is_patch else "UpdateOptions"
        dry_run = _dry_run(request.query.get("dryRun"), options)
        content_type = request.header("content-type").partition(";")[0].strip()

        agent = request.header("user-agent").partition("/")[0]
        manager = request.query.get("fieldManager") or agent or "unknown"
        now = timestamp(self._registry.clock.now())

        def change(old: Mapping[str, Any]) -> dict[str, Any]:
            if is_patch:
                return tracked(old, patched(old, request.json(), content_type), manager, now)
            replacement: dict[str, Any] = request.json()
            return tracked(old, replacement, manager, now)

        obj = self._registry.update(
            resource,
            namespace,
            asked.name or "",
            change,
            subresource=asked.subresource,
            dry_run=dry_run,
            is_patch=is_patch,
        )
        return self._changed(200, obj, form, namespace, dry_run=dry_run)

    def _delete(
        self,
        request: Request,
        name: str,
        resource: Resource,
        namespace: str | None,
        form: Form,
    ) -> Response:
        options, dry_run = _delete_options(request)
        obj, gone = self._registry.delete(resource, namespace, name, options, dry_run=dry_run)
        if gone and resource.kind not in _RETURNED_WHEN_DELETED:
            details = {"name": name, "kind": resource.plural, "uid": obj["metadata"]["uid"]}
            if resource.group:
                details["group"] = resource.group
            success = {
                "kind": "Status",
                "apiVersion": "v1",
                "metadata": {},
                "status": "Success",
                "details": details,
            }
            return self._changed(200, success, Form.FULL, namespace, dry_run=dry_run)
        return self._changed(200, obj, form, namespace, dry_run=dry_run)

    def _changed(
        self,
        status: int,
        obj: Mapping[str, Any],
        form: Form,
        namespace: str | None,
        *,
        dry_run: bool,
    ) -> Response:
        if not dry_run:
            self._on_change(namespace)
        return _object(status, obj, form)


def error_response(error: ApiError) -> Response:
    """The Status of `error` as an answer, or its text where the server writes text."""
    if error.text is not None:
        return Response(error.code, error.text.encode(), "text/plain; charset=utf-8")
    return Response(error.code, encode(error.body).encode(), headers=error.headers)


def delete_options(given: Mapping[str, Any]) -> tuple[DeleteOptions, bool]:
    """The DeleteOptions in an object or in a query, and whether it is a dry run."""
    policy, orphan = given.get("propagationPolicy"), given.get("orphanDependents")
    if policy is not None and orphan is not None:
        message = (
            f'Invalid value: "{policy}": orphanDependents and deletionPropagation cannot be '
            "both set"
        )
        error = FieldError("propagationPolicy", "FieldValueInvalid", message)
        raise invalid("meta.k8s.io", "DeleteOptions", "", [error])
    if orphan is not None:
        policy = "Orphan" if orphan in (True, "true") else "Background"
    if policy not in (None, *_POLICIES):
        listed = ", ".join(f'"{one}"' for one in (*_POLICIES, "nil"))
        message = f'Unsupported value: "{policy}": supported values: {listed}'
        error = FieldError("propagationPolicy", "FieldValueNotSupported", message)
        raise invalid("meta.k8s.io", "DeleteOptions", "", [error])
    grace = given.get("gracePeriodSeconds")
    preconditions = given.get("preconditions") or {}
    seconds = None if grace is None else int(grace)
    options = DeleteOptions(
        1 if seconds is not None and seconds < 0 else seconds,
        policy,
        preconditions.get("uid"),
        preconditions.get("resourceVersion"),
    )
    return options, _dry_run(given.get("dryRun"), "DeleteOptions")


def _delete_options(request: Request) -> tuple[DeleteOptions, bool]:
    # With a body, the query is not looked at, not even for dryRun: as the real server does.
    body = request.json()
    if body is None:
        return delete_options(request.query)
    if not isinstance(body, Mapping):
        raise bad_request("the body is not an object of type DeleteOptions")
    return delete_options(body)


def _dry_run(value: Any, kind: str) -> bool:
    values = [value] if isinstance(value, str) else list(value or [])
    if values in ([], [""]):
        return False
    if values != ["All"]:
        message = f'Unsupported value: {encode(values)}: supported values: "All"'
        error = FieldError("dryRun", "FieldValueNotSupported", message)
        raise invalid("meta.k8s.io", kind, "", [error])
    return True


def _check_json(request: Request) -> None:
    if request.header("content-type").partition(";")[0].strip() not in ("", JSON):
        raise unsupported_media_type(BODY_TYPES)


def _json(status: int, body: Mapping[str, Any]) -> Response:
    return Response(status, encode(body).encode())


def _object(status: int, obj: Mapping[str, Any], form: Form) -> Response:
    return _json(status, partial(obj) if form is Form.PARTIAL else obj)
