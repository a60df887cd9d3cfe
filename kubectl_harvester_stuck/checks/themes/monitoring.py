"""Monitoring: does anybody hear of a dead node before the users do?"""

from __future__ import annotations

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
    ok,
    saw,
    warn,
)
from kubectl_harvester_stuck.checks.prometheus_rules import WATCHED
from kubectl_harvester_stuck.k8s import commands
from kubectl_harvester_stuck.k8s.commands import Effect, Remark
from kubectl_harvester_stuck.k8s.kinds import ADDON, MONITORING_NAMESPACE, PROMETHEUS_RULE
from kubectl_harvester_stuck.k8s.objects import Evidence, KubeObject, ObjectRef
from kubectl_harvester_stuck.k8s.reads import EVERYWHERE, Read

MONITORING = ObjectRef(MONITORING_NAMESPACE, "rancher-monitoring", ADDON)

DEPLOYED = "AddonDeploySuccessful"

PRINT_RULES = commands.own("check", "--print-rules").noted("apply what this prints")


@check(reads=(Read(ADDON, MONITORING_NAMESPACE),))
def monitoring_addon(view: CheckContext) -> Iterator[CheckResult]:
    """The add-on rancher-monitoring is enabled and deployed."""
    addon = view.snapshot.one(MONITORING)
    enable = commands.patch(MONITORING, {"spec": {"enabled": True}}, effect=Effect.CHANGE)
    if addon is None:
        yield fail(
            "there is no add-on rancher-monitoring: nobody watches",
            [Evidence(str(MONITORING), "spec.enabled", "not there")],
            Remark("install it: Harvester, Advanced, Add-ons"),
        )
    elif addon.mapping("spec").get("enabled") is not True:
        yield fail(
            "the add-on rancher-monitoring is not enabled: nobody watches",
            [saw(addon, "spec.enabled", addon.mapping("spec").get("enabled"))],
            enable,
        )
    elif addon.text("status", "status") != DEPLOYED:
        state = addon.text("status", "status") or "no status"
        why = condition(addon, "OperationFailed").get("message")
        yield fail(
            f"the add-on rancher-monitoring is enabled, but not deployed ({why or state})",
            [saw(addon, "status.status", state)],
            commands.describe(MONITORING),
        )
    else:
        yield ok("rancher-monitoring is enabled and deployed")


@check(reads=(Read(PROMETHEUS_RULE, EVERYWHERE),))
def alert_rules(view: CheckContext) -> Iterator[CheckResult]:
    """PrometheusRules watch nodes, VMs, and the controllers that release them."""
    alerts = [
        (item, str(rule.get("expr") or ""))
        for item in view.snapshot.all(PROMETHEUS_RULE)
        for rule in _rules(item)
        if rule.get("alert")
    ]
    missing = [
        what
        for what, pattern in WATCHED.items()
        if not any(pattern.search(text) for _, text in alerts)
    ]
    if missing:
        yield warn(
            f"no alert watches {', '.join(missing)}",
            [Evidence("PrometheusRule", "alerts read", str(len(alerts)))],
            PRINT_RULES,
        )
    else:
        yield ok(f"alerts watch {', '.join(WATCHED)} ({count(len(alerts), 'alert')} read)")


def _rules(item: KubeObject) -> Iterator[Mapping[str, Any]]:
    for group in item.mappings("spec", "groups"):
        yield from mappings(item, group.get("rules"), "the rules of a group")
