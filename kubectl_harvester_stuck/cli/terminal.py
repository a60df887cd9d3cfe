"""The operator at the terminal: progress, the preview, and the question."""

from __future__ import annotations

import queue
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar, cast

from kubectl_harvester_stuck.cli.output import can_tell, screen
from kubectl_harvester_stuck.errors import RefusedError
from kubectl_harvester_stuck.render import layout

if TYPE_CHECKING:
    from kubectl_harvester_stuck.release.model import Plan
    from kubectl_harvester_stuck.render.invocation import Invocation
    from kubectl_harvester_stuck.restore.decisions import Proposal

_T = TypeVar("_T")

QUIET = 2.0
"""Seconds before anything is said of progress."""

EVERY = 10.0
"""Seconds between two lines of progress where there is no terminal to redraw one on."""


class Terminal:
    """Speaks on stderr, asks on stdin; stdout is left to the answer."""

    def __init__(
        self,
        where: Invocation,
        *,
        yes: bool = False,
        confirmed: str | None = None,
        retyped: Callable[..., str] = lambda **_: "",
    ) -> None:
        self._where = where
        self._retyped = retyped
        self._yes = yes
        self._confirmed = confirmed
        self._started = time.monotonic()
        self._last = 0.0
        self._drawn = False
        # Ctrl-C is told by whoever holds it.
        self._lock = threading.RLock()

    def progress(self, text: str) -> None:
        """Say what is being waited for, once it takes longer than two seconds."""
        now = time.monotonic()
        if now - self._started < QUIET:
            return
        with self._lock:
            if _is_terminal():
                room = shutil.get_terminal_size().columns - 1
                _write(f"\r\x1b[K{layout.safe(text)[:room]}")
                self._drawn = True
            elif now - self._last >= EVERY or not self._last:
                _write(f"{layout.safe(text)}\n")
                self._last = now

    def println(self, text: str) -> None:
        """Say what has just been done, on a line of its own."""
        with self._lock:
            self._erase()
            _write(f"{layout.safe(text)}\n")

    def clear(self) -> None:
        """Take the line of progress away again."""
        with self._lock:
            self._erase()

    def _erase(self) -> None:
        if self._drawn:
            _write("\r\x1b[K")
            self._drawn = False

    def confirm(self, plans: Sequence[Plan], digest: str) -> None:
        """Show the plans and ask. Raises RefusedError on anything but a yes."""
        self.clear()
        from kubectl_harvester_stuck.render import release_text
        from kubectl_harvester_stuck.render.page import Page

        _write(release_text.preview(plans, digest, self._where, Page(screen(sys.stderr))))
        if self._confirmed is not None:
            if self._confirmed != digest:
                raise RefusedError(
                    f"the plan is not the one that was confirmed: its digest is {digest} now;"
                    " nothing was changed"
                )
            return
        if not self._yes:
            self._ask([plan for plan in plans if not plan.refusals], digest)
        self._started = time.monotonic()

    def agree(self, proposal: Proposal) -> None:
        """Show the VM that would be made and ask. Raises RefusedError on anything but a yes."""
        self.clear()
        from kubectl_harvester_stuck.render import restore_text
        from kubectl_harvester_stuck.render.page import Page

        _write(restore_text.proposal(proposal, self._where, Page(screen(sys.stderr))))
        if not self._yes:
            self._type(proposal.backup.ref.key, "--yes")
        self._started = time.monotonic()

    def _ask(self, plans: Sequence[Plan], digest: str) -> None:
        wanted = plans[0].ref.key if len(plans) == 1 else f"{len(plans)} {self._where.context}"
        self._type(wanted, "--confirm", digest)

    def _type(self, wanted: str, *otherwise: str) -> None:
        """Ask. Raises RefusedError on any other answer, with what says the same without asking."""
        _write(f"To go ahead, type {layout.safe(wanted)}: ")
        flags, line = " ".join(otherwise), self._retyped(more=otherwise)
        if not can_tell():
            raise RefusedError(
                f"the plan could not be shown, nothing was changed; use {flags}", line
            )
        try:
            answer = sys.stdin.readline()
        except KeyboardInterrupt:
            answer = ""
        if not answer.endswith("\n"):
            _write("\n")
        if answer.strip() == wanted:
            return
        if sys.stdin.isatty():
            raise RefusedError("not confirmed, nothing was changed")
        raise RefusedError(
            f"not confirmed, nothing was changed; without a terminal use {flags}", line
        )


class LiveTable:
    """A text on the terminal of stdout that is drawn again where it stands."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._height = 0

    def draw(self, text: str) -> None:
        """Show the text in the place of the one before, as much of it as there is room for."""
        columns, rows = shutil.get_terminal_size()
        lines = [cropped(line, columns) for line in text.splitlines()]
        if len(lines) > rows - 1:
            left = len(lines) - (rows - 2)
            lines = [*lines[: rows - 2], f"... and {left} more"]
        up = f"\x1b[{self._height}A" if self._height else ""
        self._write(f"{up}\r\x1b[J" + "".join(f"{line}\n" for line in lines))
        self._height = len(lines)


def cropped(line: str, columns: int) -> str:
    """The line without what is beyond so many columns; its colours are kept, and are ended."""
    found, left = "", columns
    for number, part in enumerate(re.split(r"(\x1b\[[\d;]*m)", line)):
        if number % 2:
            found += part
        else:
            found, left = found + part[:left], max(left - len(part), 0)
    return found


def queued(answers: Iterator[_T], *, every: float) -> Iterator[_T | None]:
    """The answers as they come, and None after every so many seconds without one.

    They are made in a thread of their own. What is raised there is raised here.
    """
    waiting: queue.Queue[tuple[str, object]] = queue.Queue()

    def collect() -> None:
        try:
            for answer in answers:
                waiting.put(("answer", answer))
            waiting.put(("end", None))
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            waiting.put(("error", error))

    threading.Thread(target=collect, daemon=True).start()
    while True:
        try:
            kind, value = waiting.get(timeout=every)
        except queue.Empty:
            yield None
            continue
        if kind == "error" and isinstance(value, BaseException):
            raise value
        if kind == "end":
            return
        yield cast(_T, value)


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except ValueError:
        return False


def _write(text: str) -> None:
    """Write to stderr. A terminal that went away stops neither the work nor its report."""
    with suppress(OSError, ValueError):
        sys.stderr.write(text)
        sys.stderr.flush()


@contextmanager
def reading(tell: Callable[[str], None], what: str) -> Iterator[None]:
    """Say `what` after two seconds, for as long as the body runs."""
    over = threading.Event()

    def watch() -> None:
        started = time.monotonic()
        while not over.wait(1.0):
            tell(f"{what} ({int(time.monotonic() - started)}s)")

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
