"""What the operator gets to read: the answer on stdout, everything else on stderr.

`prepared` puts streams in the place of both that write UTF-8 whatever the locale, and that know
what it means when they cannot: no report of a change is lost for it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO, cast

import click

from kubectl_harvester_stuck.errors import (
    ExitStatus,
    RefusedError,
    StuckError,
    UnreadableError,
    is_forbidden,
)

if TYPE_CHECKING:
    from kubectl_harvester_stuck.k8s.objects import Unreadable
    from kubectl_harvester_stuck.listing.model import Listing
    from kubectl_harvester_stuck.render.screen import Screen


class OutputError(StuckError):
    """stdout cannot be written to; a pipe that nobody reads any more is none of these."""


class _Stream:
    """A text stream in the place of stdout or stderr, which may be closed (None)."""

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream
        self.locale = getattr(stream, "encoding", None) or "ascii"
        """The encoding that the locale, or PYTHONIOENCODING, asks for."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def isatty(self) -> bool:
        try:
            return self.stream is not None and self.stream.isatty()
        except ValueError:
            return False

    def write(self, text: str) -> int:
        try:
            if self.stream is None and text:
                raise ValueError("it is closed")
            return 0 if self.stream is None else self.stream.write(text)
        except (OSError, ValueError) as error:
            return self.failed(error, text)

    def flush(self) -> None:
        try:
            if self.stream is not None:
                self.stream.flush()
        except (OSError, ValueError) as error:
            self.failed(error, "")

    def failed(self, error: OSError | ValueError, text: str) -> int:
        """What it means that `text` could not be written; raises, or returns its length."""
        raise NotImplementedError

    def leave(self) -> None:
        """Write nothing any more, neither now nor at exit, which would change the exit status."""
        with suppress(AttributeError, OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, cast(TextIO, self.stream).fileno())
            os.close(nowhere)


class _Answer(_Stream):
    """stdout. Raises BrokenPipeError where nobody reads any more, otherwise OutputError."""

    def failed(self, error: OSError | ValueError, _text: str) -> int:
        self.leave()
        if isinstance(error, BrokenPipeError):
            raise error
        why = (isinstance(error, OSError) and error.strerror) or str(error)
        raise OutputError(f"cannot write to stdout: {why}") from error


class _Aside(_Stream):
    """stderr. What cannot be told there is not told, and stops nothing."""

    can_write = True

    def failed(self, _error: OSError | ValueError, text: str) -> int:
        self.can_write = False
        self.leave()
        return len(text)


@contextmanager
def prepared() -> Iterator[None]:
    """Streams in the place of stdin, stdout and stderr that say what it means that they fail."""
    before = sys.stdin, sys.stdout, sys.stderr
    # A file that is opened later must not get the number of a stream that is closed.
    for number in range(3):
        with suppress(OSError):
            _fill(number)
    answers, asides = _Answer(before[1]), _Aside(before[2])
    for stream in before[1:]:
        # UTF-8 and line ends as kubectl writes them, also on Windows; what is no text at all, such
        # as half a surrogate, is escaped.
        with suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(  # type: ignore[union-attr]
                encoding="utf-8", errors="backslashreplace", newline="\n"
            )
    sys.stdin = before[0] or open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115 - for good
    sys.stdout, sys.stderr = cast(TextIO, answers), cast(TextIO, asides)
    try:
        yield
    finally:
        # At exit Python flushes what is still in the buffers, and a failure would be its status.
        with suppress(OSError, StuckError):
            answers.flush()
        asides.flush()
        sys.stdin, sys.stdout, sys.stderr = before


def _fill(number: int) -> None:
    """Open nothing under the number of a stream, if it is free. Raises OSError."""
    try:
        os.fstat(number)
    except OSError:
        nowhere = os.open(os.devnull, os.O_RDWR)
        if nowhere != number:
            os.dup2(nowhere, number)
            os.close(nowhere)


def can_tell() -> bool:
    """Whether stderr took everything so far."""
    return getattr(sys.stderr, "can_write", True)


class Answer(NamedTuple):
    """What a command came to, and how it ends."""

    status: ExitStatus
    text: str = ""
    """For stdout."""
    notes: str = ""
    """Whole lines for stderr, after the text."""
    is_report: bool = False
    """Whether it tells of changes: where stdout cannot be written to, stderr gets it."""


