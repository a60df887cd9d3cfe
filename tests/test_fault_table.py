"""Every fault against every command: the exit status is foreseen, and nothing else ever holds.

Whatever breaks, a command ends in time and without a traceback, writes one document where one was
asked for, prints nothing that moves a cursor, and says that something is gone only when it is.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from kubectl_harvester_stuck.errors import ExitStatus
from kubectl_harvester_stuck.k8s.kinds import VM
from tests.behaviour.test_check import build
from tests.support import fastyaml
from tests.support.simulator import Simulator, faults
from tests.support.simulator.api import Response
from tests.support.simulator.exchange import Exchange
from tests.support.simulator.faults import Fault
from tests.support.world import QUICK, Run, World

SECONDS = 12.0
"""How long a command may take, whatever breaks."""

MOMENT = 5
"""Answers that say "later": as many as one request puts up with, should it get them all."""

COMMANDS = ("list", "diagnose", "check", "version", "restore", "unstick")

ANY_LIST = r"\?limit=|labelSelector=|/virtualmachines$|/virtualmachineinstances$"

PATCHES = r"\?fieldManager="
"""Patches and creations that are meant: a dry run has another parameter first."""


@dataclass(frozen=True)
class Row:
    """A fault, and the exit status of each of `COMMANDS` under it."""

    name: str
    fault: Callable[[World, Simulator], object]
    statuses: str
    timeout: str = "10s"
    """--request-timeout."""


def everywhere(fault: Fault, times: int | None = None) -> Callable[[World, Simulator], object]:
    """The fault hits every request."""
    return lambda _, server: server.inject(fault, times=times)


def at(path: str, fault: Fault, method: str | None = None, times: int | None = None,
       ) -> Callable[[World, Simulator], object]:  # fmt: skip
    """The fault hits requests of that path."""
    return lambda _, server: server.inject(fault, method=method, path=path, times=times)


def status(code: int, reason: str, after: int | None = None) -> Fault:
    headers = {} if after is None else {"Retry-After": str(after)}
    return faults.status(code, reason, f"the server says {code}", headers)


def changes(fault: Fault) -> Callable[[World, Simulator], object]:
    """The fault hits what would change something, and no dry run or review."""

    def only(exchange: Exchange) -> None:
        asked = exchange.request
        text = f"{asked.path}{asked.query}{asked.body!r}"
        is_change = asked.method != "GET" and "review" not in text and "dryRun" not in text
        (fault if is_change else Exchange.answer)(exchange)

    return everywhere(only)


def repeated(exchange: Exchange) -> None:
    """A proxy sends it twice, and gives the second answer."""
    exchange.handle()
    exchange.respond(exchange.handle_again())


def done_and(fault: Fault) -> Fault:
    """What is asked is done, and then something else is answered."""

    def act(exchange: Exchange) -> None:
        exchange.handle()
        fault(exchange)

    return act


def page(code: int) -> Fault:
    """A page of a gateway."""
    return faults.body(b"<html>no</html>", "text/html", code)


def forbidden(plural: str) -> Callable[[World, Simulator], object]:
    """This user may not read that kind."""
    return at(rf"/{plural}([/?]|$)", status(403, "Forbidden"), "GET")


def redirect(exchange: Exchange) -> None:
    """To another server."""
    there = {"Location": "https://login.example.internal/"}
    exchange.respond(Response(302, b"", "text/html", there))


def warn(exchange: Exchange) -> None:
    """The right answer, and a warning that tries to move the cursor."""
    answer = exchange.handle()
    exchange.respond(
        Response(
            answer.status,
            answer.body,
            answer.content_type,
            {**answer.headers, "Warning": '299 - "deprecated\x1b[2J"'},
        )
    )


def as_text(exchange: Exchange) -> None:
    """The right answer under the wrong content type."""
    answer = exchange.handle()
    exchange.respond(Response(answer.status, answer.body, "text/plain", answer.headers))


def half_of_the_json(exchange: Exchange) -> None:
    """A whole answer, but the JSON in it is cut."""
    answer = exchange.handle()
    half = answer.body[: len(answer.body) // 2]
    exchange.respond(Response(answer.status, half, answer.content_type))


def endless() -> Fault:
    """Every page is empty and promises another one."""
    pages = itertools.count()

    def fault(exchange: Exchange) -> None:
        meta = {"resourceVersion": "1", "continue": f"page-{next(pages)}"}
        body = {"kind": "VirtualMachineList", "apiVersion": "v1", "metadata": meta, "items": []}
        exchange.respond(Response(200, json.dumps(body).encode()))

    return fault


def huge(world: World, server: Simulator) -> None:
    """The server ignores the limit: 5,000 VMs in one page."""
    padding = "x" * 6000

    def fault(exchange: Exchange) -> None:
        body = json.loads(exchange.handle().body)
        items = body["items"] = body["items"] or []
        for number in range(5000):
            meta = {"namespace": world.namespace, "name": f"vm-{number}", "uid": f"uid-{number}",
                    "resourceVersion": "1", "annotations": {"padding": padding}}  # fmt: skip
            one = {"apiVersion": VM.api_version, "kind": VM.kind, "metadata": meta}
            items.append(one)
        exchange.respond(Response(200, json.dumps(body).encode()))

    server.inject(fault, method="GET", path=r"/team/virtualmachines(\?|$)", times=None)


DEEP: object = "end"
for _ in range(300):
    DEEP = {"a": DEEP}


def object_with(**fields: object) -> Callable[[World, Simulator], object]:
    """Another VM of the namespace has these fields in its metadata."""

    def seed(world: World, server: Simulator) -> None:
        meta = {"namespace": world.namespace, "name": "odd", "uid": "u", "resourceVersion": "7",
                "finalizers": ["a"], "deletionTimestamp": "2026-01-01T00:00:00Z"}  # fmt: skip
        server.seed({"apiVersion": VM.api_version, "kind": VM.kind, "metadata": {**meta, **fields}})

    return seed


def another_authority(world: World, _server: Simulator) -> None:
    """The kubeconfig trusts somebody else."""
    authority = trustme.CA().cert_pem.bytes()
    for path in world.directory.glob("kubeconfig-*"):
        content = fastyaml.load(path.read_text())
        data = base64.b64encode(authority).decode()
        content["clusters"][0]["cluster"]["certificate-authority-data"] = data
        path.write_text(fastyaml.dump(content))


def skew(seconds: float) -> Callable[[World, Simulator], object]:
    """The API server's clock is elsewhere; the objects were written by it."""
    return lambda _, server: server.clock.advance(seconds)


