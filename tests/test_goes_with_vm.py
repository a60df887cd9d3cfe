"""What goes with a VM and what stays, by the rules of Kubernetes' garbage collector."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from typing import Any

import pytest

from kubectl_harvester_stuck.harvester import goes_with_vm, leftovers
from kubectl_harvester_stuck.harvester.goes_with_vm import Fate, GoesAndStays
from kubectl_harvester_stuck.harvester.pending_work import REMOVED_PVCS
from kubectl_harvester_stuck.harvester.target import Target
from kubectl_harvester_stuck.k8s.commands import disown, retain
from kubectl_harvester_stuck.k8s.kinds import (
    CONTROLLER_REVISION,
    DATA_VOLUME,
    JOB,
    POD,
    PV,
    PVC,
    SECRET,
    VM,
    VM_BACKUP,
    VM_RESTORE,
    VMI,
    VOLUME_SNAPSHOT,
    Kind,
)
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef, Owner
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot
from tests.support import builders
from tests.support.advice import spelled, texts
from tests.support.builders import Body, ago, bare, parsed, snapshot, stored
from tests.test_guards import dead_node, deleted_pod, deleted_vm, deleted_vmi, live_node

TARGET = ObjectRef("shop", "web", VM)


def look(*bodies: Body, ref: ObjectRef = TARGET, unreadable: dict[Kind, str] | None = None
         ) -> GoesAndStays:  # fmt: skip
    """What goes and what stays in this cluster."""
    return goes_with_vm.follow(Target(ref, snapshot(*bodies, unreadable=unreadable)))


def going(found: GoesAndStays) -> list[str]:
    return [str(fate.ref) for fate in found.goes]


def staying(found: GoesAndStays) -> list[str]:
    return [str(fate.ref) for fate in found.stays]


def only(fates: tuple[Fate, ...]) -> Fate:
    (fate,) = fates
    return fate


def machine(*, ticked: str = "", **more: Any) -> Body:
    """The VM with disk `disk-0`, deleted an hour ago."""
    notes = {REMOVED_PVCS: ticked} if ticked else None
    return deleted_vm(spec=builders.with_disks("disk-0"), annotations=notes, **more)


def claim(name: str = "disk-0", *, owner: Body | None = None, deleted: str | None = None,
          volume: str | None = "pv-1") -> Body:  # fmt: skip
    return stored(builders.pvc("shop", name, owner=owner, volume=volume), deleted=deleted)


def volume(policy: str = "Delete") -> Body:
    return stored(builders.volume("pv-1", policy))


def restore(owner: Body | None, **more: Any) -> Body:
    body = bare(VM_RESTORE, "shop", "undo", owner=owner, spec={"target": {"name": "web"}})
    return stored(body, **more)


def also_owned_by(body: Body, *owners: Body) -> Body:
    """The object with these owners besides those that it has."""
    metadata = body["metadata"]
    added = [
        owner if "uid" in owner else {
            "apiVersion": owner["apiVersion"], "kind": owner["kind"],
            "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"],
        }
        for owner in owners
    ]  # fmt: skip
    return {
        **body,
        "metadata": {**metadata, "ownerReferences": [*metadata.get("ownerReferences", ()), *added]},
    }


def with_finalizers(body: Body, *names: str) -> Body:
    return {**body, "metadata": {**body["metadata"], "finalizers": list(names)}}


STRANGER = {"apiVersion": "snapshot.kubevirt.io/v1beta1", "kind": "VirtualMachineRestore",
            "name": "back", "uid": "back"}  # fmt: skip
"""An owner of a kind that is not read, although one of the same name is."""


# Which objects go


def test_a_disk_that_nobody_owns_stays() -> None:
    found = look(machine(), claim(), volume())
    assert (going(found), staying(found)) == ([], ["PersistentVolumeClaim shop/disk-0"])
    assert found.blind is None
    kept = only(found.stays)
    assert (kept.destroys, kept.lost, kept.keep) == (False, False, None)


def test_a_restored_disk_goes_through_the_restore_that_the_vm_owns() -> None:
    vm = machine()
    undo = restore(vm)
    found = look(vm, undo, claim(owner=undo), volume())
    assert going(found) == [
        "VirtualMachineRestore shop/undo",
        "PersistentVolumeClaim shop/disk-0",
    ]
    assert staying(found) == []
    assert [fate.destroys for fate in found.goes] == [False, True]
    assert only(found.lost).why == (
        "owned by VirtualMachineRestore shop/undo, owned by VirtualMachine shop/web; its data is"
        " destroyed: PersistentVolume pv-1 is Delete"
    )


@pytest.mark.parametrize("kind", [DATA_VOLUME, JOB, CONTROLLER_REVISION, VM_RESTORE])
def test_every_kind_that_is_followed_takes_a_disk_with_it(kind: Kind) -> None:
    vm = machine()
    between = stored(bare(kind, "shop", "between", owner=vm))
    found = look(vm, between, claim("any", owner=between), volume())
    assert going(found)[:1] + going(found)[-1:] in (
        [f"{kind.kind} shop/between", "PersistentVolumeClaim shop/any"],
        ["PersistentVolumeClaim shop/any", f"{kind.kind} shop/between"],
    )
    assert str(only(found.lost).ref) == "PersistentVolumeClaim shop/any"


def test_a_disk_that_the_vm_itself_owns_goes_and_so_does_one_of_its_vmi() -> None:
    vm = machine()
    vmi = stored(builders.vmi("shop", "web", "node-2", owner=vm), deleted=ago(hours=1))
    found = look(vm, vmi, claim(owner=vm), claim("state", owner=vmi), *dead_node())
    assert going(found) == [
        "PersistentVolumeClaim shop/disk-0",
        "PersistentVolumeClaim shop/state",
    ]


def test_a_snapshot_goes_with_its_backup() -> None:
    vm = machine()
    backup = stored(builders.vm_backup("shop", "nightly", "web", owner=vm))
    part = stored(bare(VOLUME_SNAPSHOT, "shop", "part", owner=backup))
    found = look(vm, backup, part, claim(), volume())
    assert going(found) == ["VirtualMachineBackup shop/nightly", "VolumeSnapshot shop/part"]
    assert [fate.lost for fate in found.goes] == [True, True]


def test_one_owner_that_stays_is_enough_to_stay() -> None:
    vm = machine()
    other = stored(bare(DATA_VOLUME, "shop", "other"))
    found = look(vm, other, also_owned_by(claim(owner=vm), other), volume())
    assert going(found) == []
    assert only(found.stays).why == "owned by DataVolume other, which stays"


def test_an_owner_that_goes_with_the_vm_keeps_nothing() -> None:
    vm = machine()
    other = stored(bare(DATA_VOLUME, "shop", "other", owner=vm))
    found = look(vm, other, also_owned_by(claim(owner=vm), other), volume())
    assert "PersistentVolumeClaim shop/disk-0" in going(found)
    # It is told through the nearest.
    assert only(found.lost).why.startswith("owned by VirtualMachine shop/web; ")


def test_pods_that_hold_volumes_for_the_guest_are_not_told() -> None:
    vm, vmi = machine(), deleted_vmi()
    launcher = deleted_pod(vmi)
    holder = stored(builders.attachment_pod("shop", "hp-volume-x", "node-2", launcher, vmi))
    assert look(vm, vmi, launcher, holder, *dead_node()).goes == ()


def test_an_owner_that_is_being_deleted_keeps_nothing_whoever_deletes_it() -> None:
    """Both VMs of a disk can be in one batch."""
    vm = machine()
    other = stored(bare(DATA_VOLUME, "shop", "other"), deleted=ago(hours=1))
    found = look(vm, other, also_owned_by(claim(owner=vm), other), volume())
    assert "PersistentVolumeClaim shop/disk-0" in going(found)


def test_an_owner_that_is_gone_keeps_nothing() -> None:
    vm = machine()
    gone = stored(bare(DATA_VOLUME, "shop", "other"))
    found = look(vm, also_owned_by(claim(owner=vm), gone), volume())
    assert going(found) == ["PersistentVolumeClaim shop/disk-0"]


def test_a_disk_of_the_vm_whose_owners_are_all_gone_goes_as_well() -> None:
    gone = [stored(bare(DATA_VOLUME, "shop", name)) for name in ("a", "b")]
    found = look(machine(), also_owned_by(claim(), *gone), volume())
    why = "owned by DataVolume a and DataVolume b, which does not stay; its data is destroyed"
    assert only(found.lost).why.startswith(why)


def test_another_object_of_the_name_of_an_owner_keeps_nothing() -> None:
    vm = machine()
    gone = stored(bare(DATA_VOLUME, "shop", "other"))
    again = stored(bare(DATA_VOLUME, "shop", "other"))
    found = look(vm, again, also_owned_by(claim(owner=vm), gone), volume())
    assert going(found) == ["PersistentVolumeClaim shop/disk-0"]


def test_an_owner_of_a_kind_that_is_not_read_leaves_it_uncertain_and_that_is_going() -> None:
    vm = machine()
    same_name = stored(bare(VM_RESTORE, "shop", "back"))
    found = look(vm, same_name, also_owned_by(claim(owner=vm), STRANGER), volume())
    assert "VirtualMachineRestore back owns it, too, and was not read" in only(found.lost).why
    found = look(vm, same_name, also_owned_by(claim(), STRANGER), volume())
    assert "VirtualMachineRestore back, which was not read and may go" in only(found.lost).why


def test_an_owner_that_cannot_be_read_leaves_it_uncertain() -> None:
    vm = machine()
    undo = restore(vm)
    found = look(vm, claim(owner=undo), volume(), unreadable={VM_RESTORE: "Forbidden"})
    assert str(only(found.lost).ref) == "PersistentVolumeClaim shop/disk-0"
    assert str(found.blind) == (
        "could not read virtualmachinerestores.harvesterhci.io in shop: Forbidden"
    )


def test_disks_of_others_are_not_told() -> None:
    """A StatefulSet's, one of another VM's DataVolume, and one that nobody owns."""
    workload = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "db"}
    found = look(
        machine(),
        data := stored(bare(DATA_VOLUME, "shop", "other")),
        also_owned_by(claim("data-db-0"), workload),
        claim("other", owner=data),
        claim("free", deleted=ago(hours=1)),
        stored(builders.vm_backup("shop", "theirs", "db")),
    )
    assert (found.goes, found.stays) == ((), ())


@pytest.mark.parametrize("kind", goes_with_vm.NEEDED, ids=lambda kind: kind.kind)
def test_what_holds_data_has_to_be_read(kind: Kind) -> None:
    found = look(machine(), claim(), volume(), unreadable={kind: "Forbidden"})
    assert str(found.blind) == f"could not read {kind.resource} in shop: Forbidden"


@pytest.mark.parametrize("kind", [JOB, CONTROLLER_REVISION], ids=lambda kind: kind.kind)
def test_what_holds_no_data_need_not_be_read(kind: Kind) -> None:
    assert look(machine(), claim(), volume(), unreadable={kind: "Forbidden"}).blind is None


def test_a_vm_that_cannot_be_read_leaves_everything_open() -> None:
    found = look(machine(), unreadable={VMI: "Forbidden"})
    assert "Forbidden" in str(found.blind)
    assert (found.goes, found.stays, found.lost) == ((), (), ())


def test_a_vm_that_is_gone_and_whose_guest_cannot_be_read_leaves_everything_open() -> None:
    vm = parsed(machine())
    for kind in (VMI, POD):
        target = Target(TARGET, snapshot(unreadable={kind: "Forbidden"}))
        assert "Forbidden" in str(goes_with_vm.of(target, [vm], [vm]).blind)


def test_a_vm_whose_disks_cannot_be_told_leaves_everything_open() -> None:
    found = look(deleted_vm(spec={"template": {"spec": {"volumes": 5}}}))
    assert "VirtualMachine shop/web" in str(found.blind)


def test_the_first_of_several_gaps_is_told() -> None:
    blind = {kind: f"no {kind.kind}" for kind in reversed(goes_with_vm.NEEDED)}
    assert str(look(machine(), unreadable=blind).blind).endswith("no VirtualMachineRestore")


# The finalizers of the collector


def test_orphan_cuts_the_dependents_loose() -> None:
    vm = machine()
    undo = with_finalizers(restore(vm), "orphan")
    found = look(vm, undo, claim(owner=undo), volume())
    assert (going(found), staying(found)) == (
        ["VirtualMachineRestore shop/undo"],
        ["PersistentVolumeClaim shop/disk-0"],
    )
    vm = machine(finalizers=["orphan"])
    found = look(vm, undo := restore(vm), claim(owner=undo), volume())
    assert going(found) == []
    gone = stored(bare(DATA_VOLUME, "shop", "other"))
    vm = machine(finalizers=["orphan"])
    found = look(vm, also_owned_by(claim(owner=vm), gone), volume())
    assert going(found) == ["PersistentVolumeClaim shop/disk-0"]


@pytest.mark.parametrize("blocks", [True, False])
def test_whether_a_dependent_blocks_its_owner_does_not_save_it(blocks: bool) -> None:
    """A foreground deletion has deleted it already; it hangs in its own finalizer."""
    vm = machine(finalizers=["foregroundDeletion"])
    body = claim(owner=vm, deleted=ago(minutes=50))
    body["metadata"]["ownerReferences"][0]["blockOwnerDeletion"] = blocks
    found = look(vm, with_finalizers(body, "kubernetes.io/pvc-protection"), volume())
    assert str(only(found.lost).ref) == "PersistentVolumeClaim shop/disk-0"
    assert "patch pv pv-1" in spelled(only(found.lost).keep)


def test_a_restore_that_hangs_in_its_own_finalizer_saves_no_disk() -> None:
    vm = machine(finalizers=["foregroundDeletion"])
    undo = with_finalizers(
        restore(vm, deleted=ago(hours=1)), "wrangler.cattle.io/harvester-vm-restore-controller"
    )
    found = look(vm, undo, claim(owner=undo), volume())
    assert str(only(found.lost).ref) == "PersistentVolumeClaim shop/disk-0"


# What a release lets go


def test_a_stop_lets_only_the_vmi_go() -> None:
    vm = stored(builders.vm("shop", "web", spec=builders.with_disks("disk-0")))
    vmi = stored(builders.vmi("shop", "web", "node-2", owner=vm), deleted=ago(hours=1))
    found = look(vm, vmi, claim(owner=vm), claim("state", owner=vmi), volume(), *dead_node())
    assert going(found) == ["PersistentVolumeClaim shop/state"]
    assert staying(found) == ["PersistentVolumeClaim shop/disk-0"]


def test_a_pod_alone_lets_nothing_go_that_the_vmi_owns() -> None:
    vm = stored(builders.vm("shop", "web", spec=builders.with_disks("disk-0")))
    vmi = stored(builders.vmi("shop", "web", "node-2", owner=vm))
    bodies = (vm, vmi, deleted_pod(vmi), claim(owner=vm), claim("state", owner=vmi))
    assert look(*bodies, volume(), *dead_node()).goes == ()


def test_a_vm_that_is_being_deleted_goes_once_its_vmi_does() -> None:
    vm = machine()
    vmi = stored(builders.vmi("shop", "web", "node-2", owner=vm), deleted=ago(hours=1))
    bodies = (vm, vmi, claim("second", owner=vm), volume(), *dead_node())
    found = look(*bodies, ref=ObjectRef("shop", "web", VMI))
    assert going(found) == ["PersistentVolumeClaim shop/second"]


def test_what_is_not_stuck_lets_nothing_go() -> None:
    vm = stored(builders.vm("shop", "web", spec=builders.with_disks("disk-0")))
    assert look(vm, claim(owner=vm), volume()).goes == ()
    vmi = stored(builders.vmi("shop", "web", "node-2", owner=vm))
    assert look(vm, vmi, claim("state", owner=vmi), volume(), *live_node()).goes == ()


def test_a_vmi_without_a_vm_takes_with_it_what_it_owns() -> None:
    vmi = deleted_vmi()
    found = look(vmi, claim("state", owner=vmi), volume(), ref=ObjectRef("shop", "web", VMI))
    assert going(found) == ["PersistentVolumeClaim shop/state"]
    assert found.of(ObjectRef("shop", "state", PVC)) is only(found.goes)
    assert found.of(ObjectRef("shop", "other", PVC)) is None


def one_by_one(*bodies: Body) -> ClusterSnapshot:
    """A cluster whose VMs and VMIs were read one by one, as a release does, and not listed."""
    around = snapshot(*bodies)
    machines = [item for item in map(parsed, bodies) if item.ref.kind in (VM, VMI)]
    listed = {scope: kept for scope, kept in around.listed.items() if scope[0] not in (VM, VMI)}
    absent = {ObjectRef("shop", "web", kind): None for kind in (VM, VMI)}
    return replace(around, listed=listed, found={**absent, **{one.ref: one for one in machines}})


def test_another_vm_that_was_read_alone_keeps_a_disk_while_it_lives() -> None:
    vm = machine()
    other = stored(builders.vm("shop", "db"))
    disk_of_both = also_owned_by(claim(owner=vm), other)

    def found(*others: Body) -> GoesAndStays:
        made = one_by_one(vm, disk_of_both, volume(), *others)
        return goes_with_vm.follow(Target(TARGET, made))

    def goes(*others: Body) -> list[str]:
        return going(found(*others))

    assert goes(other) == []
    assert only(found(other).stays).why == "owned by VirtualMachine db, which stays"
    uid = other["metadata"]["uid"]
    leaving = stored(builders.vm("shop", "db"), deleted=ago(hours=1))
    leaving["metadata"]["uid"] = uid
    assert goes(leaving) == [DISK]
    assert goes(stored(builders.vm("shop", "db"))) == [DISK]
    # It was not read, so that nobody knows.
    assert goes() == [DISK]


def test_machines_that_were_read_one_by_one_take_the_same_with_them() -> None:
    vm = machine()
    vmi = stored(builders.vmi("shop", "web", "node-2", owner=vm))
    bodies = (vm, vmi, claim(owner=vmi), volume())
    for made in (snapshot(*bodies), one_by_one(*bodies)):
        # The VM is gone, and the collector has not taken its VMI yet.
        assert going(goes_with_vm.of(Target(TARGET, made), [parsed(vm)], [parsed(vm)])) == [DISK]
        assert going(goes_with_vm.follow(Target(TARGET, made))) == [DISK]


# Their data


def disk(policy: str | None = "Delete", **more: Any) -> Fate:
    """What becomes of a disk that the VM owns, on a volume with this policy."""
    vm = machine(ticked=more.pop("ticked", ""))
    unreadable = more.pop("unreadable", None)
    bodies = [vm, claim(owner=vm, **more)]
    return only(
        look(*bodies, *([volume(policy)] if policy is not None else ()), unreadable=unreadable).goes
    )  # fmt: skip


def test_the_data_is_destroyed_unless_the_volume_is_retained() -> None:
    assert [disk("Delete").lost, disk("Recycle").lost, disk("").lost] == [True, True, True]
    assert "is Delete" in disk("").why
    kept = disk("Retain")
    assert (kept.destroys, kept.lost, kept.keep) == (False, False, None)
    assert kept.why.endswith("its data stays: PersistentVolume pv-1 is Retain")


def test_a_volume_that_cannot_be_read_counts_as_one_that_is_deleted() -> None:
    fate = disk(unreadable={PV: "Forbidden"})
    assert fate.lost
    assert "PersistentVolume pv-1 could not be read (Forbidden)" in fate.why
    assert "patch pv pv-1" in spelled(fate.keep)


def test_a_volume_that_is_gone_holds_no_data() -> None:
    assert (disk(None).destroys, disk(None).why.endswith("is not there any more")) == (False, True)


def test_a_claim_whose_volume_is_no_name_leaves_everything_open() -> None:
    vm = machine()
    found = look(vm, {**claim(owner=vm), "spec": {"volumeName": 5}})
    assert "PersistentVolumeClaim shop/disk-0" in str(found.blind)


def test_a_claim_of_which_only_the_metadata_is_known_counts_as_lost() -> None:
    vm = machine()
    body = claim(owner=vm)
    fate = only(look(vm, {key: body[key] for key in ("apiVersion", "kind", "metadata")}).goes)
    assert fate.lost
    command = "kubectl get pvc disk-0 -n shop -o 'jsonpath={.spec.volumeName}'"
    assert spelled(fate.keep) == command


def test_a_claim_that_was_read_alone_says_on_which_volume_its_data_is() -> None:
    """Lists hold no more of a claim than its metadata."""
    vm = machine()
    full = claim(owner=vm)
    bare_one = {key: full[key] for key in ("apiVersion", "kind", "metadata")}

    def fate(alone: Body | None, policy: str = "Delete") -> Fate:
        around = snapshot(vm, bare_one, volume(policy))
        made = replace(around, found={parsed(full).ref: parsed(alone) if alone else None})
        return only(goes_with_vm.follow(Target(TARGET, made)).goes)

    assert fate(full).keep == retain(ObjectRef("", "pv-1", PV))
    assert fate(full).why.endswith("its data is destroyed: PersistentVolume pv-1 is Delete")
    assert not fate(full, "Retain").lost
    # Another claim of its name, one of which nothing more can be had, and one that is gone.
    for alone in (claim(owner=vm), bare_one, None):
        assert fate(alone, "Retain").lost
        assert "is not known" in fate(alone, "Retain").why
    assert spelled(fate(None).keep).startswith("kubectl get pvc disk-0 -n shop ")


def test_only_a_claim_that_says_so_was_never_bound() -> None:
    vm = machine()
    body = claim(owner=vm, volume=None)
    assert only(look(vm, body).goes).lost
    assert only(look(vm, {**body, "status": {"phase": "Bound"}}).goes).lost
    fate = only(look(vm, {**body, "status": {"phase": "Pending"}}).goes)
    assert (fate.destroys, fate.lost) == (False, False)
    # It names its volume, and is not bound to it yet.
    assert only(look(vm, {**claim(owner=vm), "status": {"phase": "Pending"}}, volume()).goes).lost


def test_a_disk_that_was_selected_is_destroyed_but_not_lost() -> None:
    fate = disk(ticked="other, disk-0")
    assert (fate.destroys, fate.lost, fate.keep) == (True, False, None)
    assert fate.why.endswith("it was selected for deletion")


def test_a_selected_disk_that_another_guest_uses_counts_as_lost() -> None:
    vm = machine(ticked="disk-0")
    other = stored(builders.vmi("shop", "db", "node-1"))
    launcher = stored(builders.pod("shop", "virt-launcher-db", "node-1", other))
    launcher["spec"]["volumes"] = [
        {"name": "root", "persistentVolumeClaim": {"claimName": "disk-0"}}
    ]
    unclear = stored(builders.pod("shop", "unclear", "node-1", other))
    unclear["spec"]["volumes"] = 5
    copier = stored(bare(POD, "shop", "copier", spec={}))
    copier["spec"]["volumes"] = launcher["spec"]["volumes"]
    fate = only(look(vm, other, launcher, copier, unclear, claim(owner=vm), volume()).goes)
    assert fate.lost
    for name in ("virt-launcher-db", "copier", "unclear"):
        assert f"pod {name} uses it, too" in fate.why


def test_the_guests_own_pods_do_not_count_as_others() -> None:
    vm = machine(ticked="disk-0")
    vmi = deleted_vmi(spec=builders.with_disks("disk-0")["template"]["spec"])
    launcher = deleted_pod(vmi)
    launcher["spec"]["volumes"] = [
        {"name": "root", "persistentVolumeClaim": {"claimName": "disk-0"}}
    ]
    assert look(vm, vmi, launcher, claim(owner=vm), volume(), *dead_node()).lost == ()


def test_only_the_vm_says_which_disks_are_selected() -> None:
    vm = machine()
    vmi = deleted_vmi()
    vmi["metadata"]["annotations"] = {REMOVED_PVCS: "disk-0"}
    assert only(look(vm, vmi, claim(owner=vm), volume()).goes).lost


def test_a_disk_of_which_it_cannot_be_told_whether_it_is_deleted_is_not_said_to_be() -> None:
    odd = KubeObject.identify(PVC, claim(deleted="soon"))
    around = snapshot(machine(), volume())
    made = replace(around, listed={**around.listed, (PVC, "shop"): (odd,)})
    found = goes_with_vm.follow(Target(TARGET, made))
    assert (going(found), staying(found)) == ([], [DISK])


def test_a_disk_that_somebody_deleted_by_hand_is_selected() -> None:
    fate = only(look(machine(), claim(deleted=ago(hours=1)), volume()).goes)
    assert (fate.destroys, fate.lost) == (True, False)
    assert fate.why.startswith("it is being deleted already; its data is destroyed")


def test_a_snapshot_that_is_being_deleted_is_not_lost_by_a_release() -> None:
    vm = machine()
    backup = stored(builders.vm_backup("shop", "nightly", "web", owner=vm), deleted=ago(hours=1))
    part = stored(bare(VOLUME_SNAPSHOT, "shop", "part", owner=backup))
    found = look(vm, backup, part)
    assert [fate.lost for fate in found.goes] == [False, True]
    assert "volumesnapshot.snapshot.storage.k8s.io part -n shop" in spelled(found.goes[1].keep)


# How to keep it


def run(command: str, *bodies: Body) -> list[Body]:
    """The objects after `kubectl patch`, as it is printed."""
    kubectl, verb, kind, name, *flags = shlex.split(command)
    patch = json.loads(flags[flags.index("-p") + 1])
    assert (kubectl, verb) == ("kubectl", "patch")
    after = []
    for body in bodies:
        plural = kind in ("pv", f"{body['kind'].lower()}.{body['apiVersion'].partition('/')[0]}")
        if not plural or body["metadata"]["name"] != name:
            after.append(body)
        elif kind == "pv":
            after.append({**body, "spec": {**body["spec"], **patch["spec"]}})
        else:
            assert flags[:3] == ["-n", "shop", "--type=json"]
            *tests, last = patch
            owners = body["metadata"]["ownerReferences"]
            assert [test["value"] for test in tests] == [owner["uid"] for owner in owners]
            assert {test["op"] for test in tests} == {"test"}
            assert last == {"op": "remove", "path": "/metadata/ownerReferences"}
            metadata = {k: v for k, v in body["metadata"].items() if k != "ownerReferences"}
            after.append({**body, "metadata": metadata})
    assert after != list(bodies), "the command changes nothing"
    return after


def test_the_commands_keep_what_they_say_they_keep() -> None:
    vm = machine()
    undo = restore(vm)
    backup = stored(builders.vm_backup("shop", "nightly", "web", owner=vm))
    parts = [stored(bare(VOLUME_SNAPSHOT, "shop", name, owner=backup)) for name in ("a", "b")]
    bodies = [vm, undo, claim(owner=undo), volume(), backup, *parts]
    found = look(*bodies)
    commands = {spelled(fate.keep) for fate in found.lost}
    assert len(found.lost) == 4
    assert len(commands) == 2
    retain = '\'{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}\''
    assert f"kubectl patch pv pv-1 -p {retain}" in commands
    for command in commands:
        bodies = run(command, *bodies)
    kept = look(*bodies)
    assert kept.lost == ()
    assert staying(kept) == [
        "VirtualMachineBackup shop/nightly",
        "VolumeSnapshot shop/a",
        "VolumeSnapshot shop/b",
    ]


def test_a_snapshot_that_a_restore_owns_is_kept_by_itself() -> None:
    vm = machine()
    undo = restore(vm)
    part = stored(bare(VOLUME_SNAPSHOT, "shop", "part", owner=undo))
    fate = only(look(vm, undo, part).lost)
    assert fate.keep == disown(parsed(part))


def test_no_name_of_an_object_breaks_out_of_a_command() -> None:
    vm = machine()
    evil = "x'; reboot; '"
    fate = only(look(vm, claim(owner=vm, volume=evil), unreadable={PV: "Forbidden"}).goes)
    assert shlex.split(spelled(fate.keep))[:4] == ["kubectl", "patch", "pv", evil]
    backup = stored(builders.vm_backup("shop", "nightly", "web", owner=vm))
    odd = {**STRANGER, "uid": evil}
    fate = only(look(vm, also_owned_by(backup, odd)).goes)
    words = shlex.split(spelled(fate.keep))
    assert json.loads(words[-1])[1]["value"] == evil


# Secrets, and what leftovers say


def test_the_secrets_of_the_vm_are_named_although_they_are_not_read() -> None:
    volumes = [
        {"name": "init", "cloudInitNoCloud": {"secretRef": {"name": "init"},
                                              "networkDataSecretRef": {"name": "net"}}},
        {"name": "answers", "sysprep": {"secret": {"name": "sysprep"}}},
        {"name": "key", "secret": {"secretName": "key"}},
    ]  # fmt: skip
    access = [{"sshPublicKey": {"source": {"secret": {"secretName": "ssh"}}}}]
    spec = builders.with_disks(volumes=volumes, accessCredentials=access)
    found = look(deleted_vm(spec=spec))
    assert going(found) == [f"Secret shop/{name}" for name in ("init", "key", "net", "ssh",
                                                               "sysprep")]  # fmt: skip
    assert {(fate.destroys, fate.lost, fate.keep) for fate in found.goes} == {(False, False, None)}
    assert found.lost == ()
    assert found.blind is None
    assert {fate.why for fate in found.goes} == {
        "the VM refers to it; it goes if the VM owns it, and Secrets are not read"
    }
    living = stored(builders.vm("shop", "web", spec=spec))
    assert look(living).goes == ()
    # A stop takes the VMI alone.
    vmi = stored(builders.vmi("shop", "web", "node-2", owner=living, spec=spec["template"]["spec"]),
                 deleted=ago(hours=1))  # fmt: skip
    assert look(living, vmi, *dead_node()).goes == ()


def test_what_only_looks_like_a_secret_is_none() -> None:
    volumes = [
        {"name": "a", "configMap": {"name": "settings"}},
        {"name": "b", "secret": {"secretName": ""}},
        {"name": "c", "secret": {"secretName": 5}},
        {"name": "d", "cloudInitNoCloud": {"secretRef": {"name": ""}}},
        {"name": "e", "cloudInitNoCloud": {"secretRef": {"name": 5}}},
        {"name": "f", "cloudInitNoCloud": {"secretRef": "text"}},
        {"name": "g", "cloudInitNoCloud": {"secretRef": {"odd": {"secretName": "inside"}}}},
    ]
    found = look(deleted_vm(spec=builders.with_disks(volumes=volumes)))
    assert going(found) == ["Secret shop/inside"]


def told(*bodies: Body, vm: Body) -> str:
    """What is told of the VM once it is gone."""
    return "\n".join(texts(leftovers.of(Target(TARGET, snapshot(*bodies)), parsed(vm))))


def test_what_the_collector_has_not_taken_yet_is_not_said_to_be_kept() -> None:
    vm = machine()
    undo = restore(vm)
    assert "is kept" not in told(undo, claim(owner=undo), volume(), vm=vm)
    assert "is kept" not in told(claim(owner=undo), volume(), vm=vm)
    assert "is kept" in told(claim(), volume(), vm=vm)
    orphaned = machine(finalizers=["orphan"])
    assert "is kept" in told(claim(owner=orphaned), volume(), vm=orphaned)


def test_no_command_deletes_a_restore_that_owns_a_disk_which_stays() -> None:
    undo = restore(None)
    line = told(undo, claim(owner=undo), volume(), vm=machine())
    assert "leave it, for PersistentVolumeClaim shop/disk-0 goes with it" in line
    assert "kubectl" not in line
    assert "kubectl delete virtualmachinerestore" in told(undo, claim(), vm=machine())


def test_a_disk_that_another_vm_uses_is_in_no_advice() -> None:
    vm = machine(ticked="disk-0")
    assert "kubectl delete pvc" in told(claim(), vm=vm)
    other = builders.vm("shop", "db", spec=builders.with_disks("disk-0"))
    alone = builders.vmi("shop", "db", "node-1", spec=builders.with_disks("disk-0")["template"]
                         ["spec"])  # fmt: skip
    for user in (stored(other), stored(alone)):
        line = told(claim(), user, vm=vm)
        assert f"but {user['kind']} shop/db uses it" in line
        assert "kubectl" not in line


def test_an_owner_has_a_group() -> None:
    assert Owner.parse({"apiVersion": "harvesterhci.io/v1beta1"}).group == "harvesterhci.io"
    assert Owner.parse({"apiVersion": "v1"}).group == ""
    assert (PVC.group, VM_BACKUP.group) == ("", "harvesterhci.io")


# What has to be read, why something stays, and which objects belong to the VM


def wanted(*bodies: Body, unreadable: dict[Kind, str] | None = None) -> set[str]:
    """What is to be asked for."""
    target = Target(TARGET, snapshot(*bodies, unreadable=unreadable))
    return {str(ref) for ref in goes_with_vm.to_read(target, goes_with_vm.follow(target))}


DISK = "PersistentVolumeClaim shop/disk-0"


def test_a_disk_that_goes_is_read_with_its_volume_and_its_owners() -> None:
    vm = machine()
    assert wanted(vm, claim(owner=vm)) == {
        DISK, "PersistentVolume pv-1", "VirtualMachine shop/web"
    }  # fmt: skip
    assert wanted(vm, claim(owner=vm, volume=None)) == {DISK, "VirtualMachine shop/web"}
    assert wanted(vm, claim()) == set()
    target = Target(TARGET, snapshot(vm, claim(owner=vm)))
    going = goes_with_vm.follow(target)
    assert ObjectRef("", "pv-1", PV) in goes_with_vm.to_read(target, going)


def test_a_disk_that_cannot_be_read_is_asked_for_without_its_volume() -> None:
    vm = machine()
    body = claim(owner=vm)
    ref = parsed(body).ref
    around = snapshot(vm, {key: body[key] for key in ("apiVersion", "kind", "metadata")})
    target = Target(TARGET, replace(around, unreadable={ref: "Forbidden"}))
    found = goes_with_vm.follow(target)
    assert only(found.lost).ref == ref
    assert spelled(only(found.lost).keep).startswith("kubectl get pvc disk-0 -n shop ")
    assert goes_with_vm.to_read(target, found) == {ref}


def test_a_disk_that_went_since_it_was_listed_leads_no_further() -> None:
    vm = machine()
    target = Target(TARGET, snapshot(vm, claim(owner=vm), volume()))
    going = goes_with_vm.follow(target)
    gone = replace(target.snapshot, found={ObjectRef("shop", "disk-0", PVC): None})
    asked = goes_with_vm.to_read(replace(target, snapshot=gone), going)
    assert asked == {ObjectRef("shop", "disk-0", PVC)}


def test_secrets_are_not_asked_for() -> None:
    volumes = [{"name": "key", "secret": {"secretName": "key"}}]
    vm = deleted_vm(spec=builders.with_disks(volumes=volumes))
    assert wanted(vm) == set()
    assert wanted(vm, unreadable={SECRET: "Forbidden"}) == set()


def test_other_owners_than_machines_are_not_asked_for() -> None:
    vm = machine()
    undo = restore(vm)
    assert wanted(vm, undo, claim(owner=undo)) == {
        DISK, "PersistentVolume pv-1", "VirtualMachine shop/web"
    }  # fmt: skip
    other = stored(builders.vmi("shop", "db", "node-1"))
    disk_of_both = also_owned_by(claim(owner=vm, deleted=ago(minutes=1)), other)
    assert wanted(vm, other, disk_of_both) == {
        DISK, "PersistentVolume pv-1", "VirtualMachine shop/web", "VirtualMachineInstance shop/db"
    }  # fmt: skip


def test_of_a_job_that_goes_only_the_owner_is_read() -> None:
    vm = machine()
    job = stored(bare(JOB, "shop", "copy", owner=vm))
    assert wanted(vm, job) == {"VirtualMachine shop/web"}


def test_a_disk_of_which_no_list_can_be_read_is_asked_for_itself() -> None:
    vm = machine()
    job = stored(bare(JOB, "shop", "copy", owner=vm))
    assert wanted(vm, job, unreadable={PVC: "Forbidden"}) == {"VirtualMachine shop/web"}


def test_what_is_read_is_declared() -> None:
    kinds = {read.kind: read.metadata_only for read in goes_with_vm.GOING if not read.own}
    for kind in (DATA_VOLUME, PVC, VOLUME_SNAPSHOT, JOB, CONTROLLER_REVISION):
        assert kinds[kind] is True
    assert kinds[VM_BACKUP] is kinds[VM_RESTORE] is False
    assert {PVC, PV} <= {read.kind for read in goes_with_vm.GOING if read.own}
    assert {VM, VMI} <= {read.kind for read in goes_with_vm.GOING}


def why_it_stays(*bodies: Body) -> str:
    return only(look(*bodies).stays).why


def test_why_a_disk_stays() -> None:
    nobody = "not owned by anything that is deleted"
    assert why_it_stays(machine(), claim(), volume()) == nobody
    selected = "not owned by what is deleted; selected for deletion, which Harvester does itself"
    assert why_it_stays(machine(ticked="disk-0"), claim(), volume()) == selected
    assert staying(look(machine(ticked="disk-0"), claim(), volume())) == [DISK]
    assert why_it_stays(machine(ticked="disk-1"), claim(), volume()) == nobody
    backup = stored(builders.vm_backup("shop", "disk-1", "web"))
    assert why_it_stays(deleted_vm(annotations={REMOVED_PVCS: "disk-1"}), backup) == nobody


def test_only_backups_and_restores_of_this_vm_belong_to_it() -> None:
    def backup(of: str, name: str) -> Body:
        return stored(bare(VM_BACKUP, "shop", name, spec={"source": {"name": of}}))

    names = {"source": {"name": "web"}, "target": {"name": "web"}}
    ours, theirs = backup("web", "ours"), backup("db", "theirs")
    bodies = [
        machine(), ours, theirs, restore(None),
        stored(bare(VOLUME_SNAPSHOT, "shop", "part", owner=ours)),
        stored(bare(VOLUME_SNAPSHOT, "shop", "part-of-theirs", owner=theirs)),
        stored(bare(JOB, "shop", "job", spec=names)),
        stored(bare(JOB, "shop", "job-of-ours", owner=ours)),
    ]  # fmt: skip
    assert staying(look(*bodies)) == [
        "VirtualMachineRestore shop/undo",
        "VirtualMachineBackup shop/ours",
        "VolumeSnapshot shop/part",
    ]
    # A VMI alone is no VM that they could be of.
    assert look(deleted_vmi(), ours, restore(None), ref=ObjectRef("shop", "web", VMI)).stays == ()


def test_what_a_volume_says_of_its_data_is_quoted() -> None:
    assert disk("Recycle").why.endswith("its data is destroyed: PersistentVolume pv-1 is Recycle")
    assert disk("").why.endswith("its data is destroyed: PersistentVolume pv-1 is Delete")
    assert spelled(disk("Delete").keep).startswith("kubectl patch pv pv-1 ")


def test_a_claim_without_a_name_of_one_is_no_use() -> None:
    pod = deleted_pod(deleted_vmi())
    pod["spec"]["volumes"] = [
        {"name": "a", "persistentVolumeClaim": {"claimName": "disk-0"}},
        {"name": "b", "persistentVolumeClaim": {"claimName": ""}},
        {"name": "c", "persistentVolumeClaim": {}},
        {"name": "d", "persistentVolumeClaim": "disk-1"},
        {"name": "e", "configMap": {"name": "disk-2"}},
    ]
    assert goes_with_vm.claims_of(parsed(pod)) == {"disk-0"}


def test_a_vm_that_is_not_there_or_lives_lets_nothing_go() -> None:
    living = stored(builders.vm("shop", "web"))
    assert goes_with_vm.let_go(Target(TARGET, snapshot(living))) == ()
    assert goes_with_vm.let_go(Target(TARGET, snapshot())) == ()
