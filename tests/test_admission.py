"""The policies of deploy/admission.yaml, on the real API server: the simulated one knows no CEL.

Every action is a dry run, which passes admission like the change itself. It is sent into many
namespaces: into one that no policy is bound to, into one with all of them, and, for each part of
a policy, into one with a copy that lacks this part.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.components.controlplane.server import MERGE_PATCH, ControlPlane
from tests.support import builders, fastyaml

DEPLOY = Path(__file__).parent.parent / "deploy"
API = "/apis/admissionregistration.k8s.io/v1"
RBAC = "rbac.authorization.k8s.io"
PATCH, DELETE, CREATE = (f"harvester-stuck-{what}" for what in ("patch", "delete-pod", "create"))
Body = dict[str, Any]

APPLY_PATCH = "application/apply-patch+yaml"
BARE, HELD = "adm-bare", "adm-held"
"""The namespaces without a policy, and with all of them."""


def manifests(file: str, kind: str) -> dict[str, Body]:
    """The objects of a kind in a manifest, by name."""
    found = fastyaml.load_all((DEPLOY / file).read_text())
    return {item["metadata"]["name"]: item for item in found if item["kind"] == kind}


POLICIES = manifests("admission.yaml", "ValidatingAdmissionPolicy")
BINDINGS = manifests("admission.yaml", "ValidatingAdmissionPolicyBinding")
OPERATOR_RULES = manifests("rbac.yaml", "ClusterRole")["harvester-stuck-operator"]["rules"]
VIEWER_RULES = manifests("rbac.yaml", "ClusterRole")["harvester-stuck-viewer"]["rules"]


# Who


def rule(group: str, resources: str, verbs: str) -> Body:
    """A rule of RBAC."""
    return {"apiGroups": [group], "resources": resources.split(), "verbs": verbs.split()}


MACHINES, PODS = ("kubevirt.io", "virtualmachines"), ("", "pods")
GUESTS = ("kubevirt.io", "virtualmachineinstances")
ROLES: dict[str, list[Body]] = {
    "viewer": VIEWER_RULES,
    "operator": OPERATOR_RULES,
    "operator-here": [],  # bound in each of the namespaces, see `Stage`
    "keeper-of-machines": [rule(*MACHINES, "patch"), rule(*PODS, "delete")],
    "keeper-of-guests": [rule(*GUESTS, "patch"), rule(*PODS, "delete")],
    "maker": [rule(*MACHINES, "create")],
    "janitor": [rule(*PODS, "delete")],
    "operator-and-deployer": [*OPERATOR_RULES, rule(*PODS, "create")],
    "editor-of-machines": [
        rule(*MACHINES, "update patch"),
        rule(*GUESTS, "patch"),
        rule(*PODS, "delete"),
    ],
    "editor-of-guests": [
        rule(*GUESTS, "update patch"),
        rule(*MACHINES, "patch"),
        rule(*PODS, "delete"),
    ],
    "editor": [
        rule("kubevirt.io", "virtualmachines virtualmachineinstances", "create update patch"),
        rule(*PODS, "delete"),
    ],
}
"""Users by name, with what they may do in all namespaces."""
HELD_USERS = ("operator", "operator-here", "keeper-of-machines", "keeper-of-guests", "maker")
ADMINISTRATOR = "admin"
FREE_USERS = (ADMINISTRATOR, "editor", "janitor", "viewer")
"""Those of whom the policies want nothing."""


# What


@dataclass(frozen=True)
class Action:
    """A change that somebody tries; `held_by` is the policy that takes it from an operator."""

    what: str
    method: str
    plural: str
    name: str
    body: Body
    held_by: str = ""
    content_type: str = "application/json"

    @property
    def path(self) -> str:
        """Below the namespace."""
        group = "" if self.plural == "pods" else "kubevirt.io/"
        return f"{group}{self.plural}/{self.name}".rstrip("/")


def patch(what: str, plural: str, name: str, body: Body, held_by: str = PATCH) -> Action:
    """A merge patch of a VM or a VMI."""
    return Action(what, "PATCH", f"virtualmachine{plural}", name, body, held_by, MERGE_PATCH)


def delete(what: str, name: str, held_by: str = DELETE, **more: object) -> Action:
    """The deletion of a pod, by force."""
    options = {"gracePeriodSeconds": 0, "dryRun": ["All"], **more}
    return Action(what, "DELETE", "pods", name, options, held_by)


def create(what: str, spec: Body, held_by: str = CREATE, **more: object) -> Action:
    """A new VM, with `more` in its metadata."""
    body = builders.vm("", "new", ())
    body = {**body, "metadata": {"name": "new", **more}, "spec": {**body["spec"], **spec}}
    if spec.get("runStrategy", "") is None:
        del body["spec"]["runStrategy"]
    return Action(what, "POST", "virtualmachines", "", body, held_by)


def apply(what: str, spec: Body, held_by: str = CREATE) -> Action:
    """A new VM by an apply: a patch of what is not there."""
    made = create(what, spec, held_by)
    return replace(made, method="PATCH", name="new", content_type=APPLY_PATCH)


def meta(**fields: object) -> Body:
    """A patch of metadata."""
    return {"metadata": fields}


A, B, ORPHAN = "example.com/a", "example.com/b", "orphan"
DISK = {"name": "theirs", "persistentVolumeClaim": {"claimName": "theirs"}}
CLOUD_INIT = {"name": "init", "cloudInitNoCloud": {"userData": "#cloud-config\nruncmd: [id]"}}
OWNER = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "1-2-3"}
HALTED = {"runStrategy": "Halted"}
TEMPLATE = {"metadata": {"name": "d"}, "spec": {"source": {"pvc": {"name": "theirs"}}}}


def volumes(*items: Body) -> Body:
    """A patch of the disks of a VM."""
    return {"spec": {"template": {"spec": {"volumes": list(items)}}}}


ACTIONS = (
    patch("start a VM that lives", "s", "alive", {"spec": {"runStrategy": "Always"}}),
    patch("attach another's disk", "s", "alive", volumes(DISK)),
    patch("put in cloud-init", "s", "alive", volumes(CLOUD_INIT)),
    patch("take finalizers off a VM that lives", "s", "alive", meta(finalizers=[A])),
    patch("take finalizers off a VMI that lives", "instances", "alive", meta(finalizers=None)),
    patch("add a finalizer to a VM that lives", "s", "alive", meta(finalizers=[A, B, "c.io/c"])),
    patch("take `orphan` off", "s", "orphans", meta(finalizers=[A])),
    patch("take every finalizer off, `orphan` too", "s", "orphans", meta(finalizers=[])),
    patch("change runStrategy of a VM in deletion", "s", "going",
          {"spec": {"runStrategy": "Always"}}),
    patch("change disks of a VM in deletion", "s", "going", volumes(DISK)),
    patch("change the spec of a VMI in deletion", "instances", "going",
          {"spec": {"domain": {"cpu": {"cores": 9}}}}),
    patch("change the status of a VMI in deletion", "instances", "going",
          {"status": {"phase": "Failed"}}),
    patch("remove the status of a VMI in deletion", "instances", "going", {"status": None}),
    patch("give a VMI in deletion a status", "instances", "new", {"status": {"phase": "Failed"}}),
    patch("change a label", "s", "going", meta(labels={"tier": "other"})),
    patch("remove the labels", "s", "going", meta(labels=None)),
    patch("give a VM labels", "s", "orphans", meta(labels={"tier": "other"})),
    patch("give a VM annotations", "s", "going",
          meta(annotations={"harvesterhci.io/removedPersistentVolumeClaims": "theirs"})),
    patch("change the owner", "s", "going", meta(ownerReferences=[OWNER])),
    patch("remove the owner", "s", "going", meta(ownerReferences=None)),
    patch("give a VM an owner", "s", "orphans", meta(ownerReferences=[OWNER])),
    patch("take a finalizer off and change a label", "s", "going",
          meta(finalizers=[A], labels={"tier": "other"})),
    patch("take a finalizer off a VM in deletion", "s", "going", meta(finalizers=[B]), ""),
    patch("take all finalizers off a VM in deletion", "s", "going", meta(finalizers=[]), ""),
    patch("take one off beside `orphan`", "s", "orphans", meta(finalizers=[ORPHAN]), ""),
    patch("take finalizers off a VMI in deletion", "instances", "going", meta(finalizers=[]), ""),
    delete("delete the pod of a guest that lives", "alive"),
    delete("delete any pod", "database"),
    delete("delete any pod in deletion", "database-going"),
    delete("delete a pod in deletion that names a VMI beside its controller", "named-going"),
    delete("delete a pod in deletion of another VirtualMachineInstance", "foreign-going"),
    delete("delete a pod in deletion that another pod owns", "owned-going"),
    delete("delete a pod in deletion with the label of hotplugged volumes", "labelled-going"),
    delete("delete the pod in deletion of a guest, and orphan what it owns", "going",
           propagationPolicy="Orphan"),
    delete("the same by `orphanDependents`", "going", orphanDependents=True),
    delete("delete the pod in deletion of a guest, with what it owns", "going", "",
           propagationPolicy="Background"),
    delete("delete the pod in deletion of a guest", "going", ""),
    delete("delete the pod in deletion of a hotplugged volume", "volume-going", ""),
    create("create a running VM", {"runStrategy": "Always"}),
    create("create a VM that runs, and says that it is halted",
           {"running": True, "runStrategy": "Halted"}),
    create("create a running VM by `running`", {"running": True, "runStrategy": None}),
    create("create a VM that does not say", {"runStrategy": None}),
    create("create a VM that starts by hand", {"runStrategy": "Manual"}),
    create("create a halted VM with new disks",
           {"runStrategy": "Halted", "dataVolumeTemplates": [TEMPLATE]}),
    apply("create a running VM by an apply", {"runStrategy": "Always"}),
    create("create a halted VM with an owner, with which it goes", HALTED, ownerReferences=[OWNER]),
    create("create a halted VM with which another's disk goes", HALTED,
           annotations={"harvesterhci.io/removedPersistentVolumeClaims": "theirs"}),
    create("create a halted VM that a maintenance starts", HALTED,
           annotations={"harvesterhci.io/maintain-mode-strategy-node-name": "node-1"}),
    create("create a halted VM with annotations", HALTED, "",
           annotations={"harvesterhci.io/volumeClaimTemplates": "[]"}),
    create("create a halted VM", {"runStrategy": "Halted", "dataVolumeTemplates": []}, ""),
    create("create a halted VM by `running`", {"running": False, "runStrategy": None}, ""),
)  # fmt: skip
NAMES = [action.what for action in ACTIONS]


def objects(namespace: str) -> Iterator[tuple[Body, bool]]:
    """What the actions are about, and whether it is being deleted."""
    labels = {"tier": "web"}
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": "4-5-6"}
    for name, finalizers, ends in (("alive", (A, B), False), ("going", (A, B), True)):
        vm = builders.vm(namespace, name, finalizers, labels=labels)
        vm["metadata"]["ownerReferences"] = [owner]
        yield vm, ends
        yield builders.vmi(namespace, name, None, finalizers), ends
    yield builders.vm(namespace, "orphans", (A, ORPHAN)), True
    bare = builders.vmi(namespace, "new", None, (A,))
    yield {key: value for key, value in bare.items() if key != "status"}, True
    of_guest = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": "alive",
                "uid": "7-8-9", "controller": True}  # fmt: skip
    of_pod = {**of_guest, "apiVersion": "v1", "kind": "Pod"}
    hotplug = {"kubevirt.io": "hotplug-disk"}
    for name, owners, labels in (
        ("alive", [of_guest], {}),
        ("going", [of_guest], {}),
        ("database", [], {}),
        ("database-going", [], {}),
        ("named-going", [{**of_guest, "controller": False}], {}),
        ("foreign-going", [{**of_guest, "apiVersion": "example.com/v1"}], {}),
        ("owned-going", [of_pod], {"kubevirt.io": "virt-launcher"}),
        ("labelled-going", [{**of_guest, "apiVersion": "apps/v1", "kind": "ReplicaSet"}], hotplug),
        ("volume-going", [of_pod], hotplug),
    ):
        yield {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"namespace": namespace, "name": name, "ownerReferences": owners,
                         "labels": labels},
            "spec": {"nodeName": "nowhere", "containers": [{"name": "c", "image": "i"}]},
        }, name.endswith("going")  # fmt: skip


# The policies, and what is left of them when something is missing


@dataclass(frozen=True)
class Part:
    """A piece of a policy that is taken away, or changed."""

    policy: str
    what: str
    change: Callable[[Body], object]

    def __str__(self) -> str:
        return f"{self.policy}: {self.what}"


def parts() -> Iterator[Part]:
    """Each validation, each condition and each resource, taken away singly."""
    for name, policy in POLICIES.items():
        spec = policy["spec"]
        for key in ("validations", "matchConditions"):
            for index in range(len(spec[key])):
                yield Part(name, f"{key} {index}", partial(_without_item, key, index))
        plurals = spec["matchConstraints"]["resourceRules"][0]["resources"]
        for plural in plurals if len(plurals) > 1 else ():
            yield Part(name, plural, partial(_without_resource, plural))


def _without_item(key: str, index: int, spec: Body) -> None:
    del spec[key][index]


def _without_resource(plural: str, spec: Body) -> None:
    spec["matchConstraints"]["resourceRules"][0]["resources"].remove(plural)


def edited(policy: str, old: str, new: str) -> Part:
    """The policy with another text in one of its expressions."""

    def change(spec: Body) -> None:
        hits = 0
        for item in (*spec["validations"], *spec["matchConditions"]):
            hits += item["expression"].count(old)
            item["expression"] = item["expression"].replace(old, new, 1)
        assert hits == 1, f"{policy} has {old!r} {hits} times"

    return Part(policy, f"{old!r} as {new!r}", change)


EDITS = (
    edited(DELETE, "resource('virtualmachines') .namespace(request.namespace).check('patch')",
           "resource('others').check('patch')"),
    edited(DELETE, "resource('virtualmachineinstances') .namespace(request.namespace)"
                   ".check('patch')", "resource('others').check('patch')"),
    edited(DELETE, "has(owner.controller) && owner.controller", "true"),
    edited(DELETE, " && owner.apiVersion.startsWith('kubevirt.io/')", ""),
    edited(DELETE, "owner.kind == 'Pod'", "true"),
    edited(DELETE, "oldObject.metadata.labels['kubevirt.io'] == 'hotplug-disk'", "true"),
    edited(DELETE, "request.options.propagationPolicy != 'Orphan'", "true"),
    edited(DELETE, "!request.options.orphanDependents)", "true)"),
    edited(CREATE, " == 'Halted'", " in ['Halted', 'Manual']"),
    edited(CREATE, " || has(object.spec.running)", ""),
    edited(CREATE, "has(object.spec.runStrategy) || has", "has"),
    edited(CREATE, " || size(object.spec.dataVolumeTemplates) == 0", ""),
    edited(PATCH, "|| (has(object.metadata.finalizers) && 'orphan' in object.metadata.finalizers)",
           ""),
)  # fmt: skip
LESS = {f"adm-less-{number}": part for number, part in enumerate((*parts(), *EDITS))}
"""The namespaces in which something is missing, with what it is."""


def bound(name: str, policy: Body, binding: Body, *namespaces: str) -> tuple[Body, Body]:
    """A copy of a policy by another name, bound to these namespaces."""
    policy, binding = copy.deepcopy(policy), copy.deepcopy(binding)
    policy["metadata"]["name"] = binding["metadata"]["name"] = name
    binding["spec"]["policyName"] = name
    named = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": list(namespaces)}
    binding["spec"]["matchResources"] = {"namespaceSelector": {"matchExpressions": [named]}}
    return policy, binding


def variants(less: Mapping[str, Part]) -> Iterator[tuple[Body, Body]]:
    """The policies and their bindings, with a copy for each part that is missing somewhere."""
    for name, policy in POLICIES.items():
        others = [where for where, part in less.items() if part.policy != name]
        yield bound(name, policy, BINDINGS[name], HELD, *others)
        for namespace, part in less.items():
            if part.policy == name:
                lesser, binding = bound(f"{name}-{namespace}", policy, BINDINGS[name], namespace)
                part.change(lesser["spec"])
                yield lesser, binding


LAST = {
    "matchConstraints": {
        "resourceRules": [
            {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
             "resources": ["configmaps"]}
        ]
    },
    "validations": [{"expression": "false"}],
}  # fmt: skip
"""A policy that is made after all others: once it is in force, they are."""


def until(ready: Callable[[], bool]) -> None:
    """Wait for the caches of the API server."""
    deadline = time.monotonic() + 30
    while not ready():
        assert time.monotonic() < deadline, "it never came into force"
        time.sleep(0.1)


class Stage:
    """The namespaces, the users and the policies, with those that lack something in `less`."""

    def __init__(self, api: ControlPlane, less: Mapping[str, Part]) -> None:
        self.api = api
        self._held: dict[str, Mapping[str, str]] = {}
        self.namespaces = (BARE, HELD, *less)
        for namespace in self.namespaces:
            self._make("/api/v1/namespaces", {"metadata": {"name": namespace}})
        for namespace in self.namespaces:
            for body, ends in objects(namespace):
                made = api.create(body)
                if ends:
                    grace = {"gracePeriodSeconds": 600} if body["kind"] == "Pod" else {}
                    api.delete(made, **grace)
        self._grant()
        self._admit(less)
        last = next(action for action in ACTIONS if action.what == "create a halted VM")
        until(lambda: self.ask(self.namespaces[-1], "operator-here", last)[0] == 201)
        until(lambda: self.is_in_force)

    def _make(self, path: str, body: Body) -> None:
        status, answer = self.api.request("POST", path, body)
        assert status == 201 or answer["reason"] == "AlreadyExists", answer["message"]

    def _admit(self, less: Mapping[str, Part]) -> None:
        self.made = [*variants(less), bound("adm-last", {"metadata": {}, "spec": LAST},
                                        BINDINGS[PATCH], HELD)]  # fmt: skip
        for index, kind in enumerate(("policies", "policybindings")):
            for pair in self.made:
                self._make(f"{API}/validatingadmission{kind}", pair[index])

    def _grant(self) -> None:
        binding = {"roleRef": {"apiGroup": RBAC, "kind": "ClusterRole"}}
        for user, rules in ROLES.items():
            name = {"metadata": {"name": f"adm-{user}"}}
            who = {"subjects": [{"apiGroup": RBAC, "kind": "User", "name": user}],
                   "roleRef": {**binding["roleRef"], "name": f"adm-{user}"}}  # fmt: skip
            self._make(f"/apis/{RBAC}/v1/clusterroles", {**name, "rules": rules})
            self._make(f"/apis/{RBAC}/v1/clusterrolebindings", {**name, **who})
        here = {"metadata": {"name": "adm-operator-here"},
                "subjects": [{"apiGroup": RBAC, "kind": "User", "name": "operator-here"}],
                "roleRef": {**binding["roleRef"], "name": "adm-operator"}}  # fmt: skip
        for namespace in self.namespaces:
            self._make(f"/apis/{RBAC}/v1/namespaces/{namespace}/rolebindings", here)

    @property
    def is_in_force(self) -> bool:
        """Whether the policy that was made last is, and so all are."""
        path = f"/api/v1/namespaces/{HELD}/configmaps?dryRun=All"
        return self.api.request("POST", path, {"metadata": {"name": "probe"}})[0] != 201

    def ask(self, namespace: str, user: str, action: Action) -> tuple[int, str]:
        """Status and message of the answer."""
        group, _, rest = action.path.rpartition("kubevirt.io/")
        root = "/apis/kubevirt.io/v1" if group or action.plural != "pods" else "/api/v1"
        query = "" if action.method == "DELETE" else "?dryRun=All&fieldManager=somebody"
        status, answer = self.api.request(
            action.method,
            f"{root}/namespaces/{namespace}/{rest}{query}",
            action.body,
            content_type=action.content_type,
            headers={} if user == ADMINISTRATOR else {"Impersonate-User": user},
        )
        return status, str(answer.get("message", ""))

    def answers(self, namespace: str, user: str) -> dict[str, str]:
        """What every action comes to."""
        return {action.what: outcome(*self.ask(namespace, user, action)) for action in ACTIONS}

    def held(self, user: str) -> Mapping[str, str]:
        """The same with all policies, asked once."""
        if user not in self._held:
            self._held[user] = self.answers(HELD, user)
        return self._held[user]

    def remove(self) -> None:
        """Everything that was made, once no policy is in force any more."""
        for kind in ("policybindings", "policies"):
            for policy, _ in self.made:
                name = policy["metadata"]["name"]
                self.api.request("DELETE", f"{API}/validatingadmission{kind}/{name}")
        until(lambda: not self.is_in_force)
        for user in ROLES:
            for plural in ("clusterrolebindings", "clusterroles"):
                self.api.request("DELETE", f"/apis/{RBAC}/v1/{plural}/adm-{user}")
        for namespace in self.namespaces:
            self.api.wipe(namespace)


def outcome(status: int, message: str) -> str:
    """`allowed`, `RBAC`, or the policy that rejected it."""
    if status in (200, 201):
        return "allowed"
    assert status == 403, (status, message)
    if "ValidatingAdmissionPolicy" not in message:
        # Kubernetes 1.30 gives no reason where a patch may not create the object that it is for.
        assert "cannot" in message or message.endswith(" is forbidden: "), message
        return "RBAC"
    name = message.partition("ValidatingAdmissionPolicy '")[2].partition("'")[0]
    return name.partition("-adm-less")[0]


@pytest.fixture(scope="module")
def stage(control_plane: ControlPlane) -> Iterator[Stage]:
    """All namespaces, with everything in force."""
    made = Stage(control_plane, LESS)
    yield made
    made.remove()


@pytest.mark.parametrize("user", HELD_USERS)
@pytest.mark.parametrize("action", ACTIONS, ids=NAMES)
def test_an_abuse_that_rbac_allows_is_rejected_and_the_rest_is_not(
    stage: Stage, action: Action, user: str
) -> None:
    alone = outcome(*stage.ask(BARE, user, action))
    held = outcome(*stage.ask(HELD, user, action))
    if user in ("operator", "operator-here"):
        assert alone == "allowed"
    assert held == (action.held_by or "allowed" if alone == "allowed" else "RBAC")


SUB, CORE = "/apis/subresources.kubevirt.io/v1/namespaces/{}", "/api/v1/namespaces/{}"
KUBEVIRT = "/apis/kubevirt.io/v1/namespaces/{}"
GUEST = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "spec": {},
         "metadata": {"name": "made"}}  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", f"{SUB}/virtualmachines/alive/start", {}),
        ("PUT", f"{SUB}/virtualmachines/alive/stop", {}),
        ("PUT", f"{SUB}/virtualmachines/alive/addvolume", {}),
        ("PUT", f"{SUB}/virtualmachineinstances/alive/unpause", {}),
        ("GET", f"{SUB}/virtualmachineinstances/alive/console", None),
        ("GET", f"{SUB}/virtualmachineinstances/alive/vnc", None),
        ("PATCH", f"{KUBEVIRT}/virtualmachines/alive/status", {"status": {"ready": True}}),
        ("PATCH", f"{KUBEVIRT}/virtualmachineinstances/made", GUEST),
        ("PUT", f"{KUBEVIRT}/virtualmachines/alive", {}),
        ("DELETE", f"{KUBEVIRT}/virtualmachines/alive", {}),
        ("DELETE", f"{KUBEVIRT}/virtualmachineinstances", {}),
        ("POST", f"{KUBEVIRT}/virtualmachineinstancemigrations", {}),
        ("DELETE", f"{CORE}/pods", {}),
        ("POST", f"{CORE}/pods", {}),
        ("POST", f"{CORE}/pods/alive/eviction", {}),
        ("POST", f"{CORE}/pods/alive/exec", None),
        ("PATCH", f"{CORE}/pods/alive", {}),
        ("PATCH", f"{CORE}/pods/alive/status", {}),
        ("PATCH", f"{CORE}/pods/alive/ephemeralcontainers", {}),
        ("GET", f"{CORE}/pods/alive/log", None),
        ("GET", f"{CORE}/secrets/any", None),
        ("DELETE", f"{CORE}/persistentvolumeclaims/any", {}),
        ("POST", f"{CORE}/serviceaccounts/default/token", {}),
    ],
)
def test_what_the_role_does_not_allow_at_all(
    stage: Stage, method: str, path: str, body: Body | None
) -> None:
    status, answer = stage.api.request(
        method,
        f"{path.format(BARE)}?dryRun=All&fieldManager=somebody",
        body,
        content_type=APPLY_PATCH if body is GUEST else MERGE_PATCH,
        headers={"Impersonate-User": "operator"},
    )
    assert (status, outcome(status, answer["message"])) == (403, "RBAC"), answer


@pytest.mark.parametrize("user", FREE_USERS)
def test_who_may_change_more_or_nothing_is_not_restricted(stage: Stage, user: str) -> None:
    alone = stage.answers(BARE, user)
    assert stage.held(user) == alone
    assert (set(alone.values()) == {"allowed"}) is (user in (ADMINISTRATOR, "editor"))
    assert (set(alone.values()) == {"RBAC"}) is (user == "viewer")


def test_the_controllers_of_kubernetes_are_not_restricted(stage: Stage) -> None:
    """Some may delete every pod and create none."""
    status, found = stage.api.request(
        "GET", f"/apis/{RBAC}/v1/clusterrolebindings?labelSelector=kubernetes.io/bootstrapping"
    )
    assert status == 200, found
    users = {
        f"system:serviceaccount:{one['namespace']}:{one['name']}" if "namespace" in one
        else one["name"]
        for binding in found["items"]
        for one in binding.get("subjects", ())
        if one["kind"] != "Group"
    }  # fmt: skip
    tried = [
        action
        for action in ACTIONS
        if action.what in ("delete any pod", "start a VM that lives", "create a running VM")
    ]
    answers = {
        (user, action.what, outcome(*stage.ask(where, user, action)))
        for user in users
        for action in tried
        for where in (BARE, HELD)
    }
    assert len(answers) == len(users) * len(tried)
    may = {user.rpartition(":")[2] for user, what, answer in answers
           if (what, answer) == ("delete any pod", "allowed")}  # fmt: skip
    assert {"namespace-controller", "pod-garbage-collector", "kube-scheduler"} <= may


def test_who_may_create_pods_as_well_may_delete_them(stage: Stage) -> None:
    held = stage.answers(HELD, "operator-and-deployer")
    assert {held[action.what] for action in ACTIONS if action.plural == "pods"} == {"allowed"}
    assert {held[action.what] for action in ACTIONS if action.held_by == PATCH} == {PATCH}


@pytest.mark.parametrize("namespace", LESS, ids=[str(part) for part in LESS.values()])
def test_no_part_of_a_policy_is_idle(stage: Stage, namespace: str) -> None:
    users = tuple({*ROLES, ADMINISTRATOR} - {"operator-here"})
    assert any(
        outcome(*stage.ask(namespace, user, action)) != stage.held(user)[action.what]
        for user in users
        for action in ACTIONS
    ), "nobody would miss it"


CELLS = {"allowed": "allowed", "RBAC": "no right", **{name: f"`{name}`" for name in POLICIES}}


def test_the_table_of_the_page_is_what_the_server_does(stage: Stage) -> None:
    alone = stage.answers(BARE, "operator")
    columns = [stage.held("viewer"), alone, stage.held("operator"), stage.held(ADMINISTRATOR)]
    table = [
        f"| {what} | {' | '.join(CELLS[column[what]] for column in columns)} |" for what in NAMES
    ]
    page = (DEPLOY.parent / "docs" / "admission.md").read_text()
    told = page.partition("| action |")[2].partition("\n\n")[0].splitlines()[2:]
    assert told == table, "\n".join(["the table is:", *table])
