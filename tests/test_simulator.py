"""The rules of the simulated API server, each with the answer of a real one."""

from __future__ import annotations

import json
import re
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
import urllib3
from urllib3.exceptions import HTTPError

from tests.support import builders
from tests.support.resources import RESOURCES, path_of
from tests.support.simulator import GARBAGE_COLLECTOR, VIRT_CONTROLLER, Fault, Simulator, faults

MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
PARTIAL_LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
VMS = "/apis/kubevirt.io/v1/namespaces/shop/virtualmachines"
VMIS = "/apis/kubevirt.io/v1/namespaces/shop/virtualmachineinstances"
ALL_VMS = "/apis/kubevirt.io/v1/virtualmachines"
VM_FINALIZER = "kubevirt.io/virtualMachineControllerFinalize"
VMI_FINALIZERS = [VM_FINALIZER, "kubevirt.io/foregroundDeleteVirtualMachine"]
FOREIGN_UID = "00000000-0000-0000-0000-000000000000"
Answer = tuple[int, dict[str, Any]]


@pytest.fixture
def sim() -> Iterator[Simulator]:
    """A simulator with an empty namespace `shop`."""
    with Simulator({"carol": ["ops"]}) as cluster:
        cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
        yield cluster


@pytest.fixture
def http(sim: Simulator) -> Iterator[urllib3.PoolManager]:
    """A client that retries nothing, with the token of admin."""
    pool = urllib3.PoolManager(
        ca_cert_data=sim.ca_data.decode(),
        retries=False,
        timeout=5,
        headers={"Authorization": "Bearer admin-token", "User-Agent": "test/1"},
    )
    yield pool
    pool.clear()


def thing(kind: str = "VirtualMachine", name: str = "till", **rest: Any) -> dict[str, Any]:
    """An object in `shop`; what is not spec or status goes into its metadata."""
    body: dict[str, Any] = {key: rest.pop(key) for key in ("spec", "status") if key in rest}
    metadata = {"namespace": "shop", "name": name, **rest}
    return {
        "apiVersion": RESOURCES[kind].api_version,
        "kind": kind,
        "metadata": metadata,
        **body,
    }


def pod(name: str = "launcher", node: str | None = "node-1", **rest: Any) -> dict[str, Any]:
    spec = {"nodeName": node} if node else {}
    return thing("Pod", name, spec=spec, status={"phase": "Running"}, **rest)


def patch(
    sim: Simulator, obj: dict[str, Any], body: object, suffix: str = "", **how: Any
) -> Answer:
    how.setdefault("content_type", MERGE)
    return sim.request("PATCH", path_of(obj) + suffix, body, **how)


def names(page: dict[str, Any]) -> list[str]:
    return [item["metadata"]["name"] for item in page["items"]]


def grant(sim: Simulator, user: str, *rules: dict[str, Any], namespace: str = "") -> None:
    """Give `user` these rules, in one namespace or everywhere."""
    prefix = "" if namespace else "Cluster"
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": f"{prefix}Role", "name": "some"}
    role = thing(f"{prefix}Role", "some") | {"rules": list(rules)}
    binding = thing(f"{prefix}RoleBinding", "some") | {
        "roleRef": reference,
        "subjects": [{"kind": "User", "name": user}],
    }
    for obj in (role, binding):
        obj["metadata"].pop("namespace")
        if namespace:
            obj["metadata"]["namespace"] = namespace
        sim.create(obj)


def rule(verbs: str, resources: str, group: str = "kubevirt.io", **rest: Any) -> dict[str, Any]:
    lists = {"verbs": verbs.split(), "resources": resources.split(), "apiGroups": [group]}
    return lists | rest


# Paths


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/apis/kubevirt.io/v1/nothing", "404 page not found"),
        ("/apis/kubevirt.io/v9/virtualmachines", "404 page not found"),
        ("/nothing", "404 page not found"),
        ("/api/v1/nothing", "the server could not find the requested resource"),
        ("/apis/apps/v1/namespaces/shop/nothing/x", "could not find the requested resource"),
        ("/api/v1/namespaces/shop/nodes", "could not find the requested resource"),
        ("/api/v1/pods/x", "could not find the requested resource"),
        (f"{VMS}/till", 'virtualmachines.kubevirt.io "till" not found'),
        ("/api/v1/nodes/x", 'nodes "x" not found'),
    ],
)
def test_what_is_not_there(sim: Simulator, path: str, words: str) -> None:
    status, answer = sim.request("GET", path)
    assert status == 404
    assert words in answer.get("message", answer.get("text", ""))


def test_a_missing_kind_is_an_unknown_page_until_it_is_installed() -> None:
    with Simulator(missing=["virtualmachines"]) as sim:
        assert sim.request("GET", ALL_VMS) == (404, {"text": "404 page not found\n"})
        sim.install("virtualmachines")
        assert sim.request("GET", ALL_VMS)[0] == 200
        sim.uninstall("virtualmachines.kubevirt.io")
        assert sim.request("GET", ALL_VMS)[0] == 404


def test_discovery_names_every_kind_and_its_status(sim: Simulator) -> None:
    assert sim.request("GET", "/version")[1]["gitVersion"].startswith("v1.35.")
    assert sim.request("GET", "/readyz") == (200, {"text": "ok"})
    assert sim.request("GET", "/api")[1]["versions"] == ["v1"]
    groups = {group["name"] for group in sim.request("GET", "/apis")[1]["groups"]}
    assert {"kubevirt.io", "apps", "authorization.k8s.io"} <= groups
    served = sim.request("GET", "/apis/kubevirt.io/v1")[1]["resources"]
    by_name = {one["name"]: one for one in served}
    assert by_name["virtualmachines"]["shortNames"] == ["vm", "vms"]
    assert "virtualmachines/status" in by_name
    assert "virtualmachineinstances/status" not in by_name
    assert sim.request("GET", "/api/v1")[1]["groupVersion"] == "v1"


@pytest.mark.parametrize(
    ("method", "path"),
    [("DELETE", VMS), ("PUT", VMS), ("POST", "/api/v1/pods"), ("POST", f"{VMS}/till")],
)
def test_methods_that_a_path_does_not_have(sim: Simulator, method: str, path: str) -> None:
    assert sim.request(method, path, thing())[0] == 405


# Create


def test_create_fills_in_what_only_the_server_knows(sim: Simulator) -> None:
    sent = thing(labels={}, uid="mine", deletionTimestamp="2020-01-01T00:00:00Z")
    status, made = sim.request("POST", VMS, sent)
    metadata = made["metadata"]
    assert (status, metadata["generation"]) == (201, 1)
    assert metadata["uid"] != "mine"
    assert not {"deletionTimestamp", "labels"} & set(metadata)
    assert metadata["creationTimestamp"].endswith("Z")
    _, second = sim.request("POST", VMS, thing(name="other"))
    assert int(second["metadata"]["resourceVersion"]) > int(metadata["resourceVersion"])


