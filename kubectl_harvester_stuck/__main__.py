"""`python -m kubectl_harvester_stuck`."""

from kubectl_harvester_stuck.cli import main

main()
