"""Run a real etcd and kube-apiserver on loopback, for one test process."""

from __future__ import annotations

import atexit
import base64
import contextlib
import json
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import urllib3
import yaml

from tests.components.controlplane.build import programs
from tests.components.controlplane.webhook import DenyingServer
from tests.support import schemaless
from tests.support.recorded import Recorded
from tests.support.resources import RESOURCES, path_of, resource_of

CRDS = Path(__file__).parents[2] / "crds"
MERGE_PATCH = "application/merge-patch+json"

# How the server's own clean-up and set-up requests are told from those of the code under test.
_HOUSEKEEPING = "controlplane-housekeeping"

_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "users": ["system:apiserver"]},
        {
            "level": "RequestResponse",
            "resources": [
                {"group": "kubevirt.io"},
                {"group": "", "resources": ["pods"]},
                {"group": "authorization.k8s.io"},
            ],
        },
        {"level": "Request"},
    ],
}

# A child of this process that must not outlive it, even when it is killed.
DIE_WITH_PARENT = (
    "import ctypes, os, signal, sys;"
    "ctypes.CDLL(None).prctl(1, signal.SIGKILL);"  # PR_SET_PDEATHSIG
    "os.execv(sys.argv[1], sys.argv[1:])"
)

# The HTTP methods behind the verbs of the audit log.
_METHODS = {
    "get": "GET",
    "list": "GET",
    "watch": "GET",
    "create": "POST",
    "update": "PUT",
    "patch": "PATCH",
    "delete": "DELETE",
    "deletecollection": "DELETE",
}


@dataclass(eq=False)
class Admission:
    """A webhook that was registered; `remove` takes it away and waits until it is gone."""

    namespace: str
    remove: Callable[[], None]


