"""What forbids touching a target: one function per guard, all of them run on every plan.

To add one: a function under `@guard` that returns None when it passes and otherwise the reason,
in one line that names its evidence. A read that fails inside raises `UnreadableError` and becomes
`unknown`, which blocks like a refusal. The function's name with hyphens is the guard's public
name, its docstring what `unstick --help` says of it. `reads` names every kind that it looks at:
what is not named there is not read for a plan.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property

from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.harvester import goes_with_vm, grace_period, harmless, places
from kubectl_harvester_stuck.harvester.goes_with_vm import GoesAndStays
from kubectl_harvester_stuck.harvester.node_health import SignalState, read_node
from kubectl_harvester_stuck.harvester.target import STATE, THE_VMI, Target
from kubectl_harvester_stuck.k8s import commands
from kubectl_harvester_stuck.k8s.commands import Advice, Command, Effect
from kubectl_harvester_stuck.k8s.durations import human
from kubectl_harvester_stuck.k8s.kinds import (
    HARVESTER_NAMESPACE,
    MIGRATION,
    OPERATOR_ROLE,
    VM,
    Kind,
)
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef
from kubectl_harvester_stuck.k8s.reads import Read, declared
from kubectl_harvester_stuck.release.model import GuardResult, GuardState, ReleaseRequest, Step

SYSTEM_NAMESPACES = frozenset(
    {HARVESTER_NAMESPACE, "longhorn-system", "kube-system", "kube-public", "kube-node-lease",
     "local", "rancher-operator-system"}
)  # fmt: skip
SYSTEM_PREFIXES = ("cattle-", "fleet-")


@dataclass(frozen=True)
class PreflightResults:
    """What the API server said of each step: None stands for "yes", text for why not.

    `admissions` is None where no dry run was sent. `stale` are the objects that somebody wrote to
    between the look at them and their dry run, so that it says nothing of admission. A dry run was
    sent of so many steps `ahead`, None stands for all of them.
    """

    permissions: Mapping[ObjectRef, str | None]
    admissions: Mapping[ObjectRef, str | None] | None = None
    stale: frozenset[ObjectRef] = frozenset()
    ahead: int | None = None


@dataclass(frozen=True)
class GuardContext:
    """The plan as far as it stands when the guards look at it.

    `shown` are the steps that the operator agreed to, None before that.
    """

    target: Target
    request: ReleaseRequest
    steps: tuple[Step, ...]
    kept: tuple[str, ...]
    shown: tuple[Step, ...] | None

    def object_of(self, step: Step) -> KubeObject:
        """The object that a step would change."""
        found = self.target.snapshot.one(step.ref)
        if found is None:
            raise UnreadableError(str(step.ref), "it is gone")
        return found

    @cached_property
    def goes_and_stays(self) -> GoesAndStays:
        """What goes with the target, and what stays of it."""
        return goes_with_vm.follow(self.target)


class Firm(str):
    """A reason that no `--override` passes."""


class Curable(str):
    """A reason, and what to do so that it no longer holds."""

    cure: tuple[Advice, ...]

    def __new__(cls, reason: str, cure: tuple[Advice, ...]) -> Curable:
        """Raises nothing; `reason` is the text."""
        made = super().__new__(cls, reason)
        made.cure = cure
        return made


Check = Callable[[GuardContext], str | None]
PreflightCheck = Callable[[tuple[Step, ...], PreflightResults], str | None]


@dataclass(frozen=True)
class Guard:
    """A registered guard.

    `needs_preflight` says that `check` is a PreflightCheck: it looks at the steps, and at what the
    API server said of them.
    """

    name: str
    check: Callable[..., str | None]
    overridable: bool = False
    reads: tuple[Read, ...] = ()
    needs_preflight: bool = False

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return str(self.check.__doc__).splitlines()[0]


GUARDS: list[Guard] = []


def guard(
    *, overridable: bool = False, reads: Iterable[Kind | Read] = ()
) -> Callable[[Check], Check]:
    """Register a check under its name, with what it looks at."""

    def register(check: Check) -> Check:
        GUARDS.append(Guard(_name_of(check), check, overridable, declared(*reads)))
        return check

    return register


def reads() -> tuple[Read, ...]:
    """Everything that a guard looks at."""
    return declared(*(read for entry in GUARDS for read in entry.reads))


def preflight_guard(check: PreflightCheck) -> PreflightCheck:
    """Register a check that the API server decides; nothing overrides that."""
    GUARDS.append(Guard(_name_of(check), check, needs_preflight=True))
    return check


def _name_of(check: Callable[..., str | None]) -> str:
    return check.__name__.replace("_", "-")


def run(draft: GuardContext) -> tuple[GuardResult, ...]:
    """The answer of every guard that decides from what was read, in their order."""
    return tuple(
        _with_safe_cure(_run_one(entry, draft.request.overrides, draft), draft.target)
        for entry in GUARDS
        if not entry.needs_preflight
    )


def _with_safe_cure(result: GuardResult, target: Target) -> GuardResult:
    return replace(result, cure=harmless.checked(result.cure, target.snapshot))


def run_preflight(steps: tuple[Step, ...], results: PreflightResults) -> tuple[GuardResult, ...]:
    """The answer of every guard that the API server was asked for, in their order."""
    unasked = () if results.admissions is not None else (webhooks_accept,)
    return tuple(
        _run_one(entry, frozenset(), steps, results)
        for entry in GUARDS
        if entry.needs_preflight and entry.check not in unasked
    )


def in_order(results: Iterable[GuardResult]) -> tuple[GuardResult, ...]:
    """The answers in the order of GUARDS."""
    names = [entry.name for entry in GUARDS]
    return tuple(sorted(results, key=lambda result: names.index(result.guard)))


def _run_one(entry: Guard, overrides: Collection[str], *subject: object) -> GuardResult:
    verdict = GuardState.REFUSE
    try:
        reason = entry.check(*subject)
    except UnreadableError as error:
        verdict, reason = GuardState.UNKNOWN, str(error)
    if reason is None:
        return GuardResult(entry.name, GuardState.PASS, entry.summary)
    by_name = entry.overridable and entry.name in overrides
    if by_name and not isinstance(reason, Firm):
        return GuardResult(entry.name, GuardState.PASS, f"overridden: {reason}", overridden=True)
    cure = reason.cure if isinstance(reason, Curable) else ()
    return GuardResult(entry.name, verdict, reason, cure)


@guard(reads=STATE)
def terminating(draft: GuardContext) -> str | None:
    """Everything that would be changed is being deleted."""
    if draft.target.state is not None and draft.target.stuck_object is None:
        return f"nothing of {draft.target.ref} is being deleted: {draft.target.why_not_deleted}"
    if draft.target.state is None:
        pods = [pod for pod in draft.target.pods if pod.deletion_timestamp is not None]
        if pods:
            return (
                f"{draft.target.ref} is not stuck: pod {pods[0].ref.name} is being deleted, but is"
                " within its grace period or was left by a migration"
            )
        return f"{draft.target.ref} is not being deleted (it has no deletionTimestamp)"
    for step in draft.steps:
        if draft.object_of(step).deletion_timestamp is None:
            vm = draft.target.vm
            if vm is not None and "orphan" in vm.finalizers:
                return f"{step.ref} is to be kept: {vm.ref} was deleted with --cascade=orphan"
            top = _topmost_alive(draft, step.ref)
            first = "it" if top == step.ref else f"{top} first"
            reason = f"{step.ref} is not being deleted; if it should go, delete {first}"
            return Curable(reason, (commands.delete(top, "--wait=false"),))
    return None


def _topmost_alive(draft: GuardContext, ref: ObjectRef) -> ObjectRef:
    """The object whose deletion takes `ref` along, the VMI or a pod: a VMI takes its pods."""
    vmi = draft.target.vmi
    return ref if vmi is None or vmi.deletion_timestamp is not None else vmi.ref


@guard()
def unchanged(draft: GuardContext) -> str | None:
    """Nothing changed since the plan was shown."""
    if draft.shown is None:
        return None
    shown = {step.ref: step for step in draft.shown}
    for step in draft.steps:
        before = shown.pop(step.ref, None)
        if before is None:
            return f"{step.ref} was not in the plan that was shown"
        if before != step:
            return _difference(before, step)
    for ref in shown:
        return f"{ref} went, or need not be changed any more, since the plan was shown"
    return None


def _difference(before: Step, now: Step) -> str:
    """In what a step differs from the one that was shown for the same object."""
    if before.uid != now.uid:
        return f"{now.ref} is another object now (uid {before.uid} before, {now.uid} now)"
    if before.resource_version != now.resource_version:
        return (
            f"{now.ref} changed since it was shown (resourceVersion"
            f" {before.resource_version} before, {now.resource_version} now)"
        )
    return f"what would be done to {now.ref} is not what was shown"


@guard(overridable=True, reads=(*STATE, *places.PLACES))
def past_grace(draft: GuardContext) -> str | None:
    """It was deleted long enough ago, and a guest that may still run is past its grace period."""
    reason = too_young(draft)
    if reason is not None:
        return Firm(reason)  # the age has a flag of its own
    left = grace_period.left(draft.target)
    if left is None:
        return None
    waited, grace = left
    for place in places.places(draft.target):
        # A place that cannot be read is guest-stopped's to refuse.
        with suppress(UnreadableError):
            found = places.assess(place, draft.target, draft.request.powered_off)
            if found.proof is not None:
                continue
        if read_node(draft.target, place.node).kubelet_answers:
            return (
                f"the guest on {place.node} may still be shutting down: {human(waited)} of its"
                f" grace period of {human(grace)} have passed"
            )
    return None


def too_young(draft: GuardContext) -> str | None:
    """Why the deletion is too recent, or None."""
    now, least = draft.target.snapshot.taken_at, draft.request.older_than
    hanging = draft.target.stuck_object  # counts even where there is nothing to remove from it yet
    for subject in (*map(draft.object_of, draft.steps), *((hanging,) if hanging else ())):
        asked = subject.deletion_requested
        if asked is not None and now - asked < least:
            return (
                f"{subject.ref} was deleted {human(now - asked)} ago, and its controllers get"
                f" {human(least)}; wait, or say --older-than"
            )
    return None


@guard(reads=places.PLACES)
def guest_stopped(draft: GuardContext) -> str | None:
    """For every place where the guest may run there is proof that it does not."""
    target, powered_off = draft.target, draft.request.powered_off
    reasons: list[str] = []
    blind: UnreadableError | None = None
    for place in places.places(target):
        try:
            found = places.assess(place, target, powered_off)
        except UnreadableError as error:
            blind = blind or error
            continue
        if found.proof is None:
            reasons.append(found.reason)
    reasons += filter(None, [places.may_run_elsewhere(target)])
    reasons += _contradicted(target, powered_off)
    if blind is not None and not reasons:
        raise blind
    return "; ".join(dict.fromkeys(reasons)) or None


def _contradicted(target: Target, powered_off: Collection[str]) -> Iterator[str]:
    """What speaks against the operator's word on the nodes of hotplugged volumes."""
    held = {pod.text("spec", "nodeName") for pod in target.attachment_pods}
    for name in sorted(held & set(powered_off)):
        why = places.contradiction(read_node(target, name))
        if why is not None:
            yield why


