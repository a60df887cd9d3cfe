"""A kubeconfig for one user of a server."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any


def kubeconfig(
    url: str, ca_data: bytes, context: str, namespace: str, user: str, fields: Mapping[str, Any]
) -> dict[str, Any]:
    """A complete kubeconfig; `fields` are those of the user entry, without the empty ones."""
    authority = base64.b64encode(ca_data).decode()
    cluster = {"server": url, "certificate-authority-data": authority}
    chosen = {"cluster": context, "user": user, "namespace": namespace}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": context, "cluster": cluster}],
        "users": [{"name": user, "user": {k: v for k, v in fields.items() if v is not None}}],
        "contexts": [{"name": context, "context": chosen}],
        "current-context": context,
    }
