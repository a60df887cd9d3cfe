"""What `deploy` holds, with the real API server: it is accepted, and its commands work."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from tests.components.controlplane.server import ControlPlane
from tests.support import builders, fastyaml
from tests.support.world import World
from tests.test_prometheus import sample, samples

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
NAMESPACE = "harvester-system"
ACCOUNT = "harvester-stuck-metrics"
IMAGE = "registry.internal/harvester-stuck:test"
COMMANDS = re.findall(r"^\$ ((?!helm |skopeo ).*)$", (DEPLOY / "README.md").read_text(), re.M)
"""Those of helm are in tests/test_chart.py, that of skopeo in tests/test_image.py."""


def documents(file: str) -> list[Any]:
    return list(fastyaml.load_all((DEPLOY / file).read_text()))


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
            "-f deploy/rbac.yaml -f deploy/metrics.yaml",
            "clusterrolebinding harvester-stuck-jane",
            f"rolebinding harvester-stuck-jane -n {NAMESPACE}",
        ):
            shell(f"kubectl delete --wait=false --ignore-not-found {line}")


def plural_of(kind: str) -> str:
    """As in the path of its objects."""
    return f"{kind.lower().removesuffix('y')}{'ies' if kind.endswith('y') else 's'}"


@pytest.mark.parametrize("file", ["admission.yaml", "rbac.yaml", "metrics.yaml", "addon.yaml"])
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


def exporter() -> tuple[Any, Any]:
    """The Deployment of the exporter, and the only container of its pod."""
    (deployment,) = [item for item in documents("metrics.yaml") if item["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return deployment, container


def test_the_exporter_can_do_little_on_its_node() -> None:
    deployment, container = exporter()
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC", "volumes", "initContainers"} & set(pod)
    assert not {"env", "envFrom", "volumeMounts"} & set(container)
    assert container["resources"] == {
        "requests": {"cpu": "50m", "memory": "64Mi"},
        "limits": {"memory": "256Mi"},
    }
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}


def test_the_token_is_in_the_pod_of_the_exporter_alone() -> None:
    (account,) = [item for item in documents("metrics.yaml") if item["kind"] == "ServiceAccount"]
    pod = exporter()[0]["spec"]["template"]["spec"]
    assert (account["metadata"]["name"], account["automountServiceAccountToken"]) == (
        ACCOUNT,
        False,
    )
    assert (pod["serviceAccountName"], pod["automountServiceAccountToken"]) == (ACCOUNT, True)


def test_a_lost_node_takes_the_exporter_along_for_half_a_minute_only() -> None:
    tolerations = exporter()[0]["spec"]["template"]["spec"]["tolerations"]
    assert {(one["key"], one["effect"], one["tolerationSeconds"]) for one in tolerations} == {
        (f"node.kubernetes.io/{what}", "NoExecute", 30) for what in ("not-ready", "unreachable")
    }


def test_the_commands_of_the_readme_work_when_pasted(applied: World) -> None:
    assert len(COMMANDS) == 4
    for path, is_exporter in (
        (f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{ACCOUNT}", True),
        ("/apis/rbac.authorization.k8s.io/v1/clusterroles/harvester-stuck-operator", False),
    ):
        status, found = applied.api.request("GET", path)
        assert status == 200, found
        if is_exporter:
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
    """The container of the exporter, with the token of its account as a pod has it."""

    def __init__(self, world: World) -> None:
        self.world = world
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
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"

    @contextlib.contextmanager
    def running(self, *, port: str = "") -> Iterator[None]:
        """The container as long as it is needed; the API server is at another port if asked."""
        _, container = exporter()
        command = [
            self.address if word == "0.0.0.0:9790" else word for word in container["command"]
        ]
        assert self.address in command
        bin_ = self.world.directory / "bin"
        log = self.world.directory / "exporter.log"
        with log.open("w") as written:
            process = subprocess.Popen(
                [bin_ / command[0], *command[1:]],
                env={
                    "PATH": f"{bin_}:{os.environ['PATH']}",
                    "PYTHONPATH": str(ROOT),
                    "HOME": "/nonexistent",
                    "KUBERNETES_SERVICE_HOST": "127.0.0.1",
                    "KUBERNETES_SERVICE_PORT": port or self.world.api.url.rpartition(":")[2],
                },
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=written,
            )
        try:
            yield
        finally:
            process.terminate()
            process.wait(20)

    def scrape(self) -> dict[Any, float]:
        """What Prometheus would read; the same that the probes ask for."""
        url = f"http://{self.address}/metrics"
        answer = urllib3.request("GET", url, timeout=20, retries=False)
        assert answer.status == 200
        return samples(answer.data.decode())

    def scrape_until(self, done: Callable[[dict[Any, float]], bool]) -> dict[Any, float]:
        """The first answer of which it is so, within a minute."""
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(urllib3.exceptions.HTTPError):
                found = self.scrape()
                if done(found):
                    return found
            log = (self.world.directory / "exporter.log").read_text()
            assert time.monotonic() < deadline, log
            time.sleep(0.1)


COMPLETE = sample("harvester_stuck_list_complete")


def test_the_exporter_serves_what_is_stuck_with_the_rights_of_its_account(applied: World) -> None:
    applied.power_cut(vm=False)
    pod = Pod(applied)
    applied.api.forget()
    vm = {"namespace": applied.namespace, "kind": "VirtualMachine", "state": "Stopping"}
    stuck = sample("harvester_stuck_objects", **vm)
    with pod.running():
        found = pod.scrape_until(lambda found: stuck in found and found[COMPLETE] == 1)
        assert found[stuck] == 1
        assert sample("harvester_stuck_seconds", **vm, name="web") in found
        asked = applied.api.recorded()
        assert {item.user for item in asked} == {f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"}
        assert {item.status for item in asked} == {200}


def test_a_list_with_a_gap_is_served_as_incomplete(applied: World) -> None:
    path = f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{ACCOUNT}"
    _, role = applied.api.request("GET", path)
    role["rules"] = [rule for rule in role["rules"] if rule["resources"] != ["pods"]]
    assert applied.api.request("PUT", path, role)[0] == 200
    until_forbidden(applied, "list", "pods")
    pod = Pod(applied)
    with pod.running():
        assert pod.scrape_until(lambda found: COMPLETE in found)[COMPLETE] == 0


def until_forbidden(world: World, verb: str, resource: str) -> None:
    """Wait until the caches of the API server know that the account may not any more."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}",
            "resourceAttributes": {"verb": verb, "resource": resource},
        },
    }
    for _ in range(100):
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        status, answer = world.api.request("POST", path, review)
        assert status == 201, answer
        if not answer["status"]["allowed"]:
            return
        time.sleep(0.1)
    raise AssertionError("the account may still do it")


def test_without_an_answer_nothing_is_said_to_be_complete(applied: World) -> None:
    pod = Pod(applied)
    with pod.running(port="1"):
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            with contextlib.suppress(urllib3.exceptions.HTTPError):
                found = pod.scrape()
                assert found.get(COMPLETE, 0) == 0
                assert not any(name.startswith("harvester_stuck_objects") for name, _ in found)
            time.sleep(0.2)
