"""Write the Krew manifest from plugin.yaml.in and the archives that build.py built.

    python krew/render.py [--dist dist] [--download URL] [--output plugin.yaml]

Refuses, with one line and an exit status of 1, to write what could not be installed: without an
archive, with an archive of another version or one that its checksum does not fit, or with a
placeholder.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from string import Template

from build import NAME, PROGRAM, ROOT, BuildError, version

TEMPLATE = ROOT / "krew" / "plugin.yaml.in"
HEADER = "# Written by krew/render.py from krew/plugin.yaml.in, which says when.\n"
_PLACEHOLDER = re.compile(r"\$\w*|<[\w ]+>|\b(?:CHANGEME|FIXME|OWNER|TBD)\b|0{64}|\bexample\.\w+")


class RenderError(Exception):
    """There is no honest manifest to write; the message says why."""


def render(template: str, dist: Path, release: str, download: str | None = None) -> str:
    """The manifest of `release` for the archives in `dist`. Raises RenderError.

    `download` is the URL of the directory that has the archives in a directory for each version;
    by default that of the releases on the home page.
    """
    text = "".join(line for line in template.splitlines(True) if not line.startswith("#"))
    head, mark, block = text.partition("  platforms:\n")
    homepage = re.search(r"^  homepage: (\S+)$", head, re.M)
    if not mark or not homepage:
        raise RenderError("the template has no homepage or no platforms")
    common = {"version": release, "download": download or f"{homepage[1]}/releases/download"}
    platforms = list(_platforms(dist, release))
    if not platforms:
        raise RenderError(f"there is no archive of {release} in {dist}: run krew/build.py")
    manifest = HEADER + Template(head).safe_substitute(common) + mark
    manifest += "".join(Template(block).safe_substitute(common | own) for own in platforms)
    if found := _PLACEHOLDER.search(manifest):
        raise RenderError(f"the manifest still has the placeholder {found[0]}")
    return manifest


def _platforms(dist: Path, release: str) -> Iterator[dict[str, str]]:
    """What the template says of each archive. Raises RenderError."""
    for archive in sorted(dist.glob(f"{NAME}_*")):
        if archive.suffix == ".sha256":
            continue
        found = re.fullmatch(rf"{NAME}_(v.+)_([a-z]+)_(\w+)\.(?:tar\.gz|zip)", archive.name)
        if not found or found[1] != release:
            raise RenderError(f"{archive} is not an archive of {release}")
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        checksum = Path(f"{archive}.sha256")
        if not checksum.is_file() or checksum.read_text().split() != [digest, archive.name]:
            raise RenderError(f"{checksum} is missing or not the checksum of {archive.name}")
        suffix = ".exe" if found[2] == "windows" else ""
        yield {
            "os": found[2],
            "arch": found[3],
            "archive": archive.name,
            "sha256": digest,
            "bin": f"{PROGRAM}/{PROGRAM}{suffix}",
        }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the Krew manifest.")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="default: %(default)s")
    parser.add_argument("--download", help="URL of the archives; default: the home page's releases")
    parser.add_argument("--output", type=Path, default=ROOT / "plugin.yaml")
    arguments = parser.parse_args()
    try:
        given = (TEMPLATE.read_text(), arguments.dist, version(), arguments.download)
        arguments.output.write_text(render(*given))
    except (BuildError, OSError, RenderError) as failure:
        sys.exit(f"error: {failure}")