def could_be_powered_off(target: Target, request: ReleaseRequest) -> tuple[str, ...]:
    """Nodes that hold the guest back and show no life: what the operator could vouch for."""
    names = []
    for place in places.places(target):
        if not place.node or place.node in request.powered_off:
            continue
        if places.assess(place, target, request.powered_off).proof is not None:
            continue
        signals = read_node(target, place.node).signals
        if all(sign.says is SignalState.SILENT for sign in signals):
            names.append(place.node)
    return tuple(dict.fromkeys(names))


@guard(overridable=True, reads=goes_with_vm.GOING)
def disks_kept(draft: GuardContext) -> str | None:
    """No disk or snapshot that nobody selected for deletion is destroyed with it."""
    found = draft.goes_and_stays
    if found.lost:
        reason = "; ".join(f"{fate.ref} would be destroyed: {fate.why}" for fate in found.lost)
        return Curable(reason, how_to_keep(found))
    if found.blind is not None:
        raise found.blind
    return None


def how_to_keep(found: GoesAndStays) -> tuple[Command, ...]:
    """The commands that keep what would be lost, each noted with what it keeps."""
    kept: dict[Command, list[str]] = {}
    for fate in found.lost:
        if fate.keep is not None:
            kept.setdefault(fate.keep, []).append(str(fate.ref))
    return tuple(
        command.noted(_TO_KEEP[command.effect].format(" and ".join(refs)))
        for command, refs in kept.items()
    )


