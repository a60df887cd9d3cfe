"""The picture of a terminal in the README: three commands on the cluster of the demo.

An SVG whose text can be selected, with colours for light and for dark surroundings.
"""

from __future__ import annotations

import re
from html import escape

from tools.screens import ROOT, Shell, on_the_demo, shown

FILE = ROOT / "docs" / "terminal.svg"
COLUMNS, ACROSS, DOWN, MARGIN = 84, 7.8, 17, 20
OFF = "unstick vm web-1 -n shop --node-powered-off harvester-2"
SCENES = (
    ("list -A", ""),
    ("diagnose vm web-1 -n shop", "\x1b[1mfinalizers"),
    (OFF, "\x1b[1msent"),
)
"""A command, and the words where what is shown of its output ends."""

STYLE = """
svg { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace }
text { white-space: pre; fill: #1f2328 } rect { fill: #f6f8fa; stroke: #d1d9e0 }
.c1 { font-weight: bold } .c31 { fill: #cf222e } .c32 { fill: #1a7f37 } .c33 { fill: #9a6700 }
.typed { font-weight: bold } .prompt { fill: #59636e }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc } rect { fill: #151b23; stroke: #3d444d } .prompt { fill: #9198a1 }
  .c31 { fill: #ff7b72 } .c32 { fill: #3fb950 } .c33 { fill: #d29922 }
}
"""


def lines(shell: Shell) -> list[str]:
    """What the terminal shows, with the program's own colours as classes."""
    found: list[str] = []
    for command, end in SCENES:
        said = shown(shell, f"kubectl harvester-stuck {command}", "--color=always")
        said = said.partition(end)[0].rstrip() if end else said
        typed = f'<tspan class="typed">kubectl harvester-stuck {escape(command)}</tspan>'
        found += [f'<tspan class="prompt">$ </tspan>{typed}']
        found += [_painted(line) for line in said.splitlines()]
        found += [""]
    return found[:-1]


def _painted(line: str) -> str:
    text = escape(line, quote=False)
    assert len(re.sub(r"\x1b\[[\d;]*m", "", line)) <= COLUMNS, line
    text = re.sub(
        r"\x1b\[([\d;]+)m(.*?)\x1b\[0m",
        lambda found: f'<tspan class="c{found[1].replace(";", " c")}">{found[2]}</tspan>',
        text,
    )
    assert "\x1b" not in text, line
    return text


def svg() -> str:
    """The picture."""
    with on_the_demo() as shell:
        rows = lines(shell)
    width, height = COLUMNS * ACROSS + 2 * MARGIN, len(rows) * DOWN + 2 * MARGIN
    texts = "".join(
        f'<text x="{MARGIN}" y="{MARGIN + DOWN * number + 12}">{row}</text>\n'
        for number, row in enumerate(rows)
        if row
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height}"'
        f' width="{width:g}" height="{height}" role="img" xml:space="preserve">\n'
        f"<title>kubectl harvester-stuck in a terminal</title>\n<style>{STYLE}</style>\n"
        f'<rect x=".5" y=".5" width="{width - 1:g}" height="{height - 1}" rx="8"/>\n{texts}</svg>\n'
    )
