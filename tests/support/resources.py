"""The kinds that the tests create, and where an API server serves each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Resource:
    """One kind as an API server serves it."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool
    status_subresource: bool
    optional: bool = False
    """Whether an API server that is supported may not know it."""

    @cached_property
    def group(self) -> str:
        """The API group; the core group is the empty string."""
        group, slash, _ = self.api_version.rpartition("/")
        return group if slash else ""

    def path(self, namespace: str | None, name: str | None = None) -> str:
        """The URL path of the object `name`, or of the collection.

        `namespace` is ignored for a cluster-scoped kind; for a namespaced one, None means the
        collection of all namespaces.
        """
        parts = ["/apis" if self.group else "/api", self.api_version]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name is not None:
            if self.namespaced and namespace is None:
                raise ValueError(f"{self.kind} {name} needs a namespace")
            parts.append(name)
        return "/".join(parts)


def _resource(
    api_version: str,
    kind: str,
    plural: str,
    *,
    cluster: bool = False,
    status: bool = False,
    optional: bool = False,
) -> Resource:
    return Resource(api_version, kind, plural, not cluster, status, optional)


RESOURCES: dict[str, Resource] = {
    resource.kind: resource
    for resource in (
        _resource("v1", "Namespace", "namespaces", cluster=True, status=True),
        _resource("v1", "Node", "nodes", cluster=True, status=True),
        _resource("v1", "Pod", "pods", status=True),
        _resource("v1", "Event", "events"),
        _resource("v1", "ConfigMap", "configmaps"),
        _resource("v1", "Secret", "secrets"),
        _resource("v1", "PersistentVolumeClaim", "persistentvolumeclaims", status=True),
        _resource("v1", "PersistentVolume", "persistentvolumes", cluster=True, status=True),
        _resource("v1", "ResourceQuota", "resourcequotas", status=True),
        _resource(
            "apiregistration.k8s.io/v1", "APIService", "apiservices", cluster=True, status=True
        ),
        _resource("coordination.k8s.io/v1", "Lease", "leases"),
        _resource(
            "storage.k8s.io/v1", "VolumeAttachment", "volumeattachments", cluster=True, status=True
        ),
        _resource("apps/v1", "ControllerRevision", "controllerrevisions"),
        _resource("apps/v1", "Deployment", "deployments", status=True),
        _resource("apps/v1", "DaemonSet", "daemonsets", status=True),
        _resource("batch/v1", "Job", "jobs", status=True),
        _resource("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", cluster=True),
        _resource(
            "rbac.authorization.k8s.io/v1",
            "ClusterRoleBinding",
            "clusterrolebindings",
            cluster=True,
        ),
        _resource("rbac.authorization.k8s.io/v1", "Role", "roles"),
        _resource("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
        _resource(
            "admissionregistration.k8s.io/v1",
            "ValidatingWebhookConfiguration",
            "validatingwebhookconfigurations",
            cluster=True,
        ),
        _resource(
            "admissionregistration.k8s.io/v1",
            "MutatingWebhookConfiguration",
            "mutatingwebhookconfigurations",
            cluster=True,
        ),
        # Since Kubernetes 1.30.
        _resource(
            "admissionregistration.k8s.io/v1",
            "ValidatingAdmissionPolicy",
            "validatingadmissionpolicies",
            cluster=True,
            optional=True,
        ),
        _resource(
            "admissionregistration.k8s.io/v1",
            "ValidatingAdmissionPolicyBinding",
            "validatingadmissionpolicybindings",
            cluster=True,
            optional=True,
        ),
        _resource("discovery.k8s.io/v1", "EndpointSlice", "endpointslices"),
        _resource("kubevirt.io/v1", "KubeVirt", "kubevirts", status=True),
        _resource("kubevirt.io/v1", "VirtualMachine", "virtualmachines", status=True),
        _resource("kubevirt.io/v1", "VirtualMachineInstance", "virtualmachineinstances"),
        _resource(
            "kubevirt.io/v1",
            "VirtualMachineInstanceMigration",
            "virtualmachineinstancemigrations",
            status=True,
        ),
        _resource("cdi.kubevirt.io/v1beta1", "DataVolume", "datavolumes", status=True),
        _resource("harvesterhci.io/v1beta1", "VirtualMachineBackup", "virtualmachinebackups"),
        _resource("harvesterhci.io/v1beta1", "VirtualMachineRestore", "virtualmachinerestores"),
        _resource(
            "snapshot.kubevirt.io/v1beta1",
            "VirtualMachineSnapshot",
            "virtualmachinesnapshots",
            status=True,
        ),
        _resource(
            "export.kubevirt.io/v1beta1",
            "VirtualMachineExport",
            "virtualmachineexports",
            status=True,
        ),
        _resource(
            "pool.kubevirt.io/v1beta1", "VirtualMachinePool", "virtualmachinepools", status=True
        ),
        _resource("harvesterhci.io/v1beta1", "Upgrade", "upgrades"),
        _resource("harvesterhci.io/v1beta1", "VirtualMachineImage", "virtualmachineimages"),
        _resource(
            "management.harvesterhci.io/v1beta1", "UpgradePlan", "upgradeplans", cluster=True
        ),
        _resource("harvesterhci.io/v1beta1", "Setting", "settings", cluster=True),
        _resource("devices.harvesterhci.io/v1beta1", "PCIDevice", "pcidevices", cluster=True),
        _resource("harvesterhci.io/v1beta1", "Addon", "addons", status=True),
        _resource("harvesterhci.io/v1beta1", "ScheduleVMBackup", "schedulevmbackups"),
        _resource("longhorn.io/v1beta2", "Replica", "replicas", status=True),
        _resource("longhorn.io/v1beta2", "BackupTarget", "backuptargets", status=True),
        _resource("monitoring.coreos.com/v1", "PrometheusRule", "prometheusrules"),
        _resource("monitoring.coreos.com/v1", "ServiceMonitor", "servicemonitors"),
        _resource("loadbalancer.harvesterhci.io/v1beta1", "LoadBalancer", "loadbalancers"),
        _resource("longhorn.io/v1beta2", "Volume", "volumes", status=True),
        _resource("snapshot.storage.k8s.io/v1", "VolumeSnapshot", "volumesnapshots", status=True),
        _resource(
            "k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition", "network-attachment-definitions"
        ),
    )
}
# Two groups have a VolumeAttachment; the plain kind is the one of Kubernetes itself.
RESOURCES["LonghornVolumeAttachment"] = _resource(
    "longhorn.io/v1beta2", "VolumeAttachment", "volumeattachments", status=True
)
# Two groups serve the same Events, and core is the one that most clients read.
RESOURCES["EventReport"] = _resource("events.k8s.io/v1", "Event", "events")
# KubeVirt restores VMs as Harvester does, by a kind of the same name.
RESOURCES["KubeVirtRestore"] = _resource(
    "snapshot.kubevirt.io/v1beta1", "VirtualMachineRestore", "virtualmachinerestores", status=True
)

_BY_TYPE = {(resource.api_version, resource.kind): resource for resource in RESOURCES.values()}


def resource_of(obj: Mapping[str, Any]) -> Resource:
    """The resource that serves `obj`, by its apiVersion and kind. KeyError for any other kind."""
    return _BY_TYPE[obj["apiVersion"], obj["kind"]]


def path_of(obj: Mapping[str, Any]) -> str:
    """The URL path of `obj`."""
    metadata = obj["metadata"]
    return resource_of(obj).path(metadata.get("namespace"), metadata["name"])