ROWS = (
    Row("nothing", lambda *_: None, "0 0 0 0 0 0"),
    Row("refused", lambda _, server: server.stop_apiserver(), "1 1 1 1 1 1"),
    Row("closed", everywhere(faults.close()), "1 1 1 1 1 1"),
    Row("reset in the body", everywhere(faults.cut()), "1 1 1 1 1 1"),
    Row("another authority", another_authority, "1 1 1 1 1 1"),
    Row("slow first byte", everywhere(faults.delay(30)), "1 1 1 1 1 1", "500ms"),
    Row("stalled body", everywhere(faults.stall(30)), "1 1 1 1 1 1", "500ms"),
    Row("401", everywhere(status(401, "Unauthorized")), "1 1 1 1 4 1"),
    Row("403 everywhere", everywhere(status(403, "Forbidden")), "1 1 1 1 4 1"),
    Row("403 on VMs", forbidden("virtualmachines"), "6 1 6 0 4 1"),
    Row("403 on VMIs", forbidden("virtualmachineinstances"), "6 6 6 0 4 4"),
    Row("403 on pods", forbidden("pods"), "6 6 6 0 4 4"),
    Row("403 on nodes", forbidden("nodes"), "0 6 6 0 0 4"),
    Row("403 on leases", forbidden("leases"), "0 6 0 0 0 4"),
    Row("403 on migrations", forbidden("virtualmachineinstancemigrations"), "0 6 6 0 0 4"),
    Row("403 on claims", forbidden("persistentvolumeclaims"), "0 6 6 0 0 4"),
    Row("403 on settings", forbidden("settings"), "0 6 6 6 0 0"),
    Row("no CRD of VMIs", lambda _, s: s.uninstall("virtualmachineinstances"), "6 6 6 0 4 4"),
    Row("409 at every change", changes(status(409, "Conflict")), "0 0 0 0 4 4"),
    Row("410 at every list", at(ANY_LIST, status(410, "Expired")), "1 1 1 0 1 1"),
    Row("422 at every change", changes(status(422, "Invalid")), "0 0 0 0 4 4"),
    Row("429, for a moment", everywhere(status(429, "TooManyRequests", 0), MOMENT), "0 0 0 0 0 0"),
    Row("429, for ever", everywhere(status(429, "TooManyRequests", 0)), "1 1 1 1 4 1"),
    Row("429, much later", everywhere(status(429, "TooManyRequests", 3600)), "1 1 1 1 4 1"),
    Row("429 at every change", changes(status(429, "TooManyRequests", 0)), "0 0 0 0 4 4"),
    Row("409 at every patch", at(PATCHES, status(409, "Conflict")), "0 0 0 0 4 5"),
    Row("500 at every patch", at(PATCHES, status(500, "InternalError")), "0 0 0 0 5 5"),
    Row("500", everywhere(status(500, "InternalError")), "1 1 1 1 4 1"),
    Row("500 at every change", changes(status(500, "InternalError")), "0 0 0 0 5 5"),
    Row("503", everywhere(status(503, "ServiceUnavailable")), "1 1 1 1 4 1"),
    Row("503, for a moment", everywhere(status(503, "Unavailable", 0), MOMENT), "0 0 0 0 0 0"),
    Row("half of the JSON", everywhere(half_of_the_json), "1 1 1 1 1 1"),
    Row("HTML", everywhere(faults.body(b"<html>", "text/html")), "1 1 1 1 1 1"),
    Row("HTML with 404", everywhere(faults.body(b"<html>", "text/html", 404)), "1 1 1 1 4 1"),
    Row("wrong content type", everywhere(as_text), "0 0 0 0 0 0"),
    Row("a redirect", everywhere(redirect), "1 1 1 1 1 1"),
    Row("huge pages", huge, "0 0 0 0 0 0"),
    Row("endless pages", at(r"/virtualmachines(\?|$)", endless()), "6 1 1 0 1 0"),
    Row("a server an hour ahead", skew(3600), "0 0 0 0 0 0"),
    Row("warnings", everywhere(warn), "0 0 0 0 0 0"),
    Row("names that move", object_with(finalizers=["odd\x1b[2J\u202e"]), "0 0 0 0 0 0"),
    Row("wide names", object_with(finalizers=["\u8282\u70b9/\U0001f525"]), "0 0 0 0 0 0"),
    Row("a uid that is a number", object_with(uid=7), "6 6 0 0 0 0"),
    Row("a null list of finalizers", object_with(finalizers=None), "0 0 0 0 0 0"),
    Row("finalizers that are a word", object_with(finalizers="all"), "6 6 0 0 0 0"),
    Row("finalizers that are numbers", object_with(finalizers=[1]), "6 6 0 0 0 0"),
    Row("a time that is none", object_with(deletionTimestamp="soon"), "6 6 0 0 0 0"),
    Row("labels that are a list", object_with(labels=["a"]), "6 6 0 0 0 0"),
    Row("owners that are a number", object_with(ownerReferences=7), "6 6 0 0 0 0"),
    Row("an endless grace", object_with(deletionGracePeriodSeconds=1 << 63), "6 6 0 0 0 0"),
    Row("a grace that was", object_with(deletionGracePeriodSeconds=-1), "6 6 0 0 0 0"),
    Row("the last year", object_with(deletionTimestamp="9999-12-31T23:59:59Z"), "6 6 0 0 0 0"),
    Row("the first year", object_with(deletionTimestamp="0001-01-01T00:00:00Z"), "6 6 0 0 0 0"),
    Row("a long name", object_with(name="n" * 250), "0 0 0 0 0 0"),
    Row("deep labels", object_with(annotations=DEEP), "6 6 0 0 0 0"),
    Row("every change twice", changes(repeated), "0 0 0 0 0 0"),
    Row("a page with 200 for every change", changes(page(200)), "0 0 0 0 5 5"),
    Row("a page with 403 for every change", changes(page(403)), "0 0 0 0 4 4"),
    Row("a page with 404 for every change", changes(page(404)), "0 0 0 0 4 4"),
    Row("a page with 408 for every change", changes(page(408)), "0 0 0 0 5 5"),
    Row("a page with 502 for every change", changes(page(502)), "0 0 0 0 5 5"),
    Row("a page with 403 behind every change", changes(done_and(page(403))), "0 0 0 0 0 0"),
    Row("a page with 404 behind every change", changes(done_and(page(404))), "0 0 0 0 0 0"),
    Row("a page with 502 behind every change", changes(done_and(page(502))), "0 0 0 0 0 0"),
    Row("409 behind every change", changes(done_and(status(409, "Conflict"))), "0 0 0 0 0 0"),
)


