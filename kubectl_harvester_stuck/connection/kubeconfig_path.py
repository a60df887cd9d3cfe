"""Which files are the kubeconfig, as kubectl looks for them.

Without `--kubeconfig` and KUBECONFIG it is `.kube/config` in the home directory. Which one that is
follows client-go (util/homedir/homedir.go, `HomeDir`): on Windows three variables can name it, and
another choice than kubectl's would be another cluster.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

WINDOWS = "nt"
"""What Python calls this system."""

CONFIG = Path(".kube", "config")


def files(environ: Mapping[str, str], *, system: str = os.name) -> list[Path]:
    """The files of KUBECONFIG, each once, or else the one in the home directory."""
    listed = environ.get("KUBECONFIG", "")
    if listed:
        return [Path(name) for name in dict.fromkeys(_split(listed, system)) if name]
    return [_home(environ, system) / CONFIG]


def _split(listed: str, system: str) -> Sequence[str]:
    """The parts of a list of paths, as Go's `filepath.SplitList` finds them."""
    if system != WINDOWS:
        return listed.split(":")
    # Between quotes a semicolon is a part of the path; a quote that is open is so to the end.
    found = [""]
    for number, piece in enumerate(listed.split('"')):
        first, *more = [piece] if number % 2 else piece.split(";")
        found[-1] += first
        found += more
    return found


def _home(environ: Mapping[str, str], system: str) -> Path:
    if system == WINDOWS:
        return _home_on_windows(environ)
    # Without one, kubectl looks below the current directory.
    return Path(environ.get("HOME", ""))


def _home_on_windows(environ: Mapping[str, str]) -> Path:
    home, profile = environ.get("HOME", ""), environ.get("USERPROFILE", "")
    drive, path = environ.get("HOMEDRIVE", ""), environ.get("HOMEPATH", "")
    old = drive + path if drive and path else ""
    for place in _named(home, old, profile):
        if _mode(place / CONFIG) is not None:
            return place
    # None has a kubeconfig: where one would be looked for by whoever writes one.
    there = {place: mode for place in _named(home, profile, old) if (mode := _mode(place))}
    writable = (
        place for place, mode in there.items() if stat.S_ISDIR(mode) and mode & stat.S_IWUSR
    )
    places = (*writable, *there, *_named(home, profile, old), Path())
    return places[0]


def _named(*places: str) -> Iterator[Path]:
    return (Path(place) for place in places if place)


def _mode(path: Path) -> int | None:
    """The file's mode; None where it cannot be seen."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return None
