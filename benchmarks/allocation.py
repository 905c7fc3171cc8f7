"""Which rule spends a model's trials best? Replays recorded tuning curves, so every rule sees the same luck.

    python benchmarks/allocation.py LOG.db [LOG.db ...] [--models 40] [--trials-per-task 48]

Takes every (task, session) of the logs with at least 4 batches as a recorded curve, draws models (six to
sixteen of these tasks with random numbers of calls), and lets each rule spend the model's trials batch by
batch. Printed: latency of the model at the end, relative to an even split, median and range over the models.
"""

import argparse
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunewright.core.types import MeasureSuccess, RecordedTrial
from tunewright.scheduler.task_scheduler import AllocationConfig, TaskProgress, next_task
from tunewright.tuning_logs import TuningLog

BATCH = 16
MIN_BATCHES = 4
NEVER = 10**9

Rule = Callable[[Sequence[TaskProgress]], int | None]


@dataclass(frozen=True)
class Curve:
    """Best seconds of a task after each trial, as recorded."""

    name: str
    flop: float
    best_secs: tuple[float, ...]


@dataclass(frozen=True)
class ModelTask:
    curve: Curve
    weight: int


def load_curves(paths: Sequence[Path]) -> list[Curve]:
    """One for each task of each session; those of short sessions are left out."""
    curves = []
    for path in paths:
        with TuningLog.open(f"sqlite:///{path}", read_only=True) as log:
            for task in log.tasks():
                by_session: dict[str, list[RecordedTrial]] = {}
                for trial in log.trials(task.task_key):
                    by_session.setdefault(trial.record.session_id, []).append(trial)
                for trials in by_session.values():
                    best, secs = float("inf"), []
                    for trial in trials:
                        result = trial.record.result
                        if isinstance(result, MeasureSuccess) and result.is_verified:
                            best = min(best, result.median_secs)
                        secs.append(best)
                    if len(secs) >= MIN_BATCHES * BATCH:
                        curves.append(Curve(task.name, task.flop, tuple(secs)))
    return curves


def progress(task: ModelTask, num_trials: int) -> TaskProgress:
    curve = task.curve
    return TaskProgress(
        task.weight,
        curve.flop,
        curve.best_secs[:num_trials],
        curve.name.partition(" ")[0],
        is_exhausted=num_trials >= len(curve.best_secs),
    )


def latency(model: Sequence[ModelTask], rule: Rule, num_trials: int) -> float:
    """Seconds of the model after `num_trials`, of which the first of each task is its default schedule."""
    spent = [1] * len(model)
    while sum(spent) < num_trials:
        index = rule([progress(task, n) for task, n in zip(model, spent, strict=True)])
        if index is None:
            break
        spent[index] = min(spent[index] + BATCH, len(model[index].curve.best_secs))
    return sum(task.weight * task.curve.best_secs[n - 1] for task, n in zip(model, spent, strict=True))


def even(tasks: Sequence[TaskProgress]) -> int | None:
    """The task with the fewest trials."""
    open_tasks = [(task.num_trials, index) for index, task in enumerate(tasks) if not task.is_exhausted]
    return min(open_tasks)[1] if open_tasks else None


def heaviest(tasks: Sequence[TaskProgress]) -> int | None:
    """Trials in proportion to the time that a task takes in the model."""
    open_tasks = [
        (task.weight * task.best_secs / task.num_trials, index)
        for index, task in enumerate(tasks)
        if not task.is_exhausted
    ]
    return max(open_tasks)[1] if open_tasks else None


def gradient(config: AllocationConfig, *, patience: int = NEVER) -> Rule:
    return lambda tasks: next_task(tasks, patience=patience, config=config)


RULES: dict[str, Rule] = {
    "heaviest": heaviest,
    "gradient, no history": gradient(AllocationConfig(history_share=0.0, reachable_slowdown=None)),
    "gradient": gradient(AllocationConfig(reachable_slowdown=None)),
    "gradient + similar tasks, 2": gradient(AllocationConfig(reachable_slowdown=2.0)),
    "gradient + similar tasks, 1": gradient(AllocationConfig(reachable_slowdown=1.0)),
    "gradient + similar tasks, 0.5": gradient(AllocationConfig(reachable_slowdown=0.5)),
    "gradient + patience 128": gradient(AllocationConfig(reachable_slowdown=None), patience=128),
    "gradient + patience 64": gradient(AllocationConfig(reachable_slowdown=None), patience=64),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logs", type=Path, nargs="+")
    parser.add_argument("--models", type=int, default=40)
    parser.add_argument("--trials-per-task", type=int, default=48)
    args = parser.parse_args()
    curves = load_curves(args.logs)
    print(f"{len(curves)} curves of {len({curve.name for curve in curves})} tasks")
    ratios: dict[str, list[float]] = {name: [] for name in RULES}
    for seed in range(args.models):
        rng = random.Random(seed)
        by_name: dict[str, list[Curve]] = {}
        for curve in curves:
            by_name.setdefault(curve.name, []).append(curve)
        names = rng.sample(sorted(by_name), min(len(by_name), rng.randint(6, 16)))
        model = [ModelTask(rng.choice(by_name[name]), rng.choice((1, 1, 2, 4, 12))) for name in names]
        num_trials = args.trials_per_task * len(model)
        baseline = latency(model, even, num_trials)
        for name, rule in RULES.items():
            ratios[name].append(latency(model, rule, num_trials) / baseline)
    for name, values in ratios.items():
        low, *_, high = statistics.quantiles(values, n=10)
        print(f"{name:32} {statistics.median(values):.3f}  (10 % {low:.3f}, 90 % {high:.3f})")


if __name__ == "__main__":
    main()
