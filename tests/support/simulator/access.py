"""Who asks, on whose behalf, and whether the stored RBAC objects allow it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.resources import RESOURCES

from .status import ApiError, bad_request, forbidden, unauthorized
from .store import Store, Stored

MASTERS, AUTHENTICATED = "system:masters", "system:authenticated"
_SERVICE_ACCOUNT = "system:serviceaccount:"
_OPEN_PATHS = ("/api", "/apis", "/version", "/openapi", "/healthz", "/livez", "/readyz")
_SELF_REVIEWS = {
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authentication.k8s.io", "selfsubjectreviews"),
}


@dataclass(frozen=True)
class User:
    """An authenticated or an impersonated user."""

    name: str
    groups: tuple[str, ...]
    uid: str = ""
    extra: Mapping[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Attributes:
    """What a user wants to do; `path` alone for what is not a resource."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""

    @property
    def full_resource(self) -> str:
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


class Access:
    """Authentication by bearer token, impersonation, and RBAC."""

    def __init__(self, users: Mapping[str, Sequence[str]], store: Store) -> None:
        self._store = store
        self._by_token = {
            f"Bearer {name}-token": User(name, (*groups, AUTHENTICATED))
            for name, groups in users.items()
        }

    def authenticate(self, headers: Mapping[str, str]) -> User:
        """The user of the token. ApiError 401 without a valid one: nobody is anonymous."""
        user = self._by_token.get(headers.get("authorization", ""))
        if user is None:
            raise unauthorized()
        return user

    def impersonated(self, user: User, headers: Sequence[tuple[str, str]]) -> User | None:
        """Who `user` acts for; None when the headers ask for nobody.

        ApiError 403 when `user` may not, 400 for groups without a user.
        """
        asked = [(key.lower(), value) for key, value in headers]
        name = next((value for key, value in asked if key == "impersonate-user"), "")
        groups = [value for key, value in asked if key == "impersonate-group"]
        uid = next((value for key, value in asked if key == "impersonate-uid"), "")
        extra: dict[str, list[str]] = {}
        for key, value in asked:
            if key.startswith("impersonate-extra-"):
                extra.setdefault(key.removeprefix("impersonate-extra-"), []).append(value)
        if not name:
            if groups or uid or extra:
                listed = " ".join(f"{{Group  {group}    }}" for group in groups)
                raise bad_request(f"requested [{listed}] without impersonating a user")
            return None
        if name.startswith(_SERVICE_ACCOUNT) and name.count(":") == 3:
            namespace, account = name.split(":")[2:]
            self._may_impersonate(user, "serviceaccounts", account, namespace=namespace)
            groups = groups or ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"]
        else:
            self._may_impersonate(user, "users", name)
            for group in groups:
                self._may_impersonate(user, "groups", group)
        if uid:
            self._may_impersonate(user, "uids", uid, group="authentication.k8s.io")
        for key, values in extra.items():
            for value in values:
                self._may_impersonate(
                    user, "userextras", value, group="authentication.k8s.io", subresource=key
                )
        if AUTHENTICATED not in groups:
            groups = [*groups, AUTHENTICATED]
        return User(name, tuple(groups), uid, extra)

    def check(self, user: User, wanted: Attributes) -> None:
        """ApiError 403 when `user` may not do it."""
        allowed, _ = self.allows(user, wanted)
        if allowed:
            return
        if wanted.path:
            why = f'User "{user.name}" cannot {wanted.verb} path "{wanted.path}"'
            raise ApiError(403, "Forbidden", f"forbidden: {why}", details={})
        where = (
            f'in the namespace "{wanted.namespace}"' if wanted.namespace else "at the cluster scope"
        )
        why = (
            f'User "{user.name}" cannot {wanted.verb} resource "{wanted.full_resource}" '
            f'in API group "{wanted.group}" {where}'
        )
        raise forbidden(wanted.group, wanted.resource, wanted.name, why)

    def allows(self, user: User, wanted: Attributes) -> tuple[bool, str]:
        """Whether `user` may do it, and in the authorizer's words why."""
        if MASTERS in user.groups:
            return True, ""
        if wanted.path:
            return any(
                wanted.path == path or wanted.path.startswith(path + "/") for path in _OPEN_PATHS
            ), ""
        if (wanted.group, wanted.resource) in _SELF_REVIEWS and wanted.verb == "create":
            return True, ""
        for binding, role, subject in self._bound(user, wanted.namespace):
            if any(_covers(rule, wanted) for rule in role.get("rules") or ()):
                return True, (
                    f"RBAC: allowed by {_label(binding)} of {role['kind']} "
                    f'"{role["metadata"]["name"]}" to {subject["kind"]} "{subject["name"]}"'
                )
        return False, ""

    def _may_impersonate(
        self,
        user: User,
        resource: str,
        name: str,
        *,
        namespace: str = "",
        group: str = "",
        subresource: str = "",
    ) -> None:
        wanted = Attributes("impersonate", group, resource, subresource, namespace, name)
        self.check(user, wanted)

    def _bound(
        self, user: User, namespace: str
    ) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]]:
        """The roles that `user` has there, each with its binding and the subject that fits."""
        bindings = list(self._store.all(RESOURCES["ClusterRoleBinding"]))
        if namespace:
            bindings += [
                stored
                for stored in self._store.all(RESOURCES["RoleBinding"])
                if stored.obj["metadata"]["namespace"] == namespace
            ]
        for stored in bindings:
            binding = stored.obj
            subject = next((s for s in binding.get("subjects") or () if _is(user, s)), None)
            role = self._role(binding)
            if subject is not None and role is not None:
                yield binding, role.obj, subject

    def _role(self, binding: Mapping[str, Any]) -> Stored | None:
        reference = binding["roleRef"]
        resource = RESOURCES[reference["kind"]]
        namespace = binding["metadata"].get("namespace") if resource.namespaced else None
        return self._store.get(resource, namespace, reference["name"])


def _is(user: User, subject: Mapping[str, Any]) -> bool:
    kind, name = subject["kind"], subject["name"]
    if kind == "Group":
        return name in user.groups
    if kind == "ServiceAccount":
        return user.name == f"{_SERVICE_ACCOUNT}{subject.get('namespace', '')}:{name}"
    return bool(user.name == name)


def _covers(rule: Mapping[str, Any], wanted: Attributes) -> bool:
    resources = rule.get("resources") or ()
    names = rule.get("resourceNames") or ()
    return (
        _listed(wanted.verb, rule.get("verbs") or ())
        and _listed(wanted.group, rule.get("apiGroups") or ())
        and (
            _listed(wanted.full_resource, resources)
            or (bool(wanted.subresource) and f"*/{wanted.subresource}" in resources)
        )
        and (not names or wanted.name in names)
    )


def _listed(value: str, values: Sequence[str]) -> bool:
    return "*" in values or value in values


def _label(binding: Mapping[str, Any]) -> str:
    metadata = binding["metadata"]
    name = "/".join(filter(None, [metadata["name"], metadata.get("namespace", "")]))
    return f'{binding["kind"]} "{name}"'
