"""Frozen values that the stages hand on, and the reading of one object of the API server.

An object that is not shaped as the API promises raises `UnreadableError` at the field that is
wrong: a decision that needs the field is then blocked, the others are not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from enum import Enum, unique
from typing import Any

from kubectl_harvester_stuck.errors import StuckError, UnreadableError
from kubectl_harvester_stuck.kinds import Kind

_NAME = re.compile("[A-Za-z0-9][-_.A-Za-z0-9]*")
"""Wider than what the API server takes for most kinds: there is an APIService `v1.`."""


def parse_time(text: str) -> datetime:
    """An RFC 3339 time as Kubernetes writes it, in UTC. Raises ValueError."""
    # Python 3.10 does not know the Z.
    parsed = datetime.fromisoformat(text.replace("Z", "+00:00"))
    if parsed.tzinfo is None:
        return parsed.replace(tzinfo=timezone.utc)
    return parsed.astimezone(timezone.utc)


@dataclass(frozen=True)
class Ref:
    """Which object: its kind and its name, in its namespace."""

    namespace: str
    name: str
    kind: Kind

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind.kind} {where}{self.name}"

    @property
    def key(self) -> str:
        """`NAMESPACE/NAME`, as the operator types it."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Owner:
    """One of `metadata.ownerReferences`."""

    kind: str
    name: str
    uid: str

    @classmethod
    def parse(cls, item: Mapping[str, Any]) -> Owner:
        """Read one ownerReference; what it lacks is ""."""
        return cls(*(str(item.get(key) or "") for key in ("kind", "name", "uid")))


@dataclass(frozen=True)
class Object:
    """One object as the API server gave it; only the metadata is read up front."""

    ref: Ref
    body: Mapping[str, Any]
    uid: str
    resource_version: str
    deletion_timestamp: datetime | None
    deletion_grace: timedelta
    finalizers: tuple[str, ...]
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    owners: tuple[Owner, ...]

    @classmethod
    def parse(cls, kind: Kind, body: object) -> Object:
        """Read the metadata of `body`. Raises UnreadableError where it is not an object."""
        if not isinstance(body, Mapping):
            raise UnreadableError(kind.kind, "the server sent something that is not an object")
        name = str(_mapping(body.get("metadata"), kind.kind, "metadata").get("name"))
        what = f"{kind.kind} {name}"
        meta = _mapping(body.get("metadata"), what, "metadata")
        stamp = meta.get("deletionTimestamp")
        try:
            deleted = parse_time(stamp) if isinstance(stamp, str) else None
        except ValueError:
            raise UnreadableError(what, f"deletionTimestamp is {stamp!r}") from None
        grace = meta.get("deletionGracePeriodSeconds") or 0
        if (deleted is None and stamp is not None) or not isinstance(grace, int):
            raise UnreadableError(what, "its deletionTimestamp or grace period is malformed")
        for field in ("name", "uid", "resourceVersion"):
            if not isinstance(meta.get(field), str) or not meta[field]:
                raise UnreadableError(what, f"metadata.{field} is missing")
        namespace = str(meta.get("namespace") or "")
        # Names become file names, and words of commands that somebody pastes into a shell.
        if not all(map(_NAME.fullmatch, (meta["name"], *filter(None, [namespace])))):
            raise UnreadableError(what, "its name or namespace is none that an API server takes")
        return cls(
            ref=Ref(namespace, meta["name"], kind),
            body=body,
            uid=meta["uid"],
            resource_version=meta["resourceVersion"],
            deletion_timestamp=deleted,
            deletion_grace=timedelta(seconds=grace),
            finalizers=tuple(_texts(meta.get("finalizers"), what, "finalizers")),
            labels=_text_map(meta.get("labels"), what, "labels"),
            annotations=_text_map(meta.get("annotations"), what, "annotations"),
            owners=tuple(
                Owner.parse(_mapping(item, what, "ownerReferences"))
                for item in _sequence(meta.get("ownerReferences"), what, "ownerReferences")
            ),
        )

    @classmethod
    def parse_as(cls, ref: Ref, body: object) -> Object:
        """Read `body`, which has to be the object asked for. Raises UnreadableError."""
        found = cls.parse(ref.kind, body)
        if found.ref != ref:
            raise UnreadableError(str(ref), f"the server answered with {found.ref}")
        return found

    @property
    def deletion_requested(self) -> datetime | None:
        """When somebody asked for the deletion: a pod's deletionTimestamp lies a grace later."""
        if self.deletion_timestamp is None:
            return None
        return self.deletion_timestamp - self.deletion_grace

    def is_owned_by(self, owner: Object) -> bool:
        """Whether an ownerReference carries the uid of `owner`."""
        return any(reference.uid == owner.uid for reference in self.owners)

    def mapping(self, *path: str) -> Mapping[str, Any]:
        """The mapping at `path`; missing and null are empty. Raises UnreadableError."""
        return _mapping(self._at(path), str(self.ref), ".".join(path))

    def sequence(self, *path: str) -> Sequence[Any]:
        """The list at `path`; missing and null are empty. Raises UnreadableError."""
        return _sequence(self._at(path), str(self.ref), ".".join(path))

    def mappings(self, *path: str) -> tuple[Mapping[str, Any], ...]:
        """The list of mappings at `path`. Raises UnreadableError."""
        where = ".".join(path)
        return tuple(_mapping(item, str(self.ref), where) for item in self.sequence(*path))

    def text(self, *path: str) -> str:
        """The string at `path`; missing and null are "". Raises UnreadableError."""
        value = self._at(path)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise UnreadableError(str(self.ref), f"{'.'.join(path)} is not a string")
        return value

    def _at(self, path: tuple[str, ...]) -> object:
        value: object = self.body
        for depth, key in enumerate(path):
            value = _mapping(value, str(self.ref), ".".join(path[:depth])).get(key)
        return value


