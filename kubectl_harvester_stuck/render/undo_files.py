"""The answer of `restore --list`: what there is to create VMs from again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from kubectl_harvester_stuck.k8s import quantities
from kubectl_harvester_stuck.k8s.durations import human
from kubectl_harvester_stuck.k8s.objects import format_time
from kubectl_harvester_stuck.render.formats import Content
from kubectl_harvester_stuck.render.layout import safe
from kubectl_harvester_stuck.render.page import Page
from kubectl_harvester_stuck.render.screen import Screen

if TYPE_CHECKING:
    from kubectl_harvester_stuck.render.document import Document
    from kubectl_harvester_stuck.state.backups import UndoFile

SCHEMA = "harvester-stuck/undo-files/v1"


def text(files: Sequence[UndoFile], output: str, now: datetime, screen: Screen) -> str:
    """The answer in the format that was asked for; `now` is for ages."""
    return Content(
        lambda: _document(files),
        lambda _: _table(files, now, Page(screen)),
        lambda: [safe(str(item.path)) for item in files],
    ).text(output)


def _table(files: Sequence[UndoFile], now: datetime, page: Page) -> str:
    if not files:
        return ""
    rows = [
        [
            human(now - item.taken_at),
            item.namespace,
            f"{item.name}..." if item.is_cut else item.name,
            "unknown" if item.size is None else quantities.kibibytes(item.size),
            str(item.path),
        ]
        for item in files
    ]
    page.table(["SAVED", "NAMESPACE", "NAME", "SIZE", "FILE"], rows)
    return str(page)


def _document(files: Sequence[UndoFile]) -> Document:
    return {
        "schema": SCHEMA,
        "items": [
            {
                "namespace": item.namespace,
                "name": item.name,
                "takenAt": format_time(item.taken_at),
                "sizeBytes": item.size,
                "file": str(item.path),
            }
            for item in files
        ],
    }
