"""`-f`: support bundles and files of objects, read as if they were a cluster."""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import json
import os
import re
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import bundle
from examples.bundle import damage
from kubectl_harvester_stuck.cli import main
from kubectl_harvester_stuck.errors import DumpError, ExitStatus, StuckError, UnreadableError
from kubectl_harvester_stuck.k8s import selectors
from kubectl_harvester_stuck.k8s.kinds import (
    LEASE,
    NODE,
    POD,
    PVC,
    SETTING,
    VM,
    VM_BACKUP,
    VMI,
    Kind,
)
from kubectl_harvester_stuck.k8s.objects import ObjectRef, Unreadable
from kubectl_harvester_stuck.k8s.source import ListQuery, PartialListError
from kubectl_harvester_stuck.offline import archive, yaml_stream
from kubectl_harvester_stuck.offline import files as offline
from kubectl_harvester_stuck.offline.bundle_repair import mend
from kubectl_harvester_stuck.render import layout
from tests.support import builders, fastyaml
from tests.support.builders import stored
from tests.support.simulator.selectors import label_predicate
from tests.support.world import Run

Body = dict[str, Any]
NOW = datetime(2026, 11, 23, 3, 30, tzinfo=timezone.utc)


def run(*arguments: str, stdin: bytes = b"", cwd: Path | None = None) -> Run:
    """The program as a process, with no cluster configured anywhere."""
    kept = {key: os.environ[key] for key in ("PATH", "LANG", "PYTHONPATH") if key in os.environ}
    done = subprocess.run(
        [sys.executable, "-m", "kubectl_harvester_stuck", *arguments],
        input=stdin,
        capture_output=True,
        env={**kept, "HOME": "/nonexistent", "PYTHONPATH": str(Path(__file__).parents[1])},
        cwd=cwd,
        check=False,
    )
    return Run(ExitStatus(done.returncode), done.stdout.decode(), done.stderr.decode())


def node(name: str = "n1") -> Body:
    return stored(builders.node(name, "True"))


def vm(name: str = "web", namespace: str = "shop", **more: Any) -> Body:
    return stored(builders.vm(namespace, name), **more)


def files(*paths: Path | str) -> offline.Files:
    return offline.read([str(path) for path in paths], io.BytesIO(), NOW)


def names(found: list[Any]) -> list[str]:
    return [item["metadata"]["name"] for item in found]


def listed(source: offline.Files, kind: Kind, namespace: str | None = None) -> list[str]:
    return names(source.list_objects(ListQuery(kind, namespace), lambda _: True))


def zipped(path: Path, objects: list[Body], **more: Any) -> Path:
    return bundle.write(path / "bundle.zip", objects, **{"collected": ["shop"], **more})


# What a bundle holds, and what it does not


def test_a_bundle_is_read_in_place_and_as_its_folder(tmp_path: Path) -> None:
    packed = zipped(tmp_path, [node(), vm()])
    with zipfile.ZipFile(packed) as file:
        file.extractall(tmp_path / "unpacked")
    for path in (packed, tmp_path / "unpacked", tmp_path / "unpacked" / bundle.NAME):
        source = files(path)
        assert listed(source, VM, "shop") == ["web"]
        assert listed(source, NODE) == ["n1"]
        assert source.now == NOW
        assert source.says_when


def test_no_file_in_a_collected_namespace_is_none(tmp_path: Path) -> None:
    source = files(zipped(tmp_path, [node(), vm()]))
    assert listed(source, VMI, "shop") == []
    assert source.get(ObjectRef("shop", "web", VMI)) is None
    assert listed(source, SETTING) == []


def test_a_namespace_that_was_not_collected_is_unreadable(tmp_path: Path) -> None:
    source = files(zipped(tmp_path, [node(), vm(), vm("other", "elsewhere")]))
    for call in (
        lambda: listed(source, VM, "elsewhere"),
        lambda: source.get(ObjectRef("elsewhere", "other", VM)),
        lambda: listed(source, LEASE, "kube-node-lease"),
    ):
        with pytest.raises(UnreadableError, match="namespace not in the bundle"):
            call()


