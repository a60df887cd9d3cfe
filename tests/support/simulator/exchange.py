"""One request on a connection, and the bytes of its answer."""

from __future__ import annotations

import contextlib
import socket
import threading
import uuid
from collections.abc import Callable
from http import HTTPStatus

from .api import Api, Request, Response
from .clock import Clock


class Exchange:
    """What a fault acts on. Each request is recorded once, before the client can know."""

    def __init__(
        self,
        request: Request,
        connection: socket.socket,
        api: Api,
        clock: Clock,
        stopping: threading.Event,
        record: Callable[[Request, int | None], None],
    ) -> None:
        self.request = request
        self.dropped = False
        self._connection = connection
        self._api = api
        self._clock = clock
        self._stopping = stopping
        self._record = record
        self._response: Response | None = None
        self._recorded = False

    def handle(self) -> Response:
        """Do what is asked, once, and give the answer without sending it."""
        if self._response is None:
            self._response = self._api.handle(self.request)
        return self._response

    def handle_again(self) -> Response:
        """Do what is asked once more, as for a proxy that repeats it, and give the answer."""
        self._response = None
        return self.handle()

    def answer(self) -> None:
        """Do what is asked and send the answer."""
        self.respond(self.handle())

    def respond(self, response: Response) -> None:
        """Send `response`, whatever was asked."""
        self._response = response
        if response.stream is None:
            self.write(self._head(response) + response.body)
            return
        self.write(self._head(response))
        for chunk in response.stream:
            self.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        self.write(b"0\r\n\r\n")

    def halves(self) -> tuple[bytes, bytes]:
        """The answer in bytes, in two parts; the first ends in the middle of the body."""
        response = self.handle()
        middle = len(response.body) // 2
        return self._head(response) + response.body[:middle], response.body[middle:]

    def write(self, content: bytes) -> None:
        """Send bytes as they are."""
        self._remember()
        self._connection.sendall(content)

    def wait(self, seconds: float) -> None:
        """Do nothing for so long, or until the server stops."""
        self._stopping.wait(seconds)

    def drop(self) -> None:
        """Close the connection."""
        self._remember()
        self.dropped = True
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def _remember(self) -> None:
        if not self._recorded:
            self._recorded = True
            self._record(self.request, self._response.status if self._response else None)

    def _head(self, response: Response) -> bytes:
        length = (
            {"Content-Length": str(len(response.body))}
            if response.stream is None
            else {"Transfer-Encoding": "chunked"}
        )
        headers = {
            "Audit-Id": str(uuid.uuid4()),
            "Cache-Control": "no-cache, private",
            "Content-Type": response.content_type,
            "Date": self._clock.now().strftime("%a, %d %b %Y %H:%M:%S GMT"),
            **length,
            **response.headers,
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 {response.status} {_phrase(response.status)}\r\n{lines}\r\n".encode()


def _phrase(code: int) -> str:
    try:
        return HTTPStatus(code).phrase
    except ValueError:
        return "Unknown"
