"""Tunewright as a user runs it: its own log on disk, its own workers, one task."""

import time
from collections.abc import Sequence
from pathlib import Path

from side_by_side.results import Trial, Tuned
from side_by_side.variants import Setup, search_with
from tunewright.core.types import (
    FailureKind,
    MeasureFailure,
    MeasureSuccess,
    RecordedTrial,
    SessionInfo,
    TuningTask,
    known_secs,
)
from tunewright.scheduler import tuning
from tunewright.tuning_logs import TuningLog
from tunewright.workers import LocalMeasurer, design_spaces

_RACED_PER_TASK = 8


def import_ours() -> None:
    """What a session needs in its own process; its workers start when the clock runs."""
    from tunewright.core import tvm_adapter  # noqa: F401
    from tunewright.core.tvm_adapter import default_schedule  # noqa: F401


def tune(task: TuningTask, setup: Setup, log_file: Path) -> Tuned:
    """Tune a task; what the log knows already is used, of this task it must know nothing."""
    search_with(setup.evolutionary)
    with TuningLog.open(f"sqlite:///{log_file}") as log:
        started, started_at = time.monotonic(), time.time()
        with LocalMeasurer(setup.workers) as measurer:
            finished = tuning.tune_tasks(
                [task],
                setup.options,
                model_name=task.workload.name,
                store=log,
                measurer=measurer,
                make_space=design_spaces(measurer.pool),
            )
            fingerprint = measurer.machine.fingerprint
        wall_secs = time.monotonic() - started
        trials = log.session_trials(finished.session_id)
        best = log.best(task.key, machine_fingerprint=fingerprint)
    split = finished.split
    return Tuned(
        trials=[_trial(trial, started_at) for trial in trials],
        wall_secs=wall_secs,
        split={
            "build": split.build_secs,
            "run": split.run_secs,
            "search": split.search_secs,
            "model": split.model_secs,
            "other": wall_secs - split.build_secs - split.run_secs - split.search_secs - split.model_secs,
        },
        best_trace=best[0].trial.record.candidate.trace_json if best else None,
        best_secs=best[0].secs if best else None,
        extra={"reason": finished.reason},
    )


def merge_logs(sources: Sequence[Path], target: Path) -> int:
    """Copy all trials of some logs, features and races included, into a new one; how many there are."""
    num_trials = 0
    with TuningLog.open(f"sqlite:///{target}") as merged:
        for source in sources:
            with TuningLog.open(f"sqlite:///{source}", read_only=True) as log:
                for summary in log.sessions():
                    trials = log.session_trials(summary.session_id, with_features=True)
                    if not trials:
                        continue
                    weights = log.session_weights(summary.session_id)
                    tasks = [log.task(key) for key in weights]
                    merged.add_tasks(tasks)
                    merged.start_session(
                        SessionInfo(
                            session_id=summary.session_id,
                            model_name=summary.model_name,
                            target=summary.target,
                            strategy=summary.strategy,
                            seed=summary.seed,
                            machine=trials[0].record.machine,
                            task_weights=weights,
                            created_at=summary.created_at,
                        )
                    )
                    copies = merged.append([(trial.record, trial.features) for trial in trials])
                    num_trials += len(copies)
                    new_ids = {old.record_id: new.record_id for old, new in zip(trials, copies, strict=True)}
                    for task in tasks:
                        _copy_races(log, merged, task, new_ids)
    return num_trials


def _copy_races(log: TuningLog, merged: TuningLog, task: TuningTask, new_ids: dict[int, int]) -> None:
    for ranked in log.best(task.key, k=_RACED_PER_TASK):
        for race in log.races(ranked.trial.record_id):
            merged.add_race(new_ids[ranked.trial.record_id], race.run_secs, race.raced_at)


def _trial(trial: RecordedTrial, started_at: float) -> Trial:
    """Only verified times can be the best; the others are slower than what was best then."""
    at_secs = trial.record.finished_at.timestamp() - started_at
    match trial.record.result:
        case MeasureSuccess() as success:
            return Trial(at_secs, success.median_secs, "" if success.is_verified else "unverified")
        case MeasureFailure(kind=FailureKind.PRUNED) as pruned:
            return Trial(at_secs, known_secs(pruned), "pruned")
        case MeasureFailure(kind=kind):
            return Trial(at_secs, None, str(kind))
