import numpy as np
import pytest

from tests.cost_model.trials import batch_of, features
from tunewright.core.types import TaskKey
from tunewright.cost_model import TrainingSet


def test_packs_ragged_features() -> None:
    arrays = [features(0, 2), features(1, 1), features(2, 3)]
    batch = batch_of(arrays)
    assert batch.n_candidates == 3
    assert batch.owner.tolist() == [0, 0, 1, 2, 2, 2]
    np.testing.assert_array_equal(batch.rows, np.concatenate(arrays))
    assert batch.rows.flags.c_contiguous and not batch.rows.flags.writeable


def test_a_subset_is_what_packing_the_kept_ones_gives() -> None:
    arrays = [features(seed, 1 + seed % 3) for seed in range(7)]
    keep = np.array([True, False, True, True, False, False, True])
    got = batch_of(arrays).subset(keep)
    expected = batch_of([a for a, kept in zip(arrays, keep, strict=True) if kept])
    assert got.n_candidates == expected.n_candidates
    np.testing.assert_array_equal(got.rows, expected.rows)
    np.testing.assert_array_equal(got.owner, expected.owner)


@pytest.mark.parametrize(
    "bad", [np.zeros((0, 164)), np.zeros((1, 163)), np.zeros(164), np.full((1, 164), np.inf)]
)
def test_refuses_what_is_no_feature_array(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="features of candidate 1 have shape"):
        batch_of([features(0), bad.astype(np.float32)])


def test_refuses_labels_of_another_length() -> None:
    batch = batch_of([features(0)])
    with pytest.raises(ValueError, match="one per candidate"):
        TrainingSet(batch, np.zeros(2, np.float32), np.zeros(1, np.int32), (TaskKey("task"),))


def test_refuses_groups_without_a_task() -> None:
    batch = batch_of([features(0)])
    with pytest.raises(ValueError, match="expected ids of the 1 group tasks"):
        TrainingSet(batch, np.zeros(1, np.float32), np.ones(1, np.int32), (TaskKey("task"),))
