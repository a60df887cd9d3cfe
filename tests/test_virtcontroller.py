"""A release beside KubeVirt's own virt-controller: it does what it still can, we do the rest.

The test plays kubelet, virt-handler and virt-api's webhook: it binds the virt-launcher pod, writes
the status of pod and VMI, and falls silent when the node loses its power.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kubectl_harvester_stuck.errors import ExitStatus
from kubectl_harvester_stuck.k8s.kinds import LEASE_NAMESPACE, POD, VM, VMI
from tests.components.controlplane.server import ControlPlane
from tests.components.virtcontroller.server import USER, VirtController
from tests.support import builders
from tests.support.beside import wait
from tests.support.world import Run, World, before, check_patches

MERGE = "application/merge-patch+json"
MINUTES = timedelta(minutes=20)
AT_ONCE = "--older-than=0"

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def real() -> Iterator[ControlPlane]:
    """An API server of its own: virt-controller sees everything in it."""
    with ControlPlane(users={USER: ("system:masters",)}) as server:
        yield server


@pytest.fixture(scope="module")
def controller(
    real: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VirtController]:
    with VirtController(real, tmp_path_factory.mktemp("virt-controller")) as program:
        yield program


class Place(World):
    """A namespace in which virt-controller works."""

    def patch(self, path: str, body: Any) -> None:
        status, answer = self.api.request("PATCH", path, body, content_type=MERGE)
        assert status == 200, answer

    def there(self, kind: Any, name: str = "web") -> dict[str, Any] | None:
        status, answer = self.api.request("GET", kind.path(self.namespace, name))
        return answer if status == 200 else None

    def existing(self, kind: Any) -> dict[str, Any]:
        """The same, of one that has to be there."""
        found = self.there(kind)
        assert found is not None, f"{kind.kind} web is gone"
        return found

    def launchers(self) -> list[dict[str, Any]]:
        """The virt-launcher pods that exist."""
        status, answer = self.api.request("GET", POD.path(self.namespace))
        assert status == 200, answer
        return [item for item in answer["items"] if item["metadata"]["name"].startswith("virt-")]

    def running(self) -> None:
        """A VM that runs on the node that is going to lose its power."""
        self._node(self.dead, age=timedelta(seconds=5), ready="True", handler=True)
        self._node(self.live, age=timedelta(seconds=5), ready="True", handler=True)
        domain = {"devices": {}, "resources": {"requests": {"memory": "64Mi"}}}
        spec = {"runStrategy": "RerunOnFailure", "template": {"spec": {"domain": domain}}}
        self.create({"apiVersion": VM.api_version, "kind": VM.kind, "spec": spec,
                     "metadata": {"namespace": self.namespace, "name": "web"}})  # fmt: skip
        wait(lambda: len(self.launchers()) == 1, lambda: "no virt-launcher pod is made")
        # What virt-api's webhook puts on every VMI.
        self.patch(VMI.path(self.namespace, "web"),
                   {"metadata": {"finalizers": list(builders.VMI_FINALIZERS)}})  # fmt: skip
        (pod,) = self.launchers()
        path = POD.path(self.namespace, pod["metadata"]["name"])
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod["metadata"]["name"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": self.dead},
        }
        status, answer = self.api.request("POST", f"{path}/binding", binding)
        assert status == 201, answer
        state = {"running": {"startedAt": before(timedelta())}}
        statuses = [
            {"name": item["name"], "state": state, "ready": True, "restartCount": 0,
             "image": item["image"], "imageID": ""}
            for item in pod["spec"]["containers"]
        ]  # fmt: skip
        ready = [{"type": "Ready", "status": "True"}]
        self.patch(f"{path}/status", {"status": {"phase": "Running", "conditions": ready,
                                                 "containerStatuses": statuses}})  # fmt: skip
        wait(lambda: self.phase() == "Scheduled", lambda: "the VMI is not handed to virt-handler")
        running = {"status": {"phase": "Running", "nodeName": self.dead}}
        self.patch(VMI.path(self.namespace, "web"), running)
        wait(lambda: self.printed() == "Running", lambda: "the VM does not run")

    def phase(self) -> str | None:
        found = self.there(VMI)
        return found["status"].get("phase") if found else None

    def printed(self) -> str | None:
        found = self.there(VM)
        return found.get("status", {}).get("printableStatus") if found else None

    def power_off(self) -> None:
        """Every sign of life of the node is 20 minutes old from now on."""
        then = before(MINUTES)
        node = f"/api/v1/nodes/{self.dead}"
        self.patch(node, {"metadata": {"annotations": {"kubevirt.io/heartbeat": then}}})
        conditions = [{"type": "Ready", "status": "Unknown"}]
        self.patch(f"{node}/status", {"status": {"conditions": conditions}})
        lease = builders.lease(self.dead, then)
        self.patch(
            f"/apis/coordination.k8s.io/v1/namespaces/{LEASE_NAMESPACE}/leases/{self.dead}",
            {"spec": lease["spec"]},
        )
        for body in (builders.node(self.dead), lease):
            found = self.api.get(body)
            assert found is not None
            self.stored_when_it_says(found)
        handler = builders.virt_handler(self.dead, ready=False)
        path = POD.path(handler["metadata"]["namespace"], handler["metadata"]["name"])
        self.patch(f"{path}/status", {"status": handler["status"]})

    def release(self, *, settle: str) -> Run:
        """`unstick`, on the operator's word that the node has no power."""
        self.api.forget()
        return self.run(
            *("unstick", "vm", "web", "--yes", "--node-powered-off", self.dead, AT_ONCE),
            *("--settle", settle, "--timeout", "60s", "-o", "json"),
        )


