"""Leftovers, from objects: what stays of a VM, and which command, if any, takes it away."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_harvester_stuck.harvester import leftovers
from kubectl_harvester_stuck.harvester.finalizer_judges import GUEST_CLUSTER_REMOVED
from kubectl_harvester_stuck.harvester.pending_work import REMOVED_PVCS
from kubectl_harvester_stuck.harvester.target import Target
from kubectl_harvester_stuck.k8s.kinds import (
    LOAD_BALANCER,
    LONGHORN_ATTACHMENT,
    LONGHORN_NAMESPACE,
    LONGHORN_ORPHAN,
    LONGHORN_VOLUME,
    NETWORK_CONFIG,
    PCI_CLAIM,
    PVC,
    VM,
    VM_RESTORE,
    VOLUME_ATTACHMENT,
    Kind,
)
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot
from tests.support import builders
from tests.support.advice import texts
from tests.support.builders import Body, bare, parsed, snapshot, stored
from tests.test_findings import disk, snapshot_backup
from tests.test_guards import dead_node, deleted_pod, deleted_vm, deleted_vmi, live_node


def lines(*bodies: Body, ticked: str = "", **blind: str) -> tuple[str, ...]:
    """What is told of a VM whose disk is `disk-0`, once it is gone."""
    machine = parsed(deleted_vm(spec=disk("disk-0"), annotations={REMOVED_PVCS: ticked}))
    unreadable = {PVC: blind["pvc"]} if blind else None
    around = snapshot(*bodies, unreadable=unreadable)
    return texts(leftovers.of(Target(ObjectRef("shop", "web", VM), around), machine))


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


def test_an_attachment_of_another_disk_is_not_told_and_hides_none() -> None:
    body = attachment()
    other = {
        **body,
        "metadata": {**body["metadata"], "name": "csi-0"},
        "spec": {**body["spec"], "source": {"persistentVolumeName": "pvc-2"}},
    }
    unbound = {**other, "spec": {**body["spec"], "source": {}}}
    told = lines(claim(), other, unbound, body, stored(builders.pvc("shop", "x")), *dead_node())
    assert [one for one in told if "csi-0" in one] == []
    assert [one for one in told if "csi-1" in one]


def longhorn(kind: Kind, name: str, *bodies: Body, **fields: Any) -> tuple[str, ...]:
    """What is told when Longhorn has an object of that kind."""
    body = bare(kind, LONGHORN_NAMESPACE, name, **fields)
    case = Target(ObjectRef("shop", "web", VM), snapshot(*bodies))
    listed = {
        **case.snapshot.listed,
        (kind, LONGHORN_NAMESPACE): (KubeObject.parse(kind, stored(body)),),
    }
    with_it = Target(case.ref, ClusterSnapshot(case.snapshot.taken_at, listed))
    return texts(leftovers.of(with_it, parsed(deleted_vm(spec=disk("disk-0")))))


def test_tickets_of_longhorn_are_only_looked_at() -> None:
    tickets = {"attachmentTickets": {"csi-1": {"nodeID": "node-2"}}}
    told = longhorn(LONGHORN_ATTACHMENT, "pvc-1", claim(), spec=tickets)
    (line,) = [one for one in told if "longhorn.io" in one]
    assert "1 ticket;" in line
    assert "delete" not in line


def test_only_tickets_of_this_vm_s_disks_are_told() -> None:
    tickets = {"csi-1": {"nodeID": "node-2"}, "csi-2": {"nodeID": "node-2"}}
    for name, held, told in (
        ("pvc-1", tickets, "2 tickets;"),
        ("pvc-1", {}, None),
        ("pvc-2", tickets, None),
    ):
        spec = {"attachmentTickets": held, "volume": name}
        found = longhorn(LONGHORN_ATTACHMENT, name, claim(), spec=spec)
        texts = [one for one in found if "longhorn.io" in one]
        assert [told in one for one in texts if told] == ([True] if told else [])
        assert told or not texts


def test_disks_are_ticked_in_a_list_that_commas_separate() -> None:
    told = lines(claim(), ticked=" gone,disk-0 ")
    assert [one for one in told if one.endswith("kubectl delete pvc disk-0 -n shop")]


def test_a_longhorn_volume_without_its_claim_is_told() -> None:
    status = {"kubernetesStatus": {"namespace": "shop", "pvcName": "disk-0"}}
    (line,) = longhorn(LONGHORN_VOLUME, "pvc-1", status=status)
    assert "still holds the data of disk-0" in line
    assert not [one for one in longhorn(LONGHORN_VOLUME, "pvc-1", claim(), status=status)
                if "longhorn.io" in one]  # fmt: skip
    for namespace, name in (("lab", "disk-0"), ("shop", "disk-1")):
        other = {"kubernetesStatus": {"namespace": namespace, "pvcName": name}}
        assert longhorn(LONGHORN_VOLUME, "pvc-1", status=other) == ()


def test_replica_data_that_is_not_used_is_told() -> None:
    spec = {"nodeID": "node-2", "parameters": {"DataName": "pvc-1-0a1b2c3d"}}
    told = longhorn(LONGHORN_ORPHAN, "orphan-1", claim(), spec=spec)
    (line,) = [one for one in told if "orphan-1" in one and "kubectl get" in one]
    assert "on node-2" in line


def test_devices_and_load_balancers_are_told_only_where_they_are_this_vms() -> None:
    devices = {"hostDevices": [{"name": "node1-0", "deviceName": "x"}]}
    spec = {"template": {"spec": {"domain": {"devices": devices}}}}
    going = {GUEST_CLUSTER_REMOVED: "true"}
    labels = {"guestcluster.harvesterhci.io/name": "gc1",
              "harvesterhci.io/creator": "docker-machine-driver-harvester"}  # fmt: skip
    balancers = []
    for name, cluster in (("lb", "gc1"), ("of-another", "gc2")):
        body = bare(LOAD_BALANCER, "shop", name, spec={"workloadType": "cluster"})
        body["metadata"]["labels"] = {"cloudprovider.harvesterhci.io/cluster": cluster}
        balancers.append(stored(body))
    held = {"apiVersion": PCI_CLAIM.api_version, "kind": PCI_CLAIM.kind}
    claims = [stored({**held, "metadata": {"name": name}}) for name in ("node1-0", "node1-1")]
    case = Target(ObjectRef("shop", "web", VM), snapshot(*balancers, *claims))
    machine = parsed(deleted_vm(spec=spec, annotations=going, labels=labels))
    told = texts(leftovers.of(case, machine))
    assert len(told) == 2
    assert any("kubectl delete loadbalancer.loadbalancer.harvesterhci.io lb" in one for one in told)
    assert any("PCIDeviceClaim node1-0 keeps its device" in one for one in told)
    assert leftovers.of(case, parsed(deleted_vm())) == ()


@pytest.mark.parametrize(
    ("body", "command"),
    [
        (
            stored(bare(VM_RESTORE, "shop", "undo", spec={"target": {"name": "web"}})),
            "kubectl delete virtualmachinerestore.harvesterhci.io undo -n shop",
        ),
        (
            stored(builders.migration("shop", "m", "web", "Failed")),
            "kubectl delete virtualmachineinstancemigration.kubevirt.io m -n shop",
        ),
        (
            stored(bare(NETWORK_CONFIG, "shop", "web")),
            "kubectl delete virtualmachinenetworkconfig.network.harvesterhci.io web -n shop",
        ),
    ],
    ids=["restore", "migration", "address"],
)
def test_what_nobody_takes_away_comes_with_its_command(body: Body, command: str) -> None:
    (line,) = lines(body)
    assert line.endswith(command)


def test_a_snapshot_that_stays_comes_with_no_command_that_loses_it() -> None:
    (line,) = lines(snapshot_backup())
    assert "a new VM can be restored from it" in line
    assert "kubectl" not in line


def test_another_vms_things_are_not_told() -> None:
    other = stored(bare(VM_RESTORE, "shop", "undo", spec={"target": {"name": "db"}}))
    remote = stored(builders.vm_backup("shop", "remote", "web", "backup"))
    elsewhere = snapshot_backup(namespace="lab")
    going = stored(bare(NETWORK_CONFIG, "shop", "web"), deleted=builders.ago(minutes=1))
    theirs = [
        *(snapshot_backup(vm="db"), other, remote, elsewhere, going),
        *map(stored, (bare(NETWORK_CONFIG, "shop", "db"), builders.migration("shop", "m", "db"))),
        stored(builders.pvc("shop", "d")),
    ]
    assert lines(*theirs) == ()


@pytest.mark.parametrize(("phase", "told"), [("Failed", "(Failed)"), ("", "(no phase)")])
def test_a_migration_that_is_left_is_told_with_its_phase(phase: str, told: str) -> None:
    (line,) = lines(stored(builders.migration("shop", "m", "web", phase)))
    assert told in line


def test_a_pod_that_stays_is_told() -> None:
    (line,) = lines(deleted_pod(deleted_vmi()))
    assert "before a VM web is made again" in line


def test_the_pod_of_a_hotplugged_volume_that_stays_is_told() -> None:
    instance = deleted_vmi()
    launcher = deleted_pod(instance)
    held = builders.attachment_pod("shop", "hp-volume-x", "node-2", launcher, instance)
    told = lines(stored(held), launcher)
    assert any("hp-volume-x still holds a hotplugged volume" in one for one in told)


def test_what_cannot_be_read_is_told() -> None:
    told = lines(pvc="Forbidden")
    assert told
    assert all(line.startswith("not looked for: ") and "Forbidden" in line for line in told)
