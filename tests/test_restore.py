"""What a backup is read as, the VM that is made from it, and what a redacted copy leaves out."""

from __future__ import annotations

import copy
import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubectl_harvester_stuck import render
from kubectl_harvester_stuck.errors import RestoreError, StuckError
from kubectl_harvester_stuck.harvester.target import State
from kubectl_harvester_stuck.k8s import redaction
from kubectl_harvester_stuck.k8s.kinds import PVC, VM
from kubectl_harvester_stuck.k8s.objects import ObjectRef
from kubectl_harvester_stuck.release.model import Action, GuardState, Plan, Step
from kubectl_harvester_stuck.render import undo_files as render_undo_files
from kubectl_harvester_stuck.render.invocation import Invocation
from kubectl_harvester_stuck.render.screen import Screen
from kubectl_harvester_stuck.restore import addresses, carry_over
from kubectl_harvester_stuck.restore import decisions as restore
from kubectl_harvester_stuck.state import backups
from tests.support import builders
from tests.support.simulator import Simulator
from tests.support.world import Body, World

Document = dict[str, Any]


def vm(**meta: Any) -> Body:
    body = builders.stored(
        builders.vm("shop", "web", spec=builders.with_disks("disk-root")),
        deleted=builders.ago(days=1),
    )
    return {**body, "metadata": {**body["metadata"], **meta}}


def document(*items: Body, **release: Any) -> Document:
    head = {"schema": restore.SCHEMA, "server": "https://here", "takenAt": "then", **release}
    return {"apiVersion": "v1", "kind": "List", "items": list(items), "release": head}


def read(*items: Body, **release: Any) -> restore.Backup:
    text = json.dumps(document(*items, **release))
    return restore.parse_backup(restore.load(text, "FILE"), "FILE")


# The VM that is made


def test_everything_that_is_the_servers_own_is_left_out() -> None:
    own = {
        "generation": 7,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "managedFields": [{"manager": "x"}],
        "selfLink": "/x",
        "ownerReferences": [{"kind": "ConfigMap", "name": "fleet", "uid": "x"}],
    }
    saved = vm(**own)
    before = copy.deepcopy(saved)
    body = restore.manifest_for(read(saved))
    assert body == {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {**saved["spec"], "runStrategy": "Halted"},
    }
    assert saved == before


def test_labels_and_annotations_are_kept_apart_from_marks_that_delete_disks_or_start() -> None:
    notes = {
        "harvesterhci.io/removedPersistentVolumeClaims": "disk-root",
        "harvesterhci.io/maintain-mode-strategy-node-name": "node-1",
        "harvesterhci.io/volumeClaimTemplates": "[]",
        "harvesterhci.io/mac-address": "{}",
    }
    found = read(vm(labels={"team": "a"}, annotations=notes))
    meta = restore.manifest_for(found)["metadata"]
    del notes["harvesterhci.io/removedPersistentVolumeClaims"]
    del notes["harvesterhci.io/maintain-mode-strategy-node-name"]
    assert meta["annotations"] == notes
    assert meta["labels"] == {"team": "a"}
    assert set(restore.changes(found)) >= {
        "left out: the mark that disk-root are deleted with the VM",
        "left out: the mark that it starts after the maintenance of node node-1",
    }


@pytest.mark.parametrize(
    ("spec", "was"),
    [
        ({"runStrategy": "Manual"}, "Manual"),
        ({"running": True}, "Always"),
        ({"running": False}, "Halted"),
        ({"runStrategy": "Halted"}, "Halted"),
        ({}, ""),
        ({"runStrategy": 7}, ""),
    ],
)
def test_however_it_ran_it_comes_back_powered_off(spec: Body, was: str) -> None:
    found = read({**vm(), "spec": spec})
    assert found.run_strategy == was
    assert restore.manifest_for(found)["spec"] == {"runStrategy": "Halted"}


