"""The catalogue: what the admission webhooks of a Harvester cluster say when they deny a request.

Each entry has the text, the releases of Harvester that it is found in, where it stands in the
source, and what to do about it. To add one: an entry in `CATALOGUE`, from the source at the tag
that it names; `python -m tools.docs` writes it into `docs/webhooks.md`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

Release = tuple[int, int]
"""Major and minor number of a Harvester, as in (1, 8)."""

FIRST: Release = (1, 3)
"""The first release that was looked through."""
NEWEST = "1.9.0-rc6"
"""The newest one."""

NAME, TEXT = "{}", "{*}"
"""In a text: a name, which has no blanks, and whatever else the webhook fills in."""

HARVESTER = "harvester/harvester"
LOAD_BALANCER = "harvester/load-balancer-harvester"
PCI_DEVICES = "harvester/pcidevices"
KUBEVIRT = "kubevirt/kubevirt"
KUBERNETES = "kubernetes/kubernetes"


@dataclass(frozen=True)
class Denial:
    """One text of a webhook.

    `since` and `until` are the first and the last release of Harvester whose webhooks have it, None
    where the newest one has it. `tag` is the one of `repository` at which it was read in `path`,
    `heard` are the releases whose running webhook said it in the tests.
    """

    text: str
    cure: str
    repository: str
    path: str
    tag: str
    since: Release
    until: Release | None = None
    heard: tuple[str, ...] = ()

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """What a message of it looks like, from its beginning."""
        parts = re.split(r"(\{\*?\})", self.text)
        spelled = {NAME: r"\S+", TEXT: r".+?"}
        return re.compile("".join(spelled.get(part, re.escape(part)) for part in parts))

    def is_of(self, release: Release | None) -> bool:
        """Whether that release has it; yes where the release is not known."""
        if release is None:
            return True
        return self.since <= release and (self.until is None or release <= self.until)


@dataclass(frozen=True)
class _File:
    """Where the texts of one file stand, and the newest tag that was looked at."""

    repository: str
    path: str
    tag: str

    def says(
        self,
        text: str,
        cure: str,
        since: Release = FIRST,
        until: Release | None = None,
        *,
        heard: tuple[str, ...] = (),
        tag: str = "",
    ) -> Denial:
        return Denial(text, cure, self.repository, self.path, tag or self.tag, since, until, heard)


_HARVESTER_TAG = f"v{NEWEST}"
_VM = _File(HARVESTER, "pkg/webhook/resources/virtualmachine/validator.go", _HARVESTER_TAG)
_VM_CHANGED = _File(HARVESTER, "pkg/webhook/resources/virtualmachine/mutator.go", _HARVESTER_TAG)
_DISK = _File(HARVESTER, "pkg/webhook/resources/persistentvolumeclaim/validator.go", _HARVESTER_TAG)
_BACKUP = _File(
    HARVESTER, "pkg/webhook/resources/virtualmachinebackup/validator.go", _HARVESTER_TAG
)
_RESTORE = _File(
    HARVESTER, "pkg/webhook/resources/virtualmachinerestore/validator.go", _HARVESTER_TAG
)
_MACHINE = _File(HARVESTER, "pkg/util/virtualmachine/virtualmachine.go", _HARVESTER_TAG)
_QUOTA = _File(HARVESTER, "pkg/util/resourcequota/error.go", _HARVESTER_TAG)
_BALANCER = _File(LOAD_BALANCER, "pkg/webhook/loadbalancer/validator.go", "v1.9.0-rc4")
_POOL = _File(LOAD_BALANCER, "pkg/webhook/ippool/validator.go", "v1.9.0-rc4")
_DEVICES = _File(PCI_DEVICES, "pkg/webhook/vm_validatation.go", "v1.8.1")
_PCI_CLAIM = _File(PCI_DEVICES, "pkg/webhook/pcideviceclaim.go", "v1.8.1")
_USB_CLAIM = _File(PCI_DEVICES, "pkg/webhook/usbdeviceclaim.go", "v1.8.1")
_ADMITTERS = "pkg/virt-api/webhooks/validating-webhook/admitters"
_INSTANCE = _File(KUBEVIRT, f"{_ADMITTERS}/vmi-update-admitter.go", "v1.8.4")
_KUBEVIRT_VM = _File(KUBEVIRT, f"{_ADMITTERS}/vms-admitter.go", "v1.8.4")
_MOVE = _File(KUBEVIRT, f"{_ADMITTERS}/migration-create-admitter.go", "v1.8.4")
_STATUS = _File(KUBEVIRT, "pkg/storage/admitters/vm-storage-status.go", "v1.8.4")

_ALL = ("1.4.0", "1.6.0", "1.8.2")
_SINCE_15 = _ALL[1:]
_NEW = ("1.8.2",)

_OTHER_DISK = (
    "another VM lists the same PVC: remove the volume from the spec of the VM that is being"
    " deleted; that update passes"
)
_TEMPLATES = "correct or remove the annotation harvesterhci.io/volumeClaimTemplates of this VM"
_MOVED_DISK = (
    "remove targetVolume, which is left of a volume migration, from the annotation"
    " harvesterhci.io/volumeClaimTemplates of this VM"
)
_RESERVED = "correct or remove the annotation harvesterhci.io/reservedMemory of this VM"
_ROOM = "raise the namespace's resource quota, or set spec.runStrategy of this VM to Halted"
_STORAGE = "raise the namespace's quota of storage, or take back what made the VM's disks larger"
_BACKUP_RUNS = "wait for the VirtualMachineBackup of this VM to finish, or end it"
_SHARED = "set shareable of that disk to false, or correct what the message names"
_DRIVE = "set the bus of that cd-rom to sata, or remove the disk"
_IMAGE = "let somebody who may use the image make the change, or take the volume out of the change"
_KEEP = "take the disk out of the annotation harvesterhci.io/removedPersistentVolumeClaims"
_DEVICES_GONE = "remove the host device that no longer exists from this VM's spec"
_SNAPSHOT_RUNS = "wait for the VirtualMachineSnapshot to finish, or delete it"
_RESTORE_RUNS = "wait for the VirtualMachineRestore to finish, or delete it"
_IS_IN_USE = "take the device out of the spec of the VM that it names first"

_OF_A_DEVICE = (
    _DEVICES.says(
        "hostdevice {}: resource name {} not found in pcidevice and usbdevice cache",
        _DEVICES_GONE,
        (1, 5),
    ),
    _DEVICES.says(
        "device {} is not on the same node in",
        "remove the host devices from this VM's spec",
        (1, 4),
    ),
    _PCI_CLAIM.says("pcideviceclaim {} is already in use with vm {} in namespace {}", _IS_IN_USE),
    _USB_CLAIM.says("usbdeviceclaim {} is still in use by vm {}", _IS_IN_USE, (1, 4)),
)
_OF_A_BALANCER = (
    _BALANCER.says(
        "create loadbalancer {} failed with guest cluster check: the vm {} shows guest cluster {}"
        " is being removed",
        "wait until the guest cluster is gone: its LoadBalancers are not made again before",
        (1, 8),
    ),
    _POOL.says(
        "could not delete pool before releasing all the allocated IP",
        "delete the LoadBalancers that have an address of this IPPool first",
        until=(1, 4),
        tag="v0.4.0",
    ),
    _POOL.says(
        "can't delete pool before releasing all the allocated IP",
        "delete the LoadBalancers that have an address of this IPPool first",
        (1, 4),
    ),
)
_OF_KUBEVIRT = (
    _INSTANCE.says(
        "update of VMI object is restricted",
        "nobody but KubeVirt may change the spec of a VMI: change the VM",
    ),
    _INSTANCE.says(
        "modification of the following reserved kubevirt.io/ labels on a VMI object is prohibited",
        "nobody but KubeVirt may change these labels of a VMI",
    ),
    _KUBEVIRT_VM.says("missing virtual machine template.", "set spec.template of this VM"),
    _MOVE.says(
        "in-flight migration detected. Active migration job {} is currently already in progress",
        "wait for the migration that is going to finish, or cancel it",
    ),
    _KUBEVIRT_VM.says(
        "Cannot start VM until restore {} completes", _RESTORE_RUNS, until=(1, 5), tag="v1.4.0"
    ),
    _STATUS.says("Cannot update VM runStrategy until restore {} completes", _RESTORE_RUNS, (1, 6)),
    _KUBEVIRT_VM.says(
        "Cannot update VM spec until snapshot {} completes",
        _SNAPSHOT_RUNS,
        until=(1, 4),
        tag="v1.3.1",
    ),
    _KUBEVIRT_VM.says(
        "Cannot update VM disks or volumes until snapshot {} completes",
        _SNAPSHOT_RUNS,
        (1, 5),
        (1, 5),
        tag="v1.4.0",
    ),
    _KUBEVIRT_VM.says(
        "Cannot update VM running state until snapshot {} completes",
        _SNAPSHOT_RUNS,
        (1, 5),
        (1, 5),
        tag="v1.4.0",
    ),
    _STATUS.says(
        "Cannot update vm disks or volumes until snapshot {} completes", _SNAPSHOT_RUNS, (1, 6)
    ),
    _STATUS.says(
        "Cannot update vm running state until snapshot {} completes", _SNAPSHOT_RUNS, (1, 6)
    ),
)

OF_A_BACKUP = (
    _VM.says(
        "there is vmbackup in progress for vm {}, please wait for the vmbackup",
        _BACKUP_RUNS,
        until=(1, 8),
        heard=_ALL,
        tag="v1.8.2",
    ),
    _VM.says("vm {} has a backup in progress; wait for it to finish", _BACKUP_RUNS, (1, 9)),
)
"""How a stop is rejected while a backup runs."""

_OF_A_VM = (
    _VM.says("the volume {} is already used by VM {}", _OTHER_DISK, until=(1, 6), tag="v1.6.1"),
    _VM.says(
        "PVC {} is already used by other VM, please use a shareable RWX volume.",
        _OTHER_DISK,
        (1, 7),
        heard=_NEW,
    ),
    *OF_A_BACKUP,
    _VM.says("the volumeClaimTemplates annotaion is invalid", _TEMPLATES, heard=_ALL),
    _VM.says("failed to unmarshal volumeClaimTemplates annotation", _TEMPLATES, (1, 8)),
    _VM.says(
        "PVC {} is a golden image, it can't be used as a volume in VM",
        "remove the volume of the golden image from this VM's spec",
        (1, 5),
        heard=_SINCE_15,
    ),
    _VM.says(
        "PVC {} is a golden image, it can't be used as a hotplug volume in VM",
        "end the request to plug in the golden image, in status.volumeRequests of this VM",
        (1, 5),
    ),
    _VM.says(
        "Termination grace period can't be negative",
        "correct terminationGracePeriodSeconds",
        heard=_ALL,
    ),
    _VM.says(
        "either memory.guest or resources.limits.memory must be set",
        "set spec.template.spec.domain.memory.guest of this VM",
        (1, 7),
        heard=_NEW,
    ),
    _VM.says("reservedMemory cannot be equal or greater than limits.memory", _RESERVED, heard=_ALL),
    _VM.says("reservedMemory cannot be less than 0", _RESERVED),
    _VM.says(
        "guest memory {} plus reservedMemory {} cannot be greater than limits.memory {}",
        _RESERVED,
        (1, 6),
    ),
    _VM_CHANGED.says(
        "reservedMemory can't be equal or greater than limits.memory", _RESERVED, (1, 4)
    ),
    _VM_CHANGED.says("annotation {} can't be converted to memory unit", _RESERVED, (1, 4)),
    _VM_CHANGED.says(
        "guest memory is under the minimum requirement (10 Mi)",
        "raise resources.limits.memory of this VM",
        (1, 4),
    ),
    _QUOTA.says("storage insufficient resources due to resource quota", _STORAGE, (1, 4)),
    _QUOTA.says("{} insufficient resources due to resource quota", _ROOM, (1, 4)),
    _QUOTA.says("{} insufficient resources", _ROOM, until=(1, 3), tag="v1.3.2"),
    _VM.says(
        "storage class names for the volumes in the {} annotation cannot be changed",
        "write the former storage class back into the annotation"
        " harvesterhci.io/volumeClaimTemplates",
        (1, 7),
    ),
    _VM.says(
        "storage class {} does not exist",
        "write a storage class that exists into the annotation"
        " harvesterhci.io/volumeClaimTemplates",
        (1, 9),
    ),
    _VM.says(
        "{} PVC requests storage can't be less than previous value",
        "write the former size back into the annotation harvesterhci.io/volumeClaimTemplates",
    ),
    _VM.says(
        "invalid maintenance mode strategy: {}",
        "correct the label harvesterhci.io/maintain-mode-strategy of this VM, or remove it",
        (1, 8),
    ),
    _VM.says(
        "duplicate mac address present for vm {}",
        "change the MAC address of the other VM",
        (1, 5),
        heard=_NEW,
    ),
    _VM.says("vm {} template is nil", "set spec.template of this VM", (1, 5)),
    _VM_CHANGED.says("VM template is nil", "set spec.template of this VM", (1, 8)),
    _VM.says(
        "VM must be running to set targetVolume for volume migration",
        _MOVED_DISK,
        (1, 8),
        heard=_NEW,
    ),
    _VM.says("PVC {} is not attached to the VM", _MOVED_DISK, (1, 8), heard=_NEW),
    _VM.says("only one volume migration is allowed at a time", _MOVED_DISK, (1, 8)),
    _VM.says("PVC content must not be empty when targetVolume is set", _MOVED_DISK, (1, 8)),
    _VM.says(
        "source volume {} is a DataVolume, only PVC sources are supported for storage migration",
        _MOVED_DISK,
        (1, 8),
    ),
    _VM.says("targetVolume PVC {} not found", _MOVED_DISK, (1, 8)),
    _VM.says(
        "targetVolume {} size ({}) must not be less than source volume {} size ({})",
        _MOVED_DISK,
        (1, 8),
    ),
    _VM.says("disk {} cannot be shareable: a shareable disk", _SHARED, (1, 9)),
    _MACHINE.says("PVC {} does not exist: a shareable disk requires an", _SHARED, (1, 9)),
    _MACHINE.says("PVC {} cannot back a shareable disk", _SHARED, (1, 9)),
    _MACHINE.says("empty cd-rom device should connect via SATA bus", _DRIVE, (1, 8)),
    _MACHINE.says("hotpluggable cd-rom volume should connect via SATA bus", _DRIVE, (1, 8)),
    _VM.says(
        "VM requests CPU pinning, but no node with activated CPU Manager was found",
        "enable the CPU Manager on a node, or remove dedicatedCpuPlacement of this VM",
        (1, 6),
        (1, 6),
        tag="v1.6.0",
    ),
    _VM.says("user {*} is not allowed to access image {}", _IMAGE, (1, 10), tag="3d63c2af15db"),
    _VM_CHANGED.says(
        "network-attachment-definitions.k8s.cni.cncf.io {} not found",
        "create the NetworkAttachmentDefinition again; it may go once the VM is gone",
    ),
)

_OF_A_DISK = (
    _DISK.says("can not delete golden image PVC", _KEEP, (1, 5), heard=_SINCE_15),
    _DISK.says(
        "can not delete the volume {} which is currently attached to VMs: {}",
        _KEEP,
        until=(1, 3),
        tag="v1.3.2",
    ),
    _DISK.says(
        "can not delete the volume {} which is currently attached to VM: {}",
        f"{_KEEP}, or take it out of the spec of the other VM",
        (1, 4),
        heard=_ALL,
    ),
    _DISK.says(
        "can not delete volume {} which is exporting for image {}",
        "wait until the image is made of the disk, or delete the image",
        heard=_ALL,
    ),
    _DISK.says(
        "can not delete the volume {} which is currently owned by these VMs: {}",
        _KEEP,
        heard=_ALL,
    ),
)
_OF_A_BACKUP_OR_RESTORE = (
    _BACKUP.says(
        "vmrestore {} is in progress",
        "wait for the VirtualMachineRestore that it names to finish, or delete it",
        heard=_NEW,
    ),
    _RESTORE.says(
        "The restore can't be removed because the restored VM {} exists",
        "delete the restored VM first, or leave the VirtualMachineRestore where it is",
        (1, 4),
    ),
)

UNREACHABLE = Denial(
    "failed calling webhook {}",
    "the webhook does not answer: see that deploy/harvester-webhook and deploy/virt-api in"
    " namespace harvester-system are available, and try again",
    KUBERNETES,
    "staging/src/k8s.io/apiserver/pkg/util/webhook/error.go",
    "v1.35.4",
    FIRST,
)

CATALOGUE: tuple[Denial, ...] = (
    *_OF_A_VM,
    *_OF_A_DISK,
    *_OF_A_BACKUP_OR_RESTORE,
    *_OF_A_BALANCER,
    *_OF_A_DEVICE,
    *_OF_KUBEVIRT,
    UNREACHABLE,
)
"""Every text, and of two that begin alike the longer first."""
