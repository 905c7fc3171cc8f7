"""Run as a process: fill the space that a log may take, free it, go on.

Usage: disk_full_process.py FOLDER (filesystem | file-size-limit)
Prints JSON: the error's type and text, trials acknowledged and trials found after it, and trials at the end.
"""

import json
import resource
import sys
from pathlib import Path

from log_samples import make_features, make_record, make_session, make_task

from tunewright.core.errors import StoreError
from tunewright.tuning_logs import TuningLog

folder, limited_by = Path(sys.argv[1]), sys.argv[2]
url = f"sqlite:///{folder / 'tuning.db'}"
ballast = folder / "ballast"
ballast.write_bytes(bytes(200 << 10))
if limited_by == "file-size-limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (400 << 10, resource.RLIM_INFINITY))

task = make_task()
numbers = iter(range(0, 1 << 20, 8))


def append(log: TuningLog) -> int:
    first = next(numbers)
    return len(log.append([(make_record(task, n), make_features(n)) for n in range(first, first + 8)]))


acknowledged, error = 0, None
with TuningLog.open(url) as log:
    log.add_tasks([task])
    log.start_session(make_session(task))
    while error is None:
        try:
            acknowledged += append(log)
        except StoreError as exc:
            error = exc
    with TuningLog.open(url, read_only=True) as other:
        found = len(other.session_trials("session-1"))
    ballast.unlink()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    append(log)
    total = len(log.session_trials("session-1"))
print(json.dumps([type(error).__name__, str(error), acknowledged, found, total]))
