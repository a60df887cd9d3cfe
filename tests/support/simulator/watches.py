"""Watches: the changes of one kind as a stream of JSON lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from tests.support.resources import Resource

from .lists import Form, predicates
from .status import FieldError, expired, invalid
from .store import Store, Stored, encode

DEFAULT_TIMEOUT = 1800.0
_POLL = 0.2


def watch(
    store: Store,
    resource: Resource,
    namespace: str | None,
    query: Mapping[str, str],
    form: Form,
    stopped: Callable[[], bool],
) -> Iterator[bytes]:
    """The events from now on, or after the resourceVersion of the query. Lasts `timeoutSeconds`.

    The first step, which checks the query, is done here: ApiError 400 or 422.
    """
    selectors = predicates(resource, query)
    if query.get("sendInitialEvents"):
        message = (
            "Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature "
            "gate is enabled"
        )
        error = FieldError("sendInitialEvents", "FieldValueForbidden", message)
        raise invalid("meta.k8s.io", "ListOptions", "", [error])
    prefix = f"{namespace}/" if namespace is not None else ""

    def fits(stored: Stored) -> bool:
        return stored.key.startswith(prefix) and all(test(stored.obj) for test in selectors)

    present = [stored for stored in store.all(resource) if fits(stored)]
    asked = query.get("resourceVersion", "")
    initial = present if asked in ("", "0") else []
    version = store.version if asked in ("", "0") else int(asked)
    deadline = time.monotonic() + float(query.get("timeoutSeconds") or DEFAULT_TIMEOUT)
    known = {stored.key for stored in present}
    # What the watcher knows is what stood at its version, not what stands now.
    for event in reversed(store.events_after(version) or []):
        if event.resource == resource:
            known.discard(event.stored.key)
            if event.type != "ADDED" and fits(event.stored):
                known.add(event.stored.key)
    lines = _lines(store, resource, form, fits, known, initial, version, deadline, stopped)
    if query.get("allowWatchBookmarks") not in ("1", "true"):
        return lines
    return _with_bookmark(lines, store, resource)


def _with_bookmark(lines: Iterator[bytes], store: Store, resource: Resource) -> Iterator[bytes]:
    """A bookmark before the watch ends; the real server sends one each minute as well."""
    yield from lines
    meta = {"resourceVersion": str(store.version), "creationTimestamp": None}
    body = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta}
    yield f'{{"type":"BOOKMARK","object":{encode(body)}}}\n'.encode()


def _lines(
    store: Store,
    resource: Resource,
    form: Form,
    fits: Callable[[Stored], bool],
    known: set[str],
    initial: list[Stored],
    version: int,
    deadline: float,
    stopped: Callable[[], bool],
) -> Iterator[bytes]:
    def line(event: str, stored: Stored) -> bytes:
        obj = stored.partial_json if form is Form.PARTIAL else stored.json
        return f'{{"type":"{event}","object":{obj}}}\n'.encode()

    for stored in initial:
        yield line("ADDED", stored)
    while time.monotonic() < deadline and not stopped():
        with store.lock:
            events = store.events_after(version)
            if events == []:
                store.changed.wait(_POLL)
                events = store.events_after(version)
        if events is None:
            gone = expired(f"too old resource version: {version} ({store.version})")
            yield f'{{"type":"ERROR","object":{encode(gone.body)}}}\n'.encode()
            return
        for event in events:
            version = event.version
            if event.resource != resource:
                continue
            key = event.stored.key
            if event.type == "DELETED" or not fits(event.stored):
                if key in known:
                    known.discard(key)
                    yield line("DELETED", event.stored)
            else:
                yield line("MODIFIED" if key in known else "ADDED", event.stored)
                known.add(key)