class ControlPlane:
    """etcd and kube-apiserver with RBAC, the CRDs of `tests/crds` and an audit log.

    `users` maps further user names to their groups; `admin` (system:masters), `alice` and `bob`
    (no groups, no rights) always exist. Start it from a thread that lives as long as it does:
    on Linux its processes die with that thread.
    """

    def __init__(self, users: Mapping[str, Sequence[str]] | None = None) -> None:
        self.users: dict[str, tuple[str, ...]] = {
            "admin": ("system:masters",),
            "alice": (),
            "bob": (),
        }
        self.users |= {name: tuple(groups) for name, groups in (users or {}).items()}
        self.tokens = {name: secrets.token_hex(16) for name in self.users}
        self.url = ""
        self.ca_data: bytes | None = None
        self._etcd: subprocess.Popen[bytes] | None = None
        self._apiserver: subprocess.Popen[bytes] | None = None
        self._http: urllib3.PoolManager | None = None
        self._denying: DenyingServer | None = None
        self._admissions: list[Admission] = []
        self._created: list[dict[str, Any]] = []
        self._audit_offset = 0

    # Life

    def __enter__(self) -> ControlPlane:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start both programs, install the CRDs and wait until everything answers.

        RuntimeError with the end of the program's log when one of them does not come up.
        """
        self._programs = programs()
        self._dir = Path(tempfile.mkdtemp(prefix="controlplane-"))
        self._reserved = [_reserve_port() for _ in range(3)]
        ports = [reserved.getsockname()[1] for reserved in self._reserved]
        self.url = f"https://127.0.0.1:{ports[0]}"
        self._etcd_url, self._etcd_peer_url = (f"http://127.0.0.1:{port}" for port in ports[1:])
        self._audit_log = self._dir / "audit.log"
        self._write_configuration()
        atexit.register(self.stop)
        try:
            self._start_etcd()
            self.start_apiserver()
        except BaseException:
            self.stop()
            raise
        self.forget()

    def stop(self) -> None:
        """Stop both programs and remove everything that they wrote. Harmless when stopped."""
        if not self.url:
            return
        atexit.unregister(self.stop)
        self.stop_apiserver()
        self._http = None
        if self._denying:
            self._denying.close()
            self._denying = None
        if self._etcd:
            _stop(self._etcd)
            self._etcd = None
        for reserved in self._reserved:
            reserved.close()
        shutil.rmtree(self._dir)
        self._admissions, self._created = [], []
        self.url = ""

    def start_apiserver(self) -> None:
        """Start the API server and wait until it serves every kind of `RESOURCES`.

        After `stop_apiserver` it has the same port, certificate and objects as before.
        """
        port = self.url.rpartition(":")[2]
        self._apiserver = self._spawn(
            "kube-apiserver",
            f"--etcd-servers={self._etcd_url}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={port}",
            "--permit-port-sharing",
            f"--cert-dir={self._dir}",
            "--endpoint-reconciler-type=none",
            "--enable-aggregator-routing",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self._dir / 'sa.key'}",
            f"--service-account-signing-key-file={self._dir / 'sa.key'}",
            f"--token-auth-file={self._dir / 'tokens.csv'}",
            "--anonymous-auth=false",
            "--authorization-mode=RBAC",
            # No controller runs that would take off the taint that TaintNodesByCondition sets.
            "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition",
            f"--audit-policy-file={self._dir / 'audit-policy.json'}",
            f"--audit-log-path={self._audit_log}",
            "--audit-log-mode=blocking",
            "--audit-log-maxsize=100000",  # MB; a rotated log would lose what was recorded
        )
        # The CRDs go in as early as can be: a custom resource is only created without delay when
        # its CRD has been established for two seconds.
        self._wait(self._apiserver, "answer", lambda: self._readyz() is not None)
        self._wait(self._apiserver, "take the CRDs", self._crds_installed)
        self._wait(self._apiserver, "be ready", lambda: self._readyz() == 200)
        self._wait(self._apiserver, "serve every kind", self._everything_served)

    def stop_apiserver(self) -> None:
        """Stop the API server; its port then refuses connections. etcd keeps the objects."""
        if self._apiserver:
            _stop(self._apiserver)
            self._apiserver = None
        if self._http:
            self._http.clear()

    # Access

    def kubeconfig(
        self,
        user: str = "admin",
        *,
        namespace: str = "default",
        context: str = "test",
        **user_fields: Any,
    ) -> dict[str, Any]:
        """A complete kubeconfig with `user`'s token; `user_fields` go into its user entry."""
        cluster: dict[str, Any] = {"server": self.url}
        if self.ca_data:
            cluster["certificate-authority-data"] = base64.b64encode(self.ca_data).decode()
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": context, "cluster": cluster}],
            "users": [{"name": user, "user": {"token": self.tokens[user], **user_fields}}],
            "contexts": [
                {
                    "name": context,
                    "context": {"cluster": context, "user": user, "namespace": namespace},
                }
            ],
            "current-context": context,
        }

    def request(
        self,
        method: str,
        path: str,
        body: object | None = None,
        *,
        content_type: str = "application/json",
        user: str = "admin",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, dict[str, Any]]:
        """Send one request as `user`: the HTTP status and the JSON answer.

        An answer that is not a JSON object is returned as {"text": …}. No HTTP status raises.
        """
        if self._http is None:
            raise RuntimeError("the control plane is not running")
        answer = self._http.request(
            method,
            self.url + path,
            body=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self.tokens[user]}",
                "Accept": "application/json",
                "Content-Type": content_type,
                "User-Agent": "controlplane-test",
                **(headers or {}),
            },
            retries=False,
            timeout=30,
        )
        try:
            parsed = json.loads(answer.data)
        except ValueError:
            parsed = None
        if isinstance(parsed, dict):
            return answer.status, parsed
        return answer.status, {"text": answer.data.decode(errors="replace")}

    def create(self, obj: dict[str, Any]) -> dict[str, Any]:
        """Create `obj` as admin, with its status. AssertionError with the Status when refused."""
        resource = resource_of(obj)
        collection = resource.path(obj["metadata"].get("namespace"))
        apart = resource.status_subresource and "status" in obj
        sent = {key: value for key, value in obj.items() if not (apart and key == "status")}
        made = self._expect("POST", collection, sent)
        self._created.append(made)
        if apart:
            made |= {"status": obj["status"]}
            made = self._expect("PUT", f"{path_of(made)}/status", made)
        return made

    def get(self, obj: dict[str, Any]) -> dict[str, Any] | None:
        """`obj` as it stands now; None only when the API server says that there is none."""
        status, body = self._send("GET", path_of(obj))
        if status == 404:
            return None
        assert status == 200, body
        return body

    def delete(self, obj: dict[str, Any], **delete_options: Any) -> None:
        """Delete `obj` as admin, with these fields of DeleteOptions."""
        self._expect("DELETE", path_of(obj), delete_options or None)

    # What was asked of the server

    def recorded(self) -> list[Recorded]:
        """What was sent since `forget`, `request` included, in the order of the answers.

        A watch is recorded when it ends. The body of a patch is the one that was sent; that of
        a POST is what the API server made of it, so a built-in type has its empty fields too. The
        requests behind `create`, `get`, `delete`, `wipe` and the webhooks are left out.
        """
        return [_recorded(event) for event in self._events() if _is_asked(event)]

    def watches(self) -> list[str]:
        """The paths, with query, of the watches that have begun since `forget`."""
        return [
            event["requestURI"]
            for event in self._events()
            if event["verb"] == "watch" and event["stage"] == "ResponseStarted"
        ]

    def _events(self) -> list[dict[str, Any]]:
        with self._audit_log.open("rb") as log:
            log.seek(self._audit_offset)
            return [json.loads(line) for line in log if line.endswith(b"\n")]

    def forget(self) -> None:
        """Forget what was recorded."""
        self._audit_offset = self._audit_log.stat().st_size

    # Admission webhooks

    def deny_updates(
        self,
        resource_plural: str,
        message: str,
        *,
        webhook: str = "validator.harvesterhci.io",
        namespace: str,
        operations: tuple[str, ...] = ("UPDATE",),
    ) -> Admission:
        """Deny UPDATE of a resource and its status in `namespace`, with `message`.

        Or whatever else `operations` names.
        """
        if self._denying is None:
            self._denying = DenyingServer(self._dir / "apiserver.crt", self._dir / "apiserver.key")
        path = f"/{secrets.token_hex(4)}"
        self._denying.denials[path] = message
        client = {
            "url": self._denying.url(path),
            "caBundle": base64.b64encode(self.ca_data or b"").decode(),
        }
        return self._register(resource_plural, namespace, webhook, client, message, operations)

    def break_webhook(
        self,
        resource_plural: str,
        namespace: str,
        *,
        webhook: str = "validator.harvesterhci.io",
    ) -> Admission:
        """Register a webhook for UPDATE whose Service has no endpoints: nobody answers."""
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "harvester-webhook", "namespace": namespace},
            "spec": {"ports": [{"port": 443}]},
        }
        # A controller would make them; before 1.33 a Service without them fails in other words.
        endpoints = {"apiVersion": "v1", "kind": "Endpoints", "metadata": service["metadata"]}
        core = f"/api/v1/namespaces/{namespace}"
        self._expect("POST", f"{core}/services", service)
        self._expect("POST", f"{core}/endpoints", endpoints)
        client = {"service": {"name": "harvester-webhook", "namespace": namespace}}
        words = 'no endpoints available for service "harvester-webhook"'
        admission = self._register(resource_plural, namespace, webhook, client, words)
        unregister = admission.remove

        def remove() -> None:
            unregister()
            for plural in ("services", "endpoints"):
                self._send("DELETE", f"{core}/{plural}/harvester-webhook")

        admission.remove = remove
        return admission

    # Clean-up

    def wipe(self, namespace: str) -> None:
        """Remove all objects and webhooks in `namespace`, and all that `create` made elsewhere.

        Finalizers are taken off and pods are deleted without grace. A namespace that `create`
        made goes with everything in it.
        """
        made, self._created = self._created, []
        emptied = {namespace} | {
            obj["metadata"]["name"] for obj in made if obj["kind"] == "Namespace"
        }
        for admission in [each for each in self._admissions if each.namespace in emptied]:
            admission.remove()
        # A webhook of the test's own would veto the rest.
        made.sort(key=lambda obj: obj["kind"] != "ValidatingWebhookConfiguration")
        for obj in made:
            if obj["kind"] != "Namespace" and obj["metadata"].get("namespace") not in emptied:
                self._remove(path_of(obj))
        for name in emptied:
            for resource in RESOURCES.values():
                if resource.namespaced:
                    listed = self._expect("GET", resource.path(name))
                    for item in listed["items"]:
                        self._remove(resource.path(name, item["metadata"]["name"]))
        for obj in made:
            if obj["kind"] == "Namespace":
                self._remove_namespace(path_of(obj))

    # Inside

    def _send(
        self, method: str, path: str, body: object | None = None, content_type: str | None = None
    ) -> tuple[int, dict[str, Any]]:
        return self.request(
            method,
            path,
            body,
            content_type=content_type or "application/json",
            headers={"User-Agent": _HOUSEKEEPING},
        )

    def _expect(self, method: str, path: str, body: object | None = None) -> dict[str, Any]:
        status, answer = self._send(method, path, body)
        assert status < 300, f"{method} {path}: {status} {json.dumps(answer, indent=1)}"
        return answer

    def _remove(self, path: str) -> None:
        bare = {"metadata": {"finalizers": None}}
        status, answer = self._send("PATCH", path, bare, MERGE_PATCH)
        if status == 200:
            options = {"gracePeriodSeconds": 0, "propagationPolicy": "Background"}
            status, answer = self._send("DELETE", path, options)
        assert status in (200, 202, 404), f"{path}: {status} {answer}"

    def _remove_namespace(self, path: str) -> None:
        # A namespace goes when its own finalizer list, in spec, is emptied by "finalize".
        self._send("DELETE", path)
        status, namespace = self._send("GET", path)
        if status == 200:
            self._expect("PUT", f"{path}/finalize", namespace | {"spec": {"finalizers": []}})

    def _register(
        self,
        plural: str,
        namespace: str,
        webhook: str,
        client: dict[str, Any],
        words: str,
        operations: tuple[str, ...] = ("UPDATE",),
    ) -> Admission:
        """Register a webhook and wait until its answer contains `words`."""
        everywhere = {"apiGroups": ["*"], "apiVersions": ["*"]}
        configuration = {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": f"{webhook}-{secrets.token_hex(4)}"},
            "webhooks": [
                {
                    "name": webhook,
                    "clientConfig": client,
                    "namespaceSelector": {
                        "matchLabels": {"kubernetes.io/metadata.name": namespace}
                    },
                    "rules": [
                        {
                            **everywhere,
                            "operations": list(operations),
                            "resources": [plural, f"{plural}/status"],
                        },
                        # The dry run with which `in_force` sees whether the webhook is asked.
                        {**everywhere, "operations": ["CREATE"], "resources": ["configmaps"]},
                    ],
                    "sideEffects": "None",
                    "failurePolicy": "Fail",
                    "admissionReviewVersions": ["v1"],
                    "timeoutSeconds": 5,
                }
            ],
        }
        path = path_of(configuration)
        probe = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "probe"}}

        def in_force() -> bool:
            configmaps = f"/api/v1/namespaces/{namespace}/configmaps?dryRun=All"
            status, answer = self._send("POST", configmaps, probe)
            return status >= 400 and words in answer.get("message", "")

        def remove() -> None:
            if admission in self._admissions:
                self._admissions.remove(admission)
                self._expect("DELETE", path)
                _poll(f"{path} is still in force", lambda: not in_force())

        admission = Admission(namespace, remove)
        self._expect("POST", path.rpartition("/")[0], configuration)
        self._admissions.append(admission)
        _poll(f"{path} is not in force", in_force)
        return admission

    def _write_configuration(self) -> None:
        rows = [
            f'{self.tokens[name]},{name},{name},"{",".join(groups)}"'
            for name, groups in self.users.items()
        ]
        (self._dir / "tokens.csv").write_text("\n".join(rows))
        (self._dir / "audit-policy.json").write_text(json.dumps(_AUDIT_POLICY))
        (self._dir / "sa.key").write_text(_private_key())
        self._audit_log.touch()

    def _start_etcd(self) -> None:
        self._etcd = self._spawn(
            "etcd",
            f"--data-dir={self._dir / 'etcd'}",
            f"--listen-client-urls={self._etcd_url}",
            f"--advertise-client-urls={self._etcd_url}",
            f"--listen-peer-urls={self._etcd_peer_url}",
            f"--initial-advertise-peer-urls={self._etcd_peer_url}",
            f"--initial-cluster=default={self._etcd_peer_url}",
            "--socket-reuse-port",
            "--unsafe-no-fsync",
            # It is the only member: nobody else's heartbeat is worth waiting for.
            "--heartbeat-interval=10",
            "--election-timeout=100",
        )

    def _spawn(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [str(self._programs / program), *arguments]
        if sys.platform == "linux":
            command = [sys.executable, "-E", "-S", "-c", DIE_WITH_PARENT, *command]
        with (self._dir / f"{program}.log").open("ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._dir
            )

    def _wait(
        self, process: subprocess.Popen[bytes], goal: str, reached: Callable[[], bool]
    ) -> None:
        def alive_and_reached() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"kube-apiserver ended ({process.returncode})\n{self._tails()}")
            return reached()

        try:
            _poll(f"kube-apiserver does not {goal}", alive_and_reached, seconds=60)
        except TimeoutError as error:
            raise RuntimeError(f"{error}\n{self._tails()}") from error

    def _tails(self) -> str:
        return "\n".join(
            f"{log.name}: …{log.read_text(errors='replace')[-2000:]}"
            for log in sorted(self._dir.glob("*.log"))
            if log != self._audit_log
        )

    def _readyz(self) -> int | None:
        """The HTTP status of /readyz; None while nobody answers."""
        if self._http is None:
            # The server writes its own certificate, followed by that of its authority.
            certificates = self._dir / "apiserver.crt"
            pem = certificates.read_bytes() if certificates.exists() else b""
            if pem.count(b"-----END CERTIFICATE-----") < 2:
                return None
            self.ca_data = pem[pem.rindex(b"-----BEGIN CERTIFICATE-----") :]
            self._http = urllib3.PoolManager(maxsize=8, ca_cert_data=self.ca_data.decode())
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            return self._send("GET", "/readyz")[0]
        return None

    def _crds_installed(self) -> bool:
        """Create the CRDs that are missing; False while the API server is not up to it."""
        collection = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        definitions = [
            definition
            for file in sorted(CRDS.glob("*.yaml"))
            for definition in yaml.safe_load_all(file.read_text())
        ]
        named = {definition["metadata"]["name"] for definition in definitions}
        definitions += [
            schemaless.definition(
                resource.api_version,
                "Namespaced" if resource.namespaced else "Cluster",
                resource.plural,
                resource.kind,
                status=resource.status_subresource,
            )
            for resource in RESOURCES.values()
            if "." in resource.group
            and not resource.group.endswith(".k8s.io")
            and f"{resource.plural}.{resource.group}" not in named
        ]
        with ThreadPoolExecutor(8) as threads:
            answers = list(
                threads.map(lambda each: self._send("POST", collection, each), definitions)
            )
        for status, answer in answers:
            assert status in (201, 409, 429, 503), answer
        return all(status in (201, 409) for status, _ in answers)

    def _everything_served(self) -> bool:
        namespaces = [
            RESOURCES["Namespace"].path(None, name)
            for name in ("default", "kube-system", "kube-node-lease")
        ]
        collections = {each.path(None): each.optional for each in RESOURCES.values()}
        return all(
            status == 200 or (status == 404 and may_be_missing)
            for path, may_be_missing in {**dict.fromkeys(namespaces, False), **collections}.items()
            for status, _ in [self._send("GET", path)]
        )


