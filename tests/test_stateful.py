"""A cluster that goes on living while the program works, one request at a time.

Hypothesis plays everybody at once. It starts the program, lets its requests through one by one, and
between any two of them other actors act: the user, the controllers, the node that comes back, and a
network that carries a request out and loses the answer. The witness of `test_properties` sees each
change; after each run what was said and journaled has to be what the server did.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from kubectl_harvester_stuck.errors import ExitStatus
from kubectl_harvester_stuck.k8s.kinds import POD, VM, VMI
from tests.support import builders
from tests.support.simulator import Simulator
from tests.support.simulator.exchange import Exchange
from tests.support.world import PATIENCE, Run, check_patches
from tests.test_properties import (
    ACTIONS,
    CONTROLLERS,
    EXAMPLES,
    FLAGS,
    SCENES,
    Scene,
    Stage,
    check_answer,
    relaxed,
    staged,
    words,
)

# Most of what Hypothesis invents is refused before anything happens; half of it shall not be.
STUCK = SCENES.map(
    lambda scene: replace(
        scene,
        vm=scene.vm and (builders.VM_FINALIZER, "foregroundDeletion"),
        vmi=scene.vmi and builders.VMI_FINALIZERS,
        vm_deleting=True,
        vmi_deleting=True,
        pods=tuple(("dead", ended, True) for _, ended, _ in scene.pods),
        life=frozenset(),
        migrating=False,
    )
)
KNOWING = FLAGS.map(
    lambda flags: {**flags, "powered_off": True, "finalizer": None, "older_than": "0"}
)


class Gate:
    """Where each request of the program waits until it is let through."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._changed = threading.Condition()
        self._waiting = self._passed = 0
        self._tickets: deque[bool] = deque()
        self._is_open = False
        self.flags: dict[str, Any] = {}
        self.loses_change = False
        """Whether the answer to the next change is lost."""
        self.made: list[tuple[str, str]] = []
        """Method and uid of each change that the server made."""

    def __call__(self, exchange: Exchange) -> None:
        """What the server does with a request."""
        with self._changed:
            self._waiting += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._tickets or self._is_open, PATIENCE)
            self._waiting -= 1
            is_lost = self._tickets.popleft() if self._tickets else False
        try:
            self._pass(exchange, is_lost=is_lost)
        finally:
            with self._changed:
                self._passed += 1
                self._changed.notify_all()

    def _pass(self, exchange: Exchange, *, is_lost: bool) -> None:
        asked = exchange.request
        is_change = asked.method in ("PATCH", "DELETE") and "dryRun" not in (
            f"{asked.target}{asked.body!r}"
        )
        if is_change:
            is_lost, self.loses_change = is_lost or self.loses_change, False
            self._stage.witness(exchange, self.flags)
            body = json.loads(asked.body)
            if exchange.handle().status == 200:
                locks = body.get("metadata") or body["preconditions"]
                self.made.append((asked.method, locks["uid"]))
        if is_lost:
            exchange.handle()
            exchange.drop()
        else:
            exchange.answer()

    def let(self, program: Future[Run], number: int, *, lost: bool = False) -> None:
        """Let so many requests through, fewer where the program ends before.

        The answers are lost on their way where `lost` says so.
        """
        for _ in range(number):
            with self._changed:
                while not self._waiting:
                    if program.done():
                        return
                    self._changed.wait(0.02)
                after = self._passed + 1
                self._tickets.append(lost)
                self._changed.notify_all()
                while self._passed < after:
                    self._changed.wait(PATIENCE)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Let everything through."""
        with self._changed:
            self._is_open = True
            self._changed.notify_all()
        yield
        self._is_open = False


class Life(RuleBasedStateMachine):
    """One cluster, from the power cut on."""

    server: ClassVar[Simulator]
    directory: ClassVar[Path]

    program: Future[Run] | None = None

    @initialize(scene=STUCK | SCENES)
    def begin(self, scene: Scene) -> None:
        self.stage = staged(self.server, self.directory, scene)
        self.gate = Gate(self.stage)
        self.handle = self.server.inject(self.gate, times=None)
        self.digest = ""
        self.thread = ThreadPoolExecutor(1)

    # Who else acts

    @rule(what=st.sampled_from(ACTIONS))
    def somebody_acts(self, what: str) -> None:
        self.stage.act(what)

    @rule(kind=st.sampled_from([VM, VMI]))
    def the_user_deletes(self, kind: Any) -> None:
        found = self.stage.find(kind)
        if found is not None:
            self.server.delete(found)

    @rule(who=st.sampled_from(CONTROLLERS))
    def a_controller_works(self, who: str) -> None:
        """As they do when the node is back, or when what they waited for is gone."""
        self.stage.serve(who)

    @rule()
    def the_power_fails_again(self) -> None:
        """The same once more, when nothing of it is left."""
        stage = self.stage
        there = [stage.find(POD, pod["metadata"]["name"]) for pod in stage.pods]
        if not any([stage.find(VM), stage.find(VMI), *there]):
            stage.pods.clear()
            stage.build()
            self.server.clock.stop(self.server.clock.now() + timedelta(seconds=3))

    # The program

    @precondition(lambda self: self.program is None)
    @rule(flags=KNOWING | FLAGS, agreed=st.booleans())
    def start(self, flags: dict[str, Any], agreed: bool) -> None:
        """`unstick`: with the digest of the last preview where there is one, or with --yes."""
        yes = [f"--confirm={self.digest}"] if agreed and self.digest else ["--yes"]
        self._start(flags, *yes)

    @precondition(lambda self: self.program is None)
    @rule(flags=KNOWING | FLAGS)
    def preview(self, flags: dict[str, Any]) -> None:
        self.server.forget()
        with self.gate.opened():
            run = self.stage.world.run(*words(self.stage, flags), "--dry-run=client")
        assert self.stage.world.changes() == []
        self.digest = run.json.get("digest") or ""

    def _start(self, flags: dict[str, Any], *more: str) -> None:
        stage = self.stage
        self.gate.flags = flags
        self.gate.made.clear()
        self.lines = self._journal()
        self.server.forget()
        arguments = [*words(stage, flags), *more]
        self.program = self.thread.submit(stage.world.run, *arguments)

    @precondition(lambda self: self.program is not None)
    @rule(number=st.integers(1, 12))
    def requests_pass(self, number: int) -> None:
        assert self.program is not None
        self.gate.let(self.program, number)

    @precondition(lambda self: self.program is not None)
    @rule()
    def an_answer_is_lost(self) -> None:
        assert self.program is not None
        self.gate.let(self.program, 1, lost=True)

    @rule()
    def the_answer_to_the_next_change_is_lost(self) -> None:
        self.gate.loses_change = True

    @precondition(lambda self: self.program is not None)
    @rule()
    def it_ends(self) -> None:
        """The rest of the run, and whether it says what happened."""
        assert self.program is not None
        program, self.program = self.program, None
        with self.gate.opened():
            run = program.result(PATIENCE)
        event(f"{run.status.name} after {len(self.gate.made)} changes")
        if run.json.get("items") is not None:
            check_answer(self.stage, run)
        check_patches(self.stage.world.sent())
        self._nothing_is_hidden(run)

    def _nothing_is_hidden(self, run: Run) -> None:
        """Each change of the server stands in the answer and, with both lines, in the journal."""
        lines = self._journal()[len(self.lines):]  # fmt: skip
        steps = [step for item in run.json.get("items") or () for step in item["steps"]]
        for method, uid in self.gate.made:
            told = [line for line in lines if line["object"]["uid"] == uid]
            assert {line["phase"] for line in told} == {"before", "after"}, (method, uid)
            said = [step for step in steps if uid in json.dumps(step)]
            assert any(step["status"] not in ("planned", "not sent") for step in said), said
        if run.status is ExitStatus.REFUSED:
            assert self.gate.made == []

    def _journal(self) -> list[Any]:
        try:
            return self.stage.world.journal()
        except FileNotFoundError:
            return []

    @invariant()
    def nothing_is_done_that_must_never_be_done(self) -> None:
        if hasattr(self, "stage"):
            assert self.stage.told == [], self.stage.told

    def teardown(self) -> None:
        if not hasattr(self, "stage"):
            return
        try:
            if self.program is not None:
                self.it_ends()
        finally:
            self.thread.shutdown()
            self.handle.remove()
            self.server.wipe(self.stage.world.namespace)


def test_whoever_acts_and_whenever(tmp_path: Path) -> None:
    with Simulator() as server:
        Life.server, Life.directory = server, tmp_path
        steps = settings(
            relaxed, max_examples=max(1, EXAMPLES // 5), stateful_step_count=30, print_blob=True
        )
        run_state_machine_as_test(Life, settings=steps)
