"""The release path: will those who take finalizers off, and those they ask, be there?

Numbers of issues: H is harvester, K is kubevirt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from kubectl_harvester_stuck.checks.base import (
    CheckContext,
    CheckResult,
    check,
    condition,
    count,
    fail,
    mappings,
    names,
    number,
    ok,
    saw,
    texts,
    warn,
)
from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.harvester import finalizers, settings, workloads
from kubectl_harvester_stuck.harvester.admission_policies import NAMES
from kubectl_harvester_stuck.harvester.finalizer_catalogue import CATALOGUE
from kubectl_harvester_stuck.harvester.settings import SERVER_VERSION, value_of
from kubectl_harvester_stuck.k8s import commands
from kubectl_harvester_stuck.k8s.commands import Remark
from kubectl_harvester_stuck.k8s.kinds import (
    API_SERVICE,
    ENDPOINT_SLICE,
    KUBEVIRT,
    MUTATING,
    NODE,
    POD,
    POLICY,
    POLICY_BINDING,
    VALIDATING,
    VM,
    VMI,
)
from kubectl_harvester_stuck.k8s.objects import Evidence, KubeObject, ObjectRef
from kubectl_harvester_stuck.k8s.reads import Read
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot

DEPLOYMENTS = ("virt-api", "virt-controller", "harvester", "harvester-webhook")
DAEMON_SETS = ("virt-handler",)


OWNERLESS_SINCE: Mapping[str, tuple[int, int, int]] = {
    "wrangler.cattle.io/VMController.UnsetOwnerOfDataVolumes": (0, 3, 0),
    "wrangler.cattle.io/VMController.UnsetOwnerOfPVCs": (1, 4, 0),
    "harvesterhci.io/VMController.UnsetOwnerOfPVCs": (1, 4, 0),
    "wrangler.cattle.io/VMIController.UnsetOwnerOfPVCs": (1, 4, 0),
}
"""The first Harvester without a controller for the finalizer (H#3529).

From 1.4 on it is taken off every VM at once, so one that stays will at the next deletion as well.
"""


LOOKS_AT_SHAREABLE = (1, 7)
"""The first Harvester that accepts a disk in two VMs where both say that it is shareable."""


@check(reads=workloads.WORKLOADS)
def workloads_available(view: CheckContext) -> Iterator[CheckResult]:
    """The controllers of KubeVirt and Harvester are there, with all their replicas."""
    gone, fewer = [], []
    for prefix, wanted, have, want in (
        ("deploy", DEPLOYMENTS, ("status", "availableReplicas"), ("spec", "replicas")),
        ("ds", DAEMON_SETS, ("status", "numberAvailable"), ("status", "desiredNumberScheduled")),
    ):
        for name in wanted:
            workload = workloads.find(f"{prefix}/{name}", view.snapshot)
            ref = workload.ref if workload else workloads.ref_of(f"{prefix}/{name}", view.snapshot)
            available = number(workload, *have) if workload else 0
            seen = (
                f"{ref.kind.kind.lower()}/{name}",
                Evidence(str(ref), ".".join(have), str(available) if workload else "not there"),
                ref,
            )
            if not available:
                gone.append(seen)
            elif workload and available < number(workload, *want):
                fewer.append(seen)
    for found, tell, text in ((gone, fail, "not available"), (fewer, warn, "not complete")):
        if found:
            yield tell(
                f"{text}: {names(name for name, _, _ in found)}",
                [seen for _, seen, _ in found],
                *(commands.get_workload(ref, "-o", "wide") for _, _, ref in found),
            )
    if not gone and not fewer:
        yield ok(f"{', '.join((*DEPLOYMENTS, *DAEMON_SETS))} are available")


@check(reads=(NODE, *workloads.reads(POD)))
def workloads_spread(view: CheckContext) -> Iterator[CheckResult]:
    """The controllers run on more than one node, so that one of each survives any power cut."""
    pods = workloads.pods(view.snapshot)
    if len(view.snapshot.all(NODE)) < 2:
        yield warn(
            "there is one node: the controllers go down with it",
            [Evidence("Node", "count", str(len(view.snapshot.all(NODE))))],
        )
        return
    together = []
    for name in DEPLOYMENTS:
        ready = [
            pod
            for pod in pods
            if _is_of(pod, name) and condition(pod, "Ready").get("status") == "True"
        ]
        on = {pod.text("spec", "nodeName") for pod in ready}
        if not on and name in workloads.OF_KUBEVIRT:
            view.snapshot.all(KUBEVIRT)  # they may be where it was not looked for
        if len(on) < 2:
            together.append((name, ", ".join(sorted(on)) or "no node"))
    if together:
        yield warn(
            f"on fewer than two nodes: {names(f'{name} ({where})' for name, where in together)}",
            [
                Evidence(
                    f"Deployment {workloads.namespace_of(name, view.snapshot)}/{name}",
                    "nodes of ready pods",
                    where,
                )
                for name, where in together
            ],
            *dict.fromkeys(
                commands.get_all(POD, workloads.namespace_of(name, view.snapshot), "-o", "wide")
                for name, _ in together
            ),
        )
    else:
        yield ok(f"{', '.join(DEPLOYMENTS)} each run on several nodes")


def webhook_namespaces(snapshot: ClusterSnapshot) -> tuple[str, ...]:
    """Where the services of the webhooks for VMs are. Raises UnreadableError."""
    services = (_service(webhook) for _, webhook in _webhooks(snapshot))
    return tuple(sorted({service[0] for service in services if service}))


def _webhooks(snapshot: ClusterSnapshot) -> Iterator[tuple[KubeObject, Mapping[str, Any]]]:
    """Every webhook that is asked about changes of VMs and VMIs."""
    for kind in (VALIDATING, MUTATING):
        for configuration in snapshot.all(kind):
            for webhook in configuration.mappings("webhooks"):
                rules = mappings(configuration, webhook.get("rules"), "webhooks.rules")
                if any(_is_about_vms(rule, configuration) for rule in rules):
                    yield configuration, webhook


def _is_about_vms(rule: Mapping[str, Any], owner: KubeObject) -> bool:
    groups, resources, operations = (
        set(texts(owner, rule.get(field), f"webhooks.rules.{field}"))
        for field in ("apiGroups", "resources", "operations")
    )
    of_kind = {"*", "*/*", *(f"{kind.plural}{sub}" for kind in (VM, VMI) for sub in ("", "/*"))}
    asked = {"*", "UPDATE", "DELETE"} & operations
    return bool({"*", VM.group} & groups and of_kind & resources and asked)


def _service(webhook: Mapping[str, Any]) -> tuple[str, str] | None:
    """Namespace and name of its Service; None where it is called by URL."""
    where = webhook.get("clientConfig")
    service = where.get("service") if isinstance(where, Mapping) else None
    if not isinstance(service, Mapping):
        return None
    return str(service.get("namespace")), str(service.get("name"))


@check(reads=(VALIDATING, MUTATING, Read(ENDPOINT_SLICE, webhook_namespaces)))
def webhook_endpoints(view: CheckContext) -> Iterator[CheckResult]:
    """Each webhook that validates VMs has a ready endpoint (K#13098)."""
    asked = list(_webhooks(view.snapshot))
    silent: list[tuple[KubeObject, Mapping[str, Any], tuple[str, str]]] = []
    for configuration, webhook in asked:
        service = _service(webhook)
        if service is None:
            continue
        ready = [
            endpoint
            for piece in view.snapshot.all(ENDPOINT_SLICE, service[0])
            if piece.labels.get("kubernetes.io/service-name") == service[1]
            for endpoint in piece.mappings("endpoints")
            if _is_ready(endpoint)
        ]
        if not ready:
            silent.append((configuration, webhook, service))
    for tell, policy, what in (
        (fail, "Fail", "no VM can be changed or released"),
        (warn, "Ignore", "it is skipped"),
    ):
        found = [item for item in silent if (item[1].get("failurePolicy") or "Fail") == policy]
        if found:
            hooks = names(str(webhook.get("name")) for _, webhook, _ in found)
            yield tell(
                f"no endpoint behind {hooks}: {what}",
                [saw(configuration, f"{hook.get('name')}: endpoints of {'/'.join(service)}", "none")
                 for configuration, hook, service in found],
                *dict.fromkeys(
                    commands.get_all(
                        ENDPOINT_SLICE, service[0], "-l", f"kubernetes.io/service-name={service[1]}"
                    )
                    for _, _, service in found
                ),
            )  # fmt: skip
    if not asked:
        yield warn(
            "no webhook is asked about VMs: those of KubeVirt and Harvester are not there",
            [Evidence(VALIDATING.kind, "webhooks for VMs", "none")],
            commands.get_all((VALIDATING, MUTATING)),
        )
    elif not silent:
        yield ok(f"all of {count(len(asked), 'webhook')} for VMs have endpoints")


@check(reads=(POLICY, POLICY_BINDING))
def admission_policies(view: CheckContext) -> Iterator[CheckResult]:
    """The API server holds operators to what a release does, by deploy/admission.yaml."""
    if POLICY in view.snapshot.unserved:
        yield warn(
            "not available: operators are limited by RBAC alone before Kubernetes 1.30",
            [Evidence(POLICY.kind, "served", "no")],
        )
        return
    there = {policy.ref.name: policy for policy in view.snapshot.all(POLICY)}
    bindings = view.snapshot.all(POLICY_BINDING)
    missing = [name for name in NAMES if name not in there]
    lax = [
        policy
        for name in NAMES
        if (policy := there.get(name)) is not None
        and (
            policy.text("spec", "failurePolicy") == "Ignore"
            or not any(_denies_everywhere(binding, name) for binding in bindings)
        )
    ]
    if missing:
        yield warn(
            f"not installed: {names(missing)}; operators may do whatever RBAC allows",
            [Evidence(f"{POLICY.kind} {name}", "metadata.name", "not there") for name in missing],
            Remark("apply deploy/admission.yaml of this program: docs/admission.md"),
        )
    if lax:
        yield warn(
            f"installed, but not enforced everywhere: {names(lax)}",
            [saw(policy, "bindings that deny everywhere", "none") for policy in lax],
            commands.get_all(POLICY_BINDING, None, "-o", "yaml"),
        )
    if not missing and not lax:
        yield ok(f"{', '.join(NAMES)} are enforced")


def _denies_everywhere(binding: KubeObject, policy: str) -> bool:
    spec = binding.mapping("spec")
    actions = texts(binding, spec.get("validationActions"), "spec.validationActions")
    limits = ("namespaceSelector", "objectSelector", "resourceRules", "excludeResourceRules")
    is_limited = any(binding.mapping("spec", "matchResources").get(limit) for limit in limits)
    return spec.get("policyName") == policy and "Deny" in actions and not is_limited


@check(reads=(API_SERVICE,))
def aggregated_apis(view: CheckContext) -> Iterator[CheckResult]:
    """Each aggregated API is available."""
    services = view.snapshot.all(API_SERVICE)
    if not services:
        # Every API server has them, of its own groups at least.
        raise UnreadableError(API_SERVICE.resource, "there is none in what was read")
    down = [
        (item, condition(item, "Available"))
        for item in services
        if condition(item, "Available").get("status") != "True"
    ]
    ours = [item for item in down if "kubevirt.io" in item[0].ref.name]
    others = [item for item in down if item not in ours]
    for found, tell, text in (
        (ours, fail, "virtctl and the UI cannot stop, start or migrate VMs"),
        (others, warn, "discovery is incomplete"),
    ):
        if found:
            yield tell(
                f"not available: {names(item for item, _ in found)}; {text}",
                [saw(item, "Available", why.get("message") or why.get("status"))
                 for item, why in found],
                *(commands.describe(item.ref)
                  for item, _ in found),
            )  # fmt: skip
    if not down:
        yield ok(f"all of {count(len(services), 'API')} are available")


@check(reads=(VM, VMI))
def known_finalizers(view: CheckContext) -> Iterator[CheckResult]:
    """Every finalizer on a VM or VMI that is not being deleted is in the catalogue."""
    living = _living(view)
    strange = [
        (item, name)
        for item in living
        for name in item.finalizers
        if finalizers.find(name, item.ref.kind) is None
    ]
    if strange:
        yield warn(
            f"nobody knows who takes off {names(name for _, name in strange)}",
            [saw(item, "metadata.finalizers", name) for item, name in strange],
            Remark("find its owner before the next deletion: a VM waits for it for ever"),
        )
    else:
        yield ok(f"the catalogue explains every finalizer of {count(len(living), 'object')}")


@check(reads=(VM, VMI, *workloads.WORKLOADS, settings.read(SERVER_VERSION)))
def orphaned_finalizers(view: CheckContext) -> Iterator[CheckResult]:
    """No VM or VMI has a finalizer that an upgrade or a removed add-on left behind."""
    living = _living(view)
    version = _version(view)
    owners = {entry.workload for entry in CATALOGUE if workloads.is_named(entry.workload)}
    there = {owner for owner in owners if workloads.find(owner, view.snapshot)}
    orphaned = []
    for item in living:
        for name in item.finalizers:
            entry = finalizers.find(name, item.ref.kind)
            if entry is None:
                continue
            since = OWNERLESS_SINCE.get(name)
            if since is not None and (version is None or version >= since):
                orphaned.append((item, name, entry.versions))
            elif workloads.is_named(entry.workload) and entry.workload not in there:
                orphaned.append((item, name, f"{entry.workload} is not there"))
    if orphaned:
        yield fail(
            f"{count(len({item.ref for item, _, _ in orphaned}), 'object')} will be stuck at the"
            f" next deletion, nobody serves {names(name for _, name, _ in orphaned)}",
            [saw(item, "metadata.finalizers", f"{name} ({why})") for item, name, why in orphaned],
            *dict.fromkeys(commands.finalizers(name) for _, name, _ in orphaned),
        )
    else:
        yield ok(f"each finalizer of {count(len(living), 'object')} has its controller")


@check(reads=(VM, settings.read(SERVER_VERSION)))
def disks_of_one_vm(view: CheckContext) -> Iterator[CheckResult]:
    """No disk is used by two VMs unless it can be shared: their updates are rejected (H#5515)."""
    setting = view.setting(SERVER_VERSION)
    release = settings.version_of(setting) if setting else None
    may_share = release is None or release >= LOOKS_AT_SHAREABLE
    users: dict[tuple[str, str], dict[ObjectRef, bool]] = {}
    for vm in view.vms:
        for claim, is_shareable in _disks(vm):
            users.setdefault((vm.ref.namespace, claim), {})[vm.ref] = is_shareable and may_share
    shared = {key: vms for key, vms in users.items() if len(vms) > 1 and not all(vms.values())}
    if shared:
        yield warn(
            f"{count(len(shared), 'disk')} in more than one VM, so Harvester rejects every"
            f" update of them, also the last of a deletion: {names(map('/'.join, shared))}",
            [
                Evidence(str(ref), "spec.template.spec.volumes", claim)
                for (_, claim), vms in shared.items()
                for ref in vms
            ],
            *(
                commands.edit(next(iter(vms))).noted(
                    f"unless {claim} is meant to be shared, take it out of"
                    f" {' or '.join(ref.name for ref in vms)}"
                )
                for (_, claim), vms in shared.items()
            ),
        )
    else:
        yield ok(f"no disk of {count(len(view.vms), 'VM')} is in another, too")


def _disks(vm: KubeObject) -> Iterator[tuple[str, bool]]:
    """The PVC of each volume, and whether its disk may be that of others as well."""
    template = ("spec", "template", "spec")
    shareable = {
        str(disk.get("name"))
        for disk in vm.mappings(*template, "domain", "devices", "disks")
        if disk.get("shareable") is True
    }
    for volume in vm.mappings(*template, "volumes"):
        source = volume.get("persistentVolumeClaim")
        if isinstance(source, Mapping) and source.get("claimName"):
            yield str(source["claimName"]), str(volume.get("name")) in shareable


def _is_ready(endpoint: Mapping[str, Any]) -> bool:
    """An endpoint that does not say is to be taken for ready (discovery.k8s.io/v1)."""
    conditions = endpoint.get("conditions")
    said = conditions.get("ready") if isinstance(conditions, Mapping) else None
    return said is not False


def _is_of(pod: KubeObject, deployment: str) -> bool:
    """Whether the Deployment made the pod, by the name of its ReplicaSet."""
    return pod.deletion_timestamp is None and any(
        owner.kind == "ReplicaSet" and owner.name.rpartition("-")[0] == deployment
        for owner in pod.owners
    )


def _living(view: CheckContext) -> tuple[KubeObject, ...]:
    return tuple(
        item for kind in (VM, VMI) for item in view.all(kind) if item.deletion_timestamp is None
    )


def _version(view: CheckContext) -> tuple[int, ...] | None:
    """Harvester's version; None for one that is no number, such as a development build."""
    setting = view.setting(SERVER_VERSION)
    found = re.match(r"v(\d+)\.(\d+)\.(\d+)", value_of(setting) if setting else "")
    return tuple(int(part) for part in found.groups()) if found else None
