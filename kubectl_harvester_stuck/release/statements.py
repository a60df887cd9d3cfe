"""Whether what the operator states can be meant, before any plan is made from it.

The guard `guest-stopped` holds each statement against the signs of the node, wherever a guest may
run there. Here are the statements that concern no target: a mistyped name, or a node that is up.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from kubectl_harvester_stuck.errors import StatementError, UnreadableError
from kubectl_harvester_stuck.harvester import places
from kubectl_harvester_stuck.harvester.finalizer_catalogue import CATALOGUE
from kubectl_harvester_stuck.harvester.node_health import SignalState, read_node
from kubectl_harvester_stuck.harvester.target import Target
from kubectl_harvester_stuck.k8s.commands import Remark


def look_at(node: str) -> Remark:
    """What to do before a node is stated to be powered off."""
    return Remark(f"look at {node}, at its console or its BMC: does it have power?")


def check(targets: Sequence[Target], powered_off: Collection[str]) -> None:
    """Raise StatementError for a node that is stated to be powered off and cannot be meant.

    That is one which is neither in the cluster nor where a target may run, and one which shows
    life. A node that cannot be read is left to the guards.
    """
    for name in sorted(powered_off):
        if any(_concerns(target, name) for target in targets):
            continue
        for target in targets[:1]:
            _check_one(target, name)


def check_finalizers(targets: Sequence[Target], named: Collection[str]) -> None:
    """Raise StatementError for a finalizer that no target carries and the catalogue lacks.

    It is mistyped, and the release would be another than was asked for. A target that cannot be
    read may carry it.
    """
    known = {entry.name for entry in CATALOGUE}
    try:
        for target in targets:
            for subject in (target.vm, target.vmi):
                known.update(subject.finalizers if subject is not None else ())
    except UnreadableError:
        return
    for name in sorted(set(named) - known):
        raise StatementError(
            f"--finalizer {name}: none of these VMs and VMIs carries it; diagnose shows theirs"
        )


def _concerns(target: Target, name: str) -> bool:
    """Whether the guest or a hotplugged volume may be on the node; unreadable counts as yes."""
    try:
        held = {pod.text("spec", "nodeName") for pod in target.attachment_pods}
        return name in held.union(places.nodes(target))
    except UnreadableError:
        return True


def _check_one(target: Target, name: str) -> None:
    try:
        is_there = target.node(name) is not None
    except UnreadableError:
        return
    if not is_there:
        raise StatementError(
            f"--node-powered-off {name}: there is no such node, and none of these VMs may run"
            " there; say its name as the cluster does"
        )
    alive = read_node(target, name).saying(SignalState.ALIVE)
    if alive:
        signs = ", ".join(f"{sign.name}: {sign.text}" for sign in alive)
        raise StatementError(f"--node-powered-off {name}: this node shows life ({signs})")