@pytest.fixture
def place(real: ControlPlane, tmp_path: Path) -> Iterator[Place]:
    number = next(_numbers)
    made = Place(real, tmp_path, f"shop-{number}", f"node-{number}-dead", f"node-{number}-live")
    yield made
    check_patches(made.sent())
    real.wipe(made.namespace)


def delete(place: Place, policy: str = "Background") -> None:
    """Delete the VM as a user would; what virt-controller can do of it by itself is then done."""
    path = VM.path(place.namespace, "web")
    status, answer = place.api.request("DELETE", path, {"propagationPolicy": policy})
    assert status == 200, answer

    def stands() -> bool:
        instance = place.there(VMI)
        pods = place.launchers()
        dying = [item for item in (instance, *pods) if item]
        return len(dying) == 2 and all("deletionTimestamp" in x["metadata"] for x in dying)

    wait(stands, lambda: "virt-controller does not delete VMI and pod")


@pytest.mark.usefixtures("controller")
def test_virt_controller_does_the_rest_once_the_pod_is_gone(place: Place) -> None:
    place.running()
    place.power_off()
    delete(place)
    assert set(place.finalizers(place.existing(VMI))) == set(builders.VMI_FINALIZERS)
    run = place.release(settle="30s")
    assert run.status is ExitStatus.OK, run.out + run.err
    assert run.item["outcome"] == "gone"
    assert (place.there(VM), place.there(VMI), place.launchers()) == (None, None, [])
    # No finalizer that virt-controller still serves was taken off by us.
    assert [method for method, _ in place.changes()] == ["DELETE"]


def test_a_controller_that_takes_its_time_gets_it(place: Place, controller: VirtController) -> None:
    place.running()
    place.power_off()
    delete(place)
    with controller.slow(seconds=4):
        run = place.release(settle="60s")
    assert (run.status, run.item["outcome"]) == (ExitStatus.OK, "gone"), run.out + run.err
    assert [method for method, _ in place.changes()] == ["DELETE"]


@pytest.mark.usefixtures("controller")
def test_only_what_the_garbage_collector_left_is_taken_off_after_a_foreground_deletion(
    place: Place,
) -> None:
    """The garbage collector does not run here, so its finalizer stays when all else is gone."""
    place.running()
    place.power_off()
    delete(place, "Foreground")
    revisions = f"/apis/apps/v1/namespaces/{place.namespace}/controllerrevisions"
    assert place.api.request("DELETE", revisions)[0] == 200  # as far as the collector gets
    assert place.finalizers(place.existing(VM)) == [builders.VM_FINALIZER, "foregroundDeletion"]
    run = place.release(settle="5s")
    assert (run.status, run.item["outcome"]) == (ExitStatus.OK, "gone"), run.out + run.err
    assert [method for method, _ in place.changes()] == ["DELETE", "PATCH"]
    (patch,) = [request for request in place.sent() if request.method == "PATCH"]
    assert patch.path.partition("?")[0] == VM.path(place.namespace, "web")
    patches = [line for line in place.journal() if line["action"] == "patch"]
    assert [line["before"]["finalizers"] for line in patches] == [["foregroundDeletion"]] * 2


