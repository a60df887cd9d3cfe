"""The pages of `docs` that are made from the program: tables of what it knows, and its commands."""

from __future__ import annotations

import inspect
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import click
import yaml

from kubectl_harvester_stuck.checks import CHECKS
from kubectl_harvester_stuck.cli import main
from kubectl_harvester_stuck.cli.options import PROGRAM, ConnectionOption, connection_options
from kubectl_harvester_stuck.diagnosis.findings import FINDINGS
from kubectl_harvester_stuck.errors import ExitStatus
from kubectl_harvester_stuck.harvester.denial_catalogue import CATALOGUE as CATALOGUE_OF_DENIALS
from kubectl_harvester_stuck.harvester.denial_catalogue import FIRST, NEWEST, Denial
from kubectl_harvester_stuck.harvester.finalizer_catalogue import CATALOGUE
from kubectl_harvester_stuck.release.guards import GUARDS
from tests.behaviour.test_rights import DEPLOY, OPERATOR, Right, Stage, grant
from tests.support.simulator import Simulator
from tests.support.world import Run, World, statuses_of

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
STATUSES = "../../README.md#exit-statuses"
ISSUES = (
    "`H#1`, `K#1`, `L#1` and `k8s#1` are issues of Harvester, KubeVirt, Longhorn and Kubernetes."
)
NOTE = "This page is generated from the program; do not edit it."


def finalizers_page() -> str:
    """The catalogue as a page."""
    lines = [
        "# Finalizers",
        "",
        "Every finalizer that Harvester, KubeVirt and Kubernetes put on a VirtualMachine or a",
        f"VirtualMachineInstance. {NOTE}",
        "",
        "| finalizer | on | controller | versions | removed when | removal by hand leaves |",
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
        "Nothing is changed unless every guard passes. A guard that cannot read what it needs",
        f"blocks like one that refuses. {NOTE}",
        "",
        "| guard | passes when | with `--override` |",
        "|---|---|---|",
    ]
    lines += [
        f"| `{guard.name}` | {guard.summary} | {'yes' if guard.overridable else 'no'} |"
        for guard in GUARDS
    ]
    see = "`guest-stopped` is explained in [where the guest may run](places.md)."
    return "\n".join([*lines, "", see, ""])


def findings_page() -> str:
    """The situations that `diagnose` knows, as a page."""
    lines = [
        "# Findings",
        "",
        f"Every situation that `diagnose` looks for. {NOTE}",
        ISSUES,
        "",
        "| finding | what it is |",
        "|---|---|",
    ]
    lines += [f"| `{situation.id}` | {situation.summary} |" for situation in FINDINGS]
    return "\n".join([*lines, ""])


def checks_page() -> str:
    """The checks as a page."""
    lines = [
        "# Checks",
        "",
        "Everything that `check` looks at. A check that cannot read what it needs is `unknown`,",
        f"never `ok`. {NOTE}",
        ISSUES,
        "",
        "| theme | check | passes when |",
        "|---|---|---|",
    ]
    lines += [f"| {check.theme} | `{check.id}` | {check.summary} |" for check in CHECKS]
    return "\n".join([*lines, ""])


def webhooks_page() -> str:
    """What the admission webhooks say, as a page."""
    major, first = FIRST
    lines = [
        "# Webhook messages",
        "",
        "The messages of admission webhooks that `diagnose`, `unstick` and `restore` recognize,",
        "with what to do about each. They come from Harvester, its load balancer, its add-on",
        f"pcidevices-controller, and KubeVirt, in Harvester {major}.{first} to {NEWEST}. A message",
        "that does not belong to the cluster's version is quoted without a cause. `{}` stands for",
        "a name, `{*}` for any words.",
        "",
        "*running* means that a test gets the message from the webhook of that version",
        "(tests/conformance); *source* means that it was read in the source at that tag.",
    ]
    for repository in dict.fromkeys(denial.repository for denial in CATALOGUE_OF_DENIALS):
        lines += ["", f"## {repository}", "", *_DENIALS_HEAD]
        lines += [_denial(one) for one in CATALOGUE_OF_DENIALS if one.repository == repository]
    return "\n".join([*lines, "", NOTE, ""])


_DENIALS_HEAD = (
    "| message | Harvester | read in | how | what to do |",
    "|---|---|---|---|---|",
)


def _denial(denial: Denial) -> str:
    heard = f"running {', '.join(denial.heard)}" if denial.heard else "source"
    read = f"{denial.path} at {denial.tag}"
    cells = (f"`{denial.text}`", _releases(denial), read, heard, denial.cure)
    return f"| {' | '.join(cells)} |"


