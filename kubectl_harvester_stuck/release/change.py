"""One change of the cluster, as the journal and the Event on its object tell it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kubectl_harvester_stuck.release.model import Action, Plan, Step

CONTROLLER = "kubectl-harvester-stuck"
"""Who reports the Events."""

NOTE_BYTES, NAME_LENGTH, INSTANCE_LENGTH = 1024, 200, 128
"""What the API server takes; of a name so much that the id of the change fits behind it."""


@dataclass(frozen=True)
class Who:
    """The user as the API server sees it; without one, why it is not known."""

    user: str | None
    unknown: str = ""


@dataclass(frozen=True)
class Change:
    """A step that is about to be sent, with everything that allows it.

    `id` is of this change alone, `run` of all changes of one command. `plan` is the one that the
    step was taken from: later steps come from later plans than the one that was shown.
    """

    id: str
    run: str
    time: datetime
    who: Who
    digest: str
    plan: Plan
    step: Step
    backup: str

    @property
    def overrides(self) -> tuple[str, ...]:
        """The guards that did not pass by themselves."""
        return tuple(guard.guard for guard in self.plan.guards if guard.overridden)

    @property
    def leaves_behind(self) -> tuple[str, ...]:
        """The finalizers that this step removes although their work is not done."""
        return tuple(
            item.name
            for item in self.plan.leaves_behind
            if item.ref == self.step.ref and item.name in self.step.removes
        )

    @property
    def by_word(self) -> bool:
        """Whether it rests on more than what could be seen."""
        return bool(self.overrides or self.leaves_behind or self.plan.powered_off)


def event(change: Change, host: str) -> Mapping[str, Any]:
    """The Event (events.k8s.io/v1) on the object that was changed."""
    step = change.step
    action, reason = _TOLD[step.action]
    name = step.ref.name[:NAME_LENGTH].rstrip(".-")
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{name}.{change.id}", "namespace": step.ref.namespace},
        "eventTime": f"{change.time:%Y-%m-%dT%H:%M:%S.%fZ}",
        "reportingController": CONTROLLER,
        "reportingInstance": host[:INSTANCE_LENGTH] or "unknown",
        "action": action,
        "reason": reason,
        "regarding": {
            **step.ref.reference,
            "uid": step.uid,
            "resourceVersion": step.resource_version,
        },
        "note": _bounded(_note(change)),
        "type": "Warning" if change.by_word else "Normal",
    }


_TOLD = {
    Action.DELETE_POD: ("ForceDeletePod", "PodForceDeleted"),
    Action.PATCH: ("RemoveFinalizers", "FinalizersRemoved"),
    Action.CREATE: ("RestoreVirtualMachine", "VirtualMachineRestored"),
}


def _note(change: Change) -> str:
    what = {
        Action.DELETE_POD: "force-deleted",
        Action.PATCH: f"removed {', '.join(change.step.removes)}",
        Action.CREATE: "created again from an undo file, powered off",
    }[change.step.action]
    vouched = [
        *(f"node {node} is said to have no power" for node in change.plan.powered_off),
        *(f"guard {guard} was overridden" for guard in change.overrides),
        *(f"the work of {name} is not done" for name in change.leaves_behind),
    ]
    by = change.who.user or "a user that could not be asked for"
    return "; ".join([f"{what}, by {by} with {CONTROLLER} (plan {change.digest})", *vouched])


def _bounded(text: str) -> str:
    """The text in as many bytes as a note may have."""
    content = text.encode()
    if len(content) <= NOTE_BYTES:
        return text
    return content[: NOTE_BYTES - 3].decode(errors="ignore") + "..."
