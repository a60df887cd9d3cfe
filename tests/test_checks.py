"""Checks, from objects: each passes, does not pass elsewhere, and is unknown where it is blind."""

from __future__ import annotations

import copy
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from kubectl_harvester_stuck.checks import CHECKS, Checked, checkup
from kubectl_harvester_stuck.checks import reads as checks_reads
from kubectl_harvester_stuck.checks.base import Result
from kubectl_harvester_stuck.checks.prometheus_rules import METRICS, RULES, WATCHED
from kubectl_harvester_stuck.cli import exit_status
from kubectl_harvester_stuck.errors import NOT_SERVED, ApiError, ExitStatus, NotFoundError
from kubectl_harvester_stuck.k8s import quantities
from kubectl_harvester_stuck.k8s.commands import own
from kubectl_harvester_stuck.k8s.kinds import (
    ADDON,
    API_SERVICE,
    DAEMON_SET,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    LONGHORN_BACKUP_TARGET,
    LONGHORN_REPLICA,
    LONGHORN_VOLUME,
    MIGRATION,
    MUTATING,
    NODE,
    POD,
    POLICY,
    POLICY_BINDING,
    PROMETHEUS_RULE,
    PV,
    PVC,
    SCHEDULE,
    SETTING,
    UPGRADE,
    UPGRADE_PLAN,
    VALIDATING,
    VM,
    VM_BACKUP,
    VM_RESTORE,
    VMI,
    Kind,
)
from kubectl_harvester_stuck.k8s.objects import Evidence, ObjectRef, Unreadable
from kubectl_harvester_stuck.k8s.source import ListQuery
from kubectl_harvester_stuck.render.checks import table
from kubectl_harvester_stuck.render.page import Page
from kubectl_harvester_stuck.render.screen import Screen
from tests.support import builders, readycluster
from tests.support.advice import ANYWHERE, lines
from tests.support.builders import NOW, Body, ago, bare, stored
from tests.support.readycluster import Change, changed, put, without

OK, WARN, FAIL, UNKNOWN = Result.OK, Result.WARN, Result.FAIL, Result.UNKNOWN


def ready() -> list[Body]:
    """A cluster on which every check passes."""
    return readycluster.objects(backup=ago(days=1))


@dataclass
class Memory:
    """A `Source` of objects; kinds in `unreadable` are refused."""

    bodies: list[Body]
    unreadable: frozenset[Kind] = frozenset()
    refused_in: Mapping[str, frozenset[Kind]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.bodies = [stored(body) for body in self.bodies]

    @property
    def now(self) -> datetime:
        return NOW

    def _refuse(self, kind: Kind, namespace: str | None) -> None:
        if kind in self.unreadable or kind in self.refused_in.get(namespace or "", ()):
            raise ApiError(403, "Forbidden", f"{kind.plural} is forbidden")

    def list_objects(self, selection: ListQuery, keep: Callable[[Any], bool]) -> list[Any]:
        self._refuse(selection.kind, selection.namespace)
        return [item for item in readycluster.selected(selection, self.bodies) if keep(item)]

    def get(self, ref: ObjectRef, **_: bool) -> Mapping[str, Any] | None:
        self._refuse(ref.kind, ref.namespace)
        found = readycluster.selected(ListQuery(ref.kind, ref.namespace or None), self.bodies)
        return next((item for item in found if item["metadata"]["name"] == ref.name), None)

    def prefetch(self, refs: Iterable[ObjectRef]) -> None:
        pass

    def log(self, pod: ObjectRef) -> str:
        raise NotImplementedError


def look(
    bodies: list[Body],
    *unreadable: Kind,
    namespaces: tuple[str | None, ...] = ("shop",),
    age: timedelta = timedelta(days=7),
    refused_in: Mapping[str, frozenset[Kind]] | None = None,
) -> dict[str, list[Checked]]:
    """The results of every check, by its id."""
    source = Memory(bodies, frozenset(unreadable), refused_in or {})
    done = checkup.check(source, namespaces, backup_age=age)
    found: dict[str, list[Checked]] = {check.id: [] for check in CHECKS}
    for row in done.results:
        found[row.check.id].append(row)
    return found


def results(rows: list[Checked]) -> set[Result]:
    return {row.result for row in rows}


def told(rows: list[Checked]) -> str:
    return "\n".join(row.summary for row in rows)


TEMPLATE = ("spec", "template", "spec")


def upgrade(state: str | None) -> Body:
    body = bare(UPGRADE, "harvester-system", "hvst-upgrade-x")
    if state:
        body["metadata"]["labels"] = {"harvesterhci.io/upgradeState": state}
    return body


def no_condition(kind: str) -> Callable[[Body], object]:
    def change(body: Body) -> None:
        conditions = body["status"]["conditions"]
        body["status"]["conditions"] = [one for one in conditions if one["type"] != kind]

    return change


def said_no(kind: str, **more: Any) -> Callable[[Body], object]:
    def change(body: Body) -> None:
        no_condition(kind)(body)
        body["status"]["conditions"].append({"type": kind, "status": "False", **more})

    return change


def local_volume(body: Body) -> None:
    rule = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [rule]}]}
    body["spec"]["nodeAffinity"] = {"required": terms}


def with_affinity(rule: Mapping[str, Any], field_: str = "matchExpressions") -> Change:
    required = {"nodeSelectorTerms": [{field_: [rule]}]}
    name = "requiredDuringSchedulingIgnoredDuringExecution"
    return put({"nodeAffinity": {name: required}}, *TEMPLATE, "affinity")


@dataclass(frozen=True)
class Story:
    """A cluster in which a check does not pass: what it comes to, and a word of its summary."""

    check: str
    result: Result
    word: str
    bodies: Callable[[], list[Body]]


LEGACY = builders.LEGACY_FINALIZER

