"""What is sent is what the typed client of Kubernetes would send, by its models and its paths.

Both ask the same server. The client knows the paths, the parameters and the bodies of the API from
its specification; what it does not know it cannot send.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import pytest
from kubernetes import client

from kubectl_harvester_stuck.cluster.client import LOG_BYTES, LOG_LINES, PAGE, Cluster
from kubectl_harvester_stuck.errors import StuckError
from kubectl_harvester_stuck.k8s import kinds
from kubectl_harvester_stuck.k8s.kinds import POD, VM, Kind
from kubectl_harvester_stuck.k8s.objects import ObjectRef
from kubectl_harvester_stuck.k8s.source import ListQuery
from kubectl_harvester_stuck.release.change import event
from tests.support.loopback import Seen, Server, running, transport
from tests.test_journal import NOW, change

EVERY_KIND = [kind for kind in vars(kinds).values() if isinstance(kind, Kind)]
CUSTOM_GROUPS_OF_KUBERNETES = {"snapshot.storage.k8s.io"}
POD_REF = ObjectRef("vms", "virt-launcher-one", POD)
VM_REF = ObjectRef("vms", "one", VM)
RAW: dict[str, Any] = {"_preload_content": False}


@pytest.fixture
def http() -> Iterator[Server]:
    with running() as server:
        yield server


@dataclass(frozen=True)
class Sent:
    """What the API server looks at."""

    method: str
    path: str
    query: list[tuple[str, str]]
    body: Any
    patch_type: str

    @classmethod
    def of(cls, seen: Seen) -> Sent:
        path, _, query = seen.path.partition("?")
        # There are two ways to write true, and several to write a time.
        pairs = [(key, "1" if value in ("True", "true") else value) for key, value in _split(query)]
        text = re.sub(r"(\d\d:\d\d:\d\d)(\.0+)?(Z|\+00:00)", r"\1Z", seen.body.decode())
        body = json.loads(text or "null")
        types = seen.header("Content-Type") if seen.method == "PATCH" else [""]
        return cls(seen.method, path.rstrip("/"), sorted(pairs), body, types[0])


def _split(query: str) -> list[tuple[str, str]]:
    return parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))


def ours(http: Server, ask: Callable[[Cluster], object]) -> Sent:
    """What arrives; the empty object that the server answers is no answer to most requests."""
    with suppress(StuckError):
        ask(Cluster(transport(http.url)))
    return Sent.of(http.seen.pop())


def theirs(http: Server, ask: Callable[[client.ApiClient], object]) -> Sent:
    configuration = client.Configuration()
    configuration.host = http.url
    with client.ApiClient(configuration) as api:
        ask(api)
    return Sent.of(http.seen.pop())


def delete_options(**more: Any) -> client.V1DeleteOptions:
    locks = client.V1Preconditions(uid="u-1", resource_version="7")
    return client.V1DeleteOptions(
        api_version="v1",
        kind="DeleteOptions",
        grace_period_seconds=0,
        preconditions=locks,
        **more,
    )


LOCKS = {"uid": "u-1", "resourceVersion": "7"}
OPTIONS = {
    "apiVersion": "v1",
    "kind": "DeleteOptions",
    "gracePeriodSeconds": 0,
    "preconditions": LOCKS,
}
PATCH = {"metadata": {**LOCKS, "finalizers": ["a/b"]}}
BODY = {"apiVersion": VM.api_version, "kind": VM.kind, "metadata": {"name": "one"}, "spec": {}}
CUSTOM: dict[str, Any] = {
    "group": VM.group,
    "version": VM.version,
    "namespace": "vms",
    "plural": VM.plural,
}
EVENT = event(change(), "host")


def _event(api: client.ApiClient) -> object:
    """The same Event, by the client's models."""
    about = EVENT["regarding"]
    made = client.EventsV1Event(
        api_version="events.k8s.io/v1",
        kind="Event",
        metadata=client.V1ObjectMeta(name=EVENT["metadata"]["name"], namespace="shop"),
        event_time=NOW,
        reporting_controller=EVENT["reportingController"],
        reporting_instance="host",
        action=EVENT["action"],
        reason=EVENT["reason"],
        regarding=client.V1ObjectReference(
            api_version="kubevirt.io/v1",
            kind="VirtualMachine",
            namespace="shop",
            name=about["name"],
            uid=about["uid"],
            resource_version=about["resourceVersion"],
        ),
        note=EVENT["note"],
        type=EVENT["type"],
    )
    return client.EventsV1Api(api).create_namespaced_event("shop", made, **RAW)


