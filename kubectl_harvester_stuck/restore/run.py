"""The one order in which a VM is made again: read, ask, confirm, look again, create, look at it.

Nothing here starts a VM. After the create was sent no exception leaves this module.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

from kubectl_harvester_stuck.cluster import reader
from kubectl_harvester_stuck.cluster.client import FIELD_MANAGER, Cluster
from kubectl_harvester_stuck.errors import ApiError, JournalError, StuckError
from kubectl_harvester_stuck.harvester.target import mac_addresses
from kubectl_harvester_stuck.k8s.kinds import VM
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot
from kubectl_harvester_stuck.release import plan as planning
from kubectl_harvester_stuck.release.change import Change, event
from kubectl_harvester_stuck.release.context import Journal, current_user
from kubectl_harvester_stuck.release.interrupts import Interrupts
from kubectl_harvester_stuck.release.model import (
    PERMITTED,
    WEBHOOKS_ACCEPT,
    Action,
    GuardResult,
    GuardState,
    Plan,
    Step,
    StepStatus,
    is_denial,
)
from kubectl_harvester_stuck.release.send import with_hint
from kubectl_harvester_stuck.restore import addresses
from kubectl_harvester_stuck.restore import decisions as restore
from kubectl_harvester_stuck.restore.decisions import (
    HALTED,
    Backup,
    Proposal,
    Restoration,
    RestoreOutcome,
)


class Confirmer(Protocol):
    """The person, or the flags that speak for them."""

    def println(self, text: str) -> None:
        """Say what has just been done."""

    def agree(self, proposal: Proposal) -> None:
        """Show what would be made; return on a yes, raise RefusedError on everything else."""

    def progress(self, text: str) -> None:
        """Say what is being waited for."""


@dataclass(frozen=True)
class RestoreContext:
    """What a restoration works with."""

    cluster: Cluster
    server: str
    operator: Confirmer
    journal: Journal
    interrupts: Interrupts
    file: str
    """Where the backup is."""
    host: str = ""


def preview(context: RestoreContext, backup: Backup, *, ask_webhooks: bool) -> Restoration:
    """`--dry-run`: what would be made; with `ask_webhooks` admission is asked as well.

    Raises StuckError when the cluster cannot be read.
    """
    proposal = _propose(context, backup, dry_run=ask_webhooks)
    return (
        _refused(proposal) if proposal.refusals else Restoration(proposal, RestoreOutcome.PLANNED)
    )


def create(context: RestoreContext, backup: Backup) -> Restoration:
    """Make the VM again, powered off, if every check passes and the operator agrees.

    Signals are held from the operator's yes on. Raises RefusedError when nobody agreed, and
    StuckError when the cluster could not be read, both before anything was sent; never after that.
    """
    proposal = _propose(context, backup, dry_run=True)
    if proposal.refusals:
        return _refused(proposal)
    context.operator.agree(proposal)
    context.interrupts.hold()
    again = _propose(context, backup, dry_run=True)
    if again.refusals:
        return _refused(again)
    if context.interrupts.pressed:
        return Restoration(again, RestoreOutcome.REFUSED, "interrupted; nothing was created")
    return _send(context, again)


def _refused(proposal: Proposal) -> Restoration:
    by_webhook = is_denial(proposal.refusals)
    return Restoration(proposal, RestoreOutcome.DENIED if by_webhook else RestoreOutcome.REFUSED)


def _propose(context: RestoreContext, backup: Backup, *, dry_run: bool) -> Proposal:
    """The checks of the cluster, and only if they pass the API server's word on the VM."""
    snapshot = reader.before_restore(context.cluster, backup.ref, backup.needs)
    shared = _shared_addresses(context.cluster, backup, snapshot)
    proposal = Proposal(
        backup,
        restore.manifest_for(backup),
        restore.checks(backup, snapshot),
        restore.changes(backup),
        restore.warnings(backup, context.server, _secrets(context.cluster, backup), shared),
        snapshot,
        shares_addresses=bool(shared.users),
    )
    if not proposal.refusals:
        wrong = _right(context.cluster, proposal)
        proposal = _with_check(proposal, PERMITTED, wrong, "this user may create it")
    if dry_run and not proposal.refusals:
        wrong = _admission(context.cluster, proposal)
        proposal = _with_check(proposal, WEBHOOKS_ACCEPT, wrong, "admission accepts it")
    return proposal


