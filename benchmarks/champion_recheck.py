"""Does the champion of a session run as fast in a fresh process as the session says?

    python benchmarks/champion_recheck.py [--task matmul-512] [--threads 2] [--trials 96] [--seeds 3]

For each seed, the task is tuned with a log of its own in memory. Then the champion and the
default schedule are built anew and raced in fresh processes, several times. The default schedule's spread is
the machine's own noise: where it exceeds 3 %, no champion can agree within 3 %. What is left without the
machine's drift is the ratio of the two, raced side by side: `steady` counts the processes in which it is
within 3 % of its median.
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from side_by_side.tasks import available_tasks, make_task

from tunewright.core.tvm_adapter.target import host_target
from tunewright.core.types import Candidate, EvaluatorConfig, MeasureInput, MeasureSuccess, TuningTask
from tunewright.scheduler.session import Budget
from tunewright.scheduler.tuning import TuneOptions, tune_tasks
from tunewright.tuning_logs import TuningLog
from tunewright.workers import LocalMeasurer, WorkerConfig, design_spaces

_ROUNDS = 15
_AGREES_RATIO = 1.03
_WORSE_RATIO = 1.05


@dataclass(frozen=True, slots=True)
class Champion:
    """What a session says of its best candidate, and the default schedule."""

    candidate: Candidate
    secs: float
    default: Candidate


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
    return Champion(best.trial.record.candidate, best.secs, default.record.candidate)


def remeasure(task: TuningTask, champion: Champion, *, num_processes: int) -> list[tuple[float, float]]:
    """(champion, default schedule) in seconds per call, each pair raced in two fresh processes."""
    inputs = [MeasureInput(task, c, EvaluatorConfig()) for c in (champion.candidate, champion.default)]
    pairs = []
    with LocalMeasurer(WorkerConfig.for_threads(task.target.num_threads)) as measurer:
        for _ in range(num_processes):
            first, second = measurer.race(inputs, rounds=_ROUNDS)
            if isinstance(first, MeasureSuccess) and isinstance(second, MeasureSuccess):
                pairs.append((first.median_secs, second.median_secs))
    return pairs


def summary(said_secs: float, pairs: Sequence[tuple[float, float]]) -> str:
    """One row of figures."""
    found = [champion for champion, _ in pairs]
    defaults = [default for _, default in pairs]
    agree = sum(max(secs / said_secs, said_secs / secs) <= _AGREES_RATIO for secs in found)
    worse = sum(secs > _WORSE_RATIO * said_secs for secs in found)
    usual = statistics.median(defaults)
    ratios = [champion / default for champion, default in pairs]
    usual_ratio = statistics.median(ratios)
    steady = sum(abs(ratio / usual_ratio - 1.0) <= _AGREES_RATIO - 1.0 for ratio in ratios)
    noise = statistics.median(abs(secs / usual - 1.0) for secs in defaults)
    return (
        f"{1e3 * said_secs:9.3f}{1e3 * statistics.median(found):9.3f}"
        f"{statistics.median(found) / said_secs:8.3f}"
        f"{agree:4d}/{len(found)}{worse:8d}/{len(found)}{steady:5d}/{len(found)}{noise:7.1%}"
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
    print(
        f"{'seed':>4}{'said ms':>9}{'found ms':>9}{'ratio':>8}{'<=3 %':>7}{'>5 % worse':>11}"
        f"{'steady':>8}{'noise':>7}"
    )
    for seed in range(args.seeds):
        champion = tune(task, seed=seed, num_trials=args.trials)
        pairs = remeasure(task, champion, num_processes=args.processes)
        print(f"{seed:4}" + summary(champion.secs, pairs), flush=True)


if __name__ == "__main__":
    main()
