"""Which result ends in which exit status; nothing else decides it.

| | name | when |
|---|---|---|
| 0 | OK | done as asked, and verified |
| 1 | ERROR | failed: cluster unreachable, object not found, invalid kubeconfig, bug |
| 2 | USAGE | wrong flags or arguments |
| 3 | STUCK | with `--exit-code`: something is stuck, or a check failed |
| 4 | REFUSED | a guard or a webhook refused, the plan changed, or nobody confirmed; nothing was changed |
| 5 | UNVERIFIED | something was changed, but not everything is gone, or the result could not be read |
| 6 | INCOMPLETE | something could not be read; it is named, and the rest is shown |

With several targets, 5 takes precedence over 1, 4, 6, 3 and 0.

On Windows, kubectl turns every status of a plugin but 0 into 1.
"""  # noqa: E501 - a row of the table is a line

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from kubectl_harvester_stuck.errors import ExitStatus, RefusedError, StatementError, StuckError

if TYPE_CHECKING:
    from kubectl_harvester_stuck.checks.checkup import Checkup
    from kubectl_harvester_stuck.diagnosis.run import DiagnosisReport
    from kubectl_harvester_stuck.k8s.objects import Unreadable
    from kubectl_harvester_stuck.listing.model import Listing
    from kubectl_harvester_stuck.release.model import ReleaseReport, TargetReport
    from kubectl_harvester_stuck.restore.decisions import Restoration

INTERRUPTED = 130
"""Ctrl-C before anything was changed, as a shell counts it; no status of ours."""

# With several targets the status that the operator most needs to know wins.
_GRAVEST_FIRST = (
    ExitStatus.USAGE,
    ExitStatus.UNVERIFIED,
    ExitStatus.ERROR,
    ExitStatus.REFUSED,
    ExitStatus.INCOMPLETE,
    ExitStatus.STUCK,
    ExitStatus.OK,
)


def gravest(*statuses: ExitStatus) -> ExitStatus:
    """The status of a run whose parts ended in `statuses`.

    Raises ValueError without any: success is earned, never left over.
    """
    if not statuses:
        raise ValueError("no part of the run has a status")
    return min(statuses, key=_GRAVEST_FIRST.index)


def of_error(error: StuckError | click.ClickException) -> ExitStatus:
    """An expected failure."""
    if isinstance(error, RefusedError):
        return ExitStatus.REFUSED
    if isinstance(error, StatementError | click.UsageError):
        return ExitStatus.USAGE
    return ExitStatus.ERROR


def of_missing(missing: Sequence[Unreadable]) -> ExitStatus:
    """An answer in which only this is missing."""
    return ExitStatus.INCOMPLETE if missing else ExitStatus.OK


def of_search(missing: Sequence[Unreadable], *, is_blind: bool) -> ExitStatus:
    """A search for what is stuck: an error where not one of its lists could be read."""
    return ExitStatus.ERROR if missing and is_blind else of_missing(missing)


def of_listing(found: Listing, *, exit_code: bool) -> ExitStatus:
    """`list`."""
    return gravest(
        _of_stuck(bool(found.targets), exit_code=exit_code),
        of_search(found.missing, is_blind=found.is_blind),
    )


def of_diagnoses(
    done: DiagnosisReport, missing: Sequence[Unreadable], *, exit_code: bool
) -> ExitStatus:
    """`diagnose`; `missing` is all that could not be read."""
    is_stuck = any(item.plan.state for item in done.diagnoses)
    return gravest(
        _of_stuck(is_stuck, exit_code=exit_code),
        *(of_error(failure.error) for failure in done.failures),
        of_missing(missing),
    )


def of_checkup(done: Checkup, *, exit_code: bool) -> ExitStatus:
    """`check`: OK only if everything could be looked at, an error if nothing could, as `list`."""
    from kubectl_harvester_stuck.checks.base import Result

    results = {item.result for item in done.results}
    if results == {Result.UNKNOWN}:
        return ExitStatus.ERROR
    is_whole = not done.missing and Result.UNKNOWN not in results
    return gravest(
        _of_stuck(Result.FAIL in results, exit_code=exit_code),
        ExitStatus.OK if is_whole else ExitStatus.INCOMPLETE,
    )


def _of_stuck(is_stuck: bool, *, exit_code: bool) -> ExitStatus:
    return ExitStatus.STUCK if is_stuck and exit_code else ExitStatus.OK


def of_release(done: ReleaseReport) -> ExitStatus:
    """`unstick`, dry or not. Raises ValueError where nothing is said of any target."""
    parts = [
        *map(_of_target, done.outcomes),
        *(of_error(failure.error) for failure in done.failures),
    ]
    if done.missing or done.found_nothing:
        parts.append(of_search(done.missing, is_blind=done.is_blind))
    return gravest(*parts)


def of_nothing_to_release(done: ReleaseReport, *, is_waiting: bool) -> ExitStatus:
    """A search of `unstick` without a target; refused where some wait for their deletion."""
    return gravest(of_release(done), *[ExitStatus.REFUSED] * is_waiting)


def _of_target(report: TargetReport) -> ExitStatus:
    """What became of one target: success only with a positive reason."""
    from kubectl_harvester_stuck.release.model import Outcome

    if report.result in (Outcome.GONE, Outcome.FREED, Outcome.PLANNED):
        return ExitStatus.OK
    if report.changed or report.result in (Outcome.STILL_THERE, Outcome.UNKNOWN):
        return ExitStatus.UNVERIFIED
    return ExitStatus.REFUSED


def of_journal(broken: int) -> ExitStatus:
    """`journal`, of which `broken` lines could not be read."""
    return ExitStatus.INCOMPLETE if broken else ExitStatus.OK


def of_restoration(done: Restoration) -> ExitStatus:
    """`restore`, dry or not: success only with a positive reason."""
    from kubectl_harvester_stuck.restore.decisions import RestoreOutcome

    if done.end in (RestoreOutcome.CREATED, RestoreOutcome.PLANNED):
        return ExitStatus.OK
    return ExitStatus.UNVERIFIED if done.end is RestoreOutcome.UNKNOWN else ExitStatus.REFUSED
