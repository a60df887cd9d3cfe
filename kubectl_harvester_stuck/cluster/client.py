"""The Kubernetes API as this program uses it: read, ask, dry-run, patch, delete a pod, create.

Fixed paths, no discovery. Errors are told apart by HTTP status, never by text; only a 404 on an
object is absence. Nothing here decides anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from kubectl_harvester_stuck.cluster.glimpse import glimpse, glimpse_of_pod
from kubectl_harvester_stuck.cluster.list_stream import ListStream, decode
from kubectl_harvester_stuck.connection.messages import Request, Response
from kubectl_harvester_stuck.errors import (
    NOT_SERVED,
    ApiError,
    CutShortError,
    UnreachableError,
    UnreadableError,
)
from kubectl_harvester_stuck.k8s import nesting
from kubectl_harvester_stuck.k8s.kinds import POD, REPORT, Kind
from kubectl_harvester_stuck.k8s.objects import ObjectRef
from kubectl_harvester_stuck.k8s.redaction import redact_text

if TYPE_CHECKING:
    from kubectl_harvester_stuck.connection.transport import Transport
    from kubectl_harvester_stuck.k8s.source import ListQuery

PAGE = 500
"""Objects in one page of a list, as kubectl asks for."""

PAGES = 1000
"""Pages of one list: half a million objects, more than a cluster holds, so that none is endless."""

LIST_SECONDS = 600.0
"""How long all pages of one list may take."""

RESTARTS = 3
"""How often a list whose pages expired underneath (410) is started again."""

IDLE_SECONDS = 150.0
"""A watch that is silent for so long is lost: the API server sends a bookmark every minute."""

LOG_LINES, LOG_BYTES, LOG_SECONDS = 5000, 2_000_000, 5.0
"""How much of a controller's log is looked at, and for how long."""

ASIDE_SECONDS = 5.0
"""How long what only accompanies a change may take: who asks, and the Event."""

FIELD_MANAGER = "kubectl-harvester-stuck"

_RATHER_IN_PAGES = (410, 504)
"""Statuses of a list that is too much for one answer, and of one whose version is gone."""

_META = "g=meta.k8s.io;v=v1"
_METADATA_LIST = f"application/json;as=PartialObjectMetadataList;{_META},application/json"
_METADATA = f"application/json;as=PartialObjectMetadata;{_META},application/json"
_TABLE = f"application/json;as=Table;{_META},application/json"


