"""The roles of `deploy`, on the simulated and on the real API server.

Each suffices for its commands, and none holds a right that no command would miss.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kubectl_harvester_stuck.errors import ExitStatus
from kubectl_harvester_stuck.k8s import kinds
from tests.behaviour.test_serve_metrics import COMPLETE, TIME, Serving, serving
from tests.behaviour.test_watch import watching
from tests.support import builders, fastyaml
from tests.support.world import QUICK, Body, Run, World

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
OWNERS = "harvester-stuck-owners"
RBAC = "rbac.authorization.k8s.io"

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Right:
    """One verb on one resource; in `namespace` alone if it is one of a Role."""

    namespace: str
    group: str
    resource: str
    verb: str
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.resource}.{self.group}{where}"


def documents(file: str) -> list[Body]:
    """The objects of a manifest."""
    return list(fastyaml.load_all((DEPLOY / file).read_text()))


def rights(file: str, *roles: str) -> list[Right]:
    """Every single right of these roles."""
    found = [
        Right(
            item["metadata"].get("namespace", ""),
            group,
            resource,
            verb,
            tuple(rule.get("resourceNames", ())),
        )
        for item in documents(file)
        if item["metadata"]["name"] in roles and item["kind"] in ("Role", "ClusterRole")
        for rule in item["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]
    assert len(set(found)) == len(found) > 0
    return found


def grant(world: World, granted: Iterable[Right]) -> str:
    """A user with these rights alone."""
    user = f"{world.namespace}-user-{next(_numbers)}"
    places: dict[str, list[Right]] = {}
    for right in granted:
        places.setdefault(right.namespace, []).append(right)
    for namespace, held in places.items():
        prefix = "" if namespace else "Cluster"
        meta = {"name": user, **({"namespace": namespace} if namespace else {})}
        rules = [
            {
                "apiGroups": [right.group],
                "resources": [right.resource],
                "verbs": [right.verb],
                **({"resourceNames": list(right.names)} if right.names else {}),
            }
            for right in held
        ]
        version = {"apiVersion": f"{RBAC}/v1", "metadata": meta}
        world.create({**version, "kind": f"{prefix}Role", "rules": rules})
        world.create(
            {
                **version,
                "kind": f"{prefix}RoleBinding",
                "roleRef": {"apiGroup": RBAC, "kind": f"{prefix}Role", "name": user},
                "subjects": [{"apiGroup": RBAC, "kind": "User", "name": user}],
            }
        )
    return user


VIEWER = rights("rbac.yaml", "harvester-stuck-viewer", OWNERS)
OPERATOR = rights("rbac.yaml", "harvester-stuck-operator", OWNERS)
METRICS = rights("metrics.yaml", "harvester-stuck-metrics", "harvester-stuck-metrics-nodes")
INFRASTRUCTURE = rights("rbac.yaml", "harvester-stuck-infrastructure")
WATCHES = [
    right
    for right in VIEWER
    if right.verb == "watch" or (right.verb, right.resource) == ("get", "pods")
]
"""What `list --watch` needs besides `list`; a watch does not show the node of a pod."""


def webhooks(name: str) -> Body:
    """A webhook that is asked about nothing: only its server is looked at."""
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [
            {
                "name": "validator.harvesterhci.io",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "clientConfig": {
                    "service": {"namespace": "harvester-system", "name": "harvester-webhook"}
                },
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "nowhere"}},
                "rules": [
                    {
                        "apiGroups": ["kubevirt.io"],
                        "apiVersions": ["v1"],
                        "operations": ["UPDATE"],
                        "resources": ["virtualmachines"],
                    }
                ],
            }
        ],
    }


class Stage:
    """Everything that the commands of the roles meet: what is stuck, and what was released."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.create(builders.controller_pod("virt-controller"))
        world.power_cut()
        # A VM that lives; its VMI is what hangs.
        world.delete(world.vmi(world.vm("db"), "db"))
        # One whose finalizers make the program look at what few VMs have to do with.
        many = (
            builders.CLEANUP_FINALIZER,
            builders.LEGACY_FINALIZER,
            "snapshot.kubevirt.io/snapshot-source-protection",
            "pool.kubevirt.io/finalizer",
        )
        status = {"snapshotInProgress": "nightly"}
        pooled = builders.vm(world.namespace, "pooled", many, status=status)
        pool = {"apiVersion": "pool.kubevirt.io/v1beta1", "kind": "VirtualMachinePool",
                "name": "pool", "uid": "11111111-2222-4333-8444-555555555555"}  # fmt: skip
        pooled["metadata"]["ownerReferences"] = [pool]
        world.delete(world.create(pooled), propagationPolicy="Foreground")
        self.backup = self.released("admin").item["backup"]
        space = {"metadata": {"name": f"{world.namespace}-empty"}}
        world.api.request("POST", "/api/v1/namespaces", space)
        # `check` asks for the endpoints of the webhooks that there are.
        world.create(webhooks(f"check-{world.namespace}"))

    def gone(self) -> str:
        """A deleted VM that a release takes nothing but a patch to release."""
        name = f"gone-{next(_numbers)}"
        volume = builders.volume(f"pv-{self.world.namespace}-{name}")
        self.world.create(volume)
        claim = builders.pvc(self.world.namespace, name, volume=volume["metadata"]["name"])
        self.world.create(claim)
        self.world.delete(self.world.vm(name, spec=builders.with_disks(name)))
        return name

    def run(self, user: str, *words: str) -> Run:
        """A command as that user."""
        return self.world.run(*words, "-o", "json", *(() if user == "admin" else ("--as", user)))

    def diagnosed(self, user: str) -> Run:
        """`diagnose`, for everything that is stuck here: it lists and reads."""
        return self.run(user, "diagnose")

    def checked(self, user: str) -> Run:
        """`check`, of the whole cluster."""
        return self.run(user, "check", "-A")

    def empty(self, user: str) -> Run:
        """`list` of a namespace in which there is nothing."""
        return self.run(user, "list", "-n", f"{self.world.namespace}-empty")

    def listed(self, user: str) -> Run:
        """`list`, of everything that is stuck here."""
        return self.run(user, "list")

    def planned(self, user: str) -> Run:
        """`unstick` through pod, VMI and VM, as a dry run that the server admits."""
        off = ("--node-powered-off", self.world.dead, "--dry-run=server")
        return self.run(user, "unstick", "vm", "web", *QUICK, *off)

    def remade(self, user: str) -> Run:
        """`restore`, as a dry run that the server admits."""
        return self.run(user, "restore", self.backup, "--dry-run=server")

    def released(self, user: str) -> Run:
        """`unstick` of one more VM with a disk."""
        return self.run(user, "unstick", "vm", self.gone(), *QUICK, "--yes")

    def told(self, run: Run) -> set[str]:
        """What this user misses, as the command says it."""
        document = run.json
        told = {f"status {run.status.name}"}
        told |= {f"incomplete {item['resource']}" for item in document.get("incomplete", ())}
        for item in document["items"]:
            told |= {f"{item['id']} {item['result']}"} if "result" in item else set()
            told |= {
                f"{guard['id']} {guard['result']}"
                for key in ("guards", "checks")
                for guard in item.get(key, ())
            }
            for key in ("notLookedFor", "warnings", "leftovers"):
                told |= {f"{key} {line}" for line in item.get(key, ()) if "orbidden" in line}
            if item.get("outcome") == "gone":
                saved = self.world.backup(run)["release"]["notSaved"]
                told |= {f"not saved: {line.partition(':')[0].split()[0]}" for line in saved}
                name = item["target"]["name"]
                events = [event["involvedObject"]["name"] for event in self.world.events()]
                told |= {f"events: {events.count(name)}"}
        return told


