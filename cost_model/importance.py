"""What a model goes by: which columns, and which families of them, move the scores inside a task.

A score means something beside those of the same task only. So does importance: what a column says of a task
as a whole, and not of one candidate beside another, does not count.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tunewright.core.types import FloatArray
from tunewright.cost_model.evaluation import Scores, mean_metrics, rank_groups
from tunewright.cost_model.feature_names import column_family, pooled_column_name
from tunewright.cost_model.pooling import N_POOLED, pool_rows
from tunewright.cost_model.types import TrainingSet


class ExplainableModel(Protocol):
    """What is asked of a model; `pooled` are rows of `pool_rows`, (n, 336)."""

    def predict_pooled(self, pooled: FloatArray) -> Scores: ...

    def contributions(self, pooled: FloatArray) -> Scores: ...


@dataclass(frozen=True, slots=True)
class Importance:
    """What a column, or a family of columns, does to the scores of the candidates of a task.

    `score_change`: by how much it lifts or lowers a score on average; 1 is a factor of two of the time.
    `trend`: the correlation of a column's values with what they add, in [-1, 1]; 1: the more, the faster;
    None of a family.
    """

    name: str
    score_change: float
    trend: float | None = None


def feature_importance(model: ExplainableModel, data: TrainingSet) -> list[Importance]:
    """The columns that move the scores of these candidates, the most important first."""
    pooled, contributions = _centred(model, data)
    changes = np.abs(contributions).mean(axis=0)
    found = [
        Importance(
            pooled_column_name(column),
            float(changes[column]),
            _correlation(pooled[:, column], contributions[:, column]),
        )
        for column in map(int, np.flatnonzero(changes))
    ]
    return sorted(found, key=lambda one: -one.score_change)


def family_importance(model: ExplainableModel, data: TrainingSet) -> list[Importance]:
    """As `feature_importance`, of families: what their columns add to a score together.

    Many columns say nearly the same, and trees take one of them by chance; a family shares no such luck.
    """
    _, contributions = _centred(model, data)
    found = [
        Importance(family, float(np.abs(contributions[:, columns].sum(axis=1)).mean()))
        for family, columns in column_families().items()
    ]
    return sorted(found, key=lambda one: -one.score_change)


def permutation_losses(
    model: ExplainableModel,
    held_out: TrainingSet,
    *,
    seed: int,
    metric: str = "spearman",
    num_repeats: int = 5,
) -> dict[str, float]:
    """By how much a metric falls when a family's columns are those of other candidates of the same task.

    Unlike importance, this is about being right: a family that moves scores in vain loses nothing.

    Args:
        held_out: candidates that the model has not learnt from.
        metric: one of `rank_metrics`, where higher is better.

    Returns: families, that with the largest loss first; below 0 the model ranks better without it. Empty
        where no group can be ranked.
    """
    pooled = pool_rows(held_out.features)
    before = mean_metrics(rank_groups(held_out, model.predict_pooled(pooled)))
    if not before:
        return {}
    rng = np.random.default_rng(seed)
    losses: dict[str, float] = {}
    for family, columns in column_families().items():
        scores = [
            model.predict_pooled(_exchanged(pooled, columns, held_out.group, rng)) for _ in range(num_repeats)
        ]
        after = [mean_metrics(rank_groups(held_out, score))[metric] for score in scores]
        losses[family] = before[metric] - float(np.mean(after))
    return dict(sorted(losses.items(), key=lambda item: -item[1]))


def column_families() -> Mapping[str, Sequence[int]]:
    """The columns of `pool_rows` of each family, in the order of the columns."""
    families: defaultdict[str, list[int]] = defaultdict(list)
    for column in range(N_POOLED):
        families[column_family(column)].append(column)
    return families


def _centred(model: ExplainableModel, data: TrainingSet) -> tuple[Scores, Scores]:
    """Values and contributions of the columns, (n, 336) each, without the mean of their group."""
    pooled = pool_rows(data.features)
    return (
        _without_group_means(pooled.astype(np.float64), data.group),
        _without_group_means(model.contributions(pooled), data.group),
    )


def _without_group_means(values: Scores, group: npt.NDArray[np.int32]) -> Scores:
    centred = np.empty_like(values)
    for one in np.unique(group):
        members = group == one
        centred[members] = values[members] - values[members].mean(axis=0)
    return centred


def _correlation(values: Scores, added: Scores) -> float:
    norm = float(np.sqrt((values @ values) * (added @ added)))
    return float(values @ added) / norm if norm > 0 else 0.0


def _exchanged(
    pooled: FloatArray, columns: Sequence[int], group: npt.NDArray[np.int32], rng: np.random.Generator
) -> FloatArray:
    """The same rows, these columns of each from another row of its group, all from the same one."""
    source = np.arange(len(pooled))
    for one in np.unique(group):
        members = np.flatnonzero(group == one)
        source[members] = rng.permutation(members)
    exchanged = pooled.copy()
    exchanged[:, columns] = pooled[source][:, columns]
    return exchanged
