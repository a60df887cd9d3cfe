"""From a method and a path to what is asked of which resource."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .access import Attributes
from .selectors import selected_name

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True)
class Route:
    """A request for a resource, in the words of authorization."""

    verb: str
    api_version: str
    plural: str
    namespace: str | None
    name: str | None
    subresource: str

    @property
    def group(self) -> str:
        return self.api_version.rpartition("/")[0]

    def attributes(self, query: Mapping[str, str]) -> Attributes:
        """What the authorizer is asked; a list of one name counts as one name."""
        name = self.name or selected_name(query.get("fieldSelector", ""))
        return Attributes(
            self.verb, self.group, self.plural, self.subresource, self.namespace or "", name
        )


def route(method: str, path: str, query: Mapping[str, str]) -> Route | None:
    """The route of a resource's path; None for any other path."""
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) > 2:
        api_version, rest = parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        api_version, rest = "/".join(parts[1:3]), parts[3:]
    else:
        return None
    namespace = None
    if rest[0] == "namespaces" and len(rest) > 1:
        if len(rest) == 2 or rest[2] in ("status", "finalize"):
            # A namespace itself counts as being in itself for authorization.
            return Route(
                _verb(method, query, named=True),
                api_version,
                "namespaces",
                rest[1],
                rest[1],
                "/".join(rest[2:]),
            )
        namespace, rest = rest[1], rest[2:]
    plural, name = rest[0], rest[1] if len(rest) > 1 else None
    verb = _verb(method, query, named=name is not None)
    return Route(verb, api_version, plural, namespace, name, "/".join(rest[2:]))


def _verb(method: str, query: Mapping[str, str], *, named: bool) -> str:
    if method == "GET":
        if query.get("watch", "") in ("1", "true"):
            return "watch"
        return "get" if named else "list"
    if method == "DELETE" and not named:
        return "deletecollection"
    return _VERBS.get(method, method.lower())
