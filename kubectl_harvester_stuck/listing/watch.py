"""`list --watch`: what becomes stuck, changes and goes, from watches of metadata.

For each kind a thread lists once and then watches from that version on. A watch that ends, breaks
or expires is begun again, from where it stood or with a new list, so that nothing is lost; rows are
compared with those that were told before, so that nothing is told twice. Whatever happened to a
name, its rows are found as `list` finds them. While a kind cannot be read, nothing of it is gone.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, unique
from typing import Any

from kubectl_harvester_stuck.cluster.client import Cluster
from kubectl_harvester_stuck.errors import ApiError, StuckError, UnreadableError
from kubectl_harvester_stuck.k8s.kinds import POD, VM, VMI, Kind
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef, Unreadable
from kubectl_harvester_stuck.k8s.source import ListQuery, PartialListError
from kubectl_harvester_stuck.listing import find
from kubectl_harvester_stuck.listing.model import Listing, StuckObject

WATCH_SECONDS = (240, 300)
"""How long one watch lasts, by chance, so that many do not begin again at once."""

LONGEST_WAIT = 10.0
"""Seconds between two tries to reach an API server that does not answer, at most."""

SETTLE = 0.1
"""Seconds in which changes are gathered before they are looked at."""

AGAIN = 5.0
"""Seconds after which what depends on time alone is looked at again."""

Key = tuple[str, str]


@unique
class EventType(str, Enum):
    """What became of a row; the values stand in JSON, as the API server spells them."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


@dataclass(frozen=True)
class WatchEvent:
    """One row as it stands now, or as it stood last where it is gone."""

    happened: EventType
    row: StuckObject


@dataclass
class _Kind:
    """What is known of one kind in one scope; guarded by the lock of the view."""

    selection: ListQuery
    items: dict[str, Any] = field(default_factory=dict)
    """Objects that are being deleted, by uid."""
    gap: StuckError | None = None