def test_create_with_a_generated_name(sim: Simulator) -> None:
    event = {"metadata": {"generateName": "till."}, "reason": "Freed"}
    status, made = sim.request("POST", "/api/v1/namespaces/shop/events", event)
    assert status == 201
    assert re.fullmatch(r"till\.\w{5}", made["metadata"]["name"])


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (thing(), 409, 'virtualmachines.kubevirt.io "till" already exists'),
        (thing(namespace="other"), 400, "does not match the namespace sent on the request"),
        ({"metadata": {"name": "x"}}, 400, "Object 'Kind' is missing"),
        (thing() | {"kind": "Pod"}, 422, 'kind: Invalid value: "Pod": must be VirtualMachine'),
        (thing() | {"apiVersion": "kubevirt.io/v9"}, 400, "does not match the expected API"),
        (thing() | {"metadata": {}}, 422, "name or generateName is required"),
        ([], 400, "must be of type VirtualMachine"),
    ],
)
def test_create_is_refused(sim: Simulator, body: object, status: int, words: str) -> None:
    sim.create(thing())
    got, answer = sim.request("POST", VMS, body)
    assert got == status
    assert words in answer["message"]


def test_create_drops_the_status_where_that_is_a_subresource(sim: Simulator) -> None:
    status = {"phase": "Running"}
    assert "status" not in sim.request("POST", VMS, thing(status=status))[1]
    instance = thing("VirtualMachineInstance", status=status)
    assert sim.request("POST", VMIS, instance)[1]["status"] == status
    sent = pod("other")
    assert sim.request("POST", "/api/v1/namespaces/shop/pods", sent)[1]["status"] == {
        "phase": "Pending"
    }
    assert sim.create(thing(name="other", status=status))["status"] == status


def test_create_needs_a_namespace_that_stays(sim: Simulator) -> None:
    path = VMS.replace("shop", "nowhere")
    status, answer = sim.request("POST", path, thing(namespace="nowhere"))
    assert (status, answer["message"]) == (404, 'namespaces "nowhere" not found')
    with pytest.raises(AssertionError, match="not found"):
        sim.create(thing(namespace="nowhere"))
    assert sim.request("DELETE", "/api/v1/namespaces/shop")[1]["status"]["phase"] == "Terminating"
    status, answer = sim.request("POST", VMS, thing())
    assert status == 403
    assert answer["details"]["causes"][0]["reason"] == "NamespaceTerminating"


# Update


def test_a_merge_patch_removes_by_null_and_replaces_lists(sim: Simulator) -> None:
    vm = sim.create(thing(labels={"a": "1", "b": "2"}, finalizers=["x.io/1", "x.io/2"]))
    body = {"metadata": {"labels": {"a": None, "c": "3"}, "finalizers": ["x.io/2"]}}
    status, answer = patch(sim, vm, body)
    metadata = answer["metadata"]
    assert (status, metadata["labels"]) == (200, {"b": "2", "c": "3"})
    assert metadata["finalizers"] == ["x.io/2"]
    assert metadata["generation"] == 1
    assert answer == sim.get(vm)


def test_only_what_is_desired_counts_for_the_generation(sim: Simulator) -> None:
    vm = sim.create(thing(spec={"running": True}))
    assert patch(sim, vm, {"spec": {"running": False}})[1]["metadata"]["generation"] == 2
    _, answer = patch(sim, vm, {"status": {"ready": True}}, "/status")
    assert (answer["metadata"]["generation"], answer["status"]) == (2, {"ready": True})


def test_a_patch_without_effect_makes_no_version(sim: Simulator) -> None:
    vm = sim.create(thing(labels={"a": "1"}))
    assert patch(sim, vm, {"metadata": {"labels": {"a": "1"}, "finalizers": []}})[1] == vm
    assert patch(sim, vm, {"metadata": {"labels": {"a": "2"}}})[1] != vm


def test_status_and_the_rest_are_apart_where_status_is_a_subresource(sim: Simulator) -> None:
    vm = sim.create(thing(status={"phase": "Running"}, finalizers=["x.io/1"]))
    assert patch(sim, vm, {"status": {"phase": "Failed"}})[1]["status"] == {"phase": "Running"}
    body = {"status": {"phase": "Failed"}, "metadata": {"finalizers": []}, "spec": {"x": 1}}
    _, answer = patch(sim, vm, body, "/status")
    assert answer["status"] == {"phase": "Failed"}
    assert answer["metadata"]["finalizers"] == ["x.io/1"]
    assert "spec" not in answer
    vmi = sim.create(thing("VirtualMachineInstance", status={"phase": "Running"}))
    assert patch(sim, vmi, {"status": {"phase": "Failed"}})[1]["status"] == {"phase": "Failed"}
    assert sim.request("GET", path_of(vmi) + "/status")[0] == 404


@pytest.mark.parametrize(
    ("content_type", "body", "status", "words"),
    [
        (STRATEGIC, {}, 415, "accepted media types include: application/json-patch+json, "),
        ("application/json", {}, 415, "application/merge-patch+json"),
        (MERGE, [], 400, "error decoding patch"),
        (JSON_PATCH, {}, 400, "error decoding patch"),
        (JSON_PATCH, [{"op": "test", "path": "/spec/x", "value": 2}], 422, "rejected our request"),
        (JSON_PATCH, [{"op": "test", "path": "", "value": {}}], 422, "rejected our request"),
        (JSON_PATCH, [{"op": "remove", "path": "/spec/y"}], 422, "rejected our request"),
        (MERGE, {"metadata": {"name": "b"}}, 400, "does not match the name on the URL (till)"),
        (MERGE, {"metadata": {"namespace": "b"}}, 400, "does not match the namespace"),
        (MERGE, {"metadata": {"resourceVersion": None}}, 422, "must be specified for an update"),
    ],
)
def test_a_patch_is_refused(
    sim: Simulator, content_type: str, body: object, status: int, words: str
) -> None:
    vm = sim.create(thing(spec={"x": 1}))
    got, answer = patch(sim, vm, body, content_type=content_type)
    assert got == status
    assert words in answer["message"]
    assert sim.get(vm) == vm


def test_a_json_patch(sim: Simulator) -> None:
    vm = sim.create(thing(finalizers=["x.io/1", "x.io/2"], annotations={"a/b": "1"}))
    operations = [
        {"op": "test", "path": "/metadata/finalizers", "value": ["x.io/1", "x.io/2"]},
        {"op": "remove", "path": "/metadata/finalizers/0"},
        {"op": "add", "path": "/metadata/finalizers/-", "value": "x.io/3"},
        {"op": "replace", "path": "/metadata/annotations/a~1b", "value": "2"},
    ]
    _, answer = patch(sim, vm, operations, content_type=JSON_PATCH)
    assert answer["metadata"]["finalizers"] == ["x.io/2", "x.io/3"]
    assert answer["metadata"]["annotations"] == {"a/b": "2"}


def test_a_replacement_needs_the_version_that_is_stored(sim: Simulator) -> None:
    vm = sim.create(thing())
    fresh = vm | {"spec": {"x": 1}}
    stale = thing(resourceVersion="1")
    unversioned = thing()
    assert sim.request("PUT", path_of(vm), unversioned)[0] == 422
    status, answer = sim.request("PUT", path_of(vm), stale)
    assert (status, answer["message"]) == (
        409,
        'Operation cannot be fulfilled on virtualmachines.kubevirt.io "till": the object has '
        "been modified; please apply your changes to the latest version and try again",
    )
    status, answer = sim.request("PUT", path_of(vm), thing(uid=FOREIGN_UID))
    assert status == 409
    assert "Precondition failed: UID in precondition" in answer["message"]
    assert sim.request("PUT", path_of(vm) + "x", vm)[0] == 400
    assert sim.request("PUT", path_of(vm), fresh)[1]["spec"] == {"x": 1}
    assert sim.request("PUT", path_of(vm), fresh)[0] == 409


