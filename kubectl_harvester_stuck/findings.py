"""What holds a target: one function per situation, all of them asked of every target.

To add one: a function under `@finding` that yields what it finds, with its evidence, and a scene
in tests/test_findings.py. A read that fails inside raises `UnreadableError` and is told as a gap,
never as "not found". The function's name with hyphens is the finding's public id.

The situations, their causes and their cures are those of Harvester, KubeVirt and Longhorn issues;
the numbers stand with each function (H: harvester, K: kubevirt, L: longhorn, k8s: kubernetes).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kubectl_harvester_stuck import denials, finalizers
from kubectl_harvester_stuck.case import FINAL_PHASES, Case, claims_of, is_stopped
from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.guards import describe
from kubectl_harvester_stuck.kinds import (
    API_SERVICE,
    DAEMON_SET,
    DEPLOYMENT,
    HARVESTER_NAMESPACE,
    NETWORK,
    PCI_DEVICE,
    PVC,
    RESOURCE_QUOTA,
    SETTING,
    UPGRADE,
    USB_DEVICE,
    VM,
    VM_BACKUP,
    VOLUME_SNAPSHOT,
)
from kubectl_harvester_stuck.model import (
    Advice,
    Evidence,
    FinalizerState,
    Finding,
    Object,
    Plan,
    Ref,
    State,
)
from kubectl_harvester_stuck.nodes import Says, read_node

VOLUME_CLAIM_TEMPLATES = "harvesterhci.io/volumeClaimTemplates"
FORCE_RESET = Ref("", "vm-force-reset-policy", SETTING)


@dataclass(frozen=True)
class Examined:
    """A target, and the plan that `unstick` would have for it."""

    case: Case
    plan: Plan

    @property
    def stuck(self) -> bool:
        return self.plan.state is not None

    def refusal(self, guard: str) -> str | None:
        """Why that guard does not pass, or None."""
        return next((item.reason for item in self.plan.refusals if item.guard == guard), None)


@dataclass(frozen=True)
class Found:
    """What a finding's function yields; the id is added from its name."""

    summary: str
    evidence: tuple[Evidence, ...]
    advice: Advice | None = None
    steps: tuple[str, ...] = ()


Look = Callable[[Examined], Iterator[Found]]
FINDINGS: list[Look] = []


def finding(look: Look) -> Look:
    """Register a situation."""
    FINDINGS.append(look)
    return look


def id_of(look: Look) -> str:
    """The public id of a situation."""
    return look.__name__.replace("_", "-")


def run(examined: Examined) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """What was found, and for which situations the snapshot is blind."""
    found: list[Finding] = []
    blind: list[str] = []
    for look in FINDINGS:
        try:
            found += [
                Finding(id_of(look), item.summary, item.evidence, item.advice, item.steps)
                for item in look(examined)
            ]
        except UnreadableError as error:
            blind.append(f"{id_of(look)}: {error}")
    return tuple(found), tuple(blind)


def _saw(subject: Object, field: str, value: object) -> Evidence:
    return Evidence(str(subject.ref), field, str(value))


@finding
def not_stuck(examined: Examined) -> Iterator[Found]:
    """Nothing of the target is being deleted."""
    target = examined.case.target
    if examined.stuck or target is None:
        return
    vmi = examined.case.vmi
    status = target.text("status", "printableStatus") or "no status"
    yield Found(
        f"{target.ref} is not being deleted (status {status}), so there is nothing to release",
        (_saw(target, "metadata.deletionTimestamp", "none"),),
        Advice.REFUSE,
    )
    if vmi is None or vmi.text("status", "phase") != "Failed":
        return
    strategy = target.text("spec", "runStrategy") or "none"
    yield Found(
        f"its VMI is Failed under runStrategy {strategy}; the UI calls that Stopping, but"
        " no finalizer holds it (H#4033, H#3195)",
        (_saw(vmi, "status.phase", "Failed"), _saw(target, "spec.runStrategy", strategy)),
        Advice.REPAIR,
        (f"virtctl restart {target.ref.name} -n {target.ref.namespace}",),
    )


