"""Text of others moves no cursor, turns no line around and begins none: on a terminal or in a file.

What a cluster, a file, a kubeconfig or a webhook says goes through the commands in every format.
"""

from __future__ import annotations

import itertools
import json
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kubectl_harvester_stuck.errors import ExitStatus
from kubectl_harvester_stuck.render import document, layout
from tests.support import builders, fastyaml, readycluster
from tests.support.loopback import Handler, running
from tests.support.simulator import Simulator, faults
from tests.support.world import QUICK, World

MARK = "MARK"
"""Stands behind each odd text; at the start of a line it came through a line break."""

MOVING = "".join(map(chr, (*range(0x20), *range(0x7F, 0xA0))))
TURNING = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
OTHERS = "\u00ad\u200b\u200d\u2028\u2029\ufeff\ue000\U000e0041\ud800"
EVERYTHING = f"a{MOVING}{MARK}{TURNING}{MARK}{OTHERS}{MARK}"

TEXTS = st.lists(st.sampled_from([*MOVING, *TURNING, *OTHERS, "b", " "]), min_size=1).map(
    lambda found: f"a{''.join(found)}{MARK}"
)
VALUES = st.recursive(
    st.text(st.characters() | st.sampled_from(EVERYTHING)),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)

_numbers = itertools.count(1)


def is_harmless(text: str) -> bool:
    """Whether it holds only line breaks of our own, and what has a shape."""
    return not re.search(f"^{MARK}", text, re.M) and all(
        one == "\n" or one.isprintable() or unicodedata.category(one) == "Zs" for one in text
    )


@given(st.text() | TEXTS)
@example(EVERYTHING)
def test_a_line_for_people_is_one_line_of_what_has_a_shape(text: str) -> None:
    shown = layout.safe(text)
    assert "\n" not in shown
    assert is_harmless(shown)
    assert layout.safe(shown) == shown
    if text.isprintable():
        assert shown == text


@given(VALUES)
@example({EVERYTHING: [EVERYTHING, "größe 大"]})
def test_a_document_is_harmless_and_loses_nothing(value: Any) -> None:
    content = {"value": value}
    texts = [document.dump(content, "json"), document.line(content)]
    for text in texts:
        assert json.loads(text) == content
    texts.append(document.dump(content, "yaml"))
    assert yaml.safe_load(texts[-1]) == content
    assert all(map(is_harmless, texts))
    assert texts[1].count("\n") == 1


def test_a_document_of_words_is_readable() -> None:
    for output in ("json", "yaml"):
        assert "größe 大" in document.dump({"value": "größe 大"}, output)


@pytest.fixture(scope="module")
def server() -> Iterator[Simulator]:
    """A server of its own, since its objects are odd."""
    with Simulator() as api:
        yield api


def furnish(world: World, server: Simulator, text: str) -> None:
    """A stuck VM and all that belongs to it, with the text wherever an object has free text."""
    condition = {"type": "Ready", "status": "False", "reason": text, "message": text}
    annotations = {
        "harvesterhci.io/volumeClaimTemplates": text,
        "harvesterhci.io/mac-address": text,
        "harvesterhci.io/removedPersistentVolumeClaims": text,
    }
    world.dead_node()
    machine = builders.stored(
        builders.vm(
            world.namespace,
            "web",
            (builders.VM_FINALIZER, text),
            annotations=annotations,
            spec=builders.with_disks(text, networks=[{"multus": {"networkName": text}}]),
            status={"printableStatus": text, "conditions": [condition]},
        ),
        deleted="2026-01-01T00:00:00Z",
    )
    server.seed(machine)
    instance = builders.stored(
        builders.vmi(
            world.namespace,
            "web",
            text,
            (text,),
            owner=machine,
            phase=text,
            status={"conditions": [condition], "activePods": {text: text}},
        ),
        deleted="2026-01-01T00:00:00Z",
    )
    server.seed(instance)
    involved = {"kind": "VirtualMachine", "name": text, "uid": machine["metadata"]["uid"]}
    event = {"apiVersion": "v1", "kind": "Event", "involvedObject": involved, "type": "Warning",
             "metadata": {"namespace": world.namespace, "name": "event"}, "reason": text,
             "message": text, "lastTimestamp": "2026-01-01T00:00:00Z"}  # fmt: skip
    server.seed(builders.stored(event))
    webhook = readycluster.webhook(name=f"webhook-{world.namespace}")
    webhook["webhooks"][0] |= {
        "name": text,
        "clientConfig": {"service": {"namespace": text, "name": text}},
    }
    server.seed(builders.stored(webhook))
    # The disks cannot be read, and that is told with the server's words.
    server.inject(
        faults.status(403, "Forbidden", text),
        path=rf"/{world.namespace}/persistentvolumeclaims",
        times=None,
    )


