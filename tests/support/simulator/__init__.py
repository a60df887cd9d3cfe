"""A Kubernetes API server in the process of the tests.

It answers as kube-apiserver 1.35 does in all that a client of VirtualMachines, their instances
and their pods leans on. It has no schemas, no server-side apply, no strategic merge patch, no
DELETE of a collection, and nobody is anonymous. Where it differs from the real one that the
suite runs against, the real one is right.

    with Simulator() as cluster:
        cluster.seed({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", ...})
        cluster.inject(faults.close(), method="PATCH")
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

from tests.support.recorded import Recorded
from tests.support.resources import RESOURCES, Resource, resource_of

from . import faults
from .access import Access
from .admission import NO_ENDPOINTS, Admission, Handle, Webhook, denial, unreachable
from .api import Api, Request, delete_options
from .clock import Clock, timestamp
from .controllers import GARBAGE_COLLECTOR, VIRT_CONTROLLER, Controllers
from .faults import Fault, Faults, Injection
from .kubeconfig import kubeconfig
from .registry import Registry
from .rules import tidy
from .server import Server, certificates
from .status import ApiError, qualified
from .store import Store

__all__ = ["GARBAGE_COLLECTOR", "VIRT_CONTROLLER", "Fault", "Handle", "Simulator", "faults"]

HARVESTER_WEBHOOK = "validator.harvesterhci.io"
USERS: dict[str, tuple[str, ...]] = {"admin": ("system:masters",), "alice": (), "bob": ()}
NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")


class Simulator:
    """A running API server; a context manager that stops it.

    `users` maps further names to groups; "admin" (system:masters), "alice" and "bob" (no groups)
    always exist. Each user's token is its name and "-token". Kinds in `missing`, by plural or by
    `plural.group`, are not served, as if their CRD were not installed. `controllers` run from
    the start.

    What a test does through the methods here meets no fault, and works while the API server is
    stopped; only `request` is recorded.
    """

    def __init__(
        self,
        users: Mapping[str, Sequence[str]] | None = None,
        *,
        missing: Iterable[str] = (),
        controllers: Sequence[str] = (),
    ) -> None:
        self.clock = Clock()
        self._missing = set(missing)
        self._store = Store()
        self._admission = Admission()
        self._registry = Registry(self._store, self.clock, self._admission)
        self.controllers = Controllers(self._registry)
        self._faults = Faults()
        self._recorded: list[Recorded] = []
        self._made: list[tuple[Resource, str | None, str]] = []
        access = Access({**USERS, **(users or {})}, self._store)
        self._api = Api(
            self._registry,
            access,
            self._installed,
            self.controllers.react,
            lambda: self._server.stopping.is_set(),
        )
        self._server = Server(self._api, self.clock, self._faults, self._record)
        with self._store.lock:
            for namespace in NAMESPACES:
                self._registry.ensure_namespace(namespace)
        self.controllers.start(*controllers)
        self._server.start()

    def __enter__(self) -> Simulator:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.stop()

    @property
    def url(self) -> str:
        """Where the server listens; the same after a stop and a start."""
        return self._server.url

    @property
    def ca_data(self) -> bytes:
        """The certificate authority of the server, in PEM."""
        return certificates()[1]

    def kubeconfig(
        self,
        user: str = "admin",
        *,
        namespace: str = "default",
        context: str = "test",
        **user_fields: Any,
    ) -> dict[str, Any]:
        """A kubeconfig for `user`; `user_fields` are set in its user entry, None removes one."""
        fields = {"token": f"{user}-token", **user_fields}
        return kubeconfig(self.url, self.ca_data, context, namespace, user, fields)

    # What a test does as the cluster's other inhabitants.

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content_type: str = "application/json",
        user: str = "admin",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, dict[str, Any]]:
        """Do one request as `user`: the HTTP status and the JSON answer.

        It is recorded like those of a client. What is not a JSON object becomes {"text": ...}.
        """
        sent = {"Authorization": f"Bearer {user}-token", "Content-Type": content_type}
        sent |= headers or {}
        content = b"" if body is None else json.dumps(body).encode()
        request = Request(method, path, list(sent.items()), content)
        response = self._api.handle(request)
        self._record(request, response.status)
        if response.content_type == "application/json" and response.stream is None:
            return response.status, json.loads(response.body)
        return response.status, {"text": response.body.decode()}

    def version_of(self, kind: str) -> int:
        """Which version the objects of a kind are at: while it is the same, so are they."""
        return self._store.version_of(RESOURCES[kind])

    def create(self, obj: Mapping[str, Any]) -> dict[str, Any]:
        """The object that was created, with its status. AssertionError when refused."""
        resource, namespace = _place(obj)
        with self._store.lock:
            try:
                created = self._registry.create(resource, namespace, _copy(obj))
            except ApiError as error:
                raise AssertionError(str(error)) from error
            if "status" in obj:
                created = self._store.put(resource, {**created, "status": _copy(obj["status"])}).obj
            self._made.append((resource, namespace, created["metadata"]["name"]))
            self.controllers.react(namespace)
            return _copy(created)

    def seed(self, obj: Mapping[str, Any]) -> dict[str, Any]:
        """Store `obj` as it is, deletionTimestamp and all, in place of what has its name.

        Only what a stored object must have is filled in, its namespace is made if need be, and
        nothing reacts to it.
        """
        resource, namespace = _place(obj)
        copied = _copy(obj)
        metadata = {
            "uid": str(uuid.uuid4()),
            "creationTimestamp": timestamp(self.clock.now()),
            "generation": 1,
            **tidy(copied["metadata"]),
        }
        with self._store.lock:
            self._registry.ensure_namespace(namespace)
            stored = self._store.put(resource, {**copied, "metadata": metadata})
            self._made.append((resource, namespace, metadata["name"]))
            return _copy(stored.obj)

    def get(self, obj: Mapping[str, Any]) -> dict[str, Any] | None:
        """The object as it is stored now; None when it is not there."""
        with self._store.lock:
            stored = self._store.get(*_place(obj), obj["metadata"]["name"])
        return _copy(stored.obj) if stored else None

    def delete(self, obj: Mapping[str, Any], **options: Any) -> None:
        """Delete `obj`; `options` are fields of DeleteOptions. AssertionError when refused."""
        resource, namespace = _place(obj)
        with self._store.lock:
            try:
                name = obj["metadata"]["name"]
                how, dry_run = delete_options(options)
                self._registry.delete(resource, namespace, name, how, dry_run=dry_run)
            except ApiError as error:
                raise AssertionError(str(error)) from error
            self.controllers.react(namespace)

    def wipe(self, namespace: str) -> None:
        """Remove all objects and webhooks in `namespace`, and all that was made elsewhere.

        Finalizers do not hold them. A namespace that was made goes with everything in it.
        """
        with self._store.lock:
            made, self._made = self._made, []
            emptied = {namespace} | {
                name for resource, _, name in made if resource.kind == "Namespace"
            }
            for one in emptied:
                self._admission.forget(one)
                self._registry.empty(one)
            for resource, where, name in made:
                if stored := self._store.get(resource, where, name):
                    self._store.remove(resource, stored)

    # What went over the wire.

    def recorded(self) -> list[Recorded]:
        """The requests that reached the server, oldest first."""
        return list(self._recorded)

    def watches(self) -> list[str]:
        """The paths, with query, of the watches that have begun since `forget`."""
        return [item.path for item in self._recorded if "watch=1" in item.path]

    def forget(self) -> None:
        """Begin the record anew."""
        self._recorded.clear()

    # What can go wrong.

    def stop_apiserver(self) -> None:
        """Close the port and every connection; the objects are kept."""
        self._server.stop()

    def start_apiserver(self) -> None:
        """Listen again on the same port."""
        self._server.start()

    def deny_updates(
        self,
        resource_plural: str,
        message: str,
        *,
        webhook: str = HARVESTER_WEBHOOK,
        namespace: str | None = None,
        code: int = 422,
        reason: str = "Invalid",
        operations: tuple[str, ...] = ("UPDATE",),
    ) -> Handle:
        """Let a webhook deny each update of a resource and of its status, dry runs included.

        Or whatever else `operations` names.
        Code and reason are what the webhook says, and Harvester's say 422 and Invalid; for one
        that says neither the server makes it 400 without a reason.
        """
        return self._register(
            Webhook(
                resource_plural,
                namespace,
                operations,
                lambda: denial(webhook, message, code, reason),
            )
        )

    def break_webhook(
        self,
        resource_plural: str,
        namespace: str | None = None,
        *,
        webhook: str = HARVESTER_WEBHOOK,
        operations: tuple[str, ...] = ("UPDATE",),
        cause: str = NO_ENDPOINTS,
    ) -> Handle:
        """Let the webhook of a resource, with failurePolicy Fail, be out of reach by `cause`."""
        return self._register(
            Webhook(resource_plural, namespace, operations, lambda: unreachable(webhook, cause))
        )

    def inject(
        self,
        fault: Fault,
        *,
        method: str | None = None,
        path: str | None = None,
        times: int | None = 1,
        after: int = 0,
    ) -> Handle:
        """Let `fault` hit requests of `method` whose path with query matches the expression.

        `after` so many of them are spared, then `times` are hit; None for all of them.
        """
        injection = Injection(fault, method, re.compile(path) if path else None, times, after)
        self._faults.add(injection)
        return Handle(lambda: self._faults.remove(injection))

    def uninstall(self, resource_plural: str) -> None:
        """Serve a kind no longer, as if its CRD were gone; its objects come back with it."""
        self._missing.add(resource_plural)

    def install(self, resource_plural: str) -> None:
        """Serve a kind again."""
        self._missing.discard(resource_plural)

    def compact(self) -> None:
        """Let every continue token that was handed out expire, and every watch of the past."""
        with self._store.lock:
            self._store.compact()

    def _installed(self) -> list[Resource]:
        return [
            resource
            for resource in RESOURCES.values()
            if not (self._missing and {resource.plural, qualified(resource)} & self._missing)
        ]

    def _register(self, webhook: Webhook) -> Handle:
        self._admission.add(webhook)

        def remove() -> None:
            self._admission.remove(webhook)
            self.controllers.look_around()

        return Handle(remove)

    def _record(self, request: Request, status: int | None) -> None:
        try:
            body = request.json()
        except ApiError:
            body = request.body.decode(errors="replace")
        user, impersonated = request.user, request.impersonated
        self._recorded.append(
            Recorded(
                method=request.method,
                path=request.target,
                user=user.name if user else "",
                groups=user.groups if user else (),
                impersonated_user=impersonated.name if impersonated else None,
                impersonated_groups=impersonated.groups if impersonated else (),
                body=body,
                status=status,
                user_agent=request.header("user-agent"),
            )
        )


def _place(obj: Mapping[str, Any]) -> tuple[Resource, str | None]:
    resource = resource_of(obj)
    return resource, obj["metadata"].get("namespace") if resource.namespaced else None


def _copy(obj: Mapping[str, Any]) -> dict[str, Any]:
    copied: dict[str, Any] = json.loads(json.dumps(obj))
    return copied