def print_answer(answer: Answer) -> ExitStatus:
    """Print what a command came to, and return how it ends.

    Raises OutputError; never where the answer tells of changes: the status stays that of the
    changes then.
    """
    if answer.is_report:
        _write_report(answer.text)
    elif answer.text:
        write(answer.text)
    click.echo(answer.notes, nl=False, err=True)
    return answer.status


def screen(stream: TextIO | None = None) -> Screen:
    """What can be shown to whoever reads the stream, by default stdout."""
    from kubectl_harvester_stuck.render import color
    from kubectl_harvester_stuck.render.screen import Screen

    stream = stream or sys.stdout
    ctx = click.get_current_context(silent=True)
    when = ctx.ensure_object(dict).get("color", "auto") if ctx else "auto"
    is_terminal = stream.isatty()
    return Screen(
        _columns(stream),
        is_terminal and _shows_signs(stream),
        color.wanted(when, os.environ, is_terminal=is_terminal),
    )


def _columns(stream: TextIO) -> int | None:
    """What COLUMNS says, else the width of the terminal; None for a file or a pipe."""
    told = os.environ.get("COLUMNS", "")
    if told.isascii() and told.isdigit() and int(told):
        return int(told)
    try:
        return os.get_terminal_size(stream.fileno()).columns or None if stream.isatty() else None
    except (OSError, ValueError):
        return None


def _shows_signs(stream: TextIO) -> bool:
    """Whether the terminal, by its name and by its locale, shows more than ASCII."""
    if os.environ.get("TERM") == "dumb":
        return False
    try:
        "├└─│✓✗◀".encode(getattr(stream, "locale", None) or stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return os.name == "nt" or _has_utf8_locale()


def _has_utf8_locale() -> bool:
    """Whether the user's locale is one of UTF-8, as POSIX looks it up."""
    # In the locale C, Python sets this one by itself (PEP 538): it is nobody's choice.
    names = {
        key: value
        for key in ("LC_ALL", "LC_CTYPE", "LANG")
        if (value := os.environ.get(key)) and (key, value) != ("LC_CTYPE", "C.UTF-8")
    }
    name = next(iter(names.values()), "").lower()
    return "utf-8" in name or "utf8" in name


def _write_report(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except (OutputError, BrokenPipeError) as error:
        why = str(error) if isinstance(error, OutputError) else "nobody reads stdout any more"
        click.echo(f"warning: {why}; the report:\n{click.unstyle(text)}", nl=False, err=True)


def write(text: str, *, stop: bool = False) -> None:
    """Write to stdout. A reader that went away does not change how the work itself ended.

    With `stop` the work is over then: nobody waits for the rest. Raises OutputError.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        if stop:
            sys.exit(ExitStatus.OK)


def safe_lines(text: str) -> str:
    """The text without control characters, its lines as they are."""
    from kubectl_harvester_stuck.render.layout import safe

    return "\n".join(map(safe, text.split("\n")))


def error_line(error: StuckError, role: str | None = None) -> str:
    """What stderr says of an expected failure.

    `role` is the ClusterRole that allows what is forbidden, by default the one for those who look.
    """
    from kubectl_harvester_stuck.k8s.kinds import VIEWER_ROLE
    from kubectl_harvester_stuck.render.layout import safe

    text = safe(str(error))
    if isinstance(error, UnreadableError) and is_forbidden(error.why):
        text += f"; the ClusterRole {role or VIEWER_ROLE} of deploy/rbac.yaml allows it"
    own_words = ("Error from server", "The connection", "Unable to connect", "error:")
    line = f"{text}\n" if text.startswith(own_words) else f"error: {text}\n"
    return f"{line}{error.command}\n" if isinstance(error, RefusedError) and error.command else line


def left_out(found: Listing) -> str:
    """The line that says what `--node` passed over; else nothing."""
    if not found.without_node:
        return ""
    which = "VM names" if found.without_node == 1 else "VMs name"
    was = "was" if found.without_node == 1 else "were"
    return f"{found.without_node} stuck {which} no node and {was} left out; see list\n"


def nothing_is_stuck(place: str, missing: tuple[Unreadable, ...]) -> str:
    """The line that says so, if all of it could be read; else nothing."""
    from kubectl_harvester_stuck.render import layout

    return "" if missing else f"Nothing is stuck{layout.safe(place)}.\n"