def _mapping(value: object, what: str, where: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise UnreadableError(what, f"{where} is not an object")
    return value


def _sequence(value: object, what: str, where: str) -> Sequence[Any]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise UnreadableError(what, f"{where} is not a list")
    return value


def _texts(value: object, what: str, where: str) -> Sequence[str]:
    items = _sequence(value, what, where)
    if not all(isinstance(item, str) for item in items):
        raise UnreadableError(what, f"{where} is not a list of strings")
    return items


def _text_map(value: object, what: str, where: str) -> Mapping[str, str]:
    return {key: str(item) for key, item in _mapping(value, what, where).items()}


@unique
class State(str, Enum):
    """How a target is stuck; the values stand in JSON."""

    TERMINATING = "Terminating"
    """It has a deletionTimestamp itself."""
    STOPPING = "Stopping"
    """The VM lives; its VMI is being deleted."""
    NOT_READY = "NotReady"
    """Neither is being deleted; the virt-launcher pod is, for longer than its grace period."""


@dataclass(frozen=True)
class Target:
    """One row of `list`: what is stuck, how, and since when."""

    ref: Ref
    uid: str
    resource_version: str
    state: State
    since: datetime
    """deletionTimestamp of the object whose deletion hangs."""
    finalizers: tuple[str, ...]
    node: str | None
    """Where the guest ran; None where it is not known."""


@dataclass(frozen=True)
class Missing:
    """Something that was asked for and could not be read."""

    resource: str
    namespace: str | None
    """None for all; empty for what is in none, such as a node."""
    reason: str
    message: str


@dataclass(frozen=True)
class Listing:
    """The answer of `list`: complete only if nothing is missing."""

    targets: tuple[Target, ...]
    missing: tuple[Missing, ...]
    taken_at: datetime
    is_blind: bool = False
    """Not one of the lists could be read."""


@unique
class FinalizerState(str, Enum):
    """What may be said of a finalizer; the values stand in JSON."""

    DONE = "done"
    OWNERLESS = "ownerless"
    PENDING = "pending"
    UNKNOWN = "unknown"
    NEVER = "never"


@dataclass(frozen=True)
class Judgment:
    """One finalizer of one object, as it will be when its turn in the plan comes."""

    name: str
    ref: Ref
    owner: str
    state: FinalizerState
    reason: str
    leaves_behind: str
    catalogued: bool


@unique
class Verdict(str, Enum):
    """What a guard says; `unknown` blocks like `refuse`."""

    PASS = "pass"  # noqa: S105
    REFUSE = "refuse"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class GuardResult:
    """The answer of one guard, with its evidence in one line."""

    guard: str
    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class Request:
    """What the operator asked for and vouches for."""

    older_than: timedelta = timedelta(minutes=5)
    finalizers: frozenset[str] = frozenset()
    leave_behind: frozenset[str] = frozenset()
    powered_off: frozenset[str] = frozenset()
    overrides: frozenset[str] = frozenset()
    targets: int = 1
    max_targets: int = 20


@unique
class Action(str, Enum):
    """What a step does; the values stand in JSON."""

    DELETE_POD = "delete-pod"
    PATCH = "patch"
    CREATE = "create"
    """`restore` alone: a VM that was released is made again."""


@dataclass(frozen=True)
class Step:
    """One request that would change the cluster, exactly as it would be sent.

    `body` is a JSON merge patch (RFC 7396), or DeleteOptions for a pod.
    """

    action: Action
    ref: Ref
    uid: str
    resource_version: str
    body: Mapping[str, Any]
    removes: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What would be done for one target, or why not: never neither."""

    ref: Ref
    uid: str
    resource_version: str
    state: State | None
    since: datetime | None
    node: str | None
    steps: tuple[Step, ...]
    guards: tuple[GuardResult, ...]
    judgments: tuple[Judgment, ...]
    powered_off: tuple[str, ...] = ()
    """Nodes that this plan takes for powered off by the operator's word alone."""
    silent_nodes: tuple[str, ...] = ()
    """Nodes that hold the guest back and show no life, so that the operator could vouch."""

    def __post_init__(self) -> None:
        if not self.steps and not self.refusals:
            raise ValueError(f"a plan for {self.ref} with neither a step nor a refusal")

    @property
    def refusals(self) -> tuple[GuardResult, ...]:
        """The guards that did not pass."""
        return tuple(result for result in self.guards if result.verdict is not Verdict.PASS)

    @property
    def leaves_behind(self) -> tuple[Judgment, ...]:
        """Finalizers whose work is not done and that would be removed all the same."""
        removed = {(step.ref, name) for step in self.steps for name in step.removes}
        return tuple(
            judgment
            for judgment in self.judgments
            if (judgment.ref, judgment.name) in removed
            and judgment.state in (FinalizerState.PENDING, FinalizerState.UNKNOWN)
        )


@dataclass(frozen=True)
class Evidence:
    """Object, field and value that a finding rests on."""

    object: str
    field: str
    value: str


@unique
class Advice(str, Enum):
    """What a diagnosis comes to; the values stand in JSON."""

    WAIT = "wait"
    REPAIR = "repair"
    RELEASE = "release"
    REFUSE = "refuse"


@dataclass(frozen=True)
class Finding:
    """One observed fact that explains why a target hangs, or what would go wrong.

    `advice` is what it speaks for, None when it only explains. `steps` are what the operator can
    do about it: commands that work when pasted, or a sentence behind `#`.
    """

    id: str
    summary: str
    evidence: tuple[Evidence, ...]
    advice: Advice | None = None
    steps: tuple[str, ...] = ()


@dataclass(frozen=True)
class Link:
    """One object of the chain behind a target, with the objects that it leads to."""

    label: str
    state: str
    blocking: bool = False
    links: tuple[Link, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """Why one target hangs, with evidence, and what to do next."""

    plan: Plan
    advice: Advice
    because: str
    findings: tuple[Finding, ...]
    finalizers: tuple[Judgment, ...]
    """Every finalizer as it stands now, while `plan` judges them as they will be in their turn."""
    chain: Link
    events: tuple[str, ...]
    leftovers: tuple[str, ...]
    """What would be there of the VM after its release."""
    blind: tuple[str, ...]
    """Findings that could not be looked for, each with what could not be read."""

    @property
    def steps(self) -> tuple[str, ...]:
        """What to do, in order, each thing once."""
        return tuple(dict.fromkeys(step for finding in self.findings for step in finding.steps))


@dataclass(frozen=True)
class Failure:
    """A target for which there could be no plan."""

    ref: Ref
    error: StuckError


@unique
class Result(str, Enum):
    """What became of a target; the values stand in JSON."""

    GONE = "gone"
    FREED = "freed"
    STILL_THERE = "still-there"
    UNKNOWN = "unknown"
    REFUSED = "refused"
    DENIED = "denied"
    CONFLICT = "conflict"
    PLANNED = "planned"


@dataclass(frozen=True)
class StepReport:
    """What was sent, and what came back: `done`, `dry-run`, `already-gone`, or what went wrong."""

    step: Step
    status: str
    changed: bool
    """True as soon as the request may have changed something."""


@dataclass(frozen=True)
class Outcome:
    """What became of one target, with everything that was sent for it."""

    plan: Plan
    result: Result
    reports: tuple[StepReport, ...] = ()
    refusals: tuple[GuardResult, ...] = ()
    reason: str = ""
    backup: str | None = None
    leftovers: tuple[str, ...] = ()
    private: bool = False
    """Whether the backup holds secrets of the guest."""

    @property
    def changed(self) -> bool:
        """Whether anything may have been changed for this target."""
        return any(report.changed for report in self.reports)
