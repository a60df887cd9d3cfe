"""What became of a change that no answer of Kubernetes told to be done: a look at its object.

A proxy may repeat a request, so that an answer speaks of the second one; a gateway may answer by
itself, before or after the API server did what was asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, unique

from kubectl_harvester_stuck.cluster.client import Cluster
from kubectl_harvester_stuck.k8s.kinds import VM, VMI
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef
from kubectl_harvester_stuck.release.model import Action, Plan, Step


@unique
class Seen(Enum):
    """How an object stands after a change was sent to it."""

    AS_BEFORE = "as before"
    """The change has not been carried out."""
    CHANGED = "changed"
    """It may have been: the object is not what it was."""
    GONE = "gone"
    UNSEEN = "unseen"
    """It could not be looked at."""


@dataclass(frozen=True)
class Look:
    """What was seen, and in which words."""

    seen: Seen
    words: str


def at(cluster: Cluster, step: Step) -> Look:
    """Look at the object of a patch or of a deletion that was sent. Never raises."""
    try:
        body = cluster.get(step.ref, metadata_only=True)
        return _compared(None if body is None else KubeObject.parse_as(step.ref, body), step)
    except Exception as error:  # noqa: BLE001 - not even a bug may hide what was sent
        return Look(Seen.UNSEEN, f"it could not be looked at: {error}")


def _compared(found: KubeObject | None, step: Step) -> Look:
    """The object as it is now, held against what the step was made for. Raises UnreadableError."""
    if found is None:
        return Look(Seen.GONE, "it is gone")
    if found.uid != step.uid:
        return Look(Seen.GONE, "it is gone, and another one of its name is there")
    if found.resource_version == step.resource_version:
        return Look(Seen.AS_BEFORE, "it is as it was")
    if step.action is Action.DELETE_POD:
        return _pod(found)
    # No finalizer can be added while an object is being deleted: the patch would have taken all of
    # them off.
    left = [name for name in step.removes if name in found.finalizers]
    if left:
        return Look(Seen.AS_BEFORE, f"it still has {', '.join(left)}")
    return Look(Seen.CHANGED, f"it does not have {', '.join(step.removes)} any more")


def _pod(found: KubeObject) -> Look:
    meta = found.mapping("metadata")
    grace = meta.get("deletionGracePeriodSeconds")
    if found.deletion_timestamp is None or grace:
        return Look(Seen.AS_BEFORE, "it still has its grace period")
    return Look(Seen.CHANGED, "it is still there, with no grace period left")


def after_freeing(cluster: Cluster, plan: Plan, old: str) -> str:
    """Whether the VM of a plan that freed it is stopped or starts elsewhere. Never raises.

    `old` is the uid of its VMI before the release, "" where there was none.
    """
    ref = plan.ref
    try:
        machine = _get(cluster, ObjectRef(ref.namespace, ref.name, VM))
        instance = _get(cluster, ObjectRef(ref.namespace, ref.name, VMI))
        if instance is None:
            return _without_instance(machine)
        phase = instance.text("status", "phase") or "Pending"
        node = instance.text("status", "nodeName")
        where = f"on node {node}" if node else "on no node yet"
        if instance.uid == old:
            return f"its VirtualMachineInstance is still the same, {phase} {where}"
        again = "starts again" if node == plan.node else "starts elsewhere"
        return f"it {again}: its new VirtualMachineInstance {instance.uid} is {phase} {where}"
    except Exception as error:  # noqa: BLE001 - not even a bug may hide what was done
        return f"whether it starts again could not be seen: {error}"


def _without_instance(machine: KubeObject | None) -> str:
    if machine is None:
        return "no VirtualMachineInstance of its name is there any more"
    spec = machine.mapping("spec")
    strategy = machine.text("spec", "runStrategy") or (
        "Always" if spec.get("running") else "Halted"
    )
    if strategy in ("Halted", "Manual"):
        return f"it is stopped: it has no VirtualMachineInstance, and its runStrategy is {strategy}"
    return f"its runStrategy is {strategy}, and no new VirtualMachineInstance is there yet"


def _get(cluster: Cluster, ref: ObjectRef) -> KubeObject | None:
    body = cluster.get(ref)
    return None if body is None else KubeObject.parse_as(ref, body)
