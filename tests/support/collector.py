"""A small garbage collector, for a simulated or a real API server alike.

Kubernetes' own is part of kube-controller-manager, which does not run here. This one does what
`attemptToDeleteItem` and `processDeletingDependentsItem` do in
kubernetes pkg/controller/garbagecollector/garbagecollector.go, one namespace at a time: an owner is
solid, dangling, or waits for its dependents; what has a solid owner loses its other references,
what has none is deleted in the background, or as its own finalizers say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tests.support.resources import RESOURCES, Resource
from tests.support.world import ApiServer

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"
ROUNDS = 20

Body = dict[str, Any]


class Collector:
    """The garbage collector of one namespace."""

    def __init__(self, api: ApiServer, namespace: str) -> None:
        self._api = api
        self._namespace = namespace

    def collect(self) -> None:
        """Work until nothing is left to do."""
        for _ in range(ROUNDS):
            # Dependents come before the owner that waits for them: they are queued first.
            everything = sorted(
                self._everything(), key=lambda pair: "deletionTimestamp" in pair[1]["metadata"]
            )
            if not sum(self._look_at(kind, item, everything) for kind, item in everything):
                return
        raise AssertionError("the garbage collector does not come to an end")

    def _everything(self) -> Iterator[tuple[Resource, Body]]:
        for resource in RESOURCES.values():
            if not resource.namespaced:
                continue
            status, answer = self._api.request("GET", resource.path(self._namespace))
            assert status in (200, 404), answer
            for item in answer.get("items", ()):
                yield resource, item

    def _look_at(
        self, resource: Resource, item: Body, everything: list[tuple[Resource, Body]]
    ) -> bool:
        """Whether something was done to this object."""
        meta = item["metadata"]
        held = meta.get("finalizers", [])
        dependents = [
            (kind, one) for kind, one in everything
            for owner in one["metadata"].get("ownerReferences", ()) if owner["uid"] == meta["uid"]
        ]  # fmt: skip
        if "deletionTimestamp" in meta:
            return self._end(resource, item, held, dependents)
        references = meta.get("ownerReferences", [])
        stands = [self._stand(owner) for owner in references]
        solid = [one for one, stand in zip(references, stands, strict=True) if stand == "solid"]
        if not references or len(solid) == len(references):
            return False
        if solid:
            self._patch(resource, item, {"ownerReferences": solid})
        elif "waiting" in stands and dependents:
            self._delete(resource, item, "Foreground")
        else:
            policy = {ORPHAN: "Orphan", FOREGROUND: "Foreground"}
            named = [policy[name] for name in (ORPHAN, FOREGROUND) if name in held]
            self._delete(resource, item, (*named, "Background")[0])
        return True

    def _end(
        self,
        resource: Resource,
        item: Body,
        held: list[str],
        dependents: list[tuple[Resource, Body]],
    ) -> bool:
        """What is done to an object that is being deleted."""
        uid = item["metadata"]["uid"]
        if ORPHAN in held:
            for kind, one in dependents:
                owners = one["metadata"]["ownerReferences"]
                left = [owner for owner in owners if owner["uid"] != uid]
                self._patch(kind, one, {"ownerReferences": left})
            done = ORPHAN
        elif FOREGROUND in held:
            if any(
                owner["uid"] == uid and owner.get("blockOwnerDeletion")
                for _, one in dependents
                for owner in one["metadata"]["ownerReferences"]
            ):
                return False
            done = FOREGROUND
        else:
            return False
        self._patch(resource, item, {"finalizers": [name for name in held if name != done]})
        return True

    def _stand(self, owner: Mapping[str, Any]) -> str:
        known = [
            one for one in RESOURCES.values()
            if (one.api_version, one.kind) == (owner["apiVersion"], owner["kind"])
        ]  # fmt: skip
        if not known:
            return "solid"  # no mapping: it is tried again, and nothing is deleted
        status, found = self._api.request("GET", known[0].path(self._namespace, owner["name"]))
        if status == 404 or found["metadata"]["uid"] != owner["uid"]:
            return "dangling"
        meta = found["metadata"]
        is_waiting = "deletionTimestamp" in meta and FOREGROUND in meta.get("finalizers", ())
        return "waiting" if is_waiting else "solid"

    def _patch(self, resource: Resource, item: Body, metadata: Mapping[str, object]) -> None:
        meta = item["metadata"]
        status, answer = self._api.request(
            "PATCH",
            resource.path(self._namespace, meta["name"]),
            {"metadata": {"uid": meta["uid"], **metadata}},
            content_type="application/merge-patch+json",
        )
        assert status in (200, 404), answer

    def _delete(self, resource: Resource, item: Body, policy: str) -> None:
        meta = item["metadata"]
        status, answer = self._api.request(
            "DELETE",
            resource.path(self._namespace, meta["name"]),
            {"propagationPolicy": policy, "preconditions": {"uid": meta["uid"]}},
        )
        assert status in (200, 202, 404), answer