STORIES = (
    Story("nodes-ready", FAIL, "not Ready: n2",
          lambda: changed(ready(), NODE, put([{"type": "Ready", "status": "Unknown"}],
                                             "status", "conditions"), "n2")),
    Story("nodes-ready", WARN, "take no VMs: n3",
          lambda: changed(ready(), NODE, put(True, "spec", "unschedulable"), "n3")),
    Story("nodes-ready", WARN, "take no VMs: n3",
          lambda: changed(ready(), NODE, put([{"key": "x", "effect": "NoSchedule"}],
                                             "spec", "taints"), "n3")),
    Story("nodes-ready", WARN, "take no VMs: n3",
          lambda: changed(ready(), NODE, put({"kubevirt.io/schedulable": "false"},
                                             "metadata", "labels"), "n3")),
    Story("nodes-ready", FAIL, "no other to restart them on",
          lambda: without(without(ready(), NODE, "n2"), NODE, "n3")),
    Story("room-for-any-node", FAIL, "no node has room for shop/web",
          lambda: changed(ready(), POD, put("65Gi", "spec", "containers", 0, "resources",
                                            "requests", "memory"), "virt-launcher-web")),
    Story("room-for-any-node", FAIL, "no node has room for shop/web",
          lambda: changed(ready(), POD, put("17", "spec", "containers", 0, "resources",
                                            "requests", "cpu"), "virt-launcher-web")),
    Story("restart-elsewhere", WARN, "runStrategy Manual",
          lambda: changed(ready(), VM, put("Manual", "spec", "runStrategy"))),
    Story("restart-elsewhere", WARN, "host device",
          lambda: changed(ready(), VM, put([{"name": "gpu", "deviceName": "nvidia.com/T4"}],
                                           *TEMPLATE, "domain", "devices", "hostDevices"))),
    Story("restart-elsewhere", WARN, "node selector",
          lambda: changed(ready(), VM, put({"kubernetes.io/hostname": "n1"}, *TEMPLATE,
                                           "nodeSelector"))),
    Story("restart-elsewhere", WARN, "node selector",
          lambda: changed(ready(), VM, with_affinity(
              {"key": "metadata.name", "operator": "In", "values": ["n1"]}, "matchFields"))),
    Story("restart-elsewhere", WARN, "host disk",
          lambda: changed(ready(), VM, put([{"name": "d", "hostDisk": {}}], *TEMPLATE,
                                           "volumes"))),
    Story("restart-elsewhere", WARN, "local volume", lambda: changed(ready(), PV, local_volume)),
    Story("restart-elsewhere", WARN, "disk missing", lambda: without(ready(), PVC)),
    Story("live-migratable", WARN, "DisksNotLiveMigratable",
          lambda: changed(ready(), VMI, said_no("LiveMigratable",
                                                reason="DisksNotLiveMigratable"))),
    Story("live-migratable", WARN, "does not say",
          lambda: changed(ready(), VMI, no_condition("LiveMigratable"))),
    Story("force-reset-policy", FAIL, "is off",
          lambda: changed(ready(), SETTING, put('{"enable":false}', "value"),
                          "vm-force-reset-policy")),
    Story("force-reset-policy", WARN, "no setting",
          lambda: without(ready(), SETTING, "vm-force-reset-policy")),
    Story("force-reset-policy", FAIL, "is not finished (UpgradingNodes)",
          lambda: [*ready(), upgrade("UpgradingNodes")]),
    Story("force-reset-policy", FAIL, "is not finished (no state)",
          lambda: [*ready(), upgrade(None)]),
    Story("volume-replicas", FAIL, "fewer than two",
          lambda: changed(changed(ready(), LONGHORN_REPLICA, put(ago(days=1), "spec", "failedAt"),
                                  "pvc-web-r-2"),
                          LONGHORN_REPLICA, put("unknown", "status", "currentState"),
                          "pvc-web-r-3")),
    Story("volume-replicas", FAIL, "every healthy replica on one node",
          lambda: changed(ready(), LONGHORN_REPLICA, put("n1", "spec", "nodeID"))),
    Story("volume-replicas", WARN, "fewer healthy replicas than configured",
          lambda: without(ready(), LONGHORN_REPLICA, "pvc-web-r-3")),
    Story("volume-replicas", WARN, "could not be counted",
          lambda: without(ready(), LONGHORN_VOLUME)),
    Story("backup-target", FAIL, "no backup target",
          lambda: without(ready(), SETTING, "backup-target")),
    Story("backup-target", FAIL, "no backup target",
          lambda: changed(ready(), SETTING, put("", "value"), "backup-target")),
    Story("backup-target", FAIL, "could not set it up: wrong key",
          lambda: changed(ready(), SETTING, put([{"type": "configured", "status": "False",
                                                  "message": "wrong key"}],
                                                "status", "conditions"), "backup-target")),
    Story("backup-target", FAIL, "does not reach",
          lambda: changed(ready(), LONGHORN_BACKUP_TARGET, put(False, "status", "available"))),
    Story("backup-target", FAIL, "Longhorn has no backup target",
          lambda: without(ready(), LONGHORN_BACKUP_TARGET)),
    Story("recent-backup", FAIL, "without a good backup: shop/web",
          lambda: without(ready(), VM_BACKUP)),
    Story("recent-backup", FAIL, "without a good backup: shop/web",
          lambda: changed(ready(), VM_BACKUP, put(False, "status", "readyToUse"))),
    Story("recent-backup", FAIL, "without a good backup: shop/web",
          lambda: changed(ready(), VM_BACKUP, put("snapshot", "spec", "type"))),
    Story("recent-backup", FAIL, "older than 7d: shop/web (9d)",
          lambda: changed(ready(), VM_BACKUP, put(ago(days=9), "status", "creationTime"))),
    Story("backup-schedule", WARN, "without an active schedule",
          lambda: without(ready(), SCHEDULE)),
    Story("backup-schedule", WARN, "without an active schedule",
          lambda: changed(ready(), SCHEDULE, put(True, "spec", "suspend"))),
    Story("backup-schedule", WARN, "without an active schedule",
          lambda: changed(ready(), SCHEDULE, put(True, "status", "suspended"))),
    Story("backup-schedule", WARN, "without an active schedule",
          lambda: changed(ready(), SCHEDULE, put("snapshot", "spec", "vmbackup", "type"))),
    Story("failed-backups", WARN, "1 backup failed",
          lambda: changed(ready(), VM_BACKUP, put({"message": "disk full"}, "status", "error"))),
    Story("failed-backups", WARN, "1 backup failed",
          lambda: changed(changed(ready(), VM_BACKUP, put(False, "status", "readyToUse")),
                          VM_BACKUP, put(ago(days=2), "status", "creationTime"))),
    Story("monitoring-addon", FAIL, "no add-on", lambda: without(ready(), ADDON)),
    Story("monitoring-addon", FAIL, "is not enabled",
          lambda: changed(ready(), ADDON, put(False, "spec", "enabled"))),
    Story("monitoring-addon", FAIL, "not deployed",
          lambda: changed(ready(), ADDON, put("AddonEnabling", "status", "status"))),
    Story("alert-rules", WARN, "no alert watches nodes, VMs",
          lambda: without(ready(), PROMETHEUS_RULE)),
    Story("alert-rules", WARN, "no alert watches virt-api",
          lambda: changed(ready(), PROMETHEUS_RULE, no_rule_about("virt-api"))),
    Story("alert-rules", WARN, "no alert watches nodes, VMs, virt-controller, virt-api, harvester",
          lambda: changed(ready(), PROMETHEUS_RULE, only_recorded)),
    Story("guest-agent", WARN, "without a guest agent: shop/web",
          lambda: changed(ready(), VMI, no_condition("AgentConnected"))),
    Story("grace-period", WARN, "pulls the plug",
          lambda: changed(ready(), VM, put(0, *TEMPLATE, "terminationGracePeriodSeconds"))),
    Story("grace-period", WARN, "more than ten minutes: shop/web (3600s)",
          lambda: changed(ready(), VM, put(3600, *TEMPLATE, "terminationGracePeriodSeconds"))),
    Story("eviction-strategy", WARN, "without an eviction strategy",
          lambda: changed(ready(), VMI, put("None", "spec", "evictionStrategy"))),
    Story("eviction-strategy", WARN, "waits for ever",
          lambda: changed(changed(ready(), VMI, put("LiveMigrate", "spec", "evictionStrategy")),
                          VMI, said_no("LiveMigratable"))),
    Story("workloads-available", FAIL, "not available: deployment/harvester-webhook",
          lambda: changed(ready(), DEPLOYMENT, put(0, "status", "availableReplicas"),
                          "harvester-webhook")),
    Story("workloads-available", FAIL, "not available: deployment/virt-api",
          lambda: without(ready(), DEPLOYMENT, "virt-api")),
    Story("workloads-available", WARN, "not complete: deployment/harvester",
          lambda: changed(ready(), DEPLOYMENT, put(1, "status", "availableReplicas"),
                          "harvester")),
    Story("workloads-available", WARN, "not complete: daemonset/virt-handler",
          lambda: changed(ready(), DAEMON_SET, put(2, "status", "numberAvailable"))),
    Story("workloads-spread", WARN, "virt-api (n2)",
          lambda: changed(ready(), POD, put("n2", "spec", "nodeName"), "virt-api-6c5f7d9b8-n1")),
    Story("workloads-spread", WARN, "there is one node",
          lambda: without(without(ready(), NODE, "n2"), NODE, "n3")),
    Story("webhook-endpoints", FAIL, "no endpoint behind virtualmachine-validator.kubevirt.io",
          lambda: without(ready(), ENDPOINT_SLICE)),
    Story("webhook-endpoints", FAIL, "no VM can be changed",
          lambda: changed(ready(), ENDPOINT_SLICE,
                          lambda body: put(False, "conditions", "ready")(body["endpoints"][0]))),
    Story("webhook-endpoints", WARN, "it is skipped",
          lambda: changed(without(ready(), ENDPOINT_SLICE), VALIDATING,
                          lambda body: put("Ignore", "failurePolicy")(body["webhooks"][0]))),
    Story("webhook-endpoints", WARN, "no webhook is asked", lambda: without(ready(), VALIDATING)),
    Story("admission-policies", WARN, "not installed: harvester-stuck-patch; operators may",
          lambda: without(ready(), POLICY, "harvester-stuck-patch")),
    Story("admission-policies", WARN, "not enforced everywhere: harvester-stuck-create",
          lambda: without(ready(), POLICY_BINDING, "harvester-stuck-create")),
    Story("admission-policies", WARN, "not enforced everywhere: harvester-stuck-patch",
          lambda: changed(ready(), POLICY_BINDING, put(["Warn", "Audit"], "spec",
                                                       "validationActions"))),
    Story("admission-policies", WARN, "not enforced everywhere: harvester-stuck-delete-pod",
          lambda: changed(ready(), POLICY, put("Ignore", "spec", "failurePolicy"),
                          "harvester-stuck-delete-pod")),
    Story("admission-policies", WARN, "not enforced everywhere: harvester-stuck-patch",
          lambda: changed(ready(), POLICY_BINDING,
                          put({"matchLabels": {"team": "a"}}, "spec", "matchResources",
                              "namespaceSelector"), "harvester-stuck-patch")),
    Story("aggregated-apis", FAIL, "virtctl and the UI",
          lambda: changed(ready(), API_SERVICE, said_no("Available"))),
    Story("aggregated-apis", WARN, "discovery is incomplete",
          lambda: [*ready(), readycluster.api_service("v1beta1.metrics.k8s.io", "False")]),
    Story("known-finalizers", WARN, "example.com/strange",
          lambda: changed(ready(), VM, put(["example.com/strange"], "metadata", "finalizers"))),
    Story("orphaned-finalizers", FAIL, f"nobody serves {LEGACY}",
          lambda: changed(ready(), VM, put([LEGACY], "metadata", "finalizers"))),
    Story("orphaned-finalizers", FAIL, "harvester-lb-vm-controller",
          lambda: changed(ready(), VM, put(["wrangler.cattle.io/harvester-lb-vm-controller"],
                                           "metadata", "finalizers"))),
    Story("disks-of-one-vm", WARN, "1 disk in more than one VM",
          lambda: [*ready(), builders.vm("shop", "db", spec=builders.with_disks("web-disk-0"))]),
    Story("leftover-instances", FAIL, "1 Failed VMI that nobody deletes",
          lambda: changed(ready(), VMI, put("Failed", "status", "phase"))),
    Story("leftover-instances", WARN, "1 Succeeded VMI that nobody deletes",
          lambda: changed(ready(), VMI, put("Succeeded", "status", "phase"))),
    Story("movable-guests", FAIL, "cannot be moved; Harvester has them shut down before it"
          " upgrades: shop/web",
          lambda: changed(ready(), VMI, said_no("LiveMigratable", reason="Disks"))),
    Story("movable-guests", FAIL, "shop/web",
          lambda: changed(ready(), VMI, put({"kubernetes.io/hostname": "n1"}, "spec",
                                            "nodeSelector"))),
    Story("movable-guests", FAIL, "shop/web",
          lambda: changed(ready(), VMI, put([{"name": "gpu", "deviceName": "nvidia.com/T4"}],
                                            "spec", "domain", "devices", "gpus"))),
    Story("unfinished-migrations", WARN, "not finished: shop/web",
          lambda: [*ready(), builders.migration("shop", "evacuation-x", "web")]),
    Story("unfinished-backups", FAIL, "1 backup in progress: shop/daily",
          lambda: [*ready(), builders.vm_backup("shop", "daily", "web")]),
    Story("unfinished-restores", WARN, "1 restore not complete: shop/back",
          lambda: [*ready(), bare(VM_RESTORE, "shop", "back")]),
    Story("last-upgrade", WARN, "of an upgrade that has ended: harvester-system/upgrade-repo-x",
          lambda: [*ready(), upgrade("Succeeded"),
                   builders.vm("harvester-system", "upgrade-repo-x")]),
    Story("last-upgrade", WARN, "no other can begin",
          lambda: [*ready(), upgrade("UpgradingNodes")]),
)  # fmt: skip


