"""Small stand-ins for the controllers whose work a release of finalizers has to wait for.

They react at once, before the request that changed something is answered. What they write
passes the webhooks like any other update; a denial leaves things as they are until they look
again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from tests.support.resources import RESOURCES, Resource

from .registry import Registry
from .rules import FOREGROUND, DeleteOptions
from .status import ApiError
from .store import Stored

VIRT_CONTROLLER, GARBAGE_COLLECTOR = "virt-controller", "garbage-collector"
VM, VMI, POD = (RESOURCES[kind] for kind in ("VirtualMachine", "VirtualMachineInstance", "Pod"))
CONTROLLER_FINALIZER = "kubevirt.io/virtualMachineControllerFinalize"
INSTANCE_FINALIZERS = (
    "kubevirt.io/foregroundDeleteVirtualMachine",
    "foregroundDeleteVirtualMachine",
)
_FINAL = ("Succeeded", "Failed")
_ROUNDS = 20


class Controllers:
    """The controllers that are running; none of them at first."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._running: list[str] = []

    def start(self, *names: str) -> None:
        """Let these run, and look around once. KeyError for a name that is not known."""
        for name in names:
            _LOOPS[name]
            if name not in self._running:
                self._running.append(name)
        self.look_around()

    def stop(self, *names: str) -> None:
        """Stop these; as after a power cut, nothing is done any more."""
        self._running = [name for name in self._running if name not in names]

    def look_around(self) -> None:
        """Let the controllers look at every namespace, as they do from time to time."""
        with self._registry.store.lock:
            for stored in list(self._registry.store.all(RESOURCES["Namespace"])):
                self.react(stored.key)

    def react(self, namespace: str | None) -> None:
        """Let the controllers work in a namespace until there is nothing left to do."""
        if namespace is None:
            return
        store = self._registry.store
        for _ in range(_ROUNDS):
            before = store.version
            for name in self._running:
                _LOOPS[name](self._registry, namespace)
            if store.version == before:
                return


def _virt_controller(registry: Registry, namespace: str) -> None:
    """Delete the VMI of a deleted VM, and release both when no pod is left."""
    pods = _in(registry, POD, namespace)
    owners = {
        uid
        for pod in pods
        for uid in (
            pod.obj["metadata"].get("labels", {}).get("kubevirt.io/created-by"),
            *(owner["uid"] for owner in pod.obj["metadata"].get("ownerReferences", ())),
        )
    }
    for instance in _in(registry, VMI, namespace):
        metadata = instance.obj["metadata"]
        machine = registry.store.get(VM, namespace, metadata["name"])
        with contextlib.suppress(ApiError):
            if metadata["uid"] in owners:
                if _deleting(instance):
                    _delete_pods_of(registry, pods, metadata["uid"])
                elif machine is not None and _deleting(machine):
                    registry.delete(VMI, namespace, metadata["name"], DeleteOptions())
            else:
                _release_instance(registry, instance, machine)
    for machine in _in(registry, VM, namespace):
        name = machine.obj["metadata"]["name"]
        if _deleting(machine) and registry.store.get(VMI, namespace, name) is None:
            with contextlib.suppress(ApiError):
                _without(registry, VM, namespace, name, (CONTROLLER_FINALIZER,))


def _release_instance(registry: Registry, instance: Stored, machine: Stored | None) -> None:
    """What follows when no pod of a VMI is left. ApiError when the VM's status is vetoed."""
    metadata = instance.obj["metadata"]
    namespace, name = metadata["namespace"], metadata["name"]
    phase = instance.obj.get("status", {}).get("phase")
    deleting = _deleting(instance)
    if phase not in _FINAL:
        if not deleting and phase not in ("Scheduled", "Running"):
            return
        _set_status(registry, VMI, namespace, name, {"phase": "Failed"})
    _without(registry, VMI, namespace, name, INSTANCE_FINALIZERS)
    if machine is not None:
        status = {"printableStatus": "Terminating" if _deleting(machine) else "Stopped"}
        _set_status(registry, VM, namespace, name, status)
    if not deleting:
        registry.delete(VMI, namespace, name, DeleteOptions())
    _without(registry, VMI, namespace, name, (CONTROLLER_FINALIZER,))


def _delete_pods_of(registry: Registry, pods: list[Stored], uid: str) -> None:
    for pod in pods:
        metadata = pod.obj["metadata"]
        owners = {owner["uid"] for owner in metadata.get("ownerReferences", ())}
        created_by = metadata.get("labels", {}).get("kubevirt.io/created-by")
        if uid in owners | {created_by} and not _deleting(pod):
            registry.delete(POD, metadata["namespace"], metadata["name"], DeleteOptions())


def _garbage_collector(registry: Registry, namespace: str) -> None:
    """Take `foregroundDeletion` off when no dependent that blocks it is left."""
    blocking: dict[str, list[tuple[Resource, Stored]]] = {}
    everything = [
        (resource, stored)
        for resource in registry.store.tables()
        if resource.namespaced
        for stored in _in(registry, resource, namespace)
    ]
    for resource, stored in everything:
        for owner in stored.obj["metadata"].get("ownerReferences", ()):
            if owner.get("blockOwnerDeletion"):
                blocking.setdefault(owner["uid"], []).append((resource, stored))
    for resource, stored in everything:
        metadata = stored.obj["metadata"]
        if not _deleting(stored) or FOREGROUND not in metadata.get("finalizers", ()):
            continue
        with contextlib.suppress(ApiError):
            for kind, dependent in blocking.get(metadata["uid"], ()):
                if not _deleting(dependent):
                    name = dependent.obj["metadata"]["name"]
                    registry.delete(kind, namespace, name, DeleteOptions(policy="Foreground"))
            if metadata["uid"] not in blocking:
                _without(registry, resource, namespace, metadata["name"], (FOREGROUND,))


_LOOPS: dict[str, Callable[[Registry, str], None]] = {
    VIRT_CONTROLLER: _virt_controller,
    GARBAGE_COLLECTOR: _garbage_collector,
}


def _in(registry: Registry, resource: Resource, namespace: str) -> list[Stored]:
    prefix = f"{namespace}/"
    return [one for one in registry.store.all(resource) if one.key.startswith(prefix)]


def _deleting(stored: Stored) -> bool:
    return "deletionTimestamp" in stored.obj["metadata"]


def _without(
    registry: Registry, resource: Resource, namespace: str, name: str, finalizers: tuple[str, ...]
) -> None:
    """Take these finalizers off, if the object is there and has them."""
    stored = registry.store.get(resource, namespace, name)
    if stored is None:
        return
    had = stored.obj["metadata"].get("finalizers", [])
    kept = [finalizer for finalizer in had if finalizer not in finalizers]
    if kept == had:
        return

    def change(old: Mapping[str, Any]) -> dict[str, Any]:
        return {**old, "metadata": {**old["metadata"], "finalizers": kept}}

    registry.update(resource, namespace, name, change)


def _set_status(
    registry: Registry, resource: Resource, namespace: str, name: str, status: Mapping[str, Any]
) -> None:
    def change(old: Mapping[str, Any]) -> dict[str, Any]:
        return {**old, "status": {**old.get("status", {}), **status}}

    subresource = "status" if resource.status_subresource else ""
    registry.update(resource, namespace, name, change, subresource=subresource)
