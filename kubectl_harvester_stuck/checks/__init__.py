"""Is this cluster ready for the next power failure? One pure function per check.

To add one: a function under `@check` in a module of `themes` that yields what it sees, with its
evidence and what to do, and in tests/test_checks.py a story in which it does not pass, and what it
cannot do without; that test says so when one is forgotten. A read that fails inside raises
`UnreadableError` and becomes `unknown`, never "not found". The function's name with hyphens is the
check's public id, its docstring says what passes, its module is its theme. `reads` declares what it
looks at (`k8s.reads`): nothing else is read.
"""

from __future__ import annotations

from dataclasses import dataclass

from kubectl_harvester_stuck.checks.base import (
    REGISTERED,
    Check,
    CheckContext,
    CheckResult,
    Result,
    names,
)
from kubectl_harvester_stuck.checks.themes import (
    availability,
    backups,
    monitoring,
    release_path,
    shutdown,
    upgrade,
)
from kubectl_harvester_stuck.errors import UnreadableError, in_short
from kubectl_harvester_stuck.harvester import harmless
from kubectl_harvester_stuck.k8s.commands import Advice
from kubectl_harvester_stuck.k8s.kinds import VM, VMI
from kubectl_harvester_stuck.k8s.objects import Evidence

MODULES = (availability, backups, monitoring, shutdown, release_path, upgrade)
"""The themes in the order in which they are told; within one, as the checks are defined."""

CHECKS: tuple[Check, ...] = tuple(
    check
    for module in MODULES
    for check in REGISTERED.values()
    if check.look.__module__ == module.__name__
)


@dataclass(frozen=True)
class Checked:
    """One row of the answer: what a check came to, on what evidence, and what to do."""

    check: Check
    result: Result
    summary: str
    evidence: tuple[Evidence, ...] = ()
    todo: tuple[Advice, ...] = ()


def run(view: CheckContext) -> tuple[Checked, ...]:
    """Every check, in order; each answers at least once."""
    return tuple(
        Checked(
            check,
            seen.result,
            seen.summary,
            seen.evidence,
            harmless.checked(seen.todo, view.snapshot),
        )
        for check in CHECKS
        for seen in _answers(check, view)
    )


def _answers(check: Check, view: CheckContext) -> list[CheckResult]:
    readable: list[str] = []
    gaps: dict[str, list[str]] = {}
    near = [read.kind for read in check.reads if read.is_near]
    for namespace in view.namespaces:
        try:
            for kind in near:
                view.snapshot.all(kind, namespace)
            readable.append(namespace)
        except UnreadableError as error:
            gaps.setdefault(str(error) if not namespace else error.why, []).append(namespace)
    found: list[CheckResult] = []
    if readable or not gaps:
        there = view.within(readable)
        try:
            for seen in check.look(there):
                found.append(seen)
            guests = [kind for kind in near if kind in (VM, VMI)]
            if guests and not any(there.all(kind) for kind in guests):
                # Nothing was wrong with nothing: a namespace may have been mistyped.
                found = [CheckResult(Result.OK, f"there is no {guests[0].kind} to look at")]
        except UnreadableError as error:
            found = [seen for seen in found if seen.result is not Result.OK]
            found.append(_blind(error))
    return found + [_not_looked(why, spaces) for why, spaces in gaps.items()]


def _not_looked(why: str, spaces: list[str]) -> CheckResult:
    """The namespaces that could not be looked at, for one reason."""
    if spaces == [""]:
        return CheckResult(Result.UNKNOWN, why)  # it names what could not be read
    return CheckResult(
        Result.UNKNOWN,
        f"could not look into {names(spaces)}: {in_short(why)}",
        tuple(Evidence(f"Namespace {name}", "could not be read", why) for name in spaces),
    )


def _blind(error: UnreadableError) -> CheckResult:
    return CheckResult(
        Result.UNKNOWN, str(error), (Evidence(error.what, "could not be read", error.why),)
    )
