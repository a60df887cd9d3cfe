"""Commands that are printed to be pasted, as values: words, effect, and the object they act on.

A value can be held against what was read before it is printed, and is spelled in one place: for
the shell, the cluster and the user that the program was called with. What is done by hand
elsewhere, at the console of a node, is a `Remark`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from enum import Enum, auto, unique

from kubectl_harvester_stuck.k8s.kinds import (
    DAEMON_SET,
    DEPLOYMENT,
    NODE,
    POD,
    PV,
    PVC,
    VM,
    VMI,
    Kind,
)
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef

PROGRAM = ("kubectl", "harvester-stuck")


@unique
class Effect(Enum):
    """What a command does to the object that it acts on."""

    LOCAL = auto()
    """Nothing: no cluster is asked."""
    READ = auto()
    KEEP = auto()
    """The object outlives what it would be destroyed with."""
    CHANGE = auto()
    DELETE = auto()
    """The object goes, and with it what it owns."""
    STOP = auto()
    """A guest ends without the chance to shut down."""
    CANCEL = auto()
    """A migration ends."""
    RESTART = auto()
    """A workload of the cluster gets new pods."""
    START = auto()
    """A guest may start."""
    GUARDED = auto()
    """A change by this program, which asks its guards and the operator first."""


@dataclass(frozen=True)
class Remark:
    """What to do by hand, or to know, in one sentence without a command."""

    text: str


@dataclass(frozen=True)
class Command:
    """One command.

    `words` are what is typed, but for the flags that choose cluster and user. `note` says in one
    sentence what it is for; it is shown before the command, and goes with it.
    """

    words: tuple[str, ...]
    effect: Effect
    acts_on: ObjectRef | None = None
    note: str = ""

    def noted(self, note: str) -> Command:
        """The same command with a note."""
        return replace(self, note=note)


Advice = Command | Remark
"""One thing to do."""

_SHORT = {PVC: "pvc", PV: "pv"}
"""What everybody types for these; every other kind has its full name."""


_PREFIX = {DEPLOYMENT: "deploy/", DAEMON_SET: "ds/"}


def _kubectl(verb: str, ref: ObjectRef, *flags: str, effect: Effect) -> Command:
    named = (_SHORT.get(ref.kind, ref.kind.full_name), ref.name)
    where = ("-n", ref.namespace) if ref.namespace else ()
    return Command(("kubectl", verb, *named, *where, *flags), effect, ref)


def _workload(verb: tuple[str, ...], ref: ObjectRef, *flags: str, effect: Effect) -> Command:
    name = f"{_PREFIX[ref.kind]}{ref.name}"
    return Command(("kubectl", *verb, name, "-n", ref.namespace, *flags), effect, ref)


def get(ref: ObjectRef, *flags: str) -> Command:
    """Look at one object."""
    return _kubectl("get", ref, *flags, effect=Effect.READ)


def get_workload(ref: ObjectRef, *flags: str) -> Command:
    """Look at a Deployment or a DaemonSet."""
    return _workload(("get",), ref, *flags, effect=Effect.READ)


def get_all(kinds: Kind | tuple[Kind, ...], namespace: str | None = None, *flags: str) -> Command:
    """Look at all objects of a kind: in `namespace`, or everywhere."""
    each = (kinds,) if isinstance(kinds, Kind) else kinds
    is_everywhere = namespace is None and any(kind.namespaced for kind in each)
    where = ("-n", namespace) if namespace is not None else ("-A",) if is_everywhere else ()
    words = ("kubectl", "get", ",".join(kind.resource for kind in each), *where, *flags)
    return Command(words, Effect.READ)


def describe(ref: ObjectRef) -> Command:
    """Look at one object and its events."""
    return _kubectl("describe", ref, effect=Effect.READ)


def logs(ref: ObjectRef, *flags: str) -> Command:
    """The log of a pod, or of a pod of a Deployment or a DaemonSet."""
    where, name = ("-n", ref.namespace), f"{_PREFIX.get(ref.kind, '')}{ref.name}"
    order = (name, *where) if ref.kind is POD else (*where, name)
    return Command(("kubectl", "logs", *order, *flags), Effect.READ, ref)


def delete(ref: ObjectRef, *flags: str) -> Command:
    """Delete an object; what it owns goes with it."""
    return _kubectl("delete", ref, *flags, effect=Effect.DELETE)


def edit(ref: ObjectRef) -> Command:
    """Change an object in an editor."""
    return _kubectl("edit", ref, effect=Effect.CHANGE)


def annotate(ref: ObjectRef, key: str, value: str | None) -> Command:
    """Set an annotation of an object; None takes it off."""
    change = (f"{key}-",) if value is None else (f"{key}={value}", "--overwrite")
    return _kubectl("annotate", ref, *change, effect=Effect.CHANGE)


def patch(ref: ObjectRef, body: object, *, kind: str = "merge", effect: Effect) -> Command:
    """Patch an object; `kind` is one of kubectl's types of patches, "" for its default."""
    text = json.dumps(body, separators=(",", ":"))
    flags = (f"--type={kind}",) if kind else ()
    return _kubectl("patch", ref, *flags, "-p", text, effect=effect)


