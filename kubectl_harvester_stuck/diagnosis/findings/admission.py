"""Admission: what vetoes the updates that the controllers, and a release, have to make.

A veto is seen by the dry run of the release; most of its causes can be seen beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kubectl_harvester_stuck.diagnosis.findings.base import (
    RELEASE,
    FindingContext,
    Found,
    finding,
    saw,
)
from kubectl_harvester_stuck.diagnosis.model import Verdict
from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.harvester import (
    denial_catalogue,
    pending_work,
    webhook_denials,
    workloads,
)
from kubectl_harvester_stuck.harvester.target import (
    FINAL_PHASES,
    HANGING,
    THE_VM,
    THE_VMI,
    Target,
    pvc_names,
    run_strategy,
)
from kubectl_harvester_stuck.k8s import commands, nesting
from kubectl_harvester_stuck.k8s.commands import Command, Remark
from kubectl_harvester_stuck.k8s.kinds import (
    API_SERVICE,
    DEPLOYMENT,
    NETWORK,
    PCI_DEVICE,
    POD,
    RESOURCE_QUOTA,
    USB_DEVICE,
    VM,
    VM_BACKUP,
    VMI,
)
from kubectl_harvester_stuck.k8s.objects import Evidence, KubeObject, ObjectRef
from kubectl_harvester_stuck.k8s.reads import EVERYWHERE, Read
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot

VOLUME_CLAIM_TEMPLATES = "harvesterhci.io/volumeClaimTemplates"
MAC_ADDRESSES = "harvesterhci.io/mac-address"
QUOTA_OF_PROJECT = "resourcequota.management.cattle.io/default-resource-quota"
"""Label of the only ResourceQuota that Harvester looks at.

