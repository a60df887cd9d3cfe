"""A namespace of a test control plane, and the program run against it as its user would.

One `World` per test; what it does works the same on the simulated and on the real API server.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Protocol
from unittest import mock

import click

from kubectl_harvester_stuck.cli import main
from kubectl_harvester_stuck.errors import ExitStatus
from tests.components.windows import wine
from tests.support import builders, fastyaml
from tests.support.recorded import Recorded
from tests.support.relay import Answer, Between, Passed, PassOn, relay
from tests.support.resources import path_of

Body = dict[str, Any]
_names = itertools.count(1)


class Handle(Protocol):
    """Something that a server was told to do until further notice."""

    def remove(self) -> None: ...


class ApiServer(Protocol):
    """What both control planes offer."""

    @property
    def url(self) -> str: ...

    def kubeconfig(self, user: str = "admin", *, namespace: str = "default",
                   context: str = "test", **user_fields: Any) -> Body: ...  # fmt: skip
    def request(self, method: str, path: str, body: object | None = None, *,
                content_type: str = "application/json", user: str = "admin"
                ) -> tuple[int, Body]: ...  # fmt: skip
    def create(self, obj: Body) -> Body: ...
    def get(self, obj: Body) -> Body | None: ...
    def delete(self, obj: Body, **delete_options: Any) -> None: ...
    def wipe(self, namespace: str) -> None: ...
    def recorded(self) -> list[Recorded]: ...
    def watches(self) -> list[str]: ...
    def forget(self) -> None: ...
    def deny_updates(self, resource_plural: str, message: str, *, namespace: str,
                     operations: tuple[str, ...] = ("UPDATE",)) -> Handle: ...  # fmt: skip
    def break_webhook(self, resource_plural: str, namespace: str) -> Handle: ...
    def stop_apiserver(self) -> None: ...
    def start_apiserver(self) -> None: ...


@dataclass(frozen=True)
class Run:
    """What the program said, and how it ended."""

    status: ExitStatus
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def item(self) -> Any:
        """The only item of the document."""
        (item,) = self.json["items"]
        return item


class Answers(io.StringIO):
    """Standard input that does something before the operator's answer is read."""

    def __init__(self, text: str, before: Callable[[], object] | None = None) -> None:
        super().__init__(text)
        self.before = before

    # typeshed: every IOBase reads bytes.
    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]
        if self.before is not None:
            self.before()
        return super().readline(size)


