"""The words that name targets: kind, namespace and name, and what is none of these."""

from __future__ import annotations

import click
import pytest

from kubectl_harvester_stuck.cli import again, targets
from kubectl_harvester_stuck.cli.main import cli
from kubectl_harvester_stuck.k8s.kinds import TARGET_KINDS, VM, VMI, Kind


def parse(*words: str) -> targets.Targets:
    """What the words behind `unstick` name."""
    context = click.Context(cli, info_name="kubectl harvester-stuck")
    context.meta[again.ARGUMENTS] = ("unstick", *words)
    return targets.parse(context, words)


@pytest.mark.parametrize(
    ("words", "kind", "names"),
    [
        ("", None, []),
        ("web-1", VM, [(None, "web-1")]),
        ("web-1 web-2", VM, [(None, "web-1"), (None, "web-2")]),
        ("shop/web-1 db-1", VM, [("shop", "web-1"), (None, "db-1")]),
        ("vm", VM, []),
        ("vmi web-1", VMI, [(None, "web-1")]),
        ("vm shop/web-1", VM, [("shop", "web-1")]),
        ("vmis/web-1 vmi/web-2", VMI, [(None, "web-1"), (None, "web-2")]),
        ("vm/shop/web-1", VM, [("shop", "web-1")]),
        ("VirtualMachine.kubevirt.io/web-1", VM, [(None, "web-1")]),
        # The word of a kind is the kind, whatever VMs and namespaces are called.
        ("vm/web", VM, [(None, "web")]),
        ("vm vm", VM, [(None, "vm")]),
        ("vm/vm", VM, [(None, "vm")]),
        ("vm/vm/web", VM, [("vm", "web")]),
        ("shop/vm", VM, [("shop", "vm")]),
        ("vm/pod", VM, [(None, "pod")]),
        ("web.example.com", VM, [(None, "web.example.com")]),
    ],
)
def test_kind_namespace_and_name(
    words: str, kind: Kind | None, names: list[tuple[str | None, str]]
) -> None:
    assert parse(*words.split()) == (kind, tuple(names))


@pytest.mark.parametrize("spelling", TARGET_KINDS)
def test_every_spelling_of_a_kind_is_the_kind(spelling: str) -> None:
    named = (TARGET_KINDS[spelling], ((None, "web"),))
    assert parse(spelling, "web") == parse(f"{spelling}/web") == named


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("vm/", "a name is missing"),
        ("/web-1", "a name is missing"),
        ("vm//web-1", "a name is missing"),
        ("shop/web-1/", "a name is missing"),
        ("vm/shop/web-1/x", "too many slashes"),
        ("shop/vm/web-1", "too many slashes"),
        ("vm vm/web-1", "not both"),
        ("vm/web-1 web-2", "in each word or in none"),
        ("web-1 vm/web-2", "in each word or in none"),
        ("vm/web-1 vmi/web-1", "in each word or in none"),
        ("pod web-1", "neither vm nor vmi; a VM called pod is vm/pod"),
        ("pods/web-1", "neither vm nor vmi"),
        ("web_1", "no name"),
        ("-web", "no name"),
        ("web..1", "no name"),
        ("../web-1", "no name"),
        ("shop/Wéb", "no name"),
        ("w" * 254, "longer than 253"),
    ],
)
def test_what_names_nothing_is_wrong_usage(words: str, message: str) -> None:
    with pytest.raises(click.UsageError, match=message):
        parse(*words.split())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("web-1,web-2", "unstick web-1 web-2"),
        ("vm web-1,web-2, -n shop", "unstick vm web-1 web-2 -n shop"),
        ("web-1,web-2 --token t0ken --token=t0ken", "unstick web-1 web-2"),
        ("shop/Web-1", "unstick shop/web-1"),
    ],
)
def test_the_line_to_type_instead_is_shown(words: str, line: str) -> None:
    names = [word for word in words.split() if word[0] != "-" and word not in ("shop", "t0ken")]
    context = click.Context(cli, info_name="kubectl harvester-stuck")
    context.meta[again.ARGUMENTS] = ("unstick", *words.split())
    with pytest.raises(click.UsageError) as raised:
        targets.parse(context, names)
    assert raised.value.message.splitlines()[1:] == [f"kubectl harvester-stuck {line}"]


@pytest.mark.parametrize("given", ["lab", ""])
def test_a_namespace_that_is_said_twice_has_to_be_the_same(given: str) -> None:
    with pytest.raises(click.UsageError, match="leave -n out"):
        targets.check_namespaces(given, parse("shop/web-1").names)
    targets.check_namespaces("shop", parse("shop/web-1", "web-2").names)
    targets.check_namespaces(None, parse("shop/web-1", "lab/web-2").names)
