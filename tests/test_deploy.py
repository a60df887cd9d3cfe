"""What `deploy` holds, with the real API server: it is accepted, and its commands work."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.components.controlplane.server import ControlPlane
from tests.support import builders
from tests.support.world import World
from tests.test_prometheus import sample, samples

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
NAMESPACE = "harvester-system"
ACCOUNT = "harvester-stuck-metrics"
IMAGE = "registry.internal/harvester-stuck:test"
COMMANDS = re.findall(r"^\$ (.*)$", (DEPLOY / "README.md").read_text(), re.M)


def documents(file: str) -> list[Any]:
    return list(yaml.safe_load_all((DEPLOY / file).read_text()))


@pytest.fixture
def place(control_plane: ControlPlane, tmp_path: Path) -> Iterator[World]:
    """A namespace, a node, and the namespace of Harvester."""
    world = World(control_plane, tmp_path, "deployed", "deployed-dead", "deployed-live")
    world.create(builders.node("harvester-1", "True"))
    for name in (NAMESPACE, "longhorn-system"):
        control_plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    control_plane.forget()
    yield world
    control_plane.wipe(world.namespace)


@pytest.fixture
def shell(place: World, kubectl: Path) -> Callable[[str], None]:
    """Runs a command as it would be pasted at the top of the checkout."""
    environ = {**place.environ(), "IMAGE": IMAGE}
    environ["PATH"] = f"{kubectl.parent}:{Path(sys.executable).parent}:{environ['PATH']}"

    def run(command: str) -> None:
        done = subprocess.run(
            ["sh", "-ec", command], cwd=ROOT, env=environ, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"

    return run


@pytest.fixture
def applied(place: World, shell: Callable[[str], None]) -> Iterator[World]:
    """Everything that the commands of the README make."""
    try:
        for command in COMMANDS:
            shell(command)
        yield place
    finally:
        for line in (
            "-f deploy/rbac.yaml -f deploy/cronjob.yaml",
            "clusterrolebinding harvester-stuck-jane",
            f"rolebinding harvester-stuck-jane -n {NAMESPACE}",
            f"job first-look -n {NAMESPACE}",
        ):
            shell(f"kubectl delete --wait=false --ignore-not-found {line}")


def plural_of(kind: str) -> str:
    """As in the path of its objects."""
    return f"{kind.lower().removesuffix('y')}{'ies' if kind.endswith('y') else 's'}"


@pytest.mark.parametrize("file", ["admission.yaml", "rbac.yaml", "cronjob.yaml"])
@pytest.mark.usefixtures("place")
def test_every_object_is_accepted_field_by_field(control_plane: ControlPlane, file: str) -> None:
    for item in documents(file):
        group = "/api" if "/" not in item["apiVersion"] else "/apis"
        namespace = item["metadata"].get("namespace")
        where = f"/namespaces/{namespace}" if namespace else ""
        status, answer = control_plane.request(
            "POST",
            f"{group}/{item['apiVersion']}{where}/{plural_of(item['kind'])}"
            "?dryRun=All&fieldValidation=Strict",
            item,
        )
        assert status == 201, (item["kind"], answer)


def test_the_job_can_do_little_on_its_node() -> None:
    (job,) = [item for item in documents("cronjob.yaml") if item["kind"] == "CronJob"]
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert container["resources"]["limits"]
    assert job["spec"]["concurrencyPolicy"] == "Forbid"


def test_the_commands_of_the_readme_work_when_pasted(applied: World) -> None:
    assert len(COMMANDS) == 6
    for path, name in (
        (f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/first-look", "first-look"),
        ("/apis/rbac.authorization.k8s.io/v1/clusterroles/harvester-stuck-operator", ""),
    ):
        status, found = applied.api.request("GET", path)
        assert status == 200, found
        if name:
            (container,) = found["spec"]["template"]["spec"]["containers"]
            assert container["image"] == IMAGE
    run = applied.run("diagnose", "-A", "--as", "jane")
    assert (run.status, "orbidden" in run.out + run.err) == (0, False), run.err
    assert applied.run("diagnose", "-A", "--as", "joe").status != 0


def test_the_commands_of_the_page_on_rights_work_when_pasted(
    place: World, shell: Callable[[str], None]
) -> None:
    place.create(builders.vm("shop", "web-1"))
    commands = re.findall(r"^\$ (.*)$", (ROOT / "docs" / "rbac.md").read_text(), re.M)
    assert len(commands) == 13
    try:
        for command in commands:
            shell(command)
    finally:
        shell("kubectl delete --wait=false -f deploy/rbac.yaml")
        for kind, names in (
            ("clusterrolebinding", "jane joe"),
            ("rolebinding -n shop", "joe metrics"),
            (f"rolebinding -n {NAMESPACE}", "jane joe joe-pods"),
            ("rolebinding -n kube-node-lease", "joe"),
            ("rolebinding -n longhorn-system", "joe"),
        ):
            shell(f"kubectl delete --ignore-not-found {kind} "
                  + " ".join(f"harvester-stuck-{name}" for name in names.split()))  # fmt: skip
        place.api.wipe("shop")


def test_the_policies_warn_before_they_deny_and_go_as_they_came(
    place: World, shell: Callable[[str], None]
) -> None:
    """The commands of docs/admission.md, in their order; `kubectl` is who abuses a right."""
    enforce, check, warn, remove = re.findall(
        r"^\$ (.*)$", (ROOT / "docs" / "admission.md").read_text(), re.M
    )
    place.create(builders.vm("shop", "web-1"))
    abuse = "kubectl label vm web-1 -n shop --as jane tier=web --dry-run=server 2>&1"
    told = "ValidatingAdmissionPolicy .harvester-stuck-patch.* who may patch but not update may"
    until = "for try in $(seq 100); do {} && exit 0; sleep 0.1; done; exit 1"
    shell("kubectl apply -f deploy/rbac.yaml")
    shell(
        "kubectl create clusterrolebinding jane --clusterrole=harvester-stuck-operator --user=jane"
    )
    try:
        shell(warn)
        shell(until.format(f"{abuse} | grep -q '^Warning: .*{told}'"))
        shell(abuse)
        shell(enforce)
        shell(until.format(f"! {abuse} >/dev/null"))
        shell(f"{abuse} | grep -q '(Forbidden): .*{told}'")
        shell(f"{check} -o wide | grep '^OK *admission-policies: '")
    finally:
        shell(remove)
        shell(until.format(abuse))
        shell("kubectl delete --wait=false -f deploy/rbac.yaml")
        shell("kubectl delete clusterrolebinding jane")
        place.api.wipe("shop")


class Pod:
    """The container of the job, with the token of its account as a pod has it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.textfiles = world.directory / "textfiles"
        self.textfiles.mkdir()
        account = world.directory / "serviceaccount"
        account.mkdir()
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{ACCOUNT}/token"
        kind = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        status, answer = world.api.request("POST", path, kind)
        assert status == 201, answer
        (account / "token").write_text(answer["status"]["token"])
        # Only the real API server takes tokens, so it is a ControlPlane.
        (account / "ca.crt").write_bytes(world.api.ca_data)  # type: ignore[attr-defined]
        (account / "namespace").write_text(NAMESPACE)
        # Only the place of the token is another one than in a pod.
        program = world.directory / "bin" / "kubectl-harvester_stuck"
        program.parent.mkdir()
        program.write_text(
            f"#!{sys.executable}\n"
            "from functools import partial\n"
            "from pathlib import Path\n"
            "from kubectl_harvester_stuck.cli import main as cli\n"
            "from kubectl_harvester_stuck.connection import kubeconfig\n"
            f"place = Path({str(account)!r})\n"
            "kubeconfig.load = partial(kubeconfig.load, service_account=place)\n"
            "cli.main()\n"
        )
        program.chmod(0o755)

    @property
    def metrics(self) -> dict[Any, float]:
        """What node_exporter would read; nothing else is left in the folder."""
        (file,) = self.textfiles.iterdir()
        assert file.name == "harvester-stuck.prom"
        assert file.stat().st_mode & 0o444 == 0o444
        return samples(file.read_text())

    def run(self, *, port: str = "") -> int:
        """The job once; its exit status."""
        (job,) = [item for item in documents("cronjob.yaml") if item["kind"] == "CronJob"]
        (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        path = f"{self.world.directory / 'bin'}:{os.environ['PATH']}"
        done = subprocess.run(
            container["command"],
            env={
                "PATH": path,
                "PYTHONPATH": str(ROOT),
                "HOME": "/nonexistent",
                "DIRECTORY": str(self.textfiles),
                "KUBERNETES_SERVICE_HOST": "127.0.0.1",
                "KUBERNETES_SERVICE_PORT": port or self.world.api.url.rpartition(":")[2],
            },
            capture_output=True,
            text=True,
        )
        self.err = done.stderr
        return done.returncode


def test_the_job_writes_what_is_stuck_with_the_rights_of_its_account(applied: World) -> None:
    applied.power_cut(vm=False)
    pod = Pod(applied)
    applied.api.forget()
    assert pod.run() == 0, pod.err
    vm = {"namespace": applied.namespace, "kind": "VirtualMachine", "state": "Stopping"}
    assert pod.metrics[sample("harvester_stuck_objects", **vm)] == 1
    assert sample("harvester_stuck_seconds", **vm, name="web") in pod.metrics
    assert pod.metrics[sample("harvester_stuck_list_complete")] == 1
    asked = applied.api.recorded()
    assert {item.user for item in asked} == {f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"}
    assert {item.status for item in asked} == {200}


def test_a_list_with_a_gap_is_written_and_fails_the_job(applied: World) -> None:
    pod = Pod(applied)
    path = f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{ACCOUNT}"
    _, role = applied.api.request("GET", path)
    role["rules"] = [rule for rule in role["rules"] if rule["resources"] != ["pods"]]
    assert applied.api.request("PUT", path, role)[0] == 200
    for _ in range(50):  # until the caches of the API server know
        if pod.run() != 0:
            break
    assert pod.run() == 6, pod.err
    assert pod.metrics[sample("harvester_stuck_list_complete")] == 0


def test_without_an_answer_the_old_metrics_stay_and_get_old(applied: World) -> None:
    pod = Pod(applied)
    assert pod.run() == 0, pod.err
    before = pod.metrics
    assert pod.run(port="1") == 1
    assert pod.metrics == before
