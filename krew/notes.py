"""Print what CHANGELOG.md says of a release; the tag has to be that of this version.

    python krew/notes.py v0.1.0

Ends with one line and an exit status of 1 where tag, version and CHANGELOG.md do not agree.
"""

from __future__ import annotations

import re
import sys

from build import ROOT, BuildError, version


def notes(tag: str, release: str, changelog: str) -> str:
    """The section of the release. Raises BuildError."""
    if tag != release:
        raise BuildError(f"the tag {tag} is not the version {release}")
    sections = re.split(r"^## ", changelog, flags=re.M)[1:]
    found = {section.partition("\n")[0].split()[0]: section for section in sections}
    _, _, text = found.get(release[1:], "").partition("\n")
    if not text.strip():
        raise BuildError(f"CHANGELOG.md says nothing below '## {release[1:]}'")
    return f"{text.strip()}\n"


if __name__ == "__main__":
    try:
        (given,) = sys.argv[1:]
        sys.stdout.write(notes(given, version(), (ROOT / "CHANGELOG.md").read_text()))
    except ValueError:
        sys.exit(__doc__)
    except (BuildError, OSError) as failure:
        sys.exit(f"error: {failure}")
