"""Where the guest of a VMI may run, and what proves of each such place that it does not.

A place is a pod of this VMI on its node, or a node that the VMI names. Each needs a proof of its
own: a pod that has ended says nothing of another pod, not even of one on the same node.

What KubeVirt records, and when: pkg/virt-controller/watch/vmi (activePods, nodeName),
pkg/virt-controller/watch/migration and pkg/virt-handler/migration-source.go (migrationState).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, unique
from typing import Any

from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.harvester import grace_period
from kubectl_harvester_stuck.harvester.kubelet import ANSWERING
from kubectl_harvester_stuck.harvester.node_health import (
    NODES,
    SKEW,
    NodeReading,
    SignalState,
    describe,
    read_node,
    signs_of,
)
from kubectl_harvester_stuck.harvester.target import (
    FINAL_PHASES,
    Memory,
    Target,
    has_never_run,
    is_lost,
    is_stopped,
    running_containers,
)
from kubectl_harvester_stuck.k8s.durations import human
from kubectl_harvester_stuck.k8s.kinds import MIGRATION
from kubectl_harvester_stuck.k8s.objects import KubeObject
from kubectl_harvester_stuck.k8s.reads import declared

PLACES = declared(*NODES, MIGRATION)
"""What tells where the guest may run, and what proves that it does not."""

NOT_STARTED = ("", "Pending", "Scheduling", "WaitingForSync")
"""Phases of a VMI before virt-handler is asked to start its guest."""

MIGRATION_TARGET = "kubevirt.io/migrationJobUID"
"""Label of a pod that was made as the target of a migration."""


@dataclass(frozen=True)
class Place:
    """One node on which the guest may run, by one piece of evidence."""

    node: str
    """"" where it is not known."""
    evidence: str
    pod_uid: str = ""
    """The pod in which it would run; "" where only the node is named, or only its name is known."""
    pod_name: str = ""
    """What names that pod, or stands for it, where its uid is not known."""
    pod: KubeObject | None = None
    """That pod; None once it is gone, or where it cannot be told which one it is."""

    @property
    def key(self) -> str:
        """What tells the places of one VMI apart."""
        return f"{self.node}/{self.pod_uid or self.pod_name}"


@unique
class Proof(str, Enum):
    """Why the guest cannot run at a place."""

    ENDED = "ended"
    """The kubelet reports its containers as terminated; that stays true."""
    ABSENT = "absent"
    """The pod is gone, and its node answers and has had the time to end the guest."""
    STATED = "stated"
    """The operator states that the node is powered off, and nothing contradicts it."""


@dataclass(frozen=True)
class PlaceAssessment:
    """What was found of one place: a proof, or why the guest may run there."""

    place: Place
    proof: Proof | None
    reason: str
    is_waiting: bool = False
    """Only the guest's grace period has to pass."""


def places(target: Target) -> tuple[Place, ...]:
    """Every place where the guest of the target may run. Raises UnreadableError."""
    found: dict[str, Place] = {}
    for place in (*_pods(target), *_named(target), *_in_migration(target)):
        found.setdefault(place.key, place)
    return tuple(sorted(found.values(), key=lambda place: place.key))


def nodes(target: Target) -> tuple[str, ...]:
    """Names of every node where the guest may run. Raises UnreadableError."""
    return tuple(sorted({place.node for place in places(target)} - {""}))


def remember(target: Target) -> Memory:
    """What this look adds to what earlier looks have shown; what cannot be read adds nothing."""
    proved = set(target.memory.proved)
    signs: dict[str, Mapping[str, str]] = dict(target.memory.signs)
    with suppress(UnreadableError):
        for place in places(target):
            with suppress(UnreadableError):
                if place.pod is not None and is_stopped(place.pod):
                    # A migration names its pods, and has no uid of them.
                    by_name = Place(place.node, place.evidence, pod_name=place.pod.ref.name)
                    proved |= {_proof_key(target, place), _proof_key(target, by_name)}
    with suppress(UnreadableError):
        held = {pod.text("spec", "nodeName") for pod in target.attachment_pods}
        for name in {*nodes(target), *held} - {""}:
            signs[name] = {**signs_of(target, name), **signs.get(name, {})}
    return Memory(frozenset(proved), signs)


