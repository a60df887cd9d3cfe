"""Reads that run side by side, a few at a time; what several ask for at once is read once.

Whoever asks gets what was requested after they asked: a read that has begun is shared with nobody
who comes later, and those who wait for it to end share the next one. So a look stays as fresh as
if it were alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

from kubectl_harvester_stuck.k8s.source import PARALLEL_REQUESTS

T = TypeVar("T")


class _Job(NamedTuple):
    act: Callable[[], Any]
    done: Future[Any]


class SharedReads:
    """`PARALLEL_REQUESTS` threads that read; close it, or use it with `with`."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(PARALLEL_REQUESTS)
        self._guard = threading.Lock()
        self._next: dict[Hashable, _Job] = {}
        """What was asked for and has not begun."""
        self._busy: set[Hashable] = set()
        """What has begun, or is in the queue of the pool."""

    def __enter__(self) -> SharedReads:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown()

    def submit(self, key: Hashable, act: Callable[[], T]) -> Future[T]:
        """What `act` gives, or what somebody else's gives who asked for the same `key`.

        It begins after this call, and not before the one of this key that has begun is over. What
        it gives may be shared: nobody changes it.
        """
        with self._guard:
            job = self._next.get(key)
            if job is not None:
                return job.done
            job = self._next[key] = _Job(act, Future())
            is_first = key not in self._busy
            self._busy.add(key)
        if is_first:
            try:
                self._pool.submit(self._run, key)
            except RuntimeError:  # no thread can be started: then it is read in this one
                self._run(key)
        return job.done

    def _run(self, key: Hashable) -> None:
        """Read what was asked for, and again what was asked for meanwhile."""
        while True:
            with self._guard:
                job = self._next.pop(key)
            try:
                value = job.act()
            except BaseException as error:  # noqa: BLE001 - it is for those who wait
                job.done.set_exception(error)
            else:
                job.done.set_result(value)
            with self._guard:
                if key not in self._next:
                    self._busy.discard(key)
                    return
