"""Run a command and print what it took, from a process that is small itself.

The peak of a process counts what its parent held when it was started, so no large process may be
the parent.
"""

import json
import os
import subprocess
import sys
import time

began = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
wall = time.perf_counter() - began
process.returncode = os.waitstatus_to_exitcode(status)
unit = 1 if sys.platform == "darwin" else 1024
cpu = usage.ru_utime + usage.ru_stime
sys.stdout.write(json.dumps([process.returncode, wall, cpu, usage.ru_maxrss * unit]))
