"""Measure what the policies of deploy/admission.yaml cost: prints a table for docs/admission.md.

    python -m benchmarks.admission [--rounds 300]

Dry runs of one request go in turn to a namespace without and to one with the policies, on one real
API server; only the ratios say something about another machine.
"""

from __future__ import annotations

import argparse
import sys
import time
from statistics import median

from tests.components.controlplane.server import ControlPlane
from tests.test_admission import ACTIONS, ADMINISTRATOR, BARE, HELD, Action, Stage

WHAT = (
    "take all finalizers off a VM in deletion",
    "delete the pod in deletion of a guest",
    "create a halted VM",
)


def pairs(stage: Stage, user: str, action: Action, rounds: int) -> list[tuple[float, float]]:
    """Seconds without and with the policies, of requests that followed on each other."""
    found = []
    for number in range(rounds):
        took: dict[str, float] = {}
        for namespace in (BARE, HELD) if number % 2 else (HELD, BARE):
            begun = time.perf_counter()
            status, said = stage.ask(namespace, user, action)
            took[namespace] = time.perf_counter() - begun
            assert status in (200, 201), said
        found.append((took[BARE], took[HELD]))
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=300)
    rounds = parser.parse_args().rounds
    with ControlPlane() as api:
        stage = Stage(api, {})
        for action in (action for action in ACTIONS if action.what in WHAT):
            for user in (ADMINISTRATOR, "operator"):
                found = pairs(stage, user, action, rounds)
                bare, held = (1000 * median(side) for side in zip(*found, strict=True))
                ratio = median(held / bare for bare, held in found)
                cells = (action.what, user, f"{bare:.2f} ms", f"{held:.2f} ms", f"{ratio:.2f}")
                sys.stdout.write(f"| {' | '.join(cells)} |\n")


if __name__ == "__main__":
    main()
