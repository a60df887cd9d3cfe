"""Which versions meet here: of this program, its client, the API server, and Harvester."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

from kubectl_harvester_stuck import __version__
from kubectl_harvester_stuck.errors import ApiError, StuckError, UnreadableError
from kubectl_harvester_stuck.harvester.settings import SERVER_VERSION, value_of, version_of
from kubectl_harvester_stuck.k8s.kinds import SETTING
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef, Unreadable

if TYPE_CHECKING:
    from kubectl_harvester_stuck.cluster.client import Cluster


@dataclass(frozen=True)
class Here:
    """The versions on this machine."""

    program: str
    client: str
    """Of the Python package `kubernetes`."""


@dataclass(frozen=True)
class There:
    """The versions of a cluster."""

    server: str
    harvester: str | None
    """None where there is no such Setting, and where it could not be read: see `missing`."""
    missing: tuple[Unreadable, ...] = ()


def here() -> Here:
    """The versions on this machine."""
    return Here(__version__, metadata.version("kubernetes"))


def there(cluster: Cluster) -> There:
    """The versions of the cluster.

    Raises ApiError and UnreachableError when the API server does not say its own. Harvester's
    stands in its Setting `server-version`.
    """
    server = cluster.version()
    ref = ObjectRef("", SERVER_VERSION, SETTING)
    try:
        body = cluster.get(ref)
        return There(server, value_of(KubeObject.parse_as(ref, body)) or None if body else None)
    except ApiError as error:
        if error.is_unserved:
            return There(server, None)
        return There(server, None, (_missing(error.reason or str(error.code), error.message),))
    except UnreadableError as error:
        return There(server, None, (_missing("Unreadable", error.why),))


def release_of(cluster: Cluster) -> tuple[int, int] | None:
    """Major and minor number of Harvester; None where that cannot be had, for whatever reason."""
    ref = ObjectRef("", SERVER_VERSION, SETTING)
    try:
        body = cluster.get(ref)
        return version_of(KubeObject.parse_as(ref, body)) if body else None
    except StuckError:
        return None


def _missing(reason: str, message: str) -> Unreadable:
    return Unreadable(f"{SETTING.full_name}/{SERVER_VERSION}", "", reason, message)