class WatchCache:
    """The cluster as the watches see it: a `Source` of what is being deleted.

    `start` begins them. Everything else is asked of the cluster, for few objects.
    """

    def __init__(self, cluster: Cluster, namespaces: Sequence[str | None]) -> None:
        self._cluster = cluster
        self._lock = threading.Lock()
        self._wanted: frozenset[Key] | None = None
        self._changed: set[Key] = set()
        self._stopped = threading.Event()
        self._seen: datetime | None = None
        self._seen_at = 0.0
        self.woken = threading.Event()
        self._kinds = {
            (kind, namespace): _Kind(
                ListQuery(
                    kind,
                    namespace,
                    labels=find.LAUNCHERS if kind is POD else None,
                    metadata_only=True,
                    deleting=True,
                )
            )
            for namespace in namespaces
            for kind in (VM, VMI, POD)
        }

    def start(self) -> None:
        """Begin to watch; returns once every kind was listed, or could not be."""
        first = [threading.Event() for _ in self._kinds]
        for known, listed in zip(self._kinds.values(), first, strict=True):
            threading.Thread(target=self._follow, args=(known, listed), daemon=True).start()
        for listed in first:
            # A wait with a limit lets Ctrl-C through on every system.
            while not listed.wait(1.0):
                pass

    def stop(self) -> None:
        """Let the threads end when they next look."""
        self._stopped.set()

    def changed(self) -> frozenset[Key]:
        """The names to which something has happened since this was last asked."""
        with self._lock:
            found, self._changed = frozenset(self._changed), set()
            return found

    def only(self, keys: frozenset[Key] | None) -> None:
        """Speak of these names alone from now on; None stands for all."""
        self._wanted = keys

    def waiting(self) -> frozenset[Key]:
        """Names of pods whose grace period is not over: time alone changes what they mean."""
        now = self.now
        with self._lock:
            pods = [item for key, known in self._kinds.items() if key[0] is POD
                    for item in known.items.values()]  # fmt: skip
        return frozenset(
            key for item in pods if (key := _key(POD, item)) and _deadline(item, now) > now
        )

    # What `find` asks

    @property
    def now(self) -> datetime:
        """The time by the API server's clock, which goes on while it says nothing."""
        seen = self._cluster.now
        with self._lock:
            if seen != self._seen:
                self._seen, self._seen_at = seen, time.monotonic()
            return seen + timedelta(seconds=time.monotonic() - self._seen_at)

    def list_objects(self, selection: ListQuery, keep: Callable[[Any], bool]) -> list[Any]:
        """The objects that are being deleted. Raises PartlyReadError while they are not watched."""
        with self._lock:
            known = self._kinds.get((selection.kind, selection.namespace))
            if known is not None and known.selection != selection:
                known = None  # another question, such as whether a label fits
            found = list(known.items.values()) if known else None
            gap = known.gap if known else None
        if found is None:
            return self._cluster.list_objects(selection, keep)
        wanted = self._wanted
        found = [
            item
            for item in found
            if keep(item) and (wanted is None or _key(selection.kind, item) in (None, *wanted))
        ]
        if gap is not None:
            raise PartialListError(selection.kind.resource, str(gap), found, gap)
        return found

    def get(self, ref: ObjectRef, *, metadata_only: bool = False) -> Mapping[str, Any] | None:
        """The object itself, as it is now."""
        return self._cluster.get(ref, metadata_only=metadata_only)

    def prefetch(self, refs: Iterable[ObjectRef]) -> None:
        """Nothing: the API server answers for each object alone."""

    def log(self, pod: ObjectRef) -> str:
        """The end of a pod's log."""
        return self._cluster.log(pod)

    # One thread for each kind

    def _follow(self, known: _Kind, listed: threading.Event) -> None:
        version, tries = "", 0
        while not self._stopped.is_set():
            try:
                if not version:
                    version = self._list(known)
                    listed.set()
                version, tries = self._watch(known, version), 0
            except ApiError as error:
                # A version that is too old, or a server that answers otherwise: list anew.
                version = ""
                if error.code == 410:
                    continue
                self._lose(known, error)
            except StuckError as error:
                self._lose(known, error)
            except Exception as bug:  # noqa: BLE001 - a dead thread would be silence
                version = ""
                self._lose(known, StuckError(f"unexpected {type(bug).__name__}: {bug}"))
            else:
                continue
            listed.set()
            tries += 1
            limit = min(LONGEST_WAIT, 0.25 * 2.0**tries)
            self._stopped.wait(limit * random.uniform(0.5, 1.0))  # noqa: S311 - no secret

    def _list(self, known: _Kind) -> str:
        items, version = self._cluster.list_with_version(known.selection, find.is_deleting)
        kind = known.selection.kind
        found = {_uid(item): item for item in items}
        with self._lock:
            for item in (*known.items.values(), *found.values()):
                self._touch(kind, item)
            known.items, known.gap = found, None
        self.woken.set()
        return version

    def _watch(self, known: _Kind, version: str) -> str:
        """Follow from a version on until the watch ends; returns the version it came to."""
        kind = known.selection.kind
        seconds = random.randint(*WATCH_SECONDS)  # noqa: S311 - no secret

        def opened() -> None:
            with self._lock:
                had_gap, known.gap = known.gap is not None, None
            if had_gap:
                self.woken.set()

        events = self._cluster.watch(known.selection, version, seconds=seconds, opened=opened)
        for happened, item in events:
            version = str(_meta(item).get("resourceVersion") or version)
            if happened == "BOOKMARK":
                continue
            uid = _uid(item)
            with self._lock:
                is_there = uid in known.items
                if happened == "DELETED":
                    known.items.pop(uid, None)
                elif find.is_deleting(item):
                    known.items[uid] = item
                    is_there = True
                if is_there:
                    self._touch(kind, item)
            if is_there:
                self.woken.set()
            if self._stopped.is_set():
                break
        return version

    def _touch(self, kind: Kind, item: Any) -> None:
        key = _key(kind, item)
        if key is not None:
            self._changed.add(key)

    def _lose(self, known: _Kind, error: StuckError) -> None:
        with self._lock:
            known.gap = error
        self.woken.set()


