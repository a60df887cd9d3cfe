"""Opening files of our own, as on a system that has no flag against symbolic links."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from kubectl_harvester_stuck.state.private_files import open_private

APPEND = os.O_RDWR | os.O_APPEND | os.O_CREAT
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL
NO_FLAG = 0
"""As Windows, which has no O_NOFOLLOW."""


@pytest.mark.parametrize("flags", [APPEND, NEW])
def test_a_file_is_opened_without_the_flag(tmp_path: Path, flags: int) -> None:
    handle = open_private(tmp_path / "file", flags, no_follow=NO_FLAG)
    os.write(handle, b"a\n")
    os.close(handle)
    assert (tmp_path / "file").read_bytes() == b"a\n"
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("flags", [APPEND, NEW])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_is_not_followed_without_the_flag(
    tmp_path: Path, flags: int, is_there: bool
) -> None:
    link, other = tmp_path / "link", tmp_path / "other"
    link.symlink_to(other)
    if is_there:
        other.touch()
    with pytest.raises(OSError, match="symbolic links") as caught:
        open_private(link, flags, no_follow=NO_FLAG)
    assert caught.value.errno == errno.ELOOP
    assert other.exists() is is_there, "a file was made where the link leads"


def test_a_link_that_appears_meanwhile_is_not_followed_without_the_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, other = tmp_path / "link", tmp_path / "other"
    other.touch()
    link.symlink_to(other)
    monkeypatch.setattr(Path, "is_symlink", lambda _: False)
    with pytest.raises(OSError, match="symbolic links"):
        open_private(link, APPEND, no_follow=NO_FLAG)
    # Whatever was opened is closed again: its number is free.
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    with pytest.raises(OSError, match="symbolic links"):
        open_private(link, APPEND, no_follow=NO_FLAG)
    assert os.open(os.devnull, os.O_RDONLY) == free
    os.close(free)
