"""Programs that work beside the API server of a test, as they do in a cluster."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from tests.components.controlplane.server import DIE_WITH_PARENT, ControlPlane
from tests.support import fastyaml

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

P = TypeVar("P", bound="Program")


class Program:
    """A program that is started and stopped as often as a test likes.

    Its log is `NAME.log` in `directory`, beside `NAME.kubeconfig`, with which it reaches the API
    server as `user`.
    """

    def __init__(self, api: ControlPlane, directory: Path, name: str, user: str) -> None:
        self.api = api
        self.name = name
        self.directory = directory
        self.kubeconfig = directory / f"{name}.kubeconfig"
        self._user = user
        self._log = directory / f"{name}.log"
        self._log.touch()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self: P) -> P:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def command(self) -> Sequence[str]:
        """What starts it."""
        raise NotImplementedError

    ready = ""
    """What it writes once it is at work."""

    @property
    def log(self) -> str:
        """Everything that it has written."""
        return self._log.read_text(errors="replace")

    def start(self) -> None:
        """Start it and wait until it is at work. RuntimeError with its last words if it ends."""
        # Some libraries read the files of certificate and token, and nothing else.
        content = self.api.kubeconfig(self._user)
        authority = self.directory / "ca.crt"
        authority.write_bytes(self.api.ca_data or b"")
        cluster = content["clusters"][0]["cluster"]
        cluster.pop("certificate-authority-data", None)
        cluster["certificate-authority"] = str(authority)
        user = content["users"][0]["user"]
        token = self.directory / f"{self.name}.token"
        token.write_text(user.pop("token"))
        user["tokenFile"] = str(token)
        self.kubeconfig.write_text(fastyaml.dump(content))
        began = len(self.log)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-E", "-S", "-c", DIE_WITH_PARENT, *self.command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
            )

        def at_work() -> bool:
            self.check()
            return self.ready in self.log[began:]

        wait(at_work, lambda: f"{self.name} is not at work\n{self.log[-3000:]}", seconds=60)

    def check(self) -> None:
        """Raises RuntimeError with its last words if it has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            code = self._process.returncode
            raise RuntimeError(f"{self.name} ended ({code})\n{self.log[-3000:]}")

    def stop(self) -> None:
        """Stop it. Harmless when it is stopped."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextmanager
    def slow(self, seconds: float) -> Iterator[None]:
        """Let it do nothing for a while, as one that has much else to do."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        timer = threading.Timer(seconds, self._process.send_signal, (signal.SIGCONT,))
        timer.start()
        try:
            yield
        finally:
            timer.join()


def install(api: ControlPlane, definitions: Sequence[dict[str, Any]]) -> None:
    """Create these CRDs, or replace those that have their names; wait until all are served."""
    for definition in definitions:
        name = definition["metadata"]["name"]
        status, answer = api.request("POST", DEFINITIONS, definition)
        if status == 409:
            status, found = api.request("GET", f"{DEFINITIONS}/{name}")
            assert status == 200, found
            version = {"resourceVersion": found["metadata"]["resourceVersion"]}
            changed = {**definition, "metadata": {**definition["metadata"], **version}}
            status, answer = api.request("PUT", f"{DEFINITIONS}/{name}", changed)
        assert status in (200, 201), answer
    for definition in definitions:
        spec = definition["spec"]
        for version in (each["name"] for each in spec["versions"] if each["served"]):
            path = f"/apis/{spec['group']}/{version}/{spec['names']['plural']}"
            _wait_until_served(api, path)


def _wait_until_served(api: ControlPlane, path: str) -> None:
    wait(lambda: api.request("GET", path)[0] == 200, lambda: f"{path} is not served")


def wait(reached: Callable[[], bool], goal: Callable[[], str], *, seconds: float = 30) -> None:
    """Wait until it is so. AssertionError with `goal` when it does not come to that."""
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, goal()
        time.sleep(0.1)
