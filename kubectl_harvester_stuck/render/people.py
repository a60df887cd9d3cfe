"""Tables and screens for people; they fit 80 columns unless a name alone does not.

Whatever comes from the cluster goes through `safe`: a name, a message or an annotation must not
be able to move the cursor of the operator's terminal.
"""

from __future__ import annotations

import json
import textwrap
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from kubectl_harvester_stuck.durations import human
from kubectl_harvester_stuck.kinds import VM
from kubectl_harvester_stuck.model import (
    Action,
    Advice,
    Listing,
    Missing,
    Ref,
    Result,
    State,
    Target,
)

if TYPE_CHECKING:
    from kubectl_harvester_stuck.carried import Carried
    from kubectl_harvester_stuck.decisions import Diagnosis, Link, Outcome, Plan, Step
    from kubectl_harvester_stuck.finalizers import Finalizer
    from kubectl_harvester_stuck.flow import Run
    from kubectl_harvester_stuck.render.invocation import Invocation
    from kubectl_harvester_stuck.watch import Change

WIDTH = 80

MOST_NAMES = 8
"""Up to so many namespaces are named in one sentence."""

IN_FULL = 3
"""Up to so many plans are shown with every patch, more as a table."""


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


def listing(found: Listing, *, wide: bool, headers: bool) -> str:
    """The table of what is stuck; empty text when nothing is."""
    if not found.targets:
        return ""
    names = ["NAMESPACE", "KIND", "NAME", "STATE", "STUCK", "NODE"]
    rows = [_row(target, found) for target in found.targets]
    if wide:
        names += ["FINALIZERS"]
        rows = [
            [*row, ",".join(target.finalizers) or "<none>"]
            for row, target in zip(rows, found.targets, strict=True)
        ]
    return table(names if headers else [], rows)


def _row(target: Target, found: Listing) -> list[str]:
    return [
        target.ref.namespace,
        _short(target.ref),
        target.ref.name,
        target.state.value,
        human(found.taken_at - target.since),
        target.node or "<unknown>",
    ]


class Rows:
    """The table of `list --watch`, a line at a time, in columns as wide as they are at first."""

    def __init__(self, found: Listing, *, wide: bool) -> None:
        self._wide = wide
        first = [self.names, *(self.cells(row, found) for row in found.targets)]
        self._widths = [max(map(len, column)) for column in zip(*first, strict=True)]

    @property
    def names(self) -> list[str]:
        """The header."""
        names = ["NAMESPACE", "KIND", "NAME", "STATE", "STUCK", "NODE"]
        return [*names, "FINALIZERS"] if self._wide else names

    def cells(self, row: Target, found: Listing, state: str = "") -> list[str]:
        """One row; `state` stands for the row's own."""
        cells = [safe(cell) for cell in _row(row, found)]
        cells[3] = state or cells[3]
        return [*cells, safe(",".join(row.finalizers)) or "<none>"] if self._wide else cells

    def line(self, cells: Sequence[str]) -> str:
        """The cells as a line of the table."""
        padded = (cell.ljust(width) for cell, width in zip(cells, self._widths, strict=True))
        return f"{'   '.join(padded).rstrip()}\n"