def no_rule_about(word: str) -> Callable[[Body], object]:
    def change(body: Body) -> None:
        for group in body["spec"]["groups"]:
            group["rules"] = [rule for rule in group["rules"] if word not in rule["expr"]]

    return change


def only_recorded(body: Body) -> None:
    for group in body["spec"]["groups"]:
        group["rules"] = [{"record": "x", "expr": rule["expr"]} for rule in group["rules"]]


BLIND: Mapping[str, tuple[Kind, ...]] = {
    "nodes-ready": (NODE,),
    "room-for-any-node": (NODE, POD),
    "restart-elsewhere": (VM, VMI, PVC, PV, NODE),
    "live-migratable": (VMI,),
    "force-reset-policy": (SETTING, UPGRADE, UPGRADE_PLAN),
    "volume-replicas": (VM, LONGHORN_VOLUME, LONGHORN_REPLICA),
    "backup-target": (SETTING, LONGHORN_BACKUP_TARGET),
    "recent-backup": (VM, VM_BACKUP),
    "backup-schedule": (VM, SCHEDULE),
    "failed-backups": (VM_BACKUP,),
    "monitoring-addon": (ADDON,),
    "alert-rules": (PROMETHEUS_RULE,),
    "guest-agent": (VMI,),
    "grace-period": (VM,),
    "eviction-strategy": (VMI,),
    "workloads-available": (DEPLOYMENT, DAEMON_SET),
    "workloads-spread": (POD, NODE),
    "webhook-endpoints": (VALIDATING, MUTATING, ENDPOINT_SLICE),
    "admission-policies": (POLICY, POLICY_BINDING),
    "aggregated-apis": (API_SERVICE,),
    "known-finalizers": (VM, VMI),
    "orphaned-finalizers": (VM, VMI, DEPLOYMENT, DAEMON_SET, SETTING),
    "disks-of-one-vm": (VM, SETTING),
    "leftover-instances": (VMI,),
    "movable-guests": (VMI, NODE),
    "unfinished-migrations": (VMI, MIGRATION),
    "unfinished-backups": (VM_BACKUP,),
    "unfinished-restores": (VM_RESTORE,),
    "last-upgrade": (VM, UPGRADE, UPGRADE_PLAN),
}
"""What each check cannot do without."""


