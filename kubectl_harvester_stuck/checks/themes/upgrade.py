"""The next upgrade of Harvester: is there anything that keeps it from draining its nodes?"""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_harvester_stuck.checks.base import (
    CheckContext,
    CheckResult,
    check,
    condition,
    count,
    devices_of,
    fail,
    names,
    ok,
    saw,
    warn,
)
from kubectl_harvester_stuck.harvester.settings import REPOSITORY, unfinished_upgrades
from kubectl_harvester_stuck.harvester.target import FINAL_PHASES
from kubectl_harvester_stuck.k8s import commands
from kubectl_harvester_stuck.k8s.commands import Remark
from kubectl_harvester_stuck.k8s.kinds import (
    HARVESTER_NAMESPACE,
    MIGRATION,
    NODE,
    UPGRADE,
    UPGRADE_PLAN,
    VM,
    VM_BACKUP,
    VM_RESTORE,
    VMI,
)
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef
from kubectl_harvester_stuck.k8s.reads import Read


@check(reads=(VMI,))
def leftover_instances(view: CheckContext) -> Iterator[CheckResult]:
    """No VMI that has ended is left: draining its node would wait for it (H#4725, H#4809)."""
    ended = [
        (vmi, vmi.text("status", "phase"))
        for vmi in view.all(VMI)
        if vmi.deletion_timestamp is None and vmi.text("status", "phase") in FINAL_PHASES
    ]
    for phase, tell, why in (
        ("Failed", fail, "for which the drain of a node waits"),
        ("Succeeded", warn, "for which Harvester before 1.2.2 waits"),
    ):
        found = [vmi for vmi, its in ended if its == phase]
        if found:
            yield tell(
                f"{count(len(found), f'{phase} VMI')} that nobody deletes, {why}: {names(found)}",
                [saw(vmi, "status.phase", phase) for vmi in found],
                # It looks at the node as well, and says how the VMI may be deleted.
                *(commands.diagnose(vmi.ref) for vmi in found),
            )
    if not ended:
        yield ok(f"none of {count(len(view.all(VMI)), 'VMI')} has ended and was left")


@check(reads=(VMI, NODE))
def movable_guests(view: CheckContext) -> Iterator[CheckResult]:
    """Each running VM can be moved, or Harvester refuses to upgrade (H#5350, H#7096, H#8298)."""
    nodes = [
        node
        for node in view.snapshot.all(NODE)
        if node.labels.get("node-role.harvesterhci.io/witness") != "true"
    ]
    if len(nodes) == 1:
        yield ok("there is one node alone, so an upgrade shuts the VMs down")
        return
    stays = [(vmi, why) for vmi in view.instances.values() if (why := _why_tied(vmi))]
    if stays:
        yield fail(
            f"{count(len(stays), 'VM')} that cannot be moved; Harvester has them shut down before"
            f" it upgrades: {names(vmi for vmi, _ in stays)}",
            [saw(vmi, field, value) for vmi, (field, value) in stays],
            Remark("shut them down before the upgrade, each from within or in the UI"),
        )
    else:
        yield ok(f"all of {count(len(view.instances), 'running VM')} can be moved")


def _why_tied(vmi: KubeObject) -> tuple[str, str] | None:
    """Field and value that keep a guest on its node, as Harvester's webhook asks for them."""
    selector = vmi.mapping("spec", "nodeSelector")
    if selector:
        return "spec.nodeSelector", ", ".join(f"{key}={value}" for key, value in selector.items())
    devices = devices_of(vmi)
    if devices:
        return "spec.domain.devices", ", ".join(devices)
    found = condition(vmi, "LiveMigratable")
    if found.get("status") == "False":
        return "LiveMigratable", str(found.get("message") or found.get("reason") or "False")
    return None


