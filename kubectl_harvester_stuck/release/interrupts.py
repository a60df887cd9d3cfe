"""Signals during a release: what is in flight is finished and reported before the program ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
"""Ctrl-C, `kill`, and a terminal that goes away; Windows has no SIGHUP."""


class Interrupts:
    """Lets signals that end a program wait until everything that was sent has been told.

    As a context it does nothing before `hold`: until then nothing was changed, and a signal ends
    the program as usual. From then on a signal is only noted, up to the end of the context. `note`
    is told at once, in the middle of whatever the main thread does. Signals can only be handled
    there; elsewhere nothing is held.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._pressed = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def hold(self) -> None:
        """Only note signals from now on."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (getattr(signal, name) for name in NAMES if hasattr(signal, name)):
            before = signal.getsignal(number)
            # nohup, and whoever else wants a signal to be ignored, still do.
            if number == signal.SIGINT or before is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._press)

    @property
    def pressed(self) -> bool:
        """Whether a signal came since `hold`."""
        return self._pressed

    def _press(self, _number: int, _frame: FrameType | None) -> None:
        first, self._pressed = not self._pressed, True
        # Where the press came in the middle of a write, stderr cannot be written to from here.
        with suppress(RuntimeError):
            if first:
                self._note("interrupted: stopping after the request in flight")
