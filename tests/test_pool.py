"""The import of the Kubernetes client: not before it is needed, and only what is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

UNUSED = tuple(
    f"kubernetes.{part}"
    for part in ("client.api", "client.models", "config", "dynamic", "stream", "watch")
)


def python(code: str) -> str:
    """What `code` prints in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def test_the_transport_does_not_import_the_client() -> None:
    code = (
        "import sys, kubectl_harvester_stuck.connection.transport\n"
        "print([name for name in ('kubernetes', 'urllib3', 'yaml', 'ssl') if name in sys.modules])"
    )
    assert python(code) == "[]"


def test_only_the_two_modules_that_are_used_are_loaded() -> None:
    code = (
        "import sys\n"
        "from kubectl_harvester_stuck.connection.pool import import_client\n"
        "configuration, rest = import_client()\n"
        "print(configuration.__name__, rest.__name__)\n"
        "print(*sorted(name for name in sys.modules if name.startswith('kubernetes')))\n"
    )
    classes, loaded = python(code).splitlines()
    assert classes == "Configuration RESTClientObject"
    assert {"kubernetes.client.configuration", "kubernetes.client.rest"} <= {*loaded.split()}
    assert not [name for name in loaded.split() if name.startswith(UNUSED)]
    assert not {"kubernetes", "kubernetes.client"} & {*loaded.split()}, "whose code has not run"


@pytest.mark.parametrize("first", ["import kubernetes", ""], ids=["plain first", "ours first"])
def test_the_plain_import_works_too(first: str) -> None:
    """Before ours or after it, all of the client is there for whoever wants it."""
    code = (
        f"{first}\n"
        "from kubectl_harvester_stuck.connection.pool import import_client\n"
        "ours = import_client()\n"
        "from kubernetes import client, config, dynamic, stream, watch\n"
        "assert ours[0] is client.Configuration\n"
        "print(config.load_kube_config.__name__, dynamic.DynamicClient.__name__,\n"
        "      watch.Watch.__name__, callable(stream.stream), client.CoreV1Api.__name__)\n"
    )
    assert python(code) == "load_kube_config DynamicClient Watch True CoreV1Api"