def _is_asked(event: Mapping[str, Any]) -> bool:
    """Whether an audit event is the end of a request of the code under test.

    The API server writes a request that fails authentication at stage ResponseStarted only.
    """
    status = event.get("responseStatus", {}).get("code")
    ended = event["stage"] == "ResponseComplete" or status == 401
    return ended and event.get("userAgent") != _HOUSEKEEPING


def _recorded(event: Mapping[str, Any]) -> Recorded:
    impersonated = event.get("impersonatedUser", {})
    return Recorded(
        method=_METHODS.get(event["verb"], event["verb"].upper()),
        path=event["requestURI"],
        user=event["user"].get("username", ""),
        groups=tuple(event["user"].get("groups", ())),
        impersonated_user=impersonated.get("username"),
        impersonated_groups=tuple(impersonated.get("groups", ())),
        body=event.get("requestObject"),
        status=event["responseStatus"]["code"],
        user_agent=event.get("userAgent", ""),
    )


def _poll(complaint: str, done: Callable[[], bool], *, seconds: float = 20) -> None:
    """Ask `done` every 20 ms; TimeoutError with `complaint` when it is not true in time."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{complaint} after {seconds:.0f} s")
        time.sleep(0.02)


def _reserve_port() -> socket.socket:
    """A bound socket that never listens.

    It keeps the port for the one program that binds it with SO_REUSEPORT as well, also while
    that program is stopped.
    """
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _private_key() -> str:
    """A new P-256 private key in PEM (RFC 5915), which needs no cryptography to write down."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    number = (secrets.randbelow(order - 1) + 1).to_bytes(32, "big")
    der = bytes.fromhex("30310201010420") + number + bytes.fromhex("a00a06082a8648ce3d030107")
    body = base64.b64encode(der).decode()
    return f"-----BEGIN EC PRIVATE KEY-----\n{body}\n-----END EC PRIVATE KEY-----\n"