def _shared_addresses(
    cluster: Cluster, backup: Backup, near: ClusterSnapshot
) -> addresses.SharedAddresses:
    """Who else has its MAC addresses. All namespaces are read only where it has some."""
    ours = mac_addresses(backup.vm)
    if not ours:
        return addresses.SharedAddresses()
    # Users of one namespace may still read that one.
    everywhere = reader.naming(cluster, ours)
    return addresses.shared(backup.vm, [(near, backup.ref.namespace), (everywhere, "")])


def _with_check(proposal: Proposal, name: str, wrong: str | None, passed: str) -> Proposal:
    state = GuardState.REFUSE if wrong else GuardState.PASS
    return replace(proposal, checks=(*proposal.checks, GuardResult(name, state, wrong or passed)))


def _right(cluster: Cluster, proposal: Proposal) -> str | None:
    # Who may create cannot be limited to a name.
    place = ObjectRef(proposal.backup.ref.namespace, "", VM)
    try:
        return cluster.access_denial("create", place)
    except ApiError as error:
        return f"the API server would not say whether this user may create {VM.resource}: {error}"


def _admission(cluster: Cluster, proposal: Proposal) -> str | None:
    ref = proposal.backup.ref
    try:
        answer = cluster.create(VM, ref.namespace, proposal.body, dry_run=True)
    except ApiError as error:
        return with_hint(cluster, error)
    strategy = _strategy(answer)
    if strategy != HALTED:
        return f"admission would make it with runStrategy {strategy}, so that it could start"
    return None


def _secrets(cluster: Cluster, backup: Backup) -> Mapping[str, bool | str]:
    found: dict[str, bool | str] = {}
    for ref in restore.secret_refs(backup):
        try:
            found[ref.name] = cluster.get(ref, metadata_only=True) is not None
        except StuckError as error:
            found[ref.name] = str(error)
    return found


def _change(context: RestoreContext, proposal: Proposal) -> Change:
    """The create as the journal tells it."""
    ref = proposal.backup.ref
    step = Step(Action.CREATE, ref, "", "", proposal.body)
    plan = Plan(ref, "", "", None, None, None, (step,), proposal.checks, ())
    digest = planning.digest(context.server, [plan])
    who, now = current_user(context.cluster), context.cluster.now
    return Change(uuid.uuid4().hex, uuid.uuid4().hex, now, who, digest, plan, step, context.file)


def _send(context: RestoreContext, proposal: Proposal) -> Restoration:
    """Create it, told before and after. Whatever happens once it was sent is a Restoration.

    Raises JournalError when it cannot be told; nothing was sent then.
    """
    change = _change(context, proposal)
    try:
        context.journal.begin(change)
    except StuckError as error:
        raise JournalError(f"{proposal.backup.ref}: {error}; nothing was created") from error
    done, answer = _create(context, proposal)
    status = _STATUS[done.end].value
    outcome = f"{status}: {done.reason}" if done.end is not RestoreOutcome.CREATED else status
    try:
        context.journal.end(change, outcome, answer)
    except Exception as error:  # noqa: BLE001 - it may not hide what was sent
        context.operator.println(f"warning: {proposal.backup.ref}: {outcome}, but {error}")
    if done.end is RestoreOutcome.CREATED and done.uid:
        made = replace(change.step, uid=done.uid)
        # Best effort: a user may have no right to it, and the journal has told it already.
        with suppress(Exception):
            context.cluster.create_event(event(replace(change, step=made), context.host))
    return done


_STATUS = {
    RestoreOutcome.CREATED: StepStatus.DONE,
    RestoreOutcome.REFUSED: StepStatus.CONFLICT,
    RestoreOutcome.DENIED: StepStatus.DENIED,
    RestoreOutcome.UNKNOWN: StepStatus.UNKNOWN,
}
"""How the journal calls the end of a create that was sent."""


