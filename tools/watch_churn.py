"""Watch a real API server under constant churn, and account for every object.

    python -m tools.watch_churn --minutes 30

VMs become stuck, lose a finalizer and go, several a second, while `list --watch` runs; the API
server is restarted twice. Every VM has to be told as added once and as gone once, each loss of a
finalizer once at most, and nothing else may be told. It takes too long for CI.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.components.controlplane.server import ControlPlane
from tests.support.world import World

LIVES = 15.0
"""Seconds that a VM hangs at least: time enough to be seen after a restart."""

FINALIZERS = ("example.com/one", "example.com/two")


class Churn:
    """VMs that come and go, and what should be told of them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._numbers = itertools.count(1)
        self._hanging: dict[str, tuple[float, str]] = {}
        self._chance = random.Random(7)
        self.stuck: set[str] = set()
        self.thinned: set[str] = set()
        self.gone: set[str] = set()

    def step(self) -> None:
        """One change: a VM more, a finalizer less, or a VM less."""
        now = time.monotonic()
        old = [uid for uid, (since, _) in self._hanging.items() if now - since > LIVES]
        if old and (len(self._hanging) > 60 or self._chance.random() < 0.5):
            uid = self._chance.choice(old)
            name = self._hanging[uid][1]
            if uid not in self.thinned and self._chance.random() < 0.3:
                self._patch(name, [FINALIZERS[0]])
                self.thinned.add(uid)
            else:
                self._patch(name, [])
                del self._hanging[uid]
                self.gone.add(uid)
            return
        name = f"vm-{next(self._numbers)}"
        body = self._world.delete(self._world.vm(name, *FINALIZERS))
        uid = body["metadata"]["uid"]
        self._hanging[uid] = (now, name)
        self.stuck.add(uid)

    def rest(self) -> None:
        """Let everything live on for a while: nobody could see what happened just now."""
        now = time.monotonic()
        self._hanging = {uid: (now, name) for uid, (_, name) in self._hanging.items()}

    def _patch(self, name: str, finalizers: list[str]) -> None:
        place = f"/apis/kubevirt.io/v1/namespaces/{self._world.namespace}/virtualmachines/{name}"
        body = {"metadata": {"finalizers": finalizers}}
        status, answer = self._world.api.request(
            "PATCH", place, body, content_type="application/merge-patch+json"
        )
        if status != 200:
            raise RuntimeError(answer)


def main() -> int:
    """Run it, and say what was told; 1 where anything was lost or told twice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=4.0, help="changes a second")
    given = parser.parse_args()
    told: list[dict[str, Any]] = []
    with ControlPlane() as api, tempfile.TemporaryDirectory() as scratch:
        world = World(api, Path(scratch), "churn", "node-dead", "node-live")
        world.vm("first", *FINALIZERS)
        process = subprocess.Popen(
            [sys.executable, "-m", "kubectl_harvester_stuck", "list", "-w", "-o", "json"],
            stdout=subprocess.PIPE,
            text=True,
            env=world.environ(),
        )
        stdout = process.stdout
        assert stdout is not None
        threading.Thread(
            target=lambda: told.extend(json.loads(line) for line in stdout), daemon=True
        ).start()
        churn = Churn(world)
        started = time.monotonic()
        end = started + given.minutes * 60
        restarts = [started + given.minutes * 60 * part / 3 for part in (1, 2)]
        while time.monotonic() < end:
            if restarts and time.monotonic() > restarts[0]:
                restarts.pop(0)
                api.stop_apiserver()
                time.sleep(5)
                api.start_apiserver()
                churn.rest()
            churn.step()
            time.sleep(1 / given.rate)
        time.sleep(LIVES)
        is_alive = process.poll() is None
        process.kill()
        process.wait()
    seen = Counter((event["type"], event["object"]["uid"]) for event in told)
    faults = {
        "never told as stuck": len(churn.stuck - {uid for kind, uid in seen if kind == "ADDED"}),
        "never told as gone": len(churn.gone - {uid for kind, uid in seen if kind == "DELETED"}),
        "told twice": sum(count > 1 for count in seen.values()),
        "told as gone while there": len(
            {uid for kind, uid in seen if kind == "DELETED"} - churn.gone
        ),
        "told of strangers": len({uid for _, uid in seen} - churn.stuck),
        "changed without a change": len(
            {uid for kind, uid in seen if kind == "MODIFIED"} - churn.thinned
        ),
        "the watch ended": int(not is_alive),
    }
    kinds = Counter(kind for kind, _ in seen)
    sys.stdout.write(
        f"{len(churn.stuck)} VMs hung, {len(churn.thinned)} lost a finalizer, {len(churn.gone)}"
        f" went; told: {dict(kinds)}; faults: {faults}\n"
    )
    return int(any(faults.values()))


if __name__ == "__main__":
    sys.exit(main())