def misses(run: Run) -> list[str]:
    """Where anything that the command says speaks of a right."""
    return [line for line in f"{run.out}\n{run.err}".splitlines() if "orbidden" in line]


def refused(world: World) -> list[str]:
    """What the API server refused, but for the Secrets: no role may list them."""
    paths = [item.path for item in world.api.recorded() if item.status == 403]
    return [path for path in paths if not path.partition("?")[0].endswith("/secrets")]


def until_in_force(ready: Callable[[], bool]) -> None:
    """RBAC is read from caches: wait until the last grant has reached them."""
    deadline = time.monotonic() + 10
    while not ready():
        assert time.monotonic() < deadline, "the rights never came into force, or do not suffice"
        time.sleep(0.05)


def test_the_viewer_lists_and_diagnoses_without_a_gap(world: World) -> None:
    stage = Stage(world)
    user = grant(world, VIEWER)
    until_in_force(lambda: not misses(stage.diagnosed(user)))
    world.api.forget()
    listed, seen = stage.run(user, "list", "-A"), stage.diagnosed(user)
    everywhere = stage.run(user, "diagnose", "-A", "--older-than", "0")
    checked = stage.checked(user)
    assert (checked.json["incomplete"], misses(checked)) == ([], [])
    for run in (listed, seen, everywhere):
        assert (run.status, run.json["incomplete"], misses(run)) == (ExitStatus.OK, [], [])
    assert {item["target"]["name"] for item in seen.json["items"]} == {"web", "db", "pooled"}
    assert refused(world) == []


