"""The kinds that are read, with their fixed API paths: no discovery is needed.

To add a kind to read: one entry here. A rule declares what it reads of it (`k8s.reads`). Names are
fully qualified throughout, because several of them exist twice (`virtualmachinebackups`,
`volumeattachments`).
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True)
class Kind:
    """A resource of the API server.

    `optional` marks kinds of add-ons: a cluster without them has no object of them.
    """

    kind: str
    group: str
    version: str
    plural: str
    namespaced: bool = True
    optional: bool = False

    @property
    def api_version(self) -> str:
        """`apiVersion` as objects carry it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """The resource with its group, such as `virtualmachines.kubevirt.io`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def full_name(self) -> str:
        """What `kubectl -o name` prints before the slash, such as `virtualmachine.kubevirt.io`."""
        singular = self.kind.lower()
        return f"{singular}.{self.group}" if self.group else singular

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """The URL path of the collection, or of one object; without a namespace cluster-wide."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        scope = f"/namespaces/{_quoted(namespace)}" if self.namespaced and namespace else ""
        leaf = f"/{_quoted(name)}" if name else ""
        return f"{root}{scope}/{self.plural}{leaf}"


def _quoted(name: str) -> str:
    # It can come from the status of an object, so it may hold anything, even what is no UTF-8.
    return quote(name, "", errors="replace")


VM = Kind("VirtualMachine", "kubevirt.io", "v1", "virtualmachines")
VMI = Kind("VirtualMachineInstance", "kubevirt.io", "v1", "virtualmachineinstances")
MIGRATION = Kind(
    "VirtualMachineInstanceMigration", "kubevirt.io", "v1", "virtualmachineinstancemigrations"
)
KUBEVIRT = Kind("KubeVirt", "kubevirt.io", "v1", "kubevirts", optional=True)
POD = Kind("Pod", "", "v1", "pods")
NODE = Kind("Node", "", "v1", "nodes", namespaced=False)
NAMESPACE = Kind("Namespace", "", "v1", "namespaces", namespaced=False)
LEASE = Kind("Lease", "coordination.k8s.io", "v1", "leases")
PVC = Kind("PersistentVolumeClaim", "", "v1", "persistentvolumeclaims")
CONTROLLER_REVISION = Kind("ControllerRevision", "apps", "v1", "controllerrevisions")
JOB = Kind("Job", "batch", "v1", "jobs")
DATA_VOLUME = Kind("DataVolume", "cdi.kubevirt.io", "v1beta1", "datavolumes", optional=True)
VM_BACKUP = Kind(
    "VirtualMachineBackup", "harvesterhci.io", "v1beta1", "virtualmachinebackups", optional=True
)
LOAD_BALANCER = Kind(
    "LoadBalancer", "loadbalancer.harvesterhci.io", "v1beta1", "loadbalancers", optional=True
)

