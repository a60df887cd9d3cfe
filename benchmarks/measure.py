"""Run commands in turn, several times, and say what each took."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
LAUNCH = Path(__file__).with_name("launch.py")


@dataclass(frozen=True)
class Taken:
    """One run of a command: seconds of the clock and of the processor, and the peak in bytes."""

    wall: float
    cpu: float
    peak: int


@dataclass(frozen=True)
class Figures:
    """The medians of several runs."""

    wall: float
    cpu: float
    peak: int

    @classmethod
    def of(cls, runs: Sequence[Taken]) -> Figures:
        """Each figure by itself: its median may come from another run."""
        return cls(
            statistics.median(run.wall for run in runs),
            statistics.median(run.cpu for run in runs),
            int(statistics.median(run.peak for run in runs)),
        )


@dataclass(frozen=True)
class Sizes:
    """What one size of the cluster gave."""

    pairs: int
    figures: dict[str, Figures]
    traffic: dict[str, tuple[int, int]]
    """Requests and bytes received, of one run."""
    server: float
    """Seconds that the API server takes for the same requests as `list`, alone."""


Command = Sequence[str | Path]


def in_turn(
    commands: Mapping[str, Sequence[str | Path]],
    environ: Mapping[str, str],
    rounds: int,
    expected: Sequence[int] = (0,),
) -> dict[str, Figures]:
    """Every command once in each round, after one round that does not count.

    The order is turned around in every other round, so that what a command leaves behind (caches,
    a busy API server) favours none. RuntimeError when a command does not end
    with an `expected` status.
    """
    runs: dict[str, list[Taken]] = {name: [] for name in commands}
    names = list(commands)
    for number in range(rounds + 1):
        for name in names if number % 2 else names[::-1]:
            taken = once(commands[name], environ, expected)
            if number:
                runs[name].append(taken)
    return {name: Figures.of(taken) for name, taken in runs.items()}


def once(
    command: Sequence[str | Path], environ: Mapping[str, str], expected: Sequence[int] = (0,)
) -> Taken:
    """One run of `command`. RuntimeError when it does not end with an `expected` status."""
    launch = (sys.executable, "-I", "-S", LAUNCH, *command)
    done = subprocess.run(launch, env=dict(environ), capture_output=True, text=True, check=True)
    status, wall, cpu, peak = json.loads(done.stdout)
    if status not in expected:
        raise RuntimeError(f"{' '.join(map(str, command))}: {status}: {done.stderr[-500:]}")
    return Taken(wall, cpu, peak)
