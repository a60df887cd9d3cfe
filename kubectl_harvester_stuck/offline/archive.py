"""The files of a support bundle: a zip that is read in place, or its unpacked folder.

Nothing is ever unpacked, so that no name in an archive can reach the disk. Members that are larger
than they may be, or than they say, are refused while they are read.
"""

from __future__ import annotations

import io
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol, cast

from kubectl_harvester_stuck.errors import DumpError

MEMBER_LIMIT = 1 << 30
"""Bytes of one member that are read at most."""

MEMBERS_LIMIT = 500_000
"""Members that an archive may have; bundles of large clusters have some ten thousand."""


class Archive(Protocol):
    """Members by their name, with `/` between its parts."""

    @property
    def name(self) -> str:
        """What the operator called it."""

    @property
    def written(self) -> datetime:
        """When the file, or its newest member, was last written."""

    def sizes(self) -> Mapping[str, int]:
        """Every member with its size in bytes. Raises DumpError.

        A folder that is not looked into is a member whose name ends with `/`.
        """

    def open(self, member: str) -> AbstractContextManager[BinaryIO]:
        """The member's bytes, as a context. Raises DumpError, also while they are read."""


class _OnDisk:
    """What is somewhere in the file system."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def name(self) -> str:
        """The path that the operator gave."""
        return str(self._path)

    @property
    def written(self) -> datetime:
        """The modification time of the file or folder, in UTC."""
        return datetime.fromtimestamp(self._path.stat().st_mtime, timezone.utc)


class Folder(_OnDisk):
    """An unpacked bundle."""

    def sizes(self) -> Mapping[str, int]:
        """Every file below it, in bytes; what is not opened has none. DumpError for too many.

        A link could lead anywhere, and bundles have none. It is named nevertheless, like a folder
        that this user may not read: what is left out would seem to hold nothing. Where it leads
        nowhere, only its name tells that it stands for a folder.
        """
        found: dict[str, int] = {}
        closed: list[OSError] = []
        for folder, folders, files in os.walk(self._path, onerror=closed.append):
            for name in (*files, *folders):
                path = Path(folder, name)
                status = path.lstat()
                if not stat.S_ISDIR(status.st_mode):
                    is_file = stat.S_ISREG(status.st_mode)
                    member = path.relative_to(self._path).as_posix()
                    if name in folders:
                        member = f"{member}/"
                    elif not is_file:
                        member = _closed(member)
                    found[member] = status.st_size if is_file else 0
            if len(found) > MEMBERS_LIMIT:
                raise DumpError(f"{self.name} holds more than {MEMBERS_LIMIT} files")
        for error in closed:
            found[f"{Path(error.filename).relative_to(self._path).as_posix()}/"] = 0
        return found

    @contextmanager
    def open(self, member: str) -> Iterator[BinaryIO]:
        """The bytes of the file. DumpError where it cannot be read, is none, or is too large."""
        name = f"{self.name}/{member}"
        try:
            # To open a pipe would mean to wait for its other end.
            if not stat.S_ISREG((self._path / member).lstat().st_mode):
                raise DumpError(f"{name} is a link or no file, and is not opened: copy it again")
            with (self._path / member).open("rb") as file:
                yield cast(BinaryIO, _Bounded(file, name))
        except OSError as error:
            raise DumpError(f"{name}: {error.strerror or error}") from error


class Zip(_OnDisk):
    """A zip that is read where it is. Raises DumpError where it is none."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise DumpError(f"{path} is not a whole zip archive ({error}): copy it again") from None
        except OSError as error:
            raise DumpError(f"{path}: {error.strerror or error}") from error

    def sizes(self) -> Mapping[str, int]:
        """Every file in it, in unpacked bytes. DumpError for too many files.

        A link is named as in an unpacked bundle.
        """
        members = self._zip.infolist()
        if len(members) > MEMBERS_LIMIT:
            raise DumpError(f"{self.name} holds more than {MEMBERS_LIMIT} members")
        return {
            _closed(member.filename) if _is_link(member) else member.filename: member.file_size
            for member in members
            if not member.is_dir() and _is_plain(member.filename)
        }

    @contextmanager
    def open(self, member: str) -> Iterator[BinaryIO]:
        """The unpacked bytes. DumpError where they are damaged, encrypted or too large."""
        name = f"{self.name}:{member}"
        try:
            if _is_link(self._zip.getinfo(member)):
                raise DumpError(f"{name} is a link, and is not opened: copy the bundle again")
            with self._zip.open(member) as file:
                yield cast(BinaryIO, _Bounded(cast(BinaryIO, file), name))
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise DumpError(f"{name} is damaged ({error}): copy the bundle again") from None
        except (RuntimeError, KeyError) as error:  # encrypted, or named twice
            raise DumpError(f"{name} cannot be read: {error}") from None
        except OSError as error:
            raise DumpError(f"{name}: {error.strerror or error}") from error


def _is_called_a_file(name: str) -> bool:
    """Whether the files of a bundle that are read have such names, and its folders have none."""
    return name.endswith((".yaml", ".log"))


def _closed(name: str) -> str:
    """The member that a link stands for."""
    return name if _is_called_a_file(name) else f"{name}/"


def _is_link(member: zipfile.ZipInfo) -> bool:
    # The mode of Unix, where the archive was made on one.
    return stat.S_ISLNK(member.external_attr >> 16)


def _is_plain(name: str) -> bool:
    """Whether a member's name stays below the archive, as all of a bundle do."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name


class _Bounded(io.RawIOBase):
    """Reads no more than a member may hold: what a zip says of its size can be wrong."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self._left = MEMBER_LIMIT

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            size = self._left + 1
        data = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise DumpError(f"{self._name} is larger than {MEMBER_LIMIT >> 20} MiB")
        return data
