"""What each situation tells, word for word: tests/findings.yaml holds it, for people to read.

    python -m tests.test_findings_told

writes that file anew. A situation that is not seen tells nothing: an empty list.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_harvester_stuck.diagnosis import diagnose
from kubectl_harvester_stuck.diagnosis.findings import FINDINGS, admission
from kubectl_harvester_stuck.harvester.target import Target
from kubectl_harvester_stuck.k8s.kinds import (
    DAEMON_SET,
    HARVESTER_NAMESPACE,
    NETWORK,
    USB_DEVICE,
    VM,
    VM_BACKUP,
    VMI,
    VOLUME_SNAPSHOT,
    Kind,
)
from kubectl_harvester_stuck.k8s.objects import ObjectRef
from kubectl_harvester_stuck.release import plan
from kubectl_harvester_stuck.release.model import ReleaseRequest
from tests.support import builders
from tests.support.advice import lines
from tests.support.builders import (
    CLEANUP_FINALIZER,
    VM_FINALIZER,
    Body,
    ago,
    bare,
    heard,
    snapshot,
    stored,
)
from tests.test_findings import (
    BACKFILL,
    CONTROLLERS,
    DENIED,
    SEEN,
    Story,
    api_service,
    disk,
    moved,
    on_live_node,
    on_network,
    quota,
    setting,
    snapshot_backup,
    upgrade,
    version,
    with_cleanup,
    with_device,
)
from tests.test_guards import (
    OFF,
    dead_node,
    deleted_pod,
    deleted_vm,
    deleted_vmi,
    live_node,
    powered_off_scene,
)

FILE = Path(__file__).with_name("findings.yaml")
TOLD: dict[str, Any] = yaml.safe_load(FILE.read_text()) if FILE.exists() else {}


def vm(name: str = "web", **more: Any) -> Body:
    """A VM that lives."""
    return stored(builders.vm("shop", name, **more))


def vmi(**more: Any) -> Body:
    """A VMI that lives."""
    return deleted_vmi(deleted=None, **more)


def tainted(bodies: list[Body]) -> list[Body]:
    """The node as unreachable for two hours."""
    taint = {
        "key": "node.kubernetes.io/unreachable",
        "effect": "NoExecute",
        "timeAdded": ago(hours=2),
    }
    return [
        {**body, "spec": {"taints": [taint]}} if body["kind"] == "Node" else body for body in bodies
    ]


def two_pods(first: Body, second: Body) -> list[Body]:
    """The pods under the names that put them in this order."""
    return [
        {**pod, "metadata": {**pod["metadata"], "name": f"virt-launcher-web-{number}"}}
        for number, pod in enumerate((first, second))
    ]


def ended() -> Body:
    """A VMI that has ended and waits for virt-controller alone."""
    return deleted_vmi(finalizers=[VM_FINALIZER], phase="Failed")


def of_mac(written: str | None, *, interface: str = "52:54:00:00:00:01", **more: Any) -> list[Body]:
    """A VM whose address is to be written, or not, and another VM with `interface`."""
    devices = {"interfaces": [{"name": "nic-1", "macAddress": interface}]}
    annotations = {} if written is None else {admission.MAC_ADDRESSES: written}
    spec = {"template": {"spec": {"domain": {"devices": devices}}}}
    instance = deleted_vmi(finalizers=more.pop("finalizers", [BACKFILL]), phase="Succeeded")
    target = (deleted_vm if more.pop("deleted", False) else vm)(
        annotations=annotations, spec=spec if more.pop("own", False) else None
    )
    return [target, vm("db", spec=spec), *([] if more.pop("gone", False) else [instance]),
            *live_node()]  # fmt: skip


MAC = '{"nic-1":"52:54:00:00:00:01"}'


def elsewhere(bodies: list[Body], name: str) -> list[Body]:
    """The VM of that name, in another namespace."""
    return [
        {**body, "metadata": {**body["metadata"], "namespace": "lab"}}
        if body["metadata"]["name"] == name
        else body
        for body in bodies
    ]


def on_networks(bodies: list[Body], **networks: str) -> list[Body]:
    """The VMs, each with the interface nic-1 on that network."""
    made = json.loads(json.dumps(bodies))
    for body in made:
        if body["kind"] == VM.kind:
            name = networks[body["metadata"]["name"]]
            multus = {"name": "nic-1", "multus": {"networkName": name}}
            template = body["spec"].setdefault("template", {}).setdefault("spec", {})
            template["networks"] = [multus]
    return list(made)


def nad(name: str, cluster: str) -> Body:
    """A network in the namespace lab."""
    body = bare(NETWORK, "lab", name)
    body["metadata"]["labels"] = {admission.CLUSTER_NETWORK: cluster}
    return stored(body)


def template(text: str) -> Story:
    return Story([deleted_vm(annotations={admission.VOLUME_CLAIM_TEMPLATES: text})])


def owned_claim(**more: Any) -> list[Body]:
    machine = deleted_vm(finalizers=["foregroundDeletion"], **more)
    return [machine, stored(builders.pvc("shop", "tpm", owner=machine))]


def backup(**status: Any) -> Body:
    return stored({**builders.vm_backup("shop", "nightly", "web"), "status": status})


def usb(resource: str) -> Body:
    return stored({**bare(USB_DEVICE, "", "usb-1"), "status": {"resourceName": resource}})


def _turned(service: Body) -> Body:
    """Not available in another sense."""
    (condition,) = service["status"]["conditions"]
    return {**service, "status": {"conditions": [{**condition, "type": "Progressing"}]}}


def _named(name: str, body: Body) -> Body:
    return {**body, "metadata": {**body["metadata"], "name": name}}


def _remote(body: Body) -> Body:
    return {**body, "spec": {**body["spec"], "type": "backup"}}


def _with_device_finalizer(**more: Any) -> Body:
    name = "wrangler.cattle.io/virtual-machine-deletion"
    return deleted_vmi(finalizers=[name], phase="Failed", **more)


def _daemon_set(available: int) -> Body:
    body = bare(DAEMON_SET, HARVESTER_NAMESPACE, "harvester-pcidevices-controller")
    return stored({**body, "status": {"numberAvailable": available}})


# `finding: in which case`, the story
def _never_scheduled(phase: str) -> Story:
    return Story([deleted_vm(), deleted_vmi(node=None, phase=phase)])


def _with_cleanup(bodies: list[Body]) -> Story:
    return Story(with_cleanup(*bodies))


def _beside_daemon_set(available: int) -> Story:
    bodies = [deleted_vm(), _with_device_finalizer(), _daemon_set(available), *live_node()]
    return Story(bodies, controllers=CONTROLLERS)


def _with_log(line: str) -> Story:
    return Story([deleted_vm()], words=(heard("virt-controller-1", (line,)),))


def _on_a_lost_network(machine: Callable[..., Body], release: str) -> Story:
    return Story([machine(spec=on_network("lab/vlan7")), version(release)], deny=DENIED)


def _denied(said: str, release: str) -> Story:
    before = 'admission webhook "validator.harvesterhci.io" denied the request: '
    words = (heard("harvester-1", (before + said,)),)
    return Story([deleted_vm(), version(release)], deny=before + said, words=words)


VARIANTS: dict[str, Callable[[], Story]] = {
    "not-stuck: it is stopped": lambda: Story([vm(status={"printableStatus": "Stopped"})]),
    "not-stuck: it has no status": lambda: Story([vm(status={"printableStatus": ""})]),
    "not-stuck: its guest runs": lambda: Story([vm(), vmi(), *live_node()]),
    "not-stuck: its VMI is Failed": lambda: Story(
        [vm(spec={"runStrategy": "Manual"}), vmi(phase="Failed"), *live_node()]
    ),
    "not-stuck: its VMI is Failed, without a strategy": lambda: Story(
        [vm(spec={"runStrategy": ""}), vmi(phase="Failed")]
    ),
    "deletion-not-begun: its VMI is Failed": lambda: Story(
        [vm(), vmi(phase="Failed"), *live_node()]
    ),
    "deletion-not-begun: a stop": lambda: Story(
        [vm(spec={"runStrategy": "Halted"}), vmi(), *live_node()]
    ),
    "deletion-not-begun: a stop during an evacuation": lambda: Story(
        [vm(spec={"runStrategy": "Halted"}), vmi(status={"evacuationNodeName": "node-2"}),
         *live_node()]
    ),
    "deletion-not-begun: an eviction that does not come": lambda: Story(
        [vm(), vmi(), *tainted(dead_node())]
    ),
    "node-silent: the node was vouched for": lambda: Story(powered_off_scene(), request=OFF),
    "node-contradicts: nothing is being deleted": lambda: Story(
        [vm(), living := vmi(), deleted_pod(living, deleted=None),
         *dead_node(heartbeat=ago(minutes=1))]
    ),
    "node-contradicts: its pod has ended": lambda: Story(
        [deleted_vm(), instance := deleted_vmi(), deleted_pod(instance, terminated=True),
         *dead_node(heartbeat=ago(minutes=1))]
    ),
    "node-contradicts: its pod was deleted by force": lambda: Story(
        [deleted_vm(), deleted_vmi(), *dead_node(heartbeat=ago(minutes=1))]
    ),
    "node-contradicts: a pod has ended on one of two such nodes": lambda: Story(
        [deleted_vm(),
         instance := deleted_vmi(node="node-1", status={"activePods": {"u": "node-2"}}),
         deleted_pod(instance, node="node-1", terminated=True),
         *dead_node("node-1", heartbeat=ago(minutes=1)),
         *dead_node("node-2", heartbeat=ago(minutes=1))]
    ),
    "guest-runs: nothing is stuck": lambda: Story(
        [vm(), living := vmi(), deleted_pod(living, deleted=ago(minutes=-1)), *live_node()]
    ),
    "guest-runs: its pod is not being deleted": lambda: Story(
        [deleted_vm(), instance := deleted_vmi(), deleted_pod(instance, deleted=None), *live_node()]
    ),
    "guest-runs: one of two pods has ended": lambda: Story(
        [deleted_vm(), instance := deleted_vmi(),
         *two_pods(deleted_pod(instance, terminated=True), deleted_pod(instance)), *live_node()]
    ),
    "pod-not-cleaned-up: its pod is not being deleted": lambda: Story(
        [deleted_vm(), instance := deleted_vmi(),
         deleted_pod(instance, terminated=True, deleted=None), *live_node()]
    ),
    "pod-not-cleaned-up: the node does not answer": lambda: Story(
        [deleted_vm(), instance := deleted_vmi(), deleted_pod(instance, terminated=True),
         *dead_node()]
    ),
    "pod-not-cleaned-up: one of two pods runs": lambda: Story(
        [deleted_vm(), instance := deleted_vmi(),
         *two_pods(deleted_pod(instance), deleted_pod(instance, terminated=True)), *live_node()]
    ),
    **{
        f"never-scheduled: {phase or 'no phase'}": partial(_never_scheduled, phase)
        for phase in ("", "Pending", "WaitingForSync", "Scheduling")
    },
    "never-scheduled: only the VM is being deleted": lambda: Story(
        [deleted_vm(), vmi(node=None, phase="Pending")]
    ),
    "migration-in-flight: it has no phase": lambda: Story(
        [*moved(), stored(builders.migration("shop", "m", "web", ""))]
    ),
    "state-change-left: two of them, of a VM": lambda: Story(
        [deleted_vm(status={"stateChangeRequests": [{"action": "Stop"}, {"action": "Start"}]})]
    ),
    "state-change-left: there is no VM": lambda: Story(
        [deleted_vmi(phase="Failed"), *live_node()], ref=ObjectRef("shop", "web", VMI)
    ),
    "force-reset-off: no node is silent": lambda: Story(
        [*on_live_node(), setting('{"enable":false}'), upgrade(None)]
    ),
    "force-reset-off: the node was vouched for": lambda: Story(
        [*powered_off_scene(), setting('{"enable":false}')], request=OFF
    ),
    "force-reset-off: by default": lambda: Story(
        [*powered_off_scene(), {**setting(""), "default": '{"enable":false}'}]
    ),
    "force-reset-off: neither value nor default": lambda: Story(
        [*powered_off_scene(), setting("")]
    ),
    "force-reset-off: an upgrade without a state": lambda: Story(
        [*powered_off_scene(), upgrade(None)]
    ),
    "force-reset-off: an upgrade that runs": lambda: Story(
        [*powered_off_scene(), upgrade("Upgrading")]
    ),
    "force-reset-off: an upgrade that failed": lambda: Story(
        [*powered_off_scene(), upgrade("Failed")]
    ),
    **{
        f"{finding}: {case}": partial(_denied, said, release)
        for finding in ("webhook-denies", "owner-says")
        for case, said, release in (
            ("of this release", "the volume d is already used by VM shop/db", "v1.6.1"),
            ("of another release", "the volume d is already used by VM shop/db", "v1.7.0"),
            ("a name of fragments", "vm shop/quota-maintenance is on a golden-image", "v1.8.2"),
        )
    },
    "webhook-unavailable: nothing is stuck": lambda: Story(
        [vm(), stored(builders.deployment("virt-api", 0))]
    ),
    "webhook-unavailable: Harvester's": lambda: Story(
        [deleted_vm(), stored(builders.deployment("harvester-webhook", 0))]
    ),
    "veto-keeps-vmi: it is not being deleted": lambda: Story(
        [deleted_vm(), vmi(finalizers=[VM_FINALIZER], phase="Failed"), *live_node()]
    ),
    "veto-keeps-vmi: there is no VM": lambda: Story(
        [ended(), *live_node()], ref=ObjectRef("shop", "web", VMI)
    ),
    "veto-keeps-vmi: its guest runs": lambda: Story(
        [deleted_vm(), deleted_vmi(finalizers=[VM_FINALIZER]), *live_node()]
    ),
    "veto-keeps-vmi: it has a pod": lambda: Story(
        [deleted_vm(), instance := ended(), deleted_pod(instance), *live_node()]
    ),
    "disk-of-another-vm: nobody denies it": lambda: Story(
        [deleted_vm(spec=disk("disk-0")), vm("db", spec=disk("disk-0"))]
    ),
    "disk-of-another-vm: another guard refuses": lambda: Story(
        [deleted_vm(spec=disk("disk-0"), finalizers=["example.com/x"]),
         vm("db", spec=disk("disk-0"))]
    ),
    "disk-of-another-vm: nobody deleted either": lambda: Story(
        [vm(spec=disk("disk-0")), vm("db", spec=disk("disk-0"))]
    ),
    "disk-of-another-vm: two disks, denied": lambda: Story(
        [deleted_vm(spec=builders.with_disks("b", "a")),
         vm("db", spec=builders.with_disks("b", "a"))],
        deny=DENIED,
    ),
    "broken-template-annotation: no list": lambda: template('{"a": 1}'),
    "broken-template-annotation: a long text": lambda: template("x" * 100),
    "broken-template-annotation: none": lambda: Story([deleted_vm()]),
    "mac-of-another-vm: in capitals": lambda: Story(
        of_mac('{"nic-1":"52:54:00:00:00:AA"}', interface="52:54:00:00:00:Aa")
    ),
    "mac-of-another-vm: it has the address itself": lambda: Story(
        of_mac(MAC, interface="52:54:00:00:00:01", own=True)
    ),
    "mac-of-another-vm: in another namespace": lambda: Story(elsewhere(of_mac(MAC), "db")),
    "mac-of-another-vm: on the same cluster network": lambda: Story(
        [*on_networks(of_mac(MAC), web="lab/a", db="lab/b"), nad("a", "mgmt"), nad("b", "mgmt")]
    ),
    "mac-of-another-vm: on another cluster network": lambda: Story(
        [*on_networks(of_mac(MAC), web="lab/a", db="lab/b"), nad("a", "mgmt"), nad("b", "core")]
    ),
    "mac-of-another-vm: no address was observed": lambda: Story(of_mac(None)),
    "mac-of-another-vm: the VM is being deleted": lambda: Story(of_mac(MAC, deleted=True)),
    "mac-of-another-vm: nobody writes it": lambda: Story(of_mac(MAC, finalizers=[VM_FINALIZER])),
    "mac-of-another-vm: there is no VMI": lambda: Story(of_mac(MAC, gone=True)),
    "network-missing: nobody denies it": lambda: Story([deleted_vm(spec=on_network("lab/vlan7"))]),
    "network-missing: of the VM's namespace": lambda: Story([deleted_vm(spec=on_network("vlan7"))]),
    "network-missing: of the VM's namespace, and there": lambda: Story(
        [deleted_vm(spec=on_network("vlan7")), stored(bare(NETWORK, "shop", "vlan7"))]
    ),
    **{
        f"network-missing: {who}, and Harvester is {release}": partial(
            _on_a_lost_network, machine, release
        )
        for who, machine, release in (
            ("it is being deleted", deleted_vm, "v1.5.0"),
            ("it is being deleted", deleted_vm, "v1.6.0"),
            ("nobody deleted it", vm, "v1.6.0"),
        )
    },
    "host-device-missing: Harvester is v1.4.3": lambda: Story(
        [deleted_vm(spec=with_device("v/x")), version("v1.4.3")], deny=DENIED
    ),
    "host-device-missing: nobody denies it": lambda: Story([deleted_vm(spec=with_device("v/x"))]),
    "host-device-missing: a USB device is there": lambda: Story(
        [deleted_vm(spec=with_device("v/x")), usb("v/x")]
    ),
    "quota-without-pod: nobody denies it": lambda: Story([deleted_vm(), quota()]),
    "quota-without-pod: it limits neither CPU nor memory": lambda: Story(
        [deleted_vm(), quota(pods="100", **{"requests.storage": "1Ti"})]
    ),
    "quota-without-pod: it limits memory and pods": lambda: Story(
        [deleted_vm(), quota(pods="100", **{"limits.memory": "1Gi"})]
    ),
    "quota-without-pod: it is not that of a project": lambda: Story([deleted_vm(), quota("false")]),
    "quota-without-pod: the VM has no status yet": lambda: Story(
        [deleted_vm(status={"printableStatus": ""}), quota()]
    ),
    "quota-without-pod: there is a pod": lambda: Story([*on_live_node(), quota()]),
    "quota-without-pod: nothing is stuck": lambda: Story([vm(), quota()]),
    "aggregated-api-down: nothing is stuck": lambda: Story([vm(), api_service("False")]),
    "aggregated-api-down: another condition": lambda: Story(
        [deleted_vm(), _turned(api_service("False"))]
    ),
    **{
        f"snapshot-content-missing: {missing}": partial(_with_cleanup, bodies)
        for missing, bodies in {
            "the snapshot": [snapshot_backup(), stored(builders.pvc("shop", "disk-0"))],
            "the disk": [
                snapshot_backup(), stored(bare(VOLUME_SNAPSHOT, "shop", "nightly-disk"))
            ],
            "of another VM": [snapshot_backup(vm="db")],
            "of a remote backup": [_remote(snapshot_backup())],
            "behind others that do not count": [
                _named("a", snapshot_backup(vm="db")),
                _named("b", _remote(snapshot_backup())),
                snapshot_backup(),
            ],
            "it names neither": [backup(volumeBackups=[{}])],
            "it names them in another shape": [
                backup(volumeBackups=[{"persistentVolumeClaim": "disk-0"}])
            ],
        }.items()
    },
    "snapshot-content-missing: of a namesake elsewhere": lambda: Story(
        with_cleanup(snapshot_backup(namespace="lab"), stored(builders.pvc("lab", "disk-0")))
    ),
    "snapshot-content-missing: of a namesake elsewhere, and whole": lambda: Story(
        with_cleanup(
            snapshot_backup(namespace="lab"),
            stored(bare(VOLUME_SNAPSHOT, "lab", "nightly-disk")),
            stored(builders.pvc("lab", "disk-0")),
        )
    ),
    "snapshot-content-missing: nobody would fail on it": lambda: Story(
        [deleted_vm(), snapshot_backup()]
    ),
    "same-name-elsewhere: it is ours": lambda: Story(with_cleanup(snapshot_backup())),
    "same-name-elsewhere: a remote backup": lambda: Story(
        with_cleanup(_remote(snapshot_backup(namespace="lab")))
    ),
    "same-name-elsewhere: nobody would delete it": lambda: Story(
        [deleted_vm(), snapshot_backup(namespace="lab")]
    ),
    "backup-in-progress: nothing is known of it": lambda: Story([deleted_vm(), backup()]),
    "backup-in-progress: of another VM": lambda: Story(
        [deleted_vm(), snapshot_backup(vm="db", ready=False)]
    ),
    "backup-in-progress: of a VM elsewhere": lambda: Story(
        [deleted_vm(), snapshot_backup(namespace="lab", ready=False)]
    ),
    "backup-in-progress: it is being deleted": lambda: Story(
        [deleted_vm(), stored(snapshot_backup(ready=False), deleted=ago(hours=1))]
    ),
    "backup-in-progress: nothing is stuck": lambda: Story([vm(), snapshot_backup(ready=False)]),
    "vm-released-before-vmi: it is not being deleted": lambda: Story(
        [vmi(finalizers=[BACKFILL], phase="Failed"), *live_node()],
        ref=ObjectRef("shop", "web", VMI),
    ),
    "vm-released-before-vmi: nobody fails": lambda: Story(
        [ended(), *live_node()], ref=ObjectRef("shop", "web", VMI)
    ),
    "owner-unavailable: it does not run": lambda: Story(
        [deleted_vm(), stored(builders.deployment("virt-controller", 0))], controllers=()
    ),
    **{
        f"owner-unavailable: a daemon set, {number} available": partial(_beside_daemon_set, number)
        for number in (0, 1)
    },
    "owner-unavailable: a daemon set alone": lambda: Story(
        [_with_device_finalizer(), *live_node()], ref=ObjectRef("shop", "web", VMI)
    ),
    "owner-lags: it was deleted only now": lambda: Story(
        [
            deleted_vm(finalizers=[CLEANUP_FINALIZER], deleted=ago(minutes=1),
                       annotations={"harvesterhci.io/removedPersistentVolumeClaims": "disk-0"}),
            stored(builders.pvc("shop", "disk-0")),
        ]
    ),
    "owner-lags: the garbage collector": lambda: Story(owned_claim()),
    "owner-lags: behind one that is done": lambda: Story(
        [deleted_vm(finalizers=[VM_FINALIZER, CLEANUP_FINALIZER], annotations={
            "harvesterhci.io/removedPersistentVolumeClaims": "disk-0"}),
         stored(builders.pvc("shop", "disk-0"))]
    ),
    "owner-lags: that of a daemon set": lambda: Story(
        [vm(annotations={"harvesterhci.io/deviceAllocationDetails": "{}"}),
         _with_device_finalizer(spec={"domain": {"devices": {"gpus": [{}]}}}), *live_node()]
    ),
    "owner-lags: nobody knows it": lambda: Story([deleted_vm(finalizers=["example.com/x"])]),
    **{
        f"owner-says: {line}": partial(_with_log, line)
        for line in (
            'Internal error: failed calling webhook "w": timeout',
            "error syncing 'shop/web': handler vm: no such thing, requeuing",
            "handler vm: done",
            "requeuing shop/web",
        )
    },
    "finalizer-ownerless: that of a VMI": lambda: Story(
        [deleted_vmi(
            finalizers=["wrangler.cattle.io/VMController.BackfillObservedNetworkMacAddress"],
            phase="Failed"), *live_node()],
        ref=ObjectRef("shop", "web", VMI),
    ),
    "finalizer-pending: some are done": lambda: Story(
        [deleted_vm(finalizers=[VM_FINALIZER, builders.LEGACY_FINALIZER, "example.com/x"])]
    ),
    "waits-for-dependents: another finalizer waits": lambda: Story(
        [deleted_vm(finalizers=[CLEANUP_FINALIZER], annotations={
            "harvesterhci.io/removedPersistentVolumeClaims": "disk-0"}),
         stored(builders.pvc("shop", "disk-0"))]
    ),
    "ready-to-release: three steps": lambda: Story(powered_off_scene(), request=OFF),
    "ready-to-release: two steps": lambda: Story(
        [deleted_vm(), deleted_vmi(phase="Failed"), *live_node()]
    ),
    "ready-to-release: the pod only": lambda: Story(
        [vm(), living := vmi(), deleted_pod(living), *dead_node()], request=OFF
    ),
    "ready-to-release: nothing is stuck": lambda: Story([vm()]),
}  # fmt: skip


BLIND = {
    "mac-of-another-vm: its annotation harvesterhci.io/mac-address is malformed": lambda: Story(
        of_mac("oops")
    ),
    "owner-says: Forbidden": lambda: Story(
        [deleted_vm()], words=(heard("virt-controller-1", why="Forbidden"),)
    ),
}
"""What could not be looked for, and why."""

SEEING: dict[str, Kind] = {
    "network-missing": NETWORK,
    "host-device-missing": USB_DEVICE,
    "snapshot-content-missing": VOLUME_SNAPSHOT,
    "same-name-elsewhere": VM_BACKUP,
    "owner-unavailable": DAEMON_SET,
}


def stories() -> dict[str, Callable[[], Story]]:
    """Every story, by the finding that it is about."""
    seen = {f"{name}: seen": story for name, (_, story, _) in SEEN.items()}
    return {name: (seen | VARIANTS)[name] for name in sorted(seen | VARIANTS)}


def told(name: str) -> list[dict[str, Any]]:
    """What the finding tells in that story, for which nothing is blind."""
    diagnosis = stories()[name]().diagnosis()
    assert not diagnosis.blind
    return [
        {
            "summary": str(found.summary),
            "advice": found.advice and found.advice.value,
            "evidence": [[seen.object, seen.field, seen.value] for seen in found.evidence],
            "steps": lines(found.steps),
        }
        for found in diagnosis.findings
        if found.id == name.partition(":")[0]
    ]


@pytest.mark.parametrize("name", stories())
def test_a_situation_tells_what_people_read(name: str) -> None:
    assert told(name) == TOLD[name]


def test_what_people_read_belongs_to_a_story() -> None:
    assert list(TOLD) == list(stories())
    assert {name.partition(":")[0] for name in stories()} == {one.id for one in FINDINGS}


@pytest.mark.parametrize("name", BLIND)
def test_what_cannot_be_understood_is_told_with_the_object(name: str) -> None:
    (blind,) = BLIND[name]().diagnosis().blind
    finding, _, why = name.partition(": ")
    assert blind.startswith(f"{finding}: could not read ")
    assert "None" not in blind
    assert blind.endswith(f": {why}")


@pytest.mark.parametrize("value", ["[]", "off"])
def test_a_setting_that_is_no_json_object_is_named_without_its_value(value: str) -> None:
    (blind,) = Story([*powered_off_scene(), setting(value)]).diagnosis().blind
    assert blind == (
        "force-reset-off: could not read Setting vm-force-reset-policy: its value is not a JSON"
        " object"
    )


def test_without_a_disk_of_its_own_no_other_vm_is_read() -> None:
    target = builders.parsed(deleted_vm())
    seen = snapshot(unreadable={VM: "Forbidden"})
    case = Target(target.ref, replace(seen, found={target.ref: target}))
    blind = diagnose.diagnose(case, plan.build(case, ReleaseRequest())).blind
    assert not [text for text in blind if text.startswith("disk-of-another-vm: ")]


@pytest.mark.parametrize(("finding", "kind"), SEEING.items())
def test_where_there_is_nothing_to_compare_nothing_is_read(finding: str, kind: Kind) -> None:
    diagnosis = Story([deleted_vm()], unreadable={kind: "Forbidden"}).diagnosis()
    assert not [text for text in diagnosis.blind if text.startswith(f"{finding}: ")]


def write() -> None:
    """Write tests/findings.yaml."""
    texts = {name: told(name) for name in stories()}
    FILE.write_text(yaml.safe_dump(texts, sort_keys=False, width=100, allow_unicode=True))


if __name__ == "__main__":
    write()
