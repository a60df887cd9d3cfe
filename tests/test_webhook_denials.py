"""What webhooks say is recognised by its text alone, whatever the objects are called."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

import pytest

from kubectl_harvester_stuck.errors import ApiError
from kubectl_harvester_stuck.harvester.admission_policies import CURE_OF_OTHERS, CURES, NAMES
from kubectl_harvester_stuck.harvester.denial_catalogue import (
    CATALOGUE,
    FIRST,
    NAME,
    OF_A_BACKUP,
    TEXT,
    Denial,
    Release,
)
from kubectl_harvester_stuck.harvester.webhook_denials import UNKNOWN_CURE, cure_of, find
from kubectl_harvester_stuck.release.send import is_conflict
from tests.conformance import harvester
from tests.conformance.situation import Situation

SAID = 'admission webhook "validator.harvesterhci.io" denied the request: '
FRAMES = (
    SAID + "{}",
    f"Error from server (Invalid): {SAID}{{}}",
    f"error syncing 'shop/web': handler VMController.CleanupPVCAndSnapshot: {SAID}{{}}, requeuing",
    f'{SAID}admission webhook "virtualmachine-validator.kubevirt.io" denied the request: {{}}',
)
RELEASES: tuple[Release, ...] = tuple((1, minor) for minor in range(3, 11))
WORDS = sorted(
    {
        word.lower()
        for denial in CATALOGUE
        for word in re.findall(r"[A-Za-z]+", denial.text.replace(TEXT, ""))
    }
    | {"maintenance", "db", "quota", "webhook", "denied", "web"}
)
"""What names are made of: all words of all texts, and those of the first table of causes."""


def name(rng: random.Random) -> str:
    """A name as Kubernetes allows it, alone, with its namespace, or quoted."""
    parts = [rng.choice("-.").join(rng.choices(WORDS, k=rng.randint(1, 6))) for _ in range(2)]
    return rng.choice((parts[0], "/".join(parts), f'"{parts[0]}"'))


def filled(denial: Denial, rng: random.Random) -> str:
    """A message of the entry, with names, and with texts of other webhooks where it has room."""
    message = denial.text
    while TEXT in message:
        other = rng.choice(CATALOGUE).text.replace(TEXT, "it").replace(NAME, "it")
        message = message.replace(TEXT, f"{other} {name(rng)}", 1)
    while NAME in message:
        message = message.replace(NAME, name(rng), 1)
    return message


def framed(message: str, rng: random.Random) -> str:
    """As the API server, a controller's log or another webhook hands it on."""
    if message.startswith("failed calling webhook"):
        return f"Internal error occurred: {message}: no endpoints available"
    return rng.choice(FRAMES).replace("{}", message)


def text(denial: Denial) -> str:
    return denial.text


@pytest.mark.parametrize("denial", CATALOGUE, ids=text)
def test_a_text_is_recognised_whatever_the_names_are(denial: Denial) -> None:
    rng = random.Random(denial.text)
    known = [release for release in RELEASES if denial.is_of(release)]
    for _ in range(60):
        message = framed(filled(denial, rng), rng)
        assert find(message) is denial, message
        assert find(message, rng.choice(known)) is denial, message


@pytest.mark.parametrize("denial", CATALOGUE, ids=text)
def test_a_text_of_another_release_is_not_claimed(denial: Denial) -> None:
    rng = random.Random(denial.text)
    for release in RELEASES:
        if not denial.is_of(release):
            assert find(framed(filled(denial, rng), rng), release) is not denial


def test_nothing_is_recognised_in_names() -> None:
    rng = random.Random(16)
    for _ in range(2000):
        message = f"{name(rng)} may not be changed by {name(rng)} while {name(rng)} is open"
        assert find(framed(message, rng)) is None, message
        assert cure_of(framed(message, rng)) == UNKNOWN_CURE


def test_no_text_could_be_a_name() -> None:
    """What is left of it without its names has a blank in one piece, and a name has none."""
    for denial in CATALOGUE:
        pieces = denial.text.replace(TEXT, NAME).split(NAME)
        assert any(" " in piece.strip() for piece in pieces), denial.text


def test_what_no_webhook_said_is_not_looked_through() -> None:
    for denial in CATALOGUE[:-1]:
        assert find(filled(denial, random.Random(1))) is None
    assert find('admission webhook "w" denied the request without explanation') is None


