"""Budget between tasks: the next batch goes where weight x predicted gain is largest.

The gradient is Ansor's (Zheng et al., OSDI 2020, §6.2): what the last trials of a task gained, blended with
an optimistic guess of what is still to gain, either its whole time spread over the trials so far or the
distance to the fastest rate seen on any task. A task that stalls is left alone; when all are, tuning ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tunewright.search.stopping import is_stalled

# Ansor's alpha and beta: how much to believe the past, and how close to the best rate a task may get.
_HISTORY_SHARE = 0.2
_REACHABLE_RATE_SHARE = 0.5
# The window of trials over which the recent gain is taken.
_WINDOW = 32


@dataclass(frozen=True, slots=True)
class TaskProgress:
    """What the task scheduler knows of one task.

    `best_secs_by_trial`: best verified seconds per call after each trial, infinite until there is one.
    `is_exhausted`: its strategy has nothing left to propose.
    """

    weight: int
    flop: float
    best_secs_by_trial: Sequence[float]
    is_exhausted: bool = False

    @property
    def num_trials(self) -> int:
        return len(self.best_secs_by_trial)

    @property
    def best_secs(self) -> float:
        return self.best_secs_by_trial[-1] if self.best_secs_by_trial else float("inf")


def predicted_gain(task: TaskProgress, best_flop_rate: float) -> float:
    """Seconds per model run that one more trial of the task may save; infinite where it has no time yet.

    Args:
        best_flop_rate: FLOP per second of the fastest task, 0 where unknown.
    """
    curve, trials, secs = task.best_secs_by_trial, task.num_trials, task.best_secs
    if secs == float("inf"):
        # A task without a time holds back the whole model; after many failures it has had its chance.
        return float("inf") if trials < _WINDOW else 0.0
    past = curve[max(0, trials - 1 - _WINDOW)]
    recent = (past - secs) / min(trials, _WINDOW) if past != float("inf") else 0.0
    reachable_secs = _REACHABLE_RATE_SHARE * task.flop / best_flop_rate if best_flop_rate else 0.0
    optimistic = min(secs / trials, max(0.0, secs - reachable_secs))
    return task.weight * (_HISTORY_SHARE * recent + (1 - _HISTORY_SHARE) * optimistic)


def next_task(tasks: Sequence[TaskProgress], *, patience: int) -> int | None:
    """Index of the task to spend the next batch on, or None where every task is done.

    Args:
        patience: a task is done after this many trials without a gain of 1 %.
    """
    rates = [task.flop / task.best_secs for task in tasks if task.best_secs != float("inf")]
    best_rate = max(rates, default=0.0)
    open_tasks = [
        (predicted_gain(task, best_rate), -task.num_trials, -index)
        for index, task in enumerate(tasks)
        if not task.is_exhausted and not is_stalled(task.best_secs_by_trial, patience, 0.01)
    ]
    return -max(open_tasks)[2] if open_tasks else None
