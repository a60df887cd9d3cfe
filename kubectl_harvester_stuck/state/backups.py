"""Objects are saved here before the first of them is changed.

A file is a `List` that kubectl reads, with the plan beside the items. VM specs can hold cloud-init
secrets, so the directory is 0700 and the files are 0600.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from kubectl_harvester_stuck.errors import BackupError, RestoreError
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef, format_time
from kubectl_harvester_stuck.release.model import Plan
from kubectl_harvester_stuck.state.private_files import (
    make_parents,
    open_private,
    sync_parent,
    why_foreign,
)

NAME_LENGTH = 150
"""Characters of namespace and name in the name of a file."""

LIMIT = 64 << 20
"""Bytes of the largest file that is taken for a backup."""


@dataclass(frozen=True)
class Backups:
    """Files of one run in `directory`."""

    directory: Path
    context: str
    server: str
    version: str
    now: datetime
    warn: Callable[[str], None]
    """Is told what may be missing from a file."""

    def save(
        self, plan: Plan, objects: Sequence[KubeObject], digest: str, not_saved: Sequence[str] = ()
    ) -> str:
        """Write the objects and the plan, and return only when they are on the disk.

        What earlier files of the same release hold besides is taken over. `not_saved` names what
        belongs to the target and could not be read. Raises BackupError.
        """
        # Both can be long, and the name of a file may have 255 bytes.
        target = f"{plan.ref.namespace}_{plan.ref.name}"
        if len(target) > NAME_LENGTH:
            target = f"{target[:NAME_LENGTH]}_{plan.uid[:36]}"
        name = f"{self.now:%Y%m%dT%H%M%S%fZ}_{target}_{digest}.json"
        path = self.directory / name
        items = [_complete(item) for item in objects]
        earlier = _Earlier(self.directory)
        items += earlier.missing_from(items, plan.ref)
        document = {
            "apiVersion": "v1",
            "kind": "List",
            "metadata": {},
            "items": items,
            "release": {
                "schema": "harvester-stuck/backup/v1",
                "takenAt": format_time(self.now),
                "version": self.version,
                "context": self.context,
                "server": self.server,
                "digest": digest,
                "target": {**plan.ref.reference, "uid": plan.uid},
                "plan": [
                    {"action": step.action.value, "object": str(step.ref), "body": step.body}
                    for step in plan.steps
                ],
                "notSaved": [*not_saved, *earlier.unread],
                "takenOverFrom": earlier.files,
            },
        }
        try:
            _write(path, json.dumps(document, indent=1, sort_keys=True) + "\n")
        except OSError as error:
            raise BackupError(
                f"cannot save {plan.ref} in {self.directory}: {error.strerror or error};"
                " nothing was changed, try another --backup-dir"
            ) from error
        for why in earlier.unread:
            self.warn(f"warning: {why}; what that alone holds is not in {path}")
        return str(path)


class _Earlier:
    """The files in the directory that an interrupted release of the same target has left.

    None that cannot be read stops a release, which has read itself what it is going to change.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.files: list[str] = []
        """Those from which something was taken over, newest first."""
        self.unread: list[str] = []
        """Those that could not be read, and why."""

    def missing_from(
        self, items: Sequence[Mapping[str, Any]], target: ObjectRef
    ) -> list[Mapping[str, Any]]:
        """What these files hold of the target and `items` do not; what was saved last counts."""
        from kubectl_harvester_stuck.restore import carry_over

        found: list[Mapping[str, Any]] = []
        for path, then in self._documents(target):
            if carry_over.is_same_release(items, then):
                more = carry_over.missing_from([*items, *found], then)
                found += more
                self.files += [str(path)] * bool(more)
        return found

    def _documents(self, target: ObjectRef) -> Iterator[tuple[Path, list[Mapping[str, Any]]]]:
        """The items of each file that can be one of the target, newest first."""
        from kubectl_harvester_stuck.restore import decisions

        try:
            files = undo_files(self._directory, of=(target.namespace, target.name))
        except RestoreError as error:
            self.unread.append(f"earlier undo files: {error}")
            return
        for item in reversed(files):
            try:
                document = decisions.load(read(item.path, is_chosen=True), str(item.path))
            except RestoreError as error:
                self.unread.append(f"an earlier undo file: {error}")
                continue
            if not document["release"].get("redacted"):
                yield item.path, document["items"]


