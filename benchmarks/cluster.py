"""A cluster to measure on: many VMs of a real one's size, and a way there that counts bytes."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from kubectl_harvester_stuck.k8s.kinds import LEASE, LEASE_NAMESPACE, NODE, VM, VMI
from tests.components.controlplane.server import ControlPlane
from tests.support import builders

NAMESPACES = 10
NODES = 8
BEAT = 20.0
"""Seconds between two renewals of a node's Lease; a kubelet's are ten seconds apart."""

SIZE = 6000
"""Bytes of a VM or VMI as JSON, as the API server of a real cluster answers it."""

MERGE = "application/merge-patch+json"

STUCK_EVERY = 100
"""One VM of so many is being deleted, and its VMI as well."""


def fill(api: ControlPlane, have: int, want: int) -> None:
    """Create VMs and VMIs number `have` to `want`, every hundredth of them stuck."""
    for number in range(NAMESPACES):
        api.request("POST", "/api/v1/namespaces", {"metadata": {"name": f"team-{number}"}})
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: _pair(api, number), range(have, want)))


def _pair(api: ControlPlane, number: int) -> None:
    namespace, name = f"team-{number % NAMESPACES}", f"vm-{number}"
    machine = _made(api, VM.path(namespace), builders.vm(namespace, name))
    instance = builders.vmi(namespace, name, f"node-{number % NODES}", owner=machine)
    _made(api, VMI.path(namespace), instance)
    if number % STUCK_EVERY == 0:
        for kind in (VMI, VM):
            status, answer = api.request("DELETE", kind.path(namespace, name))
            assert status == 200, answer


@contextmanager
def nodes(api: ControlPlane) -> Iterator[None]:
    """The nodes of the guests, which answer for as long as this lasts."""
    over = threading.Event()
    for number in range(NODES):
        node = builders.node(f"node-{number}", "True")
        _answered(api.request("POST", NODE.path(), node), 201)
        path = f"{NODE.path(None, f'node-{number}')}/status"
        patch = {"status": node["status"]}
        _answered(api.request("PATCH", path, patch, content_type=MERGE), 200)
        lease = builders.lease(f"node-{number}", _now())
        _answered(api.request("POST", LEASE.path(LEASE_NAMESPACE), lease), 201)

    def renew() -> None:
        while not over.wait(BEAT):
            for number in range(NODES):
                path = LEASE.path(LEASE_NAMESPACE, f"node-{number}")
                spec = builders.lease("", _now())["spec"]["renewTime"]
                api.request("PATCH", path, {"spec": {"renewTime": spec}}, content_type=MERGE)

    kubelets = threading.Thread(target=renew, daemon=True)
    kubelets.start()
    try:
        yield
    finally:
        over.set()
        kubelets.join()


def _now() -> str:
    return builders.time(datetime.now(timezone.utc))


def _answered(answer: tuple[int, Any], status: int) -> None:
    assert answer[0] == status, answer


def padded(body: dict[str, Any]) -> dict[str, Any]:
    """The object as large as a real one: a third of it annotations, the rest its devices."""
    disks = [{"name": f"disk-{n}", "disk": {"bus": "virtio"}, "bootOrder": n} for n in range(64)]
    body["spec"]["padding"] = disks
    body["metadata"]["annotations"] = {"harvesterhci.io/volumeClaimTemplates": "x" * (SIZE // 3)}
    return body


def _made(api: ControlPlane, path: str, body: dict[str, Any]) -> dict[str, Any]:
    status, answer = api.request("POST", path, padded(body))
    assert status == 201, answer
    return answer


@dataclass
class Counter:
    """The bytes that went through."""

    received: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, size: int) -> None:
        """Count `size` bytes more; safe from several threads."""
        with self.lock:
            self.received += size


@contextmanager
def counted(port: int) -> Iterator[tuple[int, Counter]]:
    """A port of this machine that leads to `port`, and what came back from there."""
    counter = Counter()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    near, _ = listener.accept()
                    far = socket.create_connection(("127.0.0.1", port))
                    for source, sink, count in ((near, far, None), (far, near, counter)):
                        threading.Thread(
                            target=_pump, args=(source, sink, count), daemon=True
                        ).start()

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1], counter
        listener.shutdown(socket.SHUT_RDWR)


def _pump(source: socket.socket, sink: socket.socket, counter: Counter | None) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            if counter is not None:
                counter.add(len(data))
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