class Cluster:
    """One API server, reached through `transport`; safe to use from several threads."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._server_time: datetime | None = None

    @property
    def now(self) -> datetime:
        """The time by the API server's clock, which also wrote the timestamps of its objects."""
        return self._server_time or datetime.now(timezone.utc)

    def list_objects(self, selection: ListQuery, keep: Callable[[Any], bool]) -> list[Any]:
        """The items that `keep` wants, so that memory does not grow with the rest.

        Raises ApiError (404: the kind is not installed) and UnreachableError.
        """
        return self.list_with_version(selection, keep)[0]

    def list_with_version(
        self, selection: ListQuery, keep: Callable[[Any], bool]
    ) -> tuple[list[Any], str]:
        """The items, and the resourceVersion that they all stand at.

        Lists of metadata and tables, and those of which little matters, come in one answer, which
        the API server has in its cache, and in pages where that fails. Raises as `list_objects`
        does.
        """
        if selection.metadata_only or selection.columns or selection.matters:
            try:
                return self._in_one(selection, keep)
            except (ValueError, CutShortError):
                pass  # the pages say what it is
            except ApiError as error:
                if error.code not in _RATHER_IN_PAGES:
                    raise
        return self._in_pages(selection, keep)

    def _in_one(self, selection: ListQuery, keep: Callable[[Any], bool]) -> tuple[list[Any], str]:
        """The list as one answer, without a resourceVersion: a consistent read.

        Raises ValueError for an answer that is no list as the API server writes it, or too long
        for one, ApiError, and UnreachableError.
        """
        request = Request(
            "GET",
            selection.kind.path(selection.namespace),
            query=_selected(selection),
            accept=_accept(selection),
        )
        deadline = time.monotonic() + LIST_SECONDS
        with self._transport.streamed(request) as (response, parts):
            self._server_time = response.date or self._server_time
            if response.status >= 400:
                raise api_error(response, str(request))
            stream = ListStream(_in_time(parts, deadline, selection))
            found = []
            for count, item in enumerate(stream.items(_reader(stream.head, selection)), 1):
                if count > PAGE * PAGES:
                    raise ValueError("it has too many items")
                if item is not None and keep(item):
                    found.append(item)
            return found, str(stream.head["metadata"].get("resourceVersion") or "")

    def _in_pages(self, selection: ListQuery, keep: Callable[[Any], bool]) -> tuple[list[Any], str]:
        for _ in range(RESTARTS):
            try:
                found: list[Any] = []
                version = ""
                for page, at in self._pages(selection):
                    found += (item for item in page if keep(item))
                    version = at
                return found, version
            except ApiError as error:
                # The snapshot behind the pages is gone: only a whole new list is consistent.
                if error.code != 410:
                    raise
        raise UnreachableError(
            f"the list of {selection.kind.resource} expired {RESTARTS} times before it was read;"
            " try a namespace with -n"
        )

    def watch(
        self, selection: ListQuery, version: str, *, seconds: int, opened: Callable[[], None]
    ) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """What happens to the selected objects after `version`, as (type, object).

        The server ends it after `seconds`; bookmarks are among what it tells. `opened` is called
        once it has begun. Raises ApiError (410: the version is too old) and UnreachableError.
        """
        request = Request(
            "GET",
            selection.kind.path(selection.namespace),
            query=[
                ("watch", "1"),
                ("allowWatchBookmarks", "true"),
                ("resourceVersion", version),
                ("timeoutSeconds", str(seconds)),
                *_selected(selection),
            ],
            accept=_METADATA if selection.metadata_only else "application/json",
        )
        for line in self._transport.lines(request, idle=IDLE_SECONDS):
            if not isinstance(line, bytes):
                self._server_time = line.date or self._server_time
                if line.status >= 400:
                    raise api_error(line, str(request))
                opened()
                continue
            kind, body = _event(line, request.path)
            if kind == "ERROR":
                message = str(body.get("message") or f"the watch of {request.path} failed")
                raise ApiError(_code(body), str(body.get("reason") or ""), redact_text(message))
            yield kind, body

    def _pages(self, selection: ListQuery) -> Iterator[tuple[list[Any], str]]:
        query = [("limit", str(PAGE)), *_selected(selection)]
        first = Request(
            "GET",
            selection.kind.path(selection.namespace),
            query=query,
            accept=_accept(selection),
        )
        token, seen = "", set[str]()
        begun = time.monotonic()
        for _ in range(PAGES):
            more = [("continue", token)] if token else []
            body = self._ask(replace(first, query=[*query, *more]))
            if selection.columns and body.get("kind") == "Table":
                body = _from_table(body, selection)
            meta, items = body.get("metadata"), body.get("items", "missing")
            # An empty list of metadata has `items: null`.
            items = [] if items is None else items
            is_list = str(body.get("kind")).endswith("List") and isinstance(items, list)
            if not is_list or not isinstance(meta, Mapping):
                raise UnreachableError(f"the answer to {first} is not a list of objects")
            yield items, str(meta.get("resourceVersion") or "")
            token = meta.get("continue") or ""
            if not token:
                return
            if token in seen:
                break
            if time.monotonic() - begun > LIST_SECONDS:
                raise _too_long(selection)
            seen.add(token)
        raise UnreachableError(f"the pages of {first} do not end")

    def get(self, ref: ObjectRef, *, metadata_only: bool = False) -> Mapping[str, Any] | None:
        """The object, or None when the server says that there is none. Raises ApiError.

        A 404 of a gateway, or of a kind that is not served, does not speak of this object and is
        raised like every other error.
        """
        accept = _METADATA if metadata_only else "application/json"
        request = Request("GET", ref.kind.path(ref.namespace, ref.name), accept=accept)
        try:
            return self._ask(request)
        except ApiError as error:
            if error.code == 404 and error.about == ref.name:
                return None
            raise

    def prefetch(self, refs: Iterable[ObjectRef]) -> None:
        """Nothing: the API server answers for each object alone."""

    def patch(
        self, ref: ObjectRef, body: Mapping[str, Any], *, dry_run: bool = False
    ) -> Mapping[str, Any]:
        """Send a JSON merge patch; with `dry_run` everything happens but the change.

        Returns the object as it then is. Raises ApiError with the server's words,
        UnreachableError when it may have happened: an answer that is not this object, by kind and
        uid, is none.
        """
        request = Request(
            "PATCH",
            ref.kind.path(ref.namespace, ref.name),
            query=_change(dry_run),
            body=body,
            content_type="application/merge-patch+json",
            retryable=dry_run,
        )
        return _about(self._ask(request), request, ref, body.get("metadata"))

    def delete_pod(
        self, ref: ObjectRef, options: Mapping[str, Any], *, dry_run: bool = False
    ) -> Mapping[str, Any]:
        """Delete a pod with these DeleteOptions; with `dry_run` everything happens but the change.

        Returns the pod or a Status. Raises ApiError with the server's words, UnreachableError
        when it may have happened: an answer that is neither is none.
        """
        if ref.kind is not POD:
            raise ValueError(f"only pods are deleted, not {ref}")
        # The API server ignores the query of a DELETE that has a body, dryRun included.
        body = {**options, "dryRun": ["All"]} if dry_run else options
        path = ref.kind.path(ref.namespace, ref.name)
        request = Request("DELETE", path, body=body, retryable=dry_run)
        answer = self._ask(request)
        if _is_status(answer) and answer.get("status") == "Success":
            return answer
        return _about(answer, request, ref, options.get("preconditions"))

    def create(
        self, kind: Kind, namespace: str, body: Mapping[str, Any], *, dry_run: bool = False
    ) -> Mapping[str, Any]:
        """Create the object and return it; with `dry_run` everything happens but the change.

        Raises ApiError with the server's words, UnreachableError when it may have happened: an
        answer that is not an object of this kind and name is none.
        """
        if not (kind.namespaced and namespace):
            raise ValueError(f"{kind.kind} is created in a namespace")
        path = kind.path(namespace)
        request = Request("POST", path, query=_change(dry_run), body=body, retryable=dry_run)
        ref = ObjectRef(namespace, str(body["metadata"]["name"]), kind)
        return _about(self._ask(request), request, ref, None)

    def log(self, pod: ObjectRef) -> str:
        """The end of the log of a pod's first container, bounded in lines, bytes and time.

        Raises ApiError and UnreachableError.
        """
        path = f"{pod.kind.path(pod.namespace, pod.name)}/log"
        query = [("tailLines", str(LOG_LINES)), ("limitBytes", str(LOG_BYTES))]
        request = Request("GET", path, query=query, timeout=LOG_SECONDS)
        response = self._transport.request(request)
        if response.status >= 400:
            raise api_error(response, str(request))
        return response.body[:LOG_BYTES].decode("utf-8", "replace")

    def access_denial(self, verb: str, ref: ObjectRef) -> str | None:
        """None when this user may, otherwise the missing right. Raises ApiError."""
        attributes = {
            "verb": verb,
            "group": ref.kind.group,
            "version": ref.kind.version,
            "resource": ref.kind.plural,
            "namespace": ref.namespace,
            "name": ref.name,
        }
        request = Request(
            "POST",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            body={
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": attributes},
            },
            retryable=True,
        )
        answer = self._ask(request)
        status = answer.get("status")
        if isinstance(status, Mapping) and status.get("allowed") is True:
            return None
        return f"this user may not {verb} {ref.kind.resource} in namespace {ref.namespace}"

    def version(self) -> str:
        """The API server's version, such as `v1.35.4`. Raises ApiError, UnreachableError."""
        found = self._ask(Request("GET", "/version")).get("gitVersion")
        if not isinstance(found, str) or not found:
            raise UnreachableError("the answer to GET /version names no version")
        return found

    def whoami(self) -> str:
        """The name of this user as the API server sees it. Raises ApiError, UnreachableError."""
        request = Request(
            "POST",
            "/apis/authentication.k8s.io/v1/selfsubjectreviews",
            body={"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"},
            timeout=ASIDE_SECONDS,
        )
        answer = self._ask(request)
        status = answer.get("status")
        info = status.get("userInfo") if isinstance(status, Mapping) else None
        name = info.get("username") if isinstance(info, Mapping) else None
        if not isinstance(name, str) or not name:
            raise UnreachableError("the answer to a SelfSubjectReview names no user")
        return name

    def create_event(self, event: Mapping[str, Any]) -> None:
        """Create an Event in its namespace. Raises ApiError and UnreachableError."""
        path = REPORT.path(event["metadata"]["namespace"])
        self._ask(Request("POST", path, body=event, timeout=ASIDE_SECONDS))

    def _ask(self, request: Request) -> Mapping[str, Any]:
        response = self._transport.request(request)
        self._server_time = response.date or self._server_time
        if response.status >= 400:
            raise api_error(response, str(request))
        answer = response.json()
        if not isinstance(answer, Mapping):
            raise UnreachableError(f"the answer to {request} is not a Kubernetes object")
        return answer