@pytest.mark.parametrize("deleting", [False, True])
@pytest.mark.parametrize(
    ("field", "value", "status", "words"),
    [
        ("resourceVersion", "1", 409, "the object has been modified; please apply your changes"),
        ("uid", FOREIGN_UID, 422, f'metadata.uid: Invalid value: "{FOREIGN_UID}": field is imm'),
    ],
)
def test_guards_of_a_patch(
    sim: Simulator, deleting: bool, field: str, value: str, status: int, words: str
) -> None:
    vm = sim.create(thing(finalizers=["x.io/1"]))
    if deleting:
        sim.delete(vm)
    before = sim.get(vm)
    got, answer = patch(sim, vm, {"metadata": {"finalizers": [], field: value}})
    assert got == status
    assert words in answer["message"]
    assert sim.get(vm) == before


# Finalizers and deletion


def test_a_finalizer_holds_a_deleted_object_until_the_last_one_is_gone(sim: Simulator) -> None:
    vm = sim.create(thing(finalizers=["x.io/1"]))
    status, answer = sim.request("DELETE", path_of(vm))
    metadata = answer["metadata"]
    assert (status, metadata["deletionGracePeriodSeconds"], metadata["generation"]) == (200, 0, 2)
    again = sim.request("DELETE", path_of(vm))[1]
    assert again["metadata"]["resourceVersion"] == metadata["resourceVersion"]
    status, answer = patch(sim, vm, {"metadata": {"finalizers": []}})
    assert status == 200
    assert "finalizers" not in answer["metadata"]
    assert answer["metadata"]["deletionTimestamp"] == metadata["deletionTimestamp"]
    assert sim.get(vm) is None
    assert patch(sim, vm, {})[0] == 404


def test_an_object_that_nothing_holds_goes_at_once(sim: Simulator) -> None:
    vm = sim.create(thing())
    status, answer = sim.request("DELETE", path_of(vm))
    assert (status, answer["status"], answer["details"]["uid"]) == (
        200,
        "Success",
        vm["metadata"]["uid"],
    )
    assert sim.get(vm) is None


def test_the_finalizers_of_a_living_object_are_not_protected(sim: Simulator) -> None:
    vm = sim.create(thing(finalizers=["x.io/1"]))
    assert patch(sim, vm, {"metadata": {"finalizers": None}})[0] == 200
    assert patch(sim, vm, {"metadata": {"finalizers": ["x.io/2"]}})[0] == 200


def test_a_deleting_object_gets_no_new_finalizers(sim: Simulator) -> None:
    vm = sim.create(thing(finalizers=["x.io/1"]))
    sim.delete(vm)
    status, answer = patch(sim, vm, {"metadata": {"finalizers": ["x.io/1", "x.io/3", "x.io/2"]}})
    assert (status, answer["message"]) == (
        422,
        'VirtualMachine.kubevirt.io "till" is invalid: metadata.finalizers: Forbidden: no new '
        "finalizers can be added if the object is being deleted, found new finalizers "
        '[]string{"x.io/2", "x.io/3"}',
    )


def test_a_deletion_is_neither_begun_nor_undone_by_a_patch(sim: Simulator) -> None:
    vm = sim.create(thing(finalizers=["x.io/1"]))
    moment = "2020-01-01T00:00:00Z"
    status, answer = patch(sim, vm, {"metadata": {"deletionTimestamp": moment}})
    assert status == 422
    assert f'metadata.deletionTimestamp: Invalid value: "{moment}"' in answer["message"]
    sim.delete(vm)
    before = sim.get(vm)
    for value in (moment, None):
        assert patch(sim, vm, {"metadata": {"deletionTimestamp": value}})[1] == before


@pytest.mark.parametrize(
    ("policies", "finalizers"),
    [
        (["Foreground"], ["x.io/1", "foregroundDeletion"]),
        (["Orphan"], ["x.io/1", "orphan"]),
        (["Background"], ["x.io/1"]),
        (["Foreground", "Orphan"], ["x.io/1", "orphan"]),
        (["Foreground", None], ["x.io/1", "foregroundDeletion"]),
        (["Foreground", "Background"], ["x.io/1"]),
    ],
)
def test_propagation(sim: Simulator, policies: list[str | None], finalizers: list[str]) -> None:
    vm = sim.create(thing(finalizers=["x.io/1"]))
    for policy in policies:
        sim.request("DELETE", path_of(vm), {"propagationPolicy": policy} if policy else None)
    found = sim.get(vm)
    assert found is not None
    assert found["metadata"]["finalizers"] == finalizers


def test_foreground_holds_an_object_by_itself(sim: Simulator) -> None:
    vm = sim.create(thing())
    sim.request("DELETE", path_of(vm) + "?propagationPolicy=Foreground")
    found = sim.get(vm)
    assert found is not None
    assert found["metadata"]["finalizers"] == ["foregroundDeletion"]


@pytest.mark.parametrize(
    "options",
    [
        {"propagationPolicy": "Fast"},
        {"propagationPolicy": "Orphan", "orphanDependents": True},
        {"dryRun": ["Some"]},
    ],
)
def test_wrong_options_of_a_deletion(sim: Simulator, options: dict[str, Any]) -> None:
    vm = sim.create(thing())
    assert sim.request("DELETE", path_of(vm), options)[0] == 422
    assert sim.get(vm) == vm


@pytest.mark.parametrize(
    ("preconditions", "words"),
    [
        ({"uid": "x"}, 'VirtualMachine.kubevirt.io "till": the UID in the precondition (x) does'),
        ({"resourceVersion": "1"}, "the ResourceVersion in the precondition (1) does not match"),
    ],
)
def test_preconditions(sim: Simulator, preconditions: dict[str, str], words: str) -> None:
    vm = sim.create(thing())
    status, answer = sim.request("DELETE", path_of(vm), {"preconditions": preconditions})
    assert (status, answer["reason"]) == (409, "Conflict")
    assert words in answer["message"]
    metadata = vm["metadata"]
    sim.delete(vm, preconditions={key: metadata[key] for key in ("uid", "resourceVersion")})
    assert sim.get(vm) is None


# Pods


def remaining(obj: dict[str, Any] | None) -> float:
    assert obj is not None
    text = obj["metadata"]["deletionTimestamp"].replace("Z", "+00:00")
    return (datetime.fromisoformat(text) - datetime.now(timezone.utc)).total_seconds()