def test_every_place_that_names_a_disk_is_looked_at() -> None:
    volumes = [
        {"name": "a", "persistentVolumeClaim": {"claimName": "one"}},
        {"name": "b", "dataVolume": {"name": "two"}},
        {"name": "c", "ephemeral": {"persistentVolumeClaim": {"claimName": "three"}}},
        {"name": "d", "memoryDump": {"claimName": "four"}},
        {"name": "e", "containerDisk": {"image": "x"}},
    ]
    inner = {"volumes": volumes, "utilityVolumes": [{"name": "f", "claimName": "five"}]}
    found = read({**vm(), "spec": {"template": {"spec": inner}}})
    assert found.needs == ("one", "two", "three", "four", "five")


def test_every_place_that_names_a_secret_is_looked_at() -> None:
    refs = {"secretRef": {"name": "one"}, "networkDataSecretRef": {"name": "two"}}
    more = {"secretRef": {"name": "three"}, "networkDataSecretRef": {"name": "four"}}
    by_name = {"source": {"secret": {"secretName": "seven"}}}
    inner = {
        "volumes": [
            {"cloudInitNoCloud": refs},
            {"cloudInitConfigDrive": more},
            {"secret": {"secretName": "five"}},
            {"sysprep": {"secret": {"name": "six"}}},
        ],
        "accessCredentials": [
            {"sshPublicKey": by_name},
            {"userPassword": {"source": {"secret": {"secretName": "eight"}}}},
        ],
    }
    found = read({**vm(), "spec": {"template": {"spec": inner}}})
    wanted = ("one", "two", "three", "four", "five", "six", "seven", "eight")
    assert tuple(restore.secrets_of(found)) == wanted


def test_the_state_of_tpm_and_efi_is_said_to_be_in_no_disk_of_the_vm() -> None:
    kept, plain = {"persistent": True}, {"persistent": False}
    for tpm, efi, names in (
        (kept, kept, "TPM and EFI"), (kept, plain, "TPM"), (plain, kept, "EFI"), (plain, plain, ""),
    ):  # fmt: skip
        domain = {"devices": {"tpm": tpm}, "firmware": {"bootloader": {"efi": efi}}}
        found = read({**vm(), "spec": {"template": {"spec": {"domain": domain}}}})
        said = [line for line in restore.warnings(found, found.server, {}) if "state" in line]
        assert [line.split(" is in ")[0] for line in said] == (
            [f"the state of its {names}"] if names else []
        )


def test_the_addresses_of_the_vm_itself_are_in_use_by_nobody_else() -> None:
    interface = {"name": "default", "macAddress": "52:54:00:12:34:56", "bridge": {}}
    domain = {"devices": {"interfaces": [interface]}}
    body = {**vm(), "spec": builders.with_disks(domain=domain)}
    same = builders.stored(builders.vmi("shop", "web", "n1", spec={"domain": domain}))
    other = {**body, "metadata": {**body["metadata"], "name": "db", "uid": "db"}}
    found = read(body).vm
    near = [(builders.snapshot(body, same), "shop")]
    assert addresses.shared(found, near).lines == ()
    near = [(builders.snapshot(body, same, other), "shop")]
    assert {str(ref) for ref in addresses.shared(found, near).users.values()} == {
        "VirtualMachine shop/db"
    }


def test_a_lost_disk_is_no_disk() -> None:
    claim = {**builders.stored(builders.pvc("shop", "disk-root")), "status": {"phase": "Lost"}}
    checks = restore.checks(read(vm()), builders.snapshot(claim))
    (found,) = [check for check in checks if check.guard == "disks-there"]
    assert (found.verdict, "Lost" in found.reason) == (GuardState.REFUSE, True)


