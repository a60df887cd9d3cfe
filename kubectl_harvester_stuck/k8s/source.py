"""What can be read from: a cluster, or files. Nothing that changes anything is in reach here.

A `Cluster` can do more; whoever takes a `Source` cannot ask it to. So there is no way from a file
to a patch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from kubectl_harvester_stuck.errors import NotFoundError, StuckError, UnreadableError
from kubectl_harvester_stuck.k8s.kinds import NAMESPACE, Kind
from kubectl_harvester_stuck.k8s.objects import ObjectRef

PARALLEL_REQUESTS = 8
"""Requests that are in flight at the same time, and targets that are worked on at once."""


class Glimpse(NamedTuple):
    """What is seen of the text of a listed object that is not being deleted, without decoding it.

    `created` is its creationTimestamp as it is written, `cells` are the values of the columns that
    were asked for, `text` is all of it, metadata in JSON as the API server writes it.
    """

    namespace: str
    name: str
    created: str
    cells: tuple[Any, ...]
    text: bytes


@dataclass(frozen=True)
class ListQuery:
    """Which objects of a kind to list: in a namespace or in all, by label, by field.

    `columns` asks for metadata and for what these columns of kubectl's table show, instead of whole
    objects: each is its name and the path of its value. `hint` says of the text of an object
    whether it may be wanted. Both are hints: a source may give others as well, and whole objects.
    `matters` says what `hint` says, of what is seen of an object that is not being deleted; it is
    asked only where that costs less than reading the object.
    """

    kind: Kind
    namespace: str | None = None
    labels: str | None = None
    fields: str | None = None
    metadata_only: bool = False
    columns: tuple[tuple[str, tuple[str, ...]], ...] = ()
    hint: Callable[[bytes], bool] | None = field(default=None, compare=False)
    matters: Callable[[Glimpse], bool] | None = field(default=None, compare=False)


class Source(Protocol):
    """One cluster as it is, or as it was when files were made of it; safe for several threads."""

    @property
    def now(self) -> datetime:
        """The time that ages are told by: the API server's clock, or the time of the files."""

    def list_objects(self, selection: ListQuery, keep: Callable[[Any], bool]) -> list[Any]:
        """The items that `keep` wants. Raises StuckError, PartialListError with what there is."""

    def get(self, ref: ObjectRef, *, metadata_only: bool = False) -> Mapping[str, Any] | None:
        """The object, or None when it is known not to exist. Raises StuckError."""

    def prefetch(self, refs: Iterable[ObjectRef]) -> None:
        """Say which objects are going to be asked for with `get`; a hint."""

    def log(self, pod: ObjectRef) -> str:
        """The end of the log of a pod's first container. Raises StuckError."""


class PartialListError(UnreadableError):
    """A list that is not known to be whole; `items` are those that could be read.

    `cause` is the error that stands behind it, where there is one.
    """

    def __init__(
        self, what: str, why: str, items: list[Any], cause: StuckError | None = None
    ) -> None:
        super().__init__(what, why)
        self.items = items
        self.cause = cause


def unknown_namespaces(source: Source, names: Iterable[str]) -> dict[str, StuckError]:
    """Why it is not known of namespaces in which nothing was found whether there are such.

    Files cannot say, which is no reason. Raises NotFoundError for one that does not exist.
    """
    gaps: dict[str, StuckError] = {}
    for name in names:
        try:
            found = source.get(ObjectRef("", name, NAMESPACE), metadata_only=True)
        except UnreadableError:
            continue
        except StuckError as error:
            gaps[name] = error
            continue
        if found is None:
            raise NotFoundError(f"namespace {name} was not found; -A looks in all of them")
    return gaps
