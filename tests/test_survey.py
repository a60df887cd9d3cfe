"""What the lists of `list` show together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

import pytest

from kubectl_harvester_stuck.k8s.kinds import POD, VM, VMI, Kind
from kubectl_harvester_stuck.k8s.objects import ObjectRef
from kubectl_harvester_stuck.k8s.source import ListQuery
from kubectl_harvester_stuck.listing import survey
from tests.support import builders

DELETED = {"deletionTimestamp": "2026-01-01T00:00:00Z"}


class Lists:
    """A source that has lists; VMIs come when VMs are asked for, or `late`: after them."""

    now = datetime(2026, 1, 2, tzinfo=timezone.utc)

    def __init__(self, items: Mapping[Kind, list[Any]], *, late: bool = False) -> None:
        self._items = items
        self._late = late
        self._vms_asked, self._vms_came = threading.Event(), threading.Event()

    def list_objects(self, selection: ListQuery, keep: Callable[[Any], bool]) -> list[Any]:
        if selection.kind is VM:
            self._vms_asked.set()
        if selection.kind is VMI:
            assert (self._vms_came if self._late else self._vms_asked).wait(10)
            time.sleep(0.1)
        found = [item for item in self._items.get(selection.kind, []) if keep(item)]
        if selection.kind is VM:
            self._vms_came.set()
        return found

    def get(self, ref: ObjectRef, *, metadata_only: bool = False) -> Any:
        raise AssertionError(f"{ref} {metadata_only}")

    def prefetch(self, refs: object) -> None:
        raise AssertionError(refs)

    def log(self, pod: ObjectRef) -> str:
        raise AssertionError(pod)


def meta(body: dict[str, Any], **more: object) -> dict[str, Any]:
    """What a list of metadata shows, and the columns of a VMI."""
    shown = {"uid": f"{body['kind']}-uid", "resourceVersion": "1", **more}
    found = {"metadata": {**body["metadata"], **shown}}
    return (
        {**found, "status": body["status"]} if body["kind"] == "VirtualMachineInstance" else found
    )


def stopping() -> dict[Kind, list[Any]]:
    """A VM that lives, and its VMI that is being deleted."""
    machine = meta(builders.vm("team", "web"))
    return {VM: [machine], VMI: [meta(builders.vmi("team", "web", "node-1"), **DELETED)]}


def test_the_vm_of_a_vmi_that_is_being_deleted_is_kept() -> None:
    seen = survey.survey(Lists(stopping()), [None])
    assert [item.ref.name for item in seen.deleting[VMI]] == ["web"]
    assert seen.deleting[VM] == []
    assert seen.known[ObjectRef("team", "web", VM)] is not None


def test_a_vm_is_read_whole_where_a_second_look_shows_another_vmi() -> None:
    class Twice(Lists):
        def list_objects(self, selection: ListQuery, keep: Callable[[Any], bool]) -> list[Any]:
            if selection.kind is VMI:
                assert keep(stopping()[VMI][0])
            return super().list_objects(selection, keep)

    lists = {**stopping(), VMI: [meta(builders.vmi("team", "web", "node-1"))]}
    seen = survey.survey(Twice(lists), [None])
    assert seen.deleting[VMI] == []
    assert ObjectRef("team", "web", VM) not in seen.known


def test_the_vms_do_not_wait_long_for_the_vmis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "AWHILE", 0.05)
    seen = survey.survey(Lists(stopping(), late=True), [None])
    assert [item.ref.name for item in seen.deleting[VMI]] == ["web"]
    # Not known from the lists, so it is got.
    assert ObjectRef("team", "web", VM) not in seen.known


@pytest.mark.parametrize("names", [[None], ["team"], ["other", "team"]])
def test_a_vmi_that_a_whole_list_lacks_is_not_there(names: list[str | None]) -> None:
    lists = {VM: [meta(builders.vm("team", "web"), **DELETED)], VMI: []}
    seen = survey.survey(Lists(lists), names)
    assert seen.known[ObjectRef("team", "web", VMI)] is None


@pytest.mark.parametrize(
    "instances",
    [
        [meta(builders.vmi("team", "web", "node-1"))],
        [meta(builders.vmi("team", "web", ""))],
        [meta(builders.vmi("team", "web", "node-1", phase="Failed"))],
        [{"metadata": None}],
        [meta(builders.vmi("team", "web", "node-1"), **DELETED, finalizers="all")],
    ],
    ids=["on a lost node", "lives", "ended", "unreadable", "malformed"],
)
def test_a_vmi_that_may_be_there_is_not_known_to_be_absent(instances: list[Any]) -> None:
    lists = {VM: [meta(builders.vm("team", "web"), **DELETED)], VMI: instances}
    seen = survey.survey(Lists(lists), [None])
    assert ObjectRef("team", "web", VMI) not in seen.known


def test_a_vmi_that_the_source_may_have_left_out_is_not_known_to_be_absent() -> None:
    class Hinted(Lists):
        def list_objects(self, selection: ListQuery, keep: Callable[[Any], bool]) -> list[Any]:
            if selection.kind is VMI:
                assert selection.hint is not None
                selection.hint(b"nodeName: node-1")
            return super().list_objects(selection, keep)

    lists = {VM: [meta(builders.vm("team", "web"), **DELETED)], VMI: []}
    seen = survey.survey(Hinted(lists), [None])
    assert ObjectRef("team", "web", VMI) not in seen.known


@pytest.mark.parametrize(("shown", "node"), [("node-1", "node-1"), ("<none>", "")])
def test_the_node_of_a_pod_is_that_of_its_row(shown: str, node: str) -> None:
    instance = builders.vmi("team", "web", "node-1")
    instance["metadata"]["uid"] = "uid"
    launcher = builders.pod("team", "virt-launcher-web", "node-1", instance)
    row = {**meta(launcher, **DELETED), "spec": {"nodeName": shown}}
    seen = survey.survey(Lists({POD: [row]}), [None])
    pod = seen.known[ObjectRef("team", "virt-launcher-web", POD)]
    assert pod is not None
    assert pod.text("spec", "nodeName") == node
