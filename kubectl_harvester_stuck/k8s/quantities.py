"""Quantities as Kubernetes writes them: `500m`, `16`, `64Gi`, `1e3`."""

from __future__ import annotations

import re
from decimal import Decimal

_SUFFIXES = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    **{name: Decimal(10) ** (3 * power) for power, name in enumerate("kMGTPE", start=1)},
    **{f"{name}i": Decimal(1024) ** power for power, name in enumerate("KMGTPE", start=1)},
}
_QUANTITY = re.compile(r"([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,2})?)([a-zA-Z]*)")


def parse(written: object) -> Decimal:
    """The number that is meant. Raises ValueError."""
    found = _QUANTITY.fullmatch(str(written).strip())
    if found is None or found[2] not in _SUFFIXES:
        raise ValueError(f"{written!r} is not a quantity")
    return Decimal(found[1]) * _SUFFIXES[found[2]]


def gibibytes(number: Decimal) -> str:
    """Bytes for people."""
    return f"{number / Decimal(1024) ** 3:.1f}Gi"


def kibibytes(number: int) -> str:
    """The size of a file for people, rounded up."""
    return f"{-(-number // 1024)}Ki"


def cores(number: Decimal) -> str:
    """Processors for people."""
    return f"{number:.1f} CPU"
