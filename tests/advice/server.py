"""What the cluster does with a command that was pasted."""

from __future__ import annotations

import json
import pickle
import shlex
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

Body = dict[str, Any]


class RejectedError(Exception):
    """The server answers 404, 409 or with the denial of a webhook."""


KINDS = {
    "virtualmachine.kubevirt.io": "VirtualMachine",
    "virtualmachineinstance.kubevirt.io": "VirtualMachineInstance",
    "virtualmachineinstancemigration.kubevirt.io": "VirtualMachineInstanceMigration",
    "virtualmachinebackup.harvesterhci.io": "VirtualMachineBackup",
    "virtualmachinerestore.harvesterhci.io": "VirtualMachineRestore",
    "virtualmachinenetworkconfig.network.harvesterhci.io": "VirtualMachineNetworkConfig",
    "loadbalancer.loadbalancer.harvesterhci.io": "LoadBalancer",
    "volumeattachment.storage.k8s.io": "VolumeAttachment",
    "volumesnapshot.snapshot.storage.k8s.io": "VolumeSnapshot",
    "setting.harvesterhci.io": "Setting",
    "upgrade.harvesterhci.io": "Upgrade",
    "apiservice.apiregistration.k8s.io": "APIService",
    "pvc": "PersistentVolumeClaim",
    "pv": "PersistentVolume",
    "pod": "Pod",
    "node": "Node",
    "deploy": "Deployment",
    "ds": "DaemonSet",
}
FINAL = ("Succeeded", "Failed")