def _access(api: client.ApiClient) -> object:
    attributes = client.V1ResourceAttributes(
        verb="patch",
        group=VM.group,
        version=VM.version,
        resource=VM.plural,
        namespace="vms",
        name="one",
    )
    review = client.V1SelfSubjectAccessReview(
        api_version="authorization.k8s.io/v1",
        kind="SelfSubjectAccessReview",
        spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes),
    )
    return client.AuthorizationV1Api(api).create_self_subject_access_review(review, **RAW)


def _whoami(api: client.ApiClient) -> object:
    review = client.V1SelfSubjectReview(
        api_version="authentication.k8s.io/v1", kind="SelfSubjectReview"
    )
    return client.AuthenticationV1Api(api).create_self_subject_review(review, **RAW)


def merging(api: client.ApiClient) -> client.ApiClient:
    """The client for merge patches; only its newer versions take the type with a request."""
    api.set_default_header("Content-Type", "application/merge-patch+json")  # type: ignore[no-untyped-call]  # the client has no types
    return api


Pair = tuple[Callable[[Cluster], object], Callable[[client.ApiClient], object]]
REQUESTS: dict[str, Pair] = {
    "version": (
        lambda cluster: cluster.version(),
        lambda api: client.VersionApi(api).get_code(**RAW),
    ),
    "get a pod": (
        lambda cluster: cluster.get(POD_REF),
        lambda api: client.CoreV1Api(api).read_namespaced_pod(POD_REF.name, "vms", **RAW),
    ),
    "a name that no name can be": (
        lambda cluster: cluster.get(ObjectRef("vms", "a/b?c#d ä", POD)),
        lambda api: client.CoreV1Api(api).read_namespaced_pod("a/b?c#d ä", "vms", **RAW),
    ),
    "list pods": (
        lambda cluster: cluster.list_objects(
            ListQuery(POD, "vms", labels="a=b,c!=d", fields="spec.nodeName=n"), lambda _: True
        ),
        lambda api: client.CoreV1Api(api).list_namespaced_pod(
            "vms", label_selector="a=b,c!=d", field_selector="spec.nodeName=n", limit=PAGE, **RAW
        ),
    ),
    "list VMs": (
        lambda cluster: cluster.list_objects(ListQuery(VM, "vms", labels="a"), lambda _: True),
        lambda api: client.CustomObjectsApi(api).list_namespaced_custom_object(
            **CUSTOM, label_selector="a", limit=PAGE, **RAW
        ),
    ),
    "watch pods": (
        lambda cluster: list(
            cluster.watch(ListQuery(POD, "vms"), "7", seconds=9, opened=lambda: None)
        ),
        lambda api: client.CoreV1Api(api).list_namespaced_pod(
            "vms",
            watch=True,
            allow_watch_bookmarks=True,
            resource_version="7",
            timeout_seconds=9,
            **RAW,
        ),
    ),
    "read a log": (
        lambda cluster: cluster.log(POD_REF),
        lambda api: client.CoreV1Api(api).read_namespaced_pod_log(
            POD_REF.name, "vms", tail_lines=LOG_LINES, limit_bytes=LOG_BYTES, **RAW
        ),
    ),
    "patch a VM": (
        lambda cluster: cluster.patch(VM_REF, PATCH),
        lambda api: client.CustomObjectsApi(merging(api)).patch_namespaced_custom_object(
            **CUSTOM, name="one", body=PATCH, field_manager="kubectl-harvester-stuck", **RAW
        ),
    ),
    "patch a pod, as a dry run": (
        lambda cluster: cluster.patch(POD_REF, PATCH, dry_run=True),
        lambda api: client.CoreV1Api(merging(api)).patch_namespaced_pod(
            POD_REF.name,
            "vms",
            PATCH,
            dry_run="All",
            field_manager="kubectl-harvester-stuck",
            **RAW,
        ),
    ),
    "delete a pod": (
        lambda cluster: cluster.delete_pod(POD_REF, OPTIONS),
        lambda api: client.CoreV1Api(api).delete_namespaced_pod(
            POD_REF.name, "vms", body=delete_options(), **RAW
        ),
    ),
    "delete a pod, as a dry run": (
        lambda cluster: cluster.delete_pod(POD_REF, OPTIONS, dry_run=True),
        lambda api: client.CoreV1Api(api).delete_namespaced_pod(
            POD_REF.name, "vms", body=delete_options(dry_run=["All"]), **RAW
        ),
    ),
    "create a VM": (
        lambda cluster: cluster.create(VM, "vms", BODY),
        lambda api: client.CustomObjectsApi(api).create_namespaced_custom_object(
            **CUSTOM, body=BODY, field_manager="kubectl-harvester-stuck", **RAW
        ),
    ),
    "create a VM, as a dry run": (
        lambda cluster: cluster.create(VM, "vms", BODY, dry_run=True),
        lambda api: client.CustomObjectsApi(api).create_namespaced_custom_object(
            **CUSTOM, body=BODY, dry_run="All", field_manager="kubectl-harvester-stuck", **RAW
        ),
    ),
    "create an Event": (lambda cluster: cluster.create_event(EVENT), _event),
    "ask for a permission": (lambda cluster: cluster.access_denial("patch", VM_REF), _access),
    "ask who we are": (lambda cluster: cluster.whoami(), _whoami),
}


