"""A request to the API server, and its answer, as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from kubectl_harvester_stuck.errors import UnreachableError
from kubectl_harvester_stuck.k8s import nesting

if TYPE_CHECKING:
    import urllib3


@dataclass(frozen=True)
class Request:
    """What is asked of the API server.

    `path` begins with a slash and is appended to the server's; `body` is sent as JSON. `timeout`,
    in seconds, is for this request alone where it is shorter than the usual one. `retryable` says
    of another method than GET that it changes nothing, however often it is sent.
    """

    method: str
    path: str
    query: Sequence[tuple[str, str]] = ()
    body: object | None = None
    content_type: str = "application/json"
    accept: str = "application/json"
    timeout: float | None = None
    retryable: bool = False

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class Response:
    """A whole answer of the server. `headers` ignore case and know `getlist`."""

    status: int
    headers: urllib3.HTTPHeaderDict
    body: bytes
    url: str = ""

    def json(self) -> Any:
        """The decoded body; UnreachableError if it is not JSON.

        Objects in it that are nested too deep are TooDeepObjects.
        """
        try:
            return nesting.parse_answer(self.body)
        except ValueError:
            raise UnreachableError(
                f"the answer of {self.url or 'the server'} (HTTP {self.status}) is not JSON: "
                "check that the server is a Kubernetes API server"
            ) from None

    @property
    def date(self) -> datetime | None:
        """When the server answered by its own clock, in UTC; None if it does not say."""
        try:
            date = parsedate_to_datetime(self.headers.get("Date", ""))
        except (TypeError, ValueError):
            return None
        if date.tzinfo is None:
            date = date.replace(tzinfo=timezone.utc)
        return date.astimezone(timezone.utc)
