"""Where a guest may run, and what proves of each place that it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.harvester import grace_period, places
from kubectl_harvester_stuck.harvester.places import Proof
from kubectl_harvester_stuck.harvester.target import Memory, Target
from kubectl_harvester_stuck.k8s.kinds import LEASE, MIGRATION, NODE, POD, VMI
from tests.support import builders
from tests.support.builders import Body, ago, snapshot, stored
from tests.test_guards import TARGET, dead_node, deleted_pod, deleted_vm, deleted_vmi, live_node
from tests.test_target import with_meta

MAY_RUN = None


@dataclass(frozen=True)
class Scene:
    """Objects, and the nodes that the operator states to be powered off."""

    bodies: list[Body]
    powered_off: frozenset[str] = frozenset()
    memory: Memory = field(default_factory=Memory)

    @property
    def target(self) -> Target:
        return Target(TARGET, snapshot(deleted_vm(), *self.bodies), self.memory)

    def proofs(self) -> dict[str, Proof | None]:
        """What was found of each place, by node and pod name."""
        found = {}
        for place in places.places(self.target):
            known = place.pod_uid or place.pod_name
            name = place.pod.ref.name if place.pod is not None else known
            found[f"{place.node}/{name}"] = places.assess(
                place, self.target, self.powered_off
            ).proof
        return found


def launcher(owner: Body, name: str, node: str | None = "node-2", **more: Any) -> Body:
    labels = more.pop("labels", {})
    body = deleted_pod(owner, node=node, **more)
    return with_meta(body, name=name, labels={**body["metadata"]["labels"], **labels})


def migrated(**state: Any) -> Body:
    node = state.pop("node", "node-2")
    more = state.pop("more", {})
    return deleted_vmi(node=node, status={"migrationState": state, **more})


def failed_migration(*managers: str, **more: Any) -> Body:
    """A VMI on node-1 whose migration to node-2 failed; `managers` wrote that it did."""
    instance = migrated(node="node-1", sourceNode="node-1", targetNode="node-2", failed=True,
                        completed=True, endTimestamp=ago(hours=2), **more)  # fmt: skip
    owned: Body = {"f:status": {"f:migrationState": {"f:failed": {}, "f:endTimestamp": {}}}}
    entries = [{"manager": name, "fieldsV1": owned} for name in managers]
    return with_meta(instance, managedFields=entries)


def of_migration(owner: Body, name: str, node: str = "node-2", **more: Any) -> Body:
    return launcher(owner, name, node, labels={"kubevirt.io/migrationJobUID": "m"}, **more)


def statuses(pod: Body, **states: Body) -> Body:
    """The pod with these containers, and what the kubelet reports of each."""
    spec = {**pod["spec"], "containers": [{"name": name} for name in states]}
    reported = [{"name": name, "state": state} for name, state in states.items()]
    return {**pod, "spec": spec, "status": {**pod["status"], "containerStatuses": reported}}


ENDED: Body = {"terminated": {"exitCode": 0, "reason": "Completed"}}
LOST: Body = {"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown"}}
RUNNING: Body = {"running": {}}
WAITING: Body = {"waiting": {"reason": "PodInitializing"}}


def one_pod(node: Callable[[], list[Body]] = dead_node, **states: Body) -> Scene:
    instance = deleted_vmi()
    return Scene([instance, statuses(launcher(instance, "a"), **states), *node()])


def rejected(node: Callable[[], list[Body]], phase: str = "Failed") -> Scene:
    instance = deleted_vmi(node=None, phase="Scheduling")
    pod = launcher(instance, "a", phase=phase)
    return Scene([instance, {**pod, "status": {"phase": phase}}, *node()])


def seen_by(manager: str, **more: Any) -> Body:
    """A VMI of a guest that ended, deleted ten seconds ago; `manager` wrote its phase."""
    status = more.pop("status", {})
    instance = deleted_vmi(phase="Failed", deleted=ago(seconds=10), status=status, **more)
    owned: Body = {"f:status": {"f:phase": {}}}
    return with_meta(instance, managedFields=[{"manager": manager, "fieldsV1": owned}])


def silent_since(seconds: int) -> Body:
    return deleted_vmi(deleted=ago(seconds=seconds))


def back_since(seconds: int) -> list[Body]:
    """A node that became Ready so long ago."""
    node, *rest = live_node()
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": ago(seconds=seconds)}
    return [{**node, "status": {"conditions": [ready]}}, *rest]


PLACES: dict[str, tuple[Callable[[], Scene], dict[str, Proof | None]]] = {
    # One ended pod proves only itself.
    "an ended pod of a failed migration, and a pod that was deleted by force": (
        lambda: Scene(
            [
                vmi := migrated(sourceNode="node-1", sourcePod="b", targetNode="node-2",
                                targetPod="c", completed=True),
                launcher(vmi, "a", terminated=True),
                *dead_node(),
            ]
        ),
        {"node-2/a": Proof.ENDED, "node-2/": MAY_RUN},
    ),
    "a pod of an earlier hop on the same node": (
        lambda: Scene(
            [
                vmi := migrated(sourceNode="node-2", sourcePod="back", targetNode="node-3",
                                failed=True),
                launcher(vmi, "a", terminated=True),
                *dead_node(),
            ]
        ),
        {"node-2/a": Proof.ENDED, "node-2/": MAY_RUN, "node-2/back": MAY_RUN,
         "node-3/target": MAY_RUN},
    ),
    "the pod that the guest runs in": (
        lambda: Scene(
            [vmi := deleted_vmi(), launcher(vmi, "a", terminated=True), *dead_node()]
        ),
        {"node-2/a": Proof.ENDED},
    ),
    "the pod that a migration made, of a guest that was never moved": (
        lambda: Scene([vmi := deleted_vmi(), of_migration(vmi, "a", terminated=True),
                       *dead_node()]),
        {"node-2/a": Proof.ENDED, "node-2/": MAY_RUN},
    ),
    "the target of a migration that has completed": (
        lambda: Scene(
            [
                vmi := migrated(sourceNode="node-1", targetNode="node-2", targetPod="a",
                                completed=True),
                of_migration(vmi, "a", terminated=True),
                *dead_node(),
            ]
        ),
        {"node-2/a": Proof.ENDED},
    ),
    # What names a place without its pod.
    "a pod that activePods names and that is gone": (
        lambda: Scene([deleted_vmi(node="node-1", status={"activePods": {"u": "node-2"}}),
                       *live_node("node-1"), *dead_node()]),
        {"node-1/": Proof.ABSENT, "node-2/u": MAY_RUN},
    ),
    "both ends of a migration that has not finished": (
        lambda: Scene([migrated(node="node-1", sourceNode="node-1", targetNode="node-2"),
                       *live_node("node-1"), *dead_node()]),
        {"node-1/": Proof.ABSENT, "node-1/source": Proof.ABSENT, "node-2/target": MAY_RUN},
    ),
    "a migration whose ends are on one node, and the pod of its source has ended": (
        lambda: Scene(
            [
                vmi := migrated(sourceNode="node-2", sourcePod="a", targetNode="node-2",
                                targetPod="b"),
                launcher(vmi, "a", terminated=True),
                *dead_node(),
            ]
        ),
        {"node-2/a": Proof.ENDED, "node-2/b": MAY_RUN},
    ),
    "a migration that has completed: its source is no place": (
        lambda: Scene([migrated(sourceNode="node-1", targetNode="node-2", completed=True),
                       *live_node(), *dead_node("node-1")]),
        {"node-2/": Proof.ABSENT},
    ),
    "a migration that has completed, of which the VMI does not know yet": (
        lambda: Scene([migrated(node="node-1", sourceNode="node-1", targetNode="node-2",
                                completed=True), *live_node("node-1"), *dead_node()]),
        {"node-1/": Proof.ABSENT, "node-2/target": MAY_RUN},
    ),
    "a migration that virt-handler saw fail: its target is no place": (
        lambda: Scene([failed_migration("virt-handler"), *live_node("node-1"), *dead_node()]),
        {"node-1/": Proof.ABSENT},
    ),
    "a migration that virt-controller calls failed, for it misses the target pod": (
        lambda: Scene([failed_migration("virt-controller"), *live_node("node-1"), *dead_node()]),
        {"node-1/": Proof.ABSENT, "node-2/target": MAY_RUN},
    ),
    "a migration that failed, and nobody knows who says so": (
        lambda: Scene([failed_migration(), *live_node("node-1"), *dead_node()]),
        {"node-1/": Proof.ABSENT, "node-2/target": MAY_RUN},
    ),
    "a failed migration of a guest that has shut down": (
        lambda: Scene([failed_migration(more={"phase": "Succeeded"}), *live_node("node-1"),
                       *dead_node()]),
        {"node-1/": Proof.ABSENT},
    ),
    "a migration that has failed, and its guest with it: it may run at the target": (
        lambda: Scene([migrated(sourceNode="node-3", targetNode="node-2", failed=True,
                                completed=True, node="node-3", more={"phase": "Failed"}),
                       *live_node("node-3"), *dead_node()]),
        {"node-2/target": MAY_RUN},
    ),
    "an open migrationState of a guest that has ended": (
        lambda: Scene([deleted_vmi(node="node-1", phase="Succeeded", status={
            "migrationState": {"sourceNode": "node-1", "targetNode": "node-2"}}),
            *live_node("node-1"), *dead_node()]),
        {"node-1/": Proof.ABSENT},
    ),
    "the other end of a migration between clusters": (
        lambda: Scene(
            [
                deleted_vmi(status={"migrationState": {
                    "sourceNode": "node-2", "targetNode": "west-7", "completed": True,
                    "sourceState": {"node": "node-2"},
                    "targetState": {"node": "west-7", "syncAddress": "10.9.9.9:9185"}}}),
                *live_node(),
            ]
        ),
        {"node-2/": Proof.ABSENT},
    ),
    "a guest that was never started": (
        lambda: Scene([deleted_vmi(node=None, phase="WaitingForSync")]), {},
    ),
    # What a kubelet reports of containers.
    "a container that the kubelet cannot find": (
        lambda: one_pod(compute=LOST), {"node-2/a": MAY_RUN},
    ),
    "a container that a kubelet which answers cannot find": (
        lambda: one_pod(live_node, compute=LOST), {"node-2/a": Proof.ABSENT},
    ),
    "a container that a kubelet which came back just now cannot find": (
        lambda: one_pod(lambda: back_since(44), compute=LOST), {"node-2/a": MAY_RUN},
    ),
    "a sidecar that outlives QEMU": (
        lambda: one_pod(live_node, compute=ENDED, sidecar=RUNNING), {"node-2/a": MAY_RUN},
    ),
    "a sidecar that never started": (
        lambda: one_pod(compute=ENDED, sidecar=WAITING), {"node-2/a": Proof.ENDED},
    ),
    "QEMU's container waits, by the last report of a node that is silent": (
        lambda: one_pod(init=ENDED, compute=WAITING), {"node-2/a": MAY_RUN},
    ),
    "a pod that its kubelet rejected": (
        lambda: rejected(live_node), {"node-2/a": Proof.ENDED},
    ),
    "a pod without any report on a node that came back just now": (
        lambda: rejected(lambda: back_since(59)), {"node-2/a": MAY_RUN},
    ),
    "a pod that its kubelet rejected, which has been back for long enough": (
        lambda: rejected(lambda: back_since(60)), {"node-2/a": Proof.ENDED},
    ),
    "a pod without any report on a node that is silent": (
        lambda: rejected(dead_node), {"node-2/a": MAY_RUN},
    ),
    "a pod without any report that its kubelet may still start": (
        lambda: rejected(live_node, "Pending"), {"node-2/a": MAY_RUN},
    ),
    # A node that answers, and how long it had.
    "the grace period counts from the deletion of the VMI": (
        lambda: Scene([silent_since(44), *live_node()]), {"node-2/": MAY_RUN},
    ),
    "and what a pod gets beyond it": (
        lambda: Scene([silent_since(45), *live_node()]), {"node-2/": Proof.ABSENT},
    ),
    "a node that came back just now": (
        lambda: Scene([silent_since(3600), *back_since(44)]), {"node-2/": MAY_RUN},
    ),
    "a node that has been back for long enough": (
        lambda: Scene([silent_since(3600), *back_since(45)]), {"node-2/": Proof.ABSENT},
    ),
    "a guest that nobody asked to stop": (
        lambda: Scene([deleted_vmi(deleted=None), *live_node()]), {"node-2/": MAY_RUN},
    ),
    "a guest whose end virt-handler saw": (
        lambda: Scene([seen_by("virt-handler"), *live_node()]), {"node-2/": Proof.ABSENT},
    ),
    "a guest whose end virt-handler saw, and a pod of it that was elsewhere": (
        lambda: Scene([seen_by("virt-handler", node="node-3",
                               status={"activePods": {"u": "node-2"}}),
                       *live_node("node-3"), *live_node()]),
        {"node-2/u": MAY_RUN, "node-3/": Proof.ABSENT},
    ),
    "a guest that virt-controller gave up": (
        lambda: Scene([seen_by("virt-controller"), *live_node()]), {"node-2/": MAY_RUN},
    ),
    "a guest of a node that did not answer": (
        lambda: Scene([seen_by("virt-handler", status={"reason": "NodeUnresponsive"}),
                       *live_node()]),
        {"node-2/": MAY_RUN},
    ),
    "Ready, but its Lease is old": (
        lambda: Scene([deleted_vmi(), *dead_node(ready="True", lease=ago(minutes=50))]),
        {"node-2/": MAY_RUN},
    ),
    "Ready, but created after the guest": (
        lambda: Scene([with_meta(deleted_vmi(), creationTimestamp=ago(hours=9)),
                       with_meta(live_node()[0], creationTimestamp=ago(hours=8)),
                       *live_node()[1:]]),
        {"node-2/": MAY_RUN},
    ),
    "Ready, and as old as the guest": (
        lambda: Scene([with_meta(deleted_vmi(), creationTimestamp=ago(hours=8)),
                       with_meta(live_node()[0], creationTimestamp=ago(hours=8)),
                       *live_node()[1:]]),
        {"node-2/": Proof.ABSENT},
    ),
    # The operator's statement.
    "a node that is stated to be off": (
        lambda: replace(one_pod(compute=RUNNING), powered_off=frozenset({"node-2"})),
        {"node-2/a": Proof.STATED},
    ),
    "a node that is stated to be off and answers": (
        lambda: replace(one_pod(live_node, compute=RUNNING), powered_off=frozenset({"node-2"})),
        {"node-2/a": MAY_RUN},
    ),
    "a node that is stated to be off, and whose Lease advances": (
        lambda: Scene([deleted_vmi(), *dead_node(lease=ago(minutes=20))], frozenset({"node-2"}),
                      Memory(signs={"node-2": {"lease": "2026-11-23T03:09:50.000000Z"}})),
        {"node-2/": MAY_RUN},
    ),
    "a node that is stated to be off, whose Lease stands still": (
        lambda: Scene([deleted_vmi(), *dead_node(lease=ago(minutes=20))], frozenset({"node-2"}),
                      Memory(signs={"node-2": {"lease": "2026-11-23T03:10:00.000000Z"}})),
        {"node-2/": Proof.STATED},
    ),
    "a node whose clock is behind, and whose Lease was stored just now": (
        lambda: Scene([deleted_vmi(), *renewed_just_now()], frozenset({"node-2"})),
        {"node-2/": MAY_RUN},
    ),
    # What an earlier look has shown.
    "a pod that ended before it was deleted": (
        lambda: Scene([vmi := deleted_vmi(), *dead_node()],
                      memory=Memory(proved=frozenset({f"{vmi['metadata']['uid']}/node-2/"}))),
        {"node-2/": Proof.ENDED},
    ),
    "a pod that ended, of an earlier VMI of the name": (
        lambda: Scene([deleted_vmi(), *dead_node()],
                      memory=Memory(proved=frozenset({"before/node-2/"}))),
        {"node-2/": MAY_RUN},
    ),
}  # fmt: skip


def renewed_just_now() -> list[Body]:
    """A silent node by its own clock, which is twenty minutes behind the API server's."""
    node, lease, handler = dead_node()
    entry = {"manager": "kubelet", "time": ago(seconds=3),
             "fieldsV1": {"f:spec": {"f:renewTime": {}}}}  # fmt: skip
    return [node, with_meta(lease, managedFields=[entry]), handler]


