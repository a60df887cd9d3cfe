"""The objects that the server keeps, their versions, and what changed them.

A stored object is never altered in place: an update stores another one. So a snapshot is a list
of references, and what was encoded once stays true.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

from tests.support.resources import Resource

from . import events

EVENTS_KEPT = 20_000
SNAPSHOTS_KEPT = 64


def encode(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


class Stored:
    """One version of one object."""

    def __init__(self, key: str, obj: Mapping[str, Any]) -> None:
        self.key = key
        self.obj = obj

    @cached_property
    def json(self) -> str:
        return encode(self.obj)

    @cached_property
    def untyped_json(self) -> str:
        """As items of built-in kinds are in a list: without apiVersion and kind."""
        return encode({k: v for k, v in self.obj.items() if k not in ("apiVersion", "kind")})

    @cached_property
    def partial_json(self) -> str:
        return encode(partial(self.obj))


class Event(NamedTuple):
    """A change, as a watch tells it."""

    version: int
    resource: Resource
    type: str
    stored: Stored


def partial(obj: Mapping[str, Any]) -> dict[str, Any]:
    """`obj` as PartialObjectMetadata."""
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": obj["metadata"],
    }


def key_of(namespace: str | None, name: str) -> str:
    """The key that orders a list, as etcd does: by the whole `namespace/name`."""
    return f"{namespace}/{name}" if namespace else name


class Store:
    """All objects, under one counter of versions. Callers hold `lock`."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.version = 1
        self._tables: dict[Resource, dict[str, Stored]] = {}
        self._sorted: dict[Resource, list[Stored]] = {}
        self._snapshots: OrderedDict[tuple[Resource, int], list[Stored]] = OrderedDict()
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._forgotten = 0
        self._touched: dict[Resource, int] = {}

    def get(self, resource: Resource, namespace: str | None, name: str) -> Stored | None:
        return self._tables.get(resource, {}).get(key_of(namespace, name))

    def put(self, resource: Resource, obj: Mapping[str, Any]) -> Stored:
        """Store `obj` as the next version, which is written into its metadata."""
        metadata = obj["metadata"]
        key = key_of(metadata.get("namespace"), metadata["name"])
        self.version += 1
        versioned = events.completed(
            resource, {**obj, "metadata": {**metadata, "resourceVersion": str(self.version)}}
        )
        stored = Stored(key, versioned)
        self._set(resource, stored)
        if twin := events.twin_of(resource):
            self._set(twin, Stored(key, events.translated(versioned, twin)))
        return stored

    def _set(self, resource: Resource, stored: Stored) -> None:
        table = self._tables.setdefault(resource, {})
        event = "MODIFIED" if stored.key in table else "ADDED"
        table[stored.key] = stored
        self._tell(Event(self.version, resource, event, stored))

    def remove(self, resource: Resource, stored: Stored) -> None:
        """Forget the object, whichever version of it is kept."""
        self.version += 1
        self._unset(resource, stored)
        if twin := events.twin_of(resource):
            self._unset(twin, self._tables[twin][stored.key])

    def _unset(self, resource: Resource, stored: Stored) -> None:
        del self._tables[resource][stored.key]
        metadata = {**stored.obj["metadata"], "resourceVersion": str(self.version)}
        last = Stored(stored.key, {**stored.obj, "metadata": metadata})
        self._tell(Event(self.version, resource, "DELETED", last))

    def all(self, resource: Resource) -> list[Stored]:
        """The objects of one kind in the order of their keys. The list is not to be altered."""
        if resource not in self._sorted:
            table = self._tables.get(resource, {})
            self._sorted[resource] = [table[key] for key in sorted(table)]
        return self._sorted[resource]

    def version_of(self, resource: Resource) -> int:
        """The version at which an object of this kind changed last; 0 if none ever did."""
        return self._touched.get(resource, 0)

    def tables(self) -> Iterable[Resource]:
        """The kinds of which an object was ever stored."""
        return tuple(self._tables)

    def keep_snapshot(self, resource: Resource) -> int:
        """Keep the objects as they are now for the next pages of a list; gives the version."""
        self._snapshots[resource, self.version] = self.all(resource)
        while len(self._snapshots) > SNAPSHOTS_KEPT:
            self._snapshots.popitem(last=False)
        return self.version

    def snapshot(self, resource: Resource, version: int) -> list[Stored] | None:
        """The objects as they were then; None when that is no longer known."""
        return self._snapshots.get((resource, version))

    def compact(self) -> None:
        """Forget all that is past, as etcd does every five minutes."""
        self._snapshots.clear()
        self._events.clear()
        self._forgotten = self.version

    def events_after(self, version: int) -> list[Event] | None:
        """What happened after `version`; None when that is no longer known."""
        if version < self._forgotten:
            return None
        found: list[Event] = []
        for event in reversed(self._events):
            if event.version <= version:
                break
            found.append(event)
        return found[::-1]

    def _tell(self, event: Event) -> None:
        if len(self._events) == EVENTS_KEPT:
            self._forgotten = self._events[0].version
        self._events.append(event)
        self._touched[event.resource] = event.version
        self._sorted.pop(event.resource, None)
        self.changed.notify_all()
