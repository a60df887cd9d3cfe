"""What a situation is asked about, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from kubectl_harvester_stuck.diagnosis.model import Verdict
from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.harvester import settings
from kubectl_harvester_stuck.harvester.target import Target
from kubectl_harvester_stuck.k8s.commands import Advice
from kubectl_harvester_stuck.k8s.kinds import Kind
from kubectl_harvester_stuck.k8s.objects import Evidence, KubeObject, ObjectRef
from kubectl_harvester_stuck.k8s.reads import Read, declared
from kubectl_harvester_stuck.release.model import WEBHOOKS_ACCEPT, GuardState, Plan

RELEASE = settings.read(settings.SERVER_VERSION)
"""What says which Harvester it is."""


@dataclass(frozen=True)
class LogExcerpt:
    """What the log of a controller's pod says of the target; `why` if it could not be read."""

    pod: ObjectRef
    lines: tuple[str, ...] = ()
    why: str | None = None


@dataclass(frozen=True)
class FindingContext:
    """A target, and the plan that `unstick` would have for it."""

    target: Target
    plan: Plan
    words: tuple[LogExcerpt, ...]

    @property
    def stuck(self) -> bool:
        """Whether the target hangs at all."""
        return self.plan.state is not None

    @property
    def release(self) -> tuple[int, int] | None:
        """Major and minor number of Harvester; None where it names none. Raises UnreadableError.

        A finding that asks declares `RELEASE`.
        """
        found = self.target.snapshot.one(settings.ref(settings.SERVER_VERSION))
        return settings.version_of(found) if found is not None else None

    @property
    def release_if_known(self) -> tuple[int, int] | None:
        """The same, and None where it cannot be read, for what is said of any release then."""
        with suppress(UnreadableError):
            return self.release
        return None

    def refusal(self, guard: str) -> str | None:
        """Why that guard does not pass, or None."""
        return next((item.reason for item in self.plan.refusals if item.guard == guard), None)

    @property
    def denial(self) -> str | None:
        """What admission says against the release; None when it accepts it or was not asked."""
        results = [item for item in self.plan.refusals if item.guard == WEBHOOKS_ACCEPT]
        return next((item.reason for item in results if item.verdict is GuardState.REFUSE), None)

    @property
    def may_be_denied(self) -> bool:
        """Whether admission denies the release, or nobody could ask it.

        It is asked of every plan that no other guard refuses, unless there are only files.
        """
        asked = any(item.guard == WEBHOOKS_ACCEPT for item in self.plan.guards)
        return self.refusal(WEBHOOKS_ACCEPT) is not None or not (asked or self.plan.refusals)


@dataclass(frozen=True)
class Found:
    """What a situation's function yields; the id is added from its name."""

    summary: str
    evidence: tuple[Evidence, ...]
    advice: Verdict | None = None
    steps: tuple[Advice, ...] = ()


Look = Callable[[FindingContext], Iterator[Found]]


@dataclass(frozen=True)
class Situation:
    """A registered function, with what it looks at besides the plan."""

    look: Look
    reads: tuple[Read, ...]

    @property
    def id(self) -> str:
        """The public id."""
        return self.look.__name__.replace("_", "-")

    @property
    def summary(self) -> str:
        """What it is about, from its docstring."""
        return " ".join((self.look.__doc__ or "").split())


REGISTERED: dict[str, Situation] = {}
"""By id, as they were defined."""


def finding(*, reads: Iterable[Kind | Read] = ()) -> Callable[[Look], Look]:
    """Register a situation, with what it looks at besides the plan."""

    def register(look: Look) -> Look:
        found = Situation(look, declared(*reads))
        REGISTERED[found.id] = found
        return look

    return register


def saw(subject: KubeObject, field: str, value: object) -> Evidence:
    """What was seen in a field of an object."""
    return Evidence(str(subject.ref), field, str(value))