@pytest.mark.parametrize(("scene", "expected"), PLACES.values(), ids=PLACES.keys())
def test_each_place_needs_a_proof_of_its_own(
    scene: Callable[[], Scene], expected: dict[str, Proof | None]
) -> None:
    found = scene().proofs()
    # The node that the VMI names stands beside its pod, where that is known to be the guest's.
    assert {key: found[key] for key in expected} == expected
    assert all(proof is not MAY_RUN for key, proof in found.items() if key not in expected)


def test_what_was_shown_by_a_pod_is_remembered_without_it() -> None:
    instance = deleted_vmi()
    pod = launcher(instance, "a", terminated=True)
    before = Scene([instance, pod, *dead_node()])
    memory = places.remember(before.target)
    after = Scene([instance, *dead_node()], memory=memory)
    assert after.proofs() == {"node-2/": Proof.ENDED}
    assert replace(after, memory=Memory()).proofs() == {"node-2/": MAY_RUN}
    assert memory.signs["node-2"]["lease"].startswith("2026-11-23T03:10:00")


def test_the_pod_of_an_end_is_remembered_by_its_name() -> None:
    instance = migrated(sourceNode="node-2", sourcePod="a", targetNode="node-3", targetPod="b")
    pod = launcher(instance, "a", terminated=True)
    around = [instance, *dead_node(), *dead_node("node-3")]
    memory = places.remember(Scene([*around, pod]).target)
    ended = {"node-2/": Proof.ENDED, "node-2/a": Proof.ENDED}
    assert Scene(around, memory=memory).proofs() == {**ended, "node-3/b": MAY_RUN}