@dataclass
class Server:
    """Objects at one time; `killed` are guests that were ended without a shutdown."""

    bodies: list[Body]
    now: datetime
    killed: list[Body]

    @classmethod
    def of(cls, bodies: list[Body], now: datetime) -> Server:
        return cls(pickle.loads(pickle.dumps(bodies)), now, [])

    def find(self, kind: str, name: str, namespace: str | None) -> Body | None:
        for body in self.bodies:
            meta = body["metadata"]
            is_it = (body["kind"], meta["name"]) == (kind, name)
            if is_it and namespace in (None, meta.get("namespace")):
                return body
        return None

    def every(self, kind: str, namespace: str) -> list[Body]:
        return [
            body
            for body in self.bodies
            if body["kind"] == kind and body["metadata"].get("namespace") == namespace
        ]

    def release(self, name: str, namespace: str) -> None:
        """What a release does: the pods, the VMI and the VM go, and what they own."""
        for kind in ("Pod", "VirtualMachineInstance", "VirtualMachine"):
            for body in self.every(kind, namespace):
                meta = body["metadata"]
                owners = [owner["name"] for owner in meta.get("ownerReferences", ())]
                if name in ((*owners,) if kind == "Pod" else (meta["name"],)):
                    self.bodies.remove(body)
                    self._collect(body)

    # Commands

    def run(self, line: str) -> str:
        """Carry out a line as it was printed; the verb. Raises RejectedError."""
        program, verb, *rest = shlex.split(line)
        assert program in ("kubectl", "virtctl"), line
        if program == "kubectl" and verb == "harvester-stuck":
            return "own"
        if verb == "rollout":
            verb, rest = "rollout restart", rest[1:]
        words, flags = _split(rest)
        namespace = flags.get("-n")
        if program == "virtctl":
            acts = {
                "stop": self._stop,
                "migrate-cancel": self._cancel,
                "evacuate-cancel": self._end_evacuation,
            }
            acts[verb](words[-1], namespace, flags)
            return f"virtctl {verb}"
        if verb == "get" and len(words) == 1 and "/" not in words[0]:
            return verb  # a list
        body = self._named(verb, words, namespace)
        if verb == "logs" and "-c" in flags:
            names = [one["name"] for one in body["spec"]["containers"]]
            if flags["-c"] not in names:
                raise RejectedError(f"no container {flags['-c']}")
        act = {"delete": self._delete, "patch": self._patch, "annotate": self._annotate}.get(verb)
        if act is not None:
            act(body, words[2:], flags)
        elif verb == "uncordon":
            body["spec"]["unschedulable"] = False
        else:
            assert verb in ("get", "describe", "logs", "edit", "rollout restart"), line
        return verb

    def _named(self, verb: str, words: list[str], namespace: str | None) -> Body:
        if verb == "uncordon":
            kind, name = "node", words[0]
        elif "/" in words[0]:
            kind, _, name = words[0].partition("/")
        elif verb == "logs":
            kind, name = "pod", words[0]
        else:
            kind, name = words[:2]
        found = self.find(KINDS[kind], name, namespace)
        if found is None:
            raise RejectedError(f"404: {kind} {name}")
        return found

    def _delete(self, body: Body, _: list[str], __: dict[str, str]) -> None:
        self._admit(body)
        # Finalizers only put it off: what is asked for is that it goes.
        self.bodies.remove(body)
        self._collect(body)
        if body["kind"] == "VirtualMachineInstance":
            body["metadata"].setdefault("deletionTimestamp", self._text(self.now))
            self.bodies.append(body)
            if body["spec"].get("terminationGracePeriodSeconds") == 0:
                self.killed.append(body)

    def _collect(self, gone: Body) -> None:
        """The garbage collector: what loses its last owner goes as well."""
        living = {body["metadata"]["uid"] for body in self.bodies}
        for body in list(self.bodies):
            owners = body["metadata"].get("ownerReferences", ())
            uids = [owner["uid"] for owner in owners]
            if gone["metadata"]["uid"] in uids and not living.intersection(uids):
                self.bodies.remove(body)
                self._collect(body)

    def _admit(self, body: Body) -> None:
        """Harvester's webhook on deletions."""
        meta, namespace = body["metadata"], body["metadata"].get("namespace")
        if body["kind"] == "PersistentVolumeClaim":
            notes = meta.get("annotations", {})
            if notes.get("harvesterhci.io/goldenImage") == "true":
                raise RejectedError("can not delete golden image PVC")
            if json.loads(notes.get("harvesterhci.io/owned-by", "[]")):
                raise RejectedError("currently owned by these VMs")
            for image in [one for one in self.bodies if one["kind"] == "VirtualMachineImage"]:
                spec = image["spec"]
                if (spec.get("pvcNamespace"), spec.get("pvcName")) == (namespace, meta["name"]):
                    raise RejectedError("exporting for image")
            for vm in self.every("VirtualMachine", namespace):
                if "deletionTimestamp" not in vm["metadata"] and meta["name"] in claims_of(vm):
                    raise RejectedError("currently attached to VM")
        if body["kind"] == "VirtualMachineBackup":
            for restore in self.every("VirtualMachineRestore", namespace):
                conditions = restore.get("status", {}).get("conditions", ())
                works = {"type": "InProgress", "status": "True"} in conditions
                if restore["spec"].get("virtualMachineBackupName") == meta["name"] and works:
                    raise RejectedError("vmrestore is in progress")

    def _patch(self, body: Body, _: list[str], flags: dict[str, str]) -> None:
        patch = json.loads(flags["-p"])
        if isinstance(patch, list):
            *tests, last = patch
            owners = body["metadata"].get("ownerReferences", ())
            if [test["value"] for test in tests] != [owner["uid"] for owner in owners]:
                raise RejectedError("409: the test failed")
            assert last == {"op": "remove", "path": "/metadata/ownerReferences"}
            del body["metadata"]["ownerReferences"]
        else:
            body.setdefault("spec", {}).update(patch["spec"])

    def _annotate(self, body: Body, words: list[str], _: dict[str, str]) -> None:
        for word in words:
            assert word.endswith("-") or "=" in word
            key, __, value = word.rstrip("-").partition("=")
            notes = body["metadata"].setdefault("annotations", {})
            notes[key] = value
            if word.endswith("-"):
                del notes[key]

    def _stop(self, name: str, namespace: str | None, flags: dict[str, str]) -> None:
        """KubeVirt's subresource `stop`, with a grace period of zero."""
        assert flags["--grace-period"] == "0"
        vm = self.find("VirtualMachine", name, namespace)
        vmi = self.find("VirtualMachineInstance", name, namespace)
        if vm is None:
            raise RejectedError("404: no VM")
        if vmi is None or vmi["status"].get("phase") in FINAL:
            raise RejectedError("409: VM is not running")
        for backup in self.every("VirtualMachineBackup", str(namespace)):
            is_open = not backup.get("status", {}).get("readyToUse")
            is_open &= "deletionTimestamp" not in backup["metadata"]
            if backup["spec"]["source"]["name"] == name and is_open:
                raise RejectedError("there is vmbackup in progress")
        vm["spec"].pop("running", None)
        vm["spec"]["runStrategy"] = "Halted"
        self.killed.append(vmi)

    def _end_evacuation(self, name: str, namespace: str | None, _: dict[str, str]) -> None:
        vmi = self.find("VirtualMachineInstance", name, namespace or "default")
        if vmi is None:
            raise RejectedError(f"404: {name}")
        vmi["status"].pop("evacuationNodeName", None)

    def _cancel(self, name: str, namespace: str | None, _: dict[str, str]) -> None:
        found = [
            item
            for item in self.every("VirtualMachineInstanceMigration", str(namespace))
            if item["spec"]["vmiName"] == name and item["status"].get("phase") not in FINAL
        ]
        if not found:
            raise RejectedError("404: found no migration to cancel")
        if any("deletionTimestamp" in item["metadata"] for item in found):
            raise RejectedError("409: it is ending already")

    def _text(self, moment: datetime) -> str:
        return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _split(rest: list[str]) -> tuple[list[str], dict[str, str]]:
    words: list[str] = []
    flags: dict[str, str] = {}
    left = list(rest)
    while left:
        word = left.pop(0)
        if word.startswith("--") or word in ("-A",):
            key, _, value = word.partition("=")
            flags[key] = value
        elif word.startswith("-"):
            flags[word] = left.pop(0)
        else:
            words.append(word)
    return words, flags


def claims_of(machine: Body) -> set[str]:
    """The PVCs that a VM or a VMI names, in its spec or in Harvester's annotation."""
    spec = machine["spec"].get("template", {}).get("spec", machine["spec"])
    found = set()
    for volume in spec.get("volumes", ()):
        for key, name in (("persistentVolumeClaim", "claimName"), ("dataVolume", "name")):
            if key in volume:
                found.add(volume[key][name])
    notes = machine["metadata"].get("annotations", {})
    with suppress(ValueError, TypeError, KeyError):  # Harvester reads none there either
        written = notes.get("harvesterhci.io/volumeClaimTemplates") or "[]"
        found |= {entry["metadata"]["name"] for entry in json.loads(written)}
    return found


def grace_of(vmi: Body) -> timedelta:
    return timedelta(seconds=vmi["spec"].get("terminationGracePeriodSeconds", 30))
