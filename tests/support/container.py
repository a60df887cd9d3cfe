"""The image, run by runc as the pod of `deploy/metrics.yaml` is: read-only, and without rights.

The network is this machine's, so that the API servers of the tests are reached.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from kubectl_harvester_stuck.errors import ExitStatus
from tests.support.world import PATIENCE, Run

_number = count(1)


@dataclass(frozen=True)
class Container:
    """What `umoci unpack` made of an image, in `bundle`."""

    bundle: Path
    mounts: Mapping[Path, str] = field(default_factory=dict)
    """Where in the container a file or folder of this machine is seen, read-only."""
    writable: Mapping[Path, str] = field(default_factory=dict)
    """The same for volumes that can be written."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """Besides what the image sets."""

    @property
    def config(self) -> dict[str, Any]:
        """The bundle's own, for runc."""
        found: dict[str, Any] = json.loads((self.bundle / "config.json").read_text())
        return found

    def run(self, *arguments: str, stdin: str = "") -> Run:
        """The entry point with these arguments."""
        command = self._runc([*self.config["process"]["args"], *arguments])
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
        return Run(ExitStatus(done.returncode), done.stdout, done.stderr)

    @contextlib.contextmanager
    def running(self, *command: str, log: Path) -> Iterator[int]:
        """The command, in place of the entry point, as long as it is needed; its process here."""
        with (
            log.open("w") as written,
            subprocess.Popen(
                self._runc(list(command)), stdin=subprocess.DEVNULL, stdout=written, stderr=written
            ) as process,
        ):
            try:
                yield process.pid
            finally:
                process.terminate()  # runc passes it on
                process.wait(20)

    def _runc(self, command: list[str]) -> list[str]:
        config = self.config
        process, linux = config["process"], config["linux"]
        process |= {"args": command, "terminal": False, "capabilities": {}}
        process["env"] = [*process["env"], *(f"{key}={self.environ[key]}" for key in self.environ)]
        config["root"] = {"path": str(self.bundle / "rootfs"), "readonly": True}
        linux["namespaces"] = [one for one in linux["namespaces"] if one["type"] != "network"]
        # The files of the kernel, which need a network of their own or the owner of the cgroups.
        config["mounts"] = [one for one in config["mounts"] if one["type"] in ("proc", "tmpfs")]
        for volumes, mode in ((self.mounts, "ro"), (self.writable, "rw")):
            config["mounts"] += [
                {"source": str(source), "destination": place, "options": ["rbind", mode]}
                for source, place in volumes.items()
            ]
        name = f"harvester-stuck-{next(_number)}"
        directory = self.bundle / name
        directory.mkdir()
        (directory / "config.json").write_text(json.dumps(config))
        state = self.bundle / "runc"
        return ["runc", "--root", str(state), "run", "--bundle", str(directory), name]