@pytest.mark.parametrize(
    ("words", "role"),
    [
        ("list", "viewer"),
        ("list -A", "viewer"),
        ("diagnose -A", "viewer"),
        ("check", "viewer"),
        ("check -A", "viewer"),
        ("unstick --all", "operator"),
    ],
)
def test_what_is_forbidden_is_said_once_with_the_role_that_allows_it(
    world: World, words: str, role: str
) -> None:
    run = world.run(*words.split(), user="alice")
    said = " ".join(run.err.split())
    assert said.count("Forbidden") == said.count("could not read") == 1, said
    assert 'Forbidden: User "alice" may not read them; the ClusterRole' in said
    assert f"the ClusterRole harvester-stuck-{role} of deploy/rbac.yaml allows it" in said
    assert "virtualmachines.kubevirt.io" in said
    assert ("-n NAMESPACE" in said) is (words in ("list -A", "diagnose -A"))
    assert "is forbidden" not in run.out + run.err


def test_a_release_that_may_not_read_names_all_at_once(world: World) -> None:
    world.delete(world.vm())
    some = [Right("", "kubevirt.io", "virtualmachines", verb) for verb in ("get", "list")]
    user = grant(world, some)
    until_in_force(lambda: "was not found" in world.run("unstick", "other", "--as", user).err)
    run = world.run("unstick", "web", *QUICK, "--as", user)
    assert run.status is ExitStatus.REFUSED
    said = " ".join(run.err.split())
    assert said.count("could not read") == 1
    for kind in ("pods", "virtualmachineinstances.kubevirt.io", "persistentvolumeclaims"):
        assert kind in said
    assert "harvester-stuck-operator" in said


def test_the_viewer_changes_nothing(world: World) -> None:
    stage = Stage(world)
    user = grant(world, VIEWER)
    until_in_force(lambda: not misses(stage.diagnosed(user)))
    world.api.forget()
    run = stage.released(user)
    assert run.status is ExitStatus.REFUSED
    assert [item["guard"] for item in run.item["refusals"]] == ["permitted"]
    assert world.sent() == []


def test_the_operator_releases_and_restores_without_a_gap(world: World) -> None:
    stage = Stage(world)
    user = grant(world, OPERATOR)
    until_in_force(lambda: not misses(stage.diagnosed(user)) and not misses(stage.planned(user)))
    world.api.forget()
    seen = stage.diagnosed(user)
    assert (seen.status, seen.json["incomplete"], misses(seen)) == (ExitStatus.OK, [], [])
    off = ("--node-powered-off", world.dead)
    run = stage.run(user, "unstick", "vm", "web", *QUICK, "--yes", *off)
    assert (run.status, misses(run)) == (ExitStatus.OK, []), run.out + run.err
    assert [step["action"] for step in run.item["steps"]] == ["delete-pod", "patch", "patch"]
    assert {item["user"] for item in world.journal()[-6:] if "user" in item} == {user}
    gone = stage.released(user)
    assert (gone.status, misses(gone)) == (ExitStatus.OK, []), gone.out + gone.err
    assert {"events: 1"} <= stage.told(gone)
    again = stage.run(user, "restore", gone.item["backup"], "--yes")
    assert (again.status, misses(again)) == (ExitStatus.OK, []), again.out + again.err
    assert again.item["outcome"] == "created"
    assert refused(world) == []