def test_all_namespaces_are_whole_only_if_every_one_was_collected(tmp_path: Path) -> None:
    spaces = [
        stored({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        for name in ("shop", "elsewhere")
    ]
    both = zipped(tmp_path, [node(), vm(), *spaces], collected=["shop", "elsewhere"])
    assert listed(files(both), VM) == ["web"]
    one = zipped(tmp_path, [node(), vm(), *spaces])
    with pytest.raises(PartialListError, match="namespace not in the bundle") as caught:
        listed(files(one), VM)
    assert names(caught.value.items) == ["web"]
    none = zipped(tmp_path, [node(), vm()])
    with pytest.raises(PartialListError, match="which namespaces there are"):
        listed(files(none), VM)


def test_cluster_objects_are_unreadable_where_no_node_was_collected(tmp_path: Path) -> None:
    source = files(zipped(tmp_path, [vm()]))
    with pytest.raises(UnreadableError, match="objects of the cluster"):
        listed(source, SETTING)


@pytest.mark.parametrize(
    ("line", "kind", "namespace"),
    [
        ("Failed to get /apis/kubevirt.io/v1/namespaces/shop/virtualmachines: forbidden", VM,
         "shop"),
        ("Failed to get /api/v1/namespaces/shop/pods: forbidden", POD, "shop"),
        ("Failed to get /apis/harvesterhci.io/v1beta1/settings: forbidden", SETTING, None),
        ("Support Bundle: failed to generate /tmp/x/yamls/namespaced/shop/v1/pods.yaml: forbidden",
         POD, "shop"),
        ("Unable to fetch namespaced resources: forbidden", POD, "shop"),
        ("Unable to fetch cluster resources: forbidden", SETTING, None),
    ],
)  # fmt: skip
def test_what_the_error_log_names_is_unreadable(
    tmp_path: Path, line: str, kind: Kind, namespace: str | None
) -> None:
    source = files(zipped(tmp_path, [node()], errors=f"first\n{line}\nlast\n"))
    with pytest.raises(UnreadableError, match="error log says: forbidden"):
        listed(source, kind, namespace)
    if "Unable" not in line:
        assert listed(source, PVC, "shop") == []  # it names nothing else


def test_without_its_error_log_a_bundle_proves_no_absence(tmp_path: Path) -> None:
    with zipfile.ZipFile(zipped(tmp_path, [node(), vm()])) as file:
        file.extractall(tmp_path / "unpacked")
    (tmp_path / "unpacked" / bundle.NAME / "bundleGenerationError.log").unlink()
    source = files(tmp_path / "unpacked")
    assert listed(source, VM, "shop") == ["web"]
    with pytest.raises(UnreadableError, match="it may have failed"):
        listed(source, VMI, "shop")


def test_a_bundle_without_any_yaml_says_so(tmp_path: Path) -> None:
    path = tmp_path / "bundle.zip"
    with zipfile.ZipFile(path, "w") as file:
        words = "Unable to fetch namespaced resources: subresources.kubevirt.io is down\n"
        file.writestr("supportbundle_x/bundleGenerationError.log", words)
    with pytest.raises(UnreadableError, match=r"subresources\.kubevirt\.io is down"):
        listed(files(path), VM, "default")


def test_old_bundles_name_folders_after_components(tmp_path: Path) -> None:
    items = [vm() | {"apiVersion": None}]
    for item in items:
        del item["apiVersion"], item["kind"]
    path = tmp_path / "harvester-supportbundle_x_2021-12-02T18-37-29Z.zip"
    with zipfile.ZipFile(path, "w") as file:
        text = fastyaml.dump({"apiVersion": "kubevirt.io/v1", "items": items, "metadata": {}})
        file.writestr("yamls/namespaced/shop/kubevirt/virtualmachines.yaml", text)
        file.writestr("yamls/namespaced/shop/kubernetes/pods.yaml", "items: []\nkind: PodList\n")
    source = files(path)
    assert listed(source, VM, "shop") == ["web"]
    assert listed(source, POD, "shop") == []
    assert source.now == datetime(2021, 12, 2, 18, 37, 29, tzinfo=timezone.utc)
    with pytest.raises(UnreadableError, match="of this age"):
        listed(source, PVC, "shop")


def test_kinds_of_one_plural_are_told_apart_by_their_group(tmp_path: Path) -> None:
    ours = stored(builders.vm_backup("shop", "nightly", "web"))
    theirs = {**ours, "apiVersion": "backup.kubevirt.io/v1", "metadata": {**ours["metadata"],
              "name": "stranger", "uid": "other"}}  # fmt: skip
    assert listed(files(zipped(tmp_path, [node(), ours, theirs])), VM_BACKUP, "shop") == ["nightly"]


def member(name: str, *items: Body) -> dict[str, bytes]:
    """A file of a bundle, with these items as they are."""
    text = fastyaml.dump({"apiVersion": "v1", "items": list(items), "kind": "List"})
    return {f"yamls/{name}.yaml": text.encode()}


def test_two_versions_of_a_group_are_one_kind(tmp_path: Path) -> None:
    older = {**vm(), "apiVersion": "kubevirt.io/v1alpha3"}
    newer = {**older, "apiVersion": "kubevirt.io/v1"}
    more = member("namespaced/shop/kubevirt.io/v1alpha3/virtualmachines", older)
    source = files(zipped(tmp_path, [node(), newer], more=more))
    assert listed(source, VM, "shop") == ["web"]


def test_only_the_members_of_the_kind_are_opened(tmp_path: Path) -> None:
    more = {"yamls/cluster/longhorn.io/v1beta2/nodes.yaml": b"\xff not even text"}
    assert listed(files(zipped(tmp_path, [node()], more=more)), NODE) == ["n1"]


def test_an_old_bundle_may_mix_kinds_in_a_folder(tmp_path: Path) -> None:
    stranger = {"apiVersion": "other.io/v1", "kind": "VirtualMachine", "metadata": {"name": "x"}}
    more = member("namespaced/old/kubevirt/virtualmachines", vm("mine", "old"), stranger)
    source = files(zipped(tmp_path, [node()], more=more))
    assert listed(source, VM, "old") == ["mine"]


def test_a_namespace_of_which_only_secrets_were_taken_was_not_collected(tmp_path: Path) -> None:
    more = member("namespaced/fleet-local/v1/secrets")
    source = files(zipped(tmp_path, [node()], more=more))
    with pytest.raises(UnreadableError, match="namespace not in the bundle"):
        listed(source, VM, "fleet-local")


def test_objects_of_a_bundle_are_mended(tmp_path: Path) -> None:
    written = {"harvesterhci.io/removedPersistentVolumeClaims": "", "quoted": '"x"', "n": "1"}
    body = vm()
    body["metadata"]["annotations"] = written
    body["status"] = {"printableStatus": "", "snapshotInProgress": None, "z": 1}
    (found,) = files(zipped(tmp_path, [node(), body])).list_objects(
        ListQuery(VM, "shop"), lambda _: True
    )
    assert found["metadata"]["annotations"] == written
    assert not found["status"]["printableStatus"]
    assert found["status"]["snapshotInProgress"] is None


def test_the_end_of_a_long_log_is_read(tmp_path: Path) -> None:
    pod = stored(builders.bare(POD, "shop", "p") | {"spec": {"containers": [{"name": "c"}]}})
    logs = {"shop/p/c": "old\n" + "x" * 3_000_000 + "\nnew\n"}
    text = files(zipped(tmp_path, [node(), pod], logs=logs)).log(ObjectRef("shop", "p", POD))
    assert len(text) == 2_000_000
    assert text.endswith("\nnew\n")


def test_the_zips_of_nodes_are_left_alone(tmp_path: Path) -> None:
    path = zipped(tmp_path, [node(), vm()], more={"nodes/n1.zip": b"not a zip at all"})
    assert listed(files(path), VM, "shop") == ["web"]


def test_the_log_of_a_pods_first_container_is_found(tmp_path: Path) -> None:
    containers = [{"name": "main"}, {"name": "side"}]
    pod = stored(builders.bare(POD, "shop", "owner-1") | {"spec": {"containers": containers}})
    logs = {"shop/owner-1/main": "x\nmain says\n", "shop/owner-1/side": "side says\n"}
    source = files(zipped(tmp_path, [node(), pod], logs=logs))
    assert source.log(ObjectRef("shop", "owner-1", POD)) == "x\nmain says\n"
    with pytest.raises(UnreadableError, match="do not hold it"):
        source.log(ObjectRef("shop", "nobody", POD))


# The damage


def test_the_damage_of_a_bundle_is_undone() -> None:
    body = {
        "metadata": {
            "annotations": {
                "harvesterhci.io/removedPersistentVolumeClaims": "",
                "kubevirt.io/heartbeat": '"2026-11-23T03:29:21Z"',
                "kept": "null and void",
            },
            "creationTimestamp": None,
            "name": "web",
        },
        "status": {"phase": "", "conditions": [{"lastProbeTime": None, "type": "Ready"}]},
        "spec": {"memory": 1048576, "args": ["", "x"], "share": 0.5, "seconds": 120},
    }
    damaged = damage(json.dumps({"items": [body]}, separators=(",", ":")))
    text = bundle._dump([body])
    for item in (damaged["items"][0], yaml_stream.parse_yaml(text, "x")["items"][0]):
        mended = mend(item)
        meta = mended["metadata"]
        assert meta["annotations"]["harvesterhci.io/removedPersistentVolumeClaims"] == ""
        assert meta["annotations"]["kubevirt.io/heartbeat"] == '"2026-11-23T03:29:21Z"'
        assert meta["annotations"]["kept"] == "null and void"
        assert meta["creationTimestamp"] is None
        assert mended["status"]["phase"] in (None, "")
        assert mended["status"]["conditions"] == [{"lastProbeTime": None, "type": "Ready"}]
        assert mended["spec"] == body["spec"]
    assert b"1.048576e+06" in text
    read = yaml_stream.parse_yaml(text, "x")["items"][0]["spec"]
    assert (read["memory"], type(read["memory"])) == (1048576, int)


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(max_size=8) | st.integers(0, 1 << 40),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text("abcXYZ", min_size=1, max_size=4), inner, max_size=3)
        ),
        max_leaves=12,
    )
)
def test_damage_and_mending_keep_all_but_null_and_empty(value: Any) -> None:
    # Text that is the damage itself, or ends in it, cannot be told apart.
    if "null" in json.dumps(value, ensure_ascii=False).replace(":null", "").replace("[null", ""):
        return
    text = json.dumps({"items": [{"v": value}]}, separators=(",", ":"), ensure_ascii=False)
    mended = mend(damage(text))["items"][0]["v"]
    assert _plain(mended) == _plain(value)


