"""Start the program under Wine, with the directories that its environment names.

Wine gives every process the directories of its own user; `start.py` puts those in their place that
are meant. Python for Windows takes no streams there but pipes.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from tests.components.windows import wine

MEANT = "MEANT_"
"""Before the names of variables that Wine sets itself."""


def run(home: str, tree: str) -> NoReturn:
    """The program of `tree` on the Windows in `home`, with the arguments of this process."""
    place = Path(home)
    wine.start_server(place)
    command = [wine.program("wine64"), str(place / "python" / "python.exe")]
    command += [str(Path(__file__).with_name("start.py")), *sys.argv[1:]]
    environ = windows_environ(wine.environ(place, os.environ)) | {"PYTHONPATH": wine.path(tree)}
    if all(stat.S_ISFIFO(os.fstat(number).st_mode) for number in range(3)):
        os.execve(command[0], command, environ)
    done = subprocess.run(command, env=environ, input=b"", capture_output=True, check=False)
    sys.stdout.buffer.write(done.stdout)
    sys.stderr.buffer.write(done.stderr)
    sys.exit(done.returncode)


def windows_environ(given: Mapping[str, str]) -> dict[str, str]:
    """The same environment as a user of Windows has it."""
    made = dict(given)
    if "KUBECONFIG" in given:
        made["KUBECONFIG"] = ";".join(map(wine.path, given["KUBECONFIG"].split(":")))
    if "XDG_STATE_HOME" in given:
        made[f"{MEANT}LOCALAPPDATA"] = wine.path(given["XDG_STATE_HOME"])
    if "HOME" in given:
        made[f"{MEANT}USERPROFILE"] = wine.path(given["HOME"])
    return made
