"""What one input knows of a kind in a namespace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from kubectl_harvester_stuck.k8s.kinds import Kind
from kubectl_harvester_stuck.k8s.objects import ObjectRef

Wanted = Callable[[bytes], bool]
"""Whether an item is worth parsing, by its text; true of more items than are wanted is fine."""


@dataclass
class ReadResult:
    """The items that there are, and why they may not be all; `gap` is empty for a whole list."""

    items: list[Any] = field(default_factory=list)
    gap: str = ""


class Input(Protocol):
    """A support bundle, or a file of objects."""

    @property
    def name(self) -> str:
        """What the operator called it."""

    @property
    def taken_at(self) -> datetime:
        """When the objects were as they stand in it."""

    @property
    def says_when(self) -> bool:
        """Whether it says so itself; otherwise it is when the file was last written."""

    def namespaces(self) -> frozenset[str]:
        """Every namespace that it knows of, also those that it holds nothing of."""

    def unknown_namespaces(self) -> str:
        """Why there may be namespaces that it does not know of; "" where it knows them all."""

    def read(self, kind: Kind, namespace: str | None, wanted: Wanted) -> ReadResult:
        """The objects of `kind` in a namespace, or in all; never raises."""

    def log(self, pod: ObjectRef, container: str) -> bytes | None:
        """The end of a log, None where it holds none. Raises DumpError."""


def group_of(api_version: object) -> str:
    """The group of an `apiVersion`; the core group is ""."""
    group, slash, _ = str(api_version or "").rpartition("/")
    return group if slash else ""