_FILE = re.compile(r"(\d{8}T\d{12})Z_([^_]+)_([^_]+)(_[^_]+)?_[0-9a-f]{16}\.json")
"""The name of a file that `save` wrote. Neither a namespace nor a name holds an underscore; a uid
follows where the name was cut."""


@dataclass(frozen=True)
class UndoFile:
    """A file that `Backups` wrote, as far as its name tells.

    `size` is in bytes, None where it cannot be read. With `is_cut` the name is only the beginning.
    """

    path: Path
    namespace: str
    name: str
    taken_at: datetime
    size: int | None = None
    is_cut: bool = False

    def may_be_of(self, namespace: str, name: str) -> bool:
        """Whether it is a file of that VM or VMI; of a name that was cut, whether it can be."""
        if self.namespace != namespace:
            return False
        return self.name == name or (self.is_cut and name.startswith(self.name))


def undo_file(path: Path) -> UndoFile | None:
    """What the name of the file tells; None for any other file. Nothing is read."""
    found = _FILE.fullmatch(path.name)
    if found is None:
        return None
    when, namespace, name, is_cut = found.groups()
    try:
        taken_at = datetime.strptime(when, "%Y%m%dT%H%M%S%f").replace(tzinfo=timezone.utc)
    except ValueError:
        return None
    return UndoFile(path, namespace, name, taken_at, is_cut=bool(is_cut))


def undo_files(
    directory: Path, *, of: tuple[str, str] | None = None, has_to_exist: bool = False
) -> tuple[UndoFile, ...]:
    """The files in the directory, oldest first; none where it does not exist, unless it has to.

    `of` limits them to those that can be of this namespace and name. Raises RestoreError where the
    directory cannot be read.
    """
    try:
        named = [item for path in directory.iterdir() if (item := undo_file(path)) is not None]
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not has_to_exist:
            return ()
        raise RestoreError(
            f"cannot read {directory}: {error.strerror or error}; --backup-dir says"
            " where unstick saved"
        ) from error
    wanted = (_looked_at(item) for item in named if of is None or item.may_be_of(*of))
    files = (item for item in wanted if item is not None and (of is None or item.may_be_of(*of)))
    return tuple(sorted(files, key=lambda item: (item.taken_at, item.path.name)))


def _looked_at(item: UndoFile) -> UndoFile | None:
    """The same with its size, and with the whole name where it was cut; None for what is no file.

    What cannot be read is left as it is.
    """
    from kubectl_harvester_stuck.restore import decisions

    try:
        status = item.path.stat()
    except OSError:
        return item
    if not stat.S_ISREG(status.st_mode):
        return None  # to open a pipe would mean to wait for its other end
    item = replace(item, size=status.st_size)
    if not item.is_cut:
        return item
    try:
        target = decisions.load(read(item.path), str(item.path))["release"].get("target")
    except RestoreError:
        return item
    name = target.get("name") if isinstance(target, Mapping) else None
    if not isinstance(name, str) or not item.may_be_of(item.namespace, name):
        return item
    return replace(item, name=name, is_cut=False)


def read(path: Path, *, is_chosen: bool = False) -> str:
    """The text of a backup. Raises RestoreError.

    One that `is_chosen`, and was not named by the operator, has to be the operator's own.
    """
    try:
        with path.open("rb") as file:
            if is_chosen and (why := why_foreign(os.fstat(file.fileno()))):
                raise RestoreError(
                    f"{path} {why}, and may be another than unstick saved: look at it, and name"
                    " the file to use it"
                )
            content = file.read(LIMIT + 1)
        if len(content) > LIMIT:
            raise RestoreError(f"{path} is larger than {LIMIT >> 20} MiB: that is no backup")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise RestoreError(
            f"cannot read {path}: {error.strerror or error}; unstick says where it saved"
        ) from error
    except ValueError:
        raise RestoreError(f"{path} is not text; name a file that unstick saved") from None


def _complete(item: KubeObject) -> Mapping[str, Any]:
    """The object with the type that lists leave out of their items."""
    kind = item.ref.kind
    return {**item.body, "apiVersion": kind.api_version, "kind": kind.kind}


def _write(path: Path, text: str) -> None:
    """Create the file, never follow or overwrite anything, and sync it with its directory."""
    make_parents(path)
    handle = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise
    sync_parent(path)
