"""Where each guest really runs: what nobody can read from the API server.

A `Host` is a machine, not its Node object; a `Guest` is a QEMU, not its pod. The rules, and where
they come from, stand in the docstring of the package.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

KILL_WITHOUT_HANDLER = 15
"""Seconds that virt-launcher waits longer than virt-handler before it kills its guest."""

OBEYS_WITHIN = 10
"""Seconds in which a guest that heeds the power button has shut down."""


@dataclass(eq=False)
class Host:
    """A machine, and which of its parts work."""

    name: str
    power: bool = True
    linked: bool = True
    """Whether it reaches the API server."""
    kubelet: bool = True
    runtime: bool = True
    """Whether the kubelet gets an answer from its container runtime."""
    handler: bool = True
    """Whether virt-handler runs."""
    offset: timedelta = timedelta()
    """How far its clock is ahead."""
    unmounts: bool = True
    """Whether the kubelet gets rid of the volumes of an ended pod."""
    is_replaced: bool = False
    """Whether the Node object of this name stands for another machine."""
    heard: datetime | None = None
    """The last time that its kubelet spoke to the API server."""
    booted: datetime | None = None
    """When it was last switched on, after it had been off."""

    @property
    def hears_pods(self) -> bool:
        """Whether its kubelet learns what becomes of pods, and can act on it."""
        return self.speaks and self.runtime

    @property
    def speaks(self) -> bool:
        """Whether its kubelet tells the API server that it is there."""
        return self.power and self.linked and self.kubelet and not self.is_replaced

    @property
    def hears_guests(self) -> bool:
        """Whether its virt-handler learns what becomes of VMIs."""
        return self.power and self.linked and self.handler and not self.is_replaced


@dataclass(eq=False)
class Guest:
    """A QEMU."""

    vm: str
    """The VM: its name. One that is made again under this name has the same disks."""
    vmi: str
    """The uid of its VMI."""
    pod: str
    """The uid of its pod."""
    host: Host
    grace: int
    """terminationGracePeriodSeconds of the VMI."""
    obeys: bool
    """Whether it shuts down when it is told to; else it has to be killed."""
    since: datetime
    is_incoming: bool = False
    """Whether it still waits for the memory of its source."""
    told: datetime | None = None
    """When its host learnt that it has to stop."""
    dies: datetime | None = None
    ended: datetime | None = None
    fell: bool = False
    """Whether it was killed, or its host lost its power; else it shut down."""

    @property
    def runs(self) -> bool:
        """Whether it writes to its disks."""
        return self.ended is None and not self.is_incoming

    def __str__(self) -> str:
        return f"guest of {self.vm} on {self.host.name}"


@dataclass(frozen=True)
class Overlap:
    """Two guests of one VM at the same time."""

    first: Guest
    second: Guest
    at: datetime


@dataclass
class Truth:
    """All machines and all guests, ended ones too."""

    hosts: list[Host] = field(default_factory=list)
    guests: list[Guest] = field(default_factory=list)
    overlaps: list[Overlap] = field(default_factory=list)

    def host(self, name: str) -> Host:
        """The machine that the Node object of this name stands for."""
        (found,) = [host for host in self.hosts if host.name == name and not host.is_replaced]
        return found

    def guest(self, pod: str) -> Guest | None:
        """The guest of a pod, by its uid."""
        return next((guest for guest in self.guests if guest.pod == pod), None)

    def running(self, vm: str) -> list[Guest]:
        """The guests of a VM that write to its disks."""
        return [guest for guest in self.guests if guest.vm == vm and guest.runs]

    def start(self, guest: Guest) -> None:
        """It begins to run, or waits for its source."""
        if not guest.is_incoming:
            self._watch(guest, guest.since)
        self.guests.append(guest)

    def switch_over(self, source: Guest, target: Guest, now: datetime) -> None:
        """A migration is completed: the source stops, then the target runs."""
        self.end(source, now, fell=False)
        target.is_incoming = False
        self._watch(target, now)

    def _watch(self, guest: Guest, now: datetime) -> None:
        for other in self.running(guest.vm):
            if other is not guest:
                self.overlaps.append(Overlap(other, guest, now))

    def tell(self, guest: Guest, now: datetime) -> None:
        """Its host learns that it has to stop; it goes on by itself from here."""
        if guest.told is not None or guest.ended is not None:
            return
        guest.told = now
        padding = 0 if guest.host.handler else KILL_WITHOUT_HANDLER
        seconds = guest.grace + padding
        if guest.obeys or guest.is_incoming:
            seconds = min(seconds, OBEYS_WITHIN)
        guest.dies = now + timedelta(seconds=max(1, seconds))

    def end(self, guest: Guest, now: datetime, *, fell: bool) -> None:
        """It runs no more."""
        if guest.ended is None:
            guest.ended, guest.fell = now, fell

    def pass_to(self, now: datetime) -> None:
        """End what ends until then."""
        for guest in self.guests:
            if guest.ended is not None:
                continue
            if not guest.host.power:
                self.end(guest, now, fell=True)
            elif guest.dies is not None and guest.dies <= now:
                self.end(guest, guest.dies, fell=not guest.obeys)

    def next_change(self) -> datetime | None:
        """When the next guest ends by itself."""
        return min(
            (guest.dies for guest in self.guests if guest.ended is None and guest.dies),
            default=None,
        )
