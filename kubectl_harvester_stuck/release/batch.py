"""What the targets of one run share: their looks, their waiting, and turns to look and act."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from kubectl_harvester_stuck.cluster import reader
from kubectl_harvester_stuck.cluster.shared_reads import SharedReads
from kubectl_harvester_stuck.errors import StuckError
from kubectl_harvester_stuck.k8s.objects import ObjectRef
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot
from kubectl_harvester_stuck.k8s.source import PARALLEL_REQUESTS
from kubectl_harvester_stuck.release import guards
from kubectl_harvester_stuck.release.context import ReleaseContext
from kubectl_harvester_stuck.release.presence import Presence

GROUP = 2 * PARALLEL_REQUESTS
"""So many targets share a look, at most: half of them act, and the others wait for those."""

FRESH = 1.0
"""Seconds after a look within which its targets have to begin to act, or look again alone.

Where a look takes longer they have as long as it took, for one alone would be as old, but no more
than `OLDEST`.
"""

OLDEST = 10.0
"""A Lease that tells of a node's life is renewed as often as that."""

Look = Callable[[Sequence[ObjectRef]], ClusterSnapshot]
"""Reads what the plans for these targets depend on. Raises StuckError."""


class Batch:
    """For the targets of a run; safe for several threads."""

    def __init__(
        self, context: ReleaseContext, shared: SharedReads, targets: Iterable[ObjectRef]
    ) -> None:
        def look(refs: Sequence[ObjectRef]) -> ClusterSnapshot:
            if context.interrupts.pressed and len(refs) > 1:
                raise StuckError("interrupted")  # none of them is going to ask for it
            return reader.around(context.cluster, refs, guards.reads(), shared=shared)

        self.presence = Presence(context.cluster, shared, targets)
        self.turns = Turns(look, context.clock.monotonic)


class Turns:
    """Turns of groups of targets: a look that the group shares, and the changes that rest on it.

    A look begins when the group before has sent its changes, and nobody joins who comes later. So
    what a change rests on was read after its target asked for it, and at most `GROUP` changes and
    a bounded time lie between the look and the change. Without turns all targets would look first,
    and their changes would queue behind the looks of the others until those have become old.
    """

    def __init__(self, look: Look, monotonic: Callable[[], float]) -> None:
        self.look, self.monotonic = look, monotonic
        self.acting = threading.BoundedSemaphore(PARALLEL_REQUESTS)
        """So many of a group act at the same time."""
        self._changed = threading.Condition()
        self._waiting: list[Turn] = []
        self._group: set[Turn] = set()
        """Those that share the last look and have not acted yet."""

    def join(self, turn: Turn) -> None:
        """Wait for a group, and for its look."""
        with self._changed:
            self._waiting.append(turn)
            self._changed.wait_for(lambda: turn.is_over or self._is_next(turn))
            if turn.is_over:
                return
            # The first of those who wait reads for its group.
            began = self.monotonic()
            group, self._waiting = self._waiting[:GROUP], self._waiting[GROUP:]
            self._group = set(group)
        seen: ClusterSnapshot | None = None
        try:
            if len(group) > 1:
                seen = self.look([member.ref for member in group])
        except StuckError:
            pass  # what fails for one of them is nothing to the others: each looks alone
        finally:
            with self._changed:
                now = self.monotonic()
                for member in group:
                    member.show(seen, until=now + min(max(FRESH, now - began), OLDEST))
                self._changed.notify_all()

    def _is_next(self, turn: Turn) -> bool:
        return not self._group and self._waiting[0] is turn

    def leave(self, turn: Turn) -> None:
        """Have acted, or given up: the others wait for this one no longer."""
        with self._changed:
            self._waiting = [one for one in self._waiting if one is not turn]
            self._group.discard(turn)
            self._changed.notify_all()


class Turn:
    """The turn of one target, from a look to the change that rests on it.

    Whoever took it, or failed to, has to give it: all others wait for that.
    """

    def __init__(self, ref: ObjectRef, turns: Turns) -> None:
        self.ref = ref
        self.is_over = False
        """Whether the look of its group is over, in vain or not."""
        self._turns = turns
        self._seen: ClusterSnapshot | None = None
        self._until = 0.0
        self._is_held = False

    def take(self) -> None:
        """Wait for it, unless it is held already."""
        if not self._is_held:
            self.is_over = False
            self._turns.join(self)
            self._turns.acting.acquire()
            self._is_held = True

    def show(self, seen: ClusterSnapshot | None, until: float) -> None:
        """Tell what the group has seen, None where its look has failed.

        `until` is how long it counts, by the monotonic clock.
        """
        self.is_over, self._seen, self._until = True, seen, until

    def look(self) -> ClusterSnapshot:
        """What was seen since it was waited for. Raises StuckError.

        Whoever looks a second time in a turn wants to see what became of it, and looks alone.
        """
        turns, seen, self._seen = self._turns, self._seen, None
        if seen is None or turns.monotonic() > self._until:
            return turns.look([self.ref])
        return seen

    def give(self) -> None:
        """Let others have it, whether it is held, waited for, or given already."""
        self._seen = None
        if self._is_held:
            self._is_held = False
            self._turns.acting.release()
        self._turns.leave(self)
