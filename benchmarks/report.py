"""The figures as a page and as a plot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from benchmarks.measure import MIB, Figures

if TYPE_CHECKING:
    from benchmarks.measure import Sizes

OURS = "list -A"
TABLE = "kubectl get vm,vmi -A"
JSON = "kubectl get vm,vmi -A -o json"

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 640, 360, 64, 48, 24
COLOURS = {OURS: "#2a9d5c", TABLE: "#8a8f98", JSON: "#c4622d"}


def page(
    *,
    made: str,
    machine: str,
    pythons: str,
    start_up: Mapping[str, Figures],
    lists: Sequence[Sizes],
    diagnoses: Mapping[str, tuple[Figures, tuple[int, int]]],
    released: tuple[float, float, int],
    offline: Mapping[str, Figures],
) -> str:
    """benchmarks/README.md."""
    bare = start_up["python -c pass"].wall
    lines = [
        "# Benchmarks",
        "",
        f"Made by `python -m benchmarks` on {made} ({machine}, Python {pythons}).",
        "The commands of a table ran in turn on one real API server, medians are shown, and only",
        "the ratios say something about another machine. [designs.md](designs.md) tells what else",
        "was tried.",
        "",
        "![Seconds of list and of kubectl by the size of the cluster](list.svg)",
        "",
        "## `list -A` beside kubectl",
        "",
        "As many VMs as VMIs, about 6 KB each, every hundredth stuck. *server* is what the API",
        "server alone takes for the requests of `list`.",
        "",
        "| VMs | command | wall | of kubectl's table | of kubectl's JSON | CPU | peak memory |"
        " requests | received |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for size in lists:
        for name, figures in size.figures.items():
            requests, received = size.traffic[name]
            cells = (
                f"{size.pairs:,}", f"`{name}`", _seconds(figures.wall),
                _ratio(figures.wall, size.figures[TABLE].wall),
                _ratio(figures.wall, size.figures[JSON].wall), _seconds(figures.cpu),
                _bytes(figures.peak), str(requests), _bytes(received),
            )  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
        lines.append(f"| {size.pairs:,} | *server* | {_seconds(size.server)} | | | | | | |")
    lines += [
        "",
        "## Start-up",
        "",
        "| command | wall | more than a bare interpreter | peak memory |",
        "|---|---|---|---|",
        *(
            f"| `{name}` | {_seconds(item.wall)} | {_seconds(item.wall - bare)} | "
            f"{_bytes(item.peak)} |"
            for name, item in start_up.items()
        ),
        "",
        "## `diagnose`",
        "",
        "Of VMs of one namespace; logs, access reviews and dry runs included.",
        "",
        "| VMs | wall | of that for one | CPU | peak memory | requests |",
        "|---|---|---|---|---|---|",
        *(
            f"| {count} | {_seconds(item.wall)} | {_ratio(item.wall, diagnoses['1'][0].wall)} | "
            f"{_seconds(item.cpu)} | {_bytes(item.peak)} | {traffic[0]} |"
            for count, (item, traffic) in diagnoses.items()
        ),
        "",
        "## `unstick --all` of 100 VMs",
        "",
        f"{_seconds(released[0])} in {released[2]} requests, with every guard, the backups and the",
        "journal; 100 times `kubectl patch` with `finalizers: []`, which looks at nothing, takes",
        f"{_seconds(released[1])}: a ratio of {_ratio(released[0], released[1])}.",
        "",
        "## Files",
        "",
        "| command | wall | CPU | peak memory |",
        "|---|---|---|---|",
        *(
            f"| `{name}` | {_seconds(item.wall)} | {_seconds(item.cpu)} | {_bytes(item.peak)} |"
            for name, item in offline.items()
        ),
        "",
    ]
    return "\n".join(lines)


def plot(lists: Sequence[Sizes]) -> str:
    """Seconds by the number of VMs, both on logarithmic scales; 0 VMs stand at the left edge."""
    walls = [figures.wall for size in lists for figures in size.figures.values()]
    low, high = math.floor(math.log10(min(walls))), math.ceil(math.log10(max(walls)))
    places = [LEFT + index * (WIDTH - LEFT - 150) / max(1, len(lists) - 1)
              for index in range(len(lists))]  # fmt: skip

    def height(seconds: float) -> float:
        part = (math.log10(seconds) - low) / (high - low)
        return HEIGHT - BOTTOM - part * (HEIGHT - BOTTOM - TOP)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
    ]
    for power in range(low, high + 1):
        y = height(10.0**power)
        parts += [
            f'<path d="M{LEFT} {y:.0f}H{WIDTH - 150}" stroke="#dddddd"/>',
            f'<text x="{LEFT - 8}" y="{y + 4:.0f}" text-anchor="end">{10.0**power:g} s</text>',
        ]
    for place, size in zip(places, lists, strict=True):
        y = HEIGHT - BOTTOM + 20
        parts.append(f'<text x="{place:.0f}" y="{y}" text-anchor="middle">{size.pairs:,}</text>')
    middle = (LEFT + WIDTH - 150) / 2
    parts.append(
        f'<text x="{middle:.0f}" y="{HEIGHT - 8}" text-anchor="middle">'
        "VMs, and as many VMIs, in the cluster</text>"
    )
    for name, colour in COLOURS.items():
        points = [
            (place, height(size.figures[name].wall))
            for place, size in zip(places, lists, strict=True)
        ]
        path = " ".join(f"{x:.0f},{y:.0f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.0f}" cy="{y:.0f}" r="3" fill="{colour}"/>' for x, y in points]
        label = name.removeprefix("kubectl get vm,vmi -A").strip() or "table"
        label = name if name == OURS else f"kubectl, {label.removeprefix('-o ')}"
        x, y = points[-1]
        parts.append(f'<text x="{x + 8:.0f}" y="{y + 4:.0f}" fill="{colour}">{label}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.0f} ms"


def _ratio(value: float, of: float) -> str:
    return f"{value / of:.2f}"


def _bytes(value: int) -> str:
    return f"{value / MIB:.1f} MiB" if value >= MIB else f"{value / 1024:.0f} KiB"
