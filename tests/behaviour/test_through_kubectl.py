"""The installed program, started by kubectl, reaches the cluster that kubectl reaches."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from kubectl_harvester_stuck.errors import ExitStatus
from tests.behaviour.conftest import Kubectl
from tests.support import builders, fastyaml
from tests.support.builders import VM_FINALIZER
from tests.support.world import QUICK, World

ROOT = Path(__file__).parents[2]


def test_list_and_unstick_work_through_kubectl(world: World, run: Kubectl) -> None:
    machine = world.delete(world.vm())
    listed = run("harvester-stuck", "list", "-o", "json")
    assert listed.returncode == 0, listed.stderr
    assert [item["name"] for item in json.loads(listed.stdout)["items"]] == ["web"]
    released = run("harvester-stuck", "unstick", "vm", "web", *QUICK, "--yes")
    assert released.returncode == 0, released.stderr
    assert world.now(machine) is None


def test_an_exit_status_passes_through_kubectl(world: World, run: Kubectl) -> None:
    world.vm()
    refused = run("harvester-stuck", "unstick", "vm", "web", "--yes")
    assert refused.returncode == ExitStatus.REFUSED


def test_of_two_files_with_two_current_contexts_the_first_counts(
    world: World, run: Kubectl, tmp_path: Path
) -> None:
    world.delete(world.vm())
    right = world.kubeconfig(context="right")
    wrong = tmp_path / "wrong"
    elsewhere = {**fastyaml.load(right.read_text()), "current-context": "wrong"}
    for section in ("clusters", "contexts"):
        elsewhere[section] = json.loads(json.dumps(elsewhere[section]).replace("right", "wrong"))
    elsewhere["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    wrong.write_text(fastyaml.dump(elsewhere))
    for files, reached in (((right, wrong), True), ((wrong, right), False)):
        environ = {**world.environ(), "KUBECONFIG": os.pathsep.join(map(str, files))}
        ours = run("harvester-stuck", "list", "-o", "name", environ=environ)
        theirs = run("get", "virtualmachines.kubevirt.io", "-o", "name", environ=environ)
        assert (ours.returncode == 0) == (theirs.returncode == 0) == reached
        assert (
            ours.stdout == theirs.stdout == ("virtualmachine.kubevirt.io/web\n" if reached else "")
        )


def test_a_kubeconfig_user_with_as_acts_as_that_user(world: World, run: Kubectl) -> None:
    machine = world.delete(world.vm())
    environ = {**world.environ(), "KUBECONFIG": str(world.kubeconfig(**{"as": "alice"}))}
    world.api.forget()
    refused = run("harvester-stuck", "unstick", "vm", "web", *QUICK, "--yes", environ=environ)
    assert refused.returncode != 0
    assert "alice" in refused.stderr
    asked = [item for item in world.api.recorded() if "harvester-stuck" in item.user_agent]
    assert {item.impersonated_user for item in asked} == {"alice"}
    assert world.finalizers(machine) == [VM_FINALIZER]


def test_the_backup_can_be_read_by_kubectl(world: World, run: Kubectl) -> None:
    world.create(builders.pvc(world.namespace, "disk-root"))
    world.delete(world.vm(spec=builders.with_disks("disk-root")))
    saved = world.unstick("--yes").item["backup"]
    read = run("create", "--dry-run=client", "--validate=false", "-o", "name", "-f", saved)
    assert read.returncode == 0, read.stderr
    assert read.stdout == "virtualmachine.kubevirt.io/web\npersistentvolumeclaim/disk-root\n"


def test_a_vm_is_restored_and_runs_as_before_with_the_command_that_is_printed(
    world: World, run: Kubectl
) -> None:
    machine = world.delete(world.vm())
    saved = world.unstick("--yes").item["backup"]
    world.restored = True
    made = run("harvester-stuck", "restore", saved, "--yes")
    assert made.returncode == 0, made.stderr
    found = world.now(machine)
    assert found is not None
    assert found["spec"]["runStrategy"] == "Halted"
    (line,) = [line for line in made.stdout.splitlines() if "kubectl patch" in line]
    program, *words = shlex.split(line)
    assert program == "kubectl"
    started = run(*words)
    assert started.returncode == 0, started.stderr
    found = world.now(machine)
    assert found is not None
    assert found["spec"] == machine["spec"]


@pytest.mark.in_process("starts this Python")
def test_python_m_is_the_same_program(world: World) -> None:
    world.vm()  # and so the namespace
    done = subprocess.run(
        [sys.executable, "-m", "kubectl_harvester_stuck", "list"],
        env=world.environ(), capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"Nothing is stuck in {world.namespace} namespace.\n"
