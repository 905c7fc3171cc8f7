"""Run as a process: append batches to a log until it is killed or has written so many.

Usage: writer_process.py FILE|URL FIRST_NUMBER NUM_BATCHES BATCH_SIZE
Prints the first number of each batch after `append` has returned: acknowledged.
"""

import sys

from log_samples import make_features, make_record, make_session, make_task

from tunewright.tuning_logs import TuningLog

path, first_number, num_batches, batch_size = sys.argv[1], *map(int, sys.argv[2:])
task = make_task()
with TuningLog.open(path if "://" in path else f"sqlite:///{path}") as log:
    log.add_tasks([task])
    log.start_session(make_session(task))
    for batch in range(num_batches):
        first = first_number + batch * batch_size
        numbers = range(first, first + batch_size)
        log.append([(make_record(task, number), make_features(number)) for number in numbers])
        print(first, flush=True)