def _proof_key(target: Target, place: Place) -> str:
    """What a proof is remembered by: it holds for this incarnation of the VMI alone."""
    vmi = target.vmi
    return f"{vmi.uid if vmi is not None else ''}/{place.key}"


def assess(place: Place, target: Target, powered_off: Collection[str]) -> PlaceAssessment:
    """What proves that the guest does not run at `place`, or why it may.

    `powered_off` are the nodes that the operator states to have no power. Raises UnreadableError
    where that depends on something that could not be read.
    """
    pod = place.pod
    if _proof_key(target, place) in target.memory.proved or (pod is not None and is_stopped(pod)):
        return PlaceAssessment(place, Proof.ENDED, "its containers have ended")
    if not place.node:
        return _unscheduled(place)
    reading = read_node(target, place.node)
    if pod is not None and reading.kubelet_answers and _was_rejected(pod):
        since = reading.answering_since
        if since is not None and target.snapshot.taken_at - since < ANSWERING:
            return PlaceAssessment(
                place,
                None,
                f"node {place.node} came back just now, and may not have reported yet what it runs"
                f" of pod {pod.ref.name}",
                is_waiting=True,
            )
        return PlaceAssessment(place, Proof.ENDED, "its kubelet never started a container of it")
    if place.node in powered_off:
        why = contradiction(reading)
        if why is None:
            return PlaceAssessment(
                place, Proof.STATED, f"node {place.node} is stated to be powered off"
            )
        return PlaceAssessment(place, None, why)
    if pod is not None and not (reading.kubelet_answers and is_lost(pod)):
        return PlaceAssessment(place, None, _still_there(pod, reading), _has_time_left(target, pod))
    if reading.kubelet_answers:
        return _answered(place, target, reading)
    _raise_if_unreadable(reading)
    return PlaceAssessment(
        place,
        None,
        f"no pod is left, but node {place.node} does not answer, so the guest may still run there"
        f" ({describe(reading)})",
    )


def contradiction(reading: NodeReading) -> str | None:
    """What speaks against the statement that a node is powered off. Raises UnreadableError."""
    alive = reading.saying(SignalState.ALIVE)
    if alive:
        signs = ", ".join(f"{sign.name}: {sign.text}" for sign in alive)
        return f"node {reading.name} was said to have no power, but it shows life ({signs})"
    _raise_if_unreadable(reading)
    return None


# The places


def _pods(target: Target) -> Iterator[Place]:
    for pod in (*target.pods, *target.doubtful_pods):
        yield Place(pod.text("spec", "nodeName"), f"pod {pod.ref.name}", pod.uid, pod=pod)


def _named(target: Target) -> Iterator[Place]:
    """The places that the status of the VMI names."""
    vmi = target.vmi
    if vmi is None:
        return
    there = {pod.uid for pod in target.pods}
    for uid, node in vmi.mapping("status", "activePods").items():
        if not isinstance(node, str):
            raise UnreadableError(str(vmi.ref), f"status.activePods.{uid} is not a string")
        if uid not in there:
            yield Place(node, "status.activePods", str(uid))
    node = vmi.text("status", "nodeName")
    if node:
        yield Place(node, "status.nodeName", pod=_pod_of_the_guest(target, vmi, node))
    elif not there and not vmi.mapping("status", "activePods"):
        phase = vmi.text("status", "phase")
        if phase not in (*NOT_STARTED, *FINAL_PHASES):
            raise UnreadableError(str(vmi.ref), f"it is {phase}, but names no node")


def _in_migration(target: Target) -> Iterator[Place]:
    """Both ends of a migration that may have moved the guest, as far as they are in this cluster.

    The source of one that has completed is none; a pod there, even one that only activePods names,
    is a place of its own, for both ends have been seen to run (K#16622).
    """
    vmi = target.vmi
    if vmi is None:
        return
    states = [item.mapping("status", "migrationState") for item in target.migrations]
    state = vmi.mapping("status", "migrationState")
    if _may_have_moved(vmi):
        states.append(state)
    # It has arrived, but the VMI does not say so yet: then it may be at either end.
    if _has_arrived(state) and state.get("targetNode") != vmi.text("status", "nodeName"):
        states.append(state)
    pods = {pod.ref.name: pod for pod in target.pods}
    for state in states:
        for end in ("source", "target"):
            node, name = state.get(f"{end}Node"), state.get(f"{end}Pod")
            if end == remote_end(state, vmi) or not node:
                continue
            pod = pods.get(str(name))
            if pod is None:
                # Both ends can be on one node (K#18946), where a proof of one is none of the other.
                yield Place(str(node), f"the {end} of a migration", pod_name=str(name or end))