def test_the_first_sign_is_kept_so_that_slow_ones_advance_too() -> None:
    first = Scene([deleted_vmi(), *dead_node(lease=ago(minutes=20))])
    then = Scene([deleted_vmi(), *dead_node(lease=ago(minutes=19))])
    memory = places.remember(replace(then, memory=places.remember(first.target)).target)
    assert replace(then, memory=memory, powered_off=frozenset({"node-2"})).proofs() == {
        "node-2/": MAY_RUN
    }


@pytest.mark.parametrize(
    "status",
    [
        {"activePods": {"u": 7}},
        {"migrationState": {"targetNode": "n", "sourceState": {"syncAddress": "a"},
                            "targetState": {"syncAddress": "b"}}},
    ],
)  # fmt: skip
def test_what_cannot_be_told_blocks(status: Body) -> None:
    with pytest.raises(UnreadableError):
        places.places(Scene([deleted_vmi(status=status), *live_node()]).target)


def test_the_ends_of_a_migration_between_clusters_are_told_by_uid() -> None:
    instance = deleted_vmi()
    uid = instance["metadata"]["uid"]
    for own, other in (("source", "target"), ("target", "source")):
        state = {
            f"{own}State": {"virtualMachineInstanceUID": uid, "syncAddress": "a"},
            f"{other}State": {"virtualMachineInstanceUID": "there", "syncAddress": "b"},
        }
        assert places.remote_end(state, builders.parsed(instance)) == other