def test_the_operator_restores_without_reading_secrets(world: World) -> None:
    stage = Stage(world)
    user = grant(world, OPERATOR)
    until_in_force(lambda: not misses(stage.diagnosed(user)) and not misses(stage.planned(user)))
    source = {"cloudInitNoCloud": {"secretRef": {"name": "cloud-init"}}, "name": "cloud-init"}
    world.delete(world.vm("init", spec=builders.with_disks(volumes=[source])))
    gone = stage.run(user, "unstick", "vm", "init", *QUICK, "--yes")
    world.api.forget()
    run = stage.run(user, "restore", gone.item["backup"], "--yes")
    assert (run.status, run.item["outcome"]) == (ExitStatus.OK, "created")
    assert [line for line in run.item["warnings"] if "cloud-init" in line and "orbidden" in line]
    refused = {item.path for item in world.api.recorded() if item.status == 403}
    assert refused == {f"/api/v1/namespaces/{world.namespace}/secrets/cloud-init"}


def test_the_operator_of_one_namespace_releases_what_needs_no_node(world: World) -> None:
    stage = Stage(world)
    held = [replace(right, namespace=world.namespace) for right in OPERATOR if not right.namespace]
    user = grant(world, held)
    until_in_force(lambda: stage.run(user, "list").status is ExitStatus.OK)
    gone = stage.released(user)
    assert (gone.status, gone.item["outcome"]) == (ExitStatus.OK, "gone"), gone.out + gone.err
    assert stage.run(user, "list", "-A").status is ExitStatus.ERROR
    world.api.forget()
    off = ("--node-powered-off", world.dead)
    run = stage.run(user, "unstick", "vm", "web", *QUICK, "--yes", *off)
    assert run.status is ExitStatus.REFUSED
    assert [item["guard"] for item in run.item["refusals"]] == ["guest-stopped"]
    assert world.sent() == []


def inside(world: World, roles: Iterable[Right]) -> list[Right]:
    """The rights as a RoleBinding in this namespace gives them, those of Roles as they are."""
    return [right if right.namespace else replace(right, namespace=world.namespace)
            for right in roles]  # fmt: skip


def test_the_operator_of_one_namespace_releases_all_with_a_look_at_nodes_and_volumes(
    world: World,
) -> None:
    """What docs/rbac.md binds for one namespace: none of it opens another."""
    stage = Stage(world)
    user = grant(world, {*inside(world, OPERATOR), *INFRASTRUCTURE})
    until_in_force(lambda: stage.planned(user).status is ExitStatus.OK)
    assert stage.run(user, "list", "-A").status is ExitStatus.ERROR
    off = ("--node-powered-off", world.dead)
    run = stage.run(user, "unstick", "vm", "web", *QUICK, "--yes", *off)
    assert (run.status, run.item["outcome"], misses(run)) == (ExitStatus.OK, "gone", []), run.out


KUBEVIRT = Right("", "kubevirt.io", "kubevirts", "list")
"""What nobody misses whose KubeVirt runs in Harvester's namespace."""


def test_no_right_to_look_at_nodes_and_volumes_is_idle(world: World) -> None:
    stage = Stage(world)
    held = [*inside(world, OPERATOR), *INFRASTRUCTURE]
    asked = [right for right in INFRASTRUCTURE if right != KUBEVIRT]
    assert idle(stage, held, [stage.planned, stage.released], asked) == []


def test_where_kubevirt_runs_elsewhere_its_role_goes_there(world: World) -> None:
    """As docs/rbac.md says: the Role for virt-handler goes with the KubeVirt object."""
    stage = Stage(world)
    place = f"{world.namespace}-kubevirt"
    handler = builders.virt_handler(world.dead, ready=False)
    world.api.delete(handler, gracePeriodSeconds=0)
    handler["metadata"]["namespace"] = place
    world.create(handler)
    world.create(builders.bare(kinds.KUBEVIRT, place, "kubevirt"))
    moved = [replace(right, namespace=place) for right in INFRASTRUCTURE
             if right.namespace == "harvester-system"]  # fmt: skip
    held = [*inside(world, OPERATOR), *INFRASTRUCTURE, *moved]
    (listing,) = [right for right in INFRASTRUCTURE if right == KUBEVIRT]
    assert idle(stage, held, [stage.planned], [listing, *moved]) == []


