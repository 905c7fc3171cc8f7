"""Transfer, learning curves and mistakes of fake models whose knowledge is known."""

import numpy as np
import pytest

from tests.cost_model.test_evaluation import make_set, oracle
from tests.cost_model.trials import learnable_set
from tunewright.cost_model import TrainingSet
from tunewright.cost_model.transfer import held_out_scores, learning_curve, transfer_matrix
from tunewright.cost_model.xgboost_model import fit_predict, log2_labels


def test_each_task_ranks_the_same_fifth_of_all() -> None:
    data = make_set(3, 20)
    tested: list[tuple[float, ...]] = []

    def spy(train: TrainingSet, test: TrainingSet) -> np.ndarray:
        assert len(np.unique(train.group)) == 1 and not set(train.label) & set(test.label)
        tested.append(tuple(test.label))
        # Knows its own task only.
        return oracle(train, test) * np.where(test.group == train.group[0], 1, -1)

    found = transfer_matrix(data, spy, seed=0)
    assert len(found) == 9 and len(set(tested)) == 1
    for one in found:
        assert one.num_records == 16
        assert one.metrics["spearman"] == pytest.approx(1 if one.learnt_from == one.ranked else -1)


def test_points_of_a_curve_grow_by_records_and_hold_out_the_same() -> None:
    data = make_set(4, 25)
    seen: dict[int, list[tuple[set[float], tuple[float, ...]]]] = {}

    def spy(train: TrainingSet, test: TrainingSet) -> np.ndarray:
        assert not set(train.label) & set(test.label)  # labels are unique here
        seen.setdefault(len(train), []).append((set(train.label), tuple(test.label)))
        return oracle(train, test)

    points = learning_curve(data, spy, [60, 20], seed=0)
    assert [point.num_records for point in points] == [20, 60]
    assert all(point.known["spearman"] == point.unseen["spearman"] == pytest.approx(1) for point in points)
    assert len(seen[20]) == len(seen[60]) == 5  # a fifth of each task, then each of four tasks
    for (few, test_of_few), (many, test_of_many) in zip(seen[20], seen[60], strict=True):
        assert few < many and test_of_few == test_of_many


def test_a_point_beyond_the_records_is_empty() -> None:
    (point,) = learning_curve(make_set(2, 20), oracle, [30], seed=0)  # of 40, a task is held out
    assert point.known["spearman"] == pytest.approx(1) and point.unseen == {}
    (alone,) = learning_curve(make_set(1, 20), oracle, [10], seed=0)
    assert alone.known and alone.unseen == {}


def test_held_out_scores_of_an_oracle_are_the_labels_whatever_its_constants() -> None:
    data = make_set(3, 40)
    target = log2_labels(data.label)

    def shifted(train: TrainingSet, test: TrainingSet) -> np.ndarray:
        return log2_labels(test.label) + 10.0 * test.group + len(train)

    np.testing.assert_allclose(held_out_scores(data, shifted, seed=0), target, atol=1e-9)


def test_a_constant_model_predicts_the_mean_of_what_it_learnt_from() -> None:
    """Nothing of what is predicted leaks into the prediction: that of the worst is not lower."""
    data = make_set(1, 50)
    predicted = held_out_scores(data, lambda train, test: np.zeros(len(test)), seed=0)
    target = log2_labels(data.label)
    for value in np.unique(predicted):
        held_out = predicted == value
        assert held_out.sum() == 10
        assert value == pytest.approx(target[~held_out].mean())


def test_nothing_learnt_of_a_group_is_no_prediction() -> None:
    data = make_set(2, 10)
    lonely = data.subset((data.group == 0) | (np.arange(20) == 1))
    predicted = held_out_scores(lonely, oracle, seed=0)
    assert np.isnan(predicted[lonely.group == 1]).all() and np.isfinite(predicted[lonely.group == 0]).all()


@pytest.mark.slow
def test_the_trees_learn_more_from_more() -> None:
    data = learnable_set(800, seed=1, n_groups=4)
    few, many = learning_curve(data, fit_predict(seed=0), [40, 500], seed=0)
    assert many.known["spearman"] > few.known["spearman"] + 0.1
    assert many.unseen["spearman"] > few.unseen["spearman"] + 0.1
    error = held_out_scores(data, fit_predict(seed=0), seed=0) - log2_labels(data.label)
    assert error.std() < 0.8 * log2_labels(data.label).std()
