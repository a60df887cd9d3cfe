"""What the Helm chart has from elsewhere: roles, policies and alerts as copies, and its version."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import yaml

from kubectl_harvester_stuck import __version__
from kubectl_harvester_stuck.checks.prometheus_rules import RULES

DEPLOY = Path(__file__).parent.parent / "deploy"


def copied(name: str) -> str:
    """A manifest of `deploy`, as it is."""
    return (DEPLOY / name).read_text()


def alerts() -> str:
    """The rules that the README of `deploy` shows, on the metrics of the exporter."""
    (block,) = re.findall(
        r"^```yaml\n(groups:\n.*?)^```$", (DEPLOY / "README.md").read_text(), re.M | re.S
    )
    return str(block)


def cluster_alerts() -> str:
    """The rules that `check --print-rules` prints."""
    return yaml.safe_dump(RULES["spec"], sort_keys=False, width=100)


def versioned(name: str) -> str:
    """A manifest with the version of the program, which the chart has as well."""
    text = re.sub(r"^( *version:) .*$", rf"\1 {__version__}", copied(name), flags=re.M)
    return re.sub(r"^(appVersion:) .*$", rf'\1 "{__version__}"', text, flags=re.M)


MADE: dict[str, Callable[[], str]] = {
    **{f"chart/files/{name}": partial(copied, name) for name in ("rbac.yaml", "admission.yaml")},
    "chart/files/alerts.yaml": alerts,
    "chart/files/cluster-alerts.yaml": cluster_alerts,
    **{name: partial(versioned, name) for name in ("chart/Chart.yaml", "addon.yaml")},
}
"""By their file in `deploy`."""
