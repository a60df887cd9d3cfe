"""The server's clock, which a test can set forward or stop."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone


def timestamp(moment: datetime) -> str:
    """`moment` as Kubernetes writes it: RFC 3339 in UTC, whole seconds."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(text: str) -> datetime:
    """The time that `timestamp` wrote. ValueError for anything else."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)


class Clock:
    """The real time plus what it was advanced by, until it is stopped."""

    def __init__(self) -> None:
        self._ahead = timedelta()
        self._stopped: datetime | None = None

    def now(self) -> datetime:
        """The server's time, in UTC."""
        return (self._stopped or datetime.now(timezone.utc)) + self._ahead

    def advance(self, seconds: float) -> None:
        """Set the clock `seconds` forward; negative ones set it back."""
        self._ahead += timedelta(seconds=seconds)

    def stop(self, moment: datetime | None = None) -> None:
        """Let it be `moment`, or what it is now, and no time pass but what it is advanced by."""
        self._stopped = moment or self.now()
        self._ahead = timedelta()