@finding
def node_silent(examined: Examined) -> Iterator[Found]:
    """The guest ran on a node that shows no life: the power cut (H#8003, H#4049)."""
    case = examined.case
    for name in examined.plan.silent_nodes:
        reading = read_node(case, name)
        yield Found(
            f"node {name} shows no life ({describe(reading)}); whether it has power, no"
            " object in Kubernetes can tell",
            tuple(Evidence(f"Node {name}", sign.name, sign.text) for sign in reading.signals),
            Advice.REFUSE,
            (f"# look at {name}, at its console or its BMC: does it have power?",),
        )


@finding
def node_contradicts(examined: Examined) -> Iterator[Found]:
    """The node is not Ready, but gives signs of life: a partition or a dead kubelet (K#8104)."""
    case = examined.case
    if not examined.stuck or not [pod for pod in case.pods if not is_stopped(pod)]:
        return
    for name in case.nodes:
        reading = read_node(case, name)
        alive = reading.saying(Says.ALIVE)
        if alive and not reading.answers:
            yield Found(
                f"node {name} is not Ready, but gives signs of life: QEMU may still run there"
                f" ({describe(reading)}) (K#8104)",
                tuple(Evidence(f"Node {name}", sign.name, sign.text) for sign in alive),
                Advice.REPAIR,
                (f"# on {name}: is the kubelet running? systemctl status rke2-agent rke2-server",),
            )


@finding
def guest_runs(examined: Examined) -> Iterator[Found]:
    """The node answers and the guest still runs there: it ignores the shutdown."""
    case = examined.case
    if not examined.stuck:
        return
    for pod in case.pods:
        node = pod.text("spec", "nodeName")
        if pod.deletion_timestamp is None or is_stopped(pod) or not read_node(case, node).answers:
            continue
        yield Found(
            f"the guest still runs on {node}, which answers",
            (_saw(pod, "status.phase", pod.text("status", "phase")),),
            Advice.REPAIR,
            (
                f"virtctl stop {case.ref.name} -n {case.ref.namespace} --force --grace-period=0",
                f"kubectl logs {pod.ref.name} -n {pod.ref.namespace} -c compute --tail=20",
            ),
        )


@finding
def pod_not_cleaned_up(examined: Examined) -> Iterator[Found]:
    """Containers have terminated, the node is Ready, the pod stays: volumes do not unmap.

    H#5788, H#5109, L#6919, k8s#119608.
    """
    case = examined.case
    for pod in case.pods:
        node = pod.text("spec", "nodeName")
        if pod.deletion_timestamp is None or not is_stopped(pod) or not node:
            continue
        if read_node(case, node).answers:
            yield Found(
                f"pod {pod.ref.name} has ended on {node}, which is Ready, but its kubelet does"
                " not finish it: usually a block volume that does not unmap after a reboot"
                " (H#5788, k8s#119608)",
                (
                    _saw(pod, "status.containerStatuses", "terminated"),
                    _saw(pod, "metadata.deletionTimestamp", pod.deletion_timestamp),
                ),
            )


@finding
def settling(examined: Examined) -> Iterator[Found]:
    """It was deleted only now; its controllers, or its guest, are still at work."""
    reason, hanging = examined.refusal("past-grace"), examined.case.hanging
    if reason is not None and hanging is not None:
        yield Found(
            reason,
            (_saw(hanging, "metadata.deletionTimestamp", hanging.deletion_timestamp),),
            Advice.WAIT,
        )


@finding
def webhook_denies(examined: Examined) -> Iterator[Found]:
    """The dry run of the release is denied (H#5515, H#6024, K#13098)."""
    reason = examined.refusal("webhooks-accept")
    if reason is not None:
        yield Found(
            reason,
            (Evidence(str(examined.plan.ref), "dryRun=All", "denied"),),
            Advice.REPAIR,
            (f"# {denials.cure_of(reason)}",),
        )