@pytest.mark.parametrize(
    ("spec", "options", "seconds"),
    [
        ({}, {}, 30),
        ({"terminationGracePeriodSeconds": 120}, {}, 120),
        ({"terminationGracePeriodSeconds": 120}, {"gracePeriodSeconds": 5}, 5),
        ({}, {"gracePeriodSeconds": -1}, 1),
    ],
)
def test_a_scheduled_pod_gets_its_grace(
    sim: Simulator, spec: dict[str, int], options: dict[str, int], seconds: int
) -> None:
    launcher = pod()
    launcher["spec"] |= spec
    sim.create(launcher)
    assert sim.request("DELETE", path_of(launcher), options or None)[0] == 200
    found = sim.get(launcher)
    assert found is not None
    assert found["metadata"]["deletionGracePeriodSeconds"] == seconds
    assert seconds - 3 < remaining(found) <= seconds


def test_the_grace_of_a_deleted_pod_only_becomes_shorter(sim: Simulator) -> None:
    launcher = sim.create(pod())
    sim.delete(launcher)
    sim.delete(launcher, gracePeriodSeconds=60)
    assert remaining(sim.get(launcher)) <= 30
    sim.delete(launcher, gracePeriodSeconds=10)
    assert remaining(sim.get(launcher)) <= 10
    sim.delete(launcher, gracePeriodSeconds=0)
    assert sim.get(launcher) is None


@pytest.mark.parametrize(
    ("launcher", "query"),
    [
        (pod(), "?gracePeriodSeconds=0"),
        (pod(node=None), ""),
        (pod() | {"status": {"phase": "Failed"}}, ""),
    ],
)
def test_a_pod_that_goes_at_once(sim: Simulator, launcher: dict[str, Any], query: str) -> None:
    sim.create(launcher)
    assert sim.request("DELETE", path_of(launcher) + query)[1]["kind"] == "Pod"
    assert sim.get(launcher) is None


def test_a_finalizer_holds_a_pod_even_without_grace(sim: Simulator) -> None:
    launcher = sim.create(pod(finalizers=["x.io/1"]))
    sim.delete(launcher, gracePeriodSeconds=0)
    assert sim.get(launcher) is not None
    patch(sim, launcher, {"metadata": {"finalizers": []}})
    assert sim.get(launcher) is None


def test_the_grace_holds_a_pod_even_without_finalizers(sim: Simulator) -> None:
    launcher = sim.create(pod(finalizers=["x.io/1"]))
    sim.delete(launcher)
    patch(sim, launcher, {"metadata": {"finalizers": []}})
    assert sim.get(launcher) is not None


# Dry runs


@pytest.mark.parametrize(
    ("method", "query", "body"),
    [
        ("PATCH", "?dryRun=All", {"metadata": {"finalizers": []}}),
        ("PUT", "?dryRun=All", None),
        ("DELETE", "?dryRun=All", None),
        ("DELETE", "", {"dryRun": ["All"], "propagationPolicy": "Foreground"}),
    ],
)
def test_a_dry_run_changes_nothing(sim: Simulator, method: str, query: str, body: Any) -> None:
    vm = sim.create(thing(finalizers=["x.io/1"]))
    if method == "PUT":
        body = vm | {"spec": {"x": 1}}
    content_type = MERGE if method == "PATCH" else "application/json"
    path = path_of(vm) + query
    status, answer = sim.request(method, path, body, content_type=content_type)
    assert status == 200
    assert answer != vm
    assert sim.get(vm) == vm


def test_a_dry_run_of_what_would_be_made_or_go(sim: Simulator) -> None:
    assert sim.request("POST", VMS + "?dryRun=All", thing())[0] == 201
    assert sim.get(thing()) is None
    vm = sim.create(thing(finalizers=["x.io/1"]))
    sim.delete(vm)
    before = sim.get(vm)
    assert patch(sim, vm, {"metadata": {"finalizers": []}}, "?dryRun=All")[0] == 200
    assert patch(sim, vm, {}, "?dryRun=Some")[0] == 422
    assert sim.get(vm) == before


def test_a_body_hides_the_query_of_a_deletion(sim: Simulator) -> None:
    vm = sim.create(thing())
    sim.request("DELETE", path_of(vm) + "?dryRun=All", {"gracePeriodSeconds": 0})
    assert sim.get(vm) is None


# Lists


@pytest.fixture
def five(sim: Simulator) -> Simulator:
    """VMs a to e in `shop`, the odd ones labelled, and one each in two other namespaces."""
    for number, name in enumerate("edcba"):
        sim.seed(thing(name=name, labels={"name": name, **({} if number % 2 else {"odd": "1"})}))
    sim.seed(thing(name="first", namespace="shop-2"))
    sim.seed(thing(name="last", namespace="shopping"))
    return sim


def test_a_list_is_in_order_and_of_its_kind(five: Simulator) -> None:
    page = five.request("GET", VMS)[1]
    assert (page["kind"], names(page)) == ("VirtualMachineList", list("abcde"))
    assert {item["kind"] for item in page["items"]} == {"VirtualMachine"}
    everywhere = five.request("GET", ALL_VMS)[1]
    # "shop-2/" sorts before "shop/".
    assert names(everywhere) == ["first", *"abcde", "last"]
    five.seed(pod())
    listed = five.request("GET", "/api/v1/pods")[1]["items"][0]
    assert not {"kind", "apiVersion"} & set(listed)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("labelSelector=odd", "ace"),
        ("labelSelector=!odd", "bd"),
        ("labelSelector=odd=1,name!=a", "ce"),
        ("labelSelector=name==b", "b"),
        ("labelSelector=name in (a, b)", "ab"),
        ("labelSelector=name notin (a,b),odd", "ce"),
        ("labelSelector=nothing!=x", "abcde"),
        ("fieldSelector=metadata.name=c", "c"),
        ("fieldSelector=metadata.name!=c,metadata.namespace=shop", "abde"),
        ("fieldSelector=metadata.namespace=other", ""),
    ],
)
def test_selectors(five: Simulator, query: str, expected: str) -> None:
    assert "".join(names(five.request("GET", f"{VMS}?{query}")[1])) == expected


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("labelSelector=a b", "unable to parse requirement"),
        ("labelSelector=a in b", "unable to parse requirement"),
        ("fieldSelector=spec.x=1", "field label not supported: spec.x"),
        ("fieldSelector=x", "invalid selector"),
        ("limit=x", "invalid syntax"),
        ("continue=broken", "continue key is not valid"),
        ("continue=e30", "does not recognize this encoded version"),
        ("limit=1&continue=e30&resourceVersion=5", "not allowed when using continue"),
    ],
)
def test_a_list_is_refused(five: Simulator, query: str, words: str) -> None:
    status, answer = five.request("GET", f"{VMS}?{query}")
    assert (status, answer["reason"]) == (400, "BadRequest")
    assert words in answer["message"]


def test_fields_of_pods(sim: Simulator) -> None:
    sim.seed(pod("a"))
    sim.seed(pod("b", node="node-2") | {"status": {"phase": "Failed"}})
    pods = "/api/v1/pods?fieldSelector="
    assert names(sim.request("GET", pods + "spec.nodeName=node-1")[1]) == ["a"]
    assert names(sim.request("GET", pods + "status.phase!=Running")[1]) == ["b"]
    assert names(sim.request("GET", pods + "spec.nodeName=")[1]) == []


