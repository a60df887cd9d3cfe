"""What to do about a denial: the words of the admission webhooks on a Harvester cluster.

Harvester's validator looks at the whole VM on every update, also at one that is being deleted, so
it can veto the removal of a finalizer for a reason that has nothing to do with it. To add one: a
line in `CURES`, with a fragment of the webhook's message.
"""

from __future__ import annotations

OF_A_BACKUP = ("has a backup in progress", "there is vmbackup in progress for vm")
"""How a stop is rejected while a backup runs: newer versions, and Harvester up to 1.8."""

CURES: tuple[tuple[str, str], ...] = (
    (
        "is already used by other VM",
        "another VM lists the same PVC: remove the volume from the spec of the VM that is going,"
        " which is an update that passes",
    ),
    (
        "volumeClaimTemplates annotaion is invalid",
        "correct or remove the annotation harvesterhci.io/volumeClaimTemplates of this VM",
    ),
    ("is a golden image", "remove the volume of the golden image from this VM's spec"),
    ("Termination grace period can't be negative", "correct terminationGracePeriodSeconds"),
    (
        "either memory.guest or resources.limits.memory must be set",
        "set spec.template.spec.domain.memory.guest of this VM",
    ),
    ("reservedMemory", "correct the annotation harvesterhci.io/reservedMemory of this VM"),
    (
        "quota",
        "raise the namespace's resource quota, or set spec.runStrategy of this VM to Halted",
    ),
    *(
        (words, "wait for the VirtualMachineBackup of this VM to finish, or end it")
        for words in OF_A_BACKUP
    ),
    ("storage class names", "remove the left-over volume migration from this VM's annotations"),
    ("maintenance", "correct the maintenance-mode label of this VM"),
    ("duplicate mac address", "change the MAC address of the other VM"),
    (
        "network-attachment-definitions.k8s.cni.cncf.io",
        "create the NetworkAttachmentDefinition again; it may go once the VM is gone",
    ),
    (
        "not found in pcidevice and usbdevice cache",
        "remove the host device that no longer exists from this VM's spec",
    ),
    ("is not on the same node", "remove the host devices from this VM's spec"),
    (
        "failed calling webhook",
        "the webhook does not answer: see that deploy/harvester-webhook and deploy/virt-api in"
        " namespace harvester-system are available, and try again",
    ),
)

UNKNOWN_CURE = "mend what the webhook complains about, and try again"


def cure_of(message: str) -> str:
    """What to do first, for a message of an admission webhook."""
    return next((cure for fragment, cure in CURES if fragment in message), UNKNOWN_CURE)
