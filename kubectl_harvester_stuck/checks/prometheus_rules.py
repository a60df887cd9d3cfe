"""The PrometheusRule that `check --print-rules` prints, and what counts as watching.

Every metric is one that its exporter documents:

- kube-state-metrics, docs/metrics/cluster/node-metrics.md: `kube_node_status_condition`
- kube-state-metrics, docs/metrics/workload/pod-metrics.md: `kube_pod_deletion_timestamp`
- kube-state-metrics, docs/metrics/workload/deployment-metrics.md:
  `kube_deployment_status_replicas_available`
- KubeVirt, docs/observability/metrics.md: `kubevirt_vm_info`, with the labels `namespace`, `name`
  and `status` of pkg/monitoring/metrics/virt-controller/vmstats_collector.go (KubeVirt 1.4 and
  later, Harvester 1.5 and later; before, the alert on it is silent, and that on the pod speaks)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from kubectl_harvester_stuck.harvester.workloads import OF_KUBEVIRT
from kubectl_harvester_stuck.k8s import commands
from kubectl_harvester_stuck.k8s.kinds import (
    HARVESTER_NAMESPACE,
    MONITORING_NAMESPACE,
    PROMETHEUS_RULE,
    VM,
)
from kubectl_harvester_stuck.k8s.objects import ObjectRef

METRICS = (
    "kube_node_status_condition",
    "kube_pod_deletion_timestamp",
    "kube_deployment_status_replicas_available",
    "kubevirt_vm_info",
)

CONTROLLERS = ("virt-controller", "virt-api", "harvester-webhook")

WATCHED: Mapping[str, re.Pattern[str]] = {
    "nodes": re.compile(r"kube_node_status_condition|kube_node_spec_taint"),
    "VMs": re.compile(r"kubevirt_vmi?_|kube_pod_deletion_timestamp"),
    "virt-controller": re.compile(r"virt[-_]controller"),
    "virt-api": re.compile(r"virt[-_]api"),
    "harvester-webhook": re.compile(r"harvester-webhook"),
}
"""What an alert has to be about, told by the words of its expression."""


def _alert(name: str, expr: str, wait: str, severity: str, summary: str) -> dict[str, Any]:
    return {
        "alert": name,
        "expr": expr,
        "for": wait,
        "labels": {"severity": severity},
        "annotations": {"summary": summary},
    }


def _down(controller: str) -> dict[str, Any]:
    # KubeVirt's own may run elsewhere, and nothing else has their names.
    where = "" if controller in OF_KUBEVIRT else f'namespace="{HARVESTER_NAMESPACE}",'
    metric = f'kube_deployment_status_replicas_available{{{where}deployment="{controller}"}}'
    words = "".join(word.capitalize() for word in controller.split("-"))
    return _alert(
        f"{words}Down",
        # Without the second half a Deployment that is gone would be silence.
        f"{metric} == 0 or absent({metric})",
        "5m",
        "critical",
        f"{controller} is not available: stuck VMs are not released",
    )


_NAMESPACE, _NAME = "{{ $labels.namespace }}", "{{ $labels.name }}"
_DIAGNOSE = " ".join(commands.diagnose(ObjectRef(_NAMESPACE, _NAME, VM)).words)
_LIST = " ".join(commands.own("list", "-n", _NAMESPACE).words)
"""An alert is read elsewhere: its commands carry neither context nor quoting."""

RULES: dict[str, Any] = {
    "apiVersion": PROMETHEUS_RULE.api_version,
    "kind": PROMETHEUS_RULE.kind,
    "metadata": {"name": "harvester-stuck", "namespace": MONITORING_NAMESPACE},
    "spec": {
        "groups": [
            {
                "name": "harvester-stuck",
                "rules": [
                    _alert(
                        "HarvesterNodeDown",
                        'kube_node_status_condition{condition="Ready",status="true"} == 0',
                        "2m",
                        "critical",
                        "node {{ $labels.node }} is not Ready: its VMs hang until it is back or"
                        " known to be off",
                    ),
                    _alert(
                        "VirtualMachineStuck",
                        # KubeVirt writes the status in capitals in some releases.
                        "max by (namespace, name)"
                        ' (kubevirt_vm_info{status=~"(?i:terminating|stopping)"}) == 1',
                        "10m",
                        "warning",
                        "VM {{ $labels.namespace }}/{{ $labels.name }} has been Terminating or"
                        f" Stopping for ten minutes: {_DIAGNOSE}",
                    ),
                    _alert(
                        "VirtLauncherPodStuck",
                        # The timestamp lies a grace period after the deletion, so that this is
                        # time beyond it. It also speaks while virt-controller, which exports
                        # the status of VMs, is silent.
                        'time() - kube_pod_deletion_timestamp{pod=~"virt-launcher-.+"} > 300',
                        "5m",
                        "warning",
                        "pod {{ $labels.namespace }}/{{ $labels.pod }} does not end: " + _LIST,
                    ),
                    *(_down(controller) for controller in CONTROLLERS),
                ],
            }
        ]
    },
}
