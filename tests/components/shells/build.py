"""zsh and bash-completion: those of this machine, otherwise the packages of its distribution.

    python -m tests.components.shells.build

prints the directory that stands for `/`. The packages are unpacked into the cache; nothing is
installed, and apt's own state stays as it is.
"""

from __future__ import annotations

import platform
import tempfile
from pathlib import Path

from tests.support.built import BuildError, main, once, run

PACKAGES = ("bash-completion", "zsh", "zsh-common")
BASH_COMPLETION = "usr/share/bash-completion/bash_completion"
ZSH = "bin/zsh"


def root() -> Path:
    """The directory below which `ZSH` and `BASH_COMPLETION` are. Raises BuildError."""
    if _is_complete(Path("/")):
        return Path("/")
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    name = "-".join((release.get("ID", ""), release.get("VERSION_ID", ""), platform.machine()))
    try:
        return once("shells", name, _unpack)
    except BuildError as error:
        raise BuildError(f"{error}: install zsh and bash-completion") from error


def _is_complete(directory: Path) -> bool:
    return all((directory / name).is_file() for name in (ZSH, BASH_COMPLETION))


def _unpack(directory: Path) -> None:
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".new-") as name:
        scratch = Path(name)
        for part in ("lists/partial", "archives/partial", "root"):
            (scratch / part).mkdir(parents=True)
        apt = ["apt-get", "--quiet", f"-oDir::State::Lists={scratch}/lists"]
        apt += [f"-oDir::Cache={scratch}", "-oDebug::NoLocking=1", "-oAPT::Sandbox::User="]
        run([*apt, "update"], scratch)
        run([*apt, "download", *PACKAGES], scratch)
        for package in sorted(scratch.glob("*.deb")):
            run(["dpkg-deb", "--extract", str(package), "root"], scratch)
        if not _is_complete(scratch / "root"):
            raise BuildError(f"{', '.join(PACKAGES)} hold no {ZSH} or no {BASH_COMPLETION}")
        (scratch / "root").rename(directory)


if __name__ == "__main__":
    main(root)
