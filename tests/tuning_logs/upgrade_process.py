"""Run as a process: upgrade logs, each in a forked child that is killed after so many seconds.

Usage: upgrade_process.py SECS FILE [SECS FILE ...]
"""

import os
import signal
import sys
import time

import alembic.command  # noqa: F401 (the upgrade itself would import it)

from tunewright.tuning_logs import TuningLog

for secs, path in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    pid = os.fork()
    if pid == 0:
        TuningLog.open(f"sqlite:///{path}").close()
        os._exit(0)
    time.sleep(float(secs))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