def test_the_pages_of_a_list_are_of_one_version(five: Simulator) -> None:
    first = five.request("GET", VMS + "?limit=2")[1]
    assert (names(first), first["metadata"]["remainingItemCount"]) == (["a", "b"], 3)
    five.delete(thing(name="c"))
    five.seed(thing(name="ba"))
    token = first["metadata"]["continue"]
    second = five.request("GET", f"{VMS}?limit=2&continue={token}")[1]
    assert (names(second), second["metadata"]["remainingItemCount"]) == (["c", "d"], 1)
    last = five.request("GET", f"{VMS}?limit=2&continue={second['metadata']['continue']}")[1]
    assert names(last) == ["e"]
    assert set(last["metadata"]) == {"resourceVersion"}
    versions = {page["metadata"]["resourceVersion"] for page in (first, second, last)}
    assert len(versions) == 1
    assert names(five.request("GET", VMS)[1]) == ["a", "b", "ba", "d", "e"]


def test_pages_with_a_selector_do_not_say_how_many_remain(five: Simulator) -> None:
    first = five.request("GET", VMS + "?limit=2&labelSelector=odd")[1]
    assert names(first) == ["a", "c"]
    assert "remainingItemCount" not in first["metadata"]
    token = first["metadata"]["continue"]
    rest = five.request("GET", f"{VMS}?limit=2&labelSelector=odd&continue={token}")[1]
    assert names(rest) == ["e"]


def test_a_limit_does_not_hold_for_version_0(five: Simulator) -> None:
    page = five.request("GET", VMS + "?limit=2&resourceVersion=0")[1]
    assert len(names(page)) == 5
    assert "continue" not in page["metadata"]


def test_an_expired_token_comes_with_another_one(five: Simulator) -> None:
    token = five.request("GET", VMS + "?limit=2")[1]["metadata"]["continue"]
    five.compact()
    five.delete(thing(name="c"))
    status, answer = five.request("GET", f"{VMS}?limit=2&continue={token}")
    assert (status, answer["reason"]) == (410, "Expired")
    assert "The provided continue parameter is too old" in answer["message"]
    token = answer["metadata"]["continue"]
    assert names(five.request("GET", f"{VMS}?continue={token}")[1]) == ["d", "e"]


@pytest.mark.parametrize(
    ("path", "accept", "expected"),
    [
        (VMS, PARTIAL_LIST, "PartialObjectMetadataList"),
        (VMS, f"{PARTIAL_LIST},application/json", "PartialObjectMetadataList"),
        (
            VMS,
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
            "Table",
        ),
        (VMS + "/a", "application/json;as=Table;v=v1;g=meta.k8s.io", "Status"),
        (VMS, "*/*", "VirtualMachineList"),
        (VMS + "/a", PARTIAL, "PartialObjectMetadata"),
        (VMS + "/a", "", "VirtualMachine"),
        (VMS, PARTIAL, "Status"),
        (VMS, "text/html", "Status"),
    ],
)
def test_representations(five: Simulator, path: str, accept: str, expected: str) -> None:
    status, answer = five.request("GET", path, headers={"Accept": accept})
    assert (status, answer["kind"]) == (406 if expected == "Status" else 200, expected)
    if expected.startswith("Partial"):
        for item in answer.get("items", [answer]):
            assert item["kind"] == "PartialObjectMetadata"
            assert set(item) == {"kind", "apiVersion", "metadata"}


def test_a_table_of_nodes_says_which_are_ready(sim: Simulator) -> None:
    sim.clock.stop()
    for name, ready in (("a", "True"), ("b", "False"), ("c", "Unknown")):
        sim.seed(builders.node(name, ready))
    sim.clock.advance(300)
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    table = sim.request("GET", "/api/v1/nodes", headers={"Accept": accept})[1]
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Status", "Age"]
    assert [row["cells"] for row in table["rows"]] == [
        ["a", "Ready", "5m"],
        ["b", "NotReady", "5m"],
        ["c", "NotReady", "5m"],
    ]


def test_a_patch_answers_in_the_asked_representation(five: Simulator) -> None:
    answer = patch(five, thing(name="a"), {}, headers={"Accept": PARTIAL})[1]
    assert answer["kind"] == "PartialObjectMetadata"


def test_a_request_that_breaks_off_is_none(five: Simulator) -> None:
    vm = five.create(thing(name="half"))
    five.forget()
    address = urlsplit(five.url)
    context = ssl.create_default_context(cadata=five.ca_data.decode())
    raw = socket.create_connection((str(address.hostname), int(address.port or 0)))
    with context.wrap_socket(raw, server_hostname=str(address.hostname)) as connection:
        connection.sendall(
            f"PATCH {VMS}/half HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode()
        )
        connection.shutdown(socket.SHUT_RDWR)
    time.sleep(0.3)
    assert five.recorded() == []
    assert five.get(vm) == vm


# Watches


def test_a_watch_tells_what_happens_from_a_version_on(
    five: Simulator, http: urllib3.PoolManager
) -> None:
    version = five.request("GET", VMS)[1]["metadata"]["resourceVersion"]
    vm = five.create(thing(name="x", labels={"odd": "1"}))
    five.create(thing(name="y"))
    five.create(thing("VirtualMachineInstance", "x", labels={"odd": "1"}))
    patch(five, vm, {"metadata": {"labels": {"odd": None}}})
    five.delete(vm)
    query = f"?watch=1&resourceVersion={version}&timeoutSeconds=0.3&labelSelector=odd"
    answer = http.request("GET", five.url + VMS + query)
    events = [json.loads(line) for line in answer.data.splitlines()]
    assert [event["type"] for event in events] == ["ADDED", "DELETED"]
    assert five.recorded()[-1].path.startswith(VMS + "?watch=1")


def test_a_watch_of_the_past_tells_what_went_in_between(
    five: Simulator, http: urllib3.PoolManager
) -> None:
    version = http.request("GET", five.url + VMS + "?limit=1").json()["metadata"]["resourceVersion"]
    name = http.request("GET", five.url + VMS).json()["items"][0]["metadata"]["name"]
    http.request("DELETE", f"{five.url}{VMS}/{name}")
    query = f"?watch=1&resourceVersion={version}&timeoutSeconds=0.3&allowWatchBookmarks=true"
    lines = http.request("GET", five.url + VMS + query).data.splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["type"] for event in events] == ["DELETED", "BOOKMARK"]
    assert events[0]["object"]["metadata"]["name"] == name
    assert int(events[1]["object"]["metadata"]["resourceVersion"]) > int(version)


def test_a_watch_of_a_forgotten_version_expires(five: Simulator, http: urllib3.PoolManager) -> None:
    five.compact()
    answer = http.request("GET", five.url + VMS + "?watch=1&resourceVersion=1&timeoutSeconds=1")
    event = json.loads(answer.data)
    assert (event["type"], event["object"]["reason"]) == ("ERROR", "Expired")


# Who may do what


