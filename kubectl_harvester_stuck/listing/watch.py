"""`list --watch`: what becomes stuck, changes and goes, from watches of metadata and from surveys.

For each kind a thread lists once and then watches from that version on. A watch that ends, breaks
or expires is begun again, from where it stood or with a new list, so that nothing is lost; rows are
compared with those that were told before, so that nothing is told twice. Whatever happened to a
name, its rows are found as `list` finds them. While a kind cannot be read, nothing of it is gone.

A node falls silent without any event, and a stop that does not begin has none either: what may be
stuck although nothing is being deleted is surveyed now and then.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum, unique
from typing import Any

from kubectl_harvester_stuck.cluster.client import Cluster
from kubectl_harvester_stuck.errors import ApiError, StuckError, UnreadableError
from kubectl_harvester_stuck.k8s.kinds import NODE, POD, VM, VMI, Kind
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef, Unreadable
from kubectl_harvester_stuck.k8s.source import ListQuery
from kubectl_harvester_stuck.listing import find, survey
from kubectl_harvester_stuck.listing.model import Listing, StuckObject
from kubectl_harvester_stuck.listing.survey import Survey

WATCH_SECONDS = (240, 300)
"""How long one watch lasts, by chance, so that many do not begin again at once."""

LONGEST_WAIT = 10.0
"""Seconds between two tries to reach an API server that does not answer, at most."""

SETTLE = 0.1
"""Seconds in which changes are gathered before they are looked at."""

HEALTH_SECONDS = 10.0
"""How often the nodes are looked at, which is how often a kubelet renews its Lease."""

SURVEY_SECONDS = 30.0
"""How often VMs and VMIs are surveyed; at once where another node falls silent, or answers."""

HEALTH_LASTS = 30.0
"""Seconds after which nobody can say any more whether a node answers."""

AGAIN = 5.0
"""Seconds after which what depends on time alone is looked at again."""

Key = survey.Key


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
    heard: float = field(default_factory=lambda: time.monotonic())
    """When the API server last said something of it, by the monotonic clock."""


class WatchCache:
    """The cluster as the watches see it: a `Source` of what is being deleted.

    `start` begins them. Everything else is asked of the cluster, for few objects.
    """

    def __init__(self, cluster: Cluster, namespaces: Sequence[str | None]) -> None:
        self._cluster = cluster
        self._namespaces = tuple(namespaces)
        self._lock = threading.Lock()
        self._surveyed = Survey()
        self._health_at = -HEALTH_LASTS
        self._surveyed_at = self._looked_at = time.monotonic()
        self._changed: set[Key] = set()
        self._stopped = threading.Event()
        self._seen: datetime | None = None
        self._seen_at = 0.0
        self.woken = threading.Event()
        self._kinds = {
            (kind, namespace): _Kind(survey.query_of_deleting(kind, namespace))
            for namespace in namespaces
            for kind in (VM, VMI, POD)
        }

    def start(self) -> None:
        """Begin to watch; returns once every kind was listed, or could not be."""
        first = [threading.Event() for _ in self._kinds]
        for known, listed in zip(self._kinds.values(), first, strict=True):
            threading.Thread(target=self._follow, args=(known, listed), daemon=True).start()
        surveyed = threading.Event()
        threading.Thread(target=self._survey, args=(surveyed,), daemon=True).start()
        for listed in (*first, surveyed):
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

    def waiting(self) -> frozenset[Key]:
        """Names of pods whose grace period is not over: time alone changes what they mean."""
        now = self.now
        with self._lock:
            pods = [item for key, known in self._kinds.items() if key[0] is POD
                    for item in known.items.values()]  # fmt: skip
        return frozenset(
            key for item in pods if (key := _key(POD, item)) and _deadline(item, now) > now
        )

    def looked(self) -> None:
        """Whoever reads this view has come to the end of what has happened so far."""
        with self._lock:
            self._looked_at = time.monotonic()

    @property
    def silence(self) -> timedelta:
        """For how long nothing was heard of some part, or nobody has taken what was heard.

        A watch in which nothing happens is heard of by its bookmarks.
        """
        with self._lock:
            heard = (one.heard for one in self._kinds.values())
            last = min(self._surveyed_at, self._looked_at, *heard)
        return timedelta(seconds=time.monotonic() - last)

    # What `find` asks

    @property
    def now(self) -> datetime:
        """The time by the API server's clock, which goes on while it says nothing."""
        seen = self._cluster.now
        with self._lock:
            if seen != self._seen:
                self._seen, self._seen_at = seen, time.monotonic()
            return seen + timedelta(seconds=time.monotonic() - self._seen_at)

    def survey(self, keys: frozenset[Key] | None) -> Survey:
        """What `survey.survey` would give of these names; None stands for all."""
        seen = Survey(is_blind=False)
        with self._lock:
            late = time.monotonic() - self._health_at > HEALTH_LASTS
            seen.idle.update(self._surveyed.idle)
            seen.listed.update({} if late else self._surveyed.listed)
            seen.unreadable.update(self._surveyed.unreadable)
            if late:
                seen.unreadable.update(dict.fromkeys(survey.HEALTH, "not read for a while"))
            gaps = list(self._surveyed.missing)
            known = [(key, list(one.items.values()), one.gap) for key, one in self._kinds.items()]
        for (kind, namespace), items, gap in known:
            if gap is not None:
                seen.miss(kind, namespace, gap)
            for item in items:
                try:
                    seen.deleting[kind].append(KubeObject.parse(kind, item))
                except UnreadableError as error:
                    seen.miss(kind, namespace, error)
        for missed in gaps:
            if all(missed.resource != other.resource for other in seen.missing):
                seen.missing.append(missed)
        seen.is_blind = all(gap is not None and not items for _, items, gap in known)
        return seen if keys is None else seen.of(keys)

    def list_objects(self, selection: ListQuery, keep: Callable[[Any], bool]) -> list[Any]:
        """The items, as they are now."""
        return self._cluster.list_objects(selection, keep)

    def get(self, ref: ObjectRef, *, metadata_only: bool = False) -> Mapping[str, Any] | None:
        """The object itself, as it is now."""
        return self._cluster.get(ref, metadata_only=metadata_only)

    def prefetch(self, refs: Iterable[ObjectRef]) -> None:
        """Nothing: the API server answers for each object alone."""

    def log(self, pod: ObjectRef) -> str:
        """The end of a pod's log."""
        return self._cluster.log(pod)

    # One thread for the nodes, and for what may be stuck although nothing is being deleted

    def _survey(self, surveyed: threading.Event) -> None:
        silent: frozenset[str] | None = None
        due = 0.0
        while not self._stopped.is_set():
            try:
                seen = survey.read_health(self._cluster)
                now = survey.silent_nodes(seen, self.now)
                if now != silent or time.monotonic() >= due:
                    seen = survey.survey(self._cluster, self._namespaces, (VM, VMI))
                    silent, due = now, time.monotonic() + SURVEY_SECONDS
                else:
                    seen.idle, seen.missing = self._surveyed.idle, self._surveyed.missing
                with self._lock:
                    self._surveyed_at = time.monotonic()
            except StuckError as error:
                silent, seen = None, self._lost(error)
            except Exception as bug:  # noqa: BLE001 - a dead thread would be silence
                silent = None
                seen = self._lost(StuckError(f"unexpected {type(bug).__name__}: {bug}"))
            self._take(seen)
            surveyed.set()
            self._stopped.wait(HEALTH_SECONDS if silent is not None else 1.0)

    def _lost(self, error: StuckError) -> Survey:
        """The last survey, of which nobody knows whether it still holds."""
        lost = Survey(idle=self._surveyed.idle)
        lost.unreadable.update(dict.fromkeys(survey.HEALTH, str(error)))
        lost.miss(NODE, "", error)
        return lost

    def _take(self, seen: Survey) -> None:
        with self._lock:
            before = self._surveyed
            changed = {key for key, _ in seen.idle.items() ^ before.idle.items()}
            had_gap = bool(before.missing) != bool(seen.missing)
            self._surveyed, self._health_at = seen, time.monotonic()
            self._changed |= changed
        if changed or had_gap:
            self.woken.set()

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
        items, version = self._cluster.list_with_version(known.selection, survey.is_deleting)
        kind = known.selection.kind
        found = {_uid(item): item for item in items}
        with self._lock:
            for item in (*known.items.values(), *found.values()):
                self._touch(kind, item)
            known.items, known.gap, known.heard = found, None, time.monotonic()
        self.woken.set()
        return version

    def _watch(self, known: _Kind, version: str) -> str:
        """Follow from a version on until the watch ends; returns the version it came to."""
        kind = known.selection.kind
        seconds = random.randint(*WATCH_SECONDS)  # noqa: S311 - no secret

        def opened() -> None:
            with self._lock:
                had_gap, known.gap = known.gap is not None, None
                known.heard = time.monotonic()
            if had_gap:
                self.woken.set()

        events = self._cluster.watch(known.selection, version, seconds=seconds, opened=opened)
        for happened, item in events:
            version = str(_meta(item).get("resourceVersion") or version)
            known.heard = time.monotonic()
            if happened == "BOOKMARK":
                continue
            uid = _uid(item)
            with self._lock:
                is_there = uid in known.items
                if happened == "DELETED":
                    known.items.pop(uid, None)
                elif survey.is_deleting(item):
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
            if isinstance(error, ApiError):  # an answer, too
                known.heard = time.monotonic()
        self.woken.set()


def follow(
    view: WatchCache,
    *,
    kinds: frozenset[Kind],
    labels: str | None,
    older_than: timedelta,
    node: str | None = None,
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
        seen = view.survey(keys)
        found = find.rows(view, seen, kinds=kinds, labels=labels, older_than=older_than, node=node)
        changes = tuple(_compare(view, rows, found, keys))
        if is_first or changes or found.missing != missing:
            missing, is_first = found.missing, False
            everything = find.in_order(rows.values(), found.taken_at)
            silent = find.silent_nodes(everything, seen, found.taken_at)
            yield replace(found, targets=everything, silent=silent), changes
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
        view.looked()
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
    return row.state, row.deletion_timestamp, row.finalizers, row.node


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
    name = survey.guest(found) if kind is POD else found.ref.name
    return (found.ref.namespace, name) if name else None


def _deadline(item: Any, now: datetime) -> datetime:
    try:
        return KubeObject.parse(POD, item).deletion_timestamp or now
    except UnreadableError:
        return now
