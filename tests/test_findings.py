"""Findings, from objects: each situation is seen, is not seen elsewhere, and is told when blind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from kubectl_harvester_stuck.diagnosis import diagnose
from kubectl_harvester_stuck.diagnosis.findings import FINDINGS, MODULES, admission
from kubectl_harvester_stuck.diagnosis.findings.base import FindingContext, LogExcerpt, Situation
from kubectl_harvester_stuck.diagnosis.model import Diagnosis, Verdict
from kubectl_harvester_stuck.harvester.pending_work import REMOVED_PVCS
from kubectl_harvester_stuck.harvester.target import Target
from kubectl_harvester_stuck.k8s.kinds import (
    API_SERVICE,
    DEPLOYMENT,
    HARVESTER_NAMESPACE,
    MIGRATION,
    NETWORK,
    PCI_DEVICE,
    POD,
    RESOURCE_QUOTA,
    SETTING,
    UPGRADE,
    VM,
    VM_BACKUP,
    VMI,
    VOLUME_SNAPSHOT,
    Kind,
)
from kubectl_harvester_stuck.k8s.objects import ObjectRef
from kubectl_harvester_stuck.release import plan
from kubectl_harvester_stuck.release.guards import PreflightResults
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
from tests.test_guards import (
    TARGET,
    dead_node,
    deleted_pod,
    deleted_vm,
    deleted_vmi,
    live_node,
    powered_off_scene,
)

BACKFILL = "wrangler.cattle.io/VMController.BackfillObservedNetworkMacAddress"
CONTROLLERS = ("virt-controller", "harvester", "harvester-load-balancer")


@dataclass(frozen=True)
class Story:
    """Objects, what cannot be read, and what a webhook says of the release."""

    bodies: list[Body]
    unreadable: Mapping[Kind, str] = field(default_factory=dict)
    deny: str | None = None
    ref: ObjectRef = TARGET
    request: ReleaseRequest = field(default_factory=ReleaseRequest)
    controllers: tuple[str, ...] = CONTROLLERS
    words: tuple[LogExcerpt, ...] = ()

    def diagnosis(self) -> Diagnosis:
        workloads = [stored(builders.deployment(name)) for name in self.controllers]
        case = Target(self.ref, snapshot(*self.bodies, *workloads, unreadable=self.unreadable))
        draft = plan.build(case, self.request)
        refs = [step.ref for step in draft.steps]
        answers = PreflightResults(dict.fromkeys(refs), dict.fromkeys(refs, self.deny))
        return diagnose.diagnose(case, plan.with_preflight(draft, answers), self.words)


def disk(name: str) -> dict[str, Any]:
    volume = {"name": "disk-0", "persistentVolumeClaim": {"claimName": name}}
    return {"template": {"spec": {"volumes": [volume]}}}


def snapshot_backup(*, vm: str = "web", namespace: str = "shop", ready: bool = True) -> Body:
    body = builders.vm_backup(namespace, "nightly", vm)
    volume = {"name": "nightly-disk", "persistentVolumeClaim": {"metadata": {"name": "disk-0"}}}
    return stored({**body, "status": {"readyToUse": ready, "volumeBackups": [volume]}})


def with_cleanup(*more: Body) -> list[Body]:
    return [deleted_vm(finalizers=[CLEANUP_FINALIZER]), *more]


def setting(value: str) -> Body:
    return stored(
        {"apiVersion": SETTING.api_version, "kind": SETTING.kind, "value": value,
         "metadata": {"name": "vm-force-reset-policy"}}
    )  # fmt: skip


def version(value: str) -> Body:
    meta = {"name": "server-version"}
    return stored({"apiVersion": SETTING.api_version, "kind": SETTING.kind, "value": value,
                   "metadata": meta})  # fmt: skip


def upgrade(state: str | None) -> Body:
    body = bare(UPGRADE, HARVESTER_NAMESPACE, "hvst-upgrade")
    labels = {"harvesterhci.io/upgradeState": state} if state else {}
    return stored({**body, "metadata": {**body["metadata"], "labels": labels}})


DENIED = 'admission webhook "validator.harvesterhci.io" denied the request: no'


def on_network(name: str) -> dict[str, Any]:
    networks = [{"name": "default", "pod": {}}, {"name": "nic-1", "multus": {"networkName": name}}]
    return {"template": {"spec": {"networks": networks}}}


def with_mac(theirs: str) -> Story:
    """A stopped VM whose address is still to be written into its spec, and another VM."""

    def interfaces(**mac: str) -> dict[str, Any]:
        devices = {"interfaces": [{"name": "nic-1", **mac}]}
        return {"template": {"spec": {"domain": {"devices": devices}}}}

    annotations = {admission.MAC_ADDRESSES: '{"nic-1":"52:54:00:00:00:01"}'}
    machine = builders.vm("shop", "web", annotations=annotations, spec=interfaces())
    other = builders.vm("shop", "db", spec=interfaces(macAddress=theirs))
    instance = deleted_vmi(finalizers=[BACKFILL], phase="Succeeded")
    return Story([stored(machine), stored(other), instance, *live_node()])


def with_device(name: str) -> dict[str, Any]:
    devices = {"hostDevices": [{"name": "gpu", "deviceName": name}]}
    return {"template": {"spec": {"domain": {"devices": devices}}}}


def device(resource: str) -> Body:
    return stored(
        {"apiVersion": PCI_DEVICE.api_version, "kind": PCI_DEVICE.kind,
         "metadata": {"name": "node1-000008000"}, "status": {"resourceName": resource}}
    )  # fmt: skip


def quota(mark: str = "true", **hard: str) -> Body:
    """The quota that Rancher keeps for a project."""
    body = bare(RESOURCE_QUOTA, "shop", "default", spec={"hard": hard or {"limits.cpu": "4"}})
    body["metadata"]["labels"] = {admission.QUOTA_OF_PROJECT: mark}
    return stored(body)


def api_service(available: str) -> Body:
    condition = {"type": "Available", "status": available, "reason": "MissingEndpoints",
                 "message": "no endpoints"}  # fmt: skip
    return stored(
        {"apiVersion": API_SERVICE.api_version, "kind": API_SERVICE.kind,
         "metadata": {"name": "v1.subresources.kubevirt.io"},
         "status": {"conditions": [condition]}}
    )  # fmt: skip


def on_live_node(*, terminated: bool = False) -> list[Body]:
    instance = deleted_vmi()
    return [deleted_vm(), instance, deleted_pod(instance, terminated=terminated), *live_node()]


def moved() -> list[Body]:
    """A guest that is being deleted on a live node, where it may have been migrated."""
    return [deleted_vm(), deleted_vmi(), *live_node()]


# finding, what it comes to, story in which it is seen, story in which it is not
SEEN: dict[str, tuple[Verdict, Callable[[], Story], Callable[[], Story]]] = {
    "not-stuck": (
        Verdict.NONE,
        lambda: Story([stored(builders.vm("shop", "web"))]),
        lambda: Story([deleted_vm()]),
    ),
    "deletion-not-begun": (
        Verdict.WAIT,
        lambda: Story(
            [stored(builders.vm("shop", "web")), deleted_vmi(deleted=None), *dead_node()]
        ),
        lambda: Story(powered_off_scene()),
    ),
    "node-silent": (
        Verdict.REFUSE,
        lambda: Story(powered_off_scene()),
        lambda: Story(powered_off_scene(heartbeat=ago(minutes=1))),
    ),
    "node-contradicts": (
        Verdict.REPAIR,
        lambda: Story(powered_off_scene(heartbeat=ago(minutes=1))),
        lambda: Story(powered_off_scene()),
    ),
    "instance-lives": (
        Verdict.REPAIR,
        lambda: Story(
            [owner := deleted_vm(), deleted_vmi(deleted=None, owner=owner), *live_node()]
        ),
        lambda: Story(moved()),
    ),
    "sign-unreadable": (
        Verdict.REFUSE,
        lambda: Story(powered_off_scene(lease=ago(hours=-1))),
        lambda: Story(powered_off_scene()),
    ),
    "guest-runs": (
        Verdict.REPAIR,
        lambda: Story(on_live_node()),
        lambda: Story(on_live_node(terminated=True)),
    ),
    "pod-not-cleaned-up": (
        Verdict.RELEASE,
        lambda: Story(on_live_node(terminated=True)),
        lambda: Story(on_live_node()),
    ),
    "settling": (
        Verdict.WAIT,
        lambda: Story([deleted_vm(deleted=ago(minutes=1))]),
        lambda: Story([deleted_vm()]),
    ),
    "webhook-denies": (
        Verdict.REPAIR,
        lambda: Story([deleted_vm()], deny=DENIED),
        lambda: Story([deleted_vm()]),
    ),
    "veto-keeps-vmi": (
        Verdict.RELEASE,
        lambda: Story(
            [deleted_vm(), deleted_vmi(finalizers=[VM_FINALIZER], phase="Failed"), *live_node()]
        ),
        lambda: Story([deleted_vm(), deleted_vmi(phase="Failed"), *live_node()]),
    ),
    "disk-of-another-vm": (
        Verdict.REPAIR,
        lambda: Story(
            [
                deleted_vm(spec=disk("disk-0")),
                stored(builders.vm("shop", "db", spec=disk("disk-0"))),
            ],
            deny=DENIED,
        ),
        lambda: Story(
            [
                deleted_vm(spec=disk("disk-0")),
                stored(builders.vm("shop", "db", spec=disk("disk-1"))),
            ]
        ),
    ),
    "broken-template-annotation": (
        Verdict.REPAIR,
        lambda: Story([deleted_vm(annotations={admission.VOLUME_CLAIM_TEMPLATES: "[{"})]),
        lambda: Story([deleted_vm(annotations={admission.VOLUME_CLAIM_TEMPLATES: "[]"})]),
    ),
    "mac-of-another-vm": (
        Verdict.REPAIR,
        lambda: with_mac("52:54:00:00:00:01"),
        lambda: with_mac("52:54:00:00:00:02"),
    ),
    "network-missing": (
        Verdict.REPAIR,
        lambda: Story([deleted_vm(spec=on_network("lab/vlan7"))], deny=DENIED),
        lambda: Story(
            [deleted_vm(spec=on_network("lab/vlan7")), stored(bare(NETWORK, "lab", "vlan7"))]
        ),
    ),
    "host-device-missing": (
        Verdict.REPAIR,
        lambda: Story([deleted_vm(spec=with_device("nvidia.com/T4"))], deny=DENIED),
        lambda: Story([deleted_vm(spec=with_device("nvidia.com/T4")), device("nvidia.com/T4")]),
    ),
    "quota-without-pod": (
        Verdict.REPAIR,
        lambda: Story([deleted_vm(), quota()], deny=DENIED),
        lambda: Story([deleted_vm(spec={"runStrategy": "Halted"}), quota()]),
    ),
    "webhook-unavailable": (
        Verdict.REPAIR,
        lambda: Story([deleted_vm(), stored(builders.deployment("virt-api", 0))]),
        lambda: Story([deleted_vm(), stored(builders.deployment("virt-api"))]),
    ),
    "memory-missing": (
        Verdict.REPAIR,
        lambda: Story([deleted_vm(), version("v1.7.0")], deny=DENIED),
        lambda: Story([deleted_vm(), version("v1.6.1")], deny=DENIED),
    ),
    "aggregated-api-down": (
        Verdict.RELEASE,
        lambda: Story([deleted_vm(), api_service("False")]),
        lambda: Story([deleted_vm(), api_service("True")]),
    ),
    "snapshot-content-missing": (
        Verdict.REPAIR,
        lambda: Story(with_cleanup(snapshot_backup())),
        lambda: Story(
            with_cleanup(
                snapshot_backup(),
                stored(bare(VOLUME_SNAPSHOT, "shop", "nightly-disk")),
                stored(builders.pvc("shop", "disk-0")),
            )
        ),
    ),
    "same-name-elsewhere": (
        Verdict.REPAIR,
        lambda: Story(with_cleanup(snapshot_backup(namespace="lab"))),
        lambda: Story(with_cleanup(snapshot_backup(namespace="lab", vm="db"))),
    ),
    "migration-in-flight": (
        Verdict.REPAIR,
        lambda: Story([*moved(), stored(builders.migration("shop", "m", "web"))]),
        lambda: Story([*moved(), stored(builders.migration("shop", "m", "web", "Failed"))]),
    ),
    "backup-in-progress": (
        Verdict.WAIT,
        lambda: Story([deleted_vm(), snapshot_backup(ready=False)]),
        lambda: Story([deleted_vm(), snapshot_backup()]),
    ),
    "finalizer-pending": (
        Verdict.REFUSE,
        lambda: Story([deleted_vm(finalizers=["example.com/x"])]),
        lambda: Story([deleted_vm()]),
    ),
    "finalizer-ownerless": (
        Verdict.RELEASE,
        lambda: Story([deleted_vm(finalizers=[builders.ABANDONED_FINALIZER])]),
        lambda: Story([deleted_vm(finalizers=[builders.LEGACY_FINALIZER])]),
    ),
    "vm-released-before-vmi": (
        Verdict.RELEASE,
        lambda: Story(
            [deleted_vmi(finalizers=[BACKFILL], phase="Failed"), *live_node()],
            ref=ObjectRef("shop", "web", VMI),
        ),
        lambda: Story([deleted_vm(), deleted_vmi(finalizers=[BACKFILL], phase="Failed"),
                       *live_node()]),
    ),
    "owner-unavailable": (
        Verdict.REPAIR,
        lambda: Story([deleted_vm()], controllers=("harvester",)),
        lambda: Story([deleted_vm()]),
    ),
    "owner-lags": (
        Verdict.REPAIR,
        lambda: Story(
            [
                deleted_vm(finalizers=[CLEANUP_FINALIZER], annotations={REMOVED_PVCS: "disk-0"}),
                stored(builders.pvc("shop", "disk-0")),
            ]
        ),
        lambda: Story(with_cleanup()),
    ),
    "owner-says": (
        Verdict.REPAIR,
        lambda: Story([deleted_vm()], words=(heard("virt-controller-1", (DENIED,)),)),
        lambda: Story([deleted_vm()], words=(heard("virt-controller-1"),)),
    ),
    "force-reset-off": (
        Verdict.REFUSE,
        lambda: Story([*powered_off_scene(), setting('{"enable":false}')]),
        lambda: Story([*powered_off_scene(), setting('{"enable":true}'), upgrade("Succeeded")]),
    ),
    "state-change-left": (
        Verdict.RELEASE,
        lambda: Story([deleted_vm(status={"stateChangeRequests": [{"action": "Stop"}]})]),
        lambda: Story([deleted_vm()]),
    ),
    "waits-for-dependents": (
        Verdict.REFUSE,
        lambda: Story(
            [
                machine := deleted_vm(finalizers=["foregroundDeletion"]),
                stored(builders.pvc("shop", "tpm", owner=machine)),
            ]
        ),
        lambda: Story([deleted_vm(finalizers=["foregroundDeletion"])]),
    ),
    "never-scheduled": (
        Verdict.RELEASE,
        lambda: Story([deleted_vm(), deleted_vmi(node=None, phase="Scheduling")]),
        lambda: Story([deleted_vm(), deleted_vmi(phase="Failed"), *live_node()]),
    ),
    "ready-to-release": (
        Verdict.RELEASE,
        lambda: Story([deleted_vm()]),
        lambda: Story(powered_off_scene()),
    ),
}  # fmt: skip


def ids(diagnosis: Diagnosis) -> set[str]:
    return {item.id for item in diagnosis.findings}


@pytest.mark.parametrize("situation", FINDINGS, ids=lambda situation: situation.id)
def test_a_situation_is_seen_where_it_is_and_nowhere_else(situation: Situation) -> None:
    advice, seen, unseen = SEEN[situation.id]
    diagnosis = seen().diagnosis()
    assert situation.id in ids(diagnosis)
    assert diagnosis.advice is advice
    assert diagnosis.because
    assert situation.id not in ids(unseen().diagnosis())
    for item in diagnosis.findings:
        assert item.summary
        assert all(one.object and one.field for one in item.evidence)
        assert item.evidence
    assert situation.summary


def test_no_situation_is_forgotten() -> None:
    public = {
        value
        for module in MODULES
        for name, value in vars(module).items()
        if getattr(value, "__module__", "") == module.__name__ and not name.startswith("_")
    }
    assert public == {situation.look for situation in FINDINGS}


def test_every_story_belongs_to_a_situation() -> None:
    assert set(SEEN) == {situation.id for situation in FINDINGS}


BLIND: dict[str, tuple[Kind, Callable[[], list[Body]]]] = {
    "guest-runs": (POD, on_live_node),
    "instance-lives": (VMI, lambda: [deleted_vm()]),
    "sign-unreadable": (POD, on_live_node),
    "node-contradicts": (POD, on_live_node),
    "pod-not-cleaned-up": (POD, on_live_node),
    "disk-of-another-vm": (VM, lambda: [deleted_vm(spec=disk("d"))]),
    "snapshot-content-missing": (VOLUME_SNAPSHOT, lambda: with_cleanup(snapshot_backup())),
    "same-name-elsewhere": (VM_BACKUP, with_cleanup),
    "migration-in-flight": (MIGRATION, moved),
    "backup-in-progress": (VM_BACKUP, lambda: [deleted_vm()]),
    "network-missing": (NETWORK, lambda: [deleted_vm(spec=on_network("lab/vlan7"))]),
    "host-device-missing": (PCI_DEVICE, lambda: [deleted_vm(spec=with_device("x"))]),
    "quota-without-pod": (RESOURCE_QUOTA, lambda: [deleted_vm()]),
    "webhook-unavailable": (DEPLOYMENT, lambda: [deleted_vm()]),
    "aggregated-api-down": (API_SERVICE, lambda: [deleted_vm()]),
    "owner-unavailable": (DEPLOYMENT, lambda: [deleted_vm()]),
    "force-reset-off": (UPGRADE, powered_off_scene),
    "veto-keeps-vmi": (VMI, lambda: [deleted_vm()]),
    "never-scheduled": (VMI, lambda: [deleted_vm()]),
    "memory-missing": (SETTING, lambda: [deleted_vm()]),
}


@pytest.mark.parametrize("name", sorted(BLIND))
def test_a_situation_that_cannot_be_looked_for_is_told(name: str) -> None:
    kind, bodies = BLIND[name]
    # The target itself is found on its own, as when only the list is forbidden.
    made = bodies()
    story = Story(made, unreadable={kind: "Forbidden"})
    case_of = snapshot(*made, unreadable={kind: "Forbidden"})
    if kind is VM:
        target = builders.parsed(made[0])
        case_of = type(case_of)(
            case_of.taken_at, case_of.listed, {target.ref: target}, case_of.unreadable
        )
        case = Target(story.ref, case_of)
        found = diagnose.diagnose(case, plan.build(case, story.request))
    else:
        found = story.diagnosis()
    assert name not in ids(found)
    assert [text for text in found.blind if text.startswith(f"{name}: ") and "Forbidden" in text]


@pytest.mark.parametrize("state", [None, "Upgrading"])
def test_an_upgrade_that_is_not_finished_holds_the_policy_back(state: str | None) -> None:
    diagnosis = Story([*powered_off_scene(), setting(""), upgrade(state)]).diagnosis()
    assert "force-reset-off" in ids(diagnosis)


@pytest.mark.parametrize(
    ("strategy", "verdict"), [("RerunOnFailure", Verdict.REPAIR), ("Manual", Verdict.NONE)]
)
def test_a_failed_vmi_that_the_ui_calls_stopping_is_no_release(
    strategy: str, verdict: Verdict
) -> None:
    failed = builders.vmi("shop", "web", "node-2", phase="Failed")
    machine = builders.vm("shop", "web", spec={"runStrategy": strategy})
    diagnosis = Story([stored(machine), stored(failed), *live_node()]).diagnosis()
    assert diagnosis.advice is verdict
    assert lines(diagnosis.steps)[-1] == (
        "kubectl delete virtualmachineinstance.kubevirt.io web -n shop --wait=false"
    )


def test_the_owner_of_a_device_finalizer_is_a_daemon_set() -> None:
    instance = deleted_vmi(
        finalizers=["wrangler.cattle.io/virtual-machine-deletion"], phase="Failed"
    )
    diagnosis = Story([deleted_vm(), instance, *live_node()]).diagnosis()
    assert "ds/harvester-pcidevices-controller is not there" in diagnosis.because


def test_admission_may_deny_what_it_was_not_asked_about() -> None:
    """Unless another guard refuses, for then it was not asked on purpose."""
    case = Target(TARGET, snapshot(deleted_vm()))
    refs = [step.ref for step in plan.build(case, ReleaseRequest()).steps]

    def may_be_denied(of: Target, answers: PreflightResults | None) -> bool:
        made = plan.build(of, ReleaseRequest())
        made = made if answers is None else plan.with_preflight(made, answers)
        return FindingContext(of, made, ()).may_be_denied

    yes, no = dict.fromkeys(refs), dict.fromkeys(refs, "no")
    assert may_be_denied(case, PreflightResults(yes, no))
    assert not may_be_denied(case, PreflightResults(yes, yes))
    assert may_be_denied(case, None)
    assert not may_be_denied(case, PreflightResults(no, yes))
    refused = Target(TARGET, snapshot(deleted_vm(finalizers=["example.com/x"])))
    assert not may_be_denied(refused, None)


def test_a_dry_run_of_what_has_moved_on_is_no_denial() -> None:
    """Nor is it an acceptance."""
    case = Target(TARGET, snapshot(deleted_vm()))
    draft = plan.build(case, ReleaseRequest())
    refs = [step.ref for step in draft.steps]
    yes, no = dict.fromkeys(refs), dict.fromkeys(refs, "no")

    def context(answers: PreflightResults) -> FindingContext:
        return FindingContext(case, plan.with_preflight(draft, answers), ())

    stale = context(PreflightResults(yes, yes, frozenset(refs)))
    assert (stale.denial, stale.may_be_denied) == (None, True)
    assert context(PreflightResults(yes, no, frozenset(refs))).denial == "no"


def test_finalizers_are_told_as_they_stand_now_and_planned_as_they_will_be() -> None:
    diagnosis = Story(
        powered_off_scene(), request=ReleaseRequest(powered_off=frozenset({"node-2"}))
    ).diagnosis()
    assert {item.state.value for item in diagnosis.finalizers} == {"pending"}
    assert {item.state.value for item in diagnosis.plan.judgments} == {"done"}
    assert diagnosis.advice is Verdict.RELEASE


def test_the_chain_marks_the_pod_that_holds_everything_up() -> None:
    chain = Story(powered_off_scene()).diagnosis().chain
    assert not chain.blocking
    (instance,) = [link for link in chain.links if "VirtualMachineInstance" in link.label]
    assert not instance.blocking
    (pod,) = instance.links
    assert pod.blocking
    assert "containers not ended" in pod.state
    assert [link.label for link in pod.links] == ["Node node-2"]


def test_a_gap_in_the_chain_is_told_as_one() -> None:
    chain = Story(moved(), unreadable={MIGRATION: "Forbidden"}).diagnosis().chain
    assert ("migrations", "could not be read: Forbidden") in [
        (link.label, link.state) for link in chain.links
    ]


def test_a_finalizer_that_waits_for_the_guest_is_not_done_while_it_may_run() -> None:
    """K#8104: the pod was deleted by force, virt-handler still gives signs of life."""
    bodies = [deleted_vm(), deleted_vmi(), *dead_node(heartbeat=ago(minutes=1))]
    diagnosis = Story(bodies).diagnosis()
    (lock,) = [item for item in diagnosis.finalizers if "foregroundDelete" in item.name]
    assert lock.state.value == "pending"
    assert "may still run" in lock.reason


@pytest.mark.parametrize(
    "domain",
    [{"memory": {"guest": "1Gi"}}, {"resources": {"limits": {"memory": "1Gi"}}}],
    ids=["guest", "limits"],
)
def test_a_vm_that_says_what_memory_it_has_is_not_rejected(domain: dict[str, Any]) -> None:
    spec = {"template": {"spec": {"domain": {"devices": {}, **domain}}}}
    found = Story([deleted_vm(spec=spec), version("v1.8.2")], deny=DENIED).diagnosis()
    assert "memory-missing" not in ids(found)
