"""The catalogue: every finalizer that Harvester, KubeVirt and Kubernetes put on a VM or a VMI.

Each entry says who owns the finalizer, when its work is finished, and what stays behind when it
is removed by hand. To add one: an entry in `CATALOGUE`, with one of `finalizer_judges` or a new
one, and cases in tests/test_finalizers.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from kubectl_harvester_stuck.harvester import finalizer_judges as judges
from kubectl_harvester_stuck.k8s.kinds import VM, VMI, Kind
from kubectl_harvester_stuck.k8s.reads import Read

BY_SOURCE = "source"
"""For judgments that rest on the owner's source alone."""


@dataclass(frozen=True)
class Finalizer:
    """One entry of the catalogue.

    `source` names the file in the owner's code that adds or removes the finalizer, `verified`
    the program beside which the tests saw the judgments come true.
    """

    name: str
    kinds: tuple[Kind, ...]
    owner: str
    workload: str
    versions: str
    released_when: str
    leaves_behind: str
    source: str
    judge: judges.Judge
    verified: str = BY_SOURCE

    @property
    def reads(self) -> tuple[Read, ...]:
        """What its judge looks at."""
        return judges.JUDGES[self.judge]


_VIRT_CONTROLLER = ("virt-controller", "deploy/virt-controller")
_HARVESTER = ("harvester", "deploy/harvester")
_LOAD_BALANCER = ("harvester-load-balancer", "deploy/harvester-load-balancer")
_GC = ("garbage collector", "kube-controller-manager")

