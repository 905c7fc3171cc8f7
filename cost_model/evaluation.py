"""How well a cost model ranks candidates that it has not seen, inside known tasks and on new ones."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from tunewright.cost_model.metrics import pairwise_accuracy, spearman, top_k_recall, top_k_score
from tunewright.cost_model.types import TrainingSet

Mask = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.float64]
FitPredict = Callable[[TrainingSet, TrainingSet], Scores]

_HELD_OUT_SHARE = 0.2
_MIN_GROUPS = 3  # held-out groups say something about new tasks only if others remain to learn from
_MAX_FOLDS = 4
_MIN_HELD_OUT = 4  # fewer candidates of a group cannot be ranked in any telling way
_TOP_SHARE = 0.25


def evaluate(training_set: TrainingSet, fit_predict: FitPredict, *, seed: int) -> dict[str, float]:
    """Held-out metrics, each the mean over groups weighted by their held-out candidates.

    `within_task_*`: a seeded fifth of every group is held out. `by_task_*`, with three groups or more:
    whole groups are held out in turn, in at most four folds. After each prefix: `spearman`,
    `pairwise_accuracy`, `top_quarter_recall` (recall@k of top-k with k = a quarter of the group's held-out
    candidates, so that chance is 1/4 whatever the size), `top_1_score` and `top_5_score`.

    Args:
        fit_predict: trains on its first argument and returns scores (n,) of its second.

    Returns: no entry for what the data are too few to tell; finite values.
    """
    result = _weighted_means("within_task", training_set, fit_predict, [_held_out_fifth(training_set, seed)])
    if training_set.n_groups >= _MIN_GROUPS:
        result |= _weighted_means("by_task", training_set, fit_predict, _held_out_groups(training_set, seed))
    return result


def rank_metrics(label: npt.NDArray[np.float32], score: Scores) -> dict[str, float]:
    """All metrics of one group; empty where it has too few candidates, or none better than another."""
    n = len(label)
    if n < _MIN_HELD_OUT or label.min() == label.max():
        return {}
    return {
        "spearman": spearman(label, score),
        "pairwise_accuracy": pairwise_accuracy(label, score),
        "top_quarter_recall": top_k_recall(label, score, math.ceil(_TOP_SHARE * n)),
        "top_1_score": top_k_score(label, score, 1),
        "top_5_score": top_k_score(label, score, 5),
    }


def _held_out_fifth(training_set: TrainingSet, seed: int) -> Mask:
    rng = np.random.default_rng(seed)
    held_out = np.zeros(len(training_set), dtype=np.bool_)
    for group in np.unique(training_set.group):
        members = rng.permutation(np.flatnonzero(training_set.group == group))
        held_out[members[: round(_HELD_OUT_SHARE * len(members))]] = True
    return held_out


def _held_out_groups(training_set: TrainingSet, seed: int) -> Iterator[Mask]:
    groups = np.random.default_rng(seed).permutation(np.unique(training_set.group))
    n_folds = min(_MAX_FOLDS, len(groups))
    for fold in range(n_folds):
        yield np.isin(training_set.group, groups[fold::n_folds])


def _weighted_means(
    prefix: str,
    training_set: TrainingSet,
    fit_predict: FitPredict,
    folds: Iterator[Mask] | list[Mask],
) -> dict[str, float]:
    sums: dict[str, float] = {}
    weights: dict[str, int] = {}
    for held_out in folds:
        if not held_out.any() or held_out.all():
            continue
        test = training_set.subset(held_out)
        score = fit_predict(training_set.subset(~held_out), test)
        for group in np.unique(test.group):
            member = test.group == group
            for name, value in rank_metrics(test.label[member], score[member]).items():
                sums[name] = sums.get(name, 0.0) + value * int(member.sum())
                weights[name] = weights.get(name, 0) + int(member.sum())
    return {f"{prefix}_{name}": total / weights[name] for name, total in sums.items()}