def test_one_disk_that_cannot_be_read_hides_no_other_that_is_gone() -> None:
    found = read({**vm(), "spec": builders.with_disks("blind", "disk-gone")})
    snapshot = builders.snapshot(unreadable={PVC: "Forbidden"})
    gone = {ObjectRef("shop", "disk-gone", PVC): None}
    checks = restore.checks(found, replace(snapshot, found=gone))
    (said,) = [check for check in checks if check.guard == "disks-there"]
    assert said.verdict is GuardState.REFUSE
    assert "disk-gone is gone" in said.reason
    assert "Forbidden" in said.reason


# Files that are no backups


def refusal(text: str) -> str:
    with pytest.raises(RestoreError) as caught:
        restore.parse_backup(restore.load(text, "FILE"), "FILE")
    words = str(caught.value)
    assert words.startswith("FILE ")
    assert "\n" not in words
    return words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not JSON"),
        ("apiVersion: v1\n", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"release": NaN}', "is not JSON"),
        ('{"x": "\\ud800"}', "is not JSON"),
        ("9" * 5000, "is not JSON"),
        ("[]", "not a backup"),
        ("null", "not a backup"),
        ("{}", "not a backup"),
        ('{"release": []}', "not a backup"),
        (json.dumps(document(schema="harvester-stuck/backup/v2")), "not a backup"),
        (json.dumps({**document(), "items": {}}), "damaged"),
        (json.dumps({**document(), "items": [7]}), "damaged"),
        (json.dumps(document()), "no VirtualMachine"),
        (json.dumps(document(builders.stored(builders.vmi("shop", "web", "n1")))), "only VirtualM"),
        (json.dumps(document(vm(), vm())), "more than one"),
        (json.dumps(document(vm(), redacted=True)), "redacted"),
        (json.dumps(document(vm(name=None))), "damaged"),
        (json.dumps(document(vm(name=".."))), "damaged"),
        (json.dumps(document(vm(namespace=None))), "damaged"),
        (json.dumps(document(vm(namespace="a/b"))), "damaged"),
        (json.dumps(document(vm(annotations=[]))), "damaged"),
        (json.dumps(document(vm(ownerReferences=7))), "damaged"),
        (json.dumps(document({**vm(), "metadata": []})), "damaged"),
        (json.dumps(document({**vm(), "spec": []})), "damaged"),
        (json.dumps(document({**vm(), "spec": {"template": 7}})), "damaged"),
        (json.dumps(document({**vm(), "spec": {"template": {"spec": {"volumes": [7]}}}})), "damag"),
        (json.dumps(document(vm(), {"apiVersion": "v1", "kind": PVC.kind})), "damaged"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_backup_is_one_line(text: str, words: str) -> None:
    assert words in refusal(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), value=json_values)