def _has_arrived(state: Mapping[str, Any]) -> bool:
    return bool(state.get("completed")) and not state.get("failed")


def _may_have_moved(vmi: KubeObject) -> bool:
    """Whether its guest may be at the other end, by a migration that was not seen to arrive.

    Only virt-handler sees a migration fail. virt-controller calls one failed when it misses the
    target pod; and the virt-handler of the source calls both failed, the migration and the guest,
    when a guest that has moved is not reported from its new node (migration-source.go:
    updateStatus). Raises UnreadableError.
    """
    state, phase = vmi.mapping("status", "migrationState"), vmi.text("status", "phase")
    # A guest that has shut down is moved by nobody.
    if not state or _has_arrived(state) or phase == "Succeeded":
        return False
    if is_open(state) or phase == "Failed":
        return True
    path = ("status", "migrationState")
    told = vmi.managers_of(*path, "failed") | vmi.managers_of(*path, "endTimestamp")
    return told != {"virt-handler"}


def is_open(state: Mapping[str, Any]) -> bool:
    """Whether a migrationState is that of a migration that has not finished."""
    return bool(state) and not (
        state.get("completed") or state.get("failed") or state.get("endTimestamp")
    )


def remote_end(state: Mapping[str, Any], vmi: KubeObject) -> str | None:
    """Which end of a migration is in another cluster: `source`, `target`, or None.

    Such a migration has an address at which the two clusters exchange it (`syncAddress`). The end
    of this cluster is the one with this VMI's uid; where the uids are missing, the one that has no
    such address. Raises UnreadableError where the two cannot be told apart.
    """
    ends = {
        end: part
        for end in ("source", "target")
        if isinstance(part := state.get(f"{end}State"), Mapping)
    }
    if not any(part.get("syncAddress") for part in ends.values()):
        return None
    uids = {end: part.get("virtualMachineInstanceUID") for end, part in ends.items()}
    for end, other in (("source", "target"), ("target", "source")):
        if uids.get(end) == vmi.uid and uids.get(other) != vmi.uid:
            return other
    addressed = [end for end, part in ends.items() if part.get("syncAddress")]
    if not any(uids.values()) and len(addressed) == 1:
        return addressed[0]
    raise UnreadableError(str(vmi.ref), "status.migrationState does not say which end is its own")


def may_run_elsewhere(target: Target) -> str | None:
    """Why the guest may run in another cluster, or None. Raises UnreadableError."""
    vmi = target.vmi
    if vmi is None or vmi.text("status", "phase") in NOT_STARTED:
        return None
    state, phase = vmi.mapping("status", "migrationState"), vmi.text("status", "phase")
    end = remote_end(state, vmi)
    if end is not None and is_open(state) and phase not in FINAL_PHASES:
        return (
            f"a migration with another cluster is not finished, and its {end} is there:"
            " the guest may run over there"
        )
    # What failed to arrive here stays at its source, and has nothing to do with this VMI.
    if end == "target" and _may_have_moved(vmi):
        return (
            "a migration to another cluster was not seen to fail over there: the guest may run"
            " over there"
        )
    return None


def _pod_of_the_guest(target: Target, vmi: KubeObject, node: str) -> KubeObject | None:
    """The pod in which the guest runs on `status.nodeName`; None where it cannot be told.

    Several pods of a VMI can have been on one node, for it can be moved away and back.
    """
    here = [pod for pod in target.pods if pod.text("spec", "nodeName") == node]
    state = vmi.mapping("status", "migrationState")
    if not state:
        # It was never moved, so it runs in the pod that was not made for a migration.
        first = [pod for pod in here if MIGRATION_TARGET not in pod.labels]
        return first[0] if len(first) == 1 else None
    ends = ("target", "source") if _has_arrived(state) else ("source", "target")
    for end in ends:
        if state.get(f"{end}Node") == node:
            name = state.get(f"{end}Pod")
            return next((pod for pod in here if pod.ref.name == name), None)
    return None


