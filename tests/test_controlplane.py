"""What the code relies on of an API server, asked of a real one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.components.controlplane.server import MERGE_PATCH, ControlPlane
from tests.support.resources import path_of

FINALIZER = "kubevirt.io/virtualMachineControllerFinalize"
BARE: dict[str, Any] = {"metadata": {"finalizers": []}}
METADATA_ONLY = {"Accept": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"}


@pytest.fixture
def api(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """The real API server with an empty namespace `shop`."""
    control_plane.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    control_plane.forget()
    yield control_plane
    control_plane.wipe("shop")


def make(api: ControlPlane, kind: str = "VirtualMachine", name: str = "till") -> dict[str, Any]:
    """Create a VM or VMI with one finalizer and a status."""
    return api.create(
        {
            "apiVersion": "kubevirt.io/v1",
            "kind": kind,
            "metadata": {"namespace": "shop", "name": name, "finalizers": [FINALIZER]},
            "status": {"phase": "Running"},
        }
    )


def metadata_now(api: ControlPlane, obj: dict[str, Any]) -> dict[str, Any]:
    """The metadata of `obj`, which must still be there."""
    found = api.get(obj)
    assert found is not None
    metadata: dict[str, Any] = found["metadata"]
    return metadata


def patch(
    api: ControlPlane, obj: dict[str, Any], body: object, query: str = "", **how: Any
) -> tuple[int, dict[str, Any]]:
    """Merge-patch `obj`."""
    return api.request("PATCH", path_of(obj) + query, body, content_type=MERGE_PATCH, **how)


@pytest.mark.parametrize("kind", ["VirtualMachine", "VirtualMachineInstance"])
def test_create_writes_the_status(api: ControlPlane, kind: str) -> None:
    assert make(api, kind)["status"] == {"phase": "Running"}


def test_status_is_out_of_reach_of_a_patch_of_the_vm(api: ControlPlane) -> None:
    status, answer = patch(api, make(api), {"status": {"phase": "Failed"}})
    assert (status, answer["status"]) == (200, {"phase": "Running"})


@pytest.mark.parametrize(
    ("field", "value", "status", "reason", "words"),
    [
        ("resourceVersion", "1", 409, "Conflict", "the object has been modified"),
        ("uid", "00000000-0000-0000-0000-000000000000", 422, "Invalid", "field is immutable"),
        ("finalizers", [FINALIZER, "example.com/new"], 422, "Invalid", "no new finalizers"),
    ],
)
def test_guards_of_a_patch_of_a_deleting_object(
    api: ControlPlane, field: str, value: object, status: int, reason: str, words: str
) -> None:
    vm = make(api)
    api.delete(vm)
    body = {"metadata": {"finalizers": [], field: value}}
    got, answer = patch(api, vm, body)
    assert (got, answer["reason"]) == (status, reason)
    assert words in answer["message"]
    assert metadata_now(api, vm)["finalizers"] == [FINALIZER]


def test_dry_run_changes_nothing_and_the_last_finalizer_ends_it(api: ControlPlane) -> None:
    vm = make(api)
    api.delete(vm)
    before = api.get(vm)
    assert patch(api, vm, BARE, "?dryRun=All")[0] == 200
    assert api.get(vm) == before
    status, answer = patch(api, vm, BARE)
    assert status == 200
    assert "finalizers" not in answer["metadata"]
    assert api.get(vm) is None


def test_metadata_only_list_in_pages(api: ControlPlane) -> None:
    for name in ("a", "b", "c"):
        make(api, name=name)

    def listed(query: str) -> tuple[int, dict[str, Any]]:
        path = f"/apis/kubevirt.io/v1/virtualmachines?limit=2{query}"
        return api.request("GET", path, headers=METADATA_ONLY)

    status, page = listed("")
    assert (status, page["kind"]) == (200, "PartialObjectMetadataList")
    assert [item["kind"] for item in page["items"]] == ["PartialObjectMetadata"] * 2
    assert page["metadata"]["remainingItemCount"] == 1
    _, rest = listed(f"&continue={page['metadata']['continue']}")
    assert [item["metadata"]["name"] for item in rest["items"]] == ["c"]
    status, answer = listed("&continue=broken")
    assert (status, answer["reason"]) == (400, "BadRequest")
    assert len(listed("&resourceVersion=0")[1]["items"]) == 3


def test_pod_delete_with_another_uid_is_a_conflict(api: ControlPlane) -> None:
    spec = {"nodeName": "node-1", "containers": [{"name": "compute", "image": "launcher"}]}
    metadata = {"namespace": "shop", "name": "virt-launcher-till"}
    pod = api.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    options = {"preconditions": {"uid": "another"}, "gracePeriodSeconds": 0}
    status, answer = api.request("DELETE", path_of(pod), options)
    assert (status, answer["reason"]) == (409, "Conflict")
    api.delete(pod, gracePeriodSeconds=30)
    assert metadata_now(api, pod)["deletionGracePeriodSeconds"] == 30
    api.delete(pod, gracePeriodSeconds=0, preconditions={"uid": pod["metadata"]["uid"]})
    assert api.get(pod) is None


def test_requests_are_recorded_with_body_and_impersonation(api: ControlPlane) -> None:
    vm = make(api)
    body = {"metadata": {"labels": {"seen": "yes"}}}
    patch(api, vm, body, "?dryRun=All")
    patch(api, vm, body, headers={"Impersonate-User": "bob", "Impersonate-Group": "ops"})
    patch(api, vm, body, headers={"Authorization": "Bearer wrong"})
    api.get(vm)
    first, second, third = api.recorded()
    assert (first.method, first.path, first.body) == ("PATCH", path_of(vm) + "?dryRun=All", body)
    assert (first.user, first.impersonated_user, first.status) == ("admin", None, 200)
    assert "system:masters" in first.groups
    assert (second.user, second.impersonated_user, second.status) == ("admin", "bob", 403)
    assert "ops" in second.impersonated_groups
    assert (third.user, third.status) == ("", 401)
    api.forget()
    assert api.recorded() == []


def test_a_webhook_denies_in_its_own_words_and_in_its_own_namespace(api: ControlPlane) -> None:
    vm, vmi = make(api), make(api, "VirtualMachineInstance")
    message = "PVC shop/disk is already used by other VM, please use a shareable RWX volume."
    denial = api.deny_updates("virtualmachines", message, namespace="shop")
    for query in ("?dryRun=All", ""):
        status, answer = patch(api, vm, BARE, query)
        words = 'admission webhook "validator.harvesterhci.io" denied the request: '
        assert (status, answer["message"]) == (422, words + message)
    assert patch(api, vmi, BARE)[0] == 200
    denial.remove()
    broken = api.break_webhook("virtualmachines", "shop")
    status, answer = patch(api, vm, BARE)
    assert status == 500
    assert 'failed calling webhook "validator.harvesterhci.io"' in answer["message"]
    assert 'no endpoints available for service "harvester-webhook"' in answer["message"]
    broken.remove()
    assert patch(api, vm, BARE)[0] == 200


def test_a_user_without_rights_is_forbidden(api: ControlPlane) -> None:
    assert api.request("GET", path_of(make(api)), user="alice")[0] == 403


def test_a_restart_keeps_address_and_objects(api: ControlPlane) -> None:
    vm = make(api)
    api.stop_apiserver()
    api.start_apiserver()
    assert api.get(vm) == vm
