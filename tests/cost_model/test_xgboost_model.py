from datetime import UTC, datetime

import numpy as np
import pytest

from tests.cost_model.cost_model_contract import CostModelContract
from tests.cost_model.trials import batch_of, failure, features, learnable_set, success, trial
from tunewright.core.types import FailureKind, ModelSnapshot
from tunewright.cost_model import TrainingSet, make_training_set
from tunewright.cost_model.feature_names import pooled_column_name
from tunewright.cost_model.metrics import pairwise_accuracy
from tunewright.cost_model.xgboost_model import MIN_LABEL, MODEL_KIND, XGBoostCostModel, evaluate_xgboost


class FixedClock:
    def monotonic(self) -> float:
        return 0.0

    def now(self) -> datetime:
        return datetime(2026, 1, 2, tzinfo=UTC)


class TestXGBoost(CostModelContract):
    def make(self, seed: int) -> XGBoostCostModel:
        return XGBoostCostModel(seed=seed)

    def load(self, snapshot: ModelSnapshot) -> XGBoostCostModel:
        return XGBoostCostModel.from_snapshot(snapshot, seed=0)


@pytest.mark.slow
def test_two_threads_are_deterministic_too() -> None:
    data = learnable_set(500, seed=1)
    first, second = (XGBoostCostModel(seed=0, num_threads=2).fit(data) for _ in range(2))
    assert first.booster_ubj == second.booster_ubj


def test_failures_sink_below_everything_that_ran() -> None:
    trials = []
    for seed in range(80):
        rows = features(seed)
        fails = bool(rows[0, 40] > 14.0)  # about a third
        rows[1] = rows[0]
        outcome = failure(FailureKind.BUILD_TIMEOUT) if fails else success(1.0 + 0.02 * float(rows[0, 70]))
        trials.append(trial(outcome, seed=seed, rows=rows))
    model = XGBoostCostModel(seed=0)
    model.fit(make_training_set(trials))
    unseen = [np.repeat(features(seed, 1), 2, axis=0) for seed in range(1000, 1100)]
    score = model.predict(batch_of(unseen)).score
    fails = np.array([array[0, 40] > 14.0 for array in unseen])
    assert score[fails].mean() < score[~fails].mean() - 2.0  # four times as slow


def test_the_snapshot_keeps_metrics_and_time() -> None:
    model = XGBoostCostModel(seed=0, clock=FixedClock())
    snapshot = model.fit(learnable_set(20, seed=1), metrics={"within_task_spearman": 0.5})
    assert snapshot.metrics == {"within_task_spearman": 0.5}
    assert snapshot.trained_at == datetime(2026, 1, 2, tzinfo=UTC)


def test_how_good_a_tasks_trials_are_beside_anothers_teaches_nothing() -> None:
    """A task's label is relative to its best trial: a worse best lifts all of its labels alike."""
    data = learnable_set(200, seed=1, n_groups=2)
    lifted = TrainingSet(
        data.features, np.where(data.group == 0, data.label, data.label / 2), data.group, data.group_tasks
    )
    assert data.label.min() > 2 * MIN_LABEL  # nothing falls below the floor
    unseen = batch_of([features(seed) for seed in range(1000, 1050)])
    scores = []
    for training_set in (data, lifted):
        model = XGBoostCostModel(seed=0)
        model.fit(training_set)
        scores.append(model.predict(unseen).score)
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-4)


def test_a_fit_on_a_base_keeps_its_trees_and_forgets_the_fit_before() -> None:
    base = XGBoostCostModel(seed=0).fit(learnable_set(60, seed=1))
    model = XGBoostCostModel.from_snapshot(base, seed=0)
    unseen = batch_of([features(seed) for seed in range(1000, 1050)])
    before = model.predict(unseen).score
    assert not np.array_equal(model.predict(unseen).score, np.zeros(50))
    model.fit(learnable_set(30, seed=2))
    assert not np.array_equal(model.predict(unseen).score, before)
    again = model.fit(learnable_set(40, seed=3))
    fresh = XGBoostCostModel.from_snapshot(base, seed=0).fit(learnable_set(40, seed=3))
    assert (again.model_id, again.n_records, again.kind) == (fresh.model_id, 100, MODEL_KIND)


@pytest.mark.slow
def test_a_base_helps_where_little_is_known_of_a_task() -> None:
    base = XGBoostCostModel(seed=0).fit(learnable_set(400, seed=1))
    few, unseen = learnable_set(16, seed=2), learnable_set(300, seed=3)
    with_base, alone = XGBoostCostModel.from_snapshot(base, seed=0), XGBoostCostModel(seed=0)
    accuracies = []
    for model in (with_base, alone):
        model.fit(few)
        accuracies.append(pairwise_accuracy(unseen.label, model.predict(unseen.features).score))
    assert accuracies[0] > accuracies[1] + 0.1


def test_the_gains_are_shares_of_the_columns_that_decide() -> None:
    model = XGBoostCostModel(seed=0)
    model.fit(learnable_set(200, seed=1))
    gains = model.column_gains()
    assert sum(gains.values()) == pytest.approx(1.0)
    best = max(gains, key=lambda column: gains[column])
    assert pooled_column_name(best) == "main loop nest: unrolled position: none"  # store column 30


@pytest.mark.slow
def test_reports_how_well_it_ranks_held_out_records() -> None:
    result = evaluate_xgboost(learnable_set(300, seed=1, n_groups=3), seed=0, num_threads=1)
    assert result["within_task_spearman"] > 0.4
    assert result["by_task_pairwise_accuracy"] > 0.6
    assert result == evaluate_xgboost(learnable_set(300, seed=1, n_groups=3), seed=0, num_threads=1)
