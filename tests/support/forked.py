"""The program as a process of its own that need not load everything anew.

A server process loads it once, and forks for each start: what is killed is a process like any
other, and a test that starts it a hundred times takes seconds.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

PRELOADED = (
    "kubectl_harvester_stuck.cli.main",
    "kubectl_harvester_stuck.cli.commands.unstick",
    "kubectl_harvester_stuck.connection.transport",
    "tests.support.forked",
)


def _run(words: Sequence[str], environ: Mapping[str, str], output: Path) -> None:
    """What the child does: the program with these words, and nothing of the tests around it."""
    from kubectl_harvester_stuck.cli import main

    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ):
        opened = os.open(path, flags)
        os.dup2(opened, number)
        os.close(opened)
    os.dup2(1, 2)
    os.environ.clear()
    os.environ.update(environ)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    sys.exit(main.run(list(words)))


class Forked:
    """One run of the program, like a `subprocess.Popen` without pipes."""

    def __init__(self, words: Sequence[str], environ: Mapping[str, str], output: Path) -> None:
        self._process: ForkServerProcess = _context().Process(
            target=_run, args=(tuple(words), dict(environ), output)
        )
        self._process.start()
        # Two who wait at once would share the one message that tells how it ended.
        self._lock = threading.Lock()

    def kill(self) -> None:
        """End it, as `kill -9` does."""
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, negative for the signal that ended it. TimeoutError if it goes on."""
        with self._lock:
            self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutError(f"the program goes on after {timeout} s")
        return self._process.exitcode


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", *PRELOADED])
    return context
