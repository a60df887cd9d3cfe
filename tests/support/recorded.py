"""What a test control plane remembers of each request that reached it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Recorded:
    """One request, as the audit log of an API server tells it."""

    method: str
    path: str
    """The path with its query, as it was asked."""
    user: str
    """Who authenticated; empty when nobody did."""
    groups: tuple[str, ...]
    impersonated_user: str | None
    impersonated_groups: tuple[str, ...]
    body: Any
    """The decoded body; None when there was none."""
    status: int | None
    """The status of the answer; None when the connection was closed without one."""
    user_agent: str