@finding
def veto_keeps_vmi(examined: Examined) -> Iterator[Found]:
    """A veto on the VM keeps its VMI: virt-controller cannot store the VM's status (H#5515)."""
    vmi, vm = examined.case.vmi, examined.case.vm
    only = ("kubevirt.io/virtualMachineControllerFinalize",)
    if vmi is None or vm is None or vmi.deletion_timestamp is None or vmi.finalizers != only:
        return
    if vmi.text("status", "phase") in FINAL_PHASES and not examined.case.pods:
        yield Found(
            "the VMI has ended and waits only for virt-controller to store the VM's status;"
            " when that update is vetoed, the VMI stays for as long as the veto does",
            (
                _saw(vmi, "metadata.finalizers", ",".join(vmi.finalizers)),
                _saw(vm, "status.printableStatus", vm.text("status", "printableStatus")),
            ),
            None,
            (
                f"kubectl logs -n {HARVESTER_NAMESPACE} deploy/virt-controller --tail=2000"
                f" | grep {vm.ref.name}",
            ),
        )


@finding
def disk_of_another_vm(examined: Examined) -> Iterator[Found]:
    """Another VM lists the same PVC, for which Harvester's validator vetoes updates (H#5515)."""
    vm = examined.case.vm
    if vm is None:
        return
    ours = set(claims_of(vm))
    if not ours:
        return
    for other in examined.case.snapshot.all(VM, vm.ref.namespace):
        shared = sorted(ours & set(claims_of(other)))
        if other.ref != vm.ref and shared:
            denied = examined.refusal("webhooks-accept") is not None
            yield Found(
                f"{other.ref} lists {', '.join(shared)} as well, for which Harvester denies every"
                " update of either VM unless the volume is shareable (H#5515)",
                (_saw(other, "spec.template.spec.volumes", ", ".join(shared)),),
                Advice.REPAIR if denied else None,
                (f"kubectl edit {VM.full_name} {other.ref.name} -n {other.ref.namespace}",)
                if denied
                else (),
            )


@finding
def broken_template_annotation(examined: Examined) -> Iterator[Found]:
    """The volumeClaimTemplates annotation is no JSON list, for which Harvester denies updates."""
    vm = examined.case.vm
    written = vm.annotations.get(VOLUME_CLAIM_TEMPLATES, "") if vm else ""
    if vm is None or not written:
        return
    try:
        is_list = isinstance(json.loads(written), list)
    except ValueError:
        is_list = False
    if not is_list:
        yield Found(
            f"the annotation {VOLUME_CLAIM_TEMPLATES} is not a JSON list, for which Harvester"
            " denies every update of the VM",
            (_saw(vm, "metadata.annotations", written[:60]),),
            Advice.REPAIR,
            (
                f"kubectl annotate {VM.full_name} {vm.ref.name} -n {vm.ref.namespace}"
                f" {VOLUME_CLAIM_TEMPLATES}-",
            ),
        )


@finding
def network_missing(examined: Examined) -> Iterator[Found]:
    """A network of the VM is gone; older versions of Harvester then deny updates (H#6024)."""
    vm = examined.case.vm
    networks = vm.mappings("spec", "template", "spec", "networks") if vm else ()
    wanted = [
        str(network["multus"].get("networkName") or "")
        for network in networks
        if isinstance(network.get("multus"), dict)
    ]
    if vm is None or not wanted:
        return
    there = {item.ref.key for item in examined.case.snapshot.all(NETWORK)}
    for name in wanted:
        key = name if "/" in name else f"{vm.ref.namespace}/{name}"
        if key not in there:
            yield Found(
                f"NetworkAttachmentDefinition {key} is gone; older versions of Harvester deny"
                " every update of a VM that names it (H#6024)",
                (_saw(vm, "spec.template.spec.networks", name),),
                Advice.REPAIR if examined.refusal("webhooks-accept") else None,
            )


@finding
def host_device_missing(examined: Examined) -> Iterator[Found]:
    """A host device of the VM is gone, and the addon's webhook denies updates (H#1710)."""
    vm = examined.case.vm
    path = ("spec", "template", "spec", "domain", "devices", "hostDevices")
    wanted = [str(item.get("deviceName")) for item in vm.mappings(*path)] if vm else []
    if vm is None or not wanted:
        return
    there = {
        device.text("status", "resourceName")
        for kind in (PCI_DEVICE, USB_DEVICE)
        for device in examined.case.snapshot.all(kind)
    }
    for name in wanted:
        if name not in there:
            yield Found(
                f"no PCIDevice or USBDevice offers {name} any more; the webhook of the addon"
                " pcidevices-controller denies every update of a VM that asks for it",
                (_saw(vm, ".".join(path), name),),
                Advice.REPAIR if examined.refusal("webhooks-accept") else None,
                (f"kubectl edit {VM.full_name} {vm.ref.name} -n {vm.ref.namespace}",),
            )


