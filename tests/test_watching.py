"""What `list --watch` says beside its rows: no all-clear over what is not known."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from kubectl_harvester_stuck.cli.watching import Watching
from kubectl_harvester_stuck.k8s.objects import Unreadable
from kubectl_harvester_stuck.listing.model import Listing

NOW = datetime(2026, 11, 23, 3, 42, tzinfo=timezone.utc)
GAP = Unreadable("pods", "shop", "Forbidden", 'User "bob" may not read them')


def told(found: Listing, capsys: pytest.CaptureFixture[str], *, is_screen: bool = False) -> str:
    """Everything that is written of one answer."""
    watching = Watching(" in shop namespace", "table", headers=True)
    watching._is_screen = is_screen
    watching.show(iter([(found, ())]))
    seen = capsys.readouterr()
    return seen.out + seen.err


@pytest.mark.parametrize("is_screen", [False, True], ids=["lines", "screen"])
def test_nothing_is_stuck_only_where_everything_could_be_read(
    capsys: pytest.CaptureFixture[str], *, is_screen: bool
) -> None:
    clear = "Nothing is stuck in shop namespace; watching."
    assert clear in told(Listing((), (), NOW), capsys, is_screen=is_screen)
    said = told(Listing((), (GAP,), NOW), capsys, is_screen=is_screen)
    assert clear not in said
    assert "could not read pods" in said


@pytest.mark.parametrize("is_screen", [False, True], ids=["lines", "screen"])
def test_what_names_no_node_is_left_out_aloud(
    capsys: pytest.CaptureFixture[str], *, is_screen: bool
) -> None:
    said = told(Listing((), (), NOW, without_node=2), capsys, is_screen=is_screen)
    assert "2 stuck VMs name no node and were left out; see list" in said
