"""Validating webhooks that deny, or that cannot be reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.support.resources import Resource

from .status import ApiError, internal_error, qualified

NO_ENDPOINTS = 'no endpoints available for service "harvester-webhook"'
REFUSED = "dial tcp 10.53.171.20:443: connect: connection refused"


@dataclass(frozen=True)
class Webhook:
    """One registered webhook; it covers the status subresource as well."""

    resource: str
    namespace: str | None
    operations: tuple[str, ...]
    error: Callable[[], ApiError]

    def covers(self, operation: str, resource: Resource, namespace: str | None) -> bool:
        return (
            operation in self.operations
            and self.resource in (resource.plural, qualified(resource))
            and self.namespace in (None, namespace)
        )


@dataclass(frozen=True)
class Handle:
    """What undoes a registration: a webhook, or a fault."""

    remove: Callable[[], None]


class Admission:
    """The webhooks of the server, asked in the order in which they were registered."""

    def __init__(self) -> None:
        self._webhooks: list[Webhook] = []

    def add(self, webhook: Webhook) -> None:
        self._webhooks.append(webhook)

    def remove(self, webhook: Webhook) -> None:
        """Remove it; nothing happens when it is gone already."""
        self._webhooks = [other for other in self._webhooks if other is not webhook]

    def forget(self, namespace: str) -> None:
        """Remove the webhooks of that namespace alone."""
        self._webhooks = [other for other in self._webhooks if other.namespace != namespace]

    def validate(self, operation: str, resource: Resource, namespace: str | None) -> None:
        """ApiError when a webhook denies the operation or cannot be asked."""
        for webhook in self._webhooks:
            if webhook.covers(operation, resource, namespace):
                raise webhook.error()


def denial(webhook: str, message: str, code: int, reason: str) -> ApiError:
    """What the server answers when `webhook` denies.

    Code and reason are the webhook's own; without a code the server says 400 and no reason.
    """
    denied = f'admission webhook "{webhook}" denied the request'
    return ApiError(
        code,
        reason,
        f"{denied}: {message}" if message else f"{denied} without explanation",
    )


def unreachable(webhook: str, cause: str) -> ApiError:
    """What the server answers when `webhook` has failurePolicy Fail and cannot be asked."""
    service = "https://harvester-webhook.harvester-system.svc:443/v1/webhook/validation"
    return internal_error(
        f'failed calling webhook "{webhook}": failed to call webhook: '
        f'Post "{service}?timeout=10s": {cause}'
    )
