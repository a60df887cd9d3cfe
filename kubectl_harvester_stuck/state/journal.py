"""The journal: one JSON line before and one after each change, in the user's state directory.

The first line is on the disk before anything is sent, so a crash in between is visible: a change
without its second line. No line holds a spec. Lines are only ever appended, each in one write, so
that several runs can write at the same time.

A file that has grown to `FULL` bytes is renamed to the time of its last line, and makes room for a
new one; of the renamed ones the newest are kept that hold `KEPT` bytes together. A change that has
no second line outlives its file: its first line is written into the new one.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from kubectl_harvester_stuck.errors import JournalError
from kubectl_harvester_stuck.k8s.objects import format_time, parse_time
from kubectl_harvester_stuck.release.change import Change
from kubectl_harvester_stuck.release.model import Action
from kubectl_harvester_stuck.state.private_files import (
    VARIABLE,
    make_parents,
    open_private,
    sync_parent,
)

if sys.platform != "win32":
    import fcntl

SCHEMA = "harvester-stuck/journal/v1"
FILE = "journal.jsonl"

FULL = 8 << 20
"""Bytes of a journal that gets a successor."""

KEPT = 32 << 20
"""Bytes of the files before the last one that are kept, at least."""

_EARLIER = re.compile(r"journal-\d{8}T\d{12}Z-[0-9a-f]{8}\.jsonl")
"""The name of a file that was full; in the order of the names they follow each other."""

PATIENCE = 10.0
"""Seconds to wait for a run that renames files."""

TAIL = 1 << 20
"""Bytes of the end in which the last run is looked for."""

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Journal:
    """Writes the lines of one run. `now` is the time by the API server's clock."""

    directory: Path
    context: str
    server: str
    version: str
    now: Callable[[], datetime]

    def begin(self, change: Change) -> None:
        """Write the line before the change; returns when it is on the disk.

        Raises JournalError. Nothing may be sent then.
        """
        self._append({"schema": SCHEMA, "phase": "before", **self._of(change, change.time)})

    def end(self, change: Change, outcome: str, answer: Mapping[str, Any] | None) -> None:
        """Write the line after it, with what the server answered. Raises JournalError."""
        last = {"outcome": outcome, "after": _after(change, answer)}
        self._append({"schema": SCHEMA, "phase": "after", **self._of(change, self.now()), **last})

    def _of(self, change: Change, time: datetime) -> dict[str, Any]:
        plan, step = change.plan, change.step
        asked = {"userUnknown": change.who.unknown} if change.who.user is None else {}
        is_new = step.action is Action.CREATE
        before: dict[str, Any] = {"resourceVersion": step.resource_version}
        if step.action is Action.PATCH:
            before["finalizers"] = [*step.removes, *step.keeps]
        return {
            "id": change.id,
            "run": change.run,
            "time": format_time(time),
            "user": change.who.user,
            **asked,
            "context": self.context,
            "server": self.server,
            "version": self.version,
            "digest": change.digest,
            "target": {**plan.ref.reference, "uid": plan.uid},
            "action": step.action.value,
            "object": {
                **step.ref.reference,
                "uid": step.uid,
                "resourceVersion": step.resource_version,
            },
            "before": None if is_new else before,
            # What is created is a whole spec, which can hold secrets; the backup has it.
            "patch": None if is_new else step.body,
            "overrides": list(change.overrides),
            "poweredOff": list(plan.powered_off),
            "leaveBehind": list(change.leaves_behind),
            "backup": change.backup,
        }

    def _append(self, record: Record) -> None:
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        path = self.directory / FILE
        try:
            with _WRITING:
                make_parents(path)
                _require_own(path.parent)
                _rotate(path)
                with _beside_others(path.parent), _opened(path) as handle:
                    _write(handle, line)
        except OSError as error:
            raise JournalError(
                f"cannot write the journal {path}: {error.strerror or error};"
                f" set {VARIABLE} to a directory that can be written"
            ) from error


