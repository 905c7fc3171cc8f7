"""Is the champion of a session as much faster in a fresh process as the session says?

    python benchmarks/champion_recheck.py [--task matmul-512] [--threads 2] [--trials 96] [--seeds 3]

For each seed, the task is tuned with a log of its own in memory. Then the champion and the default schedule
are built anew and raced in fresh processes, several times. A shared machine runs at another speed every few
seconds; so what is compared is the time of the champion divided by that of the default schedule, which raced
beside it in the session too: `agree` counts the processes in which the ratio is within 3 % of what the
session said, `worse` those in which it is more than 5 % above. `speed` is how far the default schedule's own
time in the processes lies from their median: what the machine alone does.
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from side_by_side.tasks import available_tasks, make_task

from tunewright.core.tvm_adapter.target import host_target
from tunewright.core.types import Candidate, EvaluatorConfig, MeasureInput, MeasureSuccess, TuningTask
from tunewright.scheduler.session import RACE_ROUNDS, Budget
from tunewright.scheduler.tuning import TuneOptions, tune_tasks
from tunewright.tuning_logs import TuningLog
from tunewright.workers import LocalMeasurer, WorkerConfig, design_spaces

_AGREES_RATIO = 1.03
_WORSE_RATIO = 1.05


@dataclass(frozen=True, slots=True)
class Champion:
    """What a session says: its best candidate and the default schedule, by the last race, of both."""

    candidate: Candidate
    secs: float
    default: Candidate
    default_secs: float


def tune(task: TuningTask, *, seed: int, num_trials: int) -> Champion:
    """One session from an empty log."""
    config = WorkerConfig.for_threads(task.target.num_threads)
    with TuningLog.open("sqlite://") as log, LocalMeasurer(config) as measurer:
        tune_tasks(
            [task],
            TuneOptions(Budget(num_trials=num_trials), seed=seed),
            model_name=task.workload.name,
            store=log,
            measurer=measurer,
            make_space=design_spaces(measurer.pool),
        )
        (best,) = log.best(task.key, k=1)
        default = log.trials(task.key)[0]
        raced, default_raced = (log.races(t.record_id)[-1] for t in (best.trial, default))
    secs, default_secs = (statistics.median(race.run_secs) for race in (raced, default_raced))
    return Champion(best.trial.record.candidate, secs, default.record.candidate, default_secs)


def remeasure(task: TuningTask, champion: Champion, *, num_processes: int) -> list[tuple[float, float]]:
    """(champion, default schedule) in seconds per call, each pair raced in two fresh processes."""
    inputs = [MeasureInput(task, c, EvaluatorConfig()) for c in (champion.candidate, champion.default)]
    pairs = []
    with LocalMeasurer(WorkerConfig.for_threads(task.target.num_threads)) as measurer:
        for _ in range(num_processes):
            first, second = measurer.race(inputs, rounds=RACE_ROUNDS)
            if isinstance(first, MeasureSuccess) and isinstance(second, MeasureSuccess):
                pairs.append((first.median_secs, second.median_secs))
    return pairs


def summary(champion: Champion, pairs: Sequence[tuple[float, float]]) -> str:
    """One row of figures."""
    said = champion.secs / champion.default_secs
    found = [secs / default_secs for secs, default_secs in pairs]
    agree = sum(max(ratio / said, said / ratio) <= _AGREES_RATIO for ratio in found)
    worse = sum(ratio > _WORSE_RATIO * said for ratio in found)
    defaults = [default_secs for _, default_secs in pairs]
    usual_secs = statistics.median(defaults)
    speed = statistics.median(abs(secs / usual_secs - 1.0) for secs in defaults)
    return (
        f"{1e3 * champion.secs:9.3f}{said:8.3f}{statistics.median(found):8.3f}"
        f"{agree:5d}/{len(found)}{worse:6d}/{len(found)}{speed:8.1%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=available_tasks(), default="matmul-512")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--trials", type=int, default=96)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=10)
    args = parser.parse_args()
    task = make_task(args.task, host_target(args.threads))
    print(f"{'seed':>4}{'said ms':>9}{'ratio':>8}{'found':>8}{'agree':>8}{'worse':>9}{'speed':>8}")
    for seed in range(args.seeds):
        champion = tune(task, seed=seed, num_trials=args.trials)
        pairs = remeasure(task, champion, num_processes=args.processes)
        print(f"{seed:4}" + summary(champion, pairs), flush=True)


if __name__ == "__main__":
    main()
