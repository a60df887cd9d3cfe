"""The journal for people: what was changed, newest last, and what a run left unsaid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from kubectl_harvester_stuck.k8s import commands
from kubectl_harvester_stuck.k8s.durations import human
from kubectl_harvester_stuck.k8s.objects import parse_time
from kubectl_harvester_stuck.release.model import Action
from kubectl_harvester_stuck.render.color import Style
from kubectl_harvester_stuck.render.invocation import Invocation
from kubectl_harvester_stuck.render.layout import safe
from kubectl_harvester_stuck.render.page import GAP, Cell, Page, Styled


def journal(
    changes: Sequence[Mapping[str, Any]], now: datetime, page: Page, *, wide: bool, headers: bool
) -> str:
    """The table of what was changed, newest last; empty text when nothing was."""
    if not changes:
        return ""
    names = ["WHEN", "USER", "OBJECT", "CHANGE", "OUTCOME"]
    rows = [_changed(change, now, wide=wide) for change in changes]
    if wide:
        names += ["CONTEXT", "STATED", "UNDO FILE"]
    elif page.width is not None:
        # The user is what can be shortened: the system's own names are long.
        others = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
        room = page.width - GAP * (len(names) - 1) - sum(others) + others[1]
        for row in rows:
            row[1] = _shortened(row[1], max(room, SHORTEST))
    page.table(names if headers else [], [[*row[:4], _outcome(row[4]), *row[5:]] for row in rows])
    return str(page)


def _outcome(text: str) -> Cell:
    """The outcome, marked where it is not what was wanted."""
    return text if text in ("done", "created", "already gone") else Styled(text, Style.CARE)


SHORTEST = 8
"""Characters of a user that are always shown."""


def _shortened(text: str, room: int) -> str:
    """The end of the text: what a long user is called by stands there."""
    return text if len(text) <= room else f"..{text[len(text) - room + 2 :]}"


def _changed(change: Mapping[str, Any], now: datetime, *, wide: bool) -> list[str]:
    ref = change.get("object")
    ref = ref if isinstance(ref, Mapping) else {}
    kind = {"VirtualMachine": "VM", "VirtualMachineInstance": "VMI"}
    named = str(ref.get("kind"))
    row = [
        str(change.get("time")) if wide else _age(change, now),
        safe(str(change.get("user") or "<unknown>")),
        safe(f"{kind.get(named, named)} {ref.get('namespace')}/{ref.get('name')}"),
        _what(change, wide=wide),
    ]
    outcome = str(change.get("outcome", "interrupted"))
    if not wide:
        return [*row, outcome.partition(":")[0]]
    words = ("overrides", "poweredOff", "leaveBehind")
    by_word = [name for key in words for name in _list(change.get(key))]
    where = str(change.get("context") or "<none>")
    return [*row, outcome, where, ",".join(by_word) or "<none>", str(change.get("backup"))]


def _age(change: Mapping[str, Any], now: datetime) -> str:
    try:
        return human(now - parse_time(str(change.get("time"))))
    except ValueError:
        return "<unknown>"


def _what(change: Mapping[str, Any], *, wide: bool) -> str:
    if change.get("action") == Action.DELETE_POD.value:
        return "delete"
    if change.get("action") == Action.CREATE.value:
        return "create"
    patch, before = change.get("patch"), change.get("before")
    meta = patch.get("metadata") if isinstance(patch, Mapping) else None
    had = _list(before.get("finalizers")) if isinstance(before, Mapping) else []
    kept = _list(meta.get("finalizers")) if isinstance(meta, Mapping) else []
    removed = [name for name in had if name not in kept]
    if wide:
        return "; ".join(f"removed {name}" for name in removed) or "patch"
    return f"-{len(removed)} finalizer{'' if len(removed) == 1 else 's'}"


def _list(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def unfinished(changes: Sequence[Mapping[str, Any]]) -> str:
    """What the changes without an outcome mean, and what to do; empty text without any."""
    count = sum("outcome" not in change for change in changes)
    if not count:
        return ""
    which = "1 change was" if count == 1 else f"{count} changes were"
    return f"{which} interrupted, or is still at work: to finish, give the same command again.\n"


def changed_names(changes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The objects that were changed, each once."""
    names = []
    for change in changes:
        ref = change.get("object")
        if isinstance(ref, Mapping):
            group, slash, _ = str(ref.get("apiVersion")).rpartition("/")
            kind = str(ref.get("kind")).lower()
            names.append(f"{kind}{f'.{group}' if slash else ''}/{ref.get('name')}")
    return [safe(name) for name in dict.fromkeys(names)]


def cut_off(changes: Sequence[Mapping[str, Any]], where: Invocation) -> str:
    """A warning about the last run, whose `changes` have no second line; empty without any."""
    if not changes:
        return ""
    first = changes[0]
    verb = {Action.DELETE_POD.value: "delete", Action.CREATE.value: "create"}.get(
        str(first.get("action")), "patch"
    )
    ref = first.get("object")
    ref = ref if isinstance(ref, Mapping) else {}
    what = f"{verb} {ref.get('kind')} {ref.get('namespace')}/{ref.get('name')}"
    more = f" and {len(changes) - 1} more" if len(changes) > 1 else ""
    by = first.get("user") or "an unknown user"
    context = first.get("context") or "<none>"
    text = (
        f"warning: the last run, of {first.get('time')} by {by} in context {context}, did not tell"
        f" how this ended: {what}{more}; the same command again finishes it, and the journal has"
        " all of it"
    )
    return f"{safe(text)}\n  {safe(where.spell(commands.journal()))}\n"
