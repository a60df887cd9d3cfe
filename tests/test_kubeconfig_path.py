"""Which files are the kubeconfig, on Windows too, by the rules of client-go's homedir.HomeDir."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from kubectl_harvester_stuck.connection import kubeconfig_path

WINDOWS, POSIX = "nt", "posix"


@dataclass(frozen=True)
class Homes:
    """Three directories that may be home: what is set, there, writable, and has a kubeconfig."""

    unset: Sequence[str] = ()
    missing: Sequence[str] = ()
    read_only: Sequence[str] = ()
    files: Sequence[str] = ()
    """Those that are no directory."""
    configured: Sequence[str] = ()

    def environ(self, root: Path) -> dict[str, str]:
        """As the environment says it; the old variables are two halves of a path."""
        for name in ("home", "profile", "old"):
            if name in self.files:
                (root / name).write_text("")
            elif name not in self.missing:
                (root / name).mkdir()
            if name in self.configured:
                (root / name / ".kube").mkdir()
                (root / name / ".kube" / "config").write_text("")
            if name in self.read_only:
                (root / name).chmod(0o555)
        said = {
            "home": {"HOME": str(root / "home")},
            "profile": {"USERPROFILE": str(root / "profile")},
            "old": {"HOMEDRIVE": str(root), "HOMEPATH": "/old"},
        }
        return {
            key: value
            for name, words in said.items()
            if name not in self.unset
            for key, value in words.items()
        }


@pytest.mark.parametrize(
    ("homes", "chosen"),
    [
        # The first with a kubeconfig: HOME, HOMEDRIVE and HOMEPATH, USERPROFILE.
        (Homes(configured=("home", "old", "profile")), "home"),
        (Homes(configured=("old", "profile")), "old"),
        (Homes(configured=("profile",)), "profile"),
        (Homes(configured=("profile",), read_only=("profile",)), "profile"),
        (Homes(configured=("home", "profile"), unset=("home",)), "profile"),
        # Without any, the first that can be written to: HOME, USERPROFILE, HOMEDRIVE and HOMEPATH.
        (Homes(), "home"),
        (Homes(unset=("home",)), "profile"),
        (Homes(missing=("home",)), "profile"),
        (Homes(read_only=("home",)), "profile"),
        (Homes(files=("home",)), "profile"),
        (Homes(read_only=("home", "profile")), "old"),
        # Then the first that is there, then the first that is set.
        (Homes(missing=("home",), read_only=("profile", "old")), "profile"),
        (Homes(files=("profile",), missing=("home", "old")), "profile"),
        (Homes(missing=("home", "profile", "old")), "home"),
        (Homes(missing=("home", "profile", "old"), unset=("home",)), "profile"),
    ],
)
def test_the_home_directory_on_windows(homes: Homes, chosen: str, tmp_path: Path) -> None:
    found = kubeconfig_path.files(homes.environ(tmp_path), system=WINDOWS)
    assert found == [tmp_path / chosen / ".kube" / "config"]


def test_half_a_path_is_none(tmp_path: Path) -> None:
    for half in ({"HOMEDRIVE": str(tmp_path)}, {"HOMEPATH": str(tmp_path)}):
        environ = {**half, "USERPROFILE": str(tmp_path / "profile")}
        (found,) = kubeconfig_path.files(environ, system=WINDOWS)
        assert found == tmp_path / "profile" / ".kube" / "config"


def test_without_any_variable_it_is_here_as_for_kubectl() -> None:
    assert kubeconfig_path.files({}, system=WINDOWS) == [Path(".kube", "config")]


def test_elsewhere_only_home_counts(tmp_path: Path) -> None:
    environ = {
        "HOME": "/home/jane",
        "USERPROFILE": str(tmp_path),
        "HOMEDRIVE": "/",
        "HOMEPATH": "x",
    }
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").write_text("")
    assert kubeconfig_path.files(environ, system=POSIX) == [Path("/home/jane/.kube/config")]


@pytest.mark.parametrize("environ", [{}, {"HOME": ""}])
def test_without_home_it_is_below_the_current_directory_as_for_kubectl(
    environ: dict[str, str],
) -> None:
    """client-go joins what the variable says, and nothing else, with .kube/config."""
    assert kubeconfig_path.files(environ, system=POSIX) == [Path(".kube", "config")]


@pytest.mark.parametrize(
    ("listed", "parts"),
    [
        (r"C:\a;D:\b", [r"C:\a", r"D:\b"]),
        (r'"C:\with;semicolon";D:\b', [r"C:\with;semicolon", r"D:\b"]),
        (r'C:\"in;the"\middle;D:\b', [r"C:\in;the\middle", r"D:\b"]),
        (r";C:\a;;C:\a;", [r"C:\a"]),
        (r'C:\a;"C:\open;D:\b', [r"C:\a", r"C:\open;D:\b"]),
    ],
)
def test_the_parts_of_kubeconfig_on_windows(listed: str, parts: list[str]) -> None:
    found = kubeconfig_path.files({"KUBECONFIG": listed}, system=WINDOWS)
    assert [str(path) for path in found] == parts


def test_the_parts_of_kubeconfig_elsewhere() -> None:
    found = kubeconfig_path.files({"KUBECONFIG": '/a:"/b;/c":/a:'}, system=POSIX)
    assert [str(path) for path in found] == ["/a", '"/b;/c"']
