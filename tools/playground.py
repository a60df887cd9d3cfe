"""The simulated cluster of the demo, kept running to try commands on.

Run it with `make playground`, paste the two lines that it prints into another terminal, and end it
with Ctrl-C. Kubeconfig, undo files and journal are in a temporary directory that goes with it.
"""

from __future__ import annotations

import shlex
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.support.simulator import Simulator
from tools import demo

PERIOD = 10
"""Seconds after which a kubelet renews the Lease of its node."""
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def renew_leases(api: Simulator) -> None:
    """What the kubelets of the live nodes do; without it every node would be silent soon."""
    renewed = {"spec": {"renewTime": f"{api.clock.now():%Y-%m-%dT%H:%M:%S.%fZ}"}}
    for name in demo.LIVE:
        path = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}"
        api.request("PATCH", path, renewed, content_type="application/merge-patch+json")
    api.forget()  # the record of the requests, which would grow for as long as it runs


def introduction(directory: Path, api: Simulator) -> str:
    """What the user reads, with the two lines to paste."""
    programs = shlex.quote(str(Path(sys.executable).parent))
    values = [f"{name}={shlex.quote(value)}"
              for name, value in demo.environment(directory, api).items()]  # fmt: skip
    command = " ".join((*demo.program(), "list", "-A"))
    return f"""\
A simulated cluster of three nodes is running. {demo.DEAD} has had no power for 20 minutes.
Paste these two lines into another terminal, and close that one when you have finished:

export {" ".join(values)} PATH={programs}:"$PATH"
{command}

docs/runbook.md says what to do next. Press Ctrl-C here to stop the cluster.
"""


def end(*_: object) -> None:
    """Leave, once: a second signal must not interrupt the removal of the files."""
    for number in ENDS:
        signal.signal(number, signal.SIG_IGN)
    sys.exit()


def main() -> None:
    """Start the cluster, say how to reach it, and keep its live nodes alive."""
    for number in ENDS:
        signal.signal(number, end)
    with (
        tempfile.TemporaryDirectory(prefix="playground-") as directory,
        Simulator(controllers=demo.CONTROLLERS) as api,
    ):
        demo.populate(api)
        sys.stdout.write(introduction(Path(directory), api))
        sys.stdout.flush()
        while True:
            time.sleep(PERIOD)
            renew_leases(api)


if __name__ == "__main__":
    main()