KINDS = sorted({kind for kinds in BLIND.values() for kind in kinds}, key=lambda kind: kind.resource)


def test_every_check_has_its_stories() -> None:
    ids = [check.id for check in CHECKS]
    assert len(ids) == len(set(ids))
    assert set(ids) == {story.check for story in STORIES} == set(BLIND)
    assert all(check.summary.endswith(".") for check in CHECKS)


def test_all_checks_pass_on_a_cluster_that_is_ready() -> None:
    for name, rows in look(ready()).items():
        assert results(rows) == {OK}, f"{name}: {told(rows)}"


@pytest.mark.parametrize("story", STORIES, ids=lambda story: f"{story.check}: {story.word}")
def test_a_check_does_not_pass(story: Story) -> None:
    rows = look(story.bodies())[story.check]
    assert OK not in results(rows)
    named = [row for row in rows if row.result is story.result and story.word in row.summary]
    assert named, told(rows)
    assert named[0].evidence


@pytest.mark.parametrize(
    ("check", "kind"), [(check, kind) for check, kinds in BLIND.items() for kind in kinds],
    ids=lambda value: value if isinstance(value, str) else value.kind,
)  # fmt: skip
def test_a_check_that_is_blind_is_unknown(check: str, kind: Kind) -> None:
    rows = look(ready(), kind)[check]
    assert UNKNOWN in results(rows)
    assert OK not in results(rows)
    assert "Forbidden" in told(rows)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.resource)
def test_a_kind_that_cannot_be_read_spoils_only_the_checks_that_need_it(kind: Kind) -> None:
    for name, rows in look(ready(), kind).items():
        assert results(rows) == ({UNKNOWN} if kind in BLIND[name] else {OK}), told(rows)


# What the stories do not say