_TO_KEEP = {
    Effect.KEEP: "to keep {}",
    Effect.READ: "to keep {}, its PersistentVolume has to be Retain; this names it",
}


@guard(overridable=True, reads=(THE_VMI, MIGRATION))
def no_migration(draft: GuardContext) -> str | None:
    """No migration of this guest is in flight."""
    for item in draft.target.migrations:
        phase = item.text("status", "phase") or "not started"
        return f"{item.ref} is not finished ({phase})"
    return None


@guard(reads=(THE_VMI,))
def instance_gone(draft: GuardContext) -> str | None:
    """The VMI is absent, or is removed earlier in the same plan."""
    vmi = draft.target.vmi
    if vmi is None or not any(step.ref.kind is VM for step in draft.steps):
        return None
    earlier = [step for step in draft.steps if step.ref == vmi.ref and not step.keeps]
    return None if earlier else f"{vmi.ref} would still be there"


@guard()
def finalizers(draft: GuardContext) -> str | None:
    """Every finalizer that has to be removed may be removed."""
    if draft.kept:
        return "; ".join(draft.kept)
    return None if draft.steps else "there is nothing to remove"


@preflight_guard
def permitted(steps: tuple[Step, ...], results: PreflightResults) -> str | None:
    """The API server says that this user may make the changes."""
    missing = "; ".join(_noes(steps, results.permissions))
    hint = f"the ClusterRole {OPERATOR_ROLE} of deploy/rbac.yaml holds all permissions"
    return f"{missing}; {hint}" if missing else None