@check(reads=(VMI, MIGRATION))
def unfinished_migrations(view: CheckContext) -> Iterator[CheckResult]:
    """No migration of a VM is in flight: a drain waits for it (H#6002, H#10349, H#10354)."""
    there = {vmi.ref.key for vmi in view.all(VMI)}
    moving = [
        (item, vmi)
        for item in view.all(MIGRATION)
        if item.text("status", "phase") not in FINAL_PHASES
        and f"{item.ref.namespace}/{(vmi := item.text('spec', 'vmiName'))}" in there
    ]
    if moving:
        yield warn(
            f"{count(len(moving), 'migration')} not finished:"
            f" {names(f'{item.ref.namespace}/{vmi}' for item, vmi in moving)}",
            [saw(item, "status.phase", item.text("status", "phase")) for item, _ in moving],
            Remark("wait for it; one that does not get on can be cancelled"),
            *(
                commands.virtctl_migrate_cancel(ObjectRef(item.ref.namespace, vmi, VM))
                for item, vmi in moving
            ),
        )
    else:
        yield ok("no migration of a VM is in flight")


@check(reads=(VM_BACKUP,))
def unfinished_backups(view: CheckContext) -> Iterator[CheckResult]:
    """No backup or snapshot is being made: Harvester refuses to upgrade then (H#6754, H#8065)."""
    made = [
        item
        for item in view.all(VM_BACKUP)
        if item.deletion_timestamp is None
        and item.mapping("status").get("readyToUse") is not True
        and not item.mapping("status", "error")
    ]
    if made:
        yield fail(
            f"{count(len(made), 'backup')} in progress: {names(made)}",
            [saw(item, "status.readyToUse", item.mapping("status").get("readyToUse"))
             for item in made],
            Remark("wait for it; why one does not get on:"),
            *(
                commands.describe(item.ref)
                for item in made
            ),
        )  # fmt: skip
    else:
        yield ok(f"none of {count(len(view.all(VM_BACKUP)), 'backup')} is in progress")


@check(reads=(VM_RESTORE,))
def unfinished_restores(view: CheckContext) -> Iterator[CheckResult]:
    """No restore of a VM is in progress, which keeps the VM from being moved or stopped."""
    running = [
        item
        for item in view.all(VM_RESTORE)
        if item.deletion_timestamp is None and item.mapping("status").get("complete") is not True
    ]
    if running:
        yield warn(
            f"{count(len(running), 'restore')} not complete: {names(running)}",
            [saw(item, "status.complete", item.mapping("status").get("complete"))
             for item in running],
            Remark("wait for it; why one does not get on:"),
            *(
                commands.describe(item.ref)
                for item in running
            ),
        )  # fmt: skip
    else:
        yield ok("no restore of a VM is in progress")


@check(reads=(Read(UPGRADE, HARVESTER_NAMESPACE), UPGRADE_PLAN, Read(VM, HARVESTER_NAMESPACE)))
def last_upgrade(view: CheckContext) -> Iterator[CheckResult]:
    """Nothing is left running of an upgrade that has ended (H#6212, H#7096, H#8649, H#9857)."""
    going = list(unfinished_upgrades(view.snapshot))
    served = {f"{REPOSITORY}{one.item.ref.name}" for one in going}
    left = [
        vm
        for vm in view.snapshot.all(VM, HARVESTER_NAMESPACE)
        if vm.ref.name.startswith(REPOSITORY) and vm.ref.name not in served
    ]
    if left:
        yield warn(
            f"{count(len(left), 'VM')} of an upgrade that has ended: {names(left)}",
            [saw(vm, "status.printableStatus", vm.text("status", "printableStatus"))
             for vm in left],
            *(
                commands.delete(vm.ref, "--wait=false")
                for vm in left
                if vm.deletion_timestamp is None
            ),
        )  # fmt: skip
    elif going:
        yield warn(
            f"{going[0].item.ref} has not ended, and no other can begin",
            [saw(one.item, one.field, one.state) for one in going],
            commands.describe(going[0].item.ref),
        )
    else:
        yield ok("nothing of an earlier upgrade runs")