def test_an_unfinished_migration_to_another_cluster_blocks() -> None:
    state = {"sourceNode": "node-2", "targetNode": "west-7", "sourceState": {"node": "node-2"},
             "targetState": {"node": "west-7", "syncAddress": "a"}}  # fmt: skip
    for done, phase, blocks in (
        ({}, "Running", True),
        ({"completed": True}, "Running", False),
        ({"completed": True, "failed": True}, "Running", True),
        ({"completed": True, "failed": True}, "Failed", True),
        ({"completed": True}, "Succeeded", False),
        ({}, "Succeeded", False),
    ):
        instance = deleted_vmi(phase=phase, status={"migrationState": {**state, **done}})
        assert bool(places.may_run_elsewhere(Scene([instance]).target)) is blocks


def test_a_guest_that_did_not_come_from_another_cluster_is_not_awaited() -> None:
    state = {"sourceNode": "west-7", "targetNode": "node-2", "completed": True, "failed": True,
             "sourceState": {"node": "west-7", "syncAddress": "a"}}  # fmt: skip
    instance = deleted_vmi(phase="Failed", status={"migrationState": state})
    assert places.may_run_elsewhere(Scene([instance]).target) is None


def test_a_node_that_cannot_be_read_is_unknown() -> None:
    around = snapshot(deleted_vmi(), *live_node(), unreadable={NODE: "Forbidden"})
    target = Target(TARGET, around)
    (place,) = places.places(target)
    with pytest.raises(UnreadableError, match="could not read node node-2: Ready: Forbidden"):
        places.assess(place, target, ())


@pytest.mark.parametrize("seconds", [-1, True, "30", 2**63])
def test_a_grace_period_that_is_none_is_unknown(seconds: Any) -> None:
    instance = deleted_vmi(spec={"terminationGracePeriodSeconds": seconds})
    with pytest.raises(UnreadableError, match="its grace period is"):
        grace_period.left(Scene([instance]).target)


def test_a_node_that_became_ready_in_the_future_is_unknown() -> None:
    scene = Scene([silent_since(3600), *back_since(-61)])
    (place,) = places.places(scene.target)
    with pytest.raises(UnreadableError, match="in the future"):
        places.assess(place, scene.target, ())


def test_the_nodes_are_those_of_all_places() -> None:
    migrating = {"migrationState": {"sourceNode": "from-vmi", "targetNode": "to-vmi"}}
    instance = deleted_vmi(node="now", status={**migrating, "activePods": {"u": "active"}})
    migration = builders.migration("shop", "m", "web")
    state = {"migrationState": {"sourceNode": "from", "targetNode": "to"}}
    migration = {**migration, "status": {**migration["status"], **state}}
    pod = deleted_pod(instance, node="pod")
    assert places.nodes(Scene([instance, stored(migration), pod]).target) == (
        "active", "from", "from-vmi", "now", "pod", "to", "to-vmi"
    )  # fmt: skip


# What is said of a place, and whether only time has to pass