@preflight_guard
def webhooks_accept(steps: tuple[Step, ...], results: PreflightResults) -> str | None:
    """The server-side dry run of every step is accepted, and once more that of the next one."""
    steps = steps[: results.ahead]
    denial = next(iter(_noes(steps, results.admissions)), None)
    for step in steps:
        if denial is None and step.ref in results.stale:
            raise UnreadableError(str(step.ref), "it was changed while it was looked at; ask again")
    return denial


def _noes(
    steps: tuple[Step, ...], answers: Mapping[ObjectRef, str | None] | None
) -> tuple[str, ...]:
    """Why not, each reason once. Raises UnreadableError where nobody was asked and none said no."""
    asked = answers or {}
    found = tuple(dict.fromkeys(no for step in steps if (no := asked.get(step.ref)) is not None))
    if not found:
        for step in steps:
            if step.ref not in asked:
                raise UnreadableError(str(step.ref), "the API server was not asked")
    return found


@guard(overridable=True)
def not_system(draft: GuardContext) -> str | None:
    """It is not in a namespace that Harvester itself uses."""
    namespace = draft.target.ref.namespace
    if namespace in SYSTEM_NAMESPACES or namespace.startswith(SYSTEM_PREFIXES):
        return f"namespace {namespace} belongs to Harvester itself"
    return None


@guard()
def within_max(draft: GuardContext) -> str | None:
    """No more targets than --max."""
    return why_too_many(draft.request)


def why_too_many(request: ReleaseRequest) -> str | None:
    """None for no more targets than --max. It needs no look at any of them."""
    asked, most = request.targets, request.max_targets
    if asked <= most:
        return None
    return f"{asked} targets, and --max is {most}; name fewer of them, or say --max {asked}"
