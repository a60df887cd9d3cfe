"""What a check is asked about, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum, unique
from functools import cached_property
from math import isfinite
from typing import Any

from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.k8s.commands import Advice
from kubectl_harvester_stuck.k8s.kinds import SETTING, VM, VMI, Kind
from kubectl_harvester_stuck.k8s.objects import Evidence, KubeObject, ObjectRef
from kubectl_harvester_stuck.k8s.reads import Read, declared
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot

MOST_NAMES = 3
"""Up to so many objects are named in a summary; the evidence names all of them."""


@unique
class Result(str, Enum):
    """What a check comes to; the values stand in JSON."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class CheckResult:
    """What a check's function yields; id and theme are added from its name and its module."""

    result: Result
    summary: str
    evidence: tuple[Evidence, ...] = ()
    todo: tuple[Advice, ...] = ()


@dataclass(frozen=True)
class CheckContext:
    """One cluster at one time, and what the operator asked for."""

    snapshot: ClusterSnapshot
    namespaces: tuple[str, ...]
    """Where the VMs are looked at; "" stands for everywhere."""
    backup_age: timedelta = timedelta(days=7)

    def all(self, kind: Kind) -> tuple[KubeObject, ...]:
        """Every object of `kind` in the namespaces of the VMs. Raises UnreadableError."""
        return tuple(item for name in self.namespaces for item in self.snapshot.all(kind, name))

    @cached_property
    def vms(self) -> tuple[KubeObject, ...]:
        """The VMs that nobody has deleted. Raises UnreadableError."""
        return tuple(vm for vm in self.all(VM) if vm.deletion_timestamp is None)

    @cached_property
    def instances(self) -> Mapping[tuple[str, str], KubeObject]:
        """The VMIs that run a guest or are about to, by namespace and name."""
        return {
            (vmi.ref.namespace, vmi.ref.name): vmi
            for vmi in self.all(VMI)
            if vmi.deletion_timestamp is None
            and vmi.text("status", "phase") not in ("Succeeded", "Failed")
        }

    def within(self, namespaces: Iterable[str]) -> CheckContext:
        """The same view of these namespaces alone."""
        wanted = tuple(namespaces)
        # What was found of the same namespaces need not be found again.
        return self if wanted == self.namespaces else replace(self, namespaces=wanted)

    def setting(self, name: str) -> KubeObject | None:
        """A setting of Harvester. Raises UnreadableError."""
        return self.snapshot.one(ObjectRef("", name, SETTING))


CheckFunction = Callable[[CheckContext], Iterator[CheckResult]]


@dataclass(frozen=True)
class Check:
    """A registered function, with what it looks at.

    Where something around the VMs cannot be read in one namespace, the check is made of the other
    namespaces, and the gap is a result of its own.
    """

    look: CheckFunction
    reads: tuple[Read, ...]

    @property
    def id(self) -> str:
        """The public id."""
        return self.look.__name__.replace("_", "-")

    @property
    def theme(self) -> str:
        """What it is about."""
        return self.look.__module__.rpartition(".")[2].replace("_", "-")

    @property
    def summary(self) -> str:
        """What passes, in one sentence."""
        return " ".join((self.look.__doc__ or "").split())


REGISTERED: dict[str, Check] = {}
"""By id, as they were defined."""


def check(*, reads: Iterable[Kind | Read]) -> Callable[[CheckFunction], CheckFunction]:
    """Register a check with what it looks at; a kind alone is looked at around the VMs."""

    def register(look: CheckFunction) -> CheckFunction:
        found = Check(look, declared(*reads))
        REGISTERED[found.id] = found
        return look

    return register


def ok(summary: str, *evidence: Evidence) -> CheckResult:
    """The check passes, with its positive reason."""
    return CheckResult(Result.OK, summary, evidence)


def warn(summary: str, evidence: Iterable[Evidence], *todo: Advice) -> CheckResult:
    """Something will go worse than it could."""
    return CheckResult(Result.WARN, summary, tuple(evidence), todo)


def fail(summary: str, evidence: Iterable[Evidence], *todo: Advice) -> CheckResult:
    """The cluster is not ready in this."""
    return CheckResult(Result.FAIL, summary, tuple(evidence), todo)


def saw(subject: KubeObject, field: str, value: object) -> Evidence:
    """What was seen in a field of an object."""
    return Evidence(str(subject.ref), field, "none" if value in (None, "") else str(value))


def count(number: int, what: str, many: str = "") -> str:
    """`1 VM`, `3 VMs`."""
    return f"{number} {what if number == 1 else many or f'{what}s'}"


def names(items: Iterable[KubeObject | str]) -> str:
    """The first few by name, and how many more there are."""
    found = list(
        dict.fromkeys(
            item if isinstance(item, str) else item.ref.key.removeprefix("/") for item in items
        )
    )
    shown = ", ".join(found[:MOST_NAMES])
    more = len(found) - MOST_NAMES
    return f"{shown} and {more} more" if more > 0 else shown


def condition(subject: KubeObject, kind: str) -> Mapping[str, Any]:
    """The condition of that type, empty where there is none. Raises UnreadableError."""
    for item in subject.mappings("status", "conditions"):
        if item.get("type") == kind:
            return item
    return {}


def number(subject: KubeObject, *path: str) -> int:
    """The whole number at `path`; missing is 0. Raises UnreadableError."""
    value = subject.mapping(*path[:-1]).get(path[-1])
    if value is None:
        return 0
    # What went through a support bundle may have become a float.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or (isinstance(value, float) and not isfinite(value)):
        raise UnreadableError(str(subject.ref), f"{'.'.join(path)} is not a number")
    return int(value)


def mapping(subject: KubeObject, value: object, where: str) -> Mapping[str, Any]:
    """What lies deeper than `Object.mapping` reaches. Raises UnreadableError."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise UnreadableError(str(subject.ref), f"{where} is not an object")
    return value


def mappings(subject: KubeObject, value: object, where: str) -> tuple[Mapping[str, Any], ...]:
    """The same for a list of them. Raises UnreadableError."""
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise UnreadableError(str(subject.ref), f"{where} is not a list")
    return tuple(mapping(subject, item, where) for item in value)


def texts(subject: KubeObject, value: object, where: str) -> tuple[str, ...]:
    """A list of strings. Raises UnreadableError."""
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise UnreadableError(str(subject.ref), f"{where} is not a list of strings")
    return tuple(value)


def devices_of(vm: KubeObject) -> tuple[str, ...]:
    """Resource names of the host devices and GPUs of a VM, or of a VMI."""
    template = ("template", "spec") if vm.ref.kind is VM else ()
    where = ("spec", *template, "domain", "devices")
    return tuple(
        str(item.get("deviceName") or item.get("name"))
        for field in ("hostDevices", "gpus")
        for item in vm.mappings(*where, field)
    )