@finding
def quota_without_pod(examined: Examined) -> Iterator[Found]:
    """No pod is left in a namespace with a quota, which Harvester then checks at every update."""
    vm = examined.case.vm
    if vm is None or not examined.stuck or examined.case.pods:
        return
    if vm.text("spec", "runStrategy") == "Halted":
        return
    for quota in examined.case.snapshot.all(RESOURCE_QUOTA, vm.ref.namespace):
        if quota.mapping("spec", "hard"):
            yield Found(
                f"{quota.ref} limits the namespace; without a pod of the VM, Harvester checks at"
                " every update whether it could start, and denies it if it could not",
                (_saw(quota, "spec.hard", dict(quota.mapping("spec", "hard"))),),
                Advice.REPAIR if examined.refusal("webhooks-accept") else None,
            )


@finding
def webhook_unavailable(examined: Examined) -> Iterator[Found]:
    """A webhook that every update has to pass does not run (K#13098, K#9735)."""
    if not examined.stuck:
        return
    there = {item.ref.name: item for item in examined.case.snapshot.all(
        DEPLOYMENT, HARVESTER_NAMESPACE)}  # fmt: skip
    for name in ("virt-api", "harvester-webhook"):
        workload = there.get(name)
        if workload is not None and not workload.mapping("status").get("availableReplicas"):
            yield Found(
                f"deploy/{name} is not available, so nothing that it admits can be changed, by"
                " nobody",
                (_saw(workload, "status.availableReplicas", 0),),
                Advice.REPAIR,
                (f"kubectl get pods -n {HARVESTER_NAMESPACE} -o wide",
                 f"kubectl rollout restart deploy/{name} -n {HARVESTER_NAMESPACE}"),
            )  # fmt: skip


@finding
def aggregated_api_down(examined: Examined) -> Iterator[Found]:
    """An aggregated API is unavailable, which stops the garbage collector and virtctl."""
    if not examined.stuck:
        return
    for service in examined.case.snapshot.all(API_SERVICE):
        for condition in service.mappings("status", "conditions"):
            if condition.get("type") == "Available" and condition.get("status") == "False":
                yield Found(
                    f"{service.ref} is not available: {condition.get('message')}; the garbage"
                    " collector waits for it",
                    (_saw(service, "status.conditions", condition.get("reason")),),
                    None,
                    (f"kubectl get apiservices.apiregistration.k8s.io {service.ref.name}",),
                )


@finding
def snapshot_content_missing(examined: Examined) -> Iterator[Found]:
    """CleanupPVCAndSnapshot fails for ever on a VolumeSnapshot or PVC that is gone (H#10294)."""
    vm = examined.case.vm
    if vm is None or "wrangler.cattle.io/VMController.CleanupPVCAndSnapshot" not in vm.finalizers:
        return
    snapshot = examined.case.snapshot
    snapshots = {item.ref.name for item in snapshot.all(VOLUME_SNAPSHOT, vm.ref.namespace)}
    claims = {item.ref.name for item in snapshot.all(PVC, vm.ref.namespace)}
    for backup in snapshot.all(VM_BACKUP, vm.ref.namespace):
        if backup.text("spec", "source", "name") != vm.ref.name:
            continue
        if backup.text("spec", "type") == "backup":
            continue
        for volume in backup.mappings("status", "volumeBackups"):
            claim = _name_of_claim(volume)
            for what, name, known in (
                ("VolumeSnapshot", str(volume.get("name") or ""), snapshots),
                ("PersistentVolumeClaim", claim, claims),
            ):
                if name and name not in known:
                    yield Found(
                        f"{what} {name} of {backup.ref} is gone: the owner of"
                        " CleanupPVCAndSnapshot fails on it at every try (H#10294)",
                        (_saw(backup, "status.volumeBackups", name),),
                        Advice.REPAIR,
                        (
                            f"kubectl delete {VM_BACKUP.full_name} {backup.ref.name}"
                            f" -n {backup.ref.namespace}",
                        ),
                    )


