"""What the server says of itself: version, health, and the kinds that it serves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.support.resources import Resource

VERSION = {
    "major": "1",
    "minor": "35",
    "gitVersion": "v1.35.4",
    "gitTreeState": "clean",
    "platform": "linux/amd64",
}
HEALTH_PATHS = ("/healthz", "/livez", "/readyz")
_SHORT_NAMES = {
    "virtualmachines": ["vm", "vms"],
    "virtualmachineinstances": ["vmi", "vmis"],
    "virtualmachineinstancemigrations": ["vmim", "vmims"],
    "datavolumes": ["dv", "dvs"],
    "pods": ["po"],
    "nodes": ["no"],
    "namespaces": ["ns"],
    "events": ["ev"],
    "persistentvolumeclaims": ["pvc"],
    "persistentvolumes": ["pv"],
    "deployments": ["deploy"],
    "daemonsets": ["ds"],
    "network-attachment-definitions": ["net-attach-def"],
}
_VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
_REVIEWS = {
    "authorization.k8s.io/v1": ("SelfSubjectAccessReview", "selfsubjectaccessreviews"),
    "authentication.k8s.io/v1": ("SelfSubjectReview", "selfsubjectreviews"),
}


def document(path: str, installed: Iterable[Resource]) -> dict[str, Any] | None:
    """The document at `path`; None when there is none."""
    path = path.rstrip("/")
    if path == "/version":
        return dict(VERSION)
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    versions: dict[str, list[dict[str, Any]]] = {}
    for resource in installed:
        versions.setdefault(resource.api_version, []).extend(_entries(resource))
    for api_version, (kind, plural) in _REVIEWS.items():
        versions.setdefault(api_version, []).append(
            _entry(kind, plural, namespaced=False, verbs=["create"])
        )
    groups = {
        api_version.partition("/")[0]: _group(api_version)
        for api_version in sorted(versions)
        if "/" in api_version
    }
    if path == "/apis":
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": list(groups.values())}
    name = path.removeprefix("/apis/").removeprefix("/api/")
    if path.startswith("/apis/") and name in groups:
        return {"kind": "APIGroup", "apiVersion": "v1", **groups[name]}
    if name in versions and path == (f"/apis/{name}" if "/" in name else f"/api/{name}"):
        return {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": name,
            "resources": versions[name],
        }
    return None


def _group(api_version: str) -> dict[str, Any]:
    group, _, version = api_version.partition("/")
    served = {"groupVersion": api_version, "version": version}
    return {"name": group, "versions": [served], "preferredVersion": served}


def _entries(resource: Resource) -> list[dict[str, Any]]:
    entry = _entry(resource.kind, resource.plural, namespaced=resource.namespaced, verbs=_VERBS)
    status = {
        **entry,
        "name": f"{resource.plural}/status",
        "singularName": "",
        "verbs": ["get", "patch", "update"],
    }
    if short := _SHORT_NAMES.get(resource.plural):
        entry["shortNames"] = short
    return [entry, status] if resource.status_subresource else [entry]


def _entry(kind: str, plural: str, *, namespaced: bool, verbs: list[str]) -> dict[str, Any]:
    return {
        "name": plural,
        "singularName": kind.lower(),
        "namespaced": namespaced,
        "kind": kind,
        "verbs": verbs,
    }
