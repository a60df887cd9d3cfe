"""What is seen of the text of a listed object, and when it has to be decoded instead."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubectl_harvester_stuck.cluster.glimpse import glimpse, glimpse_of_pod
from kubectl_harvester_stuck.listing import survey
from kubectl_harvester_stuck.listing.survey import UNKNOWN_TIME, written_before

META = {
    "name": "web",
    "namespace": "team",
    "uid": "u",
    "resourceVersion": "7",
    "generation": 2,
    "creationTimestamp": "2026-01-01T00:00:00Z",
    "labels": {"a": "metadata b"},
}


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def item(**meta: object) -> bytes:
    metadata = {**META, **meta}
    return compact(
        {
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": {key: value for key, value in metadata.items() if value is not None},
        }
    )


def row(*cells: object) -> bytes:
    return b'{"cells":' + compact(cells) + b',"object":' + item() + b"}"


@pytest.mark.parametrize("missing", [{}, {"generation": None}, {"namespace": None}])
def test_names_and_creation_are_seen(missing: dict[str, None]) -> None:
    seen = glimpse(item(**missing), [])
    assert seen is not None
    assert (seen.namespace, seen.name) == ("" if "namespace" in missing else "team", "web")
    assert seen.created == META["creationTimestamp"]


def test_a_generated_name_is_seen() -> None:
    text = item().replace(b'"namespace"', b'"generateName":"we","namespace"')
    seen = glimpse(text, [])
    assert seen is not None
    assert (seen.namespace, seen.name) == ("team", "web")


def test_the_chosen_cells_are_seen() -> None:
    seen = glimpse(row("web", "3d", "Running", None, "node-1", True, 0.5), [2, 3, 4])
    assert seen is not None
    assert seen.cells == ("Running", None, "node-1")


def pod(**fields: object) -> bytes:
    return compact({"metadata": META, "spec": {"containers": []}, **fields})


def test_a_whole_pod_is_seen() -> None:
    seen = glimpse_of_pod(pod())
    assert seen is not None
    assert (seen.namespace, seen.name, seen.cells) == ("team", "web", ())
    assert seen.text == pod()


@pytest.mark.parametrize(
    "text",
    [
        item(),
        pod(metadata={**META, "deletionTimestamp": "2026-01-01T00:00:00Z"}),
        pod(metadata={"name": "web"}),
        pod(metadata=None),
        pod(spec={"metadata": {}}),
        pod(spec="\\").replace(b"\\\\", b"\\u006bubevirt.io"),
        pod()[:-1],
        pod(kind="Pod", spec=None).replace(b'"metadata"', b'"kind":"Pod","metadata"', 1),
    ],
)
def test_a_pod_of_another_form_has_to_be_decoded(text: bytes) -> None:
    assert glimpse_of_pod(text) is None


@pytest.mark.parametrize(
    "text",
    [
        item(deletionTimestamp="2026-01-01T00:00:00Z"),
        item(deletionTimestamp="2026-01-01T00:00:00Z").replace(b"T", b"\\u0054", 1),
        item(uid=None),
        item(name=5),
        item(name='a"b'),
        item(labels={"a": "metadata"}),
        item()[:-1] + b',"metadata":null}',
        item()[:-1],
        item()[:-1] + b',"a":[{"b":0}',
        item() + b',{"a":0}',
        item().replace(b":", b": "),
        compact({"metadata": META}),
        compact({"kind": "PartialObjectMetadata", "metadata": None}),
        b"{}",
        b"null",
    ],
)
def test_everything_else_has_to_be_decoded(text: bytes) -> None:
    assert glimpse(text, []) is None


@pytest.mark.parametrize(
    "text",
    [row("web"), row("web", {}, "b"), row("web", [1], "b"), row("a", 'b"', "c"), item(),
     b'{"cells":[1,.,3],"object":' + item() + b"}"],
)  # fmt: skip
def test_a_row_without_the_cells_has_to_be_decoded(text: bytes) -> None:
    assert glimpse(text, [1, 2]) is None


BEFORE, AT, LATER = (f"2026-01-01T0{hour}:00:00Z" for hour in range(3))
SPEC: dict[str, Any] = {".": {}, "f:runStrategy": {}, "f:template": {".": {}}}


def entry(fields: object, time: object = BEFORE, **more: object) -> dict[str, Any]:
    head = {"manager": "m", "operation": "Update", "apiVersion": "kubevirt.io/v1", "time": time,
            "fieldsType": "FieldsV1", "fieldsV1": fields}  # fmt: skip
    return {**head, **more}


def virtual_machine(*entries: object) -> bytes:
    return item(managedFields=list(entries))


STATUS = entry({"f:status": {".": {}, "f:runStrategy": {}}}, LATER, subresource="status")
STOP = entry({"f:status": {"f:stateChangeRequests": {}}}, LATER, subresource="status")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (virtual_machine(entry({"f:spec": SPEC})), True),
        (virtual_machine(entry({"f:spec": SPEC}, AT), STATUS), True),
        (virtual_machine(entry({"f:metadata": {}}, LATER), entry({"f:spec": SPEC})), True),
        (virtual_machine(entry({"f:spec": {"f:running": {}}})), True),
        (virtual_machine(entry({"f:spec": SPEC}, LATER)), False),
        (virtual_machine(entry({"f:spec": SPEC}), entry({"f:spec": SPEC}, LATER)), False),
        (virtual_machine(entry({"f:spec": SPEC}), STOP), False),
        (virtual_machine(), False),
        (item(), False),
        (virtual_machine(STATUS), False),
        (virtual_machine(entry({"f:spec": {"f:template": {}}})), False),
        # A label of that name says nothing of the run strategy.
        (virtual_machine(entry({"f:metadata": {"f:labels": {"f:running": {}}}})), False),
        (virtual_machine(entry({"f:spec": {"f:a": {"f:runStrategy": {}}}})), False),
        # Entries in another form.
        (virtual_machine(entry({"f:spec": SPEC}, None)), False),
        (virtual_machine({"fieldsV1": {"f:spec": SPEC}, "time": BEFORE}), False),
        (virtual_machine(entry({"f:spec": SPEC}), {"fieldsV1": {"f:spec": SPEC}}), False),
        (virtual_machine(entry({"f:spec": SPEC}, more={"time": LATER})), False),
        (virtual_machine(entry({"f:spec": SPEC})) + b',"managedFields":[]', False),
    ],
)
def test_a_stop_is_ruled_out_by_the_text_alone(text: bytes, answer: bool) -> None:
    assert written_before(text, AT) is answer
    if answer:
        written = survey._written(json.loads(text)["metadata"])
        assert written <= AT < UNKNOWN_TIME
