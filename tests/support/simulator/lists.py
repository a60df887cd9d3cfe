"""Lists: selectors, pages of one snapshot, and the representations that a client may ask for."""

from __future__ import annotations

import base64
import binascii
import bisect
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import Enum
from functools import cache
from pathlib import Path

from kubectl_harvester_stuck.k8s.durations import human
from tests.support import fastyaml
from tests.support.resources import Resource

from .clock import moment
from .rules import is_custom
from .selectors import Predicate, field_predicate, label_predicate
from .status import bad_request, expired, not_acceptable
from .store import Store, Stored, encode

_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. "
    "You can start a new list without the continue parameter"
)
_INCONSISTENT = (
    f"{_TOO_OLD}, or use the continue token in this response to retrieve the remainder of the "
    "results. Continuing with the provided token results in an inconsistent list - objects that "
    "were created, modified, or deleted between the time the first chunk was returned and now "
    "may show up in the list."
)
_ANY_VERSION = -1


class Form(Enum):
    """How objects are represented in an answer."""

    FULL = "full"
    PARTIAL = "metadata only"
    TABLE = "as kubectl prints them"


def accepted_form(accept: str, *, of_list: bool) -> Form:
    """The first representation of an Accept header that is served. ApiError 406 for none."""
    wanted = "PartialObjectMetadataList" if of_list else "PartialObjectMetadata"
    for choice in (accept or "*/*").split(","):
        media_type, *pairs = (part.strip() for part in choice.split(";"))
        parameters = dict(pair.partition("=")[::2] for pair in pairs)
        if media_type not in ("application/json", "application/*", "*/*"):
            continue
        if "as" not in parameters:
            return Form.FULL
        version = (parameters.get("g"), parameters.get("v"))
        if parameters["as"] == wanted and version == ("meta.k8s.io", "v1"):
            return Form.PARTIAL
        if of_list and parameters["as"] == "Table" and version == ("meta.k8s.io", "v1"):
            return Form.TABLE
    raise not_acceptable()


_COLUMNS = {
    "Pod": (("Age", ("metadata", "creationTimestamp")), ("Node", ("spec", "nodeName"))),
    "Node": (("Status", ("status", "conditions")), ("Age", ("metadata", "creationTimestamp"))),
}
"""Columns of kinds that Kubernetes prints itself (pkg/printers/internalversion/printers.go)."""

_CRDS = Path(__file__).parents[2] / "crds"