@pytest.mark.parametrize("pair", REQUESTS.values(), ids=REQUESTS.keys())
def test_a_request_is_that_of_the_typed_client(http: Server, pair: Pair) -> None:
    assert ours(http, pair[0]) == theirs(http, pair[1])


def test_every_request_is_compared() -> None:
    """Each method of `Cluster` that sends something is called above."""
    methods = {name for name in vars(Cluster) if not name.startswith("_")}
    called = {name for ask, _ in REQUESTS.values() for name in ask.__code__.co_names}
    assert methods - called == {"now", "prefetch", "list_with_version"}


def built_in(kind: Kind) -> str | None:
    """The client's class for the group of a kind; None for those that are not of Kubernetes."""
    name = f"{(kind.group or 'core').partition('.')[0].capitalize()}{kind.version.capitalize()}Api"
    is_custom = kind.group in CUSTOM_GROUPS_OF_KUBERNETES
    if "." in kind.group and not kind.group.endswith(".k8s.io"):
        is_custom = True
    return None if is_custom else name


@pytest.mark.parametrize("kind", EVERY_KIND, ids=lambda kind: kind.resource)
def test_the_paths_of_a_kind_are_those_of_the_typed_client(http: Server, kind: Kind) -> None:
    namespace = "vms" if kind.namespaced else ""
    within = {"namespace": "vms"} if kind.namespaced else {}
    scope = "namespaced_" if kind.namespaced else ""
    name = built_in(kind)
    if name is None:
        scope = scope or "cluster_"
        of_kind = {"group": kind.group, "version": kind.version, "plural": kind.plural}
        client_class, noun = client.CustomObjectsApi, "custom_object"
    else:
        of_kind = {}
        client_class = getattr(client, name)
        noun = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", kind.kind).lower()

    def send(verb: str, **more: Any) -> Sent:
        method = f"{verb}_{scope}{noun}"
        return theirs(
            http, lambda api: getattr(client_class(api), method)(**of_kind, **within, **more, **RAW)
        )

    get = "get" if name is None else "read"
    assert send("list").path == kind.path(namespace)
    assert send(get, name="one").path == kind.path(namespace, "one")
