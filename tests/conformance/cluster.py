"""A cluster in which the owner of a finalizer sleeps until the program was asked about it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.components.controllermanager.server import USER as MANAGER
from tests.components.controlplane.server import MERGE_PATCH, ControlPlane
from tests.components.harvester import server as harvester
from tests.components.virtcontroller import server as virt
from tests.conformance.kubevirt import LIVE_NODE
from tests.conformance.situation import Body, Place, Situation
from tests.support import builders
from tests.support.beside import Program
from tests.support.resources import Resource, resource_of
from tests.support.world import ApiServer, World, before

USERS = dict.fromkeys((harvester.USER, MANAGER, virt.USER), ("system:masters",))

PATIENCE = 40
"""Seconds within which an owner does what it does; it tries again after up to half a minute."""
LEAST = 5
"""Seconds that an owner has had at least when it is said to hold."""


@dataclass
class Outcome:
    """What came of a situation."""

    place: Place

    state: str = "not said"
    reason: str = ""
    let_go: bool = False
    changed: frozenset[str] = frozenset()
    logged: str = ""
    refused: str = ""
    """What the guard `webhooks-accept` of the program says of its own patch."""


@dataclass
class Standing:
    """A situation that stands in the cluster."""

    situation: Situation
    place: Place
    made: list[Body] = field(default_factory=list)

    @property
    def subject(self) -> Body:
        assert self.place.subject is not None
        return self.place.subject

    @property
    def key(self) -> tuple[str, str]:
        """What the program names the finalizer by: the object, and its own name."""
        return _ref(self.subject), self.situation.finalizer


class Table:
    """Lines of a table as they stand in an API server, and what the program says of them."""

    def __init__(self, api: ApiServer, directory: Path) -> None:
        self.api = api
        self.directory = directory
        self._resources: dict[tuple[str, str], Resource] = {}
        self._namespaces: set[str] = set()

    def prepare(self) -> None:
        """Make the node: it has to be older than those who run on it."""
        for body in self._node():
            self._create(body)

    def stand(self, name: str, situations: Sequence[Situation]) -> list[Standing]:
        """Make the objects of each line, on a node that answers at this moment."""
        standing = [
            self._stand(situation, f"{name}-{number}")
            for number, situation in enumerate(situations)
        ]
        self._beat()
        return standing

    def ask(self) -> dict[tuple[str, str], tuple[str, str]]:
        """What the program says of each finalizer: its state and the reason."""
        world = World(self.api, self.directory, "default", "no-node", "no-node")
        run = world.run("diagnose", "-A", "-o", "json", "--no-logs")
        return {
            (entry["object"], entry["name"]): (entry["state"], entry["reason"])
            for item in run.json["items"]
            for entry in item["finalizers"]
        }

    def _node(self) -> tuple[Body, ...]:
        """A node that answers at this moment."""
        now = before(timedelta())
        return (
            builders.node(LIVE_NODE, "True", heartbeat=now),
            builders.lease(LIVE_NODE, now),
            builders.virt_handler(LIVE_NODE, ready=True),
        )

    def _beat(self) -> None:
        """Let the node answer again."""
        for body in self._node():
            changed = {"metadata": body["metadata"], "spec": body.get("spec", {})}
            if body["kind"] != "Pod":
                status, answer = self.api.request(
                    "PATCH", self._path(body), changed, content_type=MERGE_PATCH
                )
                assert status == 200, answer

    def _stand(self, situation: Situation, name: str) -> Standing:
        def create(body: Body) -> Body:
            made = self._create(body)
            standing.made.append(made)
            return made

        place = Place(create, self._remove, name, f"{name}-other", f"vm-{name}",
                      situation.finalizer)  # fmt: skip
        standing = Standing(situation, place)
        situation.stands(place)
        subject = self._get(standing.subject)
        assert subject is not None, f"{situation.text}: its subject is gone already"
        assert situation.finalizer in subject["metadata"]["finalizers"], situation.text
        assert subject["metadata"].get("deletionTimestamp"), situation.text
        # As everything stands when the owner wakes.
        standing.made = [found for body in standing.made if (found := self._get(body))]
        return standing

    # Requests

    def _create(self, body: Body) -> Body:
        resource = self._resource(body)
        namespace = body["metadata"].get("namespace")
        if namespace and namespace not in self._namespaces:
            self.api.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
            self._namespaces.add(namespace)
        status, made = self.api.request("POST", resource.path(namespace), body)
        assert status == 201, (body, made)
        if "status" in body and resource.status_subresource:
            path = f"{self._path(made)}/status"
            status, made = self.api.request("PUT", path, made | {"status": body["status"]})
            assert status == 200, (body, made)
        return made

    def _remove(self, body: Body, policy: str) -> None:
        options = {"propagationPolicy": policy}
        status, answer = self.api.request("DELETE", self._path(body), options)
        assert status in (200, 202), answer

    def _get(self, body: Body) -> Body | None:
        status, answer = self.api.request("GET", self._path(body))
        if status == 404 or (
            status == 200 and answer["metadata"]["uid"] != body["metadata"]["uid"]
        ):
            return None
        assert status == 200, answer
        return answer

    def _resource(self, body: Body) -> Resource:
        key = (body["apiVersion"], body["kind"])
        if key not in self._resources:
            self._resources[key] = resource_of(body)
        return self._resources[key]

    def _path(self, body: Body) -> str:
        meta = body["metadata"]
        return self._resource(body).path(meta.get("namespace"), meta["name"])


class Cluster(Table):
    """An API server with everything installed and nobody at work."""

    api: ControlPlane

    def __init__(self, api: ControlPlane, directory: Path) -> None:
        super().__init__(api, directory)
        harvester.prepare(api)
        virt.prepare(api)
        for definition in api.request("GET", _CRDS)[1]["items"]:
            self._learn(definition["spec"])
        self.prepare()

    def play(
        self, owner: Program, situations: Sequence[Situation], *also: Program
    ) -> dict[str, Outcome]:
        """Let each situation stand, ask the program, wake the owner, and see what it does.

        `also` are programs that are at work from the start.
        """
        standing = self.stand(owner.name, situations)
        for program in also:
            program.start()
        self._beat()
        said = self.ask()
        owner.start()
        try:
            gone = self._watch(standing)
            owner.check()
            outcomes = {}
            log = owner.log
            for each in standing:
                outcome = Outcome(each.place, let_go=id(each) in gone, logged=_about(log, each))
                found = said.get(each.key)
                if found:
                    outcome.state, outcome.reason = found
                outcome.changed = frozenset(self._changed(each))
                if each.situation.owner.action == "rejected" and not outcome.let_go:
                    outcome.refused = self._refusal(each)
                outcomes[each.situation.text] = outcome
        finally:
            owner.stop()
            for program in reversed(also):
                program.stop()
        for each in standing:
            self._sweep(each)
        return outcomes

    def _sweep(self, each: Standing) -> None:
        """Remove what stands, for those who wake later see it too."""
        for body in each.made:
            path = self._path(body)
            bare = {"metadata": {"finalizers": None}}
            self.api.request("PATCH", path, bare, content_type=MERGE_PATCH)
            options = {"gracePeriodSeconds": 0, "propagationPolicy": "Background"}
            self.api.request("DELETE", path, options)

    def _learn(self, spec: dict[str, Any]) -> None:
        for version in spec["versions"]:
            if version["served"]:
                api_version = f"{spec['group']}/{version['name']}"
                kind = spec["names"]["kind"]
                self._resources[api_version, kind] = Resource(
                    api_version, kind, spec["names"]["plural"], spec["scope"] == "Namespaced",
                    "status" in version.get("subresources", {}),
                )  # fmt: skip

    def _refusal(self, each: Standing) -> str:
        place = each.place
        world = World(self.api, self.directory, place.at, "no-node", "no-node")
        run = world.run("unstick", "vm", place.name, "--older-than=0", "--dry-run=server",
                        "-o", "json")  # fmt: skip
        return "\n".join(
            refusal["reason"]
            for refusal in run.item["refusals"]
            if refusal["guard"] == "webhooks-accept"
        )

    def _watch(self, standing: Sequence[Standing]) -> set[int]:
        """Those whose finalizer is taken off: all that have to be, or as far as it comes."""
        began = time.monotonic()
        gone: set[int] = set()
        expected = {
            id(each) for each in standing if each.situation.owner.action in ("lets go", "works")
        }
        while True:
            gone |= {id(each) for each in standing if id(each) not in gone and not self._held(each)}
            passed = time.monotonic() - began
            if passed > PATIENCE or (expected <= gone and passed > LEAST):
                return gone
            time.sleep(0.5)

    def _held(self, each: Standing) -> bool:
        found = self._get(each.subject)
        return found is not None and each.situation.finalizer in found["metadata"].get(
            "finalizers", ()
        )

    def _changed(self, each: Standing) -> list[str]:
        """The objects that are gone, are going, or have other owners or another spec."""
        return [
            f"{before['kind']}/{before['metadata']['name']}"
            for before in each.made
            if _ref(before) != _ref(each.subject) and _matter(before) != _matter(self._get(before))
        ]


_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def _ref(body: Body) -> str:
    """As the program writes it."""
    meta = body["metadata"]
    return f"{body['kind']} {meta['namespace']}/{meta['name']}"


def _matter(body: Body | None) -> Any:
    if body is None:
        return None
    meta = body["metadata"]
    spec: Any = body.get("spec")
    if body["kind"] == "VirtualMachine":
        # Harvester's mutator fills in much else of a VM, whoever changes it.
        spec = spec["template"]["spec"]["domain"]["devices"].get("interfaces")
    return meta.get("deletionTimestamp"), meta.get("ownerReferences"), spec


def _about(log: str, each: Standing) -> str:
    """The lines of the log that name the subject."""
    meta = each.subject["metadata"]
    name = f"{meta['namespace']}/{meta['name']}"
    return "\n".join(line for line in log.splitlines() if name in line)