def _releases(denial: Denial) -> str:
    since = "{}.{}".format(*denial.since)
    if denial.until is None:
        is_ahead = denial.since > tuple(map(int, NEWEST.split(".")[:2]))
        return f"after {NEWEST}" if is_ahead else f"{since} and later"
    until = "{}.{}".format(*denial.until)
    return since if since == until else f"{since} to {until}"


def commands(
    group: click.Group = main.cli, *path: str
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that is not hidden, with the words that it is called by."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        elif not command.hidden:
            yield (*path, name), command


def command_page(path: tuple[str, ...], command: click.Command) -> str:
    """What a command takes and how it ends."""
    name = " ".join((PROGRAM, *path))
    ctx = command.make_context(name, [], resilient_parsing=True)
    words, _, examples = inspect.cleandoc(command.help or "").partition("\b\nExamples:\n")
    options = [param for param in command.params if isinstance(param, click.Option)]
    own = [option for option in options if not isinstance(option, ConnectionOption)]
    lines = [f"# {name}", "", words.strip(), "", "```text"]
    lines += [" ".join((name, *command.collect_usage_pieces(ctx))), "```"]
    if examples:
        lines += ["", "## Examples", "", "```console"]
        lines += [f"$ {line.strip()}" for line in examples.strip().splitlines()]
        lines += ["```"]
    if own:
        lines += ["", "## Options", "", *_table(own, ctx)]
    if own != options:
        lines += ["", "The [kubectl options](connection.md) can be used as well."]
    if "overrides" in ctx.params:
        lines += ["", "`--override` takes the names of these [guards](../guards.md)."]
    lines += ["", "## Exit statuses", "", "| | name | when |", "|---|---|---|"]
    said = _words_of_statuses()
    lines += [f"| {status:d} | {status.name} | {said[status]} |" for status in statuses_of(command)]
    lines += [
        "",
        "On Windows, kubectl reports [every status but 0 as 1](../../README.md#exit-statuses).",
    ]
    return "\n".join([*lines, "", NOTE, ""])


def connection_page() -> str:
    """The options that say which cluster, as whom, and in which namespace."""
    ctx = click.Context(main.cli)
    return "\n".join(
        [
            "# kubectl options",
            "",
            "Which cluster, as which user, and in which namespace. Every command that contacts a",
            "cluster takes them, before or after its name. Without them the current context of",
            "your kubeconfig is used.",
            "",
            *_table(connection_options().values(), ctx),
            "",
            NOTE,
            "",
        ]
    )


def _table(options: Iterable[click.Option], ctx: click.Context) -> Iterator[str]:
    yield "| option | default | what it does |"
    yield "|---|---|---|"
    for option in options:
        names, words = option.get_help_record(ctx) or ("", "")
        words = re.sub(r" *\[(?:default: |x>=).*\]$", "", words)
        default = option.get_default(ctx, call=False)
        # What is not set is None, or a mark of click's own.
        is_said = isinstance(default, str | int) and not isinstance(default, bool)
        cells = (f"`{names}`", f"`{default}`" if is_said else "", words)
        # A bar ends the cell, also inside code.
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _words_of_statuses() -> dict[ExitStatus, str]:
    rows = re.findall(r"^\| (\d) \| [A-Z]+ \| (.+) \|$", (ROOT / "README.md").read_text(), re.M)
    return {ExitStatus(int(number)): words for number, words in rows}


def rules() -> dict[str, list[tuple[str, Right]]]:
    """By the comment that says who asks for it and why: the roles and what they hold for it."""
    found: dict[str, list[tuple[str, Right]]] = {}
    for text in (DEPLOY / "rbac.yaml").read_text().split("\n---\n")[1:]:
        role = yaml.safe_load(text)
        if role["metadata"]["name"] == "harvester-stuck-infrastructure":
            continue  # what an operator has in all namespaces, for one who has only one
        said = " ".join(re.findall(r"^# (.+)$", text, re.M)).partition(". ")[0]
        comments = []
        for comment in re.findall(r"^  (?:# (.+)|- apiGroups.*)$", text, re.M):
            said = comment or said
            comments += [] if comment else [said]
        for comment, rule in zip(comments, role["rules"], strict=True):
            found.setdefault(comment, []).extend(
                (role["metadata"]["name"].rpartition("-")[2],
                 Right(role["metadata"].get("namespace", ""), group, resource, verb,
                       tuple(rule.get("resourceNames", ()))))
                for group in rule["apiGroups"]
                for resource in rule["resources"]
                for verb in rule["verbs"]
            )  # fmt: skip
    return found


def rights_table() -> str:
    """What `deploy/rbac.yaml` holds, who has it, and what the commands say to who has it not."""
    lines = ["| commands | what for | permissions | without them |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as scratch, Simulator() as api:
        # What is unknown within a grace period would not be, were the page made slowly.
        api.clock.stop()
        missed = _missed(Stage(World(api, Path(scratch), "team", "dead", "live")))
        for said, held in rules().items():
            asked, _, why = said.partition(": ")
            looking = [right for role, right in held if role != "operator"]
            releasing = [right for _, right in held if right not in looking]
            rights = [_by_verb(looking), f"**operator** {_by_verb(releasing)}" if releasing else ""]
            cells = (asked, why, "; ".join(filter(None, rights)),
                     missed({right for _, right in held}))  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _by_verb(rights: Iterable[Right]) -> str:
    resources: dict[str, list[str]] = {}
    for right in rights:
        resources.setdefault(f"{right.resource}.{right.group}".rstrip("."), []).append(right.verb)
    verbs: dict[str, list[str]] = {}
    for name, several in resources.items():
        verbs.setdefault(", ".join(several), []).append(f"`{name}`")
    return "; ".join(f"{verb} {', '.join(names)}" for verb, names in verbs.items())


def _missed(stage: Stage) -> Callable[[set[Right]], str]:
    """What the commands say to a user who has all rights of an operator but these."""
    runs: tuple[tuple[str, Callable[[str], Run]], ...] = (
        ("list", lambda user: stage.run(user, "list")),
        ("diagnose", stage.diagnosed),
        ("unstick", stage.planned),
        ("unstick", stage.released),
        ("restore", stage.remade),
        ("check", stage.checked),
    )
    whole = grant(stage.world, OPERATOR)
    usual = [stage.told(run(whole)) for _, run in runs]

    def missed(taken: set[Right]) -> str:
        user = grant(stage.world, [right for right in OPERATOR if right not in taken])
        told: dict[str, set[str]] = {}
        for (command, run), before in zip(runs, usual, strict=True):
            told.setdefault(command, set()).update(stage.told(run(user)) - before)
        words = ((command, _words(lines)) for command, lines in told.items())
        return "; ".join(f"{command}: {said}" for command, said in words if said)

    return missed


def _words(told: set[str]) -> str:
    """What `Stage.told` gives, as far as a cell has room for it."""
    unknown = sorted(f"`{line.partition(' ')[0]}`" for line in told if line.endswith(" unknown"))
    unseen = sorted({f"`{line.split()[1].rstrip(':')}`" for line in told if "notLooked" in line})
    found = [f"{', '.join(unknown)} unknown"] if unknown else []
    found += [f"no finding {', '.join(unseen)}"] if unseen else []
    found += ["`permitted` refuses"] if "permitted refuse" in told else []
    found += ["leftovers not checked"] if any("leftovers" in line for line in told) else []
    found += sorted(line for line in told if line.startswith("not saved"))
    found += ["no Event"] if "events: 0" in told else []
    if not found and told & {"status ERROR", "status INCOMPLETE"}:
        found = ["an error" if "status ERROR" in told else "incomplete"]
    return ", ".join(found)


def rbac_page() -> str:
    """The page on rights with its table as it is now."""
    text = (DOCS / "rbac.md").read_text()
    start, end = "<!-- rights -->\n", "\n<!-- end of rights -->"
    return f"{text.partition(start)[0]}{start}\n{rights_table()}\n{end}{text.partition(end)[2]}"


def index_page() -> str:
    """All pages that there are, each with its first sentence."""
    lines = ["# Documentation", "", "When a node is down, start with the [runbook](runbook.md)."]
    for title, folder in (("Pages", DOCS), ("Commands", DOCS / "commands")):
        lines += ["", f"## {title}", ""]
        for page in sorted(folder.glob("*.md")):
            if page != DOCS / "README.md":
                heading, _, text = page.read_text().removeprefix("# ").partition("\n\n")
                first = " ".join(re.split(r"(?<=[.?])\s", text, maxsplit=1)[0].split())
                lines.append(f"- [{heading}]({page.relative_to(DOCS)}): {first}")
    return "\n".join([*lines, "", NOTE, ""])


PAGES: dict[str, Callable[[], str]] = {
    "checks.md": checks_page,
    "findings.md": findings_page,
    "finalizers.md": finalizers_page,
    "guards.md": guards_page,
    "rbac.md": rbac_page,
    "webhooks.md": webhooks_page,
    "commands/connection.md": connection_page,
    **{f"commands/{'-'.join(path)}.md": partial(command_page, path, command)
       for path, command in commands()},
    "README.md": index_page,
}  # fmt: skip
"""By their file in `docs`; the index is made last, of the others."""
