"""How well the cost model ranked what was then measured, from the log alone."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tunewright.core.trial_columns import TrialColumns
from tunewright.core.types import FailureKind, speed_ratio
from tunewright.cost_model.metrics import spearman, top_k_recall
from tunewright.plots.data import Trials, as_columns

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


def model_quality(trials: Trials, *, max_windows: int = 12) -> ModelQuality:
    """Compare scores with times, calibrated by the reference kernel.

    As in training, a pruned candidate has the time of its one sample, any other failure is the worst, and a
    lost worker says nothing.

    Args:
        trials: of one run, in the order in which they were measured.
        max_windows: how finely to show the change over time.
    """
    columns = as_columns(trials)
    batches = _batches(columns)
    width = max(1, math.ceil(len(columns) / max_windows))
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


def _batches(columns: TrialColumns) -> list[_Batch]:
    """Of what was scored, that which can be ranked: in the order of its first trials."""
    lost = tuple(FailureKind).index(FailureKind.WORKER_LOST)
    scored = np.flatnonzero(np.isfinite(columns.predicted_score) & (columns.failure != lost))
    of_batch = columns.task[scored] * len(columns.model_ids) + columns.model[scored]
    order = np.argsort(of_batch, kind="stable")
    ends = np.flatnonzero(np.diff(of_batch[order])) + 1
    members = sorted(np.split(scored[order], ends), key=lambda indices: indices[:1].tolist())
    labels = [_labels(columns, indices) for indices in members]
    return [
        _Batch(int(indices[-1]) + 1, columns.predicted_score[indices], label)
        for indices, label in zip(members, labels, strict=True)
        # Fewer cannot be ranked, nor can those of which none is better than another.
        if len(label) >= MIN_RANKED and label.min() != label.max()
    ]


def _labels(columns: TrialColumns, indices: npt.NDArray[np.int64]) -> Floats:
    """Calls per second, 0 of a failure."""
    yardsticks, places = np.unique(columns.yardstick_secs[indices], return_inverse=True)
    known = columns.yardstick_secs[indices][~np.isnan(columns.yardstick_secs[indices])]
    usual_secs = float(np.median(known)) if len(known) else None
    ratios = [speed_ratio(None if math.isnan(secs) else secs, usual_secs) for secs in yardsticks.tolist()]
    return np.nan_to_num(np.array(ratios)[places] / columns.sample_secs[indices], nan=0.0)


def _places(values: Floats) -> Floats:
    """Mean ranks of equal values, scaled to [0, 1]."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts + 1) / 2
    return np.asarray(mean_rank[inverse] / (len(values) - 1), dtype=np.float64)


def _mean(values: Sequence[float], batches: Sequence[_Batch]) -> float:
    return float(np.average(values, weights=[len(batch.label) for batch in batches]))