def _change(dry_run: bool) -> list[tuple[str, str]]:
    """The query of a change that has a field manager."""
    query = [("dryRun", "All")] if dry_run else []
    return [*query, ("fieldManager", FIELD_MANAGER)]


def _about(
    answer: Mapping[str, Any], request: Request, ref: ObjectRef, locks: object
) -> Mapping[str, Any]:
    """The answer, if it is the object `ref` with the uid of `locks`, where they name one.

    Raises UnreachableError where it is not: something on the way answered, or changed the answer.
    """
    meta = answer.get("metadata")
    meta = meta if isinstance(meta, Mapping) else {}
    uid = meta.get("uid")
    wanted = locks.get("uid") if isinstance(locks, Mapping) else None
    if (
        (answer.get("apiVersion"), answer.get("kind")) != (ref.kind.api_version, ref.kind.kind)
        or (meta.get("namespace"), meta.get("name")) != (ref.namespace, ref.name)
        or not (isinstance(uid, str) and uid)
        or wanted not in (None, uid)
    ):
        raise UnreachableError(
            f"the answer to {request} is not {ref}; it is not known whether it was carried out"
        )
    return answer


def _from_table(table: Mapping[str, Any], selection: ListQuery) -> Mapping[str, Any]:
    """The list that a table shows: metadata, and the selected columns where objects have them.

    Raises UnreadableError where a column is missing, for then nothing can be told of its field.
    """
    chosen = _chosen(table, selection)
    items = [_from_row(row, chosen, selection) for row in table.get("rows") or []]
    return {"kind": "TableList", "metadata": table.get("metadata"), "items": items}