def told(scene: Scene) -> list[tuple[Proof | None, str, bool]]:
    """Proof, reason and whether only time has to pass, of each place; each is about itself."""
    found = []
    for place in places.places(scene.target):
        made = places.assess(place, scene.target, scene.powered_off)
        assert made.place is place
        found.append((made.proof, made.reason, made.is_waiting))
    return found


SILENT = "Ready: Unknown, heartbeat: 20m ago, lease: 20m ago, virt-handler: not Ready"
ALIVE = "Ready: True, heartbeat: 30s ago, lease: 5s ago, virt-handler: virt-handler-node-2 is Ready"


def unscheduled(**more: Any) -> Scene:
    instance = deleted_vmi(node=None, phase="Scheduling")
    return Scene([instance, launcher(instance, "a", node=None, **more)])


def alone(waited: int) -> Scene:
    """A pod whose VMI is gone, 30 s of grace in it, on a node that cannot find its container."""
    owner = deleted_vmi()
    meta = {"deletionTimestamp": ago(seconds=waited - 30), "deletionGracePeriodSeconds": 30}
    return Scene([statuses(with_meta(launcher(owner, "a"), **meta), compute=LOST), *live_node()])


TOLD: dict[str, tuple[Callable[[], Scene], tuple[Proof | None, str, bool]]] = {
    "ended": (
        lambda: Scene([vmi := deleted_vmi(), launcher(vmi, "a", terminated=True), *dead_node()]),
        (Proof.ENDED, "its containers have ended", False),
    ),
    "no node and in deletion": (unscheduled, (Proof.ENDED, "it was never given a node", False)),
    "no node yet": (
        lambda: unscheduled(deleted=None),
        (None, "pod a has no node yet and may still be given one", False),
    ),
    "rejected": (
        lambda: rejected(live_node),
        (Proof.ENDED, "its kubelet never started a container of it", False),
    ),
    "no report yet": (
        lambda: rejected(lambda: back_since(59)),
        (None, "node node-2 came back just now, and may not have reported yet what it runs of"
         " pod a", True),
    ),
    "stated": (
        lambda: replace(one_pod(compute=RUNNING), powered_off=frozenset({"node-2"})),
        (Proof.STATED, "node node-2 is stated to be powered off", False),
    ),
    "stated, and alive": (
        lambda: replace(one_pod(live_node, compute=RUNNING), powered_off=frozenset({"node-2"})),
        (None, f"node node-2 was said to have no power, but it shows life ({ALIVE})", False),
    ),
    "may still run": (
        lambda: one_pod(compute=RUNNING),
        (None, f"pod a on node node-2 may still run the guest ({SILENT})", False),
    ),
    "still runs": (
        lambda: one_pod(live_node, compute=RUNNING),
        (None, f"pod a on node node-2 still runs the guest ({ALIVE})", False),
    ),
    "a sidecar still runs": (
        lambda: one_pod(live_node, compute=ENDED, hook=RUNNING),
        (None, "pod a on node node-2 still runs container hook, which can hold the guest's disks,"
         f" ({ALIVE})", False),
    ),
    "the guest runs, and a sidecar": (
        lambda: one_pod(live_node, hook=RUNNING, compute=RUNNING),
        (None, f"pod a on node node-2 still runs the guest ({ALIVE})", False),
    ),
    "no pod on a silent node": (
        lambda: Scene([deleted_vmi(), *dead_node()]),
        (None, "no pod is left, but node node-2 does not answer, so the guest may still run there"
         f" ({SILENT})", False),
    ),
    "nobody asked": (
        lambda: Scene([deleted_vmi(deleted=None), *live_node()]),
        (None, "nobody has asked the guest on node-2 to stop", False),
    ),
    "no time yet": (
        lambda: Scene([silent_since(44), *live_node()]),
        (None, "node node-2 answers and has no pod of the guest, but has had 44s of the 45s that"
         " ending it can take", True),
    ),
    "no time yet, with a pod": (
        lambda: alone(44),
        (None, "node node-2 answers and finds no container of the guest, but has had 44s of the 45s"
         " that ending it can take", True),
    ),
    "a pod alone had its own time": (
        lambda: alone(45),
        (Proof.ABSENT, "node node-2 answers and has no pod of the guest", False),
    ),
    "absent": (
        lambda: Scene([silent_since(45), *live_node()]),
        (Proof.ABSENT, "node node-2 answers and has no pod of the guest", False),
    ),
    "seen to end": (
        lambda: Scene([seen_by("virt-handler"), *live_node()]),
        (Proof.ABSENT, "virt-handler on node-2 saw the guest end", False),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("scene", "expected"), TOLD.values(), ids=TOLD.keys())
def test_what_is_told_of_a_place(
    scene: Callable[[], Scene], expected: tuple[Proof | None, str, bool]
) -> None:
    assert expected in told(scene())


@pytest.mark.parametrize(("asked", "is_waiting"), [(20, True), (40, False), (None, False)])
def test_a_guest_that_runs_within_its_grace_period_is_waited_for(
    asked: float | None, is_waiting: bool
) -> None:
    deleted = None if asked is None else ago(seconds=asked)
    instance = deleted_vmi(deleted=deleted)
    pod = launcher(instance, "a", deleted=None if asked is None else ago(seconds=asked - 30))
    scene = Scene([instance, statuses(pod, compute=RUNNING), *live_node()])
    assert {waits for _, _, waits in told(scene)} == {is_waiting}


def test_a_pod_that_nobody_told_is_not_waited_for() -> None:
    instance = deleted_vmi(deleted=ago(seconds=20))
    pod = statuses(launcher(instance, "a", deleted=None), compute=RUNNING)
    assert {waits for _, _, waits in told(Scene([instance, pod, *live_node()]))} == {False}


def test_a_place_without_a_node_and_without_a_pod_is_unknown() -> None:
    scene = Scene([deleted_vmi(node=None, phase="Scheduling", status={"activePods": {"u": ""}})])
    (place,) = places.places(scene.target)
    with pytest.raises(UnreadableError) as error:
        places.assess(place, scene.target, ())
    assert (error.value.what, error.value.why) == (
        "status.activePods", "it does not say on which node the guest may run"
    )  # fmt: skip


@pytest.mark.parametrize("phase", ["Scheduled", "Running", "Unknown"])
def test_a_guest_that_has_begun_somewhere_names_its_node(phase: str) -> None:
    instance = deleted_vmi(node=None, phase=phase)
    with pytest.raises(UnreadableError) as error:
        places.places(Scene([instance]).target)
    assert error.value.what == "VirtualMachineInstance shop/web"
    assert error.value.why == f"it is {phase}, but names no node"
    # Its pod says where it is, and so does activePods.
    assert places.nodes(Scene([instance, launcher(instance, "a")]).target) == ("node-2",)
    active = deleted_vmi(node=None, phase=phase, status={"activePods": {"u": "node-3"}})
    assert places.nodes(Scene([active]).target) == ("node-3",)


@pytest.mark.parametrize(
    "phase", ["", "Pending", "Scheduling", "WaitingForSync", "Succeeded", "Failed"]
)
def test_a_guest_that_has_not_begun_or_has_ended_needs_no_node(phase: str) -> None:
    assert places.places(Scene([deleted_vmi(node=None, phase=phase)]).target) == ()


@pytest.mark.parametrize("phase", ["", "Pending", "Scheduling", "WaitingForSync"])
def test_a_guest_that_has_not_begun_runs_in_no_other_cluster(phase: str) -> None:
    state = {"sourceNode": "west-7", "targetNode": "node-2",
             "sourceState": {"node": "west-7", "syncAddress": "a"}}  # fmt: skip
    waiting = deleted_vmi(phase=phase, status={"migrationState": state})
    assert places.may_run_elsewhere(Scene([waiting]).target) is None
    running = deleted_vmi(phase="Running", status={"migrationState": state})
    assert places.may_run_elsewhere(Scene([running]).target) is not None
    assert places.may_run_elsewhere(Scene([]).target) is None


@pytest.mark.parametrize(
    ("failed", "ended", "may_have_moved"),
    [
        ("virt-handler", "virt-handler", False),
        ("virt-handler", "virt-controller", True),
        ("virt-controller", "virt-handler", True),
        ("virt-handler", None, False),
        (None, "virt-handler", False),
        (None, None, True),
    ],
)
def test_only_virt_handler_sees_a_migration_fail(
    failed: str | None, ended: str | None, may_have_moved: bool
) -> None:
    instance = failed_migration()
    entries = [
        {"manager": manager, "fieldsV1": {"f:status": {"f:migrationState": {f"f:{name}": {}}}}}
        for name, manager in (("failed", failed), ("endTimestamp", ended))
        if manager is not None
    ]
    scene = Scene([with_meta(instance, managedFields=entries)])
    assert ("node-2" in places.nodes(scene.target)) is may_have_moved


def test_a_guest_that_failed_after_its_migration_did_may_be_at_either_end() -> None:
    """virt-handler calls both failed when a guest that has moved is not reported from there."""
    scene = Scene([failed_migration("virt-handler", more={"phase": "Failed"})])
    assert places.nodes(scene.target) == ("node-1", "node-2")
    scene = Scene([failed_migration("virt-handler")])
    assert places.nodes(scene.target) == ("node-1",)


def test_a_migration_that_has_not_failed_may_have_moved_the_guest_whoever_says_so() -> None:
    instance = migrated(node="node-1", sourceNode="node-1", targetNode="node-2", failed=False)
    owned: Body = {"f:status": {"f:migrationState": {"f:failed": {}}}}
    entries = [{"manager": "virt-handler", "fieldsV1": owned}]
    scene = Scene([with_meta(instance, managedFields=entries)])
    assert places.nodes(scene.target) == ("node-1", "node-2")


def test_an_end_that_names_no_node_is_no_place() -> None:
    scene = Scene([migrated(sourceNode="node-2", targetNode=None)])
    assert places.nodes(scene.target) == ("node-2",)
    scene = Scene([migrated(sourceNode="node-2")])
    assert places.nodes(scene.target) == ("node-2",)


def test_what_the_vmi_says_of_its_grace_period_counts_also_where_a_pod_says_less() -> None:
    spec = {"terminationGracePeriodSeconds": 120}
    instance = deleted_vmi(deleted=ago(seconds=60), spec=spec)
    pod = statuses(launcher(instance, "a", deleted=ago(seconds=30)), compute=LOST)
    for bodies in ([instance], [instance, pod]):
        assert {proof for proof, _, _ in told(Scene([*bodies, *live_node()]))} == {MAY_RUN}


def test_where_its_pod_cannot_be_told_each_pod_on_the_node_counts() -> None:
    instance = deleted_vmi()
    pods = [statuses(launcher(instance, name), compute=LOST) for name in ("a", "b")]
    runs = statuses(launcher(instance, "b"), compute=RUNNING)
    elsewhere = statuses(launcher(instance, "c", node="node-3"), compute=RUNNING)
    around = [instance, *live_node()]

    def of_the_node(*bodies: Body) -> tuple[Proof | None, str]:
        scene = Scene([*around, *bodies])
        (place,) = [place for place in places.places(scene.target) if place.key == "node-2/"]
        assessed = places.assess(place, scene.target, ())
        assert assessed.place is place
        return assessed.proof, assessed.reason

    assert of_the_node(pods[0], runs) == (
        None, f"pod b on node node-2 still runs the guest ({ALIVE})"
    )  # fmt: skip
    assert of_the_node(*pods, elsewhere)[0] is Proof.ABSENT


def test_signs_of_the_nodes_of_hotplugged_volumes_are_remembered() -> None:
    instance = deleted_vmi()
    pod = launcher(instance, "a")
    volume = stored(builders.attachment_pod("shop", "hp-volume-x", "node-3", pod, instance))
    waiting = stored(builders.attachment_pod("shop", "hp-volume-y", "", pod, instance))
    around = [instance, pod, volume, waiting, *dead_node(), *dead_node("node-3")]
    memory = places.remember(Scene(around).target)
    assert memory.signs.keys() == {"node-2", "node-3"}
    assert memory.signs["node-3"].keys() == {"heartbeat", "lease"}


# The rest of what places are made of


def test_what_places_are_told_by_is_declared() -> None:
    assert {NODE, LEASE, VMI, POD, MIGRATION} <= {read.kind for read in places.PLACES}


def evidence(*bodies: Body) -> dict[str, str]:
    return {place.key: place.evidence for place in places.places(Scene([*bodies]).target)}


def test_each_place_says_where_it_is_from() -> None:
    instance = deleted_vmi(status={"activePods": {"gone": "node-3"}})
    pod = launcher(instance, "a")
    uid = pod["metadata"]["uid"]
    instance["status"]["activePods"][uid] = "node-2"
    migration = builders.migration("shop", "m", "web")
    state = {"migrationState": {"sourceNode": "node-4", "targetNode": "node-5", "targetPod": "t"}}
    migration = {**migration, "status": {**migration["status"], **state}}
    assert evidence(instance, pod, stored(migration)) == {
        f"node-2/{uid}": "pod a",
        "node-3/gone": "status.activePods",
        "node-2/": "status.nodeName",
        "node-4/source": "the source of a migration",
        "node-5/t": "the target of a migration",
    }


def test_only_the_end_in_another_cluster_is_left_out() -> None:
    state = {"sourceNode": "west-7", "targetNode": "node-2",
             "sourceState": {"node": "west-7", "syncAddress": "a"}}  # fmt: skip
    assert evidence(deleted_vmi(node=None, phase="Scheduled", status={"migrationState": state,
                                "activePods": {"u": "node-2"}})) == {
        "node-2/u": "status.activePods", "node-2/target": "the target of a migration",
    }  # fmt: skip


def test_a_place_without_a_node_is_no_node() -> None:
    assert places.nodes(unscheduled().target) == ()


def test_an_active_pod_whose_node_is_no_text_is_unknown() -> None:
    with pytest.raises(UnreadableError) as error:
        places.places(Scene([deleted_vmi(status={"activePods": {"u": 7}})]).target)
    assert error.value.what == "VirtualMachineInstance shop/web"
    assert error.value.why == "status.activePods.u is not a string"


@pytest.mark.parametrize(
    ("state", "answer"),
    [
        ({}, False),
        ({"sourceNode": "n"}, True),
        ({"sourceNode": "n", "completed": False, "failed": False}, True),
        ({"completed": True}, False),
        ({"failed": True}, False),
        ({"endTimestamp": ago(minutes=1)}, False),
    ],
)
def test_a_migration_is_open_until_it_says_how_it_ended(state: Body, answer: bool) -> None:
    assert places.is_open(state) is answer


OWN = "own"


@pytest.mark.parametrize(
    ("source", "target", "answer"),
    [
        (None, None, None),
        ({}, {}, None),
        ({"virtualMachineInstanceUID": OWN}, {"virtualMachineInstanceUID": "x"}, None),
        ({"syncAddress": "a"}, {}, "source"),
        ({}, {"syncAddress": "a"}, "target"),
        ({"syncAddress": "a", "virtualMachineInstanceUID": OWN}, {}, "target"),
        ({"syncAddress": "a"}, {"virtualMachineInstanceUID": OWN}, "source"),
    ],
)
def test_which_end_is_in_another_cluster(
    source: Body | None, target: Body | None, answer: str | None
) -> None:
    vmi = builders.parsed(with_meta(deleted_vmi(), uid=OWN))
    assert places.remote_end({"sourceState": source, "targetState": target}, vmi) == answer


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ({"syncAddress": "a"}, {"syncAddress": "b"}),
        ({"syncAddress": "a", "virtualMachineInstanceUID": "x"}, {}),
        (
            {"syncAddress": "a", "virtualMachineInstanceUID": OWN},
            {"virtualMachineInstanceUID": OWN},
        ),
    ],
)
def test_ends_that_cannot_be_told_apart_are_unknown(source: Body, target: Body) -> None:
    vmi = builders.parsed(with_meta(deleted_vmi(), uid=OWN))
    with pytest.raises(UnreadableError) as error:
        places.remote_end({"sourceState": source, "targetState": target}, vmi)
    assert error.value.what == "VirtualMachineInstance shop/web"
    assert error.value.why == "status.migrationState does not say which end is its own"