SAYINGS = (
    ("the volume disk-0 is already used by VM shop/web", (1, 6), "the same PVC"),
    ("PVC shop/d is already used by other VM, please use a shareable RWX volume.", (1, 8),
     "the same PVC"),
    ("there is vmbackup in progress for vm shop/web, please wait for the vmbackup or remove it"
     " before stop/restart the vm", (1, 8), "VirtualMachineBackup"),
    ("vm shop/web has a backup in progress; wait for it to finish or delete it before"
     " stopping/restarting", (1, 9), "VirtualMachineBackup"),
    ("can not delete golden image PVC", (1, 5), "removedPersistentVolumeClaims"),
    ("can not delete the volume d which is currently attached to VMs: shop/db", (1, 3),
     "removedPersistentVolumeClaims"),
    ("can not delete the volume d which is currently attached to VM: shop/db", (1, 8),
     "the other VM"),
    ("can not delete volume d which is exporting for image shop/img", (1, 8), "image"),
    ("can not delete the volume d which is currently owned by these VMs: db", (1, 8),
     "removedPersistentVolumeClaims"),
    ("vmrestore shop/back is in progress", (1, 8), "VirtualMachineRestore"),
    ("VM must be running to set targetVolume for volume migration", (1, 8), "targetVolume"),
    ("PVC d is not attached to the VM", (1, 8), "targetVolume"),
    ("disk d cannot be shareable: a shareable disk must be backed by a persistent volume claim",
     (1, 9), "shareable"),
    ("reservedMemory cannot be equal or greater than limits.memory", (1, 3), "reservedMemory"),
    ("hotpluggable cd-rom volume should connect via SATA bus", (1, 8), "sata"),
    ("vm web template is nil", (1, 5), "spec.template"),
    ('user "CN=Ada L" is not allowed to access image shop/img', (1, 10), "image"),
    ("cpu insufficient resources", (1, 3), "quota"),
    ("memory insufficient resources due to resource quota", (1, 4), "Halted"),
    ("storage insufficient resources due to resource quota", (1, 4), "quota of storage"),
    ("duplicate mac address present for vm maintenance-db for cluster network mgmt", (1, 8),
     "MAC address"),
    ("PVC quota/quota is a golden image, it can't be used as a volume in VM", (1, 6),
     "golden image"),
)  # fmt: skip


@pytest.mark.parametrize(("said", "release", "cure"), SAYINGS, ids=[said for said, _, _ in SAYINGS])
def test_what_is_said_has_its_cure(said: str, release: Release, cure: str) -> None:
    assert cure in cure_of(SAID + said, release)
    assert cure in cure_of(SAID + said)


def test_a_stop_during_a_backup_is_recognised_in_every_release() -> None:
    for release in RELEASES:
        assert sum(denial.is_of(release) for denial in OF_A_BACKUP) == 1


def test_every_entry_says_where_it_was_read() -> None:
    assert len({denial.text for denial in CATALOGUE}) == len(CATALOGUE)
    for denial in CATALOGUE:
        assert denial.path.endswith(".go")
        assert re.fullmatch(r"v\d+\.\d+\.\d+(-rc\d+)?|[0-9a-f]{12}", denial.tag), denial.text
        assert FIRST <= denial.since <= (denial.until or denial.since)


def denied() -> Iterator[tuple[str, Situation]]:
    """What Harvester's running webhook has to say in the lines of tests/conformance."""
    for situation in harvester.SITUATIONS:
        for words in situation.owner.words:
            if situation.owner.action in ("rejected", "holds"):
                yield words.format(at="shop", other="lab", name="web"), situation


@pytest.mark.parametrize("release", ["1.4.0", "1.6.0", "1.8.2"])
def test_what_a_running_webhook_said_is_what_the_conformance_tests_hear(release: str) -> None:
    """Those tests run beside 1.8.2, and beside the others with `make harvester-versions`."""
    major, minor = map(int, release.split(".")[:2])
    heard = {
        found.text
        for words, situation in denied()
        if situation.since <= (major, minor) and (found := find(SAID + words, (major, minor)))
    }
    assert heard == {denial.text for denial in CATALOGUE if release in denial.heard}


def test_every_rejection_of_the_conformance_tests_is_recognised() -> None:
    for words, situation in denied():
        if situation.owner.action == "rejected":
            assert find(SAID + words, (1, 8)), words


REJECTED = "is forbidden: ValidatingAdmissionPolicy '{}' with binding '{}' denied request: no"
INTRODUCED = (
    "",
    "Error from server (Forbidden): ",
    "VirtualMachine shop/web: Error from server (Invalid): ",
)


@pytest.mark.parametrize("policy", [*NAMES, "others"])
@pytest.mark.parametrize("before", INTRODUCED)
def test_a_policy_is_recognised_by_its_name(policy: str, before: str) -> None:
    said = f'{before}virtualmachines.kubevirt.io "web" {REJECTED.format(policy, "any")}'
    assert cure_of(said, (1, 8)) == CURES.get(policy, CURE_OF_OTHERS)
    assert find(said) is None


def test_what_quotes_a_policy_is_none() -> None:
    rejected = f'virtualmachines.kubevirt.io "web" {REJECTED.format(NAMES[0], NAMES[0])}'
    assert cure_of(SAID + rejected) == UNKNOWN_CURE
    assert cure_of(f"{SAID}Error from server (Forbidden): {rejected}") == UNKNOWN_CURE
    others = f'pods "web" {REJECTED.format("others", "b")}; {rejected}'
    assert cure_of(others) == CURE_OF_OTHERS


def test_a_policy_that_speaks_of_a_uid_is_no_conflict() -> None:
    said = f'pods "web" {REJECTED.format("others", "b")}, metadata.uid is immutable'
    denied = ApiError(422, "Invalid", said)
    assert (denied.is_from_admission, denied.is_final, is_conflict(denied)) == (True, True, False)
    assert is_conflict(ApiError(422, "Invalid", "metadata.uid: field is immutable"))
    assert not is_conflict(ApiError(409, "Conflict", f"{SAID}busy"))