@dataclass
class World:
    """Objects and commands of one test."""

    api: ApiServer
    directory: Path
    namespace: str
    dead: str
    """Name of the node that loses its power."""
    live: str
    _namespaces: set[str] = field(default_factory=set)
    restored: bool = False
    """Whether `restore` was run, the only command that may create a VM."""
    program: Path | None = None
    """The executable to run; without one it is the program of this tree, in this process."""

    # The cluster

    def create(self, body: Body) -> Body:
        """Create the object, with its namespace and status."""
        name = body["metadata"].get("namespace")
        if name and name not in self._namespaces:
            # Not through `create`: nothing finishes the deletion of a namespace here.
            self.api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
            self._namespaces.add(name)
        return self.stored_when_it_says(self.api.create(body))

    def stored_when_it_says(self, body: Body) -> Body:
        """A sign of life, as if it had been stored at the time that it carries.

        An API server records when it stored a field, which is the present in a test.
        """
        heartbeat = ("metadata", "annotations", "kubevirt.io/heartbeat")
        renewal = ("spec", "renewTime")
        path = {"Node": heartbeat, "Lease": renewal}.get(body["kind"], ())
        value: Any = body
        for key in path:
            value = (value or {}).get(key)
        try:
            when = datetime.fromisoformat(str(value).strip('"').replace("Z", "+00:00"))
        except ValueError:
            return body
        if when > datetime.now(timezone.utc):
            return body  # a clock that is ahead: the API server stored it now
        return self.written_by("host", body, *path, when=f"{when:%Y-%m-%dT%H:%M:%SZ}")

    def delete(self, body: Body, **options: Any) -> Body:
        """Delete it; the object as it stands then."""
        self.api.delete(body, **options)
        found = self.api.get(body)
        assert found is not None, f"{body['metadata']['name']} did not stay"
        return found

    def vm(self, name: str = "web", *finalizers: str, **more: Any) -> Body:
        """A VM that lives."""
        return self.create(
            builders.vm(self.namespace, name, finalizers or (builders.VM_FINALIZER,), **more)
        )

    def vmi(
        self, owner: Body | None, name: str = "web", node: str | None = None, **more: Any
    ) -> Body:
        """A VMI that lives, on the node that is going to be dead."""
        return self.create(
            builders.vmi(self.namespace, name, node or self.dead, owner=owner, **more)
        )

    def ended_vmi(self, owner: Body | None = None, name: str = "web", **more: Any) -> Body:
        """A VMI on a node that answers, whose guest virt-handler saw end."""
        made = self.vmi(owner, name, more.pop("node", self.live), phase="Failed", **more)
        return self.written_by("virt-handler", made, "status", "phase")

    def written_by(self, manager: str, body: Body, *path: str, when: str | None = None) -> Body:
        """The object with `manager` as the one who wrote the field at `path`, at `when`."""
        owned: Body = {}
        for key in reversed(path):
            owned = {f"f:{key}": owned}
        entry = {
            "manager": manager,
            "operation": "Update",
            "apiVersion": body["apiVersion"],
            "time": when or before(timedelta(0)),
            "fieldsType": "FieldsV1",
            "fieldsV1": owned,
        }
        status, answer = self.api.request(
            "PATCH",
            path_of(body),
            {"metadata": {"managedFields": [entry]}},
            content_type="application/merge-patch+json",
        )
        assert status == 200, answer
        return answer

    def pod(self, owner: Body, node: str | None = None, **more: Any) -> Body:
        """The virt-launcher pod of a VMI."""
        name = f"virt-launcher-{owner['metadata']['name']}-x7k2p"
        return self.create(builders.pod(self.namespace, name, node or self.dead, owner, **more))

    def dead_node(self, **more: Any) -> None:
        """A node without power: every sign of life is 20 minutes old."""
        self._node(self.dead, age=timedelta(minutes=20), ready="Unknown", handler=False, **more)

    def live_node(self) -> None:
        """A node that answers."""
        self._node(self.live, age=timedelta(seconds=5), ready="True", handler=True)

    def _node(
        self, name: str, *, age: timedelta, ready: str, handler: bool, heartbeat: str | None = None
    ) -> None:
        then = before(age)
        self.create(builders.node(name, ready, heartbeat=heartbeat or then))
        self.create(builders.lease(name, then))
        self.create(builders.virt_handler(name, ready=handler))

    def power_cut(self, *, vm: bool = True, vmi: bool = True) -> tuple[Body, Body, Body]:
        """VM, VMI and pod on a node that lost its power, then deleted as far as asked."""
        self.dead_node()
        machine = self.vm()
        instance = self.vmi(machine)
        launcher = self.pod(instance)
        launcher = self.delete(launcher, gracePeriodSeconds=1)
        if vmi:
            instance = self.delete(instance)
        if vm:
            machine = self.delete(machine)
        self.api.forget()
        return machine, instance, launcher

    def now(self, body: Body) -> Body | None:
        """The object as it stands now."""
        return self.api.get(body)

    def finalizers(self, body: Body) -> list[str]:
        """Its finalizers as they stand now."""
        found = self.api.get(body)
        assert found is not None
        return list(found["metadata"].get("finalizers", []))

    def version(self, body: Body) -> str:
        """Its resourceVersion as it stands now."""
        found = self.api.get(body)
        assert found is not None
        return str(found["metadata"]["resourceVersion"])

    # What reached the server

    def changes(self) -> list[tuple[str, str]]:
        """Method and `plural/name` of what could have changed something, in order."""
        return [
            (request.method, "/".join(request.path.partition("?")[0].split("/")[-2:]))
            for request in self.sent()
        ]

    def sent(self) -> list[Recorded]:
        """Requests that could have changed something: no reads, no reviews, no dry runs.

        The Events that tell of a change are left out, too.
        """
        return [
            request
            for request in self.api.recorded()
            if request.method != "GET"
            and "reviews" not in request.path
            and not request.path.startswith("/apis/events.k8s.io/")
            and not is_dry_run(request)
            and request.user_agent.startswith("kubectl-harvester-stuck")
        ]

    def events(self) -> list[Body]:
        """The Events of this namespace, as most clients read them: in the core group."""
        status, answer = self.api.request("GET", f"/api/v1/namespaces/{self.namespace}/events")
        assert status == 200, answer
        items: list[Body] = answer["items"]
        return items

    # The program

    def kubeconfig(self, user: str = "admin", **more: Any) -> Path:
        """A kubeconfig file for a user of the server, with this namespace."""
        path = self.directory / f"kubeconfig-{user}-{next(_names)}"
        content = self.api.kubeconfig(user, namespace=self.namespace, **more)
        path.write_text(fastyaml.dump(content))
        return path

    def environ(self, user: str = "admin", **more: str) -> dict[str, str]:
        """The environment of the program: a kubeconfig, and a state directory of its own."""
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        return {
            **kept,
            "KUBECONFIG": str(self.kubeconfig(user)),
            "XDG_STATE_HOME": str(self.directory / "state"),
            **more,
        }

    @contextlib.contextmanager
    def past(self, between: Between) -> Iterator[dict[str, str]]:
        """The environment of a program whose requests all pass `between`."""
        with relay(self.api.kubeconfig(namespace=self.namespace), between) as content:
            path = self.directory / f"kubeconfig-{next(_names)}"
            path.write_text(fastyaml.dump(content))
            yield self.environ(KUBECONFIG=str(path))

    def run(
        self,
        *arguments: str,
        user: str = "admin",
        stdin: str | Answers = "",
        environ: Mapping[str, str] | None = None,
    ) -> Run:
        """The program with this input, as its user runs it."""
        self.restored |= arguments[:1] == ("restore",)
        reader = Answers(stdin) if isinstance(stdin, str) else stdin
        environ = environ or self.environ(user)
        start = self._call if self.program is None else self._spawn
        run = start(arguments, reader, environ)
        command: click.Command = main.cli
        for word in arguments:
            if isinstance(command, click.Group):
                command = command.commands.get(main.ALIASES.get(word, word), command)
        if not isinstance(command, click.Group):
            assert run.status in statuses_of(command), "the page of the command names no such end"
        return run

    @property
    def command(self) -> tuple[str, ...]:
        """What starts the program in a process of its own."""
        if self.program is None:
            return (sys.executable, "-m", "kubectl_harvester_stuck")
        return (str(self.program),)

    def _spawn(
        self, arguments: tuple[str, ...], reader: Answers, environ: Mapping[str, str]
    ) -> Run:
        with subprocess.Popen(
            [*self.command, *arguments],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            asked = b""
            if reader.before is not None:
                assert process.stderr is not None
                while QUESTION not in asked and (more := os.read(process.stderr.fileno(), 4096)):
                    asked += more
                reader.before()
            out, err = process.communicate(reader.getvalue().encode(), PATIENCE)
        return Run(ExitStatus(process.returncode), out.decode(), (asked + err).decode())

    def _call(self, arguments: tuple[str, ...], reader: Answers, environ: Mapping[str, str]) -> Run:
        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.dict(os.environ, environ, clear=True),
            mock.patch.object(sys, "stdin", reader),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            status = main.run(list(arguments))
        return Run(ExitStatus(status), out.getvalue(), err.getvalue())

    def unstick(self, *arguments: str, **more: Any) -> Run:
        """`unstick vm web`, without any waiting, as JSON."""
        targets = arguments if arguments[:1] in (("vm",), ("vmi",)) else ("vm", "web", *arguments)
        return self.run("unstick", *targets, *QUICK, "-o", "json", **more)

    @property
    def state(self) -> Path:
        """The state directory of the program."""
        return self.directory / "state" / "kubectl-harvester-stuck"

    def journal(self) -> list[Any]:
        """The lines of the journal."""
        lines = (self.state / "journal.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def backup(self, run: Run) -> Any:
        """The file that the only target was saved in."""
        return json.loads(wine.local(run.item["backup"]).read_text())


QUESTION = b"To go ahead, type "
PATIENCE = 60
"""Seconds that the program may take."""

QUICK = ("--older-than=0", "--settle=0", "--timeout=2s")


def statuses_of(command: click.Command) -> list[ExitStatus]:
    """The exit statuses that a command may end in, as its options tell; its page names them."""
    own = {str(param.name) for param in command.params}
    when = {
        ExitStatus.STUCK: "exit_code" in own,
        ExitStatus.REFUSED: "dry_run" in own,
        ExitStatus.UNVERIFIED: "dry_run" in own,
        # What is missing while it serves is a metric.
        ExitStatus.INCOMPLETE: "listen" not in own
        and bool({"filenames", "all_namespaces", "only_here", "since"} & own),
    }
    return [status for status in ExitStatus if when.get(status, True)]


def before(age: timedelta) -> str:
    """A time before now, as the API server writes it."""
    return builders.time(datetime.now(timezone.utc) - age)


def is_dry_run(request: Recorded) -> bool:
    """Whether the request asked for everything but the change."""
    in_body = isinstance(request.body, dict) and request.body.get("dryRun") == ["All"]
    return in_body or (request.method != "DELETE" and "dryRun=All" in request.path)


@contextlib.contextmanager
def acting_before(
    world: World, sent: str, act: Callable[[], object], *, asked: Callable[[], bool] | None = None
) -> Iterator[dict[str, str]]:
    """Let another actor act right before the change of `kind/name` reaches the server, once.

    With `asked` before its dry run instead, the first for which that is true. The program has to be
    run in the environment that is given.
    """
    left = [act]

    def between(request: Passed, pass_on: PassOn) -> Answer | None:
        due = request.changes(sent) if asked is None else request.tries(sent) and asked()
        if left and due:
            left.pop()()
        return pass_on()

    with world.past(between) as environ:
        yield environ
    assert not left, f"nothing was sent to {sent}"


def check_patches(requests: list[Recorded], *, restored: bool = False) -> int:
    """Every merge patch locks uid and resourceVersion and holds the list that remains.

    A VM is created by `restore` alone: powered off, and without what is the server's own.
    Returns how many patches there were.
    """
    for request in requests:
        if request.method == "POST" and re.search("/kubevirt.io/", request.path):
            assert restored, request.path
            assert re.search("/virtualmachines[?]", request.path)
            assert request.body["spec"]["runStrategy"] == "Halted"
            assert "running" not in request.body["spec"]
            assert set(request.body) == {"apiVersion", "kind", "metadata", "spec"}
            own = {"uid", "resourceVersion", "finalizers", "ownerReferences", "deletionTimestamp"}
            assert not own & set(request.body["metadata"])
        assert request.method in ("POST", "PATCH", "DELETE")
    patches = [request for request in requests if request.method == "PATCH"]
    for request in patches:
        assert set(request.body) == {"metadata"}, request.body
        assert set(request.body["metadata"]) == {"uid", "resourceVersion", "finalizers"}
        assert request.body["metadata"]["uid"]
        assert request.body["metadata"]["resourceVersion"]
        assert isinstance(request.body["metadata"]["finalizers"], list)
    for request in requests:
        if request.method == "DELETE":
            assert re.search("/pods/", request.path)
            assert request.body["gracePeriodSeconds"] == 0
            assert set(request.body["preconditions"]) == {"uid", "resourceVersion"}
    return len(patches)
