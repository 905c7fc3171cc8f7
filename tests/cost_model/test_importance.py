"""Importance against models whose workings are known."""

import numpy as np
import pytest

from tests.cost_model.trials import batch_of, features, learnable_set
from tunewright.core.types import FloatArray, TaskKey
from tunewright.cost_model import TrainingSet
from tunewright.cost_model.evaluation import Scores
from tunewright.cost_model.feature_names import STORE_COLUMNS, pooled_column_name
from tunewright.cost_model.importance import (
    column_families,
    family_importance,
    feature_importance,
    permutation_losses,
)
from tunewright.cost_model.pooling import N_POOLED, pool_rows
from tunewright.cost_model.xgboost_model import XGBoostCostModel

UNROLLED, TRAFFIC, OTHER_TRAFFIC = (
    STORE_COLUMNS.index(name)
    for name in ("unrolled position: none", "buffer 1: bytes accessed", "buffer 1: cache lines accessed")
)


class LinearModel:
    """Scores are weighted sums of columns: what each adds is known exactly."""

    def __init__(self, weights: dict[int, float]) -> None:
        self._weights = np.zeros(N_POOLED)
        for column, weight in weights.items():
            self._weights[column] = weight

    def predict_pooled(self, pooled: FloatArray) -> Scores:
        return pooled @ self._weights

    def contributions(self, pooled: FloatArray) -> Scores:
        return pooled * self._weights


def spread(values: FloatArray) -> float:
    return float(np.abs(values - values.mean()).mean())


def make_set(rows: FloatArray, label: FloatArray, group: list[int]) -> TrainingSet:
    """One store per candidate: its row is both the largest and that of the main loop nest."""
    return TrainingSet(
        batch_of([row[np.newaxis] for row in rows]),
        label.astype(np.float32),
        np.array(group, dtype=np.int32),
        tuple(TaskKey(f"task-{number}") for number in range(max(group) + 1)),
    )


def random_rows(num_rows: int) -> FloatArray:
    return np.concatenate([features(seed, 1) for seed in range(num_rows)])


def test_the_columns_of_a_linear_model() -> None:
    rows = random_rows(200)
    data = make_set(rows, np.linspace(0, 1, 200), [0] * 200)
    found = feature_importance(LinearModel({UNROLLED: 0.5, TRAFFIC: -2.0}), data)
    assert [one.name for one in found] == [pooled_column_name(TRAFFIC), pooled_column_name(UNROLLED)]
    assert found[0].score_change == pytest.approx(2.0 * spread(rows[:, TRAFFIC]), rel=1e-5)
    assert found[1].score_change == pytest.approx(0.5 * spread(rows[:, UNROLLED]), rel=1e-5)
    assert [one.trend for one in found] == pytest.approx([-1.0, 1.0])


def test_what_tells_tasks_apart_only_does_not_count() -> None:
    rows = random_rows(40)
    rows[:, UNROLLED] = np.repeat([1.0, 9.0], 20)
    data = make_set(rows, np.linspace(0, 1, 40), [0] * 20 + [1] * 20)
    model = LinearModel({UNROLLED: 5.0, TRAFFIC: 0.1})
    assert [one.name for one in feature_importance(model, data)] == [pooled_column_name(TRAFFIC)]
    assert {one.name: one.score_change for one in family_importance(model, data)}["unrolling"] == 0


def test_columns_of_a_family_add_up_and_cancel_out() -> None:
    rows = random_rows(100)
    rows[:, OTHER_TRAFFIC] = rows[:, TRAFFIC]
    data = make_set(rows, np.linspace(0, 1, 100), [0] * 100)

    def of_traffic(weight: float) -> float:
        found = family_importance(LinearModel({TRAFFIC: 1.0, OTHER_TRAFFIC: weight}), data)
        return {one.name: one.score_change for one in found}["memory traffic"]

    assert of_traffic(1.0) == pytest.approx(2 * spread(rows[:, TRAFFIC]), rel=1e-5)
    assert of_traffic(-1.0) == pytest.approx(0.0)


def test_only_what_is_right_is_missed() -> None:
    """The label is one column; another one moves scores as much, in vain."""
    rows = random_rows(400)
    data = make_set(rows, rows[:, UNROLLED] / 20, [0, 1] * 200)
    losses = permutation_losses(LinearModel({UNROLLED: 1.0, TRAFFIC: 1.0}), data, seed=0)
    assert set(losses) == set(column_families())
    assert next(iter(losses)) == "unrolling" and losses["unrolling"] == pytest.approx(0.7, abs=0.1)
    assert losses["memory traffic"] == pytest.approx(0.0, abs=0.05)  # as wrong as before
    assert losses["vectors"] == 0
    assert losses == permutation_losses(LinearModel({UNROLLED: 1.0, TRAFFIC: 1.0}), data, seed=0)


def test_candidates_keep_their_task_when_columns_are_exchanged() -> None:
    """Where a column is the same in all candidates of a task, exchanging it changes nothing."""
    rows = random_rows(40)
    rows[:, UNROLLED] = np.repeat([1.0, 9.0], 20)
    data = make_set(rows, rows[:, TRAFFIC] / 20, [0] * 20 + [1] * 20)
    assert permutation_losses(LinearModel({UNROLLED: 3.0, TRAFFIC: 1.0}), data, seed=0)["unrolling"] == 0


def test_nothing_to_rank_gives_no_losses() -> None:
    data = make_set(random_rows(3), np.ones(3), [0] * 3)
    assert permutation_losses(LinearModel({UNROLLED: 1.0}), data, seed=0) == {}


def test_the_trees_columns_add_up_to_the_score() -> None:
    model = XGBoostCostModel(seed=0)
    data = learnable_set(200, seed=1)
    model.fit(data)
    pooled = pool_rows(data.features)
    rest = model.predict_pooled(pooled) - model.contributions(pooled).sum(axis=1)
    assert np.ptp(rest) < 1e-4
    assert model.contributions(pooled[:0]).shape == (0, N_POOLED)


def test_the_trees_go_by_the_columns_that_the_labels_follow() -> None:
    model = XGBoostCostModel(seed=0)
    data = learnable_set(400, seed=1)
    model.fit(data)
    best, second = feature_importance(model, data)[:2]
    assert best.name == "main loop nest: unrolled position: none"  # store column 30, best in its middle
    assert second.name.startswith("main loop nest: buffer 2")  # store column 80: the more, the slower
    assert second.trend is not None and second.trend < -0.8
    assert family_importance(model, data)[0].name == "unrolling"
