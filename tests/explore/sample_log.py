"""A small log in which every kind of fact occurs."""

from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from tests.tuning_logs.log_samples import MACHINE, START, make_record, make_session, make_task, success
from tunewright.core.log_url import file_url
from tunewright.core.types import (
    CandidateKey,
    FailureKind,
    MeasureFailure,
    MeasureSuccess,
    Origin,
    RecordedTrial,
    TuningTask,
)
from tunewright.tuning_logs import TuningLog

OTHER_MACHINE = replace(MACHINE, cpu_model="Other CPU", llvm_version="21")
RACED_SECS = (0.0016, 0.0015, 0.0017)


@dataclass(frozen=True, slots=True)
class Sample:
    """What was put into the log: three tasks, the last without trials, and two sessions."""

    path: Path
    tasks: tuple[TuningTask, TuningTask, TuningTask]
    trials: list[RecordedTrial]


def make_sample(path: Path) -> Sample:
    tasks = (make_task(64), make_task(128), make_task(256))
    fast = MeasureSuccess(
        run_secs=(0.0030, 0.0010, 0.0020, 0.0014),
        build_secs=0.25,
        wall_secs=0.75,
        is_verified=True,
        steal_ratio=0.125,
        yardstick_secs=0.5,
        is_noisy=True,
    )
    copied = MeasureSuccess((0.001,), build_secs=0.5, wall_secs=0.5, is_verified=False, is_duplicate=True)
    crashed = MeasureFailure(FailureKind.RUN, "SIGSEGV é", wall_secs=1.5, build_secs=0.5)
    pruned = MeasureFailure(
        FailureKind.PRUNED, "5 x slower", wall_secs=0.4, build_secs=0.3, run_secs=(0.09,), yardstick_secs=0.6
    )
    mutated = make_record(tasks[0], 1, fast)
    mutated = replace(
        mutated,
        candidate=replace(mutated.candidate, origin=Origin.MUTATION, parent_key=CandidateKey("b" * 64)),
        model_id="m" * 64,
        predicted_score=0.75,
    )
    records = [
        make_record(tasks[0], 0, success(0.002, 0.001, 0.004)),
        mutated,
        make_record(tasks[1], 0, crashed),
        make_record(tasks[1], 1, pruned),
        make_record(tasks[0], 2, copied, session_id="session-10", machine=OTHER_MACHINE),
        make_record(tasks[1], 2, success(0.005), session_id="session-10", machine=OTHER_MACHINE),
    ]
    with TuningLog.open(file_url(path)) as log:
        log.add_tasks(tasks)
        log.start_session(make_session(*tasks))
        log.start_session(make_session(*tasks[:2], session_id="session-10", machine=OTHER_MACHINE))
        log.add_elapsed("session-1", 90.5)
        trials = log.append([(record, None) for record in records])
        log.add_race(trials[0].record_id, RACED_SECS, START + timedelta(minutes=5))
    return Sample(path, tasks, trials)
