"""Expected failures, and the exit statuses; `cli.exit_status` says which result ends in which.

An expected failure is a `StuckError`: one line for the operator that says what to do next, never
a traceback. Anything else that is raised is a bug and keeps its traceback. Nothing here imports
the Kubernetes client, click or another module of this package.
"""

from __future__ import annotations

import re
from enum import IntEnum, unique


@unique
class ExitStatus(IntEnum):
    """What the process answers; the numbers are promised to scripts."""

    OK = 0
    """Done as asked, with a positive reason."""
    ERROR = 1
    """Could not: unreachable, not found, invalid kubeconfig, or a bug."""
    USAGE = 2
    """Wrong flags or arguments."""
    STUCK = 3
    """`--exit-code` was given and something is stuck."""
    REFUSED = 4
    """A guard or a webhook said no, the plan changed, or nobody confirmed; nothing was changed."""
    UNVERIFIED = 5
    """Something was changed, but not everything is gone, or it could not be looked at."""
    INCOMPLETE = 6
    """Part of what was asked could not be read; the rest is shown, the missing part is named."""


class StuckError(Exception):
    """An expected failure: `str()` is one line for the operator."""


class KubeconfigError(StuckError):
    """The kubeconfig, or a credential that it names, cannot be used."""


class UnreachableError(StuckError):
    """No HTTP answer came, or not a whole one: what the request did is not known."""


class CutShortError(UnreachableError):
    """The connection ended in the middle of an answer."""


NOT_SERVED = "NotServed"
"""Our reason for the API server's 404 about a whole group; a gateway's page is not that."""


_TIME_LIMITS = (408, 499)
"""Statuses of gateways that did not wait for the answer."""


_WORDS_OF_ADMISSION = (
    "admission webhook",
    "failed calling webhook",
    "ValidatingAdmissionPolicy '",
)


class ApiError(StuckError):
    """The API server answered with an HTTP error.

    `code` is the HTTP status, `reason` the Status reason (empty when there was no Status),
    `message` the server's words, `about` the name of the object that the Status speaks of.
    `is_kubernetes` says whether there was a Status: a gateway answers with pages of its own.
    """

    def __init__(
        self, code: int, reason: str, message: str, about: str = "", *, is_kubernetes: bool = True
    ) -> None:
        super().__init__(f"Error from server ({reason or code}): {message}")
        self.code = code
        self.reason = reason
        self.message = message
        self.about = about
        self.is_kubernetes = is_kubernetes

    @property
    def is_final(self) -> bool:
        """Whether the request that was answered so is not carried out later, either.

        An answer of 5xx, or of a time limit, can come before, or after, a change was stored.
        """
        return self.is_from_admission or (self.code < 500 and self.code not in _TIME_LIMITS)

    @property
    def is_unserved(self) -> bool:
        """Whether the API server says that it has no such kind, where no object was found."""
        return self.code == 404 and self.reason in ("NotFound", NOT_SERVED)

    @property
    def is_from_admission(self) -> bool:
        """Whether a webhook or a policy denied the request, or a webhook could not be called.

        The HTTP status does not tell: webhooks answer with 400, 403, 422 and 500 alike.
        """
        return any(words in self.message for words in _WORDS_OF_ADMISSION)


_FORBIDDEN = "Error from server (Forbidden)"
_USER = re.compile(r'User "[^"]*"')


def is_forbidden(why: str) -> bool:
    """Whether the API server said no to the user."""
    return why.startswith(_FORBIDDEN)


def users(why: str) -> list[str]:
    """The users to whom the API server said no, as it names them: `User "alice"`."""
    return _USER.findall(why)


def in_short(why: str) -> str:
    """The reason, without what the API server repeats of a request that it forbids."""
    if not is_forbidden(why):
        return why
    return f"Forbidden: {next(iter(users(why)), 'this user')} may not read it"


class UnreadableError(StuckError):
    """A decision needs something that could not be read; never to be taken for its absence."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"could not read {what}: {in_short(why)}")
        self.what = what
        self.why = why
        """The whole reason; the message of this error holds `in_short` of it."""


class NotFoundError(StuckError):
    """A target that was named does not exist."""


class RefusedError(StuckError):
    """The operator did not confirm, or what was confirmed is no longer what would be done."""

    def __init__(self, message: str, command: str = "") -> None:
        super().__init__(message)
        self.command = command
        """The line that confirms it, to be pasted; "" where there is none."""


class StatementError(StuckError):
    """The operator states something that cannot be meant; nothing was changed."""


class BackupError(StuckError):
    """What would be changed could not be saved first, so nothing was changed."""


class DumpError(StuckError):
    """A file that was named with -f cannot be used."""


class JournalError(StuckError):
    """The journal cannot be written or read; what it cannot tell first is not sent."""


class StateError(StuckError):
    """The environment does not say where undo files and journal are."""


class RestoreError(StuckError):
    """A file from which no VM can be made again."""
