"""Guards, from objects to their answer: pass, refuse, and unknown where something is unreadable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.harvester import goes_with_vm
from kubectl_harvester_stuck.harvester.pending_work import REMOVED_PVCS
from kubectl_harvester_stuck.harvester.target import Target
from kubectl_harvester_stuck.k8s.kinds import (
    LEASE,
    MIGRATION,
    NODE,
    POD,
    PV,
    VM,
    VM_BACKUP,
    VMI,
    Kind,
)
from kubectl_harvester_stuck.k8s.objects import ObjectRef
from kubectl_harvester_stuck.release import guards, model, plan
from kubectl_harvester_stuck.release.guards import GUARDS, PreflightResults
from kubectl_harvester_stuck.release.model import (
    GuardResult,
    GuardState,
    Plan,
    ReleaseRequest,
    Step,
)
from tests.support import builders
from tests.support.advice import lines
from tests.support.builders import NOW, Body, ago, parsed, snapshot, stored

TARGET = ObjectRef("shop", "web", VM)
OFF = ReleaseRequest(powered_off=frozenset({"node-2"}))
AS_WELL = ReleaseRequest(powered_off=frozenset({"node-2", "node-3"}))


def deleted_vm(**more: Any) -> Body:
    when = more.pop("deleted", ago(hours=1))
    return stored(builders.vm("shop", "web", **more), deleted=when)


def deleted_vmi(**more: Any) -> Body:
    when = more.pop("deleted", ago(hours=1))
    return stored(builders.vmi("shop", "web", more.pop("node", "node-2"), **more), deleted=when)


def deleted_pod(owner: Body, **more: Any) -> Body:
    when = more.pop("deleted", ago(hours=1))
    body = builders.pod("shop", "virt-launcher-web", more.pop("node", "node-2"), owner, **more)
    return stored(body, deleted=when, grace=30 if when else 0)


def dead_node(name: str = "node-2", **more: Any) -> list[Body]:
    """A node whose four signs are all silent."""
    return [
        stored(builders.node(name, heartbeat=more.get("heartbeat", ago(minutes=20)),
                             ready=more.get("ready", "Unknown"))),
        stored(builders.lease(name, more.get("lease", ago(minutes=20)))),
        stored(builders.virt_handler(name, ready=more.get("handler", False))),
    ]  # fmt: skip


def live_node(name: str = "node-2") -> list[Body]:
    return dead_node(
        name, ready="True", heartbeat=ago(seconds=30), lease=ago(seconds=5), handler=True
    )


def ready_since(when: str) -> list[Body]:
    """A live node that became Ready then."""
    node, *rest = live_node()
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": when}
    return [{**node, "status": {"conditions": [ready]}}, *rest]


@dataclass(frozen=True)
class Scene:
    """Objects, what the operator says, what cannot be read, and what the API server answers."""

    bodies: list[Body]
    request: ReleaseRequest = field(default_factory=ReleaseRequest)
    unreadable: Mapping[Kind, str] = field(default_factory=dict)
    ref: ObjectRef = TARGET
    deny: str | None = None
    forbid: str | None = None
    shown: Callable[[tuple[Step, ...]], tuple[Step, ...]] | None = None

    def plan(self) -> Plan:
        case = Target(self.ref, snapshot(*self.bodies, unreadable=self.unreadable,
                                       namespace=self.ref.namespace))  # fmt: skip
        draft = plan.build(case, self.request)
        refs = [step.ref for step in draft.steps]
        answers = PreflightResults(dict.fromkeys(refs, self.forbid), dict.fromkeys(refs, self.deny))
        shown = self.shown(draft.steps) if self.shown else None
        return plan.with_preflight(plan.build(case, self.request, shown=shown), answers)


def powered_off_scene(**more: Any) -> list[Body]:
    """VM, VMI and pod, all deleted an hour ago, on a silent node."""
    instance = deleted_vmi()
    return [deleted_vm(), instance, deleted_pod(instance), *dead_node(**more)]


def alone() -> list[Body]:
    return [deleted_vm()]


def system_vm() -> list[Body]:
    return [stored(builders.vm("harvester-system", "repo"), deleted=ago(hours=1))]


def unterminated(terminated: bool, **more: Any) -> list[Body]:
    instance = deleted_vmi()
    return [
        deleted_vm(),
        instance,
        deleted_pod(instance, terminated=terminated),
        *live_node(**more),
    ]


def shutting_down(
    grace: int | None, *, of_vmi: str | None = ago(hours=1), phase: str = "Running", **pod: Any
) -> list[Body]:
    """A guest that gets so many seconds, deleted on a live node; `pod` is for its pod."""
    spec = {} if grace is None else {"terminationGracePeriodSeconds": grace}
    instance = deleted_vmi(deleted=of_vmi, phase=phase, spec=spec)
    return [deleted_vm(), instance, deleted_pod(instance, **pod), *live_node()]


def slow_guest() -> Body:
    """A VMI that is being deleted and gets another hour."""
    return deleted_vmi(spec={"terminationGracePeriodSeconds": 7200})


def migrated(over: str) -> Body:
    """A VMI whose migration is over, as one of three fields tells."""
    state = {"sourceNode": "node-1", "targetNode": "node-2", over: ago(hours=2)}
    return deleted_vmi(status={"migrationState": state})


def pod_of(node: str) -> list[Body]:
    """A VMI that is final, without pods, last seen on `node`."""
    return [deleted_vm(), deleted_vmi(phase="Failed", node=node)]


def ended_guest() -> list[Body]:
    """A guest that has ended on a live node, with its VMI."""
    return [*pod_of("node-2"), *live_node()]


def owned(by: str | None, *, policy: str = "Delete", ticked: str = "") -> list[Body]:
    """A VM with a disk that an object of that kind owns, which the VM owns."""
    notes = {REMOVED_PVCS: ticked}
    vm = deleted_vm(spec=builders.with_disks("web-root"), annotations=notes)
    between = stored(builders.bare(builders.KINDS[by or "DataVolume"], "shop", "root", owner=vm))
    return [
        vm,
        between,
        stored(builders.pvc("shop", "web-root", owner=between if by else None, volume="pv-1")),
        stored(builders.volume("pv-1", policy)),
    ]


# guard, expected answer, scene
P, R, U = GuardState.PASS, GuardState.REFUSE, GuardState.UNKNOWN


def _migration_is_over(how: str) -> Scene:
    return Scene([deleted_vm(), migrated(how), *live_node()])


def _cannot_read(kind: Kind) -> Scene:
    return Scene(owned(None), unreadable={kind: "Forbidden"})


SCENES: dict[str, tuple[str, GuardState, Callable[[], Scene]]] = {
    "a deleted VM": ("terminating", P, lambda: Scene(alone())),
    "a VM that lives": ("terminating", R, lambda: Scene([stored(builders.vm("shop", "web"))])),
    "a VM in deletion whose VMI lives": (
        "terminating", R,
        lambda: Scene([deleted_vm(), deleted_vmi(deleted=None, phase="Failed"), *live_node()]),
    ),
    "a pod that is not being deleted": (
        "terminating", R,
        lambda: Scene(
            [deleted_vm(), vmi := deleted_vmi(), deleted_pod(vmi, deleted=None, terminated=True),
             *live_node()]
        ),
    ),
    "a VM in deletion whose VMI and pod live": (
        "terminating", R,
        lambda: Scene([deleted_vm(), vmi := deleted_vmi(deleted=None),
                       deleted_pod(vmi, deleted=None), *live_node()]),
    ),
    "a pod that is not being deleted, its VMI gone": (
        "terminating", R, lambda: Scene([deleted_vm(), deleted_pod(deleted_vmi(), deleted=None)]),
    ),
    "a pod that is not being deleted, of a VMI without a VM": (
        "terminating", R,
        lambda: Scene([vmi := deleted_vmi(), deleted_pod(vmi, deleted=None), *live_node()],
                      ref=ObjectRef("shop", "web", VMI)),
    ),
    "a VM that lives, and its pod": (
        "terminating", R,
        lambda: Scene([stored(builders.vm("shop", "web")), vmi := deleted_vmi(deleted=None),
                       deleted_pod(vmi, deleted=None), *live_node()]),
    ),
    "a VM that lives, its pod past its grace period": (
        "terminating",
        P,
        lambda: Scene(
            [
                stored(builders.vm("shop", "web")),
                vmi := deleted_vmi(deleted=None),
                deleted_pod(vmi),
                *dead_node(),
            ],
            OFF,
        ),
    ),
    "a VM that lives, its pod within its grace period": (
        "terminating",
        R,
        lambda: Scene(
            [
                stored(builders.vm("shop", "web")),
                vmi := deleted_vmi(deleted=None),
                deleted_pod(vmi, deleted=ago(minutes=-5)),
                *live_node(),
            ],
        ),
    ),
    "a VM that lives, its node silent": (
        "terminating",
        R,
        lambda: Scene(
            [
                stored(builders.vm("shop", "web")),
                vmi := deleted_vmi(deleted=None),
                deleted_pod(vmi, deleted=None),
                *dead_node(),
            ],
            OFF,
        ),
    ),
    "a VM that lives, and nobody knows of its node": (
        "terminating",
        U,
        lambda: Scene(
            [stored(builders.vm("shop", "web")), deleted_vmi(deleted=None)],
            unreadable={NODE: "Forbidden"},
        ),
    ),
    "a state that cannot be read": (
        "terminating", U,
        lambda: Scene([stored(builders.vm("shop", "web"))], unreadable={VMI: "Forbidden"}),
    ),
    "the plan that was shown": ("unchanged", P, lambda: Scene(alone(), shown=lambda steps: steps)),
    "another resourceVersion than shown": (
        "unchanged", R,
        lambda: Scene(alone(), shown=lambda s: (replace(s[0], resource_version="1"),)),
    ),
    "another uid than shown": (
        "unchanged", R, lambda: Scene(alone(), shown=lambda s: (replace(s[0], uid="another"),)),
    ),
    "another patch than shown": (
        "unchanged", R, lambda: Scene(alone(), shown=lambda s: (replace(s[0], body={}),)),
    ),
    "a step that was not shown": ("unchanged", R, lambda: Scene(alone(), shown=lambda _: ())),
    "a step that is no longer needed": (
        "unchanged", R,
        lambda: Scene(
            alone(), shown=lambda s: (*s, replace(s[0], ref=ObjectRef("shop", "x", POD)))
        ),
    ),
    "deleted an hour ago": ("past-grace", P, lambda: Scene(alone())),
    "deleted a minute ago": (
        "past-grace", R, lambda: Scene([deleted_vm(deleted=ago(minutes=1))]),
    ),
    "deleted a minute ago, overridden by name only": (
        "past-grace", R,
        lambda: Scene([deleted_vm(deleted=ago(minutes=1))],
                      ReleaseRequest(overrides=frozenset({"past-grace"}))),
    ),
    "deleted a minute ago, with --older-than": (
        "past-grace", P,
        lambda: Scene([deleted_vm(deleted=ago(minutes=1))],
                      ReleaseRequest(older_than=timedelta(seconds=30))),
    ),
    "a guest within its grace period on a live node": (
        "past-grace", R,
        lambda: Scene(
            [deleted_vm(), vmi := deleted_vmi(spec={"terminationGracePeriodSeconds": 7200}),
             deleted_pod(vmi), *live_node()]
        ),
    ),
    "the same, overridden": (
        "past-grace", P,
        lambda: Scene(
            [deleted_vm(), vmi := deleted_vmi(spec={"terminationGracePeriodSeconds": 7200}),
             deleted_pod(vmi), *live_node()],
            ReleaseRequest(overrides=frozenset({"past-grace"})),
        ),
    ),
    "a guest within its grace period on a dead node": (
        "past-grace", P,
        lambda: Scene(
            [deleted_vm(), vmi := deleted_vmi(spec={"terminationGracePeriodSeconds": 7200}),
             deleted_pod(vmi), *dead_node()], OFF,
        ),
    ),
    "deleted exactly as long ago as --older-than says": (
        "past-grace", P, lambda: Scene(alone(), ReleaseRequest(older_than=timedelta(hours=1))),
    ),
    "deleted a minute ago, with nothing that may be removed": (
        "past-grace", R,
        lambda: Scene([deleted_vm(deleted=ago(minutes=1), finalizers=["example.com/x"])]),
    ),
    "a guest within its grace period, and how long its node has answered cannot be told": (
        "past-grace", R,
        lambda: Scene([deleted_vm(), slow_guest(), *ready_since(ago(hours=-1))]),
    ),
    "a guest within its grace period, a pod of it that has ended beside it": (
        "past-grace", R,
        lambda: Scene([deleted_vm(), vmi := slow_guest(), _other(deleted_pod(vmi)),
                       deleted_pod(vmi, node="node-1", terminated=True), *live_node("node-1"),
                       *live_node()]),
    ),
    "a guest within its grace period on a node that does not answer": (
        "past-grace", P,
        lambda: Scene([deleted_vm(), vmi := slow_guest(), deleted_pod(vmi), *dead_node()]),
    ),
    "a guest past its grace period on a live node": (
        "past-grace", P,
        lambda: Scene(shutting_down(7200, of_vmi=ago(hours=3), deleted=ago(hours=3))),
    ),
    "a guest whose grace period ends at this second": (
        "past-grace", P, lambda: Scene(shutting_down(3600)),
    ),
    "a guest that has a second left": ("past-grace", R, lambda: Scene(shutting_down(3601))),
    "a guest that does not say how long it needs": (
        "past-grace", R,
        lambda: Scene(shutting_down(None, deleted=ago(seconds=-1)),
                      ReleaseRequest(older_than=timedelta(0))),
    ),
    "a guest that does not say how long it needs, after that": (
        "past-grace", P,
        lambda: Scene(shutting_down(None, deleted=ago(seconds=0)),
                      ReleaseRequest(older_than=timedelta(0))),
    ),
    "a final VMI within its grace period": (
        "past-grace", P, lambda: Scene(shutting_down(7200, phase="Failed")),
    ),
    "a guest that has ended within its grace period": (
        "past-grace", P, lambda: Scene(shutting_down(7200, terminated=True)),
    ),
    "a VMI that was deleted within the grace period, its pod was not": (
        "past-grace", R, lambda: Scene(shutting_down(7200, deleted=None)),
    ),
    "a pod that was deleted within the grace period, its VMI long before": (
        "past-grace", R, lambda: Scene(shutting_down(7200, of_vmi=ago(hours=3))),
    ),
    "neither VMI nor pod was asked to end": (
        "past-grace", P, lambda: Scene(shutting_down(7200, of_vmi=None, deleted=None)),
    ),
    "an age that cannot be read": (
        "past-grace", U, lambda: Scene(alone(), unreadable={VMI: "Forbidden"}),
    ),
    "no pod and no VMI": ("guest-stopped", P, lambda: Scene(alone())),
    "a running pod on a silent node": ("guest-stopped", R, lambda: Scene(powered_off_scene())),
    "a running pod on a node that was vouched for": (
        "guest-stopped", P, lambda: Scene(powered_off_scene(), OFF),
    ),
    "vouched for, but Ready": (
        "guest-stopped", R, lambda: Scene(powered_off_scene(ready="True"), OFF),
    ),
    "vouched for, but Ready=False, which is its kubelet speaking": (
        "guest-stopped", R, lambda: Scene(powered_off_scene(ready="False"), OFF),
    ),
    "vouched for, but with a fresh heartbeat": (
        "guest-stopped", R, lambda: Scene(powered_off_scene(heartbeat=ago(minutes=1)), OFF),
    ),
    "vouched for, but with a heartbeat of the future": (
        "guest-stopped", U, lambda: Scene(powered_off_scene(heartbeat=ago(hours=-1)), OFF),
    ),
    "vouched for, but with a fresh lease": (
        "guest-stopped", R, lambda: Scene(powered_off_scene(lease=ago(minutes=1)), OFF),
    ),
    "vouched for, but virt-handler is Ready": (
        "guest-stopped", R, lambda: Scene(powered_off_scene(handler=True), OFF),
    ),
    "vouched for, heartbeat malformed": (
        "guest-stopped", U, lambda: Scene(powered_off_scene(heartbeat="yesterday"), OFF),
    ),
    "vouched for, the node's condition is nonsense": (
        "guest-stopped", U, lambda: Scene(powered_off_scene(ready="Perhaps"), OFF),
    ),
    "vouched for, nodes unreadable": (
        "guest-stopped", U, lambda: Scene(powered_off_scene(), OFF, {NODE: "Forbidden"}),
    ),
    "vouched for, leases unreadable": (
        "guest-stopped", U, lambda: Scene(powered_off_scene(), OFF, {LEASE: "Forbidden"}),
    ),
    "pods unreadable": (
        "guest-stopped", U, lambda: Scene(powered_off_scene(), OFF, {POD: "Forbidden"}),
    ),
    "a place that cannot be told hides no other where it may run": (
        "guest-stopped", R,
        lambda: Scene(_two_places(), ReleaseRequest(powered_off=frozenset({"node-1"}))),
    ),
    "two places that cannot be told": (
        "guest-stopped", U,
        lambda: Scene(_two_places(heartbeat="tomorrow"),
                      ReleaseRequest(powered_off=frozenset({"node-1", "node-2"}))),
    ),
    "the node of a hotplugged volume was vouched for": (
        "guest-stopped", P, lambda: Scene(_with_volume(*dead_node("node-3")), AS_WELL),
    ),
    "the node of a hotplugged volume was vouched for, and shows life": (
        "guest-stopped", R, lambda: Scene(_with_volume(*live_node("node-3")), AS_WELL),
    ),
    "the node of a hotplugged volume was vouched for, and cannot be told": (
        "guest-stopped", U,
        lambda: Scene(_with_volume(*dead_node("node-3", heartbeat="yesterday")), AS_WELL),
    ),
    "a node that holds nothing of the guest was vouched for": (
        "guest-stopped", P,
        lambda: Scene([*powered_off_scene(), *live_node("node-3")], AS_WELL),
    ),
    "another node was vouched for": (
        "guest-stopped", R,
        lambda: Scene(powered_off_scene(), ReleaseRequest(powered_off=frozenset({"node-1"}))),
    ),
    "a node that is no longer in the cluster, vouched for": (
        "guest-stopped", P, lambda: Scene(powered_off_scene()[:3], OFF),
    ),
    "a node that is no longer in the cluster": (
        "guest-stopped", R, lambda: Scene(pod_of("node-9")),
    ),
    "all containers terminated on a live node": (
        "guest-stopped", P, lambda: Scene(unterminated(True)),
    ),
    "all containers terminated on a node that does not answer": (
        "guest-stopped", P,
        lambda: Scene([deleted_vm(), vmi := deleted_vmi(), deleted_pod(vmi, terminated=True),
                       *dead_node()]),
    ),
    "all containers terminated here, another node that is silent": (
        "guest-stopped", R,
        lambda: Scene([deleted_vm(),
                       vmi := deleted_vmi(node="node-1", status={"activePods": {"u": "node-2"}}),
                       deleted_pod(vmi, node="node-1", terminated=True),
                       *live_node("node-1"), *dead_node("node-2")]),
    ),
    "a container that runs on a live node": (
        "guest-stopped", R, lambda: Scene(unterminated(False)),
    ),
    "a pod whose phase is Failed while its container is not terminated": (
        "guest-stopped", R,
        lambda: Scene([deleted_vm(), vmi := deleted_vmi(), deleted_pod(vmi, phase="Failed"),
                       *dead_node()]),
    ),
    "a pod one of whose containers was never reported": (
        "guest-stopped",
        R,
        lambda: Scene(
            [
                deleted_vm(),
                vmi := deleted_vmi(),
                _with_sidecar(deleted_pod(vmi, terminated=True)),
                *live_node(),
            ]
        ),
    ),
    "a pod that was never bound to a node": (
        "guest-stopped",
        P,
        lambda: Scene(
            [
                deleted_vm(),
                vmi := deleted_vmi(node=None, phase="Pending"),
                deleted_pod(vmi, node=None, phase="Pending"),
            ]
        ),
    ),
    "no pod, and the node answers": (
        "guest-stopped", P, lambda: Scene([*pod_of("node-2"), *live_node()]),
    ),
    "no pod, and the node does not answer": (
        "guest-stopped", R, lambda: Scene([*pod_of("node-2"), *dead_node()]),
    ),
    "no pod, and the node cannot be read": (
        "guest-stopped", U, lambda: Scene([*pod_of("node-2"), *live_node()],
                                          unreadable={NODE: "Forbidden"}),
    ),
    "activePods names a second, silent node": (
        "guest-stopped", R,
        lambda: Scene([deleted_vm(), deleted_vmi(node="node-1", phase="Failed",
                                                 status={"activePods": {"u": "node-2"}}),
                       *live_node("node-1"), *dead_node("node-2")]),
    ),
    "a migration's target is a silent node": (
        "guest-stopped", R,
        lambda: Scene([deleted_vm(),
                       deleted_vmi(node="node-1", phase="Failed",
                                   status={"migrationState": {"targetNode": "node-2",
                                                              "completed": True}}),
                       *live_node("node-1"), *dead_node("node-2")]),
    ),
    "a VMI that runs nowhere": (
        "guest-stopped", U, lambda: Scene([deleted_vm(), deleted_vmi(node=None)]),
    ),
    "a VMI that was never scheduled": (
        "guest-stopped", P, lambda: Scene([deleted_vm(), deleted_vmi(node=None, phase="Pending")]),
    ),
    "a VMI that has no phase yet": (
        "guest-stopped", P, lambda: Scene([deleted_vm(), deleted_vmi(node=None, phase="")]),
    ),
    "a VMI that is being scheduled": (
        "guest-stopped", P,
        lambda: Scene([deleted_vm(), deleted_vmi(node=None, phase="Scheduling")]),
    ),
    "the pod of a VMI that is gone": (
        "guest-stopped", R,
        lambda: Scene([deleted_vm(), deleted_pod(deleted_vmi()), *dead_node()]),
    ),
    "a pod known by its owner alone": (
        "guest-stopped", R,
        lambda: Scene([deleted_vm(), vmi := deleted_vmi(), _unlabelled(deleted_pod(vmi)),
                       *dead_node()]),
    ),
    "no migration": ("no-migration", P, lambda: Scene(alone())),
    "a migration in flight": (
        "no-migration", R,
        lambda: Scene([*ended_guest(), stored(builders.migration("shop", "m", "web"))]),
    ),
    "a migration in flight, overridden": (
        "no-migration", P,
        lambda: Scene([*ended_guest(), stored(builders.migration("shop", "m", "web"))],
                      ReleaseRequest(overrides=frozenset({"no-migration"}))),
    ),
    "a migration that is over": (
        "no-migration", P,
        lambda: Scene([*ended_guest(), stored(builders.migration("shop", "m", "web", "Failed"))]),
    ),
    "a migration of a guest that is gone": (
        "no-migration", P,
        lambda: Scene([deleted_vm(), stored(builders.migration("shop", "m", "web"))]),
    ),
    "another guest's migration": (
        "no-migration", P,
        lambda: Scene([*ended_guest(), stored(builders.migration("shop", "m", "db"))]),
    ),
    **{
        f"a VMI whose migration is over: {over}": (
            "no-migration", P, partial(_migration_is_over, over)
        )
        for over in ("completed", "failed", "endTimestamp")
    },
    "a migration that has not started": (
        "no-migration", R,
        lambda: Scene([*ended_guest(), stored(builders.migration("shop", "m", "web", ""))]),
    ),
    "migrations unreadable": (
        "no-migration", U, lambda: Scene(ended_guest(), unreadable={MIGRATION: "Forbidden"}),
    ),
    "a VMI that goes earlier": (
        "instance-gone", P, lambda: Scene([*pod_of("node-2"), *live_node()]),
    ),
    "a VMI that keeps a finalizer": (
        "instance-gone", R,
        lambda: Scene([deleted_vm(), deleted_vmi(finalizers=["example.com/x"], phase="Failed"),
                       *live_node()],
                      ReleaseRequest(finalizers=frozenset({builders.VM_FINALIZER}),
                              leave_behind=frozenset({builders.VM_FINALIZER}))),
    ),
    "a VMI that loses one finalizer and keeps another": (
        "instance-gone", R,
        lambda: Scene([deleted_vm(),
                       deleted_vmi(finalizers=[builders.VM_FINALIZER, "example.com/x"],
                                   phase="Failed"), *live_node()],
                      ReleaseRequest(finalizers=frozenset({builders.VM_FINALIZER}),
                              leave_behind=frozenset({builders.VM_FINALIZER}))),
    ),
    "a VMI that keeps a finalizer, without a VM": (
        "instance-gone", P,
        lambda: Scene([deleted_vmi(finalizers=[builders.VM_FINALIZER, "example.com/x"],
                                   phase="Failed"), *live_node()],
                      ReleaseRequest(finalizers=frozenset({builders.VM_FINALIZER})),
                      ref=ObjectRef("shop", "web", VMI)),
    ),
    "a VMI that cannot be read": (
        "instance-gone", U, lambda: Scene(alone(), unreadable={VMI: "Forbidden"}),
    ),
    "finalizers that may go": ("finalizers", P, lambda: Scene(alone())),
    "a finalizer that nobody knows": (
        "finalizers", R, lambda: Scene([deleted_vm(finalizers=["example.com/x"])]),
    ),
    "a finalizer that may go beside one that nobody knows": (
        "finalizers", R,
        lambda: Scene([deleted_vm(finalizers=[builders.VM_FINALIZER, "example.com/x"])]),
    ),
    "nothing that --finalizer names": (
        "finalizers", R,
        lambda: Scene(alone(), ReleaseRequest(finalizers=frozenset({"example.com/x"}))),
    ),
    "a disk that nobody owns": ("disks-kept", P, lambda: Scene(owned(None))),
    "a disk that goes with the VM": ("disks-kept", R, lambda: Scene(owned("DataVolume"))),
    "a restored disk": ("disks-kept", R, lambda: Scene(owned("VirtualMachineRestore"))),
    "a disk that goes with the VM, overridden": (
        "disks-kept", P,
        lambda: Scene(owned("DataVolume"), ReleaseRequest(overrides=frozenset({"disks-kept"}))),
    ),
    "a disk that goes with the VM, its volume retained": (
        "disks-kept", P, lambda: Scene(owned("DataVolume", policy="Retain")),
    ),
    "a disk that goes with the VM and was selected": (
        "disks-kept", P, lambda: Scene(owned("DataVolume", ticked="web-root")),
    ),
    "a volume that cannot be read": (
        "disks-kept", R, lambda: Scene(owned("DataVolume"), unreadable={PV: "Forbidden"}),
    ),
    "a snapshot that the VM owns": (
        "disks-kept", R,
        lambda: Scene([vm := deleted_vm(),
                       stored(builders.vm_backup("shop", "nightly", "web", owner=vm))]),
    ),
    "a snapshot that nobody owns": (
        "disks-kept", P,
        lambda: Scene([deleted_vm(), stored(builders.vm_backup("shop", "nightly", "web"))]),
    ),
    **{
        f"{kind.plural} cannot be read": (
            "disks-kept", U, partial(_cannot_read, kind),
        )
        for kind in goes_with_vm.NEEDED
    },
    "what is unreadable hides no disk that is known to go": (
        "disks-kept", R,
        lambda: Scene(owned("DataVolume"), unreadable={VM_BACKUP: "Forbidden"}),
    ),
    "a stop of a VM that owns its disk": (
        "disks-kept", P,
        lambda: Scene([vm := stored(builders.vm("shop", "web")), deleted_vmi(owner=vm),
                       stored(builders.pvc("shop", "web-root", owner=vm, volume="pv-1")),
                       stored(builders.volume("pv-1")), *live_node()]),
    ),
    "allowed": ("permitted", P, lambda: Scene(alone())),
    "not allowed": ("permitted", R, lambda: Scene(alone(), forbid="this user may not")),
    "accepted": ("webhooks-accept", P, lambda: Scene(alone())),
    "denied": ("webhooks-accept", R, lambda: Scene(alone(), deny="denied")),
    "a user's namespace": ("not-system", P, lambda: Scene(alone())),
    "Harvester's namespace": (
        "not-system", R,
        lambda: Scene(system_vm(), ref=ObjectRef("harvester-system", "repo", VM)),
    ),
    "Harvester's namespace, overridden": (
        "not-system", P,
        lambda: Scene(system_vm(), ReleaseRequest(overrides=frozenset({"not-system"})),
                      ref=ObjectRef("harvester-system", "repo", VM)),
    ),
    "few targets": ("within-max", P, lambda: Scene(alone(), ReleaseRequest(targets=20))),
    "too many targets": ("within-max", R, lambda: Scene(alone(), ReleaseRequest(targets=21))),
}  # fmt: skip


def _with_sidecar(pod: Body) -> Body:
    containers = [*pod["spec"]["containers"], {"name": "guest-console-log", "image": "x"}]
    return {**pod, "spec": {**pod["spec"], "containers": containers}}


def _two_places(**more: Any) -> list[Body]:
    """Two silent nodes where the guest may run; `more` is for the second of them."""
    instance = deleted_vmi(status={"activePods": {"u": "node-1"}})
    around = [*dead_node("node-1", heartbeat="yesterday"), *dead_node(**more)]
    return [deleted_vm(), instance, *around]


def _with_volume(*node: Body) -> list[Body]:
    """A guest on the silent node-2, and a pod on node-3 that holds a volume for it."""
    vm, instance, pod, *around = powered_off_scene()
    volume = builders.attachment_pod("shop", "hp-volume-x", "node-3", pod, instance)
    return [vm, instance, pod, *around, stored(volume, deleted=ago(hours=1)), *node]


def _other(pod: Body) -> Body:
    """A second pod of the same guest."""
    return {**pod, "metadata": {**pod["metadata"], "name": "virt-launcher-web-2"}}


def _unlabelled(pod: Body) -> Body:
    return {**pod, "metadata": {**pod["metadata"], "labels": {}}}


@pytest.mark.parametrize(("guard", "verdict", "scene"), SCENES.values(), ids=SCENES.keys())
def test_guard_answers(guard: str, verdict: GuardState, scene: Callable[[], Scene]) -> None:
    result = {item.guard: item for item in scene().plan().guards}[guard]
    assert result.verdict is verdict, result.reason
    assert result.reason


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_every_guard_has_a_pass_and_a_refusal(guard: guards.Guard) -> None:
    verdicts = {verdict for name, verdict, _ in SCENES.values() if name == guard.name}
    assert {P, R} <= verdicts
    assert guard.summary.endswith(".")


@pytest.mark.parametrize("guard", [g for g in GUARDS if g.overridable], ids=lambda g: g.name)
def test_every_overridable_guard_is_tested_with_its_override(guard: guards.Guard) -> None:
    overridden = [
        scene
        for name, verdict, scene in SCENES.values()
        if name == guard.name and verdict is P and guard.name in scene().request.overrides
    ]
    assert overridden
    for scene in overridden:
        made = scene()
        result = {item.guard: item for item in made.plan().guards}[guard.name]
        obeyed = replace(made, request=replace(made.request, overrides=frozenset()))
        refusal = refusal_of(obeyed, guard.name)
        assert (result.overridden, refusal.overridden) == (True, False)
        assert result.reason == f"overridden: {refusal.reason}"


@pytest.mark.parametrize("guard", [g for g in GUARDS if not g.overridable], ids=lambda g: g.name)
def test_no_override_passes_any_other_guard(guard: guards.Guard) -> None:
    refusing = [s for name, verdict, s in SCENES.values() if name == guard.name and verdict is R]
    assert refusing
    for scene in refusing:
        made = scene()
        asked = replace(made.request, overrides=frozenset({guard.name}))
        results = {item.guard: item for item in replace(made, request=asked).plan().guards}
        assert results[guard.name].verdict is not P


REASONS = {
    **dict.fromkeys(
        ("a VM that lives", "a VM that lives, and its pod"),
        "VirtualMachine shop/web is not being deleted (it has no deletionTimestamp)",
    ),
    "a VM in deletion whose VMI lives": (
        "VirtualMachineInstance shop/web is not being deleted; if it should go, delete it"
    ),
    "a VM in deletion whose VMI and pod live": (
        "Pod shop/virt-launcher-web is not being deleted; if it should go, delete"
        " VirtualMachineInstance shop/web first"
    ),
    **dict.fromkeys(
        ("a pod that is not being deleted", "a pod that is not being deleted, its VMI gone",
         "a pod that is not being deleted, of a VMI without a VM"),
        "Pod shop/virt-launcher-web is not being deleted; if it should go, delete it",
    ),
    "a VM that lives, its pod within its grace period": (
        "VirtualMachine shop/web is not stuck: pod virt-launcher-web is being deleted, but is"
        " within its grace period or was left by a migration"
    ),
    "a VM that lives, its node silent": (
        "nothing of VirtualMachine shop/web is being deleted: node node-2 does not answer"
    ),
    "a VM that lives, and nobody knows of its node": "could not read nodes: Forbidden",
    "a state that cannot be read": (
        "could not read virtualmachineinstances.kubevirt.io in shop: Forbidden"
    ),
    "another uid than shown": (
        "VirtualMachine shop/web is another object now (uid another before, "
    ),
    "another resourceVersion than shown": (
        "VirtualMachine shop/web changed since it was shown (resourceVersion 1 before, "
    ),
    "another patch than shown": (
        "what would be done to VirtualMachine shop/web is not what was shown"
    ),
    "a step that was not shown": "VirtualMachine shop/web was not in the plan that was shown",
    "a step that is no longer needed": (
        "Pod shop/x went, or need not be changed any more, since the plan was shown"
    ),
    "deleted a minute ago": (
        "VirtualMachine shop/web was deleted 60s ago, and its controllers get 5m; wait, or say"
        " --older-than"
    ),
    "a guest that has a second left": (
        "the guest on node-2 may still be shutting down: 60m of its grace period of 60m have passed"
    ),
    "a running pod on a silent node": (
        "pod virt-launcher-web on node node-2 may still run the guest (Ready: Unknown,"
        " heartbeat: 20m ago, lease: 20m ago, "
    ),
    "a container that runs on a live node": (
        "pod virt-launcher-web on node node-2 still runs the guest (Ready: True,"
        " heartbeat: 30s ago, lease: 5s ago, "
    ),
    "vouched for, but with a fresh lease": (
        "node node-2 was said to have no power, but it shows life (lease: 60s ago)"
    ),
    "vouched for, leases unreadable": "could not read node node-2: lease: Forbidden",
    "the node of a hotplugged volume was vouched for, and shows life": (
        "node node-3 was said to have no power, but it shows life (Ready: True, "
    ),
    "two places that cannot be told": (
        "could not read node node-1: heartbeat: 'yesterday' is not a time"
    ),
    "a VMI that runs nowhere": (
        "could not read VirtualMachineInstance shop/web: it is Running, but names no node"
    ),
    "a migration in flight": "VirtualMachineInstanceMigration shop/m is not finished (Running)",
    "not allowed": (
        "this user may not; the ClusterRole harvester-stuck-operator of deploy/rbac.yaml holds all"
        " permissions"
    ),
    "a migration that has not started": (
        "VirtualMachineInstanceMigration shop/m is not finished (not started)"
    ),
    "a VMI that loses one finalizer and keeps another": (
        "VirtualMachineInstance shop/web would still be there"
    ),
    "a restored disk": (
        "PersistentVolumeClaim shop/web-root would be destroyed: owned by VirtualMachineRestore"
        " shop/root, owned by VirtualMachine shop/web; its data is destroyed: PersistentVolume"
        " pv-1 is Delete"
    ),
    "virtualmachinerestores cannot be read": (
        "could not read virtualmachinerestores.harvesterhci.io in shop: Forbidden"
    ),
}  # fmt: skip


@pytest.mark.parametrize("scene", REASONS)
def test_a_reason_names_its_evidence(scene: str) -> None:
    guard, _, made = SCENES[scene]
    result = {item.guard: item for item in made().plan().guards}[guard]
    assert REASONS[scene] in result.reason


@pytest.mark.parametrize(
    "namespace",
    ["longhorn-system", "kube-system", "kube-public", "kube-node-lease", "local",
     "rancher-operator-system", "cattle-system", "fleet-local"],
)  # fmt: skip
def test_what_belongs_to_harvester_is_left_alone(namespace: str) -> None:
    machine = stored(builders.vm(namespace, "repo"), deleted=ago(hours=1))
    made = Scene([machine], ref=ObjectRef(namespace, "repo", VM)).plan()
    assert [item.guard for item in made.refusals] == ["not-system"]


@pytest.mark.parametrize("scene", ["a disk that goes with the VM", "a snapshot that the VM owns"])
def test_a_refusal_to_destroy_tells_the_commands_that_keep(scene: str) -> None:
    made = SCENES[scene][2]().plan()
    (refusal,) = made.refusals
    comment, command = lines(refusal.cure)
    assert comment.startswith(f"# to keep {made.destroys[0].ref}")
    assert command.startswith("kubectl patch ")


def test_what_is_not_being_deleted_comes_with_its_command_if_that_does_no_harm() -> None:
    going = deleted_vm()
    guest = stored(builders.vmi("shop", "web", "node-2", owner=going))
    (cure,) = refusal_of(Scene([going, guest]), "terminating").cure
    command = "kubectl delete virtualmachineinstance.kubevirt.io web -n shop --wait=false"
    assert lines([cure]) == [command]
    pod = stored(builders.pod("shop", "launcher", "node-2", asked := deleted_vmi()))
    machine = stored(builders.vm("shop", "web"))
    (kept,) = refusal_of(Scene([machine, asked, pod]), "terminating").cure
    assert lines([kept])[0].endswith("VirtualMachine shop/web is to run")


def test_what_was_deleted_with_cascade_orphan_keeps_its_guest() -> None:
    going = deleted_vm(finalizers=["orphan", builders.VM_FINALIZER])
    guest = stored(builders.vmi("shop", "web", "node-2", owner=going))
    refusal = refusal_of(Scene([going, guest]), "terminating")
    assert refusal.reason == (
        "VirtualMachineInstance shop/web is to be kept: VirtualMachine shop/web was deleted with"
        " --cascade=orphan"
    )
    assert refusal.cure == ()


def refusal_of(scene: Scene, name: str) -> GuardResult:
    return next(item for item in scene.plan().refusals if item.guard == name)


def test_a_step_whose_object_is_gone_blocks() -> None:
    case = Target(TARGET, snapshot(*pod_of("node-2"), *live_node()))
    steps = plan.build(case, ReleaseRequest()).steps
    draft = guards.GuardContext(case.without(steps[0].ref), ReleaseRequest(), steps, (), None)
    results = {item.guard: item for item in guards.run(draft)}
    assert results["terminating"].verdict is U
    assert results["terminating"].reason == f"could not read {steps[0].ref}: it is gone"


def test_the_server_is_only_heard_where_it_was_asked() -> None:
    case = Target(TARGET, snapshot(*alone()))
    draft = plan.build(case, ReleaseRequest())
    refs = dict.fromkeys(step.ref for step in draft.steps)
    every = [entry.name for entry in GUARDS]

    def asked(made: Plan) -> list[str]:
        return [item.guard for item in made.guards]

    def without(*names: str) -> list[str]:
        return [name for name in every if name not in names]

    assert asked(draft) == without("permitted", "webhooks-accept")
    permitted = plan.with_preflight(draft, PreflightResults(refs))
    assert asked(permitted) == without("webhooks-accept")
    assert asked(plan.with_preflight(draft, PreflightResults(refs, refs))) == every


@pytest.mark.parametrize("check", [guards.permitted, guards.webhooks_accept])
def test_a_guard_that_needs_an_answer_does_not_pass_without_one(
    check: guards.PreflightCheck,
) -> None:
    steps = plan.build(Target(TARGET, snapshot(*alone())), ReleaseRequest()).steps
    for results in (PreflightResults({}, {}), PreflightResults({}, None)):
        with pytest.raises(UnreadableError, match="VirtualMachine shop/web: the API server was"):
            check(steps, results)


@pytest.mark.parametrize("guard", ["permitted", "webhooks-accept"])
def test_one_no_is_enough_whichever_step_it_is_for(guard: str) -> None:
    case = Target(TARGET, snapshot(*pod_of("node-2"), *live_node()))
    draft = plan.build(case, ReleaseRequest())
    refs = [step.ref for step in draft.steps]
    assert [ref.kind for ref in refs] == [VMI, VM]
    for refused in refs:
        answers = {ref: "no" if ref == refused else None for ref in refs}
        made = plan.with_preflight(draft, PreflightResults(answers, answers))
        assert {item.guard: item.verdict for item in made.guards}[guard] is R


@pytest.mark.parametrize("guard", ["permitted", "webhooks-accept"])
def test_a_no_stands_although_of_another_step_nothing_was_asked(guard: str) -> None:
    draft = plan.build(Target(TARGET, snapshot(*ended_guest())), ReleaseRequest())
    first, second = [step.ref for step in draft.steps]
    for asked in (first, second):
        made = plan.with_preflight(draft, PreflightResults({asked: "no"}, {asked: "no"}))
        assert {item.guard: item.verdict for item in made.guards}[guard] is R


def test_a_dry_run_of_what_was_written_to_meanwhile_says_nothing_unless_it_is_a_no() -> None:
    draft = plan.build(Target(TARGET, snapshot(*ended_guest())), ReleaseRequest())
    first, second = [step.ref for step in draft.steps]

    def accepts(said: str | None, stale: ObjectRef) -> GuardResult:
        results = PreflightResults({}, {first: said, second: None}, frozenset({stale}))
        made = plan.with_preflight(draft, results)
        return {item.guard: item for item in made.guards}["webhooks-accept"]

    for ref in (first, second):
        unknown = accepts(None, ref)
        changed = f"could not read {ref}: it was changed while it was looked at; ask again"
        assert (unknown.verdict, unknown.reason) == (U, changed)
        assert accepts("denied", ref).verdict is R
    assert accepts(None, ObjectRef("shop", "other", VM)).verdict is P


def test_an_unreadable_answer_of_the_server_blocks() -> None:
    case = Target(TARGET, snapshot(*alone()))
    made = plan.with_preflight(plan.build(case, ReleaseRequest()), PreflightResults({}, {}))
    results = {item.guard: item for item in made.guards}
    assert results["permitted"].verdict is U
    assert results["webhooks-accept"].verdict is U


def test_silent_nodes_are_only_those_that_show_no_life() -> None:
    silent = Scene(powered_off_scene()).plan()
    assert silent.silent_nodes == ("node-2",)
    assert Scene(powered_off_scene(heartbeat=ago(minutes=1))).plan().silent_nodes == ()
    assert Scene(powered_off_scene(), unreadable={LEASE: "Forbidden"}).plan().silent_nodes == ()
    assert Scene(powered_off_scene(), OFF).plan().silent_nodes == ()
    instance = deleted_vmi(node="node-1")
    launcher = deleted_pod(instance, node="node-1", terminated=True)
    moved = builders.pod("shop", "virt-launcher-web-2", "node-2", instance)
    nodes = [*dead_node("node-1"), *dead_node("node-2")]
    two = Scene([deleted_vm(), instance, launcher, stored(moved, deleted=ago(hours=1)), *nodes])
    assert two.plan().silent_nodes == ("node-2",)
    vouched = ReleaseRequest(powered_off=frozenset({"node-1"}))
    unclear = [*dead_node("node-1", heartbeat="yesterday"), *dead_node("node-2")]
    instance = deleted_vmi(node="node-1", status={"activePods": {"u": "node-2"}})
    assert Scene([deleted_vm(), instance, *unclear], vouched).plan().silent_nodes == ("node-2",)
    assert parsed(deleted_vm(deleted=ago(seconds=0))).deletion_timestamp == NOW


def test_a_place_that_has_no_node_yet_is_no_silent_node() -> None:
    instance = deleted_vmi(node=None, phase="Scheduling")
    waiting = [deleted_vm(), instance, deleted_pod(instance, node=None, deleted=None)]
    assert Scene(waiting).plan().silent_nodes == ()


def test_the_guards_that_something_depends_on_are_registered() -> None:
    """A name that no guard has would silently never be met."""
    named = {
        value for name, value in vars(model).items() if name.isupper() and isinstance(value, str)
    }
    assert {model.UNCHANGED, model.WEBHOOKS_ACCEPT} <= named <= {guard.name for guard in GUARDS}