def test_nobody_is_anonymous(sim: Simulator) -> None:
    for headers in ({"Authorization": ""}, {"Authorization": "Bearer wrong"}):
        status, answer = sim.request("GET", "/version", headers=headers)
        assert (status, answer["message"], answer["reason"]) == (
            401,
            "Unauthorized",
            "Unauthorized",
        )


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            ALL_VMS,
            'virtualmachines.kubevirt.io is forbidden: User "alice" cannot list resource '
            '"virtualmachines" in API group "kubevirt.io" at the cluster scope',
        ),
        (
            VMS + "/till",
            'virtualmachines.kubevirt.io "till" is forbidden: User "alice" cannot get resource '
            '"virtualmachines" in API group "kubevirt.io" in the namespace "shop"',
        ),
        (
            VMS + "/till/status",
            'virtualmachines.kubevirt.io "till" is forbidden: User "alice" cannot get resource '
            '"virtualmachines/status" in API group "kubevirt.io" in the namespace "shop"',
        ),
        (
            "/api/v1/nodes/x",
            'nodes "x" is forbidden: User "alice" cannot get resource "nodes" in API group "" at '
            "the cluster scope",
        ),
        (
            "/apis/kubevirt.io/v1/nothing",
            'nothing.kubevirt.io is forbidden: User "alice" cannot list resource "nothing" in API '
            'group "kubevirt.io" at the cluster scope',
        ),
        ("/nothing", 'forbidden: User "alice" cannot get path "/nothing"'),
    ],
)
def test_what_is_forbidden(sim: Simulator, path: str, message: str) -> None:
    status, answer = sim.request("GET", path, user="alice")
    assert (status, answer["reason"], answer["message"]) == (403, "Forbidden", message)


@pytest.mark.parametrize(
    ("granted", "method", "path", "allowed"),
    [
        (rule("list", "virtualmachines"), "GET", ALL_VMS, True),
        (rule("list", "virtualmachines"), "GET", VMS, True),
        (rule("get", "virtualmachines"), "GET", VMS, False),
        (rule("list", "virtualmachines", "other.io"), "GET", VMS, False),
        (rule("*", "*", "*"), "GET", VMS + "/till/status", True),
        (rule("get", "virtualmachines"), "GET", VMS + "/till/status", False),
        (rule("get", "virtualmachines/status"), "GET", VMS + "/till/status", True),
        (rule("get", "*/status"), "GET", VMS + "/till/status", True),
        (rule("get", "virtualmachines", resourceNames=["till"]), "GET", VMS + "/till", True),
        (rule("get", "virtualmachines", resourceNames=["other"]), "GET", VMS + "/till", False),
        (rule("list", "virtualmachines", resourceNames=["till"]), "GET", VMS, False),
        (
            rule("list", "virtualmachines", resourceNames=["till"]),
            "GET",
            VMS + "?fieldSelector=metadata.name=till",
            True,
        ),
        (rule("patch", "virtualmachines"), "PATCH", VMS + "/till", True),
        (rule("update", "virtualmachines"), "PATCH", VMS + "/till", False),
        (rule("delete", "virtualmachines"), "DELETE", VMS + "/till", True),
    ],
)
def test_rules(
    sim: Simulator, granted: dict[str, Any], method: str, path: str, allowed: bool
) -> None:
    sim.create(thing())
    grant(sim, "alice", granted)
    status, _ = sim.request(
        method, path, None if method != "PATCH" else {}, user="alice", content_type=MERGE
    )
    assert status == (200 if allowed else 403)
    assert sim.request("GET", VMS, user="bob")[0] == 403


def test_a_role_holds_in_its_namespace(sim: Simulator) -> None:
    grant(sim, "alice", rule("list", "virtualmachines"), namespace="shop")
    assert sim.request("GET", VMS, user="alice")[0] == 200
    assert sim.request("GET", ALL_VMS, user="alice")[0] == 403
    assert sim.request("GET", VMS.replace("shop", "other"), user="alice")[0] == 403


def test_impersonation_is_checked_by_user_and_group(sim: Simulator) -> None:
    grant(sim, "alice", rule("impersonate", "users groups", "", resourceNames=["bob", "ops"]))
    as_bob = {"Impersonate-User": "bob"}
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"

    def review(user: str, headers: dict[str, str]) -> Answer:
        return sim.request("POST", path, {}, user=user, headers=headers)

    info = review("alice", as_bob | {"Impersonate-Group": "ops"})[1]["status"]["userInfo"]
    assert info == {"username": "bob", "groups": ["ops", "system:authenticated"]}
    status, answer = review("alice", as_bob | {"Impersonate-Group": "system:masters"})
    assert (status, answer["message"]) == (
        403,
        'groups "system:masters" is forbidden: User "alice" cannot impersonate resource "groups" '
        'in API group "" at the cluster scope',
    )
    assert review("bob", {"Impersonate-User": "alice"})[0] == 403
    assert review("alice", {"Impersonate-Group": "ops"})[0] == 400
    uid = {"Impersonate-Uid": "7", "Impersonate-Extra-Why": "x"}
    for key, value in uid.items():
        assert review("alice", as_bob | {key: value})[0] == 403
    info = review("admin", as_bob | uid)[1]["status"]["userInfo"]
    assert (info["uid"], info["extra"]) == ("7", {"why": ["x"]})
    account = {"Impersonate-User": "system:serviceaccount:shop:virt"}
    info = review("admin", account)[1]["status"]["userInfo"]
    assert "system:serviceaccounts:shop" in info["groups"]
    assert review("alice", account)[0] == 403


@pytest.mark.parametrize(
    ("attributes", "allowed"),
    [
        ({"verb": "patch", "name": "till", "namespace": "shop"}, True),
        ({"verb": "patch", "namespace": "shop"}, False),
        ({"verb": "patch", "name": "till"}, False),
        ({"verb": "delete", "name": "till", "namespace": "shop"}, False),
    ],
)
def test_a_self_review_of_access_tells_the_truth(
    sim: Simulator, attributes: dict[str, str], allowed: bool
) -> None:
    granted = rule("patch", "virtualmachines", resourceNames=["till"])
    grant(sim, "carol", granted, namespace="shop")
    asked = {"group": "kubevirt.io", "resource": "virtualmachines", **attributes}
    status, answer = sim.request(
        "POST",
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        {"spec": {"resourceAttributes": asked}},
        user="carol",
    )
    assert (status, answer["status"]["allowed"]) == (201, allowed)
    if allowed:
        assert 'RoleBinding "some/shop" of Role "some"' in answer["status"]["reason"]


def test_a_self_review_needs_something_to_review(sim: Simulator) -> None:
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    assert sim.request("POST", path, {"spec": {}})[0] == 422


# Webhooks


@pytest.mark.parametrize("query", ["", "?dryRun=All"])
def test_a_webhook_denies_updates(sim: Simulator, query: str) -> None:
    vm = sim.create(thing(finalizers=["x.io/1"]))
    handle = sim.deny_updates("virtualmachines", "PVC in use", namespace="shop")
    status, answer = patch(sim, vm, {"metadata": {"finalizers": []}}, query)
    assert (status, answer["reason"], answer["message"]) == (
        422,
        "Invalid",
        'admission webhook "validator.harvesterhci.io" denied the request: PVC in use',
    )
    assert patch(sim, vm, {}, "/status")[0] == 422
    assert patch(sim, vm, {"metadata": {"uid": "x"}})[1]["message"].endswith("field is immutable")
    assert patch(sim, vm, {"metadata": {"resourceVersion": "1"}})[0] == 409
    sim.delete(vm)
    handle.remove()
    assert patch(sim, vm, {"metadata": {"finalizers": []}}, query)[0] == 200


