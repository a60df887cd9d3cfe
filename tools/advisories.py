"""Look the pins of the archives up in a checkout of the Python Packaging Advisory Database.

    git clone https://github.com/pypa/advisory-database
    python -m tools.advisories advisory-database

For machines that reach no advisory service: `make audit ADVISORIES=advisory-database` does it
instead of pip-audit. It knows what the checkout knows, and says of when that is. Exit status 1
stands for an advisory that was found, 2 for a checkout that cannot be used.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

PINS = Path(__file__).parent.parent / "krew" / "requirements.txt"
_PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)", re.M)
_MODIFIED = re.compile(r"^modified: ['\"]?(\d{4}-\d\d-\d\d)", re.M)


def main(directory: Path, pins: Path = PINS) -> int:
    """Print every advisory of a pin, and what was looked at."""
    files = sorted(directory.glob("vulns/*/*.yaml"))
    newest = max((day for file in files for day in _MODIFIED.findall(_text(file))), default="")
    if not newest:
        print(f"error: {directory} is no checkout of the advisory database", file=sys.stderr)
        return 2
    wanted = dict(_PIN.findall(pins.read_text()))
    found = [line for name, version in wanted.items() for line in _advisories(files, name, version)]
    for line in found:
        print(line)
    print(
        f"{len(wanted)} pins, {len(found)} advisories; the database is of {newest}: it knows none"
        " that came later"
    )
    return 1 if found else 0


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def _advisories(files: list[Path], name: str, version: str) -> Iterator[str]:
    """A line for each advisory of that version."""
    name = canonicalize_name(name)
    for file in files:
        if canonicalize_name(file.parent.name) != name:
            continue
        advisory = yaml.safe_load(_text(file))
        if "withdrawn" in advisory:
            continue
        if any(
            canonicalize_name(one["package"]["name"]) == name and affects(one, version)
            for one in advisory["affected"]
        ):
            also = ", ".join(advisory.get("aliases", ()))
            yield f"{name} {version}: {advisory['id']}" + (f" ({also})" if also else "")


def affects(affected: Mapping[str, Any], version: str) -> bool:
    """Whether the version is listed, or in a range; https://ossf.github.io/osv-schema says how."""
    if version in map(str, affected.get("versions", ())):
        return True
    return any(
        _is_within(one["events"], Version(version))
        for one in affected.get("ranges", ())
        if one["type"] == "ECOSYSTEM"
    )


def _is_within(events: list[Mapping[str, str]], version: Version) -> bool:
    is_affected = False
    steps = [(_version(bound), what) for event in events for what, bound in event.items()]
    for bound, what in sorted(steps, key=lambda step: step[0]):
        if what == "introduced" and version >= bound:
            is_affected = True
        elif (what == "fixed" and version >= bound) or (
            what == "last_affected" and version > bound
        ):
            is_affected = False
    return is_affected


def _version(text: str) -> Version:
    """The bound; an odd one counts as the lowest, so that it hides nothing that was introduced."""
    try:
        return Version(str(text))
    except InvalidVersion:
        return Version("0.dev0")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
