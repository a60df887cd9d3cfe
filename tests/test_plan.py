"""The plan, from objects to the exact requests: which, in which order, and what they carry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from kubectl_harvester_stuck.errors import NotFoundError
from kubectl_harvester_stuck.harvester.target import State, Target
from kubectl_harvester_stuck.k8s.kinds import PVC, VM, VMI
from kubectl_harvester_stuck.k8s.objects import ObjectRef
from kubectl_harvester_stuck.release import plan
from kubectl_harvester_stuck.release.guards import PreflightResults
from kubectl_harvester_stuck.release.model import Action, GuardState, Plan, ReleaseRequest
from tests.support import builders
from tests.support.builders import (
    CLEANUP_FINALIZER,
    LEGACY_FINALIZER,
    NOW,
    VM_FINALIZER,
    Body,
    ago,
    snapshot,
    stored,
)
from tests.test_guards import (
    OFF,
    TARGET,
    dead_node,
    deleted_pod,
    deleted_vm,
    deleted_vmi,
    live_node,
    powered_off_scene,
)


def plan_of(*bodies: Body, request: ReleaseRequest = OFF, ref: ObjectRef = TARGET) -> Plan:
    return plan.build(Target(ref, snapshot(*bodies)), request)


def verdict_of(made: Plan, guard: str) -> GuardState:
    return {item.guard: item.verdict for item in made.guards}[guard]


def told(made: Plan) -> list[tuple[str, str]]:
    """Each step in short."""
    return [(step.action.value, str(step.ref)) for step in made.steps]


def test_the_requests_are_exactly_these_and_in_this_order() -> None:
    vm, vmi, pod, *node = powered_off_scene()
    deletion, of_vmi, of_vm = plan_of(vm, vmi, pod, *node).steps
    uid, version = pod["metadata"]["uid"], pod["metadata"]["resourceVersion"]
    assert (deletion.action, deletion.uid, deletion.resource_version) == (
        Action.DELETE_POD, uid, version
    )  # fmt: skip
    assert deletion.body == {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "gracePeriodSeconds": 0,
        "preconditions": {"uid": uid, "resourceVersion": version},
    }
    for step, body in ((of_vmi, vmi), (of_vm, vm)):
        meta = body["metadata"]
        assert step.action is Action.PATCH
        assert (step.uid, step.resource_version) == (meta["uid"], meta["resourceVersion"])
        assert (step.removes, step.keeps) == (tuple(meta["finalizers"]), ())
        assert step.body == {
            "metadata": {
                "uid": meta["uid"],
                "resourceVersion": meta["resourceVersion"],
                "finalizers": [],
            }
        }
    assert [step.ref.kind for step in (of_vmi, of_vm)] == [VMI, VM]


def test_what_stays_is_sent_in_its_order_and_said_with_its_reason() -> None:
    names = ["example.com/a", VM_FINALIZER, "example.com/b"]
    made = plan_of(deleted_vm(finalizers=names))
    (step,) = made.steps
    assert step.removes == (VM_FINALIZER,)
    assert step.keeps == ("example.com/a", "example.com/b")
    assert step.body["metadata"]["finalizers"] == ["example.com/a", "example.com/b"]
    refusal = {item.guard: item.reason for item in made.refusals}["finalizers"]
    assert refusal == (
        "example.com/a: not in the catalogue; only --finalizer example.com/a removes it;"
        " example.com/b: not in the catalogue; only --finalizer example.com/b removes it"
    )


def test_why_a_finalizer_of_the_vmi_stays_is_not_lost_behind_those_of_the_vm() -> None:
    instance = deleted_vmi(finalizers=["example.com/vmi"], phase="Failed")
    made = plan_of(deleted_vm(finalizers=["example.com/vm"]), instance, *live_node())
    refusal = {item.guard: item.reason for item in made.refusals}["finalizers"]
    assert "example.com/vmi: " in refusal
    assert "example.com/vm: " in refusal


def test_a_vmi_that_stays_is_there_when_the_vm_is_judged() -> None:
    instance = deleted_vmi(finalizers=["example.com/x"], phase="Failed")
    made = plan_of(deleted_vm(), instance, *live_node())
    assert {item.name: item.state.value for item in made.judgments if item.ref.kind is VM} == {
        VM_FINALIZER: "pending"
    }
    assert made.steps == ()


@pytest.mark.parametrize(
    ("request_", "is_kept"),
    [
        (ReleaseRequest(), True),
        (ReleaseRequest(leave_behind=frozenset({CLEANUP_FINALIZER})), False),
    ],
)
def test_work_that_is_not_done_is_left_behind_by_name_only(
    request_: ReleaseRequest, is_kept: bool
) -> None:
    machine = deleted_vm(
        finalizers=[CLEANUP_FINALIZER],
        annotations={"harvesterhci.io/removedPersistentVolumeClaims": "disk-0"},
    )
    made = plan_of(machine, stored(builders.pvc("shop", "disk-0")), request=request_)
    (judgment,) = made.judgments
    assert judgment.state.value == "pending"
    assert ("finalizers" in {item.guard for item in made.refusals}) is is_kept
    assert made.could_be_left == ((judgment,) if is_kept else ())
    assert made.leaves_behind == (() if is_kept else (judgment,))


def test_leaving_work_behind_is_no_way_where_an_unknown_finalizer_stays_too() -> None:
    made = plan_of(
        deleted_vm(
            finalizers=[CLEANUP_FINALIZER, "example.com/x"],
            annotations={"harvesterhci.io/removedPersistentVolumeClaims": "disk-0"},
        ),
        stored(builders.pvc("shop", "disk-0")),
    )
    assert {item.state.value for item in made.judgments} == {"pending", "unknown"}
    assert made.could_be_left == ()


def test_a_finalizer_whose_evidence_cannot_be_read_names_no_way_around_it() -> None:
    bodies = [deleted_vm(finalizers=[LEGACY_FINALIZER])]
    made = plan.build(
        Target(TARGET, snapshot(*bodies, unreadable={PVC: "Forbidden"})), ReleaseRequest()
    )
    reasons = {item.guard: item.reason for item in made.refusals}
    assert reasons["finalizers"].endswith("Forbidden")


def attached(*, deleted: bool = True, terminated: bool = False) -> list[Body]:
    """A power cut with the pod of a hotplugged volume."""
    vm, vmi, pod, *node = powered_off_scene()
    holder = builders.attachment_pod("shop", "hp-volume-web", "node-2", pod, vmi)
    if terminated:
        statuses = [{"name": "compute", "state": {"terminated": {"exitCode": 0}}}]
        holder = {**holder, "status": {"containerStatuses": statuses}}
    return [vm, vmi, pod, stored(holder, deleted=ago(hours=1) if deleted else None), *node]


@pytest.mark.parametrize(
    ("deleted", "terminated", "request_", "goes"),
    [
        (True, False, OFF, True),
        (True, True, ReleaseRequest(), True),
        (True, False, ReleaseRequest(), False),
        (True, False, ReleaseRequest(powered_off=frozenset({"node-1"})), False),
        (False, False, OFF, False),
        (False, True, OFF, False),
    ],
)
def test_the_pod_of_a_hotplugged_volume_goes_when_it_is_dead(
    deleted: bool, terminated: bool, request_: ReleaseRequest, goes: bool
) -> None:
    made = plan_of(*attached(deleted=deleted, terminated=terminated), request=request_)
    deletions = [name for action, name in told(made) if action == "delete-pod"]
    assert deletions == ["Pod shop/virt-launcher-web"] + ["Pod shop/hp-volume-web"] * goes


@pytest.mark.parametrize("of_vm", [True, False])
def test_a_vm_that_lives_is_never_patched(of_vm: bool) -> None:
    instance = deleted_vmi()
    bodies = [stored(builders.vm("shop", "web")), instance, deleted_pod(instance), *dead_node()]
    made = plan_of(*bodies, ref=ObjectRef("shop", "web", VM if of_vm else VMI))
    assert made.state is (State.STOPPING if of_vm else State.TERMINATING)
    assert told(made) == [
        ("delete-pod", "Pod shop/virt-launcher-web"),
        ("patch", "VirtualMachineInstance shop/web"),
    ]


def test_a_vmi_alone_is_released_without_its_vm() -> None:
    made = plan_of(*powered_off_scene(), ref=ObjectRef("shop", "web", VMI))
    assert [name for _, name in told(made)] == [
        "Pod shop/virt-launcher-web",
        "VirtualMachineInstance shop/web",
    ]


def test_where_neither_is_being_deleted_only_the_pods_that_hang_go() -> None:
    instance = deleted_vmi(deleted=None)
    moved = builders.pod("shop", "virt-launcher-web-2", "node-1", instance)
    bodies = [
        stored(builders.vm("shop", "web")),
        instance,
        deleted_pod(instance),
        stored(moved),
        *dead_node(),
    ]
    made = plan_of(*bodies)
    assert made.state is State.NOT_READY
    assert told(made) == [("delete-pod", "Pod shop/virt-launcher-web")]


def test_a_plan_says_what_hangs_since_when_and_where() -> None:
    vm, vmi, pod, *node = powered_off_scene()
    made = plan_of(vm, vmi, pod, *node)
    assert (made.ref, made.uid) == (TARGET, vm["metadata"]["uid"])
    assert made.resource_version == vm["metadata"]["resourceVersion"]
    assert (made.since, made.node) == (NOW - timedelta(hours=1), "node-2")
    assert made.powered_off == ("node-2",)
    nothing = plan_of(deleted_vm(finalizers=["example.com/x"]))
    assert (nothing.steps, nothing.powered_off) == ((), ())


def test_of_a_target_that_is_not_stuck_one_guard_speaks() -> None:
    living = [stored(builders.vm("shop", "web")), deleted_vmi(deleted=None), *live_node()]
    made = plan_of(*living, request=ReleaseRequest())
    assert [item.guard for item in made.guards] == ["terminating"]
    assert (made.state, made.since, made.steps, made.judgments) == (None, None, (), ())
    assert (made.powered_off, made.silent_nodes) == ((), ())


@pytest.mark.parametrize(
    ("strategy", "phase", "node", "state"),
    [
        ("RerunOnFailure", "Running", dead_node, State.NOT_READY),
        ("Halted", "Running", live_node, State.STOPPING),
        ("Halted", "Failed", live_node, State.STOPPING),
    ],
)
def test_where_nothing_is_being_deleted_yet_nothing_is_done(
    strategy: str, phase: str, node: Callable[[], list[Body]], state: State
) -> None:
    machine = builders.vm("shop", "web", spec={"runStrategy": strategy})
    instance = builders.vmi("shop", "web", "node-2", phase=phase)
    launcher = builders.pod("shop", "virt-launcher-web", "node-2", instance := stored(instance))
    made = plan_of(stored(machine), instance, stored(launcher), *node())
    assert (made.state, made.since, made.steps, made.judgments) == (state, None, (), ())
    assert (made.goes, made.stays, made.powered_off) == ((), (), ())
    assert [item.guard for item in made.refusals] == ["terminating"]


def test_of_a_target_whose_state_cannot_be_read_one_guard_speaks() -> None:
    machine = stored(builders.vm("shop", "web"))
    made = plan.build(
        Target(TARGET, snapshot(machine, unreadable={VMI: "Forbidden"})), ReleaseRequest()
    )
    assert [(item.guard, item.verdict) for item in made.guards] == [
        ("terminating", GuardState.UNKNOWN)
    ]
    assert (made.ref, made.uid) == (TARGET, machine["metadata"]["uid"])
    assert made.resource_version == machine["metadata"]["resourceVersion"]
    assert (made.state, made.since, made.node, made.judgments) == (None, None, None, ())


def test_steps_that_cannot_be_made_are_refused_with_what_could_not_be_read() -> None:
    case = Target(TARGET, snapshot(deleted_vm(), unreadable={VMI: "Forbidden"}))
    made = plan.build(case, ReleaseRequest())
    assert made.steps == ()
    reasons = {item.guard: item.reason for item in made.refusals}
    assert reasons["finalizers"] == (
        "could not read virtualmachineinstances.kubevirt.io in shop: Forbidden"
    )


def test_a_target_that_is_not_there_has_no_plan() -> None:
    with pytest.raises(NotFoundError, match="VirtualMachine shop/web was not found"):
        plan_of()


# The digest


SERVER = "https://10.0.0.1:6443"


def another(**changed: Any) -> Plan:
    """The plan of a VM alone, with something in its step changed."""
    made = plan_of(MACHINE, request=ReleaseRequest())
    return replace(made, steps=(replace(made.steps[0], **changed),))


MACHINE = deleted_vm()
OTHER = stored(builders.vm("shop", "db"), deleted=ago(hours=1))


def test_the_digest_covers_whatever_would_be_sent_and_where_to() -> None:
    made = another()
    other = plan_of(OTHER, request=ReleaseRequest(), ref=ObjectRef("shop", "db", VM))
    digests = [
        plan.digest(SERVER, [made]),
        plan.digest("https://10.0.0.2:6443", [made]),
        plan.digest(SERVER, [another(uid="x")]),
        plan.digest(SERVER, [another(action=Action.DELETE_POD)]),
        plan.digest(SERVER, [another(ref=ObjectRef("shop", "x", VM))]),
        plan.digest(SERVER, [another(ref=ObjectRef("shop", "web", VMI))]),
        plan.digest(SERVER, [another(body={"metadata": {}})]),
        plan.digest(SERVER, [replace(made, powered_off=("node-2",))]),
        plan.digest(SERVER, [made, other]),
        plan.digest(SERVER, [other]),
        plan.digest(SERVER, []),
    ]
    assert len(set(digests)) == len(digests)
    assert all(len(text) == 16 and int(text, 16) >= 0 for text in digests)


def test_the_digest_is_that_of_what_is_sent_however_it_was_put_together() -> None:
    made = another()
    other = plan_of(OTHER, request=ReleaseRequest(), ref=ObjectRef("shop", "db", VM))
    instance = replace(other, ref=ObjectRef("shop", "db", VMI))
    assert plan.digest(SERVER, [made, other]) == plan.digest(SERVER, [other, made])
    assert plan.digest(SERVER, [instance, other]) == plan.digest(SERVER, [other, instance])
    meta = made.steps[0].body["metadata"]
    turned = another(body={"metadata": dict(reversed(meta.items()))})
    assert plan.digest(SERVER, [made]) == plan.digest(SERVER, [turned])


def test_the_digest_leaves_out_what_is_refused() -> None:
    made = another()
    refused = plan_of(stored(builders.vm("shop", "db")), ref=ObjectRef("shop", "db", VM))
    assert refused.refusals
    assert plan.digest(SERVER, [made, refused]) == plan.digest(SERVER, [made])


def test_the_same_plan_has_the_same_digest_in_every_release() -> None:
    """`--confirm` may come from a plan that an older version of the program showed."""
    step = replace(another().steps[0], uid="u", body={"metadata": {"uid": "u", "finalizers": []}})
    made = replace(another(), steps=(step,), powered_off=("node-1", "node-2"))
    assert plan.digest(SERVER, [made]) == "26486d40adc124a8"


def test_the_answers_of_the_server_reach_the_guards() -> None:
    case = Target(TARGET, snapshot(MACHINE))
    draft = plan.build(case, ReleaseRequest())
    (step,) = draft.steps
    made = plan.with_preflight(draft, PreflightResults({step.ref: "no"}, {step.ref: None}))
    assert verdict_of(made, "permitted") is GuardState.REFUSE
    assert verdict_of(made, "webhooks-accept") is GuardState.PASS
