"""Build the archive that Krew installs, for the machine that this runs on.

    python krew/build.py [--output dist]

writes kubectl-harvester-stuck_v<version>_<os>_<arch>.tar.gz (.zip on Windows) and, beside it, its
checksum in a file .sha256 and its bill of materials (CycloneDX) in a file .cdx.json. The same
sources, pins and Python give the same bytes: the time in the archive is SOURCE_DATE_EPOCH, or else
that of the last commit that changed what goes into it (for which git needs the history: no shallow
clone).

What goes into it is pinned in requirements.txt, with its checksums, and installed once for each
set of pins, outside the tree, under ``$XDG_CACHE_HOME`` (``~/.cache``). On Linux the archive runs
where glibc is at least that of this Python: build releases where it is old. It also needs zlib,
with which PyInstaller's start of the program is linked.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import platform
import re
import shutil
import ssl
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "krew" / "requirements.txt"
SPEC = ROOT / "krew" / "plugin.spec"
NAME = "kubectl-harvester-stuck"
PROGRAM = "kubectl-harvester_stuck"
# What a release has an archive for. Each is built on a machine of its kind.
PLATFORMS = (
    ("darwin", "amd64"),
    ("darwin", "arm64"),
    ("linux", "amd64"),
    ("linux", "arm64"),
    ("windows", "amd64"),
)
# What decides, together with Python, what is in the archive.
SOURCES = ("kubectl_harvester_stuck", "krew", "LICENSE")
# Most systems; Windows; Fedora and its kin.
PYTHON_LICENCES = (
    Path(os.__file__).with_name("LICENSE.txt"),
    Path(sys.base_prefix, "LICENSE.txt"),
    Path(f"/usr/share/licenses/python3.{sys.version_info.minor}-libs/LICENSE"),
)
NO_COMMIT = 1767225600  # 2026-01-01, for sources that are not in git


class BuildError(Exception):
    """The archive cannot be built; the message says why."""


def version() -> str:
    """The program's version as Krew spells it: ``v0.1.0``. Raises BuildError."""
    text = (ROOT / "kubectl_harvester_stuck" / "__init__.py").read_text()
    found = re.search(r'^__version__ = "(.+)"$', text, re.M)
    if not found:
        raise BuildError("kubectl_harvester_stuck/__init__.py has no __version__")
    return f"v{found[1]}"


def archive_name(release: str, system: str, architecture: str) -> str:
    """The name of the archive for a platform."""
    suffix = "zip" if system == "windows" else "tar.gz"
    return f"{NAME}_{release}_{system}_{architecture}.{suffix}"


def machine() -> tuple[str, str]:
    """Operating system and architecture of this machine, as Go names them."""
    architecture = platform.machine().lower()
    names = {"x86_64": "amd64", "aarch64": "arm64"}
    return platform.system().lower(), names.get(architecture, architecture)


def build(output: Path) -> Path:
    """Write the archive and its checksum into `output`; the archive. Raises BuildError."""
    system, architecture = machine()
    if system != "windows" and not shutil.which("strip"):
        raise BuildError("there is no strip on PATH; on Debian: apt install binutils")
    epoch = source_date()
    environment = _environment()
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch, "tree")
        tree.mkdir()
        shutil.copy(ROOT / "LICENSE", tree)
        _copy_licences(environment, tree / "licenses")
        _freeze(environment, tree, Path(scratch, "work"), epoch)
        output.mkdir(parents=True, exist_ok=True)
        archive = output / archive_name(version(), system, architecture)
        write = _write_zip if system == "windows" else _write_tar
        write(archive, tree, epoch)
        bill = _bill(environment, tree)
    digest = sha256(archive.read_bytes())
    Path(f"{archive}.sha256").write_text(f"{digest}  {archive.name}\n")
    bill["metadata"]["component"] |= {"hashes": [{"alg": "SHA-256", "content": digest}]}
    Path(f"{archive}.cdx.json").write_text(f"{json.dumps(bill, indent=1)}\n")
    return archive


