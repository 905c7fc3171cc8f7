"""What the plots of a session's trials draw, computed from what the log returns; no drawing here."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from tunewright.core.task_shares import Improvements, TaskShare, best_secs, improvements, task_places
from tunewright.core.task_shares import shares_by_task as shares_of_columns
from tunewright.core.trial_columns import FAILURE_KINDS, ORIGINS, TrialColumns
from tunewright.core.types import FailureKind, Origin, TaskKey

if TYPE_CHECKING:
    from tunewright.tuning_logs.trial_facts import TrialFacts

Trials: TypeAlias = TrialColumns | Iterable["TrialFacts"]
"""As columns, which a hundred thousand take; or one by one, in the order in which they were measured."""

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


def as_columns(trials: Trials) -> TrialColumns:
    if isinstance(trials, TrialColumns):
        return trials
    from tunewright.tuning_logs.trial_columns import as_columns

    return as_columns(trials)


def shares_by_task(
    trials: Trials, weights: Mapping[TaskKey, int], names: Mapping[TaskKey, str]
) -> dict[TaskKey, TaskShare]:
    """As `core.task_shares` says."""
    return shares_of_columns(as_columns(trials), weights, names)


def best_so_far(
    trials: Trials,
    weights: Mapping[TaskKey, int],
    *,
    known: Trials = (),
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
    columns = as_columns(trials)
    columns = columns.rows(task_places(columns, weights) >= 0)
    start_secs = best_secs(as_columns(known), weights)
    num_trials = len(columns)
    return BestSoFar(
        trials=np.arange(1, num_trials + 1),
        measuring_secs=np.cumsum(columns.wall_secs),
        device_secs=np.cumsum(columns.wall_secs - columns.build_secs),
        wall_secs=_wall_secs(columns, started_at),
        latency_secs=_latency(improvements(columns, weights, start_secs), start_secs, weights, num_trials),
    )


def task_shares(
    trials: Trials, weights: Mapping[TaskKey, int], names: Mapping[TaskKey, str]
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


def gains_by_origin(trials: Trials, weights: Mapping[TaskKey, int]) -> Gains:
    """The steps are where the candidates that were best for a while came from, the largest gain first."""
    columns = as_columns(trials)
    shares = shares_by_task(columns, weights, {task_key: task_key for task_key in weights})
    start = [shares[task_key].before_secs if task_key in shares else math.inf for task_key in weights]
    steps = improvements(columns, weights, np.array(start))
    gain_secs = np.array(list(weights.values()))[steps.task] * (steps.before_secs - steps.after_secs)
    gained: defaultdict[str, float] = defaultdict(float)
    for origin, secs in zip(columns.origin[steps.trial].tolist(), gain_secs.tolist(), strict=True):
        gained[_ORIGIN_NAMES[origin]] += secs
    whole = gains_by_task(list(shares.values()))
    largest_first = sorted(gained.items(), key=lambda step: -step[1])
    return Gains(whole.before_secs, whole.after_secs, tuple(largest_first))


def count_outcomes(trials: Trials, *, max_bins: int = 40) -> TrialOutcomes:
    """Count what came of the trials, in at most `max_bins` bins of equal width; the last may be cut short."""
    outcomes = _outcomes(as_columns(trials))
    width = max(1, math.ceil(len(outcomes) / max_bins))
    edges = np.minimum(np.arange(0, len(outcomes) + width, width), len(outcomes))
    occurred = set(np.unique(outcomes).tolist())
    counts = {
        name: np.add.reduceat(outcomes == code, edges[:-1], dtype=np.int64)
        for code, name in enumerate(OUTCOMES)
        if code in occurred
    }
    return TrialOutcomes(edges, counts)


VERIFIED, TIMED, DUPLICATE, QUARANTINED = "verified", "timed only", "duplicate", "in quarantine"
OUTCOMES = (
    *(VERIFIED, TIMED, DUPLICATE, FailureKind.PRUNED.value, QUARANTINED),
    *(kind.value for kind in FailureKind if kind is not FailureKind.PRUNED),
)
_NAME_OF_ORIGIN = {
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
# In the order of the columns' codes.
_ORIGIN_NAMES = tuple(_NAME_OF_ORIGIN[origin] for origin in ORIGINS)
_FAILURE_OUTCOMES = np.array([OUTCOMES.index(kind.value) for kind in FAILURE_KINDS])


def _outcomes(columns: TrialColumns) -> Counts:
    """The place in `OUTCOMES` of each trial."""
    timed = np.where(columns.is_duplicate, OUTCOMES.index(DUPLICATE), OUTCOMES.index(TIMED))
    timed = np.where(columns.is_verified, OUTCOMES.index(VERIFIED), timed)
    timed = np.where(columns.is_in_quarantine, OUTCOMES.index(QUARANTINED), timed)
    return np.where(columns.failure >= 0, _FAILURE_OUTCOMES[columns.failure], timed)


def _wall_secs(columns: TrialColumns, started_at: datetime | None) -> Floats:
    """By the clock, without pauses; a clock that is set back stands still."""
    finished_us = columns.finished_at.astype("datetime64[us]").astype(np.int64)
    if not len(finished_us):
        return np.empty(0)
    if started_at is None:
        started_us = finished_us[0] - round(1e6 * columns.wall_secs[0])
    else:
        started_us = np.datetime64(started_at.astimezone(UTC).replace(tzinfo=None), "us").astype(np.int64)
    waited = np.diff(finished_us, prepend=started_us) / 1e6
    return np.cumsum(np.where((waited > 0) & (waited <= _PAUSE_SECS), waited, 0.0))


def _latency(
    steps: Improvements, start_secs: Floats, weights: Mapping[TaskKey, int], num_trials: int
) -> Floats:
    """The sum over all tasks after each trial, (n_trials,); NaN before each of them has a time."""
    begun = np.isfinite(start_secs)
    calls = np.array(list(weights.values()), dtype=np.float64)
    first_of_task = np.full(len(calls), num_trials)
    np.minimum.at(first_of_task, steps.task, steps.trial)
    first_of_all = int(np.where(begun, 0, first_of_task).max(initial=0))
    # Of differences that are summed up, a double would lose digits.
    changes = np.zeros(num_trials + 1, dtype=np.longdouble)
    changes[0] = math.fsum(calls[begun] * start_secs[begun])
    before_secs = np.where(np.isfinite(steps.before_secs), steps.before_secs, 0.0).astype(np.longdouble)
    # No trial is of two tasks.
    changes[steps.trial + 1] = calls[steps.task] * (steps.after_secs - before_secs)
    latency_secs = np.cumsum(changes)[1:].astype(np.float64)
    latency_secs[:first_of_all] = np.nan
    return latency_secs
