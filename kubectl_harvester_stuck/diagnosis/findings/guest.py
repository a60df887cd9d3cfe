"""The guest and its node: does it still run, can it still run, why does it not end?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from kubectl_harvester_stuck.diagnosis.findings.base import FindingContext, Found, finding, saw
from kubectl_harvester_stuck.diagnosis.model import Verdict
from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.harvester import grace_period, places, settings
from kubectl_harvester_stuck.harvester.node_health import (
    NODES,
    SIGNS,
    SignalState,
    describe,
    read_node,
)
from kubectl_harvester_stuck.harvester.target import (
    COMPUTE,
    FINAL_PHASES,
    HANGING,
    STATE,
    THE_VM,
    THE_VMI,
    Target,
    is_stopped,
    pvc_names,
    run_strategy,
    running_containers,
)
from kubectl_harvester_stuck.k8s import commands
from kubectl_harvester_stuck.k8s.commands import Command, Remark
from kubectl_harvester_stuck.k8s.kinds import (
    EVENT,
    MIGRATION,
    NODE,
    PVC,
)
from kubectl_harvester_stuck.k8s.objects import Evidence, KubeObject, ObjectRef
from kubectl_harvester_stuck.k8s.redaction import redact_text
from kubectl_harvester_stuck.release import statements
from kubectl_harvester_stuck.release.model import GUEST_STOPPED, PAST_GRACE


@finding(reads=(THE_VM, THE_VMI))
def not_stuck(examined: FindingContext) -> Iterator[Found]:
    """Nothing of the target is being deleted; says what state it is in instead."""
    obj = examined.target.obj
    if examined.stuck or obj is None:
        return
    status = obj.text("status", "printableStatus") or "none"
    yield Found(
        f"{obj.ref} is not stuck: it is not being deleted (status {status})",
        (saw(obj, "metadata.deletionTimestamp", "none"),),
        Verdict.NONE,
    )
    vmi = examined.target.vmi
    if vmi is None:
        return
    for condition in vmi.mappings("status", "conditions"):
        if condition.get("type") == "Paused" and condition.get("status") == "True":
            reason, message = condition.get("reason") or "", condition.get("message") or ""
            disks = ", ".join(pvc_names(vmi)) or "none"
            yield Found(
                f"its guest is paused ({reason}: {message})",
                (saw(vmi, "status.conditions", reason),),
                None,
                (
                    commands.get_all(PVC, vmi.ref.namespace).noted(
                        f"is the storage of its disks ({disks}) in order?"
                    ),
                ),
            )
    if vmi.text("status", "phase") in FINAL_PHASES:
        phase, strategy = vmi.text("status", "phase"), obj.text("spec", "runStrategy") or "none"
        remove = commands.delete(vmi.ref, "--wait=false")
        if (phase, strategy) == ("Failed", "RerunOnFailure"):
            remove = remove.noted("its guest may start again, as runStrategy RerunOnFailure says")
        yield Found(
            f"its VMI is {phase} under runStrategy {strategy}; the UI calls that Stopping, but no"
            " finalizer holds it (H#4033, H#3195, H#4725)",
            (saw(vmi, "status.phase", phase), saw(obj, "spec.runStrategy", strategy)),
            None,
            (remove,),
        )


@finding(reads=STATE)
def deletion_not_begun(examined: FindingContext) -> Iterator[Found]:
    """It hangs, but nothing of it is being deleted: a stop that did not begin, or a silent node.

    H#4725, H#10698; H#913, H#982.
    """
    target = examined.target
    vm, vmi = target.vm, target.vmi
    if not examined.stuck or vmi is None or target.stuck_object is not None:
        return
    phase = vmi.text("status", "phase")
    evidence = [saw(vmi, "metadata.deletionTimestamp", "none"), saw(vmi, "status.phase", phase)]
    if vm is None or not target.is_to_be_stopped:
        found = target.silence
        if found is not None:
            yield Found(
                target.why_not_deleted,
                (*evidence, Evidence(f"Node {found.node}", "signs", found.signs)),
                Verdict.REPAIR if found.is_overdue else Verdict.WAIT,
                (commands.describe(ObjectRef("", found.node, NODE)),) if found.is_overdue else (),
            )
        return
    evidence.append(saw(vm, "spec.runStrategy", run_strategy(vm)))
    evacuated = vmi.text("status", "evacuationNodeName")
    steps: tuple[Command, ...]
    if phase in FINAL_PHASES:
        steps = (commands.delete(vmi.ref, "--wait=false"),)
    elif evacuated:
        evidence.append(saw(vmi, "status.evacuationNodeName", evacuated))
        note = f"its evacuation from {evacuated} begins anew until that is cleared"
        steps = (commands.virtctl_evacuate_cancel(vmi.ref).noted(note),)
    else:
        steps = (commands.describe(vm.ref),)
    yield Found(target.why_not_deleted, tuple(evidence), Verdict.REPAIR, steps)


@finding(reads=(THE_VM, THE_VMI))
def instance_lives(examined: FindingContext) -> Iterator[Found]:
    """The VM is being deleted but its VMI is not, so nothing has asked the guest to stop."""
    vm, vmi = examined.target.vm, examined.target.vmi
    if vm is None or vmi is None or vm.deletion_timestamp is None:
        return
    if vmi.deletion_timestamp is not None or "orphan" in vm.finalizers:
        return
    yield Found(
        f"{vmi.ref} is not being deleted, although its VM is: nothing has asked the guest to stop",
        (saw(vmi, "metadata.deletionTimestamp", "none"),),
        Verdict.REPAIR,
        (commands.delete(vmi.ref, "--wait=false"),),
    )


@finding(reads=HANGING)
def settling(examined: FindingContext) -> Iterator[Found]:
    """It was deleted just now; its controllers or its guest are still at work."""
    reason, hanging = examined.refusal(PAST_GRACE), examined.target.stuck_object
    if reason is not None and hanging is not None:
        yield Found(
            reason,
            (saw(hanging, "metadata.deletionTimestamp", hanging.deletion_timestamp),),
            Verdict.WAIT,
        )


@finding(reads=SIGNS)
def node_silent(examined: FindingContext) -> Iterator[Found]:
    """The guest ran on a node that is not responding: the power cut (H#8003, H#4049)."""
    target = examined.target
    for name in examined.plan.silent_nodes:
        reading = read_node(target, name)
        yield Found(
            f"node {name} is not responding ({describe(reading)}); Kubernetes cannot"
            " tell whether it has power",
            tuple(Evidence(f"Node {name}", sign.name, sign.text) for sign in reading.signals),
            Verdict.REFUSE,
            (statements.look_at(name),),
        )


@finding(reads=(THE_VM, *places.PLACES))
def node_contradicts(examined: FindingContext) -> Iterator[Found]:
    """The node is not Ready, but gives signs of life: a partition or a dead kubelet (K#8104)."""
    target = examined.target
    if not examined.stuck:
        return
    for name in dict.fromkeys(place.node for place in places.places(target) if place.node):
        found = [
            places.assess(place, target, ())
            for place in places.places(target)
            if place.node == name
        ]
        if all(item.proof is not None for item in found):
            continue
        # A pod that was deleted by force says nothing of the QEMU that it started.
        reading = read_node(target, name)
        alive = reading.saying(SignalState.ALIVE)
        if alive and not reading.kubelet_answers:
            yield Found(
                f"node {name} does not answer, but gives signs of life: QEMU may still run there"
                f" ({describe(reading)}) (K#8104)",
                tuple(Evidence(f"Node {name}", sign.name, sign.text) for sign in alive),
                # Minutes after a power cut they are no news: Kubernetes has not even acted yet.
                Verdict.REPAIR if target.stuck_object is not None else None,
                (Remark(f"on {name}: is the kubelet running? (rke2-agent or rke2-server)"),),
            )


@finding(reads=places.PLACES)
def sign_unreadable(examined: FindingContext) -> Iterator[Found]:
    """A sign of life cannot be read, usually because a clock is wrong (k8s#108844)."""
    target = examined.target
    if not examined.stuck or examined.refusal(GUEST_STOPPED) is None:
        return
    for name in places.nodes(target):
        for sign in read_node(target, name).saying(SignalState.UNREADABLE):
            yield Found(
                f"a sign of node {name} cannot be read, and counts neither as life nor as"
                f" silence ({sign.name}: {sign.text})",
                (Evidence(f"Node {name}", sign.name, sign.text),),
                None,
                (
                    Remark(
                        f"at the console or the BMC of {name}: is it up, and is its clock right?"
                    ),
                ),
            )


@finding(reads=(THE_VM, *NODES))
def guest_runs(examined: FindingContext) -> Iterator[Found]:
    """The node answers, the grace period is over, and a container of the guest still runs."""
    target = examined.target
    if not examined.stuck or grace_period.left(target) is not None:
        return
    vmi = target.vmi
    for pod in target.pods:
        node = pod.text("spec", "nodeName")
        running = running_containers(pod)
        if (
            pod.deletion_timestamp is None
            or not running
            or not read_node(target, node).kubelet_answers
        ):
            continue
        name = pod.ref.name
        logs = commands.logs(pod.ref, "-c", running[0], "--tail=20")
        if COMPUTE not in running:
            yield Found(
                f"the guest has ended on {node}, but container {running[0]} of pod {name} still"
                " runs and holds the pod",
                (saw(pod, "status.containerStatuses", ", ".join(running)),),
                Verdict.REPAIR,
                (logs, Remark(f"on {node}: why does container {running[0]} not end?")),
            )
            continue
        is_over = vmi is None or vmi.text("status", "phase") in FINAL_PHASES
        has_vm = target.vm is not None and not is_over
        force = (commands.virtctl_force_stop(target.ref),) if has_vm else ()
        yield Found(
            f"the guest still runs on {node}, which answers, although its grace period is over",
            (saw(pod, "status.phase", pod.text("status", "phase")),),
            Verdict.REPAIR,
            (*force, logs),
        )


@finding(reads=(*NODES, EVENT))
def pod_not_cleaned_up(examined: FindingContext) -> Iterator[Found]:
    """Containers have terminated, the node is Ready, the pod stays: volumes do not unmap.

    H#5788, H#5109, L#6919, k8s#119608.
    """
    target = examined.target
    for pod in target.pods:
        node = pod.text("spec", "nodeName")
        if pod.deletion_timestamp is None or not is_stopped(pod):
            continue
        if read_node(target, node).kubelet_answers:
            failed = _failed_kill(pod, target)
            if failed is not None:
                message = redact_text(failed.text("message"))
                yield Found(
                    f"pod {pod.ref.name} has ended on {node}, whose kubelet fails to finish it:"
                    f" {message}",
                    (saw(failed, "message", message),),
                    None,
                    (Remark(f"on {node}: the next pod meets the same, so mend that first"),),
                )
                continue
            yield Found(
                f"pod {pod.ref.name} has ended on {node}, which is Ready, but its kubelet does"
                " not finish it: usually a block volume that does not unmap after a reboot"
                " (H#5788, k8s#119608)",
                (
                    saw(pod, "status.containerStatuses", "terminated"),
                    saw(pod, "metadata.deletionTimestamp", pod.deletion_timestamp),
                ),
                None,
                (
                    Remark(
                        f"on {node}, if more pods hang like this: cordon it, and look for stale"
                        " block maps below /var/lib/kubelet/plugins/kubernetes.io/csi/volumeDevices"
                    ),
                ),
            )


def _failed_kill(pod: KubeObject, target: Target) -> KubeObject | None:
    """The newest event in which the kubelet says why it cannot finish the pod."""
    with suppress(UnreadableError):
        events = [
            event
            for event in target.snapshot.all(EVENT, pod.ref.namespace)
            if event.text("reason") == "FailedKillPod"
            and event.text("involvedObject", "uid") == pod.uid
        ]
        return max(events, key=lambda event: event.text("lastTimestamp"), default=None)
    return None


@finding(reads=(THE_VMI,))
def never_scheduled(examined: FindingContext) -> Iterator[Found]:
    """The VMI is being deleted and has never run (K#4359)."""
    vmi = examined.target.vmi
    if vmi is None or vmi.deletion_timestamp is None:
        return
    phase = vmi.text("status", "phase")
    if phase in (*places.NOT_STARTED, "Scheduled"):
        yield Found(
            f"the VMI is {phase or 'without a phase'}: its guest was never reported as running"
            " (K#4359)",
            (saw(vmi, "status.phase", phase or "none"),),
        )


@finding(reads=(THE_VMI, MIGRATION))
def migration_in_flight(examined: FindingContext) -> Iterator[Found]:
    """A migration of the guest is not finished."""
    for item in examined.target.migrations:
        yield Found(
            f"{item.ref} is not finished ({item.text('status', 'phase') or 'no phase'})",
            (saw(item, "status.phase", item.text("status", "phase")),),
            Verdict.REPAIR,
            (commands.virtctl_migrate_cancel(examined.target.ref),) if examined.stuck else (),
        )


@finding(reads=(THE_VM,))
def state_change_left(examined: FindingContext) -> Iterator[Found]:
    """A requested stop or start is still waiting in the VM's status (H#4659)."""
    vm = examined.target.vm
    if vm is None:
        return
    waiting = vm.mappings("status", "stateChangeRequests")
    if waiting:
        actions = ", ".join(str(item.get("action")) for item in waiting)
        yield Found(
            f"{actions} is still waiting to be carried out",
            (saw(vm, "status.stateChangeRequests", actions),),
        )


@finding(reads=settings.FORCE_RESET_READS)
def force_reset_off(examined: FindingContext) -> Iterator[Found]:
    """Harvester's own handling of a dead node is disabled, or blocked by an Upgrade."""
    if not examined.plan.silent_nodes and not examined.plan.powered_off:
        return
    setting = examined.target.snapshot.one(settings.ref(settings.FORCE_RESET))
    if setting is not None and not settings.force_reset_is_on(setting):
        yield Found(
            "the setting vm-force-reset-policy is off, so Harvester does not free the VMs of"
            " a dead node by itself",
            (saw(setting, "value", settings.value_of(setting)),),
            None,
            (commands.edit(setting.ref).noted("for the next outage"),),
        )
    for one in settings.unfinished_upgrades(examined.target.snapshot):
        yield Found(
            f"{one.item.ref} is not finished ({one.state or 'no state'}): for as long as it stands,"
            " vm-force-reset-policy does nothing",
            (saw(one.item, one.field, one.state or "none"),),
            None,
            (commands.get(one.item.ref, "-o", "yaml").noted("for the next outage"),),
        )