Rancher keeps it where the annotation `field.cattle.io/resourceQuota` of the namespace says so.
"""
ASKS_FOR_MEMORY = (1, 7)
"""The first Harvester that rejects a VM without memory."""
LOOKS_FOR_NETWORKS = (1, 5)
"""The last Harvester that rejects changes of a VM in deletion whose network is gone."""
ASKS_FOR_DEVICES = (1, 5)
"""The first Harvester whose add-on rejects a VM with a host device that is not there."""
CLUSTER_NETWORK = "network.harvesterhci.io/clusternetwork"
"""Label of a NetworkAttachmentDefinition."""
NETWORKS_READ = Read(NETWORK, EVERYWHERE, metadata_only=True)
BACKFILL = "wrangler.cattle.io/VMController.BackfillObservedNetworkMacAddress"


@finding(reads=(RELEASE,))
def webhook_denies(examined: FindingContext) -> Iterator[Found]:
    """The dry run of the release is denied (H#5515, H#6024, K#13098)."""
    reason = examined.denial
    if reason is not None:
        yield Found(
            reason,
            (Evidence(str(examined.plan.ref), "dryRun=All", "denied"),),
            Verdict.REPAIR,
            (
                Remark(webhook_denials.cure_of(reason, examined.release_if_known)),
                *_backups_in_progress(examined, reason),
            ),
        )


def _backups_in_progress(examined: FindingContext, reason: str) -> Iterator[Command]:
    """The backups for which a stop is rejected."""
    denial = webhook_denials.find(reason, examined.release_if_known)
    if denial not in denial_catalogue.OF_A_BACKUP:
        return
    for backup in examined.target.snapshot.all(VM_BACKUP, examined.target.ref.namespace):
        of_this = backup.text("spec", "source", "name") == examined.target.ref.name
        if of_this and pending_work.holds_a_stop(backup):
            yield commands.describe(backup.ref)


@finding(reads=workloads.reads(DEPLOYMENT))
def webhook_unavailable(examined: FindingContext) -> Iterator[Found]:
    """A webhook that every update has to pass does not run (K#13098, K#9735)."""
    if not examined.stuck:
        return
    for name in ("deploy/virt-api", "deploy/harvester-webhook"):
        workload = workloads.find(name, examined.target.snapshot)
        if workload is not None and not workload.mapping("status").get("availableReplicas"):
            yield Found(
                f"{name} is not available, so nothing that it admits can be changed, by nobody",
                (saw(workload, "status.availableReplicas", 0),),
                Verdict.REPAIR,
                (
                    commands.get_all(POD, workload.ref.namespace, "-o", "wide"),
                    commands.rollout_restart(workload.ref),
                ),
            )


@finding(reads=(*HANGING, *workloads.reads()))
def veto_keeps_vmi(examined: FindingContext) -> Iterator[Found]:
    """A veto on the VM keeps its VMI: virt-controller cannot store the VM's status (H#5515)."""
    vmi, vm = examined.target.vmi, examined.target.vm
    last = "kubevirt.io/virtualMachineControllerFinalize"
    if vmi is None or vm is None or vmi.deletion_timestamp is None or vmi.finalizers != (last,):
        return
    if vmi.text("status", "phase") in FINAL_PHASES and not examined.target.pods:
        yield Found(
            "the VMI has ended and waits only for virt-controller to store the VM's status;"
            " when that update is vetoed, the VMI stays for as long as the veto does",
            (
                saw(vmi, "metadata.finalizers", last),
                saw(vm, "status.printableStatus", vm.text("status", "printableStatus")),
            ),
            None,
            (
                commands.logs(
                    workloads.ref_of("deploy/virt-controller", examined.target.snapshot),
                    "--tail=2000",
                ).noted(f"what does it say of {vm.ref}?"),
            ),
        )


@finding(reads=(THE_VM, VM))
def disk_of_another_vm(examined: FindingContext) -> Iterator[Found]:
    """Another VM lists the same PVC, for which Harvester's validator vetoes updates (H#5515).

    It can only be one of the same namespace, as the PVC is.
    """
    vm = examined.target.vm
    if vm is None:
        return
    ours = set(pvc_names(vm))
    if not ours:
        return
    for other in examined.target.snapshot.all(VM, vm.ref.namespace):
        shared = sorted(ours & set(pvc_names(other)))
        if other.ref != vm.ref and shared:
            denied = examined.may_be_denied
            note = (
                f"the least harm: drop the volume from {vm.ref.name}, which is going anyway"
                if vm.deletion_timestamp is not None
                else f"unless it is meant to be shared, take it out of {vm.ref.name} or of"
                f" {other.ref.name}"
            )
            yield Found(
                f"{other.ref} lists {', '.join(shared)} as well, for which Harvester denies every"
                " update of either VM unless the volume is shareable (H#5515)",
                (saw(other, "spec.template.spec.volumes", ", ".join(shared)),),
                Verdict.REPAIR if denied else None,
                (commands.edit(vm.ref).noted(note),),
            )


@finding(reads=(THE_VM,))
def broken_template_annotation(examined: FindingContext) -> Iterator[Found]:
    """The volumeClaimTemplates annotation is no JSON list, for which Harvester denies updates."""
    vm = examined.target.vm
    if vm is None:
        return
    written = vm.annotations.get(VOLUME_CLAIM_TEMPLATES)
    if not written:
        return
    try:
        broken = not isinstance(nesting.parse(written), list)
    except ValueError:
        broken = True
    if broken:
        yield Found(
            f"the annotation {VOLUME_CLAIM_TEMPLATES} is not a JSON list, for which Harvester"
            " denies every update of the VM",
            (saw(vm, "metadata.annotations", written[:60]),),
            Verdict.REPAIR,
            (commands.annotate(vm.ref, VOLUME_CLAIM_TEMPLATES, None),),
        )


def _where_macs_are_compared(snapshot: ClusterSnapshot) -> Iterator[str]:
    """Everywhere, where a VMI waits for its MAC addresses to be written: that list is a large one.

    Raises UnreadableError.
    """
    listed = (item for (kind, _), items in snapshot.listed.items() if kind is VMI for item in items)
    known = (item for item in (*snapshot.found.values(), *listed) if item is not None)
    for item in known:
        if item.ref.kind is VMI and item.deletion_timestamp and BACKFILL in item.finalizers:
            vm = snapshot.one(ObjectRef(item.ref.namespace, item.ref.name, VM))
            if vm is not None and not vm.deletion_timestamp and vm.annotations.get(MAC_ADDRESSES):
                yield EVERYWHERE
                return


@finding(reads=(THE_VM, THE_VMI, VM, Read(VM, _where_macs_are_compared), NETWORKS_READ))
def mac_of_another_vm(examined: FindingContext) -> Iterator[Found]:
    """The MAC address to be written into the VM is another's on its cluster network (H#9788)."""
    vm, vmi = examined.target.vm, examined.target.vmi
    if vm is None or vmi is None or vm.deletion_timestamp or not vmi.deletion_timestamp:
        return
    written = vm.annotations.get(MAC_ADDRESSES)
    if not written or BACKFILL not in vmi.finalizers:
        return
    try:
        seen = {name: str(address) for name, address in nesting.parse(written).items()}
    except (ValueError, AttributeError):
        raise UnreadableError(str(vm.ref), f"its annotation {MAC_ADDRESSES} is malformed") from None
    cluster_of = {
        item.ref.key: item.labels.get(CLUSTER_NETWORK, "")
        for item in examined.target.snapshot.all(NETWORK)
    }
    ours = _addresses(vm, seen, cluster_of)
    for other in _in_all_namespaces(examined.target):
        written_there = {
            str(item.get("name")): str(item.get("macAddress"))
            for item in other.mappings(*_INTERFACES)
        }
        theirs = _addresses(other, written_there, cluster_of)
        for _, address in sorted(ours & theirs) if other.ref != vm.ref else ():
            yield Found(
                f"{other.ref} has the MAC address {address}, which Harvester tries to write into"
                " this VM and denies itself (H#9788)",
                (saw(other, ".".join(_INTERFACES), address),),
                Verdict.REPAIR,
                (commands.annotate(vm.ref, MAC_ADDRESSES, None),),
            )


_INTERFACES = ("spec", "template", "spec", "domain", "devices", "interfaces")


def _addresses(
    vm: KubeObject, by_interface: Mapping[str, str], cluster_of: Mapping[str, str]
) -> set[tuple[str, str]]:
    """MAC addresses, each with its cluster network, as Harvester compares them."""
    clusters = {}
    for network in vm.mappings("spec", "template", "spec", "networks"):
        if isinstance(network.get("multus"), dict):
            name = str(network["multus"].get("networkName"))
            key = name if "/" in name else f"default/{name}"
            clusters[str(network.get("name"))] = cluster_of.get(key, "")
    return {(clusters.get(name, ""), address.lower()) for name, address in by_interface.items()}


def _in_all_namespaces(target: Target) -> Iterator[KubeObject]:
    """All VMs, those of the target's namespace first. Raises UnreadableError, then at the last."""
    yield from target.snapshot.all(VM, target.ref.namespace)
    for vm in target.snapshot.all(VM):
        if vm.ref.namespace != target.ref.namespace:
            yield vm


@finding(reads=(THE_VM, RELEASE, NETWORKS_READ))
def network_missing(examined: FindingContext) -> Iterator[Found]:
    """A network of the VM is gone; up to 1.5.0 Harvester then denies its deletion (H#6024)."""
    vm = examined.target.vm
    if vm is None:
        return
    wanted = [
        str(network["multus"].get("networkName"))
        for network in vm.mappings("spec", "template", "spec", "networks")
        if isinstance(network.get("multus"), dict)
    ]
    if not wanted or (vm.deletion_timestamp is not None and _lets_go(examined.release_if_known)):
        return
    there = {item.ref.key for item in examined.target.snapshot.all(NETWORK)}
    for name in wanted:
        key = name if "/" in name else f"{vm.ref.namespace}/{name}"
        if key not in there:
            yield Found(
                f"NetworkAttachmentDefinition {key} is gone; Harvester denies updates of a VM that"
                " names it, up to 1.4.2 and in 1.5.0 also of one that is being deleted (H#6024)",
                (saw(vm, "spec.template.spec.networks", name),),
                Verdict.REPAIR if examined.may_be_denied else None,
            )


def _lets_go(release: tuple[int, int] | None) -> bool:
    """Whether it is known that the networks of a VM that is being deleted are not looked for."""
    return release is not None and release > LOOKS_FOR_NETWORKS


@finding(reads=(THE_VM, RELEASE, PCI_DEVICE, USB_DEVICE))
def host_device_missing(examined: FindingContext) -> Iterator[Found]:
    """A host device of the VM is gone, and the addon's webhook denies updates (H#1710)."""
    vm = examined.target.vm
    if vm is None:
        return
    path = ("spec", "template", "spec", "domain", "devices", "hostDevices")
    wanted = [str(item.get("deviceName")) for item in vm.mappings(*path)]
    if not wanted:
        return
    release = examined.release_if_known
    if release is not None and release < ASKS_FOR_DEVICES:
        return
    there = {
        device.text("status", "resourceName")
        for kind in (PCI_DEVICE, USB_DEVICE)
        for device in examined.target.snapshot.all(kind)
    }
    for name in wanted:
        if name not in there:
            yield Found(
                f"no PCIDevice or USBDevice offers {name} any more; the webhook of the addon"
                " pcidevices-controller denies every update of a VM that asks for it",
                (saw(vm, ".".join(path), name),),
                Verdict.REPAIR if examined.may_be_denied else None,
                (commands.edit(vm.ref).noted(f"take {name} out of its host devices"),),
            )


@finding(reads=(*HANGING, RESOURCE_QUOTA))
def quota_without_pod(examined: FindingContext) -> Iterator[Found]:
    """No pod is left in a project with a quota, which Harvester then checks at every update.

    It looks at no other quota than the one that Rancher keeps in the namespaces of a project with
    limits of CPU or memory, and at no VM that is off or has no status yet.
    """
    vm = examined.target.vm
    if vm is None or not examined.stuck or examined.target.pods:
        return
    if run_strategy(vm) == "Halted" or not vm.text("status", "printableStatus"):
        return
    for quota in examined.target.snapshot.all(RESOURCE_QUOTA, vm.ref.namespace):
        hard = quota.mapping("spec", "hard")
        limits = {name: hard[name] for name in ("limits.cpu", "limits.memory") if name in hard}
        if limits and quota.labels.get(QUOTA_OF_PROJECT) == "true":
            yield Found(
                f"{quota.ref} limits the project; without a pod of the VM, Harvester checks at"
                " every update whether it could start, and denies it if it could not",
                (saw(quota, "spec.hard", limits),),
                Verdict.REPAIR if examined.may_be_denied else None,
            )


@finding(reads=(THE_VM, RELEASE))
def memory_missing(examined: FindingContext) -> Iterator[Found]:
    """The VM says nothing of its memory, for which Harvester rejects every update (H#9685)."""
    vm = examined.target.vm
    if vm is None:
        return
    domain = ("spec", "template", "spec", "domain")
    guest = vm.mapping(*domain, "memory").get("guest")
    if guest or vm.mapping(*domain, "resources", "limits").get("memory"):
        return
    release = examined.release
    if release is not None and release >= ASKS_FOR_MEMORY:
        yield Found(
            f"{vm.ref} sets neither memory.guest nor resources.limits.memory, for which Harvester"
            " rejects every update of it, also one that takes a finalizer off (H#9685)",
            (saw(vm, ".".join((*domain, "memory", "guest")), "none"),),
            Verdict.REPAIR if examined.may_be_denied else None,
            (commands.edit(vm.ref).noted("set spec.template.spec.domain.memory.guest"),),
        )


@finding(reads=(API_SERVICE,))
def aggregated_api_down(examined: FindingContext) -> Iterator[Found]:
    """An aggregated API is unavailable, which stops the garbage collector and virtctl."""
    if not examined.stuck:
        return
    for service in examined.target.snapshot.all(API_SERVICE):
        for condition in service.mappings("status", "conditions"):
            if condition.get("type") == "Available" and condition.get("status") == "False":
                yield Found(
                    f"{service.ref} is not available: {condition.get('message')}; the garbage"
                    " collector waits for it",
                    (saw(service, "status.conditions", condition.get("reason")),),
                    None,
                    (commands.get(service.ref),),
                )