# What is known of a place


def _unscheduled(place: Place) -> PlaceAssessment:
    pod = place.pod
    if pod is None:
        raise UnreadableError(place.evidence, "it does not say on which node the guest may run")
    # The scheduler passes over a pod that is being deleted, and a node is given only once.
    if pod.deletion_timestamp is not None:
        return PlaceAssessment(place, Proof.ENDED, "it was never given a node")
    return PlaceAssessment(
        place, None, f"pod {pod.ref.name} has no node yet and may still be given one"
    )


def _was_rejected(pod: KubeObject) -> bool:
    """Whether a kubelet that answers will start nothing of a pod that has never run anything.

    The control plane calls a pod of a lost node Failed as well, whatever runs there unreported.
    """
    return pod.text("status", "phase") in FINAL_PHASES and has_never_run(pod)


def _still_there(pod: KubeObject, reading: NodeReading) -> str:
    running = running_containers(pod)
    certainly = "still runs" if reading.kubelet_answers else "may still run"
    what = "the guest"
    if running and "compute" not in running:
        what = f"container {running[0]}, which can hold the guest's disks,"
    return f"pod {pod.ref.name} on node {reading.name} {certainly} {what} ({describe(reading)})"


def _has_time_left(target: Target, pod: KubeObject) -> bool:
    return grace_period.left(target) is not None and pod.deletion_timestamp is not None


def _answered(place: Place, target: Target, reading: NodeReading) -> PlaceAssessment:
    """A node that answers knows of no such pod: whether it has had the time to end the guest."""
    vmi, now = target.vmi, target.snapshot.taken_at
    for pod in target.pods:
        # The node alone is named, and its pod cannot be told: then all of them count.
        if pod.text("spec", "nodeName") == place.node and not is_lost(pod):
            return PlaceAssessment(place, None, _still_there(pod, reading))
    # Each virt-handler sees its own node only; the one of `status.nodeName` writes the phase.
    is_named = vmi is not None and place.node == vmi.text("status", "nodeName")
    if vmi is not None and is_named and _ended_by_virt_handler(vmi):
        return PlaceAssessment(
            place, Proof.ABSENT, f"virt-handler on {place.node} saw the guest end"
        )
    asked = vmi.deletion_requested if vmi is not None else None
    if place.pod is not None:
        asked = max(filter(None, (asked, place.pod.deletion_requested)), default=None)
    if asked is None:
        return PlaceAssessment(place, None, f"nobody has asked the guest on {place.node} to stop")
    if reading.answering_since is not None and reading.answering_since > now + SKEW:
        raise UnreadableError(f"node {place.node}", "it has been Ready since a time in the future")
    since = max(filter(None, (asked, reading.answering_since)))
    # Without its VMI, the pod alone says how long its guest had.
    own = place.pod.deletion_grace if vmi is None and place.pod else grace_period.of(vmi)
    waited, grace = now - since, own + grace_period.PADDING
    what = "has no pod" if place.pod is None else "finds no container"
    if waited < grace:
        return PlaceAssessment(
            place,
            None,
            f"node {place.node} answers and {what} of the guest, but has had"
            f" {human(waited)} of the {human(grace)} that ending it can take",
            is_waiting=True,
        )
    return PlaceAssessment(
        place, Proof.ABSENT, f"node {place.node} answers and has no pod of the guest"
    )


def _ended_by_virt_handler(vmi: KubeObject) -> bool:
    """Whether virt-handler itself wrote that the guest has ended.

    virt-controller writes Failed as well when it finds no pod, and NodeUnresponsive when the node
    is silent: neither has seen the guest.
    """
    if vmi.text("status", "phase") not in FINAL_PHASES:
        return False
    if vmi.text("status", "reason") == "NodeUnresponsive":
        return False
    return vmi.managers_of("status", "phase") == {"virt-handler"}


def _raise_if_unreadable(reading: NodeReading) -> None:
    for sign in reading.saying(SignalState.UNREADABLE):
        raise UnreadableError(f"node {reading.name}", f"{sign.name}: {sign.text}")