def _create(
    context: RestoreContext, proposal: Proposal
) -> tuple[Restoration, Mapping[str, Any] | None]:
    """Create it and look at it; with the server's answer, where there was one."""
    ref = proposal.backup.ref
    failed: Exception | None = None
    uid: str | None = None
    answer: Mapping[str, Any] | None = None
    try:
        answer = context.cluster.create(VM, ref.namespace, proposal.body)
        uid = KubeObject.parse_as(ref, answer).uid
    except Exception as error:  # noqa: BLE001 - it may have been created, whatever went wrong
        failed = error
    try:
        body = context.cluster.get(ref)
        found = None if body is None else KubeObject.parse_as(ref, body)
        if failed is None:
            return _look(found, proposal, uid), answer
        return _look_without_answer(context.cluster, found, proposal, failed), answer
    except Exception as error:  # noqa: BLE001 - not even a bug may hide what was sent
        reason = str(error) if failed is None else f"{failed}; it could not be looked at: {error}"
        return Restoration(proposal, RestoreOutcome.UNKNOWN, reason, uid), answer


def _look(found: KubeObject | None, proposal: Proposal, uid: str | None) -> Restoration:
    """What became of a VM that the API server said to be created."""
    if found is None:
        reason = "it was created, and is not there any more"
        return Restoration(proposal, RestoreOutcome.UNKNOWN, reason, uid)
    strategy = _strategy(found.body)
    if found.uid != uid:
        reason = f"it was created with uid {uid}, and now another one stands there"
    elif strategy != HALTED:
        reason = f"its runStrategy is {strategy}: it may start"
    else:
        return _created(proposal, found)
    return Restoration(proposal, RestoreOutcome.UNKNOWN, reason, found.uid)


def _created(proposal: Proposal, found: KubeObject) -> Restoration:
    afterwards = restore.run_again(proposal, found)
    return Restoration(proposal, RestoreOutcome.CREATED, "", found.uid, afterwards)


def _look_without_answer(
    cluster: Cluster, found: KubeObject | None, proposal: Proposal, error: Exception
) -> Restoration:
    """What became of a create that the API server did not say to be done.

    A proxy may have repeated it, so that the answer speaks of the second request; a gateway may
    have answered by itself. That nothing was created is said where the error is final and no VM
    of ours is there; only the same VM, powered off, is success.
    """
    is_final = isinstance(error, ApiError) and error.is_final
    if found is None or (is_final and not _may_be_ours(found, proposal)):
        if not (isinstance(error, ApiError) and is_final):
            return Restoration(proposal, RestoreOutcome.UNKNOWN, str(error))
        if error.code == 409 and error.is_kubernetes:
            reason = f"{error}; it was made a moment ago" if found else str(error)
            return Restoration(proposal, RestoreOutcome.REFUSED, reason)
        return Restoration(proposal, RestoreOutcome.DENIED, with_hint(cluster, error))
    strategy = _strategy(found.body)
    if strategy != HALTED:
        reason = f"{error}; a VM of this name is there, and its runStrategy is {strategy}"
    elif found.body.get("spec") != proposal.body["spec"]:
        reason = f"{error}; a VM of this name is there, but it is not seen to be this one"
    else:
        return _created(proposal, found)
    return Restoration(proposal, RestoreOutcome.UNKNOWN, reason, found.uid)


def _may_be_ours(found: KubeObject, proposal: Proposal) -> bool:
    """Whether this program made the VM, by the API server's own notes, else by its spec."""
    managers = {str(entry.get("manager")) for entry in found.mappings("metadata", "managedFields")}
    if managers:
        return FIELD_MANAGER in managers
    return bool(found.body.get("spec") == proposal.body["spec"])


def _strategy(body: Mapping[str, Any]) -> str:
    spec = body.get("spec")
    spec = spec if isinstance(spec, Mapping) else {}
    if spec.get("running") is True:
        return "Always"
    return str(spec.get("runStrategy"))