def test_the_operator_may_do_what_the_viewer_may() -> None:
    assert set(VIEWER) < set(OPERATOR)


def test_no_role_holds_more_than_it_says() -> None:
    for right in (*VIEWER, *OPERATOR, *METRICS, *INFRASTRUCTURE):
        assert "*" not in (right.group, right.resource, right.verb), str(right)
        assert right.resource != "secrets"
        # Other settings hold credentials.
        assert (right.resource == "settings") == bool(right.names), str(right)
    assert {right.verb for right in VIEWER} == {"get", "list", "watch"}
    assert {right.verb for right in METRICS} == {"get", "list", "watch"}
    assert {right.verb for right in INFRASTRUCTURE} == {"get", "list"}
    changes = {(right.verb, right.resource) for right in set(OPERATOR) - set(VIEWER)
               if right.verb not in ("get", "list", "watch")}  # fmt: skip
    assert changes == {
        ("patch", "virtualmachines"),
        ("patch", "virtualmachineinstances"),
        ("delete", "pods"),
        ("create", "events"),
        ("create", "virtualmachines"),
    }


def test_no_right_of_the_viewer_is_idle(world: World) -> None:
    stage = Stage(world)
    # Those to watch have a test of their own.
    listing = [right for right in VIEWER if right not in WATCHES]
    # Nothing of it is being deleted, so `list` has to get it.
    world.vmi(world.vm("lost"), "lost")
    commands = [stage.diagnosed, stage.checked, stage.empty, stage.listed]
    assert idle(stage, VIEWER, commands, listing) == []


def test_no_right_to_watch_is_idle(world: World) -> None:
    Stage(world)
    assert {right.resource for right in WATCHES} == {
        "virtualmachines",
        "virtualmachineinstances",
        "pods",
    }
    without = {
        right: grant(world, [one for one in VIEWER if one is not right]) for right in WATCHES
    }
    whole = grant(world, VIEWER)
    until_in_force(lambda: world.run("list", "--as", whole).status is ExitStatus.OK)
    with watching(world, "--as", whole) as seen:
        told = {seen.next()[2], seen.next()[2]}
        world.delete(world.vm("later"))
        while "later" not in told:
            told.add(seen.next()[2])
        seen.process.terminate()
        assert seen.errors() == ""
    for right, user in without.items():
        with watching(world, "--as", user) as seen:
            assert seen.process.stderr is not None
            end = threading.Timer(15, seen.process.terminate)
            end.start()
            line = seen.process.stderr.readline()
            end.cancel()
            assert f"could not read {right.resource}" in line, str(right)


def test_no_right_of_the_operator_is_idle(world: World) -> None:
    stage = Stage(world)
    commands = [stage.planned, stage.remade, stage.released]
    # What the viewer has as well, `diagnose` misses: see above.
    beyond = [right for right in OPERATOR if right not in VIEWER]
    assert idle(stage, OPERATOR, commands, beyond) == []


def idle(
    stage: Stage,
    held: list[Right],
    commands: Sequence[Callable[[str], Run]],
    taken: list[Right] | None = None,
) -> list[str]:
    """The rights that none of these commands misses when they alone are taken away."""
    without = {
        right: grant(stage.world, [one for one in held if one is not right])
        for right in taken or held
    }
    whole = grant(stage.world, held)  # the last one, so that all are in force when it is
    until_in_force(lambda: not any(misses(command(whole)) for command in commands))
    usual = {command: stage.told(command(whole)) for command in commands}
    assert {command: stage.told(command(whole)) for command in commands} == usual
    return [
        str(right)
        for right, user in without.items()
        if all(stage.told(command(user)) == usual[command] for command in commands)
    ]


def complete(run: Run) -> float:
    """The metric that says whether everything could be read."""
    (value,) = [
        sample.value
        for family in text_string_to_metric_families(run.out)
        for sample in family.samples
        if sample.name == "harvester_stuck_list_complete"
    ]
    return float(value)