def _name_of_claim(volume: object) -> str:
    value: object = volume
    for key in ("persistentVolumeClaim", "metadata", "name"):
        value = value.get(key) if isinstance(value, dict) else None
    return str(value or "")


@finding
def same_name_elsewhere(examined: Examined) -> Iterator[Found]:
    """The owner of CleanupPVCAndSnapshot finds backups by the VM's name alone."""
    vm = examined.case.vm
    if vm is None or "wrangler.cattle.io/VMController.CleanupPVCAndSnapshot" not in vm.finalizers:
        return
    for backup in examined.case.snapshot.all(VM_BACKUP):
        is_ours = backup.ref.namespace == vm.ref.namespace
        of_the_name = backup.text("spec", "source", "name") == vm.ref.name
        if of_the_name and not is_ours and backup.text("spec", "type") != "backup":
            yield Found(
                f"{backup.ref} belongs to a VM of the same name in another namespace, and"
                " Harvester would delete it together with this VM",
                (_saw(backup, "spec.source.name", vm.ref.name),),
                None,
            )


@finding
def migration_in_flight(examined: Examined) -> Iterator[Found]:
    """A migration of the guest is not finished."""
    for item in examined.case.migrations:
        yield Found(
            f"{item.ref} is not finished ({item.text('status', 'phase') or 'no phase'})",
            (_saw(item, "status.phase", item.text("status", "phase")),),
            Advice.REPAIR,
            (f"virtctl migrate-cancel {examined.case.ref.name} -n {examined.case.ref.namespace}",),
        )


@finding
def backup_in_progress(examined: Examined) -> Iterator[Found]:
    """A backup of the VM runs; Harvester vetoes a stop meanwhile."""
    if not examined.stuck:
        return
    for backup in examined.case.snapshot.all(VM_BACKUP, examined.case.ref.namespace):
        of_this = backup.text("spec", "source", "name") == examined.case.ref.name
        ready = backup.mapping("status").get("readyToUse")
        if of_this and ready is not True and backup.deletion_timestamp is None:
            yield Found(
                f"{backup.ref} is not ready to use yet",
                (_saw(backup, "status.readyToUse", ready),),
                Advice.WAIT,
            )


@finding
def finalizer_pending(examined: Examined) -> Iterator[Found]:
    """A finalizer whose work is not done, or that nobody knows."""
    for item in examined.plan.judgments:
        if item.state in (FinalizerState.DONE, FinalizerState.OWNERLESS):
            continue
        yield Found(
            finalizers.why_kept(item),
            (Evidence(str(item.ref), "metadata.finalizers", item.name),),
            Advice.REFUSE,
        )


@finding
def finalizer_ownerless(examined: Examined) -> Iterator[Found]:
    """A finalizer that an upgrade left without a controller (H#3529, H#3605)."""
    for item in examined.plan.judgments:
        if item.state is FinalizerState.OWNERLESS:
            yield Found(
                f"{item.name} is served by no controller any more: {item.reason} (H#3529)",
                (Evidence(str(item.ref), "metadata.finalizers", item.name),),
            )


@finding
def vm_released_before_vmi(examined: Examined) -> Iterator[Found]:
    """The VM is gone, its VMI is not: a finalizer's owner fails without the VM (H#9788)."""
    vmi = examined.case.vmi
    name = "wrangler.cattle.io/VMController.BackfillObservedNetworkMacAddress"
    if vmi is None or vmi.deletion_timestamp is None or name not in vmi.finalizers:
        return
    if examined.case.vm is None:
        yield Found(
            "the VM is gone, and the owner of BackfillObservedNetworkMacAddress fails without"
            " it at every try (H#9788)",
            (_saw(vmi, "metadata.finalizers", name),),
        )