def _plain(value: Any) -> Any:
    """With nothing for null and the empty string, and with numbers alike."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return None if value == "" else value


# Files of objects


def yamls(*bodies: Body) -> str:
    return fastyaml.dump_all(bodies)


def a_list(*bodies: Body, **meta: str) -> Body:
    return {"apiVersion": "v1", "kind": "List", "items": list(bodies), "metadata": meta}


@pytest.mark.parametrize("form", ["yaml", "json", "indented", "two documents", "crlf"])
def test_a_list_that_kubectl_printed_is_a_list(tmp_path: Path, form: str) -> None:
    document = a_list(vm("a"), vm("b"))
    text = {
        "yaml": fastyaml.dump(document),
        "json": json.dumps(document),
        "indented": json.dumps(document, indent=4),
        "two documents": yamls(a_list(node()), document),
        "crlf": fastyaml.dump(document).replace("\n", "\r\n"),
    }[form]
    path = tmp_path / "dump.yaml"
    path.write_text(text, newline="")
    source = files(path)
    assert listed(source, VM, "shop") == ["a", "b"]
    assert source.get(ObjectRef("shop", "c", VM)) is None
    with pytest.raises(UnreadableError, match="holds none"):
        listed(source, POD, "shop")
    with pytest.raises(UnreadableError):
        source.get(ObjectRef("shop", "x", POD))


def test_an_object_that_stands_alone_says_nothing_of_others(tmp_path: Path) -> None:
    path = tmp_path / "vm.yaml"
    path.write_text(yamls(vm("a")))
    source = files(path)
    assert source.get(ObjectRef("shop", "a", VM)) is not None
    with pytest.raises(UnreadableError):
        source.get(ObjectRef("shop", "b", VM))
    with pytest.raises(PartialListError) as caught:
        listed(source, VM, "shop")
    assert names(caught.value.items) == ["a"]


def test_a_list_of_one_namespace_says_nothing_of_others(tmp_path: Path) -> None:
    path = tmp_path / "dump.yaml"
    path.write_text(yamls(a_list(vm("a"))))
    with pytest.raises(UnreadableError):
        listed(files(path), VM, "elsewhere")
    path.write_text(yamls(a_list(vm("a"), vm("b", "other"))))
    assert listed(files(path), VM, "elsewhere") == []
    path.write_text(yamls(a_list(vm("a"), vm("b", "other"), **{"continue": "abc"})))
    with pytest.raises(PartialListError):
        listed(files(path), VM, "shop")


def test_typed_lists_need_not_name_the_kind_of_their_items(tmp_path: Path) -> None:
    item = vm("a")
    del item["apiVersion"], item["kind"]
    path = tmp_path / "dump.json"
    document = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineList", "items": [item]}
    for text in (json.dumps(document), fastyaml.dump(document)):
        path.write_text(text)
        assert listed(files(path), VM, "shop") == ["a"]


def test_several_files_are_one_cluster_and_the_later_wins(tmp_path: Path) -> None:
    first, second = tmp_path / "1.yaml", tmp_path / "2.yaml"
    old, new = vm("a"), vm("b")
    changed = {**old, "metadata": {**old["metadata"], "labels": {"new": "yes"}}}
    first.write_text(yamls(a_list(old, new)))
    second.write_text(yamls(changed))
    (first_seen,) = [
        item
        for item in files(first, second).list_objects(ListQuery(VM, "shop"), lambda _: True)
        if item["metadata"]["name"] == "a"
    ]
    assert first_seen["metadata"]["labels"] == {"new": "yes"}
    assert listed(files(tmp_path), VM, "shop") == ["a", "b"]


def test_what_no_file_holds_a_list_of_is_unreadable(tmp_path: Path) -> None:
    first, second = tmp_path / "1.yaml", tmp_path / "2.yaml"
    first.write_text(yamls(vm("a")))
    second.write_text(yamls(vm("b")))
    with pytest.raises(PartialListError, match="no file holds a list") as caught:
        listed(files(first, second), VM, "shop")
    assert names(caught.value.items) == ["a", "b"]


def test_a_lone_object_is_diagnosed_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "vm.yaml"
    path.write_text(yamls(vm("a", deleted="2026-11-20T00:00:00Z")))
    done = run("diagnose", "vm/a", "-f", str(path), "-o", "json")
    assert done.status is ExitStatus.INCOMPLETE
    assert done.item["target"]["state"] == "Terminating"
    assert done.item["verdict"] in ("refuse", "repair", "wait")


def test_a_file_is_of_the_time_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "dump.yaml"
    path.write_text(yamls(a_list(vm("a"))))
    os.utime(path, (NOW.timestamp() - 60, NOW.timestamp() - 60))
    source = files(path)
    assert source.now == NOW - timedelta(minutes=1)
    assert not source.says_when


def test_a_backup_is_of_its_own_time_and_holds_no_lists(tmp_path: Path) -> None:
    path = tmp_path / "backup.json"
    path.write_text(json.dumps({**a_list(vm("a")), "release": {"takenAt": "2026-11-23T03:30:00Z"}}))
    source = files(path)
    assert (source.now, source.says_when) == (NOW, True)
    with pytest.raises(PartialListError):
        listed(source, VM, "shop")


# Bad input


def test_what_cannot_be_used_is_one_line_that_says_why(tmp_path: Path) -> None:
    def broken(name: str, data: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    whole = zipped(tmp_path, [node(), vm()]).read_bytes()
    no_bundle = io.BytesIO()
    with zipfile.ZipFile(no_bundle, "w") as file:
        file.writestr("readme.txt", "hello")
    (tmp_path / "empty").mkdir()
    for path, words in (
        (broken("cut.zip", whole[: len(whole) // 2]), "not a whole zip archive"),
        (broken("other.zip", no_bundle.getvalue()), "no Harvester support bundle"),
        (broken("x.tar.gz", b"\x1f\x8b\x08abc"), "unpack it first"),
        (broken("utf16.yaml", "kind: Pod".encode("utf-16")), "not UTF-8"),
        (broken("latin.yaml", b"kind: Pod\nmetadata: {name: \xe9}"), "not UTF-8"),
        (broken("alias.yaml", b"a: &a [x]\nb: *a\n"), "aliases"),
        (broken("open.yaml", b"kind: [\n"), "not valid YAML"),
        (broken("cut.json", b'{"kind": "Lis'), "not valid JSON"),
        (broken("text.yaml", b"just words"), "not a Kubernetes object"),
        (broken("empty.yaml", b""), "no Kubernetes object"),
        (broken("items.json", b'{"kind": "List", "items": 5}'), "not a list"),
        (broken("deep.json", b'{"kind":' * 300 + b"1" + b"}" * 300), "deeper than"),
        (broken("deep.yaml", b"- " * 5000), "not valid YAML|deeper than"),
        (broken("deeper.json", b"[" * 200_000), "not valid JSON"),
        (broken("tag.yaml", b"!!python/object/apply:os.system [id]"), "not valid YAML"),
        (tmp_path / "nowhere", "No such file"),
        (tmp_path / "empty", "neither a support bundle"),
    ):
        with pytest.raises(DumpError, match=words) as caught:
            files(path)
        assert "\n" not in str(caught.value)


def test_bombs_are_bounded_in_memory_and_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bundle.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        with file.open("b/yamls/namespaced/shop/v1/pods.yaml", "w", force_zip64=True) as member:
            member.write(b"items:\n- ")
            for _ in range(64):
                member.write(b"a" * (1 << 20))
        with file.open("b/yamls/namespaced/shop/v1/events.yaml", "w", force_zip64=True) as member:
            for _ in range(64):
                member.write(b"x\n" * (1 << 19))
    assert path.stat().st_size < 1 << 20
    monkeypatch.setattr(archive, "MEMBER_LIMIT", 32 << 20)
    tracemalloc.start()
    source = files(path)
    with pytest.raises(UnreadableError, match="an object is larger than 16 MiB"):
        listed(source, POD, "shop")
    event = Kind("Event", "", "v1", "events")
    with pytest.raises(UnreadableError, match="larger than 32 MiB"):
        listed(source, event, "shop")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 160 << 20


def test_a_file_of_very_many_objects_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yaml_stream, "ITEMS_LIMIT", 2)
    path = tmp_path / "dump.yaml"
    path.write_text(yamls(a_list(vm("a"), vm("b"))))
    assert listed(files(path), VM, "shop") == ["a", "b"]
    path.write_text(yamls(a_list(vm("a"), vm("b"), vm("c"))))
    with pytest.raises(DumpError, match="more than 2 objects"):
        files(path)


def test_names_that_leave_the_archive_are_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "bundle.zip"
    outside = tmp_path / "secret.yaml"
    outside.write_text(yamls(a_list(vm("stolen"))))
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("b/yamls/namespaced/shop/v1/configmaps.yaml", "items: []\n")
        file.writestr("b/yamls/namespaced/../../../secret.yaml", outside.read_text())
        file.writestr("/b/yamls/namespaced/shop/v1/pods.yaml", "items: []\n")
    source = files(path)
    assert source.namespaces() == ("shop",)
    folder = tmp_path / "folder"
    (folder / "yamls/namespaced/shop/kubevirt.io/v1").mkdir(parents=True)
    (folder / "yamls/namespaced/shop/v1").mkdir(parents=True)
    (folder / "yamls/namespaced/shop/v1/configmaps.yaml").write_text("items: []\n")
    (folder / "yamls/namespaced/shop/kubevirt.io/v1/virtualmachines.yaml").symlink_to(outside)
    (folder / "bundleGenerationError.log").touch()
    assert listed(files(folder), POD, "shop") == []
    # It is not followed, and is not taken for "there is none".
    with pytest.raises(UnreadableError, match="is a link or no file"):
        listed(files(folder), VM, "shop")


def unpacked(tmp_path: Path, *objects: Body, **more: Any) -> Path:
    """A bundle of these objects as its folder."""
    with zipfile.ZipFile(zipped(tmp_path, list(objects), **more)) as file:
        file.extractall(tmp_path)
    return tmp_path / bundle.NAME


def moved_behind_a_link(folder: Path, linked: str) -> None:
    (folder / linked).rename(folder.parent / "elsewhere")
    (folder / linked).symlink_to(folder.parent / "elsewhere")


def broken(root: Path) -> Path:
    """The same bundle after its links have come to lead nowhere."""
    for path in root.rglob("*"):
        if path.is_symlink():
            path.unlink()
            path.symlink_to("/nowhere/at/all")
    return root


def zipped_with_links(root: Path) -> Path:
    """The same bundle packed with its links, as `zip -y` does."""
    target = root.parent / "links.zip"
    with zipfile.ZipFile(target, "w") as file:
        for folder, folders, found in os.walk(root):
            for name in (*folders, *found):
                path = Path(folder, name)
                member = zipfile.ZipInfo(str(path.relative_to(root.parent)))
                if path.is_symlink():
                    member.external_attr = path.lstat().st_mode << 16
                    file.writestr(member, str(path.readlink()))
                elif path.is_file():
                    file.writestr(member, path.read_bytes())
    return target


@pytest.fixture
def closed_zips() -> Iterator[None]:
    """What an exception holds is gone when the test is over, and not within another one."""
    yield
    gc.collect()


def closes_its_zips(test: Callable[..., None]) -> Callable[..., None]:
    """For a test that lets exceptions hold open zips."""
    quiet = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    marked: Callable[..., None] = pytest.mark.usefixtures("closed_zips")(quiet(test))
    return marked


HOW = [pytest.param(lambda root: root, id="there"), pytest.param(broken, id="nowhere"),
       pytest.param(zipped_with_links, id="zipped")]  # fmt: skip


CLOSED = "is a link, or may not be read"
OF_SHOP = {VM, VMI, PVC}


@closes_its_zips
@pytest.mark.parametrize("seen", HOW)
@pytest.mark.parametrize(
    ("linked", "hidden"),
    [
        ("namespaced", OF_SHOP),
        ("namespaced/shop", OF_SHOP),
        ("namespaced/shop/kubevirt.io", {VM, VMI}),
        ("namespaced/shop/kubevirt.io/v1", {VM, VMI}),
        ("namespaced/shop/v1", {PVC}),
        ("cluster", {NODE, SETTING}),
        ("cluster/v1", {NODE}),
        ("cluster/harvesterhci.io", {SETTING}),
    ],
)
def test_a_folder_behind_a_link_is_a_gap(
    tmp_path: Path, linked: str, hidden: set[Kind], seen: Callable[[Path], Path]
) -> None:
    version = {"apiVersion": "harvesterhci.io/v1beta1", "metadata": {"name": "server-version"}}
    setting, space = (
        stored({"kind": "Setting", **version}),
        stored({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}),
    )
    folder = unpacked(tmp_path, node(), space, setting, vm())
    moved_behind_a_link(folder / "yamls", linked)
    source = files(seen(folder))
    assert source.namespaces() == ("shop",)
    for kind in (*OF_SHOP, NODE, SETTING):
        place = "shop" if kind.namespaced else None
        if kind not in hidden:
            listed(source, kind, place)
            continue
        with pytest.raises(PartialListError, match=CLOSED):
            listed(source, kind, place)
        with pytest.raises(UnreadableError, match=CLOSED):
            source.get(ObjectRef(place or "", "none", kind))
    assert bool(source.unknown_namespaces()) is (linked in ("cluster", "cluster/v1"))


@closes_its_zips
def test_a_list_that_is_a_link_in_a_zip_is_a_gap(tmp_path: Path) -> None:
    folder = unpacked(tmp_path, node(), vm())
    moved_behind_a_link(folder, "yamls/namespaced/shop/kubevirt.io/v1/virtualmachines.yaml")
    with pytest.raises(PartialListError, match="is a link, and is not opened"):
        listed(files(zipped_with_links(folder)), VM, "shop")


def test_who_was_not_found_may_be_behind_a_link(tmp_path: Path) -> None:
    space = stored({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    folder = unpacked(tmp_path, node(), space, vm())
    assert files(folder).where_is(VM, "web").namespaces == ("shop",)
    moved_behind_a_link(folder, "yamls/namespaced/shop/kubevirt.io")
    done = run("diagnose", "vm", "web", "-f", str(folder))
    assert done.status is ExitStatus.ERROR
    assert re.search(
        f"VirtualMachine web was not found in .*, but not all could be read: .*{CLOSED}", done.err
    )


def test_a_namespace_behind_a_link_is_known_by_its_name(tmp_path: Path) -> None:
    folder = unpacked(tmp_path, node(), vm())
    moved_behind_a_link(folder, "yamls/namespaced/shop")
    assert files(folder).namespaces() == ("shop",)


def test_a_folder_of_components_behind_a_link_hides_every_kind(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    (folder / "yamls/cluster/kubernetes").mkdir(parents=True)
    (folder / "yamls/cluster/kubernetes/nodes.yaml").write_text(yamls(a_list(node())))
    (folder / "yamls/cluster/harvester").symlink_to(tmp_path)
    with pytest.raises(PartialListError, match=CLOSED) as caught:
        listed(files(folder), NODE)
    assert names(caught.value.items) == ["n1"]
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
    (folder / "yamls/cluster/kubernetes/namespaces.yaml").write_text(yamls(a_list(stored(space))))
    assert files(folder).unknown_namespaces()


def test_a_bundle_of_which_nothing_can_be_read_is_refused(tmp_path: Path) -> None:
    folder = unpacked(tmp_path, node(), vm())
    moved_behind_a_link(folder, "yamls")
    with pytest.raises(DumpError, match=CLOSED):
        files(folder)


def test_a_folder_that_may_not_be_read_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = unpacked(tmp_path, node(), vm())
    real = os.scandir

    def scandir(path: str) -> Any:
        if str(path).endswith("kubevirt.io"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path)

    # Root may read everything, and tests may be run as root.
    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PartialListError, match="may not be read by this user"):
        listed(files(folder), VM, "shop")


@closes_its_zips
@pytest.mark.parametrize("seen", HOW)
@pytest.mark.parametrize("linked", ["logs", "logs/shop", "logs/shop/pod"])
def test_logs_behind_a_link_are_not_taken_for_none(
    tmp_path: Path, linked: str, seen: Callable[[Path], Path]
) -> None:
    pod = stored(builders.bare(POD, "shop", "pod"))
    folder = unpacked(tmp_path, node(), pod, logs={"shop/pod/compute": "words"})
    assert files(folder).log(ObjectRef("shop", "pod", POD)) == "words"
    moved_behind_a_link(folder, linked)
    folder = seen(folder)
    for source in (files(folder), files(bundle.EXAMPLE, folder)):
        with pytest.raises(DumpError, match=CLOSED):
            source.log(ObjectRef("shop", "pod", POD))
    # Another file may hold it.
    assert files(folder, tmp_path / "bundle.zip").log(ObjectRef("shop", "pod", POD)) == "words"


def test_a_pipe_among_the_files_is_not_waited_for(tmp_path: Path) -> None:
    with zipfile.ZipFile(zipped(tmp_path, [node(), vm()])) as file:
        file.extractall(tmp_path)
    (found,) = (tmp_path / bundle.NAME).rglob("virtualmachines.yaml")
    found.unlink()
    os.mkfifo(found)
    with pytest.raises(UnreadableError, match="is a link or no file"):
        listed(files(tmp_path / bundle.NAME), VM, "shop")
    folder = tmp_path / "objects"
    folder.mkdir()
    os.mkfifo(folder / "pods.yaml")
    with pytest.raises(DumpError, match="is a link or no file"):
        files(folder)


def test_a_link_in_a_folder_of_objects_is_not_followed(tmp_path: Path) -> None:
    unpacked(tmp_path, node(), vm())
    outside = tmp_path / "dump.yaml"
    outside.write_text(yamls(a_list(vm("stolen"))))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "latest").symlink_to(tmp_path / bundle.NAME)
    with pytest.raises(DumpError, match="neither a support bundle nor"):
        files(folder)
    (folder / "dump.yaml").symlink_to(outside)
    with pytest.raises(DumpError, match="is a link or no file"):
        files(folder)


def test_a_link_beside_files_of_objects_is_a_gap_in_every_list(tmp_path: Path) -> None:
    outside, folder = tmp_path / "dump.yaml", tmp_path / "folder"
    outside.write_text(yamls(a_list(vm("stolen"))))
    folder.mkdir()
    written = folder / "vms.yaml"
    written.write_text(yamls(a_list(vm(), vm("other", "elsewhere"))))
    os.utime(written, (1_000, 1_000))
    assert listed(files(folder), VM) == ["web", "other"]
    for name in ("more.yaml", "still-more.yaml"):
        (folder / name).symlink_to(outside)
    source = files(folder)
    for kind in (VM, VMI):
        for namespace in ("shop", None):
            with pytest.raises(PartialListError, match="is a link or no file") as caught:
                listed(source, kind, namespace)
            assert "stolen" not in names(caught.value.items)
    assert source.get(ObjectRef("shop", "web", VM)) is not None
    with pytest.raises(UnreadableError, match="is a link or no file"):
        source.get(ObjectRef("shop", "stolen", VM))
    assert source.unknown_namespaces()
    # When the link was made says nothing of the objects, and no command that is printed names it.
    assert source.now == datetime.fromtimestamp(1_000, timezone.utc)
    assert source.names == (str(folder),)
    # What is named for itself is named again, wherever it stands.
    for other in (zipped(folder, [node()]), folder / "more.yaml"):
        assert files(folder, other).names == (str(folder), str(other))


@pytest.mark.parametrize("uid", [None, "", 7, "same"])
def test_no_object_is_hidden_by_the_uid_of_another(tmp_path: Path, uid: object) -> None:
    machines = [vm("a"), vm("b")]
    for machine in machines:
        machine["metadata"]["uid"] = uid
    assert listed(files(zipped(tmp_path, [node(), *machines])), VM, "shop") == ["a", "b"]
    for machine in machines:
        (tmp_path / f"{names([machine])[0]}.yaml").write_text(yamls(a_list(machine)))
    assert listed(files(tmp_path / "a.yaml", tmp_path / "b.yaml"), VM, "shop") == ["a", "b"]


def test_a_damaged_member_is_unreadable_and_the_others_are_shown(tmp_path: Path) -> None:
    data = bytearray(zipped(tmp_path, [node(), vm()]).read_bytes())
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        info = next(one for one in file.infolist() if one.filename.endswith("virtualmachines.yaml"))
    start = info.header_offset + 30 + len(info.filename)
    data[start + 8 : start + 40] = bytes(32)
    path = tmp_path / "damaged.zip"
    path.write_bytes(data)
    source = files(path)
    with pytest.raises(UnreadableError, match=r"damaged|not valid YAML|UTF-8"):
        listed(source, VM, "shop")
    assert listed(source, NODE) == ["n1"]


_TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(["kind", "apiVersion", "items", "metadata", "name", "namespace", "status",
                         "deletionTimestamp", "finalizers", "spec", "labels", "release"])
        | st.text(max_size=4),
        inner,
        max_size=5,
    ),
    max_leaves=20,
)  # fmt: skip
_OBJECTS = st.fixed_dictionaries(
    {"kind": st.sampled_from(["VirtualMachine", "Pod", "List", "PodList"]) | _TREES,
     "apiVersion": st.sampled_from(["v1", "kubevirt.io/v1"]) | _TREES},
    optional={"metadata": _TREES, "items": _TREES, "status": _TREES, "spec": _TREES,
              "release": _TREES},
)  # fmt: skip
INPUTS = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")),
    _OBJECTS.map(lambda value: json.dumps(value).encode()),
    _OBJECTS.map(lambda value: fastyaml.dump(value, allow_unicode=True).encode()),
    st.lists(_OBJECTS, max_size=3).map(
        lambda items: fastyaml.dump({"apiVersion": "v1", "items": items, "kind": "List"}).encode()
    ),
)


def swallow(data: bytes, folder: Path) -> bool:
    """Read the bytes as a file, and as members of a bundle; only StuckError may come of it.

    Returns whether they were taken.
    """
    taken = False
    single, member = folder / "input.yaml", folder / "b/yamls/namespaced/shop/kubevirt.io/v1"
    single.write_bytes(data)
    member.mkdir(parents=True, exist_ok=True)
    (member / "virtualmachines.yaml").write_bytes(data)
    (folder / "b/metadata.yaml").write_bytes(data)
    (folder / "b/bundleGenerationError.log").write_bytes(data)
    for path in (single, folder / "b"):
        try:
            source = files(path)
            assert source.now
        except StuckError:
            continue
        for kind in (VM, VMI, POD, NODE):
            taken = _ask(source, kind, "shop" if kind.namespaced else None) or taken
    return taken


def _ask(source: offline.Files, kind: Kind, namespace: str | None) -> bool:
    """Ask everything that a command asks; whether anything was answered."""
    taken = False
    for ask in (
        lambda: source.list_objects(ListQuery(kind, namespace, "a=b"), lambda _: True),
        lambda: source.list_objects(
            ListQuery(kind, namespace, hint=lambda text: b"deletion" in text), lambda _: True
        ),
        lambda: source.get(ObjectRef(namespace or "", "a", kind)),
        lambda: source.where_is(kind, "a"),
    ):
        with contextlib.suppress(StuckError):
            ask()
            taken = True
    return taken


@settings(max_examples=300, deadline=timedelta(seconds=2))
@given(INPUTS)
def test_whatever_is_in_a_file_only_the_one_error_comes_of_it(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    swallow(data, tmp_path_factory.mktemp("fuzz"))


# Selectors


@given(
    st.lists(
        st.sampled_from(
            ["a=b", "a==b", "a!=b", "a", "!a", "a in (b,c)", "a notin (b)", "x/y=z", "! a"]
        ),
        max_size=3,
    ),
    st.dictionaries(st.sampled_from(["a", "x/y"]), st.sampled_from(["b", "c", "z", ""])),
)
def test_label_selectors_are_those_of_the_api_server(terms: list[str], carried: Any) -> None:
    text = ",".join(terms)
    expected = label_predicate(text)({"metadata": {"labels": carried}}) if text else True
    assert selectors.parse(text)(carried) is expected


@pytest.mark.parametrize("text", ["a=b=c", "a in b", ",", "a=b,,c", "(a)", "a b"])
def test_what_is_no_selector_is_wrong_usage(text: str) -> None:
    with pytest.raises(ValueError, match="label selector"):
        selectors.parse(text)
    run_ = run("list", "-f", str(bundle.EXAMPLE), "-l", text)
    assert run_.status is ExitStatus.USAGE


# The program


def test_the_example_is_what_its_objects_build(tmp_path: Path, monkeypatch: Any) -> None:
    committed = bundle.EXAMPLE.read_bytes()
    monkeypatch.setattr(bundle, "EXAMPLE", tmp_path / "again.zip")
    assert bundle.example().read_bytes() == committed


def test_no_cluster_is_needed_or_asked() -> None:
    done = run("list", "-f", str(bundle.EXAMPLE), "-o", "json")
    document = done.json
    assert done.status is ExitStatus.INCOMPLETE
    assert (document["context"], document["server"]) == (None, None)
    assert document["files"] == [str(bundle.EXAMPLE)]
    assert document["takenAt"] == bundle.CREATED
    assert {(item["kind"], item["name"], item["state"]) for item in document["items"]} == {
        ("VirtualMachine", "web-1", "Terminating"),
        ("VirtualMachineInstance", "web-1", "Terminating"),
        ("VirtualMachine", "db-1", "Stopping"),
        ("VirtualMachineInstance", "db-1", "Terminating"),
        ("VirtualMachine", "cache-1", "NotReady"),
        ("VirtualMachine", "nas", "Terminating"),
    }
    # web-1 has hung for seventeen minutes at the time of the bundle, whatever the time is now.
    assert {item["stuckSeconds"] for item in document["items"] if item["name"] == "web-1"} == {1073}
    assert {item["namespace"] for item in document["incomplete"]} == {
        "shop", "kube-public", "kube-node-lease"
    }  # fmt: skip
    whole = run("list", "-f", str(bundle.EXAMPLE), "-n", "default", "--exit-code")
    assert whole.status is ExitStatus.STUCK


def test_a_namespace_that_the_bundle_lacks_is_not_all_clear() -> None:
    done = run("list", "-f", str(bundle.EXAMPLE), "-n", "shop")
    assert done.status is ExitStatus.ERROR
    assert "namespace not in the bundle" in done.err
    assert "support-bundle-namespaces" in done.err
    assert "Nothing is stuck" not in done.err


def test_a_name_is_found_in_whatever_namespace_the_files_have_it() -> None:
    done = run("diagnose", "vm", "nas", "-f", str(bundle.EXAMPLE), "-o", "json")
    item = done.item
    assert item["verdict"] == "repair"
    assert {"owner-says", "snapshot-content-missing"} <= {one["id"] for one in item["findings"]}
    assert any("only a live API server" in line for line in item["notLookedFor"])
    assert {"permitted", "webhooks-accept"}.isdisjoint(one["id"] for one in item["guards"])
    nobody = run("diagnose", "vm", "nobody", "-f", str(bundle.EXAMPLE))
    assert nobody.status is ExitStatus.ERROR
    assert "was not found" in nobody.err


def test_a_missing_lease_blocks_what_needs_it() -> None:
    item = run("diagnose", "vm", "web-1", "-f", str(bundle.EXAMPLE), "-o", "json").item
    guards = {one["id"]: one for one in item["guards"]}
    assert item["verdict"] == "refuse"
    assert guards["guest-stopped"]["result"] == "refuse"
    assert "lease: namespace not in the bundle" in guards["guest-stopped"]["reason"]
    assert "heartbeat: 25m ago" in guards["guest-stopped"]["reason"]


def test_objects_come_from_a_pipe() -> None:
    text = fastyaml.dump(a_list(vm("a", deleted="2026-11-20T00:00:00Z"))).encode()
    done = run("list", "-f", "-", stdin=text)
    assert "shop        VM     a      Terminating" in done.out
    assert done.status is ExitStatus.INCOMPLETE
    assert "standard input" in done.err


@pytest.mark.parametrize("flag", [("--context", "x"), ("-s", "https://x"), ("--token", "secret")])
def test_files_and_a_cluster_exclude_each_other(flag: tuple[str, str]) -> None:
    done = run("list", "-f", str(bundle.EXAMPLE), *flag)
    assert done.status is ExitStatus.USAGE
    assert "does not go with it" in done.err
    assert "secret" not in done.err


def test_a_file_that_cannot_be_used_is_a_document_where_one_was_asked_for(tmp_path: Path) -> None:
    done = run("list", "-f", str(tmp_path / "nowhere"), "-o", "json")
    assert done.status is ExitStatus.ERROR
    assert "No such file" in done.json["error"]["message"]


def test_finalizers_of_files_are_counted_and_explained(tmp_path: Path) -> None:
    path = tmp_path / "dump.yaml"
    odd = stored(builders.vm("shop", "odd", ("example.com/strange",)))
    path.write_text(yamls(a_list(vm("a"), odd)))
    done = run("finalizers", "-f", str(path), "-o", "json")
    found = {item["name"]: item for item in done.json["items"]}
    assert found["example.com/strange"]["catalogued"] is False
    assert found[builders.VM_FINALIZER]["objects"] == 1
    assert found[builders.VM_FINALIZER]["owner"] == "virt-controller"
    assert done.status is ExitStatus.INCOMPLETE  # no list of VMIs
    table = run("finalizers", "-f", str(path)).out
    assert "<not in the catalogue>" in table


def test_the_example_is_checked_as_far_as_it_goes() -> None:
    done = run("check", "-f", str(bundle.EXAMPLE), "-o", "json")
    assert done.status is ExitStatus.INCOMPLETE
    found: dict[str, set[str]] = {}
    for item in done.json["items"]:
        found.setdefault(item["id"], set()).add(item["result"])
    assert found["nodes-ready"] == found["force-reset-policy"] == {"fail"}
    # Namespaces that were not collected are told beside those that were.
    assert found["recent-backup"] == {"fail", "unknown"}
    assert found["grace-period"] == {"ok", "unknown"}
    assert found["alert-rules"] == {"unknown"}
    assert done.json["takenAt"] == bundle.CREATED
    collected = run("check", "-f", str(bundle.EXAMPLE), "-n", "default", "-o", "json")
    items = [item for item in collected.json["items"] if item["id"] == "grace-period"]
    assert [item["result"] for item in items] == ["ok"]


def test_a_check_of_files_says_that_there_may_be_more_namespaces(tmp_path: Path) -> None:
    done = run("check", "-f", str(zipped(tmp_path, [node(), vm()])), "-o", "json")
    assert done.status is ExitStatus.INCOMPLETE
    assert "namespaces" in {item["resource"] for item in done.json["incomplete"]}


def test_nothing_that_changes_a_cluster_takes_files() -> None:
    for name, command in main.cli.commands.items():
        takes = any("-f" in param.opts for param in command.params)
        assert takes == (name in ("list", "diagnose", "check", "finalizers")), name


@settings(deadline=timedelta(seconds=2))
@given(
    st.lists(st.lists(_OBJECTS, max_size=3) | _OBJECTS, max_size=3),
    st.integers(1, 40),
    st.sampled_from(["\n", "\r\n"]),
)
def test_however_a_stream_is_cut_its_objects_are_the_same(
    written: list[Any], block: int, line_break: str
) -> None:
    documents_ = [
        {"apiVersion": "v1", "items": one, "kind": "List"} if isinstance(one, list) else one
        for one in written
    ]
    text = fastyaml.dump_all(documents_, allow_unicode=True)
    data = text.replace("\n", line_break).encode()
    expected = [
        yaml_stream.parse_yaml(part.encode(), "x") for part in text.split("\n---\n") if part
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yaml_stream, "_BLOCK", block)
        found = list(yaml_stream.pieces(io.BytesIO(data), "x"))
    again: dict[int, Any] = {}
    for piece in found:
        value = piece.parse("x")
        if piece.is_item:
            again.setdefault(piece.document, {}).setdefault("items", []).append(value)
        elif isinstance(value, dict):
            items = again.get(piece.document, {}).get("items")
            again[piece.document] = {**value, **({"items": items} if items else {})}
    assert list(again.values()) == [one for one in expected if one is not None]


@pytest.mark.parametrize("break_", ["\x85", "\u2028", "\u2029"])
def test_a_line_break_of_unicode_ends_no_item(break_: str) -> None:
    text = fastyaml.dump({"items": [{f"\n{break_}": 1}]}, allow_unicode=True)
    item, _ = yaml_stream.pieces(io.BytesIO(text.encode()), "x")
    assert item.parse("x") == yaml_stream.parse_yaml(text.encode(), "x")["items"][0]


def test_what_is_missing_is_told_once_and_exactly() -> None:
    def gap(resource: str, *namespaces: str | None) -> list[Unreadable]:
        return [Unreadable(resource, name, "Unreadable", "why") for name in namespaces]

    text = layout.unreadable([*gap("pods", "a", "b"), *gap("vms", "a", "b"), *gap("vmis", "a")])
    assert text.splitlines() == [
        "could not read pods and vms in namespaces a and b: Unreadable: why",
        "could not read vmis in namespace a: Unreadable: why",
    ]
    assert layout.unreadable([*gap("pods", None), *gap("leases", "c")]).splitlines() == [
        "could not read pods in all namespaces: Unreadable: why",
        "could not read leases in namespace c: Unreadable: why",
    ]
    many = layout.unreadable(gap("pods", *(f"n{number}" for number in range(20))))
    assert "in 20 namespaces (n0, n1," in many
