"""What was read: one object of the API server, what refers to it, and evidence.

An object that is not shaped as the API promises raises `UnreadableError` at the field that is
wrong: a decision that needs the field is then blocked, the others are not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cached_property
from typing import Any

from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.k8s.kinds import Kind
from kubectl_harvester_stuck.k8s.nesting import DEPTH, TooDeepObject


@dataclass(frozen=True)
class Evidence:
    """Object, field and value that a finding rests on."""

    object: str
    field: str
    value: str


_NAME = re.compile("[A-Za-z0-9][-_.A-Za-z0-9]*")
"""Wider than what the API server takes for most kinds: there is an APIService `v1.`."""


YEARS = range(1970, 2200)
"""Years of times that are believed. No cluster is older; a grace period ends before."""

LONGEST = timedelta(seconds=10**9)
"""The longest period that is believed; arithmetic with longer ones has no result in `YEARS`."""


def parse_time(text: str) -> datetime:
    """An RFC 3339 time as Kubernetes writes it, in UTC, within `YEARS`. Raises ValueError."""
    # Python 3.10 does not know the Z.
    parsed = datetime.fromisoformat(text.replace("Z", "+00:00"))
    if parsed.year not in YEARS:
        raise ValueError(f"{text!r} is not in the years from {YEARS.start} to {YEARS.stop - 1}")
    if parsed.tzinfo is None:
        return parsed.replace(tzinfo=timezone.utc)
    return parsed.astimezone(timezone.utc)


def format_time(moment: datetime) -> str:
    """A time in UTC as Kubernetes writes it, in whole seconds."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def parse_seconds(value: object) -> timedelta:
    """A number of whole seconds, as grace periods are written. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{str(value)[:40]!r} is not a number of seconds")
    if value > LONGEST.total_seconds():
        raise ValueError(f"{str(value)[:40]} seconds is longer than {LONGEST.days} days")
    return timedelta(seconds=value)


@dataclass(frozen=True)
class ObjectRef:
    """Which object: its kind and its name, in its namespace."""

    namespace: str
    name: str
    kind: Kind

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind.kind} {where}{self.name}"

    @property
    def key(self) -> str:
        """`NAMESPACE/NAME`, as the operator types it."""
        return f"{self.namespace}/{self.name}"

    @property
    def reference(self) -> dict[str, Any]:
        """The reference as Kubernetes writes one, in a dictionary of its own."""
        return {
            "apiVersion": self.kind.api_version,
            "kind": self.kind.kind,
            "namespace": self.namespace,
            "name": self.name,
        }


@dataclass(frozen=True)
class Owner:
    """One of `metadata.ownerReferences`."""

    kind: str
    name: str
    uid: str
    is_controller: bool = False
    api_version: str = ""
    blocks: bool = False
    """Whether a deletion of the owner in the foreground waits for the object."""

    @classmethod
    def parse(cls, item: Mapping[str, Any]) -> Owner:
        """Read one ownerReference; what it lacks is ""."""
        kind, name, uid, version = (
            str(item.get(key) or "") for key in ("kind", "name", "uid", "apiVersion")
        )
        return cls(
            kind,
            name,
            uid,
            is_controller=item.get("controller") is True,
            api_version=version,
            blocks=item.get("blockOwnerDeletion") is True,
        )

    @property
    def group(self) -> str:
        """The API group of its kind; "" for the core group."""
        return self.api_version.rpartition("/")[0]


@dataclass(frozen=True)
class KubeObject:
    """One object as the API server gave it; only the metadata is read up front.

    `identify` reads what tells which object it is, and to which others it belongs; `parse` takes
    only one of which all metadata can be read.
    """

    ref: ObjectRef
    body: Mapping[str, Any]
    uid: str
    resource_version: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    owners: tuple[Owner, ...]

    @classmethod
    def parse(cls, kind: Kind, body: object) -> KubeObject:
        """Read the metadata of `body`. Raises UnreadableError where it is malformed."""
        found = cls.identify(kind, body)
        if found.malformed:
            raise UnreadableError(f"{kind.kind} {found.ref.name}", found.malformed)
        return found

    @classmethod
    def identify(cls, kind: Kind, body: object) -> KubeObject:
        """Read names, labels and owners. Raises UnreadableError where they are malformed."""
        if not isinstance(body, Mapping):
            raise UnreadableError(kind.kind, "the server sent something that is not an object")
        name = str(_mapping(body.get("metadata"), kind.kind, "metadata").get("name"))
        what = f"{kind.kind} {name}"
        meta = _mapping(body.get("metadata"), what, "metadata")
        if isinstance(body, TooDeepObject) and not body.metadata_is_whole:
            raise UnreadableError(what, _TOO_DEEP)
        for field in ("name", "uid", "resourceVersion"):
            if not isinstance(meta.get(field), str) or not meta[field]:
                raise UnreadableError(what, f"metadata.{field} is missing")
        namespace = str(meta.get("namespace") or "")
        # Names become file names, and words of commands that somebody pastes into a shell.
        if not all(map(_NAME.fullmatch, (meta["name"], *filter(None, [namespace])))):
            raise UnreadableError(what, "its name or namespace is none that an API server takes")
        return cls(
            ref=ObjectRef(namespace, meta["name"], kind),
            body=body,
            uid=meta["uid"],
            resource_version=meta["resourceVersion"],
            labels=_text_map(meta.get("labels"), what, "labels"),
            annotations=_text_map(meta.get("annotations"), what, "annotations"),
            owners=tuple(
                Owner.parse(_mapping(item, what, "ownerReferences"))
                for item in _sequence(meta.get("ownerReferences"), what, "ownerReferences")
            ),
        )

    @classmethod
    def parse_as(cls, ref: ObjectRef, body: object) -> KubeObject:
        """Read `body`, which has to be the object asked for. Raises UnreadableError."""
        found = cls.parse(ref.kind, body)
        if found.ref != ref:
            raise UnreadableError(str(ref), f"the server answered with {found.ref}")
        return found

    @cached_property
    def malformed(self) -> str:
        """Why some of the metadata, or the rest, cannot be read; "" where all of it can."""
        if isinstance(self.body, TooDeepObject):
            return _TOO_DEEP
        try:
            _ = self.deletion_timestamp, self.deletion_grace, self.finalizers
        except UnreadableError as error:
            return error.why
        return ""

    @cached_property
    def deletion_timestamp(self) -> datetime | None:
        """When it is to be gone; None where it is not being deleted. Raises UnreadableError."""
        stamp = self.mapping("metadata").get("deletionTimestamp")
        if stamp is None:
            return None
        try:
            return parse_time(stamp)
        except (ValueError, TypeError, AttributeError):
            why = f"deletionTimestamp is {str(stamp)[:40]!r}"
            raise UnreadableError(str(self.ref), why) from None

    @cached_property
    def deletion_grace(self) -> timedelta:
        """What of that is its grace period. Raises UnreadableError."""
        return self.seconds("metadata", "deletionGracePeriodSeconds") or timedelta(0)

    @cached_property
    def finalizers(self) -> tuple[str, ...]:
        """Who wants to do something before it goes. Raises UnreadableError."""
        written = self.mapping("metadata").get("finalizers")
        return tuple(_texts(written, self.ref, "finalizers"))

    @property
    def deletion_requested(self) -> datetime | None:
        """When somebody asked for the deletion: a pod's deletionTimestamp lies a grace later."""
        if self.deletion_timestamp is None:
            return None
        return self.deletion_timestamp - self.deletion_grace

    @property
    def created(self) -> datetime | None:
        """When it was created; None where that is not recorded. Raises UnreadableError."""
        written = self.text("metadata", "creationTimestamp")
        try:
            return parse_time(written) if written else None
        except ValueError:
            raise UnreadableError(str(self.ref), f"it was created at {written!r}") from None

    def written_at(self, *path: str) -> datetime | None:
        """When the field at `path` was last written, by the API server's clock.

        From `metadata.managedFields`; None where that was left out, or does not hold the field.
        Raises UnreadableError.
        """
        times = []
        for entry in self._managed(path):
            with suppress(ValueError):
                times.append(parse_time(str(entry.get("time"))))
        return max(times, default=None)

    def managers_of(self, *path: str) -> set[str]:
        """Who wrote the field at `path`, by `metadata.managedFields`. Raises UnreadableError."""
        return {str(entry.get("manager")) for entry in self._managed(path)}

    def _managed(self, path: tuple[str, ...]) -> Iterator[Mapping[str, Any]]:
        for entry in self.mappings("metadata", "managedFields"):
            owned: object = entry.get("fieldsV1")
            for key in path:
                owned = owned.get(f"f:{key}") if isinstance(owned, Mapping) else None
            if owned is not None:
                yield entry

    def is_owned_by(self, owner: KubeObject) -> bool:
        """Whether an ownerReference carries the uid of `owner`."""
        return any(reference.uid == owner.uid for reference in self.owners)

    def blocks_deletion_of(self, owner: KubeObject) -> bool:
        """Whether the garbage collector keeps `owner` until this object is gone."""
        return any(reference.uid == owner.uid and reference.blocks for reference in self.owners)

    def mapping(self, *path: str) -> Mapping[str, Any]:
        """The mapping at `path`; missing and null are empty. Raises UnreadableError."""
        return _mapping(self._at(path), self.ref, *path)

    def sequence(self, *path: str) -> Sequence[Any]:
        """The list at `path`; missing and null are empty. Raises UnreadableError."""
        return _sequence(self._at(path), self.ref, *path)

    def mappings(self, *path: str) -> tuple[Mapping[str, Any], ...]:
        """The list of mappings at `path`. Raises UnreadableError."""
        return tuple(_mapping(item, self.ref, *path) for item in self.sequence(*path))

    def text(self, *path: str) -> str:
        """The string at `path`; missing and null are "". Raises UnreadableError."""
        value = self._at(path)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise UnreadableError(str(self.ref), f"{'.'.join(path)} is not a string")
        return value

    def seconds(self, *path: str) -> timedelta | None:
        """The period at `path`, None where there is none. Raises UnreadableError."""
        value = self._at(path)
        try:
            return None if value is None else parse_seconds(value)
        except ValueError as error:
            raise UnreadableError(str(self.ref), f"{'.'.join(path)}: {error}") from None

    def _at(self, path: tuple[str, ...]) -> object:
        if isinstance(self.body, TooDeepObject) and path[:1] != ("metadata",):
            raise UnreadableError(str(self.ref), _TOO_DEEP)
        value: object = self.body
        for depth, key in enumerate(path):
            if not isinstance(value, dict):
                value = _mapping(value, self.ref, *path[:depth])
            value = value.get(key)
        return value


_TOO_DEEP = f"it is nested deeper than {DEPTH} levels"


# Read at every turn: the words of an error are made only where there is one.


def _mapping(value: object, what: object, *where: str) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return value
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise UnreadableError(str(what), f"{'.'.join(where)} is not an object")
    return value


def _sequence(value: object, what: object, *where: str) -> Sequence[Any]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise UnreadableError(str(what), f"{'.'.join(where)} is not a list")
    return value


def _texts(value: object, what: object, *where: str) -> Sequence[str]:
    items = _sequence(value, what, *where)
    if not all(isinstance(item, str) for item in items):
        raise UnreadableError(str(what), f"{'.'.join(where)} is not a list of strings")
    return items


def _text_map(value: object, what: object, *where: str) -> Mapping[str, str]:
    return {key: str(item) for key, item in _mapping(value, what, *where).items()}


@dataclass(frozen=True)
class Unreadable:
    """Something that was asked for and could not be read."""

    resource: str
    namespace: str | None
    """None for all; empty for what is in none, such as a node."""
    reason: str
    message: str
