"""Graceful shutdown: do guests go down cleanly when their node is drained or stopped?"""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_harvester_stuck.checks.base import (
    CheckContext,
    CheckResult,
    check,
    condition,
    count,
    names,
    number,
    ok,
    saw,
    warn,
)
from kubectl_harvester_stuck.k8s.commands import Remark
from kubectl_harvester_stuck.k8s.kinds import VM, VMI
from kubectl_harvester_stuck.k8s.objects import KubeObject

LONG_GRACE = 10 * 60
"""A guest that gets more seconds holds up the drain of its node and every release of its VM."""


@check(reads=(VMI,))
def guest_agent(view: CheckContext) -> Iterator[CheckResult]:
    """Each running guest has a guest agent that is connected."""
    running = [vmi for vmi in view.instances.values() if vmi.text("status", "phase") == "Running"]
    without = [vmi for vmi in running if condition(vmi, "AgentConnected").get("status") != "True"]
    if without:
        yield warn(
            f"{count(len(without), 'guest')} of {len(running)} without a guest agent:"
            f" {names(without)}",
            [saw(vmi, "AgentConnected", condition(vmi, "AgentConnected").get("status"))
             for vmi in without],
            Remark("install qemu-guest-agent in the guest and enable it"),
        )  # fmt: skip
    else:
        yield ok(f"all of {count(len(running), 'running guest')} have a connected guest agent")


@check(reads=(VM,))
def grace_period(view: CheckContext) -> Iterator[CheckResult]:
    """No VM has a termination grace period of zero, or of more than ten minutes."""
    path = ("spec", "template", "spec", "terminationGracePeriodSeconds")
    written = [
        (vm, number(vm, *path))
        for vm in view.vms
        if vm.mapping(*path[:-1]).get(path[-1]) is not None
    ]
    none = [vm for vm, seconds in written if seconds <= 0]
    long = [(vm, seconds) for vm, seconds in written if seconds > LONG_GRACE]
    field = ".".join(path)
    if none:
        yield warn(
            f"{count(len(none), 'VM')} with a grace period of zero: a stop pulls the plug of"
            f" {names(none)}",
            [saw(vm, field, "0") for vm in none],
            Remark("set terminationGracePeriodSeconds to what the guest needs to shut down"),
        )
    if long:
        yield warn(
            f"{count(len(long), 'VM')} with a grace period of more than ten minutes:"
            f" {names(f'{vm.ref.key} ({seconds}s)' for vm, seconds in long)}",
            [saw(vm, field, seconds) for vm, seconds in long],
            Remark("a guest that ignores the shutdown holds up its node for as long"),
        )
    if not none and not long:
        yield ok(f"no grace period of {count(len(view.vms), 'VM')} is zero or very long")


@check(reads=(VMI,))
def eviction_strategy(view: CheckContext) -> Iterator[CheckResult]:
    """Each running VM is migrated when its node is drained, and can be."""
    stops: list[tuple[KubeObject, str]] = []
    blocks: list[KubeObject] = []
    for vmi in view.instances.values():
        strategy = vmi.text("spec", "evictionStrategy")
        if strategy in ("", "None", "External"):
            stops.append((vmi, strategy))
        if strategy == "LiveMigrate" and condition(vmi, "LiveMigratable").get("status") == "False":
            blocks.append(vmi)
    if stops:
        yield warn(
            f"{count(len(stops), 'VM')} without an eviction strategy that migrates it:"
            f" {names(vmi for vmi, _ in stops)}",
            [saw(vmi, "spec.evictionStrategy", strategy) for vmi, strategy in stops],
            Remark("LiveMigrateIfPossible moves what can be moved, and lets the rest be drained"),
        )
    if blocks:
        yield warn(
            f"{count(len(blocks), 'VM')} cannot be migrated and must be, so a drain waits for"
            f" ever: {names(blocks)}",
            [saw(vmi, "spec.evictionStrategy", "LiveMigrate") for vmi in blocks],
            Remark("set evictionStrategy to LiveMigrateIfPossible, or stop it before the drain"),
        )
    if not stops and not blocks:
        yield ok(f"a drain migrates all of {count(len(view.instances), 'running VM')}")