def test_a_webhook_is_asked_for_its_resource_and_namespace_only(sim: Simulator) -> None:
    sim.deny_updates("virtualmachines", "no", namespace="shop")
    vmi = sim.create(thing("VirtualMachineInstance"))
    other = sim.seed(thing(namespace="other"))
    assert patch(sim, vmi, {})[0] == patch(sim, other, {})[0] == 200
    assert sim.create(thing())["kind"] == "VirtualMachine"


def test_a_webhook_chooses_its_code_and_the_server_one_for_it(sim: Simulator) -> None:
    vm = sim.create(thing())
    sim.deny_updates("virtualmachines", "", webhook="a.io", code=400, reason="").remove()
    sim.deny_updates("virtualmachines", "", webhook="a.io", code=400, reason="")
    status, answer = patch(sim, vm, {})
    assert status == 400
    assert answer["message"] == 'admission webhook "a.io" denied the request without explanation'
    assert "reason" not in answer


def test_a_webhook_out_of_reach(sim: Simulator) -> None:
    vm = sim.create(thing())
    handle = sim.break_webhook("virtualmachines", "shop", operations=("CREATE", "UPDATE"))
    words = 'failed calling webhook "validator.harvesterhci.io": failed to call webhook: Post "htt'
    for status, answer in (patch(sim, vm, {}), sim.request("POST", VMS, thing(name="b"))):
        assert (status, answer["reason"]) == (500, "InternalError")
        assert f"Internal error occurred: {words}" in answer["message"]
        assert answer["message"].endswith(
            ": " + 'no endpoints available for service "harvester-webhook"'
        )
    handle.remove()
    assert patch(sim, vm, {})[0] == 200


# HTTP and what goes wrong with it


def test_answers_over_https(sim: Simulator, http: urllib3.PoolManager) -> None:
    sim.clock.advance(3600)
    for _ in range(3):
        answer = http.request("GET", sim.url + ALL_VMS)
        assert answer.headers["Content-Type"] == "application/json"
        date = parsedate_to_datetime(answer.headers["Date"])
        assert 3500 < (date - datetime.now(timezone.utc)).total_seconds() <= 3600
    pool = http.connection_from_url(sim.url)
    assert (pool.num_connections, pool.num_requests) == (1, 3)


def test_a_stranger_to_the_authority_is_not_answered(sim: Simulator) -> None:
    with urllib3.PoolManager(retries=False) as pool, pytest.raises(HTTPError):
        pool.request("GET", sim.url + "/version")
    assert sim.recorded() == []


def test_requests_are_recorded_with_who_asked(sim: Simulator, http: urllib3.PoolManager) -> None:
    vm = sim.create(thing())
    path = path_of(vm) + "?dryRun=All"
    headers = dict(http.headers) | {"Content-Type": MERGE, "Impersonate-User": "bob"}
    http.request("PATCH", sim.url + path, body=b'{"a": 1}', headers=headers)
    sim.request("GET", "/version", headers={"Authorization": "Bearer wrong"})
    first, second = sim.recorded()
    assert (first.method, first.path, first.body, first.status) == ("PATCH", path, {"a": 1}, 403)
    assert (first.user, first.groups) == ("admin", ("system:masters", "system:authenticated"))
    assert (first.impersonated_user, first.impersonated_groups) == (
        "bob",
        ("system:authenticated",),
    )
    assert first.user_agent == "test/1"
    assert (second.user, second.groups, second.body, second.status) == ("", (), None, 401)
    sim.forget()
    assert sim.recorded() == []


def test_a_stop_refuses_connections_and_a_start_knows_all(
    sim: Simulator, http: urllib3.PoolManager
) -> None:
    vm, url = sim.create(thing()), sim.url
    assert http.request("GET", url + "/readyz").data == b"ok"
    sim.stop_apiserver()
    with pytest.raises(HTTPError):
        http.request("GET", url + "/readyz")
    assert sim.get(vm) == vm
    sim.start_apiserver()
    assert sim.url == url
    assert http.request("GET", url + path_of(vm)).json() == vm


@pytest.mark.parametrize(
    ("fault", "status", "changed"),
    [
        (faults.status(503, "ServiceUnavailable", "later", {"Retry-After": "1"}), 503, False),
        (faults.status(429, "TooManyRequests", "slow down"), 429, False),
        (faults.body(b"<html>", "text/html", 502), 502, False),
        (faults.close(), None, False),
        (faults.lose_answer(), None, True),
        (faults.cut(), None, True),
        (faults.delay(0.1), 200, True),
        (faults.stall(0.1), 200, True),
    ],
    ids=["503", "429", "body", "close", "lose-answer", "cut", "delay", "stall"],
)
def test_faults(
    sim: Simulator,
    http: urllib3.PoolManager,
    fault: Fault,
    status: int | None,
    changed: bool,
) -> None:
    vm = sim.create(thing())
    url = sim.url + path_of(vm)
    body, headers = b'{"spec": {"x": 1}}', dict(http.headers) | {"Content-Type": MERGE}
    sim.inject(fault, method="PATCH", path=r"/virtualmachines/till$")
    assert http.request("GET", url).status == 200
    sim.forget()
    started = time.monotonic()
    if status is None:
        with pytest.raises(HTTPError):
            http.request("PATCH", url, body=body, headers=headers)
    else:
        assert http.request("PATCH", url, body=body, headers=headers).status == status
    if status == 200:
        assert time.monotonic() - started >= 0.1
    assert (sim.get(vm) != vm) is changed
    assert [one.status for one in sim.recorded()] == [status or (200 if changed else None)]
    assert http.request("PATCH", url, body=body, headers=headers).status == 200


def test_a_fault_hits_as_often_as_it_was_told(sim: Simulator, http: urllib3.PoolManager) -> None:
    def statuses(count: int) -> list[int]:
        return [http.request("GET", sim.url + "/readyz").status for _ in range(count)]

    sim.inject(faults.status(503), path="readyz", after=1, times=2)
    http.request("GET", sim.url + "/version")
    assert statuses(5) == [200, 503, 503, 200, 200]
    handle = sim.inject(faults.status(429), times=None)
    assert statuses(3) == [429, 429, 429]
    handle.remove()
    assert statuses(1) == [200]


@pytest.mark.parametrize(
    ("fault", "status"), [(faults.run, 409), (faults.run_after, 200)], ids=["before", "after"]
)
def test_somebody_else_acts_meanwhile(
    sim: Simulator, http: urllib3.PoolManager, fault: Any, status: int
) -> None:
    vm = sim.create(thing())
    sim.inject(fault(lambda: patch(sim, vm, {"spec": {"by": "other"}})), method="PATCH")
    body = {"spec": {"mine": 1}, "metadata": {"resourceVersion": vm["metadata"]["resourceVersion"]}}
    headers = dict(http.headers) | {"Content-Type": MERGE}
    answer = http.request("PATCH", sim.url + path_of(vm), body=json.dumps(body), headers=headers)
    assert answer.status == status
    found = sim.get(vm)
    assert found is not None
    assert found["spec"]["by"] == "other"


