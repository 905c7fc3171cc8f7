"""Run as a process with the library of `disk_faults.c` preloaded: logs whose disk fails, one at each write.

Usage: disk_fault_process.py LIBRARY BEGUN LAST_STEP STRIDE ERRNO_NAME [ERRNO_NAME]
Each run writes a small log under DISK_FAULTS_FOLDER, begun from the file BEGUN if there is one. The first run
has no fault. Then its first write fails, in the next run the one STRIDE later, and so on to the last one of
LAST_STEP, with the errors in turn. Prints JSON: the list of the runs.
"""

import errno
import itertools
import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from disk_faults import Disk
from log_samples import make_features, make_record, make_session, make_task

from tunewright.core.errors import StoreError
from tunewright.tuning_logs import TuningLog

NUM_BATCHES, BATCH_SIZE = 3, 5
SESSION_ID = "session-of-faults"
RECOVERIES = ("passing", "lasting", "closed")
MAX_ERRORS = 5
TASK = make_task()


@dataclass
class Run:
    """One log with a fault at its `fault`-th write, 0 for none.

    `recovery`: the fault fails one write (passing); or all from then on, until the step was repeated and
    failed again (lasting), or until the log was closed, and then it is opened again (closed).
    `num_calls`: writes counted when each step was done. `errors`: [step, type, text]. `promised`: trials that
    had been acknowledged when the first error was seen; `on_disk`: those that another process found then;
    `found`: those at the end. `older_trials`, of the log it began from, and `problems`, what SQLite's checks
    find, are of both instants.
    """

    fault: int
    error: str
    recovery: str
    failed_call: str = ""
    num_calls: dict[str, int] = field(default_factory=dict)
    errors: list[tuple[str, str, str]] = field(default_factory=list)
    acknowledged: list[int] = field(default_factory=list)
    promised: list[int] = field(default_factory=list)
    on_disk: list[int] = field(default_factory=list)
    found: list[int] = field(default_factory=list)
    older_trials: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Writer:
    """The steps of a small tuning session; one that failed can be repeated."""

    def __init__(self, path: Path) -> None:
        self._url = f"sqlite:///{path}"
        self._log: TuningLog | None = None
        self.steps: list[tuple[str, Callable[[], list[int]]]] = [
            ("open", self._open),
            ("add_tasks", self._add_tasks),
            ("start_session", self._start_session),
            *((f"append {batch}", partial(self._append, batch)) for batch in range(NUM_BATCHES)),
        ]

    @property
    def log(self) -> TuningLog:
        if self._log is None:
            self._log = TuningLog.open(self._url)
        return self._log

    def close(self) -> None:
        if self._log is not None:
            self._log.close()
        self._log = None

    def _open(self) -> list[int]:
        assert self.log is not None
        return []

    def _add_tasks(self) -> list[int]:
        self.log.add_tasks([TASK])
        return []

    def _start_session(self) -> list[int]:
        self.log.start_session(make_session(TASK, session_id=SESSION_ID))
        return []

    def _append(self, batch: int) -> list[int]:
        numbers = range(batch * BATCH_SIZE, (batch + 1) * BATCH_SIZE)
        trials = [(make_record(TASK, n, session_id=SESSION_ID), make_features(n)) for n in numbers]
        return [trial.record.trial_index for trial in self.log.append(trials)]


def look(run: Run, log: TuningLog, path: Path) -> list[int]:
    """The session's trials; what else there is to see at this instant is added to the run."""
    trials = log.session_trials(SESSION_ID, with_features=True)
    numbers = [trial.record.trial_index for trial in trials]
    run.older_trials.append(sum(session.num_trials for session in log.sessions()) - len(trials))
    run.problems += [
        f"trial {number} without its features"
        for number, trial in zip(numbers, trials, strict=True)
        if not np.array_equal(make_features(number), [] if trial.features is None else trial.features)
    ]
    # The copy of an older log that was upgraded, too.
    for file in (path, *path.parent.glob("*.bak")):
        with closing(sqlite3.connect(file)) as connection:
            rows = connection.execute("PRAGMA integrity_check").fetchall()
            rows += connection.execute("PRAGMA foreign_key_check").fetchall()
        run.problems += [str(row) for row in rows if row != ("ok",)]
    return numbers


def run_once(disk: Disk, run: Run, *, begun: Path) -> Run:
    """Go through all steps; one that fails is repeated once the fault is over."""
    path = Path(os.environ["DISK_FAULTS_FOLDER"], "tuning.db")
    crashed = path.parent.with_name("crashed") / path.name
    for folder in (path.parent, crashed.parent):
        shutil.rmtree(folder, ignore_errors=True)
    path.parent.mkdir()
    if begun.exists():
        shutil.copy(begun, path)
    writer = Writer(path)
    disk.arm(run.fault, getattr(errno, run.error), is_lasting=run.recovery != "passing")
    for name, step in writer.steps:
        while len(run.errors) < MAX_ERRORS:
            try:
                run.acknowledged += step()
                break
            except Exception as exc:  # whatever it is: the test says what it may be
                run.errors.append((name, type(exc).__name__, str(exc)))
            if len(run.errors) == 1:
                run.promised = list(run.acknowledged)
                shutil.copytree(path.parent, crashed.parent)
            if run.recovery == "closed":
                writer.close()
            if run.recovery == "closed" or len(run.errors) > 1:
                disk.lift()
        run.num_calls[name] = disk.num_calls
    run.failed_call = disk.failed_call
    disk.lift()
    run.found = look(run, writer.log, path)
    writer.close()
    if run.errors:
        # As another process would that came then: it undoes what was left half done.
        try:
            with TuningLog.open(f"sqlite:///{crashed}") as log:
                run.on_disk = look(run, log, crashed)
        except StoreError as exc:
            run.problems.append(f"after the error: {exc}")
    return run


def all_runs(disk: Disk, begun: Path, last_step: str, stride: int, errors: list[str]) -> Iterator[Run]:
    without = run_once(disk, Run(0, errors[0], RECOVERIES[0]), begun=begun)
    yield without
    kinds = zip(itertools.cycle(errors), itertools.cycle(RECOVERIES), strict=False)
    faults = range(1, without.num_calls[last_step] + 1, stride)
    for fault, (error, recovery) in zip(faults, kinds, strict=False):
        yield run_once(disk, Run(fault, error, recovery), begun=begun)


def main() -> None:
    library, begun, last_step, stride, *errors = sys.argv[1:]
    runs = all_runs(Disk(library), Path(begun), last_step, int(stride), errors)
    print(json.dumps([asdict(run) for run in runs]))


if __name__ == "__main__":
    main()
