"""What is kept of a target before its first change: the plan's objects, and the disks.

The first are what the plan was made from, so they are there. The disks are read for the backup
alone, and users of one namespace cannot read volumes: what cannot be read is named instead.
"""

from __future__ import annotations

from kubectl_harvester_stuck.cluster.client import Cluster
from kubectl_harvester_stuck.errors import StuckError
from kubectl_harvester_stuck.harvester.pending_work import REMOVED_PVCS
from kubectl_harvester_stuck.harvester.target import Target, pvc_names
from kubectl_harvester_stuck.k8s.kinds import PV, PVC
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef
from kubectl_harvester_stuck.release.model import Plan


def of_plan(target: Target, plan: Plan) -> tuple[KubeObject, ...]:
    """VM, VMI, the guest's pods, and every other pod that the plan deletes.

    Raises UnreadableError.
    """
    touched = {step.ref for step in plan.steps}
    found = {
        item.ref: item
        for item in (
            target.vm,
            target.vmi,
            *target.pods,
            *(pod for pod in target.attachment_pods if pod.ref in touched),
        )
        if item is not None
    }
    return tuple(found.values())


def disks(cluster: Cluster, target: Target) -> tuple[tuple[KubeObject, ...], tuple[str, ...]]:
    """The PVCs of the target with their PVs, and for each that could not be read, why.

    A disk that is not there any more is neither. Never raises StuckError.
    """
    found: list[KubeObject] = []
    missed: list[str] = []

    def read(ref: ObjectRef) -> KubeObject | None:
        try:
            body = cluster.get(ref)
            item = None if body is None else KubeObject.parse_as(ref, body)
        except StuckError as error:
            missed.append(f"{ref}: {error}")
            return None
        if item is not None:
            found.append(item)
        return item

    try:
        claims = _claims(target)
    except StuckError as error:
        return (), (f"the disks of {target.ref}: {error}",)
    for name in claims:
        claim = read(ObjectRef(target.ref.namespace, name, PVC))
        try:
            volume = claim.text("spec", "volumeName") if claim else ""
        except StuckError as error:
            missed.append(str(error))
            continue
        if volume:
            read(ObjectRef("", volume, PV))
    return tuple(found), tuple(missed)


def _claims(target: Target) -> tuple[str, ...]:
    """Names of the PVCs in the spec, and of those that are ticked to go with the VM."""
    names = [
        name for item in (target.vm, target.vmi) if item is not None for name in pvc_names(item)
    ]
    if target.vm is not None:
        names += [name.strip() for name in target.vm.annotations.get(REMOVED_PVCS, "").split(",")]
    return tuple(dict.fromkeys(name for name in names if name))