def _after(change: Change, answer: Mapping[str, Any] | None) -> Record | None:
    """The object as the server answered with it; None where it did not."""
    meta = (answer or {}).get("metadata")
    if not isinstance(meta, Mapping):
        return None
    if change.step.action is Action.CREATE:
        return {"uid": meta.get("uid"), "resourceVersion": meta.get("resourceVersion")}
    if meta.get("uid") != change.step.uid:
        return None
    after: dict[str, Any] = {"resourceVersion": meta.get("resourceVersion")}
    if change.step.action is Action.PATCH:
        after["finalizers"] = meta.get("finalizers") or []
    return after


_WRITING = threading.Lock()
"""Threads write one after the other: half of another's line would look as if a crash tore it."""


def _rotate(path: Path) -> None:
    """Make room for a new file where this one is full.

    Where that cannot be done, or another run is doing it, the file grows on.
    """
    with suppress(OSError):
        if path.lstat().st_size < FULL:
            return
        with _alone(path.parent):
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode) or status.st_size < FULL:
                return
            written = datetime.fromtimestamp(status.st_mtime, timezone.utc)
            name = f"journal-{written:%Y%m%dT%H%M%S%fZ}-{uuid.uuid4().hex[:8]}.jsonl"
            path.rename(path.with_name(name))
            _forget(path)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Lock the directory against all other runs. Raises OSError where one of them writes."""
    if sys.platform == "win32":  # where a file that is open is not renamed
        yield
    else:
        handle = os.open(directory, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(handle)


@contextmanager
def _beside_others(directory: Path) -> Iterator[None]:
    """Wait until no run has the directory alone, and let none until the line is written.

    Otherwise the file could be renamed, and removed, between its opening and the line. A file
    system that knows no locks lets nobody be alone; whoever is alone for longer than `PATIENCE`
    has stopped, and stops nobody else.
    """
    if sys.platform == "win32":
        yield
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        deadline = time.monotonic() + PATIENCE
        while not _shares(handle) and time.monotonic() < deadline:
            time.sleep(0.02)
        yield
    finally:
        os.close(handle)


def _shares(handle: int) -> bool:
    """Whether there is a shared lock now, or there are no locks; not while a run is alone."""
    if sys.platform != "win32":
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True
    return True


def _forget(path: Path) -> None:
    """Remove the oldest files, once each change in them without a second line is kept elsewhere.

    Raises OSError.
    """
    files = _earlier(path.parent)
    sizes = [file.lstat().st_size for file in files]
    gone = [file for number, file in enumerate(files) if sum(sizes[number + 1 :]) >= KEPT]
    if not gone:
        return
    begun: dict[str, bytes] = {}
    ended: set[str] = set()
    for file in files:
        for line in _content(file, None).split(b"\n"):
            record = _record(line)
            if record is not None and record["phase"] == "after":
                ended.add(record["id"])
            elif record is not None and file in gone:
                begun[record["id"]] = line
    carried = [line + b"\n" for id_, line in begun.items() if id_ not in ended]
    if carried:
        with _opened(path) as handle:
            _write(handle, b"".join(carried))
    for file in gone:
        file.unlink()


def _earlier(directory: Path) -> list[Path]:
    """The files that were full, oldest first. Raises OSError."""
    return sorted(item for item in directory.iterdir() if _EARLIER.fullmatch(item.name))


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """The file to append to, private to its user. No symbolic link is followed. Raises OSError."""
    _require_own(path.parent)
    handle = open_private(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a file")
        if sys.platform != "win32":
            if status.st_mode & 0o077:
                os.fchmod(handle, 0o600)
            # It may have been made by others, with the rights of the umask.
            if path.parent.stat().st_mode & 0o077:
                path.parent.chmod(0o700)
            if not status.st_size:
                sync_parent(path)
        yield handle
    finally:
        os.close(handle)


def _require_own(directory: Path) -> None:
    """Raise OSError where the directory, or the link that leads to it, belongs to another user.

    Whoever owns it can lay another journal there, which root could do anyway. Root itself, in the
    home of somebody else, would be led by a link to any directory, and make that private.
    """
    if sys.platform == "win32":
        return
    if not {directory.lstat().st_uid, directory.stat().st_uid} <= {os.geteuid(), 0}:
        raise OSError(errno.EPERM, "its directory belongs to another user")


def _write(handle: int, line: bytes) -> None:
    """Append the line in one write, and sync it. Raises OSError when not all of it was taken."""
    if os.lseek(handle, 0, os.SEEK_END):
        os.lseek(handle, -1, os.SEEK_END)
        if os.read(handle, 1) != b"\n":
            # A crash tore the last line; this one has to stand on its own.
            line = b"\n" + line
    if os.write(handle, line) != len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(handle)


@dataclass(frozen=True)
class Reading:
    """What stands in the journal, oldest first.

    Each change is its first line, completed by its second one: `outcome`, `after`, `endedAt`.
    Without a second line there is no `outcome`.
    """

    changes: tuple[Record, ...]
    broken: int = 0
    """Lines that could not be understood."""

    @property
    def cut_off(self) -> tuple[Record, ...]:
        """The changes of the last run that have no second line."""
        if not self.changes:
            return ()
        last = self.changes[-1].get("run")
        return tuple(
            change
            for change in self.changes
            if change.get("run") == last and "outcome" not in change
        )


def read(directory: Path, limit: int | None = None) -> Reading:
    """What was changed, from the last `limit` bytes. A journal that is missing is empty.

    Raises JournalError when it is there and cannot be read.
    """
    path = directory / FILE
    try:
        return _parsed(b"\n".join(_contents(path, limit)).split(b"\n"))
    except OSError as error:
        name = error.filename or path
        raise JournalError(
            f"cannot read the journal {name}: {error.strerror or error}; it has to be a file of"
            " this user"
        ) from error


def _contents(path: Path, limit: int | None) -> list[bytes]:
    """The last `limit` bytes of all files of the journal, oldest first. Raises OSError.

    They are read again where one of them got another name meanwhile.
    """
    while True:
        files = [*_earlier_or_none(path), path]
        found: list[bytes] = []
        left = limit
        for file in reversed(files):
            if left is not None and left <= 0:
                break
            with suppress(FileNotFoundError):
                size = file.stat().st_size
                found.insert(0, _content(file, left))
                left = None if left is None else left - size
        if files == [*_earlier_or_none(path), path]:
            return found


def _earlier_or_none(path: Path) -> list[Path]:
    try:
        return _earlier(path.parent)
    except FileNotFoundError:
        return []


def concerns(change: Record, namespace: str | None, name: str | None) -> bool:
    """Whether the change is one of a release of that VM or VMI; None stands for any.

    Its pod has another name: the target is that of the release.
    """
    refs = [ref for key in ("object", "target") if isinstance(ref := change.get(key), Mapping)]
    found = [(ref.get("namespace"), ref.get("name")) for ref in refs]
    return any(namespace in (None, where) and name in (None, what) for where, what in found)


def is_within(change: Record, span: timedelta, now: datetime) -> bool:
    """Whether it was made so long ago at most, or at a time that cannot be read."""
    try:
        return now - parse_time(str(change.get("time"))) <= span
    except ValueError:
        return True


def _content(path: Path, limit: int | None) -> bytes:
    if not stat.S_ISREG(path.stat().st_mode):
        # To open a pipe would mean to wait for its other end.
        raise OSError(errno.EINVAL, "it is not a file", str(path))
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - limit) if limit is not None else 0
        file.seek(start)
        content = file.read(size - start)
    # The first line is only whole if the reading began with it.
    return content.partition(b"\n")[2] if start else content


def _parsed(lines: Sequence[bytes]) -> Reading:
    changes: dict[str, dict[str, Any]] = {}
    broken = 0
    for line in filter(None, lines):
        record = _record(line)
        if record is None:
            broken += 1
        elif record["phase"] == "before":
            changes.setdefault(record["id"], {}).update(_told(record))
        else:
            change = changes.setdefault(record["id"], _told(record))
            ended = {"outcome": record.get("outcome"), "after": record.get("after")}
            change.update({**ended, "endedAt": record.get("time")})
    return Reading(tuple(changes.values()), broken)


def _told(record: Record) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in ("schema", "phase")}


def _record(line: bytes) -> Record | None:
    """The line, if it is one of ours and whole."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        return None
    fits = isinstance(record.get("id"), str) and record.get("phase") in ("before", "after")
    return record if fits else None