@pytest.mark.parametrize(
    ("names", "release", "result"),
    [
        ((), "v1.7.0", WARN),
        (("web",), "v1.7.0", WARN),
        (("web", "db"), "v1.7.0", OK),
        (("web", "db"), "v1.6.1", WARN),
        (("web", "db"), "master-head", OK),
    ],
)
def test_a_disk_may_be_in_several_vms_where_all_say_that_it_is_shareable(
    names: tuple[str, ...], release: str, result: Result
) -> None:
    disks = [{"name": "disk-0", "shareable": True}]
    other = builders.vm("shop", "db", spec=builders.with_disks("web-disk-0"))
    bodies = changed([*ready(), other], SETTING, put(release, "value"), "server-version")
    for name in names:
        bodies = changed(bodies, VM, put(disks, *TEMPLATE, "domain", "devices", "disks"), name)
    assert results(look(bodies)["disks-of-one-vm"]) == {result}


def test_a_disk_of_that_name_elsewhere_and_of_a_vm_that_is_going_are_others() -> None:
    spec = builders.with_disks("web-disk-0")
    elsewhere = builders.vm("lab", "db", spec=spec)
    going = stored(builders.vm("shop", "old", spec=spec), deleted=ago(hours=1))
    found = look([*ready(), elsewhere, going], namespaces=("shop", "lab"))
    assert results(found["disks-of-one-vm"]) == {OK}


def test_what_is_over_keeps_no_node_from_being_drained() -> None:
    done = {**bare(VM_RESTORE, "shop", "back"), "status": {"complete": True}}
    failed = builders.vm_backup("shop", "daily", "web")
    failed["status"] = {"readyToUse": False, "error": {"message": "no space"}}
    found = look(
        [
            *ready(),
            done,
            failed,
            builders.migration("shop", "moved", "web", "Succeeded"),
            builders.migration("shop", "of-a-guest-that-is-gone", "db"),
            upgrade("UpgradingNodes"),
            builders.vm("harvester-system", "upgrade-repo-hvst-upgrade-x"),
        ]
    )
    for check in ("unfinished-restores", "unfinished-backups", "unfinished-migrations"):
        assert results(found[check]) == {OK}, check
    # The VM that serves an upgrade is needed for as long as that goes on.
    assert told(found["last-upgrade"]) == (
        "Upgrade harvester-system/hvst-upgrade-x has not ended, and no other can begin"
    )


def test_the_only_node_is_upgraded_with_its_vms_shut_down() -> None:
    alone = without(without(ready(), NODE, "n2"), NODE, "n3")
    tied = changed(alone, VMI, said_no("LiveMigratable", reason="DisksNotLiveMigratable"))
    assert results(look(tied)["movable-guests"]) == {OK}


@pytest.mark.parametrize("kind", [POLICY, POLICY_BINDING], ids=lambda kind: kind.kind)
def test_a_server_without_policies_is_not_one_without_ours(kind: Kind) -> None:
    class Older(Memory):
        def list_objects(self, selection: ListQuery, keep: Callable[[Any], bool]) -> list[Any]:
            if selection.kind in (POLICY, POLICY_BINDING):
                raise ApiError(404, NOT_SERVED, "not served", is_kubernetes=False)
            return super().list_objects(selection, keep)

    done = checkup.check(Older(ready()), ("shop",), backup_age=timedelta(days=7))
    (row,) = [row for row in done.results if row.check.id == "admission-policies"]
    assert (row.result, row.summary.partition(":")[0]) == (WARN, "not available")
    assert kind in checks_reads.read(Older(ready()), ("shop",)).unserved


def test_each_cure_is_a_command_for_the_object_that_is_named() -> None:
    failed = look(changed(ready(), VMI, put("Failed", "status", "phase")))
    assert lines(failed["leftover-instances"][0].todo) == [
        "kubectl harvester-stuck diagnose vmi web -n shop",
    ]


def test_one_namespace_that_cannot_be_read_leaves_the_others() -> None:
    spaces = ("shop", "lab")
    found = look(ready(), namespaces=spaces, refused_in={"lab": frozenset({VM})})
    assert [row.result for row in found["recent-backup"]] == [OK, UNKNOWN]
    assert "could not look into lab" in found["recent-backup"][1].summary
    assert results(found["guest-agent"]) == {OK}


def test_everywhere_is_every_namespace() -> None:
    bodies = [*ready(), *readycluster.guest("lab", "db", "n2")]
    here, everywhere = look(bodies), look(bodies, namespaces=(None,))
    assert results(here["recent-backup"]) == {OK}
    assert "1 VM of 2 without a good backup: lab/db" in told(everywhere["recent-backup"])


def test_a_namespace_without_vms_is_told_as_one() -> None:
    empty = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "empty"}}
    found = look([*ready(), empty], namespaces=("empty",))
    assert told(found["recent-backup"]) == "there is no VirtualMachine to look at"
    assert told(found["guest-agent"]) == "there is no VirtualMachineInstance to look at"
    assert results(found["nodes-ready"]) == {OK}


def test_a_namespace_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(NotFoundError, match="namespace typo was not found"):
        look(ready(), namespaces=("typo",))


def test_a_vm_that_is_being_deleted_or_harvesters_own_needs_no_backup() -> None:
    bodies = without(ready(), VM_BACKUP)
    gone = [stored(body, deleted=ago(minutes=1)) if body["kind"] == "VirtualMachine" else body
            for body in bodies]  # fmt: skip
    assert results(look(gone)["recent-backup"]) == {OK}
    system = [*ready(), builders.vm("harvester-system", "upgrade-repo-x")]
    assert results(look(system, namespaces=(None,))["recent-backup"]) == {OK}


def test_how_old_a_backup_may_be_is_the_operators_word() -> None:
    assert results(look(ready(), age=timedelta(hours=23))["recent-backup"]) == {FAIL}
    assert results(look(ready(), age=timedelta(hours=25))["recent-backup"]) == {OK}