def became(change: Change) -> str:
    """The state of a row that is gone: of what was being deleted, or of what was only held up."""
    if change.happened.value != "DELETED":
        return change.row.state.value
    return "Gone" if change.row.state is State.TERMINATING else "Freed"


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as kubectl prints it."""
    import tabulate

    look = tabulate.TableFormat(
        lineabove=None,
        linebelowheader=None,
        linebetweenrows=None,
        linebelow=None,
        headerrow=tabulate.DataRow("", "   ", ""),
        datarow=tabulate.DataRow("", "   ", ""),
        padding=0,
        with_header_hide=None,
    )
    before, tabulate.MIN_PADDING = tabulate.MIN_PADDING, 0
    try:
        text = tabulate.tabulate(
            [[safe(cell) for cell in row] for row in rows],
            headers=list(headers),
            tablefmt=look,
            disable_numparse=True,
            stralign="left",
        )
    finally:
        tabulate.MIN_PADDING = before
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def diagnoses(items: Sequence[Diagnosis], where: Invocation, *, plain: bool = False) -> str:
    """Why each target hangs; `plain` draws the chain without box characters."""
    return "\n".join(_diagnosis(item, where, plain=plain) for item in items)


def _diagnosis(item: Diagnosis, where: Invocation, *, plain: bool) -> str:
    plan = item.plan
    lines = wrap(_headline(plan), "")
    lines += wrap(f"{item.advice.value}: {item.because}", "")
    lines += ["", *_tree(item.chain, plain=plain)]
    lines += _section("Findings", [f"{one.id}: {one.summary}" for one in item.findings])
    lines += _section(
        "Finalizers",
        [
            f"{one.name} on {_short(one.ref)}, of {one.owner}: {one.state.value}, {one.reason};"
            f" removed by hand, it leaves behind: {one.leaves_behind}"
            for one in item.finalizers
        ],
    )
    lines += _section(
        "Guards that do not pass", [f"{one.guard}: {one.reason}" for one in plan.refusals]
    )
    lines += _section("A release would leave", item.leftovers)
    lines += _section("Events", item.events)
    lines += _section("Could not be looked for", item.blind)
    steps = next_steps(item, where)
    if steps:
        lines += ["", "Next steps"]
        for step in steps:
            # A command stays in one piece, so that it can be pasted.
            lines += wrap(step, "  ", after="  # ") if step.startswith("#") else [f"  {step}"]
    return "".join(f"{safe(line)}\n" for line in lines)


def next_steps(item: Diagnosis, where: Invocation) -> list[str]:
    """What to do, as commands that work when pasted, the least destructive first."""
    plan, steps = item.plan, list(item.steps)
    if plan.state is None:
        return steps
    if plan.silent_nodes:
        vouched = [word for node in plan.silent_nodes for word in ("--node-powered-off", node)]
        steps.append("# only once it is known to have no power:")
        steps.append(where.unstick(plan.ref, *vouched))
    elif not plan.refusals:
        steps.append(where.unstick(plan.ref, "--dry-run=server"))
        steps.append(where.unstick(plan.ref))
    elif {guard.guard for guard in plan.refusals} == {"not-system"}:
        steps.append("# this namespace is Harvester's own; only if you know what this VM is for:")
        steps.append(where.unstick(plan.ref, "--override", "not-system"))
    elif item.advice is Advice.REPAIR:
        steps.append("# then, if it does not go by itself:")
        steps.append(where.unstick(plan.ref))
    return steps or [where.unstick(plan.ref, "--dry-run=client")]


def _section(title: str, texts: Sequence[str]) -> list[str]:
    if not texts:
        return []
    return ["", title, *(line for text in texts for line in wrap(safe(text), "  "))]


def _tree(link: Link, *, plain: bool, width: int = WIDTH) -> list[str]:
    mark = "  <== here" if link.blocking else ""
    lines = wrap(f"{safe(link.label)}: {safe(link.state)}{mark}", "", width)
    tee, corner, bar = ("|- ", "`- ", "|  ") if plain else ("├─ ", "└─ ", "│  ")
    for number, child in enumerate(link.links, start=1):
        last = number == len(link.links)
        head, *rest = _tree(child, plain=plain, width=width - len(tee))
        lines.append(f"{corner if last else tee}{head}")
        lines += [f"{'   ' if last else bar}{line}" for line in rest]
    return lines


def mermaid(items: Sequence[Diagnosis]) -> str:
    """The chains as a flow chart for a ticket; the blocking links are red."""
    lines = ["flowchart TD"]
    blocking: list[str] = []

    def draw(link: Link, name: str) -> None:
        label = safe(f"{link.label}: {link.state}").replace('"', "#quot;")
        lines.append(f'  {name}["{label}"]')
        if link.blocking:
            blocking.append(name)
        for number, child in enumerate(link.links):
            draw(child, f"{name}_{number}")
            lines.append(f"  {name} --> {name}_{number}")

    for number, item in enumerate(items):
        draw(item.chain, f"t{number}")
    if blocking:
        lines.append("  classDef blocking stroke:#c00,stroke-width:3px")
        lines.append(f"  class {','.join(blocking)} blocking")
    return "\n".join([*lines, ""])


def catalogue(entries: Sequence[Finalizer], *, wide: bool, headers: bool = True) -> str:
    """The table of finalizers."""
    names = ["NAME", "ON"]
    rows = [[entry.name, _kinds(entry)] for entry in entries]
    if wide:
        names += ["OWNER", "VERSIONS", "RELEASED WHEN", "LEAVES BEHIND"]
        rows = [
            [*row, entry.owner, entry.versions, entry.released_when, entry.leaves_behind]
            for row, entry in zip(rows, entries, strict=True)
        ]
    return table(names if headers else [], rows)


def carried(items: Sequence[Carried], *, wide: bool, headers: bool = True) -> str:
    """The finalizers that objects carry; empty text when none does."""
    if not items:
        return ""
    names = ["NAME", "ON", "OBJECTS", "OWNER"]
    rows = [
        [
            item.name,
            "VM" if item.kind is VM else "VMI",
            str(item.objects),
            item.entry.owner if item.entry else "<not in the catalogue>",
        ]
        for item in items
    ]
    if wide:
        names += ["LEAVES BEHIND"]
        rows = [
            [*row, item.entry.leaves_behind if item.entry else "<unknown>"]
            for row, item in zip(rows, items, strict=True)
        ]
    return table(names if headers else [], rows)


def entry(item: Finalizer) -> str:
    """One finalizer in full."""
    fields = (
        ("On", ", ".join(kind.kind for kind in item.kinds)),
        ("Owner", f"{item.owner} ({item.workload})"),
        ("Versions", item.versions),
        ("Released", f"when {item.released_when}"),
        ("Removed by hand, it leaves behind", item.leaves_behind),
        ("Source", item.source),
    )
    lines = [item.name]
    for title, text in fields:
        lines += wrap(f"{title}: {text}", "  ")
    return "".join(f"{line}\n" for line in lines)


def _kinds(entry: Finalizer) -> str:
    return ", ".join("VM" if kind is VM else "VMI" for kind in entry.kinds)


def missing(items: Sequence[Missing]) -> str:
    """What could not be read, each reason once, with what to do about it."""
    where: dict[tuple[str, str, str], list[str | None]] = {}
    for item in items:
        where.setdefault((item.reason, item.message, item.resource), []).append(item.namespace)
    alike: dict[tuple[str, str, tuple[str | None, ...]], list[str]] = {}
    for (reason, message, resource), namespaces in where.items():
        place = tuple(dict.fromkeys(namespaces))
        alike.setdefault((reason, message, place), []).append(resource)
    lines = [
        f"could not read {_and(resources)}{_places(place)}: {reason}: {message}"
        for (reason, message, place), resources in alike.items()
    ]
    if any(item.reason == "Forbidden" and item.namespace is None for item in items):
        lines.append("name a namespace that you may read: -n NAMESPACE")
    wrapped = (piece for line in lines for piece in wrap(safe(line), ""))
    return "".join(f"{line}\n" for line in wrapped)


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


def preview(plans: Sequence[Plan], digest: str, where: Invocation) -> str:
    """Everything that the operator agrees to: where, what, in which order, exactly."""
    parts = [where_it_is(where)]
    if len(plans) > IN_FULL:
        parts.append(_plans(plans))
    else:
        parts += [_refusal(plan, where) if plan.refusals else _plan(plan) for plan in plans]
    return "\n".join([*parts, f"Digest {digest}\n"])


def _plans(plans: Sequence[Plan]) -> str:
    """Many plans: a row each, and how many there are of either kind."""
    rows = [
        [
            plan.ref.namespace,
            plan.ref.name,
            plan.state.value if plan.state else "<none>",
            plan.node or "<unknown>",
            _in_short(plan),
        ]
        for plan in plans
    ]
    refused = sum(bool(plan.refusals) for plan in plans)
    lines = [f"{len(plans) - refused} to release, {refused} refused\n"]
    nodes = sorted({node for plan in plans for node in plan.powered_off})
    lines += [f"by your word alone: node {safe(node)} has no power\n" for node in nodes]
    behind = sum(bool(plan.leaves_behind) for plan in plans if not plan.refusals)
    if behind:
        lines.append(f"{behind} of them leave work behind; --dry-run=client names it\n")
    return table(["NAMESPACE", "NAME", "STATE", "NODE", "PLAN"], rows) + "\n" + "".join(lines)


def _in_short(plan: Plan) -> str:
    if plan.refusals:
        return f"refused: {', '.join(guard.guard for guard in plan.refusals)}"
    acts = ("pod" if step.action is Action.DELETE_POD else _short(step.ref) for step in plan.steps)
    return ", ".join(acts)


def _short(ref: Ref) -> str:
    return "VM" if ref.kind is VM else "VMI"


def run(done: Run, where: Invocation) -> str:
    """What became of every target."""
    parts = [_outcome(outcome, where) for outcome in done.outcomes]
    if any(outcome.result is Result.PLANNED for outcome in done.outcomes):
        parts = [where_it_is(where), *parts, f"Digest {done.digest}\n"]
    elif len(parts) > 1:
        parts.append(_summary(done))
    return "\n".join(parts)


def _summary(done: Run) -> str:
    counts = Counter(outcome.result.value for outcome in done.outcomes)
    if done.failures:
        counts["error"] = len(done.failures)
    total = len(done.outcomes) + len(done.failures)
    return f"{total} targets: {', '.join(f'{n} {result}' for result, n in counts.items())}\n"


def names(done: Run) -> str:
    """The targets that were released, or would be."""
    wanted = (Result.GONE, Result.FREED, Result.PLANNED)
    released = [outcome.plan.ref for outcome in done.outcomes if outcome.result in wanted]
    return "".join(f"{ref.kind.full_name}/{ref.name}\n" for ref in released)


def private(done: Run, where: Invocation) -> str:
    """A warning where a backup holds secrets of a guest, once for the whole run."""
    held = [outcome.backup for outcome in done.outcomes if outcome.private and outcome.backup]
    if not held:
        return ""
    # The path may be long; the command stays in one piece, so that it can be pasted.
    return (
        "Warning: the backup holds cloud-init data, which can be secret; keep it to yourself.\n"
        f"To share it: {safe(where.restore(held[0], '--redact'))}\n"
    )


def where_it_is(where: Invocation) -> str:
    return f"Context {safe(where.context) or '<none>'}\nServer  {safe(where.server)}\n"


def _plan(plan: Plan) -> str:
    lines = wrap(_headline(plan), "")
    for number, step in enumerate(plan.steps, start=1):
        lines += _step(number, step, plan)
    for node in plan.powered_off:
        lines += wrap(f"by your word alone: node {node} has no power", "  ")
    for item in plan.leaves_behind:
        lines += wrap(f"leaves behind: {item.leaves_behind} ({item.reason})", "  ")
    overridden = [guard for guard in plan.guards if guard.reason.startswith("overridden")]
    for guard in overridden:
        lines += wrap(f"{guard.guard} {guard.reason}", "  ")
    return "".join(f"{safe(line)}\n" for line in lines)


def _headline(plan: Plan) -> str:
    state = plan.state.value if plan.state else "not stuck"
    return f"{plan.ref}: {state}{f', on node {plan.node}' if plan.node else ''}"


def _step(number: int, step: Step, plan: Plan) -> list[str]:
    body = json.dumps(step.body, separators=(",", ":"))
    if step.action is Action.DELETE_POD:
        return [f"  {number}. delete pod {step.ref.name} without waiting for its node",
                f"     {body}"]  # fmt: skip
    states = {(item.ref, item.name): item for item in plan.judgments}
    lines = [f"  {number}. patch {step.ref}"]
    # Later steps are judged as things will be when the earlier ones have succeeded.
    then = "then " if number > 1 else ""
    for name in step.removes:
        item = states[step.ref, name]
        lines += wrap(f"removes {name}: {then}{item.state.value}, {item.reason}", "     ")
    lines += [f"     keeps   {name}" for name in step.keeps]
    return [*lines, f"     {body}"]


def _refusal(plan: Plan, where: Invocation) -> str:
    lines = [f"{plan.ref}: refused, nothing was changed"]
    for guard in plan.refusals:
        lines += wrap(f"{guard.guard}: {guard.reason}", "  ")
    lines += _next(plan, where)
    return "".join(f"{safe(line)}\n" for line in lines)


def _next(plan: Plan, where: Invocation) -> list[str]:
    if not plan.silent_nodes:
        return []
    vouched = [word for node in plan.silent_nodes for word in ("--node-powered-off", node)]
    return [
        f"  Only once you know that {' and '.join(plan.silent_nodes)} has no power:",
        f"    {where.unstick(plan.ref, *vouched)}",
    ]


_SAYS = {
    Result.GONE: "released, it is gone",
    Result.FREED: "freed",
    Result.STILL_THERE: "STILL THERE, although it was changed",
    Result.UNKNOWN: "UNKNOWN: it was changed, and could not be looked at afterwards",
    Result.DENIED: "denied by the API server",
    Result.CONFLICT: "conflict: it changed at the last moment",
}


def _outcome(outcome: Outcome, where: Invocation) -> str:
    plan = outcome.plan
    if outcome.result is Result.PLANNED:
        return _plan(plan)
    lines = [f"{plan.ref}: {_SAYS.get(outcome.result, 'refused')}"]
    if not outcome.changed and outcome.result not in (Result.GONE, Result.FREED):
        lines[0] += ", nothing was changed"
    for report in outcome.reports:
        act = "delete" if report.step.action is Action.DELETE_POD else "patch"
        removed = f" (removed {', '.join(report.step.removes)})" if report.step.removes else ""
        lines += wrap(f"{act} {report.step.ref}: {report.status}{removed}", "  ")
    told = {report.status for report in outcome.reports}
    if outcome.reason and outcome.reason not in told:
        lines += wrap(outcome.reason, "  ")
    for guard in outcome.refusals:
        lines += wrap(f"{guard.guard}: {guard.reason}", "  ")
    if outcome.refusals and not outcome.changed:
        lines += _next(plan, where)
    for leftover in outcome.leftovers:
        lines += wrap(f"left behind: {leftover}", "  ")
    if outcome.backup:
        lines.append(f"  saved before: {outcome.backup}")
    return "".join(f"{safe(line)}\n" for line in lines)


def wrap(text: str, indent: str, width: int = WIDTH, after: str | None = None) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=f"{indent}  " if after is None else after,
        break_long_words=False,
        break_on_hyphens=False,
    )
