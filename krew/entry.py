"""Start of the program as it is installed by Krew."""

import os
import sys

from kubectl_harvester_stuck.cli.main import main

if sys.platform == "linux":
    # The bootloader put the libraries in the archive before all others. That has had its effect
    # on this process; a credential plugin must find its own libraries.
    original = os.environ.pop("LD_LIBRARY_PATH_ORIG", None)
    os.environ.pop("LD_LIBRARY_PATH", None)
    if original is not None:
        os.environ["LD_LIBRARY_PATH"] = original

main()
