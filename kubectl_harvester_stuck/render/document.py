"""The documents of `-o json` and `-o yaml`: keys are added, never renamed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from kubectl_harvester_stuck.k8s.objects import format_time
from kubectl_harvester_stuck.k8s.redaction import redacted

if TYPE_CHECKING:
    from kubectl_harvester_stuck.cluster.versions import Here, There
    from kubectl_harvester_stuck.diagnosis.model import Diagnosis, Link
    from kubectl_harvester_stuck.errors import ExitStatus
    from kubectl_harvester_stuck.harvester.finalizer_catalogue import Finalizer
    from kubectl_harvester_stuck.harvester.finalizers import FinalizerAssessment
    from kubectl_harvester_stuck.harvester.goes_with_vm import Fate
    from kubectl_harvester_stuck.k8s.objects import Unreadable
    from kubectl_harvester_stuck.listing.finalizer_usage import Carried
    from kubectl_harvester_stuck.listing.model import Listing, StuckObject
    from kubectl_harvester_stuck.listing.watch import WatchEvent
    from kubectl_harvester_stuck.release.model import (
        GuardResult,
        Plan,
        ReleaseReport,
        Step,
        TargetReport,
    )
    from kubectl_harvester_stuck.render.invocation import Invocation
    from kubectl_harvester_stuck.restore.decisions import Restoration

SCHEMAS = {
    name: f"harvester-stuck/{name}/v1"
    for name in (
        "list",
        "watch",
        "diagnosis",
        "unstick",
        "restore",
        "finalizers",
        "journal",
        "check",
        "version",
    )
}

Document = dict[str, Any]


def dump(document: Mapping[str, Any], output: str) -> str:
    """The document as text, ending in a line break.

    Where it holds a character that could move a cursor, all but ASCII is escaped.
    """
    if output != "yaml":
        return _json(document, indent=2)
    import yaml

    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    return text if _is_harmless(text) else str(yaml.safe_dump(document, sort_keys=False))


def line(document: Mapping[str, Any]) -> str:
    """The document as one line of JSON."""
    return _json(document, indent=None)


def _json(document: Mapping[str, Any], *, indent: int | None) -> str:
    text = json.dumps(document, indent=indent, ensure_ascii=False)
    return (text if _is_harmless(text) else json.dumps(document, indent=indent)) + "\n"


def _is_harmless(text: str) -> bool:
    return text.replace("\n", "").isprintable()


def listing(found: Listing, where: Invocation) -> Document:
    """`list`."""
    return {
        "schema": SCHEMAS["list"],
        **origin(where),
        "takenAt": format_time(found.taken_at),
        "items": [_target(row, found.taken_at) for row in found.targets],
        "incomplete": [unread(item) for item in found.missing],
    }


def change(happened: WatchEvent, found: Listing) -> Document:
    """One change of `list --watch`."""
    return {
        "schema": SCHEMAS["watch"],
        "type": happened.happened.value,
        "takenAt": format_time(found.taken_at),
        "object": _target(happened.row, found.taken_at),
    }


def run(done: ReleaseReport, where: Invocation) -> Document:
    """`unstick`."""
    return {
        "schema": SCHEMAS["unstick"],
        "context": where.context,
        "server": where.server,
        "digest": done.digest,
        "items": [_outcome(outcome, where) for outcome in done.outcomes],
        "errors": [
            {"target": failure.ref.reference, "message": str(failure.error)}
            for failure in done.failures
        ],
        "incomplete": [unread(item) for item in done.missing],
    }


def restoration(done: Restoration, where: Invocation) -> Document:
    """`restore`. Cloud-init data stays in the backup; it is not printed."""
    proposal = done.proposal
    return {
        "schema": SCHEMAS["restore"],
        "context": where.context,
        "server": where.server,
        "items": [
            {
                "target": {**proposal.backup.ref.reference, "uid": done.uid},
                "outcome": done.end.value,
                "reason": done.reason,
                "checks": [
                    {**_guard(check), "commands": where.lines(check.cure)}
                    for check in proposal.checks
                ],
                "takenOverFrom": list(proposal.backup.taken_over_from),
                "changes": list(proposal.changes),
                "warnings": list(proposal.warnings),
                "body": redacted(proposal.body),
            }
        ],
    }


def catalogue(entries: Sequence[Finalizer]) -> Document:
    """`finalizers`."""
    return {
        "schema": SCHEMAS["finalizers"],
        "items": [
            {
                "name": entry.name,
                "kinds": [kind.kind for kind in entry.kinds],
                "owner": entry.owner,
                "workload": entry.workload,
                "versions": entry.versions,
                "releasedWhen": entry.released_when,
                "leavesBehind": entry.leaves_behind,
                "source": entry.source,
                "verifiedAgainst": entry.verified,
            }
            for entry in entries
        ],
    }


def carried(items: Sequence[Carried], missing: Sequence[Unreadable], where: Invocation) -> Document:
    """`finalizers -f`."""
    return {
        "schema": SCHEMAS["finalizers"],
        **origin(where),
        "items": [
            {
                "name": item.name,
                "kinds": [item.kind.kind],
                "objects": item.objects,
                "catalogued": item.entry is not None,
                "owner": item.entry.owner if item.entry else None,
                "releasedWhen": item.entry.released_when if item.entry else None,
                "leavesBehind": item.entry.leaves_behind if item.entry else None,
            }
            for item in items
        ],
        "incomplete": [unread(item) for item in missing],
    }


def journal(changes: Sequence[Mapping[str, Any]]) -> Document:
    """`journal`: what it holds; a change without a second line is `interrupted`."""
    unended = {"outcome": "interrupted", "after": None}
    return {
        "schema": SCHEMAS["journal"],
        "items": [{**unended, **change} for change in changes],
    }


def versions(here: Here, there: There | None, where: Invocation | None) -> Document:
    """`version`."""
    return {
        "schema": SCHEMAS["version"],
        **(origin(where) if where else {}),
        "clientVersion": here.program,
        "kubernetesClientVersion": here.client,
        "serverVersion": there.server if there else None,
        "harvesterVersion": there.harvester if there else None,
        "incomplete": [unread(item) for item in there.missing] if there else [],
    }


def failure(
    command: str, message: str, status: ExitStatus, commands: Sequence[str] = ()
) -> Document:
    """What stands on stdout when a command failed before it had an answer.

    `commands` are lines to paste, where there are any.
    """
    error: Document = {"message": message, "exitStatus": int(status)}
    if commands:
        error["commands"] = list(commands)
    return {
        "schema": SCHEMAS.get(command, f"harvester-stuck/{command}/v1"),
        "items": [],
        "error": error,
    }


def diagnoses(
    items: Sequence[Diagnosis], missing: Sequence[Unreadable], where: Invocation, taken_at: datetime
) -> Document:
    """`diagnose`."""
    from kubectl_harvester_stuck.render.diagnosis_text import next_steps

    return {
        "schema": SCHEMAS["diagnosis"],
        **origin(where),
        "takenAt": format_time(taken_at),
        "items": [
            {
                "target": _planned(item.plan),
                "verdict": item.advice.value,
                "reason": item.because,
                "findings": [
                    {
                        "id": one.id,
                        "summary": one.summary,
                        "evidence": [
                            {"object": seen.object, "field": seen.field, "value": seen.value}
                            for seen in one.evidence
                        ],
                    }
                    for one in item.findings
                ],
                "finalizers": [_judgment(one) for one in item.finalizers],
                "guards": [_guard(one) for one in item.plan.guards],
                "plan": [_step(step) for step in item.plan.steps],
                "goes": [_fate(one) for one in item.plan.goes],
                "stays": [_fate(one) for one in item.plan.stays],
                "chain": _link(item.chain),
                "events": list(item.events),
                "leftovers": where.sentences(item.leftovers),
                "notLookedFor": list(item.blind),
                "nextSteps": next_steps(item, where),
            }
            for item in items
        ],
        "incomplete": [unread(item) for item in missing],
    }


def origin(where: Invocation) -> Document:
    """Which cluster, or which files: files have neither a context nor a server."""
    if where.files:
        return {"context": None, "server": None, "files": list(where.files)}
    return {"context": where.context, "server": where.server}


def _link(link: Link) -> Document:
    return {
        "object": link.label,
        "state": link.state,
        "blocking": link.blocking,
        "links": [_link(child) for child in link.links],
    }


def _judgment(item: FinalizerAssessment) -> Document:
    return {
        "name": item.name,
        "object": str(item.ref),
        "owner": item.owner,
        "state": item.state.value,
        "reason": item.reason,
        "leavesBehind": item.leaves_behind,
    }


def _guard(item: GuardResult) -> Document:
    return {"id": item.guard, "result": item.verdict.value, "reason": item.reason}


def _fate(item: Fate) -> Document:
    return {**item.ref.reference, "why": item.why, "destroysData": item.destroys}


def unread(item: Unreadable) -> Document:
    """Something that could not be read."""
    return {
        "resource": item.resource,
        "namespace": item.namespace or None,
        "reason": item.reason,
        "message": item.message,
    }


def _outcome(outcome: TargetReport, where: Invocation) -> Document:
    plan = outcome.plan
    sent = {report.step.ref: report.text for report in outcome.reports}
    return {
        "target": _planned(plan),
        "outcome": outcome.result.value,
        "reason": outcome.reason,
        "steps": [_step(step, sent.get(step.ref)) for step in plan.steps],
        "goes": [_fate(one) for one in plan.goes],
        "stays": [_fate(one) for one in plan.stays],
        "refusals": [
            {"guard": guard.guard, "reason": guard.reason, "commands": where.lines(guard.cure)}
            for guard in outcome.refusals
        ],
        "nextSteps": where.lines(
            step for step in (outcome.first_step, where.last_resort(plan)) if step is not None
        ),
        "guards": [_guard(guard) for guard in plan.guards],
        "finalizers": [_judgment(item) for item in plan.judgments],
        "backup": outcome.backup,
        "leftovers": where.sentences(outcome.leftovers),
        "seen": outcome.seen,
    }


def _step(step: Step, status: str | None = None) -> Document:
    return {
        "action": step.action.value,
        "target": {**step.ref.reference, "uid": step.uid, "resourceVersion": step.resource_version},
        "patch": step.body,
        "status": "not sent" if status is None else status,
    }


def _target(row: StuckObject, now: datetime) -> Document:
    return {
        **row.ref.reference,
        "uid": row.uid,
        "resourceVersion": row.resource_version,
        "state": row.state.value,
        "deletionTimestamp": format_time(row.deletion_timestamp)
        if row.deletion_timestamp
        else None,
        "stuckSeconds": None if (age := row.age(now)) is None else int(age.total_seconds()),
        "finalizers": list(row.finalizers),
        "node": row.node,
        "reason": row.reason or None,
    }


def _planned(plan: Plan) -> Document:
    return {
        **plan.ref.reference,
        "uid": plan.uid,
        "resourceVersion": plan.resource_version,
        "state": plan.state.value if plan.state else None,
        "deletionTimestamp": format_time(plan.since) if plan.since else None,
        "node": plan.node,
    }
