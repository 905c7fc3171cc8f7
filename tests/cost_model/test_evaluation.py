import numpy as np
import pytest

from tests.cost_model.trials import features
from tunewright.cost_model import FeatureBatch, TrainingSet
from tunewright.cost_model.evaluation import evaluate

METRICS = ("spearman", "pairwise_accuracy", "top_quarter_recall", "top_1_score", "top_5_score")


def make_set(n_groups: int, per_group: int) -> TrainingSet:
    """Every candidate's label can be read in its features, so that a fake model may cheat."""
    n = n_groups * per_group
    label = np.random.default_rng(0).permutation(n).astype(np.float32) / n
    arrays = [np.full((1, 164), value, dtype=np.float32) for value in label]
    group = np.arange(n, dtype=np.int32) % n_groups
    return TrainingSet(FeatureBatch.from_arrays(arrays), label, group)


def oracle(train: TrainingSet, test: TrainingSet) -> np.ndarray:
    return test.features.rows[:, 0].astype(np.float64)


def test_an_oracle_is_perfect_on_both_splits() -> None:
    result = evaluate(make_set(4, 30), oracle, seed=0)
    assert set(result) == {f"{split}_{metric}" for split in ("within_task", "by_task") for metric in METRICS}
    assert list(result.values()) == pytest.approx([1.0] * 10)


def test_a_constant_model_is_at_chance() -> None:
    result = evaluate(make_set(4, 200), lambda train, test: np.zeros(len(test)), seed=0)
    assert result["within_task_spearman"] == 0.0
    assert result["by_task_pairwise_accuracy"] == 0.5
    assert 0.1 < result["by_task_top_quarter_recall"] < 0.4


def test_nothing_held_out_is_trained_on() -> None:
    data = make_set(5, 20)
    shares: list[float] = []
    whole_groups: list[bool] = []

    def spy(train: TrainingSet, test: TrainingSet) -> np.ndarray:
        assert not set(train.label) & set(test.label)  # labels are unique here
        assert len(train) + len(test) == len(data)
        shares.append(len(test) / len(data))
        whole_groups.append(not set(train.group) & set(test.group))
        return oracle(train, test)

    evaluate(data, spy, seed=3)
    assert shares == pytest.approx([0.2, 0.4, 0.2, 0.2, 0.2])
    assert whole_groups == [False, True, True, True, True]
    assert sum(shares[1:]) == pytest.approx(1.0)


def test_two_tasks_are_too_few_for_a_split_by_task() -> None:
    assert {name.split("_task_")[0] for name in evaluate(make_set(2, 30), oracle, seed=0)} == {"within"}


def test_few_or_equal_trials_give_no_numbers() -> None:
    assert evaluate(make_set(1, 3), oracle, seed=0) == {}
    failures = TrainingSet(
        FeatureBatch.from_arrays([features(seed) for seed in range(40)]),
        np.zeros(40, dtype=np.float32),
        np.zeros(40, dtype=np.int32),
    )
    assert evaluate(failures, lambda train, test: np.zeros(len(test)), seed=0) == {}
