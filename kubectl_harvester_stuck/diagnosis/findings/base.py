"""What a situation is asked about, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kubectl_harvester_stuck.diagnosis.model import Verdict
from kubectl_harvester_stuck.harvester.target import Target
from kubectl_harvester_stuck.k8s.commands import Advice
from kubectl_harvester_stuck.k8s.objects import Evidence, KubeObject
from kubectl_harvester_stuck.release.model import Plan


@dataclass(frozen=True)
class LogExcerpt:
    """What the log of a controller's pod says of the target; `why` if it could not be read."""

    pod: str
    lines: tuple[str, ...] = ()
    why: str | None = None


@dataclass(frozen=True)
class FindingContext:
    """A target, and the plan that `unstick` would have for it."""

    case: Target
    plan: Plan
    words: tuple[LogExcerpt, ...]

    @property
    def stuck(self) -> bool:
        """Whether the target hangs at all."""
        return self.plan.state is not None

    def refusal(self, guard: str) -> str | None:
        """Why that guard does not pass, or None."""
        return next((item.reason for item in self.plan.refusals if item.guard == guard), None)

    @property
    def may_be_denied(self) -> bool:
        """Whether admission denies the release, or nobody could ask it.

        It is asked of every plan that no other guard refuses, unless there are only files.
        """
        asked = any(item.guard == "webhooks-accept" for item in self.plan.guards)
        return self.refusal("webhooks-accept") is not None or not (asked or self.plan.refusals)


@dataclass(frozen=True)
class Found:
    """What a situation's function yields; the id is added from its name."""

    summary: str
    evidence: tuple[Evidence, ...]
    advice: Verdict | None = None
    steps: tuple[Advice, ...] = ()


Look = Callable[[FindingContext], Iterator[Found]]


def saw(subject: KubeObject, field: str, value: object) -> Evidence:
    """What was seen in a field of an object."""
    return Evidence(str(subject.ref), field, str(value))