@pytest.fixture
def server() -> Iterator[Simulator]:
    with Simulator() as api:
        yield api


@pytest.fixture
def world(server: Simulator, tmp_path: Path) -> World:
    return World(server, tmp_path, "team", "node-dead", "node-live")


def commands(world: World, backup: str, timeout: str) -> dict[str, tuple[str, ...]]:
    """Each command as a user would give it."""
    json_ = ("-o", "json", "--request-timeout", timeout)
    power = ("--node-powered-off", world.dead)
    return {
        "list": ("list", *json_),
        "diagnose": ("diagnose", "vm", "web", *json_),
        "check": ("check", "-n", "ready", *json_),
        "version": ("version", *json_),
        "restore": ("restore", backup, "--yes", *json_),
        "unstick": ("unstick", "vm", "web", *power, *QUICK, "--yes", *json_),
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_fault_and_every_command(row: Row, world: World, server: Simulator) -> None:
    build(World(server, world.directory, "ready", "r-dead", "r-live"))
    old = world.delete(world.vm("old"))
    backup = world.unstick("vm", "old", "--yes").item["backup"]
    assert world.now(old) is None
    everything = [machine, _, _] = list(world.power_cut())
    environ = world.environ()
    row.fault(world, server)
    got = {}
    for name, words in commands(world, backup, row.timeout).items():
        world.restored |= name == "restore"
        server.forget()
        began = time.monotonic()
        run = world.run(*words, environ=environ)
        assert time.monotonic() - began < SECONDS, name
        got[name] = str(int(run.status))
        holds_anyway(name, run)
        sent = world.changes()
        assert len(set(sent)) == len(sent), "a change was sent again"
        if name in ("list", "diagnose", "check", "version"):
            assert sent == []
    expected = dict(zip(COMMANDS, row.statuses.split(), strict=True))
    assert got == expected, " ".join(got.values())
    left = [item for item in everything if world.now(item)]
    if got["unstick"] == "0":
        assert left == []
    elif got["unstick"] in "14":
        assert left == everything
        assert all(world.version(item) == item["metadata"]["resourceVersion"] for item in left)
    else:
        assert got["unstick"] == "5"
        assert machine in left


def holds_anyway(name: str, run: Run) -> None:
    """What is true of every answer, whatever broke."""
    document = json.loads(run.out)
    assert document["schema"].startswith("harvester-stuck/"), name
    assert "Traceback" not in run.err, run.err
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", run.err), repr(run.err)
    if run.status is not ExitStatus.OK and "items" in document and not document["items"]:
        assert run.err.strip(), name
