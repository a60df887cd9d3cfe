"""What a terminal, a file or a pipe can show."""

from __future__ import annotations

from typing import NamedTuple


class Screen(NamedTuple):
    """What can be shown to whoever reads; without arguments: a file or a pipe."""

    width: int | None = None
    """Columns; None where nothing is to be wrapped."""
    has_signs: bool = False
    """Whether box characters and signs such as a check mark can be shown."""
    has_color: bool = False


PIPE = Screen()