PV = Kind("PersistentVolume", "", "v1", "persistentvolumes", namespaced=False)
EVENT = Kind("Event", "", "v1", "events")
REPORT = Kind("Event", "events.k8s.io", "v1", "events")
"""The same Events in the API of those who write them."""
DEPLOYMENT = Kind("Deployment", "apps", "v1", "deployments")
DAEMON_SET = Kind("DaemonSet", "apps", "v1", "daemonsets")
VOLUME_ATTACHMENT = Kind(
    "VolumeAttachment", "storage.k8s.io", "v1", "volumeattachments", namespaced=False
)
LONGHORN_VOLUME = Kind("Volume", "longhorn.io", "v1beta2", "volumes", optional=True)
LONGHORN_ATTACHMENT = Kind(
    "VolumeAttachment", "longhorn.io", "v1beta2", "volumeattachments", optional=True
)
VOLUME_SNAPSHOT = Kind(
    "VolumeSnapshot",
    "snapshot.storage.k8s.io",
    "v1",
    "volumesnapshots",
    optional=True,
)
VM_RESTORE = Kind(
    "VirtualMachineRestore", "harvesterhci.io", "v1beta1", "virtualmachinerestores", optional=True
)
VM_IMAGE = Kind(
    "VirtualMachineImage", "harvesterhci.io", "v1beta1", "virtualmachineimages", optional=True
)
VM_EXPORT = Kind(
    "VirtualMachineExport",
    "export.kubevirt.io",
    "v1beta1",
    "virtualmachineexports",
    optional=True,
)
VM_SNAPSHOT = Kind(
    "VirtualMachineSnapshot",
    "snapshot.kubevirt.io",
    "v1beta1",
    "virtualmachinesnapshots",
    optional=True,
)
"""Of KubeVirt; Harvester makes its snapshots as VirtualMachineBackups."""
KUBEVIRT_RESTORE = Kind(
    "VirtualMachineRestore",
    "snapshot.kubevirt.io",
    "v1beta1",
    "virtualmachinerestores",
    optional=True,
)
"""Of KubeVirt; it has the name of Harvester's."""
VM_POOL = Kind(
    "VirtualMachinePool", "pool.kubevirt.io", "v1beta1", "virtualmachinepools", optional=True
)
NETWORK_CONFIG = Kind(
    "VirtualMachineNetworkConfig",
    "network.harvesterhci.io",
    "v1alpha1",
    "virtualmachinenetworkconfigs",
    optional=True,
)
LONGHORN_ORPHAN = Kind("Orphan", "longhorn.io", "v1beta2", "orphans", optional=True)
PCI_CLAIM = Kind(
    "PCIDeviceClaim",
    "devices.harvesterhci.io",
    "v1beta1",
    "pcideviceclaims",
    namespaced=False,
    optional=True,
)
USB_CLAIM = Kind(
    "USBDeviceClaim",
    "devices.harvesterhci.io",
    "v1beta1",
    "usbdeviceclaims",
    namespaced=False,
    optional=True,
)
RESOURCE_QUOTA = Kind("ResourceQuota", "", "v1", "resourcequotas")
NETWORK = Kind(
    "NetworkAttachmentDefinition",
    "k8s.cni.cncf.io",
    "v1",
    "network-attachment-definitions",
    optional=True,
)
PCI_DEVICE = Kind(
    "PCIDevice",
    "devices.harvesterhci.io",
    "v1beta1",
    "pcidevices",
    namespaced=False,
    optional=True,
)
USB_DEVICE = Kind(
    "USBDevice",
    "devices.harvesterhci.io",
    "v1beta1",
    "usbdevices",
    namespaced=False,
    optional=True,
)
API_SERVICE = Kind("APIService", "apiregistration.k8s.io", "v1", "apiservices", namespaced=False)
UPGRADE = Kind("Upgrade", "harvesterhci.io", "v1beta1", "upgrades", optional=True)
UPGRADE_PLAN = Kind(
    "UpgradePlan",
    "management.harvesterhci.io",
    "v1beta1",
    "upgradeplans",
    namespaced=False,
    optional=True,
)
"""What an upgrade is since Harvester 1.9."""
SECRET = Kind("Secret", "", "v1", "secrets")
SETTING = Kind("Setting", "harvesterhci.io", "v1beta1", "settings", namespaced=False, optional=True)

SCHEDULE = Kind(
    "ScheduleVMBackup", "harvesterhci.io", "v1beta1", "schedulevmbackups", optional=True
)
ADDON = Kind("Addon", "harvesterhci.io", "v1beta1", "addons", optional=True)
PROMETHEUS_RULE = Kind(
    "PrometheusRule", "monitoring.coreos.com", "v1", "prometheusrules", optional=True
)
LONGHORN_REPLICA = Kind("Replica", "longhorn.io", "v1beta2", "replicas", optional=True)
LONGHORN_BACKUP_TARGET = Kind(
    "BackupTarget", "longhorn.io", "v1beta2", "backuptargets", optional=True
)
ENDPOINT_SLICE = Kind("EndpointSlice", "discovery.k8s.io", "v1", "endpointslices")
VALIDATING = Kind(
    "ValidatingWebhookConfiguration",
    "admissionregistration.k8s.io",
    "v1",
    "validatingwebhookconfigurations",
    namespaced=False,
)
MUTATING = Kind(
    "MutatingWebhookConfiguration",
    "admissionregistration.k8s.io",
    "v1",
    "mutatingwebhookconfigurations",
    namespaced=False,
)
POLICY = Kind(
    "ValidatingAdmissionPolicy",
    "admissionregistration.k8s.io",
    "v1",
    "validatingadmissionpolicies",
    namespaced=False,
    optional=True,
)
"""Served since Kubernetes 1.30."""
POLICY_BINDING = Kind(
    "ValidatingAdmissionPolicyBinding",
    "admissionregistration.k8s.io",
    "v1",
    "validatingadmissionpolicybindings",
    namespaced=False,
    optional=True,
)

# What a user may type for the two kinds that can be stuck, as kubectl accepts it.
TARGET_KINDS = {
    spelling + suffix: kind
    for kind, spellings in (
        (VM, ("vm", "vms", "virtualmachine", "virtualmachines")),
        (VMI, ("vmi", "vmis", "virtualmachineinstance", "virtualmachineinstances")),
    )
    for spelling in spellings
    for suffix in ("", ".kubevirt.io", ".v1.kubevirt.io")
}

LONGHORN_NAMESPACE = "longhorn-system"
"""Where Longhorn keeps its objects."""

HARVESTER_NAMESPACE = "harvester-system"
"""Where Harvester runs KubeVirt and its own controllers."""

MONITORING_NAMESPACE = "cattle-monitoring-system"
"""Where Harvester's add-on rancher-monitoring runs."""

LEASE_NAMESPACE = "kube-node-lease"
"""Where kubelets renew the Lease of their node."""

VIEWER_ROLE, OPERATOR_ROLE = "harvester-stuck-viewer", "harvester-stuck-operator"
"""The ClusterRoles of deploy/rbac.yaml, for those who look and for those who release."""