def test_a_migration_within_the_cluster_leads_to_no_other() -> None:
    within = Scene([migrated(sourceNode="a", targetNode="b")])
    assert places.may_run_elsewhere(within.target) is None


def test_who_wrote_the_rest_of_a_migration_says_nothing_of_its_end() -> None:
    instance = failed_migration("virt-handler")
    owned: Body = {"f:status": {"f:migrationState": {"f:sourceNode": {}}}}
    entries = [*instance["metadata"]["managedFields"],
               {"manager": "virt-controller", "fieldsV1": owned}]  # fmt: skip
    assert places.nodes(Scene([with_meta(instance, managedFields=entries)]).target) == ("node-1",)


def guests_pod(*pods: Body, **state: Any) -> str | None:
    """Name of the pod behind `status.nodeName`, node-2, where pods are on it and elsewhere."""
    instance = migrated(**state) if state else deleted_vmi()
    made = [{**pod, "metadata": {**pod["metadata"], "ownerReferences": [
        {**pod["metadata"]["ownerReferences"][0], "uid": instance["metadata"]["uid"]}]}}
        for pod in pods]  # fmt: skip
    (place,) = [
        place for place in places.places(Scene([instance, *made]).target)
        if place.evidence == "status.nodeName"
    ]  # fmt: skip
    return place.pod.ref.name if place.pod is not None else None


