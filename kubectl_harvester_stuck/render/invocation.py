"""How the program was called, so that the commands it prints work when pasted."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass

from kubectl_harvester_stuck.k8s.kinds import VM
from kubectl_harvester_stuck.k8s.objects import ObjectRef

PROGRAM = ("kubectl", "harvester-stuck")


@dataclass(frozen=True)
class Invocation:
    """The cluster that is spoken to, and the flags that led there (never a token)."""

    context: str
    server: str
    connection: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    """The flags of `unstick` that were given, to be repeated."""
    files: tuple[str, ...] = ()
    """What was read instead of a cluster."""

    def unstick(self, ref: ObjectRef, *more: str) -> str:
        """The command that releases `ref`, as it would be typed."""
        kind = "vm" if ref.kind is VM else "vmi"
        words = (*PROGRAM, "unstick", kind, ref.name, "-n", ref.namespace)
        return shlex.join((*words, *self.connection, *self.options, *more))

    def restore(self, file: str, *more: str) -> str:
        """The command that makes a VM again from its backup, as it would be typed."""
        return shlex.join((*PROGRAM, "restore", file, *self.connection, *more))

    def run_again(self, ref: ObjectRef, strategy: str) -> str:
        """The command of kubectl that gives a VM its runStrategy back."""
        patch = json.dumps({"spec": {"runStrategy": strategy}}, separators=(",", ":"))
        words = ("kubectl", "patch", VM.full_name, ref.name, "-n", ref.namespace)
        return shlex.join((*words, *self.connection, "--type=merge", "-p", patch))
