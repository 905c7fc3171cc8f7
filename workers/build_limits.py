"""How long a build may take, learned from the task's own builds: a few pathological ones eat wall time."""

import math

import numpy as np

from tunewright.core.types import TaskKey

_MIN_BUILDS = 8
_QUANTILE = 0.95
_FACTOR = 2.0
_MARGIN_SECS = 1.0
_LEAST_SECS = 2.0


class BuildLimits:
    """Limits by task. A build that was cut counts with its limit: if many are cut, the limit rises."""

    def __init__(self) -> None:
        self._build_secs: dict[TaskKey, list[float]] = {}

    def add(self, task_key: TaskKey, build_secs: float) -> None:
        """Learn from a build that ended, or that was cut after `build_secs`."""
        self._build_secs.setdefault(task_key, []).append(build_secs)

    def limit_secs(self, task_key: TaskKey, most_secs: float) -> float:
        """After 8 builds 2 x their 95 % quantile + 1 s, between 2 s and `most_secs`; before, `most_secs`."""
        known = self._build_secs.get(task_key, [])
        if len(known) < _MIN_BUILDS:
            return most_secs
        wanted = _FACTOR * float(np.quantile(known, _QUANTILE)) + _MARGIN_SECS
        return min(most_secs, max(_LEAST_SECS, math.ceil(10 * wanted) / 10))