def test_which_pod_is_that_of_the_guest() -> None:
    owner = deleted_vmi()
    a, b = launcher(owner, "a"), launcher(owner, "b")
    new, elsewhere = of_migration(owner, "new"), launcher(owner, "elsewhere", node="node-3")
    assert guests_pod(a) == "a"
    assert guests_pod(a, new) == "a"
    assert guests_pod(a, elsewhere) == "a"
    assert guests_pod(a, b) is None
    assert guests_pod(new) is None
    assert guests_pod(elsewhere) is None
    ends = {"sourcePod": "a", "targetPod": "new"}
    both_here = {"sourceNode": "node-2", "targetNode": "node-2", **ends}
    # It is at the source until it has arrived.
    assert guests_pod(a, new, **both_here) == "a"
    assert guests_pod(a, new, **both_here, completed=True) == "new"
    assert guests_pod(a, new, **both_here, completed=True, failed=True) == "a"
    to_here = {"sourceNode": "node-3", "targetNode": "node-2", **ends}
    assert guests_pod(a, new, **to_here) == "new"
    from_here = {"sourceNode": "node-2", "targetNode": "node-3", **ends}
    assert guests_pod(a, new, **from_here, completed=True) == "a"
    assert guests_pod(a, new, sourceNode="node-3", targetNode="node-4", **ends) is None
    # Its pod is gone, and the one that is there is another one.
    assert guests_pod(b, **both_here) is None
    assert guests_pod({**a, "spec": {**a["spec"], "nodeName": "node-3"}}, **both_here) is None