def retain(volume: ObjectRef) -> Command:
    """Keep the data of a PersistentVolume whose claim goes."""
    policy = {"spec": {"persistentVolumeReclaimPolicy": "Retain"}}
    return patch(volume, policy, kind="", effect=Effect.KEEP)


def disown(item: KubeObject) -> Command:
    """Take the ownerReferences off an object, if they are still these."""
    path = "/metadata/ownerReferences"
    steps: list[dict[str, str]] = [
        {"op": "test", "path": f"{path}/{number}/uid", "value": owner.uid}
        for number, owner in enumerate(item.owners)
    ]
    steps.append({"op": "remove", "path": path})
    return patch(item.ref, steps, kind="json", effect=Effect.KEEP)


def start(vm: ObjectRef, strategy: str) -> Command:
    """Give a VM its runStrategy."""
    return patch(vm, {"spec": {"runStrategy": strategy}}, effect=Effect.START)


def rollout_restart(ref: ObjectRef) -> Command:
    """Replace the pods of a Deployment or a DaemonSet, one after the other."""
    return _workload(("rollout", "restart"), ref, effect=Effect.RESTART)


def uncordon(node: str) -> Command:
    """Let a node take pods again."""
    return Command(("kubectl", "uncordon", node), Effect.CHANGE, ObjectRef("", node, NODE))


def virtctl_force_stop(vm: ObjectRef) -> Command:
    """Kill the guest of a VM; its runStrategy becomes Halted."""
    words = ("virtctl", "stop", vm.name, "-n", vm.namespace, "--force", "--grace-period=0")
    return Command(words, Effect.STOP, ObjectRef(vm.namespace, vm.name, VM))


def virtctl_evacuate_cancel(vmi: ObjectRef) -> Command:
    """Stop moving a guest off its node again and again."""
    words = ("virtctl", "evacuate-cancel", "vmi", vmi.name, "-n", vmi.namespace)
    return Command(words, Effect.CHANGE, vmi)


def virtctl_migrate_cancel(vm: ObjectRef) -> Command:
    """End the migration of a guest, whether or not it has a VM."""
    words = ("virtctl", "migrate-cancel", vm.name, "-n", vm.namespace)
    return Command(words, Effect.CANCEL, ObjectRef(vm.namespace, vm.name, VMI))


# Commands of this program


def own(*words: str, effect: Effect = Effect.READ) -> Command:
    """A command of this program."""
    return Command((*PROGRAM, *words), effect)


def _target(ref: ObjectRef) -> tuple[str, ...]:
    return ("vm" if ref.kind is VM else "vmi", ref.name, "-n", ref.namespace)


def unstick(ref: ObjectRef, *flags: str) -> Command:
    """Release a VM or a VMI."""
    return own("unstick", *_target(ref), *flags, effect=Effect.GUARDED)


def unstick_named(namespace: str, names: tuple[str, ...], *flags: str) -> Command:
    """Release several VMs of one namespace."""
    return own("unstick", "vm", *names, "-n", namespace, *flags, effect=Effect.GUARDED)


def unstick_node(node: str, namespace: str | None, *flags: str) -> Command:
    """Release all VMs that hang and ran on a node: in `namespace`, or everywhere."""
    scope = ("-n", namespace) if namespace is not None else ("-A",)
    return own("unstick", "vm", *scope, "--node", node, *flags, effect=Effect.GUARDED)


def journal() -> Command:
    """Look at what was changed from here."""
    return own("journal", effect=Effect.LOCAL)


def finalizers(name: str) -> Command:
    """Look a finalizer up."""
    return own("finalizers", name, effect=Effect.LOCAL)


def diagnose(ref: ObjectRef) -> Command:
    """Ask why a VM or a VMI is stuck."""
    return own("diagnose", *_target(ref))


def diagnose_all(namespace: str | None, files: tuple[str, ...] = ()) -> Command:
    """Ask why everything is stuck: in `namespace` or everywhere, or in files."""
    scope = ("-n", namespace) if namespace is not None else () if files else ("-A",)
    words = (*scope, *(word for name in files for word in ("-f", name)))
    return own("diagnose", *words, effect=Effect.LOCAL if files else Effect.READ)


def restore(file: str, *flags: str) -> Command:
    """Create a VM again from its undo file."""
    return own("restore", file, *flags, effect=Effect.GUARDED)


def again(*words: str) -> Command:
    """What was typed, in a better way: the words behind the name of the program."""
    return own(*words, effect=Effect.GUARDED)
