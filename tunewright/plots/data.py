"""What the plots of a session's trials draw, computed from what the log returns; no drawing here."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tunewright.core.types import FailureKind, Origin, TaskKey

if TYPE_CHECKING:
    from tunewright.tuning_logs.trial_facts import TrialFacts

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

# Nothing between two trials takes so long but a session that was interrupted and went on.
_PAUSE_SECS = 300.0


@dataclass(frozen=True, slots=True, eq=False)
class BestSoFar:
    """The best latency known after each trial of one run; all arrays have shape (n_trials,).

    `trials` counts from 1. The seconds are those spent so far: `measuring_secs` by builds and runs, counted
    one by one although builds overlap; `device_secs` by runs alone; `wall_secs` by the clock, without pauses.
    `latency_secs` never increases; it is NaN before every task has a verified time.
    """

    trials: Counts = field(repr=False)
    measuring_secs: Floats = field(repr=False)
    device_secs: Floats = field(repr=False)
    wall_secs: Floats = field(repr=False)
    latency_secs: Floats = field(repr=False)


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
class Gains:
    """How a run of the model went from `before_secs` to `after_secs`: the steps, which sum up to the way."""

    before_secs: float
    after_secs: float
    steps: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, eq=False)
class TrialOutcomes:
    """What came of the trials, in bins of their order.

    `edges`: (n_bins + 1,) numbers of trials, from 0; `counts`: outcome -> (n_bins,), the good ones first,
    only those that occurred.
    """

    edges: Counts = field(repr=False)
    counts: Mapping[str, Counts]

    @property
    def num_trials(self) -> int:
        return int(self.edges[-1])


def best_so_far(
    trials: Iterable["TrialFacts"],
    weights: Mapping[TaskKey, int],
    *,
    known: Iterable["TrialFacts"] = (),
    started_at: datetime | None = None,
) -> BestSoFar:
    """The estimated latency, the sum of weight x best seconds over the tasks of `weights`, trial by trial.

    One task with weight 1 gives that task's own curve. Only what may be used counts as best, at the time that
    it ranks by; trials of other tasks are left out.

    Args:
        trials: of one run, in the order in which they were measured.
        known: of earlier runs; their times count from the start, their trials and seconds do not.
        started_at: of the run; None: when the first trial was begun.
    """
    best = dict.fromkeys(weights, math.inf)
    for trial in known:
        _improve(best, trial)
    latency_secs = _latency(best, weights)
    rows: list[tuple[float, float, float, float]] = []
    measuring_secs = device_secs = wall_secs = 0.0
    last = started_at
    for trial in trials:
        if trial.task_key not in best:
            continue
        measuring_secs += trial.wall_secs
        device_secs += trial.device_secs
        if last is None:
            last = trial.finished_at - timedelta(seconds=trial.wall_secs)
        waited_secs = (trial.finished_at - last).total_seconds()
        if 0 < waited_secs <= _PAUSE_SECS:
            wall_secs += waited_secs
        last = trial.finished_at
        if _improve(best, trial):
            latency_secs = _latency(best, weights)
        rows.append((measuring_secs, device_secs, wall_secs, latency_secs))
    columns = np.array(rows, dtype=np.float64).reshape(-1, 4).T
    return BestSoFar(np.arange(1, len(rows) + 1), *columns)


def shares_by_task(
    trials: Iterable["TrialFacts"], weights: Mapping[TaskKey, int], names: Mapping[TaskKey, str]
) -> dict[TaskKey, TaskShare]:
    """Before and after of each task that has a usable time, in the order of `weights`.

    Before is the default schedule's time, or that of the first success where the default was not measured.
    """
    defaults: dict[TaskKey, float] = {}
    firsts: dict[TaskKey, float] = {}
    best = dict.fromkeys(weights, math.inf)
    for trial in trials:
        secs = trial.usable_secs
        if secs is None or trial.task_key not in weights:
            continue
        _improve(best, trial)
        firsts.setdefault(trial.task_key, secs)
        if trial.origin is Origin.SEED:
            defaults.setdefault(trial.task_key, secs)
    befores = firsts | defaults
    return {
        task_key: TaskShare(names[task_key], weight, befores[task_key], best[task_key])
        for task_key, weight in weights.items()
        if task_key in befores
    }


def task_shares(
    trials: Iterable["TrialFacts"], weights: Mapping[TaskKey, int], names: Mapping[TaskKey, str]
) -> list[TaskShare]:
    """Those of `shares_by_task`, the costliest before tuning first."""
    shares = shares_by_task(trials, weights, names).values()
    return sorted(shares, key=lambda share: share.weight * share.before_secs, reverse=True)


def gains_by_task(shares: Sequence[TaskShare]) -> Gains:
    """The steps are the tasks that became faster, the largest gain first."""
    gained = sorted((share for share in shares if share.gain_secs > 0), key=lambda share: -share.gain_secs)
    return Gains(
        math.fsum(share.weight * share.before_secs for share in shares),
        math.fsum(share.weight * share.after_secs for share in shares),
        tuple((share.name, share.gain_secs) for share in gained),
    )


def gains_by_origin(trials: Sequence["TrialFacts"], weights: Mapping[TaskKey, int]) -> Gains:
    """The steps are where the candidates that were best for a while came from, the largest gain first."""
    shares = shares_by_task(trials, weights, {task_key: task_key for task_key in weights})
    best = {task_key: share.before_secs for task_key, share in shares.items()}
    gained: defaultdict[str, float] = defaultdict(float)
    for trial in trials:
        before_secs = best.get(trial.task_key, -math.inf)
        if _improve(best, trial):
            gain_secs = weights[trial.task_key] * (before_secs - best[trial.task_key])
            gained[_ORIGIN_NAMES[trial.origin]] += gain_secs
    whole = gains_by_task(list(shares.values()))
    steps = sorted(gained.items(), key=lambda step: -step[1])
    return Gains(whole.before_secs, whole.after_secs, tuple(steps))


def count_outcomes(trials: Iterable["TrialFacts"], *, max_bins: int = 40) -> TrialOutcomes:
    """Count what came of the trials, in at most `max_bins` bins of equal width; the last may be cut short."""
    outcomes = [_outcome(trial) for trial in trials]
    width = max(1, math.ceil(len(outcomes) / max_bins))
    edges = np.minimum(np.arange(0, len(outcomes) + width, width), len(outcomes))
    occurred = set(outcomes)
    names = np.array(outcomes, dtype=object)
    counts = {
        name: np.add.reduceat(names == name, edges[:-1], dtype=np.int64)
        for name in OUTCOMES
        if name in occurred
    }
    return TrialOutcomes(edges, counts)


VERIFIED, TIMED, DUPLICATE, QUARANTINED = "verified", "timed only", "duplicate", "in quarantine"
OUTCOMES = (
    *(VERIFIED, TIMED, DUPLICATE, FailureKind.PRUNED.value, QUARANTINED),
    *(kind.value for kind in FailureKind if kind is not FailureKind.PRUNED),
)
_ORIGIN_NAMES = {
    Origin.SEED: "default schedules",
    Origin.RANDOM: "random points",
    Origin.MUTATION: "mutations",
    Origin.CROSSOVER: "crossovers",
    Origin.DESCENT: "single steps",
    Origin.SAMPLED: "an optimiser's samples",
    Origin.TRANSFER: "other tasks' schedules",
    Origin.REPLAY: "replays",
    Origin.IMPORT: "imported records",
}


def _outcome(trial: "TrialFacts") -> str:
    if trial.failure_kind is not None:
        return trial.failure_kind.value
    if trial.is_in_quarantine:
        return QUARANTINED
    if trial.is_verified:
        return VERIFIED
    return DUPLICATE if trial.is_duplicate else TIMED


def _improve(best: dict[TaskKey, float], trial: "TrialFacts") -> bool:
    """Take over the trial's time where it is better; whether it was."""
    secs = trial.usable_secs
    if secs is None or not secs < best.get(trial.task_key, -math.inf):
        return False
    best[trial.task_key] = secs
    return True


def _latency(best: Mapping[TaskKey, float], weights: Mapping[TaskKey, int]) -> float:
    latency_secs = math.fsum(weight * best[task_key] for task_key, weight in weights.items())
    return latency_secs if math.isfinite(latency_secs) else math.nan
