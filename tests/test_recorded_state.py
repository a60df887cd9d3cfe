"""Files that an earlier version wrote on the operator's machine stay readable."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from kubectl_harvester_stuck import render
from kubectl_harvester_stuck.k8s.kinds import VM
from kubectl_harvester_stuck.k8s.objects import ObjectRef
from kubectl_harvester_stuck.restore import decisions as undo_file
from kubectl_harvester_stuck.state import backups, journal

RECORDED = Path(__file__).parent / "recorded_state"
"""The journal and the undo file of one release by the first commits of version 0.1.0."""

NOW = datetime(2026, 11, 29, tzinfo=timezone.utc)


def test_a_journal_of_an_earlier_version_is_read() -> None:
    found = journal.read(RECORDED)
    assert not found.broken
    assert len(found.changes) == 3
    shown = render.journal(found.changes, "wide", NOW)
    assert shown.count("done") == 3
    assert "kubevirt.io/virtualMachineControllerFinalize" in render.journal(
        found.changes, "json", NOW
    )


def test_an_undo_file_of_an_earlier_version_is_read() -> None:
    path = RECORDED / "backup.json"
    saved = undo_file.load(backups.read(path), str(path))
    found = undo_file.parse_backup(saved, str(path))
    assert found.ref == ObjectRef("shop", "web", VM)
    assert found.vmi is not None
    assert found.vmi.text("status", "nodeName") == "n1"
    manifest = undo_file.manifest_for(found)
    assert manifest["spec"]["runStrategy"] == undo_file.HALTED