CATALOGUE: tuple[Finalizer, ...] = (
    Finalizer(
        "kubevirt.io/foregroundDeleteVirtualMachine",
        (VMI,),
        *_VIRT_CONTROLLER,
        versions="KubeVirt >= 1.7 (Harvester >= 1.8)",
        released_when="the guest has ended and no pod of the VMI is left",
        leaves_behind="no object; while the guest could still run, a second QEMU on its disks",
        source="kubevirt pkg/virt-controller/watch/vmi/lifecycle.go",
        judge=judges.instance_over,
        verified="KubeVirt 1.8.3",
    ),
    Finalizer(
        "foregroundDeleteVirtualMachine",
        (VMI,),
        *_VIRT_CONTROLLER,
        versions="KubeVirt <= 1.6 (Harvester <= 1.7)",
        released_when="the guest has ended and no pod of the VMI is left",
        leaves_behind="no object; while the guest could still run, a second QEMU on its disks",
        source="kubevirt pkg/virt-controller/watch/vmi/lifecycle.go",
        judge=judges.instance_over,
        verified="KubeVirt 1.8.3",
    ),
    Finalizer(
        "kubevirt.io/virtualMachineControllerFinalize",
        (VMI,),
        *_VIRT_CONTROLLER,
        versions="KubeVirt >= 0.44",
        released_when="the VMI has ended and its last status was copied to the VM",
        leaves_behind="the VM's status is not updated",
        source="kubevirt pkg/virt-controller/watch/vm/vm.go",
        judge=judges.status_copied,
        verified="KubeVirt 1.8.3",
    ),
    Finalizer(
        "kubevirt.io/virtualMachineControllerFinalize",
        (VM,),
        *_VIRT_CONTROLLER,
        versions="KubeVirt >= 0.59",
        released_when="the VMI is gone",
        leaves_behind="while the VMI exists, a new VM of this name would adopt it",
        source="kubevirt pkg/virt-controller/watch/vm/vm.go",
        judge=judges.instance_gone,
        verified="KubeVirt 1.8.3",
    ),
    Finalizer(
        "wrangler.cattle.io/VMController.CleanupPVCAndSnapshot",
        (VM,),
        *_HARVESTER,
        versions="Harvester >= 1.4",
        released_when="the disks selected for deletion and the VM's snapshots are deleted",
        leaves_behind="the disks selected for deletion, snapshot-type backups and their snapshots",
        source="harvester pkg/controller/master/virtualmachine/vm_controller.go",
        judge=judges.disks_and_snapshots,
        verified="Harvester 1.8.2, 1.6.0, 1.4.0",
    ),
    Finalizer(
        "wrangler.cattle.io/VMController.ReconcileBackendStorageClone",
        (VM,),
        *_HARVESTER,
        versions="Harvester >= 1.9",
        released_when="the Jobs that clone its TPM and EFI storage are deleted",
        leaves_behind="clone Jobs, until the garbage collector takes them",
        source="harvester pkg/controller/master/virtualmachine/vm_controller.go",
        judge=judges.clone_jobs,
    ),
    Finalizer(
        "wrangler.cattle.io/VMController.UnsetOwnerOfPVCs",
        (VM,),
        *_HARVESTER,
        versions="Harvester 0.3 to 1.1.1; 1.1.2 to 1.3 serve it, 1.4 and later only remove it",
        released_when="no PVC names the VM as its owner, no snapshot is left; since 1.4 at once",
        leaves_behind="an owner annotation on PVCs, disks selected for deletion, snapshots",
        source="harvester pkg/controller/master/virtualmachine/register.go",
        judge=judges.disk_owners_of_vm,
        verified="Harvester 1.8.2, 1.6.0, 1.4.0",
    ),
    Finalizer(
        "harvesterhci.io/VMController.UnsetOwnerOfPVCs",
        (VM,),
        *_HARVESTER,
        versions="Harvester 1.1.2 to 1.3; 1.4 and later only remove it",
        released_when="no PVC names the VM as its owner, no snapshot is left; since 1.4 at once",
        leaves_behind="an owner annotation on PVCs, disks selected for deletion, snapshots",
        source="harvester pkg/controller/master/virtualmachine/register.go",
        judge=judges.disk_owners_of_vm,
        verified="Harvester 1.8.2, 1.6.0, 1.4.0",
    ),
    Finalizer(
        "wrangler.cattle.io/VMIController.UnsetOwnerOfPVCs",
        (VMI,),
        *_HARVESTER,
        versions="Harvester <= 1.3; 1.4 and later only remove it",
        released_when="no PVC that the guest lost names the VM as its owner; from 1.4 at once",
        leaves_behind="an owner annotation on PVCs",
        source="harvester pkg/controller/master/virtualmachine/register.go",
        judge=judges.disk_owners_of_vmi,
        verified="Harvester 1.8.2, 1.6.0, 1.4.0",
    ),
    Finalizer(
        "wrangler.cattle.io/VMController.BackfillObservedNetworkMacAddress",
        (VMI,),
        *_HARVESTER,
        versions="Harvester >= 1.7",
        released_when="the observed MAC addresses are in the VM's spec, or the VM is being deleted",
        leaves_behind="the VM may get another MAC address at its next start",
        source="harvester pkg/controller/master/virtualmachine/vmi_network_controller.go",
        judge=judges.backfill,
        verified="Harvester 1.8.2",
    ),
    Finalizer(
        "wrangler.cattle.io/harvester-lb-vm-controller",
        (VM,),
        *_LOAD_BALANCER,
        versions="Harvester >= 1.8",
        released_when="the LoadBalancers of a guest cluster that is removed are deleted",
        leaves_behind="LoadBalancers of the guest cluster and their addresses",
        source="load-balancer-harvester pkg/controller/vm/controller.go",
        judge=judges.load_balancers,
    ),
    Finalizer(
        "wrangler.cattle.io/harvester-lb-vmi-controller",
        (VMI,),
        *_LOAD_BALANCER,
        versions="Harvester >= 1.2",
        released_when="the guest has ended; LoadBalancers only look at their endpoints again",
        leaves_behind="endpoints of LoadBalancers, until they are next reconciled",
        source="load-balancer-harvester pkg/controller/vmi/controller.go",
        judge=judges.instance_over,
    ),
    Finalizer(
        "wrangler.cattle.io/virtual-machine-deletion",
        (VMI,),
        "pcidevices-controller",
        "ds/harvester-pcidevices-controller",
        versions="addon pcidevices-controller since 2024-10",
        released_when="the guest's devices are written to the VM, or the VM is being deleted",
        leaves_behind="an outdated harvesterhci.io/deviceAllocationDetails on the VM",
        source="pcidevices pkg/controller/virtualmachine/virtualmachine.go",
        judge=judges.device_allocation,
    ),
    Finalizer(
        "wrangler.cattle.io/VMController.UnsetOwnerOfDataVolumes",
        (VM,),
        *_HARVESTER,
        versions="Harvester <= 0.2; still on VMs that were made then",
        released_when="no DataVolume names the VM as its owner",
        leaves_behind="an owner annotation on DataVolumes",
        source="harvester v0.2.0 pkg/controller/master/virtualmachine/register.go",
        judge=judges.gone_for_good,
    ),
    Finalizer(
        "k8s.v1.cni.cncf.io/kubeMacPool",
        (VM,),
        "kubemacpool",
        "kubemacpool",
        versions="kubemacpool < 0.20; not part of Harvester; an imported VM can carry it",
        released_when="its MAC addresses are free again",
        leaves_behind="nothing in Harvester, which keeps no pool of addresses",
        source="kubemacpool pkg/pool-manager/pool.go",
        judge=judges.gone_for_good,
    ),
    Finalizer(
        "snapshot.kubevirt.io/snapshot-source-protection",
        (VM,),
        *_VIRT_CONTROLLER,
        versions="KubeVirt",
        released_when="the VirtualMachineSnapshot that the VM names has finished",
        leaves_behind="an inconsistent VirtualMachineSnapshot",
        source="kubevirt pkg/storage/snapshot/source.go",
        judge=judges.snapshot_lock,
        verified="KubeVirt 1.8.3",
    ),
    Finalizer(
        "pool.kubevirt.io/finalizer",
        (VM,),
        *_VIRT_CONTROLLER,
        versions="KubeVirt >= 1.7; not used by Harvester itself",
        released_when="its VirtualMachinePool has detached the disks that it keeps",
        leaves_behind="nothing; disks that the pool would keep go with the VM",
        source="kubevirt pkg/virt-controller/watch/pool/pool.go",
        judge=judges.pool_lets_go,
        verified="KubeVirt 1.8.3",
    ),
    Finalizer(
        "foregroundDeletion",
        (VM, VMI),
        *_GC,
        versions="Kubernetes; the Harvester UI deletes every VM in the foreground",
        released_when="everything is gone that the object owns with blockOwnerDeletion",
        leaves_behind="dependents that are left go in the background",
        source="kubernetes pkg/controller/garbagecollector",
        judge=judges.dependents,
        verified="Kubernetes 1.35",
    ),
    Finalizer(
        "orphan",
        (VM, VMI),
        *_GC,
        versions="Kubernetes; kubectl delete --cascade=orphan",
        released_when="the garbage collector has orphaned the dependents",
        leaves_behind="nothing; dependents that were to be kept would be deleted",
        source="kubernetes pkg/controller/garbagecollector",
        judge=judges.orphan,
        verified="Kubernetes 1.35",
    ),
)
