"""What Python for Windows runs: the program, in the environment that is meant."""

import os

from kubectl_harvester_stuck.cli.main import main

MEANT = "MEANT_"  # as in run.py, which Windows cannot import

for name in [name for name in os.environ if name.startswith(MEANT)]:
    os.environ[name.removeprefix(MEANT)] = os.environ.pop(name)

main()
