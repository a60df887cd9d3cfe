"""Signals during a release: what is in flight is finished and reported before the program ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def defer_interrupt(note: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C wait until the request in flight has been answered and told.

    Yields a function that says whether it was pressed; `note` is told at once, in the middle of
    whatever the main thread does. Signals can only be handled there; elsewhere nothing is changed.
    """
    pressed: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def press(number: int, _: object) -> None:
        pressed.append(number)
        # Where the press came in the middle of a write, stderr cannot be written to from here.
        with suppress(RuntimeError):
            note("interrupted: stopping after the request in flight")

    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)
