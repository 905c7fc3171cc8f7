"""Budget between tasks: the next batch goes where weight x predicted gain is largest.

The gradient is Ansor's (Zheng et al., OSDI 2020, §6.2): what the last trials of a task gained, blended with
an optimistic guess of what is still to gain: its whole time spread over the trials so far or, where
`AllocationConfig` asks for it, the distance to the fastest rate seen on tasks like it. A task that stalls is
left alone; when all are, tuning ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tunewright.search.stopping import is_stalled


@dataclass(frozen=True, slots=True)
class AllocationConfig:
    """`history_share`: how much to believe the recent gain, Ansor's alpha. `window`: over how many trials it
    is taken. `reachable_slowdown`: a task is expected to get as close as this to the best rate of other tasks
    like it, Ansor's beta; None expects nothing, as no recorded curves have shown yet that it helps
    (benchmarks/allocation.py).
    """

    history_share: float = 0.2
    window: int = 32
    reachable_slowdown: float | None = None


@dataclass(frozen=True, slots=True)
class TaskProgress:
    """What the task scheduler knows of one task.

    `best_secs_by_trial`: best verified seconds per call after each trial, infinite until there is one.
    `operators`: what it computes, without shapes; tasks of equal operators reach similar rates.
    `is_exhausted`: its strategy has nothing left to propose.
    """

    weight: int
    flop: float
    best_secs_by_trial: Sequence[float]
    operators: str = ""
    is_exhausted: bool = False

    @property
    def num_trials(self) -> int:
        return len(self.best_secs_by_trial)

    @property
    def best_secs(self) -> float:
        return self.best_secs_by_trial[-1] if self.best_secs_by_trial else float("inf")


def predicted_gain(
    task: TaskProgress, best_flop_rate: float, config: AllocationConfig | None = None
) -> float:
    """Seconds per model run that one more trial of the task may save; infinite where it has no time yet.

    Args:
        best_flop_rate: FLOP per second of the fastest other task that is like it, 0 where unknown.
    """
    config = config or AllocationConfig()
    curve, trials, secs = task.best_secs_by_trial, task.num_trials, task.best_secs
    if secs == float("inf"):
        # A task without a time holds back the whole model; after many failures it has had its chance.
        return float("inf") if trials < config.window else 0.0
    past = curve[max(0, trials - 1 - config.window)]
    recent = (past - secs) / min(trials, config.window) if past != float("inf") else 0.0
    optimistic = secs / trials
    if config.reachable_slowdown is not None and best_flop_rate:
        reachable_secs = config.reachable_slowdown * task.flop / best_flop_rate
        optimistic = min(optimistic, max(0.0, secs - reachable_secs))
    return task.weight * (config.history_share * recent + (1 - config.history_share) * optimistic)


def next_task(
    tasks: Sequence[TaskProgress], *, patience: int, config: AllocationConfig | None = None
) -> int | None:
    """Index of the task to spend the next batch on, or None where every task is done.

    Args:
        patience: a task is done after this many trials without a gain of 1 %.
    """
    config = config or AllocationConfig()
    asks_others = config.reachable_slowdown is not None
    open_tasks = [
        (
            predicted_gain(task, _best_rate_of_others(index, tasks) if asks_others else 0.0, config),
            -task.num_trials,
            -index,
        )
        for index, task in enumerate(tasks)
        if not task.is_exhausted and not is_stalled(task.best_secs_by_trial, patience, 0.01)
    ]
    return -max(open_tasks)[2] if open_tasks else None


def _best_rate_of_others(index: int, tasks: Sequence[TaskProgress]) -> float:
    others = (task for other, task in enumerate(tasks) if other != index)
    rates = [task.flop / task.best_secs for task in others if task.operators == tasks[index].operators]
    return max(rates, default=0.0)