def test_a_pod_that_runs_was_not_rejected_whatever_its_phase_says() -> None:
    instance = deleted_vmi()
    pod = statuses(launcher(instance, "a", phase="Failed"), compute=RUNNING)
    assert (None, f"pod a on node node-2 still runs the guest ({ALIVE})", False) in told(
        Scene([instance, pod, *live_node()])
    )


def test_a_container_that_a_silent_node_cannot_find_may_still_run() -> None:
    assert told(one_pod(compute=LOST))[0] == (
        None, f"pod a on node node-2 may still run the guest ({SILENT})", False
    )  # fmt: skip


def test_nobody_asked_a_pod_that_stands_alone() -> None:
    pod = statuses(launcher(deleted_vmi(), "a", deleted=None), compute=LOST)
    nobody = (None, "nobody has asked the guest on node-2 to stop", False)
    assert told(Scene([pod, *live_node()])) == [nobody]


def test_a_pod_that_stands_alone_has_its_own_grace_period() -> None:
    meta = {"deletionTimestamp": ago(seconds=-40), "deletionGracePeriodSeconds": 100}
    pod = statuses(with_meta(launcher(deleted_vmi(), "a"), **meta), compute=LOST)
    ((proof, reason, waits),) = told(Scene([pod, *live_node()]))
    assert (proof, waits) == (None, True)
    assert reason.endswith("has had 60s of the 115s that ending it can take")


def test_a_guest_that_virt_handler_calls_running_has_not_ended() -> None:
    ended = seen_by("virt-handler")
    running = {**ended, "status": {**ended["status"], "phase": "Running"}}
    assert [proof for proof, _, _ in told(Scene([running, *live_node()]))] == [None]


def test_who_wrote_the_rest_of_the_status_says_nothing_of_its_phase() -> None:
    ended = seen_by("virt-handler")
    other = {"manager": "virt-controller", "fieldsV1": {"f:status": {"f:conditions": {}}}}
    entries = [*ended["metadata"]["managedFields"], other]
    scene = Scene([with_meta(ended, managedFields=entries), *live_node()])
    assert told(scene) == [(Proof.ABSENT, "virt-handler on node-2 saw the guest end", False)]


def test_a_clock_that_is_a_little_ahead_is_no_future() -> None:
    scene = Scene([silent_since(3600), *back_since(-60)])
    (place,) = places.places(scene.target)
    assert places.assess(place, scene.target, ()).is_waiting
    scene = Scene([silent_since(3600), *back_since(-61)])
    with pytest.raises(UnreadableError) as error:
        places.assess(place, scene.target, ())
    assert error.value.what == "node node-2"


def test_nothing_is_remembered_of_what_did_not_end_or_cannot_be_read() -> None:
    instance = deleted_vmi()
    runs = one_pod(compute=RUNNING)
    assert places.remember(runs.target).proved == frozenset()
    proved = frozenset({"u/n/p"})
    for kind in (POD, VMI, MIGRATION):
        around = snapshot(deleted_vm(), instance, *dead_node(), unreadable={kind: "Forbidden"})
        memory = places.remember(Target(TARGET, around, Memory(proved)))
        assert memory == Memory(proved)
    odd = {**launcher(instance, "a"), "status": {"containerStatuses": 5}}
    assert places.remember(Scene([instance, odd, *dead_node()]).target).proved == frozenset()


def test_signs_are_remembered_by_the_names_of_nodes() -> None:
    instance = deleted_vmi(node=None, phase="Scheduling")
    pods = [launcher(instance, "a", node=None), launcher(instance, "b")]
    assert places.remember(Scene([instance, *pods, *dead_node()]).target).signs.keys() == {"node-2"}