def source_date() -> int:
    """The time of everything in the archive, in seconds since 1970."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    try:
        found = run("git", "-C", str(ROOT), "log", "-1", "--format=%ct", "--", *SOURCES)
    except BuildError:
        return NO_COMMIT
    return int(found or NO_COMMIT)


def _environment() -> Path:
    """A virtual environment with the pinned packages and nothing else."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", NAME, "krew-packages")
    pins = REQUIREMENTS.read_bytes()
    key = sha256(f"{sys.base_prefix}\0{sys.version}\0".encode() + pins)[:16]
    environment = cache / key
    if environment.is_dir():
        return environment
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".new-") as scratch:
        new = Path(scratch, key)
        run(sys.executable, "-m", "venv", str(new))
        pip = [str(_python(new)), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        checked = ("--require-hashes", "--only-binary=:all:", "--no-deps", "--no-compile")
        run(*pip, *checked, "--requirement", str(REQUIREMENTS))
        try:
            new.rename(environment)
        except OSError:
            if not environment.is_dir():  # else another build was faster
                raise
    return environment


def _python(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _freeze(environment: Path, tree: Path, work: Path, epoch: int) -> None:
    """Let PyInstaller write the program, and everything that it needs, into `tree`."""
    options = [f"--distpath={tree}", f"--workpath={work}", "--log-level=ERROR"]
    run(
        *(str(_python(environment)), "-m", "PyInstaller", *options, str(SPEC)),
        PYINSTALLER_CONFIG_DIR=str(work),
        PYTHONHASHSEED="1",
        PYTHONPATH="",
        SOURCE_DATE_EPOCH=str(epoch),
    )


def _copy_licences(environment: Path, directory: Path) -> None:
    """Copy the licences of everything that the archive is made from."""
    licences = {
        f"{package.name}-{Path(file).name}": Path(str(package.locate_file(file)))
        for package in _packages(environment)
        for file in package.files or ()
        if ".dist-info" in str(file) and re.match(r"licen[cs]e|copying|notice", file.name, re.I)
    }
    licences["Python-LICENSE.txt"] = _python_licence()
    directory.mkdir()
    for name, licence in licences.items():
        shutil.copy(licence, directory / name)


def _python_licence() -> Path:
    """The licence of this Python, which has to go with it. Raises BuildError."""
    for path in PYTHON_LICENCES:
        if path.is_file():
            return path
    raise BuildError(f"{sys.executable} comes without its licence: use another Python")


def _bill(environment: Path, tree: Path) -> dict[str, Any]:
    """What the archive is made from, as CycloneDX wants it: packages, Python, and every file."""
    installed = {_normal(one.name): one.version for one in _packages(environment)}
    parts = [
        _part(name, number, f"pkg:pypi/{name}@{number}")
        for name, number in sorted(installed.items())
    ]
    # The libraries that come with Python and have releases, and advisories, of their own.
    openssl = ssl.OPENSSL_VERSION.split()[1]
    for name, vendor, number in (
        ("python", "python", platform.python_version()),
        ("openssl", "openssl", openssl),
        ("zlib", "zlib", zlib.ZLIB_RUNTIME_VERSION),
    ):
        part = _part(name, number, f"pkg:generic/{name}@{number}")
        parts.append({**part, "cpe": f"cpe:2.3:a:{vendor}:{name}:{number}:*:*:*:*:*:*:*"})
    files = [
        {
            "type": "file",
            "name": path,
            "hashes": [{"alg": "SHA-256", "content": sha256(content)}],
        }
        for path, content, _ in _files(tree)
    ]
    program = {"type": "application", "name": NAME, "version": version().removeprefix("v")}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": program},
        "components": [*parts, *files],
    }


def _part(name: str, number: str, purl: str) -> dict[str, Any]:
    return {"type": "library", "bom-ref": purl, "name": name, "version": number, "purl": purl}


def _normal(name: str) -> str:
    """A package's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def sha256(content: bytes) -> str:
    """The checksum, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def _packages(environment: Path) -> list[Distribution]:
    """What is installed there, without pip, which only installed it."""
    (packages,) = environment.glob("[Ll]ib/**/site-packages")
    return [package for package in distributions(path=[str(packages)]) if package.name != "pip"]


def _files(tree: Path) -> Iterator[tuple[str, bytes, int]]:
    """Path, content and mode of every file in `tree`, sorted; links are followed."""
    found = (
        Path(directory, name)
        for directory, _, names in os.walk(tree, followlinks=True)
        for name in names
    )
    for file in sorted(found):
        mode = 0o755 if file.stem == PROGRAM else 0o644
        yield file.relative_to(tree).as_posix(), file.read_bytes(), mode


def _write_tar(archive: Path, tree: Path, epoch: int) -> None:
    with (
        archive.open("wb") as out,
        gzip.GzipFile("", "wb", 9, out, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for path, content, mode in _files(tree):
            entry = tarfile.TarInfo(path)  # owned by 0:0, which have no name
            entry.size, entry.mode, entry.mtime = len(content), mode, epoch
            tar.addfile(entry, io.BytesIO(content))


def _write_zip(archive: Path, tree: Path, epoch: int) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for path, content, mode in _files(tree):
            entry = zipfile.ZipInfo(path, time.gmtime(epoch)[:6])
            entry.external_attr = mode << 16
            packed.writestr(entry, content, zipfile.ZIP_DEFLATED)


def run(*command: str, **environ: str) -> str:
    """Run `command`; its standard output. Raises BuildError with its last words."""
    try:
        done = subprocess.run(  # noqa: S603 - commands of this file
            command, env={**os.environ, **environ}, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise BuildError(f"cannot run {command[0]}: {error}") from error
    if done.returncode:
        words = (done.stderr or done.stdout).strip()
        raise BuildError(f"{command[0]} failed ({done.returncode}):\n{words[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build the archive that Krew installs.")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="default: %(default)s")
    arguments = parser.parse_args()
    try:
        sys.stdout.write(f"{build(arguments.output)}\n")
    except (BuildError, OSError, ValueError) as failure:
        sys.exit(f"error: {failure}")
