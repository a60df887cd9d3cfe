"""Label selectors, as kubectl and the API server take them."""

from __future__ import annotations

import pytest

from kubectl_harvester_stuck.k8s import selectors

LABELS = {"tier": "web", "example.com/rank": "7", "empty": ""}


@pytest.mark.parametrize(
    ("selector", "fits"),
    [
        ("", True),
        ("  ", True),
        ("tier=web", True),
        ("tier == web , !gone", True),
        ("tier!=web", False),
        ("tier in (web, db)", True),
        ("tier notin (web)", False),
        ("gone notin (web)", True),
        ("example.com/rank", True),
        ("example.com/rank>6", True),
        ("example.com/rank > 7", False),
        ("example.com/rank<8,tier", True),
        ("tier<8", False),
        ("gone>1", False),
        ("empty=", True),
        ("tier in ()", False),
    ],
)
def test_a_selector_fits_as_it_does_in_kubernetes(selector: str, fits: bool) -> None:
    assert selectors.parse(selector)(LABELS) is fits


@pytest.mark.parametrize(
    "selector",
    ["a=b=c", "a=b,", ",", "a,,b", "=b", "a in", "a in (b", "a=-b", "a=b-", "/a", "a/b/c", "a>x",
     "A/b", "a b", "!", f"{'k' * 64}", f"a={'v' * 64}", "a=ü"],
)  # fmt: skip
def test_what_is_no_selector_is_an_error(selector: str) -> None:
    with pytest.raises(ValueError, match="is not a label selector"):
        selectors.parse(selector)
