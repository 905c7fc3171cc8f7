"""Run as a process: writers to one log that are killed, as many as are asked for.

Usage: killed_process.py LIBRARY FILE BATCH_SIZE
With the library of `disk_faults.c` preloaded. For each line of standard input, `FIRST_NUMBER FAULT`, a child
opens the log and appends batches; it is killed in its FAULT-th write if that is not 0.
Prints `pid PID` of the child, the first number of each batch after `append` has returned (acknowledged), and
`ended STATUS` once the child is gone. Batch 0 is of a log in memory.
"""

import os
import sys

from disk_faults import Disk
from log_samples import make_features, make_record, make_session, make_task

from tunewright.tuning_logs import TuningLog

library, path, batch_size = *sys.argv[1:3], int(sys.argv[3])
disk = Disk(library)


def say(line: str) -> None:
    # In one piece, for parent and child write to the same pipe.
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


def write(url: str, first: int, *, num_batches: int) -> None:
    task = make_task()
    with TuningLog.open(url) as log:
        log.add_tasks([task])
        log.start_session(make_session(task))
        for start in range(first, first + num_batches * batch_size, batch_size):
            numbers = range(start, start + batch_size)
            log.append([(make_record(task, number), make_features(number)) for number in numbers])
            say(str(start))


# Once in memory, so that a child is not killed in the middle of its imports each time.
write("sqlite://", 0, num_batches=1)
for line in sys.stdin:
    first_number, fault = map(int, line.split())
    child = os.fork()
    if child == 0:
        try:
            disk.arm(fault, 0)
            write(f"sqlite:///{path}", first_number, num_batches=10_000)
        finally:
            os._exit(1)
    say(f"pid {child}")
    say(f"ended {os.waitpid(child, 0)[1]}")
