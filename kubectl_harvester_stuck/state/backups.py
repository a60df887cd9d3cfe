"""Objects are saved here before the first of them is changed.

A file is a `List` that kubectl reads, with the plan beside the items. VM specs can hold cloud-init
secrets, so the directory is 0700 and the files are 0600.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from kubectl_harvester_stuck.errors import BackupError, RestoreError
from kubectl_harvester_stuck.k8s.objects import KubeObject, format_time
from kubectl_harvester_stuck.release.model import Plan
from kubectl_harvester_stuck.state.private_files import NO_FOLLOW, make_parents, sync_parent

NAME_LENGTH = 150
"""Characters of namespace and name in the name of a file."""

LIMIT = 64 << 20
"""Bytes of the largest file that is taken for a backup."""


def state_directory(environ: Mapping[str, str], home: Path) -> Path:
    """Where this program keeps its files: the XDG state directory, or Windows' own."""
    if sys.platform == "win32":
        base = Path(environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    else:
        base = Path(environ.get("XDG_STATE_HOME") or home / ".local" / "state")
    return base / "kubectl-harvester-stuck"


@dataclass(frozen=True)
class Backups:
    """Files of one run in `directory`."""

    directory: Path
    context: str
    server: str
    version: str
    now: datetime

    def save(
        self, plan: Plan, objects: Sequence[KubeObject], digest: str, not_saved: Sequence[str] = ()
    ) -> str:
        """Write the objects and the plan, and return only when they are on the disk.

        `not_saved` names what belongs to the target and could not be read. Raises BackupError.
        """
        # Both can be long, and the name of a file may have 255 bytes.
        target = f"{plan.ref.namespace}_{plan.ref.name}"
        if len(target) > NAME_LENGTH:
            target = f"{target[:NAME_LENGTH]}_{plan.uid[:36]}"
        name = f"{self.now:%Y%m%dT%H%M%S%fZ}_{target}_{digest}.json"
        path = self.directory / name
        document = {
            "apiVersion": "v1",
            "kind": "List",
            "metadata": {},
            "items": [_complete(item) for item in objects],
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
                "notSaved": list(not_saved),
            },
        }
        try:
            _write(path, json.dumps(document, indent=1, sort_keys=True) + "\n")
        except OSError as error:
            raise BackupError(
                f"cannot save {plan.ref} in {self.directory}: {error.strerror or error};"
                " nothing was changed, try another --backup-dir"
            ) from error
        return str(path)


_FILE = re.compile(r"(\d{8}T\d{12})Z_([^_]+)_([^_]+)_[0-9a-f]{16}\.json")
"""The name of a file that `save` wrote. Neither a namespace nor a name holds an underscore."""


@dataclass(frozen=True)
class UndoFile:
    """A file that `Backups` wrote, as far as its name tells."""

    path: Path
    namespace: str
    name: str
    taken_at: datetime


def undo_file(path: Path) -> UndoFile | None:
    """What the name of the file tells; None for any other file. Nothing is read."""
    found = _FILE.fullmatch(path.name)
    if found is None:
        return None
    when, namespace, name = found.groups()
    try:
        taken_at = datetime.strptime(when, "%Y%m%dT%H%M%S%f").replace(tzinfo=timezone.utc)
    except ValueError:
        return None
    return UndoFile(path, namespace, name, taken_at)


def undo_files(directory: Path) -> tuple[UndoFile, ...]:
    """The files in the directory, oldest first; none where it does not exist.

    Raises RestoreError where it cannot be read.
    """
    try:
        found = [undo_file(path) for path in directory.iterdir()]
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise RestoreError(f"cannot read {directory}: {error.strerror or error}") from error
    files = (item for item in found if item is not None)
    return tuple(sorted(files, key=lambda item: (item.taken_at, item.path.name)))


def read(path: Path) -> str:
    """The text of a backup. Raises RestoreError."""
    try:
        with path.open("rb") as file:
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


def _complete(item: KubeObject) -> Mapping[str, object]:
    """The object with the type that lists leave out of their items."""
    kind = item.ref.kind
    return {**item.body, "apiVersion": kind.api_version, "kind": kind.kind}


def _write(path: Path, text: str) -> None:
    """Create the file, never follow or overwrite anything, and sync it with its directory."""
    make_parents(path)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_FOLLOW, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise
    sync_parent(path)
