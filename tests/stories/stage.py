"""The stage of the stories: everything real at work, and machines that lose their power."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from kubectl_harvester_stuck.errors import ExitStatus
from kubectl_harvester_stuck.k8s.kinds import LEASE_NAMESPACE, NODE, POD, PVC, VM, VMI, Kind
from tests.components.controllermanager.server import (
    COLLECTOR,
    NODES,
    PVC_PROTECTION,
    ControllerManager,
)
from tests.components.controlplane.server import MERGE_PATCH, ControlPlane
from tests.components.harvester import server as harvester
from tests.components.virtcontroller.server import VirtController
from tests.conformance.cluster import USERS
from tests.conformance.situation import machine
from tests.stories.machines import Machines
from tests.support import beside, builders
from tests.support.beside import Program
from tests.support.resources import resource_of
from tests.support.world import Run, World, before

Body = dict[str, Any]

LONG_AGO = timedelta(minutes=20)
SECONDS = 90
"""How long anybody may take on a machine with much else to do."""

ATTEMPTS = 5

SHORT_OF_PATIENCE = [
    {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute",
     "tolerationSeconds": 2} for key in ("unreachable", "not-ready")
]  # fmt: skip
"""What evicts a guest at once; by default its pod tolerates such a node for 300 s."""


class Stage:
    """A cluster with everything at work."""

    def __init__(self, api: ControlPlane, directory: Path) -> None:
        self.api = api
        self.directory = directory
        self.machines = Machines(api)
        self.manager = ControllerManager(api, directory, (COLLECTOR, PVC_PROTECTION, *NODES))
        self.virt = VirtController(api, directory)
        self.harvester = harvester.Controllers(api, directory)
        self.webhook = harvester.Webhook(api, directory)

    @property
    def programs(self) -> Sequence[Program]:
        """Who works here."""
        return (self.webhook, self.manager, self.virt, self.harvester)

    # Requests

    def send(self, method: str, path: str, body: Body | None = None) -> Body:
        """The answer. AssertionError where it is refused."""
        kind = MERGE_PATCH if method == "PATCH" else "application/json"
        status, answer = self.api.request(method, path, body, content_type=kind)
        assert status < 300, f"{method} {path}: {status} {answer}"
        return answer

    def create(self, body: Body) -> Body:
        """Create an object, with its status where it says one."""
        namespace = body["metadata"].get("namespace")
        if namespace:
            self.api.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        resource = resource_of(body)
        made = self.send("POST", resource.path(namespace), body)
        if "status" in body and resource.status_subresource:
            path = f"{resource.path(namespace, made['metadata']['name'])}/status"
            made = self.send("PATCH", path, {"status": body["status"]})
        return made

    def there(self, kind: Kind, namespace: str, name: str) -> Body | None:
        """The object; None only where the API server says that there is none."""
        status, answer = self.api.request("GET", kind.path(namespace, name))
        if status == 404:
            return None
        assert status == 200, answer
        return answer

    def wait(self, reached: Callable[[], bool], goal: str) -> None:
        """Wait for it as long as can be meant."""

        def state() -> str:
            logs = "\n".join(f"{one.name}: {one.log[-600:]}" for one in self.programs)
            return f"it does not come to this: {goal}\n{self.machines.failure}\n{logs}"

        beside.wait(reached, state, seconds=SECONDS)

    # Machines

    def install(self, *names: str) -> None:
        """Hosts that join the cluster. Each is a zone: else evictions stop when most are silent."""
        for name in names:
            node = builders.node(name)
            del node["status"]
            node["metadata"]["labels"] = {"topology.kubernetes.io/zone": name}
            self.create(node)
            self.create(builders.lease(name, before(timedelta())))
            self.create(builders.virt_handler(name, ready=True))
            self.machines.switch_on(name)

    def ready(self, name: str) -> str:
        """What the Ready condition of a Node says."""
        node = self.send("GET", f"{NODE.path()}/{name}")
        found = [one for one in node["status"].get("conditions", ()) if one["type"] == "Ready"]
        return str(found[0]["status"]) if found else "none"

    def taints(self, name: str) -> set[str]:
        """The keys of the taints of a Node that evict."""
        node = self.send("GET", f"{NODE.path()}/{name}")
        taints = node["spec"].get("taints", ())
        return {one["key"] for one in taints if one["effect"] == "NoExecute"}

    def is_missed(self, name: str) -> bool:
        """Whether kube-controller-manager has noticed that the node is silent."""
        return self.ready(name) == "Unknown"

    def is_tainted(self, name: str) -> bool:
        """Whether it evicts those who run there, too."""
        return self.is_missed(name) and bool(self.taints(name))

    def minutes_pass(self, *names: str) -> None:
        """What a silent host wrote last gets older than any sign of life may be."""
        then = before(LONG_AGO)
        world = World(self.api, self.directory, "default", "no-node", "no-node")
        for name in names:
            beat = {"metadata": {"annotations": {"kubevirt.io/heartbeat": then}}}
            status, node = self.api.request(
                "PATCH", f"{NODE.path()}/{name}", beat, content_type=MERGE_PATCH
            )
            if status == 200:
                world.stored_when_it_says(node | {"apiVersion": "v1", "kind": "Node"})
            path = f"/apis/coordination.k8s.io/v1/namespaces/{LEASE_NAMESPACE}/leases/{name}"
            lease = self.send("PATCH", path, {"spec": builders.lease(name, then)["spec"]})
            world.stored_when_it_says(lease)


class Story:
    """One VM in a namespace of its own, its user, and the program."""

    def __init__(self, stage: Stage, namespace: str, name: str, node: str) -> None:
        self.stage = stage
        self.namespace = namespace
        self.name = name
        self.node = node
        directory = stage.directory / f"{namespace}-{name}"
        directory.mkdir()
        self.world = World(stage.api, directory, namespace, node, "no-node")

    # What its user does

    def disk(self, name: str, *, owner: Body | None = None, **more: Any) -> Body:
        """A disk that is bound."""
        volume = f"pv-{self.namespace}-{name}"
        body = builders.pvc(self.namespace, name, volume=volume, owner=owner, **more)
        body["spec"] |= {"storageClassName": harvester.STORAGE_CLASS, "volumeMode": "Block"}
        capacity = {"storage": "1Gi"}
        body["status"] = {"phase": "Bound", "accessModes": ["ReadWriteMany"], "capacity": capacity}
        made = self.stage.create(body)
        bound = builders.volume(volume)
        bound["spec"] |= {
            "storageClassName": harvester.STORAGE_CLASS,
            "volumeMode": "Block",
            "claimRef": {"apiVersion": "v1", "kind": PVC.kind, "namespace": self.namespace,
                         "name": name, "uid": made["metadata"]["uid"]},
        }  # fmt: skip
        self.stage.create(bound | {"status": {"phase": "Bound"}})
        return made

    def make(
        self, *disks: str, strategy: str = "RerunOnFailure",
        annotations: Mapping[str, str] | None = None, labels: Mapping[str, str] | None = None,
    ) -> Body:  # fmt: skip
        """Make the VM, as a user does: no finalizer is on it yet."""
        spec = machine(disks, [])
        spec["runStrategy"] = strategy
        template = spec["template"]
        template["metadata"]["labels"] = {"harvesterhci.io/vmName": self.name}
        template["spec"]["terminationGracePeriodSeconds"] = 1
        template["spec"]["tolerations"] = SHORT_OF_PATIENCE
        body = builders.vm(self.namespace, self.name, (), annotations=annotations, labels=labels,
                           spec=spec)  # fmt: skip
        del body["status"]
        if strategy != "Halted":
            self.stage.machines.place(self.name, self.node)
        return self.stage.create(body)

    def change(self, change: Body, kind: Kind = VM) -> Body:
        """Merge this into the VM."""
        return self.stage.send("PATCH", kind.path(self.namespace, self.name), change)

    def stop(self) -> None:
        """Press Stop."""
        self.change({"spec": {"runStrategy": "Halted"}})

    def delete(self, *selected: str) -> None:
        """Delete the VM as Harvester's UI does, in the foreground, and these disks with it."""
        if selected:
            key = "harvesterhci.io/removedPersistentVolumeClaims"
            self.change({"metadata": {"annotations": {key: ",".join(selected)}}})
        options = {"propagationPolicy": "Foreground"}
        self.stage.send("DELETE", VM.path(self.namespace, self.name), options)

    # What there is

    def vm(self) -> Body | None:
        return self.stage.there(VM, self.namespace, self.name)

    def vmi(self) -> Body | None:
        return self.stage.there(VMI, self.namespace, self.name)

    def has(self, kind: Kind, name: str) -> bool:
        """Whether an object of the namespace is there, and not only going."""
        found = self.stage.there(kind, self.namespace, name)
        return found is not None and "deletionTimestamp" not in found["metadata"]

    def gone(self, kind: Kind, name: str) -> bool:
        return self.stage.there(kind, self.namespace, name) is None

    def pods(self) -> list[Body]:
        """The virt-launcher pods of the VM."""
        found = self.stage.send("GET", POD.path(self.namespace))["items"]
        return [
            pod
            for pod in found
            if pod["metadata"].get("labels", {}).get("vm.kubevirt.io/name") == self.name
        ]

    def hosts(self) -> list[str]:
        """Where guests of the VM run, in truth."""
        return [guest.host.name for guest in self.stage.machines.guests(self.name)]

    def printed(self) -> str | None:
        found = self.vm()
        return found.get("status", {}).get("printableStatus") if found else None

    # What is waited for

    def running(self) -> None:
        """Until its guest runs and its VM says so."""
        self.stage.wait(lambda: self.printed() == "Running" and len(self.hosts()) == 1,
                        f"{self.name} runs; it is {self.printed()}")  # fmt: skip

    def evicted(self) -> None:
        """Until its pod is being deleted, which waits for the node."""
        self.stage.wait(lambda: all(map(_is_going, self.pods())), f"{self.name} is evicted")

    def hangs(self) -> None:
        """Until its VMI is being deleted."""
        self.stage.wait(lambda: (vmi := self.vmi()) is not None and _is_going(vmi),
                        f"the VMI {self.name} is being deleted")  # fmt: skip

    # What the program says and does

    def state(self) -> str | None:
        """The state in which `list` has the VM."""
        run = self.world.run("list", "-o", "json")
        states = {(row["kind"], row["name"]): row["state"] for row in run.json["items"]}
        found: str | None = states.get((VM.kind, self.name))
        return found

    def diagnosis(self) -> Any:
        return self.world.run("diagnose", f"vm/{self.name}", "--no-logs", "-o", "json").item

    def changes(self) -> list[tuple[str, str]]:
        """Method and `plural/name` of what the program changed here, in order."""
        here = f"/namespaces/{self.namespace}/"
        return [
            (request.method, "/".join(request.path.partition("?")[0].split("/")[-2:]))
            for request in self.world.sent()
            if here in request.path
        ]

    def unstick(self, *words: str, vouched: bool = True) -> Run:
        """Release it, by default on the user's word that the node has no power.

        Controllers are at work: where one of them wrote in between, the user asks again.
        """
        vouch = ("--node-powered-off", self.node) if vouched else ()
        for _ in range(ATTEMPTS):
            run = self.world.run(
                "unstick", "vm", self.name, "--yes", *vouch, "--older-than=0", "--settle=30s",
                "--timeout=60s", *words, "-o", "json",
            )  # fmt: skip
            if run.status is not ExitStatus.REFUSED or not _moved(run):
                break
        return run


