"""Documents that are made from the program are current; `python -m tests.test_docs` makes them."""

from __future__ import annotations

from pathlib import Path

from kubectl_harvester_stuck.finalizers import CATALOGUE
from kubectl_harvester_stuck.findings import FINDINGS, id_of
from kubectl_harvester_stuck.guards import GUARDS

DOCS = Path(__file__).parent.parent / "docs"


def finalizers_page() -> str:
    """The catalogue as a page."""
    lines = [
        "# Finalizers",
        "",
        "Every finalizer that Harvester, KubeVirt and Kubernetes put on a VirtualMachine or a",
        "VirtualMachineInstance. This page is made from the program; do not edit it.",
        "",
        "| finalizer | on | owner | versions | released when | removed by hand, it leaves behind |",
        "|---|---|---|---|---|---|",
    ]
    for entry in CATALOGUE:
        kinds = ", ".join("VM" if kind.kind == "VirtualMachine" else "VMI" for kind in entry.kinds)
        cells = (f"`{entry.name}`", kinds, entry.owner, entry.versions, entry.released_when,
                 entry.leaves_behind)  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def guards_page() -> str:
    """The guards as a page."""
    lines = [
        "# Guards",
        "",
        "Every guard has to pass before anything is changed; one that cannot read what it needs",
        "blocks like a refusal. This page is made from the program; do not edit it.",
        "",
        "| guard | passes when | with `--override` |",
        "|---|---|---|",
    ]
    lines += [
        f"| `{guard.name}` | {guard.summary} | {'yes' if guard.overridable else 'no'} |"
        for guard in GUARDS
    ]
    return "\n".join([*lines, ""])


def findings_page() -> str:
    """The situations that `diagnose` knows, as a page."""
    lines = [
        "# Findings",
        "",
        "Every situation that `diagnose` looks for. This page is made from the program; do not",
        "edit it.",
        "",
        "| finding | what it is |",
        "|---|---|",
    ]
    for look in FINDINGS:
        words = " ".join((look.__doc__ or "").split())
        lines.append(f"| `{id_of(look)}` | {words} |")
    return "\n".join([*lines, ""])


PAGES = {"findings.md": findings_page, "finalizers.md": finalizers_page, "guards.md": guards_page}


def test_the_pages_are_current() -> None:
    for name, page in PAGES.items():
        written = (DOCS / name).read_text()
        assert written == page(), f"docs/{name}: run python -m tests.test_docs"


if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())
