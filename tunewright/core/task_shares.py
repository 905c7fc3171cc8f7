"""What each task costs a run of its model, before and after tuning, and the steps between."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tunewright.core.trial_columns import ORIGINS, Codes, Floats, TrialColumns
from tunewright.core.types import Origin, TaskKey


@dataclass(frozen=True, slots=True)
class TaskShare:
    """What one task costs a run of the model: `weight` calls of so many seconds, before and after tuning."""

    name: str
    weight: int
    before_secs: float
    after_secs: float

    @property
    def gain_secs(self) -> float:
        """What tuning took off a run of the model."""
        return self.weight * (self.before_secs - self.after_secs)


@dataclass(frozen=True, slots=True)
class TaskPair:
    """One task in two sessions, A and B: seconds per call of the samples of the best record of each."""

    name: str
    weight: int
    a_secs: tuple[float, ...]
    b_secs: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Time of B / time of A, medians: below 1, B is faster."""
        return float(np.median(self.b_secs) / np.median(self.a_secs))

    @property
    def ratio_range(self) -> tuple[float, float]:
        """Of the samples' quartiles: the fast of B against the slow of A, and the other way round."""
        low_a, high_a = np.quantile(self.a_secs, (0.25, 0.75))
        low_b, high_b = np.quantile(self.b_secs, (0.25, 0.75))
        return float(low_b / high_a), float(high_b / low_a)


@dataclass(frozen=True, slots=True, eq=False)
class Improvements:
    """When a task's best time became better: arrays (n_improvements,), in the order of the trials.

    `trial`: its index; `task`: the task's place in the weights; `before_secs` is infinite at first.
    """

    trial: Codes = field(repr=False)
    task: Codes = field(repr=False)
    before_secs: Floats = field(repr=False)
    after_secs: Floats = field(repr=False)


def task_places(columns: TrialColumns, weights: Mapping[TaskKey, int]) -> Codes:
    """The place of each trial's task in the weights, -1 of a task that has none."""
    place_of = {task_key: place for place, task_key in enumerate(weights)}
    places = np.array([place_of.get(task_key, -1) for task_key in columns.task_keys], dtype=np.int64)
    return places[columns.task]


def best_secs(columns: TrialColumns, weights: Mapping[TaskKey, int]) -> Floats:
    """Of each task of the weights; infinite where there is no usable time."""
    places = task_places(columns, weights)
    is_usable = (places >= 0) & np.isfinite(columns.usable_secs)
    best = np.full(len(weights), np.inf)
    np.minimum.at(best, places[is_usable], columns.usable_secs[is_usable])
    return best


def improvements(columns: TrialColumns, weights: Mapping[TaskKey, int], start_secs: Floats) -> Improvements:
    """Args: start_secs: (n_tasks,) what was known before the trials, infinite where nothing was."""
    places = task_places(columns, weights)
    usable = np.flatnonzero((places >= 0) & np.isfinite(columns.usable_secs))
    # Task by task, those of a task in the order of the trials.
    usable = usable[np.argsort(places[usable], kind="stable")]
    secs, task = columns.usable_secs[usable], places[usable]
    before = np.empty(len(usable))
    ends = np.searchsorted(task, np.arange(len(weights) + 1))
    for place, (begin, end) in enumerate(itertools.pairwise(ends)):
        so_far = np.append(start_secs[place], secs[begin:end])
        before[begin:end] = np.minimum.accumulate(so_far)[:-1]
    found = np.flatnonzero(secs < before)
    found = found[np.argsort(usable[found], kind="stable")]
    return Improvements(usable[found], task[found], before[found], secs[found])


def best_trials(columns: TrialColumns, weights: Mapping[TaskKey, int]) -> TrialColumns:
    """The best usable trial of each task that has one, in the order of the weights."""
    steps = improvements(columns, weights, np.full(len(weights), np.inf))
    last_of_task = dict(zip(steps.task.tolist(), steps.trial.tolist(), strict=True))
    chosen = [last_of_task[place] for place in sorted(last_of_task)]
    return columns.rows(np.array(chosen, dtype=np.int64))


def shares_by_task(
    columns: TrialColumns, weights: Mapping[TaskKey, int], names: Mapping[TaskKey, str]
) -> dict[TaskKey, TaskShare]:
    """Before and after of each task that has a usable time, in the order of `weights`.

    Before is the default schedule's time, or that of the first success where the default was not measured.
    """
    places = task_places(columns, weights)
    usable = np.flatnonzero((places >= 0) & np.isfinite(columns.usable_secs))
    seeds = usable[columns.origin[usable] == ORIGINS.index(Origin.SEED)]
    before = np.full(len(weights), np.nan)
    for chosen in (usable, seeds):
        tasks, firsts = np.unique(places[chosen], return_index=True)
        before[tasks] = columns.usable_secs[chosen[firsts]]
    after = best_secs(columns, weights)
    return {
        task_key: TaskShare(names[task_key], weight, float(before[place]), float(after[place]))
        for place, (task_key, weight) in enumerate(weights.items())
        if not math.isnan(before[place])
    }
