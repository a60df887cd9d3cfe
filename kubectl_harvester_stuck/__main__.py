"""`python -m kubectl_harvester_stuck`."""

from kubectl_harvester_stuck.cli.main import main

main()
