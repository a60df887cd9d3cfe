"""An admission webhook server that runs inside the test process and denies what it is asked."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class DenyingServer:
    """Answers every AdmissionReview with the denial registered for its URL path.

    `certificate` and `key` are PEM files; the certificate must name 127.0.0.1.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self.denials: dict[str, str] = {}
        denials = self.denials

        class Handler(BaseHTTPRequestHandler):
            timeout = 30  # seconds

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                review = json.loads(self.rfile.read(length))
                answer = json.dumps(_denied(review, denials[self.path.partition("?")[0]])).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Stay silent: the tests look at what the API server says."""

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)

        class Server(ThreadingHTTPServer):
            def get_request(self) -> tuple[socket.socket, Any]:
                plain, address = super().get_request()
                # The handshake is left to the first read, in the request's own thread.
                secure = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
                return secure, address

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def url(self, path: str) -> str:
        """The URL under which the API server reaches `path`."""
        return f"https://127.0.0.1:{self._server.server_port}{path}"

    def close(self) -> None:
        """Stop answering and free the port."""
        self._server.shutdown()
        self._server.server_close()


def _denied(review: dict[str, Any], message: str) -> dict[str, Any]:
    # Code and reason are those with which Harvester's validators reject an invalid VM.
    return {
        "apiVersion": review["apiVersion"],
        "kind": review["kind"],
        "response": {
            "uid": review["request"]["uid"],
            "allowed": False,
            "status": {
                "status": "Failure",
                "message": message,
                "reason": "Invalid",
                "code": 422,
            },
        },
    }
