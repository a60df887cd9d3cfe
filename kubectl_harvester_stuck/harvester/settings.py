"""Harvester's settings that are read, and what they say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.k8s import nesting
from kubectl_harvester_stuck.k8s.kinds import HARVESTER_NAMESPACE, SETTING, UPGRADE, UPGRADE_PLAN
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef
from kubectl_harvester_stuck.k8s.reads import EVERYWHERE, Read, declared
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot

FORCE_RESET = "vm-force-reset-policy"
BACKUP_TARGET = "backup-target"
SERVER_VERSION = "server-version"

REPOSITORY = "upgrade-repo-"
"""Beginning of the name of the VM that serves the images of an upgrade."""

UPGRADE_STATE = "harvesterhci.io/upgradeState"
"""The label that says how far an Upgrade is."""


def ref(name: str) -> ObjectRef:
    """The Setting of that name."""
    return ObjectRef("", name, SETTING)


def read(name: str) -> Read:
    """How a rule declares that it looks at this one: others hold certificates and credentials."""
    return Read(SETTING, EVERYWHERE, name)


def value_of(setting: KubeObject) -> str:
    """What a setting says: its value, or else its default."""
    return setting.text("value") or setting.text("default")


def version_of(setting: KubeObject) -> tuple[int, int] | None:
    """Major and minor number of the version that a setting says; None for a build without one."""
    found = re.match(r"v?(\d+)\.(\d+)\b", value_of(setting))
    return (int(found[1]), int(found[2])) if found else None


def force_reset_is_on(setting: KubeObject) -> bool:
    """Whether Harvester frees the VMs of a dead node by itself. Raises UnreadableError.

    A setting that says nothing has Harvester's own default, which is on.
    """
    return not value_of(setting) or fields_of(setting).get("enable") is True


FORCE_RESET_READS = declared(read(FORCE_RESET), Read(UPGRADE, HARVESTER_NAMESPACE), UPGRADE_PLAN)
"""What tells whether Harvester frees the VMs of a dead node by itself."""


@dataclass(frozen=True)
class UnfinishedUpgrade:
    """An upgrade for as long as which force-reset does nothing."""

    item: KubeObject
    field: str
    """Where it says how far it is."""
    state: str
    """What it says there; empty where it says nothing."""


def unfinished_upgrades(snapshot: ClusterSnapshot) -> Iterator[UnfinishedUpgrade]:
    """Those of each kind: Upgrade, and since Harvester 1.9 UpgradePlan. Raises UnreadableError."""
    for upgrade in snapshot.all(UPGRADE, HARVESTER_NAMESPACE):
        state = upgrade.labels.get(UPGRADE_STATE, "")
        if state not in _ENDS:
            yield UnfinishedUpgrade(upgrade, f"metadata.labels[{UPGRADE_STATE}]", state)
    for plan in snapshot.all(UPGRADE_PLAN):
        state = plan.text("status", "currentPhase")
        if state not in _ENDS:
            yield UnfinishedUpgrade(plan, "status.currentPhase", state)


_ENDS = ("Succeeded", "Failed")


def fields_of(setting: KubeObject) -> Mapping[str, Any]:
    """What a setting of JSON says; empty where it says nothing. Raises UnreadableError."""
    try:
        found = nesting.parse(value_of(setting) or "{}")
    except ValueError:
        found = None
    if not isinstance(found, Mapping):
        # The value itself can hold credentials, so it is not repeated.
        raise UnreadableError(str(setting.ref), "its value is not a JSON object")
    return found