def test_the_metrics_need_each_right_of_their_role_and_no_other(world: World) -> None:
    stage = Stage(world)
    # A guest that lives: whether its node answers has to be known.
    world.live_node()
    world.vmi(world.vm("lives"), "lives", world.live)
    # One on a node without power: nothing is being deleted, so it has to be got.
    world.vmi(world.vm("lost"), "lost")

    without = {
        right: grant(world, [one for one in METRICS if one is not right]) for right in METRICS
    }
    whole = grant(world, METRICS)
    words = ("list", "-A", "-o", "prometheus", "--as", whole)
    until_in_force(lambda: complete(world.run(*words)) == 1)
    empty = f"{world.namespace}-empty"
    with contextlib.ExitStack() as running:

        def served(user: str, *where: str) -> Serving:
            return running.enter_context(serving(world, *where, "--as", user))

        everywhere, nowhere = served(whole, "-A"), served(whole, "-n", empty)
        less = {
            right: served(user, *(("-n", empty) if right.resource == "namespaces" else ("-A",)))
            for right, user in without.items()
        }
        found = everywhere.until(lambda found: found[COMPLETE] == 1)
        assert stage.world.namespace in str(found)
        nowhere.until(lambda found: found[COMPLETE] == 1)
        for right, metrics in less.items():
            found = metrics.until(lambda found: TIME in found)
            assert found[COMPLETE] == 0, str(right)
            assert any(name == "harvester_stuck_objects" for name, _ in found) is (
                right.resource != "namespaces"
            ), str(right)
            metrics.process.terminate()
            assert metrics.process.stderr is not None
            assert f"could not read {right.resource}" in metrics.process.stderr.read(), str(right)
        for metrics in (everywhere, nowhere):
            metrics.process.terminate()
            assert metrics.process.stderr is not None
            assert metrics.process.stderr.read() == ""


def test_whether_there_is_the_namespace_is_asked_until_it_is_known(world: World) -> None:
    Stage(world)
    right, *others = sorted(METRICS, key=lambda right: right.resource != "namespaces")
    user = grant(world, others)
    until_in_force(lambda: world.run("list", "--as", user).status is ExitStatus.OK)
    with serving(world, "-n", f"{world.namespace}-empty", "--as", user) as metrics:
        assert metrics.until(lambda found: TIME in found)[COMPLETE] == 0
        name = {"apiVersion": f"{RBAC}/v1", "metadata": {"name": f"{user}-more"}}
        rule = {"apiGroups": [right.group], "resources": [right.resource], "verbs": [right.verb]}
        world.create({**name, "kind": "ClusterRole", "rules": [rule]})
        role = {"apiGroup": RBAC, "kind": "ClusterRole", "name": f"{user}-more"}
        who = {"apiGroup": RBAC, "kind": "User", "name": user}
        world.create({**name, "kind": "ClusterRoleBinding", "roleRef": role, "subjects": [who]})
        metrics.until(lambda found: found[COMPLETE] == 1)
        metrics.process.terminate()
        assert metrics.process.stderr is not None
        assert metrics.process.stderr.read().endswith("Everything can be read again.\n")


def test_the_metrics_can_be_limited_to_namespaces(world: World) -> None:
    """What docs/rbac.md and the chart bind so that the account sees no other VM."""
    Stage(world)
    seen = [replace(right, namespace=world.namespace) for right in
            rights("metrics.yaml", "harvester-stuck-metrics")]  # fmt: skip
    user = grant(world, [*seen, *rights("metrics.yaml", "harvester-stuck-metrics-nodes")])
    words = ("list", "-o", "prometheus", "--as", user)
    until_in_force(lambda: complete(world.run(*words)) == 1)
    assert world.run(*words).status is ExitStatus.OK
    assert world.run(*words, "-n", f"{world.namespace}-empty").status is ExitStatus.ERROR
    assert world.run(*words, "-A").status is ExitStatus.ERROR
    with serving(world, "-n", world.namespace, "--as", user) as metrics:
        metrics.until(lambda found: found[COMPLETE] == 1)


def test_what_may_not_be_read_at_all_gives_no_count(world: World) -> None:
    Stage(world)
    run = world.run("list", "-A", "-o", "prometheus", user="alice")
    assert (run.status, complete(run)) == (ExitStatus.ERROR, 0)
    assert "harvester_stuck_objects" not in run.out
