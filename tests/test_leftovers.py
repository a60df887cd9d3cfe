"""Leftovers, from objects: what stays of a VM, and which command, if any, takes it away."""

from __future__ import annotations

import pytest

from kubectl_harvester_stuck import leftovers
from kubectl_harvester_stuck.case import Case
from kubectl_harvester_stuck.finalizers import REMOVED_PVCS
from kubectl_harvester_stuck.kinds import (
    LONGHORN_ATTACHMENT,
    LONGHORN_NAMESPACE,
    NETWORK_CONFIG,
    PVC,
    VM,
    VM_RESTORE,
    VOLUME_ATTACHMENT,
)
from kubectl_harvester_stuck.model import Object, Ref
from tests import builders
from tests.builders import Body, bare, parsed, snapshot, stored
from tests.test_findings import disk, snapshot_backup
from tests.test_guards import dead_node, deleted_pod, deleted_vm, deleted_vmi, live_node


def lines(*bodies: Body, ticked: str = "", **blind: str) -> tuple[str, ...]:
    """What is told of a VM whose disk is `disk-0`, once it is gone."""
    machine = parsed(deleted_vm(spec=disk("disk-0"), annotations={REMOVED_PVCS: ticked}))
    unreadable = {PVC: blind["pvc"]} if blind else None
    return leftovers.of(Case(Ref("shop", "web", VM), snapshot(*bodies, unreadable=unreadable)),
                        machine)  # fmt: skip


def claim() -> Body:
    body = builders.pvc("shop", "disk-0")
    return stored({**body, "spec": {"volumeName": "pvc-1"}})


def attachment() -> Body:
    spec = {"nodeName": "node-2", "source": {"persistentVolumeName": "pvc-1"}}
    meta = {"name": "csi-1"}
    return stored({"apiVersion": VOLUME_ATTACHMENT.api_version, "kind": "VolumeAttachment",
                   "metadata": meta, "spec": spec})  # fmt: skip


def test_nothing_left_is_nothing_told() -> None:
    assert lines() == ()


def test_a_disk_that_was_ticked_comes_with_its_command() -> None:
    (line,) = lines(claim(), ticked="disk-0")
    assert line.endswith("kubectl delete pvc disk-0 -n shop")


def test_a_disk_that_was_not_ticked_comes_with_none() -> None:
    (line,) = lines(claim())
    assert "is kept" in line
    assert "kubectl" not in line


def test_a_disk_that_is_going_is_not_left() -> None:
    body = builders.pvc("shop", "disk-0")
    assert lines(stored(body, deleted=builders.ago(minutes=1)), ticked="disk-0") == ()


def test_an_attachment_to_a_dead_node_is_deleted_and_never_stripped() -> None:
    told = lines(claim(), attachment(), *dead_node())
    (line,) = [one for one in told if "csi-1" in one]
    assert line.endswith("kubectl delete volumeattachment.storage.k8s.io csi-1")
    assert "once that node has no power" in line


def test_an_attachment_to_a_live_node_is_left_to_its_attacher() -> None:
    told = lines(claim(), attachment(), *live_node())
    (line,) = [one for one in told if "csi-1" in one]
    assert "kubectl" not in line


def test_tickets_of_longhorn_are_only_looked_at() -> None:
    tickets = {"attachmentTickets": {"csi-1": {"nodeID": "node-2"}}}
    body = bare(LONGHORN_ATTACHMENT, LONGHORN_NAMESPACE, "pvc-1", spec=tickets)
    held = Object.parse(LONGHORN_ATTACHMENT, stored(body))
    case = Case(Ref("shop", "web", VM), snapshot(claim()))
    seen = {**case.snapshot.listed, (LONGHORN_ATTACHMENT, LONGHORN_NAMESPACE): (held,)}
    with_ticket = Case(case.ref, type(case.snapshot)(case.snapshot.taken_at, seen))
    told = leftovers.of(with_ticket, parsed(deleted_vm(spec=disk("disk-0"))))
    (line,) = [one for one in told if "longhorn.io" in one]
    assert "1 ticket;" in line
    assert "delete" not in line


@pytest.mark.parametrize(
    ("body", "command"),
    [
        (snapshot_backup(), "kubectl delete virtualmachinebackup.harvesterhci.io nightly -n shop"),
        (
            stored(bare(VM_RESTORE, "shop", "undo", spec={"target": {"name": "web"}})),
            "kubectl delete virtualmachinerestore.harvesterhci.io undo -n shop",
        ),
        (
            stored(bare(NETWORK_CONFIG, "shop", "web")),
            "kubectl delete virtualmachinenetworkconfig.network.harvesterhci.io web -n shop",
        ),
    ],
    ids=["snapshot", "restore", "address"],
)
def test_what_nobody_takes_away_comes_with_its_command(body: Body, command: str) -> None:
    (line,) = lines(body)
    assert line.endswith(command)


def test_another_vms_things_are_not_told() -> None:
    other = stored(bare(VM_RESTORE, "shop", "undo", spec={"target": {"name": "db"}}))
    remote = stored(builders.vm_backup("shop", "remote", "web", "backup"))
    assert lines(snapshot_backup(vm="db"), other, remote, stored(builders.pvc("shop", "d"))) == ()


def test_a_pod_that_stays_is_told() -> None:
    (line,) = lines(deleted_pod(deleted_vmi()))
    assert "before a VM web is made again" in line


def test_what_cannot_be_read_is_told() -> None:
    told = lines(pvc="Forbidden")
    assert told
    assert all(line.startswith("not looked for: ") for line in told)
