"""How the program was called, so that the commands it prints work when pasted."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubectl_harvester_stuck.k8s import commands
from kubectl_harvester_stuck.k8s.commands import Advice, Command, Effect, Remark
from kubectl_harvester_stuck.k8s.objects import ObjectRef

if TYPE_CHECKING:
    from kubectl_harvester_stuck.release.model import Plan

FINALIZERS = "finalizers"
"""The guard that speaks of work that is not done."""


@dataclass(frozen=True)
class Invocation:
    """The cluster that is spoken to, and the flags that led there (never a token)."""

    context: str
    server: str
    connection: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    """The flags of `unstick` that were given, to be repeated."""
    files: tuple[str, ...] = ()
    """What was read instead of a cluster."""
    system: str = "posix"
    """The operating system whose shells read what is printed, as `os.name` calls it."""

    def spell(self, command: Command) -> str:
        """The command as it is typed: for this cluster and user, quoted for the shell."""
        words = command.words
        if command.effect is not Effect.LOCAL:
            words += self.connection
        return _for_windows(words) if self.system == "nt" else shlex.join(words)

    def lines(self, advice: Iterable[Advice]) -> list[str]:
        """What to do, a line each; what is no command stands behind `#`."""
        found: list[str] = []
        for item in advice:
            note = item.text if isinstance(item, Remark) else item.note
            if note:
                found.append(
                    f"# {note}{'' if isinstance(item, Remark) or note[-1] == '?' else ':'}"
                )
            if isinstance(item, Command):
                found.append(self.spell(item))
        return found

    def sentences(self, advice: Iterable[Advice]) -> list[str]:
        """The same with sentences as they stand, for lists of which a command is the exception."""
        return [line.removeprefix("# ") for line in self.lines(advice)]

    def unstick(self, ref: ObjectRef, *more: str) -> Command:
        """The command that releases `ref`, with the flags that were given."""
        return commands.unstick(ref, *self.options, *more)

    def last_resort(self, plan: Plan) -> Command | None:
        """The command that leaves work undone, where nothing but that work holds a release up."""
        if {guard.guard for guard in plan.refusals} != {FINALIZERS} or not plan.could_be_left:
            return None
        lost = dict.fromkeys(item.leaves_behind for item in plan.could_be_left)
        names = dict.fromkeys(item.name for item in plan.could_be_left)
        flags = [word for name in names for word in ("--leave-behind", name)]
        note = f"last, and only if this may stay undone: {'; '.join(lost)}"
        return self.unstick(plan.ref, *flags).noted(note)


_BARE = re.compile(r"-{0,2}[A-Za-z0-9_/=\\][A-Za-z0-9_./:=\\-]*")
"""Words that cmd.exe and PowerShell both take as they stand."""
_BARE_FLAG = re.compile(r"-{1,2}[A-Za-z0-9=-]+")
"""PowerShell splits a bare word that begins with a dash at a period or a colon."""
_READ_DIFFERENTLY = re.compile(r'["%$`\r\n]|\\$')
"""What one of the two expands, or ends a quoted word at."""


def _for_windows(words: tuple[str, ...]) -> str:
    """The words, quoted so that cmd.exe and PowerShell read the same.

    Which of the two it is, no program can tell. Where no quoting fits both, the words stand as a
    list behind `#`: better not pasted than pasted wrongly.
    """
    # kubectl reads patches as YAML, which takes the quotes that no shell of Windows looks at.
    plain = tuple(_as_yaml(word) for word in words)
    if any(_READ_DIFFERENTLY.search(word) for word in plain):
        return f"# type these words with the quoting of your shell: {json.dumps(words)}"
    return " ".join(word if _is_bare(word) else f'"{word}"' for word in plain)


def _is_bare(word: str) -> bool:
    return bool((_BARE_FLAG if word.startswith("-") else _BARE).fullmatch(word))


def _as_yaml(word: str) -> str:
    """A JSON text with the single quotes of YAML; any other word as it is."""
    if word[:1] in ("{", "[") and not re.search(r"['\\]", word):
        return word.replace('"', "'")
    return word
