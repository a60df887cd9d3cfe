"""Create, update and delete, as every client and every controller of the simulator does them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tests.support.resources import RESOURCES, Resource

from . import events, rules
from .admission import Admission
from .clock import Clock
from .rules import DeleteOptions
from .status import (
    OPTIMISTIC_LOCK,
    ApiError,
    FieldError,
    already_exists,
    conflict,
    invalid,
    not_found,
)
from .store import Store, Stored, key_of

Change = Callable[[Mapping[str, Any]], dict[str, Any]]


class Registry:
    """The rules of the server around its store. Callers hold the store's lock."""

    def __init__(self, store: Store, clock: Clock, admission: Admission) -> None:
        self.store = store
        self.clock = clock
        self.admission = admission

    def get(self, resource: Resource, namespace: str | None, name: str) -> Stored:
        """The object. ApiError 404 without it."""
        stored = self.store.get(resource, namespace, name)
        if stored is None:
            raise not_found(resource, name)
        return stored

    def create(
        self, resource: Resource, namespace: str | None, body: Any, *, dry_run: bool = False
    ) -> Mapping[str, Any]:
        """The object that was created. ApiError 409 when its name is taken."""
        checked = rules.check_body(resource, body, namespace, None)
        new = rules.created(resource, checked, self.clock.now())
        name = new["metadata"]["name"]
        if resource == events.REPORT:
            events.check(new)
        if namespace is not None:
            self._check_namespace(resource, namespace, name)
        self.admission.validate("CREATE", resource, namespace)
        if self.store.get(resource, namespace, name) is not None:
            raise already_exists(resource, name)
        return new if dry_run else self.store.put(resource, new).obj

    def update(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        change: Change,
        *,
        subresource: str = "",
        dry_run: bool = False,
        is_patch: bool = True,
    ) -> Mapping[str, Any]:
        """The object after `change` made another one of it.

        When that ends a deletion the object is gone, and what is given is its last state.
        ApiError 404, 409 for another version of it, 422 for what may not be changed, and
        whatever a webhook answers.
        """
        stored = self.get(resource, namespace, name)
        old = stored.obj
        new = rules.check_body(resource, change(old), namespace, name)
        self._check_version(resource, old["metadata"], new["metadata"], is_patch=is_patch)
        new = rules.updated(resource, subresource, old, new)
        self.admission.validate("UPDATE", resource, namespace)
        if dry_run:
            return new
        if new != old and rules.is_finished(new["metadata"]):
            self.store.remove(resource, stored)
            return new
        return old if new == old else self.store.put(resource, new).obj

    def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        options: DeleteOptions,
        *,
        dry_run: bool = False,
    ) -> tuple[Mapping[str, Any], bool]:
        """The object after a deletion, and whether it is gone. ApiError 404 or 409."""
        stored = self.get(resource, namespace, name)
        rules.check_preconditions(resource, stored.obj, options)
        new, gone = rules.deleted(resource, stored.obj, options, self.clock.now())
        self.admission.validate("DELETE", resource, namespace)
        if dry_run:
            return new, gone
        if gone:
            self.store.remove(resource, stored)
        elif new != stored.obj:
            new = dict(self.store.put(resource, new).obj)
        return new, gone

    def ensure_namespace(self, namespace: str | None) -> None:
        """Create `namespace` unless it is there; None is what has no namespace."""
        resource = RESOURCES["Namespace"]
        if namespace is not None and self.store.get(resource, None, namespace) is None:
            self.create(resource, None, {"metadata": {"name": namespace}})

    def empty(self, namespace: str) -> None:
        """Remove every object in `namespace` at once, whatever holds it."""
        for resource in self.store.tables():
            for stored in list(self.store.all(resource)):
                if stored.key.startswith(f"{namespace}/"):
                    self.store.remove(resource, stored)

    def _check_version(
        self,
        resource: Resource,
        old: Mapping[str, Any],
        new: Mapping[str, Any],
        *,
        is_patch: bool,
    ) -> None:
        name = old["name"]
        if not is_patch and new.get("uid", old["uid"]) != old["uid"]:
            key = key_of(old.get("namespace"), name)
            why = (
                f"StorageError: invalid object, Code: 4, Key: /registry/{resource.group}/"
                f"{resource.plural}/{key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition "
                f"failed: UID in precondition: {new['uid']}, UID in object meta: {old['uid']}"
            )
            raise conflict(resource, name, why)
        version = new.get("resourceVersion")
        if not version:
            if rules.is_custom(resource):
                message = "Invalid value: 0: must be specified for an update"
                error = FieldError("metadata.resourceVersion", "FieldValueInvalid", message)
                raise invalid(resource.group, resource.plural, name, [error])
        elif not version.isdecimal():
            message = f'strconv.ParseUint: parsing "{version}": invalid syntax'
            raise ApiError(500, "", message)
        elif version != old["resourceVersion"]:
            raise conflict(resource, name, OPTIMISTIC_LOCK)

    def _check_namespace(self, resource: Resource, namespace: str, name: str) -> None:
        stored = self.get(RESOURCES["Namespace"], None, namespace)
        if "deletionTimestamp" not in stored.obj["metadata"]:
            return
        subject = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
        message = (
            f'{subject} "{name}" is forbidden: unable to create new content in namespace '
            f"{namespace} because it is being terminated"
        )
        cause = {
            "reason": "NamespaceTerminating",
            "message": f"namespace {namespace} is being terminated",
            "field": "metadata.namespace",
        }
        details = {
            "name": name,
            "group": resource.group,
            "kind": resource.plural,
            "causes": [cause],
        }
        raise ApiError(403, "Forbidden", message, details=details)
