"""What the plots draw, computed from records; no drawing here."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tunewright.core.types import MeasureSuccess, Origin, TaskKey, TuningRecord


@dataclass(frozen=True, slots=True, eq=False)
class BestSoFar:
    """The best latency known after each trial of one run; all arrays have shape (n_trials,).

    `trials` counts from 1. `measuring_secs` is the time that builds and runs of the trials took so far.
    `latency_secs` never increases; it is NaN before every task has a verified time.
    """

    trials: npt.NDArray[np.int64] = field(repr=False)
    measuring_secs: npt.NDArray[np.float64] = field(repr=False)
    latency_secs: npt.NDArray[np.float64] = field(repr=False)


@dataclass(frozen=True, slots=True)
class TaskShare:
    """What one task costs a run of the model: `weight` calls of so many seconds, before and after tuning."""

    name: str
    weight: int
    before_secs: float
    after_secs: float


def best_so_far(
    records: Iterable[TuningRecord], weights: Mapping[TaskKey, int], *, known: Iterable[TuningRecord] = ()
) -> BestSoFar:
    """The estimated latency, the sum of weight x best seconds over the tasks of `weights`, trial by trial.

    One task with weight 1 gives that task's own curve. Only verified times count as best; records of other
    tasks are left out.

    Args:
        records: of one run, in the order in which they were measured.
        known: of earlier runs; their times count from the start, their trials and seconds do not.
    """
    best = dict.fromkeys(weights, math.inf)
    for record in known:
        _improve(best, record)
    measuring_secs, latency_secs = [], []
    elapsed_secs = 0.0
    for record in records:
        if record.task_key not in best:
            continue
        elapsed_secs += record.result.wall_secs
        _improve(best, record)
        latency = math.fsum(weight * best[task_key] for task_key, weight in weights.items())
        measuring_secs.append(elapsed_secs)
        latency_secs.append(latency if math.isfinite(latency) else math.nan)
    return BestSoFar(
        trials=np.arange(1, len(latency_secs) + 1),
        measuring_secs=np.array(measuring_secs, dtype=np.float64),
        latency_secs=np.array(latency_secs, dtype=np.float64),
    )


def task_shares(
    records: Sequence[TuningRecord], weights: Mapping[TaskKey, int], names: Mapping[TaskKey, str]
) -> list[TaskShare]:
    """Before and after of each task that has a verified time, the costliest before tuning first.

    Before is the default schedule's time, or that of the first success where the default was not measured.
    """
    shares = []
    for task_key, weight in weights.items():
        timed = [
            (record.candidate.origin is Origin.SEED, secs)
            for record in records
            if record.task_key == task_key and (secs := _verified_secs(record)) is not None
        ]
        if timed:
            before_secs = next((secs for is_default, secs in timed if is_default), timed[0][1])
            after_secs = min(secs for _, secs in timed)
            shares.append(TaskShare(names[task_key], weight, before_secs, after_secs))
    return sorted(shares, key=lambda share: share.weight * share.before_secs, reverse=True)


def _improve(best: dict[TaskKey, float], record: TuningRecord) -> None:
    secs = _verified_secs(record)
    if secs is not None and record.task_key in best:
        best[record.task_key] = min(best[record.task_key], secs)


def _verified_secs(record: TuningRecord) -> float | None:
    result = record.result
    return result.median_secs if isinstance(result, MeasureSuccess) and result.is_verified else None
