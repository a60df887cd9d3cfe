"""Write the Krew manifest from plugin.yaml.in and the archives that build.py built.

    python krew/render.py [--dist dist] [--download URL] [--output DIRECTORY]

writes plugin.yaml, the same as plugins/harvester-stuck.yaml, and .krew.yaml. Refuses, with one line
and an exit status of 1, to write what could not be installed: without an archive, with an archive
of another version or one that its checksum does not fit, or with a placeholder.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from string import Template

from build import NAME, PLATFORMS, PROGRAM, ROOT, BuildError, archive_name, version

TEMPLATE = ROOT / "krew" / "plugin.yaml.in"
HEADER = "# Written by krew/render.py from krew/plugin.yaml.in, which says when.\n"
MANIFESTS = ("plugin.yaml", "plugins/harvester-stuck.yaml")
_PLACEHOLDER = re.compile(r"\$\w*|<[\w ]+>|\b(?:CHANGEME|FIXME|OWNER|TBD)\b|0{64}|\bexample\.\w+")

Platform = tuple[str, str, str]
"""System, architecture, and the lines that say where its archive is."""


class RenderError(Exception):
    """There is no honest manifest to write; the message says why."""


def manifest(template: str, dist: Path, release: str, download: str | None = None) -> str:
    """The manifest of `release` for the archives in `dist`. Raises RenderError.

    `download` is the URL of the directory that has the archives in a directory for each version;
    by default that of the releases on the home page.
    """
    base = f"{download or releases(template)}/{release}"
    platforms = [
        (system, architecture, f'uri: {base}/{archive.name}\n    sha256: "{_checked(archive)}"')
        for archive, system, architecture in _archives(dist, release)
    ]
    if not platforms:
        raise RenderError(f"there is no archive of {release} in {dist}: run krew/build.py")
    return render(template, release, platforms)


def bot_template(template: str) -> str:
    """The manifest with the marks of krew-release-bot. Raises RenderError."""
    tag = "{{ .TagName }}"
    base = f"{releases(template)}/{tag}"
    platforms = [
        (*platform, f'{{{{addURIAndSha "{base}/{archive_name(tag, *platform)}" .TagName }}}}')
        for platform in PLATFORMS
    ]
    return render(template, tag, platforms)


def releases(template: str) -> str:
    """The URL below which the archives of all releases are. Raises RenderError."""
    homepage = re.search(r"^  homepage: (\S+)$", template, re.M)
    if not homepage:
        raise RenderError("the template has no homepage")
    return f"{homepage[1]}/releases/download"


def render(template: str, release: str, platforms: Iterable[Platform]) -> str:
    """The template, filled in. Raises RenderError."""
    text = "".join(line for line in template.splitlines(True) if not line.startswith("#"))
    head, mark, block = text.partition("  platforms:\n")
    if not mark:
        raise RenderError("the template has no platforms")
    made = HEADER + Template(head).safe_substitute(version=release) + mark
    for system, architecture, source in platforms:
        suffix = ".exe" if system == "windows" else ""
        made += Template(block).safe_substitute(
            os=system, arch=architecture, source=source, bin=f"{PROGRAM}/{PROGRAM}{suffix}"
        )
    if found := _PLACEHOLDER.search(made):
        raise RenderError(f"the manifest still has the placeholder {found[0]}")
    return made


def _archives(dist: Path, release: str) -> Iterable[tuple[Path, str, str]]:
    """Each archive with its platform. Raises RenderError."""
    names = {archive_name(release, *platform): platform for platform in PLATFORMS}
    for archive in sorted(dist.glob(f"{NAME}_*")):
        if archive.suffix in (".sha256", ".json"):
            continue
        if archive.name not in names:
            raise RenderError(f"{archive} is not an archive of {release}")
        yield (archive, *names[archive.name])


def _checked(archive: Path) -> str:
    """Its checksum, which lies beside it. Raises RenderError."""
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    checksum = Path(f"{archive}.sha256")
    if not checksum.is_file() or checksum.read_text().split() != [digest, archive.name]:
        raise RenderError(f"{checksum} is missing or not the checksum of {archive.name}")
    return digest


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the Krew manifest.")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="default: %(default)s")
    parser.add_argument("--download", help="URL of the archives; default: the home page's releases")
    parser.add_argument("--output", type=Path, default=ROOT, help="directory; default: %(default)s")
    arguments = parser.parse_args()
    try:
        source = TEMPLATE.read_text()
        made = manifest(source, arguments.dist, version(), arguments.download)
        files = {**dict.fromkeys(MANIFESTS, made), ".krew.yaml": bot_template(source)}
        for name, content in files.items():
            path = arguments.output / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    except (BuildError, OSError, RenderError) as failure:
        sys.exit(f"error: {failure}")