@finding
def owner_unavailable(examined: Examined) -> Iterator[Found]:
    """The workload that should take a finalizer off does not run."""
    workloads = {
        entry.workload
        for item in examined.plan.judgments
        if (entry := finalizers.find(item.name, item.ref.kind)) is not None
    }
    for kind, prefix in ((DEPLOYMENT, "deploy/"), (DAEMON_SET, "ds/")):
        wanted = {name.removeprefix(prefix) for name in workloads if name.startswith(prefix)}
        if not wanted:
            continue
        there = {item.ref.name: item for item in examined.case.snapshot.all(
            kind, HARVESTER_NAMESPACE)}  # fmt: skip
        for name in sorted(wanted):
            workload = there.get(name)
            field = "availableReplicas" if kind is DEPLOYMENT else "numberAvailable"
            available = workload.mapping("status").get(field) if workload else None
            if not available:
                seen = "not there" if workload is None else "not available"
                yield Found(
                    f"{prefix}{name} is {seen}, so nobody takes its finalizers off",
                    (Evidence(f"{kind.kind} {HARVESTER_NAMESPACE}/{name}", field, str(available)),),
                    Advice.REPAIR,
                    (f"kubectl get {prefix}{name} -n {HARVESTER_NAMESPACE} -o wide",
                     f"kubectl rollout restart {prefix}{name} -n {HARVESTER_NAMESPACE}"),
                )  # fmt: skip


@finding
def force_reset_off(examined: Examined) -> Iterator[Found]:
    """Harvester's own answer to a dead node is switched off, or held back by an Upgrade."""
    if not examined.plan.silent_nodes and not examined.plan.powered_off:
        return
    setting = examined.case.snapshot.one(FORCE_RESET)
    if setting is not None:
        written = setting.text("value") or setting.text("default")
        try:
            enabled = json.loads(written).get("enable") if written else True
        except (ValueError, AttributeError):
            raise UnreadableError(str(setting.ref), f"its value is {written!r}") from None
        if not enabled:
            yield Found(
                "the setting vm-force-reset-policy is off, so Harvester does not free the VMs of"
                " a dead node by itself",
                (_saw(setting, "value", written),),
                None,
                (f"kubectl edit {SETTING.full_name} vm-force-reset-policy",),
            )
    for upgrade in examined.case.snapshot.all(UPGRADE, HARVESTER_NAMESPACE):
        state = upgrade.labels.get("harvesterhci.io/upgradeState")
        if state not in ("Succeeded", "Failed"):
            yield Found(
                f"{upgrade.ref} is not finished ({state or 'no state'}): for as long as it stands,"
                " vm-force-reset-policy does nothing",
                (_saw(upgrade, "metadata.labels", state),),
                None,
                (f"kubectl get {UPGRADE.full_name} -n {HARVESTER_NAMESPACE} --show-labels",),
            )


@finding
def state_change_left(examined: Examined) -> Iterator[Found]:
    """A stop or start that was asked for is still waiting in the VM's status (H#4659)."""
    vm = examined.case.vm
    waiting = vm.mappings("status", "stateChangeRequests") if vm else ()
    if vm is not None and waiting:
        actions = ", ".join(str(item.get("action")) for item in waiting)
        yield Found(
            f"{actions} is still waiting to be carried out",
            (_saw(vm, "status.stateChangeRequests", actions),),
        )


@finding
def waits_for_dependents(examined: Examined) -> Iterator[Found]:
    """A deletion in the foreground waits for an object that the target owns."""
    for item in examined.plan.judgments:
        if item.name == "foregroundDeletion" and item.state is FinalizerState.PENDING:
            yield Found(
                item.reason, (Evidence(str(item.ref), "metadata.finalizers", item.name),), None
            )


@finding
def never_scheduled(examined: Examined) -> Iterator[Found]:
    """The VMI is being deleted and has never run (K#4359)."""
    vmi = examined.case.vmi
    if vmi is None or vmi.deletion_timestamp is None:
        return
    phase = vmi.text("status", "phase")
    if phase in ("", "Pending", "Scheduling", "Scheduled"):
        yield Found(
            f"the VMI is {phase or 'without a phase'}: its guest has never run (K#4359)",
            (_saw(vmi, "status.phase", phase or "none"),),
        )


@finding
def ready_to_release(examined: Examined) -> Iterator[Found]:
    """Every guard passes."""
    if examined.stuck and not examined.plan.refusals:
        state = examined.plan.state or State.TERMINATING
        count = len(examined.plan.steps)
        yield Found(
            f"every guard passes; unstick would take {count} step{'s' if count > 1 else ''}",
            (Evidence(str(examined.plan.ref), "state", state.value),),
            Advice.RELEASE,
        )
