"""Write what is made from the program: pages, screens, the picture, and the copies in the chart.

    python -m tools.docs

tests/test_docs.py fails while one of them is out of date.
"""

from __future__ import annotations

from tools import chart, picture
from tools.pages import DOCS, PAGES, ROOT
from tools.screens import SCREEN, made

DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(
            path
            for place in ("deploy", "docs", "examples")
            for path in (ROOT / place).rglob("*.md")
        ),
    ]
)
WITH_SCREENS = [path for path in DOCUMENTS if SCREEN.search(path.read_text())]


def main() -> None:
    """Write everything; the index last, because it lists what the other pages say."""
    for path in WITH_SCREENS:
        path.write_text(made(path.read_text()))
    picture.FILE.write_text(picture.svg())
    (DOCS / "commands").mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())
    for name, made_of in chart.MADE.items():
        (chart.DEPLOY / name).write_text(made_of())


if __name__ == "__main__":
    main()
