"""What every screen for people is made of: safe text, and wrapping.

Whatever comes from the cluster goes through `safe`: a name, a message or an annotation must not
be able to move the cursor of the operator's terminal.
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence

from kubectl_harvester_stuck.errors import is_forbidden, users
from kubectl_harvester_stuck.k8s.kinds import VIEWER_ROLE, VM
from kubectl_harvester_stuck.k8s.objects import ObjectRef, Unreadable

MOST_NAMES = 8
"""Up to so many namespaces or kinds are named in one sentence, or VMs in one command."""


def safe(text: str) -> str:
    """`text` without control and formatting characters, as one line.

    Those that turn the direction of a text are among them: no name needs one, and with one a name,
    or a command that is to be pasted, reads differently from what it is.
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or unicodedata.category(character) == "Zs"
        else _visible(character)
        for character in text
    )


def _visible(character: str) -> str:
    if character in "\n\t\u2028\u2029":
        return " "
    return f"^{chr(ord(character) + 64)}" if ord(character) < 32 else "\N{REPLACEMENT CHARACTER}"


def short_kind(ref: ObjectRef) -> str:
    """`VM` or `VMI`: what a table has room for."""
    return "VM" if ref.kind is VM else "VMI"


def unreadable(
    items: Sequence[Unreadable], width: int | None = None, role: str = VIEWER_ROLE
) -> str:
    """What could not be read, each reason once, with what to do about it.

    `role` is the ClusterRole of deploy/rbac.yaml that allows what is forbidden.
    """
    forbidden = [item for item in items if _is_forbidden(item)]
    lines = _gaps([item for item in items if item not in forbidden])
    if forbidden:
        lines.append(_forbidden(forbidden, role))
    wrapped = (piece for line in lines for piece in wrap(safe(line), "", width))
    return "".join(f"{line}\n" for line in wrapped)


def _gaps(items: Sequence[Unreadable]) -> list[str]:
    """A sentence for each reason."""
    where: dict[tuple[str, str, str], list[str | None]] = {}
    for item in items:
        where.setdefault((item.reason, item.message, item.resource), []).append(item.namespace)
    alike: dict[tuple[str, str, tuple[str | None, ...]], list[str]] = {}
    for (reason, message, resource), namespaces in where.items():
        place = tuple(dict.fromkeys(namespaces))
        alike.setdefault((reason, message, place), []).append(resource)
    return [
        f"could not read {_and(resources)}{_places(place)}: {reason}: {message}"
        for (reason, message, place), resources in alike.items()
    ]


def _is_forbidden(item: Unreadable) -> bool:
    # What a rule reads carries the whole error in its message.
    return item.reason == "Forbidden" or is_forbidden(item.message)


def _forbidden(items: Sequence[Unreadable], role: str) -> str:
    """One sentence for all that this user may not read, and what allows it."""
    resources = list(dict.fromkeys(item.resource for item in items))
    more = len(resources) - MOST_NAMES
    if more > 1:
        resources = [*resources[:MOST_NAMES], f"{more} more kinds"]
    named = {user for item in items for user in users(item.message)}
    who = named.pop() if len(named) == 1 else "this user"
    why = items[0].message if len(items) == 1 else f"{who} may not read them"
    hint = f"the ClusterRole {role} of deploy/rbac.yaml allows it"
    if any(item.namespace is None and item.reason == "Forbidden" for item in items):
        hint += "; or name a namespace that you may read: -n NAMESPACE"
    places = _places(list(dict.fromkeys(item.namespace for item in items)))
    return f"could not read {_and(resources)}{places}: Forbidden: {why}; {hint}"


def _places(namespaces: Sequence[str | None]) -> str:
    if None in namespaces:
        return " in all namespaces"
    names = [name for name in namespaces if name]
    if len(names) > MOST_NAMES:
        return f" in {len(names)} namespaces ({', '.join(names[:MOST_NAMES])}, ...)"
    # An object of the whole cluster is in none.
    return f" in namespace{'s' if len(names) > 1 else ''} {_and(names)}" if names else ""


def _and(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def is_command(line: str) -> bool:
    """Whether the line is to be pasted."""
    return line.startswith(("kubectl ", "virtctl "))


def wrap(text: str, indent: str, width: int | None = None, after: str | None = None) -> list[str]:
    """Lines of at most `width` characters, or one line where that is None.

    Words are never broken, so that names can be copied. `after` is the indent of all lines but the
    first, by default two more spaces.
    """
    if width is None:
        return [f"{indent}{text}".rstrip()] if text.strip() else []
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=f"{indent}  " if after is None else after,
        break_long_words=False,
        break_on_hyphens=False,
    )