COMMANDS = (
    *(("list", "-o", output) for output in ("table", "wide", "json", "yaml", "name", "prometheus")),
    *(
        ("diagnose", "-o", output)
        for output in ("table", "json", "yaml", "name", "markdown", "mermaid")
    ),
    *(("check", "-o", output) for output in ("table", "wide", "json", "yaml")),
    *(
        ("unstick", "vm", "web", "--dry-run=server", "-o", output)
        for output in ("table", "json", "yaml")
    ),
    ("unstick", "vm", "web", *QUICK),
    ("version", "-v", "9"),
)


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(TEXTS)
@example(EVERYTHING)
def test_what_a_cluster_says_is_shown_safely(
    server: Simulator, tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    number = next(_numbers)
    world = World(
        server, tmp_path_factory.mktemp("odd"), f"odd-{number}", f"dead-{number}", f"live-{number}"
    )
    furnish(world, server, text)
    own = ("--finalizer", text, "--leave-behind", text, "--node-powered-off", text)
    for words in (*COMMANDS, ("unstick", "vm", "web", *QUICK, *own)):
        run = world.run(*words, stdin="no\n")
        assert is_harmless(run.out + run.err), (words, run)
    for output, parse in (("json", json.loads), ("yaml", yaml.safe_load)):
        items = parse(world.run("list", "-o", output).out)["items"]
        assert [item["finalizers"] for item in items] == [[builders.VM_FINALIZER, text], [text]]
    server.wipe(world.namespace)
    server.forget()


@given(TEXTS.filter(lambda text: "\ud800" not in text and "\0" not in text and "/" not in text))
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@example(EVERYTHING.replace("\0", "").replace("\ud800", ""))
def test_what_files_and_their_names_say_is_shown_safely(
    tmp_path_factory: pytest.TempPathFactory, server: Simulator, text: str
) -> None:
    directory = tmp_path_factory.mktemp("odd")
    world = World(server, directory, "nowhere", "dead", "live")
    file = directory / f"{text}.json"
    odd = builders.stored(builders.vm("shop", "web", (text,)), deleted="2026-01-01T00:00:00Z")
    file.write_text(json.dumps({"kind": "VirtualMachineList", "items": [odd]}))
    backup = world.state.parent / "backup.json"
    backup.parent.mkdir()
    saved = builders.vm("shop", "web", (text,), annotations={text: text})
    release = {"schema": "harvester-stuck/backup/v1", "takenAt": text, "server": text,
               "context": text, "target": {}, "plan": []}  # fmt: skip
    backup.write_text(json.dumps({"items": [builders.stored(saved)], "release": release}))
    world.state.mkdir()
    line = {"schema": "harvester-stuck/journal/v1", "phase": "before", "id": text, "run": text,
            "time": text, "user": text, "context": text, "backup": text, "overrides": [text],
            "object": {"kind": text, "namespace": text, "name": text}, "action": "patch",
            "before": {"finalizers": [text]}, "patch": {"metadata": {}}}  # fmt: skip
    (world.state / "journal.jsonl").write_text(json.dumps(line) + "\n")
    content = server.kubeconfig(namespace="shop", context=text)
    kubeconfig = directory / f"kubeconfig-{text}"
    kubeconfig.write_text(fastyaml.dump(content))
    broken = directory / f"broken-{text}"
    broken.write_text("a: b: c")
    environ = world.environ(KUBECONFIG=str(kubeconfig))
    for words in (
        *(("list", "-f", str(file), "-o", output) for output in ("table", "wide", "json", "yaml")),
        *(("diagnose", "-f", str(file), "-o", output) for output in ("table", "json", "yaml")),
        *(("finalizers", "-f", str(file), "-o", output) for output in ("wide", "name", "yaml")),
        ("finalizers", text, "-f", str(file)),
        ("list", "-f", str(directory / f"missing-{text}")),
        *(("journal", "-o", output) for output in ("table", "wide", "json", "yaml", "name")),
        *(("restore", str(backup), "--dry-run=client", "-o", out) for out in ("table", "yaml")),
        ("restore", str(backup), "--redact", "-o", "yaml"),
        ("restore", str(backup)),
        ("restore", str(broken)),
        ("unstick", "vm", "web", *QUICK),
        ("list", "--kubeconfig", str(broken)),
        ("list", "--context", f"no-{text}"),
        ("list", "--user", text),
    ):
        run = world.run(*words, stdin="no\n", environ=environ)
        assert "Traceback" not in run.err
        assert is_harmless(run.out + run.err), (words, run)


def test_what_a_server_says_of_its_answer_is_shown_safely(
    server: Simulator, tmp_path: Path
) -> None:
    def refuse(handler: Handler) -> None:
        handler.send_response(403, f"no\x1b[2J{MOVING[0x21:]}")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    world = World(server, tmp_path, "nowhere", "dead", "live")
    with running() as http:
        http.respond = refuse
        run = world.run("list", "-v", "9", "--server", http.url)
    assert run.status is ExitStatus.ERROR
    assert re.search(r"^GET http://.* 403 no\^\[\[2J", run.err, re.M)
    assert is_harmless(run.err)
