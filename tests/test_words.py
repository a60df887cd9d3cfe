"""The owner's own words, out of logs as the controllers write them."""

from __future__ import annotations

import pytest

from kubectl_harvester_stuck.diagnosis.controller_logs import MOST, about
from kubectl_harvester_stuck.k8s.kinds import VM
from kubectl_harvester_stuck.k8s.objects import ObjectRef

WEB = ObjectRef("shop", "web", VM)
KUBEVIRT = (
    '{"component":"virt-controller","level":"error","msg":"Updating the VirtualMachine status'
    ' failed.","name":"%s","namespace":"%s","reason":"admission webhook denied the request: no"}'
)
HARVESTER = (
    'time="2026-11-23T03:30:00Z" level=error msg="error syncing \'%s\': handler'
    " VMController.CleanupPVCAndSnapshot: can't get VolumeSnapshot shop/x, err: not found,"
    ' requeuing"'
)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            KUBEVIRT % ("web", "shop"),
            "Updating the VirtualMachine status failed. admission webhook denied the request: no",
        ),
        (
            HARVESTER % "shop/web",
            "error syncing 'shop/web': handler VMController.CleanupPVCAndSnapshot: can't get"
            " VolumeSnapshot shop/x, err: not found, requeuing",
        ),
        (KUBEVIRT % ("web", "lab"), None),
        (KUBEVIRT % ("web-2", "shop"), None),
        (HARVESTER % "shop/web-2", None),
        (HARVESTER % "eshop/web", None),
        ('level=info msg="synced shop/web"', None),
        ("", None),
    ],
)
def test_a_line_is_quoted_if_it_speaks_of_the_object_and_of_trouble(
    line: str, words: str | None
) -> None:
    assert about(WEB, line) == (() if words is None else (words,))


def test_the_newest_different_lines_are_quoted_oldest_first() -> None:
    lines = [f"error {number} of shop/web" for number in range(9)]
    log = "\n".join([*lines, lines[-1], lines[-2]])
    assert about(WEB, log) == tuple(lines[-MOST:][i] for i in (0, 2, 1))


def test_a_line_that_repeats_the_vm_ends_where_its_secrets_begin() -> None:
    line = 'error syncing shop/web: cannot store {"userData": "s3cret"}'
    assert about(WEB, line) == ('error syncing shop/web: cannot store {"userData: <redacted>',)