def refused_by(run: Run) -> set[str]:
    """The guards that refused."""
    return {refusal["guard"] for refusal in run.item["refusals"]}


def _moved(run: Run) -> bool:
    """Whether an object was no longer the one that had been read."""
    refusals = run.item["refusals"]
    return run.item["outcome"] == "conflict" or any(
        refusal["guard"] == "unchanged" or "ask again" in refusal["reason"] for refusal in refusals
    )


def fates(item: Any, key: str) -> set[str]:
    """The objects, as `kind/name`, that the preview says go (`goes`) or stay (`stays`)."""
    return {f"{one['kind']}/{one['name']}" for one in item[key]}


def _is_going(body: Body) -> bool:
    return "deletionTimestamp" in body["metadata"]


@contextmanager
def stage(directory: Path, *hosts: str) -> Iterator[Stage]:
    """A cluster of these hosts, at work. The webhook sleeps, for it lets nobody play Harvester."""
    with ExitStack() as ends:
        api = ends.enter_context(ControlPlane(users=USERS))
        harvester.prepare(api)
        made = Stage(api, directory)
        made.install(*hosts)
        made.machines.start()
        ends.callback(made.machines.stop)
        for program in made.programs:
            ends.callback(program.stop)
            if program is not made.webhook:
                program.start()
        made.wait(lambda: all(made.ready(name) == "True" and not made.taints(name)
                              for name in hosts), "all nodes are ready")  # fmt: skip
        yield made