Cells = list[tuple[int, tuple[str, ...]]]
"""Which cells of a row are wanted, and the paths of their values."""


def _chosen(table: Mapping[str, Any], selection: ListQuery) -> Cells:
    """Where the selected columns stand. Raises UnreadableError where one is missing."""
    try:
        names = [column["name"] for column in table["columnDefinitions"]]
        return [(names.index(name), path) for name, path in selection.columns]
    except (KeyError, TypeError, ValueError):
        raise _not_shown(selection) from None


def _from_row(row: Any, chosen: Cells, selection: ListQuery) -> Any:
    """The object of a row, with the chosen cells. Raises UnreadableError where one is missing."""
    try:
        item = dict(row["object"])
        for index, path in chosen:
            place = item
            for key in path[:-1]:
                place = place.setdefault(key, {})
            place[path[-1]] = row["cells"][index]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        raise _not_shown(selection) from None
    return item


def _not_shown(selection: ListQuery) -> UnreadableError:
    wanted = ", ".join(name for name, _ in selection.columns)
    return UnreadableError(
        selection.kind.resource, f"the API server's table does not show {wanted} of each"
    )


def _reader(head: Mapping[str, Any], selection: ListQuery) -> Callable[[bytes], Any]:
    """What makes an item of its text; None of one that cannot matter.

    Raises ValueError where the head is that of a page.
    """
    if head["metadata"].get("continue"):
        raise ValueError("it is a page")
    is_table = head.get("kind") == "Table"
    chosen = _chosen(head, selection) if is_table and selection.columns else []
    is_partial = selection.metadata_only or bool(selection.columns)
    matters, cells = selection.matters, [index for index, _ in chosen]

    def read(text: bytes) -> Any:
        if matters is not None:
            seen = glimpse(text, cells) if is_partial else glimpse_of_pod(text)
            if seen is not None and not matters(seen):
                return None
        item = decode(text)
        return _from_row(item, chosen, selection) if is_table else item

    return read


