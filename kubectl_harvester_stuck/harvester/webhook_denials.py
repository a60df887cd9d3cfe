"""What to do about a denial: the words of the admission webhooks on a Harvester cluster.

Harvester's validator looks at the whole VM on every update, also at one that is being deleted, so
it can veto the removal of a finalizer for a reason that has nothing to do with it. What each
release says is in `denial_catalogue`.

A text is recognised by its beginning, behind the words with which the API server introduces it; a
name stands only where the webhook writes one, and cannot be taken for a reason.
"""

from __future__ import annotations

import re

from kubectl_harvester_stuck.harvester import admission_policies
from kubectl_harvester_stuck.harvester.denial_catalogue import CATALOGUE, Denial, Release

UNKNOWN_CURE = "mend what the webhook complains about, and try again"

# A webhook may quote another one, whose denial it met itself.
_BEFORE = re.compile(
    r"denied the request: (?:admission webhook \S+ denied the request: )*"
    r"|(?=failed calling webhook )"
)


def find(message: str, release: Release | None = None) -> Denial | None:
    """The entry for a message of the API server, or for a line of a log that quotes one.

    None where nothing in it is known of that release. Every release counts while it is not known.
    """
    before = _BEFORE.search(message)
    if before is None:
        return None
    said = message[before.end() :]
    return next(
        (one for one in CATALOGUE if one.is_of(release) and one.pattern.match(said)),
        None,
    )


def cure_of(message: str, release: Release | None = None) -> str:
    """What to do first, for a message of an admission webhook or of a policy."""
    if (cure := admission_policies.cure_of(message)) is not None:
        return cure
    found = find(message, release)
    return found.cure if found is not None else UNKNOWN_CURE
