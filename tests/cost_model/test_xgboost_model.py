from datetime import UTC, datetime

import numpy as np
import pytest

from tests.cost_model.cost_model_contract import CostModelContract
from tests.cost_model.trials import failure, features, learnable_set, success, trial
from tunewright.core.types import FailureKind, ModelSnapshot
from tunewright.cost_model import make_training_set
from tunewright.cost_model.xgboost_model import XGBoostCostModel, evaluate_xgboost


class FixedClock:
    def monotonic(self) -> float:
        return 0.0

    def now(self) -> datetime:
        return datetime(2026, 1, 2, tzinfo=UTC)


class TestXGBoost(CostModelContract):
    def make(self, seed: int) -> XGBoostCostModel:
        return XGBoostCostModel(seed=seed, num_threads=1)

    def load(self, snapshot: ModelSnapshot) -> XGBoostCostModel:
        return XGBoostCostModel.from_snapshot(snapshot, seed=0, num_threads=1)


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
    model = XGBoostCostModel(seed=0, num_threads=1)
    model.fit(make_training_set(trials))
    unseen = [np.repeat(features(seed, 1), 2, axis=0) for seed in range(1000, 1100)]
    score = model.predict(unseen).score
    fails = np.array([array[0, 40] > 14.0 for array in unseen])
    assert score[fails].mean() < 0.2
    assert score[~fails].mean() > 0.6


def test_the_snapshot_keeps_metrics_and_time() -> None:
    model = XGBoostCostModel(seed=0, num_threads=1, clock=FixedClock())
    snapshot = model.fit(learnable_set(20, seed=1), metrics={"within_task_spearman": 0.5})
    assert snapshot.metrics == {"within_task_spearman": 0.5}
    assert snapshot.trained_at == datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.slow
def test_reports_how_well_it_ranks_held_out_records() -> None:
    result = evaluate_xgboost(learnable_set(300, seed=1, n_groups=3), seed=0, num_threads=1)
    assert result["within_task_spearman"] > 0.4
    assert result["by_task_pairwise_accuracy"] > 0.6
    assert result == evaluate_xgboost(learnable_set(300, seed=1, n_groups=3), seed=0, num_threads=1)