def test_whatever_is_changed_in_a_backup_only_expected_errors_come(
    data: st.DataObject, value: object
) -> None:
    claim = builders.stored(builders.pvc("shop", "disk-root"))
    instance = builders.stored(builders.vmi("shop", "web", "n1"))
    damaged: Any = json.loads(json.dumps(document(vm(), instance, claim)))
    where: Any = damaged
    while True:
        keys = list(where) if isinstance(where, dict) else list(range(len(where)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(where[key], dict | list) or not where[key] or data.draw(st.booleans()):
            break
        where = where[key]
    where[key] = value
    try:
        loaded = restore.load(json.dumps(damaged), "FILE")
        json.dumps(restore.without_secrets(loaded))
        carry_over.is_same_release([vm()], loaded["items"])
        more = carry_over.missing_from([vm()], loaded["items"])
        assert read(vm(), *map(dict, more)).ref.key == "shop/web", "it spoils no later file"
        found = restore.parse_backup(loaded, "FILE")
    except StuckError:
        return
    body = restore.manifest_for(found)
    assert body["spec"]["runStrategy"] == "Halted"
    assert not {"finalizers", "uid", "ownerReferences"} & set(body["metadata"])
    restore.secret_refs(found)
    checks = restore.checks(found, builders.snapshot())
    shared = addresses.shared(found.vm, [(builders.snapshot(), "shop")])
    warnings = restore.warnings(found, "https://here", {}, shared)
    proposal = restore.Proposal(found, body, checks, restore.changes(found), warnings)
    done = restore.Restoration(proposal, restore.RestoreOutcome.PLANNED)
    for output in ("table", "json", "yaml", "name"):
        render.restoration(done, output, Invocation("test", "https://here")).encode()


def test_files_that_cannot_be_read_are_one_line(simulator: Simulator, tmp_path: Path) -> None:
    world = World(simulator, tmp_path, "nowhere", "node-dead", "node-live")
    simulator.forget()
    large, binary = tmp_path / "large", tmp_path / "binary"
    with large.open("wb") as file:
        file.truncate(backups.LIMIT + 1)
    binary.write_bytes(b"\xff\xfe\x00")
    for path, words in (
        (tmp_path / "missing", "No such file"),
        (tmp_path, "directory"),
        (large, "larger than 64 MiB"),
        (binary, "not text"),
    ):
        run = world.run("restore", str(path), "--yes")
        assert run.status == 1
        assert words in run.err
        assert run.err.startswith("error: ")
        assert run.err.count("\n") == 1
    as_document = world.run("restore", str(large), "--yes", "-o", "json")
    assert as_document.json["schema"] == "harvester-stuck/restore/v1"
    assert as_document.json["error"]["exitStatus"] == 1
    assert simulator.recorded() == []


# What a repeated release takes over


STOPPED = builders.vmi("shop", "web", "n1")


def items(*bodies: Body, uid: str = "", **meta: Any) -> list[Body]:
    """Objects as an undo file holds them; all of them with this metadata."""
    more = {**meta, **({"uid": uid} if uid else {})}
    found = [builders.stored(body) for body in bodies]
    return [{**body, "metadata": {**body["metadata"], **more}} for body in found]


def test_only_the_same_deletion_or_the_same_guest_is_the_same_release() -> None:
    deleted, other = [vm(uid="one")], [vm(uid="two")]
    alive = items(builders.vm("shop", "web"), uid="one")
    same = carry_over.is_same_release
    assert same(deleted, deleted)
    assert not same(deleted, other)
    assert not same(deleted, alive)
    assert not same(alive, alive), "it may have been stopped for another reason then"
    first, second = items(STOPPED, uid="vmi-1"), items(STOPPED, uid="vmi-2")
    assert same([*alive, *first], [*alive, *first])
    assert same([*deleted, *first], [*alive, *first]), "it was stopped, and deleted since"
    assert not same([*alive, *second], [*alive, *first])
    assert not same([], [])
    assert not same([{"kind": "VirtualMachineInstance"}], [{"kind": "VirtualMachineInstance"}])


def test_an_object_of_the_same_name_and_another_uid_never_mixes() -> None:
    old = builders.pvc("shop", "disk-root", volume="pv-old")
    new = builders.pvc("shop", "disk-root", volume="pv-new")
    lost = builders.pvc("shop", "disk-data", volume="pv-data")
    now = [*items(new), vm()]
    then = [vm(), *items(old, lost, *map(builders.volume, ("pv-old", "pv-data")))]
    more = carry_over.missing_from(now, then)
    assert [item["metadata"]["name"] for item in more] == ["disk-data", "pv-data"]
    whole = items(new)
    assert carry_over.missing_from([vm()], [vm(name="db"), {"kind": "Pod"}, *whole]) == (*whole,)
    broken = {"kind": "PersistentVolume", "metadata": {"name": ["pv"]}}
    assert carry_over.missing_from([vm()], [broken]) == ()


def saved(
    tmp_path: Path,
    *bodies: Body,
    minute: int = 0,
    name: str = "web",
    warn: Callable[[str], None] = pytest.fail,
) -> Document:
    """What `Backups` wrote of these objects, for a VM of that name."""
    now = datetime(2026, 11, 25, 10, minute, tzinfo=timezone.utc)
    store = backups.Backups(tmp_path, "prod", "https://here", "1", now, warn)
    ref = ObjectRef("shop", name, VM)
    step = Step(Action.PATCH, ref, "one", "7", {})
    plan = Plan(ref, "one", "7", State.TERMINATING, now, None, (step,), (), ())
    path = store.save(plan, tuple(map(builders.parsed, bodies)), "0" * 16)
    found: Document = json.loads(Path(path).read_text())
    return {**found, "path": Path(path)}


def kinds(document: Document) -> list[str]:
    return [item["kind"] for item in document["items"]]


def test_a_file_takes_over_what_earlier_ones_hold_the_last_first(tmp_path: Path) -> None:
    instance, claim = builders.stored(STOPPED), builders.stored(builders.pvc("shop", "disk-root"))
    first = saved(tmp_path, vm(uid="one", labels={"n": "1"}), instance, claim)
    second = saved(tmp_path, vm(uid="one", labels={"n": "2"}), minute=1)
    assert kinds(second) == ["VirtualMachine", "VirtualMachineInstance", "PersistentVolumeClaim"]
    assert second["release"]["takenOverFrom"] == [str(first["path"])]
    third = saved(tmp_path, vm(uid="one", labels={"n": "3"}), minute=2)
    assert kinds(third) == kinds(second)
    assert third["items"][0]["metadata"]["labels"] == {"n": "3"}
    assert third["release"]["takenOverFrom"] == [str(second["path"])]
    for other in ({"uid": "two"}, {"uid": "one", "name": "db"}):
        name = other.get("name", "web")
        alone = saved(tmp_path, vm(**other), minute=3, name=name)
        assert (kinds(alone), alone["release"]["takenOverFrom"]) == (["VirtualMachine"], [])
        alone["path"].unlink()


@pytest.mark.parametrize("damage", ["half", "redacted", "pipe", "unreadable", "link"])
def test_no_earlier_file_stops_a_release(tmp_path: Path, damage: str) -> None:
    claim = builders.stored(builders.pvc("shop", "disk-root"))
    path = saved(tmp_path, vm(uid="one"), claim)["path"]
    text = path.read_text()
    if damage == "half":
        path.write_text(text[: len(text) // 2])
    elif damage == "redacted":
        shared = restore.without_secrets(restore.load(text, "FILE"))
        path.write_text(json.dumps(shared))
    else:
        path.unlink()
    if damage == "pipe":
        os.mkfifo(path)
    elif damage == "unreadable":
        path.write_bytes(b"\xff\x00")
    elif damage == "link":
        path.symlink_to(tmp_path / "nowhere")
    warned: list[str] = []
    second = saved(tmp_path, vm(uid="one"), minute=1, warn=warned.append)
    assert kinds(second) == ["VirtualMachine"]
    told = second["release"]["notSaved"]
    assert [line.partition("; what that alone")[0] for line in warned] == [
        f"warning: {why}" for why in told
    ]
    assert [str(path) in line for line in told] == (
        [] if damage in ("redacted", "pipe") else [True]
    )


def test_the_name_of_a_file_tells_of_which_object_it_is(tmp_path: Path) -> None:
    long = "v" * 250
    found = saved(tmp_path, vm(name=f"{long}a"), name=f"{long}a")["path"]
    (whole,) = backups.undo_files(tmp_path)
    assert (whole.name, whole.is_cut, whole.size) == (f"{long}a", False, found.stat().st_size)
    assert whole.may_be_of("shop", f"{long}a")
    assert not whole.may_be_of("shop", f"{long}b")
    assert not whole.may_be_of("lab", f"{long}a")
    assert backups.undo_files(tmp_path, of=("shop", f"{long}a")) == (whole,)
    assert backups.undo_files(tmp_path, of=("shop", f"{long}b")) == ()
    found.write_text("{")
    (cut,) = backups.undo_files(tmp_path)
    assert cut.is_cut
    assert cut.may_be_of("shop", f"{long}b")
    assert not cut.may_be_of("shop", "v" * 20)
    assert backups.undo_files(tmp_path, of=("shop", "v" * 20)) == ()
    target = {"release": {"schema": restore.SCHEMA, "target": {"name": "w"}}, "items": []}
    found.write_text(json.dumps(target))
    (forged,) = backups.undo_files(tmp_path)
    assert forged.is_cut
    text = render_undo_files.text([cut], "table", cut.taken_at, Screen())
    assert f"{cut.name}... " in text


# Secrets


def test_names_and_structure_stay_in_a_redacted_copy() -> None:
    volume = {"name": "c", "cloudInitNoCloud": {"userData": "s3", "secretRef": {"name": "kept"}}}
    boot = {"kernelBoot": {"kernelArgs": "password=s3"}}
    sev = {"sev": {"session": "s3", "dhCert": "s3", "policy": {}}}
    probe = {"httpGet": {"httpHeaders": [{"name": "Authorization", "value": "s3"}]}}
    inner = {
        "volumes": [volume],
        "domain": {"firmware": boot, "launchSecurity": sev},
        "livenessProbe": probe,
    }
    shared = redaction.redacted({"spec": inner})
    assert "s3" not in json.dumps(shared)
    assert shared["spec"]["volumes"][0]["cloudInitNoCloud"] == {
        "userData": redaction.REDACTED,
        "secretRef": {"name": "kept"},
    }
    assert shared["spec"]["livenessProbe"]["httpGet"]["httpHeaders"][0]["name"] == "Authorization"
    assert inner["volumes"] == [volume]


R = redaction.REDACTED
HOOKS = {"hooks.kubevirt.io/hookSidecars": '[{"args": ["s3"]}]',
         "pre.hook.backup.velero.io/command": '["sh", "s3"]'}  # fmt: skip


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ({"livenessProbe": {"exec": {"command": ["mysql", "-ps3"]}, "periodSeconds": 9}},
         {"livenessProbe": {"exec": {"command": [R, R]}, "periodSeconds": 9}}),
        ({"lifecycle": {"preStop": {"exec": {"command": ["s3"]}}}},
         {"lifecycle": {"preStop": {"exec": {"command": [R]}}}}),
        ({"name": "hook", "args": ["--token", "s3"]}, {"name": "hook", "args": [R, R]}),
        ({"httpGet": {"path": "/live?token=s3", "port": 80}},
         {"httpGet": {"path": f"/live?{R}", "port": 80}}),
        ({"annotations": HOOKS}, {"annotations": dict.fromkeys(HOOKS, R)}),
        ({"annotations": {"kubevirt.io/ignitiondata": "s3"}},
         {"annotations": {"kubevirt.io/ignitiondata": R}}),
        ({"url": "https://me:s3@x.io/a.img"}, {"url": f"https://{R}@x.io/a.img"}),
        ({"registry": {"url": "docker://s3@x.io/a"}}, {"registry": {"url": f"docker://{R}@x.io/a"}}),
        ({"image": "x.io/a?sig=s3&n=1 https://x.io/a.img?sig=s3"},
         {"image": f"x.io/a?sig=s3&n=1 https://x.io/a.img?{R}"}),
        ({"http": {"extraHeaders": ["Authorization: s3"]}}, {"http": {"extraHeaders": [R]}}),
        ({"csi": {"volumeHandle": "pvc-1", "volumeAttributes": {"password": "s3"}}},
         {"csi": {"volumeHandle": "pvc-1", "volumeAttributes": {"password": R}}}),
        ({"flexVolume": {"driver": "a/b", "options": {"password": "s3"}}},
         {"flexVolume": {"driver": "a/b", "options": {"password": R}}}),
        ({"mountOptions": ["password=s3"]}, {"mountOptions": [R]}),
    ],
)  # fmt: skip
def test_what_runs_fetches_and_mounts_is_left_out(body: Body, shown: Body) -> None:
    before = copy.deepcopy(body)
    assert redaction.redacted(body) == shown
    assert redaction.redacted([body]) == [shown]
    assert body == before


@pytest.mark.parametrize("text", ["a", "://", "a://", "a:/", "?", "@"])
def test_a_long_text_is_redacted_at_once(text: str) -> None:
    """An annotation may have 256 KiB, and whoever can write one must not hold `restore`."""
    long = text * (100_000 // len(text))
    began = time.monotonic()
    assert redaction.redacted({"annotations": {"note": long}}) == {"annotations": {"note": long}}
    assert redaction.redact_text(long).startswith(long[: redaction.LONGEST])
    assert time.monotonic() - began < 5


def test_the_parameters_of_every_url_in_a_text_are_left_out() -> None:
    text = "1s3://a?s3=1 see 'https://x.io/a?b=s3#c' b?c=https://y.io?s3,http://z.io?s3 http://?"
    assert redaction.redacted([text]) == [
        f"1s3://a?{R} see 'https://x.io/a?{R}#c' b?c=https://y.io?{R} http://?"
    ]


def test_what_is_no_secret_stays() -> None:
    body = {
        "image": "registry.k8s.io/pause:3.9@sha256:00",
        "annotations": {"webhook.example.com/url": "x", "docs": "https://x.io/a#b", "hook": "x"},
        "dnsConfig": {"options": [{"name": "ndots"}]},
        "command": "kept",
        "path": "/live",
        "mail": "me@x.io",
    }
    assert redaction.redacted(body) == body


@pytest.mark.parametrize(
    ("body", "private"),
    [
        ({"userData": "x"}, True),
        ({"a": [{"networkDataBase64": "x"}]}, True),
        ({"env": [{"name": "VMI", "value": '{"userData": "x"}'}]}, True),
        ({"userData": ""}, False),
        ({"userData": redaction.REDACTED}, False),
        ({"secretRef": {"name": "x"}}, False),
        ({"f:userData": {}}, False),
    ],
)
def test_cloud_init_data_is_seen_wherever_it_is(body: Body, private: bool) -> None:
    assert redaction.has_secrets(body) is private


@pytest.mark.parametrize(
    "quoted",
    [
        'userData": "s3cret", "x": 1}',
        r"networkDataBase64\":\"s3cret\"}",
        'userData: Invalid value: "s3cret": too long',
        "UserData:s3cret} at 0x1",
        "networkData = 's3cret'",
        "userDataBase64: |\n  s3cret\n",
        'userData", "value": "s3cret"}]',
        r"userData\",\"value\":\"s3cret\"}]",
        'ignitiondata": "s3cret"}',
        'kernelArgs": "password=s3cret"}',
    ],
)
def test_words_of_others_end_where_they_quote_cloud_init_data(quoted: str) -> None:
    name = re.split(r"\W", quoted)[0]
    assert redaction.redact_text(f"denied: {quoted}") == f"denied: {name}: {redaction.REDACTED}"


def test_words_of_others_do_not_fill_the_terminal() -> None:
    said = "x" * redaction.LONGEST
    assert redaction.redact_text(said) == said
    assert redaction.redact_text(said + "yz") == f"{said} ... (2 more characters)"


def test_words_of_others_name_no_login_of_a_url() -> None:
    said = redaction.redact_text("Get https://me:s3@x.io/a?n=1: no such host")
    assert said == f"Get https://{redaction.REDACTED}@x.io/a?n=1: no such host"


def test_words_of_others_that_quote_no_value_are_kept() -> None:
    text = "cloudInitNoCloud must have one of userData, userDataBase64 set: see userDataSecretRef"
    assert redaction.redact_text(text) == text