def test_the_room_of_a_node_is_what_its_other_pods_leave() -> None:
    """Two nodes, and each could take the guest only if nothing else ran there."""
    bodies = without(ready(), NODE, "n3")
    assert results(look(bodies)["room-for-any-node"]) == {OK}
    other = builders.controller_pod("greedy")
    first = {"name": "first", "image": "x", "resources": {"requests": {"memory": "61Gi"}}}
    other["spec"] |= {"nodeName": "n2", "initContainers": [first]}
    rows = look([*bodies, other])["room-for-any-node"]
    assert results(rows) == {FAIL}
    assert "without n1" in told(rows)
    ended = {**other, "status": {"phase": "Succeeded"}}
    assert results(look([*bodies, ended])["room-for-any-node"]) == {OK}


def test_what_one_guest_takes_the_next_has_not() -> None:
    """Either guest of n1 fits on n2, and both do not."""
    bodies = [*without(ready(), NODE, "n3"), *readycluster.guest("shop", "db", "n1", memory="40Gi")]
    assert results(look(bodies)["room-for-any-node"]) == {OK}
    big = put("40Gi", "spec", "containers", 0, "resources", "requests", "memory")
    rows = look(changed(bodies, POD, big, "virt-launcher-web"))["room-for-any-node"]
    assert results(rows) == {FAIL}
    assert "VMs ask for 1.0 CPU, 80.0Gi, free elsewhere is" in told(rows)


def test_room_in_pieces_is_no_room() -> None:
    """All together there are 60 Gi free, and no node has 40."""
    bodies = changed(ready(), NODE, put("30Gi", "status", "allocatable", "memory"))
    big = put("40Gi", "spec", "containers", 0, "resources", "requests", "memory")
    rows = look(changed(bodies, POD, big, "virt-launcher-web"))["room-for-any-node"]
    assert results(rows) == {FAIL}


def test_a_node_that_takes_no_vms_is_no_room() -> None:
    """A cordoned node, and a witness, which is not even worth a warning."""
    bodies = without(ready(), NODE, "n3")
    closed = changed(bodies, NODE, put(True, "spec", "unschedulable"), "n2")
    assert results(look(closed)["room-for-any-node"]) == {FAIL}
    taint = put([{"key": "node-role.kubernetes.io/etcd", "effect": "NoExecute"}], "spec", "taints")
    label = put({"node-role.harvesterhci.io/witness": "true"}, "metadata", "labels")
    witness = changed(changed(ready(), NODE, taint, "n3"), NODE, label, "n3")
    assert results(look(witness)["nodes-ready"]) == {OK}


def test_a_selector_that_fits_two_nodes_ties_nothing() -> None:
    labels = {"disk": "fast", "disks": "8"}
    labelled = changed(ready(), NODE, put(labels, "metadata", "labels"))
    chosen = changed(labelled, VM, put({"disk": "fast"}, *TEMPLATE, "nodeSelector"))
    assert results(look(chosen)["restart-elsewhere"]) == {OK}
    for rule, result in (
        ({"key": "disk", "operator": "Exists"}, OK),
        ({"key": "disk", "operator": "DoesNotExist"}, WARN),
        ({"key": "disk", "operator": "NotIn", "values": ["fast"]}, WARN),
        ({"key": "disk", "operator": "Gt", "values": ["3"]}, WARN),
        ({"key": "disks", "operator": "Gt", "values": ["3"]}, OK),
        ({"key": "disks", "operator": "Lt", "values": ["3"]}, WARN),
        ({"key": "disk", "operator": "Newer"}, UNKNOWN),
    ):
        rows = look(changed(labelled, VM, with_affinity(rule)))["restart-elsewhere"]
        assert results(rows) == {result}, told(rows)


def test_a_witness_is_no_place_for_a_vm() -> None:
    """It carries the label that is asked for, and takes no VM all the same."""
    label = put({"disk": "fast", "node-role.harvesterhci.io/witness": "true"}, "metadata", "labels")
    bodies = changed(ready(), NODE, put({"disk": "fast"}, "metadata", "labels"), "n1")
    chosen = changed(bodies, VM, put({"disk": "fast"}, *TEMPLATE, "nodeSelector"))
    assert results(look(changed(chosen, NODE, label, "n3"))["restart-elsewhere"]) == {WARN}


def test_a_vm_that_is_off_is_not_asked_where_it_would_start() -> None:
    halted = changed(ready(), VM, put("Halted", "spec", "runStrategy"))
    assert results(look(halted)["restart-elsewhere"]) == {WARN}  # its guest runs
    assert results(look(without(halted, VMI))["restart-elsewhere"]) == {OK}


def test_the_old_field_running_is_a_run_strategy() -> None:
    def old(body: Body) -> None:
        del body["spec"]["runStrategy"]
        body["spec"]["running"] = True

    assert results(look(changed(ready(), VM, old))["restart-elsewhere"]) == {OK}


def test_finished_upgrades_hold_nothing_back() -> None:
    for state in ("Succeeded", "Failed"):
        assert results(look([*ready(), upgrade(state)])["force-reset-policy"]) == {OK}


def test_a_setting_without_a_value_has_its_default() -> None:
    def defaulted(body: Body) -> None:
        body["default"], body["value"] = '{"enable":false}', ""

    name = "vm-force-reset-policy"
    assert results(look(changed(ready(), SETTING, defaulted, name))["force-reset-policy"]) == {FAIL}
    silent = changed(ready(), SETTING, put("", "value"), name)
    assert results(look(silent)["force-reset-policy"]) == {OK}
    broken = changed(ready(), SETTING, put("[", "value"), name)
    assert results(look(broken)["force-reset-policy"]) == {UNKNOWN}


def test_credentials_of_the_backup_target_are_never_shown() -> None:
    value = json.dumps({"type": "s3", "endpoint": "", "bucketName": "b", "accessKeyId": "AKIA-X",
                        "secretAccessKey": "hunter2"})  # fmt: skip
    for bodies in (
        changed(ready(), SETTING, put(value, "value"), "backup-target"),
        changed(ready(), SETTING, put(value[:-1], "value"), "backup-target"),
        without(changed(ready(), SETTING, put(value, "value"), "backup-target"),
                LONGHORN_BACKUP_TARGET),
    ):  # fmt: skip
        text = repr(look(bodies)["backup-target"])
        assert "hunter2" not in text
        assert "AKIA" not in text


