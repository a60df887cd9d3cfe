"""Programs that are wrong on purpose: the oracle has to find each of them out."""

from __future__ import annotations

import base64
import json
import ssl
from typing import Any
from urllib import request
from urllib.error import HTTPError

from kubectl_harvester_stuck.errors import ExitStatus
from tests.histories import cluster as k
from tests.histories.cluster import Body, Cluster
from tests.support.simulator import Simulator
from tests.support.world import Run, World


def _run(status: str, items: list[Body] | None = None) -> Run:
    return Run(ExitStatus[status], json.dumps({"items": items or []}), "")


def refuses(*_: str) -> Run:
    """Refuses everything."""
    return _run("REFUSED")


class Strips:
    """What the usual advice says: force-delete the pods, and empty all finalizers."""

    def __init__(self, server: Simulator, world: World) -> None:
        self.cluster = Cluster(server, world.namespace, server.clock.now)
        config = server.kubeconfig()
        self._url = config["clusters"][0]["cluster"]["server"]
        self._token = config["users"][0]["user"]["token"]
        authority = config["clusters"][0]["cluster"]["certificate-authority-data"]
        self._tls = ssl.create_default_context(cadata=base64.b64decode(authority).decode())

    def __call__(self, *_: str) -> Run:
        vmi = self.cluster.get(k.VMI, "web")
        pods = self.cluster.launchers_of(vmi) if vmi else []
        if not self.may(pods):
            return _run("REFUSED")
        for pod in pods:
            self._send("DELETE", pod, {"gracePeriodSeconds": 0})
        for kind in (k.VMI, k.VM):
            found = self.cluster.get(kind, "web")
            if found is not None and self.goes(found):
                self._send("PATCH", found, {"metadata": {"finalizers": []}})
        return _run("UNVERIFIED")

    def may(self, _pods: list[Body]) -> bool:
        """Whether it goes ahead."""
        return True

    def goes(self, _body: Body) -> bool:
        """Whether the finalizers of this object are emptied."""
        return True

    def _send(self, method: str, body: Body, sent: Any) -> None:
        path = self.cluster.path(body["kind"], body["metadata"]["name"])
        asked = request.Request(
            self._url + path,
            json.dumps(sent).encode(),
            {"Authorization": f"Bearer {self._token}",
             "Content-Type": k.MERGE if method == "PATCH" else "application/json"},
            method=method,
        )  # fmt: skip
        try:
            request.urlopen(asked, context=self._tls).close()
        except HTTPError as error:
            error.close()


class BelievesPods(Strips):
    """Goes ahead once each pod that is left has ended, wherever the guest was."""

    def may(self, pods: list[Body]) -> bool:
        return all(k.all_ended(pod) and k.is_deleting(pod) for pod in pods)

    def goes(self, body: Body) -> bool:
        return k.is_deleting(body)
