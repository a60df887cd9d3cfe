"""What can go wrong between a client and the server, and when.

A fault is what happens instead of `exchange.answer()`; write any other as a function of the
exchange.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .api import Response, error_response
from .exchange import Exchange
from .status import ApiError

Fault = Callable[[Exchange], None]


def status(
    code: int, reason: str = "", message: str = "", headers: Mapping[str, str] | None = None
) -> Fault:
    """Answer a Status of that code; the request is not looked at."""
    error = ApiError(code, reason, message, headers=headers)
    return lambda exchange: exchange.respond(error_response(error))


def body(content: bytes, content_type: str = "application/json", code: int = 200) -> Fault:
    """Answer these bytes; the request is not looked at."""
    return lambda exchange: exchange.respond(Response(code, content, content_type))


def close() -> Fault:
    """Close the connection; the request is not looked at."""
    return lambda exchange: exchange.drop()


def lose_answer() -> Fault:
    """Do what is asked, then close the connection instead of answering."""

    def fault(exchange: Exchange) -> None:
        exchange.handle()
        exchange.drop()

    return fault


def cut() -> Fault:
    """Do what is asked, then close the connection in the middle of the body."""

    def fault(exchange: Exchange) -> None:
        first, _ = exchange.halves()
        exchange.write(first)
        exchange.drop()

    return fault


def delay(seconds: float) -> Fault:
    """Do nothing for so long, then answer."""

    def fault(exchange: Exchange) -> None:
        exchange.wait(seconds)
        exchange.answer()

    return fault


def stall(seconds: float) -> Fault:
    """Do what is asked, and pause for so long in the middle of the body."""

    def fault(exchange: Exchange) -> None:
        first, second = exchange.halves()
        exchange.write(first)
        exchange.wait(seconds)
        exchange.write(second)

    return fault


def run(action: Callable[[], object]) -> Fault:
    """Let somebody else act before the request is looked at, then answer."""

    def fault(exchange: Exchange) -> None:
        action()
        exchange.answer()

    return fault


def run_after(action: Callable[[], object]) -> Fault:
    """Do what is asked, let somebody else act, and only then send the answer."""

    def fault(exchange: Exchange) -> None:
        exchange.handle()
        action()
        exchange.answer()

    return fault


@dataclass
class Injection:
    """A fault, and which requests it hits."""

    fault: Fault
    method: str | None
    path: re.Pattern[str] | None
    times: int | None
    after: int

    def hits(self, method: str, target: str) -> bool:
        """Whether this request is hit; counts it if it is one of those in question."""
        if self.method not in (None, method):
            return False
        if self.path is not None and not self.path.search(target):
            return False
        if self.after:
            self.after -= 1
            return False
        if self.times is None:
            return True
        self.times -= 1
        return self.times >= 0


class Faults:
    """The injections that are waiting, in the order in which they were made."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._injections: list[Injection] = []

    def add(self, injection: Injection) -> None:
        with self._lock:
            self._injections.append(injection)

    def remove(self, injection: Injection) -> None:
        """Remove it; nothing happens when it is gone already."""
        with self._lock:
            self._injections = [one for one in self._injections if one is not injection]

    def take(self, method: str, target: str) -> Fault | None:
        """The fault that hits this request, if any; the first that does."""
        with self._lock:
            return next((one.fault for one in self._injections if one.hits(method, target)), None)