@pytest.mark.parametrize(
    ("version", "result"),
    [("v1.3.2", OK), ("v1.4.0", FAIL), ("v1.10.0-rc1", FAIL), ("master-head", FAIL)],
)
def test_which_finalizers_an_upgrade_orphaned_depends_on_the_version(
    version: str, result: Result
) -> None:
    bodies = changed(ready(), VM, put([LEGACY], "metadata", "finalizers"))
    found = look(changed(bodies, SETTING, put(version, "value"), "server-version"))
    assert results(found["orphaned-finalizers"]) == {result}


def test_finalizers_of_what_is_being_deleted_are_left_to_diagnose() -> None:
    strange = changed(ready(), VM, put(["example.com/strange"], "metadata", "finalizers"))
    deleted = [stored(body, deleted=ago(minutes=1)) if body["kind"] == "VirtualMachine" else body
               for body in strange]  # fmt: skip
    assert results(look(deleted)["known-finalizers"]) == {OK}


def test_webhooks_that_are_not_asked_about_vms_do_not_count() -> None:
    other = readycluster.webhook(name="other")
    other["webhooks"][0]["clientConfig"]["service"]["name"] = "nobody"
    other["webhooks"][0]["rules"][0]["resources"] = ["datavolumes"]
    assert results(look([*ready(), other])["webhook-endpoints"]) == {OK}
    other["webhooks"][0]["rules"][0]["resources"] = ["virtualmachines/*"]
    assert results(look([*ready(), other])["webhook-endpoints"]) == {FAIL}


def test_a_webhook_puts_no_word_into_a_command() -> None:
    other = readycluster.webhook(name="other")
    other["webhooks"][0]["clientConfig"]["service"] = {"namespace": "a; reboot", "name": "$(b) c"}
    (failed,) = look([*ready(), other])["webhook-endpoints"]
    words = shlex.split(lines(failed.todo)[0])
    assert words[-4:] == ["-n", "a; reboot", "-l", "kubernetes.io/service-name=$(b) c"]


def test_what_is_malformed_is_unknown_and_not_a_traceback() -> None:
    for check, bodies in (
        ("room-for-any-node", changed(ready(), NODE, put("much", "status", "allocatable", "cpu"))),
        ("room-for-any-node", changed(ready(), NODE, put(None, "status", "allocatable"))),
        ("restart-elsewhere", changed(ready(), VM, with_affinity({"operator": "In",
                                                                  "values": "n1"}))),
        ("recent-backup", changed(ready(), VM_BACKUP, put("soon", "status", "creationTime"))),
        ("grace-period", changed(ready(), VM, put("long", *TEMPLATE,
                                                  "terminationGracePeriodSeconds"))),
        ("alert-rules", changed(ready(), PROMETHEUS_RULE, put([{"rules": "x"}], "spec",
                                                              "groups"))),
        ("aggregated-apis", without(ready(), API_SERVICE)),
        ("nodes-ready", without(ready(), NODE)),
    ):  # fmt: skip
        assert UNKNOWN in results(look(bodies)[check]), check


def test_the_exit_status() -> None:
    def status(bodies: list[Body], *unreadable: Kind, exit_code: bool = True) -> ExitStatus:
        source = Memory(bodies, frozenset(unreadable))
        done = checkup.check(source, ("shop",), backup_age=timedelta(days=7))
        return exit_status.of_checkup(done, exit_code=exit_code)

    failing, warning = without(ready(), ADDON), without(ready(), SCHEDULE)
    assert status(ready()) is ExitStatus.OK
    assert status(warning) is ExitStatus.OK
    assert status(failing) is ExitStatus.STUCK
    assert status(failing, exit_code=False) is ExitStatus.OK
    assert status(failing, NODE) is ExitStatus.INCOMPLETE
    assert status(ready(), NODE, exit_code=False) is ExitStatus.INCOMPLETE
    malformed = changed(ready(), NODE, put(None, "status", "allocatable"))
    assert status(malformed) is ExitStatus.INCOMPLETE
    # Namespaces that nobody knows of spoil no check, and the answer is not whole all the same.
    gap = Unreadable("namespaces", None, "Unreadable", "not in the bundle")
    passed = tuple(Checked(check, OK, "fine") for check in CHECKS)
    sure = checkup.Checkup(passed, (), NOW)
    assert exit_status.of_checkup(sure, exit_code=True) is ExitStatus.OK
    blind = checkup.Checkup(tuple(Checked(check, UNKNOWN, "no") for check in CHECKS), (), NOW)
    assert exit_status.of_checkup(blind, exit_code=True) is ExitStatus.ERROR
    unsure = checkup.Checkup(passed, (gap,), NOW)
    assert exit_status.of_checkup(unsure, exit_code=True) is ExitStatus.INCOMPLETE


def test_whatever_is_malformed_there_is_an_answer() -> None:
    """Each field of each kind of object in turn holds something else than the API promises."""
    bodies, seen = ready(), set()
    for index, body in enumerate(bodies):
        if body["kind"] in seen:
            continue
        seen.add(body["kind"])
        for path in paths(body):
            if path[:1] in (("apiVersion",), ("kind",)) or path in (
                ("metadata",), ("metadata", "name"), ("metadata", "namespace")
            ):  # fmt: skip
                continue
            for value in ("x", [None]):
                broken = copy.deepcopy(body)
                put(value, *path)(broken)
                answers = look([*bodies[:index], broken, *bodies[index + 1 :]])
                assert all(answers.values()), path


def paths(value: Any, *before: str | int) -> Iterator[tuple[str | int, ...]]:
    """Where every value in it stands."""
    if before:
        yield before
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths(item, *before, key)


def test_no_number_of_an_object_ends_in_a_traceback() -> None:
    """Some VMs have the largest number that fits, to be left alone for ever."""
    path = (*TEMPLATE, "terminationGracePeriodSeconds")
    for value, result in ((2**63 - 1, WARN), (float("inf"), UNKNOWN), (120.0, OK), (True, UNKNOWN)):
        rows = look(changed(ready(), VM, put(value, *path)))["grace-period"]
        assert results(rows) == {result}, value