# What only the simulator can


def test_a_seed_is_stored_as_it_is(sim: Simulator) -> None:
    seeded = thing(
        namespace="new",
        uid="u-1",
        deletionTimestamp="2020-01-01T00:00:00Z",
        creationTimestamp="2019-01-01T00:00:00Z",
        finalizers=["x.io/1"],
        status={"phase": "Running"},
    )
    stored = sim.seed(seeded)
    assert stored["metadata"] == seeded["metadata"] | {
        "generation": 1,
        "resourceVersion": stored["metadata"]["resourceVersion"],
    }
    assert stored["status"] == {"phase": "Running"}
    seeded["metadata"]["finalizers"].clear()
    assert sim.get(stored) == stored
    assert sim.seed(thing())["metadata"]["uid"]


def test_the_clock_decides_on_timestamps(sim: Simulator) -> None:
    sim.clock.advance(-3600)
    vm = sim.create(thing(finalizers=["x.io/1"]))
    sim.delete(vm)
    assert -3605 < remaining(sim.get(vm)) < -3595


def test_wipe_leaves_nothing_of_what_was_made(sim: Simulator) -> None:
    held = sim.create(thing(finalizers=["x.io/1"]))
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}}
    sim.create(node)
    other = sim.seed(thing(namespace="kept"))
    sim.request("POST", VMS, thing(name="asked-for"))
    sim.deny_updates("virtualmachines", "no", namespace="shop")
    sim.wipe("shop")
    assert (sim.get(held), sim.get(node), sim.get(other)) == (None, None, None)
    assert sim.request("GET", ALL_VMS)[1]["items"] == []
    assert sim.get({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}) is None
    vm = sim.seed(thing())
    assert patch(sim, vm, {})[0] == 200


def test_a_kubeconfig_carries_authority_and_token(sim: Simulator) -> None:
    config = sim.kubeconfig("alice", namespace="shop", context="home", **{"as": "bob"})
    assert config["current-context"] == "home"
    assert config["contexts"][0]["context"]["namespace"] == "shop"
    assert config["users"][0]["user"] == {"token": "alice-token", "as": "bob"}
    assert config["clusters"][0]["cluster"]["server"] == sim.url
    assert "token" not in sim.kubeconfig("alice", token=None)["users"][0]["user"]


# Controllers


@pytest.fixture
def running(sim: Simulator) -> Simulator:
    """A running VM with its VMI and its pod, as on a node that went silent."""

    def owner(obj: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {
                "kind": obj["kind"],
                "name": obj["metadata"]["name"],
                "uid": obj["metadata"]["uid"],
                "blockOwnerDeletion": True,
            }
        ]

    vm = sim.create(thing(finalizers=[VM_FINALIZER], status={"printableStatus": "Running"}))
    vmi = sim.create(
        thing(
            "VirtualMachineInstance",
            finalizers=VMI_FINALIZERS,
            ownerReferences=owner(vm),
            status={"phase": "Running"},
        )
    )
    sim.create(pod(ownerReferences=owner(vmi)))
    return sim


def finalizers(sim: Simulator, kind: str) -> list[str] | None:
    """None when the object is gone."""
    found = sim.get(thing(kind))
    return None if found is None else found["metadata"].get("finalizers", [])


def state(sim: Simulator, kind: str) -> str:
    found = sim.get(thing(kind))
    assert found is not None
    return str(found["status"].get("phase") or found["status"]["printableStatus"])


def test_nothing_reacts_unless_it_was_started(running: Simulator) -> None:
    running.delete(thing(), propagationPolicy="Foreground")
    running.delete(pod(), gracePeriodSeconds=0)
    assert finalizers(running, "VirtualMachineInstance") == VMI_FINALIZERS
    assert finalizers(running, "VirtualMachine") == [VM_FINALIZER, "foregroundDeletion"]


def test_the_virt_controller_releases_when_no_pod_is_left(running: Simulator) -> None:
    running.controllers.start(VIRT_CONTROLLER)
    running.delete(thing(), propagationPolicy="Foreground")
    vmi = running.get(thing("VirtualMachineInstance"))
    launcher = running.get(pod())
    assert vmi is not None
    assert launcher is not None
    assert vmi["status"] == {"phase": "Running"}
    assert "deletionTimestamp" in vmi["metadata"]
    assert launcher["metadata"]["deletionGracePeriodSeconds"] == 30
    assert running.request("DELETE", path_of(launcher) + "?gracePeriodSeconds=0")[0] == 200
    assert finalizers(running, "VirtualMachineInstance") is None
    assert finalizers(running, "VirtualMachine") == ["foregroundDeletion"]


def test_the_garbage_collector_ends_a_foreground_deletion(running: Simulator) -> None:
    running.controllers.start(VIRT_CONTROLLER, GARBAGE_COLLECTOR)
    running.delete(thing(), propagationPolicy="Foreground")
    assert finalizers(running, "VirtualMachineInstance") == VMI_FINALIZERS
    assert finalizers(running, "VirtualMachine") == [VM_FINALIZER, "foregroundDeletion"]
    running.delete(pod(), gracePeriodSeconds=0)
    assert finalizers(running, "VirtualMachineInstance") is None
    assert finalizers(running, "VirtualMachine") is None


def test_a_veto_on_the_vm_holds_its_vmi_until_it_ends(running: Simulator) -> None:
    running.controllers.start(VIRT_CONTROLLER, GARBAGE_COLLECTOR)
    veto = running.deny_updates("virtualmachines", "PVC in use", namespace="shop")
    running.delete(thing(), propagationPolicy="Foreground")
    running.delete(pod(), gracePeriodSeconds=0)
    assert finalizers(running, "VirtualMachine") == [VM_FINALIZER, "foregroundDeletion"]
    assert finalizers(running, "VirtualMachineInstance") == [VM_FINALIZER]
    assert state(running, "VirtualMachineInstance") == "Failed"
    assert state(running, "VirtualMachine") == "Running"
    veto.remove()
    assert finalizers(running, "VirtualMachine") is None


def test_a_living_vm_is_stopped_when_its_pod_is_gone(running: Simulator) -> None:
    running.controllers.start(VIRT_CONTROLLER)
    running.delete(pod(), gracePeriodSeconds=0)
    assert finalizers(running, "VirtualMachineInstance") is None
    assert finalizers(running, "VirtualMachine") == [VM_FINALIZER]
    assert state(running, "VirtualMachine") == "Stopped"
    running.controllers.stop(VIRT_CONTROLLER)
    running.delete(thing())
    assert finalizers(running, "VirtualMachine") == [VM_FINALIZER]


def test_ten_thousand_vms_are_listed_in_a_moment(sim: Simulator) -> None:
    for number in range(10_000):
        sim.seed(thing(name=f"vm-{number:05}"))
    sim.request("GET", ALL_VMS)
    started = time.monotonic()
    token, seen = "", 0
    while token or not seen:
        page = sim.request("GET", f"{ALL_VMS}?limit=500&continue={token}")[1]
        seen += len(page["items"])
        token = page["metadata"].get("continue", "")
    assert seen == 10_000
    assert time.monotonic() - started < 2
