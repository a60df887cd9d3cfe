"""Compare how long programs take to show their help.

    python krew/startup.py PROGRAM... [--runs 21]

prints the median for each, and how many times that of the last one it is. The programs take turns,
so that a busy machine is as busy for one as for the other.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from statistics import median


def seconds(program: Path) -> float:
    """The time that `--help` takes."""
    started = time.perf_counter()
    subprocess.run([program, "--help"], stdout=subprocess.DEVNULL, check=True)  # noqa: S603
    return time.perf_counter() - started


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compare how long programs take to start.")
    parser.add_argument("programs", type=Path, nargs="+", metavar="PROGRAM")
    parser.add_argument("--runs", type=int, default=21, help="default: %(default)s")
    arguments = parser.parse_args()
    for program in arguments.programs:
        seconds(program)  # fills the caches of the disk
    rounds = [[seconds(program) for program in arguments.programs] for _ in range(arguments.runs)]
    medians = [median(times) for times in zip(*rounds, strict=True)]
    for program, found in zip(arguments.programs, medians, strict=True):
        sys.stdout.write(f"{found * 1000:6.0f} ms  {found / medians[-1]:.2f}  {program}\n")