def test_without_virt_controller_everything_is_released_in_order(
    place: Place, controller: VirtController
) -> None:
    place.running()
    place.power_off()
    delete(place)
    controller.stop()
    try:
        run = place.release(settle="1s")
    finally:
        controller.start()
    assert (run.status, run.item["outcome"]) == (ExitStatus.OK, "gone"), run.out + run.err
    (launcher,) = [name for method, name in place.changes() if method == "DELETE"]
    assert place.changes() == [
        ("DELETE", launcher),
        ("PATCH", "virtualmachineinstances/web"),
        ("PATCH", "virtualmachines/web"),
    ]
    assert launcher.startswith("pods/virt-launcher-web-")


@pytest.mark.usefixtures("controller")
def test_a_vm_that_was_only_stopped_is_free_to_start_again(place: Place) -> None:
    place.running()
    place.power_off()
    place.patch(VM.path(place.namespace, "web"), {"spec": {"runStrategy": "Halted"}})
    wait(
        lambda: "deletionTimestamp" in place.existing(VMI)["metadata"],
        lambda: "virt-controller does not stop the VMI",
    )
    (row,) = [
        item for item in place.run("list", "-o", "json").json["items"] if item["name"] == "web"
        and item["kind"] == "VirtualMachine"
    ]  # fmt: skip
    assert row["state"] == "Stopping"
    run = place.release(settle="30s")
    assert (run.status, run.item["outcome"]) == (ExitStatus.OK, "freed"), run.out + run.err
    assert [method for method, _ in place.changes()] == ["DELETE"]
    wait(lambda: place.printed() == "Stopped", lambda: f"the VM is {place.printed()}")
    assert place.there(VMI) is None


@pytest.mark.usefixtures("controller")
def test_a_vm_that_nobody_touched_starts_elsewhere(place: Place) -> None:
    place.running()
    place.power_off()
    (launcher,) = place.launchers()
    # What the eviction of a node that is not Ready does.
    path = POD.path(place.namespace, launcher["metadata"]["name"])
    assert place.api.request("DELETE", path, {"gracePeriodSeconds": 1})[0] == 200
    wait(
        lambda: any(
            row["deletionTimestamp"] for row in place.run("list", "-o", "json").json["items"]
        ),
        lambda: "the pod that hangs is not listed",
    )
    (row,) = place.run("list", "-o", "json").json["items"]
    assert (row["name"], row["state"]) == ("web", "NotReady")
    run = place.release(settle="30s")
    assert (run.status, run.item["outcome"]) == (ExitStatus.OK, "freed"), run.out + run.err
    assert [method for method, _ in place.changes()] == ["DELETE"]
    uid = launcher["metadata"]["uid"]
    wait(
        lambda: [item for item in place.launchers() if item["metadata"]["uid"] != uid] != [],
        lambda: f"virt-controller makes no new pod: VMI {place.phase()}, VM {place.printed()}",
    )


@pytest.mark.usefixtures("controller")
def test_once_a_veto_ends_virt_controller_does_the_rest(place: Place) -> None:
    words = "PVC shop/disk-0 is already used by other VM shop/other"
    place.running()
    place.create(builders.deployment("virt-controller"))
    veto = place.api.deny_updates("virtualmachines", words, namespace=place.namespace)
    delete(place)
    (launcher,) = place.launchers()
    path = POD.path(place.namespace, launcher["metadata"]["name"])
    assert place.api.request("DELETE", path, {"gracePeriodSeconds": 0})[0] == 200
    only = [builders.VM_FINALIZER]
    wait(
        lambda: place.finalizers(place.existing(VMI)) == only,
        lambda: "virt-controller does not release the VMI as far as it can",
    )
    ended = place.there(VMI)
    assert ended is not None
    place.written_by("virt-handler", ended, "status", "phase")  # which is played here
    place.api.forget()
    found = place.run("diagnose", "vm/web", "-o", "json", "--no-logs").item["findings"]
    assert {"settling", "veto-keeps-vmi"} == {item["id"] for item in found}
    run = place.unstick(AT_ONCE, "--yes")
    assert run.status is ExitStatus.REFUSED
    (refusal,) = run.item["refusals"]
    assert (refusal["guard"], words in refusal["reason"]) == ("webhooks-accept", True), run.out
    assert place.changes() == []
    veto.remove()
    wait(lambda: place.there(VM) is None, lambda: "it does not go by itself", seconds=60)