@pytest.mark.parametrize(
    ("written", "number"),
    [("500m", "0.5"), ("16", "16"), (2, "2"), ("64Gi", str(64 * readycluster.GIB)), ("1k", "1000"),
     ("1e3", "1000"), ("1.5Mi", str(1536 * 1024)), ("100u", "0.0001"), ("5.", "5"), (".5", "0.5")],
)  # fmt: skip
def test_quantities(written: object, number: str) -> None:
    assert quantities.parse(written) == Decimal(number)


@pytest.mark.parametrize(
    "written", ["", "much", "1gi", "1e999", None, True, "1Gi2", ".", "1.2.3", "+"]
)
def test_what_is_no_quantity(written: object) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        quantities.parse(written)


def test_what_is_no_quantity_is_said_at_once() -> None:
    """A file of `-f` can hold anything: a minute of thought about one word would be too long."""
    began = time.monotonic()
    with pytest.raises(ValueError, match="is not a quantity"):
        quantities.parse("1" * 20_000 + "!")
    assert time.monotonic() - began < 5


# The screen


def rows(result: Result, summary: str) -> list[Checked]:
    seen = (Evidence("Node n1", "Ready", "Unknown"),)
    return [Checked(CHECKS[0], result, summary, seen, (own("x" * 90),))]


def test_the_table_fits_and_nothing_of_the_cluster_moves_the_cursor() -> None:
    page = Page(Screen(width=80, has_color=False))
    text = table(rows(FAIL, f"not\x1b[2J Ready: {'node ' * 60}"), ANYWHERE, page, wide=True,
                 headers=True)  # fmt: skip
    *lines, command = text.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert "\x1b" not in text
    assert command == f"  kubectl harvester-stuck {'x' * 90}"


def test_the_worst_comes_first_and_only_what_passes_is_left_to_the_wide_table() -> None:
    found = [row for result in (OK, WARN, UNKNOWN, OK, FAIL) for row in rows(result, "sum")]
    name = CHECKS[0].id
    plain = table(found, ANYWHERE, Page(), wide=False, headers=True).splitlines()
    commands = [line for line in plain if line.startswith("  ")]
    assert commands == [f"  kubectl harvester-stuck {'x' * 90}"] * 3
    assert [line for line in plain if line not in commands] == [
        "1 FAIL, 1 UNKNOWN, 1 WARN, 2 OK",
        "",
        f"FAIL     {name}: sum",
        f"UNKNOWN  {name}: sum",
        f"WARN     {name}: sum",
        "OK       2 more (-o wide)",
    ]
    wide = table(found, ANYWHERE, Page(), wide=True, headers=False)
    assert wide.startswith("FAIL ")
    assert wide.count(f"OK       {name}: sum") == 2
    assert wide.count("Node n1: Ready: Unknown") == 5


@pytest.mark.parametrize(
    ("result", "code"), [(OK, "32"), (WARN, "33"), (UNKNOWN, "33"), (FAIL, "31")]
)
def test_results_have_their_colour(result: Result, code: str) -> None:
    page = Page(Screen(has_color=True))
    text = table(rows(result, "FAIL is a word here"), ANYWHERE, page, wide=True, headers=True)
    assert f"\x1b[{code}m{result.value.upper()}\x1b[0m" in text
    assert text.count("\x1b[0m") == 1


# The rules


def test_the_rules_watch_everything_that_is_to_be_watched() -> None:
    texts = [rule["expr"] for group in RULES["spec"]["groups"] for rule in group["rules"]]
    for what, pattern in WATCHED.items():
        assert any(pattern.search(text) for text in texts), what
    for metric in METRICS:
        assert any(metric in text for text in texts), metric


def test_the_rules_are_not_changed_by_who_reads_them() -> None:
    before = copy.deepcopy(RULES)
    look(ready())
    assert before == RULES


def test_the_work_grows_as_the_cluster_does() -> None:
    """Twice the VMs are twice the work, whatever is wrong with them."""
    _calls(_many(1))  # the first one compiles patterns
    work = [_calls(_many(count)) for count in (20, 40, 80)]
    assert work[2] - work[1] <= 2.02 * (work[1] - work[0])


def _many(count: int) -> list[Body]:
    """So many VMs that run, each with a backup that failed, and a disk that has one copy left."""
    bodies = ready()
    template = {
        kind: next(body for body in bodies if body["kind"] == kind.kind)
        for kind in (LONGHORN_VOLUME, LONGHORN_REPLICA)
    }
    for number in range(count):
        name, disk = f"more-{number}", f"more-{number}-disk"
        failed = builders.vm_backup("shop", f"{name}-backup", name, "backup")
        bodies += [
            builders.vm("shop", name, spec=builders.with_disks(disk)),
            {**failed, "status": {"error": {"message": "no room"}}},
            builders.vmi("shop", name, "node-1"),
            builders.pvc("shop", disk, volume=f"pvc-{number}"),
            builders.volume(f"pvc-{number}"),
        ]
        volume = copy.deepcopy(template[LONGHORN_VOLUME])
        volume["metadata"] |= {"name": f"pvc-{number}", "uid": f"volume-{number}"}
        volume["status"]["kubernetesStatus"] = {"namespace": "shop", "pvcName": disk}
        copy_of_it = copy.deepcopy(template[LONGHORN_REPLICA])
        copy_of_it["metadata"] |= {"name": f"pvc-{number}-r", "uid": f"replica-{number}"}
        copy_of_it["spec"]["volumeName"] = f"pvc-{number}"
        bodies += [volume, copy_of_it]
    return bodies


def _calls(bodies: list[Body]) -> int:
    """How many functions are called while the cluster is checked, those of threads left out."""
    made = 0

    def count(_: object, event: str, __: object) -> None:
        nonlocal made
        made += event == "call"

    source = Memory(bodies)
    sys.setprofile(count)
    try:
        checkup.check(source, ("shop",), backup_age=timedelta(days=7))
    finally:
        sys.setprofile(None)
    return made