@cache
def printer_columns(kind: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The columns of a kind in kubectl's table, without its name: each with the path of its value.

    A path that selects from a list has no value here, which no decision may rest on.
    """
    for file in sorted(_CRDS.glob("*.yaml")):
        for crd in fastyaml.load_all(file.read_text()):
            if crd["spec"]["names"]["kind"] == kind:
                listed = crd["spec"]["versions"][0].get("additionalPrinterColumns") or []
                return tuple(
                    (column["name"], tuple(column["jsonPath"].lstrip(".").split(".")))
                    for column in listed
                )
    return _COLUMNS.get(kind, (("Age", ("metadata", "creationTimestamp")),))


def _row(
    columns: tuple[tuple[str, tuple[str, ...]], ...], now: datetime
) -> Callable[[Stored], str]:
    def write(stored: Stored) -> str:
        cells = [stored.obj["metadata"]["name"]]
        for name, path in columns:
            value: object = stored.obj
            for key in path:
                value = value.get(key) if isinstance(value, Mapping) else None
            cells.append(_cell(name, value, now))
        return f'{{"cells":{encode(cells)},"object":{stored.partial_json}}}'

    return write


def _cell(name: str, value: object, now: datetime) -> object:
    """What stands in a column for a value."""
    if name == "Node":
        return value or "<none>"
    if name == "Age":
        return human(now - moment(str(value)))
    if isinstance(value, list):
        is_ready = any((one["type"], one["status"]) == ("Ready", "True") for one in value)
        return "Ready" if is_ready else "NotReady"
    return value


def item_encoder(resource: Resource, form: Form, now: datetime) -> Callable[[Stored], str]:
    """What writes one item of a list of that form."""
    if form is Form.PARTIAL:
        return lambda stored: stored.partial_json
    if form is Form.TABLE:
        return _row(printer_columns(resource.kind), now)
    if is_custom(resource):
        return lambda stored: stored.json
    return lambda stored: stored.untyped_json


def predicates(resource: Resource, query: Mapping[str, str]) -> list[Predicate]:
    """The selectors of a query. ApiError 400 for malformed ones."""
    found = []
    if labels := query.get("labelSelector"):
        found.append(label_predicate(labels))
    if fields := query.get("fieldSelector"):
        found.append(field_predicate(resource, fields))
    return found


def list_json(
    store: Store,
    resource: Resource,
    namespace: str | None,
    query: Mapping[str, str],
    form: Form,
    now: datetime,
) -> str:
    """A list as JSON; `namespace` None for all of them.

    ApiError 400 for a broken selector, limit or continue token, 410 for an expired token.
    """
    limit = _limit(query)
    continue_token = query.get("continue", "")
    selectors = predicates(resource, query)
    if continue_token:
        if query.get("resourceVersion", "0") not in ("", "0"):
            raise bad_request("specifying resource version is not allowed when using continue")
        version, start = _decoded(continue_token)
        if version == _ANY_VERSION:
            stored, version = store.all(resource), store.version
        else:
            kept = store.snapshot(resource, version)
            if kept is None:
                raise expired(_INCONSISTENT, _encoded(_ANY_VERSION, start))
            stored = kept
    else:
        stored, version, start = store.all(resource), store.version, ""
        if query.get("resourceVersion") == "0":
            limit = 0
    prefix = f"{namespace}/" if namespace is not None else ""
    begin = bisect.bisect_left(stored, max(start, prefix), key=lambda one: one.key)
    chosen: list[Stored] = []
    rest = 0
    next_key = ""
    for one in stored[begin:]:
        if not one.key.startswith(prefix):
            break
        if limit and len(chosen) == limit:
            next_key = next_key or one.key
            if selectors:
                break
            rest += 1
        elif all(fits(one.obj) for fits in selectors):
            chosen.append(one)
    metadata: dict[str, object] = {"resourceVersion": str(version)}
    if next_key:
        if store.snapshot(resource, version) is None:
            version = store.keep_snapshot(resource)
        metadata["continue"] = _encoded(version, next_key)
        if not selectors:
            metadata["remainingItemCount"] = rest
    kind, api_version = f"{resource.kind}List", resource.api_version
    if form is Form.PARTIAL:
        kind, api_version = "PartialObjectMetadataList", "meta.k8s.io/v1"
    if form is Form.TABLE:
        names = ["Name", *(name for name, _ in printer_columns(resource.kind))]
        head = {
            "kind": "Table",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": metadata,
            "columnDefinitions": [{"name": name} for name in names],
        }
        rows = ",".join(map(item_encoder(resource, form, now), chosen))
        return f'{encode(head)[:-1]},"rows":[{rows}]}}'
    head = {"kind": kind, "apiVersion": api_version, "metadata": metadata}
    items = f"[{','.join(map(item_encoder(resource, form, now), chosen))}]"
    if form is Form.PARTIAL and not chosen:
        items = "null"  # as the real server encodes a list of metadata that is empty
    return f'{encode(head)[:-1]},"items":{items}}}'


def _limit(query: Mapping[str, str]) -> int:
    text = query.get("limit") or "0"
    try:
        return max(int(text), 0)
    except ValueError:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def _encoded(version: int, start: str) -> str:
    token = {"v": "meta.k8s.io/v1", "rv": version, "start": start}
    return base64.urlsafe_b64encode(encode(token).encode()).decode().rstrip("=")


def _decoded(token: str) -> tuple[int, str]:
    problem = "invalid continue token: continue key is not valid"
    try:
        padded = token + "=" * (-len(token) % 4)
        decoded = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError) as error:
        raise bad_request(f"{problem}: {error}") from None
    if not isinstance(decoded, dict) or decoded.get("v") != "meta.k8s.io/v1":
        raise bad_request(f"{problem}: server does not recognize this encoded version")
    version, start = decoded.get("rv"), decoded.get("start")
    if not isinstance(version, int) or not version:
        raise bad_request(
            f"{problem}: incorrect encoded start resourceVersion (version meta.k8s.io/v1)"
        )
    if not isinstance(start, str) or not start:
        raise bad_request(f"{problem}: encoded start key empty (version meta.k8s.io/v1)")
    return version, start