def follow(
    view: WatchCache,
    *,
    kinds: frozenset[Kind],
    namespaces: Sequence[str | None],
    labels: str | None,
    older_than: timedelta,
) -> Iterator[tuple[Listing, tuple[WatchEvent, ...]]]:
    """What is stuck, and then every change of it, for as long as the caller wants.

    Each answer has all rows as they stand and what has changed since the one before; the first
    one has every row as added. An answer without changes tells that what cannot be read is
    another thing now.
    """
    rows: dict[tuple[ObjectRef, str], StuckObject] = {}
    missing: tuple[Unreadable, ...] = ()
    keys: frozenset[Key] | None = None  # None: all of them, to begin with
    is_first = True
    while True:
        view.only(keys)
        found = find.stuck(
            view, kinds=kinds, namespaces=namespaces, labels=labels, older_than=older_than
        )
        changes = tuple(_compare(view, rows, found, keys))
        if is_first or changes or found.missing != missing:
            missing, is_first = found.missing, False
            everything = sorted(
                rows.values(),
                key=lambda row: (row.ref.namespace, row.since, row.ref.name, row.ref.kind.kind),
            )
            yield Listing(tuple(everything), missing, found.taken_at, found.is_blind), changes
        keys = _next(view, rows, found, has_age=bool(older_than))


def _next(
    view: WatchCache,
    rows: Mapping[tuple[ObjectRef, str], StuckObject],
    found: Listing,
    *,
    has_age: bool,
) -> frozenset[Key] | None:
    """Wait until something has happened, and say to which names; None stands for all."""
    while True:
        waiting = view.waiting()
        unsure = frozenset(map(_of, rows.values())) if found.missing else frozenset()
        # A wait with a limit lets Ctrl-C through on every system.
        if view.woken.wait(AGAIN if waiting or unsure or has_age else 1.0):
            view.woken.clear()
            time.sleep(SETTLE)
        elif not (waiting or unsure or has_age):
            continue
        # What becomes old enough does so without any event.
        return None if has_age else view.changed() | waiting | unsure


def _compare(
    view: WatchCache,
    rows: dict[tuple[ObjectRef, str], StuckObject],
    found: Listing,
    keys: frozenset[Key] | None,
) -> Iterator[WatchEvent]:
    """The changes from `rows` to what was found of `keys`; `rows` is brought up to date."""
    now = {(row.ref, row.uid): row for row in found.targets}
    for identity, row in now.items():
        before = rows.get(identity)
        if before is None:
            yield WatchEvent(EventType.ADDED, row)
        elif _shown(before) != _shown(row):
            yield WatchEvent(EventType.MODIFIED, row)
        rows[identity] = row
    for identity in [one for one in rows if one not in now]:
        row = rows[identity]
        if keys is not None and _of(row) not in keys:
            continue
        # What cannot be read is not gone, unless the API server says so of the object itself.
        if not found.missing or _is_gone(view, row):
            yield WatchEvent(EventType.DELETED, rows.pop(identity))


def _is_gone(view: WatchCache, row: StuckObject) -> bool:
    try:
        body = view.get(row.ref, metadata_only=True)
        return body is None or KubeObject.parse_as(row.ref, body).uid != row.uid
    except StuckError:
        return False


def _shown(row: StuckObject) -> tuple[object, ...]:
    """What a person sees of a row; its resourceVersion alone is no news."""
    return row.state, row.since, row.finalizers, row.node


def _of(row: StuckObject) -> Key:
    return row.ref.namespace, row.ref.name


def _meta(item: Any) -> Mapping[str, Any]:
    meta = item.get("metadata") if isinstance(item, Mapping) else None
    return meta if isinstance(meta, Mapping) else {}


def _uid(item: Any) -> str:
    return str(_meta(item).get("uid"))


def _key(kind: Kind, item: Any) -> Key | None:
    """The name of the guest that an object belongs to; None where it cannot be read."""
    try:
        found = KubeObject.parse(kind, item)
    except UnreadableError:
        return None
    name = find.guest(found) if kind is POD else found.ref.name
    return (found.ref.namespace, name) if name else None


def _deadline(item: Any, now: datetime) -> datetime:
    try:
        return KubeObject.parse(POD, item).deletion_timestamp or now
    except UnreadableError:
        return now
