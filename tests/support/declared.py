"""Everything that some rule declares to read."""

from __future__ import annotations

from functools import cache

from kubectl_harvester_stuck.checks import CHECKS
from kubectl_harvester_stuck.diagnosis import diagnose
from kubectl_harvester_stuck.harvester.finalizer_catalogue import CATALOGUE
from kubectl_harvester_stuck.k8s.reads import Read, declared
from kubectl_harvester_stuck.release import guards


def of_a_plan() -> tuple[Read, ...]:
    """What `unstick` looks at before it changes anything."""
    return declared(*guards.reads(), *(read for entry in CATALOGUE for read in entry.reads))


def of_a_diagnosis() -> tuple[Read, ...]:
    """What `diagnose` looks at."""
    return declared(*diagnose.reads(), *of_a_plan())


def of_a_check() -> tuple[Read, ...]:
    """What `check` looks at."""
    return declared(*(read for check in CHECKS for read in check.reads))


@cache
def everywhere() -> tuple[Read, ...]:
    """What any rule looks at."""
    return declared(*of_a_diagnosis(), *of_a_check())
