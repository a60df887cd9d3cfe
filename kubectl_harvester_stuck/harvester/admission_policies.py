"""The ValidatingAdmissionPolicies of deploy/admission.yaml, and what to do when one rejects.

The API server names the policy in its message, which is recognised from its beginning: what comes
later may quote anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

CURES: Mapping[str, str] = {
    "harvester-stuck-patch": (
        "this policy lets operators take finalizers off what is being deleted, and change nothing"
        " else; where a webhook of this cluster changed more, let somebody release it who may"
        " update VMs and VMIs"
    ),
    "harvester-stuck-delete-pod": (
        "this policy lets operators delete pods of guests that are being deleted; let somebody"
        " delete this one who may create pods"
    ),
    "harvester-stuck-create": (
        "this policy lets operators create halted VMs without dataVolumeTemplates; let somebody"
        " restore this one who may update VMs"
    ),
}
"""What to do first about a rejection, by the name of the policy."""

NAMES = tuple(CURES)
"""All of them."""

CURE_OF_OTHERS = (
    "ask whoever made this policy of your cluster, or somebody whom it does not restrict"
)

_REJECTION = re.compile(
    # As `ApiError` introduces it, and a guard before that.
    r"(?:(?:[^:\"]*: )?Error from server \(\w+\): )?"
    r"\S+ \"[^\"]*\" is forbidden: ValidatingAdmissionPolicy '([^']*)'"
)


def cure_of(message: str) -> str | None:
    """What to do first, for a message of the API server; None where no policy rejected."""
    found = _REJECTION.match(message)
    return CURES.get(found[1], CURE_OF_OTHERS) if found else None
