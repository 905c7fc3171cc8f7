"""How well the cost model ranked what was then measured, from the log alone."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tunewright.core.types import FailureKind, speed_ratio
from tunewright.cost_model.metrics import spearman, top_k_recall

if TYPE_CHECKING:
    from tunewright.tuning_logs.trial_facts import TrialFacts

Floats = npt.NDArray[np.float64]

# Fewer candidates of a batch cannot be ranked in any telling way.
MIN_RANKED = 4
TOP_SHARE = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class ModelQuality:
    """How the scores that candidates had before they were measured rank them.

    Ranked are the candidates that one model scored for one task, 4 or more, one against another. Over
    time, arrays (n_windows,): `trials`, the trial with which a window of the run ends; `spearman` in [-1, 1]
    and `top_quarter_recall` in [0, 1], means over the batches that end in it, weighted by their candidates.
    Of each candidate, arrays (n_candidates,): `predicted_place` and `measured_place` in its batch, from 0,
    the worst, to 1, the best.
    """

    trials: npt.NDArray[np.int64] = field(repr=False)
    spearman: Floats = field(repr=False)
    top_quarter_recall: Floats = field(repr=False)
    predicted_place: Floats = field(repr=False)
    measured_place: Floats = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """Scores and labels, (n,) each, of what one model scored for one task, up to the run's trial `end`."""

    end: int
    score: Floats
    label: Floats

    @property
    def recall(self) -> float:
        return top_k_recall(self.label, self.score, math.ceil(TOP_SHARE * len(self.label)))


def model_quality(trials: Iterable["TrialFacts"], *, max_windows: int = 12) -> ModelQuality:
    """Compare scores with times, calibrated by the reference kernel.

    As in training, a pruned candidate has the time of its one sample, any other failure is the worst, and a
    lost worker says nothing.

    Args:
        trials: of one run, in the order in which they were measured.
        max_windows: how finely to show the change over time.
    """
    scored: defaultdict[tuple[str, str | None], list[tuple[int, TrialFacts]]] = defaultdict(list)
    num_trials = 0
    for num_trials, trial in enumerate(trials, start=1):
        if trial.predicted_score is not None and trial.failure_kind is not FailureKind.WORKER_LOST:
            scored[trial.task_key, trial.setup.model_id].append((num_trials, trial))
    batches = [batch for members in scored.values() if (batch := _batch(members)) is not None]
    width = max(1, math.ceil(num_trials / max_windows))
    windows: defaultdict[int, list[_Batch]] = defaultdict(list)
    for batch in batches:
        windows[math.ceil(batch.end / width)].append(batch)
    ordered = [windows[window] for window in sorted(windows)]
    return ModelQuality(
        trials=np.array([max(batch.end for batch in window) for window in ordered], dtype=np.int64),
        spearman=np.array([_mean([spearman(b.label, b.score) for b in w], w) for w in ordered]),
        top_quarter_recall=np.array([_mean([batch.recall for batch in w], w) for w in ordered]),
        predicted_place=np.concatenate([np.empty(0), *(_places(batch.score) for batch in batches)]),
        measured_place=np.concatenate([np.empty(0), *(_places(batch.label) for batch in batches)]),
    )


def _batch(members: Sequence[tuple[int, "TrialFacts"]]) -> _Batch | None:
    """None where there is nothing to rank: too few candidates, or none better than another."""
    label = _labels([trial for _, trial in members])
    if len(label) < MIN_RANKED or label.min() == label.max():
        return None
    score = np.array([trial.predicted_score for _, trial in members], dtype=np.float64)
    return _Batch(members[-1][0], score, label)


def _labels(trials: Sequence["TrialFacts"]) -> Floats:
    """Calls per second, 0 of a failure."""
    known = [trial.yardstick_secs for trial in trials if trial.yardstick_secs is not None]
    usual_secs = float(np.median(known)) if known else None
    return np.array([_calls_per_sec(trial, usual_secs) for trial in trials], dtype=np.float64)


def _calls_per_sec(trial: "TrialFacts", usual_secs: float | None) -> float:
    run_secs = trial.run_secs if trial.failure_kind in (None, FailureKind.PRUNED) else ()
    return speed_ratio(trial.yardstick_secs, usual_secs) / statistics.median(run_secs) if run_secs else 0.0


def _places(values: Floats) -> Floats:
    """Mean ranks of equal values, scaled to [0, 1]."""
    below = (values[:, np.newaxis] > values).sum(axis=1)
    equal = (values[:, np.newaxis] == values).sum(axis=1)
    return np.asarray((below + (equal - 1) / 2) / (len(values) - 1), dtype=np.float64)


def _mean(values: Sequence[float], batches: Sequence[_Batch]) -> float:
    return float(np.average(values, weights=[len(batch.label) for batch in batches]))
