"""Measure the program beside kubectl, and write benchmarks/README.md and benchmarks/list.svg.

    python -m benchmarks [--sizes 0,100,1000,10000] [--rounds 5]

Everything runs on this machine: etcd, kube-apiserver and kubectl of the tests, and the program in
an environment into which pip installs it. Absolute times say as much of the machine as of the
program; the ratios are of commands that ran in turn on the same API server.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from benchmarks import cluster, report
from benchmarks.measure import Command, Figures, Sizes, in_turn, once
from examples import bundle
from kubectl_harvester_stuck.errors import ExitStatus
from kubectl_harvester_stuck.k8s.kinds import POD, VM, VMI, Kind
from tests.components.controlplane import build
from tests.components.controlplane.server import ControlPlane
from tests.support import builders

HERE = Path(__file__).parent
NEVER = "--older-than=0"


class Bench:
    """The API server, the kubeconfigs, and the measurements on them."""

    def __init__(self, api: ControlPlane, directory: Path, rounds: int) -> None:
        self.api = api
        self.directory = directory
        self.rounds = rounds
        self.kubectl = build.programs() / "kubectl"
        self.python = self._installed()
        self.program = self.python.with_name("kubectl-harvester_stuck")
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "KUBECONFIG": str(self._kubeconfig(api.kubeconfig(), "kubeconfig")),
            "XDG_STATE_HOME": str(directory / "state"),
        }

    def _installed(self) -> Path:
        """The Python of an environment into which pip has installed the program.

        That of the checkout is editable, which costs every start some ten milliseconds.
        """
        environment = self.directory / "venv"
        venv.create(environment, with_pip=True)
        python = environment / "bin" / "python"
        pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        subprocess.run([*pip, HERE.parent], check=True)
        return python

    def _kubeconfig(self, content: dict[str, Any], name: str) -> Path:
        path = self.directory / name
        path.write_text(yaml.safe_dump(content))
        return path

    def start_up(self) -> dict[str, Figures]:
        """What a call costs that asks no cluster."""
        commands: dict[str, Command] = {
            "python -c pass": (self.python, "-c", "pass"),
            "--help": (self.program, "--help"),
            "TAB": (self.python.with_name("kubectl_complete-harvester_stuck"), ""),
            "kubectl --help": (self.kubectl, "--help"),
        }
        return in_turn(commands, self.environ, 4 * self.rounds)

    def listing(self, pairs: int, rounds: int) -> Sizes:
        """`list -A` beside kubectl."""
        get: Command = (self.kubectl, "get", "vm,vmi", "-A")
        commands: dict[str, Command] = {
            "list -A": (self.program, "list", "-A"),
            "kubectl get vm,vmi -A": get,
            "kubectl get vm,vmi -A -o json": (*get, "-o", "json"),
        }
        figures = in_turn(commands, self.environ, rounds)
        traffic = {name: self._traffic(command) for name, command in commands.items()}
        server = median(self._server_alone() for _ in range(rounds))
        return Sizes(pairs, figures, traffic, server)

    def diagnosing(self, names: Sequence[str]) -> dict[str, tuple[Figures, tuple[int, int]]]:
        """`diagnose` of so many VMs of one namespace."""
        found = {}
        for count in (1, 30, 100):
            command: Command = (self.program, "diagnose", "vm", *names[:count], "-n", "stuck",
                                "-o", "json")  # fmt: skip
            figures = in_turn({"": command}, self.environ, self.rounds)[""]
            found[str(count)] = (figures, self._traffic(command))
        return found

    def releasing(self, names: Sequence[str]) -> tuple[float, float, int]:
        """Seconds to release 100 VMs: by `unstick --all`, and by a kubectl patch for each.

        The last figure is how many requests of ours the API server saw.
        """
        for batch in ("stuck", "by-hand"):
            _stuck(self.api, batch, names)
        command = (self.program, "unstick", "vm", "--all", "-n", "stuck", "--max=1000", NEVER,
                   "--settle=0", "--yes")  # fmt: skip
        self.api.forget()
        ours = self._once([command])
        requests = len(self.api.recorded())
        patch = ("--type=merge", "-p", '{"metadata":{"finalizers":[]}}')
        theirs = self._once(
            [(self.kubectl, "patch", "vm", name, "-n", "by-hand", *patch) for name in names]
        )
        return ours, theirs, requests

    def offline(self, pairs: int) -> dict[str, Figures]:
        """The example bundle, and one with many VMs."""
        big = self.directory / "big.zip"
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}
        objects: list[dict[str, Any]] = [space]
        for number in range(pairs):
            for body in (
                builders.vm("default", f"vm-{number}"),
                builders.vmi("default", f"vm-{number}", "node-1"),
            ):
                body["metadata"] |= {"uid": f"{body['kind']}-{number}", "resourceVersion": "1"}
                objects.append(cluster.padded(body))
        bundle.write(big, objects)
        example = ("-f", str(bundle.EXAMPLE))
        commands: dict[str, Sequence[str | Path]] = {
            "list -f example": (self.program, "list", *example),
            "diagnose -f example": (self.program, "diagnose", *example),
            f"list -f bundle of {pairs:,} VMs": (self.program, "list", "-f", big),
        }
        # The example lacks namespaces, as bundles do, so its answers are incomplete.
        return in_turn(commands, self.environ, self.rounds, (0, ExitStatus.INCOMPLETE))

    def _once(self, commands: Sequence[Sequence[str | Path]]) -> float:
        began = time.perf_counter()
        for command in commands:
            once(command, self.environ)
        return time.perf_counter() - began

    def _traffic(self, command: Sequence[str | Path]) -> tuple[int, int]:
        """Requests, as the audit log has them, and bytes received, TLS included."""
        port = int(self.api.url.rpartition(":")[2])
        with cluster.counted(port) as (near, counter):
            content = self.api.kubeconfig()
            content["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{near}"
            path = self._kubeconfig(content, "kubeconfig-counted")
            self.api.forget()
            once(command, {**self.environ, "KUBECONFIG": str(path)})
            return len(self.api.recorded()), counter.received

    def _server_alone(self) -> float:
        """The three lists of `list`, and nothing made of them."""

        def read(kind: Kind) -> None:
            form = "PartialObjectMetadataList" if kind is VM else "Table"
            accept = f"application/json;as={form};g=meta.k8s.io;v=v1"
            status, _ = self.api.request("GET", kind.path(), headers={"Accept": accept})
            assert status == 200

        began = time.perf_counter()
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(read, (VM, VMI, POD)))
        return time.perf_counter() - began


def _stuck(api: ControlPlane, namespace: str, names: Sequence[str]) -> None:
    """VMs that are being deleted, with a finalizer that nobody takes off."""
    api.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    for name in names:
        path = VM.path(namespace)
        status, answer = api.request("POST", path, builders.vm(namespace, name))
        assert status in (201, 409), answer
        api.request("DELETE", f"{path}/{name}")


def main() -> None:
    """Measure on a control plane of its own, for minutes, and write the report."""
    parser = argparse.ArgumentParser(description="Measure the program beside kubectl.")
    parser.add_argument("--sizes", default="0,100,1000,10000", help="pairs of VM and VMI")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.sizes.split(",")]
    with (
        ControlPlane() as api,
        cluster.nodes(api),
        tempfile.TemporaryDirectory() as directory,
    ):
        bench = Bench(api, Path(directory), arguments.rounds)
        start_up = bench.start_up()
        lists, have = [], 0
        for size in sizes:
            cluster.fill(api, have, size)
            have = size
            rounds = arguments.rounds if size < 10_000 else max(3, arguments.rounds // 2)
            lists.append(bench.listing(size, rounds))
            sys.stderr.write(f"{size}: {json.dumps(asdict(lists[-1]))}\n")
        names = [f"vm-{number}" for number in range(100)]
        _stuck(api, "stuck", names)
        text = report.page(
            made=time.strftime("%Y-%m-%d"),
            machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
            pythons=platform.python_version(),
            start_up=start_up,
            lists=lists,
            diagnoses=bench.diagnosing(names),
            released=bench.releasing(names),
            offline=bench.offline(5000),
        )
    (HERE / "README.md").write_text(text)
    (HERE / "list.svg").write_text(report.plot(lists))


if __name__ == "__main__":
    main()
