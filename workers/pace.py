"""How long the candidates of a task usually build and are timed: what a batch is planned by."""

import statistics
from collections import defaultdict, deque
from collections.abc import Iterable

from tunewright.core.types import TaskKey

_NUM_REMEMBERED = 32


class Pace:
    """Median seconds of the last 32 builds and timings of each task: a few take hundreds of times as long."""

    def __init__(self) -> None:
        self._build_secs: dict[TaskKey, deque[float]] = defaultdict(lambda: deque(maxlen=_NUM_REMEMBERED))
        self._run_secs: dict[TaskKey, deque[float]] = defaultdict(lambda: deque(maxlen=_NUM_REMEMBERED))

    def add_build(self, task_key: TaskKey, secs: float) -> None:
        """A candidate of the task took this long to build."""
        self._build_secs[task_key].append(secs)

    def add_run(self, task_key: TaskKey, secs: float) -> None:
        """A candidate of the task took this long to time, and to verify if it was."""
        self._run_secs[task_key].append(secs)

    def is_time(self, waiting: Iterable[TaskKey], untimed: Iterable[TaskKey], *, num_cpus: int) -> bool:
        """Whether timing what has not been timed takes longer than building, on `num_cpus`, what waits of it.

        False for tasks that are not known yet, unless nothing waits.
        """
        building = [self._build_secs.get(key) for key in waiting]
        running = [self._run_secs.get(key) for key in untimed]
        if not building:
            return True
        if not num_cpus or None in building or None in running:
            return False
        return _total(building) / num_cpus <= _total(running)


def _total(pasts: Iterable[deque[float] | None]) -> float:
    return sum(statistics.median(past) for past in pasts if past)
