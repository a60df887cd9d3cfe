"""CRDs that take everything."""

from __future__ import annotations

from typing import Any


def definition(
    api_version: str, scope: str, plural: str, kind: str, *, status: bool = True
) -> dict[str, Any]:
    """The CRD of one kind; `scope` is `Cluster` or `Namespaced`."""
    group, _, version = api_version.partition("/")
    metadata: dict[str, Any] = {"name": f"{plural}.{group}"}
    if group.endswith(".k8s.io"):
        # Else the API server takes it for one that only claims to be of Kubernetes.
        metadata["annotations"] = {"api-approved.kubernetes.io": "unapproved, for a test"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": metadata,
        "spec": {
            "group": group,
            "scope": scope,
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    **({"subresources": {"status": {}}} if status else {}),
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "x-kubernetes-preserve-unknown-fields": True,
                        }
                    },
                }
            ],
        },
    }


def definitions(table: str) -> list[dict[str, Any]]:
    """One for each line of the table: `group/version Scope plural Kind`."""
    return [definition(*line.split()) for line in table.splitlines() if line.strip()]
