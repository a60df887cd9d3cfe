"""A file in a folder of objects that is not opened: a link, or no plain file."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone

from kubectl_harvester_stuck.k8s.kinds import Kind
from kubectl_harvester_stuck.k8s.objects import ObjectRef
from kubectl_harvester_stuck.offline.input import ReadResult, Wanted


class Unopened:
    """An input that may hold anything: whatever is asked of it is a gap.

    `name` is the folder: a command that is printed must not name, and so open, what is behind a
    link. `beside` are the names of the files that were opened there.
    """

    taken_at = datetime.min.replace(tzinfo=timezone.utc)
    says_when = False

    def __init__(self, name: str, why: str, beside: Iterable[str]) -> None:
        self.name = name
        self.beside = frozenset(beside)
        self._why = why

    def namespaces(self) -> frozenset[str]:
        """None that are known."""
        return frozenset()

    def unknown_namespaces(self) -> str:
        """Why there may be others."""
        return self._why

    def read(self, _kind: Kind, _namespace: str | None, _wanted: Wanted) -> ReadResult:
        """Nothing, and why."""
        return ReadResult(gap=self._why)

    def log(self, _pod: ObjectRef, _container: str) -> bytes | None:
        """None: files of objects hold no logs."""
        return None