def _in_time(parts: Iterator[bytes], deadline: float, selection: ListQuery) -> Iterator[bytes]:
    """The parts of a body. Raises UnreachableError after the deadline, by the monotonic clock."""
    for part in parts:
        if time.monotonic() > deadline:
            raise _too_long(selection)
        yield part


def _too_long(selection: ListQuery) -> UnreachableError:
    return UnreachableError(
        f"the list of {selection.kind.resource} takes longer than {LIST_SECONDS:g} s;"
        " try a namespace with -n"
    )


def _accept(selection: ListQuery) -> str:
    if selection.columns:
        return _TABLE
    return _METADATA_LIST if selection.metadata_only else "application/json"


def _is_status(answer: Mapping[str, Any]) -> bool:
    return (answer.get("apiVersion"), answer.get("kind")) == ("v1", "Status")


def _selected(selection: ListQuery) -> list[tuple[str, str]]:
    query = []
    if selection.labels:
        query.append(("labelSelector", selection.labels))
    if selection.fields:
        query.append(("fieldSelector", selection.fields))
    return query


def _event(line: bytes, path: str) -> tuple[str, Mapping[str, Any]]:
    """One line of a watch. Raises UnreachableError for what is none, such as half a line."""
    try:
        event = nesting.parse_answer(line)
    except ValueError:
        event = None
    body = event.get("object") if isinstance(event, Mapping) else None
    if not isinstance(body, Mapping):
        raise UnreachableError(f"the watch of {path} told something that is not an event")
    return str(event["type"]) if "type" in event else "", body


def _code(status: Mapping[str, Any]) -> int:
    code = status.get("code")
    return code if isinstance(code, int) else 500


def api_error(response: Response, what: str) -> ApiError:
    """The error that the server's Status describes, or its bare HTTP status."""
    try:
        status = response.json()
    except UnreachableError:
        status = None
    if not isinstance(status, Mapping) or not _is_status(status):
        if response.status == 404 and response.body.strip() == b"404 page not found":
            # So the API server itself answers for a group that it does not serve.
            return ApiError(404, NOT_SERVED, f"{what}: not served", is_kubernetes=False)
        # Bodies of gateways are not shown: they are pages, and may hold what nobody asked for.
        words = f"{what}: HTTP status {response.status}"
        return ApiError(response.status, "", words, is_kubernetes=False)
    details = status.get("details")
    return ApiError(
        response.status,
        str(status.get("reason") or ""),
        # A webhook, or the validation, may repeat the object that it does not want.
        redact_text(str(status.get("message") or what)),
        about=str(details.get("name") or "") if isinstance(details, Mapping) else "",
    )
